//! How far a sink is, in a small file beside the log: the number of the next entry, and the hash of the line before it, which
//! tells whether the log is still the same one.

use std::fs;
use std::io;
use std::path::Path;

use crate::audit::chain::Head;
use crate::audit::segment;

/// Where to go on, as it was noted; `None` where nothing was, or nothing that makes sense.
pub(super) fn read(path: &Path) -> Option<Head> {
    let text = fs::read_to_string(path).ok()?;
    let (next, hash) = text.trim_end().split_once(' ')?;
    Some(Head {
        next: next.parse().ok()?,
        hash: hash.parse().ok()?,
    })
}

/// Whole, or not at all. Not confirmed by the disk: what is lost of it makes entries be sent twice.
pub(super) fn write(path: &Path, head: &Head) -> io::Result<()> {
    let temporary = segment::beside(path, "tmp");
    fs::write(&temporary, format!("{} {}\n", head.next, head.hash))?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn how_far_a_sink_is_outlives_it() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("audit.jsonl.sink.collector");
        assert_eq!(read(&path), None);
        let (first, second) = (Head::after(16, b"one line"), Head::after(17, b"another"));
        write(&path, &first).unwrap();
        write(&path, &second).unwrap();
        assert_eq!(read(&path), Some(second));
        for bad in ["", "18", "18 ", "18 eighteen", &format!("x {}", second.hash)] {
            fs::write(&path, bad).unwrap();
            assert_eq!(read(&path), None, "{bad}");
        }
    }
}
