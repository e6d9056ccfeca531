//! Control groups: limits, accounting, freezing and killing, on cgroup v1, v2 and both at once.
//!
//! On v2 a process is born into its cgroup. On v1 it goes there itself, by writing `0` to the `tasks` file of each
//! hierarchy: that is the one way to move a process for which the kernel needs no lock over all processes of the
//! machine, and so no RCU grace period, which costs 5 to 15 milliseconds.

mod dbus;
mod devices;
pub(crate) mod layout;
mod settings;
mod stats;
mod systemd;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci::runtime::{LinuxResources, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::Error;
use crate::error::Step;
use layout::{Hierarchy, Layout, ROOT};
use settings::Setting;
pub use stats::{BlockIoEntry, BlockIoStats, CpuStats, Gauge, MemoryStats, PidsStats, Stats};
use systemd::Scope;
pub use systemd::is_running as is_systemd_running;

/// How long freezing may take before it is an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long removing may take before it is an error: dying processes are soon gone, living ones are not.
const DELETE_PATIENCE: Duration = Duration::from_millis(500);
/// Controllers of v1 that a container may have joined for the sake of a limit.
const UNUSUAL: [&str; 6] = ["cpuset", "hugetlb", "net_cls", "net_prio", "rdma", "misc"];
/// Controllers of v2 that every container gets where the machine has them.
const UNIFIED_USUAL: [&str; 5] = ["cpu", "io", "memory", "pids", "cpuset"];

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Driver {
    #[default]
    Cgroupfs,
    Systemd,
}

impl Driver {
    pub fn name(self) -> &'static str {
        match self {
            Driver::Cgroupfs => "cgroupfs",
            Driver::Systemd => "systemd",
        }
    }
}

/// A container's cgroup, in every hierarchy that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: String,
    layout: Layout,
    /// The unit that it is of, if systemd makes it.
    scope: Option<Scope>,
}

/// How the first process gets into its cgroup.
pub(crate) enum Entry {
    /// It is born into this directory (v2).
    Directory(OwnedFd),
    /// It writes `0` to each of these files (v1); if there are none, somebody has moved it there.
    Tasks(Vec<OwnedFd>),
}

impl Cgroup {
    /// The cgroup that a container of this spec has or will have. Nothing is made.
    pub fn for_container(driver: Driver, id: &str, spec: &Spec) -> Result<Cgroup, Error> {
        let linux = spec.linux.as_ref();
        let given = linux.map(|linux| linux.cgroups_path.as_str()).unwrap_or_default();
        let (path, scope) = match driver {
            Driver::Systemd if !systemd::is_running() => {
                return Err(Error::invalid(
                    "the systemd cgroup driver needs systemd, which does not run on this machine: use cgroupfs",
                ));
            }
            Driver::Systemd => {
                let scope = Scope::parse(given, id)?;
                (scope.path()?, Some(scope))
            }
            Driver::Cgroupfs if given.is_empty() => (normal(&format!("/corten/{id}"))?, None),
            Driver::Cgroupfs => (normal(given)?, None),
        };
        let mut more = Vec::new();
        if let Some(resources) = linux.and_then(|linux| linux.resources.as_ref()) {
            for controller in UNUSUAL {
                if needs(resources, controller) {
                    more.push(controller);
                }
            }
        }
        Ok(Cgroup { path, layout: Layout::find(&more)?, scope })
    }

    /// An existing cgroup by its path below the hierarchies' roots.
    pub fn open(path: &str) -> Result<Cgroup, Error> {
        let path = normal(path)?;
        let mut layout = Layout::find(&UNUSUAL)?;
        if let Layout::Separate(hierarchies) = &mut layout {
            hierarchies.retain(|hierarchy| below(&hierarchy.directory, &path).is_dir());
        }
        let scope = Scope::of_path(&path);
        Ok(Cgroup { path, layout, scope })
    }

    /// The cgroup of the container with this ID, by one of its processes; that may be in a cgroup further below.
    pub fn of_process(pid: i32, id: &str) -> Result<Cgroup, Error> {
        let file = format!("/proc/{pid}/cgroup");
        let text =
            std::fs::read_to_string(&file).map_err(|error| Error::system(format!("read {file}"), error))?;
        let path = container_path(&text, id)
            .ok_or_else(|| Error::invalid(format!("process {pid} is in no cgroup of container {id}")))?;
        Cgroup::open(&path)
    }

