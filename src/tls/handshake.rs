//! Drives a TLS handshake over a socket with rustls' unbuffered connections, and hands over an established
//! [`Session`].
//!
//! rustls is fed one record at a time. So when it says that the handshake is complete, whatever else was read is
//! still sealed, and the session opens it like all that follows: data that arrived with the peer's Finished is
//! neither lost nor treated apart.
//!
//! What can fail is told in full to the caller ([`Failure`]) and in one alert to the peer.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{
    AlertDescription, CertificateError, CipherSuite, Error as TlsError, ExtractedSecrets, HandshakeKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::alert;
use super::configs::{Client, Server};
use super::present::{take_called, take_presented};
use super::record::{HEADER, MAX_RECORD};
use super::renewal::{Link, capability};
use super::session::{Session, Side, TicketTaker};
use super::traffic::{TrafficSecrets, take_secrets};
use super::verify::{Outcome, PeerSide, PeerVerifier, Refusal, VerifiedPeer, lend_outcome, take_outcome};
use crate::record::{Certificate, Check, Reason};
use crate::spiffe::SpiffeId;
use crate::spiffe::svid::rule;
use crate::sys::stream::Stream;

/// The most that may be unread or half-understood at once: a handshake message of 64 KiB, which rustls takes at
/// most, and a record behind it.
const MAX_BUFFERED: usize = (1 << 16) + 2 * MAX_RECORD;
/// What is read at a time; a usual flight fits.
const READ_SIZE: usize = 4096;
/// The longest record that rustls reads before it refuses it (TLS 1.2's limit).
const MAX_RUSTLS_RECORD: usize = HEADER + (1 << 14) + 2047;

/// An authenticated connection.
#[derive(Debug)]
pub struct Established {
    /// Opens and seals its records.
    pub session: Session,
    /// Who the peer is.
    pub peer: Arc<VerifiedPeer>,
    /// Sealed bytes that were read behind the handshake.
    pub unread: Vec<u8>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// What the two ends agreed on.
    pub agreed: Agreed,
}

/// What the two ends of a connection agreed on, for who tells others of it.
#[derive(Debug, Default)]
pub struct Agreed {
    /// The cipher suite, by its name in RFC 8446.
    pub suite: &'static str,
    /// The application protocol.
    pub alpn: Option<Box<[u8]>>,
    /// The name that the client asked for, where the server was configured to note it.
    pub server_name: Option<Box<str>>,
}

/// A handshake that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class of failure.
    pub reason: Reason,
    /// The whole truth for the operator.
    pub detail: String,
    /// Who the peer is, where it was verified and refused for another cause.
    pub peer: Option<SpiffeId>,
    /// Whether the peer was sent an alert, so that the socket must be closed with care.
    pub alerted: bool,
    /// The check of the peer's certificates that failed, where it was one.
    pub check: Option<Box<Check>>,
}

impl Failure {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            peer: None,
            alerted: false,
            check: None,
        }
    }
}

/// Does the server's side of the handshake. What the caller has read of it already comes as `read`.
///
/// # Errors
/// See [`Failure`]. The stream is left open so that the caller can close it as the failure asks.
pub async fn accept(stream: &mut Stream, server: Server, read: Vec<u8>) -> Result<Established, Failure> {
    let connection = UnbufferedServerConnection::new(server.config)
        .map_err(|e| Failure::new(Reason::Internal, e.to_string()))?;
    let mut driver = Driver::new(Connection::Server(Box::new(connection)), server.verifier, false);
    driver.renewal = server.renewal;
    // What a server has to send at its end are tickets. They can wait for its first data.
    driver.incoming = read;
    driver.run(stream, || true).await
}

/// Does the client's side of the handshake. When `more` says that data will be sent at once, the session sends our last
/// flight with it: a write less here, and a wake-up less there. The caller must mean it, or the server waits for ever.
///
/// # Errors
/// See [`Failure`].
pub async fn connect(
    stream: &mut Stream,
    client: Client,
    more: impl Fn() -> bool,
) -> Result<Established, Failure> {
    // It takes a ticket, if there is one.
    capability::take();
    let connection = UnbufferedClientConnection::new(client.config, client.name);
    let remembered = capability::take();
    let connection = connection.map_err(|e| Failure::new(Reason::Internal, e.to_string()))?;
    let mut driver = Driver::new(
        Connection::Client(Box::new(connection)),
        client.verifier,
        client.resumption,
    );
    driver.renewal = client.renewal;
    driver.remembered = remembered;
    driver.run(stream, more).await
}

enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What rustls wants next.
enum Step {
    /// Its next state.
    Again,
    /// What it encoded is to be sent.
    Transmit,
    /// Another record.
    Read,
    /// Nothing: the handshake is complete.
    Complete,
}

struct Driver {
    connection: Connection,
    verifier: Arc<PeerVerifier>,
    /// Whether a client keeps the tickets that come later.
    keep_tickets: bool,
    incoming: Vec<u8>,
    /// How much of `incoming` rustls has seen and not given back.
    fed: usize,
    outgoing: Vec<u8>,
    received_any: bool,
    verified: Option<Outcome>,
    /// Whether we presented our certificate; a server always does.
    presented: bool,
    /// What the keys of the connection are made from, once rustls has made it.
    secrets: Option<TrafficSecrets>,
    /// What a server was called, if its configuration notes it.
    called: Option<Box<str>>,
    /// Whether we do renewal.
    renewal: bool,
    /// Whether the server whose ticket we took does; whether the server said so in this handshake.
    remembered: bool,
    announced: bool,
}

impl Driver {
    const fn new(connection: Connection, verifier: Arc<PeerVerifier>, keep_tickets: bool) -> Self {
        Self {
            connection,
            verifier,
            keep_tickets,
            incoming: Vec::new(),
            fed: 0,
            outgoing: Vec::new(),
            received_any: false,
            verified: None,
            presented: false,
            secrets: None,
            called: None,
            renewal: false,
            remembered: false,
            announced: false,
        }
    }

    async fn run(mut self, stream: &mut Stream, more: impl Fn() -> bool) -> Result<Established, Failure> {
        loop {
            match self.step() {
                // What is to be sent waits until there is nothing to do but to read, so that a flight is one write.
                Ok(Step::Again | Step::Transmit) => {}
                Ok(Step::Read) => {
                    if self.next_record()?.is_none() {
                        self.transmit(stream).await?;
                    }
                    self.feed_record(stream).await?;
                }
                Ok(Step::Complete) => {
                    if !more() {
                        self.transmit(stream).await?;
                    }
                    return self.establish(stream).await;
                }
                Err(error) => return Err(self.fail(stream, &error).await),
            }
        }
    }

    /// One step of rustls, which runs the verifier when its turn comes.
    fn step(&mut self) -> Result<Step, TlsError> {
        lend_outcome(self.verified.take());
        take_presented();
        capability::take();
        drop((take_called(), take_secrets()));
        let incoming = self.incoming.get_mut(..self.fed).unwrap_or_default();
        let (discard, step) = match &mut self.connection {
            Connection::Client(c) => {
                handle::<ClientConnectionData>(c.process_tls_records(incoming), &mut self.outgoing)
            }
            Connection::Server(c) => {
                handle::<ServerConnectionData>(c.process_tls_records(incoming), &mut self.outgoing)
            }
        };
        self.verified = take_outcome();
        self.presented |= take_presented();
        self.called = take_called().or(self.called.take());
        self.announced |= capability::take();
        self.secrets = take_secrets().or(self.secrets.take());
        if self.verified.is_none() && self.resumed() {
            self.verified = Some(self.verify_kept());
        }
        let discard = discard.min(self.fed);
        self.incoming.drain(..discard);
        self.fed -= discard;
        step
    }

    fn resumed(&self) -> bool {
        let kind = match &self.connection {
            Connection::Client(c) => c.handshake_kind(),
            Connection::Server(c) => c.handshake_kind(),
        };
        kind == Some(HandshakeKind::Resumed)
    }

    /// Verifies the peer of a resumed session, whose chain rustls has kept and does not look at again. A refusal is told
    /// when the handshake is complete: before that there are no keys to tell it with.
    fn verify_kept(&self) -> Outcome {
        let (chain, side) = match &self.connection {
            Connection::Client(c) => (c.peer_certificates(), PeerSide::Server),
            Connection::Server(c) => (c.peer_certificates(), PeerSide::Client),
        };
        self.verifier.verify_kept(chain.unwrap_or_default(), side)
    }

