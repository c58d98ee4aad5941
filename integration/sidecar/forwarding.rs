//! Bytes arrive in order, once, and all, or the loss is shown.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use socket2::{Domain, Socket, Type};

use crate::peers::{accept, connect, expect_alert};
use crate::plain::{self, exchange, expect_reset, pass, read_to_end, reset};
use crate::support::process::Mark;
use crate::support::sidecar::Sidecar;
use crate::support::{SOON, eventually};
use crate::world::{InboundSetup, ORDERS, OutboundSetup, Pair, STOREFRONT};

const MIB: usize = 1 << 20;

/// Bytes that do not repeat, the same for the same seed: both ends make them, none keeps them.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

fn write_noise(to: &mut impl Write, seed: u64, length: usize, written: &AtomicU64) -> io::Result<()> {
    let (mut noise, mut chunk) = (Noise(seed), vec![0; 1 << 16]);
    for _ in 0..length / chunk.len() {
        noise.fill(&mut chunk);
        to.write_all(&chunk)?;
        written.fetch_add(chunk.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

fn expect_noise(from: &mut impl Read, seed: u64, length: usize) {
    let (mut noise, mut chunk, mut got) = (Noise(seed), vec![0; 1 << 16], vec![0; 1 << 16]);
    for at in 0..length / chunk.len() {
        noise.fill(&mut chunk);
        from.read_exact(&mut got).unwrap();
        assert!(chunk == got, "other bytes in the 64 KiB from {at} on");
    }
}

#[test]
fn a_hundred_megabytes_each_way_at_once_arrive_unchanged() {
    const LENGTH: usize = 100 * MIB;
    let pair = Pair::start();
    let near = plain::connect(pair.plain);
    let far = pair.inbound.app.accept();
    let mut threads = Vec::new();
    for (stream, sends, expects) in [(near, 1, 2), (far, 2, 1)] {
        let mut writer = stream.try_clone().unwrap();
        threads.push(thread::spawn(move || {
            write_noise(&mut writer, sends, LENGTH, &AtomicU64::new(0)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        }));
        let mut reader = stream;
        threads.push(thread::spawn(move || {
            expect_noise(&mut reader, expects, LENGTH);
            assert!(read_to_end(&mut reader).is_empty(), "more came than was sent");
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    for sidecar in [&pair.inbound.sidecar, &pair.outbound] {
        let record = sidecar.wait_record(Mark::default(), &[("reason", "finished")]);
        assert_eq!(record["bytes_up"], LENGTH, "{record}");
        assert_eq!(record["bytes_down"], LENGTH, "{record}");
    }
}

#[test]
fn each_direction_ends_by_itself() {
    let pair = Pair::start();
    for near_first in [true, false] {
        let (mark, near) = (pair.outbound.mark(), plain::connect(pair.plain));
        let far = pair.inbound.app.accept();
        let (mut first, mut second) = if near_first { (near, far) } else { (far, near) };
        first.write_all(b"all of it").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut second), b"all of it");
        // The other direction is open still, for as long as it likes.
        for _ in 0..3 {
            pass(&mut second, &mut first, &vec![7; MIB]);
        }
        second.shutdown(Shutdown::Write).unwrap();
        assert!(read_to_end(&mut first).is_empty());
        for sidecar in [&pair.outbound, &pair.inbound.sidecar] {
            let mark = if std::ptr::eq(sidecar, &pair.outbound) {
                mark
            } else {
                Mark::default()
            };
            sidecar.wait_record(mark, &[("reason", "finished"), ("result", "ok")]);
        }
    }
}

#[test]
fn half_close_is_close_notify_to_a_stock_peer_and_back() {
    let scene = InboundSetup::default().start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    client.write_all(b"question").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(read_to_end(&mut app), b"question");
    app.write_all(b"answer").unwrap();
    drop(app);
    // Stock rustls takes an end without close_notify for an error.
    assert_eq!(read_to_end(&mut client), b"answer");
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "finished")]);
}

/// Resident memory in KiB.
fn resident(sidecar: &Sidecar) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.process().pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_slow_reader_holds_back_a_fast_writer_at_no_cost_of_memory() {
    const LENGTH: usize = 64 * MIB;
    let pair = Pair::start();
    let near = plain::connect(pair.plain);
    let mut far = pair.inbound.app.accept();
    exchange(&mut &near, &mut far, "hello");
    let before = [resident(&pair.outbound), resident(&pair.inbound.sidecar)];
    let written = Arc::<AtomicU64>::default();
    let (counter, mut writer) = (Arc::clone(&written), near.try_clone().unwrap());
    let writer = thread::spawn(move || write_noise(&mut writer, 5, LENGTH, &counter).unwrap());
    // Until the writer stands still.
    let mut last = (u64::MAX, Instant::now());
    eventually("the writer is held back", SOON, || {
        let now = written.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(300)).then_some(())
    });
    assert!(
        written.load(Ordering::SeqCst) < LENGTH as u64,
        "everything was taken in"
    );
    for (sidecar, before) in [&pair.outbound, &pair.inbound.sidecar].into_iter().zip(before) {
        let grown = resident(sidecar).saturating_sub(before);
        assert!(grown < 16 << 10, "{grown} KiB more");
    }
    expect_noise(&mut far, 5, LENGTH);
    writer.join().unwrap();
}

#[test]
fn a_peer_that_ends_without_close_notify_is_no_clean_end_to_the_application() {
    let scene = InboundSetup::default().start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    pass(&mut client, &mut app, b"half of a messa");
    client.sock.shutdown(Shutdown::Write).unwrap();
    expect_reset(&mut app);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "peer_truncated")]);
    assert_eq!(record["result"], "failed", "{record}");
    // It is told that its end was none.
    expect_alert(&mut client, AlertDescription::DecodeError);

    let scene = OutboundSetup::default().start();
    let mut app = plain::connect(scene.plain);
    let mut server = accept(scene.peer.accept(), &scene.api.peer(ORDERS));
    pass(&mut server, &mut app, b"half of an answ");
    server.sock.shutdown(Shutdown::Write).unwrap();
    expect_reset(&mut app);
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "peer_truncated")]);
}

