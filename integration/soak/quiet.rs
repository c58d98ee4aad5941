//! What is left when everybody has gone: nothing more than there was before.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::agent::{ORDERS, STOREFRONT};
use crate::support::process::try_output_of;
use crate::support::sidecar::{SVIDECAR, Sidecar};
use crate::support::{SOON, eventually, eventually_ok};
use crate::watch::{Seen, Usage};
use crate::world::World;

/// How much more memory there may be at the end than after the warm-up. The last 4,096 verdicts (4 MiB at most) are kept in
/// memory, and a short run has not made as many before its warm-up is over; the rest is what an allocator of four arenas keeps
/// in pages that are partly used, and tickets and verified chains of peers, which are bounded.
pub(crate) const MARGIN: u64 = 12 << 20;
/// How many more threads there may be. Files are read by helper threads, which end after ten seconds without work; but the policy
/// is looked at twice a second by whichever has been idle for longest, so that all of them stay that were ever busy at once:
/// with the policy, the deny list, the status and a log.
pub(crate) const HELPERS: u64 = 3;
/// The workers that a sidecar has at most, where its settings do not say.
const MOST_WORKERS: u64 = 4;
/// For jemalloc to give back (200 ms after the last use), for the runtime's helper threads to end (10 s), and for sockets to
/// be closed lingering (1 s).
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// Without a change for so long, what is used is taken as what there is at rest.
const STEADY: Duration = Duration::from_secs(3);

/// What no trouble explains: with these an allowed client's connection must not end, nor a slow one's.
const NEVER: &[&str] = &[
    "internal",
    "deny_rule",
    "deny_list",
    "peer_not_expected",
    "trust_domain_not_accepted",
    "no_common_parameters",
    "no_certificate",
    "bad_certificate",
    "unknown_trust_domain",
    "untrusted_chain",
    "policy_change",
    "rule_expired",
    "rule_began",
    "bundle_change",
    "identity_change",
    "shutdown",
    "max_connections",
    "max_handshakes",
];

/// Waits until no connection is open and what is used stays the same; both of them, in the order of the sidecars.
pub(crate) fn at_rest(world: &World) -> [Usage; 2] {
    nobody_is_there(world);
    world.sidecars().map(|(name, sidecar)| {
        let mut last = Usage::default();
        let mut since = Instant::now();
        eventually(&format!("{name} is at rest"), SETTLES_WITHIN, || {
            world.alarm.check();
            let now = Usage::of(sidecar)?;
            if (now.descriptors, now.threads) != (last.descriptors, last.threads) {
                since = Instant::now();
            }
            last = now;
            (since.elapsed() >= STEADY).then_some(now)
        })
    })
}

/// Waits until as little is used as at the start; what it is then.
pub(crate) fn back_to(world: &World, start: [Usage; 2]) -> [Usage; 2] {
    nobody_is_there(world);
    let mut starts = start.into_iter();
    world.sidecars().map(|(name, sidecar)| {
        let start = starts.next().unwrap();
        eventually_ok(
            &format!("{name} uses what it used before: {start:?}"),
            SETTLES_WITHIN,
            || {
                world.alarm.check();
                let now = Usage::of(sidecar).ok_or("it does not answer")?;
                let good = now.descriptors == start.descriptors
                    && now.threads <= start.threads + HELPERS
                    && now.resident <= start.resident + MARGIN;
                if good { Ok(now) } else { Err(format!("{now:?}")) }
            },
        )
    })
}

fn nobody_is_there(world: &World) {
    for (name, sidecar) in world.sidecars() {
        eventually_ok(
            &format!("no connection is open at {name}"),
            SETTLES_WITHIN,
            || {
                world.alarm.check();
                match sum(sidecar, "svidecar_connections_open{") {
                    Some(0) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            },
        );
    }
    eventually("no connection is open at the application", SOON, || {
        (world.application.open() == 0).then_some(())
    });
}

/// All samples of a metric together.
fn sum(sidecar: &Sidecar, metric: &str) -> Option<u64> {
    let text = sidecar.get("/metrics").ok()?.body;
    let samples = text.lines().filter(|line| line.starts_with(metric));
    let numbers = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole numbers"
    )]
    Some(numbers.sum::<f64>() as u64)
}

/// What a sidecar counted fits what it said, and what is a defect wherever it appears was not said.
pub(crate) fn counts_fit(world: &World, seen: &[Seen; 2]) {
    for ((name, sidecar), seen) in world.sidecars().into_iter().zip(seen) {
        for reason in NEVER {
            let times = seen.endings.get(*reason).copied().unwrap_or(0);
            assert_eq!(
                times, 0,
                "{name} ended connections with `{reason}`, which no trouble explains"
            );
        }
        let dropped = sum(sidecar, "svidecar_log_lines_dropped_total").unwrap();
        let counted = sum(sidecar, "svidecar_connections_total{").unwrap();
        let told: u64 = seen.endings.values().sum();
        assert_eq!(
            counted,
            told + dropped,
            "{name} counted {counted} connections, and told of {told} ({dropped} lines were dropped)"
        );
    }
}

/// A shortage of descriptors is said by each worker, once in ten seconds, however many connections it costs.
pub(crate) fn said_sparingly(world: &World, seen: &[Seen; 2]) {
    let (times, seconds) = world.weather.totals("descriptors exhausted");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time that is no longer than the run"
    )]
    let at_most = MOST_WORKERS * (2 * times as u64 + (seconds / 10.0) as u64);
    for (complaint, said) in seen.iter().flat_map(|seen| &seen.complaints) {
        if complaint.contains("cannot accept connections") {
            assert!(
                *said <= at_most,
                "said {said} times in {seconds:.0} s: {complaint}"
            );
        }
    }
}

/// What `svidecar audit verify` says of each log; panics where one does not fit.
pub(crate) fn audit_logs_fit(world: &World) -> BTreeMap<&'static str, String> {
    let trusted = format!("example.org={}", world.bundle().display());
    [("storefront", STOREFRONT), ("orders", ORDERS)]
        .into_iter()
        .map(|(name, signer)| {
            let mut command = Command::new(SVIDECAR);
            command
                .args(["audit", "verify", "--bundle", &trusted, "--signer", signer])
                .arg(world.audit_log(name));
            let said = try_output_of(&mut command, SOON)
                .unwrap_or_else(|error| panic!("the audit log of {name} does not fit: {error}"));
            (name, said.lines().next().unwrap_or_default().to_owned())
        })
        .collect()
}
