//! The last step of every way in: blobs that are in the store become an image.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::sync::Arc;

use oci::{Descriptor, Digest, Image, Manifest, Reference, Timestamp, media_type};

use crate::index::{self, StoredIndex};
use crate::layers::OnRead;
use crate::pins::Pins;
use crate::settle::Marks;
use crate::state::{self, LayerRecord, StoredImage, Tagged, Target};
use crate::{Error, Images, LayerPlace, failpoint};

/// A layer's archive in the content store.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
    /// The archive's diff ID, if this store has found it out already. It is not read again then.
    pub verified: Option<Digest>,
}

/// The manifest an image came with, byte for byte.
#[derive(Debug, Clone)]
pub struct OriginalManifest {
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// An image to be.
#[derive(Debug)]
pub struct Registration<'a> {
    /// The configuration document, byte for byte.
    pub config: &'a [u8],
    /// The manifest that it came with; one is made if there is none.
    pub manifest: Option<OriginalManifest>,
    /// Lowest first, in the content store and pinned.
    pub layers: Vec<LayerBlob>,
    /// The image it was made from here.
    pub parent: Option<Digest>,
    pub now: Timestamp,
}

/// What one name will stand for.
#[derive(Debug)]
pub struct Arrival {
    /// Prepared with [`Registrar::prepare`]: of an index those that have come, else one.
    pub images: Vec<StoredImage>,
    /// The index that they belong to, in the content store and pinned, with all that came of it.
    pub index: Option<Descriptor>,
    /// Names that it gets.
    pub references: Vec<Reference>,
    /// It comes from a registry under these names.
    pub of_registry: bool,
}

/// What has come in.
#[derive(Debug, Clone)]
pub struct Registered {
    pub target: Target,
    /// The first of its images.
    pub image: Arc<StoredImage>,
    /// It was there before.
    pub known: bool,
    /// Names that other images lost to it, with those images.
    pub replaced: Vec<(Reference, Digest)>,
}

/// Makes what came in exist.
#[derive(Debug, Clone, Copy)]
pub struct Registrar<'a>(pub(crate) &'a Images);

/// What a commit will change, beside its names.
#[derive(Default)]
struct Changes {
    batch: metadata::Batch,
    images: BTreeMap<Digest, Arc<StoredImage>>,
    indexes: Vec<Arc<StoredIndex>>,
    tags: Vec<(Reference, Tagged)>,
    /// Manifests that have come, whether or not their images are new.
    manifests: HashSet<Digest>,
    /// Of layers whose files may not be on the disk yet; their archives are.
    marks: Marks,
}

