//! Finds in a text what a rule is about.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use regex_lite::Regex;

use super::RedactorError;
use crate::config::settings::RedactionFind;

/// What is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An IP address, its port with it where there is one, and its network's length.
    Address {
        /// Where it stands.
        range: Range<usize>,
        /// The address.
        ip: IpAddr,
    },
    /// A SPIFFE ID or a pattern of them.
    SpiffeId {
        /// Where it stands.
        range: Range<usize>,
        /// How long its beginning is, up to its path.
        path: usize,
    },
    /// Anything else.
    Text {
        /// Where it stands.
        range: Range<usize>,
    },
}

impl Part {
    pub(super) fn range(&self) -> Range<usize> {
        match self {
            Self::Address { range, .. } | Self::SpiffeId { range, .. } | Self::Text { range } => {
                range.clone()
            }
        }
    }
}

pub(super) enum Finder {
    Whole,
    Ip,
    SpiffeId,
    Pattern(Regex),
}

const SCHEME: &str = "spiffe://";

impl Finder {
    pub(super) fn new(find: &RedactionFind) -> Result<Self, RedactorError> {
        Ok(match find {
            RedactionFind::Value => Self::Whole,
            RedactionFind::Ip => Self::Ip,
            RedactionFind::SpiffeId => Self::SpiffeId,
            RedactionFind::Pattern(pattern) => match Regex::new(pattern) {
                Ok(regex) => Self::Pattern(regex),
                Err(error) => {
                    return Err(RedactorError::Pattern {
                        pattern: pattern.clone(),
                        why: error.to_string(),
                    });
                }
            },
        })
    }

    pub(super) const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// What is found in a text, in its order; no two parts overlap.
    pub(super) fn parts(&self, text: &str) -> Vec<Part> {
        match self {
            Self::Whole if text.is_empty() => Vec::new(),
            Self::Whole => vec![Part::Text { range: 0..text.len() }],
            Self::Ip => addresses(text),
            Self::SpiffeId => spiffe_ids(text),
            Self::Pattern(regex) => {
                let found = regex.find_iter(text).filter(|found| !found.is_empty());
                found.map(|found| Part::Text { range: found.range() }).collect()
            }
        }
    }
}

/// Words of what addresses are written with, each tried whole. `[::1]:80`, `10.0.0.1:80`, `10.0.0.0/8`, `fe80::1%eth0`.
fn addresses(text: &str) -> Vec<Part> {
    let belongs =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '[' | ']' | '%' | '/' | '-' | '_');
    let mut parts = Vec::new();
    let mut begin = 0;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if belongs(c) {
            continue;
        }
        let word = text.get(begin..at).unwrap_or_default();
        let trimmed = word.trim_end_matches(['.', ':']);
        if let Some(ip) = address(trimmed) {
            parts.push(Part::Address {
                range: begin..begin + trimmed.len(),
                ip,
            });
        }
        begin = at + c.len_utf8();
    }
    parts
}

fn address(word: &str) -> Option<IpAddr> {
    let (word, length) = match word.split_once('/') {
        Some((word, length)) => (word, Some(length)),
        None => (word, None),
    };
    if length.is_some_and(|length| length.parse::<u8>().is_err()) {
        return None;
    }
    let plain = |word: &str| word.parse::<IpAddr>().ok();
    let with_port = || word.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || plain(word.strip_prefix('[')?.strip_suffix(']')?);
    let with_zone = || plain(word.split_once('%')?.0);
    plain(word)
        .or_else(with_port)
        .or_else(in_brackets)
        .or_else(with_zone)
        .map(|ip| ip.to_canonical())
}

/// From each `spiffe://` as far as an ID or a pattern can reach (SPIFFE-ID sections 2.1 and 2.2).
fn spiffe_ids(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(found) = text.get(from..).and_then(|rest| rest.find(SCHEME)) {
        let begin = from + found;
        let rest = text.get(begin + SCHEME.len()..).unwrap_or_default();
        let belongs =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '*' | '%' | '~');
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        // The full stop of a sentence.
        let id = rest.get(..length).unwrap_or_default().trim_end_matches('.');
        let end = begin + SCHEME.len() + id.len();
        parts.push(Part::SpiffeId {
            range: begin..end,
            path: SCHEME.len() + id.find('/').unwrap_or(id.len()),
        });
        from = end;
    }
    parts
}
