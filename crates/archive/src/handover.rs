//! An archive between two programs of one machine, over a Unix socket: the content of large files goes as descriptors, and
//! whoever receives them lets the kernel copy, with holes, and without a byte through the socket.
//!
//! Between the two ends of a socket there may be a program that passes bytes and loses descriptors, and both ends may
//! have read ahead with something that does not expect any. So, before the archive:
//!
//! 1. The receiver says [`READY`] when the bare socket is its own.
//! 2. The sender says [`HELLO`], and with it goes a descriptor.
//! 3. The receiver says whether it came: [`WITH`], or [`WITHOUT`], and then all content is in the archive.
//!
//! A member whose content goes as a descriptor says so, with the size, in an extended header that nobody else reads, and
//! has no content of its own; descriptors come in the order of such members, none later than the end of its member's
//! header.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::{Entry, Error, Kind, Reader, Writer};

/// What the protocol is called where a connection changes to it.
pub const PROTOCOL: &str = "corten-handover";

/// Files from this size on go as descriptors; below, a descriptor costs more than the bytes.
pub const BYTES_MIN: u64 = 64 << 10;

const READY: u8 = b'r';
const HELLO: u8 = b'h';
const WITH: u8 = b'd';
const WITHOUT: u8 = b'p';

/// How long the other side may take to greet.
const GREETING: Duration = Duration::from_secs(10);
/// Descriptors in one message.
const TOGETHER_MAX: usize = 8;
/// Descriptors that may have come before the members that they belong to.
const AHEAD_MAX: usize = 4 * TOGETHER_MAX;
/// Bytes in one message.
const BUFFER_BYTES: usize = 64 << 10;
/// How long to wait while too many descriptors are under way.
const PATIENCE: Duration = Duration::from_secs(10);

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn say(socket: &UnixStream, word: u8) -> io::Result<()> {
    (&mut &*socket).write_all(&[word])
}

fn begin(socket: &UnixStream) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(GREETING))
}

/// The sending end.
#[derive(Debug)]
pub struct Outlet {
    socket: UnixStream,
    buffer: Vec<u8>,
    files: Vec<OwnedFd>,
    descriptors: bool,
    sent: Arc<AtomicU64>,
}

impl Outlet {
    /// Greets the receiver. `early` has come from it before the socket was our own. Blocks.
    pub fn greet(socket: UnixStream, early: &[u8]) -> io::Result<Outlet> {
        begin(&socket)?;
        let mut word = [0];
        match early {
            [] => (&socket).read_exact(&mut word)?,
            [early] => word = [*early],
            _ => return Err(broken("the receiver of an archive has more to say than it should")),
        }
        if word != [READY] {
            return Err(broken("the receiver of an archive does not greet"));
        }
        // Any descriptor shows whether they get through.
        let sample = socket.try_clone()?;
        send(&socket, &[HELLO], &[sample.as_fd()])?;
        (&socket).read_exact(&mut word)?;
        socket.set_read_timeout(None)?;
        let descriptors = match word {
            [WITH] => true,
            [WITHOUT] => false,
            _ => return Err(broken("the receiver of an archive does not greet")),
        };
        Ok(Outlet {
            socket,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            files: Vec::new(),
            descriptors,
            sent: Arc::default(),
        })
    }

    /// Whether a file of that size goes as a descriptor.
    pub(crate) fn takes(&self, file: BorrowedFd<'_>, size: u64) -> bool {
        self.descriptors && size >= BYTES_MIN && check(file).is_ok()
    }

    /// Takes the file of a member whose header comes next.
    pub(crate) fn hand(&mut self, file: OwnedFd, size: u64) -> io::Result<()> {
        self.sent.fetch_add(size, Ordering::Relaxed);
        if self.files.len() == TOGETHER_MAX {
            self.flush()?;
        }
        self.files.push(file);
        Ok(())
    }

    /// Counts from now on what goes: bytes of the archive, and sizes of files.
    pub fn counting(self, sent: Arc<AtomicU64>) -> Outlet {
        Outlet { sent, ..self }
    }

