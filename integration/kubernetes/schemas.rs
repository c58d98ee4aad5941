//! The schemas of the real Kubernetes, by `kubernetes-validate`, and a reader of YAML 1.1, by the PyYAML that comes with it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::support::process::{output_of, try_output_of};
use super::support::{on_path, skip};
use super::{fixtures, injected, repository, shipped_manifests};

/// The least version that has native sidecars without asking for them, one between, and the newest that the validator knows.
const VERSIONS: &[&str] = &["1.29", "1.33", "1.37"];
const A_WHILE: Duration = Duration::from_secs(120);

fn have_validator() -> bool {
    let here = on_path("kubernetes-validate");
    if !here {
        skip("Kubernetes' schemas: no kubernetes-validate on PATH (a package of PyPI)");
    }
    here
}

/// Panics where a manifest is none to some version; unknown fields are errors.
pub(super) fn validate(texts: &[(String, String)]) {
    if !have_validator() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    for (name, text) in texts {
        files.push(folder.path().join(format!("{name}.yaml")));
        fs::write(files.last().unwrap(), text).unwrap();
    }
    for version in VERSIONS {
        let mut command = Command::new("kubernetes-validate");
        let said = output_of(command.args(["--strict", "-k", version]).args(&files), A_WHILE);
        // One without a schema would be passed over with a warning.
        assert!(!said.contains("WARN") && said.contains("passed"), "{said}");
    }
}

fn texts(files: Vec<PathBuf>) -> Vec<(String, String)> {
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files
        .iter()
        .map(|path| (name(path), injected(&fs::read_to_string(path).unwrap())))
        .collect()
}

#[test]
fn what_is_shipped_and_what_is_made_is_what_kubernetes_takes() {
    validate(&texts(shipped_manifests()));
    // A List has no schema of its own there: its items are asked about one by one.
    let made = texts(fixtures()).into_iter().map(|(name, text)| {
        let items = super::objects(&text)
            .into_iter()
            .map(|object| format!("---\n{object}\n"));
        (name, items.collect())
    });
    validate(&made.collect::<Vec<_>>());
}

/// Without this the test above could pass by a validator that finds nothing.
#[test]
fn the_validator_finds_what_is_wrong() {
    if !have_validator() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    let good = injected(&fs::read_to_string(repository("integration/kubernetes/fixtures/pod.yaml")).unwrap());
    for (from, to) in [
        ("failureThreshold: 120", "failureThresold: 120"),
        ("containerPort: 15021", "containerPort: \"15021\""),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        fs::write(&file, bad).unwrap();
        try_output_of(
            Command::new("kubernetes-validate")
                .args(["--strict", "-k", "1.33"])
                .arg(&file),
            A_WHILE,
        )
        .unwrap_err();
    }
}

/// `kubectl` and Helm read YAML 1.1: there `yes` is true and `010` is eight. What they read must not change.
#[test]
fn a_reader_of_yaml_1_1_reads_the_same_before_and_after() {
    let Some(python) = python_with_yaml() else {
        skip("YAML 1.1: no kubernetes-validate on PATH whose Python has PyYAML");
        return;
    };
    let path = repository("integration/kubernetes/scalars/scalars.yaml");
    let before = fs::read_to_string(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let after = folder.path().join("after.yaml");
    fs::write(&after, injected(&before)).unwrap();
    let read = |file: &PathBuf| -> Value {
        let program = "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1], encoding='utf-8'))), default=str))";
        serde_json::from_str(&output_of(
            Command::new(&python).args(["-c", program]).arg(file),
            A_WHILE,
        ))
        .unwrap()
    };
    let environment = |documents: &Value| -> Value {
        let all = documents.as_array().unwrap();
        let pod = all.iter().find(|object| object["kind"] == "Pod").unwrap();
        pod["spec"]["containers"][0].clone()
    };
    let (before, after) = (environment(&read(&path)), environment(&read(&after)));
    assert_eq!(before, after);
    // It is such a reader, and the fixture is about what it reads differently.
    let values: Vec<&Value> = before["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["value"])
        .collect();
    assert!(
        values.contains(&&Value::Bool(true)) && values.contains(&&Value::from("yes")),
        "{values:?}"
    );
    assert!(
        values.contains(&&Value::from(8)) && values.contains(&&Value::from("010")),
        "{values:?}"
    );
}

/// The Python that the validator runs on.
fn python_with_yaml() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let script = std::env::split_paths(&path)
        .map(|folder| folder.join("kubernetes-validate"))
        .find(|file| file.is_file())?;
    let text = fs::read_to_string(script).ok()?;
    let python = text.lines().next()?.strip_prefix("#!")?.trim().to_owned();
    try_output_of(Command::new(&python).args(["-c", "import yaml"]), A_WHILE).ok()?;
    Some(python)
}
