//! Log drivers and their options: read, checked, and given their meaning.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use api_types::container::LogConfig;
use serde_json::{Value, json};
use template::{Field, MissingKey, NoMethods, Template, Type, Val};

use crate::Refusal;
use crate::create::Record;
use crate::time::{parse_go_duration, rfc3339_nano};

/// Drivers by name; `none` is one as well.
pub const DRIVERS: [&str; 6] = ["fluentd", "gelf", "journald", "json-file", "local", "syslog"];
/// Docker's drivers that are not here.
const ABSENT: [&str; 4] = ["awslogs", "etwlogs", "gcplogs", "splunk"];

/// A json-file log whose size nobody said: Docker lets it grow without bound.
const JSON_SIZE: u64 = 100_000_000;
const JSON_FILES: u32 = 5;
const LOCAL_SIZE: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;

const COMMON: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];
/// Of every driver.
const BUILT_IN: [&str; 2] = ["mode", "max-buffer-size"];
const CACHE: [&str; 9] = [
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
    "cache-labels",
    "cache-labels-regex",
    "cache-env",
    "cache-env-regex",
    "cache-tag",
];

/// A container's logging, as its options ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// What is written on this host; none for the driver `none`.
    pub files: Option<Files>,
    /// Where it is shipped to from there.
    pub receiver: Option<Receiver>,
    /// `logs` may read the files.
    pub readable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    Json,
    Local,
}

/// The files of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    pub format: FileFormat,
    /// Bytes; none: unlimited.
    pub size_max: Option<u64>,
    /// At least 1.
    pub files_max: u32,
    pub compress: bool,
}

/// Where records go from the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    Syslog(Syslog),
    Journald,
    Gelf(Gelf),
    Fluentd(Fluentd),
}

