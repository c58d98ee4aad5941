//! The `identity` section.

use std::collections::BTreeMap;

use super::Context;
use crate::config::address;
use crate::config::settings::{Address, Identity, IdentityFiles, IdentitySource, OnDenied, SvidSelect};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::yaml::{Fields, Findings, Node, Place, Value};

pub(super) const KNOWN: &[&str] = &["socket", "svid", "hint", "files", "trust_domain", "on_denied"];

pub(super) fn read(top: &Fields<'_>, context: &Context<'_>, findings: &mut Findings) -> Option<Identity> {
    let Some(node) = top.get("identity") else {
        if top.mentions("identity") {
            return None;
        }
        let source = default_source(context, Place::default(), findings)?;
        let (select, trust_domain) = (SvidSelect::First, None);
        return Some(Identity {
            source,
            select,
            trust_domain,
            on_denied: OnDenied::Keep,
        });
    };
    let fields = Fields::of(node, "identity", KNOWN, findings)?;
    let source = source(&fields, context, findings);
    let select = select(&fields, findings);
    let trust_domain = trust_domain(&fields, &select, findings);
    let words = [("keep", OnDenied::Keep), ("withdraw", OnDenied::Withdraw)];
    let on_denied = fields.word("on_denied", &words, findings);
    if let (Some(_), Some(place), true) = (
        on_denied,
        fields.key_place("on_denied"),
        fields.get("files").is_some(),
    ) {
        let message = "`identity.on_denied` has no effect with `files`: files never deny";
        findings.warn(place, message, "take the line out");
    }
    Some(Identity {
        source: source?,
        select,
        trust_domain,
        on_denied: on_denied.unwrap_or(OnDenied::Keep),
    })
}

fn source(fields: &Fields<'_>, context: &Context<'_>, findings: &mut Findings) -> Option<IdentitySource> {
    if let Some(node) = fields.get("files") {
        if let Some(place) = fields.key_place("socket") {
            let help = "keep `socket` for a Workload API, or `files` for delivered files";
            findings.error_with_help(
                place,
                "`identity.socket` and `identity.files` exclude each other",
                help,
            );
        }
        if let Some(place) = fields.key_place("hint") {
            let help = "take the line out: files hold one SVID";
            findings.error_with_help(place, "`identity.hint` needs a Workload API", help);
        }
        return files(node, context, findings).map(IdentitySource::Files);
    }
    match fields.get("socket") {
        Some(_) => {
            let (text, place) = fields.text("socket", findings)?;
            workload_api(text, place, "identity.socket", findings)
        }
        None if fields.mentions("socket") || fields.mentions("files") => None,
        None => default_source(context, fields.place, findings),
    }
}

fn default_source(context: &Context<'_>, place: Place, findings: &mut Findings) -> Option<IdentitySource> {
    match &context.environment.endpoint_socket {
        Some(text) => workload_api(text, Place::default(), "SPIFFE_ENDPOINT_SOCKET", findings),
        None => {
            let help = "write `identity: { socket: unix:///run/spire/sockets/agent.sock }`, or set SPIFFE_ENDPOINT_SOCKET";
            findings.error_with_help(
                place,
                "no identity source: neither `identity.socket` nor `identity.files`",
                help,
            );
            None
        }
    }
}

fn workload_api(text: &str, place: Place, name: &str, findings: &mut Findings) -> Option<IdentitySource> {
    match address::workload_api(text) {
        Ok(address) => {
            if let Address::Tcp(tcp) = &address
                && !tcp.ip().is_loopback()
            {
                let message = format!("the Workload API at `{text}` is asked over the network in plain text");
                findings.warn(place, message, "private keys travel on it: use a unix socket");
            }
            Some(IdentitySource::WorkloadApi(address))
        }
        Err(error) => {
            let help = if text.starts_with('/') {
                format!("write `unix://{text}`")
            } else {
                "for example `unix:///run/spire/sockets/agent.sock`".to_owned()
            };
            findings.error_with_help(place, format!("`{name}` is `{text}`: {error}"), help);
            None
        }
    }
}

