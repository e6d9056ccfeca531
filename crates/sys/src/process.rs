//! Making, changing and ending processes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::check;

/// A set of flags: what the `bitflags` crate would be too much for.
macro_rules! bitflags_lite {
    ($(#[$meta:meta])* $name:ident { $($(#[$flag_meta:meta])* $flag:ident = $value:expr),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name(u64);
        #[allow(missing_docs)]
        impl $name {
            pub const EMPTY: $name = $name(0);
            $($(#[$flag_meta])* pub const $flag: $name = $name($value);)*
            pub const fn bits(self) -> u64 { self.0 }
            pub const fn from_bits(bits: u64) -> $name { $name(bits) }
            pub const fn is_empty(self) -> bool { self.0 == 0 }
            pub const fn contains(self, other: $name) -> bool { self.0 & other.0 == other.0 }
            pub const fn with(self, other: $name) -> $name { $name(self.0 | other.0) }
            pub const fn without(self, other: $name) -> $name { $name(self.0 & !other.0) }
        }
    };
}
pub(crate) use bitflags_lite;

bitflags_lite! {
    /// The flags of `clone3(2)` that make namespaces.
    Namespaces {
        MOUNT = libc::CLONE_NEWNS as u64,
        CGROUP = libc::CLONE_NEWCGROUP as u64,
        UTS = libc::CLONE_NEWUTS as u64,
        IPC = libc::CLONE_NEWIPC as u64,
        USER = libc::CLONE_NEWUSER as u64,
        PID = libc::CLONE_NEWPID as u64,
        NETWORK = libc::CLONE_NEWNET as u64,
        TIME = 0x80,
    }
}

/// How a process is cloned.
#[derive(Debug, Default)]
pub struct CloneOptions<'a> {
    /// The namespaces that are made for it.
    pub namespaces: Namespaces,
    /// The cgroup (v2) that it is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// It becomes the caller's sibling, not its child.
    pub sibling: bool,
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Ends the process when it is dropped, so that a panicking child never unwinds into its parent's frames.
struct EndOfProcess;

impl Drop for EndOfProcess {
    fn drop(&mut self) {
        exit_now(70);
    }
}

/// Clones the process. `child` runs in the copy, which ends with the code that it returns.
///
/// The caller must be single-threaded: the copy has only the calling thread, and a lock that another one held
/// (the allocator's, say) stays locked there for ever.
pub fn clone<F: FnOnce() -> i32>(options: &CloneOptions<'_>, child: F) -> io::Result<(i32, OwnedFd)> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: options.namespaces.bits() | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    if options.sibling {
        arguments.flags |= libc::CLONE_PARENT as u64;
        // The kernel wants none: a sibling's exit is signalled as the caller's own is.
        arguments.exit_signal = 0;
    }
    let mut size = std::mem::offset_of!(CloneArguments, cgroup);
    if let Some(cgroup) = options.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
        size = size_of::<CloneArguments>();
    }
    // SAFETY: without CLONE_VM and with a null stack this is fork(2): the child goes on in a copy of this very
    // frame. `arguments` and `pidfd` are valid for the call.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) })? {
        0 => {
            let end = EndOfProcess;
            let code = child();
            std::mem::forget(end);
            exit_now(code)
        }
        pid => {
            // SAFETY: the kernel has just stored a fresh descriptor there, which nobody else owns.
            Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// As [`clone`] of nothing but the process, by the call that every seccomp filter knows.
pub fn fork<F: FnOnce() -> i32>(child: F) -> io::Result<i32> {
    // SAFETY: the caller is single-threaded, so the copy holds no lock of a thread that it does not have.
    match check(unsafe { libc::fork() }.into())? {
        0 => {
            let end = EndOfProcess;
            let code = child();
            std::mem::forget(end);
            exit_now(code)
        }
        pid => Ok(pid as i32),
    }
}

/// Ends the process without running destructors or flushing anything.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Joins namespaces: of the kind of a namespace descriptor, or those of a pidfd's process that `kinds` names.
pub fn join(namespace: BorrowedFd<'_>, kinds: Namespaces) -> io::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), kinds.bits() as libc::c_int) })?;
    Ok(())
}

/// Makes new namespaces for the calling thread (of [`Namespaces::PID`] and [`Namespaces::TIME`]: for its
/// children).
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: only namespace flags are passed; memory and descriptors stay shared as they are.
    check(unsafe { libc::syscall(libc::SYS_unshare, kinds.bits() as libc::c_int) })?;
    Ok(())
}

/// Strings laid out for `execve(2)`.
#[derive(Debug, Default)]
pub struct Strings {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    pub fn with_capacity(count: usize) -> Strings {
        Strings { strings: Vec::with_capacity(count), pointers: Vec::with_capacity(count + 1) }
    }

    pub fn push(&mut self, string: CString) {
        self.strings.push(string);
    }

    /// Puts strings before those that are there.
    pub fn prepend(&mut self, strings: impl IntoIterator<Item = CString>) {
        self.strings.splice(0..0, strings);
    }

    fn pointers(&mut self) -> *const *const libc::c_char {
        self.pointers.clear();
        self.pointers.extend(self.strings.iter().map(|string| string.as_ptr()));
        self.pointers.push(std::ptr::null());
        self.pointers.as_ptr()
    }
}

/// Executes a program; returns only if that failed.
pub fn execute(program: &std::ffi::CStr, arguments: &mut Strings, environment: &mut Strings) -> io::Error {
    let (arguments, environment) = (arguments.pointers(), environment.pointers());
    // SAFETY: both are null-terminated arrays of C strings that `Strings` keeps alive and unmoved.
    unsafe { libc::execve(program.as_ptr(), arguments, environment) };
    io::Error::last_os_error()
}

/// As [`execute`], of an open file.
pub fn execute_descriptor(
    program: BorrowedFd<'_>,
    arguments: &mut Strings,
    environment: &mut Strings,
) -> io::Error {
    let (arguments, environment) = (arguments.pointers(), environment.pointers());
    // SAFETY: as in `execute`; the empty path is a valid C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments,
            environment,
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Gives every signal its default action and unblocks all of them.
pub fn reset_signals() {
    #[repr(C)]
    struct Action {
        handler: usize,
        flags: u64,
        restorer: usize,
        mask: u64,
    }
    let mut action = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    // The raw call: the C library keeps two signals to itself.
    // SAFETY: `action` is the kernel's structure for 64-bit machines, valid for the calls; default actions run no
    // code of this process.
    unsafe {
        for signal in 1..=64 {
            // Handlers are gone with CLONE_CLEAR_SIGHAND; what was ignored still is.
            libc::syscall(libc::SYS_rt_sigaction, signal, std::ptr::null::<Action>(), &raw mut action, 8);
            if action.handler == libc::SIG_IGN {
                action = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    &raw const action,
                    std::ptr::null::<Action>(),
                    8,
                );
            }
        }
        let none = 0u64;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null::<u64>(),
            8,
        );
    }
}

/// Makes `to` (0, 1 or 2, or an inherited number) a duplicate of `from` that survives `execve(2)`.
pub fn duplicate_to(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    if from.as_raw_fd() == to {
        // dup2(2) of a descriptor onto itself would leave close-on-exec set.
        // SAFETY: only integers are passed.
        check(unsafe { libc::fcntl(to, libc::F_SETFD, 0) }.into())?;
        return Ok(());
    }
    // SAFETY: only integers are passed. Whatever `to` was is closed: numbers below 3 belong to nobody here.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }.into())?;
    Ok(())
}

/// A descriptor of our own for one that was inherited under a number, which is not passed on any further.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only integers are passed; the copy is new and belongs to nobody else.
    let copy = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) }.into())?;
    // SAFETY: only integers are passed.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor was made a moment ago, above.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as RawFd) })
}

