//! What a supervisor decides: events in, actions out, and nothing done here.
//!
//! One child is in charge (`incumbent`). During an upgrade another one starts beside it (`candidate`) and takes its place by
//! saying that it is ready; one that does not is sent away, and nothing has happened. Those that were replaced or sent away
//! are `leaving`. A child that ends by itself is started again after a pause, while its sockets stay open.

mod due;
mod lost;
mod reload;
mod words;

use std::fmt;
use std::time::Duration;

pub(super) use words::{Action, ChildId, Event, Signal, Timer};

use crate::handover::{ToChild, ToParent, manager::Notice};

/// The pause before a child that died is started again; it doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// A child that lived so long died of something new: pauses begin anew.
const LIVED_LONG: Duration = Duration::from_secs(60);
/// For a new child that is sent away to end by itself.
const SENT_AWAY: Duration = Duration::from_secs(5);
/// How long whoever connects may wait for a child that replaces a dead one to have its identity, before it is refused.
const HOLD: Duration = Duration::from_secs(5);
/// For a child that was told that another one serves to say that it has given everything up. One that does not hangs, or does
/// not want to hear: it would keep the sockets, and perhaps its turn at the audit log.
const HEED: Duration = Duration::from_secs(30);
/// Children in a row that end before they have started; with the pauses between them that is more than a minute, in which
/// whoever connects waits.
const MAX_FAILED: u32 = 12;
/// For a child to see to SIGHUP.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The most children that may still end: each is a process with its connections.
const MAX_LEAVING: usize = 16;

#[derive(Debug)]
struct Child {
    id: ChildId,
    started: bool,
    /// Was told that it sends the audit log on.
    alone: bool,
    /// Accepts no more and sends no audit log on.
    draining: bool,
    /// How many connections it cut.
    cut: usize,
    /// Why it ends, in its own words.
    why: Option<String>,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reload {
    Idle,
    /// The child in charge cannot take the signal yet.
    Waits,
    Sent,
}

/// Who is who, and what waits.
#[derive(Debug)]
pub(super) struct Machine {
    ready_timeout: Duration,
    watchdog: Option<Duration>,
    last_id: u64,
    incumbent: Option<Child>,
    candidate: Option<Child>,
    leaving: Vec<Child>,
    /// SIGUSR2 came while it could not be seen to.
    upgrade_waits: bool,
    reload: Reload,
    reloads: u64,
    /// SIGHUP came while the child saw to the one before.
    reload_again: bool,
    /// SIGHUP came while the candidate was starting: it may have read the files before.
    candidate_reloads: bool,
    ending: bool,
    /// How often the end was asked for.
    end_asked: u32,
    /// One child got as far as [`ToParent::Started`]: from then on a start that fails is tried again.
    has_started: bool,
    /// The service manager was told that we are ready.
    announced: bool,
    pause: Duration,
    pauses: u64,
    /// Children in a row that ended before they had started.
    failed: u32,
    /// Whom the service manager's watchdog waits for.
    pinged: Option<ChildId>,
    /// How the child in charge says it is.
    status: String,
    /// What happened last.
    happened: String,
    code: u8,
}

impl Machine {
    pub(super) const fn new(ready_timeout: Duration, watchdog: Option<Duration>) -> Self {
        Self {
            ready_timeout,
            watchdog,
            last_id: 0,
            incumbent: None,
            candidate: None,
            leaving: Vec::new(),
            upgrade_waits: false,
            reload: Reload::Idle,
            reloads: 0,
            reload_again: false,
            candidate_reloads: false,
            ending: false,
            end_asked: 0,
            has_started: false,
            announced: false,
            pause: FIRST_PAUSE,
            pauses: 0,
            failed: 0,
            pinged: None,
            status: String::new(),
            happened: String::new(),
            code: 0,
        }
    }

    /// Whether this child is the one in charge.
    pub(super) fn in_charge(&self, child: ChildId) -> bool {
        is(self.incumbent.as_ref(), child)
    }

    /// What to do about an event, in order.
    pub(super) fn on(&mut self, event: Event) -> Vec<Action> {
        let mut todo = Vec::new();
        match event {
            Event::Begin => {
                if let Some(every) = self.watchdog {
                    todo.push(Action::Arm(Timer::Watchdog, every));
                }
                self.start(&mut todo);
            }
            Event::Terminate => self.terminate(&mut todo),
            Event::Reload => self.reload(&mut todo),
            Event::Upgrade => self.upgrade(&mut todo),
            Event::NotStarted { child, why, code } => {
                self.note(child, |it| it.why = Some(why));
                self.ended(
                    child,
                    Some(code),
                    "could not be started",
                    Duration::ZERO,
                    &mut todo,
                );
            }
            Event::Said { child, what } => self.said(child, what, &mut todo),
            Event::Exited {
                child,
                code,
                how,
                lived,
            } => self.ended(child, code, &how, lived, &mut todo),
            Event::Due(timer) => self.due(timer, &mut todo),
        }
        self.show(&mut todo);
        todo
    }

