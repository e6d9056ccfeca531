//! The last steps before a program runs: who it is, what it may do, and its execution. The first process of a
//! container and those that join it later go through the same ones.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci::runtime::{
    CapabilitySet, IoPriorityClass, LinuxPersonalityDomain, LinuxSeccompFlag, Process, RlimitKind, Scheduler,
    SchedulerFlag, SchedulerPolicy, Spec,
};
use rustix::fs::{FileType, Mode, OFlags};
use sys::Root;
use sys::process::{Scheduling, Strings};
use sys::security::{self, Capabilities};

use crate::Error;
use crate::error::{Step, describe};
use crate::plan::Init;
use crate::report::Stage;
use crate::users::{self, Identity};

/// Finds out who the process is to be.
pub(crate) fn identity(root: &Root, process: &Process) -> Result<Identity, Error> {
    let user = &process.user;
    let has_home = process.env.iter().any(|entry| entry.starts_with("HOME="));
    if user.username.is_empty() && user.additional_groups.is_empty() {
        let home = if has_home { String::new() } else { users::home(root, user.uid)? };
        return Ok(Identity { uid: user.uid, gid: user.gid, groups: user.additional_gids.clone(), home });
    }
    let named =
        if user.username.is_empty() { format!("{}:{}", user.uid, user.gid) } else { user.username.clone() };
    let mut identity = users::lookup(root, &named, &user.additional_groups)?;
    // The primary group is listed as well: a process that gives it up must not gain what is forbidden to it.
    identity.groups.insert(0, identity.gid);
    identity.groups.extend_from_slice(&user.additional_gids);
    let mut seen = Vec::with_capacity(identity.groups.len());
    identity.groups.retain(|gid| {
        !seen.contains(gid) && {
            seen.push(*gid);
            true
        }
    });
    Ok(identity)
}

/// Everything about a program that needs no privilege to prepare.
pub(crate) struct Program {
    name: String,
    arguments: Strings,
    environment: Strings,
    path: String,
}

impl Program {
    pub fn prepare(process: &Process, identity: &Identity) -> Result<Program, Error> {
        let name = process.args.first().ok_or_else(|| Error::invalid("args must not be empty"))?;
        let mut arguments = Strings::with_capacity(process.args.len());
        for argument in &process.args {
            arguments.push(c_string(argument)?);
        }
        let mut environment = Strings::with_capacity(process.env.len() + 1);
        let mut path = "";
        let mut home = false;
        for entry in &process.env {
            if let Some(value) = entry.strip_prefix("PATH=") {
                path = value;
            }
            home |= entry.starts_with("HOME=");
            environment.push(c_string(entry)?);
        }
        if !home {
            environment.push(c_string(&format!("HOME={}", identity.home))?);
        }
        Ok(Program { name: name.clone(), arguments, environment, path: path.to_owned() })
    }

    /// Looks for the program without running it, so that its absence is known before it is to run.
    pub fn check(&self) -> Result<(), Error> {
        if self.name.contains('/') {
            return match executable(&self.name) {
                None => Ok(()),
                Some(errno) => Err(self.unusable(errno)),
            };
        }
        match self.candidates().any(|candidate| executable(&candidate).is_none()) {
            true => Ok(()),
            false => Err(self.not_in_path()),
        }
    }

    /// Becomes the program. Returns only if that is not possible.
    pub fn execute(mut self, stage: &Stage) -> Error {
        stage.executing();
        if self.name.contains('/') {
            let Ok(path) = c_string(&self.name) else { return self.unusable(libc::EINVAL) };
            let errno = self.try_execute(&path);
            let why = executable(&self.name);
            return match (errno, why) {
                (libc::ENOENT | libc::ENOTDIR | libc::EACCES, Some(errno)) => self.unusable(errno),
                (libc::ENOENT, None) => {
                    // The file is there: what is missing is its interpreter.
                    Error::ProgramNotFound(format!("exec {}: {}", self.name, describe(errno)))
                }
                _ => Error::ProgramNotExecutable(format!("exec {}: {}", self.name, describe(errno))),
            };
        }
        let candidates: Vec<String> = self.candidates().collect();
        for candidate in candidates {
            let Ok(path) = c_string(&candidate) else { continue };
            let errno = self.try_execute(&path);
            // As a search by hand would have it: what is no executable file is passed over.
            if executable(&candidate).is_none() {
                let text = format!("exec {candidate}: {}", describe(errno));
                return match errno {
                    libc::ENOENT => Error::ProgramNotFound(text),
                    _ => Error::ProgramNotExecutable(text),
                };
            }
        }
        self.not_in_path()
    }

