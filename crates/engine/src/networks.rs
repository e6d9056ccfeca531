//! The predefined networks: `bridge`, `host` and `none`.

use std::collections::BTreeMap;

use api_types::network::{EndpointResource, Ipam, IpamConfig, Network as ApiNetwork};
use ipnet::Ipv4Net;
use metadata::{Batch, Store};
use model::filter::Filters;
use model::time::{UnixNanos, rfc3339_nano};
use model::{Kind, Refusal};
use serde::{Deserialize, Serialize};

use crate::{Engine, clock};

const TABLE: &str = "networks";

/// A network as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkRecord {
    pub id: String,
    pub name: String,
    pub driver: String,
    pub created: UnixNanos,
    /// Of the bridge.
    pub subnet: Option<Ipv4Net>,
    pub gateway: Option<std::net::Ipv4Addr>,
}

#[derive(Debug)]
pub struct Predefined {
    records: Vec<NetworkRecord>,
}

impl Predefined {
    /// Reads the predefined networks, or makes their records. `subnet` chooses the bridge's, given the stored one.
    pub fn open(
        store: &Store,
        subnet: impl Fn(Option<Ipv4Net>) -> Result<(Ipv4Net, std::net::Ipv4Addr), Refusal>,
    ) -> Result<Predefined, Refusal> {
        let mut records = Vec::new();
        for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            let stored =
                store.get(TABLE, name).and_then(|bytes| serde_json::from_slice::<NetworkRecord>(&bytes).ok());
            let mut record = stored.clone().unwrap_or_else(|| NetworkRecord {
                id: clock::new_id(),
                name: name.into(),
                driver: driver.into(),
                created: clock::now(),
                subnet: None,
                gateway: None,
            });
            if name == "bridge" {
                let (subnet, gateway) = subnet(record.subnet)?;
                (record.subnet, record.gateway) = (Some(subnet), Some(gateway));
            }
            let bytes =
                serde_json::to_vec(&record).map_err(|error| Refusal::from_error("network record", &error))?;
            if store.get(TABLE, name).as_deref() != Some(&bytes) {
                store
                    .commit(Batch::default().put(TABLE, name, bytes))
                    .map_err(|error| Refusal::from_error("cannot store the network", &error))?;
            }
            records.push(record);
        }
        Ok(Predefined { records })
    }

    pub fn bridge(&self) -> &NetworkRecord {
        &self.records[0]
    }

    pub fn by_name(&self, name: &str) -> Option<&NetworkRecord> {
        self.records.iter().find(|record| record.name == name)
    }
}

/// The use cases of networks.
#[derive(Clone)]
pub struct Networks(pub(crate) Engine);

impl Networks {
    pub(crate) fn predefined(&self) -> &Predefined {
        &self.0.0.networks
    }

    /// Tells of a container that comes to the bridge or leaves it.
    pub(crate) fn emit_bridge(&self, action: &str, container: &str) {
        let bridge = self.predefined().bridge();
        let attributes = [("container", container), ("name", "bridge"), ("type", "bridge")];
        let attributes =
            attributes.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        self.0.events().emit("network", action, &bridge.id, attributes);
    }

    fn api_network(&self, record: &NetworkRecord, containers: bool) -> ApiNetwork {
        let mut options = BTreeMap::new();
        let network = &self.0.options().network;
        if record.name == "bridge" {
            let flag = |value: bool| value.to_string();
            options.insert("com.docker.network.bridge.default_bridge".into(), "true".into());
            options.insert("com.docker.network.bridge.enable_icc".into(), flag(network.icc));
            options.insert("com.docker.network.bridge.enable_ip_masquerade".into(), flag(network.masquerade));
            options.insert(
                "com.docker.network.bridge.host_binding_ipv4".into(),
                network.host_binding.to_string(),
            );
            options.insert("com.docker.network.bridge.name".into(), network.bridge_name.clone());
            options.insert("com.docker.network.driver.mtu".into(), network.mtu.unwrap_or(1500).to_string());
        }
        let config = record.subnet.map(|subnet| {
            vec![IpamConfig {
                subnet: subnet.to_string(),
                gateway: record.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
                ..IpamConfig::default()
            }]
        });
        ApiNetwork {
            name: record.name.clone(),
            id: record.id.clone(),
            created: rfc3339_nano(record.created),
            scope: "local".into(),
            driver: record.driver.clone(),
            enable_ipv4: true,
            ipam: Ipam { driver: "default".into(), options: None, config },
            containers: if containers { self.endpoints(record) } else { BTreeMap::new() },
            options,
            ..ApiNetwork::default()
        }
    }