    fn wants_write(&self) -> bool {
        match &self.connection {
            Connection::Client(c) => c.wants_write(),
            Connection::Server(c) => c.wants_write(),
        }
    }

    async fn transmit(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let sent = stream.write_all(&self.outgoing).await;
        self.outgoing.clear();
        match sent {
            Ok(()) => Ok(()),
            // The peer may have said why before it went.
            Err(error) => Err(self.read_last_words(stream, &error).await),
        }
    }

    /// Lets rustls see one record more.
    async fn feed_record(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        loop {
            if let Some(length) = self.next_record()? {
                self.fed += length;
                return Ok(());
            }
            if self.incoming.len() >= MAX_BUFFERED {
                return Err(Failure::new(
                    Reason::ProtocolError,
                    "a handshake message of more than 64 KiB",
                ));
            }
            self.incoming.reserve(READ_SIZE);
            match stream.read_buf(&mut self.incoming).await {
                Ok(0) => return Err(self.peer_left("closed the connection")),
                Ok(_) => {}
                Err(error) => return Err(self.peer_left(&error.to_string())),
            }
        }
    }

    /// The length of the whole record behind those already fed, if it is there.
    fn next_record(&mut self) -> Result<Option<usize>, Failure> {
        let unfed = self.incoming.get(self.fed..).unwrap_or_default();
        if !self.received_any {
            // A ClientHello or ServerHello begins so (RFC 8446 section 5.1); the server's may also be an alert.
            let expected: &[u8] = match self.connection {
                Connection::Server(_) => &[22],
                Connection::Client(_) => &[22, 21],
            };
            let is_tls = match *unfed {
                [] => return Ok(None),
                [content_type] => expected.contains(&content_type),
                [content_type, major, ..] => expected.contains(&content_type) && major == 3,
            };
            if !is_tls {
                return Err(Failure::new(
                    Reason::NotTls,
                    "the first bytes are no TLS handshake record",
                ));
            }
        }
        let Some(&[_, _, _, high, low]) = unfed.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
        // One that is too long is refused by rustls, which tells the peer, as soon as it sees the header.
        let length = if length > MAX_RUSTLS_RECORD {
            HEADER
        } else {
            length
        };
        if unfed.len() < length {
            return Ok(None);
        }
        self.received_any = true;
        Ok(Some(length))
    }

    fn peer_left(&self, how: &str) -> Failure {
        let when = if self.received_any || !self.incoming.is_empty() {
            "in the middle of the handshake"
        } else {
            "before the handshake's first byte"
        };
        Failure::new(Reason::HandshakeAborted, format!("the peer left {when}: {how}"))
    }

    async fn establish(mut self, stream: &mut Stream) -> Result<Established, Failure> {
        let resumed = self.resumed();
        let verified = match self.verified.take() {
            Some(Ok(peer)) => Ok(peer),
            Some(Err(refusal)) if resumed => Err(refusal),
            // Cannot happen while client authentication is mandatory; if it did, nobody was authenticated.
            _ => {
                return Err(Failure::new(
                    Reason::Internal,
                    "the handshake completed without a verified peer",
                ));
            }
        };
        // A session is only kept of a handshake in which we presented our certificate; it is not asked for again.
        let mutual = self.presented || resumed || matches!(self.connection, Connection::Server(_));
        self.outgoing.shrink_to_fit();
        let agreed = self.connection.agreed(self.called);
        let peer = verified.as_ref().ok().filter(|_| self.keep_tickets).cloned();
        let (keys, side) = self
            .connection
            .into_keys(peer)
            .map_err(|e| Failure::new(Reason::Internal, e.to_string()))?;
        let Some(mut secrets) = self.secrets else {
            let detail = "the TLS library did not tell the traffic secrets";
            return Err(Failure::new(Reason::Internal, detail));
        };
        let (own_side, understood) = match &side {
            Side::Server => (PeerSide::Server, true),
            Side::Client(_) if resumed => (PeerSide::Client, self.remembered),
            Side::Client(_) => (PeerSide::Client, self.announced),
        };
        let binding = secrets.binding.take().filter(|_| self.renewal && understood);
        let link = binding.map(|binding| Box::new(Link::new(binding, own_side)));
        let mut session = Session::new(&keys, secrets, side, self.outgoing, link)
            .map_err(|e| Failure::new(Reason::Internal, e.to_string()))?;
        let peer = match verified {
            Ok(peer) if mutual => peer,
            Ok(peer) => return Err(not_mutual(stream, &mut session, &peer).await),
            Err(refusal) => return Err(not_resumed(stream, &mut session, &refusal).await),
        };
        // For the rest of its life the connection keeps what was read, not the handshake's buffer.
        let mut unread = self.incoming;
        unread.shrink_to_fit();
        Ok(Established {
            session,
            peer,
            unread,
            resumed,
            agreed,
        })
    }

