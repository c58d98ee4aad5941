//! Addresses as people write them: `IP:port`, `[IPv6]:port`, `host:port`, `unix:///path`, and, for the Workload API,
//! `tcp://IP:port`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::settings::{Address, Target};

/// The longest path that a socket address holds (`sun_path` less its final zero).
const MAX_UNIX_PATH: usize = 107;

/// Why a text is no address. The message is complete without the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither `IP:port` nor `unix:///path`.
    #[error("an address is `IP:port`, `[IPv6]:port` or `unix:///path`")]
    Form,
    /// A host name where an IP address must be.
    #[error("an IP address is needed here, no host name")]
    HostName,
    /// `:8443` without an address.
    #[error(
        "the IP address is missing: `0.0.0.0{0}` listens on all of IPv4, `127.0.0.1{0}` on loopback only"
    )]
    NoAddress(String),
    /// No port, or none from 0 to 65535.
    #[error("the port is missing or not a number up to 65535")]
    Port,
    /// Port 0 where something must be dialled.
    #[error("port 0 cannot be dialled")]
    PortZero,
    /// An IPv6 address without its brackets.
    #[error("an IPv6 address with a port stands in brackets: `[::1]:8443`")]
    Brackets,
    /// The host part is neither an IP address nor a DNS name.
    #[error("the host is neither an IP address nor a DNS name")]
    Host,
    /// A unix socket path that is relative, or an authority in a unix URI.
    #[error("a unix socket is written `unix:///absolute/path`")]
    UnixPath,
    /// The path does not fit into a socket address.
    #[error("a unix socket's path has at most {MAX_UNIX_PATH} bytes")]
    UnixPathTooLong,
    /// Characters that mean something else in a URI.
    #[error("`%`, `?` and `#` have no place in a socket's address")]
    UriParts,
    /// A scheme other than those that a Workload API address may have.
    #[error("a Workload API address is `unix:///path` or `tcp://IP:port`")]
    WorkloadApiScheme,
}

/// The address of a Workload API, as in `SPIFFE_ENDPOINT_SOCKET` (SPIFFE Workload Endpoint, section 4): a URI with
/// scheme `unix` and an absolute path, or `tcp` with an IP address and a port, and nothing else.
///
/// # Errors
/// What the text lacks.
pub fn workload_api(text: &str) -> Result<Address, AddressError> {
    if let Some(rest) = text.strip_prefix("tcp://") {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', '%']) {
            return Err(AddressError::WorkloadApiScheme);
        }
        let address = ip_and_port(rest)?;
        return if address.port() == 0 {
            Err(AddressError::PortZero)
        } else {
            Ok(Address::Tcp(address))
        };
    }
    match unix_path(text) {
        Some(path) => path.map(Address::Unix),
        None => Err(AddressError::WorkloadApiScheme),
    }
}

/// An address to listen on: `IP:port` or `unix:///path`.
///
/// # Errors
/// What the text lacks.
pub fn listen(text: &str) -> Result<Address, AddressError> {
    match unix_path(text) {
        Some(path) => path.map(Address::Unix),
        None => ip_and_port(text).map(Address::Tcp),
    }
}

/// An `IP:port`; IPv4-mapped IPv6 addresses become IPv4.
///
/// # Errors
/// What the text lacks.
pub fn ip_and_port(text: &str) -> Result<SocketAddr, AddressError> {
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Err(_) => Err(match host_and_port(text) {
            Ok(_) => AddressError::HostName,
            Err(error) => error,
        }),
    }
}

/// A place to connect to: `IP:port`, `host:port` or `unix:///path`.
///
/// # Errors
/// What the text lacks.
pub fn target(text: &str) -> Result<Target, AddressError> {
    if let Some(path) = unix_path(text) {
        return path.map(Target::Unix);
    }
    let target = match text.parse::<SocketAddr>() {
        Ok(address) => Target::Ip(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Err(_) => {
            let (host, port) = host_and_port(text)?;
            Target::Name(host.to_ascii_lowercase(), port)
        }
    };
    match &target {
        Target::Ip(address) if address.port() == 0 => Err(AddressError::PortZero),
        Target::Name(_, 0) => Err(AddressError::PortZero),
        _ => Ok(target),
    }
}

/// Whether a text is a DNS name that can be looked up and sent as a server name: labels of letters, digits, `-` and
/// `_`, the last of which is no number (or it would be read as an IPv4 address).
#[must_use]
pub fn is_dns_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label_ok) && !last_is_number
}

/// The path of a unix URI; `None` for what does not begin with `unix:`.
fn unix_path(text: &str) -> Option<Result<PathBuf, AddressError>> {
    let rest = text.strip_prefix("unix:")?;
    // `unix:/path` is the same URI as `unix:///path`; `unix://host/path` has an authority, which none may have.
    let path = rest.strip_prefix("//").unwrap_or(rest);
    Some(
        if !path.starts_with('/') || path.len() < 2 || path.ends_with('/') || path.contains('\0') {
            Err(AddressError::UnixPath)
        } else if path.contains(['%', '?', '#']) {
            Err(AddressError::UriParts)
        } else if path.len() > MAX_UNIX_PATH {
            Err(AddressError::UnixPathTooLong)
        } else {
            Ok(PathBuf::from(path))
        },
    )
}

fn host_and_port(text: &str) -> Result<(&str, u16), AddressError> {
    if text.contains("://") || text.starts_with('/') {
        return Err(AddressError::Form);
    }
    if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return Err(AddressError::Brackets);
    }
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::Port)?;
    // `u16::from_str` takes a sign, which no port has.
    let port = match port.parse::<u16>() {
        Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => number,
        _ => return Err(AddressError::Port),
    };
    if host.is_empty() {
        return Err(AddressError::NoAddress(text.to_owned()));
    }
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return Err(AddressError::Brackets);
    }
    if is_dns_name(host) {
        Ok((host, port))
    } else {
        Err(AddressError::Host)
    }
}
