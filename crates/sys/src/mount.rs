//! The mount calls that `rustix` lacks.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;
use crate::process::bitflags_lite;

bitflags_lite! {
    /// The attributes of `mount_setattr(2)` and `fsmount(2)`.
    Attributes {
        READ_ONLY = 0x1,
        NO_SUID = 0x2,
        NO_DEVICES = 0x4,
        NO_EXEC = 0x8,
        /// The field of access-time rules; relative is 0.
        ACCESS_TIME = 0x70,
        NO_ACCESS_TIME = 0x10,
        STRICT_ACCESS_TIME = 0x20,
        NO_DIRECTORY_ACCESS_TIME = 0x80,
        MAPPED = 0x0010_0000,
        NO_SYMLINKS = 0x0020_0000,
    }
}

/// How mounts below a mount point spread to and from other namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Shared,
    Slave,
    Unbindable,
}

impl Propagation {
    /// The `MS_*` bit.
    pub const fn bits(self) -> u64 {
        match self {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A change to a mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    pub set: Attributes,
    pub clear: Attributes,
    pub propagation: Option<Propagation>,
    /// The user namespace whose mappings the mount takes on, with [`Attributes::MAPPED`].
    pub user_namespace: Option<BorrowedFd<'a>>,
}

/// Changes the mount at `mount` (a descriptor of it), with all mounts below if `recursive`.
pub fn change(mount: BorrowedFd<'_>, recursive: bool, change: &Change<'_>) -> io::Result<()> {
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let attributes = MountAttributes {
        set: change.set.bits(),
        clear: change.clear.bits(),
        propagation: change.propagation.map_or(0, Propagation::bits),
        user_namespace: change.user_namespace.map_or(0, |namespace| namespace.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attributes` is valid for the call, of the stated size and only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })?;
    Ok(())
}
