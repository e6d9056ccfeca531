//! What the daemon is told of registries, and which addresses follow from it for one of them.

use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use tls::ClientFiles;

use crate::certificates;
use crate::error::Error;
use crate::hosts_toml;
use crate::proxy::Proxies;
use crate::url::{Scheme, Url};

/// The domain that names without one are in, and where it is served.
pub const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// Registries that may be asked without TLS, or with a certificate that nobody vouches for.
#[derive(Debug, Clone, Default)]
pub struct Insecure {
    hosts: Vec<String>,
    networks: Vec<IpNet>,
}

impl Insecure {
    /// Reads `host`, `host:port` or `network/bits`, as `insecure-registries` has them.
    pub fn parse(entries: &[String]) -> Result<Insecure, Error> {
        let mut insecure = Insecure::default();
        for entry in entries {
            let bare =
                entry.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
            match bare.parse::<IpNet>() {
                Ok(network) => insecure.networks.push(network),
                Err(_) if Url::parse(&format!("http://{bare}")).is_some() => {
                    insecure.hosts.push(bare.to_owned());
                }
                Err(_) => return Err(Error::Address(entry.clone())),
            }
        }
        Ok(insecure)
    }

    /// Whether `authority` (`host[:port]`) may be trusted without proof. This machine always may.
    fn contains(&self, authority: &str) -> bool {
        let host = crate::url::host_of(authority);
        if self.hosts.iter().any(|known| known == authority || known == host) || host == "localhost" {
            return true;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>().is_ok_and(|address| {
            address.is_loopback() || self.networks.iter().any(|network| network.contains(&address))
        })
    }
}

/// Everything that the daemon is told of registries.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the Hub is asked first.
    pub mirrors: Vec<String>,
    pub insecure: Insecure,
    /// Folders with one folder per registry in them; the first that has one counts.
    pub certificates: Vec<PathBuf>,
    pub proxies: Proxies,
    pub user_agent: String,
}

/// What an address is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub pull: bool,
    pub resolve: bool,
    pub push: bool,
}

impl Capabilities {
    pub const ALL: Capabilities = Capabilities { pull: true, resolve: true, push: true };
    pub const READ: Capabilities = Capabilities { pull: true, resolve: true, push: false };
}

/// One address of a registry.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// With the path up to `/v2`, without a slash at its end.
    pub base: Url,
    pub capabilities: Capabilities,
    pub tls: ClientFiles,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The registry that it stands in for; a mirror of several has to be told.
    pub namespace: Option<String>,
    /// The credentials of the registry are for this one.
    pub is_origin: bool,
    /// If it does not speak TLS, plain HTTP will do.
    pub may_be_plain: bool,
}

