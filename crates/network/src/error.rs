//! What can go wrong, step by step.

use std::io;

use ipnet::Ipv4Net;

use crate::ipam::PoolError;
use crate::netlink::Failure;
use crate::ports::PortError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    #[error("set up nftables table {table}: {source}")]
    Table { table: String, source: Failure },
    #[error("network {0} is not set up")]
    UnknownNetwork(String),
    #[error("network {0} has active endpoints")]
    InUse(String),
    #[error("network {network}: subnet cannot change from {from} to {to}")]
    SubnetChanged { network: String, from: Ipv4Net, to: Ipv4Net },
    #[error("invalid bridge name {0:?}")]
    InvalidName(String),
    #[error("bridge {bridge}: a link of this name exists and is no bridge")]
    NotABridge { bridge: String },
    #[error("bridge {bridge}: it belongs to another daemon; give this one a name of its own with --bridge")]
    Foreign { bridge: String },
    #[error("bridge {bridge}: {source}")]
    Bridge { bridge: String, source: Failure },
    #[error("bridge {bridge}: it disappeared while it was being set up")]
    Vanished { bridge: String },
    #[error("write {path}: {source}")]
    Setting { path: String, source: io::Error },
    #[error("list the host's networks: {0}")]
    Survey(#[source] Failure),
    // The text is Docker's.
    #[error("all predefined address pools have been fully subnetted")]
    NoSubnet,
    /// The inner texts are Docker's.
    #[error("{0}")]
    Address(#[from] PoolError),
    #[error("endpoint {0} has an address already")]
    EndpointExists(String),
    /// The inner texts are Docker's.
    #[error("{0}")]
    Port(#[from] PortError),
    #[error("endpoint {endpoint}: interface {name}: {source}")]
    Host { endpoint: String, name: String, source: Failure },
    #[error("endpoint {endpoint}: interface {name} in the container: {source}")]
    Inside { endpoint: String, name: String, source: Failure },
    #[error("endpoint {endpoint}: interface {name} in the container did not appear")]
    NoInterface { endpoint: String, name: String },
    #[error("endpoint {endpoint}: published ports: {source}")]
    Publish { endpoint: String, source: Failure },
    #[error("endpoint {endpoint}: end its flows: {source}")]
    Flows { endpoint: String, source: Failure },
    #[error("endpoint {endpoint}: leave to call linked containers: {source}")]
    Permit { endpoint: String, source: Failure },
    #[error(
        "bridge {bridge} is not Corten's own: containers on it that may not talk to each other cannot be linked"
    )]
    NoPass { bridge: String },
    #[error("delete unused links: {0}")]
    Reap(#[source] Failure),
    #[error("remove what belongs to nobody: {0}")]
    Sweep(#[source] Failure),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
