//! What things are called.

use std::collections::BTreeSet;

use oci::{Digest, Reference, Timestamp};

use crate::state::{self, Tagged, Target};
use crate::{Error, Images};

/// The names.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(pub(crate) &'a Images);

impl Names<'_> {
    /// The names of an image and of the indexes that it stands for: those with a tag, and those with a digest.
    pub fn of(self, image: &Digest) -> (Vec<Reference>, Vec<Reference>) {
        self.0.read().references(image).into_iter().partition(|reference| reference.digest().is_none())
    }

    /// The names of one target: those with a tag, and those with a digest.
    pub fn of_target(self, target: &Target) -> (Vec<Reference>, Vec<Reference>) {
        self.0.read().names_of(target).cloned().partition(|reference| reference.digest().is_none())
    }

    /// Of these names, the repositories that registries have been seen to have them in: what they name was pulled from
    /// there or pushed there.
    pub fn repositories(self, names: &[Reference]) -> BTreeSet<String> {
        let state = self.0.read();
        let seen = |name: &&Reference| state.tags.get(*name).is_some_and(|tagged| tagged.of_registry);
        names.iter().filter(seen).map(Reference::name).collect()
    }

    /// When an image, or an index that it stands for, last got a name here.
    pub fn last_given(self, image: &Digest) -> Option<Timestamp> {
        let state = self.0.read();
        let targets = state.targets_of(image);
        let given = state.tags.values().filter(|tagged| targets.contains(&tagged.target));
        given.map(|tagged| tagged.at).max()
    }

    /// What has exactly this name, with its tag or digest.
    pub fn find(self, reference: &Reference) -> Option<Target> {
        self.0.read().tags.get(reference).map(|tagged| tagged.target.clone())
    }

    /// Gives another name. Returns the image that stood for that name.
    pub fn tag(
        self,
        target: &Target,
        reference: &Reference,
        now: Timestamp,
    ) -> Result<Option<Digest>, Error> {
        if reference.digest().is_some() {
            return Err(Error::TagWithDigest);
        }
        self.give(target, &reference.clone().or_latest(), now)
    }

    /// Gives a name, which may be one with a digest: what a pull or a push leaves.
    pub fn give(
        self,
        target: &Target,
        reference: &Reference,
        now: Timestamp,
    ) -> Result<Option<Digest>, Error> {
        let Names(images) = self;
        let reference = reference.clone().favouring_digest();
        let change = images.lock_change();
        let earlier = {
            let state = images.read();
            if !state.has(target) {
                let (Target::Image(digest) | Target::Index(digest)) = target;
                return Err(Error::NoSuchImage(digest.to_string()));
            }
            let earlier = state.tags.get(&reference).filter(|tagged| tagged.target != *target);
            earlier.and_then(|tagged| state.shown(&tagged.target)).map(|image| image.id.clone())
        };
        let tagged = Tagged { target: target.clone(), of_registry: reference.digest().is_some(), at: now };
        let batch = state::put_tag(metadata::Batch::default(), &reference, &tagged)?;
        images.store.commit(batch)?;
        images.write().insert_tag(reference, tagged);
        images.write_index()?;
        drop(change);
        Ok(earlier)
    }
}
