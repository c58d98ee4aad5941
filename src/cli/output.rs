//! What a command says, written whole, to the stream where it belongs.

use std::io::{self, Write};

use super::EXIT_FAILED;

/// Writes one text to standard output and returns `code`. A reader that went away (`| head`) is no failure of ours.
pub(super) fn print(text: &str, code: u8) -> u8 {
    finish(io::stdout().lock(), text, code)
}

/// Writes findings and errors to standard error, which say themselves what they are.
pub(super) fn report(text: &str) {
    // Nothing can be done about a standard error that is gone.
    let _ = finish(io::stderr().lock(), text, EXIT_FAILED);
}

fn finish(mut to: impl Write, text: &str, code: u8) -> u8 {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Ok(()) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(_) => EXIT_FAILED,
    }
}
