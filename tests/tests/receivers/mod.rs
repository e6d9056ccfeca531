//! Receivers of logs, inside a private host.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use testkit::Bed;
use testkit::process::eventually;

/// A connection of either kind.
pub trait Connection: Read + Write + Send {
    fn close(&self);
    fn twin(&self) -> Box<dyn Connection>;
}

impl Connection for TcpStream {
    fn close(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }

    fn twin(&self) -> Box<dyn Connection> {
        Box::new(self.try_clone().expect("clone"))
    }
}

impl Connection for UnixStream {
    fn close(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }

    fn twin(&self) -> Box<dyn Connection> {
        Box::new(self.try_clone().expect("clone"))
    }
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    datagrams: Vec<Vec<u8>>,
    connections: Vec<Box<dyn Connection>>,
    gone: bool,
}

/// What a receiver does with a connection's bytes: sees all of them so far, and answers.
pub type Answer = fn(&mut Vec<u8>, &mut dyn Write);

/// Hears what is sent to it, until it is dropped.
pub struct Receiver {
    heard: Arc<Mutex<Heard>>,
    wake: Option<Box<dyn FnOnce() + Send>>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Receiver {
    pub fn tcp(bed: &Bed, port: u16) -> Receiver {
        Receiver::tcp_answering(bed, port, |_, _| {})
    }

    pub fn tcp_answering(bed: &Bed, port: u16, answer: Answer) -> Receiver {
        let listener =
            bed.host().in_network(move || TcpListener::bind(("127.0.0.1", port)).expect("port is free"));
        let twin = listener.try_clone().expect("clone");
        let accept = move || listener.accept().map(|(stream, _)| Box::new(stream) as Box<dyn Connection>);
        // A socket that is shut down accepts no more.
        let wake = move || {
            let _ = rustix::net::shutdown(&twin, rustix::net::Shutdown::Both);
        };
        Receiver::accepting(accept, Box::new(wake), answer)
    }

    pub fn unix(path: &Path, answer: Answer) -> Receiver {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("unix socket");
        let twin = listener.try_clone().expect("clone");
        let accept = move || listener.accept().map(|(stream, _)| Box::new(stream) as Box<dyn Connection>);
        let wake = move || {
            let _ = rustix::net::shutdown(&twin, rustix::net::Shutdown::Both);
        };
        Receiver::accepting(accept, Box::new(wake), answer)
    }

    fn accepting(
        accept: impl Fn() -> std::io::Result<Box<dyn Connection>> + Send + 'static,
        wake: Box<dyn FnOnce() + Send>,
        answer: Answer,
    ) -> Receiver {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hearing = heard.clone();
        let accepting = thread::spawn(move || {
            let mut listeners = Vec::new();
            while let Ok(connection) = accept() {
                let mut heard = hearing.lock().expect("lock");
                if heard.gone {
                    break;
                }
                heard.connections.push(connection.twin());
                drop(heard);
                let hearing = hearing.clone();
                listeners.push(thread::spawn(move || hear(connection, &hearing, answer)));
            }
            // Their connections are closed: they hear what came before.
            listeners.into_iter().for_each(|listener| listener.join().expect("a listener does not panic"));
        });
        Receiver { heard, wake: Some(wake), accepting: Some(accepting) }
    }

    pub fn udp(bed: &Bed, port: u16) -> Receiver {
        let socket =
            bed.host().in_network(move || UdpSocket::bind(("127.0.0.1", port)).expect("port is free"));
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        Receiver::datagrams(move |buffer| socket.recv(buffer).map(|count| buffer[..count].to_vec()))
    }

    /// What comes as a file is read as if it were a datagram.
    pub fn unix_datagram(path: &Path) -> Receiver {
        let _ = std::fs::remove_file(path);
        std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
        let socket = UnixDatagram::bind(path).expect("unix socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        Receiver::datagrams(move |buffer| {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
            let mut parts = [std::io::IoSliceMut::new(buffer)];
            let flags = rustix::net::RecvFlags::empty();
            let received = rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, flags)?;
            for message in ancillary.drain() {
                if let rustix::net::RecvAncillaryMessage::ScmRights(files) = message {
                    let mut text = Vec::new();
                    for file in files {
                        let seals = rustix::fs::fcntl_get_seals(&file).expect("seals");
                        assert!(seals.contains(rustix::fs::SealFlags::WRITE), "the journal wants it sealed");
                        let mut file = File::from(file);
                        std::io::Seek::rewind(&mut file)?;
                        file.read_to_end(&mut text)?;
                    }
                    return Ok([b"FILE\n", &text[..]].concat());
                }
            }
            Ok(buffer[..received.bytes].to_vec())
        })
    }

    fn datagrams(receive: impl Fn(&mut [u8]) -> std::io::Result<Vec<u8>> + Send + 'static) -> Receiver {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hearing = heard.clone();
        let accepting = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            loop {
                let received = receive(&mut buffer);
                let mut heard = hearing.lock().expect("lock");
                if heard.gone {
                    return;
                }
                heard.datagrams.extend(received.ok());
            }
        });
        Receiver { heard, wake: None, accepting: Some(accepting) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.heard.lock().expect("lock").bytes.clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub fn all_datagrams(&self) -> Vec<Vec<u8>> {
        self.heard.lock().expect("lock").datagrams.clone()
    }

    pub fn texts(&self) -> Vec<String> {
        self.all_datagrams().iter().map(|one| String::from_utf8_lossy(one).into_owned()).collect()
    }

    #[track_caller]
    pub fn hears(&self, words: &str) -> String {
        eventually(&format!("it hears {words:?}"), || {
            self.text().contains(words) || self.texts().iter().any(|text| text.contains(words))
        });
        self.text()
    }
}

