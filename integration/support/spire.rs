//! The real SPIRE: a server and an agent from PATH, with everything they keep in a folder that goes with them.
//!
//! Workloads are attested by the `unix` attestor. All processes of a test run as one user, so entries select by
//! `unix:path` where they must tell workloads apart ([`super::sidecar::ProgramCopy`]).

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tempfile::TempDir;

use super::net::free_address;
use super::process::{Process, output_of, try_output_of};
use super::{SOON, eventually_ok, on_path, skip};

const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A SPIRE server with one agent.
pub(crate) struct Spire {
    // Dropped in this order: the agent, what it speaks to, what both keep.
    agent: Mutex<Option<Process>>,
    _server: Process,
    folder: TempDir,
    trust_domain: String,
    address: SocketAddr,
}

/// A registration entry.
pub(crate) struct Entry<'a> {
    /// The SPIFFE ID's path with its slash.
    pub(crate) path: &'a str,
    /// What the workload must be; all of them.
    pub(crate) selectors: &'a [&'a str],
    /// How long its SVIDs live. SPIRE renews them at half of it.
    pub(crate) ttl: Duration,
    /// The other trust domains whose bundles it gets.
    pub(crate) federates_with: &'a [&'a str],
    /// The hint that comes with its SVID.
    pub(crate) hint: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// An entry with a TTL of one minute.
    pub(crate) fn new(path: &'a str, selectors: &'a [&'a str]) -> Self {
        Self {
            path,
            selectors,
            ttl: Duration::from_secs(60),
            federates_with: &[],
            hint: None,
        }
    }
}

/// `unix:uid` of the user that the tests run as.
pub(crate) fn own_uid() -> String {
    format!("unix:uid:{}", fs::metadata("/proc/self").unwrap().uid())
}

impl Spire {
    /// Starts a server and an agent of this trust domain; none, said loudly, where SPIRE is not on PATH.
    pub(crate) fn start(trust_domain: &str) -> Option<Self> {
        for program in ["spire-server", "spire-agent"] {
            if !on_path(program) {
                skip(&format!("real SPIRE: no {program} on PATH"));
                return None;
            }
        }
        let folder = TempDir::with_prefix("spire-").unwrap();
        let address = free_address();
        fs::write(
            folder.path().join("server.conf"),
            server_config(folder.path(), trust_domain, address),
        )
        .unwrap();
        let mut command = Command::new("spire-server");
        command
            .arg("run")
            .arg("-config")
            .arg(folder.path().join("server.conf"));
        let server = Process::start(&format!("spire-server of {trust_domain}"), &mut command);
        let spire = Self {
            agent: Mutex::new(None),
            _server: server,
            folder,
            trust_domain: trust_domain.to_owned(),
            address,
        };
        eventually_ok("the SPIRE server is healthy", SOON, || {
            spire.try_server(&["healthcheck"])
        });
        fs::write(
            spire.folder.path().join("bundle.pem"),
            spire.server(&["bundle", "show"]),
        )
        .unwrap();
        let token = spire.server(&["token", "generate", "-spiffeID", &spire.id("/agent")]);
        let token = token.trim().strip_prefix("Token:").expect("a join token").trim();
        fs::write(spire.folder.path().join("agent.conf"), spire.agent_config(token)).unwrap();
        spire.start_agent();
        Some(spire)
    }