    /// Becomes an init that has the program as its arguments. Returns only if that is not possible.
    pub fn execute_under(mut self, init: Init<'_>, stage: &Stage) -> Error {
        let Ok(name) = c_string(init.name) else { return self.unusable(libc::EINVAL) };
        self.arguments.prepend([name, c"--".into()]);
        stage.executing();
        let error =
            sys::process::execute_descriptor(init.program, &mut self.arguments, &mut self.environment);
        Error::system("execute the container's init", error)
    }

    fn try_execute(&mut self, path: &std::ffi::CStr) -> i32 {
        let error = sys::process::execute(path, &mut self.arguments, &mut self.environment);
        error.raw_os_error().unwrap_or(libc::EIO)
    }

    fn candidates(&self) -> impl Iterator<Item = String> {
        let directories = if self.name.is_empty() { "" } else { &self.path };
        directories
            .split(':')
            .filter(|directory| directory.starts_with('/'))
            .map(|directory| format!("{}/{}", directory.trim_end_matches('/'), self.name))
    }

    fn not_in_path(&self) -> Error {
        Error::ProgramNotFound(format!("exec: {:?}: executable file not found in $PATH", self.name))
    }

    fn unusable(&self, errno: i32) -> Error {
        let (name, cause) = (&self.name, describe(errno));
        match errno {
            libc::ENOENT | libc::ENOTDIR => {
                Error::ProgramNotFound(format!("exec: {name:?}: stat {name}: {cause}"))
            }
            _ => Error::ProgramNotExecutable(format!("exec: {name:?}: {cause}")),
        }
    }
}

/// Why a path is no executable file, as an error number.
fn executable(path: &str) -> Option<i32> {
    use rustix::fs::{Access, AtFlags, CWD};
    match rustix::fs::stat(path) {
        Err(error) => return Some(error.raw_os_error()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            return Some(libc::EISDIR);
        }
        Ok(_) => {}
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).err().map(|error| error.raw_os_error())
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::invalid(format!("{text:?} contains a zero byte")))
}

/// Sets what the process inherits from nobody: limits, scheduling and the like.
pub(crate) fn set_limits(spec: &Spec, process: &Process) -> Result<(), Error> {
    for limit in &process.rlimits {
        let resource = resource(limit.kind);
        if let Err(error) = sys::process::set_limit(resource, limit.soft, limit.hard) {
            return Err(match error.raw_os_error() {
                Some(libc::EPERM) => Error::invalid(format!(
                    "error setting rlimit {}: raising the hard limit to {} needs CAP_SYS_RESOURCE, which this \
                     machine does not grant",
                    limit_name(limit.kind),
                    limit.hard
                )),
                _ => Error::system(format!("set rlimit {}", limit_name(limit.kind)), error),
            });
        }
    }
    if let Some(personality) = spec.linux.as_ref().and_then(|linux| linux.personality.as_ref()) {
        let domain = match personality.domain {
            LinuxPersonalityDomain::Linux => 0,
            LinuxPersonalityDomain::Linux32 => 8,
        };
        sys::process::set_personality(domain).step(|| "set personality".into())?;
    }
    if let Some(scheduler) = &process.scheduler {
        sys::process::set_scheduling(&scheduling(scheduler)).step(|| "set scheduler".into())?;
    }
    if let Some(priority) = &process.io_priority {
        let class = match priority.class {
            IoPriorityClass::RealTime => 1,
            IoPriorityClass::BestEffort => 2,
            IoPriorityClass::Idle => 3,
        };
        sys::process::set_io_priority(class, priority.priority).step(|| "set io priority".into())?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.user.umask.unwrap_or(0o022) & 0o777));
    Ok(())
}

