//! The container: its first process, its execs, and how they end.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logs::Stream;
use oci::runtime::{LinuxNamespaceKind, Spec};
use sandbox::{Cgroup, Created, Running};
use shim_protocol::{Capture, Captured, EXIT_NAME, Exit, State};
use sys::process::Ended;

use crate::client::Client;
use crate::external::{External, Made};
use crate::log::Log;
use crate::oom::Watch;
use crate::streams::{Output, Streams};

/// How long output may still come from processes that outlive the one it was asked of.
const LATE_OUTPUT: Duration = Duration::from_secs(2);
/// How long the kernel may take to empty a cgroup whose processes are dead.
const RELEASE: Duration = Duration::from_secs(5);
/// How long clients may take to read the last output.
const LAST_READING: Duration = Duration::from_secs(600);
/// How long the end is kept to itself while a client has not read the last of the output, and how often that is looked
/// at: nothing tells.
const READING: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_micros(100);
/// Most output that a pipe can hold when its writer ends (the kernel's `pipe-max-size`), in bytes.
const LEFT_BEHIND_MAX: usize = 1 << 20;
/// Ended execs that are remembered.
const ENDED_EXECS_MAX: usize = 256;

/// Names a process of the container: 0 is the first, others are execs.
pub type Key = u64;
pub const FIRST: Key = 0;

pub const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// A container's life, as far as the shim sees it.
pub enum Phase {
    /// Created ---- Start ----> Running.
    Created(Making),
    /// Running ---- the first process ends ----> Ending.
    Running(Running),
    /// Ending ---- its output ends, or takes too long ----> Exited.
    Ending {
        running: Running,
        exit: Exit,
        until: Instant,
        /// Its output has ended, and clients have until then to read it.
        read_until: Option<Instant>,
    },
    Exited {
        exit: Exit,
        since: Instant,
    },
    /// Never started.
    Discarded,
}

/// A container that waits for its start.
pub enum Making {
    /// The shim's own.
    Own(Box<Created>),
    /// Another runtime's; see [`Container::external`].
    Other(Box<Made>),
}

impl Making {
    pub fn pidfd(&self) -> &OwnedFd {
        match self {
            Making::Own(created) => &created.pidfd,
            Making::Other(made) => &made.pidfd,
        }
    }
}

/// A process that joined the container.
pub struct Exec {
    pub key: Key,
    pub id: String,
    pub pid: i32,
    pub streams: Streams,
    /// It has ended; until when its output may still come.
    pub ended: Option<Instant>,
    pub capturing: Option<Capturing>,
}

/// The output of an exec that nobody watches, and when its time is up.
pub struct Capturing {
    output: Vec<u8>,
    bytes_max: usize,
    truncated: bool,
    /// None when it was killed.
    deadline: Option<Instant>,
}

impl Capturing {
    pub fn new(capture: Capture) -> Capturing {
        let timeout = Duration::from_nanos(capture.timeout_nanoseconds);
        Capturing {
            output: Vec::new(),
            bytes_max: capture.bytes_max,
            truncated: false,
            deadline: Some(Instant::now() + timeout),
        }
    }

    fn take(&mut self, output: &[u8]) {
        let room = self.bytes_max - self.output.len();
        self.output.extend_from_slice(&output[..output.len().min(room)]);
        self.truncated |= output.len() > room;
    }

    fn result(self) -> Captured {
        Captured {
            output: String::from_utf8_lossy(&self.output).into_owned(),
            truncated: self.truncated,
            timed_out: self.deadline.is_none(),
        }
    }
}

