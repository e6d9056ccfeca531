//! What a daemon can ask for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbox::{ExecPlan, Plan, RootfsSource};
use shim_protocol::{
    Attach, Attached, Command, Create, Exec, Failure, FailureKind, Reply, Rootfs, StdinMode,
};

use crate::client::Client;
use crate::container::{self, Container, FIRST, Key, Making, Phase};
use crate::external::External;
use crate::init;
use crate::log::Log;
use crate::oom::Watch;
use crate::shim::{Shim, listen};
use crate::streams::{Streams, Wanted};

/// How many descriptors come with a command.
pub fn descriptors(command: &Command) -> usize {
    match command {
        Command::Create(create) => create.attach.len(),
        Command::Attach(_) => 1,
        Command::Exec(exec) => usize::from(exec.attach.is_some()),
        Command::Start
        | Command::Discard
        | Command::Release { .. }
        | Command::Resize { .. }
        | Command::Signal { .. }
        | Command::Freeze(_)
        | Command::Hold
        | Command::OpenRoot
        | Command::State => 0,
    }
}

impl Shim {
    /// Carries out a command of a connection. What it comes to may have a descriptor with it.
    pub fn execute(
        &mut self,
        connection: u64,
        command: Command,
        payload: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    ) -> (Reply, Option<OwnedFd>) {
        let result = match command {
            Command::Create(create) => match self.create(*create, &payload, descriptors) {
                Ok((pid, netlink)) => return (Reply::Created { pid }, netlink),
                Err(failure) => Err(failure),
            },
            Command::Start => self.start(),
            Command::Discard => self.discard(),
            Command::Attach(attach) => self.attach(attach, descriptors),
            Command::Release { client } => self.release(client),
            Command::Exec(exec) => self.exec(*exec, &payload, descriptors),
            Command::Resize { exec, rows, columns } => self.resize(exec.as_deref(), rows, columns),
            Command::Signal { signal, all } => self.signal(signal, all),
            Command::Freeze(freeze) => self.freeze(freeze, None),
            Command::Hold => self.freeze(true, Some(connection)),
            Command::OpenRoot => match self.open_root() {
                Ok(root) => return (Reply::Root, Some(root)),
                Err(failure) => Err(failure),
            },
            Command::State => self.container().map(|container| Reply::State(container.state())),
        };
        (result.unwrap_or_else(Reply::Failed), None)
    }

    fn container(&mut self) -> Result<&mut Container, Failure> {
        self.container.as_mut().ok_or_else(|| not_running("there is no container yet"))
    }

