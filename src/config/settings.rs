//! The checked settings: what the rest of the program works with. Made by [`super::check()`] from the file as typed;
//! every value here is valid by itself and beside the others.

mod audit;
mod level;
mod otlp;
mod redaction;
mod sandbox;
mod transparent;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use audit::{Audit, AuditSink, AuditSync, OnAuditFailure};
pub use level::{LEVELS, NoLevel, log_directives};
pub use otlp::{Denials, Otlp, OtlpHeaders, OtlpProtocol, Traces};
pub use redaction::{Redact, Redaction, RedactionFind, RedactionProfile, RedactionRule};
pub use sandbox::SandboxMode;
pub use transparent::{Connect, Destination, Destinations, DialledPorts, Ours, Reach, Redirected, Unmatched};

use crate::record::Direction;
use crate::spiffe::{IdPattern, SpiffeId, TrustDomain};

/// Everything `svidecar run` needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The SHA-256 of the file they were read from, in hexadecimal.
    pub content_hash: String,
    /// Where our identity comes from.
    pub identity: Identity,
    /// Where the policy is, and how it is applied.
    pub policy: Policy,
    /// The listeners, inbound first, each in the file's order; names are unique.
    pub listeners: Vec<Arc<Listener>>,
    /// Bounds on connections and times.
    pub limits: Limits,
    /// What a change does to connections that are open.
    pub open_connections: OpenConnections,
    /// Threads that move bytes, at least 1.
    pub workers: usize,
    /// Whether TLS sessions are resumed; without, no tickets are given or taken.
    pub resumption: bool,
    /// Whether connections between svidecars are renewed when an SVID rotates.
    pub renewal: bool,
    /// The admin endpoint; absent when the file has none.
    pub admin: Option<Admin>,
    /// What is logged, and how.
    pub log: Log,
    /// Where verdicts are written to; nowhere when the file does not say.
    pub decisions: Option<LinesFile>,
    /// Where the lines of connections are written to; to the log when the file does not say.
    pub access_log: Option<AccessLog>,
    /// Which connections become spans, and where these are sent to; none when the file does not say.
    pub traces: Option<Traces>,
    /// The audit log; none when the file has none.
    pub audit: Option<Audit>,
    /// What is taken out of records before they leave.
    pub redaction: Redaction,
    /// How strictly the process confines itself.
    pub sandbox: SandboxMode,
}

/// Where our identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The source.
    pub source: IdentitySource,
    /// Which SVID to present when the source gives several.
    pub select: SvidSelect,
    /// Our own trust domain, where the file says it (or `svid` implies it).
    pub trust_domain: Option<TrustDomain>,
    /// What a denial does to the SVID in hand.
    pub on_denied: OnDenied,
}

/// The kinds of identity source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// A SPIFFE Workload API.
    WorkloadApi(Address),
    /// PEM files that something else renews; re-read when they change.
    Files(IdentityFiles),
}

/// PEM files delivered by cert-manager's CSI driver, spiffe-helper and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key, unencrypted.
    pub key: PathBuf,
    /// One file of CA certificates for each trust domain.
    pub bundles: BTreeMap<TrustDomain, PathBuf>,
}

/// Which SVID to present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SvidSelect {
    /// The first one, which the Workload API defines as the default identity.
    First,
    /// The one with this ID.
    Id(SpiffeId),
    /// The one with this hint.
    Hint(String),
}

/// What `PermissionDenied` does while we hold a valid SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDenied {
    /// Keep using it until it expires.
    Keep,
    /// Stop using it at once.
    Withdraw,
}

/// Where the policy is, and how it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// A file, or a folder of `*.yaml` and `*.yml`. Always there when a listener is inbound; without one there is
    /// nothing for a policy to decide.
    pub path: Option<PathBuf>,
    /// Enforce it or only report.
    pub mode: PolicyMode,
    /// The file that names whom to refuse whatever the policy says.
    pub deny_list: Option<PathBuf>,
    /// A policy that is asked beside the one in force, and decides nothing.
    pub candidate: Option<PathBuf>,
}

/// How inbound policy is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyMode {
    /// Denied peers are refused.
    #[default]
    Enforce,
    /// Denied peers are reported and let through. Authentication and `peer` patterns still refuse.
    Audit,
}

