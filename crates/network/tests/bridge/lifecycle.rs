//! What there is after each step, and that nothing is left after the last.

use std::net::TcpListener;
use std::os::fd::AsFd;

use network::{BridgeSpec, EndpointRequest, Error, HostPort, Networks, Options, PortRequest, Protocol};

use crate::world::*;

fn elements() -> String {
    sh(
        "nft list map ip corten publish_any; nft list map ip corten publish_one; nft list set ip corten bridges",
    )
}

fn links() -> String {
    sh("ip -o link show | cut -d: -f2 | cut -d@ -f1 | sort | tr -d ' ' | tr '\\n' ' '")
}

#[test]
fn a_container_gets_its_interface_address_and_route() {
    on_a_host(|| {
        let networks = host_with(&BridgeSpec { mtu: Some(1400), ..spec() });
        let mac = "02:00:00:00:00:07".parse().unwrap();
        let wanted =
            EndpointRequest { ip: Some("172.17.5.5".parse().unwrap()), mac: Some(mac), ..request(7) };
        let endpoint = networks.allocate(&wanted).unwrap();
        let namespace = Namespace::new();
        let inside = namespace.route_socket();
        networks.connect(&endpoint, inside.as_fd(), namespace.tid, "eth0").unwrap();

        let seen = namespace.run(|| sh("ip -o addr show; ip route; ip -o link show eth0"));
        for part in [
            "inet 172.17.5.5/16 brd 172.17.255.255 scope global eth0",
            "default via 172.17.0.1 dev eth0",
            "mtu 1400",
            "02:00:00:00:00:07",
            "1: lo    inet 127.0.0.1/8",
        ] {
            assert!(seen.contains(part), "{part} in {seen}");
        }
        assert!(!seen.contains("fe80"), "{seen}");
        let seen = sh("ip -o -d link show; ip neigh show");
        for part in
            ["mtu 1400", "master corten0", "state UP", "172.17.5.5 dev corten0 lladdr 02:00:00:00:00:07"]
        {
            assert!(seen.contains(part), "{part} in {seen}");
        }
        assert_eq!(endpoint.host_ifname, format!("veth{}", &endpoint_id(7)[..7]));
        let stored = serde_json::to_string(&endpoint).unwrap();
        assert_eq!(serde_json::from_str::<network::Endpoint>(&stored).unwrap(), endpoint);
    });
}

#[test]
fn disconnecting_leaves_nothing_and_can_be_repeated() {
    on_a_host(|| {
        let networks = host();
        let (before_elements, before_links) = (elements(), links());
        let ports = [
            tcp(8080, 80),
            udp(8080, 80),
            at("127.0.0.1", tcp(9090, 90)),
            PortRequest { protocol: Protocol::Sctp, ..tcp(8080, 80) },
        ];
        let container = Container::start(&networks, 1, &ports);
        assert_ne!(elements(), before_elements);
        assert!(TcpListener::bind("0.0.0.0:8080").is_err());
        for _ in 0..2 {
            let errors = networks.disconnect(&container.endpoint);
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!((elements(), links()), (before_elements.clone(), before_links.clone()));
        }
        assert!(TcpListener::bind("0.0.0.0:8080").is_ok());

        // By now address, name and port belong to another; disconnecting the old one must not hurt it.
        let next = Container::start(&networks, 1, &ports);
        let (with_elements, with_links) = (elements(), links());
        let mut old = container.endpoint.clone();
        old.endpoint_id = endpoint_id(2);
        assert_eq!(old.ip, next.ip());
        assert!(networks.disconnect(&old).is_empty());
        assert_eq!((elements(), links()), (with_elements, with_links));
        assert_ne!(Container::start(&networks, 3, &[]).ip(), next.ip());
    });
}

#[test]
fn a_detached_container_is_dead_and_its_place_is_free_before_the_cable_is_gone() {
    on_a_host(|| {
        let networks = host();
        let container = Container::start(&networks, 1, &[tcp(8080, 80)]);
        container.serve_tcp(80);
        assert_eq!(call_tcp("172.17.0.2:80"), Ok("172.17.0.1".into()));
        let errors = networks.detach(std::slice::from_ref(&container.endpoint));
        assert!(errors.is_empty(), "{errors:?}");
        assert!(is_refused("172.17.0.2:80") && is_refused("127.0.0.1:8080"));
        assert!(links().contains(&container.endpoint.host_ifname));

        let next = Container::start(&networks, 2, &[tcp(8080, 80)]);
        assert_eq!(next.ip(), container.ip());
        next.serve_tcp(80);
        assert_eq!(call_tcp("127.0.0.1:8080"), Ok("172.17.0.1".into()));
        networks.reap().unwrap();
        networks.reap().unwrap();
        assert!(!links().contains(&container.endpoint.host_ifname));
        assert_eq!(call_tcp("127.0.0.1:8080"), Ok("172.17.0.1".into()));
    });
}

