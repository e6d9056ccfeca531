//! What every command has at hand: the program's name, the global flags, the configuration and the daemon.

use std::cell::OnceCell;
use std::path::PathBuf;

use api_client::{Client, Endpoint, TlsFiles};

use crate::args::Matches;
use crate::config::{self, Config};
use crate::credentials::Credentials;
use crate::fail::Fail;

/// Where our own daemon listens, and where others do.
pub const OWN_SOCKET: &str = "/run/corten/corten.sock";
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";

pub struct App {
    /// `docker` or `corten`.
    pub program: &'static str,
    /// The command's path without the program, for texts.
    pub path: Vec<&'static str>,
    global: Matches,
    config: OnceCell<Config>,
    client: OnceCell<Client>,
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl App {
    pub fn new(program: &'static str, global: Matches, path: Vec<&'static str>) -> Self {
        Self { program, path, global, config: OnceCell::new(), client: OnceCell::new() }
    }

    pub fn folder(&self) -> PathBuf {
        match self.global.str("config") {
            "" => config::folder().into(),
            folder => folder.into(),
        }
    }

    /// The credentials that the configuration knows.
    pub fn credentials(&self) -> Result<Credentials, Fail> {
        Credentials::load(&self.folder())
    }

    /// The header that gives the daemon the user's credentials for a repository; `{}` if there are none.
    pub fn registry_auth(&self, repository: &str) -> Result<String, Fail> {
        let key = crate::credentials::key_of_repository(repository);
        let known = self.credentials()?.get(&key)?.unwrap_or_default();
        let text = serde_json::to_vec(&known).map_err(|error| Fail::text(error.to_string()))?;
        Ok(registry::base64::encode_url(&text))
    }

    pub fn config(&self) -> &Config {
        self.config.get_or_init(|| Config::load(&self.folder()))
    }

    /// The name of the context in use.
    pub fn context(&self) -> String {
        if !self.global.str("context").is_empty() {
            return self.global.str("context").to_owned();
        }
        if self.global.has("host") || env("DOCKER_HOST").is_some() || env("CORTEN_HOST").is_some() {
            return "default".to_owned();
        }
        env("DOCKER_CONTEXT")
            .or_else(|| Some(self.config().text("currentContext").to_owned()).filter(|name| !name.is_empty()))
            .unwrap_or_else(|| "default".to_owned())
    }

    fn tls(&self) -> Option<TlsFiles> {
        let verify = self.global.bool("tlsverify") || env("DOCKER_TLS_VERIFY").is_some();
        let wanted = verify || self.global.bool("tls") || env("DOCKER_TLS").is_some();
        if !wanted {
            return None;
        }
        let folder = env("DOCKER_CERT_PATH").map_or_else(|| self.folder(), PathBuf::from);
        let file = |flag: &str, name: &str| match self.global.str(flag) {
            // Files that nobody named are only used if they are there.
            "" => Some(folder.join(name)).filter(|path| path.exists()),
            path => Some(PathBuf::from(path)),
        };
        Some(TlsFiles {
            ca: file("tlscacert", "ca.pem"),
            cert: file("tlscert", "cert.pem"),
            key: file("tlskey", "key.pem"),
            insecure: !verify,
        })
    }

    /// The daemon's address, and whether it is the default one.
    fn endpoint(&self) -> Result<(Endpoint, bool), Fail> {
        let initialize = |text: String| {
            Fail::text(format!("Failed to initialize: unable to resolve docker endpoint: {text}"))
        };
        let hosts = self.global.list("host");
        if hosts.len() > 1 {
            return Err(initialize("Specify only one -H".to_owned()));
        }
        let context = self.context();
        if context != "default" {
            let found = config::context(&self.folder(), &context).ok_or_else(|| {
                initialize(format!(
                    "context \"{context}\": context not found: open {}: no such file or directory",
                    self.folder()
                        .join("contexts/meta")
                        .join(crate::opts::context_id(&context))
                        .join("meta.json")
                        .display()
                ))
            })?;
            let endpoint =
                Endpoint::parse(&found.host, found.tls).map_err(|error| initialize(error.to_string()))?;
            return Ok((endpoint, false));
        }
        let given = hosts.first().cloned().or_else(|| env("DOCKER_HOST")).or_else(|| env("CORTEN_HOST"));
        if let Some(host) = given {
            let host = if host.contains("://") { host } else { format!("tcp://{host}") };
            let endpoint =
                Endpoint::parse(&host, self.tls()).map_err(|error| initialize(error.to_string()))?;
            return Ok((endpoint, false));
        }
        let socket = if std::path::Path::new(OWN_SOCKET).exists() { OWN_SOCKET } else { DOCKER_SOCKET };
        Ok((Self::local(socket)?, true))
    }

    fn local(socket: &str) -> Result<Endpoint, Fail> {
        Ok(Endpoint::parse(&format!("unix://{socket}"), None)?)
    }

    /// The proxies that the configuration gives to containers and builds.
    pub fn proxies(&self) -> Result<Vec<(String, String)>, Fail> {
        // The address picks the set of proxies; without any there is no need to know it.
        if !self.config().has("proxies") {
            return Ok(Vec::new());
        }
        Ok(self.config().proxies(&self.endpoint()?.0.to_string()))
    }

    /// The keys that the user chose to detach with; empty for the default.
    pub fn chosen_keys<'a>(&'a self, matches: &'a Matches) -> &'a str {
        let given = matches.str("detach-keys");
        if given.is_empty() { self.config().text("detachKeys") } else { given }
    }

    /// The keys that detach, from the command line, the configuration, or the default.
    pub fn detach_keys(&self, matches: &Matches) -> Result<Vec<u8>, String> {
        let chosen = self.chosen_keys(matches);
        let text = if chosen.is_empty() { crate::streams::DEFAULT_KEYS } else { chosen };
        crate::streams::parse_keys(text).map_err(|error| format!("invalid detach keys ({text}): {error}"))
    }

    fn connect_to(&self, endpoint: Endpoint) -> Client {
        let agent = format!("Docker-Client/{} (linux)", env!("CARGO_PKG_VERSION"));
        let version = env("DOCKER_API_VERSION");
        let client =
            Client::new(endpoint, &agent, version.as_deref().map(|text| text.trim_start_matches('v')));
        client.with_headers(self.config().headers())
    }

    /// The daemon if there is one; none is started.
    pub fn client_as_is(&self) -> Result<&Client, Fail> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = self.connect_to(self.endpoint()?.0);
        Ok(self.client.get_or_init(|| client))
    }

    pub fn debug(&self) -> bool {
        self.global.bool("debug")
    }

    /// The daemon. The first call opens a connection where a daemon may have to be started first.
    pub async fn client(&self) -> Result<&Client, Fail> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let (endpoint, default) = self.endpoint()?;
        let mut client = self.connect_to(endpoint);
        if default
            && crate::autostart::allowed(self.global.bool("no-autostart"))
            && client.warm().await.is_err()
        {
            // Nobody answers on the default socket: start our own daemon and talk to that.
            if let Some(socket) = crate::autostart::start(&[OWN_SOCKET, DOCKER_SOCKET]).await? {
                client = self.connect_to(Self::local(&socket)?);
            }
        }
        Ok(self.client.get_or_init(|| client))
    }
}
