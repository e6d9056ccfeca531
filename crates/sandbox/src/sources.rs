//! What is mounted in a container, opened as detached mounts before any of it is in place.
//!
//! Sources are paths of the host, so they are opened while the host's mounts are still in sight. With a user
//! namespace the container's first process may not reach them; then its parent opens them and the process inherits
//! the descriptors.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::runtime::{LinuxDevice, LinuxIdMapping, Mount, Spec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsopen};
use rustix::process::{Pid, PidfdFlags};
use sys::mount::{Attributes, Change, Propagation};
use sys::process::{CloneOptions, Namespaces};
use sys::{Channel, Root};

use crate::error::{Error, Step, describe};
use crate::namespaces;
use crate::options::{Options, propagation};
use crate::plan::{Plan, RootfsSource};

const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Detached mounts, and handles of files of the host that are needed later.
#[derive(Debug)]
pub(crate) struct Sources {
    pub root: OwnedFd,
    /// For each mount of the spec: the bind mount, or none for what is made new.
    pub mounts: Vec<Option<OwnedFd>>,
    /// The host's `/dev/null`, which covers masked files.
    pub null: OwnedFd,
    /// Where device nodes cannot be made: the host's, to be bound.
    pub devices: Vec<Option<OwnedFd>>,
}

/// Opens everything. Who has a mount namespace of its own cuts it off from the host's meanwhile; who has not does
/// it for a process in a user namespace, which cannot make device nodes.
pub(crate) fn open(
    plan: &Plan<'_>,
    own_namespace: bool,
    options: &[Options<'_>],
    mappings: &Mappings,
) -> Result<Sources, Error> {
    let Plan { spec, rootfs, bundle, opened, .. } = plan;
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for ((mount, options), mapping) in spec.mounts.iter().zip(options).zip(&mappings.mounts) {
        let given = opened.iter().find(|(place, _)| *place == mount.destination);
        mounts.push(match (given, options.bind) {
            (Some((_, tree)), _) => {
                let tree = rustix::io::fcntl_dupfd_cloexec(tree, 3).step(|| "keep a mount".into())?;
                set_attributes(spec, options, tree.as_fd(), None)?;
                Some(tree)
            }
            (None, Some(recursive)) => Some(bind(spec, mount, options, recursive, bundle, mapping.as_ref())?),
            (None, None) => None,
        });
    }
    let null = open_null()?;
    let devices = if own_namespace { Vec::new() } else { device_nodes(spec)? };
    // Bind mounts may be meant to go on receiving the host's mounts, and are cloned by now.
    if own_namespace {
        make_private()?;
    }
    let label = spec.linux.as_ref().map_or("", |linux| &linux.mount_label);
    let root = open_root(label, rootfs, bundle, own_namespace, mappings.root.as_ref())?;
    Ok(Sources { root, mounts, null, devices })
}

/// Makes the device nodes of a container that cannot make them itself, in a filesystem that only their mounts show.
/// Who may not make nodes either takes the host's.
fn device_nodes(spec: &Spec) -> Result<Vec<Option<OwnedFd>>, Error> {
    let devices: Vec<_> = crate::devices::all(spec).collect();
    let made = new_mount("tmpfs", Some(Path::new("dev")), &Options::default(), Attributes::EMPTY).ok();
    let mut numbered = (0..).zip(&devices);
    let made = made.filter(|directory| {
        numbered
            .all(|(number, device): (u32, _)| make_node(directory, &number.to_string(), device, spec).is_ok())
    });
    let Some(made) = made else {
        return Ok(devices.iter().map(|device| open_tree(&device.path, false).ok()).collect());
    };
    let clone_all = || -> Result<Vec<OwnedFd>, Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let clone = |(number, device): (usize, &std::borrow::Cow<'_, LinuxDevice>)| {
            let node = rustix::fs::openat(&made, number.to_string(), flags, Mode::empty());
            node.and_then(|node| clone_tree(&node, false))
                .step(|| format!("create device {}", device.path.display()))
        };
        devices.iter().enumerate().map(clone).collect()
    };
    // Kernels before 6.15 clone mounts only that have a place.
    let nodes = clone_all().or_else(|_| {
        in_own_mounts(|| {
            attach_over(&made, Path::new("/dev"))?;
            clone_all()
        })
    });
    Ok(nodes?.into_iter().map(Some).collect())
}

