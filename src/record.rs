//! The one record of what became of a connection.
//!
//! Every connection that reaches a listener, whether it was refused at once or lived for a day, ends as exactly
//! one [`ConnectionRecord`]. The log line and the metrics are both made from it, so the words in a dashboard are
//! the words in the log. The sets of words are closed: they are enums here and tables in the docs.
//!
//! Every verdict on the way there is one [`Decision`] with an id of its own: see [`mod@decision`].

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::spiffe::SpiffeId;

macro_rules! closed_set {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word used in logs, records, metrics and documentation.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub mod audit;
pub mod decision;
pub mod trace;

pub use decision::{
    Candidate, Certificate, Check, Decision, DecisionId, DecisionIds, Kind, Nearest, PolicyHash, Unmet,
};
pub use trace::{Phase, Phases, Trace, TraceId};

closed_set! {
    /// Which way a listener faces.
    Direction {
        /// Mutual TLS in, plaintext to the application.
        Inbound = "inbound",
        /// Plaintext from the application, mutual TLS out.
        Outbound = "outbound",
    }
}

closed_set! {
    /// How a TLS handshake came to its peer's identity.
    HandshakeKind {
        /// The peer proved that it holds its certificate's key.
        Full = "full",
        /// The peer took up an earlier session; the chain it was made with was verified again.
        Resumed = "resumed",
    }
}

closed_set! {
    /// What became of a renewal of an open connection: the `result` label of `renewals_total`.
    RenewalResult {
        /// We told the peer of our newer SVID.
        OwnSent = "own_sent",
        /// The peer took it.
        OwnAccepted = "own_accepted",
        /// The peer did not take it: the connection rests on our SVID of before.
        OwnKept = "own_kept",
        /// The peer told of a newer SVID, and the connection rests on it.
        PeerAccepted = "peer_accepted",
        /// The peer told of a newer SVID that we can't verify yet or that gains nothing: the one of before counts.
        PeerKept = "peer_kept",
        /// The peer's renewal was not valid, which ends the connection.
        PeerRefused = "peer_refused",
    }
}

closed_set! {
    /// What authorization said.
    #[derive(Default)]
    Verdict {
        /// A rule (inbound) or a `peer` pattern (outbound) admits the peer.
        Allow = "allow",
        /// A deny rule matched, nothing allowed it, or no `peer` pattern matched.
        Deny = "deny",
        /// The connection ended before authorization was asked.
        #[default]
        None = "none",
    }
}

closed_set! {
    /// How a candidate policy decides otherwise than the one in force.
    Divergence {
        /// It denies what the policy in force allows.
        WouldDeny = "would_deny",
        /// It allows what the policy in force denies.
        WouldAllow = "would_allow",
    }
}

closed_set! {
    /// The outcome, coarse: what an alert is built on. [`Reason`] says it precisely.
    Outcome {
        /// Bytes flowed and both ends finished by themselves.
        Ok = "ok",
        /// Authorization refused the peer.
        Denied = "denied",
        /// We turned the connection away before or during the handshake.
        Refused = "refused",
        /// A network, a peer or an upstream failed.
        Failed = "failed",
        /// We closed a connection that was open.
        Closed = "closed",
    }
}

closed_set! {
    /// Why a connection ended as it did.
    Reason {
        /// Both directions ended in order.
        Finished = "finished",
        /// Both directions of a connection that was not protected ended in order: no entry of `destinations` names where
        /// the application wanted to go, and `unmatched` is `passthrough`.
        PassedThrough = "passed_through",

        /// A `deny` rule matched the peer.
        DenyRule = "deny_rule",
        /// No `allow` rule matched the peer.
        NoAllowRule = "no_allow_rule",
        /// No `peer` pattern of the outbound listener names the ID that answered.
        PeerNotExpected = "peer_not_expected",
        /// An entry of the deny list names the peer's ID or certificate.
        DenyList = "deny_list",
        /// The inbound listener does not accept the peer's trust domain.
        TrustDomainNotAccepted = "trust_domain_not_accepted",
        /// A budget of the peer's identity is used up.
        OverBudget = "over_budget",

        /// We hold no SVID: none was issued yet, or it was withdrawn.
        NoIdentity = "no_identity",
        /// Our SVID ran out and no new one came.
        IdentityExpired = "identity_expired",
        /// The audit log cannot be written, and `audit.on_failure` is `deny`.
        AuditUnavailable = "audit_unavailable",
        /// `limits.max_connections` was reached.
        MaxConnections = "max_connections",
        /// `limits.max_handshakes` was reached.
        MaxHandshakes = "max_handshakes",
        /// `limits.max_handshakes_per_source` was reached for the peer's address.
        MaxHandshakesPerSource = "max_handshakes_per_source",
        /// A load balancer in `accept_proxy_from` sent no PROXY header, or a malformed one.
        ProxyHeader = "proxy_header",
        /// A transparent listener was called by itself: the connection was not redirected to it.
        NotIntercepted = "not_intercepted",
        /// A redirected connection would lead to ourselves, or comes from ourselves.
        LoopDetected = "loop_detected",
        /// A redirected connection was meant for an address that the listener does not name.
        DestinationNotListed = "destination_not_listed",
        /// The handshake took longer than `limits.handshake_timeout`.
        HandshakeTimeout = "handshake_timeout",
        /// The peer spoke something other than TLS.
        NotTls = "not_tls",
        /// The peers share no TLS version, suite, group or application protocol, or a server does not ask for our
        /// certificate: no mutual TLS.
        NoCommonParameters = "no_common_parameters",
        /// The peer broke the TLS protocol.
        ProtocolError = "protocol_error",
        /// The peer went away during the handshake.
        HandshakeAborted = "handshake_aborted",
        /// The peer presented no certificate.
        NoCertificate = "no_certificate",
        /// The peer's certificate is no X.509-SVID as the standard wants it.
        BadCertificate = "bad_certificate",
        /// We hold no bundle for the peer's trust domain.
        UnknownTrustDomain = "unknown_trust_domain",
        /// The peer's chain does not end at an authority of its own trust domain.
        UntrustedChain = "untrusted_chain",
        /// A certificate of the peer's chain is expired.
        CertificateExpired = "certificate_expired",
        /// A certificate of the peer's chain is not valid yet.
        CertificateNotYetValid = "certificate_not_yet_valid",
        /// The peer refused us with a TLS alert.
        RefusedByPeer = "refused_by_peer",

        /// The name of the upstream did not resolve.
        ResolveFailed = "resolve_failed",
        /// The upstream could not be reached.
        ConnectFailed = "connect_failed",
        /// The upstream did not answer within `limits.connect_timeout`.
        ConnectTimeout = "connect_timeout",
        /// The caller cannot be told to the upstream in the PROXY header that `proxy_protocol` asks for.
        ProxyUnencodable = "proxy_unencodable",
        /// The peer reset the connection, or ended it with a TLS alert.
        PeerReset = "peer_reset",
        /// The peer's TCP connection ended without close_notify: what came may be cut short.
        PeerTruncated = "peer_truncated",
        /// The application reset its connection.
        ApplicationReset = "application_reset",

        /// A new policy does not admit this connection.
        PolicyChange = "policy_change",
        /// The rule that admitted this connection expired, and no other does.
        RuleExpired = "rule_expired",
        /// The deny list names this connection's peer now.
        DenyListChange = "deny_list_change",
        /// A deny rule whose time has come matches this connection.
        RuleBegan = "rule_began",
        /// The bundles we hold now do not admit the peer's chain.
        BundleChange = "bundle_change",
        /// The identity this connection was made with is no longer ours.
        IdentityChange = "identity_change",
        /// The peer's certificate chain ran out.
        PeerExpired = "peer_expired",
        /// Our certificate chain that this connection was made with ran out.
        OwnExpired = "own_expired",
        /// The peer's renewal of this connection was not valid.
        RenewalRefused = "renewal_refused",
        /// An operator closed this connection at the admin endpoint.
        ClosedByOperator = "closed_by_operator",
        /// The config has this connection's listener no more, and `limits.drain_timeout` is over.
        ListenerRemoved = "listener_removed",
        /// Nothing was sent either way for `limits.idle_timeout`.
        IdleTimeout = "idle_timeout",
        /// The listener is shutting down and `limits.drain_timeout` is over.
        DrainTimeout = "drain_timeout",
        /// A second signal ended the process at once.
        Shutdown = "shutdown",
        /// Something failed in svidecar or its machine; `detail` says what.
        Internal = "internal",
    }
}

impl Reason {
    /// The coarse outcome that a reason belongs to.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Finished | Self::PassedThrough => Outcome::Ok,
            Self::DenyRule
            | Self::NoAllowRule
            | Self::PeerNotExpected
            | Self::DenyList
            | Self::TrustDomainNotAccepted
            | Self::OverBudget => Outcome::Denied,
            Self::NoIdentity
            | Self::IdentityExpired
            | Self::AuditUnavailable
            | Self::MaxConnections
            | Self::MaxHandshakes
            | Self::MaxHandshakesPerSource
            | Self::ProxyHeader
            | Self::NotIntercepted
            | Self::LoopDetected
            | Self::DestinationNotListed
            | Self::HandshakeTimeout
            | Self::NotTls
            | Self::NoCommonParameters
            | Self::ProtocolError
            | Self::NoCertificate
            | Self::BadCertificate
            | Self::UnknownTrustDomain
            | Self::UntrustedChain
            | Self::CertificateExpired
            | Self::CertificateNotYetValid => Outcome::Refused,
            Self::HandshakeAborted
            | Self::RefusedByPeer
            | Self::ResolveFailed
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::ProxyUnencodable
            | Self::PeerReset
            | Self::PeerTruncated
            | Self::ApplicationReset
            | Self::Internal => Outcome::Failed,
            Self::PolicyChange
            | Self::RuleExpired
            | Self::DenyListChange
            | Self::RuleBegan
            | Self::BundleChange
            | Self::IdentityChange
            | Self::PeerExpired
            | Self::OwnExpired
            | Self::RenewalRefused
            | Self::ClosedByOperator
            | Self::ListenerRemoved
            | Self::IdleTimeout
            | Self::DrainTimeout
            | Self::Shutdown => Outcome::Closed,
        }
    }
}

