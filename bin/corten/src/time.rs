//! Points in time as the API and people write them.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use calendar::{SECONDS_PER_DAY as DAY, Timestamp, date};

/// Now, in nanoseconds since 1970.
pub fn now_nanos() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Now, in seconds since 1970.
pub fn now() -> i64 {
    now_nanos() / 1_000_000_000
}

/// Seconds and nanoseconds of an RFC 3339 time.
pub fn parse_rfc3339(text: &str) -> Option<(i64, i64)> {
    Timestamp::parse(text).map(|at| (at.seconds, at.nanos.into()))
}

/// A point in time with the offset and name of the zone it is shown in.
struct Local {
    year: i64,
    month: i64,
    day: i64,
    seconds: i64,
    offset: i64,
    zone: String,
}

fn local(seconds: i64) -> Local {
    let (offset, zone) = zone_at(seconds);
    let shifted = seconds + offset;
    let (year, month, day) = date(shifted.div_euclid(DAY));
    Local { year, month, day, seconds: shifted.rem_euclid(DAY), offset, zone }
}

/// `2006-01-02 15:04:05 -0700 MST` in the local zone.
pub fn format_long(seconds: i64) -> String {
    let local = local(seconds);
    format!("{} {} {} {}", ymd(&local), hms(&local), offset(local.offset, ""), local.zone)
}

/// `2006-01-02T15:04:05-07:00`, with `nanos` if given, in the local zone.
pub fn format_rfc3339(seconds: i64, nanos: Option<i64>) -> String {
    let local = local(seconds);
    let fraction = nanos.map_or(String::new(), |nanos| format!(".{nanos:09}"));
    let zone = if local.offset == 0 { "Z".to_owned() } else { offset(local.offset, ":") };
    format!("{}T{}{fraction}{zone}", ymd(&local), hms(&local))
}

/// `2006-01-02 15:04:05` in Greenwich.
pub fn format_utc(seconds: i64) -> String {
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let local = Local { year, month, day, seconds: seconds.rem_euclid(DAY), offset: 0, zone: String::new() };
    format!("{} {}", ymd(&local), hms(&local))
}

/// `Mon Jan  2 15:04:05 2006` in the local zone.
pub fn format_ansi(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let local = local(seconds);
    let weekday = (seconds + local.offset).div_euclid(DAY).rem_euclid(7);
    let month = MONTHS[(local.month - 1).clamp(0, 11) as usize];
    format!("{} {month} {:>2} {} {}", DAYS[weekday as usize], local.day, hms(&local), local.year)
}

fn ymd(local: &Local) -> String {
    format!("{:04}-{:02}-{:02}", local.year, local.month, local.day)
}

fn hms(local: &Local) -> String {
    format!("{:02}:{:02}:{:02}", local.seconds / 3600, local.seconds / 60 % 60, local.seconds % 60)
}

fn offset(seconds: i64, separator: &str) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
}

/// A time given on the command line as the API wants it: RFC 3339, a date, seconds, or a duration before `now`.
pub fn to_api(text: &str, now_nanos: i64) -> Result<String, String> {
    if let Ok(before) = crate::units::parse_duration(text)
        && !text.bytes().all(|byte| byte.is_ascii_digit())
    {
        let at = now_nanos - before;
        return Ok(format!("{}.{:09}", at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000)));
    }
    if text.contains(['-', ':', 'T', 'Z']) && !text.starts_with('-') {
        return timestamp(text);
    }
    let (seconds, nanos) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    match digits(seconds.strip_prefix('-').unwrap_or(seconds)) && digits(nanos) && !seconds.is_empty() {
        true => Ok(text.to_owned()),
        false => Err(format!("failed to parse value as time or duration: {}", template::quote(text))),
    }
}

/// A partly written RFC 3339 time: what is missing counts as its beginning, a missing zone is the local one.
fn timestamp(text: &str) -> Result<String, String> {
    let invalid = || format!("failed to parse value as time or duration: {}", template::quote(text));
    let (day, clock) = text.split_once('T').unwrap_or((text, ""));
    let zone_at = clock.find(['Z', '+', '-']);
    let (clock, zone) = zone_at.map_or((clock, None), |at| (&clock[..at], Some(&clock[at..])));
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let whole = match whole.len() {
        0 => "00:00:00".to_owned(),
        2 => format!("{whole}:00:00"),
        5 => format!("{whole}:00"),
        _ => whole.to_owned(),
    };
    let fraction = if fraction.is_empty() { String::new() } else { format!(".{fraction}") };
    let parsed = |zone: &str| parse_rfc3339(&format!("{day}T{whole}{fraction}{zone}")).ok_or_else(invalid);
    let (seconds, nanos) = match zone {
        Some(zone) => parsed(zone)?,
        None => {
            let (seconds, nanos) = parsed("Z")?;
            (seconds - zone_at_local(seconds), nanos)
        }
    };
    Ok(format!("{seconds}.{nanos:09}"))
}

