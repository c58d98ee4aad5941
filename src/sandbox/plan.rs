//! What the process will need of the system once it is confined: folders, sockets' folders, TCP ports, each with the
//! reason in words.
//!
//! Pure: made of checked settings, and of what [`Surroundings`] say about the machine. The same list confines the process
//! at its start and tells, when other settings come later, what these would need beyond it ([`Plan::lacking`]). Applying it
//! is [`super::landlock`]'s.
//!
//! Folders, not files: what is read again is replaced by rename, and a rule of Landlock belongs to the file that was there
//! when the rule was made.

mod caution;
#[cfg(test)]
mod tests;

pub use caution::Caution;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::settings::{
    Address, Connect, DialledPorts, IdentitySource, Listener, ListenerKind, Otlp, Settings, Target, Upstream,
};

/// Where names are asked for.
const DNS: u16 = 53;
/// What random numbers are read from by a library that finds no `getrandom(2)` in a static binary: the resolver's.
const RANDOM: [&str; 2] = ["/dev/random", "/dev/urandom"];
/// What the metrics of the process are read from. None of it belongs to another process.
const PROCESS: [&str; 2] = ["/proc/self", "/proc/stat"];

/// What the C library's resolver, which asks for collectors, reads at each look-up, as far as it is there.
const C_RESOLVER: [&str; 5] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
];

/// What the machine contributes to a plan, as a value.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The real folders that a file at this path, which may not exist, is found in: its own, and those where symbolic links
    /// on the way lead. Never the root of the file system; a path of the root's is returned itself.
    pub folders: &'a dyn Fn(&Path) -> Vec<PathBuf>,
    /// Whether there is a file at this path.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// The first TCP port that can be bound without a capability.
    pub first_free_port: u16,
}

/// One thing that the process may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read files, and list folders, in and below this folder.
    Read(PathBuf),
    /// That, and make, write, rename and remove files there.
    Write(PathBuf),
    /// Make unix sockets in this folder; remove any file in and below it, as a kernel knows no narrower right.
    Sockets(PathBuf),
    /// Bind a TCP socket to this port, whatever the address.
    Bind(SocketAddr),
    /// Connect to this TCP port, wherever.
    Connect(u16),
    /// Connect to any TCP port: which, is known only when a redirected connection comes.
    ConnectAnywhere,
    /// Know how names are resolved. It is read before the process is confined, and allows it nothing afterwards.
    Names,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(folder) => write!(f, "reading in `{}`", folder.display()),
            Self::Write(folder) => write!(f, "writing in `{}`", folder.display()),
            Self::Sockets(folder) => write!(f, "a unix socket in `{}`", folder.display()),
            Self::Bind(address) => write!(f, "binding TCP port {}", address.port()),
            Self::Connect(port) => write!(f, "connecting to TCP port {port}"),
            Self::ConnectAnywhere => f.write_str("connecting to any TCP port"),
            Self::Names => f.write_str("reading `/etc/hosts` and `/etc/resolv.conf`"),
        }
    }
}

/// One thing that the process may do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What.
    pub access: Access,
    /// For what: a part of the config, in its own words.
    pub why: String,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.access)
    }
}

/// Which parts of a plan the kernel holds the process to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Folders.
    pub files: bool,
    /// TCP ports.
    pub network: bool,
    /// No capability is left.
    pub capabilities: bool,
}

/// Something that other settings need and a confined process cannot get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What would be needed, and for what.
    pub grant: Grant,
    /// The port could be bound with a capability that was given up at the start, where that is what is missing.
    pub capability: bool,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.grant.fmt(f)?;
        if self.capability {
            f.write_str(" takes a capability, and those were given up at the start")?;
        }
        Ok(())
    }
}

/// Everything that the process will need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    grants: Vec<Grant>,
    first_free_port: u16,
    held: Held,
}

impl Plan {
    /// What these settings, read from `config_file`, need. Nothing holds the process to it yet.
    #[must_use]
    pub fn of(settings: &Settings, config_file: &Path, surroundings: &Surroundings<'_>) -> Self {
        let mut making = Making {
            surroundings,
            grants: Vec::new(),
            names: false,
            collectors: false,
        };
        making.read("the config file", config_file);
        making.documents(settings);
        making.written(settings);
        for listener in &settings.listeners {
            making.listener(listener);
        }
        if let Some(admin) = &settings.admin {
            making.listen("`admin.listen`", &admin.listen);
            if let Some(probes) = admin.probes {
                making.grant("`admin.probes`", Access::Bind(probes));
            }
        }
        making.otlp(settings);
        making.system();
        Self {
            grants: making.grants,
            first_free_port: surroundings.first_free_port,
            held: Held::default(),
        }
    }

