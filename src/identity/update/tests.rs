//! Each defect that an answer can have, with what becomes of it.

use std::time::Duration;

use rcgen::{IsCa, KeyUsagePurpose};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;
use crate::workload_api::authority::{Authority as Signer, leaf_params};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::new(format!("spiffe://example.org/{path}")).unwrap()
}

fn signer(name: &str) -> Signer {
    Signer::new(domain(name), 100 * HOUR, now()).unwrap()
}

fn offer_at(signer: &Signer, id: &SpiffeId, hint: &str, made: SystemTime) -> Offer {
    let svid = signer.issue(id, Some(hint), HOUR, made).unwrap();
    Offer {
        spiffe_id: Some(svid.spiffe_id.clone()),
        chain: svid.x509_svid.clone(),
        key: Some(Zeroizing::new(
            PrivatePkcs8KeyDer::from(svid.x509_svid_key.clone()).into(),
        )),
        bundle: svid.bundle.clone(),
        hint: svid.hint.clone(),
    }
}

fn offer(signer: &Signer, path: &str) -> Offer {
    offer_at(signer, &id(path), "", now())
}

fn answer(svids: Vec<Offer>) -> Answer {
    Answer {
        svids,
        federated: BTreeMap::new(),
    }
}

fn first(answer: Answer) -> Result<Update, Refusal> {
    check(answer, &SvidSelect::First, None, now())
}

/// A leaf that `spoil` has changed, with its key.
fn odd_leaf(signer: &Signer, spoil: impl FnOnce(&mut rcgen::CertificateParams)) -> Offer {
    let mut params = leaf_params(&id("web"), HOUR, now()).unwrap();
    spoil(&mut params);
    let issued = signer.sign(&params).unwrap();
    Offer {
        spiffe_id: Some(id("web").to_string()),
        chain: issued.chain.iter().flat_map(|der| der.to_vec()).collect(),
        key: Some(Zeroizing::new(
            PrivatePkcs8KeyDer::from(issued.key.serialize_der()).into(),
        )),
        bundle: signer.root().to_vec(),
        hint: String::new(),
    }
}

#[test]
fn good_answer_is_taken_whole() {
    let ours = signer("example.org");
    let below = ours.intermediate(2 * HOUR, now()).unwrap();
    let partner = signer("partner.example");
    let mut given = answer(vec![
        offer_at(&below, &id("web"), "internal", now()),
        offer(&ours, "admin"),
    ]);
    given
        .federated
        .insert("spiffe://partner.example".to_owned(), partner.root().to_vec());
    let update = first(given).unwrap();
    let svid = update.svid.unwrap();
    assert_eq!(*svid.id, id("web"));
    assert_eq!(svid.hint.as_deref(), Some("internal"));
    assert_eq!(svid.chain.len(), 2);
    assert_eq!(svid.not_after, now() + HOUR);
    assert_eq!(svid.key_type, "EC P-256");
    assert_eq!(update.svids.len(), 2);
    assert_eq!(update.svids[1].hint, None);
    assert_eq!(
        update.bundles.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["example.org", "partner.example"]
    );
    assert_eq!(update.problems, []);
}

/// Spoils a good offer.
type Spoil = Box<dyn FnOnce(&mut Offer)>;

