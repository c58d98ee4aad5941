//! Collectors, and what is sent to them.

use super::*;

fn traces(fields: &str) -> String {
    format!("{}telemetry: {{ traces: {{ {fields} }} }}\n", with(IN))
}

fn otlp(fields: &str) -> Otlp {
    let settings = good(&traces(&format!("otlp: {{ {fields} }}")));
    settings.traces.unwrap().otlp
}

#[test]
fn nothing_is_sent_unless_a_collector_is_named() {
    assert_eq!(good(&with(IN)).traces, None);
    let traces = good(&traces("otlp: { endpoint: 'http://127.0.0.1:4317' }"))
        .traces
        .unwrap();
    assert_eq!((traces.sample, traces.denials), (0.01, Denials::Always));
    let otlp = traces.otlp;
    assert_eq!(otlp.endpoint, Target::Ip("127.0.0.1:4317".parse().unwrap()));
    assert_eq!(otlp.path, "");
    assert_eq!(otlp.protocol, OtlpProtocol::Grpc);
    assert_eq!(otlp.timeout, Duration::from_secs(10));
    assert_eq!(otlp.headers, OtlpHeaders::default());
    assert_eq!(otlp.service_name, "svidecar");
}

#[test]
fn a_collector_can_be_told_everything() {
    let otlp = otlp(
        "endpoint: 'http://otel.example:4318/a/b/', protocol: http, timeout: 250ms, service_name: orders, \
         headers: { Authorization: 'Bearer x', x-scope: a }, allow_plaintext: true",
    );
    assert_eq!(otlp.endpoint, Target::Name("otel.example".to_owned(), 4318));
    assert_eq!(otlp.path, "/a/b");
    assert_eq!(otlp.protocol, OtlpProtocol::Http);
    assert_eq!(otlp.timeout, Duration::from_millis(250));
    assert_eq!(otlp.service_name, "orders");
    let headers = [("authorization", "Bearer x"), ("x-scope", "a")];
    assert_eq!(
        otlp.headers.0,
        headers.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn endpoints_that_stay_on_the_machine() {
    for (text, expected) in [
        ("unix:///run/otel.sock", "unix:///run/otel.sock"),
        ("http://[::1]:4317", "[::1]:4317"),
        ("http://127.8.8.8:1/", "127.8.8.8:1"),
        ("http://localhost:4317", "127.0.0.1:4317"),
        ("http://LOCALHOST:4317", "127.0.0.1:4317"),
        ("http://[::ffff:127.0.0.1]:4317", "127.0.0.1:4317"),
    ] {
        assert_eq!(
            otlp(&format!("endpoint: '{text}'")).endpoint.to_string(),
            expected
        );
    }
}

#[test]
fn shares_and_denials() {
    for (text, share) in [("1", 1.0), ("0.25", 0.25), ("1.0", 1.0), ("1e-3", 0.001)] {
        let text = traces(&format!(
            "otlp: {{ endpoint: 'unix:///a' }}, sample: {text}, denials: sampled"
        ));
        let traces = good(&text).traces.unwrap();
        assert_eq!((traces.sample, traces.denials), (share, Denials::Sampled));
    }
}

#[test]
fn to_send_nothing_is_worth_a_warning() {
    let text = traces("otlp: { endpoint: 'unix:///a' }, sample: 0, denials: sampled");
    let (settings, warnings) = checked(&text).unwrap();
    assert_eq!(settings.traces.unwrap().sample, 0.0);
    assert!(warnings[0].message.contains("sends nothing"), "{warnings:?}");
    let text = traces("otlp: { endpoint: 'unix:///a' }, sample: 0");
    assert_eq!(good(&text).traces.unwrap().sample, 0.0);
}

#[test]
fn what_is_wrong_is_said_with_what_to_write() {
    let endpoint = |endpoint: &str| format!("otlp: {{ endpoint: '{endpoint}' }}");
    let more = |more: &str| format!("otlp: {{ endpoint: 'http://127.0.0.1:4317', {more} }}");
    for (fields, expected) in [
        ("sample: 1".to_owned(), "`otlp` is missing in `telemetry.traces`"),
        ("otlp: { protocol: grpc }".to_owned(), "`endpoint` is missing"),
        (
            endpoint("https://127.0.0.1:4317"),
            "mutual TLS with SPIFFE identities",
        ),
        (endpoint("127.0.0.1:4317"), "the scheme is missing"),
        (endpoint("http://127.0.0.1"), "4317 is usual for gRPC"),
        (endpoint("http://127.0.0.1:0"), "port 0 cannot be dialled"),
        (
            endpoint("http://a@127.0.0.1:1"),
            "an address and a path, and nothing else",
        ),
        (
            endpoint("http://127.0.0.1:1?x"),
            "an address and a path, and nothing else",
        ),
        (endpoint("http://127.0.0.1:1/a"), "gRPC takes no path"),
        (endpoint("unix://a"), "`unix:///absolute/path`"),
        (
            endpoint("http://10.0.0.1:4317"),
            "would cross the network in plain text",
        ),
        (
            endpoint("http://collector:4317"),
            "`allow_plaintext: true` if plain text is meant",
        ),
        // A name that could be anybody's, whatever it begins with.
        (
            endpoint("http://localhost.example:4317"),
            "would cross the network",
        ),
        (more("protocol: json"), "`grpc` or `http`"),
        (more("timeout: 1ms"), "must be from 100ms to 5m"),
        (
            more("headers: { content-type: x }"),
            "is no header that can be set",
        ),
        (
            more("headers: { grpc-timeout: x }"),
            "is no header that can be set",
        ),
        (more("headers: { 'a b': x }"), "is no header that can be set"),
        (more("headers: { a: 'ü' }"), "write visible ASCII characters"),
        (
            more("headers: { a: \"x\\ny\" }"),
            "write visible ASCII characters",
        ),
        (more("headers: {}"), "has 0 entries"),
        (more("service_name: ''"), "is empty"),
        (more("tls: true"), "unknown field `tls`"),
        (
            "otlp: { endpoint: 'unix:///a' }, sample: 1.5".to_owned(),
            "a number from 0 to 1",
        ),
        (
            "otlp: { endpoint: 'unix:///a' }, sample: '0.5'".to_owned(),
            "a number from 0 to 1",
        ),
        (
            "otlp: { endpoint: 'unix:///a' }, sample: 2".to_owned(),
            "a number from 0 to 1",
        ),
        (
            "otlp: { endpoint: 'unix:///a' }, denials: never".to_owned(),
            "`always` or `sampled`",
        ),
    ] {
        let found = checked(&traces(&fields)).unwrap_err();
        let text: String = found.iter().map(ToString::to_string).collect();
        assert!(text.contains(expected), "{fields}\n{text}");
    }
}
