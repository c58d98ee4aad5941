//! PROXY headers: what is believed from whom, and what the application is told. Load balancers are addresses of loopback:
//! 127.0.0.2 and 127.0.0.3 are listed, others are not.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use rustls::AlertDescription;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::peers::{Client, client_config, connect, expect_alert, handshake_client};
use crate::plain::{exchange, expect_reset, read_error, unix_door};
use crate::support::net::free_address;
use crate::support::process::{Mark, Process};
use crate::support::{SOON, eventually_ok, skip};
use crate::world::{Identity, Inbound, InboundSetup, STOREFRONT};

const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const UNLISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const ACCEPT: &str = "    accept_proxy_from: [127.0.0.2/31]\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Admits by address alone, so that what is believed of it shows.
const FROM_PARTNERS: &str = "rules:\n  - name: partners\n    action: allow\n    source: [203.0.113.0/24]\n  - name: listed\n    \
                             action: allow\n    source: [127.0.0.2]\n";
const PARTNER: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";

fn believing() -> Inbound {
    InboundSetup {
        policy: Some(FROM_PARTNERS),
        listener: ACCEPT,
        ..InboundSetup::default()
    }
    .start()
}

/// Connects from this address of loopback.
pub(crate) fn call(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A caller behind the listed load balancer, which says this of it.
fn call_through(header: &[u8], scene: &Inbound) -> Client {
    let mut stream = call(LISTED, scene.tls);
    stream.write_all(header).unwrap();
    shake(stream, &scene.api.peer(STOREFRONT))
}

pub(crate) fn shake(stream: TcpStream, identity: &Identity) -> Client {
    handshake_client(stream, client_config(Some(identity)), "orders.example.org").unwrap()
}

/// Neither TLS nor the application has heard anything of it.
fn expect_refused(mut stream: TcpStream, scene: &Inbound, mark: Mark, reason: &str) -> Value {
    expect_reset(&mut stream);
    let record = scene.sidecar.wait_record(mark, &[("reason", reason)]);
    assert_eq!(record["verdict"], "none", "{record}");
    assert_eq!(scene.app.accepted(), 0);
    record
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length[..], block].concat()
}

/// 203.0.113.8:4711 called 198.51.100.1:443.
fn partner_v2() -> Vec<u8> {
    v2(
        0x21,
        0x11,
        &[203, 0, 113, 8, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb],
    )
}

#[test]
fn policy_decides_by_the_address_that_a_listed_load_balancer_names() {
    let scene = believing();
    for (header, source) in [
        (PARTNER.to_vec(), "203.0.113.7:4711"),
        (partner_v2(), "203.0.113.8:4711"),
        (
            b"PROXY TCP6 ::ffff:cb00:7107 ::1 9 443\r\n".to_vec(),
            "203.0.113.7:9",
        ),
    ] {
        let mark = scene.sidecar.mark();
        let mut client = call_through(&header, &scene);
        let mut app = scene.app.accept();
        exchange(&mut client, &mut app, "hello");
        let shown = scene.sidecar.get("/api/v1/connections").unwrap().json();
        assert_eq!(shown["connections"][0]["source"], source, "{shown}");
        drop((client, app));
        let record = scene.sidecar.wait_record(mark, &[("rule", "partners")]);
        let ip = source.parse::<SocketAddr>().unwrap().ip();
        assert_eq!(record["source"], ip.to_string(), "{record}");
        let balancer = record["peer_addr"].as_str().unwrap();
        assert!(balancer.starts_with("127.0.0.2:"), "{record}");
    }
    // Somebody else's address: the load balancer's own does not help.
    let mark = scene.sidecar.mark();
    let mut client = call_through(b"PROXY TCP4 192.0.2.1 198.51.100.1 1 443\r\n", &scene);
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let record = scene.sidecar.wait_record(mark, &[("reason", "no_allow_rule")]);
    assert_eq!(record["source"], "192.0.2.1", "{record}");
}

#[test]
fn a_new_policy_judges_open_connections_by_the_believed_address() {
    let scene = believing();
    let mut client = call_through(PARTNER, &scene);
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    let mark = scene.sidecar.mark();
    // Still admits the load balancer's address, and that of the other partner.
    scene.sidecar.set_policy(
        "rules:\n  - name: partners\n    action: allow\n    source: [203.0.113.8, 127.0.0.0/8]\n",
    );
    expect_alert(&mut client, AlertDescription::AccessDenied);
    scene.sidecar.wait_record(mark, &[("reason", "policy_change")]);
}

