//! A container's way in and out of a network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Networks, State, check_name, lock};
use crate::conntrack::{self, Flows};
use crate::error::{Error, Result};
use crate::link::{self, Target, Veth};
use crate::mac::MacAddr;
use crate::netlink::{Batch, Channel, Failure};
use crate::ports::{Claim, PortRequest, Protocol, PublishedPort};
use crate::ruleset::{self, Member, port_members};
use crate::types::{Endpoint, EndpointRequest};

/// How long the kernel's own worker may take to declare a new cable usable.
const CARRIER_DEADLINE: Duration = Duration::from_millis(200);

impl Networks {
    /// Give an endpoint its address, MAC and the name of its cable. Touches nothing but our own books.
    pub fn allocate(&self, request: &EndpointRequest) -> Result<Endpoint> {
        let mut state = lock(&self.state);
        let host_ifname = free_name(&request.endpoint_id, &state.names);
        let bridge = state.bridge_mut(&request.network_id)?;
        if bridge.endpoints.contains_key(&request.endpoint_id) {
            return Err(Error::EndpointExists(request.endpoint_id.clone()));
        }
        let ip = match request.ip {
            Some(ip) => bridge.pool.take(ip).map(|()| ip)?,
            None => bridge.pool.take_any()?,
        };
        bridge.endpoints.insert(request.endpoint_id.clone(), ip);
        let endpoint = Endpoint {
            network_id: request.network_id.clone(),
            endpoint_id: request.endpoint_id.clone(),
            ip,
            prefix_len: bridge.spec.subnet.prefix_len(),
            gateway: (!bridge.spec.internal).then(|| bridge.pool.gateway()),
            mac: request.mac.unwrap_or(MacAddr::of_ipv4(ip)),
            host_ifname: host_ifname.clone(),
            ports: Vec::new(),
        };
        state.names.insert(host_ifname, request.endpoint_id.clone());
        Ok(endpoint)
    }

    /// Hold the ports that an endpoint publishes, all or none; the caller puts them into
    /// [`Endpoint::ports`]. An internal network publishes none.
    pub fn reserve_ports(&self, endpoint: &Endpoint, requests: &[PortRequest]) -> Result<Vec<PublishedPort>> {
        let mut state = lock(&self.state);
        let spec = &state.bridge_mut(&endpoint.network_id)?.spec;
        if spec.internal {
            return Ok(Vec::new());
        }
        let default_ip = spec.host_binding_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(state.ports.reserve(&endpoint.endpoint_id, endpoint.ip, default_ip, requests)?)
    }

    /// Put the cable in and lead the published ports there. `inside` is a `NETLINK_ROUTE` socket that was
    /// opened in the container's network namespace, `pid` a process in it. When this returns, packets pass.
    /// If it fails nothing of it remains; the address and ports stay reserved until
    /// [`release`](Self::release) or [`disconnect`](Self::disconnect).
    pub fn connect(&self, endpoint: &Endpoint, inside: BorrowedFd<'_>, pid: i32, ifname: &str) -> Result<()> {
        check_name(ifname)?;
        let plug = lock(&self.state).plug(endpoint)?;
        self.create_cable(endpoint, &plug, pid, ifname)?;
        let done = set_up_inside(endpoint, inside, ifname)
            .and_then(|()| self.publish(endpoint))
            .and_then(|()| self.wait_for_carrier(endpoint));
        if done.is_err() {
            // The first error is the one to tell.
            let members = lock(&self.state).members_of(std::slice::from_ref(endpoint));
            let _ = self.delete_members(&members);
            let _ = self.delete_ours(&[endpoint.host_ifname.as_str()]);
        }
        done
    }

