//! The published JSON Schemas say what the readers say.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::*;

const POLICY: &str = include_str!("../../../config/schema/policy.schema.json");
const DENY_LIST: &str = include_str!("../../../config/schema/deny-list.schema.json");

struct Schema {
    text: Value,
    validator: jsonschema::Validator,
}

impl Schema {
    fn of(text: &str) -> Self {
        let text: Value = serde_json::from_str(text).unwrap();
        jsonschema::meta::validate(&text).unwrap();
        let validator = jsonschema::draft202012::new(&text).unwrap();
        Self { text, validator }
    }

    /// What it finds wrong with a YAML document.
    fn problems(&self, yaml: &str) -> Vec<String> {
        let document: Value = serde_saphyr::from_str(yaml).unwrap();
        self.validator
            .iter_errors(&document)
            .map(|error| error.to_string())
            .collect()
    }

    fn fields(&self, pointer: &str) -> BTreeSet<&str> {
        let properties = self.text.pointer(pointer).unwrap().as_object().unwrap();
        properties.keys().map(String::as_str).collect()
    }
}

#[test]
fn the_fields_are_those_that_are_read() {
    let set = |fields: &[&'static str]| fields.iter().copied().collect::<BTreeSet<&str>>();
    let policy = Schema::of(POLICY);
    assert_eq!(policy.fields("/properties"), set(file::TOP));
    assert_eq!(policy.fields("/$defs/rule/properties"), set(file::RULE));
    assert_eq!(policy.fields("/$defs/budget/properties"), set(file::BUDGET));
    let list = Schema::of(DENY_LIST);
    assert_eq!(list.fields("/properties"), set(deny_list::TOP));
    assert_eq!(list.fields("/$defs/entry/properties"), set(deny_list::ENTRY));
}

#[test]
fn every_example_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let (policy, list) = (Schema::of(POLICY), Schema::of(DENY_LIST));
    let mut seen = 0;
    for (folder, schema) in [("policy", &policy), ("deny", &list)] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert_eq!(schema.problems(&text), Vec::<String>::new(), "{text}");
            let read = match folder {
                "policy" => file::read("p", &text).findings,
                _ => deny_list::read("d", &text).findings,
            };
            assert_eq!(read.errors(), 0);
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}

/// What the readers take, the schema takes: over the tables of the other tests, and over what the oracle generates.
#[test]
fn what_is_read_is_good() {
    let policy = Schema::of(POLICY);
    for text in warnings::TABLE.iter().map(|(text, _)| *text).chain([files::GOOD]) {
        assert_eq!(policy.problems(text), Vec::<String>::new(), "{text}");
    }
    let list = Schema::of(DENY_LIST);
    assert_eq!(list.problems(lists::GOOD), Vec::<String>::new());
}

/// What the readers refuse by the form of a single value, the schema refuses.
#[test]
fn typical_mistakes_are_found() {
    let policy = Schema::of(POLICY);
    let rule = |rest: &str| format!("rules: [{{name: r, action: allow, {rest}}}]");
    for text in [
        "{}".to_owned(),
        "rule: []".to_owned(),
        "rules: {}".to_owned(),
        "rules: [{name: r}]".to_owned(),
        "rules: [{action: allow}]".to_owned(),
        "rules: [{name: r, action: Allow}]".to_owned(),
        "rules: [{name: 'a b', action: deny}]".to_owned(),
        rule("form: []"),
        rule("to: []"),
        rule("to: orders"),
        rule("ports: [0]"),
        rule("ports: ['8443']"),
        rule("from: []"),
        rule("from: [example.org/a]"),
        rule("from: ['spiffe://*/a']"),
        rule("from: ['spiffe://td']"),
        rule("from: ['spiffe://td/a/']"),
        rule("from: ['spiffe://td/a*']"),
        rule("from: ['spiffe://td/**/a']"),
        rule("from: ['spiffe://td/../a']"),
        rule("from: ['$']"),
        rule("source: [example.org]"),
        rule("source: [10.0.0.0/33]"),
        rule("expires: 2027-01-01"),
        rule("expires: 2027-01-01T00:00:00"),
        rule("http: {methods: [GET]}"),
        "ids: {}".to_owned(),
        "ids: {a: []}".to_owned(),
        "ids: {a b: ['spiffe://td/a']}".to_owned(),
        "networks: {a: ['spiffe://td/a']}".to_owned(),
        "budgets: [{name: b}]".to_owned(),
        "budgets: [{name: b, connections: 0}]".to_owned(),
        "budgets: [{name: b, connections: 1, burst: 2}]".to_owned(),
        "budgets: [{name: b, bytes_per_second: 10MB}]".to_owned(),
    ] {
        assert!(!policy.problems(&text).is_empty(), "{text}");
        assert!(file::read("p", &text).findings.errors() > 0, "{text}");
    }
    let list = Schema::of(DENY_LIST);
    for text in [
        "{}",
        "deny: {}",
        "deny: [{name: a}]",
        "deny: [{ids: ['spiffe://td/a']}]",
        "deny: [{name: a, ids: []}]",
        "deny: [{name: a, ids: ['$set']}]",
        "deny: [{name: a, ids: ['spiffe://td/a'], serials: ['0a']}]",
        "deny: [{name: a, ids: ['spiffe://td/a'], from: ['spiffe://td/a']}]",
        "deny: [{name: a, serials: [xyz]}]",
        "deny: [{name: a, serials: [12]}]",
        "deny: [{name: a, keys: [abc]}]",
        "deny: [{name: a, issued_before: yesterday}]",
        "deny: [{name: a, serial: ['0a']}]",
    ] {
        assert!(!list.problems(text).is_empty(), "{text}");
        assert!(deny_list::read("d", text).findings.errors() > 0, "{text}");
    }
}
