//! Deleting what is ours, and finding what belongs to nobody.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use super::{Networks, State, lock};
use crate::error::Error;
use crate::link;
use crate::netlink::{Batch, Failure};
use crate::ports::PublishedPort;
use crate::ruleset::{self, Member};
use crate::types::Endpoint;

/// What [`Networks::sweep`] found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Names of links that were deleted.
    pub links: Vec<String>,
    /// How many nftables elements were deleted.
    pub element_count: usize,
    pub errors: Vec<Error>,
}

impl Networks {
    /// Delete links and nftables elements of ours that belong to no network and no endpoint, neither
    /// among `live` nor of those known from `ensure_bridge`, `allocate` and `adopt`. May take some ten
    /// milliseconds.
    pub fn sweep(&self, live: &[Endpoint]) -> Swept {
        let _setup = lock(&self.setup);
        let mut swept = Swept::default();
        let found = link::all(lock(&self.route).channel());
        let stray: Vec<_> = match found {
            Ok(links) => {
                let state = lock(&self.state);
                let is_known = |name: &String| {
                    state.names.contains_key(name)
                        || live.iter().any(|endpoint| endpoint.host_ifname == *name)
                        || state.bridges.values().any(|bridge| bridge.spec.bridge_name == *name)
                };
                let groups = self.options.link_group..=self.doomed_group();
                let ours = links.into_iter().filter(|link| groups.contains(&link.group));
                ours.map(|link| link.name).filter(|name| !is_known(name)).collect()
            }
            Err(source) => {
                swept.errors.push(Error::Sweep(source));
                Vec::new()
            }
        };
        let names: Vec<_> = stray.iter().map(String::as_str).collect();
        match self.delete_ours(&names) {
            Ok(()) => swept.links = stray,
            Err(source) => swept.errors.push(Error::Sweep(source)),
        }
        self.sweep_elements(live, &mut swept);
        swept
    }

    fn sweep_elements(&self, live: &[Endpoint], swept: &mut Swept) {
        for set in ruleset::SETS {
            let found = ruleset::members(lock(&self.filter).channel(), &self.options.table, set);
            let found = match found {
                Ok(found) => found,
                Err(source) => {
                    swept.errors.push(Error::Sweep(source));
                    continue;
                }
            };
            let known = lock(&self.state).known_members(live);
            let stray: Vec<_> = found
                .into_iter()
                .filter(|(set, element)| {
                    !known.iter().any(|(of, wanted)| {
                        of.name == set.name
                            && (&wanted.key, wanted.ends_interval) == (&element.key, element.ends_interval)
                    })
                })
                .collect();
            swept.element_count += stray.len();
            swept.errors.extend(self.delete_members(&stray).into_iter().map(Error::Sweep));
        }
    }

    /// Throw away the cables of endpoints that were [detached](Self::detach), all at once. The kernel
    /// takes some ten milliseconds for it, however many there are.
    pub fn reap(&self) -> Result<(), Error> {
        let mut batch = Batch::new();
        link::delete_group(&mut batch, self.doomed_group());
        match lock(&self.removal).channel().execute(batch) {
            Err(failure) if failure.errno != Errno::NODEV => Err(Error::Reap(failure)),
            _ => Ok(()),
        }
    }

    pub(super) fn doomed_group(&self) -> u32 {
        self.options.link_group.saturating_add(1)
    }

    /// Delete those of these links that are ours; those that are not there are no error.
    pub(super) fn delete_ours(&self, names: &[&str]) -> Result<(), Failure> {
        let removal = lock(&self.removal);
        let channel = removal.channel();
        let groups = [self.options.link_group, self.doomed_group()];
        let mut ours = Vec::with_capacity(names.len());
        for name in names {
            if link::by_name(channel, name)?.is_some_and(|link| groups.contains(&link.group)) {
                ours.push(*name);
            }
        }
        let mut batch = Batch::new();
        match ours[..] {
            [] => return Ok(()),
            [name] => link::delete_by_name(&mut batch, name),
            _ => {
                for name in ours {
                    link::retire(&mut batch, name, self.doomed_group());
                }
                link::delete_group(&mut batch, self.doomed_group());
            }
        }
        // The other end's namespace may be gone by now, and the cable with it.
        match channel.execute_all(batch).into_iter().find(|failure| failure.errno != Errno::NODEV) {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    /// Delete elements; those that are not there are no error.
    pub(super) fn delete_members(&self, members: &[Member]) -> Vec<Failure> {
        ruleset::delete_existing(lock(&self.filter).channel(), &self.options.table, members)
    }
}

impl State {
    /// All elements that should be there; what they map to does not count.
    fn known_members(&self, live: &[Endpoint]) -> Vec<Member> {
        let mut known: Vec<_> =
            self.bridges.values().flat_map(|bridge| ruleset::bridge_members(&bridge.spec)).collect();
        known.extend(live.iter().flat_map(ruleset::port_members));
        known.extend(self.passes.iter().map(ruleset::pass_member));
        let held = self.ports.held().map(|(protocol, host_ip, host_port)| PublishedPort {
            host_ip: host_ip.into(),
            host_port,
            container_port: 0,
            protocol,
        });
        known.extend(held.filter_map(|port| ruleset::port_member(&port, Ipv4Addr::UNSPECIFIED)));
        known
    }
}
