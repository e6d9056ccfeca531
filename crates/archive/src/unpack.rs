//! An archive into a root.
//!
//! Every member is put in place through a descriptor of its directory, which `openat2` finds below the root: `..`,
//! absolute links and links in the middle of a path lead around inside of it, never out. The last name of a path is
//! never followed. A member that comes twice replaces its earlier self.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatxFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sys::Root;

use crate::entry::{Entry, Kind, Time};
use crate::handover::Inlet;
use crate::implied::Implied;
use crate::reader::Reader;
use crate::whiteout::{WHITEOUT, is_whiteout, set_opaque};
use crate::{Error, shown};

/// What members named `.wh.…` do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// Nothing: they are members like any other.
    #[default]
    Literal,
    /// They become overlayfs' own whiteouts and opaque directories.
    Overlay,
    /// What they name is removed, unless this archive brought it.
    Remove,
}

/// Whom the members belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Whom the archive says.
    #[default]
    Keep,
    /// The archive's IDs, moved up.
    Shift { uid: u32, gid: u32 },
    /// One owner for all.
    Fixed { uid: u32, gid: u32 },
    /// Whoever unpacks.
    Own,
}

/// How much an archive may bring.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the uncompressed stream.
    pub bytes: u64,
    /// Members.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 64 << 30, entries: 4_000_000 }
    }
}

/// How to unpack.
#[derive(Debug, Default)]
pub struct UnpackOptions<'a> {
    pub whiteouts: Whiteouts,
    pub ownership: Ownership,
    pub limits: Limits,
    /// Directory inside the root to unpack into; the root itself if empty.
    pub destination: &'a [u8],
    /// Refuse to put a file where a directory is, and a directory where a file is.
    pub keep_kinds: bool,
    /// Leave the destination itself as it is, whatever the archive says of it.
    pub keep_destination: bool,
    /// The first name of the members' paths, and what it is to be instead. An empty first name stands before the slash
    /// that all paths begin with.
    pub rename: Option<(&'a [u8], &'a [u8])>,
    /// Where the content of large files comes from, of an archive that is handed over.
    pub inlet: Option<&'a Inlet>,
}

/// What came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of file content.
    pub bytes: u64,
    pub entries: u64,
    /// What of a layer ([`Whiteouts::Overlay`]) is still to be made to look like the layers below.
    pub implied: Implied,
}

/// Longest path of a member, in bytes: what the kernel takes.
const PATH_BYTES_MAX: usize = 4095;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Unpacks a plain (not compressed) archive and reads the stream to its end.
pub fn unpack(stream: impl Read, root: &Root, options: &UnpackOptions<'_>) -> Result<Unpacked, Error> {
    unpack_buffered(BufReader::with_capacity(BUFFER_BYTES, stream), root, options)
}

/// The same for a stream with a buffer of its own, out of which files are written.
pub fn unpack_buffered(
    stream: impl BufRead,
    root: &Root,
    options: &UnpackOptions<'_>,
) -> Result<Unpacked, Error> {
    let mut reader = Reader::with_limit(stream, options.limits.bytes);
    if options.inlet.is_some() {
        reader = reader.with_apart();
    }
    let destination = clean(options.destination)?.join(&b'/');
    let mut unpacker = Unpacker {
        root,
        options,
        destination,
        parent: None,
        directories: Vec::new(),
        seen: HashSet::new(),
        total: Unpacked::default(),
    };
    while let Some(mut entry) = reader.next_entry()? {
        if let Some((old, new)) = options.rename {
            rename(&mut entry.path, old, new);
            if let Kind::HardLink(target) = &mut entry.kind {
                rename(target, old, new);
            }
        }
        unpacker.total.entries += 1;
        if unpacker.total.entries > options.limits.entries {
            return Err(Error::Limit { what: "entries", max: options.limits.entries });
        }
        unpacker.member(&entry, &mut reader)?;
    }
    reader.drain()?;
    unpacker.set_directory_times()?;
    Ok(unpacker.total)
}

fn rename(path: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    if let Some(rest) = path.strip_prefix(old).filter(|rest| rest.is_empty() || rest.starts_with(b"/")) {
        *path = [new, rest].concat();
    }
}

pub(crate) struct Unpacker<'a> {
    pub(crate) root: &'a Root,
    pub(crate) options: &'a UnpackOptions<'a>,
    destination: Vec<u8>,
    /// The last directory worked in: members of one directory mostly come together.
    pub(crate) parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Set last, since every member that comes later changes its directory's time.
    directories: Vec<(Vec<u8>, Time)>,
    /// Paths this archive brought, kept only where whiteouts remove.
    pub(crate) seen: HashSet<Vec<u8>>,
    total: Unpacked,
}

