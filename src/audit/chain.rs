//! The chain of hashes, and what must be read of a line to follow it. Pure.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::de::{Deserialize, Deserializer, Error as _};

/// The longest line that is written or read, in bytes: verdicts are bounded far below, and a checkpoint's chain of
/// certificates is at most 64 KiB.
pub(super) const MAX_LINE: usize = 256 * 1024;

/// The SHA-256 of one line, without its line feed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the very first entry has as the hash of the line before it: zeros.
    pub const NONE: Self = Self([0; 32]);

    /// Of a line without its line feed.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, line).as_ref());
        Self(hash)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 48 bits, which a metric's number holds exactly: twelve hexadecimal digits.
    #[must_use]
    pub fn short(&self) -> u64 {
        self.0
            .iter()
            .take(6)
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// That a text is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 of `0-9a-f`")]
pub struct NoHash;

impl FromStr for Hash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        // Decoded into 32 bytes; another length there would be a panic.
        if text.len() != 64 {
            return Err(NoHash);
        }
        let mut hash = [0; 32];
        HEXLOWER
            .decode_mut(text.as_bytes(), &mut hash)
            .map_err(|_| NoHash)?;
        Ok(Self(hash))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Where the next entry comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The next entry's number.
    pub(super) next: u64,
    /// The hash of the line before it.
    pub(super) hash: Hash,
}

impl Head {
    /// Of a log without an entry.
    pub(super) const EMPTY: Self = Self {
        next: 0,
        hash: Hash::NONE,
    };

    /// The head when this line, with this number, is the last.
    pub(super) fn after(seq: u64, line: &[u8]) -> Self {
        Self {
            next: seq.saturating_add(1),
            hash: Hash::of(line),
        }
    }

    /// The number of the last entry.
    pub(super) const fn last(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }
}

/// What must be known of a line to follow the chain.
#[derive(Clone, Debug, serde::Deserialize)]
pub(super) struct Link {
    pub(super) version: u32,
    pub(super) seq: u64,
    pub(super) prev: Hash,
    pub(super) time: String,
    pub(super) kind: String,
    pub(super) operation: String,
}

impl Link {
    /// Of a line without its line feed.
    pub(super) fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_text() {
        let hash = Hash::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(hash.short(), 0xe3b0_c442_98fc);
        assert_eq!("0".repeat(64).parse(), Ok(Hash::NONE));
        for bad in [
            "",
            "e3",
            &text.to_uppercase(),
            &format!("{text}0"),
            &text.replace('e', "+"),
        ] {
            assert_eq!(bad.parse::<Hash>(), Err(NoHash), "{bad}");
        }
    }

    #[test]
    fn what_is_no_entry_is_no_link() {
        let good = format!(
            "{{\"version\":1,\"seq\":0,\"prev\":\"{}\",\"time\":\"t\",\"kind\":\"log\",\"operation\":\"segment\",\"more\":[]}}",
            Hash::NONE
        );
        assert_eq!(Link::read(good.as_bytes()).unwrap().seq, 0);
        for bad in [
            "",
            "{}",
            "[1]",
            "null",
            &good.replace("\"seq\":0", "\"seq\":-1"),
            &good[..good.len() - 1],
        ] {
            assert!(Link::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
