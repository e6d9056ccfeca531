//! The only way into a container's root filesystem.
//!
//! What lies in a container's root is written by strangers: any component of any path may be a symbolic link to
//! anywhere, and may change while it is looked at. So no path inside a root is ever joined to the root's own path.
//! The kernel resolves it from a descriptor (`openat2` with `RESOLVE_IN_ROOT`), as if that were `/`.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Symbolic links followed before a path is taken for a loop; the kernel's own number.
const LINKS_MAX: usize = 40;

/// A directory that paths are resolved below: `..` and symbolic links never lead out of it.
///
/// Other trees may be [grafted](Root::graft) onto it, which is to a walk what a mount is, without a mount.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    /// Longest place first, so that the first that fits is the one on top.
    grafts: Vec<Graft>,
}

/// A tree in another tree's place.
#[derive(Debug)]
pub struct Graft {
    /// From the root, without a leading slash, `..` or a link in it.
    pub place: PathBuf,
    /// A handle (`O_PATH`) of a directory, or of a file.
    pub tree: OwnedFd,
    pub read_only: bool,
}

/// What a path leads to, and where that is.
#[derive(Debug)]
pub struct Place {
    /// A handle (`O_PATH`).
    pub found: OwnedFd,
    /// From the root, without a leading slash, `..` or a link in it; empty for the root.
    pub path: PathBuf,
}

/// The way of a walk so far: `behind` leads to `here`.
struct Walk {
    behind: Vec<OsString>,
    here: OwnedFd,
    ahead: VecDeque<OsString>,
    links: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Directory,
    File,
}

impl Root {
    /// Opens the directory itself by a trusted path of the host.
    pub fn open_path(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root::from_descriptor(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Takes a descriptor of the directory; `O_PATH` is enough.
    pub fn from_descriptor(directory: OwnedFd) -> Root {
        Root { directory, grafts: Vec::new() }
    }

    pub fn into_descriptor(self) -> OwnedFd {
        self.directory
    }

    /// Puts a tree (a handle of a directory or of a file) where `path` leads, which is made if nothing is there. What
    /// was there is out of sight from now on.
    pub fn graft(&mut self, path: &Path, tree: OwnedFd, read_only: bool) -> io::Result<()> {
        let last = if is(&tree, FileType::Directory)? { Last::Directory } else { Last::File };
        let place = match self.place(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.walk(path, last, Mode::from_raw_mode(0o755))?
            }
            other => other?,
        };
        if is(&place.found, FileType::Directory)? != (last == Last::Directory) {
            return Err(Errno::NOTDIR.into());
        }
        let depth = |path: &Path| path.components().count();
        let at = self.grafts.partition_point(|graft| depth(&graft.place) > depth(&place.path));
        self.grafts.insert(at, Graft { place: place.path, tree, read_only });
        Ok(())
    }

    /// What was grafted, deepest places first.
    pub fn grafts(&self) -> &[Graft] {
        &self.grafts
    }

    /// The graft that a place (see [`Place::path`]) lies in, if any.
    pub fn graft_over(&self, place: &Path) -> Option<&Graft> {
        self.grafts.iter().find(|graft| place.starts_with(&graft.place))
    }

    /// Where a path leads, all links followed.
    pub fn place(&self, path: &Path) -> io::Result<Place> {
        self.find(path, true).map_err(|(error, _)| error)
    }

    /// The same without following a link in the last component, unless a slash behind it asks for a directory.
    pub fn place_of_link(&self, path: &Path) -> io::Result<Place> {
        self.find(path, ends_as_directory(path)).map_err(|(error, _)| error)
    }

    /// Where a path leads or would lead: with a leading slash, and the names as they are from the first that is
    /// missing.
    pub fn follow(&self, path: &Path) -> io::Result<PathBuf> {
        match self.find(path, true) {
            Ok(place) => Ok(Path::new("/").join(place.path)),
            Err((error, Some(walk))) if error.kind() == io::ErrorKind::NotFound => {
                let mut reached: PathBuf = walk.behind.iter().collect();
                for name in &walk.ahead {
                    if name == ".." {
                        reached.pop();
                    } else {
                        reached.push(name);
                    }
                }
                Ok(Path::new("/").join(reached))
            }
            Err((error, _)) => Err(error),
        }
    }

    /// Opens a path inside. Symbolic links are followed unless `flags` has `NOFOLLOW`, which concerns the last
    /// component only, as in `open(2)`.
    pub fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        if !self.grafts.is_empty() {
            return self.open_among_grafts(path, flags, mode);
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        resolve_in(&self.directory, path, flags, mode, resolve)
    }

    /// Opens a path inside that must not contain a symbolic link anywhere.
    pub fn open_exact(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        resolve_in(&self.directory, path, flags, Mode::empty(), resolve)
    }

    /// A handle (`O_PATH`) of what a path means, links followed.
    pub fn locate(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// A handle of a directory, made with its parents where missing.
    pub fn create_directories(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.walk(path, Last::Directory, mode).map(|place| place.found)
            }
            other => other,
        }
    }

