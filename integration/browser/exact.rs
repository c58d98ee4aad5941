//! What the page must not mix up: a denial and a report, one peer and another of a like name, one question and the next.

use crate::driver::Browser;
use crate::expect_clean;
use crate::scene::{REPORTS, Scene, TOKEN, Talk, unwelcome};
use crate::support::net::free_address;

#[test]
fn what_is_only_reported_is_no_denial() {
    let Some(browser) = Browser::start() else { return };
    // Whom the audit log is sent on to is away, which is to be seen, too.
    let away = format!(
        ", sinks: [{{ name: away, otlp: {{ endpoint: 'http://{}' }} }}]",
        free_address()
    );
    let scene = Scene::with("audit", &away);
    browser.open(&scene.page());
    browser.wait_text("#live-text", "live");
    scene.reports_is_let_in();
    browser.wait_text("#denials", "○ reported");
    browser.wait_text("#map", "1 reported");
    assert_eq!(browser.text("#tile-denied"), "0");
    assert_eq!(
        browser.eval("return document.querySelector('#map a.refused, #map .edge.deny')"),
        serde_json::Value::Null
    );
    browser.click("#tab-decisions");
    let verdict = "document.querySelector('#decisions-table tbody a.verdict')?.textContent";
    browser.wait("it is marked", &format!("{verdict} === '○ reported'"));
    browser.click("#decisions-table tbody a.verdict");
    browser.wait_text("#decision-title", "○ Reported: shop/reports");
    browser.wait_text("#decision-body", "it has no effect");
    browser.click("#tab-health");
    browser.wait(
        "the sink's lag and why",
        "/Sink away[1-9][0-9]* records? behind; ./.test(document.getElementById('audit').textContent)",
    );
    browser.wait_text("#count-health", "!");
    // A certificate that does not pass is refused whatever the mode says.
    scene.stranger_calls();
    browser.click("#tab-now");
    browser.wait_text("#tile-denied", "1");
    expect_clean(&browser, &scene, &[]);
}

#[test]
fn a_link_to_a_peer_shows_that_peer_alone() {
    let Some(browser) = Browser::start() else { return };
    let scene = Scene::start();
    scene.reports_calls();
    unwelcome(&scene, &format!("{REPORTS}-by-night"));
    browser.open(&scene.page());
    let rows = |number| format!("document.querySelectorAll('#decisions-table tbody tr').length === {number}");
    browser.click("#tab-decisions");
    browser.wait("both", &rows(2));
    browser.click("#tab-now");
    browser.click(&format!("#map a[aria-label^=\"{REPORTS}:\"]"));
    browser.wait("one of them", &rows(1));
    browser.wait(
        "the filter says so",
        &format!("document.getElementById('decisions-filter').value === 'peer={REPORTS}'"),
    );
    // Words of one's own are looked for anywhere.
    browser.fill("#decisions-filter", "REPORTS listener=orders");
    browser.wait("both again", &rows(2));
    browser.fill("#decisions-filter", "reports listener=order");
    browser.wait("none", &rows(0));
    expect_clean(&browser, &scene, &[]);
}

#[test]
fn an_answer_that_comes_late_closes_no_other_question() {
    let Some(browser) = Browser::start() else { return };
    let scene = Scene::start();
    let _talk = Talk::start(scene.from_storefront, 10);
    browser.open(&format!("{}#connections", scene.page()));
    browser.wait(
        "one row",
        "document.querySelectorAll('#connections-table tbody tr').length === 1",
    );
    browser.eval(
        "const real = window.fetch; window.fetch = (path, options) => options.method === 'POST' ? new Promise((done) => { \
         window.release = () => done(new Response('{}')); }) : real(path, options);",
    );
    browser.click("#connections-table tbody button");
    browser.fill("#ask-token", TOKEN);
    browser.click("#ask-yes");
    browser.wait("it was sent", "window.release");
    browser.click("#ask-no");
    browser.click("#connections-table tbody button");
    browser.eval("window.release()");
    browser.wait_text("#announce", "Done: Close connection");
    assert_eq!(browser.eval("return document.getElementById('ask').open"), true);
    assert_eq!(
        browser.eval("return document.getElementById('ask-yes').disabled"),
        false
    );
    browser.click("#ask-no");
    expect_clean(&browser, &scene, &[]);
}
