//! The life of a container's first process, from its birth to the execution of its program.
//!
//! It is a copy of its single-threaded parent, alone in new namespaces. In order, it
//! 1. joins the namespaces of others and waits for its user mappings,
//! 2. makes a netlink socket for whoever configures its network, and hands it out before anything else,
//! 3. opens what is to be mounted, cuts its mounts off from the host's, and assembles its root,
//! 4. enters its cgroups (v1), which its parent made meanwhile,
//! 5. covers and protects paths, writes sysctls, enters the root,
//! 6. gives up privileges, waits for the word, and executes the program.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci::runtime::{Hooks, LinuxNamespaceKind as Kind, Process, Spec, Status};
use rustix::fs::Mode;
use sys::process::Namespaces;

use crate::cgroup::Cgroup;
use crate::error::{Error, Step};
use crate::namespaces::Wanted;
use crate::options::Options;
use crate::plan::{Gate, Plan, Stdio};
use crate::process::{self, Program};
use crate::report::{ChildEnd, Order, Report, Stage};
use crate::rootfs::{self, NewRoot};
use crate::sources::{self, Mappings, Sources};

/// What the process has from its parent.
pub(crate) struct First<'a> {
    pub plan: &'a Plan<'a>,
    pub process: &'a Process,
    pub wanted: &'a Wanted,
    pub cgroup: &'a Cgroup,
    pub options: &'a [Options<'a>],
    pub mappings: &'a Mappings,
    /// Opened by the parent if the process could not.
    pub sources: Option<Sources>,
    pub channel: ChildEnd,
    pub stage: &'a Stage,
}

/// Runs to the end. Returns the code to exit with.
pub(crate) fn run(mut first: First<'_>) -> i32 {
    let error = match first.live() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let code = match error {
        Error::ProgramNotFound(_) => 127,
        Error::ProgramNotExecutable(_) => 126,
        Error::Invalid(_) | Error::System { .. } => 1,
    };
    let text = error.to_string();
    if first.channel.send(&Report::Failed(error)).is_err() {
        // The parent has gone, as it does when the start comes by FIFO: what reads the output is told instead.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
    }
    code
}

