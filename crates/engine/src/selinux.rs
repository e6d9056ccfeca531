//! SELinux: whether it is there, and the contexts that its policy has for containers.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::Refusal;
use model::create::{NetworkChoice, Record};
use model::mounts::Source;
use model::security::{Relabel, SelinuxContexts, bind_label, relabel};
use model::spec::Place;
use rustix::fs::{Dir, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use shim_protocol::Rootfs;

use crate::container::GivenFiles;

const MOUNTS: [&str; 2] = ["/sys/fs/selinux", "/selinux"];
/// Deepest directory that is labelled.
const DEPTH_MAX: usize = 256;
const ATTRIBUTE: &CStr = c"security.selinux";
/// More than any label has.
const LABEL_BYTES_MAX: usize = 4096;

/// The contexts, if the kernel has SELinux and the daemon is to use it. Everything below `layers` is labelled as what
/// containers may read and run: of a file that is mapped the kernel asks for the one below the overlay, and new ones
/// take their directory's label.
pub fn prepare(wanted: bool, layers: &Path) -> Option<SelinuxContexts> {
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
    let label = context("ro_file", "system_u:object_r:container_ro_file_t:s0");
    if let Err(error) = label_once(layers, &label) {
        tracing::warn!(%error, label, "layers cannot be labelled: containers may be denied to run programs of theirs");
    }
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

/// Labels what the container is to use of the host before it starts: its own `files`, its `rootfs`, and the sources of
/// binds and the volumes that ask for it (`z`, `Z`). `places` says where volumes are.
pub fn relabel_sources(
    record: &Record,
    files: &GivenFiles,
    rootfs: &Rootfs,
    places: &BTreeMap<PathBuf, Place>,
) -> Result<(), Refusal> {
    let label = &record.labels.mount;
    if label.is_empty() {
        return Ok(());
    }
    // An overlay is mounted under a label; whole trees have it themselves.
    if let Rootfs::Directory(tree) = rootfs {
        label_once(tree, label).map_err(|error| refused(tree, &error))?;
    }
    // Those of the container whose network it shares are for both.
    let shared = matches!(record.network, NetworkChoice::Container(_));
    let own = if shared { bind_label(label, Relabel::Shared) } else { label.clone() };
    for path in [&files.hosts, &files.hostname, &files.resolv_conf] {
        label_tree(path, &own).map_err(|error| refused(path, &error))?;
    }
    for mount in &record.mounts {
        let Some(how) = relabel(&mount.mode) else { continue };
        let path = match (&mount.source, places.get(&mount.destination)) {
            (Source::Bind { path, .. }, _) => path,
            (Source::Volume { .. }, Some(Place::Directory { path, .. })) => path,
            _ => continue,
        };
        let labelled = path.canonicalize().and_then(|path| {
            check(&path)?;
            label_tree(&path, &bind_label(label, how))
        });
        labelled.map_err(|error| refused(path, &error))?;
    }
    Ok(())
}

fn refused(path: &Path, error: &io::Error) -> Refusal {
    Refusal::from_error(&format!("error setting label on mount source '{}'", path.display()), error)
}

/// What the machine itself needs keeps its labels.
fn check(path: &Path) -> io::Result<()> {
    const KEPT: [&str; 24] = [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/etc/passwd",
        "/etc/pki",
        "/etc/shadow",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/var",
        "/var/lib",
        "/var/log",
    ];
    if KEPT.iter().any(|kept| path == Path::new(kept)) {
        let text = format!("SELinux relabeling of {} is not allowed", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

/// The label that a file has on its filesystem.
fn label_of(path: &Path) -> Option<Vec<u8>> {
    let mut label = vec![0; LABEL_BYTES_MAX];
    let length = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut label).ok()?;
    label.truncate(length);
    // The kernel ends them with a zero.
    label.pop_if(|last| *last == 0);
    Some(label)
}

/// Labels a tree unless its root, which gets its label at last, has it already.
fn label_once(tree: &Path, label: &str) -> io::Result<()> {
    if label_of(tree).as_deref() == Some(label.as_bytes()) {
        return Ok(());
    }
    label_tree(tree, label)
}

/// Labels a file, or a directory with all that is in it and itself at last. Filesystems that know no labels are left as they are.
fn label_tree(path: &Path, label: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let labelled = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => label_directory(directory, label, 0),
        Err(Errno::NOTDIR) => set_label(path, label),
        Err(error) => Err(error),
    };
    match labelled {
        Err(Errno::NOTSUP) => Ok(()),
        labelled => labelled.map_err(io::Error::from),
    }
}

fn set_label(path: impl rustix::path::Arg, label: &str) -> Result<(), Errno> {
    rustix::fs::lsetxattr(path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty())
}

/// Walks by descriptor and never through a link, so that nothing outside the tree is labelled.
fn label_directory(directory: OwnedFd, label: &str, depth: usize) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entries = if depth < DEPTH_MAX { Some(Dir::read_from(&directory)?) } else { None };
    for entry in entries.into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            Ok(child) => label_directory(child, label, depth + 1)?,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                // Also links, pipes and sockets, which only a path reaches; its last part is not followed.
                let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
                path.extend_from_slice(name.to_bytes());
                gone_is_fine(set_label(path, label))?;
            }
            Err(error) => gone_is_fine(Err(error))?,
        }
    }
    rustix::fs::fsetxattr(&directory, ATTRIBUTE, label.as_bytes(), XattrFlags::empty())
}

