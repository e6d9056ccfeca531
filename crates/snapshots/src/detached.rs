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
    // Kept open until the overlay has its own hold on them.
    let mut opened = Vec::new();
    let mut short = |path: &Path, always: bool| -> io::Result<PathBuf> {
        if !always && path.as_os_str().len() <= VALUE_BYTES_MAX {
            return Ok(path.to_owned());
        }
        let directory = plain(path)?;
        let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
        opened.push(directory);
        Ok(name.into())
    };
    let upper = upper.map(|(upper, work)| Ok::<_, io::Error>((short(upper, false)?, short(work, false)?)));
    let upper = upper.transpose()?;
    let each = lowers.iter().map(|lower| short(lower, false)).collect::<io::Result<Vec<_>>>()?;
    match mount(&Lowers::Each(&each), upper.as_ref()) {
        // Kernels before 6.7 know no layers one by one, and those before 6.5 notice only at the end.
        Err(Errno::INVAL) if !lowers.is_empty() => {
            let names = lowers.iter().map(|lower| Ok(short(lower, true)?.display().to_string()));
            let names = names.collect::<io::Result<Vec<String>>>()?;
            Ok(mount(&Lowers::Joined(names.join(":")), upper.as_ref())?)
        }
        other => Ok(other?),
    }
}

/// Bytes of one option's value that the kernel takes. Longer paths are opened, and named by their descriptors.
const VALUE_BYTES_MAX: usize = 255;

/// How the lower directories are named to the kernel.
enum Lowers<'a> {
    /// One option per directory: no bound on their number.
    Each(&'a [PathBuf]),
    /// All in one option of at most 255 bytes.
    Joined(String),
}

fn mount(lowers: &Lowers<'_>, upper: Option<&(PathBuf, PathBuf)>) -> Result<OwnedFd, Errno> {
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
    // An upper directory must mean the same to who reads it without overlayfs: commit and a build's steps make archives
    // of it, and it becomes a layer as it is. With `metacopy` it would have files without content in it (after a `chown`),
    // and whoever made an upper directory could point them at anything below. Old kernels lack an option here or there.
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
