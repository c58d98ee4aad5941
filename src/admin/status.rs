//! The state of the whole sidecar at one moment, and its text.

use serde_json::{Map, Value, json};

/// The state of the whole sidecar at one moment: what `/api/v1/status` answers, but for what depends on who asks.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Every field but `changes` and `connections`.
    pub fields: Map<String, Value>,
    /// Open connections.
    pub total: usize,
    /// Those that are not open yet, or not any more.
    pub in_handshake_or_closing: usize,
    /// Some of those that are open, the newest first.
    pub shown: Vec<Value>,
}

impl Status {
    /// The answer to one who may make changes as `changes` says.
    pub(super) fn json(self, changes: &str) -> Value {
        let mut fields = self.fields;
        fields.insert("changes".to_owned(), changes.into());
        let connections = json!({
            "total": self.total,
            "in_handshake_or_closing": self.in_handshake_or_closing,
            "shown": self.shown,
        });
        fields.insert("connections".to_owned(), connections);
        Value::Object(fields)
    }
}

/// A status as text, so that those who listen share the work of writing it.
#[derive(Debug)]
pub(super) struct Rendered {
    /// An object without its closing brace.
    fields: String,
    total: usize,
    in_handshake_or_closing: usize,
    shown: Vec<String>,
}

impl Rendered {
    pub(super) fn of(status: Status) -> Self {
        let mut fields = Value::Object(status.fields).to_string();
        fields.pop();
        Self {
            fields,
            total: status.total,
            in_handshake_or_closing: status.in_handshake_or_closing,
            shown: status.shown.iter().map(ToString::to_string).collect(),
        }
    }

    /// One line of JSON, with `shown` connections at most.
    pub(super) fn line(&self, changes: &str, shown: usize) -> String {
        let Self {
            fields,
            total,
            in_handshake_or_closing,
            ..
        } = self;
        let shown = self.shown.get(..shown).unwrap_or(&self.shown).join(",");
        let comma = if fields.len() > 1 { "," } else { "" };
        format!(
            "{fields}{comma}\"changes\":\"{changes}\",\"connections\":{{\"total\":{total},\
             \"in_handshake_or_closing\":{in_handshake_or_closing},\"shown\":[{shown}]}}}}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_stream_is_the_answer_on_one_line() {
        for fields in [json!({}), json!({ "a": 1, "text": "}\n\"" })] {
            let Value::Object(fields) = fields else { panic!() };
            let status = Status {
                fields,
                total: 3,
                in_handshake_or_closing: 1,
                shown: vec![json!({ "id": 9 }), json!({ "id": 8 })],
            };
            let rendered = Rendered::of(status.clone());
            for (shown, ids) in [(0, 0), (1, 1), (2, 2), (1000, 2)] {
                let line = rendered.line("token", shown);
                assert!(!line.contains('\n'), "{line}");
                let mut expected = status.clone();
                expected.shown.truncate(ids);
                let read: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(read, expected.json("token"), "{line}");
            }
        }
    }
}
