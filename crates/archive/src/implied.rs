//! Directories that members of an archive lie in and that the archive does not carry. An unpacker makes them, but what
//! they look like only the layers below can tell, which may come later.

use std::collections::BTreeSet;

use rustix::fs::{FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use sys::Root;

use crate::Error;
use crate::entry::Time;
use crate::unpack::{failed, open_in, timestamps};

/// Bytes of names that are kept of one archive: for a quarter of a million directories and more.
const NAMES_BYTES_MAX: usize = 16 << 20;

/// Paths of directories that were made for an archive without being members of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Implied {
    paths: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl Implied {
    pub(crate) fn add(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.paths.insert(path.to_vec()) {
            self.bytes += path.len();
        }
        if self.bytes > NAMES_BYTES_MAX {
            let what = "bytes of names of directories that are no members";
            return Err(Error::Limit { what, max: NAMES_BYTES_MAX as u64 });
        }
        Ok(())
    }

    /// The directory is a member after all.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        if self.paths.remove(path) {
            self.bytes -= path.len();
        }
    }

    /// Gives the directories in `root` the owner, mode and time that they have in the layers below, of which the topmost
    /// comes first. Those that are in none of them stay as they are.
    pub fn look_like(&self, root: &Root, lowers: &[Root]) -> Result<(), Error> {
        for path in &self.paths {
            let made = match open_in(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                // A later member has come in its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.map_err(failed("open", path))?,
            };
            let Some(stat) = find_directory(path, lowers).map_err(failed("stat", path))? else { continue };
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::fchown(&made, Some(uid), Some(gid)).map_err(failed("own", path))?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777))
                .map_err(failed("set mode of", path))?;
            let time = Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) };
            rustix::fs::futimens(&made, &timestamps(time)).map_err(failed("set time of", path))?;
        }
        Ok(())
    }
}

/// What a directory looks like that the layers show under this path, topmost first.
fn find_directory(path: &[u8], lowers: &[Root]) -> Result<Option<Stat>, Errno> {
    for lower in lowers {
        match open_in(lower, path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => {}
            // What lies further below is hidden.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => {
                let stat = rustix::fs::fstat(other?)?;
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                return Ok(is_directory.then_some(stat));
            }
        }
    }
    Ok(None)
}
