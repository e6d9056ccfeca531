//! Taking a client's connection over: its raw socket goes to whoever feeds the client from then on.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use engine::container::Stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use model::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot};

use crate::request::{Drained, Request};
use crate::respond::{Answer, Outcome, full, refused, streamed};

/// How long a client may take to read its answer before output follows.
const ANSWER_PATIENCE: Duration = Duration::from_millis(200);

pub const RAW: &str = "application/vnd.docker.raw-stream";
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// The answer that hands the connection over, and the stream that follows it.
pub async fn take_over(
    request: &mut Request,
    content_type: &'static str,
) -> Result<(Answer, oneshot::Receiver<Stream>), Refusal> {
    let (send, stream) = oneshot::channel();
    if request.wants_upgrade()
        && let Some(upgrade) = request.upgrade.take()
    {
        let mut answer = Response::new(full(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        tokio::spawn(async move {
            match hand_over(upgrade).await {
                Ok(taken) => drop(send.send(taken)),
                Err(error) => tracing::debug!(%error, "a client left before its connection was taken over"),
            }
        });
        return Ok((answer, stream));
    }
    let input = if request.body.size_hint().exact().is_some() {
        // Nobody reads what is in it, but it must not be taken for input.
        request.take_body().await?;
        None
    } else {
        Some(std::mem::replace(&mut request.body, Drained::whole(Bytes::new())))
    };
    let mut answer = Response::new(full(Bytes::new()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(RAW));
    answer.extensions_mut().insert(Unasked(Arc::new(Mutex::new(Some(Taker { send, input })))));
    Ok((answer, stream))
}

/// In an answer to a client that does not ask for the connection, but for streams: it gets the connection all the same
/// (dockerode goes on to write to it), with nothing between answer and output.
#[derive(Clone)]
pub struct Unasked(Arc<Mutex<Option<Taker>>>);

struct Taker {
    send: oneshot::Sender<Stream>,
    /// A body of unknown length; there is no telling where it ends and the connection's own bytes begin.
    input: Option<Drained>,
}

impl Unasked {
    /// Takes the connection from an answer that asks for it, and never returns then: what is left of the HTTP machinery
    /// is to be dropped when `bare` says so. Else gives the answer to be sent.
    pub async fn settle(mut answer: Answer, bare: Option<&Bare>) -> Answer {
        let Some(Unasked(taker)) = answer.extensions_mut().remove() else { return answer };
        let taker = taker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Taker { send, input }) = taker else { return answer };
        let socket = if input.is_none() { bare.and_then(Bare::take) } else { None };
        let Some(socket) = socket else {
            return as_body(answer, send, input).unwrap_or_else(|refusal| refused(&refusal));
        };
        match begin(socket, answer.headers()).await {
            Ok(socket) => drop(send.send((socket, Vec::new()))),
            Err(error) => tracing::debug!(%error, "a client left before its connection was taken over"),
        }
        if let Some(bare) = bare {
            bare.taken.notify_one();
        }
        std::future::pending().await
    }
}

/// A connection's socket, beside the HTTP machinery that has it.
pub struct Bare {
    socket: Mutex<Option<OwnedFd>>,
    is_taken: Arc<AtomicBool>,
    /// Told when the machinery is to be dropped.
    pub taken: Notify,
}

impl Bare {
    /// `line`: how the machinery sees the socket.
    pub fn new<S>(socket: OwnedFd, line: &Line<S>) -> Bare {
        Bare { socket: Mutex::new(Some(socket)), is_taken: line.is_taken.clone(), taken: Notify::new() }
    }

    fn take(&self) -> Option<OwnedFd> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.is_taken.store(true, Ordering::Release);
        Some(socket)
    }
}

/// A connection's stream; from it nothing is read any more once the connection was taken.
pub struct Line<S> {
    stream: S,
    is_taken: Arc<AtomicBool>,
}

impl<S> Line<S> {
    pub fn new(stream: S) -> Line<S> {
        Line { stream, is_taken: Arc::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_taken.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Writes the head of an answer whose body is what comes from then on until the connection ends.
async fn begin(socket: OwnedFd, headers: &HeaderMap) -> io::Result<OwnedFd> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    // Whatever it is, written to and shut down it is alike.
    let mut stream = UnixStream::from_std(socket.into())?;
    stream.write_all(&head).await?;
    until_answer_is_read(&stream).await;
    Ok(stream.into_std()?.into())
}

/// The output as the body of the answer: behind TLS, and for who sends a body without saying where it ends, which is
/// the input.
fn as_body(answer: Answer, send: oneshot::Sender<Stream>, input: Option<Drained>) -> Outcome {
    let failed = |error: io::Error| Refusal::from_error("cannot make a stream", &error);
    let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
    let _ = send.send((OwnedFd::from(theirs), Vec::new()));
    ours.set_nonblocking(true).map_err(failed)?;
    let (reader, writer) = UnixStream::from_std(ours).map_err(failed)?.into_split();
    match input {
        Some(body) => drop(tokio::spawn(feed(body, writer))),
        // No input will come.
        None => drop(writer),
    }
    let pieces = futures_util::stream::unfold(reader, |mut reader| async move {
        let mut piece = vec![0; 32 << 10];
        match reader.read(&mut piece).await {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                Some((Ok(Bytes::from(piece)), reader))
            }
            Err(error) => Some((Err(error), reader)),
        }
    });
    let (parts, _) = answer.into_parts();
    let (_, body) = streamed(RAW, pieces).into_parts();
    Ok(Answer::from_parts(parts, body))
}

/// Writes what comes in a body. With its end, or when nobody takes it any more, the input ends.
async fn feed(mut body: Drained, mut input: OwnedWriteHalf) {
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        if input.write_all(&data).await.is_err() {
            break;
        }
    }
}

/// Waits until the answer is sent, and takes the socket of a client of this machine, with what was read of it early.
pub async fn bare_socket(upgrade: OnUpgrade) -> io::Result<(StdUnixStream, Vec<u8>)> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let other = |_| io::Error::other("the connection is no Unix socket");
    let parts = upgraded.downcast::<TokioIo<Line<UnixStream>>>().map_err(other)?;
    Ok((parts.io.into_inner().stream.into_std()?, parts.read_buf.to_vec()))
}

