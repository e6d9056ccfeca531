//! The built-in policy: what a container may call when nobody says otherwise.
//!
//! It permits by name and refuses the rest with `EPERM`, so a system call that is newer than this table is
//! refused until somebody decides about it. The decisions are those of Docker's default profile: programs that
//! run there run here, and what is kept from them there is kept from them here.

use oci::runtime::{LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

use crate::profile::{ArchMap, Conditions, Profile, Rule};

/// Always permitted, by what the calls are about.
const ALLOWED: &[&str] = &[
    // Processes and their credentials.
    "capget capset execve execveat exit exit_group fork getegid getegid32 geteuid geteuid32 getgid getgid32 \
     getgroups getgroups32 getpgid getpgrp getpid getppid getresgid getresgid32 getresuid getresuid32 getsid \
     gettid getuid getuid32 kill pidfd_open pidfd_send_signal prctl process_mrelease setfsgid setfsgid32 \
     setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setregid setregid32 setresgid \
     setresgid32 setresuid setresuid32 setreuid setreuid32 setsid setuid setuid32 tgkill tkill vfork wait4 \
     waitid waitpid",
    // Threads, locks, scheduling, limits.
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu \
     getpriority getrlimit getrusage ioprio_get ioprio_set membarrier prlimit64 restart_syscall rseq \
     sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
     sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
     sched_setparam sched_setscheduler sched_yield set_robust_list set_thread_area set_tid_address setpriority \
     setrlimit ugetrlimit uretprobe",
    // Confining oneself further.
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    // Signals.
    "pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask \
     sigreturn",
    // Time.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time \
     timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
     timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times",
    // Memory.
    "brk cachestat madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 \
     mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    // Names in the file system.
    "access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmodat fchmodat2 fchownat fstatat64 \
     futimesat getcwd lchown lchown32 link linkat lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at \
     newfstatat open openat openat2 readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs \
     statfs64 statx symlink symlinkat truncate truncate64 umask unlink unlinkat utime utimensat \
     utimensat_time64 utimes",
    "fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch listmount statmount",
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat \
     llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Open files.
    "_llseek close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fchmod fchown \
     fchown32 fcntl fcntl64 fdatasync flock fstat fstat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 \
     getdents getdents64 ioctl lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv \
     sendfile sendfile64 splice sync sync_file_range syncfs tee vmsplice write writev",
    // Waiting for files, asynchronous transfer. (Not io_uring: its kernel surface is too wide.)
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 \
     io_setup io_submit pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select",
    // Sockets; `socket` itself has conditions below.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
     recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // System V and POSIX IPC.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
     semtimedop_time64 shmat shmctl shmdt shmget",
    // The machine.
    "getrandom riscv_hwprobe sysinfo uname",
];

/// Permitted to who holds the capability.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Permitted on some architectures only, by the names of [`crate::Arch`] in profiles.
const ON_ARCHITECTURE: &[(&[&str], &str)] = &[
    (
        &["arm", "arm64"],
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    (&["amd64", "x32"], "arch_prctl"),
    (&["amd64", "x32", "x86"], "modify_ldt"),
];

/// `personality(2)` values: Linux, 32-bit Linux on 64 bits, both with `UNAME26`, and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `CLONE_NEW*` of `clone(2)`: all namespaces but time, whose bit is part of the exit signal there.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The policy of containers that ask for none.
pub fn default_profile() -> Profile {
    let mut syscalls = vec![allow(ALLOWED.iter().flat_map(|group| group.split_ascii_whitespace()))];
    // Before 4.8 a tracer could step around its tracee's filter.
    syscalls.push(Rule {
        includes: Conditions { min_kernel: Some("4.8".into()), ..Conditions::default() },
        ..allow("process_vm_readv process_vm_writev ptrace".split(' '))
    });
    syscalls.extend(sockets());
    for value in PERSONALITIES {
        syscalls
            .push(Rule { args: vec![first(LinuxSeccompOperator::Equal, value)], ..allow(["personality"]) });
    }
    for (arches, names) in ON_ARCHITECTURE {
        let arches = arches.iter().map(|&arch| arch.into()).collect();
        syscalls.push(Rule {
            includes: Conditions { arches, ..Conditions::default() },
            ..allow(names.split_ascii_whitespace())
        });
    }
    for (capability, names) in WITH_CAPABILITY {
        syscalls.push(Rule { includes: with(capability), ..allow(names.split_ascii_whitespace()) });
    }
    syscalls.extend(clones());
    Profile {
        default_action: Some(LinuxSeccompAction::Errno),
        default_errno_ret: Some(EPERM),
        arch_map: vec![
            ArchMap::new("SCMP_ARCH_X86_64", &["SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
            ArchMap::new("SCMP_ARCH_AARCH64", &["SCMP_ARCH_ARM"]),
        ],
        syscalls,
        ..Profile::default()
    }
}

/// Every family but the kernel's crypto interface (a rich source of local root exploits, and of no use
/// without the host's keys) and hypervisor sockets (they are not confined by network namespaces).
fn sockets() -> [Rule; 3] {
    [
        (LinuxSeccompOperator::LessThan, AF_ALG),
        (LinuxSeccompOperator::Equal, AF_ALG + 1),
        (LinuxSeccompOperator::GreaterThan, AF_VSOCK),
    ]
    .map(|(op, family)| Rule { args: vec![first(op, family)], ..allow(["socket"]) })
}

/// New processes but no new namespaces. `clone3` passes its flags in memory, which a filter cannot read:
/// `ENOSYS` makes C libraries fall back to `clone`.
fn clones() -> [Rule; 2] {
    let clone = Rule {
        args: vec![first(LinuxSeccompOperator::MaskedEqual, CLONE_NAMESPACES)],
        excludes: with("CAP_SYS_ADMIN"),
        ..allow(["clone"])
    };
    let clone3 = Rule {
        errno_ret: Some(ENOSYS),
        excludes: with("CAP_SYS_ADMIN"),
        ..Rule::new(LinuxSeccompAction::Errno, vec!["clone3".into()])
    };
    [clone, clone3]
}

fn allow<'a>(names: impl IntoIterator<Item = &'a str>) -> Rule {
    Rule::new(LinuxSeccompAction::Allow, names.into_iter().map(String::from).collect())
}

/// A comparison of the first argument; masked ones compare with 0.
fn first(op: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArg { index: 0, value, value_two: 0, op }
}

fn with(capability: &str) -> Conditions {
    Conditions { caps: vec![capability.into()], ..Conditions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_listed_twice_and_almost_all_are_known_here() {
        let mut names: Vec<&str> = ALLOWED.iter().flat_map(|group| group.split_ascii_whitespace()).collect();
        let count = names.len();
        assert_eq!(count, 361);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let known: Vec<&str> = crate::syscalls::names().collect();
        let elsewhere: Vec<&str> = names.into_iter().filter(|name| !known.contains(name)).collect();
        assert_eq!(elsewhere, ["riscv_hwprobe"]);
    }
}
