//! Which connections are redirected, and to which listener. Pure: from settings and options to a table of rules.
//!
//! Only the first packet of a connection meets them (chains of type `nat`), so that connections that are open stay as
//! they are. In each chain those that are left out come first. The order is fixed: what is printed can be compared.

#[cfg(test)]
mod tests;

use std::fmt;

use ipnet::IpNet;

use crate::config::settings::{Address, ListenerKind, Redirected, Settings};

/// The table that is ours.
pub const TABLE: &str = "svidecar";
/// Before what routes or filters by the destination, as the kernel's own name for it (`dstnat`) is meant.
pub const PRIORITY: i32 = -100;
/// The kernel looks through them in order, and takes no transaction that is larger than a socket's buffer is by default.
const MAX_RULES: usize = 256;

/// What is left out of, or taken into, the redirection beyond what the settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Users whose connections are left out: the sidecar's own.
    pub uids: Vec<u32>,
    /// Groups likewise.
    pub gids: Vec<u32>,
    /// Outgoing connections to these ports are left out.
    pub exclude_outbound_ports: Vec<u16>,
    /// Those to these ports are taken, and no others; empty: all.
    pub include_outbound_ports: Vec<u16>,
    /// Incoming connections to these ports are left out.
    pub exclude_inbound_ports: Vec<u16>,
    /// Those to these ports are taken, and no others; empty: all that the listeners take.
    pub include_inbound_ports: Vec<u16>,
    /// Outgoing connections to these networks are left out.
    pub exclude_networks: Vec<IpNet>,
    /// Those to these networks are taken, and no others; empty: all.
    pub include_networks: Vec<IpNet>,
}

/// Why there are no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Nobody to redirect to.
    #[error(
        "no listener of the config is transparent: add `transparent: true` to one, or there is nothing to intercept"
    )]
    NoListener,
    /// Everything would be a loop.
    #[error(
        "no user and no group is left out: the sidecar's own connections would come back to it; name its user with --uid"
    )]
    NobodyLeftOut,
    /// Nothing of an option would have an effect.
    #[error("`{0}` is about {1} connections, and the config has no transparent listener for these")]
    NoSuchListener(&'static str, &'static str),
    /// An included port would stay as it is, and the application open to everybody.
    #[error(
        "`--include-inbound-ports` names port {0}, which no transparent listener takes: add it to a listener's `ports`, or \
         leave it out here"
    )]
    NotTaken(u16),
    /// All ports of all listeners are left out again.
    #[error(
        "nothing that comes in would be redirected: the options leave out each port that a listener takes"
    )]
    NothingLeft,
    /// Too many.
    #[error("more than {MAX_RULES} rules: name networks in place of single addresses, or fewer ports")]
    TooMany,
}

/// All rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Those of each hook that has any.
    pub chains: Vec<Chain>,
}

/// The rules of one hook, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel asks.
    pub hook: Hook,
    /// What it asks.
    pub rules: Vec<Rule>,
}

/// A place where the kernel asks about a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It was made here.
    Output,
    /// It comes from elsewhere.
    Prerouting,
}

impl Hook {
    /// The hook's name, and its chain's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Prerouting => "prerouting",
        }
    }
}

/// What happens to connections for which all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub matches: Vec<Match>,
    /// What happens.
    pub action: Action,
}

/// A condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The socket is this user's.
    User(u32),
    /// The socket is this group's.
    Group(u32),
    /// It goes to this machine itself.
    OutLoopback,
    /// It comes from this machine itself.
    InLoopback,
    /// It is meant for another machine, to which we only pass it on.
    NotForUs,
    /// It is meant for this network.
    Destination(IpNet),
    /// It is meant for this TCP port.
    Port(u16),
    /// It is TCP.
    Tcp,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on as if there were no rules.
    Return,
    /// It goes to this port of this machine.
    Redirect(u16),
}