fn defects() -> Vec<(&'static str, Spoil)> {
    let ours = signer("example.org");
    let spoiled = |replacement: Offer| -> Spoil { Box::new(move |offer| *offer = replacement) };
    let long_ago = offer_at(&ours, &id("web"), "", now() - HOUR);
    let old_issuer = {
        let signer = Signer::new(domain("example.org"), 100 * HOUR, now() - 10 * HOUR).unwrap();
        offer_at(
            &signer.intermediate(HOUR, now() - HOUR).unwrap(),
            &id("web"),
            "",
            now(),
        )
    };
    let ca = odd_leaf(&ours, |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)
    });
    let cert_sign = odd_leaf(&ours, |params| {
        params.key_usages.push(KeyUsagePurpose::KeyCertSign)
    });
    let no_uri = odd_leaf(&ours, |params| params.subject_alt_names.clear());
    let foreign_key = offer(&ours, "web").key;
    let foreign_bundle = signer("example.org").root().to_vec();
    vec![
        ("holds no certificate", Box::new(|o| o.chain.clear())),
        (
            "no certificate begins at byte 0",
            Box::new(|o| o.chain = b"-----BEGIN CERTIFICATE-----".to_vec()),
        ),
        ("cut off", Box::new(|o| o.chain.truncate(o.chain.len() - 1))),
        (
            "breaks the X509-SVID profile",
            Box::new(|o| o.chain = vec![0x30, 0]),
        ),
        ("no certificate begins at byte", Box::new(|o| o.chain.push(0))),
        (
            "more than 16 certificates",
            Box::new(|o| o.chain = o.chain.repeat(17)),
        ),
        ("certificate 2 breaks", Box::new(|o| o.chain = o.chain.repeat(2))),
        ("breaks the X509-SVID profile", spoiled(ca)),
        ("keyCertSign", spoiled(cert_sign)),
        ("exactly one URI SAN", spoiled(no_uri)),
        (
            "the leaf's ID is `spiffe://example.org/web`",
            Box::new(|o| o.spiffe_id = Some(id("other").to_string())),
        ),
        (
            "no SPIFFE ID",
            Box::new(|o| o.spiffe_id = Some("https://example.org/web".to_owned())),
        ),
        ("private key cannot be read", Box::new(|o| o.key = None)),
        (
            "private key cannot be read",
            Box::new(|o| o.key = Some(Zeroizing::new(PrivatePkcs8KeyDer::from(vec![1, 2, 3]).into()))),
        ),
        ("private key does not belong", Box::new(|o| o.key = foreign_key)),
        ("expired at 2027-01-15T08:00:00", spoiled(long_ago)),
        ("expired", spoiled(old_issuer)),
        (
            "bundle of its trust domain cannot be used: it holds no certificate",
            Box::new(|o| o.bundle.clear()),
        ),
        (
            "bundle of its trust domain cannot be used: the certificates cannot",
            Box::new(|o| o.bundle = vec![1]),
        ),
        (
            "bundle of its trust domain cannot be used: certificate 1",
            Box::new(|o| o.bundle = vec![0x30, 0]),
        ),
        (
            "does not lead to its own trust domain's bundle",
            Box::new(|o| o.bundle = foreign_bundle),
        ),
    ]
}

#[test]
fn each_defect_of_the_wanted_svid_refuses_the_answer() {
    let ours = signer("example.org");
    for (words, spoil) in defects() {
        let mut bad = offer(&ours, "web");
        spoil(&mut bad);
        // A good one after it does not take its place.
        let refusal = first(answer(vec![bad, offer(&ours, "admin")])).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Wanted(_)) && refusal.to_string().contains(words),
            "{words}: {refusal}"
        );
    }
}

#[test]
fn each_defect_of_another_svid_leaves_only_that_one_out() {
    let ours = signer("example.org");
    for (words, spoil) in defects() {
        let mut bad = offer(&ours, "web");
        spoil(&mut bad);
        let update = first(answer(vec![offer(&ours, "admin"), bad])).unwrap();
        assert_eq!(update.svids.len(), 1, "{words}");
        assert_eq!(*update.svid.unwrap().id, id("admin"), "{words}");
        let said = update
            .problems
            .iter()
            .any(|problem| problem.to_string().contains(words));
        assert!(said, "{words}: {:?}", update.problems);
        assert_eq!(
            update.bundles[&domain("example.org")].authorities[0].certificate,
            *ours.root(),
            "{words}"
        );
    }
}

#[test]
fn empty_and_oversized_answers_are_refused() {
    assert_eq!(first(answer(Vec::new())).unwrap_err(), Refusal::NoSvid);
    let ours = signer("example.org");
    let many = (0..=MAX_SVIDS).map(|_| offer(&ours, "web")).collect();
    assert!(matches!(
        first(answer(many)),
        Err(Refusal::TooMany {
            what: "SVIDs",
            found: 101,
            ..
        })
    ));
    let mut given = answer(vec![offer(&ours, "web")]);
    given.federated = (0..=MAX_FEDERATED)
        .map(|n| (format!("d{n}.example"), Vec::new()))
        .collect();
    assert!(matches!(
        first(given),
        Err(Refusal::TooMany {
            what: "federated bundles",
            ..
        })
    ));
}

