//! Two network namespaces joined by a cable, and what runs in them.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::application::{LineClient, ask_once};
use crate::support::http::{self, Endpoint};
use crate::support::process::{Mark, Process, output_of, try_output_of};
use crate::support::sidecar::SVIDECAR;
use crate::support::workload_api::WorkloadApi;
use crate::support::{SOON, eventually_ok, on_path, skip};

/// Who the sidecars run as.
pub(crate) const SIDECAR: u32 = 15065;
pub(crate) const STOREFRONT: &str = "spiffe://example.org/storefront";
pub(crate) const ORDERS: &str = "spiffe://example.org/orders";

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn ip(args: &[&str]) -> Result<String, String> {
    try_output_of(Command::new("ip").args(args), PATIENCE)
}

/// Whether this machine lets tests make namespaces; says so where it does not.
fn can_run() -> bool {
    let missing = if !rustix::process::getuid().is_root() {
        Some("root".to_owned())
    } else {
        ["ip", "setpriv", "nft"]
            .iter()
            .find(|program| !on_path(program))
            .map(|program| format!("`{program}`"))
    };
    match missing {
        Some(what) => {
            skip(&format!(
                "transparent interception is not tested: it needs {what}"
            ));
            false
        }
        None => true,
    }
}

/// A network namespace; gone when dropped, and with it what is in it.
pub(crate) struct Pod {
    name: String,
}

impl Pod {
    fn make(name: String) -> Result<Self, String> {
        ip(&["netns", "add", &name])?;
        let pod = Self { name };
        ip(&["-n", &pod.name, "link", "set", "lo", "up"])?;
        Ok(pod)
    }

    /// Runs something on a thread that is in the namespace. Sockets that are made there stay there.
    pub(crate) fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                run()
            });
            thread.join().unwrap()
        })
    }

    /// A command in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// A command that runs there as the sidecar does: another user, without capabilities.
    pub(crate) fn as_sidecar(&self, program: &str) -> Command {
        let mut command = self.command("setpriv");
        command.args([
            &format!("--reuid={SIDECAR}"),
            &format!("--regid={SIDECAR}"),
            "--clear-groups",
            "--no-new-privs",
            "--bounding-set=-all",
            program,
        ]);
        command
    }

    /// `svidecar intercept` with these arguments, by root.
    pub(crate) fn intercept(&self, config: &Path, args: &[&str]) -> String {
        let mut command = self.command(SVIDECAR);
        command.args(["intercept", "--config"]).arg(config).args(args);
        output_of(&mut command, PATIENCE)
    }

    /// What `nft` lists.
    pub(crate) fn rules(&self) -> String {
        output_of(self.command("nft").args(["list", "ruleset"]), PATIENCE)
    }

    /// Asks an application elsewhere for one line, as the application here would.
    pub(crate) fn ask(&self, addr: SocketAddr) -> std::io::Result<()> {
        self.within(|| ask_once(addr, "hello"))
    }

    /// A connection of the application here.
    pub(crate) fn connect(&self, addr: SocketAddr) -> std::io::Result<LineClient> {
        self.within(|| LineClient::connect(addr))
    }

    /// An application that answers each line with the same line, on IPv4 and IPv6.
    pub(crate) fn serve(&self, port: u16) -> Application {
        let listener = self.within(|| TcpListener::bind(SocketAddr::new([0_u16; 8].into(), port)).unwrap());
        let accepted = Arc::<AtomicUsize>::default();
        let counter = accepted.clone();
        // Ends with the test's process: nothing wakes it once the namespace is gone.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || echo(&stream));
            }
        });
        Application(accepted)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // What is left of it would be said by the next test that takes the name, and none does.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn echo(stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let mut writer = stream;
        writer.write_all(line.as_bytes())?;
        line.clear();
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// An application that somebody may call.
pub(crate) struct Application(Arc<AtomicUsize>);

