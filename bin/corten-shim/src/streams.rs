//! The standard streams of one process: its pipes or terminal on one side, log and clients on the other.
//!
//! Nothing is lost and nothing grows without bound: output is read only when every client that wants it has
//! taken what was read before, and input only when the process has taken what was typed before.

use std::io;
use std::os::fd::OwnedFd;

use logs::Stream;
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::client::{Client, Typed};

/// What reading output came to.
pub enum Output {
    /// So many bytes are in the buffer.
    Read(usize),
    Nothing,
    /// There is and will be no more.
    End,
}

/// Where typed input goes.
#[derive(Debug)]
enum Input {
    /// The terminal that it goes to is not made yet.
    Expected,
    Open(OwnedFd),
    /// The process has none, or has closed it: input is read and thrown away, so that detach keys still work.
    Closed,
}

/// One process's streams.
#[derive(Debug)]
pub struct Streams {
    outputs: [Option<OwnedFd>; 2],
    input: Input,
    terminal: bool,
    /// The end of a client's input is the end of the process's.
    once: bool,
    /// Input that the process has not taken.
    typed: Vec<u8>,
    /// Close the input when it has taken all of it.
    input_ends: bool,
    pub clients: Vec<Client>,
}

/// How the process's standard streams are to be made.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub terminal: bool,
    pub stdin: bool,
    /// Output goes somewhere; else it is thrown away by the kernel.
    pub output: bool,
    pub once: bool,
}

impl Streams {
    /// Makes pipes. Their other ends are for the process; with a terminal, it makes that itself.
    pub fn new(wanted: Wanted) -> io::Result<(Streams, sandbox::Stdio)> {
        let mut streams = Streams {
            outputs: [None, None],
            input: Input::Closed,
            terminal: wanted.terminal,
            // Not on a terminal: there the end is typed, and a client that goes, or detaches, leaves it open.
            once: wanted.once && !wanted.terminal,
            typed: Vec::new(),
            input_ends: false,
            clients: Vec::new(),
        };
        if wanted.terminal {
            streams.input = if wanted.stdin { Input::Expected } else { Input::Closed };
            return Ok((streams, sandbox::Stdio::Terminal));
        }
        let stdin = if wanted.stdin {
            let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
            streams.input = Input::Open(ours);
            theirs
        } else {
            null(OFlags::RDONLY)?
        };
        let mut output = |index: usize| {
            if !wanted.output {
                return null(OFlags::WRONLY);
            }
            let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
            streams.outputs[index] = Some(ours);
            Ok(theirs)
        };
        let (stdout, stderr) = (output(0)?, output(1)?);
        Ok((streams, sandbox::Stdio::Descriptors { stdin, stdout, stderr }))
    }

    /// The process made its terminal.
    pub fn set_terminal(&mut self, controller: OwnedFd) -> io::Result<()> {
        rustix::fs::fcntl_setfl(&controller, OFlags::NONBLOCK)?;
        if matches!(self.input, Input::Expected) {
            self.input = Input::Open(rustix::io::fcntl_dupfd_cloexec(&controller, 3)?);
        }
        self.outputs[0] = Some(controller);
        Ok(())
    }

