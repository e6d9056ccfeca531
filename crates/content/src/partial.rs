//! Blobs that come in pieces, in any order. What has come outlives the process, so that nobody has to fetch it twice.
//!
//! Nothing is written down about which pieces are there: what was never written is a hole in the file. The last block
//! before a hole may be half written, and the first one behind it, so these do not count. Nothing here is trusted in any case: whoever takes a
//! partial blob for whole has hashed it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use oci::Digest;
use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::{Blob, Error, Store, blob_name};

/// Blocks of file systems are not larger than this, in bytes.
const BLOCK_MAX: u64 = 64 << 10;
/// How long a blob that nobody goes on with is kept.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
const DIRECTORY: &str = "partial";

/// A blob of which not all bytes need to be there. Dropped, it stays as it is.
#[derive(Debug)]
pub struct Partial {
    store: Arc<Store>,
    digest: Digest,
    size: u64,
    file: File,
    /// Nothing was written since the last sync.
    synced: AtomicBool,
}

impl Store {
    /// Opens what has come of a blob, or begins it. Only one user at a time may have it open.
    pub fn partial(self: &Arc<Store>, digest: &Digest, size: u64) -> Result<Partial, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.directory, name(digest), flags, Mode::from_raw_mode(0o644))
            .map_err(|errno| self.partial_error("open", digest, errno.into()))?;
        let partial = Partial {
            store: Arc::clone(self),
            digest: digest.clone(),
            size,
            file: file.into(),
            synced: AtomicBool::new(false),
        };
        let length = partial.file.metadata().map_err(|source| partial.error("stat", source))?.len();
        if length > size {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn partial_error(&self, operation: &'static str, digest: &Digest, source: io::Error) -> Error {
        Error::Io { operation, path: self.root.join(name(digest)), source }
    }

    /// What nobody went on with for a week, and what the store has whole: names and bytes on disk.
    pub fn stale_partials(&self) -> Result<Vec<(String, u64)>, Error> {
        let path = self.root.join(DIRECTORY);
        let io = |source| Error::Io { operation: "list", path: path.clone(), source };
        let mut stale = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(io)? {
            let entry = entry.map_err(io)?;
            // Whoever has just made it whole takes it away.
            let Ok(found) = entry.metadata() else { continue };
            let old = found
                .modified()
                .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > KEEP));
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = name.replacen('-', ":", 1).parse::<Digest>().ok();
            if old || known.is_none_or(|digest| self.contains(&digest)) {
                stale.push((name, found.blocks() * 512));
            }
        }
        Ok(stale)
    }

    /// Removes a partial blob by the name that [`Store::stale_partials`] gave.
    pub fn remove_partial(&self, name: &str) -> Result<(), Error> {
        let path = self.root.join(DIRECTORY).join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { operation: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn sweep_partial(&self) -> Result<(), Error> {
        self.stale_partials()?.iter().try_for_each(|(name, _)| self.remove_partial(name))
    }
}

impl Partial {
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes that the whole blob has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The parts that are there, in order.
    pub fn present(&self) -> Result<Vec<Range<u64>>, Error> {
        let mut found = Vec::new();
        let mut at = 0;
        let length = self.file.metadata().map_err(|source| self.error("stat", source))?.len();
        while at < self.size {
            let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(self.error("seek in", errno.into())),
            };
            let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(start))
                .map_err(|errno| self.error("seek in", errno.into()))?;
            at = hole;
            // The end of the file stands where the last write ended; other holes begin at the next block.
            let sure = if hole >= length { hole } else { hole.saturating_sub(BLOCK_MAX) };
            let end = sure.min(self.size);
            // The first block behind a hole may have been written from its middle on.
            let start = if start == 0 { 0 } else { start + BLOCK_MAX };
            if start < end {
                found.push(start..end);
            }
        }
        Ok(found)
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the blob"));
        }
        self.synced.store(false, Ordering::Relaxed);
        self.file.write_all_at(bytes, offset)?;
        let steps = sys::completed_steps(offset..offset + bytes.len() as u64);
        if !steps.is_empty() {
            sys::begin_writeback(&self.file, steps);
        }
        Ok(())
    }

    /// Reads what is there; the caller knows that it is.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Forgets what has come.
    pub fn restart(&self) -> Result<(), Error> {
        self.synced.store(false, Ordering::Relaxed);
        self.file.set_len(0).map_err(|source| self.error("empty", source))
    }

    /// Brings what has come to the disk. Called while the blob is still looked at, it spares [`Partial::commit`] the
    /// waiting.
    pub fn sync(&self) -> Result<(), Error> {
        match rustix::fs::fdatasync(&self.file) {
            // Some file systems have nothing to sync.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(self.error("sync", errno.into())),
        }
        self.synced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the blob its name. The caller has hashed all of it.
    pub fn commit(self) -> Result<Blob, Error> {
        let blob = Blob { digest: self.digest.clone(), size: self.size };
        if self.store.contains(&self.digest) {
            self.discard()?;
            return Ok(blob);
        }
        if !self.synced.load(Ordering::Relaxed) {
            self.sync()?;
        }
        let directory = &self.store.directory;
        rustix::fs::renameat(directory, name(&self.digest), directory, blob_name(&self.digest))
            .map_err(|errno| self.error("rename", errno.into()))?;
        Ok(blob)
    }

    /// Removes what has come.
    pub fn discard(self) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.store.directory, name(&self.digest), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("remove", errno.into())),
        }
    }

    fn error(&self, operation: &'static str, source: io::Error) -> Error {
        self.store.partial_error(operation, &self.digest, source)
    }
}

fn name(digest: &Digest) -> String {
    format!("{DIRECTORY}/{}-{}", digest.algorithm().as_str(), digest.hex())
}
