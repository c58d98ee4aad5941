//! Puts into force what says who may connect: the policy, the deny list, the candidate. Each is followed by itself, so
//! that a broken one keeps no other from being read; each keeps its last good version; all are shown.

mod follow;
mod replace;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::load_policy;
use super::shared::Control;
use crate::authorize::PolicyView;
use crate::config::settings::{Listener, ListenerKind, Settings};
use crate::policy::{Action, DenyList, Policy};
use crate::record::Verdict;
use crate::reload::{self, Fingerprint};
use crate::telemetry::metrics::{Document, InForce, ListenerMetrics, ReloadResult};
use crate::yaml::{Diagnostic, Severity};
pub(super) use follow::follow;
pub(super) use show::{Reloads, candidate, deny_list, last_reload};

/// A document that was read.
#[derive(Debug)]
enum Loaded {
    Policy(Policy),
    DenyList(DenyList),
    Candidate(Policy),
}

/// A document as it was found at the start.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) document: Document,
    pub(super) path: PathBuf,
    /// What its files looked like before they were read: a change in between is seen afterwards.
    pub(super) fingerprint: Fingerprint,
    /// Or what is wrong with a candidate, which keeps nothing from starting.
    loaded: Result<Loaded, Vec<Diagnostic>>,
}

impl Found {
    /// Whether its files look as they did before they were read. Blocking.
    pub(super) fn is_as_it_was(&self) -> bool {
        reload::fingerprint(&self.path) == self.fingerprint
    }
}

/// Reads every document that the settings name. Blocking.
///
/// # Errors
/// All findings, when one of them is an error in the policy or in the deny list. What is wrong with a candidate is a
/// warning: it decides nothing.
pub(super) fn read_all(
    settings: &Settings,
    now: SystemTime,
) -> Result<(Vec<Found>, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (mut all, mut findings, mut good) = (Vec::new(), Vec::new(), true);
    for (document, path) in Document::ALL
        .iter()
        .filter_map(|d| Some((*d, path_of(settings, *d)?)))
    {
        let fingerprint = reload::fingerprint(path);
        let loaded = match load(document, settings, now) {
            Ok((loaded, warnings)) => {
                findings.extend(warnings);
                Ok(loaded)
            }
            Err(problems) if document == Document::Candidate => {
                findings.extend(problems.iter().cloned().map(|mut problem| {
                    problem.severity = Severity::Warning;
                    problem
                }));
                Err(problems)
            }
            Err(problems) => {
                findings.extend(problems);
                good = false;
                continue;
            }
        };
        all.push(Found {
            document,
            path: path.to_owned(),
            fingerprint,
            loaded,
        });
    }
    if good { Ok((all, findings)) } else { Err(findings) }
}

/// Where the settings say that a document is.
pub(super) fn path_of(settings: &Settings, document: Document) -> Option<&Path> {
    let policy = &settings.policy;
    match document {
        // It names the others.
        Document::Config => None,
        Document::Policy => policy.path.as_deref(),
        Document::DenyList => policy.deny_list.as_deref(),
        Document::Candidate => policy.candidate.as_deref(),
    }
}

/// Reads a document. Blocking.
fn load(
    document: Document,
    settings: &Settings,
    now: SystemTime,
) -> Result<(Loaded, Vec<Diagnostic>), Vec<Diagnostic>> {
    match (document, path_of(settings, document)) {
        (Document::Policy, Some(path)) => {
            load_policy(path, settings, now).map(|(policy, found)| (Loaded::Policy(policy), found))
        }
        (Document::Candidate, Some(path)) => {
            load_policy(path, settings, now).map(|(policy, found)| (Loaded::Candidate(policy), found))
        }
        (Document::DenyList, Some(path)) => {
            crate::policy::load_deny_list(path, now).map(|(list, found)| (Loaded::DenyList(list), found))
        }
        (_, None) | (Document::Config, _) => Ok((Loaded::Policy(Policy::deny_all()), Vec::new())),
    }
}

