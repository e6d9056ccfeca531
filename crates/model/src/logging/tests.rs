//! Options as they are read, refused, and turned into what a record carries.

use proptest::prelude::*;

use super::*;

fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
    let config = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    LogConfig { driver: driver.into(), config }
}

fn read(driver: &str, options: &[(&str, &str)]) -> Result<Logging, String> {
    Logging::of(&config(driver, options)).map_err(|refusal| refusal.message)
}

fn files(driver: &str, options: &[(&str, &str)]) -> (Option<u64>, u32, bool) {
    let files = read(driver, options).unwrap().files.unwrap();
    (files.size_max, files.files_max, files.compress)
}

#[test]
fn logs_are_bounded_unless_asked_otherwise() {
    assert_eq!(files("json-file", &[]), (Some(100_000_000), 5, false));
    assert_eq!(files("json-file", &[("max-size", "-1")]), (None, 1, false));
    assert_eq!(files("json-file", &[("max-size", "10k")]), (Some(10_000), 1, false));
    assert_eq!(files("json-file", &[("max-file", "3")]), (Some(100_000_000), 3, false));
    let all = [("max-size", "1.5m"), ("max-file", "2"), ("compress", "true")];
    assert_eq!(files("json-file", &all), (Some(1_500_000), 2, true));
    assert_eq!(files("local", &[]), (Some(20 << 20), 5, true));
    assert_eq!(
        files("syslog", &[("cache-max-size", "1m"), ("cache-compress", "0")]),
        (Some(1_000_000), 5, false)
    );
    assert_eq!(read("none", &[("anything", "x")]).unwrap().files, None);
    assert!(!read("journald", &[("cache-disabled", "true")]).unwrap().readable);
}

