//! Filesystems of volumes with options, mounted over their directory.

use std::ffi::{CString, OsString};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::Error;

/// What is mounted, as mount(8) would be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filesystem {
    pub kind: String,
    pub device: String,
    /// Separated by commas.
    pub options: String,
}

/// Options that are flags of mount(2): what they raise, and what they lower.
const FLAGS: [(&str, MountFlags, bool); 21] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("relatime", MountFlags::RELATIME, true),
    ("norelatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("nostrictatime", MountFlags::STRICTATIME, false),
    ("defaults", MountFlags::empty(), true),
    ("silent", MountFlags::SILENT, true),
];

/// The flags, and what is left for the filesystem itself.
fn split(options: &str) -> (MountFlags, Vec<String>) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match FLAGS.iter().find(|(name, ..)| *name == option) {
            Some((_, flag, true)) => flags |= *flag,
            Some((_, flag, false)) => flags &= !*flag,
            None => data.push(option.to_owned()),
        }
    }
    (flags, data)
}

/// The kernel's network filesystems know addresses only; a name is looked up.
fn resolve_address(data: &mut [String]) -> std::io::Result<()> {
    let Some(option) = data.iter_mut().find(|option| option.starts_with("addr=")) else { return Ok(()) };
    let host = option["addr=".len()..].to_owned();
    if host.is_empty() || host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let found = (host.as_str(), 0).to_socket_addrs()?.next();
    let address = found.ok_or_else(|| std::io::Error::other(format!("no address of {host} was found")))?;
    *option = format!("addr={}", address.ip());
    Ok(())
}

/// Mounts a volume's filesystem on its directory.
pub fn mount(filesystem: &Filesystem, target: &Path) -> Result<(), Error> {
    let (flags, mut data) = split(&filesystem.options);
    let failed = |data: &[String], source: std::io::Error| Error::Mount {
        device: filesystem.device.clone(),
        path: target.to_owned(),
        flags: flags.bits(),
        data: data.join(","),
        source,
    };
    if filesystem.kind.starts_with("nfs") || filesystem.kind == "cifs" {
        resolve_address(&mut data).map_err(|error| failed(&data, error))?;
    }
    let text = CString::new(data.join(",")).map_err(|error| failed(&data, error.into()))?;
    rustix::mount::mount(&filesystem.device, target, &filesystem.kind, flags, text.as_c_str())
        .map_err(|errno| failed(&data, errno.into()))?;
    // What is mounted below it by somebody is not for other namespaces, nor the other way round.
    let _ = rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE);
    Ok(())
}

/// Unmounts it, from every layer of mounts there; nothing mounted is no error.
pub fn unmount(target: &Path) -> Result<(), Error> {
    for _ in 0..16 {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(crate::io("unmount", target)(errno.into())),
        }
    }
    Ok(())
}

/// Mount points below a directory, in this mount namespace.
pub fn mounted_below(root: &Path) -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(OsString::from_vec(unescape(field))))
    });
    points.filter(|point| point != root && point.starts_with(root)).collect()
}

/// Octal escapes of blanks and backslashes, as the kernel writes paths.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match digits {
            Some(digits) if first == b'\\' => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                out.push(value as u8);
                rest = &after[3..];
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_fall_apart() {
        let (flags, data) = split("ro,nosuid,size=1m,,uid=1000,suid");
        assert_eq!(flags, MountFlags::RDONLY);
        assert_eq!(data, ["size=1m", "uid=1000"]);
        let mut data = vec!["vers=4".to_string(), "addr=localhost".into()];
        resolve_address(&mut data).unwrap();
        assert!(data[1] == "addr=127.0.0.1" || data[1] == "addr=::1", "{data:?}");
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(unescape(br"/a\040b\134c\09"), b"/a b\\c\\09");
    }

    proptest::proptest! {
        #[test]
        fn any_field_is_read(field: Vec<u8>) {
            proptest::prop_assert!(unescape(&field).len() <= field.len());
        }
    }

    #[test]
    fn what_cannot_be_mounted_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let odd = Filesystem { kind: "no-such-fs".into(), device: "/dev/x".into(), options: "a=b".into() };
        let text = mount(&odd, scratch.path()).unwrap_err().to_string();
        let start = format!("failed to mount local volume: mount /dev/x:{}", scratch.path().display());
        assert!(text.starts_with(&start) && text.contains("data: a=b"), "{text}");
        unmount(scratch.path()).unwrap();
    }
}
