//! Blobs on their way in: written under a temporary name, hashed on the way, named when they are complete.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering;

use oci::{Algorithm, Digest, Hasher};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::{Blob, Error, Store, blob_name};

/// A name in the ingest directory; the file goes away with it.
#[derive(Debug)]
struct Temporary<'a> {
    store: &'a Store,
    name: String,
}

impl Temporary<'_> {
    fn error(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Io { operation, path: self.store.root.join("ingest").join(&self.name), source }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // Gone already if it was committed; what cannot be removed now is swept at the next open.
        let _ = rustix::fs::unlinkat(&self.store.ingest, &self.name, AtFlags::empty());
    }
}

/// Takes the bytes of one blob. Dropped without [`Writer::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Writer<'a> {
    file: File,
    hasher: Hasher,
    size: u64,
    temporary: Temporary<'a>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(store: &'a Store, algorithm: Algorithm) -> Result<Writer<'a>, Error> {
        let name = store.ingest_next.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            rustix::fs::openat(&store.ingest, &name, flags, Mode::from_raw_mode(0o644)).map_err(|errno| {
                Error::Io {
                    operation: "create",
                    path: store.root.join("ingest").join(&name),
                    source: errno.into(),
                }
            })?;
        let temporary = Temporary { store, name };
        Ok(Writer { file: file.into(), hasher: Hasher::new(algorithm), size: 0, temporary })
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The content is complete. It is not in the store yet, so that the caller may still look at it and let it go.
    pub fn finish(self) -> Result<Ingested<'a>, Error> {
        let blob = Blob { digest: self.hasher.finish(), size: self.size };
        Ok(Ingested { blob, temporary: self.temporary })
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        let before = self.size;
        self.size += written as u64;
        let steps = sys::completed_steps(before..self.size);
        if !steps.is_empty() {
            sys::begin_writeback(&self.file, steps);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Complete content with its digest, not yet part of the store; dropped, it leaves nothing. It holds no descriptor: an
/// archive may bring thousands.
#[derive(Debug)]
pub struct Ingested<'a> {
    blob: Blob,
    temporary: Temporary<'a>,
}

impl Ingested<'_> {
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// A new handle on the content, at its start.
    pub fn open(&self) -> Result<File, Error> {
        rustix::fs::openat(
            &self.temporary.store.ingest,
            &self.temporary.name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map(File::from)
        .map_err(|errno| self.temporary.error("open", errno.into()))
    }

    /// Refuses content that is not what was announced.
    pub fn verify(&self, expected: &Digest, size: Option<u64>) -> Result<(), Error> {
        if self.blob.digest != *expected {
            return Err(Error::Digest { expected: expected.clone(), found: self.blob.digest.clone() });
        }
        match size {
            Some(size) if size != self.blob.size => {
                Err(Error::Size { digest: expected.clone(), expected: size, found: self.blob.size })
            }
            _ => Ok(()),
        }
    }

    /// Puts the content into the store. Content that is there already stays as it is.
    pub fn commit(self) -> Result<Blob, Error> {
        let store = self.temporary.store;
        if store.contains(&self.blob.digest) {
            return Ok(self.blob);
        }
        match rustix::fs::fdatasync(&self.open()?) {
            // Some file systems have nothing to sync.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(self.temporary.error("sync", errno.into())),
        }
        rustix::fs::renameat(
            &store.ingest,
            &self.temporary.name,
            &store.directory,
            blob_name(&self.blob.digest),
        )
        .map_err(|errno| self.temporary.error("rename", errno.into()))?;
        Ok(self.blob)
    }
}
