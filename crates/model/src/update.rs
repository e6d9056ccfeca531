//! Changing limits and restart policy of a container: what is recorded, and what the kernel is told.

use api_types::container::{ContainerUpdate, Resources, ThrottleDevice, WeightDevice};
use oci::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::create::limits::{self, Purpose};
use crate::create::{HostFacts, Record, check_restart};
use crate::spec::DeviceLookup;
use crate::{Kind, Refusal, spec};

/// A decided update.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The container as it will be.
    pub record: Record,
    pub warnings: Vec<String>,
    /// The limits that change, with those that the kernel knows only together with them.
    changes: Resources,
}

/// Decides on an update: what is not named (zero, empty, `null`) stays as it is.
pub fn update(record: &Record, mut request: ContainerUpdate, host: &HostFacts) -> Result<Update, Refusal> {
    let mut warnings = Vec::new();
    check_restart(&request.restart_policy, false)?;
    limits::check(&mut request.resources, host, Purpose::Update, &mut warnings)?;
    let mut record = record.clone();
    let id = record.id.clone();
    let changes = merge(&mut record, request)
        .map_err(|text| Refusal::new(Kind::Conflict, format!("Cannot update container {id}: {text}")))?;
    Ok(Update { record, warnings, changes })
}

/// Puts the request into the record.
fn merge(record: &mut Record, request: ContainerUpdate) -> Result<Resources, &'static str> {
    let host = &mut record.host_config;
    let (asked, own) = (request.resources, &mut host.resources);
    for (hit, text) in [
        (
            asked.nano_cpus > 0 && own.cpu_period > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            asked.nano_cpus > 0 && own.cpu_quota > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            asked.cpu_period > 0 && own.nano_cpus > 0,
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        (
            asked.cpu_quota > 0 && own.nano_cpus > 0,
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            // More than any limit is what no limit allows.
            asked.memory > own.memory_swap && asked.memory_swap == 0 && own.memory_swap != -1,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ),
        (
            host.auto_remove && !matches!(request.restart_policy.name.as_str(), "" | "no"),
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ),
    ] {
        if hit {
            return Err(text);
        }
    }
    let mut changes = Resources::default();
    let set = |asked: i64, own: &mut i64| {
        if asked != 0 {
            *own = asked;
        }
        asked != 0
    };
    let memory = set(asked.memory, &mut own.memory) | set(asked.memory_swap, &mut own.memory_swap);
    if memory {
        (changes.memory, changes.memory_swap) = (own.memory, own.memory_swap);
    }
    let quota = set(asked.nano_cpus, &mut own.nano_cpus)
        | set(asked.cpu_quota, &mut own.cpu_quota)
        | set(asked.cpu_period, &mut own.cpu_period);
    if quota {
        (changes.nano_cpus, changes.cpu_quota, changes.cpu_period) =
            (own.nano_cpus, own.cpu_quota, own.cpu_period);
    }
    for (asked, own, change) in [
        (asked.memory_reservation, &mut own.memory_reservation, &mut changes.memory_reservation),
        (asked.cpu_shares, &mut own.cpu_shares, &mut changes.cpu_shares),
        (asked.cpu_realtime_period, &mut own.cpu_realtime_period, &mut changes.cpu_realtime_period),
        (asked.cpu_realtime_runtime, &mut own.cpu_realtime_runtime, &mut changes.cpu_realtime_runtime),
    ] {
        if set(asked, own) {
            *change = asked;
        }
    }
    for (asked, own, change) in [
        (asked.cpuset_cpus, &mut own.cpuset_cpus, &mut changes.cpuset_cpus),
        (asked.cpuset_mems, &mut own.cpuset_mems, &mut changes.cpuset_mems),
    ] {
        if !asked.is_empty() {
            own.clone_from(&asked);
            *change = asked;
        }
    }
    if asked.blkio_weight != 0 {
        (own.blkio_weight, changes.blkio_weight) = (asked.blkio_weight, asked.blkio_weight);
    }
    if let Some(limit) = asked.pids_limit {
        // Every number that is no limit means none.
        (own.pids_limit, changes.pids_limit) = (Some(limit.max(0)), Some(limit.max(0)));
    }
    let weight = |path: &String| WeightDevice { path: path.clone(), weight: 0 };
    replace(
        asked.blkio_weight_device,
        &mut own.blkio_weight_device,
        &mut changes.blkio_weight_device,
        |one| &one.path,
        weight,
    );
    for (asked, own, change) in [
        (asked.blkio_device_read_bps, &mut own.blkio_device_read_bps, &mut changes.blkio_device_read_bps),
        (asked.blkio_device_write_bps, &mut own.blkio_device_write_bps, &mut changes.blkio_device_write_bps),
        (asked.blkio_device_read_iops, &mut own.blkio_device_read_iops, &mut changes.blkio_device_read_iops),
        (
            asked.blkio_device_write_iops,
            &mut own.blkio_device_write_iops,
            &mut changes.blkio_device_write_iops,
        ),
    ] {
        replace(asked, own, change, |one| &one.path, |path| ThrottleDevice { path: path.clone(), rate: 0 });
    }
    if !request.restart_policy.name.is_empty() {
        host.restart_policy = request.restart_policy;
    }
    Ok(changes)
}

