//! Records as receivers elsewhere want them: bytes only; sockets belong to whoever ships.

pub mod fluentd;
pub mod gelf;
pub mod journald;
pub mod syslog;

use crate::{Record, Stream};

/// Severities of syslog, which journald and GELF share.
const SEVERITY_ERROR: u8 = 3;
const SEVERITY_INFO: u8 = 6;

fn severity(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => SEVERITY_INFO,
        Stream::Stderr => SEVERITY_ERROR,
    }
}

/// A record's line without its newline.
fn line<'a>(record: &Record<'a>) -> &'a [u8] {
    if record.partial { record.line } else { record.line.strip_suffix(b"\n").unwrap_or(record.line) }
}

/// Text of any bytes, for formats that are text.
fn append_text(bytes: &[u8], out: &mut Vec<u8>) {
    crate::json::escape(bytes, out);
}