pub struct Container {
    pub run_directory: PathBuf,
    pub spec: Spec,
    pub phase: Phase,
    pub pid: i32,
    pub started_at: Option<u64>,
    pub cgroup: Cgroup,
    /// Another runtime made it and does what concerns it.
    pub external: Option<External>,
    pub streams: Streams,
    pub log: Option<Log>,
    pub execs: Vec<Exec>,
    pub ended_execs: VecDeque<(String, i32)>,
    /// Asked for before there was a terminal.
    pub size: Option<(u16, u16)>,
    /// The cgroup is to be removed, until then at the latest.
    pub release: Option<Instant>,
    /// What went wrong between its making and its start; the start tells it.
    pub early_failure: Option<sandbox::Error>,
    /// None if the kernel does not tell; then the counter is looked at whenever a process ends.
    pub oom_watch: Option<Watch>,
    /// The cgroup's counter, as last seen.
    pub oom_kills: u64,
    /// The connection that it is frozen for.
    pub held_by: Option<u64>,
}

impl Container {
    pub fn streams(&mut self, key: Key) -> Option<&mut Streams> {
        match key {
            FIRST => Some(&mut self.streams),
            _ => self.execs.iter_mut().find(|exec| exec.key == key).map(|exec| &mut exec.streams),
        }
    }

    /// The streams of the container, or of a running exec.
    pub fn streams_of(&mut self, exec: Option<&str>) -> Option<&mut Streams> {
        match exec {
            None => Some(&mut self.streams),
            Some(id) => {
                let running = self.execs.iter_mut().find(|exec| exec.id == id && exec.ended.is_none());
                running.map(|exec| &mut exec.streams)
            }
        }
    }