    /// This plan, as far as the process is held to it now.
    #[must_use]
    pub const fn held(mut self, held: Held) -> Self {
        self.held = held;
        self
    }

    /// What it grants.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// This plan but for what could not be granted.
    #[must_use]
    pub fn without(mut self, unmade: &[Grant]) -> Self {
        self.grants.retain(|grant| !unmade.contains(grant));
        self
    }

    /// Whether something is connected to by its name.
    #[must_use]
    pub fn names(&self) -> bool {
        self.grants.iter().any(|grant| grant.access == Access::Names)
    }

    /// What `wanted` needs beyond what the settings in force need, and the process cannot get any more, because it is held to
    /// this plan. Empty where nothing holds it. What those in force need is had (a port is bound), or is lacking already and
    /// no reason against other settings.
    #[must_use]
    pub fn lacking(&self, in_force: &Self, wanted: &Self) -> Vec<Lack> {
        let is_new = |grant: &&Grant| !in_force.grants.iter().any(|now| now.access == grant.access);
        self.lacks(wanted.grants.iter().filter(is_new))
    }

    /// The folders that `in_force`, as files lie now, are read from and that the process may not read: a link leads elsewhere
    /// than it did at the start, or the folder was not there.
    #[must_use]
    pub fn unreadable(&self, in_force: &Self) -> Vec<Lack> {
        let reads = |grant: &&Grant| matches!(grant.access, Access::Read(_));
        self.lacks(in_force.grants.iter().filter(reads))
    }

    fn lacks<'a>(&self, wanted: impl Iterator<Item = &'a Grant>) -> Vec<Lack> {
        let lack = |grant: &Grant| {
            let capability = self.needs_capability(&grant.access);
            (capability || self.forbids(&grant.access)).then(|| Lack {
                grant: grant.clone(),
                capability,
            })
        };
        wanted.filter_map(lack).collect()
    }

    fn forbids(&self, wanted: &Access) -> bool {
        let held = match wanted {
            Access::Read(_) | Access::Write(_) | Access::Sockets(_) | Access::Names => self.held.files,
            Access::Bind(_) | Access::Connect(_) | Access::ConnectAnywhere => self.held.network,
        };
        held && !self.grants.iter().any(|grant| covers(&grant.access, wanted))
    }

    /// Whether a port would have to be bound that takes a capability.
    fn needs_capability(&self, wanted: &Access) -> bool {
        let Access::Bind(address) = wanted else {
            return false;
        };
        self.held.capabilities && (1..self.first_free_port).contains(&address.port())
    }
}

/// Whether who may do `granted` may do `wanted`.
fn covers(granted: &Access, wanted: &Access) -> bool {
    match (granted, wanted) {
        (Access::Read(have) | Access::Write(have), Access::Read(want))
        | (Access::Write(have), Access::Write(want))
        | (Access::Sockets(have), Access::Sockets(want)) => want.starts_with(have),
        (Access::Bind(have), Access::Bind(want)) => have.port() == want.port(),
        (Access::Connect(have), Access::Connect(want)) => have == want,
        (Access::ConnectAnywhere, Access::Connect(_) | Access::ConnectAnywhere)
        | (Access::Names, Access::Names) => true,
        _ => false,
    }
}

/// A plan that is being made.
struct Making<'a> {
    surroundings: &'a Surroundings<'a>,
    grants: Vec<Grant>,
    /// Whether a peer or the application is to be connected to by its name.
    names: bool,
    /// Whether a collector is.
    collectors: bool,
}

