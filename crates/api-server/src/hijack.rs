//! Taking a client's connection over: its raw socket goes to whoever feeds the client from then on.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use bytes::Bytes;
use engine::container::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use model::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

use crate::request::{Drained, Request};
use crate::respond::{Answer, full, streamed};

/// How long a client may take to read its answer before output follows.
const ANSWER_PATIENCE: Duration = Duration::from_millis(200);

pub const RAW: &str = "application/vnd.docker.raw-stream";
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// The answer that hands the connection over, and the stream that follows it.
pub fn take_over(
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
    // A client that does not ask for the connection gets the output as a body, and its own body is the input.
    let failed = |error: io::Error| Refusal::from_error("cannot make a stream", &error);
    let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
    let _ = send.send((OwnedFd::from(theirs), Vec::new()));
    ours.set_nonblocking(true).map_err(failed)?;
    let (reader, writer) = UnixStream::from_std(ours).map_err(failed)?.into_split();
    let body = std::mem::replace(&mut request.body, Drained::whole(Bytes::new()));
    tokio::spawn(feed(body, writer));
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
    Ok((streamed(content_type, pieces), stream))
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
    let parts = upgraded.downcast::<TokioIo<UnixStream>>().map_err(other)?;
    Ok((parts.io.into_inner().into_std()?, parts.read_buf.to_vec()))
}

/// Waits until the answer is sent, and takes the socket out of the HTTP machinery.
async fn hand_over(upgrade: OnUpgrade) -> io::Result<Stream> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let upgraded = match upgraded.downcast::<TokioIo<UnixStream>>() {
        Ok(parts) => {
            let socket = parts.io.into_inner();
            until_answer_is_read(&socket).await;
            return Ok((OwnedFd::from(socket.into_std()?), parts.read_buf.to_vec()));
        }
        Err(other) => other,
    };
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            let stream = parts.io.into_inner();
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
