//! What can go wrong between here and a registry. The texts are those of Docker where its users know them.

use std::path::PathBuf;

use oci::Digest;

/// What sort of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The credentials are good, but not for this.
    Denied,
    /// What the registry sent is not what it should be.
    Invalid,
    /// Too many requests, for longer than is worth waiting for.
    RateLimited,
    /// Nobody answers, or the connection broke: worth another try.
    Unreachable,
    /// The registry itself failed.
    System,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first of the errors in the registry's answer.
    #[error("{}: {message}", code.to_ascii_lowercase().replace('_', " "))]
    Registry { status: u16, code: String, message: String },
    #[error("received unexpected HTTP status: {status} {reason}", reason = reason(*status))]
    Status { status: u16, url: String },
    /// The credentials of a login are wrong; in the words of Docker's daemon.
    #[error("login attempt to {url} failed with status: 401 Unauthorized")]
    LogIn { url: String },
    #[error("{method} \"{url}\": no basic auth credentials")]
    NoCredentials { method: String, url: String },
    #[error("{method} \"{url}\": unauthorized: {message}")]
    Token { method: String, url: String, status: u16, message: String },
    /// No connection, or none that lasted.
    #[error("{method} \"{url}\": {reason}")]
    Connection {
        method: String,
        url: String,
        reason: String,
        /// It was made, and broke afterwards.
        established: bool,
    },
    #[error("{method} \"{url}\": stopped after {hops} redirects")]
    Redirects { method: String, url: String, hops: usize },
    #[error("{url}: {what}")]
    Answer { url: String, what: String },
    #[error("{url}: the answer is larger than {bytes_max} bytes")]
    TooLarge { url: String, bytes_max: u64 },
    #[error("content has digest {found}, expected {expected}")]
    Digest { expected: Digest, found: Digest },
    #[error("the registry ignored the range that was asked for")]
    RangeIgnored,
    #[error("invalid registry address {0:?}")]
    Address(String),
    #[error("invalid URL {0:?}")]
    Url(String),
    /// A plain web server has no such file, or does not give it.
    #[error("failed to GET {url} with status {status} {reason}: {said}", reason = reason(*status))]
    Download { url: String, status: u16, said: String },
    #[error("cannot use {path}: {what}")]
    File { path: PathBuf, what: String },
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Error::Registry { code, .. } if code == "TOOMANYREQUESTS" => Kind::RateLimited,
            Error::Registry { code, .. } if code == "DENIED" => Kind::Denied,
            Error::Registry { code, .. } if code == "UNAUTHORIZED" => Kind::Unauthorized,
            Error::Registry { status, .. }
            | Error::Status { status, .. }
            | Error::Download { status, .. } => match status {
                401 => Kind::Unauthorized,
                403 => Kind::Denied,
                404 => Kind::NotFound,
                429 => Kind::RateLimited,
                500.. => Kind::System,
                _ => Kind::Invalid,
            },
            Error::Token { status: 500.., .. } => Kind::System,
            Error::LogIn { .. } | Error::NoCredentials { .. } | Error::Token { .. } => Kind::Unauthorized,
            Error::Connection { .. } => Kind::Unreachable,
            Error::Redirects { .. }
            | Error::Url(_)
            | Error::Answer { .. }
            | Error::TooLarge { .. }
            | Error::Digest { .. }
            | Error::RangeIgnored => Kind::Invalid,
            Error::Address(_) | Error::File { .. } => Kind::System,
        }
    }

    /// The registry's own code for it (`MANIFEST_UNKNOWN`); empty if it gave none.
    pub fn code(&self) -> &str {
        match self {
            Error::Registry { code, .. } => code,
            _ => "",
        }
    }

    /// Whether the same request may well succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Connection { .. } => true,
            Error::Registry { status, .. } | Error::Status { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
            }
            _ => false,
        }
    }
}

/// The first error in a registry's answer, or the bare status.
pub(crate) fn from_answer(status: u16, url: &str, body: &[u8]) -> Error {
    #[derive(serde::Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let parsed: Option<Errors> = serde_json::from_slice(body).ok();
    match parsed.and_then(|parsed| parsed.errors.into_iter().next()).filter(|one| !one.code.is_empty()) {
        Some(One { code, message }) => {
            let message = if message.is_empty() { code.to_ascii_lowercase() } else { shortened(&message) };
            Error::Registry { status, code: shortened(&code), message }
        }
        // An answer to HEAD has no body; these are what it stands for.
        None => match status {
            401 => Error::Registry {
                status,
                code: "UNAUTHORIZED".into(),
                message: "authentication required".into(),
            },
            403 => Error::Registry {
                status,
                code: "DENIED".into(),
                message: "requested access to the resource is denied".into(),
            },
            429 => Error::Registry {
                status,
                code: "TOOMANYREQUESTS".into(),
                message: "Too Many Requests".into(),
            },
            _ => Error::Status { status, url: url.to_owned() },
        },
    }
}

/// What others say is shown, but not all of it, and never with control characters.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(500).collect()
}

impl From<tls::Error> for Error {
    fn from(error: tls::Error) -> Error {
        match error {
            tls::Error::File { path, what } => Error::File { path, what },
            tls::Error::Setup(what) => Error::File { path: "TLS".into(), what },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_errors() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        let error = from_answer(404, "u", body);
        assert_eq!(error.to_string(), "manifest unknown: manifest unknown");
        assert_eq!((error.kind(), error.code()), (Kind::NotFound, "MANIFEST_UNKNOWN"));
        assert_eq!(from_answer(401, "u", b"").to_string(), "unauthorized: authentication required");
        let error = from_answer(502, "u", b"<html>");
        assert_eq!(error.to_string(), "received unexpected HTTP status: 502 Bad Gateway");
        assert!(error.is_passing() && error.kind() == Kind::System);
        let denied = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J"}]}"#;
        assert_eq!(from_answer(401, "u", denied).to_string(), "denied: no[2J");
    }
}
