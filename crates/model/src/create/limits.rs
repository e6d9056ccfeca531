//! Resource limits: ranges, conflicts, and what the host cannot do.

use api_types::container::Resources;

use super::HostFacts;
use crate::Refusal;

const MEMORY_MIN: i64 = 6 << 20;

/// Checks limits and completes them; what the host lacks is taken out with a warning, as Docker does.
pub fn check(limits: &mut Resources, host: &HostFacts, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    memory(limits, host, warnings)?;
    cpu(limits, host)?;
    let refuse = |text: &str| Err(Refusal::invalid(text));
    if limits.blkio_weight != 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    if limits.io_maximum_iops != 0 || limits.io_maximum_bandwidth != 0 {
        return refuse(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
        );
    }
    if limits.cpu_percent != 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".into());
        limits.cpu_percent = 0;
    }
    if limits.pids_limit.is_some_and(|limit| limit > 0) && !host.pids_limit {
        warnings.push(
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."
                .into(),
        );
        limits.pids_limit = None;
    }
    for rule in limits.device_cgroup_rules.iter().flatten() {
        if crate::spec::parse_device_rule(rule).is_none() {
            return Err(Refusal::invalid(format!("invalid device cgroup rule format: '{rule}'")));
        }
    }
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

fn memory(limits: &mut Resources, host: &HostFacts, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::invalid(text));
    let (memory, swap, reservation) = (limits.memory, limits.memory_swap, limits.memory_reservation);
    if memory != 0 && memory < MEMORY_MIN {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if memory > 0 && swap != -1 && swap != 0 && !host.swap_limit {
        warnings.push(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited \
             without swap."
                .into(),
        );
        limits.memory_swap = -1;
    } else if memory > 0 && swap > 0 && swap < memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if memory == 0 && swap > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = limits.memory_swappiness {
        if !(-1..=100).contains(&swappiness) {
            return Err(Refusal::invalid(format!(
                "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
            )));
        }
        if host.cgroup_v2 && swappiness != -1 {
            warnings.push(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory \
                 swappiness discarded."
                    .into(),
            );
            limits.memory_swappiness = None;
        }
    }
    if reservation != 0 && reservation < MEMORY_MIN {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && reservation > memory {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if limits.oom_kill_disable == Some(true) {
        if host.cgroup_v2 {
            warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
            limits.oom_kill_disable = None;
        } else if memory == 0 {
            warnings.push(
                "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
                 running out of resources."
                    .into(),
            );
        }
    }
    // Without a limit of its own, swap may be used as much as memory again.
    if limits.memory > 0 && limits.memory_swap == 0 && host.swap_limit {
        limits.memory_swap = limits.memory.saturating_mul(2);
    }
    Ok(())
}

fn cpu(limits: &Resources, host: &HostFacts) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::invalid(text));
    if limits.nano_cpus != 0 {
        if limits.cpu_period != 0 {
            return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if limits.cpu_quota != 0 {
            return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
        let most = i64::from(host.cpus) * 1_000_000_000;
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
    if limits.cpu_period != 0 && !(1000..=1_000_000).contains(&limits.cpu_period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if limits.cpu_realtime_period != 0 || limits.cpu_realtime_runtime != 0 {
        if limits.cpu_realtime_period != 0 && limits.cpu_realtime_runtime > limits.cpu_realtime_period {
            return refuse("cpu real-time runtime cannot be higher than cpu real-time period");
        }
        return refuse("kernel does not support CPU real-time scheduler");
    }
    cpuset("cpus", "CPUs", &limits.cpuset_cpus, host.cpus)?;
    cpuset("mems", "memory nodes", &limits.cpuset_mems, u32::MAX)
}

/// Checks a list such as `0-2,7`. `count` numbers from zero are available.
fn cpuset(name: &str, what: &str, text: &str, count: u32) -> Result<(), Refusal> {
    if text.is_empty() {
        return Ok(());
    }
    let mut highest = 0;
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u32>(), to.trim().parse::<u32>()) else {
            return Err(Refusal::invalid(format!("Invalid value {text} for cpuset {name}")));
        };
        if from > to || to > 8192 {
            return Err(Refusal::invalid(format!("Invalid value {text} for cpuset {name}")));
        }
        highest = highest.max(to);
    }
    if highest >= count {
        return Err(Refusal::invalid(format!(
            "Requested {what} are not available - requested {text}, available: 0-{}",
            count - 1
        )));
    }
    Ok(())
}
