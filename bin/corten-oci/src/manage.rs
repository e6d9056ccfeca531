//! `kill`, `delete`, `pause`, `resume` and `update`.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, Status};

use crate::arguments::{Arguments, Flag, Global, Parsed, switch, valued};
use crate::state::{Container, check_id, is_alive};
use crate::{Context, Failure};

/// How long a killed container may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal by number or name, with or without `SIG`.
fn signal(text: &str) -> Result<i32, Failure> {
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown(text)) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().map_err(|_| unknown(text))? };
        return if (0..=30).contains(&offset) { Ok(34 + offset) } else { Err(unknown(text)) };
    }
    let position = SIGNALS.iter().position(|known| *known == name).ok_or_else(|| unknown(text))?;
    Ok(position as i32 + 1)
}

fn unknown(text: &str) -> Failure {
    Failure(format!("unknown signal {text:?}"))
}

pub fn kill(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(&[switch(&["all", "a"])], None)?;
    let container = Container::load(global, parsed.id()?)?;
    let signal = signal(parsed.words.get(1).map_or("SIGTERM", String::as_str))?;
    if parsed.is_set("all") {
        return Ok(container.cgroup()?.kill_all(signal)?);
    }
    if container.status() == Status::Stopped {
        return Err(Failure("container not running".into()));
    }
    send(&container, signal)
}

fn send(container: &Container, signal: i32) -> Result<(), Failure> {
    let record = &container.record;
    // The handle is of the process that was looked at, even if its number were taken by another one meanwhile.
    let handle = rustix::process::Pid::from_raw(record.pid)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    let Some(handle) = handle.filter(|_| is_alive(record.pid, record.pid_started)) else {
        return Err(Failure("container not running".into()));
    };
    sys::process::send_signal(std::os::fd::AsFd::as_fd(&handle), signal)
        .context(|| format!("send signal {signal}"))?;
    // A frozen process does not die.
    if signal == libc::SIGKILL
        && let Ok(cgroup) = container.cgroup()
    {
        let _ = cgroup.take_back(record.pid);
        let _ = cgroup.thaw();
    }
    Ok(())
}

pub fn delete(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(&[switch(&["force", "f"])], None)?;
    let force = parsed.is_set("force");
    let id = parsed.id()?;
    let container = match Container::load(global, id) {
        Ok(container) => container,
        Err(failure) => {
            check_id(id)?;
            let directory = global.root.join(id);
            // Made, and never finished.
            if force && directory.is_dir() && !directory.join("state.json").exists() {
                fs::remove_dir_all(&directory).context(|| format!("remove {}", directory.display()))?;
            }
            return if force { Ok(()) } else { Err(failure) };
        }
    };
    remove(&container, force)
}

