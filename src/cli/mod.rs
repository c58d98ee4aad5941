//! The commands: each reads its arguments, does its work with the library's parts, and answers with an exit code.

pub mod admin_client;
pub mod audit;
pub mod check;
pub mod completions;
pub mod demo;
pub mod healthcheck;
pub mod identity;
pub mod inject;
pub mod intercept;
mod output;
pub mod policy;
pub mod run;
pub mod schema;
pub mod status;
pub mod supervise;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
pub mod workload_api;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::build_info;
use crate::tls::fips;

/// Everything is good.
pub const EXIT_GOOD: u8 = 0;
/// Something failed at run time.
pub const EXIT_FAILED: u8 = 1;
/// Bad usage or a bad configuration.
pub const EXIT_USAGE: u8 = 2;
/// `policy explain`: the peer is denied.
pub const EXIT_DENIED: u8 = 3;

/// A zero-trust mTLS sidecar: SPIFFE identities, TLS 1.3 only, policies that explain themselves.
#[derive(Debug, Parser)]
#[command(
    name = "svidecar",
    version,
    long_version = build_info::long_version(),
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(
    after_help = "Start here:\n  svidecar demo                            watch it work, with nothing else installed\n  \
svidecar check --config svidecar.yaml    read config and policies, print every problem\n  \
svidecar run --config svidecar.yaml      the sidecar"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Run(run::RunArgs),
    Supervise(supervise::SuperviseArgs),
    Check(check::CheckArgs),
    Identity(identity::IdentityArgs),
    /// Ask questions of policy files
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Look after audit logs
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    Schema(schema::SchemaArgs),
    Inject(inject::InjectArgs),
    Completions(completions::CompletionsArgs),
    WorkloadApi(workload_api::WorkloadApiArgs),
    Status(status::StatusArgs),
    Healthcheck(healthcheck::HealthcheckArgs),
    Intercept(intercept::InterceptArgs),
}

/// Reads the command line, does what it says, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    // clap ends the process itself for --help, --version (0) and bad usage (2).
    let command = Cli::parse().command;
    if let Err(error) = fips::check() {
        output::report(&format!("svidecar: not started: {error}"));
        return ExitCode::from(EXIT_FAILED);
    }
    let code = match command {
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Supervise(args) => supervise::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Identity(args) => identity::run(&args),
        Command::Policy(command) => policy::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Schema(args) => schema::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::WorkloadApi(args) => workload_api::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Intercept(args) => intercept::run(&args),
    };
    ExitCode::from(code)
}
