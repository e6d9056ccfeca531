//! The records, and the same in memory: which images there are and what they are called.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use metadata::{Batch, Store};
use oci::image::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use oci::{Descriptor, Digest, Image, Index, Platform, Reference, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::index::{self, Child, StoredIndex};

pub const IMAGES: &str = "images";
pub const INDEXES: &str = "indexes";
pub const TAGS: &str = "tags";

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

    /// As it is packed here.
    pub fn packed(&self) -> Packed {
        Packed {
            manifest: self.manifest.clone(),
            config: self.config_descriptor.clone(),
            layers: self.layers.iter().map(|layer| layer.blob.clone()).collect(),
        }
    }

    /// Every blob it needs.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        let documents = [&self.config_descriptor.digest, &self.manifest.digest];
        documents.into_iter().chain(self.layers.iter().map(|layer| &layer.blob.digest))
    }
}

/// An image as one of its manifests packs it: the same layers may be compressed in many ways.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    pub manifest: Descriptor,
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

impl Packed {
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.manifest, &self.config].into_iter().chain(&self.layers)
    }

    /// Whether all of it is here.
    pub fn is_here(&self, content: &content::Store) -> bool {
        self.blobs().all(|blob| content.contains(&blob.digest))
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// One image, by its ID.
    Image(Digest),
    /// The index with this digest, and so its images on all platforms.
    Index(Digest),
}

/// What was found by a name or an ID.
#[derive(Debug, Clone)]
pub struct Found {
    pub target: Target,
    /// The target's image for the platform that was asked for, or for this host.
    pub image: Arc<StoredImage>,
    /// The name it was found by, if it was found by one.
    pub reference: Option<Reference>,
}

/// One line of a list of images.
#[derive(Debug, Clone)]
pub struct Summary {
    pub target: Target,
    /// What stands for the target: its image for this host, or else any.
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
struct IndexRecord {
    descriptor: Descriptor,
    stored: String,
}

/// Names of images have had `id` from the beginning; names of indexes have `index` instead.
#[derive(Serialize, Deserialize)]
struct TagRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<Digest>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    of_registry: bool,
    at: String,
}

/// What a name stands for, and since when.
#[derive(Debug, Clone)]
pub struct Tagged {
    pub target: Target,
    /// It is a name with a digest that a registry has served or taken, not only an archive's word for it.
    pub of_registry: bool,
    pub at: Timestamp,
}

/// All records in memory.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub images: BTreeMap<Digest, Arc<StoredImage>>,
    pub indexes: BTreeMap<Digest, Arc<StoredIndex>>,
    pub tags: BTreeMap<Reference, Tagged>,
    names: BTreeMap<Target, BTreeSet<Reference>>,
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

pub fn put_index(batch: Batch, index: &StoredIndex) -> Result<Batch, Error> {
    let record = IndexRecord { descriptor: index.descriptor.clone(), stored: index.stored.to_string() };
    let bytes = serde_json::to_vec(&record).map_err(Error::Encode)?;
    Ok(batch.put(INDEXES, index.descriptor.digest.as_str(), bytes))
}

/// Adds the end of a record to a batch.
pub fn delete(batch: Batch, target: &Target) -> Batch {
    match target {
        Target::Image(id) => batch.delete(IMAGES, id.as_str()),
        Target::Index(digest) => batch.delete(INDEXES, digest.as_str()),
    }
}

pub fn put_tag(batch: Batch, reference: &Reference, tagged: &Tagged) -> Result<Batch, Error> {
    let (id, index) = match tagged.target.clone() {
        Target::Image(id) => (Some(id), None),
        Target::Index(digest) => (None, Some(digest)),
    };
    let record = TagRecord { id, index, of_registry: tagged.of_registry, at: tagged.at.to_string() };
    let bytes = serde_json::to_vec(&record).map_err(Error::Encode)?;
    Ok(batch.put(TAGS, &reference.to_string(), bytes))
}

pub fn delete_tag(batch: Batch, reference: &Reference) -> Batch {
    batch.delete(TAGS, &reference.to_string())
}

/// A record that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub table: &'static str,
    pub key: String,
    pub why: String,
}

impl Unusable {
    /// What the record was of.
    pub fn what(&self) -> &'static str {
        match self.table {
            IMAGES => "image",
            INDEXES => "index",
            _ => "image name",
        }
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} is left out: {}", self.what(), self.key, self.why)
    }
}

