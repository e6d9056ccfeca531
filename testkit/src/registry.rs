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
    /// What was sent with it; not that of uploads.
    pub body: Vec<u8>,
}

#[derive(Default)]
struct State {
    /// Path → media type and bytes.
    served: BTreeMap<String, (String, Vec<u8>)>,
    faults: BTreeMap<String, Fault>,
    asked: Vec<Asked>,
    /// Bytes of bodies that went out, by path.
    sent: BTreeMap<String, u64>,
    /// What has come of blobs, by the path of their upload.
    uploads: BTreeMap<String, Vec<u8>>,
    /// If set, who asks without this header gets a challenge with it.
    authorization: Option<(String, String)>,
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

    /// What is served at a path.
    pub fn served(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().served.get(path).map(|(_, bytes)| bytes.clone())
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
    while let Some(mut asked) = read_request(&mut reader) {
        let keep = match upload(state, &asked, &mut reader, &mut writer) {
            Some(answered) => answered.unwrap_or(false),
            None => {
                let mut body = Vec::new();
                let read = read_body(&mut reader, &asked, |piece| {
                    body.extend_from_slice(piece);
                    true
                });
                asked.body = body;
                read.is_ok() && answer(state, &asked, &mut writer).unwrap_or(false)
            }
        };
        if !keep {
            break;
        }
    }
    let _ = writer.shutdown(Shutdown::Both);
}

/// A request's head. What is not HTTP (a try with TLS) ends the connection.
fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
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
    Some(Asked { method, path, headers, body: Vec::new() })
}

/// Hands a request's body over piece by piece, until it ends or is not wanted any more.
fn read_body(
    reader: &mut impl BufRead,
    asked: &Asked,
    mut take: impl FnMut(&[u8]) -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut piece = |reader: &mut dyn Read, length: u64| -> std::io::Result<bool> {
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = reader.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if !take(&buffer[..count]) {
                return Ok(false);
            }
            left -= count as u64;
        }
        Ok(true)
    };
    if asked.headers.get("transfer-encoding").is_none_or(|coding| coding != "chunked") {
        let length = asked.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        return piece(reader, length).map(drop);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
        if !piece(reader, length)? {
            return Ok(());
        }
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// Uploads of blobs and manifests. None: it is none of those, or not allowed.
fn upload(
    state: &Mutex<State>,
    asked: &Asked,
    reader: &mut impl BufRead,
    out: &mut TcpStream,
) -> Option<std::io::Result<bool>> {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.replace("%3A", ":").replace("%2F", "/"))
    };
    let wanted = lock().authorization.clone();
    if wanted.is_some_and(|(wanted, _)| asked.headers.get("authorization") != Some(&wanted)) {
        return None;
    }
    if let (Some((front, reference)), "PUT") = (path.split_once("/manifests/"), asked.method.as_str()) {
        let mut bytes = Vec::new();
        let read = read_body(reader, asked, |piece| {
            bytes.extend_from_slice(piece);
            true
        });
        let digest = digest(&bytes);
        let media_type = asked.headers.get("content-type").cloned().unwrap_or_default();
        for reference in [reference, &digest] {
            lock()
                .served
                .insert(format!("{front}/manifests/{reference}"), (media_type.clone(), bytes.clone()));
        }
        let headers = [("Docker-Content-Digest".into(), digest), ("Location".into(), path.to_owned())];
        return Some(read.and_then(|()| status(out, asked, 201, &headers, "")));
    }
    let (front, id) = path.split_once("/blobs/uploads/")?;
    let begun = |place: &str, length: usize| {
        [("Location".into(), place.to_owned()), ("Range".into(), format!("0-{}", length.saturating_sub(1)))]
    };
    if asked.method == "POST" {
        let mut state = lock();
        state.asked.push(asked.clone());
        if let (Some(mount), Some(from)) = (parameter("mount"), parameter("from"))
            && let Some(blob) = state.served.get(&format!("/v2/{from}/blobs/{mount}")).cloned()
        {
            state.served.insert(format!("{front}/blobs/{mount}"), blob);
            return Some(status(out, asked, 201, &[("Location".into(), path.to_owned())], ""));
        }
        let place = format!("{path}{}", state.asked.len() + state.uploads.len());
        state.uploads.insert(place.clone(), Vec::new());
        return Some(status(out, asked, 202, &begun(&place, 0), ""));
    }
    if id.is_empty() || !lock().uploads.contains_key(path) {
        return None;
    }
    let limit = match lock().faults.get(&format!("{front}/blobs/uploads/")) {
        Some(Fault::CutUpload(bytes)) => *bytes,
        _ => usize::MAX,
    };
    let mut cut = false;
    let read = read_body(reader, asked, |piece| {
        let mut state = lock();
        let Some(upload) = state.uploads.get_mut(path) else { return false };
        upload.extend_from_slice(piece);
        cut = upload.len() >= limit;
        !cut
    });
    let mut state = lock();
    state.asked.push(asked.clone());
    if cut {
        state.faults.remove(&format!("{front}/blobs/uploads/"));
        return Some(Ok(false));
    }
    if let Err(error) = read {
        return Some(Err(error));
    }
    let length = state.uploads.get(path).map_or(0, Vec::len);
    Some(match asked.method.as_str() {
        "PATCH" => status(out, asked, 202, &begun(path, length), ""),
        "PUT" => {
            let bytes = state.uploads.remove(path).unwrap_or_default();
            let digest = digest(&bytes);
            if parameter("digest").as_ref() != Some(&digest) {
                return Some(status(
                    out,
                    asked,
                    400,
                    &[],
                    r#"{"errors":[{"code":"DIGEST_INVALID","message":"x"}]}"#,
                ));
            }
            let place = format!("{front}/blobs/{digest}");
            state.served.insert(place.clone(), ("application/octet-stream".to_owned(), bytes));
            status(out, asked, 201, &[("Location".into(), place)], "")
        }
        _ => status(out, asked, 204, &begun(path, length), ""),
    })
}

/// Answers one request. False: the connection ends with it.
fn answer(state: &Arc<Mutex<State>>, asked: &Asked, out: &mut TcpStream) -> std::io::Result<bool> {
    let path = asked.path.split('?').next().unwrap_or_default().to_owned();
    let (found, fault, challenge) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(asked.clone());
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
