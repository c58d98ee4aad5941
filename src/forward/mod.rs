//! Moves the bytes of an admitted connection. [`relay::run`] is the whole interface: it takes a permit, the two
//! sockets and the TLS session, and returns how the connection ended.

mod buffer;
mod incoming;
pub mod meter;
mod outgoing;
pub mod relay;
