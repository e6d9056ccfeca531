//! Authorization plugins: each request and each answer is shown to them, in order, before it goes on.
//!
//! What is shown is what will be acted on: the body is read whole, whatever its headers say of its length, and a body
//! that is too long to be shown is refused (CVE-2024-41110, CVE-2026-34040). Only archives, which handlers read as a
//! stream, and credentials are not shown, as with Docker.

mod certificate;
mod discovery;
mod plugin;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use model::{Kind, Refusal};
use serde::{Deserialize, Serialize};

use crate::query::Query;
use crate::respond::{Answer, full};
use plugin::Plugin;

pub use discovery::find;

/// The longest body that is shown, in bytes, as with Docker.
const SHOWN_MAX: usize = 1 << 20;
/// The longest answer that is shown; longer ones are shown without their body.
const ANSWER_MAX: u64 = 16 << 20;

/// Who asks, as far as the connection tells.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Of TLS clients, in DER, their own first.
    pub certificates: Arc<[Vec<u8>]>,
    /// A program of this machine, over a Unix socket.
    pub local: bool,
}

/// The plugins that have been talked to, by name.
#[derive(Debug, Default)]
pub struct Authorization(Mutex<HashMap<String, Arc<Plugin>>>);

/// A request or an answer as plugins see it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Shown {
    #[serde(rename = "User", skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(rename = "UserAuthNMethod", skip_serializing_if = "String::is_empty")]
    method_of_user: String,
    #[serde(rename = "RequestMethod")]
    method: String,
    #[serde(rename = "RequestUri")]
    uri: String,
    /// Base64.
    #[serde(rename = "RequestBody", skip_serializing_if = "String::is_empty")]
    body: String,
    #[serde(rename = "RequestHeaders", skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(rename = "RequestPeerCertificates", skip_serializing_if = "Vec::is_empty")]
    certificates: Vec<String>,
    #[serde(rename = "ResponseStatusCode", skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Base64.
    #[serde(rename = "ResponseBody", skip_serializing_if = "String::is_empty")]
    answer: String,
    #[serde(rename = "ResponseHeaders", skip_serializing_if = "BTreeMap::is_empty")]
    answer_headers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Verdict {
    allow: bool,
    msg: String,
    err: String,
}

/// Where a body goes: shown, or to a handler that reads it as a stream.
pub enum Content {
    Shown(Bytes),
    Stream(Incoming),
}

/// What is to be authorized.
pub struct Question<'a> {
    pub method: &'a Method,
    /// As it came, with version and query.
    pub uri: String,
    /// Decoded, without the version.
    pub path: &'a [String],
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub peer: &'a Peer,
}

impl Question<'_> {
    /// Handlers read these bodies as they come; they are archives of any length.
    fn is_archive(&self) -> bool {
        let parts: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match (self.method, parts.as_slice()) {
            (&Method::POST, ["build"] | ["images", "load"] | ["plugins", "create"]) => true,
            (&Method::POST, ["images", "create"]) => self.query.text("fromSrc") == "-",
            (&Method::PUT, ["containers", _, "archive"]) => true,
            _ => false,
        }
    }

    fn holds_credentials(&self) -> bool {
        matches!(self.path, [only] if only == "auth")
    }

    fn shown(&self, body: &Bytes) -> Shown {
        let user = self.peer.certificates.first().and_then(|der| certificate::common_name(der));
        Shown {
            method_of_user: user.as_ref().map_or_else(String::new, |_| "TLS".into()),
            user: user.unwrap_or_default(),
            method: self.method.to_string(),
            uri: self.uri.clone(),
            body: if self.holds_credentials() { String::new() } else { base64(body) },
            headers: headers(self.headers),
            certificates: self.peer.certificates.iter().map(|der| base64(pem(der).as_bytes())).collect(),
            ..Shown::default()
        }
    }
}

impl Authorization {
    /// Asks all plugins; what comes back is to be shown again with the answer, and the body to act on.
    pub async fn request(
        &self,
        plugins: &[String],
        question: &Question<'_>,
        body: Incoming,
    ) -> Result<(Shown, Content), Refusal> {
        let (content, body) = if question.is_archive() {
            (Content::Stream(body), Bytes::new())
        } else {
            let whole = Limited::new(body, SHOWN_MAX).collect().await.map_err(|error| {
                let mut refusal = Refusal::new(
                    Kind::Forbidden,
                    format!("authorization denied: the request body cannot be shown to plugins: {error}"),
                );
                if error.is::<http_body_util::LengthLimitError>() {
                    refusal = refusal.hint(format!("bodies of at most {SHOWN_MAX} bytes can be authorized"));
                }
                refusal
            })?;
            let whole = whole.to_bytes();
            (Content::Shown(whole.clone()), whole)
        };
        let shown = question.shown(&body);
        for name in plugins {
            self.ask(name, "AuthZPlugin.AuthZReq", &shown).await?;
        }
        Ok((shown, content))
    }

