//! Resource limits: ranges, conflicts, and what the host cannot do.

use api_types::container::Resources;

use super::HostFacts;
use crate::Refusal;

const MEMORY_MIN: i64 = 6 << 20;

/// What the kernel's controllers can limit here; found out once at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controllers {
    pub memory: bool,
    pub memory_reservation: bool,
    /// Swap accounting of the memory controller.
    pub swap: bool,
    pub swappiness: bool,
    pub oom_kill_disable: bool,
    pub pids: bool,
    pub cpu_shares: bool,
    /// Quota and period.
    pub cpu_quota: bool,
    pub cpu_realtime: bool,
    pub cpuset: bool,
    /// The processors that may be asked for, as a list: `0-3`.
    pub cpus: String,
    /// The memory nodes that may be asked for.
    pub mems: String,
    pub block_io_weight: bool,
    pub block_io_weight_device: bool,
    pub block_io_throttle: bool,
    pub cgroup_namespace: bool,
}

/// What limits are checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Create,
    /// What is not named stays as it is.
    Update,
}

/// Checks limits and completes them; what the host lacks is taken out with a warning, as Docker does.
pub fn check(
    limits: &mut Resources,
    host: &HostFacts,
    purpose: Purpose,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    memory(limits, host, purpose, warnings)?;
    oom_and_pids(limits, &host.controllers, warnings);
    cpu(limits, host, warnings)?;
    cpusets(limits, &host.controllers, warnings)?;
    block_io(limits, &host.controllers, warnings)?;
    for rule in limits.device_cgroup_rules.iter().flatten() {
        if crate::spec::parse_device_rule(rule).is_none() {
            return Err(Refusal::invalid(format!("invalid device cgroup rule format: '{rule}'")));
        }
    }
    ulimits(limits)
}

fn ulimits(limits: &Resources) -> Result<(), Refusal> {
    for ulimit in limits.ulimits.iter().flatten() {
        if crate::spec::rlimit_kind(&ulimit.name).is_none() {
            return Err(Refusal::invalid(format!("invalid ulimit type: {}", ulimit.name)));
        }
        if ulimit.hard != -1 && (ulimit.soft > ulimit.hard || ulimit.soft == -1) {
            return Err(Refusal::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                ulimit.soft, ulimit.hard
            )));
        }
    }
    Ok(())
}

/// The words in which Docker says what it leaves out.
fn lacks(what: &str, discarded: &str) -> String {
    format!("Your kernel does not support {what} or the cgroup is not mounted. {discarded}")
}

