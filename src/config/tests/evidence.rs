//! The audit log and redaction.

use super::*;

#[test]
fn an_audit_log_has_defaults_and_takes_every_setting() {
    let audit = good(&with(&format!("{IN}audit: {{ file: audit.jsonl }}")))
        .audit
        .unwrap();
    assert_eq!(audit.path, Path::new("/etc/svidecar/audit.jsonl"));
    assert_eq!(
        (audit.on_failure, audit.sync),
        (OnAuditFailure::Deny, AuditSync::Interval)
    );
    assert_eq!(
        (audit.max_size, audit.keep, audit.keep_for, audit.compress),
        (64 << 20, 30, None, true)
    );
    let hour = Duration::from_secs(3600);
    assert_eq!(
        (audit.sync_interval, audit.max_age, audit.checkpoint_every),
        (hour / 3600, 24 * hour, hour / 60)
    );
    let full = "audit: { file: /a, on_failure: continue, sync: interval, sync_interval: 50ms, max_size: 2MiB, max_age: 1h, \
                keep: 0, keep_for: 240h, compress: false, checkpoint_every: 10s }";
    let audit = good(&with(&format!("{IN}{full}"))).audit.unwrap();
    assert_eq!(audit.sinks, []);
    let sinks = "audit: { file: /a, sinks: [{ name: one, otlp: { endpoint: 'http://127.0.0.1:4317' } }] }";
    assert_eq!(
        &*good(&with(&format!("{IN}{sinks}"))).audit.unwrap().sinks[0].name,
        "one"
    );
    assert_eq!(
        (audit.on_failure, audit.max_size, audit.keep),
        (OnAuditFailure::Continue, 2 << 20, 0)
    );
    assert_eq!((audit.keep_for, audit.compress), (Some(240 * hour), false));
    assert_eq!(good(&with(IN)).audit, None);
}

#[test]
fn redaction_takes_profiles_and_rules() {
    let full = "redaction:\n  profile: gdpr\n  key_file: key\n  rules:\n  - { fields: [detail, serial], action: drop }\n  \
                - { find: ip, action: keep_prefix, ipv4: 16 }\n  - { find: { pattern: '[0-9]+' }, action: hash }\n";
    let redaction = good(&with(&format!("{IN}{full}"))).redaction;
    assert_eq!(redaction.profile, Some(RedactionProfile::Gdpr));
    assert_eq!(
        redaction.key_file.as_deref(),
        Some(Path::new("/etc/svidecar/key"))
    );
    let rule = |fields: Option<Vec<&str>>, find, action| RedactionRule {
        fields: fields.map(|fields| fields.into_iter().map(str::to_owned).collect()),
        find,
        action,
    };
    let prefix = Redact::KeepPrefix {
        keep: 0,
        ipv4: 16,
        ipv6: 48,
    };
    assert_eq!(
        redaction.rules,
        [
            rule(Some(vec!["detail", "serial"]), RedactionFind::Value, Redact::Drop),
            rule(None, RedactionFind::Ip, prefix),
            rule(None, RedactionFind::Pattern("[0-9]+".to_owned()), Redact::Hash),
        ]
    );
    assert_eq!(good(&with(IN)).redaction, Redaction::default());
}

#[test]
fn redaction_with_a_listener_that_shows_all_is_wondered_at() {
    let redaction = "redaction: { rules: [{ find: ip, action: mask }] }";
    let listener = |serve: &str| {
        format!(
            "inbound: [{{ name: ops, listen: 0.0.0.0:8444, serve: {serve} }}]\nadmin: {{ listen: 127.0.0.1:1 }}\n"
        )
    };
    let (settings, warnings) = checked(&with(&format!("{}{redaction}", listener("admin")))).unwrap();
    assert_eq!(settings.redaction.rules.len(), 1);
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    let said = warning.to_string();
    assert!(
        !warning.is_error() && said.contains("the listener `ops`") && said.contains("serve: metrics"),
        "{said}"
    );
    good(&with(&format!("{}{redaction}", listener("metrics"))));
    good(&with(&listener("admin")));
}

#[test]
fn what_is_wrong_is_said() {
    for (section, needle) in [
        ("audit: {}", "`file` is missing in `audit`"),
        (
            "audit: { file: a, sync: never }",
            "it may be `always`, `interval` or `os`",
        ),
        (
            "audit: { file: a, sync: os, sync_interval: 1s }",
            "belongs to `sync: interval`",
        ),
        ("audit: { file: a, max_size: 64 }", "write the unit"),
        ("audit: { file: a, max_age: 1s }", "must be from 1m to"),
        ("audit: { file: a, on_failure: ignore }", "`deny` or `continue`"),
        ("audit: { fil: a, file: a }", "did you mean `file`?"),
        (
            "audit: { file: a, sinks: [{ name: A, otlp: { endpoint: 'http://127.0.0.1:4317' } }] }",
            "becomes a file's name",
        ),
        ("audit: { file: a, sinks: [{ name: a }] }", "`otlp` is missing"),
        ("redaction: { profile: gpdr, key_file: k }", "`gdpr` or `pipl`"),
        ("redaction: { profile: gdpr }", "`redaction.key_file` is missing"),
        (
            "redaction: { rules: [{ action: hash }] }",
            "`redaction.key_file` is missing",
        ),
        ("redaction: { rules: [{ find: ip }] }", "`action` is missing"),
        ("redaction: { rules: [{ action: remove }] }", "it may be `mask`"),
        (
            "redaction: { rules: [{ fields: [peer_adr], action: mask }] }",
            "did you mean `peer_addr`?",
        ),
        (
            "redaction: { rules: [{ fields: [time], action: mask }] }",
            "is never touched",
        ),
        (
            "redaction: { rules: [{ find: { pattern: '(' }, action: mask }] }",
            "is no regular expression",
        ),
        (
            "redaction: { rules: [{ action: mask, keep: 3 }] }",
            "belongs to `action: keep_prefix`",
        ),
        (
            "redaction: { rules: [{ find: ip, action: keep_prefix, ipv4: 33 }] }",
            "32",
        ),
    ] {
        let found: Vec<_> = checked(&with(&format!("{IN}{section}"))).unwrap_err();
        assert_eq!(found.len(), 1, "{section}: {found:?}");
        let text = found[0].to_string();
        assert!(text.contains(needle), "{section}: {text}");
    }
}
