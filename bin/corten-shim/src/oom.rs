//! Hears of it when the kernel kills a process of the container for want of memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use sandbox::Cgroup;

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A watch on the container's memory cgroup.
#[derive(Debug)]
pub struct Watch {
    descriptor: OwnedFd,
    /// Each event is a kill about to happen (cgroup v1); else the counter has to be asked (v2).
    immediate: bool,
}

impl Watch {
    /// Fails if there is no memory controller.
    pub fn new(cgroup: &Cgroup) -> io::Result<Watch> {
        let path = Path::new(cgroup.path());
        let path = path.strip_prefix("/").unwrap_or(path);
        let immediate = !cgroup.is_unified();
        let descriptor = if immediate {
            register(Path::new(CGROUPS).join("memory").join(path))?
        } else {
            let descriptor = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let counters = Path::new(CGROUPS).join(path).join("memory.events");
            inotify::add_watch(&descriptor, counters, inotify::WatchFlags::MODIFY)?;
            descriptor
        };
        Ok(Watch { descriptor, immediate })
    }

    /// Readable when something happened.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Whether there is something that nobody has taken, on v2: on v1 the cgroup's end is an event as well.
    pub fn has_news(&self) -> bool {
        let mut events = [0; 1024];
        !self.immediate && rustix::io::read(&self.descriptor, &mut events).is_ok()
    }

    /// Takes what happened. True if it certainly was a kill, and not only perhaps.
    pub fn take(&self) -> bool {
        let mut events = [0; 1024];
        let taken = rustix::io::read(&self.descriptor, &mut events).is_ok();
        taken && self.immediate
    }
}

/// Asks a v1 cgroup to signal a new descriptor.
fn register(directory: PathBuf) -> io::Result<OwnedFd> {
    let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = File::open(directory.join("memory.oom_control"))?;
    let line = format!("{} {}", descriptor.as_raw_fd(), control.as_raw_fd());
    fs::write(directory.join("cgroup.event_control"), line)?;
    Ok(descriptor)
}
