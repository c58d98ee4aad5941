use super::*;

const A: ChildId = ChildId(1);
const B: ChildId = ChildId(2);
const C: ChildId = ChildId(3);

fn started(child: ChildId) -> Event {
    said(
        child,
        ToParent::Started {
            version: "1".to_owned(),
        },
    )
}

const fn said(child: ChildId, what: ToParent) -> Event {
    Event::Said { child, what }
}

fn exited(child: ChildId, code: Option<u8>) -> Event {
    Event::Exited {
        child,
        code,
        how: "ended".to_owned(),
        lived: Duration::from_secs(1),
    }
}

const fn start(child: ChildId, hold: bool, alone: bool) -> Action {
    Action::Start { child, hold, alone }
}

const fn signal(child: ChildId, signal: Signal) -> Action {
    Action::Signal(child, signal)
}

/// What a child says when its admin endpoint was asked for a drain.
const fn drained_by_operator() -> ToParent {
    ToParent::Draining {
        open: 1,
        superseded: false,
    }
}

/// What a child says that accepts no more because another one does, with so many connections.
const fn superseded(open: usize) -> ToParent {
    ToParent::Draining {
        open,
        superseded: true,
    }
}

/// Plays events and compares what is done, but for words, with what must be.
struct Play(Machine);

impl Play {
    fn new() -> Self {
        Self(Machine::new(Duration::from_secs(60), None))
    }

    /// Up to a first child that is ready.
    fn running() -> Self {
        let mut play = Self::new();
        play.expect(Event::Begin, &[start(A, false, true), Action::Keep(A)]);
        play.expect(started(A), &[]);
        play.expect(said(A, ToParent::Ready), &[Action::Notify(Notice::Ready)]);
        play
    }

    /// Up to a second child that starts beside the first.
    fn upgrading() -> Self {
        let mut play = Self::running();
        play.expect(
            Event::Upgrade,
            &[
                Action::Tell(A, ToChild::KeepConfig),
                start(B, true, false),
                Action::Arm(Timer::Ready(B), Duration::from_secs(60)),
            ],
        );
        play
    }

    fn expect(&mut self, event: Event, actions: &[Action]) {
        let said = format!("{event:?}");
        let done: Vec<_> = self
            .0
            .on(event)
            .into_iter()
            .filter(|action| !matches!(action, Action::Say { .. } | Action::Status(_)))
            .collect();
        assert_eq!(done, actions, "after {said}");
    }

