//! The page that a run writes.

use std::fmt::Write;
use std::fs;

use crate::Plan;
use crate::measure::STOPPED;
use crate::samples::{Kind, Samples, Who};

/// Something promised.
struct Target {
    text: &'static str,
    /// What was measured, and whether it keeps the promise; none when a part of it was not measured.
    check: fn(&Samples) -> Option<(String, bool)>,
}

const TARGETS: [Target; 23] = [
    Target {
        text: "`run --rm` on a bridge at most 3 × the kernel's own price",
        check: |samples| ratio(samples, (Kind::CliBridge, Who::Corten), (Kind::ApiBridge, Who::Floor), 3.0),
    },
    Target {
        text: "`run --rm` on a bridge at most 1/10 of Docker's",
        check: |samples| ratio(samples, (Kind::CliBridge, Who::Corten), (Kind::CliBridge, Who::Docker), 0.1),
    },
    Target {
        text: "create, start, wait, remove through the API at most 2 × the kernel's own price",
        check: |samples| ratio(samples, (Kind::ApiBridge, Who::Corten), (Kind::ApiBridge, Who::Floor), 2.0),
    },
    Target {
        text: "exec through the API at most 1/10 of Docker's",
        check: |samples| ratio(samples, (Kind::ExecApi, Who::Corten), (Kind::ExecApi, Who::Docker), 0.1),
    },
    Target {
        text: "`exec` on the command line at most 1/10 of Docker's",
        check: |samples| ratio(samples, (Kind::ExecCli, Who::Corten), (Kind::ExecCli, Who::Docker), 0.1),
    },
    Target {
        text: "daemon at most 30 MB private with many running",
        check: |samples| at_most(samples, Kind::DaemonMemory, 30.0),
    },
    Target {
        text: "shim at most 0.25 MB (proportional share)",
        check: |samples| at_most(samples, Kind::ShimShare, 0.25),
    },
    Target {
        text: "a start beside many costs what it costs beside few (within a fifth)",
        check: |samples| ratio(samples, (Kind::BesideMany, Who::Corten), (Kind::BesideFew, Who::Corten), 1.2),
    },
    Target {
        text: "`ps -a` with 2,000 stopped in less than 30 ms",
        check: |samples| at_most(samples, Kind::ListStopped, 30.0),
    },
    Target {
        text: "daemon's start with 2,000 stopped in less than 200 ms",
        check: |samples| at_most(samples, Kind::RestartStopped, 200.0),
    },
    Target {
        text: "logs written at 300 MB/s or more",
        check: |samples| at_least(samples, Kind::LogWrite, 300.0),
    },
    Target {
        text: "logs read at 500 MB/s or more",
        check: |samples| at_least(samples, Kind::LogRead, 500.0),
    },
    Target {
        text: "`cp` of 200 MB at most 1.3 × `cp -a`, the slower direction",
        check: |samples| slower(samples, [Kind::CopyLargeIn, Kind::CopyLargeOut], 1.3),
    },
    Target {
        text: "`cp` of 10,000 small files at most 2 × `tar | tar`, the slower direction",
        check: |samples| slower(samples, [Kind::CopySmallIn, Kind::CopySmallOut], 2.0),
    },
    Target {
        text: "`stats` streams of many containers together below 1 % of one core",
        check: |samples| at_most(samples, Kind::StatsLoad, 1.0),
    },
    Target {
        text: "cold pull of 300 MB in five layers at most 1/3 of Docker's",
        check: |samples| of_docker(samples, Kind::PullCold, 0.334),
    },
    Target {
        text: "the same at most 1.5 × inflating and hashing on two cores",
        check: |samples| of_floor(samples, Kind::PullCold, 1.5),
    },
    Target {
        text: "pull of an unchanged tag in less than 20 ms",
        check: |samples| at_most(samples, Kind::PullUnchanged, 20.0),
    },
    Target {
        text: "daemon's peak during a pull below 60 MB",
        check: |samples| at_most(samples, Kind::PullMemory, 60.0),
    },
    Target {
        text: "load of the same image at most 1/3 of Docker's",
        check: |samples| of_docker(samples, Kind::ImageLoad, 0.334),
    },
    Target {
        text: "the same at most 1.5 × inflating and hashing on two cores",
        check: |samples| of_floor(samples, Kind::ImageLoad, 1.5),
    },
    Target {
        text: "save of it no slower than the disk takes the file",
        check: |samples| of_floor(samples, Kind::ImageSave, 1.0),
    },
    Target {
        text: "push of a new layer at most 1.5 × compressing it on two cores",
        check: |samples| of_floor(samples, Kind::ImagePush, 1.5),
    },
];

