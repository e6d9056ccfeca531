//! A container's record to the OCI runtime spec that its shim is given.

mod defaults;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api_types::container::{DeviceMapping, Resources};
use api_types::exec::ExecCreate;
use oci::runtime::*;

use crate::create::{NetworkChoice, Record};
use crate::mounts::{ContainerMount, Source};
use crate::remap::Remap;
use crate::security::Options;
use crate::{Refusal, capabilities};

pub use defaults::{MASKED_PATHS, READONLY_PATHS};

/// Where a container sees the host's init.
const INIT_PATH: &str = "/sbin/docker-init";
/// Where shared memory is mounted.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// Finds kind, major and minor number of a device of the host.
pub type DeviceLookup<'a> = &'a dyn Fn(&Path) -> Option<(LinuxDeviceKind, u32, u32)>;

/// Where the content of a volume or an image is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory of the host. `recursive`: with what is mounted below it.
    Directory { path: PathBuf, recursive: bool, read_only: bool },
    /// Directories to be put over each other, topmost first.
    Layers(Vec<PathBuf>),
}

/// What is known only when a container is started.
pub struct StartFacts<'a> {
    /// Below the root of each cgroup hierarchy.
    pub cgroup_path: String,
    /// `/proc/<pid>/ns/net` of the container whose network is shared.
    pub join_network: Option<PathBuf>,
    pub join_pid: Option<PathBuf>,
    pub join_ipc: Option<PathBuf>,
    /// The host's file of the init that stands before the program; none if Corten's own does, or none at all.
    pub init_path: Option<&'a Path>,
    pub resolv_conf: Option<&'a Path>,
    pub hostname: Option<&'a Path>,
    pub hosts: Option<&'a Path>,
    pub device: DeviceLookup<'a>,
    /// The device at a path of the host, or all those of a directory, as nodes at their places there.
    pub device_nodes: &'a dyn Fn(&Path) -> Result<Vec<LinuxDevice>, DeviceError>,
    /// All devices of the host, for privileged containers.
    pub all_devices: &'a dyn Fn() -> Vec<LinuxDevice>,
    /// Where volumes and images are found, by the destinations of their mounts.
    pub places: &'a BTreeMap<PathBuf, Place>,
    /// The users of the container's own namespace.
    pub remap: Option<&'a Remap>,
    /// `/proc/<pid>/ns/user` of the container that it shares a namespace with.
    pub join_user: Option<PathBuf>,
    /// What lies below it belongs to containers, and is shown to them with the owners that it has on disk.
    pub data_root: &'a Path,
    /// Variables of linked containers, which any of its own replaces.
    pub linked: &'a [String],
}

/// Why a path of the host is no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceError {
    Missing,
    NotADevice,
}

