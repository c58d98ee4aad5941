//! A sidecar of the demo: `svidecar run` as a child process of the same executable.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use super::journal::{Journal, Said};

/// A line is cut here; none of ours is as long.
const MAX_LINE: u64 = 256 * 1024;
/// From SIGTERM to SIGKILL. Its `drain_timeout` is one second.
const LAST_CALL: Duration = Duration::from_secs(4);

/// A running sidecar. Killed when dropped, in order when [`Sidecar::end`] is called before.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) name: &'static str,
    child: Child,
}

impl Sidecar {
    /// Starts it; what it says goes to the journal. Needs a tokio runtime.
    pub(super) fn start(name: &'static str, config: &Path, journal: &Journal) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("run")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C goes to its whole process group; the sidecars are ended by us, after their clients.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(listen(name, stderr, journal.clone()));
        }
        Ok(Self { name, child })
    }

    /// How it ended, once it has.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        // Its output has ended already; what remains takes no time.
        tokio::time::timeout(LAST_CALL, self.child.wait())
            .await
            .ok()?
            .ok()
    }

    /// Asks it to end.
    pub(super) fn ask_to_end(&self) {
        // No ID any more: it has ended and been waited for, and the number may be somebody else's.
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        {
            // It may have ended by itself in this moment; until we have waited for it its number is not given away.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for its end, and forces it when that takes too long.
    pub(super) async fn end(&mut self) {
        if tokio::time::timeout(LAST_CALL, self.child.wait()).await.is_err() {
            // Waits, too.
            let _ = self.child.kill().await;
        }
    }
}

async fn listen(name: &'static str, stderr: ChildStderr, journal: Journal) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end();
                if !text.is_empty() {
                    journal.add(name, Said::read(text));
                }
            }
            Ok(0) | Err(_) => break,
        }
    }
    journal.add(name, Said::End);
}
