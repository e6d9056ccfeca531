//! A tree from one root into another, as an archive that never touches the disk.

use std::ffi::CStr;
use std::io::{BufWriter, pipe};
use std::os::fd::BorrowedFd;

use sys::Root;

use crate::pack::{PackOptions, Packer};
use crate::unpack::{UnpackOptions, Unpacked, unpack};
use crate::{Error, Limits};

/// How to copy.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// Owner of all that is made, as (uid, gid).
    pub owner: Option<(u32, u32)>,
    /// Permission bits of all that is made.
    pub mode: Option<u32>,
}

/// Copies `name` in the directory `source` (or, if `name` is `None`, what is in that directory) to `path` below
/// `destination`. Links are copied, not followed; links on the way to `path` lead around inside of `destination`.
pub fn copy(
    source: BorrowedFd<'_>,
    name: Option<&CStr>,
    destination: &Root,
    path: &[u8],
    options: &CopyOptions,
) -> Result<Unpacked, Error> {
    let pack_options =
        PackOptions { nanoseconds: true, owner: options.owner, mode: options.mode, ..PackOptions::default() };
    let (reader, writer) = pipe().map_err(Error::Write)?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || -> Result<(), Error> {
            let mut packer = Packer::new(BufWriter::with_capacity(64 << 10, writer), pack_options);
            match name {
                Some(name) => packer.add(source, name, path)?,
                None => {
                    let directory = rustix::fs::openat(
                        source,
                        c".",
                        rustix::fs::OFlags::RDONLY
                            | rustix::fs::OFlags::DIRECTORY
                            | rustix::fs::OFlags::CLOEXEC,
                        rustix::fs::Mode::empty(),
                    )
                    .map_err(|errno| Error::Read(errno.into()))?;
                    packer.add_children(&directory, path)?;
                }
            }
            packer.finish().map(drop)
        });
        let limits = Limits { bytes: u64::MAX, entries: u64::MAX };
        let unpacked = unpack(
            reader,
            destination,
            &UnpackOptions { limits, keep_kinds: true, ..UnpackOptions::default() },
        );
        // The reader is gone by now, so a packer that is still writing fails and ends.
        let packed = packing.join().unwrap_or(Err(Error::Truncated));
        match (unpacked, packed) {
            // A stream that ends too early has its cause on the other side.
            (Err(Error::Truncated), Err(cause)) => Err(cause),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(unpacked), Ok(())) => Ok(unpacked),
        }
    })
}
