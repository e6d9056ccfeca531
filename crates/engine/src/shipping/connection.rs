//! Connections to receivers, with errors in the words that Docker's clients know.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logs::wire::fluentd;
use model::Refusal;
use model::logging::{Address, TlsFiles};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};
use tokio_rustls::client::TlsStream;

use super::target::Batch;
use crate::blocking;

/// How long a connection may take to be made.
const CONNECTING: Duration = Duration::from_secs(5);
/// Datagrams in a row, and how long the receiver has then to read some: nothing slows a sender of UDP down.
const BURST: usize = 64;
const BREATH: Duration = Duration::from_millis(1);
/// How long a connection must outlive what its other side took: a receiver that dies with unread records resets it.
const GRACE: Duration = Duration::from_secs(1);
/// Where the syslog daemon of this host listens.
const SYSTEM_LOG: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// Bounds of sending.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timeouts {
    pub write: Option<Duration>,
    pub read: Option<Duration>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    Udp(UdpSocket),
    Datagram(UnixDatagram),
}

/// A receiver that was there when this was made.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    timeouts: Timeouts,
    pub since: Instant,
    /// Bytes of an answer that is not whole yet.
    answer: Vec<u8>,
}

/// Makes a connection. Errors read as Go's.
pub async fn connect(address: &Address, files: &TlsFiles, timeouts: Timeouts) -> Result<Connection, Refusal> {
    let socket = match tokio::time::timeout(CONNECTING, socket(address, files)).await {
        Ok(socket) => socket?,
        Err(_) => return Err(dial_error(address, &io::ErrorKind::TimedOut.into())),
    };
    Ok(Connection { socket, timeouts, since: Instant::now(), answer: Vec::new() })
}

async fn socket(address: &Address, files: &TlsFiles) -> Result<Socket, Refusal> {
    let failed = |error: io::Error| dial_error(address, &error);
    match address {
        Address::SystemLog => system_log().await,
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix).map_err(failed),
        Address::UnixDatagram(path) => datagram(path).map(Socket::Datagram).map_err(failed),
        Address::Tcp(host) => TcpStream::connect(host).await.map(Socket::Tcp).map_err(failed),
        Address::Udp(host) => udp(host).await.map(Socket::Udp).map_err(failed),
        Address::Tls(host) => {
            let files = client_files(files);
            let config = blocking(move || {
                files.config().map_err(|error| Refusal::from_error("cannot set up TLS", &error))
            })
            .await?;
            let stream = TcpStream::connect(host).await.map_err(failed)?;
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            let name = name.trim_start_matches('[').trim_end_matches(']').to_string();
            let name = rustls::pki_types::ServerName::try_from(name)
                .map_err(|error| Refusal::from_error("invalid name of a TLS server", &error))?;
            let stream = tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, stream).await;
            stream
                .map(|stream| Socket::Tls(Box::new(stream)))
                .map_err(|error| Refusal::from_error("tls", &error))
        }
    }
}

fn client_files(files: &TlsFiles) -> tls::ClientFiles {
    tls::ClientFiles {
        system: files.authority.is_none(),
        authorities: files.authority.iter().cloned().collect(),
        identity: files.certificate.clone().zip(files.key.clone()).map(|(cert, key)| (cert, Some(key))),
        skip_verify: files.skip_verify,
    }
}

async fn system_log() -> Result<Socket, Refusal> {
    for path in SYSTEM_LOG.map(Path::new) {
        if let Ok(socket) = datagram(path) {
            return Ok(Socket::Datagram(socket));
        }
        if let Ok(socket) = UnixStream::connect(path).await {
            return Ok(Socket::Unix(socket));
        }
    }
    Err(Refusal::system("Unix syslog delivery error")
        .hint("no syslog daemon listens on this host's /dev/log"))
}

