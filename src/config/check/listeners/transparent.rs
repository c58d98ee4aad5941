//! `transparent: true`: listeners that take redirected connections, and where these go.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Listeners, peer, server_name};
use crate::config::address::{self, AddressError};
use crate::config::check::CheckedAdmin;
use crate::config::network::network;
use crate::config::settings::{
    Address, Connect, Destination, Destinations, ListenerKind, Ours, Reach, Redirected, Unmatched,
};
use crate::yaml::{Fields, Findings, Node, Place, Value};

pub(in crate::config::check) const DESTINATION: &[&str] = &["to", "peer", "connect", "sni"];

/// The most entries, and the most addresses of all of them together: they are looked through in order.
const MAX_DESTINATIONS: usize = 1000;
/// The most ports of one listener.
const MAX_PORTS: usize = 100;

const TO: &str = "`10.0.0.0/8:8080`, `\"[fd00::/8]:8080\"` or `\"10.1.2.3:*\"`";

/// Whether a listener says that it is one.
pub(super) fn is(fields: &Fields<'_>, findings: &mut Findings) -> bool {
    // Unreadable is an error already, and says nothing of what is wanted.
    fields.boolean("transparent", findings).unwrap_or(false)
}

/// Refuses fields that have no place beside `transparent: true`, or none without it.
pub(super) fn refuse(fields: &Fields<'_>, names: &[&str], transparent: bool, findings: &mut Findings) {
    for name in names {
        let Some(place) = fields.key_place(name) else {
            continue;
        };
        let (message, help) = if transparent {
            let message = format!(
                "`{}` has no place beside `transparent: true`",
                fields.name_of(name)
            );
            (message, "say it in an entry of `destinations`")
        } else {
            let message = format!(
                "`{}` is for listeners with `transparent: true`",
                fields.name_of(name)
            );
            (message, "add that line, or take this one out")
        };
        findings.error_with_help(place, message, help);
    }
}

/// The destinations of an outbound listener.
pub(super) fn outbound(
    fields: &Fields<'_>,
    listen: Option<(&Address, Place)>,
    findings: &mut Findings,
) -> Option<ListenerKind> {
    refuse(fields, &["connect", "peer", "sni"], true, findings);
    tcp_only(fields, listen, findings);
    let words = [
        ("refuse", Unmatched::Refuse),
        ("passthrough", Unmatched::Passthrough),
    ];
    let unmatched = fields.word("unmatched", &words, findings).unwrap_or_default();
    if let (Unmatched::Passthrough, Some(place)) = (unmatched, fields.key_place("unmatched")) {
        let message = "`unmatched: passthrough` lets the application talk in plain text to everybody that `destinations` does not name";
        findings.warn(place, message, "list them, and take the line out");
    }
    let example = format!(
        "[{{ to: [10.0.0.0/8:8080], peer: [{}] }}]",
        "spiffe://example.org/ns/shop/**"
    );
    fields.require("destinations", &example, findings)?;
    let before = findings.errors();
    let mut list = Vec::new();
    let mut taken: Vec<(Reach, Place)> = Vec::new();
    for (index, node) in fields
        .list("destinations", MAX_DESTINATIONS, findings)?
        .iter()
        .enumerate()
    {
        let path = format!("{}[{index}]", fields.name_of("destinations"));
        list.extend(destination(node, &path, &mut taken, findings));
    }
    (findings.errors() == before).then_some(ListenerKind::Transparent(Destinations {
        list,
        unmatched,
        ours: Ours::default(),
    }))
}

fn destination(
    node: &Node,
    path: &str,
    taken: &mut Vec<(Reach, Place)>,
    findings: &mut Findings,
) -> Option<Destination> {
    let fields = Fields::of(node, path, DESTINATION, findings)?;
    fields.require("to", "[10.0.0.0/8:8080]", findings);
    let mut to = Vec::new();
    for (text, place) in fields.texts("to", MAX_DESTINATIONS, findings).unwrap_or_default() {
        match reach(text) {
            Ok(reach) => {
                if let Some((other, first)) = taken.iter().find(|(other, _)| other.covers_all_of(&reach)) {
                    let message = format!("`{text}` never counts: `{other}` in line {} has it", first.line);
                    let help = "the first entry that names an address has it: put the narrower one first, or take one out";
                    findings.error_with_help(place, message, help);
                }
                if taken.len() == MAX_DESTINATIONS {
                    let message = format!("more than {MAX_DESTINATIONS} addresses in `destinations`");
                    findings.error_with_help(place, message, "name networks in their place");
                    return None;
                }
                taken.push((reach, place));
                to.push(reach);
            }
            Err((message, help)) => findings.error_with_help(place, message, help),
        }
    }
    let peer = peer(&fields, findings);
    let connect = connect(&fields, findings);
    let target = match &connect {
        Some(Connect::Target(target)) => Some(target),
        _ => None,
    };
    let sni = server_name(&fields, target, findings);
    Some(Destination {
        to,
        connect: connect?,
        peer: peer?,
        sni,
    })
}

