//! A change with thousands of real connections open: `cargo test --test sidecar -- --ignored many`.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::open_connections::Open;
use crate::support::{SOON, eventually};
use crate::world::{InboundSetup, REPORTS, STOREFRONT, STOREFRONT_ONLY};

/// As many as the usual limit of descriptors allows, each end of each connection being one of this process.
const CONNECTIONS: usize = 3000;
/// From the edit of the file to the last connection's end: half a second until it is seen, the other half for the rest, and
/// as much again for a machine that is busy with other tests.
const IN_TIME: Duration = Duration::from_secs(2);
/// What a byte there and back may take for one that lives on, meanwhile; on such a machine, too.
const NO_STALL: Duration = Duration::from_millis(500);

#[test]
#[ignore = "opens thousands of connections, and measures"]
fn many_connections_end_in_time_and_the_others_do_not_stall() {
    let scene = InboundSetup {
        policy: Some("rules:\n  - name: all\n    action: allow\n"),
        settings: "workers: 2\nlimits: { max_handshakes: 100 }\n",
        ..InboundSetup::default()
    }
    .start();
    let peers: Vec<_> = (0..50)
        .map(|n| scene.api.peer(&format!("{REPORTS}/{n}")))
        .collect();
    let mut concerned: Vec<Open> = (0..CONNECTIONS)
        .map(|n| Open::through(&scene, &peers[n % peers.len()]))
        .collect();
    let mut control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let over = AtomicBool::new(false);
    let (took, longest) = std::thread::scope(|scope| {
        let beating = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                control.must_flow();
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        let begun = Instant::now();
        scene.sidecar.set_policy(STOREFRONT_ONLY);
        for open in &mut concerned {
            let mut byte = [0];
            let ended = open.client.read(&mut byte);
            assert!(!matches!(ended, Ok(1)), "nothing was sent");
        }
        let took = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        (took, beating.join().unwrap())
    });
    eprintln!("{CONNECTIONS} ended after {took:?}; the longest wait of another was {longest:?}");
    eventually("only one is left", SOON, || {
        let shown = scene.sidecar.get("/api/v1/connections").ok()?.json();
        (shown["total"] == 1).then_some(())
    });
    assert!(took < IN_TIME, "{took:?}");
    assert!(longest < NO_STALL, "{longest:?}");
}
