//! Registries as the user sees them, without a daemon: what `manifest` and `buildx imagetools` have in common.

use std::path::PathBuf;

use oci::{Descriptor, Digest, Image, Index, Manifest, Platform, Reference, media_type};
use registry::{Fetched, Insecure, Mounted, Proxies, Registries, Repository, Settings};
use serde::Serialize;

use crate::app::App;
use crate::credentials;
use crate::fail::Fail;

/// A repository in the user's name.
pub fn repository(app: &App, reference: &Reference, insecure: bool) -> Result<Repository, Fail> {
    let text = |name: &str| {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        read(name).or_else(|| read(&name.to_lowercase())).unwrap_or_default()
    };
    let insecure = if insecure { vec![reference.domain().to_owned()] } else { Vec::new() };
    let settings = Settings {
        insecure: Insecure::parse(&insecure).map_err(failed)?,
        certificates: ["/etc/corten/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec(),
        proxies: Proxies::new(&text("HTTP_PROXY"), &text("HTTPS_PROXY"), &text("NO_PROXY"))
            .map_err(failed)?,
        user_agent: format!("Docker-Client/{} (linux)", env!("CARGO_PKG_VERSION")),
        ..Settings::default()
    };
    let key = credentials::key_of_repository(&reference.name());
    let known = app.credentials()?.get(&key)?.unwrap_or_default();
    let who = registry::Credentials {
        username: known.username,
        password: known.password,
        identity_token: known.identitytoken,
        registry_token: known.registrytoken,
    };
    Registries::new(settings).repository(reference.domain(), reference.path(), who).map_err(failed)
}

pub fn failed(error: registry::Error) -> Fail {
    Fail::text(error.to_string())
}

/// A document that is read as what it should be.
pub fn read<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Fail> {
    serde_json::from_slice(bytes).map_err(|error| Fail::text(format!("{what} is not valid: {error}")))
}

/// What a reference asks a registry for.
pub fn asked(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    }
}

pub async fn fetch(repository: &Repository, reference: &Reference) -> Result<Fetched, Fail> {
    repository.manifest(&asked(reference)).await.map_err(|error| match error.kind() {
        registry::Kind::NotFound => Fail::text(format!("no such manifest: {}", reference.familiar())),
        _ => failed(error),
    })
}

/// The descriptor of a manifest or an index that was fetched; of an image with its platform.
pub async fn describe(repository: &Repository, fetched: &Fetched) -> Result<Descriptor, Fail> {
    let size = fetched.bytes.len() as u64;
    let mut descriptor = Descriptor::new(&fetched.media_type, fetched.digest.clone(), size);
    if !media_type::is_index(&fetched.media_type) {
        descriptor.platform = config(repository, &fetched.bytes).await?.map(|config| config.platform());
    }
    Ok(descriptor)
}

/// The configuration that an image's manifest names; none if it is the manifest of something else.
pub async fn config(repository: &Repository, manifest: &[u8]) -> Result<Option<Image>, Fail> {
    let manifest: Manifest = read("the manifest", manifest)?;
    if !media_type::is_config(&manifest.config.media_type) {
        return Ok(None);
    }
    let config = repository.blob_bytes(&manifest.config.digest, oci::image::CONFIG_BYTES_MAX).await;
    read("the image configuration", &config.map_err(failed)?).map(Some)
}

/// An index of manifests: what Docker's clients have always pushed if all of them are Docker's, else OCI's.
pub fn index(manifests: Vec<Descriptor>) -> Index {
    let docker = manifests.iter().all(|one| one.media_type.starts_with("application/vnd.docker."));
    let media_type = if docker { media_type::DOCKER_MANIFEST_LIST } else { media_type::OCI_INDEX };
    Index { media_type: media_type.to_owned(), manifests, ..Index::default() }
}

/// JSON with an indent of so many blanks.
pub fn pretty<T: Serialize>(value: &T, indent: &[u8]) -> Result<String, Fail> {
    let mut text = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(indent);
    let mut writer = serde_json::Serializer::with_formatter(&mut text, form);
    value.serialize(&mut writer).map_err(|error| Fail::text(error.to_string()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Takes a manifest with everything that it names over to another repository. Gives what it mounted on the way.
pub async fn copy_manifest(
    from: &Repository,
    to: &Repository,
    source: &Reference,
    descriptor: &Descriptor,
    bytes: &[u8],
) -> Result<Vec<Digest>, Fail> {
    let mut mounted = Vec::new();
    if media_type::is_index(&descriptor.media_type) {
        for child in read::<Index>("the manifest list", bytes)?.manifests {
            let fetched = from.manifest(child.digest.as_str()).await.map_err(failed)?;
            mounted.extend(Box::pin(copy_manifest(from, to, source, &child, &fetched.bytes)).await?);
        }
    } else {
        let manifest: Manifest = read("the manifest", bytes)?;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            if copy_blob(from, to, source.path(), &blob.digest).await? {
                mounted.push(blob.digest.clone());
            }
        }
    }
    let digest = descriptor.digest.to_string();
    to.put_manifest(&digest, &descriptor.media_type, bytes).await.map_err(failed)?;
    Ok(mounted)
}

/// Whether the blob was mounted.
async fn copy_blob(from: &Repository, to: &Repository, path: &str, digest: &Digest) -> Result<bool, Fail> {
    if to.has_blob(digest).await.map_err(failed)?.is_some() {
        return Ok(false);
    }
    let Mounted::No(mut upload) = to.start_upload(Some((digest, path))).await.map_err(failed)? else {
        return Ok(true);
    };
    let stream = from.blob(digest, 0, None).await.map_err(failed)?;
    let pieces = futures_util::stream::unfold(stream, |mut stream| async move {
        let piece = stream.next().await.map_err(std::io::Error::other).transpose()?;
        Some((piece, stream))
    });
    to.send_bytes(&mut upload, pieces, None).await.map_err(failed)?;
    to.finish_upload(upload, digest).await.map_err(failed)?;
    Ok(false)
}

/// Platforms of the command line.
pub fn platforms(texts: &[String]) -> Result<Vec<Platform>, Fail> {
    texts
        .iter()
        .map(|text| Platform::parse(text).map_err(|error| Fail::text(format!("invalid platform: {error}"))))
        .collect()
}
