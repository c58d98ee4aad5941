//! The stage: two Workload APIs, the application `orders`, and four sidecars, all on this machine and in one folder.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::application::serve_orders;
use super::files::{self, Place};
use super::folder::Folder;
use super::journal::{Journal, PATIENCE, Silence};
use super::sidecar::Sidecar;
use crate::cli::healthcheck::{HealthcheckArgs, healthcheck};
use crate::clock::SystemClock;
use crate::config::settings::Address;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::sys::bind::unix_listener;
use crate::workload_api::authority::Authority;
use crate::workload_api::server::{Entry, Handle, serve};

/// How long each SVID lives. Long, so that the demo rotates them only where it says so.
const TTL: Duration = Duration::from_secs(3600);
/// The authorities end with the process.
const AUTHORITY_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Where things are when nobody else is there.
const ADMIN_PORT: u16 = 15000;
const ORDERS_PORT: u16 = 8443;
const STOREFRONT_PORT: u16 = 9001;
/// Another process may take a port between our look at it and the sidecar's.
const PORT_ATTEMPTS: usize = 5;

/// Why the stage could not be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    /// The system refused.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// No authority or SVID could be made.
    #[error("cannot make identities: {0}")]
    Identity(String),
    /// A sidecar did not become ready.
    #[error("the sidecar of `{name}` did not become ready: {why}{}", last_words(.words))]
    Sidecar {
        /// Whose.
        name: &'static str,
        /// What happened instead.
        why: String,
        /// The end of its log.
        words: Vec<String>,
    },
}

/// The end of a sidecar's log, as part of a message.
pub(super) fn last_words(words: &[String]) -> String {
    if words.is_empty() {
        return "; it said nothing".to_owned();
    }
    format!("; its last words:\n  {}", words.join("\n  "))
}

/// The addresses that the story uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// mTLS, into `orders`.
    pub(super) orders: SocketAddr,
    /// The admin endpoint of the sidecar of `orders`.
    pub(super) admin: SocketAddr,
    /// Plaintext, from each application into its sidecar.
    pub(super) storefront: SocketAddr,
    pub(super) misled: SocketAddr,
    pub(super) reports: SocketAddr,
    pub(super) agency: SocketAddr,
}

/// Everything that runs. [`Stage::end`] takes it down in order; dropping it does so at once.
pub(super) struct Stage {
    // In this order, because they are dropped in it: nobody writes into the folder when it goes.
    sidecars: Vec<Sidecar>,
    apis: Vec<Handle>,
    application: Option<JoinHandle<()>>,
    pub(super) journal: Journal,
    pub(super) folder: Folder,
}

impl Stage {
    /// An empty one. Needs a tokio runtime.
    pub(super) fn new() -> Result<Self, StageError> {
        Ok(Self {
            sidecars: Vec::new(),
            apis: Vec::new(),
            application: None,
            journal: Journal::new(),
            folder: Folder::new().map_err(|e| StageError::System("temporary folder", e))?,
        })
    }

    /// Starts everything, and waits until all are ready.
    pub(super) async fn set_up(&mut self) -> Result<Addresses, StageError> {
        let system = |what| move |e| StageError::System(what, e);
        std::fs::create_dir(self.folder.path().join("policy")).map_err(system("policy folder"))?;
        self.folder
            .write(files::POLICY_FILE, files::POLICY)
            .map_err(system("policy file"))?;

        self.serve_identities("example.org", &["orders", "storefront", "reports"])?;
        self.serve_identities("partner.example", &["agency"])?;
        // The partner trusts us already; whether we trust the partner is part of the story.
        self.federate(1, 0)?;

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(system("port for `orders`"))?;
        let upstream = listener.local_addr().map_err(system("port for `orders`"))?;
        self.application = Some(tokio::spawn(serve_orders(listener)));

        let (orders, admin) = self
            .start("orders", |place| {
                let (orders, admin) = (free(ORDERS_PORT)?, free(ADMIN_PORT)?);
                let place = Place { orders, ..place };
                Ok((
                    files::orders(&place, upstream, admin),
                    Address::Tcp(admin),
                    (orders, admin),
                ))
            })
            .await?;
        let (storefront, misled) = self
            .start("storefront", |place| {
                let place = Place { orders, ..place };
                let (listen, misled) = (free(STOREFRONT_PORT)?, free(0)?);
                let more = files::misled(&place, misled);
                let text = files::caller(&place, "storefront", "example.org", listen, &more);
                Ok((text, admin_socket(&place, "storefront"), (listen, misled)))
            })
            .await?;
        let reports = self.caller(orders, "reports", "example.org").await?;
        let agency = self.caller(orders, "agency", "partner.example").await?;
        Ok(Addresses {
            orders,
            admin,
            storefront,
            misled,
            reports,
            agency,
        })
    }

    async fn caller(
        &mut self,
        orders: SocketAddr,
        name: &'static str,
        domain: &str,
    ) -> Result<SocketAddr, StageError> {
        self.start(name, |place| {
            let (place, listen) = (Place { orders, ..place }, free(0)?);
            Ok((
                files::caller(&place, name, domain, listen, ""),
                admin_socket(&place, name),
                listen,
            ))
        })
        .await
    }

