//! `run`: create, attach, wait, start, and be the container's terminal until it ends.
//!
//! The daemon must know about attach and wait before the process starts, or output and exit could be missed. Both go out
//! at once on connections of their own; the start follows on the one that created the container.

use super::follow::{self, Follow};
use super::{create, start};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output;
use crate::streams::Attached;
use crate::term;

pub async fn run(app: &App, mut matches: Matches) -> Result<i32, Fail> {
    let help = |fail: Fail| fail.with_help(app.program, "run").code(125);
    create::check_pull(&matches).map_err(help)?;
    let mut body = create::body(app, &mut matches).map_err(help)?;
    let detach = matches.bool("detach");
    let config = &mut body.config;
    if detach {
        if matches.has("attach") {
            return Err(Fail::text("conflicting options: cannot specify both --attach and --detach"));
        }
        (config.attach_stdin, config.attach_stdout, config.attach_stderr, config.stdin_once) =
            (false, false, false, false);
    } else if config.tty && config.attach_stdin && !term::stdin_is_terminal() {
        return Err(Fail::text("the input device is not a TTY"));
    }
    let attached = Attached {
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        tty: config.tty,
        keys: app.detach_keys(&matches).map_err(|text| help(Fail::text(text)))?,
    };
    let client = app.client().await.map_err(help)?;
    let id = create::create(app, client, &body, &matches).await.map_err(|fail| run_code(fail, app))?;
    let attaches = attached.stdin || attached.stdout || attached.stderr;
    if !attaches {
        client.done(start::request(&id)).await.map_err(|error| run_code(error.into(), app))?;
        output::out(&format!("{id}\n"));
        return Ok(0);
    }
    let sig_proxy = matches.bool_or_true("sig-proxy");
    let mut follow = Follow::new(client, &id, attached, sig_proxy)?;
    let condition = if matches.bool("rm") { "removed" } else { "next-exit" };
    let (stream, status) = tokio::try_join!(
        client.hijack(follow.attach_request(app.chosen_keys(&matches))),
        client.send(follow::wait_request(&id, condition)),
    )?;
    if let Err(error) = client.done(start::request(&id)).await {
        drop(stream);
        if matches.bool("rm") {
            // The daemon removes what could not start; without this a second try could meet its name.
            let _ = follow::exit_code(status).await;
        }
        return Err(run_code(error.into(), app));
    }
    follow.until_end(stream, status).await
}

/// The exit code of a container that could not start tells why.
pub fn run_code(fail: Fail, app: &App) -> Fail {
    let text = fail.text.clone();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let code = if has(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    };
    fail.with_help(app.program, "run").code(code)
}
