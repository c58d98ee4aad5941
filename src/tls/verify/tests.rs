//! Chains right and wrong, each by name, through [`verify_chain`] and through whole handshakes in both directions.

mod bad;
mod chains;
mod good;
mod handshakes;
mod remembered;
mod world;

use proptest::prelude::*;
use rustls::pki_types::CertificateDer;

use super::*;
use crate::spiffe::svid::forge::*;
use crate::spiffe::svid::tests::ID;
use world::World;

/// A chain that was changed is never taken, and never makes us panic.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Cut(usize),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => any::<usize>().prop_map(Change::Remove),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => (any::<usize>(), 1..40_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
    ]
}

fn apply(der: &mut Vec<u8>, change: &Change) {
    if der.is_empty() {
        return;
    }
    let place = |at: &usize| at % der.len();
    match change {
        Change::Set(at, byte) => {
            let at = place(at);
            der[at] = *byte;
        }
        Change::Insert(at, byte) => der.insert(place(at), *byte),
        Change::Remove(at) => {
            der.remove(place(at));
        }
        Change::Cut(at) => der.truncate(place(at)),
        Change::Repeat(at, length) => {
            let at = place(at);
            let end = (at + length).min(der.len());
            let part = der[at..end].to_vec();
            der.splice(at..at, part);
        }
    }
}

fn changed(der: &CertificateDer<'_>, changes: &[Change]) -> CertificateDer<'static> {
    let mut bytes = der.to_vec();
    for change in changes {
        apply(&mut bytes, change);
    }
    CertificateDer::from(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_changed_leaf_never_verifies(changes in proptest::collection::vec(change(), 1..4)) {
        let world = World::shared();
        let chain = world.deep_chain(1);
        let leaf = changed(&chain[0], &changes);
        let unchanged = leaf == chain[0];
        for side in [PeerSide::Client, PeerSide::Server] {
            let verdict = verify_chain(&world.store, &[leaf.clone(), chain[1].clone()], side, now());
            prop_assert_eq!(verdict.is_ok(), unchanged, "{:?}", verdict);
        }
    }

    #[test]
    fn a_changed_intermediate_never_verifies(changes in proptest::collection::vec(change(), 1..4)) {
        let world = World::shared();
        let chain = world.deep_chain(1);
        let intermediate = changed(&chain[1], &changes);
        let unchanged = intermediate == chain[1];
        for side in [PeerSide::Client, PeerSide::Server] {
            let verdict = verify_chain(&world.store, &[chain[0].clone(), intermediate.clone()], side, now());
            prop_assert_eq!(verdict.is_ok(), unchanged, "{:?}", verdict);
        }
    }
}

/// One byte at a time, all of them: what a random search may miss.
#[test]
fn no_bit_of_a_leaf_can_be_flipped() {
    let world = World::shared();
    let chain = world.deep_chain(0);
    for place in 0..chain[0].len() {
        for bit in 0..8 {
            let mut der = chain[0].to_vec();
            der[place] ^= 1 << bit;
            let leaf = [CertificateDer::from(der)];
            for side in [PeerSide::Client, PeerSide::Server] {
                let verdict = verify_chain(&world.store, &leaf, side, now());
                assert!(verdict.is_err(), "byte {place}, bit {bit} as {side:?}");
            }
        }
    }
}

#[test]
fn what_was_verified_is_told() {
    let world = World::shared();
    let chain = world.deep_chain(2);
    let peer = verify_chain(&world.store, &chain, PeerSide::Client, now()).unwrap();
    assert_eq!(peer.id.to_string(), ID);
    assert_eq!(*peer.chain, chain);
    assert_eq!(&*peer.serial, "8f01");
    assert_eq!(peer.key_type, "EC P-256");
    // The same answer later, from what is kept.
    let again = verify_chain(&world.store, &peer.chain, PeerSide::Client, now() + HOUR / 2).unwrap();
    assert_eq!(again.id, peer.id);
}
