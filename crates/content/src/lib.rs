//! Blobs by digest, kept as an OCI image layout on disk.
//!
//! ```text
//! <root>/oci-layout             {"imageLayoutVersion":"1.0.0"}
//! <root>/index.json             which manifests have names; rewritten by whoever knows the names
//! <root>/blobs/sha256/<hex>     immutable, complete, and what their name says
//! <root>/ingest/                blobs on their way in; emptied when the store is opened
//! <root>/partial/               blobs that come from afar in pieces; they outlive the process (see [`Partial`])
//! ```
//! Other tools (`skopeo`, `umoci`) can read the store in place. It knows digests and bytes, nothing of images: what is
//! still needed is decided above, and said with [`Store::delete`].
//!
//! A blob comes in through a [`Writer`], which hashes while it writes; [`Ingested::commit`] syncs the bytes and gives
//! them their name with one rename, so a name never stands for half a blob. The rename itself is only sure to survive
//! a loss of power after [`Store::sync`], which a caller does once, before it records that it needs the blobs.

mod ingest;
mod partial;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use oci::{Algorithm, Digest, Index};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

pub use ingest::{Ingested, Writer};
pub use partial::Partial;

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Refused or failed store operations; each names its object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("blob {0} not found")]
    NotFound(Digest),
    #[error("blob {0} is larger than {1} bytes")]
    TooLarge(Digest, u64),
    #[error("content has digest {found}, expected {expected}")]
    Digest { expected: Digest, found: Digest },
    #[error("content {digest} has {found} bytes, expected {expected}")]
    Size { digest: Digest, expected: u64, found: u64 },
    #[error("{path}: image layout version {version:?} is not supported")]
    Layout { path: PathBuf, version: String },
    #[error("{path} is not a valid index: {source}")]
    Index { path: PathBuf, source: serde_json::Error },
    #[error("cannot {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

/// A blob of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// A store on one directory. Every method may be called from any thread.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    directory: OwnedFd,
    ingest: OwnedFd,
    ingest_next: AtomicU64,
}