#[test]
fn resets_pass_on_in_both_directions() {
    let scene = InboundSetup::default().start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    let (_, socket) = client.into_parts();
    reset(socket);
    expect_reset(&mut app);
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "peer_reset")]);

    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    reset(app);
    expect_alert(&mut client, AlertDescription::InternalError);
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "application_reset")]);

    let pair = Pair::start();
    let near = plain::connect(pair.plain);
    let mut far = pair.inbound.app.accept();
    exchange(&mut &near, &mut far, "hello");
    reset(near);
    expect_reset(&mut far);
    let record = pair
        .inbound
        .sidecar
        .wait_record(Mark::default(), &[("result", "failed")]);
    assert_eq!(record["reason"], "peer_reset", "{record}");
    let mut near = plain::connect(pair.plain);
    let mut far = pair.inbound.app.accept();
    exchange(&mut near, &mut far, "hello");
    reset(far);
    expect_reset(&mut near);
}

#[test]
fn single_bytes_arrive_one_by_one() {
    let pair = Pair::start();
    let mut near = plain::connect(pair.plain);
    let mut far = pair.inbound.app.accept();
    for number in 0..1000_u32 {
        let byte = [number.to_le_bytes()[0]];
        pass(&mut near, &mut far, &byte);
        pass(&mut far, &mut near, &byte);
    }
    for number in 0..20_000_u32 {
        near.write_all(&number.to_le_bytes()[..1]).unwrap();
    }
    near.shutdown(Shutdown::Write).unwrap();
    let got = read_to_end(&mut far);
    assert_eq!(got.len(), 20_000);
    assert!(
        (0..20_000_u32)
            .zip(got)
            .all(|(number, byte)| number.to_le_bytes()[0] == byte)
    );
}

#[test]
fn stock_peers_change_their_keys_in_the_middle_of_traffic() {
    let scene = InboundSetup::default().start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    for _ in 0..30 {
        // Asks the other side to change its keys as well.
        client.conn.refresh_traffic_keys().unwrap();
        exchange(&mut client, &mut app, "new keys");
        pass(&mut client, &mut app, &vec![3; 100_000]);
        app.write_all(b"on its way before the keys change").unwrap();
        client.conn.refresh_traffic_keys().unwrap();
        client.flush().unwrap();
        let mut got = [0; 33];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"on its way before the keys change");
    }

    let scene = OutboundSetup::default().start();
    let mut app = plain::connect(scene.plain);
    let mut server = accept(scene.peer.accept(), &scene.api.peer(ORDERS));
    for _ in 0..30 {
        server.conn.refresh_traffic_keys().unwrap();
        exchange(&mut server, &mut app, "new keys");
    }
}

#[test]
fn a_connection_on_which_nothing_moves_is_closed_and_a_slow_one_is_not() {
    let scene = InboundSetup {
        settings: "limits: { idle_timeout: 1s }\n",
        ..InboundSetup::default()
    }
    .start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    let begun = Instant::now();
    // The pause is the matter of the test: each is shorter than the limit, together they are longer.
    while begun.elapsed() < Duration::from_millis(1800) {
        thread::sleep(Duration::from_millis(300));
        exchange(&mut client, &mut app, "slow");
    }
    let idle = Instant::now();
    expect_alert(&mut client, AlertDescription::InternalError);
    assert!(
        idle.elapsed() > Duration::from_millis(900),
        "after {:?}",
        idle.elapsed()
    );
    expect_reset(&mut app);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "idle_timeout")]);
    assert_eq!(record["result"], "closed", "{record}");
}

