//! Copying a tree with all that belongs to it: owners, modes, times, attributes, hard links and holes.
//!
//! By descriptor only: names are looked up one at a time and links are never followed, so nobody who changes either
//! tree meanwhile can lead a write elsewhere. Content is shared where the filesystem can (reflinks).

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::{Root, copy_content, remove_tree};

/// Levels of directories that are copied; each holds two descriptors open.
const DEPTH_MAX: usize = 250;
/// Bytes of one extended attribute, and of their list: the kernel's own bound.
const ATTRIBUTE_MAX: usize = 64 << 10;
const NOFOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub entries: u64,
    pub bytes: u64,
}

/// Whether a directory has nothing in it.
pub fn is_empty_directory(directory: impl AsFd) -> io::Result<bool> {
    let directory = rustix::fs::openat(directory, c".", DIRECTORY, Mode::empty())?;
    for entry in Dir::new(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies what is in the directory `from` into the empty directory `to`, which takes on owner, mode, times and
/// attributes of `from`. A failure removes what was copied.
pub fn copy_tree(from: impl AsFd, to: impl AsFd) -> io::Result<Copied> {
    let from = rustix::fs::openat(from, c".", DIRECTORY, Mode::empty())?;
    let to = rustix::fs::openat(to, c".", DIRECTORY, Mode::empty())?;
    let mut copier = Copier {
        target: Root::from_descriptor(to.try_clone()?),
        linked: HashMap::new(),
        path: PathBuf::new(),
        top: Vec::new(),
        done: Copied::default(),
    };
    let stat = rustix::fs::fstat(&from)?;
    let copied =
        copier.directory(from.as_fd(), to.as_fd()).and_then(|()| finish(from.as_fd(), to.as_fd(), &stat));
    if let Err(error) = copied {
        for name in &copier.top {
            let _ = remove_tree(to.as_fd(), name);
        }
        return Err(error);
    }
    Ok(copier.done)
}

struct Copier {
    target: Root,
    /// Where the first name of a file with several was copied to.
    linked: HashMap<(u64, u64), PathBuf>,
    /// Where it is, from the top.
    path: PathBuf,
    /// What was made at the top.
    top: Vec<CString>,
    done: Copied,
}

impl Copier {
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        if self.path.components().count() > DEPTH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let at_top = self.path.as_os_str().is_empty();
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            let result = self.entry(from, to, name, &stat);
            if at_top && !matches!(&result, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
                self.top.push(name.to_owned());
            }
            result?;
            self.path.pop();
            self.done.entries += 1;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            #[allow(clippy::unnecessary_cast)] // Their widths differ between machines.
            let key = (stat.st_dev as u64, stat.st_ino as u64);
            if let Some(first) = self.linked.get(&key) {
                return self.link(first, to, name);
            }
            self.linked.insert(key, self.path.clone());
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let below = rustix::fs::openat(from, name, DIRECTORY | NOFOLLOW, Mode::empty())?;
                let made = rustix::fs::openat(to, name, DIRECTORY | NOFOLLOW, Mode::empty())?;
                self.directory(below.as_fd(), made.as_fd())?;
                finish(below.as_fd(), made.as_fd(), stat)
            }
            FileType::RegularFile => {
                let read = rustix::fs::openat(from, name, OFlags::RDONLY | NOFOLLOW, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | NOFOLLOW;
                let written = rustix::fs::openat(to, name, create, Mode::from_raw_mode(0o600))?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                copy_content(&read, &written, size)?;
                self.done.bytes += size;
                finish(read.as_fd(), written.as_fd(), stat)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                own_entry(to, name, stat)
            }
            // A whiteout of overlayfs is no device of the image.
            FileType::CharacterDevice if stat.st_rdev == 0 => Ok(()),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
                own_entry(to, name, stat)?;
                // The process's umask may have narrowed it; nobody but us can have put a link there instead.
                Ok(rustix::fs::chmodat(to, name, mode, AtFlags::empty())?)
            }
            FileType::Unknown => Ok(()),
        }
    }

    /// Gives a copied file another name.
    fn link(&self, first: &Path, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let file = self.target.open_exact(first, OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok(rustix::fs::linkat(&file, c"", to, name, AtFlags::EMPTY_PATH)?)
    }
}

