//! Building images.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api_types::container::{HostConfig, Resources};
use api_types::registry::AuthConfig;
use api_types::{ProgressMessage, StringMap};
use build::{Event, Options, Stream};
use model::{Kind, Refusal};
use oci::{Config, Platform, Reference};
use registry::{Credentials, base64};
use serde_json::json;

use crate::App;
use crate::handlers::images::timestamp;
use crate::handlers::registry::{credentials, domain_of};
use crate::query::Query;
use crate::request::Request;
use crate::respond::{Outcome, streamed};
use crate::stream::{Messages, Pipe, pipe};

fn refusal(error: &build::Error) -> Refusal {
    let kind = match error.kind() {
        build::Kind::NotFound => Kind::NotFound,
        build::Kind::Invalid => Kind::Invalid,
        build::Kind::NotImplemented => Kind::NotImplemented,
        build::Kind::Cancelled | build::Kind::System => Kind::System,
    };
    Refusal::new(kind, error.to_string())
}

/// Applies Dockerfile instructions to an image's config.
pub fn changed_config(mut config: Config, changes: &[String]) -> Result<Config, Refusal> {
    build::changes::apply(&mut config, changes).map_err(|error| refusal(&error))?;
    Ok(config)
}

/// Reads the parameters; what the builder cannot do is refused by name.
fn options(query: &Query) -> Result<Options, Refusal> {
    if query.text("version") == "2" {
        return Err(Refusal::not_implemented("BuildKit").hint("use the classic builder: DOCKER_BUILDKIT=0"));
    }
    let missing = ["remote", "outputs", "squash"];
    let given = |key: &&&str| !matches!(query.text(key), "" | "0" | "null" | "[]" | "{}" | "false");
    if let Some(key) = missing.iter().find(given) {
        return Err(Refusal::not_implemented(&format!("the build parameter {key}")));
    }
    let map = |key: &str| parsed::<BTreeMap<String, Option<String>>>(query, key);
    let tags = query.all("t").into_iter().filter(|tag| !tag.is_empty()).map(|tag| {
        let reference = Reference::parse(&tag);
        reference.map_err(|error| {
            Refusal::invalid(format!("invalid argument \"{tag}\" for \"-t, --tag\" flag: {error}"))
        })
    });
    let labels = map("labels")?.into_iter().map(|(key, value)| (key, value.unwrap_or_default()));
    Ok(Options {
        dockerfile: match query.text("dockerfile") {
            "" => "Dockerfile".into(),
            path => path.into(),
        },
        tags: tags.collect::<Result<_, _>>()?,
        no_cache: query.flag("nocache"),
        cache_from: parsed(query, "cachefrom")?,
        pull: query.flag("pull"),
        build_args: map("buildargs")?,
        labels: labels.collect(),
        target: query.text("target").into(),
        platform: match query.text("platform") {
            "" => None,
            text => Some(Platform::parse(text).map_err(|error| Refusal::invalid(error.to_string()))?),
        },
        network: match query.text("networkmode") {
            "" => "default".into(),
            mode => mode.into(),
        },
        remove: query.flag_or("rm", true),
        force_remove: query.flag("forcerm"),
        cancel: Arc::default(),
    })
}

/// A parameter that holds JSON; its default if there is none.
fn parsed<T: serde::de::DeserializeOwned + Default>(query: &Query, key: &str) -> Result<T, Refusal> {
    match query.text(key) {
        "" | "null" => Ok(T::default()),
        text => serde_json::from_str(text)
            .map_err(|error| Refusal::invalid(format!("error reading {key}: {error}"))),
    }
}

/// What a client gives beside the steps of a build.
#[derive(Debug, Clone, Default)]
pub struct BuildSetting {
    /// What every container gets: limits, names of hosts.
    pub host: HostConfig,
    /// Of the registries that base images come from, by domain.
    pub credentials: BTreeMap<String, Credentials>,
}

