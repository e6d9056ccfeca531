//! Flags and `daemon.json`: one table of what there is, read from both.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Text,
    Number,
    /// May be given more than once.
    List,
    /// `key=value`, more than once.
    Map,
}

/// One setting.
struct Setting {
    flag: &'static str,
    short: Option<char>,
    /// The member of `daemon.json`; empty if it can only be a flag.
    key: &'static str,
    kind: Kind,
    help: &'static str,
}

const fn setting(
    flag: &'static str,
    short: Option<char>,
    key: &'static str,
    kind: Kind,
    help: &'static str,
) -> Setting {
    Setting { flag, short, key, kind, help }
}

const SETTINGS: [Setting; 43] = [
    setting("bip", None, "bip", Kind::Text, "IPv4 address for the default bridge"),
    setting("bridge", Some('b'), "bridge", Kind::Text, "Name of the default bridge; \"none\" for no bridge"),
    setting(
        "certs-dir",
        None,
        "certs-dir",
        Kind::List,
        "Folder with a folder for each registry's certificates",
    ),
    setting("cgroup-parent", None, "cgroup-parent", Kind::Text, "Set parent cgroup for all containers"),
    setting("config-file", None, "", Kind::Text, "Daemon configuration file"),
    setting("data-root", None, "data-root", Kind::Text, "Root directory of persistent state"),
    setting("debug", Some('D'), "debug", Kind::Switch, "Enable debug mode"),
    setting("default-shm-size", None, "default-shm-size", Kind::Text, "Default shm size for containers"),
    setting(
        "default-stop-timeout",
        None,
        "default-stop-timeout",
        Kind::Number,
        "Default time to wait for a container to stop, in seconds",
    ),
    setting("exec-root", None, "exec-root", Kind::Text, "Root directory for execution state files"),
    setting("group", Some('G'), "group", Kind::Text, "Group for the unix socket"),
    setting("help", Some('h'), "", Kind::Switch, "Print usage"),
    setting("host", Some('H'), "hosts", Kind::List, "Daemon socket(s) to connect to"),
    setting("http-proxy", None, "", Kind::Text, "HTTP proxy URL to use for outgoing traffic"),
    setting("https-proxy", None, "", Kind::Text, "HTTPS proxy URL to use for outgoing traffic"),
    setting(
        "icc",
        None,
        "icc",
        Kind::Switch,
        "Enable inter-container communication for the default bridge network",
    ),
    setting(
        "insecure-registry",
        None,
        "insecure-registries",
        Kind::List,
        "Enable insecure registry communication",
    ),
    setting("ip", None, "ip", Kind::Text, "Host IP for port publishing from the default bridge network"),
    setting(
        "ip-masq",
        None,
        "ip-masq",
        Kind::Switch,
        "Enable IP masquerading for the default bridge network",
    ),
    setting("label", None, "labels", Kind::List, "Set key=value labels to the daemon"),
    setting("log-driver", None, "log-driver", Kind::Text, "Default driver for container logs"),
    setting("log-format", None, "log-format", Kind::Text, "Set the logging format (\"text\"|\"json\")"),
    setting(
        "log-level",
        Some('l'),
        "log-level",
        Kind::Text,
        "Set the logging level (\"debug\"|\"info\"|\"warn\"|\"error\"|\"fatal\")",
    ),
    setting("log-opt", None, "log-opts", Kind::Map, "Default log driver options for containers"),
    setting(
        "max-concurrent-downloads",
        None,
        "max-concurrent-downloads",
        Kind::Number,
        "Set the max concurrent downloads",
    ),
    setting(
        "max-concurrent-uploads",
        None,
        "max-concurrent-uploads",
        Kind::Number,
        "Set the max concurrent uploads",
    ),
    setting(
        "max-download-attempts",
        None,
        "max-download-attempts",
        Kind::Number,
        "Set the max download attempts for each pull",
    ),
    setting("mtu", None, "mtu", Kind::Number, "Set the MTU for the default \"bridge\" network"),
    setting(
        "no-proxy",
        None,
        "",
        Kind::Text,
        "Comma-separated list of hosts or IP addresses for which the proxy is skipped",
    ),
    setting("pidfile", Some('p'), "pidfile", Kind::Text, "Path to use for daemon PID file"),
    setting("registry-mirror", None, "registry-mirrors", Kind::List, "Preferred registry mirror"),
    setting("search-index", None, "search-index", Kind::Text, "Address that images are searched at"),
    setting("shim", None, "", Kind::Text, "The shim program; beside this one by default"),
    setting("storage-driver", Some('s'), "storage-driver", Kind::Text, "Storage driver to use"),
    setting("tls", None, "tls", Kind::Switch, "Use TLS; implied by --tlsverify"),
    setting("tlscacert", None, "tlscacert", Kind::Text, "Trust certs signed only by this CA"),
    setting("tlscert", None, "tlscert", Kind::Text, "Path to TLS certificate file"),
    setting("tlskey", None, "tlskey", Kind::Text, "Path to TLS key file"),
    setting("tlsverify", None, "tlsverify", Kind::Switch, "Use TLS and verify the remote"),
    setting("validate", None, "", Kind::Switch, "Validate daemon configuration and exit"),
    setting("version", Some('v'), "", Kind::Switch, "Print version information and quit"),
    // Only in the file, as with Docker.
    setting("", None, "min-api-version", Kind::Text, ""),
    setting("", None, "proxies", Kind::Map, ""),
];

