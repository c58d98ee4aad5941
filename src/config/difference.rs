//! What is different between the settings in force and those of a newer file: which listeners, which sections, and what of
//! it is read at a start alone.

use std::collections::HashMap;
use std::sync::Arc;

use super::settings::{Listener, Log, PolicyMode, Settings};
use crate::record::Direction;

/// What is different. Nothing is, where all of it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Listeners that were not there.
    pub added: Vec<Arc<str>>,
    /// Listeners that are not there any more.
    pub removed: Vec<Arc<str>>,
    /// Listeners about which something is another.
    pub changed: Vec<Arc<str>>,
    /// What else is another and can be put into force at once, as the file calls it.
    pub sections: Vec<&'static str>,
    /// How policy was applied before, and is now, where that is another.
    pub mode: Option<(PolicyMode, PolicyMode)>,
    /// What is another and is read at a start alone.
    pub at_start_alone: Vec<&'static str>,
}

impl Difference {
    /// Of two settings. A listener that faces the other way now is another one: it is both removed and added.
    #[must_use]
    pub fn between(old: &Settings, new: &Settings) -> Self {
        // Named one by one, so that a new field cannot be forgotten here.
        let Settings {
            content_hash: _,
            identity,
            policy,
            listeners,
            limits,
            open_connections,
            workers,
            resumption,
            renewal,
            admin,
            log: Log { format, level },
            decisions,
            access_log,
            traces,
            audit,
            redaction,
            sandbox,
        } = new;
        let mut difference = Self::of_listeners(&old.listeners, listeners);
        difference.sections = named(&[
            ("policy", *policy != old.policy),
            ("limits", *limits != old.limits),
            ("open_connections", *open_connections != old.open_connections),
            ("tls.resumption", *resumption != old.resumption),
            ("tls.renewal", *renewal != old.renewal),
            ("telemetry.log.level", *level != old.log.level),
        ]);
        difference.mode = (policy.mode != old.policy.mode).then_some((old.policy.mode, policy.mode));
        difference.at_start_alone = named(&[
            ("identity", *identity != old.identity),
            ("workers", *workers != old.workers),
            ("admin", *admin != old.admin),
            ("audit", *audit != old.audit),
            ("redaction", *redaction != old.redaction),
            ("sandbox", *sandbox != old.sandbox),
            ("telemetry.log.format", *format != old.log.format),
            ("telemetry.decisions", *decisions != old.decisions),
            ("telemetry.access_log", *access_log != old.access_log),
            ("telemetry.traces", *traces != old.traces),
        ]);
        difference
    }

    fn of_listeners(old: &[Arc<Listener>], new: &[Arc<Listener>]) -> Self {
        let mut before: HashMap<(&str, Direction), &Arc<Listener>> =
            old.iter().map(|listener| (key(listener), listener)).collect();
        let mut difference = Self::default();
        for listener in new {
            match before.remove(&key(listener)) {
                None => difference.added.push(listener.name.clone()),
                Some(same) if same == listener => {}
                Some(_) => difference.changed.push(listener.name.clone()),
            }
        }
        let removed = old.iter().filter(|listener| before.contains_key(&key(listener)));
        difference.removed = removed.map(|listener| listener.name.clone()).collect();
        difference
    }
}

/// What makes two listeners one.
fn key(listener: &Listener) -> (&str, Direction) {
    (&listener.name, listener.direction())
}

