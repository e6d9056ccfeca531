//! Links, addresses, routes and neighbours (`NETLINK_ROUTE`): one function per message that we send.
//!
//! The functions that change something append to a [`Batch`]; those that ask send at once.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rustix::io::Errno;

use crate::mac::MacAddr;
use crate::netlink::{self, Attributes, Batch, Channel, F_CREATE, F_DUMP, F_EXCL, F_REPLACE, Failure};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;

const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
/// Leave the counters out of the answer: they are most of it.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const OPERSTATE_UP: u8 = 6;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_REACHABLE: u16 = 2;

/// Step of a request that need not succeed.
const NO_LINK_LOCAL: &str = "switch off link-local addresses";

/// `lo` has this index in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// What we ask about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// "bridge", "veth", …; none for hardware.
    pub kind: Option<String>,
    pub group: u32,
    pub is_running: bool,
}

/// The two ends of a container's cable.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    pub host_name: &'a str,
    pub inside_name: &'a str,
    pub inside_mac: MacAddr,
    /// A process (or thread) in the network namespace that the other end goes to.
    pub inside_pid: i32,
    /// Bytes; none leaves the kernel's default.
    pub mtu: Option<u32>,
    /// Number that marks our links.
    pub group: u32,
}

/// `struct ifinfomsg`.
fn link_header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// A link by name, if there is one.
pub fn by_name(channel: Channel<'_>, name: &str) -> Result<Option<Link>, Failure> {
    let mut batch = Batch::new();
    batch.push("look up link", RTM_GETLINK, 0, &link_header(AF_UNSPEC, 0, 0, 0), |body| {
        body.text(IFLA_IFNAME, name).u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
    let mut found = None;
    match channel.query(batch, |message| found = read_link(message)) {
        Ok(()) => Ok(found),
        Err(failure) if failure.errno == Errno::NODEV => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// All links of the namespace.
pub fn all(channel: Channel<'_>) -> Result<Vec<Link>, Failure> {
    let mut batch = Batch::new();
    batch.push("list links", RTM_GETLINK, F_DUMP, &link_header(AF_UNSPEC, 0, 0, 0), |body| {
        body.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
    let mut found = Vec::new();
    channel.query(batch, |message| found.extend(read_link(message)))?;
    Ok(found)
}

fn read_link(message: netlink::Message<'_>) -> Option<Link> {
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let body = message.payload.get(16..)?;
    let kind = netlink::find(body, IFLA_LINKINFO)
        .and_then(|info| netlink::find(info, IFLA_INFO_KIND))
        .and_then(netlink::text_of)
        .map(str::to_owned);
    Some(Link {
        index: netlink::u32_at(message.payload, 4)?,
        name: netlink::find(body, IFLA_IFNAME).and_then(netlink::text_of)?.to_owned(),
        kind,
        group: netlink::find(body, IFLA_GROUP).and_then(|value| netlink::u32_at(value, 0)).unwrap_or(0),
        is_running: netlink::find(body, IFLA_OPERSTATE) == Some(&[OPERSTATE_UP]),
    })
}

/// Make a bridge. Its MAC is given so that it does not change with the ports that come and go.
pub fn create_bridge(batch: &mut Batch, name: &str, mac: MacAddr, mtu: Option<u32>, group: u32) {
    let header = link_header(AF_UNSPEC, 0, 0, 0);
    batch.push("create bridge", RTM_NEWLINK, F_CREATE | F_EXCL, &header, |body| {
        body.text(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, &mac.octets()).u32(IFLA_GROUP, group);
        if let Some(mtu) = mtu {
            body.u32(IFLA_MTU, mtu);
        }
        body.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |data| {
                // Snooping prunes nothing without a querier, which nobody runs on such bridges, but makes
                // each new port look at all others.
                data.u8(IFLA_BR_MCAST_SNOOPING, 0);
            });
        });
    });
}

/// Pass traffic between the ports of this bridge through the forward hook, so that rules can refuse it.
pub fn filter_bridged_traffic(batch: &mut Batch, index: u32, wanted: bool) {
    let header = link_header(AF_UNSPEC, index, 0, 0);
    batch.push("set bridge filtering", RTM_NEWLINK, 0, &header, |body| {
        body.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |data| {
                data.u8(IFLA_BR_NF_CALL_IPTABLES, u8::from(wanted));
            });
        });
    });
}

pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.push("set mtu", RTM_SETLINK, 0, &link_header(AF_UNSPEC, index, 0, 0), |body| {
        body.u32(IFLA_MTU, mtu);
    });
}

pub fn set_up(batch: &mut Batch, index: u32) {
    batch.push("set link up", RTM_SETLINK, 0, &link_header(AF_UNSPEC, index, IFF_UP, IFF_UP), |_| {});
}

