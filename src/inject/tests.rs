//! Each kind, idempotence, updates, removal, errors, and what must not be touched.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod annotated;
mod scalars;
mod transparent;
mod updates;

use super::*;

/// A workload of a kind whose pods have these annotations (each line `key: value`, without the prefix).
fn workload(kind: &str, annotations: &str) -> String {
    let (group, path) = match kind {
        "Pod" => ("v1", &[][..]),
        "Job" => ("batch/v1", &["spec", "template"][..]),
        "CronJob" => ("batch/v1", &["spec", "jobTemplate", "spec", "template"][..]),
        _ => ("apps/v1", &["spec", "template"][..]),
    };
    let mut text = format!("apiVersion: {group}\nkind: {kind}\n");
    if !path.is_empty() {
        text.push_str("metadata:\n  name: orders\n  namespace: shop\n");
    }
    for (depth, key) in path.iter().enumerate() {
        text.push_str(&format!("{}{key}:\n", "  ".repeat(depth)));
    }
    let margin = "  ".repeat(path.len());
    text.push_str(&format!("{margin}metadata:\n"));
    if path.is_empty() {
        text.push_str("  name: orders\n  namespace: shop\n");
    }
    text.push_str(&format!("{margin}  annotations:\n"));
    for line in annotations.lines() {
        text.push_str(&format!("{margin}    svidecar.dev/{}\n", line.trim()));
    }
    text.push_str(&format!(
        "{margin}spec:\n{margin}  containers:\n{margin}  - name: app\n{margin}    image: app\n"
    ));
    text
}

const GOOD: &str = "inject: \"true\"\ninbound: 8443=8080\npolicy: orders-policy\noutbound: payments:9001=payments.shop.svc:8443\npeer.payments: spiffe://example.org/ns/shop/sa/payments";

fn injected(text: &str) -> String {
    with(text, &Options::default())
}

fn with(text: &str, options: &Options) -> String {
    match inject(&[("m.yaml", text)], options) {
        Ok(mut files) => files.remove(0).text,
        Err(found) => {
            let all: Vec<String> = found.iter().map(ToString::to_string).collect();
            panic!("{}\nin\n{text}", all.join("\n"))
        }
    }
}

fn removed(text: &str) -> String {
    with(
        text,
        &Options {
            remove: true,
            ..Options::default()
        },
    )
}

/// The documents of a text.
fn documents(text: &str) -> Vec<Node> {
    let mut findings = Findings::new("t", text);
    let all = chunks(text)
        .iter()
        .filter_map(|chunk| read::read(chunk, &mut findings))
        .collect();
    assert_eq!(findings.errors(), 0, "{text}");
    all
}

/// The pod template of a workload.
fn template(object: &Node) -> &Node {
    let kind = object.get("kind").and_then(Node::text).unwrap();
    let (_, path) = workload::KINDS.iter().find(|(name, _)| *name == kind).unwrap();
    object.at(path).unwrap()
}

fn names(list: Option<&Node>) -> Vec<&str> {
    let items = list.map_or(&[][..], Node::items);
    items
        .iter()
        .map(|item| item.get("name").and_then(Node::text).unwrap())
        .collect()
}

