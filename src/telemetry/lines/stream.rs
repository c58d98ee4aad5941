//! Standard output as a place for lines.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

/// Lines written to a stream that somebody reads.
#[derive(Debug)]
pub(super) struct Stream {
    /// Not the standard library's own: that keeps back what it could not write, and would write it later.
    pub(super) out: File,
    /// Whether what was written ends with a whole line.
    pub(super) whole: bool,
}

impl Stream {
    pub(super) fn stdout() -> io::Result<Self> {
        let out = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::of(File::from(out)))
    }

    pub(super) const fn of(out: File) -> Self {
        Self { out, whole: true }
    }

    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if !self.whole {
            // Parts what comes from a line that was cut.
            self.out.write_all(b"\n")?;
        }
        let written = self.out.write_all(lines);
        self.whole = written.is_ok();
        written
    }
}
