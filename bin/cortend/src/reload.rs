//! SIGHUP: the file is read again, and what can change does.

use anyhow::Result;
use engine::Engine;
use transfer::Transfers;

use crate::config::Config;
use crate::log::Log;
use crate::{VERSION, registries, settings};

/// The settings in force afterwards. A file that is refused, for whatever reason, changes nothing.
pub fn reload(config: Config, engine: &Engine, transfers: &Transfers, log: &Log) -> Config {
    match try_reload(&config, engine, transfers, log) {
        Ok(newer) => newer,
        Err(error) => {
            tracing::error!("the configuration was not reloaded, the settings stay as they are: {error:#}");
            config
        }
    }
}

fn try_reload(config: &Config, engine: &Engine, transfers: &Transfers, log: &Log) -> Result<Config> {
    let file = config.read_again()?;
    let (live, later) = config.differences(&file);
    let newer = config.taking(&live, &file);
    // Everything that can fail comes before the first change.
    let settings = settings::read(&newer)?;
    let setup = registries::setup(&newer, &settings, VERSION)?;
    log.adjust(&newer)?;
    transfers.set_up(setup);
    engine.reload(settings);
    for name in &later {
        tracing::warn!(setting = name, "the new value counts from the daemon's next start on");
    }
    tracing::info!(changed = live.join(" "), "reloaded the configuration");
    Ok(newer)
}
