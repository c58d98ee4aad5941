//! The config file: read, checked, turned into [`settings::Settings`].
//!
//! Owns the file's format and every rule about it. [`check()`] is pure and reports all problems, each with its place;
//! [`load`] adds the reading of the file. Settings that come out are valid by themselves and beside each other; what
//! the machine makes of them (a port already taken, a missing socket) shows when they are used. A key that belongs to
//! a later version is an error: nothing that a person wrote is ignored in silence.

pub mod address;
mod check;
mod difference;
pub mod duration;
mod file;
pub mod network;
pub mod settings;
pub mod size;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use self::check::{Examination, is_listener_name};
pub use self::difference::Difference;
pub(crate) use self::file::read as read_file;
use self::settings::Settings;
pub use self::settings::{ListenerName, listener_names};
use crate::yaml::Diagnostic;

/// What the surroundings contribute to the settings, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `SPIFFE_ENDPOINT_SOCKET`: the Workload API where the file names no identity source.
    pub endpoint_socket: Option<String>,
    /// The cores this process may use.
    pub cores: usize,
}

impl Environment {
    /// The surroundings of this process. The number of cores respects the cgroup's quota.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            // What is not UTF-8 must not look like absent: it is refused as an address where it is used.
            endpoint_socket: std::env::var_os("SPIFFE_ENDPOINT_SOCKET")
                .filter(|value| !value.is_empty())
                .map(|value| value.to_string_lossy().into_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        }
    }
}

/// Reads and checks the config file at `path`. Paths in it are taken from its own folder.
///
/// # Errors
/// Every problem of the file, warnings among them.
pub fn load(path: &Path, environment: &Environment) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
    examine(path, environment).into_result()
}

/// As [`load`], but keeps what could be read of a bad file too, so that the policy it names can be checked as well.
#[must_use]
pub fn examine(path: &Path, environment: &Environment) -> Examination {
    let name = path.display().to_string();
    let base = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    match file::read(path) {
        Ok(bytes) => match crate::yaml::decode(&name, &bytes) {
            Ok(text) => check::examine(text, &name, &base, environment),
            Err(diagnostic) => Examination::failed(*diagnostic),
        },
        Err(diagnostic) => Examination::failed(*diagnostic),
    }
}

/// Checks a config file's text. Pure.
///
/// # Errors
/// Every problem of the text, warnings among them.
pub fn check(
    text: &str,
    file_name: &str,
    base_dir: &Path,
    environment: &Environment,
) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
    check::examine(text, file_name, base_dir, environment).into_result()
}
