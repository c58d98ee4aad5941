//! What is refused and how that is said; files and folders.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::yaml::Diagnostic;

fn errors(text: &str) -> Vec<String> {
    let result = compile(
        vec![file::read("p.yaml", text)],
        Surroundings::of(&listeners()),
        at(100),
    );
    let mut found: Vec<Diagnostic> = result.err().unwrap_or_default();
    found.retain(Diagnostic::is_error);
    found.iter().map(ToString::to_string).collect()
}

/// Each text has exactly one error, at this place, which says this.
#[test]
fn refusals() {
    let rule = |rest: &str| format!("rules:\n  - name: r\n    action: allow\n{rest}");
    let table = [
        (String::new(), "p.yaml: the file is empty"),
        ("# only a comment\n".to_owned(), "p.yaml: the file is empty"),
        ("[]".to_owned(), "must be a mapping"),
        ("{}".to_owned(), "p.yaml: the file says nothing"),
        ("rules:\n".to_owned(), "1:1: `rules` has no value"),
        ("rules: {}".to_owned(), "`rules` must be a list, not a mapping"),
        (
            "rules: [1]".to_owned(),
            "`rules[0]` must be a mapping, not a number",
        ),
        ("rule: []\nrules: []".to_owned(), "did you mean `rules`?"),
        (
            rule("    form: [spiffe://home/a]\n"),
            "4:5: unknown field `form` in `rules[0]`",
        ),
        (rule("    to: []\n"), "4:9: `rules[0].to` is an empty list"),
        (rule("    to:\n"), "4:5: `rules[0].to` has no value"),
        (rule("    to: orders\n"), "write `[orders]`"),
        (rule("    to: [ordres]\n"), "4:10: `to` names listener `ordres`"),
        (rule("    to: [ordres]\n"), "did you mean `orders`?"),
        (
            rule("    to: [payments]\n"),
            "outbound listener: policies decide about inbound ones",
        ),
        (
            rule("    to: [orders, orders]\n"),
            "4:18: `orders` is in `to` twice",
        ),
        (rule("    from: []\n"), "`rules[0].from` is an empty list"),
        (rule("    from: ~\n"), "`rules[0].from` has no value"),
        (
            rule("    from: ['spiffe://*/a']\n"),
            "a trust domain takes no wildcard",
        ),
        (
            rule("    from:\n      - spiffe://home/a\n      - spiffe://home/b*\n"),
            "6:9: `spiffe://home/b*`",
        ),
        (rule("    from: ['']\n"), "is empty"),
        (rule("    from: [7]\n"), "put it in quotes"),
        (rule("    source: []\n"), "`rules[0].source` is an empty list"),
        (
            rule("    source: [10.1.0.0/8]\n"),
            "write `10.0.0.0/8` for the network, `10.1.0.0` for the address",
        ),
        (
            rule("    source: [10.0.0.0/33]\n"),
            "neither an IP address nor a network",
        ),
        (
            rule("    source: ['fe80::1%eth0']\n"),
            "neither an IP address nor a network",
        ),
        (
            rule("    source: [example.org]\n"),
            "neither an IP address nor a network",
        ),
        (
            rule("    expires: 2027-01-01\n"),
            "4:14: `2027-01-01` is no point in time",
        ),
        (rule("    expires: 2027-13-01T00:00:00Z\n"), "is no point in time"),
        (rule("    expires: 1798761600\n"), "put it in quotes"),
        (
            rule("    http: { methods: [GET] }\n"),
            "4:5: a rule with `http` can match nothing",
        ),
        (
            rule("  - name: r\n    action: deny\n"),
            "4:11: rule `r` is here twice, first in p.yaml:2",
        ),
        (rule("    action: deny\n"), "`rules[0].action` is here twice"),
        (
            "rules: [{name: r}]".to_owned(),
            "`action` is missing in `rules[0]`",
        ),
        (
            "rules: [{action: allow}]".to_owned(),
            "`name` is missing in `rules[0]`",
        ),
        (
            "rules: [{name: r, action: alow}]".to_owned(),
            "did you mean `allow`?",
        ),
        (
            "rules: [{name: r, action: Allow}]".to_owned(),
            "did you mean `allow`?",
        ),
        (
            "rules: [{name: 'a b', action: deny}]".to_owned(),
            "cannot be a rule's name",
        ),
        ("rules: [{name: 12, action: deny}]".to_owned(), "put it in quotes"),
    ];
    for (text, needle) in table {
        let found = errors(&text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].contains(needle), "{text}\nwanted {needle}\n{}", found[0]);
    }
}

#[test]
fn all_problems_are_told_at_once_and_shown() {
    let found = errors(
        "rules:\n  - name: a\n    action: alow\n    source: [10.0.0.1/8]\n  - name: b\n    action: deny\n    to: [nowhere]\n",
    );
    assert_eq!(
        found,
        [
            "error: p.yaml:3:13: `alow` is no value of `rules[0].action`\n  |\n3 |     action: alow\n  |             ^^^^\n  = help: did you mean `allow`? it may be `allow`, `deny` or `audit`",
            "error: p.yaml:4:14: `10.0.0.1/8` has bits set beyond its prefix\n  |\n4 |     source: [10.0.0.1/8]\n  |              ^^^^^^^^^^\n  = help: write `10.0.0.0/8` for the network, `10.0.0.1` for the address",
            "error: p.yaml:7:10: `to` names listener `nowhere`, which the config does not have\n  |\n7 |     to: [nowhere]\n  |          ^^^^^^^\n  = help: the inbound listeners are `orders` or `stock`",
        ]
    );
}

