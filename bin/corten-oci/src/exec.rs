//! `exec`: another program in a running container.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use oci::runtime::{Capability, CapabilitySet, Process, Spec, Status};
use sandbox::{Cgroup, ExecPlan, Stdio};

use crate::arguments::{Arguments, Flag, Global, Parsed, switch, valued};
use crate::state::Container;
use crate::{Context, Failure, console, create};

const FLAGS: &[Flag] = &[
    valued(&["process", "p"]),
    valued(&["console-socket"]),
    valued(&["pidfd-socket"]),
    valued(&["pid-file"]),
    valued(&["preserve-fds"]),
    valued(&["cwd"]),
    valued(&["env", "e"]),
    valued(&["user", "u"]),
    valued(&["additional-gids", "g"]),
    valued(&["cap", "c"]),
    valued(&["apparmor"]),
    valued(&["process-label"]),
    valued(&["cgroup"]),
    switch(&["tty", "t"]),
    switch(&["detach", "d"]),
    switch(&["no-new-privs"]),
    switch(&["ignore-paused"]),
    switch(&["no-subreaper"]),
];

pub fn exec(global: &Global, arguments: Arguments) -> Result<ExitCode, Failure> {
    let parsed = arguments.parse(FLAGS, Some(1))?;
    let container = Container::load(global, parsed.id()?)?;
    match container.status() {
        Status::Stopped => return Err(Failure("cannot exec in a stopped container".into())),
        Status::Paused if !parsed.is_set("ignore-paused") => {
            return Err(Failure(
                "cannot exec in a paused container (use --ignore-paused to override)".into(),
            ));
        }
        _ => {}
    }
    let spec = container.spec()?;
    let process = process(&parsed, &spec)?;
    let socket = parsed.value("console-socket").filter(|path| !path.is_empty());
    let detached = parsed.is_set("detach");
    if process.terminal && detached && socket.is_none() {
        return Err(Failure("a terminal that nobody stays with needs a console socket".into()));
    }
    let signals = (!detached).then(console::Signals::watch).transpose()?;
    let filter = create::filter(&spec)?;
    let cgroup = cgroup(&parsed, &container)?;
    let executed = sandbox::exec(ExecPlan {
        target_pid: container.record.pid,
        process: &process,
        spec: &spec,
        stdio: if process.terminal { Stdio::Terminal } else { create::own_streams()? },
        seccomp: filter.as_deref(),
        cgroup: &cgroup,
        preserved_descriptors: create::preserved(&parsed)?,
    })
    .map_err(|error| Failure(format!("exec failed: {error}")))?;
    let mut terminal = executed.terminal;
    if let Some((socket, controller)) = socket.zip(terminal.as_ref()) {
        console::hand_over(Path::new(socket), controller.as_fd(), b"/dev/ptmx")?;
        terminal = None;
    }
    if let Some(socket) = parsed.value("pidfd-socket") {
        console::hand_over(Path::new(socket), executed.pidfd.as_fd(), b"pidfd")?;
    }
    create::write_pid(&parsed, executed.pid)?;
    match signals {
        Some(signals) => console::attend(&signals, executed.pid, terminal.as_ref()).map(ExitCode::from),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The container's cgroup, or the one below it that is asked for.
fn cgroup(parsed: &Parsed, container: &Container) -> Result<Cgroup, Failure> {
    let Some(below) =
        parsed.value("cgroup").map(|path| path.trim_matches('/')).filter(|path| !path.is_empty())
    else {
        return container.cgroup();
    };
    if below.contains(':') {
        return Err(Failure(format!("cgroup {below:?}: one path for all controllers is needed")));
    }
    if below.split('/').any(|part| part == "..") {
        return Err(Failure(format!("cgroup {below:?} is outside the container's")));
    }
    Ok(Cgroup::open(&format!("{}/{below}", container.record.cgroup))?)
}

/// The process of a file, or the container's own changed by flags.
fn process(parsed: &Parsed, spec: &Spec) -> Result<Process, Failure> {
    if let Some(path) = parsed.value("process") {
        let what = || format!("read {path}");
        return serde_json::from_slice(&std::fs::read(path).context(what)?).context(what);
    }
    let mut process = spec.process.clone().unwrap_or_default();
    process.args = parsed.words[1..].to_vec();
    if process.args.is_empty() {
        return Err(Failure("process args cannot be empty".into()));
    }
    process.terminal = parsed.is_set("tty");
    for entry in parsed.values("env") {
        let name = entry.split_once('=').map_or(entry, |(name, _)| name);
        process.env.retain(|one| one.split_once('=').is_none_or(|(other, _)| other != name));
        process.env.push(entry.to_owned());
    }
    if let Some(cwd) = parsed.value("cwd") {
        process.cwd = cwd.to_owned();
    }
    if let Some(user) = parsed.value("user") {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str| text.parse().context(|| format!("parse user {user:?}"));
        process.user.uid = number(uid)?;
        if !gid.is_empty() {
            process.user.gid = number(gid)?;
        }
    }
    for gid in parsed.values("additional-gids") {
        process.user.additional_gids.push(gid.parse().context(|| format!("parse group {gid:?}"))?);
    }
    if parsed.is_set("no-new-privs") {
        process.no_new_privileges = true;
    }
    if let Some(profile) = parsed.value("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    if let Some(label) = parsed.value("process-label") {
        process.selinux_label = label.to_owned();
    }
    // As in a spec: a capability that nobody knows cannot be granted, and is left out.
    let added: CapabilitySet = parsed.values("cap").filter_map(Capability::from_name).collect();
    if !added.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            *set = set.union(added);
        }
    }
    Ok(process)
}
