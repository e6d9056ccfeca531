//! One request to one address: connections that are kept, proxies, redirects, deadlines and another try.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tls::ClientFiles;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{self, Error};
use crate::proxy::Proxy;
use crate::settings::{Endpoint, Settings};
use crate::url::{Scheme, Url};

const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long an answer's head, and then each piece of its body, may take.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Redirects that are followed.
const HOPS_MAX: usize = 10;
/// Tries of a request that may be repeated.
const ATTEMPTS: u32 = 5;
/// The longest wait that a registry may ask for with `Retry-After`.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: u64 = 64 << 10;
const PROXY_HEAD_MAX: usize = 16 << 10;
/// Bytes that are read at once. Each piece of a body is memory of its own: larger blocks would be asked of the kernel,
/// cleared and given back for each.
const READ_BYTES: usize = 100 << 10;
/// Connections to one address that are kept for the next request.
const IDLE_MAX: usize = 8;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What goes out with a request.
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    /// Goes out once and cannot be repeated; with its length, if that is known.
    Stream(Body, Option<u64>),
}

impl Payload {
    fn take(&mut self) -> Body {
        match self {
            Payload::Empty => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Payload::Bytes(bytes) => Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync(),
            Payload::Stream(..) => match std::mem::replace(self, Payload::Empty) {
                Payload::Stream(body, _) => body,
                _ => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            },
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Payload::Empty => Some(0),
            Payload::Bytes(bytes) => Some(bytes.len() as u64),
            Payload::Stream(_, length) => *length,
        }
    }

    fn is_repeatable(&self) -> bool {
        !matches!(self, Payload::Stream(..))
    }
}

/// A request as the layers above make it.
pub(crate) struct Ask<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub payload: Payload,
    /// The address it belongs to: its TLS files and headers go along as long as the request stays there.
    pub endpoint: &'a Endpoint,
    pub authorization: Option<HeaderValue>,
    /// Whether a failure that may pass is tried again here.
    pub retry: bool,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The connections of one piece of work.
pub(crate) struct Transport {
    settings: Arc<Settings>,
    idle: Mutex<HashMap<String, Vec<SendRequest<Body>>>>,
    configs: Mutex<Vec<(ClientFiles, Arc<ClientConfig>)>>,
}

/// An answer, and the connection that it comes over.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Where it came from, after all redirects.
    pub url: Url,
    body: Incoming,
    method: Method,
    connection: Option<(String, SendRequest<Body>)>,
    transport: Arc<Transport>,
}

