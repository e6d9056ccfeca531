//! What the new process and the one that made it say to each other.
//!
//! The socket is closed by `execve`, so its end says that the program runs: [`Stage`] tells that from a process
//! that was killed before.

use std::os::fd::{AsFd, OwnedFd};

use sys::Channel;
use sys::process::SharedNumber;

use crate::Error;
use crate::error::Step;

/// Child to parent.
#[derive(Debug)]
pub(crate) enum Report {
    /// Its netlink socket.
    Netlink(OwnedFd),
    /// The root is built and not yet entered: hooks may run.
    RootBuilt,
    /// The terminal's controlling side.
    Terminal(OwnedFd),
    /// A seccomp filter's listener.
    Listener(OwnedFd),
    /// Nothing is left but to execute the program.
    Ready,
    /// The ID of the process that takes this one's place, as the parent sees it.
    Successor(i32),
    Failed(Error),
    /// The socket was closed.
    Closed,
}

/// Parent to child.
#[derive(Debug)]
pub(crate) enum Order {
    /// The user namespace has its mappings.
    Mapped,
    /// The `tasks` files of the process's cgroups; none on v2.
    Join(Vec<OwnedFd>),
    /// The hooks have run.
    Continue,
    /// Execute the program.
    Go,
}

/// How far the process is.
#[derive(Debug)]
pub(crate) struct Stage(SharedNumber);

impl Stage {
    pub fn new() -> Result<Stage, Error> {
        Ok(Stage(SharedNumber::new().step(|| "map memory".into())?))
    }

    pub fn executing(&self) {
        self.0.set(1);
    }

    pub fn is_executing(&self) -> bool {
        self.0.get() == 1
    }
}

const LINE: &str = "talk to the container's first process";

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd(pub Channel);

impl ParentEnd {
    pub fn next(&self) -> Result<Report, Error> {
        let mut buffer = [0; 4096];
        let mut descriptors = Vec::new();
        let length = loop {
            match self.0.receive(&mut buffer, &mut descriptors) {
                // The other end was closed with something unread; the kernel says so once, and before it hands
                // out what was sent last.
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => {}
                other => break other.step(|| LINE.into())?,
            }
        };
        let descriptor = descriptors.pop();
        Ok(match (buffer[..length].split_first(), descriptor) {
            (None, _) => Report::Closed,
            (Some((b'N', _)), Some(socket)) => Report::Netlink(socket),
            (Some((b'T', _)), Some(terminal)) => Report::Terminal(terminal),
            (Some((b'L', _)), Some(listener)) => Report::Listener(listener),
            (Some((b'B', _)), _) => Report::RootBuilt,
            (Some((b'R', _)), _) => Report::Ready,
            (Some((b'S', number)), _) if number.len() == 4 => {
                Report::Successor(i32::from_ne_bytes([number[0], number[1], number[2], number[3]]))
            }
            (Some((b'E', body)), _) => Report::Failed(decode(body)),
            _ => return Err(Error::system(LINE, rustix::io::Errno::PROTO)),
        })
    }

    pub fn send(&self, order: &Order) -> Result<(), Error> {
        let (letter, descriptors): (&[u8], &[OwnedFd]) = match order {
            Order::Mapped => (b"M", &[]),
            Order::Join(tasks) => (b"J", tasks),
            Order::Continue => (b"C", &[]),
            Order::Go => (b"G", &[]),
        };
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.0.send(letter, &descriptors).step(|| LINE.into())
    }
}

/// The child's end.
#[derive(Debug)]
pub(crate) struct ChildEnd(pub Channel);

impl ChildEnd {
    pub fn next(&self) -> Result<Order, Error> {
        let mut buffer = [0; 16];
        let mut descriptors = Vec::new();
        let length = self.0.receive(&mut buffer, &mut descriptors).step(|| LINE.into())?;
        Ok(match &buffer[..length] {
            b"M" => Order::Mapped,
            b"J" => Order::Join(descriptors),
            b"C" => Order::Continue,
            b"G" => Order::Go,
            // The parent is gone, and with it the container.
            _ => return Err(Error::system(LINE, rustix::io::Errno::PIPE)),
        })
    }

