//! Every path below the data root and the run root.

use std::path::{Path, PathBuf};

use shim_protocol::Exit;

/// `data` outlives a reboot; `run` is on a tmpfs and does not.
#[derive(Debug, Clone)]
pub struct Paths {
    pub data: PathBuf,
    pub run: PathBuf,
}

impl Paths {
    pub fn state(&self) -> PathBuf {
        self.data.join("state")
    }

    /// Layers, of images and of containers, in a folder for each storage driver.
    pub fn snapshots(&self) -> PathBuf {
        self.data.join("snapshots")
    }

    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// `hosts`, `hostname`, `resolv.conf` and the log of one container.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// The shim's socket and exit status of one container.
    pub fn task(&self, id: &str) -> PathBuf {
        self.tasks().join(id)
    }

    pub fn tasks(&self) -> PathBuf {
        self.run.join("tasks")
    }

    pub fn file(&self, id: &str, name: &str) -> PathBuf {
        self.container(id).join(name)
    }

    /// What the shim left when the container ended without a daemon.
    pub fn read_exit(&self, id: &str) -> Option<Exit> {
        let bytes = std::fs::read(self.task(id).join(shim_protocol::EXIT_NAME)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub fn discard_task(&self, id: &str) {
        let _ = std::fs::remove_dir_all(self.task(id));
    }
}

/// The endpoint of a started container, below its task directory.
pub const ENDPOINT_NAME: &str = "endpoint.json";

/// Replaces a file whole, without syncing: for files that are written anew at each start.
pub fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, contents)?;
    std::fs::rename(&partial, path)
}

/// Removes a directory with all that is in it, also what somebody who was still at work makes in it meanwhile: a shim
/// that compresses a last part of the log.
pub fn remove_tree(path: &Path) {
    let again = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::DirectoryNotEmpty => std::fs::remove_dir_all(path),
        _ => Err(error),
    };
    // Once is enough: without the rotated files that went first there is nothing more to compress.
    if let Err(error) = std::fs::remove_dir_all(path).or_else(again)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a directory");
    }
}
