//! Does what [`Machine`] decides, in one loop on one thread; another one writes the log.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Options;
use super::children::{self, News, Running, Start};
use super::held::Sockets;
use super::machine::{Action, ChildId, Event, Machine, Timer};
use crate::app::{AppError, stray_socket};
use crate::config::settings::{Address, Settings};
use crate::config::{self, Environment};
use crate::handover::manager;
use crate::sys::bind::Listening;
use crate::telemetry::log::{self, Format};

/// News that may wait; children say little.
const MAX_NEWS: usize = 64;
/// What a child takes beyond its `limits.drain_timeout`: to tell those that it cuts, and to write and send its last entries.
const LAST_WORDS: Duration = Duration::from_secs(15);
/// The exit codes of a start that could not be carried out, as `svidecar run` has them.
const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;

/// Supervises until a signal ends it, and returns the exit code: that of the child that was in charge.
///
/// # Errors
/// When the config file has errors, a socket was passed that it does not name, or the system refuses what is needed.
pub fn run(options: Options) -> Result<u8, AppError> {
    let settings = read(&options.config)?;
    let sockets = Sockets::passed(options.passed);
    if let Some(stray) = sockets.stray(&settings) {
        return Err(stray_socket(stray, &settings));
    }
    let format = settings.log.format.map(Format::from);
    let (_sink, _guard) =
        log::init(format, &settings.log.level).map_err(|error| AppError::Log(error.to_string()))?;
    // Oftener than a process that need not ask anybody: one answer may be late.
    let watchdog = manager::watchdog().map(|every| every / 2);
    let machine = Machine::new(options.ready_timeout, watchdog);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (news_sender, news) = mpsc::channel(MAX_NEWS);
        let supervisor = Supervisor {
            config: options.config,
            program: options.program,
            machine,
            sockets,
            prepared: HashMap::new(),
            children: HashMap::new(),
            patience: HashMap::new(),
            timers: Vec::new(),
            news_sender,
        };
        supervisor.run(news, Signals::new()?).await
    })
}

fn read(config: &std::path::Path) -> Result<Settings, AppError> {
    config::load(config, &Environment::of_process())
        .map(|(settings, _)| settings)
        .map_err(AppError::Configuration)
}

struct Supervisor {
    config: PathBuf,
    program: PathBuf,
    machine: Machine,
    /// Of the child in charge.
    sockets: Sockets,
    /// Of a child that is to take over.
    prepared: HashMap<ChildId, Sockets>,
    children: HashMap<ChildId, Running>,
    /// `limits.drain_timeout` of each child, as the file had it when the child was started or took another config.
    patience: HashMap<ChildId, Duration>,
    timers: Vec<(Instant, Timer)>,
    news_sender: mpsc::Sender<News>,
}

impl Supervisor {
    async fn run(mut self, mut news: mpsc::Receiver<News>, mut signals: Signals) -> Result<u8, AppError> {
        let mut events = VecDeque::from([Event::Begin]);
        loop {
            while let Some(event) = events.pop_front() {
                if let Event::Exited { child, .. } = &event {
                    self.children.remove(child);
                    self.patience.remove(child);
                }
                for action in self.machine.on(event) {
                    if let Action::Exit(code) = action {
                        return Ok(code);
                    }
                    events.extend(self.perform(action));
                }
            }
            let next = self.timers.iter().map(|(at, _)| *at).min();
            tokio::select! {
                event = signals.next() => events.push_back(event),
                // The sender lives in `self`.
                Some(news) = news.recv() => match news {
                    News::Event(event) => events.push_back(event),
                    News::Sockets(child, now, _handling) => self.hear_sockets(child, now),
                },
                () = until(next) => {
                    let now = Instant::now();
                    events.extend(self.timers.extract_if(.., |(at, _)| *at <= now).map(|(_, timer)| Event::Due(timer)));
                }
            }
        }
    }

