//! One line of output, or a part of one.

use std::collections::BTreeMap;

/// Which of its two outputs a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// As names are in log files; none for a name that no container's output has.
    pub(crate) fn parse(name: &[u8]) -> Option<Stream> {
        match name {
            b"stdout" => Some(Stream::Stdout),
            b"stderr" => Some(Stream::Stderr),
            _ => None,
        }
    }

    /// The first byte of a frame in Docker's multiplexed streams.
    pub fn frame_type(self) -> u8 {
        match self {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }
}

/// What a log has of one line. Borrowed from the reader's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unix time in nanoseconds.
    pub time: i64,
    pub stream: Stream,
    /// With the newline, unless [`Record::partial`].
    pub line: &'a [u8],
    /// The line goes on in the next record of this stream, or the stream ended without a newline.
    pub partial: bool,
    /// How the record is a part of a line, as it stands in the file; empty if it is a whole one.
    pub(crate) part: &'a [u8],
    /// Counted from 1, without a gap; 0 in logs that are not counted.
    pub number: u64,
    /// The attributes as they stand in the file; empty if there are none.
    pub(crate) attributes: &'a [u8],
    pub(crate) form: AttributeForm,
}

/// How a part of a long line belongs to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The same for all parts of a line.
    pub id: &'a [u8],
    /// Counted from 1.
    pub ordinal: u32,
    pub last: bool,
}

/// How attributes stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum AttributeForm {
    #[default]
    Json,
    Protobuf,
}

impl<'a> Record<'a> {
    /// The record is a part of a line (local driver only).
    pub fn part(&self) -> Option<Part<'a>> {
        if self.part.is_empty() { None } else { crate::local::read_part(self.part) }
    }

    /// Attributes by name; those that are no strings are left out.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        if self.attributes.is_empty() {
            return BTreeMap::new();
        }
        if self.form == AttributeForm::Protobuf {
            return crate::local::read_attributes(self.attributes);
        }
        let parsed: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(self.attributes).unwrap_or_default();
        parsed
            .into_iter()
            .filter_map(|(name, value)| match value {
                serde_json::Value::String(value) => Some((name, value)),
                _ => None,
            })
            .collect()
    }
}

/// Where a record's parts lie in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub const EMPTY: Span = Span { start: 0, end: 0 };

    /// The same place in bytes that start so much earlier.
    pub fn after(self, offset: usize) -> Span {
        if self == Span::EMPTY { self } else { Span { start: self.start + offset, end: self.end + offset } }
    }

    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start..self.end).unwrap_or_default()
    }
}

/// A record found in a buffer, not yet borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub time: i64,
    pub stream: Stream,
    pub partial: bool,
    pub line: Span,
    pub part: Span,
    pub number: u64,
    pub attributes: Span,
    pub form: AttributeForm,
}

impl Found {
    /// Makes the places count from so much earlier.
    pub fn move_by(&mut self, offset: usize) {
        for span in [&mut self.line, &mut self.part, &mut self.attributes] {
            *span = span.after(offset);
        }
    }

    pub fn record(self, buffer: &[u8]) -> Record<'_> {
        Record {
            time: self.time,
            stream: self.stream,
            line: self.line.of(buffer),
            partial: self.partial,
            part: self.part.of(buffer),
            number: self.number,
            attributes: self.attributes.of(buffer),
            form: self.form,
        }
    }
}
