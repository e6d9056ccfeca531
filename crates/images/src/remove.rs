//! Removing names and images.
//!
//! Docker's rules, which its users know by heart: a name goes first; the image follows when its last name went, unless a
//! container or another image needs it; with it go the nameless images that it was built on. What stands for an index
//! takes the index along, and those of its images that nothing else has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, MutexGuard};

use metadata::Batch;
use oci::{Digest, Platform, Reference};

use crate::filter::{PruneFilter, labels_match};
use crate::state::{self, Found, State, StoredImage, Target};
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
    image: Digest,
    /// Force does not help.
    hard: bool,
    /// A container uses the image.
    used: bool,
    reason: String,
}

/// Removes.
#[derive(Debug, Clone, Copy)]
pub struct Removals<'a>(pub(crate) &'a Images);

/// One removal that goes on, with the lock on changes.
struct Removal<'a> {
    images: &'a Images,
    change: MutexGuard<'a, ()>,
    options: RemoveOptions,
    users: Users<'a>,
    removed: Vec<Removed>,
}

impl<'a> Removals<'a> {
    fn begin(self, options: RemoveOptions, users: Users<'a>) -> Removal<'a> {
        let Removals(images) = self;
        Removal { images, change: images.lock_change(), options, users, removed: Vec::new() }
    }

    /// Removes a name, or an image by its ID.
    pub fn remove(self, name: &str, options: RemoveOptions, users: Users<'a>) -> Result<Vec<Removed>, Error> {
        let mut removal = self.begin(options, users);
        let found = self.0.find(name, None)?;
        let outcome = removal.run(&found, name);
        let _ = self.0.write_index();
        outcome.map(|()| removal.removed)
    }

    /// Removes the images for these platforms from what a name stands for. Its index stays as long as one is left.
    pub fn remove_platforms(
        self,
        name: &str,
        platforms: &[Platform],
        options: RemoveOptions,
        users: Users<'a>,
    ) -> Result<Vec<Removed>, Error> {
        let mut removal = self.begin(options, users);
        let outcome = removal.platforms(name, platforms);
        let _ = self.0.write_index();
        outcome.map(|()| removal.removed)
    }

    /// Removes images that nobody uses. Returns what went, and the bytes that this freed.
    pub fn prune(self, filter: &PruneFilter, users: Users<'a>) -> Result<(Vec<Removed>, u64), Error> {
        let Removals(images) = self;
        let (mut removed, mut freed) = (Vec::new(), 0);
        let shown: Vec<Digest> = images.read().rows().into_keys().cloned().collect();
        for id in shown {
            let Some(image) = images.get(&id) else { continue };
            let created = image.created();
            if filter.until.is_some_and(|until| created.seconds >= until)
                || !labels_match(&image, &filter.labels, &filter.without_labels)
            {
                continue;
            }
            let options = RemoveOptions { force: true, keep_parents: false };
            let mut removal = self.begin(options, users);
            freed += removal.prune(&id, filter.all)?;
            removed.append(&mut removal.removed);
        }
        let _ = images.write_index();
        Ok((removed, freed))
    }
}

impl Removal<'_> {
    fn run(&mut self, found: &Found, name: &str) -> Result<(), Error> {
        let image = &found.image;
        let references = self.images.read().references(&image.id);
        let Some(reference) = &found.reference else {
            // Several names count as an obstacle only if they are of several repositories.
            let named = Some(&image.id).filter(|_| !in_one_repository(&references));
            let going = self.going(&self.targets(&image.id));
            if going.is_empty() && references.is_empty() {
                return Err(self.part_of_another(&image.id).refusal());
            }
            if let Some(obstacle) = self.obstacle(&going, self.options.force, named) {
                return Err(obstacle.refusal());
            }
            self.untag(&references)?;
            return self.delete(&image.id);
        };
        if !self.options.force
            && in_one_repository(&references)
            && let Some(user) =
                self.users_of(&self.going(std::slice::from_ref(&found.target))).into_iter().next()
        {
            return Err(Error::ReferenceInUse {
                reference: name.to_owned(),
                container: short(&user.1.container),
                image: user.0.short().to_owned(),
            });
        }
        // Digests of a repository mean nothing once its last tag went.
        let of_target: Vec<Reference> = self.images.read().names_of(&found.target).cloned().collect();
        let same_repository = |other: &&Reference| other.name() == reference.name() && *other != reference;
        let mut gone = vec![reference.clone()];
        let mut in_repository = of_target.iter().filter(same_repository);
        if reference.digest().is_none() && in_repository.clone().all(|other| other.digest().is_some()) {
            gone.extend(in_repository.by_ref().cloned());
        }
        self.untag(&gone)?;
        if of_target.len() > gone.len() {
            return Ok(());
        }
        self.delete_target(&found.target, true)
    }