    /// Sends an archive of one file, which is open at its beginning.
    pub fn send_one(mut self, mut file: File) -> Result<Outlet, Error> {
        let size = file.metadata().map_err(Error::Read)?.len();
        let apart = self.takes(file.as_fd(), size);
        if apart {
            let file = file.try_clone().map_err(Error::Read)?;
            self.hand(file.into(), size).map_err(Error::Write)?;
        }
        let mut writer = Writer::new(self);
        writer.append(&Entry { apart, ..Entry::file("file", size) }, &mut file)?;
        writer.finish()
    }

    /// Says that no more comes; the receiver's answer can still be read.
    pub fn close(mut self) -> io::Result<UnixStream> {
        self.flush()?;
        self.socket.shutdown(std::net::Shutdown::Write)?;
        Ok(self.socket)
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == BUFFER_BYTES {
            self.flush()?;
        }
        let count = bytes.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut left = self.buffer.as_slice();
        let mut files = std::mem::take(&mut self.files);
        while !left.is_empty() {
            let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
            let count = send(&self.socket, left, &borrowed)?;
            left = &left[count..];
            self.sent.fetch_add(count as u64, Ordering::Relaxed);
            // They rode with the first byte.
            files.clear();
        }
        self.buffer.clear();
        Ok(())
    }
}

fn send(socket: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let began = Instant::now();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(broken("too many descriptors for one message"));
        }
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            // The receiver has not taken those before.
            Err(Errno::TOOMANYREFS) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return Ok(other?),
        }
    }
}

/// The receiving end. It is read from, and files are taken from it, in turns.
#[derive(Debug)]
pub struct Inlet(RefCell<Received>);

#[derive(Debug)]
struct Received {
    socket: UnixStream,
    buffer: Vec<u8>,
    at: usize,
    files: VecDeque<OwnedFd>,
    count: Arc<AtomicU64>,
}

impl Inlet {
    /// Greets the sender. Blocks.
    pub fn greet(socket: UnixStream) -> io::Result<Inlet> {
        begin(&socket)?;
        say(&socket, READY)?;
        let mut word = [0];
        let mut files = VecDeque::new();
        if receive(&socket, &mut word, &mut files)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if word != [HELLO] {
            return Err(broken("the sender of an archive does not greet"));
        }
        say(&socket, if files.len() == 1 { WITH } else { WITHOUT })?;
        socket.set_read_timeout(None)?;
        let (files, count) = (VecDeque::new(), Arc::default());
        Ok(Inlet(RefCell::new(Received { socket, buffer: Vec::new(), at: 0, files, count })))
    }

    /// Counts from now on what comes: bytes of the archive, and sizes of files.
    pub fn counting(self, came: Arc<AtomicU64>) -> Inlet {
        self.0.borrow_mut().count = came;
        self
    }

    pub(crate) fn count(&self, bytes: u64) {
        self.0.borrow().count.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The file of the member whose header was read last; refused is what could be anything but a plain file, open for
    /// reading.
    pub(crate) fn take(&self) -> io::Result<OwnedFd> {
        let file = self.0.borrow_mut().files.pop_front();
        let file = file.ok_or_else(|| broken("a file that was announced did not come"))?;
        check(file.as_fd())?;
        Ok(file)
    }

    /// Takes the file of an archive of one.
    pub fn take_one(&self) -> Result<Handed<'_>, Error> {
        let mut reader = Reader::new(self).with_apart();
        match reader.next_entry()? {
            Some(entry) if entry.kind == Kind::File && entry.sparse.is_none() => {
                if !entry.apart {
                    return Ok(Handed::Stream(reader));
                }
                Ok(Handed::File(self.take().map_err(Error::Read)?.into()))
            }
            _ => Err(Error::Read(broken("what came is not one file"))),
        }
    }

    /// The socket, when all has come.
    pub fn into_socket(self) -> UnixStream {
        self.0.into_inner().socket
    }
}

/// A file that came by itself.
#[derive(Debug)]
pub enum Handed<'a> {
    /// Its size and content may change at any time, and who sent it may have moved its position.
    File(File),
    /// Its content, as it was.
    Stream(Reader<&'a Inlet>),
}

impl Read for &Inlet {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let received = &mut *self.0.borrow_mut();
        if received.at == received.buffer.len() {
            received.buffer.resize(BUFFER_BYTES, 0);
            let count = receive(&received.socket, &mut received.buffer, &mut received.files);
            received.buffer.truncate(*count.as_ref().unwrap_or(&0));
            received.at = 0;
            received.count.fetch_add(count? as u64, Ordering::Relaxed);
        }
        let ready = &received.buffer[received.at..];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        received.at += count;
        Ok(count)
    }
}