    fn create(
        &mut self,
        create: Create,
        filter: &[u8],
        sockets: Vec<OwnedFd>,
    ) -> Result<(i32, Option<OwnedFd>), Failure> {
        if self.container.is_some() {
            return Err(invalid("this shim has a container already"));
        }
        let Create {
            id,
            run_directory,
            mut spec,
            rootfs,
            map_root,
            stdin,
            log,
            attach,
            netlink,
            runtime,
            systemd_cgroup,
            init,
            shared_memory_of,
        } = create;
        let Some(process) = &mut spec.process else { return Err(invalid("the spec has no process")) };
        // Else it would inherit the shim's own.
        process.oom_score_adj.get_or_insert(self.oom_score_adj);
        let wanted = Wanted {
            terminal: process.terminal,
            stdin: stdin != StdinMode::Null,
            output: true,
            once: stdin == StdinMode::Once,
        };
        let log = Log::open(&log).map_err(|error| system(describe(&error)))?;
        let listener = listen(&run_directory)
            .map_err(|error| system(format!("listen in {}: {error}", run_directory.display())))?;
        let (mut streams, stdio) =
            Streams::new(wanted).map_err(|error| system(format!("make standard streams: {error}")))?;
        for (attach, socket) in attach.into_iter().zip(sockets) {
            streams.add(Client::new(self.new_id(), attach, socket));
        }
        let driver = match systemd_cgroup {
            true => sandbox::cgroup::Driver::Systemd,
            false => sandbox::cgroup::Driver::Cgroupfs,
        };
        let made = match runtime {
            Some(runtime) => {
                let source = source(rootfs);
                External::create(runtime, driver, &id, &run_directory, &mut spec, &source, stdio)
                    .map(|(external, made)| make_other(external, made))?
            }
            None => {
                let mut plan = Plan::new(&id, &spec, source(rootfs), stdio);
                plan.seccomp = Some(filter).filter(|filter| !filter.is_empty());
                plan.netlink = netlink;
                plan.cgroup_driver = driver;
                plan.map_root = map_root;
                plan.bundle = &run_directory;
                if let Some(pid) = shared_memory_of {
                    let place = Path::new("/dev/shm");
                    plan.opened.push((place.into(), sandbox::borrow_mount(pid, place).map_err(failure)?));
                }
                let own = init.then(own_program).transpose().map_err(|error| system(error.to_string()))?;
                plan.init = own.as_ref().map(|own| sandbox::Init { program: own.as_fd(), name: init::NAME });
                make_own(sandbox::create(plan).map_err(failure)?)
            }
        };
        let pid = made.pid;
        self.listener = Some(listener);
        self.container = Some(Container {
            run_directory,
            spec,
            phase: Phase::Created(made.making),
            pid,
            started_at: None,
            oom_watch: None,
            oom_kills: 0,
            cgroup: made.cgroup,
            external: made.external,
            streams,
            log,
            execs: Vec::new(),
            ended_execs: Default::default(),
            size: None,
            release: None,
            early_failure: None,
            held_by: None,
        });
        self.take_early_input(FIRST);
        Ok((pid, made.netlink.filter(|_| netlink)))
    }

    fn start(&mut self) -> Result<Reply, Failure> {
        let container = self.container()?;
        let phase = std::mem::replace(&mut container.phase, Phase::Discarded);
        let Phase::Created(created) = phase else {
            container.phase = phase;
            return Err(invalid("the container is not waiting to be started"));
        };
        let started = match (created, container.early_failure.take()) {
            (Making::Own(created), Some(error)) => {
                created.discard();
                Err(failure(error))
            }
            (Making::Own(created), None) => created.start().map_err(failure),
            (Making::Other(made), _) => {
                let started = container.external.as_ref().map_or(Ok(()), External::start);
                started.map(|()| made.running())
            }
        };
        let mut running = match started {
            Ok(running) => running,
            Err(failure) => {
                container.discard();
                return Err(failure);
            }
        };
        let at_nanoseconds = crate::clock::now();
        container.started_at = Some(at_nanoseconds);
        container.pid = running.pid;
        let terminal = running.terminal.take();
        container.oom_watch = Watch::new(&container.cgroup).ok();
        container.phase = Phase::Running(running);
        if let Some(terminal) = terminal {
            // If this fails, the process runs without anybody at its terminal.
            let _ = container.streams.set_terminal(terminal);
            if let Some((rows, columns)) = container.size {
                let _ = container.streams.resize(rows, columns);
            }
        }
        self.take_early_input(FIRST);
        Ok(Reply::Started { at_nanoseconds })
    }

    fn discard(&mut self) -> Result<Reply, Failure> {
        let container = self.container()?;
        match container.phase {
            Phase::Created(_) | Phase::Discarded => {
                container.discard();
                Ok(Reply::Done)
            }
            Phase::Running(_) | Phase::Ending { .. } | Phase::Exited { .. } => {
                Err(invalid("the container was started"))
            }
        }
    }