    /// Sends rustls' alert, if it has one for this error, and explains the failure.
    async fn fail(&mut self, stream: &mut Stream, error: &TlsError) -> Failure {
        let verified = self.verified.take();
        let unsent = self.outgoing.len();
        // What rustls has queued, and no step further: records that it has not looked at yet are still in the
        // buffer, and it must not go on to them.
        while self.wants_write() {
            if self.step().is_err() {
                break;
            }
        }
        let alerted = self.outgoing.len() > unsent && stream.write_all(&self.outgoing).await.is_ok();
        let (reason, detail) = explain(error, verified.as_ref());
        let check = failed_check(error, verified.as_ref());
        let peer = match verified {
            Some(Err(Refusal::NotExpected { id })) => Some(id),
            Some(Ok(peer)) => Some(SpiffeId::clone(&peer.id)),
            _ => None,
        };
        Failure {
            reason,
            detail,
            peer,
            alerted,
            check,
        }
    }

    /// Our write failed. What the peer sent before it closed, an alert perhaps, says more than the error does.
    async fn read_last_words(&mut self, stream: &mut Stream, error: &io::Error) -> Failure {
        loop {
            if self.feed_record(stream).await.is_err() {
                return self.peer_left(&error.to_string());
            }
            loop {
                match self.step() {
                    Ok(Step::Again | Step::Transmit) => {}
                    Ok(Step::Read) => break,
                    Ok(Step::Complete) => return self.peer_left(&error.to_string()),
                    Err(tls) => {
                        let (reason, detail) = explain(&tls, self.verified.as_ref());
                        return Failure::new(reason, detail);
                    }
                }
            }
        }
    }
}

impl Connection {
    fn agreed(&self, server_name: Option<Box<str>>) -> Agreed {
        let (suite, alpn) = match self {
            Self::Client(c) => (c.negotiated_cipher_suite(), c.alpn_protocol()),
            Self::Server(c) => (c.negotiated_cipher_suite(), c.alpn_protocol()),
        };
        Agreed {
            suite: suite.map_or("", |suite| suite_name(suite.suite())),
            alpn: alpn.map(Box::from),
            server_name,
        }
    }

    /// The keys, and what takes tickets, which are `peer`'s if a client wants them.
    fn into_keys(self, peer: Option<Arc<VerifiedPeer>>) -> Result<(ExtractedSecrets, Side), TlsError> {
        match self {
            Self::Client(connection) => {
                let (keys, kernel) = connection.dangerous_into_kernel_connection()?;
                let taker = peer.map(|peer| Box::new(TicketTaker::new(kernel, peer)));
                Ok((keys, Side::Client(taker)))
            }
            Self::Server(connection) => {
                let (keys, _) = connection.dangerous_into_kernel_connection()?;
                Ok((keys, Side::Server))
            }
        }
    }
}

/// The names of RFC 8446 appendix B.4, which OpenSSL and HAProxy use too; rustls has its own.
const fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        _ => "",
    }
}

/// Refuses a server that did not want to know who we are.
async fn not_mutual(stream: &mut Stream, session: &mut Session, peer: &VerifiedPeer) -> Failure {
    Failure {
        reason: Reason::NoCommonParameters,
        detail: "the server did not ask for our certificate: this is no mutual TLS".to_owned(),
        peer: Some(SpiffeId::clone(&peer.id)),
        alerted: tell(stream, session, AlertDescription::HandshakeFailure).await,
        check: None,
    }
}

