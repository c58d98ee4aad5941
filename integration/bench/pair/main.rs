//! What a pair of sidecars costs, on loopback, in about a minute:
//!
//! ```text
//! cargo bench --bench pair                                    the build at hand
//! cargo bench --bench pair -- --against OTHER_BINARY          two builds, interleaved, and their ratios
//! cargo bench --bench pair -- --help
//! ```
//!
//! load -> client side (plain in, mutual TLS out) -> server side (mutual TLS in, plain out) -> sink. The two sides are
//! processes of the built program with throw-away certificates; load and sink are threads of this one. What counts is
//! the sides' CPU time: on a machine that others use, too, it repeats where wall time does not. docs/performance.md
//! says how to read the table.
//!
//! Without cargo's `--bench` (that is, by `cargo test --bench pair`) everything runs once and briefly: the figures mean
//! nothing then, but each load must get through.

mod agent;
mod both;
mod certificates;
mod load;
mod meter;
mod options;
mod report;
mod rows;
mod side;
mod sink;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use both::Subject;
use options::Options;
use report::Table;
use rows::Row;

/// A tool's result: the error is read by a person, and ends the run.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match Options::parse().checked().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let folder = tempfile::TempDir::with_prefix("svidecar-pair-")?;
    let certificates = certificates::write(folder.path())?;
    let mut subjects = Vec::new();
    for program in options.programs() {
        subjects.push(Subject::new(program, folder.path(), &certificates, options)?);
    }
    let mut table = Table::new(&subjects);
    for round in 0..options.rounds {
        for row in Row::ALL.iter().filter(|row| options.wants(**row)) {
            // The order changes with each round, so that a machine that grows slower or faster favours none.
            let fitting = subjects
                .iter()
                .enumerate()
                .filter(|(_, subject)| row.fits(subject));
            let mut order: Vec<_> = fitting.collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for (place, subject) in order {
                say(&format!("round {} of {}: {row}", round + 1, options.rounds));
                for figure in row.run(subject)? {
                    table.add(place, figure);
                }
            }
        }
    }
    table.print(&mut std::io::stdout().lock())?;
    Ok(())
}

/// Progress and errors; the table alone goes to standard output.
fn say(what: &str) {
    // Nobody may be listening: no reason to stop.
    let _ = writeln!(std::io::stderr(), "{what}");
}
