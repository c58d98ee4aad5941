//! TLS 1.3 between sidecars: who is at the other end?

pub mod verify;
