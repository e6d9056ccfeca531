//! The log file: a header, then frames, then zeros.
//!
//! A frame is a little-endian `u32` length, a CRC-32 of what follows, and the changes: each an operation byte,
//! then table, key and (for puts) value, each with a `u32` length before it. The file is extended by zeroed
//! blocks, so that a sync after an append has no size or extent to write.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fdatasync, flock, fsync};
use rustix::io::Errno;

use crate::{Change, Error};

const MAGIC: &[u8; 8] = b"cortenRL";
const FORMAT: u32 = 1;
const HEADER: u64 = 16;
/// The file grows by this many bytes.
const EXTENT: u64 = 1 << 20;
/// Smaller logs are never compacted.
const COMPACT_MIN: u64 = 4 << 20;
/// Larger frames are taken for damage.
const FRAME_MAX: usize = 256 << 20;

const PUT: u8 = 1;
const DELETE: u8 = 2;

#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// Held for as long as the store is open, also across compactions, which replace `file`.
    _lock: File,
    /// Where the next frame goes.
    end: u64,
    /// Bytes of the file that exist, zeroed beyond `end`.
    allocated: u64,
    /// Bytes of frames right after the last compaction.
    compacted: u64,
    broken: bool,
}

pub fn encode_frame(changes: &[Change], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    for (table, key, value) in changes {
        encode_change(table, key, value.as_deref(), out);
    }
    seal_frame(start, out);
}

