//! svidecar against the real SPIRE: `spire-server` and `spire-agent` from PATH. Skipped, loudly, without them.
//!
//! SVIDs live for a minute here, so that a rotation, and the end of one that nobody renews, can be waited for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use support::application::{Echo, Traffic, ask_once};
use support::net::free_address;
use support::process::{Mark, try_output_of};
use support::sidecar::{ProgramCopy, Setup, Sidecar};
use support::spire::{Entry, Spire, own_uid};
use support::{SOON, eventually, eventually_ok};

/// SPIRE dates SVIDs back by ten seconds and renews them at half their life: an SVID of a minute is replaced after
/// 25 seconds. On a busy machine that takes a little longer.
const ROTATION: Duration = Duration::from_secs(45);

/// The part of a config that says which identity: `pick` is the line that chooses among several SVIDs, and more.
fn identity(spire: &Spire, pick: &str) -> String {
    format!("identity:\n  socket: {}\n  {pick}\n", spire.workload_api())
}

/// The part that makes a sidecar take TLS for an application.
fn inbound(listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "policy:\n  path: policy/\ninbound:\n  - name: orders\n    listen: {listen}\n    upstream: {upstream}\n    \
         trust: [partner.example]\n"
    )
}

/// The part through which an application reaches another sidecar.
fn outbound(listen: SocketAddr, connect: SocketAddr, peer: &str) -> String {
    format!(
        "outbound:\n  - name: to-orders\n    listen: {listen}\n    connect: {connect}\n    peer: [\"{peer}\"]\n"
    )
}

/// Two sidecars, an application behind the one and the address before the other.
struct Pair {
    orders: Sidecar,
    storefront: Sidecar,
    application: Echo,
    to_orders: SocketAddr,
    orders_id: String,
    storefront_id: String,
}

impl Pair {
    /// Each in a SPIRE, with an entry of its own for which it is the only workload. Neither need be ready yet.
    fn start(at_orders: &Workload<'_>, at_storefront: &Workload<'_>) -> Self {
        let application = Echo::start();
        let (tls, to_orders) = (free_address(), free_address());
        let (orders_id, storefront_id) = (at_orders.id(), at_storefront.id());
        let pick = |workload: &Workload<'_>| {
            identity(
                workload.spire,
                &format!("svid: {}\n  {}", workload.id(), workload.more),
            )
        };
        let orders = Setup::new("orders", pick(at_orders) + &inbound(tls, application.addr()))
            .policy(&allow("storefront-places-orders", &storefront_id))
            .program(at_orders.copy.path())
            .start();
        let storefront = Setup::new(
            "storefront",
            pick(at_storefront) + &outbound(to_orders, tls, &orders_id),
        )
        .program(at_storefront.copy.path())
        .start();
        Self {
            orders,
            storefront,
            application,
            to_orders,
            orders_id,
            storefront_id,
        }
    }

    fn wait_ready(&self) {
        self.orders.wait_ready();
        self.storefront.wait_ready();
    }
}

/// A program of its own that SPIRE can be told of.
struct Workload<'a> {
    spire: &'a Spire,
    copy: ProgramCopy,
    path: &'static str,
    /// More of its config's `identity` section.
    more: &'static str,
}

impl<'a> Workload<'a> {
    fn new(spire: &'a Spire, path: &'static str) -> Self {
        Self {
            spire,
            copy: ProgramCopy::named("svidecar"),
            path,
            more: "",
        }
    }

    fn id(&self) -> String {
        self.spire.id(self.path)
    }

    /// Creates its entry, which lives as long as it is asked to.
    fn register(&self, change: impl for<'e> FnOnce(Entry<'e>) -> Entry<'e>) -> String {
        let selector = self.copy.selector();
        self.spire.register(&change(Entry::new(self.path, &[&selector])))
    }
}

fn allow(name: &str, from: &str) -> String {
    format!("rules:\n  - name: {name}\n    action: allow\n    to: [orders]\n    from: [\"{from}\"]\n")
}

