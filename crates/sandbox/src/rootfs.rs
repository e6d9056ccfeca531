//! The container's root: assembled from detached mounts, then entered.
//!
//! Nothing here resolves a path of the container by string: every target is found from a descriptor of the new
//! root, and what is mounted there is moved onto the descriptor that was found.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci::runtime::{Mount, Spec};
use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags};
use sys::Root;
use sys::mount::{Attributes, Change, Propagation};

use crate::cgroup::Cgroup;
use crate::error::{Error, Step};
use crate::options::{Options, propagation};
use crate::sources::{Sources, clone_below, clone_tree, new_layers, new_mount};

/// A root under construction, and handles of what was mounted in it.
#[derive(Debug)]
pub(crate) struct NewRoot {
    pub root: Root,
    mount: OwnedFd,
    /// The container's own procfs.
    pub proc: Option<OwnedFd>,
    /// Its terminals.
    pub devpts: Option<OwnedFd>,
    null: OwnedFd,
    /// Mounts that turn read-only when everything below them is in place.
    read_only_later: Vec<OwnedFd>,
    /// The root is to be shared, which it must not be yet when it becomes the root (`pivot_root(2)`).
    shared_later: Option<bool>,
    /// SELinux's, of new filesystems; empty: none.
    label: String,
}

/// An empty filesystem that stays so.
fn empty_directory() -> Result<OwnedFd, Error> {
    let data = vec!["mode=755".into(), "nr_blocks=1".into(), "nr_inodes=1".into()];
    let options = Options { data, ..Options::default() };
    new_mount("tmpfs", Some(Path::new("tmpfs")), &options, Attributes::READ_ONLY)
}

/// Moves a detached mount onto a target.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// Puts the root's mount into this mount namespace.
pub(crate) fn begin(sources: &Sources, label: &str) -> Result<NewRoot, Error> {
    let duplicate = |descriptor: &OwnedFd| descriptor.try_clone().step(|| "duplicate a descriptor".into());
    let mount = duplicate(&sources.root)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, "/", flags).step(|| "attach the root filesystem".into())?;
    let root = Root::from_descriptor(duplicate(&mount)?);
    Ok(NewRoot {
        root,
        mount,
        proc: None,
        devpts: None,
        null: duplicate(&sources.null)?,
        read_only_later: Vec::new(),
        shared_later: None,
        label: label.to_owned(),
    })
}

impl NewRoot {
    /// Puts one mount of the spec in its place.
    pub fn place(
        &mut self,
        mount: &Mount,
        options: &Options<'_>,
        opened: Option<OwnedFd>,
        cgroup: &Cgroup,
        own_cgroup_namespace: bool,
    ) -> Result<(), Error> {
        let destination = &mount.destination;
        if let Some(tree) = opened {
            return self.place_bind(destination, &tree);
        }
        match mount.kind.as_str() {
            "cgroup" | "cgroup2" => self.place_cgroup(mount, options, cgroup, own_cgroup_namespace),
            kind @ ("proc" | "sysfs") => {
                let target = self.exact_directory(destination, kind)?;
                let made = new_mount(kind, Some(Path::new(kind)), options, options.set)?;
                self.finish(destination, &made, target.as_fd(), options)?;
                if kind == "proc" && self.proc.is_none() {
                    self.proc = Some(made);
                }
                Ok(())
            }
            "overlay" if options.subpath.is_some() => {
                let made = new_layers(options, options.set)?;
                let part = self.part(made, options.subpath.unwrap_or_default(), mount)?;
                self.place_bind(destination, &part)
            }
            kind => {
                let mut options = options.clone();
                if matches!(kind, "tmpfs" | "devpts") && !self.label.is_empty() {
                    options.data.push(format!("context={}", self.label).into());
                }
                if kind == "tmpfs" {
                    self.take_mode(destination, &mut options);
                }
                let target = self
                    .root
                    .create_directories(destination, DIRECTORY)
                    .step(|| format!("create mount point {}", destination.display()))?;
                // A tmpfs that is to be read-only must be filled first.
                let later = kind == "tmpfs" && options.set.contains(Attributes::READ_ONLY);
                let attributes = if later { options.set.without(Attributes::READ_ONLY) } else { options.set };
                if options.read_only && !matches!(kind, "tmpfs" | "devpts" | "mqueue") {
                    options.flags.push("ro");
                }
                let made = match kind {
                    "overlay" => new_layers(&options, attributes)?,
                    _ => new_mount(kind, mount.source.as_deref(), &options, attributes)?,
                };
                if kind == "mqueue" && !self.label.is_empty() {
                    label_root(&made, &self.label).step(|| format!("label {}", destination.display()))?;
                }
                if options.copy_up {
                    crate::copy_up::copy(target.as_fd(), made.as_fd(), &options)
                        .step(|| format!("fill {} from the image", destination.display()))?;
                }
                self.finish(destination, &made, target.as_fd(), &options)?;
                if later {
                    self.read_only_later.push(made);
                } else if kind == "devpts" && destination == Path::new("/dev/pts") {
                    self.devpts = Some(made);
                }
                Ok(())
            }
        }
    }