#[test]
fn a_cable_that_a_dead_daemon_left_is_replaced() {
    on_a_host(|| {
        let networks = host();
        let name = format!("veth{}", &endpoint_id(1)[..7]);
        let group = Options::default().link_group;
        sh(&format!("ip link add {name} group {group} type veth peer name left"));
        let container = Container::start(&networks, 1, &[]);
        container.serve_tcp(80);
        assert_eq!(call_tcp("172.17.0.2:80"), Ok("172.17.0.1".into()));

        // One that is not ours stays, and is told.
        let name = format!("veth{}", &endpoint_id(2)[..7]);
        sh(&format!("ip link add {name} type veth peer name foreign"));
        let endpoint = networks.allocate(&request(2)).unwrap();
        let namespace = Namespace::new();
        let inside = namespace.route_socket();
        let error = networks.connect(&endpoint, inside.as_fd(), namespace.tid, "eth0").unwrap_err();
        assert!(error.to_string().contains("create veth pair: File exists"), "{error}");
        assert!(networks.disconnect(&endpoint).is_empty());
        assert!(links().contains(&name) && links().contains("foreign"));
        let seen = sh(&format!("ip -o link show {name}"));
        assert!(seen.contains("state DOWN") && !seen.contains("master"), "{seen}");
    });
}

#[test]
fn many_are_disconnected_at_once() {
    on_a_host(|| {
        let networks = host();
        let before = (elements(), links());
        let containers: Vec<_> = (0..5)
            .map(|number| Container::start(&networks, number, &[tcp(8000 + number as u16, 80)]))
            .collect();
        let mut endpoints: Vec<_> = containers.iter().map(|container| container.endpoint.clone()).collect();
        // One that went away by itself is no error.
        sh(&format!(
            "ip link del {}; nft delete element ip corten publish_any '{{ tcp . 8003 }}'",
            endpoints[1].host_ifname
        ));
        let errors = networks.disconnect_many(&endpoints);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!((elements(), links()), before);
        endpoints.clear();
        assert!(networks.disconnect_many(&endpoints).is_empty());
    });
}