/// The settings as they were given, by flag or key.
#[derive(Debug, Clone, Default)]
struct Given(BTreeMap<&'static str, Vec<String>>);

impl Setting {
    fn name(&self) -> &'static str {
        if self.flag.is_empty() { self.key } else { self.flag }
    }

    /// Checks a value, so that mistakes are told by name.
    fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Switch if !matches!(value, "true" | "false" | "1" | "0" | "t" | "f") => {
                Err(format!("strconv.ParseBool: parsing \"{value}\": invalid syntax"))
            }
            Kind::Number if value.parse::<i64>().is_err() => {
                Err(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax"))
            }
            Kind::Map if !value.contains('=') => Err(format!("invalid key=value pair: {value}")),
            _ => Ok(()),
        }
    }
}

/// Reads the command line. Arguments that are no flags are refused.
fn parse_flags(arguments: &[String]) -> Result<Given> {
    let mut given = Given::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if let Some(long) = argument.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (long, None),
            };
            let found = SETTINGS.iter().find(|setting| setting.flag == name && !name.is_empty());
            let Some(found) = found else { bail!("unknown flag: --{name}") };
            take(&mut given, found, value, &mut rest, &format!("--{name}"))?;
        } else if let Some(short) = argument.strip_prefix('-').filter(|short| !short.is_empty()) {
            for (at, letter) in short.char_indices() {
                let found = SETTINGS.iter().find(|setting| setting.short == Some(letter));
                let Some(found) = found else { bail!("unknown shorthand flag: '{letter}' in -{short}") };
                if found.kind == Kind::Switch {
                    given.0.entry(found.name()).or_default().push("true".into());
                    continue;
                }
                let tail = &short[at + letter.len_utf8()..];
                let value = (!tail.is_empty()).then(|| tail.strip_prefix('=').unwrap_or(tail).to_string());
                take(&mut given, found, value, &mut rest, &format!("'{letter}' in -{short}"))?;
                break;
            }
        } else {
            bail!("accepts no arguments, but got \"{argument}\"");
        }
    }
    Ok(given)
}

fn take(
    given: &mut Given,
    setting: &Setting,
    value: Option<String>,
    rest: &mut std::slice::Iter<'_, String>,
    shown: &str,
) -> Result<()> {
    let value = match (value, setting.kind) {
        (Some(value), _) => value,
        (None, Kind::Switch) => "true".into(),
        (None, _) => rest.next().cloned().with_context(|| format!("flag needs an argument: {shown}"))?,
    };
    if let Err(why) = setting.check(&value) {
        bail!("invalid argument \"{value}\" for \"--{}\" flag: {why}", setting.flag);
    }
    given.0.entry(setting.name()).or_default().push(value);
    Ok(())
}

