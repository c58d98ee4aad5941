//! What forwarding asks of the one who knows identities and policy, when an open connection is to be renewed
//! ([`crate::tls::renewal`]).

use std::fmt::Debug;
use std::sync::Arc;

use rustls::AlertDescription;

use crate::record::Decision;
use crate::tls::renewal::Heard;
use crate::tls::session::Session;

/// Renews one connection. All calls come from its task; none may wait.
pub trait Renewing: Debug + Send {
    /// The connection has been open for so long that it may need renewal one day: a client says now that it understands it.
    fn begin(&mut self, session: &mut Session);

    /// Whether [`Self::say`] may have something to say. Asked before each move, so that it must cost nothing. Whoever
    /// makes it true wakes the connection's task.
    fn is_due(&self) -> bool;

    /// Puts what is to be said into the session, which seals it when what was sealed before is written.
    fn say(&mut self, session: &mut Session);

    /// Acts on what the peer said.
    ///
    /// # Errors
    /// The connection must end.
    fn hear(&mut self, heard: Heard, session: &mut Session) -> Result<(), Refused>;
}

/// A renewal that was not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the peer is told.
    pub alert: AlertDescription,
    /// For the operator.
    pub detail: String,
    /// The record of that verdict.
    pub decision: Option<Arc<Decision>>,
}

impl Refused {
    /// A renewal that was refused, and of which there is no record yet.
    #[must_use]
    pub fn new(alert: AlertDescription, detail: impl Into<String>) -> Self {
        Self {
            alert,
            detail: detail.into(),
            decision: None,
        }
    }
}
