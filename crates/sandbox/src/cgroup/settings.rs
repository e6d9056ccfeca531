//! Resources of the spec to files of cgroups and what is written to them: pure.

use std::borrow::Cow;

use oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxDeviceKind, LinuxDeviceRule, LinuxMemory, LinuxResources};

use crate::Error;

/// A value for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The controller that has the file.
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    /// It is no error if the kernel has no such file: what is asked for is what happens without.
    pub optional: bool,
}

struct Settings(Vec<Setting>);

impl Settings {
    fn add(&mut self, controller: &'static str, file: impl Into<String>, value: impl ToString) {
        let (file, value) = (file.into(), value.to_string());
        self.0.push(Setting { controller, file, value, optional: false });
    }

    fn add_optional(&mut self, controller: &'static str, file: &str, value: impl ToString) {
        let (file, value) = (file.into(), value.to_string());
        self.0.push(Setting { controller, file, value, optional: true });
    }
}

/// Devices that every container may use although its rules say nothing of them: kind, numbers, what for.
const DEFAULT_DEVICES: [(LinuxDeviceKind, Option<i64>, Option<i64>, &str); 10] = [
    (LinuxDeviceKind::Char, None, None, "m"),
    (LinuxDeviceKind::Block, None, None, "m"),
    (LinuxDeviceKind::Char, Some(1), Some(3), "rwm"),
    (LinuxDeviceKind::Char, Some(1), Some(5), "rwm"),
    (LinuxDeviceKind::Char, Some(1), Some(7), "rwm"),
    (LinuxDeviceKind::Char, Some(1), Some(8), "rwm"),
    (LinuxDeviceKind::Char, Some(1), Some(9), "rwm"),
    (LinuxDeviceKind::Char, Some(5), Some(0), "rwm"),
    (LinuxDeviceKind::Char, Some(5), Some(2), "rwm"),
    (LinuxDeviceKind::Char, Some(136), None, "rwm"),
];

/// These resources with the rules that the specification leaves to the runtime: those for the devices that it has
/// to supply. Rules that are there already keep their place.
pub(super) fn with_default_devices(resources: &LinuxResources) -> Cow<'_, LinuxResources> {
    if resources.devices.iter().all(|rule| rule.allow) {
        return Cow::Borrowed(resources);
    }
    let missing = DEFAULT_DEVICES.iter().map(|(kind, major, minor, access)| LinuxDeviceRule {
        allow: true,
        kind: *kind,
        major: *major,
        minor: *minor,
        access: (*access).into(),
    });
    let number = |value: Option<i64>| value.filter(|value| *value >= 0);
    let same = |a: &LinuxDeviceRule, b: &LinuxDeviceRule| {
        (a.allow, a.kind, number(a.major), number(a.minor), &a.access)
            == (b.allow, b.kind, number(b.major), number(b.minor), &b.access)
    };
    let missing = missing.filter(|rule| !resources.devices.iter().any(|other| same(rule, other)));
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Cow::Borrowed(resources);
    }
    let mut resources = resources.clone();
    resources.devices.extend(missing);
    Cow::Owned(resources)
}

/// What to write on cgroup v1, in order.
pub(super) fn version1(resources: &LinuxResources) -> Result<Vec<Setting>, Error> {
    let mut settings = Settings(Vec::new());
    if !resources.unified.is_empty() {
        return Err(Error::invalid("unified resources need cgroup v2"));
    }
    if let Some(memory) = &resources.memory {
        memory_1(&mut settings, memory)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu_1(&mut settings, cpu);
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        settings.add("pids", "pids.max", unlimited_if_not_positive(limit));
    }
    if let Some(block_io) = &resources.block_io {
        block_io_1(&mut settings, block_io);
    }
    for limit in &resources.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", safe_name(&limit.page_size)?);
        settings.add("hugetlb", file, limit.limit);
    }
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id.filter(|class| *class != 0) {
            settings.add("net_cls", "net_cls.classid", class);
        }
        for priority in &network.priorities {
            let value = format!("{} {}", priority.name, priority.priority);
            settings.add("net_prio", "net_prio.ifpriomap", value);
        }
    }
    rdma(&mut settings, resources);
    for rule in &resources.devices {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        for line in device_lines(rule) {
            settings.add("devices", file, line);
        }
    }
    Ok(settings.0)
}