impl Transport {
    pub fn new(settings: Arc<Settings>) -> Arc<Transport> {
        Arc::new(Transport { settings, idle: Mutex::default(), configs: Mutex::default() })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends a request, follows redirects, and tries again what may pass. Any status is an answer.
    pub async fn send(self: &Arc<Self>, mut ask: Ask<'_>) -> Result<Answer, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let last = attempt == ATTEMPTS || !ask.retry || !ask.payload.is_repeatable();
            let outcome = self.follow(&mut ask).await;
            let pause = Duration::from_millis(250) * 2u32.pow(attempt);
            let wait = match &outcome {
                _ if last => None,
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    Some(answer.asked_pause(pause))
                }
                Ok(answer) if matches!(answer.status.as_u16(), 502..=504) => Some(pause),
                // What could not be reached at all is told at once; what broke is tried again.
                Err(Error::Connection { established: true, .. }) => Some(pause),
                _ => None,
            };
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return outcome,
            }
        }
    }

    async fn follow(self: &Arc<Self>, ask: &mut Ask<'_>) -> Result<Answer, Error> {
        let mut url = ask.url.clone();
        let redirects = matches!(ask.method, Method::GET | Method::HEAD);
        for _ in 0..=HOPS_MAX {
            let answer = self.once(ask, &url).await?;
            let moved = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moved || !redirects {
                return Ok(answer);
            }
            let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("");
            url = url.resolve(location).ok_or_else(|| Error::Answer {
                url: url.to_string(),
                what: format!("a redirect to {:?}", error::shortened(location)),
            })?;
            answer.discard().await;
        }
        Err(Error::Redirects { method: method_name(&ask.method), url: ask.url.to_string(), hops: HOPS_MAX })
    }

    /// One request, without redirects.
    async fn once(self: &Arc<Self>, ask: &mut Ask<'_>, url: &Url) -> Result<Answer, Error> {
        let method = method_name(&ask.method);
        let lost = |established: bool, reason: String| {
            let (method, url) = (method.clone(), url.to_string());
            Error::Connection { method, url, reason, established }
        };
        let at_home = url.same_origin(&ask.url);
        let files = match url.same_origin(&ask.endpoint.base) || at_home {
            true => ask.endpoint.tls.clone(),
            false => self.settings.tls_files(&url.authority)?,
        };
        let proxy = self.settings.proxies.select(url);
        let key = format!("{}://{} {}", url.scheme, url.authority, at_home);
        // A stream that has been sent is gone: nothing would be sent in its place.
        let repeatable = ask.payload.is_repeatable();
        loop {
            let kept = self.kept(&key).await;
            let is_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => {
                    let opened = timeout(CONNECT_TIME, self.open(url, &files, proxy)).await;
                    opened
                        .map_err(|_| lost(false, "dial: i/o timeout".into()))?
                        .map_err(|why| lost(false, why))?
                }
            };
            let request = self.request(ask, url, at_home, proxy).map_err(|why| lost(false, why))?;
            let sent = timeout(ANSWER_TIME, sender.send_request(request)).await;
            match sent {
                Err(_) => return Err(lost(true, "timeout awaiting response headers".into())),
                // A kept connection may have been closed by the other side a moment ago.
                Ok(Err(_)) if is_kept && repeatable => {}
                Ok(Err(error)) => return Err(lost(true, chain(&error))),
                Ok(Ok(response)) => {
                    let (parts, body) = response.into_parts();
                    return Ok(Answer {
                        status: parts.status,
                        headers: parts.headers,
                        url: url.clone(),
                        body,
                        method: ask.method.clone(),
                        connection: Some((key, sender)),
                        transport: Arc::clone(self),
                    });
                }
            }
        }
    }

    fn request(
        &self,
        ask: &mut Ask<'_>,
        url: &Url,
        at_home: bool,
        proxy: Option<&Proxy>,
    ) -> Result<http::Request<Body>, String> {
        // A proxy for plain HTTP gets the whole URL.
        let plain_proxy = proxy.filter(|_| url.scheme == Scheme::Http);
        let target = if plain_proxy.is_some() { url.to_string() } else { url.target() };
        let length = ask.payload.length();
        let mut request = http::Request::builder()
            .method(ask.method.clone())
            .uri(target)
            .body(ask.payload.take())
            .map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.extend(ask.headers.clone());
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        headers.insert(HOST, value(&url.authority)?);
        if !self.settings.user_agent.is_empty() {
            headers.insert(USER_AGENT, value(&self.settings.user_agent)?);
        }
        if let (Some(length), true) = (length, !matches!(ask.method, Method::GET | Method::HEAD)) {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        if at_home {
            // Nobody else gets these.
            headers.extend(ask.endpoint.headers.iter().cloned());
            headers.extend(ask.authorization.clone().map(|value| (AUTHORIZATION, value)));
        }
        if let Some(text) = plain_proxy.and_then(|proxy| proxy.authorization.as_deref()) {
            headers.insert(http::header::PROXY_AUTHORIZATION, value(text)?);
        }
        Ok(request)
    }

    /// A connection that an earlier answer has left, if it is still good.
    async fn kept(&self, key: &str) -> Option<SendRequest<Body>> {
        loop {
            let mut sender = self.lock_idle().get_mut(key)?.pop()?;
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<SendRequest<Body>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self, files: &ClientFiles) -> Result<Arc<ClientConfig>, Error> {
        let mut known = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = known.iter().find(|(other, _)| other == files) {
            return Ok(Arc::clone(config));
        }
        let config = files.config()?;
        known.push((files.clone(), Arc::clone(&config)));
        Ok(config)
    }

    async fn open(
        &self,
        url: &Url,
        files: &ClientFiles,
        proxy: Option<&Proxy>,
    ) -> Result<SendRequest<Body>, String> {
        let first = proxy.map_or(url, |proxy| &proxy.url);
        let mut stream: Box<dyn Stream> = Box::new(dial(first).await?);
        if let Some(proxy) = proxy {
            if proxy.url.scheme == Scheme::Https {
                let files =
                    self.settings.tls_files(&proxy.url.authority).map_err(|error| error.to_string())?;
                stream = self.encrypt(stream, &proxy.url, &files).await?;
            }
            if url.scheme == Scheme::Https {
                stream = tunnel(stream, url, proxy).await?;
            }
        }
        if url.scheme == Scheme::Https {
            stream = self.encrypt(stream, url, files).await?;
        }
        let handshake = http1::Builder::new().max_buf_size(READ_BYTES).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a registry ended");
            }
        });
        Ok(sender)
    }

    async fn encrypt(
        &self,
        stream: Box<dyn Stream>,
        url: &Url,
        files: &ClientFiles,
    ) -> Result<Box<dyn Stream>, String> {
        let config = self.config(files).map_err(|error| format!("tls: {error}"))?;
        let host = url.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| format!("tls: {error}"))?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
            let text = tls::describe(&error);
            if text.starts_with("tls") || text.starts_with("http") { text } else { format!("tls: {text}") }
        })?;
        Ok(Box::new(stream))
    }
}

