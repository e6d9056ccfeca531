//! The bridge driver.
//!
//! A container's way into a network:
//! 1. [`Networks::allocate`] gives it an address, a MAC and a name for its cable: bookkeeping only.
//! 2. [`Networks::reserve_ports`] holds the ports of the host that it publishes.
//! 3. [`Networks::connect`] makes the cable, sets up its inner end through a socket of the container's
//!    namespace, and leads the published ports there. What it did is undone if a step fails.
//! 4. [`Networks::detach`] takes all of that back, in any state, as often as one likes, except that the
//!    cable still lies there, dead. [`Networks::reap`] throws dead cables away, which takes the kernel
//!    long. [`Networks::disconnect`] is both.
//!
//! Where containers may not talk to each other, [`Networks::permit`] lets two of them.
//!
//! None of these steps looks at other containers, starts a program, or takes longer the more there are.
//! After a restart of the daemon: `open`, `ensure_bridge` for each network, `adopt`, `sweep`.

mod endpoint;
mod passes;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use rustix::net::netlink as protocols;

pub use self::sweep::Swept;
use crate::error::{Error, Result};
use crate::ipam::{self, Pool};
use crate::link;
use crate::mac::MacAddr;
use crate::netlink::{Batch, Channel, Failure, Socket};
use crate::nftables::Policy;
use crate::ports::PortTable;
use crate::ruleset;
use crate::types::{BridgeSpec, Options, Pass};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// There, and 1, if all bridged traffic passes the forward hook.
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// The networks of one daemon: its netlink sockets, address pools and port reservations.
///
/// All methods must be called in the network namespace in which [`Networks::open`] was. They block for
/// a millisecond or less except where they say otherwise.
#[derive(Debug)]
pub struct Networks {
    options: Options,
    /// Links and addresses of the host.
    route: Mutex<Socket>,
    /// Deletions of links only: they take long, and connecting must not wait for them.
    removal: Mutex<Socket>,
    /// nftables and connection tracking.
    filter: Mutex<Socket>,
    /// Held while a bridge is made, removed, or compared with what is there.
    setup: Mutex<()>,
    /// Held for bookkeeping, never during a conversation with netlink.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By network.
    bridges: HashMap<String, Bridge>,
    /// Names of cable ends on the host, with their endpoints.
    names: HashMap<String, String>,
    ports: PortTable,
    passes: HashSet<Pass>,
}

