//! Whether an entry hits, and how that is said.

use data_encoding::HEXLOWER;

use super::{Entry, What};
use crate::policy::facts::CertificateFacts;
use crate::spiffe::SpiffeId;

impl Entry {
    /// Whether the entry names this peer. The one place where entries are judged.
    #[must_use]
    pub fn hits(&self, peer: &SpiffeId, certificate: Option<&CertificateFacts<'_>>) -> bool {
        if self.from.as_ref().is_some_and(|from| !from.matches(peer)) {
            return false;
        }
        match (&self.what, certificate) {
            (What::Ids(ids), _) => ids.matches(peer),
            (_, None) => true,
            (What::Serials(serials), Some(leaf)) => serials.contains(leaf.serial),
            (What::Keys(keys), Some(leaf)) => keys.contains(leaf.key_hash),
            (What::IssuedBefore(at), Some(leaf)) => leaf.issued < *at,
        }
    }

    /// The field by which the entry hits: `ids`, `serials`, `keys` or `issued_before`.
    #[must_use]
    pub const fn condition(&self) -> &'static str {
        match self.what {
            What::Ids(_) => "ids",
            What::Serials(_) => "serials",
            What::Keys(_) => "keys",
            What::IssuedBefore(_) => "issued_before",
        }
    }

    /// That the entry hits, and by what, in one line.
    #[must_use]
    pub fn describe(&self, certificate: Option<&CertificateFacts<'_>>) -> String {
        let by = match (&self.what, certificate) {
            (What::Ids(_), _) => "its ID is listed".to_owned(),
            (_, None) => "its certificate is not known, which counts as listed".to_owned(),
            (What::Serials(_), Some(leaf)) => format!("serial number {} is listed", leaf.serial),
            (What::Keys(_), Some(leaf)) => format!("key sha256:{} is listed", HEXLOWER.encode(leaf.key_hash)),
            (What::IssuedBefore(at), Some(leaf)) => format!(
                "its certificate was issued at {}, before {}",
                crate::clock::rfc3339(leaf.issued),
                crate::clock::rfc3339(*at)
            ),
        };
        format!("entry `{}` of the deny list names it: {by}", self.name)
    }
}