/// Has a process with a mount namespace of its own make detached mounts, for what needs others to have places: nobody
/// else sees them there.
fn in_own_mounts(make: impl FnOnce() -> Result<Vec<OwnedFd>, Error>) -> Result<Vec<OwnedFd>, Error> {
    let step = || "make mounts in a namespace of their own".to_owned();
    let (ours, theirs) = Channel::pair().step(|| "make a socket pair".into())?;
    let options = CloneOptions { namespaces: Namespaces::MOUNT, cgroup: None, sibling: false };
    let (child, _) = sys::process::clone(&options, || {
        sys::process::close_own_copy(&ours);
        let said = match make_private().and_then(|()| make()) {
            Ok(trees) => trees.iter().try_for_each(|tree| theirs.send(b"tree", &[tree.as_fd()])),
            Err(error) => theirs.send(error.to_string().as_bytes(), &[]),
        };
        i32::from(said.is_err())
    })
    .step(step)?;
    drop(theirs);
    let (mut trees, mut refused) = (Vec::new(), None);
    let received = loop {
        let (mut message, mut descriptors) = ([0; 1024], Vec::new());
        match ours.receive(&mut message, &mut descriptors) {
            Ok(0) => break Ok(()),
            Ok(_) if !descriptors.is_empty() => trees.append(&mut descriptors),
            Ok(length) => refused = Some(String::from_utf8_lossy(&message[..length]).into_owned()),
            Err(error) => break Err(error),
        }
    };
    let _ = sys::process::wait(child);
    received.step(step)?;
    match refused {
        Some(text) => Err(Error::invalid(text)),
        None => Ok(trees),
    }
}

/// Puts a detached mount over a directory.
fn attach_over(mount: &OwnedFd, place: &Path) -> Result<(), Error> {
    let step = || format!("mount over {}", place.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(place, flags, Mode::empty()).step(step)?;
    crate::rootfs::attach(mount.as_fd(), place.as_fd()).step(step)
}

fn make_node(directory: &OwnedFd, name: &str, device: &LinuxDevice, spec: &Spec) -> Result<(), Errno> {
    crate::devices::make(directory, name.as_ref(), device)?;
    let host = |id: u32, mappings: &[LinuxIdMapping]| {
        let mut all = mappings.iter();
        let found = all.find(|one| id.checked_sub(one.container_id).is_some_and(|offset| offset < one.size));
        found.map_or(id, |one| one.host_id + (id - one.container_id))
    };
    let (users, groups) = spec
        .linux
        .as_ref()
        .map_or((&[][..], &[][..]), |linux| (&linux.uid_mappings[..], &linux.gid_mappings[..]));
    let user = rustix::fs::Uid::from_raw(host(device.uid.unwrap_or(0), users));
    let group = rustix::fs::Gid::from_raw(host(device.gid.unwrap_or(0), groups));
    rustix::fs::chownat(directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
}

/// Makes no mount of this namespace spread to another one, nor from there.
pub(crate) fn make_private() -> Result<(), Error> {
    let slash =
        rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(|| "open /".into())?;
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    sys::mount::change(slash.as_fd(), true, &private).step(|| "make the mounts private".into())
}

fn open_null() -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).step(|| "open /dev/null".into())?;
    let stat = rustix::fs::fstat(&null).step(|| "look at /dev/null".into())?;
    if !is_null(&stat) {
        return Err(Error::invalid("/dev/null of this machine is not the null device"));
    }
    Ok(null)
}

/// Whether a file is the null device.
pub(crate) fn is_null(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3)
}

fn bind(
    spec: &Spec,
    mount: &Mount,
    options: &Options<'_>,
    recursive: bool,
    bundle: &Path,
    mapping: Option<&OwnedFd>,
) -> Result<OwnedFd, Error> {
    let source = mount.source.as_deref().unwrap_or(Path::new(""));
    if source.as_os_str().is_empty() {
        return Err(Error::invalid(format!("mount {} has no source", mount.destination.display())));
    }
    let path = bundle.join(source);
    let missing = |error: Errno| match error {
        Errno::NOENT => Error::invalid(format!("bind source path does not exist: {}", path.display())),
        error => Error::system(format!("open mount source {}", path.display()), error),
    };
    let tree = match options.subpath {
        None => open_tree(&path, recursive).map_err(missing)?,
        Some(subpath) => {
            let root = Root::open_path(&path).step(|| format!("open mount source {}", path.display()))?;
            clone_below(&root, subpath, recursive, mount)?
        }
    };
    set_attributes(spec, options, tree.as_fd(), mapping).map_err(|error| match error {
        Error::System { errno, .. } => {
            Error::System { step: format!("set the options of mount {}", mount.destination.display()), errno }
        }
        error => error,
    })?;
    Ok(tree)
}

