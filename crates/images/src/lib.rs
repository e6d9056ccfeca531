//! The verbs of images: list, inspect, tag, remove, load, save, import, commit.
//!
//! An image is its configuration document: the image ID is that document's digest. What makes it up lies in three
//! parts, and this crate alone knows how they belong together:
//!
//! | part | holds | under |
//! | --- | --- | --- |
//! | `content` | configuration, manifest and layer archives, as they came | their digests |
//! | `snapshots` | the unpacked layers | their chain IDs |
//! | `metadata` | which images there are, and what they are called | tables `images` and `tags` |
//!
//! **An image comes in** ([`Images::load`], [`Images::import`], [`Images::create`]): its blobs go into `content`, each
//! layer is unpacked and checked against its diff ID, both are synced, and only then one commit of the record makes the
//! image exist. While it comes in, a [`Pins`] guard keeps what it needs from being removed by others.
//!
//! **An image goes** ([`Images::remove`], [`Images::prune`]): first the record, then what nobody else needs.
//!
//! A crash between the two leaves blobs and layers that no record names; [`Images::open`] removes them.

mod create;
mod docker_archive;
mod filter;
mod history;
mod incoming;
mod layers;
mod load;
mod oci_archive;
mod pins;
mod pipeline;
mod pushed;
mod register;
mod remove;
mod save;
mod spool;
mod state;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use oci::{Digest, Reference};
use snapshots::Snapshotter;

pub use create::{Import, NewImage, NewLayer};
pub use filter::{ListFilter, PruneFilter};
pub use history::HistoryItem;
pub use incoming::{Ahead, LayerPlace};
pub use load::{LoadOptions, LoadProgress, Loaded};
pub use pins::Pins;
pub use register::{LayerBlob, OriginalManifest, Registered, Registration};
pub use remove::{RemoveOptions, Removed, User};
pub use state::{LayerRecord, StoredImage, Summary};

use state::State;

/// What sort of failure an [`Error`] is; the API's status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    Invalid,
    Conflict,
    /// The archive may be valid, but what it needs is not built yet.
    NotImplemented,
    System,
}