    /// Sets the terminal's size; false if the process has no terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<bool> {
        match &self.outputs[0] {
            Some(terminal) if self.terminal => sys::terminal::resize(terminal, rows, columns).map(|()| true),
            _ => Ok(false),
        }
    }

    // --- output

    /// The descriptor of an output, if it is time to read it.
    pub fn output(&self, stream: Stream) -> Option<&OwnedFd> {
        let behind = self.clients.iter().any(|client| client.is_behind(stream));
        self.outputs[stream as usize].as_ref().filter(|_| !behind)
    }

    /// Whether any output can still come.
    pub fn has_output(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// Reads once.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Output {
        let slot = &mut self.outputs[stream as usize];
        let Some(descriptor) = slot else { return Output::Nothing };
        match rustix::io::read(&*descriptor, &mut *buffer) {
            Ok(count @ 1..) => Output::Read(count),
            Err(Errno::INTR | Errno::AGAIN) => Output::Nothing,
            // A terminal whose other side is closed says EIO.
            Ok(0) | Err(_) => {
                *slot = None;
                Output::End
            }
        }
    }

    /// Reads no more, whatever may still come.
    pub fn give_up_output(&mut self) {
        self.outputs = [None, None];
    }

    /// Gives output to the clients.
    pub fn send(&mut self, stream: Stream, output: &[u8]) {
        for client in &mut self.clients {
            client.send(stream, output);
        }
    }

    /// Lets the clients see the end.
    pub fn close_clients(&mut self) {
        for client in &mut self.clients {
            client.close();
        }
        self.remove_gone();
    }

    // --- input

    /// Whether clients should be asked for input.
    pub fn takes_input(&self) -> bool {
        self.typed.is_empty() && !matches!(self.input, Input::Expected)
    }

    /// The descriptor that input is written to, if some waits.
    pub fn input(&self) -> Option<&OwnedFd> {
        match &self.input {
            Input::Open(descriptor) if !self.typed.is_empty() => Some(descriptor),
            _ => None,
        }
    }

    /// Adds a client, with what it typed so far.
    pub fn add(&mut self, client: Client) {
        self.clients.push(client);
    }

    /// Gives the process what clients typed before they came here. True for a client that typed detach keys.
    pub fn take_early_input(&mut self) -> Vec<u64> {
        let mut detached = Vec::new();
        if matches!(self.input, Input::Expected) {
            return detached;
        }
        for client in &mut self.clients {
            if client.receive_early(&mut self.typed) == Typed::Detach {
                detached.push(client.id);
            }
        }
        self.write_input();
        detached
    }

    /// Serves a client's socket. True if the client typed its detach keys.
    pub fn serve_client(&mut self, id: u64, ready: PollFlags, buffer: &mut [u8]) -> bool {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return false };
        if ready.contains(PollFlags::OUT) {
            client.flush();
        }
        let over = ready.intersects(PollFlags::HUP | PollFlags::ERR);
        let mut typed = Typed::Nothing;
        if ready.contains(PollFlags::IN) || (over && client.hung_up()) {
            typed = client.receive(buffer, &mut self.typed);
        }
        match typed {
            Typed::End if self.once => self.input_ends = true,
            Typed::End if over => client.drop_it(),
            Typed::Nothing | Typed::Some | Typed::End => {}
            Typed::Detach => client.close(),
        }
        self.write_input();
        self.remove_gone();
        typed == Typed::Detach
    }

    /// Ends the stream of a client that detached.
    pub fn detach(&mut self, id: u64) {
        self.clients.iter_mut().filter(|client| client.id == id).for_each(Client::close);
        self.remove_gone();
    }

    /// Writes what was typed, as far as the process takes it.
    pub fn write_input(&mut self) {
        if matches!(self.input, Input::Closed) {
            self.typed = Vec::new();
        }
        let Input::Open(descriptor) = &self.input else { return };
        while !self.typed.is_empty() {
            match rustix::io::write(descriptor, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.close_input(),
            }
        }
        self.typed = Vec::new();
        if self.input_ends {
            self.close_input();
        }
    }

    /// Nothing more goes to the process.
    pub fn close_input(&mut self) {
        self.input = Input::Closed;
        self.typed = Vec::new();
    }

    /// Forgets clients that are gone.
    pub fn remove_gone(&mut self) {
        // A client that broke has closed its side of the input too.
        let input_lost = self.clients.iter().any(|client| client.is_gone() && client.has_input());
        self.clients.retain(|client| !client.is_gone());
        if input_lost && self.once {
            self.input_ends = true;
            self.write_input();
        }
    }
}

fn null(access: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(c"/dev/null", access | OFlags::CLOEXEC, rustix::fs::Mode::empty())?)
}
