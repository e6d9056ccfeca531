//! Images as containers see them.

use std::collections::BTreeSet;

use api_types::container::{ContainerConfig, GraphDriver, HealthConfig};
use api_types::registry::{Descriptor, Platform as ApiPlatform};
use api_types::{ObjectSet, StringMap};
use images::{Images, StoredImage};
use model::create::ImageFacts;
use model::{Kind, Refusal};
use oci::{Config, Digest, Healthcheck, Platform};
use snapshots::Form;

use crate::Engine;

/// The image config's part that containers inherit, in the API's shape.
pub fn api_config(config: &oci::image::Config) -> ContainerConfig {
    let set = |keys: &std::collections::BTreeSet<String>| -> Option<ObjectSet> {
        (!keys.is_empty()).then(|| keys.iter().map(|key| (key.clone(), Default::default())).collect())
    };
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    ContainerConfig {
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: Some(config.env.clone()),
        cmd: config.cmd.clone(),
        entrypoint: config.entrypoint.clone(),
        healthcheck: config.healthcheck.as_ref().map(|health| HealthConfig {
            test: list(&health.test),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }),
        args_escaped: config.args_escaped,
        volumes: set(&config.volumes),
        working_dir: config.working_dir.clone(),
        labels: (!config.labels.is_empty()).then(|| config.labels.clone()),
        stop_signal: (!config.stop_signal.is_empty()).then(|| config.stop_signal.clone()),
        stop_timeout: config.stop_timeout,
        on_build: list(&config.on_build),
        shell: list(&config.shell),
        ..ContainerConfig::default()
    }
}

/// The part of a container's config that an image has as well: what belongs to one container alone (its name, its
/// terminal) stays behind.
pub fn stored_config(config: &ContainerConfig) -> Config {
    let keys = |set: &Option<ObjectSet>| set.iter().flatten().map(|(key, _)| key.clone()).collect();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    Config {
        user: config.user.clone(),
        exposed_ports: keys(&config.exposed_ports),
        env: list(&config.env),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        healthcheck: config.healthcheck.as_ref().map(|health| Healthcheck {
            test: list(&health.test),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }),
        args_escaped: config.args_escaped,
        volumes: keys(&config.volumes),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone().unwrap_or_default(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
        stop_timeout: config.stop_timeout,
        on_build: list(&config.on_build),
        shell: list(&config.shell),
        ..Config::default()
    }
}

/// Fills what `own` does not say from `other`.
pub fn merge(own: &mut Config, other: &Config) {
    let text = |own: &mut String, other: &String| {
        if own.is_empty() {
            own.clone_from(other);
        }
    };
    text(&mut own.user, &other.user);
    text(&mut own.working_dir, &other.working_dir);
    text(&mut own.stop_signal, &other.stop_signal);
    own.exposed_ports.extend(other.exposed_ports.iter().cloned());
    own.volumes.extend(other.volumes.iter().cloned());
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let known: BTreeSet<String> = own.env.iter().map(|variable| name(variable)).collect();
    own.env.extend(other.env.iter().filter(|variable| !known.contains(&name(variable))).cloned());
    for (key, value) in &other.labels {
        own.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if own.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if own.cmd.as_ref().is_none_or(Vec::is_empty) {
            own.cmd.clone_from(&other.cmd);
            own.args_escaped = other.args_escaped;
        }
        if own.entrypoint.is_none() {
            own.entrypoint.clone_from(&other.entrypoint);
        }
    }
    match (&mut own.healthcheck, &other.healthcheck) {
        (Some(own), Some(other)) => merge_health(own, other),
        (own @ None, other) => own.clone_from(other),
        (Some(_), None) => {}
    }
    own.stop_timeout = own.stop_timeout.or(other.stop_timeout);
    for (own, other) in [(&mut own.on_build, &other.on_build), (&mut own.shell, &other.shell)] {
        if own.is_empty() {
            own.clone_from(other);
        }
    }
}

fn merge_health(own: &mut Healthcheck, other: &Healthcheck) {
    if own.test.is_empty() {
        own.test.clone_from(&other.test);
    }
    for (own, other) in [
        (&mut own.interval, other.interval),
        (&mut own.timeout, other.timeout),
        (&mut own.start_period, other.start_period),
        (&mut own.start_interval, other.start_interval),
        (&mut own.retries, other.retries),
    ] {
        if *own == 0 {
            *own = other;
        }
    }
}

/// A descriptor in the API's shape.
pub fn api_descriptor(from: oci::Descriptor) -> Descriptor {
    Descriptor {
        media_type: from.media_type,
        digest: from.digest.to_string(),
        size: i64::try_from(from.size).unwrap_or(i64::MAX),
        urls: from.urls,
        annotations: from.annotations,
        platform: from.platform.map(api_platform),
        artifact_type: from.artifact_type,
    }
}

/// A platform in the API's shape.
pub fn api_platform(from: Platform) -> ApiPlatform {
    ApiPlatform {
        architecture: from.architecture,
        os: from.os,
        os_version: from.os_version,
        os_features: from.os_features,
        variant: from.variant,
    }
}

/// What a use case of images says, as the engine says it.
pub fn refusal(error: &images::Error) -> Refusal {
    let kind = match error.kind() {
        images::Kind::NotFound => Kind::NotFound,
        images::Kind::Conflict => Kind::Conflict,
        images::Kind::Invalid => Kind::Invalid,
        images::Kind::NotImplemented => Kind::NotImplemented,
        images::Kind::System => Kind::System,
    };
    let mut refusal = Refusal::from_error("", error);
    refusal.message = refusal.message.trim_start_matches(": ").to_string();
    refusal.kind = kind;
    refusal
}

/// The image that a create request names, for its platform, and the chain ID of its topmost layer; blocks.
pub fn facts(images: &Images, name: &str, platform: &str) -> Result<(ImageFacts, Option<Digest>), Refusal> {
    let platform = match platform {
        "" => None,
        text => Some(Platform::parse(text).map_err(|error| Refusal::invalid(error.to_string()))?),
    };
    let found = images.find(name, platform.as_ref()).map_err(|error| refusal(&error))?;
    let image = &found.image;
    images.layers().unpack_missing(image).map_err(|error| refusal(&error))?;
    let facts = ImageFacts {
        id: image.id.to_string(),
        manifest: Some(images.catalog().manifest_of(&found)),
        config: api_config(&image.config.config),
    };
    Ok((facts, image.chain().cloned()))
}

impl Engine {
    /// Where the topmost files of an image are, if its layers have places of their own.
    pub fn graph_of_image(&self, image: &StoredImage) -> GraphDriver {
        let snapshots = self.snapshots();
        let layer = image.chain().and_then(|chain| snapshots.layer(chain));
        let layer = layer.filter(|_| snapshots.form() == Form::Difference);
        let data = layer.map(|layer| {
            StringMap::from([("UpperDir".to_string(), layer.directory.to_string_lossy().into_owned())])
        });
        GraphDriver { name: snapshots.driver().into(), data }
    }
}
