//! What was verified before is answered without another search, and never otherwise than by one.

use std::time::Duration;

use super::super::*;
use super::bad::bad;
use super::good::good;
use super::world::*;
use crate::spiffe::svid::forge::*;

const SECOND: Duration = Duration::from_secs(1);

fn anew(store: &TrustStore, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<VerifiedPeer, Refusal> {
    let (leaf, others) = chain.split_first().unwrap();
    verify_anew(store, leaf, others, PeerSide::Client, now)
}

#[test]
fn connections_of_one_chain_share_one_peer() {
    let world = World::shared();
    let store = store_of(&world.ca_der);
    let chain = world.deep_chain(2);
    let verify = |chain: &[CertificateDer<'_>], side| verify_chain(&store, chain, side, now()).unwrap();
    let first = verify(&chain, PeerSide::Client);
    assert!(Arc::ptr_eq(&first, &verify(&chain, PeerSide::Client)));
    // Each side is asked about by itself: the extended key usages differ.
    let server = verify(&chain, PeerSide::Server);
    assert!(!Arc::ptr_eq(&first, &server));
    // A new SVID of the same ID is another peer.
    let renewed = world.deep_chain(2);
    assert!(!Arc::ptr_eq(&first, &verify(&renewed, PeerSide::Client)));
    // And so is a chain that ends in another certificate, however little that may mean.
    let mut longer = chain.clone();
    longer.push(world.ca_der.clone());
    assert!(!Arc::ptr_eq(&first, &verify(&longer, PeerSide::Client)));
}

#[test]
fn other_bundles_know_nothing_of_it() {
    let world = World::shared();
    let chain = world.deep_chain(1);
    let before = store_of(&world.ca_der);
    assert!(verify_chain(&before, &chain, PeerSide::Client, now()).is_ok());
    let after = store_of(&Forge::ca(CA, &world.stranger).self_signed(&world.stranger));
    assert!(verify_chain(&after, &chain, PeerSide::Client, now()).is_err());
}

#[test]
fn a_refusal_is_found_anew_each_time() {
    for case in bad() {
        let refusals = [(); 2].map(|()| verify_chain(&case.store, &case.chain, PeerSide::Client, now()));
        let [Err(first), Err(second)] = refusals else {
            panic!("{}: accepted", case.name)
        };
        assert_eq!(first, second, "{}", case.name);
    }
}

/// Whatever time it is asked about, and whatever was remembered at another time.
#[test]
fn memory_and_search_agree_at_all_times() {
    for case in good() {
        let peer = verify_chain(&case.store, &case.chain, PeerSide::Client, now()).unwrap();
        let bounds = [peer.not_before, now(), peer.not_after];
        for time in bounds.into_iter().flat_map(|t| [t - SECOND, t, t + SECOND]) {
            let remembered = verify_chain(&case.store, &case.chain, PeerSide::Client, time);
            let searched = anew(&case.store, &case.chain, time);
            let name = format!("{} at {time:?}", case.name);
            match (remembered, searched) {
                (Ok(remembered), Ok(searched)) => {
                    assert_eq!(remembered.id, searched.id, "{name}");
                    assert!(
                        remembered.not_before <= time && time <= remembered.not_after,
                        "{name}"
                    );
                }
                (Err(remembered), Err(searched)) => assert_eq!(remembered, searched, "{name}"),
                (remembered, searched) => panic!("{name}: {remembered:?}, but {searched:?}"),
            }
        }
    }
}

/// Of two authorities with one key the longer-lived is taken once it is valid, though a shorter path is remembered.
#[test]
fn the_end_of_a_remembered_path_is_not_the_end_of_all() {
    let world = World::shared();
    let short = Forge::ca(CA, &world.ca)
        .valid(now() - HOUR, now() + 10 * SECOND)
        .self_signed(&world.ca);
    let late = Forge::ca(CA, &world.ca)
        .valid(now() + 5 * SECOND, now() + HOUR)
        .self_signed(&world.ca);
    let store = store(&[("example.org", &[&short, &late])]);
    let chain = [world.leaf().sign(CA, &world.ca)];
    let at = |time| verify_chain(&store, &chain, PeerSide::Client, time).map(|peer| peer.not_after);
    assert_eq!(at(now()), Ok(now() + 10 * SECOND));
    assert_eq!(at(now() + 10 * SECOND), Ok(now() + 10 * SECOND));
    assert!(at(now() + 11 * SECOND).is_ok_and(|end| end > now() + 11 * SECOND));
    // And back, with a clock that was set.
    assert_eq!(at(now()), Ok(now() + 10 * SECOND));
}
