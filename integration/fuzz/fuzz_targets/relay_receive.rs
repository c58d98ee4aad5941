//! A peer with the right keys and any manners, through the whole relay: data, handshake messages whole and in parts, key
//! updates, alerts, padding, records altered, too long or of a wrong type, cut into pieces and coalesced at will. What
//! reaches the application is what a plain reading of RFC 8446 lets through, all of it and nothing behind an end, and
//! the connection ends for the reason that the first thing wrong gives.
#![no_main]

mod tls;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rustls::ContentType;
use svidecar::authorize;
use svidecar::config::settings::PolicyMode;
use svidecar::forward::meter::{Meter, Traffic};
use svidecar::forward::relay::{self, Ends};
use svidecar::record::{Direction, Reason};
use svidecar::spiffe::SpiffeId;
use svidecar::sys::stream::Stream;
use svidecar::telemetry::metrics::{ListenerMetrics, Metrics};
use svidecar::tls::record::{HEADER, MAX_PAYLOAD, Sealer, TRAILER};
use svidecar::tls::renewal::message::{HANDSHAKE_TYPE as RENEWAL, Message, parse};
use svidecar::tls::traffic::TrafficSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const DATA: u8 = 23;
const KEY_UPDATE: u8 = 24;
const TICKET: u8 = 4;
/// As `MAX_IDLE_RECORDS` and `MAX_HANDSHAKE_MESSAGE` of the session.
const IDLE: usize = 32;
const LONGEST_MESSAGE: usize = (1 << 16) + 1024;
/// What an input may have sent: enough to fill the largest buffer a few times.
const MOST: usize = 1 << 20;

static LISTENER: LazyLock<Arc<ListenerMetrics>> =
    LazyLock::new(|| Metrics::new(None).listener(&Arc::from("fuzz"), Direction::Inbound));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    End,
    Alert,
    Broken,
}

/// The peer, and what the application should hear of it.
struct Peer {
    sealer: Sealer,
    secret: TrafficSecret,
    we_serve: bool,
    wire: Vec<u8>,
    /// Where the wire is cut.
    cuts: Vec<usize>,
    /// Where the last record begins.
    last: usize,
    said: Vec<u8>,
    partial: Vec<u8>,
    idle: usize,
    stop: Option<Stop>,
    /// What we, as a server, have heard of renewal: anything, and a renewal that nobody answers here.
    knows_renewal: bool,
    renewal_waits: bool,
    /// How much was said before a ticket that rustls may find malformed: the connection may end there.
    doubts: Vec<usize>,
}

impl Peer {
    fn send(&mut self, content_type: u8, payload: &[u8], padding: usize) {
        // The padding goes in as payload behind the type, and zero as the record's own type.
        let mut inner = payload.to_vec();
        let mut outer = content_type;
        if padding > 0 && inner.len() < MAX_PAYLOAD {
            inner.push(content_type);
            inner.resize((inner.len() + padding - 1).min(MAX_PAYLOAD), 0);
            outer = 0;
        }
        self.last = self.wire.len();
        self.wire.resize(self.last + HEADER + inner.len() + TRAILER, 0);
        let slot = &mut self.wire[self.last..];
        slot[HEADER..HEADER + inner.len()].copy_from_slice(&inner);
        self.sealer
            .seal(ContentType::from(outer), slot, inner.len())
            .unwrap();
        if self.stop.is_none() {
            self.stop = self.receive(content_type, payload).err();
        }
    }

    /// What an application data record, an alert or a handshake record means.
    fn receive(&mut self, content_type: u8, payload: &[u8]) -> Result<(), Stop> {
        if content_type != HANDSHAKE && !self.partial.is_empty() {
            return Err(Stop::Broken);
        }
        match (content_type, payload) {
            (DATA, []) => self.count_idle(),
            (DATA, data) => {
                self.idle = 0;
                self.said.extend(data);
                Ok(())
            }
            (ALERT, [_, 0]) => Err(Stop::End),
            (ALERT, [_, 90]) => self.count_idle(),
            (ALERT, [_, _]) => Err(Stop::Alert),
            (HANDSHAKE, [_, ..]) => {
                self.count_idle()?;
                self.partial.extend(payload);
                if self.partial.len() > LONGEST_MESSAGE {
                    return Err(Stop::Broken);
                }
                self.messages()
            }
            _ => Err(Stop::Broken),
        }
    }

