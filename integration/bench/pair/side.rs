//! One side of the pair: its config, its process.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::certificates::{CLIENT_ID, Certificates, SERVER_ID, TRUST_DOMAIN};

/// Until a side must listen.
const START: Duration = Duration::from_secs(10);
/// Between two knocks at a door that is not there yet.
const KNOCK: Duration = Duration::from_micros(50);
/// What is shown of the log of a side that failed.
const SHOWN_LINES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What a side is started with.
pub(crate) struct Setup<'a> {
    pub(crate) program: &'a Path,
    /// For the config, the policy and the log.
    pub(crate) folder: &'a Path,
    pub(crate) certificates: &'a Certificates,
    pub(crate) workers: Option<u32>,
    pub(crate) resumption: bool,
    pub(crate) max_connections: u32,
    /// What is written and sent about connections.
    pub(crate) evidence: &'a [String],
    /// The agent that is asked for identities, in place of files.
    pub(crate) agent: Option<&'a Path>,
}

impl Setup<'_> {
    /// Writes the config of one side and returns its path.
    pub(crate) fn write(&self, role: Role, listen: SocketAddr, target: SocketAddr) -> Result<PathBuf> {
        let name = match role {
            Role::Client => "client",
            Role::Server => "server",
        };
        let listener = match role {
            Role::Client => format!(
                "outbound:\n  - {{ name: bench, listen: \"{listen}\", connect: \"{target}\", peer: [ \"{SERVER_ID}\" ] }}"
            ),
            Role::Server => {
                format!("inbound:\n  - {{ name: bench, listen: \"{listen}\", upstream: \"{target}\" }}")
            }
        };
        let workers = self
            .workers
            .map(|workers| format!("workers: {workers}\n"))
            .unwrap_or_default();
        let certificate = |kind: &str| {
            self.certificates
                .path(&format!("{name}.{kind}"))
                .display()
                .to_string()
        };
        let identity = match self.agent {
            Some(socket) => {
                let id = match role {
                    Role::Client => CLIENT_ID,
                    Role::Server => SERVER_ID,
                };
                format!("socket: \"unix://{}\"\n  svid: \"{id}\"", socket.display())
            }
            None => format!(
                "files:\n    certificate: {}\n    key: {}\n    bundles: {{ {TRUST_DOMAIN}: {} }}",
                certificate("crt"),
                certificate("key"),
                self.certificates.path("ca.crt").display()
            ),
        };
        // Of its own: a confined process may remove what lies beside a socket that it makes.
        let admin = self.folder.join("admin");
        fs::create_dir_all(&admin)?;
        let text = format!(
            "identity:\n  {identity}\n\
             policy: {{ path: policy.yaml }}\n{listener}\n{workers}\
             tls: {{ resumption: {} }}\n\
             limits: {{ max_connections: {}, idle_timeout: 1h }}\n\
             {}\
             admin: {{ listen: \"unix://{}\" }}\n",
            self.resumption,
            self.max_connections,
            self.telemetry(name),
            admin.join(format!("{name}.sock")).display(),
        );
        let policy = format!("rules:\n  - {{ name: bench, action: allow, from: [ \"{CLIENT_ID}\" ] }}\n");
        fs::write(self.folder.join("policy.yaml"), policy)?;
        let path = self.folder.join(format!("{name}.yaml"));
        fs::write(&path, text)?;
        Ok(path)
    }

    /// What is told of connections: nothing but trouble, or all there is to tell. Nobody takes the traces; those that are made
    /// wait, and then are lost.
    fn telemetry(&self, name: &str) -> String {
        let (mut telemetry, mut audit) = ("telemetry:\n  log: { level: warn }\n".to_owned(), String::new());
        for part in self.evidence {
            match part.as_str() {
                "audit" => audit = format!("audit: {{ file: {name}.audit.jsonl }}\n"),
                "traces" => {
                    let collector = self.folder.join("collector.sock");
                    let collector = collector.display();
                    telemetry += &format!(
                        "  traces: {{ otlp: {{ endpoint: \"unix://{collector}\" }}, sample: 0.01 }}\n"
                    );
                }
                file => telemetry += &format!("  {file}: {{ file: {name}.{file}.jsonl }}\n"),
            }
        }
        telemetry + &audit
    }

    /// Starts one side and waits until it listens. What it is asked for after that may still be refused for a moment.
    pub(crate) fn start(&self, role: Role, listen: SocketAddr, target: SocketAddr) -> Result<Side> {
        let config = self.write(role, listen, target)?;
        let log = config.with_extension("log");
        let output = File::create(&log)?;
        let began = Instant::now();
        let child = Command::new(self.program)
            .args(["run", "--config"])
            .arg(&config)
            .env_remove("SPIFFE_ENDPOINT_SOCKET")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut side = Side {
            child,
            log,
            listen,
            listening_after: Duration::ZERO,
        };
        while TcpStream::connect(listen).is_err() {
            if side.child.try_wait()?.is_some() || began.elapsed() > START {
                return Err(side.explain("it does not listen").into());
            }
            std::thread::sleep(KNOCK);
        }
        side.listening_after = began.elapsed();
        Ok(side)
    }

    /// Whether this build resumes sessions. One that doesn't warns of the setting, or refuses it.
    pub(crate) fn resumes(&self) -> Result<bool> {
        let config = self.write(Role::Server, free_address()?, free_address()?)?;
        let output = Command::new(self.program)
            .args(["check", "--config"])
            .arg(config)
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok(output.status.success() && !String::from_utf8_lossy(&said).contains("tls.resumption"))
    }
}

/// A running side. Killed, by its own process ID, when dropped.
pub(crate) struct Side {
    child: Child,
    log: PathBuf,
    pub(crate) listen: SocketAddr,
    /// From before its start to the first connection that it took.
    pub(crate) listening_after: Duration,
}

impl Side {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What went wrong, with the end of the log.
    pub(crate) fn explain(&self, what: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let shown = lines
            .get(lines.len().saturating_sub(SHOWN_LINES)..)
            .unwrap_or_default();
        format!(
            "{what}; the end of `{}`:\n{}",
            self.log.display(),
            shown.join("\n")
        )
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of loopback whose port was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
