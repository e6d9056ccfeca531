//! `create`, `start` and `run`.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use oci::runtime::{Spec, Status};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use sandbox::{Created, Gate, Plan, RootfsSource, Stdio};

use crate::arguments::{Arguments, Flag, Global, Parsed, switch, valued};
use crate::state::{Container, Record, claim, process_start, read_spec};
use crate::{Context, Failure, console, log};

const FLAGS: &[Flag] = &[
    valued(&["bundle", "b"]),
    valued(&["config", "f"]),
    valued(&["console-socket"]),
    valued(&["pidfd-socket"]),
    valued(&["pid-file"]),
    valued(&["preserve-fds"]),
    switch(&["no-pivot"]),
    switch(&["no-new-keyring"]),
    switch(&["no-subreaper"]),
    switch(&["detach", "d"]),
    switch(&["keep"]),
];

pub fn create(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(FLAGS, None)?;
    let (container, _) = make(global, &parsed)?;
    write_pid(&parsed, container.record.pid)
}

pub fn start(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(&[], None)?;
    let container = Container::load(global, parsed.id()?)?;
    match container.status() {
        Status::Created => release(&container),
        Status::Stopped => Err(Failure("cannot start a container that has stopped".into())),
        _ => Err(Failure("cannot start an already running container".into())),
    }
}

/// Creates and starts; unless detached, also waits, and ends as the container ended.
pub fn run(global: &Global, arguments: Arguments) -> Result<ExitCode, Failure> {
    let parsed = arguments.parse(FLAGS, None)?;
    let detached = parsed.is_set("detach");
    let signals = (!detached).then(console::Signals::watch).transpose()?;
    let (container, created) = make(global, &parsed)?;
    let undo = |failure: Failure| {
        // Why it did not start is what the user must hear.
        let _ = crate::manage::remove(&container, true);
        failure
    };
    write_pid(&parsed, container.record.pid).map_err(undo)?;
    release(&container).map_err(undo)?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let code = console::attend(&signals, created.pid, created.terminal.as_ref())?;
    if !parsed.is_set("keep") {
        crate::manage::remove(&container, true)?;
    }
    Ok(ExitCode::from(code))
}

/// Makes the container and its record. Half of one leaves nothing behind.
fn make(global: &Global, parsed: &Parsed) -> Result<(Container, Created), Failure> {
    let id = parsed.id()?;
    let bundle = fs::canonicalize(parsed.value("bundle").unwrap_or("."))
        .context(|| format!("open bundle {}", parsed.value("bundle").unwrap_or(".")))?;
    let config = bundle.join(parsed.value("config").unwrap_or("config.json"));
    let mut spec = read_spec(&config)?;
    pass_listening_sockets(&mut spec);
    let directory = claim(global, id)?;
    let made = fs::copy(&config, directory.join("config.json"))
        .context(|| "keep config.json".into())
        .and_then(|_| make_in(global, parsed, id, &bundle, &spec, &directory));
    if made.is_err() {
        let _ = fs::remove_dir_all(&directory);
    }
    made
}

