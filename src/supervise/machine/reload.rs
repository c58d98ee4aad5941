//! SIGHUP: passed on to the child in charge, one at a time, and answered to the service manager.

use super::{Action, Machine, Notice, RELOAD_TIMEOUT, Reload, Signal, Timer};

impl Machine {
    pub(super) fn reload(&mut self, todo: &mut Vec<Action>) {
        if self.ending {
            return;
        }
        if self.announced {
            // At each signal: a service manager waits for the notice that is later than its own.
            todo.push(Action::Notify(Notice::Reloading));
        }
        self.candidate_reloads |= self.candidate.is_some();
        if self.reload == Reload::Sent {
            self.reload_again = true;
        } else {
            self.send_reload(todo);
        }
    }

    pub(super) fn send_reload(&mut self, todo: &mut Vec<Action>) {
        self.reload_again = false;
        // A child that has no handler yet would die of it.
        let Some(child) = self.incumbent.as_ref().filter(|child| child.started) else {
            self.reload = Reload::Waits;
            return;
        };
        self.reload = Reload::Sent;
        self.reloads += 1;
        todo.push(Action::Signal(child.id, Signal::Reload));
        todo.push(Action::Arm(Timer::Reload(self.reloads), RELOAD_TIMEOUT));
    }

    pub(super) fn reloaded(&mut self, todo: &mut Vec<Action>) {
        if self.reload == Reload::Sent && self.reload_again {
            // What was asked for since may be newer than what was read.
            self.send_reload(todo);
            return;
        }
        if std::mem::replace(&mut self.reload, Reload::Idle) != Reload::Idle && self.announced {
            todo.push(Action::Notify(Notice::Ready));
        }
    }
}
