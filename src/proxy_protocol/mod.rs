//! The PROXY protocol, versions 1 and 2: what a load balancer says of a connection before its first byte, read
//! ([`mod@parse`]) and written ([`mod@encode`]). Bytes in, a header out, and back; no socket and no clock.
//!
//! Section numbers are those of HAProxy's specification, `doc/proxy-protocol.txt`, as of 2020-03-05.
//!
//! Own code and no crate, because the address in a header decides who is let in: what is read here is exactly what the
//! specification allows and nothing a number parser lets through beside it (`+443`, `0443`), what cannot become a header
//! is refused at its first wrong byte, and nothing is allocated for what is skipped.

mod crc32c;
mod encode;
mod parse;

pub use encode::{Caller, Ssl, TooLong, encode_v1, encode_v2};
pub use parse::{MAX_HEADER, Malformed, Origin, Progress, parse};

/// The twelve bytes that begin a header of version 2 (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of a header of version 2 up to the addresses.
const FIXED: usize = 16;
/// The longest line of version 1, CRLF included (section 2.1).
const MAX_LINE: usize = 107;

/// Type-length-value fields (sections 2.2.1 to 2.2.6).
mod tlv {
    pub(super) const ALPN: u8 = 0x01;
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const UNIQUE_ID: u8 = 0x05;
    pub(super) const SSL: u8 = 0x20;
    pub(super) const SSL_VERSION: u8 = 0x21;
    pub(super) const SSL_CIPHER: u8 = 0x23;
}

#[cfg(test)]
mod tests;
