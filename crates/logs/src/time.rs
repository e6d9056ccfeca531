//! RFC 3339 in UTC, without allocation, with the day's part cached.

pub(crate) const NANOSECONDS: i64 = 1_000_000_000;
/// Bytes of `2006-01-02T15:04:05`.
pub(crate) const TO_SECOND: usize = 19;

/// Formats times; consecutive ones mostly share their second, and are often a nanosecond apart.
#[derive(Debug, Clone)]
pub(crate) struct Formatter {
    time: i64,
    /// `2006-01-02T15:04:05.999999999` of `time`.
    text: [u8; LENGTH],
}

/// Bytes of a time with all its digits, without the zone.
const LENGTH: usize = TO_SECOND + 1 + 9;

impl Formatter {
    pub fn new() -> Formatter {
        Formatter { time: 0, text: *b"1970-01-01T00:00:00.000000000" }
    }

    /// Appends `2006-01-02T15:04:05.999999999Z`: all nine digits if `fixed`, else without trailing zeros, as Go
    /// does with the layouts `RFC3339NanoFixed` and `RFC3339Nano`. Years beyond 9999 come out as 9999.
    pub fn append(&mut self, time: i64, fixed: bool, out: &mut Vec<u8>) {
        // A digit below nine is counted up where it stands.
        match time.checked_sub(self.time) {
            Some(0) => {}
            Some(1) if self.text[LENGTH - 1] < b'9' => self.text[LENGTH - 1] += 1,
            _ => self.set(time),
        }
        self.time = time;
        let mut length = LENGTH;
        if !fixed {
            while self.text[length - 1] == b'0' && length > TO_SECOND + 1 {
                length -= 1;
            }
            // Without digits, without the point.
            length -= usize::from(length == TO_SECOND + 1);
        }
        out.extend_from_slice(&self.text[..length]);
        out.push(b'Z');
    }

    fn set(&mut self, time: i64) {
        let second = time.div_euclid(NANOSECONDS);
        if second != self.time.div_euclid(NANOSECONDS) {
            self.text[..=TO_SECOND].copy_from_slice(&prefix(second));
        }
        let mut fraction = time.rem_euclid(NANOSECONDS) as u32;
        for digit in self.text[TO_SECOND + 1..].iter_mut().rev() {
            *digit = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
    }
}

/// `2006-01-02T15:04:05.999999999Z` of a Unix time in nanoseconds, always with nine digits.
pub fn format_nanoseconds(time: i64) -> String {
    let mut text = Vec::with_capacity(30);
    Formatter::new().append(time, true, &mut text);
    String::from_utf8(text).expect("digits and punctuation are ASCII")
}

pub(crate) fn prefix(second: i64) -> [u8; TO_SECOND + 1] {
    let mut text = [b'.'; TO_SECOND + 1];
    text[..TO_SECOND].copy_from_slice(&calendar::format_seconds(second));
    text
}

/// Parses times; consecutive ones mostly share their second.
#[derive(Debug, Clone)]
pub(crate) struct Parser {
    text: [u8; TO_SECOND],
    second: i64,
}

impl Parser {
    pub fn new() -> Parser {
        Parser { text: *b"1970-01-01T00:00:00", second: 0 }
    }

    /// A Unix time in nanoseconds, from any RFC 3339 text; none if it is not one, or beyond the years 1678 to 2262.
    pub fn parse(&mut self, text: &[u8]) -> Option<i64> {
        let head: &[u8; TO_SECOND] = text.first_chunk()?;
        if *head != self.text {
            self.second = calendar::parse_seconds(head)?;
            self.text = *head;
        }
        let (fraction, rest) = calendar::parse_fraction(&text[TO_SECOND..])?;
        let second = if rest == b"Z" { self.second } else { self.second - calendar::parse_offset(rest)? };
        second.checked_mul(NANOSECONDS)?.checked_add(i64::from(fraction))
    }
}

/// Parses an RFC 3339 time to Unix nanoseconds.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    Parser::new().parse(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trimmed(time: i64) -> String {
        let mut text = Vec::new();
        Formatter::new().append(time, false, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn known_times() {
        assert_eq!(format_nanoseconds(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(format_nanoseconds(951_827_696_000_000_001), "2000-02-29T12:34:56.000000001Z");
        assert_eq!(trimmed(951_827_696_000_000_000), "2000-02-29T12:34:56Z");
        assert_eq!(trimmed(1_700_000_000_120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(format_nanoseconds(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(parse_rfc3339("2023-11-14T23:13:20.12+01:00"), Some(1_700_000_000_120_000_000));
        for bad in ["", "2023-11-14", "2023-13-14T22:13:20Z", "2023-11-14T22:13:20", "2023-11-14T22:13:20.Z"]
        {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn formatting_and_parsing_are_inverse(times in proptest::collection::vec(0..i64::MAX, 1..5)) {
            let (mut formatter, mut parser) = (Formatter::new(), Parser::new());
            for time in times.into_iter().flat_map(|time| [time, time.saturating_add(1)]) {
                for fixed in [true, false] {
                    let mut text = Vec::new();
                    formatter.append(time, fixed, &mut text);
                    prop_assert_eq!(parser.parse(&text), Some(time));
                }
            }
        }

        #[test]
        fn parsing_never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            Parser::new().parse(&text);
        }
    }
}
