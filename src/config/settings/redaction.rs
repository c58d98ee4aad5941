//! What is taken out of records before they leave.

use std::path::PathBuf;

/// What is taken out of records before they are written or sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// The rules of the file, applied before the profile's.
    pub rules: Vec<RedactionRule>,
    /// A named list of rules.
    pub profile: Option<RedactionProfile>,
    /// Where the key of keyed hashes is; always there when something is hashed.
    pub key_file: Option<PathBuf>,
}

/// A named list of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedactionProfile {
    /// Regulation (EU) 2016/679.
    Gdpr,
    /// The Personal Information Protection Law of the PRC.
    Pipl,
}

impl RedactionProfile {
    /// Every profile.
    pub const ALL: &'static [Self] = &[Self::Gdpr, Self::Pipl];

    /// The word in the config file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gdpr => "gdpr",
            Self::Pipl => "pipl",
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactionRule {
    /// The fields it concerns; `None` for all.
    pub fields: Option<Vec<String>>,
    /// What it looks for in them.
    pub find: RedactionFind,
    /// What becomes of that.
    pub action: Redact,
}

/// What a rule looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedactionFind {
    /// The value as a whole.
    Value,
    /// IP addresses, with their ports.
    Ip,
    /// SPIFFE IDs.
    SpiffeId,
    /// What a regular expression matches.
    Pattern(String),
}

/// What becomes of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redact {
    /// `***`.
    Mask,
    /// A keyed hash.
    Hash,
    /// Nothing.
    Drop,
    /// Its beginning.
    KeepPrefix {
        /// Path segments of a SPIFFE ID beside its trust domain, or characters of a text.
        keep: usize,
        /// Bits of an IPv4 address.
        ipv4: u8,
        /// Bits of an IPv6 address.
        ipv6: u8,
    },
}
