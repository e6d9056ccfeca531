//! One blob on its way from a registry to the disk, over one connection or several.
//!
//! The blob is cut into segments. Whoever has a connection takes the lowest one that nobody has, so that the front of
//! what is there from the beginning on moves steadily. What breaks goes back and is taken again.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use content::Partial;
use oci::Digest;
use registry::Repository;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::board::Board;
use crate::wait::{LOOK, while_wanted};

/// Bytes that one request asks for, of a blob that is large enough to be worth several.
const SEGMENT_BYTES: u64 = 16 << 20;
const LARGE_BYTES: u64 = 2 * SEGMENT_BYTES;
/// Connections for one blob.
const CONNECTIONS_MAX: usize = 3;

/// Parts that are there: sorted, apart from each other.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Parts(Vec<Range<u64>>);

impl Parts {
    fn add(&mut self, part: Range<u64>) {
        if part.is_empty() {
            return;
        }
        let from = self.0.partition_point(|known| known.end < part.start);
        let to = self.0.partition_point(|known| known.start <= part.end);
        let mut merged = part;
        for known in &self.0[from..to] {
            merged = merged.start.min(known.start)..merged.end.max(known.end);
        }
        self.0.splice(from..to, [merged]);
    }

    /// Bytes that are there from the beginning on.
    fn front(&self) -> u64 {
        self.0.first().filter(|first| first.start == 0).map_or(0, |first| first.end)
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|part| part.end - part.start).sum()
    }

    /// What is missing of `0..size`, in pieces of at most `step`; lowest first.
    fn missing(&self, size: u64, step: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for part in self.0.iter().chain([&(size..size)]) {
            while at < part.start {
                let end = part.start.min(at.saturating_add(step));
                gaps.push(at..end);
                at = end;
            }
            at = at.max(part.end);
        }
        gaps
    }
}

#[derive(Debug, Default)]
struct State {
    there: Parts,
    /// Segments that nobody has taken; the lowest is the last.
    free: Vec<Range<u64>>,
    /// The registry sends everything whatever is asked for: one connection does it all.
    whole_only: bool,
    failed: Option<registry::Error>,
    cancelled: bool,
    /// The blob was not begun here: what is there may be damaged.
    resumed: bool,
}

/// A blob on its way.
pub struct Download {
    partial: Partial,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a download is told and tells.
#[derive(Clone)]
pub struct Fetching {
    pub repository: Arc<Repository>,
    pub runtime: Handle,
    pub permits: Arc<Semaphore>,
    pub attempts: u32,
    pub board: Board,
    /// What the blob is called on the board.
    pub id: String,
}

enum Broken {
    Cancelled,
    Registry(registry::Error),
    Disk(io::Error),
}

impl From<registry::Error> for Broken {
    fn from(error: registry::Error) -> Broken {
        Broken::Registry(error)
    }
}

impl Download {
    pub fn new(partial: Partial) -> Result<Download, content::Error> {
        let mut there = Parts::default();
        for part in partial.present()? {
            there.add(part);
        }
        let mut state = State { resumed: there.total() > 0, ..State::default() };
        let size = partial.size();
        let step = if size > LARGE_BYTES { SEGMENT_BYTES } else { u64::MAX };
        state.free = there.missing(size, step);
        state.free.reverse();
        state.there = there;
        Ok(Download { partial, state: Mutex::new(state), changed: Condvar::new() })
    }

    pub fn digest(&self) -> &Digest {
        self.partial.digest()
    }

    pub fn size(&self) -> u64 {
        self.partial.size()
    }

    /// Whether some of it was there before.
    pub fn was_resumed(&self) -> bool {
        self.lock().resumed
    }

    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        self.lock().there.front() >= self.size()
    }

    /// Why it will not go on. It is cancelled from then on.
    pub fn take_failure(&self) -> Option<registry::Error> {
        let mut state = self.lock();
        state.cancelled = true;
        state.failed.take()
    }

    /// Brings what has come to the disk. Nobody may write any more.
    pub fn sync(&self) -> Result<(), content::Error> {
        self.partial.sync()
    }

