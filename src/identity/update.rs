//! Reads what an identity source gave, checks it, and says what may be published of it. Pure.
//!
//! Owns the rules by which an answer is taken or refused:
//! - An SVID is taken when its leaf is an X.509-SVID with the ID the source names, its key belongs to the leaf, it has
//!   not run out, and its chain is signed by its own trust domain's bundle. When the wanted SVID is not so, the whole
//!   answer is refused and the caller keeps the last good one. Any other SVID that is not so is left out, and said.
//! - Our own bundle comes from the SVID's entry alone: a federated entry for our trust domain is ignored, and said.
//! - Of two SVIDs of one trust domain with different bundles the first one's counts; that the other's is ignored is said.
//! - A federated bundle that cannot be read leaves the last good one of that trust domain in force: rubbish is no word
//!   of the source about its authorities. One that is empty or not there at all *is* such a word: the trust domain
//!   is no longer trusted. A single authority that breaks the profile is left out of its bundle, which only narrows
//!   what is trusted.
//!
//! Everything is bounded: sizes, counts, and the length of what is said about them.

mod defect;
mod der;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

pub use self::defect::{Defect, Problem, Refusal};
use super::material::{Authority, Bundle, Svid};
use crate::config::settings::SvidSelect;
use crate::spiffe::svid::{check_authority, check_intermediate, check_leaf};
use crate::spiffe::{SpiffeId, TrustDomain};

/// The most SVIDs in one answer.
pub const MAX_SVIDS: usize = 100;
/// The most certificates in one chain.
pub const MAX_CHAIN: usize = 16;
/// The most authorities in one bundle.
pub const MAX_AUTHORITIES: usize = 1000;
/// The most federated trust domains.
pub const MAX_FEDERATED: usize = 1000;

/// What an identity source gave, unchecked.
#[derive(Debug, Default)]
pub struct Answer {
    /// In the source's order.
    pub svids: Vec<Offer>,
    /// Bundles of other trust domains (DER, one certificate after the other), by the trust domain's name or SPIFFE ID.
    pub federated: BTreeMap<String, Vec<u8>>,
}

/// An SVID as the source gave it, unchecked.
pub struct Offer {
    /// The ID that the source says it has; `None` from files, where only the leaf says it.
    pub spiffe_id: Option<String>,
    /// DER, one certificate after the other, leaf first.
    pub chain: Vec<u8>,
    /// The private key; `None` when it cannot be read at all. Wiped with the offer, whether it is taken or not.
    pub key: Option<Zeroizing<PrivateKeyDer<'static>>>,
    /// DER, one certificate after the other. From files it is that of the leaf's trust domain, set by [`super::files`].
    pub bundle: Vec<u8>,
    /// Empty for none.
    pub hint: String,
}

// The key must never reach a log by way of `{:?}`.
impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// An answer, read and checked part by part.
#[derive(Debug)]
pub struct Reading {
    /// One for each SVID that the source gave, in its order.
    pub svids: Vec<Result<Arc<Svid>, Problem>>,
    /// The usable bundles; those of the usable SVIDs' trust domains always among them.
    pub bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
    /// What is wrong beside bad SVIDs.
    pub problems: Vec<Problem>,
}

/// What may be published of an answer, but for its generation.
#[derive(Debug)]
pub struct Update {
    /// The wanted SVID; `None` when the source gives good SVIDs but not this one.
    pub svid: Option<Arc<Svid>>,
    /// Every usable SVID.
    pub svids: Vec<Arc<Svid>>,
    /// The bundles.
    pub bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
    /// What was wrong with the rest.
    pub problems: Vec<Problem>,
}

/// Checks an answer at the time `now`, and takes the SVID that `select` wants.
///
/// `last_good` are the bundles in force.
///
/// # Errors
/// When the answer is empty or too large, or the wanted SVID in it is bad.
pub fn check(
    answer: Answer,
    select: &SvidSelect,
    last_good: Option<&BTreeMap<TrustDomain, Arc<Bundle>>>,
    now: SystemTime,
) -> Result<Update, Refusal> {
    // Chosen among what was offered, not among what is good: a bad SVID must not silently become another identity.
    let wanted = wanted(&answer.svids, select);
    let Reading {
        svids,
        bundles,
        mut problems,
    } = read(answer, last_good, now)?;
    let mut chosen = None;
    let mut usable = Vec::with_capacity(svids.len());
    for (place, svid) in svids.into_iter().enumerate() {
        match svid {
            Ok(svid) => {
                if wanted == Some(place) {
                    chosen = Some(Arc::clone(&svid));
                }
                usable.push(svid);
            }
            Err(problem) if wanted == Some(place) => return Err(Refusal::Wanted(problem)),
            Err(problem) => problems.push(problem),
        }
    }
    Ok(Update {
        svid: chosen,
        svids: usable,
        bundles,
        problems,
    })
}