/// Waits until a line goes through: what the agent was told reaches a sidecar in its own time.
fn wait_flowing(addr: SocketAddr) {
    eventually_ok("a line goes through", SOON, || ask_once(addr, "hello"));
}

/// Connects to a sidecar that must refuse, and fails when an answer comes instead.
fn expect_refused(addr: SocketAddr) {
    assert!(
        ask_once(addr, "hello").is_err(),
        "an answer came through a sidecar that must refuse"
    );
}

/// Two SVIDs for one process, told apart by `svid`; bytes flow where a rule names the peer, and no connection reaches
/// the application where none does. Both sides' records say who, to whom and why.
#[test]
fn a_named_peer_gets_through_and_an_unnamed_one_does_not() {
    let Some(spire) = Spire::shared() else { return };
    // The user alone would select the sidecars of every other test as well.
    let (copy, uid) = (ProgramCopy::named("svidecar"), own_uid());
    for path in ["/flow/orders", "/flow/storefront", "/flow/reports"] {
        spire.register(&Entry::new(path, &[&uid, &copy.selector()]));
    }
    let (orders_id, storefront_id) = (spire.id("/flow/orders"), spire.id("/flow/storefront"));
    let reports_id = spire.id("/flow/reports");
    let application = Echo::start();
    let (tls, to_orders, also_to_orders, to_nobody) =
        (free_address(), free_address(), free_address(), free_address());
    let policy = allow("storefront-places-orders", &storefront_id);
    let pick = |id: &str| identity(&spire, &format!("svid: {id}"));
    let start = |name, config| {
        Setup::new(name, config)
            .policy(&policy)
            .program(copy.path())
            .start()
    };
    let orders = start("orders", pick(&orders_id) + &inbound(tls, application.addr()));
    let storefront = start(
        "storefront",
        pick(&storefront_id) + &outbound(to_orders, tls, &orders_id),
    );
    let reports = start(
        "reports",
        pick(&reports_id) + &outbound(also_to_orders, tls, &orders_id),
    );
    // Would send its bytes to an ID that is not the one that answers.
    let misled = start(
        "misled",
        pick(&storefront_id) + &outbound(to_nobody, tls, &reports_id),
    );
    for sidecar in [&orders, &storefront, &reports, &misled] {
        sidecar.wait_ready();
    }

    ask_once(to_orders, "one order").unwrap();
    let record = orders.wait_record(
        Mark::default(),
        &[
            ("peer_id", &storefront_id),
            ("own_id", &orders_id),
            ("verdict", "allow"),
            ("result", "ok"),
        ],
    );
    assert_eq!(record["rule"], "storefront-places-orders");
    assert_eq!(record["direction"], "inbound");
    assert_eq!(
        (&record["bytes_up"], &record["bytes_down"]),
        (&10.into(), &10.into()),
        "{record}"
    );
    let record = storefront.wait_record(Mark::default(), &[("peer_id", &orders_id), ("result", "ok")]);
    assert_eq!(
        (&record["direction"], &record["own_id"]),
        (&"outbound".into(), &storefront_id.as_str().into())
    );
    assert_eq!(application.accepted(), 1);

    expect_refused(also_to_orders);
    orders.wait_record(
        Mark::default(),
        &[
            ("peer_id", &reports_id),
            ("verdict", "deny"),
            ("reason", "no_allow_rule"),
            ("result", "denied"),
        ],
    );
    reports.wait_record(
        Mark::default(),
        &[("peer_id", &orders_id), ("reason", "refused_by_peer")],
    );

    expect_refused(to_nobody);
    misled.wait_record(
        Mark::default(),
        &[
            ("peer_id", &orders_id),
            ("verdict", "deny"),
            ("reason", "peer_not_expected"),
        ],
    );
    assert_eq!(
        application.accepted(),
        1,
        "a refused peer reached the application"
    );
}

