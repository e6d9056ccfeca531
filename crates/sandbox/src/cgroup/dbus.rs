//! As much of D-Bus as it takes to call a method and read whether it worked.
//!
//! Our own, because the libraries bring an async runtime or libdbus with them, and the shim is small, static and has
//! one thread. See the D-Bus specification, "Message Protocol" and "Authentication Protocol".

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the other side may be silent.
const PATIENCE: Duration = Duration::from_secs(25);
/// Largest answer that is read, in bytes; errors and object paths are short.
const ANSWER_MAX: usize = 1 << 20;
/// Messages of others that are skipped while waiting for an answer.
const SKIPPED_MAX: usize = 100_000;

/// A value of the types that systemd's properties have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Bool(bool),
    U64(u64),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Text(_) => "s",
            Value::Bool(_) => "b",
            Value::U64(_) => "t",
            Value::Numbers(_) => "au",
            Value::Bytes(_) => "ay",
            Value::Pairs(_) => "a(ss)",
        }
    }
}

/// A message's body, or a message, while it is put together. Little-endian.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array: its length does not count the padding before the first element.
    fn array(&mut self, align: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        elements(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Text(text) => self.text(text),
            Value::Bool(on) => self.u32(u32::from(*on)),
            Value::U64(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => {
                self.array(4, |out| numbers.iter().for_each(|number| out.u32(*number)))
            }
            Value::Bytes(bytes) => self.array(1, |out| out.0.extend(bytes)),
            Value::Pairs(pairs) => self.array(8, |out| {
                for (key, value) in pairs {
                    out.align(8);
                    out.text(key);
                    out.text(value);
                }
            }),
        }
    }

    /// `a(sv)`
    pub fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |out| {
            for (name, value) in properties {
                out.align(8);
                out.text(name);
                out.variant(value);
            }
        });
    }

    /// An array of structures without anything in it.
    pub fn no_structures(&mut self) {
        self.array(8, |_| {});
    }

    pub fn bool(&mut self, on: bool) {
        self.u32(u32::from(on));
    }
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    /// Of the arguments.
    pub signature: &'a str,
}

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const FIELD_ERROR_NAME: u8 = 4;
const FIELD_REPLY_SERIAL: u8 = 5;

fn call_message(serial: u32, method: &Method<'_>, body: &Writer) -> Vec<u8> {
    let mut out = Writer::default();
    out.0.extend([b'l', CALL, 0, 1]);
    out.u32(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    out.u32(serial);
    out.array(8, |out| {
        for (code, kind, text) in [
            (1, "o", method.path),
            (2, "s", method.interface),
            (3, "s", method.member),
            (6, "s", method.destination),
            (8, "g", method.signature),
        ] {
            if text.is_empty() {
                continue;
            }
            out.align(8);
            out.0.push(code);
            out.signature(kind);
            if kind == "g" { out.signature(text) } else { out.text(text) }
        }
    });
    out.align(8);
    out.0.extend(&body.0);
    out.0
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Answered by the other side.
    #[error("{message} ({name})")]
    Refused { name: String, message: String },
}

/// A message that came, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    kind: u8,
    reply_to: u32,
    error: String,
    /// The first argument, if it is a text.
    text: String,
}

/// Bytes that are read in order; every read is checked.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.byte()?;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.byte()?;
        Some(text)
    }
}

/// The length of the fixed part of a message: up to the length of its fields.
const HEAD: usize = 16;

/// How many bytes follow a message's head.
fn rest_of(head: &[u8; HEAD]) -> Option<usize> {
    let mut reader = Reader { bytes: head, at: 4, big_endian: head[0] == b'B' };
    let body = usize::try_from(reader.u32()?).ok()?;
    reader.u32()?;
    let fields = usize::try_from(reader.u32()?).ok()?;
    (HEAD + fields).checked_next_multiple_of(8)?.checked_add(body).map(|all| all - HEAD)
}

fn parse(bytes: &[u8]) -> Option<Message> {
    let mut reader = Reader { bytes, at: 0, big_endian: bytes.first()? == &b'B' };
    reader.byte()?;
    let kind = reader.byte()?;
    reader.at = 12;
    let fields_end = HEAD + usize::try_from(reader.u32()?).ok()?;
    let mut message = Message { kind, reply_to: 0, error: String::new(), text: String::new() };
    let mut signature = String::new();
    while reader.at < fields_end {
        reader.align(8);
        let code = reader.byte()?;
        match reader.signature()?.as_str() {
            "u" => {
                let number = reader.u32()?;
                if code == FIELD_REPLY_SERIAL {
                    message.reply_to = number;
                }
            }
            "s" | "o" => {
                let text = reader.text()?;
                if code == FIELD_ERROR_NAME {
                    message.error = text;
                }
            }
            "g" => signature = reader.signature()?,
            _ => return None,
        }
    }
    reader.at = fields_end;
    reader.align(8);
    if signature.starts_with(['s', 'o']) {
        message.text = reader.text()?;
    }
    Some(message)
}

