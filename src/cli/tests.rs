use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Parser;

use super::policy::explain;
use super::*;
use crate::config::Environment;
use crate::policy::Explanation;
use crate::record::{Reason, Verdict};
use crate::yaml::Diagnostic;

#[derive(Parser)]
enum Commands {
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
}

fn environment() -> Environment {
    Environment {
        endpoint_socket: None,
        cores: 2,
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn explain(arguments: &[&str]) -> Result<(Explanation, Vec<Diagnostic>), explain::ExplainError> {
    let all = ["svidecar", "explain"].iter().chain(arguments);
    let Commands::Explain(args) = Commands::parse_from(all) else {
        panic!()
    };
    explain::explain(&args, &environment(), SystemTime::UNIX_EPOCH)
}

#[test]
fn check_sums_up_the_examples() {
    for (file, expected) in [
        ("sidecar.yaml", "ok: 2 listeners (1 inbound, 1 outbound), 7 rules"),
        ("server.yaml", "ok: 1 listener (1 inbound, 0 outbound), 4 rules"),
        ("client.yaml", "ok: 1 listener (0 inbound, 1 outbound), no policy"),
    ] {
        let (summary, warnings) =
            check::check(&example(file), &environment(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(summary, expected);
        assert_eq!(warnings, []);
    }
}

#[test]
fn check_looks_where_the_audit_log_will_be() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    let with = |file: &str| {
        let outbound =
            "outbound: [{ name: o, listen: '127.0.0.1:1', connect: 'a:1', peer: ['spiffe://td/a'] }]";
        let text = format!("identity: {{ socket: unix:///a }}\n{outbound}\naudit: {{ file: {file} }}\n");
        fs::write(&config, text).unwrap();
        check::check(&config, &environment(), SystemTime::UNIX_EPOCH)
    };
    with("audit.jsonl").unwrap();
    assert!(!folder.path().join("audit.jsonl").exists());
    fs::write(folder.path().join("notes.txt"), "mine\n").unwrap();
    for (file, needle) in [
        ("none/audit.jsonl", "its folder must exist"),
        ("notes.txt", "holds no audit log"),
    ] {
        let mut found = with(file).unwrap_err();
        // A log beside the config is a warning of its own.
        found.retain(Diagnostic::is_error);
        let said = found[0].to_string();
        assert!(
            found.len() == 1 && said.contains("`audit.file`") && said.contains(needle),
            "{said}"
        );
    }
    assert_eq!(
        fs::read_to_string(folder.path().join("notes.txt")).unwrap(),
        "mine\n"
    );
}

#[test]
fn check_tells_the_problems_of_config_and_policy_together() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    let listen = "inbound: [{ name: orders, listen: '0.0.0.0:1', upstream: 'a:1' }]\n";
    fs::write(
        &config,
        format!("identity: {{ socket: unix:///a }}\npolicy: {{ path: p.yaml }}\n{listen}workers: 0\n"),
    )
    .unwrap();
    fs::write(
        folder.path().join("p.yaml"),
        "rules: [{ name: a, action: allow, to: [stock] }]",
    )
    .unwrap();
    let found = check::check(&config, &environment(), SystemTime::UNIX_EPOCH).unwrap_err();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].message.contains("`workers`") && found[1].message.contains("listener `stock`"));

    // With a listener that has no name to read, nothing is claimed about `to`.
    fs::write(&config, "identity: { socket: unix:///a }\npolicy: { path: p.yaml }\ninbound: [{ listen: '0.0.0.0:1', upstream: 'a:1' }]\n").unwrap();
    let found = check::check(&config, &environment(), SystemTime::UNIX_EPOCH).unwrap_err();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].message.contains("`name` is missing"));
}

#[test]
fn explain_answers_from_the_examples() {
    let config = example("sidecar.yaml");
    let config = config.to_str().unwrap();
    for (from, source, verdict, rule) in [
        (
            "spiffe://example.org/ns/shop/sa/storefront",
            None,
            Verdict::Allow,
            Some("storefront-places-orders"),
        ),
        (
            "spiffe://example.org/ns/x/sa/batch",
            Some("10.1.1.1"),
            Verdict::Allow,
            Some("batch-jobs-of-any-namespace"),
        ),
        ("spiffe://example.org/ns/x/sa/batch", None, Verdict::Deny, None),
        (
            "spiffe://example.org/ns/ci/sa/runner",
            None,
            Verdict::Deny,
            Some("compromised-build-agents"),
        ),
        (
            "spiffe://partner.example/x",
            None,
            Verdict::Allow,
            Some("partner-until-the-contract-ends"),
        ),
    ] {
        let mut arguments = vec!["--config", config, "--to", "orders", "--from", from];
        arguments.extend(source.map(|source| ["--source", source]).into_iter().flatten());
        let (answer, _) = explain(&arguments).unwrap();
        assert_eq!(
            (answer.verdict, answer.rule.as_deref()),
            (verdict, rule),
            "{from}"
        );
        assert_eq!(answer.rules.len(), 7);
    }
}

