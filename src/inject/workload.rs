//! One object: where its pods are described, and what is put in, brought up to date, or taken out there.

use super::annotations::{self, CONFIG_HASH, GRACE_RAISED, INJECTED, PREFIX, Source, Wanted};
use super::sidecar::{self, CONTAINERS, DEFAULT_GRACE_SECONDS, MARGIN_SECONDS, SOCKETS_VOLUME, VOLUMES};
use super::tree::Node;
use super::{Done, Options, config};
use crate::config::{Environment, check};
use crate::yaml::{Findings, Place};

/// The kinds that describe pods, each with where in it.
pub const KINDS: &[(&str, &[&str])] = &[
    ("Pod", &[]),
    ("Deployment", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("ReplicaSet", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
];
const GROUPS: &[&str] = &["v1", "apps/v1", "batch/v1"];

/// What became of one object.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Whether it is a workload; `Deployment/orders`.
    pub workload: Option<String>,
    /// The ConfigMap that stands before it.
    pub config_map: Option<Node>,
    /// Whether a sidecar was put in or taken out.
    pub done: Option<Done>,
}

/// Injects into one object, or takes out of it. Objects that describe no pods are left alone.
pub(super) fn process(object: &mut Node, options: &Options, findings: &mut Findings) -> Outcome {
    let text = |key: &str| object.get(key).and_then(Node::text);
    let (kind, group) = (
        text("kind").unwrap_or_default(),
        text("apiVersion").unwrap_or_default(),
    );
    let known = KINDS.iter().find(|(name, _)| *name == kind);
    let Some((kind, path)) = known.filter(|_| GROUPS.contains(&group)) else {
        if !options.remove && config::is_for(object).is_none() {
            annotations::refuse_unknown(object, kind, group, findings);
        }
        return Outcome::default();
    };
    let name_node = object.at(&["metadata", "name"]);
    let name = name_node.and_then(Node::text).map(str::to_owned);
    let namespace = object.at(&["metadata", "namespace"]).cloned();
    let workload = format!("{kind}/{}", name.as_deref().unwrap_or("?"));
    let place = place_of(object.entry("kind").map(|(key, _)| key.place));
    if !options.remove {
        annotations::refuse_misplaced(object, path, &workload, findings);
    }
    let mut outcome = Outcome {
        workload: Some(workload.clone()),
        ..Outcome::default()
    };
    let Some(template) = object.at_mut(path) else {
        // A patch of something else, such as the number of replicas.
        return Outcome::default();
    };
    if template.get("spec").is_none() {
        if annotations::has_any(template.at(&["metadata", "annotations"])) {
            let spec = path
                .iter()
                .chain(&["spec"])
                .copied()
                .collect::<Vec<_>>()
                .join(".");
            let message = format!("{workload}: has annotations of ours, but no `{spec}` to put a sidecar in");
            findings.error(place, message);
        }
        return Outcome::default();
    }
    let marked = annotation(template, INJECTED).is_some();
    let before = findings.errors();
    let wanted = match options.remove {
        true => None,
        false => annotations::read(template.at(&["metadata", "annotations"]), &workload, findings),
    };
    if findings.errors() > before {
        return outcome;
    }
    match wanted {
        Some(wanted) => {
            super::transparent::refuse(template, &wanted, &workload, findings);
            if name.is_none() && matches!(wanted.source, Source::Listeners(..)) {
                let message = format!("{workload}: has no name, and its config would have none");
                findings.error_with_help(place, message, "give it a `metadata.name`");
            }
            let name = name.unwrap_or_default();
            if !marked {
                refuse_foreign(template, &workload, place, findings);
            }
            refuse_missing_volumes(template, &wanted, &workload, findings);
            let made = made(&wanted, &workload, &name, options, findings);
            if findings.errors() == before {
                let map_name = match &wanted.source {
                    Source::Own(own) => own.clone(),
                    Source::Listeners(..) => format!("{name}-svidecar"),
                };
                put_in(template, &wanted, options, &map_name, made.as_deref());
                outcome.done = Some(Done::PutIn);
                outcome.config_map =
                    made.map(|text| config::config_map(&map_name, namespace.as_ref(), &workload, &text));
            }
        }
        None if marked => {
            take_out(template);
            outcome.done = Some(Done::TakenOut);
        }
        None => {}
    }
    outcome
}

fn place_of(place: Option<Place>) -> Place {
    place.unwrap_or_default()
}

fn annotation<'n>(template: &'n Node, name: &str) -> Option<&'n str> {
    let annotations = template.at(&["metadata", "annotations"])?;
    annotations.get(&format!("{PREFIX}{name}"))?.text()
}

