//! The commands: each reads its arguments, does its work with the library's parts, and answers with an exit code.

pub mod check;
pub mod explain;
mod output;
#[cfg(test)]
mod tests;

/// Everything is good.
pub const EXIT_GOOD: u8 = 0;
/// Something failed at run time.
pub const EXIT_FAILED: u8 = 1;
/// Bad usage or a bad configuration.
pub const EXIT_USAGE: u8 = 2;
/// `policy explain`: the peer is denied.
pub const EXIT_DENIED: u8 = 3;
