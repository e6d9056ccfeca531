//! Bodies of requests and answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::Error;

/// The longest answer that is read into memory at once.
const MAX_ANSWER: usize = 256 << 20;
/// Most memory that an answer gets before it comes.
const AHEAD_MAX: usize = 8 << 20;
/// The longest single message of a stream of JSON messages.
const MAX_LINE: usize = 16 << 20;

/// How much is read of a bare socket at a time.
const SOCKET_PIECE: usize = 8 << 10;

/// The body of a request.
#[derive(Debug, Default)]
pub enum Body {
    #[default]
    Empty,
    Bytes(Bytes),
    /// Chunks as they come; an error ends the request.
    Stream(mpsc::Receiver<std::io::Result<Bytes>>),
}

impl Body {
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// The body, and what a second attempt would send.
    pub(crate) fn split(self) -> (Self, Self) {
        let again = match &self {
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Self::Empty | Self::Stream(_) => Self::Empty,
        };
        (self, again)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(chunks) => {
                chunks.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Refuses to wait for more of one message, or of one item of a list.
pub(crate) fn check_item(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_LINE {
        return Err(Error::Http(format!("a message of the daemon is longer than {MAX_LINE} bytes")));
    }
    Ok(())
}

/// An answer whose head has been read.
#[derive(Debug)]
pub struct Response {
    inner: http::Response<Incoming>,
    sender: SendRequest<Body>,
}

impl Response {
    pub(crate) fn new(inner: http::Response<Incoming>, sender: SendRequest<Body>) -> Self {
        Self { inner, sender }
    }

    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn into_inner(self) -> http::Response<Incoming> {
        self.inner
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.inner.body_mut().frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        Ok(self.bytes_and_sender().await?.0)
    }

    /// The whole body, and the connection, which is free again.
    pub async fn bytes_and_sender(mut self) -> Result<(Bytes, SendRequest<Body>), Error> {
        let told = self.header("content-length").and_then(|text| text.parse::<usize>().ok());
        let mut whole = BytesMut::with_capacity(told.unwrap_or(0).min(AHEAD_MAX));
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > MAX_ANSWER {
                return Err(Error::Http(format!("the daemon's answer is longer than {MAX_ANSWER} bytes")));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok((whole.freeze(), self.sender))
    }

    /// The connection, when the body has been read.
    pub(crate) fn into_sender(self) -> SendRequest<Body> {
        self.sender
    }

    /// Reads what is left and drops it.
    pub async fn discard(mut self) {
        while let Ok(Some(_)) = self.chunk().await {}
    }

    /// The body as a sequence of JSON messages.
    pub fn lines(self) -> Lines {
        Lines { source: Source::Answer(self), buffer: BytesMut::new() }
    }
}

/// A stream of JSON messages, with or without line ends between them.
#[derive(Debug)]
pub struct Lines {
    source: Source,
    buffer: BytesMut,
}

#[derive(Debug)]
enum Source {
    Answer(Response),
    Socket(UnixStream),
}

impl Source {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Answer(response) => response.chunk().await,
            Self::Socket(socket) => {
                let mut piece = BytesMut::with_capacity(SOCKET_PIECE);
                let count = socket.read_buf(&mut piece).await?;
                Ok((count > 0).then(|| piece.freeze()))
            }
        }
    }
}

impl Lines {
    /// What comes on the bare socket of a daemon that speaks another protocol; see [`crate::Switched`].
    pub fn of_socket(socket: std::os::unix::net::UnixStream) -> Result<Self, Error> {
        socket.set_nonblocking(true)?;
        Ok(Self { source: Source::Socket(UnixStream::from_std(socket)?), buffer: BytesMut::new() })
    }

    /// Waits until there is something to read, or the end.
    pub async fn ready(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty()
            && let Some(chunk) = self.source.chunk().await?
        {
            self.buffer.extend_from_slice(&chunk);
        }
        Ok(())
    }

    /// The next message; `None` at the end of the stream.
    pub async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<T>();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    self.buffer.advance(used);
                    return Ok(Some(value));
                }
                Some(Err(error)) if !error.is_eof() => return Err(error.into()),
                _ => {}
            }
            check_item(self.buffer.len())?;
            match self.source.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(Error::Http("unexpected EOF".to_owned())),
            }
        }
    }
}
