use proptest::prelude::*;

use super::*;

const T0: Duration = Duration::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// The machine with both clocks in step.
struct Rig {
    machine: Rotation,
    elapsed: Duration,
    chance: f64,
}

impl Rig {
    fn new(on_denied: OnDenied) -> Self {
        Self {
            machine: Rotation::new(on_denied),
            elapsed: Duration::ZERO,
            chance: 1.0,
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: SystemTime::UNIX_EPOCH + T0 + self.elapsed,
            elapsed: self.elapsed,
        }
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.machine.on(event, self.now(), self.chance)
    }

    /// An SVID of this life, made now.
    fn accept(&mut self, life: Duration) -> SystemTime {
        let not_before = self.now().wall;
        let not_after = not_before + life;
        assert_eq!(
            self.on(Event::Accepted {
                not_before,
                not_after
            }),
            [Action::Publish]
        );
        not_after
    }

    fn connected(on_denied: OnDenied) -> Self {
        let mut rig = Self::new(on_denied);
        assert_eq!(rig.on(Event::Tick), [Action::Connect]);
        assert_eq!(rig.on(Event::Connected), []);
        rig
    }

    /// Lets time pass, as the loop would, until something is to be done, but not longer than `most`.
    fn run(&mut self, most: Duration) -> Vec<Action> {
        let end = self.elapsed + most;
        while self.elapsed < end {
            let step = self.machine.next_tick(self.now()).max(Duration::from_millis(1));
            assert!(step <= LOOK);
            self.elapsed += step;
            let actions = self.on(Event::Tick);
            if !actions.is_empty() {
                return actions;
            }
        }
        Vec::new()
    }
}

#[test]
fn pauses_grow_to_the_cap_and_only_a_usable_answer_sets_them_back() {
    let mut rig = Rig::connected(OnDenied::Keep);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let [Action::Wait(pause)] = rig.on(Event::Lost)[..] else {
            panic!("no pause")
        };
        pauses.push(pause.as_millis());
        assert_eq!(rig.run(2 * MAX_PAUSE), [Action::Connect]);
        // A connection alone is no success, nor is an answer that cannot be used.
        rig.on(Event::Connected);
        rig.on(Event::Refused);
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    rig.accept(HOUR);
    assert_eq!(rig.on(Event::Lost), [Action::Wait(Duration::from_millis(200))]);
}

#[test]
fn denied_is_asked_again_after_one_to_ten_seconds() {
    let mut rig = Rig::connected(OnDenied::Keep);
    rig.chance = 0.0;
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let [Action::Wait(pause)] = rig.on(Event::Denied)[..] else {
            panic!("no pause")
        };
        pauses.push(pause.as_millis());
        assert_eq!(rig.run(2 * MAX_PAUSE), [Action::Connect]);
    }
    assert_eq!(pauses, [1000, 2000, 4000, 5000, 5000]);
}

#[test]
fn held_svid_lasts_to_its_last_instant_whatever_the_source_does() {
    for trouble in [
        Event::Lost,
        Event::Denied,
        Event::Refused,
        Event::Missing,
        Event::Invalid,
    ] {
        let mut rig = Rig::connected(OnDenied::Keep);
        let not_after = rig.accept(HOUR);
        rig.on(trouble);
        let mut told = Vec::new();
        while !told.contains(&Action::Withdraw(Withdrawal::Expired)) {
            told = rig.run(2 * HOUR);
            assert!(!told.is_empty(), "{trouble:?}: never expired");
            if told.contains(&Action::Connect) && rig.now().wall < not_after {
                rig.on(Event::Lost);
            }
        }
        assert_eq!(rig.now().wall, not_after, "{trouble:?}");
    }
}

#[test]
fn denial_withdraws_at_once_where_the_settings_say_so() {
    for (trouble, why) in [
        (Event::Denied, Withdrawal::Denied),
        (Event::Missing, Withdrawal::Missing),
    ] {
        let mut rig = Rig::connected(OnDenied::Withdraw);
        rig.accept(HOUR);
        assert_eq!(rig.on(trouble)[0], Action::Withdraw(why));
        // Once only.
        assert!(!rig.on(trouble).contains(&Action::Withdraw(why)));
        let mut rig = Rig::connected(OnDenied::Keep);
        rig.accept(HOUR);
        assert!(
            !rig.on(trouble)
                .iter()
                .any(|action| matches!(action, Action::Withdraw(_)))
        );
    }
}

#[test]
fn overdue_svid_makes_a_new_connection_again_and_again_but_not_in_a_storm() {
    let mut rig = Rig::connected(OnDenied::Keep);
    let not_after = rig.accept(3 * HOUR);
    let mut at = Vec::new();
    loop {
        let actions = rig.run(3 * HOUR);
        if actions[0] == Action::Withdraw(Withdrawal::Expired) {
            // The source is asked anew.
            assert_eq!(actions[1..], [Action::Disconnect, Action::Connect]);
            break;
        }
        assert_eq!(
            actions,
            [
                Action::Alarm(Alarm::Overdue { not_after }),
                Action::Disconnect,
                Action::Connect
            ]
        );
        at.push(rig.elapsed.as_secs() / 60);
        rig.on(Event::Connected);
        // It gives the same one again.
        rig.on(Event::Accepted {
            not_before: not_after - 3 * HOUR,
            not_after,
        });
    }
    assert_eq!(at[..5], [120, 150, 165, 172, 176]);
    assert!(at.len() < 20, "{}", at.len());
}

