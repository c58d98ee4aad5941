//! What two policies say otherwise, rule by rule: what there is to review where no decisions were recorded.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::clock::rfc3339;
use crate::policy::{Policy, Rule};

/// Rules that are in one policy alone, and those that say something else. A rule is known by its name; where it stands,
/// and what it says of itself, plays no part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleDiff {
    /// In the old policy alone: name and place.
    pub removed: Vec<(String, String)>,
    /// In the new policy alone: name and place.
    pub added: Vec<(String, String)>,
    /// In both: name, and each field with what it said and says.
    pub changed: Vec<(String, Vec<FieldChange>)>,
}

/// A field of a rule that says something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Its name.
    pub field: &'static str,
    /// What it said; none where it was left out.
    pub old: Option<String>,
    /// What it says.
    pub new: Option<String>,
}

/// Compares two policies.
#[must_use]
pub fn rules(old: &Policy, new: &Policy) -> RuleDiff {
    let by_name = |policy| -> BTreeMap<String, Vec<(&'static str, Option<String>)>> {
        rules_of(policy)
            .map(|rule| (rule.name().to_string(), said(rule)))
            .collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let only = |policy, other: &BTreeMap<String, _>| {
        rules_of(policy)
            .filter(|rule| !other.contains_key(&**rule.name()))
            .map(named)
            .collect()
    };
    let mut changed = Vec::new();
    for (name, said) in &before {
        let Some(says) = after.get(name) else { continue };
        let fields: Vec<FieldChange> = said
            .iter()
            .zip(says)
            .filter(|(old, new)| old != new)
            .map(|((field, old), (_, new))| FieldChange {
                field,
                old: old.clone(),
                new: new.clone(),
            })
            .collect();
        if !fields.is_empty() {
            changed.push((name.clone(), fields));
        }
    }
    RuleDiff {
        removed: only(old, &after),
        added: only(new, &before),
        changed,
    }
}

fn rules_of(policy: &Policy) -> std::slice::Iter<'_, Rule> {
    policy.rules().iter()
}

fn named(rule: &Rule) -> (String, String) {
    let (file, line) = rule.place();
    (rule.name().to_string(), format!("{file}:{line}"))
}

/// Each field that decides, in the order of the documentation. The order of a list plays no part.
fn said(rule: &Rule) -> Vec<(&'static str, Option<String>)> {
    fn texts<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }
    let joined = |mut values: Vec<String>| {
        values.sort();
        values.dedup();
        values.join(", ")
    };
    let mut said = vec![
        ("action", Some(rule.action().to_string())),
        ("to", rule.to().map(texts).map(joined)),
        ("ports", rule.ports().map(texts).map(joined)),
    ];
    let lists = rule.resolved().into_iter();
    said.extend(lists.map(|(field, values)| (field, values.map(joined))));
    said.push(("not_before", rule.not_before().map(rfc3339)));
    said.push(("expires", rule.expires().map(rfc3339)));
    said
}

impl RuleDiff {
    /// Whether both policies say the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.changed.is_empty()
    }
}

impl fmt::Display for RuleDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no rule says anything else");
        }
        let mut lines = Vec::new();
        for (sign, rules) in [('-', &self.removed), ('+', &self.added)] {
            lines.extend(
                rules
                    .iter()
                    .map(|(name, place)| format!("{sign} {name} ({place})")),
            );
        }
        for (name, fields) in &self.changed {
            lines.push(format!("~ {name}"));
            for FieldChange { field, old, new } in fields {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(left out)".to_owned());
                lines.push(format!("    {field}: {} -> {}", shown(old), shown(new)));
            }
        }
        f.write_str(&lines.join("\n"))
    }
}
