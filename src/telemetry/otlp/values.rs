//! Attributes, and who we are to a collector.

use std::fmt::Display;

use super::proto::{AnyValue, InstrumentationScope, KeyValue, Resource, any_value::Value};
use crate::config::settings::Otlp;
use opentelemetry_proto::tonic::common::v1::ArrayValue;

/// An attribute that is text.
#[must_use]
pub fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// An attribute that is a number. What does not fit counts as the most that does.
#[must_use]
pub fn integer(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

/// An attribute that is true or false.
#[must_use]
pub fn truth(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

/// An attribute that is a list of texts.
#[must_use]
pub fn list<T: Display>(key: &str, values: impl IntoIterator<Item = T>) -> KeyValue {
    let values = values
        .into_iter()
        .map(|value| AnyValue {
            value: Some(Value::StringValue(value.to_string())),
        })
        .collect();
    attribute(key, Value::ArrayValue(ArrayValue { values }))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Who sends (OTel semantic conventions, "Service"): the service by its configured name, the process by the number that
/// also begins the ids of its verdicts, and the SPIFFE ID that it holds now, if it holds one.
#[must_use]
pub fn resource(settings: &Otlp, process: u64, own_id: Option<&dyn Display>) -> Resource {
    let mut attributes = vec![
        text("service.name", settings.service_name.as_str()),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", format!("{process:012x}")),
    ];
    if let Some(id) = own_id {
        attributes.push(text("svidecar.own_id", id.to_string()));
    }
    Resource {
        attributes,
        ..Resource::default()
    }
}

/// What makes the records: svidecar itself.
#[must_use]
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "svidecar".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}