#[test]
fn a_load_balancer_speaks_for_itself_with_local_and_unknown() {
    let scene = believing();
    for header in [
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &[203, 0, 113, 8, 198, 51, 100, 1, 1, 2, 3, 4]),
        v2(0x21, 0x00, b""),
        b"PROXY UNKNOWN 203.0.113.7 198.51.100.1 1 2\r\n".to_vec(),
    ] {
        let mark = scene.sidecar.mark();
        let mut client = call_through(&header, &scene);
        exchange(&mut client, &mut scene.app.accept(), "hello");
        drop(client);
        let record = scene.sidecar.wait_record(mark, &[("rule", "listed")]);
        assert_eq!(record["source"], "127.0.0.2", "{record}");
    }
}

#[test]
fn nobody_else_can_claim_an_address() {
    let scene = believing();
    for header in [PARTNER.to_vec(), partner_v2()] {
        let mark = scene.sidecar.mark();
        let mut stream = call(UNLISTED, scene.tls);
        stream.write_all(&header).unwrap();
        let record = expect_refused(stream, &scene, mark, "not_tls");
        assert_eq!(record["source"], "127.0.0.9", "{record}");
    }
    // Who is not listed and says nothing is judged by where it comes from.
    let mut client = shake(call(UNLISTED, scene.tls), &scene.api.peer(STOREFRONT));
    expect_alert(&mut client, AlertDescription::AccessDenied);
}

#[test]
fn a_listed_load_balancer_that_sends_no_good_header_is_refused() {
    let scene = believing();
    for (bytes, detail) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(), "began with TLS"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "does not begin as one"),
        (
            b"PROXY TCP4 203.0.113.7 198.51.100.1 04711 443\r\n".to_vec(),
            "port",
        ),
        ([b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 500]].concat(), "CRLF"),
        (v2(0x22, 0x11, &[0; 12]), "command"),
        (v2(0x21, 0x11, &[0; 11]), "length"),
        (v2(0x21, 0x11, &[0; 8000]), "longer than"),
        (
            v2(
                0x21,
                0x11,
                &[
                    &[203, 0, 113, 8, 198, 51, 100, 1, 1, 2, 3, 4][..],
                    b"\x03\0\x04\0\0\0\0",
                ]
                .concat(),
            ),
            "checksum",
        ),
    ] {
        let mark = scene.sidecar.mark();
        let mut stream = call(LISTED, scene.tls);
        stream.write_all(&bytes).unwrap();
        let record = expect_refused(stream, &scene, mark, "proxy_header");
        assert_eq!(record["result"], "refused", "{record}");
        assert!(record["detail"].as_str().unwrap().contains(detail), "{record}");
        assert!(record["own_id"].is_string(), "{record}");
    }
    let refused = "svidecar_connections_total{listener=\"orders\",direction=\"inbound\",result=\"refused\",reason=\"proxy_header\"}";
    assert_eq!(scene.sidecar.metric(refused), Some(8.0));
}

