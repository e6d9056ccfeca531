//! The local volume driver: directories below one root, as Docker lays them out.
//!
//! ```text
//! <root>/<name>/_data        the volume's content
//! <root>/<name>/opts.json    for volumes with options: what is mounted over `_data` while it is used
//! <root>/.new.<name>         a volume that is being made (and filled); named in one rename
//! <root>/.gone.<n>.<name>    a volume on its way out; emptied in the background
//! ```
//! The crate knows directories and mounts; what volumes there are is for its user to remember. The order of the two
//! makes a crash harmless: a volume is staged, its record is committed, then it gets its name; it loses its name, its
//! record is deleted, then its content. [`Local::open`] finishes either by asking which names are known.
//!
//! A volume of a filesystem (`type=tmpfs`, `nfs`, …) is mounted over its `_data` in the host's mount namespace while
//! containers use it. It cannot be a detached mount: all containers must see the same tmpfs, a new daemon must find it
//! again, kernels before 6.15 clone no mount that is in no namespace, and people look for their files there. Binds
//! (`o=bind`) need no such mount.

mod local;
mod mount;

use std::io;
use std::path::{Path, PathBuf};

pub use local::{Adopted, Gone, Local, Opened, Refill, Staged};
pub use mount::{Filesystem, mount, mounted_below, unmount};

/// Failed operations; each names its object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "failed to mount local volume: mount {device}:{path}, flags: {flags:#x}, data: {data}: {source}",
        path = path.display()
    )]
    Mount { device: String, path: PathBuf, flags: u32, data: String, source: io::Error },
    #[error("the directory {0} of the volume is missing")]
    Missing(PathBuf),
    #[error("{0} is there, but is not a volume's directory")]
    Foreign(PathBuf),
}

impl Error {
    /// Whether the disk is full, or the quota is.
    pub fn is_full(&self) -> bool {
        let (Error::Io { source, .. } | Error::Mount { source, .. }) = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}
