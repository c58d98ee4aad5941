//! Moves the bytes of an admitted connection. [`relay::run`] is the whole interface: it takes a permit, the two
//! sockets and the TLS session, and returns how the connection ended.

mod buffer;
pub mod meter;
pub mod relay;
