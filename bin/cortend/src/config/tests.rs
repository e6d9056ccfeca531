//! Flags and files that are taken, and those that are refused with the reason.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn arguments(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

fn config(flags: &str, file: &str) -> Result<Config> {
    let flags = flags::parse(&arguments(flags))?;
    Config { flags, ..Config::default() }.with_file(file)
}

fn refused(flags: &str, file: &str) -> String {
    config(flags, file).unwrap_err().to_string()
}

#[test]
fn flags_in_every_form() {
    let config = config(
        "-D -Hunix:///a --host=tcp://b --icc=false --log-opt a=b -l warn --default-ulimit nofile=5:6 \
         --feature x --default-address-pool base=10.0.0.0/8,size=24 --add-runtime crun=/crun",
        "",
    )
    .unwrap();
    assert_eq!(config.list("host"), ["unix:///a", "tcp://b"]);
    assert!(!config.on_or("icc", true) && config.on("debug"));
    assert_eq!(config.text("log-level"), Some("warn"));
    assert_eq!(config.map("log-opt")["a"], "b");
    assert_eq!((config.ulimits()[0].soft, config.ulimits()[0].hard), (5, 6));
    assert!(config.switches("feature")["x"]);
    assert_eq!(config.pools(), [("10.0.0.0/8".to_string(), 24)]);
    assert_eq!(config.runtimes()["crun"].path, "/crun");
    for (text, message) in [
        ("--odd", "unknown flag: --odd"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("--host", "flag needs an argument: --host"),
        (
            "--mtu x",
            "invalid argument \"x\" for \"--mtu\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "--debug=maybe",
            "invalid argument \"maybe\" for \"--debug\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        (
            "--default-ulimit x",
            "invalid argument \"x\" for \"--default-ulimit\" flag: invalid ulimit argument: x",
        ),
        ("run", "accepts no arguments, but got \"run\""),
    ] {
        assert_eq!(flags::parse(&arguments(text)).unwrap_err().to_string(), message);
    }
}

#[test]
fn the_file_s_mistakes_are_named_with_their_lines() {
    let check = |file: &str, message: &str| assert_eq!(refused("", file), message);
    check(
        "{\n\"odd\": 1,\n\"debug\": true,\n\"more\": 2}",
        "the following directives don't match any configuration option: odd (line 2), more (line 4)",
    );
    check(
        "{\n\n\"debug\": \"yes\"}",
        "line 3: the value of \"debug\" has the wrong type: it must be true or false",
    );
    check(
        "{\"hosts\": \"unix:///a\"}",
        "line 1: the value of \"hosts\" has the wrong type: it must be a list of strings",
    );
    check("{\"debug\": true,\n\"debug\": false}", "line 2: \"debug\" stands there twice");
    check("{\"graph\": \"/x\"}", "line 1: \"graph\" was removed: use data-root");
    assert!(refused("", "[]").starts_with("invalid JSON: ") && refused("", "{").contains("line 1"));
    assert_eq!(
        refused("--debug --mtu 5", "{\"debug\": false,\n\"mtu\": 6}"),
        "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, \
         from file: false, line 1), mtu: (from flag: 5, from file: 6, line 2)"
    );
    let both = config("--add-runtime a=/a", r#"{"runtimes": {"b": {"path": "/b"}}}"#).unwrap();
    assert_eq!(both.runtimes().len(), 2, "the one that both may add to");
}

#[test]
fn what_cannot_be_is_refused() {
    for (file, message) in [
        (json!({"log-level": "loud"}), "invalid logging level: loud"),
        (json!({"labels": ["x"]}), "bad attribute format: x"),
        (json!({"labels": ["x=1", "x=2"]}), "conflict labels for x=2 and x=1"),
        (json!({"max-download-attempts": 0}), "invalid max download attempts: 0"),
        (json!({"max-concurrent-downloads": -1}), "invalid max concurrent downloads: -1"),
        (json!({"default-runtime": "odd"}), "specified default runtime 'odd' does not exist"),
        (json!({"runtimes": {"corten": {"path": "/x"}}}), "runtime name 'corten' is reserved"),
        (json!({"default-ipc-mode": "host"}), "IPC mode \"host\" is not supported as default value"),
        (
            json!({"bridge": "b", "bip": "10.0.0.1/24"}),
            "You specified -b & --bip, mutually exclusive options. Please specify only one",
        ),
        (json!({"default-shm-size": "much"}), "invalid default shm size much"),
        (
            json!({"default-ulimits": {"nofile": {"Soft": 9, "Hard": 8}}}),
            "default-ulimits: ulimit soft limit must be less than or equal to hard limit: 9 > 8",
        ),
    ] {
        assert_eq!(refused("", &file.to_string()), message);
    }
    assert!(config("", r#"{"selinux-enabled": false, "userns-remap": ""}"#).is_ok());
}

#[test]
fn what_has_no_use_here_is_taken_and_told() {
    let config =
        config("--containerd /x.sock", r#"{"userland-proxy": false, "debug": true, "iptables": null}"#)
            .unwrap();
    let names: Vec<&str> = config.ineffective().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["containerd", "userland-proxy"]);
}

#[test]
fn a_reload_takes_what_can_change() {
    let old = config("", r#"{"debug": true, "labels": ["a=1"], "data-root": "/a"}"#).unwrap();
    let new = config("", r#"{"labels": ["a=2"], "data-root": "/b"}"#).unwrap();
    let (live, later) = old.differences(&new);
    assert_eq!((live.as_slice(), later.as_slice()), (&["debug", "label"][..], &["data-root"][..]));
    let now = old.taking(&live, &new);
    assert!(!now.on("debug"));
    assert_eq!((now.list("label"), now.text("data-root")), (vec!["a=2".to_string()], Some("/a")));
}

#[test]
fn every_setting_has_one_place() {
    let mut names: Vec<_> = SETTINGS.iter().map(Setting::name).collect();
    let mut keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key).filter(|key| !key.is_empty()).collect();
    for list in [&mut names, &mut keys] {
        let count = list.len();
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), count);
    }
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused(text in "\\PC{0,60}", key in "[a-z-]{0,12}", number in any::<i64>()) {
        let _ = config("", &text);
        let _ = config("", &format!("{{\"{key}\": {number}}}"));
        for setting in SETTINGS.iter().filter(|setting| !setting.key.is_empty()) {
            let _ = config("", &json!({setting.key: text}).to_string());
            let _ = config("", &json!({setting.key: number}).to_string());
            let _ = config("", &json!({setting.key: [text]}).to_string());
            let _ = config("", &json!({setting.key: {&text: text}}).to_string());
            let _ = config("", &json!({setting.key: {&text: {&key: number}}}).to_string());
        }
    }

    #[test]
    fn any_flags_are_read_or_refused(words in proptest::collection::vec("-{0,2}[a-zHDl=-]{0,12}", 0..5)) {
        let _ = flags::parse(&words);
    }
}
