//! Every panel shows what happens, while it happens.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::driver::Browser;
use crate::expect_clean;
use crate::scene::{POLICY, REPORTS, STOREFRONT, Scene, TOKEN, Talk};
use crate::support::process::Mark;
use crate::support::{SOON, eventually};

/// A number in the text of an element: what grows.
fn number(browser: &Browser, selector: &str) -> f64 {
    let text = browser.text(selector);
    let digits: String = text
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(|c| c.is_ascii_digit() || [',', '.'].contains(c))
        .filter(|c| *c != ',')
        .collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number in `{selector}`: `{text}`"))
}

/// The selector of the row of a table whose first column says this.
fn cell(table: &str, row: &str, column: &str) -> String {
    format!(
        "[...document.querySelectorAll('#{table} tbody tr')].find(r => r.textContent.includes('{row}'))?.querySelector('[data-label=\"\
         {column}\"]')?.textContent"
    )
}

#[test]
fn every_panel_shows_the_running_pair_live() {
    let Some(browser) = Browser::start() else { return };
    let scene = Scene::start();
    browser.open(&scene.page());
    browser.wait_text("#ready", "ready");
    browser.wait_text("#own-id", "spiffe://example.org/ns/shop/sa/orders");
    browser.wait_text("#live-text", "live");
    browser.wait_text("#tile-open", "0");

    // Now: who calls and whom we call, with their rates, as soon as they do.
    let talk = Talk::start(scene.from_storefront, 4000);
    let _other = Talk::start(scene.to_payments, 100);
    browser.wait_text("#tile-open", "2");
    browser.wait_text("#map", "shop/storefront");
    browser.wait_text("#map", "shop/payments");
    browser.wait(
        "bytes flow from storefront",
        "/1 open · [1-9][\\d.]* [kM]?B\\/s/.test(document.querySelector('#map a[aria-label*=\"storefront\"]').textContent)",
    );
    browser.wait(
        "bytes flow",
        "/^[1-9]/.test(document.getElementById('tile-rate').textContent)",
    );
    browser.wait_text("#svid-left", "left");
    browser.wait_text("#bundles", "example.org");
    browser.wait_text("#agent", "agent connected");
    assert!(number(&browser, "#tile-denied").abs() < 0.1);
    scene.reports_calls();
    browser.wait_text("#denials", "no_allow_rule");
    browser.wait_text("#tile-denied", "1");
    browser.wait(
        "reports is drawn as refused",
        "document.querySelector('#map a.refused[aria-label*=\"reports\"]')",
    );
    scene.stranger_calls();
    browser.wait_text("#tile-denied", "2");

    // From the picture to the connections of one peer, whose bytes grow.
    browser.click("#map a[aria-label*=\"storefront\"]");
    browser.wait(
        "the panel is shown",
        "!document.getElementById('panel-connections').hidden",
    );
    browser.wait(
        "one row",
        "document.querySelectorAll('#connections-table tbody tr').length === 1",
    );
    browser.wait_text("#connections-table tbody", "storefront-places-orders");
    let before = browser.wait("its bytes", &cell("connections-table", "storefront", "Up"));
    browser.wait(
        "its bytes grow",
        &format!(
            "{} !== {before} && {0}",
            cell("connections-table", "storefront", "Up")
        ),
    );
    browser.fill("#connections-filter", "payments");
    browser.wait_text("#connections-table tbody", "/ns/shop/sa/payments");
    browser.fill("#connections-filter", "nobody at all");
    browser.wait(
        "no row",
        "document.querySelectorAll('#connections-table tbody tr').length === 0",
    );

    // Policy: hits count up, what never hit is marked.
    browser.click("#tab-policy");
    browser.wait_text("#policy-facts", "policy/");
    browser.wait(
        "used",
        &format!("{} === '1'", cell("rules", "storefront-places-orders", "Hits")),
    );
    browser.wait(
        "unused",
        &format!("{} === 'unused'", cell("rules", "batch-reads", "Hits")),
    );
    let more = Talk::start(scene.from_storefront, 10);
    browser.wait(
        "it counts",
        &format!("{} === '2'", cell("rules", "storefront-places-orders", "Hits")),
    );
    browser.click("#rules summary");
    browser.wait_text("#rules pre", "from: [spiffe://example.org/ns/shop/sa/storefront]");
    scene
        .orders
        .set_policy(&POLICY.replace("    from: [s", "    form: [s"));
    let wrong = browser.wait_text("#policy-problem", "form");
    assert!(wrong.contains("policy.yaml:6"), "no line: {wrong}");
    browser.wait_text("#count-policy", "!");
    scene.orders.set_policy(&format!(
        "{POLICY}  - {{ name: fresh, action: allow, from: ['{REPORTS}'] }}\n"
    ));
    browser.wait(
        "the new rule",
        &format!("{} === 'unused'", cell("rules", "fresh", "Hits")),
    );
    browser.wait(
        "no problem any more",
        "document.getElementById('policy-problem').hidden",
    );

    // What the candidate would decide otherwise, and whom the deny list names.
    browser.wait(
        "a divergence",
        &format!("{} === '✓ would allow'", cell("divergences", "reports", "Change")),
    );
    browser.wait(
        "and the other",
        &format!(
            "{} === 'storefront-places-orders'",
            cell("divergences", "storefront", "Now by")
        ),
    );
    browser.wait_text("#deny-entries tbody", "stolen-laptop");

    // Health: what is in use, how long handshakes took.
    browser.click("#tab-health");
    browser.wait_text("#conditions", "orders=");
    browser.wait_text("#limits li .number", "3 of ");
    drop(more);
    browser.wait_text("#limits li .number", "2 of ");
    browser.wait_text("#histograms", "handshake");
    browser.wait_text("#listeners", "no_allow_rule");
    browser.wait_text("#process", "of a core");
    browser.wait_text("#log-level", "info");
    // The audit log: written, with all that was decided so far.
    browser.wait_text("#audit-state", "✓ written");
    let audit = browser.wait_text("#audit", "audit.jsonl");
    assert!(audit.contains("new connections are refused"), "{audit}");
    let head = scene.orders.get("/api/v1/status").unwrap().json()["audit"]["head"].clone();
    assert_eq!(head.as_str().map(str::len), Some(64), "{head}");
    browser.wait(
        "its head",
        "/[0-9a-f]{16}… \\([0-9]+\\)/.test(document.getElementById('audit').textContent)",
    );
    browser.wait(
        "its records",
        "/Records[1-9]/.test(document.getElementById('audit').textContent)",
    );
    assert_eq!(browser.text("#count-health"), "");

    // The SVID is rotated, and the page shows another one.
    browser.click("#tab-now");
    let serial = browser.text("#svid-facts .mono");
    scene.api.handle().rotate().unwrap();
    browser.wait(
        "another serial",
        &format!("document.querySelector('#svid-facts .mono').textContent !== {serial:?}"),
    );
    browser.wait(
        "both in the list",
        "document.querySelectorAll('#rotations tbody tr').length >= 2",
    );
    browser.wait_text("#announce", "SVID was rotated");
    assert!(talk.answered() > 0 && !talk.ended());
    expect_clean(&browser, &scene, &[]);
}