impl Table {
    /// The rules that the transparent listeners of `settings` need.
    ///
    /// # Errors
    /// See [`RulesError`].
    pub fn new(settings: &Settings, options: &Options) -> Result<Self, RulesError> {
        let chains: Vec<Chain> = [output(settings, options)?, prerouting(settings, options)?]
            .into_iter()
            .flatten()
            .collect();
        if chains.is_empty() {
            return Err(RulesError::NoListener);
        }
        if chains.iter().map(|chain| chain.rules.len()).sum::<usize>() > MAX_RULES {
            return Err(RulesError::TooMany);
        }
        Ok(Self { chains })
    }
}

impl Rule {
    const fn new(matches: Vec<Match>, action: Action) -> Self {
        Self { matches, action }
    }

    fn leave_out(condition: Match) -> Self {
        Self::new(vec![condition], Action::Return)
    }
}

/// What the application calls.
fn output(settings: &Settings, options: &Options) -> Result<Option<Chain>, RulesError> {
    let to = settings
        .listeners
        .iter()
        .find_map(|listener| match listener.kind {
            ListenerKind::Transparent(_) => port(&listener.listen),
            _ => None,
        });
    let Some(to) = to else {
        let unused = [
            (
                "--exclude-outbound-ports",
                options.exclude_outbound_ports.is_empty(),
            ),
            (
                "--include-outbound-ports",
                options.include_outbound_ports.is_empty(),
            ),
            ("--exclude-networks", options.exclude_networks.is_empty()),
            ("--include-networks", options.include_networks.is_empty()),
        ];
        return nobody(&unused, "outgoing");
    };
    if options.uids.is_empty() && options.gids.is_empty() {
        return Err(RulesError::NobodyLeftOut);
    }
    let users = options.uids.iter().copied().map(Match::User);
    let left_out = users
        .chain(options.gids.iter().copied().map(Match::Group))
        .chain([Match::OutLoopback])
        .chain(options.exclude_networks.iter().copied().map(Match::Destination))
        .chain(options.exclude_outbound_ports.iter().copied().map(Match::Port));
    let mut rules: Vec<Rule> = left_out.map(Rule::leave_out).collect();
    let networks = or_all(options.include_networks.iter().copied().map(Match::Destination));
    let ports = or_all(options.include_outbound_ports.iter().copied().map(Match::Port));
    if networks.len().saturating_mul(ports.len()) > MAX_RULES {
        return Err(RulesError::TooMany);
    }
    for network in &networks {
        for port in &ports {
            let matches = network.iter().copied().chain([port.unwrap_or(Match::Tcp)]);
            rules.push(Rule::new(matches.collect(), Action::Redirect(to)));
        }
    }
    Ok(Some(Chain {
        hook: Hook::Output,
        rules,
    }))
}

/// What calls the application.
fn prerouting(settings: &Settings, options: &Options) -> Result<Option<Chain>, RulesError> {
    let mut listeners: Vec<(u16, &Redirected)> = settings
        .listeners
        .iter()
        .filter_map(|listener| match &listener.kind {
            ListenerKind::Inbound {
                redirected: Some(redirected),
                ..
            } => port(&listener.listen).map(|port| (port, redirected)),
            _ => None,
        })
        .collect();
    if listeners.is_empty() {
        let unused = [
            // To leave out more is no harm: the ports of probes are left out by who does not know the listeners.
            (
                "--include-inbound-ports",
                options.include_inbound_ports.is_empty(),
            ),
        ];
        return nobody(&unused, "incoming");
    }
    // The one that takes all ports takes what the others leave.
    listeners.sort_by_key(|(_, redirected)| redirected.ports.is_empty());
    let own = own_ports(settings);
    let mut rules: Vec<Rule> = [Match::InLoopback, Match::NotForUs]
        .into_iter()
        .chain(own.into_iter().map(Match::Port))
        .chain(options.exclude_inbound_ports.iter().copied().map(Match::Port))
        .map(Rule::leave_out)
        .collect();
    let included = &options.include_inbound_ports;
    let excluded = &options.exclude_inbound_ports;
    let is_taken = |port: &u16| listeners.iter().any(|(_, redirected)| redirected.takes(*port));
    if let Some(port) = included.iter().find(|port| !is_taken(port)) {
        return Err(RulesError::NotTaken(*port));
    }
    let left_out = rules.len();
    let mut taken: Vec<u16> = Vec::new();
    for (to, redirected) in listeners {
        let ports: Vec<u16> = match (redirected.ports.is_empty(), included.is_empty()) {
            (true, true) => {
                rules.push(Rule::new(vec![Match::Tcp], Action::Redirect(to)));
                continue;
            }
            (true, false) => included.clone(),
            (false, true) => redirected.ports.clone(),
            (false, false) => {
                let both = redirected.ports.iter().filter(|port| included.contains(port));
                both.copied().collect()
            }
        };
        for port in ports {
            // Another listener has it already, or nobody is to have it.
            if !taken.contains(&port) && !excluded.contains(&port) {
                taken.push(port);
                rules.push(Rule::new(vec![Match::Port(port)], Action::Redirect(to)));
            }
        }
    }
    if rules.len() == left_out {
        return Err(RulesError::NothingLeft);
    }
    Ok(Some(Chain {
        hook: Hook::Prerouting,
        rules,
    }))
}