/// Marks every descriptor from `first` on to be closed by `execve(2)`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: descriptors are only marked, none is closed.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Sends a signal by number to a process by descriptor.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null `siginfo` means the usual one.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// Sends a signal by number to a process by its ID.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::kill(pid, signal) }.into())?;
    Ok(())
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    Signal(i32),
}

/// Waits for a child and takes its status.
pub fn wait(pid: i32) -> io::Result<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for the call.
        match check(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }.into()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(Ended::Signal(libc::WTERMSIG(status))),
            Ok(_) => return Ok(Ended::Code(libc::WEXITSTATUS(status))),
        }
    }
}

/// Sets a limit of this process: `resource` is one of `RLIMIT_*`.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is valid for the call and only read.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null::<libc::rlimit64>())
    })?;
    Ok(())
}

/// The arguments of `sched_setattr(2)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scheduling {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets how this process is scheduled.
pub fn set_scheduling(wanted: &Scheduling) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    };
    // SAFETY: `attributes` is valid for the call, states its own size and is only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
    Ok(())
}

/// Sets the priority of this process's input and output: the class in the kernel's numbers, 1 to 3.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })?;
    Ok(())
}

/// Sets the execution domain, such as `PER_LINUX32` (8).
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: only an integer is passed.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) })?;
    Ok(())
}

