//! Is this the log that was written? Reads segments in their order and says the first entry that does not fit.
//!
//! Needs nothing but the files, and takes nothing from them on trust: lines are bounded, and what is no entry is said.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::chain::{Hash, Head, Link};
use super::checkpoint::{Checkpoint, Signed};
use super::segment;
use super::writer::CHECKPOINT_ENTRIES;
use crate::clock::parse_rfc3339;
use crate::identity::material::{Authority, Bundle};
use crate::record::audit::VERSION;
use crate::spiffe::{TrustDomain, svid};
use crate::tls::verify::{PeerSide, TrustStore, verify_chain};

/// What else must hold.
#[derive(Debug, Default)]
pub struct Expectations {
    /// A line must have this hash, of which the first twelve digits at least are given: what was known of the log elsewhere.
    pub head: Option<String>,
    /// Whoever signed must have had an SVID of these authorities. Then there must be signatures, too, as often as a log is
    /// signed.
    pub bundle: Option<Arc<TrustStore>>,
    /// The SPIFFE IDs that may have signed. Where none is given one may, whichever it is: a log has one writer.
    pub signers: Vec<String>,
    /// More entries than this one after the other without a signature are not what is written by whoever holds an SVID.
    pub max_unsigned: Option<u64>,
}

/// What a log is held to that is verified with a bundle: twice what is written before it is signed.
pub const MAX_UNSIGNED: u64 = 2 * CHECKPOINT_ENTRIES;

/// What a log that fits holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The files that were read.
    pub files: usize,
    /// The number of the first entry; above 0 where older files are not there.
    pub first: Option<u64>,
    /// The entries.
    pub entries: u64,
    /// The number, hash and time of the last.
    pub last: Option<(u64, Hash, String)>,
    /// The checkpoints, all of which are good.
    pub checkpoints: u64,
    /// Entries after the last of them: chained, and not signed.
    pub unsigned: u64,
    /// Who signed, with how many checkpoints each.
    pub signers: BTreeMap<String, u64>,
    /// Entries that were lost, by what the log says itself.
    pub lost: u64,
    /// How often a torn end was taken out.
    pub repairs: u64,
    /// Bytes behind the last whole line: of a write that is under way, or was cut short by a crash.
    pub torn: u64,
}

/// Why a log does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// An entry is not what must be there.
    #[error("{}:{line}: {what}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Its line, from 1 up.
        line: u64,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// What is known of the log elsewhere is not in it.
    #[error("no entry has the hash `{0}`: the log was cut off or made anew after that hash was taken")]
    Head(String),
    /// Nobody signed what should be signed.
    #[error(
        "entries {first} to {last} are not signed: whoever holds the SVID signs every {CHECKPOINT_ENTRIES} entries at least, and a \
         log without its signatures proves nothing"
    )]
    Unsigned {
        /// The first of them.
        first: u64,
        /// The last.
        last: u64,
    },
    /// There is nothing to verify.
    #[error("there is no entry in it")]
    Empty,
}

/// The files of the log at `path`, the oldest first: its older segments, and itself.
///
/// # Errors
/// When the folder cannot be read.
pub fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> = segment::older(path)?
        .into_iter()
        .map(|older| older.path)
        .collect();
    // It is not there for a moment while a segment ends, and after a crash at that moment.
    if files.is_empty() || path.exists() {
        files.push(path.to_owned());
    }
    Ok(files)
}

/// Verifies files, which must be in the order in which they were written.
///
/// # Errors
/// The first thing that does not fit.
pub fn verify(files: &[PathBuf], expectations: &Expectations) -> Result<Summary, Mismatch> {
    let mut walk = Walk {
        expectations,
        summary: Summary::default(),
        head: None,
        found: expectations.head.is_none(),
        signer: None,
        signed_to: None,
    };
    for (place, path) in files.iter().enumerate() {
        let unreadable = |error| Mismatch::Unreadable {
            path: path.clone(),
            error,
        };
        let mut lines = segment::lines(path).map_err(unreadable)?;
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            number += 1;
            match segment::read_line(&mut *lines, &mut line) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let what = error.to_string();
                    return Err(entry(path, number, what));
                }
                Err(error) => return Err(unreadable(error)),
            }
            let Some(whole) = line.strip_suffix(b"\n") else {
                if place + 1 < files.len() {
                    return Err(entry(
                        path,
                        number,
                        "the line has no end, and a file comes after it".to_owned(),
                    ));
                }
                walk.summary.torn = u64::try_from(line.len()).unwrap_or(u64::MAX);
                break;
            };
            walk.step(whole).map_err(|what| entry(path, number, what))?;
        }
        walk.summary.files += 1;
    }
    walk.end()
}

fn entry(path: &Path, line: u64, what: String) -> Mismatch {
    Mismatch::Entry {
        path: path.to_owned(),
        line,
        what,
    }
}

struct Walk<'a> {
    expectations: &'a Expectations,
    summary: Summary,
    /// After the last line; `None` before the first.
    head: Option<Head>,
    /// Whether the hash that must be there was.
    found: bool,
    /// Who signed first.
    signer: Option<String>,
    /// The number of the last signature.
    signed_to: Option<u64>,
}

