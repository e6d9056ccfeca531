//! An OCI image layout in an archive: `index.json` names manifests, which may be lists of others.

use oci::image::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use oci::{Descriptor, Digest, Index, Manifest, Platform, Reference, media_type};

use crate::Error;
use crate::load::Plan;
use crate::register::OriginalManifest;
use crate::spool::Spool;

/// Lists within lists.
const DEPTH_MAX: usize = 4;

pub fn plans(spool: &Spool<'_>, platform: Option<&Platform>) -> Result<Vec<Plan>, Error> {
    let index: Index = parse("index.json", &spool.document("index.json", MANIFEST_BYTES_MAX)?)?;
    let mut plans: Vec<Plan> = Vec::new();
    for descriptor in &index.manifests {
        let Some((descriptor_bytes, media)) = select(spool, descriptor, platform, 0)? else { continue };
        let manifest: Manifest = parse("a manifest", &descriptor_bytes)?;
        if !media_type::is_config(&manifest.config.media_type) {
            continue;
        }
        let config = spool.document(&blob_path(&manifest.config.digest), CONFIG_BYTES_MAX)?;
        let reference = name(descriptor)?;
        // The same image under several names comes once.
        let id = Digest::of(&config);
        if let Some(earlier) = plans.iter_mut().find(|plan| Digest::of(&plan.config) == id) {
            earlier.references.extend(reference);
            continue;
        }
        plans.push(Plan {
            config,
            layers: manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
            manifest: Some(OriginalManifest { media_type: media, bytes: descriptor_bytes }),
            references: reference.into_iter().collect(),
            parent: None,
        });
    }
    if plans.is_empty() {
        return Err(Error::InvalidArchive("it has no image for this platform".into()));
    }
    Ok(plans)
}

fn parse<'a, T: serde::Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document { what: what.to_owned(), source })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// The bytes and media type of the manifest that a descriptor means on the wanted platform.
fn select(
    spool: &Spool<'_>,
    descriptor: &Descriptor,
    platform: Option<&Platform>,
    depth: usize,
) -> Result<Option<(Vec<u8>, String)>, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::InvalidArchive("its index is nested too deep".into()));
    }
    let bytes = spool.document(&blob_path(&descriptor.digest), MANIFEST_BYTES_MAX)?;
    if media_type::is_manifest(&descriptor.media_type) {
        return Ok(Some((bytes, descriptor.media_type.clone())));
    }
    if !media_type::is_index(&descriptor.media_type) {
        return Ok(None);
    }
    let index: Index = parse("an index", &bytes)?;
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    let distance = |found: &Descriptor| match &found.platform {
        // Statements about images, not images.
        Some(platform) if platform.os == "unknown" => None,
        Some(platform) => platform.distance(wanted),
        None => Some(u32::MAX),
    };
    // An archive may carry only some of what its index lists.
    let best = index
        .manifests
        .iter()
        .filter(|found| spool.contains(&blob_path(&found.digest)))
        .filter_map(|found| Some((distance(found)?, found)))
        .min_by_key(|(distance, _)| *distance);
    match best {
        Some((_, best)) => select(spool, best, platform, depth + 1),
        None => Ok(None),
    }
}

/// The name in a descriptor's annotations, if there is a whole one: a bare tag names no repository.
fn name(descriptor: &Descriptor) -> Result<Option<Reference>, Error> {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|name| name.contains([':', '/']));
    let name =
        annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
    let reference = name.map(|name| Reference::parse(name)).transpose()?;
    Ok(reference.map(Reference::favouring_digest))
}