/// A thing that was done and must be undone in the calling process, such as a joined namespace.
#[must_use]
pub struct Restore {
    namespace: Option<OwnedFd>,
    kind: Namespaces,
}

impl Restore {
    /// Remembers a namespace of the calling process by its name below `/proc/self/ns`.
    pub fn namespace(name: &str, kind: Namespaces) -> io::Result<Restore> {
        let path = format!("/proc/self/ns/{name}");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let namespace = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
        Ok(Restore { namespace: Some(namespace), kind })
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take() {
            use std::os::fd::AsFd;
            // What would be left is a process whose children land in a container: better to end it.
            if join(namespace.as_fd(), self.kind).is_err() {
                exit_now(71);
            }
        }
    }
}

/// A number that a process and its clones share.
#[derive(Debug)]
pub struct SharedNumber(*mut std::sync::atomic::AtomicU32);

impl SharedNumber {
    /// Maps a page for it; it starts at 0.
    pub fn new() -> io::Result<SharedNumber> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice disturbs nothing.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<u32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(SharedNumber(page.cast())) }
    }

    pub fn set(&self, value: u32) {
        // SAFETY: the mapping is page-aligned, large enough and lives as long as `self`.
        unsafe { (*self.0).store(value, std::sync::atomic::Ordering::Release) }
    }

    pub fn get(&self) -> u32 {
        // SAFETY: as in `set`.
        unsafe { (*self.0).load(std::sync::atomic::Ordering::Acquire) }
    }
}

impl Drop for SharedNumber {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` and nothing refers to it any more.
        unsafe { libc::munmap(self.0.cast(), size_of::<u32>()) };
    }
}

/// Looks at one of the three standard streams.
pub fn stream_stat(stream: RawFd) -> io::Result<rustix::fs::Stat> {
    Ok(rustix::fs::fstat(borrow_stream(stream)?)?)
}

/// Gives one of the three standard streams to a user, if that is possible.
pub fn own_stream(stream: RawFd, uid: u32) {
    if let Ok(stream) = borrow_stream(stream) {
        // Not every kind of file has an owner to change.
        let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
    }
}

fn borrow_stream(stream: RawFd) -> io::Result<BorrowedFd<'static>> {
    if !(0..3).contains(&stream) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the standard streams are never closed by this program; a number that is not open yields an error.
    Ok(unsafe { BorrowedFd::borrow_raw(stream) })
}

/// Closes this process's copy of a descriptor that the one it was cloned from goes on using: for the first thing
/// that a child does. The value is never dropped in the child, which executes a program or exits.
pub fn close_own_copy(descriptor: impl std::os::fd::AsFd) {
    // SAFETY: the number is not used again in this process: see above.
    unsafe { libc::close(descriptor.as_fd().as_raw_fd()) };
}
