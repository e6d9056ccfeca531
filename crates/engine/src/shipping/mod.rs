//! Shipping logs: records of containers whose driver sends them elsewhere.
//!
//! A container's shim writes a bounded log on this host whatever its driver is, so output is never held up and
//! never depends on the daemon. From there one task per container that has something to ship (no thread) reads on:
//! 1. [`Target`] says where to, in which form, and how long to try.
//! 2. The worker connects, and reads and encodes batches on blocking threads.
//! 3. What the receiver surely has is noted in a file beside the log ([`logs::Cursor`]). Each new connection, also
//!    of the next daemon, goes on behind it: in order, nothing left out, at worst something twice.
//!
//! What rotation threw away before it could be shipped shows as a gap in the records' numbers, and is said.

mod connection;
mod target;
mod unconfirmed;
mod watch;
mod worker;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logs::Cursor;
use model::Refusal;
use model::create::Record;
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinHandle;

use crate::blocking;
use connection::Connection;
pub use target::Spool;
use target::Target;
use watch::{Watch, Watcher};
use worker::{Wanted, Worker};

/// How long the removal of a container waits for its last records to be taken.
pub const LAST_RECORDS: Duration = Duration::from_secs(5);

/// How long workers may take to note what their receivers have.
const LAST_NOTES: Duration = Duration::from_millis(300);

/// All workers of the daemon. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shipping(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    watcher: Option<Watcher>,
    workers: HashMap<String, Running>,
    /// Tells a container's workers apart.
    started: u64,
}

#[derive(Debug)]
struct Running {
    number: u64,
    wanted: channel::Sender<Wanted>,
    task: JoinHandle<()>,
    _watch: Option<Watch>,
}

impl Running {
    /// Which worker it is, and the way to tell it what is wanted.
    fn handle(&self) -> (u64, channel::Sender<Wanted>) {
        (self.number, self.wanted.clone())
    }
}

impl State {
    /// Forgets a worker that has ended, unless another came in its place.
    fn remove(&mut self, id: &str, number: u64) {
        if self.workers.get(id).is_some_and(|running| running.number == number) {
            self.workers.remove(id);
        }
    }
}

impl Shipping {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a container starts: finds its receiver, if the driver wants that, and ships from now on. Nobody writes
    /// the log yet.
    pub async fn begin(&self, record: &Record, spool: Spool) -> Result<(), Refusal> {
        let Some(target) = Target::of(record, &host_name())? else { return Ok(()) };
        let connection = if target.needed {
            let connected = connection::connect(&target.address, &target.tls, target.timeouts).await;
            Some(connected.map_err(|refusal| not_started(target.refused(refusal)))?)
        } else {
            None
        };
        // What the last run left: its receiver has it, or gets it from the new worker.
        self.finish(&record.id, LAST_NOTES).await;
        self.stop(&record.id).await;
        let rewound = spool.clone();
        blocking(move || {
            let failed =
                |error: logs::Error| Refusal::from_error("cannot prepare the container's log", &error);
            make_folder(&rewound.files.path)?;
            Cursor::open(&rewound.cursor).and_then(|mut cursor| cursor.rewind(&rewound.files)).map_err(failed)
        })
        .await?;
        self.spawn(&record.id, spool, target, connection, Wanted::Follow);
        Ok(())
    }

    /// With the daemon's start: goes on with a container that runs, or has not shipped everything.
    pub async fn resume(&self, record: &Record, spool: Spool, running: bool) {
        let target = match Target::of(record, &host_name()) {
            Ok(Some(target)) => target,
            Ok(None) => return,
            Err(refusal) => {
                tracing::error!(container = %record.id, why = %refusal.message, "cannot ship its log");
                return;
            }
        };
        if !running {
            let looked = spool.clone();
            if blocking(move || Ok(left(&looked))).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let wanted = if running { Wanted::Follow } else { Wanted::Finish };
        self.spawn(&record.id, spool, target, None, wanted);
    }

    fn spawn(&self, id: &str, spool: Spool, target: Target, connection: Option<Connection>, wanted: Wanted) {
        let mut state = self.lock();
        if state.watcher.is_none() {
            state.watcher = Watcher::new().ok();
        }
        let changed = Arc::new(Notify::new());
        let folder = spool.files.path.parent().unwrap_or(Path::new("/"));
        let watch = state.watcher.as_ref().and_then(|watcher| watcher.watch(folder, changed.clone()).ok());
        state.started += 1;
        let number = state.started;
        let (send, wanted) = channel::channel(wanted);
        let worker = Worker {
            container: id.into(),
            spool,
            target: Some(target),
            wanted,
            changed,
            polls: watch.is_none(),
            counted: 0,
        };
        let (shipping, key) = (self.clone(), id.to_string());
        let task = tokio::spawn(async move {
            worker.run(connection).await;
            shipping.lock().remove(&key, number);
        });
        state.workers.insert(id.into(), Running { number, wanted: send, task, _watch: watch });
    }

    /// The container has ended: its worker ships the rest, and goes.
    pub fn ended(&self, id: &str) {
        if let Some(running) = self.lock().workers.get(id) {
            running.wanted.send_replace(Wanted::Finish);
        }
    }

    /// Waits until everything that a container's log has by now is shipped, at most for so long. Its worker goes.
    pub async fn finish(&self, id: &str, limit: Duration) {
        let Some((number, wanted)) = self.lock().workers.get(id).map(Running::handle) else { return };
        wanted.send_replace(Wanted::Leave);
        // Its receiver goes with the worker.
        if tokio::time::timeout(limit, wanted.closed()).await.is_ok() {
            self.lock().remove(id, number);
        }
    }

    /// The daemon ends. What its receivers surely have is noted; the next daemon ships the rest.
    pub async fn shut_down(&self) {
        let all: Vec<_> = self.lock().workers.values().map(Running::handle).collect();
        for (_, wanted) in &all {
            wanted.send_replace(Wanted::Leave);
        }
        let deadline = tokio::time::Instant::now() + LAST_NOTES;
        for (_, wanted) in all {
            let _ = tokio::time::timeout_at(deadline, wanted.closed()).await;
        }
    }

    /// Ends a container's worker wherever it is.
    async fn stop(&self, id: &str) {
        let running = self.lock().workers.remove(id);
        if let Some(running) = running {
            running.task.abort();
            let _ = running.task.await;
        }
    }

    /// The container is removed: gives its last records a while, and says what is lost with it.
    pub async fn forget(&self, id: &str, spool: Spool) {
        if !self.lock().workers.contains_key(id) {
            return;
        }
        self.finish(id, LAST_RECORDS).await;
        self.stop(id).await;
        let records = blocking(move || Ok(left(&spool))).await.unwrap_or(0);
        if records > 0 {
            tracing::warn!(
                container = %id, records,
                "log records were lost with their container: their receiver was away"
            );
        }
    }
}

/// How many records are not shipped.
fn left(spool: &Spool) -> u64 {
    let Ok(last) = logs::last_number(&spool.files) else { return 0 };
    Cursor::open(&spool.cursor).map_or(0, |cursor| last.saturating_sub(cursor.number()))
}

/// Makes the folder that a log is in.
pub fn make_folder(log: &Path) -> Result<(), Refusal> {
    let folder = log.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)
        .map_err(|error| Refusal::from_error(&format!("cannot make {}", folder.display()), &error))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Docker's words around it.
fn not_started(refusal: Refusal) -> Refusal {
    let message = format!(
        "failed to create task for container: failed to initialize logging driver: {}",
        refusal.message
    );
    Refusal { message, ..refusal }
}
