//! A daemon that says what a test tells it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::program::{Output, run};

/// One request as it arrived, without the version in its path.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub version: String,
    pub path: String,
    pub body: String,
}

/// What to answer.
pub enum Answer {
    Json(u16, &'static str),
    /// A hijacked stream: first these frames, then whatever `echo` says.
    Stream {
        frames: Vec<(u8, &'static str)>,
        echo: bool,
    },
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;

pub struct Daemon {
    folder: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Daemon {
    pub fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("sock")).expect("a socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script): (_, Arc<Script>) = (Arc::clone(&requests), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                // A client that goes away is not the daemon's trouble.
                std::thread::spawn(move || serve(stream, &seen, &*script).ok());
            }
        });
        Self { folder, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }

    /// The requests as `METHOD path`, without queries.
    pub fn paths(&self) -> Vec<String> {
        let short = |request: &Request| {
            format!("{} {}", request.method, request.path.split('?').next().unwrap_or_default())
        };
        self.requests().iter().map(short).collect()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// Runs `line` as `program`, with `input` on standard input.
    pub fn run_as(&self, program: &str, line: &[&str], input: &str) -> Output {
        run(program, line, input, Some(&format!("unix://{}", self.socket().display())))
    }

    pub fn run(&self, line: &[&str]) -> Output {
        self.run_as("docker", line, "")
    }
}

fn serve(stream: UnixStream, seen: &Mutex<Vec<Request>>, script: &Script) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (version, path) = match target.strip_prefix("/v") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", target),
        };
        let mut length = 0;
        let mut chunked = false;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            chunked |= header == "transfer-encoding: chunked";
        }
        let body = if chunked { read_chunks(&mut reader)? } else { read_exactly(&mut reader, length)? };
        let request = Request {
            method: method.to_owned(),
            version: version.to_owned(),
            path: path.to_owned(),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        seen.lock().expect("no panic").push(request.clone());
        match script(&request) {
            Answer::Json(status, text) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\nApi-Version: 1.50\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n",
                    text.len()
                );
                let text = if request.method == "HEAD" || status == 204 { "" } else { text };
                stream.write_all((head + text).as_bytes())?;
            }
            Answer::Stream { frames, echo } => {
                stream.write_all(
                    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\
                      Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
                )?;
                for (kind, text) in frames {
                    frame(&mut stream, kind, text.as_bytes())?;
                }
                if echo {
                    // Ends when the client says that it has nothing more to say.
                    let mut input = Vec::new();
                    reader.read_to_end(&mut input)?;
                    frame(&mut stream, 1, &input)?;
                }
                return Ok(());
            }
        }
    }
}

fn read_exactly(reader: &mut impl Read, length: usize) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

fn read_chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        body.extend(read_exactly(reader, length)?);
        reader.read_line(&mut String::new())?;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn frame(stream: &mut impl Write, kind: u8, text: &[u8]) -> std::io::Result<()> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text);
    stream.write_all(&bytes)
}
