//! Attaching to a container: its own protocol, and websockets.

use engine::Past;
use engine::container::{Client, Stream, View};
use model::{Kind, Refusal};
use shim_protocol::Attach;
use tokio::sync::oneshot;

use super::containers::output_type;
use crate::App;
use crate::hijack::{detach_keys, take_over};
use crate::request::Request;
use crate::respond::{Answer, Outcome};
use crate::versions::{Version, attach_streams};
use crate::websocket;

pub async fn attach(app: &App, mut request: Request, id: &str) -> Outcome {
    let wanted = Wanted::read(&request);
    let view = app.engine.find(id)?.view();
    let prepared = wanted.prepare(app, id, &view, &request, !view.record.config.tty).await?;
    let content_type = output_type(view.record.config.tty, request.version);
    let (answer, stream) = take_over(&mut request, content_type).await?;
    prepared.go(app, id, answer, stream).await
}

/// Output is never framed by stream here: the frames are the websocket's.
pub async fn attach_websocket(app: &App, mut request: Request, id: &str) -> Outcome {
    let wanted = Wanted { streams: attach_streams(&request), ..Wanted::read(&request) };
    let view = app.engine.find(id)?.view();
    let prepared = wanted.prepare(app, id, &view, &request, false).await?;
    let text = request.version < Version::new(1, 28);
    let (answer, stream) = websocket::take_over(&mut request, text)?;
    prepared.go(app, id, answer, stream).await
}

/// What a client asks for: input, output, error output, and the log before them.
struct Wanted {
    streams: [bool; 3],
    logs: bool,
    live: bool,
}

/// Everything that can be refused has been.
struct Prepared {
    attach: Attach,
    past: Option<Past>,
    live: bool,
}

impl Wanted {
    fn read(request: &Request) -> Wanted {
        let flag = |name: &str| request.query.flag(name);
        Wanted { streams: ["stdin", "stdout", "stderr"].map(flag), logs: flag("logs"), live: flag("stream") }
    }

    async fn prepare(
        self,
        app: &App,
        id: &str,
        view: &View,
        request: &Request,
        multiplexed: bool,
    ) -> Result<Prepared, Refusal> {
        let keys = detach_keys(request.query.text("detachKeys"))?;
        check_attachable(view)?;
        let [stdin, stdout, stderr] = self.streams;
        let attach = Attach {
            stdin: stdin && view.record.config.open_stdin,
            stdout,
            stderr,
            multiplexed,
            detach_keys: keys,
            early_input: Vec::new(),
            held: false,
        };
        let past = match self.logs && (stdout || stderr) {
            true => Some(app.engine.attachments().past(id, &attach).await?),
            false => None,
        };
        Ok(Prepared { attach, past, live: self.live })
    }
}

impl Prepared {
    async fn go(self, app: &App, id: &str, answer: Answer, stream: oneshot::Receiver<Stream>) -> Outcome {
        let Prepared { attach, past, live } = self;
        match past {
            None if live => {
                app.engine.attachments().attach(id, Client { attach, stream, held: None, run: None }).await?;
            }
            None => {}
            Some(past) => app.engine.attachments().after(past, attach, stream, live).await?,
        }
        Ok(answer)
    }
}

/// Refuses before the connection is taken over, while there is still a status to give.
fn check_attachable(view: &View) -> Result<(), Refusal> {
    let why = match view.phase.status() {
        "paused" => "paused, unpause the container before attach",
        "restarting" => "restarting, wait until the container is running",
        _ => return Ok(()),
    };
    Err(Refusal::new(Kind::Conflict, format!("container {} is {why}", view.id())))
}
