//! Containers that another runtime makes: a program with runc's command line.
//!
//! The shim stays their parent and keeps their streams. It makes what the program expects to find: the network
//! namespace, and a bundle whose root is mounted in the shim's own mount namespace, where nobody else sees it.

use std::fs;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use oci::runtime::{LinuxNamespaceKind, Process, Root as SpecRoot, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix};
use rustix::net::{SocketFlags, SocketType};
use sandbox::{Cgroup, RootfsSource, Running, Stdio};
use shim_protocol::{Failure, FailureKind, Runtime};
use sys::mount::{Change, Propagation};
use sys::process::{Namespaces, Restore};

/// Of the specification, as the spec for another runtime says it.
const VERSION: &str = "1.0.2";
/// How long a command of the runtime may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of its log is read, in bytes.
const LOG_MAX: u64 = 64 << 10;
/// Longest address of a socket, in bytes, with the zero at its end.
const ADDRESS_MAX: usize = 108;

/// A container of another runtime.
#[derive(Debug)]
pub struct External {
    runtime: Runtime,
    id: String,
    directory: PathBuf,
    /// Held so that the namespace has a path until the container is gone.
    _network: Option<OwnedFd>,
    deleted: bool,
}

/// What [`External::create`] made.
pub struct Made {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
    /// From inside the network namespace.
    pub netlink: Option<OwnedFd>,
    pub cgroup: Cgroup,
}

impl Made {
    /// The container as one that runs.
    pub fn running(self) -> Running {
        let Made { pid, pidfd, terminal, cgroup, .. } = self;
        Running { pid, pidfd, terminal, listener: None, cgroup, mounts: None }
    }
}

