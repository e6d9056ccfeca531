//! The verbs of containers, exec, networks and events.
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

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use container::Remembered;
use images::Images;
use metadata::{Batch, Store};
use model::Refusal;
use model::create::Record;
use model::time::UnixNanos;
use shim_protocol::Exit;
use snapshots::Snapshotter;

pub use attach::Past;
pub use bootstrap::Parts;
pub use containers::WaitCondition;
pub use events::Subscription;
pub use image::{
    api_config as image_config, merge as merge_config, refusal as images_refusal, stored_config,
};
pub use list::ListQuery;
pub use paths::Paths;
pub use prune::until as prune_until;
pub use remap::{check_kernel as check_remap, read as read_remap};
pub use runtimes::{ExternalRuntime, Runtimes};
pub use sandbox::cgroup::{Driver as CgroupDriver, is_systemd_running};
pub use system::Facts;

const CONTAINERS: &str = "containers";
const REMEMBERED: &str = "container-states";

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
    store: Store,
    images: Arc<Images>,
    snapshots: Arc<dyn Snapshotter>,
    network: net::Network,
    launcher: shim::Launcher,
    events: events::Events,
    registry: registry::Registry,
    seccomp: seccomp_cache::Cache,
    shipping: shipping::Shipping,
    networks: networks::Networks,
    devices: cdi::Devices,
    volumes: volumes::Volumes,
    meter: usage::Meter,
    execs: Mutex<execs::Execs>,
    /// States to be written with the next lazy commit.
    remembered: Mutex<BTreeMap<String, Remembered>>,
    background: system::Background,
    sampler: stats::Sampler,
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

    pub(crate) fn networks(&self) -> &networks::Networks {
        &self.0.networks
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

    pub(crate) async fn store_record(&self, record: &Record) -> Result<(), Refusal> {
        let bytes =
            serde_json::to_vec(record).map_err(|error| Refusal::from_error("container record", &error))?;
        let batch = Batch::default().put(CONTAINERS, &record.id, bytes);
        self.commit(batch).await
    }

    /// Deletes a container's record, and with it those of the volumes that go with the container: `anonymous`, those
    /// that nobody named and nobody else has.
    pub(crate) async fn delete_record(&self, record: &Arc<Record>, anonymous: bool) -> Result<(), Refusal> {
        failpoint::hit("remove.record")?;
        let (engine, record) = (self.clone(), record.clone());
        blocking(move || {
            let going = engine.volumes().going(&record, anonymous)?;
            engine.lock_remembered().remove(&record.id);
            let batch = Batch::default().delete(CONTAINERS, &record.id).delete(REMEMBERED, &record.id);
            engine
                .0
                .store
                .commit(going.records(batch))
                .map_err(|error| Refusal::from_error("cannot store the record", &error))?;
            let gone = going.done();
            engine.volumes().release(&record);
            gone.keys().for_each(|name| engine.emit_volume("destroy", name, &[]));
            if !gone.is_empty() {
                engine.in_background(move |_| drop(gone));
            }
            Ok(())
        })
        .await
    }

    async fn commit(&self, batch: Batch) -> Result<(), Refusal> {
        let store = self.0.store.clone();
        blocking(move || {
            store.commit(batch).map_err(|error| Refusal::from_error("cannot store the record", &error))
        })
        .await
    }

    fn lock_remembered(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Remembered>> {
        self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a state for the next lazy commit.
    pub(crate) fn remember(&self, id: &str, state: Remembered) {
        self.lock_remembered().insert(id.into(), state);
        self.0.background.wake();
    }

    /// Writes the noted states; blocks.
    pub(crate) fn write_remembered(&self) {
        let noted = std::mem::take(&mut *self.lock_remembered());
        let mut batch = Batch::default();
        let mut ended = Vec::new();
        for (id, state) in noted {
            // A container that is gone leaves nothing: its record was deleted first.
            let Ok(handle) = self.0.registry.find(&id) else { continue };
            let Ok(text) = serde_json::to_vec(&state) else { continue };
            batch = batch.put(REMEMBERED, &id, text);
            if !state.running {
                ended.push(handle);
            }
        }
        match self.0.store.commit(batch) {
            Ok(()) => ended.iter().for_each(|handle| handle.mention(container::Command::Remembered)),
            Err(error) => tracing::error!(%error, "cannot store container states"),
        }
    }

    /// Waits until the noted states are on disk.
    pub(crate) async fn remember_now(&self) {
        let engine = self.clone();
        let _ = tokio::task::spawn_blocking(move || engine.write_remembered()).await;
    }

    /// What the shim left when the container ended without a daemon.
    pub(crate) fn read_exit(&self, id: &str) -> Option<Exit> {
        let bytes = std::fs::read(self.paths().task(id).join(shim_protocol::EXIT_NAME)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn discard_task_directory(&self, id: &str) {
        let _ = std::fs::remove_dir_all(self.paths().task(id));
    }

    /// Drops an exec; `ended` is how it is answered for a while yet, with its container.
    pub(crate) fn forget_exec(&self, exec: &str, ended: Option<(String, container::ExecView)>) {
        let mut execs = self.0.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs.live.remove(exec);
        if let Some(ended) = ended {
            if execs.ended.len() == execs::ENDED_MAX {
                execs.ended.pop_front();
            }
            execs.ended.push_back((exec.into(), ended));
        }
    }

    /// Takes a container's name and ID out of sight.
    pub(crate) fn forget(&self, record: &Record) {
        self.0.registry.remove(&record.id, &record.name);
    }

    /// What a removed container leaves on disk; blocks.
    pub(crate) fn discard_container(&self, record: &Record) {
        self.discard_task_directory(&record.id);
        // With it go layers of an image that was removed while this container used it.
        if let Err(error) = self.0.images.release(&record.id) {
            tracing::warn!(container = %record.id, %error, "cannot remove the container's layer");
        }
        remove_tree(&self.paths().container(&record.id));
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

    pub(crate) fn emit_bridge(&self, action: &str, container: &str) {
        let bridge = self.0.networks.bridge();
        let attributes = [("container", container), ("name", "bridge"), ("type", "bridge")];
        let attributes =
            attributes.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        self.0.events.emit("network", action, &bridge.id, attributes);
    }

    /// How a container's root is put together. `volatile`: its writable layer ends with it.
    pub(crate) fn rootfs(&self, id: &str, volatile: bool) -> Result<shim_protocol::Rootfs, Refusal> {
        let mounts = self
            .0
            .snapshots
            .mounts(id)
            .map_err(|error| Refusal::from_error("cannot find the container's layer", &error))?;
        Ok(match mounts {
            snapshots::Mounts::Overlay { lowers, upper, .. } if lowers.is_empty() => {
                shim_protocol::Rootfs::Directory(upper)
            }
            snapshots::Mounts::Overlay { lowers, upper, work } => {
                shim_protocol::Rootfs::Overlay { lower: lowers, upper, work, volatile }
            }
            snapshots::Mounts::Tree(tree) => shim_protocol::Rootfs::Directory(tree),
        })
    }

    /// When the daemon's clock says it is.
    pub fn now(&self) -> UnixNanos {
        clock::now()
    }
}

fn remove_tree(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a directory");
    }
}
