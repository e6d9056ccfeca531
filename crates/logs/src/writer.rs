//! Output to log records, with rotation.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use crate::files::{self, Compression};
use crate::json::Encoder;
use crate::local::{self, Extras, Part};
use crate::number;
use crate::record::Stream;
use crate::{Driver, Error, LINE_MAX, Options};

/// Batches are written when they reach this many bytes, and at the end of each call.
const BATCH: usize = 256 * 1024;

/// A clock that goes back less than this (nanoseconds) was corrected, or is read out of turn; more, and it was set.
const SET_BACK: i64 = 1_000_000_000;

/// Takes a container's output as it comes and keeps its log.
///
/// Incomplete lines wait in memory until their end comes, or [`LINE_MAX`] bytes are there, or the stream ends.
/// A failed write loses the batch, not the log: the file is cut back to its last whole record.
#[derive(Debug)]
pub struct Writer {
    options: Options,
    format: Format,
    file: File,
    /// Of the file, with the batch not counted.
    size: u64,
    batch: Vec<u8>,
    pending: [Pending; 2],
    /// Of the last record. Times ascend, so that each is one record's, as long as the clock is not set back.
    time: i64,
    /// Of the last record, if they are counted.
    number: u64,
    compressing: Option<Compressing>,
    /// Something changed since [`Writer::compression_wanted`] last found nothing.
    compression_due: bool,
}

#[derive(Debug)]
enum Format {
    Json(Encoder),
    Local {
        /// In the form that stands in records.
        attributes: Vec<u8>,
    },
}

/// What one stream has of an unfinished line.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Parts already written.
    parts: u32,
    /// Names the line's parts (local driver).
    id: u64,
    /// All parts carry the time of the first.
    time: i64,
}

#[derive(Debug)]
struct Compressing {
    /// Where the file that is being compressed stands by now.
    index: u32,
}

impl Writer {
    /// Opens or creates the current file. What a crash left half-written at its end is made harmless.
    pub fn open(options: Options) -> Result<Writer, Error> {
        let path = &options.path;
        let mut file = open(&options).map_err(|error| Error::new("open", path, error))?;
        let size = mend(&mut file, options.driver).map_err(|error| Error::new("mend", path, error))?;
        let _ = std::fs::remove_file(files::unfinished(path));
        let format = match options.driver {
            Driver::JsonFile => Format::Json(Encoder::new(&options.attributes)),
            Driver::Local => Format::Local { attributes: local::attributes(&options.attributes) },
        };
        let number = if options.numbered { number::last(&options)? } else { 0 };
        Ok(Writer {
            format,
            file,
            size,
            batch: Vec::new(),
            pending: Default::default(),
            time: i64::MIN,
            number,
            compressing: None,
            compression_due: options.compress && options.files_max > 1,
            options,
        })
    }

    /// Records output that was read at `now` (Unix nanoseconds).
    pub fn write(&mut self, stream: Stream, output: &[u8], now: i64) -> Result<(), Error> {
        let result = self.split(stream, output, now);
        result.and(self.flush())
    }

    /// Records what is left of an unfinished line, when the stream has ended.
    pub fn finish(&mut self, stream: Stream, now: i64) -> Result<(), Error> {
        let pending = std::mem::take(&mut self.pending[stream as usize]);
        if pending.bytes.is_empty() {
            return Ok(());
        }
        // A line without its newline is a part without a last one, as Docker has it.
        self.append(stream, &pending.bytes, now, Some(&pending), false)?;
        self.flush()
    }

    /// The time of the last record; none before the first.
    pub fn last_time(&self) -> Option<i64> {
        (self.time != i64::MIN).then_some(self.time)
    }

    /// What a stream has of a line whose end has not come.
    pub fn unfinished(&self, stream: Stream) -> &[u8] {
        &self.pending[stream as usize].bytes
    }

    /// Gives back memory that only busy streams need.
    pub fn trim(&mut self) {
        self.batch = Vec::new();
        for pending in &mut self.pending {
            pending.bytes.shrink_to_fit();
        }
    }

