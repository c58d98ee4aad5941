//! Holds the code to the layering that ARCHITECTURE.md describes: which module may use which, which are pure, and
//! where `unsafe` may stand. Reads the sources; needs nothing built.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with those it may use. What a row does not name, the module must not know.
const MAY_USE: &[(&str, &str)] = &[
    ("clock", ""),
    ("build_info", ""),
    ("sys", ""),
    ("spiffe", ""),
    ("lifecycle", ""),
    ("proxy_protocol", ""),
    ("reload", ""),
    ("record", "clock spiffe"),
    ("yaml", ""),
    ("telemetry", "build_info clock config record redaction spiffe"),
    ("redaction", "config record"),
    ("config", "record spiffe yaml"),
    ("sandbox", "config sys"),
    ("policy", "clock config record spiffe yaml"),
    ("workload_api", "clock spiffe sys"),
    ("identity", "clock config spiffe workload_api"),
    ("listener", "record sys"),
    ("tls", "clock config identity record spiffe sys"),
    ("authorize", "config policy record spiffe"),
    ("upstream", "authorize config record sys"),
    ("forward", "authorize record sys telemetry tls"),
    (
        "connection",
        "authorize clock config forward identity lifecycle proxy_protocol record spiffe sys telemetry tls upstream",
    ),
    (
        "audit",
        "clock config identity record redaction spiffe telemetry tls",
    ),
    ("handover", "config sys"),
    ("supervise", "app audit config handover sys telemetry"),
    ("worker", "connection lifecycle listener sys upstream"),
    ("admin", "lifecycle record sys telemetry"),
    (
        "app",
        "admin audit authorize build_info clock config connection handover identity lifecycle policy record redaction reload sandbox spiffe sys telemetry tls upstream worker yaml",
    ),
    ("intercept", "config sys"),
    ("trial", "clock config policy record spiffe yaml"),
    ("inject", "config intercept yaml"),
    (
        "cli",
        "app audit build_info clock config handover identity inject intercept policy record redaction spiffe supervise sys tls trial workload_api yaml",
    ),
];

/// Of these, config may be used for its plain values alone.
const SETTINGS_ONLY: &[&str] = &[
    "tls",
    "authorize",
    "upstream",
    "connection",
    "identity",
    "audit",
    "redaction",
    "telemetry",
    "sandbox",
    "intercept",
];

/// Modules and files that decide without asking the world: no socket, file, clock, randomness, runtime.
const PURE: &[&str] = &[
    "spiffe",
    "policy",
    "trial",
    "config",
    "proxy_protocol",
    "intercept/rules.rs",
    "intercept/netlink.rs",
    "record.rs",
    "record",
    "redaction",
    "redaction.rs",
    "yaml",
    "inject",
    "identity/rotation.rs",
    "identity/update.rs",
    "identity/material.rs",
    "tls/record.rs",
    "tls/session.rs",
    "tls/renewal",
    "tls/renewal.rs",
    "audit/chain.rs",
    "audit/checkpoint.rs",
    "handover/message.rs",
    "supervise/machine.rs",
    "sandbox/plan.rs",
];
/// Files inside pure modules whose work it is to read files or to ask for the surroundings.
const IMPURE: &[&str] = &["policy/load.rs", "config/file.rs", "config/mod.rs"];
const IMPURITIES: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::env",
    "std::thread",
    "::now()",
    "fastrand",
    "tracing::",
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let is_test = |path: &str| {
        ["tests", "testing.rs", "forge.rs"]
            .iter()
            .any(|mark| path.contains(mark))
    };
    found
        .iter()
        .map(|path| {
            (
                path.strip_prefix(&root).unwrap().display().to_string(),
                fs::read_to_string(path).unwrap(),
            )
        })
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path, code(&text)))
        .collect()
}

/// The text without comments and without its test module.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn module(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

fn used(code: &str) -> impl Iterator<Item = (&str, &str)> {
    code.match_indices("crate::").map(|(at, _)| {
        let rest = &code[at + "crate::".len()..];
        let name = &rest[..rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len())];
        (name, rest)
    })
}

#[test]
fn modules_use_only_what_they_may() {
    let table: BTreeMap<&str, BTreeSet<&str>> = MAY_USE
        .iter()
        .map(|(module, uses)| (*module, uses.split_whitespace().collect()))
        .collect();
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let name = module(&path);
        if name == "lib" || name == "main" {
            continue;
        }
        let Some(allowed) = table.get(name) else {
            wrong.push(format!("{path}: module `{name}` has no row in this test's table"));
            continue;
        };
        if code.contains("crate::{") {
            wrong.push(format!(
                "{path}: write `use crate::module::…` one by one, so that this test sees them"
            ));
        }
        // From a module's top file `super` is the crate's root.
        let is_top = path == format!("{name}.rs") || path == format!("{name}/mod.rs");
        if is_top && code.contains("super::") {
            wrong.push(format!(
                "{path}: `super` is the crate here; write `crate::module::…`"
            ));
        }
        for (other, rest) in used(&code) {
            if other == name || !table.contains_key(other) {
                continue;
            }
            if !allowed.contains(other) {
                wrong.push(format!("{path}: `{name}` may not use `{other}`"));
            }
            if other == "config" && SETTINGS_ONLY.contains(&name) && !rest.starts_with("config::settings") {
                wrong.push(format!(
                    "{path}: `{name}` may use `config::settings` and no more of config"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_of_the_table_is_a_module_and_no_two_use_each_other() {
    let modules: BTreeSet<String> = sources()
        .iter()
        .map(|(path, _)| module(path).to_owned())
        .collect();
    for (name, uses) in MAY_USE {
        assert!(modules.contains(*name), "`{name}` is no module any more");
        for other in uses.split_whitespace() {
            let back = MAY_USE.iter().find(|(n, _)| *n == other).unwrap().1;
            assert!(
                !back.split_whitespace().any(|n| n == *name),
                "`{name}` and `{other}` use each other"
            );
        }
    }
}

#[test]
fn what_decides_asks_nobody() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let is_pure = PURE
            .iter()
            .any(|p| path == *p || path.starts_with(&format!("{}/", p.trim_end_matches(".rs"))));
        if !is_pure || IMPURE.contains(&path.as_str()) {
            continue;
        }
        for impurity in IMPURITIES.iter().filter(|i| code.contains(**i)) {
            wrong.push(format!("{path}: `{impurity}` in a pure part"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_only_in_sys() {
    for (path, code) in sources() {
        let found = code
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .any(|word| word == "unsafe");
        assert!(!found || path.starts_with("sys/"), "{path} holds `unsafe`");
    }
}

#[test]
fn a_permit_is_made_in_one_place() {
    for (path, code) in sources() {
        let made = code.contains("Permit {") && !code.contains("struct Permit {");
        assert!(!made || path == "authorize.rs", "{path} makes a permit");
    }
}
