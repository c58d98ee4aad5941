//! TLS 1.3 between sidecars: who is at the other end, and what its records mean.

pub mod alert;
pub mod configs;
pub mod fips;
pub mod handshake;
mod present;
pub mod record;
pub mod renewal;
mod resumption;
pub mod session;
pub mod signing;
#[cfg(test)]
pub(crate) mod testing;
pub mod traffic;
pub mod verify;
