//! Netlink messages: writing them, sending them in one go, and reading what the kernel answers.
//!
//! A [`Batch`] holds any number of requests in one buffer and goes out with one `send`. The kernel works
//! it off before that call returns, so every answer is then in the socket's queue: nothing here waits for
//! an event. Only the last request asks for an acknowledgement; refusals of earlier ones come unasked.
//!
//! Each request carries the name of the step it stands for, so that an error says which one was refused,
//! and with the kernel's own explanation when it gave one (extended acknowledgement).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

pub const F_REQUEST: u16 = 0x1;
pub const F_ACK: u16 = 0x4;
pub const F_DUMP: u16 = 0x300;
pub const F_EXCL: u16 = 0x200;
pub const F_REPLACE: u16 = 0x100;
pub const F_CREATE: u16 = 0x400;
pub const F_APPEND: u16 = 0x800;

const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
/// In answers: text and other attributes follow the error.
const F_ACK_TLVS: u16 = 0x200;
/// In answers: the refused message's body was left out.
const F_CAPPED: u16 = 0x100;
/// `NLA_F_NESTED`; the top two bits of an attribute's kind are flags.
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

const HEADER: usize = 16;
/// An answer is no larger than this: dumps are cut to the reader's buffer, acknowledgements are capped.
const ANSWER_BYTES_MAX: usize = 32 * 1024;
/// More messages than any table that we read has entries; ends a dump that never would.
const DUMP_MESSAGES_MAX: usize = 4_000_000;

/// Sequence numbers are unique in the process, so a late answer is never taken for another request's.
static SEQUENCE: AtomicU32 = AtomicU32::new(1);

/// One request that the kernel refused, or could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the request was for, as in "add address".
    pub step: &'static str,
    pub errno: Errno,
    /// The kernel's explanation, if it gave one.
    pub text: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.step, io::Error::from(self.errno))?;
        match &self.text {
            Some(text) => write!(out, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    fn new(step: &'static str, errno: Errno) -> Self {
        Self { step, errno, text: None }
    }
}

/// Requests to be sent together.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    steps: Vec<&'static str>,
    /// Where the last request starts, to ask for its acknowledgement.
    last_start: usize,
    /// Index of the request whose acknowledgement ends the answer.
    acknowledged: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(1024), steps: Vec::new(), last_start: 0, acknowledged: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    #[cfg(test)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    /// Append one request: `header` is the family's fixed part, `body` writes its attributes.
    pub fn push(
        &mut self,
        step: &'static str,
        kind: u16,
        flags: u16,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.acknowledged = self.steps.len();
        self.push_unacknowledged(step, kind, flags, header, body);
    }

    /// Like [`push`](Self::push), but never the one that carries the acknowledgement.
    pub fn push_unacknowledged(
        &mut self,
        step: &'static str,
        kind: u16,
        flags: u16,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        if self.acknowledged == self.steps.len() {
            self.last_start = start;
        }
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | F_REQUEST).to_ne_bytes());
        // Sequence and port are filled in when the batch is sent.
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        body(&mut Attributes { bytes: &mut self.bytes });
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.steps.push(step);
    }

    /// Number the requests and ask for the acknowledgement; returns the first number.
    fn seal(&mut self, extra_flags_last: u16) -> u32 {
        let first = SEQUENCE.fetch_add(self.steps.len() as u32, Ordering::Relaxed);
        let flags_at = self.last_start + 6;
        let flags = u16::from_ne_bytes([self.bytes[flags_at], self.bytes[flags_at + 1]]) | extra_flags_last;
        self.bytes[flags_at..flags_at + 2].copy_from_slice(&flags.to_ne_bytes());
        let mut start = 0;
        let mut sequence = first;
        while start < self.bytes.len() {
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            let length = u32::from_ne_bytes(
                self.bytes[start..start + 4].try_into().expect("four bytes are an array of four"),
            );
            start += (length as usize).next_multiple_of(4);
            sequence = sequence.wrapping_add(1);
        }
        first
    }
}

/// Writes attributes (type, length, value; padded to four bytes) at the end of a request.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).expect("attributes written here are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network order, as netfilter's subsystems want them.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Text with its closing zero byte.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let length = u16::try_from(5 + value.len()).expect("names written here are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        pad(self.bytes);
        self
    }

    /// Bytes that belong to no attribute, such as a fixed header inside a nest.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }

    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        body(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).expect("nests written here are short");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

