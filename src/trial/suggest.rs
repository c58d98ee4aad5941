//! The least rules that would admit exactly what was seen, as a policy file for somebody to review.
//!
//! Nothing is generalized: every peer stands there by its exact ID, with exactly the listeners that it used. Peers that
//! used the same listeners share a rule. What was seen is not what ought to be, so that the file is never applied by
//! itself, and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use super::recorded::Recorded;
use crate::spiffe::SpiffeId;
use crate::yaml::counted;

/// What goes into the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Also peers that were only ever refused.
    pub refused: bool,
    /// Also the addresses that peers came from.
    pub sources: bool,
}

/// The listeners that a peer used, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    listeners: BTreeSet<String>,
    /// Empty when addresses play no part.
    sources: BTreeSet<IpAddr>,
}

/// One rule in the making.
#[derive(Default)]
struct Admitted<'r> {
    peers: Vec<&'r SpiffeId>,
    seen: u64,
}

/// The text of a policy file that admits what was seen, and nothing else.
#[must_use]
pub fn suggest(recorded: &Recorded, scope: Scope, from: &str) -> String {
    let mut rules: BTreeMap<Use, Admitted<'_>> = BTreeMap::new();
    for (peer, listeners) in by_peer(recorded, scope) {
        for (what, seen) in uses(listeners) {
            let rule = rules.entry(what).or_default();
            rule.peers.push(peer);
            rule.seen += seen;
        }
    }
    let mut text = heading(recorded, scope, from);
    text.push_str(if rules.is_empty() {
        "rules: []\n"
    } else {
        "rules:\n"
    });
    for (index, (what, rule)) in rules.iter().enumerate() {
        write_rule(&mut text, index + 1, what, rule);
    }
    text
}

/// How a peer used one listener.
#[derive(Default)]
struct Listener {
    /// Where it came from, as far as addresses play a part.
    sources: BTreeSet<IpAddr>,
    /// It came over a unix socket, too: no network would admit that.
    without_address: bool,
    seen: u64,
}

fn by_peer(recorded: &Recorded, scope: Scope) -> BTreeMap<&SpiffeId, BTreeMap<&str, Listener>> {
    let mut by_peer: BTreeMap<&SpiffeId, BTreeMap<&str, Listener>> = BTreeMap::new();
    for (question, answers) in &recorded.questions {
        if answers.admitted == 0 && !scope.refused {
            continue;
        }
        let listeners = by_peer.entry(&question.peer).or_default();
        let listener = listeners.entry(&question.listener).or_default();
        listener.seen += answers.count;
        match question.source {
            Some(source) if scope.sources => {
                listener.sources.insert(source);
            }
            Some(_) => {}
            None => listener.without_address = true,
        }
    }
    by_peer
}

/// What one peer used: an entry for each set of listeners that it reached from the same addresses.
fn uses(listeners: BTreeMap<&str, Listener>) -> impl Iterator<Item = (Use, u64)> {
    let mut by_sources: BTreeMap<BTreeSet<IpAddr>, (BTreeSet<String>, u64)> = BTreeMap::new();
    for (name, listener) in listeners {
        let sources = if listener.without_address {
            BTreeSet::new()
        } else {
            listener.sources
        };
        let (names, seen) = by_sources.entry(sources).or_default();
        names.insert(name.to_owned());
        *seen += listener.seen;
    }
    by_sources
        .into_iter()
        .map(|(sources, (listeners, seen))| (Use { listeners, sources }, seen))
}

fn heading(recorded: &Recorded, scope: Scope, from: &str) -> String {
    let decisions = usize::try_from(recorded.decisions()).unwrap_or(usize::MAX);
    let mut text = format!(
        "# Suggested by `svidecar policy suggest` from {}",
        counted(decisions, "decision")
    );
    // A file's name may hold what ends a comment.
    let name: String = from
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let _ = write!(text, " in {name}");
    if let Some((first, last)) = recorded.span() {
        let _ = write!(text, ",\n# {first} to {last}");
    }
    text.push_str(".\n# It admits exactly the peers that were seen");
    text.push_str(match scope {
        Scope {
            refused: true,
            sources: true,
        } => ", those that were refused among them, from the addresses they came from",
        Scope {
            refused: true,
            sources: false,
        } => ", those that were refused among them",
        Scope {
            refused: false,
            sources: true,
        } => " and let in, from the addresses they came from",
        Scope {
            refused: false,
            sources: false,
        } => " and let in",
    });
    text.push_str(".\n# Review it: what was seen is not what ought to be. `svidecar policy diff` tells what it would change.\n");
    text
}

fn write_rule(text: &mut String, number: usize, what: &Use, rule: &Admitted<'_>) {
    let listeners: Vec<&str> = what.listeners.iter().map(String::as_str).collect();
    let seen = match rule.seen {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    let _ = writeln!(text, "  - name: {}", name(number, &rule.peers, &listeners));
    let _ = writeln!(text, "    description: seen {seen}");
    let _ = writeln!(text, "    action: allow");
    let _ = writeln!(text, "    to: [{}]", listed(&listeners));
    let _ = writeln!(text, "    from:");
    for peer in &rule.peers {
        let _ = writeln!(text, "      - {}", quoted(peer));
    }
    if !what.sources.is_empty() {
        let _ = writeln!(text, "    source: [{}]", listed(&what.sources));
    }
}

fn listed<'a, T: ToString + 'a>(values: impl IntoIterator<Item = &'a T>) -> String {
    values.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// A name that tells rules apart and says a little: the peer's last segment where there is one peer.
fn name(number: usize, peers: &[&SpiffeId], listeners: &[&str]) -> String {
    let who = match peers {
        [only] => only.path().rsplit('/').next().unwrap_or_default().to_owned(),
        many => format!("{}-peers", many.len()),
    };
    let to = match listeners {
        [only] => (*only).to_owned(),
        many => format!("{}-listeners", many.len()),
    };
    let mut name = format!("suggested-{number}-{who}-to-{to}");
    // A rule's name has at most 128 characters; IDs and listeners hold none but plain ones.
    name.truncate(128);
    name
}

/// A text between double quotes (YAML 1.2 section 7.3.1). IDs, addresses and listeners' names hold nothing that would
/// need to be escaped there.
fn quoted(value: &impl ToString) -> String {
    format!("\"{}\"", value.to_string())
}