    fn split(&mut self, stream: Stream, mut output: &[u8], now: i64) -> Result<(), Error> {
        while !output.is_empty() {
            let room = LINE_MAX - self.pending[stream as usize].bytes.len();
            let window = &output[..output.len().min(room)];
            let (taken, last) = match memchr::memchr(b'\n', window) {
                Some(end) => (end + 1, true),
                None if window.len() == room => (part_end(window), false),
                None => {
                    self.pending[stream as usize].bytes.extend_from_slice(window);
                    return Ok(());
                }
            };
            let line = &window[..taken - usize::from(last)];
            let mut pending = std::mem::take(&mut self.pending[stream as usize]);
            if pending.bytes.is_empty() && pending.parts == 0 && last {
                // The usual case: a whole line, straight from the output.
                self.append(stream, line, now, None, true)?;
                self.pending[stream as usize] = pending;
            } else {
                self.append_part(stream, line, now, &mut pending, last)?;
            }
            output = &output[taken..];
        }
        Ok(())
    }

    /// Completes a pending line, or its next part.
    fn append_part(
        &mut self,
        stream: Stream,
        line: &[u8],
        now: i64,
        pending: &mut Pending,
        last: bool,
    ) -> Result<(), Error> {
        pending.bytes.extend_from_slice(line);
        let whole = last && pending.parts == 0;
        let result = self.append(stream, &pending.bytes, now, (!whole).then_some(&*pending), last);
        pending.bytes.clear();
        if pending.parts == 0 {
            pending.id = self.time as u64;
            pending.time = self.time;
        }
        pending.parts = if last { 0 } else { pending.parts + 1 };
        self.pending[stream as usize] = std::mem::take(pending);
        result
    }

    /// Adds one record to the batch. `part_of` has the parts so far if the line is not whole.
    fn append(
        &mut self,
        stream: Stream,
        line: &[u8],
        now: i64,
        part_of: Option<&Pending>,
        last: bool,
    ) -> Result<(), Error> {
        let start = self.batch.len();
        self.time = match self.time.saturating_sub(now) {
            0..SET_BACK => self.time + 1,
            _ => now,
        };
        let (time, id) = match part_of {
            Some(Pending { parts: 1.., time, id, .. }) => (*time, *id),
            _ => (self.time, self.time as u64),
        };
        match &mut self.format {
            Format::Json(encoder) => encoder.append(time, stream, line, !last, &mut self.batch),
            Format::Local { attributes } => {
                let part = part_of.map(|pending| Part { id, ordinal: pending.parts + 1, last });
                self.number += u64::from(self.options.numbered);
                let extras = Extras { part, number: self.number, attributes };
                local::append(time, stream, line, extras, &mut self.batch);
            }
        }
        if let Some(size_max) = self.options.size_max
            && self.size + self.batch.len() as u64 > size_max
            && self.size + start as u64 > 0
        {
            let record = self.batch.split_off(start);
            self.flush()?;
            let rotated = self.rotate();
            self.batch = record;
            rotated?;
        }
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let result = self.file.write_all(&self.batch);
        let length = self.batch.len() as u64;
        self.batch.clear();
        match result {
            Ok(()) => {
                self.size += length;
                Ok(())
            }
            Err(error) => {
                // Without this, a full disk would leave half a record that spoils the next one.
                let _ = self.file.set_len(self.size);
                Err(Error::new("write", &self.options.path, error))
            }
        }
    }

    fn rotate(&mut self) -> Result<(), Error> {
        // Somebody may have emptied the file by hand.
        let size = self.file.metadata().map_or(self.size, |metadata| metadata.size());
        if size < self.size {
            self.size = size;
            return Ok(());
        }
        let path = &self.options.path;
        if self.options.files_max > 1 {
            files::shift(path, self.options.files_max)?;
        } else {
            // A new file, not an emptied one: readers still find the end of the old one in theirs.
            std::fs::remove_file(path).map_err(|error| Error::new("remove", path, error))?;
        }
        self.file = open(&self.options).map_err(|error| Error::new("open", path, error))?;
        self.size = 0;
        if let Some(compressing) = &mut self.compressing {
            compressing.index += 1;
        }
        self.compression_due = self.options.compress && self.options.files_max > 1;
        Ok(())
    }

    // --- compression

