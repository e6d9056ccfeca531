//! `start`, with or without attaching.

use api_client::{Request, segment};
use api_types::container::ContainerInspect;

use super::follow::{self, Follow};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output;
use crate::streams::Attached;
use crate::term;

pub fn request(id: &str) -> Request {
    Request::post(format!("/containers/{}/start", segment(id)))
}

pub async fn start(app: &App, matches: &Matches) -> Result<i32, Fail> {
    let attach = matches.bool("attach");
    let interactive = matches.bool("interactive");
    if attach || interactive {
        if matches.args.len() > 1 {
            return Err(Fail::text("you cannot start and attach multiple containers at once"));
        }
        return attached(app, matches, &matches.args[0]).await;
    }
    let client = app.client().await?;
    let mut failed = Vec::new();
    for name in &matches.args {
        match client.done(request(name)).await {
            Ok(()) => output::out(&format!("{name}\n")),
            Err(error) => {
                eprintln!("{error}");
                failed.push(name.as_str());
            }
        }
    }
    match failed.is_empty() {
        true => Ok(0),
        false => Err(Fail::text(format!("Error: failed to start containers: {}", failed.join(", ")))),
    }
}

async fn attached(app: &App, matches: &Matches, name: &str) -> Result<i32, Fail> {
    let client = app.client().await?;
    let container: ContainerInspect =
        client.json(Request::get(format!("/containers/{}/json", segment(name)))).await?;
    let config = &container.config;
    let attached = Attached {
        stdin: matches.bool("interactive") && config.open_stdin,
        stdout: matches.bool("attach"),
        stderr: matches.bool("attach"),
        tty: config.tty,
        keys: app.detach_keys(matches).map_err(Fail::text)?,
    };
    if attached.stdin && config.tty && !term::stdin_is_terminal() {
        return Err(Fail::text("the input device is not a TTY"));
    }
    let id = container.id.as_str();
    let mut follow = Follow::new(client, id, attached, true)?;
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let (stream, status) = tokio::try_join!(
        client.hijack(follow.attach_request(app.chosen_keys(matches))),
        client.send(follow::wait_request(id, condition)),
    )?;
    if let Err(error) = client.done(request(id)).await {
        drop(stream);
        if container.host_config.auto_remove {
            let _ = follow::exit_code(status).await;
        }
        return Err(error.into());
    }
    follow.until_end(stream, status).await
}
