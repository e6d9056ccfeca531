//! Records as Docker's API sends them.

use crate::record::Record;
use crate::time::Formatter;

/// How records are sent. Before the line come, in this order: frame header, timestamp, details.
#[derive(Debug, Clone)]
pub struct Render {
    timestamps: bool,
    details: bool,
    multiplexed: bool,
    times: Formatter,
}

impl Render {
    /// `timestamps`: RFC 3339 with nine digits. `details`: the attributes as `name=value,…`, query-escaped.
    /// `multiplexed`: an 8-byte header in front of each record with the stream and the length; without it, raw.
    pub fn new(timestamps: bool, details: bool, multiplexed: bool) -> Render {
        Render { timestamps, details, multiplexed, times: Formatter::new() }
    }

    #[inline]
    pub fn append(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        if self.timestamps || self.details {
            return self.append_more(record, out);
        }
        if self.multiplexed {
            let [a, b, c, d] = (record.line.len() as u32).to_be_bytes();
            out.extend_from_slice(&[record.stream.frame_type(), 0, 0, 0, a, b, c, d]);
        }
        out.extend_from_slice(record.line);
    }

    fn append_more(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        if self.multiplexed {
            out.extend_from_slice(&[record.stream.frame_type(), 0, 0, 0, 0, 0, 0, 0]);
        }
        if self.timestamps {
            self.times.append(record.time, true, out);
            out.push(b' ');
        }
        if self.details {
            for (index, (name, value)) in record.attributes().iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                query_escape(name, out);
                out.push(b'=');
                query_escape(value, out);
            }
            out.push(b' ');
        }
        out.extend_from_slice(record.line);
        if self.multiplexed {
            let length = ((out.len() - start - 8) as u32).to_be_bytes();
            out[start + 4..start + 8].copy_from_slice(&length);
        }
    }
}

/// As Go's `url.QueryEscape`.
fn query_escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Stream;

    #[test]
    fn every_form() {
        let record = Record {
            time: 1_000_000_000,
            stream: Stream::Stderr,
            line: b"hi\n",
            partial: false,
            part: b"",
            number: 0,
            attributes: br#"{"b":"x y","a":"1/2"}"#,
            form: crate::record::AttributeForm::Json,
        };
        let render = |timestamps, details, multiplexed| {
            let mut out = Vec::new();
            Render::new(timestamps, details, multiplexed).append(&record, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(render(false, false, false), "hi\n");
        assert_eq!(render(false, false, true), "\x02\0\0\0\0\0\0\x03hi\n");
        assert_eq!(render(true, true, false), "1970-01-01T00:00:01.000000000Z a=1%2F2,b=x+y hi\n");
        assert_eq!(render(true, false, true), "\x02\0\0\0\0\0\0\x221970-01-01T00:00:01.000000000Z hi\n");
    }
}
