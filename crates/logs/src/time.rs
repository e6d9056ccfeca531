//! RFC 3339 in UTC, without allocation, with the day's part cached.

const NANOSECONDS: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Formats times; consecutive ones mostly share their second.
#[derive(Debug, Clone)]
pub(crate) struct Formatter {
    second: i64,
    /// `2006-01-02T15:04:05.` of `second`.
    prefix: [u8; 20],
}

impl Formatter {
    pub fn new() -> Formatter {
        Formatter { second: 0, prefix: *b"1970-01-01T00:00:00." }
    }

    /// Appends `2006-01-02T15:04:05.999999999Z`: all nine digits if `fixed`, else without trailing zeros, as Go
    /// does with the layouts `RFC3339NanoFixed` and `RFC3339Nano`. Years beyond 9999 come out as 9999.
    pub fn append(&mut self, time: i64, fixed: bool, out: &mut Vec<u8>) {
        let second = time.div_euclid(NANOSECONDS);
        let mut fraction = time.rem_euclid(NANOSECONDS) as u32;
        if second != self.second {
            self.second = second;
            self.prefix = prefix(second);
        }
        let mut digits = [0u8; 9];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        let mut length = 9;
        if !fixed {
            while length > 0 && digits[length - 1] == b'0' {
                length -= 1;
            }
        }
        if length == 0 {
            out.extend_from_slice(&self.prefix[..19]);
        } else {
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(&digits[..length]);
        }
        out.push(b'Z');
    }
}

/// `2006-01-02T15:04:05.999999999Z` of a Unix time in nanoseconds, always with nine digits.
pub fn format_nanoseconds(time: i64) -> String {
    let mut text = Vec::with_capacity(30);
    Formatter::new().append(time, true, &mut text);
    String::from_utf8(text).expect("digits and punctuation are ASCII")
}

pub(crate) fn prefix(second: i64) -> [u8; 20] {
    let (year, month, day) = date(second.div_euclid(SECONDS_PER_DAY));
    let of_day = second.rem_euclid(SECONDS_PER_DAY) as u32;
    let mut text = *b"0000-00-00T00:00:00.";
    let mut put = |at: usize, width: usize, mut value: u32| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year.clamp(0, 9999) as u32);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3600);
    put(14, 2, of_day / 60 % 60);
    put(17, 2, of_day % 60);
    text
}

/// Year, month and day of a number of days since 1970, in the proleptic Gregorian calendar. Counts in eras of
/// 400 years that begin on the first of March, so that the leap day is the last of its year.
fn date(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`date`].
fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// Parses times; consecutive ones mostly share their second.
#[derive(Debug, Clone)]
pub(crate) struct Parser {
    text: [u8; 19],
    second: i64,
}

impl Parser {
    pub fn new() -> Parser {
        Parser { text: *b"1970-01-01T00:00:00", second: 0 }
    }

    /// A Unix time in nanoseconds, from any RFC 3339 text; none if it is not one, or beyond the years 1678 to 2262.
    pub fn parse(&mut self, text: &[u8]) -> Option<i64> {
        let head: &[u8; 19] = text.first_chunk()?;
        if *head != self.text {
            self.second = seconds(head)?;
            self.text = *head;
        }
        let mut rest = &text[19..];
        let mut fraction = 0;
        if let Some((b'.', digits)) = rest.split_first() {
            let count = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
            if count == 0 {
                return None;
            }
            let mut scale = NANOSECONDS;
            for digit in &digits[..count.min(9)] {
                scale /= 10;
                fraction += i64::from(digit - b'0') * scale;
            }
            rest = &digits[count..];
        }
        let second = if rest == b"Z" { self.second } else { self.second - offset(rest)? };
        second.checked_mul(NANOSECONDS)?.checked_add(fraction)
    }
}

/// Parses an RFC 3339 time to Unix nanoseconds.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    Parser::new().parse(text.as_bytes())
}

fn number(text: &[u8]) -> Option<u32> {
    text.iter()
        .try_fold(0u32, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0')))
}

fn seconds(text: &[u8; 19]) -> Option<i64> {
    let separators = [text[4], text[7], text[10], text[13], text[16]];
    if separators != *b"--T::" {
        return None;
    }
    let (year, month, day) = (number(&text[0..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let of_day = i64::from(hour * 3600 + minute * 60 + second);
    valid.then(|| days(i64::from(year), month, day) * SECONDS_PER_DAY + of_day)
}

/// Seconds east of UTC, from `+hh:mm`.
fn offset(text: &[u8]) -> Option<i64> {
    let [sign, h1, h2, b':', m1, m2] = *text else { return None };
    let seconds = i64::from(number(&[h1, h2])? * 3600 + number(&[m1, m2])? * 60);
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
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
            for time in times {
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