impl First<'_> {
    fn live(&mut self) -> Result<Infallible, Error> {
        let (plan, spec, process) = (self.plan, self.plan.spec, self.process);
        sys::process::reset_signals();
        self.enter_namespaces()?;
        self.prepare_network()?;
        rustix::process::setsid().step(|| "start a session".into())?;
        if plan.keyring {
            join_keyring(plan.id)?;
        }
        self.name_host(spec)?;

        rustix::process::umask(Mode::empty());
        let mut root = self.build_root(spec)?;
        let hooks = spec.hooks.as_ref();
        if hooks.is_some_and(runs_before_start) {
            self.channel.send(&Report::RootBuilt)?;
            let Order::Continue = self.channel.next()? else { return Err(unexpected()) };
        }
        if let Some(hooks) = hooks.filter(|hooks| !hooks.create_container.is_empty()) {
            let state = crate::hooks::state(plan.id, spec, plan.bundle, Status::Creating, 1);
            crate::hooks::run("createContainer", &hooks.create_container, &state)?;
        }
        let terminal = self.connect_streams(&root)?;
        let identity = process::identity(&root.root, process)?;
        self.prepare_directory(&root)?;
        let proc = root.proc.take();
        self.set_sysctls(spec, proc.as_ref())?;
        if let Some(linux) = &spec.linux {
            root.protect(&linux.readonly_paths)?;
            root.mask(&linux.masked_paths)?;
        }
        root.seal(spec)?;
        root.enter(plan.pivot)?;
        drop(root);

        process::set_limits(spec, process)?;
        process::own_streams(identity.uid, terminal);
        let first = 3 + plan.preserved_descriptors;
        sys::process::close_on_exec_from(first).step(|| "close descriptors".into())?;
        set_labels(process, proc)?;
        let program = Program::prepare(process, &identity)?;
        if let Some(hooks) = hooks.filter(|hooks| !hooks.start_container.is_empty()) {
            return self.finish_with_hooks(program, &identity, hooks);
        }
        self.confine(&identity)?;
        // An init starts in any case; that the program is missing should be known before.
        if plan.init.is_some() || matches!(plan.gate, Gate::Fifo(_)) {
            program.check()?;
        }
        self.wait_for_the_word()?;
        self.execute(program)
    }

    /// Hooks in the container run after the word and need what the program itself must not have.
    fn finish_with_hooks(
        &mut self,
        program: Program,
        identity: &crate::users::Identity,
        hooks: &Hooks,
    ) -> Result<Infallible, Error> {
        let plan = self.plan;
        self.wait_for_the_word()?;
        let state = crate::hooks::state(plan.id, plan.spec, plan.bundle, Status::Created, 1);
        crate::hooks::run("startContainer", &hooks.start_container, &state)?;
        self.confine(identity)?;
        self.execute(program)
    }

    fn execute(&self, program: Program) -> Result<Infallible, Error> {
        Err(match self.plan.init {
            Some(init) => program.execute_under(init, self.stage),
            None => program.execute(self.stage),
        })
    }

    fn confine(&self, identity: &crate::users::Identity) -> Result<(), Error> {
        let listener = process::confine(self.plan.spec, self.process, identity, self.plan.seccomp)?;
        if let Some(listener) = listener {
            self.channel.send(&Report::Listener(listener))?;
        }
        Ok(())
    }

    fn wait_for_the_word(&self) -> Result<(), Error> {
        match &self.plan.gate {
            Gate::Socket => match self.channel.next()? {
                Order::Go => Ok(()),
                _ => Err(unexpected()),
            },
            Gate::Fifo(fifo) => {
                self.channel.send(&Report::Ready)?;
                let read = rustix::io::retry_on_intr(|| rustix::io::read(fifo, &mut [0; 1][..]));
                read.step(|| "wait for the start".into())?;
                Ok(())
            }
        }
    }

    fn enter_namespaces(&self) -> Result<(), Error> {
        if self.wanted.new.contains(Namespaces::USER) {
            // Its own files in /proc belong to it again, as long as its mappings are written.
            sys::security::set_dumpable(true).step(|| "become dumpable".into())?;
            let Order::Mapped = self.channel.next()? else { return Err(unexpected()) };
            sys::security::set_dumpable(false).step(|| "become undumpable".into())?;
        }
        // With a user namespace the joining was done before: this process would have no right to it.
        if !self.wanted.has(Kind::User) {
            self.wanted.enter()?;
        }
        if self.wanted.new.contains(Namespaces::USER) {
            sys::security::set_user_and_group(0, 0).step(|| "become root of the user namespace".into())?;
            // That made it dumpable or not by rules of its own.
            sys::security::set_dumpable(false).step(|| "become undumpable".into())?;
        }
        Ok(())
    }

    fn prepare_network(&self) -> Result<(), Error> {
        if !self.wanted.new.contains(Namespaces::NETWORK) {
            return Ok(());
        }
        let socket = sys::network::route_socket().step(|| "open a netlink socket".into())?;
        sys::network::loopback_up(socket.as_fd()).step(|| "bring the loopback interface up".into())?;
        if self.plan.netlink {
            self.channel.send(&Report::Netlink(socket))?;
        }
        Ok(())
    }

    fn name_host(&self, spec: &Spec) -> Result<(), Error> {
        if !spec.hostname.is_empty() {
            if !self.wanted.has(Kind::Uts) {
                return Err(Error::invalid("unable to set hostname without a private UTS namespace"));
            }
            rustix::system::sethostname(spec.hostname.as_bytes()).step(|| "set the host name".into())?;
        }
        if !spec.domainname.is_empty() {
            if !self.wanted.has(Kind::Uts) {
                return Err(Error::invalid("unable to set domainname without a private UTS namespace"));
            }
            rustix::system::setdomainname(spec.domainname.as_bytes())
                .step(|| "set the domain name".into())?;
        }
        Ok(())
    }

    fn build_root(&mut self, spec: &Spec) -> Result<NewRoot, Error> {
        let mut sources = match self.sources.take() {
            Some(sources) => {
                sources::make_private()?;
                sources
            }
            None => sources::open(self.plan, true, self.options, self.mappings)?,
        };
        let mut root = rootfs::begin(&sources, spec.linux.as_ref().map_or("", |linux| &linux.mount_label))?;
        let own_cgroup_namespace = self.wanted.has(Kind::Cgroup);
        let mut joined = false;
        let mut opened = sources.mounts.drain(..);
        for (mount, options) in spec.mounts.iter().zip(self.options) {
            // A cgroup mount shows where the process is, and what is copied into memory is the container's.
            if !joined && (mount.kind.starts_with("cgroup") || options.copy_up) {
                self.join_cgroup()?;
                joined = true;
            }
            root.place(mount, options, opened.next().flatten(), self.cgroup, own_cgroup_namespace)?;
        }
        drop(opened);
        if crate::devices::is_own(spec) {
            crate::devices::fill(&root.root, spec, &mut sources.devices)?;
        }
        if !joined {
            self.join_cgroup()?;
        }
        Ok(root)
    }

    fn join_cgroup(&self) -> Result<(), Error> {
        if !self.cgroup.takes_newborns() {
            let Order::Join(tasks) = self.channel.next()? else { return Err(unexpected()) };
            enter_cgroups(&tasks)?;
        }
        // Not before: the namespace's root is where the process that makes it is.
        if self.wanted.new.contains(Namespaces::CGROUP) {
            sys::process::unshare(Namespaces::CGROUP).step(|| "make a cgroup namespace".into())?;
        }
        Ok(())
    }

    fn connect_streams(&self, root: &NewRoot) -> Result<bool, Error> {
        match &self.plan.stdio {
            Stdio::Terminal => {
                let Some(devpts) = &root.devpts else {
                    return Err(Error::invalid("a terminal needs a devpts mount at /dev/pts"));
                };
                let pair = sys::terminal::open(devpts).step(|| "open a terminal".into())?;
                if crate::devices::is_own(self.plan.spec) {
                    root.place_console(pair.terminal.as_fd())?;
                }
                connect_terminal(&self.channel, self.process, pair)?;
                Ok(true)
            }
            Stdio::Descriptors { stdin, stdout, stderr } => {
                connect(stdin, stdout, stderr)?;
                Ok(false)
            }
        }
    }

    /// Makes the process's directory if it is missing, as Docker does.
    fn prepare_directory(&self, root: &NewRoot) -> Result<(), Error> {
        let cwd = &self.process.cwd;
        if cwd.is_empty() || cwd == "/" {
            return Ok(());
        }
        match root.root.create_directories(Path::new(cwd), Mode::from_raw_mode(0o755)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
                Err(Error::invalid(format!("mkdir {cwd}: not a directory")))
            }
            // Whether it can be entered shows when it is; a read-only mount is no reason to fail here.
            _ => Ok(()),
        }
    }

    fn set_sysctls(&self, spec: &Spec, proc: Option<&OwnedFd>) -> Result<(), Error> {
        let Some(linux) = spec.linux.as_ref().filter(|linux| !linux.sysctl.is_empty()) else { return Ok(()) };
        let made;
        let proc = match proc {
            Some(proc) => proc,
            None => {
                made = own_proc()?;
                &made
            }
        };
        linux.sysctl.iter().try_for_each(|(key, value)| crate::sysctl::write(proc.as_fd(), key, value))
    }
}

