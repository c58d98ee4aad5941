//! The two ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::CertificateParams;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use tokio::net::UnixStream;

use super::super::*;
use crate::clock::ManualClock;
use crate::config::settings::{
    Address, Limits, Listener, ListenerKind, OpenConnections, PolicyMode, SvidSelect, Target,
};
use crate::connection::registry::{Registered, Registration};
use crate::identity::material::Material;
use crate::identity::update::{Answer, Offer, check};
use crate::record::{ConnectionRecord, Decision, PeerAddr, Receipt, RecordSink};
use crate::spiffe::SpiffeId;
use crate::sys::stream::Stream;
use crate::telemetry::metrics::{Exposition, Metrics};
use crate::tls::configs::{Features, provider};
use crate::tls::handshake;
use crate::tls::record::record_length;
use crate::workload_api::authority::{Authority, leaf_params};

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const ORDERS: &str = "spiffe://example.org/orders";
pub(super) const WEB: &str = "spiffe://example.org/web";
pub(super) const ALLOW: &str = "rules: [{name: web, action: allow, from: ['spiffe://example.org/web']}]";
pub(super) const ALLOW_NOBODY: &str =
    "rules: [{name: other, action: allow, from: ['spiffe://example.org/other']}]";

/// The verdicts about renewals: which, and whether each has its effect.
#[derive(Default)]
pub(super) struct Told(pub(super) Mutex<Vec<Arc<Decision>>>);

impl RecordSink for Told {
    fn record(&self, _: &ConnectionRecord) {}

    fn decision(&self, decision: &Arc<Decision>, _: LogLine) -> Receipt {
        self.0.lock().unwrap().push(decision.clone());
        Receipt::Kept
    }
}

/// One end: a sidecar with one open connection.
pub(super) struct End {
    clock: Arc<ManualClock>,
    authority: Arc<Authority>,
    id: &'static str,
    listener: Arc<Listener>,
    pub(super) told: Arc<Told>,
    pub(super) live: Arc<Live>,
    all_metrics: Metrics,
    metrics: Arc<ListenerMetrics>,
    registered: Option<Registered>,
    pub(super) session: Option<Session>,
    renewing: Option<Box<dyn Renewing>>,
}

impl End {
    fn new(
        clock: &Arc<ManualClock>,
        authority: &Arc<Authority>,
        id: &'static str,
        listener: Listener,
        actions: OpenConnections,
    ) -> Self {
        let told = Arc::new(Told::default());
        let live = Live::new(
            clock.clone(),
            told.clone(),
            Limits::default(),
            actions,
            PolicyMode::Enforce,
        );
        let all_metrics = Metrics::new(None);
        let metrics = all_metrics.listener(&listener.name, listener.direction());
        let end = Self {
            clock: clock.clone(),
            authority: authority.clone(),
            id,
            listener: Arc::new(listener),
            told,
            live: Arc::new(live),
            all_metrics,
            metrics,
            registered: None,
            session: None,
            renewing: None,
        };
        end.rotate(HOUR);
        end.policy(ALLOW);
        end
    }

    fn now(&self) -> SystemTime {
        crate::clock::Clock::now(&*self.clock)
    }

    /// A newer SVID, which lives so long from now.
    pub(super) fn rotate(&self, ttl: Duration) {
        self.hold(&self.authority, ttl, &[&self.authority]);
    }

    /// An SVID of another authority, which is the only one in the bundle then.
    pub(super) fn trust_only(&self, other: &Authority) {
        self.hold(other, HOUR, &[other]);
    }

    fn hold(&self, issuer: &Authority, ttl: Duration, bundle: &[&Authority]) {
        let id = SpiffeId::new(self.id).unwrap();
        let issued = issuer.issue(&id, None, ttl, self.now()).unwrap();
        let answer = Answer {
            svids: vec![Offer {
                spiffe_id: Some(issued.spiffe_id.clone()),
                chain: issued.x509_svid.clone(),
                key: PrivateKeyDer::try_from(issued.x509_svid_key.clone())
                    .ok()
                    .map(Into::into),
                bundle: bundle.iter().flat_map(|ca| ca.root().to_vec()).collect(),
                hint: String::new(),
            }],
            federated: BTreeMap::new(),
        };
        let update = check(answer, &SvidSelect::First, None, self.now()).unwrap();
        let material = Material {
            generation: 1,
            svid: update.svid.unwrap(),
            svids: update.svids,
            bundles: update.bundles,
        };
        let clock: crate::clock::SharedClock = self.clock.clone();
        let features = Features {
            resumption: true,
            renewal: true,
        };
        let listeners = std::slice::from_ref(&self.listener);
        let context = Context::new(Arc::new(material), listeners, &provider(), &clock, features).unwrap();
        self.live.set_identity(IdentityView::Held(Arc::new(context)));
    }

