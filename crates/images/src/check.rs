//! Looks whether everything that the records name is there and right, and whether there is anything beside it.
//!
//! Every blob is read and hashed, so that this takes as long as the store has bytes; nobody waits for it meanwhile. What
//! goes on at the same time may be found half done: therefore a repair looks again, with the lock on changes, before it
//! takes anything away, and what an operation has pinned is nobody's orphan.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::io::Read;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use metadata::Batch;
use oci::{Descriptor, Digest, Hasher, Reference};

use crate::index::StoredIndex;
use crate::state::{self, State, StoredImage, Tagged, Target, Unusable};
use crate::{Error, Images, LayerPlace};

/// How long the layer of a container that is gone may still be there.
const GRACE: Duration = Duration::from_millis(500);

/// What is wrong with a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    Missing,
    Size { expected: u64, found: u64 },
    Content { found: Digest },
    Unreadable(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing => write!(f, "is missing"),
            Damage::Size { expected, found } => write!(f, "has {found} bytes instead of {expected}"),
            Damage::Content { found } => write!(f, "is damaged: its content has the digest {found}"),
            Damage::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A record that was left out when the store was opened.
    Record {
        record: String,
        why: String,
    },
    Blob {
        of: String,
        blob: Digest,
        damage: Damage,
    },
    /// An unpacked layer of an image is not there.
    Layer {
        of: String,
        chain: Digest,
    },
    /// A container has no read-write layer.
    NoWritableLayer {
        container: String,
    },
    OrphanBlob {
        blob: Digest,
        bytes: u64,
    },
    OrphanLayer {
        chain: Digest,
        bytes: u64,
    },
    OrphanWritableLayer {
        container: String,
    },
    /// What came of a download that nobody will go on with.
    OrphanPartial {
        name: String,
        bytes: u64,
    },
    /// `index.json` says something else than the records.
    Layout,
}

impl Problem {
    /// One word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Problem::Record { .. } => "record",
            Problem::Blob { .. } => "blob",
            Problem::Layer { .. } => "layer",
            Problem::NoWritableLayer { .. } => "no-writable-layer",
            Problem::OrphanBlob { .. } => "orphan-blob",
            Problem::OrphanLayer { .. } => "orphan-layer",
            Problem::OrphanWritableLayer { .. } => "orphan-writable-layer",
            Problem::OrphanPartial { .. } => "orphan-partial",
            Problem::Layout => "layout",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Record { record, why } => write!(f, "the record of {record} cannot be used: {why}"),
            Problem::Blob { of, blob, damage } => write!(f, "{of}: blob {blob} {damage}"),
            Problem::Layer { of, chain } => write!(f, "{of}: unpacked layer {chain} is missing"),
            Problem::NoWritableLayer { container } => {
                write!(f, "container {container}: its writable layer is missing")
            }
            Problem::OrphanBlob { blob, bytes } => {
                write!(f, "blob {blob} ({bytes} bytes) belongs to nothing")
            }
            Problem::OrphanLayer { chain, bytes } => {
                write!(f, "unpacked layer {chain} ({bytes} bytes) belongs to nothing")
            }
            Problem::OrphanWritableLayer { container } => {
                write!(f, "writable layer {container} belongs to no container")
            }
            Problem::OrphanPartial { name, bytes } => {
                write!(f, "partial download {name} ({bytes} bytes) will not be gone on with")
            }
            Problem::Layout => write!(f, "index.json does not say what the records say"),
        }
    }
}

/// A problem, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub problem: Problem,
    /// What a repair did; none if it was not asked for, or could not help.
    pub repair: Option<String>,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub images: usize,
    pub indexes: usize,
    pub blobs: usize,
    /// Of all blobs.
    pub bytes: u64,
    pub layers: usize,
    pub containers: usize,
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether something is wrong and stays wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.repair.is_some())
    }
}

/// The containers that there are.
#[derive(Clone, Copy)]
pub struct Containers<'a> {
    /// Whether a container has this ID, or is about to.
    pub exists: &'a dyn Fn(&str) -> bool,
    /// IDs of those that have been created.
    pub all: &'a [String],
}

/// The checkup.
#[derive(Debug, Clone, Copy)]
pub struct Checkup<'a>(pub(crate) &'a Images);