/// Split an answer into its messages; stops at the first one whose length cannot be true.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        if length < HEADER {
            return None;
        }
        let whole = bytes.get(..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(whole, 4)?,
            flags: u16_at(whole, 6)?,
            sequence: u32_at(whole, 8)?,
            payload: &whole[HEADER..],
        })
    })
}

/// Split a run of attributes into kind and value; stops at the first whose length cannot be true.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        if length < 4 {
            return None;
        }
        let kind = u16_at(bytes, 2)? & KIND_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Text up to its closing zero byte; anything that is not UTF-8 is none of ours.
pub fn text_of(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok()
}

/// Read an error message's code (0 is an acknowledgement) and text.
fn refusal(message: Message<'_>) -> Option<(i32, Option<String>)> {
    let code = i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?);
    let text = (message.flags & F_ACK_TLVS != 0)
        .then(|| {
            let quoted = if message.flags & F_CAPPED != 0 {
                HEADER
            } else {
                (u32_at(message.payload, 4)? as usize).next_multiple_of(4)
            };
            let kind_text = 1;
            find(message.payload.get(4 + quoted..)?, kind_text).and_then(text_of).map(str::to_owned)
        })
        .flatten();
    Some((code, text))
}

/// A netlink socket of our own.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Open one in the caller's network namespace; `protocol` is from [`rustix::net::netlink`].
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        // Answers are there when `send` returns; the limit only guards against a kernel that sends none.
        rustix::net::sockopt::set_socket_timeout(
            &fd,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(10)),
        )?;
        let socket = Self { fd };
        socket.channel().prepare()?;
        Ok(socket)
    }

    pub fn channel(&self) -> Channel<'_> {
        Channel { fd: self.fd.as_fd() }
    }
}

/// A netlink socket to talk over, ours or one that was opened in another namespace.
#[derive(Debug, Clone, Copy)]
pub struct Channel<'a> {
    fd: BorrowedFd<'a>,
}

impl<'a> Channel<'a> {
    /// Use a socket that somebody else opened and set its options.
    pub fn borrow(fd: BorrowedFd<'a>) -> io::Result<Self> {
        let channel = Self { fd };
        channel.prepare()?;
        Ok(channel)
    }

    fn prepare(self) -> io::Result<()> {
        sys::netlink::explain_errors(self.fd)?;
        sys::netlink::keep_errors_short(self.fd)
    }