    /// The Workload API of one trust domain.
    fn serve_identities(&mut self, domain: &str, names: &[&str]) -> Result<(), StageError> {
        let wrong = |e: &dyn std::fmt::Display| StageError::Identity(e.to_string());
        let trust_domain = TrustDomain::new(domain).map_err(|e| wrong(&e))?;
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let id = SpiffeId::new(format!("spiffe://{domain}/{name}")).map_err(|e| wrong(&e))?;
            entries.push(Entry::from(id));
        }
        let authority =
            Authority::new(trust_domain, AUTHORITY_LIFE, SystemTime::now()).map_err(|e| wrong(&e))?;
        let path = self.folder.path().join(format!("{domain}.sock"));
        let listener = unix_listener(&path, 0o600).map_err(|e| wrong(&e))?;
        let listener = UnixListener::from_std(listener).map_err(|e| StageError::System("Workload API", e))?;
        let handle =
            serve(listener, authority, entries, TTL, Arc::new(SystemClock)).map_err(|e| wrong(&e))?;
        self.apis.push(handle);
        Ok(())
    }

    /// Gives the workloads of trust domain `to` the bundle of `from`; 0 is example.org, 1 is partner.example.
    fn federate(&self, to: usize, from: usize) -> Result<(), StageError> {
        let (Some(to), Some(from)) = (self.apis.get(to), self.apis.get(from)) else {
            return Err(StageError::Identity("there is no such Workload API".to_owned()));
        };
        let authority = from.authority();
        to.federate(authority.trust_domain(), Some(authority.root().to_vec()))
            .map_err(|e| StageError::Identity(e.to_string()))
    }

    /// example.org trusts partner.example from now on.
    pub(super) fn trust_the_partner(&self) -> Result<(), StageError> {
        self.federate(0, 1)
    }

    /// Every SVID of example.org is issued anew.
    pub(super) fn rotate(&self) -> Result<(), StageError> {
        match self.apis.first() {
            Some(api) => api.rotate().map_err(|e| StageError::Identity(e.to_string())),
            None => Err(StageError::Identity("there is no Workload API".to_owned())),
        }
    }

    /// Starts a sidecar and waits until it is ready. `write` makes its config, its admin address, and what the caller
    /// wants to know; it is asked again when a port was taken in the meantime.
    async fn start<T>(
        &mut self,
        name: &'static str,
        mut write: impl FnMut(Place<'_>) -> io::Result<(String, Address, T)>,
    ) -> Result<T, StageError> {
        let system = |e| StageError::System("sidecar", e);
        for attempt in 1.. {
            let unknown = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let place = Place {
                folder: self.folder.path(),
                orders: unknown,
            };
            let (config, admin, known) = write(place).map_err(system)?;
            let path = self
                .folder
                .write(&format!("{name}.yaml"), &config)
                .map_err(system)?;
            let mark = self.journal.mark();
            self.sidecars
                .push(Sidecar::start(name, &path, &self.journal).map_err(system)?);
            let held = self.journal.wait(mark, mark, |entry| {
                let updated = entry.sidecar == name && entry.said.message() == Some("identity updated");
                updated.then_some(())
            });
            let why = match held.await {
                Ok(()) => match ready(admin).await {
                    Ok(()) => return Ok(known),
                    Err(why) => why,
                },
                Err(Silence::TooLong) => format!("nothing for {} s", PATIENCE.as_secs()),
                Err(Silence::Ended(_)) => self.how_it_ended(name).await,
            };
            let words = self.journal.last_words(name, 10);
            let taken = words
                .iter()
                .any(|line| line.contains("another process is serving there"));
            if !taken || attempt == PORT_ATTEMPTS {
                return Err(StageError::Sidecar { name, why, words });
            }
            self.sidecars.pop();
        }
        Err(StageError::Identity("no attempt was made".to_owned()))
    }

    /// How a sidecar ended that did.
    pub(super) async fn how_it_ended(&mut self, name: &str) -> String {
        let Some(sidecar) = self.sidecars.iter_mut().find(|sidecar| sidecar.name == name) else {
            return "it was never started".to_owned();
        };
        match sidecar.ended().await {
            Some(status) => format!("it ended ({status})"),
            None => "it closed its log".to_owned(),
        }
    }

    /// Where a file of the stage is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends the sidecars, then what they lean on, and removes the folder.
    pub(super) async fn end(mut self) {
        self.sidecars.iter().for_each(Sidecar::ask_to_end);
        for sidecar in &mut self.sidecars {
            sidecar.end().await;
        }
        if let Some(application) = &self.application {
            application.abort();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(application) = &self.application {
            application.abort();
        }
    }
}

fn admin_socket(place: &Place<'_>, name: &str) -> Address {
    Address::Unix(place.folder.join(format!("{name}.admin.sock")))
}

/// An address on loopback that is free at this moment; that with the wanted port, if it is.
fn free(wanted: u16) -> io::Result<SocketAddr> {
    let bind = |port| StdListener::bind((Ipv4Addr::LOCALHOST, port));
    bind(wanted).or_else(|_| bind(0))?.local_addr()
}

/// Waits until the sidecar says so itself, as a container's health check would.
async fn ready(admin: Address) -> Result<(), String> {
    let args = Arc::new(HealthcheckArgs { admin, live: false });
    let ask = async {
        loop {
            let args = args.clone();
            let asked = tokio::task::spawn_blocking(move || healthcheck(&args, &mut io::sink())).await;
            match asked {
                Ok(Ok(())) => return,
                // It holds its identity already: what is missing takes a moment.
                Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .map_err(|_| "`/readyz` does not say ready".to_owned())
}
