//! The page in a real browser: what it shows is what the running sidecars do, everybody can use it, and nothing leaves
//! the host.
//!
//! Needs `chromium` and `chromedriver` on PATH; says so and is skipped where they are not. Screenshots are written to the
//! folder that `SVIDECAR_SCREENSHOTS` names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fall over"
)]

#[path = "../support/mod.rs"]
mod support;

// What the other integration tests stand on, of which this takes a part.
#[allow(dead_code)]
#[path = "../sidecar/peers.rs"]
mod peers;
#[allow(dead_code)]
#[path = "../sidecar/plain.rs"]
mod plain;
#[allow(dead_code)]
#[path = "../sidecar/world.rs"]
mod world;

mod driver;
mod everybody;
mod exact;
mod live;
mod scene;

use std::path::PathBuf;

use driver::Browser;
use scene::Scene;

/// Where pictures go, if anywhere.
fn pictures() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("SVIDECAR_SCREENSHOTS")?);
    std::fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

/// Nothing was wrong in the browser, but for what the test caused: no error and no violation of the content security policy
/// in the console, and no request to anybody but the page's own endpoint.
fn expect_clean(browser: &Browser, scene: &Scene, caused: &[&str]) {
    let console: Vec<_> = browser
        .console()
        .into_iter()
        .filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG")
        .filter(|entry| {
            let message = entry["message"].as_str().unwrap();
            !caused.iter().any(|part| message.contains(part))
        })
        .collect();
    assert!(console.is_empty(), "{console:#?}");
    let requests = browser.requests();
    assert!(
        requests.iter().any(|url| url.contains("/api/v1/status")),
        "nothing was recorded: {requests:?}"
    );
    let page = scene.page();
    let foreign: Vec<_> = requests
        .iter()
        // What is no address: the icon, which stands in the page itself, and parts of the browser's first empty window.
        .filter(|url| !["data:", "chrome:"].iter().any(|own| url.starts_with(own)))
        .filter(|url| !url.starts_with(&page))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}