fn scheduling(scheduler: &Scheduler) -> Scheduling {
    let policy = match scheduler.policy {
        SchedulerPolicy::Other => 0,
        SchedulerPolicy::Fifo => 1,
        SchedulerPolicy::RoundRobin => 2,
        SchedulerPolicy::Batch => 3,
        SchedulerPolicy::Iso => 4,
        SchedulerPolicy::Idle => 5,
        SchedulerPolicy::Deadline => 6,
    };
    let flags = scheduler.flags.iter().fold(0, |flags, flag| {
        flags
            | match flag {
                SchedulerFlag::ResetOnFork => 0x01,
                SchedulerFlag::Reclaim => 0x02,
                SchedulerFlag::DeadlineOverrun => 0x04,
                SchedulerFlag::KeepPolicy => 0x08,
                SchedulerFlag::KeepParams => 0x10,
                SchedulerFlag::UtilClampMin => 0x20,
                SchedulerFlag::UtilClampMax => 0x40,
            }
    });
    Scheduling {
        policy,
        flags,
        nice: scheduler.nice.unwrap_or(0),
        priority: scheduler.priority.unwrap_or(0).max(0) as u32,
        runtime: scheduler.runtime.unwrap_or(0),
        deadline: scheduler.deadline.unwrap_or(0),
        period: scheduler.period.unwrap_or(0),
    }
}

fn limit_name(kind: RlimitKind) -> String {
    format!("RLIMIT_{}", format!("{kind:?}").to_uppercase())
}

fn resource(kind: RlimitKind) -> u32 {
    match kind {
        RlimitKind::As => libc::RLIMIT_AS,
        RlimitKind::Core => libc::RLIMIT_CORE,
        RlimitKind::Cpu => libc::RLIMIT_CPU,
        RlimitKind::Data => libc::RLIMIT_DATA,
        RlimitKind::Fsize => libc::RLIMIT_FSIZE,
        RlimitKind::Locks => libc::RLIMIT_LOCKS,
        RlimitKind::Memlock => libc::RLIMIT_MEMLOCK,
        RlimitKind::Msgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitKind::Nice => libc::RLIMIT_NICE,
        RlimitKind::Nofile => libc::RLIMIT_NOFILE,
        RlimitKind::Nproc => libc::RLIMIT_NPROC,
        RlimitKind::Rss => libc::RLIMIT_RSS,
        RlimitKind::Rtprio => libc::RLIMIT_RTPRIO,
        RlimitKind::Rttime => libc::RLIMIT_RTTIME,
        RlimitKind::Sigpending => libc::RLIMIT_SIGPENDING,
        RlimitKind::Stack => libc::RLIMIT_STACK,
    }
}

/// Tells the LSM under which label the program is to run. `proc` is the root of a trusted procfs.
pub(crate) fn set_labels(process: &Process, proc: impl AsFd) -> Result<(), Error> {
    if !process.apparmor_profile.is_empty() && process.apparmor_profile != "unconfined" {
        let value = format!("exec {}", process.apparmor_profile);
        let own = Path::new("thread-self/attr/apparmor/exec");
        if write_attribute(&proc, own, &value).is_err() {
            write_attribute(&proc, Path::new("thread-self/attr/exec"), &value).map_err(|error| {
                Error::invalid(format!("apply apparmor profile {}: {error}", process.apparmor_profile))
            })?;
        }
    }
    if !process.selinux_label.is_empty() {
        write_attribute(&proc, Path::new("thread-self/attr/exec"), &process.selinux_label).map_err(
            |error| Error::invalid(format!("apply selinux label {}: {error}", process.selinux_label)),
        )?;
    }
    Ok(())
}

