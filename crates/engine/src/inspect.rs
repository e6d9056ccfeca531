//! A container's view as inspect answers it.

use std::collections::BTreeMap;

use api_types::StringMap;
use api_types::container::{
    ContainerInspect, ContainerState, GraphDriver, HostConfig, NetworkSettings, PortBinding, PortMap,
};
use api_types::network::EndpointSettings;
use model::create::{NetworkChoice, Record};
use model::health::Health;
use model::links::Link;
use model::time::rfc3339_nano;
use model::{Refusal, ports};

use crate::container::View;
use crate::{Containers, blocking, image};

impl Containers {
    pub async fn inspect(&self, name: &str, size: bool) -> Result<ContainerInspect, Refusal> {
        let view = self.0.find(name)?.view();
        let mut answer = self.inspect_view(&view);
        if size {
            let (containers, id) = (self.clone(), view.id().to_string());
            let (rw, root) = blocking(move || Ok(containers.sizes(&id))).await?;
            (answer.size_rw, answer.size_root_fs) = (Some(rw), Some(root));
        }
        Ok(answer)
    }

    /// Bytes of the writable layer, and of the whole root; blocks.
    pub(crate) fn sizes(&self, id: &str) -> (i64, i64) {
        let rw = self.0.snapshots().usage(id).map_or(0, |usage| usage.bytes);
        let mut total = rw;
        let mut next = self.0.snapshots().top(id).ok().flatten();
        while let Some(layer) = next.and_then(|chain| self.0.snapshots().layer(&chain)) {
            total += layer.bytes;
            next = layer.parent;
        }
        (i64::try_from(rw).unwrap_or(i64::MAX), i64::try_from(total).unwrap_or(i64::MAX))
    }