impl PolicyMode {
    /// As the config has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique among all listeners.
    pub name: Arc<str>,
    /// Where it listens.
    pub listen: Address,
    /// Application protocols to select (inbound) or offer (outbound), in order; none means no ALPN at all.
    pub alpn: Vec<Vec<u8>>,
    /// What it does with a connection.
    pub kind: ListenerKind,
}

/// What a listener does with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Mutual TLS in, plaintext to `upstream`.
    Inbound {
        /// The application, or a part of the admin endpoint.
        upstream: Upstream,
        /// The federated trust domains whose peers are accepted beside those of our own.
        trust: Vec<TrustDomain>,
        /// Whether and how the application is told who calls.
        proxy_protocol: Option<ProxyProtocol>,
        /// The load balancers that must say, in a PROXY header before TLS, for whom they call; nobody else may. Addresses
        /// are compared as [`crate::record::PeerAddr`] has them: IPv4-mapped ones are IPv4.
        accept_proxy_from: Vec<IpNet>,
        /// Whether it takes connections that were redirected to it, and no others.
        redirected: Option<Redirected>,
    },
    /// Plaintext in, mutual TLS to `connect`.
    Outbound {
        /// The other sidecar.
        connect: Target,
        /// Who may answer; never empty.
        peer: Vec<IdPattern>,
        /// The server name to send; none for an IP address unless the file says one.
        sni: Option<String>,
    },
    /// Plaintext in that was redirected, mutual TLS to where it was meant to go.
    Transparent(Destinations),
}

impl ListenerKind {
    /// Mutual TLS in, plaintext to `upstream`, and nothing beside it.
    #[must_use]
    pub const fn inbound(upstream: Target) -> Self {
        Self::Inbound {
            upstream: Upstream::Application(upstream),
            trust: Vec::new(),
            proxy_protocol: None,
            accept_proxy_from: Vec::new(),
            redirected: None,
        }
    }
}

/// Where the connections of an inbound listener go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// To the application.
    Application(Target),
    /// To where a redirected connection was meant to go: the application, as it is without us.
    Original,
    /// To us.
    Own(OwnPages),
}

/// What an inbound listener can show of the admin endpoint to whom policy lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPages {
    /// The metrics alone.
    Metrics,
    /// All that only shows.
    Admin,
}

/// Where redirected connections go, in words.
const ORIGINAL: &str = "original";

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application(target) => target.fmt(f),
            Self::Original => f.write_str(ORIGINAL),
            Self::Own(OwnPages::Metrics) => f.write_str("metrics"),
            Self::Own(OwnPages::Admin) => f.write_str("admin"),
        }
    }
}

/// The PROXY header that an application is sent before the caller's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line with addresses.
    V1,
    /// Addresses, and what else is known of the caller.
    V2 {
        /// The type of the field that holds the caller's SPIFFE ID.
        spiffe_id_tlv: u8,
    },
}

impl Listener {
    /// Where its connections go, in words.
    #[must_use]
    pub fn upstream(&self) -> String {
        match &self.kind {
            ListenerKind::Inbound { upstream, .. } => upstream.to_string(),
            ListenerKind::Outbound { connect, .. } => connect.to_string(),
            ListenerKind::Transparent(_) => ORIGINAL.to_owned(),
        }
    }

    /// Who may answer a connection that goes out, where it was meant for `destination` if it was redirected.
    #[must_use]
    pub fn expected(&self, destination: Option<SocketAddr>) -> &[IdPattern] {
        match &self.kind {
            ListenerKind::Inbound { .. } => &[],
            ListenerKind::Outbound { peer, .. } => peer,
            ListenerKind::Transparent(destinations) => destination
                .and_then(|address| destinations.find(address))
                .map_or(&[], |(_, destination)| &destination.peer),
        }
    }

    /// See [`ListenerName::port`].
    fn policy_port(&self) -> Option<u16> {
        match (&self.kind, &self.listen) {
            (
                ListenerKind::Inbound {
                    redirected: Some(redirected),
                    ..
                },
                _,
            ) => match redirected.ports[..] {
                [port] => Some(port),
                _ => None,
            },
            (_, Address::Tcp(address)) => Some(address.port()).filter(|port| *port != 0),
            (_, Address::Unix(_)) => None,
        }
    }

    /// Whether it takes connections that were redirected to it, and no others.
    #[must_use]
    pub const fn is_transparent(&self) -> bool {
        matches!(
            self.kind,
            ListenerKind::Transparent(_)
                | ListenerKind::Inbound {
                    redirected: Some(_),
                    ..
                }
        )
    }

