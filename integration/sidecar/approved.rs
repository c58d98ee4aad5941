//! What is negotiated, with OpenSSL's command-line tools at the other end, in both directions: in a FIPS build what is
//! approved and nothing else (`cargo test --features fips --test sidecar approved`), in any other X25519 alone as well.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use tempfile::TempDir;

use crate::plain::{self, expect_reset};
use crate::support::net::free_address;
use crate::support::process::{Mark, Process};
use crate::support::{SOON, on_path, skip};
use crate::world::{Api, Identity, InboundSetup, ORDERS, OutboundSetup, STOREFRONT};

/// Whether this build negotiates only what is approved.
const FIPS: bool = cfg!(feature = "fips");

/// A foreign end that knows one group and one suite, and whether it is served.
const CASES: &[(&str, &str, bool)] = &[
    ("P-256", "TLS_AES_128_GCM_SHA256", true),
    ("P-384", "TLS_AES_256_GCM_SHA384", true),
    ("X25519", "TLS_AES_128_GCM_SHA256", !FIPS),
    ("X448", "TLS_AES_128_GCM_SHA256", false),
    ("P-521", "TLS_AES_128_GCM_SHA256", false),
    ("P-256", "TLS_CHACHA20_POLY1305_SHA256", false),
    ("P-256", "TLS_AES_128_CCM_SHA256", false),
];

/// `openssl s_client` or `s_server` that shows `identity`, in a folder of its own.
fn openssl(role: &[&str], identity: &Identity, group: &str, suite: &str) -> (Process, TempDir) {
    let folder = TempDir::with_prefix("svidecar-openssl-").unwrap();
    fs::write(folder.path().join("leaf"), &identity.chain[0]).unwrap();
    fs::write(folder.path().join("key"), &identity.key).unwrap();
    let mut command = Command::new("openssl");
    command
        .args(role)
        .args(["-tls1_3", "-groups", group, "-ciphersuites", suite])
        .args([
            "-certform",
            "DER",
            "-cert",
            "leaf",
            "-keyform",
            "DER",
            "-key",
            "key",
        ])
        .current_dir(folder.path());
    (Process::start("openssl", &mut command), folder)
}

fn has_openssl() -> bool {
    let here = on_path("openssl");
    if !here {
        skip("what is negotiated with OpenSSL: no `openssl` on PATH");
    }
    here
}

#[test]
fn a_client_that_knows_only_what_is_not_approved_is_refused() {
    if !has_openssl() {
        return;
    }
    let scene = InboundSetup::default().start();
    let (peer, address) = (scene.api.peer(STOREFRONT), scene.tls.to_string());
    for (group, suite, served) in CASES {
        eprintln!("case: {group} with {suite}");
        let mark = scene.sidecar.mark();
        let known = scene.app.accepted();
        let (client, _files) = openssl(&["s_client", "-connect", &address], &peer, group, suite);
        if *served {
            // The end of its standard input is the end of its connection.
            drop(scene.app.accept());
            let record = scene.sidecar.wait_record(mark, &[("peer_id", STOREFRONT)]);
            assert_eq!(record["verdict"], "allow", "{record}");
            continue;
        }
        let record = scene
            .sidecar
            .wait_record(mark, &[("reason", "no_common_parameters")]);
        assert_eq!(record["result"], "refused", "{record}");
        client.wait_line("the alert", Mark::default(), SOON, |line| {
            line.contains("handshake failure").then_some(())
        });
        assert_eq!(
            scene.app.accepted(),
            known,
            "{group} with {suite} reached the application"
        );
    }
}

#[test]
fn a_server_that_knows_only_what_is_not_approved_gets_no_data() {
    if !has_openssl() {
        return;
    }
    for (group, suite, served) in CASES {
        eprintln!("case: {group} with {suite}");
        let server = free_address();
        let api = Api::start(&[STOREFRONT]);
        let (process, _files) = openssl(
            &["s_server", "-rev", "-Verify", "1", "-accept", &server.to_string()],
            &api.peer(ORDERS),
            group,
            suite,
        );
        process.wait_line("it listens", Mark::default(), SOON, |line| {
            line.contains("ACCEPT").then_some(())
        });
        let scene = OutboundSetup {
            listener: &format!("    connect: {server}\n"),
            ..OutboundSetup::default()
        }
        .start_with(api);
        let mut app = plain::connect(scene.plain);
        if *served {
            // It answers each line with the line reversed.
            app.write_all(b"abc\n").unwrap();
            let mut answer = [0; 4];
            app.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"cba\n");
            continue;
        }
        expect_reset(&mut app);
        let record = scene
            .sidecar
            .wait_record(Mark::default(), &[("reason", "refused_by_peer")]);
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.contains("handshake_failure"), "{record}");
    }
}