fn make_in(
    global: &Global,
    parsed: &Parsed,
    id: &str,
    bundle: &Path,
    spec: &Spec,
    directory: &Path,
) -> Result<(Container, Created), Failure> {
    let fifo = directory.join("exec.fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .context(|| format!("create {}", fifo.display()))?;
    let gate = rustix::fs::open(&fifo, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {}", fifo.display()))?;
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    let socket = parsed.value("console-socket").filter(|path| !path.is_empty());
    if terminal && socket.is_none() && (parsed.is_set("detach") || !can_attend(parsed)) {
        return Err(Failure("a terminal that nobody stays with needs a console socket".into()));
    }
    if !terminal && socket.is_some() {
        return Err(Failure("a console socket is of no use without a terminal".into()));
    }
    let root = spec.root.as_ref().ok_or_else(|| Failure("the spec has no root".into()))?;
    let filter = filter(spec)?;
    let stdio = if terminal { Stdio::Terminal } else { own_streams()? };
    let mut plan = Plan::new(id, spec, RootfsSource::Directory(bundle.join(&root.path)), stdio);
    plan.bundle = bundle;
    plan.seccomp = filter.as_deref();
    plan.cgroup_driver = global.cgroup_driver;
    plan.preserved_descriptors = preserved(parsed)?;
    plan.keyring = !parsed.is_set("no-new-keyring");
    plan.pivot = !parsed.is_set("no-pivot");
    plan.gate = Gate::Fifo(gate);
    let created = sandbox::create(plan).map_err(|error| Failure(error.to_string()))?;
    match record(parsed, id, bundle, spec, directory, &created) {
        Ok(container) => Ok((container, created)),
        Err(failure) => {
            created.discard();
            Err(failure)
        }
    }
}

fn record(
    parsed: &Parsed,
    id: &str,
    bundle: &Path,
    spec: &Spec,
    directory: &Path,
    created: &Created,
) -> Result<Container, Failure> {
    if let Some((socket, terminal)) = parsed.value("console-socket").zip(created.terminal.as_ref()) {
        console::hand_over(Path::new(socket), terminal.as_fd(), b"/dev/ptmx")?;
    }
    if let Some(socket) = parsed.value("pidfd-socket") {
        console::hand_over(Path::new(socket), created.pidfd.as_fd(), b"pidfd")?;
    }
    let container = Container {
        directory: directory.to_owned(),
        record: Record {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            pid: created.pid,
            pid_started: process_start(created.pid).unwrap_or(0),
            created: log::now(),
            cgroup: created.cgroup.path().to_owned(),
            owner: rustix::process::getuid().as_raw(),
        },
    };
    container.save()?;
    if let Some(listener) = &created.listener {
        hand_over_listener(&container, spec, listener.as_fd())?;
    }
    Ok(container)
}

/// Gives a seccomp listener to the agent that the spec names, with what it has to know of the container.
fn hand_over_listener(container: &Container, spec: &Spec, listener: BorrowedFd<'_>) -> Result<(), Failure> {
    let seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let Some((seccomp, path)) = seccomp.and_then(|seccomp| Some((seccomp, seccomp.listener_path.as_ref()?)))
    else {
        return Ok(());
    };
    let record = &container.record;
    let state = sandbox::hooks::state(&record.id, spec, &record.bundle, Status::Creating, record.pid);
    let message = serde_json::json!({
        "ociVersion": state.oci_version, "fds": ["seccompFd"], "pid": record.pid,
        "metadata": seccomp.listener_metadata, "state": state,
    });
    console::hand_over(path, listener, message.to_string().as_bytes())
}

/// Only `run` without `--detach` stays; `create` has no such flag, and is told by its name.
fn can_attend(parsed: &Parsed) -> bool {
    !parsed.is_set("detach") && std::env::args().any(|argument| argument == "run")
}

/// The filter that a spec asks for.
pub fn filter(spec: &Spec) -> Result<Option<Vec<u8>>, Failure> {
    let Some(section) = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) else { return Ok(None) };
    let arch = seccomp::Arch::HOST
        .ok_or_else(|| Failure("seccomp filters are not supported on this architecture".into()))?;
    seccomp::compile(section, arch).map(Some).context(|| "compile the seccomp filter".into())
}

/// This process's own streams, for a container without a terminal.
pub fn own_streams() -> Result<Stdio, Failure> {
    let own = |stream: std::io::Result<OwnedFd>| stream.context(|| "duplicate a standard stream".into());
    Ok(Stdio::Descriptors {
        stdin: own(std::io::stdin().as_fd().try_clone_to_owned())?,
        stdout: own(std::io::stdout().as_fd().try_clone_to_owned())?,
        stderr: own(std::io::stderr().as_fd().try_clone_to_owned())?,
    })
}

/// How many descriptors the program inherits: those asked for, and those of socket activation.
pub fn preserved(parsed: &Parsed) -> Result<u32, Failure> {
    let asked: u32 = parsed.number("preserve-fds")?.unwrap_or(0);
    let listening = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    Ok(asked.saturating_add(listening).min(1024))
}

/// Tells the program about the sockets that it inherits, as systemd's socket activation does: they are for the process
/// that the variable names, and the container's first one has the number 1.
fn pass_listening_sockets(spec: &mut Spec) {
    let Ok(count) = std::env::var("LISTEN_FDS") else { return };
    let Some(process) = &mut spec.process else { return };
    process.env.retain(|entry| !entry.starts_with("LISTEN_FDS=") && !entry.starts_with("LISTEN_PID="));
    process.env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".into()]);
}

pub fn write_pid(parsed: &Parsed, pid: i32) -> Result<(), Failure> {
    let Some(path) = parsed.value("pid-file").filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(());
    };
    // In one step: who waits for the file must not see it empty.
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let new = path.with_file_name(name);
    let what = || format!("write {}", path.display());
    fs::write(&new, pid.to_string()).context(what)?;
    fs::rename(&new, &path).context(what)
}

/// Lets a created container go on.
fn release(container: &Container) -> Result<(), Failure> {
    let path = container.fifo();
    let what = || "start the container".to_owned();
    // Without waiting: a container that has died has nobody at the other end.
    let fifo =
        match rustix::fs::open(&path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NXIO) => return Err(Failure("cannot start a container that has stopped".into())),
            other => other.context(what)?,
        };
    rustix::io::write(&fifo, b"0").context(what)?;
    fs::remove_file(&path).context(what)?;
    let spec = container.spec()?;
    if let Some(hooks) = spec.hooks.as_ref().filter(|hooks| !hooks.poststart.is_empty()) {
        let record = &container.record;
        let state = sandbox::hooks::state(&record.id, &spec, &record.bundle, Status::Running, record.pid);
        // The specification wants a warning and the container to go on.
        if let Err(error) = sandbox::hooks::run("poststart", &hooks.poststart, &state) {
            eprintln!("corten-oci: {error}");
        }
    }
    Ok(())
}
