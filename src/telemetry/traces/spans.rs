//! What a trace tells of a connection.
//!
//! Attributes have the names of the OTel semantic conventions where these have one; the others begin with `svidecar.` and go
//! on with the name that the log line has for the same thing. Pure.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::record::decision::bounded;
use crate::record::{ConnectionRecord, Direction, Outcome, PeerAddr, Phase, TraceId};
use crate::redaction::Redactor;
use crate::telemetry::otlp::proto::any_value::Value::{
    ArrayValue as List, BoolValue as Truth, IntValue as Number, StringValue as Text,
};
use crate::telemetry::otlp::proto::span::SpanKind;
use crate::telemetry::otlp::proto::status::StatusCode;
use crate::telemetry::otlp::proto::{AnyValue, KeyValue, Span, Status};
use crate::telemetry::otlp::{integer, list, text, truth};

/// W3C trace flags of each span: it is sampled, and the trace's ID is random.
const FLAGS: u32 = 0b11;
/// The attribute that the connection's span takes its name from.
const LISTENER: &str = "svidecar.listener";

/// How many spans a connection makes.
pub(super) fn count(record: &ConnectionRecord) -> u64 {
    let phases = record.trace.map_or(0, |trace| {
        trace.phases.met(record.direction, record.duration).count()
    });
    u64::try_from(phases).unwrap_or(0).saturating_add(1)
}

/// The span of a connection, and one for each phase that it met. A record without a trace has none.
pub(super) fn append(record: &ConnectionRecord, state: &str, spans: &mut Vec<Span>) {
    let Some(trace) = record.trace else { return };
    let begin = nanos(record.time).saturating_sub(whole(record.duration));
    let span = |number, name: String, kind, (from, to): (Duration, Duration)| Span {
        trace_id: trace.id.to_bytes().to_vec(),
        span_id: trace.id.span(number).to_vec(),
        trace_state: state.to_owned(),
        flags: FLAGS,
        name,
        kind: kind as i32,
        start_time_unix_nano: begin.saturating_add(whole(from)),
        end_time_unix_nano: begin.saturating_add(whole(to)),
        ..Span::default()
    };
    let kind = match record.direction {
        Direction::Inbound => SpanKind::Server,
        Direction::Outbound => SpanKind::Client,
    };
    let mut root = span(
        ROOT,
        format!("{} {}", record.direction, record.listener),
        kind,
        (Duration::ZERO, record.duration),
    );
    root.attributes = of_connection(record);
    root.status = status(record);
    spans.push(root);

    let first = spans.len();
    for (phase, from, to) in trace.phases.met(record.direction, record.duration) {
        let name = phase.as_str().to_owned();
        let mut child = span(number(phase), name, SpanKind::Internal, (from, to));
        child.parent_span_id = parent(trace.id);
        child.attributes = of_phase(record, phase);
        spans.push(child);
    }
    // The last one is the phase in which the connection ended.
    if let (Some(status), Some(last)) = (
        status(record),
        spans.get_mut(first..).and_then(<[Span]>::last_mut),
    ) {
        last.attributes.push(text("error.type", record.reason.as_str()));
        last.status = Some(status);
    }
}