impl Settings {
    /// The addresses of a registry, in the order in which they are asked.
    pub fn endpoints(&self, domain: &str) -> Result<Vec<Endpoint>, Error> {
        let folders = if domain == HUB { vec![HUB, HUB_HOST] } else { vec![domain] };
        for folder in &folders {
            for root in &self.certificates {
                let path = root.join(folder).join("hosts.toml");
                match std::fs::read_to_string(&path) {
                    Ok(text) => return self.of_hosts_file(&text, &path, domain),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::File { path, what: error.to_string() }),
                }
            }
        }
        let mut endpoints = Vec::new();
        if domain == HUB {
            for mirror in &self.mirrors {
                endpoints.push(self.mirror(mirror)?);
            }
        }
        endpoints.push(self.origin(domain)?);
        Ok(endpoints)
    }

    fn mirror(&self, text: &str) -> Result<Endpoint, Error> {
        let url = Url::parse(text).ok_or_else(|| Error::Address(text.to_owned()))?;
        let tls = self.tls_files(&url.authority)?;
        Ok(Endpoint {
            base: url.join_path("/v2"),
            capabilities: Capabilities::READ,
            tls,
            headers: Vec::new(),
            namespace: None,
            is_origin: false,
            may_be_plain: false,
        })
    }

    /// The registry itself.
    pub(crate) fn origin(&self, domain: &str) -> Result<Endpoint, Error> {
        let authority = if domain == HUB { HUB_HOST } else { domain };
        let base = Url::parse(&format!("https://{authority}/v2"))
            .ok_or_else(|| Error::Address(domain.to_owned()))?;
        Ok(Endpoint {
            tls: self.tls_files(authority)?,
            base,
            capabilities: Capabilities::ALL,
            headers: Vec::new(),
            namespace: None,
            is_origin: true,
            may_be_plain: self.insecure.contains(authority),
        })
    }

    /// The files for a host in Docker's layout, and whether it is trusted without proof.
    pub(crate) fn tls_files(&self, authority: &str) -> Result<ClientFiles, Error> {
        let mut files = ClientFiles {
            system: true,
            skip_verify: self.insecure.contains(authority),
            ..ClientFiles::default()
        };
        if let Some(folder) =
            self.certificates.iter().map(|root| root.join(authority)).find(|path| path.is_dir())
        {
            certificates::add_folder(&mut files, &folder)?;
        }
        Ok(files)
    }

    fn of_hosts_file(&self, text: &str, path: &Path, domain: &str) -> Result<Vec<Endpoint>, Error> {
        let broken = |what: String| Error::File { path: path.to_owned(), what };
        let parsed = hosts_toml::parse(text).map_err(broken)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut endpoints = Vec::new();
        for host in parsed.hosts {
            let url = Url::parse(&host.address)
                .ok_or_else(|| broken(format!("{:?} is not a valid address", host.address)))?;
            let mut tls =
                ClientFiles { system: true, skip_verify: host.skip_verify, ..ClientFiles::default() };
            tls.authorities.extend(host.authorities.iter().map(|file| folder.join(file)));
            tls.identity = host
                .clients
                .first()
                .map(|(cert, key)| (folder.join(cert), key.as_ref().map(|k| folder.join(k))));
            let base = match host.override_path {
                true => url.join_path(""),
                false => url.join_path("/v2"),
            };
            let mut headers = Vec::new();
            for (name, value) in host.headers {
                let pair = HeaderName::try_from(&name).ok().zip(HeaderValue::try_from(&value).ok());
                headers.push(pair.ok_or_else(|| broken(format!("header {name:?} is not valid")))?);
            }
            let is_origin = base.authority == if domain == HUB { HUB_HOST } else { domain };
            endpoints.push(Endpoint {
                may_be_plain: base.scheme == Scheme::Https && host.skip_verify,
                base,
                capabilities: host.capabilities,
                tls,
                headers,
                namespace: (!is_origin).then(|| domain.to_owned()),
                is_origin,
            });
        }
        match parsed.server {
            Some(server) => {
                let url = Url::parse(&server)
                    .ok_or_else(|| broken(format!("{server:?} is not a valid address")))?;
                let tls = self.tls_files(&url.authority)?;
                let is_origin = url.authority == if domain == HUB { HUB_HOST } else { domain };
                endpoints.push(Endpoint {
                    may_be_plain: self.insecure.contains(&url.authority),
                    base: if url.path.trim_matches('/').is_empty() { url.join_path("/v2") } else { url },
                    capabilities: Capabilities::ALL,
                    tls,
                    headers: Vec::new(),
                    namespace: (!is_origin).then(|| domain.to_owned()),
                    // Whoever configures a server for a registry says that it is the registry.
                    is_origin: true,
                });
            }
            None if !endpoints.iter().any(|endpoint| endpoint.is_origin) => {
                endpoints.push(self.origin(domain)?);
            }
            None => {}
        }
        Ok(endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_by_name_and_network() {
        let entries = ["r.example:5000", "10.0.0.0/8", "plain", "fd00::/8"].map(String::from);
        let insecure = Insecure::parse(&entries).unwrap();
        for (authority, expected) in [
            ("r.example:5000", true),
            ("r.example", false),
            ("plain:8080", true),
            ("10.1.2.3:5000", true),
            ("11.1.2.3", false),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("[fd00::5]", true),
            ("localhost:1", true),
        ] {
            assert_eq!(insecure.contains(authority), expected, "{authority}");
        }
        assert!(Insecure::parse(&["a b".into()]).is_err());
    }

    fn shown(settings: &Settings, domain: &str) -> Vec<String> {
        let endpoints = settings.endpoints(domain).unwrap();
        endpoints
            .iter()
            .map(|one| {
                let c = one.capabilities;
                let flags = [(c.pull, 'p'), (c.resolve, 'r'), (c.push, 'P'), (one.is_origin, 'o')];
                let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
                format!("{} {flags} {}", one.base, one.namespace.as_deref().unwrap_or("-"))
            })
            .collect()
    }

    #[test]
    fn mirrors_are_for_the_hub() {
        let settings = Settings { mirrors: vec!["https://m.example/".into()], ..Settings::default() };
        assert_eq!(
            shown(&settings, HUB),
            ["https://m.example/v2 pr -", "https://registry-1.docker.io/v2 prPo -"]
        );
        assert_eq!(shown(&settings, "r.example:5000"), ["https://r.example:5000/v2 prPo -"]);
    }

    #[test]
    fn hosts_files_go_before_everything() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("r.example");
        std::fs::create_dir(&folder).unwrap();
        let settings = Settings { certificates: vec![root.path().into()], ..Settings::default() };
        std::fs::write(
            folder.join("hosts.toml"),
            "server = \"https://up.example\"\n[host.\"http://m.example:5000\"]\n capabilities = [\"pull\"]\n\
             [host.\"https://n.example/sub\"]\n override_path = true\n",
        )
        .unwrap();
        assert_eq!(
            shown(&settings, "r.example"),
            [
                "http://m.example:5000/v2 p r.example",
                "https://n.example/sub prP r.example",
                "https://up.example/v2 prPo r.example"
            ]
        );
        std::fs::write(folder.join("hosts.toml"), "server = 3").unwrap();
        assert!(settings.endpoints("r.example").unwrap_err().to_string().contains("hosts.toml"));
    }
}
