//! The sidecar put into Kubernetes manifests: text in, text out.
//!
//! Owns what a pod with a sidecar looks like (`sidecar`), the annotations by which a workload says what it wants
//! (`annotations`), and the reading and writing of manifests that are not ours (`tree`, `read`, `write`). It promises that
//! twice is once, that annotations changed since are followed, that removing leaves what was there before, that all it does not
//! touch means what it meant before, and that nothing is written where something is wrong. The config that it makes is
//! one that `config` accepts. Pure: files, arguments and exit codes are `cli::inject`'s.

pub mod annotations;
pub mod config;
mod read;
pub mod sidecar;
#[cfg(test)]
mod tests;
mod transparent;
mod tree;
pub mod workload;
mod write;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use self::read::{Chunk, chunks};
pub use self::tree::{Node, Scalar};
use self::write::write;
use crate::yaml::{Diagnostic, Findings};

/// The most bytes of one file of manifests.
pub const MAX_BYTES: usize = 16 << 20;

/// What the command line says for all workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The sidecar's image, where a workload names no other.
    pub image: String,
    /// The name of the Workload API's socket in the folder that the SPIFFE CSI driver mounts.
    pub socket: String,
    /// Whether sidecars are taken out instead.
    pub remove: bool,
}

impl Options {
    /// Where the Workload API's socket is, in the sidecar.
    #[must_use]
    pub fn socket_path(&self) -> String {
        format!("{}/{}", sidecar::SPIFFE_FOLDER, self.socket)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            image: concat!("svidecar:", env!("CARGO_PKG_VERSION")).to_owned(),
            socket: "spire-agent.sock".to_owned(),
            remove: false,
        }
    }
}

/// The manifests of `text`, with sidecars put in, brought up to date, or taken out. `file` is what findings call the file. What
/// changes nothing is to the byte as it was; a document that changes loses its comments, but for those at its head.
///
/// # Errors
/// All that is wrong, each with its place. There is no text then.
pub fn inject(file: &str, text: &str, options: &Options) -> Result<String, Vec<Diagnostic>> {
    let mut findings = Findings::new(file, text);
    let chunks = chunks(text);
    let before: Vec<Option<Node>> = chunks
        .iter()
        .map(|chunk| read::read(chunk, &mut findings))
        .collect();
    let mut run = Run::default();
    let mut after = before.clone();
    let made: Vec<Vec<Option<Node>>> = after
        .iter_mut()
        .map(|document| match document {
            Some(document) => run.process(document, options, &mut findings),
            None => Vec::new(),
        })
        .collect();
    run.refuse_names_that_are_taken(&after, &mut findings);
    if findings.errors() > 0 {
        return Err(findings.into_list());
    }
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    for (((chunk, before), after), mut made) in chunks.iter().zip(before).zip(after).zip(made) {
        let Some(mut after) = after else {
            pieces.push(Piece::as_it_was(chunk));
            continue;
        };
        if let Some(items) = list_items(&mut after) {
            run.put_config_maps_into(items, made);
        } else {
            if run.is_stale(&after) {
                continue;
            }
            pieces.extend(made.pop().flatten().map(|made| Piece {
                separator: None,
                body: write(&made).into(),
            }));
        }
        pieces.push(match before.as_ref() == Some(&after) {
            true => Piece::as_it_was(chunk),
            false => Piece::rewritten(chunk, &after),
        });
    }
    let begins_with_separator = chunks.first().is_some_and(|chunk| chunk.separator.is_some());
    Ok(joined(&pieces, begins_with_separator))
}

/// The items of a `List`.
fn list_items(object: &mut Node) -> Option<&mut Vec<Node>> {
    let is_list = object.get("kind").and_then(Node::text) == Some("List");
    match object.get_mut("items").filter(|_| is_list)? {
        Node::List(items) => Some(items),
        _ => None,
    }
}

/// The name and the namespace of an object.
type Name = (Option<String>, Option<String>);

fn name_of(object: &Node) -> Name {
    let text = |key| {
        object
            .at(&["metadata", key])
            .and_then(Node::text)
            .map(str::to_owned)
    };
    (text("name"), text("namespace"))
}

