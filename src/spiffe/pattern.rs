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
    segments: Box<[Segment]>,
    /// Whether the pattern ends in `/**`.
    any_tail: bool,
    /// As it is written; every decision that it makes names it.
    text: Arc<str>,
}

/// One path segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Box<str>),
    Any,
}

impl Segment {
    fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Any => None,
        }
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

    /// The only ID that matches, for a pattern without wildcards.
    #[must_use]
    pub fn as_exact(&self) -> Option<SpiffeId> {
        if self.any_tail {
            return None;
        }
        let segments: Vec<&str> = self
            .segments
            .iter()
            .map(Segment::literal)
            .collect::<Option<_>>()?;
        SpiffeId::from_segments(self.trust_domain.clone(), &segments).ok()
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
        Ok(Self {
            trust_domain,
            segments: segments.into(),
            any_tail,
            text: text.into(),
        })
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> IdPattern {
        text.parse().unwrap()
    }

    fn id(text: &str) -> SpiffeId {
        SpiffeId::new(text).unwrap()
    }

    #[test]
    fn matching() {
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "spiffe://td/a/b",
                &["spiffe://td/a/b"],
                &[
                    "spiffe://td/a",
                    "spiffe://td/a/b/c",
                    "spiffe://td/a/B",
                    "spiffe://td/ab",
                    "spiffe://other/a/b",
                    "spiffe://td",
                    "spiffe://td.x/a/b",
                ],
            ),
            (
                "spiffe://td/*",
                &["spiffe://td/a"],
                &["spiffe://td", "spiffe://td/a/b", "spiffe://x/a"],
            ),
            (
                "spiffe://td/ns/*/sa/batch",
                &["spiffe://td/ns/x/sa/batch"],
                &[
                    "spiffe://td/ns/sa/batch",
                    "spiffe://td/ns/x/y/sa/batch",
                    "spiffe://td/ns/x/sa/batch/z",
                ],
            ),
            (
                "spiffe://td/**",
                &["spiffe://td", "spiffe://td/a", "spiffe://td/a/b"],
                &["spiffe://td2/a"],
            ),
            (
                "spiffe://td/a/**",
                &["spiffe://td/a", "spiffe://td/a/b/c"],
                &["spiffe://td/ab", "spiffe://td"],
            ),
            (
                "spiffe://td/*/**",
                &["spiffe://td/a", "spiffe://td/a/b"],
                &["spiffe://td"],
            ),
            ("spiffe://TD/a", &["spiffe://td/a"], &["spiffe://td/A"]),
        ];
        for (text, yes, no) in table {
            let pattern = pattern(text);
            for one in *yes {
                assert!(pattern.matches(&id(one)), "{text} should match {one}");
            }
            for one in *no {
                assert!(!pattern.matches(&id(one)), "{text} should not match {one}");
            }
        }
    }

    #[test]
    fn refused() {
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        type Expected = fn(&IdPatternError) -> bool;
        let table: &[(&str, Expected)] = &[
            ("", |e| matches!(e, IdPatternError::Id(_))),
            ("*", |e| matches!(e, IdPatternError::Id(_))),
            ("td/a", |e| matches!(e, IdPatternError::Id(_))),
            ("https://td/a", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td", |e| matches!(e, IdPatternError::NoPath)),
            ("spiffe://td/", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td/a/", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td//a", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe:///a", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td/a/../b", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td/./b", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td/a b", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td/a%2fb", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td/ä", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td:80/a", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://u@td/a", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://td/a?b", |e| matches!(e, IdPatternError::Id(_))),
            ("spiffe://*/a", |e| {
                matches!(e, IdPatternError::WildcardInTrustDomain)
            }),
            ("spiffe://*.org/a", |e| {
                matches!(e, IdPatternError::WildcardInTrustDomain)
            }),
            ("spiffe://**/a", |e| {
                matches!(e, IdPatternError::WildcardInTrustDomain)
            }),
            ("spiffe://td/**/a", |e| matches!(e, IdPatternError::TailNotLast)),
            ("spiffe://td/**/**", |e| matches!(e, IdPatternError::TailNotLast)),
            ("spiffe://td/a*", |e| {
                matches!(e, IdPatternError::PartialWildcard(_))
            }),
            ("spiffe://td/***", |e| {
                matches!(e, IdPatternError::PartialWildcard(_))
            }),
            (&long, |e| matches!(e, IdPatternError::TooLong)),
        ];
        for (text, expected) in table {
            let error = text.parse::<IdPattern>().expect_err(text);
            assert!(expected(&error), "{text}: {error:?}");
        }
    }

    #[test]
    fn exact() {
        assert_eq!(pattern("spiffe://td/a/b").as_exact(), Some(id("spiffe://td/a/b")));
        for text in ["spiffe://td/*", "spiffe://td/a/**", "spiffe://td/**"] {
            assert_eq!(pattern(text).as_exact(), None);
        }
    }

    /// The meaning of a pattern said in another way: recursion over the two lists of segments.
    fn plainly(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            (["**"], _) | ([], []) => true,
            (["*", pattern @ ..], [_, path @ ..]) => plainly(pattern, path),
            ([want, pattern @ ..], [have, path @ ..]) => want == have && plainly(pattern, path),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_meaning(
            segments in prop::collection::vec(prop::sample::select(vec!["a", "b", "*"]), 0..4),
            tail in any::<bool>(),
            path in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..5),
        ) {
            let mut segments = segments;
            if tail || segments.is_empty() {
                segments.push("**");
            }
            let text = format!("spiffe://td/{}", segments.join("/"));
            let parsed = pattern(&text);
            prop_assert_eq!(parsed.to_string(), text);
            let id = SpiffeId::from_segments(TrustDomain::new("td").unwrap(), &path).unwrap();
            prop_assert_eq!(parsed.matches(&id), plainly(&segments, &path));
            if let Some(exact) = parsed.as_exact() {
                prop_assert_eq!(exact == id, parsed.matches(&id));
            }
        }

        #[test]
        fn printed_is_read_back(text in "spiffe://[a-z.*]{0,5}(/[a-zA-Z.*_-]{0,3}){0,4}|\\PC{0,40}") {
            if let Ok(parsed) = text.parse::<IdPattern>() {
                prop_assert_eq!(pattern(&parsed.to_string()), parsed);
            }
        }
    }
}
