//! An OCI image layout in an archive: `index.json` names manifests, and lists of them.

use oci::image::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use oci::{Descriptor, Digest, Image, Index, Manifest, Platform, Reference, Timestamp, media_type};

use crate::Error;
use crate::index::{self, Child, ChildKind, Document};
use crate::load::{ImagePlan, IndexPlan, Plan};
use crate::register::OriginalManifest;
use crate::spool::Spool;

/// What the archive's `index.json` names. Of an index, the images for the wanted platforms; none means all.
pub fn plans(spool: &Spool<'_>, platforms: &[Platform]) -> Result<Vec<Plan>, Error> {
    let bytes = spool.document("index.json", MANIFEST_BYTES_MAX)?;
    let invalid = |source| Error::Document { what: "index.json".into(), source };
    let index: Index = oci::image::read(&bytes).map_err(invalid)?;
    let mut plans: Vec<Plan> = Vec::new();
    for descriptor in &index.manifests {
        let plan = if media_type::is_index(&descriptor.media_type) {
            of_index(spool, descriptor, platforms)?
        } else if media_type::is_manifest(&descriptor.media_type) {
            of_manifest(spool, descriptor)?
        } else {
            None
        };
        let (Some(mut plan), reference) = (plan, name(descriptor)?) else { continue };
        // The same under several names comes once.
        match plans.iter_mut().find(|earlier| earlier.is_of_the_same(&plan)) {
            Some(earlier) => earlier.references.extend(reference),
            None => {
                plan.references.extend(reference);
                plans.push(plan);
            }
        }
    }
    Ok(plans)
}

pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

fn has(spool: &Spool<'_>, descriptor: &Descriptor) -> bool {
    spool.contains(&blob_path(&descriptor.digest))
}

fn of_manifest(spool: &Spool<'_>, descriptor: &Descriptor) -> Result<Option<Plan>, Error> {
    let bytes = spool.document(&blob_path(&descriptor.digest), MANIFEST_BYTES_MAX)?;
    let invalid = |source| Error::Document { what: "a manifest".into(), source };
    let manifest: Manifest = oci::image::read(&bytes).map_err(invalid)?;
    if !media_type::is_config(&manifest.config.media_type) || !index::may_run(descriptor) {
        return Ok(None);
    }
    let image = image(spool, descriptor, &manifest.config, &manifest.layers)?;
    Ok(Some(Plan { images: vec![image], index: None, references: Vec::new(), parent: None }))
}

fn image(
    spool: &Spool<'_>,
    descriptor: &Descriptor,
    config: &Descriptor,
    layers: &[Descriptor],
) -> Result<ImagePlan, Error> {
    let bytes = spool.document(&blob_path(&descriptor.digest), MANIFEST_BYTES_MAX)?;
    let config = spool.document(&blob_path(&config.digest), CONFIG_BYTES_MAX)?;
    Ok(ImagePlan {
        id: Digest::of(&config),
        config,
        manifest: Some(OriginalManifest { media_type: descriptor.media_type.clone(), bytes }),
        layers: layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
    })
}

fn of_index(
    spool: &Spool<'_>,
    descriptor: &Descriptor,
    platforms: &[Platform],
) -> Result<Option<Plan>, Error> {
    let read = index::read(descriptor, Timestamp::default(), &|entry| {
        if !has(spool, entry) {
            return Ok(None);
        }
        spool.document(&blob_path(&entry.digest), MANIFEST_BYTES_MAX).map(Some)
    })?;
    // An archive may carry only some of what its index lists.
    let whole = |child: &&Child| match &child.document {
        Document::Image { config, layers } => {
            std::iter::once(config.as_ref()).chain(layers).all(|blob| has(spool, blob))
        }
        Document::Absent | Document::Other { .. } => false,
    };
    let mut chosen: Vec<&Child> = read.children.iter().filter(whole).collect();
    if chosen.is_empty() {
        // Then what is missing is told by who looks for it.
        chosen.extend(read.children.iter().find(|child| child.image().is_some()));
    }
    let mut images: Vec<ImagePlan> = Vec::new();
    let mut kept: Vec<String> = Vec::new();
    for child in chosen {
        let Document::Image { config, layers } = &child.document else { continue };
        let plan = image(spool, &child.descriptor, config, layers)?;
        let platform = child.descriptor.platform.clone().map_or_else(|| plan.platform(), Ok)?;
        // Images of other systems cannot be unpacked here.
        let runs = platform.os == "linux" || platform.os.is_empty();
        let wanted = platforms.is_empty() || platforms.iter().any(|wanted| platform.serves(wanted));
        if runs && wanted && !images.iter().any(|image| image.id == plan.id) {
            images.push(plan);
            kept.push(child.descriptor.digest.to_string());
        }
    }
    // What was asked for and is not there is told by name.
    if images.is_empty() && platforms.is_empty() {
        return Ok(None);
    }
    let goes_along = |child: &&Child| match child.kind() {
        ChildKind::Attestation(of) => kept.contains(&of),
        ChildKind::Unknown => true,
        ChildKind::Image => false,
    };
    let others = read.children.iter().filter(goes_along).flat_map(Child::own_blobs);
    let documents = std::iter::once(&read.descriptor).chain(&read.nested).chain(others);
    let blobs = documents.filter(|blob| has(spool, blob)).map(|blob| blob_path(&blob.digest)).collect();
    let descriptor = Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size);
    let index = Some(IndexPlan { descriptor, blobs });
    Ok(Some(Plan { images, index, references: Vec::new(), parent: None }))
}

/// The name in a descriptor's annotations, if there is a whole one: a bare tag names no repository.
fn name(descriptor: &Descriptor) -> Result<Option<Reference>, Error> {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|name| name.contains([':', '/']));
    let name =
        annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
    let reference = name.map(|name| Reference::parse(name)).transpose()?;
    Ok(reference.map(Reference::favouring_digest))
}

impl ImagePlan {
    /// What its configuration says.
    pub fn platform(&self) -> Result<Platform, Error> {
        let invalid = |source| Error::Document { what: "the image configuration".into(), source };
        Ok(oci::image::read::<Image>(&self.config).map_err(invalid)?.platform())
    }
}