/// What has our names already, and is not marked as ours, would be overwritten.
fn refuse_foreign(template: &Node, workload: &str, place: Place, findings: &mut Findings) {
    for (list, names) in [("initContainers", CONTAINERS), ("volumes", VOLUMES)] {
        let items = template.at(&["spec", list]).map_or(&[][..], Node::items);
        for item in items {
            let name = item.get("name").and_then(Node::text).unwrap_or_default();
            if names.contains(&name) {
                let message =
                    format!("{workload}: `{list}` has a `{name}` that `svidecar inject` did not put there");
                let help = format!("take it out, or say `{PREFIX}inject: \"false\"` and keep it as it is");
                findings.error_with_help(place, message, help);
            }
        }
    }
    let containers = template.at(&["spec", "containers"]).map_or(&[][..], Node::items);
    for item in containers {
        let name = item.get("name").and_then(Node::text).unwrap_or_default();
        if CONTAINERS.contains(&name) {
            let message =
                format!("{workload}: `containers` has a `{name}` already, and names are unique in a pod");
            findings.error_with_help(place, message, "give that container another name, or take it out");
        }
    }
}

/// A mount of what is no volume of the pod would be refused by the API server, or would be one of ours.
fn refuse_missing_volumes(template: &Node, wanted: &Wanted, workload: &str, findings: &mut Findings) {
    let volumes = template.at(&["spec", "volumes"]).map_or(&[][..], Node::items);
    for (name, _) in &wanted.mounts {
        let is_there = |volume: &Node| volume.get("name").and_then(Node::text) == Some(name);
        if VOLUMES.contains(&name.as_str()) || !volumes.iter().any(is_there) {
            let message = format!(
                "{workload}: `{PREFIX}{}`: the pods have no volume `{name}` of their own",
                annotations::MOUNTS
            );
            let help = "write it in the `volumes` of the pod template, for instance as an `emptyDir`";
            findings.error_with_help(wanted.place, message, help);
        }
    }
}

/// The config made of annotations, which `svidecar check` passes; `None` where there is one already, or with findings.
fn made(
    wanted: &Wanted,
    workload: &str,
    name: &str,
    options: &Options,
    findings: &mut Findings,
) -> Option<String> {
    let Source::Listeners(inbound, outbound) = &wanted.source else {
        return None;
    };
    let text = config::text(wanted, inbound, outbound, name, &options.socket_path());
    let nowhere = Environment {
        endpoint_socket: None,
        cores: 1,
    };
    match check(
        &text,
        config::CONFIG_KEY,
        sidecar::CONFIG_FOLDER.as_ref(),
        &nowhere,
    ) {
        Ok(_) => Some(text),
        Err(found) => {
            for finding in found.iter().filter(|finding| finding.is_error()) {
                let message = format!(
                    "{workload}: the config made of its annotations would not do: {}",
                    finding.message
                );
                let help = finding
                    .help
                    .clone()
                    .unwrap_or_else(|| "see docs/inject.md".to_owned());
                findings.error_with_help(wanted.place, message, help);
            }
            None
        }
    }
}

fn put_in(template: &mut Node, wanted: &Wanted, options: &Options, config: &str, made: Option<&str>) {
    let grace = grace_before(template);
    let Some(spec) = template.get_mut("spec") else {
        return;
    };
    let mut containers = Vec::new();
    if wanted.transparent {
        // Before the sidecar: from its first byte on nothing of the pod goes past it.
        containers.push(sidecar::intercept(wanted, options));
    }
    containers.push(sidecar::container(wanted, options));
    bring_up_to_date(spec, "initContainers", CONTAINERS, containers, true);
    bring_up_to_date(spec, "volumes", VOLUMES, sidecar::volumes(wanted, config), false);
    let mount = wanted.sockets.then(sidecar::sockets_mount);
    mount_sockets(spec, mount.as_ref());
    let needed = wanted.drain_seconds.saturating_add(MARGIN_SECONDS);
    let had: Option<u64> = grace.as_deref().and_then(|text| text.parse().ok());
    let raised = had.unwrap_or(DEFAULT_GRACE_SECONDS) < needed;
    let before = raised.then(|| format!("{}{TO}{needed}", grace.as_deref().unwrap_or(UNSET)));
    set_grace(spec, if raised { Some(needed.to_string()) } else { grace });
    let hash = made.map(config::hash);
    set_annotation(template, INJECTED, Some(env!("CARGO_PKG_VERSION")));
    set_annotation(template, CONFIG_HASH, hash.as_deref());
    set_annotation(template, GRACE_RAISED, before.as_deref());
}