impl State {
    /// Reads the records with the documents that they name. What cannot be used is skipped and told.
    pub fn read(store: &Store, content: &content::Store) -> (State, Vec<Unusable>) {
        let mut state = State::default();
        let mut unusable = Vec::new();
        let mut tell = |table, key: &str, why: String| {
            unusable.push(Unusable { table, key: key.to_owned(), why });
        };
        for (key, bytes) in store.scan(IMAGES) {
            match read_image(&key, &bytes, content) {
                Ok(image) => drop(state.images.insert(image.id.clone(), Arc::new(image))),
                Err(error) => tell(IMAGES, &key, error.to_string()),
            }
        }
        for (key, bytes) in store.scan(INDEXES) {
            match read_index(&key, &bytes, content) {
                Ok(index) if state.shown_of(&index).is_none() => {
                    tell(INDEXES, &key, "none of its images is here".into());
                }
                Ok(index) => {
                    state.indexes.insert(index.descriptor.digest.clone(), Arc::new(index));
                }
                Err(error) => tell(INDEXES, &key, error.to_string()),
            }
        }
        for (key, bytes) in store.scan(TAGS) {
            let record = serde_json::from_slice::<TagRecord>(&bytes).ok();
            let target = record.as_ref().and_then(|record| match (record.index.clone(), record.id.clone()) {
                (Some(index), _) => Some(Target::Index(index)),
                (None, id) => id.map(Target::Image),
            });
            let (Ok(reference), Some(record), Some(target)) = (Reference::parse(&key), record, target) else {
                tell(TAGS, &key, "it is not a valid record".into());
                continue;
            };
            if state.has(&target) {
                let at = Timestamp::parse(&record.at).unwrap_or_default();
                state.insert_tag(reference, Tagged { target, of_registry: record.of_registry, at });
            } else {
                tell(TAGS, &key, "what it names is not here".into());
            }
        }
        (state, unusable)
    }

    pub fn has(&self, target: &Target) -> bool {
        match target {
            Target::Image(id) => self.images.contains_key(id),
            Target::Index(digest) => self.indexes.contains_key(digest),
        }
    }

    pub fn insert_tag(&mut self, reference: Reference, tagged: Tagged) {
        let target = tagged.target.clone();
        self.names.entry(target.clone()).or_default().insert(reference.clone());
        if let Some(earlier) = self.tags.insert(reference.clone(), tagged)
            && earlier.target != target
        {
            self.forget_name(&earlier.target, &reference);
        }
    }

    pub fn remove_tag(&mut self, reference: &Reference) {
        if let Some(tagged) = self.tags.remove(reference) {
            self.forget_name(&tagged.target, reference);
        }
    }

    fn forget_name(&mut self, target: &Target, reference: &Reference) {
        if let Some(names) = self.names.get_mut(target) {
            names.remove(reference);
            if names.is_empty() {
                self.names.remove(target);
            }
        }
    }

    /// Forgets an image or an index. Its names are the caller's.
    pub fn remove(&mut self, target: &Target) {
        match target {
            Target::Image(id) => drop(self.images.remove(id)),
            Target::Index(digest) => drop(self.indexes.remove(digest)),
        }
    }

    /// The names of a target, tags and digests, sorted.
    pub fn names_of(&self, target: &Target) -> impl Iterator<Item = &Reference> {
        self.names.get(target).into_iter().flatten()
    }

    /// Every name of all that an image stands for, tags and digests, sorted.
    pub fn references(&self, shown: &Digest) -> Vec<Reference> {
        let targets = self.targets_of(shown);
        let names: BTreeSet<&Reference> = targets.iter().flat_map(|target| self.names_of(target)).collect();
        names.into_iter().cloned().collect()
    }

    /// What an image stands for: the indexes that show it, and itself.
    pub fn targets_of(&self, shown: &Digest) -> Vec<Target> {
        let indexes = self
            .indexes
            .iter()
            .filter(|(_, index)| self.shown_of(index).is_some_and(|image| image.id == *shown));
        let mut targets: Vec<Target> = indexes.map(|(digest, _)| Target::Index(digest.clone())).collect();
        targets.push(Target::Image(shown.clone()));
        targets
    }

