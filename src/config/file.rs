//! Reading a file with a bound on its size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::yaml::{Diagnostic, MAX_FILE_BYTES};

/// The bytes of the file at `path`; one more than [`MAX_FILE_BYTES`] at most, so that too large a file can be told.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Box<Diagnostic>> {
    let failed =
        |error: &std::io::Error| Box::new(Diagnostic::unreadable(path, "cannot read the file", error));
    // Asked before opening: to open a pipe waits for its writer.
    let kind = std::fs::metadata(path).map_err(|e| failed(&e))?;
    if !kind.is_file() {
        let what = if kind.is_dir() {
            "this is a folder, not a file"
        } else {
            "this is no regular file"
        };
        return Err(Box::new(Diagnostic::of_file(&path.display().to_string(), what)));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|e| failed(&e))?;
    Ok(bytes)
}
