//! What the settings must be, and the ones that are more than text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use api_types::container::Ulimit;
use serde_json::Value;

use super::{Config, Effect, SETTINGS};

/// One of `runtimes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    pub path: String,
    pub arguments: Vec<String>,
}

impl Config {
    pub fn ulimits(&self) -> Vec<Ulimit> {
        let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_i64).unwrap_or(0);
        self.object("default-ulimit")
            .map(|(name, value)| Ulimit {
                name: name.clone(),
                soft: number(value, "Soft"),
                hard: number(value, "Hard"),
            })
            .collect()
    }

    pub fn runtimes(&self) -> BTreeMap<String, Runtime> {
        let text =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        self.object("add-runtime")
            .map(|(name, value)| {
                let path = match text(value, "path") {
                    path if path.is_empty() => text(value, "runtimeType"),
                    path => path,
                };
                let arguments = value.get("runtimeArgs").and_then(Value::as_array).into_iter().flatten();
                let arguments = arguments.filter_map(Value::as_str).map(String::from).collect();
                (name.clone(), Runtime { path, arguments })
            })
            .collect()
    }

    /// Address pools, each with the prefix length of the subnets that are cut from it.
    pub fn pools(&self) -> Vec<(String, i64)> {
        let list = self.value("default-address-pool").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .map(|one| {
                let base = one.get("base").and_then(Value::as_str).unwrap_or_default();
                (base.to_string(), one.get("size").and_then(Value::as_i64).unwrap_or(0))
            })
            .collect()
    }

    /// Bytes.
    pub fn shm_size(&self) -> Result<i64> {
        match self.value("default-shm-size") {
            None => Ok(64 << 20),
            Some(Value::Number(size)) => size.as_i64().context("invalid default shm size"),
            Some(value) => {
                let text = value.as_str().unwrap_or_default();
                model::create::parse_size(text)
                    .and_then(|size| i64::try_from(size).ok())
                    .with_context(|| format!("invalid default shm size {text}"))
            }
        }
    }

    /// Seconds; none: as long as it takes.
    pub fn shutdown_seconds(&self) -> Option<u64> {
        u64::try_from(self.number("shutdown-timeout").unwrap_or(15)).ok()
    }
}

/// Refuses settings that cannot be met or contradict each other, naming them.
pub fn check(config: &Config) -> Result<()> {
    refused(config)?;
    one_of(config, "log-level", &["trace", "debug", "info", "warn", "error", "fatal", "panic"])
        .map_err(|value| anyhow::anyhow!("invalid logging level: {value}"))?;
    one_of(config, "log-format", &["text", "json"])
        .map_err(|value| anyhow::anyhow!("invalid log format: {value}"))?;
    one_of(config, "default-ipc-mode", &["private", "shareable"])
        .map_err(|value| anyhow::anyhow!("IPC mode \"{value}\" is not supported as default value"))?;
    one_of(config, "default-cgroupns-mode", &["private", "host"])
        .map_err(|value| anyhow::anyhow!("default cgroup namespace mode ({value}) is invalid"))?;
    one_of(config, "firewall-backend", &["nftables", "iptables"])
        .map_err(|value| anyhow::anyhow!("invalid firewall-backend \"{value}\""))?;
    one_of(config, "storage-driver", &["overlay", "overlay2", "overlayfs", "btrfs", "vfs", "native"])
        .map_err(|value| {
            let text = "error initializing graphdriver: driver not supported";
            anyhow::anyhow!("{text}: {value}; use overlay2, btrfs or vfs")
        })?;
    for label in config.list("label") {
        ensure!(
            label.split_once('=').is_some_and(|(key, _)| !key.is_empty()),
            "bad attribute format: {label}"
        );
    }
    conflicting_labels(config)?;
    numbers(config)?;
    bridge(config)?;
    limits(config)?;
    runtimes(config)?;
    storage_and_exec(config)
}

fn refused(config: &Config) -> Result<()> {
    for setting in SETTINGS {
        let Effect::Refused(why) = setting.effect else { continue };
        let harmless = |value: &Value| {
            value == &Value::Bool(false)
                || value.as_str() == Some("")
                || value.as_array().is_some_and(Vec::is_empty)
        };
        if config.value(setting.name()).is_some_and(|value| !harmless(value)) {
            bail!("{}: {why}", setting.name());
        }
    }
    Ok(())
}

