//! What a sidecar is put into: a Workload API under the test's control, identities for its peers, and the two scenes
//! that most tests play in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use svidecar::clock::SystemClock;
use svidecar::spiffe::{SpiffeId, TrustDomain};
use svidecar::workload_api::authority::{Authority, leaf_params};
use svidecar::workload_api::server::{Entry, Handle, bind, serve};
use tempfile::TempDir;

use crate::plain::Door;
use crate::support::net::free_address;
use crate::support::sidecar::{Setup, Sidecar};

pub(crate) const ORDERS: &str = "spiffe://example.org/orders";
pub(crate) const STOREFRONT: &str = "spiffe://example.org/storefront";
pub(crate) const REPORTS: &str = "spiffe://example.org/reports";
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Lets storefront in and nobody else.
pub(crate) const STOREFRONT_ONLY: &str =
    "rules:\n  - name: storefront\n    action: allow\n    from: [\"spiffe://example.org/storefront\"]\n";

/// A line of an inbound listener that accepts the partner's trust domain beside our own.
pub(crate) const TRUST_PARTNER: &str = "    trust: [partner.example]\n";

/// One thread that serves every Workload API of this process.
static RUNTIME: LazyLock<tokio::runtime::Handle> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        sender.send(runtime.handle().clone()).unwrap();
        runtime.block_on(std::future::pending::<()>());
    });
    receiver.recv().unwrap()
});

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::new(text).unwrap()
}

pub(crate) fn authority(trust_domain: &str) -> Authority {
    Authority::new(
        TrustDomain::new(trust_domain).unwrap(),
        24 * HOUR,
        SystemTime::now(),
    )
    .unwrap()
}

/// A Workload API on a unix socket, served by this process.
pub(crate) struct Api {
    handle: Option<Handle>,
    folder: TempDir,
}

impl Api {
    /// Gives these IDs, the first being the default, for an hour.
    pub(crate) fn start(ids: &[&str]) -> Self {
        Self::with_ttl(ids, HOUR)
    }

    /// Gives SVIDs that live so long.
    pub(crate) fn with_ttl(ids: &[&str], ttl: Duration) -> Self {
        let mut api = Self::absent();
        api.come(ids, ttl);
        api
    }

    /// An address where nobody listens yet.
    pub(crate) fn absent() -> Self {
        Self {
            handle: None,
            folder: TempDir::with_prefix("svidecar-api-").unwrap(),
        }
    }

    /// Serves, with a new authority and on a new socket at the same address.
    pub(crate) fn come(&mut self, ids: &[&str], ttl: Duration) {
        let entries = ids.iter().map(|text| Entry::from(id(text))).collect();
        let _runtime = RUNTIME.enter();
        let listener = bind(&self.socket(), 0o600).unwrap();
        let handle = serve(
            listener,
            authority("example.org"),
            entries,
            ttl,
            Arc::new(SystemClock),
        );
        self.handle = Some(handle.unwrap());
    }

    /// Is gone: its connections end and nobody listens.
    pub(crate) fn go(&mut self) {
        self.handle = None;
        // It would refuse to connect as well, where the listener is gone; a real agent removes it, too.
        let _ = std::fs::remove_file(self.socket());
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.handle.as_ref().unwrap()
    }

    pub(crate) fn authority(&self) -> Arc<Authority> {
        self.handle().authority()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// The `identity` section that asks here.
    pub(crate) fn identity(&self) -> String {
        format!("identity:\n  socket: unix://{}\n", self.socket().display())
    }

    /// An SVID of the trust domain for a peer.
    pub(crate) fn peer(&self, id: &str) -> Identity {
        Identity::of(&self.authority(), id)
    }
}

/// What a peer presents.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Vec<u8>,
}

impl Identity {
    /// A faultless SVID for an hour.
    pub(crate) fn of(authority: &Authority, text: &str) -> Self {
        Self::with(authority, text, |_| {})
    }

    /// An SVID that ends then.
    pub(crate) fn until(authority: &Authority, text: &str, end: SystemTime) -> Self {
        Self::with(authority, text, |params| params.not_after = end.into())
    }

