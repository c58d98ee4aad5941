//! Manifests: what `svidecar inject` makes, what is shipped, and what the Helm chart renders, held against each other, the schemas of the
//! real Kubernetes, and Pod Security's "restricted". The schemas need `kubernetes-validate` on PATH, the chart `helm`;
//! what needs them is skipped, loudly, without.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod chart;
mod command;
mod completions;
mod restricted;
mod schemas;
mod shipped;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const SVIDECAR: &str = env!("CARGO_BIN_EXE_svidecar");

/// A file or a folder of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The shipped manifests, without kustomize's own file.
fn shipped_manifests() -> Vec<PathBuf> {
    yaml_files(&repository("deploy/kubernetes"))
        .into_iter()
        .filter(|path| !path.ends_with("kustomization.yaml"))
        .collect()
}

/// A workload of each kind and of each form that annotations have.
fn fixtures() -> Vec<PathBuf> {
    let all = yaml_files(&repository("integration/kubernetes/fixtures"));
    assert!(all.len() >= 9, "{all:?}");
    all
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    all.sort();
    all
}

/// Runs svidecar with these arguments and this input.
fn svidecar(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(SVIDECAR)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A command that refuses its arguments reads nothing.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What `inject` makes of a text.
fn injected(text: &str) -> String {
    let output = svidecar(&["inject", "-"], text);
    assert!(
        output.status.success(),
        "{}\n{text}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of a text, those of lists among them.
fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .flat_map(|document| match document["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![document],
        })
        .collect()
}

fn of_kind<'v>(objects: &'v [Value], kind: &str) -> Vec<&'v Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The spec of the pods that an object describes.
fn pod_spec(object: &Value) -> Option<&Value> {
    let path = match object["kind"].as_str()? {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => "/spec/template/spec",
        _ => return None,
    };
    Some(object.pointer(path).unwrap())
}

/// The item of a list with this name.
fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    let items = list.as_array().unwrap();
    items
        .iter()
        .find(|item| item["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// What is ours in a pod: the container and the volumes.
fn ours(pod: &Value) -> (Value, Vec<Value>) {
    let volumes = pod["volumes"].as_array().unwrap().iter();
    let ours = volumes.filter(|volume| volume["name"].as_str().unwrap().starts_with("svidecar-"));
    (
        named(&pod["initContainers"], "svidecar").clone(),
        ours.cloned().collect(),
    )
}
