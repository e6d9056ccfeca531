//! Fluentd's forward protocol: MessagePack, one message per record, or one for many with an acknowledgement.

use std::collections::BTreeMap;

use crate::Record;

/// What all messages of one log share.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// The tag, encoded.
    tag: Vec<u8>,
    /// Pairs that all records share, encoded, and how many they are.
    shared: Vec<u8>,
    shared_count: u32,
    /// Times have nanoseconds.
    precise: bool,
}

impl Encoder {
    pub fn new(tag: &str, shared: &BTreeMap<String, String>, precise: bool) -> Encoder {
        let (mut tag_text, mut pairs) = (Vec::new(), Vec::new());
        string(tag.as_bytes(), &mut tag_text);
        for (name, value) in shared {
            string(name.as_bytes(), &mut pairs);
            string(value.as_bytes(), &mut pairs);
        }
        let shared_count = u32::try_from(shared.len()).unwrap_or(u32::MAX);
        Encoder { tag: tag_text, shared: pairs, shared_count, precise }
    }

    /// Appends a message of one record: `[tag, time, record, {}]`.
    pub fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.push(0x94);
        out.extend_from_slice(&self.tag);
        self.append_event(record, out);
        out.push(0x80);
    }

    /// Appends an entry of a [`Encoder::frame`].
    pub fn append_entry(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.push(0x92);
        self.append_event(record, out);
    }

    /// What comes before and after `count` entries so that the receiver acknowledges them by `chunk`:
    /// `[tag, [entries], {"chunk": chunk}]`.
    pub fn frame(&self, count: u32, chunk: &str) -> (Vec<u8>, Vec<u8>) {
        let mut before = vec![0x93];
        before.extend_from_slice(&self.tag);
        before.push(0xdd);
        before.extend_from_slice(&count.to_be_bytes());
        let mut after = vec![0x81];
        string(b"chunk", &mut after);
        string(chunk.as_bytes(), &mut after);
        (before, after)
    }

    fn append_event(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let seconds = record.time.div_euclid(1_000_000_000);
        if self.precise {
            out.extend_from_slice(&[0xd7, 0]);
            out.extend_from_slice(&(seconds as u32).to_be_bytes());
            out.extend_from_slice(&(record.time.rem_euclid(1_000_000_000) as u32).to_be_bytes());
        } else {
            out.push(0xd3);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        let count = self.shared_count + 2 + if record.part.is_some() { 4 } else { 0 };
        out.push(0xdf);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&self.shared);
        let mut pair = |name: &str, value: &[u8]| {
            string(name.as_bytes(), out);
            string(value, out);
        };
        pair("source", record.stream.name().as_bytes());
        pair("log", super::line(record));
        if let Some(part) = record.part {
            pair("partial_message", b"true");
            pair("partial_id", part.id);
            pair("partial_ordinal", part.ordinal.to_string().as_bytes());
            pair("partial_last", part.last.to_string().as_bytes());
        }
    }
}

/// A string, of any bytes as Go has them.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes.len() {
        length @ 0..=31 => out.push(0xa0 | length as u8),
        length @ 32..=0xff => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 0x100..=0xffff => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

/// Longest answer that is read, in bytes.
pub const ANSWER_MAX: usize = 4096;

/// What a receiver's answer is, as far as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of it: the chunk that it acknowledges, and the answer's length.
    Acknowledged {
        chunk: String,
        length: usize,
    },
    Incomplete,
    /// It is no answer of this protocol.
    Malformed,
}

/// Reads an answer: a map with the chunk's name at `ack`, and any other short strings and numbers.
pub fn answer(bytes: &[u8]) -> Answer {
    let mut at = 0;
    match read_answer(bytes, &mut at) {
        Ok(Some(chunk)) => Answer::Acknowledged { chunk, length: at },
        Err(Broken::Short) if bytes.len() < ANSWER_MAX => Answer::Incomplete,
        Ok(None) | Err(_) => Answer::Malformed,
    }
}