/// Reads `daemon.json`. Unknown keys and wrong types are refused by name.
fn parse_file(text: &str) -> Result<Given> {
    let mut given = Given::default();
    if text.trim().is_empty() {
        return Ok(given);
    }
    let members = match serde_json::from_str(text)? {
        Value::Object(members) => members,
        _ => bail!("it must hold a JSON object"),
    };
    let unknown: Vec<&str> = members
        .keys()
        .map(String::as_str)
        .filter(|key| !SETTINGS.iter().any(|setting| setting.key == *key && !key.is_empty()))
        .collect();
    if !unknown.is_empty() {
        bail!("the following directives don't match any configuration option: {}", unknown.join(", "));
    }
    for setting in &SETTINGS {
        let Some(value) = members.get(setting.key) else { continue };
        let scalar = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(on) => Some(on.to_string()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let fits = match (setting.kind, value) {
            (Kind::Switch, value) => value.is_boolean(),
            (Kind::Text, value) => value.is_string(),
            (Kind::Number, value) => value.is_i64(),
            (Kind::List, value) => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            (Kind::Map, value) => {
                value.as_object().is_some_and(|map| map.values().all(|one| scalar(one).is_some()))
            }
        };
        if !fits {
            bail!("the value of \"{}\" has the wrong type", setting.key);
        }
        let values = match value {
            Value::Array(list) => list.iter().filter_map(scalar).collect(),
            Value::Object(map) => {
                map.iter().filter_map(|(key, value)| Some(format!("{key}={}", scalar(value)?))).collect()
            }
            other => scalar(other).into_iter().collect(),
        };
        given.0.insert(setting.name(), values);
    }
    Ok(given)
}

/// Everything that the daemon is told, with defaults.
#[derive(Debug, Clone)]
pub struct Config {
    given: Given,
}

/// What the command line asks for.
pub enum Invocation {
    Run(Config),
    Validate,
    Help(String),
    Version,
}

pub fn read(arguments: &[String]) -> Result<Invocation> {
    let flags = parse_flags(arguments)?;
    let on =
        |name: &str| flags.0.get(name).and_then(|values| values.last()).is_some_and(|value| truthy(value));
    if on("help") {
        return Ok(Invocation::Help(help()));
    }
    if on("version") {
        return Ok(Invocation::Version);
    }
    let explicit = flags.0.get("config-file").and_then(|values| values.last()).cloned();
    let path = PathBuf::from(explicit.as_deref().unwrap_or("/etc/corten/daemon.json"));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => String::new(),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("unable to read the configuration file {}", path.display()));
        }
    };
    let file = parse_file(&text)
        .with_context(|| format!("unable to configure the daemon with file {}", path.display()))?;
    let twice: Vec<&str> = file.0.keys().filter(|name| flags.0.contains_key(*name)).copied().collect();
    if !twice.is_empty() {
        bail!(
            "unable to configure the daemon with file {}: the following directives are specified both as a flag and in \
             the configuration file: {}",
            path.display(),
            twice.join(", ")
        );
    }
    let mut given = flags.clone();
    given.0.extend(file.0);
    let config = Config { given };
    if on("validate") {
        return Ok(Invocation::Validate);
    }
    Ok(Invocation::Run(config))
}

fn truthy(value: &str) -> bool {
    matches!(value, "true" | "1" | "t")
}

fn help() -> String {
    let mut text = String::from(
        "\nUsage:  cortend [OPTIONS]\n\nA self-sufficient runtime for containers.\n\nOptions:\n",
    );
    for setting in SETTINGS.iter().filter(|setting| !setting.flag.is_empty()) {
        let short = setting.short.map_or_else(|| "    ".into(), |letter| format!("-{letter}, "));
        let kind = match setting.kind {
            Kind::Switch => "",
            Kind::Text => " string",
            Kind::Number => " int",
            Kind::List => " list",
            Kind::Map => " map",
        };
        text.push_str(&format!("  {short}--{:<32}{}\n", format!("{}{kind}", setting.flag), setting.help));
    }
    text
}

impl Config {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given
            .0
            .get(name)
            .and_then(|values| values.last())
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    pub fn list(&self, name: &str) -> &[String] {
        self.given.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn on(&self, name: &str) -> bool {
        self.text(name).is_some_and(truthy)
    }

    pub fn on_or(&self, name: &str, default: bool) -> bool {
        self.text(name).map_or(default, truthy)
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        let pairs = self.list(name).iter().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn flags_in_every_form() {
        let given =
            parse_flags(&arguments("-D -Hunix:///a --host=tcp://b --icc=false --log-opt a=b -l warn"))
                .unwrap();
        assert_eq!(given.0["host"], ["unix:///a", "tcp://b"]);
        assert_eq!(given.0["icc"], ["false"]);
        assert_eq!(given.0["log-level"], ["warn"]);
        for (text, message) in [
            ("--odd", "unknown flag: --odd"),
            ("-x", "unknown shorthand flag: 'x' in -x"),
            ("--host", "flag needs an argument: --host"),
            (
                "--mtu x",
                "invalid argument \"x\" for \"--mtu\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            ("run", "accepts no arguments, but got \"run\""),
        ] {
            assert_eq!(parse_flags(&arguments(text)).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn files() {
        let given =
            parse_file(r#"{"hosts":["unix:///a"],"debug":true,"mtu":1400,"log-opts":{"max-size":"1m"}}"#)
                .unwrap();
        assert_eq!(given.0["host"], ["unix:///a"]);
        assert_eq!(given.0["log-opt"], ["max-size=1m"]);
        assert!(parse_file(r#"{"odd":1,"debug":true}"#).unwrap_err().to_string().ends_with("option: odd"));
        assert!(
            parse_file(r#"{"debug":"yes"}"#)
                .unwrap_err()
                .to_string()
                .contains("\"debug\" has the wrong type")
        );
        assert!(parse_file("[]").is_err() && parse_file("{").is_err());
    }
}
