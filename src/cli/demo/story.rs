//! The story, step by step. What is told about a connection is what the sidecars recorded; the story knows only what
//! should stand there, and says so when it does not.

mod steps;

use std::io;
use std::time::{Duration, Instant};

use super::application::Client;
use super::journal::{Entry, Mark, PATIENCE, Record, Said, Silence};
use super::stage::{Addresses, Stage, StageError};
use super::tell::Teller;
use crate::record::{Reason, Verdict};

/// From the end of a process to our reading the end of its log.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Allowed,
    NotNamed,
    UnknownDomain,
    KnownDomain,
    PlainText,
    WrongServer,
    Rotation,
    PolicyGrants,
    PolicyTakes,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Allowed,
        Self::NotNamed,
        Self::UnknownDomain,
        Self::KnownDomain,
        Self::PlainText,
        Self::WrongServer,
        Self::Rotation,
        Self::PolicyGrants,
        Self::PolicyTakes,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Allowed => "storefront calls orders. A rule names it: its order gets through.",
            Self::NotNamed => "reports calls orders. It proves who it is, too, but no rule names it.",
            Self::UnknownDomain => "agency calls, from a trust domain that orders knows nothing about.",
            Self::KnownDomain => "The two trust domains federate: now agency is known. Known is not allowed.",
            Self::PlainText => "Somebody without TLS knocks at the same port.",
            Self::WrongServer => {
                "storefront calls payments, but the address leads to orders. Its sidecar refuses before it shows its certificate."
            }
            Self::Rotation => "Every SVID is renewed while a connection of storefront is busy.",
            Self::PolicyGrants => {
                "A rule for reports is added to the policy file. Its call gets through now."
            }
            Self::PolicyTakes => {
                "The rule is removed again. The open connection of reports ends, that of storefront goes on."
            }
        }
    }
}

/// Why a step, or the whole story, did not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Nobody listens to the story any more.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// A sidecar ended in the middle of it.
    #[error("the sidecar of `{0}` has ended")]
    Ended(&'static str),
    /// Something else happened than should have; the story can go on.
    #[error("{0}")]
    Unexpected(String),
}

impl From<StageError> for Trouble {
    fn from(error: StageError) -> Self {
        Self::Unexpected(error.to_string())
    }
}

/// What should stand in a sidecar's record.
struct Expected<'a> {
    sidecar: &'static str,
    listener: &'a str,
    peer: Option<&'a str>,
    verdict: Verdict,
    rule: Option<&'a str>,
    reason: Reason,
    /// A word in the record's detail.
    detail: Option<&'a str>,
}

/// The story in the course of being told.
pub(super) struct Story<'a, 'o> {
    stage: &'a mut Stage,
    at: Addresses,
    teller: &'a mut Teller<'o>,
    /// When all sidecars were up.
    began: Mark,
    /// The connections that stay open from one step to a later one.
    storefront: Option<Client>,
    reports: Option<Client>,
}

impl<'a, 'o> Story<'a, 'o> {
    pub(super) fn new(stage: &'a mut Stage, at: Addresses, teller: &'a mut Teller<'o>) -> Self {
        let began = stage.journal.mark();
        Self {
            stage,
            at,
            teller,
            began,
            storefront: None,
            reports: None,
        }
    }

    /// Tells it, and answers whether every step went as it should.
    pub(super) async fn tell(mut self) -> Result<bool, Trouble> {
        let started = Instant::now();
        let mut wrong = Vec::new();
        for (step, number) in Step::ALL.into_iter().zip(1..) {
            self.teller.heading(number, step.title())?;
            match self.play(step).await {
                Ok(()) => {}
                Err(Trouble::Unexpected(what)) => {
                    self.teller.complaint(&what)?;
                    // Where a sidecar's end is behind it, the word of that comes a moment later.
                    tokio::time::sleep(LAST_WORDS).await;
                    if let Some(ended) = self.stage.journal.ended(self.began) {
                        return Err(Trouble::Ended(ended));
                    }
                    wrong.push(number.to_string());
                }
                Err(other) => return Err(other),
            }
        }
        let (all, took) = (Step::ALL.len(), started.elapsed().as_secs_f64());
        self.teller.say("")?;
        if wrong.is_empty() {
            self.teller.verdict(
                true,
                &format!("{all} of {all} steps went as expected, in {took:.1} s."),
            )?;
        } else {
            let text = format!(
                "{} of {all} steps did not go as expected: {}.",
                wrong.len(),
                wrong.join(", ")
            );
            self.teller.verdict(false, &text)?;
        }
        Ok(wrong.is_empty())
    }

