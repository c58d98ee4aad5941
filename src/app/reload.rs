//! The config file, read again while the process runs: when it changes, at SIGHUP, when the admin endpoint is asked to.
//!
//! It and the documents that it names are read and checked together, as at the start, and put into force together or not at
//! all ([`apply`]). A config that is bad, or that asks for what only a new process can do, leaves the last one in force; it
//! is tried again when it or one of the documents that it names changes. Connections of listeners that stay as they
//! are notice nothing; [`leaving`] sees to those of listeners that are gone.

mod apply;
mod leaving;
mod restart;

pub(super) use apply::by_name;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::confine;
use super::doors::Doors;
use super::policy::{self, Found, path_of};
use super::service::Service;
use super::shared::Control;
use super::{stray_socket, wanted_sockets};
use crate::config::settings::{Address, Limits, Settings};
use crate::config::{self, Difference, Environment};
use crate::lifecycle::readiness::Condition;
use crate::reload::{self, Fingerprint};
use crate::sandbox::plan::Plan;
use crate::telemetry::metrics::{Document, InForce, ReloadResult};
use crate::yaml::Diagnostic;

/// Reads the config again, and puts it into force.
pub(super) struct Reloader {
    pub(super) control: Arc<Control>,
    pub(super) doors: Arc<Doors>,
    pub(super) service: Arc<Service>,
    /// The surroundings as they were at the start: a process that has confined itself may see less of them.
    pub(super) environment: Environment,
    /// The most connections that the limit of open files allows.
    pub(super) fitting: usize,
    /// The sockets that a service manager keeps open: each must have its listener.
    pub(super) passed: Arc<HashSet<Address>>,
    /// Whether the config file is ours to follow.
    pub(super) pin: Arc<Pin>,
}

/// Of two processes that serve one config, one follows it at a time: the other could not bind what is new in it, or would
/// bind it for itself alone.
#[derive(Debug)]
pub(super) struct Pin {
    /// The file is another process's. Documents are followed all the same, and wait for no reading of it.
    keeps: AtomicBool,
    /// What was refused may have been so because of the other process.
    again: AtomicBool,
}

impl Pin {
    /// With the file left to another process from the start, where that has it yet.
    pub(super) const fn new(keeps: bool) -> Self {
        Self {
            keeps: AtomicBool::new(keeps),
            again: AtomicBool::new(false),
        }
    }

    /// The file is another process's.
    pub(super) fn keep(&self) {
        self.keeps.store(true, Ordering::Relaxed);
    }

