//! A peer calls the application: mutual TLS in, then policy, then plaintext on.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustls::AlertDescription;
use tokio::time::Instant;

use super::budget::InUse;
use super::registry::Registered;
use super::{Admitted, Closing, Serving, after_failure, proxy, refuse};
use crate::authorize::{self, Permit};
use crate::config::settings::{ListenerKind, PolicyMode, Upstream};
use crate::forward::relay::{Ends, alert_for};
use crate::record::{Decision, Ending, Reason};
use crate::sys::stream::Stream;
use crate::tls::configs::Context;
use crate::tls::handshake::{self, Agreed, Established};
use crate::tls::{alert, verify::VerifiedPeer};
use crate::upstream::dial;

pub(super) async fn serve(serving: &mut Serving<'_>, mut tls: Stream) -> Result<Admitted, Closing> {
    let settings = serving.listener.settings.clone();
    let ListenerKind::Inbound {
        accept_proxy_from,
        redirected,
        ..
    } = &settings.kind
    else {
        return Err(Closing::done(Ending::with(
            Reason::Internal,
            "an outbound listener served as inbound",
        )));
    };

    // For whom was it meant? What was not redirected gets no answer, as from a port where nobody listens.
    if let Some(redirected) = redirected
        && let Err(ending) = serving.redirected_in(&tls, redirected)
    {
        tls.abort();
        return Err(Closing::done(ending));
    }

    // Who are we?
    let context = match serving.recordable().and_then(|()| serving.identity()) {
        Ok(context) => context,
        Err(ending) => return Err(without_identity(tls, ending).await),
    };
    let Some(server) = context.server(&settings.name) else {
        let ending = Ending::with(Reason::Internal, "the listener has no TLS configuration");
        return Err(without_identity(tls, ending).await);
    };

    // From where, and are there too many from there already?
    let deadline = serving.handshake_deadline();
    let read = match from_where(serving, &mut tls, accept_proxy_from, deadline).await {
        Ok(beyond) => beyond,
        Err(ending) => {
            tls.abort();
            return Err(Closing::done(ending));
        }
    };

    // Who are they?
    let handshake = handshake::accept(&mut tls, server, read);
    let established = match serving.handshake(deadline, handshake).await {
        Ok(established) => established,
        Err(failure) => return Err(after_failure(tls, failure)),
    };
    admitted_or_not(serving, &context, established, tls, &settings.kind).await
}

/// Takes a place for the handshake among those from the same source. For whom a load balancer calls its header says, which
/// is read first; what was read beyond it is returned.
async fn from_where(
    serving: &mut Serving<'_>,
    tls: &mut Stream,
    balancers: &[IpNet],
    deadline: Instant,
) -> Result<Vec<u8>, Ending> {
    let is_balancer = |ip: IpAddr| balancers.iter().any(|network| network.contains(&ip));
    let read = if serving.draft.peer_addr.ip().is_some_and(is_balancer) {
        Box::pin(proxy::read_header(serving, tls, deadline)).await?
    } else {
        Vec::new()
    };
    if let Some(source) = serving.draft.source().ip() {
        let capacity = &serving.worker.live.capacity;
        serving.from_source = capacity.handshake_from(source)?;
    }
    Ok(read)
}

/// From here on the peer is known and can be told in TLS.
async fn admitted_or_not(
    serving: &mut Serving<'_>,
    context: &Arc<Context>,
    established: Established,
    tls: Stream,
    kind: &ListenerKind,
) -> Result<Admitted, Closing> {
    let registered = serving.register(context, &established);
    let Established {
        session,
        peer,
        unread,
        agreed,
        ..
    } = established;

    // May they?
    if let Err(ending) = serving.recheck(&registered) {
        let linger = refuse(session, tls, alert_for(ending.reason)).await;
        return Err(Closing { ending, linger });
    }
    let (permit, in_use, decision) = match authorize(serving, context, &peer) {
        Ok(admitted) => admitted,
        Err(ending) => {
            let linger = refuse(session, tls, AlertDescription::AccessDenied).await;
            return Err(Closing { ending, linger });
        }
    };
    serving.admitted(decision, &registered);
    if let Err(ending) = serving.recorded(&registered).await {
        let linger = refuse(session, tls, alert_for(ending.reason)).await;
        return Err(Closing { ending, linger });
    }

    // To whom?
    let plain = match connect(serving, &permit, &registered, &agreed, &tls, kind).await {
        Ok(plain) => plain,
        Err(ending) => {
            let linger = refuse(session, tls, alert_for(ending.reason)).await;
            return Err(Closing { ending, linger });
        }
    };
    serving.draft.phase_over();
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
        in_use: in_use.map(Box::new),
    })
}

