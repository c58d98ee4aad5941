//! `svidecar policy …`: questions that files alone answer.

pub mod diff;
pub mod explain;
mod files;
pub mod suggest;
pub mod test;

/// Ask questions of policy files.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Tell whether a peer would be admitted to a listener, and why
    Explain(explain::ExplainArgs),
    /// Hold policies against written expectations
    Test(test::TestArgs),
    /// Tell which recorded decisions a new policy would change
    Diff(diff::DiffArgs),
    /// Write the least rules that would admit what was seen
    Suggest(suggest::SuggestArgs),
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(command: &PolicyCommand) -> u8 {
    match command {
        PolicyCommand::Explain(args) => explain::run(args),
        PolicyCommand::Test(args) => test::run(args),
        PolicyCommand::Diff(args) => diff::run(args),
        PolicyCommand::Suggest(args) => suggest::run(args),
    }
}
