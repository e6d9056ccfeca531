//! Addresses: which subnet a network gets, and which address a container. Pure bookkeeping.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Docker's pools for networks whose user named no subnet, in its order, each with the size to cut.
const DEFAULT_POOLS: [(Ipv4Net, u8); 7] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 17, 0, 0), 16), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 18, 0, 0), 16), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 19, 0, 0), 16), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 20, 0, 0), 14), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 24, 0, 0), 14), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 28, 0, 0), 14), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16), 20),
];

/// All default subnets in the order in which they are given out.
pub fn default_subnets() -> impl Iterator<Item = Ipv4Net> {
    DEFAULT_POOLS.into_iter().flat_map(|(pool, prefix_len)| {
        pool.subnets(prefix_len).expect("each pool is at least as large as what is cut from it")
    })
}

/// All subnets of the operator's own pools; a pool that is smaller than what is cut from it has none.
pub fn subnets(pools: &[(Ipv4Net, u8)]) -> impl Iterator<Item = Ipv4Net> {
    pools.iter().flat_map(|(pool, prefix_len)| pool.subnets(*prefix_len).into_iter().flatten())
}

/// The first of `candidates` that overlaps nothing in `taken`.
pub fn choose_subnet(candidates: impl IntoIterator<Item = Ipv4Net>, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    candidates.into_iter().find(|candidate| !taken.iter().any(|other| overlaps(*candidate, *other)))
}

fn overlaps(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// Why a pool cannot be made or an address not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("no available IPv4 addresses on this network's address pools")]
    Exhausted,
    // The text is Docker's.
    #[error("Address already in use")]
    InUse,
    #[error("no configured subnet contains IP address {0}")]
    Outside(Ipv4Addr),
    #[error("invalid gateway {gateway}: parent subnet {subnet} doesn't contain it")]
    GatewayOutside { gateway: Ipv4Addr, subnet: Ipv4Net },
    #[error("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range")]
    RangeOutside { range: Ipv4Net, subnet: Ipv4Net },
}

/// The addresses of one subnet. The network's own address, the broadcast address and the gateway are
/// never given out.
#[derive(Debug, Clone)]
pub struct Pool {
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    /// First and last address that may be given to those who ask for none in particular.
    range: (u32, u32),
    taken: Bits,
}

impl Pool {
    /// The pool of `subnet`. Without a gateway the first address of the range becomes it.
    pub fn new(
        subnet: Ipv4Net,
        gateway: Option<Ipv4Addr>,
        ip_range: Option<Ipv4Net>,
    ) -> Result<Self, PoolError> {
        let subnet = subnet.trunc();
        let range = ip_range.map_or(subnet, |range| range.trunc());
        if !subnet.contains(&range) {
            return Err(PoolError::RangeOutside { range, subnet });
        }
        let bounds = (u32::from(range.network()), u32::from(range.broadcast()));
        let mut pool = Self { subnet, gateway: subnet.addr(), range: bounds, taken: Bits::default() };
        if subnet.prefix_len() < 31 {
            pool.taken.set(u32::from(subnet.network()));
            pool.taken.set(u32::from(subnet.broadcast()));
        }
        pool.gateway = match gateway {
            Some(gateway) if !subnet.contains(&gateway) => {
                return Err(PoolError::GatewayOutside { gateway, subnet });
            }
            Some(gateway) => {
                pool.taken.set(u32::from(gateway));
                gateway
            }
            None => pool.take_any()?,
        };
        Ok(pool)
    }

    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Give out the lowest free address of the range.
    pub fn take_any(&mut self) -> Result<Ipv4Addr, PoolError> {
        let (first, last) = self.range;
        let free = self.taken.first_clear(first, last).ok_or(PoolError::Exhausted)?;
        self.taken.set(free);
        Ok(Ipv4Addr::from(free))
    }

    /// Give out this address, which may lie outside the range but not outside the subnet.
    pub fn take(&mut self, address: Ipv4Addr) -> Result<(), PoolError> {
        if !self.subnet.contains(&address) {
            return Err(PoolError::Outside(address));
        }
        if self.taken.set(u32::from(address)) { Ok(()) } else { Err(PoolError::InUse) }
    }

    /// Take an address back. Those that are never given out are not freed either.
    pub fn release(&mut self, address: Ipv4Addr) {
        let is_edge = self.subnet.prefix_len() < 31
            && (address == self.subnet.network() || address == self.subnet.broadcast());
        if self.subnet.contains(&address) && address != self.gateway && !is_edge {
            self.taken.clear(u32::from(address));
        }
    }
}

/// A set of numbers that costs memory only where there are some.
#[derive(Debug, Clone, Default)]
struct Bits {
    words: BTreeMap<u32, u64>,
    /// No number below is clear in any range that was searched from below it.
    hint: Option<(u32, u32)>,
}

impl Bits {
    const WORD: u32 = u64::BITS;

