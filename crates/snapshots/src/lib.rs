//! Layers to a root filesystem: the trait, its contract and its drivers.
//!
//! A driver keeps *layers*, each known by its chain ID and lying on a parent, and *read-write layers*, each known by
//! its container and lying on a layer or on nothing. It knows neither archives nor images: whoever unpacks fills the
//! directory of a [`Stage`], whoever makes an archive of a container's changes reads its [`Mounts`]. See
//! [`Snapshotter`] for a walk through both.

mod changes;
mod compare;
#[cfg(test)]
mod contract;
mod detached;
mod overlay;
mod shelf;
mod tree;
mod whole;

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::Digest;

pub use overlay::Overlay;
pub use whole::Whole;

/// Refused or failed operations; each names its object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("layer {0} not found")]
    NoLayer(Digest),
    #[error("layer {0} has layers above it")]
    HasChildren(Digest),
    #[error("layer {layer} is used by container {container}")]
    InUse { layer: Digest, container: String },
    #[error("read-write layer of container {0} not found")]
    NoContainer(String),
    #[error(
        "the files of container {container} are kept by the storage driver {driver}: start the daemon with --storage-driver {driver} to use them"
    )]
    Elsewhere { container: String, driver: String },
    #[error("read-write layer of container {0} exists already")]
    ContainerExists(String),
    #[error("{0:?} is not a valid container ID")]
    Name(String),
    #[error("layer {0} was staged on another parent")]
    Parent(Digest),
    #[error("layer {0} cannot be kept: its short name is taken by another")]
    ShortName(Digest),
    #[error("error initializing graphdriver: driver not supported: {0}")]
    Driver(String),
    #[error(
        "error initializing graphdriver: btrfs: prerequisites for driver not satisfied (wrong filesystem?): {0} is not on btrfs"
    )]
    NotBtrfs(PathBuf),
    #[error("the storage driver {0} cannot limit what a container writes")]
    NoLimit(&'static str),
    #[error("cannot {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

/// A committed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub chain: Digest,
    pub parent: Option<Digest>,
    /// Bytes of file content in this layer alone.
    pub bytes: u64,
    /// Directory with the layer's content, in the driver's form.
    pub directory: PathBuf,
}

/// A layer whose files may not have reached the disk before the machine stopped: its tree is not to be believed. Opened
/// with it, a driver drops the tree, and shows no such layer until it is committed again; what lies on it stays meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubted {
    pub chain: Digest,
    pub parent: Option<Digest>,
}

/// What a layer's directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// What the layer itself brings. What it hides of lower layers is there in overlayfs' own form (character device
    /// 0/0, `trusted.overlay.opaque`).
    Difference,
    /// Everything that the layer and those below it show together.
    Whole,
}

/// How a container's root filesystem is put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounts {
    /// One overlayfs mount. `lowers` has the topmost layer first and may be empty (an image from scratch): overlayfs
    /// wants at least one lower directory, so then bind `upper` itself.
    Overlay { lowers: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// The directory itself, to be bound.
    Tree(PathBuf),
}

/// Where a container's own changes are to be read, to make an archive of them.
#[derive(Debug)]
pub enum Difference {
    /// All that is in this directory, which has removals in overlayfs' own form.
    Upper(PathBuf),
    /// These paths of the container's whole tree.
    Paths { root: OwnedFd, changes: Vec<Change> },
}

/// Bytes and inodes below a directory, hard links counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of content of regular files, as the layer's archive would carry.
    pub bytes: u64,
    pub inodes: u64,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// Something that a container changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// From the container's root, with a slash in front.
    pub path: Vec<u8>,
    pub kind: ChangeKind,
}

/// Levels of directories that are looked into: what runs in a container can make any number.
const DEPTH_MAX: usize = 500;

/// A directory to be filled with one layer. Dropped without [`Snapshotter::commit`], it goes away with its content.
#[derive(Debug)]
pub struct Stage {
    holder: PathBuf,
    parent: Option<Digest>,
    lowers: Vec<PathBuf>,
    form: Form,
    remove: shelf::Remove,
}

impl Stage {
    /// The directory to fill.
    pub fn directory(&self) -> PathBuf {
        self.holder.join("fs")
    }

    /// What the directory is to become. A whole one begins as a copy of what it lies on, and what the layer hides is to
    /// be removed from it.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Directories of the layers below, topmost first: who unpacks finds there what a directory looks like that the
    /// new layer passes through but does not carry. None for a whole directory, which has them itself.
    pub fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Swept at the next open if it fails now.
        let _ = (self.remove)(&self.holder);
    }
}

/// A tree that has lost its name already. Dropping it removes it, which takes as long as it has files: drop it where
/// nobody waits. A crash before that is no harm: it is swept at the next open.
#[derive(Debug)]
#[must_use = "dropping it is the slow part"]
pub struct Rest {
    path: PathBuf,
    remove: shelf::Remove,
}

impl Drop for Rest {
    fn drop(&mut self) {
        let _ = (self.remove)(&self.path);
    }
}

