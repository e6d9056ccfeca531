//! Signals as a descriptor, for programs that wait in one place only.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;
use crate::process::Ended;

/// Blocks the signals and makes a descriptor that is readable when one of them came. Processes made by
/// [`crate::process::clone`] have them blocked too, until [`crate::process::reset_signals`].
pub fn watch(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is plain data, initialized by `sigemptyset`, and valid for each call. The descriptor is
    // fresh and nobody else's.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            check(libc::sigaddset(&mut set, signal).into())?;
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()).into())?;
        let descriptor = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?;
        Ok(OwnedFd::from_raw_fd(descriptor as i32))
    }
}

/// Takes what came, without looking at it: signals of a kind are merged anyway.
pub fn clear(descriptor: BorrowedFd<'_>) {
    let mut buffer = [0u8; 8 * size_of::<libc::signalfd_siginfo>()];
    // SAFETY: `buffer` is valid for its length.
    while unsafe { libc::read(descriptor.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
}

/// Takes the signals that came, by number.
pub fn take(descriptor: BorrowedFd<'_>) -> Vec<i32> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let (mut buffer, mut taken) = ([0u8; 8 * SIZE], Vec::new());
    loop {
        // SAFETY: `buffer` is valid for its length.
        let count = unsafe { libc::read(descriptor.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else { return taken };
        // The number is the first member.
        let numbers = buffer[..count].chunks_exact(SIZE).filter_map(|info| info.first_chunk::<4>());
        taken.extend(numbers.map(|number| u32::from_ne_bytes(*number) as i32));
    }
}

/// Takes the status of a child that has ended, whichever; none if there is none at the moment.
pub fn reap() -> io::Result<Option<(i32, Ended)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for the call.
        match check(unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::WNOHANG) }.into()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(error) => return Err(error),
            Ok(0) => return Ok(None),
            Ok(pid) if libc::WIFSIGNALED(status) => {
                return Ok(Some((pid as i32, Ended::Signal(libc::WTERMSIG(status)))));
            }
            Ok(pid) => return Ok(Some((pid as i32, Ended::Code(libc::WEXITSTATUS(status))))),
        }
    }
}