/// A connection to a bus, or to a service directly.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    serial: u32,
}

impl Connection {
    /// Connects and says who we are. `is_bus`: others are on it as well, and it wants to be greeted.
    pub fn open(socket: &str, is_bus: bool) -> Result<Connection, Failure> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let answer = read_line(&mut stream)?;
        if !answer.starts_with("OK ") {
            return Err(
                io::Error::new(io::ErrorKind::PermissionDenied, format!("not let in: {answer}")).into()
            );
        }
        stream.write_all(b"BEGIN\r\n")?;
        let mut connection = Connection { stream, serial: 0 };
        if is_bus {
            let hello = Method {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
                signature: "",
            };
            connection.call(&hello, &Writer::default())?;
        }
        Ok(connection)
    }

    /// Calls a method and waits until it is answered.
    pub fn call(&mut self, method: &Method<'_>, body: &Writer) -> Result<(), Failure> {
        self.serial += 1;
        self.stream.write_all(&call_message(self.serial, method, body))?;
        for _ in 0..SKIPPED_MAX {
            let message = self.read()?;
            if message.reply_to != self.serial {
                continue;
            }
            match message.kind {
                RETURN => return Ok(()),
                ERROR => return Err(Failure::Refused { name: message.error, message: message.text }),
                _ => {}
            }
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    fn read(&mut self) -> io::Result<Message> {
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "an odd message came");
        let mut head = [0; HEAD];
        self.stream.read_exact(&mut head)?;
        let rest = rest_of(&head).filter(|rest| *rest <= ANSWER_MAX).ok_or_else(odd)?;
        let mut bytes = head.to_vec();
        bytes.resize(HEAD + rest, 0);
        self.stream.read_exact(&mut bytes[HEAD..])?;
        parse(&bytes).ok_or_else(odd)
    }
}

fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    // Byte by byte: what follows the line belongs to messages.
    while !line.ends_with(b"\r\n") && line.len() < 512 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_call_as_the_specification_lays_it_out() {
        let mut body = Writer::default();
        body.text("a");
        let method = Method { destination: "b.c", path: "/d", interface: "e.f", member: "G", signature: "s" };
        let bytes = call_message(7, &method, &body);
        #[rustfmt::skip]
        let expected: &[u8] = &[
            b'l', 1, 0, 1, 6, 0, 0, 0, 7, 0, 0, 0, 71, 0, 0, 0,
            1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'd', 0, 0, 0, 0, 0, 0,
            2, 1, b's', 0, 3, 0, 0, 0, b'e', b'.', b'f', 0, 0, 0, 0, 0,
            3, 1, b's', 0, 1, 0, 0, 0, b'G', 0, 0, 0, 0, 0, 0, 0,
            6, 1, b's', 0, 3, 0, 0, 0, b'b', b'.', b'c', 0, 0, 0, 0, 0,
            8, 1, b'g', 0, 1, b's', 0, 0,
            1, 0, 0, 0, b'a', 0,
        ];
        assert_eq!(bytes, expected);
        let rest = rest_of(bytes[..HEAD].try_into().unwrap()).unwrap();
        assert_eq!(HEAD + rest, bytes.len());
        assert_eq!(parse(&bytes).unwrap().text, "a");
    }

    #[test]
    fn values_are_padded_from_the_start_of_the_body() {
        let mut body = Writer::default();
        body.properties(&[("Aa", Value::U64(1)), ("B", Value::Numbers(vec![5])), ("C", Value::Bool(true))]);
        #[rustfmt::skip]
        let expected: &[u8] = &[
            60, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, b'A', b'a', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0, b'B', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0, b'C', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0,
        ];
        // The length counts up to the end of the last element.
        assert_eq!(body.0[8..], expected[8..]);
        assert_eq!(
            usize::try_from(u32::from_le_bytes(body.0[..4].try_into().unwrap())).unwrap(),
            body.0.len() - 8
        );
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 16..200), little in any::<bool>()) {
            bytes[0] = if little { b'l' } else { b'B' };
            let _ = parse(&bytes);
            let _ = rest_of(bytes[..HEAD].try_into().unwrap());
        }
    }
}
