//! PROXY headers of an inbound listener: `proxy_protocol`, which the application is sent, and `accept_proxy_from`, the
//! load balancers whose headers are believed.

use ipnet::IpNet;

use crate::config::network::network;
use crate::config::settings::{Address, ProxyProtocol};
use crate::yaml::{Fields, Findings, Node, Value};

pub(in crate::config::check) const PROXY_PROTOCOL: &[&str] = &["version", "spiffe_id_tlv"];

/// The type of Istio's field for an identity.
const ISTIO: u8 = 0xd0;
const MAX_NETWORKS: usize = 1000;

/// `v1`, `v2` or `{ version: v2, spiffe_id_tlv: 0xD0 }`.
pub(super) fn protocol(
    fields: &Fields<'_>,
    listen: Option<&Address>,
    findings: &mut Findings,
) -> Option<ProxyProtocol> {
    let node = fields.get("proxy_protocol")?;
    let path = fields.name_of("proxy_protocol");
    let protocol = match &node.value {
        Value::Map(_) => {
            let inner = Fields::of(node, &path, PROXY_PROTOCOL, findings)?;
            inner.require("version", "v2", findings)?;
            let version = version(&inner, "version", findings)?;
            match (version, inner.get("spiffe_id_tlv")) {
                (_, None) => version,
                (ProxyProtocol::V1, Some(node)) => {
                    let message = format!("`{path}`: version 1 carries no SPIFFE ID");
                    findings.error_with_help(
                        node.place,
                        message,
                        "write `version: v2`, or take the line out",
                    );
                    return None;
                }
                (ProxyProtocol::V2 { .. }, Some(node)) => ProxyProtocol::V2 {
                    spiffe_id_tlv: field_type(node, &inner.name_of("spiffe_id_tlv"), findings)?,
                },
            }
        }
        _ => version(fields, "proxy_protocol", findings)?,
    };
    if protocol == ProxyProtocol::V1 && matches!(listen, Some(Address::Unix(_))) {
        let message = format!("`{path}`: version 1 cannot say that a caller came over a unix socket");
        findings.error_with_help(
            node.place,
            message,
            "write `v2`, or listen on an IP address; a connection whose caller cannot be told is refused",
        );
        return None;
    }
    Some(protocol)
}

fn version(fields: &Fields<'_>, name: &str, findings: &mut Findings) -> Option<ProxyProtocol> {
    let versions = [
        ("v1", ProxyProtocol::V1),
        ("v2", ProxyProtocol::V2 { spiffe_id_tlv: ISTIO }),
    ];
    fields.word(name, &versions, findings)
}

/// A type that the specification leaves to applications (section 2.2.8), or the one that Istio takes.
fn field_type(node: &Node, path: &str, findings: &mut Findings) -> Option<u8> {
    if let Value::Integer(number) = node.value
        && let Ok(kind) = u8::try_from(number)
        && (kind == ISTIO || (0xe0..=0xef).contains(&kind))
    {
        return Some(kind);
    }
    let message = match &node.value {
        Value::Integer(number) => format!("`{path}` is {number:#04x}, a type that is not free for this"),
        other => format!("`{path}` must be a number, not {}", other.kind()),
    };
    let help = "write `0xD0`, as Istio has it, or one from `0xE0` to `0xEF`, which the specification leaves to applications";
    findings.error_with_help(node.place, message, help);
    None
}

/// The networks of load balancers.
pub(super) fn accept_from(
    fields: &Fields<'_>,
    listen: Option<&Address>,
    findings: &mut Findings,
) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (text, place) in fields
        .texts("accept_proxy_from", MAX_NETWORKS, findings)
        .unwrap_or_default()
    {
        match network(text) {
            Ok(network) => {
                if network.prefix_len() == 0 {
                    let message = format!("`{text}` believes everybody's word on where a caller comes from");
                    findings.warn(place, message, "name the networks of the load balancers");
                }
                networks.push(network);
            }
            Err((message, help)) => findings.error_with_help(place, message, help),
        }
    }
    if let (Some(Address::Unix(_)), Some(place)) = (listen, fields.key_place("accept_proxy_from")) {
        let message = format!(
            "`{}`: who comes over a unix socket has no address to be known by",
            fields.name_of("accept_proxy_from")
        );
        findings.error_with_help(place, message, "take the line out, or listen on an IP address");
    }
    networks
}
