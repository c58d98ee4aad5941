//! `svidecar policy suggest`: the least rules that would admit what was seen.

use std::path::PathBuf;

use super::super::output::{print, report};
use super::super::{EXIT_GOOD, EXIT_USAGE};
use super::diff::read_decisions;
use crate::trial::suggest::{Scope, suggest};

/// Write the least rules that would admit what was seen
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Prints a policy file for somebody to review. Every peer that was let in stands there by its exact ID with the listeners
it used: nothing is generalized, and nothing is applied.

A way to begin: run with `mode: audit` and an empty policy for a while, then suggest from the decisions.

Exit code: 0; 2 when the file is wrong.

Example:
  svidecar policy suggest --from /var/log/svidecar/decisions.jsonl > suggested.yaml")]
pub struct SuggestArgs {
    /// The recorded decisions, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Also admit peers that were only ever refused
    #[arg(long)]
    pub refused: bool,
    /// Only from the addresses that peers came from
    #[arg(long)]
    pub sources: bool,
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &SuggestArgs) -> u8 {
    match read_decisions(&args.from) {
        Ok(recorded) => {
            let scope = Scope {
                refused: args.refused,
                sources: args.sources,
            };
            let text = suggest(&recorded, scope, &args.from.display().to_string());
            print(text.trim_end(), EXIT_GOOD)
        }
        Err(problem) => {
            report(&format!("error: {problem}"));
            EXIT_USAGE
        }
    }
}
