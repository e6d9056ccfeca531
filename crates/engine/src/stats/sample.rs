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

    pub fn read(source: &mut Source, host: &Host, cables: &Cables<'_>, buffer: &mut Vec<u8>) -> Sample {
        let stats = source.gauge.read(buffer);
        let networks = match &mut source.network {
            Some(network) => network.read(stats.cpu.usage_nanoseconds, cables, buffer),
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

    /// `pid`: the container's first process; `cable`: the host's end of its only interface, where that is known.
    pub fn open(gauge: Gauge, pid: i32, cable: Option<&str>, host: &Host) -> Source {
        let own = namespace(&format!("/proc/{pid}/ns/net"));
        let network = own.filter(|own| Some(*own) != host.network);
        let network = network.and_then(|_| File::open(format!("/proc/{pid}/net/dev")).ok());
        let network = network.map(|file| Interfaces {
            file,
            cable: cable.map(str::to_owned),
            line: 0,
            seen: None,
            last: Arc::default(),
        });
        Source { pid, gauge, network }
    }

    /// Whether [`Cables`] can tell that nothing has passed.
    pub fn has_cable(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.cable.is_some())
    }
}

/// `net/dev` of a container's network namespace, which is read without being entered. While the file is open the
/// namespace stays, so it is not kept for longer than the container runs.
#[derive(Debug)]
struct Interfaces {
    file: File,
    cable: Option<String>,
    /// Where the cable was found in [`Cables`].
    line: usize,
    /// The container's processor time when the file was read last, and the counters of the cable's end on the host.
    seen: Option<(u64, String)>,
    last: Arc<[Network]>,
}

impl Interfaces {
    /// `processor`: the container's time until now.
    fn read(&mut self, processor: u64, cables: &Cables<'_>, buffer: &mut Vec<u8>) -> Arc<[Network]> {
        let counters = self.cable.as_deref().and_then(|name| cables.find(name, &mut self.line));
        // What comes in through the cable has gone out at its other end; for all else the container has to do something.
        let unchanged = |seen: &(u64, String)| seen.0 == processor && counters == Some(seen.1.as_str());
        if !self.seen.as_ref().is_some_and(unchanged) {
            self.last = interfaces(read_all(&self.file, buffer)).into();
            self.seen = counters.map(|counters| (processor, counters.to_owned()));
        }
        self.last.clone()
    }
}

/// The names of the host's interfaces with their counters, as text: one look tells for all containers which of them sent
/// or got something, at a sixth of the price of a look into each.
#[derive(Debug, Default)]
pub struct Cables<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Cables<'t> {
    pub fn read(text: &'t mut Vec<u8>) -> Cables<'t> {
        let Ok(file) = File::open("/proc/thread-self/net/dev") else { return Cables::default() };
        Cables(read_all(&file, text).lines().skip(2).filter_map(counters).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The counters of an interface. `line` is where it was before: it moves only when others come and go.
    fn find(&self, name: &str, line: &mut usize) -> Option<&'t str> {
        let at = |line: usize| self.0.get(line).filter(|one| one.0 == name);
        if at(*line).is_none() {
            // Most likely by a few lines, and to the front.
            let near = (0..(*line).min(self.0.len())).rev();
            *line = near.chain(*line..self.0.len()).find(|line| at(*line).is_some())?;
        }
        at(*line).map(|one| one.1)
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

/// The name and the numbers of a line.
fn counters(line: &str) -> Option<(&str, &str)> {
    line.split_once(':').map(|(name, numbers)| (name.trim(), numbers))
}

fn interface(line: &str) -> Option<Network> {
    let (name, numbers) = counters(line)?;
    let numbers: Vec<u64> = numbers.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let traffic = |at: usize| {
        let [bytes, packets, errors, dropped] = *numbers.get(at..at + 4)? else { return None };
        Some(Traffic { bytes, packets, errors, dropped })
    };
    Some(Network { name: name.into(), received: traffic(0)?, sent: traffic(8)? })
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
    fn a_quiet_cable_saves_the_look_into_the_namespace() {
        let head = "Inter-|\n face |\n";
        let mut file = tempfile::tempfile().unwrap();
        let write = |file: &mut File, bytes: u64| {
            use std::io::{Seek, Write};
            file.rewind().unwrap();
            writeln!(file, "{head} eth0: {bytes:7} 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0").unwrap();
        };
        write(&mut file, 1);
        let mut network = Interfaces {
            file: file.try_clone().unwrap(),
            cable: Some("veth1".into()),
            line: 0,
            seen: None,
            last: Arc::default(),
        };
        let mut buffer = Vec::new();
        let mut received =
            |processor, cables: &Cables<'_>| network.read(processor, cables, &mut buffer)[0].received.bytes;
        let quiet = Cables(vec![("veth0", "0 5"), ("veth1", "0 0")]);
        let busy = Cables(vec![("veth1", "0 9")]);
        assert_eq!(received(5, &quiet), 1);
        write(&mut file, 2);
        assert_eq!(received(5, &quiet), 1);
        assert_eq!(received(6, &quiet), 2);
        write(&mut file, 3);
        assert_eq!(received(6, &busy), 3);
        write(&mut file, 4);
        assert_eq!(received(6, &busy), 3);
        assert_eq!(received(6, &Cables::default()), 4);
    }

    #[test]
    fn cables_are_found_wherever_they_move() {
        let cables = |names: &[&'static str]| Cables(names.iter().map(|name| (*name, *name)).collect());
        let mut line = 0;
        for names in [&["a", "b", "c"][..], &["b", "c"], &["c"], &["a", "b", "d", "c"], &["c", "a"]] {
            assert_eq!(cables(names).find("c", &mut line), Some("c"));
            assert_eq!(names[line], "c");
        }
        line = 9;
        assert_eq!(cables(&["a", "b"]).find("c", &mut line), None);
        assert_eq!(cables(&[]).find("c", &mut line), None);
        assert_eq!(cables(&["a", "c"]).find("c", &mut line), Some("c"));
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
