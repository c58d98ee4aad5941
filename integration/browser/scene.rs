//! What the page shows: the sidecar of `orders` with those who call it, whom it calls, and whom it refuses.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::AlertDescription;
use tempfile::TempDir;

use crate::peers::{Client, client_config, connect, expect_alert, expect_refusal};
use crate::support::application::{Echo, LineClient, ask_once};
use crate::support::net::free_address;
use crate::support::sidecar::{Setup, Sidecar};
use crate::world::{Api, Identity, authority};

pub(crate) const TOKEN: &str = "3f786850e387550fdab836ed7e6dc881de23001b";
pub(crate) const ORDERS: &str = "spiffe://example.org/ns/shop/sa/orders";
pub(crate) const STOREFRONT: &str = "spiffe://example.org/ns/shop/sa/storefront";
pub(crate) const REPORTS: &str = "spiffe://example.org/ns/shop/sa/reports";
const PAYMENTS: &str = "spiffe://example.org/ns/shop/sa/payments";

/// What orders' policy says. Nobody is ever `batch`.
pub(crate) const POLICY: &str = "\
rules:
  - name: storefront-places-orders
    description: The shop places orders, from inside of our network
    action: allow
    to: [orders]
    from: [spiffe://example.org/ns/shop/sa/storefront]
    source: [127.0.0.0/8, 10.0.0.0/8]
  - name: batch-reads
    action: allow
    from: [\"spiffe://example.org/ns/*/sa/batch\"]
    source: [10.9.0.0/16]
  - name: legacy-is-out
    description: Retired in May
    action: deny
    from: [spiffe://example.org/ns/shop/sa/legacy-sync]
  - name: the-edge-looks-up-orders
    action: allow
    to: [orders]
    from: [spiffe://example.org/ns/edge/sa/mobile, spiffe://example.org/ns/edge/sa/partners]
";

/// What would let reports in and nobody else.
const CANDIDATE: &str =
    "rules:\n  - { name: reports-read, action: allow, from: [spiffe://example.org/ns/shop/sa/reports] }\n";
/// Names somebody who never comes.
const DENY_LIST: &str =
    "deny:\n  - { name: stolen-laptop, description: Incident 4711, ids: [spiffe://example.org/laptop] }\n";

/// The sidecars and applications.
pub(crate) struct Scene {
    pub(crate) api: Api,
    pub(crate) orders: Sidecar,
    pub(crate) storefront: Sidecar,
    /// Where the applications of storefront and reports call orders.
    pub(crate) from_storefront: SocketAddr,
    from_reports: SocketAddr,
    /// Where the sidecar of orders takes TLS connections.
    orders_at: SocketAddr,
    /// Where the application of orders calls payments.
    pub(crate) to_payments: SocketAddr,
    _others: [Sidecar; 2],
    _applications: [Echo; 2],
    _folder: TempDir,
}

/// A sidecar that calls orders.
fn caller(name: &str, api: &Api, id: &str, listen: SocketAddr, orders: SocketAddr) -> Sidecar {
    let config = format!(
        "{}  svid: {id}\noutbound:\n  - name: to-orders\n    listen: {listen}\n    peer: [\"{ORDERS}\"]\n    connect: {orders}\n",
        api.identity()
    );
    Setup::new(name, config).start()
}

impl Scene {
    pub(crate) fn start() -> Self {
        Self::with("enforce", "")
    }

    /// With the `policy.mode` of orders, and further fields of its audit log, each behind a comma.
    pub(crate) fn with(mode: &str, audit: &str) -> Self {
        let api = Api::start(&[ORDERS, STOREFRONT, REPORTS, PAYMENTS]);
        let folder = TempDir::with_prefix("svidecar-page-").unwrap();
        let token = folder.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o400)).unwrap();
        fs::write(folder.path().join("candidate.yaml"), CANDIDATE).unwrap();
        fs::write(folder.path().join("deny.yaml"), DENY_LIST).unwrap();
        let applications = [Echo::start(), Echo::start()];
        let [orders_at, payments_at, to_payments, from_storefront, from_reports] =
            [(); 5].map(|()| free_address());
        let config = format!(
            "{identity}  svid: {PAYMENTS}\npolicy: {{ path: policy/ }}\ninbound:\n  - {{ name: payments, listen: '{payments_at}', \
             upstream: '{}' }}\n",
            applications[1].addr(),
            identity = api.identity()
        );
        let payments = Setup::new("payments", config)
            .policy("rules:\n  - { name: orders-pays, action: allow, from: [spiffe://example.org/ns/shop/sa/orders] }\n")
            .start();
        let config = format!(
            "{identity}  svid: {ORDERS}\npolicy: {{ path: policy/, mode: {mode}, candidate: '{beside}/candidate.yaml', deny_list: '{beside}/deny.yaml' }}\n\
             audit: {{ file: '{beside}/audit.jsonl'{audit} }}\ninbound:\n  - {{ name: orders, listen: '{orders_at}', upstream: \
             '{}' }}\noutbound:\n  - {{ name: payments, listen: '{to_payments}', connect: '{payments_at}', peer: ['{PAYMENTS}'] \
             }}\nadmin: {{ listen: '@admin', token_file: '{}' }}\n",
            applications[0].addr(),
            token.display(),
            beside = folder.path().display(),
            identity = api.identity()
        );
        let orders = Setup::new("orders", config).policy(POLICY).start();
        let storefront = caller("storefront", &api, STOREFRONT, from_storefront, orders_at);
        let reports = caller("reports", &api, REPORTS, from_reports, orders_at);
        for sidecar in [&orders, &storefront, &reports, &payments] {
            sidecar.wait_ready();
        }
        Self {
            api,
            orders,
            storefront,
            from_storefront,
            from_reports,
            orders_at,
            to_payments,
            _others: [reports, payments],
            _applications: applications,
            _folder: folder,
        }
    }

    /// The page of orders.
    pub(crate) fn page(&self) -> String {
        format!("http://{}/", self.orders.admin())
    }

    /// Reports calls, and is let in, as policy only reports.
    pub(crate) fn reports_is_let_in(&self) {
        ask_once(self.from_reports, "how many shirts?").unwrap();
    }

    /// Reports calls, and is denied.
    pub(crate) fn reports_calls(&self) {
        ask_once(self.from_reports, "how many shirts?").unwrap_err();
    }

    /// Somebody calls whose certificate no authority of ours issued.
    pub(crate) fn stranger_calls(&self) {
        let identity = Identity::of(&authority("example.org"), STOREFRONT);
        expect_refusal(
            self.orders_at,
            client_config(Some(&identity)),
            AlertDescription::UnknownCA,
        );
    }
}

/// Somebody without a sidecar of ours calls orders, says hello and stays.
pub(crate) fn guest(scene: &Scene, id: &str) -> Client {
    let mut client = connect(scene.orders_at, &scene.api.peer(id));
    client.write_all(b"hello\n").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    client
}

/// Somebody without a sidecar of ours is denied.
pub(crate) fn unwelcome(scene: &Scene, id: &str) {
    let mut client = connect(scene.orders_at, &scene.api.peer(id));
    expect_alert(&mut client, AlertDescription::AccessDenied);
}

/// An application that talks on one connection until it is dropped: a line of so many letters every 20 ms.
pub(crate) struct Talk {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Talk {
    pub(crate) fn start(at: SocketAddr, letters: usize) -> Self {
        let mut client = LineClient::connect(at).unwrap();
        client.ask("first").unwrap();
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&answered));
        let line = "x".repeat(letters);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) && client.ask(&line).is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            stop,
            answered,
            thread: Some(thread),
        }
    }

    /// How many lines were answered.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Whether its connection has ended.
    pub(crate) fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