/// Builds the spec. Seccomp is not in it: the filter travels compiled.
pub fn runtime_spec(record: &Record, facts: &StartFacts<'_>) -> Result<Spec, Refusal> {
    let host = &record.host_config;
    let (devices, rules) = devices(record, facts)?;
    let own_network = matches!(record.network, NetworkChoice::Bridge(_) | NetworkChoice::None);
    let security = Options::parse(host)?;
    let unconfined_paths = host.privileged || security.all_paths;
    let paths = |given: &Option<Vec<String>>, defaults: &[&str]| match given {
        Some(list) => list.iter().map(PathBuf::from).collect(),
        None if unconfined_paths => Vec::new(),
        None => defaults.iter().map(PathBuf::from).collect(),
    };
    let mut sysctl: std::collections::BTreeMap<String, String> = Default::default();
    if own_network {
        sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        let last = facts.remap.map_or(i32::MAX as u32, Remap::last_gid);
        sysctl.insert("net.ipv4.ping_group_range".into(), format!("0 {last}"));
    }
    sysctl.extend(host.sysctls.iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    let linux = Linux {
        sysctl,
        resources: Some(LinuxResources { devices: rules, ..resources(&host.resources, facts.device)? }),
        cgroups_path: facts.cgroup_path.clone(),
        namespaces: namespaces(record, facts),
        devices,
        rootfs_propagation: rootfs_propagation(&record.mounts),
        uid_mappings: facts.remap.map(|remap| remap.uids.clone()).unwrap_or_default(),
        gid_mappings: facts.remap.map(|remap| remap.gids.clone()).unwrap_or_default(),
        mount_label: record.labels.mount.clone(),
        masked_paths: paths(&host.masked_paths, &MASKED_PATHS),
        readonly_paths: paths(&host.readonly_paths, &READONLY_PATHS),
        ..Linux::default()
    };
    let mut process = first_process(record, facts.linked)?;
    if facts.init_path.is_some() {
        process.args.splice(0..0, [INIT_PATH.into(), "--".into()]);
    }
    Ok(Spec {
        oci_version: OCI_VERSION.into(),
        process: Some(process),
        root: Some(Root { path: PathBuf::from("/"), readonly: host.readonly_rootfs }),
        hostname: if host.uts_mode == "host" { String::new() } else { record.config.hostname.clone() },
        domainname: record.config.domainname.clone(),
        mounts: mounts(record, facts, security.writable_cgroups == Some(true)),
        annotations: host.annotations.clone().unwrap_or_default(),
        linux: Some(linux),
        ..Spec::default()
    })
}

fn first_process(record: &Record, linked: &[String]) -> Result<Process, Refusal> {
    let (config, host) = (&record.config, &record.host_config);
    let granted = granted(record)?;
    let [rows, columns] = host.console_size;
    Ok(Process {
        terminal: config.tty,
        console_size: (rows > 0 && columns > 0).then_some(ConsoleSize { height: rows, width: columns }),
        user: User {
            username: config.user.clone(),
            additional_groups: host.group_add.clone().unwrap_or_default(),
            ..User::default()
        },
        args: record.command(),
        env: environment(record, config.tty, linked),
        cwd: if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() },
        capabilities: Some(sets(granted)),
        rlimits: rlimits(&host.resources),
        no_new_privileges: Options::parse(host)?.no_new_privileges.unwrap_or(record.no_new_privileges),
        apparmor_profile: record.labels.apparmor.clone(),
        selinux_label: record.labels.process.clone(),
        oom_score_adj: (host.oom_score_adj != 0).then_some(host.oom_score_adj as i32),
        ..Process::default()
    })
}

/// The process of an exec: the container's own, with what the request says; `linked`: as in [`StartFacts`].
pub fn exec_process(record: &Record, request: &ExecCreate, linked: &[String]) -> Result<Process, Refusal> {
    let mut process = first_process(record, linked)?;
    process.terminal = request.tty;
    process.console_size = request
        .console_size
        .filter(|[rows, columns]| *rows > 0 && *columns > 0)
        .map(|[rows, columns]| ConsoleSize { height: rows, width: columns });
    process.args = request.cmd.clone();
    if !request.user.is_empty() {
        process.user.username = request.user.clone();
    }
    if !request.working_dir.is_empty() {
        process.cwd = request.working_dir.clone();
    }
    if request.privileged {
        process.capabilities = Some(sets(CapabilitySet::ALL));
    }
    process.env = environment(record, request.tty, linked);
    for variable in request.env.iter().flatten() {
        set_variable(&mut process.env, variable);
    }
    Ok(process)
}

/// The capabilities that a container's processes have.
pub fn granted(record: &Record) -> Result<CapabilitySet, Refusal> {
    let host = &record.host_config;
    let list = |names: &Option<Vec<String>>| names.clone().unwrap_or_default();
    capabilities::granted(host.privileged, &list(&host.cap_add), &list(&host.cap_drop))
}

/// Not inheritable and not ambient: what a program has is what its file grants (CVE-2022-24769).
fn sets(granted: CapabilitySet) -> LinuxCapabilities {
    LinuxCapabilities {
        bounding: granted,
        effective: granted,
        permitted: granted,
        ..LinuxCapabilities::default()
    }
}