impl Application {
    /// How many connections it has taken.
    pub(crate) fn accepted(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Two pods, `a` and `b`, and a Workload API that both reach.
pub(crate) struct Pods {
    pub(crate) a: Pod,
    pub(crate) b: Pod,
    api: WorkloadApi,
}

/// The addresses of the pods.
pub(crate) fn a(port: u16) -> [SocketAddr; 2] {
    addresses(1, port)
}

pub(crate) fn b(port: u16) -> [SocketAddr; 2] {
    addresses(2, port)
}

fn addresses(host: u16, port: u16) -> [SocketAddr; 2] {
    let v4 = [10, 77, 0, u8::try_from(host).unwrap()];
    let v6 = [0xfd77, 0, 0, 0, 0, 0, 0, host];
    [SocketAddr::from((v4, port)), SocketAddr::from((v6, port))]
}

impl Pods {
    /// Makes and joins them; `None` where this machine has no namespaces for us, which is said.
    pub(crate) fn start() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !can_run() {
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("svidecar-{}-{number}{end}", std::process::id());
        let (a, b) = match (Pod::make(name("a")), Pod::make(name("b"))) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(error), _) | (_, Err(error)) => {
                skip(&format!(
                    "transparent interception is not tested: no namespaces: {error}"
                ));
                return None;
            }
        };
        // Made inside, so that the machine's own namespace never has an end of it.
        ip(&[
            "-n", &a.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &b.name,
        ])
        .unwrap();
        for (pod, host) in [(&a, 1), (&b, 2)] {
            let [v4, v6] = addresses(host, 0).map(|address| address.ip());
            ip(&[
                "-n",
                &pod.name,
                "address",
                "add",
                &format!("{v4}/24"),
                "dev",
                "eth0",
            ])
            .unwrap();
            ip(&[
                "-n",
                &pod.name,
                "address",
                "add",
                &format!("{v6}/64"),
                "dev",
                "eth0",
                "nodad",
            ])
            .unwrap();
            ip(&["-n", &pod.name, "link", "set", "eth0", "up"]).unwrap();
        }
        let api = WorkloadApi::start("example.org", "1h", &[STOREFRONT, ORDERS]);
        let socket = PathBuf::from(api.address().trim_start_matches("unix://"));
        open_to_all(&socket, 0o666);
        open_to_all(socket.parent().unwrap(), 0o755);
        Some(Self { a, b, api })
    }

    /// A config of a pod: its listeners and the policy beside it.
    pub(crate) fn config(&self, id: &str, listeners: &str, policy: &str) -> Config {
        let folder = TempDir::with_prefix("svidecar-pod-").unwrap();
        open_to_all(folder.path(), 0o777);
        let policy_line = if policy.is_empty() {
            String::new()
        } else {
            fs::write(folder.path().join("policy.yaml"), policy).unwrap();
            "policy: { path: policy.yaml }\n".to_owned()
        };
        let text = format!(
            "identity: {{ socket: \"{}\", svid: {id} }}\n{policy_line}{listeners}admin: {{ listen: \"unix://{}\" }}\n\
             limits: {{ connect_timeout: 2s, drain_timeout: 1s }}\n",
            self.api.address(),
            folder.path().join("admin.sock").display(),
        );
        let path = folder.path().join("svidecar.yaml");
        fs::write(&path, text).unwrap();
        Config { folder, path }
    }
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A config file.
pub(crate) struct Config {
    folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Config {
    /// Runs the sidecar in a pod, ready.
    pub(crate) fn run(&self, pod: &Pod) -> Running {
        let mut command = pod.as_sidecar(SVIDECAR);
        command.args(["run", "--config"]).arg(&self.path);
        let process = Process::start(&pod.name, &mut command);
        let admin = Endpoint::Unix(self.folder.path().join("admin.sock"));
        eventually_ok("the sidecar is ready", SOON, || {
            match http::get(&admin, "/readyz") {
                Ok(response) if response.status == 200 => Ok(()),
                Ok(response) => Err(response.body),
                Err(error) => Err(error.to_string()),
            }
        });
        Running { process, admin }
    }
}

/// A running sidecar; killed when dropped.
pub(crate) struct Running {
    process: Process,
    admin: Endpoint,
}

impl Running {
    pub(crate) fn mark(&self) -> Mark {
        self.process.mark()
    }

    /// Waits for the record of a connection that ended after the mark with these fields.
    pub(crate) fn wait_record(&self, mark: Mark, fields: &[(&str, &str)]) -> Value {
        let what = format!("a record with {fields:?}");
        self.process.wait_line(&what, mark, SOON, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            let holds = value["target"] == "svidecar::connection"
                && fields.iter().all(|(key, wanted)| value[key] == *wanted);
            holds.then_some(value)
        })
    }

    /// How many records of connections there are since the mark.
    pub(crate) fn records_since(&self, mark: Mark) -> usize {
        let of_connection = |line: &str| line.contains("\"svidecar::connection\"").then_some(());
        self.process.lines_since(mark, of_connection).len()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        http::get(&self.admin, path).unwrap().json()
    }
}

/// That the other side said no: a reset, where an answer was waited for.
pub(crate) fn assert_reset(result: std::io::Result<()>) {
    let error = result.expect_err("it was answered");
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kinds.contains(&error.kind()), "{error}");
}

/// That nobody was there.
pub(crate) fn assert_refused(result: std::io::Result<()>) {
    let error = result.expect_err("it was answered");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}