    fn create_cable(&self, endpoint: &Endpoint, plug: &Plug, pid: i32, ifname: &str) -> Result<()> {
        let name = endpoint.host_ifname.as_str();
        let failed =
            |source| Error::Host { endpoint: endpoint.endpoint_id.clone(), name: name.to_owned(), source };
        let create = || {
            let veth = Veth {
                host_name: name,
                inside_name: ifname,
                inside_mac: endpoint.mac,
                inside_pid: pid,
                mtu: plug.mtu,
                group: self.options.link_group,
            };
            let mut batch = Batch::new();
            link::create_veth(&mut batch, &veth);
            lock(&self.route).channel().execute(batch)
        };
        match create() {
            Err(failure) if failure.errno == Errno::EXIST => {
                // A cable of that name is from a daemon that ended before it could clean up, if it is ours.
                self.delete_ours(&[name]).map_err(failed)?;
                create().map_err(failed)?;
            }
            created => created.map_err(failed)?,
        }
        // Only now is it certain that the name is that of our own link.
        let mut batch = Batch::new();
        link::no_link_local_address(&mut batch, Target::Name(name));
        link::put_into_bridge(&mut batch, name, plug.bridge_index);
        if plug.hairpin || plug.isolated {
            link::set_bridge_port(&mut batch, name, plug.hairpin, plug.isolated);
        }
        if endpoint.mac != MacAddr::of_ipv4(endpoint.ip) {
            link::set_neighbour(&mut batch, plug.bridge_index, endpoint.ip, endpoint.mac);
        }
        let failures = lock(&self.route).channel().execute_all(batch);
        match failures.into_iter().find(|failure| !link::is_harmless(failure)) {
            None => Ok(()),
            Some(failure) => {
                // The first error is the one to tell.
                let _ = self.delete_ours(&[name]);
                Err(failed(failure))
            }
        }
    }

    /// The kernel takes a new cable into use in a worker of its own. It is usually done by now.
    fn wait_for_carrier(&self, endpoint: &Endpoint) -> Result<()> {
        let started = Instant::now();
        loop {
            let found = link::by_name(lock(&self.route).channel(), &endpoint.host_ifname);
            match found {
                Ok(Some(link)) if !link.is_running && started.elapsed() < CARRIER_DEADLINE => {
                    std::thread::sleep(Duration::from_micros(50));
                }
                // Late is no failure: the container's first packets may wait a little.
                Ok(Some(_)) => return Ok(()),
                Ok(None) => {
                    return Err(Error::NoInterface {
                        endpoint: endpoint.endpoint_id.clone(),
                        name: endpoint.host_ifname.clone(),
                    });
                }
                Err(source) => {
                    return Err(Error::Host {
                        endpoint: endpoint.endpoint_id.clone(),
                        name: endpoint.host_ifname.clone(),
                        source,
                    });
                }
            }
        }
    }

    fn publish(&self, endpoint: &Endpoint) -> Result<()> {
        if endpoint.ports.is_empty() {
            return Ok(());
        }
        let failed = |source| Error::Publish { endpoint: endpoint.endpoint_id.clone(), source };
        let members = port_members(endpoint);
        {
            let filter = lock(&self.filter);
            let (channel, table) = (filter.channel(), self.options.table.as_str());
            match ruleset::add(channel, table, &members) {
                // The port leads elsewhere: to a container of an earlier daemon, since we hold it.
                Err(failure) if matches!(failure.errno, Errno::BUSY | Errno::EXIST) => {
                    replace_each(channel, table, &members).map_err(failed)?;
                }
                done => done.map_err(failed)?,
            }
            for port in endpoint.ports.iter().filter(|port| port.protocol == Protocol::Udp) {
                conntrack::end(channel, Flows::UdpTo(port.host_port))
                    .map_err(|source| Error::Flows { endpoint: endpoint.endpoint_id.clone(), source })?;
            }
        }
        let state = lock(&self.state);
        for port in &endpoint.ports {
            state.ports.close_off(&endpoint.endpoint_id, endpoint.ip, port)?;
        }
        Ok(())
    }

    /// [`detach`](Self::detach) one endpoint and [`reap`](Self::reap).
    pub fn disconnect(&self, endpoint: &Endpoint) -> Vec<Error> {
        self.disconnect_many(std::slice::from_ref(endpoint))
    }

    /// [`detach`](Self::detach) these endpoints and [`reap`](Self::reap) once.
    pub fn disconnect_many(&self, endpoints: &[Endpoint]) -> Vec<Error> {
        let mut errors = self.detach(endpoints);
        errors.extend(self.reap().err());
        errors
    }

