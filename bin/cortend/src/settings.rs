//! The configuration, as the engine takes it.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use api_types::container::LogConfig;
use engine::{ExternalRuntime, NameService, NetworkOptions, Paths, Runtimes, Settings};
use ipnet::Ipv4Net;
use model::logging::Logging;

use crate::config::Config;

pub const DATA_ROOT: &str = "/var/lib/corten";

/// What a container's log gets if it names no driver.
pub fn log(config: &Config) -> Result<LogConfig> {
    let driver = config.text("log-driver").map_or(Settings::default().log.driver, String::from);
    let log = LogConfig { driver, config: config.map("log-opt") };
    Logging::of(&log).map_err(|refusal| anyhow::anyhow!("failed to set log opts: {}", refusal.message))?;
    Ok(log)
}

/// What can change while the daemon runs.
pub fn read(config: &Config) -> Result<Settings> {
    for name in config.list("authorization-plugin") {
        // What nobody can be asked about would be refused from now on, all of it.
        api_server::find_plugin(&name)
            .map_err(|error| anyhow::anyhow!("error validating authorization plugin: {error}"))?;
    }
    let standard = Settings::default();
    let text = |name: &str, standard: String| config.text(name).map_or(standard, String::from);
    let count = |name: &str, standard: u32| -> Result<u32> {
        match config.number(name) {
            // Docker's word for "as usual".
            None | Some(0) => Ok(standard),
            Some(number) => u32::try_from(number).with_context(|| format!("invalid {name}: {number}")),
        }
    };
    let proxies = config.map("proxies");
    let proxy = |name: &str| -> String {
        let given = config.text(name).map(String::from).or_else(|| proxies.get(name).cloned());
        let variable = name.replace('-', "_");
        let environment =
            || std::env::var(variable.to_uppercase()).or_else(|_| std::env::var(&variable)).ok();
        given.or_else(environment).unwrap_or_default()
    };
    Ok(Settings {
        labels: config.list("label"),
        debug: config.on("debug"),
        experimental: config.on("experimental"),
        log: log(config)?,
        shm_size: config.shm_size()?,
        stop_timeout: config.number("default-stop-timeout").unwrap_or(standard.stop_timeout),
        shutdown_seconds: config.shutdown_seconds(),
        ulimits: config.ulimits(),
        ipc_mode: text("default-ipc-mode", standard.ipc_mode),
        cgroupns_mode: text("default-cgroupns-mode", standard.cgroupns_mode),
        no_new_privileges: config.on("no-new-privileges"),
        init: config.on("init"),
        seccomp: seccomp_profile(config)?,
        runtimes: runtimes(config)?,
        insecure_registries: config.list("insecure-registry"),
        registry_mirrors: mirrors(config),
        downloads_max: count("max-concurrent-downloads", standard.downloads_max)?,
        uploads_max: count("max-concurrent-uploads", standard.uploads_max)?,
        download_attempts_max: count("max-download-attempts", standard.download_attempts_max)?,
        http_proxy: proxy("http-proxy"),
        https_proxy: proxy("https-proxy"),
        no_proxy: proxy("no-proxy"),
        features: config.switches("feature"),
        authorization_plugins: config.list("authorization-plugin"),
        // Containers always outlive the daemon.
        live_restore: true,
    })
}

/// The runtimes by name, and which one is the default.
pub fn runtimes(config: &Config) -> Result<Runtimes> {
    let external = config
        .runtimes()
        .into_iter()
        .map(|(name, runtime)| (name, ExternalRuntime { path: runtime.path, arguments: runtime.arguments }));
    Runtimes::new(external.collect(), config.text("default-runtime"))
        .map_err(|refusal| anyhow::anyhow!(refusal.message))
}

/// With the slash at the end that clients show.
fn mirrors(config: &Config) -> Vec<String> {
    let given = config.list("registry-mirror").into_iter();
    given.map(|mirror| if mirror.ends_with('/') { mirror } else { format!("{mirror}/") }).collect()
}

/// The text of the profile for containers that name none.
fn seccomp_profile(config: &Config) -> Result<Option<String>> {
    match config.text("seccomp-profile") {
        None | Some("builtin") => Ok(None),
        Some("unconfined") => Ok(Some("unconfined".into())),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("opening seccomp profile ({path}) failed"))?;
            seccomp::Profile::parse(&text)
                .with_context(|| format!("the seccomp profile {path} cannot be used"))?;
            Ok(Some(text))
        }
    }
}

/// Tells daemons with different data roots apart; the usual one needs no mark.
fn instance(data_root: &Path) -> Option<u32> {
    if data_root == Path::new(DATA_ROOT) {
        return None;
    }
    // FNV-1a.
    let bytes = data_root.as_os_str().as_encoded_bytes();
    Some(
        bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)),
    )
}

/// How the default bridge is set up.
pub fn network(config: &Config, paths: &Paths) -> Result<NetworkOptions> {
    let bridge = config.text("bridge");
    let range = |name: &str| -> Result<Option<Ipv4Net>> {
        config
            .text(name)
            .map(|text| {
                text.parse().with_context(|| format!("invalid {name} {text}: use an address with a prefix"))
            })
            .transpose()
    };
    let addresses = |name: &str| -> Vec<IpAddr> {
        config.list(name).iter().filter_map(|text| text.parse().ok()).collect()
    };
    let pools = config.pools();
    let pools = pools
        .iter()
        .filter_map(|(base, size)| Some((base.parse::<Ipv4Net>().ok()?.trunc(), u8::try_from(*size).ok()?)));
    Ok(NetworkOptions {
        bridge_name: bridge.filter(|name| *name != "none").unwrap_or(network::DEFAULT_BRIDGE_NAME).into(),
        bridge_address: range("bip")?,
        mtu: config
            .number("mtu")
            .filter(|mtu| *mtu > 0)
            .map(u32::try_from)
            .transpose()
            .context("invalid MTU")?,
        icc: config.on_or("icc", true),
        masquerade: config.on_or("ip-masq", true),
        host_binding: config
            .text("ip")
            .unwrap_or("0.0.0.0")
            .parse()
            .context("invalid host IP address for published ports")?,
        disabled: bridge == Some("none"),
        instance: instance(&paths.data),
        forwarding: config.on_or("ip-forward", true),
        fixed_range: range("fixed-cidr")?.map(|range| range.trunc()),
        pools: pools.collect(),
        names: NameService {
            servers: addresses("dns"),
            search: config.list("dns-search"),
            options: config.list("dns-opt"),
            host_gateways: addresses("host-gateway-ip"),
        },
    })
}

/// Docker's switch for the variables that once told of linked containers.
pub fn link_variables() -> bool {
    std::env::var("DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS").is_ok_and(|value| value == "1")
}
