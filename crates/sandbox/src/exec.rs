//! Another process for a running container.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci::runtime::LinuxNamespaceKind as Kind;
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags};
use sys::process::{CloneOptions, Namespaces, Restore};
use sys::{Channel, Root};

use crate::Error;
use crate::cgroup::Entry;
use crate::error::Step;
use crate::first::{connect, connect_terminal, enter_cgroups, set_labels_on_join};
use crate::namespaces::{flag, write_proc};
use crate::plan::{ExecPlan, Executed, Stdio};
use crate::process::{self, Program};
use crate::report::{ChildEnd, Order, ParentEnd, Report, Stage};

const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Starts another process in a running container: joins its namespaces and its cgroup. Returns when the program
/// runs, or with the reason why it does not.
pub fn exec(plan: ExecPlan<'_>) -> Result<Executed, Error> {
    if plan.process.args.is_empty() {
        return Err(Error::invalid("args must not be empty"));
    }
    // Before anything is joined: who is in the container must not be able to look into this copy of its keeper.
    sys::security::set_dumpable(false).step(|| "become undumpable".into())?;
    let target = Pid::from_raw(plan.target_pid)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
        .ok_or_else(|| Error::invalid("the container's first process is not running"))?;
    let kinds = kinds(&plan);
    let entry = plan.cgroup.entry()?;
    let (born_into, tasks) = match &entry {
        Entry::Directory(directory) => (Some(directory.as_fd()), &[][..]),
        Entry::Tasks(tasks) => (None, &tasks[..]),
    };
    let stage = Stage::new()?;
    let (ours, theirs) = Channel::pair().step(|| "make a socket pair".into())?;
    // Only children are born into another namespace of PIDs.
    let restore = match kinds.contains(Namespaces::PID) {
        true => {
            let restore =
                Restore::namespace("pid", Namespaces::PID).step(|| "open own PID namespace".into())?;
            sys::process::join(target.as_fd(), Namespaces::PID).step(|| "join the container".into())?;
            Some(restore)
        }
        false => None,
    };
    let options = CloneOptions { namespaces: Namespaces::EMPTY, cgroup: born_into, sibling: false };
    let mut inherited = Some(theirs);
    let cloned = sys::process::clone(&options, || {
        let Some(theirs) = inherited.take() else { return 1 };
        sys::process::close_own_copy(&ours);
        let channel = ChildEnd(theirs);
        let joining =
            Joining { plan: &plan, target: &target, kinds, tasks, channel: &channel, stage: &stage };
        let error = match joining.live() {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // A parent that is gone does not mind.
        let _ = channel.send(&Report::Failed(error));
        1
    });
    drop(restore);
    drop(inherited.take());
    let (pid, pidfd) = cloned.step(|| "clone the process".into())?;
    match finish(&plan, pid, &ParentEnd(ours), &stage) {
        Ok(terminal) => Ok(Executed { pid, pidfd, terminal }),
        Err(error) => {
            let _ = sys::process::send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = sys::process::wait(pid);
            Err(error)
        }
    }
}

fn finish(
    plan: &ExecPlan<'_>,
    pid: i32,
    channel: &ParentEnd,
    stage: &Stage,
) -> Result<Option<OwnedFd>, Error> {
    if let Some(score) = plan.process.oom_score_adj {
        write_proc(pid, "oom_score_adj", &score.to_string())?;
    }
    // Sent although nobody waits for it yet: a child that has failed says why below.
    let _ = channel.send(&Order::Go);
    let mut terminal = None;
    loop {
        match channel.next()? {
            Report::Terminal(controller) => terminal = Some(controller),
            Report::Listener(_) => {}
            Report::Closed if stage.is_executing() => return Ok(terminal),
            Report::Closed => {
                return Err(Error::system(
                    "the process ended before it ran its program",
                    rustix::io::Errno::CHILD,
                ));
            }
            Report::Failed(error) => return Err(error),
            _ => return Err(Error::system("talk to the new process", rustix::io::Errno::PROTO)),
        }
    }
}

/// The namespaces that the container does not share with the machine.
fn kinds(plan: &ExecPlan<'_>) -> Namespaces {
    let listed = plan.spec.linux.iter().flat_map(|linux| &linux.namespaces);
    listed.fold(Namespaces::EMPTY, |kinds, namespace| kinds.with(flag(namespace.kind)))
}

struct Joining<'a> {
    plan: &'a ExecPlan<'a>,
    target: &'a OwnedFd,
    kinds: Namespaces,
    tasks: &'a [OwnedFd],
    channel: &'a ChildEnd,
    stage: &'a Stage,
}

