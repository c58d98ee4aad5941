//! What changes when annotations, flags or the pod change after a first run.

use super::*;

#[test]
fn changed_annotations_and_flags_replace_what_was_put_in() {
    let once = injected(&workload("Deployment", GOOD));
    let changed = once
        .replace("8443=8080", "orders:9443=8080")
        .replace("9001=", "9002=");
    assert_ne!(changed, once);
    let again = with(
        &changed,
        &Options {
            image: "registry.example/svidecar:2".to_owned(),
            socket: "agent.sock".to_owned(),
            remove: false,
        },
    );
    let all = documents(&again);
    assert_eq!(all.len(), 2);
    let config = all[0].at(&["data", "svidecar.yaml"]).unwrap().text().unwrap();
    assert!(
        config.contains("0.0.0.0:9443") && config.contains("127.0.0.1:9002"),
        "{config}"
    );
    assert!(
        config.contains("unix:///spiffe-workload-api/agent.sock"),
        "{config}"
    );
    let sidecar = &template(&all[1]).at(&["spec", "initContainers"]).unwrap().items()[0];
    assert_eq!(
        sidecar.get("image").unwrap().text(),
        Some("registry.example/svidecar:2")
    );
    // Another config makes new pods; the same does not.
    let hash = |text: &str| {
        let all = documents(text);
        let hash = template(&all[1]).at(&["metadata", "annotations", "svidecar.dev/config-hash"]);
        hash.unwrap().text().unwrap().to_owned()
    };
    assert_ne!(hash(&once), hash(&again));
    assert_eq!(hash(&once), hash(&injected(&workload("Job", GOOD))));
}

#[test]
fn what_is_not_wanted_any_more_goes() {
    let once = injected(&workload("Deployment", GOOD));
    let own = once
        .replace("svidecar.dev/inbound: 8443=8080", "svidecar.dev/config: mine")
        .replace("        svidecar.dev/policy: orders-policy\n", "")
        .lines()
        .filter(|line| !line.contains("dev/outbound") && !line.contains("dev/peer"))
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    let all = documents(&injected(&own));
    assert_eq!(all.len(), 1, "the generated config is gone");
    let template = template(&all[0]);
    assert_eq!(
        names(template.at(&["spec", "volumes"])),
        ["svidecar-spiffe", "svidecar-config"]
    );
    assert!(
        template
            .at(&["metadata", "annotations", "svidecar.dev/config-hash"])
            .is_none()
    );
    // So does all of it where the answer is no.
    let no = once.replace("svidecar.dev/inject: \"true\"", "svidecar.dev/inject: \"false\"");
    assert_ne!(no, once);
    let all = documents(&injected(&no));
    assert_eq!(all.len(), 1);
    assert!(super::template(&all[0]).at(&["spec", "initContainers"]).is_none());
}

#[test]
fn the_sidecar_is_the_first_init_container_or_stands_where_it_was_put() {
    let text =
        workload("Deployment", GOOD) + "      initContainers:\n      - name: migrate\n        image: m\n";
    let once = injected(&text);
    let all = documents(&once);
    assert_eq!(
        names(template(&all[1]).at(&["spec", "initContainers"])),
        ["svidecar", "migrate"]
    );
    // Moved behind by a person, it stays there.
    let mut moved = all[1].clone();
    let path = ["spec", "template", "spec", "initContainers"];
    if let Some(Node::List(items)) = moved.at_mut(&path) {
        items.reverse();
    }
    let moved = format!("{}---\n{}", write(&all[0]), write(&moved));
    assert_eq!(injected(&moved), moved);
    assert_eq!(documents(&removed(&moved)), documents(&text));
}

#[test]
fn interception_comes_before_the_sidecar() {
    let text = workload(
        "Deployment",
        "inject: \"true\"\nconfig: mine\ntransparent: \"true\"",
    );
    let once = injected(&text);
    let all = documents(&once);
    assert_eq!(
        names(template(&all[0]).at(&["spec", "initContainers"])),
        ["svidecar-intercept", "svidecar"]
    );
    let plain = injected(&once.replace(
        "svidecar.dev/transparent: \"true\"",
        "svidecar.dev/transparent: \"false\"",
    ));
    assert_eq!(
        names(template(&documents(&plain)[0]).at(&["spec", "initContainers"])),
        ["svidecar"]
    );
    // And back again, before the one that is there.
    let back = injected(&plain.replace(
        "svidecar.dev/transparent: \"false\"",
        "svidecar.dev/transparent: \"true\"",
    ));
    assert_eq!(back, once);
    assert_eq!(documents(&removed(&once)), documents(&text));
}

