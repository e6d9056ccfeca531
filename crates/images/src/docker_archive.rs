//! `docker save`'s archive: `manifest.json` names configurations, layers and tags by their paths. Since version 25 the
//! same archive is an OCI layout as well; then the original manifests are taken from there.

use std::collections::HashMap;

use oci::image::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use oci::{Digest, Index, Manifest, Reference, media_type};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::load::Plan;
use crate::register::OriginalManifest;
use crate::spool::Spool;

/// One image in `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Item {
    pub config: String,
    pub repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub layers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_sources: Option<serde_json::Value>,
}

pub fn plans(spool: &Spool<'_>) -> Result<Vec<Plan>, Error> {
    let bytes = spool.document("manifest.json", MANIFEST_BYTES_MAX)?;
    let invalid = |source| Error::Document { what: "manifest.json".into(), source };
    let items: Vec<Item> = serde_json::from_slice(&bytes).map_err(invalid)?;
    let mut originals = original_manifests(spool);
    items.into_iter().map(|item| plan(spool, item, &mut originals)).collect()
}

fn plan(
    spool: &Spool<'_>,
    item: Item,
    originals: &mut HashMap<Digest, OriginalManifest>,
) -> Result<Plan, Error> {
    let config = spool.document(&item.config, CONFIG_BYTES_MAX)?;
    let mut references = Vec::new();
    for tag in item.repo_tags.unwrap_or_default() {
        let reference = Reference::parse(&tag)?;
        if reference.tag().is_none() || reference.digest().is_some() {
            return Err(Error::InvalidTag(tag));
        }
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    Ok(Plan {
        manifest: originals.remove(&Digest::of(&config)),
        config,
        layers: item.layers.unwrap_or_default(),
        references,
        parent: item.parent.and_then(|parent| parent.parse().ok()),
    })
}

/// The manifests of the layout in the same archive, by configuration. They are an extra: what cannot be read of them
/// is left out, and whether one fits is checked where it is used.
fn original_manifests(spool: &Spool<'_>) -> HashMap<Digest, OriginalManifest> {
    let mut originals = HashMap::new();
    let Ok(bytes) = spool.document("index.json", MANIFEST_BYTES_MAX) else { return originals };
    let Ok(index) = serde_json::from_slice::<Index>(&bytes) else { return originals };
    for descriptor in index.manifests.into_iter().filter(|found| media_type::is_manifest(&found.media_type)) {
        let digest = &descriptor.digest;
        let path = format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex());
        let Ok(bytes) = spool.document(&path, MANIFEST_BYTES_MAX) else { continue };
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
            let original = OriginalManifest { media_type: descriptor.media_type, bytes };
            originals.insert(manifest.config.digest, original);
        }
    }
    originals
}
