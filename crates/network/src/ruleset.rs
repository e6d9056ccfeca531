//! Corten's own nftables table: every packet rule of the engine, and no other.
//!
//! The rules are written once and never change. What differs between networks and containers lies in sets
//! and maps, so that the cost of a packet and of a change does not grow with their number:
//!
//! | set | member | says |
//! | --- | --- | --- |
//! | `bridges` | link | this link is a bridge of ours |
//! | `icc` | link, link | containers on this bridge may talk to each other |
//! | `linked` | address, address, protocol, port | the first may call the second there, also without `icc` |
//! | `internal` | link | this bridge has no way out |
//! | `home` | subnet, link | addresses of this subnet live on this bridge |
//! | `masqueraded` | subnet | packets that leave from here take the host's address |
//! | `publish_any` | protocol, port → address, port | a port published on all host addresses |
//! | `publish_one` | address, protocol, port → address, port | a port published on one host address |
//!
//! How a packet passes:
//! - To a published port, from outside or from a container: `nat_prerouting` rewrites the destination if it
//!   is one of the host's addresses; `into_bridge` then lets it through because it was rewritten. From the
//!   host itself the same happens in `nat_output`. Packets from 127.0.0.1 and packets from a container that
//!   come back to its own bridge take the bridge's address, since the answer could not find its way otherwise.
//! - To a container's own address from outside: `into_bridge` drops it, published or not. Only answers, a
//!   rewritten destination, a neighbour on a bridge with `icc`, or one that is linked get in.
//! - Addresses of 127.0.0.0/8 are believed from no bridge (`route_localnet` is on there, which would let
//!   containers reach what listens only on the host's loopback), and are never rewritten on arrival.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rustix::io::Errno;

use crate::netlink::{Channel, Failure};
use crate::nftables::{
    CT_STATE, CT_STATUS, Element, Expression, FieldType, Hook, META_IIFNAME, META_L4PROTO, META_OIFNAME,
    NETWORK_HEADER, Policy, REG_1, REG_2, Set, TRANSPORT_HEADER, Transaction, Verdict, elements, reg32,
};
use crate::ports::{Protocol, PublishedPort};
use crate::types::{BridgeSpec, Endpoint, Pass};

pub const BRIDGES: Set =
    Set { name: "bridges", key: &[FieldType::InterfaceName], data: &[], interval: false };
pub const ICC: Set = Set {
    name: "icc",
    key: &[FieldType::InterfaceName, FieldType::InterfaceName],
    data: &[],
    interval: false,
};
pub const LINKED: Set = Set {
    name: "linked",
    key: &[FieldType::Ipv4, FieldType::Ipv4, FieldType::Protocol, FieldType::Port],
    data: &[],
    interval: false,
};
pub const INTERNAL: Set =
    Set { name: "internal", key: &[FieldType::InterfaceName], data: &[], interval: false };
pub const HOME: Set =
    Set { name: "home", key: &[FieldType::Ipv4, FieldType::InterfaceName], data: &[], interval: true };
pub const MASQUERADED: Set = Set { name: "masqueraded", key: &[FieldType::Ipv4], data: &[], interval: true };
pub const PUBLISH_ANY: Set = Set {
    name: "publish_any",
    key: &[FieldType::Protocol, FieldType::Port],
    data: &[FieldType::Ipv4, FieldType::Port],
    interval: false,
};
pub const PUBLISH_ONE: Set = Set {
    name: "publish_one",
    key: &[FieldType::Ipv4, FieldType::Protocol, FieldType::Port],
    data: &[FieldType::Ipv4, FieldType::Port],
    interval: false,
};

pub const SETS: [&Set; 8] =
    [&BRIDGES, &ICC, &LINKED, &INTERNAL, &HOME, &MASQUERADED, &PUBLISH_ANY, &PUBLISH_ONE];

const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;

const ESTABLISHED_OR_RELATED: u32 = 0x2 | 0x4;
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const DESTINATION_REWRITTEN: u32 = 0x20;
/// `RTN_LOCAL`, as the four bytes that a register holds.
const TYPE_LOCAL: [u8; 4] = 2_u32.to_ne_bytes();