    /// The instance that tests of this process share while any of them holds it.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Spire>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        if let Some(spire) = shared.upgrade() {
            return Some(spire);
        }
        let spire = Arc::new(Self::start("example.org")?);
        *shared = Arc::downgrade(&spire);
        Some(spire)
    }

    /// An ID of its trust domain.
    pub(crate) fn id(&self, path: &str) -> String {
        format!("spiffe://{}{path}", self.trust_domain)
    }

    /// The address of the agent's Workload API.
    pub(crate) fn workload_api(&self) -> String {
        format!("unix://{}", self.agent_socket().display())
    }

    fn agent_socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Runs a `spire-server` command against the server; panics when it fails.
    pub(crate) fn server(&self, arguments: &[&str]) -> String {
        output_of(&mut self.server_command(arguments), COMMAND_TIMEOUT)
    }

    fn try_server(&self, arguments: &[&str]) -> Result<String, String> {
        try_output_of(&mut self.server_command(arguments), COMMAND_TIMEOUT)
    }

    fn server_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("spire-server");
        command
            .args(arguments)
            .arg("-socketPath")
            .arg(self.folder.path().join("server.sock"));
        command
    }

    /// Creates a registration entry; gives the entry's own ID.
    pub(crate) fn register(&self, entry: &Entry<'_>) -> String {
        let (agent, id, ttl) = (
            self.id("/agent"),
            self.id(entry.path),
            entry.ttl.as_secs().to_string(),
        );
        let mut arguments = vec![
            "entry",
            "create",
            "-parentID",
            &agent,
            "-spiffeID",
            &id,
            "-x509SVIDTTL",
            &ttl,
        ];
        for selector in entry.selectors {
            arguments.extend(["-selector", selector]);
        }
        let others: Vec<String> = entry
            .federates_with
            .iter()
            .map(|td| format!("spiffe://{td}"))
            .collect();
        for other in &others {
            arguments.extend(["-federatesWith", other]);
        }
        if let Some(hint) = entry.hint {
            arguments.extend(["-hint", hint]);
        }
        let output = self.server(&arguments);
        let id = output.lines().find_map(|line| line.strip_prefix("Entry ID"));
        id.and_then(|rest| rest.split(':').nth(1))
            .expect("the entry's ID")
            .trim()
            .to_owned()
    }

    /// Deletes a registration entry.
    pub(crate) fn delete(&self, entry_id: &str) {
        self.server(&["entry", "delete", "-entryID", entry_id]);
    }

    /// Trusts the authorities of another SPIRE for its own trust domain, as they are now.
    pub(crate) fn federate_with(&self, other: &Self) {
        let file = self.folder.path().join(format!("{}.bundle", other.trust_domain));
        fs::write(&file, other.server(&["bundle", "show", "-format", "spiffe"])).unwrap();
        let id = format!("spiffe://{}", other.trust_domain);
        self.server(&[
            "bundle",
            "set",
            "-format",
            "spiffe",
            "-id",
            &id,
            "-path",
            file.to_str().unwrap(),
        ]);
    }

    /// Forgets the bundle of another trust domain; entries that federate with it stay.
    pub(crate) fn end_federation_with(&self, other: &Self) {
        let id = format!("spiffe://{}", other.trust_domain);
        self.server(&["bundle", "delete", "-mode", "dissociate", "-id", &id]);
    }

    /// Kills the agent, as a crash would; its socket stays behind.
    pub(crate) fn kill_agent(&self) {
        drop(self.agent.lock().unwrap().take());
    }

    /// Starts the agent, again after [`Self::kill_agent`]: it knows itself by what it kept, and makes its socket anew.
    pub(crate) fn start_agent(&self) {
        let mut command = Command::new("spire-agent");
        command
            .arg("run")
            .arg("-config")
            .arg(self.folder.path().join("agent.conf"));
        let process = Process::start(&format!("spire-agent of {}", self.trust_domain), &mut command);
        eventually_ok("the SPIRE agent is healthy", SOON, || {
            let mut command = Command::new("spire-agent");
            command
                .arg("healthcheck")
                .arg("-socketPath")
                .arg(self.agent_socket());
            try_output_of(&mut command, COMMAND_TIMEOUT)
        });
        *self.agent.lock().unwrap() = Some(process);
    }

    fn agent_config(&self, token: &str) -> String {
        let (folder, trust_domain) = (self.folder.path().display(), &self.trust_domain);
        let (host, port) = (self.address.ip(), self.address.port());
        // The interval is a tenth of the usual one: tests wait for what the server was told.
        format!(
            r#"
agent {{
    data_dir = "{folder}/agent"
    log_level = "INFO"
    server_address = "{host}"
    server_port = "{port}"
    socket_path = "{folder}/agent.sock"
    trust_bundle_path = "{folder}/bundle.pem"
    trust_domain = "{trust_domain}"
    join_token = "{token}"
    experimental {{
        sync_interval = "500ms"
    }}
}}
plugins {{
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
    KeyManager "disk" {{
        plugin_data {{
            directory = "{folder}/agent"
        }}
    }}
    WorkloadAttestor "unix" {{
        plugin_data {{
            discover_workload_path = true
            workload_size_limit = -1
        }}
    }}
}}
"#
        )
    }
}

fn server_config(folder: &Path, trust_domain: &str, address: SocketAddr) -> String {
    let (folder, host, port) = (folder.display(), address.ip(), address.port());
    format!(
        r#"
server {{
    bind_address = "{host}"
    bind_port = "{port}"
    socket_path = "{folder}/server.sock"
    trust_domain = "{trust_domain}"
    data_dir = "{folder}/server"
    log_level = "INFO"
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "sqlite3"
            connection_string = "{folder}/server/datastore.sqlite3"
        }}
    }}
    KeyManager "memory" {{
        plugin_data {{}}
    }}
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
}}
"#
    )
}
