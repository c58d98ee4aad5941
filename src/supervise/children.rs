//! Child processes: started with one end of a link as standard input, listened to, waited for.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal as Posix, pidfd_open, pidfd_send_signal};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::held::Sockets;
use super::machine::{ChildId, Event, Signal};
use crate::config::settings::Address;
use crate::handover::link::{AsyncLink, listening};
use crate::handover::manager::ENVIRONMENT;
use crate::handover::{Link, ReceiveError, ToChild, ToParent};
use crate::sys::bind::Listening;

/// The most sockets that a child may name: as many as a config has listeners, of each kind.
const MAX_SOCKETS: usize = 2000;

/// What comes of a child.
#[derive(Debug)]
pub(super) enum News {
    /// For the machine.
    Event(Event),
    /// The sockets that it says it accepts from now. It is heard again when the last part is dropped, so that what it sends
    /// cannot pile up.
    Sockets(ChildId, Vec<(Address, Listening)>, oneshot::Sender<()>),
}

/// A child that was started.
#[derive(Debug)]
pub(super) struct Running {
    link: Arc<AsyncLink>,
    /// Its number could be another process's by the time of a signal; this is always it.
    process: OwnedFd,
}

/// What a child is started with.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) child: ChildId,
    pub(super) program: &'a Path,
    pub(super) config: &'a Path,
    pub(super) sockets: &'a Sockets,
    pub(super) hold: bool,
    pub(super) alone: bool,
}

/// Starts a child; what it says and how it ends comes as `news`.
///
/// # Errors
/// When the program cannot be started, or the sockets cannot be handed over.
pub(super) fn start(start: &Start<'_>, news: mpsc::Sender<News>) -> io::Result<Running> {
    let &Start {
        child, hold, alone, ..
    } = start;
    let (link, theirs) = Link::pair()?;
    // Before it runs: what it reads first is there when it looks.
    if let Some((path, lock)) = start.sockets.audit_lock() {
        let path = path.display().to_string();
        link.send(&ToChild::AuditLock { path }, &[lock.0.as_fd()])?;
    }
    let passed = start.sockets.passed_addresses();
    let addresses: Vec<_> = passed.map(ToString::to_string).collect();
    if !addresses.is_empty() {
        link.send(&ToChild::Passed { addresses }, &[])?;
    }
    link.send_sockets(start.sockets.iter(), |sockets| ToChild::Sockets {
        sockets,
        hold,
        alone,
    })?;
    let mut command = Command::new(start.program);
    command
        .args(["run", "--supervised", "--config"])
        .arg(start.config)
        .stdin(Stdio::from(theirs))
        // Ctrl-C in a terminal is for the supervisor, which passes it on; twice would mean: at once.
        .process_group(0);
    for variable in ENVIRONMENT {
        command.env_remove(variable);
    }
    let mut process = command.spawn()?;
    // Its own copy of the child's end would keep the link open after the child.
    drop(command);
    let opened = process
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        .ok_or_else(|| io::Error::other("the child has no number"))
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))
        .and_then(|pidfd| Ok((pidfd, Arc::new(AsyncLink::new(Arc::new(link))?))));
    let (pidfd, link) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // It is waited for by the runtime.
            let _ = process.start_kill();
            return Err(error);
        }
    };
    tokio::spawn(follow(child, process, link.clone(), news));
    Ok(Running { link, process: pidfd })
}

impl Running {
    /// Tells it something. One that does not read any more shows otherwise.
    pub(super) fn tell(&self, message: &ToChild) {
        if let Err(error) = self.link.send(message) {
            tracing::debug!(%error, "a child cannot be told");
        }
    }

    /// Sends it a signal, unless it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Terminate => Posix::TERM,
            Signal::Reload => Posix::HUP,
            Signal::Kill => Posix::KILL,
        };
        // What fails is a process that is gone.
        let _ = pidfd_send_signal(&self.process, signal);
    }
}

/// Hears what it says, to its end, and waits for it.
async fn follow(child: ChildId, mut process: Child, link: Arc<AsyncLink>, news: mpsc::Sender<News>) {
    let began = Instant::now();
    let listen = hear(child, &link, &news);
    tokio::pin!(listen);
    let ended = tokio::select! {
        biased;
        // What it said last comes before its end; one that closed its link may live on.
        () = &mut listen => process.wait().await,
        ended = process.wait() => {
            // Whoever inherited the link from it could keep it open for ever.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), &mut listen).await;
            ended
        }
    };
    let (code, how) = match ended {
        Ok(status) => (
            status.code().and_then(|code| u8::try_from(code).ok()),
            how(status),
        ),
        Err(error) => (None, format!("is gone: {error}")),
    };
    let end = Event::Exited {
        child,
        code,
        how,
        lived: began.elapsed(),
    };
    // Nobody listens when the supervisor ends first.
    let _ = news.send(News::Event(end)).await;
}

async fn hear(child: ChildId, link: &AsyncLink, news: &mpsc::Sender<News>) {
    let mut gathered = Vec::new();
    loop {
        let (what, handled) = match link.receive::<ToParent>().await {
            Ok((ToParent::Sockets { sockets }, descriptors)) => match listening(&sockets, descriptors) {
                Ok(some) => {
                    gathered.extend(some);
                    if gathered.len() > MAX_SOCKETS {
                        tracing::warn!(%child, "a child names more sockets than a config can, and is heard no more");
                        return;
                    }
                    if sockets.more {
                        continue;
                    }
                    let (handling, handled) = oneshot::channel();
                    let now = std::mem::take(&mut gathered);
                    (News::Sockets(child, now, handling), Some(handled))
                }
                Err(error) => {
                    gathered.clear();
                    tracing::warn!(%child, %error, "a child's sockets cannot be taken over");
                    continue;
                }
            },
            Ok((what, _)) => (News::Event(Event::Said { child, what }), None),
            Err(ReceiveError::Message(error)) => {
                tracing::warn!(%child, %error, "a child said something that is no message");
                continue;
            }
            Err(ReceiveError::Ended) => return,
            Err(error) => {
                tracing::warn!(%child, %error, "a child cannot be heard any more");
                return;
            }
        };
        if news.send(what).await.is_err() {
            return;
        }
        if let Some(handled) = handled {
            // Its end is the answer.
            let _ = handled.await;
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "has ended".to_owned(),
        (Some(code), _) => format!("has ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "is gone".to_owned(),
    }
}