/// Clones what is at a place below a directory. Any name on the way may be a link that somebody changes meanwhile.
pub(crate) fn clone_below(
    root: &Root,
    subpath: &str,
    recursive: bool,
    mount: &Mount,
) -> Result<OwnedFd, Error> {
    let step = || format!("find {subpath:?} for mount {}", mount.destination.display());
    let found = root.locate(Path::new(subpath)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::invalid(format!(
            "mount {}: cannot access path {subpath:?} in its source: no such file or directory",
            mount.destination.display()
        )),
        _ => Error::System { step: step(), errno: error.raw_os_error().unwrap_or(libc::EIO) },
    })?;
    clone_tree(&found, recursive).step(step)
}

fn set_attributes(
    spec: &Spec,
    options: &Options<'_>,
    tree: impl AsFd,
    mapping: Option<&OwnedFd>,
) -> Result<(), Error> {
    let step = || String::new();
    let given = options.propagation.or_else(|| {
        // As the root's own propagation would have left it.
        let root = spec.linux.as_ref().map_or("", |linux| &linux.rootfs_propagation);
        match propagation(root) {
            Some((Propagation::Shared | Propagation::Private, _)) => propagation(root),
            _ => Some((Propagation::Slave, true)),
        }
    });
    // One call for this mount, and one for the mounts below if they are concerned; often one is enough.
    let mut this = Change { set: options.set, clear: options.clear, ..Change::default() };
    let mut all = Change { set: options.set_recursive, clear: options.clear_recursive, ..Change::default() };
    match given {
        Some((kind, true)) => all.propagation = Some(kind),
        Some((kind, false)) => this.propagation = Some(kind),
        None => {}
    }
    if let Some(namespace) = mapping {
        let change =
            Change { set: Attributes::MAPPED, user_namespace: Some(namespace.as_fd()), ..Change::default() };
        sys::mount::change(tree.as_fd(), options.map == Some(true), &change).step(step)?;
    }
    if !all.set.is_empty() || !all.clear.is_empty() || all.propagation.is_some() {
        sys::mount::change(tree.as_fd(), true, &all).step(step)?;
    }
    if !this.set.is_empty() || !this.clear.is_empty() || this.propagation.is_some() {
        sys::mount::change(tree.as_fd(), false, &this).step(step)?;
    }
    Ok(())
}

/// User namespaces by which owners are mapped.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    pub root: Option<OwnedFd>,
    /// For each mount of the spec.
    pub mounts: Vec<Option<OwnedFd>>,
}

