//! The sockets that the daemon listens on.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use api_server::Listener;
use rustix::net::AddressFamily;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::inherited;

/// Opens `unix://` and `tcp://` addresses, and takes what a service manager holds for `fd://`.
pub async fn open(config: &Config, hosts: &[String]) -> Result<Vec<(String, Listener)>> {
    let tls = if config.on("tls") || config.on("tlsverify") { Some(tls_acceptor(config)?) } else { None };
    let mut all = Vec::new();
    for host in hosts {
        if let Some(which) = host.strip_prefix("fd://") {
            for socket in inherited::sockets(which)? {
                all.push((host.clone(), of_inherited(socket, tls.as_ref())?));
            }
            continue;
        }
        let listener = if let Some(path) = host.strip_prefix("unix://") {
            Listener::Unix(open_unix(Path::new(path), config.text("group"))?)
        } else if let Some(address) = host.strip_prefix("tcp://") {
            let port = if tls.is_some() { 2376 } else { 2375 };
            let address = with_port(address, port);
            let listener = TcpListener::bind(&address)
                .await
                .with_context(|| format!("cannot listen on tcp://{address}"))?;
            match &tls {
                Some(acceptor) => Listener::Tls(listener, acceptor.clone()),
                None => {
                    tracing::warn!(%address, "the API is open to everybody who reaches this address; use --tlsverify");
                    Listener::Tcp(listener)
                }
            }
        } else {
            bail!("invalid host {host}: use unix://PATH, tcp://ADDRESS[:PORT] or fd://");
        };
        all.push((host.clone(), listener));
    }
    Ok(all)
}

fn of_inherited(socket: OwnedFd, tls: Option<&TlsAcceptor>) -> Result<Listener> {
    let family = rustix::net::sockopt::socket_domain(&socket)
        .context("a descriptor that is no socket was handed over")?;
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        bail!("a socket was handed over that does not listen");
    }
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(match family {
        AddressFamily::UNIX => {
            Listener::Unix(UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?)
        }
        AddressFamily::INET | AddressFamily::INET6 => {
            let listener = TcpListener::from_std(std::net::TcpListener::from(socket))?;
            match tls {
                Some(acceptor) => Listener::Tls(listener, acceptor.clone()),
                None => Listener::Tcp(listener),
            }
        }
        _ => bail!("a socket was handed over that is neither of a file nor of TCP"),
    })
}

/// Our own socket, and the one that every Docker client looks for first, unless somebody else has it.
pub fn default_hosts() -> Vec<String> {
    const DOCKER: &str = "/var/run/docker.sock";
    let mut hosts = vec!["unix:///run/corten/corten.sock".to_string()];
    let refused = || {
        let answer = std::os::unix::net::UnixStream::connect(DOCKER);
        matches!(answer, Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    // What is left of a daemon that is gone may be replaced, but not what a service manager holds for one.
    if std::fs::symlink_metadata(DOCKER).is_err() || refused() {
        hosts.push(format!("unix://{DOCKER}"));
    }
    hosts
}

fn with_port(address: &str, port: u16) -> String {
    let bare = address.trim_end_matches('/');
    let has_port =
        bare.rsplit_once(':').is_some_and(|(_, tail)| !tail.is_empty() && tail.parse::<u16>().is_ok());
    match (bare.is_empty(), has_port) {
        (true, _) => format!("127.0.0.1:{port}"),
        (false, true) if bare.starts_with(':') => format!("0.0.0.0{bare}"),
        (false, true) => bare.to_string(),
        (false, false) => format!("{bare}:{port}"),
    }
}

fn open_unix(path: &Path, group: Option<&str>) -> Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another daemon answers on {}", path.display());
    }
    // What is left of an earlier daemon answers nobody.
    let _ = std::fs::remove_file(path);
    let partial = path.with_extension("new");
    let _ = std::fs::remove_file(&partial);
    let listener =
        UnixListener::bind(&partial).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o660))?;
    let wanted = group.unwrap_or("docker");
    match group_id(wanted) {
        Some(id) => std::os::unix::fs::chown(&partial, None, Some(id))?,
        None if group.is_some() => bail!("group {wanted} not found"),
        None => {}
    }
    // Only now can clients find it: with the right owner and mode from the first moment.
    std::fs::rename(&partial, path)?;
    Ok(listener)
}

fn group_id(name: &str) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    let text = std::fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

fn tls_acceptor(config: &Config) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let path = |name: &str| config.text(name).with_context(|| format!("TLS needs --{name}"));
    let chain = tls::certificates(Path::new(path("tlscert")?)).context("cannot read the certificate")?;
    let key = tls::private_key(Path::new(path("tlskey")?)).context("cannot read the key")?;
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = if config.on("tlsverify") {
        let mut roots = RootCertStore::empty();
        for certificate in tls::certificates(Path::new(path("tlscacert")?)).context("cannot read the CA")? {
            roots.add(certificate)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut server =
        builder.with_single_cert(chain, key).context("the certificate and the key do not fit")?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn addresses() {
        for (given, full) in [
            ("", "127.0.0.1:2375"),
            ("0.0.0.0", "0.0.0.0:2375"),
            (":80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
            ("h:1/", "h:1"),
        ] {
            assert_eq!(with_port(given, 2375), full);
        }
    }
}