#[derive(Debug)]
struct Bridge {
    spec: BridgeSpec,
    index: u32,
    pool: Pool,
    /// Addresses by endpoint.
    endpoints: HashMap<String, Ipv4Addr>,
    /// Made by us, and not a user's own.
    is_ours: bool,
    /// Keep ports apart in the bridge itself, where no rule sees what passes between them.
    isolated: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is complete in itself, so what a panicking thread left is usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Networks {
    /// Open the sockets and bring the nftables table to its present form. What earlier daemons put into
    /// its sets stays until [`sweep`](Self::sweep), so traffic to running containers goes on.
    pub fn open(options: Options) -> Result<Self> {
        let socket = |protocol| Socket::open(protocol).map(Mutex::new).map_err(Error::Socket);
        let networks = Self {
            options,
            route: socket(None)?,
            removal: socket(None)?,
            filter: socket(Some(protocols::NETFILTER))?,
            setup: Mutex::default(),
            state: Mutex::default(),
        };
        networks.in_table(|channel, table| ruleset::install(channel, table, None))?;
        Ok(networks)
    }

    /// Delete the nftables table. For tests and for removing the product; containers lose their ports.
    pub fn uninstall(&self) -> Result<()> {
        self.in_table(ruleset::uninstall)
    }

    fn in_table(&self, act: impl FnOnce(Channel<'_>, &str) -> Result<(), Failure>) -> Result<()> {
        let filter = lock(&self.filter);
        act(filter.channel(), &self.options.table)
            .map_err(|source| Error::Table { table: self.options.table.clone(), source })
    }

    /// A subnet for a network whose user named none: the first of Docker's pools that overlaps neither
    /// `taken`, nor our networks, nor anything that the host has an address in or a route to.
    pub fn choose_subnet(&self, taken: &[Ipv4Net]) -> Result<Ipv4Net> {
        let mut avoided = taken.to_vec();
        avoided.extend(lock(&self.state).bridges.values().map(|bridge| bridge.spec.subnet));
        {
            let route = lock(&self.route);
            let channel = route.channel();
            // A bridge that an earlier daemon left is no reason to move.
            let ours: Vec<_> = link::all(channel)
                .map_err(Error::Survey)?
                .into_iter()
                .filter(|link| link.group == self.options.link_group)
                .map(|link| link.index)
                .collect();
            let addresses = link::addresses(channel).map_err(Error::Survey)?;
            let routes = link::routes(channel).map_err(Error::Survey)?;
            let all = addresses.into_iter().chain(routes);
            avoided.extend(all.filter(|(index, _)| !ours.contains(index)).map(|(_, net)| net));
        }
        match self.options.pools.as_slice() {
            [] => ipam::choose_subnet(ipam::default_subnets(), &avoided),
            pools => ipam::choose_subnet(ipam::subnets(pools), &avoided),
        }
        .ok_or(Error::NoSubnet)
    }

    /// Make a network's bridge, or take over one that is there, and let traffic pass as the network's
    /// options say. Calling it again applies changed options; only the subnet cannot change.
    pub fn ensure_bridge(&self, spec: &BridgeSpec) -> Result<()> {
        check_name(&spec.bridge_name)?;
        let _setup = lock(&self.setup);
        let earlier = match lock(&self.state).bridges.get(&spec.network_id) {
            Some(bridge) if bridge.spec.subnet != spec.subnet => {
                return Err(Error::SubnetChanged {
                    network: spec.network_id.clone(),
                    from: bridge.spec.subnet,
                    to: spec.subnet,
                });
            }
            Some(bridge) => Some((bridge.spec.clone(), bridge.pool.clone(), bridge.endpoints.clone())),
            None => None,
        };
        let (obsolete, pool, endpoints) = match earlier {
            Some((before, pool, endpoints)) => (ruleset::bridge_members(&before), pool, endpoints),
            None => (Vec::new(), Pool::new(spec.subnet, spec.gateway, spec.ip_range)?, HashMap::new()),
        };

        self.allow_forwarding()?;
        let has_filter = is_on(BRIDGE_FILTER);
        let Ensured { index, is_new, is_ours } = self.ensure_link(spec, pool.gateway(), has_filter)?;
        let isolated = !spec.icc && !has_filter;
        let wanted = ruleset::bridge_members(spec);
        let obsolete: Vec<_> = obsolete.into_iter().filter(|member| !wanted.contains(member)).collect();
        let done = self
            .in_table(|channel, table| {
                ruleset::add(channel, table, &wanted)?;
                ruleset::delete(channel, table, &obsolete)
            })
            .and_then(|()| allow_loopback_sources(&spec.bridge_name))
            .and_then(|()| if is_ours { answer_for_neighbours(&spec.bridge_name, isolated) } else { Ok(()) });
        if let Err(error) = done {
            if is_new {
                let mut batch = Batch::new();
                link::delete_by_name(&mut batch, &spec.bridge_name);
                // The first error is the one to tell.
                let _ = lock(&self.removal).channel().execute(batch);
                let _ = self.in_table(|channel, table| ruleset::delete(channel, table, &wanted));
            }
            return Err(error);
        }
        let bridge = Bridge { spec: spec.clone(), index, pool, endpoints, is_ours, isolated };
        lock(&self.state).bridges.insert(spec.network_id.clone(), bridge);
        Ok(())
    }

    /// The address that a network's bridge has, given or chosen; none if the network is not set up.
    pub fn gateway(&self, network_id: &str) -> Option<Ipv4Addr> {
        lock(&self.state).bridges.get(network_id).map(|bridge| bridge.pool.gateway())
    }

    fn ensure_link(&self, spec: &BridgeSpec, gateway: Ipv4Addr, has_filter: bool) -> Result<Ensured> {
        let name = spec.bridge_name.as_str();
        let failed = |source| Error::Bridge { bridge: name.to_owned(), source };
        let route = lock(&self.route);
        let channel = route.channel();
        let mut is_new = false;
        if link::by_name(channel, name).map_err(failed)?.is_none() {
            let mut batch = Batch::new();
            let mac = MacAddr::of_ipv4(gateway);
            link::create_bridge(&mut batch, name, mac, spec.mtu, self.options.link_group);
            channel.execute(batch).map_err(failed)?;
            is_new = true;
        }
        let found = link::by_name(channel, name)
            .map_err(failed)?
            .ok_or_else(|| Error::Vanished { bridge: name.to_owned() })?;
        if found.kind.as_deref() != Some("bridge") {
            return Err(Error::NotABridge { bridge: name.to_owned() });
        }
        if self.options.is_foreign(found.group) {
            return Err(Error::Foreign { bridge: name.to_owned() });
        }
        let is_ours = found.group == self.options.link_group;
        let mut batch = Batch::new();
        if is_ours && !is_new {
            let addresses = link::addresses(channel).map_err(failed)?;
            let stale = addresses.into_iter().filter(|(index, address)| {
                *index == found.index
                    && (address.addr(), address.prefix_len()) != (gateway, spec.subnet.prefix_len())
            });
            for (index, address) in stale {
                link::delete_address(&mut batch, index, address);
            }
            if let Some(mtu) = spec.mtu {
                link::set_mtu(&mut batch, found.index, mtu);
            }
        }
        if has_filter && is_ours {
            // Also if somebody turns it off for bridges in general.
            link::filter_bridged_traffic(&mut batch, found.index, !spec.icc);
        }
        link::add_address(&mut batch, found.index, gateway, spec.subnet.prefix_len());
        link::set_up(&mut batch, found.index);
        if let Err(source) = channel.execute(batch) {
            if is_new {
                let mut batch = Batch::new();
                link::delete_by_name(&mut batch, name);
                let _ = channel.execute(batch);
            }
            return Err(failed(source));
        }
        Ok(Ensured { index: found.index, is_new, is_ours })
    }

    /// Turn on forwarding. If it was off, the host was no router until now, and need not become one for
    /// links that are not ours: the table then drops what would pass between those.
    fn allow_forwarding(&self) -> Result<()> {
        if !self.options.enable_forwarding || is_on(FORWARDING) {
            return Ok(());
        }
        if self.options.keep_other_forwarding_off {
            self.in_table(|channel, table| ruleset::set_forward_policy(channel, table, Policy::Drop))?;
        }
        write_setting(FORWARDING, "1")
    }

    /// Delete a network's bridge, if it was made by us, and all that lets its traffic pass. May take
    /// some ten milliseconds. A network that is not there is no error.
    pub fn remove_bridge(&self, network_id: &str) -> Result<()> {
        let _setup = lock(&self.setup);
        let spec = match lock(&self.state).bridges.get(network_id) {
            None => return Ok(()),
            Some(bridge) if !bridge.endpoints.is_empty() => return Err(Error::InUse(network_id.to_owned())),
            Some(bridge) => bridge.spec.clone(),
        };
        let failed = |source| Error::Bridge { bridge: spec.bridge_name.clone(), source };
        self.delete_ours(&[spec.bridge_name.as_str()]).map_err(failed)?;
        let members = ruleset::bridge_members(&spec);
        if let Some(failure) = self.delete_members(&members).into_iter().next() {
            return Err(failed(failure));
        }
        lock(&self.state).bridges.remove(network_id);
        Ok(())
    }
}

/// A bridge's link as it was found or made.
struct Ensured {
    index: u32,
    is_new: bool,
    is_ours: bool,
}

impl State {
    fn bridge_mut(&mut self, network_id: &str) -> Result<&mut Bridge> {
        self.bridges.get_mut(network_id).ok_or_else(|| Error::UnknownNetwork(network_id.to_owned()))
    }
}

/// Names become part of paths below `/proc/sys`, so they are checked before the kernel does.
fn check_name(name: &str) -> Result<()> {
    let is_fit = !name.is_empty()
        && name.len() <= 15
        && !matches!(name, "." | ".." | "all" | "default")
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte));
    if is_fit { Ok(()) } else { Err(Error::InvalidName(name.to_owned())) }
}

/// A connection to 127.0.0.1 leaves by the bridge when its port is published.
fn allow_loopback_sources(bridge: &str) -> Result<()> {
    write_setting(&format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"), "1")
}

/// Where the bridge passes nothing from port to port, the host answers in the neighbours' place, and at once: by
/// default it takes its time. What is sent then comes to the rules.
fn answer_for_neighbours(bridge: &str, isolated: bool) -> Result<()> {
    let wanted = if isolated { "1" } else { "0" };
    write_setting(&format!("/proc/sys/net/ipv4/conf/{bridge}/proxy_arp_pvlan"), wanted)?;
    write_setting(&format!("/proc/sys/net/ipv4/neigh/{bridge}/proxy_delay"), "0")
}

fn is_on(path: &str) -> bool {
    fs::read(path).is_ok_and(|text| text.first() == Some(&b'1'))
}

fn write_setting(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).map_err(|source| Error::Setting { path: path.to_owned(), source })
}
