//! A record in the making.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::time::Instant;

use super::ListenerContext;
use super::live::Live;
use crate::forward::meter::Traffic;
use crate::record::{
    ConnectionRecord, Decision, DecisionId, Direction, Ending, PeerAddr, Phases, Trace, TraceId,
};
use crate::spiffe::SpiffeId;

/// What is known of a connection so far.
pub(super) struct Draft {
    pub(super) id: u64,
    pub(super) peer_addr: PeerAddr,
    /// Who calls by a load balancer's PROXY header.
    pub(super) source: Option<PeerAddr>,
    pub(super) since: SystemTime,
    pub(super) peer_id: Option<Arc<SpiffeId>>,
    /// The serial number of the peer's certificate.
    pub(super) serial: Option<Arc<str>>,
    pub(super) own_id: Option<Arc<SpiffeId>>,
    pub(super) resumed: Option<bool>,
    /// The last verdict.
    pub(super) decision: Option<Arc<Decision>>,
    /// The verdict that let it in.
    pub(super) admission: Option<DecisionId>,
    /// Where it was meant to go before it was redirected to us. Few connections have one, and all pay for the place.
    pub(super) destination: Option<Box<SocketAddr>>,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) traffic: Option<Arc<Traffic>>,
    phases: Phases,
    accepted: Instant,
    listener: Arc<str>,
    direction: Direction,
}

impl Draft {
    pub(super) fn new(id: u64, listener: &ListenerContext, peer_addr: PeerAddr, live: &Live) -> Self {
        Self {
            id,
            peer_addr,
            source: None,
            since: live.clock.now(),
            peer_id: None,
            serial: None,
            own_id: None,
            resumed: None,
            decision: None,
            admission: None,
            destination: None,
            upstream: None,
            traffic: None,
            phases: if live.records.traces() {
                Phases::BEGUN
            } else {
                Phases::OFF
            },
            accepted: Instant::now(),
            listener: listener.settings.name.clone(),
            direction: listener.direction,
        }
    }

    /// Who calls: the believed address where there is one.
    pub(super) fn source(&self) -> PeerAddr {
        self.source.unwrap_or(self.peer_addr)
    }

    /// Notes that a phase is over, where phases are kept.
    pub(super) fn phase_over(&mut self) {
        if self.phases.are_kept() {
            self.phases.next(self.accepted.elapsed());
        }
    }

    pub(super) fn finish(self, ending: Ending, live: &Live) -> ConnectionRecord {
        let source = self.source().ip();
        let (bytes_up, bytes_down) = self.traffic.map_or((0, 0), |traffic| {
            (
                traffic.up.load(Ordering::Relaxed),
                traffic.down.load(Ordering::Relaxed),
            )
        });
        ConnectionRecord {
            id: self.id,
            time: live.clock.now(),
            listener: self.listener,
            direction: self.direction,
            peer_addr: self.peer_addr,
            source,
            peer_id: self.peer_id,
            own_id: self.own_id,
            resumed: self.resumed,
            admission: self.admission,
            decision: ending.decision.or(self.decision),
            reason: ending.reason,
            detail: ending.detail,
            destination: self.destination.map(|address| *address),
            upstream: self.upstream,
            bytes_up,
            bytes_down,
            duration: self.accepted.elapsed(),
            trace: self.phases.are_kept().then(|| Trace {
                id: TraceId::of(live.decisions.process(), self.id),
                phases: self.phases,
            }),
        }
    }
}