impl Registrar<'_> {
    /// Prepares one image and makes it exist.
    pub fn register(
        self,
        pins: &mut Pins<'_>,
        registration: Registration<'_>,
        references: Vec<Reference>,
        on_read: &mut dyn FnMut(&Digest, u64, u64),
    ) -> Result<Registered, Error> {
        let now = registration.now;
        let image = self.prepare(pins, registration, on_read)?;
        let arrival = Arrival { images: vec![image], index: None, references, of_registry: false };
        let registered = self.record(vec![arrival], now)?.pop();
        registered.ok_or_else(|| Error::Index("nothing came in".into()))
    }

    /// Unpacks the layers that are not unpacked yet, and puts the documents into the content store. The blobs of the
    /// layers must be there and pinned in `pins`. `on_read` hears which layer is read, and how far.
    pub fn prepare(
        self,
        pins: &mut Pins<'_>,
        registration: Registration<'_>,
        on_read: &mut dyn FnMut(&Digest, u64, u64),
    ) -> Result<StoredImage, Error> {
        let Registrar(images) = self;
        let invalid = |source| Error::Document { what: "the image configuration".into(), source };
        let config: Image = oci::image::read(registration.config).map_err(invalid)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != registration.layers.len() {
            return Err(Error::LayerCount { expected: diff_ids.len(), found: registration.layers.len() });
        }
        let places = LayerPlace::all(diff_ids);
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (place, blob) in places.iter().zip(&registration.layers) {
            let LayerPlace { diff_id, chain, .. } = place;
            pins.blob(&blob.digest);
            pins.chain(chain);
            let on_layer: OnRead<'_> = &mut |read, size| on_read(diff_id, read, size);
            let present = images.snapshots.layer(chain).filter(|_| blob.verified.as_ref() == Some(diff_id));
            let bytes = match present {
                Some(present) => present.bytes,
                None => {
                    failpoint::hit("images.unpack")?;
                    images.layers().unpack_one(&blob.digest, place, on_layer)?
                }
            };
            let descriptor = Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size);
            layers.push(LayerRecord { diff_id: diff_id.clone(), bytes, blob: descriptor });
        }
        let id = Digest::of(registration.config);
        pins.blob(&id);
        images.content.put(registration.config)?;
        let config_descriptor =
            Descriptor::new(media_type::OCI_CONFIG, id.clone(), registration.config.len() as u64);
        let manifest = manifest(&config_descriptor, &layers, registration.manifest)?;
        let manifest_digest = Digest::of(&manifest.bytes);
        pins.blob(&manifest_digest);
        images.content.put(&manifest.bytes)?;
        Ok(StoredImage {
            id,
            config: Arc::new(config),
            config_descriptor,
            manifest: Descriptor::new(&manifest.media_type, manifest_digest, manifest.bytes.len() as u64),
            layers,
            chains: places.into_iter().map(|place| place.chain).collect(),
            parent: registration.parent,
            stored: registration.now,
        })
    }

    /// Puts a document that belongs to an index into the content store: the index itself, or a statement.
    pub fn keep(self, pins: &mut Pins<'_>, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        pins.blob(digest);
        let mut writer = self.0.content.writer_for(digest.algorithm())?;
        writer.write_all(bytes).map_err(|source| Error::Io { operation: "write a document", source })?;
        let ingested = writer.finish()?;
        ingested.verify(digest, None)?;
        ingested.commit()?;
        Ok(())
    }

    /// Makes everything exist with one durable commit: all of it or nothing. Unpacked layers may reach the disk later (see
    /// the module `settle`).
    pub fn record(self, arrivals: Vec<Arrival>, now: Timestamp) -> Result<Vec<Registered>, Error> {
        let Registrar(images) = self;
        failpoint::hit("images.sync")?;
        images.content.sync()?;
        let change = images.lock_change();
        let mut changes = Changes::default();
        let mut registered = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            registered.push(self.arrive(&mut changes, arrival, now)?);
        }
        failpoint::hit("images.record")?;
        if !changes.batch.is_empty() {
            images.store.commit(changes.batch)?;
        }
        images.settling().marked(changes.marks);
        // Other indexes may name what has come as well.
        let awaiting: Vec<Arc<StoredIndex>> = images
            .read()
            .indexes
            .values()
            .filter(|index| index.awaits(&changes.manifests))
            .cloned()
            .collect();
        for index in awaiting {
            let kept = |entry: &Descriptor| state::kept(&images.content, entry);
            changes.indexes.extend(index::read(&index.descriptor, index.stored, &kept).map(Arc::new));
        }
        {
            let mut state = images.write();
            state.images.extend(changes.images);
            for index in changes.indexes {
                state.indexes.insert(index.descriptor.digest.clone(), index);
            }
            for (reference, tagged) in changes.tags {
                state.insert_tag(reference, tagged);
            }
        }
        // They exist from here on. What other tools are told is told again with the next change.
        let _ = images.write_index();
        drop(change);
        Ok(registered)
    }

    fn arrive(self, changes: &mut Changes, arrival: Arrival, now: Timestamp) -> Result<Registered, Error> {
        let Registrar(images) = self;
        let mut first: Option<(Arc<StoredImage>, bool)> = None;
        for image in arrival.images {
            changes.manifests.insert(image.manifest.digest.clone());
            let known = changes.images.get(&image.id).cloned().or_else(|| images.get(&image.id));
            let was_known = known.is_some();
            let stored = match known {
                // An image that is there stays as it came first, with its own manifest and archives. What its index has
                // beside that is the index's.
                Some(known) => known,
                None => {
                    let batch = state::put_image(std::mem::take(&mut changes.batch), &image)?;
                    changes.batch = images.settling().mark_layers(batch, &image, &mut changes.marks)?;
                    let image = Arc::new(image);
                    changes.images.insert(image.id.clone(), Arc::clone(&image));
                    image
                }
            };
            first.get_or_insert((stored, was_known));
        }
        let (image, image_known) = first.ok_or_else(|| Error::Index("none of its images is here".into()))?;
        let (target, known) = match arrival.index {
            None => (Target::Image(image.id.clone()), image_known),
            Some(descriptor) => {
                let earlier = images.index(&descriptor.digest);
                let stored = earlier.as_ref().map_or(now, |earlier| earlier.stored);
                let read = index::read(&descriptor, stored, &|entry| state::kept(&images.content, entry))?;
                if earlier.is_none() {
                    changes.batch = state::put_index(std::mem::take(&mut changes.batch), &read)?;
                }
                changes.indexes.push(Arc::new(read));
                (Target::Index(descriptor.digest), earlier.is_some() && image_known)
            }
        };
        let mut replaced = Vec::new();
        for reference in arrival.references {
            let state = images.read();
            let earlier = state.tags.get(&reference);
            let known = earlier.is_some_and(|earlier| earlier.of_registry && earlier.target == target);
            if let Some(earlier) = earlier
                && earlier.target != target
                && let Some(shown) = state.shown(&earlier.target)
            {
                replaced.push((reference.clone(), shown.id.clone()));
            }
            drop(state);
            let of_registry = reference.digest().is_some() && (arrival.of_registry || known);
            let tagged = Tagged { target: target.clone(), of_registry, at: now };
            changes.batch = state::put_tag(std::mem::take(&mut changes.batch), &reference, &tagged)?;
            changes.tags.push((reference, tagged));
        }
        Ok(Registered { target, image, known, replaced })
    }
}

/// The original manifest if it speaks of exactly these blobs, else one of our own.
fn manifest(
    config: &Descriptor,
    layers: &[LayerRecord],
    original: Option<OriginalManifest>,
) -> Result<OriginalManifest, Error> {
    if let Some(original) = original {
        let parsed = oci::image::read::<Manifest>(&original.bytes);
        let same = parsed.is_ok_and(|manifest| {
            manifest.config.digest == config.digest
                && manifest.layers.iter().map(|layer| &layer.digest).eq(layers.iter().map(|l| &l.blob.digest))
        });
        if same {
            return Ok(original);
        }
    }
    let layers = layers.iter().map(|layer| layer.blob.clone()).collect();
    let manifest = Manifest::new(config.clone(), layers);
    let bytes = serde_json::to_vec(&manifest).map_err(Error::Encode)?;
    Ok(OriginalManifest { media_type: media_type::OCI_MANIFEST.to_owned(), bytes })
}
