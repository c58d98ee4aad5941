//! The `svidecar` program.

fn main() {}
