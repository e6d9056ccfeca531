//! Removing a tree by descriptor.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

/// Levels that are held open at once. Deeper trees, which anything that runs in a container can make, are taken apart
/// by moving their lower half up first.
const DEPTH_MAX: usize = 48;

/// Removes `name` in the directory `parent` and all that is below it; what is not there is no error. Symbolic links
/// are removed, never followed.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    if unlink(parent, name)? {
        return Ok(());
    }
    let Some(top) = open(parent, name)? else { return Ok(()) };
    let mut moved = 0u64;
    loop {
        empty(&top, &top, 0, &mut moved)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // What was moved up from below waits for the next round.
            Err(Errno::NOTEMPTY) if moved > 0 => moved = 0,
            Err(Errno::NOENT) | Ok(()) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether `name` is gone: true for anything but a directory.
fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn empty(directory: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> io::Result<()> {
    // Names are collected first: some file systems skip entries when others are removed during a listing.
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    for name in names {
        if unlink(directory.as_fd(), &name)? {
            continue;
        }
        if depth >= DEPTH_MAX {
            move_up(directory, &name, top, moved)?;
            continue;
        }
        let Some(child) = open(directory.as_fd(), &name)? else { continue };
        empty(&child, top, depth + 1, moved)?;
        match rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn move_up(directory: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let target = format!(".deep-{moved}");
        match rustix::fs::renameat(directory, name, top, &target) {
            Ok(()) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
