//! Unpacked layers that may not be on the disk yet, and how that is told apart after a loss of power.
//!
//! A layer's files are made again from its archive at any time, and the archive is on the disk before an image is
//! recorded. So nobody who brings an image in waits for the files. Instead:
//!
//! 1. The commit that records an image marks each of its layers that may be in the kernel's memory alone, with the
//!    kernel's boot ID.
//! 2. In the background ([`keep_settled`]) all of them are synced, and the marks go.
//! 3. A mark that is found when the store is opened tells by its boot ID what became of the layer. The same: the kernel
//!    still has all of it, and it is synced again. Another: the machine may have lost power, and the layer is not believed.
//!    Its tree has been dropped by the driver (see [`doubted`]), and it is unpacked again before anybody uses it.
//!
//! A mark keeps its layer's archive in the store as well, if need be beyond the image's end: a container may lie on it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metadata::{Batch, Store};
use oci::Digest;
use serde::{Deserialize, Serialize};
use snapshots::Doubted;

use crate::state::StoredImage;
use crate::{Error, Images, LayerPlace, failpoint};

const UNSETTLED: &str = "unsettled";

/// How often who settles looks whether nobody brings anything in: a sync makes all that is written meanwhile wait.
const LOOK: Duration = Duration::from_secs(1);
/// How often it looks before it goes on all the same.
const LOOKS_MAX: usize = 30;
/// How long it waits after a sync that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// The record of a layer that may not be on the disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mark {
    /// Boot ID of the kernel that has its files.
    boot: String,
    /// Where the layer belongs.
    place: LayerPlace,
    /// What it is unpacked from.
    blob: Digest,
}

#[derive(Debug)]
struct Entry {
    /// Another one each time that the layer is unpacked: a sync is good for what was unpacked when it began.
    number: u64,
    /// Its record, once an image has it.
    mark: Option<Mark>,
}

/// The layers of this driver that may not be on the disk, by chain ID.
#[derive(Debug, Default)]
pub struct Unsettled {
    boot: String,
    next: u64,
    layers: HashMap<Digest, Entry>,
    /// Marks that nothing can be done about now: of other drivers, and of layers that could not be unpacked again.
    left: Vec<Mark>,
}

/// Marks on their way into the records.
#[derive(Debug, Default)]
pub struct Marks(Vec<Mark>);

impl Unsettled {
    fn insert(&mut self, chain: Digest, mark: Option<Mark>) {
        self.next += 1;
        let earlier = self.layers.remove(&chain).and_then(|entry| entry.mark);
        self.layers.insert(chain, Entry { number: self.next, mark: mark.or(earlier) });
    }

    fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.layers.values().filter_map(|entry| entry.mark.as_ref()).chain(&self.left)
    }

    /// Archives that are needed while their layers may be lost.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        self.marks().map(|mark| &mark.blob)
    }

    /// The same without those of layers that are to go.
    pub fn blobs_but_of<'a>(&'a self, going: &'a BTreeMap<Digest, u64>) -> impl Iterator<Item = &'a Digest> {
        self.marks().filter(|mark| !going.contains_key(&mark.place.chain)).map(|mark| &mark.blob)
    }
}

fn key(driver: &str, chain: &Digest) -> String {
    format!("{driver} {chain}")
}

fn read_marks(store: &Store) -> Vec<(String, Option<Mark>)> {
    let read = |(key, bytes): (String, Arc<[u8]>)| (key, serde_json::from_slice(&bytes).ok());
    store.scan(UNSETTLED).into_iter().map(read).collect()
}

/// The layers of a driver that may have been lost with an earlier boot of the kernel: what the driver is to be opened
/// with. `boot` is the boot ID of now.
pub fn doubted(store: &Store, boot: &str, driver: &str) -> Vec<Doubted> {
    let marks = read_marks(store).into_iter().filter_map(|(name, mark)| Some((name, mark?)));
    marks
        .filter(|(name, mark)| mark.boot != boot && *name == key(driver, &mark.place.chain))
        .map(|(_, mark)| Doubted { chain: mark.place.chain, parent: mark.place.parent })
        .collect()
}

/// What an image store knows of them.
#[derive(Debug, Default)]
pub struct Ledger {
    layers: Mutex<Unsettled>,
    /// There are marks.
    changed: Condvar,
    disk: Mutex<()>,
}

/// Brings unpacked layers to the disk, and says which are not there yet.
#[derive(Debug, Clone, Copy)]
pub struct Settling<'a>(pub(crate) &'a Images);

impl<'a> Settling<'a> {
    pub(crate) fn lock(self) -> MutexGuard<'a, Unsettled> {
        self.0.unsettled.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while layers are brought to the disk. Taken before the lock on changes.
    fn lock_disk(self) -> MutexGuard<'a, ()> {
        self.0.unsettled.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(self, chain: &Digest) -> String {
        key(self.0.snapshots.driver(), chain)
    }

