//! A registry that does what a test tells it, also what no registry should.
//!
//! It listens on the loopback of a private host, holds its documents and blobs in memory, and writes down what it was
//! asked. A [`Fault`] makes it answer wrongly.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::host::Host;
use crate::image::hex_digest;

mod upload;

/// What is wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The body breaks off after so many bytes, once.
    CutOnce(usize),
    /// The body breaks off after so many bytes, always.
    Cut(usize),
    /// Zeros without end behind the body, and no length.
    Endless,
    /// This instead, with a media type.
    Instead(Vec<u8>, &'static str),
    /// A status with headers and a body.
    Status(u16, Vec<(String, String)>, String),
    /// A status, once.
    StatusOnce(u16, Vec<(String, String)>),
    /// Elsewhere.
    Redirect(String),
    /// Ranges are ignored.
    NoRanges,
    /// So many bytes, and then a pause, again and again.
    Slow(usize, Duration),
    /// The connection breaks when so many bytes of an upload have come, once. The path is that of the uploads.
    CutUpload(usize),
}

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What came with it. Of what is written down, only what is no blob.
    pub body: Vec<u8>,
    /// The connection is to break where the body ends.
    cut: bool,
}

#[derive(Default)]
struct State {
    /// Path → media type and bytes.
    served: BTreeMap<String, (String, Vec<u8>)>,
    faults: BTreeMap<String, Fault>,
    asked: Vec<Asked>,
    /// Bytes of bodies that went out, by path.
    sent: BTreeMap<String, u64>,
    /// If set, who asks without this header gets a challenge with it.
    authorization: Option<(String, String)>,
    /// What has come of blobs that are being sent, by their numbers.
    uploads: BTreeMap<u64, Vec<u8>>,
}

/// The registry. It ends when this is dropped.
pub struct Registry {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    port: u16,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

/// An image in the registry.
pub struct Pushed {
    pub manifest: Value,
    /// With its algorithm.
    pub digest: String,
    pub layers: Vec<String>,
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_digest(bytes))
}

impl Registry {
    /// # Panics
    /// When the host's network cannot be entered (not root).
    pub fn start(host: &Host) -> Self {
        let init = host.init();
        let state: Arc<Mutex<State>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (ready, port) = std::sync::mpsc::channel();
        let (thread_state, thread_stop) = (Arc::clone(&state), Arc::clone(&stop));
        let open = Arc::clone(&connections);
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(format!("/proc/{init}/ns/net")).expect("the host's network");
            rustix::thread::move_into_link_name_space(
                namespace.as_fd(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .expect("entering the host's network");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            ready.send(listener.local_addr().expect("an address").port()).expect("the test waits");
            for stream in listener.incoming().flatten() {
                if thread_stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(other) = stream.try_clone() {
                    open.lock().unwrap_or_else(PoisonError::into_inner).push(other);
                }
                let state = Arc::clone(&thread_state);
                std::thread::spawn(move || serve(&state, stream));
            }
        });
        let port = port.recv().expect("the registry starts");
        Self { state, stop, port, connections }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts an image under a tag; `layers` are archives as they are sent, with their diff IDs.
    pub fn push(&self, name: &str, tag: &str, layers: &[(Vec<u8>, String)], config: Value) -> Pushed {
        let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        let config = json!({
            "architecture": crate::image::architecture(), "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string();
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|(bytes, _)| {
                self.put_blob(name, bytes);
                json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(bytes), "size": bytes.len() })
            })
            .collect();
        self.put_blob(name, config.as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config.as_bytes()), "size": config.len() },
            "layers": descriptors,
        });
        let digest = self.put_manifest(name, tag, &manifest);
        Pushed { manifest, digest, layers: layers.iter().map(|(bytes, _)| self::digest(bytes)).collect() }
    }

    pub fn put_blob(&self, name: &str, bytes: &[u8]) {
        let path = format!("/v2/{name}/blobs/{}", digest(bytes));
        self.lock().served.insert(path, ("application/octet-stream".to_owned(), bytes.to_vec()));
    }

    /// Puts a document under a tag and its digest; its type is what it says itself. Gives the digest.
    pub fn put_manifest(&self, name: &str, tag: &str, manifest: &Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let media_type = manifest["mediaType"].as_str().unwrap_or("application/json").to_owned();
        let digest = digest(&bytes);
        for reference in [tag, &digest] {
            let path = format!("/v2/{name}/manifests/{reference}");
            self.lock().served.insert(path, (media_type.clone(), bytes.clone()));
        }
        digest
    }

    /// Answers a path wrongly from now on.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.lock().faults.insert(path.to_owned(), fault);
    }

    /// Answers everything rightly again.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Wants to see a header, and says so with a challenge.
    pub fn require(&self, authorization: &str, challenge: &str) {
        self.lock().authorization = Some((authorization.to_owned(), challenge.to_owned()));
    }

    /// Serves a document at any path.
    pub fn serve_at(&self, path: &str, media_type: &str, bytes: &[u8]) {
        self.lock().served.insert(path.to_owned(), (media_type.to_owned(), bytes.to_vec()));
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.lock().asked)
    }

    /// Bytes of bodies that went out under a path.
    pub fn sent(&self, path: &str) -> u64 {
        self.lock().sent.get(path).copied().unwrap_or(0)
    }

    /// The document under a tag or a digest.
    pub fn manifest(&self, name: &str, reference: &str) -> Option<Value> {
        let state = self.lock();
        let (_, bytes) = state.served.get(&format!("/v2/{name}/manifests/{reference}"))?;
        serde_json::from_slice(bytes).ok()
    }

    /// Forgets everything under a repository.
    pub fn forget(&self, name: &str) {
        let start = format!("/v2/{name}/");
        self.lock().served.retain(|path, _| !path.starts_with(&start));
    }

    /// Breaks all connections, as a restart does.
    pub fn break_connections(&self) {
        let mut open = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.break_connections();
    }
}

