//! A connection to a daemon: frames in, answers out, descriptors with both.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use shim_protocol::{Answer, DESCRIPTORS_MAX, FrameError, Request};

/// Bytes of answers that a daemon may leave unread before it counts as dead.
const OUTBOUND_MAX: usize = 4 << 20;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("daemon closed the connection")]
    Closed,
    #[error("connection to the daemon: {0}")]
    System(#[from] io::Error),
    #[error("message from the daemon: {0}")]
    Frame(#[from] FrameError),
    #[error("a message from the daemon lacks a descriptor")]
    MissingDescriptor,
    #[error("the daemon sent descriptors that no message asked for")]
    UnknownDescriptors,
    #[error("the daemon does not read its answers")]
    Unread,
}

impl From<Errno> for ConnectionError {
    fn from(error: Errno) -> Self {
        ConnectionError::System(error.into())
    }
}

/// An answer on its way.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// Goes with the first byte.
    descriptor: Option<OwnedFd>,
}

#[derive(Debug)]
pub struct Connection {
    pub id: u64,
    socket: OwnedFd,
    inbound: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    outbound: VecDeque<Outgoing>,
}

impl Connection {
    pub fn new(id: u64, socket: OwnedFd) -> Connection {
        Connection {
            id,
            socket,
            inbound: Vec::new(),
            descriptors: VecDeque::new(),
            outbound: VecDeque::new(),
        }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn interest(&self) -> PollFlags {
        if self.outbound.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Reads what is there.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<(), ConnectionError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(buffer)];
        let count = match rustix::net::recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
            Ok(received) => received.bytes,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                self.descriptors.extend(passed);
            }
        }
        if count == 0 {
            return Err(ConnectionError::Closed);
        }
        if self.descriptors.len() > 2 * DESCRIPTORS_MAX {
            return Err(ConnectionError::UnknownDescriptors);
        }
        self.inbound.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    /// Takes the next request that is all there, with its payload.
    pub fn request(&mut self) -> Result<Option<(Request, Vec<u8>)>, ConnectionError> {
        let request = shim_protocol::decode(&mut self.inbound)?;
        if self.inbound.is_empty() {
            // Requests are rare, and the first one is large.
            self.inbound = Vec::new();
        }
        Ok(request)
    }

    /// Takes descriptors that came with a request. They came with its first byte or before, so they are there.
    pub fn descriptors(&mut self, count: usize) -> Result<Vec<OwnedFd>, ConnectionError> {
        if self.descriptors.len() < count {
            return Err(ConnectionError::MissingDescriptor);
        }
        Ok(self.descriptors.drain(..count).collect())
    }

    /// Sends an answer, now or when the daemon reads.
    pub fn send(&mut self, answer: &Answer, descriptor: Option<OwnedFd>) -> Result<(), ConnectionError> {
        let bytes = shim_protocol::encode(answer, &[])?;
        self.outbound.push_back(Outgoing { bytes, sent: 0, descriptor });
        self.flush()?;
        let unread: usize = self.outbound.iter().map(|outgoing| outgoing.bytes.len()).sum();
        if unread > OUTBOUND_MAX { Err(ConnectionError::Unread) } else { Ok(()) }
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while let Some(outgoing) = self.outbound.front_mut() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptor = outgoing.descriptor.as_ref().map(AsFd::as_fd);
            if let Some(descriptor) = &descriptor {
                ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
            }
            let parts = [IoSlice::new(&outgoing.bytes[outgoing.sent..])];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.socket, &parts, &mut ancillary, flags) {
                Ok(sent) => {
                    outgoing.sent += sent;
                    outgoing.descriptor = None;
                    if outgoing.sent == outgoing.bytes.len() {
                        self.outbound.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
