//! The page for people at `/`. Plain HTML without a script, so that the content security policy can forbid all but
//! our own style sheet.

use std::fmt::Write as _;

use crate::lifecycle::readiness::Snapshot;

/// Where the style sheet is.
pub(super) const STYLE_PATH: &str = "/style.css";
/// The style sheet.
pub(super) const STYLE: &str = include_str!("style.css");
/// Nothing but our own style sheet; sent with every answer.
pub(super) const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(super) fn render(snapshot: &Snapshot) -> String {
    let (class, state) = if snapshot.ready {
        ("good", "ready")
    } else {
        ("bad", "not ready")
    };
    let mut conditions = String::new();
    for condition in &snapshot.conditions {
        let (class, word) = if condition.ok {
            ("good", "ok")
        } else {
            ("bad", "failing")
        };
        let _ = writeln!(
            conditions,
            "<tr><th scope=\"row\">{}</th><td class=\"{class}\">{word}</td><td>{}</td></tr>",
            escape(condition.name),
            escape(&condition.detail)
        );
    }
    let mut links = String::new();
    for (path, what) in LINKS {
        let _ = writeln!(links, "<dt><a href=\"{path}\">{path}</a></dt><dd>{what}</dd>");
    }
    // The conditions come last: their text is not ours, and could hold a placeholder.
    include_str!("index.html")
        .replace("{{class}}", class)
        .replace("{{state}}", state)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{links}}", &links)
        .replace("{{conditions}}", &conditions)
}

const LINKS: [(&str, &str); 8] = [
    ("/readyz", "whether it serves, and if not, why"),
    ("/livez", "whether the process works"),
    ("/startupz", "whether it was ready once"),
    ("/metrics", "for Prometheus"),
    ("/api/v1/identity", "our SVIDs and the bundles we trust"),
    ("/api/v1/policy", "the policy in force"),
    ("/api/v1/connections", "connections that are open"),
    ("/api/v1/decisions", "the last verdicts, and why"),
];

/// Text for HTML content and quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::readiness::ConditionState;

    #[test]
    fn details_are_text_and_never_markup() {
        let page = render(&Snapshot {
            ready: false,
            started: false,
            conditions: vec![ConditionState {
                name: "identity",
                ok: false,
                detail: "<script>'\"&{{state}}".to_owned(),
            }],
        });
        assert!(page.contains("&lt;script&gt;&#39;&quot;&amp;{{state}}"), "{page}");
        assert!(!page.contains("<script"));
        assert!(
            page.contains("<h1>svidecar <span class=\"state bad\">not ready</span></h1>"),
            "{page}"
        );
    }
}
