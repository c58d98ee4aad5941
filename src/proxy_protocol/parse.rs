//! Reading a header: incremental, and strict. Both versions are taken from whoever may send one at all (section 2: that
//! is configured, never guessed), since their beginnings cannot be confused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::crc32c::crc32c;
use super::{FIXED, MAX_LINE, SIGNATURE, tlv};

/// The longest header that is read. The specification's own aim is 536 bytes, the least that a TCP host takes at once
/// (section 2); fields that senders add since, certificates among them, do not fit. As much as nginx takes.
pub const MAX_HEADER: usize = 4096;

const PROXY: &[u8] = b"PROXY ";

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The sender passes on somebody's connection.
    Of {
        /// Who called.
        source: SocketAddr,
        /// The address that was called.
        destination: SocketAddr,
    },
    /// The sender speaks for itself (`LOCAL`: a health check), or does not know for whom (`UNKNOWN`, `UNSPEC`, and what
    /// is no TCP connection): the addresses of the real connection hold.
    Sender,
}

/// How far the header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What is there may become a header.
    Incomplete,
    /// The header is whole.
    Complete {
        /// What it says.
        origin: Origin,
        /// How many bytes it takes; what follows is not the header's.
        length: usize,
    },
}

/// What can be no header, however much follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It begins neither as version 1 nor as version 2.
    #[error("it does not begin as one")]
    Beginning,
    /// A line without CRLF in its first 107 bytes, or with a bare CR or LF.
    #[error("version 1: no CRLF where the line must end")]
    Line,
    /// None of `TCP4`, `TCP6`, `UNKNOWN`.
    #[error("version 1: the protocol is none of TCP4, TCP6 and UNKNOWN")]
    Protocol,
    /// An address, or the number of fields.
    #[error("version 1: not two addresses of the protocol and two ports, one space between each")]
    Address,
    /// A port.
    #[error("version 1: a port is no decimal number from 0 to 65535")]
    Port,
    /// Another version than 2, or another command than LOCAL and PROXY.
    #[error("version 2: unknown version or command {0:#04x}")]
    Command(u8),
    /// A combination that section 2.2 does not name.
    #[error("version 2: unknown address family or transport {0:#04x}")]
    Family(u8),
    /// The length is less than the addresses take.
    #[error("version 2: the length is less than the addresses take")]
    Length,
    /// More than [`MAX_HEADER`].
    #[error("version 2: longer than {MAX_HEADER} bytes")]
    TooLong,
    /// A field reaches beyond the header, or a checksum is not four bytes, or there are two.
    #[error("version 2: a field (TLV) is broken")]
    Field,
    /// The CRC-32C is another one.
    #[error("version 2: the checksum is wrong")]
    Checksum,
}

/// Reads a header from the beginning of a connection.
///
/// # Errors
/// [`Malformed`], as soon as it is certain.
pub fn parse(bytes: &[u8]) -> Result<Progress, Malformed> {
    if begins(bytes, SIGNATURE) {
        version_2(bytes)
    } else if begins(bytes, PROXY) {
        version_1(bytes)
    } else {
        Err(Malformed::Beginning)
    }
}

/// Whether `bytes` are a beginning of `whole`, or the reverse.
fn begins(bytes: &[u8], whole: &[u8]) -> bool {
    bytes.iter().zip(whole).all(|(a, b)| a == b)
}

fn version_1(bytes: &[u8]) -> Result<Progress, Malformed> {
    let window = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let end = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let (line, rest) = match end {
        Some(end) => window.split_at_checked(end).unwrap_or_default(),
        None if window.len() == MAX_LINE => return Err(Malformed::Line),
        None => return Ok(Progress::Incomplete),
    };
    match *rest {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if window.len() < MAX_LINE => return Ok(Progress::Incomplete),
        _ => return Err(Malformed::Line),
    }
    let origin = read_line(line.get(PROXY.len()..).unwrap_or_default())?;
    Ok(Progress::Complete {
        origin,
        length: line.len() + 2,
    })
}

