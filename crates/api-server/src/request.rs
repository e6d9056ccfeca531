//! A request as handlers see it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::upgrade::OnUpgrade;
use model::Refusal;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::query::Query;
use crate::versions::Version;

/// Largest JSON body, in bytes.
const JSON_MAX: usize = 16 << 20;

/// A body that is read to its end, within bounds, even if nobody wants the rest: a client that still sends when the
/// answer comes would see a broken connection instead of the answer.
pub struct Drained(Source);

enum Source {
    Stream(Incoming),
    /// Read already.
    Whole(Bytes),
    Ended,
}

/// Most that is read of a body that nobody wants, in bytes, and how long that may take.
const UNWANTED_MAX: usize = 64 << 20;
const UNWANTED_TIME: std::time::Duration = std::time::Duration::from_secs(10);

impl Drained {
    pub fn new(body: Incoming) -> Drained {
        Drained(Source::Stream(body))
    }

    /// A body that was read whole.
    pub fn whole(bytes: Bytes) -> Drained {
        Drained(Source::Whole(bytes))
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Source::Stream(body) = std::mem::replace(&mut self.0, Source::Ended) else { return };
        if body.is_end_stream() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut limited = std::pin::pin!(Limited::new(body, UNWANTED_MAX));
            let all = async { while let Some(Ok(_)) = limited.frame().await {} };
            let _ = tokio::time::timeout(UNWANTED_TIME, all).await;
        });
    }
}

impl Body for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Source::Stream(body) => Pin::new(body).poll_frame(context),
            Source::Whole(bytes) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Source::Whole(_) | Source::Ended => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Stream(body) => body.size_hint(),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Ended => SizeHint::with_exact(0),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Stream(body) => body.is_end_stream(),
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Ended => true,
        }
    }
}

/// Pieces of a body, each of at most [`crate::connection::BUFFER_MAX`] bytes, that wait for who reads them.
const PIECES_AHEAD: usize = 8;

/// What comes in pieces, for code that blocks; a few of them are taken ahead. It ends with the first error.
pub fn read_ahead(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> impl io::Read + Send {
    let (send, receive) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(async move {
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.next().await {
            let ends = piece.is_err();
            if send.send(piece).await.is_err() || ends {
                break;
            }
        }
    });
    Pieces { receive, piece: Bytes::new() }
}

/// A body as something to read.
struct Pieces {
    receive: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receive.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

pub struct Request {
    pub method: Method,
    /// Decoded parts of the path, without the version.
    pub path: Vec<String>,
    pub query: Query,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Drained,
    /// It came over a Unix socket.
    pub local: bool,
    /// There if the client asked to take the connection over.
    pub upgrade: Option<OnUpgrade>,
}

impl Request {
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether the client wants the connection for itself.
    pub fn wants_upgrade(&self) -> bool {
        self.upgrade.is_some() && self.headers.contains_key(header::UPGRADE)
    }

    /// The body as JSON; none if it is empty.
    pub async fn json_if_any<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Refusal> {
        let content_type = self.header(header::CONTENT_TYPE).to_string();
        let body = self.take_body().await?;
        if body.is_empty() {
            return Ok(None);
        }
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::invalid(format!(
                "unsupported Content-Type header ({content_type}): must be 'application/json'"
            )));
        }
        api_types::from_request(&body).map(Some).map_err(|error| {
            if error.is_syntax() && error.to_string().starts_with("trailing characters") {
                return Refusal::invalid("unexpected content after JSON");
            }
            Refusal::invalid(format!("invalid JSON: {error}"))
        })
    }

    /// The body as JSON, which must be there.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        self.json_if_any()
            .await?
            .ok_or_else(|| Refusal::invalid("invalid JSON: got EOF while reading request body"))
    }

    pub async fn take_body(&mut self) -> Result<Bytes, Refusal> {
        // The body is read through a mutable borrow, so that the request stays whole.
        let limited = Limited::new(&mut self.body, JSON_MAX);
        let collected = limited.collect().await;
        Ok(collected
            .map_err(|error| Refusal::invalid(format!("cannot read the request body: {error}")))?
            .to_bytes())
    }

    /// The body for code that blocks; read it on a blocking thread. What comes is taken off the connection while that
    /// thread works on what came before.
    pub fn into_reader(self) -> impl io::Read + Send {
        read_ahead(futures_util::stream::unfold(self.body, |mut body| async move {
            loop {
                match body.frame().await?.map(Frame::into_data) {
                    Ok(Ok(data)) => return Some((Ok(data), body)),
                    // Trailers; nobody here reads them.
                    Ok(Err(_)) => {}
                    Err(error) => return Some((Err(io::Error::other(error)), body)),
                }
            }
        }))
    }
}
