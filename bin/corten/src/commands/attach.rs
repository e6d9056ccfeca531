//! `attach`.

use api_client::{Request, segment};
use api_types::container::ContainerInspect;

use super::follow::{self, Follow};
use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::streams::Attached;
use crate::term;

pub async fn attach(app: &App, matches: &Matches) -> Result<i32, Fail> {
    let client = app.client().await?;
    let name = &matches.args[0];
    let container: ContainerInspect =
        client.json(Request::get(format!("/containers/{}/json", segment(name)))).await?;
    let state = &container.state;
    if !state.running {
        return Err(Fail::text("cannot attach to a stopped container, start it first"));
    }
    if state.paused {
        return Err(Fail::text("cannot attach to a paused container, unpause it first"));
    }
    if state.restarting {
        return Err(Fail::text("cannot attach to a restarting container, wait until it is running"));
    }
    let config = &container.config;
    let attached = Attached {
        stdin: !matches.bool("no-stdin") && config.open_stdin,
        stdout: true,
        stderr: true,
        tty: config.tty,
        keys: app.detach_keys(matches).map_err(Fail::text)?,
    };
    if attached.stdin && config.tty && !term::stdin_is_terminal() {
        return Err(Fail::text("the input device is not a TTY"));
    }
    let id = container.id.as_str();
    let sig_proxy = matches.bool_or_true("sig-proxy") && !config.tty;
    let mut follow = Follow::new(client, id, attached, sig_proxy)?;
    let (stream, status) = tokio::try_join!(
        client.hijack(follow.attach_request(app.chosen_keys(matches))),
        client.send(follow::wait_request(id, "")),
    )?;
    follow.until_end(stream, status).await
}
