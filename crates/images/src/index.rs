//! An index: a list of manifests, one for each platform, and statements about them.
//!
//! An index is kept byte for byte, with those of its manifests that are here. Which of its images are here is for the
//! images' own records to say: an index only knows what would be theirs.

use std::collections::{BTreeMap, HashSet};

use oci::image::MANIFEST_BYTES_MAX;
use oci::{Descriptor, Digest, Index, Manifest, Platform, Timestamp, media_type};

use crate::Error;
use crate::state::Packed;

/// Indexes within indexes.
const DEPTH_MAX: usize = 4;
/// Manifests that an index may name, with those of the indexes in it: more than any image has, and few enough to walk
/// through at any time.
const ENTRIES_MAX: usize = 4096;

const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// A stored index. It never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredIndex {
    pub descriptor: Descriptor,
    /// The manifests that it names, and those that the indexes in it name, in their order.
    pub children: Vec<Child>,
    /// The indexes in it that are here.
    pub nested: Vec<Descriptor>,
    /// When it came into this store.
    pub stored: Timestamp,
}

/// A manifest that an index names.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    pub descriptor: Descriptor,
    pub document: Document,
}

/// What a manifest says, if it is here.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    Absent,
    /// An image that can be run on its platform.
    Image {
        config: Box<Descriptor>,
        layers: Vec<Descriptor>,
    },
    /// A statement about an image, or whatever else somebody keeps beside images.
    Other {
        blobs: Vec<Descriptor>,
    },
}

/// What a manifest is, as far as an index tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildKind {
    Image,
    /// A statement about the image with this manifest.
    Attestation(String),
    Unknown,
}

impl StoredIndex {
    /// What it says of an image, by the image's ID.
    pub fn child_of(&self, image: &Digest) -> Option<&Child> {
        self.children.iter().find(|child| child.image() == Some(image))
    }

    /// The same after one of its images has gone, and with it the statements about that.
    pub fn without(&self, image: &Digest) -> StoredIndex {
        let gone: Vec<String> = self
            .children
            .iter()
            .filter(|child| child.image() == Some(image))
            .map(|child| child.descriptor.digest.to_string())
            .collect();
        let mut without = self.clone();
        for child in &mut without.children {
            let about = attested(&child.descriptor).is_some_and(|of| gone.iter().any(|digest| digest == of));
            if about || child.image() == Some(image) {
                child.document = Document::Absent;
            }
        }
        without
    }

    /// Whether it names one of these manifests that was not here when it was read.
    pub fn awaits(&self, manifests: &HashSet<Digest>) -> bool {
        let absent = |child: &Child| child.document == Document::Absent;
        self.children.iter().any(|child| absent(child) && manifests.contains(&child.descriptor.digest))
    }
}

impl Child {
    pub fn kind(&self) -> ChildKind {
        if let Some(of) = attested(&self.descriptor) {
            return ChildKind::Attestation(of.to_owned());
        }
        match &self.document {
            Document::Image { .. } => ChildKind::Image,
            Document::Absent if may_run(&self.descriptor) => ChildKind::Image,
            Document::Absent | Document::Other { .. } => ChildKind::Unknown,
        }
    }

    /// The ID of the image whose manifest this is.
    pub fn image(&self) -> Option<&Digest> {
        match &self.document {
            Document::Image { config, .. } => Some(&config.digest),
            Document::Absent | Document::Other { .. } => None,
        }
    }

    /// The image as this manifest packs it.
    pub fn packed(&self) -> Option<Packed> {
        let Document::Image { config, layers } = &self.document else { return None };
        let manifest = Descriptor { platform: None, annotations: BTreeMap::new(), ..self.descriptor.clone() };
        Some(Packed { manifest, config: config.as_ref().clone(), layers: layers.clone() })
    }

    /// The blobs of an image, as this manifest packs it.
    pub fn image_blobs(&self) -> impl Iterator<Item = &Descriptor> {
        match &self.document {
            Document::Image { config, layers } => {
                Some([&self.descriptor, config.as_ref()].into_iter().chain(layers))
            }
            Document::Absent | Document::Other { .. } => None,
        }
        .into_iter()
        .flatten()
    }

