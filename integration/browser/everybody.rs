//! Light and dark, a narrow screen, the keyboard alone, enough contrast.

use crate::driver::{Browser, Scheme};
use crate::peers::Client;
use crate::scene::{Scene, Talk, guest, unwelcome};
use crate::support::SOON;
use crate::{expect_clean, pictures};

const PANELS: [&str; 5] = ["now", "connections", "decisions", "policy", "health"];

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
const RIGHT: char = '\u{e014}';

/// The texts whose contrast with what is behind them is below what WCAG 2.2 asks for (1.4.3, AA).
const TOO_FAINT: &str = "
const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = rgba(getComputedStyle(node).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255, 255];
};
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text; (text = walker.nextNode()); ) {
  const node = text.parentElement;
  if (!text.data.trim() || !node.checkVisibility() || node.closest('.hidden, .skip, script, noscript, option')) continue;
  const style = getComputedStyle(node);
  const drawn = node instanceof SVGElement;
  const front = rgba(drawn ? style.fill : style.color);
  const [a, b] = [light(front), light(behind(node))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${node.tagName} ${node.className} ${text.data.slice(0, 40)}`);
}
return faint;
";

fn go(browser: &Browser, panel: &str) {
    browser.eval(&format!("location.hash = '{panel}'"));
    browser.wait(
        "the panel",
        &format!("!document.getElementById('panel-{panel}').hidden"),
    );
    browser.wait(
        "something in it",
        &format!("document.getElementById('panel-{panel}').querySelector('tbody tr, #conditions li')"),
    );
}

/// Somebody of each kind has called.
fn lively(scene: &Scene) -> (Vec<Talk>, Vec<Client>) {
    let serial = scene.orders.serial().unwrap();
    scene.api.handle().rotate().unwrap();
    scene.orders.wait_rotation(&serial, SOON);
    let talks = [
        (scene.from_storefront, 9000),
        (scene.from_storefront, 700),
        (scene.to_payments, 2500),
    ];
    let talks = talks.map(|(at, letters)| Talk::start(at, letters)).into();
    for _ in 0..3 {
        scene.reports_calls();
    }
    scene.stranger_calls();
    unwelcome(scene, "spiffe://example.org/ns/shop/sa/legacy-sync");
    let guests =
        ["mobile", "partners"].map(|name| guest(scene, &format!("spiffe://example.org/ns/edge/sa/{name}")));
    (talks, guests.into())
}

#[test]
fn light_dark_and_narrow_with_enough_contrast_and_nothing_to_scroll_sideways() {
    let Some(browser) = Browser::start() else { return };
    let scene = Scene::start();
    let _callers = lively(&scene);
    for scheme in Scheme::BOTH {
        browser.prefer(scheme, false);
        browser.size(1360, 900);
        browser.open(&scene.page());
        browser.wait_text("#denials", "no_allow_rule");
        browser.wait(
            "bytes flow",
            "/^[1-9]/.test(document.getElementById('tile-rate').textContent)",
        );
        let ground = browser.eval("return getComputedStyle(document.body).backgroundColor");
        let expected = match scheme {
            Scheme::Light => "rgb(243, 245, 247)",
            Scheme::Dark => "rgb(12, 17, 22)",
        };
        assert_eq!(ground, expected);
        if pictures().is_some() {
            // With something of the past to be seen.
            let points =
                "document.querySelector('#spark-rate .line').getAttribute('points').split(' ').length > 12";
            browser.wait("a past", points);
        }
        for (width, height, form) in [(1360, 790, "wide"), (360, 780, "narrow")] {
            browser.size(width, height);
            for panel in PANELS {
                go(&browser, panel);
                if panel == "decisions" {
                    browser.click("#decisions-table a.verdict.deny");
                    browser.wait("explained", "document.querySelector('#decision-body .facts dd')");
                }
                let sideways = "return document.documentElement.scrollWidth - window.innerWidth";
                assert_eq!(browser.eval(sideways), 0, "{panel} {form}");
                let faint = browser.eval(TOO_FAINT);
                assert_eq!(faint, serde_json::json!([]), "{panel} {form} {scheme:?}");
                if let Some(folder) = pictures() {
                    browser.screenshot(&folder.join(format!("{panel}-{form}-{}.png", scheme.name())));
                }
            }
        }
    }
    // Whoever asks for less motion gets none.
    browser.size(1360, 900);
    go(&browser, "now");
    let moving = browser.eval("return document.getAnimations().length");
    assert_eq!(moving, 0);
    // The switch overrules the system, and is remembered.
    browser.click("#theme");
    browser.wait_text("#theme", "light");
    browser.wait(
        "light it is",
        "getComputedStyle(document.body).backgroundColor === 'rgb(243, 245, 247)'",
    );
    browser.open("about:blank");
    browser.open(&scene.page());
    browser.wait_text("#theme", "light");
    browser.wait(
        "light it stays",
        "getComputedStyle(document.body).backgroundColor === 'rgb(243, 245, 247)'",
    );
    expect_clean(&browser, &scene, &[]);
}

#[test]
fn by_the_keyboard_alone_each_panel_and_an_explanation_are_reached() {
    let Some(browser) = Browser::start() else { return };
    let scene = Scene::start();
    scene.reports_calls();
    browser.open(&scene.page());
    browser.wait_text("#denials", "no_allow_rule");
    let tab_to = |what: &str, holds: &str| {
        for _ in 0..60 {
            browser.press(&[TAB]);
            // What is drawn anew under the focus may take a moment to show it again.
            browser.wait(
                &format!("the focus is seen on its way to {what}"),
                "(() => {
                    const e = document.activeElement, s = getComputedStyle(e), r = e.querySelector('rect');
                    return e === document.body || s.outlineStyle !== 'none'
                        || (r !== null && parseFloat(getComputedStyle(r).strokeWidth) > 2);
                })()",
            );
            if browser.eval(&format!("const e = document.activeElement; return {holds}")) == true {
                return;
            }
        }
        panic!("{what} is not reached");
    };
    tab_to("the skip link", "e.className === 'skip'");
    tab_to("the tabs", "e.getAttribute('role') === 'tab'");
    for panel in PANELS {
        let chosen = format!(
            "document.activeElement.id === 'tab-{panel}' && document.activeElement.ariaSelected === 'true' && \
             !document.getElementById('panel-{panel}').hidden"
        );
        browser.wait(&format!("the panel {panel}"), &chosen);
        browser.press(&[RIGHT]);
    }
    // Round to the first again, and into it.
    browser.wait("round", "document.activeElement.id === 'tab-now'");
    tab_to("the panel", "e.id === 'panel-now'");
    tab_to(
        "a peer in the picture",
        "e.closest('#map') !== null && e.classList.contains('peer')",
    );
    tab_to("a denial", "e.closest('#denials') !== null");
    browser.press(&[ENTER]);
    browser.wait_text("#decision-nearest h3", "storefront-places-orders");
    browser.wait(
        "the focus is on it",
        "document.activeElement.id === 'decision-title'",
    );
    // Sorted by the keyboard, and said so.
    browser.eval("location.hash = 'policy'");
    browser.wait("rules", "document.querySelector('#rules tbody tr')");
    browser.eval("document.getElementById('tab-policy').focus()");
    tab_to("a header", "e.dataset.column === 'name'");
    browser.press(&[ENTER]);
    browser.wait(
        "the order",
        "document.activeElement.closest('th').ariaSort === 'ascending' && \
         document.querySelector('#rules tbody tr').textContent.includes('default') === false",
    );
    expect_clean(&browser, &scene, &[]);
}
