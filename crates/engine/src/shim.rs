//! Starting shims and talking to them.
//!
//! Shims run from a sealed copy of their program in memory: what a container may reach through `/proc/PID/exe`
//! is that copy, which nobody can write to, and all shims of a daemon share its pages.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Kind, Refusal};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::PidfdFlags;
use shim_protocol::{Answer, Command, DESCRIPTORS_MAX, Failure, FailureKind, Notice, Reply, Request};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// Idle shims kept for the next starts.
const SPARES: usize = 2;

/// Starts shims.
pub struct Launcher {
    /// The sealed copy.
    program: OwnedFd,
    spares: Mutex<Vec<(Child, StdStream)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Launcher {
    pub fn open(program: &Path) -> io::Result<Launcher> {
        let mut bytes = Vec::new();
        File::open(program)?.read_to_end(&mut bytes)?;
        let copy = memfd_create("corten-shim", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = File::from(copy);
        file.write_all(&bytes)?;
        let copy = OwnedFd::from(file);
        fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Launcher { program: copy, spares: Mutex::default() })
    }

    /// A shim that waits for its first command: one that was made ahead, or a new one.
    fn take(&self) -> io::Result<(Child, StdStream)> {
        match lock(&self.spares).pop() {
            Some(spare) => Ok(spare),
            None => self.spawn(),
        }
    }

    /// Makes shims ahead of need. They end by themselves when the daemon goes.
    pub fn refill(&self) {
        loop {
            if lock(&self.spares).len() >= SPARES {
                return;
            }
            let Ok(spare) = self.spawn() else { return };
            lock(&self.spares).push(spare);
        }
    }

    /// Ends the idle shims.
    pub fn close(&self) {
        for (mut child, stream) in lock(&self.spares).drain(..) {
            drop(stream);
            let _ = child.wait();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one program that a start needs")]
    fn spawn(&self) -> io::Result<(Child, StdStream)> {
        let (ours, theirs) = StdStream::pair()?;
        // No hook runs between fork and exec here, so that the standard library can use posix_spawn(3).
        let child = Program::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()))
            .arg0("corten-shim")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .spawn()?;
        Ok((child, ours))
    }
}

/// Where a shim's events go. A container has several shims in its life; `number` tells the late words of an earlier
/// one from those of the present one.
#[derive(Debug, Clone)]
pub struct Events {
    pub number: u64,
    pub inbox: mpsc::UnboundedSender<(u64, Event)>,
}

impl Events {
    fn send(&self, event: Event) {
        // Unbounded, so that an answer behind it is never held up; a shim says one thing per exit, detach or exec.
        let _ = self.inbox.send((self.number, event));
    }
}

/// Both ends of the way that events take, with the numbers of their shims.
pub type Channel = (mpsc::UnboundedSender<(u64, Event)>, mpsc::UnboundedReceiver<(u64, Event)>);

/// What a shim says unasked.
#[derive(Debug)]
pub enum Event {
    Notice(Notice),
    /// The shim is gone, and with it every mount of the container.
    Gone,
}

/// A connection to one shim.
#[derive(Clone)]
pub struct Shim(Arc<Connection>);

/// Takes an answer, and the descriptors that came with it.
type Waiting = oneshot::Sender<(Reply, Vec<OwnedFd>)>;

struct Connection {
    stream: UnixStream,
    /// Held while a frame is written.
    writer: tokio::sync::Mutex<()>,
    seq: AtomicU64,
    pending: Mutex<HashMap<u64, Waiting>>,
    wanted: Mutex<Wanted>,
}

/// Whether the connection is still wanted.
#[derive(Default)]
struct Wanted {
    /// Who needs it after the container's end as well.
    holds: usize,
    /// Nobody else does.
    closing: bool,
}

/// Keeps a connection open that its container's task closes.
pub struct Hold(Shim);

impl Hold {
    pub fn shim(&self) -> &Shim {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut wanted = lock(&self.0.0.wanted);
        wanted.holds -= 1;
        self.0.close_if_unwanted(&wanted);
    }
}

impl Shim {
    /// Takes a shim; its events go to `events`.
    pub fn start(launcher: &Launcher, events: Events) -> io::Result<Shim> {
        let (child, stream) = launcher.take()?;
        Self::over(stream, Some(child), events)
    }

    /// Connects to the shim that an earlier daemon started.
    pub fn connect(socket: &Path, events: Events) -> io::Result<Shim> {
        Self::over(StdStream::connect(socket)?, None, events)
    }

