//! Deny lists: what is refused, what hits, and by what it says so.

use super::*;
use crate::policy::deny_list::{compile, read};

pub(super) const GOOD: &str = "deny:
  - name: ids
    description: Incident 4711
    ids: ['spiffe://home/ci/**', 'spiffe://home/x']
  - name: serials
    serials: ['4D:0A:1B', 00ff, '0']
    from: ['spiffe://home/**']
  - name: keys
    keys: ['sha256:abababababababababababababababababababababababababababababababab']
  - name: young
    issued_before: 1970-01-01T00:00:05Z
    from: ['spiffe://home/*', 'spiffe://home/old/**']
  - name: old
    issued_before: 1970-01-01T00:00:03Z
";

fn list(text: &str) -> DenyList {
    compile(read("d.yaml", text), at(100)).unwrap().0
}

#[test]
fn refusals() {
    let entry = |rest: &str| format!("deny:\n  - name: e\n{rest}");
    let table = [
        (String::new(), "the file is empty"),
        ("{}".to_owned(), "`deny` is missing"),
        ("deny: []\nrules: []".to_owned(), "unknown field `rules`"),
        ("deny: {}".to_owned(), "`deny` must be a list, not a mapping"),
        (entry(""), "`deny[0]` names nobody"),
        (entry("    id: ['spiffe://home/a']\n"), "did you mean `ids`?"),
        (entry("    ids: []\n"), "`deny[0].ids` is an empty list"),
        (entry("    ids: ['spiffe://home']\n"), "a pattern needs a path"),
        (entry("    ids: [$set]\n"), "`$set` is no SPIFFE ID pattern"),
        (
            entry("    ids: ['spiffe://home/a']\n    serials: ['0a']\n"),
            "`deny[0]` has `ids` and `serials`",
        ),
        (
            entry("    ids: ['spiffe://home/a']\n    from: ['spiffe://home/a']\n"),
            "`from` narrows `serials`, `keys` and `issued_before`",
        ),
        (entry("    serials: [12]\n"), "put it in quotes"),
        (
            entry("    serials: ['0x1f']\n"),
            "3:15: `0x1f` is no serial number",
        ),
        (entry("    serials: [':']\n"), "`:` is no serial number"),
        (
            entry(&format!("    serials: [a{}]\n", "0".repeat(40))),
            "longer than a serial number may be",
        ),
        (entry("    keys: [abab]\n"), "`abab` is no key hash"),
        (entry("    keys: ['sha256:abab']\n"), "is no key hash"),
        (
            entry(&format!("    keys: ['sha1:{}']\n", "a".repeat(64))),
            "is no key hash",
        ),
        (
            entry(&format!("    keys: ['sha256:{}']\n", "+a".repeat(32))),
            "is no key hash",
        ),
        (entry("    issued_before: 2026\n"), "put it in quotes"),
        (entry("    issued_before: soon\n"), "`soon` is no point in time"),
        (
            "deny: [{ids: ['spiffe://home/a']}]".to_owned(),
            "`name` is missing",
        ),
        (
            "deny: [{name: a b, ids: ['spiffe://home/a']}]".to_owned(),
            "`a b` cannot be an entry's name",
        ),
        (
            entry("    ids: ['spiffe://home/a']\n  - name: e\n    ids: ['spiffe://home/b']\n"),
            "entry `e` is here twice, first in line 2",
        ),
    ];
    for (text, needle) in table {
        let found = compile(read("d.yaml", &text), at(0)).unwrap_err();
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(
            found[0].to_string().contains(needle),
            "{text}\nwanted {needle}\n{}",
            found[0]
        );
    }
}

#[test]
fn the_first_entry_that_hits_is_named() {
    let list = list(GOOD);
    let table = [
        // Peer, serial number, key, issued at, entry.
        ("spiffe://home/ci/a/b", "aa", 0, 9, Some("ids")),
        ("spiffe://home/x", "aa", 0, 9, Some("ids")),
        ("spiffe://home/y/z", "aa", 0, 9, None),
        ("spiffe://home/y/z", "4d0a1b", 0, 9, Some("serials")),
        ("spiffe://home/y/z", "ff", 0, 9, Some("serials")),
        ("spiffe://home/y/z", "00", 0, 9, Some("serials")),
        ("spiffe://partner/y", "ff", 0, 9, None),
        ("spiffe://partner/y", "ff", 0xab, 9, Some("keys")),
        ("spiffe://home/y", "aa", 0, 4, Some("young")),
        ("spiffe://home/old/y/z", "aa", 0, 4, Some("young")),
        ("spiffe://home/y", "aa", 0, 5, None),
        ("spiffe://home/y/z", "aa", 0, 4, None),
        ("spiffe://home/y/z", "aa", 0, 2, Some("old")),
        ("spiffe://partner/y", "aa", 0, 2, Some("old")),
    ];
    for (peer, serial, key, issued, expected) in table {
        let peer = SpiffeId::new(peer).unwrap();
        let certificate = CertificateFacts {
            serial,
            key_hash: &[key; 32],
            issued: at(issued),
        };
        let found = list.find(&peer, Some(&certificate)).map(|entry| &**entry.name());
        assert_eq!(found, expected, "{peer} {serial} {key} {issued}");
    }
    // Without a certificate the first that may hit does.
    for (peer, expected) in [
        ("spiffe://home/x", "ids"),
        ("spiffe://home/y", "serials"),
        ("spiffe://partner/y", "keys"),
    ] {
        let peer = SpiffeId::new(peer).unwrap();
        assert_eq!(&**list.find(&peer, None).unwrap().name(), expected);
    }
    let nobody = DenyList::empty();
    assert!(
        nobody
            .find(&SpiffeId::new("spiffe://home/x").unwrap(), None)
            .is_none()
    );
}

