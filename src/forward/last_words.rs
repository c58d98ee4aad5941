//! How a TLS direction ends that does not end in order.

use rustls::AlertDescription;

use super::meter::Meter;
use super::outgoing::Outgoing;
use crate::sys::stream::Stream;
use crate::tls::session::Session;

/// Ends the connection by a fatal alert behind what is sealed already, or by a reset where that can't be: so that the
/// peer cannot take it for a clean end. Hands back the socket for [`Stream::close_lingering`] if the alert is written.
pub(super) async fn say(
    tls: Stream,
    session: Session,
    outgoing: Outgoing,
    alert: AlertDescription,
    meter: &Meter,
) -> Option<Stream> {
    // What is sealed already must go out before the alert: the peer would take the alert for its rest.
    let (sealed, payload) = outgoing.into_unwritten();
    let linger = refuse(tls, session, sealed, alert).await;
    if linger.is_some() {
        meter.sealed(payload);
    }
    linger
}

/// Ends a TLS connection by a fatal alert behind what is `sealed` already, or by a reset where that can't be. Hands back
/// the socket for [`Stream::close_lingering`] if the alert is written.
pub async fn refuse(
    tls: Stream,
    mut session: Session,
    mut sealed: Vec<u8>,
    alert: AlertDescription,
) -> Option<Stream> {
    if session.seal_fatal(alert, &mut sealed).is_err() {
        tls.abort();
        return None;
    }
    tls.write_last(&sealed).await
}
