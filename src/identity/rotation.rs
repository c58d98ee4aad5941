//! When to connect to the identity source, how long to wait, and what becomes of the SVID in hand. Pure: time and
//! randomness come in as arguments, and what comes out is what to do.
//!
//! The rules:
//! - A lost or failed connection is tried again after a pause that grows from 0.2 s to 10 s, with up to half of it
//!   taken off at random; after `no identity issued` from 1 s on. Only a usable answer sets the pause back.
//! - The SVID in hand is used until it expires and never after, whatever happens to the source. A denial leaves it
//!   (`on_denied: keep`) or withdraws it.
//! - A source that is connected but silent is noticed by the SVID's age: at two thirds of its life, when every issuer
//!   we know has renewed it at half, the connection is made anew; again at half of what then remains, and so on.
//! - `InvalidArgument` ends all attempts. An SVID in hand still lasts until it expires.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use crate::config::settings::OnDenied;

/// The longest pause between two attempts.
pub const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The shortest pause after a denial.
pub const MIN_DENIED_PAUSE: Duration = Duration::from_secs(1);
/// How long a source may be silent while it has given us nothing usable.
pub const SILENCE: Duration = Duration::from_secs(30);
/// How often the time of day is looked at, in case it jumps.
pub const LOOK: Duration = Duration::from_millis(500);

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Twice [`MIN_DENIED_PAUSE`], because chance may take half of it off.
const FIRST_DENIED_PAUSE: Duration = Duration::from_secs(2);
const MIN_RECHECK: Duration = Duration::from_secs(1);

/// The two clocks, read together.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The time of day, which certificates are about and which may jump.
    pub wall: SystemTime,
    /// Time since some start, which never goes back.
    pub elapsed: Duration,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The connection stands; nothing has been said yet.
    Connected,
    /// A usable answer came, with an SVID of this life.
    Accepted {
        /// When the SVID becomes valid.
        not_before: SystemTime,
        /// When it expires.
        not_after: SystemTime,
    },
    /// A usable answer came, without the SVID that is wanted.
    Missing,
    /// An answer came that may not be used.
    Refused,
    /// The source said `PermissionDenied`, and the stream is over.
    Denied,
    /// The source said `InvalidArgument`, and the stream is over.
    Invalid,
    /// The connection is over, or never came to be.
    Lost,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect now.
    Connect,
    /// Drop the connection, or the attempt.
    Disconnect,
    /// Nothing for this long; [`Rotation::next_tick`] allows for it.
    Wait(Duration),
    /// Publish what was accepted.
    Publish,
    /// Withdraw what is published.
    Withdraw(Withdrawal),
    /// Say that something is wrong.
    Alarm(Alarm),
    /// Give up: no further attempt will be made.
    Fatal,
}

/// Why the SVID in hand is no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It ran out.
    Expired,
    /// The source denies us, and the settings say to withdraw.
    Denied,
    /// The source gives other SVIDs but not the wanted one any more, and the settings say to withdraw.
    Missing,
}

/// Something that is wrong, and is being dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Connected, and not a word.
    Silent,
    /// The SVID in hand should have been renewed by now.
    Overdue {
        /// When it expires.
        not_after: SystemTime,
    },
}

/// The state machine.
#[derive(Debug)]
pub struct Rotation {
    on_denied: OnDenied,
    phase: Phase,
    /// The next pause, before chance.
    pause: Duration,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until this much time has passed.
    Waiting {
        until: Duration,
    },
    /// Since then.
    Connecting {
        since: Duration,
    },
    /// The last word was heard, or else the connection made, at `since`.
    Streaming {
        since: Duration,
        heard: bool,
    },
    GivenUp,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    not_after: SystemTime,
    /// When it should have been renewed.
    overdue: SystemTime,
}

impl Rotation {
    /// A machine that connects at its first tick.
    #[must_use]
    pub const fn new(on_denied: OnDenied) -> Self {
        Self {
            on_denied,
            phase: Phase::Waiting {
                until: Duration::ZERO,
            },
            pause: FIRST_PAUSE,
            held: None,
        }
    }

