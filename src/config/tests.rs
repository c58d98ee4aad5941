mod evidence;
mod otlp;
mod policy;
mod schema;
mod transparent;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::settings::*;
use super::*;
use crate::record::Direction;

const FULL: &str = include_str!("../../config/sidecar.yaml");

fn environment() -> Environment {
    Environment {
        endpoint_socket: None,
        cores: 8,
    }
}

fn checked(text: &str) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
    check(text, "c.yaml", Path::new("/etc/svidecar"), &environment())
}

fn good(text: &str) -> Settings {
    match checked(text) {
        Ok((settings, warnings)) => {
            assert_eq!(warnings, [], "{text}");
            settings
        }
        Err(found) => panic!(
            "{text}\n{}",
            found.iter().map(|d| format!("{d}\n")).collect::<String>()
        ),
    }
}

/// A good config of one line a section, with `extra` lines after it.
fn with(extra: &str) -> String {
    format!("identity: {{ socket: unix:///a.sock }}\npolicy: {{ path: p }}\n{extra}")
}

const IN: &str = "inbound: [{ name: orders, listen: 0.0.0.0:8443, upstream: 127.0.0.1:8080 }]\n";

fn inbound(extra: &str) -> String {
    with(&format!(
        "inbound: [{{ name: orders, listen: 0.0.0.0:8443, upstream: 127.0.0.1:8080, {extra} }}]\n"
    ))
}

fn outbound(extra: &str) -> String {
    with(&format!("outbound:\n  - {{ name: pay, {extra} }}\n"))
}

const OUT: &str = "listen: 127.0.0.1:1, connect: 'pay.svc:2'";

#[test]
fn the_least_config() {
    let settings = good(&with(IN));
    assert_eq!(
        settings.policy.path.as_deref(),
        Some(Path::new("/etc/svidecar/p"))
    );
    assert_eq!(settings.policy.mode, PolicyMode::Enforce);
    assert_eq!(settings.limits, Limits::default());
    assert_eq!(settings.open_connections, OpenConnections::default());
    assert_eq!(settings.workers, 4);
    assert_eq!(settings.admin, None);
    assert_eq!(settings.log, Log::default());
    assert_eq!(settings.listeners[0].direction(), Direction::Inbound);
}

#[test]
fn the_example_config_says_what_it_says() {
    let settings = good(FULL);
    assert_eq!(settings.listeners.len(), 2);
    assert_eq!(settings.workers, 2);
    assert_eq!(settings.limits.idle_timeout, Duration::from_secs(3600));
    let ListenerKind::Outbound { connect, peer, sni } = &settings.listeners[1].kind else {
        panic!()
    };
    assert_eq!(connect, &Target::Name("payments.shop.svc".to_owned(), 8443));
    assert_eq!(peer[0].to_string(), "spiffe://example.org/ns/shop/sa/payments");
    assert_eq!(sni.as_deref(), Some("payments.shop.svc"));
    assert_eq!(
        settings.open_connections.on_expiry,
        OnChange::Drain(Duration::from_secs(30))
    );
}

#[test]
fn every_example_in_the_repository_is_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let environment = Environment {
            endpoint_socket: None,
            cores: 1,
        };
        let (settings, warnings) = load(&path, &environment).unwrap_or_else(|found| panic!("{found:#?}"));
        assert_eq!(warnings, []);
        if let Some(policy) = &settings.policy.path {
            let names = listener_names(&settings.listeners);
            let now = std::time::SystemTime::UNIX_EPOCH;
            let (policy, warnings) =
                crate::policy::load(policy, crate::policy::Surroundings::of(&names), now)
                    .unwrap_or_else(|f| panic!("{f:#?}"));
            assert_eq!(warnings, []);
            assert!(!policy.rules().is_empty());
        }
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}

/// The fenced YAML blocks of a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}

#[test]
fn the_examples_in_the_documentation_are_good() {
    let configs = blocks(include_str!("../../docs/config.md"));
    assert_eq!(configs.len(), 2);
    configs.into_iter().for_each(|text| {
        good(text);
    });
    let configs = blocks(include_str!("../../docs/proxy-protocol.md"));
    assert_eq!(configs.len(), 2);
    configs.into_iter().for_each(|text| {
        good(text);
    });
    let configs = blocks(include_str!("../../docs/transparent.md"));
    assert_eq!(configs.len(), 2);
    good(configs[0]);
    let policies = blocks(include_str!("../../docs/policy.md"));
    let [policy, deny_list] = policies.as_slice() else {
        panic!("{} blocks", policies.len())
    };
    assert_eq!(crate::policy::parse_text(policy).unwrap().len(), 4);
    assert_eq!(crate::policy::deny_list::parse_text(deny_list).unwrap().len(), 4);
}

