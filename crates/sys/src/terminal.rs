//! Pseudo-terminals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;

/// The two sides of a terminal.
#[derive(Debug)]
pub struct Terminal {
    /// Where the terminal is read, written and resized.
    pub controller: OwnedFd,
    /// The terminal itself.
    pub terminal: OwnedFd,
}

/// Opens a new terminal of a devpts mount, given by a descriptor of its root. No name is looked up for the
/// terminal side: the kernel hands out the peer itself.
pub fn open(devpts: impl AsFd) -> io::Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
    let controller = rustix::fs::openat2(devpts, Path::new("ptmx"), flags, Mode::empty(), resolve)?;
    rustix::pty::unlockpt(&controller)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&controller, peer)?;
    Ok(Terminal { controller, terminal })
}

/// Sets the size in character cells.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
