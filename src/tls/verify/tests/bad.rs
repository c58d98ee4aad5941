//! Chains that must be refused, each by name.

use std::sync::Arc;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;

use super::super::{MAX_CHAIN_CERTIFICATES, TrustStore};
use super::world::*;
use crate::record::Reason;
use crate::spiffe::svid::forge::*;
use crate::spiffe::svid::tests::{ID, defective_leaves};

type Chain = Vec<CertificateDer<'static>>;

/// A chain that must be refused.
pub(super) struct Bad {
    pub(super) name: &'static str,
    pub(super) chain: Chain,
    pub(super) store: Arc<TrustStore>,
    pub(super) reason: Reason,
    pub(super) alert: AlertDescription,
    /// A part of the detail.
    pub(super) detail: &'static str,
}

struct List {
    all: Vec<Bad>,
    /// What the next ones come to.
    reason: Reason,
    alert: AlertDescription,
}

impl List {
    fn expect(&mut self, reason: Reason, alert: AlertDescription) {
        self.reason = reason;
        self.alert = alert;
    }

    fn add(&mut self, name: &'static str, detail: &'static str, chain: Chain) {
        self.add_with(&World::shared().store, name, detail, chain);
    }

    fn add_with(&mut self, store: &Arc<TrustStore>, name: &'static str, detail: &'static str, chain: Chain) {
        let (reason, alert) = (self.reason, self.alert);
        self.all.push(Bad {
            name,
            chain,
            store: store.clone(),
            reason,
            alert,
            detail,
        });
    }
}

pub(super) fn bad() -> Vec<Bad> {
    let world = World::shared();
    let mut list = List {
        all: Vec::new(),
        reason: Reason::BadCertificate,
        alert: AlertDescription::BadCertificate,
    };
    for defective in defective_leaves(CA, &world.ca, &world.leaf) {
        let strength = ["are accepted", "RSA of", "RSA-PSS"];
        let unsupported = strength.iter().any(|part| defective.message.contains(part));
        list.alert = match unsupported {
            true => AlertDescription::UnsupportedCertificate,
            false => AlertDescription::BadCertificate,
        };
        list.add(defective.name, defective.message, vec![defective.der]);
    }
    trust(world, &mut list);
    time(world, &mut list);
    issuers(world, &mut list);
    authorities(world, &mut list);
    constraints(world, &mut list);
    shapes(world, &mut list);
    list.all
}

fn trust(world: &World, list: &mut List) {
    let leaf = || world.leaf();
    let other = |id| Forge::leaf(id, &world.leaf);
    list.expect(Reason::UntrustedChain, AlertDescription::UnknownCA);
    let unsigned = "not signed by an authority in our bundle";
    list.add(
        "signed by a federated domain's authority",
        unsigned,
        vec![leaf().sign(CA, &world.partner)],
    );
    let partner = other("spiffe://partner.example/a").sign(CA, &world.ca);
    list.add("our authority signing a federated ID", unsigned, vec![partner]);
    list.add(
        "signed by a stranger of the same name",
        unsigned,
        vec![leaf().sign(CA, &world.stranger)],
    );
    let nowhere = "does not end at an authority";
    list.add(
        "signed by a stranger",
        nowhere,
        vec![leaf().sign("stranger", &world.stranger)],
    );
    list.add("self-signed", nowhere, vec![leaf().self_signed(&world.leaf)]);
    let root = Forge::ca("stranger", &world.stranger).self_signed(&world.stranger);
    let with_root = vec![leaf().sign("stranger", &world.stranger), root];
    list.add("a stranger's root sent along", nowhere, with_root);
    // The partner's authority, sent along, must not become one of ours.
    let with_partner = vec![leaf().sign(CA, &world.partner), world.partner_der.clone()];
    list.add(
        "a federated domain's authority sent along",
        unsigned,
        with_partner,
    );
    let mut missing = world.deep_chain(2);
    missing.remove(1);
    list.add("an intermediate missing", nowhere, missing);

    list.expect(Reason::UnknownTrustDomain, AlertDescription::UnknownCA);
    let unknown = other("spiffe://unknown.example/a").sign(CA, &world.ca);
    list.add(
        "a trust domain without a bundle",
        "no bundle of `unknown.example`",
        vec![unknown],
    );
    let below = other("spiffe://a.example.org/a").sign(CA, &world.ca);
    list.add(
        "a trust domain below ours",
        "no bundle of `a.example.org`",
        vec![below],
    );
}

