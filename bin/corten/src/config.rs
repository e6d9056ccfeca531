//! The client's configuration: `~/.docker/config.json` and contexts. Read only by commands that need it.

use std::path::{Path, PathBuf};

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

/// A context: where it leads, and its TLS files if it has any.
#[derive(Debug)]
pub struct Context {
    pub host: String,
    pub tls: Option<api_client::TlsFiles>,
}

/// Looks a named context up.
pub fn context(folder: &Path, name: &str) -> Option<Context> {
    let id = crate::opts::context_id(name);
    let meta: Value =
        serde_json::from_slice(&read(&folder.join("contexts/meta").join(&id).join("meta.json"))?).ok()?;
    let endpoint = meta.get("Endpoints")?.get("docker")?;
    let host = endpoint.get("Host")?.as_str()?.to_owned();
    let insecure = endpoint.get("SkipTLSVerify").and_then(Value::as_bool).unwrap_or(false);
    let files = folder.join("contexts/tls").join(&id).join("docker");
    let existing = |name: &str| Some(files.join(name)).filter(|path: &PathBuf| path.exists());
    let tls = api_client::TlsFiles {
        ca: existing("ca.pem"),
        cert: existing("cert.pem"),
        key: existing("key.pem"),
        insecure,
    };
    let any = insecure || tls.ca.is_some() || tls.cert.is_some();
    Some(Context { host, tls: any.then_some(tls) })
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