impl External {
    /// Makes the container. A failure leaves nothing of it.
    pub fn create(
        runtime: Runtime,
        id: &str,
        directory: &Path,
        spec: &mut Spec,
        rootfs: &RootfsSource,
        stdio: Stdio,
    ) -> Result<(External, Made), Failure> {
        let cgroup = Cgroup::for_container(sandbox::cgroup::Driver::Cgroupfs, id, spec).map_err(failure)?;
        isolate().map_err(|error| system("make a mount namespace", &error))?;
        let bundle = directory.join("bundle");
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root).map_err(|error| system("make the bundle", &error))?;
        let label = spec.linux.as_ref().map_or("", |linux| &linux.mount_label);
        sandbox::mount_root(rootfs, label, &root).map_err(failure)?;
        let network = own_network(spec).map_err(|error| system("make a network namespace", &error))?;
        let (network, netlink) = network.map_or((None, None), |(space, socket)| (Some(space), Some(socket)));
        if let Some(process) = &mut spec.process {
            resolve_user(&root, process)?;
        }
        let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
        // Older runtimes refuse a newer specification by its number, and nothing of it is used here.
        spec.oci_version = VERSION.into();
        spec.root = Some(SpecRoot { path: "rootfs".into(), readonly });
        write_json(&bundle.join("config.json"), spec)?;
        let mut external = External {
            runtime,
            id: id.into(),
            directory: directory.into(),
            _network: network,
            deleted: false,
        };
        let result = external.start_process(&["create", "--bundle", &text(&bundle)], stdio);
        match result {
            Ok((pid, pidfd, terminal)) => Ok((external, Made { pid, pidfd, terminal, netlink, cgroup })),
            Err(failure) => {
                external.delete();
                Err(failure)
            }
        }
    }

    pub fn start(&self) -> Result<(), Failure> {
        self.run(&["start", &self.id])
    }

    pub fn freeze(&self, freeze: bool) -> Result<(), Failure> {
        self.run(&[if freeze { "pause" } else { "resume" }, &self.id])
    }

    /// Runs another process in the container.
    pub fn exec(
        &self,
        mut process: Process,
        stdio: Stdio,
    ) -> Result<(i32, OwnedFd, Option<OwnedFd>), Failure> {
        resolve_user(&self.directory.join("bundle/rootfs"), &mut process)?;
        let file = self.directory.join("process.json");
        write_json(&file, &process)?;
        self.start_process(&["exec", "--detach", "--process", &text(&file)], stdio)
    }

    /// Removes what is left of the container. Once is enough.
    pub fn delete(&mut self) {
        if std::mem::replace(&mut self.deleted, true) {
            return;
        }
        // It may have got nowhere; then there is nothing to delete, and it says so.
        let _ = self.run(&["delete", "--force", &self.id]);
        let root = self.directory.join("bundle/rootfs");
        let _ = rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH);
    }

    /// Runs a command that starts a process and returns: tells the process, and its terminal.
    fn start_process(
        &self,
        command: &[&str],
        stdio: Stdio,
    ) -> Result<(i32, OwnedFd, Option<OwnedFd>), Failure> {
        let pid_file = self.directory.join("runtime.pid");
        let _ = fs::remove_file(&pid_file);
        let pid_file_text = text(&pid_file);
        let mut arguments = command.to_vec();
        arguments.extend(["--pid-file", &pid_file_text]);
        let console = match stdio {
            Stdio::Terminal => {
                Some(Console::listen(&self.directory).map_err(|error| system("make a socket", &error))?)
            }
            Stdio::Descriptors { .. } => None,
        };
        if let Some(console) = &console {
            arguments.extend(["--console-socket", &console.address]);
        }
        arguments.push(&self.id);
        let mut command = self.command(&arguments);
        if let Stdio::Descriptors { stdin, stdout, stderr } = stdio {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
        }
        self.finish(command, arguments[0])?;
        let terminal = console
            .map(|console| console.receive())
            .transpose()
            .map_err(|error| system("take the terminal from the runtime", &error))?;
        let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let opened = pid.and_then(rustix::process::Pid::from_raw).map(|pid| {
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(io::Error::from)
        });
        match (pid, opened) {
            (Some(pid), Some(Ok(pidfd))) => Ok((pid, pidfd, terminal)),
            (_, Some(Err(error))) => Err(system("open the process", &error)),
            _ => Err(system("read the runtime's PID file", &io::Error::other("no process is named there"))),
        }
    }

    fn run(&self, command: &[&str]) -> Result<(), Failure> {
        self.finish(self.command(command), command[0])
    }

    // A runtime is a program; that of Corten's own containers is not started here.
    #[allow(clippy::disallowed_methods)]
    fn command(&self, command: &[&str]) -> Command {
        let mut made = Command::new(&self.runtime.program);
        made.args(&self.runtime.arguments);
        made.arg("--root").arg(self.directory.join("runtime"));
        made.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        made.args(command);
        let null = std::process::Stdio::null;
        made.stdin(null()).stdout(null()).stderr(null());
        made
    }

    fn log(&self) -> PathBuf {
        self.directory.join("runtime.log")
    }

    fn finish(&self, mut command: Command, verb: &str) -> Result<(), Failure> {
        let _ = fs::remove_file(self.log());
        let program = self.runtime.program.display().to_string();
        let mut child = command.spawn().map_err(|error| system(&format!("run {program}"), &error))?;
        drop(command);
        let status = wait(&mut child).map_err(|error| system(&format!("{program} {verb}"), &error))?;
        if status.success() {
            return Ok(());
        }
        let said = last_error(&self.log()).unwrap_or_else(|| format!("{program} {verb}: {status}"));
        Err(explain(said))
    }
}

impl Drop for External {
    fn drop(&mut self) {
        self.delete();
    }
}

/// Waits for the runtime, which must not keep the shim for ever.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("it did not end within {} seconds", PATIENCE.as_secs())));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// The last error in a runtime's log, which has a JSON object on each line.
fn last_error(log: &Path) -> Option<String> {
    let mut content = Vec::new();
    fs::File::open(log).ok()?.take(LOG_MAX).read_to_end(&mut content).ok()?;
    let text = String::from_utf8_lossy(&content);
    let errors = text.lines().rev().filter_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        (entry.get("level")?.as_str()? != "warning").then(|| entry.get("msg")?.as_str().map(String::from))?
    });
    errors.into_iter().find(|message| !message.is_empty())
}

/// What a runtime's words mean, which are all that it says. Clients tell the exit code by words as well, and know
/// those of one runtime only: others get them in front.
fn explain(said: String) -> Failure {
    let lower = said.to_ascii_lowercase();
    let has = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    let about_program = has(&["exec:", "executable", "starting container process"]);
    let (kind, known): (_, &[&str]) = if about_program
        && has(&["executable file not found", "executable file `", "no such file or directory"])
    {
        (FailureKind::ProgramNotFound, &["executable file not found", "no such file or directory"])
    } else if about_program && has(&["permission denied", "is a directory", "open executable"]) {
        (FailureKind::ProgramNotExecutable, &["permission denied", "is a directory"])
    } else {
        (FailureKind::System, &[])
    };
    let message = match known.first() {
        Some(words) if !known.iter().any(|text| said.contains(text)) => format!("{words}: {said}"),
        _ => said,
    };
    Failure { kind, message }
}

