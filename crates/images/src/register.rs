//! The last step of every way in: blobs that are in the store become an image.

use std::sync::Arc;

use oci::{Descriptor, Digest, Image, Manifest, Reference, Timestamp, media_type};

use crate::layers::OnRead;
use crate::pins::Pins;
use crate::state::{self, LayerRecord, StoredImage};
use crate::{Error, Images};

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
    /// Names that it gets.
    pub references: Vec<Reference>,
    /// The image it was made from here.
    pub parent: Option<Digest>,
    pub now: Timestamp,
}

/// An image that has come in.
#[derive(Debug, Clone)]
pub struct Registered {
    pub image: Arc<StoredImage>,
    /// It was there before.
    pub known: bool,
    /// Names that other images lost to it, with those images.
    pub replaced: Vec<(Reference, Digest)>,
}

impl Images {
    /// Unpacks the layers that are not unpacked yet, and makes the image exist with one durable commit. The blobs of the
    /// layers must be in the content store and pinned in `pins`. `on_read` hears which layer is read, and how far.
    pub fn register(
        &self,
        pins: &mut Pins<'_>,
        registration: Registration<'_>,
        on_read: &mut dyn FnMut(&Digest, u64, u64),
    ) -> Result<Registered, Error> {
        let invalid = |source| Error::Document { what: "the image configuration".into(), source };
        let config: Image = serde_json::from_slice(registration.config).map_err(invalid)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != registration.layers.len() {
            return Err(Error::LayerCount { expected: diff_ids.len(), found: registration.layers.len() });
        }
        let chains = oci::chain_ids(diff_ids);
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (index, (diff_id, blob)) in diff_ids.iter().zip(&registration.layers).enumerate() {
            let (parent, chain) = (index.checked_sub(1).map(|below| &chains[below]), &chains[index]);
            pins.blob(&blob.digest);
            pins.chain(chain);
            let on_layer: OnRead<'_> = &mut |read, size| on_read(diff_id, read, size);
            let present = self.snapshots.layer(chain).filter(|_| blob.verified.as_ref() == Some(diff_id));
            let bytes = match present {
                Some(present) => present.bytes,
                None => self.unpack_layer(&blob.digest, index, diff_id, parent, chain, on_layer)?,
            };
            let descriptor = Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size);
            layers.push(LayerRecord { diff_id: diff_id.clone(), bytes, blob: descriptor });
        }
        let id = Digest::of(registration.config);
        pins.blob(&id);
        self.content.put(registration.config)?;
        let config_descriptor =
            Descriptor::new(media_type::OCI_CONFIG, id.clone(), registration.config.len() as u64);
        let manifest = manifest(&config_descriptor, &layers, registration.manifest)?;
        let manifest_digest = Digest::of(&manifest.bytes);
        pins.blob(&manifest_digest);
        self.content.put(&manifest.bytes)?;
        self.content.sync()?;
        // Layers of a recorded image were synced before it was recorded. All others may be as fresh as these: also those
        // that were there, since another load may have named them a moment ago.
        if chains.last().is_some_and(|top| !self.is_recorded(top)) {
            self.snapshots.sync()?;
        }
        let image = StoredImage {
            id,
            config: Arc::new(config),
            config_descriptor,
            manifest: Descriptor::new(&manifest.media_type, manifest_digest, manifest.bytes.len() as u64),
            layers,
            chains,
            parent: registration.parent,
            stored: registration.now,
        };
        self.record(image, &registration.references, registration.now)
    }

    /// Whether a recorded image has the layer.
    fn is_recorded(&self, chain: &Digest) -> bool {
        self.read().images.values().any(|image| image.chains.contains(chain))
    }

    fn record(
        &self,
        image: StoredImage,
        references: &[Reference],
        now: Timestamp,
    ) -> Result<Registered, Error> {
        let _change = self.lock_change();
        let known = self.get(&image.id);
        let mut batch = metadata::Batch::default();
        let stored = match &known {
            // An image that is there stays as it came first, with its own manifest and archives.
            Some(known) => Arc::clone(known),
            None => {
                batch = state::put_image(batch, &image)?;
                Arc::new(image)
            }
        };
        let mut replaced = Vec::new();
        for reference in references {
            batch = state::put_tag(batch, reference, &stored.id, now)?;
            if let Some(tagged) = self.read().tags.get(reference)
                && tagged.id != stored.id
            {
                replaced.push((reference.clone(), tagged.id.clone()));
            }
        }
        if !batch.is_empty() {
            self.store.commit(batch)?;
        }
        {
            let mut state = self.write();
            state.images.insert(stored.id.clone(), Arc::clone(&stored));
            for reference in references {
                state.insert_tag(reference.clone(), stored.id.clone(), now);
            }
        }
        self.write_index()?;
        Ok(Registered { image: stored, known: known.is_some(), replaced })
    }
}

/// The original manifest if it speaks of exactly these blobs, else one of our own.
fn manifest(
    config: &Descriptor,
    layers: &[LayerRecord],
    original: Option<OriginalManifest>,
) -> Result<OriginalManifest, Error> {
    if let Some(original) = original {
        let parsed = serde_json::from_slice::<Manifest>(&original.bytes);
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