    fn attach(&mut self, attach: Attach, sockets: Vec<OwnedFd>) -> Result<Reply, Failure> {
        let id = self.new_id();
        let container = self.container()?;
        match container.phase {
            Phase::Created(_) | Phase::Running(_) => {}
            Phase::Ending { .. } | Phase::Exited { .. } | Phase::Discarded => {
                return Err(not_running("the container is not running"));
            }
        }
        let (last, unfinished) = container.log.as_ref().map(Log::position).unwrap_or_default();
        let log_until = last.unwrap_or_else(|| crate::clock::now() as i64);
        for socket in sockets {
            container.streams.add(Client::new(id, attach.clone(), socket));
        }
        self.take_early_input(FIRST);
        Ok(Reply::Attached(Attached { client: id, log_until, unfinished }))
    }

    fn release(&mut self, client: u64) -> Result<Reply, Failure> {
        let clients = &mut self.container()?.streams.clients;
        clients.iter_mut().filter(|one| one.id == client).for_each(Client::release);
        Ok(Reply::Done)
    }

    fn exec(&mut self, exec: Exec, filter: &[u8], sockets: Vec<OwnedFd>) -> Result<Reply, Failure> {
        let (key, client) = (self.new_id(), self.new_id());
        let score = self.oom_score_adj;
        let container = self.container()?;
        let Some(running) = container.running() else {
            return Err(not_running("the container is not running"));
        };
        let Exec { id, mut process, attach, stdin_open, capture } = exec;
        if container.execs.iter().any(|exec| exec.id == id) {
            return Err(invalid(format!("there is an exec {id} already")));
        }
        let container_score = container.spec.process.as_ref().and_then(|process| process.oom_score_adj);
        process.oom_score_adj.get_or_insert(container_score.unwrap_or(score));
        let wanted = Wanted {
            terminal: process.terminal,
            stdin: stdin_open || attach.as_ref().is_some_and(|attach| attach.stdin),
            output: attach.is_some() || capture.is_some(),
            once: attach.as_ref().is_some_and(|attach| attach.stdin),
        };
        let (mut streams, stdio) =
            Streams::new(wanted).map_err(|error| system(format!("make standard streams: {error}")))?;
        let (pid, terminal) = match &container.external {
            Some(external) => external.exec(process, stdio).map(|(pid, _, terminal)| (pid, terminal))?,
            None => {
                let executed = sandbox::exec(ExecPlan {
                    target_pid: running.pid,
                    process: &process,
                    spec: &container.spec,
                    stdio,
                    seccomp: Some(filter).filter(|filter| !filter.is_empty()),
                    cgroup: &container.cgroup,
                    preserved_descriptors: 0,
                });
                executed.map(|executed| (executed.pid, executed.terminal)).map_err(|error| {
                    // It may have ended in the middle of that, whatever the step was that found out.
                    if has_ended(running.pid) {
                        not_running("the container is not running")
                    } else {
                        failure(error)
                    }
                })?
            }
        };
        if let Some(terminal) = terminal {
            let _ = streams.set_terminal(terminal);
        }
        for (attach, socket) in attach.into_iter().zip(sockets) {
            streams.add(Client::new(client, attach, socket));
        }
        let capturing = capture.map(container::Capturing::new);
        container.execs.push(container::Exec { key, id, pid, streams, ended: None, capturing });
        self.take_early_input(key);
        Ok(Reply::ExecStarted { pid })
    }

    /// Passes on what clients typed before they came here.
    fn take_early_input(&mut self, key: Key) {
        let Some(streams) = self.container.as_mut().and_then(|container| container.streams(key)) else {
            return;
        };
        for client in streams.take_early_input() {
            if let Some(streams) = self.container.as_mut().and_then(|container| container.streams(key)) {
                streams.detach(client);
            }
            self.notify_detached(key);
        }
    }

    fn resize(&mut self, exec: Option<&str>, rows: u16, columns: u16) -> Result<Reply, Failure> {
        let container = self.container()?;
        if exec.is_none() && matches!(container.phase, Phase::Created(_)) {
            container.size = Some((rows, columns));
            return Ok(Reply::Done);
        }
        let Some(streams) = container.streams_of(exec) else {
            return Err(not_running("no such exec is running"));
        };
        match streams.resize(rows, columns) {
            // Docker lets a size for a process without a terminal pass.
            Ok(_) => Ok(Reply::Done),
            Err(error) => Err(system(format!("resize the terminal: {error}"))),
        }
    }

