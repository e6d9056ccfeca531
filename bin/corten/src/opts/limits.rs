//! Limits and devices: `--ulimit`, `--device*`, `--blkio-weight-device`, `--gpus`.

use api_types::StringMap;
use api_types::container::{DeviceMapping, DeviceRequest, ThrottleDevice, Ulimit, WeightDevice};

use crate::args::check::{csv_fields, parse_int, parse_uint};

const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`
pub fn parse_ulimit(value: &str) -> Result<Ulimit, String> {
    let (name, limits) = value.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {value}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (soft, Some(hard)),
        None => (limits, None),
    };
    if hard.is_some_and(|hard| hard.contains(':')) {
        return Err(format!(
            "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
        ));
    }
    let soft = parse_int(soft)?;
    let hard = hard.map(parse_int).transpose()?.unwrap_or(soft);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

fn device_and_value(value: &str) -> Result<(&str, &str), String> {
    let (path, number) = value.split_once(':').ok_or_else(|| format!("bad format: {value}"))?;
    if path.is_empty() {
        return Err(format!("bad format: {value}"));
    }
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {value}"));
    }
    Ok((path, number))
}

/// `/dev/sda:300`
pub fn parse_weight_device(value: &str) -> Result<WeightDevice, String> {
    let (path, weight) = device_and_value(value)?;
    match parse_uint(weight, 16) {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => {
            Ok(WeightDevice { path: path.to_owned(), weight: weight as u16 })
        }
        _ => Err(format!("invalid weight for device: {value}")),
    }
}

/// `/dev/sda:1mb`, or without units for operations per second.
pub fn parse_rate(value: &str, bytes: bool) -> Result<ThrottleDevice, String> {
    let (path, rate) = device_and_value(value)?;
    let path = path.to_owned();
    if bytes {
        let rate = crate::units::parse_ram(rate).map_err(|_| {
            format!(
                "invalid rate for device: {value}. The correct format is <device-path>:<number>[<unit>]. Number must \
                 be a positive integer. Unit is optional and can be kb, mb, or gb"
            )
        })?;
        return Ok(ThrottleDevice { path, rate: rate.unsigned_abs() });
    }
    let rate = parse_uint(rate, 64).map_err(|_| {
        format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>. Number must be a positive \
             integer"
        )
    })?;
    Ok(ThrottleDevice { path, rate })
}

/// `all`, a count, or `device=…,count=…,driver=…,capabilities=…,options=…`
pub fn parse_gpus(value: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest::default();
    let mut capabilities = vec!["gpu".to_owned()];
    let mut counted = false;
    for field in csv_fields(value)? {
        let (key, text) = match field.split_once('=') {
            Some(pair) => pair,
            None => ("count", field.as_str()),
        };
        match key {
            "driver" => request.driver = text.to_owned(),
            "count" => {
                counted = true;
                request.count = if text == "all" {
                    -1
                } else {
                    text.parse().map_err(|_| {
                        format!("invalid count ({text}): value must be either \"all\" or an integer: invalid syntax")
                    })?
                };
            }
            "device" => request.device_ids = Some(text.split(',').map(str::to_owned).collect()),
            "capabilities" => capabilities.extend(text.split(',').map(str::to_owned)),
            "options" => {
                let mut options = StringMap::new();
                for option in csv_fields(text)? {
                    let (key, value) = option.split_once('=').unwrap_or((&option, ""));
                    options.insert(key.to_owned(), value.to_owned());
                }
                request.options = Some(options);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !counted && request.device_ids.is_none() {
        request.count = 1;
    }
    request.capabilities = Some(vec![capabilities]);
    Ok(request)
}

/// `vendor/class=name`: a device by its CDI name.
pub fn is_cdi(value: &str) -> bool {
    let Some((kind, name)) = value.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    word(vendor)
        && word(class)
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| b"rwm".contains(&byte))
}

/// `host[:container[:rwm]]`
pub fn parse_device(value: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = value.split(':').collect();
    if parts.len() > 3 || parts[0].is_empty() {
        return Err(format!("bad format for path: {value}"));
    }
    let (source, target, access) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, access] if is_access(access) => (*source, *source, *access),
        [source, target] => (*source, *target, "rwm"),
        [source, target, access] if is_access(access) => (*source, *target, *access),
        [_, _, access] => return Err(format!("bad mode specified: {access}")),
        _ => return Err(format!("bad format for path: {value}")),
    };
    if !target.starts_with('/') {
        return Err(format!("{target} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: source.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ulimits() {
        let limit = |value| parse_ulimit(value).map(|limit| (limit.soft, limit.hard));
        assert_eq!(limit("nofile=1024"), Ok((1024, 1024)));
        assert_eq!(limit("nofile=1024:-1"), Ok((1024, -1)));
        assert_eq!(limit("x"), Err("invalid ulimit argument: x".to_owned()));
        assert_eq!(limit("foo=1"), Err("invalid ulimit type: foo".to_owned()));
        assert_eq!(
            limit("nofile=5:1"),
            Err("ulimit soft limit must be less than or equal to hard limit: 5 > 1".to_owned())
        );
    }

    #[test]
    fn gpus() {
        assert_eq!(parse_gpus("all").map(|gpu| gpu.count), Ok(-1));
        assert_eq!(parse_gpus("2").map(|gpu| gpu.count), Ok(2));
        let gpu = parse_gpus("\"device=0,1\",driver=nvidia").expect("valid");
        assert_eq!((gpu.count, gpu.device_ids), (0, Some(vec!["0".to_owned(), "1".to_owned()])));
        assert!(parse_gpus("foo").is_err());
    }

    #[test]
    fn devices() {
        let device = parse_device("/dev/a:/dev/b:r").expect("valid");
        assert_eq!((device.path_on_host.as_str(), device.cgroup_permissions.as_str()), ("/dev/a", "r"));
        assert_eq!(parse_device("/dev/x:zz"), Err("zz is not an absolute path".to_owned()));
        assert!(parse_device("a:b:c:d").is_err());
        assert!(is_cdi("nvidia.com/gpu=all"));
        assert!(!is_cdi("/dev/a=b"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(value in "\\PC{0,30}") {
            let _ = (parse_ulimit(&value), parse_rate(&value, true), parse_gpus(&value), parse_device(&value));
        }
    }
}