    /// The running containers of a network, by ID.
    fn endpoints(&self, record: &NetworkRecord) -> BTreeMap<String, EndpointResource> {
        let views = self.0.registry().all().into_iter().map(|handle| handle.view());
        let running = views.filter(|view| view.phase.is_running());
        running
            .filter_map(|view| {
                let mut resource =
                    EndpointResource { name: view.name().into(), ..EndpointResource::default() };
                match (&view.endpoint, view.record.host_config.network_mode.as_str()) {
                    (Some(endpoint), _) if record.name == "bridge" => {
                        resource.endpoint_id = endpoint.0.endpoint_id.clone();
                        resource.mac_address = endpoint.0.mac.to_string();
                        resource.ipv4_address = format!("{}/{}", endpoint.0.ip, endpoint.0.prefix_len);
                    }
                    (None, mode) if mode == record.name => {}
                    _ => return None,
                }
                Some((view.id().to_string(), resource))
            })
            .collect()
    }

    pub fn list(&self, filters: &str) -> Result<Vec<ApiNetwork>, Refusal> {
        let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
        let filters = Filters::parse(filters, &known)?;
        let dangling = filters.flag("dangling")?;
        for kind in filters.values("type") {
            if !matches!(kind, "builtin" | "custom") {
                return Err(Refusal::invalid(format!("invalid filter: 'type'='{kind}'")));
            }
        }
        let fits = |record: &&NetworkRecord| {
            filters.any("driver", |driver| record.driver == driver)
                && filters.any("id", |id| record.id.starts_with(id))
                && filters.any("name", |name| record.name.contains(name))
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |kind| kind == "builtin")
                && filters.labels(&BTreeMap::new())
                // The predefined networks are never dangling.
                && dangling != Some(true)
        };
        Ok(self
            .predefined()
            .records
            .iter()
            .filter(fits)
            .map(|record| self.api_network(record, false))
            .collect())
    }

    pub fn inspect(&self, name: &str) -> Result<ApiNetwork, Refusal> {
        let records = &self.predefined().records;
        let found =
            self.predefined().by_name(name).or_else(|| records.iter().find(|record| record.id == name));
        let found = found.or_else(|| {
            let mut matching =
                records.iter().filter(|record| !name.is_empty() && record.id.starts_with(name));
            matching.next().filter(|_| matching.next().is_none())
        });
        let record = found.ok_or_else(|| Refusal::not_found(format!("network {name} not found")))?;
        Ok(self.api_network(record, true))
    }

    /// Networks that no container uses; the predefined ones stay, so that there is nothing to remove.
    pub fn prune(&self, filters: &str) -> Result<Vec<String>, Refusal> {
        let filters = Filters::parse(filters, &["label", "label!", "until"])?;
        crate::prune_until(&filters, clock::now())?;
        self.0.announce("network", "prune", "", [("reclaimed".to_string(), "0".to_string())].into());
        Ok(Vec::new())
    }

    /// The predefined networks stay.
    pub fn remove(&self, name: &str) -> Result<(), Refusal> {
        let network = self.inspect(name)?;
        Err(Refusal::new(
            Kind::Forbidden,
            format!("{} is a pre-defined network and cannot be removed", network.name),
        ))
    }
}
