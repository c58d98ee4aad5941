//! How a supervisor starts: exit codes, and sockets that somebody else has opened.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;

use rustix::process::Signal;

use crate::peers::connect;
use crate::plain::{Door, exchange};
use crate::scene::{SUPERVISE, Supervised, inbound};
use crate::support::process::{Mark, Process};
use crate::support::sidecar::{SVIDECAR, Setup, Sidecar};
use crate::support::{SOON, eventually};
use crate::world::{Api, ORDERS, STOREFRONT, STOREFRONT_ONLY};

/// Runs to its own end with this config, and gives its exit code and what it said.
fn run(config: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("svidecar.yaml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(SVIDECAR);
    command.args(["supervise", "--config"]).arg(&path);
    let mut process = Process::start("supervise", &mut command);
    let code = process.wait(SOON).code();
    let mut said = String::new();
    eventually("all that it said", SOON, || {
        said = process
            .lines_since(Mark::default(), |line| Some(line.to_owned()))
            .join("\n");
        (!said.is_empty()).then_some(())
    });
    (code, said)
}

const OUTBOUND: &str = "identity:\n  socket: unix:///nonexistent/agent.sock\noutbound:\n  - name: out\n    \
                        connect: 127.0.0.1:1\n    peer: [\"spiffe://example.org/**\"]\n    listen: ";

#[test]
fn a_start_that_fails_exits_as_run_does() {
    let (code, said) = run("identity:\n  socket: unix:///run/agent.sock\nlimts: {}\n");
    assert_eq!(code, Some(2));
    assert!(said.contains("svidecar.yaml:3"), "{said}");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (code, said) = run(&format!("{OUTBOUND}{}\n", taken.local_addr().unwrap()));
    assert_eq!(code, Some(1));
    assert!(
        said.contains("`out`") && said.contains("another process is serving there"),
        "{said}"
    );

    // What the child alone reads ends both with the child's code.
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, "rules:\n  - name: a\n    action: permit\n").unwrap();
    let (code, said) = run(&format!(
        "identity:\n  socket: unix:///run/agent.sock\npolicy:\n  path: {}\ninbound:\n  - name: in\n    \
         listen: 127.0.0.1:0\n    upstream: 127.0.0.1:1\n",
        policy.display()
    ));
    assert_eq!(code, Some(2));
    assert!(said.contains("permit"), "{said}");
}

#[test]
fn a_supervised_child_without_its_supervisor_says_who_it_belongs_to() {
    let mut command = Command::new(SVIDECAR);
    command.args(["run", "--supervised", "--config", "/nonexistent"]);
    let mut process = Process::start("run", &mut command);
    assert_eq!(process.wait(SOON).code(), Some(1));
    process.wait_line("why", Mark::default(), SOON, |line| {
        line.contains("start `svidecar supervise`").then_some(())
    });
}

/// A sidecar that is passed this socket, and serves it.
fn passed(arguments: &[&str], listener: TcpListener) -> (Api, Door, Sidecar, SocketAddr) {
    let api = Api::start(&[ORDERS]);
    let (tls, app) = (listener.local_addr().unwrap(), Door::open());
    let sidecar = Setup::new("orders", inbound(&api, tls, app.addr(), ""))
        .policy(STOREFRONT_ONLY)
        .arguments(arguments)
        .passed(listener.into())
        .start();
    sidecar.wait_ready();
    (api, app, sidecar, tls)
}

#[test]
fn sockets_that_a_service_manager_has_opened_are_taken() {
    for arguments in [&["run"][..], SUPERVISE] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // The service manager keeps its own copy.
        let kept = listener.try_clone().unwrap();
        let (api, app, mut sidecar, tls) = passed(arguments, listener);
        let mut client = connect(tls, &api.peer(STOREFRONT));
        exchange(&mut client, &mut app.accept(), "hello");
        if arguments == SUPERVISE {
            assert!(crate::scene::upgrade(&sidecar).contains("in charge"));
            let mut client = connect(tls, &api.peer(STOREFRONT));
            exchange(&mut client, &mut app.accept(), "hello again");
        }
        drop(client);
        sidecar.process().signal(Signal::TERM);
        sidecar.process().signal(Signal::TERM);
        assert_eq!(sidecar.process_mut().wait(SOON).code(), Some(0));
        drop(kept);
    }
}