fn memory_1(settings: &mut Settings, memory: &LinuxMemory) -> Result<(), Error> {
    // Without a limit on memory there is none on memory and swap.
    let swap = match (memory.limit, memory.swap) {
        (Some(-1), None | Some(0)) => Some(-1),
        (_, swap) => swap,
    };
    if let (Some(limit), Some(swap)) = (memory.limit, swap)
        && limit > 0
        && swap > 0
        && swap < limit
    {
        return Err(Error::invalid("memory+swap limit should be >= memory limit"));
    }
    for (file, value) in [
        ("memory.limit_in_bytes", memory.limit),
        ("memory.memsw.limit_in_bytes", swap),
        ("memory.soft_limit_in_bytes", memory.reservation),
        ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp),
    ] {
        if let Some(value) = value.filter(|value| *value != 0) {
            // No swap accounting in the kernel is the same as no limit.
            if file.contains("memsw") && value == -1 {
                settings.add_optional("memory", file, value);
            } else {
                settings.add("memory", file, value);
            }
        }
    }
    if memory.disable_oom_killer == Some(true) {
        settings.add("memory", "memory.oom_control", 1);
    }
    match memory.swappiness {
        Some(value @ 0..=100) => settings.add("memory", "memory.swappiness", value),
        Some(value) => {
            return Err(Error::invalid(format!("invalid memory swappiness value: {value} (0-100)")));
        }
        None => {}
    }
    Ok(())
}

fn cpu_1(settings: &mut Settings, cpu: &LinuxCpu) {
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        settings.add("cpu", "cpu.shares", shares);
    }
    if let Some(period) = cpu.period.filter(|period| *period != 0) {
        settings.add("cpu", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        settings.add("cpu", "cpu.cfs_quota_us", quota.max(-1));
    }
    if let Some(burst) = cpu.burst {
        settings.add("cpu", "cpu.cfs_burst_us", burst);
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        settings.add("cpu", "cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        settings.add("cpu", "cpu.rt_runtime_us", runtime);
    }
    if let Some(idle) = cpu.idle {
        settings.add("cpu", "cpu.idle", idle);
    }
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            settings.add("cpuset", file, value);
        }
    }
}

fn block_io_1(settings: &mut Settings, block_io: &LinuxBlockIo) {
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        settings.add("blkio", "blkio.weight", weight);
    }
    if let Some(weight) = block_io.leaf_weight.filter(|weight| *weight != 0) {
        settings.add("blkio", "blkio.leaf_weight", weight);
    }
    for device in &block_io.weight_device {
        let (major, minor) = (device.major, device.minor);
        // 0 takes a device's own weight away.
        if let Some(weight) = device.weight {
            settings.add("blkio", "blkio.weight_device", format!("{major}:{minor} {weight}"));
        }
        if let Some(weight) = device.leaf_weight.filter(|weight| *weight != 0) {
            settings.add("blkio", "blkio.leaf_weight_device", format!("{major}:{minor} {weight}"));
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &block_io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &block_io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &block_io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &block_io.throttle_write_iops_device),
    ] {
        for device in devices {
            settings.add("blkio", file, format!("{}:{} {}", device.major, device.minor, device.rate));
        }
    }
}

/// What to write on cgroup v2, in order. Devices are not files there.
pub(super) fn version2(resources: &LinuxResources) -> Result<Vec<Setting>, Error> {
    let mut settings = Settings(Vec::new());
    if let Some(memory) = &resources.memory {
        memory_2(&mut settings, memory)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu_2(&mut settings, cpu)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        settings.add("pids", "pids.max", unlimited_if_not_positive(limit));
    }
    if let Some(block_io) = &resources.block_io {
        block_io_2(&mut settings, block_io);
    }
    for limit in &resources.hugepage_limits {
        let size = safe_name(&limit.page_size)?;
        settings.add("hugetlb", format!("hugetlb.{size}.max"), limit.limit);
        settings.add_optional("hugetlb", &format!("hugetlb.{size}.rsvd.max"), limit.limit);
    }
    if resources.network.as_ref().is_some_and(|network| {
        network.class_id.is_some_and(|class| class != 0) || !network.priorities.is_empty()
    }) {
        return Err(Error::invalid("network classes and priorities need cgroup v1"));
    }
    rdma(&mut settings, resources);
    for (file, value) in &resources.unified {
        let controller = match file.split_once('.').map_or("", |(controller, _)| controller) {
            "cpu" => "cpu",
            "cpuset" => "cpuset",
            "io" => "io",
            "memory" => "memory",
            "hugetlb" => "hugetlb",
            "pids" => "pids",
            "rdma" => "rdma",
            "misc" => "misc",
            // Files of the core are always there.
            "cgroup" => "",
            _ => return Err(Error::invalid(format!("unified resource {file:?} is not a cgroup v2 file"))),
        };
        for line in value.lines() {
            settings.add(controller, safe_name(file)?, line);
        }
    }
    Ok(settings.0)
}

