//! Who talks to us and whom we call: open connections and kept verdicts, joined by peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::connection::registry::Entry;
use crate::record::{Decision, Direction, Verdict};
use crate::spiffe::SpiffeId;

/// The peers that are listed.
const MAX_PEERS: usize = 200;

/// One row: who, at which listener. A peer that nobody proved an identity of goes by its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    listener: Arc<str>,
    id: Option<Arc<SpiffeId>>,
    /// Of one without an ID.
    source: Option<IpAddr>,
}

#[derive(Debug)]
struct Peer {
    direction: Direction,
    source: Option<IpAddr>,
    open: usize,
    bytes_up: u64,
    bytes_down: u64,
    allowed: usize,
    denied: usize,
    /// Denials without an effect.
    reported: usize,
    last: Option<Arc<Decision>>,
    /// When it was last heard of: a verdict, or a connection that came.
    seen: SystemTime,
}

/// An open connection, as far as its peer is concerned.
#[derive(Clone, Debug)]
struct Open {
    key: Key,
    direction: Direction,
    source: Option<IpAddr>,
    since: SystemTime,
    bytes_up: u64,
    bytes_down: u64,
}

impl Open {
    fn of(entry: &Entry) -> Self {
        let basis = entry.basis();
        let source = entry.source.ip();
        Self {
            key: Key {
                listener: basis.listener.name.clone(),
                id: Some(basis.peer.id.clone()),
                source: None,
            },
            direction: basis.direction,
            source,
            since: entry.since,
            bytes_up: entry.traffic.up.load(Ordering::Relaxed),
            bytes_down: entry.traffic.down.load(Ordering::Relaxed),
        }
    }
}

/// The peers of these connections and verdicts (the newest first), the most recent first and so many at most, and how
/// many there are.
pub(super) fn of(entries: &[Arc<Entry>], verdicts: &[Arc<Decision>]) -> (Vec<Value>, usize) {
    join(entries.iter().map(|entry| Open::of(entry)), verdicts)
}

fn join(open: impl Iterator<Item = Open>, verdicts: &[Arc<Decision>]) -> (Vec<Value>, usize) {
    let mut peers: HashMap<Key, Peer> = HashMap::new();
    for one in open {
        let peer = peers
            .entry(one.key)
            .or_insert_with(|| Peer::new(one.direction, one.source, one.since));
        peer.open += 1;
        peer.bytes_up = peer.bytes_up.saturating_add(one.bytes_up);
        peer.bytes_down = peer.bytes_down.saturating_add(one.bytes_down);
        if one.since > peer.seen {
            (peer.seen, peer.source) = (one.since, one.source);
        }
    }
    for verdict in verdicts {
        let key = Key {
            listener: verdict.listener.clone(),
            id: verdict.peer_id.clone(),
            source: verdict.source.filter(|_| verdict.peer_id.is_none()),
        };
        let peer = peers
            .entry(key)
            .or_insert_with(|| Peer::new(verdict.direction, verdict.source, verdict.time));
        match verdict.verdict {
            Verdict::Allow => peer.allowed += 1,
            Verdict::Deny if verdict.enforced => peer.denied += 1,
            Verdict::Deny => peer.reported += 1,
            Verdict::None => {}
        }
        if verdict.time > peer.seen {
            (peer.seen, peer.source) = (verdict.time, verdict.source);
        }
        // The newest comes first.
        peer.last.get_or_insert_with(|| verdict.clone());
    }
    let total = peers.len();
    let mut rows: Vec<(Key, Peer)> = peers.into_iter().collect();
    rows.sort_unstable_by(|(a_key, a), (b_key, b)| {
        b.seen
            .cmp(&a.seen)
            .then_with(|| a_key.listener.cmp(&b_key.listener))
    });
    rows.truncate(MAX_PEERS);
    (
        rows.into_iter().map(|(key, peer)| peer.show(&key)).collect(),
        total,
    )
}

impl Peer {
    const fn new(direction: Direction, source: Option<IpAddr>, seen: SystemTime) -> Self {
        Self {
            direction,
            source,
            open: 0,
            bytes_up: 0,
            bytes_down: 0,
            allowed: 0,
            denied: 0,
            reported: 0,
            last: None,
            seen,
        }
    }