/// Takes out of a span what must not leave: each attribute by the name that the log line has for the same thing, and out of the
/// span's own name the listener.
pub(super) fn redact(span: &mut Span, redactor: &Redactor) {
    let mut hidden = false;
    let Span { attributes, name, .. } = &mut *span;
    attributes.retain_mut(|attribute| {
        let field = match attribute.key.as_str() {
            "network.peer.address" => "peer_addr",
            "client.address" => "source",
            "server.address" => "upstream",
            "error.type" => "reason",
            // Words of closed sets.
            "network.transport" | "network.type" => return true,
            key if key.starts_with("tls.") => return true,
            key => key.strip_prefix("svidecar.").unwrap_or(key),
        };
        let Some(value) = &mut attribute.value else {
            return true;
        };
        let before = value.clone();
        let is_left = redact_value(value, field, redactor);
        hidden |= attribute.key.ends_with(".address") && (!is_left || *value != before);
        if let (LISTENER, Some(Text(listener))) = (attribute.key.as_str(), &before.value) {
            let left = match &value.value {
                Some(Text(left)) if is_left => left,
                _ => "",
            };
            if let Some(direction) = name.strip_suffix(listener.as_str()) {
                *name = format!("{direction}{left}").trim_end().to_owned();
            }
        }
        is_left
    });
    if hidden {
        // With its port an address could be told from others of its network.
        span.attributes
            .retain(|attribute| !attribute.key.ends_with(".port"));
    }
    if let Some(status) = &mut span.status {
        let mut message = serde_json::Value::from(std::mem::take(&mut status.message));
        redactor.apply("detail", &mut message);
        status.message = message.as_str().unwrap_or_default().to_owned();
    }
}

/// Takes out of an attribute's value what must not leave, and says whether anything is left of it.
fn redact_value(value: &mut AnyValue, field: &str, redactor: &Redactor) -> bool {
    let mut plain = match &value.value {
        Some(Text(text)) => serde_json::Value::from(text.as_str()),
        Some(Number(number)) => (*number).into(),
        Some(Truth(truth)) => (*truth).into(),
        Some(List(list)) => {
            let texts = list.values.iter().map(|value| match &value.value {
                Some(Text(text)) => text.as_str(),
                // A list is of texts.
                _ => "",
            });
            texts.collect()
        }
        // There are no others here.
        _ => return false,
    };
    let before = plain.clone();
    redactor.apply(field, &mut plain);
    if plain == before {
        return true;
    }
    value.value = match plain {
        serde_json::Value::String(text) => Some(Text(text)),
        serde_json::Value::Array(left) => {
            let texts = left.iter().filter_map(serde_json::Value::as_str);
            list("", texts).value.and_then(|list| list.value)
        }
        _ => return false,
    };
    true
}

/// The connection itself among the spans of its trace.
const ROOT: u8 = 0;

fn parent(trace: TraceId) -> Vec<u8> {
    trace.span(ROOT).to_vec()
}

const fn number(phase: Phase) -> u8 {
    match phase {
        Phase::Accept => 1,
        Phase::Handshake => 2,
        Phase::Authorize => 3,
        Phase::Connect => 4,
        Phase::Relay => 5,
    }
}

/// An error is what was denied, refused, or failed. What we closed by a rule that changed, and what ended well, is none.
fn status(record: &ConnectionRecord) -> Option<Status> {
    match record.outcome() {
        Outcome::Ok | Outcome::Closed => None,
        Outcome::Denied | Outcome::Refused | Outcome::Failed => Some(Status {
            message: record
                .detail
                .as_deref()
                .map(bounded)
                .unwrap_or_default()
                .to_string(),
            code: StatusCode::Error.into(),
        }),
    }
}

fn of_connection(record: &ConnectionRecord) -> Vec<KeyValue> {
    let mut attributes = vec![
        integer("svidecar.id", record.id),
        text(LISTENER, &*record.listener),
        text("svidecar.direction", record.direction.as_str()),
        text("svidecar.result", record.outcome().as_str()),
        text("svidecar.reason", record.reason.as_str()),
        text("svidecar.verdict", record.verdict().as_str()),
        integer("svidecar.bytes_up", record.bytes_up),
        integer("svidecar.bytes_down", record.bytes_down),
    ];
    attributes.extend(addresses(record));
    attributes.extend(tls(record));
    attributes.extend(optional("svidecar.peer_id", record.peer_id.as_ref()));
    attributes.extend(optional("svidecar.own_id", record.own_id.as_ref()));
    attributes.extend(optional("svidecar.admission_id", record.admission.as_ref()));
    attributes.extend(optional("svidecar.upstream", record.upstream.as_ref()));
    if let Some(decision) = &record.decision {
        attributes.push(text("svidecar.decision_id", decision.id.to_string()));
        attributes.push(text("svidecar.kind", decision.kind.as_str()));
        attributes.push(truth("svidecar.enforced", decision.enforced));
        attributes.push(integer("svidecar.policy_generation", decision.policy_generation));
        attributes.extend(optional("svidecar.policy_hash", decision.policy_hash.as_ref()));
        attributes.extend(optional("svidecar.rule", decision.rule.as_ref()));
        attributes.extend(optional("svidecar.serial", decision.serial.as_ref()));
        if !decision.audited.is_empty() {
            attributes.push(list("svidecar.audited", &decision.audited));
        }
    }
    if status(record).is_some() {
        attributes.push(text("error.type", record.reason.as_str()));
    }
    attributes
}

