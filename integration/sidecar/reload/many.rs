//! Two hundred configs in a row: nothing leaks, and nobody who calls is turned away.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{ALL, UNCONFINED, config, inbound, write};
use crate::peers::{client_config, try_connect};
use crate::support::application::Echo;
use crate::support::net::free_address;
use crate::support::process::Mark;
use crate::support::{SOON, eventually};
use crate::world::{Identity, InboundSetup, STOREFRONT};

const RELOADS: usize = 200;
const TOKEN: &str = "a-token-of-enough-bytes";

/// One connection with one line there and back.
fn ask(address: SocketAddr, identity: &Identity) {
    let mut client = try_connect(address, client_config(Some(identity))).unwrap();
    client.write_all(b"hello\n").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello\n");
    client.conn.send_close_notify();
    client.flush().unwrap();
}

#[test]
fn two_hundred_reloads_leak_no_descriptor_and_lose_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let scene = InboundSetup {
        policy: Some(ALL),
        settings: &format!(
            "{UNCONFINED}limits: {{ drain_timeout: 200ms }}\nadmin: {{ listen: '@admin', token_file: '{}' }}\n",
            token.display()
        ),
        ..InboundSetup::default()
    }
    .start();
    let sidecar = &scene.sidecar;
    let storefront = scene.api.peer(STOREFRONT);
    let (steady, first, second) = (free_address(), Echo::start(), Echo::start());
    // `orders` has the one upstream or the other, `extra` is there or is not; `steady` stays.
    let text = config(sidecar).replace(
        "inbound:\n",
        &format!(
            "inbound:\n{}",
            inbound("steady", &steady.to_string(), first.addr())
        ),
    );
    let extra = inbound("extra", &free_address().to_string(), first.addr());
    let to = |upstream: SocketAddr| text.replace(&scene.app.addr().to_string(), &upstream.to_string());
    let texts = [
        to(first.addr()).replace("inbound:\n", &format!("inbound:\n{extra}")),
        to(second.addr()),
    ];
    let reload = |text: &str| {
        write(sidecar, text);
        let headers = format!("Authorization: Bearer {TOKEN}\r\n");
        let answer = sidecar.request("POST", "/api/v1/reload", &headers, "");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["config"]["result"], "success", "{}", answer.body);
    };
    let descriptors = || {
        let open = fs::read_dir(format!("/proc/{}/fd", sidecar.process().pid()));
        open.unwrap().count()
    };
    // The threads that read files, and whatever is made once, are there after this.
    for text in texts.iter().cycle().take(4) {
        reload(text);
    }
    ask(scene.tls, &storefront);
    ask(steady, &storefront);
    let idle = || {
        let open = |name: &str| sidecar.metric(&format!("svidecar_connections_open{{listener=\"{name}\""));
        let gone = !sidecar
            .get("/metrics")
            .unwrap()
            .body
            .contains("listener=\"extra\"");
        (gone && open("orders") == Some(0.0) && open("steady") == Some(0.0)).then(descriptors)
    };
    let before = eventually("nobody is there", SOON, idle);

    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut held = try_connect(steady, client_config(Some(&storefront))).unwrap();
    thread::scope(|scope| {
        let callers: Vec<_> = [steady, scene.tls]
            .into_iter()
            .map(|address| {
                let (over, asked, storefront) = (&over, &asked, &storefront);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        ask(address, storefront);
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for text in texts.iter().cycle().take(RELOADS) {
            reload(text);
            held.write_all(b"hello\n").unwrap();
            held.read_exact(&mut [0; 6]).unwrap();
            if callers.iter().any(thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(asked.into_inner() > RELOADS / 4, "hardly anybody called");
    assert!(second.accepted() > 1, "the other upstream was never called");
    held.conn.send_close_notify();
    held.flush().unwrap();
    drop(held);
    let generation = sidecar.metric("svidecar_config_generation").unwrap();
    assert!(generation > 200.0, "{generation}");
    eventually(&format!("{before} descriptors again"), SOON, || {
        idle().filter(|now| *now <= before)
    });
    let records = sidecar.records_since(Mark::default());
    let lost: Vec<_> = records.iter().filter(|record| record["result"] != "ok").collect();
    assert!(lost.is_empty(), "{lost:?}");
}