    /// An image that only an index has, and that goes with it or by its platform.
    fn part_of_another(&self, image: &Digest) -> Obstacle {
        let state = self.images.read();
        let mut indexes = state.indexes.iter();
        let index =
            indexes.find(|(_, index)| index.children.iter().any(|child| child.image() == Some(image)));
        let target = index.map(|(digest, _)| Target::Index(digest.clone()));
        let name = target.and_then(|target| state.names_of(&target).next().map(Reference::familiar));
        let name = name.unwrap_or_else(|| "an image without a name".to_owned());
        let reason = format!("it is a platform of {name}, and can be removed from that by --platform");
        Obstacle { image: image.clone(), hard: true, used: false, reason }
    }

    /// Everything that an image stands for.
    fn targets(&self, shown: &Digest) -> Vec<Target> {
        self.images.read().targets_of(shown)
    }

    /// Removes all that an image stands for.
    fn delete(&mut self, shown: &Digest) -> Result<(), Error> {
        for target in self.targets(shown) {
            let is_there = self.images.read().has(&target);
            if is_there {
                self.delete_target(&target, false)?;
            }
        }
        Ok(())
    }

    /// Removes a target, and the nameless images that it was built on.
    fn delete_target(&mut self, target: &Target, mut quiet: bool) -> Result<(), Error> {
        let mut target = target.clone();
        let mut force = self.options.force;
        loop {
            let going = self.going(std::slice::from_ref(&target));
            if let (Target::Image(_), true) = (&target, going.is_empty()) {
                // An index has it.
                return Ok(());
            }
            let dangling = self.images.read().names_of(&target).next().is_none();
            let named = going.first().map(|image| image.id.clone()).filter(|_| !dangling);
            if let Some(obstacle) = self.obstacle(&going, force, named.as_ref()) {
                if quiet && (!dangling || obstacle.used || obstacle.hard) {
                    return Ok(());
                }
                return Err(obstacle.refusal());
            }
            let parent = going.first().and_then(|image| image.parent.clone());
            self.delete_one(&target, &going)?;
            match parent {
                Some(parent) if !self.options.keep_parents && self.images.get(&parent).is_some() => {
                    target = Target::Image(parent);
                }
                _ => return Ok(()),
            }
            // Parents go without a word, and never by force.
            (force, quiet) = (false, true);
        }
    }

    /// The images that go with these targets: those that no other target has. What stands for the first comes first.
    fn going(&self, targets: &[Target]) -> Vec<Arc<StoredImage>> {
        let state = self.images.read();
        let mut going: Vec<Arc<StoredImage>> = Vec::new();
        for target in targets {
            for image in state.shown(target).cloned().into_iter().chain(state.images_of(target)) {
                let elsewhere = is_held_by_others(&state, &image.id, targets);
                if !elsewhere && !going.iter().any(|known| known.id == image.id) {
                    going.push(image);
                }
            }
        }
        going
    }

