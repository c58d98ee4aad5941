//! The `inbound` and `outbound` sections.

mod fields;
mod proxy;
mod transparent;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use self::fields::{alpn, peer, refuse_later_fields, server_name, target};
use super::identity::parse_trust_domain;
use super::{CheckedAdmin, is_listener_name};
use crate::config::address::{self, AddressError};
use crate::config::settings::{Address, Listener, ListenerKind, OwnPages, Upstream};
use crate::record::Direction;
use crate::spiffe::TrustDomain;
use crate::yaml::{Fields, Findings, Node, Place};
#[cfg(test)]
pub(super) use proxy::PROXY_PROTOCOL;
#[cfg(test)]
pub(super) use transparent::DESTINATION;

/// More than this in one file is a mistake of a template.
const MAX_LISTENERS: usize = 1000;
const MAX_PATTERNS: usize = 10_000;

pub(super) const INBOUND: &[&str] = &[
    "name",
    "listen",
    "upstream",
    "serve",
    "trust",
    "protocol",
    "alpn",
    "proxy_protocol",
    "accept_proxy_from",
    "transparent",
    "ports",
];
pub(super) const OUTBOUND: &[&str] = &[
    "name",
    "listen",
    "connect",
    "peer",
    "sni",
    "protocol",
    "alpn",
    "allow_remote_clients",
    "transparent",
    "destinations",
    "unmatched",
];

/// The listeners as far as they could be read.
pub(super) struct Listeners {
    pub(super) listeners: Vec<Arc<Listener>>,
    places: Vec<Places>,
    /// Whether the file has an `inbound` entry at all.
    pub(super) any_inbound: bool,
    /// Whether every entry became a listener.
    pub(super) all_named: bool,
}

#[derive(Clone, Copy)]
struct Places {
    name: Place,
    listen: Place,
}

pub(super) fn read(top: &Fields<'_>, findings: &mut Findings) -> Listeners {
    let mut all = Listeners {
        listeners: Vec::new(),
        places: Vec::new(),
        any_inbound: false,
        all_named: true,
    };
    for (section, direction) in [("inbound", Direction::Inbound), ("outbound", Direction::Outbound)] {
        let Some(items) = top.list(section, MAX_LISTENERS, findings) else {
            // There, but no list of listeners: which names it holds is not known.
            all.all_named &= !top.mentions(section);
            all.any_inbound |= direction == Direction::Inbound && top.mentions(section);
            continue;
        };
        all.any_inbound |= direction == Direction::Inbound;
        for (index, item) in items.iter().enumerate() {
            match listener(item, &format!("{section}[{index}]"), direction, findings) {
                Some((listener, places)) => {
                    all.listeners.push(Arc::new(listener));
                    all.places.push(places);
                }
                None => all.all_named = false,
            }
        }
    }
    if !top.mentions("inbound") && !top.mentions("outbound") {
        let help = "add an entry to `inbound` or `outbound`: see `svidecar run --help` for an example";
        findings.error_with_help(
            Place::default(),
            "no listener: the sidecar would do nothing",
            help,
        );
    }
    all
}

impl Listeners {
    fn placed(&self) -> impl Iterator<Item = (&Arc<Listener>, Places)> {
        self.listeners.iter().zip(self.places.iter().copied())
    }

    /// Names tell listeners apart in policies, logs and metrics.
    pub(super) fn check_names(&self, findings: &mut Findings) {
        let mut seen: HashMap<&str, Place> = HashMap::new();
        for (listener, places) in self.placed() {
            if let Some(first) = seen.insert(&listener.name, places.name) {
                let message = format!(
                    "listener `{}` is here twice, first in line {}",
                    listener.name, first.line
                );
                findings.error_with_help(places.name, message, "names are unique over inbound and outbound");
            }
        }
    }

