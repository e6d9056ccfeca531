//! What is kept of a container between two calls: a directory below the root with
//! - `state.json`: a [`Record`],
//! - `config.json`: the spec as it was when the container was created,
//! - `exec.fifo`: there until the container is started.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci::runtime::{OCI_VERSION, Spec, State, Status};
use sandbox::Cgroup;
use serde::{Deserialize, Serialize};

use crate::arguments::Global;
use crate::{Context, Failure};

/// Largest `config.json` that is read, in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub bundle: PathBuf,
    pub pid: i32,
    /// When the process was started, in the kernel's ticks since boot: tells it from another with its number.
    pub pid_started: u64,
    /// RFC 3339.
    pub created: String,
    pub cgroup: String,
    pub owner: u32,
}

/// A container that is known.
#[derive(Debug)]
pub struct Container {
    pub directory: PathBuf,
    pub record: Record,
}

/// An ID that may be the name of a directory.
pub fn check_id(id: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.bytes().all(plain) {
        return Err(Failure("invalid container ID format".into()));
    }
    Ok(())
}

/// Claims an ID: makes its directory.
pub fn claim(global: &Global, id: &str) -> Result<PathBuf, Failure> {
    check_id(id)?;
    let private = || {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder
    };
    private().recursive(true).create(&global.root).context(|| format!("create {}", global.root.display()))?;
    let directory = global.root.join(id);
    match private().create(&directory) {
        Ok(()) => Ok(directory),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure(format!("container with given ID already exists: {id}")))
        }
        Err(error) => Err(error).context(|| format!("create {}", directory.display())),
    }
}

impl Container {
    pub fn load(global: &Global, id: &str) -> Result<Container, Failure> {
        check_id(id)?;
        let directory = global.root.join(id);
        let path = directory.join("state.json");
        let content = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Failure(format!("container {id:?} does not exist")));
            }
            other => other.context(|| format!("read {}", path.display()))?,
        };
        let record = serde_json::from_slice(&content).context(|| format!("read {}", path.display()))?;
        Ok(Container { directory, record })
    }

    /// Every container below the root, by name.
    pub fn all(global: &Global) -> Result<Vec<Container>, Failure> {
        let entries = match fs::read_dir(&global.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context(|| format!("read {}", global.root.display()))?,
        };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut containers: Vec<_> = names.filter_map(|name| Container::load(global, &name).ok()).collect();
        containers.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(containers)
    }

    /// Writes the record, in one step.
    pub fn save(&self) -> Result<(), Failure> {
        let (path, new) = (self.directory.join("state.json"), self.directory.join("state.json.new"));
        let what = || format!("write {}", path.display());
        fs::write(&new, serde_json::to_vec(&self.record).context(what)?).context(what)?;
        fs::rename(&new, &path).context(what)
    }

    pub fn spec(&self) -> Result<Spec, Failure> {
        read_spec(&self.directory.join("config.json"))
    }

    pub fn fifo(&self) -> PathBuf {
        self.directory.join("exec.fifo")
    }

    pub fn cgroup(&self) -> Result<Cgroup, Failure> {
        Ok(Cgroup::open(&self.record.cgroup)?)
    }

    pub fn status(&self) -> Status {
        if !is_alive(self.record.pid, self.record.pid_started) {
            return Status::Stopped;
        }
        if self.fifo().exists() {
            return Status::Created;
        }
        match self.cgroup().ok().and_then(|cgroup| cgroup.is_frozen().ok()) {
            Some(true) => Status::Paused,
            _ => Status::Running,
        }
    }

    /// The state as the specification wants it.
    pub fn state(&self) -> Result<State, Failure> {
        let status = self.status();
        let spec = self.spec()?;
        let pid = if status == Status::Stopped { 0 } else { self.record.pid.max(0) as u32 };
        Ok(State {
            oci_version: if spec.oci_version.is_empty() { OCI_VERSION.into() } else { spec.oci_version },
            id: self.record.id.clone(),
            status,
            pid,
            bundle: self.record.bundle.clone(),
            annotations: spec.annotations,
        })
    }
}

pub fn read_spec(path: &Path) -> Result<Spec, Failure> {
    let what = || format!("read {}", path.display());
    let size = fs::metadata(path).context(what)?.len();
    if size > CONFIG_LIMIT {
        return Err(Failure(format!("{} is larger than {CONFIG_LIMIT} bytes", path.display())));
    }
    serde_json::from_slice(&fs::read(path).context(what)?).context(what)
}

/// When a process was started, in ticks since boot; none if there is none, or only its remains.
pub fn process_start(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything, parentheses as well.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let status = fields.next()?;
    if matches!(status, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

pub fn is_alive(pid: i32, started: u64) -> bool {
    pid > 0 && process_start(pid) == Some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_the_root() {
        for id in ["", ".", "..", "a/b", "../x", "a b", "é"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        for id in ["a", "0123abc", "a.b-c_d+e", "..."] {
            assert!(check_id(id).is_ok(), "{id:?}");
        }
    }

    #[test]
    fn this_process_is_alive_and_no_other_is_taken_for_it() {
        let pid = std::process::id() as i32;
        let started = process_start(pid).unwrap();
        assert!(is_alive(pid, started));
        assert!(!is_alive(pid, started + 1));
        assert!(!is_alive(0, 0));
    }
}
