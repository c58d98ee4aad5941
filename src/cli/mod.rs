//! The commands. Each reads its arguments, does its work by the library, and says what came of it.

pub mod healthcheck;
