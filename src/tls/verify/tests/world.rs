//! Two trust domains with their authorities, and keys to forge with.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;

use super::super::TrustStore;
use crate::identity::material::{Authority, Bundle};
use crate::spiffe::TrustDomain;
use crate::spiffe::svid::forge::*;
use crate::spiffe::svid::tests::ID;
use crate::spiffe::svid::{Validity, check_authority};

pub(super) struct World {
    /// Of `example.org`. Its subject is that of `partner`'s, too, as with every SPIRE server.
    pub(super) ca: Key,
    pub(super) ca_der: CertificateDer<'static>,
    /// Of `partner.example`.
    pub(super) partner: Key,
    pub(super) partner_der: CertificateDer<'static>,
    /// In no bundle.
    pub(super) stranger: Key,
    pub(super) leaf: Key,
    pub(super) others: [Key; 3],
    /// Both trust domains.
    pub(super) store: Arc<TrustStore>,
}

pub(super) const CA: &str = "SPIRE";

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (ca, partner) = (Key::p256(), Key::p256());
    let ca_der = Forge::ca(CA, &ca)
        .with_uris(&["spiffe://example.org"])
        .self_signed(&ca);
    let partner_der = Forge::ca(CA, &partner)
        .with_uris(&["spiffe://partner.example"])
        .self_signed(&partner);
    let store = store(&[("example.org", &[&ca_der]), ("partner.example", &[&partner_der])]);
    World {
        ca,
        ca_der,
        partner,
        partner_der,
        stranger: Key::p256(),
        leaf: Key::p256(),
        others: [Key::p256(), Key::p256(), Key::p256()],
        store,
    }
});

impl World {
    pub(super) fn shared() -> &'static Self {
        &WORLD
    }

    /// A leaf with `ID` and the key `leaf`, to be signed.
    pub(super) fn leaf(&self) -> Forge {
        Forge::leaf(ID, &self.leaf)
    }

    /// The intermediate `level` (from 0), to be signed.
    pub(super) fn intermediate(&self, level: usize) -> Forge {
        Forge::ca(&format!("intermediate {level}"), &self.others[level])
    }

    /// A chain with this many intermediates below the authority, the leaf first.
    pub(super) fn deep_chain(&self, intermediates: usize) -> Vec<CertificateDer<'static>> {
        let sign = |forge: Forge, level: usize| match level.checked_sub(1) {
            None => forge.sign(CA, &self.ca),
            Some(above) => forge.sign(&format!("intermediate {above}"), &self.others[above]),
        };
        let mut chain = vec![sign(self.leaf(), intermediates)];
        chain.extend(
            (0..intermediates)
                .rev()
                .map(|level| sign(self.intermediate(level), level)),
        );
        chain
    }
}

/// Also of what no source would publish: that is for the store to find.
fn authority(der: &CertificateDer<'static>) -> Authority {
    let validity = check_authority(der).unwrap_or(Validity {
        not_before: now() - HOUR,
        not_after: now() + HOUR,
    });
    Authority {
        certificate: der.clone(),
        not_before: validity.not_before,
        not_after: validity.not_after,
    }
}

pub(super) fn bundles(of: &[(&str, &[&CertificateDer<'static>])]) -> BTreeMap<TrustDomain, Arc<Bundle>> {
    of.iter()
        .map(|(domain, authorities)| {
            let trust_domain = TrustDomain::new(domain).unwrap();
            let authorities = authorities.iter().map(|der| authority(der)).collect();
            (
                trust_domain.clone(),
                Arc::new(Bundle {
                    trust_domain,
                    authorities,
                }),
            )
        })
        .collect()
}

pub(super) fn store(of: &[(&str, &[&CertificateDer<'static>])]) -> Arc<TrustStore> {
    Arc::new(TrustStore::new(&bundles(of)).unwrap())
}

/// A store with `authority` alone, for `example.org`.
pub(super) fn store_of(authority: &CertificateDer<'static>) -> Arc<TrustStore> {
    store(&[("example.org", &[authority])])
}
