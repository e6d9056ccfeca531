//! One repository of one registry: manifests, blobs and tags.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, LINK, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use oci::image::MANIFEST_BYTES_MAX;
use oci::{Digest, Hasher};
use serde::Deserialize;

use crate::MANIFEST_TYPES;
use crate::auth::{Access, Credentials, Plea, Sender, Tokens, scope};
use crate::error::{Error, Kind, shortened};
use crate::settings::{Endpoint, Settings};
use crate::transport::{Answer, Payload, Transport};
use crate::url::{Scheme, Url};

/// Tags of one repository, pages and bytes of a page that are read.
const TAGS_MAX: usize = 100_000;
const PAGES_MAX: usize = 1000;
const PAGE_BYTES_MAX: u64 = 8 << 20;

/// The client's lasting part.
#[derive(Clone)]
pub struct Registries {
    settings: Arc<Settings>,
    tokens: Arc<Tokens>,
    /// What hosts that need not speak TLS were found to speak.
    schemes: Arc<Mutex<HashMap<String, Scheme>>>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A repository, for one piece of work in somebody's name.
pub struct Repository {
    registries: Registries,
    sender: Sender,
    endpoints: Vec<Endpoint>,
    /// With the Hub's `library/`.
    name: String,
}

/// What a registry says of a manifest without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub media_type: String,
    /// Not every registry tells.
    pub digest: Option<Digest>,
    pub size: Option<u64>,
}

/// A manifest, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// What the document says it is, else what the registry says.
    pub media_type: String,
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

/// A blob's bytes on their way, unchecked.
pub struct BlobStream {
    answer: Answer,
    /// Where in the blob the bytes begin. 0 although a later part was asked for: the registry knows no ranges.
    pub start: u64,
}

impl BlobStream {
    /// Whether it is the part that was asked for, and not the whole.
    pub fn is_partial(&self) -> bool {
        self.answer.status == StatusCode::PARTIAL_CONTENT
    }

    /// The next bytes; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.answer.piece().await
    }
}

