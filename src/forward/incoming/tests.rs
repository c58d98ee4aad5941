//! Records of every kind, in pieces and heaps of any size, against what must come out: the payload of whole records
//! at once and in order, then why it stops.

use std::future::poll_fn;
use std::task::Waker;

use proptest::prelude::*;
use rustls::ContentType;
use tokio::net::UnixStream;

use super::*;
use crate::forward::buffer;
use crate::tls::record::{HEADER, MAX_PAYLOAD, MAX_RECORD, Sealer, TRAILER};
use crate::tls::testing::{AES_128, block_on, with_stock};

const DATA: u8 = 23;
const ALERT: u8 = 21;

/// Our end of a connection, and a peer that seals what a test wants.
struct Line {
    near: Stream,
    far: UnixStream,
    session: Session,
    peer: Sealer,
    incoming: Incoming,
    heard: Vec<u8>,
}

impl Line {
    async fn new() -> Self {
        let (established, stock) = with_stock(true, AES_128).await;
        let secrets = stock.dangerous_extract_secrets().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        Self {
            near: Stream::Unix(near),
            far,
            session: established.session,
            peer: Sealer::new(secrets.tx.0, &secrets.tx.1).unwrap(),
            incoming: Incoming::new(Vec::new()),
            heard: Vec::new(),
        }
    }

    fn record(&mut self, content_type: u8, payload: &[u8], padding: usize) -> Vec<u8> {
        // Padding goes in as payload behind the type, and zero as the record's own type.
        let mut inner = payload.to_vec();
        let mut outer = content_type;
        if padding > 0 {
            inner.push(content_type);
            inner.resize((inner.len() + padding - 1).min(MAX_PAYLOAD), 0);
            outer = 0;
        }
        let mut slot = vec![0; HEADER + inner.len() + TRAILER];
        slot[HEADER..HEADER + inner.len()].copy_from_slice(&inner);
        let length = self
            .peer
            .seal(ContentType::from(outer), &mut slot, inner.len())
            .unwrap();
        assert_eq!(length, slot.len());
        slot
    }

    /// Takes what has come, `bite` bytes of payload at a time, until it must wait (`None`) or stops.
    fn take(&mut self, bite: usize) -> Option<Stop> {
        loop {
            while self.incoming.has_payload() {
                let mut slices = [IoSlice::new(&[]); MAX_PIECES];
                let count = self.incoming.payload(&mut slices);
                assert!((1..=MAX_PIECES).contains(&count));
                let shown: Vec<u8> = slices[..count]
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .collect();
                let taken = bite.min(shown.len());
                self.heard.extend(&shown[..taken]);
                self.incoming.consume(taken);
            }
            let mut cx = Context::from_waker(Waker::noop());
            match self
                .incoming
                .poll_fill(&mut cx, &self.near, &mut self.session, None)
            {
                Poll::Pending => return None,
                Poll::Ready(Fill::Payload) => assert!(self.incoming.has_payload()),
                Poll::Ready(Fill::Moved) => assert!(!self.incoming.has_payload()),
                Poll::Ready(Fill::Stop(stop)) => return Some(stop),
            }
        }
    }

    /// Sends this, all of it, and takes what has come until it must wait or stops.
    async fn send(&mut self, mut bytes: &[u8], bite: usize) -> Option<Stop> {
        while !bytes.is_empty() {
            match self.far.try_write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    if let Some(stop) = self.settle(bite).await {
                        return Some(stop);
                    }
                    poll_fn(|cx| self.far.poll_write_ready(cx)).await.unwrap();
                }
            }
        }
        self.settle(bite).await
    }

    /// What is in the kernel is known to the runtime when it has looked.
    async fn settle(&mut self, bite: usize) -> Option<Stop> {
        for _ in 0..2 {
            tokio::task::yield_now().await;
            if let Some(stop) = self.take(bite) {
                return Some(stop);
            }
        }
        None
    }

    /// Waiting, it holds a buffer only for the beginning of a record, and the smallest that there is.
    fn waits_lean(&self, rest: usize) {
        assert_eq!(self.incoming.sealed.len(), rest);
        let held = self.incoming.buffer.as_ref().map(Buffer::size);
        assert_eq!(held, (rest > 0).then_some(Size::Small));
        assert_eq!(buffer::taken(), usize::from(rest > 0));
    }
}

#[derive(Clone, Copy, Debug)]
enum Last {
    CloseNotify,
    Fatal,
    Broken,
    WrongType,
    Cut,
}

fn stops_as(stop: &Stop, last: Last) -> bool {
    matches!(
        (stop, last),
        (Stop::End, Last::CloseNotify)
            | (Stop::Alert(AlertDescription::AccessDenied), Last::Fatal)
            | (Stop::Broken(_), Last::Broken | Last::WrongType)
            | (Stop::Truncated, Last::Cut)
    )
}

fn last() -> impl Strategy<Value = Last> {
    prop_oneof![
        Just(Last::CloseNotify),
        Just(Last::Fatal),
        Just(Last::Broken),
        Just(Last::WrongType),
        Just(Last::Cut)
    ]
}

