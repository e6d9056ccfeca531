//! An archive's files on disk under temporary names, by the paths they had: an archive may tell in its last member what
//! its first one was.

use std::collections::HashMap;
use std::io::{self, Read};

use archive::{Decoder, Kind, Reader};
use content::{Blob, Ingested, Store};
use oci::Digest;

use crate::layers::layer_media_type;
use crate::pins::Pins;
use crate::register::LayerBlob;
use crate::{Error, Limits, layers};

/// Links that are followed from one member to the next.
const HOPS_MAX: usize = 8;

/// Members an archive of images may have: some hundred images with a hundred layers each, three members a layer.
const MEMBERS_MAX: u64 = 100_000;

#[derive(Debug)]
enum Spooled<'a> {
    Waiting(Ingested<'a>),
    Committed(Blob),
}

/// The files of an archive.
#[derive(Debug)]
pub struct Spool<'a> {
    store: &'a Store,
    files: HashMap<String, Spooled<'a>>,
    links: HashMap<String, String>,
}

impl<'a> Spool<'a> {
    /// Reads the whole stream, compressed or not. `on_file` sees each file when it is there.
    pub fn read(
        store: &'a Store,
        stream: impl Read,
        limits: Limits,
        on_file: &mut dyn FnMut(&Ingested<'a>) -> Result<(), Error>,
    ) -> Result<Spool<'a>, Error> {
        let mut reader = Reader::with_limit(Decoder::new(stream)?, limits.bytes);
        let mut spool = Spool { store, files: HashMap::new(), links: HashMap::new() };
        let mut members = 0;
        while let Some(entry) = reader.next_entry()? {
            members += 1;
            if members > MEMBERS_MAX {
                return Err(archive::Error::Limit { what: "entries", max: MEMBERS_MAX }.into());
            }
            let path = path_of(&entry.path)?;
            match &entry.kind {
                Kind::Directory => {}
                Kind::File if entry.sparse.is_some() => {
                    return Err(Error::InvalidArchive(format!("{path} is a sparse file")));
                }
                Kind::File => {
                    let mut writer = store.writer()?;
                    // Boxed once by `copy` itself; large, so that a layer does not go through in 8 KiB pieces.
                    let mut buffered = io::BufReader::with_capacity(256 << 10, &mut reader);
                    copy(&mut buffered, &mut writer)?;
                    spool.links.remove(&path);
                    let file = writer.finish()?;
                    on_file(&file)?;
                    spool.files.insert(path, Spooled::Waiting(file));
                }
                Kind::Symlink(target) => {
                    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                    let target = path_of(&[directory.as_bytes(), b"/", target].concat())?;
                    spool.files.remove(&path);
                    spool.links.insert(path, target);
                }
                Kind::HardLink(target) => {
                    spool.links.insert(path, path_of(target)?);
                }
                _ => return Err(Error::InvalidArchive(format!("{path} is neither a file nor a directory"))),
            }
        }
        reader.drain()?;
        Ok(spool)
    }

    pub fn contains(&self, path: &str) -> bool {
        self.find(path).is_ok()
    }

    /// A document whole.
    pub fn document(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let path = self.find(path)?;
        let file = match &self.files[&path] {
            Spooled::Waiting(ingested) => {
                check_name(&path, ingested.blob())?;
                ingested.open()?
            }
            Spooled::Committed(blob) => self.store.open_blob(&blob.digest)?,
        };
        let mut bytes = Vec::new();
        file.take(bytes_max + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Io { operation: "read the archive's copy", source })?;
        if bytes.len() as u64 > bytes_max {
            return Err(Error::InvalidArchive(format!("{path} is larger than {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    /// Puts a file into the content store.
    pub fn commit(&mut self, path: &str, pins: &mut Pins<'_>) -> Result<Blob, Error> {
        let path = self.find(path)?;
        let ingested = match self.files.remove(&path) {
            Some(Spooled::Waiting(ingested)) => ingested,
            Some(Spooled::Committed(blob)) => {
                self.files.insert(path, Spooled::Committed(blob.clone()));
                return Ok(blob);
            }
            None => return Err(Error::InvalidArchive(format!("{path} is missing"))),
        };
        check_name(&path, ingested.blob())?;
        pins.blob(&ingested.blob().digest);
        let blob = ingested.commit()?;
        self.files.insert(path, Spooled::Committed(blob.clone()));
        Ok(blob)
    }

    /// Puts a layer's archive into the content store.
    pub fn commit_layer(&mut self, path: &str, pins: &mut Pins<'_>) -> Result<LayerBlob, Error> {
        let Blob { digest, size } = self.commit(path, pins)?;
        let compression = Decoder::new(self.store.open_blob(&digest)?)?.compression();
        let media_type = layer_media_type(compression).to_owned();
        Ok(LayerBlob { digest, size, media_type, verified: None })
    }

    fn find(&self, path: &str) -> Result<String, Error> {
        let mut path = path_of(path.as_bytes())?;
        for _ in 0..HOPS_MAX {
            if self.files.contains_key(&path) {
                return Ok(path);
            }
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        Err(Error::InvalidArchive(format!("{path} is missing")))
    }
}

fn copy(reader: &mut impl Read, writer: &mut content::Writer<'_>) -> Result<(), Error> {
    use std::io::Write;
    let mut buffer = vec![0u8; 256 << 10];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(layers::unwrap(error)),
        };
        writer
            .write_all(&buffer[..count])
            .map_err(|source| Error::Io { operation: "write the archive's copy", source })?;
    }
}

/// A path without `.` and `..`, which must not lead out of the archive.
fn path_of(bytes: &[u8]) -> Result<String, Error> {
    let parts = archive::clean(bytes)?;
    String::from_utf8(parts.join(&b'/')).map_err(|_| Error::InvalidArchive("a name is not UTF-8".into()))
}

/// A file named by a digest must be what its name says.
fn check_name(path: &str, blob: &Blob) -> Result<(), Error> {
    let expected = match path.strip_prefix("blobs/") {
        Some(rest) => match rest.split_once('/') {
            Some((algorithm, hex)) => format!("{algorithm}:{hex}").parse::<Digest>(),
            None => return Ok(()),
        }
        .map_err(|error| Error::InvalidArchive(format!("{path}: {error}")))?,
        // Older archives: `<64 digits>.json`.
        None => match path.strip_suffix(".json").map(Digest::from_sha256_hex) {
            Some(Ok(digest)) => digest,
            _ => return Ok(()),
        },
    };
    if expected == blob.digest {
        return Ok(());
    }
    Err(content::Error::Digest { expected, found: blob.digest.clone() }.into())
}
