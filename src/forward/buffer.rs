//! The buffers of the engine. A connection holds one a direction, and only while it has something to move; between,
//! they wait in a pool of their thread, so that an idle connection costs none and a busy one allocates none.
//!
//! There are three sizes, because how much one system call moves decides what a byte costs: a direction begins with
//! the smallest and is given a larger one while it fills what it has. The two larger sizes are rationed
//! ([`RATION`] bytes a thread): when they are used up, connections that hold on to theirs (readers that have stopped)
//! cost the others speed and nothing else.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};

use crate::tls::record::{MAX_PAYLOAD, MAX_RECORD};

/// What a thread may have of the larger sizes, in bytes, those that wait in its pool included.
pub(super) const RATION: usize = 8 << 20;
/// Buffers of each size that a thread keeps for later: about 3.2 MB at most, and of the larger sizes only as many as
/// [`trim`] finds in use.
const KEPT: [usize; 3] = [32, 8, 8];
/// Payload that is shorter than this is moved up to what lies before it, so that one slice of a write holds both: a
/// system call's work for a slice costs more than the move.
const MOVED: usize = 1 << 10;

/// How much a buffer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Size {
    /// One record: what a short message needs, and what a direction may always have.
    #[default]
    Small,
    /// Four.
    Medium,
    /// Sixteen: 260 KiB. More than that moved no byte cheaper.
    Large,
}

impl Size {
    /// How many records of the greatest length fit.
    pub(super) const fn records(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Medium => 4,
            Self::Large => 16,
        }
    }

    /// In bytes.
    pub(super) const fn bytes(self) -> usize {
        self.records() * MAX_RECORD
    }

    /// The smallest that holds so much payload, or the largest.
    pub(super) const fn for_payload(bytes: usize) -> Self {
        match bytes.div_ceil(MAX_PAYLOAD) {
            0..=1 => Self::Small,
            2..=4 => Self::Medium,
            _ => Self::Large,
        }
    }

    /// The next larger one.
    pub(super) const fn larger(self) -> Self {
        match self {
            Self::Small => Self::Medium,
            Self::Medium | Self::Large => Self::Large,
        }
    }

    /// The next smaller one.
    pub(super) const fn smaller(self) -> Self {
        match self {
            Self::Small | Self::Medium => Self::Small,
            Self::Large => Self::Medium,
        }
    }
}

/// What a thread keeps.
#[derive(Default)]
struct Pool {
    /// By size.
    #[expect(
        clippy::vec_box,
        reason = "a buffer is one pointer in its connection, and stays the same box"
    )]
    kept: [Vec<Box<Slab>>; 3],
    /// The fewest that were kept at any moment since the last [`trim`]: so many too many.
    unused: [usize; 3],
    /// Bytes of the larger sizes, lent and kept.
    rationed: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many buffers of this thread are in use.
#[cfg(test)]
pub(super) fn taken() -> usize {
    TAKEN.with(std::cell::Cell::get)
}

/// Bytes of the larger sizes that this thread has, lent and kept.
#[cfg(test)]
pub(super) fn rationed() -> usize {
    POOL.with(|pool| pool.borrow().rationed)
}

impl Pool {
    fn take(&mut self, size: Size) -> Option<Box<Slab>> {
        let place = size as usize;
        let slab = self.kept.get_mut(place)?.pop();
        let left = self.kept.get(place).map_or(0, Vec::len);
        if let Some(unused) = self.unused.get_mut(place) {
            *unused = left.min(*unused);
        }
        if slab.is_some() || size == Size::Small {
            return Some(slab.unwrap_or_else(|| Slab::new(size)));
        }
        if self.rationed + size.bytes() > RATION {
            return None;
        }
        self.rationed += size.bytes();
        Some(Slab::new(size))
    }

    fn give_back(&mut self, mut slab: Box<Slab>) {
        slab.payloads.clear();
        slab.first = 0;
        let place = slab.size as usize;
        let most = KEPT.get(place).copied().unwrap_or_default();
        match self.kept.get_mut(place) {
            Some(kept) if kept.len() < most => kept.push(slab),
            _ => self.forget(slab.size, 1),
        }
    }

    fn forget(&mut self, size: Size, count: usize) {
        if size != Size::Small {
            self.rationed = self.rationed.saturating_sub(count * size.bytes());
        }
    }

    fn trim(&mut self) {
        for size in [Size::Medium, Size::Large] {
            let place = size as usize;
            let (Some(kept), Some(unused)) = (self.kept.get_mut(place), self.unused.get_mut(place)) else {
                continue;
            };
            let freed = kept.len().min(*unused);
            kept.truncate(kept.len() - freed);
            *unused = kept.len();
            self.forget(size, freed);
        }
    }
}

/// Frees the larger buffers of this thread that no connection needed since the last call.
pub(super) fn trim() {
    // A thread that is ending has none.
    let _ = POOL.try_with(|pool| pool.borrow_mut().trim());
}

struct Slab {
    size: Size,
    bytes: Box<[u8]>,
    /// Opened payload that is still to be taken, in order; those before `first` are taken.
    payloads: Vec<Range<usize>>,
    first: usize,
}

