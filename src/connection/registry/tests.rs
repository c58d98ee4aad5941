//! The registry by itself: what is grouped, found, moved and removed.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::config::settings::{Address, Listener, ListenerKind, Target};
use crate::identity::material::Svid;
use crate::record::{PeerAddr, Reason};
use crate::spiffe::SpiffeId;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn peer(id: &str, end: u64) -> Arc<VerifiedPeer> {
    Arc::new(VerifiedPeer {
        id: Arc::new(SpiffeId::new(id).unwrap()),
        chain: Arc::new([]),
        not_before: at(0),
        not_after: at(end),
        issued: at(0),
        serial: "".into(),
        key_hash: [0; 32],
        key_type: String::new(),
    })
}

fn own(id: &str, end: u64) -> Arc<Svid> {
    Arc::new(Svid {
        id: Arc::new(SpiffeId::new(id).unwrap()),
        hint: None,
        chain: Vec::new(),
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(Vec::new())),
        not_before: at(0),
        not_after: at(end),
        serial: "".into(),
        key_type: String::new(),
    })
}

/// A registry, one listener and one SVID of ours that ends at 1000.
struct World {
    registry: Registry,
    listener: Arc<Listener>,
    own: Arc<Svid>,
}

const OWN: &str = "spiffe://example.org/orders";
const WEB: &str = "spiffe://example.org/web";

impl World {
    fn new() -> Self {
        Self {
            registry: Registry::default(),
            listener: Arc::new(Listener {
                name: "orders".into(),
                listen: Address::Tcp("127.0.0.1:1".parse().unwrap()),
                alpn: Vec::new(),
                kind: ListenerKind::inbound(Target::Ip("127.0.0.1:2".parse().unwrap())),
            }),
            own: own(OWN, 1000),
        }
    }

    fn connect(&self, peer: &Arc<VerifiedPeer>, source: u8) -> Registered {
        let addr = PeerAddr::from(std::net::SocketAddr::from(([10, 0, 0, source], 999)));
        self.registry.register(Registration {
            id: self.registry.next_id(),
            peer_addr: addr,
            source: addr,
            destination: None,
            since: at(0),
            listener: self.listener.clone(),
            direction: Direction::Inbound,
            peer: peer.clone(),
            bundle: None,
            own: self.own.clone(),
        })
    }

    fn bases(&self) -> Vec<Arc<Basis>> {
        self.registry.bases().flatten().collect()
    }

    fn members(&self, basis: &Basis) -> BTreeSet<u64> {
        self.registry
            .members(basis)
            .flatten()
            .map(|entry| entry.id)
            .collect()
    }

    fn ended(&self, after: u64, until: u64) -> BTreeSet<u64> {
        let ended = self.registry.ended(at(after), at(until));
        ended.iter().flat_map(|basis| self.members(basis)).collect()
    }
}

#[test]
fn connections_of_the_same_certificates_and_address_share_a_basis() {
    let world = World::new();
    let (web, other) = (peer(WEB, 100), peer(WEB, 100));
    let connections = [
        world.connect(&web, 1),
        world.connect(&web, 1),
        world.connect(&web, 2),
        world.connect(&other, 1),
    ];
    assert_eq!(world.bases().len(), 3);
    assert_eq!(world.registry.len(), 4);
    let [a, b, c, d] = &connections.map(|connection| connection);
    assert!(Arc::ptr_eq(&a.entry.basis(), &b.entry.basis()));
    assert_eq!(
        world.members(&a.entry.basis()),
        BTreeSet::from([a.entry.id, b.entry.id])
    );
    assert_eq!(world.members(&c.entry.basis()), BTreeSet::from([c.entry.id]));
    assert_eq!(world.members(&d.entry.basis()), BTreeSet::from([d.entry.id]));
}