    /// Which way it faces.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        match self.kind {
            ListenerKind::Inbound { .. } => Direction::Inbound,
            ListenerKind::Outbound { .. } | ListenerKind::Transparent(_) => Direction::Outbound,
        }
    }
}

/// What a policy must know of a listener to be checked against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerName {
    /// The name, as `to` may name it.
    pub name: Arc<str>,
    /// Which way it faces: policies decide about inbound ones.
    pub direction: Direction,
    /// The port of `listen`, as `ports` may name it; none on a unix socket, and where the system picks one. Of a
    /// transparent listener, the port that callers dial; none where these are several.
    pub port: Option<u16>,
    /// The trust domains accepted beside our own; `None` when that is not known, and any is accepted.
    pub trust: Option<Vec<TrustDomain>>,
}

/// The names that a policy is compiled for.
#[must_use]
pub fn listener_names(listeners: &[Arc<Listener>]) -> Vec<ListenerName> {
    listeners
        .iter()
        .map(|l| ListenerName {
            name: Arc::clone(&l.name),
            direction: l.direction(),
            port: l.policy_port(),
            trust: match &l.kind {
                ListenerKind::Inbound { trust, .. } => Some(trust.clone()),
                ListenerKind::Outbound { .. } | ListenerKind::Transparent(_) => None,
            },
        })
        .collect()
}

/// An address to listen on, or of the Workload API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `IP:port`.
    Tcp(SocketAddr),
    /// `unix:///path`.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address.
    Ip(SocketAddr),
    /// A DNS name and port, resolved at each connection.
    Name(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl Target {
    /// The IP address, where it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(addr) => Some(addr.ip()),
            Self::Name(..) | Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Bounds on connections and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once over all listeners, those in their handshake included.
    pub max_connections: usize,
    /// Connections in their handshake at once over all listeners.
    pub max_handshakes: usize,
    /// Of these, those from one address, or one IPv6 network of 64 bits, on inbound listeners.
    pub max_handshakes_per_source: Option<usize>,
    /// From acceptance to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// For name resolution and dialling together.
    pub connect_timeout: Duration,
    /// Without a byte either way.
    pub idle_timeout: Duration,
    /// From SIGTERM to the forced end.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_handshakes: 1_000,
            max_handshakes_per_source: None,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(3600),
            drain_timeout: Duration::from_secs(25),
        }
    }
}

/// What each kind of change does to an open connection that it no longer admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenConnections {
    /// A new policy, or a rule that expired.
    pub on_policy_change: OnChange,
    /// A bundle that lost an authority or went away.
    pub on_bundle_change: OnChange,
    /// Our identity became another one or was withdrawn.
    pub on_identity_change: OnChange,
    /// One of the two chains ran out.
    pub on_expiry: OnChange,
}

impl Default for OpenConnections {
    fn default() -> Self {
        Self {
            on_policy_change: OnChange::Close,
            on_bundle_change: OnChange::Close,
            on_identity_change: OnChange::Close,
            on_expiry: OnChange::Close,
        }
    }
}

/// What happens to an open connection that is no longer admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// It is closed at once.
    Close,
    /// It is closed when it has not ended by itself after this time.
    Drain(Duration),
    /// It lives on; a log line says so.
    Log,
}

/// The admin endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Loopback or a unix socket.
    pub listen: Address,
    /// Health endpoints alone, on an address that a kubelet can reach.
    pub probes: Option<SocketAddr>,
    /// The file with the token that lets changes in over TCP; without one, the unix socket alone does.
    pub token_file: Option<PathBuf>,
}

/// Where the lines of connections are written to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// `None`: standard output.
    pub file: Option<LinesFile>,
    /// The form of a line.
    pub format: LogFormat,
}

/// A file of lines that is rotated by size: verdicts, or connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinesFile {
    /// Where it is. Its folder is another process's business.
    pub path: PathBuf,
    /// The most bytes of one file.
    pub max_size: u64,
    /// How many older ones are kept.
    pub keep: u32,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `None`: text on a terminal, JSON elsewhere.
    pub format: Option<LogFormat>,
    /// A level (`info`) or `tracing` directives (`info,svidecar::identity=debug`).
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: None,
            level: "info".to_owned(),
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}
