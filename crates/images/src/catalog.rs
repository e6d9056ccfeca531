//! What images there are, and how large they are.

use std::collections::HashMap;
use std::sync::Arc;

use oci::{Descriptor, Digest, Timestamp};

use crate::filter::{self, ListFilter, labels_match};
use crate::state::{Found, Packed, StoredImage, Summary, Target, packed_in};
use crate::{Error, Images, glob};

/// The lists.
#[derive(Debug, Clone, Copy)]
pub struct Catalog<'a>(pub(crate) &'a Images);

impl Catalog<'_> {
    /// Images with their names, youngest first.
    pub fn list(self, filter: &ListFilter) -> Result<Vec<Summary>, Error> {
        let state = self.0.read();
        let bound = |names: &[String]| -> Result<Vec<Timestamp>, Error> {
            names.iter().map(|name| Ok(state.find(name, None)?.image.created())).collect()
        };
        let (before, since) = (bound(&filter.before)?, bound(&filter.since)?);
        for pattern in &filter.references {
            // A bad pattern is told even if there is nothing to match.
            glob::matches(pattern, "")
                .map_err(|()| Error::Filter { key: "reference", value: pattern.clone() })?;
        }
        let mut shown = Vec::new();
        for (id, targets) in state.rows() {
            let Some(image) = state.images.get(id) else { continue };
            let created = image.created();
            let fits = before.iter().all(|bound| created < *bound)
                && since.iter().all(|bound| created > *bound)
                && filter.until.is_none_or(|until| created.seconds < until)
                && labels_match(image, &filter.labels, &filter.without_labels);
            if fits {
                shown.extend(filter::row(&state, image, &targets, filter));
            }
        }
        shown.sort_by(|a: &Summary, b: &Summary| {
            b.image.created().cmp(&a.image.created()).then(a.image.id.cmp(&b.image.id))
        });
        Ok(shown)
    }

    /// How many lines a list of all images has.
    pub fn count(self) -> usize {
        self.0.read().rows().len()
    }

    /// What a target is in a registry.
    pub fn descriptor(self, target: &Target) -> Option<Descriptor> {
        self.0.read().descriptor(target)
    }

    /// The images of a target that are here, one for each platform.
    pub fn images_of(self, target: &Target) -> Vec<Arc<StoredImage>> {
        self.0.read().images_of(target)
    }

    /// How an image is packed in what a name stands for.
    pub fn packed(self, target: &Target, image: &StoredImage) -> Packed {
        let index = match target {
            Target::Index(digest) => self.0.index(digest),
            Target::Image(_) => None,
        };
        let child = index.as_ref().and_then(|index| index.child_of(&image.id));
        child.map_or_else(|| image.packed(), |child| packed_in(child, image, self.0.content()))
    }

    /// The manifest by which an image was found, with the platform that it is for.
    pub fn manifest_of(self, found: &Found) -> Descriptor {
        let index = match &found.target {
            Target::Index(digest) => self.0.index(digest),
            Target::Image(_) => None,
        };
        let child = index.as_ref().and_then(|index| index.child_of(&found.image.id));
        let manifest = child.map_or_else(|| found.image.manifest.clone(), |child| child.descriptor.clone());
        let platform = manifest.platform.unwrap_or_else(|| found.image.config.platform());
        Descriptor { platform: Some(platform), ..manifest }
    }

    /// Bytes of file content in all layers of a target's images, each layer counted once.
    pub fn unpacked_size(self, target: &Target) -> u64 {
        let images = self.images_of(target);
        bytes(images.iter().map(Arc::as_ref))
    }

    /// For each image, the bytes of those of its layers that other images have as well.
    pub fn shared_sizes(self) -> HashMap<Digest, u64> {
        let state = self.0.read();
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
    pub fn layers_size(self) -> u64 {
        bytes(self.0.read().images.values().map(Arc::as_ref))
    }

    /// Images that were made here from this one, or from scratch; youngest first.
    pub fn children(self, parent: Option<&Digest>) -> Vec<Arc<StoredImage>> {
        let state = self.0.read();
        let mut children: Vec<Arc<StoredImage>> =
            state.images.values().filter(|image| image.parent.as_ref() == parent).cloned().collect();
        children.sort_by_key(|image| std::cmp::Reverse(image.created()));
        children
    }
}

fn bytes<'a>(images: impl Iterator<Item = &'a StoredImage>) -> u64 {
    let layers = images.flat_map(|image| image.chains.iter().zip(&image.layers));
    layers.map(|(chain, layer)| (chain, layer.bytes)).collect::<HashMap<_, _>>().values().sum()
}
