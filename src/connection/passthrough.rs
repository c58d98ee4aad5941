//! `unmatched: passthrough`: a redirected connection that no destination names goes on in plain text, to where the
//! application wanted to go. Nobody is asked who answers there; the record says so (`passed_through`).

use std::net::SocketAddr;
use std::sync::Arc;

use super::Serving;
use crate::config::settings::Target;
use crate::forward::meter::{Meter, Traffic};
use crate::forward::plain;
use crate::record::{Direction, Ending};
use crate::sys::stream::Stream;
use crate::upstream::dial;

/// Serves such a connection to its end. It is no connection of a peer: it is in no registry, and changes of policy and
/// identity do not concern it.
pub(super) async fn serve(serving: &mut Serving<'_>, application: Stream, original: SocketAddr) -> Ending {
    let live = &serving.worker.live;
    let target = Target::Ip(original);
    serving.draft.upstream = Some(target.to_string().into());
    let limit = live.terms().limits.connect_timeout;
    let dialled = tokio::select! {
        dialled = Box::pin(dial::peer(&target, &serving.worker.resolver, limit)) => {
            dialled.map_err(|e| Ending::with(e.reason, e.detail))
        }
        () = serving.worker.drain.forced() => Err(serving.forced()),
    };
    let there = match dialled.and_then(|there| serving.dialled_for_redirected(&there).map(|()| there)) {
        Ok(there) => there,
        Err(ending) => {
            application.abort();
            return ending;
        }
    };
    // Nobody shakes hands here.
    (serving.handshake, serving.from_source) = (None, None);
    let traffic = Arc::<Traffic>::default();
    serving.draft.traffic = Some(traffic.clone());
    let meter = Meter::new(Direction::Outbound, traffic, serving.listener.metrics.clone());
    let idle = serving.worker.live.terms().limits.idle_timeout;
    // Connected is not yet accepted: only what answers shows that the connection has not come back to us. From then on the
    // caller may use its port for another one.
    let between = std::mem::take(&mut serving.between);
    let close = async {
        serving.worker.drain.forced().await;
        serving.forced()
    };
    plain::run(application, (there, between), &meter, idle, close).await
}
