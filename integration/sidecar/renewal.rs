//! Two svidecars with SVIDs that live for ten seconds: a connection between them lives as long as both identities are kept
//! up, and no longer. What anybody else sees of it: nothing.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rustls::AlertDescription;
use serde_json::Value;
use svidecar::clock::rfc3339;

use crate::peers::{self, expect_alert};
use crate::plain::{connect, exchange, expect_reset};
use crate::support::net::free_address;
use crate::support::process::Mark;
use crate::support::sidecar::{Setup, Sidecar};
use crate::world::{
    Api, HOUR, Identity, Inbound, InboundSetup, ORDERS, OutboundSetup, STOREFRONT, authority,
};

/// What an SVID lives; a new one comes after half of it.
const LIFE: Duration = Duration::from_secs(10);
/// With something on top for a machine that is busy with other tests.
const IN_TIME: Duration = Duration::from_millis(1500);
/// As `issue 5` asks: a dozen SVIDs long.
const LONG: Duration = Duration::from_secs(120);

/// Storefront's application, its sidecar, orders' sidecar, and orders' application; each sidecar has an agent of its own.
struct Pair {
    inbound: Inbound,
    outbound: Sidecar,
    storefront: Api,
    /// Where storefront's application connects.
    plain: SocketAddr,
}

impl Pair {
    fn start(inbound_settings: &str, outbound_settings: &str) -> Self {
        let (storefront, orders) = (Api::with_ttl(&[STOREFRONT], LIFE), Api::with_ttl(&[ORDERS], LIFE));
        // Servers of one trust domain, as SPIRE's are below one root.
        let root = authority("example.org");
        for api in [&storefront, &orders] {
            let below = root.intermediate(24 * HOUR, SystemTime::now()).unwrap();
            api.handle().set_authority(below, false).unwrap();
        }
        let inbound = InboundSetup {
            settings: inbound_settings,
            ..InboundSetup::default()
        }
        .start_with(orders);
        let plain = free_address();
        let config = format!(
            "{}outbound:\n  - name: to-orders\n    listen: {plain}\n    peer: [\"{ORDERS}\"]\n    connect: {}\n{}",
            storefront.identity(),
            inbound.tls,
            outbound_settings
        );
        let outbound = Setup::new("storefront", config).start();
        outbound.wait_ready();
        Self {
            inbound,
            outbound,
            storefront,
            plain,
        }
    }

    fn open(&self) -> Open {
        let near = connect(self.plain);
        let far = self.inbound.app.accept();
        let mut open = Open { near, far };
        open.must_flow();
        open
    }

    /// Both sidecars' counts of this result.
    fn renewals(&self, result: &str) -> [f64; 2] {
        let ends = [
            (&self.inbound.sidecar, "orders", "inbound"),
            (&self.outbound, "to-orders", "outbound"),
        ];
        ends.map(|(sidecar, listener, direction)| {
            let sample = format!(
                "svidecar_renewals_total{{listener=\"{listener}\",direction=\"{direction}\",result=\"{result}\"}}"
            );
            sidecar.metric(&sample).unwrap()
        })
    }

    fn records(&self) -> Vec<Value> {
        let mut records = self.inbound.sidecar.records_since(Mark::default());
        records.extend(self.outbound.records_since(Mark::default()));
        records
    }
}

/// A connection through both sidecars.
struct Open {
    near: TcpStream,
    far: TcpStream,
}

impl Open {
    fn must_flow(&mut self) {
        exchange(&mut self.near, &mut self.far, "still here");
    }

    /// Both ends are reset; when.
    fn must_be_cut(mut self) -> SystemTime {
        expect_reset(&mut self.near);
        let cut = SystemTime::now();
        expect_reset(&mut self.far);
        cut
    }
}

/// The end of the SVID that a sidecar presents to whom it meets now.
fn own_end(sidecar: &Sidecar) -> String {
    let identity = sidecar.get("/api/v1/identity").unwrap().json();
    let svids = identity["svids"].as_array().unwrap();
    svids[0]["not_after"].as_str().unwrap().to_owned()
}

