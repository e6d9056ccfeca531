//! Images into an archive that `docker load` and OCI tools read: an OCI layout with Docker's `manifest.json` and
//! `repositories` beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use archive::{Entry, Writer};
use oci::{Descriptor, Digest, Index, Platform, Reference};

use crate::docker_archive::Item;
use crate::index::{Child, ChildKind, StoredIndex};
use crate::oci_archive::blob_path;
use crate::state::{Packed, State, StoredImage, Target, packed_in, platform_of};
use crate::{Archives, Error};

/// What to save, with the names it is to have in the archive.
struct Selected {
    target: Target,
    /// What the names stand for in the archive.
    descriptor: Descriptor,
    /// The image that readers who know no platforms get, as it is packed there, and what its layers unpack to.
    packed: Packed,
    diff_ids: Vec<Digest>,
    blobs: BTreeSet<Digest>,
    /// Statements about the images.
    along: Vec<Digest>,
    references: BTreeSet<Reference>,
}

impl Archives<'_> {
    /// Writes images by name or ID. A name without tag and digest means all tags of the repository; an ID goes without
    /// a name. Without platforms, all that is here of an index goes; with one, its image goes alone.
    pub fn save<W: Write>(self, names: &[String], platforms: &[Platform], out: W) -> Result<W, Error> {
        let content = self.0.content();
        let mut pins = self.0.pins();
        let selected = self.select(names, platforms)?;
        // Of what goes along with images, not everything needs to be here.
        let along = selected.iter().flat_map(|chosen| &chosen.along).filter(|blob| content.contains(blob));
        let blobs: BTreeSet<&Digest> =
            selected.iter().flat_map(|chosen| &chosen.blobs).chain(along).collect();
        for blob in &blobs {
            pins.blob(blob);
        }
        let mut writer = Writer::new(out);
        writer.append(&Entry::directory("blobs/"), &mut std::io::empty())?;
        writer.append(&Entry::directory("blobs/sha256/"), &mut std::io::empty())?;
        for digest in blobs {
            let mut file = content.open_blob(digest)?;
            let entry = Entry::file(&blob_path(digest), content.size(digest)?);
            writer.append(&entry, &mut file)?;
        }
        let json = |value: serde_json::Result<Vec<u8>>| value.map_err(Error::Encode);
        writer.append_bytes("index.json", &json(serde_json::to_vec(&index(&selected)))?)?;
        writer.append_bytes("manifest.json", &json(serde_json::to_vec(&items(&selected)?))?)?;
        writer.append_bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let repositories = repositories(&selected);
        if !repositories.is_empty() {
            writer.append_bytes("repositories", &json(serde_json::to_vec(&repositories))?)?;
        }
        Ok(writer.finish()?)
    }

    /// Refuses what a save would refuse, before anything is sent.
    pub fn can_save(self, names: &[String], platforms: &[Platform]) -> Result<(), Error> {
        self.select(names, platforms).map(drop)
    }

    fn select(self, names: &[String], platforms: &[Platform]) -> Result<Vec<Selected>, Error> {
        let (state, content) = (self.0.read(), self.0.content());
        let mut selected: Vec<Selected> = Vec::new();
        let mut add = |target: &Target, name: &str, reference: Option<Reference>| -> Result<(), Error> {
            let position = selected.iter().position(|chosen| chosen.target == *target);
            let position = match position {
                Some(position) => position,
                None => {
                    selected.push(choose(&state, content, target, name, platforms)?);
                    selected.len() - 1
                }
            };
            selected[position].references.extend(reference);
            Ok(())
        };
        for name in names {
            let whole_repository = Reference::parse(name).ok().filter(Reference::is_name_only);
            let tags: Vec<(&Reference, &Target)> = state
                .tags
                .iter()
                .filter(|(reference, _)| {
                    whole_repository.as_ref().is_some_and(|repository| {
                        reference.tag().is_some() && reference.name() == repository.name()
                    })
                })
                .map(|(reference, tagged)| (reference, &tagged.target))
                .collect();
            if tags.is_empty() {
                let found = state.find(name, None)?;
                add(&found.target, name, found.reference.filter(|reference| reference.tag().is_some()))?;
                continue;
            }
            for (reference, target) in tags {
                add(target, &reference.familiar(), Some(reference.clone()))?;
            }
        }
        Ok(selected)
    }
}