fn memory(
    limits: &mut Resources,
    host: &HostFacts,
    purpose: Purpose,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::invalid(text));
    let can = &host.controllers;
    if limits.memory != 0 && limits.memory < MEMORY_MIN {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if limits.memory > 0 && !can.memory {
        warnings.push(lacks("memory limit capabilities", "Limitation discarded."));
        (limits.memory, limits.memory_swap) = (0, -1);
    }
    if limits.memory > 0 && limits.memory_swap != -1 && !can.swap {
        warnings.push(lacks("swap limit capabilities", "Memory limited without swap."));
        limits.memory_swap = -1;
    }
    let (memory, swap) = (limits.memory, limits.memory_swap);
    if memory > 0 && swap > 0 && swap < memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if memory == 0 && swap > 0 && purpose == Purpose::Create {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    // The command line's way to say nothing.
    limits.memory_swappiness = limits.memory_swappiness.filter(|swappiness| *swappiness != -1);
    if limits.memory_swappiness.is_some() && !can.swappiness {
        warnings.push(lacks("memory swappiness capabilities", "Memory swappiness discarded."));
        limits.memory_swappiness = None;
    }
    if let Some(swappiness) = limits.memory_swappiness.filter(|value| !(0..=100).contains(value)) {
        return Err(Refusal::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if limits.memory_reservation > 0 && !can.memory_reservation {
        warnings.push(lacks("memory soft limit capabilities", "Limitation discarded."));
        limits.memory_reservation = 0;
    }
    if limits.memory_reservation != 0 && limits.memory_reservation < MEMORY_MIN {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && limits.memory_reservation > memory {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    // Without a limit of its own, swap may be used as much as memory again.
    if purpose == Purpose::Create && limits.memory > 0 && limits.memory_swap == 0 {
        limits.memory_swap = limits.memory.saturating_mul(2);
    }
    Ok(())
}

fn oom_and_pids(limits: &mut Resources, can: &Controllers, warnings: &mut Vec<String>) {
    if !can.oom_kill_disable {
        // Who leaves the killer on misses nothing.
        if limits.oom_kill_disable == Some(true) {
            warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
        }
        limits.oom_kill_disable = None;
    }
    if limits.oom_kill_disable == Some(true) && limits.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources."
                .into(),
        );
    }
    if !can.pids {
        if limits.pids_limit.is_some_and(|limit| limit > 0) {
            warnings.push(lacks("PIDs limit capabilities", "PIDs limit discarded."));
        }
        limits.pids_limit = None;
    }
}

fn cpu(limits: &mut Resources, host: &HostFacts, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::invalid(text));
    let can = &host.controllers;
    if limits.nano_cpus != 0 {
        if limits.cpu_period != 0 {
            return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if limits.cpu_quota != 0 {
            return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
        if limits.nano_cpus > 0 && !can.cpu_quota {
            return refuse(
                "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
            );
        }
        let most = i64::from(host.cpus) * 1_000_000_000;
        // Less than this is no whole number of microseconds that the kernel takes.
        if limits.nano_cpus < 10_000_000 || limits.nano_cpus > most {
            return Err(Refusal::invalid(format!(
                "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
                host.cpus
            )));
        }
    }
    if limits.cpu_shares < 0 {
        return Err(Refusal::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            limits.cpu_shares
        )));
    }
    if limits.cpu_shares > 0 && !can.cpu_shares {
        warnings.push(lacks("CPU shares", "Shares discarded."));
        limits.cpu_shares = 0;
    }
    if (limits.cpu_period != 0 || limits.cpu_quota != 0) && !can.cpu_quota {
        warnings.push("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.".into());
        (limits.cpu_period, limits.cpu_quota) = (0, 0);
    }
    if limits.cpu_period != 0 && !(1000..=1_000_000).contains(&limits.cpu_period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if limits.cpu_percent != 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".into());
        limits.cpu_percent = 0;
    }
    if limits.cpu_count != 0 {
        warnings.push("linux does not support CPU count. Count discarded.".into());
        limits.cpu_count = 0;
    }
    if limits.cpu_realtime_period != 0 || limits.cpu_realtime_runtime != 0 {
        if !can.cpu_realtime {
            return refuse("kernel does not support CPU real-time scheduler");
        }
        if limits.cpu_realtime_period != 0 && limits.cpu_realtime_runtime > limits.cpu_realtime_period {
            return refuse("cpu real-time runtime cannot be higher than cpu real-time period");
        }
    }
    Ok(())
}

fn cpusets(limits: &mut Resources, can: &Controllers, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let asked = !limits.cpuset_cpus.is_empty() || !limits.cpuset_mems.is_empty();
    if asked && !can.cpuset {
        warnings.push(lacks("cpuset", "Cpuset discarded."));
        limits.cpuset_cpus.clear();
        limits.cpuset_mems.clear();
    }
    for (name, what, text, available) in [
        ("cpus", "CPUs", &limits.cpuset_cpus, &can.cpus),
        ("mems", "memory nodes", &limits.cpuset_mems, &can.mems),
    ] {
        let Some(asked) = ranges(text) else {
            return Err(Refusal::invalid(format!("Invalid value {text} for cpuset {name}")));
        };
        // A list of the host's that cannot be read allows everything: the kernel has the last word.
        let Some(there) = ranges(available).filter(|there| !there.is_empty()) else { continue };
        let is_there = |number: u32| there.iter().any(|(from, to)| (*from..=*to).contains(&number));
        if !asked.iter().all(|(from, to)| (*from..=*to).all(is_there)) {
            return Err(Refusal::invalid(format!(
                "Requested {what} are not available - requested {text}, available: {available}"
            )));
        }
    }
    Ok(())
}

/// Reads a list such as `0-2,7`.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    /// The highest number that anybody has, so that no list makes much work.
    const HIGHEST: u32 = 8192;
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.trim().parse::<u32>().ok()?, to.trim().parse::<u32>().ok()?);
        (from <= to && to <= HIGHEST).then_some((from, to))
    };
    text.split(',').map(range).collect()
}

fn block_io(limits: &mut Resources, can: &Controllers, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::invalid(text));
    if limits.blkio_weight > 0 && !can.block_io_weight {
        warnings.push(lacks("Block I/O weight", "Weight discarded."));
        limits.blkio_weight = 0;
    }
    if limits.blkio_weight != 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    if limits.io_maximum_iops != 0 || limits.io_maximum_bandwidth != 0 {
        return refuse(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
        );
    }
    if limits.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty()) && !can.block_io_weight_device
    {
        warnings.push(lacks("Block I/O weight_device", "Weight-device discarded."));
        limits.blkio_weight_device = None;
    }
    if let Some(bad) = limits
        .blkio_weight_device
        .iter()
        .flatten()
        .find(|device| device.weight != 0 && !(10..=1000).contains(&device.weight))
    {
        return Err(Refusal::invalid(format!(
            "Range of blkio weight is from 10 to 1000 (device {})",
            bad.path
        )));
    }
    if can.block_io_throttle {
        return Ok(());
    }
    for (list, what, discarded) in [
        (
            &mut limits.blkio_device_read_bps,
            "BPS Block I/O read limit",
            "Block I/O BPS read limit discarded.",
        ),
        (
            &mut limits.blkio_device_write_bps,
            "BPS Block I/O write limit",
            "Block I/O BPS write limit discarded.",
        ),
        (&mut limits.blkio_device_read_iops, "IOPS Block read limit", "Block I/O IOPS read limit discarded."),
        (
            &mut limits.blkio_device_write_iops,
            "IOPS Block write limit",
            "Block I/O IOPS write limit discarded.",
        ),
    ] {
        if list.as_ref().is_some_and(|list| !list.is_empty()) {
            warnings.push(lacks(what, discarded));
            *list = None;
        }
    }
    Ok(())
}