fn environment(record: &Record, terminal: bool, linked: &[String]) -> Vec<String> {
    let mut all = vec![defaults::PATH.to_string()];
    if !record.config.hostname.is_empty() {
        all.push(format!("HOSTNAME={}", record.config.hostname));
    }
    if terminal {
        all.push("TERM=xterm".into());
    }
    all.extend_from_slice(linked);
    for variable in record.config.env.iter().flatten() {
        set_variable(&mut all, variable);
    }
    all
}

/// Replaces the variable of the same name, or adds it; `NAME` without a value removes it.
fn set_variable(all: &mut Vec<String>, variable: &str) {
    let Some((name, _)) = variable.split_once('=') else {
        all.retain(|one| one.split_once('=').is_none_or(|(other, _)| other != variable));
        return;
    };
    let same = |one: &&mut String| one.split_once('=').is_some_and(|(other, _)| other == name);
    match all.iter_mut().find(same) {
        Some(place) => *place = variable.into(),
        None => all.push(variable.into()),
    }
}

fn rlimits(resources: &Resources) -> Vec<PosixRlimit> {
    let unlimited = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let limits = resources.ulimits.iter().flatten();
    limits
        .filter_map(|limit| {
            let kind = rlimit_kind(&limit.name)?;
            Some(PosixRlimit { kind, hard: unlimited(limit.hard), soft: unlimited(limit.soft) })
        })
        .collect()
}

/// A limit by the name that `--ulimit` takes.
pub fn rlimit_kind(name: &str) -> Option<RlimitKind> {
    Some(match name {
        "as" => RlimitKind::As,
        "core" => RlimitKind::Core,
        "cpu" => RlimitKind::Cpu,
        "data" => RlimitKind::Data,
        "fsize" => RlimitKind::Fsize,
        "locks" => RlimitKind::Locks,
        "memlock" => RlimitKind::Memlock,
        "msgqueue" => RlimitKind::Msgqueue,
        "nice" => RlimitKind::Nice,
        "nofile" => RlimitKind::Nofile,
        "nproc" => RlimitKind::Nproc,
        "rss" => RlimitKind::Rss,
        "rtprio" => RlimitKind::Rtprio,
        "rttime" => RlimitKind::Rttime,
        "sigpending" => RlimitKind::Sigpending,
        "stack" => RlimitKind::Stack,
        _ => return None,
    })
}

fn namespaces(record: &Record, facts: &StartFacts<'_>) -> Vec<LinuxNamespace> {
    let host = &record.host_config;
    let new = |kind| LinuxNamespace { kind, path: None };
    let mut all = vec![new(LinuxNamespaceKind::Mount)];
    if facts.remap.is_some() {
        all.push(LinuxNamespace { kind: LinuxNamespaceKind::User, path: facts.join_user.clone() });
    }
    match &record.network {
        NetworkChoice::Host => {}
        NetworkChoice::Container(_) => {
            all.push(LinuxNamespace { kind: LinuxNamespaceKind::Network, path: facts.join_network.clone() });
        }
        NetworkChoice::None | NetworkChoice::Bridge(_) => all.push(new(LinuxNamespaceKind::Network)),
    }
    if host.uts_mode != "host" {
        all.push(new(LinuxNamespaceKind::Uts));
    }
    match host.pid_mode.as_str() {
        "host" => {}
        mode if mode.starts_with("container:") => {
            all.push(LinuxNamespace { kind: LinuxNamespaceKind::Pid, path: facts.join_pid.clone() });
        }
        _ => all.push(new(LinuxNamespaceKind::Pid)),
    }
    match host.ipc_mode.as_str() {
        "host" => {}
        mode if mode.starts_with("container:") => {
            all.push(LinuxNamespace { kind: LinuxNamespaceKind::Ipc, path: facts.join_ipc.clone() });
        }
        _ => all.push(new(LinuxNamespaceKind::Ipc)),
    }
    if host.cgroupns_mode == "private" {
        all.push(new(LinuxNamespaceKind::Cgroup));
    }
    all
}