/// Makes the user namespaces for mapped mounts: one for the container's mappings, and one for each mount with its
/// own. They are made by a process of the host's PID namespace, whose `/proc` knows the processes that it starts.
pub(crate) fn mappings(spec: &Spec, options: &[Options<'_>], map_root: bool) -> Result<Mappings, Error> {
    let mut shared: Option<OwnedFd> = None;
    let mut container = || -> Result<OwnedFd, Error> {
        let linux = spec.linux.as_ref().filter(|linux| !linux.uid_mappings.is_empty());
        let linux = linux.ok_or_else(|| Error::invalid("an idmapped mount needs mappings"))?;
        if shared.is_none() {
            shared = Some(namespaces::user_namespace(&linux.uid_mappings, &linux.gid_mappings)?);
        }
        let namespace = shared.as_ref().map(OwnedFd::try_clone).transpose();
        namespace.step(|| "duplicate a descriptor".into())?.ok_or_else(|| Error::invalid("no user namespace"))
    };
    let root = map_root.then(&mut container).transpose()?;
    let mounts = spec.mounts.iter().zip(options).map(|(mount, options)| {
        let own = !mount.uid_mappings.is_empty();
        if options.bind.is_none() || (options.map.is_none() && !own) {
            return Ok(None);
        }
        match own {
            true => namespaces::user_namespace(&mount.uid_mappings, &mount.gid_mappings).map(Some),
            false => container().map(Some),
        }
    });
    let mounts = mounts.collect::<Result<_, Error>>()?;
    Ok(Mappings { root, mounts })
}

/// Makes a detached mount show its files with mapped owners.
fn map_owners(tree: impl AsFd, namespace: &OwnedFd, what: &Path) -> Result<(), Error> {
    let change =
        Change { set: Attributes::MAPPED, user_namespace: Some(namespace.as_fd()), ..Change::default() };
    sys::mount::change(tree.as_fd(), false, &change).step(|| format!("map the owners of {}", what.display()))
}

/// Clones a mount of another process's mount namespace: the one that stands at `path` there, which must be a tmpfs,
/// since whatever else a container may have put there is not to be shared. The caller must be single-threaded.
pub fn borrow_mount(pid: i32, path: &Path) -> Result<OwnedFd, Error> {
    let gone = || Error::invalid("the container whose mount is shared is not running");
    let target = Pid::from_raw(pid).ok_or_else(gone)?;
    let target = rustix::process::pidfd_open(target, PidfdFlags::empty()).map_err(|_| gone())?;
    let step = || format!("share the mount {} of process {pid}", path.display());
    let (ours, theirs) = Channel::pair().step(|| "make a socket pair".into())?;
    let options = CloneOptions { namespaces: Namespaces::EMPTY, cgroup: None, sibling: false };
    let (child, _) = sys::process::clone(&options, || {
        let opened = sys::process::join(target.as_fd(), Namespaces::MOUNT)
            .and_then(|()| open_tree(path, false).map_err(Into::into));
        let said = match &opened {
            Ok(tree) => theirs.send(b"mount", &[tree.as_fd()]),
            Err(error) => theirs.send(&error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes(), &[]),
        };
        i32::from(said.is_err())
    })
    .step(step)?;
    drop(theirs);
    let (mut message, mut descriptors) = ([0; 8], Vec::new());
    let received = ours.receive(&mut message, &mut descriptors);
    let _ = sys::process::wait(child);
    let length = received.step(step)?;
    let Some(tree) = descriptors.pop() else {
        let errno = message
            .first_chunk::<4>()
            .filter(|_| length == 4)
            .map_or(libc::EIO, |it| i32::from_ne_bytes(*it));
        return Err(Error::system(step(), std::io::Error::from_raw_os_error(errno)));
    };
    if rustix::fs::fstatfs(&tree).step(step)?.f_type as u64 != TMPFS_MAGIC {
        return Err(Error::invalid(format!("{} of the other container is no tmpfs", path.display())));
    }
    Ok(tree)
}

/// Clones the mount at a path of the host.
pub(crate) fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path, flags)
}

/// Clones what a descriptor shows.
pub(crate) fn clone_tree(of: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(of, "", flags)
}

fn open_root(
    label: &str,
    rootfs: &RootfsSource,
    bundle: &Path,
    own_namespace: bool,
    mapping: Option<&OwnedFd>,
) -> Result<OwnedFd, Error> {
    match rootfs {
        RootfsSource::Directory(path) => {
            let path = bundle.join(path);
            let tree = open_tree(&path, true).map_err(|error| match error {
                Errno::NOENT => Error::invalid(format!("root filesystem {} does not exist", path.display())),
                error => Error::system(format!("open root filesystem {}", path.display()), error),
            })?;
            let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
            sys::mount::change(tree.as_fd(), true, &private)
                .step(|| "make the root filesystem private".into())?;
            if let Some(namespace) = mapping {
                map_owners(&tree, namespace, &path)?;
            }
            Ok(tree)
        }
        RootfsSource::Overlay { lower, upper, work, volatile } => {
            let Some(namespace) = mapping else {
                return overlay(lower, upper, work, *volatile, own_namespace, label);
            };
            MappedLayers::open(lower, upper, work, namespace)?.overlay(work, *volatile, label)
        }
    }
}

