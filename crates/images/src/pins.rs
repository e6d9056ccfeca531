//! What an image on its way in needs, kept from removal until its record says so.

use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use oci::Digest;

use crate::{Error, Images};

/// How many operations need a blob or a layer that no record may name yet.
#[derive(Debug, Default)]
pub struct Pinned {
    blobs: HashMap<Digest, usize>,
    chains: HashMap<Digest, usize>,
}

/// Keeps blobs and layers from being removed. When it is dropped, those that no image has come to need are removed.
///
/// Pin first, then look whether it is there: what is pinned and there, stays.
#[derive(Debug)]
pub struct Pins<'a> {
    images: &'a Images,
    blobs: HashSet<Digest>,
    chains: HashSet<Digest>,
}

impl Pins<'_> {
    pub fn blob(&mut self, digest: &Digest) {
        if self.blobs.insert(digest.clone()) {
            *self.images.lock_pinned().blobs.entry(digest.clone()).or_default() += 1;
        }
    }

    /// A layer, by its chain ID.
    pub fn chain(&mut self, chain: &Digest) {
        if self.chains.insert(chain.clone()) {
            *self.images.lock_pinned().chains.entry(chain.clone()).or_default() += 1;
        }
    }
}

fn release(counts: &mut HashMap<Digest, usize>, digests: &HashSet<Digest>) {
    for digest in digests {
        if let Some(count) = counts.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                counts.remove(digest);
            }
        }
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        {
            let mut pinned = self.images.lock_pinned();
            release(&mut pinned.blobs, &self.blobs);
            release(&mut pinned.chains, &self.chains);
        }
        let change = self.images.lock_change();
        // What cannot be removed now is removed at the next open.
        let _ = self.images.discard(&change, &self.blobs, &self.chains);
    }
}

impl Images {
    /// Starts an operation that brings something in. Not to be held while the records are changed.
    pub fn pins(&self) -> Pins<'_> {
        Pins { images: self, blobs: HashSet::new(), chains: HashSet::new() }
    }

    fn lock_pinned(&self) -> MutexGuard<'_, Pinned> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something is coming in, or about to.
    pub(crate) fn is_anything_pinned(&self) -> bool {
        let pinned = self.lock_pinned();
        !pinned.blobs.is_empty() || !pinned.chains.is_empty()
    }

    /// Whether an operation needs a blob or a layer.
    pub(crate) fn is_pinned(&self, digest: &Digest) -> bool {
        let pinned = self.lock_pinned();
        pinned.blobs.contains_key(digest) || pinned.chains.contains_key(digest)
    }

    /// Removes those of the blobs and layers that no image and no operation needs. Returns the chain IDs that went,
    /// topmost first.
    pub(crate) fn discard(
        &self,
        _change: &MutexGuard<'_, ()>,
        blobs: &HashSet<Digest>,
        chains: &HashSet<Digest>,
    ) -> Result<Vec<Digest>, Error> {
        let used_chains: HashSet<Digest> = {
            let state = self.read();
            let of_images = state.images.values().flat_map(|image| &image.chains);
            of_images.filter(|chain| chains.contains(chain)).cloned().collect()
        };
        let mut gone = Vec::new();
        let mut rests = Vec::new();
        {
            // Held over the removals, as below: who pins now looks for the layer afterwards.
            let pinned = self.lock_pinned();
            let mut left: Vec<&Digest> = chains
                .iter()
                .filter(|chain| !used_chains.contains(chain) && !pinned.chains.contains_key(chain))
                .collect();
            // A layer can only go after those above it; each round takes the topmost that are left.
            loop {
                let before = left.len();
                left.retain(|chain| match self.snapshots.remove(chain) {
                    Ok(rest) => {
                        rests.push(rest);
                        gone.push((*chain).clone());
                        false
                    }
                    Err(snapshots::Error::NoLayer(_)) => false,
                    Err(_) => true,
                });
                if left.is_empty() || left.len() == before {
                    break;
                }
            }
        }
        let mut blobs = blobs.clone();
        blobs.extend(self.settling().forget_marks(&gone)?);
        self.discard_blobs(&blobs)?;
        drop(rests);
        Ok(gone)
    }

    fn discard_blobs(&self, blobs: &HashSet<Digest>) -> Result<(), Error> {
        let mut used = HashSet::new();
        {
            let state = self.read();
            for image in state.images.values() {
                used.extend(image.blobs().filter(|digest| blobs.contains(digest)).cloned());
            }
            for index in state.indexes.values() {
                used.extend(state.index_blobs(index).filter(|digest| blobs.contains(digest)).cloned());
            }
        }
        used.extend(self.settling().lock().blobs().filter(|digest| blobs.contains(digest)).cloned());
        let pinned = self.lock_pinned();
        for digest in blobs {
            if !used.contains(digest) && !pinned.blobs.contains_key(digest) {
                self.content.delete(digest)?;
            }
        }
        Ok(())
    }

    /// Removes every blob and layer that no image, container or operation needs.
    pub fn collect_garbage(&self) -> Result<(), Error> {
        let change = self.lock_change();
        let blobs = self.content.walk()?.into_iter().map(|blob| blob.digest).collect();
        let chains = self.snapshots.layers().into_iter().map(|layer| layer.chain).collect();
        self.discard(&change, &blobs, &chains).map(drop)
    }

    /// Takes a container's read-write layer away, and the layers below that were only kept for it.
    pub fn release(&self, container: &str) -> Result<snapshots::Rest, Error> {
        let top = self.snapshots.top(container).ok().flatten();
        let rest = self.snapshots.destroy(container)?;
        let mut chains = HashSet::new();
        let mut next = top;
        while let Some(chain) = next {
            next = self.snapshots.layer(&chain).and_then(|layer| layer.parent);
            chains.insert(chain);
        }
        // The common case, that the image is still there, costs no lock.
        let needed = {
            let state = self.read();
            chains.iter().all(|chain| state.images.values().any(|image| image.chains.contains(chain)))
        };
        if !needed {
            let change = self.lock_change();
            self.discard(&change, &HashSet::new(), &chains)?;
        }
        Ok(rest)
    }
}
