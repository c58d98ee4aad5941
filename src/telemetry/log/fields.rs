//! The fields of records in log lines. A connection's line holds the fields of its last verdict under the names that they
//! have in the verdict's own record, so that a line, the API and the file can be searched alike.

use serde::Serialize;
use serde_json::Value;

use crate::record::{ConnectionRecord, Decision, Verdict};

/// The names of a connection's fields, in the order of reading: where, who, to whom, what was decided and why, how much.
#[cfg(test)]
pub(in crate::telemetry) const CONNECTION_FIELDS: [&str; 32] = [
    "id",
    "listener",
    "direction",
    "peer_addr",
    "source",
    "peer_id",
    "own_id",
    "serial",
    "resumed",
    "decision_id",
    "admission_id",
    "trace_id",
    "kind",
    "verdict",
    "enforced",
    "rule",
    "description",
    "audited",
    "nearest",
    "check",
    "candidate",
    "budget",
    "result",
    "reason",
    "detail",
    "policy_generation",
    "policy_hash",
    "destination",
    "upstream",
    "bytes_up",
    "bytes_down",
    "duration_ms",
];

type Fields = Vec<(&'static str, Value)>;

/// The line of a connection that ended.
pub(super) fn of_connection(record: &ConnectionRecord) -> Fields {
    let decision = record.decision.as_deref();
    let mut fields = vec![
        ("id", record.id.into()),
        ("listener", (&*record.listener).into()),
        ("direction", record.direction.as_str().into()),
        ("peer_addr", record.peer_addr.to_string().into()),
        ("source", text(record.source.as_ref())),
        ("peer_id", text(record.peer_id.as_ref())),
        ("own_id", text(record.own_id.as_ref())),
        (
            "serial",
            decision.map_or(Value::Null, |d| text(d.serial.as_ref())),
        ),
        ("resumed", record.resumed.into()),
        ("decision_id", text(decision.map(|d| d.id).as_ref())),
        ("admission_id", text(record.admission.as_ref())),
        ("trace_id", text(record.trace.map(|trace| trace.id).as_ref())),
    ];
    grounds(&mut fields, decision);
    fields.extend([
        ("result", record.outcome().as_str().into()),
        ("reason", record.reason.as_str().into()),
        // Where policy is only audited a connection may end well, and the verdict says what would have been.
        (
            "detail",
            match &record.detail {
                Some(detail) => detail.as_str().into(),
                None => said(decision),
            },
        ),
    ]);
    policy(&mut fields, decision);
    fields.extend([
        ("destination", text(record.destination.as_ref())),
        ("upstream", text(record.upstream.as_ref())),
        ("bytes_up", record.bytes_up.into()),
        ("bytes_down", record.bytes_down.into()),
        ("duration_ms", milliseconds(record.duration)),
    ]);
    fields
}

/// The line of a verdict whose connection goes on.
pub(super) fn of_decision(decision: &Decision) -> Fields {
    let mut fields = vec![
        ("id", decision.connection.into()),
        ("listener", (&*decision.listener).into()),
        ("direction", decision.direction.as_str().into()),
        ("peer_addr", decision.peer_addr.to_string().into()),
        ("source", text(decision.source.as_ref())),
        ("peer_id", text(decision.peer_id.as_ref())),
        ("own_id", text(decision.own_id.as_ref())),
        ("serial", text(decision.serial.as_ref())),
        ("decision_id", decision.id.to_string().into()),
    ];
    grounds(&mut fields, Some(decision));
    fields.extend([
        ("reason", text(decision.reason.as_ref())),
        ("detail", said(Some(decision))),
    ]);
    policy(&mut fields, Some(decision));
    fields
}

/// What was said, and by what.
fn grounds(fields: &mut Fields, decision: Option<&Decision>) {
    let verdict = decision.map_or(Verdict::None, |d| d.verdict);
    let audited = decision.map_or(&[][..], |d| &d.audited);
    fields.extend([
        ("kind", decision.map_or(Value::Null, |d| d.kind.as_str().into())),
        ("verdict", verdict.as_str().into()),
        ("enforced", decision.map(|d| d.enforced).into()),
        ("rule", text(decision.and_then(|d| d.rule.as_ref()))),
        ("description", text(decision.and_then(|d| d.description.as_ref()))),
        (
            "audited",
            audited.iter().map(|rule| Value::from(&**rule)).collect(),
        ),
        ("nearest", object(decision.and_then(|d| d.nearest.as_ref()))),
        ("check", object(decision.and_then(|d| d.check.as_ref()))),
        ("candidate", object(decision.and_then(|d| d.candidate.as_ref()))),
        ("budget", text(decision.and_then(|d| d.budget.as_ref()))),
    ]);
}

fn policy(fields: &mut Fields, decision: Option<&Decision>) {
    fields.extend([
        (
            "policy_generation",
            decision.map_or(0, |d| d.policy_generation).into(),
        ),
        ("policy_hash", text(decision.and_then(|d| d.policy_hash.as_ref()))),
    ]);
}

fn said(decision: Option<&Decision>) -> Value {
    text(decision.and_then(|d| d.detail.as_ref()))
}

fn text<T: ToString>(value: Option<&T>) -> Value {
    value.map_or(Value::Null, |value| Value::from(value.to_string()))
}

fn object<T: Serialize>(value: Option<&T>) -> Value {
    // Strings, numbers and lists of them cannot fail.
    value.map_or(Value::Null, |value| {
        serde_json::to_value(value).unwrap_or_default()
    })
}

/// Milliseconds with three decimals: short connections last less than one.
fn milliseconds(duration: std::time::Duration) -> Value {
    #[expect(
        clippy::cast_precision_loss,
        reason = "micro-seconds of a connection stay far below 2^52"
    )]
    Value::from(duration.as_micros() as f64 / 1000.0)
}
