//! A running `svidecar workload-api`, the source of identities where SPIRE is not the matter of the test.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::sidecar::SVIDECAR;
use super::{SOON, eventually};

/// A Workload API on a unix socket of its own; ends when dropped.
pub(crate) struct WorkloadApi {
    process: Process,
    socket: PathBuf,
    _folder: TempDir,
}

impl WorkloadApi {
    /// Serves these IDs, in this order, to whoever asks; waits until it answers.
    pub(crate) fn start(trust_domain: &str, ttl: &str, ids: &[&str]) -> Self {
        let folder = TempDir::with_prefix("svidecar-api-").unwrap();
        let socket = folder.path().join("api.sock");
        let mut command = Command::new(SVIDECAR);
        command.arg("workload-api").arg("--socket").arg(&socket);
        command.args(["--trust-domain", trust_domain, "--ttl", ttl]);
        for id in ids {
            command.args(["--id", id]);
        }
        let process = Process::start("workload-api", &mut command);
        eventually("the embedded Workload API listens", SOON, || {
            UnixStream::connect(&socket).ok()
        });
        Self {
            process,
            socket,
            _folder: folder,
        }
    }

    /// Its address, as `SPIFFE_ENDPOINT_SOCKET` would say it.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Its output.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }
}
