//! What is taken out of records before they leave.

use std::sync::Arc;

use super::Context;
use crate::config::settings::{
    Listener, ListenerKind, OwnPages, Redact, Redaction, RedactionFind, RedactionProfile, RedactionRule,
    Upstream,
};
use crate::record::{audit, decision};
use crate::yaml::{Fields, Findings, Node, Value, closest};

pub(super) const REDACTION: &[&str] = &["profile", "key_file", "rules"];
pub(super) const RULE: &[&str] = &["fields", "find", "action", "keep", "ipv4", "ipv6"];

/// More rules than anybody reviews.
const MAX_RULES: usize = 100;

pub(super) fn read(
    top: &Fields<'_>,
    context: &Context<'_>,
    listeners: &[Arc<Listener>],
    findings: &mut Findings,
) -> Redaction {
    let Some(fields) = top
        .get("redaction")
        .and_then(|node| Fields::of(node, "redaction", REDACTION, findings))
    else {
        return Redaction::default();
    };
    let profiles = RedactionProfile::ALL
        .iter()
        .map(|profile| (profile.as_str(), *profile));
    let profile = fields.word("profile", &profiles.collect::<Vec<_>>(), findings);
    let key_file = fields
        .text("key_file", findings)
        .map(|(text, _)| context.path(text));
    let rules = fields.list("rules", MAX_RULES, findings).unwrap_or_default();
    let rules: Vec<_> = rules
        .iter()
        .enumerate()
        .filter_map(|(place, node)| rule(node, &format!("redaction.rules[{place}]"), findings))
        .collect();
    let hashes = profile.is_some() || rules.iter().any(|rule| rule.action == Redact::Hash);
    if hashes && key_file.is_none() && !fields.mentions("key_file") {
        let help = "make one of 32 random bytes that only we can read, keep it apart, and name it: `key_file: redaction.key`";
        findings.error_with_help(
            fields.place,
            "`redaction.key_file` is missing: something is hashed",
            help,
        );
    }
    let redaction = Redaction {
        rules,
        profile,
        key_file,
    };
    for listener in listeners.iter().filter(|listener| shows_all(listener)) {
        if redaction != Redaction::default() {
            let message = format!(
                "the listener `{}` shows records to peers as they are: `redaction` is not for the admin endpoint",
                listener.name
            );
            let help = "let in those alone who may see them, or show them the metrics: `serve: metrics`";
            findings.warn(fields.place, message, help);
        }
    }
    redaction
}

/// Whether peers are shown the admin endpoint there.
fn shows_all(listener: &Listener) -> bool {
    let ListenerKind::Inbound { upstream, .. } = &listener.kind else {
        return false;
    };
    *upstream == Upstream::Own(OwnPages::Admin)
}

fn rule(node: &Node, path: &str, findings: &mut Findings) -> Option<RedactionRule> {
    let fields = Fields::of(node, path, RULE, findings)?;
    let names = fields.texts("fields", 64, findings).map(|names| {
        let names = names.into_iter().filter(|(name, place)| {
            let message = match field_problem(name) {
                None => return true,
                Some(message) => message,
            };
            let help = closest(name, &known_fields()).map_or_else(
                || "fields are named as in docs/observability.md and docs/audit.md".to_owned(),
                |word| format!("did you mean `{word}`?"),
            );
            findings.error_with_help(*place, format!("`{path}.fields`: {message}"), help);
            false
        });
        names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    });
    let find = find(&fields, findings);
    let bits = |name, most, findings: &mut Findings| {
        let number = fields.integer(name, 0, most, findings);
        number.and_then(|number| u8::try_from(number).ok())
    };
    let (ipv4, ipv6) = (bits("ipv4", 32, findings), bits("ipv6", 128, findings));
    let keep = fields.integer("keep", 0, 4096, findings);
    fields.require("action", "mask", findings)?;
    let prefix = Redact::KeepPrefix {
        keep: keep.and_then(|keep| usize::try_from(keep).ok()).unwrap_or(0),
        ipv4: ipv4.unwrap_or(24),
        ipv6: ipv6.unwrap_or(48),
    };
    let actions = [
        ("mask", Redact::Mask),
        ("hash", Redact::Hash),
        ("drop", Redact::Drop),
        ("keep_prefix", prefix),
    ];
    let action = fields.word("action", &actions, findings)?;
    for name in ["keep", "ipv4", "ipv6"] {
        if let (Some(place), true) = (fields.key_place(name), action != prefix) {
            let message = format!("`{path}.{name}` belongs to `action: keep_prefix`");
            findings.error_with_help(place, message, "take it out, or write `action: keep_prefix`");
        }
    }
    Some(RedactionRule {
        fields: names,
        find: find?,
        action,
    })
}

/// `value` (or nothing), `ip`, `spiffe_id`, or `{ pattern: REGEX }`.
fn find(fields: &Fields<'_>, findings: &mut Findings) -> Option<RedactionFind> {
    let Some(node) = fields.get("find") else {
        return (!fields.mentions("find")).then_some(RedactionFind::Value);
    };
    if let Value::Map(_) = &node.value {
        let path = fields.name_of("find");
        let inner = Fields::of(node, &path, &["pattern"], findings)?;
        let (pattern, place) = inner.required_text("pattern", "[0-9]+", findings)?;
        return match regex_lite::Regex::new(pattern) {
            Ok(_) => Some(RedactionFind::Pattern(pattern.to_owned())),
            Err(error) => {
                let message = format!("`{path}.pattern` is no regular expression: {error}");
                let help = r"what is a sign in one and is meant as itself has a `\` before it: `\(`, `\.`";
                findings.error_with_help(place, message, help);
                None
            }
        };
    }
    let words = ["value", "ip", "spiffe_id"].map(|word| (word, word));
    fields.word("find", &words, findings).map(|word| match word {
        "ip" => RedactionFind::Ip,
        "spiffe_id" => RedactionFind::SpiffeId,
        _ => RedactionFind::Value,
    })
}

fn known_fields() -> Vec<&'static str> {
    let mut fields: Vec<_> = audit::FIELDS.iter().chain(&decision::FIELDS).copied().collect();
    fields.retain(|field| !audit::UNTOUCHED.contains(field));
    fields.sort_unstable();
    fields.dedup();
    fields
}

fn field_problem(name: &str) -> Option<String> {
    if audit::UNTOUCHED.contains(&name) {
        return Some(format!(
            "`{name}` makes a record what it is, and is never touched"
        ));
    }
    let known = known_fields().contains(&name);
    (!known).then(|| format!("no record has a field `{name}`"))
}
