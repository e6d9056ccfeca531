//! A client of the Engine API: HTTP/1.1 over a Unix socket, TCP or TLS, with hijacked streams.
//!
//! It knows how to talk, and nothing of what to say: callers name paths and give bodies (`api-types`). It is made for a
//! single-threaded runtime and few round trips: no ping goes out first. A request carries the version that this client
//! was written for; a daemon that is older says so once, and the request is repeated with its version.

mod body;
mod connect;
mod frames;
mod hijack;
mod host;

pub use body::{Body, Lines, Response};
pub use connect::{Stream, dial};
pub use frames::{FrameReader, StreamKind};
pub use hijack::{Hijacked, ReadHalf, Switched, WriteHalf};
pub use host::{Endpoint, TlsFiles, Transport};

use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::client::conn::http1::SendRequest;

/// The version of the API that requests ask for until the daemon says that it is too new.
pub const API_VERSION: &str = "1.50";

/// What can go wrong between this program and the daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon answered with an error status.
    #[error("Error response from daemon: {message}")]
    Api { status: u16, message: String, hint: Option<String> },
    /// Nobody listens there.
    #[error("Cannot connect to the Docker daemon at {endpoint}. Is the docker daemon running?")]
    Unreachable { endpoint: String, source: std::io::Error },
    #[error(
        "permission denied while trying to connect to the Docker daemon socket at {endpoint}: connect: permission denied"
    )]
    Denied { endpoint: String },
    #[error("error during connect: {0}")]
    Connect(String),
    /// The connection broke, or what came over it was not HTTP.
    #[error("{0}")]
    Http(String),
    #[error("unable to parse docker host `{0}`")]
    Host(String),
    #[error("cannot read what the daemon answered: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Tls(String),
}

impl Error {
    /// The status of the daemon's answer, if it gave one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        // In the words of Docker's client: the daemon has gone in the middle of an answer.
        let cut = std::error::Error::source(&error)
            .and_then(|cause| cause.downcast_ref::<std::io::Error>())
            .is_some_and(|cause| cause.kind() == std::io::ErrorKind::UnexpectedEof);
        Self::Http(if cut { "unexpected EOF".into() } else { chain(&error) })
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// One request, without the version.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    /// Starts with `/`; segments are already encoded (see [`segment`]).
    pub path: String,
    pub query: Vec<(&'static str, String)>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

impl Request {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), headers: Vec::new(), body: Body::Empty }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    /// A flag that is only sent when set.
    pub fn flag(self, key: &'static str, set: bool) -> Self {
        if set { self.query(key, "1") } else { self }
    }

    pub fn header(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((key, value.into()));
        self
    }

    pub fn json<T: serde::Serialize>(mut self, body: &T) -> Result<Self, Error> {
        self.body = Body::Bytes(serde_json::to_vec(body)?.into());
        self.headers.push(("content-type", "application/json".to_owned()));
        Ok(self)
    }

    /// A body of raw bytes, with its type.
    pub fn body(mut self, content_type: &str, body: Body) -> Self {
        self.headers.push(("content-type", content_type.to_owned()));
        self.body = body;
        self
    }
}

/// Percent-encodes one segment of a path; `/`, `:` and `@` stay, as names of images contain them.
pub fn segment(text: &str) -> String {
    encode(text, b"/:@!$&'()*+,;=")
}

fn encode(text: &str, keep: &[u8]) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// A connection to one daemon.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    user_agent: String,
    headers: Vec<(String, String)>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    version: String,
    /// Set once the daemon has answered with this version, or the user fixed it.
    settled: bool,
    idle: Vec<SendRequest<Body>>,
}

impl Client {
    /// A client of `endpoint`. `version` is the user's own choice, which is never changed.
    pub fn new(endpoint: Endpoint, user_agent: &str, version: Option<&str>) -> Self {
        Self {
            endpoint,
            user_agent: user_agent.to_owned(),
            headers: Vec::new(),
            state: Mutex::new(State {
                version: version.unwrap_or(API_VERSION).to_owned(),
                settled: version.is_some(),
                idle: Vec::new(),
            }),
        }
    }

