//! A peer calls the application: mutual TLS in, then policy, then plaintext on.

use std::sync::Arc;

use rustls::AlertDescription;

use super::{Admitted, Closing, Serving, after_failure, refuse};
use crate::authorize::{self, Denial, Permit};
use crate::config::settings::{ListenerKind, Target};
use crate::forward::relay::{Ends, alert_for};
use crate::record::{Ending, Reason};
use crate::sys::stream::Stream;
use crate::tls::configs::Context;
use crate::tls::handshake::{self, Established};
use crate::tls::{alert, verify::VerifiedPeer};
use crate::upstream::dial;

pub(super) async fn serve(serving: &mut Serving<'_>, mut tls: Stream) -> Result<Admitted, Closing> {
    let settings = serving.listener.settings.clone();
    let ListenerKind::Inbound { upstream } = &settings.kind else {
        return Err(Closing::done(Ending::with(
            Reason::Internal,
            "an outbound listener served as inbound",
        )));
    };

    // Who are we?
    let context = match serving.identity() {
        Ok(context) => context,
        Err(ending) => return Err(without_identity(tls, ending).await),
    };
    let Some(server) = context.server(&settings.name) else {
        let ending = Ending::with(Reason::Internal, "the listener has no TLS configuration");
        return Err(without_identity(tls, ending).await);
    };

    // Who are they?
    let established = match serving.handshake(handshake::accept(&mut tls, server)).await {
        Ok(established) => established,
        Err(failure) => return Err(after_failure(tls, failure)),
    };
    admitted_or_not(serving, &context, established, tls, upstream).await
}

/// From here on the peer is known and can be told in TLS.
async fn admitted_or_not(
    serving: &mut Serving<'_>,
    context: &Arc<Context>,
    established: Established,
    tls: Stream,
    upstream: &Target,
) -> Result<Admitted, Closing> {
    let registered = serving.register(context, &established);
    let Established {
        session,
        peer,
        unread,
        ..
    } = established;

    // May they?
    if let Err(ending) = serving.recheck(&registered) {
        let linger = refuse(session, tls, alert_for(ending.reason)).await;
        return Err(Closing { ending, linger });
    }
    let permit = match authorize(serving, context, &peer) {
        Ok(permit) => permit,
        Err(denial) => {
            serving.draft.decision = Some(denial.decision);
            let linger = refuse(session, tls, AlertDescription::AccessDenied).await;
            return Err(Closing {
                ending: Ending::with(denial.reason, denial.detail),
                linger,
            });
        }
    };
    serving.admitted(&permit, &registered);

    // To whom?
    serving.draft.upstream = Some(serving.listener.upstream.clone());
    let limit = serving.worker.live.limits.connect_timeout;
    let dialled = tokio::select! {
        dialled = Box::pin(dial::application(&permit, upstream, &serving.worker.resolver, limit)) => {
            dialled.map_err(|e| Ending::with(e.reason, e.detail))
        }
        ending = serving.told_to_close(&registered) => Err(ending),
    };
    let plain = match dialled {
        Ok(plain) => plain,
        Err(ending) => {
            let linger = refuse(session, tls, alert_for(ending.reason)).await;
            return Err(Closing { ending, linger });
        }
    };
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
    })
}

fn authorize(serving: &Serving<'_>, context: &Context, peer: &VerifiedPeer) -> Result<Permit, Denial> {
    let live = &serving.worker.live;
    let facts = authorize::Facts {
        listener: &serving.listener.settings.name,
        peer: &peer.id,
        source: serving.draft.peer_addr.ip(),
        own_trust_domain: context.material.svid.id.trust_domain(),
        certificate: Some(super::certificate(peer)),
    };
    let result = authorize::inbound(&live.policy(), &facts, live.clock.now());
    let decision = match &result {
        Ok(permit) => permit.decision(),
        Err(denial) => &denial.decision,
    };
    serving
        .listener
        .metrics
        .decided(decision.rule.as_deref(), decision.verdict);
    result
}

/// Nobody can be shaken hands with. The peer is told in the clear, at once, rather than left to wait.
async fn without_identity(tls: Stream, ending: Ending) -> Closing {
    let alert = alert::plaintext_fatal(AlertDescription::InternalError);
    Closing {
        ending,
        linger: tls.write_last(&alert).await,
    }
}
