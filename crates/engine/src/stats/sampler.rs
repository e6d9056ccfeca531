//! The thread that samples, and who watches what.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::Phase;
use model::create::Record;
use tokio::sync::watch;

use super::sample::{Cables, Host, Sample, Source};
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
    watched: HashMap<String, Watched>,
    /// Not sampled yet.
    fresh: Vec<String>,
    has_thread: bool,
}

#[derive(Debug)]
struct Watched {
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
        state.fresh.push(id.clone());
        state.watched.insert(id, Watched { handle, samples });
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
    let mut sources = Sources::new();
    let mut next = Instant::now() + INTERVAL;
    let mut text = Vec::new();
    loop {
        let now = Instant::now();
        let is_round = now >= next;
        let due: Vec<(String, Handle, watch::Sender<_>)> = {
            let mut state = shared.lock();
            state.watched.retain(|_, watched| watched.samples.receiver_count() > 0);
            if state.watched.is_empty() {
                state.has_thread = false;
                return;
            }
            let entry = |id: &String, watched: &Watched| {
                (id.clone(), watched.handle.clone(), watched.samples.clone())
            };
            if is_round {
                // A machine that slept or was busy is not caught up with.
                next = (next + INTERVAL).max(now + INTERVAL / 2);
                state.fresh.clear();
                sources.retain(&state.watched);
                state.watched.iter().map(|(id, watched)| entry(id, watched)).collect()
            } else {
                let fresh = std::mem::take(&mut state.fresh);
                fresh.iter().filter_map(|id| Some(entry(id, state.watched.get(id)?))).collect()
            }
        };
        if !due.is_empty() {
            let host = Host::read();
            let cables = if is_round { sources.cables(&mut text) } else { Cables::default() };
            let mut removed = Vec::new();
            let mut done = Vec::with_capacity(due.len());
            for (id, handle, samples) in due {
                match sources.sample(&id, &handle, &host, &cables) {
                    Some(sample) => done.push((samples, Arc::new(sample))),
                    None => removed.push(id),
                }
            }
            // All at once: who is woken finds the next one's work waiting, and need not be woken again.
            for (samples, sample) in done {
                samples.send_replace(Some(sample));
            }
            // With the last sender the streams of a removed container end.
            let mut state = shared.lock();
            removed.iter().for_each(|id| drop(state.watched.remove(id)));
        }
        let state = shared.lock();
        if state.fresh.is_empty() {
            let left = next.saturating_duration_since(Instant::now());
            drop(shared.more.wait_timeout(state, left));
        }
    }
}

/// Open files of containers, by ID.
struct Sources {
    open: HashMap<String, Open>,
    /// How many may be open.
    open_max: usize,
    /// Samplings until it is found out again whether the host's interfaces are worth a look.
    cables_after: u32,
    buffer: Vec<u8>,
}

/// The host's interfaces are not looked at if there are more than so many for each container that is watched.
const INTERFACES_EACH: usize = 4;
/// Samplings until it is found out again whether they are.
const CABLES_AGAIN: u32 = 60;

struct Open {
    source: Source,
    /// As it was when its limits were read; an update makes a new one.
    record: Arc<Record>,
}

impl Sources {
    fn new() -> Sources {
        // Half of what the daemon may open: the rest is for its clients and their containers.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
        let open_max = usize::try_from(limit / 2).unwrap_or(usize::MAX) / Source::FILES_MAX;
        Sources { open: HashMap::new(), open_max, cables_after: 0, buffer: Vec::new() }
    }

    /// Closes the files of containers that nobody watches.
    fn retain(&mut self, watched: &HashMap<String, Watched>) {
        self.open.retain(|id, _| watched.contains_key(id));
    }

    /// What has passed on the host's interfaces; nothing if that would cost more than it saves.
    fn cables<'t>(&mut self, text: &'t mut Vec<u8>) -> Cables<'t> {
        let with_cable = self.open.values().filter(|open| open.source.has_cable()).count();
        self.cables_after = self.cables_after.saturating_sub(1);
        if self.cables_after > 0 || with_cable == 0 {
            return Cables::default();
        }
        let cables = Cables::read(text);
        if cables.len() > with_cable * INTERFACES_EACH {
            self.cables_after = CABLES_AGAIN;
        }
        cables
    }

    /// None if the container is removed.
    fn sample(&mut self, id: &str, handle: &Handle, host: &Host, cables: &Cables<'_>) -> Option<Sample> {
        let view = handle.view();
        if view.removed {
            return None;
        }
        let Phase::Running { pid, .. } = view.phase else {
            self.open.remove(id);
            return Some(Sample::empty());
        };
        if let Some(open) = self.open.get_mut(id)
            && open.source.pid == pid
        {
            if !Arc::ptr_eq(&open.record, &view.record) {
                open.record = view.record.clone();
                open.source.gauge.refresh();
            }
            return Some(Sample::read(&mut open.source, host, cables, &mut self.buffer));
        }
        self.open.remove(id);
        // It may have ended since.
        let Some(mut source) = super::source(&view, host) else { return Some(Sample::empty()) };
        let sample = Sample::read(&mut source, host, cables, &mut self.buffer);
        if self.open.len() < self.open_max {
            self.open.insert(id.to_owned(), Open { source, record: view.record.clone() });
        }
        Some(sample)
    }
}
