//! Memory of an engine's own processes, from `smaps_rollup`.

use std::fs;

use testkit::Host;

/// What an engine keeps in memory, in MB (10^6 bytes). Containers' own processes are not counted.
#[derive(Debug, Default, Clone, Copy)]
pub struct Memory {
    /// Private memory of the daemon and its helpers.
    pub daemon: f64,
    /// Private memory of the process that keeps a container, on average.
    pub shim: f64,
    /// The same as proportional set size: shared pages are divided among those who share them.
    pub shim_share: f64,
}

const DAEMONS: [&str; 4] = ["cortend", "dockerd", "containerd", "docker-proxy"];
const SHIMS: [&str; 3] = ["corten-shim", "containerd-shim-runc-v2", "conmon"];

pub fn look(host: &Host) -> Memory {
    let mut memory = Memory::default();
    let mut shims = 0.0;
    for (pid, _) in host.processes() {
        let program = testkit::host::program_name(pid);
        let (private, share) = rollup(pid);
        if DAEMONS.contains(&program.as_str()) {
            memory.daemon += private;
        } else if SHIMS.contains(&program.as_str()) {
            memory.shim += private;
            memory.shim_share += share;
            shims += 1.0;
        }
    }
    if shims > 0.0 {
        memory.shim /= shims;
        memory.shim_share /= shims;
    }
    memory
}

/// Processor time that the daemon and its helpers have had until now, in seconds.
pub fn daemon_processor_seconds(host: &Host) -> f64 {
    // Ticks of `/proc/PID/stat`, the same on all machines that we run on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let ticks = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything.
        let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
    };
    daemons(host).map(ticks).sum::<f64>() / TICKS_PER_SECOND
}

fn daemons(host: &Host) -> impl Iterator<Item = u32> {
    let all = host.processes().into_iter().map(|(pid, _)| pid);
    all.filter(|pid| DAEMONS.contains(&testkit::host::program_name(*pid).as_str()))
}

/// Lets the peaks of the daemon and its helpers begin anew.
pub fn forget_peaks(host: &Host) {
    for pid in daemons(host) {
        // See proc_pid_clear_refs(5).
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// The most resident memory that the daemon and its helpers have had, in MB.
pub fn daemon_peak(host: &Host) -> f64 {
    let peak = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0)
    };
    daemons(host).map(peak).sum::<f64>() * 1024.0 / 1e6
}

/// Bytes that one measurement may leave in the page cache.
const TOUCHED_BYTES: usize = 1 << 30;

/// Makes the machine have memory at hand. A virtual one gives what it does not use back to its host, which makes the next
/// one to write a file pay many times for what others have left to its predecessor.
pub fn touch() {
    std::hint::black_box(vec![1u8; TOUCHED_BYTES]);
}

/// Private and proportional memory of a process, in MB; zero when it is gone.
fn rollup(pid: u32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kib.unwrap_or(0.0) * 1024.0 / 1e6
    };
    (field("Private_Clean:") + field("Private_Dirty:"), field("Pss:"))
}
