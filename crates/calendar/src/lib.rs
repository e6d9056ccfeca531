//! The Gregorian calendar and RFC 3339, once for all crates.
//!
//! Pure: it reads no clock and knows no zones but offsets from Greenwich.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const SECONDS_PER_DAY: i64 = 86_400;

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. Years are counted from March, so that the leap
/// day is the last of its year.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
pub fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

/// None for months that there are not.
fn days_in_month(year: i64, month: i64) -> Option<i64> {
    Some(match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    })
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

/// Days since 1970-01-01 of `2006-01-02`.
pub fn parse_date(text: &[u8; 10]) -> Option<i64> {
    if (text[4], text[7]) != (b'-', b'-') {
        return None;
    }
    let (year, month, day) = (number(&text[0..4])?, number(&text[5..7])?, number(&text[8..10])?);
    (1..=days_in_month(year, month)?).contains(&day).then(|| days(year, month, day))
}

/// Seconds since 1970 of `2006-01-02T15:04:05` in Greenwich. A leap second counts as the next minute's first.
pub fn parse_seconds(text: &[u8; 19]) -> Option<i64> {
    let day = parse_date(text.first_chunk()?)?;
    if !matches!(text[10], b'T' | b't' | b' ') || (text[13], text[16]) != (b':', b':') {
        return None;
    }
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    let valid = hour < 24 && minute < 60 && second <= 60;
    valid.then(|| day * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
}

/// Seconds east of Greenwich: `Z` or `+hh:mm`.
pub fn parse_offset(text: &[u8]) -> Option<i64> {
    match text {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let seconds = number(&[*h1, *h2])? * 3600 + number(&[*m1, *m2])? * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// An optional `.digits`, as nanoseconds, and what follows it. Digits beyond the ninth are dropped.
#[inline]
pub fn parse_fraction(rest: &[u8]) -> Option<(u32, &[u8])> {
    let Some((b'.', rest)) = rest.split_first() else { return Some((0, rest)) };
    // As times mostly come.
    if let Some((eight, [last @ b'0'..=b'9', rest @ ..])) = rest.split_first_chunk::<8>()
        && let Some(number) = eight_digits(*eight)
        && !rest.first().is_some_and(u8::is_ascii_digit)
    {
        return Some((number * 10 + u32::from(last - b'0'), rest));
    }
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let digit = |index: usize| if index < count { u32::from(rest[index] - b'0') } else { 0 };
    Some(((0..9).fold(0, |sum, index| sum * 10 + digit(index)), &rest[count..]))
}

/// The number that eight ASCII digits stand for: neighbours are joined, to pairs, fours, and all of them.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u32> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let word = u64::from_le_bytes(text);
    // A digit's high half is 3, and still is with 6 added.
    if word & HIGH != ZEROS || word.wrapping_add(0x0606_0606_0606_0606) & HIGH != ZEROS {
        return None;
    }
    let pairs = (word - ZEROS).wrapping_mul(10 << 8 | 1) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100 << 16 | 1) >> 16 & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000 << 32 | 1) >> 32) as u32)
}

/// `2006-01-02T15:04:05` in Greenwich; years beyond four digits come out as the nearest of four.
pub fn format_seconds(seconds: i64) -> [u8; 19] {
    let (year, month, day) = date(seconds.div_euclid(SECONDS_PER_DAY));
    let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year.clamp(0, 9999));
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3600);
    put(14, 2, of_day / 60 % 60);
    put(17, 2, of_day % 60);
    text
}

/// Seconds and nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    pub seconds: i64,
    /// 0 to 999,999,999, always counting forward.
    pub nanos: u32,
}

impl Timestamp {
    /// Reads `2006-01-02T15:04:05[.fraction](Z|±hh:mm)`; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let seconds = parse_seconds(bytes.first_chunk()?)?;
        let (nanos, zone) = parse_fraction(&bytes[19..])?;
        Some(Timestamp { seconds: seconds - parse_offset(zone)?, nanos })
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with the trailing zeros of the fraction cut, as Go prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&format_seconds(self.seconds)).unwrap_or_default())?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before: Duration = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Timestamp { seconds: -whole, nanos: 0 },
                    nanos => Timestamp { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        let check = |text: &str, seconds: i64, nanos: u32| {
            assert_eq!(Timestamp::parse(text), Some(Timestamp { seconds, nanos }), "{text}");
        };
        check("1970-01-01T00:00:00Z", 0, 0);
        check("2024-02-29T12:30:45.5Z", 1_709_209_845, 500_000_000);
        check("2024-02-29T13:30:45.123456789+01:00", 1_709_209_845, 123_456_789);
        check("0001-01-01T00:00:00Z", -62_135_596_800, 0);
        assert_eq!(Timestamp { seconds: -62_135_596_800, nanos: 0 }.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Timestamp { seconds: 0, nanos: 10 }.to_string(), "1970-01-01T00:00:00.00000001Z");
    }

    #[test]
    fn refused_times() {
        for text in [
            "",
            "2023-02-29T00:00:00Z",
            "2023-01-01 00:00",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:00.Z",
            "2023-01-01T00:00:00+0100",
            "2023-01-01T00:00:00",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_round_trip(day in -800_000i64..3_000_000) {
            let (year, month, of_month) = date(day);
            prop_assert_eq!(days(year, month, of_month), day);
            prop_assert!(of_month <= days_in_month(year, month).unwrap());
        }

        #[test]
        fn printed_times_read_back(seconds in -62_135_596_800i64..253_402_300_800, nanos in 0u32..1_000_000_000) {
            let time = Timestamp { seconds, nanos };
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn parse_never_panics(text in "\\PC{0,40}", seconds: i64) {
            let _ = Timestamp::parse(&text);
            let _ = format_seconds(seconds / 2);
        }
    }
}
