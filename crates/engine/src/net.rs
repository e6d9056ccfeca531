//! The engine's side of the network: a container's record to an endpoint, and the texts of its files.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use api_types::container::ContainerConfig;
use api_types::network::EndpointSettings;
use ipnet::Ipv4Net;
use model::create::{NetworkChoice, Record};
use model::links::Linked;
use model::ports::{self, Protocol};
use model::{Kind, Refusal};
use network::files::{Hosts, ResolvConf};
use network::{HostPort, PortRequest};
use serde::{Deserialize, Serialize};

use crate::clock;

/// How the default bridge is set up.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    pub bridge_name: String,
    /// The bridge's own address with its prefix; none: the first free of the default pools.
    pub bridge_address: Option<Ipv4Net>,
    pub mtu: Option<u32>,
    pub icc: bool,
    pub masquerade: bool,
    /// What ports are published on if the request names no address.
    pub host_binding: IpAddr,
    /// No bridge at all.
    pub disabled: bool,
    /// Tells the tables and links of several daemons in one network namespace apart; none: the only one.
    pub instance: Option<u32>,
    /// Turn on forwarding where it is off.
    pub forwarding: bool,
    /// Where addresses on the default bridge come from; none: its whole subnet.
    pub fixed_range: Option<Ipv4Net>,
    /// Pools for subnets that nobody named, each with the prefix length of a subnet; empty: the usual ones.
    pub pools: Vec<(Ipv4Net, u8)>,
    pub names: NameService,
}

/// How containers find names that say nothing of it themselves.
#[derive(Debug, Clone, Default)]
pub struct NameService {
    /// Empty: the host's.
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// What `host-gateway` stands for; empty: the bridge's own address.
    pub host_gateways: Vec<IpAddr>,
}

/// A container's place in the bridge network, kept in its run directory while it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint(pub network::Endpoint);

impl Endpoint {
    pub fn publishes(&self) -> bool {
        !self.0.ports.is_empty()
    }
}

pub struct Network {
    pub driver: network::Networks,
    pub network_id: String,
    host_binding: IpAddr,
    dead_links: AtomicBool,
    reaping: Mutex<()>,
}

fn refusal(error: &network::Error) -> Refusal {
    let mut refusal = Refusal::from_error("", error);
    refusal.message = refusal.message.trim_start_matches(": ").to_string();
    refusal
}

impl Network {
    pub fn new(driver: network::Networks, network_id: String, host_binding: IpAddr) -> Network {
        let (dead_links, reaping) = (AtomicBool::new(false), Mutex::default());
        Network { driver, network_id, host_binding, dead_links, reaping }
    }

    /// An address and host ports for a start; nothing in the kernel but the sockets that hold the ports. Blocks.
    pub fn allocate(&self, record: &Record, settings: &EndpointSettings) -> Result<Endpoint, Refusal> {
        let mac = match settings.mac_address.as_str() {
            "" => record.config.mac_address.as_deref().filter(|mac| !mac.is_empty()),
            mac => Some(mac),
        };
        let mac = mac
            .map(|text| {
                text.parse().map_err(|_| {
                    Refusal::invalid(format!("invalid MAC address: address {text}: invalid MAC address"))
                })
            })
            .transpose()?;
        let request = network::EndpointRequest {
            network_id: self.network_id.clone(),
            endpoint_id: clock::new_id(),
            ip: None,
            mac,
        };
        let wanted = port_requests(record, self.host_binding)?;
        let mut endpoint = self.driver.allocate(&request).map_err(|error| refusal(&error))?;
        if wanted.is_empty() {
            return Ok(Endpoint(endpoint));
        }
        match self.driver.reserve_ports(&endpoint, &wanted) {
            Ok(ports) => endpoint.ports = ports,
            Err(error) => {
                self.driver.release(&endpoint);
                let mut refusal = refusal(&error);
                refusal.message = format!(
                    "failed to set up container networking: driver failed programming external connectivity on endpoint \
                     {} ({}): {}",
                    record.name, endpoint.endpoint_id, refusal.message
                );
                refusal.kind = Kind::System;
                return Err(refusal.hint("publish another host port, for example -p 8081:80"));
            }
        }
        Ok(Endpoint(endpoint))
    }

    /// Puts the link into the container and publishes its ports; blocks.
    pub fn connect(&self, endpoint: &Endpoint, inside: OwnedFd, pid: i32) -> Result<(), Refusal> {
        self.driver.connect(&endpoint.0, inside.as_fd(), pid, "eth0").map_err(|error| refusal(&error))
    }

    /// Lets a container call another one, whose configuration this is, at the ports that it exposes, where
    /// containers may not talk to each other; blocks.
    pub fn permit(&self, from: &Endpoint, to: &Endpoint, config: &ContainerConfig) -> Result<(), Refusal> {
        let exposed = ports::exposed(config.exposed_ports.as_ref().unwrap_or(&Default::default()))?;
        let ports: Vec<_> =
            exposed.into_iter().map(|port| (driver_protocol(port.protocol), port.number)).collect();
        self.driver.permit(&from.0, &to.0, &ports).map_err(|error| refusal(&error))
    }

    /// Undoes [`Network::permit`]; blocks.
    pub fn forbid(&self, from: &Endpoint, to: &Endpoint) -> Result<(), Refusal> {
        self.driver.forbid(&from.0, &to.0).map_err(|error| refusal(&error))
    }

