//! Patterns over SPIFFE IDs, as policies and `peer` lists use them.
//!
//! `spiffe://example.org/ns/shop/sa/web` is exactly this ID. A segment `*` stands for exactly one path segment,
//! a last segment `**` for any number of them, none included. There is no wildcard in the trust domain and none in
//! a part of a segment, so that what a pattern admits can be seen by looking at it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{SpiffeId, TrustDomain};

/// The most bytes of a SPIFFE ID, and so of a pattern over them.
const MAX_LENGTH: usize = 2048;

/// A pattern over SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdPattern {
    trust_domain: TrustDomain,
    /// As it is written; every decision that it makes names it.
    text: Arc<str>,
    /// Where in `text` the path begins, with its slash.
    path_at: usize,
    /// Whether a segment is a wildcard.
    wild: bool,
    /// Whether the pattern ends in `/**`.
    any_tail: bool,
}

/// One path segment of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// This segment.
    Literal(&'a str),
    /// Any one segment.
    Any,
}

impl Segment<'_> {
    /// Whether every segment that `other` stands for is one that this stands for.
    fn covers(self, other: Segment<'_>) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Literal(this), Segment::Literal(other)) => this == other,
            (Self::Literal(_), Segment::Any) => false,
        }
    }

    /// Whether some segment is one that both stand for.
    fn meets(self, other: Segment<'_>) -> bool {
        self.covers(other) || other.covers(self)
    }
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
    /// Longer than a SPIFFE ID may be (SPIFFE-ID section 2.3).
    #[error("longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Without its wildcards the text would be no SPIFFE ID.
    #[error("not a SPIFFE ID: {0}")]
    Id(String),
}

impl IdPatternError {
    /// What to write instead.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::WildcardInTrustDomain | Self::NoPath => "for example `spiffe://example.org/**`",
            Self::TailNotLast => "use `*` for exactly one segment, `/**` at the end for any number",
            Self::PartialWildcard(_) => "write the whole segment, or `*` in its place",
            Self::TooLong | Self::Id(_) => "for example `spiffe://example.org/ns/shop/sa/web`",
        }
    }
}

impl IdPattern {
    /// The pattern as it is written.
    #[must_use]
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether `id` is one of those the pattern stands for.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if id.trust_domain() != &self.trust_domain {
            return false;
        }
        if !self.wild && !self.any_tail {
            return id.path() == self.path();
        }
        let mut path = id.path().split('/').skip(1);
        for segment in self.segments() {
            match (segment, path.next()) {
                (Segment::Literal(want), Some(have)) if *want == *have => {}
                (Segment::Any, Some(_)) => {}
                _ => return false,
            }
        }
        self.any_tail || path.next().is_none()
    }

    /// Whether every ID that `other` stands for is one that this pattern stands for. Exact, since there are more
    /// segments than any patterns could list.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.trust_domain != other.trust_domain || (other.any_tail && !self.any_tail) {
            return false;
        }
        let mut others = other.segments();
        for segment in self.segments() {
            if !others.next().is_some_and(|other| segment.covers(other)) {
                return false;
            }
        }
        self.any_tail || others.next().is_none()
    }

    /// Whether some ID is one that both patterns stand for.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        if self.trust_domain != other.trust_domain {
            return false;
        }
        let (mut these, mut others) = (self.segments(), other.segments());
        loop {
            match (these.next(), others.next()) {
                (Some(this), Some(other)) if this.meets(other) => {}
                (Some(_), Some(_)) => return false,
                (Some(_), None) => return other.any_tail,
                (None, Some(_)) => return self.any_tail,
                (None, None) => return true,
            }
        }
    }

    /// How far `id` is from being matched: 0 when it is. Made for finding the pattern that was probably meant, so that
    /// what is mistyped is nearer than what is another name, and another path nearer than another trust domain.
    #[must_use]
    pub fn distance(&self, id: &SpiffeId) -> u32 {
        let own = self.trust_domain.as_str();
        let mut distance = match text_distance(own, id.trust_domain_name()) {
            0 => 0,
            // More than any path of usual length.
            unlike => unlike.saturating_add(1000),
        };
        let mut path = id.path().split('/').skip(1);
        for segment in self.segments() {
            let this = match (segment, path.next()) {
                (Segment::Any, Some(_)) => 0,
                (Segment::Literal(want), have) => text_distance(want, have.unwrap_or_default()),
                (Segment::Any, None) => 1,
            };
            distance = distance.saturating_add(this);
        }
        if !self.any_tail {
            let left = path.map(|segment| text_distance("", segment).saturating_add(1));
            distance = distance.saturating_add(left.fold(0, u32::saturating_add));
        }
        distance
    }

    /// The path segments, without the `**` that may follow.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let path = self.path();
        let path = if self.any_tail {
            path.strip_suffix("/**").unwrap_or(path)
        } else {
            path
        };
        path.split('/').skip(1).map(|segment| match segment {
            "*" => Segment::Any,
            literal => Segment::Literal(literal),
        })
    }

    /// Whether the pattern ends in `/**`, which stands for any number of segments.
    #[must_use]
    pub const fn has_any_tail(&self) -> bool {
        self.any_tail
    }

    /// Whether the pattern has no wildcard, and so stands for one ID.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        !self.wild && !self.any_tail
    }

    /// The only ID that matches, for a pattern without wildcards.
    #[must_use]
    pub fn as_exact(&self) -> Option<SpiffeId> {
        self.is_exact().then(|| SpiffeId::new(&*self.text).ok()).flatten()
    }

    /// The trust domain that every matching ID belongs to.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path as it is written, from its first slash on.
    fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }
}

