//! The manifests in `deploy/kubernetes`, and the fixtures.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{fixtures, injected, objects, of_kind, pod_spec, restricted, shipped_manifests, svidecar};

#[test]
fn the_shipped_manifests_are_what_inject_makes_of_them() {
    let mut with_sidecar = 0;
    for path in shipped_manifests() {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            injected(&text),
            text,
            "run `svidecar inject --in-place {}`",
            path.display()
        );
        with_sidecar += objects(&text)
            .iter()
            .filter(|object| pod_spec(object).is_some())
            .count();
    }
    assert_eq!(with_sidecar, 3);
}

#[test]
fn twice_is_once_and_removing_leaves_the_objects_that_were_there() {
    for path in fixtures() {
        let text = fs::read_to_string(&path).unwrap();
        let once = injected(&text);
        assert_ne!(once, text, "{}", path.display());
        assert_eq!(injected(&once), once, "{}", path.display());
        let removed = svidecar(&["inject", "--remove", "-"], &once);
        let removed = String::from_utf8(removed.stdout).unwrap();
        assert_eq!(objects(&removed), objects(&text), "{}", path.display());
    }
}

/// Where each generated config is asked about by the command that people use.
#[test]
fn generated_configs_pass_check() {
    let mut checked = 0;
    for path in fixtures().into_iter().chain(shipped_manifests()) {
        let all = objects(&injected(&fs::read_to_string(&path).unwrap()));
        for object in of_kind(&all, "ConfigMap") {
            let Some(config) = object["data"]["svidecar.yaml"].as_str() else {
                continue;
            };
            check(config, &all);
            checked += 1;
        }
    }
    assert!(checked >= 9, "{checked}");
}

/// Runs `svidecar check` on a config, with the policy that it names if that is among the objects.
pub(super) fn check(config: &str, all: &[Value]) {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy");
    fs::create_dir(&policy).unwrap();
    write_policies(&policy, all);
    let file = folder.path().join("svidecar.yaml");
    let here = config.replace("/etc/svidecar/policy", policy.to_str().unwrap());
    fs::write(&file, here).unwrap();
    let output = svidecar(&["check", "--config", file.to_str().unwrap()], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{config}");
    assert!(!said.contains("warning"), "{said}\n{config}");
}

fn write_policies(folder: &Path, all: &[Value]) {
    let files = of_kind(all, "ConfigMap")
        .into_iter()
        .filter_map(|object| object["data"].as_object());
    let mut any = false;
    for (name, text) in files.flatten().filter(|(name, _)| *name != "svidecar.yaml") {
        fs::write(folder.join(name), text.as_str().unwrap()).unwrap();
        any = true;
    }
    if !any {
        fs::write(folder.join("all.yaml"), "rules: [{ name: own, action: allow }]\n").unwrap();
    }
}

#[test]
fn what_is_shipped_and_what_is_made_passes_restricted() {
    let mut pods = 0;
    for path in fixtures().into_iter().chain(shipped_manifests()) {
        let all = objects(&injected(&fs::read_to_string(&path).unwrap()));
        for pod in all.iter().filter_map(pod_spec) {
            let broken = restricted::violations(pod);
            if path.ends_with("transparent.yaml") {
                // Said in docs/inject.md: of that container alone, and for these reasons alone.
                let expected = ["Capabilities", "Running as Non-root", "Running as Non-root user"];
                let expected: Vec<String> = expected
                    .iter()
                    .map(|rule| format!("svidecar-intercept: {rule}"))
                    .collect();
                assert_eq!(broken, expected);
            } else {
                assert!(broken.is_empty(), "{}: {broken:?}", path.display());
            }
            pods += 1;
        }
    }
    assert!(pods >= 12, "{pods}");
}

/// Init containers that go on are no reason for a Job not to finish; ordinary containers would be.
#[test]
fn a_job_waits_for_its_own_containers_alone() {
    let path = super::repository("deploy/kubernetes/report.yaml");
    let all = objects(&fs::read_to_string(path).unwrap());
    let pod = pod_spec(of_kind(&all, "Job")[0]).unwrap();
    let own: Vec<_> = pod["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(own, ["report"]);
    let sidecar = &pod["initContainers"][0];
    assert_eq!(
        (&sidecar["name"], &sidecar["restartPolicy"]),
        (&"svidecar".into(), &"Always".into())
    );
    assert_eq!(sidecar["startupProbe"]["httpGet"]["path"], "/startupz");
}
