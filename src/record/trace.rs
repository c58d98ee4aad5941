//! What a connection is in a distributed trace: its ids, and when its phases were over.
//!
//! Ids are functions of the process and the connection's number, so that nothing has to be stored with a connection, and
//! whoever knows the two (a log line, an audit record) names the same trace. Pure; times are offsets that are handed in.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Direction;

/// The ID of a trace (W3C Trace Context, section 3.2.2.3): 16 bytes, never all zero. Its bits are as good as random, so
/// that sampling can go by them (Trace Context Level 2, section 3.2.2.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The trace of a connection: of the process that [`super::DecisionId::process`] tells from others, and the
    /// connection's number.
    #[must_use]
    pub const fn of(process: u64, connection: u64) -> Self {
        let process = mix(process);
        let high = mix(process ^ connection);
        let low = mix(mix(!connection) ^ process);
        let id = ((high as u128) << 64) | low as u128;
        // All zero is no ID.
        let id = if id == 0 { 1 } else { id };
        Self(id.to_be_bytes())
    }

    /// As it is sent.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The 56 bits that consistent sampling takes for random: the last seven bytes.
    #[must_use]
    pub const fn randomness(self) -> u64 {
        self.low() & ((1 << 56) - 1)
    }

    /// The ID of one of its spans: 8 bytes, never all zero. Number 0 is the connection, the others are its phases.
    #[must_use]
    pub const fn span(self, number: u8) -> [u8; 8] {
        let id = mix(self.low() ^ mix(self.high() ^ number as u64));
        let id = if id == 0 { 1 } else { id };
        id.to_be_bytes()
    }

    const fn high(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    const fn low(self) -> u64 {
        (u128::from_be_bytes(self.0) & u64::MAX as u128) as u64
    }
}

impl fmt::Display for TraceId {
    /// 32 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One step of splitmix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014): a bijection in
/// which each bit of the input changes half of those of the output.
const fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

closed_set! {
    /// A part of a connection's life, each a span of its own.
    Phase {
        /// What comes before the handshake: the wait for a thread, a load balancer's PROXY header.
        Accept = "accept",
        /// The TLS handshake, certificates verified in it.
        Handshake = "handshake",
        /// The verdict about the peer and, where the settings ask for it, its record.
        Authorize = "authorize",
        /// The dialling of the application (inbound) or of the peer (outbound), its name resolved in it.
        Connect = "connect",
        /// Bytes are moved.
        Relay = "relay",
    }
}

/// How many phases there are.
const PHASES: usize = 5;

impl Phase {
    /// The phases in the order in which a connection of this direction meets them.
    #[must_use]
    pub const fn order(direction: Direction) -> [Self; PHASES] {
        match direction {
            Direction::Inbound => [
                Self::Accept,
                Self::Handshake,
                Self::Authorize,
                Self::Connect,
                Self::Relay,
            ],
            Direction::Outbound => [
                Self::Accept,
                Self::Connect,
                Self::Handshake,
                Self::Authorize,
                Self::Relay,
            ],
        }
    }
}

/// Traces are off: no phase is kept.
const OFF: u32 = u32::MAX;
/// The phase is not over.
const GOES_ON: u32 = u32::MAX - 1;

/// When the phases before the relay were over, in microseconds from the acceptance, in the direction's order. Sixteen
/// bytes, because each open connection keeps them. What takes longer than an hour and eleven minutes counts as that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases([u32; PHASES - 1]);

impl Phases {
    /// Keeps nothing.
    pub const OFF: Self = Self([OFF; PHASES - 1]);
    /// No phase is over yet.
    pub const BEGUN: Self = Self([GOES_ON; PHASES - 1]);

    /// Whether phases are kept.
    #[must_use]
    pub const fn are_kept(&self) -> bool {
        let [first, ..] = self.0;
        first != OFF
    }

    /// Notes that the phase that goes on is over, at this time after the acceptance.
    pub fn next(&mut self, since_accepted: Duration) {
        if let Some(end) = self.0.iter_mut().find(|end| **end == GOES_ON) {
            let micros = u32::try_from(since_accepted.as_micros()).unwrap_or(u32::MAX);
            *end = micros.min(GOES_ON - 1);
        }
    }

