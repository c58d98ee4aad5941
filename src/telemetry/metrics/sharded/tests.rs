//! That nothing is lost between threads, and what counting costs.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::metrics::gauge::Gauge as PrometheusGauge;
use prometheus_client::metrics::histogram::Histogram as PrometheusHistogram;
use prometheus_client::registry::{Metric, Registry};

use super::*;
use crate::record::DecisionId;
use crate::record::decision::tests::bare;

const THREADS: u64 = 9;
const EACH: u64 = 10_000;

/// Runs the same on more threads than there are shards.
fn on_all_threads(what: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let what = &what;
            scope.spawn(move || (0..EACH).for_each(|n| what(thread * EACH + n)));
        }
    });
}

fn text_of(metric: impl Metric) -> String {
    let mut registry = Registry::default();
    registry.register("it", "It", metric);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

static BOUNDS: [f64; 3] = [0.001, 0.005, 1.0];

#[test]
fn what_all_threads_count_is_counted() {
    let slots = Slots::default();
    let (counter, gauge) = (Counter(slots.take(1)), Gauge(slots.take(1)));
    let histogram = Histogram::new(&BOUNDS, &slots);
    let neighbour = Counter(slots.take(1));
    on_all_threads(|_| {
        counter.inc_by(3);
        gauge.inc();
        histogram.observe(Duration::from_millis(2));
    });
    assert_eq!(counter.get(), 3 * THREADS * EACH);
    assert_eq!(gauge.get(), i64::try_from(THREADS * EACH).unwrap());
    let seen = histogram.snapshot();
    assert_eq!(seen.bounds, [0.001, 0.005, 1.0, f64::INFINITY]);
    assert_eq!(seen.counts, [0, THREADS * EACH, 0, 0]);
    assert_eq!((seen.count(), seen.sum), (THREADS * EACH, 180.0));
    assert_eq!(neighbour.get(), 0);
}

#[test]
fn what_one_thread_counts_in_another_may_count_out() {
    let gauge = Gauge(Slots::default().take(1));
    for _ in 0..3 {
        gauge.inc();
    }
    // Nine threads in turn: each has another shard than the one before.
    for _ in 0..THREADS {
        std::thread::scope(|scope| scope.spawn(|| gauge.dec()).join().unwrap());
    }
    assert_eq!(gauge.get(), 3 - i64::try_from(THREADS).unwrap());
}

#[test]
fn a_duration_is_counted_within_the_first_bound_that_it_does_not_pass() {
    for (milliseconds, counts) in [
        (0, [1, 0, 0, 0]),
        (1, [1, 0, 0, 0]),
        (2, [0, 1, 0, 0]),
        (5, [0, 1, 0, 0]),
        (1000, [0, 0, 1, 0]),
        (1001, [0, 0, 0, 1]),
    ] {
        let histogram = Histogram::new(&BOUNDS, &Slots::default());
        histogram.observe(Duration::from_millis(milliseconds));
        assert_eq!(histogram.snapshot().counts, counts, "{milliseconds}");
    }
}

/// One who reads while all write never sees the id of one decision with the time of another.
#[test]
fn the_last_decision_is_never_half_of_one_and_half_of_another() {
    const READS: u64 = 30_000;
    const WRITERS: u64 = 6;
    let counter = DecisionCounter::new(&Slots::default());
    let (written, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut torn = None;
    std::thread::scope(|scope| {
        for thread in 0..WRITERS {
            let (counter, written, over) = (&counter, &written, &over);
            scope.spawn(move || {
                let mut next = bare();
                for n in 1.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let number = n * WRITERS + thread;
                    next.id = DecisionId::of_words([number, number]);
                    next.time = SystemTime::UNIX_EPOCH + Duration::from_nanos(number);
                    counter.count(&next);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // What is torn is told outside: here it would leave the writers running for ever.
        let mut seen = 0;
        while seen < READS && torn.is_none() {
            for (id, time) in counter.0.shares().filter_map(decisions::last_of) {
                let [process, number] = id.words();
                torn = torn.or(((process, time) != (number, number)).then_some((id, time)));
                seen += 1;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(torn, None);
    assert_eq!(counter.hits().count, written.load(Ordering::Relaxed));
}

#[test]
fn of_several_shards_the_last_decision_is_the_latest() {
    let counter = DecisionCounter::new(&Slots::default());
    assert_eq!((counter.hits().count, counter.hits().last), (0, None));
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let last = |seconds| Some((DecisionId::of_words([1, seconds]), at(seconds)));
    // A shard's last one is what was given last there, and of those the latest counts.
    for (seconds, expected) in [([5, 9, 7, 3], 9), ([6, 2, 7, 3], 7)] {
        for (share, seconds) in counter.0.shares().zip(seconds) {
            decisions::remember(share, DecisionId::of_words([1, seconds]), at(seconds)).unwrap();
        }
        assert_eq!(counter.hits().last, last(expected));
    }
    // While one is written, a second writer does not wait, and a reader takes what the others have.
    let busy = counter.0.shares().nth(2).unwrap();
    busy[1].fetch_add(1, Ordering::Relaxed);
    assert_eq!(
        decisions::remember(busy, DecisionId::of_words([1, 8]), at(8)),
        None
    );
    assert_eq!(counter.hits().last, last(6));
}

#[test]
fn the_text_is_what_prometheus_client_writes() {
    let slots = Slots::default();
    let (counter, gauge) = (Counter(slots.take(1)), Gauge(slots.take(1)));
    counter.inc_by(7);
    let their_counter = prometheus_client::metrics::counter::Counter::<u64>::default();
    their_counter.inc_by(7);
    assert_eq!(text_of(counter), text_of(their_counter));
    gauge.dec();
    let their_gauge = PrometheusGauge::<i64>::default();
    their_gauge.dec();
    assert_eq!(text_of(gauge), text_of(their_gauge));
    let histogram = Histogram::new(&BOUNDS, &slots);
    let their_histogram = PrometheusHistogram::new(BOUNDS);
    assert_eq!(text_of(histogram.clone()), text_of(their_histogram.clone()));
    for milliseconds in [1, 3, 250, 5000] {
        let took = Duration::from_millis(milliseconds);
        histogram.observe(took);
        their_histogram.observe(took.as_secs_f64());
    }
    assert_eq!(text_of(histogram), text_of(their_histogram));
    let decisions = DecisionCounter::new(&slots);
    let their_decisions = CounterWithExemplar::<Vec<(String, String)>>::default();
    assert_eq!(text_of(decisions.clone()), text_of(their_decisions.clone()));
    decisions.count(&bare());
    decisions.count(&bare());
    for _ in 0..2 {
        let exemplar = vec![("decision_id".to_owned(), bare().id.to_string())];
        their_decisions.inc_by(1, Some(exemplar), Some(bare().time));
    }
    assert_eq!(text_of(decisions), text_of(their_decisions));
}

#[test]
fn numbers_that_are_given_out_are_nobody_elses() {
    let slots = Slots::default();
    let all: Vec<Words> = [1, 14, 2, 13, 5, 5, 5, 5, 16]
        .into_iter()
        .map(|count| slots.take(count))
        .collect();
    for (n, words) in all.iter().enumerate() {
        words.add(0, u64::try_from(n).unwrap() + 1);
    }
    for (n, words) in all.iter().enumerate() {
        assert_eq!(words.sum(0), u64::try_from(n).unwrap() + 1);
    }
    assert!(Arc::ptr_eq(&all[0].group, &all[1].group));
    assert!(!Arc::ptr_eq(&all[1].group, &all[2].group));
    assert_eq!(size_of::<Group>(), SHARDS * WORDS * size_of::<u64>());
}