/// Files may go while their directory is walked.
fn gone_is_fine(done: Result<(), Errno>) -> Result<(), Errno> {
    if done == Err(Errno::NOENT) { Ok(()) } else { done }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::FileType;

    use super::*;

    #[test]
    fn everything_in_a_tree_is_labelled_and_nothing_outside() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir_all(at("tree/sub")).unwrap();
        for file in ["outside", "tree/file", "tree/sub/file"] {
            std::fs::write(at(file), "").unwrap();
        }
        symlink(at("outside"), at("tree/link")).unwrap();
        symlink(at("tree"), at("tree/sub/up")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at("tree/pipe"), FileType::Fifo, mode, 0).unwrap();
        let before = label_of(&at("outside"));
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        label_tree(&at("tree"), label).unwrap();
        let inside = ["", "file", "link", "pipe", "sub", "sub/file", "sub/up"];
        for name in inside {
            assert_eq!(label_of(&at("tree").join(name)).as_deref(), Some(label.as_bytes()), "{name}");
        }
        assert_eq!(label_of(&at("outside")), before);
        label_tree(&at("outside"), label).unwrap();
        assert_eq!(label_of(&at("outside")).as_deref(), Some(label.as_bytes()));
        assert!(label_tree(&at("missing"), label).is_err());
        // Once labelled, a tree may have files with labels of their own.
        let own = "system_u:object_r:container_file_t:s0";
        label_tree(&at("tree/file"), own).unwrap();
        label_once(&at("tree"), label).unwrap();
        assert_eq!(label_of(&at("tree/file")).as_deref(), Some(own.as_bytes()));
        label_once(&at("tree"), own).unwrap();
        assert_eq!(label_of(&at("tree/sub/file")).as_deref(), Some(own.as_bytes()));
        // The kernel's own files know no labels.
        label_tree(Path::new("/proc/self/status"), label).unwrap();
    }

    #[test]
    fn settings_are_found() {
        let text = "# x\nprocess = \"a:b:c:s0\"\nfile=\"d\"\nempty = \"\"\n";
        assert_eq!(setting(text, "process"), Some("a:b:c:s0"));
        assert_eq!(
            (setting(text, "file"), setting(text, "empty"), setting(text, "gone")),
            (Some("d"), None, None)
        );
        assert!(check(Path::new("/usr")).is_err() && check(Path::new("/srv/data")).is_ok());
        assert!(check(Path::new("/var/lib")).is_err() && check(Path::new("/var/lib/data")).is_ok());
    }
}
