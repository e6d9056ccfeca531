//! Containers.

use std::io;

use api_types::container::{
    ContainerCreate, ContainerCreateResponse, ContainerUpdate, ContainerUpdateResponse,
};
use bytes::Bytes;
use engine::logs::LogQuery;
use engine::{ListQuery, WaitCondition};
use http::StatusCode;
use model::Refusal;

use crate::App;
use crate::hijack::{MULTIPLEXED, RAW};
use crate::request::Request;
use crate::respond::{Outcome, created, empty, json, json_list, no_content, streamed};
use crate::stream::received;
use crate::versions::{self, Version};

pub async fn list(app: &App, request: &Request) -> Outcome {
    let query = &request.query;
    let wanted = ListQuery {
        all: query.flag("all"),
        limit: query.number("limit")?.unwrap_or(0),
        size: query.flag("size"),
        brief: query.flag("brief"),
        filters: query.text("filters").into(),
    };
    let version = request.version;
    let answer = app.engine.containers().list(wanted).await?;
    json_list(answer.map(move |mut one| {
        versions::container_summary(&mut one, version);
        one
    }))
}

pub async fn create(app: &App, mut request: Request) -> Outcome {
    let name = request.query.text("name").to_string();
    let platform = request.query.text("platform").to_string();
    let body: Option<ContainerCreate> = request.json_if_any().await?;
    let Some(mut body) = body else {
        return Err(Refusal::invalid("config cannot be empty in order to create a container"));
    };
    body.platform = platform;
    versions::container_create(&mut body, request.version);
    versions::container_mounts(&mut body, request.version)?;
    let (id, warnings) = app.engine.containers().create(&name, body).await?;
    created(&ContainerCreateResponse { id, warnings })
}

pub async fn inspect(app: &App, request: &Request, id: &str) -> Outcome {
    let answer = app.engine.containers().inspect(id, request.query.flag("size")).await?;
    let mut answer = serde_json::to_value(&answer)
        .map_err(|error| Refusal::from_error("cannot write the answer", &error))?;
    versions::inspect_container(&mut answer, request.version);
    json(&answer)
}

pub async fn start(app: &App, mut request: Request, id: &str) -> Outcome {
    if request.query.has("checkpoint") && !request.query.text("checkpoint").is_empty() {
        return Err(Refusal::invalid("checkpoint is only supported in experimental mode"));
    }
    let body = request.take_body().await?;
    if body.iter().any(|byte| !byte.is_ascii_whitespace()) && &body[..] != b"null" && &body[..] != b"{}" {
        return Err(Refusal::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    app.engine.containers().start(id).await?;
    no_content()
}

pub async fn stop(app: &App, request: &Request, id: &str) -> Outcome {
    app.engine.containers().stop(id, request.query.text("signal"), request.query.number("t")?).await?;
    no_content()
}

pub async fn restart(app: &App, request: &Request, id: &str) -> Outcome {
    app.engine.containers().restart(id, request.query.text("signal"), request.query.number("t")?).await?;
    no_content()
}

pub async fn kill(app: &App, request: &Request, id: &str) -> Outcome {
    app.engine.containers().kill(id, request.query.text("signal")).await?;
    no_content()
}

pub async fn pause(app: &App, id: &str, frozen: bool) -> Outcome {
    app.engine.containers().pause(id, frozen).await?;
    no_content()
}

pub async fn rename(app: &App, request: &Request, id: &str) -> Outcome {
    app.engine.containers().rename(id, request.query.text("name")).await?;
    no_content()
}

pub async fn update(app: &App, mut request: Request, id: &str) -> Outcome {
    let mut body: ContainerUpdate = request.json().await?;
    versions::update(&mut body, request.version);
    let warnings = app.engine.containers().update(id, body).await?;
    json(&ContainerUpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
}

pub async fn remove(app: &App, request: &Request, id: &str) -> Outcome {
    if request.query.flag("link") {
        app.engine.containers().unlink(id).await?;
        return no_content();
    }
    app.engine.containers().remove(id, request.query.flag("force"), request.query.flag("v")).await?;
    no_content()
}

pub async fn prune(app: &App, request: &Request) -> Outcome {
    json(&app.engine.containers().prune(request.query.text("filters")).await?)
}

/// Rows and columns of a resize.
pub fn size(request: &Request) -> Result<(u16, u16), Refusal> {
    let number = |key: &str| {
        let text = request.query.text(key);
        text.parse::<u16>().map_err(|_| {
            Refusal::invalid(format!(
                "invalid resize {key}: strconv.ParseUint: parsing \"{text}\": invalid syntax"
            ))
        })
    };
    Ok((number("h")?, number("w")?))
}

pub async fn resize(app: &App, request: &Request, id: &str) -> Outcome {
    let (rows, columns) = size(request)?;
    app.engine.containers().resize(id, rows, columns).await?;
    Ok(empty(StatusCode::OK))
}

pub async fn top(app: &App, request: &Request, id: &str) -> Outcome {
    json(&app.engine.containers().top(id, request.query.text("ps_args")).await?)
}

pub async fn wait(app: &App, request: &Request, id: &str) -> Outcome {
    let condition = WaitCondition::parse(request.query.text("condition"))?;
    let ended = app.engine.containers().wait(id, condition)?;
    if request.version < Version::new(1, 30) {
        return json(&ended.await);
    }
    // The headers go now: a client starts the container when it has them.
    let body = futures_util::stream::once(async move {
        let mut bytes = serde_json::to_vec(&ended.await).map_err(io::Error::other)?;
        bytes.push(b'\n');
        Ok(Bytes::from(bytes))
    });
    Ok(streamed("application/json", body))
}

/// The content type of output, which API 1.42 tells apart.
pub fn output_type(raw: bool, version: Version) -> &'static str {
    if raw || version < Version::new(1, 42) { RAW } else { MULTIPLEXED }
}

pub async fn logs(app: &App, request: &Request, id: &str) -> Outcome {
    let query = &request.query;
    let now = app.engine.now();
    let tail = match query.text("tail") {
        "" | "all" => None,
        // Docker shows everything when it cannot read the number.
        text => text.parse::<u64>().ok(),
    };
    let wanted = LogQuery {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        since: query.moment("since", now)?,
        until: query.moment("until", now)?,
        tail,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    };
    let stream = app.engine.logs().read(id, wanted).await?;
    use futures_util::StreamExt;
    let batches = received(stream.batches)
        .map(|batch| batch.map(Bytes::from).map_err(|refusal| io::Error::other(refusal.message)));
    Ok(streamed(output_type(stream.raw, request.version), batches))
}