    async fn play(&mut self, step: Step) -> Result<(), Trouble> {
        match step {
            Step::Allowed => self.allowed().await,
            Step::NotNamed => self.not_named().await,
            Step::UnknownDomain => self.unknown_domain().await,
            Step::KnownDomain => self.known_domain().await,
            Step::PlainText => self.plain_text().await,
            Step::WrongServer => self.wrong_server().await,
            Step::Rotation => self.rotation().await,
            Step::PolicyGrants => self.policy_grants().await,
            Step::PolicyTakes => self.policy_takes().await,
        }
    }

    /// Waits for the record of a connection, tells it, and complains where it is not as it should be.
    async fn expect(&mut self, since: Mark, expected: &Expected<'_>) -> Result<Record, Trouble> {
        let Expected {
            sidecar, listener, ..
        } = expected;
        let record = self
            .wait(since, "record", |entry| record_of(entry, sidecar, listener))
            .await?;
        let wrong = differences(expected, &record);
        self.teller.record(sidecar, &record, wrong.is_empty())?;
        if wrong.is_empty() {
            Ok(record)
        } else {
            Err(Trouble::Unexpected(wrong.join("; ")))
        }
    }

    async fn wait<T>(
        &self,
        since: Mark,
        what: &str,
        wanted: impl FnMut(&Entry) -> Option<T>,
    ) -> Result<T, Trouble> {
        self.stage
            .journal
            .wait(self.began, since, wanted)
            .await
            .map_err(|silence| match silence {
                Silence::Ended(sidecar) => Trouble::Ended(sidecar),
                Silence::TooLong => Trouble::Unexpected(format!(
                    "expected a {what}; none came within {} s",
                    PATIENCE.as_secs()
                )),
            })
    }

    fn mark(&self) -> Mark {
        self.stage.journal.mark()
    }
}

fn record_of(entry: &Entry, sidecar: &str, listener: &str) -> Option<Record> {
    match &entry.said {
        Said::Connection(record) if entry.sidecar == sidecar && record.listener == listener => {
            Some(Record::clone(record))
        }
        _ => None,
    }
}

/// Each field that is not as it should be, in words.
fn differences(expected: &Expected<'_>, record: &Record) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare = |field: &str, wanted: Option<&str>, found: Option<&str>| {
        if wanted != found {
            let word = |value: Option<&str>| value.map_or("none".to_owned(), |value| format!("`{value}`"));
            wrong.push(format!("expected {field} {}, not {}", word(wanted), word(found)));
        }
    };
    compare("reason", Some(expected.reason.as_str()), Some(&record.reason));
    compare("verdict", Some(expected.verdict.as_str()), Some(&record.verdict));
    compare("rule", expected.rule, record.rule.as_deref());
    compare("peer", expected.peer, record.peer_id.as_deref());
    if let Some(word) = expected.detail {
        let detail = record.detail.as_deref().unwrap_or_default();
        if !detail.contains(word) {
            wrong.push(format!("expected the detail to say `{word}`"));
        }
    }
    wrong
}

fn unexpected(what: &str, error: &dyn std::fmt::Display) -> Trouble {
    Trouble::Unexpected(format!("{what}: {error}"))
}

/// In milliseconds, as a person reads it.
fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named() {
        let line = r#"{"timestamp":"t","target":"svidecar::connection","listener":"orders","direction":"inbound",
            "peer_addr":"127.0.0.1:1","peer_id":"spiffe://td/a","upstream":null,"verdict":"allow","rule":"r",
            "result":"ok","reason":"finished","detail":"d","bytes_up":0,"bytes_down":0}"#;
        let Said::Connection(record) = Said::read(line) else {
            panic!("no record")
        };
        let expected = Expected {
            sidecar: "orders",
            listener: "orders",
            peer: Some("spiffe://td/a"),
            verdict: Verdict::Allow,
            rule: Some("r"),
            reason: Reason::Finished,
            detail: Some("d"),
        };
        assert_eq!(differences(&expected, &record), <[String; 0]>::default());
        let other = Expected {
            peer: None,
            verdict: Verdict::Deny,
            rule: Some("s"),
            reason: Reason::NotTls,
            detail: Some("x"),
            ..expected
        };
        assert_eq!(
            differences(&other, &record),
            [
                "expected reason `not_tls`, not `finished`",
                "expected verdict `deny`, not `allow`",
                "expected rule `s`, not `r`",
                "expected peer none, not `spiffe://td/a`",
                "expected the detail to say `x`",
            ]
        );
    }
}
