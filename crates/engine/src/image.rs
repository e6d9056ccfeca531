//! Images as containers see them.

use api_types::ObjectSet;
use api_types::container::{ContainerConfig, HealthConfig};
use model::create::ImageFacts;
use model::{Kind, Refusal};
use oci::Digest;

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

impl Engine {
    /// The image that a create request names, and the chain ID of its topmost layer; blocks.
    pub(crate) fn image_facts(&self, name: &str) -> Result<(ImageFacts, Option<Digest>), Refusal> {
        let image = self.images().resolve(name).map_err(|error| refusal(&error))?;
        let facts = ImageFacts { id: image.id.to_string(), config: api_config(&image.config.config) };
        Ok((facts, image.chain().cloned()))
    }
}