    pub fn send(&self, report: &Report) -> Result<(), Error> {
        let mut message = Vec::new();
        let descriptor = match report {
            Report::Netlink(socket) => {
                message.push(b'N');
                Some(socket.as_fd())
            }
            Report::Terminal(terminal) => {
                message.push(b'T');
                Some(terminal.as_fd())
            }
            Report::Listener(listener) => {
                message.push(b'L');
                Some(listener.as_fd())
            }
            Report::RootBuilt => {
                message.push(b'B');
                None
            }
            Report::Ready => {
                message.push(b'R');
                None
            }
            Report::Successor(pid) => {
                message.push(b'S');
                message.extend_from_slice(&pid.to_ne_bytes());
                None
            }
            Report::Failed(error) => {
                message.push(b'E');
                encode(error, &mut message);
                None
            }
            Report::Closed => return Ok(()),
        };
        self.0.send(&message, descriptor.as_slice()).step(|| LINE.into())
    }
}

/// Longest error text, in bytes; the rest is cut.
const TEXT_MAX: usize = 3 << 10;

fn encode(error: &Error, message: &mut Vec<u8>) {
    let (kind, errno, text) = match error {
        Error::ProgramNotFound(text) => (0u8, 0, text),
        Error::ProgramNotExecutable(text) => (1, 0, text),
        Error::Invalid(text) => (2, 0, text),
        Error::System { step, errno } => (3, *errno, step),
    };
    message.push(kind);
    message.extend_from_slice(&errno.to_ne_bytes());
    message.extend_from_slice(&text.as_bytes()[..text.len().min(TEXT_MAX)]);
}

fn decode(body: &[u8]) -> Error {
    let Some((head, text)) = body.split_first_chunk::<5>() else {
        return Error::system(LINE, rustix::io::Errno::PROTO);
    };
    let text = String::from_utf8_lossy(text).into_owned();
    match head[0] {
        0 => Error::ProgramNotFound(text),
        1 => Error::ProgramNotExecutable(text),
        2 => Error::Invalid(text),
        _ => Error::System { step: text, errno: i32::from_ne_bytes([head[1], head[2], head[3], head[4]]) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_arrive_as_they_were_sent() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (parent, child) = (ParentEnd(ours), ChildEnd(theirs));
        for error in [
            Error::ProgramNotFound("exec: \"x\": executable file not found in $PATH".into()),
            Error::ProgramNotExecutable("é".into()),
            Error::Invalid(String::new()),
            Error::System { step: "mount /proc".into(), errno: libc::EPERM },
        ] {
            child.send(&Report::Failed(error.clone())).unwrap();
            let Report::Failed(received) = parent.next().unwrap() else { panic!("not a failure") };
            assert_eq!(received, error);
        }
        child.send(&Report::Failed(Error::Invalid("x".repeat(10_000)))).unwrap();
        assert!(
            matches!(parent.next().unwrap(), Report::Failed(Error::Invalid(text)) if text.len() == TEXT_MAX)
        );
        drop(child);
        assert!(matches!(parent.next().unwrap(), Report::Closed));
    }

    #[test]
    fn the_last_words_of_a_child_that_did_not_listen_are_heard() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (parent, child) = (ParentEnd(ours), ChildEnd(theirs));
        parent.send(&Order::Go).unwrap();
        child.send(&Report::Failed(Error::Invalid("why".into()))).unwrap();
        drop(child);
        assert!(matches!(parent.next().unwrap(), Report::Failed(Error::Invalid(text)) if text == "why"));
        assert!(matches!(parent.next().unwrap(), Report::Closed));
    }
}