fn of_phase(record: &ConnectionRecord, phase: Phase) -> Vec<KeyValue> {
    match phase {
        Phase::Accept => Vec::new(),
        Phase::Handshake => tls(record),
        Phase::Authorize => match &record.decision {
            // The last verdict, unless another one ended the connection later.
            Some(decision) if record.admission.is_none_or(|admission| admission == decision.id) => {
                let verdict = text("svidecar.verdict", decision.verdict.as_str());
                let rule = optional("svidecar.rule", decision.rule.as_ref());
                [verdict].into_iter().chain(rule).collect()
            }
            _ => optional("svidecar.admission_id", record.admission.as_ref()).collect(),
        },
        Phase::Connect => optional("svidecar.upstream", record.upstream.as_ref()).collect(),
        Phase::Relay => vec![
            integer("svidecar.bytes_up", record.bytes_up),
            integer("svidecar.bytes_down", record.bytes_down),
        ],
    }
}

/// Who connected, for whom, and where to (semantic conventions: "Client and server", "Network").
fn addresses(record: &ConnectionRecord) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    match record.peer_addr {
        PeerAddr::Ip(ip, port) => {
            attributes.push(text("network.transport", "tcp"));
            attributes.push(text("network.type", family(ip)));
            attributes.push(text("network.peer.address", ip.to_string()));
            attributes.push(integer("network.peer.port", port.into()));
            // A load balancer's caller has a port that is not kept.
            let source = record.source.unwrap_or(ip);
            attributes.push(text("client.address", source.to_string()));
            if source == ip {
                attributes.push(integer("client.port", port.into()));
            }
        }
        PeerAddr::Unix => {
            attributes.push(text("network.transport", "unix"));
            if let Some(source) = record.source {
                attributes.push(text("client.address", source.to_string()));
            }
        }
    }
    if let (Direction::Outbound, Some(upstream)) = (record.direction, &record.upstream) {
        match upstream.rsplit_once(':') {
            _ if upstream.starts_with("unix:") => {
                attributes.push(text("server.address", upstream.trim_start_matches("unix://")));
            }
            Some((host, port)) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                attributes.push(text("server.address", host));
                attributes.extend(port.parse().ok().map(|port| integer("server.port", port)));
            }
            None => {}
        }
    }
    attributes
}

const fn family(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

/// The TLS connection, once there is one (semantic conventions: "TLS"). There is no other version here.
fn tls(record: &ConnectionRecord) -> Vec<KeyValue> {
    match record.resumed {
        Some(resumed) => vec![
            text("tls.protocol.name", "tls"),
            text("tls.protocol.version", "1.3"),
            truth("tls.established", true),
            truth("tls.resumed", resumed),
        ],
        None => vec![truth("tls.established", false)],
    }
}

fn optional<T: Display>(key: &str, value: Option<&T>) -> impl Iterator<Item = KeyValue> {
    value.map(|value| text(key, value.to_string())).into_iter()
}

fn nanos(time: SystemTime) -> u64 {
    whole(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
