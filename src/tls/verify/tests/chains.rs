//! [`verify_chain`] on the chains of [`super::good`] and [`super::bad`], and what needs no handshake.

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;

use super::super::*;
use super::bad::bad;
use super::good::good;
use super::world::*;
use crate::spiffe::svid::forge::*;
use crate::spiffe::svid::tests::ID;

#[test]
fn good_chains_are_accepted_on_both_sides() {
    for case in good() {
        for side in [PeerSide::Client, PeerSide::Server] {
            match verify_chain(&case.store, &case.chain, side, now()) {
                Ok(peer) => assert_eq!(peer.not_after, case.not_after, "{}", case.name),
                Err(refusal) => panic!("{} as {side:?}: {refusal}", case.name),
            }
        }
    }
}

#[test]
fn bad_chains_are_refused_on_both_sides() {
    for case in bad() {
        for side in [PeerSide::Client, PeerSide::Server] {
            let Err(refusal) = verify_chain(&case.store, &case.chain, side, now()) else {
                panic!("{} as {side:?}: accepted", case.name)
            };
            let name = format!("{} as {side:?}: {refusal}", case.name);
            assert_eq!(refusal.reason(), case.reason, "{name}");
            assert_eq!(
                AlertDescription::from(refusal.certificate_error()),
                case.alert,
                "{name}"
            );
            assert!(refusal.to_string().contains(case.detail), "{name}");
            assert!(!refusal.to_string().contains(char::is_control), "{name:?}");
            assert_eq!(refusal.verified_id(), None, "{name}");
        }
    }
}

#[test]
fn extended_key_usage_must_fit_the_side() {
    let world = World::shared();
    let accepts = |forge: Forge, side| {
        let Err(refusal) = verify_chain(&world.store, &[forge.sign(CA, &world.ca)], side, now()) else {
            return true;
        };
        assert!(matches!(refusal, Refusal::WrongUsage { .. }), "{refusal}");
        let alert = AlertDescription::from(refusal.certificate_error());
        assert_eq!(alert, AlertDescription::UnsupportedCertificate);
        false
    };
    assert!(accepts(world.leaf().server_only(), PeerSide::Server));
    assert!(!accepts(world.leaf().server_only(), PeerSide::Client));
    assert!(accepts(world.leaf().client_only(), PeerSide::Client));
    assert!(!accepts(world.leaf().client_only(), PeerSide::Server));
    assert!(!accepts(world.leaf().any_usage(), PeerSide::Client));
    assert!(!accepts(world.leaf().any_usage(), PeerSide::Server));
}

#[test]
fn a_refused_leaf_says_whose_it_claims_to_be() {
    let world = World::shared();
    let detail = |forge: Forge| {
        let chain = [forge.sign(CA, &world.ca)];
        verify_chain(&world.store, &chain, PeerSide::Client, now())
            .unwrap_err()
            .to_string()
    };
    let text = detail(world.leaf().without(KEY_USAGE));
    assert!(text.ends_with(&format!("; the peer claims `{ID}`")), "{text}");
    let text = detail(world.leaf().without(SAN));
    assert!(!text.contains("the peer claims"), "{text}");
    let text = detail(world.leaf().with_uris(&["spiffe://a\nb", "c"]));
    assert!(text.ends_with("; the peer claims `spiffe://a\\nb`"), "{text}");
}

#[test]
fn an_intermediate_for_servers_signs_no_client() {
    let world = World::shared();
    let mut chain = world.deep_chain(1);
    chain[1] = world.intermediate(0).server_only().sign(CA, &world.ca);
    assert!(verify_chain(&world.store, &chain, PeerSide::Server, now()).is_ok());
    let refusal = verify_chain(&world.store, &chain, PeerSide::Client, now()).unwrap_err();
    assert!(
        matches!(
            refusal,
            Refusal::Path {
                problem: PathProblem::Usage,
                ..
            }
        ),
        "{refusal}"
    );
}

#[test]
fn limits_come_before_anything_is_parsed() {
    let world = World::shared();
    let chain_of = |count, size| vec![CertificateDer::from(vec![0_u8; size]); count];
    let refusal = |chain: &[CertificateDer<'_>]| {
        verify_chain(&world.store, chain, PeerSide::Client, now()).unwrap_err()
    };
    assert_eq!(refusal(&[]), Refusal::NoCertificate);
    assert_eq!(refusal(&chain_of(11, 1)), Refusal::ChainTooLong { found: 11 });
    assert_eq!(
        refusal(&chain_of(9, 8000)),
        Refusal::ChainTooLarge { found: 72_000 }
    );
}

/// Names and keys that allow very many paths must not keep a worker busy.
#[test]
fn a_maze_of_intermediates_is_given_up() {
    let world = World::shared();
    let maze: Vec<_> = (0..9).map(|_| Key::p256()).collect();
    let mut chain = vec![world.leaf().sign("maze", &maze[0])];
    chain.extend(
        maze.iter()
            .map(|key| Forge::ca("maze", key).sign("maze", &maze[0])),
    );
    let start = std::time::Instant::now();
    let refusal = verify_chain(&world.store, &chain, PeerSide::Client, now()).unwrap_err();
    assert!(matches!(refusal, Refusal::Path { .. }), "{refusal}");
    assert!(
        start.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn an_unusable_authority_does_not_spoil_the_rest() {
    let world = World::shared();
    let rubbish = CertificateDer::from(b"rubbish".to_vec());
    let all = bundles(&[
        ("example.org", &[&world.ca_der]),
        ("partner.example", &[&rubbish]),
    ]);
    let store = TrustStore::new(&all).unwrap();
    assert_eq!(
        store.trust_domains().map(ToString::to_string).collect::<Vec<_>>(),
        ["example.org"]
    );
    assert_eq!(store.unusable().len(), 1);
    let text = store.unusable()[0].to_string();
    assert!(
        text.starts_with("authority 1 of the bundle of `partner.example`"),
        "{text}"
    );
    assert!(verify_chain(&store, &world.deep_chain(0), PeerSide::Client, now()).is_ok());

    let nothing = TrustStore::new(&bundles(&[("example.org", &[&rubbish])])).unwrap_err();
    assert!(
        nothing
            .to_string()
            .contains("authority 1 of the bundle of `example.org`"),
        "{nothing}"
    );
    assert!(TrustStore::new(&[].into()).is_err());
}
