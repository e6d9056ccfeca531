//! SELinux: whether it is there, and the contexts that its policy has for containers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use model::Refusal;
use model::create::{NetworkChoice, Record};
use model::mounts::Source;
use model::security::{SelinuxContexts, bind_label, relabel};
use model::spec::Place;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};

use crate::container::GivenFiles;

const MOUNTS: [&str; 2] = ["/sys/fs/selinux", "/selinux"];
/// Deepest directory that is labelled.
const DEPTH_MAX: usize = 256;

/// The contexts, if the kernel has SELinux and the daemon is to use it.
pub fn prepare(wanted: bool) -> Option<SelinuxContexts> {
    if !wanted {
        return None;
    }
    if !MOUNTS.iter().any(|mount| Path::new(mount).join("enforce").exists()) {
        tracing::warn!("SELinux was asked for, and this kernel does not have it");
        return None;
    }
    let config = std::fs::read_to_string("/etc/selinux/config").unwrap_or_default();
    let policy = setting(&config, "SELINUXTYPE").unwrap_or("targeted");
    let path = format!("/etc/selinux/{policy}/contexts/lxc_contexts");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let context = |key: &str, default: &str| setting(&text, key).unwrap_or(default).to_string();
    Some(SelinuxContexts {
        process: context("process", "system_u:system_r:container_t:s0"),
        file: context("file", "system_u:object_r:container_file_t:s0"),
    })
}

/// The value of `key = value`, with or without quotes.
fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value =
        text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='))?;
    Some(value.trim().trim_matches('"')).filter(|value| !value.is_empty())
}

/// Labels what the container is to use of the host before it starts: its own `files`, and the sources of binds and the
/// volumes that ask for it (`z`, `Z`). `places` says where volumes are.
pub fn relabel_sources(
    record: &Record,
    files: &GivenFiles,
    places: &BTreeMap<PathBuf, Place>,
) -> Result<(), Refusal> {
    if record.labels.mount.is_empty() {
        return Ok(());
    }
    // Those of the container whose network it shares have that one's label.
    if !matches!(record.network, NetworkChoice::Container(_)) {
        for path in [&files.hosts, &files.hostname, &files.resolv_conf] {
            label_file(path, &record.labels.mount)?;
        }
    }
    for mount in &record.mounts {
        let Some(how) = relabel(&mount.mode) else { continue };
        let path = match (&mount.source, places.get(&mount.destination)) {
            (Source::Bind { path, .. }, _) => path,
            (Source::Volume { .. }, Some(Place::Directory { path, .. })) => path,
            _ => continue,
        };
        check(path)?;
        label_file(path, &bind_label(&record.labels.mount, how))?;
    }
    Ok(())
}

/// Labels a file, or a directory with all that is in it.
fn label_file(path: &Path, label: &str) -> Result<(), Refusal> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(std::io::Error::from)
        .and_then(|opened| label_tree(opened, label, 0))
        .map_err(|error| {
            Refusal::from_error(&format!("error setting label on mount source '{}'", path.display()), &error)
        })
}

/// What the machine itself needs keeps its labels.
fn check(path: &Path) -> Result<(), Refusal> {
    const KEPT: [&str; 12] =
        ["/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/sys", "/usr", "/var"];
    if KEPT.iter().any(|kept| path == Path::new(kept)) {
        return Err(Refusal::invalid(format!("SELinux relabeling of {} is not allowed", path.display())));
    }
    Ok(())
}

/// Walks by descriptor and never through a link, so that nothing outside the tree is labelled.
fn label_tree(file: OwnedFd, label: &str, depth: usize) -> std::io::Result<()> {
    rustix::fs::fsetxattr(&file, c"security.selinux", label.as_bytes(), XattrFlags::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || depth >= DEPTH_MAX {
        return Ok(());
    }
    for entry in rustix::fs::Dir::read_from(&file)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(&file, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if matches!(kind, FileType::Directory | FileType::RegularFile) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let child = rustix::fs::openat(&file, name, flags, Mode::empty())?;
            label_tree(child, label, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found() {
        let text = "# x\nprocess = \"a:b:c:s0\"\nfile=\"d\"\nempty = \"\"\n";
        assert_eq!(setting(text, "process"), Some("a:b:c:s0"));
        assert_eq!(
            (setting(text, "file"), setting(text, "empty"), setting(text, "gone")),
            (Some("d"), None, None)
        );
        assert!(check(Path::new("/usr")).is_err() && check(Path::new("/srv/data")).is_ok());
    }
}
