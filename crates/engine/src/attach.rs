//! `attach` to what was logged before: first the log, then what comes, with nothing lost or repeated between them.
//!
//! 1. The log is sent up to its end, which moves on meanwhile; the container is not held up by that.
//! 2. The shim takes the client in, holds its output back, and tells up to which record everything is logged, and the
//!    beginnings of lines that are not.
//! 3. The few records since 1. are sent, and those beginnings; then the shim lets the client go on.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use logs::{Progress, Reader, Render, Stream as Output};
use model::{Kind, Refusal};
use shim_protocol::{Attach, Attached};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::container::{Client, Command, Handle, Held, Stream};
use crate::logs::{LogQuery, failed, let_short_command_end};
use crate::{Engine, blocking};

/// Bytes of log that are read at once.
const BATCH: usize = 256 << 10;

/// A container's log, about to be sent to somebody who attaches.
pub struct Past {
    container: Handle,
    reader: Reader,
    render: Render,
}

/// The use cases of attaching to containers.
#[derive(Clone)]
pub struct Attachments(pub(crate) Engine);

impl Attachments {
    /// Attaches a client; tells whether the container runs, or the client waits for its start.
    pub async fn attach(&self, name: &str, client: Client) -> Result<bool, Refusal> {
        self.0.find(name)?.ask(|answer| Command::Attach { client: Box::new(client), answer }).await
    }

    /// Opens the log of a container for a client that attaches to it.
    pub async fn past(&self, name: &str, attach: &Attach) -> Result<Past, Refusal> {
        let container = self.0.find(name)?;
        let Attach { stdout, stderr, multiplexed, .. } = *attach;
        let query = LogQuery { stdout, stderr, follow: true, ..LogQuery::default() };
        let reader = self.0.logs().open(&container.view(), &query, true).await?;
        Ok(Past { container, reader, render: Render::new(false, false, multiplexed) })
    }

    /// Sends the past, and if `live` attaches the client to what comes. When this returns, no start can be missed any
    /// more; the rest happens by itself, as the client's stream comes after its request has been answered.
    pub async fn after(
        &self,
        past: Past,
        attach: Attach,
        stream: oneshot::Receiver<Stream>,
        live: bool,
    ) -> Result<(), Refusal> {
        let view = past.container.view();
        let (run, running) = (view.exits, view.phase.is_running());
        let wish = Wish { container: past.container.clone(), attach };
        let registered = if live && !running { Some(wish.register(None).await?) } else { None };
        tokio::spawn(async move {
            let id = past.container.view().id().to_string();
            let sent = match (live, registered) {
                (false, _) => past.send(stream).await,
                (true, Some(registered)) => past.send_and_follow(stream, wish, registered).await,
                (true, None) => past.catch_up(stream, wish, run).await,
            };
            if let Err(error) = sent {
                tracing::debug!(container = %id, %error, "an attached client did not get the log");
            }
        });
        Ok(())
    }
}

/// What a client wants of a container.
struct Wish {
    container: Handle,
    attach: Attach,
}

/// A client that the container's task knows, and whose stream it waits for.
struct Registered {
    runs: bool,
    give: oneshot::Sender<Stream>,
    holds: oneshot::Receiver<Held>,
}

impl Wish {
    /// `run`: only of the run that so many have ended before.
    async fn register(&self, run: Option<u64>) -> Result<Registered, Refusal> {
        let (give, stream) = oneshot::channel();
        let (held, holds) = oneshot::channel();
        let attach = Attach { held: true, ..self.attach.clone() };
        let client = Client { attach, stream, held: Some(held), run };
        let runs = self.container.ask(|answer| Command::Attach { client: Box::new(client), answer }).await?;
        Ok(Registered { runs, give, holds })
    }
}

fn lost(error: std::io::Error) -> Refusal {
    Refusal::from_error("the client went away", &error)
}

/// Only to be written to, whatever kind of socket it is; what the client says is the shim's to read.
fn writer(socket: &OwnedFd) -> Result<UnixStream, Refusal> {
    let copy = StdStream::from(socket.try_clone().map_err(lost)?);
    copy.set_nonblocking(true).map_err(lost)?;
    UnixStream::from_std(copy).map_err(lost)
}

