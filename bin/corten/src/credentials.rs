//! Who the user is at a registry: kept by a helper program, or in the configuration file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use api_types::registry::AuthConfig;
use registry::base64;
use serde_json::{Map, Value};

use crate::fail::Fail;

/// The key under which the Hub's credentials are kept.
pub const HUB: &str = "https://index.docker.io/v1/";
/// The user that stands for a lasting token.
const TOKEN_USER: &str = "<token>";
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The credentials that one configuration knows.
#[derive(Debug)]
pub struct Credentials {
    path: PathBuf,
    config: Value,
}

/// Where the credentials of a registry are kept.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File,
    Helper(String),
}

/// The host of a key: old files have whole addresses in them.
fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or_default()
}

/// The key for a registry as the user names it.
pub fn key_of(server: &str) -> String {
    match host_of(server) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// The key for the repository of an image.
pub fn key_of_repository(repository: &str) -> String {
    match repository.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => key_of(host),
        _ => HUB.to_owned(),
    }
}

impl Credentials {
    /// Those of the configuration in a folder.
    pub fn load(folder: &Path) -> Result<Credentials, Fail> {
        let path = folder.join("config.json");
        let config = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Fail::text(format!("cannot read {}: {error}", path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Object(Map::new()),
            Err(error) => return Err(Fail::text(format!("cannot read {}: {error}", path.display()))),
        };
        Ok(Credentials { path, config })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn place(&self, key: &str) -> Place {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let helper = text(self.config.get("credHelpers").and_then(|helpers| helpers.get(host_of(key))))
            .or_else(|| text(self.config.get("credHelpers").and_then(|helpers| helpers.get(key))))
            .or_else(|| text(self.config.get("credsStore")));
        match helper.filter(|helper| !helper.is_empty()) {
            Some(helper) => Place::Helper(helper),
            None => Place::File,
        }
    }

    /// Whether what is stored for a registry lies in the file as it is.
    pub fn is_plain(&self, key: &str) -> bool {
        self.place(key) == Place::File
    }

    /// The credentials of a registry, if there are any.
    pub fn get(&self, key: &str) -> Result<Option<AuthConfig>, Fail> {
        if let Some(given) = from_environment(key)? {
            return Ok(Some(given));
        }
        let Place::Helper(helper) = self.place(key) else { return Ok(in_file(&self.config, key)) };
        let answer = match run(&helper, "get", key.as_bytes()) {
            Err(fail) if fail.text.contains(NOT_FOUND) => return Ok(None),
            other => other?,
        };
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|error| Fail::text(format!("error getting credentials - err: {error}, out: ``")))?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut auth = AuthConfig { serveraddress: key.to_owned(), ..AuthConfig::default() };
        match text("Username") {
            user if user == TOKEN_USER => auth.identitytoken = text("Secret"),
            user => (auth.username, auth.password) = (user, text("Secret")),
        }
        Ok(Some(auth))
    }

    /// Keeps the credentials of a registry.
    pub fn store(&mut self, key: &str, auth: &AuthConfig) -> Result<(), Fail> {
        let (user, secret) = match auth.identitytoken.is_empty() {
            true => (auth.username.as_str(), auth.password.as_str()),
            false => (TOKEN_USER, auth.identitytoken.as_str()),
        };
        let mut entry = Map::new();
        match self.place(key) {
            Place::Helper(helper) => {
                let body = serde_json::json!({"ServerURL": key, "Username": user, "Secret": secret});
                run(&helper, "store", body.to_string().as_bytes())?;
            }
            Place::File => {
                let plain = format!("{}:{}", auth.username, auth.password);
                entry.insert("auth".to_owned(), base64::encode(plain.as_bytes()).into());
                if !auth.identitytoken.is_empty() {
                    entry.insert(
                        "auth".to_owned(),
                        base64::encode(format!("{}:", auth.username).as_bytes()).into(),
                    );
                    entry.insert("identitytoken".to_owned(), auth.identitytoken.clone().into());
                }
            }
        }
        // With a helper an empty entry says that there is something.
        self.auths()?.insert(key.to_owned(), Value::Object(entry));
        self.save()
    }

    /// Forgets the credentials of a registry.
    pub fn erase(&mut self, key: &str) -> Result<(), Fail> {
        if let Place::Helper(helper) = self.place(key) {
            run(&helper, "erase", key.as_bytes())?;
        }
        let host = host_of(key).to_owned();
        let auths = self.auths()?;
        let before = auths.len();
        auths.retain(|known, _| known != key && host_of(known) != host);
        if auths.len() == before { Ok(()) } else { self.save() }
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>, Fail> {
        let path = self.path.display().to_string();
        let broken = || Fail::text(format!("{path} is not a JSON object with an object \"auths\""));
        let config = self.config.as_object_mut().ok_or_else(broken)?;
        config.entry("auths").or_insert_with(|| Value::Object(Map::new())).as_object_mut().ok_or_else(broken)
    }

    /// Replaces the file in one step; what else is in it stays. Only its owner may read it.
    fn save(&self) -> Result<(), Fail> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let failed =
            |error: std::io::Error| Fail::text(format!("cannot write {}: {error}", self.path.display()));
        // A link leads to where the file really is.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut text = Vec::new();
        let form = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, form);
        serde::Serialize::serialize(&self.config, &mut writer).map_err(|error| failed(error.into()))?;
        let temporary = folder.join(format!("config.json.{}", std::process::id()));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            failed(error)
        })
    }
}

