//! Instants as Unix nanoseconds, RFC 3339 text, and Go's durations.

use calendar::{SECONDS_PER_DAY, Timestamp, parse_date, parse_offset};

/// Unix time in nanoseconds. Zero stands for "never" and is written as Go's zero time.
pub type UnixNanos = i64;

pub const NANOS: i64 = 1_000_000_000;

/// Go's zero time, which Docker answers for instants that have not come.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC with up to nine fractional digits, trailing zeros removed, as Go's `RFC3339Nano`.
/// To the second, as volumes are dated.
pub fn rfc3339(at: UnixNanos) -> String {
    rfc3339_nano(at.div_euclid(NANOS) * NANOS)
}

pub fn rfc3339_nano(at: UnixNanos) -> String {
    if at == 0 {
        return NEVER.into();
    }
    Timestamp { seconds: at.div_euclid(NANOS), nanos: at.rem_euclid(NANOS) as u32 }.to_string()
}

/// Parses RFC 3339 (`Z` or an offset, any fraction), also cut short to a date or minutes as Docker's clients do.
pub fn parse_rfc3339(text: &str) -> Option<UnixNanos> {
    if text == NEVER {
        return Some(0);
    }
    let (date, rest) = text.split_at_checked(10)?;
    let midnight = parse_date(date.as_bytes().first_chunk()?)? * SECONDS_PER_DAY;
    let Some(rest) = rest.strip_prefix('T') else {
        return rest.is_empty().then(|| midnight.checked_mul(NANOS)).flatten();
    };
    let (clock, offset) = split_offset(rest)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':').map(digits);
    let (hour, minute, second) =
        (parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
    if hour > 23 || minute > 59 || second > 60 || fraction.len() > 9 {
        return None;
    }
    let nanos = if fraction.is_empty() { 0 } else { digits(&format!("{fraction:0<9}"))? };
    (midnight + hour * 3600 + minute * 60 + second - offset).checked_mul(NANOS)?.checked_add(nanos)
}

/// Splits `12:00:00+02:00` into the clock and the offset in seconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    match text.find(['Z', '+', '-']) {
        None => Some((text, 0)),
        Some(at) => Some((&text[..at], parse_offset(&text.as_bytes()[at..])?)),
    }
}

fn digits(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 18 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `since` and `until`: Unix seconds with an optional fraction (what is less than a nanosecond does not count), RFC 3339,
/// or a Go duration before `now`.
pub fn parse_moment(text: &str, now: UnixNanos) -> Option<UnixNanos> {
    parse_unix(text)
        .or_else(|| parse_rfc3339(text))
        .or_else(|| parse_go_duration(text).and_then(|duration| now.checked_sub(duration)))
}

fn parse_unix(text: &str) -> Option<UnixNanos> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, seconds) = seconds.strip_prefix('-').map_or((false, seconds), |rest| (true, rest));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let nanos = if fraction.is_empty() { 0 } else { digits(&format!("{fraction:0<9}"))? };
    let at = digits(seconds)?.checked_mul(NANOS)?.checked_add(nanos)?;
    Some(if negative { -at } else { at })
}

/// Go's `time.ParseDuration`: `1h30m`, `1.5s`, `300ms`, with an optional sign. In nanoseconds.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_f64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| number + at);
        let scale = match &rest[number..unit] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += rest[..number].parse::<f64>().ok()? * scale;
        rest = &rest[unit..];
    }
    if total >= i64::MAX as f64 {
        return None;
    }
    Some(if negative { -(total as i64) } else { total as i64 })
}

/// A span in nanoseconds as Go prints it: `1m30s`, `1.5s`, `300ms`, `0s`.
pub fn go_duration(span: i64) -> String {
    if span == 0 {
        return "0s".into();
    }
    let (sign, span) = (if span < 0 { "-" } else { "" }, span.unsigned_abs());
    let in_unit = |scale: u64, digits: usize, unit: &str| {
        let fraction = format!("{:0digits$}", span % scale);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() || digits == 0 { "" } else { "." };
        let fraction = if digits == 0 { "" } else { fraction };
        format!("{}{point}{fraction}{unit}", span / scale)
    };
    let text = match span {
        ..1_000 => in_unit(1, 0, "ns"),
        1_000..1_000_000 => in_unit(1_000, 3, "µs"),
        1_000_000..1_000_000_000 => in_unit(1_000_000, 6, "ms"),
        _ => {
            let minutes = span / 60_000_000_000;
            let rest = span % 60_000_000_000;
            let fraction = format!("{:09}", rest % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{}{point}{fraction}s", rest / 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_back() {
        for at in [1, 1_700_000_000 * NANOS, 1_700_000_000 * NANOS + 120_000_000, 951_782_400 * NANOS, -1] {
            assert_eq!(parse_rfc3339(&rfc3339_nano(at)), Some(at));
        }
        assert_eq!(rfc3339_nano(1_709_210_096 * NANOS + 500_000_000), "2024-02-29T12:34:56.5Z");
        assert_eq!(parse_rfc3339("2024-02-29T14:34:56.5+02:00"), Some(1_709_210_096 * NANOS + 500_000_000));
        assert_eq!(parse_rfc3339("2024-02-29"), Some(1_709_164_800 * NANOS));
        assert_eq!(parse_rfc3339("2024-13-29"), None);
        assert_eq!(parse_rfc3339("2024-é9-29"), None);
    }

    #[test]
    fn durations_read_as_go_does() {
        assert_eq!(parse_go_duration("1h30m"), Some(5400 * NANOS));
        assert_eq!(parse_go_duration("1.5s"), Some(1_500_000_000));
        assert_eq!(parse_go_duration("-2ms"), Some(-2_000_000));
        for bad in ["", "1", "s", "1x", "1.2.3s", "é"] {
            assert_eq!(parse_go_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_print_as_go_does() {
        for (span, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (300_000_000, "300ms"),
            (1_500_000, "1.5ms"),
            (NANOS, "1s"),
            (90 * NANOS, "1m30s"),
            (3600 * NANOS, "1h0m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
            (-NANOS, "-1s"),
        ] {
            assert_eq!(go_duration(span), text);
            assert_eq!(parse_go_duration(text), Some(span), "{text}");
        }
    }

    #[test]
    fn moments_are_absolute_or_before_now() {
        assert_eq!(parse_moment("10", 0), Some(10 * NANOS));
        assert_eq!(parse_moment("10.000000001", 0), Some(10 * NANOS + 1));
        assert_eq!(parse_moment("10.0000000019999999999999", 0), Some(10 * NANOS + 1));
        assert_eq!(parse_moment("10.00000000x", 0), None);
        assert_eq!(parse_moment("10.000000001x", 0), None);
        assert_eq!(parse_moment("1m", 100 * NANOS), Some(40 * NANOS));
        assert_eq!(parse_moment("yesterday", 0), None);
    }
}