#[test]
fn the_grace_period_covers_the_drain_and_comes_back() {
    let grace = |text: &str| {
        let all = documents(text);
        let grace = template(all.last().unwrap())
            .at(&["spec", "terminationGracePeriodSeconds"])
            .cloned();
        grace.map(|node| node.text().unwrap().to_owned())
    };
    for (own, drain, expected) in [
        (None, None, None),
        (None, Some("2m"), Some("125")),
        (Some("10"), None, Some("30")),
        (Some("60"), None, Some("60")),
        (Some("60"), Some("90s"), Some("95")),
    ] {
        let mut annotations = GOOD.to_owned();
        annotations.extend(drain.map(|drain| format!("\ndrain-timeout: {drain}")));
        let mut text = workload("Deployment", &annotations);
        text.extend(own.map(|own| format!("      terminationGracePeriodSeconds: {own}\n")));
        let once = injected(&text);
        assert_eq!(grace(&once).as_deref(), expected, "{own:?} {drain:?}");
        assert_eq!(injected(&once), once);
        assert_eq!(documents(&removed(&once)), documents(&text));
        // What a person says afterwards is theirs.
        if expected == Some("30") {
            let more = once.replace(
                "terminationGracePeriodSeconds: 30",
                "terminationGracePeriodSeconds: 300",
            );
            assert_eq!(grace(&injected(&more)).as_deref(), Some("300"));
        }
    }
}

#[test]
fn sockets_are_shared_with_the_application() {
    let annotations = "inject: \"true\"\ninbound: orders:8443=unix\npolicy: p\noutbound: payments:unix=payments.shop.svc:8443\npeer.payments: spiffe://example.org/payments";
    let text = workload("Deployment", annotations);
    let once = injected(&text);
    let all = documents(&once);
    let config = all[0].at(&["data", "svidecar.yaml"]).unwrap().text().unwrap();
    assert!(
        config.contains("upstream: unix:///run/svidecar/sockets/orders.sock"),
        "{config}"
    );
    assert!(
        config.contains("listen: unix:///run/svidecar/sockets/payments.sock"),
        "{config}"
    );
    let template = template(&all[1]);
    let application = &template.at(&["spec", "containers"]).unwrap().items()[0];
    assert_eq!(names(application.get("volumeMounts")), ["svidecar-sockets"]);
    assert!(names(template.at(&["spec", "volumes"])).contains(&"svidecar-sockets"));
    assert_eq!(injected(&once), once);
    assert_eq!(documents(&removed(&once)), documents(&text));
}

#[test]
fn memory_grows_with_connections() {
    for (connections, request, limit) in [
        (1, "8Mi", "48Mi"),
        (2000, "16Mi", "128Mi"),
        (10_000, "40Mi", "432Mi"),
    ] {
        assert_eq!(sidecar::memory_request(connections), request);
        assert_eq!(sidecar::memory_limit(connections), limit);
    }
    let text = injected(&workload("Pod", &format!("{GOOD}\nmax-connections: \"10000\"")));
    assert!(
        text.contains("memory: \"432Mi\"") || text.contains("memory: 432Mi"),
        "{text}"
    );
    assert!(text.contains("max_connections: 10000"), "{text}");
}

#[test]
fn a_config_of_ours_follows_a_workload_that_changes_its_kind() {
    let once = injected(&workload("Deployment", GOOD));
    let changed = once.replace("kind: Deployment", "kind: StatefulSet");
    let all = documents(&injected(&changed));
    assert_eq!(all.len(), 2);
    assert_eq!(
        all[0]
            .at(&["metadata", "annotations", "svidecar.dev/for"])
            .unwrap()
            .text(),
        Some("StatefulSet/orders")
    );
}

#[test]
fn a_config_of_ours_is_known_by_its_namespace_and_in_whatever_file() {
    let once = injected(&workload("Deployment", GOOD));
    let (config, deployment) = once.split_once("---\n").unwrap();
    // The Deployment of another namespace is another.
    let other = workload("Deployment", GOOD).replace("namespace: shop", "namespace: b");
    let all = documents(&injected(&format!("{config}---\n{other}")));
    assert_eq!(all.len(), 3);
    assert_eq!(all[0], documents(config)[0]);
    // Of two files, the config goes to where the workload is.
    let files = inject(&[("a", config), ("b", deployment)], &Options::default()).unwrap();
    assert_eq!(documents(&files[0].text), []);
    assert_eq!(files[1].text, once);
    assert_eq!(files[1].done, [("Deployment/orders".to_owned(), Done::PutIn)]);
}