    /// No two sockets on one address.
    pub(super) fn check_addresses(&self, admin: Option<&CheckedAdmin>, findings: &mut Findings) {
        let mut seen: Vec<(String, Address)> = Vec::new();
        let listeners = self.placed().map(|(listener, places)| {
            (
                format!("listener `{}`", listener.name),
                listener.listen.clone(),
                places.listen,
            )
        });
        let admin = admin.into_iter().flat_map(|admin| {
            let listen = (
                "`admin.listen`".to_owned(),
                admin.settings.listen.clone(),
                admin.listen_place,
            );
            let probes = admin.settings.probes.map(|probes| {
                (
                    "`admin.probes`".to_owned(),
                    Address::Tcp(probes),
                    admin.probes_place,
                )
            });
            std::iter::once(listen).chain(probes)
        });
        for (who, address, place) in listeners.chain(admin) {
            if let Some((other, taken)) = seen.iter().find(|(_, taken)| collide(taken, &address)) {
                let message = format!("{who} listens on `{address}`, which {other} takes with `{taken}`");
                findings.error_with_help(place, message, "give each its own port or path");
            }
            seen.push((who, address));
        }
    }
}

/// Whether the second bind would fail.
fn collide(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::Tcp(a), Address::Tcp(b)) => {
            // `[::]` takes IPv4, too; `0.0.0.0` does not take IPv6.
            let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
            let (one, other) = (a.ip().to_canonical(), b.ip().to_canonical());
            let one_covers_other = one == other || covers(one, other) || covers(other, one);
            // Port 0 is a new port each time.
            a.port() != 0 && a.port() == b.port() && one_covers_other
        }
        _ => false,
    }
}

fn listener(
    node: &Node,
    path: &str,
    direction: Direction,
    findings: &mut Findings,
) -> Option<(Listener, Places)> {
    let known = match direction {
        Direction::Inbound => INBOUND,
        Direction::Outbound => OUTBOUND,
    };
    let fields = Fields::of(node, path, known, findings)?;
    let name = name(&fields, findings);
    let transparent = transparent::is(&fields, findings);
    let listen = listen(&fields, direction, transparent, findings);
    let alpn = alpn(&fields, findings);
    refuse_later_fields(&fields, findings);
    let place = listen.as_ref().map(|(address, place)| (address, *place));
    let kind = match (direction, transparent) {
        (Direction::Inbound, _) => inbound(&fields, place, transparent, findings),
        (Direction::Outbound, false) => outbound(&fields, findings),
        (Direction::Outbound, true) => transparent::outbound(&fields, place, findings),
    };
    let ((name, name_place), (listen, listen_place)) = (name?, listen?);
    let listener = Listener {
        name: name.into(),
        listen,
        alpn,
        kind: kind?,
    };
    Some((
        listener,
        Places {
            name: name_place,
            listen: listen_place,
        },
    ))
}

fn name<'n>(fields: &Fields<'n>, findings: &mut Findings) -> Option<(&'n str, Place)> {
    let (text, place) = fields.required_text("name", "orders", findings)?;
    if is_listener_name(text) {
        return Some((text, place));
    }
    let message = format!("`{text}` cannot be a listener's name");
    findings.error_with_help(
        place,
        message,
        "1 to 64 characters of `a-z`, `0-9`, `-`, `_` and `.`",
    );
    None
}

fn listen(
    fields: &Fields<'_>,
    direction: Direction,
    transparent: bool,
    findings: &mut Findings,
) -> Option<(Address, Place)> {
    let example = match direction {
        Direction::Inbound => "0.0.0.0:8443",
        Direction::Outbound => "127.0.0.1:9001",
    };
    let remote_allowed = match direction {
        Direction::Inbound => true,
        // Unreadable is an error already, and says nothing of what is wanted.
        Direction::Outbound => match fields.boolean("allow_remote_clients", findings) {
            Some(allowed) => allowed,
            None => fields.mentions("allow_remote_clients"),
        },
    };
    let (text, place) = fields.required_text("listen", example, findings)?;
    let address = match address::listen(text) {
        Ok(address) => address,
        Err(error) => {
            let message = format!("`{}` is `{text}`: {error}", fields.name_of("listen"));
            findings.error_with_help(place, message, listen_advice(text, &error, example));
            return None;
        }
    };
    // Who was not redirected is refused, wherever it comes from; and only an address of no family takes both.
    let guarded = transparent && matches!(&address, Address::Tcp(tcp) if tcp.ip().is_unspecified());
    if !remote_allowed && !guarded && !is_local(&address) {
        let message = format!("`{text}` lets other machines speak with our identity");
        let help = "listen on 127.0.0.1, [::1] or a unix socket, or say `allow_remote_clients: true` if that is meant";
        findings.error_with_help(place, message, help);
    }
    Some((address, place))
}