impl Registries {
    pub fn new(settings: Settings) -> Registries {
        Registries { settings: Arc::new(settings), tokens: Arc::default(), schemes: Arc::default() }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn transport(&self) -> Arc<Transport> {
        Transport::new(Arc::clone(&self.settings))
    }

    fn sender(&self, credentials: Credentials) -> Sender {
        Sender { transport: self.transport(), tokens: Arc::clone(&self.tokens), credentials }
    }

    /// A repository by the registry's domain and the path there, as a reference has them.
    pub fn repository(
        &self,
        domain: &str,
        path: &str,
        credentials: Credentials,
    ) -> Result<Repository, Error> {
        Ok(Repository {
            registries: self.clone(),
            sender: self.sender(credentials),
            endpoints: self.settings.endpoints(domain)?,
            name: path.to_owned(),
        })
    }

    /// Checks credentials. Gives a lasting token if the registry hands one out instead of the password.
    pub async fn log_in(&self, domain: &str, credentials: Credentials) -> Result<Option<String>, Error> {
        let endpoint = self.settings.origin(domain)?;
        let sender = self.sender(credentials);
        let mut failed = None;
        for form in self.forms(&endpoint) {
            match sender.log_in(&form).await {
                Err(error) if is_wrong_form(&form, &error) => failed = Some(clearer(&form, error, failed)),
                outcome => {
                    self.note(&form);
                    return outcome;
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::Address(domain.to_owned())))
    }

    pub(crate) async fn fetch_document(
        &self,
        url: Url,
        credentials: Credentials,
        bytes_max: u64,
    ) -> Result<Vec<u8>, Error> {
        let sender = self.sender(credentials);
        let authority = url.authority.clone();
        let mut endpoint = self.settings.origin(&authority)?;
        if url.scheme == Scheme::Http {
            endpoint.base.scheme = Scheme::Http;
        }
        let mut failed = None;
        for form in self.forms(&endpoint) {
            let plea = Plea {
                method: Method::GET,
                url: Url { scheme: form.base.scheme, ..url.clone() },
                headers: HeaderMap::new(),
                payload: Payload::Empty,
                endpoint: &form,
                scopes: &[],
            };
            match sender.send(plea).await {
                Ok(answer) if answer.status.is_success() => {
                    self.note(&form);
                    return answer.bytes(bytes_max).await;
                }
                Ok(answer) => return Err(answer.into_error().await),
                Err(error) if is_wrong_form(&form, &error) => failed = Some(clearer(&form, error, failed)),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or(Error::Address(authority)))
    }

    fn lock_schemes(&self) -> std::sync::MutexGuard<'_, HashMap<String, Scheme>> {
        self.schemes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An address in the forms in which it may answer: one that need not speak TLS is tried with and without.
    fn forms(&self, endpoint: &Endpoint) -> Vec<Endpoint> {
        if !endpoint.may_be_plain {
            return vec![endpoint.clone()];
        }
        let first = self.lock_schemes().get(&endpoint.base.authority).copied().unwrap_or(Scheme::Https);
        let second = if first == Scheme::Https { Scheme::Http } else { Scheme::Https };
        let with = |scheme| Endpoint { base: Url { scheme, ..endpoint.base.clone() }, ..endpoint.clone() };
        vec![with(first), with(second)]
    }

    /// Remembers in which form an address answered.
    fn note(&self, endpoint: &Endpoint) {
        if endpoint.may_be_plain {
            self.lock_schemes().insert(endpoint.base.authority.clone(), endpoint.base.scheme);
        }
    }
}

/// Whether an address may answer in another form.
fn is_wrong_form(endpoint: &Endpoint, error: &Error) -> bool {
    match error {
        Error::Connection { established, .. } => !established,
        // A server that speaks HTTP with TLS answers those who do not.
        error => endpoint.base.scheme == Scheme::Http && says_https(error),
    }
}

/// Of two failures the one without TLS: if nobody answers at all, it says so in the way that is known.
fn clearer(endpoint: &Endpoint, error: Error, earlier: Option<Error>) -> Error {
    match earlier {
        Some(earlier) if endpoint.base.scheme == Scheme::Https => earlier,
        _ => error,
    }
}

fn says_https(error: &Error) -> bool {
    matches!(error, Error::Status { status: 400, .. })
}

/// What an endpoint has to be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Resolve,
    Pull,
    Push,
}

/// A request in this repository.
pub(crate) struct Call<'a> {
    pub method: Method,
    /// Behind the repository's name.
    pub path: &'a str,
    pub query: &'a [(&'a str, &'a str)],
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
}

impl<'a> Call<'a> {
    pub fn new(method: Method, path: &'a str) -> Call<'a> {
        Call { method, path, query: &[], headers: HeaderMap::new(), body: None }
    }
}

impl Repository {
    /// With the Hub's `library/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn sender(&self) -> &Sender {
        &self.sender
    }

    fn fits(endpoint: &Endpoint, need: Need) -> bool {
        match need {
            Need::Resolve => endpoint.capabilities.resolve,
            Need::Pull => endpoint.capabilities.pull,
            Need::Push => endpoint.capabilities.push,
        }
    }

    pub(crate) fn push_endpoint(&self) -> Option<Endpoint> {
        let mut endpoint = self.endpoints.iter().rev().find(|one| Self::fits(one, Need::Push)).cloned()?;
        if endpoint.may_be_plain
            && let Some(scheme) = self.registries.lock_schemes().get(&endpoint.base.authority)
        {
            endpoint.base.scheme = *scheme;
        }
        Some(endpoint)
    }

