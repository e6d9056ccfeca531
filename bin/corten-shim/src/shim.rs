//! The loop: everything that can wake the shim, and what it does then.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use logs::Stream;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use shim_protocol::{Answer, Notice, SOCKET_NAME};

use crate::client::Client;
use crate::commands;
use crate::connection::{Connection, ConnectionError};
use crate::container::{Container, FIRST, Key, Phase, STREAMS};
use crate::oom::Watch;

/// Bytes read at once. Beyond what the allocator takes from the heap, so that it is given back when it is freed.
const BUFFER: usize = 128 * 1024;
/// How long after the last event memory that only a busy shim needs is kept.
const IDLE: Duration = Duration::from_millis(200);

/// What can wake the shim.
#[derive(Debug, Clone, Copy)]
enum Event {
    Signal,
    Listener,
    Connection(u64),
    Output(Key, Stream),
    Input(Key),
    Client(Key, u64),
    Memory,
}

pub struct Shim {
    signals: OwnedFd,
    pub listener: Option<OwnedFd>,
    /// The last one gets the notices.
    connections: Vec<Connection>,
    /// Of clients, connections and execs; 0 is the first process.
    next_id: u64,
    /// Empty while idle.
    buffer: Vec<u8>,
    pub container: Option<Container>,
    /// What processes get whose spec does not say.
    pub oom_score_adj: i32,
}

impl Shim {
    pub fn new(daemon: OwnedFd, signals: OwnedFd, oom_score_adj: i32) -> Shim {
        Shim {
            signals,
            listener: None,
            connections: vec![Connection::new(1, daemon)],
            next_id: 1,
            buffer: Vec::new(),
            container: None,
            oom_score_adj,
        }
    }

    /// Serves until nothing is left to do.
    pub fn run(mut self) -> io::Result<()> {
        while !self.is_over() {
            for (event, ready) in self.wait()? {
                self.handle(event, ready);
            }
            self.settle();
        }
        if let Some(container) = &self.container {
            let _ = std::fs::remove_file(container.run_directory.join(SOCKET_NAME));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.connections.is_empty() && self.container.as_ref().is_none_or(Container::is_over)
    }

    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    // --- waiting

    /// Waits for something to happen, or for the time to carry on.
    fn wait(&mut self) -> io::Result<Vec<(Event, PollFlags)>> {
        let (mut set, events) = self.interests();
        let mut until = self.container.as_ref().and_then(Container::next_time);
        let is_idle = self.buffer.is_empty();
        if !is_idle {
            let idle = Instant::now() + IDLE;
            until = Some(until.map_or(idle, |time| time.min(idle)));
        }
        let timeout = until.map(|time| {
            let rest = time.saturating_duration_since(Instant::now());
            Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() }
        });
        match rustix::event::poll(&mut set, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(Vec::new()),
            other => drop(other?),
        }
        let ready: Vec<(Event, PollFlags)> = events
            .into_iter()
            .zip(set.iter().map(PollFd::revents))
            .filter(|(_, ready)| !ready.is_empty())
            .collect();
        if ready.is_empty() && !is_idle {
            self.become_idle();
        }
        Ok(ready)
    }

    fn interests(&self) -> (Vec<PollFd<'_>>, Vec<Event>) {
        let (mut set, mut events) = (Vec::with_capacity(8), Vec::with_capacity(8));
        let mut add = |event, descriptor, interest| {
            set.push(PollFd::from_borrowed_fd(descriptor, interest));
            events.push(event);
        };
        add(Event::Signal, self.signals.as_fd(), PollFlags::IN);
        if let Some(listener) = &self.listener {
            add(Event::Listener, listener.as_fd(), PollFlags::IN);
        }
        for connection in &self.connections {
            add(Event::Connection(connection.id), connection.socket(), connection.interest());
        }
        let Some(container) = &self.container else { return (set, events) };
        if let Some(watch) = &container.oom_watch {
            add(Event::Memory, watch.descriptor(), PollFlags::IN);
        }
        let execs = container.execs.iter().map(|exec| (exec.key, &exec.streams));
        for (key, streams) in std::iter::once((FIRST, &container.streams)).chain(execs) {
            for stream in STREAMS {
                if let Some(output) = streams.output(stream) {
                    add(Event::Output(key, stream), output.as_fd(), PollFlags::IN);
                }
            }
            if let Some(input) = streams.input() {
                add(Event::Input(key), input.as_fd(), PollFlags::OUT);
            }
            for client in &streams.clients {
                let interest = client.interest(streams.takes_input());
                add(Event::Client(key, client.id), client.socket(), interest);
            }
        }
        (set, events)
    }

    fn become_idle(&mut self) {
        self.buffer = Vec::new();
        if let Some(log) = self.container.as_mut().and_then(|container| container.log.as_mut()) {
            log.trim();
        }
        sys::memory::trim();
    }

    // --- acting

