//! The lines that become of events.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::record::decision::tests::{bare, denial};
use crate::record::{DecisionIds, Outcome};

const SCHEMA: &str = include_str!("../../../config/schema/audit.schema.json");

fn refused(reason: Reason, decision: Option<Arc<Decision>>) -> ConnectionRecord {
    ConnectionRecord {
        id: 7,
        time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_001),
        listener: "orders".into(),
        direction: Direction::Inbound,
        peer_addr: PeerAddr::Ip([10, 1, 2, 3].into(), 99),
        source: Some("10.1.2.3".parse().unwrap()),
        peer_id: None,
        own_id: None,
        resumed: None,
        decision,
        admission: None,
        reason,
        detail: Some("no TLS".to_owned()),
        destination: None,
        upstream: None,
        bytes_up: 0,
        bytes_down: 0,
        duration: Duration::from_micros(10),
        trace: None,
    }
}

fn change() -> Event {
    Event::Change(Box::new(Change {
        id: DecisionIds::new(1).next(),
        time: SystemTime::UNIX_EPOCH,
        kind: EntryKind::Policy,
        actor: Actor::Files,
        operation: Operation::Load,
        outcome: EntryOutcome::Failure,
        detail: Some("policy.yaml:3: …".to_owned()),
        own_id: None,
        policy_generation: Some(3),
        data: json!({ "content_hash": "00ff" }),
    }))
}

fn events() -> Vec<Event> {
    let ids = DecisionIds::new(1);
    let refusal = Refusal::of(&refused(Reason::NotTls, None), || ids.next()).unwrap();
    vec![
        Event::Verdict(Arc::new(bare())),
        Event::Verdict(Arc::new(denial())),
        Event::Refusal(Box::new(refusal)),
        change(),
    ]
}

fn told(event: &Event) -> Value {
    let prev = "0".repeat(64);
    let entry = Entry::new(event, (3, &prev), "pod-1", |name| {
        (name == "orders").then_some("127.0.0.1:8080")
    });
    serde_json::to_value(entry).unwrap()
}

#[test]
fn every_entry_has_every_field_and_fits_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for event in events() {
        let told = told(&event);
        let names: BTreeSet<_> = told.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, FIELDS.into_iter().collect());
        let problems: Vec<_> = validator.iter_errors(&told).map(|e| e.to_string()).collect();
        assert_eq!(problems, Vec::<String>::new(), "{told:#}");
    }
}

/// Whatever becomes of a field: what is left of an entry still has every field, and fits.
#[test]
fn what_redaction_leaves_fits_the_schema() {
    use crate::config::settings::{Redact, RedactionFind, RedactionProfile, RedactionRule};
    use crate::redaction::{Redactor, profile};

    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let keep = Redact::KeepPrefix {
        keep: 1,
        ipv4: 24,
        ipv6: 48,
    };
    let mut all: Vec<_> = RedactionProfile::ALL
        .iter()
        .map(|named| profile::rules(*named))
        .collect();
    let touchable = || FIELDS.iter().filter(|field| !UNTOUCHED.contains(field));
    let named = touchable().map(|field| Some(vec![(*field).to_owned()]));
    for fields in named.chain([None]) {
        for action in [Redact::Drop, Redact::Mask, Redact::Hash, keep] {
            for find in [RedactionFind::Value, RedactionFind::Ip, RedactionFind::SpiffeId] {
                all.push(vec![RedactionRule {
                    fields: fields.clone(),
                    find,
                    action,
                }]);
            }
        }
    }
    for rules in all {
        let redactor = Redactor::new(&rules, Some(b"a key of thirty-two bytes or so")).unwrap();
        for event in events() {
            let prev = "0".repeat(64);
            let mut line = Vec::new();
            let entry = Entry::new(&event, (3, &prev), "pod-1", |_| Some("127.0.0.1:8080"));
            redactor.write_json(&entry, &FIELDS, &mut line).unwrap();
            let told: Value = serde_json::from_slice(&line).unwrap();
            let problems: Vec<_> = validator.iter_errors(&told).map(|e| e.to_string()).collect();
            assert_eq!(problems, Vec::<String>::new(), "{rules:?} {told:#}");
            if let [rule] = &rules[..]
                && (rule.action, &rule.find) == (Redact::Drop, &RedactionFind::Value)
            {
                let dropped = rule.fields.as_ref().is_none_or(|named| named[0] == "host");
                assert_eq!(told["host"].is_null(), dropped, "{rules:?}");
            }
        }
    }
}

