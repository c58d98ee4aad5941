//! The control runtime: one thread on which identity, policy, the authority over open connections, the admin endpoint
//! and the signals live. Bytes move on the workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::audit::{Auditor, Done};
use super::doors::Doors;
use super::reload::{self, Reloader};
use super::running::{Running, contexts};
use super::shared::Control;
use super::sinks;
use super::state::View;
use super::status::Rotations;
use super::tasks::{named, one_ended};
use super::visitors::visitors;
use super::{AppError, Started, audit, identity, policy};
use crate::admin::{self, Feed, token::TokenFile};
use crate::config::settings::{Limits, OnAuditFailure};
use crate::connection::live::{Live, Terms, decision_ids};
use crate::connection::{ListenerContext, authority, renewal};
use crate::identity::source;
use crate::lifecycle::drain::{Drain, Drained};
use crate::lifecycle::readiness::{Condition, Readiness};
use crate::lifecycle::signal::{Signal, Signals};
use crate::record::audit::{Actor, EntryKind, Operation};
use crate::record::{Ending, Reason};
use crate::sys::limits;
use crate::telemetry::log::{self, LogSink};
use crate::telemetry::metrics::{Document, Metrics};
use crate::worker::{BoundListener, ListenerSet, Workers};

/// How long connections that were told to end may take to say goodbye.
const FORCED_END: Duration = Duration::from_secs(2);
/// For the last entries of the audit log to be written and signed.
const LAST_ENTRIES: Duration = Duration::from_secs(2);
/// Descriptors that are not connections': listeners and their copies, runtimes, the log, admin connections, the agent.
const OWN_DESCRIPTORS: u64 = 256;

pub(super) fn run(mut started: Started) -> Result<(), AppError> {
    let format = started.settings.log.format.map(sinks::form);
    let (sink, _log_guard) =
        log::init(format, &started.settings.log.level).map_err(|e| AppError::Log(e.to_string()))?;
    if let Err(error) = limits::forbid_core_dumps() {
        tracing::warn!(%error, "core dumps cannot be forbidden: a crash could write private keys to disk");
    }
    log_panics();
    let fitting = fit_open_files(&mut started.settings.limits);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(control(started, sink, fitting));
    // Dropping it would wait for ever for a read from a file system that does not answer.
    runtime.shutdown_background();
    result
}

/// A panic ends one task, and is said like everything else: one line of the log's form, which waits for nobody.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or_default();
        let place = info.location().map(ToString::to_string);
        tracing::error!(place, "a defect of svidecar, please report it: panicked: {what}");
    }));
}

/// Raises the limit of open files, and lowers `max_connections` to what it allows: a connection beyond it would wait in
/// a queue instead of being refused. Returns how many it allows.
fn fit_open_files(settings: &mut Limits) -> usize {
    let limit = limits::raise_open_files();
    let fitting = usize::try_from(limit.saturating_sub(OWN_DESCRIPTORS) / 2)
        .unwrap_or(usize::MAX)
        .max(1);
    let wanted = settings.max_connections;
    if reload::fit(settings, fitting) {
        tracing::warn!(
            open_files = limit,
            wanted,
            max_connections = fitting,
            "limits.max_connections is lowered to what the limit of open files allows"
        );
    }
    fitting
}

