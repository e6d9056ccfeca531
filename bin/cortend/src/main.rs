//! The daemon: read the configuration, open the parts, serve until told to stop.

mod cgroups;
mod config;
mod executor;
mod inherited;
mod listen;
mod log;
mod registries;
mod reload;
mod settings;
mod signals;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use api_server::{About, App, Version};
use config::{Config, Invocation};
use engine::{Engine, IsolationOptions, Options, Parts, Paths};
use model::remap::Remap;
use tokio::sync::watch;

/// How long the end waits for unpacked layers to be on the disk.
const SETTLE_AT_END: std::time::Duration = std::time::Duration::from_secs(10);
/// Tells one boot of the kernel from another; see random(4).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    sys::memory::give_back();
    let mut words = std::env::args();
    let called = words.next().unwrap_or_default();
    let program = if called.rsplit('/').next() == Some("dockerd") { "dockerd" } else { "cortend" };
    let arguments: Vec<String> = words.collect();
    let config = match config::read(program, &arguments) {
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
            let name = if program == "dockerd" { "Docker" } else { "Corten" };
            println!("{name} version {VERSION}, build {}", commit());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{program}: {error:#}\nSee '{program} --help'.");
            return ExitCode::FAILURE;
        }
    };
    match run(program, *config) {
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

fn run(program: &'static str, config: Config) -> Result<()> {
    let log = log::set_up(&config)?;
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
    let result = runtime.block_on(serve(program, config, log));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

async fn serve(program: &'static str, mut config: Config, log: log::Log) -> Result<()> {
    for (name, why) in config.ineffective() {
        tracing::warn!(setting = name, "this setting changes nothing: {why}");
    }
    let remap = remap(&config)?;
    let (data, run, pid) = match program {
        // The sockets and files that service managers know; the state is ours, in its own place.
        "dockerd" => (settings::DATA_ROOT, "/run/corten", "/var/run/docker.pid"),
        _ => (settings::DATA_ROOT, "/run/corten", "/run/corten.pid"),
    };
    let paths = Paths {
        data: data_root(&config, data, remap.as_ref()),
        run: PathBuf::from(config.text("exec-root").unwrap_or(run)),
    };
    let pid_file = PidFile::take(Path::new(config.text("pidfile").unwrap_or(pid)))?;
    let hosts = match config.list("host") {
        none if none.is_empty() => listen::default_hosts(),
        hosts => hosts,
    };
    // Before the containers are adopted: signals that come meanwhile wait.
    let mut signals = signals::Signals::new()?;
    let app = open_app(&config, paths, remap).await?;
    // Only when containers are adopted: a client never sees half of them.
    let listeners = listen::open(&config, &hosts).await?;
    let (stop, stopping) = watch::channel(false);
    for (host, listener) in listeners {
        tracing::info!(%host, "API listen");
        tokio::spawn(api_server::serve(listener, app.clone(), stopping.clone()));
    }
    if let Some(address) = config.text("metrics-addr") {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for metrics"))?;
        tracing::info!(address, "metrics API listen");
        tokio::spawn(api_server::serve_metrics(listener, app.clone(), stopping.clone()));
    }
    tracing::info!(version = VERSION, "daemon has completed initialization");
    inherited::notify("READY=1");
    loop {
        match signals.next().await {
            signals::Wanted::End => break,
            signals::Wanted::Reload => {
                inherited::notify("RELOADING=1");
                config = reload::reload(config, &app.engine, &app.transfers, &log);
                inherited::notify("READY=1");
            }
            signals::Wanted::Report => signals::report(&app.engine),
        }
    }
    tracing::info!("stopping; containers run on");
    inherited::notify("STOPPING=1");
    let _ = stop.send(true);
    let system = app.engine.system();
    let images = Arc::clone(app.engine.images());
    let end = async {
        system.shut_down().await;
        // So that nothing has to be unpacked again if the machine stops as well.
        let settled = tokio::task::spawn_blocking(move || images.settling().settle());
        match tokio::time::timeout(SETTLE_AT_END, settled).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "unpacked layers could not be brought to the disk"),
            Ok(Err(_)) | Err(_) => tracing::warn!("unpacked layers are not on the disk yet"),
        }
    };
    tokio::select! {
        () = end => {}
        () = signals.insist() => bail!("ended at once, as three signals asked"),
    }
    for host in &hosts {
        if let Some(path) = host.strip_prefix("unix://") {
            let _ = std::fs::remove_file(path);
        }
    }
    drop(pid_file);
    Ok(())
}

/// The file that holds the daemon's process ID for as long as it lives.
struct PidFile(PathBuf);

