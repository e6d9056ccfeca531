//! A client's own stream: the process's output is written straight into it, input is read from it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use logs::Stream;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use shim_protocol::Attach;

use crate::keys::Keys;

/// What became of a client's input.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    Nothing,
    Some,
    /// It closed its side.
    End,
    /// It typed the detach keys.
    Detach,
}

/// A client that is attached to a process.
#[derive(Debug)]
pub struct Client {
    /// Unique among the clients of all processes.
    pub id: u64,
    socket: OwnedFd,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    multiplexed: bool,
    keys: Keys,
    /// Typed before its stream came here.
    early_input: Vec<u8>,
    /// Output that the socket did not take. While there is some, no more output is read (but what a process left
    /// behind at its end), so this is bounded by one read.
    pending: Vec<u8>,
    /// Nothing is sent yet.
    held: bool,
    /// Close when all is sent.
    closing: bool,
    dead: bool,
}

impl Client {
    pub fn new(id: u64, attach: Attach, socket: OwnedFd) -> Client {
        let Attach { stdin, stdout, stderr, multiplexed, detach_keys, early_input, held } = attach;
        Client {
            id,
            socket,
            stdin,
            stdout,
            stderr,
            multiplexed,
            keys: Keys::new(detach_keys),
            early_input: if stdin { early_input } else { Vec::new() },
            pending: Vec::new(),
            held,
            closing: false,
            dead: false,
        }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether it has been sent something that it has not read yet, though it reads.
    pub fn has_unread(&self) -> bool {
        let reads = !self.dead && !self.held && self.pending.is_empty();
        reads && sys::network::untaken(self.socket()).is_ok_and(|bytes| bytes > 0)
    }

    /// What to wait for; a hangup is always told.
    pub fn interest(&self, takes_input: bool) -> PollFlags {
        let mut interest = PollFlags::empty();
        if self.stdin && takes_input {
            interest |= PollFlags::IN;
        }
        if !self.pending.is_empty() && !self.held {
            interest |= PollFlags::OUT;
        }
        interest
    }

    /// Whether output of this stream must wait for the client.
    pub fn is_behind(&self, stream: Stream) -> bool {
        self.wants(stream) && (self.held || !self.pending.is_empty())
    }

    /// Sends what was held back, and everything from now on.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.held) {
            self.flush();
        }
    }

    fn wants(&self, stream: Stream) -> bool {
        !self.dead
            && !self.closing
            && match stream {
                Stream::Stdout => self.stdout,
                Stream::Stderr => self.stderr,
            }
    }

    pub fn is_gone(&self) -> bool {
        self.dead
    }

    /// Whether more input may come from it.
    pub fn has_input(&self) -> bool {
        self.stdin
    }

    /// Gives up on the client.
    pub fn drop_it(&mut self) {
        self.dead = true;
    }

    // --- output

    /// Sends output, or keeps what the socket does not take.
    pub fn send(&mut self, stream: Stream, output: &[u8]) {
        if !self.wants(stream) {
            return;
        }
        let length = (output.len() as u32).to_be_bytes();
        let header = [stream.frame_type(), 0, 0, 0, length[0], length[1], length[2], length[3]];
        let header = if self.multiplexed { &header[..] } else { &[] };
        let free = self.pending.is_empty() && !self.held;
        let sent = if free { self.send_now(&[header, output]) } else { Ok(0) };
        match sent {
            Ok(sent) => {
                self.pending.extend_from_slice(header.get(sent..).unwrap_or_default());
                self.pending.extend_from_slice(&output[sent.saturating_sub(header.len())..]);
            }
            Err(_) => self.dead = true,
        }
    }

    fn send_now(&self, parts: &[&[u8]]) -> io::Result<usize> {
        let parts: [IoSlice<'_>; 2] =
            [IoSlice::new(parts.first().unwrap_or(&&[][..])), IoSlice::new(parts.get(1).unwrap_or(&&[][..]))];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends what is pending, as far as the socket takes it.
    pub fn flush(&mut self) {
        if self.held {
            return;
        }
        match self.send_now(&[&self.pending]) {
            Ok(sent) => {
                self.pending.drain(..sent);
            }
            Err(_) => self.dead = true,
        }
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        self.close_if_done();
    }

    /// Lets the client see the end, as soon as everything before it is sent.
    pub fn close(&mut self) {
        self.closing = true;
        self.stdin = false;
        self.close_if_done();
    }

    fn close_if_done(&mut self) {
        if !self.closing || self.dead || self.held || !self.pending.is_empty() {
            return;
        }
        // Unread input would turn the end of the stream into a reset.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        let mut unread = [0; 512];
        while matches!(rustix::net::recv(&self.socket, &mut unread, RecvFlags::DONTWAIT), Ok((1.., _))) {}
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        self.dead = true;
    }

    // --- input

    /// Reads what the client typed, into `typed`. `buffer` is scratch space.
    pub fn receive(&mut self, buffer: &mut [u8], typed: &mut Vec<u8>) -> Typed {
        if !self.stdin {
            return Typed::Nothing;
        }
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.end_input(typed),
            Ok((count, _)) => self.scan_input(&buffer[..count], typed),
            Err(Errno::INTR | Errno::AGAIN) => Typed::Nothing,
            Err(_) => {
                self.dead = true;
                self.end_input(typed)
            }
        }
    }

    /// As [`Client::receive`], of what came before its stream.
    pub fn receive_early(&mut self, typed: &mut Vec<u8>) -> Typed {
        let early = std::mem::take(&mut self.early_input);
        if early.is_empty() { Typed::Nothing } else { self.scan_input(&early, typed) }
    }

    fn scan_input(&mut self, input: &[u8], typed: &mut Vec<u8>) -> Typed {
        if self.keys.scan(input, typed) { Typed::Detach } else { Typed::Some }
    }

    fn end_input(&mut self, typed: &mut Vec<u8>) -> Typed {
        self.stdin = false;
        self.keys.finish(typed);
        Typed::End
    }

    /// The client's stream is closed on both sides. True if there may still be input in it.
    pub fn hung_up(&mut self) -> bool {
        if self.stdin {
            return true;
        }
        self.dead = true;
        false
    }
}
