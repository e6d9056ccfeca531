//! What differs between two whole trees, of which one began as a copy of the other.
//!
//! Nobody can set back the time of a file's last change of any kind (ctime), so what has not been changed since the copy
//! was made is the same if its description is. Of the others, attributes and content are compared as well: their sizes
//! and times may be the same all the same.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec};
use rustix::io::Errno;

use crate::changes::{change, is_directory, names, open};
use crate::{Change, ChangeKind, DEPTH_MAX, Usage};

const NOFOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Compares; without `before`, everything was added. `made`: when `now` was a copy of `before`. Sorted by path.
pub fn trees(now: &OwnedFd, before: Option<&OwnedFd>, made: Timespec) -> io::Result<Vec<Change>> {
    let mut comparing = Comparing { made, changes: Vec::new() };
    comparing.directory(now, before, b"", 0)?;
    let mut changes = comparing.changes;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// When anything of a file last changed.
#[allow(clippy::unnecessary_cast)] // Their widths differ between machines.
pub fn changed_at(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_ctime as i64, tv_nsec: stat.st_ctime_nsec as _ }
}

struct Comparing {
    made: Timespec,
    changes: Vec<Change>,
}

impl Comparing {
    /// Adds the changes below a directory, and says whether there were any.
    fn directory(
        &mut self,
        now: &OwnedFd,
        before: Option<&OwnedFd>,
        path: &[u8],
        depth: usize,
    ) -> io::Result<bool> {
        if depth > DEPTH_MAX {
            return Ok(false);
        }
        let found = self.changes.len();
        let present = names(now)?;
        if let Some(before) = before {
            for name in names(before)? {
                if present.binary_search(&name).is_err() {
                    self.changes.push(change(path, &name, ChangeKind::Deleted));
                }
            }
        }
        for name in &present {
            let Ok(stat) = rustix::fs::statat(now, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let earlier = before.and_then(|before| {
                Some((before, rustix::fs::statat(before, name, AtFlags::SYMLINK_NOFOLLOW).ok()?))
            });
            let kind = match &earlier {
                None => ChangeKind::Added,
                Some(_) => ChangeKind::Modified,
            };
            let told = change(path, name, kind);
            let mut differs = match &earlier {
                None => true,
                // The tree may be in use.
                Some((before, earlier)) => self.differs(now, before, name, &stat, earlier).or_else(gone)?,
            };
            if is_directory(&stat) {
                let Some(child) = open(now, name)? else { continue };
                let inner = match earlier.as_ref().filter(|(_, earlier)| is_directory(earlier)) {
                    Some((before, _)) => open(before, name)?,
                    None => None,
                };
                differs |= self.directory(&child, inner.as_ref(), &told.path, depth + 1)?;
            }
            if differs {
                self.changes.push(told);
            }
        }
        Ok(self.changes.len() > found)
    }

    fn differs(
        &self,
        now: &OwnedFd,
        before: &OwnedFd,
        name: &CString,
        stat: &Stat,
        earlier: &Stat,
    ) -> io::Result<bool> {
        if (stat.st_mode, stat.st_uid, stat.st_gid) != (earlier.st_mode, earlier.st_uid, earlier.st_gid) {
            return Ok(true);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        match kind {
            FileType::RegularFile if stat.st_size != earlier.st_size || time(stat) != time(earlier) => {
                return Ok(true);
            }
            FileType::Symlink => {
                let target = |tree| rustix::fs::readlinkat(tree, name, Vec::new());
                return Ok(target(now)? != target(before)?);
            }
            FileType::CharacterDevice | FileType::BlockDevice if stat.st_rdev != earlier.st_rdev => {
                return Ok(true);
            }
            _ => {}
        }
        if changed_at(stat) < self.made || !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(false);
        }
        let file = |tree: &OwnedFd| {
            rustix::fs::openat(tree, name, OFlags::RDONLY | OFlags::NONBLOCK | NOFOLLOW, Mode::empty())
        };
        let (now, before) = (file(now)?, file(before)?);
        if attributes(&now)? != attributes(&before)? {
            return Ok(true);
        }
        Ok(kind == FileType::RegularFile && !same_content(&mut File::from(now), &mut File::from(before))?)
    }
}

/// What has gone meanwhile is no longer what it was.
fn gone(error: io::Error) -> io::Result<bool> {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(true),
        _ => Err(error),
    }
}

/// Extended attributes, sorted by name, without SELinux's label: each container's files have another one.
fn attributes(file: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut all = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        match rustix::fs::fgetxattr(file, name, &mut value[..]) {
            Ok(found) => all.push((name.to_vec(), value[..found].to_vec())),
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    all.sort();
    Ok(all)
}

fn same_content(one: &mut File, other: &mut File) -> io::Result<bool> {
    let (mut ours, mut theirs) = (vec![0_u8; 64 << 10], vec![0_u8; 64 << 10]);
    loop {
        let count = one.read(&mut ours)?;
        if count == 0 {
            return Ok(other.read(&mut theirs)? == 0);
        }
        match other.read_exact(&mut theirs[..count]) {
            Ok(()) if ours[..count] == theirs[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Measures what was added or changed, files of several names once.
pub fn usage(tree: &OwnedFd, changes: &[Change]) -> io::Result<Usage> {
    let root = sys::Root::from_descriptor(tree.try_clone()?);
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    for change in changes.iter().filter(|change| change.kind != ChangeKind::Deleted) {
        let path = Path::new(OsStr::from_bytes(&change.path[1..]));
        let opened = root.open_exact(path, OFlags::PATH | NOFOLLOW);
        let Ok(stat) = opened.and_then(|opened| Ok(rustix::fs::fstat(&opened)?)) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        usage.inodes += 1;
        if kind == FileType::RegularFile {
            usage.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
    }
    Ok(usage)
}
