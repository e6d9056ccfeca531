//! How far a copy is, on a terminal, and what it came to.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api_client::Body;
use tokio::sync::mpsc;

use crate::fail::Fail;
use crate::units::human_size;

/// How often the number on the terminal changes.
const EVERY: Duration = Duration::from_millis(75);

/// Counts what goes over the wire.
pub struct Progress {
    quiet: bool,
    head: &'static str,
    bytes: Arc<AtomicU64>,
    shown: Option<Instant>,
}

impl Progress {
    pub fn new(quiet: bool, head: &'static str) -> Self {
        Self { quiet, head, bytes: Arc::default(), shown: None }
    }

    pub fn count(&mut self, bytes: usize) {
        let total = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if !self.quiet {
            show(self.head, total, &mut self.shown);
        }
    }

    /// What is counted, for somebody else to count.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.bytes.clone()
    }

    /// Runs what blocks, and shows how far it is.
    pub async fn during<T: Send + 'static>(
        &mut self,
        copy: impl FnOnce() -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, Fail> {
        let mut copying = tokio::task::spawn_blocking(copy);
        loop {
            tokio::select! {
                copied = &mut copying => {
                    return copied.map_err(|error| Fail::text(error.to_string()))?;
                }
                () = tokio::time::sleep(EVERY), if !self.quiet => {
                    show(self.head, self.bytes.load(Ordering::Relaxed), &mut self.shown);
                }
            }
        }
    }

    /// A body that counts what is taken from it.
    pub fn watch(&self, body: Body) -> Body {
        let Body::Stream(mut pieces) = body else { return body };
        if self.quiet {
            return Body::Stream(pieces);
        }
        let (sender, receiver) = mpsc::channel(1);
        let (head, bytes) = (self.head, self.bytes.clone());
        tokio::spawn(async move {
            let mut shown = None;
            while let Some(piece) = pieces.recv().await {
                let count = piece.as_ref().map_or(0, |piece| piece.len() as u64);
                show(head, bytes.fetch_add(count, Ordering::Relaxed) + count, &mut shown);
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
        });
        Body::Stream(receiver)
    }

    /// Ends the line, and says what was copied where: the size of the content if it is known, and what was sent.
    pub fn end(&mut self, done: Option<(Option<u64>, &str)>) {
        if self.quiet {
            return;
        }
        let mut line = String::from("\r\x1b[K");
        if let Some((content, place)) = done {
            let sent = self.bytes.load(Ordering::Relaxed);
            let size = |bytes: u64| human_size(bytes as f64, 3);
            line += &match content.filter(|content| *content != sent) {
                Some(content) => {
                    format!("Successfully copied {} (transferred {}) to {place}\n", size(content), size(sent))
                }
                None => format!("Successfully copied {} to {place}\n", size(sent)),
            };
        }
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

fn show(head: &str, total: u64, shown: &mut Option<Instant>) {
    if shown.is_none_or(|shown| shown.elapsed() >= EVERY) {
        *shown = Some(Instant::now());
        let line = format!("\r\x1b[K{head}{}", human_size(total as f64, 3));
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}