/// Refuses the peer of a resumed session as a full handshake would have.
async fn not_resumed(stream: &mut Stream, session: &mut Session, refusal: &Refusal) -> Failure {
    Failure {
        reason: refusal.reason(),
        detail: format!("in a resumed session: {refusal}"),
        peer: refusal.verified_id().cloned(),
        alerted: tell(stream, session, refusal.alert()).await,
        check: refusal.check().map(Box::new),
    }
}

/// Ends a session with an alert; whether it went out.
async fn tell(stream: &mut Stream, session: &mut Session, alert: AlertDescription) -> bool {
    let mut last = Vec::new();
    session.seal_fatal(alert, &mut last).is_ok() && stream.write_all(&last).await.is_ok()
}

/// Does what a state asks for. Returns how many bytes rustls is done with, and what it wants next.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
) -> (usize, Result<Step, TlsError>) {
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = outgoing.len();
            let mut encoded = data.encode(&mut []);
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = encoded {
                outgoing.resize(start + required_size, 0);
                encoded = data.encode(outgoing.get_mut(start..).unwrap_or_default());
            }
            match encoded {
                Ok(written) => {
                    outgoing.truncate(start + written);
                    Ok(Step::Again)
                }
                Err(error) => Err(TlsError::General(error.to_string())),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Transmit)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Read),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Complete),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
            Err(TlsError::AlertReceived(rustls::AlertDescription::CloseNotify))
        }
        // Early data is off, and data records are not fed to rustls.
        Ok(_) => Err(TlsError::General("data during the handshake".to_owned())),
    };
    (status.discard, step)
}

/// The reason and the whole truth of an error of rustls.
fn explain(error: &TlsError, verified: Option<&Outcome>) -> (Reason, String) {
    match (error, verified) {
        (TlsError::InvalidCertificate(_), Some(Err(refusal))) => (refusal.reason(), refusal.to_string()),
        (TlsError::InvalidCertificate(CertificateError::BadSignature), _) => (
            Reason::BadCertificate,
            "the peer does not hold the certificate's key: its CertificateVerify signature is wrong"
                .to_owned(),
        ),
        (TlsError::InvalidCertificate(e), _) => (Reason::BadCertificate, e.to_string()),
        (TlsError::NoCertificatesPresented, _) => (
            Reason::NoCertificate,
            "the peer presented no certificate".to_owned(),
        ),
        (TlsError::PeerIncompatible(e), _) => (
            Reason::NoCommonParameters,
            format!("the peer offers nothing we accept: {e:?}"),
        ),
        (TlsError::NoApplicationProtocol, _) => (
            Reason::NoCommonParameters,
            "no application protocol (ALPN) in common".to_owned(),
        ),
        (TlsError::AlertReceived(a), _) => (
            Reason::RefusedByPeer,
            format!("the peer refused the handshake: {}", alert::name(*a)),
        ),
        (
            TlsError::InappropriateMessage { .. }
            | TlsError::InappropriateHandshakeMessage { .. }
            | TlsError::InvalidMessage(_)
            | TlsError::PeerMisbehaved(_)
            | TlsError::DecryptError
            | TlsError::PeerSentOversizedRecord,
            _,
        ) => (Reason::ProtocolError, error.to_string()),
        _ => (Reason::Internal, error.to_string()),
    }
}

/// The check that failed, where the peer's certificates are what the error is about.
fn failed_check(error: &TlsError, verified: Option<&Outcome>) -> Option<Box<Check>> {
    let check = match (error, verified) {
        (TlsError::InvalidCertificate(_), Some(Err(refusal))) => refusal.check()?,
        (TlsError::InvalidCertificate(_), _) => Check {
            certificate: Certificate::Leaf,
            standard: rule::POSSESSION.standard,
            rule: rule::POSSESSION.words,
        },
        (TlsError::NoCertificatesPresented, _) => Refusal::NoCertificate.check()?,
        _ => return None,
    };
    Some(Box::new(check))
}

#[cfg(test)]
mod tests;
