//! What a service manager hears: the test plays systemd's end of `sd_notify(3)`.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::plain::Door;
use crate::scene::{children, inbound, kill, upgrade};
use crate::support::net::free_address;
use crate::support::process::Mark;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::{SOON, eventually};
use crate::world::{Api, HOUR, ORDERS, STOREFRONT_ONLY};

struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self { socket, folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// All that has come by now.
    fn all(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        while let Ok(length) = self.socket.recv(&mut buffer) {
            all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        self.socket.set_nonblocking(false).unwrap();
        all
    }

    /// The next message that has this line; gives all that came up to it.
    fn wait(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = self
                .socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no `{line}` ({error}) after {all:#?}"));
            all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            if all.last().unwrap().lines().any(|l| l.starts_with(line)) {
                return all;
            }
        }
    }
}

fn start(command: &str, manager: &Manager, api: &Api, watchdog: &str) -> Sidecar {
    let path = manager.path();
    let mut environment = vec![("NOTIFY_SOCKET", path.as_str())];
    if !watchdog.is_empty() {
        environment.push(("WATCHDOG_USEC", watchdog));
    }
    Setup::new("orders", inbound(api, free_address(), Door::open().addr(), ""))
        .policy(STOREFRONT_ONLY)
        .arguments(&[command])
        .environment(&environment)
        .start()
}

fn is_ready(messages: &[String]) -> bool {
    messages
        .iter()
        .any(|message| message.lines().any(|line| line == "READY=1"))
}

#[test]
fn a_service_manager_hears_of_the_start_reloads_and_the_end() {
    for command in ["run", "supervise"] {
        let manager = Manager::new();
        let mut api = Api::absent();
        let mut sidecar = start(command, &manager, &api, "");
        // Ready means what `/readyz` means.
        let before = manager.wait("STATUS=not ready: identity");
        assert!(!is_ready(&before), "{command}: {before:?}");
        // A reload is no start.
        let mark = sidecar.mark();
        sidecar.wait_words(Mark::default(), "listening");
        sidecar.process().signal(Signal::HUP);
        sidecar.wait_words(mark, "the config was read again");
        let before = manager.all();
        assert!(!is_ready(&before), "{command}: {before:?}");
        api.come(&[ORDERS], HOUR);
        manager.wait("READY=1");
        assert!(sidecar.is_ready());
        if command == "run" {
            // The socket's path is reached from inside the sandbox.
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", sidecar.process().pid())).unwrap();
            assert!(status.contains("Seccomp:\t2"), "{status}");
        }

        sidecar.process().signal(Signal::HUP);
        let reload = manager.wait("RELOADING=1");
        let time = reload
            .last()
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(time.unwrap().parse::<u64>().unwrap() > 0);
        let after = manager.wait("READY=1");
        assert_eq!(after.iter().filter(|m| m.contains("RELOADING")).count(), 0);

        if command == "supervise" {
            upgrade(&sidecar);
            manager.wait("STATUS=child 2 is ready and in charge");
        }
        sidecar.process().signal(Signal::TERM);
        let end = manager.wait("STOPPING=1");
        // An upgrade is no start.
        assert!(!is_ready(&end), "{command}: {end:?}");
        assert_eq!(sidecar.process_mut().wait(SOON).code(), Some(0));
    }
}

#[test]
fn a_service_manager_that_watches_hears_of_life() {
    for command in ["run", "supervise"] {
        let manager = Manager::new();
        let api = Api::start(&[ORDERS]);
        let sidecar = start(command, &manager, &api, "200000");
        sidecar.wait_ready();
        for _ in 0..3 {
            manager.wait("WATCHDOG=1");
        }
        if command == "supervise" {
            upgrade(&sidecar);
            manager.all();
            for _ in 0..3 {
                manager.wait("WATCHDOG=1");
            }
            // A child that hangs does not answer: what was under way comes yet, and then nothing.
            let [child] = eventually("the old one ends", SOON, || {
                <[i32; 1]>::try_from(children(sidecar.process().pid())).ok()
            });
            kill(child, Signal::STOP);
            let mut silent = 0;
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(100));
                let lives = manager.all().iter().any(|message| message.contains("WATCHDOG=1"));
                silent = if lives { 0 } else { silent + 1 };
            }
            assert!(
                silent >= 10,
                "the service manager is told that a process lives that hangs"
            );
            kill(child, Signal::CONT);
            manager.wait("WATCHDOG=1");
        }
    }
}

#[test]
fn a_signal_for_a_supervisor_does_not_end_a_process_that_runs_alone() {
    let manager = Manager::new();
    let api = Api::start(&[ORDERS]);
    let mut sidecar = start("run", &manager, &api, "");
    sidecar.wait_ready();
    sidecar.process().signal(Signal::USR2);
    sidecar.process().signal(Signal::HUP);
    manager.wait("RELOADING=1");
    sidecar.wait_words(Mark::default(), "listening");
    assert!(sidecar.process_mut().is_running());
}