/// What `svidecar identity` says of the same agent.
#[test]
fn the_identity_command_lists_what_the_agent_gives() {
    let Some(spire) = Spire::shared() else { return };
    let copy = ProgramCopy::named("asks-who-it-is");
    let socket = spire.workload_api();
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(copy.path());
        try_output_of(
            command.args(["identity", "--socket", &socket]).args(arguments),
            SOON,
        )
    };
    let refused = ask(&[]).unwrap_err();
    assert!(
        refused.contains("no identity issued") && refused.contains("registration entry"),
        "{refused}"
    );
    for (hint, path) in [("internal", "/who/internal"), ("external", "/who/external")] {
        spire.register(&Entry {
            hint: Some(hint),
            ..Entry::new(path, &[&copy.selector()])
        });
    }
    let text = eventually_ok("the agent knows both entries", SOON, || {
        let text = ask(&[])?;
        let both = text.contains("/who/internal") && text.contains("/who/external");
        if both { Ok(text) } else { Err(text) }
    });
    assert!(text.contains("internal") && text.contains("external"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&ask(&["--json"]).unwrap()).unwrap();
    assert!(json.to_string().contains(&spire.id("/who/external")), "{json}");
}

/// One program with two SVIDs presents the one that its config asks for by hint, whichever comes first.
#[test]
fn a_hint_picks_the_svid() {
    let Some(spire) = Spire::shared() else { return };
    let copy = ProgramCopy::named("picks-by-hint");
    let selector = copy.selector();
    for hint in ["blue", "green"] {
        spire.register(&Entry {
            hint: Some(hint),
            ..Entry::new(&format!("/hint/{hint}"), &[&selector])
        });
    }
    for (own, other) in [("blue", "green"), ("green", "blue")] {
        let (own_id, other_id) = (
            spire.id(&format!("/hint/{own}")),
            spire.id(&format!("/hint/{other}")),
        );
        let (application, tls, plain) = (Echo::start(), free_address(), free_address());
        let pick = |hint: &str| identity(&spire, &format!("hint: {hint}"));
        let policy = allow("the-other-hint", &other_id);
        let server = Setup::new("server", pick(own) + &inbound(tls, application.addr()))
            .policy(&policy)
            .program(copy.path())
            .start();
        let client = Setup::new("client", pick(other) + &outbound(plain, tls, &own_id))
            .program(copy.path())
            .start();
        server.wait_ready();
        client.wait_ready();
        ask_once(plain, "which one").unwrap();
        let fields = [
            ("own_id", own_id.as_str()),
            ("peer_id", other_id.as_str()),
            ("result", "ok"),
        ];
        server.wait_record(Mark::default(), &fields);
    }
}

/// SPIRE replaces both SVIDs while a connection that was made with the old ones goes on, and new connections are made
/// with the new ones.
#[test]
fn a_rotation_leaves_open_connections_alone() {
    let Some(spire) = Spire::shared() else { return };
    let (at_orders, at_storefront) = (
        Workload::new(&spire, "/rotation/orders"),
        Workload::new(&spire, "/rotation/storefront"),
    );
    at_orders.register(|entry| entry);
    at_storefront.register(|entry| entry);
    let pair = Pair::start(&at_orders, &at_storefront);
    pair.wait_ready();

    let orders_serial = pair.orders.serial().expect("a serial");
    let storefront_serial = pair.storefront.serial().expect("a serial");
    assert_ne!(orders_serial, storefront_serial);
    let traffic = Traffic::start(pair.to_orders).unwrap();
    let rotated_at_orders = pair.orders.wait_rotation(&orders_serial, ROTATION);
    pair.storefront.wait_rotation(&storefront_serial, ROTATION);
    traffic.expect_flowing(Duration::from_secs(2));
    assert_eq!(
        pair.application.accepted(),
        1,
        "the traffic was on one connection"
    );
    assert!(pair.orders.metric("svidecar_svid_rotations_total").unwrap() >= 1.0);
    assert_ne!(rotated_at_orders, orders_serial);

    ask_once(pair.to_orders, "with the new ones").unwrap();
    traffic.expect_flowing(Duration::from_millis(200));
}

