//! The daemon: read the configuration, open the parts, serve until told to stop.

mod config;
mod executor;
mod listen;
mod registries;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use api_server::{About, App, Version};
use api_types::container::LogConfig;
use config::{Config, Invocation};
use engine::{Engine, NetworkOptions, Options, Parts, Paths};
use snapshots::Snapshotter;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let config = match config::read(&arguments) {
        Ok(Invocation::Run(config)) => config,
        Ok(Invocation::Validate) => {
            println!("configuration OK");
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Version) => {
            println!("Corten version {VERSION}, build {}", commit());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("cortend: {error:#}\nSee 'cortend --help'.");
            return ExitCode::FAILURE;
        }
    };
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to start daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn commit() -> &'static str {
    option_env!("CORTEN_COMMIT").unwrap_or("unknown")
}

fn run(config: &Config) -> Result<()> {
    set_up_log(config)?;
    if !rustix::process::geteuid().is_root() {
        bail!("the daemon needs to be started with root privileges");
    }
    // Few threads: the daemon waits far more than it works, and each thread has a stack and a heap of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8)))
        .max_blocking_threads(64)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

fn set_up_log(config: &Config) -> Result<()> {
    let level = match config.text("log-level").unwrap_or(if config.on("debug") { "debug" } else { "info" }) {
        "fatal" | "panic" => "error",
        level @ ("debug" | "info" | "warn" | "error" | "trace") => level,
        other => bail!("unable to parse logging level: {other}"),
    };
    let filter = EnvFilter::try_new(format!("{level},hyper=warn,h2=warn,rustls=warn"))?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match config.text("log-format").unwrap_or("text") {
        "text" => builder.with_ansi(false).init(),
        "json" => builder.json().init(),
        other => bail!("invalid log format: {other}"),
    }
    Ok(())
}

async fn serve(config: &Config) -> Result<()> {
    let paths = Paths {
        data: PathBuf::from(config.text("data-root").unwrap_or("/var/lib/corten")),
        run: PathBuf::from(config.text("exec-root").unwrap_or("/run/corten")),
    };
    let pid_file = PathBuf::from(config.text("pidfile").unwrap_or("/run/corten.pid"));
    let hosts = match config.list("host") {
        [] => listen::default_hosts(),
        hosts => hosts.to_vec(),
    };
    let app = open_app(config, paths).await?;
    // Only when containers are adopted: a client never sees half of them.
    let listeners = listen::open(config, &hosts).await?;
    std::fs::write(&pid_file, std::process::id().to_string())
        .with_context(|| format!("cannot write the PID file {}", pid_file.display()))?;
    let (stop, stopping) = watch::channel(false);
    for (host, listener) in listeners {
        tracing::info!(%host, "API listen");
        tokio::spawn(api_server::serve(listener, app.clone(), stopping.clone()));
    }
    tracing::info!(version = VERSION, "daemon has completed initialization");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => tracing::warn!("reloading the configuration is not supported yet; restart the daemon"),
        }
    }
    tracing::info!("stopping; containers run on");
    let _ = stop.send(true);
    app.engine.shut_down().await;
    for host in &hosts {
        if let Some(path) = host.strip_prefix("unix://") {
            let _ = std::fs::remove_file(path);
        }
    }
    let _ = std::fs::remove_file(&pid_file);
    Ok(())
}