pub fn set_loopback_up(batch: &mut Batch) {
    let header = link_header(AF_UNSPEC, LOOPBACK_INDEX, IFF_UP, IFF_UP);
    batch.push("set loopback up", RTM_SETLINK, 0, &header, |_| {});
}

/// How a request names its link.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    Index(u32),
    Name(&'a str),
}

/// Give the link no address of IPv6 of its own accord. Takes effect if it comes before the link is up.
pub fn no_link_local_address(batch: &mut Batch, link: Target<'_>) {
    let index = if let Target::Index(index) = link { index } else { 0 };
    batch.push(NO_LINK_LOCAL, RTM_SETLINK, 0, &link_header(AF_UNSPEC, index, 0, 0), |body| {
        if let Target::Name(name) = link {
            body.text(IFLA_IFNAME, name);
        }
        body.nest(IFLA_AF_SPEC, |families| {
            families.nest(AF_INET6, |inet6| {
                inet6.u8(IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE);
            });
        });
    });
}

/// True if a failure does not matter: a kernel without IPv6 refuses to switch part of it off.
pub fn is_harmless(failure: &Failure) -> bool {
    failure.step == NO_LINK_LOCAL
}

/// Make a veth pair, both ends down, the inner one in the container's namespace and already with its
/// final name and MAC.
pub fn create_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let shared = |body: &mut Attributes<'_>| {
        if let Some(mtu) = veth.mtu {
            body.u32(IFLA_MTU, mtu);
        }
        // The default is one queue per processor, each with its own objects in sysfs; nothing uses them.
        body.u32(IFLA_NUM_TX_QUEUES, 1).u32(IFLA_NUM_RX_QUEUES, 1);
    };
    let header = link_header(AF_UNSPEC, 0, 0, 0);
    batch.push("create veth pair", RTM_NEWLINK, F_CREATE | F_EXCL, &header, |body| {
        body.text(IFLA_IFNAME, veth.host_name).u32(IFLA_GROUP, veth.group);
        shared(body);
        body.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(AF_UNSPEC, 0, 0, 0))
                        .text(IFLA_IFNAME, veth.inside_name)
                        .bytes(IFLA_ADDRESS, &veth.inside_mac.octets())
                        .u32(IFLA_NET_NS_PID, veth.inside_pid.unsigned_abs());
                    shared(peer);
                });
            });
        });
    });
}

/// Put a link into a bridge and take it up.
pub fn put_into_bridge(batch: &mut Batch, name: &str, bridge_index: u32) {
    batch.push("put into bridge", RTM_SETLINK, 0, &link_header(AF_UNSPEC, 0, IFF_UP, IFF_UP), |body| {
        body.text(IFLA_IFNAME, name).u32(IFLA_MASTER, bridge_index);
    });
}

/// Set how the bridge treats one of its ports: `hairpin` sends frames back out where they came from,
/// `isolated` passes none to other isolated ports.
pub fn set_bridge_port(batch: &mut Batch, name: &str, hairpin: bool, isolated: bool) {
    batch.push("set bridge port", RTM_NEWLINK, 0, &link_header(AF_UNSPEC, 0, 0, 0), |body| {
        body.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |data| {
                data.u8(IFLA_BRPORT_MODE, u8::from(hairpin)).u8(IFLA_BRPORT_ISOLATED, u8::from(isolated));
            });
        });
    });
}

pub fn delete_by_name(batch: &mut Batch, name: &str) {
    batch.push("delete link", RTM_DELLINK, 0, &link_header(AF_UNSPEC, 0, 0, 0), |body| {
        body.text(IFLA_IFNAME, name);
    });
}

/// Take a link down and move it into another group.
pub fn retire(batch: &mut Batch, name: &str, group: u32) {
    batch.push("take link down", RTM_SETLINK, 0, &link_header(AF_UNSPEC, 0, 0, IFF_UP), |body| {
        body.text(IFLA_IFNAME, name).u32(IFLA_GROUP, group);
    });
}

/// Delete all links of a group in one go: the kernel's waiting time is paid once, not per link.
pub fn delete_group(batch: &mut Batch, group: u32) {
    batch.push("delete links", RTM_DELLINK, 0, &link_header(AF_UNSPEC, 0, 0, 0), |body| {
        body.u32(IFLA_GROUP, group);
    });
}

