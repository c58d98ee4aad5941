//! The published JSON Schema of the config says what the reader says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const SCHEMA: &str = include_str!("../../../config/schema/config.schema.json");
fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn problems(yaml: &str) -> Vec<String> {
    let document: Value = serde_saphyr::from_str(yaml).unwrap();
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    let errors = validator.iter_errors(&document);
    errors.map(|error| error.to_string()).collect()
}

#[test]
fn the_fields_are_those_that_are_read() {
    let schema = schema();
    jsonschema::meta::validate(&schema).unwrap();
    let read: Vec<BTreeSet<&str>> = check::FIELDS
        .iter()
        .map(|fields| fields.iter().copied().collect())
        .collect();
    let places = [
        "/properties",
        "/$defs/identity/properties",
        "/$defs/inbound/properties",
        "/$defs/inbound/properties/proxy_protocol/oneOf/1/properties",
        "/$defs/outbound/properties",
        "/$defs/destination/properties",
        "/$defs/policy/properties",
        "/$defs/limits/properties",
        "/$defs/open_connections/properties",
        "/properties/tls/properties",
        "/$defs/telemetry/properties/decisions/properties",
        "/$defs/admin/properties",
        "/$defs/telemetry/properties/access_log/properties",
        "/$defs/telemetry/properties/traces/properties",
        "/$defs/otlp/properties",
        "/$defs/audit/properties",
        "/$defs/audit/properties/sinks/items/properties",
        "/$defs/redaction/properties",
        "/$defs/redaction/properties/rules/items/properties",
    ];
    assert_eq!(places.len(), read.len());
    for (place, read) in places.iter().zip(read) {
        let properties = schema.pointer(place).unwrap().as_object().unwrap();
        assert_eq!(
            properties.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            read,
            "{place}"
        );
    }
}

#[test]
fn every_example_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for folder in ["", "tutorial"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(problems(&text), Vec::<String>::new(), "{}", path.display());
                good(&text);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 7);
}

#[test]
fn typical_mistakes_are_found() {
    let inbound = "inbound: [{ name: o, listen: '0.0.0.0:1', upstream: 'a:1' }]\n";
    for mistake in [
        "inbund: []",
        "workers: 0",
        "inbound: []",
        "inbound: [{ name: o, listen: 8443, upstream: 'a:1' }]",
        "inbound: [{ name: O, listen: '0.0.0.0:1', upstream: 'a:1' }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1' }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1', upstream: 'a:1', protocol: http }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1', upstream: 'a:1', serve: metrics }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1', serve: changes }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1', serve: admin, proxy_protocol: v2 }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1', upstream: 'a:1', proxy_protocol: v3 }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1', upstream: 'a:1', ports: [1] }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1', transparent: true, ports: [] }]",
        "inbound: [{ name: o, listen: '0.0.0.0:1', transparent: true, serve: metrics }]",
        "outbound: [{ name: o, listen: '127.0.0.1:1', transparent: true }]",
        "outbound: [{ name: o, listen: '127.0.0.1:1', transparent: true, destinations: [{ to: ['10.0.0.0/8'], peer: ['spiffe://td/**'] }] }]",
        "outbound: [{ name: o, listen: '127.0.0.1:1', connect: 'a:1', peer: ['spiffe://td/a'], unmatched: refuse }]",
        "outbound: [{ name: o, listen: '127.0.0.1:1', connect: 'a:1', peer: [] }]",
        "outbound: [{ name: o, listen: '127.0.0.1:1', connect: 'a:1', peer: ['spiffe://*/a'] }]",
    ] {
        assert!(!problems(mistake).is_empty(), "{mistake}");
    }
    for mistake in [
        "limits: { idle_timeout: 30 }",
        "limits: { max_conections: 3 }",
        "open_connections: { on_expiry: drain }",
        "policy: { mode: warn }",
        "identity: { svid: 'spiffe://example.org' }",
        "identity: { socket: 'unix:///a', files: { certificate: a, key: b, bundles: { td: c } } }",
        "telemetry: { decisions: { max_size: 64 MiB } }",
        "telemetry: { traces: { sample: 0.5 } }",
        "telemetry: { traces: { otlp: { endpoint: 'http://a:1' }, sample: 2 } }",
        "telemetry: { traces: { otlp: { endpoint: 'https://a:1' } } }",
        "telemetry: { traces: { otlp: { endpoint: 'http://127.0.0.1:1', protocol: json } } }",
        "telemetry: { decisions: { file: d, keep: 1001 } }",
        "telemetry: { access_log: { file: stdout, keep: 1 } }",
        "telemetry: { access_log: { file: stdout, max_size: 1MiB } }",
        "audit: { file: a, sync: os, sync_interval: 1s }",
        "redaction: { profile: gdpr }",
        "redaction: { rules: [{ action: mask }, { action: hash }] }",
        "redaction: { rules: [{ action: mask, ipv4: 16 }] }",
        "redaction: { rules: [{ find: ip, action: drop, keep: 1 }] }",
    ] {
        assert!(!problems(&format!("{inbound}{mistake}")).is_empty(), "{mistake}");
    }
    assert_eq!(problems(inbound), Vec::<String>::new());
    for right in [
        "telemetry: { decisions: { file: d, keep: 1000 }, access_log: { file: a, max_size: 1MiB, keep: 1 } }",
        "telemetry: { access_log: { file: stdout, format: text } }",
        "audit: { file: a, sync_interval: 1s }",
        "audit: { file: a, sync: os }",
        "redaction: { profile: gdpr, key_file: k }",
        "redaction: { key_file: k, rules: [{ action: hash }] }",
        "redaction: { rules: [{ action: mask }, { find: ip, action: keep_prefix, ipv4: 16 }] }",
    ] {
        let text = format!("{inbound}{right}");
        assert_eq!(problems(&text), Vec::<String>::new(), "{right}");
        checked(&with(&format!("{inbound}{right}"))).unwrap();
    }
    for right in [
        "inbound: [{ name: o, listen: '[::]:1', transparent: true, ports: [8080] }]\n",
        "outbound: [{ name: o, listen: '[::]:1', transparent: true, destinations: [{ to: ['10.0.0.0/8:*', '[fd00::/8]:80'], \
         peer: ['spiffe://td/**'], connect: 8443 }] }]\n",
    ] {
        assert_eq!(problems(right), Vec::<String>::new(), "{right}");
        good(&with(right));
    }
    let served =
        "inbound: [{ name: o, listen: '0.0.0.0:1', serve: metrics, accept_proxy_from: [10.0.0.0/8] }]\n";
    assert_eq!(problems(served), Vec::<String>::new());
}