fn one_of(config: &Config, name: &str, words: &[&str]) -> Result<(), String> {
    match config.text(name) {
        Some(value) if !words.contains(&value) => Err(value.to_string()),
        _ => Ok(()),
    }
}

fn conflicting_labels(config: &Config) -> Result<()> {
    let mut seen = BTreeMap::new();
    for label in config.list("label") {
        let Some((key, value)) = label.split_once('=') else { continue };
        if let Some(other) = seen.insert(key.to_string(), value.to_string())
            && other != value
        {
            bail!("conflict labels for {key}={value} and {key}={other}");
        }
    }
    Ok(())
}

fn numbers(config: &Config) -> Result<()> {
    for (name, least, what) in [
        ("max-concurrent-downloads", 0, "max concurrent downloads"),
        ("max-concurrent-uploads", 0, "max concurrent uploads"),
        ("max-download-attempts", 1, "max download attempts"),
        ("mtu", 0, "MTU"),
        ("network-control-plane-mtu", 0, "network control plane MTU"),
    ] {
        if let Some(number) = config.number(name).filter(|number| *number < least) {
            bail!("invalid {what}: {number}");
        }
    }
    if let Some(timeout) = config.number("default-stop-timeout").filter(|timeout| *timeout < -1) {
        bail!("invalid default-stop-timeout: {timeout}: use seconds, or -1 to wait for ever");
    }
    config.shm_size().map(drop)
}

fn bridge(config: &Config) -> Result<()> {
    ensure!(
        config.text("bridge").is_none() || config.text("bip").is_none(),
        "You specified -b & --bip, mutually exclusive options. Please specify only one"
    );
    let without = |tables: &str| !config.on_or(tables, true) && !config.on_or("icc", true);
    for (tables, program) in [("iptables", "iptables"), ("ip6tables", "ip6tables")] {
        ensure!(
            !without(tables),
            "You specified --{tables}=false with --icc=false. ICC=false uses {program} to function. Please set --icc or \
             --{tables} to true"
        );
    }
    for (name, what) in [("dns", "DNS server"), ("host-gateway-ip", "host gateway IP")] {
        let given = config.list(name);
        if let Some(text) = given.iter().find(|text| text.parse::<IpAddr>().is_err()) {
            bail!("{name}: {text} is not an IP address for a {what}");
        }
    }
    for (base, size) in config.pools() {
        let pool: Result<ipnet::IpNet, _> = base.parse();
        let pool = pool.map_err(|_| {
            anyhow::anyhow!("invalid default address pool {base}: use an address range such as 10.10.0.0/16")
        })?;
        let fits = i64::from(pool.prefix_len()) <= size && size <= i64::from(pool.max_prefix_len());
        ensure!(fits, "invalid default address pool {base}: no subnets of size {size} can be cut from it");
    }
    Ok(())
}

fn limits(config: &Config) -> Result<()> {
    for limit in config.ulimits() {
        ensure!(
            model::spec::rlimit_kind(&limit.name).is_some(),
            "default-ulimits: invalid ulimit type: {}",
            limit.name
        );
        ensure!(
            limit.hard == -1 || (limit.soft != -1 && limit.soft <= limit.hard),
            "default-ulimits: ulimit soft limit must be less than or equal to hard limit: {} > {}",
            limit.soft,
            limit.hard
        );
    }
    Ok(())
}

fn runtimes(config: &Config) -> Result<()> {
    crate::settings::runtimes(config).map(drop)
}

fn storage_and_exec(config: &Config) -> Result<()> {
    for option in config.list("storage-opt") {
        let Some((key, _)) = option.split_once('=') else { bail!("unable to parse storage-opt: {option}") };
        ensure!(
            matches!(key, "overlay2.override_kernel_check"),
            "storage-opts: unknown option {key}: quotas of layers are not supported yet"
        );
    }
    for option in config.list("exec-opt") {
        match option.split_once('=') {
            Some(("native.cgroupdriver", "cgroupfs" | "systemd")) => {}
            Some(("native.cgroupdriver", other)) => {
                bail!("exec-opts: {other} is no cgroup driver: use cgroupfs or systemd");
            }
            Some((key, _)) => bail!("exec-opts: unknown option {key}"),
            None => bail!("unable to parse exec-opt: {option}"),
        }
    }
    Ok(())
}
