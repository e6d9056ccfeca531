//! What a push needs to know: which tags a repository has here, what a layer is when it is compressed, and where else it
//! may be.

use std::sync::Arc;

use oci::{Descriptor, Digest, Reference};

use crate::state::StoredImage;
use crate::{Error, Images};

/// Diff ID → the descriptor of the archive that a push made of it.
const COMPRESSED: &str = "compressed-layers";

impl Images {
    /// The tag's image, or all tags of the repository if the reference has none.
    pub fn tagged(&self, reference: &Reference) -> Vec<(Reference, Arc<StoredImage>)> {
        let state = self.read();
        let fits = |known: &Reference| match reference.tag() {
            Some(tag) => known.tag() == Some(tag),
            None => known.tag().is_some(),
        };
        let tags = state.tags.iter().filter(|(known, _)| known.name() == reference.name() && fits(known));
        let found =
            tags.filter_map(|(known, tagged)| Some((known.clone(), state.images.get(&tagged.id)?.clone())));
        found.collect()
    }

    /// Whether a registry has the image with this very manifest, as far as is known here.
    pub fn has_digest_name(&self, image: &StoredImage) -> bool {
        let names = self.read().references(&image.id);
        names.iter().any(|name| name.digest() == Some(&image.manifest.digest))
    }

    /// Paths of other repositories of the same registry that a layer was named in here; at most `count`.
    pub fn repositories_with(&self, diff_id: &Digest, target: &Reference, count: usize) -> Vec<String> {
        let state = self.read();
        let mut paths: Vec<String> = Vec::new();
        for (reference, tagged) in &state.tags {
            if paths.len() == count {
                break;
            }
            let elsewhere = reference.domain() == target.domain() && reference.path() != target.path();
            let Some(image) = state.images.get(&tagged.id).filter(|_| elsewhere) else { continue };
            let has = image.layers.iter().any(|layer| layer.diff_id == *diff_id);
            if has && paths.last().is_none_or(|last| last != reference.path()) {
                paths.push(reference.path().to_owned());
            }
        }
        paths
    }

    /// What a push made of a layer earlier.
    pub fn compressed(&self, diff_id: &Digest) -> Option<Descriptor> {
        serde_json::from_slice(&self.store.get(COMPRESSED, diff_id.as_str())?).ok()
    }

    /// Remembers what a push made of a layer, so that the next one can ask for it first.
    pub fn remember_compressed(&self, diff_id: &Digest, descriptor: &Descriptor) -> Result<(), Error> {
        let bytes = serde_json::to_vec(descriptor).map_err(Error::Encode)?;
        self.store.commit(metadata::Batch::default().put(COMPRESSED, diff_id.as_str(), bytes))?;
        Ok(())
    }
}