impl PidFile {
    /// Refuses if the process that it names is a daemon that runs.
    fn take(path: &Path) -> Result<PidFile> {
        let earlier = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(pid) = earlier.filter(|pid| *pid != std::process::id()) {
            let program = |pid: &str| {
                let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
                let name = path.file_name()?.to_string_lossy().into_owned();
                // A program that was replaced meanwhile is shown like that.
                Some(name.trim_end_matches(" (deleted)").to_string())
            };
            // Numbers are used again: only the same program counts. What has ended has none.
            if program(&pid.to_string()).is_some_and(|there| Some(there) == program("self")) {
                bail!(
                    "process with PID {pid} is still running (PID file {}); end it, or give this daemon another --pidfile",
                    path.display()
                );
            }
        }
        std::fs::write(path, std::process::id().to_string())
            .with_context(|| format!("cannot write the PID file {}", path.display()))?;
        Ok(PidFile(path.into()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn open_app(config: &Config, paths: Paths, remap: Option<Remap>) -> Result<App> {
    // Layers hold programs that run as root: no other user of the host reaches them (CVE-2021-41091). The run root
    // has the socket in it, whose own mode decides.
    make_directory(&paths.data, 0o710)?;
    make_directory(&paths.run, 0o711)?;
    let parts = open_parts(config, &paths)?;
    let builder = Arc::new(build::Builder::open(parts.images.clone(), &paths.data.join("builds"))?);
    let setup = registries::setup(config, &settings::read(config)?, VERSION)?;
    let transfers = transfer::Transfers::new(parts.images.clone(), setup);
    let search_index = config.text("search-index").unwrap_or(registry::HUB_INDEX).into();
    let options = options(config, paths, remap)?;
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
    let engine = Engine::open(options, parts).await.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let about = About {
        version: VERSION.into(),
        commit: commit().into(),
        built: option_env!("CORTEN_BUILT").unwrap_or_default().into(),
        min_version,
    };
    let (for_builds, runtime) = (engine.clone(), tokio::runtime::Handle::current());
    let for_base_images = transfers.clone();
    let executor = Arc::new(move |setting| -> Box<dyn build::Executor> {
        let (engine, runtime, transfers) = (for_builds.clone(), runtime.clone(), for_base_images.clone());
        Box::new(executor::Executor { engine, runtime, transfers, setting })
    });
    Ok(App {
        engine,
        builder,
        executor,
        about: Arc::new(about),
        authorization: Default::default(),
        transfers,
        search_index,
    })
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
    let store = metadata::Store::open(&paths.state())?;
    let content = Arc::new(content::Store::open(&paths.data.join("content"))?);
    let driver = config.text("storage-driver").map(String::from);
    let driver = driver.or_else(|| std::env::var("DOCKER_DRIVER").ok().filter(|name| !name.is_empty()));
    let boot = std::fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read {BOOT_ID}"))?;
    let boot = boot.trim();
    let doubted = |driver: &str| images::doubted(&store, boot, driver);
    let snapshots = snapshots::open(&paths.snapshots(), driver.as_deref(), &doubted)?;
    let limits = images::Limits::default();
    let (images, warnings) = images::Images::open(content, snapshots.clone(), store.clone(), limits, boot)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let images = Arc::new(images);
    images::keep_settled(&images).context("cannot start a thread")?;
    Ok(Parts { store, images, snapshots })
}

fn options(config: &Config, paths: Paths, remap: Option<Remap>) -> Result<Options> {
    let (cgroup_driver, cgroup_parent) = cgroups::read(
        &config.list("exec-opt"),
        config.text("cgroup-parent"),
        engine::is_systemd_running(),
        engine::is_cgroup_v2(),
    )?;
    Ok(Options {
        shim: shim_program(config)?,
        cgroup_driver,
        cgroup_parent,
        network: settings::network(config, &paths)?,
        isolation: isolation(config, remap),
        link_variables: settings::link_variables(),
        init_path: config.text("init-path").map(PathBuf::from),
        settings: settings::read(config)?,
        paths,
    })
}

fn isolation(config: &Config, remap: Option<Remap>) -> IsolationOptions {
    IsolationOptions {
        cdi_directories: config.list("cdi-spec-dir").iter().map(PathBuf::from).collect(),
        selinux: config.on("selinux-enabled"),
        remap,
    }
}

/// The mappings of `--userns-remap`.
fn remap(config: &Config) -> Result<Option<Remap>> {
    let Some(text) = config.text("userns-remap").filter(|text| *text != "host") else { return Ok(None) };
    let failed = |refusal: model::Refusal| match refusal.hint {
        Some(hint) => anyhow::anyhow!("{}; hint: {hint}", refusal.message),
        None => anyhow::anyhow!(refusal.message),
    };
    engine::check_remap().map_err(failed)?;
    engine::read_remap(text).map(Some).map_err(failed)
}

/// Each mapping has a data root of its own, below the one that was given: what containers of one wrote is not for
/// those of another.
fn data_root(config: &Config, standard: &str, remap: Option<&Remap>) -> PathBuf {
    let given = PathBuf::from(config.text("data-root").unwrap_or(standard));
    match remap.map(Remap::root) {
        Some((uid, gid)) => given.join(format!("{uid}.{gid}")),
        None => given,
    }
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
