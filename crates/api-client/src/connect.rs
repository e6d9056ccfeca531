//! Opening a connection.

use std::io::ErrorKind;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{Body, Endpoint, Error, Transport};

/// How long connecting over the network may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that the kernel takes from us before a local daemon has read them.
const SEND_BUFFER: usize = 1 << 20;

/// Bytes that are read at once; larger blocks would be asked of the kernel, cleared and given back for each.
const READ_BYTES: usize = 112 << 10;

/// The transports behind one type.
pub struct Stream(Inner);

enum Inner {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Ssh(Box<Tunnel>),
}

/// A program whose standard input and output lead to a daemon. It ends with its stream.
struct Tunnel {
    _program: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write(cx, buf),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // A pipe has no half to close but itself.
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    /// The socket of a daemon on this machine, from which nothing is read ahead.
    pub(crate) fn into_unix(self) -> Option<UnixStream> {
        match self.0 {
            Inner::Unix(stream) => Some(stream),
            _ => None,
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().0 {
            Inner::Unix($stream) => $call,
            Inner::Tcp($stream) => $call,
            Inner::Tls($stream) => $call,
            Inner::Ssh($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Inner::Unix(stream) => stream.is_write_vectored(),
            Inner::Tcp(stream) => stream.is_write_vectored(),
            Inner::Tls(stream) => stream.is_write_vectored(),
            Inner::Ssh(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// Connects and starts HTTP on the connection.
pub(crate) async fn open(endpoint: &Endpoint) -> Result<SendRequest<Body>, Error> {
    let stream = dial(endpoint).await?;
    let (sender, connection) =
        http1::Builder::new().max_buf_size(READ_BYTES).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // How a connection ends shows in the requests on it.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

/// Opens a connection to a daemon, without a word of HTTP.
pub async fn dial(endpoint: &Endpoint) -> Result<Stream, Error> {
    connect(endpoint).await.map(Stream)
}

async fn connect(endpoint: &Endpoint) -> Result<Inner, Error> {
    match &endpoint.transport {
        Transport::Ssh(ssh) => {
            let program = Command::new("ssh")
                .args(ssh.arguments())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn();
            let mut program =
                program.map_err(|error| Error::Connect(format!("cannot start ssh: {error}")))?;
            let (Some(output), input) = (program.stdout.take(), program.stdin.take()) else {
                return Err(Error::Connect("ssh has no output".to_owned()));
            };
            Ok(Inner::Ssh(Box::new(Tunnel { _program: program, input, output })))
        }
        Transport::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| refused(endpoint, error))?;
            // Archives go through in fewer, larger steps; who may not have so much has what the machine gives.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&stream, SEND_BUFFER);
            Ok(Inner::Unix(stream))
        }
        Transport::Tcp { authority } => tcp(endpoint, authority).await.map(Inner::Tcp),
        Transport::Tls { authority, files } => {
            let config = files.config()?;
            let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = rustls::pki_types::ServerName::try_from(host)
                .map_err(|error| Error::Tls(error.to_string()))?;
            let stream = tcp(endpoint, authority).await?;
            let stream = tokio_rustls::TlsConnector::from(config)
                .connect(name, stream)
                .await
                .map_err(|error| Error::Connect(tls::describe(&error)))?;
            Ok(Inner::Tls(Box::new(stream)))
        }
    }
}

async fn tcp(endpoint: &Endpoint, authority: &str) -> Result<TcpStream, Error> {
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(authority)).await {
        Ok(result) => result.map_err(|error| refused(endpoint, error))?,
        Err(_) => return Err(Error::Connect(format!("dial tcp {authority}: i/o timeout"))),
    };
    // Keystrokes should not wait for more of them.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn refused(endpoint: &Endpoint, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied => Error::Denied { endpoint: endpoint.to_string() },
        _ => Error::Unreachable { endpoint: endpoint.to_string(), source: error },
    }
}
