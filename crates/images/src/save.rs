//! Images into an archive that `docker load` and OCI tools read: an OCI layout with Docker's `manifest.json` and
//! `repositories` beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use archive::{Entry, Writer};
use oci::{Digest, Index, Reference};

use crate::docker_archive::Item;
use crate::state::StoredImage;
use crate::{Error, Images};

/// An image to save, with the names it is to have in the archive.
struct Selected {
    image: Arc<StoredImage>,
    references: BTreeSet<Reference>,
}

impl Images {
    /// Writes images by name or ID. A name without tag and digest means all tags of the repository; an ID goes without
    /// a name.
    pub fn save<W: Write>(&self, names: &[String], out: W) -> Result<W, Error> {
        let mut pins = self.pins();
        let selected = self.select(names)?;
        let mut blobs: BTreeSet<&Digest> = BTreeSet::new();
        for chosen in &selected {
            for blob in chosen.image.blobs() {
                pins.blob(blob);
                blobs.insert(blob);
            }
        }
        let mut writer = Writer::new(out);
        writer.append(&Entry::directory("blobs/"), &mut std::io::empty())?;
        writer.append(&Entry::directory("blobs/sha256/"), &mut std::io::empty())?;
        for digest in blobs {
            let mut file = self.content.open_blob(digest)?;
            let entry = Entry::file(&blob_path(digest), self.content.size(digest)?);
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

    fn select(&self, names: &[String]) -> Result<Vec<Selected>, Error> {
        let state = self.read();
        let mut selected: Vec<Selected> = Vec::new();
        let mut add = |image: Arc<StoredImage>, reference: Option<Reference>| {
            let position = selected.iter().position(|chosen| chosen.image.id == image.id);
            let position = position.unwrap_or_else(|| {
                selected.push(Selected { image, references: BTreeSet::new() });
                selected.len() - 1
            });
            selected[position].references.extend(reference);
        };
        for name in names {
            let whole_repository = Reference::parse(name).ok().filter(Reference::is_name_only);
            let tags: Vec<(Reference, Digest)> = state
                .tags
                .iter()
                .filter(|(reference, _)| {
                    whole_repository.as_ref().is_some_and(|repository| {
                        reference.tag().is_some() && reference.name() == repository.name()
                    })
                })
                .map(|(reference, tagged)| (reference.clone(), tagged.id.clone()))
                .collect();
            if tags.is_empty() {
                let (image, reference) = state.resolve(name)?;
                add(image, reference.filter(|reference| reference.tag().is_some()));
                continue;
            }
            for (reference, id) in tags {
                if let Some(image) = state.images.get(&id) {
                    add(Arc::clone(image), Some(reference));
                }
            }
        }
        Ok(selected)
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

fn index(selected: &[Selected]) -> Index {
    let mut index = Index::default();
    for chosen in selected {
        let mut plain = chosen.image.manifest.clone();
        plain.platform = Some(chosen.image.config.platform());
        if chosen.references.is_empty() {
            index.manifests.push(plain);
            continue;
        }
        for reference in &chosen.references {
            let mut named = plain.clone();
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
        for layer in &chosen.image.layers {
            let source = serde_json::to_value(&layer.blob).map_err(Error::Encode)?;
            sources.insert(layer.diff_id.to_string(), source);
        }
        let tags: Vec<String> = chosen.references.iter().map(Reference::familiar).collect();
        Ok(Item {
            config: blob_path(&chosen.image.id),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: Some(chosen.image.layers.iter().map(|layer| blob_path(&layer.blob.digest)).collect()),
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
        let Some(top) = chosen.image.layers.last() else { continue };
        for reference in &chosen.references {
            let tag = reference.tag().unwrap_or_default().to_owned();
            let tags = repositories.entry(reference.familiar_name()).or_default();
            tags.insert(tag, top.blob.digest.hex().to_owned());
        }
    }
    repositories
}
