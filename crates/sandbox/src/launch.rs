//! The parent's side of making a container.

use std::os::fd::{AsFd, OwnedFd};

use oci::runtime::{LinuxNamespaceKind as Kind, Process, Spec, Status, TimeClock};
use rustix::process::PidfdFlags;
use sys::Channel;
use sys::process::{CloneOptions, Namespaces, Restore};

use crate::cgroup::{Cgroup, Entry};
use crate::error::{Error, Step};
use crate::first::{self, First};
use crate::namespaces::{self, Wanted};
use crate::options::Options;
use crate::plan::{Created, Gate, Pending, Plan, Running};
use crate::report::{ChildEnd, Order, ParentEnd, Report, Stage};
use crate::sources::{self, Sources};

/// Makes the container: returns as soon as its first process is cloned (and its netlink socket arrived); that
/// process goes on building its root meanwhile.
///
/// With hooks that run before the start, or with a FIFO as gate, it returns when the root is built.
pub fn create(plan: Plan<'_>) -> Result<Created, Error> {
    let spec = plan.spec;
    let process = check(spec)?;
    // Inherited by the child: nobody in the namespaces that it joins may look into it.
    sys::security::set_dumpable(false).step(|| "become undumpable".into())?;
    let wanted = Wanted::from_spec(spec)?;
    if let Some(linux) = &spec.linux {
        crate::sysctl::check(linux.sysctl.keys(), |kind| wanted.has(kind))?;
    }
    let cgroup = Cgroup::for_container(plan.cgroup_driver, plan.id, spec)?;
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.clone());
    // On v2 the child is born into its cgroup, so that must be there; on v1 and by systemd it is made meanwhile.
    let born_into =
        match cgroup.takes_newborns().then(|| cgroup.make(resources.as_ref(), None)).transpose()? {
            Some(Entry::Directory(directory)) => Some(directory),
            _ => None,
        };
    let made = clone_first(&plan, process, &wanted, &cgroup, born_into.as_ref());
    let (pid, pidfd, channel, stage) = match made {
        Ok(made) => made,
        Err(error) => {
            // Why there is no process is what the caller must hear.
            let _ = cgroup.delete();
            return Err(error);
        }
    };
    let pending = Pending {
        resources,
        cgroup: !cgroup.takes_newborns(),
        id: plan.id.to_owned(),
        hooks: spec.hooks.clone().unwrap_or_default(),
        state: crate::hooks::state(plan.id, spec, plan.bundle, Status::Creating, pid),
        fifo: matches!(plan.gate, Gate::Fifo(_)),
    };
    let mut created = Created {
        pid,
        pidfd,
        netlink: None,
        cgroup,
        terminal: None,
        listener: None,
        channel,
        stage,
        pending,
    };
    match created.begin(&plan, &wanted) {
        Ok(()) => Ok(created),
        Err(error) => {
            created.discard();
            Err(error)
        }
    }
}

fn check(spec: &Spec) -> Result<&Process, Error> {
    let process =
        spec.process.as_ref().ok_or_else(|| Error::invalid("process property must not be empty"))?;
    if process.args.is_empty() {
        return Err(Error::invalid("args must not be empty"));
    }
    if !process.cwd.is_empty() && !process.cwd.starts_with('/') {
        return Err(Error::invalid("Cwd must be an absolute path"));
    }
    if let Some(mount) = spec.mounts.iter().find(|mount| mount.destination.as_os_str().is_empty()) {
        return Err(Error::invalid(format!("mount of {:?} has no destination", mount.source)));
    }
    Ok(process)
}

type Cloned = (i32, OwnedFd, ParentEnd, Stage);