    /// Both parts of the status line, whichever is new: a state is not to be covered by an event, nor the reverse.
    fn show(&mut self, todo: &mut Vec<Action>) {
        let said = todo.iter().rev().find_map(|action| match action {
            Action::Say { text, .. } => Some(text.clone()),
            _ => None,
        });
        if let Some(text) = said {
            self.happened = text;
            todo.push(self.status());
        }
    }

    fn status(&self) -> Action {
        let parts = [&self.status, &self.happened];
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect();
        Action::Status(parts.join("; "))
    }

    /// A sign of life, where the service manager wants them.
    fn alive(&self, todo: &mut Vec<Action>) {
        if self.watchdog.is_some() {
            todo.push(Action::Notify(Notice::Watchdog));
        }
    }

    fn new_child(&mut self, hold: bool, todo: &mut Vec<Action>) -> Child {
        self.last_id += 1;
        let id = ChildId(self.last_id);
        let alone = self.incumbent.is_none() && self.nobody_sends();
        todo.push(Action::Start {
            child: id,
            hold,
            alone,
        });
        Child {
            id,
            started: false,
            alone,
            draining: false,
            cut: 0,
            why: None,
        }
    }

    /// Starts the child in charge: at the beginning, or in the place of one that died, for which connections wait already.
    fn start(&mut self, todo: &mut Vec<Action>) {
        let again = self.has_started;
        self.status.clear();
        if again {
            self.alive(todo);
        }
        let child = self.new_child(again, todo);
        todo.push(Action::Keep(child.id));
        if again {
            todo.push(Action::Arm(Timer::Hold(child.id), HOLD));
        }
        self.incumbent = Some(child);
    }

    fn nobody_sends(&self) -> bool {
        self.leaving.iter().all(|child| child.draining)
    }

    /// Tells the child in charge that it sends the audit log on, as soon as nobody else does.
    fn tell_alone(&mut self, todo: &mut Vec<Action>) {
        let free = self.nobody_sends();
        if let Some(child) = self.incumbent.as_mut().filter(|child| free && !child.alone) {
            child.alone = true;
            todo.push(Action::Tell(child.id, ToChild::Alone));
        }
    }

    fn note(&mut self, child: ChildId, note: impl FnOnce(&mut Child)) {
        let all = self.incumbent.iter_mut().chain(&mut self.candidate);
        if let Some(found) = all.chain(&mut self.leaving).find(|it| it.id == child) {
            note(found);
        }
    }

    fn terminate(&mut self, todo: &mut Vec<Action>) {
        if !self.ending {
            self.ending = true;
            todo.push(Action::Notify(Notice::Stopping));
            todo.push(say(true, "shutting down"));
            todo.push(Action::CloseAll);
        }
        self.end_asked = self.end_asked.saturating_add(1);
        for child in self.all() {
            let signal = match self.end_asked {
                1 | 2 => Signal::Terminate,
                _ => Signal::Kill,
            };
            todo.push(Action::Signal(child, signal));
            if self.end_asked == 1 {
                todo.push(Action::KillLater(child));
            }
        }
        self.exit_when_empty(todo);
    }

    fn all(&self) -> Vec<ChildId> {
        let all = self.incumbent.iter().chain(&self.candidate);
        all.chain(&self.leaving).map(|child| child.id).collect()
    }

    fn exit_when_empty(&self, todo: &mut Vec<Action>) {
        if self.ending && self.all().is_empty() {
            todo.push(Action::Exit(self.code));
        }
    }

    fn upgrade(&mut self, todo: &mut Vec<Action>) {
        if self.ending {
            return;
        }
        if self.candidate.is_some() || self.incumbent.as_ref().is_some_and(|child| !child.started) {
            self.upgrade_waits = true;
            todo.push(say(
                true,
                "an upgrade waits until the child that is starting now is ready, or is not",
            ));
            return;
        }
        self.upgrade_waits = false;
        if self.incumbent.is_none() {
            // What is on disk now is what is started.
            self.start(todo);
            return;
        }
        if self.leaving.len() >= MAX_LEAVING {
            todo.push(say(
                false,
                format!(
                    "no upgrade: {MAX_LEAVING} replaced children still drain; try again when some have ended"
                ),
            ));
            return;
        }
        // One process follows the config at a time: what both would bind or give up, one of them would not get.
        if let Some(old) = &self.incumbent {
            todo.push(Action::Tell(old.id, ToChild::KeepConfig));
        }
        let child = self.new_child(true, todo);
        todo.push(Action::Arm(Timer::Ready(child.id), self.ready_timeout));
        todo.push(say(
            true,
            format!("upgrade: child {} starts beside the one in charge", child.id),
        ));
        self.candidate = Some(child);
    }

    /// The child in charge stays so.
    fn upgrade_failed(&mut self, todo: &mut Vec<Action>) {
        self.candidate_reloads = false;
        if let Some(old) = self.incumbent.as_ref().filter(|_| !self.ending) {
            todo.push(Action::Tell(old.id, ToChild::FollowConfig));
        }
        self.waiting_upgrade(todo);
    }

