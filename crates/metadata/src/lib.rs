//! The crash-safe store of records: tables of key to bytes, in memory, behind one append-only log.
//!
//! A [`Batch`] is one frame of the log. [`Store::commit`] returns when the frame is on disk; commits that arrive
//! while another is being synced share the next sync. Reads come from memory and see only what is durable.
//! A frame cut off by a crash was never acknowledged and is dropped when the store is opened. When the log has
//! grown well beyond its live records it is written anew and replaced by rename.

mod log;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use log::{Log, encode_frame};

/// Refused or failed store operations; each names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} was written by a newer version (format {found}, this program knows {known})")]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{path} is not a record log")]
    Foreign { path: PathBuf },
    #[error("{path} is in use by another daemon")]
    Locked { path: PathBuf },
    /// The disk refused an earlier write; what was acknowledged is safe, nothing more is accepted.
    #[error("the record store is closed for writing after a failed sync: {cause}")]
    Poisoned { cause: String },
}

/// Table, key, and the new value or `None` for removal.
type Change = (String, String, Option<Vec<u8>>);

/// Changes that become durable together or not at all.
#[derive(Debug, Default)]
pub struct Batch(Vec<Change>);

impl Batch {
    pub fn put(mut self, table: &str, key: &str, value: Vec<u8>) -> Self {
        self.0.push((table.into(), key.into(), Some(value)));
        self
    }

    pub fn delete(mut self, table: &str, key: &str) -> Self {
        self.0.push((table.into(), key.into(), None));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

type Tables = BTreeMap<String, BTreeMap<String, Arc<[u8]>>>;

/// A handle; clones share the store. Every method may be called from any thread; reads never touch the disk.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tables: RwLock<Tables>,
    queue: Mutex<Queue>,
    synced: Condvar,
}

/// Commits waiting for the next sync. Whoever finds the log at rest takes it and syncs for all.
#[derive(Debug)]
struct Queue {
    log: Option<Log>,
    waiting: Vec<Batch>,
    /// Numbers of the batch group being gathered, and of the last one that ended.
    gathering: u64,
    ended: u64,
    /// Outcomes of failed groups, kept until their committers have seen them.
    failed: BTreeMap<u64, (String, usize)>,
    poisoned: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding the lock cannot leave the queue half-changed: changes are single assignments.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens or makes the store in `directory`, which is created if missing.
    pub fn open(directory: &Path) -> Result<Store, Error> {
        let mut tables = Tables::new();
        let log = Log::open(directory, |changes| apply(&mut tables, changes))?;
        let queue = Queue {
            log: Some(log),
            waiting: Vec::new(),
            gathering: 1,
            ended: 0,
            failed: BTreeMap::new(),
            poisoned: None,
        };
        Ok(Store(Arc::new(Shared {
            tables: RwLock::new(tables),
            queue: Mutex::new(queue),
            synced: Condvar::new(),
        })))
    }

    pub fn get(&self, table: &str, key: &str) -> Option<Arc<[u8]>> {
        let tables = self.0.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.get(table)?.get(key).cloned()
    }

    /// Every record of a table, in key order.
    pub fn scan(&self, table: &str) -> Vec<(String, Arc<[u8]>)> {
        let tables = self.0.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.get(table).into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Blocks until the batch is on disk; concurrent commits share one sync.
    pub fn commit(&self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut queue = lock(&self.0.queue);
        if let Some(cause) = &queue.poisoned {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        queue.waiting.push(batch);
        let group = queue.gathering;
        loop {
            if queue.ended >= group {
                return queue.outcome(group);
            }
            match queue.log.take() {
                Some(log) => queue = self.sync_group(queue, log),
                None => queue = self.0.synced.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Writes and syncs everything that waits, outside the lock, then publishes it.
    fn sync_group<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, mut log: Log) -> MutexGuard<'a, Queue> {
        let batches = std::mem::take(&mut queue.waiting);
        let group = queue.gathering;
        queue.gathering += 1;
        drop(queue);

        let mut frames = Vec::new();
        batches.iter().for_each(|batch| encode_frame(&batch.0, &mut frames));
        let result = log.append(&frames);
        let mut poison = None;
        match &result {
            Ok(()) => {
                let mut tables = self.0.tables.write().unwrap_or_else(PoisonError::into_inner);
                let members = batches.len();
                for batch in batches {
                    apply(&mut tables, batch.0);
                }
                debug_assert!(members > 0);
                let live = log.wants_compaction().then(|| tables.clone());
                drop(tables);
                if let Some(tables) = live
                    && let Err(error) = log.compact(tables.iter().flat_map(|(table, records)| {
                        records.iter().map(move |(key, value)| (table.as_str(), key.as_str(), &value[..]))
                    }))
                {
                    // The old log is intact and stays in use; a failed sync of it is another matter.
                    poison = log.broken().then(|| error.to_string());
                }
                let mut queue = lock(&self.0.queue);
                queue.finish(group, log, poison);
                self.0.synced.notify_all();
                queue
            }
            Err(error) => {
                let text = chain(error);
                poison = log.broken().then(|| text.clone());
                let mut queue = lock(&self.0.queue);
                queue.failed.insert(group, (text, batches.len()));
                queue.finish(group, log, poison);
                self.0.synced.notify_all();
                queue
            }
        }
    }
}

impl Queue {
    fn finish(&mut self, group: u64, log: Log, poison: Option<String>) {
        self.ended = group;
        self.log = Some(log);
        if poison.is_some() {
            self.poisoned = poison;
        }
    }

    fn outcome(&mut self, group: u64) -> Result<(), Error> {
        let Some((text, readers)) = self.failed.get_mut(&group) else { return Ok(()) };
        let cause = text.clone();
        *readers -= 1;
        if *readers == 0 {
            self.failed.remove(&group);
        }
        Err(Error::Io {
            operation: "commit to",
            path: "the record log".into(),
            source: std::io::Error::other(cause),
        })
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn apply(tables: &mut Tables, changes: Vec<Change>) {
    for (table, key, value) in changes {
        match value {
            Some(value) => {
                tables.entry(table).or_default().insert(key, value.into());
            }
            None => {
                if let Some(records) = tables.get_mut(&table) {
                    records.remove(&key);
                }
            }
        }
    }
}
