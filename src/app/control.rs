//! The control runtime: one thread on which identity, policy, the authority over open connections, the admin endpoint
//! and the signals live. Bytes move on the workers.

mod asked;
mod end;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::asked::{Asked, asked};
use self::end::end;
use super::audit::Auditor;
use super::doors::Doors;
use super::reload::{self, Pin, Reloader};
use super::running::Running;
use super::service::Service;
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
use crate::lifecycle::drain::Drain;
use crate::lifecycle::readiness::{Condition, Readiness};
use crate::lifecycle::signal::Signals;
use crate::sandbox::{self, Confined};
use crate::sys::bind::Listening;
use crate::sys::{limits, memory};
use crate::telemetry::log::{self, LogSink};
use crate::telemetry::metrics::{Document, Metrics};
use crate::tls::{configs, fips};
use crate::upstream::resolve::System;
use crate::worker::{BoundListener, ListenerSet, Workers};

/// For the workers to leave the listeners when another process takes over.
const LEFT: Duration = Duration::from_secs(2);
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
    let format = started.settings.log.format.map(log::Format::from);
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
        identity: ArcSwap::new(source.state.borrow().clone()),
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
    let sockets = [
        (started.sockets.admin, admin::Kind::Full),
        (started.sockets.probes, admin::Kind::Probes),
    ];
    let mut admin_tasks = serve_admin(&control, sockets, admin_lent, &is_open, &admin_stopped);
    // A predecessor may still bind and give up listeners.
    let pin = Arc::new(Pin::new(!service.alone()));
    for document in [Document::Policy, Document::DenyList, Document::Candidate] {
        let following = tokio::spawn(policy::follow(control.clone(), pin.clone(), document));
        tasks.spawn(named("the watch over the policy's files", following));
    }
    let following = tokio::spawn(reload::follow(Reloader {
        control: control.clone(),
        doors: doors.clone(),
        service: service.clone(),
        environment: started.environment,
        fitting,
        passed: Arc::new(started.passed),
        pin: pin.clone(),
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
    let (mut draining, mut superseded, mut unnamed) = (false, false, false);
    let result = loop {
        let asked = tokio::select! {
            result = &mut identity => {
                unnamed = true;
                break result;
            }
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
            Asked::Alone => {
                pin.follow();
                outputs.send_audit(process);
            }
            Asked::KeepConfig => pin.keep(),
            Asked::FollowConfig => pin.follow(),
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
    let leaving: Vec<_> = control
        .running()
        .listeners
        .iter()
        .map(|listener| listener.left())
        .collect();
    doors.close();
    if superseded {
        // Both are the other process's from here on, and so are the ports of listeners that it may bind anew.
        let _ = stop_admin.send(());
        outputs.leave_audit().await;
        let left = async {
            for left in leaving {
                left.await;
            }
        };
        if tokio::time::timeout(LEFT, left).await.is_err() {
            tracing::warn!("workers still accept although another process has taken over: they are busy");
        }
    }
    // With the doors closed only what judges open connections is taken from it, whosever it was.
    pin.follow();
    service.stopping();
    service.draining(control.live.capacity.connections(), superseded);
    let lost = Cell::new(None);
    // Who watches over the open connections does so up to their end.
    let guard = async {
        let name = tokio::select! {
            _ = &mut identity, if !unnamed => "the following of our identity",
            name = one_ended(&mut tasks) => name,
            () = workers.one_ended() => "a worker",
        };
        lost.set(Some(name));
        name
    };
    let ending = end(&control, &drain, &mut signals, patience, superseded, guard);
    let cut = tokio::select! {
        cut = ending => cut,
        cut = async {
            outputs.leave(&drain).await;
            std::future::pending().await
        } => cut,
    };
    let result = match lost.get() {
        Some(name) => result.and(Err(AppError::Ended(name))),
        None => result,
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

/// Serves the admin endpoint, where the settings name it, from when connections are accepted.
fn serve_admin(
    control: &Arc<Control>,
    sockets: [(Option<Listening>, admin::Kind); 2],
    lent: bool,
    is_open: &watch::Receiver<bool>,
    stopped: &watch::Receiver<()>,
) -> JoinSet<&'static str> {
    let mut tasks = JoinSet::new();
    for (socket, kind) in sockets {
        let Some(socket) = socket else { continue };
        let (mut stopped, mut is_open) = (stopped.clone(), is_open.clone());
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
            if lent {
                admin::serve_lent(socket, kind, state, stop).await
            } else {
                admin::serve(socket, kind, state, stop).await
            }
        });
        tasks.spawn(named("the admin endpoint", serving));
    }
    if let Some(visitors) = visitors(control) {
        let mut stopped = stopped.clone();
        let state: Arc<dyn admin::AdminState> = control.view.clone();
        let serving = tokio::spawn(admin::serve_handed(visitors, state, async move {
            let _ = stopped.changed().await;
        }));
        tasks.spawn(named("the admin endpoint over mutual TLS", serving));
    }
    tasks
}