enum Broken {
    /// More has to come.
    Short,
    Odd,
}

fn read_answer(bytes: &[u8], at: &mut usize) -> Result<Option<String>, Broken> {
    let count = match take(bytes, at, 1)?[0] {
        head @ 0x80..=0x8f => u64::from(head & 0x0f),
        0xde => number(take(bytes, at, 2)?),
        0xdf => number(take(bytes, at, 4)?),
        _ => return Err(Broken::Odd),
    };
    let mut chunk = None;
    for _ in 0..count {
        let name = value(bytes, at)?;
        let value = value(bytes, at)?;
        if name == Some(b"ack") {
            chunk = value.map(|value| String::from_utf8_lossy(value).into_owned());
        }
    }
    Ok(chunk)
}

/// The next value; none if it is not a string.
fn value<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, Broken> {
    let width = |width| Ok::<usize, Broken>(width);
    let length = match take(bytes, at, 1)?[0] {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => return Ok(None),
        head @ 0xcc..=0xd3 => {
            take(bytes, at, 1 << (head & 3))?;
            return Ok(None);
        }
        0xca => return take(bytes, at, 4).map(|_| None),
        0xcb => return take(bytes, at, 8).map(|_| None),
        head @ 0xa0..=0xbf => width(usize::from(head & 0x1f)),
        0xc4 | 0xd9 => width(number(take(bytes, at, 1)?) as usize),
        0xc5 | 0xda => width(number(take(bytes, at, 2)?) as usize),
        _ => Err(Broken::Odd),
    }?;
    take(bytes, at, length).map(Some)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, count: usize) -> Result<&'a [u8], Broken> {
    let taken = bytes.get(*at..*at + count).ok_or(Broken::Short)?;
    *at += count;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;
    use crate::record::{AttributeForm, Part};
    use proptest::prelude::*;

    #[test]
    fn messages() {
        let shared = BTreeMap::from([("container_name".into(), "/web".into())]);
        let record = |part| Record {
            time: 1_700_000_000_000_000_005,
            stream: Stream::Stdout,
            line: b"hi\xff\n",
            partial: false,
            part,
            number: 1,
            attributes: b"",
            form: AttributeForm::Json,
        };
        let mut out = Vec::new();
        Encoder::new("t", &shared, false).append(&record(None), &mut out);
        let wanted: &[u8] = b"\x94\xa1t\xd3\0\0\0\0\x65\x53\xf1\0\xdf\0\0\0\x03\xaecontainer_name\xa4/web\
            \xa6source\xa6stdout\xa3log\xa3hi\xff\x80";
        assert_eq!(out, wanted);
        out.clear();
        let part = Part { id: b"ab", ordinal: 2, last: true };
        Encoder::new("t", &BTreeMap::new(), true).append_entry(&record(Some(part)), &mut out);
        let wanted: &[u8] =
            b"\x92\xd7\0\x65\x53\xf1\0\0\0\0\x05\xdf\0\0\0\x06\xa6source\xa6stdout\xa3log\xa3hi\xff\
            \xafpartial_message\xa4true\xaapartial_id\xa2ab\xafpartial_ordinal\xa12\xacpartial_last\xa4true";
        assert_eq!(out, wanted);
    }

    #[test]
    fn answers() {
        let whole = b"\x82\xa1x\x05\xa3ack\xa4abcd";
        let wanted = Answer::Acknowledged { chunk: "abcd".into(), length: whole.len() };
        assert_eq!(answer(whole), wanted);
        for cut in 0..whole.len() {
            assert_eq!(answer(&whole[..cut]), Answer::Incomplete);
        }
        assert_eq!(answer(b"\x81\xa3ack\x90"), Answer::Malformed);
        assert_eq!(answer(b"HTTP/1.1 400"), Answer::Malformed);
    }

    proptest! {
        #[test]
        fn reading_answers_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            answer(&bytes);
        }
    }
}
