//! Removing and measuring directory trees.
//!
//! The trees hold what containers wrote: nothing here follows a symbolic link.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::{DEPTH_MAX, Usage};

pub fn remove(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    sys::remove_tree(parent.as_fd(), &name)
}

/// The directory that a path's last name is in, and that name.
pub fn split(path: &Path) -> io::Result<(OwnedFd, CString)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Not as a mere place (`O_PATH`): subvolumes are made and dropped by ioctl.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::open(parent, flags, Mode::empty())?, CString::new(name.as_bytes())?))
}

pub fn usage(path: &Path) -> io::Result<Usage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(path, flags, Mode::empty())?;
    let found = sys::tree_usage(top, DEPTH_MAX)?;
    Ok(Usage { bytes: found.bytes, inodes: found.inodes })
}
