//! Sizes and durations as people write and read them, in the spellings of Go and of Docker's unit library.

const DECIMAL: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// `size` with `digits` significant digits in decimal units: `1.23MB`.
pub fn human_size(size: f64, digits: usize) -> String {
    scaled(size, 1000.0, DECIMAL, digits)
}

/// `size` with four significant digits in binary units: `7.633GiB`.
pub fn binary_size(size: f64) -> String {
    scaled(size, 1024.0, BINARY, 4)
}

fn scaled(mut size: f64, base: f64, names: &[&str], digits: usize) -> String {
    let mut at = 0;
    while size >= base && at < names.len() - 1 {
        size /= base;
        at += 1;
    }
    format!("{}{}", significant(size, digits), names[at])
}

/// C's `%.{digits}g` for numbers that are not very large or small.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    // Rounding may add a digit, so the exponent is read off the rounded number.
    let scientific = format!("{:.*e}", digits - 1, value);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    if exponent >= digits as i32 {
        let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        let mantissa = trim_zeros(mantissa);
        return format!("{mantissa}e+{exponent:02}");
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// How long `seconds` is, roughly: `About a minute`, `3 hours`.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded, as they always have been here.
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match (seconds, minutes, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// A size with a binary unit (`512m`, `1.5GiB`, `10kb`) in bytes.
pub fn parse_ram(text: &str) -> Result<i64, String> {
    parse_size(text, 1024.0)
}

fn parse_size(text: &str, base: f64) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let at = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let number = if text.as_bytes()[at] == b' ' { &text[..at] } else { &text[..=at] };
    let suffix = &text[at + 1..];
    let size = parse_float(number)?;
    if size < 0.0 {
        return Err(invalid());
    }
    let lower = suffix.to_ascii_lowercase();
    let bad = || format!("invalid suffix: '{}'", if suffix.len() > 3 { suffix } else { &lower });
    let power = match lower.as_bytes() {
        [] | [b'b'] => 0,
        [unit] | [unit, b'b'] | [unit, b'i', b'b'] => {
            1 + b"kmgtp".iter().position(|known| known == unit).ok_or_else(bad)? as i32
        }
        _ => return Err(bad()),
    };
    Ok((size * base.powi(power)) as i64)
}

fn parse_float(text: &str) -> Result<f64, String> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    text.parse::<f64>()
        .ok()
        .filter(|value| plain && value.is_finite())
        .ok_or_else(|| format!("strconv.ParseFloat: parsing {}: invalid syntax", template::quote(text)))
}

/// A Go duration (`1h30m`, `1.5s`, `-5ms`) in nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", template::quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let number = &rest[..digits];
        if number.is_empty() || number == "." || number.matches('.').count() > 1 || number.len() > 40 {
            return Err(invalid());
        }
        rest = &rest[digits..];
        let length = rest.len() - rest.trim_start_matches(|c: char| c != '.' && !c.is_ascii_digit()).len();
        let unit = &rest[..length];
        rest = &rest[length..];
        let scale: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {}", template::quote(text))),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                return Err(format!(
                    "time: unknown unit {} in duration {}",
                    template::quote(unit),
                    template::quote(text)
                ));
            }
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total = whole.checked_mul(scale).and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
        // Digits beyond what a nanosecond can show are cut.
        let kept = &fraction[..fraction.len().min(15)];
        if !kept.is_empty() {
            total += kept.parse::<i128>().map_err(|_| invalid())? * scale / 10i128.pow(kept.len() as u32);
        }
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// A decimal number of CPUs in billionths.
pub fn parse_cpus(text: &str) -> Result<i64, String> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) || whole.len() > 9 {
        return Err(invalid());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let nano: i64 = format!("{whole}{fraction:0<9}").parse().map_err(|_| invalid())?;
    Ok(if negative { -nano } else { nano })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_like_dockers() {
        for (size, expected) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (1_234_567.0, "1.23MB"),
            (4_261_550.0, "4.26MB"),
            (999_999.0, "1e+03kB"),
            (72_800_000.0, "72.8MB"),
            (128_000_000.0, "128MB"),
            (1_500_000_000.0, "1.5GB"),
        ] {
            assert_eq!(human_size(size, 3), expected, "{size}");
        }
        assert_eq!(human_size(2_746_000.0, 4), "2.746MB");
        assert_eq!(binary_size(8_195_000_000.0), "7.632GiB");
        assert_eq!(binary_size(1024.0), "1KiB");
    }

    #[test]
    fn durations_read_like_dockers() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (59 * 86400, "8 weeks"),
            (60 * 86400, "2 months"),
            (729 * 86400, "24 months"),
            (731 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn ram() {
        for (text, bytes) in [
            ("32", 32),
            ("32b", 32),
            ("32k", 32768),
            ("32kb", 32768),
            ("32KiB", 32768),
            ("1.5g", 1_610_612_736),
            ("32 m", 33_554_432),
            ("0.5", 0),
        ] {
            assert_eq!(parse_ram(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_ram("xyz"), Err("invalid size: 'xyz'".to_owned()));
        assert_eq!(parse_ram("-5"), Err("invalid size: '-5'".to_owned()));
        assert_eq!(parse_ram("5x"), Err("invalid suffix: 'x'".to_owned()));
        assert_eq!(parse_ram("5bb"), Err("invalid suffix: 'bb'".to_owned()));
        assert_eq!(parse_ram(""), Err("invalid size: ''".to_owned()));
    }

    #[test]
    fn go_durations() {
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(parse_duration("-5ms"), Ok(-5_000_000));
        assert_eq!(parse_duration("0"), Ok(0));
        assert_eq!(parse_duration("5"), Err("time: missing unit in duration \"5\"".to_owned()));
        assert_eq!(parse_duration("x"), Err("time: invalid duration \"x\"".to_owned()));
        assert_eq!(parse_duration("5d"), Err("time: unknown unit \"d\" in duration \"5d\"".to_owned()));
    }

    #[test]
    fn cpus() {
        assert_eq!(parse_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_cpus(".25"), Ok(250_000_000));
        assert_eq!(parse_cpus("x"), Err("failed to parse x as a rational number".to_owned()));
        assert_eq!(parse_cpus("0.00000000001"), Err("value is too precise".to_owned()));
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in "\\PC{0,20}") {
            let _ = (parse_ram(&text), parse_duration(&text), parse_cpus(&text));
        }

        #[test]
        fn units_parse_or_refuse(text in "[-+]?[0-9.]{0,30}(ns|ms|s|m|h|k|g|kb|gib)?") {
            let _ = (parse_ram(&text), parse_duration(&text), parse_cpus(&text));
        }
    }
}
