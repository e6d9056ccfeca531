//! HTTP/1.1 over a Unix socket: as much as tests of the Engine API need, and blocking.
//!
//! A client written apart from the daemon's HTTP library sees what really is on the wire: header bytes, chunks,
//! the moment at which a header arrives, half-closed connections.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// The API version that requests ask for; newer than every peer's is never needed.
pub const API: &str = "/v1.41";
/// Bytes that are taken from the socket at once, so that a long answer is not slowed down by who reads it.
const PIECE: usize = 256 << 10;

/// A connection that is kept alive between requests.
pub struct Http {
    socket: PathBuf,
    connection: Option<BufReader<UnixStream>>,
    timeout: Duration,
}

/// A whole answer.
#[derive(Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What was asked, for messages.
    pub asked: String,
}

impl Http {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), connection: None, timeout: crate::process::PATIENCE }
    }

    /// The longest silence of the daemon that is endured.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.must("GET", path, None)
    }

    #[track_caller]
    pub fn post(&mut self, path: &str, body: &Value) -> Response {
        self.must("POST", path, Some(body))
    }

    /// A `POST` without a body.
    #[track_caller]
    pub fn act(&mut self, path: &str) -> Response {
        self.must("POST", path, None)
    }

    #[track_caller]
    pub fn delete(&mut self, path: &str) -> Response {
        self.must("DELETE", path, None)
    }

    #[track_caller]
    fn must(&mut self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One request and its whole answer; paths are taken below [`API`]. An error is the connection's.
    pub fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Response> {
        let bytes = body.map(|value| value.to_string().into_bytes());
        let kind = body.map_or("", |_| "Content-Type: application/json\r\n");
        self.exchange(method, &format!("{API}{path}"), kind, &bytes.unwrap_or_default())
    }

    /// One request with the bytes of path, headers (each ended by CRLF) and body as given.
    pub fn exchange(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Response> {
        let asked = format!("{method} {path}");
        let mut connection = self.send(method, path, headers, body)?;
        let (status, headers) = read_head(&mut connection)?;
        let mut answer = Vec::new();
        let framing = Framing::of(method, status, &headers)?;
        framing.read_all(&mut connection, &mut answer)?;
        let closes = headers.iter().any(|(name, value)| name == "connection" && value == "close");
        if !closes && framing != Framing::UntilClosed {
            self.connection = Some(connection);
        }
        Ok(Response { status, headers, body: answer, asked })
    }

    /// One request whose answer is read piece by piece.
    pub fn stream(&mut self, method: &str, path: &str) -> io::Result<Stream> {
        let mut connection = self.send(method, &format!("{API}{path}"), "", b"")?;
        let (status, headers) = read_head(&mut connection)?;
        let framing = Framing::of(method, status, &headers)?;
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        Ok(Stream {
            status,
            headers,
            body: Body { connection, framing, left, in_chunk: false, ended: false },
        })
    }

    /// Takes the connection over, as attach and exec start do.
    pub fn hijack(&mut self, path: &str, body: Option<&Value>) -> io::Result<Hijacked> {
        let bytes = body.map(|value| value.to_string().into_bytes()).unwrap_or_default();
        let kind = body.map_or("", |_| "Content-Type: application/json\r\n");
        let headers = format!("{kind}Connection: Upgrade\r\nUpgrade: tcp\r\n");
        let mut connection = self.send("POST", &format!("{API}{path}"), &headers, &bytes)?;
        let (status, headers) = read_head(&mut connection)?;
        let mut refusal = Vec::new();
        if status != 101 && status != 200 {
            Framing::of("POST", status, &headers)?.read_all(&mut connection, &mut refusal)?;
            // Kept alive for the next request, which nobody will make: what is read from now on is the end.
            connection.get_ref().shutdown(Shutdown::Both)?;
        }
        Ok(Hijacked { status, headers, refusal, connection })
    }

    fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> io::Result<BufReader<UnixStream>> {
        let length = match (body.len(), method) {
            (0, "GET" | "HEAD" | "DELETE") => String::new(),
            (length, _) => format!("Content-Length: {length}\r\n"),
        };
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}{length}\r\n").into_bytes();
        head.extend_from_slice(body);
        // A kept connection that the daemon closed meanwhile is tried once more, fresh.
        if let Some(mut kept) = self.connection.take()
            && kept.get_mut().write_all(&head).is_ok()
            && !kept.fill_buf()?.is_empty()
        {
            return Ok(kept);
        }
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(self.timeout * crate::process::slowness()))?;
        let mut connection = BufReader::with_capacity(PIECE, stream);
        connection.get_mut().write_all(&head)?;
        Ok(connection)
    }
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// This answer, if it has the status.
    ///
    /// # Panics
    /// When it has another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The `message` of an error, after a check of its status.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        body["message"].as_str().unwrap_or_else(|| panic!("no message: {self:?}")).to_owned()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} answered {}: {}", self.asked, self.status, self.text().trim_end())
    }
}