#[test]
fn not_yet_valid_is_used_and_said() {
    let ours = signer("example.org");
    let early = offer_at(&ours, &id("web"), "", now() + HOUR);
    let update = first(answer(vec![early])).unwrap();
    assert!(update.svid.is_some());
    assert!(
        matches!(update.problems[0].defect, Defect::NotYetValid(_)),
        "{:?}",
        update.problems
    );
}

#[test]
fn leaf_for_one_side_only_is_taken() {
    let ours = signer("example.org");
    for drop_first in [true, false] {
        let odd = odd_leaf(&ours, |params| {
            let _ = params.extended_key_usages.remove(usize::from(!drop_first));
        });
        assert!(first(answer(vec![odd])).unwrap().svid.is_some());
    }
}

#[test]
fn selection_by_id_and_hint() {
    let ours = signer("example.org");
    let given = || {
        answer(vec![
            offer_at(&ours, &id("a"), "external", now()),
            offer_at(&ours, &id("b"), "internal", now()),
            offer_at(&ours, &id("c"), "internal", now()),
        ])
    };
    let hint = |hint: &str| SvidSelect::Hint(hint.to_owned());
    for (select, wanted) in [
        (SvidSelect::First, Some("a")),
        (SvidSelect::Id(id("c")), Some("c")),
        (SvidSelect::Id(id("d")), None),
        // Of several with one hint the first (Workload API section 5.2.1).
        (hint("internal"), Some("b")),
        (hint("Internal"), None),
    ] {
        let update = check(given(), &select, None, now()).unwrap();
        assert_eq!(
            update.svid.map(|svid| (*svid.id).clone()),
            wanted.map(id),
            "{select:?}"
        );
        assert_eq!(update.svids.len(), 3);
    }
    // From files the leaf alone says the ID.
    let mut only = offer(&ours, "web");
    only.spiffe_id = None;
    let update = check(answer(vec![only]), &SvidSelect::Id(id("web")), None, now()).unwrap();
    assert!(update.svid.is_some());
    let mut other = offer(&ours, "web");
    other.spiffe_id = None;
    assert!(
        check(answer(vec![other]), &SvidSelect::Id(id("db")), None, now())
            .unwrap()
            .svid
            .is_none()
    );
}

#[test]
fn of_two_bundles_of_our_trust_domain_the_first_counts() {
    let (one, two) = (signer("example.org"), signer("example.org"));
    for (first, second) in [(&one, &two), (&two, &one)] {
        let offers = || {
            vec![
                offer_at(first, &id("a"), "a", now()),
                offer_at(second, &id("b"), "b", now()),
            ]
        };
        // Whichever of the two SVIDs is wanted.
        for hint in ["a", "b"] {
            let select = SvidSelect::Hint(hint.to_owned());
            let update = check(answer(offers()), &select, None, now()).unwrap();
            assert_eq!(*update.svid.unwrap().id, id(hint));
            let bundle = &update.bundles[&domain("example.org")];
            assert_eq!(bundle.authorities.len(), 1);
            assert_eq!(bundle.authorities[0].certificate, *first.root());
            let said: Vec<_> = update.problems.iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(
                said[0].starts_with("bundle of SVID `spiffe://example.org/b`: there is another entry"),
                "{said:?}"
            );
        }
    }
    // One that is left out brings no bundle, and the same bundle twice is nothing to speak of.
    let mut bad = offer(&one, "a");
    bad.key = None;
    let given = answer(vec![bad, offer(&two, "b"), offer(&two, "c")]);
    let update = check(given, &SvidSelect::Id(id("b")), None, now()).unwrap();
    let bundle = &update.bundles[&domain("example.org")];
    assert_eq!(bundle.authorities[0].certificate, *two.root());
    assert_eq!(update.problems.len(), 1, "{:?}", update.problems);
}