fn time(world: &World, list: &mut List) {
    let second = Duration::from_secs(1);
    let past = (now() - 2 * HOUR, now() - second);
    let future = (now() + second, now() + 2 * HOUR);
    let leaf = |(from, to)| vec![world.leaf().valid(from, to).sign(CA, &world.ca)];
    let intermediate = |(from, to)| {
        let mut chain = world.deep_chain(1);
        chain[1] = world.intermediate(0).valid(from, to).sign(CA, &world.ca);
        chain
    };
    let ca = |(from, to)| Forge::ca(CA, &world.ca).valid(from, to).self_signed(&world.ca);
    let chain = || world.deep_chain(1);

    list.expect(Reason::CertificateExpired, AlertDescription::CertificateExpired);
    list.add(
        "leaf expired a second ago",
        "its certificate expired at 2026-11-22T23:59:59",
        leaf(past),
    );
    list.add(
        "intermediate expired",
        "an intermediate certificate it sent expired",
        intermediate(past),
    );
    let over = "the authority in our bundle that its chain ends at expired";
    list.add_with(&store_of(&ca(past)), "authority expired", over, chain());
    let beside = store(&[("example.org", &[&ca(past), &world.partner_der])]);
    list.add_with(&beside, "authority expired beside a valid one", over, chain());

    list.expect(
        Reason::CertificateNotYetValid,
        AlertDescription::CertificateExpired,
    );
    let early = "its certificate is not valid before 2026-11-23T00:00:01";
    list.add("leaf valid in a second", early, leaf(future));
    let early = "an intermediate certificate it sent is not valid before";
    list.add("intermediate not yet valid", early, intermediate(future));
    let early = "the authority in our bundle that its chain ends at is not valid before";
    list.add_with(&store_of(&ca(future)), "authority not yet valid", early, chain());
}

/// What stands between leaf and authority may not sign.
fn issuers(world: &World, list: &mut List) {
    let middle = &world.others[0];
    let below = |issuer: Forge| vec![world.leaf().sign("middle", middle), issuer.sign(CA, &world.ca)];
    let ca = || Forge::ca("middle", middle);
    list.expect(Reason::UntrustedChain, AlertDescription::UnknownCA);
    // The holder of an SVID signs another one with its key.
    let svid = Forge::leaf("spiffe://example.org/middle", middle).subject("middle");
    list.add(
        "signed by a leaf",
        "certificate 2 of its chain was left out",
        below(svid),
    );
    let no_sign = ca().with_key_usage(DIGITAL_SIGNATURE);
    list.add(
        "intermediate without keyCertSign",
        "MUST set `keyCertSign`",
        below(no_sign),
    );
    let no_usage = ca().without(KEY_USAGE);
    list.add(
        "intermediate without key usage",
        "MUST be set on all SVIDs",
        below(no_usage),
    );
    let with_path = ca().with_uris(&["spiffe://example.org/ca"]);
    list.add(
        "intermediate with a workload's ID",
        "MUST NOT have a path component",
        below(with_path),
    );
    list.add(
        "intermediate with a weak key",
        "RSA of 1024 bits",
        below(ca().spki(rsa_spki(1024))),
    );
    let weak = ca().algorithms(ECDSA_SHA1, ECDSA_SHA1);
    list.add("intermediate signed with SHA-1", "are accepted", below(weak));

    list.expect(Reason::BadCertificate, AlertDescription::BadCertificate);
    let critical = ca().with(UNKNOWN, true, vec![5, 0]);
    list.add(
        "intermediate with an unknown critical extension",
        "critical extension",
        below(critical),
    );
    let critical = world.leaf().with(UNKNOWN, true, vec![5, 0]).sign(CA, &world.ca);
    list.add(
        "leaf with an unknown critical extension",
        "critical extension",
        vec![critical],
    );
}

