//! The demo's own folder: private, short enough in name for unix sockets, gone when the demo is.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A socket's path has at most 107 bytes; ours add up to 50 to this.
const MAX_BASE: usize = 57;
/// Where temporary files are when the environment's answer cannot be used.
const FALLBACK: &str = "/tmp";
/// Names to try before giving up; a taken one is a rare accident.
const ATTEMPTS: u32 = 16;

/// A folder that is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it in the system's folder for temporary files, readable by nobody else.
    pub(super) fn new() -> io::Result<Self> {
        Self::below(&base(std::env::temp_dir()))
    }

    fn below(base: &Path) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let name: String = std::iter::repeat_with(fastrand::alphanumeric).take(6).collect();
            let path = base.join(format!("svidecar-demo-{name}"));
            // Not "make it unless it is there": one that is there is somebody else's.
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => {
                    let text = format!(
                        "cannot make a folder in `{}`: {error}; set TMPDIR to one that can be written",
                        base.display()
                    );
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
        Err(last)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it in one stroke, so that whoever follows the file never reads half of it.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let (path, half) = (self.0.join(name), self.0.join(".half-written"));
        fs::write(&half, text)?;
        fs::rename(half, &path)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Again where a process that was just killed had still put a file into it.
        for _ in 0..3 {
            match fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => return,
            }
        }
    }
}

/// `wanted`, unless a socket's address could not hold or a config file could not say a path in it.
fn base(wanted: PathBuf) -> PathBuf {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let usable = wanted
        .to_str()
        .is_some_and(|text| text.starts_with('/') && text.len() <= MAX_BASE && text.chars().all(plain));
    if usable { wanted } else { PathBuf::from(FALLBACK) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn is_private_and_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::below(parent.path()).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(path.join("policy")).unwrap();
        assert_eq!(
            folder.write("policy/a.yaml", "x").unwrap(),
            path.join("policy/a.yaml")
        );
        drop(folder);
        assert!(!path.exists());
        assert!(Folder::below(&path).unwrap_err().to_string().contains("TMPDIR"));
    }

    #[test]
    fn sockets_fit_into_it_wherever_temporary_files_are() {
        for (wanted, used) in [
            ("/var/tmp", "/var/tmp"),
            ("tmp", FALLBACK),
            ("/a b", FALLBACK),
            ("/a#b", FALLBACK),
            (
                "/long/long/long/long/long/long/long/long/long/long/long/long",
                FALLBACK,
            ),
        ] {
            assert_eq!(base(PathBuf::from(wanted)), PathBuf::from(used), "{wanted}");
        }
    }
}
