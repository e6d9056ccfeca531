//! From a request's line to its handler.

use http::{HeaderValue, Method};
use hyper::body::Incoming;
use model::{Kind, Refusal};

use crate::App;
use crate::handlers::{attach, build, containers, execs, images, networks, system, volumes};
use crate::query::{Query, decode};
use crate::request::{Drained, Request};
use crate::respond::{self, Answer, Outcome, not_found};
use crate::versions::Version;

/// Answers a request; every failure becomes an answer as well.
pub async fn answer(app: &App, mut request: http::Request<Incoming>) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let upgrade =
        request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let outcome = match split_version(&path) {
        Ok((version, rest)) => {
            let (parts, body) = request.into_parts();
            let request = Request {
                method: parts.method,
                path: rest.split('/').skip(1).map(|part| decode(part, false)).collect(),
                query: Query::parse(parts.uri.query().unwrap_or_default()),
                version,
                headers: parts.headers,
                body: Drained::new(body),
                upgrade,
            };
            match version.check(app.about.min_version) {
                // A handler that panics is a defect of that request, not the end of the daemon.
                Ok(()) => {
                    let app = app.clone();
                    let handled = tokio::spawn(async move { dispatch(&app, request).await }).await;
                    handled.unwrap_or_else(|error| Err(Refusal::from_error("internal error", &error)))
                }
                Err(refusal) => Err(refusal),
            }
        }
        Err(refusal) => Err(refusal),
    };
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
            (&Method::POST, ["prune"]) => Err(Refusal::not_implemented("pruning the build cache")),
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
        (&Method::OPTIONS, _) => Ok(respond::empty(http::StatusCode::OK)),
        (&Method::GET, ["system", "df"]) => Err(Refusal::not_implemented("GET /system/df")),
        (&Method::POST, ["auth"]) => Err(Refusal::not_implemented("POST /auth")),
        (&Method::POST, ["commit"]) => Err(Refusal::not_implemented("POST /commit")),
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
        (&Method::GET, ["distribution", .., "json"]) => Err(Refusal::not_implemented("GET /distribution")),
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
        (&Method::GET, [id, verb @ ("stats" | "changes" | "export" | "archive" | "checkpoints")])
        | (&Method::POST, [id, verb @ ("update" | "checkpoints")])
        | (&Method::DELETE, [id, verb @ "checkpoints", _])
        | (&Method::HEAD | &Method::PUT, [id, verb @ "archive"]) => {
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
        (&Method::POST, ["load"]) => return images::load(app, request).await,
        (&Method::POST, ["create"]) => return images::create(app, request).await,
        (&Method::POST, ["prune"]) => return images::prune(app, &request).await,
        (&Method::GET, ["get"]) => return images::save(app, request.query.all("names"), &request),
        (&Method::GET, ["search"]) => return Err(Refusal::not_implemented("searching for images")),
        _ => {}
    }
    let Some((verb, name)) = parts.split_last() else { return Err(not_found()) };
    let name = name.join("/");
    match (method, *verb) {
        (&Method::DELETE, _) => images::remove(app, &request, &parts.join("/")).await,
        (&Method::GET, "json") => images::inspect(app, &request, &name).await,
        (&Method::GET, "history") => images::history(app, &name).await,
        (&Method::GET, "get") => images::save(app, vec![name], &request),
        (&Method::POST, "tag") => images::tag(app, &request, &name).await,
        (&Method::POST, "push") => Err(Refusal::not_implemented("pushing images")),
        (&Method::GET, "attestations") => Err(Refusal::not_implemented("attestations")),
        _ => Err(not_found()),
    }
}

fn network_route(app: &App, request: &Request, method: &Method, parts: &[&str]) -> Outcome {
    match (method, parts) {
        (&Method::GET, [] | [""]) => networks::list(app, request),
        (&Method::POST, ["create"]) => Err(Refusal::not_implemented("creating networks")),
        (&Method::POST, ["prune"]) => Err(Refusal::not_implemented("pruning networks")),
        (&Method::GET, [name]) => networks::inspect(app, name),
        (&Method::DELETE, [name]) => networks::remove(app, name),
        (&Method::POST, [name, "connect" | "disconnect"]) => {
            app.engine.network_inspect(name)?;
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