    /// True if the number was not in the set before.
    fn set(&mut self, number: u32) -> bool {
        let word = self.words.entry(number / Self::WORD).or_default();
        let bit = 1 << (number % Self::WORD);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn clear(&mut self, number: u32) {
        if let Some(word) = self.words.get_mut(&(number / Self::WORD)) {
            *word &= !(1 << (number % Self::WORD));
            if *word == 0 {
                self.words.remove(&(number / Self::WORD));
            }
        }
        if let Some((_, next)) = &mut self.hint {
            *next = (*next).min(number);
        }
    }

    /// The lowest number from `first` to `last` that is not in the set.
    fn first_clear(&mut self, first: u32, last: u32) -> Option<u32> {
        let start = match self.hint {
            Some((from, next)) if from == first => next.max(first),
            _ => first,
        };
        let mut candidate = start;
        let mut found = None;
        while candidate <= last {
            let word = self.words.get(&(candidate / Self::WORD)).copied().unwrap_or(0);
            let clear = !word & (u64::MAX << (candidate % Self::WORD));
            let base = candidate - candidate % Self::WORD;
            if clear != 0 {
                found = Some(base + clear.trailing_zeros()).filter(|number| *number <= last);
                break;
            }
            match base.checked_add(Self::WORD) {
                Some(next) => candidate = next,
                None => break,
            }
        }
        self.hint = Some((first, found.unwrap_or(last)));
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn default_subnets_come_in_dockers_order() {
        let all: Vec<_> = default_subnets().map(|net| net.to_string()).collect();
        assert_eq!(all.len(), 15 + 16);
        assert_eq!(all[0], "172.17.0.0/16");
        assert_eq!(all[14], "172.31.0.0/16");
        assert_eq!((&all[15][..], &all[30][..]), ("192.168.0.0/20", "192.168.240.0/20"));
    }

    #[test]
    fn subnets_that_overlap_a_route_are_skipped() {
        let taken = [net("172.17.5.0/24"), net("172.18.0.0/15")];
        assert_eq!(choose_subnet(default_subnets(), &taken), Some(net("172.20.0.0/16")));
        assert_eq!(choose_subnet(default_subnets(), &[net("128.0.0.0/1")]), None);
    }

    #[test]
    fn the_gateway_is_first_and_the_edges_are_kept() {
        let mut pool = Pool::new(net("10.0.0.0/30"), None, None).unwrap();
        assert_eq!(pool.gateway(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(pool.take_any(), Ok(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(pool.take_any(), Err(PoolError::Exhausted));
        assert_eq!(pool.take(Ipv4Addr::new(10, 0, 0, 3)), Err(PoolError::InUse));
        for last in [0, 1, 3] {
            pool.release(Ipv4Addr::new(10, 0, 0, last));
        }
        assert_eq!(pool.take_any(), Err(PoolError::Exhausted));
        pool.release(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(pool.take_any(), Ok(Ipv4Addr::new(10, 0, 0, 2)));
    }

    #[test]
    fn a_range_limits_the_dynamic_addresses_only() {
        let mut pool =
            Pool::new(net("10.1.0.0/16"), Some(Ipv4Addr::new(10, 1, 0, 1)), Some(net("10.1.9.0/31")))
                .unwrap();
        assert_eq!(pool.take(Ipv4Addr::new(10, 1, 0, 7)), Ok(()));
        assert_eq!(pool.take_any(), Ok(Ipv4Addr::new(10, 1, 9, 0)));
        assert_eq!(pool.take_any(), Ok(Ipv4Addr::new(10, 1, 9, 1)));
        assert_eq!(pool.take_any(), Err(PoolError::Exhausted));
    }

    #[test]
    fn wrong_parts_are_named() {
        let outside = Ipv4Addr::new(10, 2, 0, 1);
        assert!(matches!(
            Pool::new(net("10.1.0.0/16"), Some(outside), None),
            Err(PoolError::GatewayOutside { .. })
        ));
        assert!(matches!(
            Pool::new(net("10.1.0.0/16"), None, Some(net("10.0.0.0/8"))),
            Err(PoolError::RangeOutside { .. })
        ));
        let mut pool = Pool::new(net("10.1.0.0/16"), None, None).unwrap();
        assert_eq!(pool.take(outside), Err(PoolError::Outside(outside)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Any,
        Take(u32),
        Release(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Any), (0_u32..300).prop_map(Step::Take), (0_u32..300).prop_map(Step::Release)]
    }

    proptest! {
        #[test]
        fn a_pool_behaves_like_a_set(
            prefix_len in 22_u8..=32,
            last_subnet: bool,
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let base = if last_subnet { Ipv4Addr::BROADCAST } else { Ipv4Addr::new(10, 9, 0, 0) };
            let subnet = Ipv4Net::new(base, prefix_len).unwrap().trunc();
            let first = u32::from(subnet.network());
            let last = u32::from(subnet.broadcast());
            let mut pool = Pool::new(subnet, None, None).unwrap();
            let mut fixed = BTreeSet::from([u32::from(pool.gateway())]);
            if prefix_len < 31 {
                fixed.extend([first, last]);
            }
            let mut taken = fixed.clone();
            for step in steps {
                match step {
                    Step::Any => {
                        let expected = (first..=last).find(|address| !taken.contains(address));
                        prop_assert_eq!(pool.take_any().ok().map(u32::from), expected);
                        taken.extend(expected);
                    }
                    Step::Take(offset) => {
                        let Some(address) = first.checked_add(offset) else { continue };
                        let answer = pool.take(Ipv4Addr::from(address));
                        if address > last {
                            prop_assert_eq!(answer, Err(PoolError::Outside(Ipv4Addr::from(address))));
                        } else {
                            prop_assert_eq!(answer.is_ok(), taken.insert(address));
                        }
                    }
                    Step::Release(offset) => {
                        let Some(address) = first.checked_add(offset) else { continue };
                        pool.release(Ipv4Addr::from(address));
                        if !fixed.contains(&address) {
                            taken.remove(&address);
                        }
                    }
                }
            }
        }

        #[test]
        fn a_chosen_subnet_overlaps_nothing(
            taken in proptest::collection::vec((any::<u32>(), 8_u8..=32), 0..40),
        ) {
            let taken: Vec<_> =
                taken.into_iter().map(|(base, length)| Ipv4Net::new(base.into(), length).unwrap().trunc()).collect();
            if let Some(chosen) = choose_subnet(default_subnets(), &taken) {
                for other in &taken {
                    prop_assert!(!chosen.contains(other) && !other.contains(&chosen));
                }
            }
        }
    }
}