/// What is in a bundle and may not sign is left out of the store.
fn authorities(world: &World, list: &mut List) {
    let ca = || Forge::ca(CA, &world.ca);
    let no_sign = ca()
        .with_key_usage(DIGITAL_SIGNATURE | CRL_SIGN)
        .self_signed(&world.ca);
    let with_path = ca()
        .with_uris(&["spiffe://example.org/ca"])
        .self_signed(&world.ca);
    let no_ca = ca().with_basic_constraints(false, None).self_signed(&world.ca);
    for (name, beside_name, unusable) in [
        (
            "an authority without keyCertSign",
            "an authority without keyCertSign beside a good one",
            no_sign,
        ),
        (
            "an authority with a workload's ID",
            "an authority with a workload's ID beside a good one",
            with_path,
        ),
        (
            "an authority that is no CA",
            "an authority that is no CA beside a good one",
            no_ca,
        ),
    ] {
        let partner = &world.partner_der;
        let alone = store(&[("example.org", &[&unusable]), ("partner.example", &[partner])]);
        list.expect(Reason::UnknownTrustDomain, AlertDescription::UnknownCA);
        let no_bundle = "no bundle of `example.org`";
        list.add_with(&alone, name, no_bundle, world.deep_chain(0));
        let beside = store(&[("example.org", &[&unusable, partner])]);
        list.expect(Reason::UntrustedChain, AlertDescription::UnknownCA);
        let unsigned = "not signed by an authority in our bundle";
        list.add_with(&beside, beside_name, unsigned, world.deep_chain(0));
    }
}

fn constraints(world: &World, list: &mut List) {
    let ca = || Forge::ca(CA, &world.ca);
    list.expect(Reason::UntrustedChain, AlertDescription::BadCertificate);
    let mut short = world.deep_chain(2);
    short[2] = world
        .intermediate(0)
        .with_basic_constraints(true, Some(0))
        .sign(CA, &world.ca);
    list.add(
        "an intermediate's path length exceeded",
        "pathLenConstraint",
        short,
    );
    let none_below = store_of(&ca().with_basic_constraints(true, Some(0)).self_signed(&world.ca));
    let deep = world.deep_chain(1);
    list.add_with(
        &none_below,
        "an authority's path length exceeded",
        "pathLenConstraint",
        deep,
    );

    let uris = store_of(&ca().permits(&uri("example.org")).self_signed(&world.ca));
    list.add_with(
        &uris,
        "a URI name constraint of an authority",
        "X509-SVID 4.2",
        world.deep_chain(0),
    );
    let mut chain = world.deep_chain(1);
    chain[1] = world
        .intermediate(0)
        .permits(&uri("example.org"))
        .sign(CA, &world.ca);
    list.add("a URI name constraint of an intermediate", "X509-SVID 4.2", chain);
    let names = store_of(&ca().permits(&dns("example.org")).self_signed(&world.ca));
    let elsewhere = world
        .leaf()
        .with_names(&[uri(ID), dns("example.com")])
        .sign(CA, &world.ca);
    let name = "a DNS name outside the name constraints";
    list.add_with(&names, name, "name constraints", vec![elsewhere]);

    list.expect(Reason::UntrustedChain, AlertDescription::UnsupportedCertificate);
    let mut code_signing = world.deep_chain(1);
    code_signing[1] = world.intermediate(0).any_usage().sign(CA, &world.ca);
    list.add(
        "an intermediate for neither use",
        "extended key usage in its chain",
        code_signing,
    );
}

fn shapes(world: &World, list: &mut List) {
    list.expect(Reason::BadCertificate, AlertDescription::BadCertificate);
    for (name, bytes) in [
        ("rubbish in place of a certificate", &b"rubbish"[..]),
        (
            "a JWT in place of a certificate",
            b"eyJhbGciOiJFUzI1NiJ9.e30.AAAA",
        ),
    ] {
        let mut rubbish = world.deep_chain(1);
        rubbish[0] = CertificateDer::from(bytes.to_vec());
        list.add(name, "the certificate does not parse", rubbish);
    }
    let mut not_first = world.deep_chain(1);
    not_first.swap(0, 1);
    list.add("the leaf not first", "exactly one URI SAN", not_first);
    list.add(
        "an authority as the leaf",
        "non-root path",
        vec![world.ca_der.clone()],
    );
    let mut eleven = world.deep_chain(0);
    eleven.resize(MAX_CHAIN_CERTIFICATES + 1, world.partner_der.clone());
    list.add("eleven certificates", "11 certificates", eleven);
}
