//! Values of flags into what the API takes.

pub mod container;
pub mod endpoints;
pub mod kv;
pub mod limits;
pub mod mount;
pub mod network;
pub mod ports;
pub mod reference;
pub mod security;

/// The folder name of a context: the SHA-256 of its name.
pub fn context_id(name: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
