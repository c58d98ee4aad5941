//! The agent: a Workload API that is killed and started again, and whose clock is ours.
//!
//! It runs in this process, so that one trust domain's root outlives each of its deaths, as it does with a real agent;
//! what its callers see is what a kill leaves: connections that end without a word, and a socket that nobody serves.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use svidecar::clock::{Clock, SharedClock};
use svidecar::spiffe::{SpiffeId, TrustDomain};
use svidecar::workload_api::authority::{Authority, Issued, leaf_params};
use svidecar::workload_api::server::{Handle, bind, serve};

pub(crate) const ORDERS: &str = "spiffe://example.org/orders";
pub(crate) const STOREFRONT: &str = "spiffe://example.org/storefront";
/// Whom no rule lets in.
pub(crate) const REPORTS: &str = "spiffe://example.org/reports";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clock that can be stepped.
#[derive(Debug, Default)]
pub(crate) struct Stepped(AtomicI64);

impl Stepped {
    /// Shows the machine's time and so many seconds.
    pub(crate) fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Stepped {
    fn now(&self) -> SystemTime {
        let offset = self.0.load(Ordering::SeqCst);
        let by = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 {
            SystemTime::now() - by
        } else {
            SystemTime::now() + by
        }
    }
}

/// The agent, alive or dead.
pub(crate) struct Agent {
    runtime: tokio::runtime::Handle,
    socket: PathBuf,
    root: Authority,
    clock: Arc<Stepped>,
    state: Mutex<State>,
}

struct State {
    handle: Option<Handle>,
    ttl: Duration,
}

impl Agent {
    /// Serves on a socket in this folder.
    pub(crate) fn start(folder: &Path, ttl: Duration) -> Self {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            sender.send(runtime.handle().clone()).unwrap();
            runtime.block_on(std::future::pending::<()>());
        });
        let agent = Self {
            runtime: receiver.recv().unwrap(),
            socket: folder.join("agent.sock"),
            root: Authority::new(TrustDomain::new("example.org").unwrap(), 4 * DAY, yesterday()).unwrap(),
            clock: Arc::default(),
            state: Mutex::new(State { handle: None, ttl }),
        };
        agent.revive();
        agent
    }

    /// The `identity` section that asks here for this SVID.
    pub(crate) fn identity(&self, id: &str) -> String {
        format!(
            "identity:\n  socket: unix://{}\n  svid: {id}\n",
            self.socket.display()
        )
    }

    /// Its clock.
    pub(crate) fn clock(&self) -> &Stepped {
        &self.clock
    }

    /// Is gone: its connections end without a word, and its socket stays behind.
    pub(crate) fn kill(&self) {
        drop(self.state.lock().unwrap().handle.take());
    }

    /// Serves, with a new issuing authority below the same root.
    pub(crate) fn revive(&self) {
        let mut state = self.state.lock().unwrap();
        let _runtime = self.runtime.enter();
        let listener = bind(&self.socket, 0o600).unwrap();
        // Valid wherever the clock is stepped to.
        let issuing = self.root.intermediate(4 * DAY, yesterday()).unwrap();
        let entries = [ORDERS, STOREFRONT].map(|id| SpiffeId::new(id).unwrap().into());
        let clock: SharedClock = self.clock.clone();
        state.handle = Some(serve(listener, issuing, entries.into(), state.ttl, clock).unwrap());
    }

    /// Issues every SVID anew.
    pub(crate) fn rotate(&self) {
        if let Some(handle) = &self.state.lock().unwrap().handle {
            handle.rotate().unwrap();
        }
    }

    /// How long SVIDs live from now on; those that are out are issued anew.
    pub(crate) fn set_ttl(&self, ttl: Duration) {
        let mut state = self.state.lock().unwrap();
        state.ttl = ttl;
        if let Some(handle) = &state.handle {
            handle.set_ttl(ttl).unwrap();
        }
    }

    /// An SVID for somebody who does not ask the agent, valid wherever the clock is stepped to.
    pub(crate) fn issue(&self, id: &str) -> Issued {
        let params = leaf_params(&SpiffeId::new(id).unwrap(), 2 * DAY, yesterday()).unwrap();
        self.root.sign(&params).unwrap()
    }

    /// The root's certificate, PEM.
    pub(crate) fn bundle(&self) -> String {
        use base64::Engine as _;
        let der = base64::engine::general_purpose::STANDARD.encode(self.root.root());
        format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n")
    }
}

fn yesterday() -> SystemTime {
    SystemTime::now() - DAY
}
