//! What lies where the audit log will be, looked at before anything is begun: nothing is opened for writing, made, locked or
//! mended.

use std::fs;
use std::io;
use std::path::Path;

use super::OpenError;
use super::chain::Link;
use super::segment;

/// Whether a log could be opened or begun at `path`, as far as that shows without touching anything: its folder is there, and
/// the file is an audit log, or not there yet. Whether another process writes to it is not asked: that may be the very
/// sidecar whose settings are being changed. Blocking.
///
/// # Errors
/// What opening it would say.
pub fn look(path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::System {
        path: path.to_owned(),
        error,
    };
    if !fs::metadata(segment::folder(path)).map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let strange = |why: &str| OpenError::NotALog {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        // Asked before opening: to open a pipe waits for its writer.
        Ok(meta) if !meta.is_file() => return Err(strange("it is no regular file")),
        Ok(_) => {}
    }
    let mut line = Vec::new();
    let found = segment::read_line(&mut *segment::lines(path).map_err(failed)?, &mut line);
    match found {
        Ok(false) => Ok(()),
        Ok(true) => match line.split_last() {
            Some((b'\n', line)) if Link::read(line).is_ok() => Ok(()),
            // What a crash left of its very first write; opening takes it away.
            Some((last, _)) if *last != b'\n' && segment::is_a_beginning(&line) => Ok(()),
            _ => Err(strange("its first line is no entry")),
        },
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(strange("its first line is longer than any entry"))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::Hash;
    use super::*;

    #[test]
    fn an_audit_log_or_nothing_is_good_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let entry = format!(
            "{{\"version\":1,\"seq\":0,\"prev\":\"{}\",\"time\":\"t\",\"kind\":\"log\",\"operation\":\"segment\"}}",
            Hash::NONE
        );
        look(&path).unwrap();
        assert!(!path.exists());
        for good in [
            "",
            "{\"version\":1,\"seq\":0,\"pr",
            "\0\0\0",
            &format!("{entry}\n"),
            &format!("{entry}\n{{\"tor"),
        ] {
            fs::write(&path, good).unwrap();
            look(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), good);
        }
        for bad in [
            "\n".to_owned(),
            "not ours".to_owned(),
            "{\"verdict\":\"allow\"}\n".to_owned(),
            format!("{{\"version\":1,\"seq\":{}\n", "x".repeat(300_000)),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = look(&path).unwrap_err();
            assert!(matches!(error, OpenError::NotALog { .. }), "{error}");
        }
        let names = fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for path in ["none/audit.jsonl", "file/audit.jsonl"] {
            let error = look(&folder.path().join(path)).unwrap_err();
            assert!(error.to_string().contains("its folder must exist"), "{error}");
        }
        let error = look(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
    }
}
