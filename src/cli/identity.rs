//! `svidecar identity`: asks the Workload API once, and says what it gives or what is wrong.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::text::{left, parse_duration};
use super::{EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use crate::clock::rfc3339;
use crate::config::settings::Address;
use crate::config::{Environment, address};
use crate::identity::source::DENIED_ADVICE;
use crate::identity::update::{Answer, Reading, read};
use crate::identity::workload_api::{End, subscribe};

/// Ask the SPIFFE Workload API for this process's identities and show them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 identities were given and are good, 1 none came or one is bad, 2 bad usage.

Examples:
  svidecar identity --socket unix:///run/spire/sockets/agent.sock
  svidecar identity --json | jq -r '.svids[].id'")]
pub struct IdentityArgs {
    /// Address of the Workload API: `unix:///path` or `tcp://IP:port` [default: $SPIFFE_ENDPOINT_SOCKET]
    #[arg(long, value_name = "ADDR")]
    pub socket: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// Runs the command and answers the exit code.
#[must_use]
pub fn run(args: &IdentityArgs) -> u8 {
    // Output that nobody reads any more is no success.
    show(args, &mut io::stdout().lock(), &mut io::stderr().lock()).unwrap_or(EXIT_FAILED)
}

fn show(args: &IdentityArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let address = match endpoint(args) {
        Ok(address) => address,
        Err(why) => {
            complain(args, out, err, &why)?;
            return Ok(EXIT_USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(ask(&address, args.timeout));
    let now = SystemTime::now();
    let reading = answer.and_then(|answer| read(answer, None, now).map_err(|refusal| refusal.to_string()));
    match reading {
        Ok(reading) => {
            if args.json {
                writeln!(out, "{:#}", as_json(&reading))?;
            } else {
                write_text(out, &reading, now)?;
            }
            Ok(if reading.svids.iter().all(Result::is_ok) {
                EXIT_GOOD
            } else {
                EXIT_FAILED
            })
        }
        Err(why) => {
            complain(args, out, err, &why)?;
            Ok(EXIT_FAILED)
        }
    }
}

fn endpoint(args: &IdentityArgs) -> Result<Address, String> {
    let text = match &args.socket {
        Some(text) => text.clone(),
        None => Environment::of_process().endpoint_socket.ok_or(
            "no Workload API address: give `--socket unix:///path/to/agent.sock`, or set SPIFFE_ENDPOINT_SOCKET",
        )?,
    };
    address::workload_api(&text).map_err(|e| format!("`{text}`: {e}"))
}

async fn ask(address: &Address, timeout: Duration) -> Result<Answer, String> {
    let ask = async { subscribe(address).await?.next().await };
    match tokio::time::timeout(timeout, ask).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(end @ End::Denied(_))) => Err(format!("{end}\n{DENIED_ADVICE}")),
        Ok(Err(end)) => Err(end.to_string()),
        Err(_) => Err(format!(
            "`{address}` did not answer within {timeout:?}: is the agent healthy, and is this a Workload API?"
        )),
    }
}

fn complain(args: &IdentityArgs, out: &mut dyn Write, err: &mut dyn Write, why: &str) -> io::Result<()> {
    if args.json {
        writeln!(out, "{:#}", json!({ "error": why }))
    } else {
        writeln!(err, "svidecar: {why}")
    }
}

fn write_text(out: &mut dyn Write, reading: &Reading, now: SystemTime) -> io::Result<()> {
    for svid in &reading.svids {
        match svid {
            Ok(svid) => {
                writeln!(out, "{}", svid.id)?;
                if let Some(hint) = &svid.hint {
                    writeln!(out, "  hint     {}", hint.escape_debug())?;
                }
                writeln!(
                    out,
                    "  expires  {} ({})",
                    rfc3339(svid.not_after),
                    left(svid.not_after, now)
                )?;
                writeln!(out, "  key      {}", svid.key_type)?;
                writeln!(out, "  serial   {}", svid.serial)?;
            }
            Err(problem) => writeln!(out, "error: {problem}")?,
        }
    }
    for bundle in reading.bundles.values() {
        let count = bundle.authorities.len();
        let noun = if count == 1 { "authority" } else { "authorities" };
        write!(out, "bundle of {}: {count} {noun}", bundle.trust_domain)?;
        match bundle.not_after() {
            Some(end) => writeln!(out, ", expires {} ({})", rfc3339(end), left(end, now))?,
            None => writeln!(out)?,
        }
    }
    for problem in &reading.problems {
        writeln!(out, "warning: {problem}")?;
    }
    Ok(())
}

fn as_json(reading: &Reading) -> Value {
    let svids: Vec<Value> = reading
        .svids
        .iter()
        .flatten()
        .map(|svid| {
            json!({
                "id": svid.id.to_string(),
                "hint": svid.hint,
                "not_before": rfc3339(svid.not_before),
                "expires": rfc3339(svid.not_after),
                "key_type": svid.key_type,
                "serial": svid.serial,
            })
        })
        .collect();
    let bundles: Vec<Value> = reading
        .bundles
        .values()
        .map(|bundle| {
            json!({
                "trust_domain": bundle.trust_domain.to_string(),
                "authorities": bundle.authorities.len(),
                "expires": bundle.not_after().map(rfc3339),
            })
        })
        .collect();
    let errors: Vec<String> = reading
        .svids
        .iter()
        .filter_map(|svid| svid.as_ref().err())
        .map(ToString::to_string)
        .collect();
    let warnings: Vec<String> = reading.problems.iter().map(ToString::to_string).collect();
    json!({ "svids": svids, "bundles": bundles, "errors": errors, "warnings": warnings })
}

#[cfg(test)]
mod tests;
