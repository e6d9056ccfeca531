//! Which packets pass, and as whose they arrive.

use std::net::UdpSocket;
use std::os::fd::AsFd;

use network::{BridgeSpec, Protocol};

use crate::world::*;

#[test]
fn a_published_port_is_reached_from_everywhere() {
    on_a_host(|| {
        let outside = outside();
        let networks = host();
        let web = Container::start(&networks, 1, &[tcp(8080, 80)]);
        let other = Container::start(&networks, 2, &[]);
        web.serve_tcp(80);

        assert_eq!(web.ip().to_string(), "172.17.0.2");
        assert_eq!(outside.run(|| call_tcp("192.0.2.1:8080")), Ok("192.0.2.9".into()));
        assert_eq!(call_tcp("192.0.2.1:8080"), Ok("192.0.2.1".into()));
        assert_eq!(call_tcp("127.0.0.1:8080"), Ok("172.17.0.1".into()));
        assert_eq!(call_tcp("172.17.0.1:8080"), Ok("172.17.0.1".into()));
        for address in ["192.0.2.1:8080", "172.17.0.1:8080"] {
            assert_eq!(other.call_tcp(address), Ok("172.17.0.1".into()), "{address}");
            assert_eq!(web.call_tcp(address), Ok("172.17.0.1".into()), "{address}");
        }
    });
}

#[test]
fn it_is_also_reached_where_bridged_traffic_passes_no_rules() {
    on_a_host(|| {
        sh("! test -e /proc/sys/net/bridge || echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables");
        let networks = host();
        let web = Container::start(&networks, 1, &[tcp(8080, 80)]);
        let other = Container::start(&networks, 2, &[]);
        web.serve_tcp(80);
        assert_eq!(other.call_tcp("172.17.0.1:8080"), Ok("172.17.0.1".into()));
        assert_eq!(web.call_tcp("172.17.0.1:8080"), Ok("172.17.0.1".into()));
        assert_eq!(call_tcp("127.0.0.1:8080"), Ok("172.17.0.1".into()));
    });
}

#[test]
fn two_containers_publish_side_by_side() {
    on_a_host(|| {
        let outside = outside();
        let networks = host();
        let one = Container::start(&networks, 1, &[tcp(8081, 80), tcp(8083, 80)]);
        let two = Container::start(&networks, 2, &[tcp(8082, 80)]);
        one.serve_tcp(80);
        two.serve_tcp(80);
        for address in ["192.0.2.1:8081", "192.0.2.1:8082", "192.0.2.1:8083"] {
            assert_eq!(outside.run(|| call_tcp(address)), Ok("192.0.2.9".into()));
        }
        networks.disconnect(&one.endpoint);
        assert!(outside.run(|| is_refused("192.0.2.1:8081")));
        assert_eq!(outside.run(|| call_tcp("192.0.2.1:8082")), Ok("192.0.2.9".into()));
    });
}

#[test]
fn a_container_goes_out_under_the_hosts_address() {
    on_a_host(|| {
        let outside = outside();
        serve_tcp(&outside, 7000);
        let networks = host();
        let container = Container::start(&networks, 1, &[]);
        assert_eq!(container.call_tcp("192.0.2.9:7000"), Ok("192.0.2.1".into()));
    });
}

#[test]
fn without_masquerading_it_goes_out_under_its_own() {
    on_a_host(|| {
        let outside = outside();
        serve_tcp(&outside, 7000);
        let networks = host_with(&BridgeSpec { masquerade: false, ..spec() });
        let container = Container::start(&networks, 1, &[]);
        assert_eq!(container.call_tcp("192.0.2.9:7000"), Ok("172.17.0.2".into()));
    });
}

#[test]
fn containers_reach_each_other_and_the_host_reaches_them() {
    on_a_host(|| {
        let networks = host();
        let one = Container::start(&networks, 1, &[]);
        let two = Container::start(&networks, 2, &[]);
        two.serve_tcp(80);
        assert_eq!(one.call_tcp("172.17.0.3:80"), Ok("172.17.0.2".into()));
        assert_eq!(call_tcp("172.17.0.3:80"), Ok("172.17.0.1".into()));
        assert_eq!(one.call_tcp("127.0.0.1:80").unwrap_err(), "Connection refused (os error 111)");
    });
}

