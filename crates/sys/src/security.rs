//! What a process may do: capabilities, filters, keyrings.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use crate::check;

fn prctl(option: libc::c_int, a: u64, b: u64) -> io::Result<libc::c_long> {
    // SAFETY: the options used in this file take integers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, a, b, 0, 0) })
}

/// Whether the bounding set has a capability; an error for numbers that the kernel does not know.
pub fn bounding_has(capability: u8) -> io::Result<bool> {
    Ok(prctl(libc::PR_CAPBSET_READ, capability.into(), 0)? == 1)
}

/// Takes a capability out of the bounding set.
pub fn bounding_drop(capability: u8) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0)?;
    Ok(())
}

/// Empties the ambient set.
pub fn ambient_clear() -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    Ok(())
}

/// Puts a capability into the ambient set.
pub fn ambient_raise(capability: u8) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability.into())?;
    Ok(())
}

/// Keeps the permitted capabilities over a change of user.
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0)?;
    Ok(())
}

/// Programs executed from here on gain nothing by being set-user-ID or having file capabilities.
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    Ok(())
}

/// Whether others may look into this process (`ptrace(2)`, `/proc/PID`).
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0)?;
    Ok(())
}

/// The capability sets of a thread, a bit for each capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

const VERSION: u32 = 0x2008_0522;

/// Reads this thread's sets.
pub fn capabilities() -> io::Result<Capabilities> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [[0u32; 3]; 2];
    // SAFETY: version 3 fills two triples of effective, permitted and inheritable, which `data` has room for.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut data) })?;
    let join = |index: usize| u64::from(data[0][index]) | u64::from(data[1][index]) << 32;
    Ok(Capabilities { effective: join(0), permitted: join(1), inheritable: join(2) })
}

/// Sets this thread's sets.
pub fn set_capabilities(sets: &Capabilities) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let half =
        |shift: u32| [sets.effective, sets.permitted, sets.inheritable].map(|set| (set >> shift) as u32);
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two triples, which `data` is.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, &raw const data) })?;
    Ok(())
}

/// Loads a filter of system calls: an array of `struct sock_filter`, as bytes in the machine's order. `flags` are
/// those of `seccomp(2)`; with `SECCOMP_FILTER_FLAG_NEW_LISTENER` (8) it returns the listener.
pub fn load_filter(filter: &[u8], flags: u64) -> io::Result<Option<OwnedFd>> {
    const NEW_LISTENER: u64 = 8;
    let size = size_of::<libc::sock_filter>();
    let count = filter.len() / size;
    if !filter.len().is_multiple_of(size) || count == 0 || count > 4096 {
        return Err(rustix::io::Errno::INVAL.into());
    }
    // The bytes may lie anywhere; the kernel copies them with `copy_from_user`, which needs no alignment.
    let program = libc::sock_fprog { len: count as u16, filter: filter.as_ptr() as *mut libc::sock_filter };
    // SAFETY: `program` points to `count` entries that are only read.
    let result = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with that flag the result is a fresh descriptor.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result as i32) }))
}

/// Joins a new session keyring of that name, and lets its owner find it.
pub fn join_keyring(name: &CStr) -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    const SETPERM: libc::c_int = 5;
    // Everything for who possesses it; view, read and search for its owner.
    const PERMISSIONS: u32 = 0x3f0b_0000;
    // SAFETY: `name` is a C string that is only read.
    let ring = check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, ring, PERMISSIONS) })?;
    Ok(())
}

/// Sets the supplementary groups of this thread.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is valid for the stated number of IDs, which are only read.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// Sets real, effective and saved group, then user, of this thread.
pub fn set_user_and_group(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// Copies a program into a sealed file in memory: nobody can write to it any more, whoever gets hold of it.
pub fn sealed_copy(program: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels that know it may refuse to execute a file made without it.
    let copy = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    let size = rustix::fs::fstat(program)?.st_size as u64;
    let mut offset = 0;
    while offset < size {
        let rest = (size - offset) as usize;
        let sent = rustix::fs::sendfile(&copy, program, Some(&mut offset), rest)?;
        if sent == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}

/// Acts on files as another user, with all the rights that the process has, until it is dropped.
#[derive(Debug)]
pub struct FileUser(());

impl FileUser {
    /// For a process of root's.
    pub fn become_user(uid: u32, gid: u32) -> io::Result<FileUser> {
        let before = capabilities()?;
        // SAFETY: only integers are passed. The calls tell the former user and never fail as such.
        unsafe {
            libc::setfsgid(gid);
            libc::setfsuid(uid);
        }
        let user = FileUser(());
        // A user that is not root loses the capabilities over files.
        set_capabilities(&before)?;
        Ok(user)
    }
}

impl Drop for FileUser {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            libc::setfsuid(0);
            libc::setfsgid(0);
        }
    }
}
