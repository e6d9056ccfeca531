//! What the callers say, and what they get.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::runtime::{Hooks, LinuxResources, Process, Spec, State};
use rustix::fs::{Mode, OFlags};

use crate::cgroup::{Cgroup, Driver};
use crate::error::{Error, Step};
use crate::report::{ParentEnd, Stage};

/// A container to make.
pub struct Plan<'a> {
    pub id: &'a str,
    pub spec: &'a Spec,
    pub rootfs: RootfsSource,
    /// Show the root's files with the owners that the spec's mappings give them.
    pub map_root: bool,
    pub stdio: Stdio,
    /// The filter as an array of `struct sock_filter`; none if the process runs unfiltered.
    pub seccomp: Option<&'a [u8]>,
    /// Hand back a `NETLINK_ROUTE` socket from inside the network namespace.
    pub netlink: bool,
    /// What hooks are told and what relative paths of the spec start from.
    pub bundle: &'a Path,
    pub cgroup_driver: Driver,
    /// Descriptors from 3 on that the program inherits from the caller.
    pub preserved_descriptors: u32,
    /// Give the container a session keyring of its own.
    pub keyring: bool,
    /// Change the root with `pivot_root`; without, with `chroot` (for roots on a ramdisk).
    pub pivot: bool,
    /// What the first process waits for before it executes its program.
    pub gate: Gate,
    /// An init that is executed in the program's place, with the program as its arguments.
    pub init: Option<Init<'a>>,
    /// Mounts that the caller opened, detached, by their place in the container: they stand for their sources.
    pub opened: Vec<(PathBuf, OwnedFd)>,
}

/// A program that becomes a container's first process and starts the wanted one itself.
#[derive(Debug, Clone, Copy)]
pub struct Init<'a> {
    /// The file; it needs no name in the container.
    pub program: BorrowedFd<'a>,
    /// What it is called, as its first argument.
    pub name: &'a str,
}

impl<'a> Plan<'a> {
    /// A plan with the usual answers to everything else.
    pub fn new(id: &'a str, spec: &'a Spec, rootfs: RootfsSource, stdio: Stdio) -> Plan<'a> {
        Plan {
            id,
            spec,
            rootfs,
            map_root: false,
            stdio,
            seccomp: None,
            netlink: false,
            bundle: Path::new("/"),
            cgroup_driver: Driver::Cgroupfs,
            preserved_descriptors: 0,
            keyring: true,
            pivot: true,
            gate: Gate::Socket,
            init: None,
            opened: Vec::new(),
        }
    }
}

/// Where the root filesystem comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootfsSource {
    /// An existing directory.
    Directory(PathBuf),
    Overlay {
        /// The topmost layer first.
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        /// Skip all syncing: for containers whose writable layer is thrown away when they end.
        volatile: bool,
    },
}

/// The process's descriptors 0, 1 and 2.
#[derive(Debug)]
pub enum Stdio {
    /// A new terminal inside the container; its other side is [`Running::terminal`].
    Terminal,
    Descriptors {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
}

/// How the created process learns that it may go.
#[derive(Debug)]
pub enum Gate {
    /// [`Created::start`] says so.
    Socket,
    /// Somebody writes a byte into this FIFO, which is open for reading and writing.
    Fifo(OwnedFd),
}

/// A container whose first process exists and waits.
pub struct Created {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub netlink: Option<OwnedFd>,
    pub cgroup: Cgroup,
    /// The terminal's controlling side, if it has arrived already; [`Running::terminal`] has it for certain.
    pub terminal: Option<OwnedFd>,
    /// Where the seccomp filter's notifications are read, if it has arrived already.
    pub listener: Option<OwnedFd>,
    pub(crate) channel: ParentEnd,
    pub(crate) stage: Stage,
    pub(crate) pending: Pending,
}

/// What is still to be done for a created container.
pub(crate) struct Pending {
    pub resources: Option<LinuxResources>,
    /// The cgroup is to be made.
    pub cgroup: bool,
    /// The container's.
    pub id: String,
    /// To be run.
    pub hooks: Hooks,
    /// What they are told.
    pub state: State,
    /// The start comes by FIFO.
    pub fifo: bool,
}

/// A container whose program runs.
pub struct Running {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The terminal's controlling side.
    pub terminal: Option<OwnedFd>,
    /// Where the seccomp filter's notifications are read, if the spec names a listener.
    pub listener: Option<OwnedFd>,
    pub cgroup: Cgroup,
    /// The container's mount namespace. Keep it until the exit has been reported: while it is held, the kernel
    /// takes the mounts down (and syncs the overlay) after the last process's exit is known, not before.
    pub mounts: Option<OwnedFd>,
}

impl Running {
    /// A handle (`O_PATH`) of the root directory as the first process sees it: whoever walks from there meets what is
    /// mounted in the container, without being in its namespace. For the parent of the process only, which knows that
    /// its PID is still its own.
    pub fn open_root(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{}/root", self.pid), flags, Mode::empty())
            .step(|| "open the container's root".into())
    }
}

/// Another process for a running container.
pub struct ExecPlan<'a> {
    /// The container's first process.
    pub target_pid: i32,
    pub process: &'a Process,
    /// The container's.
    pub spec: &'a Spec,
    pub stdio: Stdio,
    pub seccomp: Option<&'a [u8]>,
    pub cgroup: &'a Cgroup,
    /// Descriptors from 3 on that the program inherits from the caller.
    pub preserved_descriptors: u32,
}

/// A process that joined a container.
pub struct Executed {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
}
