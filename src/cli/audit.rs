//! `svidecar audit verify`: is this the log that was written?

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::output::{print, report};
use super::{EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use crate::audit::verify::{self, Expectations, MAX_UNSIGNED, Mismatch, Summary};
use crate::spiffe::TrustDomain;
use crate::tls::verify::TrustStore;

/// The fewest digits of a hash that are taken for one: what the metric holds.
const HASH_DIGITS: std::ops::RangeInclusive<usize> = 12..=64;

/// Look after audit logs.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check an audit log's chain of hashes and its signed checkpoints
    Verify(VerifyArgs),
}

/// Checks an audit log's chain of hashes and its signed checkpoints, and says the first entry that does not fit.
///
/// The log's file is enough: its older segments are found beside it. Files that were carried elsewhere are named in the
/// order in which they were written, or by a pattern: their names sort so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 when everything fits, 1 when something does not or cannot be read, 2 for bad usage.

The chain shows every line that was changed, put in, taken out or moved. Signatures show that a \
holder of the SVID's key wrote it, and only --bundle asks for them; that the end was not cut off \
shows only against a hash that was kept elsewhere.

Examples:
  svidecar audit verify /var/log/svidecar/audit.jsonl
  svidecar audit verify audit.jsonl --bundle example.org=ca.pem --signer spiffe://example.org/orders
      it must be signed, with SVIDs of that bundle, and by nobody else
  svidecar audit verify audit.jsonl --head $(printf %012x 187723572702975)
      the value that svidecar_audit_head_hash had: the log must still have that line")]
pub struct VerifyArgs {
    /// The log's file, or files of it in their order
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The hash of a line that must be there, or its first 12 digits at least
    #[arg(long, value_name = "HASH", value_parser = parse_head)]
    pub head: Option<String>,
    /// The authorities that signers must have their SVIDs from, in PEM
    #[arg(long, value_name = "TRUST_DOMAIN=FILE")]
    pub bundle: Option<String>,
    /// Who may have signed; several times for several. If left out: one SPIFFE ID, whichever it is
    #[arg(long, value_name = "SPIFFE_ID")]
    pub signer: Vec<String>,
    /// With --bundle: take entries that nobody signed, as of a sidecar that held no SVID
    #[arg(long)]
    pub allow_unsigned: bool,
    /// Only the files that are named, not the older segments beside them
    #[arg(long)]
    pub only: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(command: &AuditCommand) -> u8 {
    match command {
        AuditCommand::Verify(args) => match check(args) {
            Ok((text, code)) => print(text.trim_end(), code),
            Err(problem) => {
                report(&format!("svidecar: {problem}"));
                EXIT_USAGE
            }
        },
    }
}

fn parse_head(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if HASH_DIGITS.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err("a hash is 12 to 64 hexadecimal digits; the metric's number becomes them by `printf %012x NUMBER`".to_owned())
    }
}

/// What is printed, and the exit code.
fn check(args: &VerifyArgs) -> Result<(String, u8), String> {
    let expectations = Expectations {
        head: args.head.clone(),
        bundle: args.bundle.as_deref().map(read_bundle).transpose()?,
        signers: args.signer.clone(),
        max_unsigned: (args.bundle.is_some() && !args.allow_unsigned).then_some(MAX_UNSIGNED),
    };
    let mut result = verify::verify(&files(args)?, &expectations);
    if result.is_err() {
        // A log that is written meanwhile may have ended a file between our looking for it and reading it.
        result = verify::verify(&files(args)?, &expectations);
    }
    let code = if result.is_ok() { EXIT_GOOD } else { EXIT_FAILED };
    let text = if args.json {
        format!("{:#}", json_of(&result, args))
    } else {
        text_of(&result, args)
    };
    Ok((text, code))
}

