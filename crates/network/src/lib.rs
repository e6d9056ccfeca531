//! Networks of containers: links by netlink, nftables, addresses, published ports.
//!
//! [`Networks`] is the bridge driver; its module tells how a container gets into a network and out again.
//! The networks `host`, `none` and `container:` need nothing from here. [`files`] writes the texts of
//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`, for all of them.
//!
//! This crate knows no container, no HTTP and no other part. It starts no program, enters no namespace
//! (the inner end of a cable is set up through a socket that was opened inside), and changes no nftables
//! table but its own.

mod bridge;
mod conntrack;
mod error;
pub mod files;
pub mod ipam;
mod link;
mod mac;
mod netlink;
mod nftables;
mod ports;
mod ruleset;
mod types;

pub use bridge::{Networks, Swept};
pub use error::{Error, Result};
pub use ipam::PoolError;
pub use ipnet::Ipv4Net;
pub use mac::{InvalidMac, MacAddr};
pub use netlink::Failure;
pub use ports::{HostPort, InvalidProtocol, PortError, PortRequest, Protocol, PublishedPort};
pub use types::{BridgeSpec, DEFAULT_BRIDGE_NAME, Endpoint, EndpointRequest, Options, link_group};