/// In the order in which they are read: place, when, who did what, with what outcome.
#[test]
fn fields_are_written_in_their_order() {
    let prev = "0".repeat(64);
    let event = change();
    let line = serde_json::to_string(&Entry::new(&event, (0, &prev), "pod-1", |_| None)).unwrap();
    let places: Vec<_> = FIELDS
        .iter()
        .map(|field| line.find(&format!("\"{field}\":")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{line}");
    assert!(
        line.starts_with("{\"version\":1,\"seq\":0,\"prev\":\"0000"),
        "{line}"
    );
}

#[test]
fn the_words_are_those_of_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let words = |pointer: &str| -> BTreeSet<String> {
        let list = schema.pointer(pointer).unwrap().as_array().unwrap();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    fn own<T: ToString>(all: &[T]) -> BTreeSet<String> {
        all.iter().map(ToString::to_string).collect()
    }
    assert_eq!(words("/properties/kind/enum"), own(EntryKind::ALL));
    assert_eq!(words("/properties/operation/enum"), own(Operation::ALL));
    assert_eq!(words("/properties/outcome/enum"), own(EntryOutcome::ALL));
    assert_eq!(words("/properties/reason/enum"), own(Reason::ALL));
    let required: BTreeSet<String> = words("/required");
    assert_eq!(required, own(&FIELDS));
}

#[test]
fn a_verdict_is_told_as_its_record_tells_it() {
    let record = serde_json::to_value(denial()).unwrap();
    let told = told(&Event::Verdict(Arc::new(denial())));
    for (ours, theirs) in [
        ("id", "id"),
        ("kind", "kind"),
        ("time", "time"),
        ("actor", "peer_id"),
        ("peer", "peer_id"),
        ("outcome", "verdict"),
        ("reason", "reason"),
        ("detail", "detail"),
        ("listener", "listener"),
        ("rule", "rule"),
        ("nearest", "nearest"),
        ("check", "check"),
        ("candidate", "candidate"),
        ("budget", "budget"),
        ("enforced", "enforced"),
        ("serial", "serial"),
        ("policy_generation", "policy_generation"),
        ("policy_hash", "policy_hash"),
    ] {
        assert_eq!(told[ours], record[theirs], "{ours}");
    }
    assert_eq!(told["upstream"], "127.0.0.1:8080");
    assert_eq!(told["host"], "pod-1");
}

#[test]
fn only_what_was_refused_without_a_verdict_is_a_refusal() {
    for reason in Reason::ALL {
        let ids = DecisionIds::new(1);
        let found = Refusal::of(&refused(*reason, None), || ids.next());
        assert_eq!(found.is_some(), reason.outcome() == Outcome::Refused, "{reason}");
        let judged = refused(*reason, Some(Arc::new(denial())));
        let found = Refusal::of(&judged, || ids.next());
        assert_eq!(found.is_some(), *reason == Reason::AuditUnavailable, "{reason}");
    }
    let told = told(&events()[2]);
    assert_eq!(told["time"], "1970-01-01T00:00:01.500001Z");
    assert_eq!(
        (&told["actor"], &told["outcome"]),
        (&Value::Null, &"refused".into())
    );
    assert_eq!(
        (&told["reason"], &told["source"]),
        (&"not_tls".into(), &"10.1.2.3".into())
    );
}