fn zone_at_local(seconds: i64) -> i64 {
    crate::time::zone_at(seconds).0
}

/// Offset in seconds and short name of the local zone at a point in time; Greenwich if the zone cannot be read.
fn zone_at(seconds: i64) -> (i64, String) {
    let utc = || (0, "UTC".to_owned());
    let path: PathBuf = match std::env::var("TZ") {
        Ok(name) if name.is_empty() => return utc(),
        Ok(name) if name.starts_with('/') => name.into(),
        Ok(name) if !name.contains("..") => {
            format!("/usr/share/zoneinfo/{}", name.trim_start_matches(':')).into()
        }
        Ok(_) => return utc(),
        Err(_) => "/etc/localtime".into(),
    };
    std::fs::read(path).ok().and_then(|bytes| tzif(&bytes, seconds)).unwrap_or_else(utc)
}

/// Looks a time up in a zone file (RFC 9636). Times after the last change use the last change's zone.
fn tzif(bytes: &[u8], seconds: i64) -> Option<(i64, String)> {
    let counts = |header: &[u8]| -> Option<[usize; 6]> {
        (header.get(..4)? == b"TZif").then_some(())?;
        let mut counts = [0; 6];
        for (index, count) in counts.iter_mut().enumerate() {
            let at = 20 + index * 4;
            *count = u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?) as usize;
        }
        counts.iter().all(|count| *count < 100_000).then_some(counts)
    };
    let [utc, std, leap, times, types, chars] = counts(bytes)?;
    // The second block has 64-bit times.
    let second = 44 + times * 5 + types * 6 + chars + leap * 8 + std + utc;
    let (start, width) =
        if bytes.get(4).is_some_and(|version| *version >= b'2') { (second, 8) } else { (0, 4) };
    let block = bytes.get(start..)?;
    let [_, _, _, times, types, chars] = counts(block)?;
    let changes = 44;
    let time = |index: usize| -> Option<i64> {
        let at = changes + index * width;
        let raw = block.get(at..at + width)?;
        Some(match raw.try_into() {
            Ok(long) => i64::from_be_bytes(long),
            Err(_) => i64::from(i32::from_be_bytes(raw.try_into().ok()?)),
        })
    };
    let kinds = changes + times * width;
    let last = (0..times).take_while(|index| time(*index).is_some_and(|change| change <= seconds)).last();
    let kind = match last {
        Some(index) => usize::from(*block.get(kinds + index)?),
        None => 0,
    };
    let record = block.get(kinds + times + kind * 6..)?.get(..6)?;
    let offset = i64::from(i32::from_be_bytes(record[..4].try_into().ok()?));
    let names = block.get(kinds + times + types * 6..)?.get(..chars)?;
    let name = names.get(usize::from(record[5])..)?.split(|byte| *byte == 0).next()?;
    Some((offset, String::from_utf8_lossy(name).into_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc3339() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(parse_rfc3339("2026-11-21T03:04:05.000000123Z"), Some((1_795_230_245, 123)));
        assert_eq!(parse_rfc3339("2026-11-21T05:04:05.5+02:00"), Some((1_795_230_245, 500_000_000)));
        assert_eq!(parse_rfc3339("0001-01-01T00:00:00Z"), Some((-62_135_596_800, 0)));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn times_for_the_api() {
        let now = 1_000_000_000_000_000_000;
        assert_eq!(to_api("10m", now), Ok("999999400.000000000".to_owned()));
        assert_eq!(to_api("1136073845", now), Ok("1136073845".to_owned()));
        assert_eq!(to_api("1136073845.5", now), Ok("1136073845.5".to_owned()));
        assert_eq!(to_api("2006-01-02T15:04:05Z", now), Ok("1136214245.000000000".to_owned()));
        assert!(to_api("soon", now).is_err());
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in "\\PC{0,30}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (parse_rfc3339(&text), to_api(&text, 0), tzif(&bytes, 0));
        }
    }
}