/// How a connection ended: the words for dashboards and those for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The precise outcome.
    pub reason: Reason,
    /// What a person needs beyond the reason.
    pub detail: Option<String>,
    /// The verdict that ended it, where one did.
    pub decision: Option<Arc<Decision>>,
}

impl Ending {
    /// An ending that its reason explains.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
            decision: None,
        }
    }

    /// An ending with more to say.
    #[must_use]
    pub fn with(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: Some(detail.into()),
            decision: None,
        }
    }

    /// The end that a verdict puts to a connection. A reason is there in every denial.
    #[must_use]
    pub fn by(decision: Arc<Decision>) -> Self {
        Self {
            reason: decision.reason.unwrap_or(Reason::Internal),
            detail: decision.detail.as_deref().map(str::to_owned),
            decision: Some(decision),
        }
    }
}

/// Where a connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddr {
    /// A TCP peer; IPv4-mapped IPv6 addresses are shown as IPv4.
    Ip(IpAddr, u16),
    /// A unix socket peer, which has no address.
    Unix,
}

impl PeerAddr {
    /// The IP address, for peers that have one.
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip, _) => Some(ip),
            Self::Unix => None,
        }
    }
}

impl From<std::net::SocketAddr> for PeerAddr {
    fn from(addr: std::net::SocketAddr) -> Self {
        Self::Ip(addr.ip().to_canonical(), addr.port())
    }
}

