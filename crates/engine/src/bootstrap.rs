//! Starting the engine: open the parts, bring back what was there, sweep what nobody owns.

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use images::Images;
use ipnet::Ipv4Net;
use metadata::{Batch, Store};
use model::Refusal;
use model::create::HostFacts;
use model::security::SecurityFacts;
use snapshots::{Form, Snapshotter};

use crate::cdi::Devices;
use crate::container::{Task, links};
use crate::net::Endpoint;
use crate::networks::{NetworkRecord, Predefined};
use crate::paths::{ENDPOINT_NAME, remove_tree};
use crate::records::Records;
use crate::settings::Current;
use crate::shim::{Launcher, Shim};
use crate::volumes::Keeper;
use crate::{
    CgroupDriver, Engine, Inner, NetworkOptions, Options, apparmor, autostart, blocking, clock, host, net,
    records, registry, seccomp_cache, selinux,
};

/// Where devices are described unless the daemon is told otherwise.
const CDI_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The parts that the daemon opens and others use as well.
pub struct Parts {
    pub store: Store,
    pub images: Arc<Images>,
    pub snapshots: Arc<dyn Snapshotter>,
}

impl Engine {
    /// Opens the engine, and adopts the containers that run.
    pub async fn open(options: Options, parts: Parts) -> Result<Engine, Refusal> {
        let engine = blocking(move || open_blocking(options, parts)).await?;
        records::spawn_lazy_writer(&engine);
        let tasks = task_directories(&engine);
        let mut due = Vec::new();
        for (record, remembered) in engine.records().all() {
            let has_task = tasks.contains(&record.id);
            due.push(engine.containers().restore(record, remembered, has_task).await);
        }
        let sweeping = engine.clone();
        blocking(move || {
            links::permit_all(&sweeping);
            sweep(&sweeping);
            sweeping.launcher().refill();
            Ok(())
        })
        .await?;
        autostart::catch_up(&engine, due);
        Ok(engine)
    }
}

/// IDs of the containers that had a task when the last daemon ended.
fn task_directories(engine: &Engine) -> HashSet<String> {
    let entries = std::fs::read_dir(engine.paths().tasks()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Finds out what became of a container's task, which has a directory.
pub async fn adopt(engine: &Engine, task: &mut Task, id: &str) {
    let directory = engine.paths().task(id);
    let endpoint = read_endpoint(&directory);
    let socket = directory.join(shim_protocol::SOCKET_NAME);
    if let Ok(shim) = Shim::connect(&socket, task.link.next()) {
        if let Some(endpoint) = &endpoint {
            for error in engine.network().driver.adopt(std::slice::from_ref(&endpoint.0)) {
                tracing::warn!(container = %id, %error, "cannot take up a part of its network");
            }
        }
        match task.adopt(shim, endpoint.clone()).await {
            Ok(()) => return,
            Err(error) => tracing::info!(container = %id, %error, "its task was not taken up"),
        }
    }
    if let Some(exit) = engine.paths().read_exit(id) {
        task.ended_unseen(exit);
    }
    if let Some(endpoint) = endpoint {
        engine.network().detach(&endpoint);
    }
}

/// Removes what a crash left: run directories, layers, directories and links without a container.
fn sweep(engine: &Engine) {
    for directory in [engine.paths().tasks(), engine.paths().containers()] {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !engine.registry().contains(&name) {
                sweep_task(engine, &entry.path());
                remove_tree(&entry.path());
            }
        }
    }
    for container in engine.snapshots().containers() {
        // Other users of the snapshotter name theirs differently.
        let ours = container.len() == 64 && container.bytes().all(|byte| byte.is_ascii_hexdigit());
        if ours && !engine.registry().contains(&container) {
            let _ = engine.images().release(&container);
        }
    }
    let views = engine.registry().all().into_iter().map(|handle| handle.view());
    let live: Vec<network::Endpoint> =
        views.filter_map(|view| Some(view.endpoint.as_ref()?.0.clone())).collect();
    engine.volume_keeper().sweep();
    engine.network().reap();
    let swept = engine.network().driver.sweep(&live);
    for error in swept.errors {
        tracing::warn!(%error, "cannot sweep the network");
    }
}

/// A task of a container that was never recorded or is removed: end it.
fn sweep_task(engine: &Engine, directory: &Path) {
    if let Some(endpoint) = read_endpoint(directory) {
        engine.network().detach(&endpoint);
    }
    let socket = directory.join(shim_protocol::SOCKET_NAME);
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) else { return };
    let request = shim_protocol::Request { seq: 1, command: shim_protocol::Command::Discard };
    if let Ok(frame) = shim_protocol::encode(&request, &[]) {
        use std::io::{Read, Write};
        let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(5)));
        let _ = stream.write_all(&frame);
        // Answered, or closed, when it is gone.
        let _ = stream.read(&mut [0; 64]);
    }
}

