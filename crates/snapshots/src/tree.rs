//! Removing and measuring directory trees.
//!
//! The trees hold what containers wrote: nothing here follows a symbolic link.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

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
    let mut total = Usage::default();
    let mut linked = HashSet::new();
    // Open directories on the way down, one descriptor each.
    let mut open: Vec<Dir> = vec![Dir::new(rustix::fs::open(path, flags, Mode::empty())?)?];
    loop {
        let depth = open.len();
        let Some(directory) = open.last_mut() else { break };
        let Some(entry) = directory.read() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let parent = directory.fd()?;
        // The tree may be in use: what has just gone away is not counted.
        let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        total.inodes += 1;
        match kind {
            FileType::RegularFile => total.bytes += u64::try_from(stat.st_size).unwrap_or(0),
            FileType::Directory if depth <= DEPTH_MAX => {
                let child = rustix::fs::openat(parent, name, flags, Mode::empty());
                if let Ok(child) = child {
                    open.push(Dir::new(child)?);
                }
            }
            _ => {}
        }
    }
    Ok(total)
}