fn of_docker(samples: &Samples, kind: Kind, limit: f64) -> Option<(String, bool)> {
    ratio(samples, (kind, Who::Corten), (kind, Who::Docker), limit)
}

fn of_floor(samples: &Samples, kind: Kind, limit: f64) -> Option<(String, bool)> {
    ratio(samples, (kind, Who::Corten), (kind, Who::Floor), limit)
}

fn ratio(samples: &Samples, ours: (Kind, Who), theirs: (Kind, Who), limit: f64) -> Option<(String, bool)> {
    let ratio = samples.median(ours.0, ours.1)? / samples.median(theirs.0, theirs.1)?;
    Some((format!("{ratio:.2} ×"), ratio <= limit))
}

/// The worst of several against their own floors.
fn slower(samples: &Samples, kinds: [Kind; 2], limit: f64) -> Option<(String, bool)> {
    let ratios =
        kinds.map(|kind| Some(samples.median(kind, Who::Corten)? / samples.median(kind, Who::Floor)?));
    let worst = ratios[0]?.max(ratios[1]?);
    Some((format!("{worst:.2} ×"), worst <= limit))
}

fn at_most(samples: &Samples, kind: Kind, limit: f64) -> Option<(String, bool)> {
    let value = samples.median(kind, Who::Corten)?;
    Some((format!("{} {}", number(value), kind.unit()), value <= limit))
}

fn at_least(samples: &Samples, kind: Kind, limit: f64) -> Option<(String, bool)> {
    let value = samples.median(kind, Who::Corten)?;
    Some((format!("{} {}", number(value), kind.unit()), value >= limit))
}

/// The whole page.
pub fn markdown(plan: &Plan, samples: &Samples) -> String {
    let mut page = String::new();
    let _ = writeln!(
        page,
        "# Benchmarks\n\n\
         Written by `make bench`; every number is a median of samples that were taken in turns, all engines in one \
         run.\nEach engine has a network, mount and process namespace of its own, and a data root on the same disk.\n"
    );
    let _ = writeln!(page, "Machine: {}.", machine());
    let versions: Vec<_> =
        samples.versions.iter().map(|(who, version)| format!("{} {version}", who.name())).collect();
    let _ = writeln!(
        page,
        "Engines: {}. Podman runs with crun, and its API through its service.\n",
        versions.join(", ")
    );
    targets(&mut page, samples);
    table(&mut page, plan, samples);
    page.push_str(NOTES);
    page
}

fn targets(page: &mut String, samples: &Samples) {
    page.push_str("## What was promised\n\n| promise | measured | kept |\n| --- | --- | --- |\n");
    for target in TARGETS {
        let (measured, kept) = match (target.check)(samples) {
            Some((measured, true)) => (measured, "yes"),
            Some((measured, false)) => (measured, "**no**"),
            None => ("not measured".to_owned(), "-"),
        };
        let _ = writeln!(page, "| {} | {measured} | {kept} |", target.text);
    }
    page.push('\n');
}

fn table(page: &mut String, plan: &Plan, samples: &Samples) {
    let who: Vec<_> = samples.who().into_iter().filter(|who| *who != Who::Corten).collect();
    page.push_str(
        "## All measurements\n\nA ratio is Corten's number divided by the other's.\n\n| | unit | Corten |",
    );
    for who in &who {
        let _ = write!(page, " {} | ratio |", who.name());
    }
    page.push_str("\n| --- | --- | ---: |");
    page.push_str(&" ---: | ---: |".repeat(who.len()));
    page.push('\n');
    for kind in Kind::ALL {
        let ours = samples.median(kind, Who::Corten);
        let better = if kind.more_is_better() { ", more is better" } else { "" };
        let _ = write!(page, "| {}{better} | {} | {} |", label(kind, plan), kind.unit(), cell(ours));
        for who in &who {
            let theirs = floor_kind(kind, *who).and_then(|kind| samples.median(kind, *who));
            let ratio =
                ours.zip(theirs).map_or("".to_owned(), |(ours, theirs)| format!("{:.2}", ours / theirs));
            let _ = write!(page, " {} | {ratio} |", cell(theirs));
        }
        page.push('\n');
    }
    page.push('\n');
}

/// The kernel's price has no command line: its rows stand beside both.
fn floor_kind(kind: Kind, who: Who) -> Option<Kind> {
    match (who, kind) {
        (Who::Floor, Kind::CliBridge) => Some(Kind::ApiBridge),
        (Who::Floor, Kind::CliNone) => Some(Kind::ApiNone),
        (Who::Floor, Kind::CliHost) => Some(Kind::ApiHost),
        _ => Some(kind),
    }
}