#[test]
fn a_header_that_does_not_come_in_time_or_not_whole_is_refused() {
    let scene = InboundSetup {
        policy: Some(FROM_PARTNERS),
        listener: ACCEPT,
        settings: "limits: { handshake_timeout: 300ms }\n",
        ..InboundSetup::default()
    }
    .start();
    for sent in [&b""[..], &PARTNER[..PARTNER.len() - 1]] {
        let mark = scene.sidecar.mark();
        let mut stream = call(LISTED, scene.tls);
        stream.write_all(sent).unwrap();
        let record = expect_refused(stream, &scene, mark, "proxy_header");
        assert!(
            record["detail"].as_str().unwrap().contains("within 300 ms"),
            "{record}"
        );
    }
    // The time is for both: what a slow header took of it the handshake has not.
    let mark = scene.sidecar.mark();
    let mut stream = call(LISTED, scene.tls);
    stream.write_all(PARTNER).unwrap();
    let record = expect_refused(stream, &scene, mark, "handshake_timeout");
    assert_eq!(record["source"], "203.0.113.7", "{record}");

    let mark = scene.sidecar.mark();
    let mut stream = call(LISTED, scene.tls);
    stream.write_all(&PARTNER[..20]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    expect_refused(stream, &scene, mark, "proxy_header");
    // A health check that only looks whether the port is open.
    let mark = scene.sidecar.mark();
    drop(call(LISTED, scene.tls));
    scene
        .sidecar
        .wait_record(mark, &[("reason", "handshake_aborted")]);
}

/// Hands on every byte by itself, so that header and TLS come in all possible pieces.
struct OneByOne(TcpStream);

impl Write for OneByOne {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            self.0.write_all(&[*byte])?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Read for OneByOne {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(bytes)
    }
}

#[test]
fn a_header_and_what_follows_may_come_in_any_pieces() {
    let scene = believing();
    let identity = scene.api.peer(STOREFRONT);
    let client = |header: &[u8], together: bool| {
        let name = "orders.example.org".try_into().unwrap();
        let config = client_config(Some(&identity));
        let mut connection = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut stream = OneByOne(call(LISTED, scene.tls));
        if together {
            // One write for the header and the ClientHello: neither may lose a byte to the other.
            let mut first = header.to_vec();
            connection.write_tls(&mut first).unwrap();
            stream.0.write_all(&first).unwrap();
        } else {
            stream.write_all(header).unwrap();
        }
        let mut client = rustls::StreamOwned::new(connection, stream);
        client.flush().unwrap();
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock).unwrap();
        }
        exchange(&mut client, &mut scene.app.accept(), "hello");
    };
    for header in [PARTNER.to_vec(), partner_v2(), v2(0x20, 0, b"")] {
        client(&header, false);
        client(&header, true);
    }
}

/// What an application reads before the first byte of payload.
struct Told {
    family: u8,
    addresses: Vec<u8>,
    fields: Vec<(u8, Vec<u8>)>,
}

fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        found.push((*kind, value.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    found
}

impl Told {
    /// Reads exactly the header.
    fn read(from: &mut impl Read) -> Self {
        let mut fixed = [0; 16];
        from.read_exact(&mut fixed).unwrap();
        assert_eq!(&fixed[..12], SIGNATURE);
        assert_eq!(fixed[12], 0x21, "PROXY");
        let mut block = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
        from.read_exact(&mut block).unwrap();
        let length = match fixed[13] {
            0x11 => 12,
            0x21 => 36,
            _ => 0,
        };
        let (addresses, rest) = block.split_at(length);
        Self {
            family: fixed[13],
            addresses: addresses.to_vec(),
            fields: fields(rest),
        }
    }

    fn field(&self, kind: u8) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(other, _)| *other == kind);
        found.map(|(_, value)| &**value)
    }
}

fn octets(addr: SocketAddr) -> ([u8; 4], [u8; 2]) {
    let SocketAddr::V4(v4) = addr else {
        panic!("{addr}")
    };
    (v4.ip().octets(), v4.port().to_be_bytes())
}

fn as_block(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let ((from, from_port), (to, to_port)) = (octets(source), octets(destination));
    [&from[..], &to, &from_port, &to_port].concat()
}

