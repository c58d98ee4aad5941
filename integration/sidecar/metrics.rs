//! Metrics as a scraper sees them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rustls::AlertDescription;

use crate::peers::expect_alert;
use crate::plain::exchange;
use crate::proxy_protocol::{call, shake};
use crate::support::{SOON, eventually};
use crate::world::{Inbound, InboundSetup};

/// The names and labels of all series.
fn series(scene: &Inbound) -> BTreeSet<String> {
    let text = scene.sidecar.get("/metrics").unwrap().body;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

/// Whoever comes, and from wherever: no series is there that was not there before anybody came.
#[test]
fn peers_make_no_series() {
    const PEERS: u8 = 250;
    let scene = InboundSetup {
        policy: Some(
            "rules:\n  - {name: some, action: allow, from: ['spiffe://example.org/some/**']}\n  \
             - {name: bad, action: deny, from: ['spiffe://example.org/bad/*']}\n",
        ),
        ..InboundSetup::default()
    }
    .start();
    let before = series(&scene);
    assert!(before.len() > 80, "{before:?}");
    for n in 1..=PEERS {
        // Each kind of refusal that a peer can bring about by its name, and no TLS at all.
        let kind = ["bad", "other"][usize::from(n % 2)];
        let peer = scene.api.peer(&format!("spiffe://example.org/{kind}/{n}"));
        let mut client = shake(call(Ipv4Addr::new(127, 9, 0, n), scene.tls), &peer);
        expect_alert(&mut client, AlertDescription::AccessDenied);
    }
    for n in 1..=20 {
        let peer = scene.api.peer(&format!("spiffe://example.org/some/{n}"));
        let mut client = shake(call(Ipv4Addr::new(127, 9, 1, n), scene.tls), &peer);
        exchange(&mut client, &mut scene.app.accept(), "hello");
    }
    let denied = "svidecar_authorization_decisions_total{listener=\"orders\",rule=\"bad\",verdict=\"deny\"}";
    assert_eq!(scene.sidecar.metric(denied), Some(f64::from(PEERS / 2)));
    let open = "svidecar_connections_open{listener=\"orders\",direction=\"inbound\"}";
    eventually("all have ended", SOON, || {
        (scene.sidecar.metric(open) == Some(0.0)).then_some(())
    });
    let after = series(&scene);
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
    assert_eq!(after, before);
}
