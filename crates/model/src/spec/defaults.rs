//! What every container has: mounts, masks and devices, as Docker sets them.

use api_types::container::HostConfig;
use oci::runtime::{LinuxDeviceKind, LinuxDeviceRule, Mount};

pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Hidden in containers that are not privileged.
pub const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
];

/// Read-only in containers that are not privileged.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// In the order in which they are mounted.
pub fn mounts(host: &HostConfig) -> Vec<Mount> {
    let access = if host.privileged { "rw" } else { "ro" };
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", access]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    match host.ipc_mode.as_str() {
        "none" => {}
        "host" => all.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])),
        // The source is the other container's, which the shim opens there.
        mode if mode.starts_with("container:") => {
            all.push(mount("/dev/shm", "bind", "/dev/shm", &["bind", "rprivate"]));
        }
        _ => {
            let size = format!("size={}", host.shm_size);
            all.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
        }
    }
    all
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: Some(source.into()),
        options: options.iter().map(|option| option.to_string()).collect(),
        ..Mount::default()
    }
}

/// Everything is denied, then: nodes may be made, and the harmless devices used.
pub fn device_rules() -> Vec<LinuxDeviceRule> {
    let rule = |allow, kind, major, minor, access: &str| LinuxDeviceRule {
        allow,
        kind,
        major,
        minor,
        access: access.into(),
    };
    let used = |major, minor| rule(true, LinuxDeviceKind::Char, Some(major), minor, "rwm");
    vec![
        rule(false, LinuxDeviceKind::All, None, None, "rwm"),
        rule(true, LinuxDeviceKind::Char, None, None, "m"),
        rule(true, LinuxDeviceKind::Block, None, None, "m"),
        used(1, Some(3)), // null
        used(1, Some(5)), // zero
        used(1, Some(7)), // full
        used(1, Some(8)), // random
        used(1, Some(9)), // urandom
        used(5, Some(0)), // tty
        used(5, Some(1)), // console
        used(5, Some(2)), // ptmx
        used(136, None),  // pseudo-terminals
    ]
}