#[test]
fn what_is_not_published_is_not_reached_from_outside() {
    on_a_host(|| {
        let outside = outside();
        let networks = host();
        let web = Container::start(&networks, 1, &[tcp(8080, 80)]);
        for port in [80, 81] {
            web.serve_tcp(port);
        }
        // The outside machine's default route leads here, so only the rules stand between.
        for address in ["172.17.0.2:80", "172.17.0.2:81", "192.0.2.1:81", "192.0.2.1:80"] {
            assert!(outside.run(|| is_refused(address)), "{address}");
        }
    });
}

#[test]
fn a_port_published_on_one_address_is_reached_there_only() {
    on_a_host(|| {
        let outside = outside();
        sh("ip addr add 192.0.2.2/24 dev up0");
        let networks = host();
        let web =
            Container::start(&networks, 1, &[at("127.0.0.1", tcp(8080, 80)), at("192.0.2.2", tcp(8082, 80))]);
        web.serve_tcp(80);
        assert_eq!(call_tcp("127.0.0.1:8080"), Ok("172.17.0.1".into()));
        assert_eq!(outside.run(|| call_tcp("192.0.2.2:8082")), Ok("192.0.2.9".into()));
        assert!(is_refused("192.0.2.1:8080"));
        assert!(outside.run(|| is_refused("192.0.2.1:8080")));
        assert!(outside.run(|| is_refused("192.0.2.1:8082")));
        assert!(is_refused("127.0.0.1:8082"));
    });
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    on_a_host(|| {
        let outside = outside();
        let networks = host();
        let web = Container::start(&networks, 1, &[at("127.0.0.1", tcp(8080, 80))]);
        let other = Container::start(&networks, 2, &[]);
        web.serve_tcp(80);
        let listener = std::net::TcpListener::bind("127.0.0.1:9000").unwrap();
        listener.set_nonblocking(true).unwrap();
        // Both neighbours send packets for 127.0.0.1 to the host on purpose.
        let trick = |gateway: &'static str| {
            move || {
                sh(&format!(
                    "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
                     ip addr del 127.0.0.1/8 dev lo; ip route flush table local match 127.0.0.0/8
                     ip route add 127.0.0.1/32 via {gateway} dev eth0"
                ));
            }
        };
        other.namespace.run(trick("172.17.0.1"));
        outside.run(trick("192.0.2.1"));
        for address in ["127.0.0.1:9000", "127.0.0.1:8080"] {
            assert!(other.namespace.run(|| is_refused(address)), "container to {address}");
            assert!(outside.run(|| is_refused(address)), "outside to {address}");
        }
        assert!(listener.accept().is_err());
        assert_eq!(call_tcp("127.0.0.1:8080"), Ok("172.17.0.1".into()));
        // Only the rules stood between.
        sh("nft flush chain ip corten raw_prerouting");
        assert!(!other.namespace.run(|| is_refused("127.0.0.1:9000")));
    });
}

#[test]
fn udp_is_published_and_a_new_container_gets_the_old_ones_flows() {
    on_a_host(|| {
        let outside = outside();
        let networks = host();
        let client = outside.run(|| UdpSocket::bind("192.0.2.9:5000").unwrap());
        let local = UdpSocket::bind("127.0.0.1:5001").unwrap();
        // A flow from before the port was published must not keep its way.
        call_udp(&client, "192.0.2.1:53").unwrap_err();

        let one = Container::start(&networks, 1, &[udp(53, 5353)]);
        one.serve_udp(5353);
        assert_eq!(call_udp(&client, "192.0.2.1:53"), Ok("192.0.2.9".into()));
        assert_eq!(call_udp(&local, "127.0.0.1:53"), Ok("172.17.0.1".into()));
        let second = Container::start(&networks, 2, &[]);
        networks.disconnect(&one.endpoint);
        call_udp(&client, "192.0.2.1:53").unwrap_err();

        let three = Container::start(&networks, 3, &[]);
        assert_eq!(three.ip(), one.ip());
        let four = Container::start(&networks, 4, &[udp(53, 5354)]);
        four.serve_udp(5354);
        assert_eq!(call_udp(&client, "192.0.2.1:53"), Ok("192.0.2.9".into()));
        assert_eq!(call_udp(&local, "127.0.0.1:53"), Ok("172.17.0.1".into()));
        drop(second);
    });
}

/// Where the kernel can.
fn show_bridged_traffic_to_rules(shown: bool) {
    let setting = u8::from(shown);
    sh(&format!(
        "! test -e /proc/sys/net/bridge || echo {setting} > /proc/sys/net/bridge/bridge-nf-call-iptables"
    ));
}

