//! Websockets: the handshake by RFC 6455, and the frames around a raw stream.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use bytes::Bytes;
use engine::container::Stream;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use model::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::request::Request;
use crate::respond::{Answer, full};

/// Largest message of a client, in bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// Bytes of output in one frame at most.
const FRAME: usize = 32 << 10;
/// How long a client may take to answer a close.
const CLOSING: Duration = Duration::from_secs(5);

/// The answer that turns a connection into a websocket, and the raw stream behind it. `text`: frames are of text.
pub fn take_over(request: &mut Request, text: bool) -> Result<(Answer, oneshot::Receiver<Stream>), Refusal> {
    let mut answer = handshake(&request.headers)?;
    let upgrade = request.upgrade.take().ok_or_else(|| Refusal::invalid("not websocket protocol"))?;
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let (send, stream) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(error) = converse(upgrade, text, send).await {
            tracing::debug!(%error, "a websocket ended");
        }
    });
    Ok((answer, stream))
}

/// Checks what the client asks for, and answers its key.
fn handshake(headers: &HeaderMap) -> Result<Answer, Refusal> {
    let text = |name: &header::HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim().to_string()
    };
    let asks = text(&header::UPGRADE).eq_ignore_ascii_case("websocket")
        && text(&header::CONNECTION).to_ascii_lowercase().contains("upgrade");
    if !asks {
        return Err(Refusal::invalid("not websocket protocol"));
    }
    let key = text(&header::SEC_WEBSOCKET_KEY);
    if key.is_empty() {
        return Err(Refusal::invalid("mismatch challenge/response"));
    }
    if text(&header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err(
            Refusal::invalid("missing or bad WebSocket Version").hint("Sec-WebSocket-Version must be 13")
        );
    }
    let mut answer = Response::new(full(Bytes::new()));
    let out = answer.headers_mut();
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|error| Refusal::from_error("websocket", &error))?;
    out.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
        // One that is named alone is taken; among several there is nothing to choose by.
        if protocol.to_str().is_ok_and(|names| names.contains(',')) {
            return Err(Refusal::invalid("bad WebSocket Protocol"));
        }
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    Ok(answer)
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn converse(upgrade: OnUpgrade, text: bool, send: oneshot::Sender<Stream>) -> io::Result<()> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let _ = send.send((OwnedFd::from(theirs), Vec::new()));
    let (output, input) = tokio::io::split(UnixStream::from_std(ours)?);
    relay(socket, output, input, text).await.map_err(io::Error::other)
}

/// Passes on what each side says until one of them ends.
async fn relay(
    mut socket: Socket,
    mut output: ReadHalf<UnixStream>,
    mut input: WriteHalf<UnixStream>,
    text: bool,
) -> Result<(), Error> {
    let mut buffer = vec![0; FRAME];
    // The beginning of a character whose rest has not come.
    let mut begun = Vec::new();
    loop {
        tokio::select! {
            read = output.read(&mut buffer) => match read {
                Ok(count @ 1..) => {
                    let message = frame(&buffer[..count], text, &mut begun);
                    socket.send(message).await?;
                }
                Ok(0) | Err(_) => break,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => input.write_all(&bytes).await?,
                Some(Ok(Message::Text(words))) => input.write_all(words.as_bytes()).await?,
                // The library answers pings by itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => {
                    let _ = input.shutdown().await;
                    let _ = socket.close(None).await;
                    return Ok(());
                }
                Some(Err(error)) => {
                    let _ = input.shutdown().await;
                    return Err(error);
                }
            },
        }
    }
    if !begun.is_empty() {
        socket.send(Message::text(String::from_utf8_lossy(&begun).into_owned())).await?;
    }
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await?;
    // Gone without its answer, a client would see a broken connection.
    let answered = async { while let Some(Ok(_)) = socket.next().await {} };
    let _ = tokio::time::timeout(CLOSING, answered).await;
    Ok(())
}

/// Output as a message. Text must be whole characters; what is none is replaced.
fn frame(output: &[u8], text: bool, begun: &mut Vec<u8>) -> Message {
    if !text {
        return Message::binary(output.to_vec());
    }
    begun.extend_from_slice(output);
    let whole = match std::str::from_utf8(begun) {
        // Cut off within a character, which takes four bytes at most.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => begun.len(),
    };
    let rest = begun.split_off(whole);
    let whole = std::mem::replace(begun, rest);
    Message::text(String::from_utf8_lossy(&whole).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(pairs: &[(&'static str, &'static str)]) -> Result<String, String> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let answer = handshake(&headers.collect()).map_err(|refusal| refusal.message)?;
        Ok(answer.headers()["sec-websocket-accept"].to_str().unwrap().into())
    }

    #[test]
    fn handshakes() {
        // The example of RFC 6455, section 1.3.
        let good = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        assert_eq!(asked(&good).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (without, text) in [
            (0, "not websocket protocol"),
            (1, "not websocket protocol"),
            (2, "mismatch challenge/response"),
            (3, "missing or bad WebSocket Version"),
        ] {
            let mut odd = good.to_vec();
            odd.remove(without);
            assert_eq!(asked(&odd).unwrap_err(), text);
        }
    }

    proptest! {
        /// However output is cut, the text comes out whole, and nothing but part of a character is held back.
        #[test]
        fn text_survives_being_cut(words in "\\PC{0,40}", cuts in prop::collection::vec(0..200_usize, 0..6)) {
            let bytes = words.as_bytes();
            let mut places: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let (mut begun, mut all) = (Vec::new(), String::new());
            for pair in places.windows(2) {
                let message = frame(&bytes[pair[0]..pair[1]], true, &mut begun);
                all.push_str(message.to_text().unwrap());
                prop_assert!(begun.len() < 4);
            }
            prop_assert_eq!(all, words);
            prop_assert!(begun.is_empty());
        }

        #[test]
        fn whatever_comes_is_a_frame(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let mut begun = Vec::new();
            for piece in pieces {
                prop_assert!(frame(&piece, true, &mut begun).is_text());
                prop_assert!(begun.len() < 4);
                prop_assert_eq!(frame(&piece, false, &mut begun).into_data().to_vec(), piece);
            }
        }
    }
}
