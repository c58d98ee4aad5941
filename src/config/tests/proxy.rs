//! `proxy_protocol` and `accept_proxy_from`.

use super::*;
use crate::config::settings::ProxyProtocol;

fn unix_inbound(fields: &str) -> String {
    with(&format!(
        "inbound: [{{ name: orders, listen: 'unix:///in', upstream: 127.0.0.1:8080, {fields} }}]\n"
    ))
}

fn kind(text: &str) -> (Option<ProxyProtocol>, Vec<String>) {
    let settings = good(text);
    let ListenerKind::Inbound {
        proxy_protocol,
        accept_proxy_from,
        ..
    } = &settings.listeners[0].kind
    else {
        panic!("no inbound listener")
    };
    (
        *proxy_protocol,
        accept_proxy_from.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn what_the_application_is_told() {
    let v2 = |spiffe_id_tlv| Some(ProxyProtocol::V2 { spiffe_id_tlv });
    for (fields, expected) in [
        ("alpn: []", None),
        ("proxy_protocol: v1", Some(ProxyProtocol::V1)),
        ("proxy_protocol: v2", v2(0xd0)),
        ("proxy_protocol: { version: v1 }", Some(ProxyProtocol::V1)),
        ("proxy_protocol: { version: v2 }", v2(0xd0)),
        ("proxy_protocol: { version: v2, spiffe_id_tlv: 0xD0 }", v2(0xd0)),
        ("proxy_protocol: { version: v2, spiffe_id_tlv: 0xe0 }", v2(0xe0)),
        ("proxy_protocol: { version: v2, spiffe_id_tlv: 239 }", v2(0xef)),
    ] {
        assert_eq!(kind(&inbound(fields)).0, expected, "{fields}");
    }
    assert_eq!(kind(&unix_inbound("proxy_protocol: v2")).0, v2(0xd0));
}

#[test]
fn whose_headers_are_believed() {
    let networks = "accept_proxy_from: [10.9.0.0/16, 192.0.2.1, '::ffff:198.51.100.0/120', 'fd00::/8']";
    assert_eq!(
        kind(&inbound(networks)).1,
        ["10.9.0.0/16", "192.0.2.1/32", "198.51.100.0/24", "fd00::/8"]
    );
    assert!(kind(&inbound("alpn: []")).1.is_empty());
}

#[test]
fn what_is_refused() {
    for (text, needle) in [
        (inbound("proxy_protocol: v3"), "it may be `v1` or `v2`"),
        (inbound("proxy_protocol: 2"), "must be text"),
        (
            inbound("proxy_protocol: { spiffe_id_tlv: 0xD0 }"),
            "`version` is missing",
        ),
        (
            inbound("proxy_protocol: { version: v2, tlv: 0xD0 }"),
            "unknown field `tlv`",
        ),
        (
            inbound("proxy_protocol: { version: v1, spiffe_id_tlv: 0xD0 }"),
            "version 1 carries no SPIFFE ID",
        ),
        (
            inbound("proxy_protocol: { version: v2, spiffe_id_tlv: '0xD0' }"),
            "must be a number, not text",
        ),
        (
            unix_inbound("proxy_protocol: v1"),
            "version 1 cannot say that a caller came over a unix socket",
        ),
        (
            unix_inbound("accept_proxy_from: [10.0.0.0/8]"),
            "no address to be known by",
        ),
        (inbound("accept_proxy_from: []"), "is an empty list"),
        (inbound("accept_proxy_from: 10.0.0.0/8"), "write `[10.0.0.0/8]`"),
        (
            inbound("accept_proxy_from: [lb.example.org]"),
            "neither an IP address nor a network",
        ),
        (
            inbound("accept_proxy_from: [10.1.0.0/8]"),
            "write `10.0.0.0/8` for the network",
        ),
        (
            with(
                "outbound: [{ name: a, listen: 'unix:///o', connect: 'h:1', peer: ['spiffe://td/**'], proxy_protocol: v2 }]\n",
            ),
            "unknown field `proxy_protocol`",
        ),
    ] {
        let found: Vec<String> = checked(&text)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].contains(needle), "{text}\nwanted {needle}\n{}", found[0]);
    }
}

#[test]
fn types_of_the_specification_are_refused() {
    for kind in [0, 0x02, 0x20, 0x30, 0xcf, 0xd1, 0xdf, 0xf0, 0xff, 0x1d0] {
        let text = inbound(&format!(
            "proxy_protocol: {{ version: v2, spiffe_id_tlv: {kind} }}"
        ));
        let found = checked(&text).unwrap_err();
        assert!(found[0].message.contains("not free for this"), "{found:?}");
    }
}

#[test]
fn believing_everybody_is_a_warning() {
    for network in ["0.0.0.0/0", "'::/0'"] {
        let (_, warnings) = checked(&inbound(&format!("accept_proxy_from: [{network}]"))).unwrap();
        assert!(warnings[0].message.contains("everybody's word"), "{warnings:?}");
    }
}
