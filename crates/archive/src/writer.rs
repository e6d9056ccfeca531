//! Writing the tar format: ustar headers, with PAX records before them where ustar does not suffice.

use std::io::{self, Read, Write};

use crate::Error;
use crate::entry::{Entry, Kind};
use crate::header::{self, BLOCK, Fields, octal_max};

/// Takes members one after the other. The same members give the same bytes.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    written: u64,
    /// Empty until the first content comes through.
    buffer: Vec<u8>,
}

/// Bytes of content that are read at once.
const BUFFER_BYTES: usize = 256 << 10;

impl<W: Write> Writer<W> {
    pub fn new(inner: W) -> Writer<W> {
        Writer { inner, written: 0, buffer: Vec::new() }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Where it writes to.
    pub(crate) fn out(&mut self) -> &mut W {
        &mut self.inner
    }

    /// A member that has no content of its own, or a file whose content is `content`, which must have `entry.size`
    /// bytes: a shorter one is filled with zeros (a file that shrinks while it is read), a longer one is cut.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        self.append_header(entry)?;
        if entry.kind != Kind::File || entry.apart {
            return Ok(());
        }
        if entry.size > self.buffer.len() as u64 {
            self.buffer.resize(entry.size.min(BUFFER_BYTES as u64) as usize, 0);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let copied = self.copy(entry.size, content, &mut buffer);
        self.buffer = buffer;
        copied?;
        self.pad(entry.size)
    }

    fn copy(&mut self, size: u64, content: &mut dyn Read, buffer: &mut [u8]) -> Result<(), Error> {
        let mut left = size;
        let mut ended = false;
        while left > 0 {
            let step = left.min(buffer.len() as u64) as usize;
            let count = if ended { 0 } else { read_retrying(content, &mut buffer[..step])? };
            if count == 0 {
                ended = true;
                buffer[..step].fill(0);
                self.put(&buffer[..step])?;
                left -= step as u64;
            } else {
                self.put(&buffer[..count])?;
                left -= count as u64;
            }
        }
        Ok(())
    }

    /// A small file from memory.
    pub fn append_bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.append(&Entry::file(path, bytes.len() as u64), &mut &bytes[..])
    }

    /// Two zero blocks; gives the stream back.
    pub fn finish(mut self) -> Result<W, Error> {
        self.put(&[0u8; 2 * BLOCK])?;
        self.inner.flush().map_err(Error::Write)?;
        Ok(self.inner)
    }

    fn append_header(&mut self, entry: &Entry) -> Result<(), Error> {
        let (kind, link, (major, minor)): (u8, &[u8], _) = match &entry.kind {
            Kind::File => (b'0', b"", (0, 0)),
            Kind::HardLink(target) => (b'1', target, (0, 0)),
            Kind::Symlink(target) => (b'2', target, (0, 0)),
            Kind::Character { major, minor } => (b'3', b"", (*major, *minor)),
            Kind::Block { major, minor } => (b'4', b"", (*major, *minor)),
            Kind::Directory => (b'5', b"", (0, 0)),
            Kind::Fifo => (b'6', b"", (0, 0)),
        };
        let size = if entry.kind == Kind::File && !entry.apart { entry.size } else { 0 };
        let records = records(entry, link, size);
        if !records.is_empty() {
            let header = Fields {
                name: b"PaxHeaders.0/record",
                link: b"",
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: records.len() as u64,
                mtime: 0,
                kind: b'x',
                major: 0,
                minor: 0,
            };
            self.put(&header::format(&header))?;
            self.put(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.put(&header::format(&Fields {
            name: &entry.path,
            link,
            mode: entry.mode,
            uid: u64::from(entry.uid),
            gid: u64::from(entry.gid),
            size,
            mtime: u64::try_from(entry.mtime.seconds).unwrap_or(0),
            kind,
            major,
            minor,
        }))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write_all(bytes).map_err(Error::Write)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.put(&[0u8; BLOCK][..padding])
    }
}

fn read_retrying(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(Error::Read),
        }
    }
}

/// PAX records for whatever the header block cannot say, in a fixed order.
fn records(entry: &Entry, link: &[u8], size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if entry.path.len() > header::NAME.len() || !entry.path.is_ascii() {
        record(&mut out, b"path", &entry.path);
    }
    if link.len() > header::LINK.len() || !link.is_ascii() {
        record(&mut out, b"linkpath", link);
    }
    if size > octal_max(12) {
        record(&mut out, b"size", size.to_string().as_bytes());
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if u64::from(id) > octal_max(8) {
            record(&mut out, key, id.to_string().as_bytes());
        }
    }
    let time = entry.mtime;
    let fits = u64::try_from(time.seconds).is_ok_and(|seconds| seconds <= octal_max(12));
    if time.nanos != 0 || !fits {
        record(&mut out, b"mtime", time_text(time.seconds, time.nanos).as_bytes());
    }
    if entry.apart {
        record(&mut out, header::APART, entry.size.to_string().as_bytes());
    }
    let mut xattrs: Vec<&(Vec<u8>, Vec<u8>)> = entry.xattrs.iter().collect();
    xattrs.sort();
    for (name, value) in xattrs {
        record(&mut out, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    out
}

fn time_text(seconds: i64, nanos: u32) -> String {
    // The sign belongs to the whole number, not to its seconds.
    let (sign, whole, nanos) = match (seconds < 0, nanos) {
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (false, nanos) => ("", seconds.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Blank, equals sign and newline, and then the length's own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() != rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}
