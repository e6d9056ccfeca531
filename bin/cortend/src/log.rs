//! The daemon's own log, and its level, which can change while it runs.

use anyhow::{Result, bail};
use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// The log that is being written.
pub struct Log(Box<dyn Fn(EnvFilter) -> Result<()> + Send + Sync>);

/// Level and exceptions, from the settings.
fn filter(config: &Config) -> Result<EnvFilter> {
    let level = match config.text("log-level").unwrap_or("info") {
        // As with Docker, debugging outdoes the level.
        _ if config.on("debug") => "debug",
        "fatal" | "panic" => "error",
        level @ ("debug" | "info" | "warn" | "error" | "trace") => level,
        other => bail!("unable to parse logging level: {other}"),
    };
    Ok(EnvFilter::try_new(format!("{level},hyper=warn,h2=warn,rustls=warn"))?)
}

pub fn set_up(config: &Config) -> Result<Log> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config)?)
        .with_writer(std::io::stderr)
        .with_target(false);
    match config.text("log-format").unwrap_or("text") {
        "text" => {
            let builder = builder.with_ansi(false).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Ok(Log(Box::new(move |filter| Ok(handle.reload(filter)?))))
        }
        "json" => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Ok(Log(Box::new(move |filter| Ok(handle.reload(filter)?))))
        }
        other => bail!("invalid log format: {other}"),
    }
}

impl Log {
    /// Takes the level of new settings.
    pub fn adjust(&self, config: &Config) -> Result<()> {
        (self.0)(filter(config)?)
    }
}