    /// Takes what happened and says what to do, in order. `chance` is a random number from 0 up to 1.
    pub fn on(&mut self, event: Event, now: Now, chance: f64) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Connected => {
                self.phase = Phase::Streaming {
                    since: now.elapsed,
                    heard: false,
                }
            }
            Event::Accepted {
                not_before,
                not_after,
            } => {
                self.heard(now);
                self.pause = FIRST_PAUSE;
                self.held = Some(Held {
                    not_after,
                    overdue: overdue(not_before, not_after, now.wall),
                });
                actions.push(Action::Publish);
            }
            Event::Missing => {
                self.heard(now);
                self.pause = FIRST_PAUSE;
                self.give_up_held(Withdrawal::Missing, &mut actions);
            }
            Event::Refused => self.heard(now),
            Event::Denied => {
                self.give_up_held(Withdrawal::Denied, &mut actions);
                self.wait(FIRST_DENIED_PAUSE, now, chance, &mut actions);
            }
            Event::Invalid => {
                self.phase = Phase::GivenUp;
                actions.push(Action::Disconnect);
                actions.push(Action::Fatal);
            }
            Event::Lost => self.wait(FIRST_PAUSE, now, chance, &mut actions),
        }
        self.expire(now, &mut actions);
        self.advance(now, chance, &mut actions);
        actions
    }

    /// After how long the next [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn next_tick(&self, now: Now) -> Duration {
        let mut next = LOOK;
        if let Phase::Waiting { until } = self.phase {
            next = next.min(until.saturating_sub(now.elapsed));
        }
        if let Some(held) = self.held {
            next = next.min(held.not_after.duration_since(now.wall).unwrap_or_default());
        }
        next
    }

    fn heard(&mut self, now: Now) {
        if self.phase != Phase::GivenUp {
            self.phase = Phase::Streaming {
                since: now.elapsed,
                heard: true,
            };
        }
    }

    fn give_up_held(&mut self, why: Withdrawal, actions: &mut Vec<Action>) {
        if self.on_denied == OnDenied::Withdraw && self.held.take().is_some() {
            actions.push(Action::Withdraw(why));
        }
    }

    fn wait(&mut self, at_least: Duration, now: Now, chance: f64, actions: &mut Vec<Action>) {
        let pause = self.pause.max(at_least).min(MAX_PAUSE);
        self.pause = pause.saturating_mul(2).min(MAX_PAUSE);
        let half = pause / 2;
        let wait = half.saturating_add(half.mul_f64(chance.clamp(0.0, 1.0)));
        self.phase = Phase::Waiting {
            until: now.elapsed.saturating_add(wait),
        };
        actions.push(Action::Wait(wait));
    }

    fn expire(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.held.is_some_and(|held| held.not_after <= now.wall) {
            self.held = None;
            actions.push(Action::Withdraw(Withdrawal::Expired));
            // Whatever is on the other side has not renewed it: ask anew.
            if let Phase::Streaming { .. } = self.phase {
                self.reconnect(now, actions);
            }
        }
    }

    fn reconnect(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.phase = Phase::Connecting { since: now.elapsed };
        actions.push(Action::Disconnect);
        actions.push(Action::Connect);
    }

    /// What the passing of time alone brings about.
    fn advance(&mut self, now: Now, chance: f64, actions: &mut Vec<Action>) {
        let silent_since = |since: Duration| now.elapsed.saturating_sub(since) >= SILENCE;
        match self.phase {
            Phase::Waiting { until } if until <= now.elapsed => {
                self.phase = Phase::Connecting { since: now.elapsed };
                actions.push(Action::Connect);
            }
            Phase::Connecting { since } | Phase::Streaming { since, heard: false } if silent_since(since) => {
                actions.push(Action::Alarm(Alarm::Silent));
                actions.push(Action::Disconnect);
                self.wait(FIRST_PAUSE, now, chance, actions);
            }
            Phase::Streaming { since, heard: true } => match &mut self.held {
                Some(held) if held.overdue <= now.wall => {
                    actions.push(Action::Alarm(Alarm::Overdue {
                        not_after: held.not_after,
                    }));
                    held.overdue = half_of_the_rest(now.wall, held.not_after);
                    self.reconnect(now, actions);
                }
                // Nothing to tell a silent source by, so it is asked anew now and then.
                None if silent_since(since) => self.reconnect(now, actions),
                _ => {}
            },
            _ => {}
        }
    }
}

/// When an SVID that is valid for this time should have been renewed: at two thirds of its life, or, when it comes
/// older than that, at half of what remains.
fn overdue(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    match not_before.checked_add(life.mul_f64(2.0 / 3.0)) {
        Some(point) if point > now => point,
        _ => half_of_the_rest(now, not_after),
    }
}

fn half_of_the_rest(now: SystemTime, not_after: SystemTime) -> SystemTime {
    let rest = not_after.duration_since(now).unwrap_or_default();
    now.checked_add((rest / 2).max(MIN_RECHECK)).unwrap_or(not_after)
}