fn clone_first(
    plan: &Plan<'_>,
    process: &Process,
    wanted: &Wanted,
    cgroup: &Cgroup,
    born_into: Option<&OwnedFd>,
) -> Result<Cloned, Error> {
    let options: Vec<Options<'_>> = plan.spec.mounts.iter().map(Options::parse).collect();
    let mappings = sources::mappings(plan.spec, &options, plan.map_root)?;
    let in_user_namespace = wanted.has(Kind::User);
    let sources = match in_user_namespace {
        true => Some(sources::open(plan, false, &options, &mappings)?),
        false => None,
    };
    let stage = Stage::new()?;
    let (ours, theirs) = Channel::pair().step(|| "make a socket pair".into())?;
    let mut namespaces = wanted.new.without(Namespaces::CGROUP);
    let joins_user = wanted.joins(Kind::User).is_some();
    // Whoever joins a user namespace cannot come back: then a process in between does the joining.
    let to_join = wanted.joins(Kind::Pid).filter(|_| !joins_user);
    let _pid = to_join.map(namespaces::children_into).transpose()?;
    let _joined = wanted.enter_for_child()?;
    let _time = enter_time(plan.spec, &mut namespaces)?;
    let born_into = born_into.map(AsFd::as_fd);
    let first_options = CloneOptions { namespaces, cgroup: born_into, sibling: false };
    // What the child takes over is moved into it; the parent's copies go when this function returns.
    let mut inherited = Some((sources, ChildEnd(theirs)));
    let live = |inherited: &mut Option<(Option<Sources>, ChildEnd)>| {
        let Some((sources, channel)) = inherited.take() else { return 1 };
        let (options, mappings, stage) = (&options, &mappings, &stage);
        first::run(First { plan, process, wanted, cgroup, options, mappings, sources, channel, stage })
    };
    if !joins_user {
        let (pid, pidfd) = sys::process::clone(&first_options, || {
            // The child must not hold the parent's end, or it would not see it closed.
            sys::process::close_own_copy(&ours);
            live(&mut inherited)
        })
        .step(|| "clone the container's first process".into())?;
        return Ok((pid, pidfd, ParentEnd(ours), stage));
    }
    let between_options = CloneOptions { namespaces: Namespaces::EMPTY, cgroup: born_into, sibling: false };
    let (between, _) = sys::process::clone(&between_options, || {
        sys::process::close_own_copy(&ours);
        let options = CloneOptions { namespaces, cgroup: None, sibling: true };
        let made = wanted.enter_with_user().and_then(|()| {
            sys::process::clone(&options, || live(&mut inherited))
                .step(|| "clone the container's first process".into())
        });
        let report = made.map_or_else(Report::Failed, |(pid, _)| Report::Successor(pid));
        // A parent that is gone does not mind.
        let _ = inherited.as_ref().map(|(_, channel)| channel.send(&report));
        0
    })
    .step(|| "clone the container's first process".into())?;
    drop(inherited);
    let channel = ParentEnd(ours);
    let successor = channel.next();
    sys::process::wait(between).step(|| "wait for the process in between".into())?;
    let pid = match successor? {
        Report::Successor(pid) => pid,
        Report::Failed(error) => return Err(error),
        _ => return Err(unexpected()),
    };
    let pidfd = rustix::process::Pid::from_raw(pid).ok_or_else(unexpected).and_then(|pid| {
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).step(|| "open the process".into())
    })?;
    Ok((pid, pidfd, channel, stage))
}

/// A new time namespace with offsets must get them before any process is in it. So the parent makes it, for its
/// children only, and sets the offsets; without offsets the clone makes it.
fn enter_time(spec: &Spec, namespaces: &mut Namespaces) -> Result<Option<Restore>, Error> {
    let offsets = spec.linux.as_ref().map(|linux| &linux.time_offsets);
    if !namespaces.contains(Namespaces::TIME) || offsets.is_none_or(|offsets| offsets.is_empty()) {
        return Ok(None);
    }
    *namespaces = namespaces.without(Namespaces::TIME);
    let restore = Restore::namespace("time", Namespaces::TIME).step(|| "open own time namespace".into())?;
    sys::process::unshare(Namespaces::TIME).step(|| "make a time namespace".into())?;
    set_time_offsets(spec)?;
    Ok(Some(restore))
}

fn set_time_offsets(spec: &Spec) -> Result<(), Error> {
    let offsets = spec.linux.iter().flat_map(|linux| &linux.time_offsets);
    for (clock, offset) in offsets {
        let clock = match clock {
            TimeClock::Monotonic => "monotonic",
            TimeClock::Boottime => "boottime",
        };
        let line = format!("{clock} {} {}", offset.secs, offset.nanosecs);
        namespaces::write_proc(rustix::process::getpid().as_raw_nonzero().get(), "timens_offsets", &line)?;
    }
    Ok(())
}

