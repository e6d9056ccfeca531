//! Reading the tar format.
//!
//! Everything that is not the content of a member is bounded: an extended header or long name has at most
//! [`META_BYTES_MAX`] bytes, a sparse map at most [`SPARSE_PIECES_MAX`] pieces. What has two readings is refused.

use std::io::{self, BufRead, Read, Seek};
use std::ops::Range;

use crate::entry::{Entry, Kind, Time, Xattrs};
use crate::header::{self, BLOCK, Block, Raw};
use crate::{Error, shown};

/// Largest extended header or long name, in bytes.
const META_BYTES_MAX: u64 = 1 << 20;
/// Most pieces that a sparse file may have.
const SPARSE_PIECES_MAX: usize = 1 << 16;

/// Members of an archive, one after the other. Reading from it gives the content of the current member.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Bytes taken from `inner`.
    at: u64,
    /// Content bytes of the current member that are still to come.
    left: u64,
    /// Bytes that fill the last block of the current member.
    padding: u64,
    /// Bytes that may be taken from `inner` at most.
    at_max: u64,
    /// Members may have their content apart.
    apart: bool,
    ended: bool,
}

/// What extended headers said about the member to come.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<i64>,
    gid: Option<i64>,
    mtime: Option<Time>,
    xattrs: Xattrs,
    /// The size of a file whose content comes as a descriptor.
    apart: Option<u64>,
    sparse: PaxSparse,
}

