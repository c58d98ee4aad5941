//! An established TLS 1.3 connection: what its records mean (RFC 8446 sections 4.6, 5, 6).
//!
//! A [`Session`] seals what is sent and opens what is received, answers key updates, keeps a few session tickets for
//! later connections, carries what two svidecars say of renewal ([`super::renewal`]), and tells data from the end of data
//! and from a failure. It does no I/O and holds no buffer for
//! data: the caller reads records into its own and has them opened there.

use std::ops::Range;
use std::sync::Arc;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::{AlertDescription, ContentType, Error as TlsError, ExtractedSecrets};

use super::alert;
use super::record::{HEADER, Opener, RecordError, SEAL_LIMIT, Sealer, TRAILER};
use super::renewal::message::HANDSHAKE_TYPE as RENEWAL;
use super::renewal::{self, Flaw, Link};
use super::resumption::tickets::MAX_SESSION;
use super::traffic::{TrafficSecret, TrafficSecrets};
use super::verify::{VerifiedPeer, lend_outcome, take_outcome};

/// Handshake messages and empty records that may come in a row without data: a peer that sends more only burns CPU.
const MAX_IDLE_RECORDS: u8 = 32;
/// A post-handshake message may span records; a NewSessionTicket is at most a little over 64 KiB
/// (RFC 8446 section 4.6.1).
const MAX_HANDSHAKE_MESSAGE: usize = (1 << 16) + 1024;

/// The most tickets that one connection takes; stock servers give two. More are passed over.
const MAX_TICKETS: u8 = 4;
/// The longest NewSessionTicket message that is taken: what our own servers give, at most. It is sent along with the
/// first message of a connection.
const MAX_TICKET: usize = MAX_SESSION + 256;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Takes tickets: puts them into the store of our configuration, with what rustls knows of the session.
pub(super) struct TicketTaker {
    kernel: KernelConnection<ClientConnectionData>,
    /// Whose tickets they are.
    peer: Arc<VerifiedPeer>,
    /// How many more are taken.
    left: u8,
}

impl TicketTaker {
    pub(super) const fn new(kernel: KernelConnection<ClientConnectionData>, peer: Arc<VerifiedPeer>) -> Self {
        Self {
            kernel,
            peer,
            left: MAX_TICKETS,
        }
    }
}

/// Which end of a session we are.
pub(super) enum Side {
    /// The client, and what takes tickets, if any are wanted.
    Client(Option<Box<TicketTaker>>),
    /// The server.
    Server,
}

/// What a received record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Payload for the other side; where in the record it lies.
    Data(Range<usize>),
    /// Nothing the caller must act on.
    Nothing,
    /// The peer sends no more data (close_notify, RFC 8446 section 6.1).
    End,
    /// The peer ended the connection with this fatal alert.
    Alert(AlertDescription),
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A record broke RFC 8446 section 5.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A message broke RFC 8446 section 4.6 or 6.
    #[error("{what} ({})", alert::name(*.alert))]
    Message {
        /// What was wrong.
        what: &'static str,
        /// What the peer is told.
        alert: AlertDescription,
    },
}

impl SessionError {
    /// The alert that tells the peer.
    #[must_use]
    pub const fn alert(&self) -> AlertDescription {
        match self {
            Self::Record(error) => error.alert(),
            Self::Message { alert, .. } => *alert,
        }
    }
}

/// What may still be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// Anything.
    Open,
    /// A fatal alert alone: close_notify was sealed.
    Ended,
    /// Nothing: a fatal alert was.
    Failed,
}

/// An established TLS 1.3 connection.
pub struct Session {
    sealer: Sealer,
    opener: Opener,
    /// What the next sealing and opening keys will be made from.
    sending_secret: TrafficSecret,
    receiving_secret: TrafficSecret,
    side: Side,
    /// The start of a post-handshake message that goes on in the next record.
    partial_message: Vec<u8>,
    idle_records: u8,
    received_data: bool,
    /// The peer asked for new keys; ours change before the next data record (RFC 8446 section 4.6.3).
    update_owed: bool,
    sending: Sending,
    /// Sealed already, to go out before anything else.
    unsent: Vec<u8>,
    /// Records to seal with one key.
    seal_limit: u64,
    /// Where both ends may understand renewal.
    renewal: Option<Box<Link>>,
}

