//! An archive's files on disk under temporary names, by the paths they had: an archive may tell in its last member what
//! its first one was.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use archive::{Decoder, Entry, Kind, Reader};
use content::{Blob, Ingested, Store};
use oci::Digest;

use crate::early::Early;
use crate::layers::layer_media_type;
use crate::pins::Pins;
use crate::register::LayerBlob;
use crate::{Error, Limits, layers};

mod parts;

pub use parts::{ArchiveFile, IsWanted};

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
    /// Reads the whole stream, compressed or not. What looks like a layer is offered to `early`.
    pub fn read(
        store: &'a Store,
        stream: impl Read,
        limits: Limits,
        early: Option<&Early<'_>>,
    ) -> Result<Spool<'a>, Error> {
        let mut reader = Reader::with_limit(Decoder::new(stream)?, limits.bytes);
        let mut members = Members::default();
        let mut files = HashMap::new();
        while let Some(entry) = reader.next_entry()? {
            if let Some(path) = members.add(&entry)? {
                let mut writer = store.writer()?;
                // Boxed once by `copy` itself; large, so that a layer does not go through in 8 KiB pieces.
                let mut buffered = io::BufReader::with_capacity(256 << 10, &mut reader);
                copy(&mut buffered, &mut writer)?;
                let file = writer.finish()?;
                if let Some(early) = early {
                    early.offer(&file)?;
                }
                files.insert(path, file);
            }
        }
        reader.drain()?;
        Ok(members.spool(store, files))
    }

    /// The same of an archive in a file that is not compressed.
    pub fn read_file(
        store: &'a Store,
        archive: &ArchiveFile<'_>,
        limits: Limits,
        early: Option<&Early<'_>>,
    ) -> Result<Spool<'a>, Error> {
        let length = archive.length()?;
        if length > limits.bytes {
            return Err(archive::Error::Limit { what: "bytes", max: limits.bytes }.into());
        }
        let mut reader = Reader::with_limit(io::BufReader::new(archive.stream()), limits.bytes);
        let mut members = Members::default();
        let mut parts = HashMap::new();
        while let Some(entry) = reader.next_entry()? {
            if let Some(path) = members.add(&entry)? {
                let part = reader.pass_content()?;
                if part.end > length {
                    return Err(archive::Error::Truncated.into());
                }
                parts.insert(path, part);
            }
        }
        parts.retain(|path, _| members.is_file(path));
        let files = parts::ingest(store, archive, parts, early)?;
        Ok(members.spool(store, files.into_iter().collect()))
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

/// What the members of an archive are called.
#[derive(Debug, Default)]
struct Members {
    count: u64,
    files: HashSet<String>,
    links: HashMap<String, String>,
}

impl Members {
    /// Takes the next one. The path, if it is a file.
    fn add(&mut self, entry: &Entry) -> Result<Option<String>, Error> {
        self.count += 1;
        if self.count > MEMBERS_MAX {
            return Err(archive::Error::Limit { what: "entries", max: MEMBERS_MAX }.into());
        }
        let path = path_of(&entry.path)?;
        let target = match &entry.kind {
            Kind::Directory => return Ok(None),
            Kind::File if entry.sparse.is_some() => {
                return Err(Error::InvalidArchive(format!("{path} is a sparse file")));
            }
            Kind::File => {
                self.links.remove(&path);
                self.files.insert(path.clone());
                return Ok(Some(path));
            }
            Kind::Symlink(target) => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                path_of(&[directory.as_bytes(), b"/", target].concat())?
            }
            Kind::HardLink(target) => path_of(target)?,
            _ => return Err(Error::InvalidArchive(format!("{path} is neither a file nor a directory"))),
        };
        self.files.remove(&path);
        self.links.insert(path, target);
        Ok(None)
    }

    fn is_file(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    fn spool<'a>(self, store: &'a Store, files: HashMap<String, Ingested<'a>>) -> Spool<'a> {
        let files = files.into_iter().filter(|(path, _)| self.files.contains(path));
        let files = files.map(|(path, file)| (path, Spooled::Waiting(file))).collect();
        Spool { store, files, links: self.links }
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
    let Some(expected) = digest_of(path)? else { return Ok(()) };
    if expected == blob.digest {
        return Ok(());
    }
    Err(content::Error::Digest { expected, found: blob.digest.clone() }.into())
}

/// The digest that a file is named by, if it is.
fn digest_of(path: &str) -> Result<Option<Digest>, Error> {
    if let Some(rest) = path.strip_prefix("blobs/") {
        let Some((algorithm, hex)) = rest.split_once('/') else { return Ok(None) };
        let digest = format!("{algorithm}:{hex}").parse();
        return digest.map(Some).map_err(|error| Error::InvalidArchive(format!("{path}: {error}")));
    }
    // Older archives: `<64 digits>.json`.
    Ok(path.strip_suffix(".json").and_then(|hex| Digest::from_sha256_hex(hex).ok()))
}
