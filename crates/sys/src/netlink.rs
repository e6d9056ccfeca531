//! Options of netlink sockets that have no typed call elsewhere (netlink(7), `SOL_NETLINK`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `NETLINK_GET_STRICT_CHK` of `linux/netlink.h`; not in libc for every target.
const NETLINK_GET_STRICT_CHK: libc::c_int = 12;

/// Ask the kernel to explain refusals in words (`NETLINK_EXT_ACK`, Linux 4.12).
pub fn explain_errors(socket: BorrowedFd<'_>) -> io::Result<()> {
    enable(socket, libc::NETLINK_EXT_ACK)
}

/// Ask the kernel not to send the refused message back with its error (`NETLINK_CAP_ACK`, Linux 4.3).
pub fn keep_errors_short(socket: BorrowedFd<'_>) -> io::Result<()> {
    enable(socket, libc::NETLINK_CAP_ACK)
}

/// Ask the kernel to honour the filters in dump requests and to refuse malformed ones (Linux 4.20).
pub fn check_dumps_strictly(socket: BorrowedFd<'_>) -> io::Result<()> {
    enable(socket, NETLINK_GET_STRICT_CHK)
}

fn enable(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` lives across the call and the length given is its size; the kernel only reads it.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
