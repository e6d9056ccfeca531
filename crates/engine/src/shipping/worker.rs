//! Ships one container's records: reads them from its files, sends them, and remembers how far it has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use logs::{Cursor, Query, Reader};
use model::Refusal;
use tokio::sync::{Notify, watch};

use super::connection::{self, Connection, plain};
use super::target::{Batch, Spool, Target};
use super::unconfirmed::Unconfirmed;
use crate::blocking;

/// How often a log is looked at when the kernel gives no notifications.
const POLL: Duration = Duration::from_millis(100);

/// What is wanted of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The container runs: more may come.
    Follow,
    /// It has ended: ship the rest, and go.
    Finish,
    /// The same, as soon as the receiver's host has everything that is there by now.
    Leave,
}

/// What is read from and written to files, on blocking threads.
struct Files {
    reader: Reader,
    cursor: Cursor,
    target: Target,
}

pub struct Worker {
    pub container: String,
    pub spool: Spool,
    /// None while a blocking thread has it.
    pub target: Option<Target>,
    pub wanted: watch::Receiver<Wanted>,
    pub changed: Arc<Notify>,
    /// Nobody tells of changes.
    pub polls: bool,
    /// Records below this were counted as missing already.
    pub counted: u64,
}

enum End {
    /// All is shipped.
    Done,
    /// The connection ended, or its time was over; go on with another.
    Reconnect,
    Failed(String),
}

impl Worker {
    /// Ships until the container has ended and everything is shipped.
    pub async fn run(mut self, mut connection: Option<Connection>) {
        let mut failures = 0_u64;
        loop {
            let trouble = match self.connect(connection.take()).await {
                Ok(connection) => match self.session(connection, &mut failures).await {
                    End::Done => return,
                    End::Reconnect => {
                        failures = 0;
                        continue;
                    }
                    End::Failed(why) => why,
                },
                Err(refusal) => refusal.message,
            };
            failures += 1;
            let Some(patience) = self.target.as_ref().map(|target| target.patience) else {
                tracing::error!(container = %self.container, why = %trouble, "the log is shipped no more");
                return;
            };
            if failures == 1 {
                tracing::warn!(container = %self.container, why = %trouble, "the log's receiver is away; records wait in the container's log");
            }
            if patience.attempts_max.is_some_and(|most| failures > most) {
                self.give_up().await;
                failures = 0;
                if *self.wanted.borrow() != Wanted::Follow {
                    return;
                }
                self.wait_for_more().await;
                continue;
            }
            let power = i32::try_from(failures - 1).unwrap_or(i32::MAX).min(64);
            let wait = patience.first.as_secs_f64() * patience.factor.powi(power);
            tokio::time::sleep(Duration::from_secs_f64(wait.min(patience.most.as_secs_f64()))).await;
        }
    }

    async fn connect(&self, ready: Option<Connection>) -> Result<Connection, Refusal> {
        if let Some(connection) = ready {
            return Ok(connection);
        }
        let target = self.target.as_ref().ok_or_else(|| Refusal::system("the log's files are lost"))?;
        connection::connect(&target.address, &target.tls, target.timeouts).await
    }