impl Past {
    /// Nothing but the past.
    async fn send(self, stream: oneshot::Receiver<Stream>) -> Result<(), Refusal> {
        let Ok((socket, _)) = stream.await else { return Ok(()) };
        let_short_command_end(&self.container).await;
        Sender { reader: Some((self.reader, self.render)) }.send(&mut writer(&socket)?, None).await
    }

    /// Of a container that runs: most of the past is sent before it is held up.
    async fn catch_up(self, stream: oneshot::Receiver<Stream>, wish: Wish, run: u64) -> Result<(), Refusal> {
        let Ok(stream) = stream.await else { return Ok(()) };
        let mut out = writer(&stream.0)?;
        let mut sender = Sender { reader: Some((self.reader, self.render)) };
        sender.send(&mut out, None).await?;
        match wish.register(Some(run)).await {
            Ok(registered) => follow(sender, out, stream, &wish.attach, registered).await,
            // It ended meanwhile: all that it said is in the log.
            Err(refusal) if refusal.kind == Kind::Conflict => sender.send(&mut out, None).await,
            Err(refusal) => Err(refusal),
        }
    }

    async fn send_and_follow(
        self,
        stream: oneshot::Receiver<Stream>,
        wish: Wish,
        registered: Registered,
    ) -> Result<(), Refusal> {
        let Ok(stream) = stream.await else { return Ok(()) };
        let out = writer(&stream.0)?;
        let sender = Sender { reader: Some((self.reader, self.render)) };
        follow(sender, out, stream, &wish.attach, registered).await
    }
}

/// Sends what is left of the past, and lets the client go on with what comes.
async fn follow(
    mut sender: Sender,
    mut out: UnixStream,
    stream: Stream,
    attach: &Attach,
    registered: Registered,
) -> Result<(), Refusal> {
    let Registered { runs, give, holds } = registered;
    if !runs {
        // A start waits for this.
        sender.send(&mut out, None).await?;
        let _ = give.send(stream);
        return Ok(());
    }
    let _ = give.send(stream);
    match holds.await {
        Ok(held) => {
            let sent = sender.send(&mut out, Some(held.begins.log_until)).await;
            let sent = match sent {
                Ok(()) => {
                    let rest = beginnings(&held.begins, [attach.stdout, attach.stderr], attach.multiplexed);
                    out.write_all(&rest).await.map_err(lost)
                }
                failure => failure,
            };
            held.release().await;
            sent
        }
        // It ended in between: all that it said is in the log.
        Err(_) => sender.send(&mut out, None).await,
    }
}

/// The beginnings of unfinished lines, in output form.
fn beginnings(begins: &Attached, wants: [bool; 2], multiplexed: bool) -> Vec<u8> {
    let mut all = Vec::new();
    for (stream, (bytes, wanted)) in
        [Output::Stdout, Output::Stderr].into_iter().zip(begins.unfinished.iter().zip(wants))
    {
        if !wanted || bytes.is_empty() {
            continue;
        }
        if multiplexed {
            all.extend_from_slice(&[stream.frame_type(), 0, 0, 0]);
            all.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        }
        all.extend_from_slice(bytes);
    }
    all
}

/// Sends a log on and on from where it stopped.
struct Sender {
    /// Away while a batch is read.
    reader: Option<(Reader, Render)>,
}

impl Sender {
    /// Sends what is there, up to the record of a time or to the present end.
    async fn send(&mut self, out: &mut UnixStream, until: Option<i64>) -> Result<(), Refusal> {
        loop {
            let Some((mut reader, mut render)) = self.reader.take() else { return Ok(()) };
            if let Some(time) = until {
                reader.read_until(time);
            }
            let (reader, render, batch, progress) = blocking(move || {
                reader.clear_notifications();
                let mut batch = Vec::new();
                let progress = reader.next_batch(&mut render, BATCH, &mut batch).map_err(failed)?;
                Ok((reader, render, batch, progress))
            })
            .await?;
            self.reader = Some((reader, render));
            out.write_all(&batch)
                .await
                .map_err(|error| Refusal::from_error("the client went away", &error))?;
            match progress {
                Progress::More => {}
                Progress::Idle | Progress::End => return Ok(()),
            }
        }
    }
}
