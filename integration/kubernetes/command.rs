//! `svidecar inject` as people run it: files, standard input, exit codes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::{repository, svidecar};

fn pod(annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: orders\n  annotations: {{{annotations}}}\nspec:\n  containers:\n  - name: app\n    image: app\n"
    )
}

const GOOD: &str = "svidecar.dev/inject: 'true', svidecar.dev/config: mine";

#[test]
fn bad_manifests_exit_with_2_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.yaml"), folder.path().join("bad.yaml"));
    fs::write(&good, pod(GOOD)).unwrap();
    fs::write(&bad, pod("svidecar.dev/inject: 'perhaps'")).unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    for arguments in [&["inject", good, bad][..], &["inject", "--in-place", good, bad]] {
        let output = svidecar(arguments, "");
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        for needle in [
            "bad.yaml:5:",
            "Pod/orders",
            "svidecar.dev/inject",
            "`perhaps`",
            "expected",
            "1 error; nothing was written",
        ] {
            assert!(said.contains(needle), "{said}");
        }
    }
    assert_eq!(fs::read_to_string(good).unwrap(), pod(GOOD));
    for (arguments, input, needle) in [
        (&["inject", "/nowhere.yaml"][..], "", "cannot read the file"),
        (&["inject", "--in-place", "-"], "", "needs files"),
        (&["inject"], "", "required"),
        (&["inject", "--image", "a b", "-"], "", "name of an image"),
        (&["inject", "--socket", "../a", "-"], "", "name of a file"),
        (&["inject", "-"], "a: [\n", "standard input"),
    ] {
        let output = svidecar(arguments, input);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            output.stdout.is_empty() && said.contains(needle),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn files_are_replaced_whole_with_their_mode_and_through_links() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("m.yaml"), folder.path().join("link.yaml"));
    fs::write(&file, pod(GOOD)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("m.yaml", &link).unwrap();
    let run = |arguments: &[&str]| {
        let output = svidecar(
            &[&["inject", "--in-place"], arguments, &[link.to_str().unwrap()]].concat(),
            "",
        );
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout.is_empty());
        fs::read_to_string(&file).unwrap()
    };
    let once = run(&[]);
    assert!(once.contains("- name: svidecar\n"), "{once}");
    assert_eq!(run(&[]), once);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // Standard error says what became of it.
    let said = |arguments: &[&str], input: &str| {
        String::from_utf8(svidecar(&[&["inject"], arguments, &["-"]].concat(), input).stderr).unwrap()
    };
    assert_eq!(
        said(&[], &once),
        "standard input: Pod/orders: the sidecar is in\n"
    );
    assert_eq!(
        said(&["--remove"], &once),
        "standard input: Pod/orders: the sidecar is out\n"
    );
    assert_eq!(said(&[], ""), "standard input: no workload asks for a sidecar\n");
    assert!(run(&["--image", "registry.example/s:2"]).contains("image: registry.example/s:2\n"));
    assert!(!run(&["--remove"]).contains("svidecar-"));
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "nothing is left beside it"
    );
}

#[test]
fn several_files_become_one_stream() {
    let service = "kind: Service\napiVersion: v1\nmetadata: {name: a}";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.yaml");
    fs::write(&file, service).unwrap();
    let output = svidecar(&["inject", file.to_str().unwrap(), "-"], &pod(GOOD));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with(&format!("{service}\n---\napiVersion: v1\nkind: Pod\n")),
        "{text}"
    );
    // What has no workload goes through to the byte, from a pipe, too.
    let kustomization = fs::read_to_string(repository("deploy/kubernetes/kustomization.yaml")).unwrap();
    assert_eq!(
        svidecar(&["inject", "-"], &kustomization).stdout,
        kustomization.as_bytes()
    );
}
