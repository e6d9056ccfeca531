//! Being a container's terminal: streams, signals, the size of the window, and the exit code.

use std::time::Duration;

use api_client::{Client, Hijacked, Request, Response, segment};
use api_types::container::ContainerWait;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::fail::Fail;
use crate::streams::{Attached, End, pump};
use crate::term::{self, Raw};

/// How long output may still come after the daemon said that the container is gone.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
/// How often the window's size is tried while the process is not there yet.
const RESIZE_TRIES: u32 = 10;

/// Signals that go on to the container. What the terminal and our own pipes cause does not.
const FORWARDED: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
];

/// The exit code in an answer to `wait`, whose body comes when the container ends.
pub async fn exit_code(answer: Response) -> Result<i32, Fail> {
    let failed = |error: String| Fail::text(format!("error waiting for container: {error}")).code(125);
    let body = answer.bytes().await.map_err(|error| failed(error.to_string()))?;
    let wait: ContainerWait = api_types::from_json(&body).map_err(|error| failed(error.to_string()))?;
    if let Some(error) = wait.error.filter(|error| !error.message.is_empty()) {
        return Err(failed(error.message));
    }
    Ok(i32::try_from(wait.status_code).unwrap_or(125))
}

pub fn wait_request(id: &str, condition: &str) -> Request {
    let request = Request::post(format!("/containers/{}/wait", segment(id)));
    // Without a condition a container that has ended answers at once.
    if condition.is_empty() { request } else { request.query("condition", condition) }
}

/// One container that is followed.
pub struct Follow<'a> {
    client: &'a Client,
    id: &'a str,
    attached: Attached,
    signals: Vec<(Signal, &'static str)>,
    /// `containers` or `exec`: what is resized.
    kind: &'static str,
}

impl<'a> Follow<'a> {
    /// From here on signals are caught, if they are to be passed on.
    pub fn new(client: &'a Client, id: &'a str, attached: Attached, sig_proxy: bool) -> Result<Self, Fail> {
        let signals = match sig_proxy {
            true => FORWARDED
                .iter()
                .map(|(number, name)| Ok((signal(SignalKind::from_raw(*number))?, *name)))
                .collect::<std::io::Result<_>>()?,
            false => Vec::new(),
        };
        Ok(Self { client, id, attached, signals, kind: "containers" })
    }

    /// For a process that `exec` started: no signals, and a size of its own.
    pub fn exec(client: &'a Client, id: &'a str, attached: Attached) -> Self {
        Self { client, id, attached, signals: Vec::new(), kind: "exec" }
    }

    pub fn attach_request(&self, keys: &str) -> Request {
        let mut request = Request::post(format!("/containers/{}/attach", segment(self.id)))
            .query("stream", "1")
            .flag("stdin", self.attached.stdin)
            .flag("stdout", self.attached.stdout)
            .flag("stderr", self.attached.stderr);
        if !keys.is_empty() {
            request = request.query("detachKeys", keys);
        }
        request
    }

    /// Follows until the container ends; then its exit code. Detaching ends with code 0.
    pub async fn until_end(&mut self, stream: Hijacked, status: Response) -> Result<i32, Fail> {
        let mut code = std::pin::pin!(exit_code(status));
        let mut streams = std::pin::pin!(self.streams(stream));
        tokio::select! {
            ended = &mut streams => match ended? {
                End::Closed => code.await,
                End::Detached => Ok(0),
            },
            code = &mut code => {
                // A restarted container keeps its streams; the last output of one that is gone is on its way.
                let _ = tokio::time::timeout(LAST_OUTPUT, streams).await;
                code
            }
        }
    }

    /// Follows the streams only.
    pub async fn streams(&mut self, stream: Hijacked) -> Result<End, Fail> {
        let mut raw = match self.attached.tty && self.attached.stdin {
            true => Some(Raw::stdin()?),
            false => None,
        };
        let signals = std::mem::take(&mut self.signals);
        let result = tokio::select! {
            result = pump(stream, &self.attached) => result,
            fail = self.beside(signals) => Err(fail),
        };
        if let Some(raw) = &mut raw {
            raw.restore();
        }
        if let Ok(End::Detached) = result {
            eprintln!("read escape sequence");
        }
        result
    }

    /// What goes on beside the streams, for as long as they last.
    async fn beside(&self, signals: Vec<(Signal, &'static str)>) -> Fail {
        tokio::select! {
            fail = self.resize() => fail,
            fail = self.forward(signals) => fail,
        }
    }

    async fn forward(&self, mut signals: Vec<(Signal, &'static str)>) -> Fail {
        loop {
            let name = std::future::poll_fn(|context| {
                for (signal, name) in &mut signals {
                    if let std::task::Poll::Ready(Some(())) = signal.poll_recv(context) {
                        return std::task::Poll::Ready(*name);
                    }
                }
                std::task::Poll::Pending
            })
            .await;
            let request =
                Request::post(format!("/containers/{}/kill", segment(self.id))).query("signal", name);
            // A container that is gone or not there yet cannot be signalled; the streams tell the rest.
            let _ = self.client.done(request).await;
        }
    }

    async fn resize(&self) -> Fail {
        if !self.attached.tty || !term::stdout_is_terminal() {
            return std::future::pending().await;
        }
        let Ok(mut windows) = signal(SignalKind::window_change()) else {
            return std::future::pending().await;
        };
        for attempt in 1..=RESIZE_TRIES {
            if self.resize_once().await {
                break;
            }
            if attempt == RESIZE_TRIES {
                eprintln!("failed to resize tty, using default size");
            }
            tokio::time::sleep(Duration::from_millis(10) * attempt).await;
        }
        loop {
            windows.recv().await;
            self.resize_once().await;
        }
    }

    async fn resize_once(&self) -> bool {
        let Some((rows, columns)) = term::size() else { return true };
        let request = Request::post(format!("/{}/{}/resize", self.kind, segment(self.id)))
            .query("h", rows.to_string())
            .query("w", columns.to_string());
        self.client.done(request).await.is_ok()
    }
}
