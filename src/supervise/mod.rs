//! The supervisor: a small parent that holds the listening sockets and runs the sidecar as its child, so that the one may be
//! confined and the other can start the next one.
//!
//! Owns the sockets between two children, and who of them is in charge ([`machine`], which decides and does nothing). It
//! reads the config file, for the addresses in it and for how to log. It has no identity, speaks no TLS, accepts no
//! connection: no byte of a peer reaches it. What it is told by its children is a closed set of small messages
//! ([`crate::handover`]). It is not replaced by an upgrade.

mod children;
mod held;
mod machine;
mod perform;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::perform::run;
use crate::config::settings::Address;
use crate::sys::bind::Listening;

/// What a supervisor is started with.
#[derive(Debug)]
pub struct Options {
    /// The config file.
    pub config: PathBuf,
    /// The program that is started as the child, each time anew from this path.
    pub program: PathBuf,
    /// For the new child of an upgrade to get ready.
    pub ready_timeout: Duration,
    /// Sockets that a service manager has opened.
    pub passed: Vec<(Address, Listening)>,
}

/// The program's path as it was started (`argument` 0): symbolic links are kept, so that one which points elsewhere, or a
/// file that was replaced, is what the next child is started from. `folders` is `PATH`, where a name without a slash is from.
#[must_use]
pub fn program(argument: Option<&Path>, folders: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let argument = argument.filter(|argument| !argument.as_os_str().is_empty())?;
    if argument.components().count() > 1 || argument.is_absolute() {
        return std::path::absolute(argument).ok();
    }
    std::env::split_paths(folders?)
        .map(|folder| folder.join(argument))
        .find(|path| path.is_file())
        .and_then(|path| std::path::absolute(path).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_as_it_was_called() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("svidecar-1");
        std::fs::write(&file, "").unwrap();
        let link = folder.path().join("svidecar");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let path = std::env::join_paths([Path::new("/nonexistent"), folder.path()]).unwrap();
        let found = |argument: &str| program(Some(Path::new(argument)), Some(&path));
        // Not what the link points to: it may point elsewhere at the next start.
        assert_eq!(found("svidecar"), Some(link.clone()));
        assert_eq!(found(link.to_str().unwrap()), Some(link));
        let here = std::env::current_dir().unwrap();
        assert_eq!(found("./a/b"), Some(here.join("a/b")));
        assert_eq!(found("another"), None);
        assert_eq!(found(""), None);
        assert_eq!(program(None, Some(&path)), None);
    }
}