#[test]
fn a_passed_socket_cannot_be_left_out() {
    for arguments in [&["run"][..], SUPERVISE] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let kept = listener.try_clone().unwrap();
        let (api, app, sidecar, tls) = passed(arguments, listener);
        let is_served = || {
            let mut client = connect(tls, &api.peer(STOREFRONT));
            exchange(&mut client, &mut app.accept(), "hello");
        };
        let path = sidecar.folder().join("svidecar.yaml");
        let good = fs::read_to_string(&path).unwrap();
        let other = crate::support::net::free_address();
        let mark = sidecar.mark();
        fs::write(&path, good.replace(&tls.to_string(), &other.to_string())).unwrap();
        sidecar.wait_words(mark, "a socket was handed over that no listener asks for");
        is_served();
        if arguments == SUPERVISE {
            let outcome = crate::scene::upgrade(&sidecar);
            assert!(outcome.contains("that no listener asks for"), "{outcome}");
            is_served();
            fs::write(&path, good).unwrap();
            assert!(crate::scene::upgrade(&sidecar).contains("in charge"));
            is_served();
        }
        drop(kept);
    }
}

#[test]
fn a_passed_unix_sockets_file_is_the_service_managers() {
    for command in ["run", "supervise"] {
        let api = Api::start(&[ORDERS]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let config = format!(
            "{}outbound:\n  - name: out\n    listen: 127.0.0.1:0\n    connect: 127.0.0.1:1\n    peer: [\"{ORDERS}\"]\n\
             admin:\n  listen: unix://{}\n  probes: @admin\n",
            api.identity(),
            path.display()
        );
        let mut sidecar = Setup::new("orders", config)
            .arguments(&[command])
            .passed(listener.into())
            .start();
        sidecar.wait_ready();
        assert_eq!(sidecar.terminate(SOON).code(), Some(0), "{command}");
        assert!(path.exists(), "{command}");
    }
}

#[test]
fn a_passed_socket_that_no_listener_asks_for_is_an_error_that_says_so() {
    for command in ["run", "supervise"] {
        let api = Api::start(&[ORDERS]);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stray = listener.local_addr().unwrap();
        let other = crate::support::net::free_address();
        let mut sidecar = Setup::new("orders", inbound(&api, other, other, ""))
            .policy(STOREFRONT_ONLY)
            .arguments(&[command])
            .passed(listener.into())
            .start();
        assert_eq!(sidecar.process_mut().wait(SOON).code(), Some(1), "{command}");
        let process = sidecar.process();
        process.wait_line("which one", Mark::default(), SOON, |line| {
            let named = line.contains(&stray.to_string()) && line.contains(&other.to_string());
            (named && line.contains("ListenStream")).then_some(())
        });
    }
}

#[test]
fn the_child_is_confined_and_the_supervisor_is_not() {
    let scene = Supervised::start("");
    let fields = |pid: i64| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        [field("Seccomp:"), field("NoNewPrivs:")]
    };
    assert_eq!(fields(scene.child().into()), ["2", "1"]);
    // As ours, whatever we run in.
    let parent = fields(scene.sidecar.process().pid().into());
    assert_eq!(parent, fields(std::process::id().into()));
    scene.upgrade();
    assert_eq!(fields(scene.child().into()), ["2", "1"], "the next one likewise");
}

#[test]
fn the_supervisor_has_two_threads_and_the_child_its_own_group_and_no_service_manager() {
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let path = folder.path().join("notify").display().to_string();
    let (api, app) = (Api::start(&[ORDERS]), Door::open());
    let tls = crate::support::net::free_address();
    let sidecar = Setup::new("orders", inbound(&api, tls, app.addr(), ""))
        .policy(STOREFRONT_ONLY)
        .arguments(SUPERVISE)
        .environment(&[("NOTIFY_SOCKET", path.as_str())])
        .start();
    sidecar.wait_ready();
    drop(manager);
    let parent = sidecar.process().pid();
    let child = crate::scene::children(parent)[0];
    // The loop, and what writes the log.
    assert_eq!(fs::read_dir(format!("/proc/{parent}/task")).unwrap().count(), 2);
    let group = |pid: String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let rest = stat.rsplit(") ").next().unwrap().to_owned();
        rest.split(' ').nth(2).unwrap().to_owned()
    };
    // Ctrl-C in a terminal reaches the supervisor alone, which passes it on once.
    assert_eq!(group(child.to_string()), child.to_string());
    assert_ne!(group(parent.to_string()), child.to_string());
    match fs::read(format!("/proc/{child}/environ")) {
        Ok(environment) => assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET")),
        Err(error) => eprintln!("SKIPPED: the environment of a child: {error}"),
    }
}
