//! Troubles with what surrounds a sidecar: the agent, the policy, the application.

use std::time::Duration;

use rustix::process::Signal;

use super::{Running, Trouble, always};
use crate::weather::Effect;
use crate::world::{TTL, policy};

/// Down for less than an SVID lasts: the sidecars live on with what they have.
pub(super) const AGENT_KILLED: Trouble = Trouble {
    name: "agent killed",
    what: "the agent is killed just after it gave out SVIDs of ten seconds, and started again",
    holds: "nobody is refused or cut; both sidecars find the agent again by themselves",
    effect: Effect::NONE,
    lasts: (0.5, 3.0),
    uses: "agent refuses",
    depth: 1,
    short: true,
    missing: always,
    begin: |world| {
        world.agent.rotate();
        // What was pushed is to arrive; whether it did shows in nobody being cut.
        world.pause(Duration::from_millis(300));
        world.agent.kill();
        Running::until(|world| {
            world.agent.revive();
            world.wait_metric("svidecar_workload_api_connected ", 1.0);
        })
    },
};

/// Down for longer than an SVID lasts.
pub(super) const AGENT_AWAY: Trouble = Trouble {
    name: "agent away",
    what: "the agent is gone for longer than the SVIDs last",
    holds: "when they run out connections end and new ones are refused; both sidecars recover by themselves",
    effect: Effect::CUTS,
    lasts: (11.0, 11.5),
    uses: "agent clock refuses crowd",
    depth: 1,
    short: false,
    missing: always,
    begin: |world| {
        // They last as long as they can: so the time in which nobody is served is short enough for the clients.
        world.agent.rotate();
        world.pause(Duration::from_millis(300));
        world.agent.kill();
        Running::until(|world| {
            world.agent.revive();
            world.wait_metric("svidecar_workload_api_connected ", 1.0);
            world.wait_served();
        })
    },
};

/// Once a second, every fourth time with an edition that cannot be read.
pub(super) const POLICY_REWRITTEN: Trouble = Trouble {
    name: "policy rewritten",
    what: "the policy is replaced each second by another edition, every fourth of which cannot be read",
    holds: "nobody whom every edition lets in is refused or cut; a bad edition leaves the last good one in force",
    effect: Effect::NONE,
    lasts: (3.0, 10.0),
    uses: "policy",
    depth: 0,
    short: true,
    missing: always,
    begin: |world| {
        let second = Duration::from_secs(1);
        Running::over_and_over(
            world,
            second,
            |world, times| {
                let edition = match times % 4 {
                    2 => "rules:\n  - name: storefront\n    action: alow\n".to_owned(),
                    _ => policy(times),
                };
                world.orders.set_policy(&edition);
            },
            |world| {
                world.orders.set_policy(&policy(0));
                let failing = "svidecar_policy_reload_failing{document=\"policy\"}";
                crate::support::eventually(
                    "the last edition is in force",
                    crate::support::SOON + TTL,
                    || (world.orders.metric(failing) == Some(0.0)).then_some(()),
                );
            },
        )
    },
};

/// Far more often than anybody would.
pub(super) const TOLD_TO_RELOAD: Trouble = Trouble {
    name: "told to reload",
    what: "both sidecars get SIGHUP ten times a second",
    holds: "nobody is refused or cut",
    effect: Effect::NONE,
    lasts: (2.0, 8.0),
    uses: "reload",
    depth: 0,
    short: true,
    missing: always,
    begin: |world| {
        Running::over_and_over(
            world,
            Duration::from_millis(100),
            |world, _| {
                for (_, sidecar) in world.sidecars() {
                    sidecar.process().signal(Signal::HUP);
                }
            },
            |_| {},
        )
    },
};

/// Refuses connections most of the time.
pub(super) const APPLICATION_FLAPPING: Trouble = Trouble {
    name: "application flapping",
    what: "the application stops listening and listens again, several times a second",
    holds: "connections that are open live on; new ones are refused at once or served",
    effect: Effect::REFUSES,
    lasts: (2.0, 5.0),
    uses: "refuses",
    depth: 2,
    short: true,
    missing: always,
    begin: |world| {
        Running::over_and_over(
            world,
            Duration::from_millis(150),
            |world, times| world.application.listen(times % 2 == 1),
            |world| {
                world.application.listen(true);
                world.wait_served();
            },
        )
    },
};
