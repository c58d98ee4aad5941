//! The commands: each reads its arguments, does its work with the library's parts, and answers with an exit code.

pub mod check;
pub mod explain;
mod output;
#[cfg(test)]
mod tests;

/// Bad usage or a bad configuration.
pub const EXIT_USAGE: u8 = 2;
/// `policy explain`: the peer is denied.
pub const EXIT_DENIED: u8 = 3;