impl Joining<'_> {
    fn live(&self) -> Result<Infallible, Error> {
        let (plan, process) = (self.plan, self.plan.process);
        sys::process::reset_signals();
        let affinity = process.exec_cpu_affinity.as_ref();
        if let Some(initial) = affinity.map(|affinity| &affinity.initial).filter(|list| !list.is_empty()) {
            set_affinity(initial)?;
        }
        enter_cgroups(self.tasks)?;
        if let Some(last) = affinity.map(|affinity| &affinity.last).filter(|list| !list.is_empty()) {
            set_affinity(last)?;
        }
        // All at once, so that no step is taken with half of the container's world.
        let kinds = self.kinds.without(Namespaces::PID);
        sys::process::join(self.target.as_fd(), kinds).step(|| "join the container".into())?;
        if self.kinds.contains(flag(Kind::User)) {
            sys::security::set_user_and_group(0, 0).step(|| "become root of the user namespace".into())?;
            sys::security::set_dumpable(false).step(|| "become undumpable".into())?;
        }
        rustix::process::setsid().step(|| "start a session".into())?;
        let root = Root::open_path(Path::new("/")).step(|| "open /".into())?;
        let terminal = self.connect_streams(&root)?;
        let identity = process::identity(&root, process)?;
        drop(root);
        process::set_limits(plan.spec, process)?;
        process::own_streams(identity.uid, terminal);
        let first = 3 + plan.preserved_descriptors;
        sys::process::close_on_exec_from(first).step(|| "close descriptors".into())?;
        set_labels_on_join(process)?;
        let program = Program::prepare(process, &identity)?;
        let Order::Go = self.channel.next()? else {
            return Err(Error::system("talk to the parent", rustix::io::Errno::PROTO));
        };
        if let Some(listener) = process::confine(plan.spec, process, &identity, plan.seccomp)? {
            self.channel.send(&Report::Listener(listener))?;
        }
        Err(program.execute(self.stage))
    }

    fn connect_streams(&self, root: &Root) -> Result<bool, Error> {
        match &self.plan.stdio {
            Stdio::Terminal => {
                let step = || "open a terminal".to_owned();
                let devpts =
                    root.open_exact(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY).step(step)?;
                // The container may have put anything there by now.
                if rustix::fs::fstatfs(&devpts).step(step)?.f_type as u64 != DEVPTS_MAGIC {
                    return Err(Error::invalid("/dev/pts of the container is no devpts"));
                }
                let pair = sys::terminal::open(&devpts).step(step)?;
                connect_terminal(self.channel, self.plan.process, pair)?;
                Ok(true)
            }
            Stdio::Descriptors { stdin, stdout, stderr } => {
                connect(stdin, stdout, stderr)?;
                Ok(false)
            }
        }
    }
}

/// Lets the process run on these processors only: a list as `0-3,7`.
fn set_affinity(list: &str) -> Result<(), Error> {
    let bad = || Error::invalid(format!("list of processors {list:?} is not valid"));
    let mut processors = rustix::thread::CpuSet::new();
    for range in list.split(',') {
        let (first, last) = range.trim().split_once('-').unwrap_or((range.trim(), range.trim()));
        let first: usize = first.parse().map_err(|_| bad())?;
        let last: usize = last.parse().map_err(|_| bad())?;
        if last < first || last >= rustix::thread::CpuSet::MAX_CPU {
            return Err(bad());
        }
        (first..=last).for_each(|processor| processors.set(processor));
    }
    rustix::thread::sched_setaffinity(None, &processors).step(|| format!("run on processors {list}"))
}