/// Nobody is registered at first: listeners are bound, connections are refused for that reason, and an entry heals it
/// without a restart. The entry goes again: `withdraw` ends everything at once, `keep` goes on until the SVID ends.
#[test]
fn entries_that_come_late_and_go_early() {
    let Some(spire) = Spire::shared() else { return };
    let at_orders = Workload {
        more: "on_denied: withdraw",
        ..Workload::new(&spire, "/registration/orders")
    };
    let at_storefront = Workload {
        more: "on_denied: keep",
        ..Workload::new(&spire, "/registration/storefront")
    };
    let pair = Pair::start(&at_orders, &at_storefront);
    let unready = pair.orders.wait_not_ready(SOON);
    assert!(unready.body.contains("identity"), "{}", unready.body);
    pair.storefront.wait_not_ready(SOON);
    pair.orders.wait_log(
        "that no identity was issued, and what to check",
        Mark::default(),
        |line| {
            let line = line.to_string();
            line.contains("no identity issued") && line.contains("registration entry")
        },
    );
    expect_refused(pair.to_orders);
    pair.storefront.wait_record(
        Mark::default(),
        &[("reason", "no_identity"), ("result", "refused")],
    );

    // The shortest that lets the rest of this test run on one SVID.
    let ttl = Duration::from_secs(40);
    let orders_entry = at_orders.register(|entry| Entry { ttl, ..entry });
    let storefront_entry = at_storefront.register(|entry| Entry { ttl, ..entry });
    pair.wait_ready();
    wait_flowing(pair.to_orders);

    let traffic = Traffic::start(pair.to_orders).unwrap();
    let mark = pair.orders.mark();
    let denied = pair.storefront.mark();
    spire.delete(&storefront_entry);
    // SPIRE's agent tells its streams within its interval; nothing that `keep` shows changes then.
    pair.storefront
        .wait_log("that it was denied while it holds an SVID", denied, |line| {
            line.to_string().contains("no identity issued")
        });
    traffic.expect_flowing(Duration::from_secs(1));
    ask_once(pair.to_orders, "kept").unwrap();
    assert!(pair.storefront.is_ready());

    spire.delete(&orders_entry);
    pair.orders
        .wait_record(mark, &[("reason", "identity_change"), ("result", "closed")]);
    pair.orders.wait_not_ready(SOON);
    eventually("the connection is closed", SOON, || traffic.ended());
    let accepted = pair.application.accepted();
    expect_refused(pair.to_orders);
    pair.orders.wait_record(mark, &[("reason", "no_identity")]);
    assert_eq!(pair.application.accepted(), accepted);

    pair.storefront.wait_not_ready(ttl);
    expect_refused(pair.to_orders);
    pair.storefront
        .wait_record(denied, &[("reason", "identity_expired"), ("result", "refused")]);
}