#[derive(Debug, Default)]
struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    map: Option<Vec<u8>>,
    /// Records of the oldest form, which repeats keys.
    repeated: bool,
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R) -> Reader<R> {
        Reader::with_limit(inner, u64::MAX)
    }

    /// Refuses to take more than `bytes_max` from the stream, headers and what follows the archive included.
    pub fn with_limit(inner: R, bytes_max: u64) -> Reader<R> {
        Reader { inner, at: 0, left: 0, padding: 0, at_max: bytes_max, apart: false, ended: false }
    }

    /// From now on, members may say that their content comes as a descriptor. Others who say so are not heard.
    pub(crate) fn with_apart(self) -> Reader<R> {
        Reader { apart: true, ..self }
    }

    /// The next member, or `None` after the last. What was not read of the current one is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.skip(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut extended = Extended::default();
        let (mut long_path, mut long_link) = (None, None);
        let mut pending = false;
        loop {
            let start = self.at;
            let Some(block) = self.header_block(pending)? else { return Ok(None) };
            let raw = header::parse(&block).map_err(|what| Error::Header { at: start, what })?;
            match raw.kind {
                // A comment on the whole archive; what it says of members is not applied by Docker either.
                b'g' => drop(self.meta(&raw, start)?),
                b'x' => {
                    extended = Extended::default();
                    let records = self.meta(&raw, start)?;
                    parse_records(&records, &mut extended)
                        .map_err(|what| Error::Header { at: start, what })?;
                    pending = true;
                }
                b'L' => {
                    long_path = Some(header::text(&self.meta(&raw, start)?).to_vec());
                    pending = true;
                }
                b'K' => {
                    long_link = Some(header::text(&self.meta(&raw, start)?).to_vec());
                    pending = true;
                }
                _ => {
                    extended.path = long_path.or(extended.path);
                    extended.link = long_link.or(extended.link);
                    return self.member(&block, raw, extended, start).map(Some);
                }
            }
        }
    }

    /// The stream behind the archive.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Reads on to the end of the stream, so that whoever hashes it has seen all of it.
    pub fn drain(&mut self) -> Result<(), Error> {
        self.ended = true;
        let mut buffer = [0u8; 8192];
        loop {
            match self.read_some(&mut buffer)? {
                0 => return Ok(()),
                count => self.at += count as u64,
            }
        }
    }

    fn member(&mut self, block: &Block, raw: Raw, extended: Extended, start: u64) -> Result<Entry, Error> {
        let bad = |what| Error::Header { at: start, what };
        let path = extended.path.unwrap_or(raw.name);
        let link = extended.link.unwrap_or(raw.link);
        let id = |value: i64| u32::try_from(value).map_err(|_| bad("user or group ID out of range"));
        let device = |value: i64| u32::try_from(value).map_err(|_| bad("device number out of range"));
        let mut size = extended.size.unwrap_or(raw.size);
        let kind = match raw.kind {
            0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Character { major: device(raw.major)?, minor: device(raw.minor)? },
            b'4' => Kind::Block { major: device(raw.major)?, minor: device(raw.minor)? },
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let what = format!("entry type {:?}", char::from(other));
                return Err(Error::Unsupported { path: shown(&path), what });
            }
        };
        // Only files have content, whatever the size field of another says.
        if kind != Kind::File {
            size = 0;
        }
        let mut entry = Entry {
            path,
            kind,
            mode: (raw.mode & 0o7777) as u32,
            uid: id(extended.uid.unwrap_or(raw.uid))?,
            gid: id(extended.gid.unwrap_or(raw.gid))?,
            mtime: extended.mtime.unwrap_or(Time { seconds: raw.mtime, nanos: 0 }),
            size,
            xattrs: extended.xattrs,
            sparse: None,
            apart: false,
        };
        if size > i64::MAX as u64 - BLOCK as u64 {
            return Err(bad("size out of range"));
        }
        self.left = size;
        self.padding = padding(size);
        if let Some(apart) = extended.apart.filter(|_| self.apart) {
            if entry.kind != Kind::File || size != 0 || raw.kind == b'S' || apart > i64::MAX as u64 {
                return Err(bad("content in two places"));
            }
            (entry.size, entry.apart) = (apart, true);
            return Ok(entry);
        }
        if raw.kind == b'S' {
            let (map, real_size) = self.gnu_sparse_map(block, start)?;
            self.apply_sparse(&mut entry, map, real_size, start)?;
        } else {
            self.pax_sparse(&mut entry, extended.sparse, start)?;
        }
        Ok(entry)
    }

    fn apply_sparse(
        &self,
        entry: &mut Entry,
        map: Vec<(u64, u64)>,
        real_size: u64,
        start: u64,
    ) -> Result<(), Error> {
        let bad = |what| Error::Header { at: start, what };
        let (mut end, mut stored) = (0u64, 0u64);
        for &(offset, length) in &map {
            if offset < end {
                return Err(bad("sparse map out of order"));
            }
            end = offset.checked_add(length).ok_or(bad("sparse map out of range"))?;
            stored += length;
        }
        if end > real_size || real_size > i64::MAX as u64 || stored != self.left {
            return Err(bad("sparse map does not fit the size"));
        }
        entry.size = real_size;
        entry.sparse = Some(map.into_iter().filter(|&(_, length)| length > 0).collect());
        Ok(())
    }

    /// Four pieces in the header, and twenty-one in every block that follows while the last says so.
    fn gnu_sparse_map(&mut self, block: &Block, start: u64) -> Result<(Vec<(u64, u64)>, u64), Error> {
        let bad = Error::Header { at: start, what: "invalid sparse map" };
        let field = |bytes: &[u8]| header::number(bytes).and_then(|value| u64::try_from(value).ok());
        let mut map = Vec::new();
        let take = |bytes: &[u8], map: &mut Vec<(u64, u64)>| -> Option<()> {
            for piece in bytes.chunks_exact(24) {
                if piece[0] == 0 {
                    break;
                }
                map.push((field(&piece[..12])?, field(&piece[12..])?));
            }
            Some(())
        };
        let Some(real_size) = field(&block[483..495]) else { return Err(bad) };
        if take(&block[386..482], &mut map).is_none() {
            return Err(bad);
        }
        let mut more = block[482] != 0;
        while more {
            let next = self.block()?.ok_or(Error::Truncated)?;
            if take(&next[..504], &mut map).is_none() || map.len() > SPARSE_PIECES_MAX {
                return Err(bad);
            }
            more = next[504] != 0;
        }
        Ok((map, real_size))
    }

    fn pax_sparse(&mut self, entry: &mut Entry, sparse: PaxSparse, start: u64) -> Result<(), Error> {
        let bad = |what| Error::Header { at: start, what };
        if sparse.repeated {
            return Err(Error::Unsupported { path: shown(&entry.path), what: "sparse format 0.0".into() });
        }
        let version = (sparse.major, sparse.minor);
        if version == (None, None) && sparse.map.is_none() {
            return Ok(());
        }
        if entry.kind != Kind::File {
            return Err(bad("sparse map on what is not a file"));
        }
        let real_size = sparse.real_size.ok_or(bad("sparse file without its size"))?;
        let map = match (version, sparse.map) {
            ((Some(1), Some(0)), None) => self.sparse_map_in_content(start)?,
            ((None, None) | (Some(0), Some(1)), Some(map)) => {
                numbers(&map, b',').ok_or(bad("invalid sparse map"))?
            }
            _ => {
                return Err(Error::Unsupported { path: shown(&entry.path), what: "sparse format".into() });
            }
        };
        if let Some(name) = sparse.name {
            entry.path = name;
        }
        self.apply_sparse(entry, map, real_size, start)
    }

    /// Version 1.0: decimal lines before the content, filled up to whole blocks.
    fn sparse_map_in_content(&mut self, start: u64) -> Result<Vec<(u64, u64)>, Error> {
        let bad = || Error::Header { at: start, what: "invalid sparse map" };
        let mut text: Vec<u8> = Vec::new();
        let mut wanted: Option<usize> = None;
        loop {
            if self.left < BLOCK as u64 || text.len() > SPARSE_PIECES_MAX * 42 {
                return Err(bad());
            }
            text.extend_from_slice(&self.block()?.ok_or(Error::Truncated)?);
            self.left -= BLOCK as u64;
            let lines = text.iter().filter(|&&b| b == b'\n').count();
            if wanted.is_none() && lines > 0 {
                let first = text.split(|&b| b == b'\n').next().unwrap_or_default();
                let count = decimal(first).and_then(|count| usize::try_from(count).ok()).ok_or_else(bad)?;
                if count > SPARSE_PIECES_MAX {
                    return Err(bad());
                }
                wanted = Some(1 + 2 * count);
            }
            if let Some(wanted) = wanted
                && lines >= wanted
            {
                let values: Option<Vec<u64>> =
                    text.split(|&b| b == b'\n').take(wanted).skip(1).map(decimal).collect();
                return Ok(pairs(&values.ok_or_else(bad)?));
            }
        }
    }

    /// The content of an extended header.
    fn meta(&mut self, raw: &Raw, start: u64) -> Result<Vec<u8>, Error> {
        if raw.size > META_BYTES_MAX {
            return Err(Error::Header { at: start, what: "extended header too large" });
        }
        let mut bytes = vec![0u8; raw.size as usize];
        self.fill(&mut bytes)?;
        self.skip(padding(raw.size))?;
        Ok(bytes)
    }

    /// The next header; `None` at two zero blocks or at the end of the stream between members.
    fn header_block(&mut self, pending: bool) -> Result<Option<Block>, Error> {
        let start = self.at;
        let block = match self.block()? {
            Some(block) if block.iter().any(|&b| b != 0) => return Ok(Some(block)),
            other => other,
        };
        if pending {
            return Err(Error::Truncated);
        }
        if block.is_some()
            && let Some(second) = self.block()?
            && second.iter().any(|&b| b != 0)
        {
            return Err(Error::Header { at: start, what: "a lone zero block" });
        }
        self.ended = true;
        Ok(None)
    }

    /// One whole block, or `None` if the stream ends before it.
    fn block(&mut self) -> Result<Option<Block>, Error> {
        let mut block = [0u8; BLOCK];
        let first = self.read_some(&mut block)?;
        if first == 0 {
            return Ok(None);
        }
        self.at += first as u64;
        self.fill(&mut block[first..])?;
        Ok(Some(block))
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), Error> {
        while !buffer.is_empty() {
            let count = self.read_some(buffer)?;
            if count == 0 {
                return Err(Error::Truncated);
            }
            self.at += count as u64;
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if self.at > self.at_max {
            return Err(Error::Limit { what: "bytes", max: self.at_max });
        }
        loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(read_error),
            }
        }
    }

    fn skip(&mut self, mut count: u64) -> Result<(), Error> {
        let mut buffer = [0u8; 8192];
        while count > 0 {
            let step = count.min(buffer.len() as u64) as usize;
            self.fill(&mut buffer[..step])?;
            count -= step as u64;
        }
        Ok(())
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Goes to the end of the current member without reading its content, and tells where in the stream that lies,
    /// counted from where the archive begins. The stream may end before.
    pub fn pass_content(&mut self) -> Result<Range<u64>, Error> {
        let content = self.at..self.at.saturating_add(self.left);
        let step = i64::try_from(self.left).map_err(|_| Error::Truncated)?;
        self.inner.seek_relative(step).map_err(read_error)?;
        (self.at, self.left) = (content.end, 0);
        Ok(content)
    }
}

