//! The drivers whose layers are whole trees, each beginning as a copy of what it lies on: `vfs` copies every file,
//! `btrfs` makes a snapshot of a subvolume. A container has such a tree (`fs`) too, and `made`, an empty file that says
//! when the copy was done: what has changed since is looked at closely.
//!
//! Nothing is mounted but the tree itself, so these work where overlayfs does not. The price of `vfs` is a copy of the
//! whole image for each layer and each container.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec};
use rustix::io::Errno;

use crate::shelf::{Shelf, make_directory};
use crate::{
    Change, DEPTH_MAX, Difference, Doubted, Error, Form, Layer, Mounts, Rest, Snapshotter, Stage, Usage,
    compare, tree,
};

/// One of the two drivers on one directory; one process at a time may have it open.
#[derive(Debug)]
pub struct Whole {
    shelf: Shelf,
    copying: Copying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copying {
    Files,
    Snapshots,
}

pub const VFS: &str = "vfs";
pub const BTRFS: &str = "btrfs";

const TREE: &str = "fs";
const MADE: &str = "made";

impl Whole {
    /// Opens or makes the directory of `vfs`.
    pub fn vfs(root: &Path, doubted: &[Doubted]) -> Result<Whole, Error> {
        Ok(Whole { shelf: Shelf::open(root, Form::Whole, tree::remove, doubted)?, copying: Copying::Files })
    }

    /// Opens or makes the directory of `btrfs`, which must lie on one.
    pub fn btrfs(root: &Path, doubted: &[Doubted]) -> Result<Whole, Error> {
        let present = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !is_on_btrfs(present).map_err(crate::io("look at", present))? {
            return Err(Error::NotBtrfs(present.to_owned()));
        }
        Ok(Whole { shelf: Shelf::open(root, Form::Whole, remove, doubted)?, copying: Copying::Snapshots })
    }

    /// Makes the tree `place` like `source`, or an empty one.
    fn copy(&self, source: Option<&Path>, place: &Path) -> Result<(), Error> {
        let copied = match (self.copying, source) {
            (Copying::Files, None) => return make_directory(place, 0o755),
            (Copying::Files, Some(source)) => {
                make_directory(place, 0o700)?;
                copy_files(source, place)
            }
            (Copying::Snapshots, source) => {
                let made = subvolume(place, source);
                if made.is_ok() && source.is_none() {
                    // The process's umask must not narrow what a container's users see.
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                    return std::fs::set_permissions(place, mode).map_err(crate::io("create", place));
                }
                made
            }
        };
        copied.map_err(crate::io("make a copy as", place))
    }

    /// A container's tree, and that of what it lies on.
    fn trees(&self, container: &str) -> Result<(PathBuf, Option<PathBuf>), Error> {
        let top = self.shelf.top(container)?.map(|top| self.shelf.layer_directory(&top));
        Ok((self.shelf.container_directory(container)?.join(TREE), top))
    }

    fn tree(&self, container: &str) -> Result<PathBuf, Error> {
        Ok(self.trees(container)?.0)
    }
}

impl Snapshotter for Whole {
    fn driver(&self) -> &'static str {
        match self.copying {
            Copying::Files => VFS,
            Copying::Snapshots => BTRFS,
        }
    }

    fn form(&self) -> Form {
        Form::Whole
    }

    fn stage(&self, parent: Option<&Digest>) -> Result<Stage, Error> {
        let stage = self.shelf.stage(parent, Vec::new())?;
        match parent {
            None => self.copy(None, &stage.directory())?,
            Some(parent) => {
                self.shelf.hold(parent, |source| self.copy(Some(source), &stage.directory()))?;
            }
        }
        Ok(stage)
    }

    /// What a stage began as cannot be changed.
    fn reparent(&self, stage: Stage, parent: &Digest) -> Result<Stage, Error> {
        match stage.parent.as_ref() == Some(parent) {
            true => Ok(stage),
            false => Err(Error::Parent(parent.clone())),
        }
    }

    fn commit(&self, stage: Stage, chain: &Digest, bytes: u64) -> Result<(), Error> {
        self.shelf.commit(stage, chain, bytes)
    }

    fn adopt(&self, container: &str, chain: &Digest, bytes: u64) -> Result<Rest, Error> {
        let tree = self.tree(container)?;
        self.shelf.adopt(container, chain, bytes, |directory| {
            let has_more = self.copying == Copying::Snapshots
                && open(&tree)
                    .and_then(|tree| sys::btrfs::has_subvolumes(tree.as_fd()))
                    .map_err(crate::io("adopt", &tree))?;
            if !has_more {
                return std::fs::rename(&tree, directory).map_err(crate::io("adopt", &tree));
            }
            // Subvolumes that the container made in its own: snapshots would show them empty.
            self.copy(None, directory)?;
            copy_files(&tree, directory).map_err(crate::io("adopt", &tree))
        })
    }

