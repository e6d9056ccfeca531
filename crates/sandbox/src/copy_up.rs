//! Fills a new tmpfs with what the image has at its place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::options::Options;

/// Levels of directories that are copied.
const DEPTH_MAX: usize = 128;

/// Copies the content of one directory into another, which takes on its owner unless the options say otherwise.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, options: &Options<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let given = |key: &str| options.data.iter().any(|option| option.starts_with(key));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(to, ".", flags, Mode::empty())?;
    if !given("uid=") && !given("gid=") {
        own(top.as_fd(), &stat)?;
    }
    copy_directory(from, top.as_fd(), 0)
}

fn own(file: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    Ok(rustix::fs::fchown(file, Some(uid), Some(gid))?)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::LOOP.into());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, ".", flags, Mode::empty())?;
    for entry in Dir::read_from(&source)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(&source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, mode)?;
                let below = rustix::fs::openat(&source, name, OFlags::PATH | nofollow, Mode::empty())?;
                let made = rustix::fs::openat(to, name, flags | nofollow, Mode::empty())?;
                copy_directory(below.as_fd(), made.as_fd(), depth + 1)?;
                own(made.as_fd(), &stat)?;
                rustix::fs::fchmod(&made, mode)?;
            }
            FileType::RegularFile => {
                let read = rustix::fs::openat(&source, name, OFlags::RDONLY | nofollow, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow;
                let written = rustix::fs::openat(to, name, create, mode)?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                sys::copy_content(&read, &written, size)?;
                own(written.as_fd(), &stat)?;
                rustix::fs::fchmod(&written, mode)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&source, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                let (uid, gid) =
                    (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
                rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            // Sockets, FIFOs and devices are nothing that an image means to be copied.
            _ => {}
        }
    }
    Ok(())
}
