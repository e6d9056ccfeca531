//! Connections that became raw streams: attach and exec.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::Stream;
use crate::{Error, Response};

/// How much is read at a time.
const CHUNK: usize = 32 << 10;

/// A raw stream in both directions.
#[derive(Debug)]
pub struct Hijacked {
    io: TokioIo<Upgraded>,
    /// Whether the daemon said that what comes is framed (`None`: it did not say).
    pub multiplexed: Option<bool>,
}

pub(crate) async fn upgrade(response: Response) -> Result<Hijacked, Error> {
    let multiplexed = match response.header("content-type") {
        Some("application/vnd.docker.multiplexed-stream") => Some(true),
        Some("application/vnd.docker.raw-stream") => Some(false),
        _ => None,
    };
    let upgraded = hyper::upgrade::on(response.into_inner()).await?;
    Ok(Hijacked { io: TokioIo::new(upgraded), multiplexed })
}

/// The answer to a request to go on with another protocol.
#[derive(Debug)]
pub enum Switched {
    /// The bare socket, and what was read of it with the answer's head; the daemon speaks the other protocol.
    Socket { socket: std::os::unix::net::UnixStream, early: Bytes, headers: HeaderMap },
    /// The daemon did not take part, and answered the request as it is.
    Answer(Response),
}

pub(crate) async fn bare_socket(response: Response) -> Result<Switched, Error> {
    let headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response.into_inner()).await?;
    let no_socket = || Error::Http("the daemon's connection is no Unix socket".to_owned());
    let parts = upgraded.downcast::<TokioIo<Stream>>().map_err(|_| no_socket())?;
    let stream = parts.io.into_inner().into_unix().ok_or_else(no_socket)?;
    Ok(Switched::Socket { socket: stream.into_std()?, early: parts.read_buf, headers })
}

impl Hijacked {
    /// The two directions.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = tokio::io::split(self.io);
        (ReadHalf { inner: read, buffer: BytesMut::new() }, WriteHalf { inner: write })
    }
}

/// What the daemon sends.
#[derive(Debug)]
pub struct ReadHalf {
    inner: tokio::io::ReadHalf<TokioIo<Upgraded>>,
    buffer: BytesMut,
}

impl ReadHalf {
    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.buffer.reserve(CHUNK);
        let count = self.inner.read_buf(&mut self.buffer).await?;
        Ok((count > 0).then(|| self.buffer.split().freeze()))
    }
}

/// What goes to the daemon.
#[derive(Debug)]
pub struct WriteHalf {
    inner: tokio::io::WriteHalf<TokioIo<Upgraded>>,
}

impl WriteHalf {
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write_all(bytes).await?;
        Ok(self.inner.flush().await?)
    }

    /// Says that no more will come; the other direction stays open.
    pub async fn close(&mut self) -> Result<(), Error> {
        Ok(self.inner.shutdown().await?)
    }
}
