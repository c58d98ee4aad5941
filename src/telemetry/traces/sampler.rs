//! Which connections are sent.
//!
//! Consistent probability sampling (OTel specification, "`TraceState`: Probability Sampling"): the trace's own bits are
//! compared with a threshold, which is told with each span, so that a backend can count what was not sent.

use crate::config::settings::Denials;
use crate::record::{ConnectionRecord, Outcome, TraceId, Verdict};

/// One more than the greatest randomness of a trace.
const ALL: u64 = 1 << 56;

/// Judges by the bits of a trace's ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampler {
    /// Traces whose randomness is less are not sent.
    threshold: u64,
    denials: Denials,
}

impl Sampler {
    /// Takes this share of all connections, from 0 to 1, and denials as told.
    pub(super) fn new(share: f64, denials: Denials) -> Self {
        let rejected = (1.0 - share.clamp(0.0, 1.0)) * ALL as f64;
        Self {
            // From 0 to 2^56, and whole.
            threshold: rejected.round() as u64,
            denials,
        }
    }

    /// The threshold by which a connection is sent, if it is.
    pub(super) fn threshold(&self, record: &ConnectionRecord) -> Option<u64> {
        let trace = record.trace?;
        if self.denials == Denials::Always && is_denial(record) {
            return Some(0);
        }
        self.takes(trace.id).then_some(self.threshold)
    }

    const fn takes(&self, id: TraceId) -> bool {
        id.randomness() >= self.threshold
    }
}

/// Denied or refused, or a denial that was only reported.
fn is_denial(record: &ConnectionRecord) -> bool {
    matches!(record.outcome(), Outcome::Denied | Outcome::Refused) || record.verdict() == Verdict::Deny
}

/// The threshold as the W3C `tracestate` of a span tells it: hexadecimal digits, without zeros at the end.
pub(super) fn trace_state(threshold: u64) -> String {
    let digits = format!("{threshold:014x}");
    match digits.trim_end_matches('0') {
        "" => "ot=th:0".to_owned(),
        digits => format!("ot=th:{digits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use crate::record::Reason;

    fn taken(share: f64, denials: Denials, reason: Reason, of: u64) -> u64 {
        let sampler = Sampler::new(share, denials);
        let records = (0..of).map(|connection| record(connection, reason));
        u64::try_from(records.filter(|r| sampler.threshold(r).is_some()).count()).unwrap()
    }

    #[test]
    fn a_share_of_all_is_taken() {
        let taken = |share| taken(share, Denials::Always, Reason::Finished, 10_000);
        assert_eq!(taken(0.0), 0);
        assert_eq!(taken(1.0), 10_000);
        // Ids are no chance: these numbers stay the same.
        assert!((4800..5200).contains(&taken(0.5)), "{}", taken(0.5));
        assert!((60..140).contains(&taken(0.01)), "{}", taken(0.01));
    }

    #[test]
    fn denials_are_taken_as_told() {
        for (reason, always) in [
            (Reason::NoAllowRule, true),
            (Reason::NotTls, true),
            (Reason::ConnectFailed, false),
            (Reason::Finished, false),
            (Reason::IdleTimeout, false),
        ] {
            let all = if always { 100 } else { 0 };
            assert_eq!(taken(0.0, Denials::Always, reason, 100), all, "{reason}");
            assert_eq!(taken(0.0, Denials::Sampled, reason, 100), 0, "{reason}");
            assert_eq!(taken(1.0, Denials::Sampled, reason, 100), 100, "{reason}");
        }
    }

    /// In `policy.mode: audit` the connection ends well, and its denial is what is looked for.
    #[test]
    fn a_denial_that_was_only_reported_is_one() {
        let mut reported = record(1, Reason::Finished);
        let mut decision = crate::record::decision::tests::denial();
        decision.verdict = Verdict::Deny;
        decision.enforced = false;
        reported.decision = Some(decision.into());
        assert_eq!(Sampler::new(0.0, Denials::Always).threshold(&reported), Some(0));
        assert_eq!(Sampler::new(0.0, Denials::Sampled).threshold(&reported), None);
    }

    #[test]
    fn without_a_trace_nothing_is_taken() {
        let mut record = record(1, Reason::NoAllowRule);
        record.trace = None;
        assert_eq!(Sampler::new(1.0, Denials::Always).threshold(&record), None);
    }

    #[test]
    fn thresholds_are_told() {
        // Of the specification's table.
        for (share, state) in [
            (1.0, "ot=th:0"),
            (0.5, "ot=th:8"),
            (0.25, "ot=th:c"),
            (0.0625, "ot=th:f"),
        ] {
            let sampler = Sampler::new(share, Denials::Sampled);
            assert_eq!(trace_state(sampler.threshold), state);
        }
        let hundredth = trace_state(Sampler::new(0.01, Denials::Sampled).threshold);
        assert!(hundredth.starts_with("ot=th:fd70a3d70a3d"), "{hundredth}");
    }
}
