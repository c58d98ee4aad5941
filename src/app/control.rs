//! The control runtime: one thread on which identity, policy, the authority over open connections, the admin endpoint
//! and the signals live. Bytes move on the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::audit::{Auditor, Done};
use super::doors::Doors;
use super::reload::{self, Reloader};
use super::running::Running;
use super::service::{Order, Service};
use super::shared::Control;
use super::sinks;
use super::state::View;
use super::status::Rotations;
use super::tasks::{named, one_ended};
use super::visitors::visitors;
use super::{AppError, Started, audit, confine, identity, policy};
use crate::admin::{self, Feed, token::TokenFile};
use crate::build_info;
use crate::config::settings::{Limits, OnAuditFailure};
use crate::connection::live::{Live, Terms, decision_ids};
use crate::connection::{ListenerContext, authority, renewal};
use crate::identity::source;
use crate::lifecycle::drain::{Drain, Drained};
use crate::lifecycle::readiness::{Condition, Readiness};
use crate::lifecycle::signal::{Signal, Signals};
use crate::record::audit::{Actor, EntryKind, Operation};
use crate::record::{Ending, Reason};
use crate::sandbox::{self, Confined};
use crate::sys::{limits, memory};
use crate::telemetry::log::{self, LogSink};
use crate::telemetry::metrics::{Document, Metrics};
use crate::tls::{configs, fips};
use crate::upstream::resolve::System;
use crate::worker::{BoundListener, ListenerSet, Workers};

/// How long connections that were told to end may take to say goodbye.
const FORCED_END: Duration = Duration::from_secs(2);
/// For the last entries of the audit log to be written and signed.
const LAST_ENTRIES: Duration = Duration::from_secs(2);
/// Descriptors that are not connections': listeners and their copies, runtimes, the log, admin connections, the agent.
const OWN_DESCRIPTORS: u64 = 256;