impl Created {
    /// What must happen before `create` returns.
    fn begin(&mut self, plan: &Plan<'_>, wanted: &Wanted) -> Result<(), Error> {
        if let Some(linux) = plan.spec.linux.as_ref().filter(|_| wanted.new.contains(Namespaces::USER)) {
            namespaces::map(self.pid, &linux.uid_mappings, &linux.gid_mappings)?;
            self.channel.send(&Order::Mapped)?;
        }
        if let Some(score) = plan.spec.process.as_ref().and_then(|process| process.oom_score_adj) {
            // The parent's right: the child may have none over its own file once it is not dumpable.
            namespaces::write_proc(self.pid, "oom_score_adj", &score.to_string())?;
        }
        if plan.netlink && wanted.new.contains(Namespaces::NETWORK) {
            match self.next()? {
                Report::Netlink(socket) => self.netlink = Some(socket),
                _ => return Err(unexpected()),
            }
        }
        let hooks = &self.pending.hooks;
        if self.pending.fifo || !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
            self.settle()?;
        }
        if self.pending.fifo {
            loop {
                match self.next()? {
                    Report::Ready => break,
                    report => self.keep(report)?,
                }
            }
        }
        Ok(())
    }

    /// Does what the child will wait for: makes its cgroup and runs hooks. [`Created::start`] does it if nobody
    /// has; who has something else to wait for does it before.
    pub fn settle(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.pending.cgroup)
            && let Entry::Tasks(tasks) =
                self.cgroup.make(self.pending.resources.as_ref(), Some((self.pid, &self.pending.id)))?
        {
            // A child that has failed says why when it is asked.
            let _ = self.channel.send(&Order::Join(tasks));
        }
        let hooks = std::mem::take(&mut self.pending.hooks);
        if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
            loop {
                match self.next()? {
                    Report::RootBuilt => break,
                    report => self.keep(report)?,
                }
            }
            crate::hooks::run("prestart", &hooks.prestart, &self.pending.state)?;
            crate::hooks::run("createRuntime", &hooks.create_runtime, &self.pending.state)?;
            self.channel.send(&Order::Continue)?;
        }
        self.pending.hooks.poststart = hooks.poststart;
        Ok(())
    }

    /// Lets the process execute its program, and waits until it has or could not. If it could not, nothing of the
    /// container is left.
    pub fn start(mut self) -> Result<Running, Error> {
        match self.try_start() {
            Ok(mounts) => {
                let Created { pid, pidfd, cgroup, terminal, listener, pending, .. } = self;
                let mut state = pending.state;
                state.status = Status::Running;
                // As the specification has it, a failing poststart hook does not undo the start.
                let _ = crate::hooks::run("poststart", &pending.hooks.poststart, &state);
                Ok(Running { pid, pidfd, terminal, listener, cgroup, mounts })
            }
            Err(error) => {
                self.discard();
                Err(error)
            }
        }
    }

    fn try_start(&mut self) -> Result<Option<OwnedFd>, Error> {
        self.settle()?;
        // A child that has failed says why when it is asked.
        let _ = self.channel.send(&Order::Go);
        let mounts = open_mounts(self.pid);
        loop {
            match self.channel.next()? {
                Report::Closed if self.stage.is_executing() => return Ok(mounts),
                Report::Closed => return Err(self.death()),
                Report::Failed(error) => return Err(error),
                report => self.keep(report)?,
            }
        }
    }

    /// Kills the process and removes what was made for it.
    pub fn discard(self) {
        // It may have ended by itself; then there is nothing to kill and only its status to take.
        let _ = sys::process::send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = sys::process::wait(self.pid);
        let _ = self.cgroup.delete();
    }

    fn next(&self) -> Result<Report, Error> {
        match self.channel.next()? {
            Report::Failed(error) => Err(error),
            Report::Closed => Err(self.death()),
            report => Ok(report),
        }
    }

    fn keep(&mut self, report: Report) -> Result<(), Error> {
        match report {
            Report::Terminal(terminal) => self.terminal = Some(terminal),
            Report::Listener(listener) => self.listener = Some(listener),
            Report::Netlink(socket) => self.netlink = Some(socket),
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    /// Why the process is gone without having said anything.
    fn death(&self) -> Error {
        if self.cgroup.oom_kills() > 0 {
            return Error::invalid("container init was OOM-killed (memory limit too low?)");
        }
        Error::system(
            "the container's first process ended before it ran its program",
            rustix::io::Errno::CHILD,
        )
    }
}

fn unexpected() -> Error {
    Error::system("talk to the container's first process", rustix::io::Errno::PROTO)
}

/// The container's mount namespace; none if the container is that quick to end.
fn open_mounts(pid: i32) -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(format!("/proc/{pid}/ns/mnt"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}