fn named(fields: &[(&'static str, bool)]) -> Vec<&'static str> {
    fields
        .iter()
        .filter_map(|(name, is_another)| is_another.then_some(*name))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, check};

    const BASE: &str = "\
identity: { socket: unix:///agent.sock, svid: spiffe://example.org/orders }
policy: { path: policy/ }
workers: 2
inbound:
  - { name: orders, listen: 127.0.0.1:1, upstream: 127.0.0.1:2 }
outbound:
  - { name: payments, listen: 127.0.0.1:3, connect: 127.0.0.1:4, peer: [spiffe://example.org/payments] }
";

    fn settings(text: &str) -> Settings {
        let environment = Environment {
            endpoint_socket: None,
            cores: 1,
        };
        let (settings, _) = check(text, "c.yaml", Path::new("/etc"), &environment).unwrap();
        settings
    }

    fn names(listeners: &[Arc<str>]) -> Vec<&str> {
        listeners.iter().map(AsRef::as_ref).collect()
    }

    /// What is different after `from` was replaced by `to`.
    fn after(from: &str, to: &str) -> Difference {
        assert!(BASE.contains(from), "{from}");
        let new = settings(&BASE.replace(from, to));
        Difference::between(&settings(BASE), &new)
    }

    #[test]
    fn the_same_settings_are_no_difference_however_they_are_written() {
        assert_eq!(
            after("workers: 2\n", "# two\nworkers: 2\n"),
            Difference::default()
        );
        assert_eq!(
            after("workers: 2\n", "workers: 2\nlimits: { idle_timeout: 1h }\n"),
            Difference::default()
        );
    }

    #[test]
    fn listeners_come_go_and_change() {
        let orders = "  - { name: orders, listen: 127.0.0.1:1, upstream: 127.0.0.1:2 }\n";
        let more = format!("{orders}  - {{ name: admin, listen: 127.0.0.1:5, serve: metrics }}\n");
        for (from, to, [added, removed, changed]) in [
            (orders, more.as_str(), [&["admin"][..], &[], &[]]),
            ("name: orders", "name: shop", [&["shop"], &["orders"], &[]]),
            (":1, up", ":9, up", [&[], &[], &["orders"]]),
            ("127.0.0.1:2", "127.0.0.1:9", [&[], &[], &["orders"]]),
            (
                "127.0.0.1:2 }",
                "127.0.0.1:2, alpn: [h2] }",
                [&[], &[], &["orders"]],
            ),
            (
                "127.0.0.1:2 }",
                "127.0.0.1:2, trust: [partner.example] }",
                [&[], &[], &["orders"]],
            ),
            ("org/payments]", "org/**]", [&[], &[], &["payments"]]),
            (
                "org/payments]",
                "org/payments], sni: a.example",
                [&[], &[], &["payments"]],
            ),
        ] {
            let found = after(from, to);
            assert_eq!(names(&found.added), added, "{to}");
            assert_eq!(names(&found.removed), removed, "{to}");
            assert_eq!(names(&found.changed), changed, "{to}");
            assert_eq!(found.sections, [""; 0], "{to}");
            assert_eq!(found.at_start_alone, [""; 0], "{to}");
        }
    }

    #[test]
    fn a_listener_that_faces_the_other_way_is_another_one() {
        let old = settings(BASE);
        let (inbound, outbound) = BASE.split_once("outbound:").unwrap();
        let turned = format!(
            "{}outbound:{}",
            inbound.replace("name: orders", "name: payments"),
            outbound.replace("name: payments", "name: orders")
        );
        let found = Difference::between(&old, &settings(&turned));
        assert_eq!(names(&found.added), ["payments", "orders"]);
        assert_eq!(names(&found.removed), ["orders", "payments"]);
        assert_eq!(names(&found.changed), [""; 0]);
    }

    #[test]
    fn each_other_field_is_put_into_force_or_named_as_one_that_needs_a_start() {
        for (from, to, section) in [
            ("path: policy/", "path: other/", "policy"),
            ("path: policy/", "path: policy/, mode: audit", "policy"),
            ("path: policy/", "path: policy/, deny_list: d.yaml", "policy"),
            ("workers: 2", "workers: 2\nlimits: { idle_timeout: 2h }", "limits"),
            (
                "workers: 2",
                "workers: 2\nopen_connections: { on_expiry: log }",
                "open_connections",
            ),
            (
                "workers: 2",
                "workers: 2\ntls: { resumption: false }",
                "tls.resumption",
            ),
            ("workers: 2", "workers: 2\ntls: { renewal: false }", "tls.renewal"),
            (
                "workers: 2",
                "workers: 2\ntelemetry: { log: { level: debug } }",
                "telemetry.log.level",
            ),
        ] {
            let found = after(from, to);
            let expected = Difference {
                sections: vec![section],
                mode: to
                    .contains("mode: audit")
                    .then_some((PolicyMode::Enforce, PolicyMode::Audit)),
                ..Difference::default()
            };
            assert_eq!(found, expected, "{to}");
        }
        for (from, to, field) in [
            ("agent.sock", "other.sock", "identity"),
            ("org/orders", "org/shop", "identity"),
            ("workers: 2", "workers: 3", "workers"),
            (
                "workers: 2",
                "workers: 2\nadmin: { listen: 127.0.0.1:15000 }",
                "admin",
            ),
            ("workers: 2", "workers: 2\naudit: { file: a.jsonl }", "audit"),
            (
                "workers: 2",
                "workers: 2\nredaction: { profile: gdpr, key_file: k }",
                "redaction",
            ),
            ("workers: 2", "workers: 2\nsandbox: off", "sandbox"),
            (
                "workers: 2",
                "workers: 2\ntelemetry: { log: { format: json } }",
                "telemetry.log.format",
            ),
            (
                "workers: 2",
                "workers: 2\ntelemetry: { decisions: { file: d.jsonl } }",
                "telemetry.decisions",
            ),
            (
                "workers: 2",
                "workers: 2\ntelemetry: { access_log: { file: stdout } }",
                "telemetry.access_log",
            ),
            (
                "workers: 2",
                "workers: 2\ntelemetry: { traces: { otlp: { endpoint: \"http://127.0.0.1:4317\" } } }",
                "telemetry.traces",
            ),
        ] {
            let found = after(from, to);
            let expected = Difference {
                at_start_alone: vec![field],
                ..Difference::default()
            };
            assert_eq!(found, expected, "{to}");
        }
    }
}
