//! The emergency brake: SPIFFE IDs, certificates and keys that are refused whatever the policy says.
//!
//! A file of its own, so that a broken policy never keeps an emergency entry from working, nor the reverse. It is asked
//! about every verified peer, of inbound and outbound listeners alike. Pure; reading the file is [`mod@super::load`]'s.

mod file;
mod index;
mod matching;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use self::index::Index;
pub use file::{DenyFile, WrittenEntry, WrittenWhat, compile, key, parse_text, read, serial};
#[cfg(test)]
pub(super) use file::{ENTRY, TOP};

use super::facts::CertificateFacts;
use super::ids::IdSet;
use crate::spiffe::SpiffeId;

/// A compiled deny list. Immutable: a change makes a new one.
#[derive(Debug)]
pub struct DenyList {
    /// In the order of the file.
    entries: Box<[Entry]>,
    index: Index,
    content_hash: Box<str>,
}

/// One entry of a deny list.
#[derive(Clone, Debug)]
pub struct Entry {
    name: Arc<str>,
    description: Option<Arc<str>>,
    what: What,
    /// Only peers of these IDs; all when absent.
    from: Option<IdSet>,
    file: Arc<str>,
    line: u32,
}

/// What an entry names.
#[derive(Clone, Debug)]
enum What {
    /// Peers by ID.
    Ids(IdSet),
    /// Leaf certificates by serial number, as in [`CertificateFacts::serial`].
    Serials(HashSet<Box<str>>),
    /// Keys by the SHA-256 of their SubjectPublicKeyInfo.
    Keys(HashSet<[u8; 32]>),
    /// Every leaf certificate that became valid before this instant.
    IssuedBefore(SystemTime),
}

impl Default for DenyList {
    fn default() -> Self {
        Self::empty()
    }
}

impl DenyList {
    /// The list that names nobody.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Vec::new(), String::new())
    }

    fn new(entries: Vec<Entry>, content_hash: String) -> Self {
        Self {
            index: Index::of(&entries),
            entries: entries.into(),
            content_hash: content_hash.into(),
        }
    }

    /// The first entry that hits. Without a certificate every entry that looks at one hits: what cannot be known must
    /// not help anybody past an emergency.
    #[must_use]
    pub fn find(&self, peer: &SpiffeId, certificate: Option<&CertificateFacts<'_>>) -> Option<&Entry> {
        if self.entries.is_empty() {
            return None;
        }
        match certificate {
            Some(certificate) => self.index.find(&self.entries, peer, certificate),
            None => self.entries.iter().find(|entry| entry.hits(peer, None)),
        }
    }

    /// The entries in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// SHA-256 over the name and content of the file, in hexadecimal; empty for [`DenyList::empty`].
    #[must_use]
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }
}

impl Entry {
    /// The entry's name, unique in the list.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the entry says of itself.
    #[must_use]
    pub const fn description(&self) -> Option<&Arc<str>> {
        self.description.as_ref()
    }

    /// The file and line it stands in.
    #[must_use]
    pub const fn place(&self) -> (&Arc<str>, u32) {
        (&self.file, self.line)
    }
}
