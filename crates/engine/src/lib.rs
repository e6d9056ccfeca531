//! The verbs of containers, exec, networks and events.
//!
//! [`Engine`] holds the parts and hands out the use cases by noun: `engine.containers().start(…)`.
//!
//! One task per container owns its state ([`container`]) and takes commands from a bounded inbox; readers see the
//! view that it published last. The engine knows no HTTP; it calls the parts (store, snapshots, network, logs)
//! directly, their blocking work on blocking threads.

mod apparmor;
mod attach;
mod autostart;
mod bootstrap;
mod cdi;
pub mod clock;
pub mod container;
mod containers;
mod events;
mod execs;
mod failpoint;
pub mod files;
mod host;
mod image;
mod inspect;
mod list;
pub mod logs;
pub mod metrics;
mod net;
mod networks;
mod paths;
mod prune;
mod records;
mod registry;
mod remap;
mod runtimes;
mod seccomp_cache;
mod selinux;
mod settings;
mod shim;
mod shipping;
pub mod stats;
mod system;
mod top;
mod usage;
pub mod volumes;

use std::path::PathBuf;
use std::sync::Arc;

use images::Images;
use model::Refusal;
use model::create::Record;
use model::time::UnixNanos;
use snapshots::Snapshotter;

pub use attach::{Attachments, Past};
pub use bootstrap::Parts;
pub use containers::{Containers, WaitCondition};
pub use events::Subscription;
pub use execs::Execs;
pub use files::{Commits, Files};
pub use host::cgroup_v2 as is_cgroup_v2;
pub use image::{
    api_config as image_config, api_descriptor, api_platform, merge as merge_config,
    refusal as images_refusal, stored_config,
};
pub use list::{ListQuery, Listing};
pub use logs::Logs;
pub use networks::Networks;
pub use paths::Paths;
pub use prune::until as prune_until;
pub use remap::{check_kernel as check_remap, read as read_remap};
pub use runtimes::{ExternalRuntime, Runtimes};
pub use sandbox::cgroup::{Driver as CgroupDriver, is_systemd_running};
pub use stats::Stats;
pub use system::{Facts, System};
pub use usage::Usage;
pub use volumes::Volumes;

/// What the daemon is told; everything else is found out.
#[derive(Debug, Clone)]
pub struct Options {
    pub paths: Paths,
    /// The shim's program.
    pub shim: PathBuf,
    pub cgroup_driver: CgroupDriver,
    pub cgroup_parent: String,
    pub network: net::NetworkOptions,
    pub isolation: IsolationOptions,
    /// Set the variables that tell of linked containers, as Docker did once.
    pub link_variables: bool,
    /// A program of the host that stands before those of containers that want an init; none: Corten's own, which
    /// needs no file.
    pub init_path: Option<PathBuf>,
    /// How the daemon starts; [`Engine::settings`] is what counts later.
    pub settings: Settings,
}

/// What keeps containers apart, as the daemon is told.
#[derive(Debug, Clone, Default)]
pub struct IsolationOptions {
    /// Where devices are described; none: the usual places.
    pub cdi_directories: Vec<PathBuf>,
    pub selinux: bool,
    /// Containers run in user namespaces with these mappings.
    pub remap: Option<model::remap::Remap>,
}

pub use net::{NameService, NetworkOptions};
pub use settings::Settings;

/// A handle; clones share the engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    options: Options,
    id: String,
    current: settings::Current,
    metrics: metrics::Metrics,
    records: records::Records,
    images: Arc<Images>,
    snapshots: Arc<dyn Snapshotter>,
    network: net::Network,
    launcher: shim::Launcher,
    events: events::Events,
    registry: registry::Registry,
    seccomp: seccomp_cache::Cache,
    shipping: shipping::Shipping,
    networks: networks::Predefined,
    devices: cdi::Devices,
    volumes: volumes::Keeper,
    meter: usage::Meter,
    execs: execs::Known,
    background: system::Background,
    sampler: stats::Sampler,
}