fn files(args: &VerifyArgs) -> Result<Vec<PathBuf>, String> {
    if args.only {
        return Ok(args.files.clone());
    }
    let mut files = Vec::new();
    for path in &args.files {
        let found = verify::files_of(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for file in found {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

fn read_bundle(text: &str) -> Result<Arc<TrustStore>, String> {
    let (trust_domain, path) = text.split_once('=').ok_or_else(|| {
        format!("--bundle `{text}`: expected `TRUST_DOMAIN=FILE`, such as `example.org=bundle.pem`")
    })?;
    let trust_domain =
        TrustDomain::new(trust_domain).map_err(|error| format!("--bundle `{text}`: {error}"))?;
    let pem = std::fs::read(Path::new(path)).map_err(|error| format!("--bundle: {path}: {error}"))?;
    verify::trust_store(trust_domain, &pem).map_err(|error| format!("--bundle: {path}: {error}"))
}

fn text_of(result: &Result<Summary, Mismatch>, args: &VerifyArgs) -> String {
    let mut out = String::new();
    match result {
        Err(mismatch) => {
            let _ = writeln!(out, "does not fit: {mismatch}");
        }
        Ok(summary) => {
            let counted = |number: u64, one: &str, many: &str| {
                format!("{number} {}", if number == 1 { one } else { many })
            };
            let files = u64::try_from(summary.files).unwrap_or(u64::MAX);
            let _ = writeln!(
                out,
                "fits: {} in {}, {}",
                counted(summary.entries, "entry", "entries"),
                counted(files, "file", "files"),
                counted(summary.checkpoints, "good checkpoint", "good checkpoints"),
            );
            if let Some(first) = summary.first.filter(|first| *first > 0) {
                let _ = writeln!(out, "begins with entry {first}: what was before it is not here");
            }
            if let Some((seq, hash, time)) = &summary.last {
                let _ = writeln!(out, "head: {hash} (entry {seq}, {time})");
            }
            for (signer, checkpoints) in &summary.signers {
                let _ = writeln!(
                    out,
                    "signed by {signer}: {}",
                    counted(*checkpoints, "checkpoint", "checkpoints")
                );
            }
            if summary.unsigned > 0 {
                let after = counted(summary.unsigned, "entry comes", "entries come");
                let _ = writeln!(out, "{after} after the last checkpoint: chained, not signed");
            }
            if summary.checkpoints > 0 && args.bundle.is_none() {
                let _ = writeln!(
                    out,
                    "whose SVIDs these are was not checked: name a bundle (--bundle)"
                );
            }
            if args.head.is_none() {
                let _ = writeln!(
                    out,
                    "whether the end was cut off was not checked: name a hash that was kept (--head)"
                );
            }
            if summary.lost > 0 {
                let _ = writeln!(
                    out,
                    "the log says that {} could not be kept",
                    counted(summary.lost, "entry", "entries")
                );
            }
            if summary.repairs > 0 {
                let _ = writeln!(
                    out,
                    "a torn end was taken out {}",
                    counted(summary.repairs, "time", "times")
                );
            }
            if summary.torn > 0 {
                let _ = writeln!(
                    out,
                    "{} behind the last whole line: of a write under way, or cut short by a crash",
                    counted(summary.torn, "byte", "bytes")
                );
            }
        }
    }
    out
}

fn json_of(result: &Result<Summary, Mismatch>, args: &VerifyArgs) -> serde_json::Value {
    match result {
        Err(mismatch) => {
            let place = match mismatch {
                Mismatch::Entry { path, line, .. } => Some((path.display().to_string(), *line)),
                _ => None,
            };
            json!({
                "fits": false,
                "problem": mismatch.to_string(),
                "file": place.as_ref().map(|(file, _)| file),
                "line": place.as_ref().map(|(_, line)| line),
            })
        }
        Ok(summary) => json!({
            "fits": true,
            "files": summary.files,
            "entries": summary.entries,
            "first": summary.first,
            "last": summary.last.as_ref().map(|(seq, ..)| seq),
            "head": summary.last.as_ref().map(|(_, hash, _)| hash.to_string()),
            "time": summary.last.as_ref().map(|(.., time)| time),
            "checkpoints": summary.checkpoints,
            "unsigned": summary.unsigned,
            "signers": summary.signers,
            "lost": summary.lost,
            "repairs": summary.repairs,
            "torn_bytes": summary.torn,
            "bundle_checked": args.bundle.is_some(),
            "head_checked": args.head.is_some(),
        }),
    }
}

#[cfg(test)]
mod tests;