/// The root must propagate at least as far as its widest mount.
fn rootfs_propagation(mounts: &[ContainerMount]) -> String {
    let propagations = mounts.iter().filter_map(|mount| match &mount.source {
        Source::Bind { propagation, .. } => Some(propagation.as_str()),
        Source::Tmpfs { .. } | Source::Volume { .. } | Source::Image { .. } => None,
    });
    let widest = propagations.fold("", |widest, one| match one {
        // Not those below: other mounts keep what they were given.
        "shared" | "rshared" => "shared",
        "slave" | "rslave" if widest.is_empty() => "rslave",
        _ => widest,
    });
    widest.into()
}

fn mounts(record: &Record, facts: &StartFacts<'_>, writable_cgroups: bool) -> Vec<Mount> {
    let host = &record.host_config;
    let mut all = defaults::mounts(host);
    for mount in all.iter_mut().filter(|mount| writable_cgroups && mount.kind == "cgroup") {
        mount.options.retain(|option| option != "ro");
    }
    let own = |path: &Path| record.mounts.iter().any(|mount| mount.destination == path);
    all.retain(|mount| !own(&mount.destination));
    for (source, destination) in [
        (facts.resolv_conf, "/etc/resolv.conf"),
        (facts.hostname, "/etc/hostname"),
        (facts.hosts, "/etc/hosts"),
    ] {
        let Some(source) = source else { continue };
        if own(Path::new(destination)) {
            continue;
        }
        let mut options = vec!["rbind".to_string(), "rprivate".into()];
        if host.readonly_rootfs {
            options.push("ro".into());
        }
        all.push(Mount {
            destination: destination.into(),
            kind: "bind".into(),
            source: Some(source.into()),
            options,
            ..Mount::default()
        });
    }
    if let Some(init) = facts.init_path {
        all.push(Mount {
            destination: INIT_PATH.into(),
            kind: "bind".into(),
            source: Some(init.into()),
            options: vec!["bind".into(), "ro".into()],
            ..Mount::default()
        });
    }
    let mut given: Vec<&ContainerMount> = record.mounts.iter().collect();
    given.sort_by_key(|mount| mount.destination.components().count());
    all.extend(given.into_iter().filter_map(|mount| user_mount(mount, facts.places)));
    if facts.remap.is_some() {
        all.iter_mut().for_each(|mount| keep_owners(mount, facts.data_root));
    }
    all
}

/// Files that the engine keeps for containers belong to the same users in each of them, whatever users of the host
/// stand for these: their mounts are mapped.
fn keep_owners(mount: &mut Mount, data_root: &Path) {
    let kept = mount.source.as_deref().is_some_and(|source| source.starts_with(data_root));
    if kept && mount.kind == "bind" {
        mount.options.push("idmap".into());
    }
}

/// A place of the host that a volume's or an image's mount shows.
fn placed(mount: &ContainerMount, place: &Place, subpath: &str) -> (&'static str, PathBuf, Vec<String>) {
    let (kind, path, mut options) = match place {
        Place::Layers(layers) => {
            let mut options = vec!["ro".to_string()];
            options.extend(layers.iter().map(|layer| format!("lowerdir+={}", layer.display())));
            ("overlay", PathBuf::from("overlay"), options)
        }
        Place::Directory { path, recursive, read_only } => {
            let bind = if *recursive { "rbind" } else { "bind" };
            let mut options = vec![bind.to_string(), "rprivate".into()];
            if mount.read_only || *read_only {
                options.push(if *recursive { "rro" } else { "ro" }.into());
            }
            ("bind", path.clone(), options)
        }
    };
    if !subpath.is_empty() {
        options.push(format!("{SUBPATH}{subpath}"));
    }
    (kind, path, options)
}

/// The runtime's own option: mount only what is at this place below the source, found by descriptor.
const SUBPATH: &str = "x-subpath=";