/// Reads and checks every part of an answer at the time `now`.
///
/// # Errors
/// When the answer is empty or too large.
pub fn read(
    answer: Answer,
    last_good: Option<&BTreeMap<TrustDomain, Arc<Bundle>>>,
    now: SystemTime,
) -> Result<Reading, Refusal> {
    if answer.svids.is_empty() {
        return Err(Refusal::NoSvid);
    }
    limit("SVIDs", answer.svids.len(), MAX_SVIDS)?;
    limit("federated bundles", answer.federated.len(), MAX_FEDERATED)?;
    let mut bundles = BTreeMap::new();
    let mut problems = Vec::new();
    let mut svids = Vec::with_capacity(answer.svids.len());
    for (place, offer) in answer.svids.into_iter().enumerate() {
        let part = svid_part(place, &offer);
        svids.push(match read_svid(offer, &part, now, &mut problems) {
            Ok((svid, bundle)) => {
                match bundles.entry(bundle.trust_domain.clone()) {
                    Entry::Vacant(place) => {
                        place.insert(Arc::new(bundle));
                    }
                    Entry::Occupied(first) if **first.get() == bundle => {}
                    Entry::Occupied(_) => problems.push(Problem {
                        part: format!("bundle of {part}"),
                        defect: Defect::Repeated,
                    }),
                }
                Ok(Arc::new(svid))
            }
            Err(defect) => Err(Problem { part, defect }),
        });
    }
    read_federated(&answer.federated, last_good, &mut bundles, &mut problems);
    Ok(Reading {
        svids,
        bundles,
        problems,
    })
}

fn limit(what: &'static str, found: usize, most: usize) -> Result<(), Refusal> {
    if found > most {
        Err(Refusal::TooMany { what, found, most })
    } else {
        Ok(())
    }
}

/// The place of the wanted SVID. Of several with one ID or hint it is the first, as the Workload API asks for hints
/// (section 5.2.1).
fn wanted(offers: &[Offer], select: &SvidSelect) -> Option<usize> {
    match select {
        SvidSelect::First => (!offers.is_empty()).then_some(0),
        SvidSelect::Id(id) => {
            let id = id.to_string();
            offers.iter().position(|offer| match &offer.spiffe_id {
                Some(named) => *named == id,
                // From files, where there is one: its leaf decides, and what is wrong with it must be said.
                None => leaf_id(&offer.chain).is_none_or(|leaf| leaf.to_string() == id),
            })
        }
        SvidSelect::Hint(hint) => offers.iter().position(|offer| offer.hint == *hint),
    }
}

fn leaf_id(chain: &[u8]) -> Option<SpiffeId> {
    let chain = der::split(chain, MAX_CHAIN).ok()?;
    check_leaf(chain.first()?).ok().map(|leaf| leaf.id)
}

fn svid_part(place: usize, offer: &Offer) -> String {
    match &offer.spiffe_id {
        Some(id) => format!("SVID `{}`", cut(id)),
        None => format!("SVID {}", place.saturating_add(1)),
    }
}

/// At most 100 characters of what a source wrote, without control characters.
fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(100).flat_map(char::escape_default).collect();
    if text.chars().nth(100).is_some() {
        short.push('…');
    }
    short
}

fn read_svid(
    offer: Offer,
    part: &str,
    now: SystemTime,
    problems: &mut Vec<Problem>,
) -> Result<(Svid, Bundle), Defect> {
    let Offer {
        spiffe_id,
        chain,
        key,
        bundle,
        hint,
    } = offer;
    let chain = der::split(&chain, MAX_CHAIN)?;
    let (leaf_der, issuers) = chain.split_first().ok_or(Defect::Empty)?;
    let leaf = check_leaf(leaf_der).map_err(|e| Defect::Profile {
        number: 1,
        why: e.to_string(),
    })?;
    if let Some(named) = spiffe_id {
        let named = SpiffeId::new(&named).map_err(|e| Defect::Name {
            name: cut(&named),
            why: format!("no SPIFFE ID: {e}"),
        })?;
        if named != leaf.id {
            return Err(Defect::OtherId {
                leaf: leaf.id.to_string(),
            });
        }
    }
    let mut not_after = leaf.not_after;
    for (number, issuer) in issuers.iter().enumerate() {
        let validity = check_intermediate(issuer).map_err(|e| Defect::Profile {
            number: number.saturating_add(2),
            why: e.to_string(),
        })?;
        not_after = not_after.min(validity.not_after);
    }
    let key = key.ok_or(Defect::UnreadableKey)?;
    check_key(leaf_der, &key)?;
    if not_after <= now {
        return Err(Defect::Expired(not_after));
    }
    if leaf.not_before > now {
        problems.push(Problem {
            part: part.to_owned(),
            defect: Defect::NotYetValid(leaf.not_before),
        });
    }
    let bundle =
        read_bundle(&bundle, leaf.id.trust_domain(), problems).map_err(|e| Defect::OwnBundle(Box::new(e)))?;
    check_chain(leaf_der, issuers, &bundle, now.max(leaf.not_before))?;
    let svid = Svid {
        id: Arc::new(leaf.id),
        hint: (!hint.is_empty()).then_some(hint),
        chain,
        key: key.clone_key(),
        not_before: leaf.not_before,
        not_after,
        serial: leaf.serial,
        key_type: leaf.key_type,
    };
    Ok((svid, bundle))
}