/// Takes the shim into a mount namespace of its own: what it mounts is seen by nobody else, and what the host
/// unmounts goes here too.
fn isolate() -> io::Result<()> {
    sys::process::unshare(Namespaces::MOUNT)?;
    let slash = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let change = Change { propagation: Some(Propagation::Slave), ..Change::default() };
    sys::mount::change(slash.as_fd(), true, &change)
}

/// Makes the network namespace that a spec wants to be new, so that it can be configured before the container
/// starts: a handle that keeps it, and a netlink socket from inside.
fn own_network(spec: &mut Spec) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    let namespaces = spec.linux.iter_mut().flat_map(|linux| &mut linux.namespaces);
    let wanted = |kind| kind == LinuxNamespaceKind::Network;
    let Some(own) = namespaces.into_iter().find(|space| wanted(space.kind) && space.path.is_none()) else {
        return Ok(None);
    };
    let back = Restore::namespace("net", Namespaces::NETWORK)?;
    sys::process::unshare(Namespaces::NETWORK)?;
    let socket = sys::network::route_socket()?;
    sys::network::loopback_up(socket.as_fd())?;
    let space =
        rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    drop(back);
    own.path = Some(format!("/proc/{}/fd/{}", std::process::id(), space.as_raw_fd()).into());
    Ok(Some((space, socket)))
}

/// Puts numbers in the place of names, which runtimes do not know.
fn resolve_user(root: &Path, process: &mut Process) -> Result<(), Failure> {
    let root = sys::Root::open_path(root).map_err(|error| system("open the root filesystem", &error))?;
    sandbox::users::resolve(&root, process).map_err(failure)
}

/// Where a runtime hands over a terminal.
struct Console {
    socket: OwnedFd,
    address: String,
    path: PathBuf,
    _folder: OwnedFd,
}

impl Console {
    fn listen(directory: &Path) -> io::Result<Console> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(directory, flags, Mode::empty())?;
        let path = directory.join("console.sock");
        let _ = fs::remove_file(&path);
        // The path may be longer than an address can be; that of the folder's descriptor is not.
        let address = match text(&path) {
            short if short.len() < ADDRESS_MAX => short,
            _ => format!("/proc/{}/fd/{}/console.sock", std::process::id(), folder.as_raw_fd()),
        };
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(&*address)?);
        rustix::process::umask(mask);
        bound?;
        rustix::net::listen(&socket, 1)?;
        Ok(Console { socket, address, path, _folder: folder })
    }

    /// Takes what the runtime, which has ended by now, has sent.
    fn receive(self) -> io::Result<OwnedFd> {
        rustix::fs::fcntl_setfl(&self.socket, OFlags::NONBLOCK)?;
        let connection = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 4096];
        let mut parts = [io::IoSliceMut::new(&mut buffer)];
        rustix::net::recvmsg(&connection, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut received = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        received.next().ok_or_else(|| io::Error::other("it has sent none"))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Failure> {
    let doing = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(value).map_err(|error| system(&doing(), &error.into()))?;
    fs::write(path, bytes).map_err(|error| system(&doing(), &error))
}

fn failure(error: sandbox::Error) -> Failure {
    crate::commands::failure(error)
}

fn system(doing: &str, error: &io::Error) -> Failure {
    Failure { kind: FailureKind::System, message: format!("{doing}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_s_words_have_a_kind() {
        for (said, kind) in [
            (
                "runc create failed: unable to start container process: exec: \"x\": executable file not found in $PATH",
                FailureKind::ProgramNotFound,
            ),
            ("executable file `x` not found: No such file or directory", FailureKind::ProgramNotFound),
            ("exec: \"/etc\": permission denied", FailureKind::ProgramNotExecutable),
            ("open executable: Operation not permitted", FailureKind::ProgramNotExecutable),
            ("mkdir /x: permission denied", FailureKind::System),
        ] {
            assert_eq!(explain(said.into()).kind, kind, "{said}");
        }
        let said = explain("executable file `x` not found".into()).message;
        assert_eq!(said, "executable file not found: executable file `x` not found");
    }
}
