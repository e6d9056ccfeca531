//! Leave for single containers to call each other on a bridge whose containers may not (`icc=false`).
//!
//! The rules know by the set `linked` who may pass. Where they do not see what is bridged, the ports of the
//! bridge pass no frame to each other; so that packets find another way, the host answers who asks for a
//! neighbour's hardware address with its own (RFC 3069).

use super::{Networks, State, lock};
use crate::conntrack::{self, Flows};
use crate::error::{Error, Result};
use crate::netlink::{Channel, Failure};
use crate::ports::Protocol;
use crate::ruleset;
use crate::types::{Endpoint, Pass};

impl Networks {
    /// Let `from` call `to` on these ports, and hear answers, until one of the two is detached. Does nothing
    /// where all containers may talk to each other, or if one of the two is no longer there.
    pub fn permit(&self, from: &Endpoint, to: &Endpoint, ports: &[(Protocol, u16)]) -> Result<()> {
        // Held from the books to the kernel: who ends a pass finds it in both or in neither.
        let filter = lock(&self.filter);
        let mut passes = Vec::new();
        {
            let mut state = lock(&self.state);
            let has_both = state.has(from) && state.has(to) && from.ip != to.ip;
            let bridge = state.bridge_mut(&from.network_id)?;
            if bridge.spec.icc || !has_both {
                return Ok(());
            }
            // On a user's bridge there may be others than containers, for whom we do not answer.
            if bridge.isolated && !bridge.is_ours {
                return Err(Error::NoPass { bridge: bridge.spec.bridge_name.clone() });
            }
            let pass = |&(protocol, port)| Pass { from: from.ip, to: to.ip, protocol, port };
            passes.extend(ports.iter().map(pass).filter(|pass| state.passes.insert(*pass)));
        }
        let members: Vec<_> = passes.iter().map(ruleset::pass_member).collect();
        ruleset::add(filter.channel(), &self.options.table, &members).map_err(|source| {
            let mut state = lock(&self.state);
            state.passes.retain(|pass| !passes.contains(pass));
            Error::Permit { endpoint: from.endpoint_id.clone(), source }
        })
    }

    /// Take back what [`permit`](Self::permit) let one container do. Connections that stand go on.
    pub fn forbid(&self, from: &Endpoint, to: &Endpoint) -> Result<()> {
        let filter = lock(&self.filter);
        let passes = {
            let mut state = lock(&self.state);
            let has_both = state.has(from) && state.has(to);
            state.take_passes(|pass| has_both && (pass.from, pass.to) == (from.ip, to.ip))
        };
        match self.delete_passes(filter.channel(), &passes).into_iter().next() {
            None => Ok(()),
            Some(source) => Err(Error::Permit { endpoint: from.endpoint_id.clone(), source }),
        }
    }

    /// End the passes of a container that leaves, and give its address back, so that none comes anew.
    pub(super) fn leave(&self, endpoint: &Endpoint) -> Vec<Error> {
        {
            let mut state = lock(&self.state);
            if !state.passes.iter().any(|pass| pass.from == endpoint.ip || pass.to == endpoint.ip) {
                state.release(endpoint);
                return Vec::new();
            }
        }
        let filter = lock(&self.filter);
        let passes = {
            let mut state = lock(&self.state);
            // The address may be somebody else's by now.
            let is_there = state.has(endpoint);
            state.take_passes(|pass| is_there && (pass.from == endpoint.ip || pass.to == endpoint.ip))
        };
        let mut failures = self.delete_passes(filter.channel(), &passes);
        // They would go on with the next who has the address.
        if passes.iter().any(|pass| pass.to == endpoint.ip && pass.protocol == Protocol::Udp) {
            failures.extend(conntrack::end(filter.channel(), Flows::AnsweredBy(endpoint.ip)).err());
        }
        lock(&self.state).release(endpoint);
        let failed = |source| Error::Permit { endpoint: endpoint.endpoint_id.clone(), source };
        failures.into_iter().map(failed).collect()
    }

    fn delete_passes(&self, channel: Channel<'_>, passes: &[Pass]) -> Vec<Failure> {
        let members: Vec<_> = passes.iter().map(ruleset::pass_member).collect();
        ruleset::delete_existing(channel, &self.options.table, &members)
    }
}

impl State {
    /// Whether an endpoint still has its address.
    fn has(&self, endpoint: &Endpoint) -> bool {
        let bridge = self.bridges.get(&endpoint.network_id);
        bridge.is_some_and(|bridge| bridge.endpoints.get(&endpoint.endpoint_id) == Some(&endpoint.ip))
    }

    fn take_passes(&mut self, which: impl Fn(&Pass) -> bool) -> Vec<Pass> {
        self.passes.extract_if(which).collect()
    }
}
