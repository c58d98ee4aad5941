//! `svidecar intercept`: the rules that redirect connections to the transparent listeners of a config.

use std::path::PathBuf;

use clap::ArgGroup;
use ipnet::IpNet;

use super::output::{print, report};
use super::{EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use crate::config::network::network;
use crate::config::{self, Environment};
use crate::intercept::rules::{Options, Table};
use crate::intercept::{self, InterceptError, SIDECAR_USER};

/// Redirect connections to transparent listeners
///
/// Writes rules of the packet filter (nftables) of this network namespace, over netlink: the table `inet svidecar`, which
/// holds nothing else. What the application calls goes to the outbound listener with `transparent: true`, what calls the
/// application to the inbound ones; IPv4 and IPv6. Needs the capability NET_ADMIN, which the sidecar does not.
#[derive(Clone, Debug, clap::Args)]
#[command(group(ArgGroup::new("what").required(true).args(["apply", "remove", "print"])))]
#[command(after_help = "\
Left out in any case: connections of the users and groups below, to and from this machine itself, to ports of listeners
that are not transparent, and connections that are open already.
Exit code: 0 when the rules are as asked for, 1 when the kernel refuses, 2 when config or options have errors.

Examples:
  svidecar intercept --config svidecar.yaml --apply                       in an init container
  svidecar intercept --config svidecar.yaml --print | nft --check -f -    look at it first
  svidecar intercept --remove")]
pub struct InterceptArgs {
    /// The config file; not needed to remove the rules
    #[arg(long, value_name = "FILE", required_unless_present = "remove")]
    pub config: Option<PathBuf>,
    /// Put the rules in force, in place of those of an earlier call
    #[arg(long)]
    pub apply: bool,
    /// Take the rules away
    #[arg(long)]
    pub remove: bool,
    /// Print them as `nft -f` reads them, and change nothing
    #[arg(long)]
    pub print: bool,
    /// A user whose outgoing connections are left out: the one that the sidecar runs as, and nobody else. Repeatable;
    /// 15065 where neither a user nor a group is said
    #[arg(long = "uid", value_name = "UID")]
    pub uids: Vec<u32>,
    /// A group likewise; without `--uid` no user is left out
    #[arg(long = "gid", value_name = "GID")]
    pub gids: Vec<u32>,
    /// Outgoing connections to these ports are left out
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    pub exclude_outbound_ports: Vec<u16>,
    /// Only outgoing connections to these ports are redirected
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    pub include_outbound_ports: Vec<u16>,
    /// Incoming connections to these ports are left out
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    pub exclude_inbound_ports: Vec<u16>,
    /// Only incoming connections to these ports are redirected, where a listener takes them
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    pub include_inbound_ports: Vec<u16>,
    /// Outgoing connections to these networks are left out
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',', value_parser = net)]
    pub exclude_networks: Vec<IpNet>,
    /// Only outgoing connections to these networks are redirected
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',', value_parser = net)]
    pub include_networks: Vec<IpNet>,
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a port is a number from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

fn net(text: &str) -> Result<IpNet, String> {
    network(text).map_err(|(message, help)| format!("{message}: {help}"))
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &InterceptArgs) -> u8 {
    if args.remove {
        return done(intercept::remove(), "removed: nothing is redirected any more");
    }
    let table = match table(args) {
        Ok(table) => table,
        Err(code) => return code,
    };
    if args.print {
        return print(&table.to_string(), EXIT_GOOD);
    }
    done(intercept::apply(&table), &summary(&table))
}

fn table(args: &InterceptArgs) -> Result<Table, u8> {
    // clap asks for it.
    let Some(config) = &args.config else {
        return Err(EXIT_USAGE);
    };
    let (settings, _) = config::load(config, &Environment::of_process()).map_err(|found| {
        found.iter().for_each(|problem| report(&format!("{problem}\n")));
        EXIT_USAGE
    })?;
    let options = Options {
        uids: match args.uids.is_empty() && args.gids.is_empty() {
            true => vec![SIDECAR_USER],
            false => args.uids.clone(),
        },
        gids: args.gids.clone(),
        exclude_outbound_ports: args.exclude_outbound_ports.clone(),
        include_outbound_ports: args.include_outbound_ports.clone(),
        exclude_inbound_ports: args.exclude_inbound_ports.clone(),
        include_inbound_ports: args.include_inbound_ports.clone(),
        exclude_networks: args.exclude_networks.clone(),
        include_networks: args.include_networks.clone(),
    };
    Table::new(&settings, &options).map_err(|error| {
        report(&format!("svidecar: {error}"));
        EXIT_USAGE
    })
}

fn done(result: Result<(), InterceptError>, said: &str) -> u8 {
    match result {
        Ok(()) => print(said, EXIT_GOOD),
        Err(error) => {
            report(&format!("svidecar: nothing was changed: {error}"));
            EXIT_FAILED
        }
    }
}

fn summary(table: &Table) -> String {
    let chains = table.chains.iter().map(|chain| {
        let count = chain.rules.len();
        format!(" {}: {}", chain.hook.name(), crate::yaml::counted(count, "rule"))
    });
    format!(
        "applied: table inet svidecar,{}",
        chains.collect::<Vec<_>>().join(",")
    )
}