fn memory_2(settings: &mut Settings, memory: &LinuxMemory) -> Result<(), Error> {
    if let Some(limit) = memory.limit.filter(|limit| *limit != 0) {
        settings.add("memory", "memory.max", unlimited_if_not_positive(limit));
    }
    match (memory.swap.unwrap_or(0), memory.limit.unwrap_or(0)) {
        (0, -1) | (-1, _) => settings.add_optional("memory", "memory.swap.max", "max"),
        (0, _) => {}
        (_, limit) if limit <= 0 => {
            return Err(Error::invalid("memory+swap limit needs a memory limit"));
        }
        (swap, limit) if swap < limit => {
            return Err(Error::invalid("memory+swap limit should be >= memory limit"));
        }
        // A kernel without swap accounting: none is what there is.
        (swap, limit) if swap == limit => settings.add_optional("memory", "memory.swap.max", 0),
        (swap, limit) => settings.add("memory", "memory.swap.max", swap - limit),
    }
    if let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
        settings.add("memory", "memory.low", unlimited_if_not_positive(reservation));
    }
    Ok(())
}

fn cpu_2(settings: &mut Settings, cpu: &LinuxCpu) -> Result<(), Error> {
    if cpu.realtime_period.is_some_and(|value| value != 0)
        || cpu.realtime_runtime.is_some_and(|value| value != 0)
    {
        return Err(Error::invalid("realtime processor limits need cgroup v1"));
    }
    let idle = cpu.idle.unwrap_or(0) != 0;
    if let Some(idle) = cpu.idle {
        settings.add("cpu", "cpu.idle", idle);
    }
    // An idle group's weight cannot be set.
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0 && !idle) {
        settings.add("cpu", "cpu.weight", weight_of_shares(shares));
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".into(), |quota| quota.to_string());
        match period {
            Some(period) => settings.add("cpu", "cpu.max", format!("{quota} {period}")),
            None => settings.add("cpu", "cpu.max", quota),
        }
    }
    if let Some(burst) = cpu.burst {
        settings.add("cpu", "cpu.max.burst", burst);
    }
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            settings.add("cpuset", file, value);
        }
    }
    Ok(())
}

fn block_io_2(settings: &mut Settings, block_io: &LinuxBlockIo) {
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        settings.add("io", "io.weight", weight_of_block_io(weight));
    }
    for device in &block_io.weight_device {
        if let Some(weight) = device.weight {
            // 0 takes a device's own weight away.
            let weight = if weight == 0 { "default".into() } else { weight_of_block_io(weight).to_string() };
            settings.add("io", "io.weight", format!("{}:{} {weight}", device.major, device.minor));
        }
    }
    for (key, devices) in [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ] {
        for device in devices {
            let rate = if device.rate == 0 { "max".into() } else { device.rate.to_string() };
            settings.add("io", "io.max", format!("{}:{} {key}={rate}", device.major, device.minor));
        }
    }
}

fn rdma(settings: &mut Settings, resources: &LinuxResources) {
    for (device, limits) in &resources.rdma {
        let mut value = device.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        settings.add("rdma", "rdma.max", value);
    }
}

/// Lines for `devices.allow` and `devices.deny`.
fn device_lines(rule: &LinuxDeviceRule) -> Vec<String> {
    let number = |value: Option<i64>| match value {
        Some(value) if value >= 0 => value.to_string(),
        _ => "*".into(),
    };
    let (major, minor) = (number(rule.major), number(rule.minor));
    let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
    let kinds: &[char] = match rule.kind {
        LinuxDeviceKind::Block => &['b'],
        LinuxDeviceKind::Char | LinuxDeviceKind::Fifo => &['c'],
        // For the kernel `a` is everything, whatever else the line says.
        LinuxDeviceKind::All if (major.as_str(), minor.as_str(), access.len()) == ("*", "*", 3) => &['a'],
        LinuxDeviceKind::All => &['b', 'c'],
    };
    kinds.iter().map(|kind| format!("{kind} {major}:{minor} {access}")).collect()
}

fn unlimited_if_not_positive(value: i64) -> String {
    if value > 0 { value.to_string() } else { "max".into() }
}

