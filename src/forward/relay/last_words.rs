//! How a connection ends that does not end in order: so that neither side can take it for a clean end.

use rustls::AlertDescription;

use super::{Ended, Relay};
use crate::forward::meter::Meter;
use crate::record::{Ending, Reason};
use crate::sys::stream::Stream;

/// What the peer still gets when we end the connection, sealed.
pub(super) struct LastWords {
    sealed: Vec<u8>,
    /// The payload in it, for the meter once it is written.
    data: Option<(Meter, usize)>,
}

impl LastWords {
    /// `None` where nobody is left to tell, or nothing can be sealed.
    pub(super) fn of(mut relay: Relay<'_>, ending: &Ending) -> Option<Self> {
        if matches!(ending.reason, Reason::PeerReset | Reason::RefusedByPeer) {
            return None;
        }
        // What is sealed already must go out before the alert: the peer would take the alert for its rest.
        let (mut sealed, payload) = relay.outgoing.into_unwritten();
        let alert = relay.protocol_alert.unwrap_or(alert_for(ending.reason));
        relay.session.seal_fatal(alert, &mut sealed).ok()?;
        let data = (payload > 0).then_some((relay.meter, payload));
        Some(Self { sealed, data })
    }
}

/// Ends the TLS side so that the peer cannot take it for a clean end: by a fatal alert, or a reset where that can't be.
pub(super) async fn say(last: Option<LastWords>, tls: Stream, ending: Ending) -> Ended {
    let Some(last) = last else {
        tls.abort();
        return Ended { ending, linger: None };
    };
    let linger = tls.write_last(&last.sealed).await;
    if let (Some(_), Some((meter, bytes))) = (&linger, last.data) {
        meter.sealed(bytes);
    }
    Ended { ending, linger }
}

/// The alert that tells the peer why we end an open connection (RFC 8446 section 6.2).
#[must_use]
pub const fn alert_for(reason: Reason) -> AlertDescription {
    match reason {
        Reason::PolicyChange | Reason::RuleExpired | Reason::DenyRule | Reason::NoAllowRule => {
            AlertDescription::AccessDenied
        }
        Reason::BundleChange => AlertDescription::UnknownCA,
        Reason::PeerExpired => AlertDescription::CertificateExpired,
        Reason::PeerTruncated => AlertDescription::DecodeError,
        // Our own affair: nothing the peer did.
        _ => AlertDescription::InternalError,
    }
}