/// Mounts a root filesystem on a directory, for runtimes that want to find it there. The caller has a mount namespace
/// of its own.
pub fn mount_root(rootfs: &RootfsSource, label: &str, target: &Path) -> Result<(), Error> {
    let root = open_root(label, rootfs, Path::new("/"), true, None)?;
    let target = rustix::fs::open(target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(|| format!("open {}", target.display()))?;
    crate::rootfs::attach(root.as_fd(), target.as_fd()).step(|| "attach the root filesystem".into())
}

/// The directories of an overlay as detached mounts with mapped owners, by paths that are good for as long as this
/// lives.
struct MappedLayers {
    lower: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    /// The user and group of the host that stand for root.
    root: (u32, u32),
    opened: Vec<OwnedFd>,
}

impl MappedLayers {
    fn open(
        lower: &[PathBuf],
        upper: &Path,
        work: &Path,
        namespace: &OwnedFd,
    ) -> Result<MappedLayers, Error> {
        let mut opened = Vec::with_capacity(lower.len() + 1);
        let mut map = |path: &Path| -> Result<PathBuf, Error> {
            let tree = open_tree(path, false).step(|| format!("open layer {}", path.display()))?;
            map_owners(&tree, namespace, path)?;
            let place = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
            opened.push(tree);
            Ok(place)
        };
        let mapped = lower.iter().map(|layer| map(layer)).collect::<Result<_, Error>>()?;
        // Both must lie on one mount, so it is their directory's.
        let (Some(holder), Some(upper), Some(work_name)) =
            (upper.parent(), upper.file_name(), work.file_name())
        else {
            return Err(Error::invalid(format!("{} is no upper directory", upper.display())));
        };
        if work.parent() != Some(holder) {
            return Err(Error::invalid("upper and work directory must lie in one directory"));
        }
        let holder = map(holder)?;
        let root = rustix::fs::stat(&holder).step(|| "look at the upper directory".into())?;
        let root = (root.st_uid, root.st_gid);
        let (upper, work) = (holder.join(upper), holder.join(work_name));
        Ok(MappedLayers { lower: mapped, upper, work, root, opened })
    }

    /// The overlay of these layers, as a detached mount.
    fn overlay(&self, place: &Path, volatile: bool, label: &str) -> Result<OwnedFd, Error> {
        let layers = self.lower.iter().map(|layer| ("lowerdir+", layer.as_path()));
        let direct = {
            let _user = self.act_as_root()?;
            overlay_by_options(layers, &self.upper, &self.work, volatile, label)
        };
        // Kernels before 6.15 take layers from mounts only that have a place.
        direct.or_else(|first| self.overlay_elsewhere(place, volatile, label).map_err(|_| first))
    }

    /// Who mounts an overlay owns what it makes for itself, and must be a user whom the layers can show.
    fn act_as_root(&self) -> Result<sys::security::FileUser, Error> {
        let (uid, gid) = self.root;
        sys::security::FileUser::become_user(uid, gid).step(|| "act as the container's root".into())
    }

    /// Gives the layers their places, over `place`, where nobody else sees them.
    fn overlay_elsewhere(&self, place: &Path, volatile: bool, label: &str) -> Result<OwnedFd, Error> {
        let made = in_own_mounts(|| self.overlay_at(place, volatile, label).map(|tree| vec![tree]))?;
        made.into_iter().next().ok_or_else(|| Error::invalid("mount the overlay: no mount was made"))
    }

    fn overlay_at(&self, place: &Path, volatile: bool, label: &str) -> Result<OwnedFd, Error> {
        let step = || "give the layers places".to_owned();
        let places = new_mount("tmpfs", Some(Path::new("layers")), &Options::default(), Attributes::EMPTY)?;
        attach_over(&places, place)?;
        rustix::process::fchdir(&places).step(step)?;
        for (number, tree) in self.opened.iter().enumerate() {
            let name = number.to_string();
            rustix::fs::mkdirat(&places, &*name, Mode::from_raw_mode(0o700)).step(step)?;
            let target = rustix::fs::openat(&places, &*name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            crate::rootfs::attach(tree.as_fd(), target.step(step)?.as_fd()).step(step)?;
        }
        rustix::fs::mkdirat(&places, "merged", Mode::from_raw_mode(0o755)).step(step)?;
        // The last one holds the upper and the work directory.
        let last = self.opened.len().saturating_sub(1);
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let below = |path: &Path| format!("{last}/{}", name(path).unwrap_or_default());
        let lower: Vec<String> = (0..last).map(|number| number.to_string()).collect();
        let _user = self.act_as_root()?;
        let (upper, work) = (below(&self.upper), below(&self.work));
        mount_overlay(Path::new("merged"), &lower.join(":"), &upper, &work, volatile, label)?;
        open_tree(Path::new("merged"), false).step(step)
    }
}

fn overlay(
    lower: &[impl AsRef<Path>],
    upper: &Path,
    work: &Path,
    volatile: bool,
    own_namespace: bool,
    label: &str,
) -> Result<OwnedFd, Error> {
    let layers = lower.iter().map(|layer| ("lowerdir+", layer.as_ref()));
    match overlay_by_options(layers, upper, work, volatile, label) {
        // Kernels before 6.7 know no layers one by one, and those before 6.5 notice only at the end.
        Err(Error::Invalid(_)) if own_namespace => overlay_by_mount(lower, upper, work, volatile, label),
        Err(Error::Invalid(_)) => {
            let mut opened = Vec::new();
            let joined = open_layers(lower, &mut opened)?;
            if joined.len() > 255 {
                return Err(Error::invalid(TOO_MANY_LAYERS));
            }
            let joined = [("lowerdir", Path::new(&joined))];
            overlay_by_options(joined.into_iter(), upper, work, volatile, label)
        }
        other => other,
    }
}

const TOO_MANY_LAYERS: &str = "an overlay of so many layers needs Linux 6.7";

fn overlay_by_options<'a>(
    lower: impl Iterator<Item = (&'static str, &'a Path)>,
    upper: &Path,
    work: &Path,
    volatile: bool,
    label: &str,
) -> Result<OwnedFd, Error> {
    let step = || "mount the overlay".to_owned();
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step(step)?;
    // Kept open until the overlay has its own hold on them.
    let mut opened = Vec::new();
    let mut set = |key: &str, path: &Path| {
        let step = |error| explain(&context, format!("mount the overlay: {key} {}", path.display()), error);
        // What is longer than the kernel takes gets a short name.
        if path.as_os_str().len() < 256 {
            return rustix::mount::fsconfig_set_string(context.as_fd(), key, path).map_err(step);
        }
        let short = open_layers(&[path], &mut opened)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), key, short).map_err(step)
    };
    set("source", Path::new("overlay"))?;
    for (key, path) in lower {
        set(key, path)?;
    }
    set("upperdir", upper)?;
    set("workdir", work)?;
    for (key, value) in OVERLAY_OPTIONS {
        set(key, Path::new(value))?;
    }
    if !label.is_empty() {
        set("context", Path::new(label))?;
    }
    if volatile {
        rustix::mount::fsconfig_set_flag(context.as_fd(), "volatile").step(step)?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(|error| explain(&context, step(), error))?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).step(step)
}

