//! Holds expectations against the evaluator, and tells which rules no test touches.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::Answer;
use super::expectations::Expectation;
use super::junit::Failure;
use crate::policy::{Admission, CertificateFacts, Facts};
use crate::spiffe::TrustDomain;

/// What expectations are held against.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Policy and deny list.
    pub admission: Admission,
    /// Our own trust domain, where the files say it.
    pub own_trust_domain: Option<TrustDomain>,
    /// The inbound listeners there are; `None` without a config, when any name will do.
    pub listeners: Option<Vec<Arc<str>>>,
}

/// A rule as coverage knows it: its name and where it stands.
pub type RuleAt = (Arc<str>, String);

/// What the tests of one run have touched.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    touched: HashSet<Arc<str>>,
}

impl Coverage {
    /// The rules of `subject` that matched in no test.
    #[must_use]
    pub fn untouched(&self, subject: &Subject) -> Vec<RuleAt> {
        let rules = subject.admission.policy.rules().iter();
        rules
            .filter(|rule| !self.touched.contains(rule.name()))
            .map(|rule| {
                let (file, line) = rule.place();
                (Arc::clone(rule.name()), format!("{file}:{line}"))
            })
            .collect()
    }
}

/// Holds one expectation against the evaluator. `now` is the time of tests that name none.
///
/// # Errors
/// What came instead of what was expected.
pub fn judge(
    subject: &Subject,
    expectation: &Expectation,
    now: SystemTime,
    coverage: &mut Coverage,
) -> Result<(), Failure> {
    if let Some(listeners) = &subject.listeners
        && !listeners.iter().any(|listener| **listener == *expectation.to)
    {
        return Err(unknown_listener(expectation, listeners));
    }
    let own = match &subject.own_trust_domain {
        Some(own) => own,
        None => own_or_any(subject, expectation)?,
    };
    let certificate = expectation.certificate.as_ref();
    let unlisted = CertificateFacts::unlisted(now);
    let facts = Facts {
        listener: &expectation.to,
        peer: &expectation.from,
        source: expectation.source,
        own_trust_domain: own,
        certificate: Some(certificate.map_or(unlisted, |certificate| CertificateFacts {
            serial: &certificate.serial,
            key_hash: &certificate.key_hash,
            issued: certificate.issued.unwrap_or(now),
        })),
    };
    note_coverage(subject, &facts, now, coverage);
    let answer = Answer::of(&subject.admission, &facts, now);
    if is_as_expected(expectation, &answer) {
        return Ok(());
    }
    Err(Failure {
        message: format!("expected {}, got {answer}", wanted(expectation)),
        text: subject.admission.explain(&facts, now).to_string(),
    })
}

fn is_as_expected(expectation: &Expectation, answer: &Answer) -> bool {
    let same = |wanted: &Option<String>, have: Option<&str>| wanted.is_none() || wanted.as_deref() == have;
    answer.verdict == expectation.expect
        && same(&expectation.by, answer.by.as_deref())
        && same(&expectation.reason, answer.reason.map(|reason| reason.as_str()))
}

fn wanted(expectation: &Expectation) -> String {
    let mut text = expectation.expect.to_string();
    if let Some(by) = &expectation.by {
        text.push_str(&format!(" by `{by}`"));
    }
    if let Some(reason) = &expectation.reason {
        text.push_str(&format!(" for the reason `{reason}`"));
    }
    text
}

fn unknown_listener(expectation: &Expectation, listeners: &[Arc<str>]) -> Failure {
    let known: Vec<&str> = listeners.iter().map(|name| &**name).collect();
    let message = match crate::yaml::closest(&expectation.to, &known) {
        Some(word) => format!(
            "`{}` is no inbound listener of the config; did you mean `{word}`?",
            expectation.to
        ),
        None => format!(
            "`{}` is no inbound listener of the config, which has {}",
            expectation.to,
            crate::yaml::one_of(&known)
        ),
    };
    Failure {
        text: message.clone(),
        message,
    }
}

/// Where nothing says our own trust domain any will do, unless a rule asks for it.
fn own_or_any<'a>(subject: &Subject, expectation: &'a Expectation) -> Result<&'a TrustDomain, Failure> {
    let mut rules = subject.admission.policy.rules().iter();
    match rules.find(|rule| rule.depends_on_own_trust_domain(&expectation.to)) {
        None => Ok(expectation.from.trust_domain()),
        Some(rule) => {
            let message = format!(
                "rule `{}` has no `from` and so allows our own trust domain, which neither the config nor the test file says: \
                 set `identity.trust_domain` there, or `trust_domain` here",
                rule.name()
            );
            Err(Failure {
                text: message.clone(),
                message,
            })
        }
    }
}

/// A rule is touched when all its conditions hold, whether or not it decides.
fn note_coverage(subject: &Subject, facts: &Facts<'_>, now: SystemTime, coverage: &mut Coverage) {
    let explanation = subject.admission.explain(facts, now);
    let matching = explanation.rules.iter().filter(|rule| rule.matches);
    coverage
        .touched
        .extend(matching.map(|rule| Arc::clone(&rule.name)));
}