fn choose(
    state: &State,
    content: &content::Store,
    target: &Target,
    name: &str,
    platforms: &[Platform],
) -> Result<Selected, Error> {
    let absent = |wanted: Option<&Platform>| match wanted {
        Some(wanted) => Error::Platform { reference: name.to_owned(), platform: wanted.to_string() },
        None => Error::NoSuchImage(name.to_owned()),
    };
    let index = match target {
        Target::Index(digest) => state.indexes.get(digest),
        Target::Image(_) => None,
    };
    let Some(index) = index else {
        let image = state.shown(target).ok_or_else(|| absent(None))?;
        let found = image.config.platform();
        if let Some(wanted) = platforms.iter().find(|wanted| !found.serves(wanted)) {
            return Err(absent(Some(wanted)));
        }
        return Ok(alone(target, image, image.packed(), found));
    };
    let mut chosen: Vec<(&Child, &Arc<StoredImage>)> = Vec::new();
    for wanted in platforms {
        let distance =
            |(child, image): &(&Child, &Arc<StoredImage>)| platform_of(child, image).distance(wanted);
        let served = state.present(index).filter(|one| distance(one).is_some());
        let best = served.min_by_key(distance).ok_or_else(|| absent(Some(wanted)))?;
        chosen.push(best);
    }
    match chosen.as_slice() {
        [(child, image)] => {
            Ok(alone(target, image, packed_in(child, image, content), platform_of(child, image)))
        }
        [] => {
            let shown = state.shown_of(index).ok_or_else(|| absent(None))?;
            let mut all: Vec<_> = state.present(index).collect();
            all.sort_by_key(|(_, image)| image.id != shown.id);
            of_index(target, index, &all, content).ok_or_else(|| absent(None))
        }
        several => of_index(target, index, several, content).ok_or_else(|| absent(None)),
    }
}

/// One image, which the name stands for in the archive.
fn alone(target: &Target, image: &StoredImage, packed: Packed, platform: Platform) -> Selected {
    Selected {
        target: target.clone(),
        descriptor: Descriptor { platform: Some(platform), ..packed.manifest.clone() },
        blobs: packed.blobs().map(|blob| blob.digest.clone()).collect(),
        packed,
        diff_ids: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        along: Vec::new(),
        references: BTreeSet::new(),
    }
}

/// An index with some of its images, the first of which is for readers who know no platforms.
fn of_index(
    target: &Target,
    index: &StoredIndex,
    chosen: &[(&Child, &Arc<StoredImage>)],
    content: &content::Store,
) -> Option<Selected> {
    let (first, image) = chosen.first()?;
    let manifests: Vec<String> =
        chosen.iter().map(|(child, _)| child.descriptor.digest.to_string()).collect();
    let goes_along = |child: &&Child| match child.kind() {
        ChildKind::Attestation(of) => manifests.contains(&of),
        ChildKind::Unknown => true,
        ChildKind::Image => false,
    };
    let others = index.children.iter().filter(goes_along).flat_map(Child::own_blobs);
    let documents = std::iter::once(&index.descriptor).chain(&index.nested);
    let packed = packed_in(first, image, content);
    let of_images = chosen.iter().flat_map(|(child, _)| child.image_blobs());
    let blobs = documents.chain(of_images).chain(packed.blobs());
    Some(Selected {
        target: target.clone(),
        descriptor: index.descriptor.clone(),
        blobs: blobs.map(|blob| blob.digest.clone()).collect(),
        packed,
        diff_ids: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        along: others.map(|descriptor| descriptor.digest.clone()).collect(),
        references: BTreeSet::new(),
    })
}

fn index(selected: &[Selected]) -> Index {
    let mut index = Index::default();
    for chosen in selected {
        if chosen.references.is_empty() {
            index.manifests.push(chosen.descriptor.clone());
            continue;
        }
        for reference in &chosen.references {
            let mut named = chosen.descriptor.clone();
            let tag = reference.tag().unwrap_or_default().to_owned();
            named.annotations.insert("io.containerd.image.name".into(), reference.to_string());
            named.annotations.insert("org.opencontainers.image.ref.name".into(), tag);
            index.manifests.push(named);
        }
    }
    index
}

fn items(selected: &[Selected]) -> Result<Vec<Item>, Error> {
    let item = |chosen: &Selected| -> Result<Item, Error> {
        let mut sources = serde_json::Map::new();
        for (diff_id, layer) in chosen.diff_ids.iter().zip(&chosen.packed.layers) {
            let source = serde_json::to_value(layer).map_err(Error::Encode)?;
            sources.insert(diff_id.to_string(), source);
        }
        let tags: Vec<String> = chosen.references.iter().map(Reference::familiar).collect();
        Ok(Item {
            config: blob_path(&chosen.packed.config.digest),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: Some(chosen.packed.layers.iter().map(|layer| blob_path(&layer.digest)).collect()),
            parent: None,
            layer_sources: (!sources.is_empty()).then(|| sources.into()),
        })
    };
    selected.iter().map(item).collect()
}

/// Repository → tag → digits of the topmost layer's archive, for readers older than `manifest.json`.
fn repositories(selected: &[Selected]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for chosen in selected {
        let Some(top) = chosen.packed.layers.last() else { continue };
        for reference in &chosen.references {
            let tag = reference.tag().unwrap_or_default().to_owned();
            let tags = repositories.entry(reference.familiar_name()).or_default();
            tags.insert(tag, top.digest.hex().to_owned());
        }
    }
    repositories
}
