//! Whom a TLS connection believes, and what it shows: one place for everything here that speaks TLS.
//!
//! A caller names files in a [`ClientFiles`] and gets a configuration for connections from [`ClientFiles::config`];
//! [`certificates`] and [`private_key`] read PEM files for those who listen. The crate opens no connection.

mod verifier;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use verifier::Verifier;

/// Where distributions keep all authorities in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A file that cannot be used, or files that do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

impl Error {
    fn file(path: &Path, error: &dyn std::fmt::Display) -> Error {
        Error::File { path: path.to_owned(), what: error.to_string() }
    }
}

/// What a client's connections to one host are made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Whether those whom the system believes are believed as well.
    pub system: bool,
    /// Certificates of authorities, and servers' own certificates, that are believed.
    pub authorities: Vec<PathBuf>,
    /// The certificate to show, with its key; one file may hold both.
    pub identity: Option<(PathBuf, Option<PathBuf>)>,
    /// Believe everybody: encrypted, but nobody knows to whom.
    pub skip_verify: bool,
}

impl ClientFiles {
    /// Reads the files; blocks.
    pub fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = match self.system {
            true => system_roots().clone(),
            false => RootCertStore::empty(),
        };
        let mut own = Vec::new();
        for path in &self.authorities {
            let found = certificates(path)?;
            if found.is_empty() {
                return Err(Error::file(path, &"there is no certificate in it"));
            }
            // One that cannot be an authority is still believed when a server shows it itself; see `Verifier`.
            roots.add_parsable_certificates(found.iter().cloned());
            own.extend(found);
        }
        let setup = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
        let chains = match self.skip_verify || roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| setup(&error))?,
            ),
        };
        let verifier = Verifier { chains, own, skip: self.skip_verify, provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let Some((certificate, key)) = &self.identity else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let key = private_key(key.as_ref().unwrap_or(certificate))?;
        let config = builder
            .with_client_auth_cert(certificates(certificate)?, key)
            .map_err(|error| Error::file(certificate, &error))?;
        Ok(Arc::new(config))
    }
}

/// All certificates of a PEM file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| Error::file(path, &error))
}

/// The first private key of a PEM file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| Error::file(path, &error))
}

/// The system's authorities, read once. `SSL_CERT_FILE` names another file, as for OpenSSL. One odd certificate among
/// them is no reason to believe none.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let given = std::env::var("SSL_CERT_FILE").ok();
        for bundle in given.iter().map(String::as_str).chain(BUNDLES) {
            let Ok(found) = CertificateDer::pem_file_iter(bundle) else { continue };
            roots.add_parsable_certificates(found.filter_map(Result::ok));
            if !roots.is_empty() {
                break;
            }
        }
        roots
    })
}

/// A failed handshake in the words that people search for.
pub fn describe(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(certificate)) => {
            let why = match certificate {
                CertificateError::UnknownIssuer => "x509: certificate signed by unknown authority".to_owned(),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "x509: certificate has expired or is not yet valid".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    format!("x509: certificate is not valid for this name: {certificate}")
                }
                other => format!("x509: {other}"),
            };
            format!("tls: failed to verify certificate: {why}")
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        Some(other) => format!("tls: {other}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("c.cert");
        std::fs::write(&path, "junk").unwrap();
        let shown = ClientFiles { identity: Some((path.clone(), None)), ..ClientFiles::default() };
        let believed = ClientFiles { authorities: vec![path], ..ClientFiles::default() };
        let missing = ClientFiles { authorities: vec![root.path().join("none")], ..ClientFiles::default() };
        assert!(shown.config().unwrap_err().to_string().contains("c.cert"));
        assert!(believed.config().unwrap_err().to_string().contains("c.cert"));
        assert!(missing.config().unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn nobody_known_is_nobody_believed_but_no_error() {
        assert!(ClientFiles::default().config().is_ok());
    }
}
