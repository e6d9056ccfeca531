//! The streams of an attached container or exec: standard input there, output here, and the keys that detach.

use api_client::{FrameReader, Hijacked, ReadHalf, StreamKind, WriteHalf};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::fail::Fail;
use crate::output::{Which, write_or_end};

/// What is attached, and how.
#[derive(Debug, Clone)]
pub struct Attached {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    /// Keys that detach; empty for none. Only a terminal has them.
    pub keys: Vec<u8>,
}

/// How the streams ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The daemon closed them: the process is over.
    Closed,
    /// The user typed the keys to detach.
    Detached,
}

/// Copies in both directions until one side has had enough.
pub async fn pump(stream: Hijacked, attached: &Attached) -> Result<End, Fail> {
    let framed = !attached.tty && stream.multiplexed != Some(false);
    let (read, write) = stream.split();
    tokio::select! {
        result = output(read, framed, attached) => result.map(|()| End::Closed),
        end = input(write, attached) => Ok(end),
    }
}

async fn output(mut read: ReadHalf, framed: bool, attached: &Attached) -> Result<(), Fail> {
    let mut frames = FrameReader::default();
    loop {
        let chunk = match read.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(()),
            // The daemon may close hard once the process is gone.
            Err(api_client::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if !framed {
            write_or_end(Which::Stdout, &chunk).await?;
            continue;
        }
        frames.push(&chunk);
        drain(&mut frames, attached.stdout, attached.stderr).await?;
    }
}

/// Writes all complete pieces to where they belong.
pub async fn drain(frames: &mut FrameReader, stdout: bool, stderr: bool) -> Result<(), Fail> {
    while let Some((kind, piece)) = frames.piece()? {
        match kind {
            StreamKind::Stdin | StreamKind::Stdout if stdout => write_or_end(Which::Stdout, &piece).await?,
            StreamKind::Stderr if stderr => write_or_end(Which::Stderr, &piece).await?,
            StreamKind::System => {
                let text = String::from_utf8_lossy(&piece);
                return Err(Fail::text(format!("error from daemon in stream: {text}")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies standard input. Ends only by detaching: the end of input is passed on, and output goes on.
async fn input(mut write: WriteHalf, attached: &Attached) -> End {
    if !attached.stdin {
        return std::future::pending().await;
    }
    let mut chunks = stdin();
    let mut escape = Escape::new(if attached.tty { &attached.keys } else { &[] });
    while let Some(chunk) = chunks.recv().await {
        let (bytes, detach) = escape.feed(&chunk);
        if !bytes.is_empty() && write.write(&bytes).await.is_err() {
            // The process is gone or does not read; its output decides when we are done.
            return std::future::pending().await;
        }
        if detach {
            return End::Detached;
        }
    }
    let _ = write.close().await;
    std::future::pending().await
}

/// Standard input in pieces, read by a thread of its own: our input is shared, so it must stay blocking.
fn stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match rustix::io::read(std::io::stdin(), &mut buffer[..]) {
                Ok(0) => break,
                Ok(count) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..count])).is_err() {
                        break;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
    });
    receiver
}

/// Finds the keys that detach in what is typed. Keys that only begin the sequence are held back.
#[derive(Debug)]
struct Escape<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl<'a> Escape<'a> {
    fn new(keys: &'a [u8]) -> Self {
        Self { keys, matched: 0 }
    }

    /// What to pass on, and whether the keys are complete.
    fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(*byte == self.keys[0]);
            if self.matched == 0 {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

/// `ctrl-p,ctrl-q` into bytes.
pub fn parse_keys(text: &str) -> Result<Vec<u8>, String> {
    text.split(',')
        .map(|key| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (Some(rest), _) => match rest.as_bytes() {
                [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                [b'@'] => Ok(0),
                [b'['] => Ok(27),
                [b'\\'] => Ok(28),
                [b']'] => Ok(29),
                [b'^'] => Ok(30),
                [b'_'] => Ok(31),
                _ => Err(format!("Unknown character: '{key}'")),
            },
            (None, [one]) => Ok(*one),
            _ => Err(format!("Unknown character: '{key}'")),
        })
        .collect()
}

/// What detaches where nobody chose otherwise.
pub const DEFAULT_KEYS: &str = "ctrl-p,ctrl-q";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys() {
        assert_eq!(parse_keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(parse_keys("a,ctrl-@,ctrl-_"), Ok(vec![b'a', 0, 31]));
        assert!(parse_keys("foo").is_err());
        assert!(parse_keys("").is_err());
    }

    #[test]
    fn escape_holds_back_and_lets_go() {
        let keys = [16, 17];
        let mut escape = Escape::new(&keys);
        assert_eq!(escape.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(escape.feed(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(escape.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(escape.feed(b"\x11x"), (vec![], true));
    }

    proptest! {
        #[test]
        fn without_the_keys_everything_passes(parts in proptest::collection::vec("[a-o]{0,9}", 0..6)) {
            let keys = [16, 17];
            let mut escape = Escape::new(&keys);
            let out: Vec<u8> = parts.iter().flat_map(|part| escape.feed(part.as_bytes()).0).collect();
            prop_assert_eq!(out, parts.concat().into_bytes());
        }
    }
}