/// The line behind `PROXY `.
fn read_line(line: &[u8]) -> Result<Origin, Malformed> {
    let mut fields = line.split(|byte| *byte == b' ');
    let address: fn(&[u8]) -> Option<IpAddr> = match fields.next() {
        Some(b"TCP4") => |field| Some(text(field)?.parse::<Ipv4Addr>().ok()?.into()),
        Some(b"TCP6") => |field| Some(text(field)?.parse::<Ipv6Addr>().ok()?.into()),
        // Whatever follows is to be ignored.
        Some(b"UNKNOWN") => return Ok(Origin::Sender),
        _ => return Err(Malformed::Protocol),
    };
    let mut next = || fields.next().ok_or(Malformed::Address);
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (next()?, next()?);
    if fields.next().is_some() {
        return Err(Malformed::Address);
    }
    let read = |ip, port| {
        let ip = address(ip).ok_or(Malformed::Address)?;
        Ok(SocketAddr::new(ip, decimal(port).ok_or(Malformed::Port)?))
    };
    Ok(Origin::Of {
        source: read(source, source_port)?,
        destination: read(destination, destination_port)?,
    })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// A port: digits alone, and no zero before another digit.
fn decimal(field: &[u8]) -> Option<u16> {
    let zero_first = field.len() > 1 && field.first() == Some(&b'0');
    if zero_first || !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text(field)?.parse().ok()
}

fn version_2(bytes: &[u8]) -> Result<Progress, Malformed> {
    let local = match bytes.get(SIGNATURE.len()) {
        Some(0x20) => true,
        Some(0x21) => false,
        Some(other) => return Err(Malformed::Command(*other)),
        None => return Ok(Progress::Incomplete),
    };
    let Some(&family) = bytes.get(SIGNATURE.len() + 1) else {
        return Ok(Progress::Incomplete);
    };
    // What LOCAL says of a family is to be ignored.
    let addresses = if local { 0 } else { length_of(family)? };
    let Some(&[.., high, low]) = bytes.first_chunk::<FIXED>() else {
        return Ok(Progress::Incomplete);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER {
        return Err(Malformed::TooLong);
    }
    if length < FIXED + addresses {
        return Err(Malformed::Length);
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(Progress::Incomplete);
    };
    let origin = if local {
        // The block is to be discarded, whatever it is.
        Origin::Sender
    } else {
        check_fields(header, FIXED + addresses)?;
        read_addresses(family, header.get(FIXED..).unwrap_or_default())
    };
    Ok(Progress::Complete { origin, length })
}

/// How long the addresses of a family are.
fn length_of(family: u8) -> Result<usize, Malformed> {
    match family {
        0x00 => Ok(0),
        0x11 | 0x12 => Ok(2 * 4 + 2 * 2),
        0x21 | 0x22 => Ok(2 * 16 + 2 * 2),
        0x31 | 0x32 => Ok(2 * 108),
        _ => Err(Malformed::Family(family)),
    }
}

/// The addresses of a TCP connection. Another one is valid and not supported, which means the same as `UNSPEC`
/// (section 2.2): datagrams and unix sockets do not become TLS over TCP.
fn read_addresses(family: u8, block: &[u8]) -> Origin {
    let port = |[high, low]: [u8; 2]| u16::from_be_bytes([high, low]);
    match family {
        0x11 => take::<4>(block).and_then(|(source, rest)| {
            let (destination, rest) = take::<4>(rest)?;
            let (source_port, rest) = take::<2>(rest)?;
            let (destination_port, _) = take::<2>(rest)?;
            Some(Origin::Of {
                source: (Ipv4Addr::from(source), port(source_port)).into(),
                destination: (Ipv4Addr::from(destination), port(destination_port)).into(),
            })
        }),
        0x21 => take::<16>(block).and_then(|(source, rest)| {
            let (destination, rest) = take::<16>(rest)?;
            let (source_port, rest) = take::<2>(rest)?;
            let (destination_port, _) = take::<2>(rest)?;
            Some(Origin::Of {
                source: (Ipv6Addr::from(source), port(source_port)).into(),
                destination: (Ipv6Addr::from(destination), port(destination_port)).into(),
            })
        }),
        _ => None,
    }
    .unwrap_or(Origin::Sender)
}

fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    Some((*first, rest))
}

/// Walks the fields behind the addresses, which are whole, and verifies the checksum if there is one. All else in them
/// is for others.
fn check_fields(header: &[u8], start: usize) -> Result<(), Malformed> {
    let mut checksum = None;
    let mut at = start;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..).and_then(<[u8]>::first_chunk) else {
            return Err(Malformed::Field);
        };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let Some(bytes) = header.get(value.clone()) else {
            return Err(Malformed::Field);
        };
        if kind == tlv::CRC32C {
            let Ok(bytes) = <[u8; 4]>::try_from(bytes) else {
                return Err(Malformed::Field);
            };
            if checksum
                .replace((value.clone(), u32::from_be_bytes(bytes)))
                .is_some()
            {
                return Err(Malformed::Field);
            }
        }
        at = value.end;
    }
    let Some((value, expected)) = checksum else {
        return Ok(());
    };
    let before = header.get(..value.start).unwrap_or_default();
    let behind = header.get(value.end..).unwrap_or_default();
    // Over the header with zeros in its place (section 2.2.3).
    if crc32c([before, &[0; 4], behind]) == expected {
        Ok(())
    } else {
        Err(Malformed::Checksum)
    }
}
