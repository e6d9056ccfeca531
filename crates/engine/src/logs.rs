//! `logs`: batches of rendered records, and waiting for more.

use std::collections::BTreeMap;
use std::time::Duration;

use logs::{Options, Progress, Query, Reader, Render};
use model::create::Record;
use model::logging::{self, FileFormat, Logging};
use model::{Phase, Refusal};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::container::{Handle, View};
use crate::shipping::Spool;
use crate::{Engine, blocking, clock};

/// Bytes of one batch, and room for the record that goes beyond. Larger ones get fresh pages from the kernel each time,
/// which costs more than all else.
const BATCH: usize = 88 << 10;
const BATCH_ROOM: usize = 112 << 10;
/// Batches that wait for a slow client.
const AHEAD: usize = 4;
/// How long after its start a command may take to end before its log is read.
const START_TO_LOG: Duration = Duration::from_millis(60);
/// How often a log is looked at when the kernel gives no notifications.
const POLL: Duration = Duration::from_millis(100);

/// What a client wants to see.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    /// Unix nanoseconds.
    pub since: Option<i64>,
    pub until: Option<i64>,
    pub tail: Option<u64>,
    pub timestamps: bool,
    pub details: bool,
}

/// A log being read.
pub struct LogStream {
    /// Output is a terminal's: no frames.
    pub raw: bool,
    pub batches: mpsc::Receiver<Result<Vec<u8>, Refusal>>,
}

/// Scripts read the log of a short command right after its start, and rely on an engine being slow to start it.
pub(crate) async fn let_short_command_end(handle: &Handle) {
    let Phase::Running { started_at, .. } = handle.view().phase else { return };
    let age = u64::try_from(clock::now().saturating_sub(started_at)).unwrap_or(0);
    let left = START_TO_LOG.saturating_sub(Duration::from_nanos(age));
    if !left.is_zero() {
        let ended = handle.until(|view| !view.phase.is_running());
        let _ = tokio::time::timeout(left, ended).await;
    }
}

/// The use cases of containers' logs.
#[derive(Clone)]
pub struct Logs(pub(crate) Engine);

impl Logs {
    /// Where a container's log is on this host, and how it is kept; none if it has no log.
    pub(crate) fn files(&self, record: &Record) -> Result<Option<Options>, Refusal> {
        let logging = Logging::of(&record.host_config.log_config)?;
        let Some(files) = logging.files else { return Ok(None) };
        let directory = self.0.paths().container(&record.id);
        let (driver, path) = match files.format {
            FileFormat::Json => (logs::Driver::JsonFile, self.0.paths().log(&record.id)),
            FileFormat::Local => (logs::Driver::Local, directory.join("local-logs").join("container.log")),
        };
        let mut attributes = BTreeMap::new();
        if logging.receiver.is_none() {
            attributes = logging::attributes(record, str::to_string)?;
            let tag = logging::tag(record, "")?;
            if !tag.is_empty() {
                attributes.insert("tag".into(), tag);
            }
        }
        Ok(Some(Options {
            driver,
            path,
            size_max: files.size_max,
            files_max: files.files_max,
            compress: files.compress,
            numbered: logging.receiver.is_some(),
            attributes,
        }))
    }

    /// The same for a log that is shipped elsewhere.
    pub(crate) fn spool(&self, record: &Record) -> Result<Option<Spool>, Refusal> {
        if Logging::of(&record.host_config.log_config)?.receiver.is_none() {
            return Ok(None);
        }
        let files = self.files(record)?;
        let cursor = self.0.paths().file(&record.id, "log-cursor");
        Ok(files.map(|files| Spool { files, cursor }))
    }

