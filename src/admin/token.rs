//! The token that lets changes in over TCP. It lies in a file, which is read anew at each use, and is compared in
//! constant time: what a wrong one has in common with it can't be measured.

use std::path::PathBuf;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::sys::secret::{self, SecretError};

/// The fewest bytes of a token.
pub const MIN: usize = 16;
/// The most.
pub const MAX: usize = 4096;
/// The most bytes of its file: some blanks more.
const MAX_FILE: usize = MAX + 64;

/// A file with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile(pub PathBuf);

/// Why a token can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read, or is everybody's.
    #[error(transparent)]
    File(SecretError),
    /// It could be guessed, or is empty because it was not written yet.
    #[error("a token has {MIN} bytes or more; this one has {0}")]
    Short(usize),
    /// It is perhaps another file.
    #[error("a token has {MAX} bytes at most")]
    Long,
    /// It can't be sent in a header.
    #[error("a token is one line of visible ASCII characters")]
    NotSendable,
    /// The comparison panicked: a defect, which is in the log.
    #[error("comparing it failed")]
    Panicked,
}

impl TokenError {
    /// What to do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::File(SecretError::Open { .. }) => {
                "take the rights of others away: `chmod o= FILE`; for a Kubernetes Secret `defaultMode: 0440`"
            }
            _ => "make one with `(umask 077; openssl rand -hex 32 > FILE)`",
        }
    }
}

impl TokenFile {
    /// Whether the file holds a token that can be used. Blocking.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn check(&self) -> Result<(), TokenError> {
        self.read().map(|_| ())
    }

    /// Whether this is the token. Blocking.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub(super) fn is(&self, shown: &[u8]) -> Result<bool, TokenError> {
        let token = self.read()?;
        // Hashed, so that the two are of one length whatever was shown.
        let (shown, token) = (digest(&SHA256, shown), digest(&SHA256, token.trim_ascii()));
        Ok(verify_slices_are_equal(shown.as_ref(), token.as_ref()).is_ok())
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        // The blanks around a token are none of it: how short it is can be said without them alone.
        let bytes = secret::read(&self.0, 0..=MAX_FILE).map_err(|error| match error {
            SecretError::Long(_) => TokenError::Long,
            error => TokenError::File(error),
        })?;
        let token = bytes.trim_ascii();
        match token.len() {
            length if length < MIN => Err(TokenError::Short(length)),
            length if length > MAX => Err(TokenError::Long),
            _ if !token.iter().all(u8::is_ascii_graphic) => Err(TokenError::NotSendable),
            _ => Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_token_is_compared_whole_and_blanks_around_it_are_none_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile(folder.path().join("token"));
        assert!(matches!(
            file.check(),
            Err(TokenError::File(SecretError::Unreadable(_)))
        ));
        for text in [TOKEN.to_owned(), format!(" {TOKEN}\r\n\n")] {
            write(&file, &text, 0o440);
            file.check().unwrap();
            for (shown, same) in [
                (TOKEN, true),
                (&TOKEN[1..], false),
                (&TOKEN[..31], false),
                ("", false),
                ("0123456789abcdef0123456789abcdeg", false),
            ] {
                assert_eq!(file.is(shown.as_bytes()).unwrap(), same, "{shown}");
            }
        }
        write(&file, "another token, no: another-token!", 0o600);
        assert!(file.is(TOKEN.as_bytes()).is_err(), "blanks within");
        write(&file, "another-token-of-enough-bytes", 0o600);
        assert!(!file.is(TOKEN.as_bytes()).unwrap(), "the file was read before");
    }

    fn write(file: &TokenFile, text: &str, mode: u32) {
        let _ = fs::remove_file(&file.0);
        fs::write(&file.0, text).unwrap();
        fs::set_permissions(&file.0, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_no_token_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile(folder.path().join("token"));
        for (text, mode, says) in [
            ("", 0o600, "this one has 0"),
            ("  fifteen bytes. \n", 0o600, "this one has 14"),
            (TOKEN, 0o644, "mode 0644"),
            (TOKEN, 0o602, "mode 0602"),
            (TOKEN, 0o641, "mode 0641"),
            ("two\nlines-of-a-token-0123456789", 0o600, "one line"),
            ("töken-0123456789abcdef", 0o600, "ASCII"),
            (&"x".repeat(MAX + 1), 0o600, "4096 bytes at most"),
            (&"x".repeat(MAX + 1000), 0o600, "4096 bytes at most"),
        ] {
            write(&file, text, mode);
            let error = file.check().unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(!error.advice().is_empty());
            assert!(file.is(text.trim().as_bytes()).is_err(), "{text}");
        }
        for path in [folder.path().to_owned(), PathBuf::from("/dev/null")] {
            let error = TokenFile(path).check().unwrap_err();
            assert!(matches!(error, TokenError::File(SecretError::NoFile)), "{error}");
        }
    }
}
