//! Volumes.

use api_types::volume::VolumeCreate;
use model::{Kind, Refusal};

use crate::App;
use crate::request::Request;
use crate::respond::{Outcome, created, json, no_content};
use crate::versions::Version;

pub fn list(app: &App, request: &Request) -> Outcome {
    json(&app.engine.volumes().list(request.query.text("filters"))?)
}

pub fn inspect(app: &App, name: &str) -> Outcome {
    json(&app.engine.volumes().inspect(name)?)
}

pub async fn create(app: &App, mut request: Request) -> Outcome {
    let body: Option<VolumeCreate> = request.json_if_any().await?;
    let body = body.unwrap_or_default();
    if body.cluster_volume_spec.is_some() {
        return Err(not_in_swarm());
    }
    created(&app.engine.volumes().create(body).await?)
}

pub async fn remove(app: &App, request: &Request, name: &str) -> Outcome {
    app.engine.volumes().remove(name, request.query.flag("force")).await?;
    no_content()
}

/// Only volumes of a swarm can be updated.
pub async fn update(mut request: Request) -> Outcome {
    if request.version < Version::new(1, 42) {
        return Err(Refusal::invalid("PUT /volumes/{name} requires minimum API version 1.42"));
    }
    let _ = request.take_body().await;
    let version = request.query.text("version");
    if version.parse::<u64>().is_err() {
        return Err(Refusal::invalid(format!("invalid version: {version:?} is not a number")));
    }
    Err(not_in_swarm())
}

fn not_in_swarm() -> Refusal {
    Refusal::new(
        Kind::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm \
         and try again.",
    )
}

pub async fn prune(app: &App, request: &Request) -> Outcome {
    // Before 1.42 all volumes went, not only those without a name.
    let all = request.version < Version::new(1, 42);
    json(&app.engine.volumes().prune(request.query.text("filters"), all).await?)
}
