//! PROXY headers of an inbound connection: the one that a load balancer sends before TLS, and the one that the
//! application gets before the caller's first byte.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::Serving;
use crate::config::settings::ProxyProtocol;
use crate::proxy_protocol::{
    Caller, MAX_HEADER, Malformed, Origin, Progress, Ssl, encode_v1, encode_v2, parse,
};
use crate::record::{Ending, PeerAddr, Reason};
use crate::sys::stream::Stream;
use crate::tls::handshake::Agreed;

/// What is read at a time: the header and, as a rule, the ClientHello behind it.
const READ_SIZE: usize = 4096;

/// Reads the header of a load balancer, which is believed, and returns what was read beyond it.
pub(super) async fn read_header(
    serving: &mut Serving<'_>,
    stream: &mut Stream,
    deadline: Instant,
) -> Result<Vec<u8>, Ending> {
    let header = tokio::select! {
        header = timeout_at(deadline, read(stream)) => header.unwrap_or_else(|_| {
            let limit = serving.worker.live.terms().limits.handshake_timeout.as_millis();
            Err(bad(format!("no whole PROXY header came within {limit} ms")))
        }),
        () = serving.worker.drain.forced() => Err(serving.forced()),
    };
    let (origin, beyond) = header?;
    if let Origin::Of { source, destination } = origin {
        serving.draft.source = Some(PeerAddr::from(source));
        // As the source is: an application and a policy must be told the same.
        serving.reached = Some(SocketAddr::new(
            destination.ip().to_canonical(),
            destination.port(),
        ));
    }
    Ok(beyond)
}

async fn read(stream: &mut Stream) -> Result<(Origin, Vec<u8>), Ending> {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes) {
            Ok(Progress::Complete { origin, length }) => {
                bytes.drain(..length);
                return Ok((origin, bytes));
            }
            Ok(Progress::Incomplete) => {}
            Err(error) => return Err(bad(malformed(&bytes, error))),
        }
        debug_assert!(bytes.len() < MAX_HEADER, "a header that never ends");
        bytes.reserve(READ_SIZE);
        let left = match stream.read_buf(&mut bytes).await {
            Ok(1..) => continue,
            Ok(0) => "closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(if bytes.is_empty() {
            // What a health check does that only looks whether the port is open.
            let detail = format!("the load balancer left before the PROXY header's first byte: {left}");
            Ending::with(Reason::HandshakeAborted, detail)
        } else {
            bad(format!(
                "the load balancer left in the middle of the PROXY header: {left}"
            ))
        });
    }
}

fn bad(detail: String) -> Ending {
    Ending::with(Reason::ProxyHeader, detail)
}

fn malformed(bytes: &[u8], error: Malformed) -> String {
    // The first byte of a TLS handshake record: the likeliest mistake.
    if error == Malformed::Beginning && bytes.first() == Some(&22) {
        return "the peer is in `accept_proxy_from` and began with TLS, without a PROXY header".to_owned();
    }
    format!("the peer is in `accept_proxy_from` and sent no good PROXY header: {error}")
}

/// What the application is sent first; nothing where it is not told who calls.
pub(super) fn header_for_application(
    protocol: Option<ProxyProtocol>,
    serving: &Serving<'_>,
    stream: &Stream,
    agreed: &Agreed,
) -> Result<Vec<u8>, Ending> {
    let Some(protocol) = protocol else {
        return Ok(Vec::new());
    };
    let unencodable = |why: &str| Ending::with(Reason::ProxyUnencodable, why);
    let source = match serving.draft.source() {
        PeerAddr::Ip(ip, port) => Some(SocketAddr::new(ip, port)),
        PeerAddr::Unix => None,
    };
    let addresses = match source {
        Some(source) => {
            let reached = serving.reached.or_else(|| stream.local_addr());
            let reached =
                reached.ok_or_else(|| unencodable("the address that the caller reached is not known"))?;
            Some((source, reached))
        }
        None => None,
    };
    match (protocol, addresses) {
        (ProxyProtocol::V1, Some((source, destination))) => Ok(encode_v1(source, destination)),
        // Refused where the config is read; if it came to it, nobody is forwarded untold.
        (ProxyProtocol::V1, None) => Err(unencodable(
            "version 1 cannot tell of a caller without an address",
        )),
        (ProxyProtocol::V2 { spiffe_id_tlv }, addresses) => {
            let peer_id = serving.draft.peer_id.as_deref();
            let peer_id = peer_id
                .ok_or_else(|| unencodable("the caller's SPIFFE ID is not known"))?
                .to_string();
            // The verdict that let it in: what log, records and API find it by.
            let verdict = serving.draft.admission.map(|id| id.to_string());
            let caller = Caller {
                alpn: agreed.alpn.as_deref(),
                authority: agreed.server_name.as_deref(),
                unique_id: verdict.as_ref().map(String::as_bytes),
                ssl: Some(Ssl {
                    version: "TLSv1.3",
                    cipher: agreed.suite,
                    resumed: serving.draft.resumed == Some(true),
                }),
                custom: Some((spiffe_id_tlv, peer_id.as_bytes())),
            };
            encode_v2(addresses, &caller).map_err(|error| unencodable(&error.to_string()))
        }
    }
}
