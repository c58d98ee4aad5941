//! What a workload wants, read from the annotations of its pods.

use super::sidecar::SOCKETS_FOLDER;
use super::tree::Node;
use crate::config::{duration, is_listener_name};
use crate::yaml::{Findings, Place, closest};

/// What all our annotations begin with.
pub const PREFIX: &str = "svidecar.dev/";

/// Whether the pods get a sidecar.
pub const INJECT: &str = "inject";
/// Listeners in front of the application.
pub const INBOUND: &str = "inbound";
/// Listeners towards others.
pub const OUTBOUND: &str = "outbound";
/// Who may answer at an outbound listener; the listener's name follows.
pub const PEER: &str = "peer.";
/// The ConfigMap with the policy.
pub const POLICY: &str = "policy";
/// A ConfigMap with a config of one's own.
pub const CONFIG: &str = "config";
/// Whether an init container redirects the application's connections.
pub const TRANSPARENT: &str = "transparent";
/// The image of the sidecar.
pub const IMAGE: &str = "image";
/// How many connections the sidecar serves at once.
pub const MAX_CONNECTIONS: &str = "max-connections";
/// How long connections may go on after the application has ended.
pub const DRAIN_TIMEOUT: &str = "drain-timeout";

/// The annotations that people set, each with what it must look like. `docs/inject.md` has the same table.
pub const WANTED: &[(&str, &str)] = &[
    (INJECT, "`\"true\"` or `\"false\"`"),
    (
        INBOUND,
        "entries `[NAME:][ADDRESS:]PORT=TARGET`, such as `orders:8443=8080`, with commas between; TARGET is a port, `HOST:PORT`, `unix`, `metrics` or `admin`",
    ),
    (
        OUTBOUND,
        "entries `NAME:PORT=HOST:PORT` or `NAME:unix=HOST:PORT`, such as `payments:9001=payments.shop.svc:8443`, with commas between",
    ),
    (
        PEER,
        "SPIFFE ID patterns, such as `spiffe://example.org/ns/shop/sa/payments`, with commas between",
    ),
    (POLICY, "the name of a ConfigMap that holds policy files"),
    (
        CONFIG,
        "the name of a ConfigMap whose key `svidecar.yaml` is a config file",
    ),
    (TRANSPARENT, "`\"true\"` or `\"false\"`"),
    (
        IMAGE,
        "the name of an image, such as `registry.example/svidecar:1.0`",
    ),
    (MAX_CONNECTIONS, "a whole number from 1 to 1000000, in quotes"),
    (
        DRAIN_TIMEOUT,
        "a whole number and `s` or `m`, such as `25s`, up to an hour",
    ),
];

/// Those that an earlier run left. They are written by us alone.
pub const LEFT_BY_US: &[&str] = &[INJECTED, CONFIG_HASH, GRACE_RAISED];
/// The version that injected.
pub const INJECTED: &str = "injected";
/// What the generated config is, so that another one makes new pods.
pub const CONFIG_HASH: &str = "config-hash";
/// That `terminationGracePeriodSeconds` was raised: `10 to 35`, or `unset to 35`.
pub const GRACE_RAISED: &str = "grace-period-raised";

/// How many connections are served at once where nothing says it.
pub const DEFAULT_MAX_CONNECTIONS: u64 = 2000;
/// The drain in seconds where nothing says it: the default of `limits.drain_timeout`.
pub const DEFAULT_DRAIN_SECONDS: u64 = 25;
const MAX_DRAIN_SECONDS: u64 = 3600;

/// A target, or an address to listen on, in the folder that application and sidecar share.
const UNIX: &str = "unix";

/// One listener in front of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Its name, if it is said.
    pub name: Option<String>,
    /// Where it listens.
    pub listen: String,
    /// The port of `listen`.
    pub port: u16,
    /// The application, or `metrics` or `admin`.
    pub target: String,
}

/// One listener towards another service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: String,
    /// Whom it calls.
    pub connect: String,
    /// Who may answer.
    pub peer: Vec<String>,
}

/// Where the sidecar's config comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is made of these listeners.
    Listeners(Vec<Inbound>, Vec<Outbound>),
    /// It is in this ConfigMap.
    Own(String),
}

