//! Cgroups made by systemd: a container is a transient scope unit in a slice.
//!
//! systemd moves the container's first process into the scope; there is no scope without a process. What systemd
//! knows a property for is told to it, so that it sets the same again when it reloads; everything is then written to
//! the cgroup's files as well, as without systemd.

use std::path::Path;
use std::time::{Duration, Instant};

use oci::runtime::{LinuxDeviceKind, LinuxDeviceRule, LinuxResources};

use super::dbus::{Connection, Failure, Method, Value, Writer};
use super::settings;
use crate::Error;

/// Where systemd listens itself, and where the bus is.
const SOCKETS: [(&str, bool); 2] = [("/run/systemd/private", false), ("/run/dbus/system_bus_socket", true)];
/// How long systemd may take to start or stop a scope.
const PATIENCE: Duration = Duration::from_secs(10);

/// A scope unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `corten-ID.scope`
    pub name: String,
    /// `system.slice`; empty for a scope that is found, not made.
    pub slice: String,
}

/// Whether systemd is the machine's first process (sd_booted(3)).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

impl Scope {
    /// From the spec's `cgroupsPath`, which has the form `slice:prefix:name` here; empty for a default.
    pub fn parse(cgroups_path: &str, id: &str) -> Result<Scope, Error> {
        if cgroups_path.is_empty() {
            return Ok(Scope { name: format!("corten-{id}.scope"), slice: "system.slice".into() });
        }
        let parts: Vec<&str> = cgroups_path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(Error::invalid(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {cgroups_path:?} \
                 instead"
            )));
        };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if !name.bytes().all(plain) || name.len() > 255 {
            return Err(Error::invalid(format!("{name:?} is not the name of a systemd unit")));
        }
        slice_path(slice)?;
        Ok(Scope { name, slice: slice.into() })
    }

    /// Below the roots of the hierarchies.
    pub fn path(&self) -> Result<String, Error> {
        Ok(format!("{}/{}", slice_path(&self.slice)?, self.name))
    }

    /// The scope that a cgroup's path leads to, if it does to one.
    pub fn of_path(path: &str) -> Option<Scope> {
        let name = path.rsplit('/').next().filter(|name| name.ends_with(".scope"))?;
        is_running().then(|| Scope { name: name.into(), slice: String::new() })
    }

    /// Makes the scope with a process in it.
    pub fn start(
        &self,
        pid: i32,
        id: &str,
        resources: Option<&LinuxResources>,
        unified: bool,
    ) -> Result<(), Error> {
        let step = || format!("start the systemd unit {}", self.name);
        let mut properties = vec![
            ("Description", Value::Text(format!("Corten container {id}"))),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", Value::Bool(true)),
            ("PIDs", Value::Numbers(vec![u32::try_from(pid).unwrap_or(0)])),
            ("DefaultDependencies", Value::Bool(false)),
            // Nothing of it stays when its processes have ended, however they did.
            ("CollectMode", Value::Text("inactive-or-failed".into())),
            ("CPUAccounting", Value::Bool(true)),
            ("MemoryAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            (if unified { "IOAccounting" } else { "BlockIOAccounting" }, Value::Bool(true)),
        ];
        if let Some(resources) = resources {
            properties.extend(limits(resources, unified));
            properties.extend(devices(&settings::with_default_devices(resources).devices));
        }
        let mut body = Writer::default();
        body.text(&self.name);
        body.text("replace");
        body.properties(&properties);
        body.no_structures();
        let mut systemd = connect().map_err(|failure| failed(step(), failure))?;
        let method = manager("StartTransientUnit", "ssa(sv)a(sa(sv))");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match systemd.call(&method, &body) {
                Ok(()) => break,
                // The last one of this name is still going.
                Err(Failure::Refused { name, .. })
                    if name.ends_with(".UnitExists") && Instant::now() < deadline =>
                {
                    let _ = self.stop_with(&mut systemd);
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(failure) => return Err(failed(step(), failure)),
            }
        }
        self.wait_for(pid, deadline)
    }

    /// What was called is only a job: it is done when the process is in the scope's cgroup.
    fn wait_for(&self, pid: i32, deadline: Instant) -> Result<(), Error> {
        let file = format!("/proc/{pid}/cgroup");
        let end = format!("/{}", self.name);
        let mut pause = Duration::from_micros(100);
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
            let own = lines().find(|(names, _)| matches!(*names, "" | "name=systemd"));
            let own = lines().find(|(names, _)| *names == "name=systemd").or(own);
            if own.is_some_and(|(_, path)| path.ends_with(&end)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::System {
                    step: format!("wait until systemd has started the unit {}", self.name),
                    errno: libc::ETIMEDOUT,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Tells systemd of limits that change. A unit that it does not know has none to keep.
    pub fn update(&self, resources: &LinuxResources, unified: bool) -> Result<(), Error> {
        let step = || format!("change the systemd unit {}", self.name);
        let properties = limits(resources, unified);
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = Writer::default();
        body.text(&self.name);
        // Until the scope ends.
        body.bool(true);
        body.properties(&properties);
        let mut systemd = connect().map_err(|failure| failed(step(), failure))?;
        match systemd.call(&manager("SetUnitProperties", "sba(sv)"), &body) {
            Err(Failure::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
            result => result.map_err(|failure| failed(step(), failure)),
        }
    }

    /// Asks systemd to end the scope and to forget it. It is no error if it does not know it.
    pub fn stop(&self) -> Result<(), Error> {
        let step = || format!("stop the systemd unit {}", self.name);
        let mut systemd = connect().map_err(|failure| failed(step(), failure))?;
        match self.stop_with(&mut systemd) {
            Err(Failure::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
            result => result.map_err(|failure| failed(step(), failure)),
        }
    }

    fn stop_with(&self, systemd: &mut Connection) -> Result<(), Failure> {
        let mut body = Writer::default();
        body.text(&self.name);
        body.text("replace");
        systemd.call(&manager("StopUnit", "ss"), &body)
    }
}

fn connect() -> Result<Connection, Failure> {
    let [own, bus] = SOCKETS;
    Connection::open(own.0, own.1).or_else(|_| Connection::open(bus.0, bus.1))
}

fn failed(step: String, failure: Failure) -> Error {
    match failure {
        Failure::Io(error) => Error::system(step, error),
        refused @ Failure::Refused { .. } => Error::Invalid(format!("{step}: {refused}")),
    }
}

fn manager<'a>(member: &'a str, signature: &'a str) -> Method<'a> {
    Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
        signature,
    }
}

/// `a-b.slice` is inside `a.slice`; `-.slice` is the root.
fn slice_path(slice: &str) -> Result<String, Error> {
    let odd = || Error::invalid(format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty()).ok_or_else(odd)?;
    if name == "-" {
        return Ok(String::new());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if !name.bytes().all(plain) || name.split('-').any(str::is_empty) {
        return Err(odd());
    }
    let mut path = String::new();
    for (at, _) in name.match_indices('-').chain([(name.len(), "")]) {
        path.push_str(&format!("/{}.slice", &name[..at]));
    }
    Ok(path)
}

/// Limits as systemd's properties, as far as it has them: see systemd.resource-control(5).
fn limits(resources: &LinuxResources, unified: bool) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    // What is not positive is no limit.
    let bytes = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX);
    if let Some(memory) = &resources.memory {
        let limit = memory.limit.filter(|limit| *limit != 0);
        if let Some(limit) = limit {
            all.push((if unified { "MemoryMax" } else { "MemoryLimit" }, Value::U64(bytes(limit))));
        }
        if unified && let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
            all.push(("MemoryLow", Value::U64(bytes(reservation))));
        }
        match (memory.swap.unwrap_or(0), limit) {
            (-1, _) | (0, Some(-1)) if unified => all.push(("MemorySwapMax", Value::U64(u64::MAX))),
            (swap, Some(limit)) if unified && limit > 0 && swap >= limit => {
                all.push((
                    "MemorySwapMax",
                    Value::U64(bytes(swap - limit).min(if swap == limit { 0 } else { u64::MAX })),
                ));
            }
            _ => {}
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            all.push(if unified {
                ("CPUWeight", Value::U64(settings::weight_of_shares(shares)))
            } else {
                ("CPUShares", Value::U64(shares))
            });
        }
        if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
            let period = cpu.period.filter(|period| *period != 0).unwrap_or(100_000);
            let per_second = match u64::try_from(quota) {
                Ok(quota) => quota.saturating_mul(1_000_000).div_ceil(period),
                Err(_) => u64::MAX,
            };
            if unified {
                all.push(("CPUQuotaPeriodUSec", Value::U64(period)));
            }
            all.push(("CPUQuotaPerSecUSec", Value::U64(per_second)));
        }
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            if unified && let Some(mask) = mask(list) {
                all.push((name, Value::Bytes(mask)));
            }
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        all.push(("TasksMax", Value::U64(bytes(limit))));
    }
    let weight = resources.block_io.as_ref().and_then(|io| io.weight).filter(|weight| *weight != 0);
    if let Some(weight) = weight {
        all.push(if unified {
            ("IOWeight", Value::U64(settings::weight_of_block_io(weight)))
        } else {
            ("BlockIOWeight", Value::U64(weight.into()))
        });
    }
    all
}

/// `0-2,7` as bits, the lowest number first.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.trim().parse::<usize>().ok()?, to.trim().parse::<usize>().ok()?);
        for number in from..=to.min(8192) {
            let at = number / 8;
            if mask.len() <= at {
                mask.resize(at + 1, 0);
            }
            mask[at] |= 1 << (number % 8);
        }
    }
    (!mask.is_empty()).then_some(mask)
}