pub(super) fn run(mut started: Started) -> Result<(), AppError> {
    // Before any thread is started.
    let plan = confine::plan(&started);
    let names = System::default();
    let unread = plan.names().then(|| names.read().err()).flatten();
    let cautions = confine::cautions(&plan, &started.settings, &started.config);
    started.warnings.extend(cautions);
    let confined = sandbox::apply(started.settings.sandbox, plan)?;
    let format = started.settings.log.format.map(sinks::form);
    let (sink, _log_guard) =
        log::init(format, &started.settings.log.level).map_err(|e| AppError::Log(e.to_string()))?;
    confine::tell(&confined);
    if let Some(error) = unread {
        tracing::warn!(%error, "no name can be resolved: mend it and restart, as a confined process does not read it again");
    }
    if let Err(error) = memory::give_back_in_the_background() {
        tracing::warn!(%error, "the allocator gives memory back late: its thread does not start");
    }
    log_panics();
    let fitting = fit_open_files(&mut started.settings.limits);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(control(started, sink, (confined, names), fitting));
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

async fn control(
    mut started: Started,
    sink: LogSink,
    (confined, names): (Confined, System),
    fitting: usize,
) -> Result<(), AppError> {
    let mut signals = Signals::new()?;
    let service = Arc::new(Service::new(started.parent.take())?);
    let (log_lines_dropped, log) = (sink.dropped(), sink.control());
    let metrics = Arc::new(Metrics::new(Some(log_lines_dropped.clone())));
    let ids = decision_ids();
    confine::count(&confined, &metrics);
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
        held: AtomicBool::new(service.holds()),
        confined,
        auditor: Auditor {
            live: live.clone(),
            log: audit,
            sinks: outputs.sink_handles(),
            settings: settings.audit.clone(),
        },
        running: ArcSwap::from_pointee(Running {
            settings,
            listeners: bound.clone(),
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
    let process = control.live.decisions.process();
    outputs.send_traces(process);
    if service.alone() {
        outputs.send_audit(process);
    }
    let drain = Drain::new();
    let workers = Workers::start(settings.workers, &control.live, &drain.watch(), &names)?;
    let doors = Arc::new(Doors::new(
        workers.publisher(),
        started.lent.clone(),
        service.clone(),
    ));
    doors.open(&bound);
    if build_info::FIPS {
        tracing::info!(
            module = build_info::tls_provider(),
            key_exchanges = fips::key_exchanges(&configs::provider()),
            "FIPS build: only what is approved is offered and taken; post-quantum key exchange stays first, X25519 alone is refused"
        );
    }
    let (opened, is_open) = watch::channel(false);
    let open = || {
        doors.release();
        control.view.held.store(false, Ordering::Relaxed);
        control.show_listeners();
        opened.send_replace(true);
        let running = control.running();
        tracing::info!(
            version = build_info::VERSION, workers = running.settings.workers, listeners = %running.names(),
            "listening"
        );
    };
    let mut held = service.holds();
    if held {
        let why = "not accepted from before everything else is ready";
        control.readiness.set(Condition::Listeners, false, why);
        tracing::info!("{why}");
    } else {
        open();
    }
    let admin_address = settings.admin.as_ref().map(|admin| &admin.listen);
    let admin_lent = admin_address.is_some_and(|address| started.lent.contains(address));
    // From here on what is in force may be another.
    drop((bound, running));

    let (stop_admin, admin_stopped) = watch::channel(());
    let mut admin_tasks = JoinSet::new();
    for (socket, kind) in [
        (started.sockets.admin, admin::Kind::Full),
        (started.sockets.probes, admin::Kind::Probes),
    ] {
        if let Some(socket) = socket {
            let (mut stopped, mut is_open) = (admin_stopped.clone(), is_open.clone());
            let state: Arc<dyn admin::AdminState> = control.view.clone();
            let serving = tokio::spawn(async move {
                // Either a value or the sender's end: both mean stop.
                tokio::select! {
                    _ = is_open.wait_for(|open| *open) => {}
                    _ = stopped.changed() => return Ok(()),
                }
                let stop = async move {
                    let _ = stopped.changed().await;
                };
                if admin_lent {
                    admin::serve_lent(socket, kind, state, stop).await
                } else {
                    admin::serve(socket, kind, state, stop).await
                }
            });
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
        service: service.clone(),
        environment: started.environment,
        fitting,
        granted: Arc::new(control.view.confined.plan.clone()),
    }));
    tasks.spawn(named("the watch over the config", following));

    let attending = {
        let (service, readiness) = (service.clone(), control.readiness.clone());
        tokio::spawn(async move { service.attend(&readiness).await })
    };
    tasks.spawn(named("what tells the service manager", attending));
    service.started();

    let identity = identity::follow(&control, source.state.clone());
    tokio::pin!(identity);
    let (mut draining, mut superseded) = (false, false);
    let result = loop {
        let asked = tokio::select! {
            result = &mut identity => break result,
            asked = asked(&control, &mut signals, &doors, &service, &mut draining) => asked,
            () = control.readiness.hold_but(&[Condition::Listeners]), if held => Asked::Open,
            () = workers.one_ended() => break Err(AppError::Ended("a worker")),
            name = one_ended(&mut tasks) => break Err(AppError::Ended(name)),
            name = one_ended(&mut admin_tasks) => break Err(AppError::Ended(name)),
            name = outputs.one_ended() => break Err(AppError::Ended(name)),
        };
        match asked {
            Asked::End => break Ok(()),
            Asked::Superseded => {
                superseded = true;
                break Ok(());
            }
            Asked::Alone => outputs.send_audit(process),
            Asked::Open => {
                if std::mem::take(&mut held) {
                    open();
                }
            }
        }
    };
    let patience = match result {
        // Nobody may watch over the open connections any more.
        Err(AppError::Ended(_)) => Duration::ZERO,
        _ => control.live.terms().limits.drain_timeout,
    };
    doors.close();
    if superseded {
        // Both are the other process's from here on.
        let _ = stop_admin.send(());
        outputs.leave_audit().await;
    }
    service.stopping();
    service.draining(control.live.capacity.connections());
    let ending = end(&control, &drain, &mut signals, patience, superseded);
    let cut = tokio::select! {
        cut = ending => cut,
        cut = async {
            outputs.leave(&drain).await;
            std::future::pending().await
        } => cut,
    };
    service.ended(cut);
    workers.stop();
    if let Some(log) = &control.view.auditor.log {
        // So that the last entries and their signature can be sent on, too. A log that cannot be written is not waited for.
        let _ = tokio::time::timeout(LAST_ENTRIES, log.flush()).await;
    }
    outputs.end().await;
    let _ = stop_admin.send(());
    while admin_tasks.join_next().await.is_some() {}
    result
}

/// What somebody asks of a process that runs.
enum Asked {
    /// The end.
    End,
    /// The end, as another process has taken over.
    Superseded,
    /// No other process sends the audit log on.
    Alone,
    /// To accept connections, which waited for everything else, or long enough.
    Open,
}

/// Handles signals, and a drain that the admin endpoint asks for, up to what ends the process or changes its part. `draining`
/// says that this drain has begun. Cancel safe.
async fn asked(
    control: &Arc<Control>,
    signals: &mut Signals,
    doors: &Doors,
    service: &Arc<Service>,
    draining: &mut bool,
) -> Asked {
    let mut drain_asked = control.view.drain_asked.subscribe();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Terminate { .. } => return Asked::End,
                Signal::Reload => {
                    service.reloading();
                    let (control, service) = (control.clone(), service.clone());
                    tokio::spawn(async move {
                        // What came of it is in the log.
                        let _ = control.view.read_again().await;
                        service.reloaded();
                    });
                }
            },
            order = service.order() => return match order {
                Order::Superseded => Asked::Superseded,
                Order::Open => Asked::Open,
                Order::Alone => Asked::Alone,
                Order::Orphaned => Asked::End,
            },
            // The sender lives in the view, so that waiting cannot fail.
            _ = drain_asked.wait_for(|asked| *asked), if !*draining => {
                *draining = true;
                doors.close();
                service.draining(control.live.capacity.connections());
            }
        }
    }
}

/// Lets connections finish, and forces those that do not; returns how many were cut. Nothing is accepted any more.
async fn end(
    control: &Control,
    drain: &Drain,
    signals: &mut Signals,
    patience: Duration,
    superseded: bool,
) -> usize {
    let open = control.live.capacity.connections();
    let (actor, why) = if superseded {
        (Actor::Svidecar, "another process has taken over")
    } else {
        (Actor::Signal, "shutting down")
    };
    let drained = Done::well(EntryKind::Process, actor, Operation::Drain);
    control.audit(drained, None, json!({ "open_connections": open }));
    control.readiness.set(Condition::NotDraining, false, why);
    tracing::info!(
        open,
        drain_timeout_s = patience.as_secs_f64(),
        "{why}: no new connections; open ones may finish"
    );
    let again = async {
        // What else comes does not matter any more. Who was superseded drains already when the first signal comes.
        loop {
            match signals.next().await {
                Signal::Terminate { again } if again || !superseded => return,
                Signal::Terminate { .. } | Signal::Reload => {}
            }
        }
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
            // Not the tokens: a worker may hold one for a listener that it has not left yet.
            let remaining = control.live.capacity.connections();
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
    cut
}
