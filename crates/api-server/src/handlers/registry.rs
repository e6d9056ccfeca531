//! Images from registries and to them, and everything else that asks a registry.

use api_types::registry::{
    AuthConfig, AuthResponse, Descriptor, DistributionInspect, Platform as ApiPlatform, SearchResult,
};
use api_types::{ErrorDetail, ProgressDetail, ProgressMessage, StringMap};
use bytes::Bytes;
use futures_util::Stream;
use model::filter::Filters;
use model::{Kind, Refusal};
use oci::{Index, Manifest, Platform, Reference, media_type};
use registry::{Credentials, HUB, base64};
use transfer::{Board, Event, PullRequest, PushRequest};

use crate::App;
use crate::handlers::images::timestamp;
use crate::request::Request;
use crate::respond::{Outcome, json, streamed};
use crate::versions;

/// What a transfer says, as the API says it.
fn refusal(error: &transfer::Error) -> Refusal {
    let kind = match error.kind() {
        transfer::Kind::NotFound => Kind::NotFound,
        transfer::Kind::Invalid => Kind::Invalid,
        transfer::Kind::Unauthorized => Kind::Unauthorized,
        transfer::Kind::Forbidden => Kind::Forbidden,
        transfer::Kind::System => Kind::System,
    };
    let refusal = Refusal::new(kind, error.to_string());
    match error.hint() {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}

pub(super) fn registry_refusal(error: registry::Error) -> Refusal {
    refusal(&transfer::Error::Registry(error))
}

pub fn credentials(config: AuthConfig) -> Credentials {
    let mut found = Credentials {
        username: config.username,
        password: config.password,
        identity_token: config.identitytoken,
        registry_token: config.registrytoken,
    };
    let plain = base64::decode(&config.auth).and_then(|plain| String::from_utf8(plain).ok());
    if let Some((username, password)) = plain.as_deref().and_then(|plain| plain.split_once(':'))
        && found.username.is_empty()
    {
        found.username = username.to_owned();
        found.password = password.trim_end_matches('\0').to_owned();
    }
    found
}

/// The credentials of a request. A header that cannot be read counts as none, as with Docker.
fn header_credentials(request: &Request) -> Credentials {
    let decoded = base64::decode(request.header("x-registry-auth").trim()).unwrap_or_default();
    api_types::from_json::<AuthConfig>(&decoded).map(credentials).unwrap_or_default()
}

pub(super) fn message(event: Event) -> ProgressMessage {
    match event {
        Event::Message { id: Some(id), text } => ProgressMessage {
            status: Some(text),
            progress_detail: Some(ProgressDetail::default()),
            id: Some(id),
            ..ProgressMessage::default()
        },
        Event::Message { id: None, text } => {
            ProgressMessage { status: Some(text), ..ProgressMessage::default() }
        }
        Event::Progress { id, action, current, total } => ProgressMessage {
            status: Some(action.to_owned()),
            progress: Some(bar(current, total)),
            progress_detail: Some(ProgressDetail {
                current: Some(i64::try_from(current).unwrap_or(i64::MAX)),
                total: Some(i64::try_from(total).unwrap_or(i64::MAX)),
            }),
            id: Some(id),
            ..ProgressMessage::default()
        },
        Event::Aux(value) => ProgressMessage { aux: Some(value), ..ProgressMessage::default() },
    }
}

/// The drawn form that old clients print.
fn bar(current: u64, total: u64) -> String {
    let done = (current.saturating_mul(50) / total.max(1)).min(50) as usize;
    let head = if done < 50 { ">" } else { "" };
    format!(
        "[{}{head}{}]  {}/{}",
        "=".repeat(done),
        " ".repeat(50 - done - head.len()),
        size(current),
        size(total)
    )
}

/// Decimal, with four digits: `1.234MB`.
fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 1000.0 { 0 } else { 3 - (value.max(1.0).log10() as usize) };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// The client's end of a transfer: when nobody reads any more, nobody wants the transfer.
struct Reader(Board);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Lets a transfer run, and answers with what it says.
fn follow(
    board: Board,
    work: impl Future<Output = Result<(), transfer::Error>> + Send + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let running = tokio::spawn({
        let board = board.clone();
        async move {
            let outcome = work.await;
            board.close();
            outcome
        }
    });
    let state = (Reader(board), Some(running));
    futures_util::stream::unfold(state, |(reader, running)| async move {
        if let Some(event) = reader.0.next().await {
            return Some((line(&message(event)), (reader, running)));
        }
        let outcome = running?.await;
        let text = match outcome {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => refusal(&error).message,
            Err(error) => format!("internal error: {error}"),
        };
        let failure = ProgressMessage {
            error_detail: Some(ErrorDetail { code: 0, message: text.clone() }),
            error: Some(text),
            ..ProgressMessage::default()
        };
        Some((line(&failure), (reader, None)))
    })
}

fn line(message: &ProgressMessage) -> std::io::Result<Bytes> {
    let mut line = serde_json::to_vec(message)?;
    line.extend_from_slice(b"\r\n");
    Ok(line.into())
}

/// `fromImage` and `tag` as one reference; a bare name means all tags.
fn pulled_reference(image: &str, tag: &str) -> Result<Reference, Refusal> {
    let invalid = |error: oci::reference::Error| Refusal::invalid(error.to_string());
    let reference = Reference::parse(image).map_err(invalid)?;
    match tag {
        "" => Ok(reference),
        digest if digest.contains(':') => Ok(reference.with_digest(
            digest.parse().map_err(|error: oci::digest::Error| Refusal::invalid(error.to_string()))?,
        )),
        tag => reference.with_tag(tag).map_err(invalid),
    }
}

/// `POST /images/create` with `fromImage`.
pub async fn pull(app: &App, request: &Request) -> Outcome {
    let query = &request.query;
    let reference = pulled_reference(query.text("fromImage"), query.text("tag"))?;
    let platform = match query.text("platform") {
        "" => None,
        text => Some(Platform::parse(text).map_err(|error| Refusal::invalid(error.to_string()))?),
    };
    let wanted = PullRequest {
        reference,
        platform,
        credentials: header_credentials(request),
        now: timestamp(app.engine.now()),
    };
    let pull = app.transfers.pull(wanted).await.map_err(|error| refusal(&error))?;
    let board = Board::default();
    let engine = app.engine.clone();
    let work = pull.run(board.clone(), move |pulled| {
        let attributes = StringMap::from([("name".to_string(), pulled.reference.familiar_name())]);
        engine.announce("image", "pull", &pulled.reference.familiar(), attributes);
    });
    Ok(streamed("application/json", follow(board, work)))
}

/// `POST /images/{name}/push`.
pub fn push(app: &App, request: &Request, name: &str) -> Outcome {
    let invalid = |error: oci::reference::Error| Refusal::invalid(error.to_string());
    let mut reference = Reference::parse(name).map_err(invalid)?;
    let tag = request.query.text("tag");
    if !tag.is_empty() {
        reference = reference.with_tag(tag).map_err(invalid)?;
    }
    if reference.digest().is_some() {
        return Err(Refusal::invalid("cannot push a digest reference"));
    }
    let wanted = PushRequest {
        reference,
        platform: versions::push_platform(request)?,
        credentials: header_credentials(request),
        now: timestamp(app.engine.now()),
    };
    let board = Board::default();
    let (engine, transfers) = (app.engine.clone(), app.transfers.clone());
    let told = board.clone();
    let work = async move {
        let done = move |pushed: &transfer::Pushed| {
            let attributes = StringMap::from([("name".to_string(), pushed.reference.familiar_name())]);
            engine.announce("image", "push", &pushed.reference.familiar(), attributes);
        };
        transfers.push(wanted, told, done).await
    };
    Ok(streamed("application/json", follow(board, work)))
}

/// `POST /auth`.
pub async fn auth(app: &App, request: &mut Request) -> Outcome {
    let config: AuthConfig = request.json().await?;
    let address = config.serveraddress.clone();
    let domain = domain_of(&address);
    let token =
        app.transfers.registries().log_in(&domain, credentials(config)).await.map_err(log_in_refusal)?;
    json(&AuthResponse { status: "Login Succeeded".into(), identity_token: token.unwrap_or_default() })
}

fn log_in_refusal(error: registry::Error) -> Refusal {
    let text = error.to_string();
    match error.kind() {
        registry::Kind::Unauthorized | registry::Kind::Denied => Refusal::new(Kind::Unauthorized, text),
        _ => Refusal::system(text),
    }
}

/// The domain of a server's address: `https://index.docker.io/v1/` is the Hub, and `https://host/path` is `host`.
pub fn domain_of(address: &str) -> String {
    let bare = address.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// `GET /distribution/{name}/json`: what a name stands for in its registry.
pub async fn inspect(app: &App, request: &Request, name: &str) -> Outcome {
    let reference = Reference::parse(name).map_err(|error| Refusal::invalid(error.to_string()))?.or_latest();
    let repository = app
        .transfers
        .registries()
        .repository(reference.domain(), reference.path(), header_credentials(request))
        .map_err(registry_refusal)?;
    let asked = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let found = repository.manifest(&asked).await.map_err(|error| match error.kind() {
        registry::Kind::Denied | registry::Kind::Unauthorized => {
            Refusal::new(Kind::Unauthorized, error.to_string())
        }
        registry::Kind::NotFound => Refusal::not_found(error.to_string()),
        _ => registry_refusal(error),
    })?;
    let platforms = platforms(&repository, &found).await?;
    json(&DistributionInspect {
        descriptor: Descriptor {
            media_type: found.media_type,
            digest: found.digest.to_string(),
            size: found.bytes.len() as i64,
            ..Descriptor::default()
        },
        platforms,
    })
}

async fn platforms(
    repository: &registry::Repository,
    found: &registry::Fetched,
) -> Result<Vec<ApiPlatform>, Refusal> {
    let invalid = |error: serde_json::Error| Refusal::invalid(format!("the manifest is not valid: {error}"));
    if media_type::is_index(&found.media_type) {
        let index: Index = oci::image::read(&found.bytes).map_err(invalid)?;
        return Ok(index
            .manifests
            .into_iter()
            .filter_map(|entry| entry.platform)
            .map(engine::api_platform)
            .collect());
    }
    let manifest: Manifest = oci::image::read(&found.bytes).map_err(invalid)?;
    if !media_type::is_config(&manifest.config.media_type) {
        return Ok(Vec::new());
    }
    let bytes = repository
        .blob_bytes(&manifest.config.digest, oci::image::CONFIG_BYTES_MAX)
        .await
        .map_err(registry_refusal)?;
    let config: oci::Image = oci::image::read(&bytes).map_err(invalid)?;
    Ok(vec![engine::api_platform(config.platform())])
}

/// `GET /images/search`.
pub async fn search(app: &App, request: &Request) -> Outcome {
    let query = &request.query;
    let filters = Filters::parse(query.text("filters"), &["is-automated", "is-official", "stars"])?;
    let limit = match query.number("limit")? {
        None | Some(0) => 25,
        Some(limit) => u32::try_from(limit)
            .ok()
            .filter(|limit| (1..=100).contains(limit))
            .ok_or_else(|| Refusal::invalid(format!("limit {limit} is outside the range of [1, 100]")))?,
    };
    let stars = filters.values("stars").map(|text| {
        let invalid = || Refusal::invalid(format!("invalid filter 'stars=[{text}]'"));
        text.parse::<i64>().map_err(|_| invalid())
    });
    let stars = stars.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    let (official, automated) = (filters.flag("is-official")?, filters.flag("is-automated")?);
    let term = query.text("term");
    if term.is_empty() {
        return Err(Refusal::invalid("the search term is empty"));
    }
    // A name with a registry in front is searched for there.
    let (index, term) = match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host.to_owned(), rest),
        _ => (app.search_index.to_string(), term),
    };
    let found = app
        .transfers
        .registries()
        .search(&index, term, limit, header_credentials(request))
        .await
        .map_err(registry_refusal)?;
    let shown = found.into_iter().filter(|one| {
        one.star_count >= stars
            && official.is_none_or(|wanted| one.is_official == wanted)
            && automated.is_none_or(|wanted| one.is_automated == wanted)
    });
    let answers: Vec<SearchResult> = shown
        .map(|one| SearchResult {
            star_count: one.star_count,
            is_official: one.is_official,
            name: one.name,
            is_automated: one.is_automated,
            description: one.description,
        })
        .collect();
    json(&answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_references() {
        for (address, domain) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("r.example:5000", "r.example:5000"),
            ("http://r.example/v2/", "r.example"),
        ] {
            assert_eq!(domain_of(address), domain);
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(pulled_reference("x", &digest).unwrap().familiar(), format!("x@{digest}"));
        assert_eq!(pulled_reference("x:1", "2").unwrap().familiar(), "x:2");
        assert!(pulled_reference("x", "").unwrap().is_name_only());
        assert!(pulled_reference("x", "sha256:zz").is_err());
    }

    #[test]
    fn bars() {
        assert_eq!(bar(0, 10), format!("[>{}]  0B/10B", " ".repeat(49)));
        assert_eq!(bar(1_500_000, 1_500_000), format!("[{}]  1.5MB/1.5MB", "=".repeat(50)));
        assert_eq!(bar(5, 0), format!("[{}]  5B/0B", "=".repeat(50)));
    }
}