/// How much of two texts is left when what they begin and end with alike is taken away: 0 when they are the same, and
/// little when a character was left out, put in or mistaken.
fn text_distance(one: &str, other: &str) -> u32 {
    if one == other {
        return 0;
    }
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let (short, long) = (one.len().min(other.len()), one.len().max(other.len()));
    let begin = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let end = one
        .iter()
        .rev()
        .zip(other.iter().rev())
        .take_while(|(a, b)| a == b)
        .count()
        .min(short.saturating_sub(begin));
    u32::try_from(long.saturating_sub(begin).saturating_sub(end)).unwrap_or(u32::MAX)
}

/// Whether every ID that `pattern` stands for is one that some pattern of `set` stands for. Exact.
///
/// A pattern without a tail is covered by one of the set or by none: of the segments that its `*` stands for there are
/// more than the set can list. One with a tail is each of itself cut short, made longer by any number of segments; from
/// the length on that no pattern of the set is longer than, one more segment changes nothing.
#[must_use]
pub fn set_covers<'p>(set: impl Iterator<Item = &'p IdPattern> + Clone, pattern: &IdPattern) -> bool {
    if set.clone().any(|one| one.covers(pattern)) {
        return true;
    }
    if !pattern.any_tail {
        return false;
    }
    let own = pattern.segments().count();
    let longest = set.clone().map(|one| one.segments().count()).max().unwrap_or(0);
    let more = longest.saturating_add(1).saturating_sub(own);
    (0..=more).all(|more| {
        set.clone().any(|one| {
            let mut segments = pattern.segments().chain(std::iter::repeat_n(Segment::Any, more));
            one.trust_domain == pattern.trust_domain
                && one
                    .segments()
                    .all(|this| segments.next().is_some_and(|other| this.covers(other)))
                && (one.any_tail || segments.next().is_none())
        })
    })
}

impl FromStr for IdPattern {
    type Err = IdPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_LENGTH {
            return Err(IdPatternError::TooLong);
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| IdPatternError::Id("it does not begin with `spiffe://`".to_owned()))?;
        let (trust_domain, path) = rest.split_once('/').ok_or(IdPatternError::NoPath)?;
        if trust_domain.contains('*') {
            return Err(IdPatternError::WildcardInTrustDomain);
        }
        let path_at = "spiffe://".len().saturating_add(trust_domain.len());
        let trust_domain = TrustDomain::new(trust_domain).map_err(|e| IdPatternError::Id(e.to_string()))?;
        let (mut wild, mut any_tail) = (false, false);
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            match part {
                "**" if parts.peek().is_none() => any_tail = true,
                "**" => return Err(IdPatternError::TailNotLast),
                "*" => wild = true,
                part if part.contains('*') => return Err(IdPatternError::PartialWildcard(part.to_owned())),
                part if is_plain(part) => {}
                part => {
                    SpiffeId::from_segments(trust_domain.clone(), &[part])
                        .map_err(|e| IdPatternError::Id(e.to_string()))?;
                }
            }
        }
        Ok(Self {
            trust_domain,
            text: text.into(),
            path_at,
            wild,
            any_tail,
        })
    }
}

/// Whether a segment is good at first sight (SPIFFE-ID section 2.2). What is not is asked of the library, which says why.
fn is_plain(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !segment.is_empty() && segment.bytes().all(plain)
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