/// An answer that is still being read.
pub struct Stream {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body: Body,
}

impl Stream {
    /// The next line without its end; none when the answer ended.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let count = self.read_line(&mut line)?;
        Ok((count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// The next line as JSON.
    ///
    /// # Panics
    /// When there is none, or it is no JSON.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        let line = self.line().expect("the stream goes on").expect("the stream has not ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let count = piece.len().min(into.len());
        into[..count].copy_from_slice(&piece[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.body.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.body.consume(count);
    }
}

/// A connection that was taken over.
pub struct Hijacked {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// The body of an answer that is no takeover.
    pub refusal: Vec<u8>,
    connection: BufReader<UnixStream>,
}

impl Hijacked {
    /// Ends the stream towards the process.
    pub fn close_input(&self) {
        let _ = self.connection.get_ref().shutdown(Shutdown::Write);
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.connection.get_mut().write_all(bytes).expect("the daemon reads");
    }

    /// Everything until the daemon closes, taken apart into standard output and error.
    ///
    /// # Panics
    /// On a malformed frame.
    pub fn frames(mut self) -> (String, String) {
        let mut bytes = Vec::new();
        self.connection.read_to_end(&mut bytes).expect("the stream ends");
        demultiplex(&bytes)
    }

    /// The next so many bytes, however many pieces they arrive in.
    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.connection.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Everything until the daemon closes, as it is (a terminal's stream).
    pub fn raw(mut self) -> String {
        let mut bytes = Vec::new();
        self.connection.read_to_end(&mut bytes).expect("the stream ends");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Takes frames apart: standard output, standard error.
///
/// # Panics
/// On a malformed frame.
pub fn demultiplex(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let (head, rest) =
            bytes.split_at_checked(8).unwrap_or_else(|| panic!("half a frame head: {bytes:?}"));
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (payload, rest) =
            rest.split_at_checked(length).unwrap_or_else(|| panic!("half a frame of {length}"));
        match head[0] {
            0 | 1 => out.extend_from_slice(payload),
            2 => err.extend_from_slice(payload),
            other => panic!("stream {other}: {}", String::from_utf8_lossy(payload)),
        }
        bytes = rest;
    }
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClosed,
}

impl Framing {
    fn of(method: &str, status: u16, headers: &[(String, String)]) -> io::Result<Self> {
        let header =
            |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        if method == "HEAD" || status == 204 || status == 304 {
            return Ok(Self::Length(0));
        }
        if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Self::Chunked);
        }
        match header("content-length") {
            Some(value) => value.parse().map(Self::Length).map_err(|_| bad("content-length")),
            None => Ok(Self::UntilClosed),
        }
    }

    fn read_all(self, connection: &mut BufReader<UnixStream>, into: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Length(length) => read_exactly(connection, length, into)?,
            Self::UntilClosed => {
                connection.read_to_end(into)?;
            }
            Self::Chunked => loop {
                let length = chunk_head(connection)?;
                read_exactly(connection, length, into)?;
                chunk_end(connection)?;
                if length == 0 {
                    break;
                }
            },
        }
        Ok(())
    }
}

struct Body {
    connection: BufReader<UnixStream>,
    framing: Framing,
    /// Bytes left of the whole, or of the chunk.
    left: u64,
    /// The end of a chunk is still to be read.
    in_chunk: bool,
    ended: bool,
}

impl Body {
    /// What is there of the body; nothing at its end.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.framing == Framing::UntilClosed {
            return self.connection.fill_buf();
        }
        while self.framing == Framing::Chunked && self.left == 0 && !self.ended {
            if self.in_chunk {
                chunk_end(&mut self.connection)?;
            }
            self.left = chunk_head(&mut self.connection)?;
            self.in_chunk = true;
            if self.left == 0 {
                chunk_end(&mut self.connection)?;
                self.ended = true;
            }
        }
        if self.left == 0 {
            return Ok(&[]);
        }
        let piece = self.connection.fill_buf()?;
        let count = usize::try_from(self.left).map_or(piece.len(), |left| left.min(piece.len()));
        Ok(&piece[..count])
    }

