//! What the daemon's settings say of registries.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use images::Images;
use registry::{Insecure, Proxies, Registries, Settings};
use transfer::{Limits, Transfers};

use crate::config::Config;

/// Where the certificates of registries are looked for: ours, and where Docker has them.
const CERTIFICATES: [&str; 2] = ["/etc/corten/certs.d", "/etc/docker/certs.d"];

pub fn transfers(config: &Config, images: Arc<Images>, version: &str) -> Result<Transfers> {
    let given = config.map("proxies");
    let proxy = |name: &str| config.text(name).or_else(|| given.get(name).map(String::as_str));
    let proxies = Proxies::from_environment([proxy("http-proxy"), proxy("https-proxy"), proxy("no-proxy")])
        .context("invalid proxy")?;
    let folders = match config.list("certs-dir") {
        [] => CERTIFICATES.map(PathBuf::from).to_vec(),
        given => given.iter().map(PathBuf::from).collect(),
    };
    let settings = Settings {
        mirrors: config.list("registry-mirror").to_vec(),
        insecure: Insecure::parse(config.list("insecure-registry")).context("invalid insecure registry")?,
        certificates: folders,
        proxies,
        user_agent: format!("corten/{version} (linux)"),
    };
    // What is wrong with a mirror is told now, and not with the first pull.
    settings.endpoints(registry::HUB).context("invalid registry mirror")?;
    let standard = Limits::default();
    let limits = Limits {
        downloads: at_least_one(config, "max-concurrent-downloads")?.unwrap_or(standard.downloads),
        uploads: at_least_one(config, "max-concurrent-uploads")?.unwrap_or(standard.uploads),
        attempts: match at_least_one(config, "max-download-attempts")? {
            Some(attempts) => u32::try_from(attempts).unwrap_or(u32::MAX),
            None => standard.attempts,
        },
    };
    Ok(Transfers::new(images, Registries::new(settings), limits))
}

fn at_least_one(config: &Config, name: &str) -> Result<Option<usize>> {
    match config.number(name) {
        None => Ok(None),
        Some(number) if (1..=1000).contains(&number) => Ok(usize::try_from(number).ok()),
        Some(number) => bail!("invalid value {number} for {name}: use 1 to 1000"),
    }
}
