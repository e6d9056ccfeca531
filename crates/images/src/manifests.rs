//! What a name stands for, manifest by manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use oci::{Descriptor, Digest, Platform};

use crate::Catalog;
use crate::index::{Child, ChildKind, Document};
use crate::state::{Packed, State, StoredImage, Target, platform_of};

/// A manifest of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestSummary {
    pub descriptor: Descriptor,
    pub kind: ChildKind,
    /// All that it names is here.
    pub available: bool,
    /// Bytes of those of its blobs that are here.
    pub content: u64,
    /// Bytes of the unpacked layers.
    pub unpacked: u64,
    /// Of an image.
    pub platform: Option<Platform>,
    /// The image, if it is here.
    pub image: Option<Arc<StoredImage>>,
}

impl Catalog<'_> {
    /// The manifests that a target has: one for each platform that its index names, here or not.
    pub fn manifests(self, target: &Target) -> Vec<ManifestSummary> {
        let state = self.0.read();
        let content = self.0.content();
        match target {
            Target::Image(id) => {
                let image = state.images.get(id).into_iter();
                image
                    .map(|image| {
                        of_image(
                            image.packed(),
                            image.manifest.clone(),
                            image.config.platform(),
                            image,
                            content,
                        )
                    })
                    .collect()
            }
            Target::Index(digest) => {
                let children = state.indexes.get(digest).into_iter().flat_map(|index| &index.children);
                children.map(|child| of_child(&state, child, content)).collect()
            }
        }
    }
}

fn of_image(
    packed: Packed,
    descriptor: Descriptor,
    platform: Platform,
    image: &Arc<StoredImage>,
    content: &content::Store,
) -> ManifestSummary {
    let sizes = packed.blobs().map(|blob| (&blob.digest, content.size(&blob.digest).unwrap_or(0)));
    ManifestSummary {
        descriptor,
        kind: ChildKind::Image,
        available: packed.is_here(content),
        content: sizes.collect::<BTreeMap<&Digest, u64>>().values().sum(),
        unpacked: image.size(),
        platform: Some(platform),
        image: Some(Arc::clone(image)),
    }
}

fn of_child(state: &State, child: &Child, content: &content::Store) -> ManifestSummary {
    if let Some(image) = child.image().and_then(|id| state.images.get(id)) {
        let packed = child.packed().unwrap_or_else(|| image.packed());
        return of_image(packed, child.descriptor.clone(), platform_of(child, image), image, content);
    }
    let kind = child.kind();
    let sizes: Vec<Option<u64>> = match &child.document {
        Document::Other { .. } => child.own_blobs().map(|blob| content.size(&blob.digest).ok()).collect(),
        // The manifest alone tells nobody anything.
        Document::Absent | Document::Image { .. } => vec![None],
    };
    let platform = (kind == ChildKind::Image).then(|| child.descriptor.platform.clone().unwrap_or_default());
    ManifestSummary {
        descriptor: child.descriptor.clone(),
        kind,
        available: sizes.iter().all(Option::is_some),
        content: sizes.into_iter().flatten().sum(),
        unpacked: 0,
        platform,
        image: None,
    }
}
