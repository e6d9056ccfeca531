//! One blob on its way from the content store to a registry, compressed on the way where it is not.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use oci::{Algorithm, Digest, Hasher};
use registry::{Mounted, Repository, Upload};
use tokio::sync::mpsc;

use crate::Error;
use crate::board::Board;

const PIECE_BYTES: usize = 256 << 10;
/// Pieces that may wait for the network.
const AHEAD: usize = 4;
/// Tries of one blob.
const ATTEMPTS: u32 = 5;

/// Where a blob's bytes come from.
#[derive(Clone)]
pub struct Source {
    pub content: Arc<content::Store>,
    pub blob: Digest,
    /// Bytes of it in the store.
    pub size: u64,
    /// To be compressed with so many threads.
    pub compress: Option<usize>,
    pub board: Board,
    /// What it is called on the board; empty if it is not told.
    pub id: String,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub digest: Digest,
    pub size: u64,
}

impl Source {
    /// Writes the blob's bytes from `skip` on to a channel, and tells what the whole is; blocks.
    fn produce(&self, skip: u64, pieces: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<Sent> {
        let file = self.content.open_blob(&self.blob).map_err(io::Error::other)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut sent = 0u64;
        let mut emit = |piece: Vec<u8>| {
            hasher.update(&piece);
            let end = sent + piece.len() as u64;
            let from = usize::try_from(skip.saturating_sub(sent)).unwrap_or(usize::MAX).min(piece.len());
            sent = end;
            let piece = Bytes::from(piece).slice(from..);
            if piece.is_empty() {
                return Ok(());
            }
            pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
        };
        let read = Counting { inner: file, read: 0, source: self };
        match self.compress {
            Some(threads) => archive::gzip(read, threads, emit)?,
            None => {
                let mut read = read;
                loop {
                    let mut piece = Vec::with_capacity(PIECE_BYTES);
                    if read.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)? == 0 {
                        break;
                    }
                    emit(piece)?;
                }
            }
        }
        Ok(Sent { digest: hasher.finish(), size: sent })
    }
}

/// Tells how far it is.
struct Counting<'a, R> {
    inner: R,
    read: u64,
    source: &'a Source,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Source { board, id, size, .. } = self.source;
        if board.is_cancelled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        // Small documents go without a word.
        if !id.is_empty() {
            board.progress(id, "Pushing", self.read, *size);
        }
        Ok(count)
    }
}

/// Sends a blob. What breaks off goes on where the registry says that it is.
pub async fn send(repository: &Repository, source: &Source) -> Result<Sent, Error> {
    let mut upload = match repository.start_upload(None).await? {
        Mounted::No(upload) => upload,
        Mounted::Yes => return Err(Error::Internal("an upload became a mount".into())),
    };
    let mut attempt = 1;
    loop {
        let error = match go_on(repository, source, &mut upload).await {
            Ok(sent) => {
                repository.finish_upload(upload, &sent.digest).await?;
                return Ok(sent);
            }
            Err(error) => error,
        };
        let passing = matches!(&error, Error::Registry(error) if error.is_passing());
        if attempt == ATTEMPTS || !passing || source.board.is_cancelled() {
            repository.cancel_upload(upload).await;
            return Err(error);
        }
        tracing::info!(%error, blob = %source.blob, attempt, "an upload broke off");
        tokio::time::sleep(Duration::from_millis(250) * 2u32.pow(attempt)).await;
        attempt += 1;
        if repository.find_upload(&mut upload).await.is_err() {
            // The registry has forgotten it.
            if let Mounted::No(anew) = repository.start_upload(None).await? {
                upload = anew;
            }
        }
    }
}

async fn go_on(repository: &Repository, source: &Source, upload: &mut Upload) -> Result<Sent, Error> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let skip = upload.sent;
    let outcome: Arc<Mutex<Option<io::Result<Sent>>>> = Arc::default();
    let producer = tokio::task::spawn_blocking({
        let (source, outcome) = (source.clone(), Arc::clone(&outcome));
        move || {
            let produced = source.produce(skip, &sender);
            if let Err(error) = &produced {
                // A body that ends too early would be taken for whole.
                let _ = sender.blocking_send(Err(io::Error::new(error.kind(), error.to_string())));
            }
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(produced);
        }
    });
    let pieces = unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece: io::Result<Bytes>| (piece, receiver))
    });
    let length = source.compress.is_none().then(|| source.size.saturating_sub(skip));
    let sent = repository.send_bytes(upload, pieces, length).await;
    producer.await.map_err(|error| Error::Internal(error.to_string()))?;
    let produced = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (sent, produced) {
        (_, Some(Err(_))) if source.board.is_cancelled() => Err(Error::Cancelled),
        (Err(error), _) => Err(error.into()),
        (Ok(()), Some(Ok(sent))) => {
            upload.sent = sent.size;
            Ok(sent)
        }
        (Ok(()), Some(Err(source))) => Err(Error::Io { operation: "read a layer", source }),
        (Ok(()), None) => Err(Error::Internal("nobody produced the layer".into())),
    }
}
