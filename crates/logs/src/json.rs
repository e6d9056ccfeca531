//! Docker's json-file format: `{"log":"line\n","stream":"stdout","attrs":{…},"time":"…Z"}` per line.
//!
//! Both directions have a fast path over eight bytes at a time. Strings are escaped as Docker's own encoder does
//! it: `\"`, `\\`, `\n`, `\r`, `\u00xx` for other control characters and for `<`, `>`, `&`; `\u2028` and `\u2029`;
//! and `\ufffd` for each byte that is not UTF-8.

use std::collections::BTreeMap;
use std::ops::Range;

use memchr::memchr3;
use serde::Deserialize;

use crate::record::{AttributeForm, Found, Span, Stream};
use crate::time::{self, NANOSECONDS};

// --- writing

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Marks the zero bytes of a word by their top bits. Exact up to and including the lowest one.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & TOPS
}

/// How many bytes at the front need no escape. With `ASCII`, a byte beyond ASCII ends the run; without, only the
/// first byte of U+2028 does (and of others with it).
fn clean<const ASCII: bool>(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let mut special = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        special |= zeros(word ^ (ONES * b'\\' as u64));
        // `"` and `&` differ in one bit, `<` and `>` in another.
        special |= zeros((word | (ONES * 0x04)) ^ (ONES * b'&' as u64));
        special |= zeros((word | (ONES * 0x02)) ^ (ONES * b'>' as u64));
        special |= if ASCII { word & TOPS } else { zeros(word ^ (ONES * 0xe2)) };
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let beyond = if ASCII { 0x80..=0xff } else { 0xe2..=0xe2 };
    let special = |byte: &u8| *byte < 0x20 || br#"\"&<>"#.contains(byte) || beyond.contains(byte);
    text.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

/// Appends the inside of a JSON string.
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let (run, special) = rest.split_at(clean::<true>(rest));
        out.extend_from_slice(run);
        match special.split_first() {
            None => return,
            Some((0x80.., _)) => return escape_unicode(special, out),
            Some((&byte, after)) => {
                escape_ascii(byte, out);
                rest = after;
            }
        }
    }
}

