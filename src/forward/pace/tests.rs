//! Never more than the rate lets through, whoever asks when; and never a wait longer than needed.

use std::task::Waker;

use proptest::prelude::*;

use super::*;

/// A rate, and the time that a test makes.
struct Clock {
    rate: Arc<Rate>,
    now: Duration,
}

impl Clock {
    fn new(per_second: u64) -> Self {
        Self {
            rate: Arc::new(Rate::new(Some(per_second))),
            now: Duration::ZERO,
        }
    }

    fn instant(&self) -> Instant {
        self.rate.epoch + self.now
    }

    /// Uses this much of what is given for it.
    fn move_up_to(&mut self, most: u64) -> Result<u64, Duration> {
        match self.rate.take(self.instant(), most) {
            Ok(taken) => {
                self.rate.settle(taken, taken.bytes);
                Ok(taken.bytes)
            }
            Err(at) => Err(at - self.rate.epoch),
        }
    }
}

#[test]
fn a_second_s_worth_goes_at_once_and_then_as_much_as_time_brings() {
    let mut clock = Clock::new(100_000);
    assert_eq!(clock.move_up_to(30_000), Ok(30_000));
    assert_eq!(clock.move_up_to(1 << 20), Ok(70_000));
    // What is worth a read has to come together first.
    let at = clock.move_up_to(1 << 20).unwrap_err();
    assert_eq!(at, Duration::from_micros(163_840));
    clock.now = at - Duration::from_nanos(1);
    assert_eq!(clock.move_up_to(1 << 20), Err(at));
    clock.now = at;
    assert_eq!(clock.move_up_to(1 << 20), Ok(WORTHWHILE));
    // After a long quiet no more than at the beginning.
    clock.now = Duration::from_secs(86_400 * 365 * 10);
    assert_eq!(clock.move_up_to(1 << 20), Ok(100_000));
}

#[test]
fn where_a_second_is_worth_little_it_is_what_is_waited_for() {
    let mut clock = Clock::new(1024);
    assert_eq!(clock.move_up_to(1 << 20), Ok(1024));
    assert_eq!(clock.move_up_to(1 << 20), Err(Duration::from_secs(1)));
    // A short read needs no more than itself.
    assert_eq!(clock.move_up_to(1), Err(Duration::from_nanos(976_563)));
}

#[test]
fn what_was_not_used_is_given_back() {
    let clock = Clock::new(100_000);
    for used in [0, 1, 50_000, 49_999] {
        let taken = clock.rate.take(clock.instant(), 1 << 20).unwrap();
        clock.rate.settle(taken, used);
    }
    assert_eq!(
        clock.rate.take(clock.instant(), 1 << 20),
        Err(clock.rate.epoch + Duration::from_micros(163_840))
    );
    assert_eq!(
        clock.rate.unused_from(),
        clock.rate.epoch + Duration::from_secs(1)
    );
}

#[test]
fn another_limit_holds_at_once() {
    let mut clock = Clock::new(1 << 20);
    assert_eq!(clock.move_up_to(1 << 20), Ok(1 << 20));
    clock.rate.set(None);
    assert_eq!(clock.move_up_to(1 << 30), Ok(1 << 30));
    clock.rate.set(Some(1 << 30));
    assert!(clock.move_up_to(1 << 30).is_err(), "a second is spoken for");
    clock.now = Duration::from_millis(500);
    assert_eq!(clock.move_up_to(1 << 30), Ok(1 << 29));
    clock.rate.set(Some(1 << 11));
    assert_eq!(clock.move_up_to(1 << 30), Err(Duration::from_millis(1500)));
}

#[test]
fn threads_that_ask_at_once_get_no_more_than_one_would() {
    let rate = Rate::new(Some(10 << 20));
    let now = rate.epoch;
    let moved = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let rate = &rate;
                scope.spawn(move || {
                    let mut moved = 0;
                    while let Ok(taken) = rate.take(now, 50_000 + thread * 1000) {
                        let used = taken.bytes - taken.bytes / 3;
                        rate.settle(taken, used);
                        moved += used;
                    }
                    moved
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<u64>()
    });
    assert!(moved <= 10 << 20, "{moved}");
    assert!(
        moved > (10 << 20) - 8 * WORTHWHILE,
        "{moved}: all of it was to be had"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Read { most: u64, used: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u64..3_000_000_000).prop_map(Step::Wait),
        (0_u64..1000).prop_map(Step::Wait),
        (1_u64..300_000, 0_u64..300_000).prop_map(|(most, used)| Step::Read { most, used }),
        (1_u64..300_000).prop_map(|most| Step::Read { most, used: most }),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    /// Over any time: the rate times the time, and a second's worth.
    #[test]
    fn never_more_than_the_rate(per_second in prop_oneof![1_u64..2000, 1000_u64..10_000_000, 1_u64 << 30..1 << 40], steps in steps()) {
        let mut clock = Clock::new(per_second);
        let mut moved: Vec<(Duration, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(nanoseconds) => clock.now += Duration::from_nanos(nanoseconds),
                Step::Read { most, used } => match clock.rate.take(clock.instant(), most) {
                    Ok(taken) => {
                        prop_assert!(taken.bytes <= most);
                        let used = used.min(taken.bytes);
                        clock.rate.settle(taken, used);
                        moved.push((clock.now, used));
                    }
                    Err(at) => {
                        // It is to be had then, and not before.
                        let after = at - clock.rate.epoch;
                        prop_assert!(after > clock.now);
                        let taken = clock.rate.take(at, most);
                        prop_assert!(taken.is_ok(), "{taken:?}");
                        clock.rate.settle(taken.unwrap(), 0);
                    }
                },
            }
        }
        for (first, (begin, _)) in moved.iter().enumerate() {
            let mut sum = 0;
            for (end, used) in &moved[first..] {
                sum += u128::from(*used);
                let time = (*end - *begin).as_nanos();
                let most = (time * u128::from(per_second)) / 1_000_000_000 + u128::from(per_second);
                prop_assert!(sum <= most, "{sum} bytes in {time} ns at {per_second} a second");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_woken_when_there_is_something_to_be_had() {
    let rates = [100_000, 50_000].map(|per_second| Arc::new(Rate::new(Some(per_second))));
    let mut pace = Pace::new(rates.clone());
    let began = Instant::now();
    let mut moved = 0;
    while moved < 250_000 {
        let all = |most| Ok::<_, ()>(most);
        moved += std::future::poll_fn(|cx| pace.poll_read(cx, 40_000, all))
            .await
            .unwrap();
    }
    // By the lower of the two; and what it does not let through is not taken from the other.
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(3900)..=Duration::from_millis(4400)).contains(&took),
        "{took:?}"
    );
    let other = rates[0].take(Instant::now(), 1 << 20).unwrap();
    assert!(other.bytes > 50_000, "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_finds_nothing_costs_nothing() {
    let rate = Arc::new(Rate::new(Some(100_000)));
    let mut pace = Pace::new([rate.clone()]);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        let nothing = pace.poll_read(&mut cx, 1 << 20, |_| Err::<usize, _>("would block"));
        assert_eq!(nothing, Poll::Ready(Err("would block")));
    }
    assert_eq!(rate.take(Instant::now(), 1 << 20).unwrap().bytes, 100_000);
}