impl Session {
    /// `unsent` is what the handshake sealed and did not send: it goes out before what is sealed first.
    pub(super) fn new(
        keys: &ExtractedSecrets,
        secrets: TrafficSecrets,
        side: Side,
        unsent: Vec<u8>,
        renewal: Option<Box<Link>>,
    ) -> Result<Self, RecordError> {
        let (sending_secret, receiving_secret) = match side {
            Side::Client(_) => (secrets.client, secrets.server),
            Side::Server => (secrets.server, secrets.client),
        };
        Ok(Self {
            sealer: Sealer::new(keys.tx.0, &keys.tx.1)?,
            opener: Opener::new(keys.rx.0, &keys.rx.1)?,
            sending_secret,
            receiving_secret,
            side,
            partial_message: Vec::new(),
            idle_records: 0,
            received_data: false,
            update_owed: false,
            sending: Sending::Open,
            unsent,
            seal_limit: SEAL_LIMIT,
            renewal,
        })
    }

    /// Frees what the next record's opening and sealing can make anew: the keys' expanded form, over a kilobyte. Nor are
    /// tickets waited for any longer once data has come: servers send them before, or with the first of it.
    pub fn rest(&mut self) {
        self.sealer.rest();
        self.opener.rest();
        if let Side::Client(taker) = &mut self.side
            && self.received_data
        {
            *taker = None;
        }
    }

    /// Opens one whole record in place and says what it was.
    ///
    /// # Errors
    /// Anything that RFC 8446 makes fatal. The caller seals [`SessionError::alert`] and ends the connection.
    pub fn receive(&mut self, record: &mut [u8]) -> Result<Received, SessionError> {
        let (content_type, payload) = self.opener.open(record)?;
        if content_type != ContentType::Handshake && !self.partial_message.is_empty() {
            // RFC 8446 section 5.1: not even an alert.
            return Err(unexpected("a record of another type inside a handshake message"));
        }
        match content_type {
            ContentType::ApplicationData => {
                if payload.is_empty() {
                    self.count_idle()?;
                    return Ok(Received::Nothing);
                }
                self.idle_records = 0;
                self.received_data = true;
                Ok(Received::Data(payload))
            }
            ContentType::Alert => self.alert(record.get(payload).unwrap_or_default()),
            ContentType::Handshake => {
                self.count_idle()?;
                self.handshake(record.get(payload).unwrap_or_default())?;
                Ok(Received::Nothing)
            }
            _ => Err(unexpected("a record of an unknown content type")),
        }
    }

    fn count_idle(&mut self) -> Result<(), SessionError> {
        self.idle_records = self.idle_records.saturating_add(1);
        if self.idle_records > MAX_IDLE_RECORDS {
            return Err(unexpected("too many records without data"));
        }
        Ok(())
    }

