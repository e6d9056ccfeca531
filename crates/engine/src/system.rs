//! The daemon as a whole: counts, background work, the lazy writer, and a clean end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use model::create::limits::Controllers;
use model::mounts::Source;
use model::security::AppArmor;
use tokio::sync::oneshot;

use crate::container::{Command, View};
use crate::{Engine, host};

/// As long as a clean end waits at most, if there is a limit: a clock holds no more.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Work that nobody waits for, counted so that a clean end can.
#[derive(Debug, Default)]
pub struct Background {
    running: Arc<AtomicUsize>,
}

pub struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Background {
    pub fn begin(&self) -> Token {
        self.running.fetch_add(1, Ordering::AcqRel);
        Token(self.running.clone())
    }
}

/// Facts about host and daemon for `info`.
#[derive(Debug, Clone)]
pub struct Facts {
    pub id: String,
    pub running: i64,
    pub paused: i64,
    pub stopped: i64,
    pub images: i64,
    pub driver: String,
    /// What is told of the storage driver, by name.
    pub driver_status: Vec<[String; 2]>,
    pub cgroup_v2: bool,
    pub controllers: Controllers,
    pub ipv4_forwarding: bool,
    pub kernel: String,
    pub operating_system: String,
    pub os_version: String,
    pub architecture: String,
    pub cpus: i64,
    pub memory: i64,
    pub name: String,
    pub listeners: i64,
    /// Events since the daemon's start.
    pub events: u64,
    pub descriptors: i64,
    /// As `info` names what keeps containers apart.
    pub security: Vec<String>,
    /// Full names of vendors' devices.
    pub devices: Vec<String>,
    /// Why containers run without AppArmor although the kernel has it; else empty.
    pub apparmor_problem: String,
}

/// The daemon as a whole.
#[derive(Clone)]
pub struct System(pub(crate) Engine);

impl System {
    /// Blocks shortly, on files of `/proc`.
    pub fn facts(&self) -> Facts {
        let begin = Instant::now();
        let facts = self.find();
        self.0.metrics().system_info.observe(begin.elapsed());
        facts
    }

    fn find(&self) -> Facts {
        let views: Vec<_> = self.0.registry().all().into_iter().map(|handle| handle.view()).collect();
        let count = |wanted: &[&str]| {
            i64::try_from(views.iter().filter(|view| wanted.contains(&view.phase.status())).count())
                .unwrap_or(i64::MAX)
        };
        let uname = rustix::system::uname();
        Facts {
            id: self.0.0.id.clone(),
            running: count(&["running"]),
            paused: count(&["paused"]),
            stopped: count(&["created", "exited", "removing", "restarting"]),
            images: self.0.images().catalog().count() as i64,
            driver: self.0.snapshots().driver().into(),
            driver_status: self.driver_status(),
            cgroup_v2: self.0.facts().cgroup_v2,
            controllers: self.0.facts().controllers.clone(),
            ipv4_forwarding: host::ipv4_forwarding(),
            kernel: uname.release().to_string_lossy().into_owned(),
            operating_system: host::operating_system(),
            os_version: host::os_version(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            cpus: self.0.facts().cpus.into(),
            memory: i64::try_from(self.0.facts().memory).unwrap_or(i64::MAX),
            name: uname.nodename().to_string_lossy().into_owned(),
            listeners: self.0.events().listeners() as i64,
            events: self.0.events().emitted(),
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64),
            security: self.security(),
            devices: self.0.devices().names(),
            apparmor_problem: match &self.0.facts().security.apparmor {
                AppArmor::Unusable(why) => why.clone(),
                AppArmor::Absent | AppArmor::Ready => String::new(),
            },
        }
    }

    /// As Docker's drivers tell of themselves.
    fn driver_status(&self) -> Vec<[String; 2]> {
        let backing = || filesystem(&self.0.paths().data);
        match self.0.snapshots().driver() {
            "overlay2" => {
                vec![["Backing Filesystem".into(), backing()], ["Supports d_type".into(), "true".into()]]
            }
            "btrfs" => vec![["Btrfs".into(), String::new()]],
            _ => Vec::new(),
        }
    }

    fn security(&self) -> Vec<String> {
        let facts = self.0.facts();
        let seccomp = match self.0.settings().seccomp.as_deref() {
            None => "name=seccomp,profile=builtin",
            Some("unconfined") => "name=seccomp,profile=unconfined",
            Some(_) => "name=seccomp,profile=custom",
        };
        let all = [
            ("name=apparmor", facts.security.apparmor == AppArmor::Ready),
            (seccomp, true),
            ("name=selinux", facts.security.selinux.is_some()),
            ("name=userns", facts.remap.is_some()),
            ("name=cgroupns", facts.cgroup_v2),
        ];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_string()).collect()
    }

    /// Containers made from an image, with whether each runs.
    pub fn containers_of_image(&self, image: &str) -> Vec<(String, bool)> {
        let views = self.0.registry().all().into_iter().map(|handle| handle.view());
        let mounts = |view: &View| {
            let sources = view.record.mounts.iter().map(|mount| &mount.source);
            sources.into_iter().any(|source| matches!(source, Source::Image { id, .. } if id == image))
        };
        let using = views.filter(|view| view.record.image_id == image || mounts(view));
        using.map(|view| (view.id().to_string(), view.phase.is_running())).collect()
    }

    /// How many containers are made from each image, by its ID.
    pub fn image_users(&self) -> std::collections::HashMap<String, usize> {
        let mut users = std::collections::HashMap::new();
        for handle in self.0.registry().all() {
            *users.entry(handle.view().record.image_id.clone()).or_default() += 1;
        }
        users
    }

    /// Looks whether the image store is whole, and repairs it if that is wanted; reads all of it.
    pub fn check_images(&self, repair: bool) -> Result<images::CheckReport, model::Refusal> {
        let all: Vec<String> =
            self.0.registry().all().iter().map(|handle| handle.view().id().to_string()).collect();
        let containers = images::Containers { exists: &|id: &str| self.0.registry().knows(id), all: &all };
        self.0.images().checkup().run(containers, repair).map_err(|error| crate::images_refusal(&error))
    }

    pub fn container_count(&self) -> usize {
        self.0.registry().len()
    }

    /// Ends cleanly. Containers run on: their shims keep them until a next daemon comes.
    pub async fn shut_down(&self) {
        for handle in self.0.registry().all() {
            let (done, told) = oneshot::channel();
            handle.tell(Command::Forget { done }).await;
            let _ = told.await;
        }
        self.0.shipping().shut_down().await;
        let limit = self.0.settings().shutdown_seconds.map(Duration::from_secs);
        let deadline = limit.map(|limit| tokio::time::Instant::now() + limit.min(LONGEST));
        while self.0.0.background.running.load(Ordering::Acquire) > 0
            && deadline.is_none_or(|deadline| tokio::time::Instant::now() < deadline)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let engine = self.0.clone();
        let _ = tokio::task::spawn_blocking(move || {
            engine.records().write_noted(engine.registry());
            engine.launcher().close();
        })
        .await;
    }
}

/// The name of the filesystem that a path lies on, by its magic number (statfs(2)).
fn filesystem(path: &std::path::Path) -> String {
    let Ok(found) = rustix::fs::statfs(path) else { return "<unknown>".into() };
    let name = match found.f_type as u32 {
        0xef53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x2fc1_2fc1 => "zfs",
        0x794c_7630 => "overlayfs",
        _ => "<unknown>",
    };
    name.into()
}
