//! What the process can no longer do once it has started.
//!
//! [`plan`] says what the settings need, and what other settings would need beyond that; [`apply`] gives up all the rest:
//! no dump of our memory (`sys::limits`), no new privileges and no capability (`privileges`), folders and TCP ports
//! (`landlock`), system calls (`seccomp`). It is called when everything is bound and read, and before any thread runs
//! but the calling one: what it does holds for this thread and all that it starts, and for none beside it. What of it a kernel
//! cannot do is said, and refused where the settings are strict. None of it can be taken back.
//!
//! `docs/sandbox.md` says what holds, with the reasons, and what does not.

mod landlock;
mod links;
pub mod plan;
mod privileges;
mod seccomp;

use std::fmt;
use std::fs::File;

use self::plan::{Held, Plan};
use crate::config::settings::SandboxMode;
use crate::sys::limits;

/// A part of the sandbox that a kernel has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Folders.
    LandlockFiles,
    /// TCP ports.
    LandlockNetwork,
    /// Signals to processes outside, and their abstract unix sockets.
    LandlockScopes,
    /// System calls.
    Seccomp,
    /// Capabilities, and the way to new ones.
    Capabilities,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] = [
        Self::LandlockFiles,
        Self::LandlockNetwork,
        Self::LandlockScopes,
        Self::Seccomp,
        Self::Capabilities,
    ];

    /// Its word in metrics and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LandlockFiles => "landlock_files",
            Self::LandlockNetwork => "landlock_network",
            Self::LandlockScopes => "landlock_scopes",
            Self::Seccomp => "seccomp",
            Self::Capabilities => "capabilities",
        }
    }
}

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The settings are strict, and these parts cannot be had.
    #[error(
        "sandbox: strict: this system lacks what it takes to confine the process:\n  {}\n\
        Give it what is missing, or write `sandbox: best-effort` and run with what holds",
        .0.join("\n  ")
    )]
    Missing(Vec<String>),
}

/// What holds the process, and what does not.
#[derive(Debug)]
pub struct Confined {
    /// As the settings say.
    pub mode: SandboxMode,
    /// What it was confined to: without what could not be granted.
    pub plan: Plan,
    /// The kernel's version of Landlock; none where it has none, or was not asked.
    pub landlock_abi: Option<i32>,
    /// What could not be had, in words.
    pub missing: Vec<String>,
    enforced: [bool; Part::ALL.len()],
    /// Landlock's rules about these files hold while they are open.
    _kept: Vec<File>,
}

impl Confined {
    /// Whether this part holds.
    #[must_use]
    pub fn enforces(&self, part: Part) -> bool {
        Part::ALL
            .iter()
            .zip(self.enforced)
            .any(|(one, holds)| *one == part && holds)
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds: Vec<_> = Part::ALL
            .iter()
            .filter(|part| self.enforces(**part))
            .map(|part| part.as_str())
            .collect();
        f.write_str(if holds.is_empty() { "nothing" } else { "" })?;
        f.write_str(&holds.join(" "))
    }
}

/// Confines this thread, and all that it starts later, to the plan. Blocking, and for good.
///
/// # Errors
/// With [`SandboxMode::Strict`]: what this system lacks. The process must end then, as it is confined in part.
pub fn apply(mode: SandboxMode, plan: Plan) -> Result<Confined, SandboxError> {
    let mut missing = Vec::new();
    let mut holds = |what: &str, result: std::io::Result<()>| match result {
        Ok(()) => true,
        Err(error) => {
            missing.push(format!("{what}: {error}"));
            false
        }
    };
    // In every mode: it takes nothing away from anybody.
    holds(
        "no core dumps, which could hold private keys",
        limits::forbid_core_dumps(),
    );
    if mode == SandboxMode::Off {
        return Ok(Confined {
            mode,
            plan,
            landlock_abi: None,
            missing,
            enforced: [false; Part::ALL.len()],
            _kept: Vec::new(),
        });
    }
    // Another thread is reached by the filter alone, which goes to all of them; and it shares all memory with this one.
    let alone = holds("confining every thread", alone());
    let no_new_privileges = holds("no new privileges", privileges::no_new());
    let mut landlock = landlock::apply(&plan);
    let capabilities = holds("giving up capabilities", privileges::drop_capabilities());
    missing.append(&mut landlock.missing);
    let seccomp = seccomp::apply().map_err(|error| missing.push(error)).is_ok();
    if mode == SandboxMode::Strict && !missing.is_empty() {
        return Err(SandboxError::Missing(missing));
    }
    let held = Held {
        files: landlock.files,
        network: landlock.network,
        capabilities,
    };
    Ok(Confined {
        mode,
        plan: plan.without(&landlock.unmade).held(held),
        landlock_abi: (landlock.abi > 0).then_some(landlock.abi),
        missing,
        enforced: [
            alone && landlock.files,
            alone && landlock.network,
            alone && landlock.scopes,
            seccomp,
            alone && capabilities && no_new_privileges,
        ],
        _kept: landlock.kept,
    })
}

/// That no thread runs beside this one: it would go on unconfined, and shares all memory with those that are confined.
fn alone() -> std::io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        return Ok(());
    }
    let why = format!("{threads} threads run already (has MALLOC_CONF started the allocator's?)");
    Err(std::io::Error::other(why))
}
