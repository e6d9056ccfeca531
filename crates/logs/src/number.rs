//! Counted logs: which number a file begins and a log ends with, and how far a reader elsewhere has come.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::source::{self, Source};
use crate::{Error, Options, local};

/// Bytes that a record's number is surely within: its length, a key, and a number of up to ten bytes.
const HEAD: usize = local::LENGTH + 11;

/// The number of the last whole record of a log, 0 if there is none. Reads the last of its files that is not empty,
/// and of a plain file only the end.
pub fn last_number(options: &Options) -> Result<u64, Error> {
    last(options)
}

pub(crate) fn last(options: &Options) -> Result<u64, Error> {
    let failed = |error| Error::new("read", &options.path, error);
    for mut source in source::open_all(options)? {
        let number = match source.plain() {
            Some(file) => last_of_plain(file),
            None => last_of_compressed(&mut source),
        };
        match number.map_err(failed)? {
            0 => {}
            number => return Ok(number),
        }
    }
    Ok(0)
}

/// The number of a file's first record, 0 if it has none. The source is at its start before and after.
pub(crate) fn first(source: &mut Source) -> io::Result<u64> {
    let mut head = [0; HEAD];
    let mut length = 0;
    loop {
        match source.read(&mut head[length..])? {
            0 => break,
            count => length += count,
        }
    }
    source.seek(0)?;
    Ok(local::number_at(&head[..length]))
}

fn last_of_plain(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut length = [0; local::LENGTH];
    let Some(at) = size.checked_sub(local::LENGTH as u64) else { return Ok(0) };
    file.read_exact_at(&mut length, at)?;
    let frame = u64::from(u32::from_be_bytes(length)) + 2 * local::LENGTH as u64;
    // A record that is being written, or cut off: the log's writer mends that, and until then nobody can know.
    let Some(start) = size.checked_sub(frame) else { return Ok(0) };
    let mut head = [0; HEAD];
    let there = HEAD.min(usize::try_from(frame).unwrap_or(HEAD));
    file.read_exact_at(&mut head[..there], start)?;
    if head[..local::LENGTH] != length {
        return Ok(0);
    }
    Ok(local::number_at(&head[..there]))
}

fn last_of_compressed(source: &mut Source) -> io::Result<u64> {
    let mut input = BufReader::with_capacity(64 * 1024, Input(source));
    let mut number = 0;
    loop {
        let mut head = [0; HEAD];
        if let Err(error) = input.read_exact(&mut head[..local::LENGTH]) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(number) } else { Err(error) };
        }
        let [a, b, c, d, ..] = head;
        let rest = u64::from(u32::from_be_bytes([a, b, c, d])) + local::LENGTH as u64;
        let taken = rest.min((HEAD - local::LENGTH) as u64);
        let body = local::LENGTH..local::LENGTH + taken as usize;
        let skipped = match input.read_exact(&mut head[body]) {
            Ok(()) => io::copy(&mut input.by_ref().take(rest - taken), &mut io::sink())?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(number),
            Err(error) => return Err(error),
        };
        if skipped < rest - taken {
            return Ok(number);
        }
        number = local::number_at(&head);
    }
}

struct Input<'a>(&'a mut Source);

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// How far the records of a log have been handed on, kept in a file of its own.
///
/// Written in place and not synced: it survives the end of its keeper at any instruction. A loss of power may set
/// it back, and records are then handed on twice.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    file: File,
    number: u64,
}

impl Cursor {
    /// Opens or creates a cursor; a new one is at the start.
    pub fn open(path: &Path) -> Result<Cursor, Error> {
        let failed = |error| Error::new("open", path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        let mut text = [0; 32];
        let length = file.read_at(&mut text, 0).map_err(failed)?;
        let number = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim_end().parse().ok());
        Ok(Cursor { path: path.into(), file, number: number.unwrap_or(0) })
    }

    /// Brings back a cursor that is ahead of its log, which lost its end with the machine's power, or was emptied by
    /// hand. Only while nobody writes the log.
    pub fn rewind(&mut self, options: &Options) -> Result<(), Error> {
        let end = last(options)?;
        if self.number > end { self.set(end) } else { Ok(()) }
    }

    /// Up to here, everything has been handed on.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn set(&mut self, number: u64) -> Result<(), Error> {
        // Always of the same length: a number is never seen half old and half new.
        let text = format!("{number:020}\n");
        self.file.write_all_at(text.as_bytes(), 0).map_err(|error| Error::new("write", &self.path, error))?;
        self.number = number;
        Ok(())
    }
}
