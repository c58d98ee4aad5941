//! Writing a header, for an application that wants to know who calls.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{SIGNATURE, tlv};

/// `PP2_CLIENT_SSL`: the caller came over TLS.
const CLIENT_SSL: u8 = 0x01;
/// `PP2_CLIENT_CERT_CONN`: it presented its certificate on this connection.
const CLIENT_CERT_CONN: u8 = 0x02;
/// `PP2_CLIENT_CERT_SESS`: it presented its certificate at least once in this TLS session.
const CLIENT_CERT_SESS: u8 = 0x04;

/// What the application is told, beside the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The application protocol that was negotiated.
    pub alpn: Option<&'a [u8]>,
    /// The server name that the caller sent.
    pub authority: Option<&'a str>,
    /// What tells this connection from all others, 128 bytes at most.
    pub unique_id: Option<&'a [u8]>,
    /// The TLS connection.
    pub ssl: Option<Ssl<'a>>,
    /// A field of a type of one's own.
    pub custom: Option<(u8, &'a [u8])>,
}

/// What is told of a TLS connection whose caller presented a certificate that was verified (section 2.2.6). The common
/// name of that certificate is not: nobody verified it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssl<'a> {
    /// Such as `TLSv1.3`.
    pub version: &'a str,
    /// Such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'a str,
    /// Whether an earlier session was resumed, in which alone the certificate was presented.
    pub resumed: bool,
}

/// A field is longer than the format can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than a PROXY header can hold")]
pub struct TooLong;

/// The line of version 1 (section 2.1). It carries addresses and nothing else.
#[must_use]
pub fn encode_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let line = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => format!(
            "PROXY TCP4 {from} {to} {} {}\r\n",
            source.port(),
            destination.port()
        ),
        (from, to) => format!(
            "PROXY TCP6 {} {} {} {}\r\n",
            hexadecimal(from),
            hexadecimal(to),
            source.port(),
            destination.port()
        ),
    };
    line.into_bytes()
}

/// An IPv6 address in hexadecimal throughout. An address that holds an IPv4 one is elsewhere written with dots, which
/// section 2.1 does not know.
fn hexadecimal(ip: IpAddr) -> String {
    let ip = mapped(ip);
    if ip.to_ipv4_mapped().is_none() {
        return ip.to_string();
    }
    ip.segments().map(|segment| format!("{segment:x}")).join(":")
}

/// As IPv6: where one of two addresses is IPv6, the other is told as an IPv4-mapped one, as HAProxy does.
fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The header of version 2 (section 2.2). Without addresses, which a caller over a unix socket has not, the family is
/// `UNSPEC`: the one that every receiver must take.
///
/// # Errors
/// [`TooLong`].
pub fn encode_v2(
    addresses: Option<(SocketAddr, SocketAddr)>,
    caller: &Caller<'_>,
) -> Result<Vec<u8>, TooLong> {
    let mut header = SIGNATURE.to_vec();
    // Version 2, PROXY.
    header.push(0x21);
    let addresses = addresses.map(|(source, destination)| {
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [&from.octets(), &to.octets(), &*ports].concat()),
            (from, to) => (
                0x21,
                [&mapped(from).octets(), &mapped(to).octets(), &*ports].concat(),
            ),
        }
    });
    let (family, mut block) = addresses.unwrap_or((0x00, Vec::new()));
    header.push(family);
    if let Some(alpn) = caller.alpn {
        field(&mut block, tlv::ALPN, alpn)?;
    }
    if let Some(authority) = caller.authority {
        field(&mut block, tlv::AUTHORITY, authority.as_bytes())?;
    }
    if let Some(id) = caller.unique_id {
        field(&mut block, tlv::UNIQUE_ID, id)?;
    }
    if let Some(ssl) = &caller.ssl {
        field(&mut block, tlv::SSL, &ssl_value(ssl)?)?;
    }
    if let Some((kind, value)) = caller.custom {
        field(&mut block, kind, value)?;
    }
    let length = u16::try_from(block.len()).map_err(|_| TooLong)?;
    header.extend_from_slice(&length.to_be_bytes());
    header.append(&mut block);
    Ok(header)
}

fn ssl_value(ssl: &Ssl<'_>) -> Result<Vec<u8>, TooLong> {
    let presented_now = if ssl.resumed { 0 } else { CLIENT_CERT_CONN };
    // Zero in `verify` says that the certificate was verified.
    let mut value = vec![CLIENT_SSL | CLIENT_CERT_SESS | presented_now, 0, 0, 0, 0];
    field(&mut value, tlv::SSL_VERSION, ssl.version.as_bytes())?;
    field(&mut value, tlv::SSL_CIPHER, ssl.cipher.as_bytes())?;
    Ok(value)
}

fn field(block: &mut Vec<u8>, kind: u8, value: &[u8]) -> Result<(), TooLong> {
    let length = u16::try_from(value.len()).map_err(|_| TooLong)?;
    block.push(kind);
    block.extend_from_slice(&length.to_be_bytes());
    block.extend_from_slice(value);
    Ok(())
}