    fn layer(&self, chain: &Digest) -> Option<Layer> {
        self.shelf.layer(chain)
    }

    fn layers(&self) -> Vec<Layer> {
        self.shelf.layers()
    }

    fn remove(&self, chain: &Digest) -> Result<Rest, Error> {
        self.shelf.remove(chain)
    }

    fn lowers(&self, chain: &Digest) -> Result<Vec<PathBuf>, Error> {
        let mut all = self.shelf.layer_directories(Some(chain))?;
        all.truncate(1);
        Ok(all)
    }

    fn create(&self, container: &str, top: Option<&Digest>) -> Result<(), Error> {
        let source = top.map(|top| self.shelf.layer_directory(top));
        self.shelf.create(container, top, |directory| {
            self.copy(source.as_deref(), &directory.join(TREE))?;
            // A snapshot is on disk when it is there. A copy is not, and the container's record will be.
            if self.copying == Copying::Files || source.is_none() {
                self.shelf.sync()?;
            }
            let made = directory.join(MADE);
            std::fs::write(&made, b"").map_err(crate::io("create", &made))
        })
    }

    fn limit(&self, _container: &str, _bytes: u64) -> Result<(), Error> {
        Err(Error::NoLimit(self.driver()))
    }

    fn mounts(&self, container: &str) -> Result<Mounts, Error> {
        self.tree(container).map(Mounts::Tree)
    }

    fn open_root(&self, container: &str) -> Result<OwnedFd, Error> {
        let tree = self.tree(container)?;
        open(&tree).map_err(crate::io("open", &tree))
    }

    fn open_view(&self, container: &str) -> Result<OwnedFd, Error> {
        self.open_root(container)
    }

    fn open_layers(&self, chain: &Digest) -> Result<OwnedFd, Error> {
        self.layer(chain).ok_or_else(|| Error::NoLayer(chain.clone()))?;
        let tree = self.shelf.layer_directory(chain);
        open(&tree).map_err(crate::io("open", &tree))
    }

    fn top(&self, container: &str) -> Result<Option<Digest>, Error> {
        self.shelf.top(container)
    }

    fn containers(&self) -> Vec<String> {
        self.shelf.containers()
    }

    fn usage(&self, container: &str) -> Result<Usage, Error> {
        let tree = self.tree(container)?;
        let changes = self.changes(container)?;
        let measure = || compare::usage(&open(&tree)?, &changes);
        measure().map_err(crate::io("measure", &tree))
    }

    fn changes(&self, container: &str) -> Result<Vec<Change>, Error> {
        let (tree, below) = self.trees(container)?;
        let made = self.shelf.container_directory(container)?.join(MADE);
        let compare = || {
            let below = below.as_deref().map(open).transpose()?;
            compare::trees(&open(&tree)?, below.as_ref(), made_at(&made))
        };
        compare().map_err(crate::io("compare", &tree))
    }

    fn difference(&self, container: &str) -> Result<Difference, Error> {
        Ok(Difference::Paths { root: self.open_view(container)?, changes: self.changes(container)? })
    }

    fn destroy(&self, container: &str) -> Result<Rest, Error> {
        self.shelf.destroy(container)
    }

    fn sync(&self) -> Result<(), Error> {
        self.shelf.sync()
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Whether a directory lies on a btrfs.
pub fn is_on_btrfs(directory: &Path) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    sys::btrfs::is_btrfs(rustix::fs::open(directory, flags, Mode::empty())?.as_fd())
}

fn copy_files(source: &Path, place: &Path) -> io::Result<()> {
    sys::copy_tree(open(source)?, open(place)?).map(drop)
}

fn subvolume(place: &Path, source: Option<&Path>) -> io::Result<()> {
    let (parent, name) = tree::split(place)?;
    match source {
        None => sys::btrfs::create(parent.as_fd(), &name),
        Some(source) => sys::btrfs::snapshot(parent.as_fd(), &name, open(source)?.as_fd()),
    }
}

/// When a container's tree was whole; without that, everything may have changed since.
fn made_at(made: &Path) -> Timespec {
    let found = rustix::fs::lstat(made);
    found.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |stat| compare::changed_at(&stat))
}

/// Removes a directory of the shelf that may have a subvolume as its `fs`.
fn remove(holder: &Path) -> io::Result<()> {
    if let Ok(opened) = open(holder) {
        // What cannot be dropped as a whole is taken apart.
        let _ = drop_subvolume(&opened, c"fs", 0);
    }
    tree::remove(holder)
}