#[test]
fn version_2_tells_the_application_who_calls() {
    let scene = InboundSetup {
        listener: "    proxy_protocol: v2\n    alpn: [postgresql]\n",
        ..InboundSetup::default()
    }
    .start();
    let mut config = client_config(Some(&scene.api.peer(STOREFRONT)));
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let config = std::sync::Arc::new(config);
    for resumed in [false, true] {
        let mark = scene.sidecar.mark();
        let stream = call(UNLISTED, scene.tls);
        let here = stream.local_addr().unwrap();
        let name = "orders.example.org".try_into().unwrap();
        let connection = rustls::ClientConnection::new(config.clone(), name).unwrap();
        let mut client = rustls::StreamOwned::new(connection, stream);
        client.flush().unwrap();
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock).unwrap();
        }
        let mut app = scene.app.accept();
        // Before the caller has sent a byte.
        let told = Told::read(&mut app);
        assert_eq!(told.family, 0x11);
        assert_eq!(told.addresses, as_block(here, scene.tls));
        assert_eq!(told.field(0x01), Some(&b"postgresql"[..]));
        assert_eq!(told.field(0x02), Some(&b"orders.example.org"[..]));
        assert_eq!(told.field(0xd0), Some(STOREFRONT.as_bytes()));
        let ssl = told.field(0x20).unwrap();
        // Over TLS, with a certificate in this session, and on this connection unless it was resumed; verified.
        assert_eq!(ssl[0], if resumed { 0b101 } else { 0b111 });
        assert_eq!(ssl[1..5], [0; 4]);
        let inner = fields(&ssl[5..]);
        assert_eq!(inner[0], (0x21, b"TLSv1.3".to_vec()));
        assert_eq!(inner[1].0, 0x23);
        assert!(inner[1].1.starts_with(b"TLS_"), "{inner:?}");
        exchange(&mut client, &mut app, "hello");
        client.conn.send_close_notify();
        client.conn.write_tls(&mut client.sock).unwrap();
        drop((client, app));
        let record = scene.sidecar.wait_record(mark, &[("peer_id", STOREFRONT)]);
        assert_eq!(record["resumed"], resumed, "{record}");
        // Payload alone is counted.
        assert_eq!(record["bytes_up"], 5, "{record}");
        let id = record["admission_id"].as_str().unwrap();
        assert_eq!(told.field(0x05), Some(id.as_bytes()), "{record}");
    }
}

#[test]
fn the_application_is_told_of_the_caller_behind_the_load_balancer() {
    let listener = format!("{ACCEPT}    proxy_protocol: {{ version: v2, spiffe_id_tlv: 0xE3 }}\n");
    let scene = InboundSetup {
        policy: Some(FROM_PARTNERS),
        listener: &listener,
        ..InboundSetup::default()
    }
    .start();
    let _client = call_through(PARTNER, &scene);
    let told = Told::read(&mut scene.app.accept());
    let (caller, called) = ("203.0.113.7:4711", "198.51.100.1:443");
    assert_eq!(
        told.addresses,
        as_block(caller.parse().unwrap(), called.parse().unwrap())
    );
    assert_eq!(told.field(0xe3), Some(STOREFRONT.as_bytes()));
    assert_eq!(told.field(0xd0), None);
    assert_eq!(told.field(0x01), None, "no ALPN was agreed on");
}

#[test]
fn version_1_tells_the_addresses() {
    let scene = InboundSetup {
        listener: "    proxy_protocol: v1\n",
        ..InboundSetup::default()
    }
    .start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let here = client.sock.local_addr().unwrap();
    let mut app = scene.app.accept();
    let line = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        here.port(),
        scene.tls.port()
    );
    let mut got = vec![0; line.len()];
    app.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), line);
    exchange(&mut client, &mut app, "hello");
}

#[test]
fn a_caller_over_a_unix_socket_is_told_of_without_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let (door, socket) = (folder.path().join("app.sock"), folder.path().join("in.sock"));
    let app = unix_door(&door);
    let settings = format!(
        "  - name: local\n    listen: unix://{}\n    upstream: unix://{}\n    proxy_protocol: v2\n",
        socket.display(),
        door.display()
    );
    let scene = InboundSetup {
        settings: &settings,
        ..InboundSetup::default()
    }
    .start();
    let name = "orders.example.org".try_into().unwrap();
    let config = client_config(Some(&scene.api.peer(STOREFRONT)));
    let connection = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut client = rustls::StreamOwned::new(connection, crate::plain::connect_unix(&socket));
    client.write_all(b"hello").unwrap();
    let mut app = app.recv_timeout(SOON).unwrap();
    let told = Told::read(&mut app);
    assert_eq!(told.family, 0x00);
    assert_eq!(told.field(0xd0), Some(STOREFRONT.as_bytes()));
    let mut hello = [0; 5];
    app.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
}

#[test]
fn an_application_that_was_not_told_gets_nothing() {
    let scene = InboundSetup {
        listener: "    proxy_protocol: v2\n    upstream: 127.0.0.1:1\n",
        ..InboundSetup::default()
    }
    .start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    expect_alert(&mut client, AlertDescription::InternalError);
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "connect_failed")]);
}

