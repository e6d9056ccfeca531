//! The records, and the same in memory: which images there are and what they are called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use metadata::{Batch, Store};
use oci::image::CONFIG_BYTES_MAX;
use oci::{Descriptor, Digest, Image, Index, Reference, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Error;

const IMAGES: &str = "images";
const TAGS: &str = "tags";

/// A layer of a stored image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    pub diff_id: Digest,
    /// Bytes of file content in the unpacked layer.
    pub bytes: u64,
    /// The archive, as it came.
    pub blob: Descriptor,
}

/// A stored image. It never changes: another image has another ID.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredImage {
    /// Digest of the configuration document.
    pub id: Digest,
    pub config: Arc<Image>,
    pub config_descriptor: Descriptor,
    pub manifest: Descriptor,
    /// Lowest first.
    pub layers: Vec<LayerRecord>,
    /// Chain ID of every layer, lowest first.
    pub chains: Vec<Digest>,
    /// The image it was made from here (by a build step or a commit).
    pub parent: Option<Digest>,
    /// When it came into this store.
    pub stored: Timestamp,
}

impl StoredImage {
    /// Chain ID of the topmost layer: what a container's read-write layer lies on. `None` for an image without layers.
    pub fn chain(&self) -> Option<&Digest> {
        self.chains.last()
    }

    /// Bytes of file content in all layers.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// When it was made, by its own account; the beginning of the calendar if it does not say.
    pub fn created(&self) -> Timestamp {
        const UNKNOWN: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };
        self.config.created.as_deref().and_then(Timestamp::parse).unwrap_or(UNKNOWN)
    }

    /// Every blob it needs.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        let documents = [&self.config_descriptor.digest, &self.manifest.digest];
        documents.into_iter().chain(self.layers.iter().map(|layer| &layer.blob.digest))
    }
}

/// One line of a list of images.
#[derive(Debug, Clone)]
pub struct Summary {
    pub image: Arc<StoredImage>,
    /// Familiar names with tags, sorted.
    pub repo_tags: Vec<String>,
    /// Familiar names with digests, sorted.
    pub repo_digests: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    config: Descriptor,
    manifest: Descriptor,
    layers: Vec<LayerRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Digest>,
    stored: String,
}

#[derive(Serialize, Deserialize)]
struct TagRecord {
    id: Digest,
    at: String,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub struct Tagged {
    pub id: Digest,
    pub at: Timestamp,
}

/// All records in memory.
#[derive(Debug, Default)]
pub struct State {
    pub images: BTreeMap<Digest, Arc<StoredImage>>,
    pub tags: BTreeMap<Reference, Tagged>,
    names: BTreeMap<Digest, BTreeSet<Reference>>,
}

/// Adds the record of an image to a batch.
pub fn put_image(batch: Batch, image: &StoredImage) -> Result<Batch, Error> {
    let record = ImageRecord {
        config: image.config_descriptor.clone(),
        manifest: image.manifest.clone(),
        layers: image.layers.clone(),
        parent: image.parent.clone(),
        stored: image.stored.to_string(),
    };
    let bytes = serde_json::to_vec(&record).map_err(Error::Encode)?;
    Ok(batch.put(IMAGES, image.id.as_str(), bytes))
}

pub fn delete_image(batch: Batch, id: &Digest) -> Batch {
    batch.delete(IMAGES, id.as_str())
}

pub fn put_tag(batch: Batch, reference: &Reference, id: &Digest, at: Timestamp) -> Result<Batch, Error> {
    let record = TagRecord { id: id.clone(), at: at.to_string() };
    let bytes = serde_json::to_vec(&record).map_err(Error::Encode)?;
    Ok(batch.put(TAGS, &reference.to_string(), bytes))
}

pub fn delete_tag(batch: Batch, reference: &Reference) -> Batch {
    batch.delete(TAGS, &reference.to_string())
}

impl State {
    /// Reads the records with the configurations that they name. What cannot be used is skipped and told.
    pub fn read(store: &Store, content: &content::Store) -> (State, Vec<String>) {
        let mut state = State::default();
        let mut warnings = Vec::new();
        for (key, bytes) in store.scan(IMAGES) {
            match read_image(&key, &bytes, content) {
                Ok(image) => {
                    state.images.insert(image.id.clone(), Arc::new(image));
                }
                Err(error) => warnings.push(format!("image {key} is left out: {error}")),
            }
        }
        for (key, bytes) in store.scan(TAGS) {
            let record = serde_json::from_slice::<TagRecord>(&bytes).ok();
            let (Ok(reference), Some(record)) = (Reference::parse(&key), record) else {
                warnings.push(format!("image name {key} is left out: its record is not valid"));
                continue;
            };
            if state.images.contains_key(&record.id) {
                let at = Timestamp::parse(&record.at).unwrap_or_default();
                state.insert_tag(reference, record.id, at);
            }
        }
        (state, warnings)
    }

