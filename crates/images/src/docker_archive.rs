//! `docker save`'s archive: `manifest.json` names configurations, layers and tags by their paths. Since version 25 the
//! same archive is an OCI layout as well; then most of it is known already, and the names are what is new.

use oci::image::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::load::{ImagePlan, Plan};
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

/// Adds what `manifest.json` names to what is known of the archive.
pub fn add_plans(spool: &Spool<'_>, plans: &mut Vec<Plan>) -> Result<(), Error> {
    let bytes = spool.document("manifest.json", MANIFEST_BYTES_MAX)?;
    let invalid = |source| Error::Document { what: "manifest.json".into(), source };
    let items: Vec<Item> = oci::image::read(&bytes).map_err(invalid)?;
    for item in items {
        let config = spool.document(&item.config, CONFIG_BYTES_MAX)?;
        let references = references(item.repo_tags)?;
        let id = Digest::of(&config);
        let known = plans.iter_mut().find(|plan| plan.images.iter().any(|image| image.id == id));
        if let Some(known) = known {
            known.parent = item.parent.and_then(|parent| parent.parse().ok());
            for reference in references {
                known.add_reference(reference);
            }
            continue;
        }
        let image = ImagePlan { id, config, manifest: None, layers: item.layers.unwrap_or_default() };
        plans.push(Plan {
            images: vec![image],
            index: None,
            references,
            parent: item.parent.and_then(|parent| parent.parse().ok()),
        });
    }
    Ok(())
}

fn references(tags: Option<Vec<String>>) -> Result<Vec<Reference>, Error> {
    let mut references = Vec::new();
    for tag in tags.unwrap_or_default() {
        let reference = Reference::parse(&tag)?;
        if reference.tag().is_none() || reference.digest().is_some() {
            return Err(Error::InvalidTag(tag));
        }
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    Ok(references)
}
