//! What `svidecar intercept` does to the packet filter, as the real `nft` sees it.

use std::process::Command;
use std::time::Duration;

use crate::pods::{ORDERS, Pods};
use crate::support::process::{output_of, try_output_of};
use crate::support::sidecar::SVIDECAR;

const PATIENCE: Duration = Duration::from_secs(10);

const BOTH: &str = "inbound:
  - { name: app, listen: \"[::]:15006\", transparent: true, ports: [8080, 9090] }
  - { name: rest, listen: \"[::]:15007\", transparent: true }
  - { name: direct, listen: \"0.0.0.0:8443\", upstream: 127.0.0.1:8080 }
outbound:
  - { name: mesh, listen: \"[::]:15001\", transparent: true, destinations: [{ to: [\"10.77.0.0/24:8080\"], peer: [\"spiffe://example.org/**\"] }] }
";

/// Every option, every kind of rule.
const OPTIONS: &[&str] = &[
    "--uid=65532",
    "--uid=1000",
    "--gid=70",
    "--exclude-outbound-ports=22,53",
    "--exclude-inbound-ports=2222",
    "--exclude-networks=10.96.0.0/12,169.254.169.254,fd01::/16,fe80::/10,fd02::1",
    "--include-outbound-ports=8080,9090",
    "--include-networks=10.0.0.0/8,10.128.0.0/9,::/0,0.0.0.0/0",
];

#[test]
fn what_is_applied_is_what_nft_makes_of_what_is_printed() {
    let Some(pods) = Pods::start() else { return };
    let config = pods.config(ORDERS, BOTH, "rules: []\n");
    for options in [&[][..], OPTIONS] {
        let applied = {
            pods.a.intercept(&config.path, &[&["--apply"], options].concat());
            pods.a.rules()
        };
        assert!(applied.contains("table inet svidecar"), "{applied}");
        let printed = pods.b.intercept(&config.path, &[&["--print"], options].concat());
        let file = config.path.with_file_name("rules.nft");
        std::fs::write(&file, printed).unwrap();
        // Twice: what is printed replaces, too.
        for _ in 0..2 {
            output_of(pods.b.command("nft").arg("-f").arg(&file), PATIENCE);
            assert_eq!(applied, pods.b.rules());
        }
        // As does what is applied.
        pods.a.intercept(&config.path, &[&["--apply"], options].concat());
        assert_eq!(applied, pods.a.rules());
    }
}

#[test]
fn removing_leaves_nothing_and_what_others_wrote() {
    let Some(pods) = Pods::start() else { return };
    let config = pods.config(ORDERS, BOTH, "rules: []\n");
    let nft = |args: &[&str]| output_of(pods.a.command("nft").args(args), PATIENCE);
    nft(&["add", "table", "inet", "theirs"]);
    let before = pods.a.rules();
    let remove = || output_of(pods.a.command(SVIDECAR).args(["intercept", "--remove"]), PATIENCE);
    // Nothing there is no error.
    remove();
    assert_eq!(pods.a.rules(), before);
    pods.a.intercept(&config.path, &["--apply"]);
    assert_ne!(pods.a.rules(), before);
    remove();
    assert_eq!(pods.a.rules(), before);
}

#[test]
fn without_the_capability_nothing_is_changed_and_it_is_said_what_to_do() {
    let Some(pods) = Pods::start() else { return };
    let config = pods.config(ORDERS, BOTH, "rules: []\n");
    for args in [vec!["--apply"], vec!["--remove"]] {
        let mut command = pods.a.as_sidecar(SVIDECAR);
        command
            .args(["intercept", "--config"])
            .arg(&config.path)
            .args(args);
        let error = try_output_of(&mut command, PATIENCE).unwrap_err();
        assert!(
            error.contains("exit status: 1") && error.contains("add: [NET_ADMIN]"),
            "{error}"
        );
    }
    assert_eq!(pods.a.rules(), "");
}

#[test]
fn a_config_without_a_transparent_listener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    let text = "identity: { socket: unix:///a }\noutbound: [{ name: o, listen: 127.0.0.1:1, connect: a:1, peer: [spiffe://td/a] }]\n";
    std::fs::write(&config, text).unwrap();
    for what in ["--print", "--apply"] {
        let mut command = Command::new(SVIDECAR);
        command.args(["intercept", what, "--config"]).arg(&config);
        let error = try_output_of(&mut command, PATIENCE).unwrap_err();
        assert!(
            error.contains("exit status: 2") && error.contains("no listener of the config is transparent"),
            "{error}"
        );
    }
}
