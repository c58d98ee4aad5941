//! The signals that svidecar reacts to.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end in order; `again` when it was asked before, which means at once.
    Terminate {
        /// Not the first one.
        again: bool,
    },
    /// SIGHUP: read the files again.
    Reload,
}

/// The signals as they come.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    /// Meant for a supervisor: sent to a whole service it must not kill the others.
    _upgrade: Stream,
    terminated: bool,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP, and disregards SIGUSR2. Call inside a runtime with I/O, early: until then each of them kills
    /// the process.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _upgrade: signal(SignalKind::user_defined2())?,
            terminated: false,
        })
    }

    /// The next signal. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            // Whoever asks for the end is heard before whoever asks for a reload.
            biased;
            () = received(&mut self.terminate) => {}
            () = received(&mut self.interrupt) => {}
            () = received(&mut self.hangup) => return Signal::Reload,
        }
        Signal::Terminate {
            again: std::mem::replace(&mut self.terminated, true),
        }
    }
}

async fn received(stream: &mut Stream) {
    if stream.recv().await.is_none() {
        // The runtime's signal driver is gone, and with it all that could still come.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Posix, getpid, kill_process};

    #[tokio::test]
    async fn tells_the_first_end_from_the_second() {
        let mut signals = Signals::new().unwrap();
        let send = |posix| kill_process(getpid(), posix).unwrap();
        send(Posix::USR2);
        send(Posix::HUP);
        assert_eq!(signals.next().await, Signal::Reload);
        send(Posix::TERM);
        assert_eq!(signals.next().await, Signal::Terminate { again: false });
        send(Posix::INT);
        assert_eq!(signals.next().await, Signal::Terminate { again: true });
        send(Posix::HUP);
        assert_eq!(signals.next().await, Signal::Reload);
    }
}
