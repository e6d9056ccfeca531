//! Networks and ports: who reaches whom.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::{Value, json};
use testkit::process::eventually;
use testkit::{Bed, run};
use tests::{each_client, has, is_corten, not_yet};

/// A web server, published or not.
fn server(bed: &Bed, name: &str, flags: &[&str]) {
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(flags);
    words.extend(["busybox", "httpd", "-f", "-p", "80", "-h", "/www"]);
    bed.run(&words).ok();
}

fn address(bed: &Bed, name: &str, network: &str) -> String {
    let found = bed.inspect(name);
    found["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().expect("address").to_owned()
}

/// What a page says, asked for on the private host.
fn fetch(bed: &Bed, url: &str) -> String {
    run(bed.host().command("busybox").args(["timeout", "5", "busybox", "wget", "-qO-", url])).stdout
}

/// A script that asks for a page from inside a container: `timeout` must not be process 1, which the signal of its
/// own children does not end.
fn page(url: &str, seconds: u32) -> String {
    format!("timeout {seconds} wget -qO- {url}; exit $?")
}

const PAGE: &str = "hello from busybox\n";

#[test]
fn published_ports_lead_to_the_container() {
    let bed = Bed::new();
    server(&bed, "web", &["-p", "8080:80"]);
    eventually("it serves", || fetch(&bed, "http://127.0.0.1:8080/") == PAGE);
    // From loopback by name and by any of the host's own addresses.
    let gateway = bed.inspect("web")["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
        .as_str()
        .expect("gateway")
        .to_owned();
    assert_eq!(fetch(&bed, &format!("http://{gateway}:8080/")), PAGE);
    assert_eq!(fetch(&bed, &format!("http://{}/", address(&bed, "web", "bridge"))), PAGE);
    // From another container, through the host.
    let ran = bed.run(&["run", "--rm", "busybox", "sh", "-c", &page(&format!("http://{gateway}:8080/"), 5)]);
    assert_eq!(ran.ok(), PAGE.trim());
    // And from itself.
    let ran = bed.run(&["exec", "web", "sh", "-c", &page(&format!("http://{gateway}:8080/"), 5)]);
    assert_eq!(ran.ok(), PAGE.trim());
    each_client(&bed, |client, _| {
        has(bed.cli(client, &["ps", "--format", "{{.Ports}}"]).ok(), &["0.0.0.0:8080->80/tcp"]);
        has(bed.cli(client, &["port", "web", "80"]).ok(), &["0.0.0.0:8080"]);
    });
    bed.run(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(fetch(&bed, "http://127.0.0.1:8080/"), "");
    bed.run(&["start", "web"]).ok();
    eventually("it serves again", || fetch(&bed, "http://127.0.0.1:8080/") == PAGE);
}

#[test]
fn a_machine_outside_reaches_published_ports_only() {
    let bed = Bed::new();
    server(&bed, "web", &["-p", "8080:80"]);
    eventually("it serves", || fetch(&bed, "http://127.0.0.1:8080/") == PAGE);
    // A second machine: a network namespace on a wire to the host.
    let script = "set -e; ip netns add outside; ip link add wire type veth peer name eth0 netns outside; \
                  ip addr add 192.0.2.1/24 dev wire; ip link set wire up; \
                  ip -n outside addr add 192.0.2.2/24 dev eth0; ip -n outside link set eth0 up; \
                  ip -n outside route add default via 192.0.2.1";
    bed.host().shell(script).ok();
    let from_outside = |url: &str| {
        run(bed
            .host()
            .command("ip")
            .args(["netns", "exec", "outside", "busybox", "timeout", "2", "busybox", "wget", "-qO-", url]))
        .stdout
    };
    assert_eq!(from_outside("http://192.0.2.1:8080/"), PAGE);
    if is_corten(&bed) {
        let direct = format!("http://{}/", address(&bed, "web", "bridge"));
        assert_eq!(from_outside(&direct), "", "the container's own address is no way in");
    }
    bed.host()
        .shell(
            "ip link del wire; ip netns del outside; umount /run/netns; rmdir /run/netns; rm -rf /run/mount",
        )
        .ok();
}

#[test]
fn one_port_one_owner() {
    let bed = Bed::new();
    server(&bed, "web", &["-p", "8080:80"]);
    each_client(&bed, |client, name| {
        let ran = bed.cli(client, &["run", "--name", name, "-p", "8080:80", "busybox", "true"]);
        has(
            ran.fails(125),
            &[
                "driver failed programming external connectivity",
                "Bind for 0.0.0.0:8080 failed: port is already allocated",
            ],
        );
        assert_eq!(bed.inspect(name)["State"]["Status"], json!("created"));
        bed.cli(client, &["rm", name]).ok();
    });
    // A port that some other program of the host holds.
    let mut holder = bed.host().command("busybox").args(["nc", "-l", "-p", "9090"]).spawn().expect("nc");
    eventually("it listens", || {
        bed.host().shell("ss -ltn 2>/dev/null || netstat -ltn").stdout.contains(":9090")
    });
    let ran = bed.run(&["run", "--rm", "-p", "9090:80", "busybox", "true"]);
    has(ran.fails(125), &["9090", "address already in use"]);
    bed.host().shell("pkill -f '^busybox nc -l -p 9090'").ok();
    let _ = holder.wait();
    bed.run(&["rm", "-f", "web"]).ok();
    server(&bed, "next", &["-p", "8080:80"]);
    eventually("the port is free again", || fetch(&bed, "http://127.0.0.1:8080/") == PAGE);
}

#[test]
fn ports_by_address_range_and_choice() {
    let bed = Bed::new();
    server(&bed, "local", &["-p", "127.0.0.1:8081:80"]);
    server(&bed, "chosen", &["-p", "80"]);
    server(&bed, "several", &["-p", "8100-8102:80-82", "--expose", "99"]);
    eventually("it serves", || fetch(&bed, "http://127.0.0.1:8081/") == PAGE);
    let gateway = bed.inspect("local")["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
        .as_str()
        .expect("gateway")
        .to_owned();
    assert_eq!(fetch(&bed, &format!("http://{gateway}:8081/")), "", "bound to loopback only");
    let ports = bed.inspect("chosen")["NetworkSettings"]["Ports"]["80/tcp"].clone();
    let port = ports[0]["HostPort"].as_str().expect("a port was chosen").to_owned();
    assert!(port.parse::<u16>().is_ok_and(|port| port >= 1024), "{port}");
    eventually("it serves", || fetch(&bed, &format!("http://127.0.0.1:{port}/")) == PAGE);
    eventually("it serves", || fetch(&bed, "http://127.0.0.1:8100/") == PAGE);
    let ports = bed.inspect("several")["NetworkSettings"]["Ports"].clone();
    assert_eq!(ports["82/tcp"][0]["HostPort"], json!("8102"));
    assert_eq!(ports["99/tcp"], Value::Null, "exposed and not published");
}

#[test]
fn datagrams_too() {
    let bed = Bed::new();
    // Perl is on every Debian; a container may borrow it.
    let serve = "use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto => 'udp', LocalPort => 53) or die $!; \
                 while (defined $s->recv(my $m, 100)) { $s->send($m) }";
    bed.run(&[
        "run",
        "-d",
        "--name",
        "echo",
        "-p",
        "5353:53/udp",
        "-v",
        "/usr:/usr:ro",
        "-v",
        "/usr/lib:/lib:ro",
        "-v",
        "/usr/lib64:/lib64:ro",
        "busybox",
        "/usr/bin/perl",
        "-e",
        serve,
    ])
    .ok();
    // Bash opens such paths itself.
    let ask = "exec 3<>/dev/udp/127.0.0.1/5353; echo question >&3; timeout 1 head -n 1 <&3";
    eventually("an answer", || run(bed.host().command("bash").args(["-c", ask])).stdout == "question\n");
}

#[test]
fn containers_of_a_network_see_each_other() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/networks/create") {
        return;
    }
    server(&bed, "one", &[]);
    let url = format!("http://{}/", address(&bed, "one", "bridge"));
    let ran = bed.run(&["run", "--rm", "busybox", "sh", "-c", &page(&url, 5)]);
    assert_eq!(ran.ok(), PAGE.trim());
    bed.run(&["network", "create", "--subnet", "10.77.0.0/24", "apart"]).ok();
    server(&bed, "two", &["--network", "apart"]);
    assert!(address(&bed, "two", "apart").starts_with("10.77.0."));
    let ran = bed.run(&["run", "--rm", "--network", "apart", "busybox", "sh", "-c", &page(&url, 1)]);
    assert_ne!(ran.code, 0, "networks are apart: {ran:?}");
    let own = format!("http://{}/", address(&bed, "two", "apart"));
    let ran = bed.run(&["run", "--rm", "--network", "apart", "busybox", "sh", "-c", &page(&own, 5)]);
    assert_eq!(ran.ok(), PAGE.trim());
}

#[test]
fn names_are_found_in_a_network_of_ones_own() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/networks/create") {
        return;
    }
    bed.run(&["network", "create", "team"]).ok();
    server(&bed, "web", &["--network", "team", "--network-alias", "site"]);
    each_client(&bed, |client, _| {
        for name in ["web", "site"] {
            let url = format!("http://{name}/");
            let ran =
                bed.cli(client, &["run", "--rm", "--network", "team", "busybox", "sh", "-c", &page(&url, 5)]);
            assert_eq!(ran.ok(), PAGE.trim());
        }
        let ran =
            bed.cli(client, &["run", "--rm", "--network", "team", "busybox", "cat", "/etc/resolv.conf"]);
        has(ran.ok(), &["nameserver 127.0.0.11"]);
    });
}