/// What is known of a file as a whole.
#[derive(Default)]
struct Run {
    workloads: HashSet<String>,
    /// The ConfigMaps that were made, with their workloads. More than one: they would overwrite each other.
    made: HashMap<Name, Vec<String>>,
}

impl Run {
    /// Processes a document, or each item of a list, and returns the ConfigMaps that belong before them.
    fn process(
        &mut self,
        document: &mut Node,
        options: &Options,
        findings: &mut Findings,
    ) -> Vec<Option<Node>> {
        if let Some(items) = list_items(document) {
            return items
                .iter_mut()
                .map(|item| self.object(item, options, findings))
                .collect();
        }
        vec![self.object(document, options, findings)]
    }

    fn object(&mut self, object: &mut Node, options: &Options, findings: &mut Findings) -> Option<Node> {
        let outcome = workload::process(object, options, findings);
        let workload = outcome.workload?;
        if let Some(made) = &outcome.config_map {
            self.made.entry(name_of(made)).or_default().push(workload.clone());
        }
        self.workloads.insert(workload);
        outcome.config_map
    }

    /// Whether an object is a ConfigMap that an earlier run made, for a workload that has another now or none.
    fn is_stale(&self, object: &Node) -> bool {
        config::is_for(object)
            .is_some_and(|owner| self.workloads.contains(owner) || self.made.contains_key(&name_of(object)))
    }

    fn put_config_maps_into(&self, items: &mut Vec<Node>, made: Vec<Option<Node>>) {
        for (item, made) in std::mem::take(items).into_iter().zip(made) {
            if !self.is_stale(&item) {
                items.extend(made);
                items.push(item);
            }
        }
    }

    /// A ConfigMap of ours must not have the name of another, of ours or of somebody else.
    fn refuse_names_that_are_taken(&self, documents: &[Option<Node>], findings: &mut Findings) {
        let objects = documents
            .iter()
            .flatten()
            .flat_map(|document| match document.get("items") {
                Some(Node::List(items)) => items.as_slice(),
                _ => std::slice::from_ref(document),
            });
        let is_foreign = |object: &&Node| {
            object.get("kind").and_then(Node::text) == Some("ConfigMap") && config::is_for(object).is_none()
        };
        let foreign: HashSet<Name> = objects.filter(is_foreign).map(name_of).collect();
        let mut taken: Vec<_> = self
            .made
            .iter()
            .filter(|(name, owners)| owners.len() > 1 || foreign.contains(*name))
            .collect();
        taken.sort();
        for (name, owners) in taken {
            let message = format!(
                "{}: the config would be the ConfigMap `{}`, which something else is already",
                owners.join(" and "),
                name.0.as_deref().unwrap_or_default()
            );
            let help = format!(
                "give one of the two another name, or write a config of your own and name it with `{}{}`",
                annotations::PREFIX,
                annotations::CONFIG
            );
            findings.error_with_help(crate::yaml::Place::default(), message, help);
        }
    }
}

/// One document of what is written.
struct Piece<'t> {
    separator: Option<&'t str>,
    body: Cow<'t, str>,
}

impl<'t> Piece<'t> {
    fn as_it_was(chunk: &Chunk<'t>) -> Self {
        Self {
            separator: chunk.separator,
            body: chunk.body.into(),
        }
    }

    /// A document that changed: the comments at its head, and what it is now.
    fn rewritten(chunk: &Chunk<'t>, node: &Node) -> Self {
        let is_head = |line: &&str| line.trim().is_empty() || line.starts_with('#');
        // What stands on the separator's line, but for a comment, is in the tree.
        let holds_nothing = |separator: &&str| {
            let rest = separator.trim_start_matches('-').trim();
            rest.is_empty() || rest.starts_with('#')
        };
        let head: String = chunk.body.split_inclusive('\n').take_while(is_head).collect();
        Self {
            separator: chunk.separator.filter(holds_nothing),
            body: format!("{head}{}", write(node)).into(),
        }
    }
}

fn joined(pieces: &[Piece<'_>], begins_with_separator: bool) -> String {
    let mut out = String::new();
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 || begins_with_separator {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(piece.separator.unwrap_or("---\n"));
        }
        out.push_str(&piece.body);
    }
    out
}