    pub(super) fn lose_identity(&self) {
        self.live.set_identity(IdentityView::Missing {
            reason: Reason::NoIdentity,
            detail: "lost".to_owned(),
        });
    }

    pub(super) fn policy(&self, text: &str) {
        let file = crate::policy::file::read("p.yaml", text);
        let (policy, _) = crate::policy::compile(vec![file], Default::default(), self.now()).unwrap();
        let view = self.live.policy();
        let generation = view.generation + 1;
        self.live
            .set_policy(view.with_policy(Arc::new(policy), generation, self.now()));
    }

    fn context(&self) -> Arc<Context> {
        match &*self.live.identity() {
            IdentityView::Held(context) => context.clone(),
            IdentityView::Missing { .. } => panic!("no identity"),
        }
    }

    /// Registers the connection as `connection::admit` does.
    fn open(&mut self, established: handshake::Established, context: &Context) {
        let peer = established.peer;
        let registered = self.live.registry.register(Registration {
            id: self.live.registry.next_id(),
            listener: self.listener.clone(),
            direction: self.listener.direction(),
            peer_addr: PeerAddr::Unix,
            source: PeerAddr::Unix,
            bundle: context.material.bundles.get(peer.id.trust_domain()).cloned(),
            peer,
            own: context.material.svid.clone(),
            destination: None,
            since: self.now(),
        });
        let mut session = established.session;
        self.renewing = Renewals::of(&self.live, &registered.entry, &self.metrics, &mut session);
        self.session = Some(session);
        self.registered = Some(registered);
    }

    /// One more connection in the registry, which rests on the SVID of now. Nobody serves it.
    pub(super) fn register_another(&self) -> Registered {
        let context = self.context();
        self.live.registry.register(Registration {
            id: self.live.registry.next_id(),
            listener: self.listener.clone(),
            direction: self.listener.direction(),
            peer_addr: PeerAddr::Unix,
            source: PeerAddr::Unix,
            bundle: None,
            peer: self.entry().basis().peer.clone(),
            own: context.material.svid.clone(),
            destination: None,
            since: self.now(),
        })
    }

    pub(super) fn entry(&self) -> Arc<Entry> {
        self.registered.as_ref().unwrap().entry.clone()
    }