/// An element of a set: where it goes, and what it is.
pub type Member = (&'static Set, Element);

/// Bring the table to its present form. What its sets hold stays, so that a restart of the daemon
/// interrupts no traffic; a table that an incompatible version left is replaced.
///
/// `forward_policy` is for packets that concern none of our bridges; none leaves it as it is.
pub fn install(channel: Channel<'_>, table: &str, forward_policy: Option<Policy>) -> Result<(), Failure> {
    match whole_table(table, false, forward_policy).commit(channel) {
        Ok(()) => Ok(()),
        Err(_) => whole_table(table, true, forward_policy).commit(channel),
    }
}

/// Set what happens to forwarded packets that concern none of our bridges.
pub fn set_forward_policy(channel: Channel<'_>, table: &str, policy: Policy) -> Result<(), Failure> {
    let mut change = Transaction::new(table);
    change.add_chain("forward", Some(FORWARD), Some(policy));
    change.commit(channel)
}

/// Delete the table; one that is not there is no error.
pub fn uninstall(channel: Channel<'_>, table: &str) -> Result<(), Failure> {
    let mut change = Transaction::new(table);
    change.add_table();
    change.delete_table();
    change.commit(channel)
}

const FORWARD: Hook = Hook { kind: "filter", number: HOOK_FORWARD, priority: PRIORITY_FILTER };

fn whole_table(table: &str, replace: bool, forward_policy: Option<Policy>) -> Transaction<'_> {
    let mut change = Transaction::new(table);
    change.add_table();
    if replace {
        change.delete_table();
        change.add_table();
    }
    for (id, set) in (1..).zip(SETS) {
        change.add_set(set, id);
    }
    let nat = |number, priority| Some(Hook { kind: "nat", number, priority });
    let raw = Hook { kind: "filter", number: HOOK_PREROUTING, priority: PRIORITY_RAW };
    let chains = [
        ("publish", None),
        ("into_bridge_nat", None),
        ("into_bridge", None),
        ("out_of_bridge", None),
        ("raw_prerouting", Some(raw)),
        ("nat_prerouting", nat(HOOK_PREROUTING, PRIORITY_DSTNAT)),
        ("nat_output", nat(HOOK_OUTPUT, PRIORITY_DSTNAT)),
        ("nat_postrouting", nat(HOOK_POSTROUTING, PRIORITY_SRCNAT)),
        ("forward", Some(FORWARD)),
    ];
    for (name, hook) in chains {
        let policy = if name == "forward" { forward_policy } else { None };
        change.add_chain(name, hook, policy);
        change.flush_chain(name);
    }
    for (chain, expressions) in rules() {
        change.add_rule(chain, &expressions);
    }
    change
}