#[test]
fn a_basis_goes_with_the_last_of_its_connections() {
    let world = World::new();
    let web = peer(WEB, 100);
    let (first, second) = (world.connect(&web, 1), world.connect(&web, 1));
    drop(first);
    assert_eq!(world.bases().len(), 1);
    assert_eq!(world.ended(0, 100), BTreeSet::from([second.entry.id]));
    drop(second);
    assert!(world.registry.is_empty());
    assert!(world.bases().is_empty());
    assert!(world.registry.ended(at(0), at(5000)).is_empty());
    assert_eq!(world.registry.next_end(at(0)), None);
    // A new one begins anew.
    let third = world.connect(&web, 1);
    assert_eq!(world.ended(0, 100), BTreeSet::from([third.entry.id]));
}

#[test]
fn ends_are_found_in_order_once() {
    let world = World::new();
    let ends = [100, 200, 200, 300, 2000];
    let connections = ends.map(|end| world.connect(&peer(WEB, end), 1));
    let [a, b, c, d, e] = connections.each_ref().map(|connection| connection.entry.id);
    assert_eq!(world.registry.next_end(at(0)), Some(at(100)));
    assert_eq!(world.ended(0, 99), BTreeSet::new());
    assert_eq!(world.ended(0, 100), BTreeSet::from([a]));
    assert_eq!(world.ended(100, 200), BTreeSet::from([b, c]));
    assert_eq!(world.ended(100, 300), BTreeSet::from([b, c, d]));
    assert_eq!(world.registry.next_end(at(300)), Some(at(1000)));
    // Ours ends before the peer's.
    assert_eq!(world.ended(300, 1000), BTreeSet::from([e]));
    assert_eq!(world.ended(1000, 3000), BTreeSet::new());
    // From a clock that went backwards.
    assert_eq!(world.ended(500, 100), BTreeSet::new());
}

#[test]
fn a_renewed_connection_is_found_by_its_new_end_alone() {
    let world = World::new();
    let (old, new) = (peer(WEB, 100), peer(WEB, 500));
    let (renewed, stays) = (world.connect(&old, 1), world.connect(&old, 1));
    let renewal = Renewal {
        peer: Some((new.clone(), None)),
        own: None,
    };
    world.registry.renew(&renewed.entry, renewal).unwrap();
    assert_eq!(world.ended(0, 100), BTreeSet::from([stays.entry.id]));
    assert_eq!(world.ended(100, 500), BTreeSet::from([renewed.entry.id]));
    assert_eq!(renewed.entry.basis().expires(), at(500));
    assert_eq!(world.registry.len(), 2);
    // It is asked about anew, once.
    let asked = world.registry.take_fresh();
    assert_eq!(asked.len(), 1);
    assert_eq!(world.members(&asked[0]), BTreeSet::from([renewed.entry.id]));
    assert!(world.registry.take_fresh().is_empty());
    // It shares with those that come with the new certificate from the start.
    let fresh = world.connect(&new, 1);
    assert!(Arc::ptr_eq(&fresh.entry.basis(), &renewed.entry.basis()));

    let ours = own(OWN, 400);
    let renewal = Renewal {
        peer: None,
        own: Some(ours),
    };
    world.registry.renew(&renewed.entry, renewal).unwrap();
    assert_eq!(renewed.entry.basis().expires(), at(400));
    assert_eq!(world.ended(100, 400), BTreeSet::from([renewed.entry.id]));
    drop((renewed, stays, fresh));
    assert!(world.registry.is_empty());
    assert!(world.bases().is_empty());
}

#[test]
fn a_renewal_by_another_identity_changes_nothing() {
    let world = World::new();
    let connection = world.connect(&peer(WEB, 100), 1);
    let before = connection.entry.basis();
    let others = [
        Renewal {
            peer: Some((peer("spiffe://example.org/mallory", 500), None)),
            own: None,
        },
        Renewal {
            peer: None,
            own: Some(own("spiffe://example.org/other", 500)),
        },
    ];
    for other in others {
        assert_eq!(world.registry.renew(&connection.entry, other), Err(OtherIdentity));
        assert!(Arc::ptr_eq(&before, &connection.entry.basis()));
    }
    assert!(world.registry.take_fresh().is_empty());
}