#[test]
fn a_connection_lives_as_long_as_both_identities_are_kept_up() {
    let pair = Pair::start("", "");
    // Not a byte is said on this one until the end.
    let mut quiet = pair.open();
    // A resumed session is another connection, and its renewals are bound to it.
    let mut busy = pair.open();
    let begun = Instant::now();
    let mut serials = Vec::new();
    while begun.elapsed() < LONG {
        busy.must_flow();
        let serial = pair.outbound.serial().unwrap();
        if serials.last() != Some(&serial) {
            serials.push(serial);
        }
        sleep(Duration::from_millis(300));
    }
    assert!(serials.len() >= 12, "{} SVIDs", serials.len());
    quiet.must_flow();
    assert_eq!(pair.records(), Vec::<Value>::new());
    let taken = pair.renewals("own_accepted");
    // Each end renewed each of the two at almost every rotation; none is needed twice in a life.
    let least = 2.0 * LONG.as_secs_f64() / LIFE.as_secs_f64();
    assert!(taken.iter().all(|count| *count >= least), "{taken:?}");
    let other_side = pair.renewals("peer_accepted");
    assert!(
        (taken[0] - other_side[1]).abs() <= 2.0 && (taken[1] - other_side[0]).abs() <= 2.0,
        "{taken:?} {other_side:?}"
    );
    for result in ["own_kept", "peer_kept", "peer_refused"] {
        assert_eq!(pair.renewals(result), [0.0, 0.0], "{result}");
    }
    drop((quiet, busy));
    let ends = [(&pair.inbound.sidecar, "inbound"), (&pair.outbound, "outbound")];
    for (sidecar, direction) in ends {
        for resumed in [false, true] {
            let record = sidecar.wait_log("how it ended", Mark::default(), |line| {
                line["direction"] == direction && line["resumed"] == resumed
            });
            assert_eq!(record["reason"], "finished", "{record}");
        }
    }
}

#[test]
fn a_workload_that_is_no_longer_registered_loses_its_connections_with_its_last_svid() {
    let pair = Pair::start("", "");
    let mut open = pair.open();
    let begun = Instant::now();
    while begun.elapsed() < LIFE + IN_TIME {
        open.must_flow();
        sleep(Duration::from_millis(300));
    }
    pair.storefront.handle().deny();
    let end = own_end(&pair.outbound);
    let cut = open.must_be_cut();
    assert!(rfc3339(cut) >= end, "cut at {} before {end}", rfc3339(cut));
    assert!(
        rfc3339(cut - IN_TIME) < end,
        "cut at {} long after {end}",
        rfc3339(cut)
    );
    // Both look at the same instant; who is first tells the other.
    let reasons = [&pair.outbound, &pair.inbound.sidecar]
        .map(|sidecar| sidecar.wait_record(Mark::default(), &[])["reason"].clone());
    assert!(
        reasons[0] == "own_expired" || reasons[1] == "peer_expired",
        "{reasons:?}"
    );
    assert!(pair.renewals("peer_accepted")[0] >= 1.0);
}

#[test]
fn where_one_end_has_it_off_connections_end_as_with_anybody_else() {
    const OFF: &str = "tls: { renewal: false }\n";
    for (inbound, outbound) in [(OFF, ""), ("", OFF)] {
        let pair = Pair::start(inbound, outbound);
        let open = pair.open();
        let begun = Instant::now();
        open.must_be_cut();
        let lived = begun.elapsed();
        assert!(lived < LIFE + IN_TIME, "{lived:?}");
        for result in ["own_sent", "peer_accepted"] {
            assert_eq!(pair.renewals(result), [0.0, 0.0], "{result}");
        }
    }
}

#[test]
fn a_stock_client_sees_nothing_of_it_and_loses_its_connection_with_our_svid() {
    let scene = InboundSetup::default().start_with(Api::with_ttl(&[ORDERS], LIFE));
    let mut client = peers::connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    let begun = Instant::now();
    while begun.elapsed() < LIFE / 2 {
        exchange(&mut client, &mut app, "hello");
        sleep(Duration::from_millis(300));
    }
    // Data it is in between: were there anything else, stock rustls would break off.
    expect_alert(&mut client, AlertDescription::InternalError);
    let lived = begun.elapsed();
    assert!(lived < LIFE + IN_TIME, "{lived:?}");
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "own_expired")]);
}

#[test]
fn a_stock_server_sees_nothing_of_it_and_loses_its_connection_with_our_svid() {
    let scene = OutboundSetup::default().start_with(Api::with_ttl(&[STOREFRONT], LIFE));
    let mut app = connect(scene.plain);
    let identity = Identity::of(&scene.api.authority(), ORDERS);
    let mut server = peers::accept(scene.peer.accept(), &identity);
    let begun = Instant::now();
    while begun.elapsed() < LIFE / 2 {
        exchange(&mut app, &mut server, "hello");
        sleep(Duration::from_millis(300));
    }
    expect_alert(&mut server, AlertDescription::InternalError);
    let lived = begun.elapsed();
    assert!(lived < LIFE + IN_TIME, "{lived:?}");
    let mut rest = Vec::new();
    assert!(app.read_to_end(&mut rest).is_err());
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "own_expired")]);
}