fn user_mount(mount: &ContainerMount, places: &BTreeMap<PathBuf, Place>) -> Option<Mount> {
    let (kind, source, mut options) = match &mount.source {
        Source::Bind { path, propagation, recursive, read_only_recursive, .. } => {
            let bind = if *recursive { "rbind" } else { "bind" };
            let mut options = vec![bind.to_string(), propagation.clone()];
            if mount.read_only {
                options.push(if *recursive && *read_only_recursive { "rro" } else { "ro" }.into());
            }
            ("bind", path.clone(), options)
        }
        Source::Tmpfs { options } => {
            let mut all: Vec<String> = ["noexec", "nosuid", "nodev"].map(String::from).to_vec();
            // The words that take a default back stand in its place.
            for option in options {
                all.retain(|one| one.strip_prefix("no") != Some(option));
                all.push(option.clone());
            }
            if mount.read_only {
                all.push("ro".into());
            }
            ("tmpfs", PathBuf::from("tmpfs"), all)
        }
        Source::Volume { subpath, .. } | Source::Image { subpath, .. } => {
            placed(mount, places.get(&mount.destination)?, subpath)
        }
    };
    options.retain(|option| !option.is_empty());
    Some(Mount {
        destination: mount.destination.clone(),
        kind: kind.into(),
        source: Some(source),
        options,
        ..Mount::default()
    })
}

fn devices(
    record: &Record,
    facts: &StartFacts<'_>,
) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceRule>), Refusal> {
    let host = &record.host_config;
    if host.privileged {
        let all = LinuxDeviceRule { allow: true, access: "rwm".into(), ..LinuxDeviceRule::default() };
        let mut nodes = (facts.all_devices)();
        for device in host.resources.devices.iter().flatten() {
            // Those that are to stand in another place than on the host.
            let mapped = mapped_devices(device, facts)?;
            nodes.extend(mapped.into_iter().filter(|node| node.path != Path::new(&device.path_on_host)));
        }
        return Ok((nodes, vec![all]));
    }
    let mut nodes = Vec::new();
    let mut rules = defaults::device_rules();
    for device in host.resources.devices.iter().flatten() {
        let access = if device.cgroup_permissions.is_empty() { "rwm" } else { &device.cgroup_permissions };
        for node in mapped_devices(device, facts)? {
            rules.push(LinuxDeviceRule {
                allow: true,
                kind: node.kind,
                major: Some(node.major),
                minor: Some(node.minor),
                access: access.into(),
            });
            nodes.push(node);
        }
    }
    rules.extend(
        host.resources.device_cgroup_rules.iter().flatten().filter_map(|rule| parse_device_rule(rule)),
    );
    Ok((nodes, rules))
}

/// The nodes of a `--device`: one, or those of a directory.
fn mapped_devices(device: &DeviceMapping, facts: &StartFacts<'_>) -> Result<Vec<LinuxDevice>, Refusal> {
    let source = &device.path_on_host;
    let mut nodes = (facts.device_nodes)(Path::new(source)).map_err(|error| {
        let cause = match error {
            DeviceError::Missing => "no such file or directory",
            DeviceError::NotADevice => "not a device node",
        };
        Refusal::system(format!(
            "error gathering device information while adding custom device \"{source}\": {cause}"
        ))
    })?;
    if !device.path_in_container.is_empty() {
        for node in &mut nodes {
            let below = node.path.strip_prefix(source).unwrap_or(Path::new("")).to_path_buf();
            let target = Path::new(&device.path_in_container);
            node.path = if below.as_os_str().is_empty() { target.into() } else { target.join(below) };
        }
    }
    Ok(nodes)
}

/// `c 1:3 rwm`, `b *:* r`, `a *:* rwm`.
pub fn parse_device_rule(text: &str) -> Option<LinuxDeviceRule> {
    let mut words = text.split_ascii_whitespace();
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let kind = match kind {
        "a" => LinuxDeviceKind::All,
        "b" => LinuxDeviceKind::Block,
        "c" => LinuxDeviceKind::Char,
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        _ => text.parse::<u32>().ok().map(|number| Some(i64::from(number))),
    };
    let valid = words.next().is_none()
        && (1..=3).contains(&access.len())
        && access.bytes().all(|byte| b"rwm".contains(&byte));
    valid.then_some(LinuxDeviceRule {
        allow: true,
        kind,
        major: number(major)?,
        minor: number(minor)?,
        access: access.into(),
    })
}

