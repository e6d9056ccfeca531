//! What is stored of containers: records, which are durable before anybody is answered, and states, which are noted
//! and written together after the fact.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metadata::{Batch, Store};
use model::Refusal;
use model::create::Record;
use tokio::sync::Notify;

use crate::container::{Command, Remembered};
use crate::registry::Registry;
use crate::{Engine, blocking};

const CONTAINERS: &str = "containers";
const REMEMBERED: &str = "container-states";
/// Records that are worth a thread.
const MANY: usize = 64;
/// How long noted states may wait to be written.
const LAZY: Duration = Duration::from_millis(500);

/// The records of containers in the store.
#[derive(Debug)]
pub struct Records {
    store: Store,
    /// States to be written with the next lazy commit.
    noted: Mutex<BTreeMap<String, Remembered>>,
    /// Held while they are written.
    writing: Mutex<()>,
    wake: Notify,
}

fn encode(record: &Record) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(record).map_err(|error| Refusal::from_error("container record", &error))
}

/// Makes something of each item; in the same order.
fn on_all_processors<T: Sync, R: Send>(items: &[T], make: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = items.chunks(items.len().div_ceil(threads).max(MANY));
    std::thread::scope(|scope| {
        let work = |part: &'_ [T]| part.iter().map(&make).collect::<Vec<R>>();
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let joined = parts.into_iter().map(|part| part.join());
        joined.flat_map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

impl Records {
    pub fn new(store: Store) -> Records {
        Records { store, noted: Mutex::default(), writing: Mutex::default(), wake: Notify::new() }
    }

    fn noted(&self) -> MutexGuard<'_, BTreeMap<String, Remembered>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every record, with the state that was noted last.
    pub fn all(&self) -> Vec<(Record, Remembered)> {
        let stored = self.store.scan(REMEMBERED).into_iter();
        let mut states: BTreeMap<String, Remembered> =
            stored.filter_map(|(id, bytes)| Some((id, serde_json::from_slice(&bytes).ok()?))).collect();
        let read = |(id, bytes): &(String, Arc<[u8]>)| {
            let record = serde_json::from_slice::<Record>(bytes);
            record.map_err(|error| tracing::error!(container = %id, %error, "its record cannot be read")).ok()
        };
        let records = on_all_processors(&self.store.scan(CONTAINERS), read);
        let stated = records.into_iter().flatten().map(|record| {
            let state = states.remove(&record.id).unwrap_or_default();
            (record, state)
        });
        stated.collect()
    }

    /// Stores a new container together with what comes with it; blocks.
    pub fn put_with(&self, record: &Record, batch: Batch) -> Result<(), Refusal> {
        let batch = batch.put(CONTAINERS, &record.id, encode(record)?);
        self.store.commit(batch).map_err(|error| Refusal::from_error("cannot store the container", &error))
    }

    /// Stores a container that has changed.
    pub async fn put(&self, record: &Record) -> Result<(), Refusal> {
        let batch = Batch::default().put(CONTAINERS, &record.id, encode(record)?);
        let store = self.store.clone();
        blocking(move || {
            store.commit(batch).map_err(|error| Refusal::from_error("cannot store the record", &error))
        })
        .await
    }

    /// Deletes a container, together with what goes with it; blocks.
    pub fn delete_with(&self, id: &str, batch: Batch) -> Result<(), Refusal> {
        self.noted().remove(id);
        let batch = batch.delete(CONTAINERS, id).delete(REMEMBERED, id);
        self.store.commit(batch).map_err(|error| Refusal::from_error("cannot store the record", &error))
    }

    /// Notes a state for the next lazy commit.
    pub fn note(&self, id: &str, state: Remembered) {
        self.noted().insert(id.into(), state);
        self.wake.notify_one();
    }

    /// Waits until a container's state is on disk if it was noted; blocks.
    pub fn settle(&self, id: &str, registry: &Registry) {
        let written = {
            let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            !self.noted().contains_key(id)
        };
        if !written {
            self.write_noted(registry);
        }
    }

    /// Writes the noted states; blocks.
    pub fn write_noted(&self, registry: &Registry) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = std::mem::take(&mut *self.noted());
        let mut batch = Batch::default();
        let mut ended = Vec::new();
        for (id, state) in noted {
            // A container that is gone leaves nothing: its record was deleted first.
            let Ok(handle) = registry.find(&id) else { continue };
            let Ok(text) = serde_json::to_vec(&state) else { continue };
            batch = batch.put(REMEMBERED, &id, text);
            if !state.running {
                ended.push(handle);
            }
        }
        match self.store.commit(batch) {
            Ok(()) => ended.iter().for_each(|handle| handle.mention(Command::Remembered)),
            Err(error) => tracing::error!(%error, "cannot store container states"),
        }
    }
}

/// Waits until the noted states are on disk.
pub async fn write_now(engine: &Engine) {
    let engine = engine.clone();
    let _ = tokio::task::spawn_blocking(move || engine.records().write_noted(engine.registry())).await;
}

/// Writes noted states from time to time, for as long as the daemon runs.
pub fn spawn_lazy_writer(engine: &Engine) {
    let engine = engine.clone();
    tokio::spawn(async move {
        loop {
            engine.records().wake.notified().await;
            tokio::time::sleep(LAZY).await;
            write_now(&engine).await;
        }
    });
}
