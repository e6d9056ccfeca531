//! Overlayfs mounted nowhere: a file system and a mount made by descriptor alone, in no namespace's tree.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

/// Opens `lowers` (topmost first) put over each other, under an upper directory with its work directory if there is
/// one. A single directory is opened as it is: overlayfs wants at least two.
pub fn open(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> io::Result<OwnedFd> {
    let plain = |path: &Path| -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    };
    match (lowers, upper) {
        ([], Some((upper, _))) => return plain(upper),
        ([one], None) => return plain(one),
        _ => {}
    }
    match mount(&Lowers::Each(lowers), upper) {
        // Kernels before 6.7 know no layers one by one, and those before 6.5 notice only at the end.
        Err(Errno::INVAL) if !lowers.is_empty() => {
            let opened = lowers.iter().map(|lower| plain(lower)).collect::<io::Result<Vec<_>>>()?;
            let names: Vec<String> =
                opened.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd())).collect();
            Ok(mount(&Lowers::Joined(names.join(":")), upper)?)
        }
        other => Ok(other?),
    }
}

/// How the lower directories are named to the kernel.
enum Lowers<'a> {
    /// One option per directory: no bound on their number and length.
    Each(&'a [PathBuf]),
    /// All in one option of at most 255 bytes.
    Joined(String),
}

fn mount(lowers: &Lowers<'_>, upper: Option<(&Path, &Path)>) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &Path| fsconfig_set_string(&context, key, value);
    match lowers {
        Lowers::Each(lowers) => lowers.iter().try_for_each(|lower| set("lowerdir+", lower))?,
        Lowers::Joined(names) => set("lowerdir", Path::new(names))?,
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    // An upper directory must mean the same to who reads it without overlayfs. Old kernels lack an option here or there.
    for (key, value) in [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")] {
        match fsconfig_set_string(&context, key, value) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
