//! Makes of the settings what takes out of records what must not leave.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::settings::{Redaction, RedactionRule};
use crate::redaction::{Redactor, RedactorError, profile};
use crate::sys::secret::{self, SecretError};

/// The fewest bytes of a key: what cannot be guessed.
const MIN_KEY: usize = 16;
/// The most: a file that is longer is another one.
const MAX_KEY: usize = 4096;

/// Why records cannot be redacted.
#[derive(Debug, thiserror::Error)]
pub enum RedactionError {
    /// There is no key in its file.
    #[error("redaction.key_file: `{}`: {error}: {}", path.display(), advice(error))]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: SecretError,
    },
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
    let read = |path: &PathBuf| {
        secret::read(path, MIN_KEY..=MAX_KEY).map_err(|error| RedactionError::Key {
            path: path.clone(),
            error,
        })
    };
    let key = settings.key_file.as_ref().map(read).transpose()?;
    let redactor = Redactor::new(&rules, key.as_ref().map(|key| key.as_slice()))?;
    Ok(Some(Arc::new(redactor)))
}

/// What to do about a key that cannot be had.
const fn advice(error: &SecretError) -> &'static str {
    match error {
        SecretError::Open { .. } => "take the rights of others away: `chmod o= FILE`",
        _ => "make one of 16 bytes or more, from chance: `(umask 077; openssl rand -out FILE 32)`",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

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
        let says = || redactor(&settings).unwrap_err().to_string();
        assert!(says().contains("cannot read the file") && says().contains("openssl rand"));
        let write = |bytes: usize, mode| {
            fs::write(&path, vec![7; bytes]).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        for (bytes, mode, needle) in [
            (32, 0o604, "`chmod o= FILE`"),
            (32, 0o601, "mode 0601"),
            (15, 0o600, "it has 15 bytes: make one of 16"),
            (4097, 0o600, "more than 4096 bytes"),
        ] {
            write(bytes, mode);
            assert!(says().contains(needle), "{}", says());
        }
        write(16, 0o640);
        assert!(redactor(&settings).unwrap().is_some());
        assert!(redactor(&Redaction::default()).unwrap().is_none());
    }
}
