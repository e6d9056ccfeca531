//! Quotas of projects: limits on what a directory tree may hold (xfs, ext4).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_on_write_size: u32,
    padding: [u8; 8],
}

/// `struct fs_disk_quota`.
#[repr(C)]
#[derive(Default)]
struct Quota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    blocks_hard: u64,
    blocks_soft: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    blocks: u64,
    inodes: u64,
    rest: [u64; 7],
}

const PROJECT: u32 = 2;

fn quotactl(on: BorrowedFd<'_>, command: u32, project: u32, quota: &mut Quota) -> io::Result<()> {
    // SAFETY: the kernel reads or fills a `struct fs_disk_quota`, which `quota` is.
    check(unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            on.as_raw_fd(),
            command << 8 | PROJECT,
            project,
            std::ptr::from_mut(quota),
        )
    })?;
    Ok(())
}

/// Whether a project of this number has anything.
pub fn is_used(on: BorrowedFd<'_>, project: u32) -> io::Result<bool> {
    const GET: u32 = 0x5803;
    let mut quota = Quota::default();
    match quotactl(on, GET, project, &mut quota) {
        Ok(()) => Ok(quota.blocks > 0 || quota.inodes > 0),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Limits what a project may hold.
pub fn limit(on: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    const SET: u32 = 0x5804;
    const BLOCKS_SOFT_AND_HARD: u16 = 1 << 2 | 1 << 3;
    let blocks = bytes.div_ceil(512);
    let mut quota = Quota {
        version: 1,
        flags: PROJECT as i8,
        fields: BLOCKS_SOFT_AND_HARD,
        id: project,
        blocks_hard: blocks,
        blocks_soft: blocks,
        ..Quota::default()
    };
    quotactl(on, SET, project, &mut quota)
}

/// Makes a directory, and all that will be made in it, belong to a project.
pub fn assign(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    const GET: libc::c_ulong = 0x801c_581f;
    const SET: libc::c_ulong = 0x401c_5820;
    const INHERIT: u32 = 0x200;
    let mut attributes = Attributes::default();
    // SAFETY: the kernel fills a `struct fsxattr`, which `attributes` is.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), GET as _, &raw mut attributes) }.into())?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: the kernel reads a `struct fsxattr`, which `attributes` is.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), SET as _, &raw const attributes) }.into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_structures_have_the_kernel_s_sizes() {
        assert_eq!(size_of::<super::Attributes>(), 28);
        assert_eq!(size_of::<super::Quota>(), 112);
    }
}
