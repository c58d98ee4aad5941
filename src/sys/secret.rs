//! Reads a file that holds a secret: a token, a key. One rule for all of them about who else may have it.
//!
//! The file is opened once, and what is asked about it is asked of what was opened: by its path it could be another one a
//! moment later. What the bytes have to be is the caller's to say.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// The permission bits that everybody has who is neither the owner nor of the group. Kubernetes gives secrets to a group;
/// everybody is too many.
const OTHERS: u32 = 0o007;

/// Why a secret cannot be had from a file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system does not let us read it.
    #[error("cannot read the file: {0}")]
    Unreadable(#[from] io::Error),
    /// It is no file: to read a pipe or a device could wait for ever.
    #[error("this is no regular file")]
    NoFile,
    /// It is everybody's on this machine.
    #[error("everybody on this machine may read, write or execute it (mode {mode:04o})")]
    Open {
        /// Its permission bits.
        mode: u32,
    },
    /// It holds less than the least; with it, how many bytes.
    #[error("it has {0} bytes")]
    Short(usize),
    /// It holds more than the most: it is perhaps another file.
    #[error("it has more than {0} bytes")]
    Long(usize),
}

/// The bytes of the regular file at `path`, as many as `bounds` says, which are wiped when they are dropped. Blocking.
///
/// # Errors
/// See [`SecretError`].
pub fn read(path: &Path, bounds: RangeInclusive<usize>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    // Asked before opening as well: to open a pipe waits for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(SecretError::NoFile);
    }
    let file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(SecretError::NoFile);
    }
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretError::Open { mode });
    }
    // One byte more than there may be, so that one too long is told. Room for all at once: a buffer that grows leaves
    // copies behind.
    let limit = bounds.end().saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    file.take(u64::try_from(limit).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)?;
    match bytes.len() {
        length if length < *bounds.start() => Err(SecretError::Short(length)),
        length if length > *bounds.end() => Err(SecretError::Long(*bounds.end())),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_regular_file_of_the_right_size_that_is_not_everybodys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let read = || read(&path, 4..=8);
        assert!(matches!(read(), Err(SecretError::Unreadable(_))));
        let write = |bytes: usize, mode| {
            let _ = fs::remove_file(&path);
            fs::write(&path, vec![7; bytes]).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        for mode in [0o601, 0o602, 0o604, 0o647] {
            write(4, mode);
            let error = read().unwrap_err();
            assert!(
                matches!(error, SecretError::Open { mode: m } if m == mode),
                "{error}"
            );
        }
        write(3, 0o600);
        assert!(matches!(read(), Err(SecretError::Short(3))));
        write(9, 0o600);
        assert!(matches!(read(), Err(SecretError::Long(8))));
        for (bytes, mode) in [(4, 0o600), (8, 0o440)] {
            write(bytes, mode);
            assert_eq!(*read().unwrap(), vec![7; bytes]);
        }
        for path in [folder.path(), Path::new("/dev/null")] {
            assert!(matches!(super::read(path, 0..=8), Err(SecretError::NoFile)));
        }
    }
}