    /// What is counted that is not zero, in the order of the documentation.
    pub(super) fn counts(&self) -> Vec<(RenewalResult, u64)> {
        let text = self.all_metrics.encode(Exposition::Prometheus);
        let count = |result: &RenewalResult| {
            let label = format!("result=\"{result}\"");
            let mut lines = text
                .lines()
                .filter(|line| line.starts_with("svidecar_renewals_total"));
            let line = lines.find(|line| line.contains(&label)).unwrap();
            (*result, line.rsplit(' ').next().unwrap().parse().unwrap())
        };
        let all = RenewalResult::ALL.iter().map(count);
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// What it has to say, sealed, and how many messages.
    fn say(&mut self) -> (Vec<u8>, usize) {
        let (renewing, session) = (self.renewing.as_mut().unwrap(), self.session.as_mut().unwrap());
        if renewing.is_due() {
            renewing.say(session);
            assert!(!renewing.is_due());
        }
        let mut sealed = Vec::new();
        if session.has_renewal_to_say() {
            session.seal_renewal(&mut sealed).unwrap();
        }
        let mut rest = sealed.as_slice();
        let mut records = 0;
        while let Some(length) = record_length(rest).unwrap() {
            rest = &rest[length..];
            records += 1;
        }
        (sealed, records)
    }

    fn hear(&mut self, mut sealed: Vec<u8>) -> Result<(), Refused> {
        let (renewing, session) = (self.renewing.as_mut().unwrap(), self.session.as_mut().unwrap());
        let mut rest = sealed.as_mut_slice();
        while let Some(length) = record_length(rest).unwrap() {
            let (record, after) = rest.split_at_mut(length);
            session.receive(record).unwrap();
            rest = after;
        }
        while let Some(heard) = session.renewal().unwrap().next_heard() {
            renewing.hear(heard, session)?;
        }
        Ok(())
    }

    /// Says whatever the test wants.
    pub(super) fn offer(&mut self, (chain, key): &Shown) {
        let link = self.session.as_mut().unwrap().renewal().unwrap();
        link.offer(chain, key).unwrap();
    }
}

/// A chain and its key.
pub(super) type Shown = (Vec<CertificateDer<'static>>, Arc<dyn SigningKey>);

/// Both ends of one connection.
pub(super) struct Duo {
    clock: Arc<ManualClock>,
    pub(super) authority: Arc<Authority>,
    /// Of the same trust domain, in nobody's bundle.
    pub(super) other: Authority,
    /// Web's.
    pub(super) client: End,
    /// Orders'.
    pub(super) server: End,
}

impl Duo {
    pub(super) async fn new() -> Self {
        Self::with(OpenConnections::default()).await
    }

    pub(super) async fn with(actions: OpenConnections) -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = Arc::new(ManualClock::new(now));
        let authority = || {
            let domain = crate::spiffe::TrustDomain::new("example.org").unwrap();
            Authority::new(domain, 1000 * HOUR, now).unwrap()
        };
        let (signs, other) = (Arc::new(authority()), authority());
        let nowhere = || Target::Ip("127.0.0.1:2".parse().unwrap());
        let listener = |name: &str, kind| Listener {
            name: name.into(),
            listen: Address::Tcp("127.0.0.1:1".parse().unwrap()),
            alpn: Vec::new(),
            kind,
        };
        let inbound = ListenerKind::inbound(nowhere());
        let outbound = ListenerKind::Outbound {
            connect: nowhere(),
            peer: vec![ORDERS.parse().unwrap()],
            sni: None,
        };
        let mut client = End::new(&clock, &signs, WEB, listener("to-orders", outbound), actions);
        let mut server = End::new(&clock, &signs, ORDERS, listener("orders", inbound), actions);
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
        let (calls, serves) = (client.context(), server.context());
        let (c, s) = tokio::join!(
            handshake::connect(&mut near, calls.client("to-orders").unwrap(), || false),
            handshake::accept(&mut far, serves.server("orders").unwrap(), Vec::new())
        );
        client.open(c.unwrap(), &calls);
        let mut s = s.unwrap();
        let mut tickets = Vec::new();
        s.session.before_data(&mut tickets).unwrap();
        server.open(s, &serves);
        client.hear(tickets).unwrap();
        Self {
            clock,
            authority: signs,
            other,
            client,
            server,
        }
    }

    pub(super) fn pass(&self, time: Duration) {
        self.clock.set(crate::clock::Clock::now(&*self.clock) + time);
    }

    /// What the client has to say reaches the server; how many messages that was.
    pub(super) fn tell_server(&mut self) -> Result<usize, Refused> {
        let (sealed, count) = self.client.say();
        self.server.hear(sealed).map(|()| count)
    }

    pub(super) fn tell_client(&mut self) -> Result<usize, Refused> {
        let (sealed, count) = self.server.say();
        self.client.hear(sealed).map(|()| count)
    }

    /// The client says that it understands renewal.
    pub(super) fn greet(&mut self) {
        for end in [&mut self.client, &mut self.server] {
            end.renewing
                .as_mut()
                .unwrap()
                .begin(end.session.as_mut().unwrap());
        }
        self.tell_server().unwrap();
    }

    /// The client's newer SVID is told and answered.
    pub(super) fn renew_client(&mut self) -> Result<(), Refused> {
        self.client.entry().order_renewal();
        assert_eq!(self.tell_server()?, 1);
        assert_eq!(self.tell_client()?, 1);
        Ok(())
    }

    pub(super) fn renew_server(&mut self) -> Result<(), Refused> {
        self.server.entry().order_renewal();
        assert_eq!(self.tell_client()?, 1);
        assert_eq!(self.tell_server()?, 1);
        Ok(())
    }

    /// An SVID that anybody might hold.
    pub(super) fn svid(
        &self,
        authority: &Authority,
        id: &str,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> Shown {
        let now = crate::clock::Clock::now(&*self.clock);
        let mut params = leaf_params(&SpiffeId::new(id).unwrap(), 2 * HOUR, now).unwrap();
        spoil(&mut params);
        let issued = authority.sign(&params).unwrap();
        let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
        let key = provider().key_provider.load_private_key(key).unwrap();
        (issued.chain, key)
    }
}
