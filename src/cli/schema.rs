//! `svidecar schema`: JSON Schemas of the files that people write and of the records that svidecar writes.

use super::EXIT_GOOD;
use super::output::print;

/// Print the JSON Schema of a kind of file
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Editors that know YAML schemas complete and check files with it. With the YAML language server:
  svidecar schema policy > policy.schema.json
and in the first line of a policy file:
  # yaml-language-server: $schema=policy.schema.json

`svidecar check` and `svidecar policy test` find more than a schema can say.")]
pub struct SchemaArgs {
    /// Of which kind of file
    #[arg(value_enum)]
    pub kind: Kind,
}

/// The kinds of files that have a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The config file
    Config,
    /// A policy file
    Policy,
    /// The deny list's file
    DenyList,
    /// Expectations for `policy test`
    PolicyTest,
    /// A decision record: a line of `telemetry.decisions.file`
    Decision,
    /// An entry of the audit log: a line of `audit.file`
    Audit,
}

/// The schema of a kind of file (JSON Schema, draft 2020-12).
#[must_use]
pub const fn schema(kind: Kind) -> &'static str {
    match kind {
        Kind::Config => include_str!("../../config/schema/config.schema.json"),
        Kind::Policy => include_str!("../../config/schema/policy.schema.json"),
        Kind::DenyList => include_str!("../../config/schema/deny-list.schema.json"),
        Kind::PolicyTest => include_str!("../../config/schema/policy-test.schema.json"),
        Kind::Decision => include_str!("../../config/schema/decision.schema.json"),
        Kind::Audit => include_str!("../../config/schema/audit.schema.json"),
    }
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &SchemaArgs) -> u8 {
    print(schema(args.kind).trim_end(), EXIT_GOOD)
}
