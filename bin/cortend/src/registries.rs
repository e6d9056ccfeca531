//! What the daemon's settings say of registries.

use std::path::PathBuf;

use anyhow::{Context, Result};
use engine::Settings;
use registry::{Insecure, Proxies, Registries};
use transfer::{Limits, Setup};

use crate::config::Config;

/// Where the certificates of registries are looked for: ours, and where Docker has them.
const CERTIFICATES: [&str; 2] = ["/etc/corten/certs.d", "/etc/docker/certs.d"];

/// How registries are reached, and how much at once.
pub fn setup(config: &Config, settings: &Settings, version: &str) -> Result<Setup> {
    let certificates = match config.list("certs-dir") {
        none if none.is_empty() => CERTIFICATES.map(PathBuf::from).to_vec(),
        given => given.into_iter().map(PathBuf::from).collect(),
    };
    let of_registries = registry::Settings {
        mirrors: settings.registry_mirrors.clone(),
        insecure: Insecure::parse(&settings.insecure_registries).context("invalid insecure registry")?,
        certificates,
        proxies: Proxies::new(&settings.http_proxy, &settings.https_proxy, &settings.no_proxy)
            .context("invalid proxy")?,
        user_agent: format!("corten/{version} (linux)"),
    };
    // What is wrong with a mirror is told now, and not with the first pull.
    of_registries.endpoints(registry::HUB).context("invalid registry mirror")?;
    let limits = Limits {
        downloads: settings.downloads_max as usize,
        uploads: settings.uploads_max as usize,
        attempts: settings.download_attempts_max,
    };
    Ok(Setup::new(Registries::new(of_registries), limits))
}