/// Drops a subvolume with those that a container has made in it.
fn drop_subvolume(parent: &OwnedFd, name: &CStr, depth: usize) -> io::Result<()> {
    match sys::btrfs::destroy(parent.as_fd(), name) {
        Err(error) if error.raw_os_error() == Some(Errno::NOTEMPTY.raw_os_error()) => {
            drop_inner(&below(parent, name)?, depth + 1)?;
            sys::btrfs::destroy(parent.as_fd(), name)
        }
        other => other,
    }
}

fn below(parent: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

fn drop_inner(directory: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if matches!(name.to_bytes(), b"." | b"..")
            || FileType::from_raw_mode(stat.st_mode) != FileType::Directory
        {
            continue;
        }
        let child = below(directory, name)?;
        match sys::btrfs::is_subvolume(child.as_fd())? {
            true => drop_subvolume(directory, name, depth)?,
            false => drop_inner(&child, depth + 1)?,
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests start programs.
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;
    use crate::contract;

    #[test]
    fn vfs_keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        contract::suite(directory.path(), &|root, doubted| Box::new(Whole::vfs(root, doubted).unwrap()));
    }

    #[test]
    fn btrfs_is_refused_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        if is_on_btrfs(directory.path()).unwrap() {
            return;
        }
        let error = Whole::btrfs(&directory.path().join("snapshots/btrfs"), &[]).unwrap_err().to_string();
        assert!(error.contains("prerequisites for driver not satisfied (wrong filesystem?)"), "{error}");
        assert!(!directory.path().join("snapshots").exists());
    }

    fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
        let ran = Command::new(program).args(arguments).output();
        let ran = ran.map_err(|error| format!("{program}: {error}"))?;
        match ran.status.success() {
            true => Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned()),
            false => Err(format!("{program}: {}", String::from_utf8_lossy(&ran.stderr).trim())),
        }
    }

    /// A btrfs in a file, mounted nowhere.
    fn new_btrfs(holder: &Path) -> Result<OwnedFd, String> {
        use rustix::mount::{
            FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
        };
        let image = holder.join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(256 << 20)).unwrap();
        let image = image.to_str().unwrap();
        output("mkfs.btrfs", &["-q", image])?;
        let device = output("losetup", &["--find", "--show", image])?;
        let mounted = (|| {
            let context = fsopen("btrfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "source", &device)?;
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        })();
        // The device goes when the mount does.
        output("losetup", &["--detach", &device])?;
        mounted.map_err(|errno| format!("mount: {errno}"))
    }

    #[test]
    fn btrfs_keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        let mounted = match new_btrfs(directory.path()) {
            Ok(mounted) => mounted,
            Err(why) => return eprintln!("skipped: no btrfs can be made here ({why})"),
        };
        let root = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
        contract::suite(&root, &|root, doubted| Box::new(Whole::btrfs(root, doubted).unwrap()));
        subvolumes_of_containers_are_no_obstacle(&root);
        let left = std::fs::read_dir(&root).unwrap().count();
        assert_eq!(left, 0, "left behind on the btrfs");
    }

    fn subvolumes_of_containers_are_no_obstacle(root: &Path) {
        let holder = tempfile::tempdir_in(root).unwrap();
        let driver = Whole::btrfs(holder.path(), &[]).unwrap();
        let make = |container: &str| {
            driver.create(container, None).unwrap();
            let root = driver.open_root(container).unwrap();
            rustix::fs::mkdirat(&root, "d", Mode::RWXU).unwrap();
            sys::btrfs::create(below(&root, c"d").unwrap().as_fd(), c"inner").unwrap();
            let inner = below(&below(&root, c"d").unwrap(), c"inner").unwrap();
            sys::btrfs::create(inner.as_fd(), c"innermost").unwrap();
            let flags = OFlags::WRONLY | OFlags::CREATE;
            rustix::fs::openat(&inner, "file", flags, Mode::RWXU).unwrap();
        };
        make("gone");
        drop(driver.destroy("gone").unwrap());
        assert_eq!(std::fs::read_dir(holder.path().join("rest")).unwrap().count(), 0);
        make("kept");
        let chain = Digest::of(b"kept");
        drop(driver.adopt("kept", &chain, 0).unwrap());
        driver.create("above", Some(&chain)).unwrap();
        let root = driver.open_root("above").unwrap();
        let found = rustix::fs::statat(&root, "d/inner/file", AtFlags::empty());
        assert!(found.is_ok(), "a snapshot shows what was in an inner subvolume");
    }
}