/// Reads `X-Registry-Config`: base64 of a JSON object of address to credentials. A header that cannot be read counts as
/// none, as with Docker.
fn all_credentials(request: &Request) -> BTreeMap<String, Credentials> {
    let bytes = base64::decode(request.header("x-registry-config").trim()).unwrap_or_default();
    let all: BTreeMap<String, AuthConfig> = api_types::from_json(&bytes).unwrap_or_default();
    all.into_iter().map(|(address, config)| (domain_of(&address), credentials(config))).collect()
}

/// What the containers of a build get beside its steps.
fn host(query: &Query) -> Result<HostConfig, Refusal> {
    let number = |key: &str| match query.text(key) {
        "" => Ok(0),
        text => text.parse::<i64>().map_err(|_| {
            Refusal::invalid(format!("invalid build parameter {key}={text}: it must be a whole number"))
        }),
    };
    let words = |key: &str| -> Option<Vec<String>> {
        let all: Vec<String> = query.all(key).into_iter().filter(|word| !word.is_empty()).collect();
        (!all.is_empty()).then_some(all)
    };
    let resources = Resources {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: query.text("cpusetcpus").into(),
        cpuset_mems: query.text("cpusetmems").into(),
        cgroup_parent: query.text("cgroupparent").into(),
        ulimits: parsed(query, "ulimits")?,
        ..Resources::default()
    };
    Ok(HostConfig {
        resources,
        shm_size: number("shmsize")?,
        extra_hosts: words("extrahosts"),
        security_opt: match query.text("securityopt") {
            text if text.starts_with('[') || text == "null" => parsed(query, "securityopt")?,
            _ => words("securityopt"),
        },
        ..HostConfig::default()
    })
}

pub async fn build(app: &App, request: Request) -> Outcome {
    let options = options(&request.query)?;
    let setting = BuildSetting { host: host(&request.query)?, credentials: all_credentials(&request) };
    let quiet = request.query.flag("q");
    let (app, reader) = (app.clone(), request.into_reader());
    let (mut out, pieces) = pipe();
    app.engine.metrics().builds.fetch_add(1, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = run(&app, reader, &options, setting, quiet, &mut out) {
            app.engine.metrics().builds_failed.fetch_add(1, Ordering::Relaxed);
            out.fail(error.code().unwrap_or(0), &refusal(&error));
        }
    });
    Ok(streamed("application/json", pieces))
}

fn run(
    app: &App,
    reader: impl std::io::Read,
    options: &Options,
    setting: BuildSetting,
    quiet: bool,
    out: &mut Pipe,
) -> Result<(), build::Error> {
    let executor = (app.executor)(setting);
    let context = app.builder.context(reader)?;
    let clock = || timestamp(app.engine.now());
    let image = app.builder.build(&context, options, &*executor, &clock, &mut |event| {
        tell(app, event, quiet, out, &options.cancel);
    })?;
    if quiet {
        say(out, &options.cancel, stream(&format!("{image}\n")));
    }
    Ok(())
}

fn stream(text: &str) -> ProgressMessage {
    ProgressMessage { stream: Some(text.into()), ..ProgressMessage::default() }
}

/// Sends a message; a client that is gone ends the build.
fn say(out: &mut Pipe, cancel: &AtomicBool, message: ProgressMessage) {
    if out.message(&message).is_err() {
        cancel.store(true, Ordering::Relaxed);
    }
}

fn tell(app: &App, event: Event<'_>, quiet: bool, out: &mut Pipe, cancel: &AtomicBool) {
    match event {
        Event::Text(_) | Event::Output(..) if quiet => {}
        Event::Text(text) => say(out, cancel, stream(text)),
        Event::Output(Stream::Stdout, bytes) => say(out, cancel, stream(&String::from_utf8_lossy(bytes))),
        // Red, as clients have always got it.
        Event::Output(Stream::Stderr, bytes) => {
            say(out, cancel, stream(&format!("\x1b[91m{}\x1b[0m", String::from_utf8_lossy(bytes))));
        }
        Event::Image(image) => {
            let aux = Some(json!({"ID": image.to_string()}));
            say(out, cancel, ProgressMessage { aux, ..ProgressMessage::default() });
        }
        Event::Tagged(image, reference) => {
            let attributes = StringMap::from([("name".to_string(), reference.familiar())]);
            app.engine.announce("image", "tag", &image.to_string(), attributes);
        }
    }
}
