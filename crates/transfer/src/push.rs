//! One push: an image's layers, its configuration and its manifest into a repository.

use std::sync::Arc;

use images::{Child, Document, Packed, PushTarget, StoredImage, StoredIndex, Target};
use oci::image::MANIFEST_BYTES_MAX;
use oci::{Descriptor, Digest, Manifest, Platform, Reference, Timestamp, media_type};
use registry::{Credentials, Mounted, Repository};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::board::Board;
use crate::upload::{self, Sent, Source};
use crate::{Error, Transfers};

/// Repositories that are asked for a blob before it is sent.
const MOUNTS_MAX: usize = 3;

/// What to push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// With a tag; a bare name means all tags.
    pub reference: Reference,
    pub platform: Option<Platform>,
    pub credentials: Credentials,
    pub now: Timestamp,
}

/// One image that was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    pub reference: Reference,
    pub digest: Digest,
}

/// A layer on its way.
#[derive(Clone)]
struct Layer {
    diff_id: Digest,
    /// As it lies in the store.
    stored: Descriptor,
    /// It goes out compressed.
    compress: bool,
    /// What it was when it was compressed before.
    known: Option<Descriptor>,
    id: String,
    /// Paths of repositories in this registry that may have it.
    elsewhere: Vec<String>,
}

/// What all layers of a push share.
struct Shared {
    transfers: Transfers,
    repository: Repository,
    board: Board,
    uploads: Arc<Semaphore>,
}

impl Transfers {
    /// Pushes an image, or all tags of a repository. `done` hears of each.
    pub async fn push(
        &self,
        request: PushRequest,
        board: Board,
        done: impl Fn(&Pushed) + Send + Sync,
    ) -> Result<(), Error> {
        let reference = &request.reference;
        board.say(format!("The push refers to repository [{}]", reference.name()));
        let tagged = self.0.images.pushes().tagged(reference);
        if tagged.is_empty() {
            let name = match reference.tag() {
                Some(_) => reference.familiar(),
                None => reference.familiar_name(),
            };
            return Err(Error::NoLocal(name));
        }
        let setup = self.setup();
        let repository =
            setup.registries.repository(reference.domain(), reference.path(), request.credentials.clone())?;
        let shared = Arc::new(Shared {
            transfers: self.clone(),
            repository,
            board,
            uploads: Arc::clone(&setup.uploads),
        });
        for PushTarget { reference, target } in tagged {
            let pushed = push_one(&shared, reference, &target, &request).await?;
            done(&pushed);
        }
        Ok(())
    }
}

/// Pushes what one name stands for.
async fn push_one(
    shared: &Arc<Shared>,
    reference: Reference,
    target: &Target,
    request: &PushRequest,
) -> Result<Pushed, Error> {
    let images = Arc::clone(&shared.transfers.0.images);
    let tag = reference.tag().unwrap_or("latest").to_owned();
    let index = match target {
        Target::Index(digest) => images.index(digest),
        Target::Image(_) => None,
    };
    let (pushed, named) = match &index {
        None => {
            let image = chosen(&images, &reference, request.platform.as_ref())?;
            let as_it_came = images.pushes().is_as_it_came(&image);
            let way = Way { packed: image.packed(), as_it_came };
            (push_image(shared, &reference, &image, way, &tag).await?, true)
        }
        Some(index) => match whole_or_one(shared, &reference, index, request).await? {
            Choice::Whole => (push_index(shared, &reference, index, &tag).await?, true),
            Choice::One(image) => {
                let way = Way { packed: images.catalog().packed(target, &image), as_it_came: true };
                let pushed = push_image(shared, &reference, &image, way, &tag).await?;
                shared.board.aux(json!({
                    "manifestPushedInsteadOfIndex": true,
                    "originalIndex": index.descriptor,
                    "selectedManifest": pushed,
                }));
                (pushed, false)
            }
        },
    };
    let (digest, size) = (pushed.digest.clone(), pushed.size);
    shared.board.say(format!("{tag}: digest: {digest} size: {size}"));
    shared.board.aux(json!({ "Tag": tag, "Digest": digest.to_string(), "Size": size }));
    if named {
        let (name, target, now) = (reference.with_digest(digest.clone()), target.clone(), request.now);
        crate::blocking(move || Ok(images.names().give(&target, &name, now).map(drop)?)).await?;
    }
    Ok(Pushed { reference, digest })
}