impl Line {
    /// Something that stops, and data behind it that must not be heard.
    fn stopper(&mut self, last: Last) -> Vec<u8> {
        let mut bytes = match last {
            Last::CloseNotify => self.record(ALERT, &[1, 0], 0),
            Last::Fatal => self.record(ALERT, &[2, 49], 3),
            Last::Broken => {
                let mut record = self.record(DATA, b"altered", 0);
                record[HEADER] ^= 1;
                record
            }
            Last::WrongType => vec![22, 3, 3, 0, 4],
            Last::Cut => return Vec::new(),
        };
        bytes.extend(self.record(DATA, b"too late", 0));
        bytes
    }

    async fn stop(&mut self, last: Last, bite: usize) -> Option<Stop> {
        if matches!(last, Last::Cut) {
            let (gone, _) = UnixStream::pair().unwrap();
            self.far = gone;
        }
        self.settle(bite).await
    }
}

/// Lengths and paddings of data records.
fn records() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let record = prop_oneof![
        6 => (1..40_usize, Just(0)),
        2 => (1000..1100_usize, 0..300_usize),
        2 => (1..=MAX_PAYLOAD, Just(0)),
        2 => (Just(MAX_PAYLOAD), Just(0)),
        1 => (0..1000_usize, 0..MAX_PAYLOAD - 1000),
    ];
    prop_oneof![
        proptest::collection::vec(record.clone(), 0..12),
        proptest::collection::vec(record, 40..90),
        (1..1100_usize, 1..600_usize).prop_map(|(length, count)| vec![(length, 0); count]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whole_records_come_out_at_once_and_in_order_then_the_stop(
        records in records(),
        // Where the stream is cut into pieces, out of its length; behind each it waits.
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        bite in prop_oneof![Just(usize::MAX), 1..5000_usize],
        of_the_handshake in prop_oneof![Just(None), any::<prop::sample::Index>().prop_map(Some)],
        last in last(),
    ) {
        block_on(async {
            let mut line = Line::new().await;
            let mut wire = Vec::new();
            // Where each record ends, and the payload that was said until there.
            let mut marks = vec![(0, 0)];
            let mut said = Vec::new();
            let mut empty = 0;
            for (length, padding) in records {
                empty = if length == 0 { empty + 1 } else { 0 };
                if empty > 30 {
                    continue;
                }
                let payload: Vec<u8> = (0..length).map(|at| (said.len() + at).to_le_bytes()[at % 2]).collect();
                wire.extend(line.record(DATA, &payload, padding));
                said.extend(payload);
                marks.push((wire.len(), said.len()));
            }
            let data = wire.len();
            wire.extend(line.stopper(last));
            if let Some(index) = of_the_handshake {
                let rest = wire.split_off(index.index(data + 1));
                line.incoming = Incoming::new(std::mem::replace(&mut wire, rest));
            }
            let offset = line.incoming.unread.len();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| offset + cut.index(data + 1 - offset)).collect();
            cuts.sort_unstable();
            let mut sent = offset;
            for cut in cuts {
                let stop = line.send(&wire[sent - offset..cut - offset], bite).await;
                assert!(stop.is_none());
                sent = cut;
                let &(whole, heard) = marks.iter().rev().find(|(end, _)| *end <= cut).unwrap();
                assert!(line.heard == said[..heard], "a record is held back at {cut}");
                line.waits_lean(cut - whole);
            }
            let mut stop = line.send(&wire[sent - offset..], bite).await;
            if stop.is_none() {
                stop = line.stop(last, bite).await;
            }
            assert!(line.heard == said, "{} of {} bytes", line.heard.len(), said.len());
            assert!(stops_as(&stop.expect("no stop"), last), "{last:?}");
        });
    }
}

#[test]
fn a_record_in_two_parts_wherever_it_is_cut() {
    block_on(async {
        let mut line = Line::new().await;
        for length in [1, 20, MAX_PAYLOAD] {
            let whole = HEADER + length + TRAILER;
            let near_ends = (1..60).chain(whole - 60.min(whole - 1)..whole);
            for cut in near_ends.filter(|cut| *cut < whole) {
                let record = line.record(DATA, &vec![7; length], 0);
                line.heard.clear();
                assert!(line.send(&record[..cut], usize::MAX).await.is_none());
                assert!(line.heard.is_empty());
                line.waits_lean(cut);
                assert!(line.send(&record[cut..], usize::MAX).await.is_none());
                assert_eq!(line.heard, vec![7; length], "cut at {cut}");
                line.waits_lean(0);
            }
        }
    });
}

