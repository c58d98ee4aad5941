//! The Helm chart: the same sidecar as the injector's, from the same settings.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::support::process::{output_of, try_output_of};
use super::support::{on_path, skip};
use super::{injected, objects, of_kind, ours, pod_spec, repository, restricted, schemas, shipped};

const A_WHILE: Duration = Duration::from_secs(60);

fn helm(arguments: &[&str]) -> Option<Result<String, String>> {
    if !on_path("helm") {
        skip("the Helm chart: no helm on PATH");
        return None;
    }
    let mut command = Command::new("helm");
    // A helm that was not built by its makefile takes a Kubernetes of long ago for granted.
    command
        .args(["template", arguments[0]])
        .arg(repository("deploy/helm/svidecar"))
        .args(["--namespace", "shop", "--kube-version", "1.33.0"]);
    Some(try_output_of(command.args(&arguments[1..]), A_WHILE))
}

/// What the chart renders of one of its example values.
fn rendered(name: &str) -> Option<String> {
    let values = repository(&format!("deploy/helm/svidecar/ci/{name}-values.yaml"));
    Some(helm(&[name, "--values", values.to_str().unwrap()])?.unwrap())
}

/// The workload that says by annotations what an example's values say.
fn annotated(name: &str) -> String {
    let annotations = match name {
        "orders" => "inbound: orders:8443=8080\npolicy: orders-policy",
        "storefront" => {
            "inbound: page:8443=8080,metrics:9443=metrics\npolicy: storefront-policy\noutbound: orders:9001=orders.shop.svc.cluster.local:8443\npeer.orders: spiffe://example.org/ns/shop/sa/orders\nmax-connections: \"10000\"\ndrain-timeout: 60s\nipv6: \"true\"\nmounts: audit:/var/log/svidecar"
        }
        other => panic!("{other}"),
    };
    let annotations: String = annotations
        .lines()
        .map(|line| format!("        svidecar.dev/{line}\n"))
        .collect();
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  template:\n    metadata:\n      annotations:\n        svidecar.dev/inject: \"true\"\n{annotations}    spec:\n      containers: []\n      volumes: [{{name: audit, emptyDir: {{}}}}]\n"
    )
}

#[test]
fn chart_and_injector_make_the_same_container_volumes_and_config() {
    for name in ["orders", "storefront"] {
        let Some(text) = rendered(name) else { return };
        let (charted, made) = (objects(&text), objects(&injected(&annotated(name))));
        let pod = |all: &[Value]| pod_spec(of_kind(all, "Deployment")[0]).unwrap().clone();
        assert_eq!(ours(&pod(&charted)), ours(&pod(&made)), "{name}");
        // The application starts after the sidecar is ready.
        assert_eq!(pod(&charted)["initContainers"].as_array().unwrap().len(), 1);
        let config = |all: &[Value]| -> (String, Value) {
            let maps = of_kind(all, "ConfigMap");
            let map = maps
                .iter()
                .find(|map| map["metadata"]["name"] == format!("{name}-svidecar"))
                .unwrap();
            let text = map["data"]["svidecar.yaml"].as_str().unwrap().to_owned();
            let read = serde_saphyr::from_str(&text).unwrap();
            (text, read)
        };
        let (text, read) = config(&charted);
        assert_eq!(read, config(&made).1, "{name}");
        shipped::check(&text, &charted);
        let grace = |all: &[Value]| pod(all)["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        assert_eq!(grace(&charted), grace(&made), "{name}");
        assert_eq!(restricted::violations(&pod(&charted)), Vec::<String>::new());
    }
}

#[test]
fn what_the_chart_renders_is_what_kubernetes_takes() {
    for name in ["orders", "storefront"] {
        let Some(text) = rendered(name) else { return };
        schemas::validate(&[(name.to_owned(), text)]);
    }
}

#[test]
fn values_that_would_not_do_are_refused() {
    let good = [
        "a",
        "--set",
        "application.image=a,sidecar.outbound[0].name=b,sidecar.outbound[0].port=9001,sidecar.outbound[0].connect=b:1,sidecar.outbound[0].peer[0]=spiffe://td/b",
    ];
    let Some(result) = helm(&good) else { return };
    result.unwrap();
    for (more, needle) in [
        ("sidecar.outbound[0].peer=null", "peer"),
        ("sidecar.outbound[0].port=0", "port"),
        ("sidecar.outbond[0].port=1", "outbond"),
        ("application.image=", "application.image"),
        ("sidecar.outbound=null", "no listener"),
        (
            "sidecar.inbound[0].name=x,sidecar.inbound[0].port=1,sidecar.inbound[0].target=a:1",
            "nobody is let in without a policy",
        ),
        (
            "sidecar.policy.configMap=a,sidecar.policy.rules[0].name=b",
            "exclude each other",
        ),
        ("sidecar.drainSeconds=0", "drainSeconds"),
        ("sidecar.config.limits.idle=1s", "is made of the other values"),
    ] {
        let error = helm(&[&good[..], &["--set", more]].concat())
            .unwrap()
            .unwrap_err();
        assert!(error.contains(needle), "{more}: {error}");
    }
    // What no value says can be written into the config.
    let more = helm(&[&good[..], &["--set", "sidecar.config.audit.file=/a/b"]].concat());
    let all = objects(&more.unwrap().unwrap());
    let config = all
        .iter()
        .find_map(|object| object["data"]["svidecar.yaml"].as_str());
    let config: Value = serde_saphyr::from_str(config.unwrap()).unwrap();
    assert_eq!(config["audit"]["file"], "/a/b");
    // Off, it installs nothing and needs nothing.
    let nothing = helm(&["a", "--set", "application.enabled=false"])
        .unwrap()
        .unwrap();
    assert_eq!(objects(&nothing), Vec::<Value>::new());
}

#[test]
fn the_chart_is_good_to_its_own_tool_and_has_our_version() {
    let chart = std::fs::read_to_string(repository("deploy/helm/svidecar/Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        chart.contains(&format!("\nversion: {version}\nappVersion: {version}\n")),
        "{chart}"
    );
    let values = std::fs::read_to_string(repository("deploy/helm/svidecar/values.yaml")).unwrap();
    assert!(values.contains(&format!("image: svidecar:{version}\n")));
    if !on_path("helm") {
        skip("the Helm chart: no helm on PATH");
        return;
    }
    for name in ["orders", "storefront"] {
        let values = repository(&format!("deploy/helm/svidecar/ci/{name}-values.yaml"));
        let mut command = Command::new("helm");
        command
            .args(["lint", "--strict", "--kube-version", "1.33.0", "--values"])
            .arg(values);
        output_of(command.arg(repository("deploy/helm/svidecar")), A_WHILE);
    }
}
