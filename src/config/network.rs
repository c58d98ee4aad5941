//! Networks as people write them, in the config and in policies.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// An address or a network. IPv4-mapped ones become IPv4, as the addresses do that they are compared with.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn network(text: &str) -> Result<IpNet, (String, String)> {
    let parsed = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| {
            let message = format!("`{text}` is neither an IP address nor a network");
            (
                message,
                "for example `10.0.0.0/8`, `10.1.2.3` or `fd00::/8`".to_owned(),
            )
        })?),
    };
    if parsed.trunc() != parsed {
        let message = format!("`{text}` has bits set beyond its prefix");
        let help = format!(
            "write `{}` for the network, `{}` for the address",
            parsed.trunc(),
            parsed.addr()
        );
        return Err((message, help));
    }
    let IpNet::V6(v6) = parsed else { return Ok(parsed) };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => {
            // The prefix is at most 128 - 96.
            Ipv4Net::new(v4, prefix)
                .map(IpNet::V4)
                .map_err(|error| (error.to_string(), String::new()))
        }
        _ => Ok(parsed),
    }
}