/// Device rules as systemd's properties. It knows only what is allowed: with a rule that it cannot say, it is left out
/// of it altogether, and the rules hold by the cgroup alone.
fn devices(rules: &[LinuxDeviceRule]) -> Vec<(&'static str, Value)> {
    let policy = |policy: &str| ("DevicePolicy", Value::Text(policy.into()));
    let Some((first, rules)) = rules.split_first() else { return Vec::new() };
    let denies_all = !first.allow && first.kind == LinuxDeviceKind::All;
    let allows_all = |rule: &LinuxDeviceRule| rule.allow && rule.kind == LinuxDeviceKind::All;
    if !denies_all || rules.iter().any(|rule| !rule.allow || allows_all(rule)) {
        return vec![policy("auto")];
    }
    let number = |number: Option<i64>| number.filter(|number| *number >= 0);
    let allowed = rules.iter().filter_map(|rule| {
        let kind = if rule.kind == LinuxDeviceKind::Block { "block" } else { "char" };
        let what = match (number(rule.major), number(rule.minor)) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (Some(major), None) => major_name(kind, major)?,
            _ => format!("{kind}-*"),
        };
        let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
        Some((what, access.to_owned()))
    });
    vec![policy("strict"), ("DeviceAllow", Value::Pairs(allowed.collect()))]
}