    /// Sends a request to the addresses in their order until one has the answer. The error of the last counts.
    async fn call(&self, need: Need, call: &Call<'_>) -> Result<Answer, Error> {
        let mut failed = None;
        let fitting: Vec<&Endpoint> = self.endpoints.iter().filter(|one| Self::fits(one, need)).collect();
        for (index, endpoint) in fitting.iter().enumerate() {
            let last = index + 1 == fitting.len();
            let sent = self.ask(endpoint, need, call).await;
            match sent {
                Ok(answer) => return Ok(answer),
                Err(error) if last => return Err(error),
                Err(error) => {
                    tracing::info!(%error, endpoint = %endpoint.base, "asking the next address");
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::Answer {
            url: self.name.clone(),
            what: "no configured host may do this".into(),
        }))
    }

    /// Sends a request to one address; an error status is an error.
    async fn ask(&self, endpoint: &Endpoint, need: Need, call: &Call<'_>) -> Result<Answer, Error> {
        let mut failed = None;
        for form in self.registries.forms(endpoint) {
            let outcome = match self.send(&form, need, call).await {
                Ok(answer) if answer.status.is_success() => Ok(answer),
                Ok(answer) => Err(answer.into_error().await),
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if is_wrong_form(&form, &error) => failed = Some(clearer(&form, error, failed)),
                outcome => {
                    self.registries.note(&form);
                    return outcome;
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::Address(endpoint.base.to_string())))
    }

    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        need: Need,
        call: &Call<'_>,
    ) -> Result<Answer, Error> {
        let access = if need == Need::Push { Access::Push } else { Access::Pull };
        let mut scopes = vec![scope(&self.name, access)];
        let mut url = endpoint.base.join_path(&format!("/{}{}", self.name, call.path));
        for (key, value) in call.query {
            if *key == "from" {
                scopes.push(scope(value, Access::Pull));
            }
            url = url.with_query(key, value);
        }
        if let Some(namespace) = endpoint.namespace.as_deref().filter(|_| need != Need::Push) {
            url = url.with_query("ns", namespace);
        }
        let payload = call.body.clone().map_or(Payload::Empty, Payload::Bytes);
        let (method, headers) = (call.method.clone(), call.headers.clone());
        self.sender.send(Plea { method, url, headers, payload, endpoint, scopes: &scopes }).await
    }

    fn accepting(method: Method, path: &str) -> Call<'_> {
        let mut call = Call::new(method, path);
        call.headers.insert(ACCEPT, HeaderValue::from_str(&MANIFEST_TYPES.join(", ")).expect("plain text"));
        call
    }

    /// What there is under a tag or digest.
    pub async fn head_manifest(&self, reference: &str) -> Result<Head, Error> {
        let path = format!("/manifests/{reference}");
        let answer = self.call(Need::Resolve, &Self::accepting(Method::HEAD, &path)).await?;
        let head = Head {
            media_type: answer.media_type(),
            digest: answer.header("docker-content-digest").parse().ok(),
            size: answer.length(),
        };
        answer.discard().await;
        Ok(head)
    }

    /// The manifest or index under a tag or digest. One that was asked for by its digest has that digest.
    pub async fn manifest(&self, reference: &str) -> Result<Fetched, Error> {
        let path = format!("/manifests/{reference}");
        let answer = self.call(Need::Resolve, &Self::accepting(Method::GET, &path)).await?;
        let (announced, url) = (answer.media_type(), answer.url.to_string());
        let bytes = answer.bytes(MANIFEST_BYTES_MAX).await?;
        let expected: Option<Digest> = reference.parse().ok();
        let digest = digest_of(&bytes, expected.as_ref());
        if let Some(expected) = expected
            && digest != expected
        {
            return Err(Error::Digest { expected, found: digest });
        }
        let media_type = document_type(&announced, &bytes).map_err(|what| Error::Answer { url, what })?;
        Ok(Fetched { media_type, digest, bytes })
    }