fn receive(socket: &UnixStream, buffer: &mut [u8], files: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let parts = &mut [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            files.extend(passed);
        }
    }
    if files.len() > AHEAD_MAX {
        return Err(broken("more files came than were announced"));
    }
    Ok(received.bytes)
}

/// Refuses what is no regular file, not open for reading, or on a filesystem whose reads may do anything or take for
/// ever: those of the kernel itself, and those that a program serves.
fn check(file: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    let readable = !flags.contains(OFlags::PATH) && flags & OFlags::RWMODE != OFlags::WRONLY;
    let stat = rustix::fs::fstat(file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !readable || !regular {
        return Err(broken("what came in a file's place is not a regular file that is open for reading"));
    }
    const FUSE: u64 = 0x6573_5546;
    let kind = rustix::fs::fstatfs(file)?.f_type as u64;
    if kind == FUSE || crate::pack::KERNEL_FILES.contains(&kind) {
        return Err(broken("what came in a file's place is on a filesystem that does not serve for that"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, PackOptions, Packer, Root, UnpackOptions};
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::Path;

    /// Packs one tree and unpacks it into another through a pair of sockets; `lossy`: something in between loses
    /// descriptors.
    fn through(from: &Path, to: &Path, lossy: bool) -> (u64, bool) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        if lossy {
            let (outer, far) = UnixStream::pair().unwrap();
            let mut pipes = [(theirs.try_clone().unwrap(), outer.try_clone().unwrap()), (outer, theirs)];
            for (mut read, mut write) in
                pipes.iter_mut().map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut read, &mut write);
                    let _ = write.shutdown(std::net::Shutdown::Write);
                });
            }
            theirs = far;
        }
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let outlet = Outlet::greet(ours, b"").unwrap();
                let with = outlet.descriptors;
                let mut packer = Packer::handing(outlet, PackOptions::default());
                let handle = Root::open_path(from).unwrap().locate(Path::new("")).unwrap();
                packer.add_handle(&handle, b"top").unwrap();
                drop(packer.finish().unwrap().close().unwrap());
                with
            });
            let inlet = Inlet::greet(theirs).unwrap();
            let root = Root::open_path(to).unwrap();
            let options = UnpackOptions {
                limits: Limits { bytes: u64::MAX, entries: 1000 },
                inlet: Some(&inlet),
                ..UnpackOptions::default()
            };
            let unpacked = crate::unpack(&inlet, &root, &options).unwrap();
            (unpacked.bytes, sending.join().unwrap())
        })
    }

    #[test]
    fn a_tree_arrives_with_its_holes_also_where_descriptors_get_lost() {
        for lossy in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
            std::fs::create_dir_all(from.join("deep/er")).unwrap();
            std::fs::create_dir(&to).unwrap();
            std::fs::write(from.join("small"), "text").unwrap();
            let pattern: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
            for number in 0..40 {
                std::fs::write(from.join(format!("deep/large-{number}")), &pattern[number..]).unwrap();
            }
            let sparse = File::create(from.join("deep/er/sparse")).unwrap();
            sparse.set_len(32 << 20).unwrap();
            sparse.write_all_at(b"end", (32 << 20) - 3).unwrap();
            let (bytes, with) = through(&from, &to, lossy);
            assert_eq!(with, !lossy);
            assert!(bytes > 60 << 20, "{bytes}");
            assert_eq!(std::fs::read(to.join("top/small")).unwrap(), b"text");
            for number in 0..40 {
                let copied = std::fs::read(to.join(format!("top/deep/large-{number}"))).unwrap();
                assert!(copied == pattern[number..], "large-{number}, lossy: {lossy}");
            }
            let copied = std::fs::metadata(to.join("top/deep/er/sparse")).unwrap();
            assert_eq!(copied.len(), 32 << 20);
            assert!(lossy || copied.blocks() < 1 << 11, "{} blocks", copied.blocks());
        }
    }

    #[test]
    fn one_file_comes_as_a_descriptor_or_as_what_is_in_it() {
        let scratch = tempfile::tempdir().unwrap();
        for (size, as_file) in [(0, false), (100, false), (200_000, true)] {
            let path = scratch.path().join("file");
            std::fs::write(&path, vec![7; size]).unwrap();
            let (ours, theirs) = UnixStream::pair().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let outlet = Outlet::greet(ours, b"").unwrap();
                    drop(outlet.send_one(File::open(&path).unwrap()).unwrap().close().unwrap());
                });
                let inlet = Inlet::greet(theirs).unwrap();
                let mut came = Vec::new();
                match inlet.take_one().unwrap() {
                    Handed::File(mut file) if as_file => file.read_to_end(&mut came),
                    Handed::Stream(mut stream) if !as_file => stream.read_to_end(&mut came),
                    other => panic!("{size} bytes came as {other:?}"),
                }
                .unwrap();
                assert_eq!(came, vec![7; size]);
            });
        }
    }

    /// What a receiver says of a stream that somebody made up.
    fn received(bytes: &[u8], files: &[BorrowedFd<'_>], to: &Path) -> String {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let outlet = Outlet::greet(ours, b"").unwrap();
                let mut left = bytes;
                let mut files = files;
                while !left.is_empty() {
                    let Ok(count) = send(&outlet.socket, left, files) else { return };
                    (left, files) = (&left[count..], &[]);
                }
            });
            let inlet = Inlet::greet(theirs).unwrap();
            let root = Root::open_path(to).unwrap();
            let options = UnpackOptions { inlet: Some(&inlet), ..UnpackOptions::default() };
            match crate::unpack(&inlet, &root, &options) {
                Ok(unpacked) => format!("{} bytes", unpacked.bytes),
                Err(error) => error.to_string(),
            }
        })
    }

    fn announced(size: u64) -> Vec<u8> {
        let mut writer = crate::Writer::new(Vec::new());
        let entry = crate::Entry { apart: true, ..crate::Entry::file("file", size) };
        writer.append(&entry, &mut io::empty()).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn nothing_but_a_regular_file_that_is_open_for_reading_is_taken() {
        let scratch = tempfile::tempdir().unwrap();
        let to = scratch.path().join("to");
        std::fs::create_dir(&to).unwrap();
        let path = scratch.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let open = |path: &Path, flags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap()
        };
        let (pipe, _writer) = std::io::pipe().unwrap();
        for odd in [
            open(&path, OFlags::WRONLY),
            open(&path, OFlags::PATH),
            open(scratch.path(), OFlags::RDONLY | OFlags::DIRECTORY),
            open(Path::new("/dev/zero"), OFlags::RDONLY),
            open(Path::new("/proc/self/status"), OFlags::RDONLY),
            pipe.into(),
        ] {
            let said = received(&announced(10), &[odd.as_fd()], &to);
            assert!(said.contains("what came in a file's place"), "{said}");
            assert!(!to.join("file").exists(), "half a file was left");
        }
        let said = received(&announced(10), &[], &to);
        assert!(said.contains("a file that was announced did not come"), "{said}");
    }

    #[test]
    fn a_size_that_does_not_fit_the_file_cuts_or_fills_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        for (size, wanted) in [(4, &b"0123"[..]), (12, b"0123456789\0\0"), (0, b"")] {
            let to = tempfile::tempdir().unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!(received(&announced(size), &[file.as_fd()], to.path()), format!("{size} bytes"));
            assert_eq!(std::fs::read(to.path().join("file")).unwrap(), wanted);
        }
    }

    #[test]
    fn more_files_than_announced_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let file = File::open("/etc/passwd").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sending = std::thread::spawn(move || {
            let outlet = Outlet::greet(ours, b"").unwrap();
            let files = [file.as_fd(); TOGETHER_MAX];
            while send(&outlet.socket, &[0; 16], &files).is_ok() {}
        });
        let inlet = Inlet::greet(theirs).unwrap();
        let root = Root::open_path(scratch.path()).unwrap();
        let options = UnpackOptions { inlet: Some(&inlet), ..UnpackOptions::default() };
        let error = crate::unpack(&inlet, &root, &options).unwrap_err();
        assert!(error.to_string().contains("more files came than were announced"), "{error}");
        drop(inlet);
        sending.join().unwrap();
    }
}