async fn open_app(config: &Config, paths: Paths) -> Result<App> {
    // Layers hold programs that run as root: no other user of the host reaches them (CVE-2021-41091). The run root
    // has the socket in it, whose own mode decides.
    make_directory(&paths.data, 0o710)?;
    make_directory(&paths.run, 0o711)?;
    let parts = open_parts(config, &paths)?;
    let builder = Arc::new(build::Builder::open(parts.images.clone(), &paths.data.join("builds"))?);
    let transfers = registries::transfers(config, parts.images.clone(), VERSION)?;
    let search_index = config.text("search-index").unwrap_or(registry::HUB_INDEX).into();
    let options = options(config, paths)?;
    let min = config
        .text("min-api-version")
        .map(String::from)
        .or_else(|| std::env::var("DOCKER_MIN_API_VERSION").ok());
    let min_version = match min.as_deref() {
        None => Version::FLOOR,
        Some(text) => Version::parse(text)
            .filter(|version| (Version::FLOOR..=Version::MAX).contains(version))
            .with_context(|| {
                format!("invalid minimum API version {text}: use {} to {}", Version::FLOOR, Version::MAX)
            })?,
    };
    let labels = options.labels.clone();
    let debug = options.debug;
    let engine = Engine::open(options, parts).await.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let about = About {
        version: VERSION.into(),
        commit: commit().into(),
        built: option_env!("CORTEN_BUILT").unwrap_or_default().into(),
        min_version,
        labels,
        debug,
        extra: Default::default(),
    };
    let executor =
        Arc::new(executor::Executor { engine: engine.clone(), runtime: tokio::runtime::Handle::current() });
    Ok(App { engine, builder, executor, about: Arc::new(about), transfers, search_index })
}

fn make_directory(directory: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn open_parts(config: &Config, paths: &Paths) -> Result<Parts> {
    match config.text("storage-driver").unwrap_or("overlay") {
        "overlay" | "overlay2" | "overlayfs" => {}
        other => bail!("the storage driver {other} is not supported yet; use overlay"),
    }
    let store = metadata::Store::open(&paths.state())?;
    let content = Arc::new(content::Store::open(&paths.data.join("content"))?);
    let snapshots: Arc<dyn Snapshotter> =
        Arc::new(snapshots::Overlay::open(&paths.data.join("snapshots").join("overlay"))?);
    let (images, warnings) =
        images::Images::open(content, snapshots.clone(), store.clone(), images::Limits::default())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(Parts { store, images: Arc::new(images), snapshots })
}

fn options(config: &Config, paths: Paths) -> Result<Options> {
    let shm_size = match config.text("default-shm-size") {
        None => 64 << 20,
        Some(text) => model::create::parse_size(text)
            .and_then(|size| i64::try_from(size).ok())
            .with_context(|| format!("invalid default shm size {text}"))?,
    };
    let log = LogConfig {
        driver: config.text("log-driver").unwrap_or("json-file").into(),
        config: config.map("log-opt"),
    };
    let bridge = config.text("bridge");
    let network = NetworkOptions {
        bridge_name: bridge.filter(|name| *name != "none").unwrap_or(network::DEFAULT_BRIDGE_NAME).into(),
        bridge_address: config
            .text("bip")
            .map(|text| text.parse().with_context(|| format!("invalid bridge address {text}")))
            .transpose()?,
        mtu: config.number("mtu").map(u32::try_from).transpose().context("invalid MTU")?,
        icc: config.on_or("icc", true),
        masquerade: config.on_or("ip-masq", true),
        host_binding: config
            .text("ip")
            .unwrap_or("0.0.0.0")
            .parse()
            .context("invalid host IP address for published ports")?,
        disabled: bridge == Some("none"),
    };
    Ok(Options {
        shim: shim_program(config)?,
        cgroup_parent: config.text("cgroup-parent").unwrap_or("/corten").into(),
        log,
        shm_size,
        stop_timeout: config.number("default-stop-timeout").unwrap_or(10),
        labels: config.list("label").to_vec(),
        network,
        debug: config.on("debug"),
        paths,
    })
}

/// `corten-shim` beside the daemon's own program, else in the place that packages use.
fn shim_program(config: &Config) -> Result<PathBuf> {
    if let Some(path) = config.text("shim") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot find the daemon's own program")?;
    let beside = own.with_file_name("corten-shim");
    let packaged = PathBuf::from("/usr/libexec/corten/corten-shim");
    [beside.clone(), packaged]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("cannot find the shim {}; give its path with --shim", beside.display()))
}