fn read_endpoint(directory: &Path) -> Option<Endpoint> {
    serde_json::from_slice(&std::fs::read(directory.join(ENDPOINT_NAME)).ok()?).ok()
}

fn open_blocking(options: Options, parts: Parts) -> Result<Engine, Refusal> {
    let Parts { store, images, snapshots } = parts;
    for directory in [options.paths.containers(), options.paths.tasks()] {
        // Closed to others: what containers hold is theirs (CVE-2021-41091).
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| Refusal::from_error(&format!("cannot make {}", directory.display()), &error))?;
    }
    let launcher = Launcher::open(&options.shim).map_err(|error| {
        Refusal::from_error(&format!("cannot load the shim {}", options.shim.display()), &error)
    })?;
    let (network, networks) = open_network(&options.network, &store)?;
    let isolation = &options.isolation;
    let devices = Devices::new(match isolation.cdi_directories.as_slice() {
        [] => CDI_DIRECTORIES.iter().map(Into::into).collect(),
        given => given.to_vec(),
    });
    let facts = HostFacts {
        cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
        cgroup_v2: host::cgroup_v2(),
        cgroup_systemd: options.cgroup_driver == CgroupDriver::Systemd,
        controllers: host::controllers(),
        memory: host::memory_total(),
        cgroup_parent: options.cgroup_parent.clone(),
        security: SecurityFacts {
            apparmor: apparmor::prepare(),
            selinux: selinux::prepare(options.isolation.selinux, &options.paths.snapshots()),
        },
        remap: options.isolation.remap.clone(),
        layer_quota: snapshots.form() == Form::Difference && host::project_quota(&options.paths.data),
        ..HostFacts::default()
    };
    let current = Current::new(options.settings.clone(), facts);
    let release = rustix::system::uname();
    let kernel = seccomp::Kernel::parse(&release.release().to_string_lossy())
        .unwrap_or(seccomp::Kernel { major: 5, minor: 12 });
    let id = daemon_id(&store)?;
    let volumes = Keeper::open(&options.paths.volumes(), &store)?;
    Ok(Engine(Arc::new(Inner {
        options,
        id,
        current,
        metrics: Default::default(),
        records: Records::new(store),
        images,
        snapshots,
        network,
        launcher,
        events: Default::default(),
        registry: registry::Registry::default(),
        seccomp: seccomp_cache::Cache::new(kernel),
        shipping: Default::default(),
        networks,
        devices,
        volumes,
        meter: Default::default(),
        execs: Default::default(),
        background: Default::default(),
        sampler: Default::default(),
    })))
}

/// A lasting name of this daemon, made at its first start.
fn daemon_id(store: &Store) -> Result<String, Refusal> {
    if let Some(bytes) = store.get("daemon", "id") {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    let id = clock::new_id();
    let uuid = format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..32]);
    store
        .commit(Batch::default().put("daemon", "id", uuid.clone().into_bytes()))
        .map_err(|error| Refusal::from_error("cannot store the daemon's ID", &error))?;
    Ok(uuid)
}

fn open_network(options: &NetworkOptions, store: &Store) -> Result<(net::Network, Predefined), Refusal> {
    let failed = |error: network::Error| Refusal::from_error("cannot set up the network", &error);
    let driver = network::Networks::open(driver_options(options)).map_err(failed)?;
    let networks = Predefined::open(store, |stored| {
        if let Some(given) = options.bridge_address {
            return Ok((given.trunc(), given.addr()));
        }
        let subnet = match stored {
            Some(stored) => stored,
            None => driver.choose_subnet(&[]).map_err(failed)?,
        };
        Ok((subnet, first_address(subnet)))
    })?;
    if !options.disabled {
        driver.ensure_bridge(&bridge_spec(options, networks.bridge())).map_err(failed)?;
    }
    let network_id = networks.bridge().id.clone();
    Ok((net::Network::new(driver, network_id, options.host_binding), networks))
}

fn driver_options(options: &NetworkOptions) -> network::Options {
    let standard = network::Options::default();
    network::Options {
        table: match options.instance {
            None => standard.table,
            Some(instance) => format!("{}-{instance:08x}", standard.table),
        },
        link_group: options.instance.map_or(standard.link_group, network::link_group),
        enable_forwarding: options.forwarding,
        pools: options.pools.clone(),
        ..standard
    }
}

fn first_address(subnet: Ipv4Net) -> std::net::Ipv4Addr {
    subnet.hosts().next().unwrap_or(subnet.addr())
}

fn bridge_spec(options: &NetworkOptions, record: &NetworkRecord) -> network::BridgeSpec {
    let spec =
        network::BridgeSpec::new(&*record.id, &*options.bridge_name, record.subnet.unwrap_or_default());
    network::BridgeSpec {
        gateway: record.gateway,
        mtu: options.mtu,
        masquerade: options.masquerade,
        icc: options.icc,
        host_binding_ip: Some(options.host_binding),
        ip_range: options.fixed_range,
        ..spec
    }
}
