//! Shows what is in force, and what is wrong with the newest files: in `/readyz` and at `/api/v1/policy`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{in_force, name, path_of};
use crate::app::shared::Control;
use crate::authorize::{Candidate, Diverged, PolicyView};
use crate::clock::rfc3339;
use crate::connection::registry::lock;
use crate::lifecycle::readiness::Condition;
use crate::policy::deny_list::Entry;
use crate::reload::Fingerprint;
use crate::telemetry::metrics::Document;
use crate::yaml::{Diagnostic, counted};

/// The divergences that are shown.
const MAX_SHOWN: usize = 100;

/// How the last reading of each document went, and what is to be read again.
#[derive(Debug, Default)]
pub(in crate::app) struct Reloads {
    last: Mutex<BTreeMap<Document, LastReload>>,
    /// Where each document was read last, and what its files looked like then.
    seen: Mutex<BTreeMap<Document, (PathBuf, Fingerprint)>>,
    /// The documents that a refused config names, as they looked before they were read with it.
    suspects: Mutex<Vec<(PathBuf, Fingerprint)>>,
    /// The last generation of each.
    generations: Mutex<BTreeMap<Document, u64>>,
    /// How often somebody asked for everything to be read again.
    asked: watch::Sender<u64>,
    /// Up to which of these times each document was read since.
    answered: watch::Sender<BTreeMap<Document, u64>>,
}

impl Reloads {
    /// Asks for everything to be read again, and says how often that was asked with this time.
    pub(in crate::app) fn ask(&self) -> u64 {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked = asked.wrapping_add(1);
            number = *asked;
        });
        number
    }

    /// How often it was asked for, up to each moment.
    pub(in crate::app) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Notes what a document's files looked like before they were read.
    pub(in crate::app) fn saw(&self, document: Document, path: &Path, fingerprint: Fingerprint) {
        lock(&self.seen).insert(document, (path.to_owned(), fingerprint));
    }

    /// A document that is read from nowhere any more.
    pub(in crate::app) fn forget(&self, document: Document) {
        lock(&self.seen).remove(&document);
    }

    /// What the files at this path looked like when the document was read from there; `None` where it was not.
    pub(in crate::app) fn seen(&self, document: Document, path: &Path) -> Option<Fingerprint> {
        let seen = lock(&self.seen);
        let (_, fingerprint) = seen.get(&document).filter(|(read, _)| read == path)?;
        Some(*fingerprint)
    }

    /// Notes which documents may be why a config was refused; none where it was not.
    pub(in crate::app) fn suspect(&self, documents: Vec<(PathBuf, Fingerprint)>) {
        *lock(&self.suspects) = documents;
    }

    /// Them.
    pub(in crate::app) fn suspects(&self) -> Vec<(PathBuf, Fingerprint)> {
        lock(&self.suspects).clone()
    }

    /// The number of the next that comes into force, also after a time without one.
    pub(in crate::app) fn next_generation(&self, document: Document) -> u64 {
        let mut generations = lock(&self.generations);
        let generation = generations.entry(document).or_default();
        *generation = generation.saturating_add(1);
        *generation
    }

    /// The number of the last one that came into force; 0 where none did.
    pub(in crate::app) fn generation(&self, document: Document) -> u64 {
        lock(&self.generations)
            .get(&document)
            .copied()
            .unwrap_or_default()
    }

    /// Up to which of the times that somebody asked the document was read.
    pub(in crate::app) fn answered_up_to(&self, document: Document) -> u64 {
        self.answered.borrow().get(&document).copied().unwrap_or_default()
    }

    /// Notes how a reading went.
    pub(in crate::app) fn note(&self, document: Document, at: SystemTime, problems: &[Diagnostic]) {
        let problems = problems
            .iter()
            .filter(|problem| problem.is_error())
            .map(Diagnostic::summary)
            .collect();
        lock(&self.last).insert(document, LastReload { at, problems });
    }

    /// What is wrong with what was read last of a document, in words; `None` when it went well.
    pub(in crate::app) fn problem(&self, document: Document) -> Option<String> {
        let last = lock(&self.last);
        let problems = &last.get(&document)?.problems;
        let first = problems.first()?;
        let errors = counted(problems.len(), "error");
        Some(format!("the files have {errors}, the first: {first}"))
    }

    /// Says that a document was read since it was asked for this time.
    pub(in crate::app) fn answer(&self, document: Document, number: u64) {
        self.answered.send_modify(|answered| {
            answered.insert(document, number);
        });
    }

    /// Resolves when each of these documents was read since it was asked for this time.
    pub(in crate::app) async fn answered(&self, documents: &[Document], number: u64) {
        let mut answered = self.answered.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = answered
            .wait_for(|answered| {
                let read = |document| answered.get(document).copied().unwrap_or_default() >= number;
                documents.iter().all(read)
            })
            .await;
    }
}

