//! What must not leave the process is taken out of a record before it is written or sent.
//!
//! A [`Redactor`] is made of rules, in order: each names fields, what to look for in them, and what becomes of it. A named
//! profile is a list of such rules for what a law calls personal data ([`profile`]). It is asked by whoever turns a record
//! into text: the audit log, the log's lines of connections and verdicts, the verdicts' file, the access log, the traces.
//! The admin endpoint shows records as they are, also where a listener serves it to peers (`serve: admin`): who may see them is
//! said by policy. Events that make no record are not redacted either, and name no peer. Pure.
//!
//! Some fields make a record what it is, and are never touched: [`UNTOUCHED`], and words of closed sets within others. What has
//! several names is redacted under all of them.

mod find;
pub mod profile;

use std::fmt;
use std::io;
use std::net::IpAddr;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use ipnet::IpNet;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::config::settings::{Redact, RedactionFind, RedactionRule};
use crate::record::audit::{Actor, UNTOUCHED};
use find::Part;

/// What stands in place of what was masked.
const MASK: &str = "***";
/// What a keyed hash begins with, so that it is taken for nothing else.
const HASHED: &str = "hmac:";
/// Bytes of a keyed hash that are shown: enough to tell values apart.
const SHOWN: usize = 12;

/// Names of one thing. Who acts is the peer (inbound) or we (outbound), so a rule about either is one about `actor`.
const NAMES: &[(&str, &[&str])] = &[
    ("peer", &["peer_id", "actor"]),
    ("peer_id", &["peer", "actor"]),
    ("own_id", &["actor"]),
];
/// Within the values of these fields, what holds words of closed sets.
const WORDS_WITHIN: &[(&str, &[&str])] = &[
    ("nearest", &["condition"]),
    ("check", &["certificate"]),
    ("candidate", &["verdict"]),
];

/// Takes out of records what must not leave.
pub struct Redactor {
    rules: Vec<Compiled>,
    key: Option<hmac::Key>,
}

struct Compiled {
    /// The fields; `None` for all.
    fields: Option<Vec<String>>,
    find: find::Finder,
    action: Redact,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

/// Why rules cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedactorError {
    /// A pattern is none.
    #[error("`{pattern}` is no regular expression: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// There is something to hash, and no key.
    #[error("a rule hashes, and there is no key")]
    NoKey,
}

impl Redactor {
    /// Of these rules, in order. `key` is for those that hash.
    ///
    /// # Errors
    /// See [`RedactorError`].
    pub fn new(rules: &[RedactionRule], key: Option<&[u8]>) -> Result<Self, RedactorError> {
        if key.is_none() && rules.iter().any(|rule| rule.action == Redact::Hash) {
            return Err(RedactorError::NoKey);
        }
        let rules = rules.iter().map(|rule| {
            Ok(Compiled {
                fields: rule.fields.as_deref().map(all_names),
                find: find::Finder::new(&rule.find)?,
                action: rule.action,
            })
        });
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)),
        })
    }

    /// Writes a record as JSON without what must not leave; `fields` are its fields in their order.
    ///
    /// # Errors
    /// When the record cannot be serialized, or `out` cannot be written to.
    pub fn write_json(
        &self,
        record: &impl Serialize,
        fields: &[&str],
        out: impl io::Write,
    ) -> serde_json::Result<()> {
        struct Ordered<'a>(serde_json::Map<String, Value>, &'a [&'a str]);
        impl Serialize for Ordered<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(
                    self.1
                        .iter()
                        .filter_map(|field| Some((field, self.0.get(*field)?))),
                )
            }
        }
        let mut values = match serde_json::to_value(record)? {
            Value::Object(values) => values,
            _ => serde_json::Map::new(),
        };
        for (field, value) in &mut values {
            self.apply(field, value);
        }
        serde_json::to_writer(out, &Ordered(values, fields))
    }

    /// Redacts the value of a field.
    pub fn apply(&self, field: &str, value: &mut Value) {
        if UNTOUCHED.contains(&field) || is_no_peer(field, value) {
            return;
        }
        let words = WORDS_WITHIN.iter().find(|(name, _)| *name == field);
        let words = words.map_or(&[][..], |(_, words)| *words);
        for rule in &self.rules {
            let concerns = |fields: &Vec<String>| fields.iter().any(|name| name == field);
            if rule.fields.as_ref().is_none_or(concerns) {
                self.apply_rule(rule, value, words);
            }
        }
    }

    fn apply_rule(&self, rule: &Compiled, value: &mut Value, words: &[&str]) {
        match value {
            // Of a whole value that is dropped nothing is left, whatever it was.
            value if rule.action == Redact::Drop && rule.find.is_whole() => *value = Value::Null,
            Value::String(text) => *text = self.redacted(rule, text),
            Value::Array(list) => list
                .iter_mut()
                .for_each(|value| self.apply_rule(rule, value, words)),
            Value::Object(fields) => fields
                .iter_mut()
                .filter(|(name, _)| !words.contains(&name.as_str()))
                .for_each(|(_, value)| self.apply_rule(rule, value, words)),
            // As it is written. What is changed in it is a number no more.
            Value::Bool(_) | Value::Number(_) => {
                let text = value.to_string();
                let left = self.redacted(rule, &text);
                if left != text {
                    *value = Value::String(left);
                }
            }
            Value::Null => {}
        }
    }

    fn redacted(&self, rule: &Compiled, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for part in rule.find.parts(text) {
            out.push_str(text.get(from..part.range().start).unwrap_or_default());
            let found = text.get(part.range()).unwrap_or_default();
            out.push_str(&self.replaced(rule.action, &part, found));
            from = part.range().end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        out
    }

    fn replaced(&self, action: Redact, part: &Part, found: &str) -> String {
        match (action, part) {
            (Redact::Mask, _) => MASK.to_owned(),
            (Redact::Drop, _) => String::new(),
            // The trust domain names an organisation, and is what rules are read by.
            (Redact::Hash, Part::SpiffeId { path, .. }) => {
                let (trust_domain, path) = found.split_at_checked(*path).unwrap_or((found, ""));
                if path.is_empty() {
                    trust_domain.to_owned()
                } else {
                    format!("{trust_domain}/{}", self.hashed(path))
                }
            }
            (Redact::Hash, Part::Address { ip, .. }) => self.hashed(&ip.to_string()),
            (Redact::Hash, Part::Text { .. } | Part::Name { .. }) => self.hashed(found),
            (Redact::KeepPrefix { ipv4, ipv6, .. }, Part::Address { ip, length, .. }) => {
                let most = match ip {
                    IpAddr::V4(_) => ipv4,
                    IpAddr::V6(_) => ipv6,
                };
                match IpNet::new(*ip, length.map_or(most, |length| length.min(most))) {
                    Ok(network) => network.trunc().to_string(),
                    Err(_) => MASK.to_owned(),
                }
            }
            // It has no trust domain and no path.
            (Redact::KeepPrefix { .. }, Part::Name { .. }) => MASK.to_owned(),
            (Redact::KeepPrefix { keep, .. }, Part::SpiffeId { path, .. }) => {
                let (trust_domain, path) = found.split_at_checked(*path).unwrap_or((found, ""));
                let segments: Vec<_> = path.split('/').skip(1).collect();
                let kept: String = segments
                    .iter()
                    .take(keep)
                    .map(|segment| format!("/{segment}"))
                    .collect();
                let rest = if segments.len() > keep { "/…" } else { "" };
                format!("{trust_domain}{kept}{rest}")
            }
            (Redact::KeepPrefix { keep, .. }, Part::Text { .. }) => match found.char_indices().nth(keep) {
                Some((end, _)) => format!("{}…", found.get(..end).unwrap_or_default()),
                None => found.to_owned(),
            },
        }
    }

    /// A keyed hash (HMAC-SHA-256, RFC 2104): the same text has the same one under the same key, and nobody can try texts
    /// without it.
    fn hashed(&self, text: &str) -> String {
        let Some(key) = &self.key else {
            return MASK.to_owned();
        };
        let tag = hmac::sign(key, text.as_bytes());
        let shown = tag.as_ref().get(..SHOWN).unwrap_or_default();
        HASHED.to_owned() + &HEXLOWER.encode(shown)
    }
}

