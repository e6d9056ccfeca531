//! What can go wrong, in Docker's words where its users know them.

use oci::{Digest, Reference};

/// What sort of failure an [`Error`] is; the API's status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    Invalid,
    Unauthorized,
    Forbidden,
    System,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': {source}"
    )]
    PullDenied { name: String, source: registry::Error },
    #[error("manifest for {reference} not found: {source}")]
    NoManifest { reference: String, source: registry::Error },
    #[error("repository {name} not found: {source}")]
    NoRepository { name: String, source: registry::Error },
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    #[error(
        "{reference} is in Docker Image manifest version 2, schema 1, which is not supported: its author can push it anew \
         in the OCI format or in schema 2"
    )]
    Schema1 { reference: String },
    #[error("Encountered remote {0:?}(unknown) when fetching: it is not an image that can be run")]
    NoImage(String),
    #[error("image operating system {0:?} cannot be used on this platform")]
    OperatingSystem(String),
    #[error("{what} is not valid: {source}")]
    Document { what: String, source: serde_json::Error },
    #[error("invalid manifest: {0}")]
    Manifest(String),
    #[error("filesystem layer verification failed for digest {expected}: found {found}")]
    Verification { expected: Digest, found: Digest },
    #[error(
        "not enough room on the disk: the image's layers have {needed} bytes when compressed, and {free} bytes are free"
    )]
    NoRoom { needed: u64, free: u64 },
    #[error("the transfer was cancelled")]
    Cancelled,
    #[error("tag does not exist: {0}")]
    NoTag(String),
    #[error("An image does not exist locally with the tag: {0}")]
    NoLocal(String),
    #[error("multiple matching manifests found but no specific platform requested")]
    SeveralPlatforms,
    #[error(transparent)]
    Images(#[from] images::Error),
    #[error(transparent)]
    Content(#[from] content::Error),
    #[error("cannot {operation}: {source}")]
    Io { operation: &'static str, source: std::io::Error },
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Error::Registry(registry::Error::Url(_)) => Kind::Invalid,
            Error::Registry(error) => match error.kind() {
                registry::Kind::NotFound => Kind::NotFound,
                registry::Kind::Invalid => Kind::System,
                registry::Kind::Denied => Kind::Forbidden,
                registry::Kind::Unauthorized
                | registry::Kind::RateLimited
                | registry::Kind::Unreachable
                | registry::Kind::System => Kind::System,
            },
            Error::PullDenied { .. }
            | Error::NoManifest { .. }
            | Error::NoRepository { .. }
            | Error::NoPlatform(_)
            | Error::NoTag(_)
            | Error::NoLocal(_) => Kind::NotFound,
            Error::Schema1 { .. }
            | Error::SeveralPlatforms
            | Error::NoImage(_)
            | Error::OperatingSystem(_)
            | Error::Document { .. }
            | Error::Manifest(_) => Kind::Invalid,
            Error::Images(error) => match error.kind() {
                images::Kind::NotFound => Kind::NotFound,
                images::Kind::Invalid => Kind::Invalid,
                images::Kind::Conflict | images::Kind::NotImplemented | images::Kind::System => Kind::System,
            },
            Error::Verification { .. }
            | Error::NoRoom { .. }
            | Error::Cancelled
            | Error::Content(_)
            | Error::Io { .. }
            | Error::Internal(_) => Kind::System,
        }
    }

    /// What the person at the keyboard can do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::PullDenied { .. } => Some("check the name, or log in with an account that may pull it"),
            Error::Registry(registry::Error::NoCredentials { .. }) => Some("log in to the registry first"),
            Error::Registry(registry::Error::Connection { reason, .. }) if reason.contains("x509") => {
                Some("put the authority's certificate at /etc/docker/certs.d/HOST/ca.crt")
            }
            Error::Registry(registry::Error::Connection { reason, .. })
                if reason.contains("HTTP response") =>
            {
                Some("add the registry to \"insecure-registries\" if it is meant to go without TLS")
            }
            Error::SeveralPlatforms => {
                Some("say which one to push: docker push --platform os/architecture NAME")
            }
            Error::NoRoom { .. } => Some("remove what is not used: docker system prune"),
            _ => None,
        }
    }
}

/// What the registry's refusal of a manifest means.
pub fn of_pull(error: registry::Error, reference: &Reference) -> Error {
    match error.code() {
        "DENIED" => Error::PullDenied { name: reference.familiar_name(), source: error },
        "MANIFEST_UNKNOWN" => Error::NoManifest { reference: reference.familiar(), source: error },
        "NAME_UNKNOWN" => Error::NoRepository { name: reference.familiar_name(), source: error },
        // An answer to HEAD says no more.
        "" if error.kind() == registry::Kind::NotFound => Error::NoManifest {
            reference: reference.familiar(),
            source: registry::Error::Registry {
                status: 404,
                code: "MANIFEST_UNKNOWN".into(),
                message: "manifest unknown".into(),
            },
        },
        _ => Error::Registry(error),
    }
}
