//! Removing names and images.
//!
//! Docker's rules, which its users know by heart: a name goes first; the image follows when its last name went, unless a
//! container or another image needs it; with it go the nameless images that it was built on.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard};

use metadata::Batch;
use oci::{Digest, Reference};

use crate::filter::{PruneFilter, labels_match};
use crate::state::{self, StoredImage};
use crate::{Error, Images};

/// A container that uses an image.
#[derive(Debug, Clone)]
pub struct User {
    /// Whole ID.
    pub container: String,
    pub running: bool,
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Also what stopped containers use and what has several names.
    pub force: bool,
    /// Keep nameless parents.
    pub keep_parents: bool,
}

/// Something that went, in the order in which Docker tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name, as people write it, and the image that had it.
    Untagged { reference: String, image: Digest },
    /// An image.
    Image(Digest),
    /// A layer, by its chain ID.
    Layer(Digest),
}

/// Which containers use an image.
pub type Users<'a> = &'a dyn Fn(&Digest) -> Vec<User>;

/// Why an image stays.
struct Obstacle {
    /// Force does not help.
    hard: bool,
    /// A container uses the image.
    used: bool,
    reason: String,
}

impl Images {
    /// Removes a name, or an image by its ID.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        users: Users<'_>,
    ) -> Result<Vec<Removed>, Error> {
        let change = self.lock_change();
        let (image, _) = self.read().resolve(name)?;
        let mut removed = Vec::new();
        let outcome = self.remove_locked(&change, &image, name, options, users, &mut removed);
        self.write_index()?;
        outcome.map(|()| removed)
    }

    fn remove_locked(
        &self,
        change: &MutexGuard<'_, ()>,
        image: &Arc<StoredImage>,
        name: &str,
        options: RemoveOptions,
        users: Users<'_>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let references = self.read().references(&image.id);
        let by_id = image.id.as_str().starts_with(name) || image.id.hex().starts_with(name);
        let mut quiet = false;
        if !by_id {
            if !options.force
                && in_one_repository(&references)
                && let Some(user) = users(&image.id).into_iter().next()
            {
                return Err(Error::ReferenceInUse {
                    reference: name.to_owned(),
                    container: short(&user.container),
                    image: image.id.short().to_owned(),
                });
            }
            let reference = Reference::parse(name)?.favouring_digest();
            let mut gone = vec![reference.clone()];
            let mut rest: Vec<Reference> =
                references.into_iter().filter(|other| *other != reference).collect();
            // Digests of a repository mean nothing once its last tag went.
            let same_repository = |other: &Reference| other.name() == reference.name();
            if reference.digest().is_none()
                && !rest.iter().any(|other| other.digest().is_none() && same_repository(other))
            {
                let (digests, others) = rest.into_iter().partition(same_repository);
                gone.extend::<Vec<Reference>>(digests);
                rest = others;
            }
            self.untag(&image.id, &gone, removed)?;
            if !rest.is_empty() {
                return Ok(());
            }
            quiet = true;
        } else if in_one_repository(&references) {
            // Several names count as an obstacle only if they are of several repositories.
            if let Some(obstacle) = self.obstacle(image, options.force, true, users) {
                return Err(refusal(image, &obstacle));
            }
            self.untag(&image.id, &references, removed)?;
        }
        self.delete(change, image, options, quiet, users, removed)
    }

    /// Removes the image, and the nameless images that it was built on.
    fn delete(
        &self,
        change: &MutexGuard<'_, ()>,
        image: &Arc<StoredImage>,
        options: RemoveOptions,
        mut quiet: bool,
        users: Users<'_>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let mut image = Arc::clone(image);
        let mut force = options.force;
        loop {
            if let Some(obstacle) = self.obstacle(&image, force, false, users) {
                let dangling = self.read().references(&image.id).is_empty();
                if quiet && (!dangling || obstacle.used || obstacle.hard) {
                    return Ok(());
                }
                return Err(refusal(&image, &obstacle));
            }
            self.delete_one(change, &image, removed)?;
            let parent = image.parent.as_ref().and_then(|parent| self.get(parent));
            match parent {
                Some(parent) if !options.keep_parents => image = parent,
                _ => return Ok(()),
            }
            // Parents go without a word, and never by force.
            (force, quiet) = (false, true);
        }
    }

    fn delete_one(
        &self,
        change: &MutexGuard<'_, ()>,
        image: &StoredImage,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let references = self.read().references(&image.id);
        let mut batch = state::delete_image(Batch::default(), &image.id);
        for reference in &references {
            batch = state::delete_tag(batch, reference);
        }
        self.store.commit(batch)?;
        {
            let mut state = self.write();
            for reference in &references {
                state.remove_tag(reference);
            }
            state.images.remove(&image.id);
        }
        removed.extend(references.iter().map(|reference| untagged(reference, &image.id)));
        removed.push(Removed::Image(image.id.clone()));
        let blobs: HashSet<Digest> = image.blobs().cloned().collect();
        let chains: HashSet<Digest> = image.chains.iter().cloned().collect();
        let gone = self.discard(change, &blobs, &chains)?;
        removed.extend(gone.into_iter().map(Removed::Layer));
        Ok(())
    }

    fn untag(&self, id: &Digest, references: &[Reference], removed: &mut Vec<Removed>) -> Result<(), Error> {
        if references.is_empty() {
            return Ok(());
        }
        let batch = references.iter().fold(Batch::default(), state::delete_tag);
        self.store.commit(batch)?;
        let mut state = self.write();
        for reference in references {
            state.remove_tag(reference);
            removed.push(untagged(reference, id));
        }
        Ok(())
    }

    fn obstacle(
        &self,
        image: &StoredImage,
        force: bool,
        names_are_fine: bool,
        users: Users<'_>,
    ) -> Option<Obstacle> {
        let state = self.read();
        if state.children(&image.id).next().is_some() {
            let reason = "image has dependent child images".to_owned();
            return Some(Obstacle { hard: true, used: false, reason });
        }
        let users = users(&image.id);
        if let Some(user) = users.iter().find(|user| user.running) {
            let reason = format!("image is being used by running container {}", short(&user.container));
            return Some(Obstacle { hard: true, used: true, reason });
        }
        if force {
            return None;
        }
        if !names_are_fine && !state.references(&image.id).is_empty() {
            let reason = "image is referenced in multiple repositories".to_owned();
            return Some(Obstacle { hard: false, used: false, reason });
        }
        let user = users.first()?;
        let reason = format!("image is being used by stopped container {}", short(&user.container));
        Some(Obstacle { hard: false, used: true, reason })
    }

    /// Removes images that nobody uses. Returns what went, and the bytes that this freed.
    pub fn prune(&self, filter: &PruneFilter, users: Users<'_>) -> Result<(Vec<Removed>, u64), Error> {
        let mut removed = Vec::new();
        let mut freed = 0;
        for image in self.all() {
            let created = image.created();
            if filter.until.is_some_and(|until| created.seconds >= until)
                || !labels_match(&image, &filter.labels, &filter.without_labels)
            {
                continue;
            }
            let (tags, _) = self.references(&image.id);
            if !tags.is_empty() && !filter.all {
                continue;
            }
            freed += self.prune_one(&image, users, &mut removed)?;
        }
        self.write_index()?;
        Ok((removed, freed))
    }

    fn prune_one(
        &self,
        image: &Arc<StoredImage>,
        users: Users<'_>,
        removed: &mut Vec<Removed>,
    ) -> Result<u64, Error> {
        let change = self.lock_change();
        // It may have gone as the parent of another, or come into use.
        if self.get(&image.id).is_none()
            || self.read().children(&image.id).next().is_some()
            || !users(&image.id).is_empty()
        {
            return Ok(0);
        }
        let sizes: std::collections::HashMap<Digest, u64> =
            self.snapshots.layers().into_iter().map(|layer| (layer.chain, layer.bytes)).collect();
        let from = removed.len();
        let options = RemoveOptions { force: true, keep_parents: false };
        self.delete(&change, image, options, true, users, removed)?;
        let freed = removed[from..].iter().map(|removed| match removed {
            Removed::Layer(chain) => sizes.get(chain).copied().unwrap_or(0),
            _ => 0,
        });
        Ok(freed.sum())
    }
}

fn untagged(reference: &Reference, image: &Digest) -> Removed {
    Removed::Untagged { reference: reference.familiar(), image: image.clone() }
}

fn refusal(image: &StoredImage, obstacle: &Obstacle) -> Error {
    let force = if obstacle.hard { "cannot be forced" } else { "must be forced" };
    Error::ImageInUse { image: image.id.short().to_owned(), force, reason: obstacle.reason.clone() }
}

fn short(container: &str) -> String {
    container.chars().take(12).collect()
}

/// Whether removing one name, or the digests of one repository, leaves the image without any.
fn in_one_repository(references: &[Reference]) -> bool {
    if references.len() <= 1 {
        return true;
    }
    let tags = references.iter().filter(|reference| reference.digest().is_none()).count();
    let repositories: HashSet<String> = references.iter().map(Reference::name).collect();
    tags <= 1 && repositories.len() == 1
}