impl Walk<'_> {
    fn step(&mut self, line: &[u8]) -> Result<(), String> {
        let link = Link::read(line).map_err(|error| format!("this is no entry of an audit log: {error}"))?;
        if link.version != VERSION {
            return Err(format!(
                "its version is {}, and this program knows version {VERSION}",
                link.version
            ));
        }
        if let Some(head) = self.head {
            if link.seq != head.next {
                let (found, due) = (link.seq, head.next);
                return Err(format!(
                    "entry {found} stands where entry {due} is due: entries were taken out, put in or moved"
                ));
            }
            if link.prev != head.hash {
                return Err(format!(
                    "entry {} says that the line before it has the hash {}, but it has {}: that line was changed, or this one",
                    link.seq, link.prev, head.hash
                ));
            }
        } else if link.seq == 0 && link.prev != Hash::NONE {
            return Err("entry 0 must have no line before it: it was changed".to_owned());
        }
        if parse_rfc3339(&link.time).is_none() {
            return Err(format!(
                "entry {}: its time `{}` is no RFC 3339 time",
                link.seq, link.time
            ));
        }
        self.summary.unsigned += 1;
        if link.kind == "log" {
            self.of_the_log(&link, line)?;
        }
        let head = Head::after(link.seq, line);
        if let Some(wanted) = &self.expectations.head
            && head.hash.to_string().starts_with(wanted)
        {
            self.found = true;
        }
        let first = *self.summary.first.get_or_insert(link.seq);
        if self
            .expectations
            .max_unsigned
            .is_some_and(|most| self.summary.unsigned > most)
        {
            return Err(self.unsigned(first, link.seq).to_string());
        }
        self.summary.entries += 1;
        self.summary.last = Some((link.seq, head.hash, link.time));
        self.head = Some(head);
        Ok(())
    }

    /// What the log says of itself.
    fn of_the_log(&mut self, link: &Link, line: &[u8]) -> Result<(), String> {
        match link.operation.as_str() {
            "checkpoint" => {
                let bad = |what: &str| {
                    format!(
                        "checkpoint {}: {what}; what is before it since the last good one cannot be trusted",
                        link.seq
                    )
                };
                let checkpoint: Checkpoint =
                    serde_json::from_slice(line).map_err(|error| bad(&error.to_string()))?;
                let signed = checkpoint.check().map_err(|what| bad(&what))?;
                self.trusted(&signed).map_err(|what| bad(&what))?;
                self.signed_to = Some(link.seq);
                let signer = format!("{} ({})", signed.spiffe_id, signed.serial);
                *self.summary.signers.entry(signer).or_default() += 1;
                self.summary.checkpoints += 1;
                self.summary.unsigned = 0;
            }
            "gap" => {
                let said: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
                let lost = said.pointer("/data/lost").and_then(serde_json::Value::as_u64);
                self.summary.lost = self.summary.lost.saturating_add(lost.unwrap_or(0));
            }
            "repair" => self.summary.repairs += 1,
            _ => {}
        }
        Ok(())
    }

    /// The entries up to this one that no signature covers.
    fn unsigned(&self, first: u64, last: u64) -> Mismatch {
        let first = self.signed_to.map_or(first, |seq| seq.saturating_add(1));
        Mismatch::Unsigned { first, last }
    }

    fn trusted(&mut self, signed: &Signed) -> Result<(), String> {
        let expected = &self.expectations.signers;
        let first = self.signer.get_or_insert_with(|| signed.spiffe_id.clone());
        if expected.is_empty() && *first != signed.spiffe_id {
            return Err(format!(
                "it is signed by `{}`, and those before it by `{first}`: a log has one writer; name both if both may have signed",
                signed.spiffe_id
            ));
        }
        if !expected.is_empty() && !expected.contains(&signed.spiffe_id) {
            return Err(format!(
                "it is signed by `{}`, who may not have signed",
                signed.spiffe_id
            ));
        }
        let Some(store) = &self.expectations.bundle else {
            return Ok(());
        };
        let verify = |side| verify_chain(store, &signed.chain, side, signed.time);
        verify(PeerSide::Client)
            .or_else(|_| verify(PeerSide::Server))
            .map(|_| ())
            .map_err(|refusal| format!("its certificate is not of the bundle's authorities: {refusal}"))
    }

    fn end(self) -> Result<Summary, Mismatch> {
        if let (false, Some(wanted)) = (self.found, &self.expectations.head) {
            return Err(Mismatch::Head(wanted.clone()));
        }
        let (Some(first), Some((last, ..))) = (self.summary.first, &self.summary.last) else {
            return Err(Mismatch::Empty);
        };
        // Of a log that must be signed something is, however short it is.
        if self.expectations.max_unsigned.is_some() && self.summary.checkpoints == 0 {
            return Err(self.unsigned(first, *last));
        }
        Ok(self.summary)
    }
}

/// What checks signers' certificates: the authorities of a trust domain, from PEM. They count at the time of each
/// signature, not now.
///
/// # Errors
/// What is wrong with the file, or that none of the authorities in it can be used.
pub fn trust_store(trust_domain: TrustDomain, pem: &[u8]) -> Result<Arc<TrustStore>, String> {
    let authorities = CertificateDer::pem_slice_iter(pem).map(|certificate| {
        let certificate = certificate.map_err(|error| error.to_string())?;
        let validity = svid::check_authority(&certificate).map_err(|error| error.to_string())?;
        Ok(Authority {
            certificate,
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    });
    let bundle = Bundle {
        trust_domain: trust_domain.clone(),
        authorities: authorities.collect::<Result<_, String>>()?,
    };
    let store = TrustStore::new(&BTreeMap::from([(trust_domain, Arc::new(bundle))]));
    store.map(Arc::new).map_err(|error| error.to_string())
}