    fn inspect_view(&self, view: &View) -> ContainerInspect {
        let record = &view.record;
        let command = record.command();
        let file = |name: &str| self.0.paths().file(view.id(), name).to_string_lossy().into_owned();
        let exec_ids: Vec<String> =
            view.execs.iter().filter(|(_, exec)| exec.running()).map(|(id, _)| id.clone()).collect();
        ContainerInspect {
            id: record.id.clone(),
            created: rfc3339_nano(record.created),
            path: command.first().cloned().unwrap_or_default(),
            args: command.get(1..).unwrap_or_default().to_vec(),
            state: ContainerState { health: view.health.as_ref().map(Health::api), ..view.phase.state() },
            image: record.image_id.clone(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: match record.host_config.log_config.driver.as_str() {
                "json-file" => self.0.paths().log(&record.id).to_string_lossy().into_owned(),
                _ => String::new(),
            },
            name: format!("/{}", record.name),
            restart_count: view.restart_count.into(),
            driver: self.0.snapshots().driver().into(),
            platform: "linux".into(),
            image_manifest_descriptor: record.image_manifest.clone().map(image::api_descriptor),
            app_armor_profile: record.labels.apparmor.clone(),
            process_label: record.labels.process.clone(),
            mount_label: record.labels.mount.clone(),
            exec_ids: (!exec_ids.is_empty()).then_some(exec_ids),
            host_config: HostConfig {
                links: self.answered_links(record),
                ..answered_host_config(&record.host_config)
            },
            graph_driver: GraphDriver {
                name: self.0.snapshots().driver().into(),
                data: self.graph_data(view.id()),
            },
            mounts: self.0.volumes().mount_points(record),
            config: record.config.clone(),
            network_settings: self.network_settings(view),
            ..ContainerInspect::default()
        }
    }

    /// As they can be given to a create again.
    fn answered_links(&self, record: &Record) -> Option<Vec<String>> {
        let name = |link: &Link| {
            let view = self.0.find(&link.container).ok().map(|handle| handle.view());
            view.map_or_else(|| link.name.clone(), |view| view.name().to_string())
        };
        let text = |link: &Link| format!("/{}:/{}/{}", name(link), record.name, link.alias);
        (!record.links.is_empty()).then(|| record.links.iter().map(text).collect())
    }

    fn graph_data(&self, id: &str) -> Option<StringMap> {
        let snapshots::Mounts::Overlay { lowers, upper, work } = self.0.snapshots().mounts(id).ok()? else {
            return None;
        };
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let lowers: Vec<String> = lowers.iter().map(|path| text(path)).collect();
        let pairs = [("LowerDir", lowers.join(":")), ("UpperDir", text(&upper)), ("WorkDir", text(&work))];
        Some(pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
    }

    pub(crate) fn network_settings(&self, view: &View) -> NetworkSettings {
        let networks = self.endpoint_settings(view);
        let mut settings = NetworkSettings { ports: port_map(view), ..NetworkSettings::default() };
        if let Some(pid) = view.phase.pid() {
            settings.sandbox_id = view.id().into();
            settings.sandbox_key = format!("/proc/{pid}/ns/net");
        }
        if let Some(bridge) = networks.get("bridge") {
            settings.endpoint_id = bridge.endpoint_id.clone();
            settings.gateway = bridge.gateway.clone();
            settings.ip_address = bridge.ip_address.clone();
            settings.ip_prefix_len = bridge.ip_prefix_len;
            settings.mac_address = bridge.mac_address.clone();
        }
        settings.networks = networks;
        settings
    }

    pub(crate) fn endpoint_settings(&self, view: &View) -> BTreeMap<String, EndpointSettings> {
        let (name, mut settings) = match &view.record.network {
            NetworkChoice::Bridge(settings) => ("bridge", (**settings).clone()),
            NetworkChoice::Host => ("host", EndpointSettings::default()),
            NetworkChoice::None => ("none", EndpointSettings::default()),
            NetworkChoice::Container(_) => return BTreeMap::new(),
        };
        if let Some(network) = self.0.networks().predefined().by_name(name) {
            settings.network_id = network.id.clone();
        }
        if let Some(endpoint) = &view.endpoint {
            let endpoint = &endpoint.0;
            settings.endpoint_id = endpoint.endpoint_id.clone();
            settings.gateway = endpoint.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
            settings.ip_address = endpoint.ip.to_string();
            settings.ip_prefix_len = endpoint.prefix_len.into();
            settings.mac_address = endpoint.mac.to_string();
        }
        BTreeMap::from([(name.to_string(), settings)])
    }
}

/// Fields that Docker answers as empty lists or objects rather than null.
fn answered_host_config(host: &HostConfig) -> HostConfig {
    let mut host = host.clone();
    host.port_bindings.get_or_insert_default();
    if host.runtime.is_empty() {
        host.runtime = crate::runtimes::USUAL.into();
    }
    if host.masked_paths.is_none() && !host.privileged {
        host.masked_paths = Some(model::spec::MASKED_PATHS.iter().map(|path| path.to_string()).collect());
    }
    if host.readonly_paths.is_none() && !host.privileged {
        host.readonly_paths = Some(model::spec::READONLY_PATHS.iter().map(|path| path.to_string()).collect());
    }
    host
}

/// Exposed and published ports of a running container; those of one that does not run are not there.
fn port_map(view: &View) -> PortMap {
    let mut map = PortMap::new();
    if !view.phase.is_running() {
        return map;
    }
    let exposed = ports::exposed(view.record.config.exposed_ports.as_ref().unwrap_or(&Default::default()));
    for port in exposed.unwrap_or_default() {
        map.insert(port.to_string(), None);
    }
    for published in view.endpoint.iter().flat_map(|endpoint| &endpoint.0.ports) {
        let key =
            format!("{}/{}", published.container_port, crate::net::api_protocol(published.protocol).name());
        map.entry(key).or_default().get_or_insert_default().push(PortBinding {
            host_ip: published.host_ip.to_string(),
            host_port: published.host_port.to_string(),
        });
    }
    map
}