async fn control(mut started: Started, sink: LogSink, fitting: usize) -> Result<(), AppError> {
    let mut signals = Signals::new()?;
    let (log_lines_dropped, log) = (sink.dropped(), sink.control());
    let metrics = Arc::new(Metrics::new(Some(log_lines_dropped.clone())));
    let ids = decision_ids();
    let (records, mut outputs) = sinks::start(&mut started, sink, &metrics, &ids)?;
    let audit = records.audit.clone();
    let decisions = records.decisions.clone();
    let settings = started.settings;
    for warning in &started.warnings {
        tracing::warn!("{}", warning.summary());
    }
    let live = Live::new(
        started.clock.clone(),
        Arc::new(records),
        settings.limits.clone(),
        settings.open_connections,
        settings.policy.mode,
    );
    let live = Arc::new(live.naming_by(ids));
    live.set_terms(Terms {
        listeners: reload::by_name(&settings.listeners),
        ..Terms::new(settings.limits.clone(), settings.open_connections)
    });
    let source = source::spawn(&settings.identity, started.clock.clone());
    let readiness = Readiness::new();
    let bound: ListenerSet = started
        .sockets
        .listeners
        .into_iter()
        .map(|(listener, socket)| {
            let metrics = metrics.listener(&listener.name, listener.direction());
            let context = ListenerContext::new(listener, metrics);
            Arc::new(BoundListener::new(context, socket))
        })
        .collect();
    let view = Arc::new(View {
        live: live.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        decisions,
        identity: source.state.clone(),
        config: started.config,
        reloads: policy::Reloads::default(),
        own_trust_domain: settings.identity.trust_domain.clone(),
        started: started.clock.now(),
        rotations: Rotations::default(),
        log_lines_dropped,
        log,
        feed: Feed::default(),
        token: settings
            .admin
            .as_ref()
            .and_then(|admin| admin.token_file.clone())
            .map(TokenFile),
        drain_asked: watch::Sender::new(false),
        auditor: Auditor {
            live: live.clone(),
            log: audit,
            sinks: outputs.sink_handles(),
            settings: settings.audit.clone(),
        },
        running: ArcSwap::from_pointee(Running {
            settings,
            listeners: contexts(&bound),
            past: Vec::new(),
            generation: 1,
            since: started.clock.now(),
        }),
    });
    let control = Arc::new(Control {
        clock: started.clock,
        live,
        metrics,
        readiness,
        view,
        upstreams: started.upstreams,
    });
    let running = control.running();
    let settings = &running.settings;
    control.audit_start();
    control.config_begins(started.fingerprint);
    control.begin(started.documents);

    let mut tasks = JoinSet::new();
    let authority = tokio::spawn(authority::watch(control.live.clone()));
    tasks.spawn(named("the authority over open connections", authority));
    let pace = tokio::spawn(renewal::pace(control.live.clone(), settings.workers));
    tasks.spawn(named("the renewal of open connections", pace));
    if let (Some(audit), Some(settings)) = (&control.view.auditor.log, &settings.audit) {
        let denies = settings.on_failure == OnAuditFailure::Deny;
        let watching = tokio::spawn(audit::watch(audit.failing(), control.readiness.clone(), denies));
        tasks.spawn(named("the watch over the audit log", watching));
    } else {
        control.readiness.set(Condition::Audit, true, "there is none");
    }
    outputs.send(control.live.decisions.process());
    let drain = Drain::new();
    let workers = Workers::start(settings.workers, &control.live, &drain.watch())?;
    let doors = Arc::new(Doors::new(workers.publisher()));
    doors.open(&bound);
    control.show_listeners();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), workers = settings.workers, listeners = %running.names(),
        "listening"
    );
    // From here on what is in force may be another.
    drop((bound, running));

    let (stop_admin, admin_stopped) = watch::channel(());
    let mut admin_tasks = JoinSet::new();
    for (socket, kind) in [
        (started.sockets.admin, admin::Kind::Full),
        (started.sockets.probes, admin::Kind::Probes),
    ] {
        if let Some(socket) = socket {
            let mut stopped = admin_stopped.clone();
            let state: Arc<dyn admin::AdminState> = control.view.clone();
            let serving = tokio::spawn(admin::serve(socket, kind, state, async move {
                // Either a value or the sender's end: both mean stop.
                let _ = stopped.changed().await;
            }));
            admin_tasks.spawn(named("the admin endpoint", serving));
        }
    }
    if let Some(visitors) = visitors(&control) {
        let mut stopped = admin_stopped.clone();
        let state: Arc<dyn admin::AdminState> = control.view.clone();
        let serving = tokio::spawn(admin::serve_handed(visitors, state, async move {
            let _ = stopped.changed().await;
        }));
        admin_tasks.spawn(named("the admin endpoint over mutual TLS", serving));
    }
    for document in [Document::Policy, Document::DenyList, Document::Candidate] {
        let following = tokio::spawn(policy::follow(control.clone(), document));
        tasks.spawn(named("the watch over the policy's files", following));
    }
    let following = tokio::spawn(reload::follow(Reloader {
        control: control.clone(),
        doors: doors.clone(),
        environment: started.environment,
        fitting,
        granted: None,
    }));
    tasks.spawn(named("the watch over the config", following));

    let result = tokio::select! {
        result = identity::follow(&control, source.state.clone()) => result,
        () = until_terminated(&control, &mut signals, &doors) => Ok(()),
        () = workers.one_ended() => Err(AppError::Ended("a worker")),
        name = one_ended(&mut tasks) => Err(AppError::Ended(name)),
        name = one_ended(&mut admin_tasks) => Err(AppError::Ended(name)),
        name = outputs.exporters.one_ended() => Err(AppError::Ended(name)),
    };
    let patience = match result {
        // Nobody may watch over the open connections any more.
        Err(AppError::Ended(_)) => Duration::ZERO,
        _ => control.live.terms().limits.drain_timeout,
    };
    doors.close();
    let ending = end(&control, &drain, &mut signals, patience);
    tokio::select! {
        () = ending => {}
        () = async {
            outputs.exporters.leave(&drain).await;
            std::future::pending().await
        } => {}
    }
    workers.stop();
    if let Some(log) = &control.view.auditor.log {
        // So that the last entries and their signature can be sent on, too. A log that cannot be written is not waited for.
        let _ = tokio::time::timeout(LAST_ENTRIES, log.flush()).await;
    }
    outputs.exporters.end().await;
    let _ = stop_admin.send(());
    while admin_tasks.join_next().await.is_some() {}
    result
}

