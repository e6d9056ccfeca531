//! The container's side: what the daemon says of a path, archives from it and to it.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use api_client::{Body, Client, Request, Response, Switched, segment};
use api_types::container::PathStat;
use archive::handover::{Inlet, Outlet, PROTOCOL};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::local::{Local, Unpack};
use super::progress::Progress;
use super::{End, clean, split};
use crate::fail::Fail;
use crate::output::{self, Which};

const STAT: &str = "x-docker-container-path-stat";
/// Longest answer to what was handed over, in bytes.
const ANSWER_MAX: u64 = 1 << 20;
/// Pieces of an archive that wait to be unpacked.
const AHEAD: usize = 16;

/// Bits of Go's `FileMode`.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const IRREGULAR: u32 = 1 << 19;

/// What is at a path.
#[derive(Debug)]
pub struct Stat {
    stat: PathStat,
    pub link_target: String,
}

impl Stat {
    fn from_header(text: &str) -> Option<Self> {
        let stat: PathStat = serde_json::from_slice(&decode_base64(text)?).ok()?;
        Some(Self { link_target: stat.link_target.clone(), stat })
    }

    pub fn is_directory(&self) -> bool {
        self.stat.mode & DIRECTORY != 0
    }

    pub fn is_symlink(&self) -> bool {
        self.stat.mode & SYMLINK != 0
    }

    /// What a copy of it is said to have copied; of a directory that is what came over the wire.
    pub fn told_size(&self) -> Option<u64> {
        if self.is_directory() { None } else { u64::try_from(self.stat.size).ok() }
    }
}

pub struct Remote<'a> {
    pub client: &'a Client,
    pub container: &'a str,
}

impl Remote<'_> {
    fn request(&self, method: http::Method, path: &str) -> Request {
        Request::new(method, format!("/containers/{}/archive", segment(self.container))).query("path", path)
    }

    /// What is at a path, if anything.
    pub async fn stat(&self, path: &str) -> Option<Stat> {
        let answer = self.client.send(self.request(http::Method::HEAD, path)).await.ok()?;
        let stat = answer.header(STAT).and_then(Stat::from_header);
        answer.discard().await;
        stat
    }

    /// What is at the place to copy to, a link followed. If it cannot be found out, the copy itself will tell.
    pub async fn destination(&self, path: &str) -> Result<End, Fail> {
        let mut end = End { path: path.to_owned(), is_directory: None };
        let Some(mut stat) = self.stat(path).await else { return Ok(end) };
        if stat.is_symlink() {
            end.path = join_link(path, &stat.link_target);
            match self.stat(&end.path).await {
                Some(target) => stat = target,
                None => return Ok(end),
            }
        }
        let odd = [(DEVICE, "got a device"), (IRREGULAR, "got an irregular file")];
        if let Some((_, what)) = odd.iter().find(|(bit, _)| stat.stat.mode & bit != 0) {
            return Err(Fail::text(format!(
                "destination \"{}:{path}\" must be a directory or a regular file: {what}",
                self.container
            )));
        }
        end.is_directory = Some(stat.is_directory());
        Ok(end)
    }

    /// What is at a path, and an archive of it.
    pub async fn get(&self, path: &str) -> Result<(Stat, Response), Fail> {
        let answer = self.client.send(self.request(http::Method::GET, path)).await?;
        Ok((stat_of(answer.headers())?, answer))
    }

    /// The same, handed over by a daemon on this machine that can do so.
    pub async fn take(&self, path: &str) -> Result<(Stat, Incoming), Fail> {
        if !self.client.is_local() {
            return self.get(path).await.map(|(stat, answer)| (stat, Incoming::Archive(answer)));
        }
        match self.client.switch(self.request(http::Method::GET, path), PROTOCOL).await? {
            Switched::Socket { socket, early, headers } if early.is_empty() => {
                Ok((stat_of(&headers)?, Incoming::Handed(socket)))
            }
            Switched::Socket { .. } => Err(Fail::text("the daemon did not wait for its turn")),
            Switched::Answer(answer) => Ok((stat_of(answer.headers())?, Incoming::Archive(answer))),
        }
    }

    fn put_request(&self, directory: &str, to_user: bool) -> Request {
        let request = self.request(http::Method::PUT, directory).query("noOverwriteDirNonDir", "true");
        if to_user { request.query("copyUIDGID", "true") } else { request }
    }

    pub async fn put(&self, directory: &str, body: Body, to_user: bool) -> Result<(), Fail> {
        let request = self.put_request(directory, to_user);
        Ok(self.client.done(request.body("application/x-tar", body)).await?)
    }

    /// The way to hand something over to a daemon on this machine; none if it cannot take it so. Such a daemon has seen
    /// an empty archive, which changes nothing.
    pub async fn offer(&self, directory: &str, to_user: bool) -> Result<Option<Offered>, Fail> {
        if !self.client.is_local() {
            return Ok(None);
        }
        match self.client.switch(self.put_request(directory, to_user), PROTOCOL).await? {
            Switched::Socket { socket, early, .. } => Ok(Some(Offered { socket, early })),
            Switched::Answer(answer) => {
                answer.discard().await;
                Ok(None)
            }
        }
    }
}

