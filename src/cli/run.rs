//! `svidecar run`: the sidecar.

use std::path::{Path, PathBuf};

use super::output::report;
use super::{EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use crate::app::{self, AppError, OpenSockets};
use crate::audit::Lock;
use crate::handover::{Link, Parent, ToParent, activation};

/// Run the sidecar
///
/// Runs until SIGTERM or SIGINT, then lets open connections finish up to `limits.drain_timeout`; a second signal ends
/// at once. SIGHUP reads config, policy, deny list and candidate again (they are also read when they change).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 after a signal, 1 when something failed, 2 when config or policy have errors.\n\n\
Example:\n  svidecar run --config /etc/svidecar/svidecar.yaml"
)]
pub struct RunArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// As the child of `svidecar supervise`, which is at standard input
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// Runs it.
#[must_use]
pub fn run(args: &RunArgs) -> u8 {
    let (open, parent) = match sockets(args.supervised) {
        Ok(sockets) => sockets,
        Err(why) => {
            report(&format!("svidecar: {why}"));
            return EXIT_FAILED;
        }
    };
    let result = app::start(&args.config, open)
        .map(|started| started.supervised_by(parent.clone()))
        .and_then(app::Started::run);
    let Err(error) = result else { return EXIT_GOOD };
    if let Some(parent) = parent {
        parent.tell(&ToParent::Failed {
            why: error.to_string(),
        });
    }
    failed(&args.config, error)
}

/// The sockets that somebody else has opened for us, and the supervisor where it was that one.
fn sockets(supervised: bool) -> Result<(OpenSockets, Option<Parent>), String> {
    if supervised {
        let link = Link::of_standard_input().map_err(|error| format!("--supervised: {error}"))?;
        let (parent, dowry) =
            Parent::greet(link).map_err(|error| format!("sockets of the supervisor: {error}"))?;
        let lock = dowry.audit_lock.map(|(path, lock)| (path, Lock(lock)));
        let open = dowry.sockets.into_iter().collect::<OpenSockets>();
        let open = open.with_passed(dowry.passed).sharing(lock);
        return Ok((open, Some(parent)));
    }
    let sockets = activation::inherited().map_err(|error| error.to_string())?;
    let passed: Vec<_> = sockets.iter().map(|(address, _)| address.clone()).collect();
    let open: OpenSockets = sockets.into_iter().collect();
    Ok((open.with_passed(passed), None))
}

/// Says why nothing runs, and gives the exit code.
pub(super) fn failed(config: &Path, error: AppError) -> u8 {
    match error {
        AppError::Configuration(diagnostics) => {
            for diagnostic in &diagnostics {
                report(&format!("{diagnostic}\n"));
            }
            report(&format!(
                "svidecar: not started: `{}` has errors",
                config.display()
            ));
            EXIT_USAGE
        }
        error => {
            report(&format!("svidecar: {error}"));
            EXIT_FAILED
        }
    }
}