    pub fn insert_tag(&mut self, reference: Reference, id: Digest, at: Timestamp) {
        self.names.entry(id.clone()).or_default().insert(reference.clone());
        if let Some(earlier) = self.tags.insert(reference.clone(), Tagged { id: id.clone(), at })
            && earlier.id != id
        {
            self.forget_name(&earlier.id, &reference);
        }
    }

    pub fn remove_tag(&mut self, reference: &Reference) {
        if let Some(tagged) = self.tags.remove(reference) {
            self.forget_name(&tagged.id, reference);
        }
    }

    fn forget_name(&mut self, id: &Digest, reference: &Reference) {
        if let Some(names) = self.names.get_mut(id) {
            names.remove(reference);
            if names.is_empty() {
                self.names.remove(id);
            }
        }
    }

    /// Every name of an image, tags and digests, sorted.
    pub fn references(&self, id: &Digest) -> Vec<Reference> {
        self.names.get(id).into_iter().flatten().cloned().collect()
    }

    pub fn children(&self, id: &Digest) -> impl Iterator<Item = &Arc<StoredImage>> {
        self.images.values().filter(move |image| image.parent.as_ref() == Some(id))
    }

    /// The image, and the name it was found by if it was found by one. A name goes before an ID that looks like it.
    pub fn resolve(&self, name: &str) -> Result<(Arc<StoredImage>, Option<Reference>), Error> {
        let by_id = |id: &Digest| self.images.get(id).cloned();
        if let Ok(id) = name.parse::<Digest>() {
            return by_id(&id).map(|image| (image, None)).ok_or_else(|| Error::NoSuchImage(name.to_owned()));
        }
        if let Ok(id) = Digest::from_sha256_hex(name) {
            return by_id(&id).map(|image| (image, None)).ok_or(Error::NoSuchImage(id.to_string()));
        }
        let reference = match Reference::parse(name) {
            Ok(reference) => reference.or_latest(),
            // `sha256:abc` is no reference with a long tag, and may be a shortened ID.
            Err(error) => {
                return match self.by_prefix(name)? {
                    Some(image) => Ok((image, None)),
                    None => Err(error.into()),
                };
            }
        };
        let known = reference.clone().favouring_digest();
        if let Some(image) = self.tags.get(&known).and_then(|tagged| by_id(&tagged.id)) {
            return Ok((image, Some(known)));
        }
        match self.by_prefix(name)? {
            Some(image) => Ok((image, None)),
            None => Err(Error::NoSuchImage(reference.familiar())),
        }
    }

    fn by_prefix(&self, text: &str) -> Result<Option<Arc<StoredImage>>, Error> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || hex.len() >= 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let mut found = self.images.values().filter(|image| image.id.hex().starts_with(hex));
        let Some(first) = found.next() else { return Ok(None) };
        match found.count() {
            0 => Ok(Some(Arc::clone(first))),
            more => Err(Error::Ambiguous { prefix: text.to_owned(), count: more + 1 }),
        }
    }

    pub fn summary(&self, image: &Arc<StoredImage>) -> Summary {
        let (digests, tags): (Vec<_>, Vec<_>) =
            self.references(&image.id).into_iter().partition(|reference| reference.digest().is_some());
        let familiar = |references: Vec<Reference>| references.iter().map(Reference::familiar).collect();
        Summary { image: Arc::clone(image), repo_tags: familiar(tags), repo_digests: familiar(digests) }
    }

    /// The named manifests, as the layout's index has them.
    pub fn index(&self) -> Index {
        let mut index = Index::default();
        for (reference, tagged) in &self.tags {
            let (Some(image), Some(tag)) = (self.images.get(&tagged.id), reference.tag()) else { continue };
            let mut descriptor = image.manifest.clone();
            descriptor.platform = Some(image.config.platform());
            let annotations = &mut descriptor.annotations;
            annotations.insert("io.containerd.image.name".into(), reference.to_string());
            annotations.insert(
                "org.opencontainers.image.ref.name".into(),
                format!("{}:{tag}", reference.familiar_name()),
            );
            index.manifests.push(descriptor);
        }
        index
    }
}

fn read_image(key: &str, bytes: &[u8], content: &content::Store) -> Result<StoredImage, Error> {
    let invalid = |source| Error::Record { id: key.to_owned(), source };
    let record: ImageRecord = serde_json::from_slice(bytes).map_err(invalid)?;
    let config = content.read(&record.config.digest, CONFIG_BYTES_MAX)?;
    let config: Image = serde_json::from_slice(&config).map_err(invalid)?;
    let diff_ids: Vec<Digest> = record.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    Ok(StoredImage {
        id: record.config.digest.clone(),
        config: Arc::new(config),
        config_descriptor: record.config,
        manifest: record.manifest,
        layers: record.layers,
        chains: oci::chain_ids(&diff_ids),
        parent: record.parent,
        stored: Timestamp::parse(&record.stored).unwrap_or_default(),
    })
}
