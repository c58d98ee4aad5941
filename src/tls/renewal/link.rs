//! Where one connection is in the protocol: who may say what now, and what is to be said or acted on.

use std::collections::VecDeque;
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;

use super::message::{self, Message, Renewal, Verdict};
use super::proof::{self, Binding, Flaw};
use crate::tls::signing;
use crate::tls::verify::PeerSide;

/// What the peer said that is to be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It understands renewal.
    Hello,
    /// It holds a newer SVID: to be checked, and then to be answered.
    Renewal(Box<Renewal>),
    /// What became of our renewal.
    Answer(Verdict),
}

/// Why no renewal of ours can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOffered {
    /// The peer is not known to understand it, or has not answered the last one.
    #[error("the peer cannot take a renewal now")]
    NotNow,
    /// The chain does not fit into a message.
    #[error("our chain is too long for a renewal")]
    TooLong,
    /// Our key does not sign as TLS 1.3 does, or the library fails.
    #[error("our key cannot sign a renewal")]
    Key,
}

/// One connection's renewals, both ways.
#[derive(Debug)]
pub struct Link {
    binding: Binding,
    /// Which end we are.
    own_side: PeerSide,
    /// The peer is known to understand.
    peer_knows: bool,
    /// The peer knows that we do.
    told: bool,
    /// Our last renewal is not answered yet.
    unanswered: bool,
    /// The peer's last renewal is not answered yet, so that it must not send another.
    answer_owed: bool,
    /// The number of our last renewal.
    sent: u32,
    /// The number of the peer's last renewal that was checked.
    received: u32,
    /// What is rarely there.
    pending: Option<Box<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    heard: VecDeque<Heard>,
    /// Whole messages, each for a record of its own.
    to_say: VecDeque<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.heard.is_empty() && self.to_say.is_empty()
    }
}

/// What may not be said at this point of the protocol, with the alert that tells so.
pub(in crate::tls) type Breach = (&'static str, AlertDescription);

impl Link {
    /// Of a connection whose server has said that it understands renewal, or is us.
    pub(in crate::tls) const fn new(binding: Binding, own_side: PeerSide) -> Self {
        let client = matches!(own_side, PeerSide::Client);
        Self {
            binding,
            own_side,
            peer_knows: client,
            told: !client,
            unanswered: false,
            answer_owed: false,
            sent: 0,
            received: 0,
            pending: None,
        }
    }

    /// What it is bound to.
    #[cfg(test)]
    pub(in crate::tls) const fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Takes the body of a message of the peer.
    pub(in crate::tls) fn receive(&mut self, body: &[u8]) -> Result<(), Breach> {
        const UNEXPECTED: AlertDescription = AlertDescription::UnexpectedMessage;
        let message = message::parse(body).map_err(|error| {
            let what = match error {
                message::Malformed::Length => "a renewal message whose length is wrong",
                message::Malformed::Value => "a renewal message with a value that does not exist",
                message::Malformed::Bounds => "a renewal message with a part that is empty or too long",
            };
            (what, AlertDescription::DecodeError)
        })?;
        if !self.told {
            // A server must not speak of it to who has not said to understand.
            return Err(("a renewal message that nobody asked for", UNEXPECTED));
        }
        let heard = match message {
            Message::Hello if self.peer_knows => {
                return Err(("a second renewal hello", UNEXPECTED));
            }
            Message::Hello => Heard::Hello,
            Message::Renewal(renewal) => {
                if self.answer_owed {
                    return Err(("a renewal before the last one was answered", UNEXPECTED));
                }
                self.answer_owed = true;
                Heard::Renewal(renewal)
            }
            Message::Answer { sequence, verdict } => {
                if !self.unanswered || sequence != self.sent {
                    return Err(("an answer to a renewal that was not sent", UNEXPECTED));
                }
                self.unanswered = false;
                Heard::Answer(verdict)
            }
        };
        // Who says anything of it understands it.
        self.peer_knows = true;
        self.pending().heard.push_back(heard);
        Ok(())
    }

    fn pending(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    fn trim(&mut self) {
        if self.pending.as_ref().is_some_and(|pending| pending.is_empty()) {
            self.pending = None;
        }
    }

    /// Whether [`Self::next_heard`] has something.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| !pending.heard.is_empty())
    }

    /// Takes the next of what the peer said.
    pub fn next_heard(&mut self) -> Option<Heard> {
        let heard = self.pending.as_mut()?.heard.pop_front();
        self.trim();
        heard
    }

    /// Whether there is something to be sealed and sent.
    #[must_use]
    pub fn has_to_say(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| !pending.to_say.is_empty())
    }

    /// Takes the next message to be sealed and sent, in a record of its own.
    pub(in crate::tls) fn next_to_say(&mut self) -> Option<Vec<u8>> {
        let message = self.pending.as_mut()?.to_say.pop_front();
        self.trim();
        if message.as_deref().is_some_and(message::is_answer) {
            self.answer_owed = false;
        }
        message
    }

    /// Says, as a client and once, that we understand renewal.
    pub fn greet(&mut self) {
        if !self.told {
            self.told = true;
            self.pending().to_say.push_back(message::hello());
        }
    }

    /// Whether our last renewal is not answered yet.
    #[must_use]
    pub const fn awaits_answer(&self) -> bool {
        self.unanswered
    }

    /// Whether a renewal of ours may be said now.
    #[must_use]
    pub const fn may_offer(&self) -> bool {
        self.peer_knows && !self.unanswered
    }

    /// Says that we hold this chain and its key now.
    ///
    /// # Errors
    /// See [`NotOffered`]; nothing is said then.
    pub fn offer(
        &mut self,
        chain: &[CertificateDer<'_>],
        key: &Arc<dyn SigningKey>,
    ) -> Result<(), NotOffered> {
        if !self.may_offer() {
            return Err(NotOffered::NotNow);
        }
        let list = message::list(chain).ok_or(NotOffered::TooLong)?;
        let sequence = self.sent.checked_add(1).ok_or(NotOffered::NotNow)?;
        let signed = proof::signed(&self.binding, self.own_side, sequence, &list);
        let (scheme, signature) = signing::sign(key, &signed).ok_or(NotOffered::Key)?;
        let message = message::shown(sequence, &list, scheme, &signature).ok_or(NotOffered::TooLong)?;
        self.sent = sequence;
        self.unanswered = true;
        // It tells that, too.
        self.told = true;
        self.pending().to_say.push_back(message);
        Ok(())
    }

    /// Checks that a renewal of the peer is its next, and that it was made for this connection by the holder of its leaf's
    /// key. Nothing is said about the certificates.
    ///
    /// # Errors
    /// What is wrong with it: to be told to the peer, and the end of the connection.
    pub(in crate::tls) fn check(&mut self, renewal: &Renewal) -> Result<(), Flaw> {
        let expected = self.received.saturating_add(1);
        if renewal.sequence != expected {
            return Err(Flaw::Sequence {
                found: renewal.sequence,
                expected,
            });
        }
        let by = match self.own_side {
            PeerSide::Client => PeerSide::Server,
            PeerSide::Server => PeerSide::Client,
        };
        let signed = proof::signed(&self.binding, by, renewal.sequence, renewal.list());
        proof::verify(renewal, &signed)?;
        self.received = expected;
        Ok(())
    }

    /// Says what became of the peer's last renewal.
    pub fn answer(&mut self, verdict: Verdict) {
        let message = message::answer(self.received, verdict);
        self.pending().to_say.push_back(message);
    }
}
