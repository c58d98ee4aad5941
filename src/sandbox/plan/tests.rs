use super::*;
use crate::config::{self, Environment};

const IN: &str =
    "inbound: [{ name: orders, listen: 0.0.0.0:8443, upstream: 127.0.0.1:8080 }]\npolicy: { path: policy }\n";
const AGENT: &str = "identity: { socket: unix:///run/agent.sock }\n";

/// The machine of these tests: no links.
fn folders(path: &Path) -> Vec<PathBuf> {
    vec![path.parent().unwrap().to_owned()]
}

fn plan(text: &str) -> Plan {
    let environment = Environment {
        endpoint_socket: None,
        cores: 2,
    };
    let file = Path::new("/etc/svidecar/svidecar.yaml");
    let (settings, _) = config::check(text, "svidecar.yaml", file.parent().unwrap(), &environment).unwrap();
    let surroundings = Surroundings {
        folders: &folders,
        exists: &|file| !file.ends_with("gai.conf"),
        first_free_port: 1024,
    };
    Plan::of(&settings, file, &surroundings)
}

const HELD: Held = Held {
    files: true,
    network: true,
    capabilities: true,
};

/// What the plan of `text` grants beyond what everybody has, in words.
fn granted(text: &str) -> Vec<String> {
    const EVERYBODY: [&str; 3] = ["the config file", "metrics of the process", "random numbers"];
    let always = |grant: &&Grant| !EVERYBODY.contains(&grant.why.as_str());
    plan(text)
        .grants()
        .iter()
        .filter(always)
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_static_binary_finds_random_numbers() {
    // Its resolver panicked in an image without them.
    let plan = plan(&format!("{AGENT}{IN}"));
    for file in ["/dev/random", "/dev/urandom"] {
        let wanted = Access::Read(file.into());
        assert!(plan.grants().iter().any(|grant| grant.access == wanted), "{file}");
    }
}

#[test]
fn every_part_of_the_settings_is_granted_what_it_needs() {
    let least = [
        "`policy.path`: reading in `/etc/svidecar`",
        "listener `orders`: binding TCP port 8443",
        "listener `orders`: connecting to TCP port 8080",
    ];
    assert_eq!(granted(&format!("{AGENT}{IN}")), least);
    for (more, grants) in [
        ("sandbox: strict", &[][..]),
        (
            "admin: { listen: unix:///run/svidecar/admin.sock, probes: 0.0.0.0:15021, token_file: /run/token/t }",
            &[
                "`admin.token_file`: reading in `/run/token`",
                "`admin.listen`: a unix socket in `/run/svidecar`",
                "`admin.probes`: binding TCP port 15021",
            ],
        ),
        (
            "admin: { listen: 127.0.0.1:15000 }",
            &["`admin.listen`: binding TCP port 15000"],
        ),
        (
            "outbound: [{ name: pay, listen: unix:///run/pay/s, connect: 'pay.svc:444', peer: ['spiffe://a.example/b'] }]",
            &[
                "listener `pay`: a unix socket in `/run/pay`",
                "listener `pay`: connecting to TCP port 444",
                "resolving names: reading `/etc/hosts` and `/etc/resolv.conf`",
                "resolving names: connecting to TCP port 53",
            ],
        ),
        (
            "telemetry: { traces: { otlp: { endpoint: 'http://collector:4318', allow_plaintext: true } } }",
            &[
                "`telemetry.traces`: connecting to TCP port 4318",
                "resolving collectors' names: reading in `/etc/hosts`",
                "resolving collectors' names: reading in `/etc/resolv.conf`",
                "resolving collectors' names: reading in `/etc/nsswitch.conf`",
                "resolving collectors' names: reading in `/etc/host.conf`",
                "resolving names: connecting to TCP port 53",
            ],
        ),
        (
            "audit: { file: /var/audit/a.jsonl, sinks: [{ name: one, otlp: { endpoint: 'http://127.0.0.1:4317' } }] }",
            &[
                "`audit.file`: writing in `/var/audit`",
                "audit sink `one`: connecting to TCP port 4317",
            ],
        ),
        (
            "telemetry: { access_log: { file: /var/access/l }, decisions: { file: /var/verdicts/v }, \
             traces: { otlp: { endpoint: 'http://127.0.0.1:4318' } } }",
            &[
                "`telemetry.decisions.file`: writing in `/var/verdicts`",
                "`telemetry.access_log.file`: writing in `/var/access`",
                "`telemetry.traces`: connecting to TCP port 4318",
            ],
        ),
        (
            // Read at the start and never again.
            "redaction: { profile: gdpr, key_file: /run/key/k }",
            &[],
        ),
    ] {
        let mut found = granted(&format!("{AGENT}{IN}{more}\n"));
        found.retain(|grant| !least.contains(&grant.as_str()));
        assert_eq!(found, grants, "{more}");
    }
    let documents = "inbound: [{ name: orders, listen: unix:///run/o/s, upstream: 'unix:///run/app.sock' }]\n\
                     policy: { path: /a/p.yaml, deny_list: /b/d.yaml, candidate: /c/p.yaml }\n";
    let expected = [
        "`policy.path`: reading in `/a`",
        "`policy.deny_list`: reading in `/b`",
        "`policy.candidate`: reading in `/c`",
        "`identity.socket`: connecting to TCP port 8081",
        "listener `orders`: a unix socket in `/run/o`",
    ];
    assert_eq!(
        granted(&format!(
            "identity: {{ socket: 'tcp://127.0.0.1:8081' }}\n{documents}"
        )),
        expected
    );
    let files =
        "identity: { files: { certificate: /s/c.pem, key: /k/k.pem, bundles: { a.example: /b/ca.pem } } }\n";
    let expected = [
        "`identity.files.certificate`: reading in `/s`",
        "`identity.files.key`: reading in `/k`",
        "`identity.files.bundles`: reading in `/b`",
    ];
    let found = granted(&format!("{files}{IN}"));
    assert!(
        expected
            .iter()
            .all(|grant| found.iter().any(|found| found == grant)),
        "{found:?}"
    );
}

#[test]
fn other_settings_lack_what_they_need_beyond_the_plan() {
    let with = |more: &str| plan(&format!("{AGENT}{more}\n"));
    let start = with(&format!("{IN}audit: {{ file: /var/audit/a }}")).held(HELD);
    let listener = |listen: &str, upstream: &str| {
        with(&format!(
            "inbound: [{{ name: x, listen: '{listen}', upstream: '{upstream}' }}]\npolicy: {{ path: policy }}"
        ))
    };
    let say = |wanted: &Plan| -> Vec<String> {
        start
            .lacking(&start, wanted)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    for (wanted, expected) in [
        (start.clone(), &[][..]),
        (listener("127.0.0.1:8443", "127.0.0.1:8080"), &[]),
        (
            listener("0.0.0.0:9000", "127.0.0.1:8080"),
            &["listener `x`: binding TCP port 9000"],
        ),
        (
            listener("0.0.0.0:8443", "127.0.0.1:8081"),
            &["listener `x`: connecting to TCP port 8081"],
        ),
        (
            listener("unix:///run/x/s", "unix:///run/app"),
            &["listener `x`: a unix socket in `/run/x`"],
        ),
        (
            listener("0.0.0.0:443", "127.0.0.1:8080"),
            &["listener `x`: binding TCP port 443 takes a capability, and those were given up at the start"],
        ),
        (with(&format!("{IN}audit: {{ file: /var/audit/below/b }}")), &[]),
        (
            with(&format!("{IN}audit: {{ file: /var/auditor/a }}")),
            &["`audit.file`: writing in `/var/auditor`"],
        ),
        (
            with(&format!(
                "{IN}redaction: {{ profile: gdpr, key_file: /var/audit/k }}"
            )),
            &[],
        ),
        (
            with(&format!("{IN}audit: {{ file: /etc/svidecar/a }}")),
            &["`audit.file`: writing in `/etc/svidecar`"],
        ),
        (
            listener("0.0.0.0:8443", "app.svc:8080"),
            &[
                "resolving names: reading `/etc/hosts` and `/etc/resolv.conf`",
                "resolving names: connecting to TCP port 53",
            ],
        ),
    ] {
        assert_eq!(say(&wanted), expected);
    }
}

#[test]
fn nothing_is_lacking_that_nothing_holds_back() {
    let text = |port: u16, file: &str| {
        format!(
            "{AGENT}inbound: [{{ name: x, listen: '0.0.0.0:{port}', upstream: '127.0.0.1:1' }}]\npolicy: {{ path: {file} }}\n"
        )
    };
    let start = plan(&text(8443, "/a/p.yaml"));
    let wanted = plan(&text(80, "/b/p.yaml"));
    let nothing = Held::default();
    for (held, lacking) in [
        (nothing, 0),
        (
            Held {
                files: true,
                ..nothing
            },
            1,
        ),
        (
            Held {
                network: true,
                ..nothing
            },
            1,
        ),
        (
            Held {
                capabilities: true,
                ..nothing
            },
            1,
        ),
        (HELD, 2),
    ] {
        assert_eq!(
            start.clone().held(held).lacking(&start, &wanted).len(),
            lacking,
            "{held:?}"
        );
    }
}

#[test]
fn a_low_port_can_be_kept_and_not_be_had_again() {
    let with = |listeners: &str| {
        plan(&format!(
            "{AGENT}inbound: [{listeners}]\npolicy: {{ path: policy }}\n"
        ))
    };
    let low = "{ name: low, listen: '0.0.0.0:443', upstream: '127.0.0.1:1' }";
    let high = "{ name: high, listen: '0.0.0.0:8443', upstream: '127.0.0.1:1' }";
    let both = with(&format!("{low}, {high}"));
    let granted = both.clone().held(HELD);
    // The socket is bound since the start, with the capability.
    assert_eq!(granted.lacking(&both, &both), []);
    assert_eq!(granted.lacking(&both, &with(high)), []);
    let say = |in_force: &Plan| {
        granted
            .lacking(in_force, &both)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        say(&with(high)),
        ["listener `low`: binding TCP port 443 takes a capability, and those were given up at the start"]
    );
}

#[test]
fn what_could_not_be_granted_is_lacking_where_other_settings_name_it() {
    let with = |deny_list: &str| {
        plan(&format!(
            "{AGENT}inbound: [{{ name: a, listen: '0.0.0.0:1', upstream: '127.0.0.1:1' }}]\npolicy: {{ path: /a/p{deny_list} }}\n"
        ))
    };
    let (without, wanted) = (with(""), with(", deny_list: /gone/d"));
    let gone = wanted
        .grants()
        .iter()
        .find(|grant| grant.why == "`policy.deny_list`")
        .unwrap()
        .clone();
    let granted = wanted.clone().held(HELD).without(&[gone]);
    assert_eq!(
        granted
            .lacking(&without, &wanted)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["`policy.deny_list`: reading in `/gone`"]
    );
    assert_eq!(
        granted.lacking(&wanted, &wanted),
        [],
        "no reason against other changes"
    );
    assert_eq!(
        granted
            .unreadable(&wanted)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["`policy.deny_list`: reading in `/gone`"]
    );
    assert_eq!(granted.unreadable(&without), []);
}

#[test]
fn files_that_are_written_beside_those_that_decide_are_said() {
    let said = |more: &str| {
        let cautions = plan(&format!("{AGENT}{IN}{more}\n")).cautions();
        cautions
            .into_iter()
            .map(|caution| format!("{}; {}", caution.message, caution.help))
            .collect::<Vec<_>>()
    };
    for (more, expected) in [
        ("", &[][..]),
        ("audit: { file: log/a }", &[]),
        ("admin: { listen: unix:///run/svidecar/admin }", &[]),
        (
            "audit: { file: a }",
            &[
                "`audit.file` lies in `/etc/svidecar`: whoever breaks into the confined process may change what is there and \
               below it, and with it the config file, `policy.path`; give a file that is written a folder of its own, in which nothing else lies",
            ],
        ),
        (
            "admin: { listen: unix:///run/admin }",
            &[
                "`admin.listen` lies in `/run`: whoever breaks into the confined process may remove what is there and below it, \
               and with it the files of others; give a unix socket a folder of its own, in which nothing else lies",
            ],
        ),
        (
            "admin: { listen: unix:///etc/admin }",
            &[
                "`admin.listen` lies in `/etc`: whoever breaks into the confined process may remove what is there and below it, \
               and with it the config file, `policy.path`; give a unix socket a folder of its own, in which nothing else lies",
            ],
        ),
    ] {
        assert_eq!(said(more), expected, "{more}");
    }
}
