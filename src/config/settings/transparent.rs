//! Listeners that take redirected connections: where these may go, whom to expect there, and which addresses are ours.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::{Listener, ListenerKind, Target, Upstream};
use crate::spiffe::IdPattern;

/// What an inbound listener takes of the connections that were redirected to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirected {
    /// The ports that callers may have dialled, in order; empty for all.
    pub ports: Vec<u16>,
    /// The addresses that we listen on ourselves.
    pub ours: Ours,
}

impl Redirected {
    /// Whether a connection to this port is taken.
    #[must_use]
    pub fn takes(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }
}

/// Where the redirected connections of an outbound listener go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destinations {
    /// The first one that names an address has it; never empty.
    pub list: Vec<Destination>,
    /// What becomes of a connection that none of them names.
    pub unmatched: Unmatched,
    /// The addresses that we listen on ourselves.
    pub ours: Ours,
}

impl Destinations {
    /// The destination that an application means by an address, and its number.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<(usize, &Destination)> {
        self.list
            .iter()
            .enumerate()
            .find(|(_, destination)| destination.to.iter().any(|reach| reach.covers(address)))
    }
}

/// Some addresses that applications call, and who must answer there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The addresses; never empty.
    pub to: Vec<Reach>,
    /// Where the other sidecar is.
    pub connect: Connect,
    /// Who may answer; never empty.
    pub peer: Vec<IdPattern>,
    /// The server name to send; none unless the file, or a name in `connect`, says one.
    pub sni: Option<String>,
}

/// The addresses of a network at a port, or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The network. IPv4-mapped ones are IPv4.
    pub network: IpNet,
    /// The port; `None` for all.
    pub port: Option<u16>,
}

impl Reach {
    /// Whether it names an address.
    #[must_use]
    pub fn covers(&self, address: SocketAddr) -> bool {
        self.port.is_none_or(|port| port == address.port()) && self.network.contains(&address.ip())
    }

    /// Whether it names all that another one names.
    #[must_use]
    pub fn covers_all_of(&self, other: &Self) -> bool {
        (self.port.is_none() || self.port == other.port) && self.network.contains(&other.network)
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            IpNet::V4(network) => write!(f, "{network}")?,
            IpNet::V6(network) => write!(f, "[{network}]")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

/// Where the other sidecar of a destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connect {
    /// Where the application wanted to go: it has a transparent listener of its own.
    Original,
    /// At another port of that address.
    Port(u16),
    /// At a place of its own.
    Target(Target),
}

impl Connect {
    /// What to dial for an application that wanted to go to `original`.
    #[must_use]
    pub fn target(&self, original: SocketAddr) -> Target {
        match self {
            Self::Original => Target::Ip(original),
            Self::Port(port) => Target::Ip(SocketAddr::new(original.ip(), *port)),
            Self::Target(target) => target.clone(),
        }
    }
}

/// What becomes of a connection to an address that no destination names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on to where it was meant to go, in plain text, and nobody is asked who answers.
    Passthrough,
}

/// The addresses that we listen on: no connection may be forwarded there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours(pub Arc<[SocketAddr]>);

impl Ours {
    /// Whether we would reach ourselves at an address. `here` is an address of the machine that is known to be ours; a
    /// listener on all addresses has it, and loopback.
    #[must_use]
    pub fn has(&self, address: SocketAddr, here: IpAddr) -> bool {
        let (ip, port) = (address.ip(), address.port());
        self.0.iter().any(|own| {
            let on_all = own.ip().is_unspecified() && (ip == here || ip.is_loopback());
            own.port() == port && (own.ip() == ip || on_all)
        })
    }
}

/// TCP ports that may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialledPorts {
    /// These and no others.
    These(BTreeSet<u16>),
    /// Any: which, is known when a connection comes.
    Any,
}

impl Listener {
    /// The ports that a transparent listener dials, each at the address that a connection was meant for or at the fixed
    /// `connect` of a destination. Of another listener, none: its `upstream` or `connect` says where it goes.
    #[must_use]
    pub fn dialled_ports(&self) -> DialledPorts {
        match &self.kind {
            ListenerKind::Inbound {
                upstream: Upstream::Original,
                redirected: Some(redirected),
                ..
            } if !redirected.ports.is_empty() => {
                DialledPorts::These(redirected.ports.iter().copied().collect())
            }
            ListenerKind::Inbound {
                upstream: Upstream::Original,
                ..
            } => DialledPorts::Any,
            ListenerKind::Transparent(destinations) => destinations.dialled_ports(),
            ListenerKind::Inbound { .. } | ListenerKind::Outbound { .. } => {
                DialledPorts::These(BTreeSet::new())
            }
        }
    }
}

impl Destinations {
    fn dialled_ports(&self) -> DialledPorts {
        if self.unmatched == Unmatched::Passthrough {
            return DialledPorts::Any;
        }
        let mut ports = BTreeSet::new();
        for destination in &self.list {
            match &destination.connect {
                Connect::Port(port) | Connect::Target(Target::Name(_, port)) => {
                    ports.insert(*port);
                }
                Connect::Target(Target::Ip(address)) => {
                    ports.insert(address.port());
                }
                Connect::Target(Target::Unix(_)) => {}
                Connect::Original => {
                    for reach in &destination.to {
                        let Some(port) = reach.port else {
                            return DialledPorts::Any;
                        };
                        ports.insert(port);
                    }
                }
            }
        }
        DialledPorts::These(ports)
    }
}