    /// Whether a recorded image has the layer.
    fn is_recorded(self, chain: &Digest) -> bool {
        self.0.read().images.values().any(|image| image.chains.contains(chain))
    }

    /// Lets `name` give an unpacked layer its place: the way of all layers. Before an image is recorded nothing relies on
    /// its layers, and its record marks them. If one is recorded already, nobody else would.
    pub(crate) fn name_layer<T>(
        self,
        place: &LayerPlace,
        blob: &Digest,
        name: impl FnOnce() -> Result<T, snapshots::Error>,
    ) -> Result<T, Error> {
        if !self.is_recorded(&place.chain) {
            let named = name()?;
            self.lock().insert(place.chain.clone(), None);
            return Ok(named);
        }
        // Nobody may settle between the mark and the name.
        let one = self.lock_disk();
        let boot = self.lock().boot.clone();
        let mark = Mark { boot, place: place.clone(), blob: blob.clone() };
        self.0.store.commit(self.put_mark(Batch::default(), &mark)?)?;
        self.lock().insert(place.chain.clone(), Some(mark));
        let named = name()?;
        drop(one);
        self.0.unsettled.changed.notify_all();
        Ok(named)
    }

    fn put_mark(self, batch: Batch, mark: &Mark) -> Result<Batch, Error> {
        let bytes = serde_json::to_vec(mark).map_err(Error::Encode)?;
        Ok(batch.put(UNSETTLED, &self.key(&mark.place.chain), bytes))
    }

    /// Adds to the batch that records an image the marks of its layers that need one: those that were unpacked since the
    /// last sync, and those of which nobody knows. The caller has the lock on changes, and says with [`Settling::marked`]
    /// when the batch is committed.
    pub(crate) fn mark_layers(
        self,
        mut batch: Batch,
        image: &StoredImage,
        marks: &mut Marks,
    ) -> Result<Batch, Error> {
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let state = self.0.read();
        let others = state.images.values().flat_map(|image| &image.chains);
        let own: HashSet<&Digest> = image.chains.iter().collect();
        let recorded: HashSet<&Digest> = others.filter(|chain| own.contains(chain)).collect();
        let unsettled = self.lock();
        for (place, layer) in LayerPlace::all(&diff_ids).into_iter().zip(&image.layers) {
            let needs_one = match unsettled.layers.get(&place.chain) {
                Some(entry) => entry.mark.is_none(),
                None => !recorded.contains(&place.chain),
            };
            if needs_one && !marks.0.iter().any(|mark| mark.place.chain == place.chain) {
                let mark = Mark { boot: unsettled.boot.clone(), place, blob: layer.blob.digest.clone() };
                batch = self.put_mark(batch, &mark)?;
                marks.0.push(mark);
            }
        }
        Ok(batch)
    }

    pub(crate) fn marked(self, marks: Marks) {
        let mut unsettled = self.lock();
        for mark in marks.0 {
            unsettled.left.retain(|left| left.place.chain != mark.place.chain);
            match unsettled.layers.get_mut(&mark.place.chain) {
                Some(entry) => entry.mark = Some(mark),
                None => unsettled.insert(mark.place.chain.clone(), Some(mark)),
            }
        }
        drop(unsettled);
        self.0.unsettled.changed.notify_all();
    }

    /// Layers that are gone need no marks. Gives the archives that only the marks may have kept.
    pub(crate) fn forget_marks(self, gone: &[Digest]) -> Result<Vec<Digest>, Error> {
        let mut batch = Batch::default();
        let mut blobs = Vec::new();
        {
            let mut unsettled = self.lock();
            for chain in gone {
                if let Some(mark) = unsettled.layers.remove(chain).and_then(|entry| entry.mark) {
                    batch = batch.delete(UNSETTLED, &self.key(chain));
                    blobs.push(mark.blob);
                }
            }
        }
        self.0.store.commit(batch)?;
        Ok(blobs)
    }

    /// Has most of it written before [`Settling::settle`], whose sync makes all wait that want to bring something to the
    /// disk meanwhile: containers that start. Blocks.
    fn write_back(self) {
        let chains: Vec<Digest> = self.lock().layers.keys().cloned().collect();
        for layer in chains.iter().filter_map(|chain| self.0.snapshots.layer(chain)) {
            sys::write_tree_back(&layer.directory);
        }
    }

