//! Builds every part in order, runs them, and ends them in order.
//!
//! [`start`] reads, checks and binds everything that can fail, and starts no thread. [`Started::run`] then first confines
//! the process (`sandbox`), before any thread runs but the calling one; then it starts the allocator's thread, the log's
//! writer, the workers, and on the calling thread the control runtime: identity, policy, the authority over open
//! connections, admin, signals.

mod audit;
mod changes;
mod confine;
mod control;
mod doors;
mod explain;
mod exporters;
mod identity;
mod policy;
pub mod redaction;
mod reload;
mod running;
mod service;
mod shared;
mod sinks;
mod sockets;
mod state;
mod status;
mod tasks;
mod visitors;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use self::sockets::Sockets;
pub use self::sockets::{OpenSockets, WantedSocket, wanted_sockets};
use crate::admin::token::TokenFile;
use crate::audit::{OpenedAudit, Upstreams};
use crate::clock::{SharedClock, SystemClock};
use crate::config::settings::{Address, LinesFile, Settings};
use crate::config::{self, Environment};
use crate::handover::Parent;
use crate::policy::{Policy, Surroundings};
use crate::redaction::Redactor;
use crate::reload::Fingerprint;
use crate::sandbox::{self, plan::Plan};
use crate::sys::bind::BindError;
use crate::telemetry::lines::{self, Destination, FileOptions, OpenError, Opened};
use crate::yaml::Diagnostic;