    fn handle(&mut self, event: Event, ready: PollFlags) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER];
        }
        match event {
            Event::Signal => self.reap(),
            Event::Listener => self.accept(),
            Event::Connection(id) => self.serve(id),
            Event::Output(key, stream) => {
                if let Some(container) = &mut self.container {
                    container.pump(key, stream, &mut self.buffer);
                }
            }
            Event::Input(key) => {
                if let Some(streams) = self.container.as_mut().and_then(|container| container.streams(key)) {
                    streams.write_input();
                }
            }
            Event::Client(key, client) => self.serve_client(key, client, ready),
            Event::Memory => self.hear_of_memory(),
        }
    }

    /// Takes the ended children: the first process, execs, the log's compressor, orphans.
    fn reap(&mut self) {
        sys::signal::clear(self.signals.as_fd());
        while let Ok(Some((pid, ended))) = sys::signal::reap() {
            let Some(container) = &mut self.container else { continue };
            if container.oom_watch.is_none() && container.count_oom_kills() {
                self.notify(Notice::OutOfMemory);
            }
            let Some(container) = &mut self.container else { continue };
            let success = ended == sys::process::Ended::Code(0);
            if pid == container.pid {
                container.first_ended(ended, &mut self.buffer);
            } else if let Some((exec, code, captured)) = container.exec_ended(pid, ended, &mut self.buffer) {
                self.notify(Notice::ExecExited { exec, code, captured });
            } else if let Some(log) = &mut container.log {
                log.reaped(pid, success);
            }
        }
    }

    fn hear_of_memory(&mut self) {
        let Some(container) = &mut self.container else { return };
        let certain = container.oom_watch.as_ref().is_some_and(Watch::take);
        // The end of a cgroup is an event too.
        let alive = container.running().is_some();
        if alive && (container.count_oom_kills() || certain) {
            self.notify(Notice::OutOfMemory);
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(socket) = rustix::net::accept_with(listener, flags) {
            let id = self.new_id();
            self.connections.push(Connection::new(id, socket));
        }
    }

    fn serve_client(&mut self, key: Key, client: u64, ready: PollFlags) {
        let Some(container) = &mut self.container else { return };
        let Some(streams) = container.streams(key) else { return };
        if streams.serve_client(client, ready, &mut self.buffer) {
            self.notify_detached(key);
        }
    }

    /// A client of this process typed its detach keys.
    pub fn notify_detached(&mut self, key: Key) {
        let execs = self.container.iter().flat_map(|container| &container.execs);
        let exec = execs.into_iter().find(|exec| exec.key == key).map(|exec| exec.id.clone());
        self.notify(Notice::Detached { exec });
    }

    /// Carries on with what waits for something else.
    fn settle(&mut self) {
        if self.connections.is_empty()
            && let Some(container) = &mut self.container
            && matches!(container.phase, Phase::Created(_))
        {
            // Nobody knows of it, and nobody will start it.
            container.discard();
        }
        let Some(container) = &mut self.container else { return };
        if let Some((exit, running)) = container.conclude() {
            self.notify(Notice::Exited(exit));
            // Takes the mounts down, which may take a while: after the exit was told.
            drop(running);
        }
        if let Some(container) = &mut self.container {
            container.settle();
        }
    }

    // --- daemons

    /// Tells the newest daemon. If it cannot be told, it is gone, and the next one asks.
    pub fn notify(&mut self, notice: Notice) {
        while let Some(connection) = self.connections.last_mut() {
            if connection.send(&Answer::Notice(notice.clone()), None).is_ok() {
                return;
            }
            if let Some(lost) = self.connections.pop() {
                self.let_go(lost.id);
            }
        }
    }

    /// What a daemon held may have nobody left to let it go.
    fn let_go(&mut self, connection: u64) {
        if let Some(container) = &mut self.container {
            container.let_go(connection);
            container.streams.clients.iter_mut().for_each(Client::release);
        }
    }

    fn serve(&mut self, id: u64) {
        if self.serve_requests(id).is_err() {
            self.connections.retain(|connection| connection.id != id);
            self.let_go(id);
        }
    }

    fn serve_requests(&mut self, id: u64) -> Result<(), ConnectionError> {
        let connection = self.connections.iter_mut().find(|connection| connection.id == id);
        let connection = connection.ok_or(ConnectionError::Closed)?;
        connection.receive(&mut self.buffer)?;
        connection.flush()?;
        while let Some((request, payload)) = self.connection(id)?.request()? {
            let count = commands::descriptors(&request.command);
            let descriptors = self.connection(id)?.descriptors(count)?;
            let (reply, descriptor) = self.execute(id, request.command, payload, descriptors);
            let answer = Answer::Reply { reply_to: request.seq, reply };
            self.connection(id)?.send(&answer, descriptor)?;
        }
        Ok(())
    }

    fn connection(&mut self, id: u64) -> Result<&mut Connection, ConnectionError> {
        self.connections.iter_mut().find(|connection| connection.id == id).ok_or(ConnectionError::Closed)
    }
}

/// Listens on the socket in the run directory.
pub fn listen(run_directory: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

    // The path may be longer than a socket's address can be; that of its folder's descriptor is not.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(run_directory, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(mask);
    bound?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}
