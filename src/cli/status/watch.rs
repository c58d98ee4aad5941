//! Watching: asks each second, and draws over what was drawn before.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::screen::{Look, render};
use super::{Asked, StatusArgs, ask};
use crate::cli::admin_client::AskError;
use crate::cli::output::report;
use crate::cli::terminal::{self, Tone};
use crate::cli::{EXIT_FAILED, EXIT_GOOD};

/// From one status to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// The terminal's other screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// And back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Runs until a signal ends it.
pub(super) fn run(args: &StatusArgs) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let end = runtime.block_on(watch(args));
    // Somebody may still be asking.
    runtime.shutdown_background();
    match end {
        Ok(()) => EXIT_GOOD,
        // Who read it has gone, as with `| head`.
        Err(End::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_GOOD,
        Err(end) => failed(&end.to_string()),
    }
}

fn failed(why: &str) -> u8 {
    report(&format!("svidecar: {why}"));
    EXIT_FAILED
}

#[derive(Debug, thiserror::Error)]
enum End {
    #[error("cannot write: {0}")]
    Output(io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Ask(AskError),
}

/// Every signal that asks for the end.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

async fn watch(args: &StatusArgs) -> Result<(), End> {
    let mut signals = Signals::new().map_err(End::Signals)?;
    let mut drawn: Option<Drawing> = None;
    let mut last: Option<Asked> = None;
    loop {
        let due = Instant::now() + PERIOD;
        let question = args.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&question));
        let asked = tokio::select! {
            asked = asked => asked,
            () = signals.next() => return Ok(()),
        };
        let answer = match asked {
            Ok(answer) => answer,
            // It panicked, which says itself what it is.
            Err(_) => return Ok(()),
        };
        match (answer, &last) {
            (Ok(asked), _) => {
                let drawing = match &mut drawn {
                    Some(drawing) => drawing,
                    None => drawn.insert(Drawing::begin(args).map_err(End::Output)?),
                };
                drawing.draw(&asked, last.as_ref(), None).map_err(End::Output)?;
                last = Some(asked);
            }
            // A sidecar that is started anew is waited for.
            (Err(error), Some(asked)) => {
                if let Some(drawing) = &mut drawn {
                    let why = Some(error.to_string());
                    drawing.draw(asked, None, why.as_deref()).map_err(End::Output)?;
                }
            }
            (Err(error), None) => return Err(End::Ask(error)),
        }
        tokio::select! {
            () = sleep_until(due) => {}
            () = signals.next() => return Ok(()),
        }
    }
}

/// What is drawn on; a terminal is left as it was found.
struct Drawing {
    json: bool,
    terminal: bool,
    color: bool,
}

impl Drawing {
    fn begin(args: &StatusArgs) -> io::Result<Self> {
        let drawing = Self {
            json: args.json,
            terminal: io::stdout().is_terminal() && !args.json,
            color: terminal::wants_color(),
        };
        if drawing.terminal {
            write(ENTER)?;
        }
        Ok(drawing)
    }

    /// Draws a status, or the last one with why there is none.
    fn draw(&mut self, asked: &Asked, before: Option<&Asked>, gone: Option<&str>) -> io::Result<()> {
        if self.json {
            // What was said before is not said again.
            return match gone {
                None => write(&format!("{}\n", asked.status)),
                Some(why) => {
                    report(&format!("svidecar: {why}"));
                    Ok(())
                }
            };
        }
        let size = if self.terminal { terminal::size() } else { None };
        let look = Look {
            width: size.map(|(columns, _)| columns),
            // The last row is for what is wrong.
            rows: size.map(|(_, rows)| rows.saturating_sub(1)),
            color: self.color,
        };
        let mut text = render(asked, before.map(|asked| &asked.status), look);
        if let Some(why) = gone {
            text.push_str(&look.line(Some(Tone::Bad), &terminal::harmless(why)));
        }
        write(&if self.terminal { over(&text) } else { text + "\n" })
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        if self.terminal {
            // Nothing can be done about a terminal that is gone.
            let _ = write(LEAVE);
        }
    }
}

/// The text over what was there: each line to its end, and nothing below the last.
fn over(text: &str) -> String {
    let lines = text.trim_end().replace('\n', "\x1b[K\n");
    format!("\x1b[H{lines}\x1b[K\x1b[J")
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_leaves_nothing_of_the_one_before() {
        assert_eq!(over("one\ntwo\n"), "\x1b[Hone\x1b[K\ntwo\x1b[K\x1b[J");
    }
}