/// Why the sidecar did not start or did not keep running.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Config or policy are bad: exit code 2.
    #[error("the configuration has errors")]
    Configuration(Vec<Diagnostic>),
    /// A socket could not be bound.
    #[error("listener `{0}`: {1}")]
    Listener(Arc<str>, BindError),
    /// A socket was handed over that the settings do not name.
    #[error(
        "a socket was handed over that no listener asks for: `{stray}`; the config listens on {wanted}. Both must be written \
         alike, in the config (`listen`) and in the `.socket` unit (`ListenStream=`)"
    )]
    StraySocket {
        /// Its address.
        stray: Address,
        /// The addresses that the settings name.
        wanted: String,
    },
    /// The admin socket could not be bound.
    #[error("admin endpoint: {0}")]
    Admin(BindError),
    /// The verdicts' file cannot be written.
    #[error("telemetry.decisions.file: {0}")]
    Decisions(OpenError),
    /// The access log cannot be written.
    #[error("telemetry.access_log.file: {0}")]
    AccessLog(OpenError),
    /// The audit log cannot be written.
    #[error("audit.file: {0}")]
    Audit(#[from] crate::audit::OpenError),
    /// Records cannot be redacted as the settings say.
    #[error("{0}")]
    Redaction(#[from] redaction::RedactionError),
    /// The settings are strict about the sandbox, and this system lacks a part of it.
    #[error("{0}")]
    Sandbox(#[from] crate::sandbox::SandboxError),
    /// The log could not be set up.
    #[error("log: {0}")]
    Log(String),
    /// A thread, runtime or signal handler could not be made.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A part ended that must not while the process runs.
    #[error("{0} ended unexpectedly; the log says more")]
    Ended(&'static str),
    /// The identity source refuses us for good.
    #[error("identity: {0}")]
    Identity(String),
}

/// Everything read, checked and bound, and nothing running.
#[derive(Debug)]
pub struct Started {
    settings: Settings,
    /// The policy, the deny list and the candidate, as far as the config names them.
    documents: Vec<policy::Found>,
    warnings: Vec<Diagnostic>,
    sockets: Sockets,
    /// The addresses of the sockets that another process handed over: their files are not ours to remove.
    lent: HashSet<Address>,
    /// Those of them that a service manager keeps open, whatever we do.
    passed: HashSet<Address>,
    /// Who started us to be its child, if somebody did.
    parent: Option<Parent>,
    decisions: Option<Opened>,
    access_log: Option<Opened>,
    audit: Option<OpenedAudit>,
    redactor: Option<Arc<Redactor>>,
    /// The config file.
    config: PathBuf,
    /// What it looked like before it was read.
    fingerprint: Fingerprint,
    /// The surroundings that it was read in.
    environment: Environment,
    /// Where each listener's connections go, for the audit log.
    upstreams: Upstreams,
    clock: SharedClock,
}

/// Reads the config and the policy it names, and binds the sockets, but for those that are `open` already.
///
/// # Errors
/// All problems of the files, or the first socket that cannot be bound.
pub fn start(config: &Path, mut open: OpenSockets) -> Result<Started, AppError> {
    let clock: SharedClock = Arc::new(SystemClock);
    let (fingerprint, environment) = (crate::reload::fingerprint(config), Environment::of_process());
    let (settings, mut warnings) = config::load(config, &environment).map_err(AppError::Configuration)?;
    let (documents, found) = policy::read_all(&settings, clock.now()).map_err(AppError::Configuration)?;
    warnings.extend(found);
    if let Some(problem) = check_token(&settings) {
        return Err(AppError::Configuration(vec![problem]));
    }

    let lent: HashSet<_> = open.addresses().cloned().collect();
    let sockets = sockets::all(&settings, &mut open)?;
    if let Some(stray) = open.addresses().next() {
        return Err(stray_socket(stray, &settings));
    }
    let file = |file: &LinesFile| {
        Destination::File(FileOptions {
            path: file.path.clone(),
            max_size: file.max_size,
            keep: file.keep,
        })
    };
    let decisions = settings.decisions.as_ref().map(|to| lines::open(file(to)));
    let access_log = settings
        .access_log
        .as_ref()
        .map(|log| lines::open(log.file.as_ref().map_or(Destination::Stdout, file)));
    let redactor = redaction::redactor(&settings.redaction)?;
    let audit = settings
        .audit
        .as_ref()
        .map(|settings| crate::audit::open(settings, open.audit_lock(settings)))
        .transpose()?;
    Ok(Started {
        upstreams: Arc::new(ArcSwap::from_pointee(shared::upstreams(&settings.listeners))),
        settings,
        documents,
        warnings,
        sockets,
        lent,
        passed: open.passed(),
        parent: None,
        decisions: decisions.transpose().map_err(AppError::Decisions)?,
        access_log: access_log.transpose().map_err(AppError::AccessLog)?,
        audit,
        redactor,
        config: config.to_owned(),
        fingerprint,
        environment,
        clock,
    })
}

/// The error for a socket that was handed over and that the settings do not name.
#[must_use]
pub fn stray_socket(stray: &Address, settings: &Settings) -> AppError {
    let wanted: Vec<_> = wanted_sockets(settings)
        .iter()
        .map(|wanted| format!("`{}`", wanted.address))
        .collect();
    AppError::StraySocket {
        stray: stray.clone(),
        wanted: wanted.join(", "),
    }
}

/// What is wrong with the token that the settings name, if they name one. Blocking.
#[must_use]
pub fn check_token(settings: &Settings) -> Option<Diagnostic> {
    let path = settings.admin.as_ref()?.token_file.as_ref()?;
    let error = TokenFile(path.clone()).check().err()?;
    let message = format!("`admin.token_file`: {error}");
    Some(Diagnostic::of_file(&path.display().to_string(), message).with_help(error.advice()))
}

/// What in these settings would let a confined process do harm. Blocking.
#[must_use]
pub fn check_sandbox(settings: &Settings, config: &Path) -> Vec<Diagnostic> {
    let plan = Plan::of(settings, config, &sandbox::plan::Surroundings::of_process());
    confine::cautions(&plan, settings, config)
}

/// Reads a policy for what the settings say of listeners and of us.
///
/// # Errors
/// All findings, when one of them is an error.
fn load_policy(
    path: &Path,
    settings: &Settings,
    now: SystemTime,
) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let names = config::listener_names(&settings.listeners);
    let surroundings = Surroundings {
        listeners: Some(&names),
        own_trust_domain: settings.identity.trust_domain.as_ref(),
    };
    crate::policy::load(path, surroundings, now)
}

impl Started {
    /// What the files made one wonder about.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// As the child of a supervisor, which is told how it goes and says when another child takes over.
    #[must_use]
    pub fn supervised_by(mut self, parent: Option<Parent>) -> Self {
        self.parent = parent;
        self
    }

    /// Confines the process, for good, and runs until a signal ends it.
    ///
    /// # Errors
    /// When the settings are strict about the sandbox and it cannot be had in full, when a part cannot be started, or the identity source refuses us for good.
    pub fn run(self) -> Result<(), AppError> {
        control::run(self)
    }
}
