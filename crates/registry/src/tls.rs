//! Whom to believe that they are who they say: the system's authorities, and those of one registry.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::Error;

/// Where distributions keep all authorities in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What one host's connections are made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of authorities that are believed besides the system's.
    pub authorities: Vec<PathBuf>,
    /// Certificates to show, with their keys; one file may hold both.
    pub clients: Vec<(PathBuf, Option<PathBuf>)>,
    pub skip_verify: bool,
}

impl TlsFiles {
    /// Adds what a folder in Docker's layout has: `*.crt` are authorities, `*.cert` with `*.key` are shown.
    pub(crate) fn add_folder(&mut self, folder: &Path) -> Result<(), Error> {
        let broken = |error: std::io::Error| Error::File { path: folder.to_owned(), what: error.to_string() };
        let mut names: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(broken)? {
            names.push(entry.map_err(broken)?.path());
        }
        names.sort();
        for path in &names {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.push(path.clone()),
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !names.contains(&key) {
                        let what = format!("missing key {} for client certificate", key.display());
                        return Err(Error::File { path: path.clone(), what });
                    }
                    self.clients.push((path.clone(), Some(key)));
                }
                Some("key") if !names.contains(&path.with_extension("cert")) => {
                    let what = "missing client certificate for key".to_owned();
                    return Err(Error::File { path: path.clone(), what });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the files.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = system_roots().clone();
        let mut own = Vec::new();
        for path in &self.authorities {
            for certificate in certificates(path)? {
                // What is no authority is still believed as it is; see `Verifier`.
                let _ = roots.add(certificate.clone());
                own.push(certificate);
            }
        }
        let broken = |what: String| Error::File { path: "TLS".into(), what };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| broken(error.to_string()))?;
        let inner = match self.skip_verify || roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| broken(error.to_string()))?,
            ),
        };
        let verifier = Verifier { inner, own, skip: self.skip_verify, provider };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let Some((cert, key)) = self.clients.first() else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let key = key.as_ref().unwrap_or(cert);
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| Error::File { path: key.clone(), what: error.to_string() })?;
        let config = builder
            .with_client_auth_cert(certificates(cert)?, private)
            .map_err(|error| Error::File { path: cert.clone(), what: error.to_string() })?;
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| Error::File { path: path.to_owned(), what: error.to_string() })
}

/// The system's authorities, read once. `SSL_CERT_FILE` names another file, as for OpenSSL.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let given = std::env::var("SSL_CERT_FILE").ok();
        let bundles = given.iter().map(String::as_str).chain(BUNDLES);
        for bundle in bundles {
            let Ok(found) = CertificateDer::pem_file_iter(bundle) else { continue };
            roots.add_parsable_certificates(found.filter_map(Result::ok));
            if !roots.is_empty() {
                break;
            }
        }
        roots
    })
}

/// Believes the authorities; also a certificate that was named as an authority and shown by the server itself, which is
/// what people make for their own registries.
#[derive(Debug)]
struct Verifier {
    /// `None` if nobody is known to believe.
    inner: Option<Arc<WebPkiServerVerifier>>,
    own: Vec<CertificateDer<'static>>,
    skip: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.skip {
            return Ok(ServerCertVerified::assertion());
        }
        let unknown = Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let verified = match &self.inner {
            Some(inner) => inner.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            None => unknown,
        };
        let excusable = matches!(
            verified,
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_)
            ))
        );
        if excusable && self.own.iter().any(|known| known == end_entity) {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A failed handshake in the words that people search for.
pub(crate) fn describe(error: &std::io::Error) -> String {
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
    fn folders_in_dockers_layout() {
        let root = tempfile::tempdir().unwrap();
        for name in ["ca.crt", "b.crt", "client.cert", "client.key", "notes.txt"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        let mut files = TlsFiles::default();
        files.add_folder(root.path()).unwrap();
        assert_eq!(files.authorities, [root.path().join("b.crt"), root.path().join("ca.crt")]);
        assert_eq!(files.clients.len(), 1);
        std::fs::remove_file(root.path().join("client.key")).unwrap();
        let error = TlsFiles::default().add_folder(root.path()).unwrap_err().to_string();
        assert!(error.contains("missing key"), "{error}");
        std::fs::write(root.path().join("other.key"), "").unwrap();
        std::fs::remove_file(root.path().join("client.cert")).unwrap();
        let error = TlsFiles::default().add_folder(root.path()).unwrap_err().to_string();
        assert!(error.contains("missing client certificate"), "{error}");
    }

    #[test]
    fn files_that_are_no_certificates_are_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("c.cert");
        std::fs::write(&path, "junk").unwrap();
        let files = TlsFiles { clients: vec![(path, None)], ..TlsFiles::default() };
        assert!(files.config().unwrap_err().to_string().contains("c.cert"));
    }
}
