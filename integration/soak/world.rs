//! What is put to the test: two sidecars, the application behind them, the agent, a small disk for the audit logs, and a
//! clock.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::agent::{Agent, ORDERS, STOREFRONT};
use crate::application::Application;
use crate::clients::{Ledger, connect, end};
use crate::frame::Question;
use crate::options::Options;
use crate::support::net::free_address;
use crate::support::process::try_output_of;
use crate::support::sidecar::{SVIDECAR, Setup, Sidecar};
use crate::support::{SOON, eventually_ok, on_path};
use crate::weather::Weather;

/// The life of an SVID, in all weathers but a crowd's.
pub(crate) const TTL: Duration = Duration::from_secs(10);
/// Room for both audit logs: less than a long run writes, more than they keep.
const DISK: &str = "12m";
/// The client number of probes.
const PROBE: u32 = 900_000;

/// Says that the run is lost.
#[derive(Debug, Default)]
pub(crate) struct Alarm(OnceLock<String>);

impl Alarm {
    /// Ends the run. The first reason stays.
    pub(crate) fn raise(&self, why: String) {
        let _ = self.0.set(why);
    }

    /// Panics where it was raised.
    pub(crate) fn check(&self) {
        if let Some(why) = self.0.get() {
            panic!("the run ends here: {why}");
        }
    }
}

/// All of it.
pub(crate) struct World {
    /// Where storefront's application connects.
    pub(crate) plain: SocketAddr,
    /// Where orders' sidecar takes TLS connections.
    pub(crate) tls: SocketAddr,
    pub(crate) weather: Arc<Weather>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) alarm: Arc<Alarm>,
    pub(crate) options: Options,
    // In the order in which they end.
    /// Storefront's sidecar: outbound, serves on when its audit log fails.
    pub(crate) storefront: Sidecar,
    /// Orders' sidecar: inbound, lets nobody in when its audit log fails.
    pub(crate) orders: Sidecar,
    pub(crate) application: Application,
    pub(crate) agent: Agent,
    /// The sidecars' clock, or why they have none but the machine's.
    pub(crate) clock: Result<ClockFile, String>,
    /// The audit logs' disk, or why they have none of their own.
    pub(crate) disk: Result<Disk, String>,
    audit: PathBuf,
    folder: TempDir,
}

impl World {
    pub(crate) fn start(options: Options) -> Arc<Self> {
        let folder = TempDir::with_prefix("svidecar-soak-").unwrap();
        let audit = folder.path().join("audit");
        fs::create_dir(&audit).unwrap();
        let disk = Disk::mount(&audit);
        let clock = ClockFile::make(folder.path());
        let agent = Agent::start(folder.path(), TTL);
        let application = Application::start();
        let program = program(folder.path(), clock.as_ref().ok());
        let (plain, tls) = (free_address(), free_address());
        let common = |name: &str, on_failure: &str| {
            format!(
                "limits: {{ max_connections: 9900 }}\naudit: {{ file: {}/{name}.jsonl, on_failure: {on_failure}, max_size: 1MiB, keep: 3, \
                 checkpoint_every: 5s }}\n",
                audit.display()
            )
        };
        let orders = Setup::new(
            "orders",
            format!(
                "{}policy: {{ path: policy/ }}\ninbound:\n  - name: orders\n    listen: {tls}\n    upstream: {}\n{}",
                agent.identity(ORDERS),
                application.addr(),
                common("orders", "deny")
            ),
        );
        let orders = orders.policy(&policy(0)).program(&program).start();
        let storefront = Setup::new(
            "storefront",
            format!(
                "{}outbound:\n  - name: to-orders\n    listen: {plain}\n    connect: {tls}\n    peer: [\"{ORDERS}\"]\n{}",
                agent.identity(STOREFRONT),
                common("storefront", "continue")
            ),
        );
        let storefront = storefront.program(&program).start();
        for sidecar in [&orders, &storefront] {
            sidecar.wait_ready();
        }
        Arc::new(Self {
            plain,
            tls,
            weather: Arc::default(),
            ledger: Arc::default(),
            alarm: Arc::default(),
            options,
            storefront,
            orders,
            application,
            agent,
            clock,
            disk,
            audit,
            folder,
        })
    }