#[test]
fn the_documentation_names_every_field() {
    let page = include_str!("../../docs/config.md");
    for field in check::FIELDS.iter().copied().flatten() {
        let forms = [format!("`{field}`"), format!("`{field}."), format!(".{field}`")];
        assert!(forms.iter().any(|form| page.contains(form)), "{field}");
    }
}

#[test]
fn the_token_s_file_is_relative_to_the_config() {
    let settings = good(&format!(
        "{}admin: {{ listen: '127.0.0.1:1', token_file: run/token }}\n",
        with(IN)
    ));
    let token_file = settings.admin.unwrap().token_file.unwrap();
    assert!(token_file.ends_with("run/token"), "{}", token_file.display());
}

#[test]
fn a_listener_serves_an_application_or_a_part_of_the_admin_endpoint() {
    for (field, upstream, words) in [
        ("serve: metrics", Upstream::Own(OwnPages::Metrics), "metrics"),
        ("serve: admin", Upstream::Own(OwnPages::Admin), "admin"),
        (
            "upstream: 127.0.0.1:80",
            Upstream::Application(Target::Ip("127.0.0.1:80".parse().unwrap())),
            "127.0.0.1:80",
        ),
    ] {
        let settings = good(&with(&format!(
            "inbound: [{{ name: a, listen: '1.2.3.4:5', {field} }}]"
        )));
        let ListenerKind::Inbound { upstream: read, .. } = &settings.listeners[0].kind else {
            panic!("not inbound")
        };
        assert_eq!((read, read.to_string().as_str()), (&upstream, words));
    }
}

#[test]
fn the_environment_s_socket_is_the_default() {
    let environment = |socket: &str| Environment {
        endpoint_socket: Some(socket.to_owned()),
        cores: 2,
    };
    let text = format!("policy: {{ path: p }}\n{IN}");
    let check_with = |text: &str, socket: &str| check(text, "c", Path::new(""), &environment(socket));
    let (settings, _) = check_with(&text, "unix:///env.sock").unwrap();
    assert_eq!(
        settings.identity.source,
        IdentitySource::WorkloadApi(Address::Unix("/env.sock".into()))
    );
    assert_eq!(settings.workers, 2);
    let (settings, _) = check_with(&with(IN), "unix:///env.sock").unwrap();
    assert_eq!(
        settings.identity.source,
        IdentitySource::WorkloadApi(Address::Unix("/a.sock".into()))
    );
    let found = check_with(&text, "/env.sock").unwrap_err();
    assert!(
        found[0]
            .message
            .starts_with("`SPIFFE_ENDPOINT_SOCKET` is `/env.sock`"),
        "{found:?}"
    );
    assert!(
        check_with(&with(IN), "rubbish").is_ok(),
        "a socket that is not used is not judged"
    );
    let found = checked(&text).unwrap_err();
    assert!(found[0].message.contains("no identity source"), "{found:?}");
}

