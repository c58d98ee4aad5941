//! Recorded decisions, read back: what `telemetry.decisions.file` holds, one JSON object a line.
//!
//! Equal questions are counted rather than kept, so that a day of traffic fits in memory: a question is who asked for
//! which listener from where. What was decided about anything but a peer at an inbound listener (handshakes that failed
//! before there was a peer, outbound connections, open connections looked at again) is passed over and counted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::{self, BufRead};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::record::Verdict;
use crate::record::decision::VERSION;
use crate::spiffe::{SpiffeId, TrustDomain};

/// The most bytes of one line.
const MAX_LINE: u64 = 1 << 20;
/// The most different questions that are kept.
const MAX_QUESTIONS: usize = 1_000_000;

/// What was asked of authorization: everything that a policy decides by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The verified peer.
    pub peer: SpiffeId,
    /// The inbound listener.
    pub listener: String,
    /// The peer's address; none on a unix socket.
    pub source: Option<IpAddr>,
    /// Our own trust domain at the time.
    pub own_trust_domain: TrustDomain,
}

/// How often a question was asked, and what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Times that it was asked.
    pub count: u64,
    /// Times that the peer was let in: allowed, or denied by a policy that was only audited.
    pub admitted: u64,
    /// The first time, RFC 3339.
    pub first: String,
    /// The last time, RFC 3339.
    pub last: String,
    /// The id of the last decision.
    pub last_id: String,
}

/// What a file of decisions holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Each question with its answers, by peer.
    pub questions: BTreeMap<Question, Answers>,
    /// Decisions that no policy file takes part in.
    pub passed_over: u64,
}

/// Why a file of decisions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system could not.
    #[error("{file}: {error}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// A line is no decision.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: Problem,
    },
    /// There are more different questions than are kept.
    #[error("{file}: more than {MAX_QUESTIONS} different questions: give a part of the file")]
    TooMany {
        /// The file.
        file: String,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is longer than any record.
    #[error("longer than {MAX_LINE} bytes: this is no file of decisions")]
    TooLong,
    /// It is no record.
    #[error("no decision record: {0}")]
    Json(serde_json::Error),
    /// It is a record of another version.
    #[error("a record of version {found}: this svidecar reads version {VERSION}")]
    Version {
        /// Its version.
        found: u64,
    },
    /// A value in it is none.
    #[error("`{field}` is `{value}`, which is no {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// The fields of a record that matter here. Others may come and go within a version.
#[derive(Deserialize)]
struct Line {
    version: u64,
    id: String,
    time: String,
    kind: String,
    listener: String,
    direction: String,
    peer_addr: String,
    source: Option<String>,
    peer_id: Option<String>,
    own_id: Option<String>,
    verdict: String,
    enforced: bool,
}

impl Recorded {
    /// Reads all lines of `file`, which is called `name` in errors.
    ///
    /// # Errors
    /// The first line that is no record; nothing is skipped in silence.
    pub fn read(mut file: impl BufRead, name: &str) -> Result<Self, ReadError> {
        let mut recorded = Self::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let failed = |problem| ReadError::Line {
                file: name.to_owned(),
                line: number,
                problem,
            };
            let read = io::Read::take(&mut file, MAX_LINE).read_until(b'\n', &mut line);
            match read {
                Ok(0) => break,
                Ok(read) if read as u64 == MAX_LINE => return Err(failed(Problem::TooLong)),
                Ok(_) => {}
                Err(error) => {
                    return Err(ReadError::Io {
                        file: name.to_owned(),
                        error,
                    });
                }
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            recorded.add(&line).map_err(failed)?;
            if recorded.questions.len() > MAX_QUESTIONS {
                return Err(ReadError::TooMany {
                    file: name.to_owned(),
                });
            }
        }
        Ok(recorded)
    }

    /// Every decision that was counted.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.questions.values().map(|answers| answers.count).sum()
    }

    /// The first and the last time, RFC 3339.
    #[must_use]
    pub fn span(&self) -> Option<(&str, &str)> {
        let first = self.questions.values().map(|a| a.first.as_str()).min()?;
        let last = self.questions.values().map(|a| a.last.as_str()).max()?;
        Some((first, last))
    }

    fn add(&mut self, line: &[u8]) -> Result<(), Problem> {
        let line: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(error) => return Err(other_version(line).unwrap_or(Problem::Json(error))),
        };
        if line.version != u64::from(VERSION) {
            return Err(Problem::Version { found: line.version });
        }
        let (Some(peer), Some(own), "admission", "inbound") =
            (&line.peer_id, &line.own_id, &*line.kind, &*line.direction)
        else {
            self.passed_over += 1;
            return Ok(());
        };
        let question = Question {
            peer: id("peer_id", peer)?,
            listener: listener(line.listener)?,
            source: source(line.source.as_deref(), &line.peer_addr)?,
            own_trust_domain: id("own_id", own)?.trust_domain().clone(),
        };
        let admitted = u64::from(line.verdict == Verdict::Allow.as_str() || !line.enforced);
        match self.questions.entry(question) {
            Entry::Vacant(entry) => {
                entry.insert(Answers {
                    count: 1,
                    admitted,
                    first: line.time.clone(),
                    last: line.time,
                    last_id: line.id,
                });
            }
            Entry::Occupied(mut entry) => {
                let answers = entry.get_mut();
                answers.count += 1;
                answers.admitted += admitted;
                // RFC 3339 in UTC with a fixed number of digits: the order of texts is that of times.
                if line.time < answers.first {
                    answers.first.clone_from(&line.time);
                }
                if line.time >= answers.last {
                    answers.last = line.time;
                    answers.last_id = line.id;
                }
            }
        }
        Ok(())
    }
}

/// Whether what could not be read says that it is of another version.
fn other_version(line: &[u8]) -> Option<Problem> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let found = serde_json::from_slice::<Version>(line).ok()?.version;
    (found != u64::from(VERSION)).then_some(Problem::Version { found })
}

fn id(field: &'static str, value: &str) -> Result<SpiffeId, Problem> {
    SpiffeId::new(value).map_err(|_| Problem::Value {
        field,
        value: value.to_owned(),
        expected: "SPIFFE ID",
    })
}

/// It becomes part of policy files: what no listener can be called is refused.
fn listener(name: String) -> Result<String, Problem> {
    if crate::config::is_listener_name(&name) {
        return Ok(name);
    }
    Err(Problem::Value {
        field: "listener",
        value: name,
        expected: "listener's name",
    })
}

/// The address that policy saw: the one a PROXY header told, or else the one that connected.
fn source(told: Option<&str>, peer_addr: &str) -> Result<Option<IpAddr>, Problem> {
    if let Some(text) = told {
        return match text.parse() {
            Ok(ip) => Ok(Some(ip)),
            Err(_) => address("source", text),
        };
    }
    address("peer_addr", peer_addr)
}

fn address(field: &'static str, text: &str) -> Result<Option<IpAddr>, Problem> {
    if text == "unix" {
        return Ok(None);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok(Some(address.ip().to_canonical())),
        Err(_) => Err(Problem::Value {
            field,
            value: text.to_owned(),
            expected: "address",
        }),
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to `{}`", self.peer, self.listener)?;
        match self.source {
            Some(source) => write!(f, " from {source}"),
            None => Ok(()),
        }
    }
}
