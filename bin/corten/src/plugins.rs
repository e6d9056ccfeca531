//! Programs that add commands: `docker-NAME` in the folders where Docker's client looks for them.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use crate::args::tree::ROOT;
use crate::config::Config;
use crate::fail::Fail;

const FOLDERS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
const SCHEMA: &str = "0.1.0";
const NAME_RULE: &str = "^[a-z][a-z0-9]*$";

/// A program that was found, with what it says of itself.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub name: String,
    pub path: PathBuf,
    metadata: Map<String, Value>,
    /// Why it cannot be used.
    pub error: Option<String>,
}

impl Plugin {
    pub fn text(&self, key: &str) -> &str {
        self.metadata.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn is_hidden(&self) -> bool {
        self.metadata.get("Hidden").and_then(Value::as_bool).unwrap_or(false)
    }

    /// As `info` lists it.
    pub fn value(&self) -> Value {
        let mut all = self.metadata.clone();
        all.insert("Name".to_owned(), self.name.clone().into());
        all.insert("Path".to_owned(), self.path.display().to_string().into());
        if let Some(error) = &self.error {
            all.insert("Err".to_owned(), error.clone().into());
        }
        all.into()
    }
}

fn folders(config: &Config, folder: &Path) -> Vec<PathBuf> {
    let extra = config.list("cliPluginsExtraDirs").into_iter().map(PathBuf::from);
    extra.chain([folder.join("cli-plugins")]).chain(FOLDERS.iter().map(PathBuf::from)).collect()
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Asks a program what it is.
fn examine(name: &str, path: PathBuf) -> Plugin {
    let mut plugin = Plugin { name: name.to_owned(), path, metadata: Map::new(), error: None };
    let checked = check(name, &plugin.path, &mut plugin.metadata);
    plugin.error = checked.err();
    plugin
}

fn check(name: &str, path: &Path, metadata: &mut Map<String, Value>) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!(
            "plugin candidate {} did not match {}",
            template::quote(name),
            template::quote(NAME_RULE)
        ));
    }
    if ROOT.sub(name).is_some() {
        return Err(format!("plugin {} duplicates builtin command", template::quote(name)));
    }
    #[expect(clippy::disallowed_methods, reason = "a plugin is a program")]
    let output = Command::new(path)
        .arg("docker-cli-plugin-metadata")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("failed to fetch metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("failed to fetch metadata: {}", output.status));
    }
    *metadata =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("invalid metadata: {error}"))?;
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("SchemaVersion") != SCHEMA {
        let version = template::quote(text("SchemaVersion"));
        return Err(format!("plugin SchemaVersion {version} is not valid, must be {SCHEMA}"));
    }
    if text("Vendor").is_empty() {
        return Err("plugin metadata does not define a vendor".to_owned());
    }
    Ok(())
}

/// All candidates by name; in the folder that comes first they hide others of their name.
pub fn all(config: &Config, folder: &Path) -> Vec<Plugin> {
    let mut found: Vec<Plugin> = Vec::new();
    for folder in folders(config, folder) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = file.strip_prefix("docker-") else { continue };
            if is_program(&entry.path()) && !found.iter().any(|known| known.name == name) {
                found.push(examine(name, entry.path()));
            }
        }
    }
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found
}

/// The plugin of that name, if there is one that can be used.
pub fn find(config: &Config, folder: &Path, name: &str) -> Option<Plugin> {
    if !is_name(name) {
        return None;
    }
    let paths = folders(config, folder).into_iter().map(|folder| folder.join(format!("docker-{name}")));
    let path = paths.into_iter().find(|path| is_program(path))?;
    Some(examine(name, path)).filter(|plugin| plugin.error.is_none())
}

/// The command that runs a plugin with the words of our own command line.
fn command(plugin: &Plugin, words: &[String], host: Option<&str>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "a plugin is a program")]
    let mut command = Command::new(&plugin.path);
    command.args(words);
    let own = std::env::args().next().unwrap_or_else(|| "corten".to_owned());
    command.env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", own);
    if let Some(host) = host {
        command.env("DOCKER_HOST", host);
    }
    command
}

/// Becomes the plugin; only returns if that fails. `host` is where it finds the daemon, if nothing else says so.
pub fn become_one(plugin: &Plugin, words: &[String], host: Option<&str>) -> Fail {
    let error = command(plugin, words, host).exec();
    Fail::text(format!("cannot run the plugin {}: {error}", plugin.path.display()))
}

/// What a plugin offers in place of the last word.
pub fn complete(plugin: &Plugin, words: &[String]) -> Vec<String> {
    let words: Vec<String> = std::iter::once("__complete".to_owned()).chain(words.iter().cloned()).collect();
    let output = command(plugin, &words, None).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // A line of its own says what to do where nothing fits.
    text.lines().filter(|line| !line.starts_with(':')).map(str::to_owned).collect()
}
