//! Subvolumes of btrfs: directories that the filesystem can copy in one step (snapshots) and drop in one.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Arguments {
    source: i64,
    name: [u8; NAME_BYTES],
}

/// `struct btrfs_ioctl_get_subvol_rootref_args`.
#[repr(C)]
struct References {
    least: u64,
    found: [[u64; 2]; 255],
    count: u8,
    padding: [u8; 7],
}

const NAME_BYTES: usize = 4088;
/// Longest name of a subvolume.
const NAME_MAX: usize = 255;
const MAGIC: u64 = 0x9123_683e;
/// The inode number of every subvolume's top.
const TOP_INODE: u64 = 256;

fn act(parent: BorrowedFd<'_>, request: libc::c_ulong, source: i64, name: &CStr) -> io::Result<()> {
    let bytes = name.to_bytes();
    if bytes.len() > NAME_MAX {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let mut arguments = Arguments { source, name: [0; NAME_BYTES] };
    arguments.name[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: the kernel reads a `struct btrfs_ioctl_vol_args`, which `arguments` is.
    check(unsafe { libc::ioctl(parent.as_raw_fd(), request as _, &raw const arguments) }.into())?;
    Ok(())
}

/// Whether something lies on a btrfs.
pub fn is_btrfs(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(descriptor)?.f_type as u64 == MAGIC)
}

/// Whether a directory is the top of a subvolume.
pub fn is_subvolume(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstat(directory)?.st_ino == TOP_INODE && is_btrfs(directory)?)
}

/// Makes an empty subvolume.
pub fn create(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    act(parent, 0x5000_940e, 0, name)
}

/// Makes a subvolume that has what `source` has, and can be written to.
pub fn snapshot(parent: BorrowedFd<'_>, name: &CStr, source: BorrowedFd<'_>) -> io::Result<()> {
    act(parent, 0x5000_9401, source.as_raw_fd().into(), name)
}

/// Takes a subvolume away with all that is in it; what is not there is no error. Refused (`ENOTEMPTY`) if other
/// subvolumes lie in it.
pub fn destroy(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match act(parent, 0x5000_940f, 0, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether other subvolumes lie in one.
pub fn has_subvolumes(subvolume: BorrowedFd<'_>) -> io::Result<bool> {
    const REQUEST: libc::c_ulong = 0xd000_943d;
    let mut references = References { least: 0, found: [[0; 2]; 255], count: 0, padding: [0; 7] };
    // SAFETY: the kernel fills a `struct btrfs_ioctl_get_subvol_rootref_args`, which `references` is.
    let asked = unsafe { libc::ioctl(subvolume.as_raw_fd(), REQUEST as _, &raw mut references) };
    match check(asked.into()) {
        // More than fit into one answer.
        Err(error) if error.raw_os_error() == Some(libc::EOVERFLOW) => Ok(true),
        other => other.map(|_| references.count > 0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_structures_have_the_kernel_s_sizes() {
        assert_eq!(size_of::<super::Arguments>(), 4096);
        assert_eq!(size_of::<super::References>(), 4096);
    }
}
