//! Docker's local format: a protobuf message between two copies of its length (big-endian `u32`).
//!
//! ```text
//! message Entry   { string source = 1; int64 time_nano = 2; bytes line = 3; bool partial = 4; Partial meta = 5; }
//! message Partial { bool last = 1; string id = 2; int32 ordinal = 3; }
//! ```
//! A line is stored without its newline; a reader adds it, unless the entry is partial and not the last.

use crate::record::{Found, Span, Stream};

/// Bytes of one copy of the length.
pub(crate) const LENGTH: usize = 4;

/// How the parts of a long line belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// The same for all parts of a line.
    pub id: u64,
    /// Counted from 1.
    pub ordinal: u32,
    pub last: bool,
}

/// Appends one record. `line` comes without its newline.
pub(crate) fn append(time: i64, stream: Stream, line: &[u8], part: Option<Part>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    bytes(1, stream.name().as_bytes(), out);
    if time != 0 {
        out.push(2 << 3);
        varint(time as u64, out);
    }
    if !line.is_empty() {
        bytes(3, line, out);
    }
    if let Some(part) = part {
        out.extend_from_slice(&[4 << 3, 1]);
        let mut message = Vec::with_capacity(32);
        if part.last {
            message.extend_from_slice(&[1 << 3, 1]);
        }
        bytes(2, format!("{:016x}", part.id).as_bytes(), &mut message);
        message.push(3 << 3);
        varint(part.ordinal.into(), &mut message);
        bytes(5, &message, out);
    }
    let length = ((out.len() - start - LENGTH) as u32).to_be_bytes();
    out[start..start + LENGTH].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(field: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Decodes `frame`, a message with both copies of its length; none if it is not one. Spans are relative to the
/// frame; the newline is put behind the line, over bytes that are no longer needed.
pub(crate) fn decode(frame: &mut [u8]) -> Option<Found> {
    let end = frame.len().checked_sub(LENGTH)?;
    let mut entry = Entry { stream: None, time: 0, line: Span::EMPTY, partial: false, last: false };
    let mut fields = Fields { bytes: frame, at: LENGTH, end };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(span)) => entry.stream = Stream::parse(span.of(frame)),
            (2, Value::Number(number)) => entry.time = number as i64,
            (3, Value::Bytes(span)) => entry.line = span,
            (4, Value::Number(number)) => entry.partial = number != 0,
            (5, Value::Bytes(span)) => entry.last = is_last(frame, span)?,
            _ => {}
        }
    }
    let Entry { stream, time, mut line, partial, last } = entry;
    let partial = partial && !last;
    if line == Span::EMPTY {
        line = Span { start: end, end };
    }
    if !partial {
        // At least the second copy of the length follows.
        frame[line.end] = b'\n';
        line.end += 1;
    }
    Some(Found { time, stream: stream?, partial, line, attributes: Span::EMPTY })
}

struct Entry {
    stream: Option<Stream>,
    time: i64,
    line: Span,
    partial: bool,
    last: bool,
}

fn is_last(frame: &[u8], span: Span) -> Option<bool> {
    let mut fields = Fields { bytes: frame, at: span.start, end: span.end };
    let mut last = false;
    while let Some(field) = fields.next()? {
        if let (1, Value::Number(number)) = field {
            last = number != 0;
        }
    }
    Some(last)
}

enum Value {
    Number(u64),
    Bytes(Span),
    /// Fixed-width numbers, which no field of ours has.
    Other,
}

/// The fields of a protobuf message.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Fields<'_> {
    /// The next field's number and value; the outer option is none if the message is malformed.
    fn next(&mut self) -> Option<Option<(u64, Value)>> {
        if self.at == self.end {
            return Some(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(8)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let start = self.at;
                self.skip(length)?;
                Value::Bytes(Span { start, end: self.at })
            }
            5 => self.skip(4)?,
            _ => return None,
        };
        Some(Some((key >> 3, value)))
    }

    fn skip(&mut self, length: usize) -> Option<Value> {
        let at = self.at.checked_add(length)?;
        if at > self.end {
            return None;
        }
        self.at = at;
        Some(Value::Other)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes[..self.end].get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_as_docker_writes_it() {
        let mut out = Vec::new();
        append(300, Stream::Stdout, b"hi", None, &mut out);
        assert_eq!(out, b"\0\0\0\x0f\x0a\x06stdout\x10\xac\x02\x1a\x02hi\0\0\0\x0f");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            line in proptest::collection::vec(any::<u8>(), 0..300),
            time in any::<i64>(),
            part in proptest::option::of((any::<u64>(), 1..100u32, any::<bool>())),
        ) {
            let part = part.map(|(id, ordinal, last)| Part { id, ordinal, last });
            let mut out = Vec::new();
            append(time, Stream::Stderr, &line, part, &mut out);
            let found = decode(&mut out).unwrap();
            let record = found.record(&out);
            let mut expected = line;
            let partial = part.is_some_and(|part| !part.last);
            if !partial {
                expected.push(b'\n');
            }
            prop_assert_eq!((record.time, record.stream, record.partial), (time, Stream::Stderr, partial));
            prop_assert_eq!(record.line, &expected[..]);
        }

        #[test]
        fn decoding_never_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..100)) {
            decode(&mut frame);
        }
    }
}
