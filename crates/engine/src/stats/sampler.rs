//! The thread that samples, and who watches what.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::Phase;
use model::create::Record;
use tokio::sync::watch;

use super::sample::{Host, Sample, Source};
use crate::container::Handle;

/// Between two samples of a container.
const INTERVAL: Duration = Duration::from_secs(1);

/// Owns the watched containers; the thread is there while there are some.
#[derive(Debug, Default)]
pub struct Sampler(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody watches a container that was not watched before.
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By ID.
    watched: HashMap<String, Arc<Watched>>,
    /// Those that the thread has not seen yet.
    fresh: Vec<Arc<Watched>>,
    has_thread: bool,
}

#[derive(Debug)]
struct Watched {
    id: String,
    handle: Handle,
    samples: watch::Sender<Option<Arc<Sample>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sampler {
    /// Watches a container until the receiver is dropped. One that is watched already has its last sample at once.
    pub fn watch(&self, handle: Handle) -> watch::Receiver<Option<Arc<Sample>>> {
        let mut state = self.0.lock();
        let id = handle.view().id().to_owned();
        if let Some(watched) = state.watched.get(&id) {
            let mut samples = watched.samples.subscribe();
            samples.mark_changed();
            return samples;
        }
        let (samples, receiver) = watch::channel(None);
        let watched = Arc::new(Watched { id: id.clone(), handle, samples });
        state.fresh.push(watched.clone());
        state.watched.insert(id, watched);
        if !std::mem::replace(&mut state.has_thread, true) {
            let shared = self.0.clone();
            let started = std::thread::Builder::new()
                .name("stats".into())
                .stack_size(256 << 10)
                .spawn(move || run(&shared));
            if let Err(error) = started {
                tracing::error!(%error, "cannot start the thread that samples containers");
                // Their streams end.
                *state = State::default();
            }
        }
        self.0.more.notify_one();
        receiver
    }

    /// The last sample of a watched container.
    pub fn last(&self, id: &str) -> Option<Arc<Sample>> {
        self.0.lock().watched.get(id)?.samples.borrow().clone()
    }
}

/// Samples until nobody watches.
fn run(shared: &Shared) {
    let mut rounds = Rounds::new();
    let mut next = Instant::now() + INTERVAL;
    loop {
        let now = Instant::now();
        let is_round = now >= next;
        let known = {
            let mut state = shared.lock();
            rounds.all.retain(|one| {
                let stays = one.watched.samples.receiver_count() > 0;
                if !stays {
                    state.watched.remove(&one.watched.id);
                }
                stays
            });
            let known = rounds.all.len();
            rounds.all.extend(state.fresh.drain(..).map(|watched| Followed {
                watched,
                open: None,
                removed: false,
            }));
            if rounds.all.is_empty() {
                state.has_thread = false;
                return;
            }
            known
        };
        if is_round {
            // A machine that slept or was busy is not caught up with.
            next = (next + INTERVAL).max(now + INTERVAL / 2);
        }
        let removed = rounds.sample(if is_round { 0 } else { known });
        let mut state = shared.lock();
        if removed {
            // With the last sender the streams of a removed container end.
            rounds.all.retain(|one| {
                if one.removed {
                    state.watched.remove(&one.watched.id);
                }
                !one.removed
            });
        }
        if state.fresh.is_empty() {
            let left = next.saturating_duration_since(Instant::now());
            drop(shared.more.wait_timeout(state, left));
        }
    }
}

/// Everything that the thread has.
struct Rounds {
    all: Vec<Followed>,
    /// How many may have their files open.
    open_max: usize,
    buffer: Vec<u8>,
}

struct Followed {
    watched: Arc<Watched>,
    open: Option<Open>,
    /// The container is.
    removed: bool,
}

/// Open files of a container.
struct Open {
    source: Source,
    /// As it was when its limits were read; an update makes a new one.
    record: Arc<Record>,
}

impl Rounds {
    fn new() -> Rounds {
        // Half of what the daemon may open: the rest is for its clients and their containers.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
        let open_max = usize::try_from(limit / 2).unwrap_or(usize::MAX) / Source::FILES_MAX;
        Rounds { all: Vec::new(), open_max, buffer: Vec::new() }
    }

    /// Samples all from one on, and sends the samples. Whether one was found to be removed.
    fn sample(&mut self, from: usize) -> bool {
        if from == self.all.len() {
            return false;
        }
        let host = Host::read();
        let mut room = self.open_max.saturating_sub(self.all.iter().filter(|one| one.open.is_some()).count());
        let all = &mut self.all[from..];
        let samples: Vec<_> =
            all.iter_mut().map(|one| one.sample(&host, &mut room, &mut self.buffer)).collect();
        let mut removed = false;
        // All at once: who is woken finds the next one's work waiting, and need not be woken again.
        for (one, sample) in all.iter_mut().zip(samples) {
            match sample {
                Some(sample) => drop(one.watched.samples.send_replace(Some(Arc::new(sample)))),
                None => (one.removed, removed) = (true, true),
            }
        }
        removed
    }
}

impl Followed {
    /// None if the container is removed. `room`: how many may still open their files.
    fn sample(&mut self, host: &Host, room: &mut usize, buffer: &mut Vec<u8>) -> Option<Sample> {
        let view = self.watched.handle.view();
        if view.removed {
            return None;
        }
        let Phase::Running { pid, .. } = view.phase else {
            self.close(room);
            return Some(Sample::empty());
        };
        if let Some(open) = &mut self.open
            && open.source.pid == pid
        {
            if !Arc::ptr_eq(&open.record, &view.record) {
                open.record = view.record.clone();
                open.source.gauge.refresh();
            }
            return Some(Sample::read(&mut open.source, host, buffer));
        }
        self.close(room);
        // It may have ended since.
        let Some(mut source) = super::source(&view, host) else { return Some(Sample::empty()) };
        let sample = Sample::read(&mut source, host, buffer);
        if *room > 0 {
            *room -= 1;
            self.open = Some(Open { source, record: view.record.clone() });
        }
        Some(sample)
    }

    fn close(&mut self, room: &mut usize) {
        *room += usize::from(self.open.take().is_some());
    }
}
