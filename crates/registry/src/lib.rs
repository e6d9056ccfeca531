//! A client of OCI registries: manifests, blobs, uploads, tags, credentials, mirrors.
//!
//! [`Registries`] is made once and lives with the program: it knows the [`Settings`], and remembers tokens and which
//! hosts speak TLS. A [`Repository`] is made for one piece of work in one repository: it knows who asks, and keeps its
//! connections. It tries the addresses of a registry in their order (mirrors first), and falls back to plain HTTP where
//! the settings allow that.
//!
//! Everything that comes from outside is bounded: documents in bytes, answers and pieces of answers in time, redirects
//! and pages in number. Blobs come as streams, which whoever reads them has to check: this crate knows no disk.
//! It knows nothing of images either, nor of the Engine API.

mod auth;
pub mod base64;
mod certificates;
mod challenge;
mod download;
mod error;
mod hosts_toml;
mod proxy;
mod repository;
mod search;
mod settings;
mod transport;
mod upload;
mod url;

pub use auth::{Access, Credentials};
pub use download::Download;
pub use error::{Error, Kind};
pub use proxy::Proxies;
pub use repository::{BlobStream, Fetched, Head, Registries, Repository, SCHEMA_1};
pub use search::{Found, HUB_INDEX};
pub use settings::{HUB, Insecure, Settings};
pub use upload::{Mounted, Upload};

/// Types of manifests that are asked for.
pub const MANIFEST_TYPES: [&str; 4] = [
    oci::media_type::DOCKER_MANIFEST,
    oci::media_type::DOCKER_MANIFEST_LIST,
    oci::media_type::OCI_INDEX,
    oci::media_type::OCI_MANIFEST,
];