fn take_out(template: &mut Node) {
    let grace = grace_before(template);
    if let Some(spec) = template.get_mut("spec") {
        bring_up_to_date(spec, "initContainers", CONTAINERS, Vec::new(), true);
        bring_up_to_date(spec, "volumes", VOLUMES, Vec::new(), false);
        mount_sockets(spec, None);
        set_grace(spec, grace);
    }
    for name in annotations::LEFT_BY_US {
        set_annotation(template, name, None);
    }
}

const UNSET: &str = "unset";
const TO: &str = " to ";
const GRACE: &str = "terminationGracePeriodSeconds";

/// The grace period that the workload has of its own: what it had before we raised it, unless somebody changed it since.
fn grace_before(template: &Node) -> Option<String> {
    let now = template.at(&["spec", GRACE]).and_then(Node::text);
    match annotation(template, GRACE_RAISED).and_then(|raised| raised.split_once(TO)) {
        Some((before, raised)) if now == Some(raised) => (before != UNSET).then(|| before.to_owned()),
        _ => now.map(str::to_owned),
    }
}

fn set_grace(spec: &mut Node, grace: Option<String>) {
    let as_it_is = spec.get(GRACE).and_then(Node::text) == grace.as_deref();
    match grace.map(|grace| grace.parse::<u64>()) {
        _ if as_it_is => {}
        Some(Ok(seconds)) => spec.set(GRACE, seconds.into()),
        _ => spec.remove(GRACE),
    }
}

/// Makes those items of a list that have one of `ours` as their name be `wanted`: one that is there is changed where it stands,
/// another is put at the front or the end, and what is not wanted any more goes. No list is left empty.
fn bring_up_to_date(spec: &mut Node, list: &str, ours: &[&str], wanted: Vec<Node>, at_front: bool) {
    let named = |node: &Node| node.get("name").and_then(Node::text).map(str::to_owned);
    let mut items = match spec.get(list) {
        Some(Node::List(items)) => items.clone(),
        _ => Vec::new(),
    };
    let was_empty = items.is_empty();
    let keep: Vec<Option<String>> = wanted.iter().map(named).collect();
    items.retain(|item| {
        let name = named(item);
        !name.as_deref().is_some_and(|name| ours.contains(&name)) || keep.contains(&name)
    });
    let mut front = 0;
    for node in wanted {
        let name = named(&node);
        if let Some(old) = items.iter_mut().find(|item| named(item) == name) {
            *old = node;
        } else if at_front {
            items.insert(front.min(items.len()), node);
            front += 1;
        } else {
            items.push(node);
        }
    }
    match (items.is_empty(), was_empty) {
        (true, true) => {}
        (true, false) => spec.remove(list),
        (false, _) => spec.set(list, Node::List(items)),
    }
}

/// Mounts the folder of sockets into the application's containers, or takes it out of them.
fn mount_sockets(spec: &mut Node, mount: Option<&Node>) {
    let Some(Node::List(containers)) = spec.get_mut("containers") else {
        return;
    };
    for container in containers {
        let mounts = mount.cloned().into_iter().collect();
        bring_up_to_date(container, "volumeMounts", &[SOCKETS_VOLUME], mounts, false);
    }
}

/// Sets one of our annotations on the pods, or takes it out; no mapping is left empty for it.
fn set_annotation(template: &mut Node, name: &str, value: Option<&str>) {
    let key = format!("{PREFIX}{name}");
    match value {
        Some(value) => {
            if template.get("metadata").is_none() {
                template.set("metadata", Node::Map(Vec::new()));
            }
            let Some(metadata) = template.get_mut("metadata") else {
                return;
            };
            if metadata.get("annotations").is_none() {
                metadata.set("annotations", Node::Map(Vec::new()));
            }
            if let Some(annotations) = metadata.get_mut("annotations") {
                annotations.set(&key, value.into());
            }
        }
        None => {
            if let Some(annotations) = template.at_mut(&["metadata", "annotations"]) {
                annotations.remove(&key);
            }
        }
    }
}