    /// Does it; what comes of it at once is an event.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start { child, hold, alone } => return self.start(child, hold, alone),
            Action::Keep(child) => {
                if let Some(prepared) = self.prepared.remove(&child) {
                    self.sockets = prepared;
                }
            }
            Action::Discard(child) => {
                self.prepared.remove(&child);
            }
            Action::CloseSockets => {
                self.sockets.close();
            }
            Action::CloseAll => {
                self.sockets.close_all();
                self.prepared.values_mut().for_each(Sockets::close_all);
            }
            Action::KillLater(child) => {
                let patience = self.patience.get(&child).copied().unwrap_or_default();
                self.arm(Timer::Kill(child), patience.saturating_add(LAST_WORDS));
            }
            Action::Signal(child, signal) => {
                if let Some(running) = self.children.get(&child) {
                    running.signal(signal);
                }
            }
            Action::Tell(child, message) => {
                if let Some(running) = self.children.get(&child) {
                    running.tell(&message);
                }
            }
            Action::Arm(timer, after) => self.arm(timer, after),
            Action::Notify(notice) => manager::notify(notice),
            Action::Say { good, text } => {
                if good {
                    tracing::info!("{text}");
                } else {
                    tracing::warn!("{text}");
                }
            }
            Action::Status(text) => manager::status(&text),
            // Seen to by the loop.
            Action::Exit(_) => {}
        }
        None
    }

    fn arm(&mut self, timer: Timer, after: Duration) {
        // What the clock cannot hold does not run out.
        if let Some(at) = Instant::now().checked_add(after) {
            self.timers.push((at, timer));
        }
    }

    /// A child has other listeners: what the config names is held for the next one.
    fn hear_sockets(&mut self, child: ChildId, now: Vec<(Address, Listening)>) {
        let settings = read(&self.config).ok();
        if let Some(settings) = &settings
            && let Some(patience) = self.patience.get_mut(&child)
        {
            *patience = settings.limits.drain_timeout;
        }
        let held = if self.machine.in_charge(child) {
            Some(&mut self.sockets)
        } else {
            self.prepared.get_mut(&child)
        };
        if let Some(refused) = held.and_then(|held| held.replace(now, settings.as_ref())) {
            tracing::warn!(
                %child,
                "a child's socket of `{refused}` is not held for the next one: the config file names no such listener, or the \
                 socket is bound elsewhere; an upgrade may find the address in use"
            );
        }
    }

    fn start(&mut self, child: ChildId, hold: bool, alone: bool) -> Option<Event> {
        let started = self.try_start(child, hold, alone);
        let error = started.err()?;
        if let AppError::Configuration(diagnostics) = &error {
            for diagnostic in diagnostics {
                tracing::error!("{}", diagnostic.summary());
            }
        }
        let code = if matches!(error, AppError::Configuration(_)) {
            BAD_CONFIG
        } else {
            FAILED
        };
        Some(Event::NotStarted {
            child,
            why: error.to_string(),
            code,
        })
    }

    fn try_start(&mut self, child: ChildId, hold: bool, alone: bool) -> Result<(), AppError> {
        let settings = read(&self.config)?;
        if let Some(stray) = self.sockets.stray(&settings) {
            return Err(stray_socket(stray, &settings));
        }
        let sockets = self.sockets.for_settings(&settings)?;
        let start = Start {
            child,
            program: &self.program,
            config: &self.config,
            sockets: &sockets,
            hold,
            alone,
        };
        let running = children::start(&start, self.news_sender.clone()).map_err(|error| {
            AppError::System(io::Error::new(
                error.kind(),
                format!("`{}`: {error}", self.program.display()),
            ))
        })?;
        self.children.insert(child, running);
        self.patience.insert(child, settings.limits.drain_timeout);
        self.prepared.insert(child, sockets);
        Ok(())
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The signals that a supervisor knows.
struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    upgrade: Stream,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Event::Terminate,
            Some(()) = self.interrupt.recv() => Event::Terminate,
            Some(()) = self.hangup.recv() => Event::Reload,
            Some(()) = self.upgrade.recv() => Event::Upgrade,
            // The runtime's signal driver is gone, and with it all that could still come.
            else => std::future::pending().await,
        }
    }
}
