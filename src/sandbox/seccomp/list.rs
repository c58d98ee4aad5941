//! The system calls that stay allowed, in groups, each with what it is for.
//!
//! Made from traces (strace(1)) of the whole suite of tests that drive the built program, and of what the C library, the
//! runtime and the allocator do only now and then. Calls that paths are given to are here without a look at the paths:
//! these are Landlock's.

/// The names of calls, each with its number on this machine.
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), ::libc::$name)),*] };
}

/// Calls that belong together.
#[derive(Debug)]
pub(super) struct Group {
    /// What they are for.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is held to it"))]
    pub(super) what: &'static str,
    /// Under the C library's names of their numbers.
    pub(super) calls: &'static [(&'static str, i64)],
}

/// Calls whose arguments do not matter.
pub(super) const ANY: &[Group] = &[
    Group {
        what: "memory",
        calls: calls![SYS_brk SYS_madvise SYS_mremap SYS_munmap SYS_membarrier],
    },
    Group {
        what: "threads",
        calls: calls![
            SYS_exit SYS_exit_group SYS_futex SYS_getpid SYS_gettid SYS_rseq SYS_sched_getaffinity SYS_sched_yield
            SYS_set_robust_list SYS_set_tid_address SYS_getcpu
        ],
    },
    Group {
        what: "signals that come in",
        calls: calls![SYS_restart_syscall SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack],
    },
    Group {
        what: "files that are open",
        calls: calls![
            SYS_close SYS_dup SYS_fcntl SYS_fdatasync SYS_flock SYS_fstat SYS_fsync SYS_ftruncate SYS_getdents64
            SYS_lseek SYS_pread64 SYS_pwrite64 SYS_read SYS_readv SYS_write SYS_writev
        ],
    },
    Group {
        what: "files by their paths",
        calls: calls![
            SYS_faccessat SYS_faccessat2 SYS_fchmod SYS_fchmodat SYS_getcwd SYS_newfstatat SYS_openat SYS_readlinkat
            SYS_renameat SYS_renameat2 SYS_statx SYS_umask SYS_unlinkat SYS_utimensat
        ],
    },
    Group {
        what: "waiting",
        calls: calls![
            SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_pipe2 SYS_ppoll
        ],
    },
    Group {
        what: "sockets",
        calls: calls![
            SYS_accept SYS_accept4 SYS_bind SYS_connect SYS_getpeername SYS_getsockname SYS_getsockopt SYS_listen
            SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_setsockopt SYS_shutdown
        ],
    },
    Group {
        what: "time",
        calls: calls![
            SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_gettimeofday SYS_nanosleep
        ],
    },
    Group {
        what: "randomness, and who and where we are",
        calls: calls![
            SYS_getegid SYS_geteuid SYS_getgid SYS_getppid SYS_getrandom SYS_getrusage SYS_getuid SYS_sysinfo SYS_uname
        ],
    },
];

/// Of the same groups, what x86-64 has beside them: older calls that the C library still prefers there.
#[cfg(target_arch = "x86_64")]
pub(super) const OF_THIS_MACHINE: &[Group] = &[Group {
    what: "the same, as x86-64 has them from older days",
    calls: calls![
        SYS_access SYS_chmod SYS_dup2 SYS_epoll_wait SYS_lstat SYS_open SYS_poll SYS_readlink SYS_rename SYS_stat
        SYS_time SYS_unlink
    ],
}];
/// Nothing beside them.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OF_THIS_MACHINE: &[Group] = &[];
