//! To whom: names are resolved and sockets connected.

pub mod dial;
pub mod resolve;