    /// The images of an index that are here, with what the index says of each.
    pub fn present<'a>(
        &'a self,
        index: &'a StoredIndex,
    ) -> impl Iterator<Item = (&'a Child, &'a Arc<StoredImage>)> {
        index.children.iter().filter_map(|child| Some((child, self.images.get(child.image()?)?)))
    }

    /// The image of an index that serves a platform best.
    fn best<'a>(&'a self, index: &'a StoredIndex, wanted: &Platform) -> Option<&'a Arc<StoredImage>> {
        let present = self.present(index);
        wanted.closest(present.map(|(child, image)| (Some(platform_of(child, image)), image)))
    }

    /// What stands for an index: its image for this host, or else any.
    pub fn shown_of<'a>(&'a self, index: &'a StoredIndex) -> Option<&'a Arc<StoredImage>> {
        let host = self.best(index, &Platform::host());
        host.or_else(|| self.present(index).next().map(|(_, image)| image))
    }

    pub fn shown(&self, target: &Target) -> Option<&Arc<StoredImage>> {
        match target {
            Target::Image(id) => self.images.get(id),
            Target::Index(digest) => self.shown_of(self.indexes.get(digest)?),
        }
    }

    /// The images of a target that are here.
    pub fn images_of(&self, target: &Target) -> Vec<Arc<StoredImage>> {
        match target {
            Target::Image(id) => self.images.get(id).cloned().into_iter().collect(),
            Target::Index(digest) => {
                let index = self.indexes.get(digest).into_iter();
                index.flat_map(|index| self.present(index)).map(|(_, image)| Arc::clone(image)).collect()
            }
        }
    }

    /// The images that an index has, and that therefore need no name of their own.
    pub fn held(&self) -> HashSet<&Digest> {
        self.indexes.values().flat_map(|index| self.present(index)).map(|(_, image)| &image.id).collect()
    }

    /// Every target that counts for itself, by the image that stands for it.
    pub fn rows(&self) -> BTreeMap<&Digest, Vec<Target>> {
        let mut rows: BTreeMap<&Digest, Vec<Target>> = BTreeMap::new();
        for (digest, index) in &self.indexes {
            if let Some(image) = self.shown_of(index) {
                rows.entry(&image.id).or_default().push(Target::Index(digest.clone()));
            }
        }
        let held = self.held();
        for id in self.images.keys() {
            let target = Target::Image(id.clone());
            if !held.contains(id) || self.names.contains_key(&target) {
                rows.entry(id).or_default().push(target);
            }
        }
        rows
    }

    pub fn children(&self, id: &Digest) -> impl Iterator<Item = &Arc<StoredImage>> {
        self.images.values().filter(move |image| image.parent.as_ref() == Some(id))
    }

    /// The image, and the name it was found by if it was found by one. A name goes before an ID that looks like it.
    pub fn find(&self, name: &str, platform: Option<&Platform>) -> Result<Found, Error> {
        let missing = |what: String| Error::NoSuchImage(what);
        if let Ok(digest) = name.parse::<Digest>() {
            let target = self.by_digest(&digest).ok_or_else(|| missing(name.to_owned()))?;
            return self.found(target, None, name, platform);
        }
        if let Ok(digest) = Digest::from_sha256_hex(name) {
            let target = self.by_digest(&digest).ok_or_else(|| missing(digest.to_string()))?;
            return self.found(target, None, name, platform);
        }
        let reference = match Reference::parse(name) {
            Ok(reference) => reference.or_latest(),
            // `sha256:abc` is no reference with a long tag, and may be a shortened ID.
            Err(error) => {
                let target = self.by_prefix(name)?.ok_or(error)?;
                return self.found(target, None, name, platform);
            }
        };
        let known = reference.clone().favouring_digest();
        if let Some(tagged) = self.tags.get(&known) {
            return self.found(tagged.target.clone(), Some(known), name, platform);
        }
        let target = self.by_prefix(name)?.ok_or_else(|| missing(reference.familiar()))?;
        self.found(target, None, name, platform)
    }

    fn found(
        &self,
        target: Target,
        reference: Option<Reference>,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Found, Error> {
        let image = match (platform, &target) {
            (None, _) => self.shown(&target),
            (Some(wanted), Target::Index(digest)) => {
                self.indexes.get(digest).and_then(|index| self.best(index, wanted))
            }
            (Some(wanted), Target::Image(id)) => {
                self.images.get(id).filter(|image| image.config.platform().serves(wanted))
            }
        };
        let image = image.cloned().ok_or_else(|| match platform {
            Some(wanted) => Error::Platform {
                reference: reference.as_ref().map_or_else(|| name.to_owned(), Reference::familiar),
                platform: wanted.to_string(),
            },
            None => Error::NoSuchImage(name.to_owned()),
        })?;
        Ok(Found { target, image, reference })
    }

    /// The target with this ID: that of an image, or the digest of an index or a manifest.
    fn by_digest(&self, digest: &Digest) -> Option<Target> {
        if self.indexes.contains_key(digest) {
            return Some(Target::Index(digest.clone()));
        }
        let by_manifest = || self.images.values().find(|image| image.manifest.digest == *digest);
        let of_an_index = || {
            let mut present = self.indexes.values().flat_map(|index| self.present(index));
            present.find(|(child, _)| child.descriptor.digest == *digest).map(|(_, image)| image)
        };
        let image = self.images.get(digest).or_else(by_manifest).or_else(of_an_index)?;
        Some(self.standing_for(&image.id))
    }

    /// Who asks for an image by its ID means the whole that it stands for in lists.
    fn standing_for(&self, id: &Digest) -> Target {
        let own = Target::Image(id.clone());
        if self.names.contains_key(&own) {
            return own;
        }
        let mut targets = self.targets_of(id);
        targets.sort_by_key(|target| !self.names.contains_key(target));
        targets.into_iter().next().unwrap_or(own)
    }

    fn by_prefix(&self, text: &str) -> Result<Option<Target>, Error> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || hex.len() >= 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let fits = |digest: &Digest| digest.hex().starts_with(hex);
        let one = |found: Vec<&Digest>| match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(self.by_digest(one)),
            more => Err(Error::Ambiguous { prefix: text.to_owned(), count: more.len() }),
        };
        let by_id = one(self.images.keys().filter(|id| fits(id)).collect())?;
        if by_id.is_some() {
            return Ok(by_id);
        }
        // Digests of indexes and manifests are what lists of platforms show.
        let manifests = self.images.values().map(|image| &image.manifest.digest);
        let children = self.indexes.values().flat_map(|index| self.present(index));
        let children = children.map(|(child, _)| &child.descriptor.digest);
        let all: BTreeSet<&Digest> = self.indexes.keys().chain(manifests).chain(children).collect();
        one(all.into_iter().filter(|digest| fits(digest)).collect())
    }

    pub fn descriptor(&self, target: &Target) -> Option<Descriptor> {
        match target {
            Target::Image(id) => {
                let image = self.images.get(id)?;
                Some(Descriptor { platform: Some(image.config.platform()), ..image.manifest.clone() })
            }
            Target::Index(digest) => self.indexes.get(digest).map(|index| index.descriptor.clone()),
        }
    }

    /// Every blob that an index needs: its images may be packed otherwise than their own records tell.
    pub fn index_blobs<'a>(&'a self, index: &'a StoredIndex) -> impl Iterator<Item = &'a Digest> {
        let documents = std::iter::once(&index.descriptor).chain(&index.nested);
        let others = index.children.iter().flat_map(Child::own_blobs);
        let images = self.present(index).flat_map(|(child, _)| child.image_blobs());
        documents.chain(others).chain(images).map(|descriptor| &descriptor.digest)
    }

    /// The named manifests and indexes, as the layout's index has them.
    pub fn index(&self) -> Index {
        let mut index = Index::default();
        for (reference, tagged) in &self.tags {
            let (Some(mut descriptor), Some(tag)) = (self.descriptor(&tagged.target), reference.tag()) else {
                continue;
            };
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

/// The platform of an image: as the index tells it, for it knows of variants, or else its own.
pub fn platform_of(child: &Child, image: &StoredImage) -> Platform {
    child.descriptor.platform.clone().unwrap_or_else(|| image.config.platform())
}

/// An image as its index packs it, if that is all here, or else as its own record does.
pub fn packed_in(child: &Child, image: &StoredImage, content: &content::Store) -> Packed {
    child.packed().filter(|packed| packed.is_here(content)).unwrap_or_else(|| image.packed())
}

fn read_image(key: &str, bytes: &[u8], content: &content::Store) -> Result<StoredImage, Error> {
    let invalid = |source| Error::Record { id: key.to_owned(), source };
    let record: ImageRecord = serde_json::from_slice(bytes).map_err(invalid)?;
    let config = content.read(&record.config.digest, CONFIG_BYTES_MAX)?;
    let config: Image = oci::image::read(&config).map_err(invalid)?;
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

fn read_index(key: &str, bytes: &[u8], content: &content::Store) -> Result<StoredIndex, Error> {
    let invalid = |source| Error::Record { id: key.to_owned(), source };
    let record: IndexRecord = serde_json::from_slice(bytes).map_err(invalid)?;
    let stored = Timestamp::parse(&record.stored).unwrap_or_default();
    index::read(&record.descriptor, stored, &|descriptor| kept(content, descriptor))
}

/// A document of the content store, if it is there.
pub fn kept(content: &content::Store, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Error> {
    match content.read(&descriptor.digest, MANIFEST_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(content::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
