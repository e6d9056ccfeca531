//! A tree into an archive: sorted by name, the same bytes for the same tree.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::entry::{Entry, Kind, Time, Xattrs};
use crate::writer::Writer;
use crate::{Error, Root, shown};

/// Longest path in an archive, in bytes.
const PATH_BYTES_MAX: usize = 4095;

/// How to pack.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// The tree is an overlayfs upper directory: write its whiteouts as image layers carry them.
    pub overlay_upper: bool,
    /// Keep the nanoseconds of times; image layers have whole seconds.
    pub nanoseconds: bool,
    /// One time for every member.
    pub mtime: Option<Time>,
    /// One owner for every member, as (uid, gid).
    pub owner: Option<(u32, u32)>,
    /// Permission bits for every member that is no symbolic link.
    pub mode: Option<u32>,
}

/// Packs all that is below the root, without a member for the root itself. Gives the stream back, and the bytes of file
/// content that went in.
pub fn pack<W: Write>(root: &Root, options: &PackOptions, out: W) -> Result<(W, u64), Error> {
    let directory = crate::unpack::open_in(root, b"", OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| failed("open", b"/", errno))?;
    let mut packer = Packer::new(out, options.clone());
    if options.overlay_upper && opaque(directory.as_fd(), b"/")? {
        packer.opaque_marker(b"")?;
    }
    packer.add_children(&directory, b"")?;
    let content = packer.content;
    Ok((packer.finish()?, content))
}

/// Packs trees one after the other into one archive.
#[derive(Debug)]
pub struct Packer<W> {
    writer: Writer<W>,
    options: PackOptions,
    /// Where a file with several names went first, by device and inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
    content: u64,
}

fn failed(operation: &'static str, path: &[u8], errno: Errno) -> Error {
    Error::Io { operation, path: shown(path), source: errno.into() }
}

impl<W: Write> Packer<W> {
    pub fn new(out: W, options: PackOptions) -> Packer<W> {
        Packer { writer: Writer::new(out), options, linked: HashMap::new(), content: 0 }
    }

    /// A member that is made up, not read from a tree.
    pub fn append(&mut self, entry: &Entry) -> Result<(), Error> {
        self.writer.append(entry, &mut std::io::empty())
    }

