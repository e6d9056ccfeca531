//! Where the last so many records begin, found from the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::source::Source;
use crate::{Driver, local};

const BLOCK: usize = 64 * 1024;

/// Leaves of `sources` (the newest first) those that hold the last `count` records, each set to where these
/// begin. The newest always stays.
pub(crate) fn select(sources: &mut Vec<Source>, driver: Driver, count: u64) -> io::Result<()> {
    let mut missing = count;
    let mut kept = 0;
    for source in sources.iter_mut() {
        if kept > 0 && missing == 0 {
            break;
        }
        missing -= set_to_last(source, driver, missing)?;
        kept += 1;
    }
    sources.truncate(kept);
    Ok(())
}

/// Sets a source to its last `count` records and tells how many there are, at most `count`.
fn set_to_last(source: &mut Source, driver: Driver, count: u64) -> io::Result<u64> {
    let (start, found) = match source.plain() {
        Some(file) => {
            let size = file.metadata()?.len();
            match driver {
                Driver::JsonFile => last_lines(file, size, count)?,
                Driver::Local => last_frames(file, size, count)?,
            }
        }
        None => {
            // Compressed files are read from the front only: once to count, and then again.
            let all = count_records(source, driver)?;
            source.seek(0)?;
            source.skip = all.saturating_sub(count);
            return Ok(all.min(count));
        }
    };
    source.seek(start)?;
    Ok(found)
}

/// The start of the last `count` lines, and how many there are. What follows the last newline is no line yet, but
/// lies behind that start.
fn last_lines(file: &File, size: u64, count: u64) -> io::Result<(u64, u64)> {
    let mut block = vec![0; BLOCK];
    let mut end = size;
    // The newline that ends a line before the wanted ones is the one after `count` others.
    let mut newlines = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let bytes = &mut block[..(end - start) as usize];
        file.read_exact_at(bytes, start)?;
        for position in memchr::memrchr_iter(b'\n', bytes) {
            if newlines == count {
                return Ok((start + position as u64 + 1, count));
            }
            newlines += 1;
        }
        end = start;
    }
    Ok((0, newlines))
}

/// The same for frames, by the copies of their lengths. Stops where these make no sense.
fn last_frames(file: &File, size: u64, count: u64) -> io::Result<(u64, u64)> {
    let mut window = Window { file, start: 0, bytes: Vec::new() };
    let (mut end, mut found) = (size, 0);
    while found < count && end >= 2 * local::LENGTH as u64 {
        let length = window.length_at(end - local::LENGTH as u64)?;
        match end.checked_sub(2 * local::LENGTH as u64 + u64::from(length)) {
            Some(start) if window.length_at(start)? == length => end = start,
            _ => break,
        }
        found += 1;
    }
    Ok((end, found))
}

/// A block of a file that is walked backwards.
struct Window<'a> {
    file: &'a File,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn length_at(&mut self, position: u64) -> io::Result<u32> {
        let end = position + local::LENGTH as u64;
        if position < self.start || end > self.start + self.bytes.len() as u64 {
            self.start = end.saturating_sub(BLOCK as u64);
            self.bytes.resize((end - self.start) as usize, 0);
            self.file.read_exact_at(&mut self.bytes, self.start)?;
        }
        let at = (position - self.start) as usize;
        let mut length = [0; local::LENGTH];
        length.copy_from_slice(&self.bytes[at..at + local::LENGTH]);
        Ok(u32::from_be_bytes(length))
    }
}

fn count_records(source: &mut Source, driver: Driver) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut frames = FrameCounter::default();
    let mut lines = 0;
    loop {
        let count = source.read(&mut block)?;
        match driver {
            _ if count == 0 => return Ok(lines + frames.count),
            Driver::JsonFile => lines += memchr::memchr_iter(b'\n', &block[..count]).count() as u64,
            Driver::Local => frames.feed(&block[..count]),
        }
    }
}

/// Counts frames of bytes that come in pieces.
#[derive(Default)]
struct FrameCounter {
    count: u64,
    /// Bytes of the first length that are there.
    header: Vec<u8>,
    /// Bytes of message and second length to come.
    rest: u64,
}

impl FrameCounter {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let taken = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
                self.rest -= taken as u64;
                self.count += u64::from(self.rest == 0);
                bytes = &bytes[taken..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(length) = self.header.first_chunk() {
                self.rest = u64::from(u32::from_be_bytes(*length)) + local::LENGTH as u64;
                self.header.clear();
            }
        }
    }
}
