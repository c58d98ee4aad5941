//! `svidecar workload-api`: the embedded Workload API on its own, for development.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use super::text::parse_duration;
use super::{EXIT_FAILED, EXIT_GOOD};
use crate::clock::SystemClock;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::workload_api::authority::Authority;
use crate::workload_api::server::{Entry, Handle, bind, serve};

/// How long the authority lives; it goes with the process, so this only has to be long.
const AUTHORITY_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Below this, renewal would be all that happens.
const MIN_TTL: Duration = Duration::from_secs(1);

/// Serve a SPIFFE Workload API for development, with identities made up in memory. It attests nobody.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Whoever may open the socket gets every identity: never use this in production.
Each start makes a new authority; SVIDs are renewed at half of their life. X.509 only, no JWT.

Example:
  svidecar workload-api --socket /tmp/agent.sock --trust-domain example.org \\
      --id spiffe://example.org/orders --id spiffe://example.org/orders-admin=admin
  SPIFFE_ENDPOINT_SOCKET=unix:///tmp/agent.sock svidecar identity")]
pub struct WorkloadApiArgs {
    /// Path of the unix socket to serve on
    #[arg(long, value_name = "PATH", value_parser = parse_socket)]
    pub socket: PathBuf,
    /// The trust domain to make up
    #[arg(long, value_name = "NAME", value_parser = parse_trust_domain)]
    pub trust_domain: TrustDomain,
    /// How long each SVID lives
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_ttl)]
    pub ttl: Duration,
    /// An identity to hand out, with an optional hint; repeat for several, the first is the default one
    #[arg(long = "id", value_name = "SPIFFE_ID[=HINT]", required = true, value_parser = parse_entry)]
    pub entries: Vec<Entry>,
    /// Who may open the socket, as octal file permissions; by default only this user
    #[arg(long, value_name = "OCTAL", default_value = "600", value_parser = parse_mode)]
    pub mode: u32,
}

/// Serves until SIGINT or SIGTERM, and answers the exit code.
#[must_use]
pub fn run(args: &WorkloadApiArgs) -> u8 {
    serve_until_signal(args).unwrap_or_else(|error| {
        // Nothing can be done about a standard error that is gone.
        let _ = writeln!(io::stderr(), "svidecar: {error}");
        EXIT_FAILED
    })
}

fn serve_until_signal(args: &WorkloadApiArgs) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let server = start(args).map_err(io::Error::other)?;
        announce(args, &mut io::stdout())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        drop(server);
        // Ours: nobody else can have bound this path while we served. Left behind it would do no harm either.
        let _ = std::fs::remove_file(&args.socket);
        Ok(EXIT_GOOD)
    })
}

fn start(args: &WorkloadApiArgs) -> Result<Handle, String> {
    let authority = Authority::new(args.trust_domain.clone(), AUTHORITY_LIFE, SystemTime::now())
        .map_err(|e| e.to_string())?;
    let listener = bind(&args.socket, args.mode).map_err(|e| e.to_string())?;
    serve(
        listener,
        authority,
        args.entries.clone(),
        args.ttl,
        Arc::new(SystemClock),
    )
    .map_err(|e| {
        let _ = std::fs::remove_file(&args.socket);
        e.to_string()
    })
}

fn announce(args: &WorkloadApiArgs, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "WARNING: this Workload API attests nobody: whoever may open the socket gets these identities."
    )?;
    writeln!(
        out,
        "WARNING: for development only. Its authority was made up just now and goes with this process."
    )?;
    for entry in &args.entries {
        match &entry.hint {
            Some(hint) => writeln!(out, "  {} (hint {hint})", entry.id)?,
            None => writeln!(out, "  {}", entry.id)?,
        }
    }
    let path = std::path::absolute(&args.socket)?;
    writeln!(out, "export SPIFFE_ENDPOINT_SOCKET=unix://{}", path.display())?;
    out.flush()
}

fn parse_socket(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.is_empty() || path.contains("://") {
        return Err("expected the path of a unix socket".to_owned());
    }
    Ok(PathBuf::from(path))
}

fn parse_trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::new(text).map_err(|e| e.to_string())
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    if ttl < MIN_TTL {
        Err("must be at least one second".to_owned())
    } else {
        Ok(ttl)
    }
}

fn parse_entry(text: &str) -> Result<Entry, String> {
    let (id, hint) = text
        .split_once('=')
        .map_or((text, None), |(id, hint)| (id, Some(hint)));
    let id = SpiffeId::new(id).map_err(|e| e.to_string())?;
    if id.path().is_empty() {
        return Err("a workload's SPIFFE ID needs a path".to_owned());
    }
    Ok(Entry {
        id,
        hint: hint.filter(|hint| !hint.is_empty()).map(str::to_owned),
    })
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "expected octal permissions such as 600 or 666".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: WorkloadApiArgs,
    }

    fn read(line: &str) -> Result<WorkloadApiArgs, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.args)
    }

    #[test]
    fn reads_its_arguments() {
        let args = read(
            "x --socket unix:///tmp/a --trust-domain td --ttl 2m --id spiffe://td/a=in --id spiffe://td/b",
        )
        .unwrap();
        assert_eq!(args.socket, PathBuf::from("/tmp/a"));
        assert_eq!((args.ttl, args.mode), (Duration::from_secs(120), 0o600));
        let hints: Vec<_> = args.entries.iter().map(|entry| entry.hint.as_deref()).collect();
        assert_eq!(hints, [Some("in"), None]);
        for bad in [
            "x --socket /a --trust-domain td",
            "x --socket /a --trust-domain T_D! --id spiffe://td/a",
            "x --socket /a --trust-domain td --id spiffe://td",
            "x --socket /a --trust-domain td --id spiffe://td/a --ttl 10ms",
            "x --socket tcp://127.0.0.1:1 --trust-domain td --id spiffe://td/a",
            "x --socket /a --trust-domain td --id spiffe://td/a --mode 999",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn foreign_id_leaves_no_socket_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let line = format!(
            "x --socket {} --trust-domain td --id spiffe://other/a",
            path.display()
        );
        assert!(
            start(&read(&line).unwrap())
                .unwrap_err()
                .contains("not in the trust domain")
        );
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn says_loudly_that_it_attests_nobody() {
        let args = read("x --socket /tmp/a --trust-domain td --id spiffe://td/a").unwrap();
        let mut out = Vec::new();
        announce(&args, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("WARNING: this Workload API attests nobody"),
            "{text}"
        );
        assert!(text.contains("SPIFFE_ENDPOINT_SOCKET=unix:///tmp/a"), "{text}");
    }
}
