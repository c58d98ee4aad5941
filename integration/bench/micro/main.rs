//! Micro benchmarks of the parts of a connection's path: `cargo bench --bench micro [-- FILTER]`. To judge a change:
//! `cargo bench --bench micro -- --save-baseline before`, change, `cargo bench --bench micro -- --baseline before`.
//! `cargo test --bench micro` runs each once and measures nothing. What the numbers mean: docs/performance.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what is measured is expected to work; a failure ends the run"
)]

mod handshake;
mod open_connections;
mod policy;
mod record;
mod verify;
#[path = "../../support/world.rs"]
mod world;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let world = world::World::new();
    record::bench(&mut criterion, &world);
    handshake::bench(&mut criterion, &world);
    verify::bench(&mut criterion, &world);
    policy::bench(&mut criterion);
    open_connections::bench(&mut criterion, &world);
    criterion.final_summary();
}