    fn signal(&mut self, signal: i32, all: bool) -> Result<Reply, Failure> {
        let container = self.container()?;
        let pidfd = match &container.phase {
            Phase::Created(created) => created.pidfd(),
            Phase::Running(running) => &running.pidfd,
            Phase::Ending { .. } | Phase::Exited { .. } | Phase::Discarded => {
                return Err(not_running("the container is not running"));
            }
        };
        if all {
            container.cgroup.kill_all(signal).map_err(failure)?;
        } else {
            sys::process::send_signal(pidfd.as_fd(), signal).map_err(|error| match error.raw_os_error() {
                Some(libc::ESRCH) => not_running("the container is not running"),
                Some(libc::EINVAL) => invalid(format!("there is no signal {signal}")),
                _ => system(format!("send signal {signal}: {error}")),
            })?;
        }
        Ok(Reply::Done)
    }

    fn freeze(&mut self, freeze: bool, held_by: Option<u64>) -> Result<Reply, Failure> {
        let container = self.container()?;
        if container.running().is_none() {
            return Err(not_running("the container is not running"));
        }
        if let Some(external) = &container.external {
            return external.freeze(freeze).map(|()| Reply::Done);
        }
        let result = if freeze { container.cgroup.freeze() } else { container.cgroup.thaw() };
        container.held_by = held_by;
        result.map(|()| Reply::Done).map_err(failure)
    }

    fn open_root(&mut self) -> Result<OwnedFd, Failure> {
        let container = self.container()?;
        let Some(running) = container.running() else {
            return Err(not_running("the container is not running"));
        };
        running.open_root().map_err(failure)
    }
}

/// A container that waits for its start, whoever made it.
struct Waiting {
    pid: i32,
    netlink: Option<OwnedFd>,
    cgroup: sandbox::Cgroup,
    making: Making,
    external: Option<External>,
}

fn make_own(mut created: sandbox::Created) -> Waiting {
    let (pid, netlink, cgroup) = (created.pid, created.netlink.take(), created.cgroup.clone());
    Waiting { pid, netlink, cgroup, making: Making::Own(Box::new(created)), external: None }
}

fn make_other(external: External, mut made: crate::external::Made) -> Waiting {
    let (pid, netlink, cgroup) = (made.pid, made.netlink.take(), made.cgroup.clone());
    Waiting { pid, netlink, cgroup, making: Making::Other(Box::new(made)), external: Some(external) }
}

fn source(rootfs: Rootfs) -> RootfsSource {
    match rootfs {
        Rootfs::Directory(path) => RootfsSource::Directory(path),
        Rootfs::Overlay { lower, upper, work, volatile } => {
            RootfsSource::Overlay { lower, upper, work, volatile }
        }
    }
}

/// The sealed copy that this program runs from.
fn own_program() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(c"/proc/self/exe", flags, rustix::fs::Mode::empty())?)
}

// --- failures

pub fn failure(error: sandbox::Error) -> Failure {
    let kind = match &error {
        sandbox::Error::ProgramNotFound(_) => FailureKind::ProgramNotFound,
        sandbox::Error::ProgramNotExecutable(_) => FailureKind::ProgramNotExecutable,
        sandbox::Error::Invalid(_) => FailureKind::Invalid,
        sandbox::Error::System { .. } => FailureKind::System,
    };
    Failure { kind, message: error.to_string() }
}

/// Whether a child has ended, seen yet or not.
fn has_ended(pid: i32) -> bool {
    let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    process.is_none_or(|process| {
        let mut set = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut set, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    })
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Invalid, message: message.into() }
}

fn not_running(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::NotRunning, message: message.into() }
}

fn system(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::System, message: message.into() }
}

/// An error with its cause, since only its text gets to the daemon.
fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", describe(source)),
        None => error.to_string(),
    }
}
