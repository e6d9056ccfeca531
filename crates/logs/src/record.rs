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
    /// The attributes as the JSON object that stands in the file; empty if there are none.
    pub(crate) attributes_json: &'a [u8],
}

impl Record<'_> {
    /// Attributes by name; those that are no strings are left out.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        if self.attributes_json.is_empty() {
            return BTreeMap::new();
        }
        let parsed: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(self.attributes_json).unwrap_or_default();
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub const EMPTY: Span = Span { start: 0, end: 0 };

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
    pub attributes: Span,
}

impl Found {
    pub fn record(self, buffer: &[u8]) -> Record<'_> {
        Record {
            time: self.time,
            stream: self.stream,
            line: self.line.of(buffer),
            partial: self.partial,
            attributes_json: self.attributes.of(buffer),
        }
    }
}
