//! Members of an archive that lies in a file, each read where it is, several at once. What looks like a layer is unpacked
//! in the same pass that copies and hashes it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use archive::Compression;
use content::{Ingested, Store};
use oci::Digest;
use oci::image::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};

use super::digest_of;
use crate::docker_archive::Item;
use crate::early::Early;
use crate::{Error, layers};

/// Members that are read at once. A layer has a thread more, so that two cores have work also while a disk is waited for.
const WORKERS: usize = 3;
/// Bytes that are read at once of what is not unpacked.
const PIECE_BYTES: usize = 64 << 10;

/// An archive in a regular file. It may change while it is read: what has been copied is hashed and unpacked, and nothing
/// else counts.
#[derive(Debug)]
pub struct ArchiveFile<'a> {
    pub file: File,
    pub is_wanted: IsWanted<'a>,
}

/// Whether somebody still waits for the archive.
pub struct IsWanted<'a>(pub &'a (dyn Fn() -> bool + Sync));

impl std::fmt::Debug for IsWanted<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("IsWanted").finish_non_exhaustive()
    }
}

impl ArchiveFile<'_> {
    /// How the archive is compressed.
    pub fn compression(&self) -> Result<Compression, Error> {
        let mut head = [0; 512];
        let count = self.file.read_at(&mut head, 0).map_err(archive::Error::Read)?;
        Ok(Compression::peek(&head[..count])?.0)
    }

    pub fn length(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(archive::Error::Read)?.len())
    }

    /// The file from its beginning, as a stream.
    pub fn stream(&self) -> Part<'_> {
        self.part(0..u64::MAX)
    }

    fn part(&self, range: Range<u64>) -> Part<'_> {
        Part { file: self, start: range.start, at: 0, length: range.end - range.start }
    }
}

/// A part of the file. Whoever shares the descriptor may move its position, so that is not used.
pub struct Part<'a> {
    file: &'a ArchiveFile<'a>,
    start: u64,
    at: u64,
    length: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.file.is_wanted.0)() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has gone"));
        }
        let room =
            buffer.len().min(usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX));
        let count = self.file.file.read_at(&mut buffer[..room], self.start.saturating_add(self.at))?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(step) => self.at.checked_add_signed(step),
            SeekFrom::End(step) => self.length.checked_add_signed(step),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Copies members into the store. `early` unpacks those that look like layers.
pub fn ingest<'a>(
    store: &'a Store,
    archive: &ArchiveFile<'_>,
    parts: HashMap<String, Range<u64>>,
    early: Option<&Early<'_>>,
) -> Result<Vec<(String, Ingested<'a>)>, Error> {
    let early = early.map(|early| Helper { early, is_known: is_known(archive, &parts, early) });
    let early = early.as_ref();
    let mut queue: VecDeque<_> = parts.into_iter().collect();
    // The largest first: the others fill what time is left beside it.
    queue.make_contiguous().sort_by_key(|(_, range)| std::cmp::Reverse(range.end - range.start));
    let workers = WORKERS.min(queue.len());
    let queue = Mutex::new(queue);
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut done = Vec::new();
        while let Some((path, range)) = take() {
            match ingest_one(store, archive, &path, range, early) {
                Ok(file) => done.push((path, file)),
                Err(error) => {
                    queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for other in others {
            let more = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all = all.and_then(|mut all| {
                all.append(&mut more?);
                Ok(all)
            });
        }
        all
    })
}

/// Who unpacks layers, and whether those that are in the archive are there already.
struct Helper<'a, 'b> {
    early: &'a Early<'b>,
    is_known: bool,
}

/// Whether each image that `manifest.json` names has been loaded before. What is wrong with it shows later.
fn is_known(archive: &ArchiveFile<'_>, parts: &HashMap<String, Range<u64>>, early: &Early<'_>) -> bool {
    let document = |path: &str, bytes_max: u64| {
        let range = parts.get(path).filter(|range| range.end - range.start <= bytes_max)?;
        let mut bytes = Vec::new();
        archive.part(range.clone()).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    let has_image = |item: &Item| {
        let config = document(&item.config, CONFIG_BYTES_MAX);
        config.is_some_and(|config| early.has_image(&Digest::of(&config)))
    };
    let manifest = document("manifest.json", MANIFEST_BYTES_MAX);
    let items = manifest.and_then(|bytes| oci::image::read::<Vec<Item>>(&bytes).ok());
    items.is_some_and(|items| items.iter().all(has_image))
}

fn ingest_one<'a>(
    store: &'a Store,
    archive: &ArchiveFile<'_>,
    path: &str,
    range: Range<u64>,
    helper: Option<&Helper<'_, '_>>,
) -> Result<Ingested<'a>, Error> {
    let mut copied = Copied {
        left: range.end - range.start,
        part: archive.part(range.clone()),
        writer: store.writer()?,
        broken: None,
    };
    // What has been loaded before is not unpacked again.
    let is_new = |helper: &Helper<'_, '_>| match digest_of(path) {
        Ok(Some(digest)) => !store.contains(&digest),
        _ => !helper.is_known,
    };
    let unpacked = match helper.filter(|helper| is_new(helper)) {
        Some(Helper { early, .. }) => {
            let mut head = [0; 512];
            let count = archive.part(range).read(&mut head).map_err(archive::Error::Read)?;
            early.unpack_if_layer(&head[..count], &mut copied)
        }
        None => None,
    };
    let mut rest = vec![0; PIECE_BYTES];
    while copied.read(&mut rest).is_ok_and(|count| count > 0) {}
    if let Some(error) = copied.broken {
        return Err(error);
    }
    let file = copied.writer.finish()?;
    match (helper.map(|helper| helper.early), unpacked) {
        (Some(early), Some(unpacked)) => {
            early.keep(&file.blob().digest, unpacked);
            // Whoever gives it its name sees to that in any case, one after the other; here, others go on meanwhile.
            let _ = rustix::fs::fdatasync(file.open()?);
        }
        (Some(early), None) => early.offer(&file)?,
        (None, _) => {}
    }
    Ok(file)
}

/// A member that gets into the store as it is read.
struct Copied<'a, 's> {
    part: Part<'a>,
    /// Bytes of it that are still to come.
    left: u64,
    writer: content::Writer<'s>,
    /// Why it went no further.
    broken: Option<Error>,
}

impl Copied<'_, '_> {
    fn piece(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let count = loop {
            match self.part.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(layers::unwrap)?,
            }
        };
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(archive::Error::Truncated.into());
        }
        self.writer
            .write_all(&buffer[..count])
            .map_err(|source| Error::Io { operation: "write the archive's copy", source })?;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Read for Copied<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.broken.is_none() {
            match self.piece(buffer) {
                Ok(count) => return Ok(count),
                Err(error) => self.broken = Some(error),
            }
        }
        Err(io::Error::other("the archive's copy is not whole"))
    }
}