    /// A rotated file that is to be compressed, if there is one and no compression is in progress. The caller
    /// has [`crate::compress`] done by somebody who may take the time, and then calls
    /// [`Writer::compression_ended`].
    pub fn compression_wanted(&mut self) -> Option<Compression> {
        if !self.compression_due || self.compressing.is_some() {
            return None;
        }
        let path = &self.options.path;
        let present = (1..self.options.files_max).take_while(|&index| files::exists(path, index));
        let Some(index) = present.into_iter().find(|&index| files::rotated(path, index).exists()) else {
            self.compression_due = false;
            return None;
        };
        let source = File::open(files::rotated(path, index)).ok()?;
        self.compressing = Some(Compressing { index });
        Some(Compression { source, target: files::unfinished(path) })
    }

    /// Puts the compressed file into the place of its source, wherever that was moved meanwhile.
    pub fn compression_ended(&mut self, success: bool) -> Result<(), Error> {
        let Some(Compressing { index }) = self.compressing.take() else { return Ok(()) };
        let path = &self.options.path;
        let copy = files::unfinished(path);
        // Off the end: its source is gone, so success or not, nothing is wrong.
        let unwanted = index >= self.options.files_max;
        if !success || unwanted {
            // Not tried again before the next rotation.
            self.compression_due &= success || unwanted;
            let _ = std::fs::remove_file(copy);
            return Ok(());
        }
        let (source, target) = (files::rotated(path, index), files::compressed(path, index));
        std::fs::rename(&copy, &target).map_err(|error| Error::new("rename", &copy, error))?;
        std::fs::remove_file(&source).map_err(|error| Error::new("remove", &source, error))
    }
}

fn open(options: &Options) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&options.path)
}

/// Where to end a part of a line that has no newline: not within a character.
fn part_end(window: &[u8]) -> usize {
    let start = window.iter().rev().take(4).position(|byte| byte & 0xc0 != 0x80);
    match start.map(|back| (back, window[window.len() - 1 - back])) {
        Some((back @ 0..=2, lead @ 0xc2..=0xf4)) => {
            let length = match lead {
                0xf0.. => 4,
                0xe0.. => 3,
                _ => 2,
            };
            if length > back + 1 && window.len() > back + 1 { window.len() - back - 1 } else { window.len() }
        }
        _ => window.len(),
    }
}

/// Makes the end of the file the end of a record, and tells the size.
fn mend(file: &mut File, driver: Driver) -> io::Result<u64> {
    let size = file.metadata()?.len();
    match driver {
        Driver::JsonFile => {
            let mut last = [b'\n'];
            if size > 0 {
                file.read_exact_at(&mut last, size - 1)?;
            }
            if last == [b'\n'] {
                return Ok(size);
            }
            // Readers skip the line that is no record.
            file.write_all(b"\n")?;
            Ok(size + 1)
        }
        Driver::Local => {
            if size == 0 || ends_with_record(file, size)? {
                return Ok(size);
            }
            let whole = whole_records(file, size)?;
            file.set_len(whole)?;
            Ok(whole)
        }
    }
}

fn ends_with_record(file: &File, size: u64) -> io::Result<bool> {
    let mut lengths = [[0; local::LENGTH]; 2];
    let both = 2 * local::LENGTH as u64;
    if size < both {
        return Ok(false);
    }
    file.read_exact_at(&mut lengths[1], size - local::LENGTH as u64)?;
    let Some(start) = size.checked_sub(both + u64::from(u32::from_be_bytes(lengths[1]))) else {
        return Ok(false);
    };
    file.read_exact_at(&mut lengths[0], start)?;
    Ok(lengths[0] == lengths[1])
}

/// Where the last of the records that follow each other from the start of the file ends.
fn whole_records(file: &mut File, size: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut input = io::BufReader::with_capacity(64 * 1024, file);
    let mut end = 0;
    loop {
        let mut length = [0; local::LENGTH];
        if end + 2 * local::LENGTH as u64 > size {
            return Ok(end);
        }
        input.read_exact(&mut length)?;
        let body = u64::from(u32::from_be_bytes(length));
        let next = end + 2 * local::LENGTH as u64 + body;
        if next > size {
            return Ok(end);
        }
        input.seek_relative(body as i64)?;
        let mut copy = [0; local::LENGTH];
        input.read_exact(&mut copy)?;
        if copy != length {
            return Ok(end);
        }
        end = next;
    }
}