    /// Headers that go out with each request.
    pub fn with_headers(mut self, headers: Vec<(String, String)>) -> Self {
        self.headers = headers;
        self
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The version of the API in use.
    pub fn version(&self) -> String {
        self.state().version.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks the daemon for its version and takes the lower one of the two.
    pub async fn negotiate(&self) -> Result<(), Error> {
        if self.state().settled {
            return Ok(());
        }
        let request =
            http::Request::builder().method(Method::HEAD).uri(format!("{}/_ping", self.endpoint.base()));
        let response = self.exchange(request, Body::Empty).await?;
        let theirs = response.header("api-version").map(str::to_owned);
        response.discard().await;
        let mut state = self.state();
        if let Some(theirs) = theirs.filter(|theirs| older(theirs, &state.version)) {
            state.version = theirs;
        }
        state.settled = true;
        Ok(())
    }

    /// Sends a request and returns the answer's head; an error status is an error.
    pub async fn send(&self, mut request: Request) -> Result<Response, Error> {
        if request.body.is_stream() {
            // A stream cannot be sent twice, so the version has to be right the first time.
            self.negotiate().await?;
        }
        let (body, again) = std::mem::take(&mut request.body).split();
        let response = self.exchange(self.head(&request), body).await?;
        match self.check(response).await {
            Err(Error::Api { status: 400, message, .. }) if self.lower(&message) => {
                let response = self.exchange(self.head(&request), again).await?;
                self.check(response).await
            }
            result => result,
        }
    }

    /// Sends a request that turns the connection into a raw stream.
    pub async fn hijack(&self, mut request: Request) -> Result<Hijacked, Error> {
        let (body, again) = std::mem::take(&mut request.body).split();
        let head = |client: &Self| {
            client.head(&request).header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp")
        };
        let response = self.exchange(head(self), body).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return hijack::upgrade(response).await;
        }
        match self.check(response).await {
            Err(Error::Api { status: 400, message, .. }) if self.lower(&message) => {
                let response = self.exchange(head(self), again).await?;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return hijack::upgrade(response).await;
                }
                self.check(response)
                    .await
                    .and(Err(Error::Http("the daemon did not open a stream".to_owned())))
            }
            Err(error) => Err(error),
            Ok(_) => Err(Error::Http("the daemon did not open a stream".to_owned())),
        }
    }

