//! Reads a document again when its files change or a signal asks for it.
//!
//! The config goes first: what it says of listeners is what a policy is read for, and it may name other files. It reads
//! all of them together with itself where it is another one ([`crate::app::reload`]). The deny list alone waits for nobody, and
//! no document does while the config is another process's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Loaded, in_force, load, name, path_of};
use crate::app::confine;
use crate::app::reload::Pin;
use crate::app::shared::Control;
use crate::connection::authority;
use crate::reload::{self, Fingerprint};
use crate::telemetry::metrics::{Document, ReloadResult};
use crate::yaml::Diagnostic;

/// How long a document waits for the config to be read, where somebody asked for both.
const CONFIG_FIRST: Duration = Duration::from_secs(2);

/// Follows one document, wherever the config says that it is, for as long as it is polled. `pin` knows whose the config is.
pub(in crate::app) async fn follow(control: Arc<Control>, pin: Arc<Pin>, document: Document) {
    let reloads = &control.view.reloads;
    let mut reload_asked = reloads.asked();
    let mut pause = reload::PERIOD;
    loop {
        // Either somebody asks, or it is time to look.
        let _ = tokio::time::timeout(pause, reload_asked.changed()).await;
        pause = reload::PERIOD;
        let asked = *reload_asked.borrow_and_update();
        // The deny list is for emergencies, and knows no listeners: it waits for nobody.
        let waits = document != Document::DenyList && !pin.keeps();
        if waits {
            let config_read = reloads.answered(&[Document::Config], asked);
            let _ = tokio::time::timeout(CONFIG_FIRST, config_read).await;
        }
        let running = control.running();
        let Some(path) = path_of(&running.settings, document).map(Path::to_path_buf) else {
            reloads.answer(document, asked);
            continue;
        };
        let answered = reloads.answered_up_to(document);
        // Read from elsewhere, if at all, is like read and changed since.
        let seen = reloads.seen(document, &path);
        let config = control.view.config.clone();
        let config_seen = reloads.seen(Document::Config, &config);
        let (looked_at, suspects) = (path.clone(), reloads.suspects());
        let look = move || {
            let now = reload::settled(&looked_at, seen)?;
            // Both were written, or this one was why the other was refused: the config goes first, and reads this one, too.
            let suspected = |(path, then): &(PathBuf, Fingerprint)| *path == looked_at && *then != now;
            let config_first = waits
                && seen != Some(now)
                && (suspects.iter().any(suspected) || config_seen != Some(reload::fingerprint(&config)));
            Some(now).filter(|_| !config_first)
        };
        // A dead network file system must not hold up identity and signals.
        let now = match tokio::task::spawn_blocking(look).await {
            Ok(Some(now)) if seen == Some(now) && asked == answered => continue,
            Ok(Some(now)) => now,
            // Somebody is writing: what lies there was perhaps never meant as a whole. Or the config goes first.
            Ok(None) => {
                pause = reload::SETTLE;
                continue;
            }
            // A panic, which is in the log.
            Err(_) => continue,
        };
        let (by, time, looked_at) = (running.clone(), control.clock.now(), path.clone());
        let asker = control.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let loaded = load(document, &by.settings, time).map_err(|problems| {
                let view = &asker.view;
                confine::explain(problems, &view.confined.plan, &by.settings, &view.config)
            });
            (loaded, reload::fingerprint(&looked_at))
        });
        let loaded = match reading.await {
            // Files were opened one after another: what was read may be of two minds.
            Ok((_, after)) if after != now => {
                pause = reload::SETTLE;
                continue;
            }
            Ok((loaded, _)) => loaded,
            Err(error) => {
                let message = format!("reading it failed: {error}");
                Err(vec![Diagnostic::of_file(&path.display().to_string(), message)])
            }
        };
        if !Arc::ptr_eq(&running, &control.running()) {
            // By a config that is not in force any more.
            continue;
        }
        reloads.saw(document, &path, now);
        match loaded {
            Ok((loaded, warnings)) => control.read_again(document, loaded, &warnings).await,
            Err(problems) => control.refused(document, &problems),
        }
        reloads.answer(document, asked);
    }
}

impl Control {
    /// Takes what was read, if it is new.
    async fn read_again(&self, document: Document, loaded: Loaded, warnings: &[Diagnostic]) {
        let what = name(document);
        for warning in warnings {
            tracing::warn!("{}", warning.summary());
        }
        self.metrics.policy_reloaded(document, ReloadResult::Success);
        let view = self.live.policy();
        match in_force(&view, document) {
            Some((generation, hash, _)) if hash == loaded.content_hash() => {
                tracing::info!(generation, "the {what} was read again and has not changed");
            }
            _ => {
                let generation = self.put(loaded);
                tracing::info!(generation, "a new {what} is in force");
                self.audit_document(document, &[]);
            }
        }
        self.show(document, &[]);
        if document == Document::Candidate {
            self.count_what_it_would_end().await;
        }
    }

    pub(super) fn refused(&self, document: Document, problems: &[Diagnostic]) {
        let what = name(document);
        self.metrics.policy_reloaded(document, ReloadResult::Failure);
        let view = self.live.policy();
        let generation = in_force(&view, document).map(|(generation, ..)| generation);
        let stays = match generation {
            Some(_) => "the last good one stays in force",
            None => "none is in force",
        };
        for problem in problems.iter().filter(|problem| problem.is_error()) {
            tracing::error!(
                generation,
                "the new {what} is refused, {stays}: {}",
                problem.summary()
            );
        }
        self.show(document, problems);
        self.audit_document(document, problems);
    }

    /// Asks once, of a candidate that was not asked yet, how many of the open connections it would end.
    pub(in crate::app) async fn count_what_it_would_end(&self) {
        let view = self.live.policy();
        let Some(candidate) = &view.candidate else { return };
        if candidate.listing().open_connections_denied.is_none() {
            let count = authority::count_refused(&self.live, &candidate.admission).await;
            candidate.set_open_connections_denied(count);
            tracing::info!(
                generation = candidate.generation,
                open_connections_denied = count,
                "the candidate policy was asked about the open connections"
            );
        }
    }
}

impl Loaded {
    pub(super) fn content_hash(&self) -> &str {
        match self {
            Self::Policy(policy) | Self::Candidate(policy) => policy.content_hash(),
            Self::DenyList(list) => list.content_hash(),
        }
    }
}
