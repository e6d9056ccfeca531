//! The verbs of images: list, inspect, tag, remove, load, save, import, commit.
//!
//! An image is its configuration document: the image ID is that document's digest. It is for one platform. A name stands
//! for a [`Target`]: one image, or an index, which has an image for each of several platforms, and statements about
//! them. What makes all this up lies in three parts, and this crate alone knows how they belong together:
//!
//! | part | holds | under |
//! | --- | --- | --- |
//! | `content` | indexes, manifests, configurations and layer archives, as they came | their digests |
//! | `snapshots` | the unpacked layers | their chain IDs |
//! | `metadata` | which images and indexes there are, and what they are called | tables `images`, `indexes` and `tags` |
//! | | which unpacked layers may not be on the disk yet | table `unsettled` |
//!
//! [`Images`] hands out one type for each group of verbs:
//!
//! | type | does |
//! | --- | --- |
//! | [`Names`] | gives names and tells them |
//! | [`Catalog`] | lists, histories, sizes, what a target has for which platform |
//! | [`Layers`] | unpacks layers as they come |
//! | [`Registrar`] | makes what came in exist, with one commit |
//! | [`Maker`] | makes images of containers, archives and build steps |
//! | [`Archives`] | `load` and `save` |
//! | [`Removals`] | removes and prunes |
//! | [`Pushes`] | what a push needs to know |
//! | [`Checkup`] | looks whether everything is whole, and repairs |
//! | [`Settling`] | brings unpacked layers to the disk |
//!
//! **An image comes in**: its blobs go into `content` and to the disk, each layer is unpacked and checked against its diff
//! ID, and only then one commit of the records makes it exist. The unpacked files reach the disk later (see `settle`). While it comes in, a [`Pins`] guard keeps what it
//! needs from being removed by others.
//!
//! **An image goes**: first the record, then what nobody else needs. An index takes those of its images along that have
//! no other name.
//!
//! A crash between the two leaves blobs and layers that no record names; [`Images::open`] removes them.

mod attestation;
mod catalog;
mod check;
mod create;
mod docker_archive;
mod early;
mod error;
mod failpoint;
mod filter;
mod glob;
mod history;
mod incoming;
mod index;
mod layers;
mod load;
mod manifests;
mod names;
mod oci_archive;
mod pins;
mod pipeline;
mod pushed;
mod register;
mod remove;
mod save;
mod settle;
mod spool;
mod state;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use oci::{Digest, Platform};
use snapshots::Snapshotter;

pub use attestation::{Statement, StatementFilter};
pub use catalog::Catalog;
pub use check::{CheckReport, Checkup, Containers, Damage, Finding, Problem};
pub use create::{Committed, Import, Maker, NewImage, NewLayer};
pub use error::{Error, Kind};
pub use filter::{ListFilter, PruneFilter};
pub use history::HistoryItem;
pub use incoming::{Ahead, LayerPlace};
pub use index::{Child, ChildKind, Document, StoredIndex, attested, may_run};
pub use layers::Layers;
pub use load::{Archives, Input, LoadOptions, LoadProgress, Loaded};
pub use manifests::ManifestSummary;
pub use names::Names;
pub use pins::Pins;
pub use pushed::{PushTarget, Pushes};
pub use register::{Arrival, LayerBlob, OriginalManifest, Registered, Registrar, Registration};
pub use remove::{Removals, RemoveOptions, Removed, User, Users};
pub use settle::{Settling, doubted, keep_settled};
pub use spool::{ArchiveFile, IsWanted};
pub use state::{Found, LayerRecord, Packed, StoredImage, Summary, Target};

use state::{State, Unusable};

/// Layers that an image may have: as many as can be mounted on each other.
pub const LAYERS_MAX: usize = 500;

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
    unsettled: settle::Ledger,
    /// Records that could not be read when this was opened.
    unusable: Mutex<Vec<Unusable>>,
}

impl Images {
    /// Reads the records, unpacks again what was lost with an earlier boot of the kernel, and removes what no record names.
    /// `boot` is the kernel's boot ID; `snapshots` was opened with what [`doubted`] says. The strings are what could not be
    /// used, for the log.
    pub fn open(
        content: Arc<content::Store>,
        snapshots: Arc<dyn Snapshotter>,
        store: metadata::Store,
        limits: Limits,
        boot: &str,
    ) -> Result<(Images, Vec<String>), Error> {
        let (state, unusable) = State::read(&store, &content);
        let warnings = unusable.iter().map(ToString::to_string).collect();
        // With a record that cannot be read, nobody knows what it needs; then nothing is removed.
        let all_known = unusable.iter().all(|record| record.table == state::TAGS);
        let images = Images {
            content,
            snapshots,
            store,
            limits,
            change: Mutex::new(()),
            state: RwLock::new(state),
            pinned: Mutex::default(),
            unsettled: settle::Ledger::default(),
            unusable: Mutex::new(unusable),
        };
        images.settling().recover(boot)?;
        if all_known {
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

    pub fn names(&self) -> Names<'_> {
        Names(self)
    }

    pub fn catalog(&self) -> Catalog<'_> {
        Catalog(self)
    }

    pub fn layers(&self) -> Layers<'_> {
        Layers(self)
    }

    pub fn settling(&self) -> Settling<'_> {
        Settling(self)
    }

    pub fn registrar(&self) -> Registrar<'_> {
        Registrar(self)
    }

    pub fn maker(&self) -> Maker<'_> {
        Maker(self)
    }

    pub fn archives(&self) -> Archives<'_> {
        Archives(self)
    }

    pub fn removals(&self) -> Removals<'_> {
        Removals(self)
    }

    pub fn pushes(&self) -> Pushes<'_> {
        Pushes(self)
    }

    pub fn checkup(&self) -> Checkup<'_> {
        Checkup(self)
    }

    /// Finds an image by name (`busybox`, `busybox:1.36`, `repo@sha256:…`) or by a whole or shortened ID: of several
    /// platforms the one for this host.
    pub fn resolve(&self, name: &str) -> Result<Arc<StoredImage>, Error> {
        self.find(name, None).map(|found| found.image)
    }

    /// Finds an image by name or ID, for a platform or for this host, and what the name stands for.
    pub fn find(&self, name: &str, platform: Option<&Platform>) -> Result<Found, Error> {
        self.read().find(name, platform)
    }

    /// The image with this ID.
    pub fn get(&self, id: &Digest) -> Option<Arc<StoredImage>> {
        self.read().images.get(id).cloned()
    }

    /// The index with this digest.
    pub fn index(&self, digest: &Digest) -> Option<Arc<StoredIndex>> {
        self.read().indexes.get(digest).cloned()
    }

    /// Every image, in the order of their IDs.
    pub fn all(&self) -> Vec<Arc<StoredImage>> {
        self.read().images.values().cloned().collect()
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
