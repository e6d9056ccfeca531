//! Reading a log that may still be written, across its rotated files.
//!
//! A reader opens all files at once, so that it keeps what rotation throws away later. While it follows, it
//! notices by the file's identity that the current file was rotated, reads the old one to its end, and goes on
//! with its successors.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify;

use crate::json::{self, Decoded};
use crate::record::{Found, Record, Stream};
use crate::render::Render;
use crate::source::{self, Source};
use crate::{Driver, Error, Options, local, number, tail};

/// First size of the buffer, in bytes.
const BUFFER: usize = 128 * 1024;
/// Longest record that is read, in bytes; longer ones are skipped. The longest that is ever written is a line of
/// [`crate::LINE_MAX`] with each byte escaped, and attributes.
const RECORD_MAX: usize = 1024 * 1024;

/// Which records are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Unix nanoseconds; older records are left out.
    pub since: Option<i64>,
    /// The first record that is newer ends the reading.
    pub until: Option<i64>,
    /// Only the last so many of all records, before any other choice is made.
    pub tail: Option<u64>,
    pub stdout: bool,
    pub stderr: bool,
    /// Only records that are counted beyond this (counted logs only). Such a reader makes no notifications of its
    /// own: whoever ships many logs watches their folders all at once.
    pub after: Option<u64>,
    /// Wait for more.
    pub follow: bool,
}

impl Default for Query {
    fn default() -> Query {
        Query { since: None, until: None, tail: None, stdout: true, stderr: true, after: None, follow: false }
    }
}

/// What a query says of a record.
enum Verdict {
    Wanted,
    Unwanted,
    /// Neither this one nor any after it.
    Beyond,
}

impl Query {
    fn judge(&self, found: &Found) -> Verdict {
        let stream = match found.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        if self.after.is_some_and(|after| found.number <= after) {
            Verdict::Unwanted
        } else if self.until.is_some_and(|until| found.time > until) {
            Verdict::Beyond
        } else if stream && self.since.is_none_or(|since| found.time >= since) {
            Verdict::Wanted
        } else {
            Verdict::Unwanted
        }
    }
}

/// What [`Reader::next_batch`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more already.
    More,
    /// Only while following: there is nothing more now. Wait for [`Reader::notifications`].
    Idle,
    /// That was all.
    End,
}

/// Reads the records of a log in the order they were written.
#[derive(Debug)]
pub struct Reader {
    options: Options,
    query: Query,
    /// The file being read, and those after it.
    current: Option<Source>,
    newer: VecDeque<Source>,
    /// The current file was rotated, and is being read for the last time.
    rotated: bool,
    buffer: Buffer,
    decoder: json::Decoder,
    /// Holds a record that could not be decoded in the buffer.
    apart: Vec<u8>,
    ended: bool,
    notifications: Option<OwnedFd>,
}

impl Reader {
    /// A log without any file is empty. The options need the writer's driver, path and number of files.
    pub fn open(options: &Options, query: &Query) -> Result<Reader, Error> {
        // Before the files are looked at, so that no change falls between.
        let notifications = if query.follow && query.after.is_none() { watch(&options.path) } else { None };
        let mut sources = source::open_all(options)?;
        if let Some(count) = query.tail {
            let failed = |error| Error::new("read", &options.path, error);
            tail::select(&mut sources, options.driver, count).map_err(failed)?;
        }
        if let Some(after) = query.after {
            leave_out(&mut sources, after).map_err(|error| Error::new("read", &options.path, error))?;
        }
        if let Some(since) = query.since {
            let second = since.div_euclid(1_000_000_000);
            let mut is_current = true;
            sources.retain(|source| std::mem::take(&mut is_current) || source.modified >= second);
        }
        Ok(Reader {
            options: options.clone(),
            query: *query,
            current: None,
            newer: sources.into_iter().rev().collect(),
            rotated: false,
            buffer: Buffer::default(),
            decoder: json::Decoder::new(),
            apart: Vec::new(),
            ended: false,
            notifications,
        })
    }

    /// Ends the reading with the first record that is newer than this, from now on.
    pub fn read_until(&mut self, time: i64) {
        self.query.until = Some(time);
    }

