//! Ports of the host that are published for containers.
//!
//! A reserved port is held by a bound socket, so that no other program can take it meanwhile and one that
//! has it already is noticed. No traffic reaches these sockets: it is rewritten before.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use serde::{Deserialize, Serialize};

/// Ports to choose from when the kernel's own range cannot be read.
const FALLBACK_RANGE: (u16, u16) = (49153, 65535);
const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A protocol that ports cannot be published for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid proto: {0}")]
pub struct InvalidProtocol(String);

impl FromStr for Protocol {
    type Err = InvalidProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            other => Err(InvalidProtocol(other.chars().take(32).collect())),
        }
    }
}

/// Which port of the host is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPort {
    /// Any free one.
    Any,
    Fixed(u16),
    /// The first free one from the first to the last of these.
    Range(u16, u16),
}

/// A port of a container that is to be reachable at the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// The host's address; none means the network's default, usually all of them.
    pub host_ip: Option<IpAddr>,
    pub host_port: HostPort,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// A port of a container that is reachable at the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The unspecified address stands for all addresses of the host.
    pub host_ip: IpAddr,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// Why a port cannot be published. The texts are Docker's: clients match on them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Another container has it.
    #[error("Bind for {host_ip}:{host_port} failed: port is already allocated")]
    Allocated { host_ip: IpAddr, host_port: u16 },
    /// Another program has it, or the kernel does not let us have it.
    #[error(
        "failed to bind host port for {host_ip}:{host_port}:{container_ip}:{container_port}/{protocol}: {}",
        reason(*.errno)
    )]
    Bind {
        host_ip: IpAddr,
        host_port: u16,
        container_ip: Ipv4Addr,
        container_port: u16,
        protocol: Protocol,
        errno: Errno,
    },
    #[error("all ports are allocated")]
    Exhausted,
    #[error("invalid port range {0}-{1}")]
    InvalidRange(u16, u16),
    #[error("host address {0} is not supported: ports are published on IPv4 addresses only")]
    Unsupported(IpAddr),
}

/// An error of `bind` or `listen` in the words that Docker's clients know.
fn reason(errno: Errno) -> String {
    match errno {
        Errno::ADDRINUSE => "address already in use".to_owned(),
        Errno::ADDRNOTAVAIL => "cannot assign requested address".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::PERM => "operation not permitted".to_owned(),
        other => std::io::Error::from(other).to_string(),
    }
}

#[derive(Debug)]
struct Held {
    host_ip: Ipv4Addr,
    owner: String,
    /// None if the kernel has no such protocol: then there is nobody else who could take the port.
    socket: Option<OwnedFd>,
}

/// All ports that are held, and by whom.
#[derive(Debug, Default)]
pub struct PortTable {
    held: HashMap<(Protocol, u16), Vec<Held>>,
    /// Where the search for any free port goes on, so that a port just freed is not given out at once.
    next_any: HashMap<Protocol, u16>,
}

