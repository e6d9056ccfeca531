//! What the steps cost. Run by hand: `cargo test -p network --test bridge cost -- --ignored --nocapture`.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use network::Networks;

use crate::world::*;

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
    println!("{what:<44} p50 {:>6} us   p90 {:>6} us   max {:>6} us", at(50), at(90), at(100));
}

fn timed<T>(times: &mut Vec<Duration>, act: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = act();
    times.push(started.elapsed());
    result
}

fn start(networks: &Networks, number: u32, times: &mut [Vec<Duration>; 3]) -> Container {
    let namespace = Namespace::new();
    let inside = namespace.route_socket();
    let mut endpoint = timed(&mut times[0], || networks.allocate(&request(number)).unwrap());
    let ports = [tcp(10_000 + number as u16, 80)];
    endpoint.ports = timed(&mut times[1], || networks.reserve_ports(&endpoint, &ports).unwrap());
    timed(&mut times[2], || networks.connect(&endpoint, inside.as_fd(), namespace.tid, "eth0").unwrap());
    Container { namespace, endpoint }
}

#[test]
#[ignore = "prints times, checks nothing"]
fn cost_of_each_step() {
    on_a_host(|| {
        let networks = host();
        let mut containers = Vec::new();
        for round in 0..5 {
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            for number in 0..100 {
                containers.push(start(&networks, round * 100 + number, &mut times));
            }
            println!("containers {} to {}", round * 100, round * 100 + 99);
            for (what, times) in ["  allocate", "  reserve one port", "  connect"].into_iter().zip(times) {
                show(what, times);
            }
        }

        let mut single = Vec::new();
        for container in containers.drain(..50) {
            timed(&mut single, || networks.disconnect(&container.endpoint));
        }
        show("disconnect, one by one", single);

        let mut detached = Vec::new();
        for container in containers.drain(..50) {
            timed(&mut detached, || networks.detach(std::slice::from_ref(&container.endpoint)));
        }
        show("detach", detached);
        let started = Instant::now();
        networks.reap().unwrap();
        println!("reap of 50: {} us", started.elapsed().as_micros());

        let endpoints: Vec<_> = containers.drain(..50).map(|container| container.endpoint.clone()).collect();
        let started = Instant::now();
        networks.disconnect_many(&endpoints);
        println!("disconnect_many of 50: {} us", started.elapsed().as_micros());

        // Connecting while another thread disconnects all the time.
        let endpoints: Vec<_> =
            containers.iter().map(|container| container.endpoint.clone()).take(300).collect();
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        let mut connected = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for endpoint in &endpoints {
                    networks.disconnect(endpoint);
                }
            });
            for number in 0..50 {
                connected.push(start(&networks, 1000 + number, &mut times));
            }
        });
        show("connect while others are disconnected", std::mem::take(&mut times[2]));
    });
}