/// These fields, and with each the other names of what it holds. `peer_id` of a verdict is `peer` in the audit log, and there
/// `actor`, too.
#[must_use]
fn all_names(fields: &[String]) -> Vec<String> {
    let mut all = fields.to_vec();
    for field in fields {
        let named = NAMES.iter().find(|(name, _)| name == field);
        for other in named.map_or(&[][..], |(_, others)| *others) {
            if !all.iter().any(|name| name == other) {
                all.push((*other).to_owned());
            }
        }
    }
    all
}

/// Whether this is an actor that is no peer: a word of a closed set.
fn is_no_peer(field: &str, value: &Value) -> bool {
    let is_word = |text| Actor::ALL.iter().any(|actor| actor.as_str() == text);
    field == "actor" && value.as_str().is_some_and(is_word)
}

/// What rules do, for a person: a line for each.
#[must_use]
pub fn in_words(rules: &[RedactionRule]) -> Vec<String> {
    rules
        .iter()
        .map(|rule| {
            let what = match &rule.find {
                RedactionFind::Value => "the whole value".to_owned(),
                RedactionFind::Ip => "every IP address".to_owned(),
                RedactionFind::SpiffeId => "every SPIFFE ID".to_owned(),
                RedactionFind::Pattern(pattern) => format!("what matches `{pattern}`"),
            };
            let place = match &rule.fields {
                Some(fields) => {
                    let fields = all_names(fields);
                    let fields: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
                    fields.join(", ")
                }
                None => "all fields".to_owned(),
            };
            let becomes = match (rule.action, &rule.find) {
                (Redact::Mask, _) => "is masked (`***`)".to_owned(),
                (Redact::Drop, _) => "is left out".to_owned(),
                (Redact::Hash, RedactionFind::SpiffeId) => {
                    "keeps its trust domain; its path becomes a keyed hash".to_owned()
                }
                (Redact::Hash, RedactionFind::Ip) => "becomes a keyed hash, without its port".to_owned(),
                (Redact::Hash, _) => "becomes a keyed hash".to_owned(),
                (Redact::KeepPrefix { ipv4, ipv6, .. }, RedactionFind::Ip) => {
                    format!("becomes its network (IPv4 /{ipv4}, IPv6 /{ipv6}), without its port")
                }
                (Redact::KeepPrefix { keep, .. }, RedactionFind::SpiffeId) => {
                    format!("keeps its trust domain and {keep} path segments")
                }
                (Redact::KeepPrefix { keep, .. }, _) => format!("keeps its first {keep} characters"),
            };
            format!("{place}: {what} {becomes}")
        })
        .collect()
}

#[cfg(test)]
mod tests;
