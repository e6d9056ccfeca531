//! What hides files of lower layers: `.wh.` members, and overlayfs' own marks for the same.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::entry::Entry;
use crate::unpack::{Unpacker, Whiteouts, c_string, failed, join, open_in, timestamps};
use crate::{Error, shown};

pub const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names with this prefix are bookkeeping of a file system that nobody uses any more.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

impl Unpacker<'_> {
    pub fn whiteout(&mut self, parent_path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Error> {
        let refused = || Error::Entry { path: shown(&entry.path), what: "invalid whiteout" };
        let overlay = self.options.whiteouts == Whiteouts::Overlay;
        if name == OPAQUE {
            let parent = self.parent(parent_path)?;
            return if overlay {
                let directory = open_in(self.root, parent_path, OFlags::RDONLY | OFlags::DIRECTORY)
                    .map_err(failed("open", parent_path))?;
                set_opaque(directory.as_fd(), parent_path)
            } else {
                self.remove_unseen(parent.as_fd(), parent_path)
            };
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused());
        }
        let parent = self.parent(parent_path)?;
        let path = join(parent_path, hidden);
        let hidden = c_string(hidden)?;
        if !overlay {
            if self.seen.contains(&path) {
                // This archive brought something under that name; of a lower directory nothing may shine through.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                return match rustix::fs::openat(&*parent, &hidden, flags, Mode::empty()) {
                    Ok(directory) => self.remove_unseen(directory.as_fd(), &path),
                    Err(_) => Ok(()),
                };
            }
            self.parent = None;
            return sys::remove_tree(parent.as_fd(), &hidden).map_err(failed("remove", &path));
        }
        let made = rustix::fs::mknodat(
            &*parent,
            &hidden,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0),
            rustix::fs::makedev(0, 0),
        );
        match made {
            // This archive brought something under that name, which hides the lower one by being there; of a lower
            // directory nothing may shine through.
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(&*parent, &hidden, flags, Mode::empty()) {
                    Ok(directory) => set_opaque(directory.as_fd(), &path),
                    Err(_) => Ok(()),
                }
            }
            // With the member's time, for a layer that is packed again is to be the same.
            Ok(()) => {
                let times = timestamps(entry.mtime);
                rustix::fs::utimensat(&*parent, &hidden, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("set time of", &path))
            }
            Err(errno) => Err(failed("hide", &path)(errno)),
        }
    }

    /// Empties a directory of what did not come with this archive.
    fn remove_unseen(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
        self.parent = None;
        let listing = rustix::fs::openat(
            directory,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(rustix::fs::Dir::new)
        .map_err(failed("list", path))?;
        for entry in listing {
            let name = entry.map_err(failed("list", path))?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let child_path = join(path, name.to_bytes());
            if !self.seen.contains(&child_path) {
                sys::remove_tree(directory, &name).map_err(failed("remove", &child_path))?;
                continue;
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(child) = rustix::fs::openat(directory, &name, flags, Mode::empty()) {
                self.remove_unseen(child.as_fd(), &child_path)?;
            }
        }
        Ok(())
    }
}

pub fn is_whiteout(parent: BorrowedFd<'_>, name: &CString) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
    })
}

pub fn set_opaque(directory: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
    rustix::fs::fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(failed("set attribute of", path))
}