fn ids(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    #[allow(clippy::unnecessary_cast)] // Their widths differ between machines.
    Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
    }
}

fn own_entry(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = ids(stat);
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner, mode, attributes and times of a copied file or directory, in the order in which none spoils another.
fn finish(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = ids(stat);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    attributes(from, to)?;
    Ok(rustix::fs::futimens(to, &times(stat))?)
}

/// Copies extended attributes; those that the target's filesystem does not have are left out, and SELinux's label, which
/// belongs to the place.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let size = match rustix::fs::flistxattr_query(from) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        Ok(size) => size,
        Err(errno) => return Err(errno.into()),
    };
    let mut list = vec![0_u8; size.min(ATTRIBUTE_MAX)];
    let length = rustix::fs::flistxattr(from, &mut list[..])?;
    let mut value = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.")
            || name.starts_with(b"user.overlay.")
            || name == b"security.selinux"
        {
            continue;
        }
        value.resize(ATTRIBUTE_MAX, 0);
        let found = match rustix::fs::fgetxattr(from, name, &mut value[..]) {
            Ok(found) => found,
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno.into()),
        };
        match rustix::fs::fsetxattr(to, name, &value[..found], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn everything_comes_along() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("a/file"), "text").unwrap();
        std::fs::hard_link(from.join("a/file"), from.join("a/b/second")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        std::os::unix::fs::chown(from.join("a/file"), Some(1000), Some(1001)).unwrap();
        std::os::unix::fs::chown(&from, Some(7), Some(8)).unwrap();
        std::fs::set_permissions(from.join("a/file"), std::fs::Permissions::from_mode(0o4751)).unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o1777)).unwrap();
        for name in ["trusted.kept", "security.selinux"] {
            rustix::fs::setxattr(from.join("a"), name, b"1", XattrFlags::empty()).ok();
        }
        let sparse = std::fs::File::create(from.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            from.join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o622),
            0,
        )
        .unwrap();
        std::fs::set_permissions(from.join("pipe"), std::fs::Permissions::from_mode(0o622)).unwrap();
        let copied = copy_tree(open(&from), open(&to)).unwrap();
        assert_eq!(copied.entries, 7);
        let meta = |path: &str| std::fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!(std::fs::read(to.join("a/file")).unwrap(), b"text");
        assert_eq!(
            (meta("a/file").uid(), meta("a/file").gid(), meta("a/file").mode() & 0o7777),
            (1000, 1001, 0o4751)
        );
        assert_eq!(meta("a/file").ino(), meta("a/b/second").ino());
        assert_eq!((meta("").uid(), meta("").gid(), meta("").mode() & 0o7777), (7, 8, 0o1777));
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(meta("pipe").mode() & 0o7777, 0o622);
        assert!(meta("sparse").blocks() < 2048, "holes stay holes: {}", meta("sparse").blocks());
        assert_eq!(meta("sparse").len(), 64 << 20);
        let time = |path: &Path| std::fs::symlink_metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(&from.join("a")), time(&to.join("a")));
        let mut value = [0; 8];
        if rustix::fs::getxattr(from.join("a"), "trusted.kept", &mut value[..]).is_ok() {
            assert_eq!(rustix::fs::getxattr(to.join("a"), "trusted.kept", &mut value[..]), Ok(1));
        }
        // A label of its own it may have by the policy of the host.
        if let Ok(length) = rustix::fs::getxattr(to.join("a"), "security.selinux", &mut value[..]) {
            assert_ne!(&value[..length], b"1");
        }
        assert!(
            !is_empty_directory(open(&to)).unwrap()
                && is_empty_directory(open(&to.join("a/b"))).is_ok_and(|empty| !empty)
        );
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        let mut deep = from.clone();
        for _ in 0..DEPTH_MAX + 5 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(from.join("file"), "x").unwrap();
        std::fs::create_dir(&to).unwrap();
        assert!(copy_tree(open(&from), open(&to)).is_err());
        assert!(is_empty_directory(open(&to)).unwrap());
    }
}
