//! What a container used, from the files of its cgroups.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

use super::Cgroup;

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
    pub per_cpu_nanoseconds: Arc<[u64]>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_nanoseconds: u64,
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub usage: u64,
    /// 0 if the kernel does not tell.
    pub usage_max: u64,
    /// `u64::MAX` (v2) or the kernel's largest number (v1) if unlimited.
    pub limit: u64,
    /// Times that the limit was in the way (v1), or that it made the kernel look for somebody to kill (v2).
    pub failures: u64,
    /// `memory.stat` as the kernel wrote it: see [`MemoryStats::fields`].
    pub detail: Arc<str>,
}

impl MemoryStats {
    /// The names and numbers of `memory.stat`.
    pub fn fields(&self) -> impl Iterator<Item = (&str, u64)> {
        self.detail.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| (key, number(value)))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    /// `u64::MAX` if unlimited.
    pub limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIoStats {
    pub service_bytes: Arc<[BlockIoEntry]>,
    pub serviced: Arc<[BlockIoEntry]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, … on v1; `read`, `write`, `discard` on v2.
    pub operation: &'static str,
    pub value: u64,
}

/// What is read on v1: controller and file, in the order of `Separate`.
const FILES_1: [(&str, &str); 12] = [
    ("cpuacct", "cpuacct.usage_percpu"),
    ("cpuacct", "cpuacct.stat"),
    ("cpu", "cpu.stat"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.max_usage_in_bytes"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.failcnt"),
    ("memory", "memory.stat"),
    ("pids", "pids.current"),
    ("pids", "pids.max"),
    ("blkio", "blkio.throttle.io_service_bytes_recursive"),
    ("blkio", "blkio.throttle.io_serviced_recursive"),
];

/// What is read on v2.
const FILES_2: [(&str, &str); 8] = [
    ("cpu", "cpu.stat"),
    ("memory", "memory.current"),
    ("memory", "memory.max"),
    ("memory", "memory.events"),
    ("memory", "memory.stat"),
    ("pids", "pids.current"),
    ("pids", "pids.max"),
    ("io", "io.stat"),
];

/// Ticks of `cpuacct.stat` in a second: the kernel's `USER_HZ`, the same on all machines that we run on.
const TICK_NANOSECONDS: u64 = 10_000_000;
/// Largest file that is read, in bytes: `io.stat` and `memory.stat` of machines with very many devices and nodes.
const FILE_MAX: usize = 256 << 10;

/// A cgroup's files, kept open: asking again costs one system call for each, and no path is walked.
///
/// Open files do not hold the cgroup: once it is removed, they read as if it had never been used. Some numbers change
/// only for reasons that can be seen elsewhere; they are read again when there is one, and every [`WHOLE_EVERY`] times
/// in any case. A container that has had no processor time and has as much memory as before has done nothing; how much
/// memory it has can change without it (the host takes some back), which is looked at every [`MEMORY_EVERY`] times.
#[derive(Debug)]
pub struct Gauge {
    unified: bool,
    /// In the order of [`FILES_1`] or [`FILES_2`]; none for what the kernel does not have.
    files: Vec<Option<OwnedFd>>,
    last: Last,
    /// Readings until everything is read again.
    until_whole: u32,
    /// What may have changed was looked at last time.
    looked: bool,
}

const WHOLE_EVERY: u32 = 60;
/// A divisor of [`WHOLE_EVERY`].
const MEMORY_EVERY: u32 = 5;
/// A charge that fails is never larger than this, in bytes: a huge page and what is charged ahead.
const CHARGE_MAX: u64 = 4 << 20;

/// What is read whether or not there is a reason.
#[derive(Debug, Clone, Copy)]
struct Due {
    whole: bool,
    memory: bool,
}

/// What was read last.
#[derive(Debug, Default)]
struct Last {
    stats: Stats,
    /// The text that `block_io` was read from; the other file changes with it.
    block_io_text: String,
}

impl Gauge {
    /// Descriptors that one gauge holds at most.
    pub const FILES_MAX: usize = FILES_1.len();

    pub fn open(cgroup: &Cgroup) -> Gauge {
        let unified = cgroup.is_unified();
        let names: &[(&str, &str)] = if unified { &FILES_2 } else { &FILES_1 };
        // Several files of one controller stand in a row.
        let mut last: (&str, Option<PathBuf>) = ("", None);
        let files = names.iter().map(|(controller, file)| {
            if last.0 != *controller {
                last = (controller, cgroup.directory(controller));
            }
            let path = last.1.as_ref()?.join(file);
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
        });
        Gauge { unified, files: files.collect(), last: Last::default(), until_whole: 0, looked: false }
    }

    /// The next reading is of everything: limits have changed.
    pub fn refresh(&mut self) {
        self.until_whole = 0;
    }

