//! What patterns match, cover and refuse.

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

fn small_pattern() -> impl Strategy<Value = IdPattern> {
    let segments = prop::collection::vec(prop::sample::select(vec!["a", "b", "*"]), 0..4);
    (prop::sample::select(vec!["td", "other"]), segments, any::<bool>()).prop_map(
        |(domain, mut segments, tail)| {
            if tail || segments.is_empty() {
                segments.push("**");
            }
            pattern(&format!("spiffe://{domain}/{}", segments.join("/")))
        },
    )
}

fn all_ids() -> Vec<SpiffeId> {
    let mut paths = vec![String::new()];
    for length in 0..5_usize {
        let longest: Vec<String> = paths.iter().filter(|p| p.len() == 2 * length).cloned().collect();
        for word in ["a", "b", "z"] {
            paths.extend(longest.iter().map(|path| format!("{path}/{word}")));
        }
    }
    let domains = ["spiffe://td", "spiffe://other"];
    let ids = domains
        .iter()
        .flat_map(|domain| paths.iter().map(move |path| id(&format!("{domain}{path}"))));
    ids.collect()
}

#[test]
fn what_is_mistyped_is_nearer_than_what_is_another_name() {
    let table = [
        (
            "spiffe://td/ns/shop/sa/storefront",
            "spiffe://td/ns/shop/sa/store-front",
            "spiffe://td/ns/shop/sa/batch",
        ),
        (
            "spiffe://td/ns/shop/sa/web",
            "spiffe://td/ns/shop/sa/wb",
            "spiffe://td/ns/*/sa/jobs",
        ),
        (
            "spiffe://td/ns/shop/sa/web",
            "spiffe://td/ns/shop/**",
            "spiffe://td/ns/shop/sa/wep",
        ),
        ("spiffe://td/a/b", "spiffe://td/a/b/c", "spiffe://dt/a/b"),
        ("spiffe://td/a/b/c", "spiffe://td/a/b", "spiffe://td/x/y/z"),
    ];
    for (id_text, near, far) in table {
        let asked = id(id_text);
        assert!(
            pattern(near).distance(&asked) < pattern(far).distance(&asked),
            "{id_text}"
        );
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

    /// Against every ID of up to five segments of three words, one of which no pattern has: as good as all IDs, for
    /// patterns this short.
    #[test]
    fn covering_and_meeting_are_what_trying_all_ids_says(
        set in prop::collection::vec(small_pattern(), 1..5),
        other in small_pattern(),
    ) {
        let ids = all_ids();
        let by_all = ids.iter().filter(|id| other.matches(id)).all(|id| set.iter().any(|p| p.matches(id)));
        prop_assert_eq!(set_covers(set.iter(), &other), by_all);
        let one = &set[0];
        let by_one = ids.iter().filter(|id| other.matches(id)).all(|id| one.matches(id));
        prop_assert_eq!(one.covers(&other), by_one);
        let both = ids.iter().any(|id| one.matches(id) && other.matches(id));
        prop_assert_eq!(one.meets(&other), both);
        for id in ids.iter().filter(|id| id.path().len() < 8) {
            prop_assert_eq!(one.distance(id) == 0, one.matches(id), "{} {}", one, id);
        }
    }

    #[test]
    fn printed_is_read_back(text in "spiffe://[a-z.*]{0,5}(/[a-zA-Z.*_-]{0,3}){0,4}|\\PC{0,40}") {
        if let Ok(parsed) = text.parse::<IdPattern>() {
            prop_assert_eq!(pattern(&parsed.to_string()), parsed);
        }
    }
}

#[test]
fn the_advice_is_good() {
    for (text, advice) in [
        ("spiffe://*/x", "spiffe://example.org/**"),
        ("spiffe://home", "spiffe://example.org/**"),
        ("spiffe://home/**/x", "/**"),
        ("spiffe://home/x*", "write the whole segment"),
        ("home/x", "spiffe://example.org/ns/shop/sa/web"),
    ] {
        let error = IdPattern::from_str(text).unwrap_err();
        assert!(error.advice().contains(advice), "{text}: {}", error.advice());
        // An example that is given can be taken.
        let quoted = error
            .advice()
            .split('`')
            .find(|text| text.starts_with("spiffe://"));
        assert!(quoted.is_none_or(|example| IdPattern::from_str(example).is_ok()));
    }
}

#[test]
fn a_pattern_is_no_longer_than_an_id_may_be() {
    let of = |length: usize| format!("spiffe://home/{}", "a".repeat(length - "spiffe://home/".len()));
    assert!(IdPattern::from_str(&of(2048)).is_ok());
    assert_eq!(IdPattern::from_str(&of(2049)), Err(IdPatternError::TooLong));
}

#[test]
fn a_pattern_without_wildcards_stands_for_one_id() {
    for (text, exact) in [
        ("spiffe://home/x/y", true),
        ("spiffe://home/*/y", false),
        ("spiffe://home/x/**", false),
        ("spiffe://home/*/**", false),
    ] {
        let pattern = pattern(text);
        assert_eq!(pattern.is_exact(), exact, "{text}");
        assert_eq!(pattern.as_exact(), exact.then(|| id(text)), "{text}");
    }
}
