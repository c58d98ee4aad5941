//! Finds in a text what a rule is about.

mod address;
mod name;

use std::net::IpAddr;
use std::ops::Range;

use regex_lite::Regex;

use super::RedactorError;
use crate::config::settings::RedactionFind;

/// What is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An IP address, with its brackets, zone, port or prefix length where there are any.
    Address {
        /// Where it stands.
        range: Range<usize>,
        /// The address.
        ip: IpAddr,
        /// The length of its prefix, where it is written as a network.
        length: Option<u8>,
    },
    /// A SPIFFE ID or a pattern of them.
    SpiffeId {
        /// Where it stands.
        range: Range<usize>,
        /// How long its beginning is, up to its path.
        path: usize,
    },
    /// A name that a certificate claims, and that is no SPIFFE ID.
    Name {
        /// Where it stands.
        range: Range<usize>,
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
            Self::Address { range, .. }
            | Self::SpiffeId { range, .. }
            | Self::Name { range }
            | Self::Text { range } => range.clone(),
        }
    }
}

pub(super) enum Finder {
    Whole,
    Ip,
    SpiffeId,
    Pattern(Regex),
}

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
            Self::Ip => address::all(text),
            Self::SpiffeId => name::all(text),
            Self::Pattern(regex) => {
                let found = regex.find_iter(text).filter(|found| !found.is_empty());
                found.map(|found| Part::Text { range: found.range() }).collect()
            }
        }
    }
}
