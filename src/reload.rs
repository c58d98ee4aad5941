//! Sees that the policy's files changed.
//!
//! By looking twice a second rather than by inotify: Kubernetes swaps a symbolic link somewhere in the path, which a
//! watch on the file or its folder never hears of, and network file systems tell nothing at all. What is looked at is
//! where the path leads now and which files lie there, with their inode, size and times.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// How often to look.
pub const PERIOD: Duration = Duration::from_millis(500);
/// For how long files must have been left alone before they are read.
pub const SETTLE: Duration = Duration::from_millis(50);
/// Entries of one folder that are looked at, as many as a policy may have.
const MAX_ENTRIES: usize = 10_000;

/// What the files at a path look like from outside. Equal fingerprints mean that nobody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

/// Looks at `path`, a file or a folder of files. Blocking. What cannot be read is part of the picture too: a file that
/// goes away and one that comes back are changes.
#[must_use]
pub fn fingerprint(path: &Path) -> Fingerprint {
    let mut hasher = DefaultHasher::new();
    // Where the path leads through all symbolic links on the way.
    fs::canonicalize(path).ok().hash(&mut hasher);
    look(path, &mut hasher);
    if let Ok(entries) = fs::read_dir(path) {
        let mut files: Vec<_> = entries
            .take(MAX_ENTRIES)
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        for file in files {
            file.hash(&mut hasher);
            fs::canonicalize(&file).ok().hash(&mut hasher);
            look(&file, &mut hasher);
        }
    }
    Fingerprint(hasher.finish())
}

/// As [`fingerprint`], where it is the same twice, [`SETTLE`] apart, or still the `last` one. `None` while somebody writes:
/// whoever copies a folder or rewrites a file is seldom done at the first look. Blocking.
#[must_use]
pub fn settled(path: &Path, last: Option<Fingerprint>) -> Option<Fingerprint> {
    let first = fingerprint(path);
    if Some(first) == last {
        return Some(first);
    }
    std::thread::sleep(SETTLE);
    (fingerprint(path) == first).then_some(first)
}

fn look(path: &Path, hasher: &mut impl Hasher) {
    let seen = fs::metadata(path)
        .map(|m| {
            (
                m.dev(),
                m.ino(),
                m.size(),
                m.mtime(),
                m.mtime_nsec(),
                m.ctime(),
                m.ctime_nsec(),
            )
        })
        .ok();
    seen.hash(hasher);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    #[test]
    fn sees_writes_removals_and_swapped_links_anywhere_in_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        // As Kubernetes lays out a ConfigMap: file -> ..data/file, ..data -> ..v1.
        for version in ["..v1", "..v2"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("a.yaml"), "rules: []").unwrap();
        }
        symlink("..v1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();

        let mut seen = vec![fingerprint(root)];
        let mut changed = |what: &str| {
            let now = fingerprint(root);
            assert_ne!(Some(&now), seen.last(), "{what} was not seen");
            assert_eq!(now, fingerprint(root), "{what}: not stable");
            seen.push(now);
        };
        symlink("..v2", root.join("..tmp")).unwrap();
        fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
        changed("a swapped link");
        fs::write(root.join("..v2/a.yaml"), "rules:  []").unwrap();
        changed("a write behind the link");
        fs::write(root.join("b.yaml"), "rules: []").unwrap();
        changed("a new file");
        fs::remove_file(root.join("b.yaml")).unwrap();
        changed("a removed file");

        let file = fingerprint(&root.join("a.yaml"));
        symlink("..v1", root.join("..tmp")).unwrap();
        fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
        assert_ne!(
            file,
            fingerprint(&root.join("a.yaml")),
            "a link in the middle of a file's path"
        );
    }

    #[test]
    fn files_that_are_being_written_are_not_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        fs::write(&path, "rules: []").unwrap();
        let last = fingerprint(dir.path());
        assert_eq!(settled(dir.path(), Some(last)), Some(last));
        let stop = Arc::<AtomicBool>::default();
        let writer = {
            let path = path.clone();
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut text = String::new();
                while !stop.load(Ordering::SeqCst) {
                    text.push('x');
                    fs::write(&path, &text).unwrap();
                    std::thread::sleep(SETTLE / 10);
                }
            })
        };
        // On a busy machine the writer may rest for longer than it is looked at.
        let begun = Instant::now();
        let looks =
            std::iter::from_fn(|| (begun.elapsed() < 100 * SETTLE).then(|| settled(dir.path(), Some(last))));
        let seen = looks.into_iter().any(|look| look.is_none());
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        assert!(seen);
        assert_eq!(settled(dir.path(), Some(last)), Some(fingerprint(dir.path())));
        assert_eq!(settled(dir.path(), None), Some(fingerprint(dir.path())));
    }

    #[test]
    fn what_is_not_there_has_a_fingerprint_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        let absent = fingerprint(&path);
        fs::write(&path, "rules: []").unwrap();
        assert_ne!(absent, fingerprint(&path));
    }
}
