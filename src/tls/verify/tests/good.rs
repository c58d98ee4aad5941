//! Chains that must be accepted, each by name.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::super::{MAX_CHAIN_CERTIFICATES, TrustStore};
use super::world::*;
use crate::spiffe::SpiffeId;
use crate::spiffe::svid::forge::*;
use crate::spiffe::svid::tests::{ID, allowed_leaves};

type Chain = Vec<CertificateDer<'static>>;

/// A chain that must be accepted.
pub(super) struct Good {
    pub(super) name: &'static str,
    pub(super) chain: Chain,
    pub(super) store: Arc<TrustStore>,
    /// The key of its leaf.
    pub(super) key: Key,
    pub(super) not_after: SystemTime,
}

#[derive(Default)]
struct List(Vec<Good>);

impl List {
    /// A chain below `World::leaf` that ends in an hour.
    fn add(&mut self, name: &'static str, chain: Chain, store: &Arc<TrustStore>) {
        self.add_until(now() + HOUR, name, chain, store);
    }

    fn add_until(
        &mut self,
        not_after: SystemTime,
        name: &'static str,
        chain: Chain,
        store: &Arc<TrustStore>,
    ) {
        let key = Key::same_as(&World::shared().leaf);
        self.0.push(Good {
            name,
            chain,
            store: store.clone(),
            key,
            not_after,
        });
    }
}

pub(super) fn good() -> Vec<Good> {
    let world = World::shared();
    let mut list = List::default();
    keys(&mut list);
    what_the_standard_allows(world, &mut list);
    leaves(world, &mut list);
    further_certificates(world, &mut list);
    intermediates(world, &mut list);
    rotation(world, &mut list);
    authorities(world, &mut list);
    list.0
}

/// Every kind of key, as the leaf's and as the authority's.
fn keys(list: &mut List) {
    type Make = fn() -> Key;
    let kinds: [(&str, Make); 6] = [
        ("EC P-256", Key::p256),
        ("EC P-384", Key::p384),
        ("EC P-521", Key::p521),
        ("Ed25519", Key::ed25519),
        ("RSA 2048", || Key::rsa(rcgen::RsaKeySize::_2048)),
        ("RSA 3072", || Key::rsa(rcgen::RsaKeySize::_3072)),
    ];
    for (name, make) in kinds {
        let (ca, key) = (make(), make());
        let store = store_of(&Forge::ca(CA, &ca).self_signed(&ca));
        let chain = vec![Forge::leaf(ID, &key).sign(CA, &ca)];
        list.0.push(Good {
            name,
            chain,
            store,
            key,
            not_after: now() + HOUR,
        });
    }
}

fn what_the_standard_allows(world: &World, list: &mut List) {
    for allowed in allowed_leaves(CA, &world.ca, &world.leaf) {
        let id = SpiffeId::new(&allowed.id).unwrap();
        let store = store(&[(id.trust_domain_name(), &[&world.ca_der])]);
        list.add(allowed.name, vec![allowed.der], &store);
    }
}

fn leaves(world: &World, list: &mut List) {
    let direct = |forge: Forge| vec![forge.sign(CA, &world.ca)];
    let leaf = || world.leaf();
    let store = &world.store;
    list.add(
        "valid from this instant",
        direct(leaf().valid(now(), now() + HOUR)),
        store,
    );
    let until_now = leaf().valid(now() - HOUR, now());
    list.add_until(now(), "valid until this instant", direct(until_now), store);
    let soon = now() + HOUR / 60;
    list.add_until(
        soon,
        "a leaf that ends soon",
        direct(leaf().valid(now() - HOUR, soon)),
        store,
    );
}

fn further_certificates(world: &World, list: &mut List) {
    let store = &world.store;
    for (depth, name) in [
        "no intermediate",
        "1 intermediate",
        "2 intermediates",
        "3 intermediates",
    ]
    .iter()
    .enumerate()
    {
        list.add(name, world.deep_chain(depth), store);
    }
    let mut out_of_order = world.deep_chain(3);
    out_of_order[1..].reverse();
    list.add("intermediates in reverse", out_of_order, store);

    let mut with_extras = world.deep_chain(1);
    with_extras.insert(1, world.partner_der.clone());
    with_extras.push(world.ca_der.clone());
    with_extras.push(CertificateDer::from(b"rubbish".to_vec()));
    with_extras.push(with_extras[0].clone());
    list.add("unrelated certificates among it", with_extras, store);

    let mut ten = world.deep_chain(0);
    ten.resize(MAX_CHAIN_CERTIFICATES, world.partner_der.clone());
    list.add("ten certificates", ten, store);

    let soon = now() + HOUR / 60;
    let mut early = world.deep_chain(1);
    early[1] = world
        .intermediate(0)
        .valid(now() - HOUR, soon)
        .sign(CA, &world.ca);
    list.add_until(soon, "an intermediate that ends first", early, store);

    let mut unused = world.deep_chain(1);
    unused.push(
        world
            .intermediate(1)
            .valid(now() - HOUR, soon)
            .sign(CA, &world.ca),
    );
    list.add("an unused certificate that ends first", unused, store);
}

