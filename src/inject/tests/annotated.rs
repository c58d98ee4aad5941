//! Bad annotations, each with what is said of it; and that what is made passes `svidecar check`.

use super::*;

fn refused(text: &str) -> String {
    let found = inject(&[("m.yaml", text)], &Options::default()).unwrap_err();
    found.iter().map(|finding| format!("{finding}\n")).collect()
}

#[test]
fn bad_annotations_are_refused_by_name_with_what_was_expected() {
    let base = "inject: \"true\"\npolicy: p";
    for (annotations, needles) in [
        (
            "inject: \"yes\"",
            &[
                "svidecar.dev/inject",
                "`yes` is neither",
                "`\"true\"` or `\"false\"`",
            ][..],
        ),
        (
            "inject: true",
            &["svidecar.dev/inject", "must be text", "put it in quotes"],
        ),
        ("inject: \"true\"", &["no listener", "svidecar.dev/inbound"]),
        ("inbound: 8443=8080", &["no `svidecar.dev/inject`"]),
        (
            "inject: \"true\"\ninbound: 8443=8080",
            &["`svidecar.dev/policy` is missing"],
        ),
        (
            "inject: \"true\"\ninbuond: 8443=8080",
            &[
                "no annotation `svidecar.dev/inbuond`",
                "did you mean `svidecar.dev/inbound`?",
            ],
        ),
        (
            "inject: \"true\"\npeer.: a",
            &["no annotation `svidecar.dev/peer.`"],
        ),
        (
            "BASE\ninbound: \"8443\"",
            &["`8443` has not the form", "orders:8443=8080"],
        ),
        ("BASE\ninbound: 8443", &["must be text"]),
        ("BASE\ninbound: \"\"", &["has no entry"]),
        ("BASE\ninbound: \"=8080\"", &["has not the form"]),
        ("BASE\ninbound: 70000=8080", &["`70000` is neither a port"]),
        ("BASE\ninbound: 0=8080", &["is neither a port"]),
        (
            "BASE\ninbound: Orders:8443=8080",
            &["`Orders` cannot be a listener's name"],
        ),
        ("BASE\ninbound: 8443=8080,9443=9090", &["each needs a name"]),
        (
            "BASE\ninbound: a:8443=1,a:9443=2",
            &["listener `a` is here twice"],
        ),
        ("BASE\ninbound: a:8443=1,b:8443=2", &["listens on"]),
        ("BASE\ninbound: a:15021=1", &["15021", "admin.probes"]),
        (
            "BASE\ninbound: \"a:8443=:::\"",
            &["the config made of its annotations would not do", "upstream"],
        ),
        ("BASE\ninbound: 8443=unix", &["write `NAME:PORT=unix`"]),
        (
            "BASE\ninbound: a:8443=unix:///app.sock",
            &["write `NAME:PORT=unix`"],
        ),
        ("BASE\noutbound: 9001=a:1", &["has no name before its port"]),
        (
            "BASE\noutbound: a:9001=a:1",
            &["`svidecar.dev/peer.a` is missing", "SPIFFE ID patterns"],
        ),
        (
            "BASE\noutbound: a:9001=a:1\npeer.a: payments",
            &["`payments` is no SPIFFE ID pattern"],
        ),
        ("BASE\noutbound: a:9001=a\npeer.a: spiffe://td/a", &["connect"]),
        (
            "BASE\noutbound: a:0.0.0.0:9001=a:1\npeer.a: spiffe://td/a",
            &["other machines"],
        ),
        (
            "BASE\ninbound: 8443=1\npeer.b: spiffe://td/a",
            &["svidecar.dev/peer.b", "has this name"],
        ),
        (
            "BASE\ninbound: 8443=1\nconfig: c",
            &["svidecar.dev/config", "excludes `svidecar.dev/inbound`"],
        ),
        (
            "inject: \"true\"\nconfig: C",
            &["`C` cannot be the name of a ConfigMap"],
        ),
        (
            "inject: \"true\"\npolicy: a_b\ninbound: 8443=1",
            &["`a_b` cannot be the name of a ConfigMap"],
        ),
        (
            "BASE\ninbound: 8443=1\ntransparent: \"true\"",
            &["svidecar.dev/transparent", "needs `svidecar.dev/config`"],
        ),
        (
            "BASE\ninbound: 8443=1\nimage: \"a b\"",
            &["svidecar.dev/image", "`a b` is none"],
        ),
        (
            "BASE\ninbound: 8443=1\nmax-connections: many",
            &["svidecar.dev/max-connections", "1 to 1000000"],
        ),
        ("BASE\ninbound: 8443=1\nmax-connections: \"0\"", &["`0` is none"]),
        ("BASE\ninbound: 8443=1\ndrain-timeout: 25", &["must be text"]),
        (
            "BASE\ninbound: 8443=1\ndrain-timeout: 1500ms",
            &["svidecar.dev/drain-timeout", "such as `25s`"],
        ),
        ("BASE\ninbound: 8443=1\ndrain-timeout: 2h", &["up to an hour"]),
    ] {
        let annotations = annotations.replace("BASE", base);
        let said = refused(&workload("Deployment", &annotations));
        for needle in needles {
            assert!(said.contains(needle), "{annotations}: no `{needle}` in\n{said}");
        }
        assert!(
            said.contains("m.yaml:") && said.contains("Deployment/orders"),
            "{said}"
        );
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_nothing_is_written() {
    let bad = workload("Deployment", "inject: \"true\"\ninbound: 8443\nimage: \"a b\"");
    let text = format!(
        "{bad}---\n{}",
        workload("Job", "inject: \"maybe\"").replace("orders", "other")
    );
    let said = refused(&text);
    for needle in ["svidecar.dev/inbound", "svidecar.dev/image", "Job/other"] {
        assert!(said.contains(needle), "{said}");
    }
    // The place is that of the whole file, not of the document.
    let line = text.lines().position(|line| line.contains("maybe")).unwrap() + 1;
    assert!(said.contains(&format!("m.yaml:{line}:")), "{said}");
}

#[test]
fn annotations_on_the_workload_itself_are_not_passed_over() {
    let text = workload("Deployment", "inject: \"false\"").replacen(
        "  namespace: shop\n",
        "  namespace: shop\n  annotations: {svidecar.dev/inject: \"true\"}\n",
        1,
    );
    assert!(
        refused(&text)
            .contains("move it to the annotations of the pods: `spec.template.metadata.annotations`")
    );
}

#[test]
fn annotations_that_nobody_reads_are_not_passed_over() {
    let between = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec:\n  jobTemplate:\n    metadata:\n      annotations: {svidecar.dev/inject: \"true\"}\n    spec: {template: {spec: {containers: []}}}\n";
    let said = refused(between);
    for needle in [
        "m.yaml:7:",
        "`spec.jobTemplate.metadata.annotations`",
        "`spec.jobTemplate.spec.template.metadata.annotations`",
    ] {
        assert!(said.contains(needle), "{said}");
    }
    let label = workload("Deployment", "inject: \"false\"").replacen(
        "    metadata:\n",
        "    metadata:\n      labels: {svidecar.dev/inject: \"true\"}\n",
        1,
    );
    assert!(refused(&label).contains("`spec.template.metadata.labels`"));
    for (group, kind) in [
        ("argoproj.io/v1alpha1", "Rollout"),
        ("v1", "ReplicationController"),
        ("apps.openshift.io/v1", "DeploymentConfig"),
        // A name that we know, of somebody else.
        ("example.org/v1", "Deployment"),
    ] {
        let text = workload("Deployment", GOOD)
            .replace("kind: Deployment", &format!("kind: {kind}"))
            .replace("apps/v1", group);
        let said = refused(&text);
        let expected = format!(
            "{kind}/orders: has `svidecar.dev/inject` in `spec.template.metadata.annotations`, but `{kind}` of `{group}`"
        );
        assert!(said.contains(&expected), "{said}");
        // What is not put in need not be taken out.
        assert_eq!(removed(&text), text);
    }
}

#[test]
fn what_has_our_names_and_is_not_ours_is_not_overwritten() {
    let text = workload("Deployment", GOOD);
    for (more, needle) in [
        (
            "      initContainers: [{name: svidecar, image: mine}]\n",
            "`initContainers` has a `svidecar`",
        ),
        (
            "      volumes: [{name: svidecar-config, emptyDir: {}}]\n",
            "`volumes` has a `svidecar-config`",
        ),
    ] {
        assert!(refused(&format!("{text}{more}")).contains(needle));
        // Nor taken out.
        let removed = removed(&format!("{text}{more}"));
        assert_eq!(removed, format!("{text}{more}"));
    }
    assert!(refused(&text.replace("- name: app", "- name: svidecar")).contains("names are unique"));
    let foreign = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: orders-svidecar, namespace: shop}\n";
    assert!(refused(&format!("{text}---\n{foreign}")).contains("which something else is already"));
    let twins = format!("{text}---\n{}", workload("CronJob", GOOD));
    assert!(refused(&twins).contains("which something else is already"));
    // In another file just so, since both are applied; but not the same workload in two.
    let files = |texts: &[&str]| {
        let files: Vec<(&str, &str)> = ["a.yaml", "b.yaml"]
            .into_iter()
            .zip(texts.iter().copied())
            .collect();
        inject(&files, &Options::default())
            .map_err(|found| found.iter().map(ToString::to_string).collect::<String>())
    };
    let job = workload("CronJob", GOOD);
    for second in [job.as_str(), foreign] {
        let said = files(&[&text, second]).unwrap_err();
        assert!(
            said.contains("which something else is already")
                && said.contains("a.yaml")
                && said.contains("b.yaml"),
            "{said}"
        );
    }
    assert_eq!(files(&[&text, &text]).unwrap()[1].text, injected(&text));
    assert!(files(&[&text, &job.replace("namespace: shop", "namespace: b")]).is_ok());
    let empty = text.split("    spec:\n").next().unwrap();
    assert!(refused(empty).contains("no `spec.template.spec`"));
    let nameless = text.replacen("  name: orders\n", "  generateName: orders-\n", 1);
    assert!(refused(&nameless).contains("has no name"));
}

#[test]
fn what_is_generated_is_a_good_config() {
    for annotations in [
        GOOD,
        "inject: \"true\"\npolicy: p\ninbound: \"orders:8443=127.0.0.1:8080, metrics:9443=metrics, a:[::]:1=unix\"",
        "inject: \"true\"\noutbound: |\n  a:9001=a.b.svc:1,\n  b:unix=10.0.0.1:2\npeer.a: \"spiffe://td/x, spiffe://td/y/*\"\npeer.b: spiffe://td/**\nmax-connections: \"1\"\ndrain-timeout: 1m",
    ] {
        let indented = annotations.replace("\n  ", "\n__");
        let mut text = workload("Deployment", &indented);
        text = text.replace("svidecar.dev/__", "  ");
        let all = documents(&injected(&text));
        let config = all[0].at(&["data", "svidecar.yaml"]).unwrap().text().unwrap();
        let nowhere = crate::config::Environment {
            endpoint_socket: None,
            cores: 1,
        };
        let (settings, warnings) =
            crate::config::check(config, "c", std::path::Path::new("/c"), &nowhere).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert!(!settings.listeners.is_empty());
    }
}

#[test]
fn the_manual_has_each_annotation_and_no_other() {
    let manual = include_str!("../../../docs/inject.md");
    let rows: Vec<&str> = manual
        .lines()
        .filter(|line| line.starts_with("| `svidecar.dev/"))
        .collect();
    let mut known: Vec<String> = annotations::WANTED
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    known.extend(annotations::LEFT_BY_US.iter().map(|name| (*name).to_owned()));
    known.push(config::FOR.to_owned());
    for name in &known {
        let shown = if name == annotations::PEER {
            "peer.NAME"
        } else {
            name
        };
        let row = format!("| `svidecar.dev/{shown}` |");
        assert_eq!(
            rows.iter().filter(|line| line.starts_with(&row)).count(),
            1,
            "{row}"
        );
    }
    assert_eq!(rows.len(), known.len(), "{rows:#?}");
    for number in [
        format!("`{}`", annotations::DEFAULT_MAX_CONNECTIONS),
        format!("`{}s`", annotations::DEFAULT_DRAIN_SECONDS),
        format!("`{}`", sidecar::PROBES_PORT),
        sidecar::memory_request(annotations::DEFAULT_MAX_CONNECTIONS),
        sidecar::memory_limit(annotations::DEFAULT_MAX_CONNECTIONS),
    ] {
        assert!(manual.contains(&number), "{number}");
    }
}

#[test]
fn pods_of_ipv6_get_listeners_and_probes_that_are_reached() {
    let text = injected(&workload("Deployment", &format!("{GOOD}\nipv6: \"true\"")));
    let all = documents(&text);
    let config = all[0].at(&["data", "svidecar.yaml"]).unwrap().text().unwrap();
    for needle in [
        "listen: \"[::]:8443\"",
        "probes: \"[::]:15021\"",
        "listen: \"127.0.0.1:9001\"",
    ] {
        assert!(config.contains(needle), "{config}");
    }
}

#[test]
fn volumes_of_the_pod_are_mounted_and_no_others() {
    let volumes = "      volumes: [{name: audit, emptyDir: {}}]\n";
    let with = |mounts: &str| workload("Deployment", &format!("{GOOD}\nmounts: {mounts}")) + volumes;
    let once = injected(&with("audit:/var/log/svidecar"));
    assert_eq!(injected(&once), once);
    let all = documents(&once);
    let mounts = template(&all[1]).at(&["spec", "initContainers"]).unwrap().items()[0].get("volumeMounts");
    let last = mounts.unwrap().items().last().unwrap();
    assert_eq!(last.get("name").unwrap().text(), Some("audit"));
    assert_eq!(last.get("mountPath").unwrap().text(), Some("/var/log/svidecar"));
    assert!(last.get("readOnly").is_none());
    for (mounts, needle) in [
        ("log:/var/log", "no volume `log` of their own"),
        ("svidecar-spiffe:/x", "no volume `svidecar-spiffe` of their own"),
        ("audit", "`audit` is none"),
        ("audit:var", "`audit:var` is none"),
        ("audit:/", "`audit:/` is none"),
        ("audit:/a/../etc", "is none"),
        ("audit:/etc/svidecar", "`/etc/svidecar` is taken"),
        ("audit:/etc/svidecar/policy/x", "is taken"),
        ("audit:/a, audit:/a/", "`/a` is taken"),
    ] {
        assert!(
            refused(&with(mounts)).contains(needle),
            "{mounts}: {}",
            refused(&with(mounts))
        );
    }
}
