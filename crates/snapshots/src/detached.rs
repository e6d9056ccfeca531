//! Overlayfs mounted nowhere: a file system and a mount made by descriptor alone, in no namespace's tree.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
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
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &Path| fsconfig_set_string(&context, key, value);
    set_lowers(&set, lowers)?;
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    // An upper directory must mean the same to who reads it without overlayfs. Old kernels lack an option here or there.
    for (key, value) in [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")] {
        match fsconfig_set_string(&context, key, value) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// One option per directory where the kernel knows it (6.8), which has no bound on their number and length; else all in
/// one, which has.
fn set_lowers(set: &dyn Fn(&str, &Path) -> Result<(), Errno>, lowers: &[PathBuf]) -> Result<(), Errno> {
    for (index, lower) in lowers.iter().enumerate() {
        match set("lowerdir+", lower) {
            Err(Errno::INVAL) if index == 0 => {
                let joined =
                    lowers.iter().map(|lower| lower.as_os_str().as_bytes()).collect::<Vec<_>>().join(&b':');
                return set("lowerdir", Path::new(std::ffi::OsStr::from_bytes(&joined)));
            }
            other => other?,
        }
    }
    Ok(())
}
