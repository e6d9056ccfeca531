//! Files of containers.

use api_types::IdResponse;
use api_types::container::{ContainerConfig, PathStat};
use engine::files::{Archive, Commit, ExtractOptions};
use http::{HeaderName, HeaderValue, StatusCode, header};
use model::Refusal;

use crate::handlers::build::changed_config;
use crate::handlers::images::named;
use crate::request::Request;
use crate::respond::{Answer, Outcome, created, empty, json, streamed};
use crate::stream::pipe;
use crate::{App, handover};

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// The path that is asked for; none is refused.
fn path(request: &Request) -> Result<&str, Refusal> {
    match request.query.text("path") {
        "" => Err(Refusal::invalid("bad parameter: path cannot be empty")),
        path if path.contains('\0') => {
            Err(Refusal::invalid("bad parameter: path cannot contain a zero byte"))
        }
        path => Ok(path),
    }
}

fn add_stat(answer: &mut Answer, stat: &PathStat) -> Result<(), Refusal> {
    let text =
        serde_json::to_vec(stat).map_err(|error| Refusal::from_error("cannot write the answer", &error))?;
    let value = HeaderValue::try_from(base64(&text))
        .map_err(|error| Refusal::from_error("cannot write the answer", &error))?;
    answer.headers_mut().insert(STAT, value);
    Ok(())
}

/// The standard alphabet, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

pub async fn stat(app: &App, request: &Request, id: &str) -> Outcome {
    let stat = app.engine.files().stat(id, path(request)?).await?;
    let mut answer = empty(StatusCode::OK);
    add_stat(&mut answer, &stat)?;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

pub async fn archive(app: &App, mut request: Request, id: &str) -> Outcome {
    let (stat, source) = app.engine.files().source(id, path(&request)?).await?;
    let mut answer = match handover::agreed(app, &mut request) {
        Some(upgrade) => handover::send(upgrade, source),
        None => written("application/x-tar", source.archive()),
    };
    add_stat(&mut answer, &stat)?;
    Ok(answer)
}

pub async fn export(app: &App, id: &str) -> Outcome {
    Ok(written("application/octet-stream", app.engine.files().export(id).await?))
}

/// A body that an archive is written to as the client reads it.
fn written(content_type: &'static str, archive: Archive) -> Answer {
    let (mut out, pieces) = pipe();
    tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let done = archive.write(&mut out);
        match done {
            Ok(()) => drop(out.flush()),
            Err(refusal) => {
                tracing::debug!(error = %refusal, "an archive was broken off");
                out.abort(&refusal);
            }
        }
    });
    streamed(content_type, pieces)
}

pub async fn extract(app: &App, mut request: Request, id: &str) -> Outcome {
    let path = path(&request)?.to_string();
    let options = ExtractOptions {
        keep_kinds: request.query.flag("noOverwriteDirNonDir"),
        to_user: request.query.flag("copyUIDGID"),
    };
    let destination = app.engine.files().destination(id, &path, options).await?;
    if let Some(upgrade) = handover::agreed(app, &mut request) {
        return Ok(handover::receive(upgrade, destination));
    }
    let archive = request.into_reader();
    let extracted = tokio::task::spawn_blocking(move || destination.extract(archive)).await;
    extracted.map_err(|error| Refusal::from_error("internal error", &error))??;
    Ok(empty(StatusCode::OK))
}

pub async fn changes(app: &App, id: &str) -> Outcome {
    json(&app.engine.files().changes(id).await?)
}

pub async fn commit(app: &App, mut request: Request) -> Outcome {
    let query = request.query.clone();
    let body = config_body(&mut request).await?;
    let commits = app.engine.commits();
    let container = query.text("container");
    let inherited = commits.config(container)?;
    let given = body.as_ref().map_or_else(|| inherited.clone(), engine::stored_config);
    let mut config = changed_config(given, &query.all("changes"))?;
    engine::merge_config(&mut config, &inherited);
    let reference = match query.text("repo") {
        "" => None,
        repository => Some(named(repository, query.text("tag"))?),
    };
    let commit = Commit {
        config,
        reference,
        author: query.text("author").into(),
        comment: query.text("comment").into(),
        pause: query.flag_or("pause", true),
    };
    created(&IdResponse { id: commits.make(container, commit).await? })
}

/// The config in the body; clients that have none send nothing, or `null`.
async fn config_body(request: &mut Request) -> Result<Option<ContainerConfig>, Refusal> {
    request.json_if_any::<Option<ContainerConfig>>().await.map(Option::flatten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_any_length() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}
