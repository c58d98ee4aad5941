//! Peers that share no code with svidecar: go-spiffe, and the OpenTelemetry Collector's receiver; built from
//! `integration/go` beside these tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::process::{Mark, Process, try_output_of};
use super::{SOON, on_path, skip};

/// A first build compiles gRPC and its friends.
const BUILD_TIMEOUT: Duration = Duration::from_secs(300);

/// A program that is built once, or why it cannot be.
type Built = OnceLock<Result<PathBuf, String>>;

/// go-spiffe's program; none, said loudly, where there is no Go or its modules cannot be had.
pub(crate) fn program() -> Option<&'static Path> {
    static PROGRAM: Built = OnceLock::new();
    built(&PROGRAM, "gospiffe")
}

/// The collector's receiver; none, said loudly, where there is no Go or its modules cannot be had.
pub(crate) fn otlp_receiver() -> Option<&'static Path> {
    static PROGRAM: Built = OnceLock::new();
    built(&PROGRAM, "otlp-receiver")
}

fn built(program: &'static Built, name: &str) -> Option<&'static Path> {
    match program.get_or_init(|| build(name)) {
        Ok(program) => Some(program),
        Err(why) => {
            skip(&format!("{name}: {why}"));
            None
        }
    }
}

fn build(name: &str) -> Result<PathBuf, String> {
    if !on_path("go") {
        return Err("no go on PATH".to_owned());
    }
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/go");
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        try_output_of(command.current_dir(&module).args(arguments), BUILD_TIMEOUT)
    };
    go(&["mod", "download"]).map_err(|error| format!("its modules cannot be had: {error}"))?;
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What can be downloaded must build: a failure here is one of ours, not a reason to skip.
    let package = format!("./cmd/{name}");
    go(&["build", "-o", program.to_str().unwrap(), &package]).unwrap_or_else(|error| panic!("{error}"));
    Ok(program)
}

/// A running peer; killed when dropped.
pub(crate) struct Peer {
    process: Process,
}

impl Peer {
    /// Starts it with these arguments.
    pub(crate) fn start(name: &str, program: &Path, arguments: &[&str]) -> Self {
        Self {
            process: Process::start(name, Command::new(program).args(arguments)),
        }
    }

    /// Waits for an event after the mark that holds.
    pub(crate) fn wait_event_since(
        &self,
        mark: Mark,
        event: &str,
        timeout: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        self.process
            .wait_line(&format!("an event `{event}`"), mark, timeout, |line| {
                serde_json::from_str::<Value>(line)
                    .ok()
                    .filter(|value| value["event"] == event && holds(value))
            })
    }

    /// Waits for the first event of this name.
    pub(crate) fn wait_event(&self, event: &str) -> Value {
        self.wait_event_since(Mark::default(), event, SOON, |_| true)
    }

    /// All events of this name so far.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        self.process.lines_since(Mark::default(), |line| {
            serde_json::from_str::<Value>(line)
                .ok()
                .filter(|value| value["event"] == event)
        })
    }

    /// Ends it. What it said stays to be asked for.
    pub(crate) fn end(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(SOON);
    }

    /// The end of its output so far.
    pub(crate) fn mark(&self) -> Mark {
        self.process.mark()
    }
}
