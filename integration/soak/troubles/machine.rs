//! Troubles with the machine: descriptors, the disk, the clock.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{Running, Trouble};
use crate::clients::connect;
use crate::support::process::Mark;
use crate::support::sidecar::Sidecar;
use crate::support::{SOON, eventually};
use crate::weather::Effect;
use crate::world::World;

/// The hour by which the clock is stepped.
const HOUR: i64 = 3600;
/// Descriptors that are left beyond those in use.
const LEFT: u64 = 6;
/// Connections that want one, so that they run out whatever else goes on.
const KNOCKING: usize = 30;

/// Of both sidecars, while clients knock.
pub(super) const DESCRIPTORS_EXHAUSTED: Trouble = Trouble {
    name: "descriptors exhausted",
    what: "the limit of open files of both sidecars is lowered to what they use, while clients knock",
    holds: "connections that are open live on; new ones wait or are refused; accepting goes on afterwards",
    effect: Effect::REFUSES,
    lasts: (1.0, 4.0),
    // A crowd would not be let in within its patience, and who cannot open a socket cannot find an agent again.
    uses: "refuses crowd agent",
    depth: 2,
    short: true,
    missing: |_| None,
    begin: |world| {
        let before = world.sidecars().map(|(_, sidecar)| starve(sidecar));
        let mut knocking = Vec::new();
        for addr in [world.plain, world.tls] {
            knocking.extend((0..KNOCKING).filter_map(|_| connect(addr).ok()));
        }
        Running::until(move |world| {
            for ((_, sidecar), before) in world.sidecars().into_iter().zip(before) {
                prlimit(pid(sidecar), Resource::Nofile, before).unwrap();
            }
            drop(knocking);
            world.wait_served();
        })
    },
};

/// Lowers the soft limit; the limit before.
fn starve(sidecar: &Sidecar) -> Rlimit {
    let used = eventually("the open files are counted", SOON, || {
        sidecar.metric("process_open_fds ")
    });
    let limits = fs::read_to_string(format!("/proc/{}/limits", sidecar.process().pid())).unwrap();
    let hard = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|numbers| numbers.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it counts files"
    )]
    let few = Rlimit {
        current: Some(used as u64 + LEFT),
        maximum: hard,
    };
    prlimit(pid(sidecar), Resource::Nofile, few).unwrap()
}

fn pid(sidecar: &Sidecar) -> Option<Pid> {
    Pid::from_raw(i32::try_from(sidecar.process().pid()).unwrap())
}

/// For both audit logs.
pub(super) const DISK_FULL: Trouble = Trouble {
    name: "disk full",
    what: "the disk of both audit logs is filled to the last byte, and freed",
    holds: "who keeps `on_failure: deny` lets nobody in, who keeps `continue` serves on; open connections live on; afterwards \
            both logs are written again, and verify",
    effect: Effect::REFUSES,
    lasts: (1.0, 4.0),
    uses: "refuses",
    depth: 2,
    short: true,
    missing: |world| world.disk.as_ref().err().cloned(),
    begin: |world| {
        world.disk.as_ref().unwrap().fill();
        Running::until(|world| {
            world.disk.as_ref().unwrap().free();
            world.wait_metric("svidecar_audit_failing ", 0.0);
            world.wait_served();
        })
    },
};

/// An hour forward, and back.
pub(super) const CLOCK_STEPPED: Trouble = Trouble {
    name: "clock stepped",
    what: "the clock of sidecars and agent goes forward by an hour, and back",
    holds: "connections whose SVIDs are out of their time end; with new SVIDs both sidecars serve again",
    effect: Effect::CUTS,
    lasts: (2.0, 5.0),
    uses: "agent clock crowd",
    depth: 1,
    short: true,
    missing: |world| world.clock.as_ref().err().cloned(),
    begin: |world| {
        let marks = world.sidecars().map(|(_, sidecar)| sidecar.mark());
        step(world, HOUR);
        for ((_, sidecar), mark) in world.sidecars().into_iter().zip(marks) {
            saw_the_step(sidecar, mark);
        }
        Running::until(|world| {
            step(world, 0);
            // By its clock there is nothing to do for an hour; a real one is restarted then.
            world.agent.rotate();
            world.wait_served();
        })
    },
};

fn step(world: &World, seconds: i64) {
    world.agent.clock().set(seconds);
    world.clock.as_ref().unwrap().step(seconds);
}

/// Waits for a line whose time is an hour ahead: somebody is always talking.
fn saw_the_step(sidecar: &Sidecar, mark: Mark) {
    let soon = svidecar::clock::rfc3339(std::time::SystemTime::now() + std::time::Duration::from_secs(3000));
    sidecar.wait_log("that the clock was stepped", mark, |line| {
        line["timestamp"].as_str().is_some_and(|time| *time > *soon)
    });
}