/// Every rule, by chain, in order.
fn rules() -> Vec<(&'static str, Vec<Expression>)> {
    use Expression::{Counter, Equals, Masquerade};
    use Verdict::{Accept, Drop, Goto, Jump, Return};

    let decide = Expression::Verdict;
    let source = |to| Expression::Payload { base: NETWORK_HEADER, offset: 12, length: 4, to };
    let target = |to| Expression::Payload { base: NETWORK_HEADER, offset: 16, length: 4, to };
    let source_net = Expression::Payload { base: NETWORK_HEADER, offset: 12, length: 1, to: REG_1 };
    let target_net = Expression::Payload { base: NETWORK_HEADER, offset: 16, length: 1, to: REG_1 };
    let is_loopback = Equals { register: REG_1, value: &[127] };
    let from_link = |to| Expression::Meta { key: META_IIFNAME, to };
    let to_link = |to| Expression::Meta { key: META_OIFNAME, to };
    let protocol = |to| Expression::Meta { key: META_L4PROTO, to };
    let port = |to| Expression::Payload { base: TRANSPORT_HEADER, offset: 2, length: 2, to };
    let is_in = |set: &Set| Expression::Lookup { set: set.name, from: REG_1, to: None };
    let mapped = |set: &Set| Expression::Lookup { set: set.name, from: REG_1, to: Some(REG_1) };
    let dnat = Expression::Dnat { address: REG_1, port: reg32(1) };
    let has = |key, mask| {
        [
            Expression::Conntrack { key, to: REG_1 },
            Expression::Mask { register: REG_1, mask },
            Expression::NotZero { register: REG_1 },
        ]
    };
    let [status, rewritten, is_rewritten] = has(CT_STATUS, DESTINATION_REWRITTEN);
    let [state, known, is_known] = has(CT_STATE, ESTABLISHED_OR_RELATED);
    let to_host = [Expression::DestinationType { to: REG_1 }, Equals { register: REG_1, value: &TYPE_LOCAL }];
    // Source address and outgoing link, looked up together.
    let [home_source, home_link, is_home] = [source(reg32(0)), to_link(reg32(1)), is_in(&HOME)];
    let comes_from_home = [source(reg32(0)), from_link(reg32(1)), is_in(&HOME)];
    let is_linked = [source(reg32(0)), target(reg32(1)), protocol(reg32(2)), port(reg32(3)), is_in(&LINKED)];

    vec![
        ("raw_prerouting", vec![target_net, is_loopback, from_link(REG_1), is_in(&BRIDGES), decide(Drop)]),
        ("raw_prerouting", vec![source_net, is_loopback, from_link(REG_1), is_in(&BRIDGES), decide(Drop)]),
        ("nat_prerouting", vec![target_net, is_loopback, decide(Return)]),
        ("nat_prerouting", vec![to_host[0], to_host[1], decide(Jump("publish"))]),
        ("nat_output", vec![to_host[0], to_host[1], decide(Jump("publish"))]),
        ("publish", vec![target(reg32(0)), protocol(reg32(1)), port(reg32(2)), mapped(&PUBLISH_ONE), dnat]),
        ("publish", vec![protocol(reg32(0)), port(reg32(1)), mapped(&PUBLISH_ANY), dnat]),
        ("nat_postrouting", vec![to_link(REG_1), is_in(&BRIDGES), decide(Jump("into_bridge_nat"))]),
        ("nat_postrouting", vec![source(REG_1), is_in(&MASQUERADED), Masquerade]),
        ("into_bridge_nat", vec![source_net, is_loopback, Masquerade]),
        (
            "into_bridge_nat",
            vec![home_source, home_link, is_home, status, rewritten, is_rewritten, Masquerade],
        ),
        ("into_bridge_nat", vec![home_source, home_link, is_home, decide(Accept)]),
        ("forward", vec![to_link(REG_1), is_in(&BRIDGES), decide(Goto("into_bridge"))]),
        ("forward", vec![from_link(REG_1), is_in(&BRIDGES), decide(Goto("out_of_bridge"))]),
        ("into_bridge", vec![state, known, is_known, decide(Accept)]),
        ("into_bridge", vec![from_link(REG_1), to_link(REG_2), is_in(&ICC), decide(Accept)]),
        ("into_bridge", [&comes_from_home[..], &is_linked, &[decide(Accept)]].concat()),
        ("into_bridge", vec![to_link(REG_1), is_in(&INTERNAL), Counter, decide(Drop)]),
        ("into_bridge", vec![status, rewritten, is_rewritten, decide(Accept)]),
        ("into_bridge", vec![Counter, decide(Drop)]),
        ("out_of_bridge", vec![from_link(REG_1), is_in(&INTERNAL), Counter, decide(Drop)]),
        ("out_of_bridge", vec![decide(Accept)]),
    ]
}

/// What the sets must hold for a bridge.
pub fn bridge_members(spec: &BridgeSpec) -> Vec<Member> {
    let link = link_key(&spec.bridge_name);
    let network = spec.subnet.network().octets();
    let key = |key: &[u8]| Element { key: key.to_vec(), ..Element::default() };
    let mut members = vec![
        (&BRIDGES, key(&link)),
        (
            &HOME,
            Element {
                key: [&network[..], &link].concat(),
                key_end: Some([&spec.subnet.broadcast().octets()[..], &link].concat()),
                ..Element::default()
            },
        ),
    ];
    if spec.icc {
        members.push((&ICC, key(&[link, link].concat())));
    }
    if spec.internal {
        members.push((&INTERNAL, key(&link)));
    } else if spec.masquerade {
        members.push((&MASQUERADED, key(&network)));
        if let Some(end) = after(spec.subnet) {
            members.push((&MASQUERADED, Element { ends_interval: true, ..key(&end.octets()) }));
        }
    }
    members
}

