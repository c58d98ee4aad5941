//! A file of lines, rotated by size.
//!
//! Our own rotation, because what is lost must be counted: file-rotate 0.8 forgets the error when it cannot open a file
//! and then reports every write as done.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{FileOptions, OpenError, as_u64};

/// How often to look whether the file is still the one at its path.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Who may read it: our own user.
const MODE: u32 = 0o600;

/// A file that becomes `FILE.1` when it is full, and begins anew.
#[derive(Debug)]
pub(super) struct RotatedFile {
    options: FileOptions,
    /// Absent after an error, until it can be opened again.
    pub(super) file: Option<File>,
    /// Bytes in the file.
    size: u64,
    /// Whether the file ends with a whole line.
    whole: bool,
    /// Whether the next line belongs into a new one.
    full: bool,
    pub(super) looked: Instant,
}

impl RotatedFile {
    /// Opens the file, or makes it.
    pub(super) fn open(options: FileOptions) -> Result<Self, OpenError> {
        let mut file = Self {
            options,
            file: None,
            size: 0,
            whole: true,
            full: false,
            looked: Instant::now(),
        };
        file.reopen()?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.options.path
    }

    /// Whether a line of this length is too much for the file, where so many bytes wait to be written to it.
    pub(super) fn parts_before(&self, waiting: u64, line: u64) -> bool {
        let before = if self.full { 0 } else { self.size };
        let before = before.saturating_add(waiting);
        before > 0 && before.saturating_add(line) > self.options.max_size
    }

    /// What is written next goes into a new file.
    pub(super) const fn part(&mut self) {
        self.full = true;
    }

    /// Writes whole lines, or none.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), OpenError> {
        self.ensure_open()?;
        let Some(file) = &mut self.file else { return Ok(()) };
        let result = if self.whole { Ok(()) } else { file.write_all(b"\n") };
        match result.and_then(|()| file.write_all(lines)) {
            Ok(()) => {
                self.size += as_u64(lines.len()) + u64::from(!self.whole);
                self.whole = true;
                Ok(())
            }
            Err(error) => {
                // What was half written is taken back; where that fails too, a line feed parts it from what comes.
                self.whole &= file.set_len(self.size).is_ok();
                self.file = None;
                Err(self.system(error))
            }
        }
    }

    /// Moves the file to `.1`, that to `.2` and so on.
    fn move_on(&self) -> io::Result<()> {
        let absent_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let path = &self.options.path;
        for number in (1..self.options.keep).rev() {
            absent_is_fine(fs::rename(older(path, number), older(path, number + 1)))?;
        }
        if self.options.keep == 0 {
            absent_is_fine(fs::remove_file(path))
        } else {
            absent_is_fine(fs::rename(path, older(path, 1)))
        }
    }

    /// Opens the file where it is not open, or where somebody has moved it away.
    fn ensure_open(&mut self) -> Result<(), OpenError> {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let opened = self.file.as_ref().and_then(|file| file.metadata().ok());
            let there = fs::symlink_metadata(&self.options.path).ok();
            let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
            if opened.map(place) != there.map(place) {
                self.file = None;
            }
        }
        if self.file.is_none() {
            self.reopen()?;
        }
        // While that fails nothing is written: the bound holds.
        if self.full && self.size > 0 {
            self.move_on().map_err(|error| self.system(error))?;
            self.reopen()?;
        }
        self.full = false;
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        let path = self.options.path.clone();
        // Asked before opening: to open a pipe waits for its reader.
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            return Err(OpenError::NoFile(path));
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(MODE);
        let opened = options.open(&path).and_then(|mut file| {
            file.set_permissions(Permissions::from_mode(MODE))?;
            let size = file.metadata()?.len();
            let whole = size == 0 || ends_with_line_feed(&mut file)?;
            Ok((file, size, whole))
        });
        let (file, size, whole) = opened.map_err(|error| self.system(error))?;
        (self.file, self.size, self.whole) = (Some(file), size, whole);
        Ok(())
    }

    fn system(&self, error: io::Error) -> OpenError {
        OpenError::System {
            path: self.options.path.clone(),
            error,
        }
    }
}

/// A process that died while it wrote leaves a line without an end.
fn ends_with_line_feed(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

pub(super) fn older(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
