//! Syslog messages: the traditional form, RFC 3164, and RFC 5424 with seconds or microseconds.

use std::io::Write;

use crate::Record;
use crate::time;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 3164 without the host's name, as programs speak to the syslog daemon of their own host.
    Unix,
    Rfc3164,
    Rfc5424 {
        microseconds: bool,
    },
}

/// What all messages of one log share.
#[derive(Debug, Clone)]
pub struct Encoder {
    pub format: Format,
    /// 0 (kern) to 23 (local7).
    pub facility: u8,
    /// In front of each message stands its length (RFC 5425); else it ends with a newline and nothing more.
    pub counted: bool,
    pub host: String,
    pub tag: String,
    /// Of the process that sends.
    pub pid: u32,
    /// Seconds that local time is ahead of UTC, at a Unix time.
    pub offset: fn(i64) -> i32,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Encoder {
    pub fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        if !self.counted {
            return self.append_message(record, out);
        }
        let mut message = Vec::with_capacity(record.line.len() + 128);
        self.append_message(record, &mut message);
        // Writing to memory cannot fail.
        let _ = write!(out, "{} ", message.len());
        out.extend_from_slice(&message);
    }

    fn append_message(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let priority = u32::from(self.facility) << 3 | u32::from(super::severity(record.stream));
        let Encoder { host, tag, pid, .. } = self;
        let _ = match self.format {
            Format::Unix => write!(out, "<{priority}>{} {tag}[{pid}]: ", self.stamp(record.time)),
            Format::Rfc3164 => write!(out, "<{priority}>{} {host} {tag}[{pid}]: ", self.stamp(record.time)),
            Format::Rfc5424 { microseconds } => {
                // The application's name is the tag: receivers build their own tag from it.
                let time = self.moment(record.time, microseconds);
                write!(out, "<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
            }
        };
        out.extend_from_slice(super::line(record));
        out.push(b'\n');
    }

    /// `Jan _2 15:04:05`, in local time.
    fn stamp(&self, time: i64) -> String {
        let (text, _) = self.local(time);
        let month = text[5..7].parse::<usize>().map_or("Jan", |month| MONTHS[(month - 1) % 12]);
        let day = text[8..10].trim_start_matches('0');
        format!("{month} {day:>2} {}", &text[11..19])
    }

    /// RFC 3339, in local time.
    fn moment(&self, time: i64, microseconds: bool) -> String {
        let (mut text, offset) = self.local(time);
        let micros = time.rem_euclid(1_000_000_000) / 1000;
        if microseconds && micros > 0 {
            text.push_str(format!(".{micros:06}").trim_end_matches('0'));
        }
        match offset {
            0 => text.push('Z'),
            _ => {
                let minutes = offset.unsigned_abs() / 60;
                let sign = if offset < 0 { '-' } else { '+' };
                text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
            }
        }
        text
    }

    /// `2006-01-02T15:04:05` in local time, and the seconds that this is ahead of UTC.
    fn local(&self, time: i64) -> (String, i32) {
        let second = time.div_euclid(1_000_000_000);
        let offset = (self.offset)(second);
        let prefix = time::prefix(second.saturating_add(offset.into()));
        (prefix[..19].iter().copied().map(char::from).collect(), offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;
    use crate::record::AttributeForm;

    fn encoded(format: Format, counted: bool, offset: fn(i64) -> i32, stream: Stream, time: i64) -> String {
        let record = Record {
            time,
            stream,
            line: b"hello world\n",
            partial: false,
            part: None,
            number: 1,
            attributes: b"",
            form: AttributeForm::Json,
        };
        let (host, tag) = ("box".into(), "web/1".into());
        let mut out = Vec::new();
        Encoder { format, facility: 3, counted, host, tag, pid: 7, offset }.append(&record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_format() {
        let time = 1_700_000_000_120_000_000;
        let utc: fn(i64) -> i32 = |_| 0;
        let one = |format, stream| encoded(format, false, utc, stream, time);
        assert_eq!(one(Format::Unix, Stream::Stdout), "<30>Nov 14 22:13:20 web/1[7]: hello world\n");
        assert_eq!(one(Format::Rfc3164, Stream::Stderr), "<27>Nov 14 22:13:20 box web/1[7]: hello world\n");
        let format = |microseconds| Format::Rfc5424 { microseconds };
        assert_eq!(
            one(format(false), Stream::Stdout),
            "<30>1 2023-11-14T22:13:20Z box web/1 7 web/1 - hello world\n"
        );
        assert_eq!(
            encoded(format(true), true, |_| 5400, Stream::Stdout, time),
            "67 <30>1 2023-11-14T23:43:20.12+01:30 box web/1 7 web/1 - hello world\n"
        );
        assert_eq!(
            encoded(Format::Unix, false, |_| -3600, Stream::Stdout, 8 * 86_400_000_000_000),
            "<30>Jan  8 23:00:00 web/1[7]: hello world\n"
        );
        assert_eq!(
            encoded(format(true), false, |_| -3600, Stream::Stdout, 0),
            "<30>1 1969-12-31T23:00:00-01:00 box web/1 7 web/1 - hello world\n"
        );
    }
}