#[test]
fn the_first_entry_of_those_issued_before_is_named() {
    let entries = [("a", 3), ("b", 2), ("c", 5), ("d", 5), ("e", 8)];
    for from in ["", ", from: ['spiffe://home/**']"] {
        let entry =
            |(name, time)| format!("{{name: {name}, issued_before: 1970-01-01T00:00:0{time}Z{from}}}");
        let list = list(&format!("deny: [{}]", entries.map(entry).join(", ")));
        for (issued, expected) in [
            (1, Some("a")),
            (2, Some("a")),
            (3, Some("c")),
            (4, Some("c")),
            (5, Some("e")),
            (7, Some("e")),
            (8, None),
        ] {
            let peer = SpiffeId::new("spiffe://home/x").unwrap();
            let certificate = Some(CertificateFacts::unlisted(at(issued)));
            let found = list.find(&peer, certificate.as_ref());
            assert_eq!(found.map(|entry| &**entry.name()), expected, "{issued}{from}");
            // What is found without looking at each is what each says of itself.
            let mut each = list.entries().iter();
            let first = each.find(|entry| entry.hits(&peer, certificate.as_ref()));
            assert_eq!(first.map(|entry| &**entry.name()), expected, "{issued}{from}");
        }
    }
}

#[test]
fn a_serial_number_may_have_twenty_bytes() {
    let text = format!("deny: [{{name: e, serials: ['00:{}']}}]", "f1".repeat(20));
    assert_eq!(list(&text).entries().len(), 1);
    assert_eq!(deny_list::parse_text(&text).unwrap().len(), 1);
    assert!(deny_list::parse_text("deny: [{}]").is_err());
}

#[test]
fn an_entry_tells_what_it_is_about() {
    let list = list(GOOD);
    let told: Vec<_> = list
        .entries()
        .iter()
        .map(|entry| (entry.condition(), entry.description().map(|text| &**text)))
        .collect();
    assert_eq!(
        told,
        [
            ("ids", Some("Incident 4711")),
            ("serials", None),
            ("keys", None),
            ("issued_before", None),
            ("issued_before", None),
        ]
    );
}

#[test]
fn the_deny_list_comes_before_all_and_says_by_what_it_hits() {
    let rules = "rules: [{name: a, action: allow, from: ['spiffe://home/**', 'spiffe://partner/**']}, {name: m, action: audit}]";
    let mut admission = compiled(rules);
    admission.deny_list = Arc::new(list(GOOD));
    let own = TrustDomain::new("home").unwrap();
    let told = |peer: &str, serial: &str, key: u8, issued: u64| {
        let peer = SpiffeId::new(peer).unwrap();
        let facts = Facts {
            listener: "orders",
            peer: &peer,
            source: None,
            own_trust_domain: &own,
            certificate: Some(CertificateFacts {
                serial,
                key_hash: &[key; 32],
                issued: at(issued),
            }),
        };
        let outcome = admission.evaluate(&facts, at(100));
        assert_eq!((outcome.allow, outcome.reason), (false, Reason::DenyList));
        assert_eq!(audited(&outcome), ["m"]);
        let explanation = admission.explain(&facts, at(100));
        assert_eq!(explanation.detail.as_deref(), Some(&*outcome.detail(&facts)));
        assert_eq!(
            explanation.rules[0].detail.as_deref(),
            Some("matches, but the deny list wins")
        );
        outcome.detail(&facts)
    };
    let says = |detail: String, words: &str| assert!(detail.contains(words), "{detail}");
    says(
        told("spiffe://home/x", "aa", 0, 9),
        "entry `ids` of the deny list names it: its ID is listed",
    );
    says(told("spiffe://home/y", "ff", 0, 9), "serial number ff is listed");
    says(told("spiffe://home/y", "aa", 0xab, 9), "key sha256:abab");
    says(
        told("spiffe://home/y", "aa", 0, 4),
        "issued at 1970-01-01T00:00:04.000000Z, before 1970-01-01T00:00:05.000000Z",
    );
}

#[test]
fn an_entry_about_the_future_is_a_warning() {
    let text = "deny: [{name: e, issued_before: 1970-01-01T00:00:05Z}]";
    assert_eq!(compile(read("d", text), at(5)).unwrap().1, []);
    let (_, warnings) = compile(read("d", text), at(4)).unwrap();
    assert!(warnings[0].message.contains("in the future"), "{warnings:?}");
}

#[test]
fn a_list_is_loaded_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deny.yaml");
    assert!(
        load_deny_list(&path, at(0)).unwrap_err()[0]
            .message
            .contains("cannot read")
    );
    std::fs::write(&path, GOOD).unwrap();
    let (list, _) = load_deny_list(&path, at(100)).unwrap();
    assert_eq!(list.entries().len(), 5);
    assert_eq!(list.content_hash().len(), 64);
    assert_eq!(list.entries()[0].place().1, 2);
    std::fs::write(&path, "deny: []").unwrap();
    assert!(load_deny_list(&path, at(100)).unwrap().0.entries().is_empty());
    std::fs::write(&path, "deny: [{}]").unwrap();
    assert!(!load_deny_list(&path, at(100)).unwrap_err().is_empty());
}
