//! Processes in running containers.

use std::io::Write;
use std::os::unix::net::UnixStream;

use api_types::IdResponse;
use api_types::exec::{ExecCreate, ExecStart};
use engine::container::{Client, ExecPhase};
use model::Refusal;
use shim_protocol::Attach;
use tokio::sync::oneshot;

use crate::App;
use crate::hijack::{MULTIPLEXED, RAW, detach_keys, take_over};
use crate::request::Request;
use crate::respond::{Outcome, created, empty, json};
use crate::versions::Version;

use super::containers::size;

pub async fn create(app: &App, mut request: Request, container: &str) -> Outcome {
    let wanted: ExecCreate = request.json().await?;
    if wanted.cmd.is_empty() {
        return Err(Refusal::invalid("no exec command specified"));
    }
    detach_keys(&wanted.detach_keys)?;
    let id = app.engine.execs().create(container, wanted).await?;
    created(&IdResponse { id })
}

pub async fn start(app: &App, mut request: Request, id: &str) -> Outcome {
    let wanted: ExecStart = request.json_if_any().await?.unwrap_or_default();
    let found = app.engine.execs().find(id)?;
    let (container, exec) = (found.container.view(), found.exec);
    match exec.phase() {
        ExecPhase::Created => {}
        ExecPhase::Running { .. } => {
            return Err(Refusal::conflict(format!("exec command {id} is already running")));
        }
        ExecPhase::Ended { .. } => {
            return Err(Refusal::conflict(format!("exec command {id} has already run")));
        }
    }
    container.phase.may_exec(container.id())?;
    let console = wanted.console_size;
    if wanted.detach {
        app.engine.execs().start(id, None, console).await?;
        return Ok(empty(http::StatusCode::OK));
    }
    let config = exec.request.clone();
    // As the client will read it, which says so with the start; a terminal itself knows but one stream.
    let multiplexed = !wanted.tty;
    let content_type = if multiplexed && request.version >= Version::new(1, 42) { MULTIPLEXED } else { RAW };
    let attach = Attach {
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        multiplexed,
        detach_keys: detach_keys(&config.detach_keys)?,
        early_input: Vec::new(),
        held: false,
    };
    let (answer, stream) = take_over(&mut request, content_type).await?;
    let (engine, id) = (app.engine.clone(), id.to_string());
    tokio::spawn(async move {
        let Ok((socket, early)) = stream.await else { return };
        // A second descriptor, to tell the client of a failed start: by then its answer has been given.
        let copy = socket.try_clone();
        let (send, handed) = oneshot::channel();
        let _ = send.send((socket, early));
        if let Err(refusal) = engine
            .execs()
            .start(&id, Some(Client { attach, stream: handed, held: None, run: None }), console)
            .await
            && let Ok(copy) = copy
        {
            tell(copy.into(), multiplexed, &refusal);
        }
    });
    Ok(answer)
}

/// Writes an error as output. The socket's buffer is empty, so that this does not block.
fn tell(mut stream: UnixStream, multiplexed: bool, refusal: &Refusal) {
    let text = format!("{}\r\n", refusal.message);
    let mut bytes = Vec::new();
    if multiplexed {
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    let _ = stream.write_all(&bytes);
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

pub async fn resize(app: &App, request: &Request, id: &str) -> Outcome {
    let (rows, columns) = size(request)?;
    app.engine.execs().resize(id, rows, columns).await?;
    Ok(empty(http::StatusCode::OK))
}

pub async fn inspect(app: &App, id: &str) -> Outcome {
    json(&app.engine.execs().inspect(id).await?)
}