impl Making<'_> {
    fn grant(&mut self, why: &str, access: Access) {
        let why = why.to_owned();
        self.grants.push(Grant { access, why });
    }

    fn in_folders(&mut self, why: &str, path: &Path, access: fn(PathBuf) -> Access) {
        for folder in (self.surroundings.folders)(path) {
            self.grant(why, access(folder));
        }
    }

    /// A file that is read again and again.
    fn read(&mut self, why: &str, path: &Path) {
        self.in_folders(why, path, Access::Read);
    }

    /// A file that is written and rotated.
    fn write(&mut self, why: &str, path: &Path) {
        self.in_folders(why, path, Access::Write);
    }

    fn documents(&mut self, settings: &Settings) {
        let policy = &settings.policy;
        let token = settings
            .admin
            .as_ref()
            .and_then(|admin| admin.token_file.as_ref());
        for (why, path) in [
            ("`policy.path`", policy.path.as_ref()),
            ("`policy.deny_list`", policy.deny_list.as_ref()),
            ("`policy.candidate`", policy.candidate.as_ref()),
            ("`admin.token_file`", token),
        ] {
            if let Some(path) = path {
                self.read(why, path);
            }
        }
        match &settings.identity.source {
            IdentitySource::Files(files) => {
                self.read("`identity.files.certificate`", &files.certificate);
                self.read("`identity.files.key`", &files.key);
                for path in files.bundles.values() {
                    self.read("`identity.files.bundles`", path);
                }
            }
            IdentitySource::WorkloadApi(Address::Tcp(address)) => {
                self.grant("`identity.socket`", Access::Connect(address.port()));
            }
            // Whom a unix socket belongs to is not held back by what is granted here.
            IdentitySource::WorkloadApi(Address::Unix(_)) => {}
        }
    }

    fn written(&mut self, settings: &Settings) {
        if let Some(audit) = &settings.audit {
            self.write("`audit.file`", &audit.path);
        }
        if let Some(decisions) = &settings.decisions {
            self.write("`telemetry.decisions.file`", &decisions.path);
        }
        if let Some(file) = settings.access_log.as_ref().and_then(|log| log.file.as_ref()) {
            self.write("`telemetry.access_log.file`", &file.path);
        }
    }

    fn listener(&mut self, listener: &Listener) {
        let why = format!("listener `{}`", listener.name);
        self.listen(&why, &listener.listen);
        match &listener.kind {
            ListenerKind::Inbound {
                upstream: Upstream::Application(target),
                ..
            }
            | ListenerKind::Outbound { connect: target, .. } => self.connect(&why, target),
            ListenerKind::Inbound {
                upstream: Upstream::Own(_),
                ..
            } => {}
            ListenerKind::Inbound {
                upstream: Upstream::Original,
                ..
            }
            | ListenerKind::Transparent(_) => self.destinations(&why, listener),
        }
    }

    /// Where a transparent listener goes.
    fn destinations(&mut self, why: &str, listener: &Listener) {
        match listener.dialled_ports() {
            DialledPorts::These(ports) => {
                for port in ports {
                    self.grant(why, Access::Connect(port));
                }
            }
            DialledPorts::Any => self.grant(why, Access::ConnectAnywhere),
        }
        if let ListenerKind::Transparent(destinations) = &listener.kind {
            self.names |= destinations
                .list
                .iter()
                .any(|destination| matches!(destination.connect, Connect::Target(Target::Name(..))));
        }
    }

    fn listen(&mut self, why: &str, address: &Address) {
        match address {
            Address::Tcp(address) => self.grant(why, Access::Bind(*address)),
            Address::Unix(path) => self.in_folders(why, path, Access::Sockets),
        }
    }

    fn connect(&mut self, why: &str, target: &Target) {
        match target {
            Target::Ip(address) => self.grant(why, Access::Connect(address.port())),
            Target::Name(_, port) => {
                self.names = true;
                self.grant(why, Access::Connect(*port));
            }
            Target::Unix(_) => {}
        }
    }

    fn otlp(&mut self, settings: &Settings) {
        let traces = settings
            .traces
            .iter()
            .map(|traces| ("`telemetry.traces`".to_owned(), &traces.otlp));
        let sinks = settings.audit.iter().flat_map(|audit| &audit.sinks);
        let sinks = sinks.map(|sink| (format!("audit sink `{}`", sink.name), &sink.otlp));
        let collectors: Vec<(String, &Otlp)> = traces.chain(sinks).collect();
        for (why, otlp) in collectors {
            match &otlp.endpoint {
                Target::Name(_, port) => {
                    self.collectors = true;
                    self.grant(&why, Access::Connect(*port));
                }
                endpoint => self.connect(&why, endpoint),
            }
        }
    }

    /// What no line of the config names.
    fn system(&mut self) {
        for path in PROCESS {
            self.grant("metrics of the process", Access::Read(path.into()));
        }
        for path in RANDOM {
            self.grant("random numbers", Access::Read(path.into()));
        }
        if self.names {
            self.grant("resolving names", Access::Names);
        }
        if self.collectors {
            let there = C_RESOLVER.iter().map(Path::new);
            for file in there.filter(|file| (self.surroundings.exists)(file)) {
                // The files alone, as secrets lie beside them; they are seldom replaced.
                self.grant("resolving collectors' names", Access::Read(file.to_owned()));
            }
        }
        if self.names || self.collectors {
            self.grant("resolving names", Access::Connect(DNS));
        }
    }
}