impl std::fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip, port) => std::net::SocketAddr::new(*ip, *port).fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl Serialize for PeerAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What became of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// A number that is unique in this process, in order of acceptance; the same as in `/api/v1/connections`.
    pub id: u64,
    /// When the record was made: the connection's end.
    pub time: SystemTime,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The listener's direction.
    pub direction: Direction,
    /// Who connected to the listener.
    pub peer_addr: PeerAddr,
    /// The address that `source` in policies is about: its own, or for whom it called, where it is a load balancer whose
    /// PROXY header is believed.
    pub source: Option<IpAddr>,
    /// The verified SPIFFE ID at the other end of the TLS connection.
    pub peer_id: Option<Arc<SpiffeId>>,
    /// The SPIFFE ID we presented.
    pub own_id: Option<Arc<SpiffeId>>,
    /// Whether the TLS handshake resumed an earlier session; absent until one completed.
    pub resumed: Option<bool>,
    /// The last verdict about it: the one that ended it, else the one that let it in. Absent where none was given.
    pub decision: Option<Arc<Decision>>,
    /// The verdict that let it in.
    pub admission: Option<DecisionId>,
    /// The precise outcome.
    pub reason: Reason,
    /// What a person needs beyond the reason: the check that failed, the error of the system, the alert.
    pub detail: Option<String>,
    /// Where it was meant to go before it was redirected to a transparent listener.
    pub destination: Option<SocketAddr>,
    /// Where the connection was forwarded to, once that was dialled.
    pub upstream: Option<Arc<str>>,
    /// Payload bytes from the one who connected to the one who was connected to.
    pub bytes_up: u64,
    /// Payload bytes the other way.
    pub bytes_down: u64,
    /// From acceptance to the end.
    pub duration: Duration,
    /// What it is in a trace; absent where traces are off.
    pub trace: Option<Trace>,
}

