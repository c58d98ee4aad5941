//! Makes of the settings what takes out of records what must not leave.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::settings::{Redaction, RedactionRule};
use crate::redaction::{Redactor, RedactorError, profile};

/// The fewest bytes of a key: what cannot be guessed.
const MIN_KEY: usize = 16;
/// The most that is read.
const MAX_KEY: u64 = 4096;

/// Why records cannot be redacted.
#[derive(Debug, thiserror::Error)]
pub enum RedactionError {
    /// The key's file cannot be read.
    #[error("redaction.key_file: cannot read `{}`: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The key is too short.
    #[error(
        "redaction.key_file: `{}` holds {found} bytes: a key has {MIN_KEY} or more, from chance: `openssl rand -out FILE 32`",
        path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: usize,
    },
    /// Others can read the key.
    #[error("redaction.key_file: others can read `{}`: `chmod 600` it", .0.display())]
    Open(PathBuf),
    /// The rules cannot be applied.
    #[error("redaction: {0}")]
    Rules(#[from] RedactorError),
}

/// All rules: those of the file, then the profile's.
#[must_use]
pub fn rules(settings: &Redaction) -> Vec<RedactionRule> {
    let profile = settings.profile.map(profile::rules).unwrap_or_default();
    settings.rules.iter().cloned().chain(profile).collect()
}

/// What redacts; `None` where nothing is to be.
///
/// # Errors
/// See [`RedactionError`].
pub fn redactor(settings: &Redaction) -> Result<Option<Arc<Redactor>>, RedactionError> {
    let rules = rules(settings);
    if rules.is_empty() {
        return Ok(None);
    }
    let key = settings.key_file.as_deref().map(read_key).transpose()?;
    let redactor = Redactor::new(&rules, key.as_ref().map(|key| key.as_slice()))?;
    Ok(Some(Arc::new(redactor)))
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, RedactionError> {
    let unreadable = |error| RedactionError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let meta = fs::metadata(path).map_err(unreadable)?;
    // Asked before opening: to open a pipe waits for its writer.
    if !meta.is_file() {
        return Err(unreadable(io::Error::other("it is no regular file")));
    }
    // Kubernetes gives secrets to a group; everybody is too many.
    if meta.permissions().mode() & 0o007 != 0 {
        return Err(RedactionError::Open(path.to_owned()));
    }
    let mut key = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_KEY).read_to_end(&mut key).map_err(unreadable)?;
    if key.len() < MIN_KEY {
        return Err(RedactionError::Short {
            path: path.to_owned(),
            found: key.len(),
        });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::RedactionProfile;

    #[test]
    fn a_key_that_anybody_could_have_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("key");
        let settings = Redaction {
            profile: Some(RedactionProfile::Gdpr),
            key_file: Some(path.clone()),
            rules: Vec::new(),
        };
        assert!(matches!(
            redactor(&settings),
            Err(RedactionError::Unreadable { .. })
        ));
        let write = |bytes: usize, mode| {
            fs::write(&path, vec![7; bytes]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write(32, 0o604);
        assert!(matches!(redactor(&settings), Err(RedactionError::Open(_))));
        write(15, 0o600);
        assert!(matches!(
            redactor(&settings),
            Err(RedactionError::Short { found: 15, .. })
        ));
        write(16, 0o640);
        assert!(redactor(&settings).unwrap().is_some());
        assert!(redactor(&Redaction::default()).unwrap().is_none());
    }
}