    /// Below the roots of the hierarchies.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the machine has cgroup v2 only.
    pub fn is_unified(&self) -> bool {
        self.layout == Layout::Unified
    }

    /// Whether the first process can be born into it. It cannot on v1, and where systemd wants a process first.
    pub(crate) fn takes_newborns(&self) -> bool {
        self.is_unified() && self.scope.is_none()
    }

    /// Makes the cgroup and sets its limits. `first`: the process that will be in it, if it is there already, and the
    /// container's ID.
    pub(crate) fn make(
        &self,
        resources: Option<&LinuxResources>,
        first: Option<(i32, &str)>,
    ) -> Result<Entry, Error> {
        let made = self.make_scope(resources, first).and_then(|()| match &self.layout {
            Layout::Unified => self.make_unified(resources),
            Layout::Separate(hierarchies) => self.make_separate(hierarchies, resources),
        });
        if made.is_err() {
            // A half-made cgroup leaves nothing behind; why it is half-made is what the caller must hear.
            let _ = self.delete();
        }
        made
    }

    fn make_scope(
        &self,
        resources: Option<&LinuxResources>,
        first: Option<(i32, &str)>,
    ) -> Result<(), Error> {
        let Some(scope) = &self.scope else { return Ok(()) };
        let (pid, id) = first.ok_or_else(|| Error::invalid("a systemd scope needs a process"))?;
        scope.start(pid, id, resources, self.is_unified())
    }

    fn make_separate(
        &self,
        hierarchies: &[Hierarchy],
        resources: Option<&LinuxResources>,
    ) -> Result<Entry, Error> {
        for hierarchy in hierarchies {
            let directory = below(&hierarchy.directory, &self.path);
            let cpuset = hierarchy.controllers.contains(&"cpuset");
            let inherit = |parent: &Path| {
                if cpuset {
                    inherit_cpuset(parent);
                }
            };
            layout::make(&directory, &inherit)?;
            if cpuset {
                inherit_cpuset(&directory);
            }
        }
        if let Some(resources) = resources {
            self.apply(&settings::version1(&settings::with_default_devices(resources))?)?;
        }
        let mut tasks = Vec::with_capacity(hierarchies.len());
        for hierarchy in hierarchies {
            tasks.push(open_for_writing(&below(&hierarchy.directory, &self.path).join("tasks"))?);
        }
        Ok(Entry::Tasks(tasks))
    }

    fn make_unified(&self, resources: Option<&LinuxResources>) -> Result<Entry, Error> {
        let directory = self.unified_directory();
        layout::make(&directory, &|_| {})?;
        let settings = resources.map(settings::version2).transpose()?.unwrap_or_default();
        self.enable_controllers(&directory, &settings)?;
        self.apply(&settings)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(&directory, flags, Mode::empty())
            .step(|| format!("open cgroup {}", directory.display()))?;
        if let Some(resources) = resources {
            limit_devices(&handle, &settings::with_default_devices(resources))?;
        }
        if self.scope.is_some() {
            // systemd has moved it here.
            return Ok(Entry::Tasks(Vec::new()));
        }
        Ok(Entry::Directory(handle))
    }

    /// Hands controllers down to the cgroup where they are missing.
    fn enable_controllers(&self, directory: &Path, settings: &[Setting]) -> Result<(), Error> {
        let missing = |directory: &Path| {
            let there = layout::read(directory, "cgroup.controllers");
            let wanted =
                UNIFIED_USUAL.iter().copied().chain(settings.iter().map(|setting| setting.controller));
            let mut missing: Vec<&str> =
                wanted.filter(|name| !name.is_empty() && !has_word(&there, name)).collect();
            missing.sort_unstable();
            missing.dedup();
            missing
        };
        let wanted = missing(directory);
        if wanted.is_empty() {
            return Ok(());
        }
        let mut refused = String::new();
        let mut ancestor = PathBuf::from(ROOT);
        let parts = Path::new(self.path.trim_start_matches('/'));
        for part in parts.components() {
            let (available, enabled) = (
                layout::read(&ancestor, "cgroup.controllers"),
                layout::read(&ancestor, "cgroup.subtree_control"),
            );
            for controller in &wanted {
                if has_word(&available, controller) && !has_word(&enabled, controller) {
                    let file = ancestor.join("cgroup.subtree_control");
                    if let Err(error) = layout::write_raw(&file, &format!("+{controller}")) {
                        refused = format!(": {}: {error}", file.display());
                    }
                }
            }
            ancestor.push(part);
        }
        let still = missing(directory);
        match settings.iter().find(|setting| !setting.optional && still.contains(&setting.controller)) {
            Some(setting) => Err(absent(setting.controller, &refused)),
            None => Ok(()),
        }
    }

