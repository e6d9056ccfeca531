//! `/dev`: device nodes and the links that programs expect.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::runtime::{LinuxDevice, LinuxDeviceKind, Spec};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sys::Root;

use crate::error::{Error, Step};

/// The devices that every container has: path, major, minor.
const DEFAULT: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// The devices of a container: those of the spec, and the default ones that it does not mention.
pub(crate) fn all(spec: &Spec) -> impl Iterator<Item = Cow<'_, LinuxDevice>> {
    let given = spec.linux.as_ref().map_or(&[][..], |linux| &linux.devices);
    let missing =
        DEFAULT.iter().filter(|(path, ..)| given.iter().all(|device| device.path != Path::new(path)));
    let missing = missing.map(|(path, major, minor)| {
        Cow::Owned(LinuxDevice {
            path: PathBuf::from(path),
            kind: LinuxDeviceKind::Char,
            major: *major,
            minor: *minor,
            file_mode: Some(0o666),
            uid: None,
            gid: None,
        })
    });
    given.iter().map(Cow::Borrowed).chain(missing)
}

/// Whether the container's `/dev` is its own, to be filled, and not bound from elsewhere.
pub(crate) fn is_own(spec: &Spec) -> bool {
    !spec.mounts.iter().any(|mount| {
        let bind =
            mount.kind == "bind" || mount.options.iter().any(|option| option == "bind" || option == "rbind");
        bind && mount.destination.components().eq(Path::new("/dev").components())
    })
}

/// Makes the nodes and links. `bound` has the host's nodes where new ones cannot be made.
pub(crate) fn fill(root: &Root, spec: &Spec, bound: &mut [Option<OwnedFd>]) -> Result<(), Error> {
    let directory = Mode::from_raw_mode(0o755);
    let dev = root.create_directories(Path::new("/dev"), directory).step(|| "create /dev".into())?;
    for (index, device) in all(spec).enumerate() {
        let step = || format!("create device {}", device.path.display());
        let parent;
        let (parent, name) = match device.path.strip_prefix("/dev") {
            Ok(name) if name.components().count() == 1 => (dev.as_fd(), name.as_os_str()),
            _ => {
                let (made, name) = root.create_parent(&device.path, directory).step(step)?;
                parent = made;
                (parent.as_fd(), name)
            }
        };
        match bound.get_mut(index) {
            Some(bound) => {
                let Some(bound) = bound.take() else { continue };
                let flags =
                    OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY | OFlags::NONBLOCK;
                match rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)) {
                    Ok(_) | Err(Errno::NXIO | Errno::ACCESS) => {}
                    Err(error) => return Err(Error::system(step(), error)),
                }
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let target = rustix::fs::openat(parent, name, flags, Mode::empty()).step(step)?;
                crate::rootfs::attach(bound.as_fd(), target.as_fd()).step(step)?;
            }
            None => make(parent, name, &device).step(step)?,
        }
    }
    for (target, name) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Err(Errno::EXIST) if name == "ptmx" => {
                // A node here would lead to the host's terminals.
                rustix::fs::unlinkat(&dev, name, AtFlags::empty())
                    .and_then(|()| rustix::fs::symlinkat(target, &dev, name))
                    .step(|| "replace /dev/ptmx".into())?;
            }
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::system(format!("create /dev/{name}"), error)),
        }
    }
    Ok(())
}

pub(crate) fn make(parent: impl AsFd, name: &std::ffi::OsStr, device: &LinuxDevice) -> Result<(), Errno> {
    let kind = match device.kind {
        LinuxDeviceKind::Block => FileType::BlockDevice,
        LinuxDeviceKind::Fifo => FileType::Fifo,
        LinuxDeviceKind::Char => FileType::CharacterDevice,
        LinuxDeviceKind::All => return Err(Errno::INVAL),
    };
    let number = |value: i64| u32::try_from(value).map_err(|_| Errno::INVAL);
    let number = rustix::fs::makedev(number(device.major)?, number(device.minor)?);
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    // The process's umask is 0 while it builds the root.
    match rustix::fs::mknodat(&parent, name, kind, mode, number) {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == kind
                && (kind == FileType::Fifo || stat.st_rdev == number)
            {
                return Ok(());
            }
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
            rustix::fs::mknodat(&parent, name, kind, mode, number)?;
        }
        other => other?,
    }
    let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    if (uid, gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