/// Connects to the application and tells it who calls, where it wants to know.
async fn connect(
    serving: &mut Serving<'_>,
    permit: &Permit,
    registered: &Registered,
    agreed: &Agreed,
    tls: &Stream,
    kind: &ListenerKind,
) -> Result<Stream, Ending> {
    let ListenerKind::Inbound {
        upstream,
        proxy_protocol,
        ..
    } = kind
    else {
        return Err(Ending::with(
            Reason::Internal,
            "an outbound listener served as inbound",
        ));
    };
    // Before anything is dialled: an application is not even connected to for a caller that it cannot be told of.
    let header = proxy::header_for_application(*proxy_protocol, serving, tls, agreed)?;
    serving.draft.upstream = Some(serving.listener.upstream.clone());
    let limit = serving.worker.live.terms().limits.connect_timeout;
    let resolver = &serving.worker.resolver;
    let original;
    let upstream = match upstream {
        Upstream::Application(target) => target,
        Upstream::Original => {
            original = serving.original_target()?;
            serving.draft.upstream = Some(original.to_string().into());
            &original
        }
        Upstream::Own(pages) => return serving.worker.live.own.connect(permit, *pages),
    };
    let plain = tokio::select! {
        dialled = Box::pin(dial::application(permit, upstream, &header, resolver, limit)) => {
            dialled.map_err(|e| Ending::with(e.reason, e.detail))
        }
        ending = serving.told_to_close(registered) => Err(ending),
    }?;
    if let Some(local) = plain.local_addr() {
        // Nobody else sets it.
        let _ = registered.entry.local.set(local);
    }
    Ok(plain)
}

/// Policy first, and what it admits is counted against the peer's budgets.
fn authorize(
    serving: &mut Serving<'_>,
    context: &Context,
    peer: &VerifiedPeer,
) -> Result<(Permit, Option<InUse>, Arc<Decision>), Ending> {
    let live = &serving.worker.live;
    let listener = serving.listener.settings.clone();
    let facts = authorize::Facts {
        listener: &listener.name,
        peer: &peer.id,
        source: serving.draft.source().ip(),
        own_trust_domain: context.material.svid.id.trust_domain(),
        certificate: Some(super::certificate(peer)),
    };
    let (policy, now) = (live.policy(), live.clock.now());
    let mut in_use = None;
    let result = authorize::inbound(&policy, &facts, now).and_then(|permit| {
        let budgets: Vec<_> = policy
            .admission
            .policy
            .budgets(&listener.name, &peer.id)
            .collect();
        let enforced = policy.mode == PolicyMode::Enforce;
        let (entered, over) = live.budgets.enter(&budgets, &peer.id, enforced);
        in_use = entered;
        match over {
            Some(over) => permit.over_budget(&policy, &over.budget, over.detail),
            None => Ok(permit),
        }
    });
    let decision = serving.authorized(&policy, &facts, now, &result);
    match result {
        Ok(permit) => Ok((permit, in_use, decision)),
        Err(_) => Err(Ending::by(decision)),
    }
}

/// Nobody can be shaken hands with. The peer is told in the clear, at once, rather than left to wait.
async fn without_identity(tls: Stream, ending: Ending) -> Closing {
    let alert = alert::plaintext_fatal(AlertDescription::InternalError);
    Closing {
        ending,
        linger: tls.write_last(&alert).await,
    }
}