    /// Opens a blob from byte `start` to byte `end` (not with it; to its end if there is none).
    pub async fn blob(&self, digest: &Digest, start: u64, end: Option<u64>) -> Result<BlobStream, Error> {
        let path = format!("/blobs/{digest}");
        let mut call = Call::new(Method::GET, &path);
        if start > 0 || end.is_some() {
            let last = end.map(|end| end.saturating_sub(1).to_string()).unwrap_or_default();
            let range = format!("bytes={start}-{last}");
            call.headers.insert(RANGE, HeaderValue::from_str(&range).expect("plain text"));
        }
        let answer = self.call(Need::Pull, &call).await?;
        let partial = answer.status == StatusCode::PARTIAL_CONTENT;
        let start = match partial {
            false => 0,
            true => {
                let range = answer.header(CONTENT_RANGE);
                let begins = range.strip_prefix("bytes ").and_then(|rest| rest.split('-').next());
                match begins.and_then(|begins| begins.parse::<u64>().ok()) {
                    Some(begins) if begins == start => start,
                    _ => {
                        return Err(Error::Answer {
                            url: answer.url.to_string(),
                            what: format!("the range {:?} was not asked for", shortened(range)),
                        });
                    }
                }
            }
        };
        Ok(BlobStream { answer, start })
    }

    /// A small blob whole, checked.
    pub async fn blob_bytes(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let path = format!("/blobs/{digest}");
        let answer = self.call(Need::Pull, &Call::new(Method::GET, &path)).await?;
        let bytes = answer.bytes(bytes_max).await?;
        let found = digest_of(&bytes, Some(digest));
        match found == *digest {
            true => Ok(bytes),
            false => Err(Error::Digest { expected: digest.clone(), found }),
        }
    }

    /// All tags, sorted.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut next: Option<(String, String)> = None;
        for _ in 0..PAGES_MAX {
            let query: Vec<(&str, &str)> = match &next {
                None => Vec::new(),
                Some((last, size)) => vec![("last", last.as_str()), ("n", size.as_str())],
            };
            let call = Call { query: &query, ..Call::new(Method::GET, "/tags/list") };
            let answer = self.call(Need::Resolve, &call).await?;
            let (link, url) = (answer.header(LINK).to_owned(), answer.url.clone());
            let bytes = answer.bytes(PAGE_BYTES_MAX).await?;
            let unusable = |what: String| Error::Answer { url: url.to_string(), what };
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|error| unusable(format!("the list of tags is not valid: {error}")))?;
            let before = tags.len();
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > TAGS_MAX {
                return Err(unusable(format!("the repository has more than {TAGS_MAX} tags")));
            }
            next = next_page(&link, &url);
            if next.is_none() || tags.len() == before {
                tags.sort();
                tags.dedup();
                return Ok(tags);
            }
        }
        Err(Error::Answer { url: self.name.clone(), what: "the list of tags does not end".into() })
    }

    /// Whether the blob is there; its size if the registry tells.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = format!("/blobs/{digest}");
        match self.call(Need::Push, &Call::new(Method::HEAD, &path)).await {
            Ok(answer) => {
                let length = answer.length();
                answer.discard().await;
                Ok(Some(length.unwrap_or(0)))
            }
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a manifest under a tag or digest.
    pub async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        let path = format!("/manifests/{reference}");
        let mut call = Call::new(Method::PUT, &path);
        let content_type = HeaderValue::from_str(media_type)
            .map_err(|_| Error::Answer { url: path.clone(), what: "the media type is not valid".into() })?;
        call.headers.insert(CONTENT_TYPE, content_type);
        call.body = Some(Bytes::copy_from_slice(bytes));
        let answer = self.call(Need::Push, &call).await?;
        answer.discard().await;
        Ok(Digest::of(bytes))
    }
}