    /// Becomes readable when the log may have changed. None if the reader does not follow, or the kernel has no
    /// more inotify instances for this user: then look again from time to time.
    pub fn notifications(&self) -> Option<BorrowedFd<'_>> {
        self.notifications.as_ref().map(AsFd::as_fd)
    }

    /// Takes the notifications that are there. To miss nothing: clear, read until [`Progress::Idle`], then wait.
    pub fn clear_notifications(&self) {
        let Some(descriptor) = &self.notifications else { return };
        let mut events = [0; 4096];
        while rustix::io::read(descriptor, &mut events).is_ok_and(|count| count == events.len()) {}
    }

    /// The next record; none if there is no more now.
    // Not an iterator: the record borrows from the reader.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        let found = self.wanted()?;
        Ok(found.map(|(found, apart)| self.record(found, apart)))
    }

    fn record(&self, found: Found, apart: bool) -> Record<'_> {
        found.record(if apart { &self.apart } else { &self.buffer.bytes })
    }

    /// The next record that the query asks for.
    fn wanted(&mut self) -> Result<Option<(Found, bool)>, Error> {
        while !self.ended {
            let Some((found, apart)) = self.find()? else {
                self.ended = !self.query.follow;
                break;
            };
            match self.query.judge(&found) {
                Verdict::Wanted => return Ok(Some((found, apart))),
                Verdict::Unwanted => {}
                Verdict::Beyond => self.ended = true,
            }
        }
        Ok(None)
    }

    /// Gives back memory that is only needed while there is something to read.
    pub fn release(&mut self) {
        self.buffer.release();
        self.apart = Vec::new();
    }

    /// Appends records to `out`, rendered, until that has at least `limit` bytes.
    pub fn next_batch(
        &mut self,
        render: &mut Render,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Error> {
        while out.len() < limit {
            self.append_alike(render, limit, out);
            if out.len() >= limit {
                break;
            }
            match self.wanted()? {
                Some((found, apart)) => render.append(&self.record(found, apart), out),
                None if self.ended => return Ok(Progress::End),
                None => {
                    self.buffer.release();
                    return Ok(Progress::Idle);
                }
            }
        }
        Ok(Progress::More)
    }

    /// The records that are told by the one before them, which most of a JSON log are: without a look for their ends,
    /// and without a way through all the functions for others.
    fn append_alike(&mut self, render: &mut Render, limit: usize, out: &mut Vec<u8>) {
        let is_plain = self.current.as_ref().is_some_and(|source| source.skip == 0) && !self.ended;
        if !is_plain || self.options.driver != Driver::JsonFile {
            return;
        }
        let Some(mut rest) = self.buffer.records() else { return };
        let length = rest.len();
        while out.len() < limit
            && let Some((found, length)) = self.decoder.again(rest)
        {
            let (record, after) = rest.split_at_mut(length);
            rest = after;
            match self.query.judge(&found) {
                Verdict::Wanted => render.append(&found.record(record), out),
                Verdict::Unwanted => {}
                Verdict::Beyond => {
                    self.ended = true;
                    break;
                }
            }
        }
        let taken = length - rest.len();
        self.buffer.take(taken);
    }

    /// The next record that can be decoded, and whether it is in [`Reader::apart`].
    fn find(&mut self) -> Result<Option<(Found, bool)>, Error> {
        loop {
            let Some(source) = &mut self.current else {
                if !self.advance()? {
                    return Ok(None);
                }
                continue;
            };
            match self.buffer.frame(self.options.driver) {
                Frame::Complete(_) if source.skip > 0 => source.skip -= 1,
                Frame::Complete(range) => {
                    if let Some(found) = self.decode(range) {
                        return Ok(Some(found));
                    }
                }
                Frame::Incomplete => {
                    let path = &self.options.path;
                    let count = self.buffer.fill(source).map_err(|error| Error::new("read", path, error))?;
                    if count == 0 && !self.advance()? {
                        return Ok(None);
                    }
                }
                Frame::Corrupt => {
                    if !self.advance()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn decode(&mut self, range: Range<usize>) -> Option<(Found, bool)> {
        let frame = &mut self.buffer.bytes[range.clone()];
        let (mut found, apart) = match self.options.driver {
            Driver::Local => (local::decode(frame)?, false),
            Driver::JsonFile => match self.decoder.decode(frame)? {
                Decoded::InPlace(found) => (found, false),
                Decoded::Apart(found, bytes) => {
                    self.apart = bytes;
                    (found, true)
                }
            },
        };
        if !apart {
            found.move_by(range.start);
        }
        Some((found, apart))
    }

    /// Goes on after the end of the current file; false if there is nothing yet.
    fn advance(&mut self) -> Result<bool, Error> {
        if self.newer.is_empty() && self.query.follow {
            match self.look_again()? {
                Look::Nothing => return Ok(false),
                Look::More => return Ok(true),
                Look::Newer(sources) => self.newer = sources,
            }
        }
        let Some(next) = self.newer.pop_front() else { return Ok(false) };
        self.rotated = false;
        self.current = Some(next);
        self.buffer.clear();
        Ok(true)
    }

    /// Finds out what became of the current file, after it was read to its end.
    fn look_again(&mut self) -> Result<Look, Error> {
        let Some(source) = &mut self.current else {
            return Ok(Look::Newer(source::open_all(&self.options)?.into_iter().rev().collect()));
        };
        let failed = |error| Error::new("read", &self.options.path, error);
        let size = source.plain().map_or(Ok(u64::MAX), |file| file.metadata().map(|metadata| metadata.len()));
        if size.map_err(failed)? < source.position {
            // Somebody emptied the file by hand.
            source.seek(0).map_err(failed)?;
            self.buffer.clear();
            return Ok(Look::More);
        }
        match source::current(&self.options) {
            Some(identity) if identity == source.identity => return Ok(Look::Nothing),
            // Between the renaming of the old file and the making of the new one.
            None => return Ok(Look::Nothing),
            Some(_) => {}
        }
        if !std::mem::replace(&mut self.rotated, true) {
            // More may have been written between the last read and the rotation.
            return Ok(Look::More);
        }
        let mut sources = source::open_all(&self.options)?;
        let same = match sources.iter().position(|other| other.identity == source.identity) {
            Some(position) => Some(position),
            // It was compressed or removed meanwhile. If nothing has its content, everything came after it.
            None => source::find_content(source, &mut sources).map_err(failed)?,
        };
        if let Some(position) = same {
            sources.truncate(position);
        }
        Ok(Look::Newer(sources.into_iter().rev().collect()))
    }
}

/// What came after the end of a file.
enum Look {
    Nothing,
    /// More in the same file, perhaps.
    More,
    /// Its successors, the oldest first.
    Newer(VecDeque<Source>),
}

/// Leaves out the files (the newest first) that hold nothing beyond a number.
fn leave_out(sources: &mut Vec<Source>, after: u64) -> std::io::Result<()> {
    for index in 0..sources.len() {
        let first = number::first(&mut sources[index])?;
        if first != 0 && first <= after.saturating_add(1) {
            sources.truncate(index + 1);
            break;
        }
    }
    Ok(())
}

/// Watches the log's folder: a watch on the file itself would not see its successor.
fn watch(path: &Path) -> Option<OwnedFd> {
    let directory = path.parent()?;
    let descriptor = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    let changes = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&descriptor, directory, changes).ok()?;
    Some(descriptor)
}

/// Bytes of the current file.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// What is not yet taken.
    start: usize,
    end: usize,
    /// Up to where there is no newline.
    searched: usize,
    /// Within a record that is too long.
    skipping: bool,
    corrupt: bool,
}

enum Frame {
    /// Where it lies; it counts as taken.
    Complete(Range<usize>),
    Incomplete,
    /// Nothing more can be made of this file.
    Corrupt,
}

impl Buffer {
    fn clear(&mut self) {
        (self.start, self.end, self.searched) = (0, 0, 0);
        (self.skipping, self.corrupt) = (false, false);
    }

    /// Gives back the memory, if nothing is in it.
    fn release(&mut self) {
        if self.start == self.end {
            self.bytes = Vec::new();
            (self.start, self.end, self.searched) = (0, 0, 0);
        }
    }

    fn frame(&mut self, driver: Driver) -> Frame {
        match driver {
            Driver::JsonFile => self.line(),
            Driver::Local => self.message(),
        }
    }

    /// What is there, if it begins with a record.
    fn records(&mut self) -> Option<&mut [u8]> {
        let begins = self.searched == self.start && !self.skipping;
        begins.then(|| &mut self.bytes[self.start..self.end])
    }

    /// Takes whole records.
    fn take(&mut self, length: usize) {
        self.start += length;
        self.searched = self.searched.max(self.start);
    }

    fn line(&mut self) -> Frame {
        loop {
            let Some(length) = memchr::memchr(b'\n', &self.bytes[self.searched..self.end]) else {
                self.searched = self.end;
                if self.end - self.start > RECORD_MAX {
                    self.skipping = true;
                }
                if self.skipping {
                    self.start = self.end;
                }
                return Frame::Incomplete;
            };
            let range = self.start..self.searched + length;
            self.start = range.end + 1;
            self.searched = self.start;
            if !std::mem::take(&mut self.skipping) {
                return Frame::Complete(range);
            }
        }
    }

    fn message(&mut self) -> Frame {
        let there = &self.bytes[self.start..self.end];
        let Some(first) = there.first_chunk::<{ local::LENGTH }>() else { return Frame::Incomplete };
        let length = u32::from_be_bytes(*first) as usize;
        if length > RECORD_MAX || self.corrupt {
            self.corrupt = true;
            return Frame::Corrupt;
        }
        let total = length + 2 * local::LENGTH;
        let Some(frame) = there.get(..total) else { return Frame::Incomplete };
        if !frame.ends_with(first) {
            self.corrupt = true;
            return Frame::Corrupt;
        }
        self.start += total;
        Frame::Complete(self.start - total..self.start)
    }

    /// Reads more behind what is there; 0 at the end of the file.
    fn fill(&mut self, source: &mut Source) -> std::io::Result<usize> {
        if self.start > 0 && (self.start == self.end || self.end == self.bytes.len()) {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.end, self.searched) = (self.end - self.start, self.searched.saturating_sub(self.start));
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            // A record longer than the buffer; its length is bounded by `line` and `message`.
            self.bytes.resize((self.bytes.len() * 2).max(BUFFER), 0);
        }
        let count = source.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }
}