    /// The file is ours; nothing happens where it was.
    pub(super) fn follow(&self) {
        if self.keeps() {
            self.again.store(true, Ordering::Relaxed);
            self.keeps.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the file is another process's.
    pub(super) fn keeps(&self) -> bool {
        self.keeps.load(Ordering::Relaxed)
    }
}

/// A config that was read, with all that it names.
struct Read {
    settings: Settings,
    documents: Vec<Found>,
    /// The generation of the deny list when these were read.
    deny_list: u64,
    warnings: Vec<Diagnostic>,
}

/// Where documents are, and what they looked like before they were read: what is written while a reading fails, or while
/// somebody is told that it did, is a change.
type Suspects = Vec<(PathBuf, Fingerprint)>;

/// What a config is measured by, besides itself.
struct Bounds<'a> {
    /// What the process is confined to.
    granted: &'a Plan,
    passed: Arc<HashSet<Address>>,
    /// Whether the process accepts no more connections.
    drains: bool,
    /// The generation of the deny list.
    deny_list: u64,
}

/// What came of a reading.
enum Reading {
    /// The file's content is that of the config in force.
    Same,
    /// With the documents that it was read with.
    Good(Box<Read>, Suspects),
    /// What is wrong, and the documents that may be part of it.
    Bad(Vec<Diagnostic>, Suspects),
}

/// Lowers `max_connections` to what the limit of open files allows; false where it need not be.
pub(super) fn fit(limits: &mut Limits, fitting: usize) -> bool {
    if fitting >= limits.max_connections {
        return false;
    }
    limits.max_connections = fitting;
    limits.max_handshakes = limits.max_handshakes.min(fitting);
    true
}

/// Follows the config file for as long as it is polled.
pub(super) async fn follow(reloader: Reloader) {
    let control = &reloader.control;
    let (path, reloads) = (control.view.config.clone(), &control.view.reloads);
    let mut reload_asked = reloads.asked();
    loop {
        // Either somebody asks, or it is time to look.
        let _ = tokio::time::timeout(reload::PERIOD, reload_asked.changed()).await;
        let asked = *reload_asked.borrow_and_update();
        let answered = reloads.answered_up_to(Document::Config);
        if reloader.pin.keeps() {
            if asked != answered {
                tracing::info!("an upgrade is under way: the config is looked at again when it is over");
                reloads.answer(Document::Config, asked);
            }
            continue;
        }
        let again =
            reloader.pin.again.swap(false, Ordering::Relaxed) && reloads.problem(Document::Config).is_some();
        let seen = reloads.seen(Document::Config, &path);
        let (looked_at, suspected) = (path.clone(), reloads.suspects());
        let look = move || {
            let now = reload::settled(&looked_at, seen)?;
            let moved = suspected
                .iter()
                .any(|(path, then)| reload::fingerprint(path) != *then);
            Some((now, moved))
        };
        // A dead file system must not hold up identity and signals.
        let looked = tokio::task::spawn_blocking(look).await;
        let Ok(Some((now, moved))) = looked else {
            // Somebody is writing, or a panic, which is in the log.
            reloader.pin.again.fetch_or(again, Ordering::Relaxed);
            continue;
        };
        if seen == Some(now) && asked == answered && !moved && !again {
            continue;
        }
        let (running, environment) = (control.running(), reloader.environment.clone());
        let (read_from, time, view) = (path.clone(), control.clock.now(), control.view.clone());
        let (passed, drains) = (reloader.passed.clone(), reloader.doors.are_closed());
        let deny_list = reloads.generation(Document::DenyList);
        let reading = tokio::task::spawn_blocking(move || {
            let bounds = Bounds {
                granted: &view.confined.plan,
                passed,
                drains,
                deny_list,
            };
            let reading = read(&read_from, &environment, &running.settings, &bounds, time);
            (reading, reload::fingerprint(&read_from))
        });
        let reading = match reading.await {
            // Read while somebody wrote it.
            Ok((_, after)) if after != now => continue,
            Ok((None, _)) => continue,
            Ok((Some(reading), _)) => reading,
            Err(error) => {
                let message = format!("reading it failed: {error}");
                let problem = Diagnostic::of_file(&path.display().to_string(), message);
                Reading::Bad(vec![problem], Vec::new())
            }
        };
        reloads.saw(Document::Config, &path, now);
        match reading {
            Reading::Same => {
                reloads.suspect(Vec::new());
                reloader.unchanged();
            }
            Reading::Good(read, read_with) => match reloader.apply(*read, asked).await {
                Ok(()) => {
                    reloads.suspect(Vec::new());
                    control.count_what_it_would_end().await;
                }
                Err(problems) => control.config_refused(&problems, read_with),
            },
            Reading::Bad(problems, read_with) => control.config_refused(&problems, read_with),
        }
        reloads.answer(Document::Config, asked);
    }
}

/// Where the documents are that the settings name.
fn named(settings: &Settings) -> Vec<PathBuf> {
    let documents = Document::ALL.iter();
    documents
        .filter_map(|document| path_of(settings, *document).map(Path::to_path_buf))
        .collect()
}

/// What these look like. Blocking.
fn look_at(paths: impl IntoIterator<Item = PathBuf>) -> Suspects {
    let paths = paths.into_iter();
    paths
        .map(|path| {
            let fingerprint = reload::fingerprint(&path);
            (path, fingerprint)
        })
        .collect()
}

/// Whether nobody writes any of these, which looked like this. Blocking.
fn are_settled(documents: &Suspects) -> bool {
    std::thread::sleep(reload::SETTLE);
    documents
        .iter()
        .all(|(path, then)| reload::fingerprint(path) == *then)
}

/// Reads the config and, where it is another than the one in force, all that it names; `None` while somebody writes one of
/// these. Blocking.
fn read(
    path: &Path,
    environment: &Environment,
    in_force: &Settings,
    bounds: &Bounds<'_>,
    now: SystemTime,
) -> Option<Reading> {
    let examination = config::examine(path, environment);
    let policy = examination.policy.clone();
    let (settings, mut warnings) = match examination.into_result() {
        Ok(good) => good,
        Err(problems) => {
            let paths = [policy.path, policy.deny_list, policy.candidate];
            return Some(Reading::Bad(problems, look_at(paths.into_iter().flatten())));
        }
    };
    if settings.content_hash == in_force.content_hash {
        return Some(Reading::Same);
    }
    let read_with = look_at(named(&settings));
    // One that drains takes over what judges its open connections, and nothing else.
    if !bounds.drains {
        let stray = bounds.passed.iter().find(|passed| {
            let wanted = wanted_sockets(&settings);
            !wanted.iter().any(|wanted| wanted.address == **passed)
        });
        let stray = stray.map(|stray| {
            let message = stray_socket(stray, &settings).to_string();
            Diagnostic::of_file(&path.display().to_string(), message)
        });
        let problem = stray.or_else(|| restart::needed(path, in_force, &settings, bounds.granted));
        if let Some(problem) = problem {
            return Some(Reading::Bad(vec![problem], read_with));
        }
    }
    if !are_settled(&read_with) {
        return None;
    }
    Some(match policy::read_all(&settings, now) {
        // Read while somebody wrote.
        Ok((documents, _)) if documents.iter().any(|found| !found.is_as_it_was()) => return None,
        Ok((documents, found)) => {
            warnings.extend(found);
            warnings.extend(super::check_sandbox(&settings, path));
            let read = Read {
                settings,
                documents,
                deny_list: bounds.deny_list,
                warnings,
            };
            Reading::Good(Box::new(read), read_with)
        }
        Err(problems) => {
            let problems = confine::explain(problems, bounds.granted, &settings, path);
            Reading::Bad(problems, read_with)
        }
    })
}

impl Reloader {
    fn unchanged(&self) {
        let generation = self.control.running().generation;
        tracing::info!(generation, "the config was read again and has not changed");
        self.control.config_read(&[]);
        self.control.show_listeners();
    }
}

impl Control {
    /// Shows the config that is in force from the start.
    pub(super) fn config_begins(&self, fingerprint: Fingerprint) {
        let reloads = &self.view.reloads;
        reloads.next_generation(Document::Config);
        reloads.saw(Document::Config, &self.view.config, fingerprint);
        self.config_read(&[]);
    }