fn chosen(
    images: &images::Images,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Arc<StoredImage>, Error> {
    Ok(images.find(&reference.to_string(), platform)?.image)
}

/// What of an index goes to the registry.
enum Choice {
    Whole,
    /// This image in its place.
    One(Arc<StoredImage>),
}

async fn whole_or_one(
    shared: &Shared,
    reference: &Reference,
    index: &StoredIndex,
    request: &PushRequest,
) -> Result<Choice, Error> {
    let images = &shared.transfers.0.images;
    if request.platform.is_some() {
        return Ok(Choice::One(chosen(images, reference, request.platform.as_ref())?));
    }
    let mut missing = false;
    for child in &index.children {
        // A registry takes an index whose manifests it has, whoever brought them.
        missing = missing
            || (!is_here(images, child)
                && !has_manifest(&shared.repository, &child.descriptor.digest).await?);
    }
    if !missing {
        return Ok(Choice::Whole);
    }
    let present = images.catalog().images_of(&Target::Index(index.descriptor.digest.clone()));
    match present.as_slice() {
        [one] => Ok(Choice::One(Arc::clone(one))),
        _ => match chosen(images, reference, Some(&Platform::host())) {
            Ok(image) => Ok(Choice::One(image)),
            Err(_) => Err(Error::SeveralPlatforms),
        },
    }
}

/// Whether a manifest is here with all that it names.
fn is_here(images: &images::Images, child: &Child) -> bool {
    let content = images.content();
    match &child.document {
        Document::Absent => false,
        Document::Image { config, .. } => {
            let packed = child.packed();
            images.get(&config.digest).is_some() && packed.is_some_and(|packed| packed.is_here(content))
        }
        Document::Other { blobs } => blobs.iter().all(|blob| content.contains(&blob.digest)),
    }
}

async fn has_manifest(repository: &Repository, digest: &Digest) -> Result<bool, Error> {
    match repository.head_manifest(digest.as_str()).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == registry::Kind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Pushes all of an index that is here, and then the index itself.
async fn push_index(
    shared: &Arc<Shared>,
    reference: &Reference,
    index: &StoredIndex,
    tag: &str,
) -> Result<Descriptor, Error> {
    let images = Arc::clone(&shared.transfers.0.images);
    for child in index.children.iter().filter(|child| is_here(&images, child)) {
        let digest = child.descriptor.digest.to_string();
        if let (Some(image), Some(packed)) = (child.image().and_then(|id| images.get(id)), child.packed()) {
            push_image(shared, reference, &image, Way { packed, as_it_came: true }, &digest).await?;
        } else if let Document::Other { blobs } = &child.document {
            for blob in blobs {
                push_blob(shared, blob).await?;
            }
            put_document(shared, &child.descriptor, &digest).await?;
        }
    }
    for nested in index.nested.iter().rev() {
        put_document(shared, nested, nested.digest.as_str()).await?;
    }
    put_document(shared, &index.descriptor, tag).await?;
    Ok(index.descriptor.clone())
}

/// Stores a manifest or an index as it lies in the content store.
async fn put_document(shared: &Shared, document: &Descriptor, under: &str) -> Result<(), Error> {
    let content = Arc::clone(shared.transfers.0.images.content());
    let digest = document.digest.clone();
    let bytes = crate::blocking(move || Ok(content.read(&digest, MANIFEST_BYTES_MAX)?)).await?;
    shared.repository.put_manifest(under, &document.media_type, &bytes).await?;
    Ok(())
}

/// How an image goes to a registry.
struct Way {
    packed: Packed,
    /// Its layers are not compressed on the way.
    as_it_came: bool,
}

/// Pushes one image under a tag or its digest. Gives the manifest that it has there.
async fn push_image(
    shared: &Arc<Shared>,
    reference: &Reference,
    image: &Arc<StoredImage>,
    way: Way,
    under: &str,
) -> Result<Descriptor, Error> {
    let images = Arc::clone(&shared.transfers.0.images);
    let layers: Vec<Layer> = image
        .layers
        .iter()
        .zip(&way.packed.layers)
        .map(|(layer, stored)| {
            let plain = media_type::is_plain_layer(&stored.media_type);
            Layer {
                id: layer.diff_id.short().to_owned(),
                diff_id: layer.diff_id.clone(),
                stored: stored.clone(),
                compress: plain && !way.as_it_came,
                known: images.pushes().compressed(&layer.diff_id),
                elsewhere: images.pushes().repositories_with(&layer.diff_id, reference, MOUNTS_MAX),
            }
        })
        .collect();
    for layer in layers.iter().rev() {
        shared.board.step(&layer.id, "Preparing");
    }
    // The first request finds out who asks in which way; the others go side by side.
    push_blob(shared, &way.packed.config).await?;
    let sent = push_layers(shared, layers).await?;
    let (media_type, bytes) = manifest(&way.packed, &sent, &images).await?;
    let digest = shared.repository.put_manifest(under, &media_type, &bytes).await?;
    let mut pushed = Descriptor::new(&media_type, digest, bytes.len() as u64);
    pushed.platform = Some(image.config.platform());
    Ok(pushed)
}

/// Sends a configuration or a statement, unless it is there.
async fn push_blob(shared: &Shared, blob: &Descriptor) -> Result<(), Error> {
    if shared.repository.has_blob(&blob.digest).await?.is_some() {
        return Ok(());
    }
    let source = Source {
        content: Arc::clone(shared.transfers.0.images.content()),
        blob: blob.digest.clone(),
        size: blob.size,
        compress: None,
        board: shared.board.clone(),
        id: String::new(),
    };
    upload::send(&shared.repository, &source).await.map(drop)
}

/// Sends the layers side by side. Gives what each is there.
async fn push_layers(shared: &Arc<Shared>, layers: Vec<Layer>) -> Result<Vec<Descriptor>, Error> {
    let mut tasks = JoinSet::new();
    let mut sent: Vec<Option<Descriptor>> = vec![None; layers.len()];
    let mut same = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        // An image may have the same layer twice.
        if let Some(first) = layers[..index].iter().position(|other| other.diff_id == layer.diff_id) {
            same.push((index, first));
            continue;
        }
        let (shared, layer) = (Arc::clone(shared), layer.clone());
        tasks.spawn(async move { (index, push_layer(&shared, &layer).await) });
    }
    while let Some(done) = tasks.join_next().await {
        let (index, outcome) = done.map_err(|error| Error::Internal(error.to_string()))?;
        if shared.board.is_cancelled() {
            return Err(Error::Cancelled);
        }
        sent[index] = Some(outcome?);
    }
    for (index, first) in same {
        sent[index] = sent[first].clone();
    }
    Ok(sent.into_iter().flatten().collect())
}

async fn push_layer(shared: &Shared, layer: &Layer) -> Result<Descriptor, Error> {
    let Shared { board, repository, .. } = shared;
    let permit = match shared.uploads.try_acquire() {
        Ok(permit) => permit,
        Err(_) => {
            board.step(&layer.id, "Waiting");
            shared.uploads.acquire().await.map_err(|error| Error::Internal(error.to_string()))?
        }
    };
    let known = if layer.compress { layer.known.clone() } else { Some(layer.stored.clone()) };
    if let Some(known) = known {
        if repository.has_blob(&known.digest).await?.is_some() {
            board.step(&layer.id, "Layer already exists");
            return Ok(known);
        }
        for from in &layer.elsewhere {
            match repository.start_upload(Some((&known.digest, from))).await {
                Ok(Mounted::Yes) => {
                    board.step(&layer.id, format!("Mounted from {from}"));
                    return Ok(known);
                }
                Ok(Mounted::No(upload)) => repository.cancel_upload(upload).await,
                // Who may not read there sends the layer.
                Err(error) => tracing::debug!(%error, from, "a layer was not mounted"),
            }
        }
    }
    let images = &shared.transfers.0.images;
    if !images.content().contains(&layer.stored.digest) {
        board.aux(json!({ "contentMissing": true, "desc": layer.stored }));
        return Err(content::Error::NotFound(layer.stored.digest.clone()).into());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let source = Source {
        content: Arc::clone(images.content()),
        blob: layer.stored.digest.clone(),
        size: layer.stored.size,
        compress: layer.compress.then_some(threads),
        board: board.clone(),
        id: layer.id.clone(),
    };
    let Sent { digest, size } = upload::send(repository, &source).await?;
    drop(permit);
    board.step(&layer.id, "Pushed");
    if !layer.compress {
        return Ok(layer.stored.clone());
    }
    let descriptor = Descriptor::new(media_type::DOCKER_LAYER_GZIP, digest, size);
    if layer.known.as_ref() != Some(&descriptor) {
        let (images, diff_id, known) = (Arc::clone(images), layer.diff_id.clone(), descriptor.clone());
        crate::blocking(move || Ok(images.pushes().remember_compressed(&diff_id, &known)?)).await?;
    }
    Ok(descriptor)
}

/// The image's own manifest if it speaks of what was sent, else one in Docker's form.
async fn manifest(
    packed: &Packed,
    sent: &[Descriptor],
    images: &Arc<images::Images>,
) -> Result<(String, Vec<u8>), Error> {
    let as_stored =
        packed.layers.iter().map(|layer| &layer.digest).eq(sent.iter().map(|layer| &layer.digest));
    if as_stored {
        let (content, digest) = (Arc::clone(images.content()), packed.manifest.digest.clone());
        let bytes = crate::blocking(move || Ok(content.read(&digest, MANIFEST_BYTES_MAX)?)).await?;
        return Ok((packed.manifest.media_type.clone(), bytes));
    }
    let is_zstd = |layer: &Descriptor| layer.media_type.contains("zstd");
    let (own, config, layer_type): (&str, &str, fn(&str) -> &'static str) = match sent.iter().any(is_zstd) {
        true => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG, oci_layer),
        false => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, docker_layer),
    };
    let of_config = &packed.config;
    let config = Descriptor::new(config, of_config.digest.clone(), of_config.size);
    let layers = sent
        .iter()
        .map(|layer| Descriptor::new(layer_type(&layer.media_type), layer.digest.clone(), layer.size))
        .collect();
    let manifest = Manifest { media_type: own.to_owned(), ..Manifest::new(config, layers) };
    let bytes = serde_json::to_vec_pretty(&manifest)
        .map_err(|source| Error::Document { what: "the manifest".into(), source })?;
    Ok((own.to_owned(), bytes))
}

fn docker_layer(media_type: &str) -> &'static str {
    if media_type::is_plain_layer(media_type) {
        media_type::DOCKER_LAYER
    } else {
        media_type::DOCKER_LAYER_GZIP
    }
}

fn oci_layer(media_type: &str) -> &'static str {
    match media_type {
        plain if media_type::is_plain_layer(plain) => media_type::OCI_LAYER,
        zstd if zstd.contains("zstd") => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER_GZIP,
    }
}
