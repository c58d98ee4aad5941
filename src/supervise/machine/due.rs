//! What runs out, and what that means.

use super::SENT_AWAY;
use super::{Action, Machine, Notice, Reload, Signal, Timer, ToChild, say};

impl Machine {
    pub(super) fn due(&mut self, timer: Timer, todo: &mut Vec<Action>) {
        match timer {
            Timer::Ready(child) => {
                let Some(mut new) = self.candidate.take_if(|it| it.id == child) else {
                    return;
                };
                todo.push(Action::Discard(child));
                todo.push(Action::Signal(child, Signal::Terminate));
                todo.push(Action::Arm(Timer::Kill(child), SENT_AWAY));
                todo.push(say(
                    false,
                    format!(
                        "the upgrade failed: child {child} was not ready within {:?}; the one before stays in charge",
                        self.ready_timeout
                    ),
                ));
                // It never sent anything on.
                new.draining = true;
                self.leaving.push(new);
                self.upgrade_failed(todo);
            }
            Timer::Kill(child) => {
                let is_left = self.leaving.iter().any(|it| it.id == child);
                if is_left || (self.ending && self.all().contains(&child)) {
                    todo.push(say(
                        false,
                        format!("child {child} has not ended in its time and is killed"),
                    ));
                    todo.push(Action::Signal(child, Signal::Kill));
                }
            }
            Timer::Heed(child) => {
                if self.leaving.iter().any(|it| it.id == child && !it.draining) {
                    todo.push(say(
                        false,
                        format!("child {child} does not heed that another one serves: it is killed"),
                    ));
                    todo.push(Action::Signal(child, Signal::Kill));
                }
            }
            Timer::Hold(child) => {
                if self.in_charge(child) {
                    todo.push(Action::Tell(child, ToChild::Open));
                }
            }
            Timer::Restart(number) => {
                if !self.ending && self.incumbent.is_none() && number == self.pauses {
                    self.start(todo);
                }
            }
            Timer::Reload(number) => {
                if self.reload == Reload::Sent && self.reloads == number {
                    todo.push(say(
                        false,
                        "the child in charge has not said that the files were read again",
                    ));
                    self.reloaded(todo);
                }
            }
            Timer::Watchdog => {
                self.pinged = self.incumbent.as_ref().map(|child| child.id);
                todo.push(match self.pinged {
                    Some(child) => Action::Tell(child, ToChild::Ping),
                    // Between two children this process does what it must.
                    None => Action::Notify(Notice::Watchdog),
                });
                if let Some(every) = self.watchdog {
                    todo.push(Action::Arm(Timer::Watchdog, every));
                }
            }
        }
    }
}
