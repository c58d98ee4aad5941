//! The units in `deploy/systemd`, as systemd reads them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::output_of;
use crate::support::sidecar::SVIDECAR;
use crate::support::{SOON, on_path, skip};

/// The exposure that `deploy/systemd/README.md` tells of, in tenths: 0 is best, 100 is worst.
const MOST_EXPOSED: &str = "13";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd")
}

/// The service with the built program in the place of the installed one, which `verify` looks for.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["svidecar.service", "svidecar.socket"] {
        let text = std::fs::read_to_string(units().join(name)).unwrap();
        let text = text.replace("/usr/local/bin/svidecar", SVIDECAR);
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_little_exposed() {
    if !on_path("systemd-analyze") {
        skip("the units of systemd: no systemd-analyze on PATH");
        return;
    }
    let folder = installed();
    let path = |name: &str| folder.path().join(name);
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no"])
        .args([path("svidecar.service"), path("svidecar.socket")]);
    // What it says of these units, not of others on this machine.
    let found = verify.output().unwrap();
    let said = String::from_utf8_lossy(&found.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("svidecar")).collect();
    assert!(ours.is_empty(), "{said}");
    output_of(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold", MOST_EXPOSED])
            .arg(path("svidecar.service")),
        SOON,
    );
}
