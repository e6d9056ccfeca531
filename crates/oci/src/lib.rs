//! OCI documents: image, runtime and distribution types, digests, references and platforms.
//!
//! Pure: no I/O, no clock, no knowledge of Docker's API. Documents are read tolerantly (`null` means absent, unknown
//! members are skipped), because the world is full of images written by other tools; what was digested is never written
//! again from these types, its original bytes are kept by whoever read them.

pub mod digest;
pub mod image;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod runtime;

pub use calendar::Timestamp;
pub use digest::{Algorithm, Digest, Hasher, chain_id, chain_ids};
pub use image::{Config, Descriptor, Healthcheck, History, Image, Index, Manifest, RootFs};
pub use platform::Platform;
pub use reference::Reference;