#[test]
fn an_expired_rule_is_a_warning() {
    let text = "rules: [{name: r, action: allow, expires: 1970-01-01T00:00:01Z}]";
    let (policy, warnings) = compile(
        vec![file::read("p", text)],
        Surroundings::of(&listeners()),
        at(100),
    )
    .unwrap();
    assert_eq!(policy.rules().len(), 1);
    assert_eq!(warnings.len(), 1);
    assert!(!warnings[0].is_error() && warnings[0].message.contains("ended at 1970-01-01"));
}

#[test]
fn names_are_unique_over_files() {
    let files = ["a.yaml", "b.yaml"].map(|name| file::read(name, "rules: [{name: r, action: deny}]"));
    let found = compile(files.into(), Surroundings::of(&listeners()), at(0)).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].file, found[0].line), ("b.yaml", 1));
    assert!(found[0].message.contains("first in a.yaml:1"));
}

#[test]
fn the_hash_tells_contents_and_names_apart() {
    let hash = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| file::read(name, text)).collect();
        compile(files, Surroundings::default(), at(0))
            .unwrap()
            .0
            .content_hash()
            .to_owned()
    };
    let one = hash(&[("a", "rules: []")]);
    assert_eq!(one.len(), 64);
    assert_eq!(one, hash(&[("a", "rules: []")]));
    assert_ne!(one, hash(&[("b", "rules: []")]));
    assert_ne!(one, hash(&[("a", "rules: [ ]")]));
    assert_ne!(one, hash(&[("a", "rules: []"), ("b", "rules: []")]));
}

#[test]
fn a_folder_is_read_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    put(
        "20.yml",
        "rules: [{name: second, action: deny, from: ['spiffe://home/a']}]",
    );
    put("10.yaml", "rules: [{name: first, action: allow}]");
    put("notes.txt", "not a policy");
    put(".hidden.yaml", "not: a policy");
    fs::create_dir(folder.path().join("..data")).unwrap();
    put("..data/30.yaml", "rules: [{name: third, action: audit}]");
    std::os::unix::fs::symlink("..data/30.yaml", folder.path().join("30.yaml")).unwrap();
    let (policy, warnings) = load(folder.path(), Surroundings::of(&listeners()), at(0)).unwrap();
    let names: Vec<&str> = policy.rules().iter().map(|rule| &**rule.name()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert_eq!(warnings, []);

    // One bad file refuses them all, and each problem is told.
    put("40.yaml", "rulez: []");
    std::os::unix::fs::symlink("nowhere", folder.path().join("50.yaml")).unwrap();
    fs::create_dir(folder.path().join("60.yaml")).unwrap();
    let found = load(folder.path(), Surroundings::of(&listeners()), at(0)).unwrap_err();
    let files: Vec<_> = found
        .iter()
        .map(|d| d.file.rsplit('/').next().unwrap().to_owned())
        .collect();
    assert_eq!(files, ["50.yaml", "60.yaml", "40.yaml"], "{found:#?}");
}

#[test]
fn no_rules_is_valid_and_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (policy, warnings) = load(folder.path(), Surroundings::of(&listeners()), at(0)).unwrap();
        assert!(policy.rules().is_empty());
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].message.contains("every peer is denied"),
            "{warnings:?}"
        );
        fs::write(folder.path().join("a.yaml"), "rules: []").unwrap();
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(
        &folder.path().join("nowhere"),
        Surroundings::of(&listeners()),
        at(0),
    )
    .unwrap_err();
    assert!(
        missing[0].message.contains("cannot read the policy"),
        "{missing:?}"
    );
    let large = folder.path().join("large.yaml");
    fs::write(&large, vec![b'#'; crate::yaml::MAX_FILE_BYTES + 1]).unwrap();
    assert!(
        load(&large, Surroundings::of(&listeners()), at(0)).unwrap_err()[0]
            .message
            .contains("larger than")
    );
    let binary = folder.path().join("binary.yaml");
    fs::write(&binary, b"rules: \xff").unwrap();
    assert!(
        load(&binary, Surroundings::of(&listeners()), at(0)).unwrap_err()[0]
            .message
            .contains("not UTF-8")
    );
}

pub(super) const GOOD: &str = "rules:
  - name: storefront-places-orders
    action: allow
    to: [orders]
    from:
      - spiffe://example.org/ns/shop/sa/storefront
      - spiffe://example.org/ns/*/sa/batch
      - spiffe://partner.example/**
    source: [10.0.0.0/8, 'fd00::/8']
    expires: 2027-01-01T00:00:00Z
";

#[test]
fn the_contract_s_example_is_read() {
    assert_eq!(errors(GOOD), Vec::<String>::new());
    assert_eq!(parse_text(GOOD).unwrap().len(), 1);
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC*|(?s).{0,200}") {
        let _ = parse_text(&text);
    }

    #[test]
    fn a_mutated_policy_is_answered(
        edits in prop::collection::vec((0..GOOD.len(), prop::option::of(any::<char>())), 1..6),
    ) {
        let mut text: Vec<char> = GOOD.chars().collect();
        for (place, edit) in edits {
            let place = place % text.len();
            match edit {
                Some(c) => text.insert(place, c),
                None => { text.remove(place); }
            }
        }
        let text: String = text.into_iter().collect();
        let mut found = compile(vec![file::read("p", &text)], Surroundings::of(&listeners()), at(0)).err().unwrap_or_default();
        found.iter_mut().for_each(|d| { let _ = d.to_string(); });
    }
}
