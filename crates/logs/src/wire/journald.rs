//! Entries in the journal's native protocol: `NAME=value` lines, or the name, a newline, the length (little-endian
//! `u64`) and the bytes where a value has a newline in it.

use std::collections::BTreeMap;

use crate::{Record, time};

/// Where the journal listens for entries.
pub const SOCKET: &str = "/run/systemd/journal/socket";

#[derive(Debug, Clone)]
pub struct Encoder {
    /// Fields that all entries share, encoded.
    shared: Vec<u8>,
    times: time::Formatter,
}

impl Encoder {
    /// `fields` by names as [`field_name`] makes them.
    pub fn new(fields: &BTreeMap<String, String>) -> Encoder {
        let mut shared = Vec::new();
        for (name, value) in fields.iter().filter(|(name, _)| !name.is_empty()) {
            append_field(name, value.as_bytes(), &mut shared);
        }
        Encoder { shared, times: time::Formatter::new() }
    }

    /// Appends one entry, which is one datagram.
    pub fn append(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        append_field("PRIORITY", &[b'0' + super::severity(record.stream)], out);
        append_field("MESSAGE", super::line(record), out);
        out.extend_from_slice(b"SYSLOG_TIMESTAMP=");
        self.times.append(record.time, false, out);
        out.push(b'\n');
        append_field("CONTAINER_LOG_ORDINAL", record.number.to_string().as_bytes(), out);
        if let Some(part) = record.part {
            append_field("CONTAINER_PARTIAL_ID", part.id, out);
            append_field("CONTAINER_PARTIAL_ORDINAL", part.ordinal.to_string().as_bytes(), out);
            append_field("CONTAINER_PARTIAL_LAST", part.last.to_string().as_bytes(), out);
            if !part.last {
                append_field("CONTAINER_PARTIAL_MESSAGE", b"true", out);
            }
        }
        out.extend_from_slice(&self.shared);
    }
}

fn append_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A label or variable as the name of a field: capital letters, digits and underscores, the first no underscore.
/// May be empty.
pub fn field_name(name: &str) -> String {
    let letters = name.chars().map(|letter| match letter {
        'a'..='z' => letter.to_ascii_uppercase(),
        'A'..='Z' | '0'..='9' => letter,
        _ => '_',
    });
    letters.skip_while(|letter| *letter == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;
    use crate::record::{AttributeForm, Part};

    #[test]
    fn an_entry() {
        let fields = BTreeMap::from([("A".into(), "1".into()), ("B".into(), "x\ny".into())]);
        let part = Some(Part { id: b"00ff", ordinal: 2, last: false });
        let form = AttributeForm::Json;
        let record = Record {
            time: 1_700_000_000_120_000_000,
            stream: Stream::Stderr,
            line: b"a\xffb",
            partial: true,
            part,
            number: 9,
            attributes: b"",
            form,
        };
        let mut out = Vec::new();
        Encoder::new(&fields).append(&record, &mut out);
        let wanted: &[u8] = b"PRIORITY=3\nMESSAGE=a\xffb\nSYSLOG_TIMESTAMP=2023-11-14T22:13:20.12Z\n\
            CONTAINER_LOG_ORDINAL=9\nCONTAINER_PARTIAL_ID=00ff\nCONTAINER_PARTIAL_ORDINAL=2\n\
            CONTAINER_PARTIAL_LAST=false\nCONTAINER_PARTIAL_MESSAGE=true\nA=1\nB\n\x03\0\0\0\0\0\0\0x\ny\n";
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(wanted));
    }

    #[test]
    fn names_of_fields() {
        for (given, name) in [("com.example-1", "COM_EXAMPLE_1"), ("_x", "X"), ("__", ""), ("é", "")] {
            assert_eq!(field_name(given), name);
        }
    }
}