    /// Undo [`connect`](Self::connect), [`reserve_ports`](Self::reserve_ports) and
    /// [`allocate`](Self::allocate), as far as they went. Goes on after an error. When this returns, no
    /// packet passes, and addresses and ports are free; the dead cables wait for [`reap`](Self::reap).
    pub fn detach(&self, endpoints: &[Endpoint]) -> Vec<Error> {
        let mut errors = Vec::new();
        let members = lock(&self.state).members_of(endpoints);
        let failed = |source| Error::Publish { endpoint: name_of(endpoints), source };
        errors.extend(self.delete_members(&members).into_iter().map(failed));
        {
            // Free from here on: whoever restarts a service waits for its port.
            let mut state = lock(&self.state);
            for endpoint in endpoints {
                state.release_ports(endpoint);
            }
        }
        for endpoint in endpoints {
            if endpoint.ports.iter().any(|port| port.protocol == Protocol::Udp) {
                let ended = conntrack::end(lock(&self.filter).channel(), Flows::AnsweredBy(endpoint.ip));
                let failed = |source| Error::Flows { endpoint: endpoint.endpoint_id.clone(), source };
                errors.extend(ended.map_err(failed).err());
            }
        }
        errors.extend(self.retire_cables(endpoints).err());
        errors.extend(endpoints.iter().flat_map(|endpoint| self.leave(endpoint)));
        errors
    }

    fn retire_cables(&self, endpoints: &[Endpoint]) -> Result<()> {
        let names: Vec<_> = {
            let state = lock(&self.state);
            let is_own = |endpoint: &&Endpoint| {
                // The name may have gone to another endpoint since.
                let owner = state.names.get(&endpoint.host_ifname);
                owner.is_none_or(|owner| *owner == endpoint.endpoint_id)
            };
            endpoints.iter().filter(is_own).map(|endpoint| endpoint.host_ifname.as_str()).collect()
        };
        let failed = |source| Error::Host { endpoint: name_of(endpoints), name: names.join(", "), source };
        let route = lock(&self.route);
        let channel = route.channel();
        let mut batch = Batch::new();
        for name in &names {
            let found = link::by_name(channel, name).map_err(failed)?;
            if found.is_some_and(|link| link.group == self.options.link_group) {
                link::retire(&mut batch, name, self.doomed_group());
            }
        }
        // The other end's namespace may be gone by now, and the cable with it.
        match channel.execute_all(batch).into_iter().find(|failure| failure.errno != Errno::NODEV) {
            None => Ok(()),
            Some(failure) => Err(failed(failure)),
        }
    }

    /// Give back an endpoint's address, ports and name without touching the kernel: for one that was
    /// never connected.
    pub fn release(&self, endpoint: &Endpoint) {
        lock(&self.state).release(endpoint);
    }

    /// Take over endpoints of containers that run since before this daemon: their addresses and ports are
    /// reserved again, and the ports lead to them. Goes on after an error.
    pub fn adopt(&self, endpoints: &[Endpoint]) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut members = Vec::new();
        {
            let mut state = lock(&self.state);
            for endpoint in endpoints {
                errors.extend(state.adopt(endpoint));
                members.extend(port_members(endpoint));
            }
        }
        let filter = lock(&self.filter);
        let (channel, table) = (filter.channel(), self.options.table.as_str());
        for some in members.chunks(1024) {
            let added = match ruleset::add(channel, table, some) {
                Err(failure) if matches!(failure.errno, Errno::BUSY | Errno::EXIST) => {
                    replace_each(channel, table, some)
                }
                done => done,
            };
            if let Err(source) = added {
                errors.push(Error::Table { table: table.to_owned(), source });
            }
        }
        drop(filter);
        let state = lock(&self.state);
        for endpoint in endpoints {
            for port in &endpoint.ports {
                let closed = state.ports.close_off(&endpoint.endpoint_id, endpoint.ip, port);
                errors.extend(closed.err().map(Error::from));
            }
        }
        errors
    }
}

/// What `connect` needs to know about the endpoint's network.
#[derive(Debug, Clone, Copy)]
struct Plug {
    bridge_index: u32,
    mtu: Option<u32>,
    hairpin: bool,
    isolated: bool,
}

impl State {
    fn plug(&mut self, endpoint: &Endpoint) -> Result<Plug> {
        let bridge = self.bridge_mut(&endpoint.network_id)?;
        Ok(Plug {
            bridge_index: bridge.index,
            mtu: bridge.spec.mtu,
            // Where bridged traffic passes the rules, a container that calls its own published port is
            // led back within the bridge, out of the port that the call came in by.
            hairpin: !endpoint.ports.is_empty(),
            isolated: bridge.isolated,
        })
    }
    /// The map elements of these endpoints' ports, without those that lead to someone else by now.
    fn members_of(&self, endpoints: &[Endpoint]) -> Vec<Member> {
        let mut members = Vec::new();
        for endpoint in endpoints {
            let own = endpoint
                .ports
                .iter()
                .filter(|port| !self.ports.is_held_by_other(&endpoint.endpoint_id, port));
            members.extend(own.filter_map(|port| ruleset::port_member(port, endpoint.ip)));
        }
        members
    }
    fn release_ports(&mut self, endpoint: &Endpoint) {
        for port in &endpoint.ports {
            self.ports.release(&endpoint.endpoint_id, port);
        }
    }

