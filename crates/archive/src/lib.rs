//! Tar in and out of a root, by descriptor only.
//!
//! - [`Reader`] and [`Writer`] speak the format: ustar, GNU long names, GNU and PAX sparse files, PAX records.
//! - [`unpack`] puts an archive below a [`Root`]; nothing in it can reach outside, whatever names and links it carries.
//! - [`pack`] makes an archive of a tree, the same bytes for the same tree; over an overlayfs upper directory it writes
//!   whiteouts in the form that image layers have.
//! - [`handover`] takes an archive to another program of the machine, with files as descriptors.
//! - [`Decoder`] finds out how a stream is compressed and undoes it.
//!
//! Nothing is known here of images, digests or snapshots.

mod compress;
mod copy;
mod entry;
mod gzip;
pub mod handover;
mod header;
mod implied;
mod pack;
mod reader;
mod unpack;
mod whiteout;
mod writer;

use std::io;

pub use compress::{Compression, Decoder};
pub use copy::{CopyOptions, copy};
pub use entry::{Entry, Kind, Time, Xattrs};
pub use gzip::gzip;
pub use implied::Implied;
pub use pack::{Changed, PackOptions, Packer, pack, pack_changes};
pub use reader::Reader;
pub use sys::{Place, Root};
pub use unpack::{Limits, Ownership, UnpackOptions, Unpacked, Whiteouts, clean, unpack, unpack_buffered};
pub use writer::Writer;

/// Refused archives and failed operations; each names the entry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unexpected end of the archive")]
    Truncated,
    #[error("invalid tar header at byte {at}: {what}")]
    Header { at: u64, what: &'static str },
    #[error("entry {path:?}: {what}")]
    Entry { path: String, what: &'static str },
    #[error("entry {0:?} leads outside of the root")]
    Climbs(String),
    #[error("entry {path:?}: {what} is not supported")]
    Unsupported { path: String, what: String },
    #[error("the archive has more than {max} {what}")]
    Limit { what: &'static str, max: u64 },
    #[error("{0} compression is not supported yet")]
    Compression(&'static str),
    #[error("cannot read the archive: {0}")]
    Read(#[source] io::Error),
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
    #[error("cannot {operation} {path:?}: {source}")]
    Io { operation: &'static str, path: String, source: io::Error },
}

impl Error {
    /// Whether the archive is to blame, and not the machine or the stream that it came through.
    pub fn is_invalid_archive(&self) -> bool {
        match self {
            Error::Truncated
            | Error::Header { .. }
            | Error::Entry { .. }
            | Error::Climbs(_)
            | Error::Unsupported { .. }
            | Error::Limit { .. }
            | Error::Compression(_) => true,
            // Decompressors report broken input as an I/O error.
            Error::Read(error) => {
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
            }
            Error::Write(_) | Error::Io { .. } => false,
        }
    }
}

/// Bytes of a name for a message.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