#[test]
fn a_new_verification_moves_the_end_of_all_on_a_basis() {
    let world = World::new();
    let web = peer(WEB, 100);
    let connections = [world.connect(&web, 1), world.connect(&web, 1)];
    let basis = connections[0].entry.basis();
    let trust = Trust {
        bundle: None,
        not_before: at(0),
        not_after: at(50),
    };
    world.registry.verified(&basis, trust);
    assert_eq!(world.ended(0, 50).len(), 2);
    assert_eq!(world.ended(50, 100).len(), 0);
    drop(connections);
    assert!(world.registry.ended(at(0), at(5000)).is_empty());
}

#[test]
fn many_are_read_in_slices_and_none_is_left_out() {
    let world = World::new();
    let peers: Vec<_> = (0..700)
        .map(|n| peer(&format!("spiffe://example.org/{n}"), 100))
        .collect();
    let hot = &peers[0];
    let connections: Vec<_> = peers
        .iter()
        .chain(std::iter::repeat_n(hot, 700))
        .map(|peer| world.connect(peer, 1))
        .collect();
    let ids: BTreeSet<u64> = connections.iter().map(|c| c.entry.id).collect();
    let snapshot: Vec<_> = world.registry.snapshot().iter().map(|e| e.id).collect();
    assert_eq!(snapshot.len(), ids.len());
    assert_eq!(snapshot.into_iter().collect::<BTreeSet<_>>(), ids);
    assert_eq!(world.bases().len(), 700);
    assert_eq!(world.members(&connections[0].entry.basis()).len(), 701);
    let slices: Vec<_> = world.registry.members(&connections[0].entry.basis()).collect();
    assert!(slices.len() > 1);
    let found = |id| world.registry.find(id).map(|entry| entry.id);
    assert!(ids.iter().all(|id| found(*id) == Some(*id)));
    assert_eq!(found(0), None);
    let last = connections.last().unwrap().entry.id;
    drop(connections);
    assert_eq!(found(last), None);
}

#[test]
fn the_end_of_all_reaches_those_that_come_later() {
    let world = World::new();
    let web = peer(WEB, 100);
    let before = world.connect(&web, 1);
    world.registry.end_all(&Ending::new(Reason::Shutdown));
    let after = world.connect(&web, 1);
    for connection in [before, after] {
        assert_eq!(connection.entry.order().unwrap().reason, Reason::Shutdown);
    }
}

/// Workers come, renew and go while somebody reads: nothing is lost, and nothing is left behind.
#[test]
fn readers_and_workers_do_not_disturb_each_other() {
    let world = World::new();
    let stays: Vec<_> = (0..300)
        .map(|n| world.connect(&peer(WEB, 100), n as u8))
        .collect();
    std::thread::scope(|scope| {
        for worker in 0..3_u64 {
            let world = &world;
            scope.spawn(move || {
                for round in 0..200 {
                    let old = peer(&format!("spiffe://example.org/{worker}"), 200 + round);
                    let connection = world.connect(&old, 1);
                    let renewal = Renewal {
                        peer: Some((peer(&format!("spiffe://example.org/{worker}"), 300 + round), None)),
                        own: None,
                    };
                    world.registry.renew(&connection.entry, renewal).unwrap();
                }
            });
        }
        for _ in 0..50 {
            let found: BTreeSet<u64> = world.registry.snapshot().iter().map(|e| e.id).collect();
            assert!(stays.iter().all(|one| found.contains(&one.entry.id)));
            let _ = world.registry.take_fresh();
        }
    });
    assert_eq!(world.registry.len(), stays.len());
    drop(stays);
    assert!(world.bases().is_empty());
    assert!(world.registry.ended(at(0), at(5000)).is_empty());
}
