//! Network namespaces to test in: one is "the host", others are containers and machines elsewhere.
//!
//! A namespace belongs to a thread; nothing of the machine's own network is touched, and everything is
//! gone when the threads are.

#![allow(deprecated, reason = "unshare's other function is unsafe, for flags that are not used here")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use network::{BridgeSpec, Endpoint, EndpointRequest, HostPort, Networks, Options, PortRequest, Protocol};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

pub const NETWORK: &str = "net1";
/// Long enough for a busy machine; what should not come is waited for as long as this.
const REFUSAL: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace, alive as long as this value.
pub struct Namespace {
    fd: OwnedFd,
    /// A thread that is in it.
    pub tid: i32,
    _end: mpsc::Sender<()>,
}

impl Namespace {
    pub fn new() -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            let fd = OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").unwrap());
            ready.send((fd, rustix::thread::gettid().as_raw_nonzero().get())).unwrap();
            let _ = ended.recv();
        });
        let (fd, tid) = is_ready.recv().unwrap();
        Self { fd, tid, _end: end }
    }

    /// Run something inside.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(act).join().unwrap()
    }

    pub fn start<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let fd = self.fd.try_clone().unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        })
    }

    pub fn route_socket(&self) -> OwnedFd {
        self.run(|| {
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .unwrap()
        })
    }
}

/// Run a test in a fresh namespace that plays the host.
pub fn on_a_host(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        sh("ip link set lo up");
        test();
    })
    .join()
    .unwrap();
}

/// Run a shell command in the calling thread's namespace; returns what it prints.
#[allow(clippy::disallowed_methods, reason = "what the kernel has is read back with its own tools")]
pub fn sh(command: &str) -> String {
    let output = Command::new("/bin/sh").args(["-c", command]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A machine that the host reaches over a cable: it is 192.0.2.9, the host 192.0.2.1.
pub fn outside() -> Namespace {
    let outside = Namespace::new();
    sh(&format!(
        "ip link add up0 type veth peer name eth0 netns {} && ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up",
        outside.tid
    ));
    outside.run(|| {
        sh("ip link set lo up && ip addr add 192.0.2.9/24 dev eth0 && ip link set eth0 up && ip route add default via 192.0.2.1")
    });
    outside
}

pub fn spec() -> BridgeSpec {
    BridgeSpec::new(NETWORK, "corten0", "172.17.0.0/16".parse().unwrap())
}

pub fn host() -> Networks {
    host_with(&spec())
}

pub fn host_with(spec: &BridgeSpec) -> Networks {
    let networks = Networks::open(Options::default()).unwrap();
    networks.ensure_bridge(spec).unwrap();
    networks
}

pub fn endpoint_id(number: u32) -> String {
    format!("{:08x}{:056x}", number.wrapping_mul(0x9e37_79b1), number)
}

pub fn request(number: u32) -> EndpointRequest {
    EndpointRequest { network_id: NETWORK.into(), endpoint_id: endpoint_id(number), ip: None, mac: None }
}

pub fn tcp(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        host_ip: None,
        host_port: HostPort::Fixed(host_port),
        container_port,
        protocol: Protocol::Tcp,
    }
}

pub fn udp(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest { protocol: Protocol::Udp, ..tcp(host_port, container_port) }
}

pub fn at(host_ip: &str, request: PortRequest) -> PortRequest {
    PortRequest { host_ip: Some(host_ip.parse().unwrap()), ..request }
}

/// A namespace that is connected to the network.
pub struct Container {
    pub namespace: Namespace,
    pub endpoint: Endpoint,
}

impl Container {
    pub fn start(networks: &Networks, number: u32, ports: &[PortRequest]) -> Self {
        let mut endpoint = networks.allocate(&request(number)).unwrap();
        endpoint.ports = networks.reserve_ports(&endpoint, ports).unwrap();
        let namespace = Namespace::new();
        let inside = namespace.route_socket();
        networks.connect(&endpoint, inside.as_fd(), namespace.tid, "eth0").unwrap();
        Self { namespace, endpoint }
    }

    pub fn ip(&self) -> Ipv4Addr {
        self.endpoint.ip
    }

    /// Answer TCP connections to a port with the caller's address.
    pub fn serve_tcp(&self, port: u16) {
        serve_tcp(&self.namespace, port);
    }

    /// Answer datagrams to a port with the sender's address.
    pub fn serve_udp(&self, port: u16) {
        let socket = self.namespace.run(move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
            }
        });
    }

    pub fn call_tcp(&self, address: &str) -> Result<String, String> {
        let address = address.to_owned();
        self.namespace.run(move || call_tcp(&address))
    }
}

/// Like [`Container::serve_tcp`], anywhere.
pub fn serve_tcp(namespace: &Namespace, port: u16) {
    let listener = namespace.run(move || TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let caller =
                stream.peer_addr().map_or_else(|error| error.to_string(), |peer| peer.ip().to_string());
            let _ = stream.write_all(caller.as_bytes());
        }
    });
}

/// Connect and return what the server says: the address that it sees us come from.
pub fn call_tcp(address: &str) -> Result<String, String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer)
}

/// True if no connection comes about.
pub fn is_refused(address: &str) -> bool {
    TcpStream::connect_timeout(&address.parse().unwrap(), REFUSAL).is_err()
}

/// Send a datagram and return the answer.
pub fn call_udp(socket: &UdpSocket, address: &str) -> Result<String, String> {
    socket.send_to(b"hello", address).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(REFUSAL)).unwrap();
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