    /// Shows an answer before it goes out, to the plugins in reverse order.
    pub async fn answer(
        &self,
        plugins: &[String],
        mut shown: Shown,
        answer: Answer,
    ) -> Result<Answer, Refusal> {
        let (parts, body) = answer.into_parts();
        shown.status = Some(parts.status.as_u16());
        shown.answer_headers = headers(&parts.headers);
        let is_json = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let whole = body.size_hint().exact().is_some_and(|length| length <= ANSWER_MAX);
        let body = if is_json && whole && parts.status != StatusCode::SWITCHING_PROTOCOLS {
            let bytes = body
                .collect()
                .await
                .map_err(|error| Refusal::from_error("cannot read the answer", &error))?
                .to_bytes();
            shown.answer = base64(&bytes);
            full(bytes)
        } else {
            body
        };
        for name in plugins.iter().rev() {
            self.ask(name, "AuthZPlugin.AuthZRes", &shown).await?;
        }
        Ok(Answer::from_parts(parts, body))
    }

    async fn ask(&self, name: &str, verb: &str, shown: &Shown) -> Result<(), Refusal> {
        let failed = |error: String| {
            // It may have been started anew, at another place.
            self.lock().remove(name);
            Refusal::system(format!("plugin {name} failed with error: {verb}: {error}"))
        };
        let plugin = self.plugin(name).await.map_err(failed)?;
        let bytes = serde_json::to_vec(shown).map_err(|error| failed(error.to_string()))?;
        let answer = plugin.call(verb, bytes.into()).await.map_err(failed)?;
        let verdict: Verdict = serde_json::from_slice(&answer)
            .map_err(|error| failed(format!("its answer cannot be read: {error}")))?;
        if !verdict.err.is_empty() {
            return Err(Refusal::system(format!("plugin {name} failed with error: {verb}: {}", verdict.err)));
        }
        if !verdict.allow {
            let text = format!("authorization denied by plugin {name}: {}", verdict.msg);
            return Err(Refusal::new(Kind::Forbidden, text));
        }
        Ok(())
    }

    async fn plugin(&self, name: &str) -> Result<Arc<Plugin>, String> {
        if let Some(known) = self.lock().get(name) {
            return Ok(known.clone());
        }
        let place = discovery::find(name)?;
        let plugin = Arc::new(Plugin::activate(place, "authz").await?);
        self.lock().insert(name.into(), plugin.clone());
        Ok(plugin)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Plugin>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names in Go's spelling; secrets are left out.
fn headers(map: &HeaderMap) -> BTreeMap<String, String> {
    const SECRET: [&str; 3] = ["authorization", "x-registry-auth", "x-registry-config"];
    map.iter()
        .filter(|(name, _)| !SECRET.contains(&name.as_str()))
        .map(|(name, value)| {
            let mut begins = true;
            let name = name.as_str().chars().map(|letter| {
                let shown = if begins { letter.to_ascii_uppercase() } else { letter };
                begins = letter == '-';
                shown
            });
            (name.collect(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

fn pem(der: &[u8]) -> String {
    let text = base64(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for piece in bytes.chunks(3) {
        let byte = |at: usize| u32::from(piece.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (group >> (18 - 6 * digit)) & 63;
            text.push(if digit <= piece.len() { DIGITS[index as usize] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_headers_as_go_writes_them() {
        for (plain, encoded) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        let mut map = HeaderMap::new();
        map.insert("content-type", "application/json".parse().unwrap());
        map.insert("x-registry-auth", "secret".parse().unwrap());
        assert_eq!(headers(&map), [("Content-Type".to_string(), "application/json".to_string())].into());
    }

    #[test]
    fn only_archives_are_not_shown() {
        let (headers, peer) = (HeaderMap::new(), Peer::default());
        let archive = |method: Method, path: &str, query: &str| {
            let path: Vec<String> = path.split('/').map(String::from).collect();
            let query = Query::parse(query);
            let uri = String::new();
            Question { method: &method, uri, path: &path, query: &query, headers: &headers, peer: &peer }
                .is_archive()
        };
        assert!(archive(Method::POST, "build", "") && archive(Method::PUT, "containers/x/archive", ""));
        assert!(archive(Method::POST, "images/create", "fromSrc=-"));
        assert!(!archive(Method::POST, "images/create", "fromImage=x"));
        assert!(!archive(Method::POST, "containers/create", "") && !archive(Method::GET, "build", ""));
    }
}