/// The entry of a file for a registry.
fn in_file(config: &Value, key: &str) -> Option<AuthConfig> {
    let auths = config.get("auths")?.as_object()?;
    let entry = auths
        .get(key)
        .or_else(|| auths.iter().find(|(known, _)| host_of(known) == host_of(key)).map(|(_, entry)| entry))?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        username: text("username"),
        password: text("password"),
        identitytoken: text("identitytoken"),
        registrytoken: text("registrytoken"),
        serveraddress: key.to_owned(),
        ..AuthConfig::default()
    };
    let plain =
        base64::decode(&text("auth")).and_then(|plain| String::from_utf8(plain).ok()).unwrap_or_default();
    if let Some((user, password)) = plain.split_once(':') {
        auth.username = user.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    let any = !auth.username.is_empty() || !auth.identitytoken.is_empty() || !auth.registrytoken.is_empty();
    any.then_some(auth)
}

/// Credentials that `DOCKER_AUTH_CONFIG` gives; they go before all others.
fn from_environment(key: &str) -> Result<Option<AuthConfig>, Fail> {
    let Some(text) = std::env::var("DOCKER_AUTH_CONFIG").ok().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let config: Value = serde_json::from_str(&text)
        .map_err(|error| Fail::text(format!("failed to parse DOCKER_AUTH_CONFIG: {error}")))?;
    Ok(in_file(&config, key))
}

/// Runs `docker-credential-<helper>`. What it says when it fails, it says on its standard output.
#[expect(clippy::disallowed_methods, reason = "credential helpers are programs")]
fn run(helper: &str, action: &str, input: &[u8]) -> Result<Vec<u8>, Fail> {
    let program = format!("docker-credential-{helper}");
    if helper.contains('/') {
        return Err(Fail::text(format!("{helper:?} is not a valid name of a credential helper")));
    }
    let failed = |error: std::io::Error| {
        Fail::text(format!("error {} credentials - err: exec: {program:?}: {error}, out: ``", doing(action)))
    };
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not want to read says why.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Err(Fail::text(format!("error {} credentials - err: {}, out: `{said}`", doing(action), output.status)))
}

fn doing(action: &str) -> &str {
    match action {
        "store" => "storing",
        "erase" => "erasing",
        _ => "getting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> AuthConfig {
        AuthConfig { username: user.into(), password: password.into(), ..AuthConfig::default() }
    }

    #[test]
    fn the_file_keeps_what_it_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"odd":{"x":1},"auths":{"https://r.example/v2/":{"auth":"eDp5"}}}"#)
            .unwrap();
        let mut credentials = Credentials::load(folder.path()).unwrap();
        assert_eq!(credentials.get("r.example").unwrap().unwrap().password, "y");
        credentials.store("s.example:5000", &login("u", "p:q")).unwrap();
        let again = Credentials::load(folder.path()).unwrap();
        assert_eq!(again.get("s.example:5000").unwrap().unwrap().password, "p:q");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"odd\"") && text.contains("\n\t\"auths\""), "{text}");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        credentials.erase("s.example:5000").unwrap();
        credentials.erase("r.example").unwrap();
        assert!(Credentials::load(folder.path()).unwrap().get("r.example").unwrap().is_none());
    }

    #[test]
    fn places_and_keys() {
        let config = serde_json::json!({"credsStore": "all", "credHelpers": {"a.example": "one"}});
        let credentials = Credentials { path: PathBuf::new(), config };
        assert_eq!(credentials.place("a.example"), Place::Helper("one".into()));
        assert_eq!(credentials.place(HUB), Place::Helper("all".into()));
        assert_eq!((key_of(""), key_of("https://x:5/v2/")), (HUB.into(), "x:5".into()));
        assert_eq!(key_of_repository("quay.io/x"), "quay.io");
        assert_eq!(key_of_repository("library/x"), HUB);
    }
}