/// Each text has exactly one error, which says this.
#[test]
fn refusals() {
    let table = [
        (String::new(), "the file is empty"),
        ("- a\n".to_owned(), "must be a mapping"),
        (with(""), "no listener"),
        (with("inbound: []\n"), "`inbound` is an empty list"),
        (with("inbound:\n"), "`inbound` has no value"),
        (with("inbund: []\n"), "did you mean `inbound`?"),
        (
            format!("identity: {{ socket: unix:///a }}\n{IN}"),
            "`inbound` listeners need a `policy`",
        ),
        (
            format!("{}policy: {{ path: q }}\n", with(IN)),
            "`policy` is here twice",
        ),
        (
            format!("identity: {{ socket: unix:///a }}\npolicy: {{ mode: audit }}\n{IN}"),
            "`path` is missing in `policy`",
        ),
        (
            format!("identity: {{ socket: unix:///a }}\npolicy: {{ path: p, mode: off }}\n{IN}"),
            "`enforce` or `audit`",
        ),
        // Names.
        (
            with("inbound: [{ listen: '1.2.3.4:5', upstream: '1.2.3.4:5' }]"),
            "`name` is missing in `inbound[0]`",
        ),
        (
            with("inbound: [{ name: Orders, listen: '1.2.3.4:5', upstream: '1.2.3.4:5' }]"),
            "cannot be a listener's name",
        ),
        (
            with(&format!(
                "inbound: [{{ name: {}, listen: '1.2.3.4:5', upstream: '1.2.3.4:5' }}]",
                "a".repeat(65)
            )),
            "1 to 64",
        ),
        (
            with(
                "inbound: [{ name: a, listen: '1.2.3.4:5', upstream: '1.2.3.4:5' }, { name: a, listen: '1.2.3.4:6', upstream: '1.2.3.4:5' }]",
            ),
            "listener `a` is here twice, first in line 3",
        ),
        // Addresses.
        (
            with("inbound: [{ name: a, listen: ':8443', upstream: '1.2.3.4:5' }]"),
            "the IP address is missing",
        ),
        (
            with("inbound: [{ name: a, listen: 'localhost:8443', upstream: '1.2.3.4:5' }]"),
            "write the address: `127.0.0.1:8443`",
        ),
        (
            with("inbound: [{ name: a, listen: 0.0.0.0, upstream: '1.2.3.4:5' }]"),
            "the port is missing",
        ),
        (
            with("inbound: [{ name: a, listen: /run/x.sock, upstream: '1.2.3.4:5' }]"),
            "write `unix:///run/x.sock`",
        ),
        (
            with("inbound: [{ name: a, listen: 'tcp://1.2.3.4:5', upstream: '1.2.3.4:5' }]"),
            "an address is `IP:port`",
        ),
        (
            with("inbound: [{ name: a, listen: '1.2.3.4:5', upstream: ':8080' }]"),
            "write `127.0.0.1:8080`",
        ),
        (
            with("inbound: [{ name: a, listen: '1.2.3.4:5', upstream: 'app:0' }]"),
            "port 0 cannot be dialled",
        ),
        (
            with("inbound: [{ name: a, listen: '1.2.3.4:5' }]"),
            "`upstream` is missing",
        ),
        (
            with(
                "inbound: [{ name: a, listen: '0.0.0.0:5', upstream: '1.2.3.4:5' }, { name: b, listen: '10.0.0.1:5', upstream: '1.2.3.4:5' }]",
            ),
            "which listener `a` takes with `0.0.0.0:5`",
        ),
        (
            with(
                "inbound: [{ name: a, listen: '[::]:5', upstream: '1.2.3.4:5' }, { name: b, listen: '127.0.0.1:5', upstream: '1.2.3.4:5' }]",
            ),
            "which listener `a` takes with `[::]:5`",
        ),
        (
            format!(
                "{}admin: {{ listen: '127.0.0.1:1', probes: '0.0.0.0:15021' }}\n",
                with("inbound: [{ name: a, listen: '[::]:15021', upstream: '1.2.3.4:5' }]\n")
            ),
            "which listener `a` takes with `[::]:15021`",
        ),
        (
            with(
                "inbound: [{ name: a, listen: 'unix:///x', upstream: '1.2.3.4:5' }, { name: b, listen: 'unix:/x', upstream: '1.2.3.4:5' }]",
            ),
            "listener `a` takes",
        ),
        (
            format!("{}admin: {{ listen: '127.0.0.1:8443' }}\n", with(IN)),
            "`admin.listen` listens on `127.0.0.1:8443`, which listener `orders` takes",
        ),
        (
            format!(
                "{}admin: {{ listen: '127.0.0.1:1', probes: '0.0.0.0:1' }}\n",
                with(IN)
            ),
            "`admin.probes` listens on",
        ),
        // What this version does not have.
        (
            inbound("protocol: http"),
            "`protocol: http` is not in this version",
        ),
        (inbound("protocol: htp"), "did you mean `http`?"),
        (inbound("serve: metrics"), "exclude each other"),
        (
            with("inbound: [{ name: a, listen: '1.2.3.4:5', serve: metric }]"),
            "did you mean `metrics`?",
        ),
        (
            with("inbound: [{ name: a, listen: '1.2.3.4:5', serve: admin, proxy_protocol: v2 }]"),
            "`inbound[0].serve` and `proxy_protocol` exclude each other",
        ),
        (
            format!("{}admin: {{ listen: '127.0.0.1:1', token: t }}\n", with(IN)),
            "did you mean `token_file`?",
        ),
        (format!("{}sandbox: strikt\n", with(IN)), "did you mean `strict`?"),
        // ALPN.
        (inbound("alpn: [h2, h2]"), "`h2` is in `inbound[0].alpn` twice"),
        (inbound("alpn: ['']"), "is empty"),
        (inbound(&format!("alpn: [{}]", "x".repeat(256))), "1 to 255 bytes"),
        // Outbound.
        (outbound(OUT), "does not say which `peer` may answer"),
        (
            outbound(&format!("{OUT}, peer: []")),
            "`outbound[0].peer` is an empty list",
        ),
        (
            outbound(&format!("{OUT}, peer: ~")),
            "`outbound[0].peer` has no value",
        ),
        (
            outbound(&format!("{OUT}, peer: ['*']")),
            "is no SPIFFE ID pattern",
        ),
        (
            outbound(&format!("{OUT}, peer: ['spiffe://td']")),
            "a pattern needs a path",
        ),
        (
            outbound(&format!("{OUT}, peer: ['spiffe://td/x'], sni: 127.0.0.1")),
            "which is no DNS name",
        ),
        (
            outbound(&format!("{OUT}, peer: ['spiffe://td/x'], sni: 'a:1'")),
            "which is no DNS name",
        ),
        (
            outbound(&format!("{OUT}, peer: ['spiffe://td/x'], sni: a.")),
            "no final dot",
        ),
        (
            outbound("listen: 0.0.0.0:1, connect: 'p:2', peer: ['spiffe://td/x']"),
            "lets other machines speak with our identity",
        ),
        (
            outbound(
                "listen: 10.0.0.1:1, connect: 'p:2', peer: ['spiffe://td/x'], allow_remote_clients: false",
            ),
            "`allow_remote_clients: true`",
        ),
        (
            outbound(
                "listen: 10.0.0.1:1, connect: 'p:2', peer: ['spiffe://td/x'], allow_remote_clients: yes",
            ),
            "must be `true` or `false`",
        ),
        // Numbers and durations.
        (
            format!("{}limits: {{ max_connections: 0 }}\n", with(IN)),
            "whole number from 1 to 1000000",
        ),
        (
            format!(
                "{}limits: {{ max_connections: 10, max_handshakes: 11 }}\n",
                with(IN)
            ),
            "above `max_connections` (10)",
        ),
        (
            format!("{}limits: {{ max_handshakes: -1 }}\n", with(IN)),
            "whole number from 1",
        ),
        (
            format!("{}limits: {{ idle_timeout: 0s }}\n", with(IN)),
            "`limits.idle_timeout` must be from 10ms to 744h",
        ),
        (
            format!("{}limits: {{ idle_timeout: 30 }}\n", with(IN)),
            "write the unit: `30s`",
        ),
        (
            format!("{}limits: {{ idle_timeout: 1 hour }}\n", with(IN)),
            "is no duration",
        ),
        (
            format!("{}workers: 0\n", with(IN)),
            "`workers` must be a whole number from 1 to 256",
        ),
        (
            format!("{}open_connections: {{ on_expiry: drain }}\n", with(IN)),
            "write `{ drain: 30s }`",
        ),
        (
            format!("{}open_connections: {{ on_expiry: {{ }} }}\n", with(IN)),
            "`drain` is missing",
        ),
        (
            format!("{}open_connections: {{ on_expiry: clos }}\n", with(IN)),
            "did you mean `close`?",
        ),
        // Admin and log.
        (
            format!("{}admin: {{ listen: '0.0.0.0:1' }}\n", with(IN)),
            "other machines must not reach the admin endpoint",
        ),
        (
            format!("{}admin: {{ probes: '0.0.0.0:1' }}\n", with(IN)),
            "`listen` is missing in `admin`",
        ),
        (
            format!("{}telemetry: {{ log: {{ level: inof }} }}\n", with(IN)),
            "did you mean `info`?",
        ),
        (
            format!("{}telemetry: {{ log: {{ level: 'info,a=b' }} }}\n", with(IN)),
            "`a=b` is no log level",
        ),
        (
            format!("{}telemetry: {{ decisions: {{ max_size: 1GiB }} }}\n", with(IN)),
            "`file` is missing in `telemetry.decisions`",
        ),
        (
            format!(
                "{}telemetry: {{ decisions: {{ file: d, max_size: 64 }} }}\n",
                with(IN)
            ),
            "write the unit: `64MiB` or `64KiB`",
        ),
        (
            format!(
                "{}telemetry: {{ decisions: {{ file: d, max_size: 64MB }} }}\n",
                with(IN)
            ),
            "such as `64MiB`",
        ),
        (
            format!(
                "{}telemetry: {{ decisions: {{ file: d, max_size: 1KiB }} }}\n",
                with(IN)
            ),
            "`telemetry.decisions.max_size` must be from 1MiB to 1024GiB",
        ),
        (
            format!(
                "{}telemetry: {{ decisions: {{ file: d, keep: 1001 }} }}\n",
                with(IN)
            ),
            "from 0 to 1000",
        ),
        (
            format!("{}telemetry: {{ log: {{ format: jsn }} }}\n", with(IN)),
            "did you mean `json`?",
        ),
        (
            format!("{}telemetry: {{ access_log: {{ format: json }} }}\n", with(IN)),
            "`file` is missing in `telemetry.access_log`",
        ),
        (
            format!(
                "{}telemetry: {{ access_log: {{ file: a, format: tex }} }}\n",
                with(IN)
            ),
            "did you mean `text`?",
        ),
        (
            format!(
                "{}telemetry: {{ access_log: {{ file: stdout, keep: 3 }} }}\n",
                with(IN)
            ),
            "`telemetry.access_log.keep` is for a file, and this is standard output",
        ),
        (
            format!(
                "{}telemetry: {{ access_log: {{ file: a, max_size: 2KiB }} }}\n",
                with(IN)
            ),
            "`telemetry.access_log.max_size` must be from 1MiB to 1024GiB",
        ),
        (
            format!(
                "{}telemetry: {{ access_log: {{ file: a }}, decisions: {{ file: ./a }} }}\n",
                with(IN)
            ),
            "`telemetry.decisions` writes to this file, too",
        ),
        (
            format!(
                "{}audit: {{ file: a }}\ntelemetry: {{ decisions: {{ file: ./a }} }}\n",
                with(IN)
            ),
            "`audit` writes to this file, too",
        ),
        (
            format!(
                "{}audit: {{ file: /a/b }}\ntelemetry: {{ access_log: {{ file: /a/./b }} }}\n",
                with(IN)
            ),
            "`audit` writes to this file, too",
        ),
        // Identity.
        (
            format!("identity: {{ socket: 'unix://a.sock' }}\npolicy: {{ path: p }}\n{IN}"),
            "`unix:///absolute/path`",
        ),
        (
            format!("identity: {{ socket: 'tcp://localhost:1' }}\npolicy: {{ path: p }}\n{IN}"),
            "an IP address is needed",
        ),
        (
            format!(
                "identity: {{ socket: unix:///a, svid: spiffe://td/x, hint: h }}\npolicy: {{ path: p }}\n{IN}"
            ),
            "exclude each other",
        ),
        (
            format!("identity: {{ socket: unix:///a, svid: spiffe://td }}\npolicy: {{ path: p }}\n{IN}"),
            "has no path",
        ),
        (
            format!("identity: {{ socket: unix:///a, svid: x }}\npolicy: {{ path: p }}\n{IN}"),
            "is no SPIFFE ID",
        ),
        (
            format!(
                "identity: {{ socket: unix:///a, svid: spiffe://td/x, trust_domain: other }}\npolicy: {{ path: p }}\n{IN}"
            ),
            "but `identity.svid` is of `td`",
        ),
        (
            format!(
                "identity: {{ socket: unix:///a, trust_domain: spiffe://td/x }}\npolicy: {{ path: p }}\n{IN}"
            ),
            "without `spiffe://`",
        ),
        (
            format!(
                "identity: {{ socket: unix:///a, files: {{ certificate: c, key: k, bundles: {{ td: b }} }} }}\npolicy: {{ path: p }}\n{IN}"
            ),
            "`identity.socket` and `identity.files` exclude each other",
        ),
        (
            format!("identity: {{ files: {{ certificate: c, key: k }} }}\npolicy: {{ path: p }}\n{IN}"),
            "`bundles` is missing",
        ),
        (
            format!(
                "identity: {{ files: {{ certificate: c, key: k, bundles: {{ }} }} }}\npolicy: {{ path: p }}\n{IN}"
            ),
            "nobody can be verified",
        ),
        (
            format!(
                "identity: {{ files: {{ certificate: c, key: k, bundles: {{ td: b, TD: c }} }} }}\npolicy: {{ path: p }}\n{IN}"
            ),
            "is here twice",
        ),
        (
            format!("identity: {{ socket: unix:///a, on_denied: drop }}\npolicy: {{ path: p }}\n{IN}"),
            "`keep` or `withdraw`",
        ),
    ];
    for (text, needle) in table {
        let found: Vec<String> = checked(&text)
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].contains(needle), "{text}\nwanted {needle}\n{}", found[0]);
    }
}