/// The agent dies: everything goes on with the SVIDs in hand, and stops when these end. The agent comes back, with a
/// new socket under the old name: everything heals by itself.
#[test]
fn an_agent_that_dies_and_comes_back() {
    // Not the shared one: other tests would lose their agent too.
    let Some(spire) = Spire::start("example.org") else {
        return;
    };
    let (at_orders, at_storefront) = (
        Workload::new(&spire, "/orders"),
        Workload::new(&spire, "/storefront"),
    );
    let ttl = Duration::from_secs(40);
    for workload in [&at_orders, &at_storefront] {
        workload.register(|entry| Entry { ttl, ..entry });
    }
    let pair = Pair::start(&at_orders, &at_storefront);
    pair.wait_ready();
    wait_flowing(pair.to_orders);
    assert_eq!(pair.orders.metric("svidecar_workload_api_connected"), Some(1.0));

    let traffic = Traffic::start(pair.to_orders).unwrap();
    let (before, mark) = (pair.orders.serial().expect("a serial"), pair.storefront.mark());
    spire.kill_agent();
    eventually("the lost agent shows", SOON, || {
        (pair.orders.metric("svidecar_workload_api_connected") == Some(0.0)).then_some(())
    });
    traffic.expect_flowing(Duration::from_secs(1));
    ask_once(pair.to_orders, "on what is in hand").unwrap();
    assert!(
        pair.orders.is_ready(),
        "an SVID that is valid is enough to be ready"
    );

    pair.orders.wait_not_ready(ttl);
    pair.storefront.wait_not_ready(ttl);
    eventually("the open connection ends with its certificates", SOON, || {
        traffic.ended()
    });
    // Both certificates end at about the same time, and the sidecar that is quicker closes it.
    let why = eventually("one of the two says why it ended", SOON, || {
        let records = [
            pair.orders.records_since(Mark::default()),
            pair.storefront.records_since(mark),
        ]
        .concat();
        records.into_iter().find(|record| record["result"] == "closed")
    });
    assert!(
        ["own_expired", "peer_expired"].contains(&why["reason"].as_str().unwrap()),
        "{why}"
    );
    expect_refused(pair.to_orders);
    pair.storefront
        .wait_record(mark, &[("reason", "identity_expired"), ("result", "refused")]);

    spire.start_agent();
    pair.wait_ready();
    wait_flowing(pair.to_orders);
    assert_eq!(pair.orders.metric("svidecar_workload_api_connected"), Some(1.0));
    assert_ne!(pair.orders.serial(), Some(before));
}

/// Two SPIREs with a trust domain each. A peer of the other one is unknown until its bundle comes, verified with that
/// bundle from then on, and cut off within moments when the bundle goes.
#[test]
fn a_federated_trust_domain() {
    let (Some(spire), Some(partner)) = (Spire::shared(), Spire::start("partner.example")) else {
        return;
    };
    let at_orders = Workload::new(&spire, "/federation/orders");
    let at_storefront = Workload::new(&partner, "/federation/storefront");
    partner.federate_with(&spire);
    at_storefront.register(|entry| Entry {
        federates_with: &["example.org"],
        ..entry
    });
    let entry = at_orders.register(|entry| entry);
    let pair = Pair::start(&at_orders, &at_storefront);
    pair.wait_ready();

    eventually(
        "storefront knows the bundle of orders' trust domain",
        SOON,
        || {
            expect_refused(pair.to_orders);
            let records = pair.orders.records_since(Mark::default());
            records
                .iter()
                .any(|record| record["reason"] == "unknown_trust_domain")
                .then_some(())
        },
    );
    assert_eq!(pair.application.accepted(), 0);

    spire.federate_with(&partner);
    spire.server(&[
        "entry",
        "update",
        "-entryID",
        &entry,
        "-parentID",
        &spire.id("/agent"),
        "-spiffeID",
        &pair.orders_id,
        "-selector",
        &at_orders.copy.selector(),
        "-x509SVIDTTL",
        "60",
        "-federatesWith",
        "spiffe://partner.example",
    ]);
    wait_flowing(pair.to_orders);
    let fields = [
        ("peer_id", pair.storefront_id.as_str()),
        ("verdict", "allow"),
        ("result", "ok"),
    ];
    pair.orders.wait_record(Mark::default(), &fields);

    let traffic = Traffic::start(pair.to_orders).unwrap();
    let mark = pair.orders.mark();
    spire.end_federation_with(&partner);
    pair.orders
        .wait_record(mark, &[("reason", "bundle_change"), ("result", "closed")]);
    eventually("the connection is closed", SOON, || traffic.ended());
    expect_refused(pair.to_orders);
    pair.orders
        .wait_record(mark, &[("reason", "unknown_trust_domain"), ("result", "refused")]);
}