fn escape_unicode(text: &[u8], out: &mut Vec<u8>) {
    if let Ok(text) = std::str::from_utf8(text) {
        return escape_valid(text, out);
    }
    for chunk in text.utf8_chunks() {
        escape_valid(chunk.valid(), out);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_valid(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    loop {
        let (run, special) = rest.split_at(clean::<false>(rest));
        out.extend_from_slice(run);
        rest = match *special {
            [] => return,
            [0xe2, 0x80, last @ (0xa8 | 0xa9), ref after @ ..] => {
                out.extend_from_slice(if last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                after
            }
            [byte @ 0x80..=0xff, ref after @ ..] => {
                out.push(byte);
                after
            }
            [byte, ref after @ ..] => {
                escape_ascii(byte, out);
                after
            }
        };
    }
}

fn escape_ascii(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

/// Makes records; what all of them share is made once.
#[derive(Debug)]
pub(crate) struct Encoder {
    times: time::Formatter,
    /// From the closing quote of the line to the opening quote of the time, by stream.
    middle: [Vec<u8>; 2],
}

impl Encoder {
    pub fn new(attributes: &BTreeMap<String, String>) -> Encoder {
        let middle = [Stream::Stdout, Stream::Stderr].map(|stream| {
            let mut text = format!("\",\"stream\":\"{}\",", stream.name()).into_bytes();
            if !attributes.is_empty() {
                text.extend_from_slice(b"\"attrs\":{");
                for (index, (name, value)) in attributes.iter().enumerate() {
                    text.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
                    escape(name.as_bytes(), &mut text);
                    text.extend_from_slice(b"\":\"");
                    escape(value.as_bytes(), &mut text);
                    text.push(b'"');
                }
                text.extend_from_slice(b"},");
            }
            text.extend_from_slice(b"\"time\":\"");
            text
        });
        Encoder { times: time::Formatter::new(), middle }
    }

    /// Appends one record. `line` comes without its newline.
    pub fn append(&mut self, time: i64, stream: Stream, line: &[u8], partial: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"log\":\"");
        escape(line, out);
        if !partial {
            out.extend_from_slice(b"\\n");
        }
        out.extend_from_slice(&self.middle[stream as usize]);
        self.times.append(time, false, out);
        out.extend_from_slice(b"\"}\n");
    }
}

// --- reading

/// Reads records. Strings are unescaped where they stand, since that never makes them longer.
#[derive(Debug)]
pub(crate) struct Decoder {
    times: time::Parser,
    last: Tail,
}

/// What followed the text of the last record, from its closing quote to the second of its time: that of the next is
/// mostly the same.
#[derive(Debug)]
struct Tail {
    /// Empty if there is none.
    bytes: Vec<u8>,
    stream: Stream,
    /// Where the attributes lie in these bytes.
    attributes: Span,
    /// Unix nanoseconds of the second.
    second: i64,
}

/// Longest tail that is remembered, in bytes. One without attributes has 50.
const TAIL_MAX: usize = 1024;
const HEAD: &[u8] = b"{\"log\":\"";

impl Decoder {
    pub fn new() -> Decoder {
        let last = Tail { bytes: Vec::new(), stream: Stream::Stdout, attributes: Span::EMPTY, second: 0 };
        Decoder { times: time::Parser::new(), last }
    }

    /// Decodes the record at the front of `bytes` if it ends like the last one, which is told without looking for its
    /// end; then also its length, with the newline. None leaves the bytes as they are.
    #[inline]
    pub fn again(&mut self, bytes: &mut [u8]) -> Option<(Found, usize)> {
        if self.last.bytes.is_empty() || !bytes.starts_with(HEAD) {
            return None;
        }
        let (escape, close) = string(bytes, HEAD.len())?;
        let rest = bytes[close..].strip_prefix(self.last.bytes.as_slice())?;
        let (nanoseconds, rest) = calendar::parse_fraction(rest)?;
        let length = bytes.len() - rest.strip_prefix(b"Z\"}\n")?.len();
        // With a malformed escape it is no record, whoever decodes it.
        let end = unescape(bytes, escape, close)?;
        let Tail { stream, attributes, second, .. } = self.last;
        let time = second + i64::from(nanoseconds);
        Some((found(time, stream, HEAD.len()..end, attributes.after(close), bytes), length))
    }

    /// Decodes the record `line` (without its newline), which may be changed; none if it is not one.
    pub fn decode(&mut self, line: &mut [u8]) -> Option<Decoded> {
        match self.fast(line) {
            Fast::Found(found) => Some(Decoded::InPlace(found)),
            Fast::Unusual => self.slow(line),
            Fast::Broken => None,
        }
    }

    fn fast(&mut self, line: &mut [u8]) -> Fast {
        if !line.starts_with(HEAD) {
            return Fast::Unusual;
        }
        // Nothing is changed until the rest of the record proved to be of the usual form, so that the slow path
        // still finds the text.
        let Some((escape, close)) = string(line, HEAD.len()) else { return Fast::Unusual };
        let Some(Rest { stream, attributes, time, fraction }) = self.rest(line, close) else {
            return Fast::Unusual;
        };
        let tail = &line[close..];
        self.last.bytes.clear();
        if tail.ends_with(b"Z\"}") && fraction < TAIL_MAX {
            self.last.bytes.extend_from_slice(&tail[..fraction]);
            let second = time - time.rem_euclid(NANOSECONDS);
            (self.last.stream, self.last.attributes, self.last.second) = (stream, attributes, second);
        }
        let Some(end) = unescape(line, escape, close) else { return Fast::Broken };
        Fast::Found(found(time, stream, HEAD.len()..end, attributes.after(close), line))
    }

    /// What follows the line's closing quote at `close`.
    fn rest(&mut self, line: &[u8], close: usize) -> Option<Rest> {
        let tail = line.get(close..)?;
        let (stream, rest) = tail.strip_prefix(b"\",\"stream\":\"")?.split_at_checked(6)?;
        let stream = Stream::parse(stream)?;
        let mut rest = rest.strip_prefix(b"\",\"")?;
        let mut attributes = Span::EMPTY;
        if let Some(object) = rest.strip_prefix(b"attrs\":") {
            let start = tail.len() - object.len();
            let end = start + flat_object(object)?;
            attributes = Span { start, end };
            rest = tail[end..].strip_prefix(b",\"")?;
        }
        let text = rest.strip_prefix(b"time\":\"")?.strip_suffix(b"\"}")?;
        let time = self.times.parse(text)?;
        let fraction = tail.len() - b"\"}".len() - text.len() + time::TO_SECOND;
        Some(Rest { stream, attributes, time, fraction })
    }

    fn slow(&mut self, line: &[u8]) -> Option<Decoded> {
        let parsed: Unusual<'_> = serde_json::from_slice(line).ok()?;
        let stream = Stream::parse(parsed.stream.as_bytes())?;
        let time = self.times.parse(parsed.time.as_bytes())?;
        let mut bytes = parsed.log.into_owned().into_bytes();
        let end = bytes.len();
        if let Some(attributes) = parsed.attrs {
            bytes.extend_from_slice(attributes.get().as_bytes());
        }
        let attributes = Span { start: end, end: bytes.len() };
        Some(Decoded::Apart(found(time, stream, 0..end, attributes, &bytes), bytes))
    }
}

/// A record whose text and attributes lie in `bytes`.
fn found(time: i64, stream: Stream, text: Range<usize>, attributes: Span, bytes: &[u8]) -> Found {
    Found {
        time,
        stream,
        partial: text.is_empty() || bytes[text.end - 1] != b'\n',
        line: Span { start: text.start, end: text.end },
        part: Span::EMPTY,
        number: 0,
        attributes,
        form: AttributeForm::Json,
    }
}

/// What follows a record's text. Places count from the text's closing quote.
struct Rest {
    stream: Stream,
    attributes: Span,
    time: i64,
    /// Where the time's second ends.
    fraction: usize,
}

enum Fast {
    Found(Found),
    /// Unchanged.
    Unusual,
    /// Not JSON, and changed half-way.
    Broken,
}

/// A decoded record.
pub(crate) enum Decoded {
    /// Its spans are in the line that was given.
    InPlace(Found),
    /// Its spans are in these bytes.
    Apart(Found, Vec<u8>),
}

/// Any JSON object with the right members.
#[derive(Deserialize)]
struct Unusual<'a> {
    #[serde(borrow, default)]
    log: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    attrs: Option<&'a serde_json::value::RawValue>,
}

/// The positions of the first escape in the string starting at `start`, and of the quote that ends it; twice that of the
/// quote if nothing is escaped. None if it does not end, or has a newline within.
#[inline]
fn string(line: &[u8], start: usize) -> Option<(usize, usize)> {
    let first = start + memchr3(b'"', b'\\', b'\n', line.get(start..)?)?;
    let mut at = first;
    loop {
        match line[at] {
            b'"' => return Some((first, at)),
            b'\n' => return None,
            _ => at += 2,
        }
        // The usual escape is the last one.
        if line.get(at) != Some(&b'"') {
            at += memchr3(b'"', b'\\', b'\n', line.get(at..)?)?;
        }
    }
}

/// The length of an object of strings at the front of `text`; none if it is anything else.
fn flat_object(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    if text.first() != Some(&b'{') {
        return None;
    }
    loop {
        match *text.get(at)? {
            b'}' => return Some(at + 1),
            b',' | b':' => at += 1,
            b'"' => at = string(text, at + 1)?.1 + 1,
            _ => return None,
        }
    }
}

/// Replaces the escapes up to `end`, of which `first` is the position of the first, by what they stand for, and tells
/// where the text now ends. None if an escape is malformed.
#[inline]
fn unescape(line: &mut [u8], first: usize, end: usize) -> Option<usize> {
    if first == end {
        return Some(end);
    }
    // The usual line has one escape, the newline at its end.
    if first + 2 == end && line[first + 1] == b'n' {
        line[first] = b'\n';
        return Some(first + 1);
    }
    unescape_all(line, first, end)
}

fn unescape_all(line: &mut [u8], first: usize, end: usize) -> Option<usize> {
    let (mut from, mut to) = (first, first);
    while from < end {
        let plain = memchr::memchr(b'\\', &line[from..end]).unwrap_or(end - from);
        line.copy_within(from..from + plain, to);
        (from, to) = (from + plain, to + plain);
        if from == end {
            break;
        }
        let (value, taken) = escaped(&line[from..end])?;
        let mut bytes = [0; 4];
        let bytes = value.encode_utf8(&mut bytes).as_bytes();
        line[to..to + bytes.len()].copy_from_slice(bytes);
        (from, to) = (from + taken, to + bytes.len());
    }
    Some(to)
}

/// The character of the escape at the front, and the escape's length.
fn escaped(text: &[u8]) -> Option<(char, usize)> {
    let value = match *text.get(1)? {
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        byte @ (b'"' | b'\\' | b'/') => char::from(byte),
        b'u' => return unicode(text),
        _ => return None,
    };
    Some((value, 2))
}

/// `\uxxxx`, or a pair of them; a surrogate alone is U+FFFD, as in Go.
fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let first = hex(text.get(2..6)?)?;
    if (0xd800..0xdc00).contains(&first) && text.get(6..8) == Some(b"\\u") {
        let second = hex(text.get(8..12)?)?;
        if (0xdc00..0xe000).contains(&second) {
            let value = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Some((char::from_u32(value)?, 12));
        }
    }
    Some((char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6))
}

fn hex(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(line: &[u8], partial: bool, attributes: &[(&str, &str)]) -> String {
        let attributes = attributes.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        let mut out = Vec::new();
        Encoder::new(&attributes).append(1_700_000_000_120_000_000, Stream::Stdout, line, partial, &mut out);
        String::from_utf8(out).unwrap()
    }

    type Read = (i64, Stream, bool, Vec<u8>, BTreeMap<String, String>);

    fn decoded(text: &[u8]) -> Option<Read> {
        let mut line = text.to_vec();
        let (found, bytes) = match Decoder::new().decode(&mut line)? {
            Decoded::InPlace(found) => (found, line),
            Decoded::Apart(found, bytes) => (found, bytes),
        };
        let record = found.record(&bytes);
        Some((record.time, record.stream, record.partial, record.line.to_vec(), record.attributes()))
    }

    #[test]
    fn records_as_docker_writes_them() {
        assert_eq!(
            encoded(b"hello", false, &[]),
            "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
        assert_eq!(
            encoded(b"\t<a href=\"x\">&\\\r\x1b\x7f", true, &[("b", "2"), ("a", "\"1\"")]),
            "{\"log\":\"\\u0009\\u003ca href=\\\"x\\\"\\u003e\\u0026\\\\\\r\\u001b\x7f\",\"stream\":\"stdout\",\
             \"attrs\":{\"a\":\"\\\"1\\\"\",\"b\":\"2\"},\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
        let bytes = b"\xc3\xa4\xe2\x80\xa8\xe2\x82\xac \xff\xe2\x82 \xed\xa0\x80\xf0\x9f\x98\x80";
        let text = "{\"log\":\"ä\\u2028€ \\ufffd\\ufffd\\ufffd \\ufffd\\ufffd\\ufffd😀\\n\"";
        assert!(encoded(bytes, false, &[]).starts_with(text), "{}", encoded(bytes, false, &[]));
    }

    #[test]
    fn records_of_other_writers() {
        let expected = |line: &[u8], attributes: &[(&str, &str)]| {
            let attributes = attributes.iter().map(|&(name, value)| (name.into(), value.into())).collect();
            Some((1_000_000_000, Stream::Stderr, line.last() != Some(&b'\n'), line.to_vec(), attributes))
        };
        let spaced =
            br#"{ "time": "1970-01-01T00:00:01Z", "log": "a\tb\n", "stream": "stderr", "new": [1] }"#;
        assert_eq!(decoded(spaced), expected(b"a\tb\n", &[]));
        let pair = br#"{"log":"\ud83d\ude00\ud83dx\/","stream":"stderr","time":"1970-01-01T01:00:01+01:00"}"#;
        assert_eq!(decoded(pair), expected("😀\u{fffd}x/".as_bytes(), &[]));
        let attributes =
            br#"{"log":"","stream":"stderr","attrs":{"k":"}\"","l":""},"time":"1970-01-01T00:00:01Z"}"#;
        assert_eq!(decoded(attributes), expected(b"", &[("k", "}\""), ("l", "")]));
        let nested =
            br#"{"log":"","stream":"stderr","attrs":{"k":"v","l":{}},"time":"1970-01-01T00:00:01Z"}"#;
        assert_eq!(decoded(nested), expected(b"", &[("k", "v")]));
        for bad in
            [&b""[..], b"{}", b"{\"log\":\"", b"\0\0\0", br#"{"log":"\q","stream":"stdout","time":"x"}"#]
        {
            assert_eq!(decoded(bad), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            line in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"\"\\<>&\n\t a\xe2\x80\xa8\xc3".to_vec())],
                0..200,
            ),
            partial in any::<bool>(),
            time in 0..i64::MAX,
        ) {
            let mut out = Vec::new();
            Encoder::new(&BTreeMap::new()).append(time, Stream::Stderr, &line, partial, &mut out);
            prop_assert!(memchr::memchr(b'\n', &out) == Some(out.len() - 1));
            let read = decoded(&out[..out.len() - 1]).unwrap();
            // Go turns each byte of an invalid sequence into a character of its own.
            let mut expected: Vec<u8> = Vec::new();
            for chunk in line.utf8_chunks() {
                expected.extend_from_slice(chunk.valid().as_bytes());
                expected.extend(chunk.invalid().iter().flat_map(|_| "\u{fffd}".bytes()));
            }
            if !partial {
                expected.push(b'\n');
            }
            let read_partial = expected.last() != Some(&b'\n');
            prop_assert_eq!(read, (time, Stream::Stderr, read_partial, expected.clone(), BTreeMap::new()));
            // And another reader agrees.
            let other: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(other["log"].as_str().unwrap().as_bytes(), &expected[..]);
        }

        #[test]
        fn decoding_never_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            decoded(&line);
            let mut framed = b"{\"log\":\"".to_vec();
            framed.extend_from_slice(&line);
            decoded(&framed);
        }
    }
}