    /// Notes how a reading went, and shows what is in force.
    fn config_read(&self, problems: &[Diagnostic]) {
        let failed = problems.iter().any(Diagnostic::is_error);
        let result = if failed {
            ReloadResult::Failure
        } else {
            ReloadResult::Success
        };
        self.metrics.policy_reloaded(Document::Config, result);
        self.view
            .reloads
            .note(Document::Config, self.clock.now(), problems);
        let running = self.running();
        let in_force = InForce {
            generation: running.generation,
            content_hash: running.settings.content_hash.clone(),
            source: self.view.config.display().to_string(),
            since: running.since,
        };
        self.metrics.set_in_force(Document::Config, Some(in_force));
    }

    /// Shows the listeners, which are open unless they are held back, and what is wrong with the newest config.
    pub(super) fn show_listeners(&self) {
        if self.view.held.load(Ordering::Relaxed) {
            return;
        }
        let running = self.running();
        let mut detail = running.names();
        if let Some(problem) = self.view.reloads.problem(Document::Config) {
            let generation = running.generation;
            detail.push_str(&format!(
                "; config generation {generation} stays in force: {problem}"
            ));
        }
        self.readiness.set(Condition::Listeners, true, detail);
    }

    /// Says what is wrong; a change of any of `read_with` has the config read again.
    fn config_refused(&self, problems: &[Diagnostic], read_with: Suspects) {
        // First: whoever hears of it may write at once.
        self.view.reloads.suspect(read_with);
        let generation = self.running().generation;
        for problem in problems.iter().filter(|problem| problem.is_error()) {
            tracing::error!(
                generation,
                "the new config is refused, the last good one stays in force: {}",
                problem.summary()
            );
        }
        self.config_read(problems);
        self.show_listeners();
        self.audit_config(Some(Err(problems)));
    }

    fn config_in_force(&self, difference: &Difference) {
        let generation = self.running().generation;
        let names = |names: &[Arc<str>]| names.join(" ");
        tracing::info!(
            generation,
            added = names(&difference.added),
            removed = names(&difference.removed),
            changed = names(&difference.changed),
            sections = difference.sections.join(" "),
            policy_mode = difference.mode.map(|(_, now)| now.as_str()),
            "a new config is in force"
        );
        self.config_read(&[]);
        self.show_listeners();
        self.audit_config(Some(Ok(difference)));
    }
}