    /// Starts to read a container's log; the batches are in Docker's output form.
    pub async fn read(&self, name: &str, query: LogQuery) -> Result<LogStream, Refusal> {
        if !query.stdout && !query.stderr {
            return Err(Refusal::invalid("Bad parameters: you must choose at least one stream"));
        }
        let handle = self.0.find(name)?;
        if !query.follow {
            let_short_command_end(&handle).await;
        }
        let view = handle.view();
        let follow = query.follow && view.phase.is_running();
        let reader = self.open(&view, &query, follow).await?;
        let raw = view.record.config.tty;
        let render = Render::new(query.timestamps, query.details, !raw);
        let (send, batches) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            if let Err(refusal) = pump(reader, render, follow.then_some(handle), &send).await {
                let _ = send.send(Err(refusal)).await;
            }
        });
        Ok(LogStream { raw, batches })
    }

    /// Opens a container's log. One that is followed ends only when the caller says so.
    pub(crate) async fn open(&self, view: &View, query: &LogQuery, follow: bool) -> Result<Reader, Refusal> {
        let record = &view.record;
        let logging = Logging::of(&record.host_config.log_config)?;
        let options = match self.files(record)? {
            Some(options) if logging.readable => options,
            _ => {
                return Err(Refusal::new(
                    model::Kind::NotImplemented,
                    "configured logging driver does not support reading",
                ));
            }
        };
        let wanted = Query {
            since: query.since,
            until: query.until,
            tail: query.tail,
            stdout: query.stdout,
            stderr: query.stderr,
            after: None,
            follow,
        };
        blocking(move || Reader::open(&options, &wanted).map_err(failed)).await
    }
}

pub(crate) fn failed(error: logs::Error) -> Refusal {
    Refusal::from_error("error from the log driver", &error)
}

/// Reads until the end; while following, until the container has ended and all that it wrote is read.
async fn pump(
    mut reader: Reader,
    mut render: Render,
    following: Option<Handle>,
    send: &mpsc::Sender<Result<Vec<u8>, Refusal>>,
) -> Result<(), Refusal> {
    let exits = following.as_ref().map(|handle| handle.view().exits);
    loop {
        // Looked at before reading: what was written before the end is then read after it.
        let ended = following.as_ref().is_none_or(|handle| {
            let view = handle.view();
            Some(view.exits) != exits || !view.phase.is_running()
        });
        let (waiting, progress);
        let sender = send.clone();
        (reader, render, waiting, progress) = blocking(move || {
            reader.clear_notifications();
            let (waiting, progress) = send_batches(&mut reader, &mut render, &sender)?;
            Ok((reader, render, waiting, progress))
        })
        .await?;
        if let Some(batch) = waiting
            && send.send(Ok(batch)).await.is_err()
        {
            return Ok(());
        }
        match progress {
            Progress::More => {}
            Progress::End => return Ok(()),
            Progress::Idle if ended => return Ok(()),
            Progress::Idle => {
                let Some(handle) = &following else { return Ok(()) };
                tokio::select! {
                    () = changed(&reader) => {}
                    _ = handle.until(|view| Some(view.exits) != exits) => {}
                    () = send.closed() => return Ok(()),
                }
            }
        }
    }
}

/// Reads for as long as the client keeps up. What it was not ready for is given back, so that no thread waits for it.
fn send_batches(
    reader: &mut Reader,
    render: &mut Render,
    send: &mpsc::Sender<Result<Vec<u8>, Refusal>>,
) -> Result<(Option<Vec<u8>>, Progress), Refusal> {
    loop {
        let mut batch = Vec::with_capacity(BATCH_ROOM);
        let progress = reader.next_batch(render, BATCH, &mut batch).map_err(failed)?;
        if batch.is_empty() {
            return Ok((None, progress));
        }
        if let Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) = send.try_send(Ok(batch)) {
            return Ok((batch.ok(), progress));
        }
        if progress != Progress::More {
            return Ok((None, progress));
        }
    }
}

async fn changed(reader: &Reader) {
    let watched = reader.notifications().and_then(|descriptor| descriptor.try_clone_to_owned().ok());
    // Any descriptor that epoll takes may be waited for as this "pipe" end; it is not read through it.
    match watched.and_then(|descriptor| pipe::Receiver::from_owned_fd_unchecked(descriptor).ok()) {
        Some(descriptor) => {
            let _ = descriptor.readable().await;
        }
        None => tokio::time::sleep(POLL).await,
    }
}