    fn over(stream: StdStream, child: Option<Child>, events: Events) -> io::Result<Shim> {
        stream.set_nonblocking(true)?;
        // Of a shim that is not our child: somebody else reaps it, but its end can be seen.
        let process = match child {
            Some(_) => None,
            None => {
                let peer = rustix::net::sockopt::socket_peercred(&stream)?.pid;
                rustix::process::pidfd_open(peer, PidfdFlags::empty()).ok()
            }
        };
        let connection = Arc::new(Connection {
            stream: UnixStream::from_std(stream)?,
            writer: tokio::sync::Mutex::default(),
            seq: AtomicU64::new(1),
            pending: Mutex::default(),
            wanted: Mutex::default(),
        });
        let reading = connection.clone();
        tokio::spawn(async move {
            if let Err(error) = reading.read(&events).await {
                tracing::debug!(%error, "connection to a shim ended");
            }
            // Whoever waits for an answer learns that none will come.
            lock(&reading.pending).clear();
            match child {
                // It goes soon after its last connection closed; without this it would stay a zombie.
                Some(mut child) => drop(tokio::task::spawn_blocking(move || child.wait()).await),
                None => process_end(process).await,
            }
            events.send(Event::Gone);
        });
        Ok(Shim(connection))
    }

    /// Says that nothing more is wanted of it: after its container's end it goes when it is told so.
    pub fn close(&self) {
        let mut wanted = lock(&self.0.wanted);
        wanted.closing = true;
        self.close_if_unwanted(&wanted);
    }

    fn close_if_unwanted(&self, wanted: &Wanted) {
        if wanted.closing && wanted.holds == 0 {
            let _ = rustix::net::shutdown(&self.0.stream, rustix::net::Shutdown::Both);
        }
    }

    /// Keeps the connection open until the hold is dropped.
    pub fn hold(&self) -> Hold {
        lock(&self.0.wanted).holds += 1;
        Hold(self.clone())
    }

    /// Sends a command and waits for its answer; [`Reply::Failed`] becomes an error.
    pub async fn call(
        &self,
        command: Command,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let seq = self.0.seq.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.0.pending).insert(seq, answer);
        let frame = shim_protocol::encode(&Request { seq, command }, payload)
            .map_err(|error| CallError::Lost(io::Error::other(error)))?;
        self.0.write(&frame, descriptors).await.map_err(CallError::Lost)?;
        match answered.await {
            Ok((Reply::Failed(failure), _)) => Err(CallError::Failed(failure)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(CallError::Lost(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the container's shim does not answer")]
    Lost(#[source] io::Error),
    #[error("{0}")]
    Failed(Failure),
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Refusal {
        match error {
            CallError::Lost(_) => Refusal::from_error("container task", &error),
            CallError::Failed(failure) => {
                let kind = match failure.kind {
                    FailureKind::ProgramNotFound
                    | FailureKind::ProgramNotExecutable
                    | FailureKind::Invalid => Kind::Invalid,
                    FailureKind::NotRunning => Kind::Conflict,
                    FailureKind::System => Kind::System,
                };
                Refusal::new(kind, failure.message)
            }
        }
    }
}

/// Waits until a process has ended.
async fn process_end(process: Option<OwnedFd>) {
    // Any descriptor that epoll takes may be waited for as this "pipe" end; a PID descriptor cannot be read.
    let process = process.and_then(|process| pipe::Receiver::from_owned_fd_unchecked(process).ok());
    if let Some(process) = process {
        let _ = process.readable().await;
    }
}

impl Connection {
    async fn write(&self, mut frame: &[u8], mut descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let _turn = self.writer.lock().await;
        while !frame.is_empty() {
            self.stream.writable().await?;
            let sent = self.stream.try_io(Interest::WRITABLE, || send(&self.stream, frame, &descriptors));
            match sent {
                Ok(count) => {
                    frame = &frame[count..];
                    // They rode with the first byte.
                    descriptors.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read(&self, events: &Events) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut descriptors = Vec::new();
        loop {
            self.stream.readable().await?;
            match self
                .stream
                .try_io(Interest::READABLE, || receive(&self.stream, &mut buffer, &mut descriptors))
            {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            while let Some((answer, _)) =
                shim_protocol::decode::<Answer>(&mut buffer).map_err(io::Error::other)?
            {
                match answer {
                    Answer::Reply { reply_to, reply } => {
                        let waiting = lock(&self.pending).remove(&reply_to);
                        let carried = std::mem::take(&mut descriptors);
                        if let Some(waiting) = waiting {
                            let _ = waiting.send((reply, carried));
                        }
                    }
                    Answer::Notice(notice) => events.send(Event::Notice(notice)),
                }
            }
            // Most shims are silent for most of their lives: hold no memory for them.
            if buffer.is_empty() {
                buffer = Vec::new();
            }
        }
    }
}

fn send(stream: &UnixStream, frame: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    Ok(sendmsg(stream, &[IoSlice::new(frame)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn receive(stream: &UnixStream, buffer: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    buffer.extend_from_slice(&bytes[..received.bytes]);
    Ok(received.bytes)
}