impl Store {
    /// Opens the store in `root`, makes it if there is none, and removes what earlier writers left unfinished. One
    /// process at a time may have it open.
    pub fn open(root: &Path) -> Result<Store, Error> {
        let io = |operation: &'static str, path: PathBuf| {
            move |source: io::Error| Error::Io { operation, path, source }
        };
        for name in ["blobs/sha256", "blobs/sha512", "ingest", "partial"] {
            let path = root.join(name);
            std::fs::create_dir_all(&path).map_err(io("create", path))?;
        }
        let open_dir = |path: PathBuf| -> Result<OwnedFd, Error> {
            rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
                .map_err(|errno| io("open", path)(errno.into()))
        };
        let store = Store {
            root: root.to_owned(),
            directory: open_dir(root.to_owned())?,
            ingest: open_dir(root.join("ingest"))?,
            ingest_next: AtomicU64::new(0),
        };
        store.sweep_ingest()?;
        store.sweep_partial()?;
        store.check_layout()?;
        if !root.join("index.json").exists() {
            store.write_index(&Index::default())?;
        }
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies, whether or not it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(blob_name(digest))
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        rustix::fs::statat(&self.directory, blob_name(digest), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Size in bytes.
    pub fn size(&self, digest: &Digest) -> Result<u64, Error> {
        match rustix::fs::statat(&self.directory, blob_name(digest), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
            Err(errno) => Err(self.blob_error("stat", digest, errno)),
        }
    }

    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.directory, blob_name(digest), flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| self.blob_error("open", digest, errno))
    }

    /// A small blob whole, checked against its digest. Refuses more than `bytes_max`.
    pub fn read(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|source| Error::Io {
            operation: "read",
            path: self.path(digest),
            source,
        })?;
        if bytes.len() as u64 > bytes_max {
            return Err(Error::TooLarge(digest.clone(), bytes_max));
        }
        let mut hasher = oci::Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(Error::Digest { expected: digest.clone(), found });
        }
        Ok(bytes)
    }

    /// Starts a blob of unknown digest, to be named by its SHA-256.
    pub fn writer(&self) -> Result<Writer<'_>, Error> {
        Writer::new(self, Algorithm::Sha256)
    }

    /// Starts a blob that will be named by `algorithm`.
    pub fn writer_for(&self, algorithm: Algorithm) -> Result<Writer<'_>, Error> {
        Writer::new(self, algorithm)
    }

    /// Stores bytes at hand.
    pub fn put(&self, bytes: &[u8]) -> Result<Blob, Error> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|source| Error::Io {
            operation: "write",
            path: self.root.join("ingest"),
            source,
        })?;
        writer.finish()?.commit()
    }

    /// Removes a blob; one that is not there is no error.
    pub fn delete(&self, digest: &Digest) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.directory, blob_name(digest), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.blob_error("remove", digest, errno)),
        }
    }

    /// Every blob in the store; files whose name is no digest are skipped.
    pub fn walk(&self) -> Result<Vec<Blob>, Error> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let path = self.root.join("blobs").join(algorithm.as_str());
            let io = |source| Error::Io { operation: "list", path: path.clone(), source };
            for entry in std::fs::read_dir(&path).map_err(io)? {
                let entry = entry.map_err(io)?;
                let name = entry.file_name();
                let Some(hex) = name.to_str() else { continue };
                let Ok(digest) = format!("{}:{hex}", algorithm.as_str()).parse::<Digest>() else { continue };
                let size = match entry.metadata() {
                    Ok(found) => found.len(),
                    // Removed a moment ago.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(io(error)),
                };
                blobs.push(Blob { digest, size });
            }
        }
        Ok(blobs)
    }

    /// Makes the names of committed blobs survive a loss of power.
    pub fn sync(&self) -> Result<(), Error> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let path = self.root.join("blobs").join(algorithm.as_str());
            File::open(&path).and_then(|directory| directory.sync_all()).map_err(|source| Error::Io {
                operation: "sync",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// The layout's `index.json`.
    pub fn index(&self) -> Result<Index, Error> {
        let path = self.root.join("index.json");
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(INDEX_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|source| Error::Io { operation: "read", path: path.clone(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Index { path, source })
    }

    /// Replaces `index.json` in one step. Not synced: the index says again what the caller's own records say, and the
    /// caller writes it anew when it starts.
    pub fn write_index(&self, index: &Index) -> Result<(), Error> {
        let path = self.root.join("index.json");
        let bytes =
            serde_json::to_vec(index).map_err(|source| Error::Index { path: path.clone(), source })?;
        self.replace("index.json", &bytes)
    }

    fn replace(&self, name: &'static str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.root.join(name);
        let temporary = self.root.join("ingest").join(format!("new-{name}"));
        std::fs::write(&temporary, bytes)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|source| Error::Io { operation: "write", path, source })
    }

    fn check_layout(&self) -> Result<(), Error> {
        let path = self.root.join("oci-layout");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.replace("oci-layout", LAYOUT.as_bytes());
            }
            Err(source) => return Err(Error::Io { operation: "read", path, source }),
        };
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let version = value.get("imageLayoutVersion").and_then(|v| v.as_str()).unwrap_or_default();
        if version.starts_with("1.") {
            Ok(())
        } else {
            Err(Error::Layout { path, version: version.to_owned() })
        }
    }

    fn sweep_ingest(&self) -> Result<(), Error> {
        let path = self.root.join("ingest");
        let io = |source| Error::Io { operation: "sweep", path: path.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(io)? {
            std::fs::remove_file(entry.map_err(io)?.path()).map_err(io)?;
        }
        Ok(())
    }

    fn blob_error(&self, operation: &'static str, digest: &Digest, errno: Errno) -> Error {
        match errno {
            Errno::NOENT => Error::NotFound(digest.clone()),
            errno => Error::Io { operation, path: self.path(digest), source: errno.into() },
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

#[cfg(test)]
mod tests;
