//! Docker's local format: a protobuf message between two copies of its length (big-endian `u32`).
//!
//! ```text
//! message Entry     { string source = 1; int64 time_nano = 2; bytes line = 3; bool partial = 4; Partial meta = 5;
//!                     repeated Attribute attrs = 6; uint64 number = 15; }
//! message Partial   { bool last = 1; string id = 2; int32 ordinal = 3; }
//! message Attribute { string key = 1; string value = 2; }
//! ```
//! A line is stored without its newline; a reader adds it, unless the entry is partial and not the last. The number
//! is ours, and Docker's reader skips it: it counts the records of a log that is shipped elsewhere, and stands
//! first, so that a file's first number is found without reading more.

use std::collections::BTreeMap;

use crate::record::{AttributeForm, Found, FoundPart, Span, Stream};

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

/// What stands in a record beside the line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extras<'a> {
    pub part: Option<Part>,
    /// 0: none.
    pub number: u64,
    /// As [`attributes`] makes them.
    pub attributes: &'a [u8],
}

const NUMBER: u8 = 15 << 3;
const ATTRIBUTE: u8 = 6 << 3 | 2;

/// Attributes in the form that stands in records.
pub(crate) fn attributes(all: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in all {
        let mut message = Vec::new();
        bytes(1, name.as_bytes(), &mut message);
        bytes(2, value.as_bytes(), &mut message);
        bytes(6, &message, &mut out);
    }
    out
}

/// Appends one record. `line` comes without its newline.
pub(crate) fn append(time: i64, stream: Stream, line: &[u8], extras: Extras<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    if extras.number != 0 {
        out.push(NUMBER);
        varint(extras.number, out);
    }
    bytes(1, stream.name().as_bytes(), out);
    if time != 0 {
        out.push(2 << 3);
        varint(time as u64, out);
    }
    if !line.is_empty() {
        bytes(3, line, out);
    }
    if let Some(part) = extras.part {
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
    out.extend_from_slice(extras.attributes);
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
    let mut entry = Entry::default();
    let mut fields = Fields { bytes: frame, at: LENGTH, end };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(span)) => entry.stream = Stream::parse(span.of(frame)),
            (2, Value::Number(number)) => entry.time = number as i64,
            (3, Value::Bytes(span)) => entry.line = span,
            (4, Value::Number(number)) => entry.partial = number != 0,
            (5, Value::Bytes(span)) => entry.part = part(frame, span)?,
            (6, Value::Bytes(span)) => {
                // From the first one's length on: its key gives way to the line's newline.
                if entry.attributes == Span::EMPTY {
                    entry.attributes.start = span.start - length_of_varint(span.end - span.start);
                }
                entry.attributes.end = span.end;
            }
            (15, Value::Number(number)) => entry.number = number,
            _ => {}
        }
    }
    let Entry { stream, time, mut line, partial, part, attributes, number } = entry;
    let part = partial.then_some(part);
    let partial = part.is_some_and(|part| !part.last);
    if line == Span::EMPTY {
        line = Span { start: end, end };
    }
    if !partial {
        // At least the second copy of the length follows.
        frame[line.end] = b'\n';
        line.end += 1;
    }
    let form = AttributeForm::Protobuf;
    Some(Found { time, stream: stream?, partial, line, part, number, attributes, form })
}

/// The number of the record whose beginning is given, from its length on; 0 if it has none.
pub(crate) fn number_at(start: &[u8]) -> u64 {
    match start.get(LENGTH) {
        Some(&NUMBER) => {
            Fields { bytes: start, at: LENGTH + 1, end: start.len() }.varint().unwrap_or_default()
        }
        _ => 0,
    }
}

/// Reads attributes that [`decode`] found.
pub(crate) fn read_attributes(found: &[u8]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut fields = Fields { bytes: found, at: 0, end: found.len() };
    // The first one's key is not there.
    let mut key = Some(u64::from(ATTRIBUTE));
    while key == Some(u64::from(ATTRIBUTE)) {
        let Some(span) = fields.varint().and_then(|length| fields.bytes_of(length)) else { break };
        if let Some((name, value)) = attribute(found, span) {
            all.insert(name, value);
        }
        key = fields.varint();
    }
    all
}

fn attribute(bytes: &[u8], span: Span) -> Option<(String, String)> {
    let mut fields = Fields { bytes, at: span.start, end: span.end };
    let (mut name, mut value) = (String::new(), String::new());
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(span)) => name = String::from_utf8_lossy(span.of(bytes)).into_owned(),
            (2, Value::Bytes(span)) => value = String::from_utf8_lossy(span.of(bytes)).into_owned(),
            _ => {}
        }
    }
    Some((name, value))
}

fn length_of_varint(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[derive(Default)]
struct Entry {
    stream: Option<Stream>,
    time: i64,
    line: Span,
    partial: bool,
    part: FoundPart,
    attributes: Span,
    number: u64,
}

fn part(frame: &[u8], span: Span) -> Option<FoundPart> {
    let mut fields = Fields { bytes: frame, at: span.start, end: span.end };
    let mut part = FoundPart::default();
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => part.last = number != 0,
            (2, Value::Bytes(span)) => part.id = span,
            (3, Value::Number(number)) => part.ordinal = u32::try_from(number).unwrap_or(u32::MAX),
            _ => {}
        }
    }
    Some(part)
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
                let length = self.varint()?;
                Value::Bytes(self.bytes_of(length)?)
            }
            5 => self.skip(4)?,
            _ => return None,
        };
        Some(Some((key >> 3, value)))
    }

    fn bytes_of(&mut self, length: u64) -> Option<Span> {
        let start = self.at;
        self.skip(usize::try_from(length).ok()?)?;
        Some(Span { start, end: self.at })
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
        append(300, Stream::Stdout, b"hi", Extras::default(), &mut out);
        assert_eq!(out, b"\0\0\0\x0f\x0a\x06stdout\x10\xac\x02\x1a\x02hi\0\0\0\x0f");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            line in proptest::collection::vec(any::<u8>(), 0..300),
            time in any::<i64>(),
            part in proptest::option::of((any::<u64>(), 1..100u32, any::<bool>())),
            number in any::<u64>(),
            named in proptest::collection::btree_map(".{0,9}", ".{0,200}", 0..4),
        ) {
            let part = part.map(|(id, ordinal, last)| Part { id, ordinal, last });
            let encoded = attributes(&named);
            let mut out = Vec::new();
            append(time, Stream::Stderr, &line, Extras { part, number, attributes: &encoded }, &mut out);
            prop_assert_eq!(number_at(&out), number);
            let found = decode(&mut out).unwrap();
            let record = found.record(&out);
            let mut expected = line;
            let partial = part.is_some_and(|part| !part.last);
            if !partial {
                expected.push(b'\n');
            }
            prop_assert_eq!((record.time, record.stream, record.partial), (time, Stream::Stderr, partial));
            prop_assert_eq!((record.line, record.number), (&expected[..], number));
            prop_assert_eq!(record.attributes(), named);
            let read = record.part.map(|part| (part.id.to_vec(), part.ordinal, part.last));
            let wanted = part.map(|part| (format!("{:016x}", part.id).into_bytes(), part.ordinal, part.last));
            prop_assert_eq!(read, wanted);
        }

        #[test]
        fn decoding_never_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..100)) {
            number_at(&frame);
            read_attributes(&frame);
            decode(&mut frame);
        }
    }
}