/// Shares of v1 (2 to 262144, usually 1024) to a weight of v2 (1 to 10000, usually 100): a curve through both
/// ends and both usual values.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // What is a whole number must not become the next one by the error of the last digit.
            (10f64.powf(exponent) - 1e-6).ceil() as u64
        }
    }
}

/// Weights of v1 (10 to 1000) to those of v2 (1 to 10000).
pub(super) fn weight_of_block_io(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

/// A part of a file's name that came from the spec.
fn safe_name(name: &str) -> Result<&str, Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(Error::invalid(format!("{name:?} is not the name of a resource")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(settings: Result<Vec<Setting>, Error>) -> Vec<String> {
        settings.unwrap().iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_usual_set_of_limits() {
        let usual = resources(
            r#"{"memory": {"limit": 1048576, "swap": 2097152, "reservation": 524288, "disableOOMKiller": true},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1"}, "pids": {"limit": 100},
            "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}]}}"#,
        );
        assert_eq!(
            lines(version1(&usual)),
            [
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=2097152",
                "memory.soft_limit_in_bytes=524288",
                "memory.oom_control=1",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0-1",
                "pids.max=100",
                "blkio.weight=500",
                "blkio.throttle.read_bps_device=8:0 1024",
            ]
        );
        assert_eq!(
            lines(version2(&usual)),
            [
                "memory.max=1048576",
                "memory.swap.max=1048576",
                "memory.low=524288",
                "cpu.weight=100",
                "cpu.max=50000 100000",
                "cpuset.cpus=0-1",
                "pids.max=100",
                "io.weight=4950",
                "io.max=8:0 rbps=1024",
            ]
        );
    }

    #[test]
    fn unlimited_is_said_in_each_versions_words() {
        let unlimited =
            resources(r#"{"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}"#);
        let expected = [
            "memory.limit_in_bytes=-1",
            "memory.memsw.limit_in_bytes=-1",
            "cpu.cfs_quota_us=-1",
            "pids.max=max",
        ];
        assert_eq!(lines(version1(&unlimited)), expected);
        let expected = ["memory.max=max", "memory.swap.max=max", "cpu.max=max", "pids.max=max"];
        assert_eq!(lines(version2(&unlimited)), expected);
        assert_eq!(
            lines(version2(&resources(r#"{"memory": {"limit": 5, "swap": 5}}"#)))[1],
            "memory.swap.max=0"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(version2(&resources(r#"{"memory": {"limit": 5, "swap": 4}}"#)).is_err());
        assert!(version1(&resources(r#"{"memory": {"limit": 5, "swap": 4}}"#)).is_err());
        assert!(version2(&resources(r#"{"memory": {"swap": 4}}"#)).is_err());
        assert!(version2(&resources(r#"{"unified": {"../memory.max": "1"}}"#)).is_err());
        assert!(version2(&resources(r#"{"unified": {"memory./../../x": "1"}}"#)).is_err());
        assert!(version1(&resources(r#"{"unified": {"memory.high": "1"}}"#)).is_err());
        assert!(version1(&resources(r#"{"memory": {"swappiness": 101}}"#)).is_err());
    }

    #[test]
    fn device_rules_become_lines() {
        let rules = resources(
            r#"{"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3,
            "access": "rw"}, {"allow": true, "type": "a", "major": 7}, {"allow": true, "type": "b", "access": "m"}]}"#,
        );
        let expected = [
            "devices.deny=a *:* rwm",
            "devices.allow=c 1:3 rw",
            "devices.allow=b 7:* rwm",
            "devices.allow=c 7:* rwm",
            "devices.allow=b *:* m",
        ];
        assert_eq!(lines(version1(&rules)), expected);
    }

    #[test]
    fn default_devices_are_allowed_behind_a_denial() {
        let rules = resources(
            r#"{"devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": true, "type": "c", "major": -1, "minor": -1, "access": "m"}]}"#,
        );
        assert_eq!(with_default_devices(&rules).devices.len(), 3 + 8);
        let privileged = resources(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#);
        assert_eq!(with_default_devices(&privileged).devices.len(), 1);
    }

    proptest! {
        #[test]
        fn weights_stay_in_range_and_order(a in 0u64..300_000, b in 0u64..300_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!((1..=10_000).contains(&weight_of_shares(low)));
            prop_assert!(weight_of_shares(low) <= weight_of_shares(high));
        }

        #[test]
        fn block_io_weights_stay_in_range(weight in any::<u16>()) {
            prop_assert!((1..=10_000).contains(&weight_of_block_io(weight)));
        }
    }
}