    /// Sends a request without a body, and with it the wish to go on with another protocol on the bare socket. Only for
    /// daemons on this machine.
    pub async fn switch(&self, request: Request, protocol: &'static str) -> Result<Switched, Error> {
        self.negotiate().await?;
        let head =
            self.head(&request).header(header::CONNECTION, "Upgrade").header(header::UPGRADE, protocol);
        let response = self.exchange(head, Body::Empty).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return hijack::bare_socket(response).await;
        }
        self.check(response).await.map(Switched::Answer)
    }

    /// Whether the daemon is a program of this machine, as far as can be seen.
    pub fn is_local(&self) -> bool {
        matches!(self.endpoint.transport, Transport::Unix(_))
    }

    /// The error that a daemon tells with this status and body.
    pub fn told(status: u16, body: &[u8]) -> Error {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        api_error(status, &Bytes::copy_from_slice(body))
    }

    /// Sends a request and reads a JSON answer.
    pub async fn json<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        let response = self.send(request).await?;
        let body = self.read(response).await?;
        Ok(api_types::from_answer(&body)?)
    }

    /// Sends a request, and makes something of each item of the list that comes, while the daemon makes the others.
    pub async fn list<T: serde::de::DeserializeOwned, R>(
        &self,
        request: Request,
        mut map: impl FnMut(T) -> R,
    ) -> Result<Vec<R>, Error> {
        let mut response = self.send(request).await?;
        let (mut items, mut all) = (api_types::Items::default(), Vec::new());
        while let Some(piece) = response.chunk().await? {
            items.push(&piece);
            while let Some(item) = items.take()? {
                all.push(map(item));
            }
            body::check_item(items.waiting())?;
        }
        items.end()?;
        self.keep(response.into_sender());
        Ok(all)
    }

    /// Sends a request and reads a JSON answer as it is.
    pub async fn value(&self, request: Request) -> Result<serde_json::Value, Error> {
        let response = self.send(request).await?;
        let body = self.read(response).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Sends a request whose answer has nothing to say but its status.
    pub async fn done(&self, request: Request) -> Result<(), Error> {
        let response = self.send(request).await?;
        self.read(response).await?;
        Ok(())
    }

    fn head(&self, request: &Request) -> http::request::Builder {
        let mut uri = format!("{}/v{}{}", self.endpoint.base(), self.state().version, request.path);
        for (index, (key, value)) in request.query.iter().enumerate() {
            uri.push(if index == 0 { '?' } else { '&' });
            uri.push_str(key);
            uri.push('=');
            uri.push_str(&encode(value, b""));
        }
        let mut head = http::Request::builder().method(&request.method).uri(uri);
        for (key, value) in &request.headers {
            head = head.header(*key, value);
        }
        head
    }

    async fn exchange(&self, head: http::request::Builder, body: Body) -> Result<Response, Error> {
        let mut head = head.header(header::HOST, self.endpoint.host_header());
        for (key, value) in &self.headers {
            head = head.header(key, value);
        }
        if let Ok(agent) = HeaderValue::from_str(&self.user_agent) {
            head = head.header(header::USER_AGENT, agent);
        }
        let request = head.body(body).map_err(|error| Error::Http(error.to_string()))?;
        let mut sender = match self.idle().await {
            Some(sender) => sender,
            None => connect::open(&self.endpoint).await?,
        };
        let response = sender.send_request(request).await?;
        Ok(Response::new(response, sender))
    }

    /// Opens a connection for the next request; an error means that nobody answers.
    pub async fn warm(&self) -> Result<(), Error> {
        let sender = connect::open(&self.endpoint).await?;
        self.state().idle.push(sender);
        Ok(())
    }

    /// A connection that an earlier request left behind, if it is still good.
    async fn idle(&self) -> Option<SendRequest<Body>> {
        let mut sender = self.state().idle.pop()?;
        sender.ready().await.ok()?;
        Some(sender)
    }

    /// Reads the whole answer and keeps the connection for the next request.
    async fn read(&self, response: Response) -> Result<Bytes, Error> {
        let (body, sender) = response.bytes_and_sender().await?;
        self.keep(sender);
        Ok(body)
    }

    /// Keeps a connection that is free again for the next request.
    fn keep(&self, sender: SendRequest<Body>) {
        if !sender.is_closed() {
            self.state().idle.push(sender);
        }
    }

    async fn check(&self, response: Response) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        Err(api_error(status, &body))
    }

    /// Takes the version that an answer names as the daemon's highest. False if it names none, or none that helps.
    fn lower(&self, message: &str) -> bool {
        let Some((_, theirs)) = message.rsplit_once("Maximum supported API version is ") else {
            return false;
        };
        let theirs = theirs.trim_end_matches('.').trim();
        let mut state = self.state();
        if state.settled || !older(theirs, &state.version) {
            return false;
        }
        state.version = theirs.to_owned();
        state.settled = true;
        true
    }
}

fn api_error(status: StatusCode, body: &Bytes) -> Error {
    let parsed: Option<api_types::ErrorResponse> = serde_json::from_slice(body).ok();
    let (message, hint) = match parsed {
        Some(error) => (error.message.trim().to_owned(), error.hint),
        None if body.is_empty() => (
            format!(
                "request returned {} for API route and version, check if the server supports the requested API version",
                status.canonical_reason().unwrap_or_else(|| status.as_str())
            ),
            None,
        ),
        None => (String::from_utf8_lossy(body).trim().to_owned(), None),
    };
    Error::Api { status: status.as_u16(), message, hint }
}

/// Whether version `left` is lower than `right`; false if either is not a version.
pub fn older(left: &str, right: &str) -> bool {
    let numbers = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    matches!((numbers(left), numbers(right)), (Some(left), Some(right)) if left < right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(older("1.9", "1.10"));
        assert!(older("1.43", "1.50"));
        assert!(!older("1.50", "1.50"));
        assert!(!older("x", "1.50"));
    }

    #[test]
    fn segments_and_queries_are_encoded() {
        assert_eq!(segment("lib/web:1@x"), "lib/web:1@x");
        assert_eq!(segment("a b?c#%"), "a%20b%3Fc%23%25");
        assert_eq!(encode("{\"a\":1}", b""), "%7B%22a%22%3A1%7D");
    }

    #[test]
    fn errors_carry_the_daemons_words() {
        let error =
            api_error(StatusCode::NOT_FOUND, &Bytes::from_static(b"{\"message\":\"No such container: x\"}"));
        assert_eq!(error.to_string(), "Error response from daemon: No such container: x");
        assert!(error.is_not_found());
        let plain = api_error(StatusCode::BAD_GATEWAY, &Bytes::from_static(b"oops\n"));
        assert_eq!(plain.to_string(), "Error response from daemon: oops");
    }
}
