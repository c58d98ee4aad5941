//! One connection, from acceptance to its record. [`serve`] tells it in order; [`inbound`] and [`outbound`] tell what
//! differs.
//!
//! The phases are accept, handshake, authorize, connect, relay, close. Whatever happens in one of them, the
//! connection ends as exactly one [`ConnectionRecord`](crate::record::ConnectionRecord).
//!
//! Most connections are idle most of their life, and then a connection is what its task keeps: all that comes before
//! the relay lives in memory of its own, which is freed when the relay begins ([`open`]).

pub mod authority;
pub mod budget;
pub mod capacity;
mod draft;
mod inbound;
pub mod live;
pub mod loops;
mod open;
mod outbound;
pub mod own;
mod passthrough;
mod proxy;
pub mod registry;
pub mod renewal;
mod transparent;
mod verdict;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::AlertDescription;
use tokio::time::{Instant, timeout_at};

use crate::authorize::{CertificateFacts, Permit};
use crate::clock::rfc3339;
use crate::config::settings;
use crate::forward::{self, relay::Ends};
use crate::identity::material::Svid;
use crate::lifecycle::drain::DrainWatch;
use crate::record::{Decision, Direction, Ending, HandshakeKind, PeerAddr, Reason, Receipt};
use crate::sys::stream::Stream;
use crate::telemetry::metrics::ListenerMetrics;
use crate::tls::configs::Context;
use crate::tls::handshake::{Established, Failure};
use crate::tls::session::Session;
use crate::tls::verify::VerifiedPeer;
use crate::upstream::resolve::Resolver;
use budget::InUse;
use draft::Draft;
use live::{IdentityView, Live};
use open::Open;
use registry::{Registered, Registration};

/// A listener as its connections see it.
#[derive(Debug)]
pub struct ListenerContext {
    /// As configured.
    pub settings: Arc<settings::Listener>,
    /// Which way it faces.
    pub direction: Direction,
    /// Its metrics.
    pub metrics: Arc<ListenerMetrics>,
    /// Where its connections go, in words.
    pub upstream: Arc<str>,
}

impl ListenerContext {
    /// A listener as it is configured, with its metrics.
    #[must_use]
    pub fn new(settings: Arc<settings::Listener>, metrics: Arc<ListenerMetrics>) -> Self {
        Self {
            direction: settings.direction(),
            metrics,
            upstream: settings.upstream().into(),
            settings,
        }
    }
}

/// What a worker lends to its connections.
#[derive(Debug)]
pub struct Worker {
    /// Identity, policy, registry.
    pub live: Arc<Live>,
    /// Resolves the names of upstreams.
    pub resolver: Resolver,
    /// Tells when the process is on its way out.
    pub drain: DrainWatch,
}

/// How a connection ended, and the TLS socket that still carries our last words, if there is one.
struct Closing {
    ending: Ending,
    linger: Option<Stream>,
}

impl Closing {
    /// Both sockets are gone already.
    const fn done(ending: Ending) -> Self {
        Self { ending, linger: None }
    }
}

/// What the two directions share while they serve a connection.
struct Serving<'a> {
    worker: &'a Worker,
    listener: &'a Arc<ListenerContext>,
    draft: Draft,
    /// Given back when the handshake is over.
    handshake: Option<capacity::Place>,
    /// Likewise.
    from_source: Option<capacity::FromSource>,
    /// The address that a caller reached, where it is not the one that we listen on: by a load balancer's PROXY header, or
    /// before the connection was redirected.
    reached: Option<SocketAddr>,
    /// That a redirected connection, and the one that is made for it, are being set up.
    between: [Option<loops::Between>; 2],
    /// What became of the last verdict's record.
    receipt: Receipt,
}

/// A connection that may go on: what [`open::Open`] relays.
struct Admitted {
    permit: Permit,
    ends: Ends,
    registered: Registered,
    /// What its peer's budgets are charged with.
    in_use: Option<Box<InUse>>,
}

/// Serves one accepted connection to its end, and records it. A drain waits for it from this call on, before it is
/// first polled.
pub fn serve(
    worker: Arc<Worker>,
    listener: Arc<ListenerContext>,
    stream: Stream,
    peer_addr: PeerAddr,
) -> impl Future<Output = ()> + Send {
    let token = worker.drain.token();
    let admission = Box::pin(admit(worker, listener, stream, peer_addr));
    async move {
        let left = match admission.await {
            Ok(open) => open.relay().await,
            Err(left) => left,
        };
        if let Some(stream) = left.linger {
            Box::pin(stream.close_lingering()).await;
        }
        drop((left.place, token));
    }
}