#[test]
fn all_problems_are_told_with_their_lines() {
    let found = checked(
        "identity:\n  sokcet: unix:///a\ninbound:\n  - name: orders\n    listen: localhost:1\n    upstream: 127.0.0.1:8080\nworkers: many\n",
    );
    let found: Vec<String> = found.unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "error: c.yaml:2:3: unknown field `sokcet` in `identity`\n  |\n2 |   sokcet: unix:///a\n  |   ^^^^^^\n  = help: did you mean `socket`?",
            "error: c.yaml:3:1: `inbound` listeners need a `policy`\n  |\n3 | inbound:\n  | ^^^^^^^\n  = help: name the policy files: `policy: { path: policy/ }`; without a rule that allows them, peers are denied",
            "error: c.yaml:5:13: `inbound[0].listen` is `localhost:1`: an IP address is needed here, no host name\n  |\n5 |     listen: localhost:1\n  |             ^^^^^^^^^^^\n  = help: write the address: `127.0.0.1:1`",
            "error: c.yaml:7:10: `workers` must be a whole number from 1 to 256\n  |\n7 | workers: many\n  |          ^^^^",
        ]
    );
}

#[test]
fn warnings_do_not_refuse() {
    for (extra, needle) in [
        ("identity: { socket: 'tcp://10.0.0.1:1' }", "in plain text"),
        (
            "identity: { files: { certificate: c, key: k, bundles: { td: b } }, on_denied: keep }",
            "has no effect with `files`",
        ),
    ] {
        let identity = if extra.starts_with("identity") {
            ""
        } else {
            "identity: { socket: unix:///a }\n"
        };
        let (_, warnings) = checked(&format!("{identity}policy: {{ path: p }}\n{IN}{extra}\n")).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            !warnings[0].is_error() && warnings[0].message.contains(needle),
            "{}",
            warnings[0]
        );
    }
}

