//! Where files really lie: the folders that a path leads through and to.
//!
//! A link that leads to something beside or below it (`current -> releases/7`, Kubernetes' `..data -> ..2026_11_27`) is
//! what a release swaps. The folder of what it leads to is counted, so that what it leads to next is found, too. Of any
//! other link only what it leads to now is.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::plan::Surroundings;

/// Links on the way of one path; as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// Entries of one folder that are looked at; as many as a policy may have.
const MAX_ENTRIES: usize = 10_000;
/// Where the kernel says which port is the first that everybody may bind.
const FIRST_FREE_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// What that is where nobody changed it.
const USUAL_FIRST_FREE_PORT: u16 = 1024;

impl Surroundings<'static> {
    /// Those of this process. Blocking.
    #[must_use]
    pub fn of_process() -> Self {
        let said = fs::read_to_string(FIRST_FREE_PORT).ok();
        Self {
            folders: &folders,
            exists: &Path::exists,
            first_free_port: said
                .and_then(|port| port.trim().parse().ok())
                .unwrap_or(USUAL_FIRST_FREE_PORT),
        }
    }
}

/// The real folders that the file at `path` is found in; where `path` is a folder, also those of the links in it. See
/// [`Surroundings::folders`]. Blocking.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let real = follow(path, &mut found);
    if let Ok(entries) = fs::read_dir(&real) {
        for entry in entries.take(MAX_ENTRIES).flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                follow(&entry.path(), &mut found);
            }
        }
    }
    // What lies below another one is granted with it.
    let nested = |folder: &PathBuf| {
        found
            .iter()
            .any(|other| other != folder && folder.starts_with(other))
    };
    found.iter().filter(|folder| !nested(folder)).cloned().collect()
}

/// Follows all links of `path` and notes the folders. The end of it, whether that exists or not.
fn follow(path: &Path, found: &mut BTreeSet<PathBuf>) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut ahead: Vec<OsString> = names(&absolute);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let folder = at.clone();
        at.push(name);
        let Ok(target) = fs::read_link(&at) else { continue };
        links += 1;
        if links > MAX_LINKS {
            break;
        }
        let is_beside = target
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if is_beside && folder.parent().is_some() {
            found.extend(folder.join(&target).parent().map(Path::to_owned));
        }
        ahead.extend(names(&target));
        at = if target.is_absolute() {
            PathBuf::from("/")
        } else {
            folder
        };
    }
    match at.parent() {
        Some(parent) if parent.parent().is_some() => found.insert(parent.to_owned()),
        _ => found.insert(at.clone()),
    };
    at
}

/// The names of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn in_folder(links: &[(&str, &str)], path: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for folder in ["etc/v1", "etc/v2", "opt/v1", "opt/rules"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (link, target) in links {
            let target = target.replace("ROOT", root.to_str().unwrap());
            symlink(target, root.join(link)).unwrap();
        }
        let strip = |folder: PathBuf| folder.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        folders(&root.join(path)).into_iter().map(strip).collect()
    }

    #[test]
    fn the_folders_are_those_that_what_replaces_the_file_is_found_in() {
        let nothing: &[(&str, &str)] = &[];
        for (links, path, expected, what) in [
            (nothing, "etc/a.yaml", vec!["etc"], "a file, there or not"),
            (nothing, "etc/v1", vec!["etc"], "a folder may be replaced, too"),
            (nothing, "no/such/a.yaml", vec!["no/such"], "nothing there yet"),
            (nothing, "opt/v1/../../etc/a", vec!["etc"], "a way back"),
            (
                &[("etc/..data", "v1"), ("etc/a", "..data/a")],
                "etc/a",
                vec!["etc"],
                "a ConfigMap",
            ),
            (
                &[("etc/now", "v1")],
                "etc/now/a",
                vec!["etc"],
                "a folder that is swapped",
            ),
            (
                &[("now", "opt/v1")],
                "now/a",
                vec!["opt"],
                "one whose releases are below",
            ),
            (
                &[("etc/now", "ROOT/opt/v1")],
                "etc/now/a",
                vec!["opt/v1"],
                "a link far away: what it leads to alone",
            ),
            (
                &[("etc/now", "../opt/v1")],
                "etc/now/a",
                vec!["opt/v1"],
                "likewise",
            ),
            (
                &[("etc/v1/a.yaml", "../../opt/rules/a.yaml")],
                "etc/v1",
                vec!["etc", "opt/rules"],
                "links in a folder",
            ),
        ] {
            assert_eq!(in_folder(links, path), expected, "{what}");
        }
    }

    #[test]
    fn the_root_is_never_a_folder_of_ours_and_circles_end() {
        assert_eq!(
            folders(Path::new("/no-such-file.yaml")),
            [Path::new("/no-such-file.yaml")]
        );
        let circle = in_folder(&[("etc/a", "b"), ("etc/b", "a")], "etc/a");
        assert_eq!(circle, ["etc"]);
    }
}
