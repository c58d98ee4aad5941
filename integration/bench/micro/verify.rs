//! Verification of a peer's chain as handshakes ask for it, P-256: the whole X.509-SVID profile and the signatures where
//! the chain is new, and what is left of it where it is known.

use std::hint::black_box;
use std::time::SystemTime;

use criterion::{BatchSize, Criterion};
use svidecar::tls::verify::{PeerSide, verify_chain};

use crate::world::{LIFE, THEIR_ID, World, issue};

pub(crate) fn bench(criterion: &mut Criterion, world: &World) {
    let now = SystemTime::now();
    let below = world.authority.intermediate(LIFE, now).unwrap();
    let chains = [
        ("leaf", issue(&world.authority, THEIR_ID).chain),
        ("leaf and intermediate", issue(&below, THEIR_ID).chain),
    ];
    let mut group = criterion.benchmark_group("verify");
    for (name, chain) in &chains {
        group.bench_function(*name, |bencher| {
            bencher.iter_batched_ref(
                || world.fresh_store(),
                |store| verify_chain(store, black_box(chain), PeerSide::Client, now).unwrap(),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("{name}, known"), |bencher| {
            bencher.iter(|| verify_chain(&world.store, black_box(chain), PeerSide::Client, now).unwrap());
        });
    }
    group.finish();
}
