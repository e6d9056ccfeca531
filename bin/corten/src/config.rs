//! The client's configuration: `~/.docker/config.json` and contexts. Read only by commands that need it.

use std::path::Path;

use serde_json::Value;

/// The largest configuration file that is read.
const MAX_FILE: u64 = 16 << 20;

/// The folder of the configuration, without looking at flags.
pub fn folder() -> String {
    match std::env::var("DOCKER_CONFIG") {
        Ok(folder) if !folder.is_empty() => folder,
        _ => format!("{}/.docker", std::env::var("HOME").unwrap_or_else(|_| "/".to_owned())),
    }
}

/// What `config.json` says; empty if there is none.
#[derive(Debug, Default)]
pub struct Config(Value);

impl Config {
    pub fn load(folder: &Path) -> Self {
        let path = folder.join("config.json");
        let Some(bytes) = read(&path) else { return Self::default() };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Self(value),
            Err(error) => {
                eprintln!("WARNING: Error parsing config file ({}): {error}", path.display());
                Self::default()
            }
        }
    }

    /// A text member; empty if it is not there.
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A list of texts.
    pub fn list(&self, key: &str) -> Vec<String> {
        let list = self.0.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// Changes the file, and leaves everything in it that is not ours to change. A link to it stays a link.
    pub fn change(
        folder: &Path,
        change: impl FnOnce(&mut serde_json::Map<String, Value>),
    ) -> Result<(), String> {
        use std::io::Write as _;
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let path = folder.join("config.json");
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
        let mut map = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| format!("Error parsing config file ({}): {error}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                serde_json::Map::from_iter([("auths".to_owned(), serde_json::json!({}))])
            }
            Err(error) => return Err(failed(error)),
        };
        change(&mut map);
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        let mut text = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, tabs);
        serde::Serialize::serialize(&map, &mut writer).map_err(|error| failed(error.into()))?;
        let partial = path.with_extension(format!("json-{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let written = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.and_then(|()| std::fs::rename(&partial, &path)).map_err(failed)
    }

    /// Whether a member is there at all.
    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    /// Headers for each request.
    pub fn headers(&self) -> Vec<(String, String)> {
        let Some(Value::Object(map)) = self.0.get("HttpHeaders") else { return Vec::new() };
        map.iter()
            .filter(|(key, _)| !key.eq_ignore_ascii_case("user-agent"))
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// Filters that every prune gets.
    pub fn prune_filters(&self) -> Vec<String> {
        let Some(Value::Array(list)) = self.0.get("pruneFilters") else { return Vec::new() };
        list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// Proxy variables for containers and builds on `host`, in both cases of letters, sorted.
    pub fn proxies(&self, host: &str) -> Vec<(String, String)> {
        let Some(all) = self.0.get("proxies") else { return Vec::new() };
        let Some(Value::Object(chosen)) = all.get(host).or_else(|| all.get("default")) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, name) in [
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ] {
            if let Some(value) = chosen.get(key).and_then(Value::as_str).filter(|value| !value.is_empty()) {
                found.push((name.to_owned(), value.to_owned()));
                found.push((name.to_lowercase(), value.to_owned()));
            }
        }
        found.sort();
        found
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let size = std::fs::metadata(path).ok()?.len();
    (size <= MAX_FILE).then(|| std::fs::read(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_in_both_cases() {
        let config = Config(serde_json::json!({"proxies": {"default": {"httpProxy": "p", "noProxy": ""}}}));
        let found: Vec<_> = config.proxies("unix:///x").into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["HTTP_PROXY", "http_proxy"]);
    }
}
