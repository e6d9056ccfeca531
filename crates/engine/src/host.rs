//! What the host is and has.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use model::create::limits::Controllers;
use model::spec::DeviceError;
use oci::runtime::{LinuxDevice, LinuxDeviceKind};
use rustix::fs::{major, minor};

/// Kind, major and minor number of a device file.
pub fn device(path: &Path) -> Option<(LinuxDeviceKind, u32, u32)> {
    let metadata = std::fs::metadata(path).ok()?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => LinuxDeviceKind::Char,
        kind if kind.is_block_device() => LinuxDeviceKind::Block,
        _ => return None,
    };
    Some((kind, major(metadata.rdev()), minor(metadata.rdev())))
}

/// The device at a path, as a node to make at that path.
pub fn device_node(path: &Path) -> Result<LinuxDevice, DeviceError> {
    let metadata = std::fs::metadata(path).map_err(|_| DeviceError::Missing)?;
    let (kind, major, minor) = device(path).ok_or(DeviceError::NotADevice)?;
    Ok(LinuxDevice {
        path: path.into(),
        kind,
        major: major.into(),
        minor: minor.into(),
        file_mode: Some(metadata.mode() & 0o7777),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
    })
}

/// The device at a path, or all those of the directory there.
pub fn device_nodes(path: &Path) -> Result<Vec<LinuxDevice>, DeviceError> {
    if !path.is_dir() {
        return device_node(path).map(|node| vec![node]);
    }
    let mut all = Vec::new();
    // The link's target may lie elsewhere; the nodes are named as they were asked for.
    collect(path, 1, &mut all);
    match all.is_empty() {
        true => Err(DeviceError::NotADevice),
        false => Ok(all),
    }
}

/// Every device file below `/dev` but those that each container has of its own.
pub fn all_devices() -> Vec<LinuxDevice> {
    let mut all = Vec::new();
    collect(Path::new("/dev"), 0, &mut all);
    all
}

fn collect(directory: &Path, depth: u32, all: &mut Vec<LinuxDevice>) {
    const OWN: [&str; 9] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "stdin", "stdout", "stderr"];
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else { continue };
        if depth == 0 && OWN.iter().any(|own| name == *own) {
            continue;
        }
        if metadata.is_dir() && depth < 8 {
            collect(&entry.path(), depth + 1, all);
        } else if !metadata.is_symlink() {
            all.extend(device_node(&entry.path()));
        }
    }
}

/// Whether a filesystem keeps quotas of projects: it says so among its options.
pub fn project_quota(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted: Vec<(PathBuf, bool)> = mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let (point, kind, options) = (fields.get(1)?, fields.get(2)?, fields.get(3)?);
            let quota = options.split(',').any(|one| matches!(one, "prjquota" | "pquota"));
            Some((PathBuf::from(point), quota && matches!(*kind, "xfs" | "ext4")))
        })
        .collect();
    // The deepest mount above it; of several on one place the last is on top.
    let above = mounted.iter().filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.components().count()).is_some_and(|(_, quota)| *quota)
}

/// Whether a process is gone, or nobody has asked for its exit status yet.
pub fn has_ended(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The state follows the name, which stands in parentheses and may hold anything.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Whether the unified hierarchy is the only one.
pub fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn first_line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()?.lines().next().map(String::from)
}

/// `PRETTY_NAME` of os-release(5).
pub fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    os_release(&text, "PRETTY_NAME").unwrap_or_else(|| "Linux".into())
}

pub fn os_version() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    os_release(&text, "VERSION_ID").unwrap_or_default()
}

fn os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_string())
}

/// Bytes of memory.
pub fn memory_total() -> u64 {
    let line = first_line("/proc/meminfo").unwrap_or_default();
    let kilobytes = line.split_ascii_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

pub fn ipv4_forwarding() -> bool {
    first_line("/proc/sys/net/ipv4/ip_forward").as_deref() == Some("1")
}

/// What can be limited here.
pub fn controllers() -> Controllers {
    let cgroup_namespace = Path::new("/proc/self/ns/cgroup").exists();
    let found = if cgroup_v2() { controllers_2() } else { controllers_1() };
    Controllers { cgroup_namespace, ..found }
}

/// On v2 a controller's limits come together. None of them is in the root's directory, where nothing is limited.
fn controllers_2() -> Controllers {
    let all = first_line("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name: &str| all.split_ascii_whitespace().any(|one| one == name);
    let list = |file: &str| first_line(&format!("/sys/fs/cgroup/{file}")).unwrap_or_default();
    Controllers {
        memory: has("memory"),
        memory_reservation: has("memory"),
        swap: has("memory") && swap_is_accounted(),
        swappiness: false,
        oom_kill_disable: false,
        pids: has("pids"),
        cpu_shares: has("cpu"),
        cpu_quota: has("cpu"),
        cpu_realtime: false,
        cpuset: has("cpuset"),
        cpus: list("cpuset.cpus.effective"),
        mems: list("cpuset.mems.effective"),
        block_io_weight: has("io"),
        block_io_weight_device: has("io"),
        block_io_throttle: has("io"),
        cgroup_namespace: false,
    }
}

/// Kernels without swap, or told not to count it, have no file for it in any cgroup.
fn swap_is_accounted() -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_end_matches('/');
    // In the root itself nothing can be seen; what nearly all kernels have is taken to be there.
    path.is_empty()
        || Path::new(&format!("/sys/fs/cgroup{path}/memory.swap.max")).exists()
        || !Path::new(&format!("/sys/fs/cgroup{path}/memory.max")).exists()
}

/// On v1 each limit has a file of its own, in the root of its controller's hierarchy.
fn controllers_1() -> Controllers {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let roots = |controller: &str| mount_of(&mounts, controller);
    let has = |controller: &str, file: &str| {
        roots(controller).is_some_and(|root| Path::new(&root).join(file).exists())
    };
    let list = |file: &str| {
        roots("cpuset").and_then(|root| first_line(&format!("{root}/{file}"))).unwrap_or_default()
    };
    // The BFQ scheduler's weights are only in the cgroups below.
    let bfq = has("blkio", "blkio.bfq.io_serviced");
    Controllers {
        memory: has("memory", "memory.limit_in_bytes"),
        memory_reservation: has("memory", "memory.soft_limit_in_bytes"),
        swap: has("memory", "memory.memsw.limit_in_bytes"),
        swappiness: has("memory", "memory.swappiness"),
        oom_kill_disable: has("memory", "memory.oom_control"),
        pids: roots("pids").is_some(),
        cpu_shares: has("cpu", "cpu.shares"),
        cpu_quota: has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime: has("cpu", "cpu.rt_runtime_us"),
        cpuset: roots("cpuset").is_some(),
        cpus: list("cpuset.cpus"),
        mems: list("cpuset.mems"),
        block_io_weight: bfq || has("blkio", "blkio.weight"),
        block_io_weight_device: bfq || has("blkio", "blkio.weight_device"),
        block_io_throttle: has("blkio", "blkio.throttle.read_bps_device"),
        cgroup_namespace: false,
    }
}

/// Where a controller of v1 is mounted.
fn mount_of(mounts: &str, controller: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let options = fields.get(3).filter(|_| fields.get(2) == Some(&"cgroup"))?;
        options.split(',').any(|one| one == controller).then(|| fields[1].to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_by_their_controllers() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n";
        assert_eq!(mount_of(mounts, "cpuacct").as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!((mount_of(mounts, "memory"), mount_of("odd", "cpu")), (None, None));
    }
}
