//! `svidecar policy explain`: the verdict about a peer, and what every rule had to do with it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use super::super::output::{print, report};
use super::super::{EXIT_DENIED, EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use super::files::{self, Configured};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Environment;
use crate::config::settings::Settings;
use crate::policy::{CertificateFacts, Explanation, Facts, Policy, deny_list, question};
use crate::record::Verdict;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::yaml::{Diagnostic, Severity};

/// Tell whether a peer would be admitted to a listener, and why
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Prints the verdict, what decided, the rule that came nearest, and for every rule all conditions that did not hold. \
Without --source the peer's address counts as unknown: no allow rule with `source` or `not_source` matches then, every \
deny rule with them may. Without --serial, --key and --issued the peer's certificate is one that was issued just now and \
that no entry of the deny list names.

Exit code: 0 for allow, 3 for deny, 2 when the question or the files are wrong.

Example:
  svidecar policy explain --config config.yaml --to orders \\
      --from spiffe://example.org/ns/shop/sa/storefront --source 10.1.2.3")]
pub struct ExplainArgs {
    /// The config file; it names the policy
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The inbound listener that the peer connects to
    #[arg(long, value_name = "LISTENER")]
    pub to: String,
    /// The peer's SPIFFE ID
    #[arg(long, value_name = "SPIFFE_ID")]
    pub from: String,
    /// The peer's IP address
    #[arg(long, value_name = "IP")]
    pub source: Option<IpAddr>,
    /// The serial number of the peer's certificate, in hexadecimal
    #[arg(long, value_name = "HEX")]
    pub serial: Option<String>,
    /// The hash of the key of the peer's certificate, as in a deny list
    #[arg(long, value_name = "sha256:HEX")]
    pub key: Option<String>,
    /// When the peer's certificate became valid (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub issued: Option<String>,
    /// A deny list to ask in place of the config's
    #[arg(long, value_name = "FILE")]
    pub deny_list: Option<PathBuf>,
    /// Our own trust domain, where the config says neither `svid` nor `trust_domain`
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &ExplainArgs) -> u8 {
    match explain(args, &Environment::of_process(), SystemClock.now()) {
        Ok((explanation, warnings)) => {
            warnings
                .iter()
                .for_each(|warning| report(&format!("{warning}\n")));
            let exit = match explanation.verdict {
                Verdict::Allow => EXIT_GOOD,
                Verdict::Deny | Verdict::None => EXIT_DENIED,
            };
            if !args.json {
                return print(&explanation.to_string(), exit);
            }
            match serde_json::to_string_pretty(&explanation) {
                Ok(json) => print(&json, exit),
                Err(error) => {
                    report(&format!("error: cannot write the answer as JSON: {error}"));
                    EXIT_FAILED
                }
            }
        }
        Err(problem) => {
            report(&problem.to_string());
            EXIT_USAGE
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The config or the policy is bad.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))]
    Files(Vec<Diagnostic>),
    /// `--from` is no SPIFFE ID.
    #[error("error: --from is `{0}`, which is no SPIFFE ID: {1}")]
    From(String, String),
    /// `--to` names no inbound listener.
    #[error("error: --to is `{0}`: {1}")]
    To(String, String),
    /// An option about the certificate cannot be read.
    #[error("error: {option} is `{given}`, which {why}")]
    Certificate {
        /// The option.
        option: &'static str,
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `--trust-domain` is no trust domain.
    #[error("error: --trust-domain is `{0}`, which is no trust domain")]
    TrustDomain(String),
    /// The answer depends on our own trust domain, and nothing says it.
    #[error(
        "error: rule `{0}` has no `from` and so allows our own trust domain, which the config does not say: \
         set `identity.trust_domain`, or give --trust-domain"
    )]
    OwnTrustDomain(String),
}

/// Answers the question.
///
/// # Errors
/// The question makes no sense with this config, or the config or the policy is bad.
pub fn explain(
    args: &ExplainArgs,
    environment: &Environment,
    now: SystemTime,
) -> Result<(Explanation, Vec<Diagnostic>), ExplainError> {
    let Configured {
        settings,
        listeners,
        admission,
        mut warnings,
    } = files::config(&args.config, args.deny_list.as_deref(), environment, now)
        .map_err(ExplainError::Files)?;
    let peer = question::peer(&args.from).map_err(|why| ExplainError::From(args.from.clone(), why))?;
    question::inbound(&args.to, &listeners).map_err(|why| ExplainError::To(args.to.clone(), why))?;
    let own = own_trust_domain(args, &settings, &admission.policy, &peer)?;
    let said = args.trust_domain.is_some() || settings.identity.trust_domain.is_some();
    let federated = admission
        .policy
        .trust(&args.to)
        .is_none_or(|trust| trust.contains(peer.trust_domain()));
    if !said && !federated {
        let message = format!("`{own}` is taken for our own trust domain, which the config does not say");
        let mut warning = Diagnostic::of_file(&args.config.display().to_string(), message)
            .with_help("set `identity.trust_domain`, or give --trust-domain");
        warning.severity = Severity::Warning;
        warnings.push(warning);
    }
    let certificate = certificate(args, now)?;
    let facts = Facts {
        listener: &args.to,
        peer: &peer,
        source: args.source,
        own_trust_domain: &own,
        certificate: Some(CertificateFacts {
            serial: &certificate.serial,
            key_hash: &certificate.key_hash,
            issued: certificate.issued,
        }),
    };
    Ok((admission.explain(&facts, now), warnings))
}

/// The certificate asked about.
struct Certificate {
    serial: Box<str>,
    key_hash: [u8; 32],
    issued: SystemTime,
}

fn certificate(args: &ExplainArgs, now: SystemTime) -> Result<Certificate, ExplainError> {
    let wrong = |option, given: &str, why| ExplainError::Certificate {
        option,
        given: given.to_owned(),
        why,
    };
    let unlisted = CertificateFacts::unlisted(now);
    let serial = args
        .serial
        .as_deref()
        .map(|text| deny_list::serial(text).map_err(|(why, _)| wrong("--serial", text, why)));
    let key = args
        .key
        .as_deref()
        .map(|text| deny_list::key(text).map_err(|(why, _)| wrong("--key", text, why)));
    let issued = args.issued.as_deref().map(|text| {
        crate::clock::parse_rfc3339(text).ok_or_else(|| wrong("--issued", text, "is no point in time"))
    });
    Ok(Certificate {
        serial: serial.transpose()?.unwrap_or_else(|| unlisted.serial.into()),
        key_hash: key.transpose()?.unwrap_or(*unlisted.key_hash),
        issued: issued.transpose()?.unwrap_or(now),
    })
}

/// Our own trust domain. Where nothing says it, any will do unless an allow rule asks for it: then there is no answer.
fn own_trust_domain(
    args: &ExplainArgs,
    settings: &Settings,
    policy: &Policy,
    peer: &SpiffeId,
) -> Result<TrustDomain, ExplainError> {
    if let Some(text) = &args.trust_domain {
        let plain = !text.contains('/');
        return TrustDomain::new(text)
            .ok()
            .filter(|_| plain)
            .ok_or_else(|| ExplainError::TrustDomain(text.clone()));
    }
    let said = settings.identity.trust_domain.as_ref();
    question::own_trust_domain(said, policy, &args.to, peer)
        .map_err(|rule| ExplainError::OwnTrustDomain(rule.to_string()))
}