    /// Brings all layers that are there now to the disk; blocks until they are. One at a time.
    pub fn settle(self) -> Result<(), Error> {
        let _one = self.lock_disk();
        let numbers: HashMap<Digest, u64> = {
            let unsettled = self.lock();
            unsettled.layers.iter().map(|(chain, entry)| (chain.clone(), entry.number)).collect()
        };
        if numbers.is_empty() {
            return Ok(());
        }
        failpoint::hit("images.settle")?;
        self.0.snapshots.sync()?;
        let change = self.0.lock_change();
        let settled: Vec<(Digest, Option<Mark>)> = {
            let unsettled = self.lock();
            let same = |chain: &Digest, number| {
                let entry = unsettled.layers.get(chain).filter(|entry| entry.number == number)?;
                Some((chain.clone(), entry.mark.clone()))
            };
            numbers.iter().filter_map(|(chain, number)| same(chain, *number)).collect()
        };
        let marked = settled.iter().filter(|(_, mark)| mark.is_some());
        let batch =
            marked.fold(Batch::default(), |batch, (chain, _)| batch.delete(UNSETTLED, &self.key(chain)));
        self.0.store.commit(batch)?;
        {
            let mut unsettled = self.lock();
            settled.iter().for_each(|(chain, _)| drop(unsettled.layers.remove(chain)));
        }
        // What only the marks have kept.
        let blobs: HashSet<Digest> = settled.into_iter().filter_map(|(_, mark)| Some(mark?.blob)).collect();
        self.0.discard(&change, &blobs, &HashSet::new()).map(drop)
    }

    fn wait_for_marks(self) {
        let mut unsettled = self.lock();
        while unsettled.layers.values().all(|entry| entry.mark.is_none()) {
            unsettled = self.0.unsettled.changed.wait(unsettled).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the marks of earlier processes tell, when the store is opened. `boot` is the kernel's boot ID of now.
    pub(crate) fn recover(self, boot: &str) -> Result<(), Error> {
        self.lock().boot = boot.to_owned();
        let mut batch = Batch::default();
        let mut lost = Vec::new();
        for (name, mark) in read_marks(&self.0.store) {
            let Some(mark) = mark else {
                batch = batch.delete(UNSETTLED, &name);
                continue;
            };
            let chain = &mark.place.chain;
            if name != self.key(chain) {
                self.lock().left.push(mark);
            } else if mark.boot != boot {
                lost.push(mark);
            } else if self.0.layers().has(chain) {
                self.lock().insert(chain.clone(), Some(mark));
            } else {
                batch = batch.delete(UNSETTLED, &name);
            }
        }
        lost.sort_by_key(|mark| mark.place.index);
        // Topmost first: some were on their way out.
        let mut needed = Vec::new();
        for mark in lost.into_iter().rev() {
            let chain = &mark.place.chain;
            if !self.is_recorded(chain) && self.0.snapshots.remove(chain).is_ok() {
                batch = batch.delete(UNSETTLED, &self.key(chain));
            } else {
                needed.push(mark);
            }
        }
        for mark in needed.into_iter().rev() {
            let chain = &mark.place.chain;
            tracing::warn!(
                layer = %chain,
                "the machine stopped before the unpacked layer was sure to be on the disk; it is unpacked again"
            );
            let unpacked = self.0.layers().unpack_tree(&mark.blob, &mark.place, &mut |_, _| {});
            let named =
                unpacked.and_then(|(stage, bytes)| Ok(self.0.snapshots.commit(stage, chain, bytes)?));
            match named {
                Ok(()) => {
                    let mark = Mark { boot: boot.to_owned(), ..mark };
                    batch = self.put_mark(batch, &mark)?;
                    self.lock().insert(mark.place.chain.clone(), Some(mark));
                }
                Err(error) => {
                    tracing::error!(layer = %chain, %error, "the layer cannot be unpacked again; see `system check`");
                    self.lock().left.push(mark);
                }
            }
        }
        Ok(self.0.store.commit(batch)?)
    }

    #[cfg(test)]
    pub(crate) fn unsettled_number(self, chain: &Digest) -> Option<u64> {
        self.lock().layers.get(chain).map(|entry| entry.number)
    }
}

/// Settles in the background for as long as the process lives: some time after something came in, and rather not
/// while more comes.
pub fn keep_settled(images: &Arc<Images>) -> std::io::Result<()> {
    let images = Arc::clone(images);
    let work = move || {
        loop {
            images.settling().wait_for_marks();
            for _ in 0..LOOKS_MAX {
                std::thread::sleep(LOOK);
                if !images.is_anything_pinned() {
                    break;
                }
            }
            images.settling().write_back();
            if let Err(error) = images.settling().settle() {
                tracing::warn!(%error, "unpacked layers could not be brought to the disk");
                std::thread::sleep(AFTER_FAILURE);
            }
        }
    };
    std::thread::Builder::new().name("settle".into()).spawn(work).map(drop)
}