#[test]
fn a_denial_is_explained_down_to_the_rule_and_asked_again() {
    let Some(browser) = Browser::start() else { return };
    let scene = Scene::start();
    scene.reports_calls();
    scene.stranger_calls();
    // What happened before the page was opened is there, too.
    browser.open(&scene.page());
    browser.wait_text("#denials", "no_allow_rule");
    browser.click("#denials li:last-child a");
    browser.wait_text("#decision-title", "Denied: shop/reports");
    browser.wait_text("#decision-nearest h3", "storefront-places-orders");
    browser.wait_text(
        "#decision-nearest ul",
        "is not spiffe://example.org/ns/shop/sa/storefront",
    );
    // The rule's text, with the line that did not hold.
    browser.wait_text(
        "#decision-nearest pre .unmet",
        "from: [spiffe://example.org/ns/shop/sa/storefront]",
    );
    let unmarked = browser.text("#decision-nearest pre .line:not(.unmet)");
    assert!(unmarked.contains("storefront-places-orders"), "{unmarked}");
    let link = browser.wait("its link", "location.hash");
    assert!(link.as_str().unwrap().starts_with("#decision="), "{link}");

    // What if: the same question, and then the one that is let in.
    browser.click("#decision-ask");
    browser.wait_text("#whatif-answer", "It would be denied");
    browser.wait_text("#whatif-answer h3", "storefront-places-orders");
    let asked = browser.eval("return document.getElementById('whatif-from').value");
    assert_eq!(asked, REPORTS);
    browser.fill("#whatif-from", STOREFRONT);
    browser.click("#whatif-form [type=submit]");
    browser.wait_text("#whatif-answer", "It would be let in by storefront-places-orders");
    browser.fill("#whatif-source", "192.0.2.1");
    browser.click("#whatif-form [type=submit]");
    browser.wait_text("#whatif-answer", "192.0.2.1 is not in");

    // A certificate: which, and what the standard says.
    browser.click("#decision-close");
    browser.wait("closed", "document.getElementById('decision').hidden");
    browser.fill("#decisions-filter", "untrusted_chain");
    browser.wait(
        "one row",
        "document.querySelectorAll('#decisions-table tbody tr').length === 1",
    );
    browser.click("#decisions-table tbody a");
    browser.wait_text("#decision-check", "SPIFFE-ID 3");

    // Paused, nothing comes in; what came is counted, and comes with the end of the pause.
    browser.click("#decision-close");
    browser.fill("#decisions-filter", "reports");
    browser.wait(
        "one row",
        "document.querySelectorAll('#decisions-table tbody tr').length === 1",
    );
    browser.click("#decisions-pause");
    scene.reports_calls();
    browser.wait_text("#decisions-pause", "1 new");
    assert_eq!(
        browser.eval("return document.querySelectorAll('#decisions-table tbody tr').length"),
        1
    );
    browser.click("#decisions-pause");
    browser.wait(
        "two rows",
        "document.querySelectorAll('#decisions-table tbody tr').length === 2",
    );

    // The link alone leads there, in a window that knows nothing.
    browser.open("about:blank");
    browser.open(&format!("{}{}", scene.page(), link.as_str().unwrap()));
    browser.wait_text("#decision-nearest h3", "storefront-places-orders");
    expect_clean(&browser, &scene, &[]);
}