#[test]
fn without_icc_only_published_ports_connect_containers() {
    for has_bridge_filter in [true, false] {
        on_a_host(move || {
            show_bridged_traffic_to_rules(has_bridge_filter);
            let networks = host_with(&BridgeSpec { icc: false, ..spec() });
            let web = Container::start(&networks, 1, &[tcp(8080, 80)]);
            let other = Container::start(&networks, 2, &[]);
            web.serve_tcp(80);
            assert!(other.namespace.run(|| is_refused("172.17.0.2:80")));
            assert_eq!(other.call_tcp("172.17.0.1:8080"), Ok("172.17.0.1".into()));
            assert_eq!(call_tcp("127.0.0.1:8080"), Ok("172.17.0.1".into()));
        });
    }
}

#[test]
fn without_icc_a_pass_lets_one_container_call_another_at_one_port() {
    for has_bridge_filter in [true, false] {
        on_a_host(move || {
            show_bridged_traffic_to_rules(has_bridge_filter);
            let networks = host_with(&BridgeSpec { icc: false, ..spec() });
            let db = Container::start(&networks, 1, &[]);
            let web = Container::start(&networks, 2, &[]);
            let other = Container::start(&networks, 3, &[]);
            for port in [80, 81] {
                db.serve_tcp(port);
                web.serve_tcp(port);
            }
            db.serve_udp(53);
            let ports = [(Protocol::Tcp, 80), (Protocol::Udp, 53)];
            networks.permit(&web.endpoint, &db.endpoint, &ports).unwrap();
            networks.permit(&web.endpoint, &db.endpoint, &ports).unwrap();

            assert_eq!(web.call_tcp("172.17.0.2:80"), Ok("172.17.0.3".into()), "its own address is seen");
            let asks = |from: &Container| {
                from.namespace.run(|| call_udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), "172.17.0.2:53"))
            };
            assert_eq!(asks(&web), Ok("172.17.0.3".into()));
            assert!(web.namespace.run(|| is_refused("172.17.0.2:81")), "another port");
            assert!(db.namespace.run(|| is_refused("172.17.0.3:80")), "the other way round");
            assert!(other.namespace.run(|| is_refused("172.17.0.2:80")), "somebody else");
            asks(&other).unwrap_err();

            networks.forbid(&web.endpoint, &db.endpoint).unwrap();
            assert!(web.namespace.run(|| is_refused("172.17.0.2:80")));
            assert!(!sh("nft list set ip corten linked").contains("elements"));
        });
    }
}

#[test]
fn a_pass_ends_with_either_container_and_survives_the_daemon() {
    on_a_host(|| {
        let closed = BridgeSpec { icc: false, ..spec() };
        let networks = host_with(&closed);
        let db = Container::start(&networks, 1, &[]);
        let web = Container::start(&networks, 2, &[]);
        let third = Container::start(&networks, 3, &[]);
        db.serve_tcp(80);
        third.serve_tcp(80);
        let ports = [(Protocol::Tcp, 80)];
        networks.permit(&web.endpoint, &db.endpoint, &ports).unwrap();
        networks.permit(&web.endpoint, &third.endpoint, &ports).unwrap();
        drop(networks);

        // The next daemon knows of the first pass only.
        let networks = host_with(&closed);
        let live = [db.endpoint.clone(), web.endpoint.clone(), third.endpoint.clone()];
        assert!(networks.adopt(&live).is_empty());
        assert_eq!(web.call_tcp("172.17.0.2:80"), Ok("172.17.0.3".into()), "meanwhile too");
        networks.permit(&web.endpoint, &db.endpoint, &ports).unwrap();
        assert_eq!(networks.sweep(&live).element_count, 1);
        assert_eq!(web.call_tcp("172.17.0.2:80"), Ok("172.17.0.3".into()));
        assert!(web.namespace.run(|| is_refused("172.17.0.4:80")));

        assert!(networks.disconnect(&db.endpoint).is_empty());
        assert!(!sh("nft list set ip corten linked").contains("elements"));
        // Nobody gets leave for one that is gone, and the next with its address inherits nothing.
        networks.permit(&web.endpoint, &db.endpoint, &ports).unwrap();
        assert!(!sh("nft list set ip corten linked").contains("elements"));
        networks.permit(&web.endpoint, &third.endpoint, &ports).unwrap();
        // A second time, when the address could be somebody else's.
        assert!(networks.disconnect(&db.endpoint).is_empty());
        assert_eq!(web.call_tcp("172.17.0.4:80"), Ok("172.17.0.3".into()));
        assert!(networks.disconnect(&web.endpoint).is_empty());
        assert!(!sh("nft list set ip corten linked").contains("elements"));
    });
}