    /// Reads what has been used. `buffer` is for keeping between calls. What cannot be read counts as nothing.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Stats {
        let due = Due { whole: self.until_whole == 0, memory: self.until_whole.is_multiple_of(MEMORY_EVERY) };
        self.until_whole = if due.whole { WHOLE_EVERY - 1 } else { self.until_whole - 1 };
        let mut last = std::mem::take(&mut self.last);
        let before = last.stats.cpu.usage_nanoseconds;
        if self.unified {
            self.version2(&mut last, due, buffer);
        } else {
            self.version1(&mut last, due, buffer);
        }
        self.looked = due.memory || last.stats.cpu.usage_nanoseconds != before;
        self.last = last;
        self.last.stats.clone()
    }

    /// Whether the last reading was of somebody who has had processor time, or one of every [`MEMORY_EVERY`]: what else is
    /// known of who does nothing need not be asked for more often.
    pub fn looked(&self) -> bool {
        self.looked
    }

    fn text<'b>(&self, at: usize, buffer: &'b mut Vec<u8>) -> &'b str {
        buffer.clear();
        if let Some(Some(file)) = self.files.get(at) {
            read_all(file, buffer);
        }
        std::str::from_utf8(buffer).unwrap_or_default()
    }

    fn version1(&self, last: &mut Last, Due { whole, memory: memory_due }: Due, buffer: &mut Vec<u8>) {
        let Stats { cpu, memory, pids, block_io } = &mut last.stats;
        let before = (cpu.usage_nanoseconds, memory.usage);
        let now = self.text(0, buffer).split_ascii_whitespace().map(number);
        if !now.clone().eq(cpu.per_cpu_nanoseconds.iter().copied()) {
            cpu.per_cpu_nanoseconds = now.collect();
            cpu.usage_nanoseconds = cpu.per_cpu_nanoseconds.iter().sum();
        }
        let has_run = before.0 != cpu.usage_nanoseconds;
        if has_run || memory_due {
            memory.usage = number(self.text(3, buffer));
        }
        if whole {
            memory.limit = number(self.text(5, buffer));
            pids.limit = number_or_max(self.text(9, buffer));
        }
        if whole || before != (cpu.usage_nanoseconds, memory.usage) {
            let text = self.text(1, buffer);
            let ticks = |name| field(text, name).saturating_mul(TICK_NANOSECONDS);
            (cpu.user_nanoseconds, cpu.system_nanoseconds) = (ticks("user"), ticks("system"));
            memory.usage_max = number(self.text(4, buffer));
            memory.detail = self.text(7, buffer).into();
            pids.current = number(self.text(8, buffer));
        }
        // Without a quota there are no periods.
        if whole || cpu.periods > 0 {
            let text = self.text(2, buffer);
            cpu.periods = field(text, "nr_periods");
            cpu.throttled_periods = field(text, "nr_throttled");
            cpu.throttled_nanoseconds = field(text, "throttled_time");
        }
        if whole || memory.usage_max.saturating_add(CHARGE_MAX) >= memory.limit {
            memory.failures = number(self.text(6, buffer));
        }
        // What is written back later counts for nobody there: whoever has not run has not read or written either.
        if !whole && !has_run {
            return;
        }
        let text = self.text(10, buffer);
        if text != last.block_io_text {
            let entries = |text: &str| text.lines().filter_map(block_io_line).collect();
            text.clone_into(&mut last.block_io_text);
            block_io.service_bytes = entries(text);
            block_io.serviced = entries(self.text(11, buffer));
        }
    }

    fn version2(&self, last: &mut Last, Due { whole, memory: memory_due }: Due, buffer: &mut Vec<u8>) {
        let Stats { cpu, memory, pids, block_io } = &mut last.stats;
        let before = (cpu.usage_nanoseconds, memory.usage);
        let text = self.text(0, buffer);
        let microseconds = |name| field(text, name).saturating_mul(1000);
        *cpu = CpuStats {
            usage_nanoseconds: microseconds("usage_usec"),
            user_nanoseconds: microseconds("user_usec"),
            system_nanoseconds: microseconds("system_usec"),
            per_cpu_nanoseconds: Arc::default(),
            periods: field(text, "nr_periods"),
            throttled_periods: field(text, "nr_throttled"),
            throttled_nanoseconds: microseconds("throttled_usec"),
        };
        let has_run = before.0 != cpu.usage_nanoseconds;
        if has_run || memory_due {
            memory.usage = number(self.text(1, buffer));
        }
        if whole {
            memory.limit = number_or_max(self.text(2, buffer));
            pids.limit = number_or_max(self.text(6, buffer));
        }
        if whole || before != (cpu.usage_nanoseconds, memory.usage) {
            memory.detail = self.text(4, buffer).into();
            pids.current = number(self.text(5, buffer));
        }
        if whole || memory.usage.saturating_add(CHARGE_MAX) >= memory.limit {
            memory.failures = field(self.text(3, buffer), "oom");
        }
        // What is written back later counts for who wrote it, on v2.
        if !has_run && !memory_due {
            return;
        }
        let text = self.text(7, buffer);
        if text != last.block_io_text {
            text.clone_into(&mut last.block_io_text);
            *block_io = io_stat(text);
        }
    }
}

