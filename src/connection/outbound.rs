//! The application calls a peer: plaintext in, mutual TLS on to one of those that the listener's `peer` list names.

use super::{Admitted, Closing, Serving, refuse};
use crate::authorize;
use crate::config::settings::ListenerKind;
use crate::forward::relay::{Ends, alert_for};
use crate::record::{Ending, Reason};
use crate::sys::stream::Stream;
use crate::tls::handshake::{self, Established, Failure};
use crate::upstream::dial;

pub(super) async fn serve(serving: &mut Serving<'_>, plain: Stream) -> Result<Admitted, Closing> {
    let settings = serving.listener.settings.clone();
    let ListenerKind::Outbound { connect, .. } = &settings.kind else {
        return Err(Closing::done(Ending::with(
            Reason::Internal,
            "an inbound listener served as outbound",
        )));
    };

    // Who are we?
    let context = match serving.recordable().and_then(|()| serving.identity()) {
        Ok(context) => context,
        Err(ending) => return Err(refused(plain, ending)),
    };
    let Some(client) = context.client(&settings.name) else {
        let ending = Ending::with(Reason::Internal, "the listener has no TLS configuration");
        return Err(refused(plain, ending));
    };

    // To whom?
    serving.draft.phase_over();
    serving.draft.upstream = Some(serving.listener.upstream.clone());
    let limit = serving.worker.live.terms().limits.connect_timeout;
    let dialled = tokio::select! {
        dialled = Box::pin(dial::peer(connect, &serving.worker.resolver, limit)) => {
            dialled.map_err(|e| Ending::with(e.reason, e.detail))
        }
        () = serving.worker.drain.forced() => Err(serving.forced()),
    };
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
        let result = authorize::outbound(&view, &settings.kind, &peer.id, &super::certificate(&peer));
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