    pub fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Running(running) => Some(running),
            Phase::Created(_) | Phase::Ending { .. } | Phase::Exited { .. } | Phase::Discarded => None,
        }
    }

    pub fn state(&mut self) -> State {
        let ended = std::mem::take(&mut self.ended_execs);
        let running = self.execs.iter().filter(|exec| exec.ended.is_none());
        State {
            pid: self.pid,
            started_at_nanoseconds: self.started_at,
            frozen: self.running().is_some() && self.cgroup.is_frozen().unwrap_or(false),
            execs: running.map(|exec| (exec.id.clone(), exec.pid)).collect(),
            ended_execs: ended.into_iter().collect(),
            exit: match &self.phase {
                Phase::Exited { exit, .. } => Some(exit.clone()),
                Phase::Created(_) | Phase::Running(_) | Phase::Ending { .. } | Phase::Discarded => None,
            },
        }
    }

    // --- output

    /// Reads an output once and passes it on. True if there may be more at once.
    pub fn pump(&mut self, key: Key, stream: Stream, buffer: &mut [u8]) -> usize {
        let (streams, log, capturing) = match key {
            FIRST => (&mut self.streams, self.log.as_mut(), None),
            _ => match self.execs.iter_mut().find(|exec| exec.key == key) {
                Some(exec) => (&mut exec.streams, None, exec.capturing.as_mut()),
                None => return 0,
            },
        };
        match streams.read(stream, buffer) {
            Output::Nothing => 0,
            Output::Read(count) => {
                if let Some(log) = log {
                    log.write(stream, &buffer[..count]);
                }
                if let Some(capturing) = capturing {
                    capturing.take(&buffer[..count]);
                }
                streams.send(stream, &buffer[..count]);
                streams.remove_gone();
                count
            }
            Output::End => {
                if let Some(log) = log {
                    log.finish(stream);
                }
                0
            }
        }
    }

    /// Reads what a process that has ended left in its pipes.
    fn drain(&mut self, key: Key, buffer: &mut [u8]) {
        for stream in STREAMS {
            let mut read = 0;
            while read < LEFT_BEHIND_MAX {
                match self.pump(key, stream, buffer) {
                    0 => break,
                    count => read += count,
                }
            }
        }
    }

    // --- ends

    /// The first process has ended.
    pub fn first_ended(&mut self, ended: Ended, buffer: &mut [u8]) {
        let at_nanoseconds = crate::clock::now();
        let phase = std::mem::replace(&mut self.phase, Phase::Discarded);
        let Phase::Running(running) = phase else {
            // A created container whose process was killed: the start will fail, and say why.
            self.phase = phase;
            return;
        };
        // Before anything else: systemd removes the cgroup of a scope that is empty.
        let oom_killed = self.was_killed_for_memory(ended);
        self.streams.close_input();
        self.drain(FIRST, buffer);
        if !self.has_own_pids() {
            // Nobody else ends the others.
            let _ = self.cgroup.kill_all(rustix::process::Signal::KILL.as_raw());
        }
        let (code, signal) = code(ended);
        let started_at_nanoseconds = self.started_at.unwrap_or(0);
        let exit = Exit { code, signal, oom_killed, started_at_nanoseconds, at_nanoseconds };
        self.phase = Phase::Ending { running, exit, until: Instant::now() + LATE_OUTPUT, read_until: None };
    }

    /// Whether the kernel ended a process of the container for want of memory. If the cgroup is gone already, with the
    /// counter, what is known is that the counter had changed when a process was killed.
    fn was_killed_for_memory(&mut self, ended: Ended) -> bool {
        let kills = self.cgroup.oom_kills().max(self.oom_kills);
        let told = self.oom_watch.take().is_some_and(|watch| watch.has_news());
        let killed = code(ended).1 == Some(rustix::process::Signal::KILL.as_raw());
        kills > 0 || (told && killed && !self.cgroup.exists())
    }

    /// Whether the first process's end was everybody's: it is the first of a PID namespace.
    fn has_own_pids(&self) -> bool {
        let namespaces = self.spec.linux.iter().flat_map(|linux| &linux.namespaces);
        namespaces.into_iter().any(|space| space.kind == LinuxNamespaceKind::Pid && space.path.is_none())
    }

    /// When the output has ended as well: records the exit and tells it. What comes back is to be dropped after
    /// the exit has been told: the kernel takes the mounts down with it.
    pub fn conclude(&mut self) -> Option<(Exit, Running)> {
        let Phase::Ending { until, read_until, .. } = &mut self.phase else { return None };
        let now = Instant::now();
        if self.streams.has_output() && now < *until {
            return None;
        }
        self.streams.give_up_output();
        // A client that waits for the end on another connection has its output first, if it reads at all.
        if self.streams.clients.iter().any(Client::has_unread)
            && now < *read_until.get_or_insert(now + READING)
        {
            return None;
        }
        if let Some(log) = &mut self.log {
            STREAMS.into_iter().for_each(|stream| log.finish(stream));
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Discarded);
        let Phase::Ending { running, exit, .. } = phase else { return None };
        // Before anybody hears of the exit: then its directory goes, where the runtime has files of its own.
        self.external = None;
        // Without the file, the exit is known to a connected daemon only; there is no better place to put it.
        let _ = write_exit(&self.run_directory, &exit);
        self.phase = Phase::Exited { exit: exit.clone(), since: now };
        self.release = Some(now + RELEASE);
        Some((exit, running))
    }

    /// Gives up a container that did not start.
    pub fn discard(&mut self) {
        if let Phase::Created(Making::Own(created)) = std::mem::replace(&mut self.phase, Phase::Discarded) {
            created.discard();
        }
        // Its processes are killed as well.
        self.external = None;
        self.streams.give_up_output();
        self.streams.close_clients();
    }

    /// An exec has ended, with this code; tells its ID and what was captured of it.
    pub fn exec_ended(
        &mut self,
        pid: i32,
        ended: Ended,
        buffer: &mut [u8],
    ) -> Option<(String, i32, Option<Captured>)> {
        let exec = self.execs.iter_mut().find(|exec| exec.pid == pid && exec.ended.is_none())?;
        exec.ended = Some(Instant::now() + LATE_OUTPUT);
        exec.streams.close_input();
        let (key, id, code) = (exec.key, exec.id.clone(), code(ended).0);
        self.drain(key, buffer);
        let capturing = self.execs.iter_mut().find(|exec| exec.key == key)?.capturing.take();
        if capturing.is_some() {
            // What outlives it holds its output open, and nobody is told of that.
            self.execs.retain(|exec| exec.key != key);
            return Some((id, code, capturing.map(Capturing::result)));
        }
        self.ended_execs.push_back((id.clone(), code));
        if self.ended_execs.len() > ENDED_EXECS_MAX {
            self.ended_execs.pop_front();
        }
        Some((id, code, None))
    }

    // --- what happens by itself

    /// Carries on what waits for time or for clients; to be called after everything else.
    pub fn settle(&mut self) {
        let now = Instant::now();
        if let Phase::Created(Making::Own(created)) = &mut self.phase
            && let Err(error) = created.settle()
        {
            self.early_failure = Some(error);
        }
        for exec in &mut self.execs {
            let due =
                exec.capturing.as_mut().and_then(|capturing| capturing.deadline.take_if(|at| now >= *at));
            if due.is_some() {
                // It alone. What it started becomes the first process's, and there are those (PostgreSQL) that take a child
                // which a signal ends for one of theirs that has crashed. It is not reaped yet, so the number is its own.
                let _ = sys::process::kill(exec.pid, rustix::process::Signal::KILL.as_raw());
            }
            let Some(until) = exec.ended else { continue };
            if exec.streams.has_output() && now >= until {
                exec.streams.give_up_output();
            }
            if !exec.streams.has_output() {
                exec.streams.close_clients();
            }
        }
        self.execs.retain(|exec| {
            exec.ended.is_none() || exec.streams.has_output() || !exec.streams.clients.is_empty()
        });
        if let Phase::Exited { since, .. } = self.phase {
            self.streams.close_clients();
            if now >= since + LAST_READING {
                self.streams.clients.clear();
                self.execs.retain(|exec| exec.ended.is_none());
            }
        }
        if let Some(until) = self.release
            && (self.cgroup.delete().is_ok() || now >= until)
        {
            self.release = None;
        }
    }

    /// When [`Container::settle`] or [`Container::conclude`] has to be called again, if nothing happens before.
    pub fn next_time(&self) -> Option<Instant> {
        let now = Instant::now();
        let ending = match self.phase {
            Phase::Ending { read_until: Some(until), .. } => Some(until.min(now + LOOK)),
            Phase::Ending { until, .. } => Some(until),
            Phase::Exited { since, .. } if !self.streams.clients.is_empty() => Some(since + LAST_READING),
            Phase::Exited { .. } | Phase::Created(_) | Phase::Running(_) | Phase::Discarded => None,
        };
        let execs = self.execs.iter().filter(|exec| exec.streams.has_output()).filter_map(|exec| exec.ended);
        let probes = self.execs.iter().filter_map(|exec| exec.capturing.as_ref()?.deadline);
        let release = self.release.map(|until| until.min(now + Duration::from_millis(10)));
        execs.chain(probes).chain(ending).chain(release).min()
    }

    /// Nothing is left to do for the container.
    pub fn is_over(&self) -> bool {
        let ended = matches!(self.phase, Phase::Exited { .. } | Phase::Discarded);
        let compressing = self.log.as_ref().is_some_and(Log::is_compressing);
        ended
            && !compressing
            && self.release.is_none()
            && self.execs.is_empty()
            && self.streams.clients.is_empty()
    }

    /// A connection has ended: what it held goes on.
    pub fn let_go(&mut self, connection: u64) {
        if self.held_by == Some(connection) {
            self.held_by = None;
            // Of a container that has ended meanwhile there is nothing to thaw.
            let _ = self.cgroup.thaw();
        }
    }

    /// Whether the cgroup's count of OOM kills has grown.
    pub fn count_oom_kills(&mut self) -> bool {
        let before = std::mem::replace(&mut self.oom_kills, self.cgroup.oom_kills());
        self.oom_kills > before
    }
}

/// The exit code by convention, and the signal.
fn code(ended: Ended) -> (i32, Option<i32>) {
    match ended {
        Ended::Code(code) => (code, None),
        Ended::Signal(signal) => (128 + signal, Some(signal)),
    }
}

/// Leaves the exit where the next daemon finds it. The run directory is in memory: nothing is synced.
fn write_exit(directory: &Path, exit: &Exit) -> io::Result<()> {
    let unfinished = directory.join("exit.json.tmp");
    fs::write(&unfinished, serde_json::to_vec(exit)?)?;
    fs::rename(&unfinished, directory.join(EXIT_NAME))
}