fn unexpected() -> Error {
    Error::system("talk to the container's parent", rustix::io::Errno::PROTO)
}

fn runs_before_start(hooks: &Hooks) -> bool {
    !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty()
}

/// A procfs that nobody else can have put anything into.
fn own_proc() -> Result<OwnedFd, Error> {
    sources::new_mount("proc", None, &Options::default(), sys::mount::Attributes::EMPTY)
}

fn set_labels(process: &Process, proc: Option<OwnedFd>) -> Result<(), Error> {
    if process.apparmor_profile.is_empty() && process.selinux_label.is_empty() {
        return Ok(());
    }
    process::set_labels(process, proc.map_or_else(own_proc, Ok)?)
}

/// Labels for a process that joined a container, whose `/proc` may be anything.
pub(crate) fn set_labels_on_join(process: &Process) -> Result<(), Error> {
    set_labels(process, None)
}

/// Moves the calling process into the cgroups of these `tasks` files.
pub(crate) fn enter_cgroups(tasks: &[OwnedFd]) -> Result<(), Error> {
    for file in tasks {
        // `0` is the writer itself: see the module `cgroup`.
        rustix::io::write(file, b"0").map_err(|error| match error {
            rustix::io::Errno::NOSPC => {
                Error::invalid("join the cgroup: its cpuset has no processors or memory")
            }
            error => Error::system("join the cgroup", error),
        })?;
    }
    Ok(())
}

fn join_keyring(id: &str) -> Result<(), Error> {
    let name =
        CString::new(format!("_ses.{id}")).map_err(|_| Error::invalid("the ID contains a zero byte"))?;
    match sys::security::join_keyring(&name) {
        // Kernels without keys, and a quota that is used up, are no reason to refuse a container.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSYS | libc::EDQUOT | libc::EPERM | libc::EACCES)
            ) =>
        {
            Ok(())
        }
        other => other.step(|| "join a session keyring".into()),
    }
}

/// Makes the terminal the process's own, and hands its other side out.
pub(crate) fn connect_terminal(
    channel: &ChildEnd,
    process: &Process,
    pair: sys::terminal::Terminal,
) -> Result<(), Error> {
    if let Some(size) = process.console_size.filter(|size| size.height > 0 || size.width > 0) {
        let cells = |count: u32| count.min(u16::MAX.into()) as u16;
        sys::terminal::resize(&pair.terminal, cells(size.height), cells(size.width))
            .step(|| "set the terminal's size".into())?;
    }
    rustix::process::ioctl_tiocsctty(&pair.terminal).step(|| "take the terminal".into())?;
    connect(&pair.terminal, &pair.terminal, &pair.terminal)?;
    channel.send(&Report::Terminal(pair.controller))
}

pub(crate) fn connect(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), Error> {
    // Any of them may have a number below 3 that another one is to get: all are moved away first.
    let step = || "connect the standard streams".to_owned();
    let away = |stream: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(stream, 10).step(step);
    let moved = [away(stdin)?, away(stdout)?, away(stderr)?];
    for (number, stream) in moved.iter().enumerate() {
        sys::process::duplicate_to(stream.as_fd(), number as i32).step(step)?;
    }
    Ok(())
}
