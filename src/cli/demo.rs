//! `svidecar demo`: the whole idea on one machine with nothing else installed.
//!
//! It starts the embedded Workload API, an application, and sidecars that are `svidecar run` as child processes of this
//! same executable; then it tells a story whose every verdict comes from the sidecars' own log. It leaves nothing
//! behind, however it ends.

mod application;
mod files;
mod folder;
mod journal;
mod sidecar;
mod stage;
mod story;
mod tell;

use std::io::{self, Write};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::report;
use super::{EXIT_FAILED, EXIT_GOOD};
use stage::{Addresses, Stage, StageError};
use story::{Story, Trouble};
use tell::Teller;

/// Watch it work on this machine, with nothing else installed
///
/// Starts a Workload API, a sample application and four sidecars, shows what is allowed, what is denied and why, and
/// what happens when identities and policies change. Then everything stays up to play with until Ctrl-C.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Nothing is installed and nothing is left behind: sockets are on loopback, files in a temporary folder.
Exit code: 0 when every step went as expected, 1 otherwise.

Examples:
  svidecar demo
  svidecar demo --once --show-files     the story alone, with the config and policy files it uses")]
pub struct DemoArgs {
    /// End after the story
    #[arg(long)]
    pub once: bool,
    /// Print the config and policy files that the demo writes
    #[arg(long)]
    pub show_files: bool,
}

/// How the demo ended.
enum End {
    /// By itself, or by a signal after the story; whether every step went as expected.
    Told(bool),
    /// By a signal in the middle of the story.
    Interrupted,
}

/// Why it ended before its time.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error("the sidecar of `{name}` failed: {why}{}", stage::last_words(.words))]
    Sidecar {
        name: &'static str,
        why: String,
        words: Vec<String>,
    },
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("{0}")]
    Other(String),
}

/// Runs it and returns the exit code.
#[must_use]
pub fn run(args: &DemoArgs) -> u8 {
    match in_runtime(args, &mut io::stdout()) {
        Ok(End::Told(true)) => EXIT_GOOD,
        Ok(End::Told(false) | End::Interrupted) => EXIT_FAILED,
        // Whoever reads has read enough.
        Err(DemoError::System(error)) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_GOOD,
        Err(error) => {
            report(&format!("svidecar demo: {error}"));
            EXIT_FAILED
        }
    }
}

fn in_runtime(args: &DemoArgs, out: &mut dyn Write) -> Result<End, DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before anything exists that would have to be taken down.
        let mut signals = Signals::new()?;
        let mut stage = Stage::new()?;
        let mut teller = Teller::new(out, super::terminal::wants_color());
        let mut told = None;
        let result = tokio::select! {
            result = perform(args, &mut stage, &mut teller, &mut told) => result,
            () = signals.next() => Ok(told.map_or(End::Interrupted, End::Told)),
        };
        stage.end().await;
        if matches!(result, Ok(End::Interrupted)) || !args.once {
            teller.say("\nEnded; nothing is left behind.")?;
        }
        result
    })
}

/// Tells the story, and what happens after it. `told` is set when the story has ended.
async fn perform(
    args: &DemoArgs,
    stage: &mut Stage,
    teller: &mut Teller<'_>,
    told: &mut Option<bool>,
) -> Result<End, DemoError> {
    teller.title("svidecar demo: mutual TLS between workloads, on this machine alone")?;
    teller.say(SCENE)?;
    let at = stage.set_up().await?;
    if args.show_files {
        show_files(stage, teller)?;
    }
    let good = match Story::new(stage, at, teller).tell().await {
        Ok(good) => good,
        Err(Trouble::Output(error)) => return Err(error.into()),
        Err(Trouble::Ended(name)) => {
            let why = stage.how_it_ended(name).await;
            return Err(DemoError::Sidecar {
                name,
                why,
                words: stage.journal.last_words(name, 10),
            });
        }
        Err(Trouble::Unexpected(what)) => return Err(DemoError::Other(what)),
    };
    *told = Some(good);
    if args.once {
        return Ok(End::Told(good));
    }
    let mut mark = stage.journal.mark();
    teller.say(&playground(stage, &at))?;
    loop {
        let (news, next) = stage.journal.news(mark).await;
        mark = next;
        for entry in news {
            teller.news(entry.sidecar, &entry.said)?;
        }
    }
}

const SCENE: &str = "
   application ───▶ its sidecar ════ mutual TLS 1.3 ════▶ sidecar ───▶ orders
   storefront       svidecar run     both ends prove     svidecar run
   reports                           who they are        the policy file
   agency                            by SPIFFE SVIDs     decides

Identities come from a Workload API that the demo serves, as SPIRE's agent does.
✓ marks what a sidecar recorded and the demo expected.";

fn show_files(stage: &Stage, teller: &mut Teller<'_>) -> io::Result<()> {
    for name in [
        "orders.yaml",
        files::POLICY_FILE,
        "storefront.yaml",
        "reports.yaml",
        "agency.yaml",
    ] {
        let path = stage.path(name);
        teller.title(&format!("\n── {}", path.display()))?;
        teller.say(std::fs::read_to_string(path)?.trim_end())?;
    }
    Ok(())
}

/// What there is to do while everything stays up.
fn playground(stage: &Stage, at: &Addresses) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "svidecar".to_owned());
    let (policy, config) = (stage.path(files::POLICY_FILE), stage.path("orders.yaml"));
    format!(
        "
Everything stays up until Ctrl-C, which removes all of it. Meanwhile:

  look   {admin:38} what the sidecar of orders knows
  call   {storefront:38} as storefront
         {reports:38} as reports
  edit   {policy}
  ask    {program} policy explain --to orders \\
           --from spiffe://example.org/reports \\
           --config {config}

What happens is told here.",
        admin = format!("http://{}/", at.admin),
        storefront = format!("curl http://{}/", at.storefront),
        reports = format!("curl http://{}/", at.reports),
        policy = policy.display(),
        config = config.display(),
    )
}

/// Every signal that asks for the end. Held to the last, so that a second Ctrl-C does not stop the cleaning up.
struct Signals([Signal; 4]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