/// The digest of a document, by the algorithm of the digest that it should have.
fn digest_of(bytes: &[u8], expected: Option<&Digest>) -> Digest {
    let algorithm = expected.map_or(oci::Algorithm::Sha256, Digest::algorithm);
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// What a document is. One whose own word differs from the registry's is refused, and one that could be read as two
/// things: who checks it would see another one than who runs it.
fn document_type(announced: &str, bytes: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        #[serde(default)]
        schema_version: Option<serde_json::Value>,
        #[serde(default)]
        media_type: Option<String>,
        manifests: Option<serde_json::Value>,
        layers: Option<serde_json::Value>,
        config: Option<serde_json::Value>,
    }
    if matches!(announced, "text/html" | "application/xhtml+xml") {
        return Err("the answer is a web page, not a manifest: is this a registry?".into());
    }
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|error| format!("the manifest is not valid: {error}"))?;
    if shape.schema_version == Some(1.into()) {
        return Ok(SCHEMA_1.to_owned());
    }
    let own = shape.media_type.unwrap_or_default();
    let known = |text: &str| MANIFEST_TYPES.contains(&text);
    if known(announced) && !own.is_empty() && own != announced {
        return Err(format!(
            "the manifest says that it is {:?}, and the registry {announced:?}",
            shortened(&own)
        ));
    }
    let media_type = if own.is_empty() { announced.to_owned() } else { own };
    let is_index = shape.manifests.is_some();
    let is_image = shape.layers.is_some() || shape.config.is_some();
    if is_index && is_image {
        return Err("the manifest is both an index and an image".into());
    }
    if oci::media_type::is_index(&media_type) && is_image
        || oci::media_type::is_manifest(&media_type) && is_index
    {
        return Err(format!("the manifest is not what its type {media_type:?} says"));
    }
    if known(&media_type) {
        return Ok(media_type);
    }
    // Some registries say "JSON" of everything.
    match (is_index, is_image) {
        (true, _) => Ok(oci::media_type::OCI_INDEX.to_owned()),
        (_, true) => Ok(oci::media_type::OCI_MANIFEST.to_owned()),
        _ => Err(format!("the manifest has the unsupported media type {:?}", shortened(&media_type))),
    }
}

/// The type that stands for all of Docker's manifests of schema 1.
pub const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";

/// `last` and `n` of the next page, from a `Link` header that stays on the registry.
fn next_page(link: &str, url: &Url) -> Option<(String, String)> {
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    let next = url.resolve(target).filter(|next| next.same_origin(url))?;
    let value = |name: &str| {
        let pairs = next.query.as_deref().unwrap_or_default().split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| decode(value))
    };
    Some((value("last")?, value("n").unwrap_or_else(|| "1000".into())))
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn documents_are_one_thing() {
        let image = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        let named =
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        let (oci_image, oci_index) = (oci::media_type::OCI_MANIFEST, oci::media_type::OCI_INDEX);
        assert_eq!(document_type(oci_image, image).unwrap(), oci_image);
        assert_eq!(document_type("application/json", image).unwrap(), oci_image);
        assert_eq!(document_type("", index).unwrap(), oci_index);
        assert_eq!(document_type("text/plain", named).unwrap(), oci_index);
        assert_eq!(document_type("", br#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap(), SCHEMA_1);
        for (announced, bytes) in [
            (oci_image, &index[..]),
            (oci_image, named),
            (oci_index, image),
            ("text/html", image),
            ("", br#"{"manifests":[],"layers":[]}"#),
            ("", b"{}"),
            ("", b"<html>"),
        ] {
            assert!(
                document_type(announced, bytes).is_err(),
                "{announced} {}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn pages_stay_on_the_registry() {
        let url = Url::parse("https://h/v2/a/tags/list").unwrap();
        let next = next_page("</v2/a/tags/list?last=x%2by&n=5>; rel=\"next\"", &url);
        assert_eq!(next, Some(("x+y".into(), "5".into())));
        assert_eq!(next_page("<https://evil/?last=x>; rel=\"next\"", &url), None);
        assert_eq!(next_page("", &url), None);
    }

    proptest! {
        #[test]
        fn documents_never_panic(announced in "\\PC{0,20}", bytes in "\\PC{0,60}", link in "\\PC{0,40}") {
            let _ = document_type(&announced, bytes.as_bytes());
            let _ = next_page(&link, &Url::parse("https://h/").unwrap());
        }
    }
}