#[test]
fn explain_asks_the_deny_list_about_the_certificate_that_is_described() {
    let (config, list) = (example("sidecar.yaml"), example("deny/deny.yaml"));
    let (config, list) = (config.to_str().unwrap(), list.to_str().unwrap());
    let key = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let storefront = "spiffe://example.org/ns/shop/sa/storefront";
    let ci = "spiffe://example.org/ns/ci/sa/tests";
    for (from, more, entry) in [
        (storefront, &[][..], None),
        (storefront, &["--serial", "4d:0a:1b"], Some("stolen-certificates")),
        (storefront, &["--serial", "4d0a1c"], None),
        (storefront, &["--key", key], Some("stolen-key")),
        ("spiffe://example.org/ns/legacy/x", &[], Some("retired-namespace")),
        (
            ci,
            &["--issued", "2025-11-25T23:59:59Z"],
            Some("build-agents-from-before-the-rotation"),
        ),
        (ci, &["--issued", "2025-11-26T00:00:00Z"], None),
    ] {
        let mut arguments = vec![
            "--config",
            config,
            "--to",
            "orders",
            "--from",
            from,
            "--deny-list",
            list,
        ];
        arguments.extend(more);
        let (answer, _) = explain(&arguments).unwrap();
        let listed = answer.rule.filter(|_| answer.reason == Some(Reason::DenyList));
        assert_eq!(listed.as_deref(), entry, "{from} {more:?}");
        assert_eq!(
            answer.deny_list.iter().filter(|e| e.hits).count(),
            usize::from(entry.is_some())
        );
    }
    for (option, value, needle) in [
        ("--serial", "xyz", "--serial is `xyz`, which is no serial number"),
        ("--key", "abc", "--key is `abc`, which is no key hash"),
        (
            "--issued",
            "soon",
            "--issued is `soon`, which is no point in time",
        ),
    ] {
        let arguments = ["--config", config, "--to", "orders", "--from", ci, option, value];
        assert!(explain(&arguments).unwrap_err().to_string().contains(needle));
    }
}

#[test]
fn explain_tells_trust_budgets_and_the_nearest_miss() {
    let config = example("sidecar.yaml");
    let config = config.to_str().unwrap();
    let ask = |from: &str| {
        let arguments = [
            "--config", config, "--to", "orders", "--from", from, "--source", "10.1.1.1",
        ];
        explain(&arguments).unwrap().0
    };
    let batch = ask("spiffe://example.org/ns/x/sa/batch");
    assert_eq!(batch.budgets[0].bytes_per_second, Some(10 << 20));
    assert_eq!(batch.trust.unwrap(), ["example.org", "partner.example"]);
    let mistyped = ask("spiffe://example.org/ns/shop/sa/store-front");
    assert_eq!(&*mistyped.nearest.unwrap().rule, "storefront-places-orders");
    let stranger = ask("spiffe://elsewhere.example/x");
    assert_eq!(stranger.reason, Some(Reason::TrustDomainNotAccepted));
    assert!(
        stranger
            .to_string()
            .contains("only `example.org` or `partner.example`")
    );
}

#[test]
fn questions_that_make_no_sense() {
    let config = example("sidecar.yaml");
    let config = config.to_str().unwrap();
    for (to, from, needle) in [
        ("ordres", "spiffe://example.org/a", "did you mean `orders`?"),
        ("payments", "spiffe://example.org/a", "an outbound listener"),
        (
            "orders",
            "example.org/a",
            "--from is `example.org/a`, which is no SPIFFE ID",
        ),
        ("orders", "spiffe://example.org", "has a path"),
    ] {
        let error = explain(&["--config", config, "--to", to, "--from", from])
            .unwrap_err()
            .to_string();
        assert!(error.contains(needle), "{error}");
    }
}

#[test]
fn our_own_trust_domain_is_asked_for_only_when_it_matters() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    let policy = folder.path().join("p.yaml");
    // No socket either: the question is answered off line.
    fs::write(
        &config,
        "policy: { path: p.yaml }\ninbound: [{ name: orders, listen: '0.0.0.0:1', upstream: 'a:1' }]\n",
    )
    .unwrap();
    let ask = |more: &[&str]| {
        let mut arguments = vec![
            "--config",
            config.to_str().unwrap(),
            "--to",
            "orders",
            "--from",
            "spiffe://td/a",
        ];
        arguments.extend(more);
        explain(&arguments).map(|(answer, _)| answer.verdict)
    };
    fs::write(
        &policy,
        "rules: [{ name: a, action: allow, from: ['spiffe://td/a'] }]",
    )
    .unwrap();
    assert_eq!(ask(&[]).unwrap(), Verdict::Allow);
    fs::write(&policy, "rules: [{ name: a, action: allow }]").unwrap();
    let error = ask(&[]).unwrap_err().to_string();
    assert!(
        error.contains("rule `a` has no `from`") && error.contains("--trust-domain"),
        "{error}"
    );
    assert_eq!(ask(&["--trust-domain", "td"]).unwrap(), Verdict::Allow);
    assert_eq!(ask(&["--trust-domain", "other"]).unwrap(), Verdict::Deny);
    assert!(matches!(
        ask(&["--trust-domain", "a b"]),
        Err(explain::ExplainError::TrustDomain(_))
    ));
}

#[test]
fn exit_codes() {
    let parse = |arguments: &[&str]| Commands::parse_from(["svidecar"].iter().chain(arguments));
    let config = example("sidecar.yaml");
    let config = config.to_str().unwrap();
    let run = |arguments: &[&str]| match parse(arguments) {
        Commands::Check(args) => check::run(&args),
        Commands::Explain(args) => explain::run(&args),
    };
    let explain = |to, from| {
        run(&[
            "explain", "--json", "--config", config, "--to", to, "--from", from,
        ])
    };
    assert_eq!(run(&["check", "--config", config]), EXIT_GOOD);
    assert_eq!(run(&["check", "--config", "/nowhere"]), EXIT_USAGE);
    assert_eq!(
        explain("orders", "spiffe://example.org/ns/shop/sa/storefront"),
        EXIT_GOOD
    );
    assert_eq!(explain("orders", "spiffe://example.org/nobody"), EXIT_DENIED);
    assert_eq!(explain("nowhere", "spiffe://example.org/nobody"), EXIT_USAGE);
}
