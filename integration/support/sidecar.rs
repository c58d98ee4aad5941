//! A running `svidecar run`, seen as its users see it: config file, log, admin endpoint.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Endpoint, Response};
use super::net::free_address;
use super::process::{Mark, Process};
use super::{SOON, eventually, eventually_ok};

/// The built program.
pub(crate) const SVIDECAR: &str = env!("CARGO_BIN_EXE_svidecar");

/// The target of log lines that are connection records.
const CONNECTION_TARGET: &str = "svidecar::connection";

/// What a sidecar is started with.
pub(crate) struct Setup<'a> {
    /// What failures call it by.
    pub(crate) name: &'a str,
    /// The program; SPIRE's `unix:path` selector tells copies apart.
    pub(crate) program: &'a Path,
    /// The config file but for its `admin` section, which `start` adds; one that has it says `@admin` for the address that
    /// the tests ask. Policies are at `policy/`.
    pub(crate) config: String,
    /// The policy file, where the config names one.
    pub(crate) policy: Option<&'a str>,
    /// The command and what comes before `--config FILE`.
    pub(crate) arguments: &'a [&'a str],
    /// Further variables of its environment.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Listening sockets that it is passed, as by systemd.
    pub(crate) passed: Option<OwnedFd>,
}

impl<'a> Setup<'a> {
    /// The built program with this config.
    pub(crate) fn new(name: &'a str, config: String) -> Self {
        Self {
            name,
            program: Path::new(SVIDECAR),
            config,
            policy: None,
            arguments: &["run"],
            environment: &[],
            passed: None,
        }
    }

    /// With this policy file.
    pub(crate) fn policy(mut self, policy: &'a str) -> Self {
        self.policy = Some(policy);
        self
    }

    /// By another command than `run`.
    pub(crate) fn arguments(mut self, arguments: &'a [&'a str]) -> Self {
        self.arguments = arguments;
        self
    }

    /// With these variables in its environment.
    pub(crate) fn environment(mut self, environment: &'a [(&'a str, &'a str)]) -> Self {
        self.environment = environment;
        self
    }

    /// With a listening socket that it finds open, as systemd passes one (`sd_listen_fds(3)`).
    pub(crate) fn passed(mut self, socket: OwnedFd) -> Self {
        self.passed = Some(socket);
        self
    }

    /// Started from this program.
    pub(crate) fn program(mut self, program: &'a Path) -> Self {
        self.program = program;
        self
    }

    /// Starts it; it need not be ready yet.
    pub(crate) fn start(self) -> Sidecar {
        let folder = TempDir::with_prefix(format!("svidecar-{}-", self.name)).unwrap();
        let admin = free_address();
        let config = folder.path().join("svidecar.yaml");
        let text = if self.config.contains("@admin") {
            self.config.replace("@admin", &admin.to_string())
        } else {
            format!("{}\nadmin:\n  listen: {admin}\n", self.config)
        };
        fs::write(&config, text).unwrap();
        if let Some(policy) = self.policy {
            fs::create_dir(folder.path().join("policy")).unwrap();
            write_policy(folder.path(), policy);
        }
        let mut command = match &self.passed {
            None => Command::new(self.program),
            Some(_) => {
                // The process that is told of the sockets must be the one that takes them: the shell, before it is replaced.
                let mut shell = Command::new("sh");
                let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
                shell.args(["-c", script]).arg(self.program);
                shell
            }
        };
        command
            .args(self.arguments)
            .arg("--config")
            .arg(&config)
            .envs(self.environment.iter().copied())
            .env_remove("SPIFFE_ENDPOINT_SOCKET");
        let stdin = self.passed.map_or_else(Stdio::null, Stdio::from);
        let process = Process::start_with(self.name, &mut command, stdin);
        Sidecar {
            process,
            folder,
            admin,
        }
    }
}

fn write_policy(folder: &Path, text: &str) {
    // Renamed into place, so that no reader sees half of it.
    let temporary = folder.join("policy/.policy.yaml.new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, folder.join("policy/policy.yaml")).unwrap();
}

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    process: Process,
    folder: TempDir,
    admin: SocketAddr,
}

impl Sidecar {
    /// Replaces the policy file.
    pub(crate) fn set_policy(&self, text: &str) {
        write_policy(self.folder.path(), text);
    }

    /// The address of the admin endpoint.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Asks the admin endpoint.
    pub(crate) fn get(&self, path: &str) -> std::io::Result<Response> {
        http::get(&Endpoint::Tcp(self.admin), path)
    }

    /// Asks the admin endpoint with further header lines.
    pub(crate) fn get_with(&self, path: &str, headers: &str) -> Response {
        http::get_with(&Endpoint::Tcp(self.admin), path, headers).unwrap()
    }