/// Compares the public keys themselves: the algorithm's parameters may be written in more than one way.
fn check_key(leaf: &CertificateDer<'_>, key: &PrivateKeyDer<'_>) -> Result<(), Defect> {
    let key = any_supported_type(key).map_err(|_| Defect::UnreadableKey)?;
    let public = key.public_key().ok_or(Defect::UnreadableKey)?;
    let (_, public) = SubjectPublicKeyInfo::from_der(&public).map_err(|_| Defect::UnreadableKey)?;
    let (_, leaf) =
        x509_parser::certificate::X509Certificate::from_der(leaf).map_err(|e| Defect::Profile {
            number: 1,
            why: e.to_string(),
        })?;
    if leaf.public_key().subject_public_key.data == public.subject_public_key.data {
        Ok(())
    } else {
        Err(Defect::OtherKey)
    }
}

/// Whether the private key is that of the certificate.
#[must_use]
pub fn belongs_together(leaf: &CertificateDer<'_>, key: &PrivateKeyDer<'_>) -> bool {
    check_key(leaf, key).is_ok()
}

/// A leaf whose extended key usage fits one side only is good for that side, so either usage will do here.
fn check_chain(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    bundle: &Bundle,
    now: SystemTime,
) -> Result<(), Defect> {
    let failed = |e: webpki::Error| Defect::Chain(e.to_string());
    let mut anchors = Vec::with_capacity(bundle.authorities.len());
    // The path check takes an anchor's validity for granted.
    for authority in bundle
        .authorities
        .iter()
        .filter(|authority| authority.not_after > now)
    {
        anchors.push(webpki::anchor_from_trusted_cert(&authority.certificate).map_err(failed)?);
    }
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = UnixTime::since_unix_epoch(since_epoch);
    let leaf = EndEntityCert::try_from(leaf).map_err(failed)?;
    let verify = |usage: KeyUsage| {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            issuers,
            time,
            usage,
            None,
            None,
        )
        .map(drop)
    };
    verify(KeyUsage::server_auth())
        .or_else(|_| verify(KeyUsage::client_auth()))
        .map_err(failed)
}

fn read_bundle(
    bytes: &[u8],
    trust_domain: &TrustDomain,
    problems: &mut Vec<Problem>,
) -> Result<Bundle, Defect> {
    let mut authorities: Vec<Authority> = Vec::new();
    let mut first_defect = None;
    for (place, certificate) in der::split(bytes, MAX_AUTHORITIES)?.into_iter().enumerate() {
        match check_authority(&certificate) {
            Ok(validity) => {
                let authority = Authority {
                    certificate,
                    not_before: validity.not_before,
                    not_after: validity.not_after,
                };
                if !authorities.contains(&authority) {
                    authorities.push(authority);
                }
            }
            Err(e) => {
                let defect = Defect::Profile {
                    number: place.saturating_add(1),
                    why: e.to_string(),
                };
                problems.push(Problem {
                    part: bundle_part(trust_domain),
                    defect: defect.clone(),
                });
                first_defect.get_or_insert(defect);
            }
        }
    }
    if authorities.is_empty() {
        return Err(first_defect.unwrap_or(Defect::Empty));
    }
    Ok(Bundle {
        trust_domain: trust_domain.clone(),
        authorities,
    })
}

fn bundle_part(trust_domain: &TrustDomain) -> String {
    format!("bundle of `{trust_domain}`")
}

fn read_federated(
    federated: &BTreeMap<String, Vec<u8>>,
    last_good: Option<&BTreeMap<TrustDomain, Arc<Bundle>>>,
    bundles: &mut BTreeMap<TrustDomain, Arc<Bundle>>,
    problems: &mut Vec<Problem>,
) {
    let own: Vec<TrustDomain> = bundles.keys().cloned().collect();
    for (name, bytes) in federated {
        let trust_domain = match TrustDomain::new(name) {
            Ok(trust_domain) => trust_domain,
            Err(e) => {
                let defect = Defect::Name {
                    name: cut(name),
                    why: format!("no trust domain: {e}"),
                };
                problems.push(Problem {
                    part: "federated bundle".to_owned(),
                    defect,
                });
                continue;
            }
        };
        let part = bundle_part(&trust_domain);
        if bundles.contains_key(&trust_domain) {
            let defect = if own.contains(&trust_domain) {
                Defect::OwnDomain
            } else {
                Defect::Repeated
            };
            problems.push(Problem { part, defect });
            continue;
        }
        match read_bundle(bytes, &trust_domain, problems) {
            Ok(bundle) => drop(bundles.insert(trust_domain, Arc::new(bundle))),
            Err(Defect::Empty) => problems.push(Problem {
                part,
                defect: Defect::Empty,
            }),
            Err(defect) => {
                let defect = match last_good.and_then(|bundles| bundles.get(&trust_domain)) {
                    Some(kept) => {
                        bundles.insert(trust_domain, Arc::clone(kept));
                        Defect::KeptLastGood(Box::new(defect))
                    }
                    None => defect,
                };
                problems.push(Problem { part, defect });
            }
        }
    }
}
