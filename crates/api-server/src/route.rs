//! From a request's line to its handler.

use http::{HeaderValue, Method};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use model::{Kind, Refusal};

use crate::App;
use crate::authorization::{Content, Peer, Question};
use crate::handlers::{
    archives, attach, build, check, containers, debug, execs, files, images, networks, registry, stats,
    system, usage, volumes,
};
use crate::query::{Query, decode};
use crate::request::{Drained, Request};
use crate::respond::{self, Answer, Outcome, not_found};
use crate::versions::Version;

/// Answers a request; every failure becomes an answer as well.
pub async fn answer(app: &App, peer: &Peer, mut request: http::Request<Incoming>) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let upgrade =
        request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let outcome = authorized(app, peer, request, upgrade).await;
    let mut answer = outcome.unwrap_or_else(|refusal| {
        if refusal.kind == Kind::System {
            tracing::error!(%method, path, error = %refusal, "request failed");
        }
        respond::refused(&refusal)
    });
    tracing::debug!(%method, path, status = answer.status().as_u16(), "request");
    let headers = answer.headers_mut();
    headers.insert("api-version", HeaderValue::from_static(const_max()));
    let experimental = if app.engine.settings().experimental { "true" } else { "false" };
    headers.insert("docker-experimental", HeaderValue::from_static(experimental));
    headers.insert("ostype", HeaderValue::from_static("linux"));
    if let Ok(server) = HeaderValue::from_str(&format!("Docker/{} (linux)", app.about.version)) {
        headers.insert(http::header::SERVER, server);
    }
    answer
}

/// Handles a request, and shows it and its answer to the authorization plugins, if there are any.
async fn authorized(
    app: &App,
    peer: &Peer,
    request: http::Request<Incoming>,
    upgrade: Option<OnUpgrade>,
) -> Outcome {
    let (parts, body) = request.into_parts();
    let (version, rest) = split_version(parts.uri.path())?;
    version.check(app.about.min_version)?;
    let path: Vec<String> = rest.split('/').skip(1).map(|part| decode(part, false)).collect();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let plugins = &app.engine.settings().authorization_plugins;
    let (shown, body) = if plugins.is_empty() {
        (None, Drained::new(body))
    } else {
        let uri = parts.uri.to_string();
        let question = Question {
            method: &parts.method,
            uri,
            path: &path,
            query: &query,
            headers: &parts.headers,
            peer,
        };
        let (shown, content) = app.authorization.request(plugins, &question, body).await?;
        match content {
            Content::Stream(body) => (Some(shown), Drained::new(body)),
            Content::Shown(bytes) => (Some(shown), Drained::whole(bytes)),
        }
    };
    let request = Request {
        method: parts.method,
        path,
        query,
        version,
        headers: parts.headers,
        body,
        local: peer.local,
        upgrade,
    };
    // A handler that panics is a defect of that request, not the end of the daemon.
    let handling = app.clone();
    let handled = tokio::spawn(async move { dispatch(&handling, request).await }).await;
    let outcome = handled.unwrap_or_else(|error| Err(Refusal::from_error("internal error", &error)));
    match shown {
        None => outcome,
        Some(shown) => {
            let answer = outcome.unwrap_or_else(|refusal| respond::refused(&refusal));
            app.authorization.answer(plugins, shown, answer).await
        }
    }
}

const fn const_max() -> &'static str {
    "1.55"
}

/// `/v1.41/info` to version and `/info`; without a version the newest counts.
fn split_version(path: &str) -> Result<(Version, &str), Refusal> {
    let Some(rest) = path.strip_prefix("/v").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    else {
        return Ok((Version::MAX, path));
    };
    let end = rest.find('/').ok_or_else(not_found)?;
    let version = Version::parse(&rest[..end]).ok_or_else(not_found)?;
    Ok((version, &rest[end..]))
}

