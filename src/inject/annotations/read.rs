//! Reading the annotations of one pod template, with a finding for each that will not do.

use super::{
    CONFIG, DEFAULT_DRAIN_SECONDS, DEFAULT_MAX_CONNECTIONS, DRAIN_TIMEOUT, IMAGE, INBOUND, INJECT, IPV6,
    LEFT_BY_US, MAX_CONNECTIONS, OUTBOUND, PEER, POLICY, PREFIX, Source, TRANSPARENT, WANTED, Wanted, any,
    is_image, is_object_name,
};
use crate::config::duration;
use crate::inject::tree::Node;
use crate::yaml::{Findings, Place, closest};

const MAX_DRAIN_SECONDS: u64 = 3600;

/// One annotation of ours.
pub(super) struct Annotation<'n> {
    /// Without the prefix.
    pub(super) name: &'n str,
    value: &'n str,
    pub(super) place: Place,
}

/// The annotations of one pod template.
pub(super) struct Reader<'n, 'f> {
    pub(super) all: Vec<Annotation<'n>>,
    /// What the object is called in findings.
    pub(super) object: &'n str,
    pub(super) findings: &'f mut Findings,
}

/// Reads what `annotations` (a pod template's; perhaps none) want. `None` when no sidecar is wanted, or when findings say what is wrong.
/// `object` is what findings call the workload.
pub(in crate::inject) fn read(
    annotations: Option<&Node>,
    object: &str,
    findings: &mut Findings,
) -> Option<Wanted> {
    let before = findings.errors();
    let mut reader = Reader {
        all: Vec::new(),
        object,
        findings,
    };
    reader.collect(annotations);
    let wanted = reader.wanted();
    (reader.findings.errors() == before).then_some(wanted)?
}

/// Whether there are annotations of ours.
pub(in crate::inject) fn has_any(annotations: Option<&Node>) -> bool {
    matches!(annotations, Some(Node::Map(entries)) if entries.iter().any(|(key, _)| key.text.starts_with(PREFIX)))
}