    fn delete_one(&mut self, target: &Target, going: &[Arc<StoredImage>]) -> Result<(), Error> {
        let state = self.images.read();
        let references: Vec<Reference> = state.names_of(target).cloned().collect();
        let shown = state.shown(target).map(|image| image.id.clone());
        let mut blobs: HashSet<Digest> = going.iter().flat_map(|image| image.blobs()).cloned().collect();
        if let Target::Index(digest) = target
            && let Some(index) = state.indexes.get(digest)
        {
            blobs.extend(state.index_blobs(index).cloned());
        }
        drop(state);
        let mut batch = state::delete(Batch::default(), target);
        for image in going {
            batch = state::delete(batch, &Target::Image(image.id.clone()));
        }
        for reference in &references {
            batch = state::delete_tag(batch, reference);
        }
        self.images.store.commit(batch)?;
        {
            let mut state = self.images.write();
            for reference in &references {
                state.remove_tag(reference);
            }
            state.remove(target);
            for image in going {
                state.remove(&Target::Image(image.id.clone()));
            }
        }
        let chains = going.iter().flat_map(|image| &image.chains).cloned().collect();
        if let Some(shown) = shown {
            self.removed.extend(references.iter().map(|reference| untagged(reference, &shown)));
        }
        self.removed.extend(going.iter().map(|image| Removed::Image(image.id.clone())));
        let gone = self.images.discard(&self.change, &blobs, &chains)?;
        self.removed.extend(gone.into_iter().map(Removed::Layer));
        Ok(())
    }

    fn untag(&mut self, references: &[Reference]) -> Result<(), Error> {
        if references.is_empty() {
            return Ok(());
        }
        let batch = references.iter().fold(Batch::default(), state::delete_tag);
        self.images.store.commit(batch)?;
        let mut state = self.images.write();
        for reference in references {
            let target = state.tags.get(reference).map(|tagged| tagged.target.clone());
            let shown = target.and_then(|target| state.shown(&target)).map(|image| image.id.clone());
            state.remove_tag(reference);
            self.removed.extend(shown.map(|shown| untagged(reference, &shown)));
        }
        Ok(())
    }

    fn users_of(&self, going: &[Arc<StoredImage>]) -> Vec<(Digest, User)> {
        let users = going
            .iter()
            .flat_map(|image| (self.users)(&image.id).into_iter().map(|user| (image.id.clone(), user)));
        users.collect()
    }

    /// Why these images cannot go. Names of `named` are an obstacle as well.
    fn obstacle(&self, going: &[Arc<StoredImage>], force: bool, named: Option<&Digest>) -> Option<Obstacle> {
        let state = self.images.read();
        let obstacle = |image: &Digest, hard, used, reason: String| {
            Some(Obstacle { image: image.clone(), hard, used, reason })
        };
        if let Some(image) = going.iter().find(|image| state.children(&image.id).next().is_some()) {
            return obstacle(&image.id, true, false, "image has dependent child images".to_owned());
        }
        let users = self.users_of(going);
        if let Some((image, user)) = users.iter().find(|(_, user)| user.running) {
            let reason = format!("image is being used by running container {}", short(&user.container));
            return obstacle(image, true, true, reason);
        }
        if force {
            return None;
        }
        if let Some(named) = named {
            let reason = "image is referenced in multiple repositories".to_owned();
            return obstacle(named, false, false, reason);
        }
        let (image, user) = users.first()?;
        let reason = format!("image is being used by stopped container {}", short(&user.container));
        obstacle(image, false, true, reason)
    }