    fn apply(&self, settings: &[Setting]) -> Result<(), Error> {
        for setting in settings {
            let Some(directory) = self.directory(setting.controller) else {
                if setting.optional {
                    continue;
                }
                return Err(absent(setting.controller, ""));
            };
            let path = directory.join(&setting.file);
            let error = match layout::write_raw(&path, &setting.value) {
                Ok(()) => continue,
                Err(Errno::NOENT | Errno::OPNOTSUPP) if setting.optional => continue,
                Err(error) => error,
            };
            if self.apply_other_name(&directory, setting) {
                continue;
            }
            let step = format!("set {} of the container to {:?}", setting.file, setting.value);
            return Err(match error {
                Errno::NOENT => Error::Invalid(format!("{step}: the kernel has no such limit")),
                Errno::INVAL | Errno::RANGE => Error::Invalid(format!("{step}: invalid argument")),
                error => Error::system(step, error),
            });
        }
        Ok(())
    }

    /// The BFQ scheduler has weights of its own.
    fn apply_other_name(&self, directory: &Path, setting: &Setting) -> bool {
        let other = match setting.file.as_str() {
            "blkio.weight" => "blkio.bfq.weight",
            "blkio.weight_device" => "blkio.bfq.weight_device",
            "io.weight" => "io.bfq.weight",
            _ => return false,
        };
        layout::write_raw(&directory.join(other), &setting.value).is_ok()
    }

    /// The cgroup's directory in a controller's hierarchy.
    pub(crate) fn directory(&self, controller: &str) -> Option<PathBuf> {
        match &self.layout {
            Layout::Unified => Some(self.unified_directory()),
            Layout::Separate(hierarchies) => hierarchies
                .iter()
                .find(|hierarchy| hierarchy.controllers.contains(&controller))
                .map(|hierarchy| below(&hierarchy.directory, &self.path)),
        }
    }

    /// The directories in all hierarchies, each with the name that its mount has in a container.
    pub(crate) fn mounts(&self) -> Vec<(String, PathBuf, Vec<&'static str>)> {
        match &self.layout {
            Layout::Unified => Vec::new(),
            Layout::Separate(hierarchies) => hierarchies
                .iter()
                .map(|hierarchy| {
                    let directory = below(&hierarchy.directory, &self.path);
                    (layout::mount_name(hierarchy), directory, hierarchy.controllers.clone())
                })
                .collect(),
        }
    }

    /// Where the container is on cgroup v2.
    pub(crate) fn unified_directory(&self) -> PathBuf {
        below(Path::new(ROOT), &self.path)
    }

    fn directories(&self) -> Vec<PathBuf> {
        match &self.layout {
            Layout::Unified => vec![self.unified_directory()],
            Layout::Separate(hierarchies) => {
                hierarchies.iter().map(|hierarchy| below(&hierarchy.directory, &self.path)).collect()
            }
        }
    }

    /// How another process gets in.
    pub(crate) fn entry(&self) -> Result<Entry, Error> {
        match &self.layout {
            Layout::Unified => {
                let directory = self.unified_directory();
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let handle = rustix::fs::open(&directory, flags, Mode::empty())
                    .step(|| format!("open cgroup {}", directory.display()))?;
                Ok(Entry::Directory(handle))
            }
            Layout::Separate(_) => {
                let mut directories = self.directories();
                directories.extend(self.joined_later());
                // systemd's own hierarchy: without limits, and how it knows whose a process is.
                let named = below(&Path::new(ROOT).join("systemd"), &self.path);
                directories.extend(Some(named).filter(|named| self.scope.is_some() && named.is_dir()));
                let tasks = directories.iter().map(|directory| open_for_writing(&directory.join("tasks")));
                Ok(Entry::Tasks(tasks.collect::<Result<_, _>>()?))
            }
        }
    }

