//! Moves the bytes of an admitted connection. There are two ways, made of the same halves (`incoming`, `outgoing`)
//! and each asking for a permit: [`relay::run`] takes two sockets and the TLS session and returns how the connection
//! ended; [`stream::TlsStream`] is the session as a stream, for a protocol that is spoken here. Beside them,
//! [`plain::run`] moves what the settings want passed on unprotected.

mod buffer;
mod incoming;
mod last_words;
pub mod meter;
mod outgoing;
pub mod pace;
pub mod plain;
pub mod relay;
pub mod renewing;
pub mod stream;
#[cfg(test)]
mod testing;

pub use last_words::refuse;

use std::task::Context;

/// Has the task polled again, but only when the thread has looked at its sockets: waking it at once would let one busy
/// connection run many turns before others are seen to be ready.
fn give_way(cx: &mut Context<'_>) {
    let yielding = std::pin::pin!(tokio::task::yield_now());
    // The first poll hands the waker to the runtime and is always pending.
    let _ = yielding.poll(cx);
}