    fn alert(&mut self, payload: &[u8]) -> Result<Received, SessionError> {
        let &[_level, description] = payload else {
            return Err(SessionError::Message {
                what: "a malformed alert",
                alert: AlertDescription::DecodeError,
            });
        };
        // In TLS 1.3 the level means nothing: all but these two are fatal (RFC 8446 section 6).
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => Ok(Received::End),
            AlertDescription::UserCanceled => {
                self.count_idle()?;
                Ok(Received::Nothing)
            }
            other => Ok(Received::Alert(other)),
        }
    }

    fn handshake(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        if payload.is_empty() {
            return Err(unexpected("an empty handshake record"));
        }
        if self.partial_message.len() + payload.len() > MAX_HANDSHAKE_MESSAGE {
            return Err(unexpected("a handshake message of more than 64 KiB"));
        }
        self.partial_message.extend_from_slice(payload);
        let messages = std::mem::take(&mut self.partial_message);
        let mut rest = messages.as_slice();
        while let Some(&message_type) = rest.first() {
            // Nothing is waited for whose beginning is wrong already.
            if !self.may_follow_handshake(message_type) {
                return Err(unexpected(
                    "a handshake message that may not follow the handshake",
                ));
            }
            let Some((body, after)) = split_message(rest) else {
                if message_type == RENEWAL {
                    return Err(unexpected("a renewal message that is not whole in its record"));
                }
                break;
            };
            match message_type {
                KEY_UPDATE => self.key_update(body, after.is_empty())?,
                RENEWAL => self.renewal_message(body)?,
                _ => self.ticket(body)?,
            }
            rest = after;
        }
        // What is left, in memory of its own size: a ticket may be long, and the connection lives long.
        self.partial_message = rest.to_vec();
        Ok(())
    }

    const fn may_follow_handshake(&self, message_type: u8) -> bool {
        match message_type {
            KEY_UPDATE => true,
            NEW_SESSION_TICKET => matches!(self.side, Side::Client(_)),
            // It says itself who may speak when.
            RENEWAL => self.renewal.is_some(),
            _ => false,
        }
    }

    /// What the peer says of renewal: laid by for [`Link::next_heard`].
    fn renewal_message(&mut self, body: &[u8]) -> Result<(), SessionError> {
        let Some(link) = &mut self.renewal else {
            return Ok(());
        };
        let answers = link.awaits_answer();
        link.receive(body)
            .map_err(|(what, alert)| SessionError::Message { what, alert })?;
        if answers && !link.awaits_answer() {
            // We asked for it: it is no idle talk, however often a quiet connection is renewed.
            self.idle_records = 0;
        }
        Ok(())
    }

    /// What the two ends say of renewal, where both may understand it.
    pub fn renewal(&mut self) -> Option<&mut Link> {
        self.renewal.as_deref_mut()
    }

    /// Whether the peer said something of renewal that is to be acted on.
    #[must_use]
    pub fn has_heard_renewal(&self) -> bool {
        self.renewal.as_ref().is_some_and(|link| link.has_heard())
    }

    /// Whether something of renewal is to be said: [`Self::seal_renewal`].
    #[must_use]
    pub fn has_renewal_to_say(&self) -> bool {
        self.sending == Sending::Open && self.renewal.as_ref().is_some_and(|link| link.has_to_say())
    }

    /// Seals what is to be said of renewal, each message in a record of its own, and appends it to `out`.
    ///
    /// # Errors
    /// As [`Sealer::seal`]; also after the end was sealed.
    pub fn seal_renewal(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        self.may_send()?;
        while let Some(message) = self.renewal.as_mut().and_then(|link| link.next_to_say()) {
            self.seal_control(ContentType::Handshake, &message, out)?;
        }
        Ok(())
    }

    /// Checks a renewal of the peer as [`Link::check`] does. One that is good counts as data does: a connection on which
    /// nothing else is said may be renewed for ever. How often is for the caller to limit.
    ///
    /// # Errors
    /// As [`Link::check`].
    pub fn check_renewal(&mut self, renewal: &renewal::Renewal) -> Result<(), Flaw> {
        let link = self.renewal.as_mut().ok_or(Flaw::Signature)?;
        link.check(renewal)?;
        self.idle_records = 0;
        Ok(())
    }

    /// RFC 8446 section 4.6.1. rustls keeps the ticket with what it needs; see [`super::resumption`].
    fn ticket(&mut self, body: &[u8]) -> Result<(), SessionError> {
        let Side::Client(Some(taker)) = &mut self.side else {
            return Ok(());
        };
        // A lifetime of zero says that it is of no use.
        if taker.left == 0 || body.len() > MAX_TICKET || body.starts_with(&[0; 4]) {
            return Ok(());
        }
        taker.left -= 1;
        lend_outcome(Some(Ok(taker.peer.clone())));
        renewal::capability::lend(self.renewal.is_some());
        let kept = taker.kernel.handle_new_session_ticket(body);
        renewal::capability::take();
        take_outcome();
        kept.map_err(|error| SessionError::Message {
            what: "a malformed session ticket",
            alert: match error {
                TlsError::InvalidMessage(error) => error.into(),
                _ => AlertDescription::InternalError,
            },
        })
    }

    /// RFC 8446 section 4.6.3. Keys change at a record's end, so nothing may follow in the same record.
    fn key_update(&mut self, body: &[u8], is_last: bool) -> Result<(), SessionError> {
        let requested = match body {
            [0] => false,
            [1] => true,
            [_] => {
                return Err(SessionError::Message {
                    what: "a key update that neither asks for one nor does not",
                    alert: AlertDescription::IllegalParameter,
                });
            }
            _ => {
                return Err(SessionError::Message {
                    what: "a malformed key update",
                    alert: AlertDescription::DecodeError,
                });
            }
        };
        if !is_last {
            return Err(unexpected("a key update that is not the last of its record"));
        }
        self.receiving_secret = self.receiving_secret.next().ok_or(RecordError::Keys)?;
        self.opener.update(&self.receiving_secret)?;
        self.update_owed |= requested;
        Ok(())
    }

    /// Seals `length` payload bytes that lie [`HEADER`] bytes into `slot`; returns the record's whole length.
    /// Call [`Self::before_data`] first.
    ///
    /// # Errors
    /// As [`Sealer::seal`]; also after the end was sealed.
    pub fn seal_data(&mut self, slot: &mut [u8], length: usize) -> Result<usize, SessionError> {
        self.may_send()?;
        Ok(self.sealer.seal(ContentType::ApplicationData, slot, length)?)
    }

    /// Appends to `out` what must go out before the next data record: what the handshake left, and a key update where
    /// one is due.
    ///
    /// # Errors
    /// No new key could be derived; also after the end was sealed.
    pub fn before_data(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        self.may_send()?;
        self.send_unsent(out);
        if self.update_owed || self.sealer.sealed() >= self.seal_limit {
            self.update_owed = false;
            self.update_sending_key(out)?;
        }
        Ok(())
    }

    fn may_send(&self) -> Result<(), RecordError> {
        if self.sending == Sending::Open {
            Ok(())
        } else {
            Err(RecordError::Seal)
        }
    }

    /// Seals a key update (update_not_requested) with the old key and goes over to the new one.
    fn update_sending_key(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        self.seal_control(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, 0], out)?;
        self.sending_secret = self.sending_secret.next().ok_or(RecordError::Keys)?;
        Ok(self.sealer.update(&self.sending_secret)?)
    }

    /// Seals the end of our data, close_notify, and appends it to `out`. Does nothing when an end was sealed before.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal_close_notify(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        if self.sending != Sending::Open {
            return Ok(());
        }
        self.sending = Sending::Ended;
        self.seal_control(
            ContentType::Alert,
            &[1, u8::from(AlertDescription::CloseNotify)],
            out,
        )
    }

    /// Seals a fatal alert and appends it to `out`. It may follow close_notify, to tell the peer that its own data
    /// was not taken. Does nothing when a fatal alert was sealed before.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal_fatal(&mut self, alert: AlertDescription, out: &mut Vec<u8>) -> Result<(), SessionError> {
        if self.sending == Sending::Failed {
            return Ok(());
        }
        self.sending = Sending::Failed;
        self.seal_control(ContentType::Alert, &[2, u8::from(alert)], out)
    }

    /// Has the key changed after fewer records, so that a test need not seal millions.
    #[cfg(test)]
    pub(crate) const fn set_seal_limit(&mut self, limit: u64) {
        self.seal_limit = limit;
    }

    fn send_unsent(&mut self, out: &mut Vec<u8>) {
        if !self.unsent.is_empty() {
            out.append(&mut std::mem::take(&mut self.unsent));
        }
    }

    fn seal_control(
        &mut self,
        content_type: ContentType,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        self.send_unsent(out);
        let start = out.len();
        out.resize(start + HEADER, 0);
        out.extend_from_slice(payload);
        out.resize(out.len() + TRAILER, 0);
        let slot = out.get_mut(start..).ok_or(RecordError::Seal)?;
        self.sealer.seal(content_type, slot, payload.len())?;
        Ok(())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("sealer", &self.sealer)
            .field("opener", &self.opener)
            .finish_non_exhaustive()
    }
}

const fn unexpected(what: &'static str) -> SessionError {
    SessionError::Message {
        what,
        alert: AlertDescription::UnexpectedMessage,
    }
}

/// The body of the first handshake message of `bytes`, and what follows it; `None` while it is not whole.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_type, a, b, c], rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests;