/// Replaces a list of devices; those that are no longer in it are told to the kernel as unlimited.
fn replace<T: Clone>(
    asked: Option<Vec<T>>,
    own: &mut Option<Vec<T>>,
    change: &mut Option<Vec<T>>,
    path: impl Fn(&T) -> &String,
    unlimited: impl Fn(&String) -> T,
) {
    let Some(asked) = asked else { return };
    let gone = own.iter().flatten().filter(|old| !asked.iter().any(|new| path(new) == path(old)));
    *change = Some(gone.map(|old| unlimited(path(old))).chain(asked.iter().cloned()).collect());
    *own = Some(asked);
}

impl Update {
    /// Whether a running container's kernel limits change.
    pub fn has_changes(&self) -> bool {
        self.changes != Resources::default()
    }

    /// What the kernel is told of a running container.
    pub fn resources(&self, device: DeviceLookup<'_>) -> Result<LinuxResources, Refusal> {
        let mut all = spec::resources(&self.changes, device)?;
        if self.changes.pids_limit == Some(0) {
            all.pids = Some(LinuxPids { limit: Some(-1) });
        }
        Ok(all)
    }

    /// What the kernel is told to take the changes back; limits that were not set become what they are without.
    /// A set of processors that was not limited stays, since nobody knows what it was.
    pub fn undo(&self, before: &Record, device: DeviceLookup<'_>) -> Result<LinuxResources, Refusal> {
        let (changes, old) = (&self.changes, &before.host_config.resources);
        let unset = |value: i64, without: i64| Some(if value == 0 { without } else { value });
        let mut all = spec::resources(
            &Resources {
                cpuset_cpus: if changes.cpuset_cpus.is_empty() {
                    String::new()
                } else {
                    old.cpuset_cpus.clone()
                },
                cpuset_mems: if changes.cpuset_mems.is_empty() {
                    String::new()
                } else {
                    old.cpuset_mems.clone()
                },
                blkio_weight: if changes.blkio_weight == 0 { 0 } else { old.blkio_weight },
                ..Resources::default()
            },
            device,
        )?;
        let mut memory = LinuxMemory::default();
        if changes.memory != 0 || changes.memory_swap != 0 {
            (memory.limit, memory.swap) = (unset(old.memory, -1), unset(old.memory_swap, -1));
        }
        if changes.memory_reservation != 0 {
            memory.reservation = unset(old.memory_reservation, -1);
        }
        all.memory = (memory != LinuxMemory::default()).then_some(memory);
        let mut cpu = all.cpu.take().unwrap_or_default();
        if changes.nano_cpus != 0 || changes.cpu_quota != 0 || changes.cpu_period != 0 {
            let (quota, period) = spec::quota(old);
            (cpu.quota, cpu.period) = (quota.or(Some(-1)), period.or(Some(100_000)));
        }
        if changes.cpu_shares != 0 {
            cpu.shares = unset(old.cpu_shares, 1024).and_then(|shares| u64::try_from(shares).ok());
        }
        all.cpu = (cpu != LinuxCpu::default()).then_some(cpu);
        if changes.pids_limit.is_some() {
            let limit = old.pids_limit.filter(|limit| *limit > 0).unwrap_or(-1);
            all.pids = Some(LinuxPids { limit: Some(limit) });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
