//! What is redirected, what is left out, and which pods cannot be redirected.

use super::*;

const WANTED: &str = "inject: \"true\"\nconfig: mine\ntransparent: \"true\"";

fn refused(text: &str) -> String {
    let found = inject(&[("m.yaml", text)], &Options::default()).unwrap_err();
    found.iter().map(|finding| format!("{finding}\n")).collect()
}

/// The pods' `spec` has this besides.
fn pods(annotations: &str, more: &str) -> String {
    let mut text = workload("Deployment", &format!("{WANTED}\n{annotations}"));
    for line in more.lines() {
        text.push_str(&format!("      {line}\n"));
    }
    text
}

#[test]
fn options_become_arguments_and_the_sidecar_is_a_user_of_its_own() {
    let text = pods(
        "exclude-outbound-ports: \"53, 22\"\nexclude-networks: 10.96.0.1,fd00::/8\nexclude-inbound-ports: \"8081\"",
        "",
    );
    let once = injected(&text);
    assert_eq!(injected(&once), once);
    let all = documents(&once);
    let containers = template(&all[0]).at(&["spec", "initContainers"]).unwrap().items();
    let args: Vec<_> = containers[0]
        .get("args")
        .unwrap()
        .items()
        .iter()
        .skip(3)
        .collect();
    let args: Vec<_> = args.iter().map(|arg| arg.text().unwrap()).collect();
    assert_eq!(
        args,
        [
            "--apply",
            "--uid=15065",
            "--exclude-outbound-ports=53,22",
            "--exclude-inbound-ports=8081",
            "--exclude-networks=10.96.0.1,fd00::/8"
        ]
    );
    for id in ["runAsUser", "runAsGroup"] {
        let id = containers[1].at(&["securityContext", id]).unwrap();
        assert_eq!(id.text(), Some("15065"));
    }
}

#[test]
fn pods_that_cannot_be_redirected_are_refused() {
    let probed =
        "  readinessProbe: {httpGet: {path: /, port: web}}\n  ports: [{name: web, containerPort: 8080}]";
    for (annotations, more, needle) in [
        ("", "hostNetwork: true", "of the whole node"),
        (
            "",
            "securityContext: {runAsUser: 15065}",
            "the pod runs as user 15065",
        ),
        (
            "",
            "  securityContext: {runAsUser: 15065}",
            "container `app` runs as user 15065",
        ),
        ("", probed, "calls port 8080 of container `app` (readinessProbe)"),
        ("include-inbound-ports: \"8080\"", probed, "calls port 8080"),
        ("", "  livenessProbe: {tcpSocket: {port: 9}}", "calls port 9 "),
        (
            "",
            "  lifecycle: {preStop: {httpGet: {port: 9}}}",
            "(lifecycle.preStop)",
        ),
        ("exclude-inbound-ports: \"0\"", "", "`0` is none"),
        ("exclude-inbound-ports: \"\"", "", "has no entry"),
        ("exclude-networks: host", "", "`host` is none"),
    ] {
        // What is indented belongs to the container, which comes last in what is made here.
        let said = refused(&pods(annotations, more));
        assert!(said.contains(needle), "{annotations} {more}: {said}");
    }
    for (annotations, more) in [
        ("exclude-inbound-ports: \"8080\"", probed),
        ("include-inbound-ports: \"80\"", probed),
        ("", "  livenessProbe: {exec: {command: [ok]}}"),
        ("", "hostNetwork: false\nsecurityContext: {runAsUser: 65532}"),
    ] {
        injected(&pods(annotations, more));
    }
    let plain = workload("Deployment", &format!("{GOOD}\nexclude-inbound-ports: \"1\""));
    assert!(refused(&plain).contains("does nothing without `svidecar.dev/transparent"));
}