fn write_attribute(proc: &impl AsFd, path: &Path, value: &str) -> rustix::io::Result<()> {
    let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// Gives up what the process must not have, enters its directory and loads its filter. Returns the filter's
/// listener if it has one.
pub(crate) fn confine(
    spec: &Spec,
    process: &Process,
    identity: &Identity,
    filter: Option<&[u8]>,
) -> Result<Option<OwnedFd>, Error> {
    let slash = Root::open_path(Path::new("/")).step(|| "open /".into())?;
    // With privilege first: a directory that only root may enter can still be where a user starts.
    let entered = match enter_directory(&slash, &process.cwd) {
        Err(Error::System { errno: libc::EACCES | libc::EPERM, .. }) => false,
        other => other.map(|()| true)?,
    };
    if process.no_new_privileges {
        security::set_no_new_privileges().step(|| "set no_new_privs".into())?;
    }
    let wanted = process.capabilities.clone().unwrap_or_default();
    drop_bounding(wanted.bounding)?;
    let change_user = identity.uid != 0;
    if change_user {
        security::keep_capabilities(true).step(|| "keep capabilities".into())?;
    }
    match security::set_groups(&identity.groups) {
        // A user namespace may forbid it; without groups there is nothing to set.
        Err(error) if identity.groups.is_empty() && error.raw_os_error() == Some(libc::EPERM) => {}
        other => other.step(|| "set groups".into())?,
    }
    security::set_user_and_group(identity.uid, identity.gid).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => Error::invalid(format!(
            "user {}:{} is not mapped in the container's user namespace",
            identity.uid, identity.gid
        )),
        _ => Error::system(format!("set user {}:{}", identity.uid, identity.gid), error),
    })?;
    let mut held = security::capabilities().step(|| "read capabilities".into())?;
    if change_user {
        held.effective = held.permitted;
        security::set_capabilities(&held).step(|| "raise capabilities".into())?;
    }
    if !entered {
        enter_directory(&slash, &process.cwd)?;
    }
    // The filter is last but for the capabilities, since loading one takes CAP_SYS_ADMIN unless no new privileges
    // are to be had: it need not allow what comes before it.
    let listener = match filter {
        Some(filter) => load_filter(spec, filter)?,
        None => None,
    };
    let within = |set: CapabilitySet| set.bits() & held.permitted;
    let last = Capabilities {
        effective: within(wanted.effective) & wanted.permitted.bits(),
        permitted: within(wanted.permitted),
        inheritable: within(wanted.inheritable),
    };
    security::ambient_clear().step(|| "clear ambient capabilities".into())?;
    security::set_capabilities(&last).step(|| "set capabilities".into())?;
    let ambient = wanted.ambient.bits() & last.permitted & last.inheritable;
    for capability in CapabilitySet::from_bits(ambient).iter() {
        security::ambient_raise(capability as u8).step(|| format!("raise ambient {}", capability.name()))?;
    }
    Ok(listener)
}

fn load_filter(spec: &Spec, filter: &[u8]) -> Result<Option<OwnedFd>, Error> {
    let seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let mut flags = seccomp.iter().flat_map(|seccomp| &seccomp.flags).fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFlag::Tsync => 1,
                LinuxSeccompFlag::Log => 2,
                LinuxSeccompFlag::SpecAllow => 4,
                LinuxSeccompFlag::WaitKillableRecv => 32,
            }
    });
    if seccomp.is_some_and(|seccomp| seccomp.listener_path.is_some()) {
        flags |= 8;
    }
    security::load_filter(filter, flags).step(|| "load the seccomp filter".into())
}

/// Takes out of the bounding set what is not wanted. What the machine lacks is silently not there.
fn drop_bounding(wanted: CapabilitySet) -> Result<(), Error> {
    for number in 0..64 {
        match security::bounding_has(number) {
            Ok(true) if wanted.bits() & 1 << number == 0 => {
                security::bounding_drop(number).step(|| format!("drop capability {number}"))?;
            }
            Ok(_) => {}
            // Past the last one that the kernel knows.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Enters the process's directory. It is resolved from the root without magic links, so that no descriptor that
/// is still open can lead out of the container; that it is inside is looked at nevertheless.
fn enter_directory(slash: &Root, cwd: &str) -> Result<(), Error> {
    let path = if cwd.is_empty() { "/" } else { cwd };
    let step = || format!("chdir to cwd ({path:?}) set in config.json failed");
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory =
        slash.open(Path::new(path), flags, Mode::empty()).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {
                Error::invalid(format!("{}: {}", step(), describe(error.raw_os_error().unwrap_or(0))))
            }
            _ => Error::system(step(), error),
        })?;
    rustix::process::fchdir(&directory).step(step)?;
    let outside = match rustix::process::getcwd(Vec::new()) {
        Ok(real) => !real.as_bytes().starts_with(b"/"),
        Err(rustix::io::Errno::NOENT) => true,
        Err(error) => return Err(Error::system(step(), error)),
    };
    if outside {
        return Err(Error::invalid("current working directory is outside of container mount namespace root"));
    }
    Ok(())
}

/// Lets the process's own user open its standard streams again by name, as `/dev/stdout`: pipes, and the terminal
/// that was made for it. What else it may be given is the machine's and keeps its owner.
pub(crate) fn own_streams(uid: u32, terminal: bool) {
    if uid == 0 {
        return;
    }
    for stream in 0..3 {
        let Ok(stat) = sys::process::stream_stat(stream) else { continue };
        let made_for_it = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => true,
            FileType::CharacterDevice => terminal,
            _ => false,
        };
        if made_for_it && stat.st_uid != uid {
            // A failure (not mapped, say) only costs the convenience.
            sys::process::own_stream(stream, uid);
        }
    }
}