/// What a workload wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The config.
    pub source: Source,
    /// The ConfigMap of the policy.
    pub policy: Option<String>,
    /// The image, where it is not the one of the command line.
    pub image: Option<String>,
    /// Whether connections are redirected.
    pub transparent: bool,
    /// How many connections at once.
    pub max_connections: u64,
    /// The drain, in seconds.
    pub drain_seconds: u64,
    /// Whether application and sidecar share a folder of sockets.
    pub sockets: bool,
    /// Where the annotations stand that listeners are made of, for findings about them.
    pub place: Place,
}

/// One annotation of ours.
struct Annotation<'n> {
    /// Without the prefix.
    name: &'n str,
    value: &'n str,
    place: Place,
}

/// The annotations of one pod template.
struct Reader<'n, 'f> {
    all: Vec<Annotation<'n>>,
    /// What the object is called in findings.
    object: &'n str,
    findings: &'f mut Findings,
}

/// Reads what `annotations` (a pod template's; perhaps none) want. `None` when no sidecar is wanted, or when findings say what is wrong.
/// `object` is what findings call the workload.
pub(super) fn read(annotations: Option<&Node>, object: &str, findings: &mut Findings) -> Option<Wanted> {
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
pub(super) fn has_any(annotations: Option<&Node>) -> bool {
    matches!(annotations, Some(Node::Map(entries)) if entries.iter().any(|(key, _)| key.text.starts_with(PREFIX)))
}

/// Finds fault with annotations of ours on the workload itself, where they do nothing.
pub(super) fn refuse_misplaced(annotations: Option<&Node>, object: &str, findings: &mut Findings) {
    let Some(Node::Map(entries)) = annotations else {
        return;
    };
    for (key, _) in entries {
        if key.text.starts_with(PREFIX) {
            let message = format!(
                "{object}: `{}` stands on the workload and would do nothing",
                key.text
            );
            let help = "move it to the annotations of the pod template: `spec.template.metadata.annotations`";
            findings.error_with_help(key.place, message, help);
        }
    }
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

    fn find(&self, name: &str) -> Option<(&'n str, Place)> {
        let found = self.all.iter().find(|annotation| annotation.name == name)?;
        Some((found.value, found.place))
    }

    /// A finding about one annotation.
    fn bad(&mut self, place: Place, name: &str, why: &str) {
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
        let source = self.source(transparent, place);
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
            max_connections: self.max_connections(),
            drain_seconds: self.drain_seconds(),
            sockets,
            place,
        })
    }

    fn source(&mut self, transparent: bool, place: Place) -> Source {
        let (inbound, outbound) = (self.inbound(), self.outbound());
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

    /// The entries of a list, each cut at its first `=`.
    fn entries(&mut self, name: &'static str) -> Vec<(&'n str, &'n str, Place)> {
        let Some((value, place)) = self.find(name) else {
            return Vec::new();
        };
        if value.is_empty() {
            self.bad(place, name, "has no entry");
        }
        let mut entries = Vec::new();
        for entry in split(value) {
            match entry.split_once('=') {
                Some((left, right)) if !left.trim().is_empty() && !right.trim().is_empty() => {
                    entries.push((left.trim(), right.trim(), place));
                }
                _ => self.bad(place, name, &format!("`{entry}` has not the form `…=…`")),
            }
        }
        entries
    }

    fn inbound(&mut self) -> Vec<Inbound> {
        let mut all: Vec<Inbound> = Vec::new();
        for (left, target, place) in self.entries(INBOUND) {
            let (name, listen) = named(left);
            let Some((listen, port)) = listen_address(listen, "0.0.0.0") else {
                self.bad(
                    place,
                    INBOUND,
                    &format!("`{listen}` is neither a port nor an address with one"),
                );
                continue;
            };
            if let Some(name) = name.filter(|name| !is_listener_name(name)) {
                self.bad(place, INBOUND, &format!("`{name}` cannot be a listener's name"));
            }
            if target.starts_with("unix:") || (target == UNIX && name.is_none()) {
                let why =
                    format!("`{target}`: write `NAME:PORT=unix`; the socket is `{SOCKETS_FOLDER}/NAME.sock`");
                self.bad(place, INBOUND, &why);
                continue;
            }
            all.push(Inbound {
                name: name.map(str::to_owned),
                listen,
                port,
                target: match (target, name) {
                    (UNIX, Some(name)) => socket(name),
                    _ => local_target(target),
                },
            });
        }
        if let (true, Some((_, place))) = (
            all.len() > 1 && all.iter().any(|l| l.name.is_none()),
            self.find(INBOUND),
        ) {
            self.bad(place, INBOUND, "of several listeners each needs a name");
        }
        all
    }

    fn outbound(&mut self) -> Vec<Outbound> {
        let mut all: Vec<Outbound> = Vec::new();
        for (left, connect, place) in self.entries(OUTBOUND) {
            let (Some(name), listen) = named(left) else {
                self.bad(place, OUTBOUND, &format!("`{left}` has no name before its port"));
                continue;
            };
            if !is_listener_name(name) {
                self.bad(place, OUTBOUND, &format!("`{name}` cannot be a listener's name"));
                continue;
            }
            let address = match listen {
                UNIX => Some(socket(name)),
                other => listen_address(other, "127.0.0.1").map(|(address, _)| address),
            };
            let Some(address) = address else {
                self.bad(
                    place,
                    OUTBOUND,
                    &format!("`{listen}` is neither a port nor an address with one"),
                );
                continue;
            };
            let peer_name = format!("{PEER}{name}");
            let peer = self
                .find(&peer_name)
                .map(|(value, _)| split(value).map(str::to_owned).collect());
            let peer: Vec<String> = peer.unwrap_or_default();
            if peer.is_empty() {
                let message = format!(
                    "{}: `{PREFIX}{peer_name}` is missing: who may answer?",
                    self.object
                );
                self.findings.error_with_help(place, message, expected(PEER));
            }
            all.push(Outbound {
                name: name.to_owned(),
                listen: address,
                connect: connect.to_owned(),
                peer,
            });
        }
        let strays: Vec<(&str, Place)> = self
            .all
            .iter()
            .filter(|annotation| {
                let name = annotation.name.strip_prefix(PEER);
                name.is_some_and(|name| !all.iter().any(|listener| listener.name == name))
            })
            .map(|annotation| (annotation.name, annotation.place))
            .collect();
        for (name, place) in strays {
            let why = format!("no listener of `{PREFIX}{OUTBOUND}` has this name");
            self.bad(place, name, &why);
        }
        all
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

fn expected(name: &str) -> String {
    let name = if name.starts_with(PEER) { PEER } else { name };
    let form = WANTED
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, form)| form);
    format!("expected {form}")
}