/// Reads a file from its beginning, whatever was read of it before.
fn read_all(file: &OwnedFd, buffer: &mut Vec<u8>) {
    loop {
        let have = buffer.len();
        if have >= FILE_MAX {
            return;
        }
        // Most files are shorter than the first round's room.
        let room = have.max(4096);
        buffer.reserve(room);
        let count = rustix::io::pread(file, rustix::buffer::spare_capacity(buffer), have as u64).unwrap_or(0);
        // The kernel writes a cgroup's file as one piece: a short read is its end.
        if count < room {
            return;
        }
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`, a line for each device.
fn io_stat(text: &str) -> BlockIoStats {
    let (mut service_bytes, mut serviced) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut service_bytes, "read"),
                "wbytes" => (&mut service_bytes, "write"),
                "dbytes" => (&mut service_bytes, "discard"),
                "rios" => (&mut serviced, "read"),
                "wios" => (&mut serviced, "write"),
                "dios" => (&mut serviced, "discard"),
                _ => continue,
            };
            list.push(BlockIoEntry { major, minor, operation, value: number(value) });
        }
    }
    BlockIoStats { service_bytes: service_bytes.into(), serviced: serviced.into() }
}

/// `8:0 Read 4096`
fn block_io_line(line: &str) -> Option<BlockIoEntry> {
    const OPERATIONS: [&str; 6] = ["Read", "Write", "Sync", "Async", "Discard", "Total"];
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = device(words.next()?)?;
    let operation = words.next()?;
    let operation = OPERATIONS.into_iter().find(|known| *known == operation)?;
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
    match text.trim() {
        "max" | "" => u64::MAX,
        text => number(text),
    }
}

/// The value of a `name value` line.
pub(super) fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name))
        .map_or(0, |(_, value)| number(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_both_versions() {
        let entry = |operation, value| BlockIoEntry { major: 8, minor: 16, operation, value };
        assert_eq!(block_io_line("8:16 Read 4096"), Some(entry("Read", 4096)));
        assert_eq!(block_io_line("Total 8192"), None);
        let stats = io_stat("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n");
        assert_eq!(*stats.service_bytes, [entry("read", 1), entry("write", 2), entry("discard", 0)]);
        assert_eq!(*stats.serviced, [entry("read", 3), entry("write", 4), entry("discard", 0)]);
        assert_eq!(
            (number_or_max("max\n"), number_or_max("7\n"), number_or_max("")),
            (u64::MAX, 7, u64::MAX)
        );
    }

    #[test]
    fn who_has_not_run_is_looked_at_less_often() {
        use std::os::unix::fs::FileExt;
        let (processor, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut files: Vec<Option<OwnedFd>> = FILES_1.iter().map(|_| None).collect();
        files[0] = Some(processor.try_clone().unwrap().into());
        files[3] = Some(memory.try_clone().unwrap().into());
        let mut gauge = Gauge { unified: false, files, last: Last::default(), until_whole: 0, looked: false };
        let (mut buffer, mut looked) = (Vec::new(), Vec::new());
        let mut read = |processor_now: u64, memory_now: u64| {
            processor.write_all_at(format!("{processor_now:5} 1\n").as_bytes(), 0).unwrap();
            memory.write_all_at(format!("{memory_now:5}\n").as_bytes(), 0).unwrap();
            let stats = gauge.read(&mut buffer);
            looked.push(gauge.looked());
            (stats.cpu.usage_nanoseconds, stats.memory.usage)
        };
        assert_eq!(read(1, 10), (2, 10));
        assert_eq!(read(2, 20), (3, 20));
        for _ in 2..MEMORY_EVERY {
            assert_eq!(read(2, 30), (3, 20));
        }
        assert_eq!(read(2, 30), (3, 30));
        assert_eq!(read(3, 40), (4, 40));
        assert_eq!(looked, [true, true, false, false, false, true, true]);
    }

    #[test]
    fn files_longer_than_a_page_are_read_whole() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        let text = "0123456789abcde\n".repeat(4000);
        file.write_all(text.as_bytes()).unwrap();
        let file = OwnedFd::from(file);
        let mut buffer = Vec::new();
        for _ in 0..2 {
            buffer.clear();
            read_all(&file, &mut buffer);
            assert_eq!(buffer.len(), text.len());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
            let _ = (io_stat(&text), block_io_line(&text), field(&text, "a"), number_or_max(&text));
            let memory = MemoryStats { detail: text.into(), ..MemoryStats::default() };
            let _ = memory.fields().count();
        }
    }
}