#[test]
fn who_is_behind_a_connection_to_the_application_can_be_asked() {
    let scene = InboundSetup::default().start();
    let mut open: Vec<_> = (0..3)
        .map(|_| {
            let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
            let mut app = scene.app.accept();
            exchange(&mut client, &mut app, "hello");
            (client, app)
        })
        .collect();
    let ask = |local: SocketAddr| {
        let path = format!("/api/v1/connections?local={local}");
        scene.sidecar.get(&path).unwrap().json()["connections"].clone()
    };
    for (client, app) in &open {
        let found = ask(app.peer_addr().unwrap());
        assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
        assert_eq!(found[0]["peer_id"], STOREFRONT);
        let caller = client.sock.local_addr().unwrap().to_string();
        assert_eq!(found[0]["peer_addr"], caller, "{found}");
        assert_eq!(found[0]["source"], caller, "{found}");
        assert_eq!(found[0]["local"], app.peer_addr().unwrap().to_string(), "{found}");
    }
    let gone = open.pop().map(|(_, app)| app.peer_addr().unwrap()).unwrap();
    eventually_ok("nobody behind a connection that ended", SOON, || {
        let found = ask(gone);
        found.as_array().unwrap().is_empty().then_some(()).ok_or(found)
    });
    assert_eq!(ask("127.0.0.1:1".parse().unwrap()), Value::Array(Vec::new()));
}

/// A real HAProxy, where there is one.
fn haproxy(config: &str) -> Option<Process> {
    if Command::new("haproxy").arg("-v").output().is_err() {
        skip("the PROXY protocol against HAProxy: no `haproxy` on PATH");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("haproxy.cfg");
    let config = format!(
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 20s\n  timeout server 20s\n{config}"
    );
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&path);
    let process = Process::start("haproxy", &mut command);
    // It reads the file once, before it listens; the folder must last until then.
    std::mem::forget(folder);
    Some(process)
}

#[test]
fn haproxy_reads_what_we_write() {
    let front = free_address();
    let config = format!(
        "frontend told\n  mode http\n  bind {front} accept-proxy\n  http-request return status 200 content-type text/plain lf-string \
         \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]\"\n"
    );
    let Some(_haproxy) = haproxy(&config) else { return };
    for (version, beyond) in [("v1", false), ("v2", true)] {
        let listener = format!("    proxy_protocol: {version}\n    upstream: {front}\n");
        let scene = InboundSetup {
            listener: &listener,
            ..InboundSetup::default()
        }
        .start();
        let answer = eventually_ok("an answer of HAProxy", SOON, || {
            let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
            client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            client.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>((answer, client.sock.local_addr()?))
        });
        let (answer, here) = answer;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let record = scene
            .sidecar
            .wait_record(Mark::default(), &[("peer_addr", &here.to_string())]);
        let told = if beyond {
            format!("orders.example.org {}", record["admission_id"].as_str().unwrap())
        } else {
            " ".to_owned()
        };
        assert_eq!(
            body.trim_end(),
            format!("{here} {} {told}", scene.tls).trim_end(),
            "{version}: {answer}"
        );
    }
}

#[test]
fn we_read_what_haproxy_writes() {
    for option in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,ssl",
    ] {
        let (scene, front) = (believing(), free_address());
        let config = format!(
            "listen before\n  bind {front}\n  server sidecar {} {option} source 127.0.0.2\n",
            scene.tls
        );
        let Some(_haproxy) = haproxy(&config) else { return };
        let mark = scene.sidecar.mark();
        // The address it names is ours, which no rule admits: refused by policy, so the header was believed.
        let (here, error) = eventually_ok("a verdict through HAProxy", SOON, || {
            let stream = TcpStream::connect(front)?;
            stream.set_read_timeout(Some(SOON))?;
            let here = stream.local_addr()?;
            let identity = scene.api.peer(STOREFRONT);
            let mut client = handshake_client(stream, client_config(Some(&identity)), "orders.example.org")?;
            Ok::<_, std::io::Error>((here, read_error(&mut client)))
        });
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "{option}: {error}");
        let record = scene.sidecar.wait_record(mark, &[("reason", "no_allow_rule")]);
        assert_eq!(record["source"], here.ip().to_string(), "{option}: {record}");
    }
}