#[test]
fn refusals_are_dockers() {
    let check = |driver: &str, options: &[(&str, &str)], message: &str| {
        assert_eq!(read(driver, options).unwrap_err(), message, "{driver} {options:?}");
    };
    for (driver, message) in [
        ("json-file", "unknown log opt 'odd' for json-file log driver"),
        ("local", "unknown log opt 'odd' for log driver local"),
        ("syslog", "unknown log opt 'odd' for syslog log driver"),
        ("journald", "unknown log opt 'odd' for journald log driver"),
        ("gelf", "unknown log opt \"odd\" for gelf log driver"),
        ("fluentd", "unknown log opt 'odd' for fluentd log driver"),
        ("plugin:latest", "logger: no log driver named 'plugin:latest' is registered"),
        ("splunk", "the log driver splunk is not supported by Corten yet"),
    ] {
        check(driver, &[("odd", "1")], message);
    }
    for (driver, key, value, message) in [
        ("json-file", "mode", "odd", "logger: logging mode not supported: odd"),
        (
            "json-file",
            "max-buffer-size",
            "1m",
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        ("json-file", "max-file", "0", "max-file cannot be less than 1"),
        ("json-file", "max-size", "0", "max-size must be a positive number"),
        (
            "json-file",
            "compress",
            "true",
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("local", "max-file", "1", "compression cannot be enabled when max file count is 1"),
        ("syslog", "cache-disabled", "odd", "invalid value for option cache-disabled: odd"),
        ("syslog", "syslog-address", "host", "syslog-address should be in form proto://address, got host"),
        ("syslog", "syslog-facility", "24", "invalid syslog facility"),
        ("syslog", "syslog-format", "odd", "Invalid syslog format"),
        ("gelf", "tag", "", "gelf-address is a required parameter"),
        ("gelf", "gelf-address", "h:1", "gelf-address should be in form proto://address, got h:1"),
        ("gelf", "gelf-address", "http://h:1", "gelf: endpoint needs to be TCP or UDP"),
        ("gelf", "gelf-address", "udp://h", "gelf: please provide gelf-address as proto://host:port"),
        (
            "fluentd",
            "fluentd-address",
            "udp://h:1",
            "invalid fluentd-address (udp://h:1): unsupported scheme: 'udp'",
        ),
        ("fluentd", "fluentd-address", "unix://", "invalid fluentd-address (unix://): path is empty"),
        ("fluentd", "fluentd-async", "odd", "strconv.ParseBool: parsing \"odd\": invalid syntax"),
        ("fluentd", "fluentd-buffer-limit", "odd", "invalid size: 'odd'"),
        (
            "fluentd",
            "fluentd-async-reconnect-interval",
            "1ms",
            "invalid value for fluentd-async-reconnect-interval: value (\"1ms\") must be between 100ms and 10s",
        ),
    ] {
        check(driver, &[(key, value)], message);
    }
    let udp = ("gelf-address", "udp://h:1");
    check("gelf", &[udp, ("gelf-tcp-max-reconnect", "1")], "gelf-tcp-max-reconnect is only valid for TCP");
    check(
        "gelf",
        &[udp, ("gelf-compression-level", "10")],
        "unknown value \"10\" for log opt \"gelf-compression-level\" for gelf log driver",
    );
    let tcp = ("gelf-address", "tcp://h:1");
    check("gelf", &[tcp, ("gelf-compression-type", "none")], "compression is only supported on UDP");
    check(
        "fluentd",
        &[("fluentd-async", "1"), ("fluentd-async-connect", "1")],
        "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'",
    );
}

#[test]
fn addresses() {
    let syslog = |text: &str| syslog_address(text).unwrap();
    assert_eq!(syslog(""), Address::SystemLog);
    assert_eq!(syslog("udp://1.2.3.4"), Address::Udp("1.2.3.4:514".into()));
    assert_eq!(syslog("tcp://[::1]:99"), Address::Tcp("[::1]:99".into()));
    assert_eq!(syslog("tcp+tls://h:1/x"), Address::Tls("h:1".into()));
    assert_eq!(syslog("unixgram:///dev/log"), Address::UnixDatagram("/dev/log".into()));
    let fluentd = |text: &str| fluentd_address(text).unwrap();
    assert_eq!(fluentd(""), Address::Tcp("127.0.0.1:24224".into()));
    assert_eq!(fluentd("h"), Address::Tcp("h:24224".into()));
    assert_eq!(fluentd("h:5"), Address::Tcp("h:5".into()));
    assert_eq!(fluentd("tls://h:5"), Address::Tls("h:5".into()));
    assert_eq!(fluentd("unix:///a/b"), Address::Unix("/a/b".into()));
    assert!(fluentd_address("tcp://h:5/x").is_err() && fluentd_address("h:x").is_err());
}

#[test]
fn the_daemons_options_complete_the_requests() {
    let default = config("syslog", &[("tag", "d"), ("cache-max-size", "5m")]);
    let mut own = LogConfig::default();
    complete(&mut own, &default);
    assert_eq!(own, default);
    let mut own = config("syslog", &[("tag", "mine")]);
    complete(&mut own, &default);
    assert_eq!(own, config("syslog", &[("tag", "mine"), ("cache-max-size", "5m")]));
    let mut own = config("gelf", &[]);
    complete(&mut own, &default);
    assert_eq!(own, config("gelf", &[("cache-max-size", "5m")]));
}

fn record(options: &[(&str, &str)]) -> Record {
    let mut record = Record {
        id: "0123456789abcdef".into(),
        name: "web".into(),
        created: 0,
        image_id: "sha256:fedcba9876543210".into(),
        image_manifest: None,
        config: Default::default(),
        host_config: Default::default(),
        mounts: Vec::new(),
        network: crate::create::NetworkChoice::None,
        links: Vec::new(),
        no_new_privileges: false,
        labels: Default::default(),
    };
    record.config.image = "busybox:latest".into();
    record.config.cmd = Some(vec!["sh".into(), "-c".into()]);
    record.config.env = Some(vec!["A=1".into(), "AB=x=y".into(), "C".into()]);
    let labels = [("one".to_string(), "1".to_string()), ("one.two".to_string(), "2".to_string())];
    record.config.labels = Some(labels.into_iter().collect());
    record.host_config.log_config = config("json-file", options);
    record
}

#[test]
fn tags() {
    let check = |template: &str, expected: &str| {
        assert_eq!(tag(&record(&[("tag", template)]), "").unwrap(), expected, "{template}");
    };
    check("{{.ID}}/{{.FullID}}", "0123456789ab/0123456789abcdef");
    check("{{.Name}} {{.ContainerName}}", "web /web");
    check("{{.ImageID}} {{.ImageFullID}}", "sha256:fedcb sha256:fedcba9876543210");
    check("{{.ImageName}}@{{.DaemonName}}", "busybox:latest@docker");
    check("{{with .ContainerLabels}}{{index . \"one\"}}{{end}}-{{.Name | upper}}", "1-WEB");
    check("plain", "plain");
    assert_eq!(tag(&record(&[]), "{{.ID}}").unwrap(), "0123456789ab");
    for (bad, words) in
        [("{{.Odd}}", "can't evaluate field Odd in type *logger.Info"), ("{{", "unclosed action")]
    {
        let refused = tag(&record(&[("tag", bad)]), "").unwrap_err().message;
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn labels_and_variables() {
    let check = |options: &[(&str, &str)], expected: &[(&str, &str)]| {
        let found = attributes(&record(options), str::to_string).unwrap();
        let found: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, expected, "{options:?}");
    };
    check(&[], &[]);
    check(&[("labels", "one,three"), ("env", "AB,C")], &[("AB", "x=y"), ("one", "1")]);
    check(
        &[("labels-regex", "^one\\."), ("env-regex", "^A")],
        &[("A", "1"), ("AB", "x=y"), ("one.two", "2")],
    );
    assert!(attributes(&record(&[("env-regex", "(")]), str::to_string).is_err());
}

proptest! {
    #[test]
    fn no_option_makes_it_panic(
        driver in prop::sample::select(DRIVERS.to_vec()),
        key in prop::sample::select([&SYSLOG_OPTIONS[..], &GELF_OPTIONS, &FLUENTD_OPTIONS, &CACHE, &COMMON].concat()),
        value in ".{0,24}",
    ) {
        let _ = read(driver, &[(key, &value)]);
        let _ = syslog_address(&value);
        let _ = gelf_address(&format!("udp://{value}"));
        let _ = fluentd_address(&value);
        let _ = unit_size(&value, 1000.0);
        let _ = tag(&record(&[("tag", &value)]), "");
    }
}