/// What is true of each blob that was looked at.
type Looked = BTreeMap<Digest, Option<Damage>>;

impl Checkup<'_> {
    /// Looks at everything, and repairs what can be if that is wanted: removes orphans, unpacks layers again, and drops
    /// the records of what cannot be whole.
    pub fn run(self, containers: Containers<'_>, repair: bool) -> Result<CheckReport, Error> {
        let Checkup(images) = self;
        let (all, indexes) = {
            let state = images.read();
            let all: Vec<Arc<StoredImage>> = state.images.values().cloned().collect();
            let indexes: Vec<Arc<StoredIndex>> = state.indexes.values().cloned().collect();
            (all, indexes)
        };
        let mut report = CheckReport {
            images: all.len(),
            indexes: indexes.len(),
            layers: images.snapshots.layers().len(),
            containers: containers.all.len(),
            ..CheckReport::default()
        };
        for blob in images.content.walk()? {
            report.blobs += 1;
            report.bytes += blob.size;
        }
        let unusable = images.unusable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for record in unusable {
            let problem = Problem::Record {
                record: format!("{} {}", record.what(), record.key),
                why: record.why.clone(),
            };
            let fixed = repair.then(|| self.forget(&record)).transpose()?;
            report.findings.push(Finding { problem, repair: fixed });
        }
        let mut looked = Looked::new();
        for index in &indexes {
            self.check_index(index, &mut looked, repair, &mut report)?;
        }
        if repair {
            self.forget_lost_layers();
        }
        for image in &all {
            self.check_image(image, &mut looked, repair, &mut report)?;
        }
        self.check_containers(containers, repair, &mut report)?;
        self.check_orphans(repair, &mut report)?;
        self.check_layout(repair, &mut report)?;
        Ok(report)
    }

    fn check_index(
        self,
        index: &Arc<StoredIndex>,
        looked: &mut Looked,
        repair: bool,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let digest = &index.descriptor.digest;
        let target = Target::Index(digest.clone());
        let of = self.name(&target);
        let mut broken = Vec::new();
        for document in std::iter::once(&index.descriptor).chain(&index.nested) {
            if let Some(damage) = self.look(document, looked)
                && self.0.index(digest).is_some()
            {
                broken.push((document.digest.clone(), damage));
            }
        }
        for (blob, damage) in broken {
            let gone = repair.then(|| self.drop_index(digest, &blob)).transpose()?;
            report
                .findings
                .push(Finding { problem: Problem::Blob { of: of.clone(), blob, damage }, repair: gone });
        }
        // What is said about images, and other ways in which they are packed, may be there or not, but not half.
        let of_images: Vec<&crate::Child> = {
            let here = |child: &&crate::Child| child.image().is_some_and(|id| self.0.get(id).is_some());
            index.children.iter().filter(here).collect()
        };
        let others = index.children.iter().flat_map(crate::Child::own_blobs);
        for blob in others.chain(of_images.iter().flat_map(|child| child.image_blobs())) {
            match self.look(blob, looked) {
                None | Some(Damage::Missing) => {}
                Some(damage) => {
                    let gone = repair
                        .then(|| self.0.content.delete(&blob.digest).map(|()| "removed the blob".to_owned()));
                    let problem = Problem::Blob { of: of.clone(), blob: blob.digest.clone(), damage };
                    report.findings.push(Finding { problem, repair: gone.transpose()? });
                }
            }
        }
        Ok(())
    }

    fn check_image(
        self,
        image: &Arc<StoredImage>,
        looked: &mut Looked,
        repair: bool,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let of = self.name(&Target::Image(image.id.clone()));
        let documents = [&image.config_descriptor, &image.manifest];
        let blobs = documents.into_iter().chain(image.layers.iter().map(|layer| &layer.blob));
        let mut whole = true;
        let mut seen = BTreeSet::new();
        for blob in blobs.filter(|blob| seen.insert(blob.digest.clone())) {
            let Some(damage) = self.look(blob, looked) else { continue };
            // Reading takes its time, and meanwhile it may have gone in all order.
            if self.0.get(&image.id).is_none_or(|now| now.manifest != image.manifest) {
                return Ok(());
            }
            whole = false;
            let gone = repair.then(|| self.drop_image(image, Some(&blob.digest))).transpose()?;
            let problem = Problem::Blob { of: of.clone(), blob: blob.digest.clone(), damage };
            report.findings.push(Finding { problem, repair: gone });
        }
        let missing: Vec<&Digest> = image.chains.iter().filter(|chain| !self.has_layer(chain)).collect();
        for chain in missing {
            let fixed = match repair {
                false => None,
                true if whole && self.unpack_again(image, chain)? => Some("unpacked it again".to_owned()),
                true => Some(self.drop_image(image, None)?),
            };
            let problem = Problem::Layer { of: of.clone(), chain: chain.clone() };
            report.findings.push(Finding { problem, repair: fixed });
        }
        Ok(())
    }

    /// Forgets layers whose directories are gone: they are in the way of new ones. Those that somebody uses stay.
    fn forget_lost_layers(self) {
        let snapshots = &self.0.snapshots;
        loop {
            // A layer can only go after those above it.
            let lost = snapshots.layers().into_iter().filter(|layer| !layer.directory.is_dir());
            if lost.filter(|layer| snapshots.remove(&layer.chain).is_ok()).count() == 0 {
                return;
            }
        }
    }

    fn has_layer(self, chain: &Digest) -> bool {
        self.0.snapshots.layer(chain).is_some_and(|layer| layer.directory.is_dir())
    }

    /// Brings a layer back from its archive. Whether that helped: what a container lies on cannot be replaced.
    fn unpack_again(self, image: &StoredImage, chain: &Digest) -> Result<bool, Error> {
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let mut places = LayerPlace::all(&diff_ids).into_iter().zip(&image.layers);
        let Some((place, layer)) = places.find(|(place, _)| place.chain == *chain) else { return Ok(false) };
        let mut pins = self.0.pins();
        pins.blob(&layer.blob.digest);
        pins.chain(chain);
        let unpacked = self.0.layers().unpack_one(&layer.blob.digest, &place, &mut |_, _| {});
        Ok(unpacked.is_ok() && self.has_layer(chain))
    }

    fn check_containers(
        self,
        containers: Containers<'_>,
        repair: bool,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let layers: BTreeSet<String> = self.0.snapshots.containers().into_iter().collect();
        for container in containers.all {
            if !layers.contains(container) && (containers.exists)(container) {
                let problem = Problem::NoWritableLayer { container: container.clone() };
                report.findings.push(Finding { problem, repair: None });
            }
        }
        // Builds name theirs differently, and take them away themselves.
        let of_a_container =
            |name: &String| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_orphan = |name: &String| of_a_container(name) && !(containers.exists)(name);
        let mut orphans: Vec<String> = layers.into_iter().filter(is_orphan).collect();
        if !orphans.is_empty() {
            // What is on its way out with its container is gone in a moment.
            std::thread::sleep(GRACE);
            let left = self.0.snapshots.containers();
            orphans.retain(|name| left.contains(name) && is_orphan(name));
        }
        for container in orphans {
            let gone = repair.then(|| self.0.release(&container)).transpose()?;
            let problem = Problem::OrphanWritableLayer { container };
            report.findings.push(Finding { problem, repair: gone.map(|_| "removed it".to_owned()) });
        }
        Ok(())
    }

    fn check_orphans(self, repair: bool, report: &mut CheckReport) -> Result<(), Error> {
        let Checkup(images) = self;
        let change = images.lock_change();
        let (blobs, chains) = self.orphans()?;
        for (blob, bytes) in &blobs {
            let problem = Problem::OrphanBlob { blob: blob.clone(), bytes: *bytes };
            report.findings.push(Finding { problem, repair: repair.then(|| "removed it".to_owned()) });
        }
        for (chain, bytes) in &chains {
            let problem = Problem::OrphanLayer { chain: chain.clone(), bytes: *bytes };
            report.findings.push(Finding { problem, repair: repair.then(|| "removed it".to_owned()) });
        }
        if repair {
            let (blobs, chains) = (blobs.into_keys().collect(), chains.into_keys().collect());
            images.discard(&change, &blobs, &chains)?;
        }
        drop(change);
        for (name, bytes) in images.content.stale_partials()? {
            let gone = repair.then(|| images.content.remove_partial(&name)).transpose()?;
            let problem = Problem::OrphanPartial { name, bytes };
            report.findings.push(Finding { problem, repair: gone.map(|()| "removed it".to_owned()) });
        }
        Ok(())
    }

    /// Blobs and layers that nothing needs, with their sizes. The caller has the lock on changes.
    #[allow(clippy::type_complexity)]
    fn orphans(self) -> Result<(BTreeMap<Digest, u64>, BTreeMap<Digest, u64>), Error> {
        let Checkup(images) = self;
        let state = images.read();
        let of_images = state.images.values().flat_map(|image| image.blobs());
        let of_indexes = state.indexes.values().flat_map(|index| state.index_blobs(index));
        let mut used: HashSet<&Digest> = of_images.chain(of_indexes).collect();
        let layers = images.snapshots.layers();
        let parents: BTreeMap<&Digest, Option<&Digest>> =
            layers.iter().map(|layer| (&layer.chain, layer.parent.as_ref())).collect();
        let mut needed: HashSet<&Digest> = state.images.values().flat_map(|image| &image.chains).collect();
        let tops = images.snapshots.containers().into_iter();
        let tops: Vec<Digest> = tops.filter_map(|container| images.snapshots.top(&container).ok()?).collect();
        for top in &tops {
            let mut next = parents.get_key_value(top).map(|(chain, _)| *chain);
            while let Some(chain) = next.filter(|chain| needed.insert(chain)) {
                next = parents.get(chain).copied().flatten();
            }
        }
        let orphans: BTreeMap<Digest, u64> = layers
            .iter()
            .filter(|layer| !needed.contains(&layer.chain) && !images.is_pinned(&layer.chain))
            .map(|layer| (layer.chain.clone(), layer.bytes))
            .collect();
        let unsettled = images.settling().lock();
        used.extend(unsettled.blobs_but_of(&orphans));
        let walked = images.content.walk()?.into_iter();
        let blobs = walked
            .filter(|blob| !used.contains(&blob.digest) && !images.is_pinned(&blob.digest))
            .map(|blob| (blob.digest, blob.size));
        Ok((blobs.collect(), orphans))
    }

    fn check_layout(self, repair: bool, report: &mut CheckReport) -> Result<(), Error> {
        let Checkup(images) = self;
        let _change = images.lock_change();
        let wanted = images.read().index();
        if images.content.index().is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        let fixed = repair.then(|| images.write_index()).transpose()?;
        let fixed = fixed.map(|()| "wrote it anew".to_owned());
        report.findings.push(Finding { problem: Problem::Layout, repair: fixed });
        Ok(())
    }

    /// Reads a blob whole, once.
    fn look(self, blob: &Descriptor, looked: &mut Looked) -> Option<Damage> {
        looked.entry(blob.digest.clone()).or_insert_with(|| self.damage(blob)).clone()
    }

    fn damage(self, blob: &Descriptor) -> Option<Damage> {
        let mut file = match self.0.content.open_blob(&blob.digest) {
            Ok(file) => file,
            Err(content::Error::NotFound(_)) => return Some(Damage::Missing),
            Err(error) => return Some(Damage::Unreadable(error.to_string())),
        };
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let (mut buffer, mut found) = (vec![0; 256 << 10], 0);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    found += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Damage::Unreadable(error.to_string())),
            }
        }
        if found != blob.size {
            return Some(Damage::Size { expected: blob.size, found });
        }
        let digest = hasher.finish();
        (digest != blob.digest).then_some(Damage::Content { found: digest })
    }

    /// What a target is called, for people.
    fn name(self, target: &Target) -> String {
        let state = self.0.read();
        let (what, digest) = match target {
            Target::Image(id) => ("image", id),
            Target::Index(digest) => ("index", digest),
        };
        let own = state.names_of(target).next();
        let of_an_index = || {
            let mut indexes = state.indexes.iter();
            let (digest, _) = indexes
                .find(|(_, index)| index.children.iter().any(|child| child.image() == Some(digest)))?;
            state.names_of(&Target::Index(digest.clone())).next()
        };
        match own.or_else(of_an_index) {
            Some(name) => format!("{what} {} ({})", name.familiar(), digest.short()),
            None => format!("{what} {}", digest.short()),
        }
    }

    /// Drops an image that cannot be whole, from its indexes as well. The blob that is bad goes in any case: while it is
    /// there, no pull would bring a good one.
    fn drop_image(self, image: &Arc<StoredImage>, bad: Option<&Digest>) -> Result<String, Error> {
        let Checkup(images) = self;
        let change = images.lock_change();
        if let Some(bad) = bad {
            images.content.delete(bad)?;
        }
        let mut state = images.read().clone();
        let of_indexes: Vec<Digest> =
            state.indexes.values().flat_map(|index| state.index_blobs(index)).cloned().collect();
        if state.images.remove(&image.id).is_none() {
            return Ok("dropped the image".to_owned());
        }
        let mut gone = vec![Target::Image(image.id.clone())];
        for (digest, index) in state.indexes.clone() {
            if index.children.iter().any(|child| child.image() == Some(&image.id)) {
                let rest = Arc::new(index.without(&image.id));
                match state.shown_of(&rest) {
                    Some(_) => drop(state.indexes.insert(digest, rest)),
                    None => {
                        state.indexes.remove(&digest);
                        gone.push(Target::Index(digest));
                    }
                }
            }
        }
        let names = self.forget_targets(&change, &mut state, &gone)?;
        let mut blobs: HashSet<Digest> = image.blobs().cloned().collect();
        blobs.extend(of_indexes);
        let chains = image.chains.iter().cloned().collect();
        images.discard(&change, &blobs, &chains)?;
        Ok(match names.is_empty() {
            true => "dropped the image".to_owned(),
            false => format!("dropped the image, and with it the names {}", names.join(", ")),
        })
    }

    /// Drops an index that cannot be read any more. Its images stay, and the one for this host gets its names.
    fn drop_index(self, digest: &Digest, bad: &Digest) -> Result<String, Error> {
        let Checkup(images) = self;
        let _change = images.lock_change();
        images.content.delete(bad)?;
        let target = Target::Index(digest.clone());
        let (shown, names) = {
            let state = images.read();
            let names =
                state.names_of(&target).filter_map(|name| Some((name.clone(), state.tags.get(name)?.at)));
            (state.shown(&target).cloned(), names.collect::<Vec<_>>())
        };
        let Some(shown) = shown else { return Ok("dropped the index".to_owned()) };
        let successor = |at| Tagged { target: Target::Image(shown.id.clone()), of_registry: false, at };
        let mut batch = state::delete(Batch::default(), &target);
        for (name, at) in &names {
            batch = match name.digest() {
                None => state::put_tag(batch, name, &successor(*at))?,
                Some(_) => state::delete_tag(batch, name),
            };
        }
        images.store.commit(batch)?;
        let mut state = images.write();
        for (name, at) in names {
            match name.digest() {
                None => state.insert_tag(name, successor(at)),
                Some(_) => state.remove_tag(&name),
            }
        }
        state.remove(&target);
        drop(state);
        images.write_index()?;
        Ok(format!("dropped the index; its names are those of image {} now", shown.id.short()))
    }

    /// Takes targets and their names out of the records. Gives the names.
    fn forget_targets(
        self,
        _change: &MutexGuard<'_, ()>,
        state: &mut State,
        gone: &[Target],
    ) -> Result<Vec<String>, Error> {
        let references: Vec<Reference> =
            gone.iter().flat_map(|target| state.names_of(target)).cloned().collect();
        let mut batch = gone.iter().fold(Batch::default(), state::delete);
        for reference in &references {
            batch = state::delete_tag(batch, reference);
        }
        self.0.store.commit(batch)?;
        for reference in &references {
            state.remove_tag(reference);
        }
        *self.0.write() = std::mem::take(state);
        self.0.write_index()?;
        Ok(references.iter().map(Reference::familiar).collect())
    }

    /// Drops a record that cannot be used.
    fn forget(self, record: &Unusable) -> Result<String, Error> {
        let _change = self.0.lock_change();
        self.0.store.commit(Batch::default().delete(record.table, &record.key))?;
        let mut unusable = self.0.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        unusable.retain(|known| known != record);
        Ok("dropped the record".to_owned())
    }
}
