//! The page for people at `/`: static files, built into the binary. What it shows comes from the API like anybody
//! else's answers, over the stream of `/api/v1/status`.
//!
//! It is plain HTML, CSS and JavaScript modules that browsers take as they are: what is audited is what runs. Nothing of it
//! comes from elsewhere, nothing in it is made of what a peer sends, and it shows such text as text alone.

/// What the page may do: run and draw what is served here, ask this endpoint. No inline script or style, no other host.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug)]
pub(super) struct Asset {
    /// Where it is asked for.
    pub(super) path: &'static str,
    /// Its media type.
    pub(super) content_type: &'static str,
    /// All of it.
    pub(super) body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The file at `/NAME`, which is the one of that name in `page/`.
macro_rules! file {
    ($name:literal, $content_type:expr) => {
        Asset {
            path: concat!("/", $name),
            content_type: $content_type,
            body: include_str!(concat!("page/", $name)),
        }
    };
}

const ASSETS: [Asset; 21] = [
    Asset {
        path: "/",
        content_type: HTML,
        body: include_str!("page/index.html"),
    },
    file!("style.css", CSS),
    file!("theme.js", SCRIPT),
    file!("app.js", SCRIPT),
    file!("actions.js", SCRIPT),
    file!("connections.js", SCRIPT),
    file!("decisions.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("format.js", SCRIPT),
    file!("health.js", SCRIPT),
    file!("map.js", SCRIPT),
    file!("now.js", SCRIPT),
    file!("overview.js", SCRIPT),
    file!("policy.js", SCRIPT),
    file!("route.js", SCRIPT),
    file!("ruletext.js", SCRIPT),
    file!("state.js", SCRIPT),
    file!("stream.js", SCRIPT),
    file!("table.js", SCRIPT),
    file!("verdict.js", SCRIPT),
    file!("whatif.js", SCRIPT),
];

/// The file at this path.
pub(super) fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests;
