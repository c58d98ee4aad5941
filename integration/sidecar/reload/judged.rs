//! Open connections are judged again by what their listener has become.

use std::time::{Duration, Instant};

use rustls::AlertDescription;

use super::{ALL, config, in_force, rewrite, scene, write};
use crate::open_connections::{Open, OpenOut};
use crate::peers::expect_alert;
use crate::plain::{Door, expect_reset};
use crate::support::net::free_address;
use crate::world::{
    Api, Identity, InboundSetup, ORDERS, OutboundSetup, REPORTS, STOREFRONT, STOREFRONT_ONLY, TRUST_PARTNER,
    authority,
};

/// What a change may take, with something on top for a machine that is busy with other tests.
const IN_TIME: Duration = Duration::from_secs(5);

#[test]
fn a_server_that_the_peer_list_names_no_more_is_left() {
    let scene = OutboundSetup::default().start();
    let mut open = OpenOut::through(&scene, &scene.api.peer(ORDERS));
    // A longer list ends nobody.
    let mark = scene.sidecar.mark();
    let longer = format!("peer: [\"{ORDERS}\", \"{REPORTS}\"]");
    rewrite(&scene.sidecar, &format!("peer: [\"{ORDERS}\"]"), &longer);
    assert_eq!(in_force(&scene.sidecar, mark)["changed"], "to-orders");
    let mut reports = OpenOut::through(&scene, &scene.api.peer(REPORTS));
    open.must_flow();

    let mark = scene.sidecar.mark();
    rewrite(&scene.sidecar, &longer, &format!("peer: [\"{REPORTS}\"]"));
    let begun = Instant::now();
    expect_alert(&mut open.server, AlertDescription::AccessDenied);
    expect_reset(&mut open.app);
    assert!(begun.elapsed() < 2 * IN_TIME, "open for {:?}", begun.elapsed());
    let record = scene
        .sidecar
        .wait_record(mark, &[("reason", "policy_change"), ("peer_id", ORDERS)]);
    assert!(record["detail"].as_str().unwrap().contains("`peer`"), "{record}");
    reports.must_flow();
}

#[test]
fn a_peer_whose_trust_domain_the_listener_accepts_no_more_is_cut() {
    let partner = authority("partner.example");
    let api = Api::start(&[ORDERS]);
    api.handle()
        .federate(partner.trust_domain(), Some(partner.root().to_vec()))
        .unwrap();
    let scene = InboundSetup {
        policy: Some(ALL),
        listener: TRUST_PARTNER,
        ..InboundSetup::default()
    }
    .start_with(api);
    let concerned = Open::through(&scene, &Identity::of(&partner, "spiffe://partner.example/shop"));
    let mut control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    rewrite(&scene.sidecar, TRUST_PARTNER, "");
    in_force(&scene.sidecar, mark);
    concerned.must_be_cut(AlertDescription::AccessDenied);
    scene.sidecar.wait_record(mark, &[("reason", "policy_change")]);
    control.must_flow();
}

#[test]
fn a_listener_that_comes_back_is_judged_as_one_that_has_changed() {
    let scene = scene("limits: { drain_timeout: 1h }\n");
    let sidecar = &scene.sidecar;
    let good = config(sidecar);
    let mut storefront = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let reports = Open::through(&scene, &scene.api.peer(REPORTS));
    let mark = sidecar.mark();
    let (elsewhere, app) = (free_address(), Door::open());
    let other = good.replace("name: orders", "name: other");
    write(
        sidecar,
        &other.replace(&scene.tls.to_string(), &elsewhere.to_string()),
    );
    assert_eq!(in_force(sidecar, mark)["removed"], "orders");
    let mark = sidecar.mark();
    write(
        sidecar,
        &good.replace(&scene.app.addr().to_string(), &app.addr().to_string()),
    );
    assert_eq!(in_force(sidecar, mark)["added"], "orders");
    sidecar.wait_log("that nobody is cut", mark, |line| {
        line["message"] == "a removed listener is back; its connections stay"
    });
    storefront.must_flow();
    sidecar.set_policy(STOREFRONT_ONLY);
    sidecar.wait_record(mark, &[("reason", "policy_change")]);
    reports.must_be_cut(AlertDescription::AccessDenied);
    storefront.must_flow();
}
