//! Budgets as written.

use std::sync::Arc;

use super::values::{Item, description, list, listeners, name, pattern, ports};
use crate::policy::budget::Rate;
use crate::spiffe::IdPattern;
use crate::yaml::{Fields, Findings, Node, Place, Value, one_of};

/// The fields of a budget.
pub(in crate::policy) const BUDGET: &[&str] = &[
    "name",
    "description",
    "to",
    "ports",
    "from",
    "connections",
    "connections_per_second",
    "burst",
    "bytes_per_second",
];
/// Of these it has at least one.
const BOUNDS: &[&str] = &["connections", "connections_per_second", "bytes_per_second"];
/// The greatest count in a budget.
const MAX_COUNT: u64 = 1_000_000_000;
/// The least bytes a second: less would hold a single record back for minutes.
const MIN_BYTES: u64 = 1 << 10;
/// The most bytes a second: more than any link has.
const MAX_BYTES: u64 = 1 << 40;

/// One budget as written.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenBudget {
    /// Its name and where that stands.
    pub name: (Arc<str>, Place),
    /// For people.
    pub description: Option<Arc<str>>,
    /// The listeners.
    pub to: Option<Vec<(Arc<str>, Place)>>,
    /// The listeners by their ports.
    pub ports: Option<Vec<(u16, Place)>>,
    /// The peers.
    pub from: Option<Vec<Item<IdPattern>>>,
    /// The most connections at once.
    pub connections: Option<u32>,
    /// The most new connections over time.
    pub connections_per_second: Option<Rate>,
    /// The most payload bytes a second.
    pub bytes_per_second: Option<u64>,
}

pub(super) fn budget(node: &Node, index: usize, findings: &mut Findings) -> Option<WrittenBudget> {
    let fields = Fields::of(node, &format!("budgets[{index}]"), BUDGET, findings)?;
    let name = name(&fields, "a budget", findings);
    let description = description(&fields, findings);
    let to = listeners(&fields, findings);
    let ports = ports(&fields, findings);
    let from = list(&fields, "from", pattern, findings);
    if !BOUNDS.iter().any(|bound| fields.mentions(bound)) {
        let message = format!("`{}` bounds nothing", fields.path);
        findings.error_with_help(fields.place, message, format!("say {}", one_of(BOUNDS)));
    }
    let connections = count(&fields, "connections", findings);
    let per_second = count(&fields, "connections_per_second", findings);
    let burst = count(&fields, "burst", findings);
    if let Some(place) = fields.key_place("burst")
        && !fields.mentions("connections_per_second")
    {
        let help = "say both, or take `burst` out";
        findings.error_with_help(place, "`burst` goes with `connections_per_second`", help);
    }
    let bytes_per_second = bytes(&fields, "bytes_per_second", findings);
    Some(WrittenBudget {
        name: name?,
        description,
        to,
        ports,
        from,
        connections,
        connections_per_second: per_second.map(|per_second| Rate {
            per_second,
            burst: burst.unwrap_or(per_second),
        }),
        bytes_per_second,
    })
}

fn count(fields: &Fields<'_>, field: &str, findings: &mut Findings) -> Option<u32> {
    let count = fields.integer(field, 1, MAX_COUNT, findings)?;
    u32::try_from(count).ok()
}

/// A number of bytes: `65536`, `64KiB`, `10MiB`, `1GiB`.
fn bytes(fields: &Fields<'_>, field: &str, findings: &mut Findings) -> Option<u64> {
    let node = fields.get(field)?;
    let bytes = match &node.value {
        Value::Integer(bytes) => Some(*bytes),
        Value::Text(text) => parse_bytes(text),
        _ => None,
    };
    match bytes {
        Some(bytes) if (MIN_BYTES..=MAX_BYTES).contains(&bytes) => Some(bytes),
        Some(_) => {
            let message = format!("`{}` must be from 1KiB to 1TiB", fields.name_of(field));
            findings.error(node.place, message);
            None
        }
        None => {
            let message = format!("`{}` must be a number of bytes", fields.name_of(field));
            findings.error_with_help(node.place, message, "for example `64KiB`, `10MiB` or `1GiB`");
            None
        }
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))
        .unwrap_or((text, 0));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
