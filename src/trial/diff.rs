//! Which recorded decisions a new policy would change.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::Answer;
use super::recorded::{Answers, Question, Recorded};
use crate::policy::{Admission, CertificateFacts, Facts};
use crate::yaml::counted;

/// What would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Decisions that were looked at.
    pub decisions: u64,
    /// Of these, those whose verdict would change.
    pub changed: u64,
    /// Those with the same verdict by another rule.
    pub by_another_rule: u64,
    /// Decisions in the file that no policy takes part in.
    pub passed_over: u64,
    /// The first and the last decision's time.
    pub span: Option<(String, String)>,
    /// What changes, by the peer's ID.
    pub identities: BTreeMap<String, Vec<Change>>,
}

/// One question that is answered differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The inbound listener.
    pub listener: String,
    /// The addresses that the peer came from, a few of them.
    pub sources: Vec<IpAddr>,
    /// How many addresses there were.
    pub source_count: usize,
    /// Decisions that were like this.
    pub count: u64,
    /// The last one's time.
    pub last: String,
    /// The last one's id.
    pub last_id: String,
    /// What the old policy says.
    pub old: Answer,
    /// What the new one says.
    pub new: Answer,
}

/// Addresses of one change that are named.
const MAX_SOURCES: usize = 4;

/// Asks both policies all that was asked, as of `now`.
#[must_use]
pub fn diff(recorded: &Recorded, old: &Admission, new: &Admission, now: SystemTime) -> Diff {
    let mut diff = Diff {
        decisions: recorded.decisions(),
        changed: 0,
        by_another_rule: 0,
        passed_over: recorded.passed_over,
        span: recorded
            .span()
            .map(|(first, last)| (first.to_owned(), last.to_owned())),
        identities: BTreeMap::new(),
    };
    for (question, answers) in &recorded.questions {
        let facts = Facts {
            listener: &question.listener,
            peer: &question.peer,
            source: question.source,
            own_trust_domain: &question.own_trust_domain,
            certificate: Some(CertificateFacts::unlisted(now)),
        };
        let (old, new) = (Answer::of(old, &facts, now), Answer::of(new, &facts, now));
        if old.verdict != new.verdict {
            diff.changed += answers.count;
            let changes = diff.identities.entry(question.peer.to_string()).or_default();
            note(changes, question, answers, old, new);
        } else if old.by != new.by {
            diff.by_another_rule += answers.count;
        }
    }
    diff
}

/// Questions that differ in the address alone, and are answered by the same rules, are one change.
fn note(changes: &mut Vec<Change>, question: &Question, answers: &Answers, old: Answer, new: Answer) {
    let same = |change: &&mut Change| {
        change.listener == question.listener && change.old.by == old.by && change.new.by == new.by
    };
    let change = match changes.iter_mut().find(same) {
        Some(change) => change,
        None => {
            changes.push(Change {
                listener: question.listener.clone(),
                sources: Vec::new(),
                source_count: 0,
                count: 0,
                last: String::new(),
                last_id: String::new(),
                old,
                new,
            });
            let Some(change) = changes.last_mut() else { return };
            change
        }
    };
    change.count += answers.count;
    if answers.last >= change.last {
        change.last.clone_from(&answers.last);
        change.last_id.clone_from(&answers.last_id);
    }
    if let Some(source) = question.source {
        change.source_count += 1;
        if change.sources.len() < MAX_SOURCES {
            change.sources.push(source);
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count: u64| counted(usize::try_from(count).unwrap_or(usize::MAX), "decision");
        write!(f, "{}", number(self.decisions))?;
        if let Some((first, last)) = &self.span {
            write!(f, " from {first} to {last}")?;
        }
        if self.decisions == 0 {
            return f.write_str(": the file holds no verdict about a peer at an inbound listener");
        }
        if self.changed == 0 {
            f.write_str(": none would change")?;
        } else {
            write!(
                f,
                ": {} would change, of {}",
                self.changed,
                match self.identities.len() {
                    1 => "1 identity".to_owned(),
                    many => format!("{many} identities"),
                }
            )?;
        }
        for (peer, changes) in &self.identities {
            write!(f, "\n\n{peer}")?;
            changes.iter().try_for_each(|change| write!(f, "{change}"))?;
        }
        if self.by_another_rule > 0 {
            write!(
                f,
                "\n\n{} would have the same verdict by another rule",
                number(self.by_another_rule)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listener, old, new, ..
        } = self;
        let times = if self.count == 1 {
            "once".to_owned()
        } else {
            format!("{} times", self.count)
        };
        write!(
            f,
            "\n  {} -> {} at `{listener}`, seen {times}, last {} ({})",
            old.verdict, new.verdict, self.last, self.last_id
        )?;
        if !self.sources.is_empty() {
            let named: Vec<String> = self.sources.iter().map(ToString::to_string).collect();
            write!(f, "\n    from {}", named.join(", "))?;
            match self.source_count - self.sources.len() {
                0 => {}
                more => write!(f, " and {more} more")?,
            }
        }
        write!(f, "\n    old: {old}\n    new: {new}")
    }
}
