//! `attach` to what was logged before: first the log, then what comes, with nothing lost or repeated between them.
//!
//! 1. The log is sent up to its end, which moves on meanwhile; the container is not held up by that.
//! 2. The shim takes the client in, holds its output back, and tells up to which record everything is logged, and the
//!    beginnings of lines that are not.
//! 3. The few records since 1. are sent, and those beginnings; then the shim lets the client go on.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use logs::{Progress, Reader, Render, Stream as Output};
use model::Refusal;
use shim_protocol::{Attach, Attached};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::container::{Client, Command, Handle, Stream};
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
        self.0.find(name)?.ask(|answer| Command::Attach { client, answer }).await
    }

    /// Opens the log of a container for a client that attaches to it.
    pub async fn past(&self, name: &str, attach: &Attach) -> Result<Past, Refusal> {
        let container = self.0.find(name)?;
        let Attach { stdout, stderr, multiplexed, .. } = *attach;
        let query = LogQuery { stdout, stderr, follow: true, ..LogQuery::default() };
        let reader = self.0.logs().open(&container.view(), &query, true).await?;
        Ok(Past { container, reader, render: Render::new(false, false, multiplexed) })
    }

    /// Sends the past, and if `live` attaches the client to what comes.
    pub async fn after(
        &self,
        past: Past,
        attach: Attach,
        stream: oneshot::Receiver<Stream>,
        live: bool,
    ) -> Result<(), Refusal> {
        let Ok((socket, early_input)) = stream.await else { return Ok(()) };
        let lost = |error: std::io::Error| Refusal::from_error("the client went away", &error);
        // Only written to here, whatever kind of socket it is; what the client says is the shim's to read.
        let copy = socket.try_clone().map_err(lost)?;
        let copy = StdStream::from(copy);
        copy.set_nonblocking(true).map_err(lost)?;
        let mut out = UnixStream::from_std(copy).map_err(lost)?;
        let Past { container, reader, render } = past;
        let mut sender = Sender { reader: Some((reader, render)) };
        if !live {
            let_short_command_end(&container).await;
            return sender.send(&mut out, None).await;
        }
        sender.send(&mut out, None).await?;
        let (give, handed) = oneshot::channel();
        let (held, holds) = oneshot::channel();
        let wants = [attach.stdout, attach.stderr];
        let multiplexed = attach.multiplexed;
        let client = Client { attach: Attach { held: true, ..attach }, stream: handed, held: Some(held) };
        let runs = container.ask(|answer| Command::Attach { client, answer }).await?;
        let give = |socket: OwnedFd| give.send((socket, early_input));
        if !runs {
            sender.send(&mut out, None).await?;
            let _ = give(socket);
            return Ok(());
        }
        let _ = give(socket);
        match holds.await {
            Ok(held) => {
                let sent = sender.send(&mut out, Some(held.begins.log_until)).await;
                let sent = match sent {
                    Ok(()) => {
                        let rest = beginnings(&held.begins, wants, multiplexed);
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