    async fn wait_for_more(&mut self) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = tokio::time::sleep(POLL), if self.polls => {}
            _ = self.wanted.changed() => {}
        }
    }

    /// Ships over one connection, from where the cursor stands.
    async fn session(&mut self, mut connection: Connection, failures: &mut u64) -> End {
        let Some(target) = self.target.take() else { return End::Failed("the log's files are lost".into()) };
        let spool = self.spool.clone();
        let opened = tokio::task::spawn_blocking(move || open(&spool, target)).await;
        let files = match opened {
            Ok((target, Ok((reader, cursor)))) => Files { reader, cursor, target },
            Ok((target, Err(error))) => {
                self.target = Some(target);
                return End::Failed(Refusal::from_error("cannot read the container's log", &error).message);
            }
            Err(_) => return End::Done,
        };
        let (target, end) = self.ship(files, &mut connection, failures).await;
        self.target = target;
        if matches!(end, End::Done | End::Reconnect) {
            connection.close().await;
        }
        end
    }

    /// The target comes back, unless a blocking thread failed with it.
    async fn ship(
        &mut self,
        mut files: Files,
        connection: &mut Connection,
        failures: &mut u64,
    ) -> (Option<Target>, End) {
        let (exact, grace) = connection.certainty();
        let mut open = Unconfirmed::new(exact, grace);
        let mut expected = files.cursor.number() + 1;
        let mut sure = None;
        loop {
            // Looked at before reading: what was written before the end is then read after it.
            let wanted = *self.wanted.borrow_and_update();
            let finishing = wanted != Wanted::Follow;
            let noting = sure.take();
            let (batch, result);
            (files, batch, result) = match blocking(move || Ok(next(files, expected, noting))).await {
                Ok(done) => done,
                Err(refusal) => return (None, End::Failed(refusal.message)),
            };
            if let Err(error) = result {
                let why = Refusal::from_error("cannot read the container's log", &error).message;
                return (Some(files.target), End::Failed(why));
            }
            self.count(&batch);
            if batch.count > 0 {
                expected = batch.last + 1;
                if let Err(error) = connection.send(&batch).await {
                    return (Some(files.target), End::Failed(plain(&error)));
                }
                if std::mem::take(failures) > 0 {
                    tracing::info!(container = %self.container, "the log's receiver is back");
                }
                open.sent(batch.last, batch.bytes.len());
            }
            let now = Instant::now();
            sure = if batch.chunk.is_some() {
                open.closed(0, now)
            } else if wanted == Wanted::Leave {
                open.closed(connection.untaken(), now)
            } else {
                open.look(connection.untaken(), now)
            };
            if batch.count > 0 || sure.is_some() {
                continue;
            }
            if finishing && open.is_empty() {
                return (Some(files.target), End::Done);
            }
            let age = files.target.connection_age_max;
            if open.is_empty() && age.is_some_and(|age| connection.since.elapsed() >= age) {
                return (Some(files.target), End::Reconnect);
            }
            let wait = open.wait(now).or(self.polls.then_some(POLL));
            let wait = [wait, age].into_iter().flatten().min();
            let closed = tokio::select! {
                () = self.changed.notified() => None,
                _ = self.wanted.changed() => None,
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => None,
                closed = connection.closed() => Some(closed),
            };
            match closed {
                None => {}
                Some(Ok(())) => {
                    sure = open.closed(connection.untaken(), Instant::now());
                    (files, _, _) = match blocking(move || Ok(confirm(files, sure))).await {
                        Ok(done) => done,
                        Err(refusal) => return (None, End::Failed(refusal.message)),
                    };
                    if finishing && open.is_empty() {
                        return (Some(files.target), End::Done);
                    }
                    return (Some(files.target), End::Failed("it closed the connection".into()));
                }
                Some(Err(error)) => return (Some(files.target), End::Failed(plain(&error))),
            }
        }
    }

    /// Says what is missing, once.
    fn count(&mut self, batch: &Batch) {
        if let Some((first, missing)) = batch.missing
            && batch.last > self.counted
        {
            tracing::warn!(
                container = %self.container, first, records = missing,
                "log records were lost before they could be shipped: the container's log could not hold them"
            );
        }
        if batch.unfit > 0 {
            tracing::warn!(container = %self.container, records = batch.unfit, "log records are too long for their receiver");
        }
        self.counted = self.counted.max(batch.last);
    }

    /// Leaves out what waits, as the options ask after so many attempts.
    async fn give_up(&mut self) {
        let spool = self.spool.clone();
        let left_out = blocking(move || {
            let failed = |error: logs::Error| Refusal::from_error("log", &error);
            let mut cursor = Cursor::open(&spool.cursor).map_err(failed)?;
            let last = logs::last_number(&spool.files).map_err(failed)?;
            let count = last.saturating_sub(cursor.number());
            if count > 0 {
                cursor.set(last).map_err(failed)?;
            }
            Ok(count)
        });
        if let Ok(records @ 1..) = left_out.await {
            tracing::warn!(container = %self.container, records, "log records were given up: their receiver stayed away");
        }
    }
}

fn open(spool: &Spool, target: Target) -> (Target, Result<(Reader, Cursor), logs::Error>) {
    let opened = Cursor::open(&spool.cursor).and_then(|cursor| {
        let query = Query { after: Some(cursor.number()), follow: true, ..Query::default() };
        Ok((Reader::open(&spool.files, &query)?, cursor))
    });
    (target, opened)
}

type Step = (Files, Batch, Result<(), logs::Error>);

/// Notes what is sure, and reads what comes next.
fn next(files: Files, expected: u64, sure: Option<u64>) -> Step {
    let (mut files, _, noted) = confirm(files, sure);
    if noted.is_err() {
        return (files, Batch::default(), noted);
    }
    match files.target.batch(&mut files.reader, expected) {
        Ok(batch) => (files, batch, Ok(())),
        Err(error) => (files, Batch::default(), Err(error)),
    }
}

fn confirm(mut files: Files, sure: Option<u64>) -> Step {
    let noted = sure.map_or(Ok(()), |number| files.cursor.set(number));
    (files, Batch::default(), noted)
}
