//! Killed at any instant, under load: whoever got through is in the log, and the log verifies.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::peers::{client_config, handshake_client};
use crate::support::SOON;
use crate::support::net::free_address;
use crate::support::process::Process;
use crate::support::sidecar::SVIDECAR;
use crate::world::{Api, Identity, ORDERS, STOREFRONT, STOREFRONT_ONLY};

/// How often it is killed; more when the environment says so.
const KILLS: usize = 200;
/// Clients at once.
const CLIENTS: usize = 3;
/// Every how manieth kill is not put off until somebody was answered.
const EARLY: usize = 5;

/// An application that answers every byte, for as long as the test runs.
fn echo() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    address
}

/// Calls again and again, and tells of the first answer; the addresses from which an answer came, each of which was let in.
fn call(tls: SocketAddr, identity: &Identity, stop: &AtomicBool, first: &Sender<()>) -> Vec<String> {
    let mut answered = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        // Nobody listens for a moment after each kill.
        let Ok(socket) = TcpStream::connect(tls) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        socket.set_read_timeout(Some(SOON)).unwrap();
        let Ok(mut client) = handshake_client(socket, client_config(Some(identity)), "orders.example.org")
        else {
            continue;
        };
        let from = client.sock.local_addr().unwrap();
        let mut byte = [0];
        if client.write_all(b"x").is_ok() && client.flush().is_ok() && client.read_exact(&mut byte).is_ok() {
            if answered.is_empty() {
                // Who is told may have heard of another's.
                let _ = first.send(());
            }
            answered.push(from.to_string());
        }
    }
    answered
}

#[test]
fn no_acknowledged_record_is_lost_and_the_log_verifies_after_any_kill() {
    let kills = std::env::var("SVIDECAR_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(KILLS);
    let api = Api::start(&[ORDERS]);
    let identity = api.peer(STOREFRONT);
    let folder = tempfile::TempDir::new().unwrap();
    fs::create_dir(folder.path().join("policy")).unwrap();
    fs::write(folder.path().join("policy/p.yaml"), STOREFRONT_ONLY).unwrap();
    let (tls, app) = (free_address(), echo());
    let config = folder.path().join("svidecar.yaml");
    // Small files, so that kills also meet their ends.
    let text = format!(
        "{}policy: {{ path: policy/ }}\naudit: {{ file: audit.jsonl, sync: always, max_size: 1MiB, keep: 1000, checkpoint_every: 1s \
         }}\ninbound:\n  - {{ name: orders, listen: '{tls}', upstream: '{app}' }}\n",
        api.identity()
    );
    fs::write(&config, text).unwrap();
    let (mut let_in, mut chance) = (BTreeMap::<String, usize>::new(), fastrand_of(17));
    for kill in 0..kills {
        let mut command = Command::new(SVIDECAR);
        let mut sidecar = Process::start("orders", command.args(["run", "--config"]).arg(&config));
        let stop = Arc::new(AtomicBool::new(false));
        let (first, answered) = channel();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (identity, stop, first) = (identity.clone(), Arc::clone(&stop), first.clone());
                std::thread::spawn(move || call(tls, &identity, &stop, &first))
            })
            .collect();
        // In the midst of serving, however long it took to begin; now and then before that. The instant is what is tried, and
        // nothing waits for it.
        if kill % EARLY != 0 {
            answered.recv_timeout(SOON).unwrap();
        }
        std::thread::sleep(Duration::from_millis(chance(260)));
        sidecar.signal(Signal::KILL);
        sidecar.wait(SOON);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            for from in client.join().unwrap() {
                // An address may come again.
                *let_in.entry(from).or_default() += 1;
            }
        }
    }
    assert!(
        let_in.values().sum::<usize>() >= kills - kills.div_ceil(EARLY),
        "too few got through to say anything: {}",
        let_in.len()
    );

    let log = folder.path().join("audit.jsonl");
    let verified = Command::new(SVIDECAR)
        .args(["audit", "verify", "--json"])
        .arg(&log)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(0), "{said:#}");
    let mut recorded = BTreeMap::<String, usize>::new();
    for file in svidecar::audit::verify::files_of(&log).unwrap() {
        let mut text = String::new();
        let bytes = fs::File::open(&file).unwrap();
        if file.extension().is_some_and(|ending| ending == "gz") {
            flate2::read::MultiGzDecoder::new(bytes)
                .read_to_string(&mut text)
                .unwrap();
        } else {
            std::io::BufReader::new(bytes).read_to_string(&mut text).unwrap();
        }
        for line in text.lines() {
            let Ok(entry) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            if entry["outcome"] == "allow" {
                *recorded
                    .entry(entry["peer_addr"].as_str().unwrap().to_owned())
                    .or_default() += 1;
            }
        }
    }
    let missing: Vec<_> = let_in
        .iter()
        .filter(|(from, times)| recorded.get(*from).copied().unwrap_or(0) < **times)
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} were let in without a record: {missing:?}",
        missing.len(),
        let_in.len()
    );
    eprintln!(
        "{kills} kills, {} let in, {} entries, {} torn ends",
        let_in.len(),
        said["entries"],
        said["repairs"]
    );
}

/// Numbers below a bound, the same ones each time.
fn fastrand_of(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    move |below| random.u64(..below)
}
