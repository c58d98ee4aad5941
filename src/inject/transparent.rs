//! What a pod must not have when its connections are redirected: a network that is not its own, an application that is
//! taken for the sidecar, and probes that the kubelet could only make with an identity.

use super::annotations::{EXCLUDE_INBOUND_PORTS, INCLUDE_INBOUND_PORTS, PREFIX, TRANSPARENT, Wanted};
use super::sidecar::CONTAINERS;
use super::tree::Node;
use crate::intercept::SIDECAR_USER;
use crate::yaml::Findings;

/// Where the kubelet may be told to connect to a container.
const BY_THE_KUBELET: &[&[&str]] = &[
    &["startupProbe"],
    &["livenessProbe"],
    &["readinessProbe"],
    &["lifecycle", "postStart"],
    &["lifecycle", "preStop"],
];

/// Finds fault with pods whose connections cannot be redirected.
pub(super) fn refuse(template: &Node, wanted: &Wanted, workload: &str, findings: &mut Findings) {
    if !wanted.transparent {
        return;
    }
    let spec = |path: &[&str]| template.get("spec").and_then(|spec| spec.at(path));
    if spec(&["hostNetwork"]).and_then(Node::text) == Some("true") {
        let message = format!(
            "{workload}: `{PREFIX}{TRANSPARENT}` with `hostNetwork: true` would redirect the connections of the whole node, \
             for good"
        );
        let help = "take `hostNetwork` out, or have the application call explicit listeners";
        findings.error_with_help(wanted.place, message, help);
    }
    let all = ["initContainers", "containers"]
        .into_iter()
        .filter_map(|list| spec(&[list]))
        .flat_map(Node::items);
    let containers: Vec<(&str, &Node)> = all
        .map(|container| {
            let name = container.get("name").and_then(Node::text);
            (name.unwrap_or_default(), container)
        })
        .filter(|(name, _)| !CONTAINERS.contains(name))
        .collect();
    let users = containers
        .iter()
        .map(|(name, container)| (format!("container `{name}`"), Some(*container)))
        .chain([("the pod".to_owned(), template.get("spec"))]);
    for (who, node) in users {
        let user = node.and_then(|node| node.at(&["securityContext", "runAsUser"]));
        if user.and_then(Node::text).and_then(|user| user.parse().ok()) == Some(SIDECAR_USER) {
            let message = format!(
                "{workload}: {who} runs as user {SIDECAR_USER}, which is the sidecar's: what it calls would go out \
                 unprotected"
            );
            findings.error_with_help(wanted.place, message, "give it another `runAsUser`");
        }
    }
    for (name, container) in containers {
        for path in BY_THE_KUBELET {
            let Some(port) = container.at(path).and_then(|probe| dialled(probe, container)) else {
                continue;
            };
            if is_left_out(&port, wanted) {
                continue;
            }
            let message = format!(
                "{workload}: the kubelet calls port {port} of container `{name}` ({}), and has no identity: where a \
                 listener takes the port it is refused",
                path.join(".")
            );
            let help = format!(
                "give it a port of its own and name that in `{PREFIX}{EXCLUDE_INBOUND_PORTS}`, which does no harm where no \
                 listener takes it, or have it run a command (`exec`)"
            );
            findings.error_with_help(wanted.place, message, help);
        }
    }
}

/// The port of the pod that a probe connects to, by its number if it can be told.
fn dialled(probe: &Node, container: &Node) -> Option<String> {
    let call = ["httpGet", "tcpSocket", "grpc"]
        .iter()
        .find_map(|how| probe.get(how))?;
    if call.get("host").is_some() {
        // Not the pod's, and none that rules of the pod concern.
        return None;
    }
    let port = call.get("port").and_then(Node::text)?;
    let named = container.get("ports").map_or(&[][..], Node::items);
    let number = named
        .iter()
        .find(|one| one.get("name").and_then(Node::text) == Some(port))
        .and_then(|one| one.get("containerPort"))
        .and_then(Node::text);
    Some(number.unwrap_or(port).to_owned())
}

/// Whether what comes to a port is not redirected, whatever the config says.
fn is_left_out(port: &str, wanted: &Wanted) -> bool {
    let said = |name: &str| {
        let found = wanted.redirection.iter().find(|(option, _)| *option == name);
        found.map(|(_, ports)| ports.iter().any(|one| one == port))
    };
    said(EXCLUDE_INBOUND_PORTS) == Some(true) || said(INCLUDE_INBOUND_PORTS) == Some(false)
}