    fn waiting_upgrade(&mut self, todo: &mut Vec<Action>) {
        if self.upgrade_waits {
            self.upgrade(todo);
        }
    }

    fn said(&mut self, child: ChildId, what: ToParent, todo: &mut Vec<Action>) {
        let in_charge = self.in_charge(child);
        match what {
            ToParent::Started { version } => {
                self.has_started = true;
                self.failed = 0;
                self.note(child, |it| it.started = true);
                todo.push(say(
                    true,
                    format!("child {child} (svidecar {version}) has started"),
                ));
                if in_charge {
                    if self.reload == Reload::Waits {
                        self.send_reload(todo);
                    }
                    self.waiting_upgrade(todo);
                }
            }
            ToParent::Ready => self.ready(child, todo),
            ToParent::Status { text } if in_charge => {
                self.status = text;
                todo.push(self.status());
            }
            // Of whoever was asked, although another one may be in charge by now.
            ToParent::Alive if self.pinged == Some(child) => {
                self.pinged = None;
                self.alive(todo);
            }
            ToParent::Reloaded if in_charge => self.reloaded(todo),
            ToParent::Draining { open, superseded } => {
                self.note(child, |it| it.draining |= superseded);
                if in_charge && !self.ending {
                    // It was asked to at its admin endpoint: nobody may wait in a queue that nobody empties.
                    todo.push(say(
                        true,
                        format!("child {child} accepts no more connections; {open} are open"),
                    ));
                    todo.push(Action::CloseSockets);
                }
                if superseded {
                    self.tell_alone(todo);
                }
            }
            ToParent::Ended { cut } => self.note(child, |it| it.cut = cut),
            ToParent::Failed { why } => self.note(child, |it| it.why = Some(why)),
            ToParent::Status { .. }
            | ToParent::Alive
            | ToParent::Reloaded
            | ToParent::Sockets { .. }
            | ToParent::Unknown => {}
        }
    }

    fn ready(&mut self, child: ChildId, todo: &mut Vec<Action>) {
        self.note(child, |it| it.started = true);
        if is(self.candidate.as_ref(), child) && !self.ending {
            let old = std::mem::replace(&mut self.incumbent, self.candidate.take());
            todo.push(Action::Keep(child));
            self.status.clear();
            self.alive(todo);
            if let Some(old) = old {
                todo.push(Action::Tell(old.id, ToChild::Superseded));
                todo.push(Action::Arm(Timer::Heed(old.id), HEED));
                todo.push(Action::KillLater(old.id));
                todo.push(say(
                    true,
                    format!("child {child} is ready and in charge; child {} drains", old.id),
                ));
                self.leaving.push(old);
            }
            self.took_over(todo);
        } else if self.in_charge(child) {
            todo.push(say(true, format!("child {child} is ready")));
        } else {
            return;
        }
        if !self.ending && !std::mem::replace(&mut self.announced, true) {
            todo.push(Action::Notify(Notice::Ready));
        }
        self.tell_alone(todo);
        self.waiting_upgrade(todo);
    }

    /// What waited for the child that is in charge now.
    fn took_over(&mut self, todo: &mut Vec<Action>) {
        let again = std::mem::take(&mut self.candidate_reloads);
        if again || self.reload != Reload::Idle {
            self.send_reload(todo);
        }
    }

    fn ended(
        &mut self,
        child: ChildId,
        code: Option<u8>,
        how: &str,
        lived: Duration,
        todo: &mut Vec<Action>,
    ) {
        if let Some(at) = self.leaving.iter().position(|it| it.id == child) {
            let left = self.leaving.swap_remove(at);
            let cut = left.cut;
            todo.push(say(
                code == Some(0),
                format!("child {child} {how}; {cut} connections were cut"),
            ));
            self.tell_alone(todo);
        } else if let Some(new) = self.candidate.take_if(|it| it.id == child) {
            todo.push(Action::Discard(child));
            let why = reason(&new, how);
            if !self.ending {
                todo.push(say(
                    false,
                    format!("the upgrade failed: child {child} {why}; the one before stays in charge"),
                ));
            }
            self.upgrade_failed(todo);
        } else if let Some(old) = self.incumbent.take_if(|it| it.id == child) {
            self.lost(&old, code, how, lived, todo);
        }
        self.exit_when_empty(todo);
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is(slot: Option<&Child>, child: ChildId) -> bool {
    slot.is_some_and(|it| it.id == child)
}

fn say(good: bool, text: impl Into<String>) -> Action {
    Action::Say {
        good,
        text: text.into(),
    }
}

/// How it ended, and why by its own words.
fn reason(child: &Child, how: &str) -> String {
    match &child.why {
        Some(why) => format!("{how}: {why}"),
        None => how.to_owned(),
    }
}

#[cfg(test)]
mod tests;
