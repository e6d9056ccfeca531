//! What a container used, from the files of its cgroups.

use std::collections::BTreeMap;
use std::path::Path;

use super::layout::read;

/// What a container used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
    pub block_io: BlockIoStats,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    pub usage_nanoseconds: u64,
    pub user_nanoseconds: u64,
    pub system_nanoseconds: u64,
    /// By processor; empty on cgroup v2.
    pub per_cpu_nanoseconds: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_nanoseconds: u64,
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub usage: u64,
    pub usage_max: u64,
    /// `u64::MAX` (v2) or the kernel's largest number (v1) if unlimited.
    pub limit: u64,
    pub failures: u64,
    pub swap: u64,
    /// `memory.stat`.
    pub detail: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    /// 0 if unlimited.
    pub limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIoStats {
    pub service_bytes: Vec<BlockIoEntry>,
    pub serviced: Vec<BlockIoEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, … on v1; `read`, `write`, `discard` on v2.
    pub operation: String,
    pub value: u64,
}

/// Reads everything from v1's hierarchies; `directory` finds that of a controller.
pub(super) fn version1(directory: impl Fn(&str) -> Option<std::path::PathBuf>) -> Stats {
    let mut stats = Stats::default();
    if let Some(directory) = directory("cpuacct") {
        stats.cpu.usage_nanoseconds = number(&read(&directory, "cpuacct.usage"));
        stats.cpu.user_nanoseconds = number(&read(&directory, "cpuacct.usage_user"));
        stats.cpu.system_nanoseconds = number(&read(&directory, "cpuacct.usage_sys"));
        let per_cpu = read(&directory, "cpuacct.usage_percpu");
        stats.cpu.per_cpu_nanoseconds = per_cpu.split_whitespace().map(number).collect();
    }
    if let Some(directory) = directory("cpu") {
        let text = read(&directory, "cpu.stat");
        stats.cpu.periods = field(&text, "nr_periods");
        stats.cpu.throttled_periods = field(&text, "nr_throttled");
        stats.cpu.throttled_nanoseconds = field(&text, "throttled_time");
    }
    if let Some(directory) = directory("memory") {
        stats.memory = MemoryStats {
            usage: number(&read(&directory, "memory.usage_in_bytes")),
            usage_max: number(&read(&directory, "memory.max_usage_in_bytes")),
            limit: number(&read(&directory, "memory.limit_in_bytes")),
            failures: number(&read(&directory, "memory.failcnt")),
            swap: 0,
            detail: fields(&read(&directory, "memory.stat")),
        };
        stats.memory.swap = stats.memory.detail.get("swap").copied().unwrap_or(0);
    }
    if let Some(directory) = directory("pids") {
        stats.pids = pids(&directory);
    }
    if let Some(directory) = directory("blkio") {
        for (list, name) in [
            (&mut stats.block_io.service_bytes, "io_service_bytes"),
            (&mut stats.block_io.serviced, "io_serviced"),
        ] {
            let text = read(&directory, &format!("blkio.throttle.{name}_recursive"));
            list.extend(text.lines().filter_map(block_io_line));
        }
    }
    stats
}

/// Reads everything from a directory of v2.
pub(super) fn version2(directory: &Path) -> Stats {
    let cpu = read(directory, "cpu.stat");
    let microseconds = |name| field(&cpu, name).saturating_mul(1000);
    let events = read(directory, "memory.events");
    let mut stats = Stats {
        cpu: CpuStats {
            usage_nanoseconds: microseconds("usage_usec"),
            user_nanoseconds: microseconds("user_usec"),
            system_nanoseconds: microseconds("system_usec"),
            per_cpu_nanoseconds: Vec::new(),
            periods: field(&cpu, "nr_periods"),
            throttled_periods: field(&cpu, "nr_throttled"),
            throttled_nanoseconds: microseconds("throttled_usec"),
        },
        memory: MemoryStats {
            usage: number(&read(directory, "memory.current")),
            usage_max: number(&read(directory, "memory.peak")),
            limit: number_or_max(&read(directory, "memory.max")),
            failures: field(&events, "max"),
            swap: number(&read(directory, "memory.swap.current")),
            detail: fields(&read(directory, "memory.stat")),
        },
        pids: pids(directory),
        block_io: BlockIoStats::default(),
    };
    for line in read(directory, "io.stat").lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut stats.block_io.service_bytes, "read"),
                "wbytes" => (&mut stats.block_io.service_bytes, "write"),
                "dbytes" => (&mut stats.block_io.service_bytes, "discard"),
                "rios" => (&mut stats.block_io.serviced, "read"),
                "wios" => (&mut stats.block_io.serviced, "write"),
                "dios" => (&mut stats.block_io.serviced, "discard"),
                _ => continue,
            };
            list.push(BlockIoEntry { major, minor, operation: operation.into(), value: number(value) });
        }
    }
    stats
}

fn pids(directory: &Path) -> PidsStats {
    let limit = number_or_max(&read(directory, "pids.max"));
    PidsStats {
        current: number(&read(directory, "pids.current")),
        limit: if limit == u64::MAX { 0 } else { limit },
    }
}

fn block_io_line(line: &str) -> Option<BlockIoEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = device(words.next()?)?;
    let operation = words.next()?.to_owned();
    Some(BlockIoEntry { major, minor, operation, value: words.next()?.parse().ok()? })
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

pub(super) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn number_or_max(text: &str) -> u64 {
    if text.trim() == "max" { u64::MAX } else { number(text) }
}

/// The value of a `name value` line.
pub(super) fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name))
        .map_or(0, |(_, value)| number(value))
}

fn fields(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, value)| (key.to_owned(), number(value)))
        .collect()
}