#[test]
fn own_bundle_is_never_replaced_by_a_federated_entry() {
    let ours = signer("example.org");
    let evil = signer("example.org");
    for name in ["example.org", "spiffe://example.org"] {
        let mut given = answer(vec![offer(&ours, "web")]);
        given.federated.insert(name.to_owned(), evil.root().to_vec());
        let update = first(given).unwrap();
        let own = &update.bundles[&domain("example.org")];
        assert_eq!(own.authorities.len(), 1);
        assert_eq!(own.authorities[0].certificate, *ours.root());
        assert_eq!(update.problems[0].defect, Defect::OwnDomain);
    }
}

#[test]
fn federated_bundles_one_by_one() {
    let ours = signer("example.org");
    let partner = signer("partner.example");
    let good = BTreeMap::from([(
        domain("partner.example"),
        Arc::new(read_bundle(partner.root(), &domain("partner.example"), &mut Vec::new()).unwrap()),
    )]);
    let root = partner.root().to_vec();
    let weak = [&[0x30, 0][..], &root].concat();
    // What is there, what was there before, whether it is trusted after, what is said.
    for (bytes, last_good, trusted, words) in [
        (Some(root.clone()), None, true, ""),
        (Some(b"rubbish".to_vec()), None, false, "cannot be read"),
        (
            Some(b"rubbish".to_vec()),
            Some(&good),
            true,
            "the last good one stays",
        ),
        (Some(vec![0x30, 0]), Some(&good), true, "the last good one stays"),
        // A word about the authorities, not rubbish: none.
        (Some(Vec::new()), Some(&good), false, "holds no certificate"),
        (None, Some(&good), false, ""),
        (Some(weak), None, true, "certificate 1 breaks"),
    ] {
        let mut given = answer(vec![offer(&ours, "web")]);
        if let Some(bytes) = bytes.clone() {
            given
                .federated
                .insert("spiffe://partner.example".to_owned(), bytes);
        }
        let update = check(given, &SvidSelect::First, last_good, now()).unwrap();
        assert!(update.svid.is_some());
        assert_eq!(
            update.bundles.contains_key(&domain("partner.example")),
            trusted,
            "{bytes:x?}"
        );
        let said = update
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<String>();
        assert!(
            if words.is_empty() {
                said.is_empty()
            } else {
                said.contains(words)
            },
            "{words}: {said}"
        );
    }
}

#[test]
fn federated_names_that_are_none_or_repeat_are_said() {
    let ours = signer("example.org");
    let (one, two) = (signer("partner.example"), signer("partner.example"));
    let mut given = answer(vec![offer(&ours, "web")]);
    given
        .federated
        .insert("partner.example".to_owned(), one.root().to_vec());
    given
        .federated
        .insert("spiffe://partner.example".to_owned(), two.root().to_vec());
    given
        .federated
        .insert("not a\ntrust domain".to_owned(), two.root().to_vec());
    let update = first(given).unwrap();
    assert_eq!(
        update.bundles[&domain("partner.example")].authorities[0].certificate,
        *one.root()
    );
    let said: Vec<String> = update.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("no trust domain") && !said[0].contains('\n'),
        "{said:?}"
    );
    assert!(said[1].contains("another entry"), "{said:?}");
}

#[test]
fn expired_authority_does_not_vouch_for_our_svid() {
    let old = Signer::new(domain("example.org"), HOUR, now() - 2 * HOUR).unwrap();
    let refusal = first(answer(vec![offer(&old, "web")])).unwrap_err();
    assert!(refusal.to_string().contains("does not lead to"), "{refusal}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_bytes_never_become_another_identity(place in 0_usize..4000, bit in 0_u8..8, part in 0_u8..2) {
        let ours = signer("example.org");
        let mut bad = offer(&ours, "web");
        let bytes = if part == 0 { &mut bad.chain } else { &mut bad.bundle };
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        // A damaged root may still be accepted: nothing in its signature is part of the trust in it.
        if let Ok(update) = first(answer(vec![bad])) {
            proptest::prop_assert_eq!(&*update.svid.unwrap().id, &id("web"));
            proptest::prop_assert_eq!(part, 1);
        }
    }
}
