//! Bodies that blocking code writes: progress messages and archives.

use std::io::{self, Write};

use api_types::{ErrorDetail, ProgressMessage};
use bytes::Bytes;
use futures_util::Stream;
use model::Refusal;
use tokio::sync::mpsc;

/// Pieces that may wait for a slow client.
const AHEAD: usize = 8;
/// Bytes of a body that are gathered before they are sent on; a larger block would be asked of the kernel, cleared and
/// given back each time.
pub const PIECE: usize = 112 << 10;

/// The writing end of a body, for blocking code. What is written after the client left is an error.
pub struct Pipe {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
    /// A whole piece has been sent: there is much to come.
    sent: bool,
}

/// A body and the end that fills it.
pub fn pipe() -> (Pipe, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
    let (send, receive) = mpsc::channel(AHEAD);
    (Pipe { pieces: send, gathered: Vec::new(), sent: false }, received(receive))
}

/// A channel as a stream.
pub fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

/// Progress messages, which a body consists of.
pub trait Messages: Write {
    /// Sends one.
    fn message(&mut self, message: &ProgressMessage) -> io::Result<()> {
        let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
        line.extend_from_slice(b"\r\n");
        self.write_all(&line)?;
        self.flush()
    }

    /// Sends an error as the last message of a stream that has begun.
    fn fail(&mut self, code: i64, refusal: &Refusal) {
        let message = ProgressMessage {
            error_detail: Some(ErrorDetail { code, message: refusal.message.clone() }),
            error: Some(refusal.message.clone()),
            ..ProgressMessage::default()
        };
        let _ = self.message(&message);
    }
}

impl<W: Write> Messages for W {}

impl Pipe {
    /// Breaks the body off, so that the client sees that it is not whole.
    pub fn abort(&mut self, refusal: &Refusal) {
        let _ = self.pieces.blocking_send(Err(io::Error::other(refusal.message.clone())));
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.sent && self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(PIECE);
        }
        let count = bytes.len().min(PIECE - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        if self.gathered.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.sent |= self.gathered.len() == PIECE;
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
