//! The identity of this process over time: follows a source, checks what it gives, and publishes it whole.
//!
//! One task is the only writer. It runs the state machine of [`super::rotation`], feeds it from the Workload API or
//! from files, and publishes a [`State`] whenever something changed. A reader takes one snapshot and uses it
//! throughout. The material is there exactly while it may be used: its expiry is published at that instant, and the
//! time of day is looked at twice a second, because it may jump.
//!
//! What is wrong is logged once per change, not once per attempt.

mod feed;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::feed::{Feed, Word};
pub use self::state::{DENIED_ADVICE, State, Status};
use super::material::{Bundle, Material, Svid};
use super::rotation::{Action, Alarm, Event, Now, Rotation, Withdrawal};
use super::update::{self, Answer, Update};
use super::workload_api::End;
use crate::clock::{SharedClock, rfc3339};
use crate::config::settings::{Identity, OnDenied, SvidSelect};
use crate::spiffe::TrustDomain;

/// A running identity source. Dropping it stops the task; the last state stays readable.
#[derive(Debug)]
pub struct Handle {
    /// The present state, and each later one.
    pub state: watch::Receiver<Arc<State>>,
    task: JoinHandle<()>,
}

impl Handle {
    /// The present state.
    #[must_use]
    pub fn now(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Stops the task.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts to follow the source that `settings` name. Needs a tokio runtime; a current-thread one will do.
#[must_use]
pub fn spawn(settings: &Identity, clock: SharedClock) -> Handle {
    let first = State {
        material: None,
        status: Status::Waiting {
            why: "the identity source has not answered yet".to_owned(),
        },
        connected: false,
        last_update: None,
        last_problem: None,
        rotations: 0,
    };
    let (publish, state) = watch::channel(Arc::new(first.clone()));
    let task = Task {
        settings: settings.clone(),
        clock,
        start: Instant::now(),
        machine: Rotation::new(settings.on_denied),
        feed: None,
        state: first,
        publish,
        last_good: BTreeMap::new(),
        accepted: None,
        generation: 0,
        partly_wrong: None,
        overdue: None,
    };
    Handle {
        state,
        task: tokio::spawn(task.run()),
    }
}

/// The one writer.
struct Task {
    settings: Identity,
    clock: SharedClock,
    start: Instant,
    machine: Rotation,
    feed: Option<Feed>,
    /// What was, or is about to be, published.
    state: State,
    publish: watch::Sender<Arc<State>>,
    /// The bundles in force when material was last published; they outlive the material.
    last_good: BTreeMap<TrustDomain, Arc<Bundle>>,
    /// Checked, and waiting for the machine to say that it is to be published.
    accepted: Option<Accepted>,
    generation: u64,
    /// What is wrong with parts of the answer in force.
    partly_wrong: Option<String>,
    /// When the SVID runs out that should have been renewed long ago. While the source gives it again, nothing is well.
    overdue: Option<SystemTime>,
}

struct Accepted {
    svid: Arc<Svid>,
    svids: Vec<Arc<Svid>>,
    bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let tick = self.machine.next_tick(self.now());
            let word = match &mut self.feed {
                Some(feed) => tokio::select! {
                    word = feed.next() => Some(word),
                    () = tokio::time::sleep(tick) => None,
                },
                None => {
                    tokio::time::sleep(tick).await;
                    None
                }
            };
            let event = word.map_or(Event::Tick, |word| self.take(word));
            let actions = self.machine.on(event, self.now(), fastrand::f64());
            for action in actions {
                self.act(action);
            }
            self.publish_if_changed();
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: self.clock.now(),
            elapsed: self.start.elapsed(),
        }
    }

    /// Takes a word of the source, and says what it means to the machine.
    fn take(&mut self, word: Word) -> Event {
        match word {
            Word::Connected => {
                self.state.connected = true;
                Event::Connected
            }
            Word::Answer(answer) => {
                self.state.connected = true;
                self.take_answer(answer)
            }
            Word::Trouble(why) => {
                self.state.connected = false;
                self.trouble(Status::Unreachable { why });
                Event::Refused
            }
            Word::End(end) => {
                self.feed = None;
                self.state.connected = false;
                match end {
                    End::Denied(message) => {
                        tracing::debug!(message, "the identity source denies us");
                        self.trouble(Status::Denied);
                        Event::Denied
                    }
                    End::Invalid(_) => {
                        self.trouble(Status::Fatal { why: end.to_string() });
                        Event::Invalid
                    }
                    End::Lost(why) => {
                        tracing::debug!(why, "no connection to the identity source");
                        self.trouble(Status::Unreachable { why });
                        Event::Lost
                    }
                }
            }
        }
    }

    fn take_answer(&mut self, answer: Answer) -> Event {
        let checked = update::check(
            answer,
            &self.settings.select,
            Some(&self.last_good),
            self.clock.now(),
        );
        let Update {
            svid,
            svids,
            bundles,
            problems,
        } = match checked {
            Ok(update) => update,
            Err(refusal) => {
                self.trouble(Status::Refused {
                    why: refusal.to_string(),
                });
                return Event::Refused;
            }
        };
        self.say_partly_wrong(&problems);
        self.state.last_update = Some(self.clock.now());
        match svid {
            Some(svid) => {
                let event = Event::Accepted {
                    not_before: svid.not_before,
                    not_after: svid.not_after,
                };
                self.accepted = Some(Accepted { svid, svids, bundles });
                event
            }
            None => {
                self.trouble(Status::Selecting {
                    wanted: wanted(&self.settings.select),
                });
                self.follow_bundles(svids, bundles);
                Event::Missing
            }
        }
    }

