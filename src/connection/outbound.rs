//! The application calls a peer: plaintext in, mutual TLS on to one of those that the `peer` list of the listener names,
//! or of the destination that a redirected connection was meant for.

use std::borrow::Cow;

use super::transparent::Way;
use super::{Admitted, Closing, Serving, passthrough, refuse};
use crate::authorize;
use crate::config::settings::ListenerKind;
use crate::forward::relay::{Ends, alert_for};
use crate::record::{Ending, Reason};
use crate::sys::stream::Stream;
use crate::tls::handshake::{self, Established, Failure};
use crate::upstream::dial;

pub(super) async fn serve(serving: &mut Serving<'_>, plain: Stream) -> Result<Admitted, Closing> {
    let settings = serving.listener.settings.clone();
    if let Err(ending) = serving.recordable() {
        return Err(refused(plain, ending));
    }

    // To whom?
    let (connect, number) = match &settings.kind {
        ListenerKind::Outbound { connect, .. } => (Cow::Borrowed(connect), 0),
        ListenerKind::Transparent(destinations) => match serving.redirected_out(&plain, destinations) {
            Ok(Way::Protected(number, destination, original)) => {
                (Cow::Owned(destination.connect.target(original)), number)
            }
            Ok(Way::Plain(original)) => {
                let ending = Box::pin(passthrough::serve(serving, plain, original)).await;
                return Err(Closing::done(ending));
            }
            Err(ending) => return Err(refused(plain, ending)),
        },
        ListenerKind::Inbound { .. } => {
            return Err(Closing::done(Ending::with(
                Reason::Internal,
                "an inbound listener served as outbound",
            )));
        }
    };

    // Who are we?
    let context = match serving.identity() {
        Ok(context) => context,
        Err(ending) => return Err(refused(plain, ending)),
    };
    let Some(client) = context.client_to(&settings.name, number) else {
        let ending = Ending::with(Reason::Internal, "the listener has no TLS configuration");
        return Err(refused(plain, ending));
    };

    serving.draft.phase_over();
    serving.draft.upstream = Some(match &connect {
        Cow::Borrowed(_) => serving.listener.upstream.clone(),
        Cow::Owned(target) => target.to_string().into(),
    });
    let limit = serving.worker.live.terms().limits.connect_timeout;
    let dialled = tokio::select! {
        dialled = Box::pin(dial::peer(&connect, &serving.worker.resolver, limit)) => {
            dialled.map_err(|e| Ending::with(e.reason, e.detail))
        }
        () = serving.worker.drain.forced() => Err(serving.forced()),
    };
    let dialled = dialled.and_then(|tls| match serving.draft.destination {
        Some(_) => serving.dialled_for_redirected(&tls).map(|()| tls),
        None => Ok(tls),
    });
    let mut tls = match dialled {
        Ok(tls) => tls,
        Err(ending) => return Err(refused(plain, ending)),
    };

    // Who are they? The handshake itself refuses a server that the `peer` list does not name, before it has seen
    // our certificate.
    let deadline = serving.handshake_deadline();
    let established = match serving
        .handshake(
            deadline,
            handshake::connect(&mut tls, client, || plain.has_data()),
        )
        .await
    {
        Ok(established) => established,
        Err(failure) => return Err(handshake_failed(plain, tls, failure)),
    };
    let registered = serving.register(&context, &established);
    let Established {
        session,
        peer,
        unread,
        ..
    } = established;

    // May they? The authority's view, and the permit that forwarding asks for.
    let checked = serving.recheck(&registered).and_then(|()| {
        let view = serving.worker.live.policy();
        let expected = settings.expected(serving.draft.destination.as_deref().copied());
        let result = authorize::outbound(&view, expected, &peer.id, &super::certificate(&peer));
        let decision = serving.expected(&result);
        match result {
            Ok(permit) => Ok((permit, decision)),
            Err(_) => Err(Ending::by(decision)),
        }
    });
    let (permit, decision) = match checked {
        Ok(admitted) => admitted,
        Err(ending) => {
            plain.abort();
            let linger = refuse(session, tls, alert_for(ending.reason)).await;
            return Err(Closing { ending, linger });
        }
    };
    serving.admitted(decision, &registered);
    if let Err(ending) = serving.recorded(&registered).await {
        plain.abort();
        let linger = refuse(session, tls, alert_for(ending.reason)).await;
        return Err(Closing { ending, linger });
    }

    let ends = Ends {
        tls,
        session,
        unread,
        plain,
    };
    Ok(Admitted {
        permit,
        ends,
        registered,
        in_use: None,
    })
}

/// The application learns of every failure as a reset: it sees no TLS.
fn refused(plain: Stream, ending: Ending) -> Closing {
    plain.abort();
    Closing::done(ending)
}

fn handshake_failed(plain: Stream, tls: Stream, failure: Failure) -> Closing {
    plain.abort();
    super::after_failure(tls, failure)
}
