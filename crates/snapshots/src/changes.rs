//! What a container changed: its upper directory against what the layers below show.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::{Change, ChangeKind, DEPTH_MAX};

/// Compares; `lower` is nothing for a container from scratch. Sorted by path.
pub fn find(upper: &OwnedFd, lower: Option<&OwnedFd>) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    walk(upper, lower, b"", 0, &mut changes)?;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Adds the changes below a directory, and says whether there were any.
fn walk(
    upper: &OwnedFd,
    lower: Option<&OwnedFd>,
    path: &[u8],
    depth: usize,
    changes: &mut Vec<Change>,
) -> io::Result<bool> {
    if depth > DEPTH_MAX {
        return Ok(false);
    }
    let before = changes.len();
    let names = names(upper)?;
    let opaque = lower.is_some() && is_opaque(upper)?;
    if let (Some(lower), true) = (lower, opaque) {
        // What does not shine through any more, and has not come again, is gone.
        for name in self::names(lower)? {
            if names.binary_search(&name).is_err() {
                changes.push(change(path, &name, ChangeKind::Deleted));
            }
        }
    }
    for name in &names {
        let Ok(above) = rustix::fs::statat(upper, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let below = lower.and_then(|lower| rustix::fs::statat(lower, name, AtFlags::SYMLINK_NOFOLLOW).ok());
        let kind = FileType::from_raw_mode(above.st_mode);
        if kind == FileType::CharacterDevice && above.st_rdev == 0 {
            changes.push(change(path, name, ChangeKind::Deleted));
            continue;
        }
        if kind != FileType::Directory {
            let kind = if below.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
            changes.push(change(path, name, kind));
            continue;
        }
        let Some(child) = open(upper, name)? else { continue };
        let child_path = change(path, name, ChangeKind::Modified).path;
        let was_directory = below.as_ref().filter(|below| is_directory(below));
        let child_lower = match (was_directory, lower) {
            (Some(_), Some(lower)) => open(lower, name)?,
            _ => None,
        };
        let changed_below = walk(&child, child_lower.as_ref(), &child_path, depth + 1, changes)?;
        match (below, was_directory) {
            (None, _) => changes.push(change(path, name, ChangeKind::Added)),
            // Directories come up with every file in them; by itself that is no change.
            (Some(_), Some(below)) if !changed_below && same(&above, below) => {}
            (Some(_), _) => changes.push(change(path, name, ChangeKind::Modified)),
        }
    }
    Ok(changes.len() > before)
}

pub fn change(directory: &[u8], name: &CString, kind: ChangeKind) -> Change {
    Change { path: [directory, b"/", name.to_bytes()].concat(), kind }
}

pub fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn same(above: &Stat, below: &Stat) -> bool {
    (above.st_mode, above.st_uid, above.st_gid) == (below.st_mode, below.st_uid, below.st_gid)
}

fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    let mut value = [0u8; 8];
    match rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value[..]) {
        Ok(count) => Ok(&value[..count] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

pub fn open(parent: &OwnedFd, name: &CString) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        // The tree may be in use.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    // Through a descriptor of its own: the one at hand may be for lookups only.
    let listing = rustix::fs::openat(
        directory.as_fd(),
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut names = Vec::new();
    for entry in Dir::new(listing)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}