    fn consume(&mut self, count: usize) {
        self.connection.consume(count);
        if self.framing != Framing::UntilClosed {
            self.left -= count as u64;
        }
    }
}

fn read_exactly(connection: &mut BufReader<UnixStream>, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let count = connection.take(length).read_to_end(into)?;
    if count as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn chunk_end(connection: &mut BufReader<UnixStream>) -> io::Result<()> {
    if line(connection)?.is_empty() { Ok(()) } else { Err(bad("end of a chunk")) }
}

fn chunk_head(connection: &mut BufReader<UnixStream>) -> io::Result<u64> {
    let head = line(connection)?;
    let digits = head.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).map_err(|_| bad("chunk length"))
}

fn read_head(connection: &mut BufReader<UnixStream>) -> io::Result<(u16, Vec<(String, String)>)> {
    let status = line(connection)?;
    let status =
        status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad("status line"))?;
    let mut headers = Vec::new();
    loop {
        let head = line(connection)?;
        if head.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = head.split_once(':').ok_or_else(|| bad("header"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// A line of a head, without its end.
fn line(connection: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = Vec::new();
    connection.take(64 << 10).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| bad("bytes in a head"))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon that says `answer` to whoever asks.
    fn answering(answer: &'static [u8]) -> (tempfile::TempDir, Http) {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut asked = [0; 1024];
                let _ = stream.read(&mut asked);
                let _ = stream.write_all(answer);
            }
        });
        let http = Http::new(&socket);
        (folder, http)
    }

    #[test]
    fn bodies_end_where_they_say() {
        let (_folder, mut http) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes and more");
        assert_eq!(http.get("/x").text(), "yes");
        let (_folder, mut http) =
            answering(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\na;x=y\r\n and chunks\r\n0\r\n\r\n");
        assert!(http.ask("GET", "/x", None).is_err(), "a chunk longer than it says");
        let (_folder, mut http) =
            answering(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\nb;x=y\r\n and chunks\r\n0\r\n\r\n");
        assert_eq!(http.get("/x").expect(500).text(), "yes and chunks");
        let (_folder, mut http) = answering(b"HTTP/1.1 200 OK\r\n\r\nuntil closed");
        assert_eq!(http.get("/x").text(), "until closed");
    }

    #[test]
    fn a_stream_is_read_line_by_line() {
        let (_folder, mut http) = answering(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n7\r\ntwo\nthr\r\n3\r\nee\n\r\n0\r\n\r\n",
        );
        let mut stream = http.stream("GET", "/x").expect("stream");
        let mut lines = Vec::new();
        while let Some(line) = stream.line().expect("line") {
            lines.push(line);
        }
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[test]
    fn frames_are_taken_apart() {
        let bytes = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01!\x01\0\0\0\0\0\0\0";
        assert_eq!(demultiplex(bytes), ("hi".to_owned(), "!".to_owned()));
    }
}
