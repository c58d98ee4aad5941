//! The report of a run, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clients::{PATIENCE, kinds};
use crate::crowd::CROWD_TTL;
use crate::quiet::{HELPERS, MARGIN};
use crate::support::SOON;
use crate::support::process::try_output_of;
use crate::support::sidecar::SVIDECAR;
use crate::troubles::Trouble;
use crate::watch::{Seen, Usage};
use crate::weather::Effect;
use crate::world::{TTL, World};

/// The line behind which a file of people's own holds the last run.
const MARK: &str = "<!-- What follows is written by the run itself. -->\n";

/// Writes the report: behind the mark, where the file has one; otherwise it is all of the file.
pub(crate) fn put(path: &Path, run: &str) {
    let before = fs::read_to_string(path).unwrap_or_default();
    let kept = before.find(MARK).map_or("", |at| &before[..at + MARK.len()]);
    fs::write(path, format!("{kept}\n{run}")).unwrap();
}

/// What there is to report.
pub(crate) struct Run<'a> {
    pub(crate) world: &'a World,
    pub(crate) troubles: &'a [Trouble],
    pub(crate) took: Duration,
    pub(crate) start: [Usage; 2],
    pub(crate) end: [Usage; 2],
    pub(crate) seen: &'a [Seen; 2],
    pub(crate) knocks: u64,
    pub(crate) audit: &'a BTreeMap<&'static str, String>,
}

impl Run<'_> {
    /// All of it.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        self.head(&mut text);
        self.troubles(&mut text);
        self.clients(&mut text);
        self.usage(&mut text);
        self.endings(&mut text);
        text
    }

    fn head(&self, text: &mut String) {
        let mut version = Command::new(SVIDECAR);
        let version = try_output_of(version.arg("--version"), SOON).unwrap();
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let options = &self.world.options;
        let _ = writeln!(
            text,
            "## The run\n\n`{}`, {profile} build, {cores} cores, seed {}: {} s of trouble, a crowd of {}, SVIDs of {} s (of {} s while the crowd \
             is there).\n",
            version.lines().next().unwrap_or_default(),
            options.seed,
            self.took.as_secs(),
            options.crowd,
            TTL.as_secs(),
            CROWD_TTL.as_secs(),
        );
    }

    fn troubles(&self, text: &mut String) {
        text.push_str("| trouble | times | seconds | may do to clients | what must hold, and held |\n| --- | --- | --- | --- | --- |\n");
        for trouble in self.troubles {
            let may = match trouble.effect {
                Effect::NONE => "nothing",
                Effect { cuts: false, .. } => "refuse",
                Effect { .. } => "refuse, cut",
            };
            let (times, seconds) = self.world.weather.totals(trouble.name);
            let held = match (trouble.missing)(self.world) {
                Some(why) => format!("NOT RUN: {why}"),
                None if times == 0 => format!("NOT RUN; {}", trouble.holds),
                None => trouble.holds.to_owned(),
            };
            let _ = writeln!(
                text,
                "| {}: {} | {times} | {seconds:.0} | {may} | {held} |",
                trouble.name, trouble.what
            );
        }
    }

    fn clients(&self, text: &mut String) {
        let ledger = &self.world.ledger;
        let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::SeqCst);
        text.push_str("\n| clients | |\n| --- | --- |\n");
        let kinds: Vec<_> = kinds()
            .iter()
            .map(|kind| format!("{} {}", kind.how_many, kind.name))
            .collect();
        let mut row = |what: &str, value: String| {
            let _ = writeln!(text, "| {what} | {value} |");
        };
        row("at work throughout, beside the crowd", kinds.join(", "));
        row("connections", count(&ledger.connections).to_string());
        row(
            "requests answered, and answered right",
            count(&ledger.answered).to_string(),
        );
        row(
            "tries refused by a trouble that may, and repeated",
            count(&ledger.refused).to_string(),
        );
        row(
            "tries cut by a trouble that may, and repeated",
            count(&ledger.cut).to_string(),
        );
        row(
            "the longest wait for an answer, with all tries",
            format!(
                "{:.1} s (patience: {} s)",
                ledger.longest().as_secs_f64(),
                PATIENCE.as_secs()
            ),
        );
        row("requests lost", count(&ledger.lost).to_string());
        row(
            "knocks of a stranger; of these answered, or heard by the application",
            format!("{}; {}", self.knocks, self.world.application.strangers()),
        );
    }

    fn usage(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\nAt rest after the warm-up, at the highest, at rest at the end (memory may be {} MiB more \
             than at the start, threads {HELPERS}):\n\n\
             | sidecar | memory, MiB | descriptors | threads | audit log |\n| --- | --- | --- | --- | --- |",
            MARGIN >> 20
        );
        for (n, (name, _)) in self.world.sidecars().into_iter().enumerate() {
            let three = |of: fn(&Usage) -> u64, unit: u64| {
                let numbers = [self.start[n], self.seen[n].highest, self.end[n]].map(|usage| of(&usage));
                numbers
                    .map(|number| match unit {
                        1 => number.to_string(),
                        #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
                        unit => format!("{:.1}", number as f64 / unit as f64),
                    })
                    .join(", ")
            };
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} |",
                three(|usage| usage.resident, 1 << 20),
                three(|usage| usage.descriptors, 1),
                three(|usage| usage.threads, 1),
                self.audit[name]
            );
        }
    }

    fn endings(&self, text: &mut String) {
        for (title, of) in [
            (
                "How connections ended",
                (|seen| &seen.endings) as fn(&Seen) -> &BTreeMap<String, u64>,
            ),
            ("What the sidecars warned of", |seen| &seen.complaints),
        ] {
            let _ = writeln!(text, "\n| {title} | storefront | orders |\n| --- | --- | --- |");
            let [storefront, orders] = [of(&self.seen[0]), of(&self.seen[1])];
            let mut all: Vec<_> = storefront.keys().chain(orders.keys()).collect();
            all.sort();
            all.dedup();
            for key in all {
                let number = |counts: &BTreeMap<String, u64>| counts.get(key).copied().unwrap_or(0);
                let _ = writeln!(
                    text,
                    "| `{}` | {} | {} |",
                    key.replace('|', "/").replace('`', "'"),
                    number(storefront),
                    number(orders)
                );
            }
        }
    }
}
