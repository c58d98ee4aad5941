//! Renewals among the data of a relay. They are no traffic: they neither put off the idle time-out nor keep what an idle
//! connection does without. What is said goes out between what is sealed, as soon as the socket takes it, whether or not
//! there is data. Who has sent close_notify says no more (RFC 8446 section 6.1): an end whose direction is through can't
//! renew the connection, and neither it nor an answer is waited for.

use super::Relay;
use super::sealing::SealingState;
use crate::record::{Ending, Reason};

impl Relay {
    /// Once, after the connection has been open for a while.
    pub(super) fn begin_renewing(&mut self) {
        if self.begun {
            return;
        }
        self.begun = true;
        if let Some(renewing) = &mut self.renewing {
            renewing.begin(&mut self.session);
        }
    }

    /// Whether something of renewal is to be sealed as soon as that may be.
    pub(super) fn has_renewal_to_say(&self) -> bool {
        self.sealing == SealingState::Open
            && (self.session.has_renewal_to_say() || self.renewing.as_ref().is_some_and(|r| r.is_due()))
    }

    /// Seals what is to be said; whether that was something. To be called when everything sealed before is written.
    pub(super) fn say_renewals(&mut self) -> Result<bool, Ending> {
        if let Some(renewing) = &mut self.renewing
            && renewing.is_due()
        {
            renewing.say(&mut self.session);
        }
        if !self.session.has_renewal_to_say() {
            return Ok(false);
        }
        let sealed = self.session.seal_renewal(self.outgoing.control());
        sealed.map_err(|error| Ending::with(Reason::Internal, error.to_string()))?;
        self.rest_again();
        Ok(true)
    }

    /// Acts on what the peer said.
    pub(super) fn hear_renewals(&mut self) -> Result<(), Ending> {
        while let Some(heard) = self.session.renewal().and_then(|link| link.next_heard()) {
            if let Some(renewing) = &mut self.renewing {
                let result = renewing.hear(heard, &mut self.session);
                result.map_err(|refused| {
                    self.protocol_alert = Some(refused.alert);
                    Ending {
                        decision: refused.decision,
                        ..Ending::with(Reason::RenewalRefused, refused.detail)
                    }
                })?;
            }
        }
        self.rest_again();
        Ok(())
    }

    /// A renewal on a quiet connection made anew what an idle one does without.
    fn rest_again(&mut self) {
        if self.settled {
            self.settle();
        }
    }
}
