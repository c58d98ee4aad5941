//! What the machine is told, and what it says is to be done.

use std::time::Duration;

use crate::handover::{ToChild, ToParent, manager::Notice};

/// Tells children apart; none is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::supervise) struct ChildId(pub(in crate::supervise) u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervise) enum Event {
    /// The beginning.
    Begin,
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGHUP.
    Reload,
    /// SIGUSR2.
    Upgrade,
    /// A start could not be carried out.
    NotStarted { child: ChildId, why: String, code: u8 },
    /// A child said something.
    Said { child: ChildId, what: ToParent },
    /// A child has ended; without a code by a signal.
    Exited {
        child: ChildId,
        code: Option<u8>,
        how: String,
        lived: Duration,
    },
    /// A timer has run out.
    Due(Timer),
}

/// What can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervise) enum Timer {
    /// For a new child to get ready.
    Ready(ChildId),
    /// For a child that was sent away to end.
    Kill(ChildId),
    /// For a child that replaces a dead one to get ready before it accepts.
    Hold(ChildId),
    /// For a child that was superseded to give everything up.
    Heed(ChildId),
    /// Before a child is started again; the number tells one pause from another.
    Restart(u64),
    /// For SIGHUP to be seen to; the number tells one from another.
    Reload(u64),
    /// Before the next sign of life to the service manager.
    Watchdog,
}

/// A signal to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervise) enum Signal {
    Terminate,
    Reload,
    Kill,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervise) enum Action {
    /// Read the config, bind what it wants and is not bound, start the program. The sockets that it gets become the supervisor's
    /// with [`Self::Keep`], and what was bound for it alone is closed by [`Self::Discard`].
    Start {
        child: ChildId,
        hold: bool,
        alone: bool,
    },
    Keep(ChildId),
    Discard(ChildId),
    /// The supervisor's copies of the sockets of the child in charge are closed.
    CloseSockets,
    /// Its copies of all others as well, and of what a service manager has passed.
    CloseAll,
    /// The child is killed unless it has ended when its drain must be over.
    KillLater(ChildId),
    Signal(ChildId, Signal),
    Tell(ChildId, ToChild),
    Arm(Timer, Duration),
    Notify(Notice),
    /// A line for the log.
    Say {
        good: bool,
        text: String,
    },
    /// The service manager's status: how the child in charge is, and what happened last.
    Status(String),
    /// The end, with this code.
    Exit(u8),
}
