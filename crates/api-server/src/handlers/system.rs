//! The daemon: ping, version, info, events.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use api_types::events::EventMessage;
use api_types::system::{
    Commit, Component, DeviceInfo, FirewallInfo, IndexInfo, Info, PlatformName, PluginsInfo, RegistryConfig,
    Runtime, SwarmInfo, Version as VersionAnswer,
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use model::Refusal;
use model::filter::Filters;
use model::time::{NANOS, rfc3339_nano};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, empty, full, json, streamed};
use crate::stream::received;
use crate::versions::{self, Version};

pub fn ping(_app: &App, method: &Method) -> Outcome {
    let mut answer = empty(StatusCode::OK);
    if method == Method::GET {
        *answer.body_mut() = full("OK");
    }
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // The classic builder; "2" would send clients to BuildKit.
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    Ok(answer)
}

/// Go's names of architectures.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn version(app: &App) -> Outcome {
    let about = &app.about;
    let kernel = app.engine.system().facts().kernel;
    let details = [
        ("ApiVersion", Version::MAX.to_string()),
        ("Arch", go_arch().into()),
        ("BuildTime", about.built.clone()),
        ("Experimental", app.engine.settings().experimental.to_string()),
        ("GitCommit", about.commit.clone()),
        ("KernelVersion", kernel.clone()),
        ("MinAPIVersion", about.min_version.to_string()),
        ("Os", "linux".into()),
    ];
    json(&VersionAnswer {
        platform: PlatformName { name: "Corten".into() },
        components: vec![Component {
            name: "Engine".into(),
            version: about.version.clone(),
            details: details.into_iter().map(|(key, value)| (key.to_string(), value)).collect(),
        }],
        version: about.version.clone(),
        api_version: Version::MAX.to_string(),
        min_api_version: about.min_version.to_string(),
        git_commit: about.commit.clone(),
        go_version: String::new(),
        os: "linux".into(),
        arch: go_arch().into(),
        kernel_version: kernel,
        experimental: app.engine.settings().experimental,
        build_time: about.built.clone(),
    })
}

pub async fn info(app: &App) -> Outcome {
    let engine = app.engine.clone();
    let facts = tokio::task::spawn_blocking(move || engine.system().facts())
        .await
        .map_err(|error| Refusal::from_error("internal error", &error))?;
    let options = app.engine.options();
    let can = &facts.controllers;
    let settings = app.engine.settings();
    let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let docker_hub =
        IndexInfo { name: "docker.io".into(), secure: true, official: true, ..IndexInfo::default() };
    let mut index_configs: BTreeMap<String, IndexInfo> =
        [("docker.io".to_string(), IndexInfo { mirrors: settings.registry_mirrors.clone(), ..docker_hub })]
            .into();
    for name in settings.insecure_registries.iter().filter(|one| !one.contains('/')) {
        index_configs.insert(name.clone(), IndexInfo { name: name.clone(), ..IndexInfo::default() });
    }
    let commit = || Commit { id: app.about.commit.clone() };
    let described = settings.runtimes.described().into_iter();
    let runtimes = described.map(|(name, path, arguments)| {
        (name, Runtime { path, runtime_args: Some(arguments).filter(|list| !list.is_empty()) })
    });
    let devices = facts.devices.into_iter().map(|id| DeviceInfo { source: "cdi".into(), id });
    let directories = app.engine.devices().directories().iter();
    let mut warnings = Vec::new();
    if !facts.ipv4_forwarding {
        warnings.push("WARNING: IPv4 forwarding is disabled".to_string());
    }
    if !facts.apparmor_problem.is_empty() {
        let why = &facts.apparmor_problem;
        warnings.push(format!("WARNING: containers run without an AppArmor profile: {why}"));
    }
    let mut security = facts.security;
    if settings.no_new_privileges {
        security.push("name=no-new-privileges".into());
    }
    json(&Info {
        id: facts.id,
        containers: facts.running + facts.paused + facts.stopped,
        containers_running: facts.running,
        containers_paused: facts.paused,
        containers_stopped: facts.stopped,
        images: facts.images,
        driver: facts.driver,
        driver_status: facts.driver_status,
        plugins: PluginsInfo {
            volume: list(&["local"]),
            network: list(&["bridge", "host", "null"]),
            authorization: None,
            log: list(&model::logging::DRIVERS),
        },
        memory_limit: can.memory,
        swap_limit: can.swap,
        cpu_cfs_period: can.cpu_quota,
        cpu_cfs_quota: can.cpu_quota,
        cpu_shares: can.cpu_shares,
        cpu_set: can.cpuset,
        pids_limit: can.pids,
        ipv4_forwarding: facts.ipv4_forwarding,
        bridge_nf_iptables: false,
        bridge_nf_ip6tables: false,
        debug: settings.debug,
        n_fd: facts.descriptors,
        oom_kill_disable: can.oom_kill_disable,
        n_goroutines: 0,
        system_time: rfc3339_nano(app.engine.now()),
        logging_driver: settings.log.driver.clone(),
        cgroup_driver: options.cgroup_driver.name().into(),
        cgroup_version: if facts.cgroup_v2 { "2" } else { "1" }.into(),
        n_events_listener: facts.listeners,
        kernel_version: facts.kernel,
        operating_system: facts.operating_system,
        os_version: facts.os_version,
        os_type: "linux".into(),
        architecture: facts.architecture,
        index_server_address: "https://index.docker.io/v1/".into(),
        registry_config: RegistryConfig {
            insecure_registry_cidrs: list(&["::1/128", "127.0.0.0/8"])
                .into_iter()
                .chain(settings.insecure_registries.iter().filter(|one| one.contains('/')).cloned())
                .collect(),
            index_configs,
            mirrors: settings.registry_mirrors.clone(),
        },
        ncpu: facts.cpus,
        mem_total: facts.memory,
        docker_root_dir: options.paths.data.to_string_lossy().into_owned(),
        name: facts.name,
        labels: settings.labels.clone(),
        server_version: app.about.version.clone(),
        runtimes: runtimes.collect(),
        default_runtime: settings.runtimes.default_name().into(),
        cdi_spec_dirs: directories.map(|directory| directory.to_string_lossy().into_owned()).collect(),
        discovered_devices: devices.collect(),
        experimental_build: settings.experimental,
        http_proxy: without_password(&settings.http_proxy),
        https_proxy: without_password(&settings.https_proxy),
        no_proxy: settings.no_proxy.clone(),
        swarm: SwarmInfo { local_node_state: "inactive".into(), ..SwarmInfo::default() },
        live_restore_enabled: true,
        init_binary: "docker-init".into(),
        containerd_commit: Commit::default(),
        runc_commit: commit(),
        init_commit: Commit::default(),
        security_options: security,
        firewall_backend: Some(FirewallInfo { driver: "nftables".into() }),
        warnings: Some(warnings).filter(|all| !all.is_empty()),
        ..Info::default()
    })
}