    /// The blobs that only it can need: an image has those that its record tells.
    pub fn own_blobs(&self) -> impl Iterator<Item = &Descriptor> {
        match &self.document {
            Document::Other { blobs } => Some(std::iter::once(&self.descriptor).chain(blobs)),
            Document::Absent | Document::Image { .. } => None,
        }
        .into_iter()
        .flatten()
    }
}

/// The manifest that a statement is about.
pub fn attested(descriptor: &Descriptor) -> Option<&str> {
    let kind = descriptor.annotations.get(REFERENCE_TYPE)?;
    (kind == "attestation-manifest").then(|| descriptor.annotations.get(REFERENCE_DIGEST).map_or("", |of| of))
}

/// Whether an entry of an index may name an image that runs somewhere.
pub fn may_run(descriptor: &Descriptor) -> bool {
    let unknown = |platform: &Platform| platform.os == "unknown" || platform.architecture == "unknown";
    media_type::is_manifest(&descriptor.media_type)
        && descriptor.artifact_type.is_empty()
        && attested(descriptor).is_none()
        && !descriptor.platform.as_ref().is_some_and(unknown)
}

/// Documents by their descriptors: those of a store, of an archive, or of a registry.
pub type Documents<'a> = &'a dyn Fn(&Descriptor) -> Result<Option<Vec<u8>>, Error>;

/// Reads an index with what is there of its manifests. It must say itself what it is.
pub fn read(
    descriptor: &Descriptor,
    stored: Timestamp,
    documents: Documents<'_>,
) -> Result<StoredIndex, Error> {
    let mut index =
        StoredIndex { descriptor: descriptor.clone(), children: Vec::new(), nested: Vec::new(), stored };
    let bytes = documents(descriptor)?.ok_or_else(|| content::Error::NotFound(descriptor.digest.clone()))?;
    let mut left = ENTRIES_MAX;
    read_into(&mut index, &bytes, documents, DEPTH_MAX, &mut left)?;
    Ok(index)
}

fn read_into(
    into: &mut StoredIndex,
    bytes: &[u8],
    documents: Documents<'_>,
    depth_left: usize,
    left: &mut usize,
) -> Result<(), Error> {
    for entry in parse(bytes)?.manifests {
        *left = left
            .checked_sub(1)
            .ok_or_else(|| Error::Index(format!("it names more than {ENTRIES_MAX} manifests")))?;
        if media_type::is_index(&entry.media_type) {
            let depth_left =
                depth_left.checked_sub(1).ok_or_else(|| Error::Index("it is nested too deep".into()))?;
            if let Some(bytes) = documents(&entry)? {
                into.nested.push(entry);
                read_into(into, &bytes, documents, depth_left, left)?;
                continue;
            }
        }
        let document = match documents(&entry)? {
            Some(bytes) => document(&entry, &bytes),
            None => Document::Absent,
        };
        into.children.push(Child { descriptor: entry, document });
    }
    Ok(())
}

/// Reads an index, and refuses what is none.
pub fn parse(bytes: &[u8]) -> Result<Index, Error> {
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(Error::Index(format!("it is larger than {MANIFEST_BYTES_MAX} bytes")));
    }
    let invalid = |source| Error::Document { what: "an index".into(), source };
    oci::image::read(bytes).map_err(invalid)
}

fn document(entry: &Descriptor, bytes: &[u8]) -> Document {
    let Ok(manifest) = oci::image::read::<Manifest>(bytes) else {
        return Document::Other { blobs: Vec::new() };
    };
    if may_run(entry) && media_type::is_config(&manifest.config.media_type) {
        return Document::Image { config: Box::new(manifest.config), layers: manifest.layers };
    }
    let blobs = std::iter::once(manifest.config).chain(manifest.layers).collect();
    Document::Other { blobs }
}
