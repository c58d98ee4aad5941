//! Entries as log records of the OpenTelemetry protocol. The body is the line as it stands in the log, so that what a
//! collector keeps can be verified as the log can; the attributes are what one searches by.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::reader::Line;
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
pub(super) struct ToCollector {
    delivery: Delivery,
    /// How many go into the next request. Half as many after one that was not taken, down to the one that is to blame.
    most: usize,
}

/// What became of the first of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// So many are done with.
    pub(super) lines: usize,
    /// So many of them the collector will never take.
    pub(super) lost: u64,
}

impl ToCollector {
    pub(super) fn new(settings: Otlp, exports: Exports) -> Self {
        Self {
            delivery: Delivery::lasting(settings, exports),
            most: usize::MAX,
        }
    }

    /// Why the collector takes nothing, while that is so.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.delivery.trouble()
    }

    /// Ends the connection; the next request makes another.
    pub(super) async fn disconnect(&mut self) {
        self.delivery.disconnect().await;
    }

    /// Sends the first of these lines, as often as it takes. An entry is given up only if the collector says that it is bad,
    /// in a request of its own, before and after it took a request without any: whoever refuses that, too, has other
    /// reasons. `None` when the process ends before.
    pub(super) async fn send(
        &mut self,
        lines: &[Line],
        process: u64,
        ending: impl Future<Output = ()>,
    ) -> Option<Sent> {
        tokio::pin!(ending);
        // Whether it does, seen after it refused the one line that is sent again now.
        let mut takes_any = false;
        loop {
            let count = lines.len().min(self.most);
            let some = lines.get(..count).unwrap_or_default();
            let request = self.request(some, process);
            let sent = |lost| Some(Sent { lines: count, lost });
            match self.delivery.deliver(&request, None, ending.as_mut()).await {
                Ok(accepted) => {
                    self.most = self.most.saturating_mul(2);
                    return sent(accepted.rejected.min(u64::try_from(count).unwrap_or(u64::MAX)));
                }
                Err(Undelivered::Ending) => return None,
                Err(Undelivered::Invalid) if takes_any => return sent(1),
                Err(Undelivered::Invalid) if count <= 1 => {
                    let any = self
                        .delivery
                        .takes_any::<ExportLogsServiceRequest>(ending.as_mut());
                    takes_any = any.await.ok()?;
                }
                // Perhaps it is too large; a request of one is tried as it is.
                Err(Undelivered::Invalid | Undelivered::Refused | Undelivered::TooLate) => {
                    self.most = (count / 2).max(1);
                    takes_any = false;
                }
            }
        }
    }

    fn request(&self, lines: &[Line], process: u64) -> ExportLogsServiceRequest {
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(otlp::resource(self.delivery.settings(), process, None)),
                scope_logs: vec![ScopeLogs {
                    scope: Some(otlp::scope()),
                    log_records: lines.iter().map(record).collect(),
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        }
    }

    /// Waits this long after a first failed try.
    #[cfg(test)]
    pub(super) const fn set_backoff(&mut self, backoff: otlp::Backoff) {
        self.delivery.backoff = backoff;
    }
}

fn record(line: &Line) -> LogRecord {
    let body = String::from_utf8_lossy(&line.text).into_owned();
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
    HEXLOWER.decode(text.as_bytes()).ok().filter(|id| id.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Line {
        Line {
            seq: 7,
            text: text.into(),
        }
    }

    #[test]
    fn an_entry_is_a_record_whose_body_is_the_line() {
        let line = "{\"version\":1,\"seq\":7,\"time\":\"1970-01-01T00:00:01.000002Z\",\"kind\":\"admission\",\"outcome\":\"deny\",\
                    \"reason\":\"no_allow_rule\",\"peer\":null,\"trace_id\":\"000102030405060708090a0b0c0d0e0f\"}";
        let record = record(&entry(line));
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
        let allowed = super::record(&entry("{\"outcome\":\"allow\"}"));
        assert_eq!(
            (allowed.severity_text.as_str(), allowed.trace_id.len()),
            ("INFO", 0)
        );
    }
}