fn datagram(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

async fn udp(host: &str) -> io::Result<UdpSocket> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host(host).await? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `dial tcp 127.0.0.1:514: connect: connection refused`
fn dial_error(address: &Address, error: &io::Error) -> Refusal {
    let (network, to) = match address {
        Address::SystemLog => ("unixgram", "/dev/log".to_string()),
        Address::Udp(host) => ("udp", host.clone()),
        Address::Tcp(host) | Address::Tls(host) => ("tcp", host.clone()),
        Address::Unix(path) => ("unix", path.display().to_string()),
        Address::UnixDatagram(path) => ("unixgram", path.display().to_string()),
    };
    let what = match (error.raw_os_error(), error.kind()) {
        (_, io::ErrorKind::TimedOut) => format!("dial {network} {to}: i/o timeout"),
        (Some(_), _) => format!("dial {network} {to}: connect: {}", plain(error)),
        // The resolver's errors carry no number.
        (None, _) => {
            let name = to.rsplit_once(':').map_or(to.as_str(), |(name, _)| name);
            format!("dial {network}: lookup {name}: no such host")
        }
    };
    Refusal::system(what)
}

/// The kernel's error, as C and Go spell it.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl Connection {
    /// How long what was taken may yet be lost, and whether the bytes that were not can be counted.
    pub fn certainty(&self) -> (bool, Duration) {
        match self.socket {
            Socket::Tcp(_) => (true, GRACE),
            Socket::Tls(_) => (false, GRACE),
            Socket::Unix(_) | Socket::Datagram(_) | Socket::Udp(_) => (false, Duration::ZERO),
        }
    }

    /// Bytes that the other side has not taken.
    pub fn untaken(&self) -> usize {
        let socket: BorrowedFd<'_> = match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Tls(socket) => socket.get_ref().0.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Datagram(socket) => socket.as_fd(),
            // Nobody knows.
            Socket::Udp(_) => return 0,
        };
        sys::network::untaken(socket).unwrap_or(0)
    }

    /// Sends a batch, and waits for its acknowledgement if it asks for one.
    pub async fn send(&mut self, batch: &Batch) -> io::Result<()> {
        let Timeouts { write, read } = self.timeouts;
        within(write, self.write(batch)).await?;
        match &batch.chunk {
            Some(chunk) => within(read, self.acknowledged(chunk)).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, batch: &Batch) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(socket) => socket.write_all(&batch.bytes).await,
            Socket::Tls(socket) => {
                socket.write_all(&batch.bytes).await?;
                socket.flush().await
            }
            Socket::Unix(socket) => socket.write_all(&batch.bytes).await,
            Socket::Udp(socket) => send_udp(socket, batch).await,
            Socket::Datagram(socket) => {
                for message in batch.messages() {
                    send_datagram(socket, message).await?;
                }
                Ok(())
            }
        }
    }

    async fn acknowledged(&mut self, chunk: &str) -> io::Result<()> {
        loop {
            match fluentd::answer(&self.answer) {
                fluentd::Answer::Acknowledged { chunk: answered, length } => {
                    self.answer.drain(..length);
                    if answered == chunk {
                        return Ok(());
                    }
                }
                fluentd::Answer::Malformed => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the receiver's answer is no acknowledgement",
                    ));
                }
                fluentd::Answer::Incomplete => {
                    let mut buffer = [0; 512];
                    let count = self.read(&mut buffer).await?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.answer.extend_from_slice(&buffer[..count]);
                }
            }
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(socket) => socket.read(buffer).await,
            Socket::Tls(socket) => socket.read(buffer).await,
            Socket::Unix(socket) => socket.read(buffer).await,
            Socket::Udp(_) | Socket::Datagram(_) => std::future::pending().await,
        }
    }

    /// Ends the connection in order.
    pub async fn close(&mut self) {
        if let Socket::Tls(socket) = &mut self.socket {
            let _ = tokio::time::timeout(Duration::from_secs(1), socket.shutdown()).await;
        }
    }

    /// Waits until the receiver closes the connection (in order, or else the error); what it says is not listened to.
    pub async fn closed(&mut self) -> io::Result<()> {
        let mut buffer = [0; 512];
        while self.read(&mut buffer).await? > 0 {}
        Ok(())
    }
}

async fn within(limit: Option<Duration>, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    match limit {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")),
        },
    }
}

async fn send_udp(socket: &UdpSocket, batch: &Batch) -> io::Result<()> {
    for (index, message) in batch.messages().enumerate() {
        if index % BURST == BURST - 1 {
            tokio::time::sleep(BREATH).await;
        }
        match socket.send(message).await {
            // No datagram can be that long: nobody will ever take it.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {}
            other => drop(other?),
        }
    }
    // A host that has nobody at the port says so.
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Sends to a socket of this host. The journal takes what is too long for a datagram as a sealed file.
async fn send_datagram(socket: &UnixDatagram, message: &[u8]) -> io::Result<()> {
    use rustix::io::Errno;
    match socket.send(message).await {
        Err(error)
            if [Errno::MSGSIZE, Errno::NOBUFS]
                .map(|one| Some(one.raw_os_error()))
                .contains(&error.raw_os_error()) =>
        {
            let file = sealed(message)?;
            socket.async_io(Interest::WRITABLE, || pass(socket.as_fd(), file.as_fd())).await
        }
        other => other.map(drop),
    }
}

fn sealed(message: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("log-entry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut written = 0;
    while written < message.len() {
        written += rustix::io::write(&file, &message[written..])?;
    }
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

fn pass(socket: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(rustix::io::Errno::INVAL.into());
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&[])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
