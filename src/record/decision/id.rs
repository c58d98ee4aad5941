//! The names of verdicts and of policies: short, of one spelling, and hardly ever given twice.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};

/// 48 bits: enough to tell apart, short enough to be read aloud.
const SHORT: u64 = (1 << 48) - 1;

/// The name of a verdict: twelve hexadecimal digits that are the process's own, a hyphen, and a number from 1 up:
/// `4f2a90c1d3e7-17`. Unique as far as 48 random bits go; nothing else is to be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId {
    process: u64,
    number: u64,
}

impl DecisionId {
    /// The id as two numbers, for those who keep it where no pointer can lie.
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        [self.process, self.number]
    }

    /// The id whose [`DecisionId::words`] these are.
    #[must_use]
    pub const fn of_words([process, number]: [u64; 2]) -> Self {
        Self { process, number }
    }

    /// The number of the process that gave it, of 48 bits.
    #[must_use]
    pub const fn process(self) -> u64 {
        self.process
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{}", self.process, self.number)
    }
}

impl Serialize for DecisionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// That a text is no [`DecisionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a decision's id is twelve of `0-9a-f`, a hyphen and a number, such as `4f2a90c1d3e7-17`")]
pub struct NoDecisionId;

impl FromStr for DecisionId {
    type Err = NoDecisionId;

    /// Reads the one spelling that is printed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (process, digits) = text.split_once('-').ok_or(NoDecisionId)?;
        let id = Self {
            process: short_hex(process).ok_or(NoDecisionId)?,
            number: digits.parse().map_err(|_| NoDecisionId)?,
        };
        // `+1` and `01` are numbers to the parser.
        if id.number == 0 || id.number.to_string() != digits {
            return Err(NoDecisionId);
        }
        Ok(id)
    }
}

/// Exactly twelve lower-case hexadecimal digits.
fn short_hex(text: &str) -> Option<u64> {
    let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 12 || !text.bytes().all(digits) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// Gives ids to verdicts, one after the other.
#[derive(Debug)]
pub struct DecisionIds {
    process: u64,
    next: AtomicU64,
}

impl DecisionIds {
    /// The ids of a process, which `random` tells from all others.
    #[must_use]
    pub const fn new(random: u64) -> Self {
        Self {
            process: random & SHORT,
            next: AtomicU64::new(1),
        }
    }

    /// The number that tells the process from others, of 48 bits.
    #[must_use]
    pub const fn process(&self) -> u64 {
        self.process
    }

    /// The next one.
    pub fn next(&self) -> DecisionId {
        DecisionId {
            process: self.process,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// A policy by its content, short: the first twelve hexadecimal digits of its content hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyHash(u64);

impl PolicyHash {
    /// The short form of a content hash in hexadecimal; none of an empty one, which is the policy before any was read.
    #[must_use]
    pub fn of(content_hash: &str) -> Option<Self> {
        content_hash.get(..12).and_then(short_hex).map(Self)
    }
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl Serialize for PolicyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
