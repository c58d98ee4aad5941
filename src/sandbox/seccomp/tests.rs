use super::*;

/// What must never be in the list, whatever traces say.
const NEVER: &[i64] = &[
    libc::SYS_bpf,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pkey_mprotect,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

#[test]
fn what_is_dangerous_is_not_in_the_list() {
    let rules = rules(1).unwrap();
    for number in NEVER {
        assert!(!rules.contains_key(number), "{number}");
    }
    for (number, alternatives) in with_arguments(1) {
        let conditions = rules[&number].len();
        assert_eq!(
            conditions,
            alternatives.len(),
            "{number} is also allowed whatever its arguments are"
        );
        assert_ne!(conditions, 0);
    }
}

#[test]
fn no_call_is_in_two_groups_and_the_documentation_has_them_all() {
    let page = include_str!("../../../docs/sandbox.md");
    let mut seen = std::collections::BTreeSet::new();
    for group in list::ANY.iter().chain(list::OF_THIS_MACHINE) {
        assert!(
            page.contains(group.what),
            "docs/sandbox.md does not say: {}",
            group.what
        );
        for (name, number) in group.calls {
            assert!(seen.insert(number), "{name} is there twice");
            let name = name.strip_prefix("SYS_").unwrap();
            assert!(
                page.contains(&format!("`{name}`")),
                "docs/sandbox.md does not name {name}"
            );
        }
    }
}

#[test]
fn the_programs_fit_into_the_kernel() {
    // Longer ones are refused (BPF_MAXINSNS).
    for program in filters(1).unwrap() {
        assert!((4..4096).contains(&program.len()), "{}", program.len());
    }
}

/// What the kernel makes of a program (linux/filter.h) for a call on this machine: as much of it as the programs use.
fn run(program: &BpfProgram, call: i64, arguments: [u64; 6]) -> u32 {
    let machine: u32 = match std::env::consts::ARCH {
        "x86_64" => 0xc000_003e,
        _ => 0xc000_00b7,
    };
    let mut data = Vec::new();
    data.extend(u32::try_from(call).unwrap().to_le_bytes());
    data.extend(machine.to_le_bytes());
    data.extend([0; 8]);
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let (mut at, mut value) = (0_usize, 0_u32);
    loop {
        let step = &program[at];
        at += 1;
        let to = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        match step.code {
            0x20 => {
                let from = usize::try_from(step.k).unwrap();
                value = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => value &= step.k,
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => at += to(value == step.k),
            0x25 => at += to(value > step.k),
            0x35 => at += to(value >= step.k),
            0x06 => return step.k,
            other => panic!("{other:#x}"),
        }
    }
}

/// The number of the error that a call fails with, 0 where it is made. The strictest of the programs decides.
fn errno(call: i64, arguments: &[u64]) -> u32 {
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let answers = filters(4242).unwrap().map(|program| run(&program, call, all));
    let answer = answers.into_iter().min().unwrap();
    if answer == ALLOW {
        return 0;
    }
    assert_eq!(answer & 0xffff_0000, ERRNO, "{answer:#x}");
    answer & 0xffff
}

#[test]
fn arguments_decide_where_they_matter() {
    let (allowed, eperm, enosys) = (0, 1, 38);
    let stream = number(libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    let datagram = number(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC);
    let raw = number(libc::SOCK_RAW);
    let (four, six, unix) = (
        number(libc::AF_INET),
        number(libc::AF_INET6),
        number(libc::AF_UNIX),
    );
    // As glibc makes threads, and as it forks.
    let thread = 0x003d_0f00;
    let fork = 0x0120_0011;
    let vfork = 0x4111;
    for (call, arguments, expected, what) in [
        (libc::SYS_read, &[][..], allowed, "read"),
        (libc::SYS_execve, &[], eperm, "execve"),
        (libc::SYS_ptrace, &[], eperm, "ptrace"),
        (libc::SYS_kill, &[4242, 9], eperm, "kill"),
        (libc::SYS_clone3, &[], enosys, "clone3"),
        (libc::SYS_clone, &[thread], allowed, "a thread"),
        (libc::SYS_clone, &[fork], eperm, "a process"),
        (
            libc::SYS_clone,
            &[vfork],
            eperm,
            "a process that borrows our memory",
        ),
        (
            libc::SYS_clone,
            &[thread | number(libc::CLONE_NEWNET)],
            eperm,
            "a thread in a network of its own",
        ),
        (libc::SYS_mmap, &[0, 4096, 3], allowed, "memory"),
        (libc::SYS_mmap, &[0, 4096, 5], eperm, "memory to execute"),
        (
            libc::SYS_mprotect,
            &[4096, 4096, 1],
            allowed,
            "memory that is only read",
        ),
        (
            libc::SYS_mprotect,
            &[4096, 4096, 7],
            eperm,
            "memory that becomes executable",
        ),
        (libc::SYS_socket, &[four, stream, 0], allowed, "TCP"),
        (libc::SYS_socket, &[six, stream, 6], allowed, "TCP over IPv6"),
        (libc::SYS_socket, &[six, datagram, 0], allowed, "UDP"),
        (libc::SYS_socket, &[unix, datagram, 0], allowed, "a unix socket"),
        (libc::SYS_socket, &[four, stream, 262], eperm, "MPTCP"),
        (libc::SYS_socket, &[four, stream, 132], eperm, "SCTP"),
        (libc::SYS_socket, &[four, datagram, 1], eperm, "ICMP"),
        (libc::SYS_socket, &[four, datagram, 6], eperm, "no such thing"),
        (libc::SYS_socket, &[four, raw, 6], eperm, "raw IP"),
        (libc::SYS_socket, &[16, raw, 0], eperm, "netlink"),
        (libc::SYS_socket, &[17, raw, 0], eperm, "packets"),
        (
            libc::SYS_socket,
            &[40, stream, 0],
            eperm,
            "a virtual machine's host",
        ),
        (libc::SYS_socketpair, &[unix, stream, 0], allowed, "a pair"),
        (
            libc::SYS_socketpair,
            &[four, stream, 0],
            eperm,
            "a pair of something else",
        ),
        (
            libc::SYS_sendto,
            &[3, 0, 0, number(libc::MSG_NOSIGNAL)],
            allowed,
            "sending",
        ),
        (
            libc::SYS_sendto,
            &[3, 0, 0, 0x2000_4000],
            eperm,
            "sending with the handshake",
        ),
        (libc::SYS_sendmsg, &[3, 0, 0x2000_0000], eperm, "likewise"),
        (libc::SYS_sendmmsg, &[3, 0, 0, 0x2000_0000], eperm, "likewise"),
        (libc::SYS_tgkill, &[4242, 1, 6], allowed, "a signal to ourselves"),
        (libc::SYS_tgkill, &[1, 1, 6], eperm, "a signal to somebody else"),
        (libc::SYS_prlimit64, &[0, 7], allowed, "our limits"),
        (libc::SYS_prlimit64, &[1, 7], eperm, "somebody else's"),
        (libc::SYS_prctl, &[15], allowed, "a thread's name"),
        (libc::SYS_prctl, &[4, 1], eperm, "becoming dumpable again"),
        (libc::SYS_ioctl, &[0, 0x5421], allowed, "FIONBIO"),
        (
            libc::SYS_ioctl,
            &[0, 0x5412],
            eperm,
            "TIOCSTI, which types into a terminal",
        ),
    ] {
        assert_eq!(errno(call, arguments), expected, "{what}");
    }
    assert_eq!(errno(0x4000_0000 + libc::SYS_read, &[]), eperm, "x32");
}
