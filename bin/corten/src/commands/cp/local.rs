//! This side: what is here, packing it, and unpacking what comes.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use api_client::Body;
use archive::handover::{Inlet, Outlet};
use archive::{Limits, Ownership, PackOptions, Packer, Root, UnpackOptions};
use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};
use tokio::sync::mpsc;

use super::{End, clean, followed_name, keep_end, last_name, split};
use crate::fail::Fail;
use crate::opts::kv::describe;

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;
/// Pieces of an archive that wait to be sent.
const AHEAD: usize = 8;
/// Links that are followed before they count as a loop.
const LINKS_MAX: usize = 10;

fn failed(doing: &str, path: &str, error: &std::io::Error) -> Fail {
    Fail::text(format!("{doing} {path}: {}", describe(error)))
}

/// A path here from the root, its end kept.
pub fn absolute(path: &str) -> Result<String, Fail> {
    if path.starts_with('/') {
        return Ok(keep_end(clean(path), path));
    }
    let here = std::env::current_dir()?;
    let here = here.to_str().ok_or_else(|| Fail::text("the working directory's name is not UTF-8"))?;
    Ok(keep_end(clean(&format!("{here}/{path}")), path))
}

/// Refuses a destination that a copy cannot be made to, before anything is asked for.
pub fn check_output(path: &str) -> Result<(), Fail> {
    let folder = split(&clean(path)).0;
    if std::fs::metadata(&folder).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(Fail::text(format!(
            "invalid output path: directory {} does not exist",
            template::quote(&folder)
        )));
    }
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_char_device() || found.file_type().is_block_device() => {
            Err(Fail::text(format!(
                "invalid output path: {} must be a directory or a regular file: got a device",
                template::quote(path)
            )))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("stat", path, &error)),
        _ => Ok(()),
    }
}

/// What is at the place to copy to, links followed. The directory that it is in must be there.
pub fn destination(path: &str) -> Result<End, Fail> {
    let mut path = path.to_owned();
    for _ in 0..=LINKS_MAX {
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                let target = std::fs::read_link(&path).map_err(|error| failed("readlink", &path, &error))?;
                let target = target.to_string_lossy();
                path = super::remote::join_link(&path, &target);
            }
            Ok(found) => return Ok(End { path, is_directory: Some(found.is_dir()) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let parent = split(&path).0;
                let found = std::fs::metadata(&parent).map_err(|error| failed("stat", &parent, &error))?;
                if !found.is_dir() {
                    return Err(Fail::text("not a directory"));
                }
                return Ok(End { path, is_directory: None });
            }
            Err(error) => return Err(failed("lstat", &path, &error)),
        }
    }
    Err(Fail::text(format!("too many symlinks in {path}")))
}

/// What is to be copied from here.
pub struct Local {
    path: String,
    handle: OwnedFd,
    pub is_directory: bool,
    /// The name that it has in the archive if the destination gives it no other.
    pub name: String,
}

impl Local {
    pub fn open(path: &str, follow_link: bool) -> Result<Self, Fail> {
        let asks = super::asks_for_directory(path);
        let mut name = last_name(path).to_owned();
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if follow_link {
            let target = std::fs::canonicalize(path).map_err(|error| failed("lstat", path, &error))?;
            let (_, own_name) = followed_name(path, &target.to_string_lossy());
            name = own_name.unwrap_or_else(|| last_name(path).to_owned());
        } else if !asks {
            flags |= OFlags::NOFOLLOW;
        }
        let handle = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| failed("lstat", path, &error.into()))?;
        let stat = rustix::fs::fstat(&handle).map_err(|error| failed("lstat", path, &error.into()))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if name == "/" {
            name = String::new();
        }
        Ok(Self { path: path.to_owned(), handle, is_directory, name })
    }

    /// Bytes of content, for the last line of what is printed.
    pub fn size(&self) -> Option<u64> {
        fn below(path: &Path) -> u64 {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let size = |entry: std::fs::DirEntry| match entry.metadata() {
                Ok(found) if found.is_dir() => below(&entry.path()),
                Ok(found) if found.is_file() => found.len(),
                _ => 0,
            };
            entries.map(size).sum()
        }
        let found = std::fs::metadata(&self.path).ok()?;
        Some(if found.is_dir() { below(Path::new(&self.path)) } else { found.len() })
    }

    /// Packs it under a name for a daemon of this machine. Blocks.
    pub fn hand_over(self, name: &str, outlet: Outlet) -> Result<Outlet, archive::Error> {
        let mut packer = Packer::handing(outlet, PackOptions::default());
        packer.add_handle(&self.handle, name.as_bytes()).and_then(|()| packer.finish())
    }

    /// Starts to pack it under a name, on a thread of its own.
    pub fn pack(self, name: String) -> (Body, Packing) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let packing = Packing::default();
        let told = packing.clone();
        let _ = std::thread::Builder::new().name("packing".to_owned()).spawn(move || {
            let mut packer = Packer::new(Pieces { sender, gathered: Vec::new() }, PackOptions::default());
            let packed = packer.add_handle(&self.handle, name.as_bytes()).and_then(|()| packer.finish());
            match packed {
                Ok(mut pieces) => drop(pieces.flush()),
                // Whoever reads has gone, and will say why.
                Err(archive::Error::Write(_)) => {}
                Err(error) => told.fail(&error),
            }
        });
        (Body::Stream(receiver), packing)
    }
}

/// How packing went.
#[derive(Debug, Clone, Default)]
pub struct Packing(Arc<Mutex<Option<String>>>);

impl Packing {
    fn fail(&self, error: &archive::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }

    pub fn failure(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The writing end of a body. One that is dropped before its archive is whole has said so to the other side: the end of
/// an archive is written, not implied.
struct Pieces {
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(PIECE);
        }
        let count = bytes.len().min(PIECE - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        if self.gathered.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        self.sender.blocking_send(Ok(piece)).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

/// What is to be done with an archive that comes.
pub struct Unpack {
    pub directory: String,
    /// The top name of the archive, and the one that it is to have here.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
    pub keep_owners: bool,
}

impl Unpack {
    pub fn run(self, stream: impl Read, inlet: Option<&Inlet>) -> Result<(), Fail> {
        let directory = Path::new(OsStr::from_bytes(self.directory.as_bytes()));
        let root = Root::open_path(directory).map_err(|error| failed("open", &self.directory, &error))?;
        let keep = self.keep_owners && rustix::process::geteuid().is_root();
        let options = UnpackOptions {
            ownership: if keep { Ownership::Keep } else { Ownership::Own },
            limits: Limits { bytes: u64::MAX, entries: u64::MAX },
            keep_kinds: true,
            keep_destination: true,
            rename: self.rename.as_ref().map(|(old, new)| (old.as_slice(), new.as_slice())),
            inlet,
            ..UnpackOptions::default()
        };
        archive::unpack(stream, &root, &options).map(drop).map_err(|error| match error {
            archive::Error::Truncated => Fail::text("unexpected EOF"),
            error => Fail::text(error.to_string()),
        })
    }
}