/// What the upper directory holds must be readable as a plain difference of directories.
const OVERLAY_OPTIONS: [(&str, &str); 3] = [("index", "off"), ("redirect_dir", "off"), ("metacopy", "off")];

/// Opens directories and joins short names for them, for as long as they are open.
fn open_layers(paths: &[impl AsRef<Path>], opened: &mut Vec<OwnedFd>) -> Result<String, Error> {
    use std::fmt::Write;
    let mut joined = String::new();
    for path in paths {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layer = rustix::fs::open(path.as_ref(), flags, Mode::empty())
            .step(|| format!("open layer {}", path.as_ref().display()))?;
        let colon = if joined.is_empty() { "" } else { ":" };
        // Writing to a string cannot fail.
        let _ = write!(joined, "{colon}/proc/self/fd/{}", layer.as_raw_fd());
        opened.push(layer);
    }
    Ok(joined)
}

/// By `mount(2)`, which takes a page of options where `fsconfig(2)` takes 255 bytes for each. It needs a place to
/// mount on, in a namespace of its own: the work directory serves, and the mount is taken away from it.
fn overlay_by_mount(
    lower: &[impl AsRef<Path>],
    upper: &Path,
    work: &Path,
    volatile: bool,
    label: &str,
) -> Result<OwnedFd, Error> {
    let step = || "mount the overlay".to_owned();
    let mut opened = Vec::new();
    let lower = open_layers(lower, &mut opened)?;
    let upper = open_layers(&[upper], &mut opened)?;
    let within = open_layers(&[work], &mut opened)?;
    mount_overlay(work, &lower, &upper, &within, volatile, label)?;
    let tree = open_tree(work, false).step(step);
    rustix::mount::unmount(work, rustix::mount::UnmountFlags::DETACH).step(step)?;
    tree
}

