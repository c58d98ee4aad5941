//! What a command says, written whole, to the stream where it belongs.

use std::io::{self, Write};
use std::process::ExitCode;

/// Writes one text to standard output. A reader that went away (`| head`) is no failure of ours, anything else is.
pub(super) fn print(text: &str, done: ExitCode) -> ExitCode {
    finish(io::stdout().lock(), text, done)
}

/// Writes one text to standard error; there is nowhere to tell a failure.
pub(super) fn complain(text: &str) {
    let _ = finish(io::stderr().lock(), text, ExitCode::FAILURE);
}

fn finish(mut to: impl Write, text: &str, done: ExitCode) -> ExitCode {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Ok(()) => done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => done,
        Err(_) => ExitCode::FAILURE,
    }
}