impl<R: BufRead> Reader<R> {
    /// Content of the current member as it lies in the stream's buffer: at least one byte, and at most so many. They
    /// stay there until they are consumed. A member that has no more is cut off.
    pub(crate) fn piece(&mut self, bytes_max: u64) -> Result<&[u8], Error> {
        let bytes_max = usize::try_from(bytes_max.min(self.left)).unwrap_or(usize::MAX);
        if self.at > self.at_max {
            return Err(Error::Limit { what: "bytes", max: self.at_max });
        }
        let piece = loop {
            match self.inner.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
                // Asked again since a borrow that is returned lasts; nothing is read for it.
                Ok(_) => break self.inner.fill_buf().map_err(read_error)?,
            }
        };
        let count = piece.len().min(bytes_max);
        if count == 0 {
            return Err(Error::Truncated);
        }
        Ok(&piece[..count])
    }

    /// Takes bytes that [`Reader::piece`] has shown.
    pub(crate) fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.at += count as u64;
        self.left -= count as u64;
    }
}

impl<R: Read> Read for Reader<R> {
    /// Content of the current member; a stream that ends too early is an `UnexpectedEof`.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if count == 0 {
            return Ok(0);
        }
        if self.at > self.at_max {
            let limit = Error::Limit { what: "bytes", max: self.at_max };
            return Err(io::Error::new(io::ErrorKind::InvalidData, limit));
        }
        let count = self.inner.read(&mut buffer[..count])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, Error::Truncated));
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Finds in an I/O error what this crate put there, and knows a stream that was cut.
pub(crate) fn read_error(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::Truncated;
    }
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::Read(error),
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn pairs(values: &[u64]) -> Vec<(u64, u64)> {
    values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

fn numbers(text: &[u8], separator: u8) -> Option<Vec<(u64, u64)>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let values: Vec<u64> = text.split(|&b| b == separator).map(decimal).collect::<Option<_>>()?;
    (values.len().is_multiple_of(2) && values.len() / 2 <= SPARSE_PIECES_MAX).then(|| pairs(&values))
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn parse_records(mut bytes: &[u8], extended: &mut Extended) -> Result<(), &'static str> {
    const BAD: &str = "invalid PAX record";
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|&b| b == b' ').ok_or(BAD)?;
        let length = decimal(&bytes[..space]).and_then(|length| usize::try_from(length).ok()).ok_or(BAD)?;
        if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(BAD);
        }
        let record = &bytes[space + 1..length - 1];
        let equals = record.iter().position(|&b| b == b'=').ok_or(BAD)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() {
            return Err(BAD);
        }
        apply_record(key, value, extended)?;
        bytes = &bytes[length..];
    }
    Ok(())
}