/// What is left of a connection that is recorded.
struct Left {
    /// The TLS socket, if it still carries our last words.
    linger: Option<Stream>,
    /// The place it takes until that is closed.
    place: Option<capacity::Place>,
}

/// What authorization asks of a peer's certificate.
fn certificate(peer: &VerifiedPeer) -> CertificateFacts<'_> {
    CertificateFacts {
        serial: &peer.serial,
        key_hash: &peer.key_hash,
        issued: peer.issued,
    }
}

/// All that comes before the relay.
async fn admit(
    worker: Arc<Worker>,
    listener: Arc<ListenerContext>,
    stream: Stream,
    peer_addr: PeerAddr,
) -> Result<Box<Open>, Left> {
    let live = &worker.live;
    let draft = Draft::new(live.registry.next_id(), &listener, peer_addr, live);
    let (place, handshake) = match live.capacity.admit() {
        Ok(places) => places,
        Err(reason) => {
            stream.abort();
            live.records.record(&draft.finish(Ending::new(reason), live));
            return Err(Left {
                linger: None,
                place: None,
            });
        }
    };
    let counted = listener.metrics.open();
    let mut serving = Serving {
        worker: &worker,
        listener: &listener,
        draft,
        handshake: Some(handshake),
        from_source: None,
        reached: None,
        between: [None, None],
        receipt: Receipt::Kept,
    };
    let admitted = match listener.direction {
        Direction::Inbound => inbound::serve(&mut serving, stream).await,
        Direction::Outbound => outbound::serve(&mut serving, stream).await,
    };
    // One that was refused without a handshake still has its places there.
    drop((serving.handshake.take(), serving.from_source.take()));
    let draft = serving.draft;
    match admitted {
        Ok(admitted) => Ok(Open::new(admitted, draft, &worker, &listener, place, counted)),
        Err(Closing { ending, linger }) => {
            drop(counted);
            live.records.record(&draft.finish(ending, live));
            Err(Left {
                linger,
                place: Some(place),
            })
        }
    }
}