/// Waits until the answer is sent, and takes the socket out of the HTTP machinery.
async fn hand_over(upgrade: OnUpgrade) -> io::Result<Stream> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let upgraded = match upgraded.downcast::<TokioIo<Line<UnixStream>>>() {
        Ok(parts) => {
            let socket = parts.io.into_inner().stream;
            until_answer_is_read(&socket).await;
            return Ok((OwnedFd::from(socket.into_std()?), parts.read_buf.to_vec()));
        }
        Err(other) => other,
    };
    let upgraded = match upgraded.downcast::<TokioIo<Line<TcpStream>>>() {
        Ok(parts) => {
            let stream = parts.io.into_inner().stream;
            // Key strokes and their echoes are small and must not wait for each other.
            let _ = stream.set_nodelay(true);
            return Ok((OwnedFd::from(stream.into_std()?), parts.read_buf.to_vec()));
        }
        Err(other) => other,
    };
    relay(upgraded)
}

/// Waits a moment until the client has read the answer's head. Some clients (docker-py) read it through a buffer, then go
/// on with the bare socket: what came in one piece with the head would be lost to them.
async fn until_answer_is_read(socket: &UnixStream) {
    // The kernel tells whenever the other side has taken something; who looks in vain waits for that.
    let taken = socket.async_io(Interest::WRITABLE, || match sys::network::untaken(socket.as_fd()) {
        Ok(bytes) if bytes > 0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    });
    let _ = tokio::time::timeout(ANSWER_PATIENCE, taken).await;
}

/// For TLS: only this process can encrypt, so it stands between the client and a socket pair.
fn relay(client: Upgraded) -> io::Result<Stream> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_shim, mut to_shim) = ours.into_split();
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_shim).await;
        let _ = to_shim.shutdown().await;
    });
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_shim, &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    Ok((OwnedFd::from(theirs), Vec::new()))
}

/// Reads detach keys such as `ctrl-p,ctrl-q`; empty means the default.
pub fn detach_keys(text: &str) -> Result<Vec<u8>, Refusal> {
    let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
    let invalid = || Refusal::invalid(format!("Invalid detach keys ({text}) provided"));
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
            Some(b"@") => Ok(0),
            Some(b"[") => Ok(27),
            Some(b"\\") => Ok(28),
            Some(b"]") => Ok(29),
            Some(b"^") => Ok(30),
            Some(b"_") => Ok(31),
            Some(_) => Err(invalid()),
            None => match key.as_bytes() {
                [one] => Ok(*one),
                _ => Err(invalid()),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::detach_keys;

    #[test]
    fn keys() {
        assert_eq!(detach_keys("").unwrap(), [16, 17]);
        assert_eq!(detach_keys("ctrl-@,a,ctrl-_").unwrap(), [0, b'a', 31]);
        for bad in ["ctrl-", "ctrl-A1", "ab", ","] {
            assert!(detach_keys(bad).is_err(), "{bad}");
        }
    }
}
