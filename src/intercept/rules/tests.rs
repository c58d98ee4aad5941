//! Which rules a config and options come to, as `nft` reads them.

use std::path::Path;

use super::*;
use crate::config::{self, Environment};

const OUT: &str = "outbound: [{ name: mesh, listen: '[::]:15001', transparent: true, \
                   destinations: [{ to: ['10.0.0.0/8:*'], peer: ['spiffe://td/**'] }] }]\n";
const IN: &str = "policy: { path: p }\n\
                  inbound: [{ name: app, listen: '[::]:15006', transparent: true }, \
                  { name: web, listen: '0.0.0.0:15007', transparent: true, ports: [80, 81] }, \
                  { name: direct, listen: '0.0.0.0:8443', upstream: '127.0.0.1:1' }]\n\
                  admin: { listen: '127.0.0.1:15000', probes: '0.0.0.0:15021' }\n";

fn settings(text: &str) -> Settings {
    let environment = Environment {
        endpoint_socket: Some("unix:///agent.sock".to_owned()),
        cores: 1,
    };
    config::check(text, "c.yaml", Path::new("/"), &environment)
        .unwrap()
        .0
}

fn options() -> Options {
    Options {
        uids: vec![65532],
        ..Options::default()
    }
}

/// The rules of a chain, a line each.
fn lines(text: &str, options: &Options, hook: Hook) -> Vec<String> {
    let table = Table::new(&settings(text), options).unwrap();
    let chain = table.chains.into_iter().find(|chain| chain.hook == hook).unwrap();
    chain.rules.iter().map(ToString::to_string).collect()
}

#[test]
fn all_that_the_application_calls_is_redirected_but_for_what_is_left_out() {
    assert_eq!(
        lines(OUT, &options(), Hook::Output),
        [
            "meta skuid 65532 return",
            "oifname \"lo\" return",
            "meta l4proto tcp redirect to :15001"
        ]
    );
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
    let many = Options {
        uids: vec![1, 2],
        gids: vec![3],
        exclude_outbound_ports: vec![22, 53],
        exclude_networks: nets(&["10.96.0.1/32", "fd00::/8"]),
        include_outbound_ports: vec![80, 81],
        include_networks: nets(&["10.0.0.0/8", "::/0"]),
        ..Options::default()
    };
    assert_eq!(
        lines(OUT, &many, Hook::Output),
        [
            "meta skuid 1 return",
            "meta skuid 2 return",
            "meta skgid 3 return",
            "oifname \"lo\" return",
            "ip daddr 10.96.0.1 return",
            "ip6 daddr fd00::/8 return",
            "tcp dport 22 return",
            "tcp dport 53 return",
            "ip daddr 10.0.0.0/8 tcp dport 80 redirect to :15001",
            "ip daddr 10.0.0.0/8 tcp dport 81 redirect to :15001",
            "meta nfproto ipv6 tcp dport 80 redirect to :15001",
            "meta nfproto ipv6 tcp dport 81 redirect to :15001",
        ]
    );
    let networks = Options {
        include_networks: nets(&["10.0.0.0/8"]),
        ..options()
    };
    assert_eq!(
        lines(OUT, &networks, Hook::Output).last().unwrap(),
        "ip daddr 10.0.0.0/8 meta l4proto tcp redirect to :15001"
    );
}

#[test]
fn what_comes_in_goes_to_the_listener_of_its_port() {
    let before = [
        "iifname \"lo\" return",
        "fib daddr type != local return",
        "tcp dport 8443 return",
        "tcp dport 15006 return",
        "tcp dport 15007 return",
        "tcp dport 15021 return",
    ];
    let expect = |options: Options, rest: &[&str]| {
        let expected = [&before[..], rest].concat();
        assert_eq!(lines(IN, &options, Hook::Prerouting), expected);
    };
    expect(
        options(),
        &[
            "tcp dport 80 redirect to :15007",
            "tcp dport 81 redirect to :15007",
            "meta l4proto tcp redirect to :15006",
        ],
    );
    let options = Options {
        exclude_inbound_ports: vec![22],
        include_inbound_ports: vec![81, 9000],
        ..Options::default()
    };
    expect(
        options,
        &[
            "tcp dport 22 return",
            "tcp dport 81 redirect to :15007",
            "tcp dport 9000 redirect to :15006",
        ],
    );
}

#[test]
fn the_table_is_printed_as_nft_reads_it() {
    let table = Table::new(&settings(OUT), &options()).unwrap();
    let expected = "table inet svidecar\ndelete table inet svidecar\ntable inet svidecar {\n\tchain output {\n\
                    \t\ttype nat hook output priority -100; policy accept;\n\t\tmeta skuid 65532 return\n\
                    \t\toifname \"lo\" return\n\t\tmeta l4proto tcp redirect to :15001\n\t}\n}";
    assert_eq!(table.to_string(), expected);
}

#[test]
fn what_would_have_no_effect_or_a_bad_one_is_refused() {
    let plain = "outbound: [{ name: o, listen: '127.0.0.1:1', connect: 'a:1', peer: ['spiffe://td/**'] }]\n";
    let wanted = |text, options: &Options| Table::new(&settings(text), options).unwrap_err();
    assert_eq!(wanted(plain, &options()), RulesError::NoListener);
    assert_eq!(wanted(OUT, &Options::default()), RulesError::NobodyLeftOut);
    let ports = Options {
        exclude_outbound_ports: vec![1],
        ..options()
    };
    let none = RulesError::NoSuchListener("--exclude-outbound-ports", "outgoing");
    assert_eq!(wanted(IN, &ports), none);
    let ports = Options {
        include_inbound_ports: vec![1],
        ..options()
    };
    let none = RulesError::NoSuchListener("--include-inbound-ports", "incoming");
    assert_eq!(wanted(OUT, &ports), none);
    // Before it can be: a table without a redirect, and the application open to everybody.
    let some = IN.replace("transparent: true }", "transparent: true, ports: [8080] }");
    let ports = |include: &[u16], exclude: &[u16]| Options {
        include_inbound_ports: include.to_vec(),
        exclude_inbound_ports: exclude.to_vec(),
        ..options()
    };
    assert_eq!(
        wanted(&some, &ports(&[80, 9090], &[])),
        RulesError::NotTaken(9090)
    );
    assert_eq!(
        wanted(&some, &ports(&[], &[80, 81, 8080])),
        RulesError::NothingLeft
    );
    assert_eq!(wanted(&some, &ports(&[80], &[80])), RulesError::NothingLeft);
    assert!(Table::new(&settings(OUT), &ports(&[], &[8081])).is_ok());
    let many = Options {
        include_outbound_ports: (1..=100).collect(),
        include_networks: vec!["10.0.0.0/8".parse().unwrap(); 100],
        ..options()
    };
    assert_eq!(wanted(OUT, &many), RulesError::TooMany);
    // Where nothing goes out there is nobody to leave out.
    assert!(Table::new(&settings(IN), &Options::default()).is_ok());
}
