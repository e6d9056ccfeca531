//! Terminals, streams and signals of a container that this process stays with.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use rustix::termios::{OptionalActions, Termios};
use sys::process::Ended;

use crate::{Context, Failure};

/// Sends a descriptor to whoever listens at a socket.
pub fn hand_over(socket: &Path, descriptor: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failure> {
    let what = || format!("send to {}", socket.display());
    let address = SocketAddrUnix::new(socket).context(what)?;
    let connection =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context(what)?;
    rustix::net::connect(&connection, &address).context(what)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(&connection, &[IoSlice::new(name)], &mut ancillary, SendFlags::NOSIGNAL)
        .context(what)?;
    Ok(())
}

/// Signals that are passed on to the container.
const FORWARDED: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGALRM,
];

/// The signals of this process as something to wait for.
pub struct Signals(OwnedFd);

impl Signals {
    pub fn watch() -> Result<Signals, Failure> {
        let mut watched = FORWARDED.to_vec();
        watched.extend([libc::SIGCHLD, libc::SIGWINCH]);
        Ok(Signals(sys::signal::watch(&watched).context(|| "watch signals".into())?))
    }

    fn next(&self) -> Option<i32> {
        let mut information = [0; 128];
        match rustix::io::read(&self.0, &mut information[..]) {
            Ok(128) => {
                Some(i32::from_ne_bytes([information[0], information[1], information[2], information[3]]))
            }
            _ => None,
        }
    }
}

/// Sets this process's terminal to raw mode, and back when it is dropped.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> RawMode {
        let stdin = std::io::stdin();
        let Ok(before) = rustix::termios::tcgetattr(&stdin) else { return RawMode(None) };
        let mut raw = before.clone();
        raw.make_raw();
        // Output stays as it is: the container's terminal has added the carriage returns already.
        match rustix::termios::tcsetattr(&stdin, OptionalActions::Now, &raw) {
            Ok(()) => RawMode(Some(before)),
            Err(_) => RawMode(None),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Stays with a process until it ends: passes signals on, and a terminal's input and output. Returns the code to
/// exit with.
pub fn attend(signals: &Signals, pid: i32, terminal: Option<&OwnedFd>) -> Result<u8, Failure> {
    let _raw = terminal.map(|_| RawMode::enter());
    let mut terminal = terminal.map(|terminal| terminal.try_clone().map(std::fs::File::from)).transpose()?;
    if let Some(terminal) = &terminal {
        take_size(terminal.as_fd());
    }
    let mut listens = terminal.is_some();
    let mut ended = None;
    loop {
        while let Some(signal) = signals.next() {
            match signal {
                libc::SIGCHLD => {
                    while let Ok(Some((child, how))) = sys::signal::reap() {
                        if child == pid {
                            ended = Some(how);
                        }
                    }
                }
                libc::SIGWINCH => {
                    if let Some(terminal) = &terminal {
                        take_size(terminal.as_fd());
                    }
                }
                other => {
                    let _ = sys::process::kill(pid, other);
                }
            }
        }
        match (ended, &terminal) {
            (Some(Ended::Code(code)), None) => return Ok(code as u8),
            (Some(Ended::Signal(signal)), None) => return Ok(128 + signal as u8),
            _ => {}
        }
        wait(signals, &mut terminal, &mut listens, ended.is_some())?;
    }
}

fn take_size(terminal: BorrowedFd<'_>) {
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) {
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}

/// Waits for a signal, and moves bytes meanwhile. A terminal is given up when its other side has gone.
fn wait(
    signals: &Signals,
    terminal: &mut Option<std::fs::File>,
    listens: &mut bool,
    ended: bool,
) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    let mut ready = [PollFlags::empty(); 3];
    {
        let mut polled = vec![PollFd::new(&signals.0, PollFlags::IN)];
        if let Some(terminal) = terminal.as_ref() {
            polled.push(PollFd::new(terminal, PollFlags::IN));
            if *listens {
                polled.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        // When the program has ended, what it said last is already there.
        let patience = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let count = match rustix::event::poll(&mut polled, ended.then_some(&patience)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other.context(|| "wait".into())?,
        };
        if count == 0 && ended {
            *terminal = None;
            return Ok(());
        }
        for (ready, polled) in ready.iter_mut().zip(&polled) {
            *ready = polled.revents();
        }
    }
    let mut buffer = [0; 16384];
    let Some(file) = terminal else { return Ok(()) };
    if !ready[1].is_empty() {
        match file.read(&mut buffer) {
            Ok(0) | Err(_) => {
                *terminal = None;
                return Ok(());
            }
            Ok(count) => {
                let mut stdout = std::io::stdout().lock();
                stdout
                    .write_all(&buffer[..count])
                    .and_then(|()| stdout.flush())
                    .context(|| "write".into())?;
            }
        }
    }
    if !ready[2].is_empty() {
        match rustix::io::read(&stdin, &mut buffer[..]) {
            Ok(0) | Err(_) => *listens = false,
            Ok(count) => file.write_all(&buffer[..count]).context(|| "write to the terminal".into())?,
        }
    }
    Ok(())
}
