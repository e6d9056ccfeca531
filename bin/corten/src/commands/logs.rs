//! `logs`.

use api_client::{FrameReader, Request, segment};
use api_types::container::ContainerInspect;

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::output::{Which, write_or_end};
use crate::streams;
use crate::time;

pub async fn logs(app: &App, matches: &Matches) -> Result<(), Fail> {
    let name = &matches.args[0];
    let client = app.client().await?;
    let now = time::now_nanos();
    let mut request = Request::get(format!("/containers/{}/logs", segment(name)))
        .query("stdout", "1")
        .query("stderr", "1")
        .flag("timestamps", matches.bool("timestamps"))
        .flag("details", matches.bool("details"))
        .flag("follow", matches.bool("follow"))
        .query("tail", if matches.has("tail") { matches.str("tail") } else { "all" });
    for key in ["since", "until"] {
        if !matches.str(key).is_empty() {
            let at = time::to_api(matches.str(key), now)
                .map_err(|text| Fail::text(format!("invalid value for \"{key}\": {text}")))?;
            request = request.query(key, at);
        }
    }
    let mut answer = client.send(request).await?;
    let framed = match answer.header("content-type") {
        Some("application/vnd.docker.multiplexed-stream") => true,
        Some("application/vnd.docker.raw-stream") => false,
        // Daemons that do not say so frame whatever has no terminal.
        _ => {
            let container: ContainerInspect =
                client.json(Request::get(format!("/containers/{}/json", segment(name)))).await?;
            !container.config.tty
        }
    };
    let mut frames = FrameReader::default();
    while let Some(chunk) = answer.chunk().await? {
        if framed {
            frames.push(&chunk);
            streams::drain(&mut frames, true, true).await?;
        } else {
            write_or_end(Which::Stdout, &chunk).await?;
        }
    }
    Ok(())
}