/// The items of a list with commas or ends of lines between.
fn split(value: &str) -> impl Iterator<Item = &str> {
    value
        .split([',', '\n'])
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// `orders:8443` and `8443`: the name, if there is one, and the rest.
fn named(text: &str) -> (Option<&str>, &str) {
    if listen_address(text, "").is_some() {
        return (None, text);
    }
    match text.split_once(':') {
        Some((name, rest)) => (Some(name.trim()), rest.trim()),
        None => (None, text),
    }
}

/// A port, or an IP address with a port, as an address to listen on.
fn listen_address(text: &str, default: &str) -> Option<(String, u16)> {
    if let Ok(port) = text.parse::<u16>() {
        return (port > 0).then(|| (format!("{default}:{port}"), port));
    }
    let address: std::net::SocketAddr = text.parse().ok()?;
    (address.port() > 0).then(|| (text.to_owned(), address.port()))
}

/// The socket of a listener, as an address.
fn socket(name: &str) -> String {
    format!("unix://{SOCKETS_FOLDER}/{name}.sock")
}

/// A port is one of the pod's own.
fn local_target(text: &str) -> String {
    match text.parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => text.to_owned(),
    }
}

/// Whether an object of Kubernetes can have this name: a DNS subdomain (RFC 1123) of at most 253 characters.
pub(super) fn is_object_name(text: &str) -> bool {
    let part = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

/// Whether a text looks like the name of an image; a registry says the rest.
#[must_use]
pub fn is_image(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':' | b'@');
    !text.is_empty() && text.bytes().all(good)
}
