//! Which system calls stay allowed (seccomp(2)): a short list, and of the dangerous ones among them only what is needed.
//!
//! Everything else fails with EPERM; nothing kills the process. A call that was forgotten, perhaps one that only a later
//! C library makes, then costs what it was made for and shows as an error with a name, where a dead sidecar would take the
//! application's traffic with it; for who broke in it makes no difference, since the call is not made either way. ptrace,
//! process_vm_readv and its like, execve, mount, bpf, keyctl, init_module, userfaultfd, io_uring_setup are not in the list.
//! (The exception is a call in the convention of another architecture, which only an exploit makes: that kills.)
//!
//! - No memory becomes executable (`mmap`, `mprotect`), no process begins (`clone` makes threads; `clone3`, whose flags a
//!   filter cannot see, does not exist, and the C library falls back).
//! - Sockets are TCP, UDP and unix ones: no raw ones, no netlink, and no MPTCP or SCTP, to which Landlock's rules about TCP
//!   ports do not apply. Nor do they to data sent along with a TCP handshake (`MSG_FASTOPEN`): that is refused as well.
//! - Signals go to ourselves alone, limits are ours alone, `prctl` names threads and memory, `ioctl` tells of sockets and
//!   terminals.

mod list;

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use SeccompCmpArgLen::{Dword, Qword};
use SeccompCmpOp::{Eq, MaskedEq};

/// `PROT_EXEC`.
const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
/// What distinguishes a new thread from everything else that `clone` makes: it shares memory and process, and stays in all
/// namespaces.
const THREAD: u64 = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;
const NOT_A_THREAD: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_VFORK) as u64;
/// The bits of a socket's type that are no flags.
const SOCKET_TYPE: u64 = 0xf;
/// `PR_SET_VMA`, which names memory.
const NAME_MEMORY: u64 = 0x5356_4d41;
/// `TCGETS2`, by which newer C libraries ask whether something is a terminal.
const TERMINAL: u64 = 0x802c_542a;

/// Forbids what is not in the list, to all threads.
///
/// # Errors
/// What the kernel lacks or said, in words.
pub(super) fn apply() -> Result<(), String> {
    let filters = filters(u64::from(std::process::id())).map_err(|error| format!("seccomp: {error}"))?;
    for filter in &filters {
        apply_filter_all_threads(filter).map_err(|error| format!("seccomp: {error}"))?;
    }
    Ok(())
}

/// The programs, in the order in which they are put on. `own` is our process ID.
fn filters(own: u64) -> Result<[BpfProgram; 2], BackendError> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    let absent = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        machine,
    )?;
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let allowed = SeccompFilter::new(rules(own)?, refused, SeccompAction::Allow, machine)?;
    Ok([absent.try_into()?, allowed.try_into()?])
}

/// What is allowed: under each call's number the alternatives, none of them for a call that always is.
fn rules(own: u64) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let groups = list::ANY.iter().chain(list::OF_THIS_MACHINE);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = groups
        .flat_map(|group| group.calls)
        .map(|(_, number)| (*number, Vec::new()))
        .collect();
    // The other filter says that there is none; this one must not say something else.
    rules.insert(libc::SYS_clone3, Vec::new());
    for (number, alternatives) in with_arguments(own) {
        let alternatives = alternatives.into_iter().map(rule).collect::<Result<_, _>>()?;
        rules.insert(number, alternatives);
    }
    Ok(rules)
}

/// One condition: the number of the argument, how much of it counts, what it must be.
type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

fn rule(conditions: Vec<Condition>) -> Result<SeccompRule, BackendError> {
    let condition =
        |(number, length, operator, value)| SeccompCondition::new(number, length, operator, value);
    SeccompRule::new(conditions.into_iter().map(condition).collect::<Result<_, _>>()?)
}

/// Calls whose arguments matter, with the alternatives that are allowed.
fn with_arguments(own: u64) -> Vec<(i64, Vec<Vec<Condition>>)> {
    let is = |argument: u8, value: u64| (argument, Dword, Eq, value);
    let not_executable = || vec![vec![(2, Qword, MaskedEq(EXECUTABLE), 0)]];
    let no_fast_open = |argument: u8| vec![vec![(argument, Dword, MaskedEq(number(libc::MSG_FASTOPEN)), 0)]];
    let each = |argument: u8, values: &[u64]| values.iter().map(|value| vec![is(argument, *value)]).collect();
    let of_type = |value: libc::c_int| (1, Dword, MaskedEq(SOCKET_TYPE), number(value));
    let mut sockets = vec![vec![is(0, number(libc::AF_UNIX))]];
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocol) in [
            (libc::SOCK_STREAM, 0),
            (libc::SOCK_STREAM, libc::IPPROTO_TCP),
            (libc::SOCK_DGRAM, 0),
            (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        ] {
            sockets.push(vec![
                is(0, number(family)),
                of_type(kind),
                is(2, number(protocol)),
            ]);
        }
    }
    vec![
        (libc::SYS_mmap, not_executable()),
        (libc::SYS_mprotect, not_executable()),
        (
            libc::SYS_clone,
            vec![vec![(0, Qword, MaskedEq(THREAD | NOT_A_THREAD), THREAD)]],
        ),
        (libc::SYS_socket, sockets),
        (libc::SYS_socketpair, vec![vec![is(0, number(libc::AF_UNIX))]]),
        (libc::SYS_sendto, no_fast_open(3)),
        (libc::SYS_sendmsg, no_fast_open(2)),
        (libc::SYS_sendmmsg, no_fast_open(3)),
        (libc::SYS_tgkill, each(0, &[own])),
        (libc::SYS_prlimit64, each(0, &[0, own])),
        (
            libc::SYS_prctl,
            each(0, &[number(libc::PR_SET_NAME), NAME_MEMORY]),
        ),
        (
            libc::SYS_ioctl,
            each(
                1,
                &[
                    libc::FIONBIO,
                    libc::FIOCLEX,
                    libc::FIONREAD,
                    libc::TCGETS,
                    libc::TIOCGWINSZ,
                    TERMINAL,
                ],
            ),
        ),
    ]
}

/// A constant of the C library's, none of which is negative.
const fn number(constant: libc::c_int) -> u64 {
    constant.unsigned_abs() as u64
}

#[cfg(test)]
mod tests;
