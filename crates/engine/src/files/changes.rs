//! What a container changed, told and counted as clients expect it.

use std::collections::HashSet;
use std::path::Path;

use api_types::container::FilesystemChange;
use model::Refusal;
use snapshots::{Change, ChangeKind};

use super::Files;
use crate::{Engine, blocking};

/// Places that are made in every container's root to mount something there; no change of the container's own.
const MOUNT_POINTS: [&str; 12] = [
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
    "/sys/fs/cgroup",
];

impl Files {
    /// What a container changed in its root; none is told as nothing at all.
    pub async fn changes(&self, container: &str) -> Result<Option<Vec<FilesystemChange>>, Refusal> {
        let id = self.0.find(container)?.view().id().to_string();
        let engine = self.0.clone();
        let (own, _) = blocking(move || changes(&engine, &id)).await?;
        let told = own.into_iter().map(|change| FilesystemChange {
            path: String::from_utf8_lossy(&change.path).into_owned(),
            kind: match change.kind {
                ChangeKind::Modified => 0,
                ChangeKind::Added => 1,
                ChangeKind::Deleted => 2,
            },
        });
        let told: Vec<_> = told.collect();
        Ok((!told.is_empty()).then_some(told))
    }
}

/// The container's own changes, and those that were made to run it; blocks.
pub(super) fn changes(engine: &Engine, id: &str) -> Result<(Vec<Change>, Vec<Change>), Refusal> {
    let all = engine.snapshots().changes(id);
    let all = all.map_err(|error| Refusal::from_error("cannot compare the container's files", &error))?;
    Ok(split(all))
}

/// A mount point counts as the container's own if something of its own is below it.
fn split(all: Vec<Change>) -> (Vec<Change>, Vec<Change>) {
    use std::os::unix::ffi::OsStrExt;
    let is_point = |change: &Change| {
        change.kind != ChangeKind::Deleted && MOUNT_POINTS.iter().any(|point| point.as_bytes() == change.path)
    };
    let mut kept: HashSet<Vec<u8>> = HashSet::new();
    for change in all.iter().filter(|change| !is_point(change)) {
        let path = Path::new(std::ffi::OsStr::from_bytes(&change.path));
        kept.extend(path.ancestors().map(|path| path.as_os_str().as_bytes().to_vec()));
    }
    all.into_iter().partition(|change| kept.contains(&change.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_nobody_s_change() {
        let change = |kind, path: &str| Change { path: path.into(), kind };
        use ChangeKind::{Added, Deleted, Modified};
        let all = vec![
            change(Modified, "/dev"),
            change(Added, "/dev/console"),
            change(Modified, "/etc"),
            change(Added, "/etc/hosts"),
            change(Added, "/etc/own"),
            change(Deleted, "/proc"),
            change(Modified, "/root"),
        ];
        let (own, others) = split(all);
        let paths = |list: &[Change]| {
            list.iter().map(|change| String::from_utf8(change.path.clone()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(paths(&own), ["/etc", "/etc/own", "/proc", "/root"]);
        assert_eq!(paths(&others), ["/dev", "/dev/console", "/etc/hosts"]);
    }
}