fn encode_change(table: &str, key: &str, value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(if value.is_some() { PUT } else { DELETE });
    for part in [Some(table.as_bytes()), Some(key.as_bytes()), value].into_iter().flatten() {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
}

fn seal_frame(start: usize, out: &mut [u8]) {
    let length = (out.len() - start - 8) as u32;
    let sum = crc32fast::hash(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}

fn decode_frame(bytes: &[u8]) -> Option<(Vec<Change>, usize)> {
    let length = u32::from_le_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    if length == 0 || length > FRAME_MAX {
        return None;
    }
    let body = bytes.get(8..8 + length)?;
    if crc32fast::hash(body) != sum {
        return None;
    }
    let mut rest = body;
    let mut changes = Vec::new();
    while let Some((&operation, tail)) = rest.split_first() {
        rest = tail;
        let table = String::from_utf8(take(&mut rest)?.to_vec()).ok()?;
        let key = String::from_utf8(take(&mut rest)?.to_vec()).ok()?;
        let value = match operation {
            PUT => Some(take(&mut rest)?.to_vec()),
            DELETE => None,
            _ => return None,
        };
        changes.push((table, key, value));
    }
    Some((changes, 8 + length))
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(rest.get(0..4)?.try_into().ok()?) as usize;
    let part = rest.get(4..4 + length)?;
    *rest = &rest[4 + length..];
    Some(part)
}

/// How long a lock may outlive its daemon: a program that was being started when it was killed has it until its `exec`.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

fn hold(lock: &File) -> Result<(), Errno> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

impl Log {
    /// Replays the log into `replay`. What follows the last whole frame is cut off; if it is more than a torn
    /// tail of zeros, a copy is kept beside the log.
    pub fn open(directory: &Path, mut replay: impl FnMut(Vec<Change>)) -> Result<Log, Error> {
        std::fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        let lock_path = directory.join("lock");
        let lock = open_file(&lock_path)?;
        hold(&lock).map_err(|_| Error::Locked { path: lock_path.clone() })?;
        let path = directory.join("records.log");
        let _ = std::fs::remove_file(directory.join("records.new"));
        if !path.exists() {
            write_fresh(&path, std::iter::empty())?;
        }
        let file = open_file(&path)?;
        let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
        check_header(&path, &bytes)?;
        let mut end = HEADER as usize;
        while let Some((changes, length)) = decode_frame(&bytes[end..]) {
            replay(changes);
            end += length;
        }
        let mut log = Log {
            path,
            file,
            _lock: lock,
            end: end as u64,
            allocated: bytes.len() as u64,
            compacted: end as u64,
            broken: false,
        };
        if bytes[end..].iter().any(|byte| *byte != 0) {
            log.cut_tail(&bytes[end..])?;
        }
        Ok(log)
    }

    fn cut_tail(&mut self, tail: &[u8]) -> Result<(), Error> {
        let copy = self.path.with_extension("torn");
        std::fs::write(&copy, tail).map_err(io_error("write", &copy))?;
        self.file.set_len(self.end).map_err(io_error("truncate", &self.path))?;
        self.allocated = self.end;
        fsync(&self.file).map_err(|error| io_error("sync", &self.path)(error.into()))
    }

    /// Appends whole frames and syncs. On failure nothing of them will be replayed, or [`Log::broken`] is set.
    pub fn append(&mut self, frames: &[u8]) -> Result<(), Error> {
        if self.broken {
            return Err(io_error("append to", &self.path)(io::Error::other("an earlier sync failed")));
        }
        if let Err(error) = self.write(frames) {
            // Take the half-written frames back, so that a later append does not follow a torn one.
            let undone = self.file.set_len(self.end).and_then(|()| Ok(fdatasync(&self.file)?));
            self.allocated = self.end;
            self.broken = undone.is_err();
            return Err(io_error("append to", &self.path)(error));
        }
        // After a failed sync the page cache may claim to be clean while the disk has nothing: never go on.
        if let Err(error) = fdatasync(&self.file) {
            self.broken = true;
            return Err(io_error("sync", &self.path)(error.into()));
        }
        self.end += frames.len() as u64;
        Ok(())
    }

    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        let wanted = self.end + frames.len() as u64;
        if wanted > self.allocated {
            let grown = wanted.next_multiple_of(EXTENT);
            let zeros = vec![0; (grown - self.allocated) as usize];
            self.file.write_all_at(&zeros, self.allocated)?;
            self.allocated = grown;
        }
        self.file.write_all_at(frames, self.end)
    }

    pub fn broken(&self) -> bool {
        self.broken
    }

    pub fn wants_compaction(&self) -> bool {
        self.end > COMPACT_MIN && self.end > 4 * self.compacted
    }

    /// Replaces the log by one that holds just `records`.
    pub fn compact<'a>(
        &mut self,
        records: impl Iterator<Item = (&'a str, &'a str, &'a [u8])>,
    ) -> Result<(), Error> {
        let fresh = self.path.with_extension("new");
        let end = write_fresh(&fresh, records)?;
        let file = open_file(&fresh)?;
        std::fs::rename(&fresh, &self.path).map_err(io_error("replace", &self.path))?;
        sync_directory(&self.path)?;
        self.file = file;
        self.end = end;
        self.allocated = end;
        self.compacted = end;
        Ok(())
    }
}

fn check_header(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let header = bytes.get(..HEADER as usize).filter(|header| header.starts_with(MAGIC));
    let header = header.ok_or_else(|| Error::Foreign { path: path.into() })?;
    let found = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if found > FORMAT {
        return Err(Error::Newer { path: path.into(), found, known: FORMAT });
    }
    Ok(())
}

/// Writes a new, synced log file and returns its length.
fn write_fresh<'a>(
    path: &Path,
    records: impl Iterator<Item = (&'a str, &'a str, &'a [u8])>,
) -> Result<u64, Error> {
    let partial = path.with_extension("partial");
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for (table, key, value) in records {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 8]);
        encode_change(table, key, Some(value), &mut bytes);
        seal_frame(start, &mut bytes);
    }
    let mut file = File::create(&partial).map_err(io_error("create", &partial))?;
    file.write_all(&bytes).map_err(io_error("write", &partial))?;
    file.sync_all().map_err(io_error("sync", &partial))?;
    std::fs::rename(&partial, path).map_err(io_error("create", path))?;
    sync_directory(path)?;
    Ok(bytes.len() as u64)
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    let directory = path.parent().expect("the log lies in a directory");
    File::open(directory).and_then(|handle| handle.sync_all()).map_err(io_error("sync", directory))
}

fn open_file(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io_error("open", path))
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { operation, path, source }
}