#[test]
fn every_kind_gets_the_same_sidecar_twice_is_once_and_removing_leaves_nothing() {
    let mut containers = Vec::new();
    for (kind, _) in workload::KINDS {
        let text = workload(kind, GOOD);
        let once = injected(&text);
        assert_eq!(injected(&once), once, "{kind}");
        let all = documents(&once);
        assert_eq!(all.len(), 2, "{kind}");
        assert_eq!(
            all[0]
                .at(&["metadata", "annotations", "svidecar.dev/for"])
                .unwrap()
                .text(),
            Some(format!("{kind}/orders").as_str())
        );
        let template = template(&all[1]);
        assert_eq!(names(template.at(&["spec", "initContainers"])), ["svidecar"]);
        assert_eq!(
            names(template.at(&["spec", "volumes"])),
            ["svidecar-spiffe", "svidecar-config", "svidecar-policy"]
        );
        containers.push(template.at(&["spec", "initContainers"]).unwrap().clone());
        assert_eq!(documents(&removed(&once)), documents(&text), "{kind}");
    }
    assert!(containers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_is_not_concerned_is_the_same_to_the_byte() {
    let other = "# a comment\napiVersion: v1\nkind:   Service\nmetadata: {name: a, annotations: {example.org/inject: 'true'}}\n--- # two\nkind: Deployment\napiVersion: apps/v1\nmetadata: {name: b}\nspec: {template: {spec: {containers: [{name: y, image: 010}]}}}\n...\n---\n# nothing\n--- {kind: Deployment, apiVersion: example.org/v1}\n";
    assert_eq!(injected(other), other);
    assert_eq!(removed(other), other);
    for empty in [
        "",
        "\n",
        "---\n",
        "---\n---\n",
        "# only\n",
        "[1, 2]\n",
        "text\n",
        "---",
    ] {
        assert_eq!(injected(empty), empty);
    }
    // A patch, as kustomize has them, and a directive.
    let patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: 3}\n";
    assert_eq!(injected(patch), patch);
    let directive = format!("%YAML 1.2\n---\n{patch}");
    assert_eq!(injected(&directive), directive);
    let said_no = workload("Deployment", "inject: \"false\"\ninbound: whatever");
    assert_eq!(injected(&said_no), said_no);
}

#[test]
fn documents_beside_a_workload_stay_where_they_are() {
    let service = "kind: Service # stays\napiVersion: v1\n";
    let text = format!(
        "---\n# head\n{service}---\n# of orders\n{}---\n{service}",
        workload("Job", GOOD)
    );
    let once = injected(&text);
    assert!(once.starts_with("---\n# head\nkind: Service # stays\n"), "{once}");
    assert!(
        once.contains("---\n# of orders\napiVersion: batch/v1\nkind: Job\n"),
        "{once}"
    );
    assert!(once.ends_with(&format!("---\n{service}")));
    assert_eq!(documents(&once).len(), 4);
    assert_eq!(injected(&once), once);
    // What was removed is written anew, without the quotes and comments it had.
    assert_eq!(documents(&removed(&once)), documents(&text));
}

#[test]
fn lists_hold_the_config_beside_the_workload() {
    let indented: String = workload("Deployment", GOOD)
        .lines()
        .enumerate()
        .map(|(index, line)| format!("{}{line}\n", if index == 0 { "- " } else { "  " }))
        .collect();
    let text = format!("apiVersion: v1\nkind: List\nitems:\n- kind: Service\n  apiVersion: v1\n{indented}");
    let once = injected(&text);
    let all = documents(&once);
    let kinds: Vec<_> = all[0]
        .get("items")
        .unwrap()
        .items()
        .iter()
        .map(|item| item.get("kind").unwrap().text().unwrap())
        .collect();
    assert_eq!(kinds, ["Service", "ConfigMap", "Deployment"]);
    assert_eq!(injected(&once), once);
    assert_eq!(documents(&removed(&once)), documents(&text));
}

#[test]
fn json_and_anchors_are_read() {
    let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","annotations":{"svidecar.dev/inject":"true","svidecar.dev/config":"own"}},"spec":{"containers":[{"name":"a","image":"a","args":["1","y"]}]}}"#;
    let once = injected(json);
    assert!(once.contains("    args:\n    - \"1\"\n    - \"y\"\n"), "{once}");
    let anchored = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: &l {app: a, tier: web}\n  annotations: {<<: *l, app: mine, svidecar.dev/inject: 'true', svidecar.dev/config: own}\nspec:\n  containers: []\n  nodeSelector: *l\n";
    let all = documents(&injected(anchored));
    let annotations = all[0].at(&["metadata", "annotations"]).unwrap();
    assert_eq!(annotations.get("app").unwrap().text(), Some("mine"));
    assert_eq!(annotations.get("tier").unwrap().text(), Some("web"));
    assert_eq!(
        all[0].at(&["spec", "nodeSelector", "app"]).unwrap().text(),
        Some("a")
    );
}

#[test]
fn what_is_no_yaml_for_kubernetes_is_refused_with_its_place() {
    let deep = "[".repeat(200);
    let bomb = format!(
        "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n{}",
        (1..9)
            .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(",")))
            .collect::<String>()
    );
    for (text, line, needle) in [
        ("a: b\n---\na: [\n", 4, "no YAML"),
        ("a: b\n---\nx: 1\nx: 2\n", 4, "`x` is here twice"),
        ("a: !secret b\n", 1, "tags"),
        ("? [a]\n: b\n", 1, "collection as a key"),
        ("a: &x [*x]\n", 1, "alias"),
        ("a: 1\n<<: 3\n", 2, "`<<` takes a mapping"),
        ("a: *unknown\n", 1, "no YAML"),
        (deep.as_str(), 1, ""),
        (bomb.as_str(), 6, "values"),
    ] {
        let found = inject(&[("m.yaml", text)], &Options::default()).unwrap_err();
        assert!(found[0].message.contains(needle), "{}", found[0]);
        if line != 4 || needle != "no YAML" {
            assert!(
                found[0].line >= 1 && found[0].line.abs_diff(line) <= 1,
                "{}",
                found[0]
            );
        }
    }
}
