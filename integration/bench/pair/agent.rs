//! The agent that is there when a side starts: svidecar's own Workload API, on a thread of this process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use svidecar::clock::SystemClock;
use svidecar::spiffe::{SpiffeId, TrustDomain};
use svidecar::workload_api::authority::Authority;
use svidecar::workload_api::server::{Entry, bind, serve};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::Result;
use crate::certificates::{CLIENT_ID, SERVER_ID, TRUST_DOMAIN};

const LIFE: Duration = Duration::from_secs(3600);

/// Gives both sides their SVIDs until it is dropped.
pub(crate) struct Agent {
    pub(crate) socket: PathBuf,
    _stop: oneshot::Sender<()>,
}

impl Agent {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let socket = folder.join("agent.sock");
        let entries = [CLIENT_ID, SERVER_ID].map(|id| SpiffeId::new(id).map(Entry::from));
        let entries = entries.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        let authority = Authority::new(TrustDomain::new(TRUST_DOMAIN)?, 2 * LIFE, SystemTime::now())?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, begun) = mpsc::channel();
        let path = socket.clone();
        std::thread::spawn(move || {
            let serving = || -> Result<()> {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let listener = bind(&path, 0o600)?;
                    let _handle = serve(listener, authority, entries, LIFE, Arc::new(SystemClock))?;
                    let _ = ready.send(Ok(()));
                    // The sender's end is the end, too.
                    let _ = stopped.await;
                    Ok(())
                })
            };
            if let Err(error) = serving() {
                let _ = ready.send(Err(error));
            }
        });
        begun.recv()??;
        Ok(Self { socket, _stop: stop })
    }
}