    pub fn into_partial(self) -> Partial {
        self.partial
    }

    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.partial.read_at(buffer, offset)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is more than `at`, or the end is there. Gives how far it is there.
    pub fn wait_for(&self, at: u64, board: &Board) -> io::Result<u64> {
        let mut state = self.lock();
        loop {
            let front = state.there.front();
            if front > at || front >= self.size() {
                return Ok(front);
            }
            if state.failed.is_some() || state.cancelled || board.is_cancelled() {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download ended"));
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends it; what has come stays.
    pub fn cancel(&self) {
        self.lock().cancelled = true;
        self.changed.notify_all();
    }

    /// Fetches what is missing; blocks until it is there or will not come. What comes of it is for [`Download::is_whole`]
    /// and [`Download::take_failure`] to say.
    pub fn run(self: &Arc<Self>, fetching: &Fetching) {
        // Who waits for it is told also if this panics.
        let _end = End(self);
        let mut attempt = 0;
        let mut helpers = 0;
        while !self.is_whole() {
            let before = self.lock().there.total();
            let Some(permit) = self.permit(fetching) else { break };
            let taken = self.take(true);
            let outcome = match taken {
                Some(segment) => {
                    while helpers + 1 < CONNECTIONS_MAX && self.start_helper(fetching) {
                        helpers += 1;
                    }
                    self.fetch(fetching, segment)
                }
                None => {
                    drop(permit);
                    self.wait_for_others(fetching);
                    continue;
                }
            };
            drop(permit);
            let error = match outcome {
                Ok(()) => {
                    attempt = 0;
                    continue;
                }
                Err(Broken::Cancelled) => break,
                Err(Broken::Registry(error)) => error,
                Err(Broken::Disk(error)) => {
                    self.fail(registry::Error::File { path: "the download".into(), what: error.to_string() });
                    break;
                }
            };
            attempt = if self.lock().there.total() > before { 1 } else { attempt + 1 };
            if attempt >= fetching.attempts || !error.is_passing() {
                self.fail(error);
                break;
            }
            tracing::info!(%error, blob = %self.digest(), attempt, "a download broke off");
            if !self.pause(fetching, attempt) {
                break;
            }
        }
    }

    fn fail(&self, error: registry::Error) {
        self.lock().failed = Some(error);
        self.changed.notify_all();
    }

    /// Waits for a connection's turn. None if nobody wants it any more.
    fn permit(&self, fetching: &Fetching) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = fetching.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        fetching.board.step(&fetching.id, "Waiting");
        loop {
            let permits = Arc::clone(&fetching.permits);
            // Timers are made where the runtime is.
            let turn = fetching
                .runtime
                .block_on(async { tokio::time::timeout(LOOK, permits.acquire_owned()).await });
            if let Ok(permit) = turn {
                return permit.ok();
            }
            if self.is_unwanted(fetching) {
                return None;
            }
        }
    }

    fn is_unwanted(&self, fetching: &Fetching) -> bool {
        fetching.board.is_cancelled() || self.lock().cancelled
    }

    /// The lowest segment that nobody has.
    fn take(&self, is_main: bool) -> Option<Range<u64>> {
        let mut state = self.lock();
        if state.whole_only && !is_main || state.failed.is_some() || state.cancelled {
            return None;
        }
        state.free.pop()
    }

    /// Gives back what is missing of a segment.
    fn give_back(&self, rest: Range<u64>) {
        if rest.is_empty() {
            return;
        }
        let mut state = self.lock();
        let at = state.free.partition_point(|other| other.start > rest.start);
        state.free.insert(at, rest);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until a segment comes free or all is there.
    fn wait_for_others(&self, fetching: &Fetching) {
        let mut state = self.lock();
        while state.free.is_empty() && state.there.front() < self.size() && !state.cancelled {
            if fetching.board.is_cancelled() {
                state.cancelled = true;
                return;
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts another connection, if there is work for one and the daemon may have one more.
    fn start_helper(self: &Arc<Self>, fetching: &Fetching) -> bool {
        {
            let state = self.lock();
            if state.free.is_empty() || state.whole_only {
                return false;
            }
        }
        let Ok(permit) = fetching.permits.clone().try_acquire_owned() else { return false };
        let (download, fetching) = (Arc::clone(self), fetching.clone());
        fetching.runtime.clone().spawn_blocking(move || {
            let _permit = permit;
            while let Some(segment) = download.take(false) {
                // Whatever went wrong goes wrong for the first connection as well, which tells it.
                if download.fetch(&fetching, segment).is_err() {
                    break;
                }
            }
        });
        true
    }

    /// Waits before another try. False if nobody wants one.
    fn pause(&self, fetching: &Fetching, attempt: u32) -> bool {
        let until = Instant::now() + Duration::from_secs(1 << (attempt - 1).min(5));
        let mut told = u64::MAX;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if self.is_unwanted(fetching) {
                return false;
            }
            let seconds = left.as_secs() + 1;
            if seconds != told {
                let unit = if seconds == 1 { "second" } else { "seconds" };
                fetching.board.step(&fetching.id, format!("Retrying in {seconds} {unit}"));
                told = seconds;
            }
            std::thread::sleep(left.min(LOOK));
        }
        true
    }

    /// Fetches one segment; what does not come of it is given back.
    fn fetch(&self, fetching: &Fetching, mut segment: Range<u64>) -> Result<(), Broken> {
        let outcome = self.fetch_segment(fetching, &mut segment);
        if outcome.is_err() {
            self.give_back(segment);
        }
        outcome
    }

    /// `segment` is what is still missing of it.
    fn fetch_segment(&self, fetching: &Fetching, segment: &mut Range<u64>) -> Result<(), Broken> {
        let whole = segment.start == 0 && segment.end == self.size();
        let end = (!whole).then_some(segment.end);
        let asked = fetching.repository.blob(self.digest(), segment.start, end);
        let mut stream = self.while_wanted(fetching, asked)?;
        let mut at = stream.start;
        let mut unbounded = false;
        if !whole && !stream.is_partial() {
            // It knows no ranges: this connection goes on to the end, over what others do not take any more.
            self.lock().whole_only = true;
            unbounded = true;
        }
        let surplus = || {
            let what = format!("more than {} bytes come of the blob {}", self.size(), self.digest());
            registry::Error::Answer { url: fetching.repository.name().to_owned(), what }
        };
        while let Some(bytes) = self.while_wanted(fetching, stream.next())? {
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                // A registry without ranges begins at the beginning again.
                let skipped =
                    usize::try_from(segment.start.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[skipped..];
                at += skipped as u64;
                if at >= segment.end && unbounded {
                    match self.take(true) {
                        Some(next) => *segment = next,
                        None if at >= self.size() && !bytes.is_empty() => return Err(surplus().into()),
                        // The rest is there already.
                        None => return Ok(()),
                    }
                    continue;
                }
                if at >= segment.end && !bytes.is_empty() {
                    return Err(surplus().into());
                }
                let room = usize::try_from(segment.end - at).unwrap_or(usize::MAX).min(bytes.len());
                self.store(fetching, &bytes[..room], at)?;
                at += room as u64;
                segment.start = at;
                bytes = &bytes[room..];
            }
        }
        if at < segment.end {
            return Err(Broken::Registry(registry::Error::Connection {
                method: "Get".into(),
                url: format!("{}/blobs/{}", fetching.repository.name(), self.digest()),
                reason: format!("unexpected EOF after {at} bytes of {}", segment.end),
                established: true,
            }));
        }
        Ok(())
    }

    /// Waits for the network, but not for longer than the download is wanted.
    fn while_wanted<T>(
        &self,
        fetching: &Fetching,
        wait: impl Future<Output = Result<T, registry::Error>>,
    ) -> Result<T, Broken> {
        let is_wanted = || !self.is_unwanted(fetching);
        let waited = while_wanted(&fetching.runtime, is_wanted, wait);
        Ok(waited.ok_or(Broken::Cancelled)??)
    }

    fn store(&self, fetching: &Fetching, bytes: &[u8], at: u64) -> Result<(), Broken> {
        self.partial.write_at(bytes, at).map_err(Broken::Disk)?;
        let total = {
            let mut state = self.lock();
            state.there.add(at..at + bytes.len() as u64);
            state.there.total()
        };
        self.changed.notify_all();
        fetching.board.progress(&fetching.id, "Downloading", total, self.size());
        Ok(())
    }
}

/// The end of a download, whatever brought it.
struct End<'a>(&'a Download);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !self.0.is_whole() && self.0.lock().failed.is_none() {
            self.0.cancel();
        }
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_are_what_was_added(adds in proptest::collection::vec((0u64..60, 0u64..20), 0..20), step in 1u64..30) {
            let mut parts = Parts::default();
            let mut model = [false; 80];
            for (start, length) in adds {
                parts.add(start..start + length);
                model[start as usize..(start + length) as usize].fill(true);
            }
            let size = model.len() as u64;
            let front = model.iter().position(|there| !there).unwrap_or(model.len());
            prop_assert_eq!(parts.front(), front as u64);
            prop_assert_eq!(parts.total(), model.iter().filter(|there| **there).count() as u64);
            prop_assert!(parts.0.windows(2).all(|two| two[0].end < two[1].start));
            for gap in parts.missing(size, step) {
                prop_assert!(gap.end - gap.start <= step);
                for at in gap {
                    prop_assert!(!std::mem::replace(&mut model[at as usize], true));
                }
            }
            prop_assert!(model.iter().all(|there| *there));
        }
    }
}
