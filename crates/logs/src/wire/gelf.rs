//! GELF 1.1: a JSON object per record, for UDP compressed and cut into chunks, for TCP ended by a zero byte.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::write::{GzEncoder, ZlibEncoder};

use crate::Record;

/// Largest datagram, in bytes: below the MTU of usual networks.
const DATAGRAM: usize = 1420;
const CHUNK_HEADER: usize = 12;
/// Most chunks that a receiver puts together.
const CHUNKS: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// TCP.
    ZeroEnded,
    /// UDP; levels are -1 (the default) to 9.
    Gzip(i8),
    Zlib(i8),
    Plain,
}

#[derive(Debug, Clone)]
pub struct Encoder {
    packing: Packing,
    /// From the opening brace to the quote before the line.
    head: Vec<u8>,
    /// From after the level to the closing brace.
    tail: Vec<u8>,
    message: Vec<u8>,
}

impl Encoder {
    /// `extra` fields by their names, which begin with an underscore.
    pub fn new(packing: Packing, host: &str, extra: &BTreeMap<String, String>) -> Encoder {
        let mut head = b"{\"version\":\"1.1\",\"host\":\"".to_vec();
        super::append_text(host.as_bytes(), &mut head);
        head.extend_from_slice(b"\",\"short_message\":\"");
        let mut tail = Vec::new();
        for (name, value) in extra {
            tail.extend_from_slice(b",\"");
            super::append_text(name.as_bytes(), &mut tail);
            tail.extend_from_slice(b"\":\"");
            super::append_text(value.as_bytes(), &mut tail);
            tail.push(b'"');
        }
        tail.push(b'}');
        Encoder { packing, head, tail, message: Vec::new() }
    }

    /// Appends a record's datagrams, or its part of the stream, and calls `end` after each. Nothing comes of an
    /// empty line, which GELF does not allow. False if it is too large for any receiver.
    pub fn append(
        &mut self,
        record: &Record<'_>,
        out: &mut Vec<u8>,
        mut end: impl FnMut(&mut Vec<u8>),
    ) -> bool {
        let line = super::line(record);
        if line.is_empty() {
            return true;
        }
        self.message.clear();
        self.message.extend_from_slice(&self.head);
        super::append_text(line, &mut self.message);
        let seconds = record.time.div_euclid(1_000_000) as f64 / 1000.0;
        // Writing to memory cannot fail.
        let _ =
            write!(self.message, "\",\"timestamp\":{seconds},\"level\":{}", super::severity(record.stream));
        self.message.extend_from_slice(&self.tail);
        match self.packing {
            Packing::ZeroEnded => {
                out.extend_from_slice(&self.message);
                out.push(0);
                end(out);
                return true;
            }
            Packing::Plain => {}
            Packing::Gzip(level) => {
                let mut encoder = GzEncoder::new(Vec::new(), compression(level));
                let _ = encoder.write_all(&self.message);
                self.message = encoder.finish().unwrap_or_default();
            }
            Packing::Zlib(level) => {
                let mut encoder = ZlibEncoder::new(Vec::new(), compression(level));
                let _ = encoder.write_all(&self.message);
                self.message = encoder.finish().unwrap_or_default();
            }
        }
        if self.message.len() <= DATAGRAM {
            out.extend_from_slice(&self.message);
            end(out);
            return true;
        }
        let chunks = self.message.chunks(DATAGRAM - CHUNK_HEADER);
        let count = chunks.len();
        if count > CHUNKS {
            return false;
        }
        // Told apart from other messages of the same moment by the number, and of other containers by the fields.
        let id = crate::wire::gelf::hash(&self.tail) ^ record.time as u64 ^ record.number.rotate_left(40);
        for (index, chunk) in chunks.enumerate() {
            out.extend_from_slice(&[0x1e, 0x0f]);
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&[index as u8, count as u8]);
            out.extend_from_slice(chunk);
            end(out);
        }
        true
    }
}

fn compression(level: i8) -> flate2::Compression {
    u32::try_from(level).map_or_else(|_| flate2::Compression::default(), flate2::Compression::new)
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;
    use crate::record::AttributeForm;
    use std::io::Read;

    fn datagrams(packing: Packing, line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let form = AttributeForm::Json;
        let record = Record {
            time: 1_700_000_000_123_456_789,
            stream: Stream::Stderr,
            line,
            partial: true,
            part: None,
            number: 3,
            attributes: b"",
            form,
        };
        let extra = BTreeMap::from([("_tag".into(), "a\"b".into())]);
        let (mut out, mut all, mut start) = (Vec::new(), Vec::new(), 0);
        let fits = Encoder::new(packing, "box", &extra).append(&record, &mut out, |out| {
            all.push(out[start..].to_vec());
            start = out.len();
        });
        fits.then_some(all)
    }

    const WANTED: &str = r#"{"version":"1.1","host":"box","short_message":"hi","timestamp":1700000000.123,"level":3,"_tag":"a\"b"}"#;

    #[test]
    fn every_packing() {
        assert_eq!(datagrams(Packing::Plain, b"hi").unwrap(), [WANTED.as_bytes()]);
        assert_eq!(datagrams(Packing::ZeroEnded, b"hi").unwrap(), [format!("{WANTED}\0").into_bytes()]);
        let mut text = String::new();
        let gzip = datagrams(Packing::Gzip(1), b"hi").unwrap();
        flate2::read::GzDecoder::new(&gzip[0][..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, WANTED);
        text.clear();
        let zlib = datagrams(Packing::Zlib(-1), b"hi").unwrap();
        flate2::read::ZlibDecoder::new(&zlib[0][..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, WANTED);
        assert!(datagrams(Packing::Plain, b"").unwrap().is_empty());
    }

    #[test]
    fn long_lines_go_in_chunks() {
        let line = "0123456789".repeat(1000);
        let chunks = datagrams(Packing::Plain, line.as_bytes()).unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= 1420 && chunk[..10] == chunks[0][..10]));
        let whole: Vec<u8> = chunks.iter().flat_map(|chunk| chunk[12..].to_vec()).collect();
        assert!(String::from_utf8(whole).unwrap().contains(&line));
        for (index, chunk) in chunks.iter().enumerate() {
            assert_eq!((usize::from(chunk[10]), usize::from(chunk[11])), (index, chunks.len()));
        }
        assert_eq!(datagrams(Packing::Plain, &vec![b'x'; 200_000]), None);
    }
}