    /// Undoes [`Network::allocate`], [`Network::connect`] and [`Network::permit`] but for the dead link, which waits for
    /// [`Network::reap`]; blocks for a fraction of a millisecond.
    pub fn detach(&self, endpoint: &Endpoint) {
        for error in self.driver.detach(std::slice::from_ref(&endpoint.0)) {
            tracing::warn!(endpoint = %endpoint.0.endpoint_id, %error, "cannot release a part of an endpoint");
        }
        self.dead_links.store(true, Ordering::Release);
    }

    /// Deletes dead links; the kernel takes tens of milliseconds for any number of them. Blocks.
    pub fn reap(&self) {
        // One reaps for all that were detached before; who comes meanwhile finds nothing left to do, or does it.
        let _turn = self.reaping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.dead_links.swap(false, Ordering::AcqRel)
            && let Err(error) = self.driver.reap()
        {
            tracing::warn!(%error, "cannot delete links of ended containers");
        }
    }
}

fn driver_protocol(protocol: Protocol) -> network::Protocol {
    match protocol {
        Protocol::Tcp => network::Protocol::Tcp,
        Protocol::Udp => network::Protocol::Udp,
        Protocol::Sctp => network::Protocol::Sctp,
    }
}

pub fn api_protocol(protocol: network::Protocol) -> Protocol {
    match protocol {
        network::Protocol::Tcp => Protocol::Tcp,
        network::Protocol::Udp => Protocol::Udp,
        network::Protocol::Sctp => Protocol::Sctp,
    }
}

/// What `-p` and `-P` ask for.
fn port_requests(record: &Record, host_binding: IpAddr) -> Result<Vec<PortRequest>, Refusal> {
    let default = (!host_binding.is_unspecified()).then_some(host_binding);
    let host = &record.host_config;
    let published = ports::publications(host.port_bindings.as_ref().unwrap_or(&Default::default()))?;
    let mut all: Vec<PortRequest> = published
        .iter()
        .map(|one| PortRequest {
            host_ip: one.host_ip.or(default),
            host_port: match (one.host_from, one.host_to) {
                (0, 0) => HostPort::Any,
                (from, to) if from == to => HostPort::Fixed(from),
                (from, to) => HostPort::Range(from, to),
            },
            container_port: one.port.number,
            protocol: driver_protocol(one.port.protocol),
        })
        .collect();
    if host.publish_all_ports {
        let exposed = ports::exposed(record.config.exposed_ports.as_ref().unwrap_or(&Default::default()))?;
        all.extend(exposed.into_iter().filter(|port| published.iter().all(|one| one.port != *port)).map(
            |port| PortRequest {
                host_ip: default,
                host_port: HostPort::Any,
                container_port: port.number,
                protocol: driver_protocol(port.protocol),
            },
        ));
    }
    Ok(all)
}

pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The text of `/etc/hosts`.
pub fn hosts_text(
    record: &Record,
    name: &str,
    endpoint: Option<&Endpoint>,
    linked: &[Linked],
    names: &NameService,
) -> String {
    let gateway = names
        .host_gateways
        .first()
        .copied()
        .or_else(|| endpoint.and_then(|endpoint| endpoint.0.gateway).map(IpAddr::from));
    let own: Vec<IpAddr> = endpoint.iter().map(|endpoint| endpoint.0.ip.into()).collect();
    let mut extra = extra_hosts(record, gateway);
    extra.extend(linked.iter().map(|linked| (linked.address, linked.names())));
    let extra: Vec<(IpAddr, &str)> = extra.iter().map(|(address, name)| (*address, name.as_str())).collect();
    let hosts =
        Hosts { own: &own, hostname: name, domain: &record.config.domainname, extra: &extra, no_ipv6: false };
    match record.network {
        NetworkChoice::Host => hosts.text_after(&std::fs::read_to_string("/etc/hosts").unwrap_or_default()),
        _ => hosts.text(),
    }
}

/// `--add-host`; `host-gateway` stands for the host's address on the bridge.
fn extra_hosts(record: &Record, gateway: Option<IpAddr>) -> Vec<(IpAddr, String)> {
    let entries = record.host_config.extra_hosts.iter().flatten();
    entries
        .filter_map(|entry| {
            let (name, address) = entry.split_once([':', '='])?;
            let address = match address {
                "host-gateway" => gateway.unwrap_or(IpAddr::from([127, 0, 0, 1])),
                address => address.trim_matches(['[', ']']).parse().ok()?,
            };
            Some((address, name.to_string()))
        })
        .collect()
}

/// The text of `/etc/resolv.conf`.
pub fn resolv_text(record: &Record, names: &NameService) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let text = read("/etc/resolv.conf");
    let mut conf = ResolvConf::parse(&read(network::files::resolv_conf_source(&text)));
    let host = &record.host_config;
    let list = |own: &Option<Vec<String>>, standard: &[String]| match own {
        Some(own) if !own.is_empty() => own.clone(),
        _ => standard.to_vec(),
    };
    let own: Vec<IpAddr> = host.dns.iter().flatten().filter_map(|server| server.parse().ok()).collect();
    let servers = if own.is_empty() { &names.servers } else { &own };
    conf.override_with(
        servers,
        &list(&host.dns_search, &names.search),
        &list(&host.dns_options, &names.options),
    );
    if !matches!(record.network, NetworkChoice::Host) {
        conf.fit_plain_network(false);
    }
    conf.text()
}
