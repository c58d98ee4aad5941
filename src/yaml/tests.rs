use proptest::prelude::*;

use super::*;

fn rendered(text: &str, known: &[&'static str]) -> Vec<String> {
    let mut findings = Findings::new("f.yaml", text);
    if let Some(node) = parse(text, &mut findings) {
        let _ = Fields::of(&node, "", known, &mut findings);
    }
    findings.into_list().iter().map(ToString::to_string).collect()
}

#[test]
fn places_reach_into_nested_values() {
    let text = "a:\n  - b: one\n    c: [x, yy]\n";
    let mut findings = Findings::new("f.yaml", text);
    let node = parse(text, &mut findings).unwrap();
    let Value::Map(top) = node.value else { panic!() };
    assert_eq!(
        top[0].0.place,
        Place {
            line: 1,
            column: 1,
            width: 1
        }
    );
    let Value::List(items) = &top[0].1.value else {
        panic!()
    };
    let Value::Map(item) = &items[0].value else {
        panic!()
    };
    assert_eq!(
        item[1].0.place,
        Place {
            line: 3,
            column: 5,
            width: 1
        }
    );
    let Value::List(inner) = &item[1].1.value else {
        panic!()
    };
    assert_eq!(
        inner[1].place,
        Place {
            line: 3,
            column: 12,
            width: 2
        }
    );
    assert_eq!(inner[1].value, Value::Text("yy".to_owned()));
}

#[test]
fn every_unknown_repeated_and_empty_field_is_found() {
    let found = rendered(
        "liten: 1\nlisten: 2\nlisten: 3\nname:\nzzzz: 1\n",
        &["listen", "name"],
    );
    assert_eq!(
        found,
        [
            "error: f.yaml:1:1: unknown field `liten`\n  |\n1 | liten: 1\n  | ^^^^^\n  = help: did you mean `listen`?",
            "error: f.yaml:3:1: `listen` is here twice, first in line 2\n  |\n3 | listen: 3\n  | ^^^^^^\n  = help: keep one of them",
            "error: f.yaml:4:1: `name` has no value\n  |\n4 | name:\n  | ^^^^\n  = help: give it a value, or take the line out",
            "error: f.yaml:5:1: unknown field `zzzz`\n  |\n5 | zzzz: 1\n  | ^^^^\n  = help: the fields here are `listen` or `name`",
        ]
    );
}

#[test]
fn a_summary_is_one_line() {
    let mut findings = Findings::new("f.yaml", "a: 1\n");
    findings.error_with_help(
        Place {
            line: 1,
            column: 4,
            width: 1,
        },
        "no\ngood",
        "write `b`",
    );
    let list = findings.into_list();
    assert_eq!(list[0].summary(), "f.yaml:1:4: no\u{fffd}good (write `b`)");
    assert_eq!(Diagnostic::of_file("f", "gone").summary(), "f: gone");
}

#[test]
fn what_is_no_yaml_says_where() {
    for (text, needle) in [
        ("a:\n\tb: 1\n", "replace the tab"),
        ("a: [1, 2\nb: 3\n", "f.yaml:"),
        ("a: *nowhere\n", "f.yaml:1:4"),
        ("a: 1\n---\nb: 2\n", "f.yaml"),
        ("<<: {a: 1}\n", "f.yaml:1"),
        ("1: a\n", "a key must be text, not a number"),
        ("? [a]\n: b\n", "a key must be text, not a list"),
        ("a: !secret b\n", "unsupported tag `!secret`"),
        ("from:\n  - *\n", "must be in quotes"),
    ] {
        let found = rendered(text, &["a", "b"]);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert!(found[0].contains(needle), "{text:?}: {found:?}");
    }
}

#[test]
fn numbers_that_readers_disagree_on_are_text() {
    for text in ["a: 010", "a: 1_000", "a: yes", "a: on", "a: 0o7x"] {
        let mut findings = Findings::new("f.yaml", text);
        let node = parse(text, &mut findings).unwrap();
        let Value::Map(top) = node.value else { panic!() };
        assert!(
            matches!(top[0].1.value, Value::Text(_)),
            "{text}: {:?}",
            top[0].1.value
        );
    }
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let previous = i - 1;
        bomb.push_str(&format!(
            "a{i}: &a{i} [{}]\n",
            vec![format!("*a{previous}"); 10].join(", ")
        ));
    }
    assert_eq!(rendered(&bomb, &["a"]).len(), 1);
    let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(rendered(&deep, &["a"]).len(), 1);
    let deep: String = (0..2000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    assert_eq!(rendered(&deep, &["a"]).len(), 1);
}

#[test]
fn findings_are_bounded_and_counted() {
    let text: String = (0..500).map(|i| format!("k{i}: 1\n")).collect();
    let found = rendered(&text, &["listen"]);
    assert_eq!(found.len(), 101);
    assert_eq!(found[100], "error: f.yaml: 400 more findings not shown");
}

#[test]
fn terminals_are_not_steered() {
    for text in ["\"\\e[31mred\": 1 # \u{202e}evil\n", "a\u{7f}b: 1"] {
        for line in rendered(text, &["listen"]) {
            assert!(!line.contains(['\u{1b}', '\u{202e}', '\u{7f}']), "{line:?}");
        }
    }
}

#[test]
fn decoding() {
    assert_eq!(decode("f", b"\xef\xbb\xbfa: 1"), Ok("a: 1"));
    let error = decode("f", b"a: 1\nb: \xff\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: f: the file is not UTF-8: line 2 holds other bytes\n  = help: save the file as UTF-8"
    );
    assert!(decode("f", &vec![b' '; MAX_FILE_BYTES]).is_ok());
    assert!(
        decode("f", &vec![b' '; MAX_FILE_BYTES + 1])
            .unwrap_err()
            .message
            .contains("larger")
    );
}

#[test]
fn suggestions() {
    for (typed, meant) in [
        ("liste", Some("listen")),
        ("Listen", Some("listen")),
        ("upstraem", Some("upstream")),
        ("xyz", None),
        ("", None),
    ] {
        assert_eq!(closest(typed, &["listen", "upstream", "name"]), meant, "{typed}");
    }
    assert_eq!(one_of(&["a", "b", "c"]), "`a`, `b` or `c`");
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC*|([-\\[\\]{}:,&*!|>'\"%@#? \n\ta-c0-9~<]|- |: ){0,80}") {
        let _ = rendered(&text, &["a", "b"]);
    }
}
