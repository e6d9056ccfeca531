//! One look at a container.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use model::time::UnixNanos;
use sandbox::cgroup::{Gauge, Stats};

use crate::{clock, host};

/// Ticks of `/proc/stat`: the kernel's `USER_HZ`.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// What a container used until now. Everything is zero if it does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub at: UnixNanos,
    pub is_running: bool,
    pub is_cgroup_v2: bool,
    pub stats: Stats,
    /// Interfaces of its own or of the container whose network it shares; empty for the host's.
    pub networks: Arc<[Network]>,
    /// What all CPUs of the host did until now, idle time included; nanoseconds.
    pub system_nanoseconds: u64,
    pub online_cpus: u32,
}

/// An interface's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// What is the same for all containers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host {
    system_nanoseconds: u64,
    online_cpus: u32,
    /// The inode of the daemon's own network namespace, which is the host's.
    network: Option<u64>,
    is_cgroup_v2: bool,
}

impl Host {
    /// Reads `/proc/stat`, which costs about as much as two containers.
    pub fn read() -> Host {
        let (system_nanoseconds, online_cpus) =
            std::fs::read_to_string("/proc/stat").map(|text| processors(&text)).unwrap_or_default();
        Host {
            system_nanoseconds,
            online_cpus,
            network: namespace("/proc/self/ns/net"),
            is_cgroup_v2: host::cgroup_v2(),
        }
    }
}

impl Sample {
    pub fn empty() -> Sample {
        Sample {
            at: 0,
            is_running: false,
            is_cgroup_v2: false,
            stats: Stats::default(),
            networks: Arc::default(),
            system_nanoseconds: 0,
            online_cpus: 0,
        }
    }

    pub fn read(source: &mut Source, host: &Host, buffer: &mut Vec<u8>) -> Sample {
        let stats = source.gauge.read(buffer);
        let networks = match &mut source.network {
            Some(network) => network.read(source.gauge.looked(), buffer),
            None => Arc::default(),
        };
        Sample {
            at: clock::now(),
            is_running: true,
            is_cgroup_v2: host.is_cgroup_v2,
            stats,
            networks,
            system_nanoseconds: host.system_nanoseconds,
            online_cpus: host.online_cpus,
        }
    }
}

/// Where a running container's samples come from: open files.
#[derive(Debug)]
pub struct Source {
    pub pid: i32,
    pub gauge: Gauge,
    /// None if its network is the host's.
    network: Option<Interfaces>,
}

impl Source {
    /// Descriptors that one source holds at most.
    pub const FILES_MAX: usize = Gauge::FILES_MAX + 1;

    /// `pid`: the container's first process.
    pub fn open(gauge: Gauge, pid: i32, host: &Host) -> Source {
        let own = namespace(&format!("/proc/{pid}/ns/net"));
        let network = own.filter(|own| Some(*own) != host.network);
        let network = network.and_then(|_| File::open(format!("/proc/{pid}/net/dev")).ok());
        let network = network.map(|file| Interfaces { file, last: Arc::default() });
        Source { pid, gauge, network }
    }
}

/// `net/dev` of a container's network namespace, which is read without being entered. While the file is open the
/// namespace stays, so it is not kept for longer than the container runs.
///
/// The kernel answers some packets by itself, so that the counters may change while the container does nothing. That is
/// rare enough to be looked at only when the gauge looks at who does nothing: it is the dearest part of a sample.
#[derive(Debug)]
struct Interfaces {
    file: File,
    last: Arc<[Network]>,
}

impl Interfaces {
    /// `again`: they may have changed.
    fn read(&mut self, again: bool, buffer: &mut Vec<u8>) -> Arc<[Network]> {
        if again {
            self.last = interfaces(read_all(&self.file, buffer)).into();
        }
        self.last.clone()
    }
}

/// Reads a file of `/proc` from its beginning; these come in pieces of a page.
fn read_all<'b>(file: &File, buffer: &'b mut Vec<u8>) -> &'b str {
    const LONGEST: usize = 1 << 20;
    buffer.clear();
    loop {
        let have = buffer.len();
        buffer.reserve(4096);
        let count = rustix::io::pread(file, rustix::buffer::spare_capacity(buffer), have as u64).unwrap_or(0);
        // A line more would have fitted.
        if count < 2048 || buffer.len() > LONGEST {
            return std::str::from_utf8(buffer).unwrap_or_default();
        }
    }
}

fn namespace(path: &str) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// The time of all processors together, and how many there are.
fn processors(text: &str) -> (u64, u32) {
    let mut all = 0;
    let mut count = 0;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("cpu") else { break };
        if let Some(numbers) = rest.strip_prefix(' ') {
            // Eight kinds of time; what guests had is in them already.
            all = numbers.split_ascii_whitespace().take(8).filter_map(|word| word.parse::<u64>().ok()).sum();
        } else {
            count += 1;
        }
    }
    (all.saturating_mul(TICK_NANOSECONDS), count)
}

/// `/proc/PID/net/dev`, without the loopback device.
fn interfaces(text: &str) -> Vec<Network> {
    text.lines().skip(2).filter_map(interface).filter(|network| network.name != "lo").collect()
}

fn interface(line: &str) -> Option<Network> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let traffic = |at: usize| {
        let [bytes, packets, errors, dropped] = *numbers.get(at..at + 4)? else { return None };
        Some(Traffic { bytes, packets, errors, dropped })
    };
    Some(Network { name: name.trim().into(), received: traffic(0)?, sent: traffic(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_processors() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 0 0 0\nintr 5 cpu\ncpu9 1\n";
        assert_eq!(processors(text), (36 * TICK_NANOSECONDS, 2));
        assert_eq!(processors(""), (0, 0));
    }

    #[test]
    fn a_namespace_s_interfaces() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|…\n    \
                    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  eth0:1216 12 1 2 0 0 0 0 506 7 3 4 0 0 0 0\n bad: 1 2\n";
        let all = interfaces(text);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].name, "eth0");
        assert_eq!(all[0].received, Traffic { bytes: 1216, packets: 12, errors: 1, dropped: 2 });
        assert_eq!(all[0].sent, Traffic { bytes: 506, packets: 7, errors: 3, dropped: 4 });
    }
}
