//! Finished answers, changed to what a version of the API had.

use api_types::container::{ContainerCreate, ContainerSummary};
use api_types::events::EventMessage;
use api_types::image::{ImageInspect, ImageSummary};
use api_types::network::Network;
use serde_json::{Map, Value};

use super::Version;
use crate::request::Request;

/// 1.52 dropped what `NetworkSettings` repeats of the bridge's endpoint.
pub fn inspect_container(answer: &mut Value, version: Version) {
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

/// Health came to lists with 1.52.
pub fn container_summary(answer: &mut ContainerSummary, version: Version) {
    if version < Version::new(1, 52) {
        answer.health = None;
    }
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

/// Before 1.44 there was `VirtualSize`; before 1.43 nameless images had the name `<none>`.
pub fn image_summary(answer: &mut ImageSummary, version: Version) {
    if version < Version::new(1, 44) {
        answer.virtual_size = Some(answer.size);
    }
    if version < Version::new(1, 43) {
        if answer.repo_tags.as_ref().is_none_or(Vec::is_empty) {
            answer.repo_tags = Some(vec!["<none>:<none>".into()]);
        }
        if answer.repo_digests.as_ref().is_none_or(Vec::is_empty) {
            answer.repo_digests = Some(vec!["<none>@<none>".into()]);
        }
    }
}

pub fn inspect_image(answer: &mut ImageInspect, version: Version) {
    if version < Version::new(1, 44) {
        answer.virtual_size = Some(answer.size);
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

/// Lists have had no containers since 1.28.
pub fn network_list(answer: &Network) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}