impl Slab {
    fn new(size: Size) -> Box<Self> {
        Box::new(Self {
            size,
            bytes: vec![0; size.bytes()].into_boxed_slice(),
            payloads: Vec::new(),
            first: 0,
        })
    }
}

/// Some bytes, given back to the pool of the thread that drops it, and where payload lies in them.
pub(super) struct Buffer(Option<Box<Slab>>);

impl Buffer {
    /// One of `size`, or of the smallest when the larger ones are used up.
    pub(super) fn take(size: Size) -> Self {
        #[cfg(test)]
        TAKEN.with(|taken| taken.set(taken.get() + 1));
        let slab = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.take(size).or_else(|| pool.take(Size::Small))
        });
        Self(Some(
            slab.ok().flatten().unwrap_or_else(|| Slab::new(Size::Small)),
        ))
    }

    /// What it is, which may be less than was asked for.
    pub(super) fn size(&self) -> Size {
        self.0.as_ref().map_or(Size::Small, |slab| slab.size)
    }

    /// Notes payload, which lies behind what was noted before.
    pub(super) fn push_payload(&mut self, payload: Range<usize>) {
        let Some(slab) = &mut self.0 else { return };
        match slab.payloads.last_mut() {
            Some(last) if payload.len() < MOVED => {
                let end = last.end + payload.len();
                slab.bytes.copy_within(payload, last.end);
                last.end = end;
            }
            _ => slab.payloads.push(payload),
        }
    }

    /// The payload that is still to be taken, in order.
    pub(super) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let slab = self.0.as_deref();
        slab.into_iter().flat_map(|slab| {
            let left = slab.payloads.get(slab.first..).unwrap_or_default();
            left.iter()
                .map(|payload| slab.bytes.get(payload.clone()).unwrap_or_default())
        })
    }

    /// In how many pieces.
    pub(super) fn pieces(&self) -> usize {
        self.0.as_ref().map_or(0, |slab| slab.payloads.len() - slab.first)
    }

    /// Marks the next `count` bytes of payload as taken.
    pub(super) fn consume(&mut self, mut count: usize) {
        let Some(slab) = &mut self.0 else { return };
        while let Some(payload) = slab.payloads.get_mut(slab.first) {
            if count < payload.len() {
                payload.start += count;
                return;
            }
            count -= payload.len();
            slab.first += 1;
        }
        slab.payloads.clear();
        slab.first = 0;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        #[cfg(test)]
        TAKEN.with(|taken| taken.set(taken.get() - 1));
        let Some(slab) = self.0.take() else { return };
        // A thread that is ending has no pool any more: the buffer is simply freed.
        let _ = POOL.try_with(|pool| pool.borrow_mut().give_back(slab));
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |slab| &slab.bytes)
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_mut().map_or(&mut [], |slab| &mut slab.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_sizes_are_rationed_and_the_smallest_is_always_there() {
        let most = RATION / Size::Large.bytes();
        let held: Vec<Buffer> = (0..most + 5).map(|_| Buffer::take(Size::Large)).collect();
        let large = held.iter().filter(|buffer| buffer.size() == Size::Large).count();
        assert_eq!(large, most);
        assert!(held.iter().skip(most).all(|buffer| buffer.size() == Size::Small));
        assert_eq!(rationed(), most * Size::Large.bytes());
        drop(held);
        assert_eq!(rationed(), KEPT[2] * Size::Large.bytes(), "what the pool keeps");
        assert_eq!(taken(), 0);
    }

    #[test]
    fn what_nobody_needed_for_a_while_is_freed() {
        drop([Size::Large, Size::Large, Size::Medium].map(Buffer::take));
        trim();
        assert_eq!(rationed(), 2 * Size::Large.bytes() + Size::Medium.bytes());
        // One of the large ones is in use from time to time.
        drop(Buffer::take(Size::Large));
        trim();
        assert_eq!(rationed(), Size::Large.bytes());
        trim();
        assert_eq!(rationed(), 0);
    }

    #[test]
    fn short_payload_is_moved_up_and_taken_in_order() {
        let mut buffer = Buffer::take(Size::Small);
        for (at, byte) in buffer.iter_mut().enumerate() {
            *byte = u8::try_from(at % 251).unwrap();
        }
        let expected: Vec<u8> = [10..20, 40..50, 2000..6000, 7000..7001]
            .into_iter()
            .flat_map(|range: Range<usize>| buffer[range].to_vec())
            .collect();
        for payload in [10..20, 40..50, 2000..6000, 7000..7001] {
            buffer.push_payload(payload);
        }
        assert_eq!(buffer.pieces(), 2);
        let mut heard = Vec::new();
        for step in [1, 19, 3, 3997, 1] {
            let left: Vec<u8> = buffer.payloads().flatten().copied().collect();
            heard.extend_from_slice(&left[..step]);
            buffer.consume(step);
        }
        assert_eq!(heard, expected);
        assert_eq!(buffer.pieces(), 0);
    }
}
