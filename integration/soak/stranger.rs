//! Somebody whom no rule lets in, who knocks during the whole run: in no weather may a byte of theirs come through.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::agent::REPORTS;
use crate::clients::connect;
use crate::frame::{Question, STRANGER};
use crate::support::trusting::{Trusting, provider};
use crate::world::World;

const PAUSE: Duration = Duration::from_millis(250);

/// Knocks until it is stopped.
pub(crate) struct Stranger {
    stop: Arc<AtomicBool>,
    knocks: Arc<AtomicU64>,
    /// How often something came back.
    answers: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Stranger {
    /// Starts knocking at the server's sidecar, with a good SVID that no rule names.
    pub(crate) fn start(world: &World) -> Self {
        let issued = world.agent.issue(REPORTS);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting::default()))
            .with_client_auth_cert(
                issued.chain,
                PrivatePkcs8KeyDer::from(issued.key.serialize_der()).into(),
            )
            .unwrap();
        config.resumption = rustls::client::Resumption::disabled();
        let (config, addr) = (Arc::new(config), world.tls);
        let (stop, knocks, answers) = (
            Arc::<AtomicBool>::default(),
            Arc::<AtomicU64>::default(),
            Arc::<AtomicU64>::default(),
        );
        let (stopped, counted, answered) = (Arc::clone(&stop), Arc::clone(&knocks), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                counted.fetch_add(1, Ordering::SeqCst);
                if knock(addr, &config).is_ok() {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self {
            stop,
            knocks,
            answers,
            thread: Some(thread),
        }
    }

    /// Stops; how often it knocked, and how often it was answered.
    pub(crate) fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        (
            self.knocks.load(Ordering::SeqCst),
            self.answers.load(Ordering::SeqCst),
        )
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Asks, and succeeds when a byte comes back.
fn knock(addr: std::net::SocketAddr, config: &Arc<ClientConfig>) -> io::Result<()> {
    let name = ServerName::try_from("orders.example.org").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, connect(addr)?);
    let question = Question {
        client: STRANGER,
        number: 0,
        length: 10,
    };
    stream.write_all(&question.bytes())?;
    stream.read_exact(&mut [0])
}
