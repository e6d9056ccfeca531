//! Removing and measuring a tree by descriptor.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
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

/// Bytes and inodes below a directory, hard links counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeUsage {
    /// Bytes of content of regular files.
    pub bytes: u64,
    pub inodes: u64,
}

/// Measures what is below `directory`, at most `depth_max` levels down. Symbolic links are not followed, and what
/// goes away meanwhile is not counted: the tree may be in use.
pub fn tree_usage(directory: OwnedFd, depth_max: usize) -> io::Result<TreeUsage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut total = TreeUsage::default();
    let mut linked = HashSet::new();
    // Open directories on the way down, one descriptor each.
    let mut open: Vec<Dir> = vec![Dir::new(directory)?];
    loop {
        let depth = open.len();
        let Some(here) = open.last_mut() else { break };
        let Some(entry) = here.read() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let parent = here.fd()?;
        let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        total.inodes += 1;
        match kind {
            FileType::RegularFile => total.bytes += u64::try_from(stat.st_size).unwrap_or(0),
            FileType::Directory if depth <= depth_max => {
                if let Ok(child) = rustix::fs::openat(parent, name, flags, Mode::empty()) {
                    open.push(Dir::new(child)?);
                }
            }
            _ => {}
        }
    }
    Ok(total)
}