impl Receiver {
    /// Hears no more, and tells all that was heard.
    pub fn end(mut self) -> String {
        self.stop();
        self.text()
    }

    fn stop(&mut self) {
        {
            let mut heard = self.heard.lock().expect("lock");
            heard.gone = true;
            heard.connections.iter().for_each(|connection| connection.close());
        }
        if let Some(wake) = self.wake.take() {
            wake();
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn hear(mut connection: Box<dyn Connection>, heard: &Mutex<Heard>, answer: Answer) {
    let mut buffer = vec![0; 64 << 10];
    let mut pending = Vec::new();
    while let Ok(count @ 1..) = connection.read(&mut buffer) {
        pending.extend_from_slice(&buffer[..count]);
        heard.lock().expect("lock").bytes.extend_from_slice(&buffer[..count]);
        answer(&mut pending, &mut *connection);
    }
}

// --- MessagePack, as much as fluentd's protocol needs

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Nil,
    Number(i64),
    Text(String),
    Extension(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    pub fn get(&self, name: &str) -> Option<&str> {
        let Value::Map(pairs) = self else { return None };
        pairs.iter().find_map(|(key, value)| match (key, value) {
            (Value::Text(key), Value::Text(value)) if key == name => Some(value.as_str()),
            _ => None,
        })
    }
}

/// The value at the front, if it is whole.
pub fn unpack(bytes: &mut &[u8]) -> Option<Value> {
    let (&head, rest) = bytes.split_first()?;
    *bytes = rest;
    let mut take = |count: usize| {
        let (taken, rest) = bytes.split_at_checked(count)?;
        *bytes = rest;
        Some(taken)
    };
    let mut number =
        |width: usize| Some(take(width)?.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)));
    let many = |bytes: &mut &[u8], count: u64| (0..count).map(|_| unpack(bytes)).collect::<Option<Vec<_>>>();
    let pairs = |bytes: &mut &[u8], count: u64| {
        (0..count).map(|_| Some((unpack(bytes)?, unpack(bytes)?))).collect::<Option<Vec<_>>>()
    };
    let text = |bytes: &[u8]| Value::Text(String::from_utf8_lossy(bytes).into_owned());
    Some(match head {
        0x00..=0x7f => Value::Number(head.into()),
        0x80..=0x8f => Value::Map(pairs(bytes, u64::from(head & 15))?),
        0x90..=0x9f => Value::List(many(bytes, u64::from(head & 15))?),
        0xa0..=0xbf => text(take(usize::from(head & 31))?),
        0xc0 => Value::Nil,
        0xcc..=0xcf => Value::Number(number(1 << (head & 3))? as i64),
        0xd3 => Value::Number(number(8)? as i64),
        0xd7 => Value::Extension(take(9)?.to_vec()),
        0xd9..=0xdb => {
            let length = number(1 << (head - 0xd9))?;
            text(take(length as usize)?)
        }
        0xdd => {
            let count = number(4)?;
            Value::List(many(bytes, count)?)
        }
        0xdf => {
            let count = number(4)?;
            Value::Map(pairs(bytes, count)?)
        }
        other => panic!("unexpected MessagePack {other:#x}"),
    })
}

/// All whole values.
pub fn unpack_all(mut bytes: &[u8]) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let mut rest = bytes;
        match unpack(&mut rest) {
            Some(value) if !bytes.is_empty() => all.push(value),
            _ => return all,
        }
        bytes = rest;
    }
}

/// Answers each message that asks for it, as fluentd does.
pub fn acknowledge(pending: &mut Vec<u8>, answer: &mut dyn Write) {
    loop {
        let mut rest = pending.as_slice();
        let Some(message) = unpack(&mut rest) else { return };
        let used = pending.len() - rest.len();
        pending.drain(..used);
        let Value::List(parts) = message else { panic!("{message:?}") };
        if let Some(chunk) = parts.last().and_then(|options| options.get("chunk")) {
            let length = u8::try_from(chunk.len()).expect("short");
            let _ = answer.write_all(&[b"\x81\xa3ack\xd9", &[length][..], chunk.as_bytes()].concat());
        }
    }
}

/// The lines of fluentd messages of either kind, in order.
pub fn fluentd_lines(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for message in unpack_all(bytes) {
        let Value::List(parts) = message else { panic!("{message:?}") };
        let entries = match parts.as_slice() {
            [_, Value::List(entries), _] => entries.clone(),
            [_, time, record, _] => vec![Value::List(vec![time.clone(), record.clone()])],
            other => panic!("{other:?}"),
        };
        for entry in entries {
            let Value::List(parts) = entry else { panic!("{entry:?}") };
            lines.push(parts[1].get("log").expect("log").to_owned());
        }
    }
    lines
}
