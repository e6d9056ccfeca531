//! The only way into a container's root filesystem.
//!
//! What lies in a container's root is written by strangers: any component of any path may be a symbolic link to
//! anywhere, and may change while it is looked at. So no path inside a root is ever joined to the root's own path.
//! The kernel resolves it from a descriptor (`openat2` with `RESOLVE_IN_ROOT`), as if that were `/`.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Symbolic links followed before a path is taken for a loop; the kernel's own number.
const LINKS_MAX: usize = 40;

/// A directory that paths are resolved below: `..` and symbolic links never lead out of it.
#[derive(Debug)]
pub struct Root(OwnedFd);

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Directory,
    File,
}

impl Root {
    /// Opens the directory itself by a trusted path of the host.
    pub fn open_path(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Takes a descriptor of the directory; `O_PATH` is enough.
    pub fn from_descriptor(directory: OwnedFd) -> Root {
        Root(directory)
    }

    pub fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Opens a path inside. Symbolic links are followed unless `flags` has `NOFOLLOW`, which concerns the last
    /// component only, as in `open(2)`.
    pub fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        self.resolve(path, flags, mode, resolve)
    }

    /// Opens a path inside that must not contain a symbolic link anywhere.
    pub fn open_exact(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        self.resolve(path, flags, Mode::empty(), resolve)
    }

    /// A handle (`O_PATH`) of what a path means, links followed.
    pub fn locate(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// A handle of a directory, made with its parents where missing.
    pub fn create_directories(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.walk(path, Last::Directory, mode),
            other => other,
        }
    }

    /// A handle of a path that is made as an empty file (its parents as directories) if nothing is there.
    pub fn create_file(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        match self.locate(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.walk(path, Last::File, mode),
            other => other,
        }
    }

    /// The directory that holds the last component of `path`, made if missing, and that component.
    pub fn create_parent<'p>(&self, path: &'p Path, mode: Mode) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.create_directories(parent, mode)?, name))
    }

    /// Reads a regular file whole; a larger one than `limit` bytes is an error, as is anything but a file.
    pub fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        // Nothing but a regular file may be read: opening a FIFO would wait for ever.
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut content = Vec::with_capacity((stat.st_size as usize).min(limit) + 1);
        loop {
            if content.len() > limit {
                return Err(Errno::FBIG.into());
            }
            if content.len() == content.capacity() {
                content.reserve(4096);
            }
            let room = (content.capacity() - content.len()).min(limit + 1 - content.len());
            let start = content.len();
            content.resize(start + room, 0);
            let count = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut content[start..]))?;
            content.truncate(start + count);
            if count == 0 {
                return Ok(content);
            }
        }
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        // An empty path would be an error to the kernel; here it is the root itself.
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve) {
                // The kernel gives up when a rename raced with `..`; it means "again".
                Err(Errno::AGAIN | Errno::INTR) if tries < 64 => tries += 1,
                other => return Ok(other?),
            }
        }
    }

    /// Resolves component by component and makes what is missing. Links that lead to a missing place are
    /// followed, so that what they point to is made.
    fn walk(&self, path: &Path, last: Last, mode: Mode) -> io::Result<OwnedFd> {
        let mut ahead = VecDeque::new();
        push_front(&mut ahead, path);
        let mut behind: Vec<OsString> = Vec::new();
        let mut here = self.reopen(&behind)?;
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                behind.pop();
                here = self.reopen(&behind)?;
                continue;
            }
            let found = match open_entry(here.as_fd(), &name) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    let as_file = last == Last::File && ahead.is_empty();
                    match make_entry(here.as_fd(), &name, as_file, mode) {
                        Ok(()) | Err(Errno::EXIST) => open_entry(here.as_fd(), &name)?,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            };
            match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        behind.clear();
                        here = self.reopen(&behind)?;
                    }
                    push_front(&mut ahead, &target);
                }
                FileType::Directory => {
                    behind.push(name);
                    here = found;
                }
                _ if last == Last::File && ahead.is_empty() => return Ok(found),
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(here)
    }

    fn reopen(&self, components: &[OsString]) -> io::Result<OwnedFd> {
        let path: PathBuf = components.iter().collect();
        self.open_exact(&path, OFlags::PATH | OFlags::DIRECTORY)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_entry(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

fn make_entry(directory: BorrowedFd<'_>, name: &OsStr, file: bool, mode: Mode) -> Result<(), Errno> {
    if !file {
        return rustix::fs::mkdirat(directory, name, mode);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, mode).map(drop)
}

fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("corten-root-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn links_that_point_outside_stay_inside() {
        let base = scratch("links");
        let outside = base.join("outside");
        let inside = base.join("root");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        std::fs::write(inside.join("etc/passwd"), "inside").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", inside.join("up")).unwrap();
        let root = Root::open_path(&inside).unwrap();
        assert!(root.read(Path::new("/absolute/secret"), 100).is_err());
        assert_eq!(root.read(Path::new("/up/passwd"), 100).unwrap(), b"inside");
        assert_eq!(root.read(Path::new("../../etc/passwd"), 6).unwrap(), b"inside");
        assert!(root.read(Path::new("/etc/passwd"), 5).is_err());

        // A dangling link is followed to where it points, as seen from inside, and made there.
        root.create_directories(Path::new("/absolute/new"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(!outside.join("new").exists());
        let there = inside.join(outside.strip_prefix("/").unwrap()).join("new");
        assert!(there.is_dir());
        root.create_file(Path::new("/up/../a/b/file"), Mode::from_raw_mode(0o644)).unwrap();
        assert!(inside.join("a/b/file").is_file());
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn loops_and_odd_files_are_errors() {
        let base = scratch("loops");
        std::os::unix::fs::symlink("b", base.join("a")).unwrap();
        std::os::unix::fs::symlink("a", base.join("b")).unwrap();
        let root = Root::open_path(&base).unwrap();
        assert!(root.create_directories(Path::new("a/x"), Mode::from_raw_mode(0o755)).is_err());
        rustix::fs::mknodat(CWD, base.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(root.read(Path::new("fifo"), 10).is_err());
        assert!(root.read(Path::new("/"), 10).is_err());
        std::fs::remove_dir_all(base).unwrap();
    }
}