/// Mounts an overlay on `target` by `mount(2)`; the layers are named as its options have them.
fn mount_overlay(
    target: &Path,
    lower: &str,
    upper: &str,
    work: &str,
    volatile: bool,
    label: &str,
) -> Result<(), Error> {
    use std::fmt::Write;
    let mut data = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    for (key, value) in OVERLAY_OPTIONS {
        // Writing to a string cannot fail.
        let _ = write!(data, ",{key}={value}");
    }
    if !label.is_empty() {
        // Its categories are separated as options are, unless it is quoted.
        let _ = write!(data, ",context=\"{label}\"");
    }
    if volatile {
        data.push_str(",volatile");
    }
    if data.len() > 4095 {
        return Err(Error::invalid(TOO_MANY_LAYERS));
    }
    let data = std::ffi::CString::new(data).unwrap_or_default();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("overlay", target, "overlay", flags, data.as_c_str())
        .step(|| "mount the overlay".into())
}

/// A read-only overlay of layers that the options name one by one (`lowerdir+`), as a detached mount.
pub(crate) fn new_layers(options: &Options<'_>, attributes: Attributes) -> Result<OwnedFd, Error> {
    let source = Some(Path::new("overlay"));
    // What is longer than the kernel takes gets a short name.
    let mut long = Vec::new();
    let mut shortened = options.clone();
    for option in &mut shortened.data {
        if let Some(path) = option.strip_prefix("lowerdir+=").filter(|path| path.len() > 255) {
            *option = format!("lowerdir+={}", open_layers(&[path], &mut long)?).into();
        }
    }
    let refused = match new_mount("overlay", source, &shortened, attributes) {
        Err(Error::Invalid(refused)) => Error::Invalid(refused),
        other => return other,
    };
    // Kernels before 6.8 take all of them in one option of 255 bytes.
    let layers: Vec<&Path> =
        options.data.iter().filter_map(|option| option.strip_prefix("lowerdir+=")).map(Path::new).collect();
    if layers.is_empty() {
        return Err(refused);
    }
    let mut opened = Vec::new();
    let joined = format!("lowerdir={}", open_layers(&layers, &mut opened)?);
    if joined.len() > 255 {
        return Err(Error::invalid(TOO_MANY_LAYERS));
    }
    let options = Options { data: vec![joined.into()], ..options.clone() };
    new_mount("overlay", source, &options, attributes)
}

/// A new filesystem as a detached mount.
pub(crate) fn new_mount(
    kind: &str,
    source: Option<&Path>,
    options: &Options<'_>,
    attributes: Attributes,
) -> Result<OwnedFd, Error> {
    let step = || format!("mount {kind}");
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| match error {
        Errno::NODEV => Error::invalid(format!("filesystem {kind} is not known to the kernel")),
        error => Error::system(step(), error),
    })?;
    if let Some(source) = source.filter(|source| !source.as_os_str().is_empty()) {
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", source).step(step)?;
    }
    for flag in &options.flags {
        rustix::mount::fsconfig_set_flag(context.as_fd(), *flag).step(step)?;
    }
    for option in &options.data {
        let set = match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value),
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), option.as_ref()),
        };
        set.map_err(|error| explain(&context, format!("mount {kind}: option {option}"), error))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(|error| explain(&context, step(), error))?;
    let attributes = MountAttrFlags::from_bits_retain(attributes.bits() as u32);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(step)
}

/// Adds what the kernel has to say about a failed mount.
fn explain(context: &OwnedFd, step: String, error: Errno) -> Error {
    let mut said = String::new();
    let mut line = [0; 512];
    while let Ok(length) = rustix::io::read(context, &mut line[..]) {
        // `e`, `w` or `i`, and the text.
        let text = String::from_utf8_lossy(&line[..length]);
        if let Some(text) = text.strip_prefix("e ") {
            said = format!(" ({})", text.trim());
        }
        if length == 0 {
            break;
        }
    }
    match error {
        Errno::INVAL => Error::Invalid(format!("{step}: {}{said}", describe(error.raw_os_error()))),
        error => Error::system(format!("{step}{said}"), error),
    }
}