/// A place to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The syslog daemon of this host, wherever its socket is.
    SystemLog,
    Udp(String),
    Tcp(String),
    Tls(String),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogFormat {
    Unix,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    pub address: Address,
    /// 0 to 23.
    pub facility: u8,
    pub format: SyslogFormat,
    pub tls: TlsFiles,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    pub authority: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub skip_verify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GelfCompression {
    Gzip,
    Zlib,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gelf {
    pub address: Address,
    pub compression: GelfCompression,
    /// -1 (the library's default) to 9.
    pub level: i8,
    /// Attempts to reconnect before what waits is given up; none: forever.
    pub reconnects_max: Option<u64>,
    pub reconnect_delay: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fluentd {
    pub address: Address,
    /// The start does not wait for a connection.
    pub asynchronous: bool,
    /// A connection is not used for longer than this.
    pub reconnect_interval: Option<Duration>,
    /// Bytes that are sent at once.
    pub buffer_limit: usize,
    pub retry_wait: Duration,
    /// Attempts to reconnect before what waits is given up; none: forever.
    pub retries_max: Option<u64>,
    pub nanoseconds: bool,
    pub acknowledged: bool,
    pub write_timeout: Option<Duration>,
    pub read_timeout: Option<Duration>,
}

type Options = BTreeMap<String, String>;

/// Completes a request's choice by the daemon's, as Docker merges the two.
pub fn complete(own: &mut LogConfig, default: &LogConfig) {
    if own.driver.is_empty() {
        own.driver = default.driver.clone();
    }
    let same = own.driver == default.driver;
    for (key, value) in &default.config {
        if same || CACHE.contains(&key.as_str()) {
            own.config.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

impl Logging {
    /// Reads a driver and its options. Whether files and sockets are there is not looked at.
    pub fn of(config: &LogConfig) -> Result<Logging, Refusal> {
        let driver = config.driver.as_str();
        if driver == "none" {
            return Ok(Logging { files: None, receiver: None, readable: false });
        }
        let options: Options =
            config.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        check_mode(&options)?;
        let own: Vec<&str> = match driver {
            "json-file" | "local" => vec!["max-size", "max-file", "compress"],
            "syslog" => SYSLOG_OPTIONS.to_vec(),
            "journald" => Vec::new(),
            "gelf" => GELF_OPTIONS.to_vec(),
            "fluentd" => FLUENTD_OPTIONS.to_vec(),
            absent if ABSENT.contains(&absent) => {
                return Err(Refusal::not_implemented(&format!("the log driver {absent}"))
                    .hint(format!("drivers: {}", DRIVERS.join(", "))));
            }
            other => {
                return Err(Refusal::invalid(format!("logger: no log driver named '{other}' is registered"))
                    .hint(format!(
                        "drivers: {}; logging plugins are not supported yet",
                        DRIVERS.join(", ")
                    )));
            }
        };
        let known =
            |key: &str| [&own[..], &COMMON, &BUILT_IN, &CACHE].iter().any(|names| names.contains(&key));
        if let Some(key) = options.keys().find(|key| !known(key)) {
            return Err(Refusal::invalid(match driver {
                "gelf" => format!("unknown log opt \"{key}\" for gelf log driver"),
                "local" => format!("unknown log opt '{key}' for log driver local"),
                _ => format!("unknown log opt '{key}' for {driver} log driver"),
            }));
        }
        let cached = match options.get("cache-disabled").map(String::as_str) {
            None | Some("") => true,
            Some(text) => !parse_bool(text).ok_or_else(|| {
                Refusal::invalid(format!("invalid value for option cache-disabled: {text}"))
            })?,
        };
        let receiver = match driver {
            "syslog" => Some(Receiver::Syslog(syslog(&options)?)),
            "journald" => Some(Receiver::Journald),
            "gelf" => Some(Receiver::Gelf(gelf(&options)?)),
            "fluentd" => Some(Receiver::Fluentd(fluentd(&options)?)),
            _ => None,
        };
        let files = match driver {
            "json-file" => json_files(&options)?,
            "local" => local_files(&options, "")?,
            _ => local_files(&options, "cache-")?,
        };
        Ok(Logging { files: Some(files), readable: receiver.is_none() || cached, receiver })
    }
}

fn check_mode(options: &Options) -> Result<(), Refusal> {
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(Refusal::invalid(format!("logger: logging mode not supported: {mode}")));
    }
    if let Some(size) = options.get("max-buffer-size") {
        if mode != "non-blocking" {
            return Err(Refusal::invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ));
        }
        if ram_size(size).is_none() {
            return Err(Refusal::invalid(format!(
                "error parsing option max-buffer-size: invalid size: '{size}'"
            )));
        }
    }
    Ok(())
}

// --- files

fn json_files(options: &Options) -> Result<Files, Refusal> {
    let chosen = options.contains_key("max-size") || options.contains_key("max-file");
    let size_max = match options.get("max-size").map(String::as_str) {
        Some("-1") => None,
        Some(text) => Some(size(text)?),
        None if chosen && options.get("max-file").is_none() => None,
        None => Some(JSON_SIZE),
    };
    let files_max = match options.get("max-file") {
        Some(text) => files_max(text)?,
        None if chosen => 1,
        None => JSON_FILES,
    };
    let compress = options.get("compress").map_or(Ok(false), |text| go_bool(text))?;
    if compress && (files_max == 1 || !options.contains_key("max-size") || size_max.is_none()) {
        return Err(Refusal::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    Ok(Files { format: FileFormat::Json, size_max, files_max, compress })
}

/// `prefix` stands before the options' names.
fn local_files(options: &Options, prefix: &str) -> Result<Files, Refusal> {
    let get = |name: &str| options.get(&format!("{prefix}{name}")).map(String::as_str);
    let size_max = match get("max-size") {
        Some("-1") if prefix.is_empty() => None,
        Some(text) => Some(size(text)?),
        None => Some(LOCAL_SIZE),
    };
    let files_max = get("max-file").map_or(Ok(LOCAL_FILES), files_max)?;
    let compress = get("compress").map_or(Ok(true), |text| {
        go_bool(text).map_err(|refusal| {
            Refusal::invalid(format!("invalid boolean value for compress: {}", refusal.message))
        })
    })?;
    if compress && files_max == 1 {
        return Err(Refusal::invalid("compression cannot be enabled when max file count is 1")
            .hint(format!("set {prefix}compress=false")));
    }
    Ok(Files { format: FileFormat::Local, size_max, files_max, compress })
}

fn size(text: &str) -> Result<u64, Refusal> {
    match decimal_size(text) {
        None => Err(Refusal::invalid(format!("invalid value for max-size: {text}: invalid size: '{text}'"))),
        Some(0) => Err(Refusal::invalid("max-size must be a positive number")),
        Some(size) => Ok(size),
    }
}

fn files_max(text: &str) -> Result<u32, Refusal> {
    match text.parse::<i64>() {
        Err(_) => Err(Refusal::invalid(format!(
            "invalid value for max-file: {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"
        ))),
        Ok(..1) => Err(Refusal::invalid("max-file cannot be less than 1")),
        Ok(count) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
    }
}

// --- syslog

const SYSLOG_OPTIONS: [&str; 7] = [
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

fn syslog(options: &Options) -> Result<Syslog, Refusal> {
    let get = |name: &str| options.get(name).map_or("", String::as_str);
    let facility = match get("syslog-facility") {
        "" => 3,
        name => FACILITIES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| *number)
            .or_else(|| name.parse().ok().filter(|number| *number <= 23))
            .ok_or_else(|| Refusal::invalid("invalid syslog facility"))?,
    };
    let format = match get("syslog-format") {
        "" => SyslogFormat::Unix,
        "rfc3164" => SyslogFormat::Rfc3164,
        "rfc5424" => SyslogFormat::Rfc5424,
        "rfc5424micro" => SyslogFormat::Rfc5424Micro,
        _ => return Err(Refusal::invalid("Invalid syslog format")),
    };
    let file = |name| Some(get(name)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let tls = TlsFiles {
        authority: file("syslog-tls-ca-cert"),
        certificate: file("syslog-tls-cert"),
        key: file("syslog-tls-key"),
        // Any value turns it on, also `false`: so it is with Docker.
        skip_verify: options.contains_key("syslog-tls-skip-verify"),
    };
    Ok(Syslog { address: syslog_address(get("syslog-address"))?, facility, format, tls })
}

fn syslog_address(text: &str) -> Result<Address, Refusal> {
    if text.is_empty() {
        return Ok(Address::SystemLog);
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        Refusal::invalid(format!("syslog-address should be in form proto://address, got {text}"))
    })?;
    let host = || with_port(authority(rest), "514").map_err(Refusal::invalid);
    match scheme {
        "unix" => Ok(Address::Unix(path(rest))),
        "unixgram" => Ok(Address::UnixDatagram(path(rest))),
        "udp" => Ok(Address::Udp(host()?)),
        "tcp" => Ok(Address::Tcp(host()?)),
        "tcp+tls" => Ok(Address::Tls(host()?)),
        _ => Err(Refusal::invalid(format!("syslog-address should be in form proto://address, got {text}"))
            .hint("use udp, tcp, tcp+tls, unix or unixgram")),
    }
}

// --- gelf

const GELF_OPTIONS: [&str; 5] = [
    "gelf-address",
    "gelf-compression-level",
    "gelf-compression-type",
    "gelf-tcp-max-reconnect",
    "gelf-tcp-reconnect-delay",
];

fn gelf(options: &Options) -> Result<Gelf, Refusal> {
    let address = gelf_address(options.get("gelf-address").map_or("", String::as_str))?;
    let udp = matches!(address, Address::Udp(_));
    for name in ["gelf-compression-level", "gelf-compression-type"] {
        if !udp && options.contains_key(name) {
            return Err(Refusal::invalid("compression is only supported on UDP"));
        }
    }
    for name in ["gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"] {
        if udp && options.contains_key(name) {
            return Err(Refusal::invalid(format!("{name} is only valid for TCP")));
        }
    }
    let unknown = |name: &str| {
        let value = options.get(name).map_or("", String::as_str);
        Refusal::invalid(format!("unknown value \"{value}\" for log opt \"{name}\" for gelf log driver"))
    };
    let count = |name: &str| match options.get(name) {
        None => Ok(None),
        Some(text) => text.parse::<u32>().map(|number| Some(u64::from(number))).map_err(|_| unknown(name)),
    };
    let compression = match options.get("gelf-compression-type").map(String::as_str) {
        None | Some("gzip") => GelfCompression::Gzip,
        Some("zlib") => GelfCompression::Zlib,
        Some("none") => GelfCompression::None,
        Some(_) => return Err(unknown("gelf-compression-type")),
    };
    let level = match options.get("gelf-compression-level") {
        None => 1,
        Some(text) => text
            .parse()
            .ok()
            .filter(|level| (-1..=9).contains(level))
            .ok_or_else(|| unknown("gelf-compression-level"))?,
    };
    Ok(Gelf {
        address,
        compression,
        level,
        reconnects_max: count("gelf-tcp-max-reconnect")?,
        reconnect_delay: Duration::from_secs(count("gelf-tcp-reconnect-delay")?.unwrap_or(1)),
    })
}

fn gelf_address(text: &str) -> Result<Address, Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid("gelf-address is a required parameter"));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        Refusal::invalid(format!("gelf-address should be in form proto://address, got {text}"))
    })?;
    if !matches!(scheme, "udp" | "tcp") {
        return Err(Refusal::invalid("gelf: endpoint needs to be TCP or UDP"));
    }
    let host = authority(rest);
    if split_port(host).is_err() {
        return Err(Refusal::invalid("gelf: please provide gelf-address as proto://host:port"));
    }
    let host = with_port(host, "").map_err(Refusal::invalid)?;
    Ok(if scheme == "udp" { Address::Udp(host) } else { Address::Tcp(host) })
}

// --- fluentd

const FLUENTD_OPTIONS: [&str; 11] = [
    "fluentd-address",
    "fluentd-async",
    "fluentd-async-connect",
    "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    "fluentd-read-timeout",
    "fluentd-request-ack",
    "fluentd-retry-wait",
    "fluentd-sub-second-precision",
    "fluentd-write-timeout",
];

fn fluentd(options: &Options) -> Result<Fluentd, Refusal> {
    let get = |name: &str| options.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let on = |name: &str| get(name).map_or(Ok(false), go_bool);
    let span = |name: &str| get(name).map(|text| go_duration(name, text)).transpose();
    if get("fluentd-async").is_some() && get("fluentd-async-connect").is_some() {
        return Err(Refusal::invalid(
            "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'",
        ));
    }
    let reconnect_interval = span("fluentd-async-reconnect-interval")?.filter(|span| !span.is_zero());
    if let Some(interval) = reconnect_interval
        && !(Duration::from_millis(100)..=Duration::from_secs(10)).contains(&interval)
    {
        let given = get("fluentd-async-reconnect-interval").unwrap_or_default();
        return Err(Refusal::invalid(format!(
            "invalid value for fluentd-async-reconnect-interval: value (\"{given}\") must be between 100ms and 10s"
        )));
    }
    let buffer_limit = match get("fluentd-buffer-limit") {
        None => 1 << 20,
        Some(text) => ram_size(text).ok_or_else(|| Refusal::invalid(format!("invalid size: '{text}'")))?,
    };
    let retries_max = get("fluentd-max-retries").map(|text| {
        text.parse::<u64>()
            .map_err(|_| Refusal::invalid(format!("strconv.ParseUint: parsing \"{text}\": invalid syntax")))
    });
    Ok(Fluentd {
        address: fluentd_address(get("fluentd-address").unwrap_or(""))?,
        asynchronous: on("fluentd-async")? || on("fluentd-async-connect")?,
        reconnect_interval,
        buffer_limit: usize::try_from(buffer_limit).unwrap_or(usize::MAX),
        retry_wait: span("fluentd-retry-wait")?.unwrap_or(Duration::from_secs(1)),
        retries_max: retries_max.transpose()?,
        nanoseconds: on("fluentd-sub-second-precision")?,
        acknowledged: on("fluentd-request-ack")?,
        write_timeout: span("fluentd-write-timeout")?.filter(|span| !span.is_zero()),
        read_timeout: span("fluentd-read-timeout")?.filter(|span| !span.is_zero()),
    })
}

fn fluentd_address(text: &str) -> Result<Address, Refusal> {
    let invalid = |why: &str| Refusal::invalid(format!("invalid fluentd-address ({text}): {why}"));
    if text.is_empty() {
        return Ok(Address::Tcp("127.0.0.1:24224".into()));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "unix" if rest.trim_matches('/').is_empty() => return Err(invalid("path is empty")),
        "unix" => return Ok(Address::Unix(path(rest))),
        "tcp" | "tls" => {}
        other => return Err(invalid(&format!("unsupported scheme: '{other}'"))),
    }
    let host = authority(rest);
    if host.len() != rest.trim_end_matches('/').len() {
        return Err(invalid("should not contain a path element"));
    }
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let host = with_port(host, "24224").map_err(|why| invalid(&why))?;
    Ok(if scheme == "tls" { Address::Tls(host) } else { Address::Tcp(host) })
}

// --- addresses

/// The part of a URL up to its path, without a user.
fn authority(rest: &str) -> &str {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = &rest[..end];
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// The path of a URL of a socket.
fn path(rest: &str) -> PathBuf {
    let start = rest.find('/').unwrap_or(rest.len());
    rest[start..].into()
}

/// Host and port, in Go's rules and words.
fn split_port(address: &str) -> Result<(&str, &str), String> {
    let fail = |why: &str| Err(format!("address {address}: {why}"));
    let Some((host, port)) = address.rsplit_once(':') else { return fail("missing port in address") };
    if let Some(inner) = host.strip_prefix('[') {
        return match inner.strip_suffix(']') {
            Some(inner) => Ok((inner, port)),
            None if address.ends_with(']') => fail("missing port in address"),
            None => fail("missing ']' in address"),
        };
    }
    if host.contains(':') { fail("too many colons in address") } else { Ok((host, port)) }
}

/// `host:port`, with this port if there is none.
fn with_port(address: &str, default: &str) -> Result<String, String> {
    let full = match split_port(address) {
        Ok(_) => address.to_string(),
        Err(why) if why.ends_with("missing port in address") && !default.is_empty() => {
            format!("{address}:{default}")
        }
        Err(why) => return Err(why),
    };
    let (host, port) = split_port(&full)?;
    if port.parse::<u16>().is_err() {
        return Err(format!("address {full}: invalid port \"{port}\""));
    }
    Ok(if host.is_empty() { format!("localhost:{port}") } else { full })
}

// --- values

/// As Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn go_bool(text: &str) -> Result<bool, Refusal> {
    parse_bool(text)
        .ok_or_else(|| Refusal::invalid(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax")))
}

fn go_duration(name: &str, text: &str) -> Result<Duration, Refusal> {
    parse_go_duration(text).and_then(|span| u64::try_from(span).ok()).map(Duration::from_nanos).ok_or_else(
        || Refusal::invalid(format!("invalid value for {name}: time: invalid duration \"{text}\"")),
    )
}

/// `10m`, `1.5GB`, in thousands.
fn decimal_size(text: &str) -> Option<u64> {
    unit_size(text, 1000.0)
}

/// The same in steps of 1024.
fn ram_size(text: &str) -> Option<u64> {
    unit_size(text, 1024.0)
}

fn unit_size(text: &str, step: f64) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start_matches(' ').to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let power = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let size = number * step.powi(power);
    (size < u64::MAX as f64).then_some(size as u64)
}

// --- what a container adds to its records

/// Refuses what would only be found when the container starts: a tag or a pattern that cannot be read.
pub fn check(record: &Record) -> Result<(), Refusal> {
    if record.host_config.log_config.driver != "none" {
        tag(record, "")?;
        attributes(record, str::to_string)?;
    }
    Ok(())
}

static LABELS: Type = Type::Map(&Type::Str);
static WORDS: Type = Type::Slice(&Type::Str);
static INFO: Type = Type::Struct(
    "logger.Info",
    &[
        Field::same("ID", &Type::Str),
        Field::same("FullID", &Type::Str),
        Field::same("Name", &Type::Str),
        Field::same("ImageID", &Type::Str),
        Field::same("ImageFullID", &Type::Str),
        Field::same("ImageName", &Type::Str),
        Field::same("Command", &Type::Str),
        Field::same("Config", &LABELS),
        Field::same("ContainerID", &Type::Str),
        Field::same("ContainerName", &Type::Str),
        Field::same("ContainerEntrypoint", &Type::Str),
        Field::same("ContainerArgs", &WORDS),
        Field::same("ContainerImageID", &Type::Str),
        Field::same("ContainerImageName", &Type::Str),
        Field::same("ContainerCreated", &Type::Str),
        Field::same("ContainerEnv", &WORDS),
        Field::same("ContainerLabels", &LABELS),
        Field::same("DaemonName", &Type::Str),
    ],
);
static INFO_POINTER: Type = Type::Ptr(&INFO);

/// The container's tag: its `tag` option, or else `default`, as a template over the container.
pub fn tag(record: &Record, default: &str) -> Result<String, Refusal> {
    let chosen = record.host_config.log_config.config.get("tag").map_or("", String::as_str);
    let text = if chosen.is_empty() { default } else { chosen };
    let invalid = |error: template::Error| {
        Refusal::invalid(format!("invalid log tag: {error}"))
            .hint("fields: .ID .FullID .Name .ImageID .ImageFullID .ImageName .DaemonName")
    };
    if !text.contains("{{") {
        return Ok(text.into());
    }
    let template = Template::parse("log-tag", text).map_err(invalid)?;
    let facts = facts(record);
    template
        .execute_typed(Val::typed(&facts, &INFO_POINTER), MissingKey::NoValue, &NoMethods)
        .map_err(invalid)
}

fn facts(record: &Record) -> Value {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let command = record.command();
    json!({
        "ID": short(&record.id),
        "FullID": record.id,
        "Name": record.name,
        "ImageID": short(&record.image_id),
        "ImageFullID": record.image_id,
        "ImageName": record.config.image,
        "Command": command.join(" "),
        "Config": record.host_config.log_config.config,
        "ContainerID": record.id,
        "ContainerName": format!("/{}", record.name),
        "ContainerEntrypoint": command.first(),
        "ContainerArgs": command.get(1..),
        "ContainerImageID": record.image_id,
        "ContainerImageName": record.config.image,
        "ContainerCreated": rfc3339_nano(record.created),
        "ContainerEnv": record.config.env,
        "ContainerLabels": record.config.labels,
        // What Docker's templates find there.
        "DaemonName": "docker",
    })
}

/// What `labels`, `labels-regex`, `env` and `env-regex` choose of a container's labels and variables, by names that
/// `rename` made of theirs.
pub fn attributes(record: &Record, rename: fn(&str) -> String) -> Result<Options, Refusal> {
    let options = &record.host_config.log_config.config;
    let labels: BTreeMap<&str, &str> =
        record.config.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let variables: BTreeMap<&str, &str> =
        record.config.env.iter().flatten().filter_map(|one| one.split_once('=')).collect();
    let mut chosen = Options::new();
    for (option, all) in [("labels", labels), ("env", variables)] {
        for name in options.get(option).into_iter().flat_map(|names| names.split(',')) {
            if let Some(value) = all.get(name) {
                chosen.insert(rename(name), (*value).into());
            }
        }
        let option = format!("{option}-regex");
        let Some(pattern) = options.get(&option).filter(|pattern| !pattern.is_empty()) else { continue };
        let pattern = regex_lite::Regex::new(pattern)
            .map_err(|error| Refusal::invalid(format!("invalid value for {option}: {error}")))?;
        for (name, value) in all.iter().filter(|(name, _)| pattern.is_match(name)) {
            chosen.insert(rename(name), (*value).into());
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests;
