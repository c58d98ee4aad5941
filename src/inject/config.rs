//! The config file of a sidecar, made of a workload's annotations, and the ConfigMap that holds it.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::annotations::{Inbound, Outbound, PREFIX, Wanted};
use super::sidecar::{POLICY_FOLDER, PROBES_PORT, WORKERS};
use super::tree::{Node, map, texts};
use super::write::write;

/// The key of the ConfigMap that is the config file.
pub const CONFIG_KEY: &str = "svidecar.yaml";
/// The label by which ConfigMaps of ours are known.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "svidecar-inject");
/// The annotation that says whose config it is, without the prefix.
pub const FOR: &str = "for";

/// The text of the config file. `workload` names the inbound listener that has no name.
pub(super) fn text(
    wanted: &Wanted,
    inbound: &[Inbound],
    outbound: &[Outbound],
    workload: &str,
    socket: &str,
) -> String {
    let mut config = map([("identity", map([("socket", format!("unix://{socket}").into())]))]);
    if wanted.policy.is_some() {
        config.set("policy", map([("path", POLICY_FOLDER.into())]));
    }
    if !inbound.is_empty() {
        let entries = inbound.iter().map(|listener| {
            let name = listener.name.as_deref().unwrap_or(workload);
            let target = match listener.target.as_str() {
                own @ ("metrics" | "admin") => ("serve", own.into()),
                other => ("upstream", other.into()),
            };
            map([
                ("name", name.into()),
                ("listen", listener.listen.as_str().into()),
                target,
            ])
        });
        config.set("inbound", Node::List(entries.collect()));
    }
    if !outbound.is_empty() {
        let entries = outbound.iter().map(|listener| {
            map([
                ("name", listener.name.as_str().into()),
                ("listen", listener.listen.as_str().into()),
                ("connect", listener.connect.as_str().into()),
                ("peer", texts(&listener.peer)),
            ])
        });
        config.set("outbound", Node::List(entries.collect()));
    }
    config.set(
        "limits",
        map([
            ("max_connections", wanted.max_connections.into()),
            ("drain_timeout", format!("{}s", wanted.drain_seconds).into()),
        ]),
    );
    config.set("workers", WORKERS.into());
    config.set(
        "admin",
        map([
            ("listen", "127.0.0.1:15000".into()),
            ("probes", format!("{}:{PROBES_PORT}", wanted.any()).into()),
        ]),
    );
    write(&config)
}

/// The ConfigMap of a config, for the workload of this kind and name.
pub(super) fn config_map(name: &str, namespace: Option<&Node>, workload: &str, text: &str) -> Node {
    let mut metadata = map([("name", name.into())]);
    if let Some(namespace) = namespace {
        metadata.set("namespace", namespace.clone());
    }
    metadata.set("labels", map([(MANAGED_BY.0, MANAGED_BY.1.into())]));
    metadata.set(
        "annotations",
        map([(format!("{PREFIX}{FOR}").as_str(), workload.into())]),
    );
    map([
        ("apiVersion", "v1".into()),
        ("kind", "ConfigMap".into()),
        ("metadata", metadata),
        ("data", map([(CONFIG_KEY, text.into())])),
    ])
}

/// What tells one config from another: the beginning of its SHA-256.
pub(super) fn hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    HEXLOWER.encode(hash.as_ref().get(..8).unwrap_or_default())
}

/// The workload whose config a ConfigMap of ours is; `None` for every other object.
pub(super) fn is_for(object: &Node) -> Option<&str> {
    let is_ours = object.get("kind").and_then(Node::text) == Some("ConfigMap")
        && object
            .at(&["metadata", "labels", MANAGED_BY.0])
            .and_then(Node::text)
            == Some(MANAGED_BY.1);
    let workload = object.at(&["metadata", "annotations", &format!("{PREFIX}{FOR}")]);
    workload.filter(|_| is_ours).and_then(Node::text)
}