/// Removes a container; a running one only by force.
pub fn remove(container: &Container, force: bool) -> Result<(), Failure> {
    match container.status() {
        Status::Stopped => {}
        Status::Created => send(container, libc::SIGKILL).or_else(ignore_if_gone(container))?,
        status if !force => {
            let status = serde_json::to_value(status).unwrap_or_default();
            let status = status.as_str().unwrap_or_default();
            let id = &container.record.id;
            return Err(Failure(format!("cannot delete container {id} that is not stopped: {status}")));
        }
        _ => send(container, libc::SIGKILL).or_else(ignore_if_gone(container))?,
    }
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    while container.status() != Status::Stopped {
        if Instant::now() > deadline {
            return Err(Failure(format!("container {} did not end", container.record.id)));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    let cgroup = container.cgroup()?;
    // Without a PID namespace of its own the container's other processes go on.
    loop {
        if !cgroup.pids()?.is_empty() {
            cgroup.kill_all(libc::SIGKILL)?;
        }
        match cgroup.delete() {
            Ok(()) => break,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
    }
    let spec = container.spec()?;
    let directory = &container.directory;
    fs::remove_dir_all(directory).context(|| format!("remove {}", directory.display()))?;
    if let Some(hooks) = spec.hooks.as_ref().filter(|hooks| !hooks.poststop.is_empty()) {
        let record = &container.record;
        let state = sandbox::hooks::state(&record.id, &spec, &record.bundle, Status::Stopped, 0);
        // The specification wants a warning and the rest to go on.
        if let Err(error) = sandbox::hooks::run("poststop", &hooks.poststop, &state) {
            eprintln!("corten-oci: {error}");
        }
    }
    Ok(())
}

fn ignore_if_gone(container: &Container) -> impl FnOnce(Failure) -> Result<(), Failure> {
    let gone = !is_alive(container.record.pid, container.record.pid_started);
    move |failure| if gone { Ok(()) } else { Err(failure) }
}

pub fn freeze(global: &Global, arguments: Arguments, frozen: bool) -> Result<(), Failure> {
    let parsed = arguments.parse(&[], None)?;
    let container = Container::load(global, parsed.id()?)?;
    let cgroup = container.cgroup()?;
    match (container.status(), frozen) {
        (Status::Running | Status::Created, true) => Ok(cgroup.freeze()?),
        (Status::Paused, false) => Ok(cgroup.thaw()?),
        (_, true) => Err(Failure("container not running".into())),
        (_, false) => Err(Failure("container not paused".into())),
    }
}

const UPDATE: &[Flag] = &[
    valued(&["resources", "r"]),
    valued(&["blkio-weight"]),
    valued(&["cpu-period"]),
    valued(&["cpu-quota"]),
    valued(&["cpu-burst"]),
    valued(&["cpu-share", "cpu-shares"]),
    valued(&["cpu-rt-period"]),
    valued(&["cpu-rt-runtime"]),
    valued(&["cpu-idle"]),
    valued(&["cpuset-cpus"]),
    valued(&["cpuset-mems"]),
    valued(&["memory"]),
    valued(&["memory-reservation"]),
    valued(&["memory-swap"]),
    valued(&["kernel-memory"]),
    valued(&["kernel-memory-tcp"]),
    valued(&["pids-limit"]),
    valued(&["l3-cache-schema"]),
    valued(&["mem-bw-schema"]),
];

pub fn update(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(UPDATE, None)?;
    let container = Container::load(global, parsed.id()?)?;
    let resources = match parsed.value("resources") {
        Some(path) => {
            let what = || format!("read {path}");
            let mut content = Vec::new();
            match path {
                "-" => std::io::stdin().take(1 << 20).read_to_end(&mut content).map(drop),
                path => fs::File::open(path)
                    .and_then(|file| file.take(1 << 20).read_to_end(&mut content))
                    .map(drop),
            }
            .context(what)?;
            serde_json::from_slice(&content).context(what)?
        }
        None => resources(&parsed)?,
    };
    Ok(container.cgroup()?.update(&resources)?)
}

fn resources(parsed: &Parsed) -> Result<LinuxResources, Failure> {
    if parsed.is_set("l3-cache-schema") || parsed.is_set("mem-bw-schema") {
        return Err(Failure("resource control by RDT is not supported".into()));
    }
    let text = |name| parsed.value(name).unwrap_or_default().to_owned();
    let bytes = |name| parsed.value(name).map(bytes).transpose();
    let weight = parsed.number("blkio-weight")?;
    let pids = parsed.number("pids-limit")?;
    Ok(LinuxResources {
        memory: Some(LinuxMemory {
            limit: bytes("memory")?,
            reservation: bytes("memory-reservation")?,
            swap: bytes("memory-swap")?,
            kernel_tcp: bytes("kernel-memory-tcp")?,
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            shares: parsed.number("cpu-share")?,
            quota: parsed.number("cpu-quota")?,
            burst: parsed.number("cpu-burst")?,
            period: parsed.number("cpu-period")?,
            realtime_period: parsed.number("cpu-rt-period")?,
            realtime_runtime: parsed.number("cpu-rt-runtime")?,
            cpus: text("cpuset-cpus"),
            mems: text("cpuset-mems"),
            idle: parsed.number("cpu-idle")?,
        }),
        pids: pids.map(|limit| LinuxPids { limit: Some(limit) }),
        block_io: weight.map(|weight| LinuxBlockIo { weight: Some(weight), ..LinuxBlockIo::default() }),
        ..LinuxResources::default()
    })
}

/// A number of bytes with an optional unit of 1024s: `512`, `64m`, `1g`; -1 is unlimited.
fn bytes(text: &str) -> Result<i64, Failure> {
    let bad = || Failure(format!("invalid number of bytes {text:?}"));
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(['b', 'i']).trim_end_matches(['k', 'm', 'g', 't']);
    let factor: i64 = match lower[digits.len()..].chars().next() {
        Some('k') => 1 << 10,
        Some('m') => 1 << 20,
        Some('g') => 1 << 30,
        Some('t') => 1 << 40,
        _ => 1,
    };
    digits.parse::<i64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in
            [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sigusr1", 10), ("SIGRTMIN+3", 37), ("0", 0)]
        {
            assert_eq!(signal(text).unwrap(), expected, "{text}");
        }
        for text in ["", "65", "-1", "SIGNOTHING", "RTMIN+99"] {
            assert!(signal(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bytes_have_units() {
        for (text, expected) in
            [("512", 512), ("64m", 64 << 20), ("1GiB", 1 << 30), ("2kb", 2048), ("-1", -1)]
        {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for text in ["", "m", "1x", "9999999999g"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }
}
