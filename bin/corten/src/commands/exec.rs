//! `exec`: make, start with its streams, and ask for the exit code.

use api_client::{Request, segment};
use api_types::IdResponse;
use api_types::exec::{ExecCreate, ExecInspect, ExecStart};

use super::follow::Follow;
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::streams::{Attached, End};
use crate::term;

pub async fn exec(app: &App, matches: &Matches) -> Result<i32, Fail> {
    let (container, command) =
        matches.args.split_first().ok_or_else(|| Fail::text("exec requires a container"))?;
    let detach = matches.bool("detach");
    let tty = matches.bool("tty");
    let attached = Attached {
        stdin: matches.bool("interactive") && !detach,
        stdout: !detach,
        stderr: !detach,
        tty,
        keys: app.detach_keys(matches).map_err(Fail::text)?,
    };
    if attached.stdin && tty && !term::stdin_is_terminal() {
        return Err(Fail::text("the input device is not a TTY"));
    }
    let env = crate::opts::kv::environment(matches.list("env-file"), matches.list("env"))?;
    let console_size = match tty {
        true => term::size().map(|(rows, columns)| [rows.into(), columns.into()]),
        false => None,
    };
    let create = ExecCreate {
        user: matches.str("user").to_owned(),
        privileged: matches.bool("privileged"),
        tty,
        console_size,
        attach_stdin: attached.stdin,
        attach_stdout: attached.stdout,
        attach_stderr: attached.stderr,
        detach,
        detach_keys: app.chosen_keys(matches).to_owned(),
        env: Some(env),
        working_dir: matches.str("workdir").to_owned(),
        cmd: command.to_vec(),
    };
    let client = app.client().await?;
    let made = client
        .json::<IdResponse>(Request::post(format!("/containers/{}/exec", segment(container))).json(&create)?);
    let id = made.await?.id;
    if id.is_empty() {
        return Err(Fail::text("exec ID empty"));
    }
    let start = Request::post(format!("/exec/{id}/start")).json(&ExecStart { detach, tty, console_size })?;
    if detach {
        client.done(start).await?;
        return Ok(0);
    }
    let stream = client.hijack(start).await?;
    let end = Follow::exec(client, &id, attached).streams(stream).await?;
    if end == End::Detached {
        return Ok(0);
    }
    let state: ExecInspect = client.json(Request::get(format!("/exec/{id}/json"))).await?;
    Ok(state.exit_code.map_or(0, |code| i32::try_from(code).unwrap_or(1)))
}
