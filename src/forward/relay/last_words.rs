//! How a connection ends that does not end in order: so that neither side can take it for a clean end.

use rustls::AlertDescription;

use super::{Ended, Relay};
use crate::forward::last_words;
use crate::record::{Ending, Reason};

impl Relay {
    /// Ends both sides so that neither can take it for a clean end: the application's by a reset, the peer's by a fatal
    /// alert, or a reset where that can't be.
    pub(super) async fn last_words(self, ending: Ending) -> Ended {
        self.plain.abort();
        // Where the peer is gone nobody is left to tell.
        if matches!(ending.reason, Reason::PeerReset | Reason::RefusedByPeer) {
            self.tls.abort();
            return Ended { ending, linger: None };
        }
        let alert = self.protocol_alert.unwrap_or(alert_for(ending.reason));
        let linger = last_words::say(self.tls, self.session, self.outgoing, alert, &self.meter).await;
        Ended { ending, linger }
    }
}

/// The alert that tells the peer why we end an open connection (RFC 8446 section 6.2).
#[must_use]
pub const fn alert_for(reason: Reason) -> AlertDescription {
    match reason {
        Reason::DenyRule
        | Reason::NoAllowRule
        | Reason::PeerNotExpected
        | Reason::DenyList
        | Reason::TrustDomainNotAccepted
        | Reason::OverBudget
        | Reason::PolicyChange
        | Reason::RuleExpired
        | Reason::RuleBegan
        | Reason::DenyListChange => AlertDescription::AccessDenied,
        Reason::BundleChange => AlertDescription::UnknownCA,
        Reason::PeerExpired => AlertDescription::CertificateExpired,
        // Where nothing says it better.
        Reason::RenewalRefused => AlertDescription::BadCertificate,
        Reason::PeerTruncated => AlertDescription::DecodeError,
        // Our own affair: nothing the peer did.
        _ => AlertDescription::InternalError,
    }
}