    /// Send all requests; the first refusal is the error. What other requests did stays done, unless the
    /// protocol makes the batch one transaction (nftables does).
    pub fn execute(self, batch: Batch) -> Result<(), Failure> {
        match self.execute_all(batch).into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    /// Send all requests and collect every refusal, in order.
    pub fn execute_all(self, mut batch: Batch) -> Vec<Failure> {
        if batch.is_empty() {
            return Vec::new();
        }
        let first = batch.seal(F_ACK);
        let last = first.wrapping_add(batch.acknowledged as u32);
        if let Err(errno) = self.send(&batch.bytes) {
            return vec![Failure::new(batch.steps[0], errno)];
        }
        let mut failures = Vec::new();
        let mut buffer = [0_u8; 8192];
        loop {
            // Only the first look may block. When a transaction was refused as a whole the answer can
            // consist of the refusal alone, and then the queue is empty before the last request's turn.
            let flags = if failures.is_empty() { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
            let bytes = match self.receive(&mut buffer, flags) {
                Ok(bytes) => bytes,
                Err(Errno::AGAIN) if !failures.is_empty() => return failures,
                Err(errno) => {
                    failures.push(Failure::new(batch.steps[batch.acknowledged], errno));
                    return failures;
                }
            };
            for message in messages(bytes) {
                let index = message.sequence.wrapping_sub(first) as usize;
                if message.kind != TYPE_ERROR || index >= batch.steps.len() {
                    continue;
                }
                match refusal(message) {
                    Some((0, _)) => {}
                    Some((code, text)) => {
                        let errno = Errno::from_raw_os_error(code.wrapping_neg());
                        failures.push(Failure { step: batch.steps[index], errno, text });
                    }
                    None => failures.push(Failure::new(batch.steps[index], Errno::BADMSG)),
                }
                if message.sequence == last {
                    return failures;
                }
            }
        }
    }

    /// Send one request and hand every message of its answer (a single one, or a dump) to `each`.
    pub fn query(self, mut batch: Batch, mut each: impl FnMut(Message<'_>)) -> Result<(), Failure> {
        let step = batch.steps.first().copied().unwrap_or("query");
        let first = batch.seal(0);
        let flags = u16_at(&batch.bytes, 6).unwrap_or(0);
        let is_dump = flags & F_DUMP == F_DUMP;
        self.send(&batch.bytes).map_err(|errno| Failure::new(step, errno))?;
        let mut buffer = vec![0_u8; ANSWER_BYTES_MAX];
        let mut count = 0;
        loop {
            let bytes =
                self.receive(&mut buffer, RecvFlags::empty()).map_err(|errno| Failure::new(step, errno))?;
            for message in messages(bytes).filter(|message| message.sequence == first) {
                count += 1;
                match message.kind {
                    TYPE_DONE => return Ok(()),
                    TYPE_ERROR => {
                        return match refusal(message) {
                            Some((0, _)) => Ok(()),
                            Some((code, text)) => Err(Failure {
                                step,
                                errno: Errno::from_raw_os_error(code.wrapping_neg()),
                                text,
                            }),
                            None => Err(Failure::new(step, Errno::BADMSG)),
                        };
                    }
                    _ => each(message),
                }
                if !is_dump {
                    return Ok(());
                }
                if count > DUMP_MESSAGES_MAX {
                    return Err(Failure::new(step, Errno::OVERFLOW));
                }
            }
        }
    }

    fn send(self, bytes: &[u8]) -> Result<(), Errno> {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(self.fd, bytes, SendFlags::empty()))?;
        if sent == bytes.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
    }

    fn receive(self, buffer: &mut [u8], flags: RecvFlags) -> Result<&[u8], Errno> {
        let (_, length) =
            rustix::io::retry_on_intr(|| rustix::net::recv(self.fd, &mut *buffer, flags | RecvFlags::TRUNC))?;
        buffer.get(..length).ok_or(Errno::MSGSIZE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_reads_back_as_it_was_written() {
        let mut batch = Batch::new();
        batch.push("one", 16, F_CREATE, &[1, 2, 3, 4], |body| {
            body.u32(1, 7).text(2, "eth0").nest(3, |nest| {
                nest.u8(4, 9);
            });
        });
        batch.push("two", 17, 0, &[], |_| {});
        let first = batch.seal(F_ACK);

        let read: Vec<_> = messages(&batch.bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].flags, read[0].sequence), (16, F_CREATE | F_REQUEST, first));
        assert_eq!((read[1].kind, read[1].flags, read[1].sequence), (17, F_REQUEST | F_ACK, first + 1));
        let body = &read[0].payload[4..];
        assert_eq!(find(body, 1), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(find(body, 2).and_then(text_of), Some("eth0"));
        assert_eq!(find(find(body, 3).unwrap(), 4), Some(&[9][..]));
    }

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let socket = Socket::open(None).unwrap();
        let mut batch = Batch::new();
        // RTM_NEWADDR for an interface that is not there.
        let header = [2, 24, 0, 0, 0xff, 0xff, 0xff, 0x7f];
        batch.push("add address", 20, F_CREATE, &header, |body| {
            body.bytes(1, &[192, 0, 2, 1]).bytes(2, &[192, 0, 2, 1]);
        });
        let failure = socket.channel().execute(batch).unwrap_err();
        assert_eq!((failure.step, failure.errno), ("add address", Errno::NODEV));
        assert!(failure.text.is_some(), "{failure}");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_stays_inside(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            for message in messages(&bytes) {
                prop_assert!(message.payload.len() < bytes.len());
                let _ = refusal(message);
                for (_, value) in attributes(message.payload) {
                    prop_assert!(value.len() < bytes.len());
                    let _ = text_of(value);
                }
            }
            let _ = attributes(&bytes).count();
        }

        #[test]
        fn attributes_round_trip(values in proptest::collection::vec((0_u16..0x3fff, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let mut bytes = Vec::new();
            let mut writer = Attributes { bytes: &mut bytes };
            for (kind, value) in &values {
                writer.bytes(*kind, value);
            }
            let read: Vec<_> = attributes(&bytes).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }
    }
}
