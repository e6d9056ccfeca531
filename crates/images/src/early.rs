//! Layers of an archive that is still being read. Which of its files are layers, and of what, may only be told by the
//! last one. But a file that looks like an archive mostly is a layer: it is unpacked at once, while the rest is read,
//! and kept by its digest until somebody asks for it. Nobody relies on what was guessed here: who does not get a layer by
//! this way unpacks it when its turn comes, and tells what is wrong with it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use archive::Compression;
use content::Ingested;
use oci::{Algorithm, Digest};
use snapshots::Form;

use crate::{Ahead, Error, Images};

/// Files that are unpacked at once. Each has a thread more, which decompresses.
const WORKERS: usize = 3;
/// Where a plain archive's first header says that it is one, and how.
const MAGIC: (usize, &[u8]) = (257, b"ustar");

/// A file that has been read whole, and what has come of it.
enum Stage {
    Waiting,
    /// Unpacked, with the diff ID that it has.
    Done(Digest, Ahead),
    /// It is no layer, or one that has to wait for those below it.
    Left,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Digest, File)>,
    stages: HashMap<Digest, Stage>,
    ended: bool,
}

/// The files of one archive.
pub struct Early<'a> {
    images: &'a Images,
    state: Mutex<State>,
    changed: Condvar,
}

impl<'a> Early<'a> {
    /// Lets `read` offer files and ask for them, while they are unpacked.
    pub fn run<T>(images: &'a Images, read: impl FnOnce(&Early<'a>) -> T) -> T {
        let early = Early { images, state: Mutex::default(), changed: Condvar::new() };
        std::thread::scope(|scope| {
            let end = End(&early);
            // Whole trees can only be unpacked onto those below them.
            if images.snapshots.form() == Form::Difference {
                for _ in 0..WORKERS {
                    scope.spawn(|| early.work());
                }
            }
            let read = read(&early);
            drop(end);
            read
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a file that is there whole. One that looks like no layer is left alone, and so is one that came before.
    pub fn offer(&self, file: &Ingested<'_>) -> Result<(), Error> {
        let digest = &file.blob().digest;
        if self.images.snapshots.form() != Form::Difference || self.images.content.contains(digest) {
            return Ok(());
        }
        let opened = file.open()?;
        let mut head = [0; 512];
        let count = opened
            .read_at(&mut head, 0)
            .map_err(|source| Error::Io { operation: "read the archive's copy", source })?;
        let looks_like_layer = looks_like_layer(&head[..count]);
        let mut state = self.lock();
        if looks_like_layer && !state.stages.contains_key(digest) {
            state.stages.insert(digest.clone(), Stage::Waiting);
            state.queue.push_back((digest.clone(), opened));
            self.changed.notify_all();
        }
        Ok(())
    }

    pub fn has_image(&self, id: &Digest) -> bool {
        self.images.get(id).is_some()
    }

    /// Unpacks a file that looks like a layer while it is read for the first time. It may not be read to its end.
    pub fn unpack_if_layer(&self, head: &[u8], stream: impl Read + Send) -> Option<(Digest, Ahead)> {
        let can_be = self.images.snapshots.form() == Form::Difference && looks_like_layer(head);
        let unpacked = can_be.then(|| self.images.layers().unpack_unplaced(stream, Algorithm::Sha256));
        unpacked?.ok()
    }

    /// Keeps what [`Early::unpack_if_layer`] has given for who asks for it.
    pub fn keep(&self, blob: &Digest, (diff_id, ahead): (Digest, Ahead)) {
        self.lock().stages.insert(blob.clone(), Stage::Done(diff_id, ahead));
    }

    /// Waits for what comes of a file: the diff ID it has, and what was unpacked. Once for each.
    pub fn take(&self, blob: &Digest) -> Option<(Digest, Ahead)> {
        let mut state = self.lock();
        while let Some(Stage::Waiting) = state.stages.get(blob) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.stages.insert(blob.clone(), Stage::Left) {
            Some(Stage::Done(diff_id, ahead)) => Some((diff_id, ahead)),
            _ => None,
        }
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let (digest, file) = loop {
                if state.ended {
                    return;
                }
                match state.queue.pop_front() {
                    Some(next) => break next,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            let mut end = Unpacked { early: self, digest, stage: Some(Stage::Left) };
            if let Ok((diff_id, ahead)) = self.unpack(&file) {
                end.stage = Some(Stage::Done(diff_id, ahead));
            }
            // Whoever gives it its name sees to that in any case, one after the other; here, others go on meanwhile.
            let _ = rustix::fs::fdatasync(&file);
            drop(end);
        }
    }

    fn unpack(&self, file: &File) -> Result<(Digest, Ahead), Error> {
        let wanted = Wanted { inner: file, early: self };
        self.images.layers().unpack_unplaced(wanted, Algorithm::Sha256)
    }
}

fn looks_like_layer(head: &[u8]) -> bool {
    match Compression::peek(head) {
        Ok((Compression::None, _)) => head.get(MAGIC.0..).is_some_and(|rest| rest.starts_with(MAGIC.1)),
        found => found.is_ok(),
    }
}

/// Whatever comes of a file, nobody waits for it any longer.
struct Unpacked<'a, 'b> {
    early: &'a Early<'b>,
    digest: Digest,
    stage: Option<Stage>,
}

impl Drop for Unpacked<'_, '_> {
    fn drop(&mut self) {
        let stage = self.stage.take().unwrap_or(Stage::Left);
        self.early.lock().stages.insert(self.digest.clone(), stage);
        self.early.changed.notify_all();
    }
}

/// The end of the archive: what nobody has asked for until then is not wanted.
struct End<'a, 'b>(&'a Early<'b>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// A file, as long as somebody may still ask for it.
struct Wanted<'a, 'b> {
    inner: &'a File,
    early: &'a Early<'b>,
}

impl Read for Wanted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.early.lock().ended {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.inner.read(buffer)
    }
}