fn intermediates(world: &World, list: &mut List) {
    let mut below = |name, issuer: Forge| {
        let mut chain = world.deep_chain(1);
        chain[1] = issuer.sign(CA, &world.ca);
        list.add(name, chain, &world.store);
    };
    below(
        "an intermediate of another trust domain's ID",
        world.intermediate(0).with_uris(&["spiffe://other.example"]),
    );
    let usage = key_usage_bits(KEY_CERT_SIGN | CRL_SIGN);
    below(
        "an intermediate whose key usage is not critical",
        world.intermediate(0).with(KEY_USAGE, false, usage),
    );
}

fn rotation(world: &World, list: &mut List) {
    let new = Key::p256();
    let new_der = Forge::ca(CA, &new).self_signed(&new);
    // Two authorities of one subject.
    let rotated = store(&[("example.org", &[&world.ca_der, &new_der])]);
    list.add(
        "the old authority of a rotated bundle",
        world.deep_chain(0),
        &rotated,
    );
    list.add(
        "the new authority of a rotated bundle",
        vec![world.leaf().sign(CA, &new)],
        &rotated,
    );

    let over = Forge::ca(CA, &new)
        .valid(now() - 48 * HOUR, now() - HOUR)
        .self_signed(&new);
    let half_over = store(&[("example.org", &[&over, &world.ca_der])]);
    list.add(
        "an expired authority beside the right one",
        world.deep_chain(1),
        &half_over,
    );

    // One key certified twice, as an authority that was renewed: the valid one counts.
    let earlier = Forge::ca(CA, &world.ca)
        .valid(now() - 48 * HOUR, now() - HOUR)
        .self_signed(&world.ca);
    let renewed = store(&[("example.org", &[&earlier, &world.ca_der])]);
    list.add(
        "an authority that was renewed with its key",
        world.deep_chain(1),
        &renewed,
    );

    let ends_first = Forge::ca(CA, &world.ca)
        .valid(now() - HOUR, now() + HOUR / 60)
        .self_signed(&world.ca);
    let both_valid = store(&[("example.org", &[&ends_first, &world.ca_der])]);
    list.add(
        "an authority renewed before its end",
        world.deep_chain(1),
        &both_valid,
    );

    // The new authority signed by the old one: who has only the old one needs the cross-signed certificate.
    let crossed = vec![
        world.leaf().sign("new", &new),
        Forge::ca("new", &new).sign(CA, &world.ca),
    ];
    let only_new = store_of(&Forge::ca("new", &new).self_signed(&new));
    list.add(
        "cross-signed, for those with the old authority",
        crossed.clone(),
        &world.store,
    );
    list.add(
        "cross-signed, for those with the new authority",
        crossed,
        &only_new,
    );
}

fn authorities(world: &World, list: &mut List) {
    let ca = || Forge::ca(CA, &world.ca);
    let soon = now() + HOUR / 60;
    let ends_first = store_of(&ca().valid(now() - HOUR, soon).self_signed(&world.ca));
    list.add_until(
        soon,
        "an authority that ends first",
        world.deep_chain(1),
        &ends_first,
    );

    // A bundle may hold an intermediate CA without its root.
    let mut chain = world.deep_chain(2);
    let not_self_signed = store_of(&chain[2]);
    chain.pop();
    list.add("an authority that is not self-signed", chain, &not_self_signed);

    // Each leaf is held against the bundle of its own trust domain, also where both bundles hold the same key.
    let shared = store(&[
        ("example.org", &[&world.ca_der]),
        ("partner.example", &[&world.ca_der]),
    ]);
    let partner = Forge::leaf("spiffe://partner.example/a", &world.leaf).sign(CA, &world.ca);
    list.add("one authority in two bundles, ours", world.deep_chain(0), &shared);
    list.add("one authority in two bundles, the other", vec![partner], &shared);

    let no_usage = store_of(&ca().without(KEY_USAGE).self_signed(&world.ca));
    list.add("an authority without key usage", world.deep_chain(1), &no_usage);
    let usage = DIGITAL_SIGNATURE | KEY_CERT_SIGN;
    let signs_data = store_of(&ca().with_key_usage(usage).self_signed(&world.ca));
    list.add(
        "an authority that may also sign data",
        world.deep_chain(1),
        &signs_data,
    );
    let exact = store_of(&ca().with_basic_constraints(true, Some(1)).self_signed(&world.ca));
    list.add("an authority's path length used up", world.deep_chain(1), &exact);

    // DNS constraints say nothing of a leaf that has no DNS name.
    let dns_only = store_of(&ca().permits(&dns("example.org")).self_signed(&world.ca));
    list.add("a DNS name constraint", world.deep_chain(0), &dns_only);
}