async fn dial(url: &Url) -> Result<TcpStream, String> {
    let host = url.host().trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<_> = tokio::net::lookup_host((host, url.port()))
        .await
        .map_err(|error| format!("dial tcp: lookup {host}: {}", lookup_reason(&error)))?
        .collect();
    let mut reason = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => reason = format!("dial tcp {address}: connect: {}", plain(&error)),
        }
    }
    Err(reason)
}

fn lookup_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => plain(error),
        // The resolver's own failures have no number.
        None => "no such host".to_owned(),
    }
}

/// The system's words, without the number behind them.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_ascii_lowercase()
}

/// Asks a proxy for a tunnel.
async fn tunnel(mut stream: Box<dyn Stream>, url: &Url, proxy: &Proxy) -> Result<Box<dyn Stream>, String> {
    let target = format!("{}:{}", url.host(), url.port());
    let authorization = proxy
        .authorization
        .as_ref()
        .map_or(String::new(), |value| format!("Proxy-Authorization: {value}\r\n"));
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    let failed = |error: io::Error| format!("proxyconnect tcp: {error}");
    stream.write_all(head.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head belongs to the tunnel.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_HEAD_MAX {
            return Err("proxyconnect tcp: the proxy's answer is too long".into());
        }
        answer.push(stream.read_u8().await.map_err(failed)?);
    }
    let line = String::from_utf8_lossy(&answer);
    let status = line.split(' ').nth(1).unwrap_or_default();
    match status.starts_with('2') {
        true => Ok(stream),
        false => {
            Err(format!("proxyconnect tcp: {}", error::shortened(line.lines().next().unwrap_or_default())))
        }
    }
}

/// `Get`, `Head`: as messages write a method.
pub(crate) fn method_name(method: &Method) -> String {
    let text = method.as_str();
    format!("{}{}", &text[..1], text[1..].to_ascii_lowercase())
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text.split_once(ALERT).map_or(text.clone(), |(_, alert)| format!("remote error: tls: {}", words(alert)))
}

/// How the library says that the other side ended a TLS connection.
const ALERT: &str = "received fatal alert: ";

/// `BadCertificate` as people search for it.
fn words(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

impl Answer {
    pub fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The type of the body, without parameters.
    pub fn media_type(&self) -> String {
        self.header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    pub fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH).parse().ok()
    }

    fn asked_pause(&self, standard: Duration) -> Duration {
        let asked = self.header(RETRY_AFTER).trim().parse().map(Duration::from_secs);
        asked.unwrap_or(standard).min(PATIENCE_MAX)
    }

    /// The next piece of the body.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let failed = |reason: String| Error::Connection {
                method: method_name(&self.method),
                url: self.url.to_string(),
                reason,
                established: true,
            };
            let frame = timeout(ANSWER_TIME, self.body.frame()).await;
            match frame.map_err(|_| failed("timeout while reading body".into()))? {
                None => {
                    self.keep();
                    return Ok(None);
                }
                Some(Err(error)) => return Err(failed(chain(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, which must not be larger than `bytes_max`.
    pub async fn bytes(mut self, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let too_large = |url: &Url| Error::TooLarge { url: url.to_string(), bytes_max };
        if self.length().is_some_and(|length| length > bytes_max) && self.method != Method::HEAD {
            return Err(too_large(&self.url));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            if bytes.len() as u64 + piece.len() as u64 > bytes_max {
                return Err(too_large(&self.url));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Reads what is left of a short body, so that the connection can be used again.
    pub async fn discard(self) {
        let _ = self.bytes(ERROR_BYTES_MAX).await;
    }

    /// The answer as an error, with what its body says.
    pub async fn into_error(self) -> Error {
        let (status, url) = (self.status.as_u16(), self.url.to_string());
        let body = self.bytes(ERROR_BYTES_MAX).await.unwrap_or_default();
        error::from_answer(status, &url, &body)
    }

    /// Leaves the connection for the next request.
    fn keep(&mut self) {
        let Some((key, sender)) = self.connection.take() else { return };
        let mut idle = self.transport.lock_idle();
        let kept = idle.entry(key).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(sender);
        }
    }
}
