//! Reads a download behind its front: what is not there yet is waited for. The bytes are hashed as they are read.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use oci::{Digest, Hasher};

use crate::board::Board;
use crate::download::Download;

struct State {
    at: u64,
    hasher: Hasher,
}

/// One reader of a download, from the beginning on. Clones go on where the others are.
#[derive(Clone)]
pub struct Follow {
    download: Arc<Download>,
    board: Board,
    state: Arc<Mutex<State>>,
    on_read: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Follow {
    /// `on_read` is told how far it is.
    pub fn new(
        download: Arc<Download>,
        board: Board,
        on_read: impl Fn(u64) + Send + Sync + 'static,
    ) -> Follow {
        let hasher = Hasher::new(download.digest().algorithm());
        let state = Arc::new(Mutex::new(State { at: 0, hasher }));
        Follow { download, board, state, on_read: Arc::new(on_read) }
    }

    /// Reads what is left and gives the digest of the whole.
    pub fn finish(mut self) -> io::Result<Digest> {
        let mut buffer = vec![0; 128 << 10];
        while self.read(&mut buffer)? > 0 {}
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let algorithm = self.download.digest().algorithm();
        Ok(std::mem::replace(&mut state.hasher, Hasher::new(algorithm)).finish())
    }
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let there = self.download.wait_for(state.at, &self.board)?;
        let count = usize::try_from(there - state.at).unwrap_or(usize::MAX).min(buffer.len());
        if count == 0 {
            return Ok(0);
        }
        let read = self.download.read_at(&mut buffer[..count], state.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.hasher.update(&buffer[..read]);
        state.at += read as u64;
        (self.on_read)(state.at);
        Ok(read)
    }
}