impl<'n> Reader<'n, '_> {
    fn collect(&mut self, annotations: Option<&'n Node>) {
        let Some(Node::Map(entries)) = annotations else {
            return;
        };
        let known: Vec<&str> = WANTED.iter().map(|(name, _)| *name).collect();
        for (key, value) in entries {
            let Some(name) = key.text.strip_prefix(PREFIX) else {
                continue;
            };
            if LEFT_BY_US.contains(&name) {
                continue;
            }
            let is_peer = name
                .strip_prefix(PEER)
                .is_some_and(|listener| !listener.is_empty());
            if !is_peer && (name == PEER || !known.contains(&name)) {
                let message = format!("{}: there is no annotation `{}`", self.object, key.text);
                let help = match closest(name, &known) {
                    Some(meant) => format!("did you mean `{PREFIX}{meant}`?"),
                    None => format!("those that are: {PREFIX}{}", known.join(&format!(", {PREFIX}"))),
                };
                self.findings.error_with_help(key.place, message, help);
                continue;
            }
            match value {
                Node::Scalar(scalar) if scalar.is_string() => self.all.push(Annotation {
                    name,
                    value: scalar.text.trim(),
                    place: scalar.place,
                }),
                Node::Scalar(scalar) => {
                    let message = format!(
                        "{}: `{}` must be text; YAML reads `{}` as something else",
                        self.object, key.text, scalar.text
                    );
                    self.findings
                        .error_with_help(scalar.place, message, "put it in quotes");
                }
                _ => {
                    let message = format!("{}: `{}` must be text", self.object, key.text);
                    self.findings.error_with_help(key.place, message, expected(name));
                }
            }
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<(&'n str, Place)> {
        let found = self.all.iter().find(|annotation| annotation.name == name)?;
        Some((found.value, found.place))
    }

    /// A finding about one annotation.
    pub(super) fn bad(&mut self, place: Place, name: &str, why: &str) {
        let message = format!("{}: `{PREFIX}{name}`: {why}", self.object);
        self.findings.error_with_help(place, message, expected(name));
    }

    fn truth(&mut self, name: &str) -> Option<bool> {
        match self.find(name)? {
            ("true", _) => Some(true),
            ("false", _) => Some(false),
            (other, place) => {
                self.bad(place, name, &format!("`{other}` is neither"));
                None
            }
        }
    }

    fn wanted(&mut self) -> Option<Wanted> {
        let inject = self.truth(INJECT);
        if inject.is_none() && self.find(INJECT).is_none() && !self.all.is_empty() {
            let place = self.all.first().map_or_else(Place::default, |first| first.place);
            let message = format!(
                "{}: has annotations of ours, but no `{PREFIX}{INJECT}`",
                self.object
            );
            let help = format!("say `{PREFIX}{INJECT}: \"true\"`, or \"false\" to leave the pods alone");
            self.findings.error_with_help(place, message, help);
        }
        if inject != Some(true) {
            return None;
        }
        let place = [INBOUND, OUTBOUND, CONFIG, INJECT]
            .iter()
            .find_map(|name| self.find(name))
            .map_or_else(Place::default, |(_, place)| place);
        let transparent = self.truth(TRANSPARENT).unwrap_or(false);
        let ipv6 = self.truth(IPV6).unwrap_or(false);
        let source = self.source(transparent, ipv6, place);
        let sockets = matches!(&source, Source::Listeners(inbound, outbound)
            if inbound.iter().any(|l| l.target.starts_with("unix:")) || outbound.iter().any(|l| l.listen.starts_with("unix:")));
        let policy = self.config_map(POLICY);
        let needs_policy = matches!(&source, Source::Listeners(inbound, _) if !inbound.is_empty());
        if needs_policy && self.find(POLICY).is_none() {
            let message = format!(
                "{}: `{PREFIX}{POLICY}` is missing: nobody is let in without a policy",
                self.object
            );
            self.findings.error_with_help(place, message, expected(POLICY));
        }
        Some(Wanted {
            source,
            policy,
            image: self.image(),
            transparent,
            ipv6,
            mounts: self.mounts(),
            max_connections: self.max_connections(),
            drain_seconds: self.drain_seconds(),
            sockets,
            redirection: self.redirection(transparent),
            place,
        })
    }

    fn source(&mut self, transparent: bool, ipv6: bool, place: Place) -> Source {
        let (inbound, outbound) = (self.inbound(any(ipv6)), self.outbound());
        let listeners = [INBOUND, OUTBOUND]
            .iter()
            .find_map(|name| Some((*name, self.find(name)?.1)));
        if let Some((_, config_place)) = self.find(CONFIG) {
            let config = self.config_map(CONFIG).unwrap_or_default();
            if let Some((name, _)) = listeners {
                let why = format!("excludes `{PREFIX}{name}`: the listeners stand in that config");
                self.bad(config_place, CONFIG, &why);
            }
            return Source::Own(config);
        }
        if transparent {
            let why = format!(
                "needs `{PREFIX}{CONFIG}`: who may answer at which destination is more than annotations can say"
            );
            self.bad(place, TRANSPARENT, &why);
        } else if listeners.is_none() {
            let message = format!("{}: the sidecar would have no listener", self.object);
            let help = format!(
                "say `{PREFIX}{INBOUND}`, `{PREFIX}{OUTBOUND}`, or `{PREFIX}{CONFIG}` for a config of your own"
            );
            self.findings.error_with_help(place, message, help);
        }
        Source::Listeners(inbound, outbound)
    }

    fn config_map(&mut self, name: &'static str) -> Option<String> {
        let (value, place) = self.find(name)?;
        if is_object_name(value) {
            return Some(value.to_owned());
        }
        self.bad(
            place,
            name,
            &format!("`{value}` cannot be the name of a ConfigMap"),
        );
        None
    }

    fn image(&mut self) -> Option<String> {
        let (value, place) = self.find(IMAGE)?;
        if is_image(value) {
            return Some(value.to_owned());
        }
        self.bad(place, IMAGE, &format!("`{value}` is none"));
        None
    }

    fn max_connections(&mut self) -> u64 {
        let Some((value, place)) = self.find(MAX_CONNECTIONS) else {
            return DEFAULT_MAX_CONNECTIONS;
        };
        match value.parse() {
            Ok(number @ 1..=1_000_000) => number,
            _ => {
                self.bad(place, MAX_CONNECTIONS, &format!("`{value}` is none"));
                DEFAULT_MAX_CONNECTIONS
            }
        }
    }

    fn drain_seconds(&mut self) -> u64 {
        let Some((value, place)) = self.find(DRAIN_TIMEOUT) else {
            return DEFAULT_DRAIN_SECONDS;
        };
        let seconds = duration::parse(value)
            .filter(|span| span.subsec_nanos() == 0)
            .map(|span| span.as_secs());
        match seconds {
            Some(seconds @ 1..=MAX_DRAIN_SECONDS) => seconds,
            _ => {
                self.bad(place, DRAIN_TIMEOUT, &format!("`{value}` is no such time"));
                DEFAULT_DRAIN_SECONDS
            }
        }
    }
}

pub(super) fn expected(name: &str) -> String {
    let name = if name.starts_with(PEER) { PEER } else { name };
    let form = WANTED
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, form)| form);
    format!("expected {form}")
}