/// A proxy's address as it may be shown.
fn without_password(url: &str) -> String {
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, host)))) => format!("{scheme}://xxxxx:xxxxx@{host}"),
        _ => url.to_string(),
    }
}

const KEYS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

pub fn events(app: &App, request: &Request) -> Outcome {
    let query = &request.query;
    let now = app.engine.now();
    let (since, until) = (query.moment("since", now)?, query.moment("until", now)?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(Refusal::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            query.text("since"),
            query.text("until")
        )));
    }
    let filters = Filters::parse(query.text("filters"), &KEYS)?;
    let subscription = app.engine.subscribe();
    let version = request.version;
    let (send, receive) = mpsc::channel::<io::Result<Bytes>>(64);
    tokio::spawn(async move {
        let fits = |event: &EventMessage| {
            since.is_none_or(|since| event.time_nano >= since)
                && until.is_none_or(|until| event.time_nano <= until)
                && matches(event, &filters)
                && (event.kind != "image" || event.action != "create" || version >= Version::new(1, 46))
        };
        if since.is_some() {
            for event in subscription.past.iter().filter(|event| fits(event)) {
                if send.send(line(event, version)).await.is_err() {
                    return;
                }
            }
        }
        let end = until.map(|until| {
            let left = u64::try_from(until - now).unwrap_or(0);
            tokio::time::Instant::now()
                + std::time::Duration::from_nanos(left.min(i64::MAX as u64 / NANOS as u64 * NANOS as u64))
        });
        let mut live = subscription.live;
        loop {
            let event: Arc<EventMessage> = tokio::select! {
                event = live.recv() => match event {
                    Ok(event) => event,
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
                () = sleep_until(end) => return,
                () = send.closed() => return,
            };
            if fits(&event) && send.send(line(&event, version)).await.is_err() {
                return;
            }
        }
    });
    let kind = if version < Version::new(1, 52) { "application/json" } else { "application/jsonl" };
    Ok(streamed(kind, received(receive)))
}

async fn sleep_until(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn line(event: &EventMessage, version: Version) -> io::Result<Bytes> {
    let mut bytes = serde_json::to_vec(&versions::event(event, version)).map_err(io::Error::other)?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

fn matches(event: &EventMessage, filters: &Filters) -> bool {
    let attributes = &event.actor.attributes;
    let name = attributes.get("name").map(String::as_str).unwrap_or_default();
    let object = |kind: &str| {
        filters.any(kind, |wanted| {
            event.kind == kind
                && (event.actor.id.starts_with(wanted) || name.strip_prefix('/').unwrap_or(name) == wanted)
        })
    };
    let image = filters.any("image", |wanted| {
        let bare = |text: &str| text.rsplit_once(':').map_or(text.to_string(), |(name, _)| name.to_string());
        let named = match event.kind.as_str() {
            "image" => name,
            "container" => attributes.get("image").map(String::as_str).unwrap_or_default(),
            _ => return false,
        };
        named == wanted || bare(named) == wanted || (event.kind == "image" && event.actor.id == wanted)
    });
    let event_name = filters.any("event", |wanted| {
        let prefixed = ["health_status", "exec_create", "exec_start"];
        event.action == wanted
            || (prefixed.contains(&wanted)
                && event.action.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(':')))
    });
    let objects =
        ["config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"];
    objects.into_iter().all(object)
        && image
        && event_name
        && filters.any("type", |kind| event.kind == kind)
        && filters.any("scope", |scope| event.scope == scope)
        && filters.labels(attributes)
}