fn serve(state: &Arc<Mutex<State>>, stream: TcpStream) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    let mut writer = stream;
    while let Some(asked) = read_request(state, &mut reader) {
        let keep = answer(state, &asked, &mut writer).unwrap_or(false);
        if !keep {
            break;
        }
    }
    let _ = writer.shutdown(Shutdown::Both);
}

/// A request's head. What is not HTTP (a try with TLS) ends the connection.
fn read_request(state: &Mutex<State>, reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let limit = cut_at(state, &method, &path);
    let body = read_body(reader, &headers, limit.unwrap_or(u64::MAX))?;
    let cut = limit.is_some_and(|limit| body.len() as u64 >= limit);
    Some(Asked { method, path, headers, body, cut })
}

/// After how many bytes of a body its connection is to break, if it is.
fn cut_at(state: &Mutex<State>, method: &str, path: &str) -> Option<u64> {
    let end = path.find("/blobs/uploads/").filter(|_| method == "PATCH")? + "/blobs/uploads/".len();
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    match state.faults.get(&path[..end]) {
        Some(Fault::CutUpload(bytes)) => Some(*bytes as u64),
        _ => None,
    }
}

fn read_body(reader: &mut impl BufRead, headers: &BTreeMap<String, String>, limit: u64) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_none_or(|coding| coding != "chunked") {
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        reader.take(length.min(limit)).read_to_end(&mut body).ok()?;
        return Some(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = u64::from_str_radix(line.trim(), 16).ok()?;
        let room = limit - body.len() as u64;
        reader.take(length.min(room)).read_to_end(&mut body).ok()?;
        if length >= room {
            return Some(body);
        }
        // The end of the line behind each piece.
        line.clear();
        reader.read_line(&mut line).ok()?;
        if length == 0 {
            return Some(body);
        }
    }
}