/// A socket that listens and whose queue is full: who connects gets no answer.
fn unanswering() -> (Socket, SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let queued = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&addr);
            socket
        })
        .collect();
    (listener, addr.as_socket().unwrap(), queued)
}

#[test]
fn an_application_that_cannot_be_reached_is_told_apart_by_cause() {
    let (_listener, full, _queued) = unanswering();
    let closed = crate::support::net::free_address();
    let cases = [
        (closed.to_string(), "connect_failed"),
        (full.to_string(), "connect_timeout"),
        ("nobody.invalid:80".to_owned(), "resolve_failed"),
        ("unix:///nonexistent/app.sock".to_owned(), "connect_failed"),
    ];
    for (upstream, reason) in cases {
        eprintln!("case: {upstream}");
        let listener = format!("    upstream: {upstream}\n");
        let scene = InboundSetup {
            listener: &listener,
            settings: "limits: { connect_timeout: 2s }\n",
            ..InboundSetup::default()
        }
        .start();
        let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
        expect_alert(&mut client, AlertDescription::InternalError);
        let record = scene.sidecar.wait_record(Mark::default(), &[("reason", reason)]);
        assert_eq!(record["result"], "failed", "{record}");
        assert_eq!(record["verdict"], "allow", "{record}");
        assert_eq!(record["upstream"], upstream.as_str(), "{record}");
        assert!(record["detail"].is_string(), "{record}");
    }
}

#[test]
fn a_peer_that_cannot_be_reached_is_a_reset_to_the_application() {
    let closed = crate::support::net::free_address();
    for (connect, reason) in [
        (closed.to_string(), "connect_failed"),
        ("nobody.invalid:80".to_owned(), "resolve_failed"),
    ] {
        let listener = format!("    connect: {connect}\n");
        let scene = OutboundSetup {
            listener: &listener,
            ..OutboundSetup::default()
        }
        .start();
        let mut app = plain::connect(scene.plain);
        expect_reset(&mut app);
        scene.sidecar.wait_record(Mark::default(), &[("reason", reason)]);
    }
}

#[test]
fn localhost_is_resolved_by_the_hosts_file() {
    let door = plain::Door::open();
    let listener = format!("    upstream: localhost:{}\n", door.addr().port());
    let scene = InboundSetup {
        listener: &listener,
        ..InboundSetup::default()
    }
    .start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut door.accept(), "hello");
}

fn open_files(sidecar: &Sidecar) -> usize {
    fs::read_dir(format!("/proc/{}/fd", sidecar.process().pid()))
        .unwrap()
        .count()
}

fn one_of_many(plain: SocketAddr) {
    let mut near = plain::connect(plain);
    near.write_all(b"ping").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut near), b"ping");
}

fn echo(mut app: TcpStream) {
    let bytes = read_to_end(&mut app);
    app.write_all(&bytes).unwrap();
}

#[test]
fn five_hundred_connections_leave_nothing_behind() {
    const THREADS: usize = 5;
    const EACH: usize = 100;
    let pair = Pair::start();
    let before = open_files(&pair.inbound.sidecar);
    let plain = pair.plain;
    let clients: Vec<_> = (0..THREADS)
        .map(|_| thread::spawn(move || (0..EACH).for_each(|_| one_of_many(plain))))
        .collect();
    for _ in 0..THREADS * EACH {
        let app = pair.inbound.app.accept();
        thread::spawn(move || echo(app));
    }
    for client in clients {
        client.join().unwrap();
    }
    for sidecar in [&pair.inbound.sidecar, &pair.outbound] {
        eventually("every connection is counted as finished", SOON, || {
            let metrics = sidecar.get("/metrics").ok()?.body;
            let total = metrics.lines().find(|line| {
                line.starts_with("svidecar_connections_total") && line.contains("reason=\"finished\"")
            })?;
            total.ends_with(" 500").then_some(())
        });
        assert_eq!(sidecar.metric("svidecar_connections_open"), Some(0.0));
        // The log is written in the background.
        eventually("a record of each", SOON, || {
            (sidecar.records_since(Mark::default()).len() == THREADS * EACH).then_some(())
        });
    }
    eventually("the descriptors are given back", SOON, || {
        // One or two are the admin connection that is open while we look.
        (open_files(&pair.inbound.sidecar) <= before + 2).then_some(())
    });
}
