//! `svidecar demo --once` of the built binary: the story that a newcomer sees first is told in full, is true, and
//! leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fall over"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn demo(temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_svidecar"));
    command
        .arg("demo")
        .env("TMPDIR", temporary)
        .env_remove("SPIFFE_ENDPOINT_SOCKET");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A folder for temporary files whose path is short enough for sockets.
fn temporary() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sd").tempdir_in("/tmp").unwrap()
}

fn told(output: &Output) -> String {
    let story = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{story}\n{errors}", output.status);
    assert_eq!(errors, "", "{story}");
    story
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// The sidecars whose config is below `folder`: each one's process and command line.
fn sidecars_of(folder: &Path) -> Vec<(Pid, String)> {
    let folder = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
        let line = fs::read(process.path().join("cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    processes.filter(|(_, line)| line.contains(folder)).collect()
}

fn nothing_is_left(folder: &Path) -> bool {
    is_empty(folder) && sidecars_of(folder).is_empty()
}

/// The part of the story that belongs to one step.
fn step(story: &str, number: usize) -> &str {
    let (_, rest) = story
        .split_once(&format!("\n {number}. "))
        .unwrap_or_else(|| panic!("no step {number}: {story}"));
    rest.split_once("\n\n").map_or(rest, |(step, _)| step)
}

#[test]
fn the_story_is_told_in_full_and_leaves_nothing_behind() {
    let folder = temporary();
    let story = told(&demo(folder.path()).arg("--once").output().unwrap());
    for (number, lines) in [
        (
            1,
            &[
                "✓ orders      allow    from spiffe://example.org/storefront",
                "rule storefront-may-order; finished",
            ][..],
        ),
        (
            2,
            &[
                "✓ orders      deny     from spiffe://example.org/reports",
                "no_allow_rule",
                "nearest is rule `storefront-may-order`",
                "✓ reports     failed",
                "access_denied",
                "connection reset",
            ],
        ),
        (
            3,
            &[
                "✓ orders      refused",
                "unknown_trust_domain",
                "partner.example",
                "✓ agency      failed",
                "unknown_ca",
            ],
        ),
        (
            4,
            &[
                "✓ orders      deny     from spiffe://partner.example/agency",
                "no_allow_rule",
            ],
        ),
        (5, &["✓ orders      refused", "who proved no identity", "not_tls"]),
        (
            6,
            &[
                "✓ storefront  deny     to-payments reached spiffe://example.org/orders",
                "peer_not_expected",
                "✓ orders      failed",
                "who proved no identity",
                "access_denied",
            ],
        ),
        (7, &["✓ storefront  serial", "✓ orders      serial", "without a"]),
        (8, &["✓ orders      new policy in force", "order 1 taken"]),
        (
            9,
            &[
                "✓ orders      closed   from spiffe://example.org/reports",
                "policy_change: no allow rule",
                "connection reset",
                "✓ storefront  goes on",
            ],
        ),
    ] {
        let step = step(&story, number);
        for line in lines {
            assert!(step.contains(line), "step {number} lacks `{line}`: {story}");
        }
    }
    assert!(story.contains("9 of 9 steps went as expected"), "{story}");
    assert!(!story.contains('\x1b'), "colours without a terminal: {story:?}");
    let widest = story.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 80, "{widest} columns: {story}");
    assert!(nothing_is_left(folder.path()));
}

#[test]
fn two_at_once_in_a_folder_that_cannot_be_written() {
    let (folder, here) = (temporary(), temporary());
    fs::set_permissions(here.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let start = || {
        demo(folder.path())
            .arg("--once")
            .current_dir(here.path())
            .spawn()
            .unwrap()
    };
    let both = [start(), start()].map(Child::wait_with_output);
    for output in both {
        told(&output.unwrap());
    }
    assert!(nothing_is_left(folder.path()) && is_empty(here.path()));
}

#[test]
fn it_stays_up_tells_what_happens_and_takes_everything_down_on_ctrl_c() {
    let folder = temporary();
    let mut child = demo(folder.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut wait_for = |what: &str| {
        lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains(what))
            .unwrap_or_else(|| panic!("no `{what}`"))
    };
    wait_for("Everything stays up until Ctrl-C");
    let policy = wait_for("  edit   ");
    let policy = policy.trim().strip_prefix("edit").unwrap().trim();
    wait_for("What happens is told here");
    fs::write(policy, "rules: []\n").unwrap();
    wait_for("a new policy is in force");
    assert_eq!(sidecars_of(folder.path()).len(), 4);
    interrupt(&child);
    wait_for("nothing is left behind");
    assert!(child.wait().unwrap().success());
    assert!(nothing_is_left(folder.path()));
}

#[test]
fn an_interrupted_story_leaves_nothing_behind_either() {
    let folder = temporary();
    for line in ["svidecar demo", " 1. ", " 7. ", " 9. "] {
        let mut child = demo(folder.path()).arg("--once").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.by_ref().any(|told| told.unwrap().starts_with(line)),
            "no `{line}`"
        );
        interrupt(&child);
        // To the end of its output, so that it never waits for us.
        assert!(lines.all(|line| line.is_ok()));
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        child.wait().unwrap();
        assert_eq!(errors, "");
        assert!(nothing_is_left(folder.path()), "after `{line}`");
    }
}

#[test]
fn a_sidecar_that_ends_in_the_middle_is_reported() {
    let folder = temporary();
    let mut child = demo(folder.path()).arg("--once").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|told| told.unwrap().starts_with(" 1. ")));
    // It must not get to the end of its story while we look for the process.
    let demo = Pid::from_child(&child);
    kill_process(demo, Signal::STOP).unwrap();
    let sidecars = sidecars_of(folder.path());
    let (orders, _) = sidecars
        .iter()
        .find(|(_, line)| line.contains("orders.yaml"))
        .unwrap();
    kill_process(*orders, Signal::KILL).unwrap();
    kill_process(demo, Signal::CONT).unwrap();
    assert!(lines.all(|line| line.is_ok()));
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("the sidecar of `orders` failed: it ended (signal: 9"),
        "{errors}"
    );
    assert!(
        errors.contains("its last words:\n  ") && errors.contains("  INFO identity updated\n"),
        "{errors}"
    );
    assert!(nothing_is_left(folder.path()));
}

#[test]
fn the_files_it_shows_are_those_it_uses() {
    let folder = temporary();
    let story = told(
        &demo(folder.path())
            .args(["--once", "--show-files"])
            .output()
            .unwrap(),
    );
    for text in [
        "policy/orders.yaml\n# Who may call",
        "name: storefront-may-order",
        "peer: [spiffe://example.org/payments]",
    ] {
        assert!(story.contains(text), "no `{text}`: {story}");
    }
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}