/// `NETWORK:PORT`, the network of IPv6 in brackets, the port a number or `*`.
fn reach(text: &str) -> Result<Reach, (String, String)> {
    let form = || {
        let message = format!("`{text}` is no address and port");
        (message, format!("for example {TO}"))
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port = match port {
        "*" => None,
        _ => {
            let number = port.parse().ok().filter(|number| *number != 0);
            Some(number.filter(|_| !port.starts_with('+')).ok_or_else(form)?)
        }
    };
    let in_brackets = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    match in_brackets {
        Some(inner) => {
            let network = network(inner)?;
            if !inner.contains(':') {
                return Err(form());
            }
            Ok(Reach { network, port })
        }
        None if host.contains(':') => {
            let message = format!("`{text}`: an IPv6 network with a port stands in brackets");
            Err((message, format!("for example {TO}")))
        }
        None => Ok(Reach {
            network: network(host)?,
            port,
        }),
    }
}

/// Left out, a port, or a place of its own.
fn connect(fields: &Fields<'_>, findings: &mut Findings) -> Option<Connect> {
    let Some(node) = fields.get("connect") else {
        // What is there and cannot be read is an error already.
        return (!fields.mentions("connect")).then_some(Connect::Original);
    };
    let text = match &node.value {
        Value::Integer(_) => {
            let port = fields.integer("connect", 1, u64::from(u16::MAX), findings)?;
            return u16::try_from(port).ok().map(Connect::Port);
        }
        Value::Text(text) => text,
        other => {
            let message = format!(
                "`{}` must be a port or an address, not {}",
                fields.name_of("connect"),
                other.kind()
            );
            findings.error_with_help(
                node.place,
                message,
                "for example `8443`, or `payments.shop.svc:8443`",
            );
            return None;
        }
    };
    match address::target(text) {
        Ok(target) => Some(Connect::Target(target)),
        Err(error) => {
            let help = match error {
                AddressError::NoAddress(_) => format!("write `{}`", text.trim_start_matches(':')),
                _ => "for example `8443` for another port of the same address, or `payments.shop.svc:8443`"
                    .to_owned(),
            };
            let message = format!("`{}` is `{text}`: {error}", fields.name_of("connect"));
            findings.error_with_help(node.place, message, help);
            None
        }
    }
}

/// What an inbound listener takes of what is redirected to it.
pub(super) fn inbound(
    fields: &Fields<'_>,
    listen: Option<(&Address, Place)>,
    findings: &mut Findings,
) -> Redirected {
    tcp_only(fields, listen, findings);
    if let Some((Address::Tcp(address), place)) = listen
        && !address.ip().is_unspecified()
    {
        let message = format!("`{address}` is not where redirected connections come");
        let help = format!(
            "they come to the address of the interface: listen on `0.0.0.0:{0}`, or `\"[::]:{0}\"` for IPv6, too",
            address.port()
        );
        findings.error_with_help(place, message, help);
    }
    let mut ports: Vec<u16> = Vec::new();
    for node in fields.list("ports", MAX_PORTS, findings).unwrap_or_default() {
        let port = match node.value {
            Value::Integer(number) => u16::try_from(number).ok().filter(|port| *port != 0),
            _ => None,
        };
        match port {
            Some(port) if ports.contains(&port) => {
                let message = format!("`{port}` is in `{}` twice", fields.name_of("ports"));
                findings.error_with_help(node.place, message, "take one of them out");
            }
            Some(port) => ports.push(port),
            None => {
                let message = format!("`{}` has numbers from 1 to 65535", fields.name_of("ports"));
                findings.error_with_help(node.place, message, "for example `ports: [8080]`");
            }
        }
    }
    Redirected {
        ports,
        ours: Ours::default(),
    }
}

/// Only TCP connections can be redirected, and only to a port that is known before.
fn tcp_only(fields: &Fields<'_>, listen: Option<(&Address, Place)>, findings: &mut Findings) {
    let (message, place) = match listen {
        Some((Address::Unix(_), place)) => ("nothing can be redirected to a unix socket", place),
        Some((Address::Tcp(address), place)) if address.port() == 0 => {
            ("the rules that redirect must name a port", place)
        }
        _ => return,
    };
    let help = "for example `listen: \"[::]:15001\"`";
    findings.error_with_help(place, format!("`{}`: {message}", fields.name_of("listen")), help);
}

impl Listeners {
    /// What transparent listeners must be beside each other; and each gets to know the addresses that are ours.
    pub(in crate::config::check) fn check_transparent(
        &mut self,
        admin: Option<&CheckedAdmin>,
        findings: &mut Findings,
    ) {
        if !self.listeners.iter().any(|listener| listener.is_transparent()) {
            return;
        }
        self.check_outbound(findings);
        self.check_inbound(admin, findings);
        let tcp = |address: &Address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        };
        let mut ours: Vec<SocketAddr> = self.listeners.iter().filter_map(|l| tcp(&l.listen)).collect();
        if let Some(admin) = admin {
            ours.extend(tcp(&admin.settings.listen));
            ours.extend(admin.settings.probes);
        }
        let ours = Ours(ours.into());
        for listener in &mut self.listeners {
            match &mut Arc::make_mut(listener).kind {
                ListenerKind::Transparent(destinations) => destinations.ours = ours.clone(),
                ListenerKind::Inbound {
                    redirected: Some(redirected),
                    ..
                } => redirected.ours = ours.clone(),
                ListenerKind::Inbound { .. } | ListenerKind::Outbound { .. } => {}
            }
        }
    }

    /// All that the application calls is redirected to one port.
    fn check_outbound(&self, findings: &mut Findings) {
        let mut first: Option<&str> = None;
        for (listener, places) in self.placed() {
            if !matches!(listener.kind, ListenerKind::Transparent(_)) {
                continue;
            }
            if let Some(first) = first {
                let message = format!("listener `{}` is transparent, as `{first}` is", listener.name);
                let help = "one outbound listener takes all that is redirected: put the entries of `destinations` together; \
                            `\"[::]:PORT\"` listens on IPv4 and IPv6";
                findings.error_with_help(places.name, message, help);
            }
            first = first.or(Some(&listener.name));
        }
    }

    /// Each port is redirected to one listener, and none that we listen on.
    fn check_inbound(&self, admin: Option<&CheckedAdmin>, findings: &mut Findings) {
        let mut taken: Vec<(&str, &Redirected)> = Vec::new();
        let reachable = |address: &Address| match address {
            Address::Tcp(address) if !address.ip().is_loopback() => Some(address.port()),
            _ => None,
        };
        let own: Vec<u16> = self
            .listeners
            .iter()
            .filter_map(|listener| reachable(&listener.listen))
            .chain(
                admin
                    .and_then(|admin| admin.settings.probes)
                    .map(|probes| probes.port()),
            )
            .collect();
        for (listener, places) in self.placed() {
            let ListenerKind::Inbound {
                redirected: Some(redirected),
                ..
            } = &listener.kind
            else {
                continue;
            };
            if let Some(port) = redirected.ports.iter().find(|port| own.contains(port)) {
                let message = format!(
                    "listener `{}` takes connections to port {port}, on which we listen ourselves",
                    listener.name
                );
                findings.error_with_help(places.name, message, "take the port out of `ports`");
            }
            let clash = taken.iter().find(|(_, other)| {
                let both = |port: &u16| other.ports.contains(port);
                redirected.ports.iter().any(both) || (redirected.ports.is_empty() && other.ports.is_empty())
            });
            if let Some((other, _)) = clash {
                let message = format!(
                    "listener `{}` takes connections to a port that `{other}` takes",
                    listener.name
                );
                let help = "each port is in `ports` of one listener, and one at most has no `ports`";
                findings.error_with_help(places.name, message, help);
            }
            taken.push((&listener.name, redirected));
        }
    }
}