/// The components of a path of an archive without `.` and empty ones, `..` taken back lexically.
pub fn clean(path: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| Error::Climbs(shown(path)))?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

pub(crate) fn c_string(bytes: &[u8]) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| Error::Entry { path: shown(bytes), what: "zero byte in a name" })
}

pub(crate) fn failed<E: Into<io::Error>>(operation: &'static str, path: &[u8]) -> impl FnOnce(E) -> Error {
    let path = shown(path);
    move |error| Error::Io { operation, path, source: error.into() }
}

pub fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

impl Unpacker<'_> {
    fn member<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), Error> {
        let refused = |what| Error::Entry { path: shown(&entry.path), what };
        let parts = clean(&entry.path)?;
        let Some((&name, parents)) = parts.split_last() else {
            return match entry.kind {
                Kind::Directory if self.options.keep_destination => Ok(()),
                Kind::Directory => self.root_directory(entry),
                _ => Err(refused("the root is not a directory")),
            };
        };
        let parent_path = self.below_destination(&parents.join(&b'/'));
        let path = join(&parent_path, name);
        if path.len() > PATH_BYTES_MAX {
            return Err(refused("path too long"));
        }
        if self.options.whiteouts != Whiteouts::Literal && name.starts_with(WHITEOUT) {
            return self.whiteout(&parent_path, name, entry);
        }
        let parent = self.parent(&parent_path)?;
        let c_name = c_string(name)?;
        match &entry.kind {
            Kind::File => self.file(parent.as_fd(), &c_name, &path, entry, reader)?,
            Kind::Directory => self.directory(parent.as_fd(), &c_name, &path, entry)?,
            Kind::HardLink(target) => self.hard_link(parent.as_fd(), &c_name, &path, target, entry)?,
            Kind::Symlink(target) => {
                if target.is_empty() {
                    return Err(refused("symbolic link to nothing"));
                }
                let target = c_string(target)?;
                self.make(parent.as_fd(), &c_name, entry, || {
                    rustix::fs::symlinkat(&target, parent.as_fd(), &c_name)
                })?;
                self.node_attributes(parent.as_fd(), &c_name, entry)?;
            }
            Kind::Character { major, minor } => {
                self.node(parent.as_fd(), &c_name, entry, FileType::CharacterDevice, (*major, *minor))?;
            }
            Kind::Block { major, minor } => {
                self.node(parent.as_fd(), &c_name, entry, FileType::BlockDevice, (*major, *minor))?;
            }
            Kind::Fifo => self.node(parent.as_fd(), &c_name, entry, FileType::Fifo, (0, 0))?,
        }
        if self.options.whiteouts == Whiteouts::Remove {
            for end in (0..=path.len()).filter(|&at| at == path.len() || path[at] == b'/') {
                self.seen.insert(path[..end].to_vec());
            }
        }
        Ok(())
    }

    fn below_destination(&self, path: &[u8]) -> Vec<u8> {
        if self.destination.is_empty() { path.to_vec() } else { join(&self.destination, path) }
    }

    /// The descriptor of a directory on a member's path; directories that are missing are made.
    pub(crate) fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Error> {
        if let Some((cached, parent)) = &self.parent
            && cached == path
        {
            return Ok(Rc::clone(parent));
        }
        let opened = match self.open_directory(path) {
            Err(Errno::NOENT) => self.make_parents(path)?,
            Err(Errno::NOTDIR) if self.options.whiteouts == Whiteouts::Remove => self.make_parents(path)?,
            other => other.map_err(failed("open", path))?,
        };
        let parent = Rc::new(opened);
        self.parent = Some((path.to_vec(), Rc::clone(&parent)));
        Ok(parent)
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        open_in(self.root, path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<OwnedFd, Error> {
        let mut current = self.open_directory(b"").map_err(failed("open", b"/"))?;
        let mut at = 0;
        while at < path.len() {
            let end = path[at..].iter().position(|&b| b == b'/').map_or(path.len(), |offset| at + offset);
            let prefix = &path[..end];
            current = match self.open_directory(prefix) {
                // What a layer below has there is hidden by the directory, as it would be by an overlay.
                Err(Errno::NOENT | Errno::NOTDIR) if self.hides(prefix) => {
                    let name = c_string(&path[at..end])?;
                    sys::remove_tree(current.as_fd(), &name).map_err(failed("replace", prefix))?;
                    self.make_parent(current.as_fd(), &name, prefix)?
                }
                Err(Errno::NOENT) => {
                    let name = c_string(&path[at..end])?;
                    self.make_parent(current.as_fd(), &name, prefix)?
                }
                other => other.map_err(failed("open", prefix))?,
            };
            at = end + 1;
        }
        Ok(current)
    }

    /// Whether what is under a name may be another layer's, and gives way to this one's.
    fn hides(&self, path: &[u8]) -> bool {
        self.options.whiteouts == Whiteouts::Remove && !self.seen.contains(path)
    }

    /// Makes a directory that the archive does not carry, at least until now.
    fn make_parent(&mut self, parent: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<OwnedFd, Error> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let what = "a link that leads nowhere is in the way";
                return Err(Error::Entry { path: shown(path), what });
            }
            Err(errno) => return Err(failed("create", path)(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open", path))?;
        // The umask narrowed what was asked for.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed("set mode of", path))?;
        if let Ownership::Shift { uid, gid } = self.options.ownership {
            rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(failed("own", path))?;
        }
        if self.options.whiteouts == Whiteouts::Overlay {
            self.total.implied.add(path)?;
        }
        Ok(made)
    }

    /// Makes something under a name that must be free, and frees it if it is not.
    fn make<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        entry: &Entry,
        mut make: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Error> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(parent, name, entry)?;
                make().map_err(failed("create", &entry.path))
            }
            other => other.map_err(failed("create", &entry.path)),
        }
    }

    /// Removes what an earlier member or whoever was here before left under a name.
    fn clear(&mut self, parent: BorrowedFd<'_>, name: &CString, entry: &Entry) -> Result<(), Error> {
        if self.options.keep_kinds {
            let is_directory = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if is_directory && entry.kind != Kind::Directory {
                let what = "cannot overwrite directory with non-directory";
                return Err(Error::Entry { path: shown(&entry.path), what });
            }
            if !is_directory && entry.kind == Kind::Directory {
                let what = "cannot overwrite non-directory with directory";
                return Err(Error::Entry { path: shown(&entry.path), what });
            }
        }
        if self.is_mounted(parent, name, entry)? {
            // Else all that is in the mount would go before the kernel refuses the mount point itself.
            return Err(failed("replace", &entry.path)(Errno::BUSY));
        }
        // A directory that goes away may be the one that is kept open.
        self.parent = None;
        sys::remove_tree(parent, name).map_err(failed("replace", &entry.path))
    }

    /// Whether something is mounted or grafted on a name, or grafted below it.
    fn is_mounted(&self, parent: BorrowedFd<'_>, name: &CString, entry: &Entry) -> Result<bool, Error> {
        if !self.root.grafts().is_empty() {
            let path = self.below_destination(&clean(&entry.path)?.join(&b'/'));
            let place = self.root.place_of_link(Path::new(std::ffi::OsStr::from_bytes(&path)));
            let place = place.map_err(failed("open", &entry.path))?.path;
            return Ok(self.root.grafts().iter().any(|graft| graft.place.starts_with(&place)));
        }
        let mount = |directory: BorrowedFd<'_>, name: &CStr, flags: AtFlags| {
            rustix::fs::statx(directory, name, flags, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id)
        };
        let own = mount(parent, c"", AtFlags::EMPTY_PATH);
        match mount(parent, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
            Err(Errno::NOENT) => Ok(false),
            other => {
                Ok(other.map_err(failed("stat", &entry.path))? != own.map_err(failed("stat", &entry.path))?)
            }
        }
    }

    fn file<R: BufRead>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        path: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = self.make(parent, name, entry, || {
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
        });
        match made {
            Ok(file) => {
                let filled = self.fill(File::from(file), entry, reader, true);
                if filled.is_err() {
                    // Half a file must not be taken for a whole one.
                    let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
                }
                filled
            }
            Err(error) => match self.mounted_file(path, &error) {
                // A file that is a mount of its own cannot be replaced, but written to.
                Some(file) => self.fill(file, entry, reader, false),
                None => Err(error),
            },
        }
    }

    /// The file that is mounted where another was to be made, emptied.
    fn mounted_file(&self, path: &[u8], error: &Error) -> Option<File> {
        let busy = matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(Errno::BUSY.raw_os_error()));
        let handle = open_in(self.root, path, OFlags::PATH | OFlags::NOFOLLOW).ok().filter(|_| busy)?;
        let stat = rustix::fs::fstat(&handle).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        rustix::fs::open(path, flags, Mode::empty()).ok().map(File::from)
    }

    /// Content, and for a new file what else the archive says of it.
    fn fill<R: BufRead>(
        &mut self,
        mut file: File,
        entry: &Entry,
        reader: &mut Reader<R>,
        new: bool,
    ) -> Result<(), Error> {
        match &entry.sparse {
            None if entry.apart => self.content_apart(&file, entry)?,
            None => self.content(&mut file, entry.size, entry, reader)?,
            Some(pieces) => {
                for &(offset, length) in pieces {
                    file.seek(SeekFrom::Start(offset)).map_err(failed("seek in", &entry.path))?;
                    self.content(&mut file, length, entry, reader)?;
                }
                file.set_len(entry.size).map_err(failed("size", &entry.path))?;
            }
        }
        if new {
            self.descriptor_attributes(file.as_fd(), entry)?;
        }
        rustix::fs::futimens(&file, &timestamps(entry.mtime)).map_err(failed("set time of", &entry.path))
    }

    fn content_apart(&mut self, file: &File, entry: &Entry) -> Result<(), Error> {
        let inlet = self.options.inlet.ok_or(Error::Truncated)?;
        let source = inlet.take().map_err(Error::Read)?;
        if self.total.bytes.saturating_add(entry.size) > self.options.limits.bytes {
            return Err(Error::Limit { what: "bytes", max: self.options.limits.bytes });
        }
        sys::copy_content(&source, file, entry.size).map_err(failed("write", &entry.path))?;
        self.total.bytes += entry.size;
        inlet.count(entry.size);
        Ok(())
    }

    fn content<R: BufRead>(
        &mut self,
        file: &mut File,
        length: u64,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), Error> {
        let mut left = length;
        while left > 0 {
            let piece = reader.piece(left)?;
            file.write_all(piece).map_err(failed("write", &entry.path))?;
            let count = piece.len();
            reader.consume(count);
            left -= count as u64;
        }
        self.total.bytes += length;
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = self.root;
        let open = || match root.grafts().is_empty() {
            true => rustix::fs::openat(parent, name, flags, Mode::empty()),
            false => open_in(root, path, flags),
        };
        let mut hides_lower = false;
        let mut merges = false;
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                if matches!(open(), Err(Errno::NOTDIR | Errno::LOOP)) {
                    hides_lower = self.options.whiteouts == Whiteouts::Overlay && is_whiteout(parent, name);
                    self.clear(parent, name, entry)?;
                    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
                        .map_err(failed("create", path))?;
                } else {
                    merges = self.hides(path);
                }
            }
            Err(errno) => return Err(failed("create", path)(errno)),
        }
        let directory = open().map_err(failed("open", path))?;
        if hides_lower {
            // The archive took the lower directory away before it brought its own.
            set_opaque(directory.as_fd(), path)?;
        }
        if merges {
            // A layer's directory is that of the layer below in its content alone.
            clear_attributes(directory.as_fd()).map_err(failed("remove attributes of", path))?;
        }
        self.descriptor_attributes(directory.as_fd(), entry)?;
        self.directories.push((path.to_vec(), entry.mtime));
        self.total.implied.remove(path);
        Ok(())
    }

    fn root_directory(&mut self, entry: &Entry) -> Result<(), Error> {
        let path = self.destination.clone();
        drop(self.parent(&path)?);
        let directory = open_in(self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(failed("open", &entry.path))?;
        self.descriptor_attributes(directory.as_fd(), entry)?;
        self.directories.push((path, entry.mtime));
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        path: &[u8],
        target: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        let refused = |what| Error::Entry { path: shown(&entry.path), what };
        let parts = clean(target)?;
        let Some((&target_name, target_parents)) = parts.split_last() else {
            return Err(refused("hard link to the root"));
        };
        let target_parent_path = self.below_destination(&target_parents.join(&b'/'));
        if join(&target_parent_path, target_name) == path {
            return Ok(());
        }
        const MISSING: &str = "hard link to what is not in the archive";
        let target_parent = match self.open_directory(&target_parent_path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(refused(MISSING)),
            other => other.map_err(failed("open", &target_parent_path))?,
        };
        let target_name = c_string(target_name)?;
        if rustix::fs::statat(&target_parent, &target_name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
            return Err(refused(MISSING));
        }
        self.make(parent, name, entry, || {
            rustix::fs::linkat(&target_parent, &target_name, parent, name, AtFlags::empty())
        })
    }

    fn node(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        entry: &Entry,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<(), Error> {
        let device = rustix::fs::makedev(major, minor);
        self.make(parent, name, entry, || {
            rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        self.node_attributes(parent, name, entry)
    }

    /// Whom a member is to belong to; `None` leaves it to whoever unpacks.
    fn owner(&self, entry: &Entry) -> Result<Option<(Uid, Gid)>, Error> {
        let out_of_range = || Error::Entry { path: shown(&entry.path), what: "owner out of range" };
        let (uid, gid) = match self.options.ownership {
            Ownership::Keep => (entry.uid, entry.gid),
            Ownership::Fixed { uid, gid } => (uid, gid),
            Ownership::Own => return Ok(None),
            Ownership::Shift { uid, gid } => (
                entry.uid.checked_add(uid).ok_or_else(out_of_range)?,
                entry.gid.checked_add(gid).ok_or_else(out_of_range)?,
            ),
        };
        // The highest ID means "leave as it is" to the kernel.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(out_of_range());
        }
        Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid))))
    }

    /// Owner, mode and extended attributes, in this order: a change of owner clears set-user-ID and capabilities.
    fn descriptor_attributes(&self, descriptor: BorrowedFd<'_>, entry: &Entry) -> Result<(), Error> {
        let owner = self.owner(entry)?;
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(descriptor, Some(uid), Some(gid)).map_err(failed("own", &entry.path))?;
        }
        rustix::fs::fchmod(descriptor, Mode::from_raw_mode(entry.mode))
            .map_err(failed("set mode of", &entry.path))?;
        for (name, value) in &entry.xattrs {
            if name.starts_with(b"trusted.overlay.") {
                return Err(Error::Entry { path: shown(&entry.path), what: "overlayfs attribute" });
            }
            if !travels(name) {
                continue;
            }
            match rustix::fs::fsetxattr(descriptor, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                // Not everybody may set all of them.
                Err(Errno::PERM) if owner.is_none() => {}
                Err(errno) => return Err(failed("set attribute of", &entry.path)(errno)),
            }
        }
        Ok(())
    }

    /// Owner, mode and time of what cannot be opened without side effects.
    fn node_attributes(&self, parent: BorrowedFd<'_>, name: &CString, entry: &Entry) -> Result<(), Error> {
        let owner = self.owner(entry)?;
        let node = rustix::fs::openat(
            parent,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(failed("open", &entry.path))?;
        if let Some((uid, gid)) = owner {
            rustix::fs::chownat(&node, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .map_err(failed("own", &entry.path))?;
        }
        if !matches!(entry.kind, Kind::Symlink(_)) {
            // Through the descriptor, so that nobody can put a link in its place meanwhile.
            rustix::fs::chmod(format!("/proc/self/fd/{}", node.as_raw_fd()), Mode::from_raw_mode(entry.mode))
                .map_err(failed("set mode of", &entry.path))?;
        }
        rustix::fs::utimensat(parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set time of", &entry.path))
    }

    fn set_directory_times(&mut self) -> Result<(), Error> {
        for (path, time) in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            match open_in(self.root, path, flags) {
                Ok(directory) => rustix::fs::futimens(&directory, &timestamps(*time))
                    .map_err(failed("set time of", path))?,
                // A later member replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(failed("open", path)(errno)),
            }
        }
        Ok(())
    }
}

/// Whether an extended attribute is kept in archives. Labels and measurements belong to the machine that wrote them.
pub(crate) fn travels(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 3] =
        [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    name.starts_with(b"user.") || NAMES.contains(&name)
}

/// Removes the extended attributes that archives keep.
fn clear_attributes(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let size = match rustix::fs::flistxattr_query(directory) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut list = vec![0; size];
    let length = rustix::fs::flistxattr(directory, &mut list[..])?;
    for name in list[..length].split(|&b| b == 0).filter(|name| travels(name)) {
        rustix::fs::fremovexattr(directory, name)?;
    }
    Ok(())
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    if name.is_empty() {
        return parent.to_vec();
    }
    [parent, b"/", name].concat()
}

/// Opens below a root; the empty path is the root itself.
pub(crate) fn open_in(root: &Root, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    for _ in 0..64 {
        match root.open(path, flags, Mode::empty()) {
            // A rename somewhere on the machine while `..` was walked; the kernel asks to try again.
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => {}
            other => return other.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Err(Errno::AGAIN)
}