    fn words(&mut self, event: Event) -> String {
        let said = self.0.on(event).into_iter().filter_map(|action| match action {
            Action::Say { text, .. } => Some(text),
            _ => None,
        });
        said.collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn an_upgrade_hands_over_once_the_new_child_is_ready() {
    let mut play = Play::upgrading();
    play.expect(started(B), &[]);
    play.expect(
        said(B, ToParent::Ready),
        &[
            Action::Keep(B),
            Action::Tell(A, ToChild::Superseded),
            Action::Arm(Timer::Heed(A), HEED),
            Action::KillLater(A),
        ],
    );
    assert!(play.0.in_charge(B));
    // The old one still sends the audit log on.
    play.expect(said(A, superseded(3)), &[Action::Tell(B, ToChild::Alone)]);
    play.expect(exited(A, Some(0)), &[]);
    play.expect(Event::Due(Timer::Ready(B)), &[]);
    // The next one's predecessor is the second.
    let words = play.words(Event::Upgrade);
    assert!(words.contains("child 3"), "{words}");
    play.expect(
        said(C, ToParent::Ready),
        &[
            Action::Keep(C),
            Action::Tell(B, ToChild::Superseded),
            Action::Arm(Timer::Heed(B), HEED),
            Action::KillLater(B),
        ],
    );
}

#[test]
fn an_old_child_that_dies_leaves_the_audit_log_to_the_new_one() {
    let mut play = Play::upgrading();
    play.expect(
        said(B, ToParent::Ready),
        &[
            Action::Keep(B),
            Action::Tell(A, ToChild::Superseded),
            Action::Arm(Timer::Heed(A), HEED),
            Action::KillLater(A),
        ],
    );
    play.expect(exited(A, None), &[Action::Tell(B, ToChild::Alone)]);
}

#[test]
fn a_new_child_that_fails_leaves_the_old_one_in_charge() {
    let failures = [
        exited(B, Some(1)),
        Event::NotStarted {
            child: B,
            why: "bad config".to_owned(),
            code: 2,
        },
    ];
    for failure in failures {
        let mut play = Play::upgrading();
        play.expect(
            failure,
            &[Action::Discard(B), Action::Tell(A, ToChild::FollowConfig)],
        );
        assert!(play.0.in_charge(A));
        // And a later one may do better.
        play.expect(
            Event::Upgrade,
            &[
                Action::Tell(A, ToChild::KeepConfig),
                start(C, true, false),
                Action::Arm(Timer::Ready(C), Duration::from_secs(60)),
            ],
        );
    }
    let mut play = Play::upgrading();
    play.expect(
        Event::Due(Timer::Ready(B)),
        &[
            Action::Discard(B),
            signal(B, Signal::Terminate),
            Action::Arm(Timer::Kill(B), SENT_AWAY),
            Action::Tell(A, ToChild::FollowConfig),
        ],
    );
    // Too late.
    play.expect(said(B, ToParent::Ready), &[]);
    assert!(play.0.in_charge(A));
    play.expect(Event::Due(Timer::Kill(B)), &[signal(B, Signal::Kill)]);
    play.expect(exited(B, None), &[]);
    play.expect(Event::Due(Timer::Kill(B)), &[]);
}

#[test]
fn why_a_new_child_failed_is_said() {
    let mut play = Play::upgrading();
    play.expect(
        said(
            B,
            ToParent::Failed {
                why: "no such file".to_owned(),
            },
        ),
        &[],
    );
    let words = play.words(exited(B, Some(1)));
    assert!(
        words.contains("no such file") && words.contains("stays in charge"),
        "{words}"
    );
}

#[test]
fn one_upgrade_waits_for_the_one_before() {
    let mut play = Play::upgrading();
    play.expect(Event::Upgrade, &[]);
    play.expect(Event::Upgrade, &[]);
    play.expect(
        said(B, ToParent::Ready),
        &[
            Action::Keep(B),
            Action::Tell(A, ToChild::Superseded),
            Action::Arm(Timer::Heed(A), HEED),
            Action::KillLater(A),
            Action::Tell(B, ToChild::KeepConfig),
            start(C, true, false),
            Action::Arm(Timer::Ready(C), Duration::from_secs(60)),
        ],
    );
    // Once, however often it was asked for.
    play.expect(
        said(C, ToParent::Ready),
        &[
            Action::Keep(C),
            Action::Tell(B, ToChild::Superseded),
            Action::Arm(Timer::Heed(B), HEED),
            Action::KillLater(B),
        ],
    );
    // Both old ones have to give the audit log up.
    play.expect(said(B, superseded(0)), &[]);
    play.expect(said(A, superseded(0)), &[Action::Tell(C, ToChild::Alone)]);
}

#[test]
fn upgrades_are_refused_while_too_many_children_drain() {
    let mut play = Play::running();
    for n in 0..MAX_LEAVING {
        let child = ChildId(n as u64 + 2);
        play.words(Event::Upgrade);
        play.words(said(child, ToParent::Ready));
        assert!(play.0.in_charge(child));
    }
    let words = play.words(Event::Upgrade);
    assert!(words.contains("no upgrade"), "{words}");
    assert!(play.0.candidate.is_none());
}

#[test]
fn a_child_that_dies_is_started_again_with_growing_pauses() {
    let mut play = Play::running();
    let mut pause = FIRST_PAUSE;
    for n in 1..12 {
        play.expect(started(ChildId(n)), &[]);
        play.expect(exited(ChildId(n), None), &[Action::Arm(Timer::Restart(n), pause)]);
        // Who waits meanwhile is to be served, and not to be refused for want of an identity.
        let child = ChildId(n + 1);
        let again = [
            start(child, true, true),
            Action::Keep(child),
            Action::Arm(Timer::Hold(child), HOLD),
        ];
        play.expect(Event::Due(Timer::Restart(n)), &again);
        play.expect(
            Event::Due(Timer::Hold(child)),
            &[Action::Tell(child, ToChild::Open)],
        );
        play.expect(Event::Due(Timer::Hold(ChildId(n))), &[]);
        pause = (pause * 2).min(LAST_PAUSE);
    }
    assert_eq!(pause, LAST_PAUSE);
    // After a long life they begin anew.
    let mut end = exited(ChildId(12), None);
    if let Event::Exited { lived, .. } = &mut end {
        *lived = LIVED_LONG;
    }
    play.expect(end, &[Action::Arm(Timer::Restart(12), FIRST_PAUSE)]);
    // SIGUSR2 does not wait for the pause, whose end then starts no second one.
    let child = ChildId(13);
    let again = [
        start(child, true, true),
        Action::Keep(child),
        Action::Arm(Timer::Hold(child), HOLD),
    ];
    play.expect(Event::Upgrade, &again);
    play.expect(Event::Due(Timer::Restart(12)), &[]);
}

#[test]
fn the_old_childs_death_during_an_upgrade_puts_the_new_one_in_charge() {
    let mut play = Play::upgrading();
    play.expect(
        exited(A, None),
        &[
            Action::Keep(B),
            Action::Arm(Timer::Hold(B), HOLD),
            Action::Tell(B, ToChild::Alone),
        ],
    );
    assert!(play.0.in_charge(B));
    play.expect(Event::Due(Timer::Ready(B)), &[]);
    play.expect(said(B, ToParent::Ready), &[]);
}

#[test]
fn a_first_start_that_fails_ends_the_supervisor_with_its_code() {
    for (end, code) in [
        (exited(A, Some(2)), 2),
        (exited(A, None), 1),
        (
            Event::NotStarted {
                child: A,
                why: "taken".to_owned(),
                code: 1,
            },
            1,
        ),
    ] {
        let mut play = Play::new();
        play.expect(Event::Begin, &[start(A, false, true), Action::Keep(A)]);
        play.expect(end, &[Action::CloseAll, Action::Exit(code)]);
    }
}

#[test]
fn the_end_is_passed_on_and_waited_for() {
    let mut play = Play::upgrading();
    play.expect(
        said(B, ToParent::Ready),
        &[
            Action::Keep(B),
            Action::Tell(A, ToChild::Superseded),
            Action::Arm(Timer::Heed(A), HEED),
            Action::KillLater(A),
        ],
    );
    play.expect(
        Event::Terminate,
        &[
            Action::Notify(Notice::Stopping),
            Action::CloseAll,
            signal(B, Signal::Terminate),
            Action::KillLater(B),
            signal(A, Signal::Terminate),
            Action::KillLater(A),
        ],
    );
    for sent in [Signal::Terminate, Signal::Kill] {
        play.expect(Event::Terminate, &[signal(B, sent), signal(A, sent)]);
    }
    // Nor does one that hangs keep the end waiting.
    play.expect(Event::Due(Timer::Kill(B)), &[signal(B, Signal::Kill)]);
    play.expect(Event::Upgrade, &[]);
    play.expect(Event::Reload, &[]);
    play.expect(exited(B, Some(3)), &[]);
    // The code is that of the child in charge.
    play.expect(exited(A, Some(0)), &[Action::Exit(3)]);
    // Between two children there is nobody to wait for.
    let mut play = Play::running();
    play.expect(exited(A, None), &[Action::Arm(Timer::Restart(1), FIRST_PAUSE)]);
    play.expect(
        Event::Terminate,
        &[
            Action::Notify(Notice::Stopping),
            Action::CloseAll,
            Action::Exit(0),
        ],
    );
}

#[test]
fn a_reload_is_passed_on_and_answered() {
    let mut play = Play::running();
    let arm = |n| Action::Arm(Timer::Reload(n), RELOAD_TIMEOUT);
    play.expect(
        Event::Reload,
        &[
            Action::Notify(Notice::Reloading),
            signal(A, Signal::Reload),
            arm(1),
        ],
    );
    play.expect(said(A, ToParent::Reloaded), &[Action::Notify(Notice::Ready)]);
    play.expect(Event::Due(Timer::Reload(1)), &[]);
    // Another one meanwhile is announced anew, and both are answered at once when the later one is seen to.
    play.expect(
        Event::Reload,
        &[
            Action::Notify(Notice::Reloading),
            signal(A, Signal::Reload),
            arm(2),
        ],
    );
    play.expect(Event::Reload, &[Action::Notify(Notice::Reloading)]);
    play.expect(said(A, ToParent::Reloaded), &[signal(A, Signal::Reload), arm(3)]);
    play.expect(Event::Due(Timer::Reload(2)), &[]);
    play.expect(said(A, ToParent::Reloaded), &[Action::Notify(Notice::Ready)]);
    // One that is not answered does not keep the service manager waiting.
    play.expect(
        Event::Reload,
        &[
            Action::Notify(Notice::Reloading),
            signal(A, Signal::Reload),
            arm(4),
        ],
    );
    play.expect(Event::Due(Timer::Reload(4)), &[Action::Notify(Notice::Ready)]);
}

#[test]
fn a_child_that_has_no_handler_yet_gets_the_reload_later() {
    let mut play = Play::new();
    play.expect(Event::Begin, &[start(A, false, true), Action::Keep(A)]);
    play.expect(Event::Reload, &[]);
    play.expect(
        started(A),
        &[
            signal(A, Signal::Reload),
            Action::Arm(Timer::Reload(1), RELOAD_TIMEOUT),
        ],
    );
    // And the new one of an upgrade once it is in charge: it may have read the files before.
    let mut play = Play::upgrading();
    let words = play.words(Event::Reload);
    assert_eq!(words, "");
    play.expect(started(B), &[]);
    play.expect(
        said(B, ToParent::Ready),
        &[
            Action::Keep(B),
            Action::Tell(A, ToChild::Superseded),
            Action::Arm(Timer::Heed(A), HEED),
            Action::KillLater(A),
            signal(B, Signal::Reload),
            Action::Arm(Timer::Reload(2), RELOAD_TIMEOUT),
        ],
    );
}

#[test]
fn a_drain_that_the_admin_endpoint_asks_for_closes_the_sockets() {
    let mut play = Play::running();
    play.expect(said(A, drained_by_operator()), &[Action::CloseSockets]);
}

#[test]
fn the_service_manager_hears_of_life_while_the_child_answers() {
    let every = Duration::from_secs(5);
    let mut play = Play(Machine::new(Duration::from_secs(60), Some(every)));
    let arm = || Action::Arm(Timer::Watchdog, every);
    play.expect(Event::Begin, &[arm(), start(A, false, true), Action::Keep(A)]);
    play.expect(
        Event::Due(Timer::Watchdog),
        &[Action::Tell(A, ToChild::Ping), arm()],
    );
    let life = || Action::Notify(Notice::Watchdog);
    play.expect(said(A, ToParent::Alive), &[life()]);
    // Unasked, or another's.
    play.expect(said(A, ToParent::Alive), &[]);
    play.expect(said(B, ToParent::Alive), &[]);
    play.expect(started(A), &[]);
    play.expect(said(A, ToParent::Ready), &[Action::Notify(Notice::Ready)]);
    // An answer that comes after a hand-over is one.
    play.words(Event::Upgrade);
    play.expect(
        Event::Due(Timer::Watchdog),
        &[Action::Tell(A, ToChild::Ping), arm()],
    );
    play.expect(
        said(B, ToParent::Ready),
        &[
            Action::Keep(B),
            life(),
            Action::Tell(A, ToChild::Superseded),
            Action::Arm(Timer::Heed(A), HEED),
            Action::KillLater(A),
        ],
    );
    play.expect(said(A, ToParent::Alive), &[life()]);
    // So is a death with no answer, which is seen to.
    play.expect(
        exited(B, None),
        &[life(), Action::Arm(Timer::Restart(1), FIRST_PAUSE)],
    );
    play.expect(Event::Due(Timer::Watchdog), &[life(), arm()]);
    let again = [
        life(),
        start(C, true, false),
        Action::Keep(C),
        Action::Arm(Timer::Hold(C), HOLD),
    ];
    play.expect(Event::Due(Timer::Restart(1)), &again);
}

#[test]
fn a_superseded_child_that_does_not_heed_or_does_not_end_is_killed() {
    let mut play = Play::upgrading();
    play.words(said(B, ToParent::Ready));
    play.expect(Event::Due(Timer::Heed(A)), &[signal(A, Signal::Kill)]);
    // One that heeds has the time that its config gives.
    let mut play = Play::upgrading();
    play.words(said(B, ToParent::Ready));
    play.words(said(A, superseded(1)));
    play.expect(Event::Due(Timer::Heed(A)), &[]);
    play.expect(Event::Due(Timer::Kill(A)), &[signal(A, Signal::Kill)]);
}

#[test]
fn an_operators_drain_during_an_upgrade_is_the_old_childs_alone() {
    let mut play = Play::upgrading();
    play.expect(said(A, drained_by_operator()), &[Action::CloseSockets]);
    play.expect(
        said(B, ToParent::Ready),
        &[
            Action::Keep(B),
            Action::Tell(A, ToChild::Superseded),
            Action::Arm(Timer::Heed(A), HEED),
            Action::KillLater(A),
        ],
    );
    // It still sends the audit log on, until it has heard.
    play.expect(said(A, drained_by_operator()), &[]);
    play.expect(said(A, superseded(0)), &[Action::Tell(B, ToChild::Alone)]);
}

#[test]
fn children_that_never_start_end_the_supervisor_after_a_while() {
    let mut play = Play::running();
    play.words(exited(A, None));
    let mut waited = Duration::ZERO;
    let mut failures = 0;
    let end = loop {
        let pause = play.0.pauses;
        play.words(Event::Due(Timer::Restart(pause)));
        let done = play.0.on(exited(ChildId(play.0.last_id), Some(2)));
        failures += 1;
        let again = done.iter().find_map(|action| match action {
            Action::Arm(Timer::Restart(_), pause) => Some(*pause),
            _ => None,
        });
        match again {
            Some(pause) => waited += pause,
            None => break done,
        }
    };
    assert_eq!(failures, MAX_FAILED);
    assert!(waited > Duration::from_secs(60), "{waited:?}");
    assert!(
        end.contains(&Action::CloseAll) && end.contains(&Action::Exit(2)),
        "{end:?}"
    );
}

#[test]
fn the_status_line_has_both_the_state_and_what_happened_last() {
    let mut play = Play::running();
    let status = |done: Vec<Action>| {
        let shown = done.into_iter().rev().find_map(|action| match action {
            Action::Status(text) => Some(text),
            _ => None,
        });
        shown.unwrap()
    };
    let child = |text: &str| ToParent::Status {
        text: text.to_owned(),
    };
    let shown = status(play.0.on(said(A, child("ready"))));
    assert_eq!(shown, "ready; child 1 is ready");
    play.0.on(Event::Upgrade);
    let shown = status(play.0.on(exited(B, Some(1))));
    assert!(shown.starts_with("ready; the upgrade failed"), "{shown}");
    let shown = status(play.0.on(said(A, child("not ready: identity: expired"))));
    assert!(
        shown.starts_with("not ready: identity: expired; the upgrade failed"),
        "{shown}"
    );
}
