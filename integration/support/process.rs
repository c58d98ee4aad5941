//! A child process whose output can be waited for, and which never outlives its owner.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The lines that are kept of one process; older ones make room.
const KEPT_LINES: usize = 50_000;
/// What is shown of each process when a test fails.
const SHOWN_LINES: usize = 60;
/// A line is cut here: none of ours is this long.
const LONGEST_LINE: u64 = 1 << 20;

/// A running program. Killed, by its own process ID, when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

/// A place in a process's output: what came before it is old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

impl Mark {
    /// How many lines lie between an earlier mark and this one.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[derive(Default)]
struct Output {
    state: Mutex<OutputState>,
    grown: Condvar,
}

#[derive(Default)]
struct OutputState {
    lines: VecDeque<String>,
    /// The number of lines that made room.
    dropped: u64,
    /// The streams that have ended.
    ended: u8,
}

impl Output {
    fn read_from(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while let Ok(1..) = stream.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                output.update(|state| {
                    if state.lines.len() == KEPT_LINES {
                        state.lines.pop_front();
                        state.dropped += 1;
                    }
                    state.lines.push_back(text);
                });
            }
            output.update(|state| state.ended += 1);
        });
    }

    fn update(&self, change: impl FnOnce(&mut OutputState)) {
        change(&mut self.state.lock().unwrap());
        self.grown.notify_all();
    }
}

impl Process {
    /// Starts the program with both output streams captured.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        Self::start_with(name, command, Stdio::null())
    }

    /// Starts the program with this as its standard input.
    pub(crate) fn start_with(name: &str, command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("`{command:?}` does not start: {error}"));
        let output = Arc::<Output>::default();
        output.read_from(child.stdout.take().unwrap());
        output.read_from(child.stderr.take().unwrap());
        Self {
            name: name.to_owned(),
            child,
            output,
        }
    }

    /// The name that failures call it by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The end of the output so far.
    pub(crate) fn mark(&self) -> Mark {
        let state = self.output.state.lock().unwrap();
        Mark(state.dropped + state.lines.len() as u64)
    }

    /// Every value that the lines after the mark give, as far as they are written now.
    pub(crate) fn lines_since<T>(&self, mark: Mark, take: impl FnMut(&str) -> Option<T>) -> Vec<T> {
        let state = self.output.state.lock().unwrap();
        let old = usize::try_from(mark.0.saturating_sub(state.dropped)).unwrap();
        state
            .lines
            .iter()
            .skip(old)
            .map(String::as_str)
            .filter_map(take)
            .collect()
    }

    /// Waits for a line after the mark that gives a value.
    pub(crate) fn wait_line<T>(
        &self,
        what: &str,
        mark: Mark,
        timeout: Duration,
        mut take: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + timeout;
        let mut next = mark.0;
        let mut state = self.output.state.lock().unwrap();
        loop {
            let old = usize::try_from(next.saturating_sub(state.dropped)).unwrap();
            if let Some(value) = state.lines.iter().skip(old).find_map(|line| take(line)) {
                return value;
            }
            next = state.dropped + state.lines.len() as u64;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended == 2 {
                let how = if left.is_zero() {
                    format!("within {timeout:?}")
                } else {
                    "before it ended".to_owned()
                };
                drop(state);
                panic!("{} did not write {how}: {what}", self.name);
            }
            state = self.output.grown.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Whether both of its output streams have ended, which mostly means that it has.
    pub(crate) fn output_ended(&self) -> bool {
        self.output.state.lock().unwrap().ended == 2
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {timeout:?}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end, as a service manager does, and waits.
    pub(crate) fn terminate(&mut self, timeout: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(timeout)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let state = self.output.state.lock().unwrap();
            eprintln!("--- the last lines of {}", self.name);
            for line in state
                .lines
                .iter()
                .skip(state.lines.len().saturating_sub(SHOWN_LINES))
            {
                eprintln!("{line}");
            }
        }
    }
}

/// Runs a short command to its end and gives its standard output; panics when it fails or takes too long.
pub(crate) fn output_of(command: &mut Command, timeout: Duration) -> String {
    match try_output_of(command, timeout) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// Like [`output_of`]; a failed command is an error that tells what it printed.
pub(crate) fn try_output_of(command: &mut Command, timeout: Duration) -> Result<String, String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`{shown}` does not start: {error}"))?;
    let out = read_in_background(child.stdout.take().unwrap());
    let err = read_in_background(child.stderr.take().unwrap());
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("`{shown}` did not end within {timeout:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    if status.success() {
        Ok(out)
    } else {
        Err(format!("`{shown}` ended with {status}:\n{out}{err}"))
    }
}

fn read_in_background(stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.take(16 << 20).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