#[test]
fn renewal_in_time_raises_no_alarm() {
    let mut rig = Rig::connected(OnDenied::Keep);
    for _ in 0..100 {
        rig.accept(HOUR);
        assert_eq!(rig.run(HOUR / 2), []);
    }
}

#[test]
fn silent_source_with_nothing_in_hand_is_noticed() {
    let mut rig = Rig::new(OnDenied::Keep);
    assert_eq!(rig.on(Event::Tick), [Action::Connect]);
    // An attempt that never ends.
    let actions = rig.run(HOUR);
    assert_eq!(actions[..2], [Action::Alarm(Alarm::Silent), Action::Disconnect]);
    assert_eq!(rig.elapsed, SILENCE);
    assert_eq!(rig.run(HOUR), [Action::Connect]);
    // A connection without a word.
    rig.on(Event::Connected);
    assert_eq!(rig.run(HOUR)[0], Action::Alarm(Alarm::Silent));
    assert_eq!(rig.run(HOUR), [Action::Connect]);
    // A word that cannot be used: asked anew without an alarm.
    rig.on(Event::Connected);
    rig.on(Event::Refused);
    assert_eq!(rig.run(HOUR), [Action::Disconnect, Action::Connect]);
}

#[test]
fn jump_of_the_clock_expires_at_the_next_look_and_a_jump_back_does_nothing() {
    let mut rig = Rig::connected(OnDenied::Keep);
    rig.accept(HOUR);
    let back = Now {
        wall: rig.now().wall - 10 * HOUR,
        elapsed: rig.elapsed,
    };
    assert_eq!(rig.machine.on(Event::Tick, back, 0.5), []);
    assert_eq!(rig.machine.next_tick(back), LOOK);
    let forth = Now {
        wall: rig.now().wall + 10 * HOUR,
        elapsed: rig.elapsed + LOOK,
    };
    assert_eq!(
        rig.machine.on(Event::Tick, forth, 0.5)[0],
        Action::Withdraw(Withdrawal::Expired)
    );
}

#[test]
fn invalid_argument_ends_all_attempts() {
    let mut rig = Rig::connected(OnDenied::Keep);
    assert_eq!(rig.on(Event::Invalid), [Action::Disconnect, Action::Fatal]);
    assert_eq!(rig.run(24 * HOUR), []);
}

fn any_event() -> impl Strategy<Value = Event> {
    let life = (0_u64..7200).prop_map(|seconds| {
        let not_before = SystemTime::UNIX_EPOCH + T0;
        Event::Accepted {
            not_before,
            not_after: not_before + Duration::from_secs(seconds),
        }
    });
    prop_oneof![
        3 => Just(Event::Tick), 2 => Just(Event::Connected), 2 => life, 1 => Just(Event::Missing),
        1 => Just(Event::Refused), 2 => Just(Event::Denied), 3 => Just(Event::Lost),
    ]
}

proptest! {
    #[test]
    fn pauses_are_bounded_and_nothing_outlives_its_expiry(
        steps in prop::collection::vec((any_event(), 0_u64..60_000, 0.0..1.0_f64), 1..200),
        withdraw: bool,
    ) {
        let mut rig = Rig::new(if withdraw { OnDenied::Withdraw } else { OnDenied::Keep });
        let mut held: Option<SystemTime> = None;
        let mut waiting = None;
        for (event, milliseconds, chance) in steps {
            rig.elapsed += Duration::from_millis(milliseconds);
            rig.chance = chance;
            for action in rig.on(event) {
                match action {
                    Action::Wait(pause) => {
                        let least = if event == Event::Denied { MIN_DENIED_PAUSE } else { Duration::from_millis(100) };
                        prop_assert!(pause >= least && pause <= MAX_PAUSE, "{pause:?} after {event:?}");
                        waiting = Some(rig.elapsed + pause);
                    }
                    Action::Publish => {
                        let Event::Accepted { not_after, .. } = event else { panic!("published what?") };
                        held = Some(not_after);
                    }
                    Action::Withdraw(_) => held = None,
                    Action::Connect => {
                        // Never before the pause is over.
                        if let Some(until) = waiting.take() {
                            let cut_short = matches!(event, Event::Connected | Event::Accepted { .. } | Event::Missing | Event::Refused);
                            prop_assert!(rig.elapsed >= until || cut_short || event == Event::Tick, "{event:?}");
                        }
                    }
                    Action::Disconnect | Action::Alarm(_) | Action::Fatal => {}
                }
            }
            prop_assert!(held.is_none_or(|not_after| not_after > rig.now().wall), "outlived its expiry");
            prop_assert!(rig.machine.next_tick(rig.now()) <= LOOK);
        }
    }
}
