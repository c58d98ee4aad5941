//! What is read is what is written, whatever version of YAML the reader knows.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Node {
    let mut all = documents(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

#[test]
fn scalars_keep_what_they_are() {
    for (read, written) in [
        // Text that other readers take for something else stays in quotes.
        ("'yes'", "\"yes\""),
        ("\"n\"", "\"n\""),
        ("'Off'", "\"Off\""),
        ("'1e3'", "\"1e3\""),
        ("'0x1'", "\"0x1\""),
        ("'010'", "\"010\""),
        ("'null'", "\"null\""),
        ("''", "\"\""),
        ("'~'", "\"~\""),
        ("'.5'", "\".5\""),
        ("'1:30'", "\"1:30\""),
        ("'2001-12-14'", "\"2001-12-14\""),
        ("'='", "\"=\""),
        ("' a'", "\" a\""),
        ("'a: b'", "\"a: b\""),
        ("'a #b'", "\"a #b\""),
        ("'a:'", "\"a:\""),
        ("'- a'", "\"- a\""),
        ("\"\\x01\\u2028\"", "\"\\u0001\\u2028\""),
        ("\"\\U0001F600\"", "\"\\U0001F600\""),
        ("!!str 8080", "\"8080\""),
        // What stood without quotes stands so again.
        ("yes", "yes"),
        ("1e3", "1e3"),
        ("0x1", "0x1"),
        ("0o17", "0o17"),
        ("010", "010"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("1.10", "1.10"),
        ("10.0.0.1", "10.0.0.1"),
        ("~", "null"),
        ("", "null"),
        ("Größe", "Größe"),
        ("a #b", "a"),
        // Text is text, with quotes or without.
        ("'app'", "app"),
        ("\"registry.example/a:1\"", "registry.example/a:1"),
        ("'spiffe://example.org/**'", "spiffe://example.org/**"),
        // Lines.
        ("\"a\\nb\\n\"", "|\n  a\n  b"),
        ("\"a\\n\\nb\"", "|-\n  a\n\n  b"),
        ("\"a\\n\\n\"", "|+\n  a\n"),
        ("\" a\\nb\"", "\" a\\nb\""),
        ("\"a \\nb\"", "\"a \\nb\""),
        ("\"\\n\"", "\"\\n\""),
        ("\"a\\r\\nb\"", "\"a\\r\\nb\""),
    ] {
        let node = parse(&format!("k: {read}\n"));
        let text = write(&node);
        assert_eq!(text, format!("k: {written}\n"), "{read}");
        assert_eq!(parse(&text), node, "{read}");
    }
}

#[test]
fn collections_keep_their_order_and_their_emptiness() {
    let text = "z: 1\na:\n- - 1\n  - b: []\n    c: {}\n- {}\n-\n- d: |\n    x\n    y\n  e: f\n\"y\": {\"on\": [\"off\"]}\n";
    let written = write(&parse(text));
    assert_eq!(
        written,
        "z: 1\na:\n- - 1\n  - b: []\n    c: {}\n- {}\n- null\n- d: |\n    x\n    y\n  e: f\n\"y\":\n  \"on\":\n  - \"off\"\n"
    );
    assert_eq!(parse(&written), parse(text));
}

/// Texts that hurt: words, numbers, indicators, ends of lines, blanks, anything.
fn any_text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "yes",
        "n",
        "null",
        "~",
        "0x1F",
        "1_000",
        "1e3",
        "-",
        "- ",
        ": ",
        "#",
        " #",
        "\n",
        "\n\n",
        "\t",
        " ",
        "---",
        "...",
        "|",
        ">",
        "&a",
        "*a",
        "!t",
        "%",
        "@",
        "`",
        "'",
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        "?",
        "a",
        "Ö",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{1f600}",
        "\r",
        "\u{0}",
        "<<",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..6).prop_map(|parts| parts.concat()),
        any::<String>(),
    ]
}

fn any_node() -> impl Strategy<Value = Node> {
    let plain = prop::sample::select(vec![
        "1",
        "0x1",
        "010",
        "yes",
        "null",
        "1.0",
        "-5",
        "12345678901234567890",
    ]);
    let leaf = prop_oneof![
        any_text().prop_map(Node::from),
        plain.prop_map(|text| Node::Scalar(Scalar::unquoted(text, crate::yaml::Place::default()))),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..5).prop_map(Node::List);
        let map = prop::collection::btree_map(any_text(), inner, 0..5).prop_map(|entries| {
            let entries = entries.into_iter().filter(|(key, _)| key.len() < 250);
            Node::Map(
                entries
                    .map(|(key, value)| (Scalar::of_text(key), value))
                    .collect(),
            )
        });
        prop_oneof![list, map]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever can be in a tree survives being written and read.
    #[test]
    fn what_is_written_is_read_back(node in any_node()) {
        let text = write(&node);
        prop_assert_eq!(parse(&text), node, "{}", text);
    }

    /// And whatever can be read at all is written as what it is.
    #[test]
    fn what_is_read_is_written_back(text in any_text()) {
        let text = format!("k: {text}\n");
        let mut findings = Findings::new("t", &text);
        let chunks = chunks(&text);
        if let [chunk] = chunks.as_slice()
            && let Some(node) = read::read(chunk, &mut findings)
            && findings.errors() == 0
        {
            let written = write(&node);
            prop_assert_eq!(parse(&written), node, "{}", written);
        }
    }

    /// No text makes it panic, and what comes out goes in again and comes out the same.
    #[test]
    fn any_input_is_answered(text in any_text(), annotation in any_text()) {
        let _ = inject(&[("t", &text)], &Options::default());
        let quoted = serde_json::to_string(&annotation).unwrap();
        let pod = workload("Pod", &format!("inject: \"true\"\npolicy: p\ninbound: {quoted}"));
        let _ = inject(&[("t", &pod)], &Options::default());
        let manifest = format!("{}---\n{text}", workload("Pod", GOOD));
        if let Ok(once) = inject(&[("t", &manifest)], &Options::default()) {
            let once = &once[0].text;
            prop_assert_eq!(&inject(&[("t", once)], &Options::default()).unwrap()[0].text, once);
        }
    }
}