/// Whose port, and where it leads.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub owner: &'a str,
    pub container_ip: Ipv4Addr,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl PortTable {
    /// Hold ports for all requests, or none.
    pub fn reserve(
        &mut self,
        owner: &str,
        container_ip: Ipv4Addr,
        default_host_ip: IpAddr,
        requests: &[PortRequest],
    ) -> Result<Vec<PublishedPort>, PortError> {
        let mut done = Vec::with_capacity(requests.len());
        for request in requests {
            let claim = Claim {
                owner,
                container_ip,
                container_port: request.container_port,
                protocol: request.protocol,
            };
            match self.reserve_one(claim, request.host_ip.unwrap_or(default_host_ip), request.host_port) {
                Ok(port) => done.push(port),
                Err(error) => {
                    for port in &done {
                        self.release(owner, port);
                    }
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    fn reserve_one(
        &mut self,
        claim: Claim<'_>,
        host_ip: IpAddr,
        wanted: HostPort,
    ) -> Result<PublishedPort, PortError> {
        let IpAddr::V4(address) = host_ip else { return Err(PortError::Unsupported(host_ip)) };
        let host_port = match wanted {
            HostPort::Fixed(0) | HostPort::Any => self.hold_any(claim, address)?,
            HostPort::Fixed(port) => self.hold(claim, address, port).map(|()| port)?,
            HostPort::Range(first, last) if first == 0 || first > last => {
                return Err(PortError::InvalidRange(first, last));
            }
            HostPort::Range(first, last) => self.hold_first(claim, address, first..=last)?,
        };
        Ok(PublishedPort {
            host_ip,
            host_port,
            container_port: claim.container_port,
            protocol: claim.protocol,
        })
    }

    fn hold_any(&mut self, claim: Claim<'_>, address: Ipv4Addr) -> Result<u16, PortError> {
        let (first, last) = ephemeral_range();
        let start = self.next_any.get(&claim.protocol).copied().unwrap_or(first).clamp(first, last);
        let port = self.hold_first(claim, address, (start..=last).chain(first..start))?;
        self.next_any.insert(claim.protocol, if port < last { port + 1 } else { first });
        Ok(port)
    }

    fn hold_first(
        &mut self,
        claim: Claim<'_>,
        address: Ipv4Addr,
        candidates: impl Iterator<Item = u16>,
    ) -> Result<u16, PortError> {
        for port in candidates {
            match self.hold(claim, address, port) {
                Ok(()) => return Ok(port),
                Err(PortError::Allocated { .. } | PortError::Bind { errno: Errno::ADDRINUSE, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(PortError::Exhausted)
    }

    /// Hold one port for an owner.
    pub fn hold(&mut self, claim: Claim<'_>, address: Ipv4Addr, port: u16) -> Result<(), PortError> {
        let holders = self.held.entry((claim.protocol, port)).or_default();
        let collides = |held: &Held| {
            held.host_ip == address || held.host_ip.is_unspecified() || address.is_unspecified()
        };
        if holders.iter().any(collides) {
            return Err(PortError::Allocated { host_ip: address.into(), host_port: port });
        }
        let bound = bind(claim.protocol, SocketAddrV4::new(address, port));
        match bound {
            Ok(socket) => {
                holders.push(Held { host_ip: address, owner: claim.owner.to_owned(), socket });
                Ok(())
            }
            Err(errno) => {
                self.forget_if_free(claim.protocol, port);
                Err(bind_error(claim, address, port, errno))
            }
        }
    }

    /// Shut out programs that share ports by `SO_REUSEADDR` as well. To be called when traffic to the
    /// port is already led elsewhere: nobody accepts connections here.
    pub fn close_off(
        &self,
        owner: &str,
        container_ip: Ipv4Addr,
        port: &PublishedPort,
    ) -> Result<(), PortError> {
        let IpAddr::V4(address) = port.host_ip else { return Ok(()) };
        let Some(held) = self.holder(owner, port) else { return Ok(()) };
        match &held.socket {
            Some(socket) if port.protocol != Protocol::Udp => {
                rustix::net::listen(socket, 1).map_err(|errno| {
                    let claim = Claim {
                        owner,
                        container_ip,
                        container_port: port.container_port,
                        protocol: port.protocol,
                    };
                    bind_error(claim, address, port.host_port, errno)
                })
            }
            _ => Ok(()),
        }
    }

    fn holder(&self, owner: &str, port: &PublishedPort) -> Option<&Held> {
        let holders = self.held.get(&(port.protocol, port.host_port))?;
        holders.iter().find(|held| held.owner == owner && IpAddr::V4(held.host_ip) == port.host_ip)
    }

    /// True if someone else holds exactly this port now.
    pub fn is_held_by_other(&self, owner: &str, port: &PublishedPort) -> bool {
        self.held.get(&(port.protocol, port.host_port)).is_some_and(|holders| {
            holders.iter().any(|held| held.owner != owner && IpAddr::V4(held.host_ip) == port.host_ip)
        })
    }

    /// Let go of a port if it is the owner's.
    pub fn release(&mut self, owner: &str, port: &PublishedPort) {
        if let Some(holders) = self.held.get_mut(&(port.protocol, port.host_port)) {
            holders.retain(|held| held.owner != owner || IpAddr::V4(held.host_ip) != port.host_ip);
        }
        self.forget_if_free(port.protocol, port.host_port);
    }

    /// All ports that are held, as protocol, host address and port.
    pub fn held(&self) -> impl Iterator<Item = (Protocol, Ipv4Addr, u16)> {
        self.held.iter().flat_map(|((protocol, port), holders)| {
            holders.iter().map(|held| (*protocol, held.host_ip, *port))
        })
    }

    fn forget_if_free(&mut self, protocol: Protocol, port: u16) {
        if self.held.get(&(protocol, port)).is_some_and(Vec::is_empty) {
            self.held.remove(&(protocol, port));
        }
    }
}

fn bind_error(claim: Claim<'_>, address: Ipv4Addr, port: u16, errno: Errno) -> PortError {
    PortError::Bind {
        host_ip: address.into(),
        host_port: port,
        container_ip: claim.container_ip,
        container_port: claim.container_port,
        protocol: claim.protocol,
        errno,
    }
}

/// A socket that has the port. None if the kernel does not know the protocol.
fn bind(protocol: Protocol, address: SocketAddrV4) -> Result<Option<OwnedFd>, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(number))
    {
        Err(Errno::PROTONOSUPPORT) if protocol == Protocol::Sctp => return Ok(None),
        opened => opened?,
    };
    if protocol == Protocol::Udp {
        // Nobody reads here; what slips in must not pile up.
        sockopt::set_socket_recv_buffer_size(socket.as_fd(), 0)?;
    } else {
        // Connections of a server that had the port before may still be in their last wait.
        sockopt::set_socket_reuseaddr(socket.as_fd(), true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::V4(address))?;
    Ok(Some(socket))
}

/// First and last port that the kernel itself would choose from.
fn ephemeral_range() -> (u16, u16) {
    std::fs::read_to_string(RANGE_FILE).ok().and_then(|text| parse_range(&text)).unwrap_or(FALLBACK_RANGE)
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) if first > 0 && first <= last => Some((first, last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use proptest::prelude::*;
    use rustix::thread::UnshareFlags;

    use super::*;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

    fn request(host_ip: IpAddr, host_port: HostPort, protocol: Protocol) -> PortRequest {
        PortRequest { host_ip: Some(host_ip), host_port, container_port: 80, protocol }
    }

    fn port(host_port: u16) -> PublishedPort {
        PublishedPort { host_ip: ANY, host_port, container_port: 80, protocol: Protocol::Tcp }
    }

    /// Run in a network namespace of its own, where every port is free.
    #[allow(
        deprecated,
        reason = "the other function of this kind is unsafe, for flags that are not used here"
    )]
    fn alone(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            let socket = crate::netlink::Socket::open(None).unwrap();
            let mut batch = crate::netlink::Batch::new();
            crate::link::set_loopback_up(&mut batch);
            socket.channel().execute(batch).unwrap();
            test();
        })
        .join()
        .unwrap();
    }

    fn reserve(table: &mut PortTable, owner: &str, request: PortRequest) -> Result<u16, String> {
        table
            .reserve(owner, CONTAINER, ANY, &[request])
            .map(|ports| ports[0].host_port)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_has_one_holder_until_it_is_released() {
        alone(|| {
            let mut table = PortTable::default();
            let wanted = request(ANY, HostPort::Fixed(80), Protocol::Tcp);
            assert_eq!(reserve(&mut table, "a", wanted), Ok(80));
            let taken = "Bind for 0.0.0.0:80 failed: port is already allocated";
            assert_eq!(reserve(&mut table, "b", wanted), Err(taken.to_owned()));
            let local = request(LOOPBACK, HostPort::Fixed(80), Protocol::Tcp);
            let taken = "Bind for 127.0.0.1:80 failed: port is already allocated";
            assert_eq!(reserve(&mut table, "b", local), Err(taken.to_owned()));
            assert_eq!(reserve(&mut table, "b", request(ANY, HostPort::Fixed(80), Protocol::Udp)), Ok(80));
            table.release("a", &port(80));
            assert_eq!(reserve(&mut table, "b", wanted), Ok(80));
        });
    }

    #[test]
    fn another_programs_port_is_named() {
        alone(|| {
            let mut table = PortTable::default();
            let _tcp = TcpListener::bind("0.0.0.0:8080").unwrap();
            let _udp = UdpSocket::bind("127.0.0.1:53").unwrap();
            assert_eq!(
                reserve(&mut table, "a", request(ANY, HostPort::Fixed(8080), Protocol::Tcp)),
                Err("failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use"
                    .into())
            );
            assert_eq!(
                reserve(&mut table, "a", request(ANY, HostPort::Fixed(53), Protocol::Udp)),
                Err("failed to bind host port for 0.0.0.0:53:172.17.0.2:80/udp: address already in use"
                    .into())
            );
            let elsewhere = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
            assert_eq!(
                reserve(&mut table, "a", request(elsewhere, HostPort::Fixed(81), Protocol::Tcp)),
                Err("failed to bind host port for 203.0.113.9:81:172.17.0.2:80/tcp: cannot assign requested address".into())
            );
        });
    }

    #[test]
    fn a_held_port_shuts_out_other_programs() {
        alone(|| {
            let mut table = PortTable::default();
            let wanted = request(ANY, HostPort::Fixed(80), Protocol::Tcp);
            let ports = table.reserve("a", CONTAINER, ANY, &[wanted]).unwrap();
            table.close_off("a", CONTAINER, &ports[0]).unwrap();
            assert!(TcpListener::bind("0.0.0.0:80").is_err());
            table.release("a", &ports[0]);
            assert!(TcpListener::bind("0.0.0.0:80").is_ok());
        });
    }

    #[test]
    fn a_range_gives_its_first_free_port_and_then_ends() {
        alone(|| {
            let mut table = PortTable::default();
            let _other = TcpListener::bind("0.0.0.0:8001").unwrap();
            let wanted = request(ANY, HostPort::Range(8000, 8002), Protocol::Tcp);
            assert_eq!(reserve(&mut table, "a", wanted), Ok(8000));
            assert_eq!(reserve(&mut table, "b", wanted), Ok(8002));
            assert_eq!(reserve(&mut table, "c", wanted), Err("all ports are allocated".into()));
            let backwards = request(ANY, HostPort::Range(9, 8), Protocol::Tcp);
            assert_eq!(reserve(&mut table, "c", backwards), Err("invalid port range 9-8".into()));
        });
    }

    #[test]
    fn any_port_comes_from_the_kernels_range_and_differs() {
        alone(|| {
            std::fs::write(RANGE_FILE, "50000 50002").unwrap();
            let mut table = PortTable::default();
            let wanted = request(ANY, HostPort::Any, Protocol::Tcp);
            assert_eq!(reserve(&mut table, "a", wanted), Ok(50000));
            table.release("a", &port(50000));
            assert_eq!(reserve(&mut table, "b", wanted), Ok(50001));
            assert_eq!(reserve(&mut table, "c", wanted), Ok(50002));
            assert_eq!(reserve(&mut table, "d", wanted), Ok(50000));
            assert_eq!(reserve(&mut table, "e", wanted), Err("all ports are allocated".into()));
        });
    }

    #[test]
    fn a_failure_frees_what_the_same_call_took() {
        alone(|| {
            let mut table = PortTable::default();
            let one = request(ANY, HostPort::Fixed(80), Protocol::Tcp);
            table.reserve("a", CONTAINER, ANY, &[one, one]).unwrap_err();
            assert!(table.held.is_empty());
        });
    }

    proptest! {
        #[test]
        fn any_range_text_is_read_or_refused(text in ".{0,40}") {
            if let Some((first, last)) = parse_range(&text) {
                prop_assert!(0 < first && first <= last);
            }
        }
    }
}