/// Handles signals, and a drain that the admin endpoint asks for, up to the first signal that asks for the end.
async fn until_terminated(control: &Control, signals: &mut Signals, doors: &Doors) {
    let mut drain_asked = control.view.drain_asked.subscribe();
    let mut draining = false;
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Terminate { .. } => return,
                Signal::Reload => {
                    control.view.reloads.ask();
                }
            },
            // The sender lives in the view, so that waiting cannot fail.
            _ = drain_asked.wait_for(|asked| *asked), if !draining => {
                draining = true;
                doors.close();
            }
        }
    }
}

/// Stops accepting, lets connections finish, and forces those that do not.
async fn end(control: &Control, drain: &Drain, signals: &mut Signals, patience: Duration) {
    let open = control.live.capacity.connections();
    let drained = Done::well(EntryKind::Process, Actor::Signal, Operation::Drain);
    control.audit(drained, None, json!({ "open_connections": open }));
    control
        .readiness
        .set(Condition::NotDraining, false, "shutting down");
    tracing::info!(
        open,
        drain_timeout_s = patience.as_secs_f64(),
        "shutting down: no new connections; open ones may finish"
    );
    let again = async {
        // What else comes does not matter any more.
        while !matches!(signals.next().await, Signal::Terminate { .. }) {}
    };
    let cut = tokio::select! {
        drained = drain.drain(patience) => match drained {
            Drained::Complete => 0,
            Drained::Forced { remaining } => {
                control.live.registry.end_all(&Ending::new(Reason::DrainTimeout));
                remaining
            }
        },
        () = again => {
            control.live.shutdown_now.store(true, Ordering::Relaxed);
            let remaining = drain.tokens();
            drain.force();
            control.live.registry.end_all(&Ending::new(Reason::Shutdown));
            remaining
        }
    };
    // They are told to end and say why to their peers; that takes a moment.
    let _ = tokio::time::timeout(FORCED_END, drain.finished()).await;
    let stopped = Done::well(EntryKind::Process, Actor::Svidecar, Operation::Stop);
    control.audit(stopped, None, json!({ "cut_connections": cut }));
    if cut > 0 {
        tracing::warn!(cut, "ended; connections were cut");
    } else {
        tracing::info!("ended; every connection had finished");
    }
}