fn apply_record(key: &[u8], value: &[u8], extended: &mut Extended) -> Result<(), &'static str> {
    let unsigned = || decimal(value).ok_or("PAX record is no number");
    let name = || if value.contains(&0) { Err("zero byte in a name") } else { Ok(value.to_vec()) };
    let id = || unsigned().and_then(|id| i64::try_from(id).map_err(|_| "ID out of range"));
    if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
        if attribute.is_empty() || attribute.contains(&0) {
            return Err("invalid attribute name");
        }
        extended.xattrs.push((attribute.to_vec(), value.to_vec()));
        return Ok(());
    }
    // An empty value takes back what an earlier record said; there is none that could have.
    if value.is_empty() && !key.starts_with(b"GNU.sparse.") {
        return Ok(());
    }
    let sparse = &mut extended.sparse;
    match key {
        b"path" => extended.path = Some(name()?),
        b"linkpath" => extended.link = Some(name()?),
        b"size" => extended.size = Some(unsigned()?),
        b"uid" => extended.uid = Some(id()?),
        b"gid" => extended.gid = Some(id()?),
        b"mtime" => extended.mtime = Some(parse_time(value).ok_or("invalid time")?),
        header::APART => extended.apart = Some(unsigned()?),
        b"GNU.sparse.major" => sparse.major = Some(unsigned()?),
        b"GNU.sparse.minor" => sparse.minor = Some(unsigned()?),
        b"GNU.sparse.name" => sparse.name = Some(name()?),
        b"GNU.sparse.realsize" | b"GNU.sparse.size" => sparse.real_size = Some(unsigned()?),
        b"GNU.sparse.map" => sparse.map = Some(value.to_vec()),
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => sparse.repeated = true,
        _ => {}
    }
    Ok(())
}

/// `[-]seconds[.fraction]`.
fn parse_time(text: &[u8]) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = digits.splitn(2, |&b| b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |index: usize| fraction.get(index).map_or(0, |b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0u32, |sum, index| sum * 10 + digit(index));
    Some(match (negative, nanos) {
        (false, nanos) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos: 0 },
        (true, nanos) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}
