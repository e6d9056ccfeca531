//! Finished answers, changed to what a version of the API had.

use api_types::container::{ContainerCreate, ContainerSummary, ContainerUpdate};
use api_types::events::EventMessage;
use api_types::stats::ContainerStats;
use api_types::system::{DiskUsage, Usage};
use model::Refusal;
use serde_json::{Map, Value};

use super::Version;
use crate::request::Request;

/// 1.52 dropped what `NetworkSettings` repeats of the bridge's endpoint; the image's manifest came with 1.48.
pub fn inspect_container(answer: &mut Value, version: Version) {
    if version < Version::new(1, 48)
        && let Some(answer) = answer.as_object_mut()
    {
        answer.shift_remove("ImageManifestDescriptor");
    }
    if version >= Version::new(1, 52)
        && let Some(settings) = answer.get_mut("NetworkSettings").and_then(Value::as_object_mut)
    {
        let kept = ["SandboxID", "SandboxKey", "Ports", "Networks"];
        let old = std::mem::take(settings);
        *settings = old.into_iter().filter(|(key, _)| kept.contains(&key.as_str())).collect::<Map<_, _>>();
    }
}

/// Which streams a websocket is for: before 1.42 all, unless the client said otherwise.
pub fn attach_streams(request: &Request) -> [bool; 3] {
    let standard = request.version < Version::new(1, 42);
    ["stdin", "stdout", "stderr"].map(|name| match request.query.has(name) {
        true => request.query.flag(name),
        false => standard,
    })
}

/// Health came to lists with 1.52, the image's manifest with 1.48.
pub fn container_summary(answer: &mut ContainerSummary, version: Version) {
    if version < Version::new(1, 52) {
        answer.health = None;
    }
    if version < Version::new(1, 48) {
        answer.image_manifest_descriptor = None;
    }
}

/// Refuses mounts that a request of that version cannot ask for, and gives the others the meaning that they had.
pub fn container_mounts(request: &mut ContainerCreate, version: Version) -> Result<(), Refusal> {
    let mounts = request.host_config.iter_mut().flat_map(|host| host.mounts.iter_mut().flatten());
    for mount in mounts {
        if version < Version::new(1, 48) && mount.kind == "image" {
            return Err(Refusal::invalid("Mount type \"Image\" needs API v1.48 or newer"));
        }
        let subpath = mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty());
        if version < Version::new(1, 45) && subpath {
            return Err(Refusal::invalid("VolumeOptions.Subpath needs API v1.45 or newer"));
        }
        if version < Version::new(1, 42) {
            // Options of another kind of mount were not looked at.
            mount.bind_options = mount.bind_options.take().filter(|_| mount.kind == "bind");
            mount.volume_options = mount.volume_options.take().filter(|_| mount.kind == "volume");
            mount.tmpfs_options = mount.tmpfs_options.take().filter(|_| mount.kind == "tmpfs");
            if let Some(options) = &mut mount.bind_options {
                options.create_mountpoint = false;
            }
        }
        if version < Version::new(1, 44) && mount.kind == "bind" {
            // What is mounted below a read-only bind was writable then.
            mount.bind_options.get_or_insert_default().read_only_non_recursive = true;
        }
    }
    Ok(())
}

/// What a request could not say then is not heard; what had another default then keeps it.
pub fn container_create(request: &mut ContainerCreate, version: Version) {
    if version < Version::new(1, 44)
        && let Some(health) = &mut request.config.healthcheck
    {
        health.start_interval = 0;
    }
    if version < Version::new(1, 40)
        && let Some(host) = &mut request.host_config
        && host.ipc_mode.is_empty()
    {
        host.ipc_mode = "shareable".into();
    }
}

/// 1.52 dropped the old names of an event's members.
pub fn event(event: &EventMessage, version: Version) -> EventMessage {
    let mut event = event.clone();
    if version < Version::new(1, 52) && matches!(event.kind.as_str(), "container" | "image") {
        event.status = Some(event.action.clone());
        event.id = Some(event.actor.id.clone());
        event.from = event.actor.attributes.get("image").cloned().filter(|_| event.kind == "container");
    }
    event
}

/// 1.52 made one object of each kind, with sums. It still answers the lists of before as well, unless it is asked for
/// the objects' details.
pub fn disk_usage(mut found: DiskUsage, version: Version, verbose: bool) -> Value {
    let new = version >= Version::new(1, 52);
    if !new || !verbose {
        found.layers_size = Some(found.layers_size.unwrap_or(0));
        found.images = Some(items(&mut found.image_usage));
        found.containers = Some(items(&mut found.container_usage));
        found.volumes = Some(items(&mut found.volume_usage));
        found.build_cache = Some(items(&mut found.build_cache_usage));
    } else {
        found.layers_size = None;
    }
    if !new {
        (found.image_usage, found.container_usage) = (None, None);
        (found.volume_usage, found.build_cache_usage) = (None, None);
    }
    let mut answer = serde_json::to_value(&found).unwrap_or_default();
    if version < Version::new(1, 42) {
        answer["BuilderSize"] = 0.into();
    }
    answer
}

/// The old list; null if the kind was not asked for.
fn items<T: serde::Serialize>(usage: &mut Option<Usage<T>>) -> Value {
    match usage {
        Some(usage) => serde_json::to_value(usage.items.take().unwrap_or_default()).unwrap_or_default(),
        None => Value::Null,
    }
}

/// 1.52 says what system the numbers are of.
pub fn stats(answer: &mut ContainerStats, version: Version) {
    if version < Version::new(1, 52) {
        answer.os_type.clear();
    }
}

/// What older versions did not change is left as it is.
pub fn update(request: &mut ContainerUpdate, version: Version) {
    let resources = &mut request.resources;
    if version < Version::new(1, 40) {
        resources.pids_limit = None;
    }
    if version < Version::new(1, 55) {
        resources.blkio_weight_device = None;
        resources.blkio_device_read_bps = None;
        resources.blkio_device_write_bps = None;
        resources.blkio_device_read_iops = None;
        resources.blkio_device_write_iops = None;
    }
}
