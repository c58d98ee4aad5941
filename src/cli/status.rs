//! `svidecar status`: what the page shows, in a terminal.
//!
//! Asks the admin endpoint for the status and the last denials, and writes them for people, or as JSON. Watching, it asks
//! each second and draws over what it drew before, on the terminal's other screen, which it leaves as it found it.

mod denials;
mod foot;
mod read;
mod screen;
mod sections;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::time::{Duration, Instant};

use serde_json::Value;

use super::admin_client::{self, AskError, parse_address};
use super::output::{print, report};
use super::{EXIT_FAILED, EXIT_GOOD, terminal};
use crate::config::settings::Address;
use screen::{Look, render};

/// For asking and reading together.
const TIMEOUT: Duration = Duration::from_secs(4);
/// More than any status has.
const MAX_ANSWER: usize = 32 << 20;
/// Connections that are asked for.
const CONNECTIONS: usize = 20;
/// Denials that are asked for.
const DENIALS: usize = 20;

/// Show what a running sidecar does: identity, connections, peers, policy
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
With --watch it is drawn anew each second, with rates, until Ctrl-C; where standard output is no terminal each status is \
appended. Colours appear on a terminal only, and not when NO_COLOR is set.

Exit code: 0 when the sidecar answered, 1 when nobody does.

Examples:
  svidecar status
  svidecar status --watch --admin unix:///run/svidecar/admin.sock
  svidecar status --json | jq .policy.rules")]
pub struct StatusArgs {
    /// The sidecar's admin endpoint: IP:port or unix:///path
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15000", value_parser = parse_address)]
    pub admin: Address,
    /// Show it each second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Print JSON: the answer of /api/v1/status; watching, one line a second
    #[arg(long)]
    pub json: bool,
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &StatusArgs) -> u8 {
    if args.watch {
        return watch::run(args);
    }
    match ask(args) {
        Ok(asked) if args.json => print(&format!("{:#}", asked.status), EXIT_GOOD),
        Ok(asked) => {
            let look = Look {
                width: terminal::size().map(|(columns, _)| columns),
                rows: None,
                color: terminal::wants_color(),
            };
            print(render(&asked, None, look).trim_end(), EXIT_GOOD)
        }
        Err(error) => {
            report(&format!("svidecar: {error}"));
            EXIT_FAILED
        }
    }
}

/// What a sidecar answered.
#[derive(Clone, Debug)]
struct Asked {
    /// `/api/v1/status`
    status: Value,
    /// The last denials, the newest first.
    denials: Vec<Value>,
}

fn ask(args: &StatusArgs) -> Result<Asked, AskError> {
    let deadline = Instant::now() + TIMEOUT;
    let get = |path: &str| -> Result<Value, AskError> {
        let odd = |what: String| AskError::NotSvidecar {
            address: args.admin.clone(),
            what,
        };
        let answer = admin_client::ask(&args.admin, path, deadline, MAX_ANSWER)?;
        let answer = admin_client::read(&args.admin, &answer)?;
        if answer.status != 200 {
            return Err(admin_client::refusal(&args.admin, path, &answer));
        }
        serde_json::from_str(&answer.body).map_err(|_| odd(format!("no JSON at {path}")))
    };
    let status = get(&format!("/api/v1/status?connections={CONNECTIONS}"))?;
    let denials = if args.json {
        Value::Null
    } else {
        get(&format!("/api/v1/decisions?verdict=deny&limit={DENIALS}"))?
    };
    Ok(Asked {
        denials: read::list(&denials, "decisions").to_vec(),
        status,
    })
}