    fn prune(&mut self, shown: &Digest, all: bool) -> Result<u64, Error> {
        // It may have gone as the parent of another, or come into use.
        let targets: Vec<Target> = {
            let state = self.images.read();
            let dangling =
                |target: &Target| state.names_of(target).all(|reference| reference.digest().is_some());
            let targets = state.rows().remove(shown).unwrap_or_default();
            targets.into_iter().filter(|target| all || dangling(target)).collect()
        };
        let sizes: HashMap<Digest, u64> =
            self.images.snapshots.layers().into_iter().map(|layer| (layer.chain, layer.bytes)).collect();
        for target in targets {
            let going = self.going(std::slice::from_ref(&target));
            let is_parent = going.iter().any(|image| self.images.read().children(&image.id).next().is_some());
            if !is_parent && self.users_of(&going).is_empty() {
                self.delete_target(&target, true)?;
            }
        }
        let freed = self.removed.iter().map(|removed| match removed {
            Removed::Layer(chain) => sizes.get(chain).copied().unwrap_or(0),
            _ => 0,
        });
        Ok(freed.sum())
    }

    fn platforms(&mut self, name: &str, platforms: &[Platform]) -> Result<(), Error> {
        let found = self.images.find(name, None)?;
        let mut chosen: BTreeMap<Digest, Arc<StoredImage>> = BTreeMap::new();
        for platform in platforms {
            let one = self.images.find(name, Some(platform))?.image;
            chosen.insert(one.id.clone(), one);
        }
        let all = self.images.read().images_of(&found.target);
        if all.iter().all(|image| chosen.contains_key(&image.id)) {
            // Nothing would be left to be named.
            return self.run(&found, name);
        }
        for image in chosen.values() {
            let here = std::slice::from_ref(&found.target);
            if is_held_by_others(&self.images.read(), &image.id, here) {
                let reason = "image is referenced in multiple repositories".to_owned();
                return Err(Obstacle { image: image.id.clone(), hard: true, used: false, reason }.refusal());
            }
        }
        let going: Vec<Arc<StoredImage>> = chosen.into_values().collect();
        if let Some(obstacle) = self.obstacle(&going, self.options.force, None) {
            return Err(obstacle.refusal());
        }
        for image in going {
            self.delete_platform(&found.target, &image)?;
        }
        Ok(())
    }

    /// Removes one image of an index, with the statements about it.
    fn delete_platform(&mut self, target: &Target, image: &Arc<StoredImage>) -> Result<(), Error> {
        let batch = state::delete(Batch::default(), &Target::Image(image.id.clone()));
        self.images.store.commit(batch)?;
        let mut blobs: HashSet<Digest> = image.blobs().cloned().collect();
        {
            let mut state = self.images.write();
            if let Target::Index(digest) = target
                && let Some(index) = state.indexes.get(digest)
            {
                blobs.extend(state.index_blobs(index).cloned());
            }
            state.remove(&Target::Image(image.id.clone()));
            if let Target::Index(digest) = target
                && let Some(index) = state.indexes.get(digest).cloned()
            {
                let without = index.without(&image.id);
                state.indexes.insert(digest.clone(), Arc::new(without));
            }
        }
        self.removed.push(Removed::Image(image.id.clone()));
        let chains = image.chains.iter().cloned().collect();
        let gone = self.images.discard(&self.change, &blobs, &chains)?;
        self.removed.extend(gone.into_iter().map(Removed::Layer));
        Ok(())
    }
}

/// Whether something beside these targets has an image.
fn is_held_by_others(state: &State, image: &Digest, targets: &[Target]) -> bool {
    let own = Target::Image(image.clone());
    let named = !targets.contains(&own) && state.names_of(&own).next().is_some();
    let mut indexes = state.indexes.iter();
    named
        || indexes.any(|(digest, index)| {
            !targets.contains(&Target::Index(digest.clone()))
                && index.children.iter().any(|child| child.image() == Some(image))
        })
}

impl Obstacle {
    fn refusal(self) -> Error {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        Error::ImageInUse { image: self.image.short().to_owned(), force, reason: self.reason }
    }
}

fn untagged(reference: &Reference, image: &Digest) -> Removed {
    Removed::Untagged { reference: reference.familiar(), image: image.clone() }
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
