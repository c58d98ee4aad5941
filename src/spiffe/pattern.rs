//! Patterns over SPIFFE IDs, as policies and `peer` lists use them.
//!
//! `spiffe://example.org/ns/shop/sa/web` is exactly this ID. A segment `*` stands for exactly one path segment,
//! a last segment `**` for any number of them, none included. There is no wildcard in the trust domain and none in
//! a part of a segment, so that what a pattern admits can be seen by looking at it.

use std::fmt;
use std::str::FromStr;

use super::{SpiffeId, TrustDomain};

/// A pattern over SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdPattern {
    trust_domain: TrustDomain,
    segments: Box<[Segment]>,
    /// Whether the pattern ends in `/**`.
    any_tail: bool,
}

/// One path segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Box<str>),
    Any,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdPatternError {
    /// The trust domain holds a `*`.
    #[error("a trust domain takes no wildcard: write one pattern for each trust domain")]
    WildcardInTrustDomain,
    /// `**` stands before the end.
    #[error("`**` may only be the last segment")]
    TailNotLast,
    /// A segment is neither `*`, `**`, nor free of `*`.
    #[error("a wildcard stands for a whole segment: `{0}` mixes it with other characters")]
    PartialWildcard(String),
    /// The pattern has no path, which no X.509-SVID of a workload has either.
    #[error("a pattern needs a path: end it in `/**` to mean every ID of the trust domain")]
    NoPath,
    /// Without its wildcards the text would be no SPIFFE ID.
    #[error("not a SPIFFE ID: {0}")]
    Id(String),
}

impl IdPattern {
    /// Whether `id` is one of those the pattern stands for.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if id.trust_domain() != &self.trust_domain {
            return false;
        }
        let mut path = id.path().split('/').skip(1);
        for segment in &self.segments {
            match (segment, path.next()) {
                (Segment::Literal(want), Some(have)) if **want == *have => {}
                (Segment::Any, Some(_)) => {}
                _ => return false,
            }
        }
        self.any_tail || path.next().is_none()
    }

    /// The trust domain that every matching ID belongs to.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

impl FromStr for IdPattern {
    type Err = IdPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| IdPatternError::Id("it does not begin with `spiffe://`".to_owned()))?;
        let (trust_domain, path) = rest.split_once('/').ok_or(IdPatternError::NoPath)?;
        if trust_domain.contains('*') {
            return Err(IdPatternError::WildcardInTrustDomain);
        }
        let trust_domain = TrustDomain::new(trust_domain).map_err(|e| IdPatternError::Id(e.to_string()))?;
        let mut segments = Vec::new();
        let mut any_tail = false;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            match part {
                "**" if parts.peek().is_none() => any_tail = true,
                "**" => return Err(IdPatternError::TailNotLast),
                "*" => segments.push(Segment::Any),
                part if part.contains('*') => return Err(IdPatternError::PartialWildcard(part.to_owned())),
                part => {
                    SpiffeId::from_segments(trust_domain.clone(), &[part])
                        .map_err(|e| IdPatternError::Id(e.to_string()))?;
                    segments.push(Segment::Literal(part.into()));
                }
            }
        }
        Ok(Self { trust_domain, segments: segments.into(), any_tail })
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Any => f.write_str("/*")?,
            }
        }
        if self.any_tail { f.write_str("/**") } else { Ok(()) }
    }
}
