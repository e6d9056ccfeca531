//! The content of one file into another.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Most that one call is to copy: between two, whoever copies can be ended.
const PIECE_MAX: u64 = 1 << 30;

/// Copies the first `size` bytes of a regular file into an empty one: shared where the filesystem can, with its holes,
/// else by the kernel. A source that is shorter by now is filled up with a hole, a longer one is cut. The descriptors'
/// own places in the files do not count, and change.
pub fn copy_content(from: impl AsFd, to: impl AsFd, size: u64) -> io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    if size == 0 {
        return Ok(());
    }
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        // It may have grown or shrunk since its size was told.
        return Ok(rustix::fs::ftruncate(to, size)?);
    }
    rustix::fs::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return Ok(()),
            Err(Errno::INVAL) => at,
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        at = start;
        while at < end {
            let copied = piece(from, to, at, end - at)?;
            if copied == 0 {
                return Ok(());
            }
            at += copied;
        }
    }
    Ok(())
}

fn piece(from: impl AsFd, to: impl AsFd, at: u64, length: u64) -> io::Result<u64> {
    let length = usize::try_from(length.min(PIECE_MAX)).unwrap_or(PIECE_MAX as usize);
    let (mut read, mut written) = (at, at);
    match rustix::fs::copy_file_range(&from, Some(&mut read), &to, Some(&mut written), length) {
        Ok(0) => {}
        Ok(count) => return Ok(count as u64),
        Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno.into()),
    }
    rustix::fs::seek(&to, SeekFrom::Start(at))?;
    let mut offset = at;
    Ok(rustix::fs::sendfile(&to, &from, Some(&mut offset), length)? as u64)
}