/// What is in force of a document: its generation, content's hash, and since when.
pub(super) fn in_force(view: &PolicyView, document: Document) -> Option<(u64, &str, SystemTime)> {
    let in_force = match document {
        Document::Config => return None,
        Document::Policy => (view.generation, view.admission.policy.content_hash(), view.since),
        Document::DenyList => (
            view.deny_list_generation,
            view.admission.deny_list.content_hash(),
            view.deny_list_since,
        ),
        Document::Candidate => {
            let candidate = view.candidate.as_ref()?;
            let hash = candidate.admission.policy.content_hash();
            (candidate.generation, hash, candidate.since)
        }
    };
    (in_force.0 > 0).then_some(in_force)
}

/// What a document is called in the log.
const fn name(document: Document) -> &'static str {
    match document {
        Document::Config => "config",
        Document::Policy => "policy",
        Document::DenyList => "deny list",
        Document::Candidate => "candidate policy",
    }
}

impl Control {
    /// Puts into force what was found at the start.
    pub(super) fn begin(&self, found: Vec<Found>) {
        if !found.iter().any(|found| found.document == Document::Policy) {
            // Nothing inbound: nobody is admitted, and nothing is there to be read again.
            self.put(Loaded::Policy(Policy::deny_all()));
            self.show(Document::Policy, &[]);
        }
        for found in found {
            self.view
                .reloads
                .saw(found.document, &found.path, found.fingerprint);
            match found.loaded {
                Ok(loaded) => {
                    self.metrics
                        .policy_reloaded(found.document, ReloadResult::Success);
                    self.put(loaded);
                    self.show(found.document, &[]);
                    self.audit_document(found.document, &[]);
                }
                Err(problems) => {
                    self.metrics
                        .policy_reloaded(found.document, ReloadResult::Failure);
                    self.show(found.document, &problems);
                    self.audit_document(found.document, &problems);
                }
            }
        }
    }

    /// Puts a document into force, as the next of its generations, which is returned. All that publish run on one thread
    /// and do not pause between what they read and what they write.
    fn put(&self, loaded: Loaded) -> u64 {
        let (view, now) = (self.live.policy(), self.clock.now());
        let next = |document| self.view.reloads.next_generation(document);
        let (document, generation) = match loaded {
            Loaded::Policy(policy) => {
                for listener in &self.running().listeners {
                    set_rules(&listener.metrics, &listener.settings, &policy);
                }
                let generation = next(Document::Policy);
                self.live
                    .set_policy(view.with_policy(Arc::new(policy), generation, now));
                (Document::Policy, generation)
            }
            Loaded::DenyList(list) => {
                let generation = next(Document::DenyList);
                self.live
                    .set_policy(view.with_deny_list(&Arc::new(list), generation, now));
                (Document::DenyList, generation)
            }
            Loaded::Candidate(policy) => {
                let generation = next(Document::Candidate);
                self.metrics.reset_divergences();
                self.live
                    .set_policy(view.with_candidate(Arc::new(policy), generation, now));
                (Document::Candidate, generation)
            }
        };
        self.metrics
            .set_in_force(document, self.metric(&self.live.policy(), document));
        generation
    }

    fn metric(&self, view: &PolicyView, document: Document) -> Option<InForce> {
        let (generation, content_hash, since) = in_force(view, document)?;
        let running = self.running();
        let source = path_of(&running.settings, document)?;
        Some(InForce {
            generation,
            content_hash: content_hash.to_owned(),
            source: source.display().to_string(),
            since,
        })
    }
}

/// The rules that can decide for a listener, for the metric that counts decisions.
fn set_rules(metrics: &ListenerMetrics, listener: &Listener, policy: &Policy) {
    match &listener.kind {
        ListenerKind::Inbound { .. } => {
            let budgets = policy
                .budgets_at(&listener.name)
                .map(|budget| (budget.name.as_ref(), Verdict::Deny));
            let rules = policy.rules().iter().filter_map(|rule| {
                let concerns = rule.to().is_none_or(|to| to.contains(&listener.name));
                let verdict = match rule.action() {
                    Action::Allow => Verdict::Allow,
                    Action::Deny => Verdict::Deny,
                    Action::Audit => return None,
                };
                concerns.then_some((rule.name().as_ref(), verdict))
            });
            metrics.set_rules(rules.chain(budgets));
        }
        ListenerKind::Outbound { peer, .. } => {
            let patterns: Vec<_> = peer.iter().map(ToString::to_string).collect();
            metrics.set_rules(patterns.iter().map(|pattern| (pattern.as_str(), Verdict::Allow)));
        }
    }
}