fn files(node: &Node, context: &Context<'_>, findings: &mut Findings) -> Option<IdentityFiles> {
    let fields = Fields::of(
        node,
        "identity.files",
        &["certificate", "key", "bundles"],
        findings,
    )?;
    let certificate = fields.required_text("certificate", "tls.crt", findings);
    let key = fields.required_text("key", "tls.key", findings);
    let mut bundles = BTreeMap::new();
    let node = fields.require("bundles", "{ example.org: ca.crt }", findings)?;
    let Value::Map(entries) = &node.value else {
        let help = "write one line for each trust domain: `example.org: ca.crt`";
        findings.error_with_help(node.place, "`identity.files.bundles` must be a mapping", help);
        return None;
    };
    if entries.is_empty() {
        findings.error(
            node.place,
            "`identity.files.bundles` is empty: without a bundle nobody can be verified",
        );
    }
    for (key, value) in entries {
        let Value::Text(name) = &key.value else { continue };
        let domain = parse_trust_domain(name, key.place, "identity.files.bundles", findings);
        let path = crate::yaml::text(value, &format!("identity.files.bundles.{name}"), findings);
        if let (Some(domain), Some(path)) = (domain, path)
            && bundles.insert(domain, context.path(path)).is_some()
        {
            findings.error(key.place, format!("trust domain `{name}` is here twice"));
        }
    }
    Some(IdentityFiles {
        certificate: context.path(certificate?.0),
        key: context.path(key?.0),
        bundles,
    })
}

fn select(fields: &Fields<'_>, findings: &mut Findings) -> SvidSelect {
    let svid = fields.text("svid", findings);
    let hint = fields.text("hint", findings);
    match (svid, hint) {
        (Some(_), Some((_, place))) => {
            let help =
                "keep `svid` to choose by ID, or `hint` to choose by the hint of the registration entry";
            findings.error_with_help(
                place,
                "`identity.svid` and `identity.hint` exclude each other",
                help,
            );
            SvidSelect::First
        }
        (Some((text, place)), None) => match SpiffeId::new(text) {
            Ok(id) if !id.path().is_empty() => SvidSelect::Id(id),
            Ok(id) => {
                let message =
                    format!("`identity.svid` is `{id}`, which has no path and so is no workload's ID");
                findings.error_with_help(place, message, format!("for example `{id}/orders`"));
                SvidSelect::First
            }
            Err(error) => {
                let help = "for example `spiffe://example.org/orders`";
                findings.error_with_help(place, format!("`identity.svid` is no SPIFFE ID: {error}"), help);
                SvidSelect::First
            }
        },
        (None, Some((text, place))) if text.len() > 256 => {
            findings.error(place, "`identity.hint` is longer than 256 bytes");
            SvidSelect::First
        }
        (None, Some((text, _))) => SvidSelect::Hint(text.to_owned()),
        (None, None) => SvidSelect::First,
    }
}

fn trust_domain(fields: &Fields<'_>, select: &SvidSelect, findings: &mut Findings) -> Option<TrustDomain> {
    let of_svid = match select {
        SvidSelect::Id(id) => Some(id.trust_domain().clone()),
        SvidSelect::First | SvidSelect::Hint(_) => None,
    };
    let Some((text, place)) = fields.text("trust_domain", findings) else {
        return of_svid;
    };
    let typed = parse_trust_domain(text, place, "identity.trust_domain", findings);
    if let (Some(typed), Some(of_svid)) = (&typed, &of_svid)
        && typed != of_svid
    {
        let message = format!("`identity.trust_domain` is `{typed}`, but `identity.svid` is of `{of_svid}`");
        findings.error_with_help(place, message, "take the line out: `svid` says the trust domain");
    }
    typed
}

pub(super) fn parse_trust_domain(
    text: &str,
    place: Place,
    name: &str,
    findings: &mut Findings,
) -> Option<TrustDomain> {
    // `TrustDomain::new` also takes a whole SPIFFE ID and drops its path in silence.
    let parsed = if text.contains('/') {
        Err("a trust domain is written without `spiffe://` and without a path".to_owned())
    } else {
        TrustDomain::new(text).map_err(|error| error.to_string())
    };
    match parsed {
        Ok(domain) => Some(domain),
        Err(error) => {
            let message = format!("`{name}`: `{text}` is no trust domain: {error}");
            findings.error_with_help(place, message, "for example `example.org`");
            None
        }
    }
}
