//! `svidecar completions`: what a shell completes a command line with.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::output::print;
use super::{Cli, EXIT_GOOD};

/// Print the completions of a shell
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Put them where your shell looks for them:
  svidecar completions bash > /etc/bash_completion.d/svidecar
  svidecar completions zsh  > /usr/local/share/zsh/site-functions/_svidecar
  svidecar completions fish > ~/.config/fish/completions/svidecar.fish")]
pub struct CompletionsArgs {
    /// Of which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The script for a shell.
#[must_use]
pub fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "svidecar", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &CompletionsArgs) -> u8 {
    print(script(args.shell).trim_end(), EXIT_GOOD)
}
