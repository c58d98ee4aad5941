//! A connection whose bytes are being moved. It holds what its record and its re-examination need, and nothing of how
//! it came about.

use std::pin::Pin;
use std::sync::Arc;

use super::budget::InUse;
use super::capacity::Place;
use super::draft::Draft;
use super::live::Live;
use super::registry::Registered;
use super::renewal::Renewals;
use super::{Admitted, Left, ListenerContext, Worker};
use crate::forward::meter::Meter;
use crate::forward::relay::{self, Ended};
use crate::telemetry::metrics::OpenConnection;

/// An open connection.
pub(super) struct Open {
    relay: Pin<Box<dyn Future<Output = Ended> + Send>>,
    draft: Draft,
    live: Arc<Live>,
    place: Place,
    /// Out of the registry when the relay has ended.
    registered: Registered,
    /// Given back then, too.
    in_use: Option<Box<InUse>>,
    counted: OpenConnection,
}

impl Open {
    pub(super) fn new(
        admitted: Admitted,
        mut draft: Draft,
        worker: &Worker,
        listener: &ListenerContext,
        place: Place,
        counted: OpenConnection,
    ) -> Box<Self> {
        let Admitted {
            permit,
            mut ends,
            registered,
            in_use,
        } = admitted;
        let traffic = registered.entry.traffic.clone();
        draft.traffic = Some(traffic.clone());
        let meter = Meter::new(listener.direction, traffic, listener.metrics.clone())
            .paced(in_use.as_ref().map(|in_use| Box::new(in_use.pace())));
        let idle = worker.live.terms().limits.idle_timeout;
        let (live, entry) = (&worker.live, &registered.entry);
        let renewing = Renewals::of(live, entry, &listener.metrics, &mut ends.session);
        let relay = relay::run(&permit, ends, meter, idle, renewing, registered.told_to_end());
        Box::new(Self {
            relay: Box::pin(relay),
            draft,
            live: worker.live.clone(),
            place,
            registered,
            in_use,
            counted,
        })
    }

    /// Moves the bytes until the connection ends, by itself or because it is told to, and records it.
    pub(super) async fn relay(mut self: Box<Self>) -> Left {
        let Ended { ending, linger } = self.relay.as_mut().await;
        let Self {
            draft,
            live,
            place,
            registered,
            in_use,
            counted,
            ..
        } = *self;
        // Whoever reads of its end finds it gone.
        drop((registered, in_use, counted));
        live.records.record(&draft.finish(ending, &live));
        Left {
            linger,
            place: Some(place),
        }
    }
}