impl ConnectionRecord {
    /// The coarse outcome.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.reason.outcome()
    }

    /// Whether it ended as it should: a denial that is only reported (`policy.mode: audit`) is what its operator looks for.
    #[must_use]
    pub fn went_well(&self) -> bool {
        self.outcome() == Outcome::Ok && self.verdict() != Verdict::Deny
    }

    /// What was last said about it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.decision
            .as_ref()
            .map_or(Verdict::None, |decision| decision.verdict)
    }
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::clock::rfc3339(*time))
}

fn display_option<T: std::fmt::Display, S: serde::Serializer>(
    value: &Option<Arc<T>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// Who tells of a verdict in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// The line of its connection's end.
    OfConnection,
    /// A line of its own: the connection goes on.
    Own,
}

/// What became of a verdict's record.
#[must_use = "a peer may be admitted only if the record of it is kept as the settings ask"]
pub enum Receipt {
    /// It is kept as surely as the settings ask.
    Kept,
    /// It is not kept, and the settings let nobody in without a record.
    Lost,
    /// Says later whether it is kept.
    Pending(Pin<Box<dyn Future<Output = bool> + Send + Sync>>),
}

/// Takes what was recorded: the log, the metrics and those who keep verdicts, or a test. Called on the worker that serves
/// the connection, and by the authority over open connections; must not block.
pub trait RecordSink: Send + Sync {
    /// Takes the record of a connection that ended.
    fn record(&self, record: &ConnectionRecord);

    /// Takes the record of a verdict, when it is given.
    fn decision(&self, decision: &Arc<Decision>, line: LogLine) -> Receipt;

    /// Whether connections must keep what a trace tells of them.
    fn traces(&self) -> bool {
        false
    }

    /// Why no connection may be let in at the moment: verdicts would go unrecorded, and the settings forbid that.
    fn refuses(&self) -> Option<&'static str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_serialized_form() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{reason}\""));
        }
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_string(outcome).unwrap(), format!("\"{outcome}\""));
        }
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let addr: std::net::SocketAddr = "[::ffff:10.1.2.3]:99".parse().unwrap();
        assert_eq!(PeerAddr::from(addr).to_string(), "10.1.2.3:99");
    }
}
