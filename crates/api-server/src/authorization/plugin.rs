//! Talking to a plugin: JSON over HTTP, a connection for each call.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
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
    let broken = |path: &std::path::Path, error: String| format!("cannot use {}: {error}", path.display());
    let chain = |path: &std::path::Path| -> Result<Vec<CertificateDer<'static>>, String> {
        let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        all.map_err(|error| broken(path, error.to_string()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in chain(&tls.ca)? {
        roots.add(certificate).map_err(|error| broken(&tls.ca, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    if tls.certificate.as_os_str().is_empty() {
        return Ok(Arc::new(builder.with_no_client_auth()));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| broken(&tls.key, error.to_string()))?;
    let config = builder
        .with_client_auth_cert(chain(&tls.certificate)?, key)
        .map_err(|error| broken(&tls.certificate, error.to_string()))?;
    Ok(Arc::new(config))
}