#[test]
fn many_threads_at_once_leave_nothing_and_share_nothing() {
    on_a_host(|| {
        let networks = host();
        let before = (elements(), links());
        let live: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|worker| {
                    let networks = &networks;
                    scope.spawn(move || {
                        let any = PortRequest { host_port: HostPort::Any, ..tcp(0, 80) };
                        for round in 0..5 {
                            let one = Container::start(networks, worker * 100 + round, &[any, any]);
                            let errors = networks.detach(std::slice::from_ref(&one.endpoint));
                            assert!(errors.is_empty(), "{errors:?}");
                        }
                        networks.reap().unwrap();
                        Container::start(networks, worker * 100 + 50, &[any])
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let mut addresses: Vec<_> = live.iter().map(Container::ip).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), live.len());
        for container in &live {
            container.serve_tcp(80);
            let address = format!("127.0.0.1:{}", container.endpoint.ports[0].host_port);
            assert_eq!(call_tcp(&address), Ok("172.17.0.1".into()));
        }
        let endpoints: Vec<_> = live.iter().map(|container| container.endpoint.clone()).collect();
        let errors = networks.disconnect_many(&endpoints);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!((elements(), links()), before);
    });
}

#[test]
fn a_failed_connection_is_undone() {
    on_a_host(|| {
        let networks = host();
        let before = (elements(), links());
        let mut endpoint = networks.allocate(&request(1)).unwrap();
        endpoint.ports = networks.reserve_ports(&endpoint, &[tcp(8080, 80)]).unwrap();
        let namespace = Namespace::new();
        let inside = namespace.route_socket();
        let connect = || networks.connect(&endpoint, inside.as_fd(), namespace.tid, "eth0");

        // The name is taken inside.
        namespace.run(|| sh("ip link add eth0 type veth peer name other"));
        let error = connect().unwrap_err();
        assert!(matches!(error, Error::Host { .. }), "{error}");
        assert_eq!((elements(), links()), before);
        namespace.run(|| sh("ip link del eth0"));

        // No process of that number.
        assert!(networks.connect(&endpoint, inside.as_fd(), i32::MAX, "eth0").is_err());
        assert_eq!((elements(), links()), before);

        // The socket belongs to another namespace than the process: the interface is not there.
        let elsewhere = Namespace::new().route_socket();
        let error = networks.connect(&endpoint, elsewhere.as_fd(), namespace.tid, "eth0").unwrap_err();
        assert!(matches!(error, Error::NoInterface { .. }), "{error}");
        assert_eq!((elements(), links()), before);

        // Another program listens by sharing the port; that shows only at the last step.
        let other = {
            use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
            // Programs that tests beside this one start must not keep it open.
            let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
            let socket = socket_with(AddressFamily::INET, kind, flags, None).unwrap();
            sockopt::set_socket_reuseaddr(&socket, true).unwrap();
            bind(&socket, &"0.0.0.0:8080".parse::<std::net::SocketAddr>().unwrap()).unwrap();
            listen(&socket, 1).unwrap();
            socket
        };
        assert_eq!(
            connect().unwrap_err().to_string(),
            "failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use"
        );
        assert_eq!((elements(), links()), before);
        drop(other);

        connect().unwrap();
        assert!(networks.disconnect(&endpoint).is_empty());
        assert_eq!((elements(), links()), before);
    });
}

#[test]
fn taken_ports_are_told_in_dockers_words() {
    on_a_host(|| {
        let networks = host();
        let _one = Container::start(&networks, 1, &[tcp(8080, 80)]);
        let endpoint = networks.allocate(&request(2)).unwrap();
        let error = networks.reserve_ports(&endpoint, &[tcp(8081, 80), tcp(8080, 80)]).unwrap_err();
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
        let _other = TcpListener::bind("0.0.0.0:8081").unwrap();
        let error = networks.reserve_ports(&endpoint, &[tcp(8081, 80)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to bind host port for 0.0.0.0:8081:172.17.0.3:80/tcp: address already in use"
        );
        let any = PortRequest { host_port: HostPort::Any, ..tcp(0, 80) };
        let ports = networks.reserve_ports(&endpoint, &[any, any]).unwrap();
        assert!(ports[0].host_port >= 32768 && ports[0].host_port != ports[1].host_port);
    });
}

#[test]
fn addresses_are_told_in_dockers_words() {
    on_a_host(|| {
        let networks = host_with(&BridgeSpec { subnet: "10.7.0.0/30".parse().unwrap(), ..spec() });
        let with_ip = |number, ip: &str| EndpointRequest { ip: Some(ip.parse().unwrap()), ..request(number) };
        let text = |request| networks.allocate(&request).unwrap_err().to_string();
        networks.allocate(&request(1)).unwrap();
        assert_eq!(text(with_ip(2, "10.7.0.2")), "Address already in use");
        assert_eq!(text(with_ip(2, "10.7.0.1")), "Address already in use");
        assert_eq!(text(with_ip(2, "10.8.0.1")), "no configured subnet contains IP address 10.8.0.1");
        assert_eq!(text(request(2)), "no available IPv4 addresses on this network's address pools");
        let elsewhere = EndpointRequest { network_id: "nowhere".into(), ..request(2) };
        assert_eq!(text(elsewhere), "network nowhere is not set up");
    });
}

#[test]
fn the_next_daemon_takes_over_without_interrupting_traffic() {
    on_a_host(|| {
        let outside = outside();
        let networks = host();
        let web = Container::start(&networks, 1, &[tcp(8080, 80)]);
        let lost = Container::start(&networks, 2, &[tcp(8081, 80)]);
        let second = BridgeSpec::new("net2", "br-second", "172.18.0.0/16".parse().unwrap());
        networks.ensure_bridge(&second).unwrap();
        web.serve_tcp(80);
        drop(networks);

        let networks = Networks::open(Options::default()).unwrap();
        assert_eq!(outside.run(|| call_tcp("192.0.2.1:8080")), Ok("192.0.2.9".into()));
        networks.ensure_bridge(&spec()).unwrap();
        let errors = networks.adopt(std::slice::from_ref(&web.endpoint));
        assert!(errors.is_empty(), "{errors:?}");
        let swept = networks.sweep(&[]);
        assert!(swept.errors.is_empty(), "{swept:?}");
        let mut links_gone = swept.links;
        links_gone.sort();
        let mut expected = vec!["br-second".to_owned(), lost.endpoint.host_ifname.clone()];
        expected.sort();
        assert_eq!(links_gone, expected);
        // The lost port, and for the second bridge: itself, icc, home, and both ends of its subnet.
        assert_eq!(swept.element_count, 1 + 5);
        let swept = networks.sweep(&[]);
        assert_eq!((swept.links.len(), swept.element_count), (0, 0));

        assert_eq!(outside.run(|| call_tcp("192.0.2.1:8080")), Ok("192.0.2.9".into()));
        let endpoint = networks.allocate(&request(3)).unwrap();
        assert_eq!(endpoint.ip.to_string(), "172.17.0.3");
        let error = networks.reserve_ports(&endpoint, &[tcp(8080, 80)]).unwrap_err();
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
        assert!(networks.disconnect(&web.endpoint).is_empty());
        networks.release(&endpoint);
        networks.remove_bridge(NETWORK).unwrap();
        assert!(!links().contains("corten0"));
    });
}

#[test]
fn a_table_of_another_shape_is_replaced_and_others_are_left_alone() {
    on_a_host(|| {
        sh(
            "nft add table ip corten; nft 'add set ip corten bridges { type ipv4_addr; }'; nft add table ip other",
        );
        let networks = host();
        assert!(sh("nft list set ip corten bridges").contains("\"corten0\""));
        networks.uninstall().unwrap();
        assert_eq!(sh("nft list tables"), "table ip other\n");
    });
}

#[test]
fn installing_twice_changes_nothing() {
    on_a_host(|| {
        let _first = host();
        let before = sh("nft list ruleset");
        let _second = host();
        assert_eq!(sh("nft list ruleset"), before);
    });
}

#[test]
fn a_bridge_can_be_changed_and_removed() {
    on_a_host(|| {
        let networks = host();
        networks.ensure_bridge(&BridgeSpec { icc: false, masquerade: false, ..spec() }).unwrap();
        let seen = sh("nft list ruleset");
        assert!(!seen.contains("\"corten0\" . \"corten0\"") && !seen.contains("{ 172.17.0.0/16 }"), "{seen}");
        let moved = BridgeSpec { subnet: "172.20.0.0/16".parse().unwrap(), ..spec() };
        assert!(matches!(networks.ensure_bridge(&moved), Err(Error::SubnetChanged { .. })));

        let endpoint = networks.allocate(&request(1)).unwrap();
        assert!(matches!(networks.remove_bridge(NETWORK), Err(Error::InUse(_))));
        networks.release(&endpoint);
        networks.remove_bridge(NETWORK).unwrap();
        networks.remove_bridge(NETWORK).unwrap();
        assert_eq!(links(), "lo ");
        assert!(!sh("nft list ruleset").contains("elements"));
        networks.ensure_bridge(&moved).unwrap();
    });
}

#[test]
fn a_users_own_bridge_is_used_but_not_removed() {
    on_a_host(|| {
        sh("ip link add mine type bridge && ip addr add 10.9.0.1/24 dev mine");
        let networks = host_with(&BridgeSpec {
            subnet: "10.9.0.0/24".parse().unwrap(),
            bridge_name: "mine".into(),
            ..spec()
        });
        let container = Container::start(&networks, 1, &[]);
        assert_eq!(container.ip().to_string(), "10.9.0.2");
        assert_eq!(networks.gateway(NETWORK), Some("10.9.0.1".parse().unwrap()));
        networks.disconnect(&container.endpoint);
        networks.remove_bridge(NETWORK).unwrap();
        assert_eq!(links(), "lo mine ");
    });
}

#[test]
fn wrong_links_and_names_are_refused() {
    on_a_host(|| {
        sh("ip link add taken type veth peer name taken2");
        let networks = Networks::open(Options::default()).unwrap();
        for name in ["", "a/b", "..", "all", "sixteen-letters-", "with space"] {
            let spec = BridgeSpec { bridge_name: name.into(), ..spec() };
            assert!(matches!(networks.ensure_bridge(&spec), Err(Error::InvalidName(_))), "{name}");
        }
        let error =
            networks.ensure_bridge(&BridgeSpec { bridge_name: "taken".into(), ..spec() }).unwrap_err();
        assert!(matches!(error, Error::NotABridge { .. }), "{error}");
        assert!(!sh("nft list ruleset").contains("elements"));
    });
}

#[test]
fn the_subnet_avoids_what_the_host_has() {
    on_a_host(|| {
        let networks = Networks::open(Options::default()).unwrap();
        let chosen = |taken: &[&str]| {
            let taken: Vec<_> = taken.iter().map(|net| net.parse().unwrap()).collect();
            networks.choose_subnet(&taken).unwrap().to_string()
        };
        assert_eq!(chosen(&[]), "172.17.0.0/16");
        let _outside = outside();
        sh("ip addr add 172.17.3.4/24 dev up0; ip route add 172.18.0.0/30 via 192.0.2.9");
        assert_eq!(chosen(&[]), "172.19.0.0/16");
        assert_eq!(chosen(&["172.16.0.0/12"]), "192.168.0.0/20");
        networks.ensure_bridge(&BridgeSpec { subnet: "172.19.0.0/16".parse().unwrap(), ..spec() }).unwrap();
        assert_eq!(chosen(&[]), "172.20.0.0/16");
        let error = networks.choose_subnet(&["0.0.0.0/0".parse().unwrap()]).unwrap_err();
        assert_eq!(error.to_string(), "all predefined address pools have been fully subnetted");
    });
}