/// Answers one request. False: the connection ends with it.
fn answer(state: &Arc<Mutex<State>>, asked: &Asked, out: &mut TcpStream) -> std::io::Result<bool> {
    let path = asked.path.split('?').next().unwrap_or_default().to_owned();
    let (found, fault, challenge) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_blob = path.contains("/blobs/");
        let body = if is_blob { Vec::new() } else { asked.body.clone() };
        state.asked.push(Asked { body, ..asked.clone() });
        if asked.cut {
            state.faults.retain(|_, fault| !matches!(fault, Fault::CutUpload(_)));
        }
        let fault = state.faults.get(&path).cloned();
        if matches!(fault, Some(Fault::CutOnce(_) | Fault::StatusOnce(..))) {
            state.faults.remove(&path);
        }
        let wanted = state.authorization.clone().filter(|(wanted, _)| {
            path.starts_with("/v2/") && asked.headers.get("authorization") != Some(wanted)
        });
        (state.served.get(&path).cloned(), fault, wanted)
    };
    if let Some((_, challenge)) = challenge {
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        return status(out, asked, 401, &[("WWW-Authenticate".into(), challenge)], body);
    }
    match &fault {
        Some(Fault::Status(code, headers, body)) => return status(out, asked, *code, headers, body),
        Some(Fault::StatusOnce(code, headers)) => return status(out, asked, *code, headers, ""),
        Some(Fault::Redirect(to)) => {
            return status(out, asked, 307, &[("Location".into(), to.clone())], "");
        }
        _ => {}
    }
    if path == "/v2/" {
        return status(out, asked, 200, &[], "{}");
    }
    if let Some(stored) = upload::answer(&mut state.lock().unwrap_or_else(PoisonError::into_inner), asked) {
        if asked.cut {
            return Ok(false);
        }
        return status(out, asked, stored.status, &stored.headers, &stored.body);
    }
    let Some((media_type, bytes)) = found else {
        let code = if path.contains("/blobs/") { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
        let body = json!({"errors": [{"code": code, "message": code.to_lowercase().replace('_', " ")}]});
        return status(out, asked, 404, &[], &body.to_string());
    };
    let (media_type, bytes) = match &fault {
        Some(Fault::Instead(other, media_type)) => ((*media_type).to_owned(), other.clone()),
        _ => (media_type, bytes),
    };
    let ranged = !matches!(fault, Some(Fault::NoRanges));
    let range =
        asked.headers.get("range").filter(|_| ranged).and_then(|range| parse_range(range, bytes.len()));
    let (start, end) = range.unwrap_or((0, bytes.len()));
    let mut head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {}\r\n",
        if range.is_some() { "206 Partial Content" } else { "200 OK" },
        digest(&bytes)
    );
    if range.is_some() {
        head.push_str(&format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len()));
    }
    let body = &bytes[start..end];
    match fault {
        Some(Fault::Endless) => head.push_str("Connection: close\r\n\r\n"),
        _ => head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len())),
    }
    out.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(true);
    }
    let mut send = |piece: &[u8]| -> std::io::Result<()> {
        out.write_all(piece)?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.sent.entry(path.clone()).or_default() += piece.len() as u64;
        Ok(())
    };
    match fault {
        Some(Fault::Cut(after) | Fault::CutOnce(after)) => {
            send(&body[..after.min(body.len())])?;
            Ok(false)
        }
        Some(Fault::Endless) => {
            send(body)?;
            loop {
                send(&[0; 65_536])?;
            }
        }
        Some(Fault::Slow(bytes, pause)) => {
            for piece in body.chunks(bytes) {
                send(piece)?;
                std::thread::sleep(pause);
            }
            Ok(true)
        }
        _ => {
            for piece in body.chunks(256 << 10) {
                send(piece)?;
            }
            Ok(true)
        }
    }
}

fn parse_range(range: &str, size: usize) -> Option<(usize, usize)> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start: usize = start.parse().ok()?;
    let end = end.parse::<usize>().map_or(size, |last| (last + 1).min(size));
    (start < end).then_some((start, end))
}

fn status(
    out: &mut TcpStream,
    asked: &Asked,
    code: u16,
    headers: &[(String, String)],
    body: &str,
) -> std::io::Result<bool> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    out.write_all(
        format!(
            "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
        )
        .as_bytes(),
    )?;
    if asked.method != "HEAD" {
        out.write_all(body.as_bytes())?;
    }
    Ok(true)
}