    fn show(&self, key: &Key) -> Value {
        json!({
            "listener": key.listener,
            "direction": self.direction,
            "peer_id": key.id.as_ref().map(ToString::to_string),
            "source": self.source,
            "open": self.open,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "allowed": self.allowed,
            "denied": self.denied,
            "reported": self.reported,
            "last": self.last.as_ref().map(|last| json!({
                "time": rfc3339(last.time),
                "verdict": last.verdict,
                "enforced": last.enforced,
                "reason": last.reason,
                "rule": last.rule,
                "decision_id": last.id,
            })),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::DecisionIds;
    use crate::record::decision::tests::denial;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn id(text: &str) -> Arc<SpiffeId> {
        Arc::new(SpiffeId::new(text).unwrap())
    }

    fn verdict(peer: Option<&str>, source: [u8; 4], verdict: Verdict, seconds: u64) -> Arc<Decision> {
        Arc::new(Decision {
            id: DecisionIds::new(1).next(),
            listener: "orders".into(),
            peer_id: peer.map(id),
            source: Some(source.into()),
            verdict,
            time: at(seconds),
            ..denial()
        })
    }

    fn open(peer: &str, seconds: u64, bytes: u64) -> Open {
        Open {
            key: Key {
                listener: "orders".into(),
                id: Some(id(peer)),
                source: None,
            },
            direction: Direction::Inbound,
            source: Some([10, 0, 0, 9].into()),
            since: at(seconds),
            bytes_up: bytes,
            bytes_down: 2 * bytes,
        }
    }

    const WEB: &str = "spiffe://example.org/web";
    const OTHER: &str = "spiffe://example.org/other";

    #[test]
    fn connections_and_verdicts_of_one_peer_are_one_row() {
        let verdicts = [
            verdict(Some(WEB), [10, 0, 0, 2], Verdict::Deny, 40),
            verdict(None, [10, 0, 0, 3], Verdict::Deny, 30),
            verdict(None, [10, 0, 0, 4], Verdict::Deny, 25),
            verdict(None, [10, 0, 0, 3], Verdict::Deny, 24),
            verdict(Some(WEB), [10, 0, 0, 1], Verdict::Allow, 20),
        ];
        let connections = [open(WEB, 20, 5), open(WEB, 21, 1), open(OTHER, 50, 7)];
        let (peers, total) = join(connections.into_iter(), &verdicts);
        assert_eq!(total, 4);
        let row = |n: usize| -> (Option<&str>, &str, [i64; 5]) {
            let peer = &peers[n];
            let number = |field: &str| peer[field].as_i64().unwrap();
            (
                peer["peer_id"].as_str(),
                peer["source"].as_str().unwrap(),
                [
                    number("open"),
                    number("bytes_up"),
                    number("bytes_down"),
                    number("allowed"),
                    number("denied"),
                ],
            )
        };
        assert_eq!(row(0), (Some(OTHER), "10.0.0.9", [1, 7, 14, 0, 0]));
        assert_eq!(peers[0]["last"], Value::Null);
        assert_eq!(row(1), (Some(WEB), "10.0.0.2", [2, 6, 12, 1, 1]));
        assert_eq!(peers[1]["last"]["verdict"], "deny");
        assert_eq!(row(2), (None, "10.0.0.3", [0, 0, 0, 0, 2]));
        assert_eq!(row(3), (None, "10.0.0.4", [0, 0, 0, 0, 1]));
    }

    #[test]
    fn a_denial_without_an_effect_is_no_denial() {
        let reported = Arc::new(Decision {
            enforced: false,
            ..Decision::clone(&verdict(Some(WEB), [10, 0, 0, 1], Verdict::Deny, 9))
        });
        let denied = verdict(Some(WEB), [10, 0, 0, 1], Verdict::Deny, 8);
        let (peers, _) = join(std::iter::empty(), &[reported, denied]);
        let counts = ["allowed", "denied", "reported"].map(|field| peers[0][field].as_u64());
        assert_eq!(counts, [Some(0), Some(1), Some(1)]);
        assert_eq!(peers[0]["last"]["enforced"], false);
    }

    #[test]
    fn no_more_than_so_many_are_listed_the_most_recent_ones() {
        let verdicts: Vec<_> = (0..300_u64)
            .rev()
            .map(|n| {
                let peer = format!("spiffe://example.org/{n}");
                verdict(Some(&peer), [10, 0, 0, 1], Verdict::Allow, n)
            })
            .collect();
        let (peers, total) = join(std::iter::empty(), &verdicts);
        assert_eq!((peers.len(), total), (MAX_PEERS, 300));
        assert_eq!(peers[0]["peer_id"], "spiffe://example.org/299");
        assert_eq!(peers[199]["peer_id"], "spiffe://example.org/100");
    }
}
