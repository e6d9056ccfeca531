//! Which namespaces a container has: new ones, and those of others that it joins.

use std::os::fd::{AsFd, OwnedFd};

use oci::runtime::{LinuxIdMapping, LinuxNamespaceKind as Kind, Spec};
use rustix::fs::{Mode, OFlags};
use sys::process::{CloneOptions, Namespaces, Restore};

use crate::Error;
use crate::error::Step;

/// What a spec says about namespaces, with those to join opened.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// To be made.
    pub new: Namespaces,
    /// To be joined, in an order that works.
    pub join: Vec<(Kind, OwnedFd)>,
}

pub(crate) const fn flag(kind: Kind) -> Namespaces {
    match kind {
        Kind::Pid => Namespaces::PID,
        Kind::Network => Namespaces::NETWORK,
        Kind::Mount => Namespaces::MOUNT,
        Kind::Ipc => Namespaces::IPC,
        Kind::Uts => Namespaces::UTS,
        Kind::User => Namespaces::USER,
        Kind::Cgroup => Namespaces::CGROUP,
        Kind::Time => Namespaces::TIME,
    }
}

impl Wanted {
    pub fn from_spec(spec: &Spec) -> Result<Wanted, Error> {
        let mut wanted = Wanted { new: Namespaces::EMPTY, join: Vec::new() };
        let mut seen = Namespaces::EMPTY;
        for namespace in spec.linux.iter().flat_map(|linux| &linux.namespaces) {
            let flag = flag(namespace.kind);
            if seen.contains(flag) {
                return Err(Error::invalid(format!("namespace {:?} is listed twice", namespace.kind)));
            }
            seen = seen.with(flag);
            match namespace.path.as_deref().filter(|path| !path.as_os_str().is_empty()) {
                None => wanted.new = wanted.new.with(flag),
                Some(path) => {
                    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                    let opened = opened.map_err(|error| {
                        let cause = crate::error::describe(error.raw_os_error());
                        Error::invalid(format!("open namespace {}: {cause}", path.display()))
                    })?;
                    wanted.join.push((namespace.kind, opened));
                }
            }
        }
        if !wanted.new.contains(Namespaces::MOUNT) {
            return Err(Error::invalid("a container needs a mount namespace of its own"));
        }
        if wanted.new.contains(Namespaces::USER)
            && spec.linux.as_ref().is_none_or(|linux| linux.uid_mappings.is_empty())
        {
            return Err(Error::invalid("a new user namespace needs uid and gid mappings"));
        }
        Ok(wanted)
    }

    pub fn joins(&self, kind: Kind) -> Option<&OwnedFd> {
        self.join.iter().find(|(joined, _)| *joined == kind).map(|(_, namespace)| namespace)
    }

    /// Whether the container has a namespace of this kind apart from the machine's.
    pub fn has(&self, kind: Kind) -> bool {
        self.new.contains(flag(kind)) || self.joins(kind).is_some()
    }

    /// Joins, in the calling process, what the process itself can join; of PIDs its parent must.
    pub fn enter(&self) -> Result<(), Error> {
        let joined = self.join.iter().filter(|(kind, _)| !matches!(kind, Kind::Pid | Kind::User));
        for (kind, namespace) in joined {
            sys::process::join(namespace.as_fd(), flag(*kind)).step(|| format!("join {kind:?} namespace"))?;
        }
        Ok(())
    }
}

impl Wanted {
    /// Joins everything, the user namespace last: what belongs to the machine can be joined before only, and what
    /// belongs to that namespace as well.
    pub fn enter_with_user(&self) -> Result<(), Error> {
        self.enter()?;
        for kind in [Kind::Pid, Kind::User] {
            if let Some(namespace) = self.joins(kind) {
                sys::process::join(namespace.as_fd(), flag(kind))
                    .step(|| format!("join {kind:?} namespace"))?;
            }
        }
        sys::security::set_user_and_group(0, 0).step(|| "become root of the user namespace".into())?;
        sys::security::set_dumpable(false).step(|| "become undumpable".into())
    }

    /// Joins in the parent what its child, in a new user namespace, would have no right to join. What is returned
    /// brings the parent back when it is dropped.
    pub fn enter_for_child(&self) -> Result<Vec<Restore>, Error> {
        let mut restores = Vec::new();
        if !self.new.contains(Namespaces::USER) {
            return Ok(restores);
        }
        for (kind, namespace) in &self.join {
            let name = match kind {
                Kind::Network => "net",
                Kind::Ipc => "ipc",
                Kind::Uts => "uts",
                Kind::Cgroup => "cgroup",
                Kind::Time => "time",
                Kind::Pid | Kind::User | Kind::Mount => continue,
            };
            let restore =
                Restore::namespace(name, flag(*kind)).step(|| format!("open own {name} namespace"))?;
            sys::process::join(namespace.as_fd(), flag(*kind)).step(|| format!("join {kind:?} namespace"))?;
            restores.push(restore);
        }
        Ok(restores)
    }
}

/// Makes children of this process be born into another namespace of PIDs, until it is dropped.
pub(crate) fn children_into(namespace: &OwnedFd) -> Result<Restore, Error> {
    let restore = Restore::namespace("pid", Namespaces::PID).step(|| "open own PID namespace".into())?;
    sys::process::join(namespace.as_fd(), Namespaces::PID).step(|| "join PID namespace".into())?;
    Ok(restore)
}

/// Gives a process's new user namespace its mappings.
pub(crate) fn map(pid: i32, users: &[LinuxIdMapping], groups: &[LinuxIdMapping]) -> Result<(), Error> {
    // An unprivileged caller may map its own group only after giving up setgroups(2).
    if !rustix::process::geteuid().is_root() {
        write_proc(pid, "setgroups", "deny")?;
    }
    write_proc(pid, "uid_map", &lines(users))?;
    write_proc(pid, "gid_map", &lines(groups))
}

fn lines(mappings: &[LinuxIdMapping]) -> String {
    use std::fmt::Write;
    let mut lines = String::new();
    for mapping in mappings {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{} {} {}", mapping.container_id, mapping.host_id, mapping.size);
    }
    lines
}

/// Writes to a file of a process in the machine's own `/proc`.
pub(crate) fn write_proc(pid: i32, file: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{file}");
    let step = || format!("write {path}");
    let file = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
    rustix::io::write(&file, value.as_bytes()).step(step)?;
    Ok(())
}

/// A user namespace with these mappings and nothing in it.
pub(crate) fn user_namespace(users: &[LinuxIdMapping], groups: &[LinuxIdMapping]) -> Result<OwnedFd, Error> {
    let (ours, theirs) = sys::Channel::pair().step(|| "make a socket pair".into())?;
    let options = CloneOptions { namespaces: Namespaces::USER, ..CloneOptions::default() };
    let child = || {
        // It only has to live until its namespace was opened.
        let _ = theirs.receive(&mut [0], &mut Vec::new());
        0
    };
    let (pid, _pidfd) = sys::process::clone(&options, child).step(|| "make a user namespace".into())?;
    let made = map(pid, users, groups).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("open {path}"))
    });
    // A byte, since the child holds the other end as well and would not see it closed.
    let _ = ours.send(b".", &[]);
    let _ = sys::process::wait(pid);
    made
}