    fn count_idle(&mut self) -> Result<(), Stop> {
        self.idle += 1;
        if self.idle > IDLE {
            Err(Stop::Broken)
        } else {
            Ok(())
        }
    }

    fn messages(&mut self) -> Result<(), Stop> {
        loop {
            match self.partial[..] {
                [] | [KEY_UPDATE] => return Ok(()),
                [KEY_UPDATE, ..] => {}
                [TICKET, ..] if !self.we_serve => {}
                [RENEWAL, ..] if self.we_serve => {}
                _ => return Err(Stop::Broken),
            }
            // Not even the beginning of one is kept.
            let part = if self.partial[0] == RENEWAL {
                Err(Stop::Broken)
            } else {
                Ok(())
            };
            let [kind, a, b, c, ..] = self.partial[..] else {
                return part;
            };
            let end = 4 + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.partial.len() < end {
                return part;
            }
            let message: Vec<u8> = self.partial.drain(..end).collect();
            match (kind, &message[4..]) {
                (KEY_UPDATE, [0 | 1]) if self.partial.is_empty() => {
                    self.secret = self.secret.next().unwrap();
                    self.sealer.update(&self.secret).unwrap();
                }
                (KEY_UPDATE, _) => return Err(Stop::Broken),
                (RENEWAL, body) => match parse(body) {
                    Ok(Message::Hello) if !self.knows_renewal => self.knows_renewal = true,
                    Ok(Message::Renewal(_)) if !self.renewal_waits => {
                        self.knows_renewal = true;
                        self.renewal_waits = true;
                    }
                    _ => return Err(Stop::Broken),
                },
                _ => self.doubts.push(self.said.len()),
            }
        }
    }

    /// Not a record that opens: nothing is heard from here on.
    fn spoil(&mut self) {
        self.stop.get_or_insert(Stop::Broken);
    }

    /// One thing that the input asks for; `None` when it is at its end.
    fn act<'a>(&mut self, input: &'a [u8]) -> Option<&'a [u8]> {
        let (&[act, x, y, z], rest) = input.split_first_chunk::<4>()?;
        let long = usize::from(u16::from_be_bytes([x, y]));
        match act % 8 {
            0 => {
                let start = self.said.len();
                let data: Vec<u8> = (start..start + long.min(MAX_PAYLOAD))
                    .map(|at| (at ^ at >> 8) as u8)
                    .collect();
                self.send(DATA, &data, usize::from(z) * usize::from(z));
            }
            // Many alike.
            1 => (0..=z).for_each(|_| self.send(DATA, &[x][..usize::from(y % 2)], usize::from(y / 2))),
            2 => {
                // A type of zero would be padding.
                let (payload, rest) = rest.split_at(usize::from(y).min(rest.len()));
                self.send(x.max(1), payload, usize::from(z));
                return Some(rest);
            }
            3 => self.send(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, x % 2], usize::from(z)),
            4 => self.send(ALERT, &[x, y], usize::from(z)),
            // A header that may not be, or an altered record.
            5 if self.wire.is_empty() || z % 2 == 0 => {
                self.spoil();
                self.wire.extend(if x % 2 == 0 {
                    [23, 3, 3, 0x41, 0x01, 0]
                } else {
                    [x, 3, 3, 0, 1, 0]
                });
            }
            5 => {
                // The data of the record that is altered is told already: send another that is not.
                self.spoil();
                self.send(DATA, b"altered", 0);
                let at = self.last + HEADER + long % (self.wire.len() - self.last - HEADER);
                self.wire[at] ^= y | 1;
            }
            6 => self.cuts.push(self.wire.len().saturating_sub(long % 40_000)),
            // A long ticket, in as many records as it takes.
            _ => {
                let message = [&[TICKET, 0, x, y][..], &vec![z; long]].concat();
                message
                    .chunks(usize::from(z) * 64 + 1)
                    .take(2 * IDLE)
                    .for_each(|part| self.send(HANDSHAKE, part, 0));
            }
        }
        Some(rest)
    }
}