#[test]
fn accepted_without_a_word() {
    for extra in [
        "sandbox: off",
        "sandbox: best-effort",
        "sandbox: strict",
        "tls: { resumption: false }",
        "tls: { resumption: true }",
        "tls: { renewal: false }",
        "telemetry: { log: { level: debug } }",
    ] {
        good(&format!("{}{extra}\n", with(IN)));
    }
    good(&inbound("alpn: [], protocol: tcp"));
    good(&with(
        "inbound: [{ name: a, listen: '127.0.0.1:0', upstream: 'unix:///x' }, { name: b, listen: '127.0.0.1:0', upstream: '[::1]:1' }]",
    ));
    good(
        "identity: { socket: unix:///a }\noutbound: [{ name: a, listen: 'unix:///o', connect: 'h:1', peer: ['spiffe://td/**'] }]",
    );
    good(&outbound(
        "listen: 0.0.0.0:1, connect: 'p:2', peer: ['spiffe://td/x'], allow_remote_clients: true",
    ));
}

#[test]
fn the_process_confines_itself_as_far_as_it_can_unless_the_file_says_otherwise() {
    assert_eq!(good(&with(IN)).sandbox, SandboxMode::BestEffort);
    for (word, mode) in SandboxMode::WORDS {
        assert_eq!(good(&format!("{}sandbox: {word}\n", with(IN))).sandbox, *mode);
        assert_eq!(mode.as_str(), *word);
    }
}

