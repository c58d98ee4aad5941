//! `svidecar completions`: a script for each shell, which the shell takes where it is here.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::support::process::output_of;
use super::support::{on_path, skip};
use super::svidecar;

#[test]
fn each_shell_gets_a_script_that_it_takes() {
    // With what asks each whether it knows completions of ours once it has read the script.
    for (shell, asks) in [
        ("bash", Some("source \"$1\" && complete -p svidecar")),
        (
            "zsh",
            Some(
                "autoload -U compinit && compinit -D -u && source \"$1\" && [[ -n ${_comps[svidecar]} ]] && echo svidecar",
            ),
        ),
        ("fish", Some("source $argv[1]; and complete --command svidecar")),
        ("elvish", None),
        ("powershell", None),
    ] {
        let output = svidecar(&["completions", shell], "");
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        for command in ["inject", "completions", "healthcheck"] {
            assert!(script.contains(command), "{shell}: no {command}");
        }
        let Some(asks) = asks else { continue };
        if !on_path(shell) {
            skip(&format!("completions of {shell}: no {shell} on PATH"));
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("completions");
        fs::write(&file, script).unwrap();
        let mut command = Command::new(shell);
        match shell {
            "bash" => command.args(["--norc", "-c", asks, "bash"]),
            "zsh" => command.args(["-f", "-c", asks, "zsh"]),
            _ => command.args(["--no-config", "-c", asks]),
        };
        let said = output_of(
            command.arg(&file).env("HOME", folder.path()),
            Duration::from_secs(60),
        );
        assert!(said.contains("svidecar"), "{shell}: {said}");
    }
    assert_eq!(svidecar(&["completions", "tcsh"], "").status.code(), Some(2));
}
