//! The listeners that annotations name.

use std::path::Path;

use super::read::{Reader, expected};
use super::{INBOUND, Inbound, MOUNTS, OUTBOUND, Outbound, PEER, PREFIX, is_object_name};
use crate::config::is_listener_name;
use crate::inject::sidecar::{CONFIG_FOLDER, POLICY_FOLDER, SOCKETS_FOLDER, SPIFFE_FOLDER};
use crate::yaml::Place;

/// A target, or an address to listen on, in the folder that application and sidecar share.
const UNIX: &str = "unix";

impl<'n> Reader<'n, '_> {
    /// The entries of a list, each cut at its first `=`.
    fn entries(&mut self, name: &'static str) -> Vec<(&'n str, &'n str, Place)> {
        let Some((value, place)) = self.find(name) else {
            return Vec::new();
        };
        if value.is_empty() {
            self.bad(place, name, "has no entry");
        }
        let mut entries = Vec::new();
        for entry in split(value) {
            match entry.split_once('=') {
                Some((left, right)) if !left.trim().is_empty() && !right.trim().is_empty() => {
                    entries.push((left.trim(), right.trim(), place));
                }
                _ => self.bad(place, name, &format!("`{entry}` has not the form `…=…`")),
            }
        }
        entries
    }

    /// `any` is the address of those that say none.
    pub(super) fn inbound(&mut self, any: &str) -> Vec<Inbound> {
        let mut all: Vec<Inbound> = Vec::new();
        for (left, target, place) in self.entries(INBOUND) {
            let (name, listen) = named(left);
            let Some((listen, port)) = listen_address(listen, any) else {
                self.bad(
                    place,
                    INBOUND,
                    &format!("`{listen}` is neither a port nor an address with one"),
                );
                continue;
            };
            if let Some(name) = name.filter(|name| !is_listener_name(name)) {
                self.bad(place, INBOUND, &format!("`{name}` cannot be a listener's name"));
            }
            if target.starts_with("unix:") || (target == UNIX && name.is_none()) {
                let why =
                    format!("`{target}`: write `NAME:PORT=unix`; the socket is `{SOCKETS_FOLDER}/NAME.sock`");
                self.bad(place, INBOUND, &why);
                continue;
            }
            all.push(Inbound {
                name: name.map(str::to_owned),
                listen,
                port,
                target: match (target, name) {
                    (UNIX, Some(name)) => socket(name),
                    _ => local_target(target),
                },
            });
        }
        if let (true, Some((_, place))) = (
            all.len() > 1 && all.iter().any(|l| l.name.is_none()),
            self.find(INBOUND),
        ) {
            self.bad(place, INBOUND, "of several listeners each needs a name");
        }
        all
    }

    pub(super) fn outbound(&mut self) -> Vec<Outbound> {
        let mut all: Vec<Outbound> = Vec::new();
        for (left, connect, place) in self.entries(OUTBOUND) {
            let (Some(name), listen) = named(left) else {
                self.bad(place, OUTBOUND, &format!("`{left}` has no name before its port"));
                continue;
            };
            if !is_listener_name(name) {
                self.bad(place, OUTBOUND, &format!("`{name}` cannot be a listener's name"));
                continue;
            }
            let address = match listen {
                UNIX => Some(socket(name)),
                other => listen_address(other, "127.0.0.1").map(|(address, _)| address),
            };
            let Some(address) = address else {
                self.bad(
                    place,
                    OUTBOUND,
                    &format!("`{listen}` is neither a port nor an address with one"),
                );
                continue;
            };
            let peer_name = format!("{PEER}{name}");
            let peer = self
                .find(&peer_name)
                .map(|(value, _)| split(value).map(str::to_owned).collect());
            let peer: Vec<String> = peer.unwrap_or_default();
            if peer.is_empty() {
                let message = format!(
                    "{}: `{PREFIX}{peer_name}` is missing: who may answer?",
                    self.object
                );
                self.findings.error_with_help(place, message, expected(PEER));
            }
            all.push(Outbound {
                name: name.to_owned(),
                listen: address,
                connect: connect.to_owned(),
                peer,
            });
        }
        let strays: Vec<(&str, Place)> = self
            .all
            .iter()
            .filter(|annotation| {
                let name = annotation.name.strip_prefix(PEER);
                name.is_some_and(|name| !all.iter().any(|listener| listener.name == name))
            })
            .map(|annotation| (annotation.name, annotation.place))
            .collect();
        for (name, place) in strays {
            let why = format!("no listener of `{PREFIX}{OUTBOUND}` has this name");
            self.bad(place, name, &why);
        }
        all
    }
}

/// Where a mount may not be: what the sidecar has there is ours.
const OURS: &[&str] = &[SPIFFE_FOLDER, CONFIG_FOLDER, POLICY_FOLDER, SOCKETS_FOLDER];

impl Reader<'_, '_> {
    pub(super) fn mounts(&mut self) -> Vec<(String, String)> {
        let Some((value, place)) = self.find(MOUNTS) else {
            return Vec::new();
        };
        let mut all: Vec<(String, String)> = Vec::new();
        for entry in split(value) {
            let good = |volume: &str, path: &str| {
                let clean = !path.split('/').any(|part| part == "..") && !path.contains(':');
                is_object_name(volume) && path.starts_with('/') && path.len() > 1 && clean
            };
            let Some((volume, path)) = entry.split_once(':').filter(|(volume, path)| good(volume, path))
            else {
                self.bad(place, MOUNTS, &format!("`{entry}` is none"));
                continue;
            };
            let path = path.trim_end_matches('/');
            let is_taken =
                |other: &str| Path::new(path).starts_with(other) || Path::new(other).starts_with(path);
            if OURS.iter().any(|ours| is_taken(ours)) || all.iter().any(|(_, other)| other == path) {
                self.bad(place, MOUNTS, &format!("`{path}` is taken already"));
                continue;
            }
            all.push((volume.to_owned(), path.to_owned()));
        }
        all
    }
}

/// The items of a list with commas or ends of lines between.
fn split(value: &str) -> impl Iterator<Item = &str> {
    value
        .split([',', '\n'])
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// `orders:8443` and `8443`: the name, if there is one, and the rest.
fn named(text: &str) -> (Option<&str>, &str) {
    if listen_address(text, "").is_some() {
        return (None, text);
    }
    match text.split_once(':') {
        Some((name, rest)) => (Some(name.trim()), rest.trim()),
        None => (None, text),
    }
}

/// A port, or an IP address with a port, as an address to listen on.
fn listen_address(text: &str, default: &str) -> Option<(String, u16)> {
    if let Ok(port) = text.parse::<u16>() {
        return (port > 0).then(|| (format!("{default}:{port}"), port));
    }
    let address: std::net::SocketAddr = text.parse().ok()?;
    (address.port() > 0).then(|| (text.to_owned(), address.port()))
}

/// The socket of a listener, as an address.
fn socket(name: &str) -> String {
    format!("unix://{SOCKETS_FOLDER}/{name}.sock")
}

/// A port is one of the pod's own.
fn local_target(text: &str) -> String {
    match text.parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => text.to_owned(),
    }
}
