//! Removing and measuring directory trees.
//!
//! The trees hold what containers wrote: nothing here follows a symbolic link.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::{DEPTH_MAX, Usage};

pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = CString::new(name.as_bytes())?;
    sys::remove_tree(parent.as_fd(), &name)
}

pub fn usage(path: &Path) -> io::Result<Usage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(path, flags, Mode::empty())?;
    let found = sys::tree_usage(top, DEPTH_MAX)?;
    Ok(Usage { bytes: found.bytes, inodes: found.inodes })
}
