//! `transparent: true` on both sides, and what it comes to.

use std::net::SocketAddr;

use super::*;
use crate::config::settings::{
    Connect, Destinations, DialledPorts, Target, Unmatched, Upstream, listener_names,
};

const PEER: &str = "peer: ['spiffe://td/**']";

/// A transparent outbound listener with these destinations.
fn out(destinations: &str) -> String {
    with(&format!(
        "outbound: [{{ name: mesh, listen: '[::]:15001', transparent: true, {destinations} }}]\n"
    ))
}

fn one(fields: &str) -> String {
    out(&format!("destinations: [{{ {fields}, {PEER} }}]"))
}

fn inbound_with(fields: &str) -> String {
    with(&format!(
        "inbound: [{{ name: app, listen: '[::]:15006', transparent: true, {fields} }}]\n"
    ))
}

fn destinations(text: &str) -> Destinations {
    let (settings, _) = checked(text).unwrap();
    let ListenerKind::Transparent(destinations) = &settings.listeners[0].kind else {
        panic!("{:?}", settings.listeners[0])
    };
    destinations.clone()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn the_first_entry_that_names_an_address_has_it() {
    let list = format!(
        "destinations: [\
         {{ to: ['10.1.2.3:*', '[fd00:1::/32]:80'], {PEER} }}, \
         {{ to: ['10.0.0.0/8:80', '::ffff:192.0.2.0/120:80'], {PEER}, connect: 8443 }}]"
    );
    // An IPv4-mapped network needs brackets, as any IPv6 network.
    assert!(
        checked(&out(&list)).unwrap_err()[0]
            .message
            .contains("stands in brackets")
    );
    let list = list.replace("::ffff:192.0.2.0/120:80", "[::ffff:192.0.2.0/120]:80");
    let destinations = destinations(&out(&list));
    for (address, expected) in [
        ("10.1.2.3:80", Some(0)),
        ("10.1.2.3:9", Some(0)),
        ("10.1.2.4:80", Some(1)),
        ("10.1.2.4:81", None),
        ("192.0.2.200:80", Some(1)),
        ("[fd00:1::5]:80", Some(0)),
        ("[fd00:2::5]:80", None),
        ("11.0.0.1:80", None),
    ] {
        assert_eq!(
            destinations.find(at(address)).map(|(n, _)| n),
            expected,
            "{address}"
        );
    }
}

#[test]
fn where_a_destination_is_dialled() {
    let original = at("10.1.2.3:80");
    for (fields, expected, sni) in [
        ("to: ['10.0.0.0/8:80']", Target::Ip(original), None),
        (
            "to: ['10.0.0.0/8:80'], connect: 8443",
            Target::Ip(at("10.1.2.3:8443")),
            None,
        ),
        (
            "to: ['10.0.0.0/8:80'], connect: 'pay.svc:8443'",
            Target::Name("pay.svc".to_owned(), 8443),
            Some("pay.svc"),
        ),
        (
            "to: ['10.0.0.0/8:80'], connect: 8443, sni: Pay.svc",
            Target::Ip(at("10.1.2.3:8443")),
            Some("pay.svc"),
        ),
    ] {
        let destinations = destinations(&one(fields));
        let destination = &destinations.list[0];
        assert_eq!(destination.connect.target(original), expected, "{fields}");
        assert_eq!(destination.sni.as_deref(), sni, "{fields}");
        assert_eq!(destinations.unmatched, Unmatched::Refuse);
    }
    assert_eq!(
        destinations(&one("to: ['10.1.2.3:80']")).list[0].connect,
        Connect::Original
    );
}

#[test]
fn passing_on_in_plain_text_is_a_warning() {
    let text = out(&format!(
        "destinations: [{{ to: ['10.0.0.0/8:80'], {PEER} }}], unmatched: passthrough"
    ));
    let (settings, warnings) = checked(&text).unwrap();
    assert!(warnings[0].message.contains("plain text"), "{warnings:?}");
    assert_eq!(settings.listeners[0].dialled_ports(), DialledPorts::Any);
}

#[test]
fn the_ports_that_may_be_dialled() {
    let these = |ports: &[u16]| DialledPorts::These(ports.iter().copied().collect());
    for (text, expected) in [
        (with(IN), these(&[])),
        (one("to: ['10.0.0.0/8:80', '[fd00::/8]:81']"), these(&[80, 81])),
        (one("to: ['10.0.0.0/8:*']"), DialledPorts::Any),
        (one("to: ['10.0.0.0/8:*'], connect: 8443"), these(&[8443])),
        (one("to: ['10.0.0.0/8:*'], connect: 'a.svc:1'"), these(&[1])),
        (one("to: ['10.0.0.0/8:*'], connect: '10.0.0.1:2'"), these(&[2])),
        (one("to: ['10.0.0.0/8:*'], connect: 'unix:///s'"), these(&[])),
        (inbound_with("ports: [8080, 9090]"), these(&[8080, 9090])),
        (inbound_with("alpn: []"), DialledPorts::Any),
        (inbound_with("upstream: '127.0.0.1:1'"), these(&[])),
    ] {
        assert_eq!(good(&text).listeners[0].dialled_ports(), expected, "{text}");
    }
}

#[test]
fn the_application_is_where_callers_wanted_to_go_unless_the_file_says_where() {
    for (fields, expected) in [
        ("ports: [8080]", Upstream::Original),
        (
            "upstream: '127.0.0.1:8080'",
            Upstream::Application(Target::Ip(at("127.0.0.1:8080"))),
        ),
    ] {
        let settings = good(&inbound_with(fields));
        let ListenerKind::Inbound { upstream, .. } = &settings.listeners[0].kind else {
            panic!("no inbound listener")
        };
        assert_eq!(*upstream, expected);
    }
}

#[test]
fn policies_know_a_transparent_listener_by_the_port_that_callers_dial() {
    for (fields, port) in [
        ("ports: [8080]", Some(8080)),
        ("ports: [8080, 9090]", None),
        ("alpn: []", None),
    ] {
        let settings = good(&inbound_with(fields));
        assert_eq!(listener_names(&settings.listeners)[0].port, port, "{fields}");
    }
}

#[test]
fn what_is_ours_is_known() {
    let text = format!(
        "{}admin: {{ listen: '127.0.0.1:15000', probes: '0.0.0.0:15021' }}\n",
        one("to: ['10.0.0.0/8:*']").replace(
            "outbound:",
            "inbound: [{ name: in, listen: '10.0.0.9:8443', upstream: '127.0.0.1:1' }]\noutbound:"
        )
    );
    let settings = good(&text);
    let ListenerKind::Transparent(destinations) = &settings.listeners[1].kind else {
        panic!("{:?}", settings.listeners)
    };
    let here = "10.0.0.9".parse().unwrap();
    for (address, ours) in [
        ("10.0.0.9:8443", true),
        ("10.0.0.8:8443", false),
        ("10.0.0.9:15001", true),
        ("127.0.0.1:15001", true),
        // Another machine's sidecar listens there, too.
        ("10.0.0.8:15001", false),
        ("10.0.0.9:15021", true),
        ("127.0.0.1:15000", true),
        ("10.0.0.9:15000", false),
        ("10.0.0.9:80", false),
    ] {
        assert_eq!(destinations.ours.has(at(address), here), ours, "{address}");
    }
}

#[test]
fn what_is_refused() {
    let two = |a: &str, b: &str| {
        with(&format!(
            "inbound: [{{ name: a, listen: '0.0.0.0:1', transparent: true{a} }}, \
             {{ name: b, listen: '0.0.0.0:2', transparent: true{b} }}]\n"
        ))
    };
    let listening = |listen: &str| one("to: ['10.0.0.0/8:80']").replace("[::]:15001", listen);
    for (text, needle) in [
        (out("alpn: []"), "`destinations` is missing"),
        (out("destinations: []"), "is an empty list"),
        (
            out("destinations: [{ to: ['10.0.0.0/8:80'] }]"),
            "does not say which `peer` may answer",
        ),
        (out(&format!("destinations: [{{ {PEER} }}]")), "`to` is missing"),
        (one("to: ['10.0.0.0/8']"), "is no address and port"),
        (one("to: ['10.0.0.0/8:0']"), "is no address and port"),
        (one("to: ['10.0.0.0/8:+80']"), "is no address and port"),
        (one("to: ['[10.0.0.0/8]:80']"), "is no address and port"),
        (one("to: ['fd00::/8:80']"), "stands in brackets"),
        (one("to: ['10.1.0.0/8:80']"), "bits set beyond its prefix"),
        (one("to: ['pay.svc:80']"), "neither an IP address nor a network"),
        (
            one("to: ['10.0.0.0/8:*', '10.1.0.0/16:80']"),
            "`10.1.0.0/16:80` never counts: `10.0.0.0/8:*` in line 3 has it",
        ),
        (
            one("to: ['10.0.0.0/8:80'], connect: 0"),
            "`outbound[0].destinations[0].connect`",
        ),
        (one("to: ['10.0.0.0/8:80'], connect: ':8443'"), "missing"),
        (
            one("to: ['10.0.0.0/8:80'], connect: []"),
            "must be a port or an address",
        ),
        (one("to: ['10.0.0.0/8:80'], sni: '10.0.0.1'"), "is no DNS name"),
        (
            out(&format!(
                "destinations: [{{ to: ['10.0.0.0/8:80'], {PEER} }}], connect: 'a:1'"
            )),
            "no place beside `transparent: true`",
        ),
        (listening("unix:///s"), "to a unix socket"),
        (listening("127.0.0.1:0"), "must name a port"),
        (listening("10.0.0.1:1"), "lets other machines speak"),
        (
            outbound(&format!("{OUT}, {PEER}, unmatched: refuse")),
            "is for listeners with `transparent: true`",
        ),
        (
            with(&format!(
                "outbound: [{0}, {1}]\n",
                format_args!(
                    "{{ name: a, listen: '127.0.0.1:1', transparent: true, destinations: [{{ to: ['10.0.0.0/8:80'], {PEER} }}] }}"
                ),
                format_args!(
                    "{{ name: b, listen: '[::1]:1', transparent: true, destinations: [{{ to: ['10.0.0.0/8:80'], {PEER} }}] }}"
                ),
            )),
            "listener `b` is transparent, as `a` is",
        ),
        (inbound("ports: [1]"), "is for listeners with `transparent: true`"),
        (inbound_with("serve: metrics"), "exclude each other"),
        (inbound_with("ports: [80, 80]"), "twice"),
        (inbound_with("ports: [0]"), "numbers from 1 to 65535"),
        (inbound_with("ports: ['80']"), "numbers from 1 to 65535"),
        (inbound_with("ports: [15006]"), "on which we listen ourselves"),
        (
            inbound_with("ports: [1]").replace("[::]:15006", "10.0.0.1:15006"),
            "listen on `0.0.0.0:15006`",
        ),
        (two("", ""), "`b` takes connections to a port that `a` takes"),
        (
            two(", ports: [80]", ", ports: [81, 80]"),
            "to a port that `a` takes",
        ),
    ] {
        let found: Vec<String> = checked(&text)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        let errors: Vec<&String> = found.iter().filter(|f| f.starts_with("error")).collect();
        assert_eq!(errors.len(), 1, "{text}\n{found:#?}");
        assert!(
            errors[0].contains(needle),
            "{text}\nwanted {needle}\n{}",
            errors[0]
        );
    }
    assert!(checked(&two(", ports: [80]", "")).is_ok());
}