/// All devices of a driver are named by it: `char-pts`.
fn major_name(kind: &str, major: i64) -> Option<String> {
    let text = std::fs::read_to_string("/proc/devices").ok()?;
    let (characters, blocks) = text.split_once("\n\n").unwrap_or((&text, ""));
    let list = if kind == "block" { blocks } else { characters };
    let name = list.lines().find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse::<i64>().ok()? == major).then_some(name)
    })?;
    Some(format!("{kind}-{}", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_slices() {
        let path = |slice: &str| slice_path(slice).ok();
        assert_eq!(path("system.slice").as_deref(), Some("/system.slice"));
        assert_eq!(path("a-b-c.slice").as_deref(), Some("/a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(path("-.slice").as_deref(), Some(""));
        for bad in ["", ".slice", "a", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "../x.slice"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn scopes_by_the_runtime_specs_path() {
        let scope = |path: &str| Scope::parse(path, "abc").and_then(|scope| scope.path()).ok();
        assert_eq!(scope("").as_deref(), Some("/system.slice/corten-abc.scope"));
        assert_eq!(
            scope("user-1.slice:corten:x").as_deref(),
            Some("/user.slice/user-1.slice/corten-x.scope")
        );
        assert_eq!(scope(":crio:x").as_deref(), Some("/system.slice/crio-x.scope"));
        for bad in ["/a/b", "a.slice:b", "a.slice:b:c/d", "a.slice:b:c d", "a:b:c", "a.slice:b:c:d"] {
            assert_eq!(scope(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_in_systemd_s_words() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory": {"limit": 1000, "swap": 1500, "reservation": 500}, "cpu": {"shares": 1024, "quota": 50000,
            "period": 100000, "cpus": "0-1,9"}, "pids": {"limit": -1}, "blockIO": {"weight": 500}}"#,
        )
        .unwrap();
        assert_eq!(
            limits(&resources, true),
            [
                ("MemoryMax", Value::U64(1000)),
                ("MemoryLow", Value::U64(500)),
                ("MemorySwapMax", Value::U64(500)),
                ("CPUWeight", Value::U64(100)),
                ("CPUQuotaPeriodUSec", Value::U64(100_000)),
                ("CPUQuotaPerSecUSec", Value::U64(500_000)),
                ("AllowedCPUs", Value::Bytes(vec![3, 2])),
                ("TasksMax", Value::U64(u64::MAX)),
                ("IOWeight", Value::U64(4950)),
            ]
        );
        assert_eq!(
            limits(&resources, false),
            [
                ("MemoryLimit", Value::U64(1000)),
                ("CPUShares", Value::U64(1024)),
                ("CPUQuotaPerSecUSec", Value::U64(500_000)),
                ("TasksMax", Value::U64(u64::MAX)),
                ("BlockIOWeight", Value::U64(500)),
            ]
        );
    }

    #[test]
    fn no_swap_is_none_and_no_limit_is_all() {
        let told = |json: &str| limits(&serde_json::from_str(json).unwrap(), true);
        assert_eq!(told(r#"{"memory": {"limit": 1000, "swap": 1000}}"#)[1], ("MemorySwapMax", Value::U64(0)));
        assert_eq!(
            told(r#"{"memory": {"limit": -1}, "cpu": {"quota": -1}}"#),
            [
                ("MemoryMax", Value::U64(u64::MAX)),
                ("MemorySwapMax", Value::U64(u64::MAX)),
                ("CPUQuotaPeriodUSec", Value::U64(100_000)),
                ("CPUQuotaPerSecUSec", Value::U64(u64::MAX)),
            ]
        );
    }

    #[test]
    fn devices_are_named() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3,
            "access": "rw"}, {"allow": true, "type": "b", "access": "m"}]}"#,
        )
        .unwrap();
        let pair = |what: &str, access: &str| (what.to_owned(), access.to_owned());
        assert_eq!(
            devices(&resources.devices),
            [
                ("DevicePolicy", Value::Text("strict".into())),
                ("DeviceAllow", Value::Pairs(vec![pair("/dev/char/1:3", "rw"), pair("block-*", "m")])),
            ]
        );
        let all: LinuxResources = serde_json::from_str(r#"{"devices": [{"allow": true}]}"#).unwrap();
        assert_eq!(devices(&all.devices), [("DevicePolicy", Value::Text("auto".into()))]);
    }
}
