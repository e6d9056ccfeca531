//! Which hierarchies the machine has, and where.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::Error;
use crate::error::Step;

/// Where cgroups are mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The controllers of v1 that every container is in: what limits, counts, freezes and guards its processes.
/// Others join when a limit asks for them.
const USUAL: [&str; 7] = ["memory", "cpu", "cpuacct", "pids", "devices", "freezer", "blkio"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One hierarchy for everything.
    Unified,
    /// A hierarchy for each controller (or for a few together), and perhaps one of v2 beside them that limits
    /// nothing.
    Separate(Vec<Hierarchy>),
}

/// A mounted hierarchy of cgroup v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Of those that were asked for; mounted together they share a directory.
    pub controllers: Vec<&'static str>,
    pub directory: PathBuf,
    device: u64,
}

impl Layout {
    /// Looks at the machine. On v1 it finds the usual hierarchies and those of `more`.
    pub fn find(more: &[&'static str]) -> Result<Layout, Error> {
        match magic(Path::new(ROOT)) {
            Some((CGROUP2_MAGIC, _)) => return Ok(Layout::Unified),
            Some(_) => {}
            None => return Err(Error::invalid(format!("cgroups are not mounted at {ROOT}"))),
        }
        let mut hierarchies: Vec<Hierarchy> = Vec::with_capacity(USUAL.len() + more.len());
        for controller in USUAL.iter().chain(more) {
            add(&mut hierarchies, controller);
        }
        Ok(Layout::Separate(hierarchies))
    }
}

fn add(hierarchies: &mut Vec<Hierarchy>, controller: &'static str) {
    let directory = Path::new(ROOT).join(controller);
    let Some((CGROUP_MAGIC, device)) = magic(&directory) else { return };
    match hierarchies.iter_mut().find(|hierarchy| hierarchy.device == device) {
        Some(together) if together.controllers.contains(&controller) => {}
        Some(together) => together.controllers.push(controller),
        None => hierarchies.push(Hierarchy { controllers: vec![controller], directory, device }),
    }
}

/// The kind of filesystem at a path, and its device number, which tells hierarchies apart.
fn magic(path: &Path) -> Option<(u64, u64)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let kind = rustix::fs::fstatfs(&directory).ok()?.f_type as u64;
    Some((kind, rustix::fs::fstat(&directory).ok()?.st_dev))
}

/// The name of a v1 hierarchy's mount, as a container sees it: that of the directory which a controller's name may
/// be a link to.
pub(crate) fn mount_name(hierarchy: &Hierarchy) -> String {
    let target = rustix::fs::readlinkat(rustix::fs::CWD, &hierarchy.directory, Vec::new());
    let target = target.map(|target| target.to_string_lossy().into_owned());
    let real = target.unwrap_or_else(|_| hierarchy.directory.to_string_lossy().into_owned());
    real.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Writes a value to a file of a cgroup.
pub(crate) fn write(directory: &Path, file: &str, value: &str) -> Result<(), Error> {
    let path = directory.join(file);
    write_raw(&path, value).step(|| format!("write {value:?} to {}", path.display()))
}

pub(crate) fn write_raw(path: &Path, value: &str) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes())).map(drop)
}

/// Reads a file of a cgroup; an empty string if there is none.
pub(crate) fn read(directory: &Path, file: &str) -> String {
    std::fs::read_to_string(directory.join(file)).unwrap_or_default()
}

/// Makes a directory and its parents; says whether it is new.
pub(crate) fn make(directory: &Path, on_new_parent: &dyn Fn(&Path)) -> Result<bool, Error> {
    use rustix::io::Errno;
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdir(directory, mode) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::NOENT) => {
            let parent = directory.parent().unwrap_or(Path::new(ROOT));
            if make(parent, on_new_parent)? {
                on_new_parent(parent);
            }
            match rustix::fs::mkdir(directory, mode) {
                Err(Errno::EXIST) => Ok(false),
                other => other.map(|()| true).step(|| format!("create cgroup {}", directory.display())),
            }
        }
        Err(error) => Err(Error::system(format!("create cgroup {}", directory.display()), error)),
    }
}