    /// A tmpfs without a mode of its own takes that of the directory it covers, if there is one.
    fn take_mode(&self, destination: &Path, options: &mut Options<'_>) {
        if options.data.iter().any(|option| option.starts_with("mode=")) {
            return;
        }
        let covered = self.root.open(destination, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        if let Some(stat) = covered.ok().and_then(|covered| rustix::fs::fstat(&covered).ok()) {
            options.data.push(format!("mode={:o}", stat.st_mode & 0o7777).into());
        }
    }

    fn finish(
        &self,
        destination: &Path,
        made: &OwnedFd,
        target: BorrowedFd<'_>,
        options: &Options<'_>,
    ) -> Result<(), Error> {
        let step = || format!("mount {}", destination.display());
        if let Some((kind, recursive)) = options.propagation {
            let change = Change { propagation: Some(kind), ..Change::default() };
            sys::mount::change(made.as_fd(), recursive, &change).step(step)?;
        }
        attach(made.as_fd(), target).step(step)
    }

    /// Clones a part of a new mount. Kernels before 6.15 clone mounts only that have a place: it lies over the root
    /// meanwhile.
    fn part(&self, made: OwnedFd, subpath: &str, mount: &Mount) -> Result<OwnedFd, Error> {
        let step = || format!("mount {}", mount.destination.display());
        attach(made.as_fd(), self.mount.as_fd()).step(step)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let here = rustix::fs::open(".", flags, Mode::empty()).step(step)?;
        rustix::process::fchdir(&made).step(step)?;
        let part = clone_below(&Root::from_descriptor(made), subpath, false, mount);
        rustix::mount::unmount(".", UnmountFlags::DETACH).step(step)?;
        rustix::process::fchdir(&here).step(step)?;
        part
    }

    fn place_bind(&self, destination: &Path, tree: &OwnedFd) -> Result<(), Error> {
        let step = || format!("create mount point {}", destination.display());
        let stat = rustix::fs::fstat(tree).step(step)?;
        let target = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.root.create_directories(destination, DIRECTORY)
        } else {
            self.root.create_file(destination, DIRECTORY)
        };
        let target = target.step(step)?;
        attach(tree.as_fd(), target.as_fd()).map_err(|error| match error {
            Errno::NOTDIR => Error::invalid(format!(
                "mount {}: are you trying to mount a directory onto a file (or vice-versa)?",
                destination.display()
            )),
            error => Error::system(format!("mount {}", destination.display()), error),
        })
    }

