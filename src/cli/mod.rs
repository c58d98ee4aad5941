//! The command line: one module a command.

pub mod check;
pub mod explain;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::process::ExitCode;

/// Exit code for bad usage and bad settings.
pub const EXIT_USAGE: u8 = 2;
/// Exit code of `policy explain` for a peer that is denied.
pub const EXIT_DENIED: u8 = 3;

/// Writes one text to standard output. A reader that went away (`| head`) is no failure of ours, anything else is.
pub(crate) fn print(text: &str, done: ExitCode) -> ExitCode {
    finish(io::stdout().lock(), text, done)
}

/// Writes one text to standard error; there is nowhere to tell a failure.
pub(crate) fn complain(text: &str) {
    let _ = finish(io::stderr().lock(), text, ExitCode::FAILURE);
}

fn finish(mut to: impl Write, text: &str, done: ExitCode) -> ExitCode {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Ok(()) => done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => done,
        Err(_) => ExitCode::FAILURE,
    }
}
