//! Folders, TCP ports, and whom else the process may reach, by Landlock (landlock(7)).
//!
//! Asks for what Landlock's ABI 6 has (Linux 6.12), as far as the kernel has it: what newer kernels offer beyond that (unix
//! sockets by path, UDP) is left alone until it has been tried on one. No file may be executed, no device be made or
//! told anything, no process outside be sent a signal or be met on an abstract unix socket.
//!
//! Landlock holds the calling thread and those that it starts later.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, RestrictionStatus,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope, make_bitflags,
};

use super::plan::{Access, Grant, Plan};

/// What each ABI is needed for, and the first kernel that has it.
const NEEDED: &[(i32, &str, &str)] = &[
    (1, "folders", "5.13"),
    (3, "truncating files", "6.2"),
    (4, "TCP ports", "6.7"),
    (5, "devices", "6.10"),
    (6, "signals and abstract unix sockets", "6.12"),
];

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The kernel's version of Landlock; 0 where it has none.
    pub(super) abi: i32,
    /// Folders are held.
    pub(super) files: bool,
    /// TCP ports are held.
    pub(super) network: bool,
    /// Signals to others, and their abstract unix sockets, are held back.
    pub(super) scopes: bool,
    /// What could not be had, in words.
    pub(super) missing: Vec<String>,
    /// What is granted by the plan and not by the kernel.
    pub(super) unmade: Vec<Grant>,
    /// What must stay open while the process lives.
    pub(super) kept: Vec<File>,
}

/// Holds this thread, and those that it starts later, to the plan, as far as the kernel can.
pub(super) fn apply(plan: &Plan) -> Outcome {
    let mut outcome = Outcome::default();
    match restrict(plan, &mut outcome) {
        Ok(status) => judge(&status, &mut outcome),
        Err(error) => outcome.missing.push(format!("Landlock: {error}")),
    }
    outcome
}

fn restrict(plan: &Plan, outcome: &mut Outcome) -> Result<RestrictionStatus, RulesetError> {
    let anywhere = plan
        .grants()
        .iter()
        .any(|grant| grant.access == Access::ConnectAnywhere);
    let network = if anywhere {
        // A rule names a port: to hold back none, the right is left out.
        AccessNet::BindTcp.into()
    } else {
        AccessNet::from_all(ABI::V4)
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(network)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    for grant in plan.grants() {
        let made = match &grant.access {
            Access::Bind(address) => port(&mut rules, address.port(), AccessNet::BindTcp),
            Access::Connect(_) if anywhere => Ok(()),
            Access::ConnectAnywhere | Access::Names => Ok(()),
            Access::Connect(number) => port(&mut rules, *number, AccessNet::ConnectTcp),
            Access::Read(path) => beneath(&mut rules, path, read(), &mut outcome.kept),
            Access::Write(path) => beneath(&mut rules, path, write(), &mut outcome.kept),
            Access::Sockets(path) => beneath(&mut rules, path, sockets(), &mut outcome.kept),
        };
        // One grant less: all the others hold.
        if let Err(why) = made {
            outcome.missing.push(format!("{grant}: {why}"));
            outcome.unmade.push(grant.clone());
        }
    }
    rules.restrict_self()
}

const fn read() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

/// Renaming within a folder is removing and making.
fn write() -> BitFlags<AccessFs> {
    read() | make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile})
}

const fn sockets() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{MakeSock | RemoveFile})
}

fn port(rules: &mut RulesetCreated, number: u16, right: AccessNet) -> Result<(), String> {
    let rules = rules.add_rule(NetPort::new(number, right));
    rules.map(drop).map_err(|error| error.to_string())
}

/// Grants rights to this folder or file, and keeps what must stay open.
fn beneath(
    rules: &mut RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
    kept: &mut Vec<File>,
) -> Result<(), String> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .and_then(|opened| opened.metadata().map(|found| (opened, found)));
    let (opened, found) = opened.map_err(|error| error.to_string())?;
    // More than a file can have is refused for a file.
    let rights = if found.is_dir() {
        rights
    } else {
        rights & AccessFs::from_file(ABI::V5)
    };
    if rights.is_empty() {
        return Err("it is no folder, and the root folder is never granted".to_owned());
    }
    let rules = rules.add_rule(PathBeneath::new(&opened, rights));
    rules.map(drop).map_err(|error| error.to_string())?;
    if path.starts_with("/proc") {
        // The kernel makes such a file anew, without the rule, once nobody has looked at it for a while.
        kept.push(opened);
    }
    Ok(())
}

/// What the kernel made of it.
fn judge(status: &RestrictionStatus, outcome: &mut Outcome) {
    outcome.abi = match status.landlock {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => kernel_abi.unwrap_or(effective_abi as i32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    outcome.files = outcome.abi >= 1;
    outcome.network = outcome.abi >= 4;
    outcome.scopes = outcome.abi >= 6;
    let lacks = NEEDED.iter().filter(|(abi, ..)| outcome.abi < *abi);
    let lacks = lacks.map(|(_, what, kernel)| format!("Landlock: {what} (needs Linux {kernel})"));
    outcome.missing.extend(lacks);
    if outcome.abi == 0 {
        let help =
            "Landlock is not among the kernel's security modules that are on, or something forbids to use it";
        outcome.missing.push(help.to_owned());
    }
}
