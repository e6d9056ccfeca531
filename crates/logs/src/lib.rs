//! Container logs: the json-file and local drivers, reading, following, rotation.
//!
//! The files are Docker's, byte for byte, so that every program that reads Docker's logs reads these:
//! - `json-file`: one JSON object per line ([`json`]).
//! - `local`: protobuf messages between two copies of their length ([`local`]).
//!
//! Written by one [`Writer`] (in the shim), read by any number of [`Reader`]s (in the daemon) at the same time;
//! they meet only in the file system. Neither starts a thread or waits: a reader that follows has a descriptor
//! to poll.
//!
//! Rotation renames `LOG` to `LOG.1`, `LOG.1` to `LOG.2` and so on. A rotated file may be compressed in place
//! to `LOG.N.gz`; the writer says when ([`Writer::compression_wanted`]), somebody else does it ([`compress`]).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

mod files;
mod json;
mod local;
mod number;
mod reader;
mod record;
mod render;
mod source;
mod tail;
mod time;
pub mod wire;
mod writer;

pub use files::{Compression, compress};
pub use number::{Cursor, last_number};
pub use reader::{Progress, Query, Reader};
pub use record::{Part, Record, Stream};
pub use render::Render;
pub use time::{format_nanoseconds, parse_rfc3339};
pub use writer::Writer;

/// Longest run of bytes without a newline that makes one record; longer lines become several.
pub const LINE_MAX: usize = 16 * 1024;

/// Where and how a container's output is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub driver: Driver,
    /// The current file; rotated ones stand beside it.
    pub path: PathBuf,
    /// Rotate before the file grows beyond this many bytes; none: never.
    pub size_max: Option<u64>,
    /// Files kept, the current one included; at least 1.
    pub files_max: u32,
    /// Compress rotated files with gzip.
    pub compress: bool,
    /// Count the records (local only), so that a reader elsewhere can tell which of them it has seen, and which
    /// were lost to rotation.
    pub numbered: bool,
    /// Written with each line.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    JsonFile,
    Local,
}

impl Options {
    /// A json-file log without rotation.
    pub fn json_file(path: impl Into<PathBuf>) -> Options {
        let attributes = BTreeMap::new();
        Options {
            driver: Driver::JsonFile,
            path: path.into(),
            size_max: None,
            files_max: 1,
            compress: false,
            numbered: false,
            attributes,
        }
    }

    /// A local log as Docker sets it up: five files of 20 MB, the rotated ones compressed.
    pub fn local(path: impl Into<PathBuf>) -> Options {
        Options {
            driver: Driver::Local,
            size_max: Some(20_000_000),
            files_max: 5,
            compress: true,
            ..Options::json_file(path)
        }
    }
}

/// A log operation that failed, with the file it was about.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct Error {
    pub operation: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl Error {
    fn new(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error { operation, path: path.into(), source: source.into() }
    }
}