fn stat_of(headers: &http::HeaderMap) -> Result<Stat, Fail> {
    let text = headers.get(STAT).and_then(|value| value.to_str().ok());
    text.and_then(Stat::from_header).ok_or_else(|| Fail::text("unable to get resource stat from response"))
}

/// What comes out of a container.
pub enum Incoming {
    Archive(Response),
    Handed(UnixStream),
}

/// A daemon that waits to be handed something.
pub struct Offered {
    socket: UnixStream,
    early: Bytes,
}

impl Offered {
    /// Hands it over, and waits for what the daemon says. Blocks.
    pub fn send(self, source: Local, name: &str, sent: Arc<AtomicU64>) -> Result<(), Fail> {
        let outlet = Outlet::greet(self.socket.try_clone()?, &self.early)?.counting(sent);
        let mut socket = match source.hand_over(name, outlet) {
            Ok(outlet) => outlet.close()?,
            // The daemon has ended it, and says why.
            Err(archive::Error::Write(_)) => self.socket,
            Err(error) => return Err(Fail::text(error.to_string())),
        };
        socket.set_read_timeout(None)?;
        let mut answer = Vec::new();
        (&mut socket).take(ANSWER_MAX).read_to_end(&mut answer)?;
        let (status, body) = match answer.iter().position(|&byte| byte == b'\n') {
            Some(end) => (&answer[..end], &answer[end + 1..]),
            None => (&answer[..], &[][..]),
        };
        match std::str::from_utf8(status).ok().and_then(|status| status.parse::<u16>().ok()) {
            Some(200) => Ok(()),
            Some(status) => Err(Client::told(status, body).into()),
            None => Err(Fail::text("unexpected EOF")),
        }
    }
}

/// A link's target, which may be relative to where the link is.
pub fn join_link(path: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { clean(&format!("{}/{target}", split(path).0)) }
}

pub async fn to_stdout(mut answer: Response) -> Result<(), Fail> {
    while let Some(chunk) = answer.chunk().await? {
        output::write_or_end(Which::Stdout, &chunk).await?;
    }
    Ok(())
}

/// Unpacks what comes on a thread of its own.
pub async fn receive(incoming: Incoming, unpack: Unpack, progress: &mut Progress) -> Result<(), Fail> {
    let mut answer = match incoming {
        Incoming::Archive(answer) => answer,
        Incoming::Handed(socket) => {
            let came = progress.counter();
            return progress
                .during(move || {
                    let inlet = Inlet::greet(socket)?.counting(came);
                    unpack.run(&inlet, Some(&inlet))
                })
                .await;
        }
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let unpacking =
        tokio::task::spawn_blocking(move || unpack.run(Pieces { receiver, piece: Bytes::new() }, None));
    let mut broken = None;
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                progress.count(chunk.len());
                if sender.send(Ok(chunk)).await.is_err() {
                    // Unpacking has ended, and says why.
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                let _ = sender.send(Err(std::io::ErrorKind::UnexpectedEof.into())).await;
                broken = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(|error| Fail::text(error.to_string()))?;
    match (broken, unpacked) {
        (Some(error), _) => Err(error.into()),
        (None, unpacked) => unpacked,
    }
}

/// Pieces of a body as something to read.
struct Pieces {
    receiver: mpsc::Receiver<std::io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// The standard alphabet, with padding or without.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0u32;
        for at in 0..4 {
            bits = bits << 6 | u32::from(group.get(at).map_or(Some(0), |byte| digit(*byte))?);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len().max(1)]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_any_length() {
        for (text, plain) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")]
        {
            assert_eq!(decode_base64(text).unwrap(), plain.as_bytes(), "{text}");
        }
        assert_eq!(decode_base64("+/8=").unwrap(), [0xfb, 0xff]);
        assert!(decode_base64("Z g=").is_none());
    }

    #[test]
    fn stats_are_read() {
        let text =
            "eyJuYW1lIjoieCIsInNpemUiOjcsIm1vZGUiOjEzNDIxODIzOSwibXRpbWUiOiIiLCJsaW5rVGFyZ2V0IjoiL3kifQ==";
        let stat = Stat::from_header(text).unwrap();
        assert!(stat.is_symlink() && !stat.is_directory());
        assert_eq!((stat.link_target.as_str(), stat.told_size()), ("/y", Some(7)));
    }
}
