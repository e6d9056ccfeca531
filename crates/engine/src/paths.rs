//! Every path below the data root and the run root.

use std::path::{Path, PathBuf};

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
}

/// The endpoint of a started container, below its task directory.
pub const ENDPOINT_NAME: &str = "endpoint.json";

/// Replaces a file whole, without syncing: for files that are written anew at each start.
pub fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, contents)?;
    std::fs::rename(&partial, path)
}