    /// Sends any request to the admin endpoint.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Response {
        http::request(&Endpoint::Tcp(self.admin), method, path, headers, body).unwrap()
    }

    /// Where its config is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether `/readyz` says ready now. Not while the endpoint does not answer either.
    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|response| response.status == 200)
    }

    /// Waits until `/readyz` says ready.
    pub(crate) fn wait_ready(&self) {
        eventually_ok(
            &format!("{} is ready", self.process.name()),
            SOON,
            || match self.get("/readyz") {
                Ok(response) if response.status == 200 => Ok(()),
                Ok(response) => Err(response.body),
                Err(error) => Err(error.to_string()),
            },
        );
    }

    /// Waits until the admin endpoint answers and `/readyz` says not ready; gives what it says.
    pub(crate) fn wait_not_ready(&self, timeout: Duration) -> Response {
        eventually(&format!("{} is not ready", self.process.name()), timeout, || {
            self.get("/readyz").ok().filter(|response| response.status == 503)
        })
    }

    /// The serial number of the SVID that new handshakes present.
    pub(crate) fn serial(&self) -> Option<String> {
        let response = self.get("/api/v1/identity").ok()?;
        find_text(&response.json(), "serial").map(str::to_owned)
    }

    /// Waits until it presents another SVID than the one with this serial; gives the new serial.
    pub(crate) fn wait_rotation(&self, old: &str, timeout: Duration) -> String {
        eventually(
            &format!("{} has another SVID than {old}", self.process.name()),
            timeout,
            || self.serial().filter(|serial| serial != old),
        )
    }

    /// The value of the first sample in `/metrics` whose name, and labels where given, start like this.
    pub(crate) fn metric(&self, sample: &str) -> Option<f64> {
        let response = self.get("/metrics").ok()?;
        let line = response.body.lines().find(|line| line.starts_with(sample))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits for a log line after the mark whose message has these words.
    pub(crate) fn wait_words(&self, mark: Mark, words: &str) -> Value {
        self.wait_log(words, mark, |line| {
            line["message"]
                .as_str()
                .is_some_and(|message| message.contains(words))
        })
    }

    /// The end of the log so far.
    pub(crate) fn mark(&self) -> Mark {
        self.process.mark()
    }

    /// Waits for a log line after the mark that holds.
    pub(crate) fn wait_log(&self, what: &str, mark: Mark, holds: impl Fn(&Value) -> bool) -> Value {
        self.process.wait_line(what, mark, SOON, |line| {
            serde_json::from_str::<Value>(line)
                .ok()
                .filter(|value| holds(value))
        })
    }

    /// Waits for the record of a connection that ended after the mark and in which all of these fields have these
    /// values.
    pub(crate) fn wait_record(&self, mark: Mark, fields: &[(&str, &str)]) -> Value {
        self.wait_log(&format!("a record with {fields:?}"), mark, |line| {
            line["target"] == CONNECTION_TARGET && fields.iter().all(|(key, value)| line[key] == *value)
        })
    }

    /// The records written since the mark.
    pub(crate) fn records_since(&self, mark: Mark) -> Vec<Value> {
        self.process.lines_since(mark, |line| {
            serde_json::from_str::<Value>(line)
                .ok()
                .filter(|value| value["target"] == CONNECTION_TARGET)
        })
    }

    /// The process, for its signals, its output and its end.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to wait for.
    pub(crate) fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGTERM, and its end.
    pub(crate) fn terminate(&mut self, timeout: Duration) -> ExitStatus {
        self.process.terminate(timeout)
    }
}

/// The first text under the key, at any depth.
pub(crate) fn find_text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    match value {
        Value::Object(fields) => fields
            .get(key)
            .and_then(Value::as_str)
            .or_else(|| fields.values().find_map(|inner| find_text(inner, key))),
        Value::Array(items) => items.iter().find_map(|inner| find_text(inner, key)),
        _ => None,
    }
}

/// The built program under a path of its own: an attestor that looks at paths takes each for another workload.
pub(crate) struct ProgramCopy {
    path: PathBuf,
    _folder: TempDir,
}

impl ProgramCopy {
    /// A hard link beside the original, where a copy would cost a file system's worth of time.
    pub(crate) fn named(name: &str) -> Self {
        let folder = TempDir::with_prefix_in("svidecar-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join(name);
        if fs::hard_link(SVIDECAR, &path).is_err() {
            fs::copy(SVIDECAR, &path).unwrap();
        }
        // The attestor names the file as the kernel does, with no symbolic link in its path.
        let path = path.canonicalize().unwrap();
        Self {
            path,
            _folder: folder,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The SPIRE selector that means this copy and nothing else.
    pub(crate) fn selector(&self) -> String {
        format!("unix:path:{}", self.path.display())
    }
}