fn label(kind: Kind, plan: &Plan) -> String {
    let (many, crowd) = (plan.many, plan.crowd);
    match kind {
        Kind::ApiBridge => "create, start, wait, remove (API), bridge".to_owned(),
        Kind::ApiNone => "the same, no network".to_owned(),
        Kind::ApiHost => "the same, host network".to_owned(),
        Kind::CliBridge => "`run --rm busybox true`, bridge".to_owned(),
        Kind::CliNone => "the same, no network".to_owned(),
        Kind::CliHost => "the same, host network".to_owned(),
        Kind::ExecApi => "exec of `true` (API)".to_owned(),
        Kind::ExecCli => "`exec` of `true`".to_owned(),
        Kind::OneByOne => format!("{many} containers started (API), one by one"),
        Kind::EightAtATime => format!("{many} containers started (API), eight at a time"),
        Kind::ApiList => format!("list (API) of {many} running"),
        Kind::CliList => format!("`ps` of {many} running"),
        Kind::BesideFew => "create, start, wait, remove (API) beside 10 running".to_owned(),
        Kind::BesideMany => format!("the same beside {crowd} running"),
        Kind::Restart => format!("daemon's start with {many} stopped"),
        Kind::ListStopped => format!("`ps -a` with {STOPPED} stopped"),
        Kind::RestartStopped => format!("daemon's start with {STOPPED} stopped"),
        Kind::LogWrite => "log written by a container".to_owned(),
        Kind::LogRead => "log read through the API".to_owned(),
        Kind::CopyLargeIn => "`cp` of 200 MB into a container (floor: `cp -a`)".to_owned(),
        Kind::CopyLargeOut => "the same out of it".to_owned(),
        Kind::CopySmallIn => "`cp` of 10,000 small files into a container (floor: `tar | tar`)".to_owned(),
        Kind::CopySmallOut => "the same out of it".to_owned(),
        Kind::LogShipped => "log shipped by the syslog driver (TCP)".to_owned(),
        Kind::DaemonMemory => format!("private memory of the daemon, {many} running"),
        Kind::ShimMemory => "private memory of a container's keeper".to_owned(),
        Kind::ShimShare => "proportional memory of a container's keeper".to_owned(),
        Kind::StatsLoad => format!("the daemon's CPU time while {many} `stats` streams are read"),
        Kind::PullCold => {
            "cold pull of 300 MB in five layers (floor: inflate and hash, two cores)".to_owned()
        }
        Kind::PullUnchanged => "pull of an unchanged tag (API)".to_owned(),
        Kind::PullMemory => "resident memory of the daemon at the peak of the pull".to_owned(),
        Kind::ImageLoad => "load of the same image (floor: inflate and hash, two cores)".to_owned(),
        Kind::ImageSave => "save of it into a file (floor: `cp` and `sync` of the file)".to_owned(),
        Kind::ImagePush => "push of a new layer of 60 MB (floor: gzip, two cores)".to_owned(),
    }
}

const NOTES: &str = "\
## How to read this

- *kernel* is `bench/floor.c`: a static program that does what the kernel has to do for one container and nothing
  else (control groups, clone into the namespaces, overlay, mounts, masks, a veth pair into a bridge with address and
  route, fewer capabilities, `pivot_root`, exec of `true`, wait, removal). No engine can be faster by much.
- Before logs and images are measured, a gigabyte of memory is touched and given back: a virtual machine may have to ask
  its host for each page that a file is written to, which is no engine's doing.
- The command line of Podman is started through `nsenter`, which adds about a millisecond.
- A container's keeper is `corten-shim`, `containerd-shim-runc-v2` or `conmon`. The daemon's number holds its helpers
  too: `dockerd` and `containerd`. Podman has no daemon.
- Logs: lines of 98 bytes, written by `cat` to standard output, to the default driver; and
  shipped, to a receiver on the same host that counts them, by the clock from the container's start to the last line.
- Images: five layers of this machine's own programs, from the distribution registry (Debian's `docker-registry`) on the
  same machine and the same cores. When a pull or a load is done, Corten has the layers' archives and the image's record
  on the disk, from which the unpacked files are made again if the machine stops before they follow; others leave all of
  it to the kernel.
";

/// The machine in a line: nothing that names it.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kib = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<_> = kernel.trim().split('.').take(2).collect();
    let load = read("/proc/loadavg");
    let load = load.split(' ').nth(2).unwrap_or("?").to_owned();
    let groups = if fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false) { "v2" } else { "v1" };
    format!(
        "{cores} cores, {} GB, Linux {}, control groups {groups}, load average of the last quarter of an hour {load}",
        (kib + (1 << 19)) >> 20,
        kernel.join(".")
    )
}

fn cell(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), number)
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}