    /// Directories in hierarchies of v1 that an update joined.
    fn joined_later(&self) -> Vec<PathBuf> {
        let Layout::Separate(hierarchies) = &self.layout else { return Vec::new() };
        UNUSUAL
            .iter()
            .filter(|name| !hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(name)))
            .map(|name| below(&Path::new(ROOT).join(name), &self.path))
            .filter(|directory| directory.is_dir())
            .collect()
    }

    pub fn freeze(&self) -> Result<(), Error> {
        self.set_frozen(true)
    }

    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen(false)
    }

    pub fn is_frozen(&self) -> Result<bool, Error> {
        let directory = self.directory("freezer").ok_or_else(|| absent("freezer", ""))?;
        Ok(match self.layout {
            Layout::Unified => stats::field(&layout::read(&directory, "cgroup.events"), "frozen") == 1,
            Layout::Separate(_) => layout::read(&directory, "freezer.state").trim() != "THAWED",
        })
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        let directory = self.directory("freezer").ok_or_else(|| absent("freezer", ""))?;
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(50);
        loop {
            let done = match self.layout {
                Layout::Unified => {
                    layout::write(&directory, "cgroup.freeze", if frozen { "1" } else { "0" })?;
                    stats::field(&layout::read(&directory, "cgroup.events"), "frozen") == u64::from(frozen)
                }
                // v1 may stay at FREEZING while processes fork; writing again goes on where it was.
                Layout::Separate(_) => {
                    let state = if frozen { "FROZEN" } else { "THAWED" };
                    layout::write(&directory, "freezer.state", state)?;
                    layout::read(&directory, "freezer.state").trim() == state
                }
            };
            if done {
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = layout::write_raw(&directory.join("freezer.state"), "THAWED");
                return Err(Error::System {
                    step: format!("freeze cgroup {}", self.path),
                    errno: libc::ETIMEDOUT,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Sends a signal to every process; with `SIGKILL` nobody escapes by forking.
    pub fn kill_all(&self, signal: i32) -> Result<(), Error> {
        if self.is_unified() && signal == libc::SIGKILL {
            match layout::write_raw(&self.unified_directory().join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                // Gone, or a kernel before 5.14.
                Err(Errno::NOENT) if !self.unified_directory().is_dir() => return Ok(()),
                Err(_) => {}
            }
        }
        let was_frozen = self.is_frozen().unwrap_or(false);
        let frozen = was_frozen || self.freeze().is_ok();
        let mut result = Ok(());
        for pid in self.pids()? {
            match sys::process::kill(pid, signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    result = Err(Error::system(format!("send signal {signal} to process {pid}"), error));
                }
                _ => {}
            }
        }
        // What is killed while frozen dies when it is thawed.
        if frozen && (!was_frozen || signal == libc::SIGKILL) {
            self.thaw()?;
        }
        result
    }

    /// Every process, also those in cgroups below.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let mut pids = Vec::new();
        // Any hierarchy knows all of them; the freezer's is that in which killing needs to be exact.
        if let Some(directory) = self.directory("freezer").or_else(|| self.directories().into_iter().next()) {
            collect_pids(&directory, 0, &mut pids);
        }
        Ok(pids)
    }

    /// Takes a process back that somebody moved into another freezer of version 1. It may stand still there, and a
    /// frozen process does not die.
    pub fn take_back(&self, pid: i32) -> Result<(), Error> {
        match self.directory("freezer").filter(|_| !self.is_unified()) {
            Some(directory) => layout::write(&directory, "cgroup.procs", &pid.to_string()),
            None => Ok(()),
        }
    }

    /// Whether it is (still) there.
    pub fn exists(&self) -> bool {
        self.directories().iter().any(|directory| directory.is_dir())
    }

    /// Processes killed for want of memory so far.
    pub fn oom_kills(&self) -> u64 {
        let Some(directory) = self.directory("memory") else { return 0 };
        let file = if self.is_unified() { "memory.events" } else { "memory.oom_control" };
        stats::field(&layout::read(&directory, file), "oom_kill")
    }

    /// What the container used. Who asks again and again keeps a [`Gauge`].
    pub fn stats(&self) -> Stats {
        Gauge::open(self).read(&mut Vec::new())
    }

    /// Changes limits; what is not named stays as it is.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        if let Some(scope) = &self.scope {
            scope.update(resources, self.is_unified())?;
        }
        match &self.layout {
            Layout::Unified => {
                let settings = settings::version2(resources)?;
                let directory = self.unified_directory();
                self.enable_controllers(&directory, &settings)?;
                self.apply(&settings)?;
                if resources.devices.is_empty() {
                    return Ok(());
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let handle = rustix::fs::open(&directory, flags, Mode::empty())
                    .step(|| format!("open cgroup {}", directory.display()))?;
                limit_devices(&handle, resources)
            }
            Layout::Separate(_) => self.joined_for(resources)?.update_separate(resources),
        }
    }

    fn update_separate(&self, resources: &LinuxResources) -> Result<(), Error> {
        let settings = settings::version1(resources)?;
        let memory = |setting: &&Setting| {
            matches!(setting.file.as_str(), "memory.limit_in_bytes" | "memory.memsw.limit_in_bytes")
        };
        let (memory, other): (Vec<_>, Vec<_>) =
            settings.iter().cloned().partition(|setting| memory(&setting));
        // Memory must never exceed memory and swap: which of both is first depends on what they are now.
        if self.apply(&memory).is_err() {
            self.apply(&memory.iter().rev().cloned().collect::<Vec<_>>())?;
            self.apply(&memory)?;
        }
        self.apply(&other)
    }

    /// This cgroup, with its processes also in the hierarchies that these limits need.
    fn joined_for(&self, resources: &LinuxResources) -> Result<Cgroup, Error> {
        let more: Vec<_> = UNUSUAL.into_iter().filter(|controller| needs(resources, controller)).collect();
        let joined = Cgroup { path: self.path.clone(), layout: Layout::find(&more)?, scope: None };
        let Layout::Separate(hierarchies) = &joined.layout else { return Ok(joined) };
        for hierarchy in hierarchies {
            let directory = below(&hierarchy.directory, &self.path);
            if directory.is_dir() {
                continue;
            }
            let cpuset = hierarchy.controllers.contains(&"cpuset");
            layout::make(&directory, &|parent| {
                if cpuset {
                    inherit_cpuset(parent);
                }
            })?;
            if cpuset {
                inherit_cpuset(&directory);
            }
            // Until nobody is left behind: processes that are moved may have forked before.
            for _ in 0..16 {
                let mut there = Vec::new();
                collect_pids(&directory, 0, &mut there);
                let left: Vec<i32> = self.pids()?.into_iter().filter(|pid| !there.contains(pid)).collect();
                if left.is_empty() {
                    break;
                }
                for pid in left {
                    let _ = layout::write_raw(&directory.join("cgroup.procs"), &pid.to_string());
                }
            }
        }
        Ok(joined)
    }

    /// Removes the cgroup with all below it; it is no error if it is gone. Its parents stay.
    pub fn delete(&self) -> Result<(), Error> {
        let stopped = self.scope.as_ref().map_or(Ok(()), Scope::stop);
        self.delete_directories().and(stopped)
    }

    fn delete_directories(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DELETE_PATIENCE;
        let mut directories = self.directories();
        directories.extend(self.joined_later());
        for directory in directories {
            let mut pause = Duration::from_micros(200);
            loop {
                match remove(&directory, 0) {
                    Ok(()) => break,
                    // Processes that were killed are still going.
                    Err(Errno::BUSY) if Instant::now() < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(20));
                    }
                    Err(error) => {
                        return Err(Error::system(format!("remove cgroup {}", directory.display()), error));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Levels of cgroups that are walked below a container's own.
const DEPTH_MAX: usize = 64;

fn remove(directory: &Path, depth: usize) -> rustix::io::Result<()> {
    match rustix::fs::rmdir(directory) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY) if depth < DEPTH_MAX => {}
        Err(error) => return Err(error),
    }
    for child in children(directory) {
        remove(&child, depth + 1)?;
    }
    match rustix::fs::rmdir(directory) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_directory = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(is_directory).map(|entry| entry.path()).collect()
}

fn collect_pids(directory: &Path, depth: usize, pids: &mut Vec<i32>) {
    pids.extend(layout::read(directory, "cgroup.procs").lines().filter_map(|line| line.parse::<i32>().ok()));
    if depth < DEPTH_MAX {
        for child in children(directory) {
            collect_pids(&child, depth + 1, pids);
        }
    }
}

/// A cpuset without processors or memory takes no process: it starts with its parent's. So does a parent that somebody
/// made and left empty.
fn inherit_cpuset(directory: &Path) {
    let Some(parent) = directory.parent() else { return };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if layout::read(directory, file).trim().is_empty() {
            if parent.join(file).exists() {
                inherit_cpuset(parent);
            }
            let inherited = layout::read(parent, file);
            // A failure shows when a process is to join.
            let _ = layout::write_raw(&directory.join(file), inherited.trim());
        }
    }
}

fn limit_devices(cgroup: &OwnedFd, resources: &LinuxResources) -> Result<(), Error> {
    let Some(program) = devices::program(&resources.devices) else { return Ok(()) };
    let step = || "limit the container's devices".to_owned();
    let old = sys::bpf::device_programs(cgroup.as_fd()).step(step)?;
    let program = sys::bpf::load_device_program(&program).step(step)?;
    sys::bpf::attach_device_program(cgroup.as_fd(), program.as_fd()).step(step)?;
    for program in old {
        sys::bpf::detach_device_program(cgroup.as_fd(), program.as_fd()).step(step)?;
    }
    Ok(())
}

/// Whether limits need a controller that containers are not in otherwise.
fn needs(resources: &LinuxResources, controller: &str) -> bool {
    match controller {
        "cpuset" => resources.cpu.as_ref().is_some_and(|cpu| !cpu.cpus.is_empty() || !cpu.mems.is_empty()),
        "hugetlb" => !resources.hugepage_limits.is_empty(),
        "net_cls" => {
            resources.network.as_ref().is_some_and(|network| network.class_id.is_some_and(|class| class != 0))
        }
        "net_prio" => resources.network.as_ref().is_some_and(|network| !network.priorities.is_empty()),
        "rdma" => !resources.rdma.is_empty(),
        _ => false,
    }
}

/// From `/proc/PID/cgroup`, the path down to the part that has the container's ID in its name.
fn container_path(text: &str, id: &str) -> Option<String> {
    let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    // Any of the hierarchies that containers are always in will do.
    let named = |name: &str| lines().find(|(all, _)| all.split(',').any(|one| one == name));
    let (_, path) =
        named("freezer").or_else(|| named("memory")).or_else(|| named("pids")).or_else(|| named(""))?;
    let start = path.find(id).filter(|_| !id.is_empty())?;
    let end = path[start..].find('/').map_or(path.len(), |length| start + length);
    Some(path[..end].to_owned())
}

/// A path below a hierarchy's root, without anything that leads elsewhere.
fn normal(path: &str) -> Result<String, Error> {
    let mut normal = String::with_capacity(path.len() + 1);
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." || part.contains(['\n', '\0']) {
            return Err(Error::invalid(format!("cgroup path {path:?} is not valid")));
        }
        normal.push('/');
        normal.push_str(part);
    }
    if normal.is_empty() {
        return Err(Error::invalid(format!("cgroup path {path:?} is not valid")));
    }
    Ok(normal)
}

fn below(root: &Path, path: &str) -> PathBuf {
    let mut directory = root.as_os_str().to_owned();
    directory.push(path);
    directory.into()
}

fn open_for_writing(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| format!("open {}", path.display()))
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|other| other == word)
}

fn absent(controller: &str, why: &str) -> Error {
    Error::invalid(format!("cgroup controller {controller} is not available on this machine{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_found_by_a_process_of_it() {
        let path = |text| container_path(text, "abc");
        assert_eq!(
            path("5:memory:/corten/abc\n4:freezer:/corten/abc\n0::/\n").as_deref(),
            Some("/corten/abc")
        );
        assert_eq!(
            path("0::/system.slice/corten-abc.scope/init.scope\n").as_deref(),
            Some("/system.slice/corten-abc.scope")
        );
        assert_eq!(path("0::/user.slice\n"), None);
        assert_eq!(path(""), None);
    }
}