    /// A handle of a path that is made as an empty file (its parents as directories) if nothing is there.
    pub fn create_file(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        match self.locate(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.walk(path, Last::File, mode).map(|place| place.found)
            }
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

    /// Resolves component by component and makes what is missing. Links that lead to a missing place are
    /// followed, so that what they point to is made.
    fn walk(&self, path: &Path, last: Last, mode: Mode) -> io::Result<Place> {
        let mut walk = self.begin(path)?;
        while let Some(name) = walk.ahead.pop_front() {
            if name == ".." {
                self.up(&mut walk)?;
                continue;
            }
            let found = match self.entry(&walk, &name) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    let as_file = last == Last::File && walk.ahead.is_empty();
                    match make_entry(walk.here.as_fd(), &name, as_file, mode) {
                        Ok(()) | Err(Errno::EXIST) => self.entry(&walk, &name)?,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            };
            let wants_file = last == Last::File && walk.ahead.is_empty();
            if let Some(found) = self.step(&mut walk, name, found)? {
                return if wants_file { Ok(found) } else { Err(Errno::NOTDIR.into()) };
            }
        }
        Ok(Place { path: walk.behind.iter().collect(), found: walk.here })
    }

    /// Resolves component by component. An error has the way so far with it, the name that it stopped at still ahead.
    fn find(&self, path: &Path, follow_last: bool) -> Result<Place, (io::Error, Option<Walk>)> {
        let alone = |error: io::Error| (error, None);
        let mut walk = self.begin(path).map_err(alone)?;
        while let Some(name) = walk.ahead.pop_front() {
            if name == ".." {
                self.up(&mut walk).map_err(alone)?;
                continue;
            }
            let found = match self.entry(&walk, &name) {
                Ok(found) => found,
                Err(error) => {
                    walk.ahead.push_front(name);
                    return Err((error.into(), Some(walk)));
                }
            };
            let is_last = walk.ahead.is_empty();
            if is_last && !follow_last && is(&found, FileType::Symlink).map_err(alone)? {
                walk.behind.push(name);
                return Ok(Place { found, path: walk.behind.iter().collect() });
            }
            if let Some(place) = self.step(&mut walk, name, found).map_err(alone)? {
                // A slash behind a name asks for a directory.
                let as_directory = ends_as_directory(path);
                return match is_last && !as_directory {
                    true => Ok(place),
                    false => Err(alone(Errno::NOTDIR.into())),
                };
            }
        }
        Ok(Place { path: walk.behind.iter().collect(), found: walk.here })
    }

    fn begin(&self, path: &Path) -> io::Result<Walk> {
        let mut ahead = VecDeque::new();
        push_front(&mut ahead, path);
        Ok(Walk { here: self.reopen(&[])?, behind: Vec::new(), ahead, links: 0 })
    }

    /// A handle of a name where the walk is, or of what was grafted there.
    fn entry(&self, walk: &Walk, name: &OsStr) -> Result<OwnedFd, Errno> {
        if !self.grafts.is_empty() {
            let place: PathBuf = walk.behind.iter().map(OsString::as_os_str).chain([name]).collect();
            if let Some(graft) = self.grafts.iter().find(|graft| graft.place == place) {
                return rustix::io::fcntl_dupfd_cloexec(&graft.tree, 3);
            }
        }
        open_entry(walk.here.as_fd(), name)
    }

    /// Takes one step onto what was found: into a directory, along a link, or to the end at anything else.
    fn step(&self, walk: &mut Walk, name: OsString, found: OwnedFd) -> io::Result<Option<Place>> {
        match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
            FileType::Symlink => {
                walk.links += 1;
                if walk.links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    walk.behind.clear();
                    walk.here = self.reopen(&[])?;
                }
                push_front(&mut walk.ahead, &target);
                Ok(None)
            }
            FileType::Directory => {
                walk.behind.push(name);
                walk.here = found;
                Ok(None)
            }
            _ => {
                walk.behind.push(name);
                Ok(Some(Place { found, path: walk.behind.iter().collect() }))
            }
        }
    }

    fn up(&self, walk: &mut Walk) -> io::Result<()> {
        walk.behind.pop();
        walk.here = self.reopen(&walk.behind)?;
        Ok(())
    }

    fn reopen(&self, components: &[OsString]) -> io::Result<OwnedFd> {
        let path: PathBuf = components.iter().collect();
        let (directory, path) = match self.graft_over(&path) {
            Some(graft) => (&graft.tree, path.strip_prefix(&graft.place).unwrap_or(&path)),
            None => (&self.directory, path.as_path()),
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        resolve_in(directory, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), resolve)
    }

    fn open_among_grafts(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        match self.find(path, !flags.contains(OFlags::NOFOLLOW)) {
            Ok(place) => reopen_handle(&place.found, flags),
            Err((error, Some(walk))) => {
                let makes = flags.contains(OFlags::CREATE) && walk.ahead.len() == 1;
                match walk.ahead.front().filter(|_| makes && error.kind() == io::ErrorKind::NotFound) {
                    Some(name) => {
                        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        Ok(rustix::fs::openat(&walk.here, name, flags, mode)?)
                    }
                    None => Err(error),
                }
            }
            Err((error, None)) => Err(error),
        }
    }
}

