//! Values of flags: what `pflag` and Docker accept, and the texts for what they refuse.

use super::{Flag, Kind};
use crate::opts;
use crate::units;

/// Checks one value of a flag.
pub fn value(flag: &Flag, value: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Bool => parse_bool(value).map(drop)?,
        Kind::Int => parse_int(value).map(drop)?,
        Kind::Uint => parse_uint(value, 64).map(drop)?,
        Kind::Uint16 => parse_uint(value, 16).map(drop)?,
        Kind::Bytes => units::parse_ram(value).map(drop)?,
        Kind::SwapBytes if value == "-1" => {}
        Kind::SwapBytes => units::parse_ram(value).map(drop)?,
        Kind::Duration => units::parse_duration(value).map(drop)?,
        Kind::Decimal => units::parse_cpus(value).map(drop)?,
        Kind::Strings => csv_fields(value).map(drop)?,
        Kind::Str | Kind::List(_) | Kind::Map => {}
    }
    flag.check.map_or(Ok(()), |check| check(value))
}

fn syntax(function: &str, value: &str, what: &str) -> String {
    format!("strconv.{function}: parsing {}: {what}", template::quote(value))
}

pub fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(syntax("ParseBool", value, "invalid syntax")),
    }
}

/// An integer in Go's syntax: decimal, or with `0x`, `0o`, `0b` or a leading zero.
pub fn parse_int(value: &str) -> Result<i64, String> {
    let (negative, digits) = match value.as_bytes().first() {
        Some(b'-') => (true, &value[1..]),
        Some(b'+') => (false, &value[1..]),
        _ => (false, value),
    };
    let magnitude = magnitude(digits).ok_or_else(|| syntax("ParseInt", value, "invalid syntax"))?;
    let signed = i128::try_from(magnitude).unwrap_or(i128::MAX);
    i64::try_from(if negative { -signed } else { signed })
        .map_err(|_| syntax("ParseInt", value, "value out of range"))
}

pub fn parse_uint(value: &str, bits: u32) -> Result<u64, String> {
    let number = magnitude(value).ok_or_else(|| syntax("ParseUint", value, "invalid syntax"))?;
    u64::try_from(number)
        .ok()
        .filter(|number| bits == 64 || *number < 1 << bits)
        .ok_or_else(|| syntax("ParseUint", value, "value out of range"))
}

fn magnitude(digits: &str) -> Option<u128> {
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    // Too long to fit anywhere is out of range, not bad syntax.
    Some(u128::from_str_radix(digits, radix).unwrap_or(u128::MAX >> 1))
}

/// The fields of one line of comma-separated values, with double quotes as in RFC 4180.
pub fn csv_fields(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Ok(Vec::new());
    }
    let mut fields = Vec::new();
    let mut rest = line;
    let mut column = 1;
    loop {
        let field = if let Some(quoted) = rest.strip_prefix('"') {
            let mut text = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next() {
                    None => {
                        return Err(format!(
                            "parse error on line 1, column {}: extraneous or missing \" in quoted-field",
                            line.len() + 1
                        ));
                    }
                    Some((_, '"')) if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                        chars.next();
                        text.push('"');
                    }
                    Some((at, '"')) => break at + 1,
                    Some((_, c)) => text.push(c),
                }
            };
            rest = &quoted[end..];
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(format!(
                    "parse error on line 1, column {}: extraneous or missing \" in quoted-field",
                    column + end
                ));
            }
            text
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let text = &rest[..end];
            if let Some(at) = text.find('"') {
                return Err(format!(
                    "parse error on line 1, column {}: bare \" in non-quoted-field",
                    column + at
                ));
            }
            rest = &rest[end..];
            text.to_owned()
        };
        column = line.len() - rest.len() + 2;
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

pub fn env(value: &str) -> Result<(), String> {
    match value.split('=').next() {
        None | Some("") => Err(format!("invalid environment variable: {value}")),
        _ => Ok(()),
    }
}

pub fn label(value: &str) -> Result<(), String> {
    let key = value.split('=').next().unwrap_or_default().trim_start_matches([' ', '\t']);
    if key.is_empty() {
        return Err(format!("invalid label '{value}': empty name"));
    }
    if key.contains([' ', '\t']) {
        return Err(format!("label '{key}' contains whitespaces"));
    }
    Ok(())
}

pub fn stream(value: &str) -> Result<(), String> {
    match value.to_ascii_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// `host:ip` or `host=ip`; `host-gateway` stands for an address that the daemon knows.
pub fn extra_host(value: &str) -> Result<(), String> {
    let split = value.split_once('=').or_else(|| value.split_once(':'));
    match split {
        Some((name, address)) if !name.is_empty() => {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            if address == "host-gateway" || bare.parse::<std::net::IpAddr>().is_ok() {
                return Ok(());
            }
            Err(format!("invalid IP address in add-host: {}", template::quote(address)))
        }
        _ => Err(format!("bad format for add-host: {}", template::quote(value))),
    }
}

pub fn ip(value: &str) -> Result<(), String> {
    match value.trim().parse::<std::net::IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {value}")),
    }
}

pub fn domain(value: &str) -> Result<(), String> {
    let name = value.trim();
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let fits =
        name == "." || (name.len() < 255 && name.strip_suffix('.').unwrap_or(name).split('.').all(part));
    if fits && name.bytes().any(|byte| byte.is_ascii_alphabetic() || byte == b'.') {
        Ok(())
    } else {
        Err(format!("{value} is not a valid domain"))
    }
}

pub fn filter(value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains('=') {
        Ok(())
    } else {
        Err("bad format of filter (expected name=value)".to_owned())
    }
}

pub fn link(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("empty string specified for links".to_owned());
    }
    if value.matches(':').count() > 1 {
        return Err(format!("bad format for links: {value}"));
    }
    Ok(())
}

/// Sysctls that belong to a namespace of the container.
pub fn sysctl(value: &str) -> Result<(), String> {
    const NAMES: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    const PREFIXES: &[&str] = &["net.", "fs.mqueue."];
    let name = value.split('=').next().unwrap_or_default();
    if value.contains('=')
        && (NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    {
        return Ok(());
    }
    Err(format!("sysctl '{value}' is not allowed"))
}

/// `c 1:3 rwm`
pub fn device_rule(value: &str) -> Result<(), String> {
    let number =
        |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let words: Vec<&str> = value.split(' ').collect();
    let fits = match words.as_slice() {
        [kind, numbers, access] => {
            matches!(*kind, "a" | "b" | "c")
                && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && !access.is_empty()
                && access.len() <= 3
                && access.bytes().all(|byte| b"rwm".contains(&byte))
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("invalid device cgroup format '{value}'")) }
}

/// A name that an image can be given.
pub fn tag(value: &str) -> Result<(), String> {
    opts::reference::check(value)
}

pub fn ulimit(value: &str) -> Result<(), String> {
    opts::limits::parse_ulimit(value).map(drop)
}

pub fn weight_device(value: &str) -> Result<(), String> {
    opts::limits::parse_weight_device(value).map(drop)
}

pub fn device_rate(value: &str) -> Result<(), String> {
    opts::limits::parse_rate(value, true).map(drop)
}

pub fn device_iops(value: &str) -> Result<(), String> {
    opts::limits::parse_rate(value, false).map(drop)
}

pub fn gpus(value: &str) -> Result<(), String> {
    opts::limits::parse_gpus(value).map(drop)
}

pub fn mount(value: &str) -> Result<(), String> {
    opts::mount::parse(value).map(drop)
}

pub fn network(value: &str) -> Result<(), String> {
    opts::network::parse(value).map(drop)
}