/// No rules of a kind, unless an option asks for some.
fn nobody(options: &[(&'static str, bool)], kind: &'static str) -> Result<Option<Chain>, RulesError> {
    match options.iter().find(|(_, unused)| !unused) {
        Some((name, _)) => Err(RulesError::NoSuchListener(name, kind)),
        None => Ok(None),
    }
}

/// Each of the conditions, or the one that holds for all.
fn or_all(conditions: impl Iterator<Item = Match>) -> Vec<Option<Match>> {
    let mut all: Vec<_> = conditions.map(Some).collect();
    if all.is_empty() {
        all.push(None);
    }
    all
}

/// The ports that others reach us at, in order.
fn own_ports(settings: &Settings) -> Vec<u16> {
    let listeners = settings.listeners.iter().map(|listener| &listener.listen);
    let reachable = |address: &Address| match address {
        Address::Tcp(address) if !address.ip().is_loopback() => Some(address.port()),
        _ => None,
    };
    let probes = settings.admin.as_ref().and_then(|admin| admin.probes);
    let mut ports: Vec<u16> = listeners
        .filter_map(reachable)
        .chain(probes.map(|probes| probes.port()))
        .filter(|port| *port != 0)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

const fn port(address: &Address) -> Option<u16> {
    match address {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    }
}

/// In the syntax of `nft -f` (nft(8)). Reading it puts exactly these rules in the table, whatever was there.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first line makes the table where there is none, so that the second has one to delete.
        writeln!(
            f,
            "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{"
        )?;
        for (number, chain) in self.chains.iter().enumerate() {
            let name = chain.hook.name();
            let gap = if number == 0 { "" } else { "\n" };
            writeln!(f, "{gap}\tchain {name} {{")?;
            writeln!(f, "\t\ttype nat hook {name} priority {PRIORITY}; policy accept;")?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        write!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        match self.action {
            Action::Return => f.write_str("return"),
            Action::Redirect(port) => write!(f, "redirect to :{port}"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "meta skuid {user}"),
            Self::Group(group) => write!(f, "meta skgid {group}"),
            Self::OutLoopback => f.write_str("oifname \"lo\""),
            Self::InLoopback => f.write_str("iifname \"lo\""),
            Self::NotForUs => f.write_str("fib daddr type != local"),
            Self::Destination(network) => {
                let family = if network.addr().is_ipv4() { "ip" } else { "ip6" };
                if network.prefix_len() == 0 {
                    let version = if network.addr().is_ipv4() { "ipv4" } else { "ipv6" };
                    write!(f, "meta nfproto {version}")
                } else if network.prefix_len() == network.max_prefix_len() {
                    write!(f, "{family} daddr {}", network.addr())
                } else {
                    write!(f, "{family} daddr {network}")
                }
            }
            Self::Port(port) => write!(f, "tcp dport {port}"),
            Self::Tcp => f.write_str("meta l4proto tcp"),
        }
    }
}
