//! What a workload wants, read from the annotations of its pods.

mod listeners;
mod misplaced;
mod read;
mod redirection;

pub(super) use self::misplaced::{refuse_misplaced, refuse_unknown};
pub(super) use self::read::{has_any, read};
use crate::yaml::Place;

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
/// Whether the pods have IPv6 addresses.
pub const IPV6: &str = "ipv6";
/// Volumes of the pod that the sidecar gets, too.
pub const MOUNTS: &str = "mounts";
/// The image of the sidecar.
pub const IMAGE: &str = "image";
/// How many connections the sidecar serves at once.
pub const MAX_CONNECTIONS: &str = "max-connections";
/// How long connections may go on after the application has ended.
pub const DRAIN_TIMEOUT: &str = "drain-timeout";
/// Ports at which the application is reached past the sidecar.
pub const EXCLUDE_INBOUND_PORTS: &str = "exclude-inbound-ports";
/// The only ports at which it is not.
pub const INCLUDE_INBOUND_PORTS: &str = "include-inbound-ports";
/// What is redirected, as the options of `svidecar intercept` with these names say it.
pub const REDIRECTION: &[&str] = &[
    "exclude-outbound-ports",
    "include-outbound-ports",
    EXCLUDE_INBOUND_PORTS,
    INCLUDE_INBOUND_PORTS,
    "exclude-networks",
    "include-networks",
];

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
    (IPV6, "`\"true\"` or `\"false\"`"),
    (
        MOUNTS,
        "entries `VOLUME:/PATH`, such as `audit:/var/log/svidecar`, with commas between; VOLUME is one of the pod's",
    ),
    (
        IMAGE,
        "the name of an image, such as `registry.example/svidecar:1.0`",
    ),
    (MAX_CONNECTIONS, "a whole number from 1 to 1000000, in quotes"),
    (
        DRAIN_TIMEOUT,
        "a whole number and `s` or `m`, such as `25s`, up to an hour",
    ),
    ("exclude-outbound-ports", PORTS),
    ("include-outbound-ports", PORTS),
    (EXCLUDE_INBOUND_PORTS, PORTS),
    (INCLUDE_INBOUND_PORTS, PORTS),
    ("exclude-networks", NETWORKS),
    ("include-networks", NETWORKS),
];

const PORTS: &str = "ports from 1 to 65535 with commas between, in quotes";
const NETWORKS: &str = "IP networks or addresses with commas between, such as `10.96.0.1, fd00::/8`";

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
    /// Whether listeners and probes without an address are at `[::]`.
    pub ipv6: bool,
    /// Names of volumes, and where the sidecar has them.
    pub mounts: Vec<(String, String)>,
    /// How many connections at once.
    pub max_connections: u64,
    /// The drain, in seconds.
    pub drain_seconds: u64,
    /// Whether application and sidecar share a folder of sockets.
    pub sockets: bool,
    /// Options of `svidecar intercept`, with their values.
    pub redirection: Vec<(&'static str, Vec<String>)>,
    /// Where the annotations stand that listeners are made of, for findings about them.
    pub place: Place,
}

impl Wanted {
    /// All addresses of the pod, as a listener's.
    #[must_use]
    pub const fn any(&self) -> &'static str {
        any(self.ipv6)
    }
}

/// All addresses. `[::]` is those of IPv4 as well, but is none where the node's kernel has no IPv6.
pub(super) const fn any(ipv6: bool) -> &'static str {
    if ipv6 { "[::]" } else { "0.0.0.0" }
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
