//! `state`, `list`, `ps` and `events`: look, and change nothing.

use serde_json::json;

use crate::arguments::{Arguments, Global, switch, valued};
use crate::state::Container;
use crate::{Context, Failure};

pub fn state(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(&[], None)?;
    let container = Container::load(global, parsed.id()?)?;
    let mut state = serde_json::to_value(container.state()?).context(|| "write the state".into())?;
    // Beyond the specification: what other runtimes print, and engines read.
    state["rootfs"] = json!(rootfs(&container));
    state["created"] = json!(container.record.created);
    state["owner"] = json!("");
    if state.get("pid").is_none() {
        state["pid"] = json!(0);
    }
    println!("{state:#}");
    Ok(())
}

fn rootfs(container: &Container) -> Option<String> {
    let root = container.spec().ok()?.root?.path;
    Some(container.record.bundle.join(root).to_string_lossy().into_owned())
}

pub fn list(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(&[valued(&["format", "f"]), switch(&["quiet", "q"])], None)?;
    let containers = Container::all(global)?;
    if parsed.is_set("quiet") {
        containers.iter().for_each(|container| println!("{}", container.record.id));
        return Ok(());
    }
    let states = containers.iter().map(|container| Ok((container, container.state()?)));
    let states: Vec<_> = states.collect::<Result<_, Failure>>()?;
    match parsed.value("format").unwrap_or("table") {
        "json" => {
            let list: Vec<_> = states
                .iter()
                .map(|(container, state)| {
                    json!({
                        "ociVersion": state.oci_version, "id": state.id, "pid": state.pid, "status": state.status,
                        "bundle": state.bundle, "rootfs": rootfs(container),
                        "created": container.record.created, "annotations": state.annotations, "owner": "",
                    })
                })
                .collect();
            println!("{}", serde_json::Value::from(list));
        }
        "table" => {
            println!("{:<20} {:<10} {:<10} {:<30} {:<32} OWNER", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
            for (container, state) in states {
                let status = serde_json::to_value(state.status).unwrap_or_default();
                println!(
                    "{:<20} {:<10} {:<10} {:<30} {:<32} {}",
                    state.id,
                    state.pid,
                    status.as_str().unwrap_or_default(),
                    state.bundle.display(),
                    container.record.created,
                    container.record.owner
                );
            }
        }
        other => return Err(Failure(format!("invalid format option {other:?}"))),
    }
    Ok(())
}

pub fn ps(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(&[valued(&["format", "f"])], Some(1))?;
    let container = Container::load(global, parsed.id()?)?;
    let pids = container.cgroup()?.pids()?;
    match parsed.value("format").unwrap_or("table") {
        "json" => println!("{}", json!(pids)),
        "table" => {
            println!("{:>8} {:>8} CMD", "UID", "PID");
            for pid in pids {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
                let uid = uid.and_then(|line| line.split_whitespace().next()).unwrap_or("?");
                let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                println!("{uid:>8} {pid:>8} {}", command.trim_end());
            }
        }
        other => return Err(Failure(format!("invalid format option {other:?}"))),
    }
    Ok(())
}

/// Statistics, once. A stream of events would be a process that stays.
pub fn events(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let parsed = arguments.parse(&[switch(&["stats"]), valued(&["interval"])], None)?;
    let container = Container::load(global, parsed.id()?)?;
    if !parsed.is_set("stats") {
        return Err(Failure("events needs --stats".into()));
    }
    let stats = container.cgroup()?.stats();
    let raw: std::collections::BTreeMap<&str, u64> = stats.memory.fields().collect();
    let entries = |list: &[sandbox::cgroup::BlockIoEntry]| -> Vec<_> {
        list.iter()
            .map(|entry| json!({"major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value}))
            .collect()
    };
    let event = json!({
        "type": "stats", "id": container.record.id,
        "data": {
            "cpu": {
                "usage": {"total": stats.cpu.usage_nanoseconds, "percpu": *stats.cpu.per_cpu_nanoseconds,
                    "kernel": stats.cpu.system_nanoseconds, "user": stats.cpu.user_nanoseconds},
                "throttling": {"periods": stats.cpu.periods, "throttledPeriods": stats.cpu.throttled_periods,
                    "throttledTime": stats.cpu.throttled_nanoseconds},
            },
            "memory": {
                "usage": {"limit": stats.memory.limit, "usage": stats.memory.usage, "max": stats.memory.usage_max,
                    "failcnt": stats.memory.failures},
                "raw": raw,
            },
            "pids": {"current": stats.pids.current, "limit": if stats.pids.limit == u64::MAX { 0 } else { stats.pids.limit }},
            "blkio": {"ioServiceBytesRecursive": entries(&stats.block_io.service_bytes),
                "ioServicedRecursive": entries(&stats.block_io.serviced)},
        },
    });
    println!("{event}");
    Ok(())
}