/// The use cases, by noun.
impl Engine {
    pub fn containers(&self) -> Containers {
        Containers(self.clone())
    }

    pub fn attachments(&self) -> Attachments {
        Attachments(self.clone())
    }

    pub fn execs(&self) -> Execs {
        Execs(self.clone())
    }

    pub fn logs(&self) -> Logs {
        Logs(self.clone())
    }

    pub fn files(&self) -> Files {
        Files(self.clone())
    }

    pub fn commits(&self) -> Commits {
        Commits(self.clone())
    }

    pub fn stats(&self) -> Stats {
        Stats(self.clone())
    }

    pub fn usage(&self) -> Usage {
        Usage(self.clone())
    }

    pub fn networks(&self) -> Networks {
        Networks(self.clone())
    }

    pub fn volumes(&self) -> Volumes {
        Volumes(self.clone())
    }

    pub fn system(&self) -> System {
        System(self.clone())
    }
}

/// Runs blocking work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Refusal::from_error("internal error", &error)),
    }
}

impl Engine {
    pub fn paths(&self) -> &Paths {
        &self.0.options.paths
    }

    pub fn options(&self) -> &Options {
        &self.0.options
    }

    pub fn images(&self) -> &Arc<Images> {
        &self.0.images
    }

    pub fn snapshots(&self) -> &Arc<dyn Snapshotter> {
        &self.0.snapshots
    }

    pub(crate) fn events(&self) -> &events::Events {
        &self.0.events
    }

    /// What was counted since the start.
    pub fn metrics(&self) -> &metrics::Metrics {
        &self.0.metrics
    }

    /// Past and coming events.
    pub fn subscribe(&self) -> Subscription {
        self.0.events.subscribe()
    }

    /// Says what happened to something that is not a container.
    pub fn announce(&self, kind: &str, action: &str, id: &str, attributes: api_types::StringMap) {
        self.0.events.emit(kind, action, id, attributes);
    }

    pub(crate) fn network(&self) -> &net::Network {
        &self.0.network
    }

    pub(crate) fn launcher(&self) -> &shim::Launcher {
        &self.0.launcher
    }

    pub(crate) fn registry(&self) -> &registry::Registry {
        &self.0.registry
    }

    pub(crate) fn known_execs(&self) -> &execs::Known {
        &self.0.execs
    }

    pub(crate) fn records(&self) -> &records::Records {
        &self.0.records
    }

    pub(crate) fn volume_keeper(&self) -> &volumes::Keeper {
        &self.0.volumes
    }

    /// Devices of vendors.
    pub fn devices(&self) -> &cdi::Devices {
        &self.0.devices
    }

    /// Finds a container by ID, name, or the beginning of an ID.
    pub fn find(&self, name: &str) -> Result<container::Handle, Refusal> {
        self.0.registry.find(name)
    }

    pub(crate) fn seccomp(&self, record: &Record) -> Result<Option<Arc<[u8]>>, Refusal> {
        self.0.seccomp.filter(record, self.settings().seccomp.as_deref())
    }

    pub(crate) fn seccomp_section(
        &self,
        record: &Record,
    ) -> Result<Option<oci::runtime::LinuxSeccomp>, Refusal> {
        self.0.seccomp.section(record, self.settings().seccomp.as_deref())
    }

    /// The logs that are sent elsewhere.
    pub(crate) fn shipping(&self) -> &shipping::Shipping {
        &self.0.shipping
    }

    /// Runs blocking work that nobody waits for; a clean shutdown does.
    pub(crate) fn in_background(&self, work: impl FnOnce(&Engine) + Send + 'static) {
        let engine = self.clone();
        let token = self.0.background.begin();
        tokio::task::spawn_blocking(move || {
            work(&engine);
            drop(token);
        });
    }

    /// When the daemon's clock says it is.
    pub fn now(&self) -> UnixNanos {
        clock::now()
    }
}
