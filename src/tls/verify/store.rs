//! The authorities to verify with, each trust domain's apart from the others'.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{Der, TrustAnchor};

use super::cache::Cache;
use crate::identity::material::{Authority, Bundle};
use crate::spiffe::TrustDomain;
use crate::spiffe::svid::{self, Validity};

/// The authorities of every trust domain we hold a bundle of, ready to verify with. Built once for each
/// `identity::material::Material`; nothing is built when a peer is verified, and nothing locked but the memory of those
/// that were.
#[derive(Debug)]
pub struct TrustStore {
    domains: BTreeMap<TrustDomain, Anchors>,
    unusable: Vec<Unusable>,
    /// The peers that these authorities vouched for.
    pub(super) verified: Cache,
}

/// An authority that nothing can be verified with. Peers that depend on it are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authority {position} of the bundle of `{trust_domain}` cannot be used: {problem}")]
pub struct Unusable {
    /// Whose bundle it is in.
    pub trust_domain: TrustDomain,
    /// Its place in the bundle, from 1.
    pub position: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// Why there is no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustStoreError {
    /// No bundle holds an authority that can be used.
    #[error("no bundle holds a usable authority{}", .0.as_ref().map(|first| format!(": {first}")).unwrap_or_default())]
    Nothing(Option<Unusable>),
}

impl TrustStore {
    /// Makes the store. An authority that cannot be used is left out and listed by [`TrustStore::unusable`], so that
    /// one bad federated bundle does not stop our own rotation; a trust domain without any is unknown.
    ///
    /// # Errors
    /// No authority at all can be used.
    pub fn new(bundles: &BTreeMap<TrustDomain, Arc<Bundle>>) -> Result<Self, TrustStoreError> {
        let mut store = Self {
            domains: BTreeMap::new(),
            unusable: Vec::new(),
            verified: Cache::default(),
        };
        for (trust_domain, bundle) in bundles {
            let mut anchors = Anchors::default();
            // The one that ends last comes first: of two certificates for one key, the chain gets the later end.
            let mut authorities: Vec<_> = (1..).zip(&bundle.authorities).collect();
            authorities.sort_by_key(|(_, authority)| std::cmp::Reverse(authority.not_after));
            for (position, authority) in authorities {
                if let Err(problem) = anchors.add(authority) {
                    store.unusable.push(Unusable {
                        trust_domain: trust_domain.clone(),
                        position,
                        problem,
                    });
                }
            }
            if !anchors.anchors.is_empty() {
                store.domains.insert(trust_domain.clone(), anchors);
            }
        }
        if store.domains.is_empty() {
            return Err(TrustStoreError::Nothing(store.unusable.into_iter().next()));
        }
        Ok(store)
    }

    /// The authorities that were left out.
    #[must_use]
    pub fn unusable(&self) -> &[Unusable] {
        &self.unusable
    }

    /// The trust domains whose peers can be verified.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains.keys()
    }

    pub(super) fn anchors(&self, trust_domain: &TrustDomain) -> Option<&Anchors> {
        self.domains.get(trust_domain)
    }
}

/// What webpki does not keep of an authority.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnchorFacts {
    pub(super) validity: Validity,
    pub(super) path_len: Option<u32>,
}

impl AnchorFacts {
    fn is_valid(&self, now: SystemTime) -> bool {
        self.validity.not_before <= now && now <= self.validity.not_after
    }
}

/// The authorities of one trust domain.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    anchors: Vec<TrustAnchor<'static>>,
    /// Beside each of `anchors`.
    facts: Vec<AnchorFacts>,
}

impl Anchors {
    fn add(&mut self, authority: &Authority) -> Result<(), String> {
        let validity = svid::check_authority(&authority.certificate).map_err(|e| e.to_string())?;
        let path_len = svid::path_len(&authority.certificate).map_err(|e| e.to_string())?;
        let anchor = webpki::anchor_from_trusted_cert(&authority.certificate).map_err(|e| e.to_string())?;
        self.anchors.push(anchor.to_owned());
        self.facts.push(AnchorFacts { validity, path_len });
        Ok(())
    }

    /// Those that are valid at `now`. Allocates only while some are not.
    pub(super) fn valid(&self, now: SystemTime) -> Selection<'_> {
        if self.facts.iter().all(|facts| facts.is_valid(now)) {
            return Selection {
                anchors: Cow::Borrowed(&self.anchors),
                facts: Cow::Borrowed(&self.facts),
            };
        }
        self.select(|facts| facts.is_valid(now))
    }

    /// Those that are not valid at `now`.
    pub(super) fn invalid(&self, now: SystemTime) -> Selection<'_> {
        self.select(|facts| !facts.is_valid(now))
    }

    fn select(&self, keep: impl Fn(&AnchorFacts) -> bool) -> Selection<'_> {
        let (anchors, facts): (Vec<_>, Vec<_>) = self
            .anchors
            .iter()
            .zip(&self.facts)
            .filter(|(_, facts)| keep(facts))
            .map(|(anchor, facts)| (borrowed(anchor), *facts))
            .unzip();
        Selection {
            anchors: Cow::Owned(anchors),
            facts: Cow::Owned(facts),
        }
    }
}

fn borrowed<'a>(anchor: &'a TrustAnchor<'static>) -> TrustAnchor<'a> {
    TrustAnchor {
        subject: Der::from_slice(&anchor.subject),
        subject_public_key_info: Der::from_slice(&anchor.subject_public_key_info),
        name_constraints: anchor.name_constraints.as_ref().map(|der| Der::from_slice(der)),
    }
}

/// Some authorities of one trust domain.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    anchors: Cow<'a, [TrustAnchor<'a>]>,
    facts: Cow<'a, [AnchorFacts]>,
}

impl Selection<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'_>] {
        &self.anchors
    }

    /// What is known of one of [`Selection::anchors`]. Two authorities may have the same subject and key and differ
    /// in their end alone, so that it is the place that tells them apart.
    pub(super) fn facts(&self, anchor: &TrustAnchor<'_>) -> Option<&AnchorFacts> {
        let place = self
            .anchors
            .iter()
            .position(|ours| std::ptr::addr_eq(ours, anchor))?;
        self.facts.get(place)
    }
}
