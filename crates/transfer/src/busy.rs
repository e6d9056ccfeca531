//! Who works on which blob: two never fetch the same one.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use oci::Digest;

use crate::Error;
use crate::board::Board;
use crate::wait::LOOK;

#[derive(Debug, Default)]
pub struct Busy {
    blobs: Mutex<HashSet<Digest>>,
    freed: Condvar,
}

/// A blob is taken until this is dropped.
#[derive(Debug)]
pub struct Taken<'a> {
    busy: &'a Busy,
    digest: Digest,
}

impl Busy {
    /// Takes a blob; blocks while somebody else has it. `on_wait` is told once if that is so.
    pub fn take(&self, digest: &Digest, board: &Board, on_wait: impl FnOnce()) -> Result<Taken<'_>, Error> {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut on_wait = Some(on_wait);
        while blobs.contains(digest) {
            if let Some(on_wait) = on_wait.take() {
                on_wait();
            }
            if board.is_cancelled() {
                return Err(Error::Cancelled);
            }
            blobs = self.freed.wait_timeout(blobs, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        blobs.insert(digest.clone());
        Ok(Taken { busy: self, digest: digest.clone() })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.busy.blobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
        self.busy.freed.notify_all();
    }
}