    /// The phases that the connection met, each with its begin and end after the acceptance, up to the one in which it
    /// ended after `whole`.
    pub fn met(
        &self,
        direction: Direction,
        whole: Duration,
    ) -> impl Iterator<Item = (Phase, Duration, Duration)> {
        let ends = self.0.into_iter().map(Some).chain([None]);
        let mut begin = Some(Duration::ZERO);
        let kept = self.are_kept();
        Phase::order(direction)
            .into_iter()
            .zip(ends)
            .map_while(move |(phase, end)| {
                let from = begin.filter(|_| kept)?;
                let end = end.filter(|end| *end != GOES_ON);
                let end = end.map(|micros| Duration::from_micros(micros.into()).min(whole));
                begin = end;
                Some((phase, from, end.unwrap_or(whole)))
            })
    }
}

/// A connection in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace that the connection is.
    pub id: TraceId,
    /// When its phases were over.
    pub phases: Phases,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_what_they_are() {
        // They must not change: logs of before name them.
        let id = TraceId::of(0x4f2a_90c1_d3e7, 17);
        assert_eq!(id.to_string(), EXPECTED);
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{EXPECTED}\""));
        assert_eq!(
            u128::from_be_bytes(id.to_bytes()),
            u128::from_str_radix(EXPECTED, 16).unwrap()
        );
        assert_eq!(format!("{:014x}", id.randomness()), EXPECTED[18..]);
    }
    const EXPECTED: &str = "f9a2941e72c1a1aad0764e918c6bcade";

    #[test]
    fn ids_differ_and_are_never_zero() {
        let mut traces = HashSet::new();
        let mut spans = HashSet::new();
        for process in [0, 1, (1 << 48) - 1] {
            for connection in 0..2000 {
                let id = TraceId::of(process, connection);
                assert_ne!(id.to_bytes(), [0; 16]);
                assert!(traces.insert(id.to_bytes()));
                for number in 0..6 {
                    let span = id.span(number);
                    assert_ne!(span, [0; 8]);
                    assert!(spans.insert(span), "{id} {number}");
                }
            }
        }
    }

    /// Numbers that follow one another must not make a pattern: sampling goes by these bits.
    #[test]
    fn each_bit_is_set_half_of_the_time() {
        let mut set = [0_u32; 128];
        for connection in 0..4096 {
            let id = u128::from_be_bytes(TraceId::of(99, connection).to_bytes());
            for (bit, count) in set.iter_mut().enumerate() {
                *count += u32::from((id >> bit) & 1 == 1);
            }
        }
        // Six standard deviations of 4096 throws of a coin.
        for (bit, count) in set.iter().enumerate() {
            assert!((2048 - 192..=2048 + 192).contains(count), "bit {bit}: {count}");
        }
    }

    fn met(phases: Phases, direction: Direction, whole: u64) -> Vec<(&'static str, u64, u64)> {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap();
        phases
            .met(direction, Duration::from_micros(whole))
            .map(|(phase, begin, end)| (phase.as_str(), micros(begin), micros(end)))
            .collect()
    }

    fn after(ends: &[u64]) -> Phases {
        let mut phases = Phases::BEGUN;
        for end in ends {
            phases.next(Duration::from_micros(*end));
        }
        phases
    }

    #[test]
    fn phases_follow_one_another_up_to_the_end() {
        use Direction::{Inbound, Outbound};
        assert_eq!(met(after(&[]), Inbound, 7), [("accept", 0, 7)]);
        assert_eq!(
            met(after(&[1, 5]), Inbound, 7),
            [("accept", 0, 1), ("handshake", 1, 5), ("authorize", 5, 7)]
        );
        assert_eq!(
            met(after(&[0, 0, 3, 4]), Inbound, 9),
            [
                ("accept", 0, 0),
                ("handshake", 0, 0),
                ("authorize", 0, 3),
                ("connect", 3, 4),
                ("relay", 4, 9)
            ]
        );
        assert_eq!(
            met(after(&[1, 2, 3, 4]), Outbound, 9),
            [
                ("accept", 0, 1),
                ("connect", 1, 2),
                ("handshake", 2, 3),
                ("authorize", 3, 4),
                ("relay", 4, 9)
            ]
        );
        // One more than there are changes nothing.
        assert_eq!(after(&[1, 2, 3, 4, 5]), after(&[1, 2, 3, 4]));
    }

    #[test]
    fn phases_that_are_off_stay_off() {
        let mut phases = Phases::OFF;
        phases.next(Duration::from_micros(1));
        assert_eq!(phases, Phases::OFF);
        assert!(!phases.are_kept());
        assert_eq!(met(phases, Direction::Inbound, 9), []);
        assert!(after(&[]).are_kept() && after(&[0]).are_kept());
    }

    #[test]
    fn times_beyond_the_bound_are_neither_off_nor_unfinished() {
        let day = 86_400_000_000;
        let phases = after(&[day]);
        assert!(phases.are_kept());
        let found = met(phases, Direction::Inbound, day);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(size_of::<Phases>(), 16);
    }
}
