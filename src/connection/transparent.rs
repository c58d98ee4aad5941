//! What a connection was meant for before it was redirected to us, and whether it may go there.

use std::net::SocketAddr;

use super::Serving;
use crate::config::settings::{Destination, Destinations, Ours, Redirected, Target, Unmatched};
use crate::record::{Ending, PeerAddr, Reason};
use crate::sys::stream::Stream;

/// Where a redirected connection of the application goes.
pub(super) enum Way<'a> {
    /// Over mutual TLS to a peer of this destination, the so-many-th of its listener.
    Protected(usize, &'a Destination, SocketAddr),
    /// On in plain text.
    Plain(SocketAddr),
}

impl Serving<'_> {
    /// Takes a connection that the application made to somebody else.
    ///
    /// # Errors
    /// It was not redirected, would lead to us or comes from us, or nobody listed where it was meant to go.
    pub(super) fn redirected_out<'a>(
        &mut self,
        plain: &Stream,
        destinations: &'a Destinations,
    ) -> Result<Way<'a>, Ending> {
        let (caller, original) = self.original(plain)?;
        // A connection to oneself has one address twice.
        self.not_ours(&destinations.ours, original, caller)?;
        self.enter(caller, original)?;
        match (destinations.find(original), destinations.unmatched) {
            (Some((number, destination)), _) => Ok(Way::Protected(number, destination, original)),
            (None, Unmatched::Passthrough) => Ok(Way::Plain(original)),
            (None, Unmatched::Refuse) => Err(Ending::with(
                Reason::DestinationNotListed,
                format!("no entry of `destinations` names {original}"),
            )),
        }
    }

    /// Takes a connection that a peer made to the application.
    ///
    /// # Errors
    /// It was not redirected, would lead to us, or came to a port that the listener does not take.
    pub(super) fn redirected_in(&mut self, tls: &Stream, redirected: &Redirected) -> Result<(), Ending> {
        let (_, original) = self.original(tls)?;
        // Whatever is redirected here was meant for this machine.
        self.not_ours(&redirected.ours, original, original)?;
        if !redirected.takes(original.port()) {
            let detail = format!("`ports` of this listener does not name {}", original.port());
            return Err(Ending::with(Reason::DestinationNotListed, detail));
        }
        self.reached = Some(original);
        Ok(())
    }

    /// The application, where a redirected connection would have reached it without us.
    ///
    /// # Errors
    /// The listener is not transparent, which the config does not allow.
    pub(super) fn original_target(&self) -> Result<Target, Ending> {
        let original = self.draft.destination.as_deref();
        original.map(|address| Target::Ip(*address)).ok_or_else(|| {
            Ending::with(
                Reason::Internal,
                "a listener without an upstream is not transparent",
            )
        })
    }

    /// Tells of the connection that was made for a redirected one.
    ///
    /// # Errors
    /// It has come back to us.
    pub(super) fn dialled_for_redirected(&mut self, stream: &Stream) -> Result<(), Ending> {
        match (stream.local_addr(), stream.peer_addr()) {
            (Some(local), Some(peer)) => self.enter(local, peer),
            // A unix socket; or it is over already, and whatever follows will say so.
            _ => Ok(()),
        }
    }

    /// Who made the connection, and to whom.
    fn original(&mut self, stream: &Stream) -> Result<(SocketAddr, SocketAddr), Ending> {
        let caller = match self.draft.peer_addr {
            PeerAddr::Ip(ip, port) => Some(SocketAddr::new(ip, port)),
            PeerAddr::Unix => None,
        };
        let (Some(caller), Some(original)) = (caller, stream.original_destination()) else {
            let detail = "the listener is transparent and was called directly, or the connections are not tracked in this network namespace";
            return Err(Ending::with(Reason::NotIntercepted, detail));
        };
        self.draft.destination = Some(Box::new(original));
        Ok((caller, original))
    }

    fn not_ours(&self, ours: &Ours, original: SocketAddr, here: SocketAddr) -> Result<(), Ending> {
        if ours.has(original, here.ip()) {
            let detail = format!("{original} is an address that this sidecar listens on");
            return Err(Ending::with(Reason::LoopDetected, detail));
        }
        Ok(())
    }

    fn enter(&mut self, caller: SocketAddr, called: SocketAddr) -> Result<(), Ending> {
        let Some(between) = self.worker.live.loops.enter(caller, called) else {
            let detail = format!(
                "the connection to {called} is one that this sidecar made: the rules must leave out the user it runs as \
                 (`svidecar intercept --uid`)"
            );
            return Err(Ending::with(Reason::LoopDetected, detail));
        };
        if let Some(free) = self.between.iter_mut().find(|place| place.is_none()) {
            *free = Some(between);
        }
        Ok(())
    }
}
