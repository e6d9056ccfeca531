//! What the engine says to this crate, and what it gets back and keeps.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::mac::MacAddr;
use crate::ports::{Protocol, PublishedPort};

/// Name of the default network's bridge.
pub const DEFAULT_BRIDGE_NAME: &str = "corten0";

/// Settings of the driver as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name of the nftables table (family `ip`) that belongs to us alone.
    pub table: String,
    /// Link group that marks our links. Two daemons in one network namespace need different tables and
    /// groups; the next higher number is used as well.
    pub link_group: u32,
    /// Where subnets come from that nobody named, each with the prefix length to cut; empty: Docker's.
    pub pools: Vec<(Ipv4Net, u8)>,
    /// Turn on IPv4 forwarding when the first bridge is made.
    pub enable_forwarding: bool,
    /// If we are the one to turn forwarding on, let it serve our bridges only: what would be forwarded
    /// between other links stays dropped, as it was before.
    pub keep_other_forwarding_off: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            table: "corten".to_owned(),
            link_group: u32::from_be_bytes(*b"cort"),
            pools: Vec::new(),
            enable_forwarding: true,
            keep_other_forwarding_off: true,
        }
    }
}

/// The link groups of all daemons begin like this.
const GROUPS: u32 = 0x636f_0000;

/// The link group of one daemon of several: even, as the next number belongs to it too.
pub fn link_group(instance: u32) -> u32 {
    GROUPS | (instance & 0xfffe)
}

impl Options {
    /// Whether a link belongs to another daemon.
    pub(crate) fn is_foreign(&self, group: u32) -> bool {
        group & 0xffff_0000 == GROUPS && group & !1 != self.link_group & !1
    }
}

/// A network of the `bridge` driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeSpec {
    pub network_id: String,
    /// At most 15 bytes. A bridge of this name that exists is used as it is.
    pub bridge_name: String,
    pub subnet: Ipv4Net,
    /// The bridge's own address; none means the first one of `ip_range` or the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Where addresses come from that nobody chose; none means the whole subnet.
    pub ip_range: Option<Ipv4Net>,
    /// Bytes; none leaves the kernel's default.
    pub mtu: Option<u32>,
    /// Packets to elsewhere take the host's address.
    pub masquerade: bool,
    /// Containers may talk to each other.
    pub icc: bool,
    /// No way out and no published ports.
    pub internal: bool,
    /// Where ports are published that say no address; none means on all addresses.
    pub host_binding_ip: Option<IpAddr>,
}

impl BridgeSpec {
    /// The options that Docker gives a bridge network by default.
    pub fn new(network_id: impl Into<String>, bridge_name: impl Into<String>, subnet: Ipv4Net) -> Self {
        Self {
            network_id: network_id.into(),
            bridge_name: bridge_name.into(),
            subnet,
            gateway: None,
            ip_range: None,
            mtu: None,
            masquerade: true,
            icc: true,
            internal: false,
            host_binding_ip: None,
        }
    }
}

/// A container's wish to join a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRequest {
    pub network_id: String,
    /// 64 hexadecimal digits, unique for each time that a container joins.
    pub endpoint_id: String,
    /// Must be free; none means any.
    pub ip: Option<Ipv4Addr>,
    /// None means the one that follows from the address.
    pub mac: Option<MacAddr>,
}

/// Leave for one container to call another one, where containers may not talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pass {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub protocol: Protocol,
    /// Of the one that is called.
    pub port: u16,
}

/// A container's place in a network. The engine keeps it in the container's record and gives it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network_id: String,
    pub endpoint_id: String,
    pub ip: Ipv4Addr,
    pub prefix_len: u8,
    /// Where the default route leads; none in internal networks.
    pub gateway: Option<Ipv4Addr>,
    pub mac: MacAddr,
    /// Name of the cable's end on the host.
    pub host_ifname: String,
    /// What [`Networks::reserve_ports`](crate::Networks::reserve_ports) returned; put here by the caller.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
}
