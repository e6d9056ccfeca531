//! A tree into an archive: sorted by name, the same bytes for the same tree.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::entry::{Entry, Kind, Time, Xattrs};
use crate::handover::Outlet;
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
    /// Owners are these numbers higher than what is to be written, as in a user namespace; who is below is nobody.
    pub owner_offset: (u32, u32),
    /// Permission bits for every member that is no symbolic link.
    pub mode: Option<u32>,
    /// Do not look into what the kernel makes up (`proc`, `sysfs`, cgroups and their like): it has no size, no end, and
    /// some of it waits for ever.
    pub skip_kernel_files: bool,
    /// Paths that stay out, with all that is below them.
    pub leave_out: HashSet<Vec<u8>>,
}

/// File systems that hold nothing but what the kernel makes up, by their magic numbers.
pub(crate) const KERNEL_FILES: [u64; 16] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x7363_6673, // securityfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0x6265_6570, // configfs
    0xf97c_ff8c, // selinuxfs
    0xde5e_81e4, // efivarfs
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
];

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

/// Something that an archive of changes tells of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// From the root, without a slash in front.
    pub path: Vec<u8>,
    /// It is not there any more.
    pub removed: bool,
}

/// Packs what changed in a tree as image layers carry it: each path that is there by itself, without what is below it,
/// and a whiteout for each that is not. Directories come before what is in them.
pub fn pack_changes<W: Write>(
    root: &Root,
    changes: &[Changed],
    options: &PackOptions,
    out: W,
) -> Result<(W, u64), Error> {
    let mut packer = Packer::new(out, options.clone());
    for Changed { path, removed } in changes {
        let mut ends = (0..=path.len()).filter(|&at| at == path.len() || path[at] == b'/');
        if ends.any(|end| options.leave_out.contains(&path[..end])) {
            continue;
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(Error::Entry { path: shown(path), what: "path too long" });
        }
        if *removed {
            packer.whiteout(path, 0)?;
            continue;
        }
        match crate::unpack::open_in(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(handle) => {
                packer.leave_empty(path.clone());
                packer.add_handle(&handle, path)?;
                packer.empty.remove(path);
            }
            // It went away since: the tree may be in use.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(failed("open", path, errno)),
        }
    }
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
    /// Trees that are packed in place of what is found, by their path in the archive.
    grafts: HashMap<Vec<u8>, OwnedFd>,
    /// Directories whose content stays out, by their path in the archive.
    empty: HashSet<Vec<u8>>,
    /// The device that the directory being packed is on.
    device: Option<u64>,
    content: u64,
    /// Hands a large file over, if that is possible.
    hand: Option<Hand<W>>,
}

/// Tells whether it took the file.
type Hand<W> = fn(&mut W, &OwnedFd, u64) -> std::io::Result<bool>;

fn failed(operation: &'static str, path: &[u8], errno: Errno) -> Error {
    Error::Io { operation, path: shown(path), source: errno.into() }
}

impl<W: Write> Packer<W> {
    pub fn new(out: W, options: PackOptions) -> Packer<W> {
        Packer {
            writer: Writer::new(out),
            options,
            linked: HashMap::new(),
            grafts: HashMap::new(),
            empty: HashSet::new(),
            device: None,
            content: 0,
            hand: None,
        }
    }

    /// From now on, where the archive would get what is found as `path`, it gets what `tree` is a handle of.
    pub fn graft(&mut self, path: Vec<u8>, tree: OwnedFd) {
        self.grafts.insert(path, tree);
    }

    /// From now on, the directory that becomes `path` of the archive is packed without its content.
    pub fn leave_empty(&mut self, path: Vec<u8>) {
        self.empty.insert(path);
    }

    /// A member that is made up, not read from a tree.
    pub fn append(&mut self, entry: &Entry) -> Result<(), Error> {
        self.writer.append(entry, &mut std::io::empty())
    }

