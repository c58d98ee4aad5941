//! Entries as log records of the OpenTelemetry protocol. The body is the line as it stands in the log, so that what a
//! collector keeps can be verified as the log can; the attributes are what one searches by.

use std::future::Future;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::Line;
use crate::clock::parse_rfc3339;
use crate::config::settings::Otlp;
use crate::telemetry::metrics::Exports;
use crate::telemetry::otlp::proto::{
    AnyValue, ExportLogsServiceRequest, KeyValue, LogRecord, ResourceLogs, ScopeLogs, SeverityNumber,
    any_value,
};
use crate::telemetry::otlp::{self, Delivery, Undelivered};

/// The name of the event.
const EVENT: &str = "svidecar.audit";
/// The fields that become attributes.
const ATTRIBUTES: [&str; 16] = [
    "kind",
    "actor",
    "operation",
    "outcome",
    "reason",
    "id",
    "listener",
    "direction",
    "peer",
    "own_id",
    "peer_addr",
    "source",
    "rule",
    "upstream",
    "policy_hash",
    "host",
];

/// Sends to a collector.
#[derive(Debug)]
pub(super) struct ToCollector(Delivery);

impl ToCollector {
    pub(super) const fn new(settings: Otlp, exports: Exports) -> Self {
        Self(Delivery::new(settings, exports))
    }

    /// Ends the connection; the next request makes another.
    pub(super) async fn disconnect(&mut self) {
        self.0.disconnect().await;
    }

    /// Sends until they are taken; how many the collector refuses for good. `None` when the process ends before.
    pub(super) async fn send(
        &mut self,
        lines: &[Line],
        process: u64,
        ending: impl Future<Output = ()>,
    ) -> Option<u64> {
        let all = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(otlp::resource(self.0.settings(), process, None)),
                scope_logs: vec![ScopeLogs {
                    scope: Some(otlp::scope()),
                    log_records: lines.iter().map(record).collect(),
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        };
        match self.0.deliver(&request, None, ending).await {
            Ok(accepted) => Some(accepted.rejected.min(all)),
            Err(Undelivered::Refused | Undelivered::TooLate) => Some(all),
            Err(Undelivered::Ending) => None,
        }
    }
}

fn record(line: &Line) -> LogRecord {
    let body = String::from_utf8_lossy(&line.0).into_owned();
    let fields: Map<String, Value> = serde_json::from_str(&body).unwrap_or_default();
    let said = |field: &str| fields.get(field).and_then(Value::as_str);
    let time = said("time").and_then(parse_rfc3339).map_or(0, nanoseconds);
    let severity = match said("outcome") {
        Some("deny" | "refused" | "failure") => SeverityNumber::Warn,
        _ => SeverityNumber::Info,
    };
    let mut attributes: Vec<KeyValue> = vec![otlp::integer(
        "svidecar.seq",
        fields.get("seq").and_then(Value::as_u64).unwrap_or(0),
    )];
    attributes.extend(
        ATTRIBUTES
            .iter()
            .filter_map(|field| Some(otlp::text(&format!("svidecar.{field}"), said(field)?))),
    );
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity.into(),
        severity_text: if severity == SeverityNumber::Warn {
            "WARN"
        } else {
            "INFO"
        }
        .to_owned(),
        trace_id: said("trace_id").and_then(hex).unwrap_or_default(),
        body: Some(AnyValue {
            value: Some(any_value::Value::StringValue(body)),
        }),
        attributes,
        event_name: EVENT.to_owned(),
        ..LogRecord::default()
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The bytes of a trace's id.
fn hex(text: &str) -> Option<Vec<u8>> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(number.to_be_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_record_whose_body_is_the_line() {
        let line = "{\"version\":1,\"seq\":7,\"time\":\"1970-01-01T00:00:01.000002Z\",\"kind\":\"admission\",\"outcome\":\"deny\",\
                    \"reason\":\"no_allow_rule\",\"peer\":null,\"trace_id\":\"000102030405060708090a0b0c0d0e0f\"}";
        let record = record(&Line(line.into()));
        assert_eq!(
            record.body.unwrap().value,
            Some(any_value::Value::StringValue(line.to_owned()))
        );
        assert_eq!(
            (record.time_unix_nano, record.severity_text.as_str()),
            (1_000_002_000, "WARN")
        );
        assert_eq!(record.trace_id, (0..16).collect::<Vec<u8>>());
        let keys: Vec<_> = record
            .attributes
            .iter()
            .map(|attribute| attribute.key.as_str())
            .collect();
        assert_eq!(
            keys,
            [
                "svidecar.seq",
                "svidecar.kind",
                "svidecar.outcome",
                "svidecar.reason"
            ]
        );
        let allowed = super::record(&Line(b"{\"outcome\":\"allow\"}".into()));
        assert_eq!(
            (allowed.severity_text.as_str(), allowed.trace_id.len()),
            ("INFO", 0)
        );
    }
}