    /// The place of procfs and sysfs. Programs trust what they find there, so it must be what it seems.
    fn exact_directory(&self, destination: &Path, kind: &str) -> Result<OwnedFd, Error> {
        let step = || format!("create mount point {}", destination.display());
        match self.root.open_exact(destination, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.root.create_directories(destination, DIRECTORY).step(step)?;
                self.root.open_exact(destination, OFlags::PATH | OFlags::DIRECTORY).step(step)
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
                Err(Error::invalid(format!("filesystem {kind:?} must be mounted on ordinary directory")))
            }
            other => other.step(step),
        }
    }

    fn place_cgroup(
        &mut self,
        mount: &Mount,
        options: &Options<'_>,
        cgroup: &Cgroup,
        own_namespace: bool,
    ) -> Result<(), Error> {
        let destination = &mount.destination;
        let step = || format!("mount {}", destination.display());
        let target = self
            .root
            .create_directories(destination, DIRECTORY)
            .step(|| format!("create mount point {}", destination.display()))?;
        if cgroup.is_unified() {
            // Only in a namespace of one's own is a new mount the container's part, and none that changes the
            // machine's options.
            let made = match own_namespace {
                true => new_mount("cgroup2", Some(Path::new("cgroup")), &Options::default(), options.set),
                false => Err(Error::System { step: String::new(), errno: libc::EPERM }),
            };
            let made = match made {
                Err(Error::System { errno: libc::EPERM | libc::EBUSY, .. }) => {
                    let directory = cgroup.unified_directory();
                    let source =
                        if own_namespace { &*directory } else { Path::new(crate::cgroup::layout::ROOT) };
                    let tree = crate::sources::open_tree(source, true).step(step)?;
                    let change = Change { set: options.set, ..Change::default() };
                    sys::mount::change(tree.as_fd(), false, &change).step(step)?;
                    tree
                }
                other => other?,
            };
            return self.finish(destination, &made, target.as_fd(), options);
        }
        let tmpfs = Options { data: vec!["mode=755".into()], ..Options::default() };
        let base = new_mount(
            "tmpfs",
            Some(Path::new("cgroup")),
            &tmpfs,
            options.set.without(Attributes::READ_ONLY),
        )?;
        attach(base.as_fd(), target.as_fd()).step(step)?;
        for (name, directory, controllers) in cgroup.mounts() {
            rustix::fs::mkdirat(&base, &*name, DIRECTORY).step(step)?;
            let place = rustix::fs::openat(&base, &*name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .step(step)?;
            let tree = crate::sources::open_tree(&directory, false).step(step)?;
            let change = Change { set: options.set, clear: options.clear, ..Change::default() };
            sys::mount::change(tree.as_fd(), false, &change).step(step)?;
            attach(tree.as_fd(), place.as_fd()).step(step)?;
            if name.contains(',') {
                for controller in controllers {
                    rustix::fs::symlinkat(&*name, &base, controller).step(step)?;
                }
            }
        }
        if options.set.contains(Attributes::READ_ONLY) {
            self.read_only_later.push(base);
        }
        Ok(())
    }

    /// Binds the terminal to `/dev/console`.
    pub fn place_console(&self, terminal: BorrowedFd<'_>) -> Result<(), Error> {
        let step = || "mount /dev/console".to_owned();
        let target =
            self.root.create_file(Path::new("/dev/console"), Mode::from_raw_mode(0o600)).step(step)?;
        let tree = clone_tree(terminal, false).step(step)?;
        attach(tree.as_fd(), target.as_fd()).step(step)
    }

    /// Covers paths: files with the null device, directories with an empty filesystem.
    pub fn mask(&self, paths: &[impl AsRef<Path>]) -> Result<(), Error> {
        // The first cover of each kind is made, the others are clones of it.
        let (mut empty, mut null): (Option<OwnedFd>, Option<OwnedFd>) = (None, None);
        for path in paths {
            let step = || format!("mask {}", path.as_ref().display());
            let Some(target) = self.existing(path.as_ref()).step(step)? else { continue };
            let stat = rustix::fs::fstat(&target).step(step)?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let cover = match if directory { &empty } else { &null } {
                Some(cover) => clone_tree(cover, false).step(step)?,
                None if directory => empty_directory()?,
                None => self.null_cover()?,
            };
            attach(cover.as_fd(), target.as_fd()).step(step)?;
            if directory {
                empty.get_or_insert(cover);
            } else {
                null.get_or_insert(cover);
            }
        }
        Ok(())
    }

    /// The null device as a mount: the container's own where it is what it should be, else the host's. Read-only,
    /// so that nobody in the container changes the mode or owner of a node that may be the host's.
    fn null_cover(&self) -> Result<OwnedFd, Error> {
        let step = || "clone the null device".to_owned();
        let own = self.root.open_exact(Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW).ok();
        let own = own.filter(|own| rustix::fs::fstat(own).is_ok_and(|stat| crate::sources::is_null(&stat)));
        let tree = clone_tree(own.as_ref().unwrap_or(&self.null), false).step(step)?;
        let change = Change { set: Attributes::READ_ONLY.with(Attributes::NO_EXEC), ..Change::default() };
        sys::mount::change(tree.as_fd(), false, &change).step(step)?;
        Ok(tree)
    }

    /// Makes paths read-only.
    pub fn protect(&self, paths: &[impl AsRef<Path>]) -> Result<(), Error> {
        for path in paths {
            let step = || format!("make {} read-only", path.as_ref().display());
            let Some(target) = self.existing(path.as_ref()).step(step)? else { continue };
            let tree = clone_tree(&target, true).step(step)?;
            let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
            sys::mount::change(tree.as_fd(), true, &change).step(step)?;
            attach(tree.as_fd(), target.as_fd()).step(step)?;
        }
        Ok(())
    }

    fn existing(&self, path: &Path) -> std::io::Result<Option<OwnedFd>> {
        match self.root.locate(path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Turns read-only what waited for it, and the root itself if it is to be.
    pub fn seal(&mut self, spec: &Spec) -> Result<(), Error> {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        for mount in self.read_only_later.drain(..) {
            sys::mount::change(mount.as_fd(), false, &change).step(|| "make a mount read-only".into())?;
        }
        if spec.root.as_ref().is_some_and(|root| root.readonly) {
            sys::mount::change(self.mount.as_fd(), false, &change)
                .step(|| "make the root read-only".into())?;
        }
        let wanted = spec.linux.as_ref().map_or("", |linux| &linux.rootfs_propagation);
        match propagation(wanted) {
            // What it is already.
            Some((Propagation::Private, _)) | None if wanted.is_empty() || wanted.ends_with("private") => {
                Ok(())
            }
            Some((Propagation::Shared, recursive)) => {
                self.shared_later = Some(recursive);
                Ok(())
            }
            Some((kind, recursive)) => {
                let change = Change { propagation: Some(kind), ..Change::default() };
                sys::mount::change(self.mount.as_fd(), recursive, &change)
                    .step(|| format!("make the root {wanted}"))
            }
            None => Err(Error::invalid(format!("root propagation {wanted:?} is not known"))),
        }
    }

    /// Makes the root the process's root, and the host's mounts vanish from its namespace.
    pub fn enter(&self, pivot: bool) -> Result<(), Error> {
        rustix::process::fchdir(&self.mount).step(|| "enter the root filesystem".into())?;
        if pivot {
            // With both the same directory the old root ends up on top of the new one, to be taken off at once.
            rustix::process::pivot_root(".", ".").step(|| "pivot_root".into())?;
            rustix::mount::unmount(".", UnmountFlags::DETACH).step(|| "detach the host's mounts".into())?;
        } else {
            rustix::process::chroot(".").step(|| "chroot".into())?;
        }
        if let Some(recursive) = self.shared_later {
            let change = Change { propagation: Some(Propagation::Shared), ..Change::default() };
            sys::mount::change(self.mount.as_fd(), recursive, &change).step(|| "share the root".into())?;
        }
        rustix::process::chdir("/").step(|| "enter the root filesystem".into())
    }
}

/// Labels the root directory of a mount. The namespace of message queues has made theirs before anybody mounts them,
/// and SELinux takes no label for a filesystem that is there already.
fn label_root(made: &OwnedFd, label: &str) -> Result<(), Errno> {
    let root =
        rustix::fs::openat(made, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fsetxattr(&root, c"security.selinux", label.as_bytes(), XattrFlags::empty()) {
        // The policy knows no labels on it.
        Err(Errno::NOTSUP) => Ok(()),
        labelled => labelled,
    }
}
