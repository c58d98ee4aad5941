//! What is known of all files of one run together: whose ConfigMaps are made, and which names are taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::tree::Node;
use super::{Done, File, Options, annotations, config, workload};
use crate::yaml::{Findings, Place};

/// The name and the namespace of an object.
type Name = (Option<String>, Option<String>);

fn name_of(object: &Node) -> Name {
    (metadata(object, "name"), metadata(object, "namespace"))
}

fn metadata(object: &Node, key: &str) -> Option<String> {
    let found = object.at(&["metadata", key]).and_then(Node::text);
    found.map(str::to_owned)
}

/// Who made a ConfigMap: the workload, and the number of its file.
type Owner = (String, usize);

/// What is known of the files.
#[derive(Default)]
pub(super) struct Run {
    /// The files that are done.
    files: usize,
    /// Kind and name, with the namespace.
    workloads: BTreeSet<(String, Option<String>)>,
    /// The ConfigMaps that were made, with their workloads.
    made: BTreeMap<Name, Vec<Owner>>,
}

impl Run {
    /// The next object is of the next file.
    pub(super) const fn file_ends(&mut self) {
        self.files += 1;
    }

    /// Processes an object, and returns the ConfigMap that belongs before it.
    pub(super) fn object(
        &mut self,
        object: &mut Node,
        options: &Options,
        findings: &mut Findings,
        done: &mut Vec<(String, Done)>,
    ) -> Option<Node> {
        let outcome = workload::process(object, options, findings);
        let workload = outcome.workload?;
        if let Some(made) = &outcome.config_map {
            let owners = self.made.entry(name_of(made)).or_default();
            owners.push((workload.clone(), self.files));
        }
        done.extend(outcome.done.map(|what| (workload.clone(), what)));
        self.workloads.insert((workload, metadata(object, "namespace")));
        outcome.config_map
    }

    /// Whether an object is a ConfigMap that an earlier run made, for a workload that has another now or none.
    pub(super) fn is_stale(&self, object: &Node) -> bool {
        let Some(owner) = config::is_for(object) else {
            return false;
        };
        let owner = (owner.to_owned(), metadata(object, "namespace"));
        self.workloads.contains(&owner) || self.made.contains_key(&name_of(object))
    }

    /// Puts what was made for each item of a list before it.
    pub(super) fn put_config_maps_into(&self, items: &mut Vec<Node>, made: Vec<Option<Node>>) {
        for (item, made) in std::mem::take(items).into_iter().zip(made) {
            if !self.is_stale(&item) {
                items.extend(made);
                items.push(item);
            }
        }
    }

    /// A ConfigMap of ours must not have the name of another, of ours or of somebody else, in whatever file that is: what is
    /// applied last would be the config of both. The same workload in two files (of two environments) is no such case.
    pub(super) fn refuse_names_that_are_taken(&self, files: &mut [File<'_>]) {
        let mut foreign: HashMap<Name, usize> = HashMap::new();
        for (number, file) in files.iter().enumerate() {
            let documents = file.after.iter().flatten();
            let objects = documents.flat_map(|document| match document.get("items") {
                Some(Node::List(items)) => items.as_slice(),
                _ => std::slice::from_ref(document),
            });
            let is_foreign = |object: &&Node| {
                object.get("kind").and_then(Node::text) == Some("ConfigMap")
                    && config::is_for(object).is_none()
            };
            foreign.extend(objects.filter(is_foreign).map(|object| (name_of(object), number)));
        }
        for (name, owners) in &self.made {
            let is_twice = owners.iter().enumerate().any(|(index, (workload, file))| {
                let earlier = owners.iter().take(index);
                earlier.clone().any(|(other, of)| other != workload || of == file)
            });
            let other = foreign.get(name).copied();
            let Some((_, last)) = owners.last().filter(|_| is_twice || other.is_some()) else {
                continue;
            };
            let mut places: BTreeSet<usize> = owners.iter().map(|(_, file)| *file).collect();
            places.extend(other);
            let mut who: Vec<&str> = owners.iter().map(|(workload, _)| workload.as_str()).collect();
            who.dedup();
            let mut message = format!(
                "{}: the config would be the ConfigMap `{}`, which something else is already",
                who.join(" and "),
                name.0.as_deref().unwrap_or_default()
            );
            let others: Vec<&str> = places
                .iter()
                .filter(|number| *number != last)
                .filter_map(|number| files.get(*number).map(|file| &**file.findings.file()))
                .collect();
            if !others.is_empty() {
                message.push_str(&format!(" (see {})", others.join(", ")));
            }
            let help = format!(
                "give one of the two another name, or write a config of your own and name it with `{}{}`",
                annotations::PREFIX,
                annotations::CONFIG
            );
            if let Some(file) = files.get_mut(*last) {
                file.findings.error_with_help(Place::default(), message, help);
            }
        }
    }
}