#[test]
fn sessions_are_resumed_unless_the_file_says_otherwise() {
    for (extra, resumption) in [
        ("", true),
        ("tls: {}", true),
        ("tls: { resumption: true }", true),
        ("tls: { resumption: false }", false),
    ] {
        let settings = good(&format!("{}{extra}\n", with(IN)));
        assert_eq!(settings.resumption, resumption, "{extra}");
    }
}

#[test]
fn connections_are_renewed_unless_the_file_says_otherwise() {
    for (extra, renewal) in [
        ("", true),
        ("tls: {}", true),
        ("tls: { resumption: false }", true),
        ("tls: { renewal: false }", false),
        ("tls: { resumption: true, renewal: true }", true),
    ] {
        let settings = good(&format!("{}{extra}\n", with(IN)));
        assert_eq!(settings.renewal, renewal, "{extra}");
    }
}

#[test]
fn server_names() {
    for (connect, sni) in [
        ("Pay.svc:1", Some("pay.svc")),
        ("pay.svc.:1", Some("pay.svc")),
        ("10.0.0.1:1", None),
        ("'[fd00::1]:1'", None),
        ("unix:///x", None),
    ] {
        let settings = good(&outbound(&format!(
            "listen: 127.0.0.1:1, connect: {connect}, peer: ['spiffe://td/x']"
        )));
        let ListenerKind::Outbound { sni: found, .. } = &settings.listeners[0].kind else {
            panic!()
        };
        assert_eq!(found.as_deref(), sni, "{connect}");
    }
}