    /// The wanted SVID is no longer given, but the one in hand may still be used: with the bundles as they are now,
    /// because an authority that was withdrawn is withdrawn for us too.
    fn follow_bundles(&mut self, svids: Vec<Arc<Svid>>, mut bundles: BTreeMap<TrustDomain, Arc<Bundle>>) {
        let Some(held) = &self.state.material else { return };
        let svid = Arc::clone(&held.svid);
        let own = svid.id.trust_domain();
        if let Some(bundle) = held.bundles.get(own) {
            bundles.entry(own.clone()).or_insert_with(|| Arc::clone(bundle));
        }
        self.replace(Accepted { svid, svids, bundles });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => self.feed = Some(Feed::start(&self.settings.source)),
            Action::Disconnect => {
                self.feed = None;
                self.state.connected = false;
            }
            Action::Wait(pause) => tracing::debug!(?pause, "waiting before the next attempt"),
            Action::Publish => {
                if let Some(accepted) = self.accepted.take() {
                    self.replace(accepted);
                    self.recover();
                }
            }
            Action::Withdraw(why) => self.withdraw(why),
            Action::Alarm(alarm) => self.alarm(alarm),
            Action::Fatal => tracing::error!("no further attempt is made to obtain an identity"),
        }
    }

    /// Makes what was accepted the material, unless it is what is in force already.
    fn replace(&mut self, accepted: Accepted) {
        let Accepted { svid, svids, bundles } = accepted;
        self.last_good.clone_from(&bundles);
        let held = self.state.material.as_ref();
        if held.is_some_and(|held| held.svid == svid && held.svids == svids && held.bundles == bundles) {
            return;
        }
        let rotated = held.is_some_and(|held| held.svid != svid);
        self.generation = self.generation.saturating_add(1);
        let message = if rotated {
            "SVID rotated"
        } else {
            "identity updated"
        };
        tracing::info!(
            id = %svid.id,
            serial = svid.serial,
            expires = rfc3339(svid.not_after),
            trust_domains = bundles.len(),
            generation = self.generation,
            "{message}"
        );
        self.state.rotations = self.state.rotations.saturating_add(u64::from(rotated));
        self.state.material = Some(Arc::new(Material {
            generation: self.generation,
            svid,
            svids,
            bundles,
        }));
    }

    fn recover(&mut self) {
        self.state.status = Status::Ready;
        let expiry = self.state.material.as_ref().map(|held| held.svid.not_after);
        if self.overdue.is_some() && self.overdue == expiry {
            return;
        }
        self.overdue = None;
        if self
            .state
            .last_problem
            .take()
            .is_some_and(|problem| Some(&problem) != self.partly_wrong.as_ref())
        {
            tracing::info!("the identity source is well again");
        }
        self.state.last_problem.clone_from(&self.partly_wrong);
    }

    /// Something is wrong with the source. An SVID in hand stays in use, and the status with it.
    fn trouble(&mut self, status: Status) {
        let text = status.to_string();
        if self.state.last_problem.as_deref() != Some(&text) {
            match (&status, &self.state.material) {
                (Status::Fatal { .. }, _) => tracing::error!("{text}"),
                (Status::Denied, Some(_)) if self.settings.on_denied == OnDenied::Keep => {
                    tracing::warn!("{text}; the SVID in hand is kept until it expires");
                }
                (_, Some(held)) => {
                    tracing::warn!(
                        expires = rfc3339(held.svid.not_after),
                        "{text}; an SVID is in hand"
                    );
                }
                (_, None) => tracing::warn!("{text}"),
            }
            self.state.last_problem = Some(text);
        }
        // That it expired says more than that the source is, as before, not to be reached.
        let still_expired =
            self.state.status == Status::Expired && matches!(status, Status::Unreachable { .. });
        let without = self.state.material.is_none() && !still_expired;
        if without || matches!(status, Status::Fatal { .. }) {
            self.state.status = status;
        }
    }

    fn say_partly_wrong(&mut self, problems: &[update::Problem]) {
        let text = problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        let text = (!text.is_empty()).then(|| text.chars().take(2000).collect::<String>());
        if text != self.partly_wrong {
            if let Some(text) = &text {
                tracing::warn!("a part of what the identity source gave cannot be used: {text}");
            }
            self.partly_wrong = text;
        }
    }

    fn withdraw(&mut self, why: Withdrawal) {
        let Some(held) = self.state.material.take() else {
            return;
        };
        let id = &held.svid.id;
        let status = match why {
            Withdrawal::Expired => Status::Expired,
            Withdrawal::Denied => Status::Denied,
            Withdrawal::Missing => Status::Selecting {
                wanted: wanted(&self.settings.select),
            },
        };
        tracing::error!(%id, expires = rfc3339(held.svid.not_after), "the SVID is no longer used: {status}");
        if !matches!(self.state.status, Status::Fatal { .. }) {
            self.state.status = status;
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        let why = match alarm {
            Alarm::Silent => {
                "the identity source is connected but says nothing: is the agent healthy?".to_owned()
            }
            Alarm::Overdue { not_after } => {
                self.overdue = Some(not_after);
                format!(
                    "the SVID that expires at {} should have been renewed by now: is the agent healthy, and can it reach \
                     its server?",
                    rfc3339(not_after)
                )
            }
        };
        self.trouble(Status::Unreachable { why });
    }

    fn publish_if_changed(&self) {
        self.publish.send_if_modified(|published| {
            let changed = !self.state.is_same(published);
            if changed {
                *published = Arc::new(self.state.clone());
            }
            changed
        });
    }
}

fn wanted(select: &SvidSelect) -> String {
    match select {
        SvidSelect::First => "the first one".to_owned(),
        SvidSelect::Id(id) => format!("`{id}`"),
        SvidSelect::Hint(hint) => format!("hint `{hint}`"),
    }
}