/// Refused or failed operations. The texts are Docker's where its clients match on them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("No such image: {0}")]
    NoSuchImage(String),
    #[error("image ID prefix {prefix:?} is ambiguous: {count} images have it")]
    Ambiguous { prefix: String, count: usize },
    #[error(transparent)]
    Reference(#[from] oci::reference::Error),
    #[error(
        "conflict: unable to remove repository reference {reference:?} (must force) - container {container} is using its referenced image {image}"
    )]
    ReferenceInUse { reference: String, container: String, image: String },
    #[error("conflict: unable to delete {image} ({force}) - {reason}")]
    ImageInUse { image: String, force: &'static str, reason: String },
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    #[error("invalid tag {0:?}")]
    InvalidTag(String),
    #[error("invalid archive: {0}")]
    InvalidArchive(String),
    #[error("invalid archive: {what} is not valid: {source}")]
    Document { what: String, source: serde_json::Error },
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {found}")]
    LayerCount { expected: usize, found: usize },
    #[error("invalid diffID for layer {index}: expected \"{expected}\", got \"{found}\"")]
    DiffId { index: usize, expected: Digest, found: Digest },
    #[error("cannot load {0} image on linux")]
    OperatingSystem(String),
    #[error(
        "image with reference {reference} was found but does not provide the specified platform ({platform})"
    )]
    Platform { reference: String, platform: String },
    #[error("invalid filter '{key}={value}'")]
    Filter { key: &'static str, value: String },
    #[error(transparent)]
    Archive(#[from] archive::Error),
    #[error(transparent)]
    Content(#[from] content::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshots::Error),
    #[error("cannot store the image's record: {0}")]
    Metadata(#[from] metadata::Error),
    #[error("the record of image {id} is not valid: {source}")]
    Record { id: String, source: serde_json::Error },
    #[error("cannot write a document: {0}")]
    Encode(#[source] serde_json::Error),
    #[error("cannot {operation}: {source}")]
    Io { operation: &'static str, source: std::io::Error },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoSuchImage(_) | Error::Platform { .. } => Kind::NotFound,
            Error::ReferenceInUse { .. } | Error::ImageInUse { .. } => Kind::Conflict,
            Error::Ambiguous { .. }
            | Error::Reference(_)
            | Error::TagWithDigest
            | Error::InvalidTag(_)
            | Error::InvalidArchive(_)
            | Error::Document { .. }
            | Error::LayerCount { .. }
            | Error::DiffId { .. }
            | Error::OperatingSystem(_)
            | Error::Filter { .. } => Kind::Invalid,
            Error::Archive(archive::Error::Compression(_) | archive::Error::Unsupported { .. }) => {
                Kind::NotImplemented
            }
            Error::Archive(error) if error.is_invalid_archive() => Kind::Invalid,
            Error::Content(content::Error::Digest { .. } | content::Error::Size { .. }) => Kind::Invalid,
            Error::Content(content::Error::TooLarge(..)) => Kind::Invalid,
            Error::Archive(_)
            | Error::Content(_)
            | Error::Snapshot(_)
            | Error::Metadata(_)
            | Error::Record { .. }
            | Error::Encode(_)
            | Error::Io { .. } => Kind::System,
        }
    }
}

/// How large an image may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes that an archive, and each layer of it when unpacked, may have. A ratio would be no protection: a layer of
    /// one sparse database file may honestly shrink a thousandfold, and a bomb of 100 MB at an "honest" 200-fold is
    /// 20 GB all the same. So the bound is absolute, and besides a layer may never take the last of the disk.
    pub bytes: u64,
    /// Members of an archive or of one layer.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 64 << 30, entries: 4_000_000 }
    }
}

/// The images of one data root. Every method may be called from any thread; those that change something block until
/// the change is durable.
#[derive(Debug)]
pub struct Images {
    content: Arc<content::Store>,
    snapshots: Arc<dyn Snapshotter>,
    store: metadata::Store,
    limits: Limits,
    /// Held while records are changed and files are given up, so that both see the same state. Taken before any of the
    /// locks below.
    change: Mutex<()>,
    state: RwLock<State>,
    pinned: Mutex<pins::Pinned>,
}

impl Images {
    /// Reads the records and removes what no record names. The strings are what could not be used, for the log.
    pub fn open(
        content: Arc<content::Store>,
        snapshots: Arc<dyn Snapshotter>,
        store: metadata::Store,
        limits: Limits,
    ) -> Result<(Images, Vec<String>), Error> {
        let (state, warnings) = State::read(&store, &content);
        let images = Images {
            content,
            snapshots,
            store,
            limits,
            change: Mutex::new(()),
            state: RwLock::new(state),
            pinned: Mutex::new(pins::Pinned::default()),
        };
        if warnings.is_empty() {
            // With a record that cannot be read, nobody knows what it needs; then nothing is removed.
            images.collect_garbage()?;
        }
        images.write_index()?;
        Ok((images, warnings))
    }

    pub fn content(&self) -> &Arc<content::Store> {
        &self.content
    }

    pub fn snapshots(&self) -> &Arc<dyn Snapshotter> {
        &self.snapshots
    }

    /// Finds an image by name (`busybox`, `busybox:1.36`, `repo@sha256:…`) or by a whole or shortened ID.
    pub fn resolve(&self, name: &str) -> Result<Arc<StoredImage>, Error> {
        self.read().resolve(name).map(|(image, _)| image)
    }

    /// The image with this ID.
    pub fn get(&self, id: &Digest) -> Option<Arc<StoredImage>> {
        self.read().images.get(id).cloned()
    }

    /// Every image, in the order of their IDs.
    pub fn all(&self) -> Vec<Arc<StoredImage>> {
        self.read().images.values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.read().images.len()
    }

    /// For each image, the bytes of those of its layers that other images have as well.
    pub fn shared_sizes(&self) -> HashMap<Digest, u64> {
        let state = self.read();
        let mut users: HashMap<&Digest, usize> = HashMap::new();
        for chain in state.images.values().flat_map(|image| &image.chains) {
            *users.entry(chain).or_default() += 1;
        }
        let shared = |image: &StoredImage| {
            let layers = image.chains.iter().zip(&image.layers);
            layers.filter(|(chain, _)| users[chain] > 1).map(|(_, layer)| layer.bytes).sum()
        };
        state.images.iter().map(|(id, image)| (id.clone(), shared(image))).collect()
    }

    /// Bytes of file content in all layers of all images, each layer counted once.
    pub fn layers_size(&self) -> u64 {
        let state = self.read();
        let layers = state.images.values().flat_map(|image| image.chains.iter().zip(&image.layers));
        layers.map(|(chain, layer)| (chain, layer.bytes)).collect::<HashMap<_, _>>().values().sum()
    }

    /// Images that were made here from this one, or from scratch; youngest first.
    pub fn children(&self, parent: Option<&Digest>) -> Vec<Arc<StoredImage>> {
        let state = self.read();
        let mut children: Vec<Arc<StoredImage>> =
            state.images.values().filter(|image| image.parent.as_ref() == parent).cloned().collect();
        children.sort_by_key(|image| std::cmp::Reverse(image.created()));
        children
    }

    /// The names of an image: those with a tag, and those with a digest.
    pub fn references(&self, id: &Digest) -> (Vec<Reference>, Vec<Reference>) {
        self.read().references(id).into_iter().partition(|reference| reference.digest().is_none())
    }

    /// When the image last got a name here.
    pub fn last_tagged(&self, id: &Digest) -> Option<oci::Timestamp> {
        self.read().tags.values().filter(|tagged| tagged.id == *id).map(|tagged| tagged.at).max()
    }

    /// The image that has exactly this name, with its tag or digest.
    pub fn find_name(&self, reference: &Reference) -> Option<Digest> {
        self.read().tags.get(reference).map(|tagged| tagged.id.clone())
    }

    /// Gives an image another name. Returns which image lost that name.
    pub fn tag(
        &self,
        id: &Digest,
        reference: &Reference,
        now: oci::Timestamp,
    ) -> Result<Option<Digest>, Error> {
        if reference.digest().is_some() {
            return Err(Error::TagWithDigest);
        }
        self.name(id, &reference.clone().or_latest(), now)
    }

    /// Gives an image a name, which may be one with a digest (what a pull leaves).
    pub fn name(
        &self,
        id: &Digest,
        reference: &Reference,
        now: oci::Timestamp,
    ) -> Result<Option<Digest>, Error> {
        let reference = reference.clone().favouring_digest();
        let change = self.lock_change();
        if self.get(id).is_none() {
            return Err(Error::NoSuchImage(id.to_string()));
        }
        let earlier = self.read().tags.get(&reference).map(|tagged| tagged.id.clone());
        let mut batch = metadata::Batch::default();
        batch = state::put_tag(batch, &reference, id, now)?;
        self.store.commit(batch)?;
        self.write().insert_tag(reference, id.clone(), now);
        self.write_index()?;
        drop(change);
        Ok(earlier.filter(|earlier| earlier != id))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        // The state is replaced member by member after the records are durable; a panic cannot leave it half changed.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_change(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says in the layout's `index.json` what the tags say, for other tools.
    fn write_index(&self) -> Result<(), Error> {
        let index = self.read().index();
        Ok(self.content.write_index(&index)?)
    }
}