async fn far_end(mut far: UnixStream, peer: &Peer, end: usize) {
    let mut cuts: Vec<usize> = peer.cuts.iter().copied().filter(|cut| *cut < end).collect();
    cuts.sort_unstable();
    cuts.push(end);
    let (mut from, mut to) = far.split();
    let say = async {
        let mut sent = 0;
        for cut in cuts {
            // Who is refused need not get rid of all.
            if to.write_all(&peer.wire[sent..cut]).await.is_err() {
                return;
            }
            sent = cut;
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        }
        let _ = to.shutdown().await;
    };
    let mut answer = Vec::new();
    let hear = from.read_to_end(&mut answer);
    let _ = tokio::join!(say, hear);
}

// The first byte: which side we are, and whether the end of what is sent is cut off; the second: how much of it.
fuzz_target!(|input: &[u8]| {
    let Some((&[flags, cut_off], mut rest)) = input.split_first_chunk::<2>() else {
        return;
    };
    let we_serve = flags & 1 == 0;
    let (ours, secrets, secret) = tls::established_for_relay(we_serve);
    let mut peer = Peer {
        sealer: Sealer::new(secrets.tx.0, &secrets.tx.1).unwrap(),
        secret,
        we_serve,
        wire: Vec::new(),
        cuts: Vec::new(),
        last: 0,
        said: Vec::new(),
        partial: Vec::new(),
        idle: 0,
        stop: None,
        knows_renewal: false,
        renewal_waits: false,
        doubts: Vec::new(),
    };
    while peer.wire.len() < MOST
        && let Some(after) = peer.act(rest)
    {
        rest = after;
    }
    // The last record is not sent to its end: it was never said.
    let mut end = peer.wire.len();
    if flags & 2 != 0 && peer.stop.is_none() && end > 0 {
        let (said, doubts) = (peer.said.len(), peer.doubts.len());
        peer.send(DATA, b"never whole", 0);
        let begun = peer.wire.len() - peer.last;
        end = peer.last + usize::from(cut_off) % begun;
        peer.said.truncate(said);
        peer.doubts.truncate(doubts);
        // Nothing that the record would have broken is broken.
        peer.stop = None;
    }
    tls::block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let (plain, mut app) = UnixStream::pair().unwrap();
        let expected = ["spiffe://example.org/**".parse().unwrap()];
        let now = std::time::SystemTime::UNIX_EPOCH;
        let view = authorize::PolicyView::deny_all(PolicyMode::Enforce, now);
        let certificate = authorize::CertificateFacts::unlisted(now);
        let them = SpiffeId::new("spiffe://example.org/them").unwrap();
        let permit = authorize::outbound(&view, &expected, &them, &certificate).unwrap();
        let ends = Ends {
            tls: Stream::Unix(near),
            session: ours.session,
            unread: ours.unread,
            plain: Stream::Unix(plain),
        };
        let meter = Meter::new(Direction::Inbound, Arc::new(Traffic::default()), LISTENER.clone());
        let relay = async {
            let ended = relay::run(
                &permit,
                ends,
                meter,
                Duration::from_secs(600),
                None,
                std::future::pending(),
            )
            .await;
            ended.ending.reason
        };
        let hear = async {
            let mut heard = Vec::new();
            let ended = app.read_to_end(&mut heard).await;
            drop(app);
            (heard, ended)
        };
        let (reason, (heard, _), ()) = tokio::join!(relay, hear, far_end(far, &peer, end));
        let broken = reason == Reason::ProtocolError;
        if broken && peer.doubts.contains(&heard.len()) {
            return assert!(peer.said.starts_with(&heard));
        }
        assert!(
            heard == peer.said,
            "heard {} of {} bytes: {reason:?}",
            heard.len(),
            peer.said.len()
        );
        let right = match peer.stop {
            Some(Stop::End) => reason == Reason::Finished,
            Some(Stop::Alert) => {
                reason
                    == if heard.is_empty() {
                        Reason::RefusedByPeer
                    } else {
                        Reason::PeerReset
                    }
            }
            Some(Stop::Broken) => broken,
            None => reason == Reason::PeerTruncated,
        };
        assert!(right, "{:?}: {reason:?}", peer.stop);
    });
});