    /// Adds `name` in the directory `parent`, with all below it, as `path` of the archive. Links are not followed.
    pub fn add(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<(), Error> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away while its directory was listed: the tree may be in use.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("stat", path, errno)),
        };
        if path.len() > PATH_BYTES_MAX {
            return Err(Error::Entry { path: shown(path), what: "path too long" });
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(parent, name, path),
            FileType::Directory => self.directory(parent, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(|errno| failed("read link", path, errno))?;
                self.linkable(&stat, Kind::Symlink(target.into_bytes()), path)
            }
            FileType::CharacterDevice if self.options.overlay_upper && stat.st_rdev == 0 => {
                self.whiteout(path, &stat)
            }
            FileType::CharacterDevice => {
                let (major, minor) = device(&stat);
                self.linkable(&stat, Kind::Character { major, minor }, path)
            }
            FileType::BlockDevice => {
                let (major, minor) = device(&stat);
                self.linkable(&stat, Kind::Block { major, minor }, path)
            }
            FileType::Fifo => self.linkable(&stat, Kind::Fifo, path),
            // A socket means nothing without the process that listens on it.
            _ => Ok(()),
        }
    }

    /// Adds all that is in an open directory, whose own path in the archive is `path`.
    pub fn add_children(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<(), Error> {
        for name in names(directory, path)? {
            let child = crate::unpack::join(path, name.to_bytes());
            self.add(directory.as_fd(), &name, &child)?;
        }
        Ok(())
    }

    /// Ends the archive and gives the stream back.
    pub fn finish(self) -> Result<W, Error> {
        self.writer.finish()
    }

    fn entry(&self, stat: &Stat, kind: Kind, path: &[u8]) -> Entry {
        let mut path = path.to_vec();
        if kind == Kind::Directory {
            path.push(b'/');
        }
        let nanos = if self.options.nanoseconds { u32::try_from(stat.st_mtime_nsec).unwrap_or(0) } else { 0 };
        let (uid, gid) = self.options.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let mode = match (&kind, self.options.mode) {
            (Kind::Symlink(_), _) => 0o777,
            (_, Some(mode)) => mode,
            (_, None) => stat.st_mode & 0o7777,
        };
        Entry {
            path,
            mode,
            uid,
            gid,
            mtime: self.options.mtime.unwrap_or(Time { seconds: stat.st_mtime, nanos }),
            size: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
            xattrs: Vec::new(),
            sparse: None,
            kind,
        }
    }

    /// A hard link if the archive has the file under another name already.
    fn earlier_name(&mut self, stat: &Stat, path: &[u8]) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        match self.linked.entry((stat.st_dev, stat.st_ino)) {
            std::collections::hash_map::Entry::Occupied(earlier) => Some(earlier.get().clone()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(path.to_vec());
                None
            }
        }
    }

    fn linkable(&mut self, stat: &Stat, kind: Kind, path: &[u8]) -> Result<(), Error> {
        let kind = match self.earlier_name(stat, path) {
            Some(target) => Kind::HardLink(target),
            None => kind,
        };
        let entry = self.entry(stat, kind, path);
        self.writer.append(&entry, &mut std::io::empty())
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<(), Error> {
        // Non-blocking, in case it has just become a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("open", path, errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("stat", path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Entry { path: shown(path), what: "changed while it was read" });
        }
        if let Some(target) = self.earlier_name(&stat, path) {
            let entry = self.entry(&stat, Kind::HardLink(target), path);
            return self.writer.append(&entry, &mut std::io::empty());
        }
        let mut entry = self.entry(&stat, Kind::File, path);
        entry.xattrs = self.xattrs(file.as_fd(), path)?;
        self.content += entry.size;
        self.writer.append(&entry, &mut File::from(file))
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("open", path, errno)),
        };
        let stat = rustix::fs::fstat(&directory).map_err(|errno| failed("stat", path, errno))?;
        let mut entry = self.entry(&stat, Kind::Directory, path);
        entry.xattrs = self.xattrs(directory.as_fd(), path)?;
        self.writer.append(&entry, &mut std::io::empty())?;
        if self.options.overlay_upper && opaque(directory.as_fd(), path)? {
            self.opaque_marker(path)?;
        }
        self.add_children(&directory, path)
    }

    fn opaque_marker(&mut self, directory: &[u8]) -> Result<(), Error> {
        let path = crate::unpack::join(directory, b".wh..wh..opq");
        let marker = Entry { path, mode: 0, ..Entry::file("", 0) };
        self.writer.append(&marker, &mut std::io::empty())
    }

    fn whiteout(&mut self, path: &[u8], stat: &Stat) -> Result<(), Error> {
        let at = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        let marked = [&path[..at], b".wh.", &path[at..]].concat();
        let mtime = self.options.mtime.unwrap_or(Time { seconds: stat.st_mtime, nanos: 0 });
        let marker = Entry { path: marked, mode: 0, mtime, ..Entry::file("", 0) };
        self.writer.append(&marker, &mut std::io::empty())
    }

    /// The attributes that travel: see `unpack`, which sets the same ones.
    fn xattrs(&self, descriptor: BorrowedFd<'_>, path: &[u8]) -> Result<Xattrs, Error> {
        let mut list = vec![0u8; 64 << 10];
        let count = match rustix::fs::flistxattr(descriptor, &mut list[..]) {
            Ok(count) => count,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(failed("list attributes of", path, errno)),
        };
        let mut found = Vec::new();
        for name in list[..count].split(|&b| b == 0).filter(|name| !name.is_empty()) {
            if self.options.overlay_upper
                && matches!(name, b"trusted.overlay.redirect" | b"trusted.overlay.metacopy")
            {
                let what = "an overlayfs redirect or metacopy".to_owned();
                return Err(Error::Unsupported { path: shown(path), what });
            }
            let travels = name.starts_with(b"user.")
                || matches!(
                    name,
                    b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
                );
            if !travels {
                continue;
            }
            let mut value = vec![0u8; 64 << 10];
            match rustix::fs::fgetxattr(descriptor, name, &mut value[..]) {
                Ok(count) => found.push((name.to_vec(), value[..count].to_vec())),
                Err(Errno::NODATA) => {}
                Err(errno) => return Err(failed("read attribute of", path, errno)),
            }
        }
        found.sort();
        Ok(found)
    }
}

fn device(stat: &Stat) -> (u32, u32) {
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
}

fn opaque(directory: BorrowedFd<'_>, path: &[u8]) -> Result<bool, Error> {
    let mut value = [0u8; 8];
    match rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value[..]) {
        Ok(count) => Ok(&value[..count] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(failed("read attribute of", path, errno)),
    }
}

fn names(directory: &OwnedFd, path: &[u8]) -> Result<Vec<CString>, Error> {
    let list = || -> Result<Vec<CString>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        Ok(names)
    };
    list().map_err(|errno| failed("list", path, errno))
}