/// `struct ifaddrmsg`.
fn address_header(prefix_len: u8, index: u32) -> [u8; 8] {
    let mut header = [AF_INET, prefix_len, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// Give a link an address; one that it has already is no error.
pub fn add_address(batch: &mut Batch, index: u32, address: Ipv4Addr, prefix_len: u8) {
    let header = address_header(prefix_len, index);
    batch.push("add address", RTM_NEWADDR, F_CREATE | F_REPLACE, &header, |body| {
        body.bytes(IFA_LOCAL, &address.octets()).bytes(IFA_ADDRESS, &address.octets());
        if let Ok(net) = Ipv4Net::new(address, prefix_len)
            && prefix_len < 31
        {
            body.bytes(IFA_BROADCAST, &net.broadcast().octets());
        }
    });
}

pub fn delete_address(batch: &mut Batch, index: u32, address: Ipv4Net) {
    let header = address_header(address.prefix_len(), index);
    batch.push("delete address", RTM_DELADDR, 0, &header, |body| {
        body.bytes(IFA_LOCAL, &address.addr().octets()).bytes(IFA_ADDRESS, &address.addr().octets());
    });
}

/// All IPv4 addresses with the index of the link that has them.
pub fn addresses(channel: Channel<'_>) -> Result<Vec<(u32, Ipv4Net)>, Failure> {
    let mut batch = Batch::new();
    batch.push("list addresses", RTM_GETADDR, F_DUMP, &address_header(0, 0), |_| {});
    let mut found = Vec::new();
    channel.query(batch, |message| found.extend(read_address(message)))?;
    Ok(found)
}

fn read_address(message: netlink::Message<'_>) -> Option<(u32, Ipv4Net)> {
    let (&family, &prefix_len) = (message.payload.first()?, message.payload.get(1)?);
    if message.kind != RTM_NEWADDR || family != AF_INET {
        return None;
    }
    let body = message.payload.get(8..)?;
    let local = netlink::find(body, IFA_LOCAL).or_else(|| netlink::find(body, IFA_ADDRESS))?;
    Some((netlink::u32_at(message.payload, 4)?, Ipv4Net::new(ipv4(local)?, prefix_len).ok()?))
}

/// `struct rtmsg` for a route to everywhere.
fn route_header() -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = AF_INET;
    header[4] = RT_TABLE_MAIN;
    header[5] = RTPROT_BOOT;
    header[7] = RTN_UNICAST;
    header
}

pub fn add_default_route(batch: &mut Batch, index: u32, gateway: Ipv4Addr) {
    batch.push("add default route", RTM_NEWROUTE, F_CREATE | F_EXCL, &route_header(), |body| {
        body.bytes(RTA_GATEWAY, &gateway.octets()).u32(RTA_OIF, index);
    });
}

/// Destinations of all IPv4 routes except the default ones and those to the host's own addresses, each
/// with the index of its link (0 if it has none or several).
pub fn routes(channel: Channel<'_>) -> Result<Vec<(u32, Ipv4Net)>, Failure> {
    let mut batch = Batch::new();
    let mut header = [0; 12];
    header[0] = AF_INET;
    batch.push("list routes", RTM_GETROUTE, F_DUMP, &header, |_| {});
    let mut found = Vec::new();
    channel.query(batch, |message| found.extend(read_route(message)))?;
    Ok(found)
}

fn read_route(message: netlink::Message<'_>) -> Option<(u32, Ipv4Net)> {
    let header = message.payload.get(..12)?;
    let (family, prefix_len, table) = (header[0], header[1], header[4]);
    if message.kind != RTM_NEWROUTE || family != AF_INET || table == RT_TABLE_LOCAL || prefix_len == 0 {
        return None;
    }
    let body = &message.payload[12..];
    let index = netlink::find(body, RTA_OIF).and_then(|value| netlink::u32_at(value, 0)).unwrap_or(0);
    Some((index, Ipv4Net::new(ipv4(netlink::find(body, RTA_DST)?)?, prefix_len).ok()?))
}

/// Tell the host which MAC an address has now, in case it remembers another one.
pub fn set_neighbour(batch: &mut Batch, index: u32, address: Ipv4Addr, mac: MacAddr) {
    let mut header = [0; 12];
    header[0] = AF_INET;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_REACHABLE.to_ne_bytes());
    batch.push("set neighbour", RTM_NEWNEIGH, F_CREATE | F_REPLACE, &header, |body| {
        body.bytes(NDA_DST, &address.octets()).bytes(NDA_LLADDR, &mac.octets());
    });
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_never_panics(
            kind in prop_oneof![Just(RTM_NEWLINK), Just(RTM_NEWADDR), Just(RTM_NEWROUTE)],
            payload in proptest::collection::vec(prop_oneof![Just(0), Just(2), Just(4), any::<u8>()], 0..96),
        ) {
            let message = netlink::Message { kind, flags: 0, sequence: 0, payload: &payload };
            let _ = (read_link(message), read_address(message), read_route(message));
        }
    }
}