/// Whether only this machine (or pod) reaches an address.
pub(super) fn is_local(address: &Address) -> bool {
    match address {
        Address::Tcp(tcp) => tcp.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}

pub(super) fn listen_advice(text: &str, error: &AddressError, example: &str) -> String {
    match (error, text.rsplit_once(':')) {
        (AddressError::HostName, Some((_, port))) => format!("write the address: `127.0.0.1:{port}`"),
        _ if text.starts_with('/') => format!("write `unix://{text}`"),
        _ => format!("for example `{example}`"),
    }
}

fn inbound(
    fields: &Fields<'_>,
    place: Option<(&Address, Place)>,
    transparent: bool,
    findings: &mut Findings,
) -> Option<ListenerKind> {
    let listen = place.map(|(address, _)| address);
    let upstream = upstream(fields, transparent, findings);
    let trust = trust(fields, findings);
    let proxy_protocol = proxy::protocol(fields, listen, findings);
    let accept_proxy_from = proxy::accept_from(fields, listen, findings);
    let redirected = transparent.then(|| transparent::inbound(fields, place, findings));
    if !transparent {
        transparent::refuse(fields, &["ports"], false, findings);
    }
    Some(ListenerKind::Inbound {
        upstream: upstream?,
        trust,
        proxy_protocol,
        accept_proxy_from,
        redirected,
    })
}

/// The application, or what of our own is served in its place.
fn upstream(fields: &Fields<'_>, transparent: bool, findings: &mut Findings) -> Option<Upstream> {
    let Some(place) = fields.key_place("serve") else {
        if transparent && !fields.mentions("upstream") {
            return Some(Upstream::Original);
        }
        return target(fields, "upstream", "127.0.0.1:8080", findings).map(Upstream::Application);
    };
    let pages = [("metrics", OwnPages::Metrics), ("admin", OwnPages::Admin)];
    let serve = fields.word("serve", &pages, findings);
    let help = |what: &str| format!("take `{what}` out, or `serve`, which has no application behind it");
    for field in ["upstream", "proxy_protocol", "transparent"] {
        if fields.mentions(field) {
            let message = format!("`{}` and `{field}` exclude each other", fields.name_of("serve"));
            findings.error_with_help(place, message, help(field));
        }
    }
    serve.map(Upstream::Own)
}

/// The federated trust domains that a listener accepts. Left out: our own alone.
fn trust(fields: &Fields<'_>, findings: &mut Findings) -> Vec<TrustDomain> {
    let mut domains: Vec<TrustDomain> = Vec::new();
    let name = fields.name_of("trust");
    for (text, place) in fields.texts("trust", MAX_PATTERNS, findings).unwrap_or_default() {
        match parse_trust_domain(text, place, &name, findings) {
            Some(domain) if domains.contains(&domain) => {
                findings.error(place, format!("`{text}` is in `{name}` twice"));
            }
            Some(domain) => domains.push(domain),
            None => {}
        }
    }
    domains
}

fn outbound(fields: &Fields<'_>, findings: &mut Findings) -> Option<ListenerKind> {
    let connect = target(fields, "connect", "payments.shop.svc:8443", findings);
    let peer = peer(fields, findings);
    let sni = server_name(fields, connect.as_ref(), findings);
    transparent::refuse(fields, &["destinations", "unmatched"], false, findings);
    Some(ListenerKind::Outbound {
        connect: connect?,
        peer: peer?,
        sni,
    })
}
