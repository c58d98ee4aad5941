//! `svidecar run`: the sidecar.

use std::path::PathBuf;

use super::output::report;
use super::{EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use crate::app::{self, AppError, OpenSockets};

/// Run the sidecar
///
/// Runs until SIGTERM or SIGINT, then lets open connections finish up to `limits.drain_timeout`; a second signal ends
/// at once. SIGHUP reads the policy again (it is also read when its files change).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 after a signal, 1 when something failed, 2 when config or policy have errors.\n\n\
Example:\n  svidecar run --config /etc/svidecar/svidecar.yaml"
)]
pub struct RunArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs it.
#[must_use]
pub fn run(args: &RunArgs) -> u8 {
    match app::start(&args.config, OpenSockets::default()).and_then(app::Started::run) {
        Ok(()) => EXIT_GOOD,
        Err(AppError::Configuration(diagnostics)) => {
            for diagnostic in &diagnostics {
                report(&format!("{diagnostic}\n"));
            }
            report(&format!(
                "svidecar: not started: `{}` has errors",
                args.config.display()
            ));
            EXIT_USAGE
        }
        Err(error) => {
            report(&format!("svidecar: {error}"));
            EXIT_FAILED
        }
    }
}