async fn dispatch(app: &App, mut request: Request) -> Outcome {
    let path = std::mem::take(&mut request.path);
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let method = request.method.clone();
    if method == Method::OPTIONS {
        return Ok(respond::empty(http::StatusCode::OK));
    }
    match parts.first().copied().unwrap_or_default() {
        "containers" => container_route(app, request, &method, &parts[1..]).await,
        "exec" => match (&method, &parts[1..]) {
            (&Method::POST, [id, "start"]) => execs::start(app, request, id).await,
            (&Method::POST, [id, "resize"]) => execs::resize(app, &request, id).await,
            (&Method::GET, [id, "json"]) => execs::inspect(app, id).await,
            _ => Err(not_found()),
        },
        "images" => image_route(app, request, &method, &parts[1..]).await,
        "networks" => network_route(app, &request, &method, &parts[1..]),
        "volumes" => match (&method, &parts[1..]) {
            (&Method::GET, [] | [""]) => volumes::list(app, &request),
            (&Method::GET, [name]) => volumes::inspect(app, name),
            (&Method::POST, ["create"]) => volumes::create(app, request).await,
            (&Method::POST, ["prune"]) => volumes::prune(app, &request).await,
            (&Method::PUT, [_]) => volumes::update(request).await,
            (&Method::DELETE, [name]) => volumes::remove(app, &request, name).await,
            _ => Err(not_found()),
        },
        "build" => match (&method, &parts[1..]) {
            (&Method::POST, []) => build::build(app, request).await,
            (&Method::POST, ["prune"]) => usage::prune_build_cache(app, &request),
            (&Method::POST, ["cancel"]) => Err(Refusal::not_implemented("cancelling a build")),
            _ => Err(not_found()),
        },
        _ => system_route(app, request, &method, &parts).await,
    }
}

async fn system_route(app: &App, mut request: Request, method: &Method, parts: &[&str]) -> Outcome {
    match (method, parts) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => system::ping(app, method),
        (&Method::GET, ["version"]) => system::version(app),
        (&Method::GET, ["info"]) => system::info(app).await,
        (&Method::GET, ["events"]) => system::events(app, &request),
        (&Method::GET, ["debug", rest @ ..]) => debug::debug(app, rest),
        (&Method::GET, ["corten", "check"]) => check::check(app, false).await,
        (&Method::POST, ["corten", "check"]) => check::check(app, true).await,
        (&Method::GET, ["system", "df"]) => usage::df(app, &request).await,
        (&Method::POST, ["auth"]) => registry::auth(app, &mut request).await,
        (&Method::POST, ["commit"]) => files::commit(app, request).await,
        (&Method::POST, ["session"] | ["grpc"]) => Err(Refusal::not_implemented("BuildKit")),
        (
            _,
            ["swarm", ..]
            | ["nodes", ..]
            | ["services", ..]
            | ["tasks", ..]
            | ["secrets", ..]
            | ["configs", ..],
        ) => {
            // Clients ask these to find out whether there is a swarm.
            let _ = request.take_body().await;
            Err(Refusal::new(
                Kind::Unavailable,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
                 to swarm and try again.",
            ))
        }
        (&Method::GET, ["plugins"]) => respond::json(&Vec::<()>::new()),
        (_, ["plugins", ..]) => Err(Refusal::not_implemented("plugins")),
        (&Method::GET, ["distribution", name @ .., "json"]) => {
            registry::inspect(app, &request, &name.join("/")).await
        }
        _ => Err(not_found()),
    }
}