#[test]
fn handshakes_never_exceed_connections() {
    for (limits, expected) in [
        ("max_connections: 10", 10),
        ("max_connections: 5000", 1000),
        ("max_handshakes: 7", 7),
    ] {
        let settings = good(&format!("{}limits: {{ {limits} }}\n", with(IN)));
        assert_eq!(settings.limits.max_handshakes, expected, "{limits}");
    }
}

#[test]
fn log_levels_are_what_tracing_reads() {
    for level in [
        "off",
        "error",
        "info",
        "info,svidecar::identity=debug",
        "svidecar=trace,warn",
    ] {
        let settings = good(&format!(
            "{}telemetry: {{ log: {{ level: '{level}' }} }}\n",
            with(IN)
        ));
        assert_eq!(settings.log.level, level);
        assert!(
            level.parse::<tracing_subscriber::filter::Targets>().is_ok(),
            "{level}"
        );
    }
}

#[test]
fn workload_api_addresses() {
    for (text, expected) in [
        ("unix:///run/a.sock", Ok("unix:///run/a.sock")),
        ("unix:/run/a.sock", Ok("unix:///run/a.sock")),
        ("tcp://127.0.0.1:8081", Ok("127.0.0.1:8081")),
        ("tcp://[::1]:8081", Ok("[::1]:8081")),
        ("tcp://[::ffff:127.0.0.1]:1", Ok("127.0.0.1:1")),
        ("unix://host/a.sock", Err(address::AddressError::UnixPath)),
        ("unix:a.sock", Err(address::AddressError::UnixPath)),
        ("unix:///", Err(address::AddressError::UnixPath)),
        ("unix:///a?b", Err(address::AddressError::UriParts)),
        ("unix:///a#b", Err(address::AddressError::UriParts)),
        ("tcp://localhost:1", Err(address::AddressError::HostName)),
        ("tcp://127.0.0.1", Err(address::AddressError::Port)),
        ("tcp://127.0.0.1:0", Err(address::AddressError::PortZero)),
        (
            "tcp://127.0.0.1:1/x",
            Err(address::AddressError::WorkloadApiScheme),
        ),
        (
            "tcp://u@127.0.0.1:1",
            Err(address::AddressError::WorkloadApiScheme),
        ),
        (
            "http://127.0.0.1:1",
            Err(address::AddressError::WorkloadApiScheme),
        ),
        ("/run/a.sock", Err(address::AddressError::WorkloadApiScheme)),
        ("", Err(address::AddressError::WorkloadApiScheme)),
    ] {
        let found = address::workload_api(text).map(|address| address.to_string());
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }
    let long = format!("unix:///{}", "a".repeat(107));
    assert_eq!(
        address::workload_api(&long),
        Err(address::AddressError::UnixPathTooLong)
    );
}

