//! `GET /system/df`.

use api_types::container::ContainerSummary;
use api_types::image::ImageSummary;
use api_types::system::{DiskUsage, Usage};
use api_types::volume::Volume;
use model::Refusal;
use model::filter::Filters;

use super::images;
use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, json};
use crate::versions::{self, Version};

/// The kinds of objects that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kinds {
    images: bool,
    containers: bool,
    volumes: bool,
    build_cache: bool,
}

impl Kinds {
    fn of(request: &Request) -> Result<Kinds, Refusal> {
        let names = match request.version < Version::new(1, 42) {
            true => Vec::new(),
            false => request.query.all("type"),
        };
        let asked = |name: &str| names.is_empty() || names.iter().any(|one| one == name);
        if let Some(odd) = names
            .iter()
            .find(|name| !["container", "image", "volume", "build-cache"].contains(&name.as_str()))
        {
            return Err(Refusal::invalid(format!("unknown object type: {odd}")));
        }
        Ok(Kinds {
            images: asked("image"),
            containers: asked("container"),
            volumes: asked("volume"),
            build_cache: asked("build-cache"),
        })
    }
}

pub async fn df(app: &App, request: &Request) -> Outcome {
    let kinds = Kinds::of(request)?;
    let version = request.version;
    let mut found = DiskUsage::default();
    if kinds.containers {
        let mut containers = app.engine.usage().containers().await?.to_vec();
        containers.iter_mut().for_each(|one| versions::container_summary(one, version));
        found.container_usage = Some(of_containers(containers));
    }
    if kinds.images {
        let (layers, images) = images::usage(app, version).await?;
        found.layers_size = Some(layers);
        found.image_usage = Some(of_images(layers, images));
    }
    if kinds.volumes {
        found.volume_usage = Some(of_volumes(app.engine.usage().volumes().await?.to_vec()));
    }
    if kinds.build_cache {
        // What the classic builder keeps is images.
        found.build_cache_usage = Some(Usage::default());
    }
    json(&versions::disk_usage(found, version, request.query.flag("verbose")))
}

/// `POST /build/prune`: what the classic builder keeps is images, so that there is no cache to prune.
pub fn prune_build_cache(app: &App, request: &Request) -> Outcome {
    const KEYS: [&str; 11] = [
        "description",
        "id",
        "inuse",
        "label",
        "label!",
        "parent",
        "private",
        "shared",
        "type",
        "unused-for",
        "until",
    ];
    let filters = Filters::parse(request.query.text("filters"), &KEYS)?;
    engine::prune_until(&filters, app.engine.now())?;
    for key in ["reserved-space", "max-used-space", "min-free-space", "keep-storage"] {
        request.query.number(key)?;
    }
    app.engine.announce("builder", "prune", "", [("reclaimed".to_string(), "0".to_string())].into());
    json(&serde_json::json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
}

fn of_containers(items: Vec<ContainerSummary>) -> Usage<ContainerSummary> {
    let active = |one: &&ContainerSummary| matches!(one.state.as_str(), "running" | "paused" | "restarting");
    let size = |one: &ContainerSummary| one.size_rw.unwrap_or(0);
    let total: i64 = items.iter().map(size).sum();
    let kept: i64 = items.iter().filter(active).map(size).sum();
    Usage {
        active_count: items.iter().filter(active).count() as i64,
        total_count: items.len() as i64,
        reclaimable: total - kept,
        total_size: total,
        items: Some(items),
    }
}

fn of_images(layers: i64, items: Vec<ImageSummary>) -> Usage<ImageSummary> {
    let used = |one: &&ImageSummary| one.containers > 0;
    let kept: i64 = items.iter().filter(used).map(|one| one.size - one.shared_size.max(0)).sum();
    Usage {
        active_count: items.iter().filter(used).count() as i64,
        total_count: items.len() as i64,
        reclaimable: layers - kept,
        total_size: layers,
        items: Some(items),
    }
}

fn of_volumes(items: Vec<Volume>) -> Usage<Volume> {
    let data = |one: &Volume| one.usage_data.clone().unwrap_or_default();
    let used = |one: &&Volume| data(one).ref_count > 0;
    let total: i64 = items.iter().map(|one| data(one).size.max(0)).sum();
    let kept: i64 = items.iter().filter(used).map(|one| data(one).size.max(0)).sum();
    Usage {
        active_count: items.iter().filter(used).count() as i64,
        total_count: items.len() as i64,
        reclaimable: total - kept,
        total_size: total,
        items: Some(items),
    }
}