    /// An SVID with something wrong about it.
    pub(crate) fn with(
        authority: &Authority,
        text: &str,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = leaf_params(&id(text), HOUR, SystemTime::now()).unwrap();
        spoil(&mut params);
        let issued = authority.sign(&params).unwrap();
        Self {
            chain: issued.chain,
            key: issued.key.serialize_der(),
        }
    }

    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

/// A name for a certificate's URI SAN that need not be a SPIFFE ID.
pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A sidecar before an application: peers come in.
pub(crate) struct Inbound {
    pub(crate) api: Api,
    pub(crate) app: Door,
    pub(crate) sidecar: Sidecar,
    /// Where the sidecar takes TLS connections.
    pub(crate) tls: SocketAddr,
}

/// What can differ between inbound scenes.
pub(crate) struct InboundSetup<'a> {
    /// The policy file; none where `settings` name one.
    pub(crate) policy: Option<&'a str>,
    /// Lines of the listener, each indented by four spaces.
    pub(crate) listener: &'a str,
    /// Further sections.
    pub(crate) settings: &'a str,
    pub(crate) program: Option<&'a Path>,
}

impl Default for InboundSetup<'_> {
    fn default() -> Self {
        Self {
            policy: Some(STOREFRONT_ONLY),
            listener: "",
            settings: "",
            program: None,
        }
    }
}

impl InboundSetup<'_> {
    /// Orders behind a sidecar, with an application that the test plays.
    pub(crate) fn start(self) -> Inbound {
        self.start_with(Api::start(&[ORDERS]))
    }

    pub(crate) fn start_with(self, api: Api) -> Inbound {
        let scene = self.start_unready(api);
        scene.sidecar.wait_ready();
        scene
    }

    pub(crate) fn start_unready(self, api: Api) -> Inbound {
        let (tls, app) = (free_address(), Door::open());
        let policy = if self.policy.is_some() {
            "policy:\n  path: policy/\n"
        } else {
            ""
        };
        let upstream = if ["upstream:", "serve:"].iter().any(|f| self.listener.contains(f)) {
            String::new()
        } else {
            format!("    upstream: {}\n", app.addr())
        };
        let config = format!(
            "{}{policy}inbound:\n  - name: orders\n    listen: {tls}\n{upstream}{}{}",
            api.identity(),
            self.listener,
            self.settings
        );
        let mut setup = Setup::new("orders", config);
        if let Some(policy) = self.policy {
            setup = setup.policy(policy);
        }
        if let Some(program) = self.program {
            setup = setup.program(program);
        }
        Inbound {
            sidecar: setup.start(),
            api,
            app,
            tls,
        }
    }
}

/// A sidecar behind an application: it calls a peer that the test plays.
pub(crate) struct Outbound {
    pub(crate) api: Api,
    /// Where the peer takes TLS connections.
    pub(crate) peer: Door,
    pub(crate) sidecar: Sidecar,
    /// Where the application connects.
    pub(crate) plain: SocketAddr,
}

/// What can differ between outbound scenes.
#[derive(Default)]
pub(crate) struct OutboundSetup<'a> {
    /// Lines of the listener, each indented by four spaces.
    pub(crate) listener: &'a str,
    /// Further sections.
    pub(crate) settings: &'a str,
}

impl OutboundSetup<'_> {
    /// Storefront's sidecar, which expects orders to answer.
    pub(crate) fn start(self) -> Outbound {
        self.start_with(Api::start(&[STOREFRONT]))
    }

    pub(crate) fn start_with(self, api: Api) -> Outbound {
        let (plain, peer) = (free_address(), Door::open());
        let connect = if self.listener.contains("connect:") {
            String::new()
        } else {
            format!("    connect: {}\n", peer.addr())
        };
        let config = format!(
            "{}outbound:\n  - name: to-orders\n    listen: {plain}\n    peer: [\"{ORDERS}\"]\n{connect}{}{}",
            api.identity(),
            self.listener,
            self.settings
        );
        let sidecar = Setup::new("storefront", config).start();
        sidecar.wait_ready();
        Outbound {
            api,
            peer,
            sidecar,
            plain,
        }
    }
}

/// Storefront's application, its sidecar, orders' sidecar, and orders' application.
pub(crate) struct Pair {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Sidecar,
    /// Where storefront's application connects.
    pub(crate) plain: SocketAddr,
}

impl Pair {
    pub(crate) fn start() -> Self {
        let inbound = InboundSetup::default().start_with(Api::start(&[ORDERS, STOREFRONT]));
        let plain = free_address();
        let config = format!(
            "{}  svid: {STOREFRONT}\noutbound:\n  - name: to-orders\n    listen: {plain}\n    peer: [\"{ORDERS}\"]\n    \
             connect: {}\n",
            inbound.api.identity(),
            inbound.tls
        );
        let outbound = Setup::new("storefront", config).start();
        outbound.wait_ready();
        Self {
            inbound,
            outbound,
            plain,
        }
    }
}
