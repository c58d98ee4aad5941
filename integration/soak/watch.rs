//! Watches the sidecars during the run: what they say, what they use, and whether they live.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::process::Mark;
use crate::support::sidecar::Sidecar;
use crate::world::World;

const LOOK: Duration = Duration::from_millis(200);
/// Measuring asks the admin endpoint, which costs a little.
const MEASURE: Duration = Duration::from_secs(1);
/// What is told of a process that fell.
const TAIL: usize = 25;

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes of memory.
    pub(crate) resident: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl Usage {
    /// Of a sidecar now; none while it cannot answer.
    pub(crate) fn of(sidecar: &Sidecar) -> Option<Self> {
        let text = sidecar.get("/metrics").ok()?.body;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let number: f64 = line.trim().parse().ok()?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole numbers"
            )]
            Some(number as u64)
        };
        Some(Self {
            resident: number("process_resident_memory_bytes ")?,
            descriptors: number("process_open_fds ")?,
            threads: number("process_threads ")?,
        })
    }

    fn highest(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }
}

/// What one sidecar said and used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Records of connections, by their reason.
    pub(crate) endings: BTreeMap<String, u64>,
    /// Warnings and errors, by their text.
    pub(crate) complaints: BTreeMap<String, u64>,
    pub(crate) highest: Usage,
    mark: Mark,
}

/// At work until it is stopped.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<[Seen; 2]>>,
}

impl Watch {
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (stopped, world) = (Arc::clone(&stop), Arc::clone(world));
        let thread = std::thread::spawn(move || {
            let mut seen: [Seen; 2] = Default::default();
            let mut measured = Instant::now();
            loop {
                // Asked before the last look, so that nothing is missed.
                let last = stopped.load(Ordering::SeqCst);
                let measures = measured.elapsed() >= MEASURE;
                for ((name, sidecar), seen) in world.sidecars().into_iter().zip(&mut seen) {
                    if let Err(why) = look(sidecar, seen) {
                        world.alarm.raise(format!("{name}: {why}"));
                    }
                    if measures && let Some(usage) = Usage::of(sidecar) {
                        seen.highest = seen.highest.highest(usage);
                    }
                }
                if measures {
                    measured = Instant::now();
                }
                if last {
                    return seen;
                }
                std::thread::sleep(LOOK);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Looks a last time.
    pub(crate) fn stop(mut self) -> [Seen; 2] {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Its part of the world goes before the test's, whose end tells what the sidecars said last.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes what was said since the last look; an error where the sidecar panicked or is no more.
fn look(sidecar: &Sidecar, seen: &mut Seen) -> Result<(), String> {
    let (process, mark) = (sidecar.process(), seen.mark);
    seen.mark = process.mark();
    // A line that comes in between is taken at the next look: as many are taken as there were.
    let mut left = seen.mark.since(mark);
    let lines = process.lines_since(mark, |line| {
        left = left.checked_sub(1)?;
        Some(line.to_owned())
    });
    let fallen = lines.iter().find(|line| line.contains("panicked")).cloned();
    for line in &lines {
        take(line, seen);
    }
    let gone = process.output_ended().then(|| "it has ended".to_owned());
    match fallen.or(gone) {
        None => Ok(()),
        Some(why) => {
            let all = process.lines_since(Mark::default(), |line| Some(line.to_owned()));
            let tail = all[all.len().saturating_sub(TAIL)..].join("\n");
            Err(format!("{why}\n{tail}"))
        }
    }
}

fn take(line: &str, seen: &mut Seen) {
    let Ok(line) = serde_json::from_str::<Value>(line) else {
        *seen.complaints.entry(line.to_owned()).or_default() += 1;
        return;
    };
    if line["target"] == "svidecar::connection" {
        let reason = line["reason"].as_str().unwrap_or("none").to_owned();
        *seen.endings.entry(reason).or_default() += 1;
    } else if line["level"] == "WARN" || line["level"] == "ERROR" {
        let (level, message) = (&line["level"], line["message"].as_str().unwrap_or_default());
        let text = format!(
            "{} {}",
            level.as_str().unwrap_or_default(),
            without_numbers(message)
        );
        *seen.complaints.entry(text).or_default() += 1;
    }
}

/// A message without what makes each of its kind another one: numbers, and where our folders are.
fn without_numbers(message: &str) -> String {
    let mut text = String::new();
    for word in message.split(' ') {
        if !text.is_empty() {
            text.push(' ');
        }
        if let Some(at) = word.find("/svidecar-") {
            let folder = word[at + 1..].split_once('/').map_or("", |(_, rest)| rest);
            text += &format!("…/{folder}");
            continue;
        }
        for letter in word.chars() {
            let letter = if letter.is_ascii_digit() { '#' } else { letter };
            if letter != '#' || !text.ends_with('#') {
                text.push(letter);
            }
        }
    }
    text.chars().take(180).collect()
}