    /// Adds `name` in the directory `parent`, with all below it, as `path` of the archive. Links are not followed.
    pub fn add(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<(), Error> {
        if path.len() > PATH_BYTES_MAX {
            return Err(Error::Entry { path: shown(path), what: "path too long" });
        }
        if self.options.leave_out.contains(path) {
            return Ok(());
        }
        if let Some(tree) = self.grafts.remove(path) {
            return self.add_handle(&tree, path);
        }
        // A handle is looked at before anything is opened: to open a device is to do something to it, and a name may be
        // another's at any moment.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(handle) => self.add_handle(&handle, path),
            // It went away while its directory was listed: the tree may be in use.
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("open", path, errno)),
        }
    }

    /// Adds what `handle` (`O_PATH` is enough) is a handle of, with all below it, as `path` of the archive. What is
    /// below has a slash behind `path` in its own, even if that is empty.
    pub fn add_handle(&mut self, handle: &OwnedFd, path: &[u8]) -> Result<(), Error> {
        let stat = rustix::fs::fstat(handle).map_err(|errno| failed("stat", path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(handle, &stat, path),
            FileType::Directory => self.directory(handle, &stat, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(handle, "", Vec::new())
                    .map_err(|errno| failed("read link", path, errno))?;
                self.linkable(&stat, Kind::Symlink(target.into_bytes()), path)
            }
            FileType::CharacterDevice if self.options.overlay_upper && stat.st_rdev == 0 => {
                self.whiteout(path, stat.st_mtime)
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
        const NOBODY: u32 = 65534;
        let lowered = |id: u32, offset: u32| id.checked_sub(offset).unwrap_or(NOBODY);
        let (users, groups) = self.options.owner_offset;
        let own = (lowered(stat.st_uid, users), lowered(stat.st_gid, groups));
        let (uid, gid) = self.options.owner.unwrap_or(own);
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
            apart: false,
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

    fn file(&mut self, handle: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), Error> {
        if let Some(target) = self.earlier_name(stat, path) {
            let entry = self.entry(stat, Kind::HardLink(target), path);
            return self.writer.append(&entry, &mut std::io::empty());
        }
        let file = reopen(handle, OFlags::RDONLY).map_err(|errno| failed("open", path, errno))?;
        let mut entry = self.entry(stat, Kind::File, path);
        entry.xattrs = self.xattrs(file.as_fd(), path)?;
        self.content += entry.size;
        if let Some(hand) = self.hand {
            entry.apart = hand(self.writer.out(), &file, entry.size).map_err(Error::Write)?;
        }
        self.writer.append(&entry, &mut File::from(file))
    }

    fn directory(&mut self, handle: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(handle, c".", flags, Mode::empty())
            .map_err(|errno| failed("open", path, errno))?;
        let mut entry = self.entry(stat, Kind::Directory, path);
        entry.xattrs = self.xattrs(directory.as_fd(), path)?;
        self.writer.append(&entry, &mut std::io::empty())?;
        if self.options.overlay_upper && opaque(directory.as_fd(), path)? {
            self.opaque_marker(path)?;
        }
        if self.empty.contains(path) || self.is_of_the_kernel(&directory, stat, path)? {
            return Ok(());
        }
        let outer = self.device.replace(stat.st_dev);
        for name in names(&directory, path)? {
            let child = [path, b"/", name.to_bytes()].concat();
            self.add(directory.as_fd(), &name, &child)?;
        }
        self.device = outer;
        Ok(())
    }

    /// Whether a directory is on a file system whose content stays out; asked where one begins.
    fn is_of_the_kernel(&self, directory: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<bool, Error> {
        if !self.options.skip_kernel_files || self.device == Some(stat.st_dev) {
            return Ok(false);
        }
        let kind = rustix::fs::fstatfs(directory).map_err(|errno| failed("stat", path, errno))?.f_type;
        Ok(KERNEL_FILES.contains(&(kind as u64)))
    }

    fn opaque_marker(&mut self, directory: &[u8]) -> Result<(), Error> {
        let path = crate::unpack::join(directory, b".wh..wh..opq");
        let marker = Entry { path, mode: 0, ..Entry::file("", 0) };
        self.writer.append(&marker, &mut std::io::empty())
    }

    fn whiteout(&mut self, path: &[u8], seconds: i64) -> Result<(), Error> {
        let at = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        let marked = [&path[..at], b".wh.", &path[at..]].concat();
        let mtime = self.options.mtime.unwrap_or(Time { seconds, nanos: 0 });
        let marker = Entry { path: marked, mode: 0, mtime, ..Entry::file("", 0) };
        self.writer.append(&marker, &mut std::io::empty())
    }

    /// The attributes that travel: see `unpack`, which sets the same ones.
    fn xattrs(&self, descriptor: BorrowedFd<'_>, path: &[u8]) -> Result<Xattrs, Error> {
        // Most files have none or few: the large buffer is for the others.
        let mut few = [0u8; 512];
        let mut many = Vec::new();
        let listed = match rustix::fs::flistxattr(descriptor, &mut few[..]) {
            Err(Errno::RANGE) => {
                many.resize(64 << 10, 0);
                rustix::fs::flistxattr(descriptor, &mut many[..]).map(|count| &many[..count])
            }
            other => other.map(|count| &few[..count]),
        };
        let list = match listed {
            Ok([]) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(list) => list,
            Err(errno) => return Err(failed("list attributes of", path, errno)),
        };
        let mut found = Vec::new();
        for name in list.split(|&b| b == 0).filter(|name| !name.is_empty()) {
            if self.options.overlay_upper
                && matches!(name, b"trusted.overlay.redirect" | b"trusted.overlay.metacopy")
            {
                let what = "an overlayfs redirect or metacopy".to_owned();
                return Err(Error::Unsupported { path: shown(path), what });
            }
            if !crate::unpack::travels(name) {
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

impl Packer<Outlet> {
    /// Packs for somebody who takes the content of large files as descriptors.
    pub fn handing(out: Outlet, options: PackOptions) -> Packer<Outlet> {
        let hand: Hand<Outlet> = |outlet, file, size| {
            let takes = outlet.takes(file.as_fd(), size);
            if takes {
                outlet.hand(file.try_clone()?, size)?;
            }
            Ok(takes)
        };
        Packer { hand: Some(hand), ..Packer::new(out, options) }
    }
}

/// Opens what a handle is a handle of.
fn reopen(handle: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
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
