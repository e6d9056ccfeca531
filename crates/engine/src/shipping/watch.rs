//! Watches the folders of many logs through one descriptor.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, ReadFlags};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

/// Bytes of an event without its name: watch, mask, cookie and the name's length.
const EVENT: usize = 16;

type Watched = Arc<Mutex<HashMap<i32, Arc<Notify>>>>;

/// One inotify instance and the task that reads it. A host has few instances, and there may be many logs.
#[derive(Debug)]
pub struct Watcher {
    descriptor: Arc<pipe::Receiver>,
    watched: Watched,
    reading: tokio::task::JoinHandle<()>,
}

/// A watched folder, for as long as this lives.
#[derive(Debug)]
pub struct Watch {
    descriptor: Arc<pipe::Receiver>,
    watched: Watched,
    number: i32,
}

impl Watcher {
    pub fn new() -> io::Result<Watcher> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        // Any descriptor that epoll takes and that is read in bytes may be such a "pipe" end.
        let descriptor = Arc::new(pipe::Receiver::from_owned_fd_unchecked(inotify::init(flags)?)?);
        let watched = Watched::default();
        let reading = tokio::spawn(read(descriptor.clone(), watched.clone()));
        Ok(Watcher { descriptor, watched, reading })
    }

    /// Wakes `notify` whenever something in the folder is written, made or moved.
    pub fn watch(&self, folder: &Path, notify: Arc<Notify>) -> io::Result<Watch> {
        let changes =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        // Under the lock, so that no event finds the number unknown.
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inotify::add_watch(&*self.descriptor, folder, changes)?;
        watched.insert(number, notify);
        Ok(Watch { descriptor: self.descriptor.clone(), watched: self.watched.clone(), number })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        // The folder may be gone already, and the watch with it.
        let _ = inotify::remove_watch(&*self.descriptor, self.number);
    }
}

async fn read(descriptor: Arc<pipe::Receiver>, watched: Watched) {
    let mut buffer = [0; 4096];
    loop {
        if descriptor.readable().await.is_err() {
            return;
        }
        while let Ok(count) = descriptor.try_read(&mut buffer) {
            wake_all(&watched, &buffer[..count]);
        }
    }
}

/// Reads events as inotify(7) lays them out.
fn wake_all(watched: &Watched, mut events: &[u8]) {
    while let Some((event, rest)) = events.split_at_checked(EVENT) {
        let word = |at: usize| u32::from_ne_bytes([event[at], event[at + 1], event[at + 2], event[at + 3]]);
        wake(watched, word(0).cast_signed(), ReadFlags::from_bits_retain(word(4)));
        events = rest.get(word(12) as usize..).unwrap_or_default();
    }
}

fn wake(watched: &Watched, number: i32, events: ReadFlags) {
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    if events.contains(ReadFlags::QUEUE_OVERFLOW) {
        // Nobody knows whose events were lost.
        watched.values().for_each(|notify| notify.notify_one());
    } else if let Some(notify) = watched.get(&number) {
        notify.notify_one();
    }
}
