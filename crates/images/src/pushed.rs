//! What a push needs to know: which tags a repository has here, what a layer is when it is compressed, and where else it
//! may be.

use std::sync::Arc;

use oci::{Descriptor, Digest, Reference};

use crate::state::{StoredImage, Target};
use crate::{Error, Images};

/// Diff ID → the descriptor of the archive that a push made of it.
const COMPRESSED: &str = "compressed-layers";

/// A name that is to be pushed.
#[derive(Debug, Clone)]
pub struct PushTarget {
    pub reference: Reference,
    pub target: Target,
}

/// What pushes ask for.
#[derive(Debug, Clone, Copy)]
pub struct Pushes<'a>(pub(crate) &'a Images);

impl Pushes<'_> {
    /// What the tag stands for, or all tags of the repository if the reference has none.
    pub fn tagged(self, reference: &Reference) -> Vec<PushTarget> {
        let state = self.0.read();
        let fits = |known: &Reference| match reference.tag() {
            Some(tag) => known.tag() == Some(tag),
            None => known.tag().is_some(),
        };
        let tags = state.tags.iter().filter(|(known, _)| known.name() == reference.name() && fits(known));
        tags.map(|(known, tagged)| PushTarget { reference: known.clone(), target: tagged.target.clone() })
            .collect()
    }

    /// Whether a registry has the image with this very manifest, as far as is known here.
    pub fn is_as_it_came(self, image: &StoredImage) -> bool {
        let state = self.0.read();
        let is_named = |target: &Target| {
            state.names_of(target).any(|name| name.digest() == Some(&image.manifest.digest))
        };
        let in_an_index = |index: &crate::StoredIndex| {
            index.children.iter().any(|child| child.descriptor.digest == image.manifest.digest)
        };
        is_named(&Target::Image(image.id.clone())) || state.indexes.values().any(|index| in_an_index(index))
    }

    /// Paths of other repositories of the same registry that a layer was named in here; at most `count`.
    pub fn repositories_with(self, diff_id: &Digest, target: &Reference, count: usize) -> Vec<String> {
        let state = self.0.read();
        let mut paths: Vec<String> = Vec::new();
        for (reference, tagged) in &state.tags {
            if paths.len() == count {
                break;
            }
            let elsewhere = reference.domain() == target.domain() && reference.path() != target.path();
            if !elsewhere || paths.last().is_some_and(|last| last == reference.path()) {
                continue;
            }
            let has = |image: &Arc<StoredImage>| image.layers.iter().any(|layer| layer.diff_id == *diff_id);
            if state.images_of(&tagged.target).iter().any(has) {
                paths.push(reference.path().to_owned());
            }
        }
        paths
    }

    /// What a push made of a layer earlier.
    pub fn compressed(self, diff_id: &Digest) -> Option<Descriptor> {
        serde_json::from_slice(&self.0.store.get(COMPRESSED, diff_id.as_str())?).ok()
    }

    /// Remembers what a push made of a layer, so that the next one can ask for it first.
    pub fn remember_compressed(self, diff_id: &Digest, descriptor: &Descriptor) -> Result<(), Error> {
        let bytes = serde_json::to_vec(descriptor).map_err(Error::Encode)?;
        self.0.store.commit(metadata::Batch::default().put(COMPRESSED, diff_id.as_str(), bytes))?;
        Ok(())
    }
}
