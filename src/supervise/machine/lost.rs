//! The child in charge has ended by itself: another one takes its place, at once or after a pause.

use std::time::Duration;

use super::{
    Action, Child, FIRST_PAUSE, HOLD, LAST_PAUSE, LIVED_LONG, MAX_FAILED, Machine, Reload, Signal, Timer,
    reason, say,
};

impl Machine {
    /// The child in charge is gone.
    pub(super) fn lost(
        &mut self,
        old: &Child,
        code: Option<u8>,
        how: &str,
        lived: Duration,
        todo: &mut Vec<Action>,
    ) {
        let why = reason(old, how);
        if self.ending {
            // One that had no handler yet died of our signal, as it was told to.
            self.code = code.unwrap_or(u8::from(old.started));
            let cut = old.cut;
            todo.push(say(
                code == Some(0),
                format!("child {} {how}; {cut} connections were cut", old.id),
            ));
        } else if let Some(new) = self.candidate.take() {
            todo.push(say(
                false,
                format!(
                    "child {} {why} during an upgrade; child {} takes over as it is",
                    old.id, new.id
                ),
            ));
            todo.push(Action::Keep(new.id));
            todo.push(Action::Arm(Timer::Hold(new.id), HOLD));
            self.status.clear();
            self.alive(todo);
            self.incumbent = Some(new);
            self.tell_alone(todo);
            self.took_over(todo);
        } else if !self.has_started {
            todo.push(say(false, format!("not started: child {} {why}", old.id)));
            self.give_up(code, todo);
        } else if !old.started && self.failed.saturating_add(1) >= MAX_FAILED {
            // Nobody serves those who wait; whoever runs us should know.
            let text = format!(
                "child {} {why}, as {} before it did: the end",
                old.id, self.failed
            );
            todo.push(say(false, text));
            self.give_up(code, todo);
        } else {
            if !old.started {
                self.failed = self.failed.saturating_add(1);
            }
            self.status.clear();
            self.alive(todo);
            if self.reload == Reload::Sent {
                // The next one reads the files at its start.
                self.reload_again = false;
                self.reloaded(todo);
            }
            self.pause = if lived >= LIVED_LONG {
                FIRST_PAUSE
            } else {
                self.pause
            };
            todo.push(say(
                false,
                format!(
                    "child {} {why}; it is started again in {:?}, and connections wait",
                    old.id, self.pause
                ),
            ));
            self.pauses += 1;
            todo.push(Action::Arm(Timer::Restart(self.pauses), self.pause));
            self.pause = self.pause.saturating_mul(2).min(LAST_PAUSE);
        }
    }

    /// The end, as nobody can be started; those that drain are waited for.
    fn give_up(&mut self, code: Option<u8>, todo: &mut Vec<Action>) {
        self.ending = true;
        self.code = code.unwrap_or(1);
        todo.push(Action::CloseAll);
        for child in self.all() {
            todo.push(Action::Signal(child, Signal::Terminate));
            todo.push(Action::KillLater(child));
        }
    }
}
