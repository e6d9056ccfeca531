//! Talking to a plugin: JSON over HTTP, a connection for each call.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::discovery::{Place, Tls};

/// How long a plugin may think.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 1 << 20;
const KIND: &str = "application/vnd.docker.plugins.v1.2+json";

#[derive(Debug)]
pub struct Plugin(Place);

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Manifest {
    implements: Vec<String>,
}

impl Plugin {
    /// Greets a plugin, and makes sure that it does what it is wanted for.
    pub async fn activate(place: Place, wanted: &str) -> Result<Plugin, String> {
        let plugin = Plugin(place);
        let answer = plugin.call("Plugin.Activate", Bytes::new()).await?;
        let manifest: Manifest = serde_json::from_slice(&answer)
            .map_err(|error| format!("its manifest cannot be read: {error}"))?;
        if !manifest.implements.iter().any(|one| one == wanted) {
            return Err(format!("the plugin does not implement {wanted}"));
        }
        Ok(plugin)
    }

    /// One call; an error answer is an error.
    pub async fn call(&self, verb: &str, body: Bytes) -> Result<Bytes, String> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(verb, body)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} seconds", PATIENCE.as_secs())))
    }

    async fn exchange(&self, verb: &str, body: Bytes) -> Result<Bytes, String> {
        match &self.0 {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| format!("cannot connect to {}: {error}", path.display()))?;
                converse(stream, "plugin.localhost", verb, body).await
            }
            Place::Tcp(authority, tls) => {
                let stream = TcpStream::connect(authority)
                    .await
                    .map_err(|error| format!("cannot connect to {authority}: {error}"))?;
                let Some(tls) = tls else { return converse(stream, authority, verb, body).await };
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_string())
                    .map_err(|error| error.to_string())?;
                let stream = tokio_rustls::TlsConnector::from(encryption(tls)?)
                    .connect(name, stream)
                    .await
                    .map_err(|error| format!("TLS with {authority}: {error}"))?;
                converse(stream, authority, verb, body).await
            }
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    host: &str,
    verb: &str,
    body: Bytes,
) -> Result<Bytes, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let driver = tokio::spawn(connection);
    let request = Request::post(format!("/{verb}"))
        .header(header::HOST, host)
        .header(header::ACCEPT, KIND)
        .header(header::CONTENT_TYPE, KIND)
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(text)?;
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), ANSWER_MAX)
        .collect()
        .await
        .map_err(|error| format!("its answer cannot be read: {error}"))?
        .to_bytes();
    driver.abort();
    if !status.is_success() {
        return Err(format!("{}: {}", status, String::from_utf8_lossy(&bytes).trim()));
    }
    Ok(bytes)
}

fn encryption(tls: &Tls) -> Result<Arc<rustls::ClientConfig>, String> {
    if tls.insecure {
        return Err("InsecureSkipVerify is not supported: give the plugin's CA as CAFile".into());
    }
    let shown = Some((tls.certificate.clone(), Some(tls.key.clone())));
    let files = tls::ClientFiles {
        authorities: vec![tls.ca.clone()],
        identity: shown.filter(|(certificate, _)| !certificate.as_os_str().is_empty()),
        ..tls::ClientFiles::default()
    };
    files.config().map_err(|error| error.to_string())
}
