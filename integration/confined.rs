//! What a confined process cannot do, tried from inside: each case is a process of its own, this program started again,
//! which confines itself by the library as `svidecar run` does and then tries.
//!
//! No test harness of the usual kind: it would start threads first, and the sandbox is for a process that has one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout
)]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::{Signal, geteuid, getppid, kill_process};
use socket2::{Domain, Protocol, Socket, Type};
use svidecar::config::settings::SandboxMode;
use svidecar::config::{self, Environment};
use svidecar::sandbox::plan::{Plan, Surroundings};
use svidecar::sandbox::{self, Confined, Part};

/// The name of a case, and where its files are, for the process that is to try it.
const CASE: &str = "SVIDECAR_CONFINED_CASE";
const WORLD: &str = "SVIDECAR_CONFINED_WORLD";
/// `IPPROTO_MPTCP`, `MSG_FASTOPEN`, `AF_NETLINK`.
const MPTCP: i32 = 262;
const FAST_OPEN: i32 = 0x2000_0000;
const NETLINK: i32 = 16;

/// A name, and what a process of its own tries under it.
type Case = (&'static str, fn(&World));

/// All that is tried.
const CASES: &[Case] = &[
    ("own files can be read and foreign ones not", own_files_alone),
    (
        "logs can be rotated in their folder, and nothing else be made there",
        logs_alone,
    ),
    (
        "ports of the config alone can be connected to and bound",
        ports_alone,
    ),
    ("ways around the rules about ports are closed", no_way_around),
    ("nothing can be executed and no process begins", no_execution),
    (
        "nobody outside can be signalled or met on an abstract socket",
        no_outside,
    ),
    ("threads that start later are confined and work", later_threads),
    ("no privilege is left", no_privileges),
    ("off takes nothing away", off),
    (
        "strict names what is missing and does not go on",
        strict_is_strict,
    ),
    (
        "a process that has threads already is not confined",
        not_with_threads,
    ),
    (
        "without Landlock the rest holds, and strict refuses",
        without_landlock,
    ),
    ("a config that needs more lacks it", lacking),
    ("a grant that cannot be made costs none of the others", one_less),
    (
        "with another thread beside it only what reaches that one counts",
        beside_a_thread,
    ),
    (
        "a port of the kernel's choice is opened without being bound",
        listening_unbound,
    ),
];

fn main() -> ExitCode {
    if let Ok(case) = std::env::var(CASE) {
        let (_, attempt) = CASES.iter().find(|(name, _)| *name == case).unwrap();
        attempt(&World::of(PathBuf::from(std::env::var(WORLD).unwrap())));
        return ExitCode::SUCCESS;
    }
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let mut failed = 0;
    for (name, _) in CASES.iter().filter(|(name, _)| name.contains(&wanted)) {
        let folder = tempfile::tempdir().unwrap();
        let listeners = World::make(folder.path());
        let output = Command::new(std::env::current_exe().unwrap())
            .env(CASE, name)
            .env(WORLD, folder.path())
            .env_remove("MALLOC_CONF")
            .output()
            .unwrap();
        drop(listeners);
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("SKIPPED") {
            eprint!("{said}");
        }
        if output.status.success() {
            println!("test {name} ... ok");
        } else {
            failed += 1;
            println!("test {name} ... FAILED ({})\n{said}", output.status);
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The files and ports of one case.
struct World {
    root: PathBuf,
    /// Somebody listens on both; the config names the first one.
    own: u16,
    foreign: u16,
}

impl World {
    /// Makes them. What is returned listens while the case runs.
    fn make(root: &Path) -> ([TcpListener; 2], UnixListener) {
        for folder in ["own", "audit", "sockets", "foreign"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        for file in ["own/svidecar.yaml", "own/policy.yaml", "foreign/secret"] {
            fs::write(root.join(file), "rules: []\n").unwrap();
        }
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners
            .each_ref()
            .map(|listener| listener.local_addr().unwrap().port().to_string());
        fs::write(root.join("ports"), ports.join(" ")).unwrap();
        let outside = UnixListener::bind_addr(&abstract_address(root)).unwrap();
        (listeners, outside)
    }

    fn of(root: PathBuf) -> Self {
        let ports = fs::read_to_string(root.join("ports")).unwrap();
        let ports: Vec<u16> = ports.split(' ').map(|port| port.parse().unwrap()).collect();
        Self {
            own: ports[0],
            foreign: ports[1],
            root,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A plan for a config like this, with these listeners' lines beside it.
    fn plan_with(&self, more: &str) -> Plan {
        self.plan_in(more, &Surroundings::of_process())
    }

    fn plan_in(&self, more: &str, surroundings: &Surroundings<'_>) -> Plan {
        let text = format!(
            "identity: {{ socket: unix:///run/agent.sock }}\npolicy: {{ path: policy.yaml }}\n\
             inbound:\n- {{ name: a, listen: 'unix://{root}/sockets/a', upstream: '127.0.0.1:{own}' }}\n\
             - {{ name: b, listen: '127.0.0.1:0', upstream: '127.0.0.1:{own}' }}\n{more}\
             audit: {{ file: {root}/audit/a.jsonl }}\n",
            root = self.root.display(),
            own = self.own,
        );
        let environment = Environment {
            endpoint_socket: None,
            cores: 1,
        };
        let file = self.path("own/svidecar.yaml");
        let (settings, _) = config::check(&text, "svidecar.yaml", &self.path("own"), &environment).unwrap();
        Plan::of(&settings, &file, surroundings)
    }

    fn plan(&self) -> Plan {
        self.plan_with("")
    }

    /// Confines this process; `None` where this kernel cannot do what the case is about.
    fn confine(&self, needs: &[Part]) -> Option<Confined> {
        let confined = sandbox::apply(SandboxMode::BestEffort, self.plan()).unwrap();
        if Part::ALL.iter().all(|part| confined.enforces(*part)) {
            assert_eq!(confined.missing, [""; 0]);
        }
        if needs.iter().all(|part| confined.enforces(*part)) {
            return Some(confined);
        }
        eprintln!("SKIPPED: this system lacks {:?}", confined.missing);
        None
    }
}

/// The abstract unix socket named after this path.
fn abstract_address(path: &Path) -> SocketAddr {
    SocketAddr::from_abstract_name(path.as_os_str().as_encoded_bytes()).unwrap()
}

#[track_caller]
fn refused<T>(what: &str, result: io::Result<T>) {
    match result {
        Ok(_) => panic!("{what}: not refused"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}"),
    }
}

fn own_files_alone(world: &World) {
    let executable = std::env::current_exe().unwrap();
    let Some(_confined) = world.confine(&[Part::LandlockFiles]) else {
        return;
    };
    fs::read(world.path("own/policy.yaml")).unwrap();
    assert_eq!(fs::read_dir(world.path("own")).unwrap().count(), 2);
    for kind in ["status", "stat", "limits"] {
        fs::read_to_string(format!("/proc/self/{kind}")).unwrap();
    }
    fs::read_to_string("/proc/stat").unwrap();
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() > 2);
    for foreign in [
        world.path("foreign/secret"),
        executable,
        "/etc/passwd".into(),
        "/dev/null".into(),
    ] {
        refused(&foreign.display().to_string(), fs::read(&foreign));
    }
    let of_others = format!("/proc/{}/environ", getppid().unwrap().as_raw_pid());
    refused("another process' environment", fs::read(of_others));
    refused("the root", fs::read_dir("/"));
    refused("the folder above", fs::read_dir(&world.root));
    refused(
        "writing what is read",
        fs::write(world.path("own/policy.yaml"), "rules: []"),
    );
    refused("making a file there", fs::write(world.path("own/new"), ""));
    refused(
        "removing one there",
        fs::remove_file(world.path("own/policy.yaml")),
    );
    refused(
        "writing a foreign file",
        OpenOptions::new().append(true).open(world.path("foreign/secret")),
    );
}

fn logs_alone(world: &World) {
    let Some(_confined) = world.confine(&[Part::LandlockFiles]) else {
        return;
    };
    let at = |name: &str| world.path("audit").join(name);
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(at("a.jsonl"))
        .unwrap();
    log.write_all(b"line\n").unwrap();
    log.sync_all().unwrap();
    fs::rename(at("a.jsonl"), at("a.1.jsonl")).unwrap();
    fs::write(at("a.1.jsonl.gz"), "compressed").unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(at("a.1.jsonl.gz"))
        .unwrap()
        .set_len(3)
        .unwrap();
    fs::rename(at("a.1.jsonl.gz"), at("a.1.jsonl")).unwrap();
    assert_eq!(fs::read(at("a.1.jsonl")).unwrap(), b"com");
    fs::remove_file(at("a.1.jsonl")).unwrap();
    fs::File::open(world.path("audit")).unwrap().sync_all().unwrap();
    refused("a folder", fs::create_dir(at("folder")));
    refused("a link", symlink("/etc/passwd", at("link")));
    refused("a socket", UnixListener::bind(at("socket")));

    let socket = world.path("sockets/a");
    let listening = UnixListener::bind(&socket).unwrap();
    UnixStream::connect(&socket).unwrap();
    drop(listening);
    fs::remove_file(&socket).unwrap();
    refused(
        "a file beside a socket",
        fs::write(world.path("sockets/file"), ""),
    );
    refused("a socket elsewhere", UnixListener::bind(world.path("own/socket")));
}

fn ports_alone(world: &World) {
    let Some(_confined) = world.confine(&[Part::LandlockNetwork]) else {
        return;
    };
    let connect = |port: u16| TcpStream::connect(("127.0.0.1", port));
    connect(world.own).unwrap();
    refused(
        "connecting to a port that the config does not name",
        connect(world.foreign),
    );
    refused("to the one for names, as there are none", connect(53));
    TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [world.own, world.foreign] {
        refused(
            "binding a port that no listener has",
            TcpListener::bind(("127.0.0.1", port)),
        );
    }
    // Datagrams are not held back: names are asked for by them.
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .connect(("127.0.0.1", 53))
        .unwrap();
}

fn no_way_around(world: &World) {
    let Some(_confined) = world.confine(&[Part::Seccomp]) else {
        return;
    };
    let socket =
        |domain: Domain, kind: Type, protocol: i32| Socket::new(domain, kind, Some(Protocol::from(protocol)));
    refused("MPTCP", socket(Domain::IPV4, Type::STREAM, MPTCP));
    refused("SCTP", socket(Domain::IPV6, Type::STREAM, 132));
    refused("ICMP", socket(Domain::IPV4, Type::DGRAM, 1));
    refused("raw IP", socket(Domain::IPV4, Type::RAW, 6));
    refused("packets", socket(Domain::PACKET, Type::RAW, 0));
    refused("netlink", socket(Domain::from(NETLINK), Type::RAW, 0));
    let tcp = socket(Domain::IPV4, Type::STREAM, 6).unwrap();
    let foreign = std::net::SocketAddr::from(([127, 0, 0, 1], world.foreign)).into();
    refused(
        "data with the handshake",
        tcp.send_to_with_flags(b"x", &foreign, FAST_OPEN),
    );
}

fn no_execution(world: &World) {
    let itself = std::env::current_exe().unwrap();
    let Some(_confined) = world.confine(&[Part::Seccomp]) else {
        return;
    };
    for program in [Path::new("/bin/sh"), &itself] {
        refused("a new process", Command::new(program).status());
        let error = Command::new(program).exec();
        assert_eq!(
            error.kind(),
            ErrorKind::PermissionDenied,
            "execution in place of this one: {error}"
        );
    }
}

fn no_outside(world: &World) {
    let Some(_confined) = world.confine(&[Part::LandlockScopes]) else {
        return;
    };
    refused(
        "a signal",
        kill_process(getppid().unwrap(), Signal::CONT).map_err(io::Error::from),
    );
    refused(
        "an abstract socket of a process outside",
        UnixStream::connect_addr(&abstract_address(&world.root)),
    );
    let ours = abstract_address(&world.path("ours"));
    let _listening = UnixListener::bind_addr(&ours).unwrap();
    UnixStream::connect_addr(&ours).unwrap();
}

fn later_threads(world: &World) {
    let Some(_confined) = world.confine(&[Part::LandlockFiles, Part::LandlockNetwork]) else {
        return;
    };
    let secret = world.path("foreign/secret");
    let (port, own) = (world.foreign, world.path("own/policy.yaml"));
    std::thread::Builder::new()
        .name("later".to_owned())
        .spawn(move || {
            fs::read(own).unwrap();
            refused("a foreign file", fs::read(secret));
            refused("a foreign port", TcpStream::connect(("127.0.0.1", port)));
        })
        .unwrap()
        .join()
        .unwrap();
    svidecar::sys::memory::give_back_in_the_background().unwrap();
}

/// The fields of `/proc/self/status`.
fn status() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let field = |line: &str| {
        line.split_once(':')
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(field).collect()
}

fn no_privileges(world: &World) {
    let Some(_confined) = world.confine(&[Part::Capabilities, Part::Seccomp]) else {
        return;
    };
    let status = status();
    assert_eq!((&*status["NoNewPrivs"], &*status["Seccomp"]), ("1", "2"));
    let mut sets = vec!["CapInh", "CapPrm", "CapEff", "CapAmb"];
    if geteuid().is_root() {
        sets.push("CapBnd");
        refused("a port below 1024", TcpListener::bind("127.0.0.1:1023"));
    }
    for set in sets {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"]);
}

fn off(world: &World) {
    let confined = sandbox::apply(SandboxMode::Off, world.plan()).unwrap();
    fs::read(world.path("foreign/secret")).unwrap();
    TcpStream::connect(("127.0.0.1", world.foreign)).unwrap();
    assert!(
        Command::new(std::env::current_exe().unwrap())
            .arg("no such case")
            .env_remove(CASE)
            .status()
            .unwrap()
            .success()
    );
    assert!(!Part::ALL.iter().any(|part| confined.enforces(*part)));
    assert_eq!(
        confined.plan.lacking(
            &world.plan(),
            &world.plan_with("- { name: c, listen: '127.0.0.1:9', upstream: '127.0.0.1:9' }\n")
        ),
        []
    );
    assert_eq!((&*status()["NoNewPrivs"], &*status()["Seccomp"]), ("0", "0"));
}

fn strict_is_strict(world: &World) {
    let plan = world.plan();
    fs::remove_dir(world.path("audit")).unwrap();
    let error = sandbox::apply(SandboxMode::Strict, plan).unwrap_err().to_string();
    let folder = world.path("audit").display().to_string();
    assert!(
        error.contains(&format!("`audit.file`: writing in `{folder}`: No such file")),
        "{error}"
    );
}

fn not_with_threads(world: &World) {
    let (keep, held) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || held.recv());
    let error = sandbox::apply(SandboxMode::Strict, world.plan())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("confining every thread: 2 threads run already"),
        "{error}"
    );
    drop(keep);
    other.join().unwrap().unwrap_err();
}

/// A kernel without Landlock answers ENOSYS, as this filter has it.
fn without_landlock(world: &World) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(38),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
    let confined = sandbox::apply(SandboxMode::BestEffort, world.plan()).unwrap();
    let holds = Part::ALL.map(|part| confined.enforces(part));
    assert_eq!(holds, [false, false, false, true, true], "{confined}");
    assert_eq!(confined.landlock_abi, None);
    let missing = confined.missing.join("\n");
    for part in [
        "folders (needs Linux 5.13)",
        "TCP ports (needs Linux 6.7)",
        "security modules",
    ] {
        assert!(missing.contains(part), "{missing}");
    }
    fs::read(world.path("foreign/secret")).unwrap();
    refused("a new process", Command::new("/bin/sh").status());
    let wanted = world.plan_with("- { name: c, listen: '127.0.0.1:9000', upstream: '127.0.0.1:9' }\n");
    assert_eq!(
        confined.plan.lacking(&world.plan(), &wanted),
        [],
        "what nothing holds back"
    );
    let error = sandbox::apply(SandboxMode::Strict, world.plan())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("folders (needs Linux 5.13)") && error.contains("best-effort"),
        "{error}"
    );
}

fn lacking(world: &World) {
    let now = world.plan();
    let wanted = world.plan_with("- { name: c, listen: '127.0.0.1:9000', upstream: '127.0.0.1:9' }\n");
    let Some(confined) = world.confine(&[Part::LandlockNetwork]) else {
        return;
    };
    let lacks: Vec<_> = confined
        .plan
        .lacking(&now, &wanted)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lacks,
        [
            "listener `c`: binding TCP port 9000",
            "listener `c`: connecting to TCP port 9"
        ]
    );
    refused("and it could not be had", TcpListener::bind("127.0.0.1:9000"));
}

/// As a socket right in the root folder has no folder that could be granted.
fn one_less(world: &World) {
    let file = world.path("own/policy.yaml");
    let folders = |path: &Path| match path.ends_with("sockets/a") {
        true => vec![file.clone()],
        false => vec![path.parent().unwrap().to_owned()],
    };
    let surroundings = Surroundings {
        folders: &folders,
        ..Surroundings::of_process()
    };
    let plan = world.plan_in("", &surroundings);
    let confined = sandbox::apply(SandboxMode::BestEffort, plan.clone()).unwrap();
    if !confined.enforces(Part::LandlockFiles) {
        eprintln!("SKIPPED: this system lacks {:?}", confined.missing);
        return;
    }
    let why = format!(
        "listener `a`: a unix socket in `{}`: it is no folder",
        file.display()
    );
    assert!(
        confined.missing.iter().any(|missing| missing.starts_with(&why)),
        "{:?}",
        confined.missing
    );
    refused("a foreign file", fs::read(world.path("foreign/secret")));
    fs::read(&file).unwrap();
    // Settings that come later and name it need a restart.
    let without = world.plan_with("");
    let lacks = confined.plan.lacking(&without, &plan);
    assert_eq!(
        lacks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [why.split(": it is").next().unwrap()]
    );
}

fn beside_a_thread(world: &World) {
    let (keep, held) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || held.recv());
    let confined = sandbox::apply(SandboxMode::BestEffort, world.plan()).unwrap();
    let holds = Part::ALL.map(|part| confined.enforces(part));
    assert_eq!(holds, [false, false, false, true, false], "{confined}");
    drop(keep);
    other.join().unwrap().unwrap_err();
}

/// Landlock has no rule for it, and the calls that a listener needs cannot be told from these.
fn listening_unbound(world: &World) {
    let Some(_confined) = world.confine(&[Part::LandlockNetwork, Part::Seccomp]) else {
        return;
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.listen(1).unwrap();
    assert_ne!(socket.local_addr().unwrap().as_socket().unwrap().port(), 0);
}