    /// Both, by name.
    pub(crate) fn sidecars(&self) -> [(&'static str, &Sidecar); 2] {
        [("storefront", &self.storefront), ("orders", &self.orders)]
    }

    /// A sidecar's audit log.
    pub(crate) fn audit_log(&self, name: &str) -> PathBuf {
        self.audit.join(format!("{name}.jsonl"))
    }

    /// A file with the trust domain's root.
    pub(crate) fn bundle(&self) -> PathBuf {
        let path = self.folder.path().join("bundle.pem");
        fs::write(&path, self.agent.bundle()).unwrap();
        path
    }

    /// Lets time pass, unless the run is lost.
    pub(crate) fn pause(&self, how_long: Duration) {
        let end = Instant::now() + how_long;
        while Instant::now() < end {
            self.alarm.check();
            std::thread::sleep(Duration::from_millis(20).min(how_long));
        }
    }

    /// Waits until a new connection is answered, as after a trouble.
    pub(crate) fn wait_served(&self) {
        eventually_ok("a new connection is answered", SOON, || {
            self.alarm.check();
            let stream = connect(self.plain)?;
            let question = Question {
                client: PROBE,
                number: 1,
                length: 100,
            };
            question.ask(&stream)?;
            end(&stream)
        });
    }

    /// Waits until a metric of both sidecars has this value.
    pub(crate) fn wait_metric(&self, sample: &str, value: f64) {
        for (name, sidecar) in self.sidecars() {
            eventually_ok(&format!("{sample}is {value} at {name}"), SOON + TTL, || {
                self.alarm.check();
                match sidecar.metric(sample) {
                    Some(now) if (now - value).abs() < f64::EPSILON => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }
}

/// The policy's `n`th edition: storefront is let in by each, and everything else differs.
pub(crate) fn policy(n: u32) -> String {
    let mut text = "rules:\n".to_owned();
    for other in 0..n % 7 {
        text += &format!(
            "  - name: other-{n}-{other}\n    action: {}\n    from: [\"spiffe://example.org/other/{n}/{other}\"]\n",
            ["allow", "deny", "audit"][(n + other) as usize % 3]
        );
    }
    text + &format!("  - name: storefront\n    action: allow\n    from: [\"{STOREFRONT}\"]\n")
}

/// The built program, with the clock where there is one.
fn program(folder: &Path, clock: Option<&ClockFile>) -> PathBuf {
    let Some(clock) = clock else {
        return SVIDECAR.into();
    };
    let script = folder.join("svidecar");
    let text = format!(
        "#!/bin/sh\nLD_PRELOAD={} SVIDECAR_SOAK_CLOCK={} exec {SVIDECAR} \"$@\"\n",
        clock.library.display(),
        clock.file.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    script
}

/// A clock that all sidecars look at (`clock.c`).
pub(crate) struct ClockFile {
    library: PathBuf,
    file: PathBuf,
}

impl ClockFile {
    fn make(folder: &Path) -> Result<Self, String> {
        if !on_path("cc") {
            return Err("there is no C compiler".to_owned());
        }
        let mut start = Vec::new();
        let program = fs::File::open(SVIDECAR).unwrap();
        program.take(4096).read_to_end(&mut start).unwrap();
        if !start.windows(5).any(|bytes| bytes == b"/ld-l") {
            return Err("the program is static: nothing can be preloaded".to_owned());
        }
        let clock = Self {
            library: folder.join("clock.so"),
            file: folder.join("clock"),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/soak/clock.c");
        let mut command = Command::new("cc");
        command
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(&clock.library)
            .arg(source);
        try_output_of(&mut command, SOON)?;
        fs::write(&clock.file, 0_i64.to_ne_bytes()).unwrap();
        let shows = |seconds: i64| {
            clock.step(seconds);
            let mut date = Command::new("date");
            date.arg("+%s")
                .env("LD_PRELOAD", &clock.library)
                .env("SVIDECAR_SOAK_CLOCK", &clock.file);
            try_output_of(&mut date, SOON)?
                .trim()
                .parse::<i64>()
                .map_err(|e| e.to_string())
        };
        let difference = shows(3600)? - shows(0)?;
        if (3500..3700).contains(&difference) {
            Ok(clock)
        } else {
            Err(format!(
                "a clock that was stepped by an hour went by {difference} s"
            ))
        }
    }

    /// Sets it to the machine's time and so many seconds.
    pub(crate) fn step(&self, seconds: i64) {
        // In place: it is mapped. Eight bytes in a line of memory are written at once.
        let mut file = fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        file.write_all(&seconds.to_ne_bytes()).unwrap();
    }
}

/// A small file system in memory.
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    fn mount(folder: &Path) -> Result<Self, String> {
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "svidecar-soak"])
            .arg(folder);
        try_output_of(&mut command, SOON).map_err(|error| format!("nothing can be mounted: {error}"))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Writes until it is full.
    pub(crate) fn fill(&self) {
        let mut file = fs::File::create(self.folder.join("filler")).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Frees what was filled.
    pub(crate) fn free(&self) {
        fs::remove_file(self.folder.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there is about to end.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