fn resolve_in(
    directory: &OwnedFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    // An empty path would be an error to the kernel; here it is the root itself.
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, mode, resolve) {
            // The kernel gives up when a rename raced with `..`; it means "again".
            Err(Errno::AGAIN | Errno::INTR) if tries < 64 => tries += 1,
            other => return Ok(other?),
        }
    }
}

/// Opens what a handle is a handle of.
fn reopen_handle(handle: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(handle)?.st_mode);
    if flags.contains(OFlags::DIRECTORY) && kind != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    if flags.contains(OFlags::PATH) {
        return Ok(rustix::io::fcntl_dupfd_cloexec(handle, 3)?);
    }
    if kind == FileType::Symlink {
        return Err(Errno::LOOP.into());
    }
    let flags = flags.difference(OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL) | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/proc/self/fd/{}", handle.as_raw_fd()), flags, Mode::empty())?)
}

fn is(handle: &OwnedFd, kind: FileType) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(handle)?.st_mode) == kind)
}

/// Whether a path can only mean a directory.
fn ends_as_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
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

    #[test]
    fn grafts_are_what_mounts_are() {
        let base = scratch("grafts");
        for folder in ["root/etc", "volume/inside", "other"] {
            std::fs::create_dir_all(base.join(folder)).unwrap();
        }
        std::fs::write(base.join("volume/inside/file"), "volume").unwrap();
        std::fs::write(base.join("hosts"), "grafted").unwrap();
        std::fs::write(base.join("other/x"), "other").unwrap();
        std::fs::write(base.join("root/etc/hosts"), "covered").unwrap();
        std::os::unix::fs::symlink("/data/inside", base.join("root/link")).unwrap();
        std::os::unix::fs::symlink("/../../etc/hosts", base.join("volume/out")).unwrap();
        let handle = |path: &str| {
            rustix::fs::open(base.join(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
        };
        let mut root = Root::open_path(&base.join("root")).unwrap();
        root.graft(Path::new("/data"), handle("volume"), false).unwrap();
        root.graft(Path::new("/data/inside/deep"), handle("other"), true).unwrap();
        root.graft(Path::new("/etc/hosts"), handle("hosts"), false).unwrap();
        assert!(base.join("root/data").is_dir(), "a place that was not there is made");
        assert!(base.join("volume/inside/deep").is_dir());

        let read = |path: &str| root.read(Path::new(path), 100).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(read("/data/inside/file").unwrap(), "volume");
        assert_eq!(read("link/file").unwrap(), "volume");
        assert_eq!(read("data/out").unwrap(), "grafted", "links in a graft start from the whole root");
        assert_eq!(read("/data/../data/inside/deep/../deep/x").unwrap(), "other");
        assert_eq!(read("/data/inside/deep/../file").unwrap(), "volume");
        assert!(read("/data/../inside/file").is_err());

        let place = root.place(Path::new("/link/deep/x")).unwrap();
        assert_eq!(place.path, Path::new("data/inside/deep/x"));
        assert!(root.graft_over(&place.path).unwrap().read_only);
        assert_eq!(root.place_of_link(Path::new("/link")).unwrap().path, Path::new("link"));
        assert!(root.place(Path::new("/etc/hosts/")).is_err(), "a file is no directory");
        assert_eq!(root.follow(Path::new("/link/no/../such")).unwrap(), Path::new("/data/inside/such"));

        root.create_directories(Path::new("/link/new/er"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(base.join("volume/inside/new/er").is_dir());
        let flags = OFlags::WRONLY | OFlags::CREATE;
        root.open(Path::new("/data/made"), flags, Mode::from_raw_mode(0o600)).unwrap();
        assert!(base.join("volume/made").is_file());
        std::fs::remove_dir_all(base).unwrap();
    }
}