#[test]
fn buffers_grow_with_the_beginning_of_a_record_and_shrink_again() {
    block_on(async {
        let mut line = Line::new().await;
        let mut wire = Vec::new();
        let mut said = Vec::new();
        for at in 0..60_u8 {
            // No whole number of these fits into a buffer of any size.
            let payload = vec![at; 10_000];
            wire.extend(line.record(DATA, &payload, 0));
            said.extend(payload);
        }
        let mut sizes = Vec::new();
        // Not all of the last record.
        let mut left = &wire[..wire.len() - 5000];
        loop {
            if let Ok(sent) = line.far.try_write(left) {
                left = &left[sent..];
            }
            tokio::task::yield_now().await;
            let mut cx = Context::from_waker(Waker::noop());
            match line
                .incoming
                .poll_fill(&mut cx, &line.near, &mut line.session, None)
            {
                Poll::Pending if left.is_empty() => break,
                Poll::Pending | Poll::Ready(Fill::Moved) => {}
                Poll::Ready(Fill::Payload) => {
                    sizes.push(line.incoming.buffer.as_ref().unwrap().size());
                    // Without the fill of `take`, which would begin the next one.
                    let mut slices = [IoSlice::new(&[]); MAX_PIECES];
                    let count = line.incoming.payload(&mut slices);
                    line.heard
                        .extend(slices[..count].iter().flat_map(|slice| slice.iter()));
                    let taken = slices[..count].iter().map(|slice| slice.len()).sum();
                    line.incoming.consume(taken);
                }
                Poll::Ready(Fill::Stop(_)) => panic!("stopped"),
            }
        }
        let grew = [Size::Small, Size::Medium, Size::Large];
        assert!(sizes.is_sorted(), "{sizes:?}");
        assert!(grew.iter().all(|size| sizes.contains(size)), "{sizes:?}");
        line.waits_lean(HEADER + 10_000 + TRAILER - 5000);
        assert!(line.send(&wire[wire.len() - 5000..], usize::MAX).await.is_none());
        assert!(line.heard == said);
        for _ in 0..3 {
            let record = line.record(DATA, b"short", 0);
            assert!(line.send(&record, usize::MAX).await.is_none());
        }
        assert_eq!(line.incoming.size, Size::Small);
        line.waits_lean(0);
    });
}

#[test]
fn heaps_of_short_records_are_opened_in_bounded_portions() {
    // Length of the payload, and how many pieces it makes at most: short ones are moved together.
    for (length, pieces) in [(1, 1), (1023, 1), (1024, MAX_PIECES)] {
        block_on(async {
            let mut line = Line::new().await;
            let mut heap = Vec::new();
            for at in 0..2000_usize {
                heap.extend(line.record(DATA, &vec![at.to_le_bytes()[0]; length], 0));
            }
            let (mut records, mut most) = (0, 0);
            // As the handshake leaves it: the buffers grow as they do with a socket.
            line.incoming = Incoming::new(heap);
            let mut cx = Context::from_waker(Waker::noop());
            while records < 2000 {
                let fill = line
                    .incoming
                    .poll_fill(&mut cx, &line.near, &mut line.session, None);
                let Poll::Ready(Fill::Payload | Fill::Moved) = fill else {
                    panic!("{records}")
                };
                let held = line.incoming.buffer.as_ref().unwrap();
                assert!(held.pieces() <= pieces, "{} pieces", held.pieces());
                let shown: Vec<u8> = held.payloads().flatten().copied().collect();
                let count = shown.len() / length;
                most = most.max(count);
                let expected = (records..records + count).flat_map(|at| vec![at.to_le_bytes()[0]; length]);
                assert!(shown.into_iter().eq(expected));
                records += count;
                line.incoming.consume(count * length);
            }
            assert_eq!(
                most,
                if length == 1024 {
                    MAX_PIECES
                } else {
                    most.min(MAX_OPENED)
                }
            );
            assert!(length > 1 || most == MAX_OPENED, "{most}");
        });
    }
}

#[test]
fn empty_records_are_no_payload_and_not_endless() {
    block_on(async {
        let mut line = Line::new().await;
        let mut wire = Vec::new();
        for padding in [0, 1, 300] {
            wire.extend(line.record(DATA, b"", padding));
        }
        assert!(line.send(&wire, usize::MAX).await.is_none());
        assert!(line.heard.is_empty());
        line.waits_lean(0);
        let mut wire = line.record(DATA, b"x", 0);
        for _ in 0..100 {
            wire.extend(line.record(DATA, b"", 0));
        }
        let stop = line.send(&wire, usize::MAX).await;
        assert_eq!(line.heard, b"x");
        assert!(matches!(stop, Some(Stop::Broken(_))));
    });
}

#[test]
fn what_the_handshake_read_may_be_more_than_a_buffer_holds() {
    block_on(async {
        for tail in [0, 1, HEADER, 3000] {
            let mut line = Line::new().await;
            let mut wire = Vec::new();
            let mut said = Vec::new();
            for at in 0..20_u8 {
                wire.extend(line.record(DATA, &[at; 5000], 0));
                said.extend([at; 5000]);
            }
            assert!(wire.len() > 5 * MAX_RECORD);
            let rest = wire.split_off(wire.len() - tail);
            line.incoming = Incoming::new(wire);
            assert!(line.take(usize::MAX).is_none());
            let whole = if tail == 0 { 20 } else { 19 };
            assert_eq!(line.heard.len(), whole * 5000);
            let begun = if tail == 0 {
                0
            } else {
                HEADER + 5000 + TRAILER - tail
            };
            line.waits_lean(begun);
            assert!(line.send(&rest, usize::MAX).await.is_none());
            assert!(line.heard == said);
        }
    });
}