/// Limits in the spec's shape; also what an update hands to the running container.
pub fn resources(limits: &Resources, device: DeviceLookup<'_>) -> Result<LinuxResources, Refusal> {
    let set = |value: i64| (value != 0).then_some(value);
    let memory = LinuxMemory {
        limit: set(limits.memory),
        reservation: set(limits.memory_reservation),
        swap: set(limits.memory_swap).filter(|_| limits.memory != 0),
        swappiness: limits.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        disable_oom_killer: limits.oom_kill_disable.filter(|disable| *disable),
        ..LinuxMemory::default()
    };
    let (quota, period) = quota(limits);
    let cpu = LinuxCpu {
        shares: set(limits.cpu_shares).and_then(|value| u64::try_from(value).ok()),
        quota,
        period,
        realtime_period: set(limits.cpu_realtime_period).and_then(|value| u64::try_from(value).ok()),
        realtime_runtime: set(limits.cpu_realtime_runtime),
        cpus: limits.cpuset_cpus.clone(),
        mems: limits.cpuset_mems.clone(),
        ..LinuxCpu::default()
    };
    Ok(LinuxResources {
        memory: (memory != LinuxMemory::default()).then_some(memory),
        cpu: (cpu != LinuxCpu::default()).then_some(cpu),
        pids: limits.pids_limit.filter(|limit| *limit > 0).map(|limit| LinuxPids { limit: Some(limit) }),
        block_io: block_io(limits, device)?,
        ..LinuxResources::default()
    })
}

/// How long processors may be used within a period, both in microseconds.
pub(crate) fn quota(limits: &Resources) -> (Option<i64>, Option<u64>) {
    const PERIOD: i64 = 100_000;
    let set = |value: i64| (value != 0).then_some(value);
    let (quota, period) = match limits.nano_cpus {
        0 => (set(limits.cpu_quota), set(limits.cpu_period)),
        nano => (Some(nano.saturating_mul(PERIOD) / 1_000_000_000), Some(PERIOD)),
    };
    (quota, period.and_then(|value| u64::try_from(value).ok()))
}

fn block_io(limits: &Resources, device: DeviceLookup<'_>) -> Result<Option<LinuxBlockIo>, Refusal> {
    let number = |path: &str| {
        device(Path::new(path)).map(|(_, major, minor)| (i64::from(major), i64::from(minor))).ok_or_else(
            || Refusal::system(format!("error gathering device information: no such device {path}")),
        )
    };
    let throttles = |list: &Option<Vec<api_types::container::ThrottleDevice>>| {
        list.iter()
            .flatten()
            .map(|one| {
                let (major, minor) = number(&one.path)?;
                Ok(LinuxThrottleDevice { major, minor, rate: one.rate })
            })
            .collect::<Result<Vec<_>, Refusal>>()
    };
    let weights = limits.blkio_weight_device.iter().flatten().map(|one| {
        let (major, minor) = number(&one.path)?;
        Ok(LinuxWeightDevice { major, minor, weight: Some(one.weight), leaf_weight: None })
    });
    let io = LinuxBlockIo {
        weight: (limits.blkio_weight != 0).then_some(limits.blkio_weight),
        weight_device: weights.collect::<Result<_, Refusal>>()?,
        throttle_read_bps_device: throttles(&limits.blkio_device_read_bps)?,
        throttle_write_bps_device: throttles(&limits.blkio_device_write_bps)?,
        throttle_read_iops_device: throttles(&limits.blkio_device_read_iops)?,
        throttle_write_iops_device: throttles(&limits.blkio_device_write_iops)?,
        ..LinuxBlockIo::default()
    };
    Ok((io != LinuxBlockIo::default()).then_some(io))
}