#[test]
fn a_connection_is_closed_with_the_token_and_not_without() {
    let Some(browser) = Browser::start() else { return };
    let scene = Scene::start();
    let kept = Talk::start(scene.to_payments, 10);
    let closed = Talk::start(scene.from_storefront, 10);
    browser.open(&format!("{}#connections=storefront", scene.page()));
    browser.wait(
        "one row",
        "document.querySelectorAll('#connections-table tbody tr').length === 1",
    );
    // Asked, and not done.
    browser.click("#connections-table tbody button");
    browser.wait_text("#ask-text", STOREFRONT);
    browser.click("#ask-no");
    // With what no header can hold: it is not sent, and not kept.
    browser.click("#connections-table tbody button");
    browser.fill("#ask-token", "schlüssel-zum-schloss");
    browser.click("#ask-yes");
    browser.wait_text("#ask-problem", "visible ASCII");
    browser.click("#ask-no");
    // With a wrong token.
    browser.click("#connections-table tbody button");
    browser.fill("#ask-token", "not the token at all");
    browser.click("#ask-yes");
    browser.wait_text("#ask-problem", "token");
    assert!(!closed.ended());
    // With the token: it ends, and that is told.
    let mark = scene.orders.mark();
    browser.fill("#ask-token", TOKEN);
    browser.click("#ask-yes");
    browser.wait("done", "!document.getElementById('ask').open");
    scene
        .orders
        .wait_record(mark, &[("reason", "closed_by_operator")]);
    eventually("the connection ends", SOON, || closed.ended().then_some(()));
    browser.wait(
        "no row",
        "document.querySelectorAll('#connections-table tbody tr').length === 0",
    );
    assert!(!kept.ended());

    // It was asked for once, and is in memory alone.
    browser.click("#tab-health");
    browser.wait_text("#log-level", "info");
    browser.click("#log-change");
    assert_eq!(
        browser.eval("return document.getElementById('ask-token-row').hidden"),
        true
    );
    browser.fill("#ask-value", "info,svidecar::identity=debug");
    browser.click("#ask-yes");
    browser.wait_text("#log-level", "svidecar::identity=debug");
    scene.orders.wait_log("the change", Mark::default(), |line| {
        line["target"] == "svidecar::admin" && line["door"] == "token"
    });
    let elsewhere = format!(
        "return JSON.stringify([{{...localStorage}}, {{...sessionStorage}}, document.cookie, location.href]).includes('{TOKEN}') || \
         document.documentElement.outerHTML.includes('{TOKEN}')"
    );
    assert_eq!(browser.eval(&elsewhere), false);
    browser.click("#forget-token");
    browser.click("#log-change");
    assert_eq!(
        browser.eval("return document.getElementById('ask-token-row').hidden"),
        false
    );
    browser.click("#ask-no");
    expect_clean(&browser, &scene, &["401 (Unauthorized)"]);

    // Where no change is let in, there is no button, and it says why.
    browser.open(&format!("http://{}/#connections", scene.storefront.admin()));
    browser.wait_text("#connections-note", "admin.token_file");
    let _other = Talk::start(scene.from_storefront, 10);
    browser.wait(
        "a row",
        "document.querySelectorAll('#connections-table tbody tr').length === 1",
    );
    let button = "return document.querySelector('#connections-table tbody button').checkVisibility()";
    assert_eq!(browser.eval(button), false);
}

#[test]
fn it_says_when_the_sidecar_is_gone() {
    let Some(browser) = Browser::start() else { return };
    let mut scene = Scene::start();
    // As many listen as may: it says so, and comes when there is a place.
    let others: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut other = TcpStream::connect(scene.orders.admin()).unwrap();
            let host = scene.orders.admin();
            write!(
                other,
                "GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"
            )
            .unwrap();
            other.read_exact(&mut [0; 12]).unwrap();
            other
        })
        .collect();
    browser.open(&scene.page());
    browser.wait_text("#banner", "8 listen already");
    drop(others);
    browser.wait_text("#live-text", "live");
    browser.wait("no banner", "document.getElementById('banner').hidden");
    scene.orders.terminate(SOON);
    browser.wait_text("#live-text", "reconnecting");
    browser.wait_text("#banner", "What you see is");
    browser.wait_text("#announce", "lost");
    browser.wait_text("#banner", "trying again");
    expect_clean(
        &browser,
        &scene,
        &[
            "503 (Service Unavailable)",
            "ERR_CONNECTION_REFUSED",
            "ERR_INCOMPLETE_CHUNKED",
            "ERR_EMPTY_RESPONSE",
        ],
    );
}