#[test]
fn where_containers_may_talk_no_pass_is_needed_and_on_a_users_bridge_none_is_given() {
    on_a_host(|| {
        let networks = host();
        let db = Container::start(&networks, 1, &[]);
        let web = Container::start(&networks, 2, &[]);
        networks.permit(&web.endpoint, &db.endpoint, &[(Protocol::Tcp, 80)]).unwrap();
        assert!(!sh("nft list set ip corten linked").contains("elements"));
        assert_eq!(sh("cat /proc/sys/net/ipv4/conf/corten0/proxy_arp_pvlan"), "0\n");
    });
    on_a_host(|| {
        sh("ip link add mine type bridge && ip addr add 172.17.0.1/16 dev mine");
        sh("! test -e /proc/sys/net/bridge || echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables");
        let networks = host_with(&BridgeSpec { icc: false, bridge_name: "mine".into(), ..spec() });
        let db = Container::start(&networks, 1, &[]);
        let web = Container::start(&networks, 2, &[]);
        db.serve_tcp(80);
        assert!(web.namespace.run(|| is_refused("172.17.0.2:80")));
        let error = networks.permit(&web.endpoint, &db.endpoint, &[(Protocol::Tcp, 80)]).unwrap_err();
        assert!(error.to_string().starts_with("bridge mine is not Corten's own"), "{error}");
    });
}

#[test]
fn an_internal_network_has_no_way_out() {
    on_a_host(|| {
        let outside = outside();
        serve_tcp(&outside, 7000);
        let networks = host_with(&BridgeSpec { internal: true, ..spec() });
        let one = Container::start(&networks, 1, &[tcp(8080, 80)]);
        let two = Container::start(&networks, 2, &[]);
        one.serve_tcp(80);
        assert!(one.endpoint.ports.is_empty());
        assert_eq!(two.call_tcp("172.17.0.2:80"), Ok("172.17.0.3".into()));
        assert!(two.call_tcp("192.0.2.9:7000").unwrap_err().contains("unreachable"));
        two.namespace.run(|| sh("ip route add default via 172.17.0.1"));
        assert!(two.namespace.run(|| is_refused("192.0.2.9:7000")));
        assert!(outside.run(|| is_refused("172.17.0.2:80")));
    });
}

#[test]
fn two_bridges_are_apart_except_for_published_ports() {
    on_a_host(|| {
        let networks = host();
        let second = BridgeSpec::new("net2", "br-second", "172.18.0.0/16".parse().unwrap());
        networks.ensure_bridge(&second).unwrap();
        let web = Container::start(&networks, 1, &[tcp(8080, 80)]);
        web.serve_tcp(80);
        let mut other = request(2);
        other.network_id = "net2".into();
        let endpoint = networks.allocate(&other).unwrap();
        let namespace = Namespace::new();
        let inside = namespace.route_socket();
        networks.connect(&endpoint, inside.as_fd(), namespace.tid, "eth0").unwrap();
        assert!(namespace.run(|| is_refused("172.17.0.2:80")));
        assert_eq!(namespace.run(|| call_tcp("172.18.0.1:8080")), Ok("172.17.0.1".into()));
        assert_eq!(namespace.run(|| call_tcp("172.17.0.1:8080")), Ok("172.17.0.1".into()));
    });
}

#[test]
fn a_host_that_was_no_router_becomes_none_for_others() {
    on_a_host(|| {
        sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
        let outside = outside();
        let behind = Namespace::new();
        sh(&format!(
            "ip link add down0 type veth peer name eth0 netns {} && ip addr add 198.51.100.1/24 dev down0 && ip link set down0 up",
            behind.tid
        ));
        behind.run(|| {
            sh("ip addr add 198.51.100.9/24 dev eth0 && ip link set eth0 up && ip route add default via 198.51.100.1")
        });
        serve_tcp(&behind, 80);
        let networks = host();
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        assert!(outside.run(|| is_refused("198.51.100.9:80")));
        // The next daemon finds forwarding on, and must not take that for the user's wish.
        drop(networks);
        let _networks = host();
        assert!(outside.run(|| is_refused("198.51.100.9:80")));
        sh("nft add chain ip corten forward '{ policy accept; }'");
        assert_eq!(outside.run(|| call_tcp("198.51.100.9:80")), Ok("192.0.2.9".into()));
    });
}