/// A driver.
///
/// **An image comes in**, lowest layer first:
/// 1. [`stage`](Self::stage) gives a directory on the parent's chain ID; the caller unpacks into
///    [`Stage::directory`] and learns the diff ID and so the chain ID.
/// 2. [`commit`](Self::commit) names the layer, in one step; another one of the same chain ID that came first wins.
/// 3. [`sync`](Self::sync) makes all of it survive a loss of power. Whoever does not wait for that opens the driver
///    after such a loss with what is [`Doubted`], and fills it again.
///
/// **A container lives**: [`create`](Self::create) makes its read-write layer (overlay: a few `mkdir`s, no sync),
/// [`mounts`](Self::mounts) says what to mount, [`usage`](Self::usage) how much it wrote, [`destroy`](Self::destroy)
/// takes it away. [`adopt`](Self::adopt) turns it into a layer instead (a build step).
///
/// **Layers go**: [`remove`](Self::remove) refuses while a layer or a container lies on it.
///
/// A crash at any point leaves whole layers and unnamed rests; opening the driver removes the rests.
pub trait Snapshotter: Debug + Send + Sync {
    /// Name as `info` shows it, for example `overlay2`.
    fn driver(&self) -> &'static str;

    /// What layers' directories hold here.
    fn form(&self) -> Form;

    fn stage(&self, parent: Option<&Digest>) -> Result<Stage, Error>;

    /// Puts a stage that was begun on nothing onto a layer that has come to be there meanwhile. Whole directories stay on
    /// what they were begun on.
    fn reparent(&self, stage: Stage, parent: &Digest) -> Result<Stage, Error>;

    /// Names a filled stage. `bytes` is kept and reported as [`Layer::bytes`].
    fn commit(&self, stage: Stage, chain: &Digest, bytes: u64) -> Result<(), Error>;

    /// Makes a layer of a container's read-write layer, which must not be mounted and is gone afterwards.
    fn adopt(&self, container: &str, chain: &Digest, bytes: u64) -> Result<Rest, Error>;

    fn layer(&self, chain: &Digest) -> Option<Layer>;

    fn layers(&self) -> Vec<Layer>;

    fn remove(&self, chain: &Digest) -> Result<Rest, Error>;

    /// Directories that show the layer when put over each other, topmost first.
    fn lowers(&self, chain: &Digest) -> Result<Vec<PathBuf>, Error>;

    fn create(&self, container: &str, top: Option<&Digest>) -> Result<(), Error>;

    /// Limits what a container's own layer may hold, in bytes. Needs a filesystem with quotas of projects.
    fn limit(&self, container: &str, bytes: u64) -> Result<(), Error>;

    fn mounts(&self, container: &str) -> Result<Mounts, Error>;

    /// The root filesystem of a container as a descriptor, mounted nowhere: to copy into it and out of it while it does
    /// not run. It is gone when the descriptor is closed.
    fn open_root(&self, container: &str) -> Result<OwnedFd, Error>;

    /// What a container wrote over what it lies on, to be read: also while it runs, and then without any mount of its own.
    /// What the container changes meanwhile may be seen or not.
    fn open_view(&self, container: &str) -> Result<OwnedFd, Error>;

    /// What a layer and those below it show together, to be read.
    fn open_layers(&self, chain: &Digest) -> Result<OwnedFd, Error>;

    /// Chain ID that the container's read-write layer lies on.
    fn top(&self, container: &str) -> Result<Option<Digest>, Error>;

    fn containers(&self) -> Vec<String>;

    fn usage(&self, container: &str) -> Result<Usage, Error>;

    /// What a container changed, sorted by path.
    fn changes(&self, container: &str) -> Result<Vec<Change>, Error>;

    /// The same, to be read.
    fn difference(&self, container: &str) -> Result<Difference, Error>;

    /// Removes a read-write layer; one that is not there is no error.
    fn destroy(&self, container: &str) -> Result<Rest, Error>;

    /// Blocks until every committed layer is on disk.
    fn sync(&self) -> Result<(), Error>;
}

/// Opens the driver of this name, whose folder is in `root`. Without a name, the first that was used there before, or
/// else the first that works there: overlay, btrfs, vfs. `doubted` tells which layers of a driver are.
pub fn open(
    root: &Path,
    name: Option<&str>,
    doubted: &dyn Fn(&str) -> Vec<Doubted>,
) -> Result<Arc<dyn Snapshotter>, Error> {
    let found = ["overlay", "btrfs", "vfs"].into_iter().find(|folder| root.join(folder).is_dir());
    let folder = match name.or(found) {
        Some(name) => name,
        None => {
            std::fs::create_dir_all(root).map_err(io("create", root))?;
            match Overlay::works_in(root) {
                Ok(()) => "overlay",
                Err(_) if whole::is_on_btrfs(root).unwrap_or(false) => "btrfs",
                Err(_) => "vfs",
            }
        }
    };
    Ok(match folder {
        "overlay" | "overlay2" | "overlayfs" => {
            Arc::new(Overlay::open(&root.join("overlay"), &doubted(overlay::NAME))?)
        }
        "vfs" | "native" => Arc::new(Whole::vfs(&root.join("vfs"), &doubted(whole::VFS))?),
        "btrfs" => Arc::new(Whole::btrfs(&root.join("btrfs"), &doubted(whole::BTRFS))?),
        other => return Err(Error::Driver(other.to_owned())),
    })
}

/// A directory entry's name that cannot lead anywhere else.
fn check_name(name: &str) -> Result<(), Error> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.bytes().all(valid) {
        return Err(Error::Name(name.to_owned()));
    }
    Ok(())
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}
