//! The rules as netlink messages, and what the kernel answers. Pure: bytes in, bytes out.
//!
//! Written after `linux/netfilter/nf_tables.h` and `nfnetlink.h`; a test holds it to what `nft` sends for the same rules.
//! A message is a header, a family, and attributes (type, length, value, padded to four bytes), some of which hold
//! attributes again. Numbers in headers are the machine's, those in attributes of nftables big-endian.

mod encode;
#[cfg(test)]
mod tests;

use self::encode::{act, matches, nested, number, patch, text};
use super::rules::{Chain, Hook, PRIORITY, Rule, TABLE, Table};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
const INET: u8 = 1;

/// `NLM_F_REQUEST`, and those that are added to it.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// In the type of an attribute that holds attributes.
const NESTED: u16 = 0x8000;

const HEADER: usize = 16;

/// The messages of one transaction.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// The number of the next message.
    next: u32,
}

/// What the kernel said of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of it is in force.
    Done,
    /// Nothing of it is.
    Refused {
        /// The system's error.
        errno: i32,
        /// What the kernel said of it in words.
        words: Option<String>,
    },
    /// Nothing that tells.
    Missing,
}

/// Puts these rules in place of those that were there.
#[must_use]
pub fn replace(table: &Table) -> Batch {
    let mut batch = Batch::begin();
    // Makes it where there is none, so that there is one to delete.
    batch.table(NEW_TABLE);
    batch.table(DELETE_TABLE);
    batch.table(NEW_TABLE);
    for chain in &table.chains {
        batch.chain(chain.hook);
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            batch.rule(chain, rule);
        }
    }
    batch.end()
}

/// Takes them away.
#[must_use]
pub fn delete() -> Batch {
    let mut batch = Batch::begin();
    batch.table(NEW_TABLE);
    batch.table(DELETE_TABLE);
    batch.end()
}

impl Batch {
    fn begin() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            next: 0,
        };
        batch.message(BATCH_BEGIN, 0, |_| {});
        batch
    }

    fn end(mut self) -> Self {
        self.acknowledge_last();
        self.message(BATCH_END, 0, |_| {});
        self
    }

    /// What is sent, in one piece.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of the message that is acknowledged: the last one before the end.
    const fn last(&self) -> u32 {
        self.next.saturating_sub(2)
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.next.to_ne_bytes());
        self.bytes.extend([0; 4]);
        // The family, a version, and for the bounds of a batch whose it is.
        let (family, subsystem) = match kind {
            BATCH_BEGIN | BATCH_END => (0, SUBSYSTEM),
            _ => (INET, 0),
        };
        self.bytes.extend([family, 0]);
        self.bytes.extend(subsystem.to_be_bytes());
        body(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        patch(&mut self.bytes, start, &length.to_ne_bytes());
        self.next += 1;
    }

    /// Has the kernel tell of the last message: it tells of errors by itself, and of nothing else.
    fn acknowledge_last(&mut self) {
        let mut start = 0;
        while let Some(next) = next_message(&self.bytes, start).filter(|next| *next < self.bytes.len()) {
            start = next;
        }
        if let Some(flags) = short(&self.bytes, start + 6) {
            patch(&mut self.bytes, start + 6, &(flags | ACKNOWLEDGE).to_ne_bytes());
        }
    }

    fn table(&mut self, kind: u16) {
        self.message(kind, 0, |to| {
            text(to, 1, TABLE);
            if kind == NEW_TABLE {
                number(to, 2, 0);
            }
        });
    }

    fn chain(&mut self, hook: Hook) {
        // `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`.
        let place = match hook {
            Hook::Prerouting => 0,
            Hook::Output => 3,
        };
        self.message(NEW_CHAIN, CREATE, |to| {
            text(to, 1, TABLE);
            text(to, 3, hook.name());
            text(to, 7, "nat");
            // The policy: `NF_ACCEPT`.
            number(to, 5, 1);
            nested(to, 4, |to| {
                number(to, 1, place);
                number(to, 2, PRIORITY.cast_unsigned());
            });
        });
    }

    fn rule(&mut self, chain: &Chain, rule: &Rule) {
        self.message(NEW_RULE, CREATE | APPEND, |to| {
            text(to, 1, TABLE);
            text(to, 2, chain.hook.name());
            nested(to, 4, |to| {
                for condition in &rule.matches {
                    matches(to, *condition);
                }
                act(to, rule.action);
            });
        });
    }

    /// What the kernel's messages say of this transaction.
    #[must_use]
    pub fn answer(&self, received: &[u8]) -> Answer {
        const ERROR: u16 = 2;
        let mut start = 0;
        let mut done = false;
        while let Some(next) = next_message(received, start) {
            let message = received.get(start..next).unwrap_or_default();
            start = next;
            let (Some(ERROR), Some(errno)) = (short(message, 4), long(message, HEADER)) else {
                continue;
            };
            match errno.cast_signed() {
                0 => done |= long(message, 8) == Some(self.last()),
                errno => {
                    return Answer::Refused {
                        errno: -errno,
                        words: words(message),
                    };
                }
            }
        }
        if done { Answer::Done } else { Answer::Missing }
    }
}

/// What an error says in words (`NLMSGERR_ATTR_MSG`), behind the header of the message that it is about.
fn words(message: &[u8]) -> Option<String> {
    const TOLD: u16 = 0x200;
    const TEXT: u16 = 1;
    if short(message, 6)? & TOLD == 0 {
        return None;
    }
    let mut at = HEADER + 4 + HEADER;
    loop {
        let length = usize::from(short(message, at)?);
        if short(message, at + 2)? & !NESTED == TEXT {
            let said = message.get(at + 4..at + length)?;
            let said = String::from_utf8_lossy(said);
            return Some(said.trim_end_matches('\0').to_owned());
        }
        if length < 4 {
            return None;
        }
        at += length.next_multiple_of(4);
    }
}

/// Where the message that begins at `start` ends.
fn next_message(bytes: &[u8], start: usize) -> Option<usize> {
    let length = usize::try_from(long(bytes, start)?).ok()?;
    let end = start.checked_add(length)?;
    (length >= HEADER && end <= bytes.len()).then(|| end.next_multiple_of(4).min(bytes.len()))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}