async fn container_route(app: &App, request: Request, method: &Method, parts: &[&str]) -> Outcome {
    match (method, parts) {
        (&Method::GET, ["json"]) => containers::list(app, &request).await,
        (&Method::GET, ["ps"]) => containers::list(app, &request).await,
        (&Method::POST, ["create"]) => containers::create(app, request).await,
        (&Method::POST, ["prune"]) => containers::prune(app, &request).await,
        (&Method::GET, [id, "json"]) => containers::inspect(app, &request, id).await,
        (&Method::GET, [parent, alias, "json"]) => {
            containers::inspect(app, &request, &format!("{parent}/{alias}")).await
        }
        (&Method::GET, [id, "logs"]) => containers::logs(app, &request, id).await,
        (&Method::GET, [id, "top"]) => containers::top(app, &request, id).await,
        (&Method::POST, [id, "start"]) => containers::start(app, request, id).await,
        (&Method::POST, [id, "stop"]) => containers::stop(app, &request, id).await,
        (&Method::POST, [id, "restart"]) => containers::restart(app, &request, id).await,
        (&Method::POST, [id, "kill"]) => containers::kill(app, &request, id).await,
        (&Method::POST, [id, "pause"]) => containers::pause(app, id, true).await,
        (&Method::POST, [id, "unpause"]) => containers::pause(app, id, false).await,
        (&Method::POST, [id, "resize"]) => containers::resize(app, &request, id).await,
        (&Method::POST, [id, "rename"]) => containers::rename(app, &request, id).await,
        (&Method::POST, [id, "wait"]) => containers::wait(app, &request, id).await,
        (&Method::POST, [id, "attach"]) => attach::attach(app, request, id).await,
        (&Method::POST, [id, "exec"]) => execs::create(app, request, id).await,
        (&Method::DELETE, [id]) => containers::remove(app, &request, id).await,
        // The name that a link gives a container.
        (&Method::DELETE, [parent, alias]) => {
            containers::remove(app, &request, &format!("{parent}/{alias}")).await
        }
        (&Method::GET, [id, "stats"]) => stats::stats(app, &request, id).await,
        (&Method::POST, [id, "update"]) => containers::update(app, request, id).await,
        (&Method::GET, [id, "changes"]) => files::changes(app, id).await,
        (&Method::GET, [id, "export"]) => files::export(app, id).await,
        (&Method::HEAD, [id, "archive"]) => files::stat(app, &request, id).await,
        (&Method::GET, [id, "archive"]) => files::archive(app, request, id).await,
        (&Method::PUT, [id, "archive"]) => files::extract(app, request, id).await,
        (&Method::GET | &Method::POST, [id, verb @ "checkpoints"])
        | (&Method::DELETE, [id, verb @ "checkpoints", _]) => {
            app.engine.find(id)?;
            Err(Refusal::not_implemented(&format!("{method} /containers/{{id}}/{verb}")))
        }
        (&Method::GET, [id, "attach", "ws"]) => attach::attach_websocket(app, request, id).await,
        _ => Err(not_found()),
    }
}

/// Image names have slashes of their own, so the verb is looked for at the end.
async fn image_route(app: &App, request: Request, method: &Method, parts: &[&str]) -> Outcome {
    match (method, parts) {
        (&Method::GET, ["json"]) => return images::list(app, &request).await,
        (&Method::POST, ["load"]) => return archives::load(app, request).await,
        (&Method::POST, ["create"]) => return archives::create(app, request).await,
        (&Method::POST, ["prune"]) => return images::prune(app, &request).await,
        (&Method::GET, ["get"]) => return archives::save(app, request.query.all("names"), &request),
        (&Method::GET, ["search"]) => return registry::search(app, &request).await,
        _ => {}
    }
    let Some((verb, name)) = parts.split_last() else { return Err(not_found()) };
    let name = name.join("/");
    match (method, *verb) {
        (&Method::DELETE, _) => images::remove(app, &request, &parts.join("/")).await,
        (&Method::GET, "json") => images::inspect(app, &request, &name).await,
        (&Method::GET, "history") => images::history(app, &request, &name).await,
        (&Method::GET, "get") => archives::save(app, vec![name], &request),
        (&Method::POST, "tag") => images::tag(app, &request, &name).await,
        (&Method::POST, "push") => registry::push(app, &request, &name),
        (&Method::GET, "attestations") => images::attestations(app, &request, &name).await,
        _ => Err(not_found()),
    }
}

fn network_route(app: &App, request: &Request, method: &Method, parts: &[&str]) -> Outcome {
    match (method, parts) {
        (&Method::GET, [] | [""]) => networks::list(app, request),
        (&Method::POST, ["create"]) => Err(Refusal::not_implemented("creating networks")),
        (&Method::POST, ["prune"]) => networks::prune(app, request),
        (&Method::GET, [name]) => networks::inspect(app, name),
        (&Method::DELETE, [name]) => networks::remove(app, name),
        (&Method::POST, [name, "connect" | "disconnect"]) => {
            app.engine.networks().inspect(name)?;
            Err(Refusal::not_implemented("connecting containers to networks after their creation"))
        }
        _ => Err(not_found()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_paths() {
        assert_eq!(split_version("/v1.41/info").unwrap(), (Version::new(1, 41), "/info"));
        assert_eq!(split_version("/info").unwrap(), (Version::MAX, "/info"));
        assert_eq!(split_version("/version").unwrap(), (Version::MAX, "/version"));
        assert!(split_version("/v1.41").is_err());
        assert!(split_version("/v1x/info").is_err());
        assert_eq!(const_max(), Version::MAX.to_string());
    }
}