#[derive(Clone, Debug)]
struct LastReload {
    at: SystemTime,
    /// The problems; none when it went well.
    problems: Vec<String>,
}

impl Control {
    /// Notes how a reading went, and shows all that is in force.
    pub(super) fn show(&self, document: Document, problems: &[Diagnostic]) {
        self.view.reloads.note(document, self.clock.now(), problems);
        self.show_all();
    }

    /// Shows all that is in force.
    pub(super) fn show_all(&self) {
        let (running, view) = (self.running(), self.live.policy());
        let named = |document: &Document| {
            // Where nothing is inbound there is a policy all the same.
            *document == Document::Policy || path_of(&running.settings, *document).is_some()
        };
        let details: Vec<String> = Document::ALL
            .iter()
            .filter(|document| named(document))
            .filter_map(|document| detail(&view, *document, self.view.reloads.problem(*document)))
            .collect();
        self.readiness.set(Condition::Policy, true, details.join("; "));
    }
}

/// One document for a person; `None` for one that was not named.
fn detail(view: &PolicyView, document: Document, bad: Option<String>) -> Option<String> {
    let in_force = in_force(view, document);
    let generation = in_force.map_or(0, |(generation, ..)| generation);
    let holds = match document {
        Document::Config => return None,
        Document::Policy => counted(view.admission.policy.rules().len(), "rule"),
        Document::DenyList => counted(view.admission.deny_list.entries().len(), "entry"),
        Document::Candidate => {
            let rules = view.candidate.as_ref().map(|c| c.admission.policy.rules().len());
            counted(rules.unwrap_or_default(), "rule")
        }
    };
    let which = match document {
        Document::Policy => String::new(),
        _ => format!("{} ", name(document)),
    };
    match (in_force, bad) {
        (None, None) => None,
        (Some(_), None) => Some(format!("{which}generation {generation}, {holds}")),
        (Some(_), Some(bad)) => Some(format!("{which}generation {generation} stays in force: {bad}")),
        (None, Some(bad)) => Some(format!("{which}cannot be used: {bad}")),
    }
}

/// The last reading of a document, as JSON.
pub(in crate::app) fn last_reload(reloads: &Reloads, document: Document) -> Value {
    let reload = lock(&reloads.last).get(&document).cloned();
    json!(reload.map(|reload| json!({
        "at": rfc3339(reload.at),
        "result": if reload.problems.is_empty() { "success" } else { "failure" },
        "problems": reload.problems,
    })))
}

/// The deny list, as JSON; `null` where none was named.
pub(in crate::app) fn deny_list(view: &PolicyView, path: Option<&str>, reloads: &Reloads) -> Value {
    let Some(path) = path else { return Value::Null };
    let list = &view.admission.deny_list;
    json!({
        "generation": view.deny_list_generation,
        "path": path,
        "since": rfc3339(view.deny_list_since),
        "content_hash": list.content_hash(),
        "entries": list.entries().iter().map(entry).collect::<Vec<_>>(),
        "last_reload": last_reload(reloads, Document::DenyList),
    })
}

fn entry(entry: &Entry) -> Value {
    let (file, line) = entry.place();
    json!({
        "name": entry.name(),
        "description": entry.description(),
        "file": file,
        "line": line,
    })
}

/// The candidate, as JSON; `null` where none was named.
pub(in crate::app) fn candidate(view: &PolicyView, path: Option<&str>, reloads: &Reloads) -> Value {
    let Some(path) = path else { return Value::Null };
    let Some(candidate) = &view.candidate else {
        return json!({
            "generation": 0,
            "path": path,
            "last_reload": last_reload(reloads, Document::Candidate),
        });
    };
    let Candidate {
        generation,
        admission,
        since,
        ..
    } = candidate;
    let listing = candidate.listing();
    let hidden: u64 = listing.diverged.iter().skip(MAX_SHOWN).map(|one| one.count).sum();
    json!({
        "generation": generation,
        "path": path,
        "since": rfc3339(*since),
        "content_hash": admission.policy.content_hash(),
        "rules": admission.policy.rules().len(),
        "last_reload": last_reload(reloads, Document::Candidate),
        "open_connections_denied": listing.open_connections_denied,
        "would_deny": listing.would_deny,
        "would_allow": listing.would_allow,
        "divergences": listing.diverged.iter().take(MAX_SHOWN).map(diverged).collect::<Vec<_>>(),
        "divergences_not_listed": listing.not_listed.saturating_add(hidden),
    })
}

fn diverged(one: &Diverged) -> Value {
    json!({
        "listener": one.listener,
        "peer_id": one.peer.to_string(),
        "change": one.change,
        "rule": one.rule,
        "candidate_rule": one.candidate_rule,
        "count": one.count,
        "last": rfc3339(one.last),
        "source": one.source,
    })
}