    pub(super) fn release(&mut self, endpoint: &Endpoint) {
        self.release_ports(endpoint);
        if self.names.get(&endpoint.host_ifname) == Some(&endpoint.endpoint_id) {
            self.names.remove(&endpoint.host_ifname);
        }
        if let Some(bridge) = self.bridges.get_mut(&endpoint.network_id)
            && bridge.endpoints.get(&endpoint.endpoint_id) == Some(&endpoint.ip)
        {
            bridge.endpoints.remove(&endpoint.endpoint_id);
            bridge.pool.release(endpoint.ip);
        }
    }

    fn adopt(&mut self, endpoint: &Endpoint) -> Vec<Error> {
        let owner = endpoint.endpoint_id.as_str();
        let mut errors = Vec::new();
        match self.bridge_mut(&endpoint.network_id) {
            Ok(bridge) => match bridge.pool.take(endpoint.ip) {
                Ok(()) => {
                    bridge.endpoints.insert(owner.to_owned(), endpoint.ip);
                }
                Err(_) if bridge.endpoints.get(owner) == Some(&endpoint.ip) => {}
                Err(error) => errors.push(error.into()),
            },
            Err(error) => errors.push(error),
        }
        self.names.insert(endpoint.host_ifname.clone(), owner.to_owned());
        for port in &endpoint.ports {
            let IpAddr::V4(host_ip) = port.host_ip else { continue };
            let claim = Claim {
                owner,
                container_ip: endpoint.ip,
                container_port: port.container_port,
                protocol: port.protocol,
            };
            self.ports.release(owner, port);
            errors.extend(self.ports.hold(claim, host_ip, port.host_port).err().map(Error::from));
        }
        errors
    }
}

/// How errors call endpoints that were handled together.
fn name_of(endpoints: &[Endpoint]) -> String {
    match endpoints {
        [one] => one.endpoint_id.clone(),
        many => format!("group of {}", many.len()),
    }
}

fn set_up_inside(endpoint: &Endpoint, inside: BorrowedFd<'_>, ifname: &str) -> Result<()> {
    let failed =
        |source| Error::Inside { endpoint: endpoint.endpoint_id.clone(), name: ifname.to_owned(), source };
    let channel = Channel::borrow(inside).map_err(Error::Socket)?;
    let found = link::by_name(channel, ifname).map_err(failed)?;
    let Some(found) = found else {
        return Err(Error::NoInterface { endpoint: endpoint.endpoint_id.clone(), name: ifname.to_owned() });
    };
    let mut batch = Batch::new();
    link::no_link_local_address(&mut batch, Target::Index(found.index));
    link::set_up(&mut batch, found.index);
    link::add_address(&mut batch, found.index, endpoint.ip, endpoint.prefix_len);
    if let Some(gateway) = endpoint.gateway {
        link::add_default_route(&mut batch, found.index, gateway);
    }
    link::set_loopback_up(&mut batch);
    match channel.execute_all(batch).into_iter().find(|failure| !link::is_harmless(failure)) {
        None => Ok(()),
        Some(failure) => Err(failed(failure)),
    }
}

/// Put each element in place of whatever has its key.
fn replace_each(channel: Channel<'_>, table: &str, members: &[Member]) -> Result<(), Failure> {
    for member in members {
        let one = std::slice::from_ref(member);
        match ruleset::delete(channel, table, one) {
            Err(failure) if failure.errno != Errno::NOENT => return Err(failure),
            _ => ruleset::add(channel, table, one)?,
        }
    }
    Ok(())
}

/// A name for the host's end of a cable: `veth` and seven digits of the endpoint's ID, further digits if
/// the first ones are in use.
fn free_name(endpoint_id: &str, used: &HashMap<String, String>) -> String {
    let digits: String = endpoint_id.chars().filter(char::is_ascii_alphanumeric).collect();
    let from_id = (0..digits.len().saturating_sub(6)).map(|start| digits[start..start + 7].to_owned());
    let numbered = (0_u32..).map(|number| format!("{:07x}", number & 0x0fff_ffff));
    from_id
        .chain(numbered)
        .map(|digits| format!("veth{digits}"))
        .find(|name| !used.contains_key(name))
        .expect("there are more names than endpoints")
}