/// What the maps must hold for a published port of a container; none for what they cannot express.
pub fn port_member(port: &PublishedPort, container: Ipv4Addr) -> Option<Member> {
    let IpAddr::V4(host_ip) = port.host_ip else { return None };
    let mut key = Vec::with_capacity(12);
    if !host_ip.is_unspecified() {
        key.extend_from_slice(&host_ip.octets());
    }
    key.extend_from_slice(&protocol_key(port.protocol));
    key.extend_from_slice(&padded(port.host_port));
    let data = [&container.octets()[..], &padded(port.container_port)].concat();
    let set = if host_ip.is_unspecified() { &PUBLISH_ANY } else { &PUBLISH_ONE };
    Some((set, Element { key, data: Some(data), ..Element::default() }))
}

/// What the maps must hold for all published ports of an endpoint.
pub fn port_members(endpoint: &Endpoint) -> Vec<Member> {
    endpoint.ports.iter().filter_map(|port| port_member(port, endpoint.ip)).collect()
}

/// What the set must hold for a pass.
pub fn pass_member(pass: &Pass) -> Member {
    let addresses = [pass.from.octets(), pass.to.octets()].concat();
    let key = [&addresses[..], &protocol_key(pass.protocol), &padded(pass.port)].concat();
    (&LINKED, Element { key, ..Element::default() })
}

/// Add members, all or none.
pub fn add(channel: Channel<'_>, table: &str, members: &[Member]) -> Result<(), Failure> {
    change(table, members, |change, set, elements| change.add_elements(set, elements)).commit(channel)
}

/// Delete members, all or none.
pub fn delete(channel: Channel<'_>, table: &str, members: &[Member]) -> Result<(), Failure> {
    change(table, members, |change, set, elements| change.delete_elements(set, elements)).commit(channel)
}

/// Delete those of these members that are there.
pub fn delete_existing(channel: Channel<'_>, table: &str, members: &[Member]) -> Vec<Failure> {
    let is_gone = |failure: &Failure| failure.errno == Errno::NOENT;
    match delete(channel, table, members) {
        Ok(()) => Vec::new(),
        Err(failure) if is_gone(&failure) && members.len() == 1 => Vec::new(),
        // One that is missing keeps the others from being deleted.
        Err(failure) if is_gone(&failure) => members
            .iter()
            .filter_map(|member| delete(channel, table, std::slice::from_ref(member)).err())
            .filter(|failure| !is_gone(failure))
            .collect(),
        Err(failure) => vec![failure],
    }
}

/// All members that a set has now.
pub fn members(channel: Channel<'_>, table: &str, set: &'static Set) -> Result<Vec<Member>, Failure> {
    Ok(elements(channel, table, set.name)?.into_iter().map(|element| (set, element)).collect())
}

fn change<'a>(
    table: &'a str,
    members: &[Member],
    each: impl Fn(&mut Transaction<'a>, &str, &[Element]),
) -> Transaction<'a> {
    let mut change = Transaction::new(table);
    for set in SETS {
        let elements: Vec<_> = members
            .iter()
            .filter(|(of, _)| of.name == set.name)
            .map(|(_, element)| element.clone())
            .collect();
        each(&mut change, set.name, &elements);
    }
    change
}

/// A link's name as the kernel compares it: 16 bytes, the rest zero.
fn link_key(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    let length = name.len().min(15);
    key[..length].copy_from_slice(&name.as_bytes()[..length]);
    key
}

fn protocol_key(protocol: Protocol) -> [u8; 4] {
    let number = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    [number, 0, 0, 0]
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// The first address behind a subnet; none if it is the last one there is.
fn after(subnet: Ipv4Net) -> Option<Ipv4Addr> {
    u32::from(subnet.broadcast()).checked_add(1).map(Ipv4Addr::from)
}
