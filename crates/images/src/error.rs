//! What can go wrong, in Docker's words where its clients match on them.

use oci::Digest;

/// What sort of failure an [`Error`] is; the API's status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    Invalid,
    Conflict,
    /// The archive may be valid, but what it needs is not built yet.
    NotImplemented,
    System,
}

/// Refused or failed operations. The texts are Docker's where its clients match on them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("No such image: {0}")]
    NoSuchImage(String),
    #[error("image ID prefix {prefix:?} is ambiguous: {count} images have it")]
    Ambiguous { prefix: String, count: usize },
    #[error(transparent)]
    Reference(#[from] oci::reference::Error),
    #[error(
        "conflict: unable to remove repository reference {reference:?} (must force) - container {container} is using its referenced image {image}"
    )]
    ReferenceInUse { reference: String, container: String, image: String },
    #[error("conflict: unable to delete {image} ({force}) - {reason}")]
    ImageInUse { image: String, force: &'static str, reason: String },
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    #[error("invalid tag {0:?}")]
    InvalidTag(String),
    #[error("invalid archive: {0}")]
    InvalidArchive(String),
    #[error("invalid archive: {what} is not valid: {source}")]
    Document { what: String, source: serde_json::Error },
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {found}")]
    LayerCount { expected: usize, found: usize },
    #[error("invalid manifest: it names {found} layers; an image may have {max}")]
    TooManyLayers { found: usize, max: usize },
    #[error("invalid diffID for layer {index}: expected \"{expected}\", got \"{found}\"")]
    DiffId { index: usize, expected: Digest, found: Digest },
    #[error("cannot load {0} image on linux")]
    OperatingSystem(String),
    #[error(
        "image with reference {reference} was found but does not provide the specified platform ({platform})"
    )]
    Platform { reference: String, platform: String },
    #[error("invalid index: {0}")]
    Index(String),
    #[error("invalid filter '{key}={value}'")]
    Filter { key: &'static str, value: String },
    #[error("no space left on device: {bytes} bytes may be taken, and the archive has more")]
    NoRoom { bytes: u64 },
    #[error(transparent)]
    Archive(#[from] archive::Error),
    #[error(transparent)]
    Content(#[from] content::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshots::Error),
    #[error("cannot store the image's record: {0}")]
    Metadata(#[from] metadata::Error),
    #[error("the record of image {id} is not valid: {source}")]
    Record { id: String, source: serde_json::Error },
    #[error("cannot write a document: {0}")]
    Encode(#[source] serde_json::Error),
    #[error("cannot {operation}: {source}")]
    Io { operation: &'static str, source: std::io::Error },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoSuchImage(_) | Error::Platform { .. } => Kind::NotFound,
            Error::ReferenceInUse { .. } | Error::ImageInUse { .. } => Kind::Conflict,
            Error::Ambiguous { .. }
            | Error::Reference(_)
            | Error::TagWithDigest
            | Error::InvalidTag(_)
            | Error::InvalidArchive(_)
            | Error::Document { .. }
            | Error::LayerCount { .. }
            | Error::TooManyLayers { .. }
            | Error::DiffId { .. }
            | Error::OperatingSystem(_)
            | Error::Index(_)
            | Error::Filter { .. } => Kind::Invalid,
            Error::Archive(archive::Error::Compression(_) | archive::Error::Unsupported { .. }) => {
                Kind::NotImplemented
            }
            Error::Archive(error) if error.is_invalid_archive() => Kind::Invalid,
            Error::Content(content::Error::Digest { .. } | content::Error::Size { .. }) => Kind::Invalid,
            Error::Content(content::Error::TooLarge(..)) => Kind::Invalid,
            Error::NoRoom { .. }
            | Error::Archive(_)
            | Error::Content(_)
            | Error::Snapshot(_)
            | Error::Metadata(_)
            | Error::Record { .. }
            | Error::Encode(_)
            | Error::Io { .. } => Kind::System,
        }
    }
}