impl Serving<'_> {
    /// Who we are, or why the connection must be refused.
    fn identity(&mut self) -> Result<Arc<Context>, Ending> {
        let live = &self.worker.live;
        let now = live.clock.now();
        match &*live.identity() {
            IdentityView::Held(context) if context.material.svid.is_valid(now) => {
                self.draft.own_id = Some(context.material.svid.id.clone());
                Ok(context.clone())
            }
            IdentityView::Held(context) if now < context.material.svid.not_before => {
                let (begin, now) = (rfc3339(context.material.svid.not_before), rfc3339(now));
                let detail = format!("our SVID is valid from {begin} on, and our clock shows {now}");
                Err(Ending::with(Reason::NoIdentity, detail))
            }
            // The identity task is about to say so; nobody is let in meanwhile.
            IdentityView::Held(_) => Err(Ending::with(Reason::IdentityExpired, "our SVID ran out")),
            IdentityView::Missing { reason, detail } => Err(Ending::with(*reason, detail.clone())),
        }
    }

    /// When a handshake that begins now, or what comes before it, must be over.
    fn handshake_deadline(&self) -> Instant {
        Instant::now() + self.worker.live.terms().limits.handshake_timeout
    }

    /// Runs a handshake within its time limit, and notes what it found.
    async fn handshake(
        &mut self,
        deadline: Instant,
        handshake: impl Future<Output = Result<Established, Failure>>,
    ) -> Result<Established, Failure> {
        let limit = self.worker.live.terms().limits.handshake_timeout;
        self.draft.phase_over();
        let started = Instant::now();
        // Boxed: an async function stores what it is given once more, and this is large.
        let result = tokio::select! {
            result = timeout_at(deadline, Box::pin(handshake)) => result.unwrap_or_else(|_| Err(Failure {
                reason: Reason::HandshakeTimeout,
                detail: format!("the handshake took longer than {} ms", limit.as_millis()),
                peer: None,
                alerted: false,
                check: None,
            })),
            () = self.worker.drain.forced() => Err(Failure {
                reason: self.forced().reason,
                detail: "during the handshake".to_owned(),
                peer: None,
                alerted: false,
                check: None,
            }),
        };
        (self.handshake, self.from_source) = (None, None);
        match &result {
            Ok(established) => {
                self.draft.phase_over();
                let kind = if established.resumed {
                    HandshakeKind::Resumed
                } else {
                    HandshakeKind::Full
                };
                self.listener.metrics.handshake(kind, started.elapsed());
                self.draft.resumed = Some(established.resumed);
                self.draft.peer_id = Some(established.peer.id.clone());
                self.draft.serial = Some(established.peer.serial.clone());
            }
            Err(failure) => {
                self.draft.peer_id = failure.peer.clone().map(Arc::new);
                self.handshake_failed(failure);
            }
        }
        result
    }

    /// Registers the connection, so that no change from here on passes it by.
    fn register(&self, context: &Context, established: &Established) -> Registered {
        let peer = established.peer.clone();
        self.worker.live.registry.register(Registration {
            id: self.draft.id,
            peer_addr: self.draft.peer_addr,
            source: self.draft.source(),
            destination: self.draft.destination.clone(),
            since: self.draft.since,
            listener: self.listener.settings.clone(),
            direction: self.listener.direction,
            bundle: context.material.bundles.get(peer.id.trust_domain()).cloned(),
            peer,
            own: Arc::<Svid>::clone(&context.material.svid),
        })
    }

    /// Checks what changed between the handshake and the registration.
    fn recheck(&mut self, registered: &Registered) -> Result<(), Ending> {
        let live = &self.worker.live;
        let (identity, now) = (live.identity(), live.clock.now());
        match authority::recheck(&registered.entry, &live.registry, &identity, now) {
            Some(finding) => Err(self.overtaken(&registered.entry, &finding)),
            None => Ok(()),
        }
    }

    /// Notes the verdict on which the connection is open from now on.
    fn admitted(&mut self, decision: Arc<Decision>, registered: &Registered) {
        self.draft.admission = Some(decision.id);
        // Nobody else sets it.
        let _ = registered.entry.decision.set(decision);
        self.worker.live.registry.admitted(&registered.entry);
    }

    /// Whether verdicts can be recorded, where the settings let nobody in without a record.
    fn recordable(&self) -> Result<(), Ending> {
        match self.worker.live.records.refuses() {
            Some(why) => Err(Ending::with(Reason::AuditUnavailable, why)),
            None => Ok(()),
        }
    }

    /// Waits until the last verdict is recorded as surely as the settings ask: before that nothing is forwarded.
    async fn recorded(&mut self, registered: &Registered) -> Result<(), Ending> {
        let kept = match std::mem::replace(&mut self.receipt, Receipt::Kept) {
            Receipt::Kept => true,
            Receipt::Lost => false,
            Receipt::Pending(kept) => tokio::select! {
                kept = kept => kept,
                ending = self.told_to_close(registered) => return Err(ending),
            },
        };
        if kept {
            self.draft.phase_over();
            Ok(())
        } else {
            let detail = "the verdict could not be written to the audit log";
            Err(Ending::with(Reason::AuditUnavailable, detail))
        }
    }

    /// Why a connection ends that the drain did not wait for.
    fn forced(&self) -> Ending {
        if self.worker.live.shutdown_now.load(Ordering::Relaxed) {
            Ending::new(Reason::Shutdown)
        } else {
            Ending::new(Reason::DrainTimeout)
        }
    }

    /// Resolves when a connection that is being set up must end for a cause outside of it.
    async fn told_to_close(&self, registered: &Registered) -> Ending {
        tokio::select! {
            biased;
            order = registered.told_to_end() => order,
            () = self.worker.drain.forced() => self.forced(),
        }
    }
}

/// Ends a TLS connection that is not relayed with a fatal alert, and hands back the socket for a lingering close.
async fn refuse(session: Session, stream: Stream, alert: AlertDescription) -> Option<Stream> {
    forward::refuse(stream, session, Vec::new(), alert).await
}

/// Closes the TLS socket of a handshake that failed.
fn after_failure(stream: Stream, failure: Failure) -> Closing {
    let ending = Ending::with(failure.reason, failure.detail);
    if failure.alerted {
        return Closing {
            ending,
            linger: Some(stream),
        };
    }
    stream.abort();
    Closing::done(ending)
}
