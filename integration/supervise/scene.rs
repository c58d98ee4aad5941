//! A supervised sidecar before an application that echoes.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::plain::Door;
use crate::support::net::free_address;
use crate::support::process::Mark;
use crate::support::sidecar::{SVIDECAR, Setup, Sidecar};
use crate::support::{SOON, eventually};
use crate::world::{Api, ORDERS, STOREFRONT, STOREFRONT_ONLY};

/// The sidecar's other end is the test's: what comes out of it, the test plays.
pub(crate) struct Supervised {
    pub(crate) api: Api,
    pub(crate) app: Door,
    pub(crate) sidecar: Sidecar,
    /// Where it takes TLS connections.
    pub(crate) tls: SocketAddr,
}

pub(crate) const SUPERVISE: &[&str] = &["supervise"];

/// The config of a sidecar that takes connections for `app`.
pub(crate) fn inbound(api: &Api, tls: SocketAddr, app: SocketAddr, settings: &str) -> String {
    format!(
        "{}  svid: {ORDERS}\npolicy:\n  path: policy/\ninbound:\n  - name: orders\n    listen: {tls}\n    upstream: {app}\n{settings}",
        api.identity()
    )
}

impl Supervised {
    /// Started and ready.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_as(settings, Path::new(SVIDECAR), SUPERVISE)
    }

    /// Started from this program by this command, and ready.
    pub(crate) fn start_as(settings: &str, program: &Path, arguments: &[&str]) -> Self {
        let api = Api::start(&[ORDERS, STOREFRONT]);
        let (tls, app) = (free_address(), Door::open());
        let setup = Setup::new("orders", inbound(&api, tls, app.addr(), settings))
            .policy(STOREFRONT_ONLY)
            .program(program)
            .arguments(arguments);
        let sidecar = setup.start();
        sidecar.wait_ready();
        Self {
            api,
            app,
            sidecar,
            tls,
        }
    }

    /// SIGUSR2, and what the supervisor says came of it.
    pub(crate) fn upgrade(&self) -> String {
        upgrade(&self.sidecar)
    }

    /// SIGUSR2 with no agent to ask: the new child waits for its identity, and the old one holds what it has. Says where the log
    /// was before.
    pub(crate) fn upgrade_that_waits(&mut self) -> Mark {
        self.api.go();
        let mark = self.sidecar.mark();
        self.sidecar.process().signal(Signal::USR2);
        self.sidecar
            .wait_words(mark, "not accepted from before everything else is ready");
        mark
    }

    pub(crate) fn config(&self) -> std::path::PathBuf {
        self.sidecar.folder().join("svidecar.yaml")
    }

    /// The processes that it has started and that run.
    pub(crate) fn children(&self) -> Vec<i32> {
        children(self.sidecar.process().pid())
    }

    /// The only child.
    pub(crate) fn child(&self) -> i32 {
        eventually("there is one child", SOON, || match self.children()[..] {
            [child] => Some(child),
            _ => None,
        })
    }
}

/// SIGUSR2, and what the supervisor says came of it.
pub(crate) fn upgrade(sidecar: &Sidecar) -> String {
    let mark = sidecar.mark();
    sidecar.process().signal(Signal::USR2);
    wait_upgrade(sidecar, mark)
}

pub(crate) fn wait_upgrade(sidecar: &Sidecar, mark: Mark) -> String {
    let line = sidecar.wait_log("what came of the upgrade", mark, |line| {
        line["message"].as_str().is_some_and(|message| {
            message.contains("is ready and in charge") || message.contains("the upgrade failed")
        })
    });
    line["message"].as_str().unwrap().to_owned()
}

pub(crate) fn children(of: u32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub(crate) fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Puts a script in the place of a program, as a package manager does: by renaming.
pub(crate) fn replace(program: &Path, script: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let new = program.with_extension("new");
    fs::write(&new, script)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(new, program)
}
