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
mod run;
pub mod sidecar;
#[cfg(test)]
mod tests;
mod transparent;
mod tree;
pub mod workload;
mod write;

use std::borrow::Cow;

use self::read::{Chunk, chunks};
use self::run::Run;
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

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Its text now.
    pub text: String,
    /// Its workloads in which there is a sidecar now, and those that had one before.
    pub done: Vec<(String, Done)>,
}

/// What became of one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The sidecar is in it, as its annotations say.
    PutIn,
    /// What an earlier run put in was taken out.
    TakenOut,
}

/// The manifests of `files` (each what findings call it, and its text), with sidecars put in, brought up to date, or taken out; one
/// answer a file. What changes nothing is to the byte as it was; a document that changes loses its comments, but for those at its head.
/// All files are seen as one set of objects: a ConfigMap of ours that is in another file than its workload is taken from there.
///
/// # Errors
/// All that is wrong, each with its place. There is no text then.
pub fn inject(files: &[(&str, &str)], options: &Options) -> Result<Vec<Injected>, Vec<Diagnostic>> {
    let mut run = Run::default();
    let mut all: Vec<File<'_>> = files
        .iter()
        .map(|(name, text)| File::read(name, text, options, &mut run))
        .collect();
    run.refuse_names_that_are_taken(&mut all);
    if all.iter().any(|file| file.findings.errors() > 0) {
        let found = all.into_iter().flat_map(|file| file.findings.into_list());
        return Err(found.collect());
    }
    Ok(all.into_iter().map(|file| file.written(&run)).collect())
}

/// One file, read and processed.
struct File<'t> {
    findings: Findings,
    chunks: Vec<Chunk<'t>>,
    before: Vec<Option<Node>>,
    after: Vec<Option<Node>>,
    /// Of each document the ConfigMaps that belong before it, or before its items.
    made: Vec<Vec<Option<Node>>>,
    done: Vec<(String, Done)>,
}

impl<'t> File<'t> {
    fn read(name: &str, text: &'t str, options: &Options, run: &mut Run) -> Self {
        let mut findings = Findings::new(name, text);
        let chunks = chunks(text);
        let before: Vec<Option<Node>> = chunks
            .iter()
            .map(|chunk| read::read(chunk, &mut findings))
            .collect();
        let mut file = Self {
            findings,
            chunks,
            after: before.clone(),
            before,
            made: Vec::new(),
            done: Vec::new(),
        };
        for document in &mut file.after {
            let objects = match document {
                Some(document) if is_list(document) => {
                    list_items(document).map_or(&mut [][..], Vec::as_mut_slice)
                }
                Some(document) => std::slice::from_mut(document),
                None => &mut [],
            };
            let made = objects
                .iter_mut()
                .map(|object| run.object(object, options, &mut file.findings, &mut file.done));
            file.made.push(made.collect());
        }
        run.file_ends();
        file
    }

    fn written(self, run: &Run) -> Injected {
        let mut pieces: Vec<Piece<'_>> = Vec::new();
        let documents = self.before.into_iter().zip(self.after).zip(self.made);
        for (chunk, ((before, after), mut made)) in self.chunks.iter().zip(documents) {
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
        let begins_with_separator = self.chunks.first().is_some_and(|chunk| chunk.separator.is_some());
        Injected {
            text: joined(&pieces, begins_with_separator),
            done: self.done,
        }
    }
}

/// The items of a `List`.
fn list_items(object: &mut Node) -> Option<&mut Vec<Node>> {
    let is_list = is_list(object);
    match object.get_mut("items").filter(|_| is_list)? {
        Node::List(items) => Some(items),
        _ => None,
    }
}

fn is_list(object: &Node) -> bool {
    object.get("kind").and_then(Node::text) == Some("List")
        && matches!(object.get("items"), Some(Node::List(_)))
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