#[test]
fn connect_and_disconnect_while_running() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/networks/create") {
        return;
    }
    bed.run(&["network", "create", "extra"]).ok();
    bed.run(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    each_client(&bed, |client, _| {
        bed.cli(client, &["network", "connect", "extra", "web"]).ok();
        let links = bed.run(&["exec", "web", "sh", "-c", "ip -o -4 addr show | grep -c eth"]);
        assert_eq!(links.ok(), "2");
        let text = bed.cli(client, &["network", "connect", "extra", "web"]);
        assert_ne!(text.code, 0, "{text:?}");
        bed.cli(client, &["network", "disconnect", "extra", "web"]).ok();
        let links = bed.run(&["exec", "web", "sh", "-c", "ip -o -4 addr show | grep -c eth"]);
        assert_eq!(links.ok(), "1");
    });
}

#[test]
fn networks_are_made_listed_and_removed() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/networks/create") {
        return;
    }
    let mut http = bed.http();
    each_client(&bed, |client, name| {
        let ran = bed.cli(
            client,
            &[
                "network",
                "create",
                "--label",
                "a=b",
                "--subnet",
                "10.88.0.0/16",
                "--gateway",
                "10.88.0.9",
                name,
            ],
        );
        assert_eq!(ran.ok().len(), 64);
        let found = bed.http().get(&format!("/networks/{name}")).expect(200).json();
        assert_eq!(found["Driver"], json!("bridge"));
        assert_eq!(found["IPAM"]["Config"], json!([{ "Subnet": "10.88.0.0/16", "Gateway": "10.88.0.9" }]));
        has(
            bed.cli(client, &["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).ok(),
            &[&format!("{name} bridge"), "bridge bridge", "host host", "none null"],
        );
        assert_eq!(bed.cli(client, &["network", "rm", name]).ok(), name);
    });
    has(&http.get("/networks/nosuch").refused(404), &["network nosuch not found"]);
    has(
        &http.delete("/networks/bridge").refused(403),
        &["bridge is a pre-defined network and cannot be removed"],
    );
    http.post("/networks/create", &json!({ "Name": "used", "CheckDuplicate": true })).expect(201);
    let text = http.post("/networks/create", &json!({ "Name": "used", "CheckDuplicate": true })).refused(409);
    has(&text, &["network with name used already exists"]);
    bed.run(&["run", "-d", "--name", "web", "--network", "used", "busybox", "sleep", "1000"]).ok();
    has(&http.delete("/networks/used").refused(403), &["network used", "has active endpoints"]);
    let found = http.get("/networks/used").json();
    has(&found["Containers"].to_string(), &["\"Name\":\"web\"", "IPv4Address"]);
    bed.run(&["rm", "-f", "web"]).ok();
    http.delete("/networks/used").expect(204);
    has(
        &http
            .post(
                "/containers/create",
                &json!({ "Image": "busybox", "HostConfig": { "NetworkMode": "nosuch" } }),
            )
            .text(),
        &[],
    );
}

#[test]
fn other_modes() {
    let bed = Bed::new();
    let links = "ip -o link | cut -d: -f2 | cut -d@ -f1 | xargs";
    assert_eq!(bed.run(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", links]).ok(), "lo");
    let host = bed.host().shell("ip -o link | cut -d: -f2 | cut -d@ -f1 | xargs");
    assert_eq!(bed.run(&["run", "--rm", "--network", "host", "busybox", "sh", "-c", links]).ok(), host.ok());
    server(&bed, "web", &[]);
    let ran = bed.run(&[
        "run",
        "--rm",
        "--network",
        "container:web",
        "busybox",
        "sh",
        "-c",
        &page("http://127.0.0.1/", 5),
    ]);
    assert_eq!(ran.ok(), PAGE.trim());
    let ran = bed.run(&["run", "--rm", "--network", "container:web", "-p", "1:1", "busybox", "true"]);
    has(ran.fails(125), &["port publishing and the container type network mode"]);
}

#[test]
fn fixed_addresses_and_mac() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/networks/create") {
        return;
    }
    bed.run(&["network", "create", "--subnet", "10.99.0.0/24", "fixed"]).ok();
    let show = "ip -o -4 addr show eth0 | awk '{print $4}'; cat /sys/class/net/eth0/address";
    let ran = bed.run(&[
        "run",
        "--rm",
        "--network",
        "fixed",
        "--ip",
        "10.99.0.77",
        "--mac-address",
        "02:42:00:00:00:07",
        "busybox",
        "sh",
        "-c",
        show,
    ]);
    assert_eq!(ran.ok(), "10.99.0.77/24\n02:42:00:00:00:07");
    bed.run(&[
        "run",
        "-d",
        "--name",
        "holder",
        "--network",
        "fixed",
        "--ip",
        "10.99.0.78",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let ran = bed.run(&["run", "--rm", "--network", "fixed", "--ip", "10.99.0.78", "busybox", "true"]);
    has(ran.fails(125), &["Address already in use"]);
    // Docker of old lets this through.
    if is_corten(&bed) {
        let ran = bed.run(&["run", "--rm", "--ip", "172.17.0.200", "busybox", "true"]);
        has(ran.fails(125), &["user-specified IP address is supported on user-defined networks only"]);
    }
}

#[test]
fn addresses_are_given_back() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/networks/create") {
        return;
    }
    bed.run(&["network", "create", "--subnet", "10.66.0.0/29", "small"]).ok();
    // Five addresses are left of eight; twelve containers one after another need them again and again.
    for _ in 0..12 {
        bed.run(&["run", "--rm", "--network", "small", "busybox", "true"]).ok();
    }
    for number in 0..5 {
        let name = format!("c{number}");
        bed.run(&["run", "-d", "--name", &name, "--network", "small", "busybox", "sleep", "1000"]).ok();
    }
    let ran = bed.run(&["run", "--rm", "--network", "small", "busybox", "true"]);
    has(ran.fails(125), &["no available", "address"]);
}