#[test]
fn targets() {
    use address::AddressError as E;
    for (text, expected) in [
        ("127.0.0.1:80", Ok("127.0.0.1:80")),
        ("[::1]:80", Ok("[::1]:80")),
        ("App.Example:80", Ok("app.example:80")),
        ("a_b:80", Ok("a_b:80")),
        ("::1:80", Err(E::Brackets)),
        ("fd00::1", Err(E::Brackets)),
        ("127.1:80", Err(E::Host)),
        ("256.0.0.1:80", Err(E::Host)),
        ("-a:80", Err(E::Host)),
        ("a..b:80", Err(E::Host)),
        ("ä:80", Err(E::Host)),
        ("a b:80", Err(E::Host)),
        ("app", Err(E::Port)),
        ("app:+80", Err(E::Port)),
        ("app:65536", Err(E::Port)),
        ("app:", Err(E::Port)),
        ("http://app:80", Err(E::Form)),
        ("/run/app.sock", Err(E::Form)),
    ] {
        let found = address::target(text).map(|target| target.to_string());
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let message = |path: &Path| load(path, &environment()).unwrap_err()[0].message.clone();
    assert!(message(&path).contains("cannot read the file"));
    assert!(message(folder.path()).contains("a folder, not a file"));
    std::fs::write(&path, b"inbound: \xff").unwrap();
    assert!(message(&path).contains("not UTF-8"));
    std::fs::write(&path, vec![b' '; crate::yaml::MAX_FILE_BYTES + 1]).unwrap();
    assert!(message(&path).contains("larger than"));
    std::fs::write(&path, with(IN)).unwrap();
    let (settings, _) = load(&path, &environment()).unwrap();
    assert_eq!(settings.policy.path, Some(folder.path().join("p")));
}

#[test]
fn a_bad_config_still_says_where_its_policy_is() {
    let found = check::examine(
        &format!("{}workers: 0\n", with(IN)),
        "c",
        Path::new("/x"),
        &environment(),
    );
    assert!(found.settings.is_none());
    assert_eq!(found.policy.path.as_deref(), Some(Path::new("/x/p")));
    assert_eq!(found.listeners.unwrap().len(), 1);
    let found = check::examine(
        &with("inbound: [{ name: a }]"),
        "c",
        Path::new("/x"),
        &environment(),
    );
    assert_eq!(found.listeners, None);
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC*|(?s).{0,200}") {
        prop_assert!(checked(&text).is_err());
    }

    #[test]
    fn a_mutated_config_is_answered(
        edits in prop::collection::vec((0..FULL.len(), prop::option::of(any::<char>())), 1..8),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (place, edit) in edits {
            let place = place % text.len();
            match edit {
                Some(c) => text.insert(place, c),
                None => { text.remove(place); }
            }
        }
        let text: String = text.into_iter().collect();
        let found = match checked(&text) {
            Ok((_, warnings)) => warnings,
            Err(found) => {
                prop_assert!(found.iter().any(Diagnostic::is_error));
                found
            }
        };
        found.iter().for_each(|diagnostic| { let _ = diagnostic.to_string(); });
    }

    #[test]
    fn any_address_is_answered(text in "\\PC{0,30}|(unix:|tcp://|\\[|\\]|:|/|\\.|[a0-9]){0,12}") {
        // What is accepted is printed in a form that means the same.
        if let Ok(target) = address::target(&text) {
            prop_assert_eq!(address::target(&target.to_string()), Ok(target));
        }
        if let Ok(listen) = address::listen(&text) {
            prop_assert_eq!(address::listen(&listen.to_string()), Ok(listen));
        }
        let _ = address::workload_api(&text);
    }
}

#[test]
fn verdicts_are_written_to_a_file_where_one_is_named() {
    assert_eq!(good(&with(IN)).decisions, None);
    let text = format!("{}telemetry: {{ decisions: {{ file: d/v.jsonl }} }}\n", with(IN));
    let decisions = good(&text).decisions.unwrap();
    assert!(decisions.path.ends_with("d/v.jsonl"), "{decisions:?}");
    assert_eq!((decisions.max_size, decisions.keep), (64 << 20, 4));
    let text = format!(
        "{}telemetry: {{ decisions: {{ file: /v, max_size: 2GiB, keep: 0 }} }}\n",
        with(IN)
    );
    let decisions = good(&text).decisions.unwrap();
    assert_eq!((decisions.max_size, decisions.keep), (2 << 30, 0));
}

#[test]
fn connections_have_lines_of_their_own_where_a_place_is_named() {
    assert_eq!(good(&with(IN)).access_log, None);
    let access = |text: &str| {
        let text = format!("{}telemetry: {{ access_log: {{ {text} }} }}\n", with(IN));
        good(&text).access_log.unwrap()
    };
    let stdout = access("file: stdout");
    assert_eq!((stdout.file, stdout.format), (None, LogFormat::Json));
    let named = access("file: ./stdout, format: text, max_size: 1MiB, keep: 0");
    assert_eq!(named.format, LogFormat::Text);
    let file = named.file.unwrap();
    assert!(file.path.ends_with("stdout"), "{file:?}");
    assert_eq!((file.max_size, file.keep), (1 << 20, 0));
    let file = access("file: /var/log/a").file.unwrap();
    assert_eq!((file.max_size, file.keep), (64 << 20, 4));
}

mod proxy;
