//! Measures create, start and end of a container with Docker's usual spec.
//!
//! `start_time [COUNT] [WHAT…]`: WHAT is any of `nocgroupmount`, `noseccomp`, `hold` (keep the mount namespace until
//! the end was seen), `phases`.

#[path = "../tests/common/mod.rs"]
mod common;
use common::*;
use sandbox::{Plan, Stdio};
use std::time::{Duration, Instant};

/// Docker's default filter for its default capabilities.
fn filter() -> Vec<u8> {
    let kernel = seccomp::Kernel { major: 6, minor: 1 };
    let arch = seccomp::Arch::HOST.unwrap();
    let capabilities: Vec<_> = default_capabilities().iter().map(|capability| capability.name()).collect();
    let section = seccomp::default_profile().resolve(&capabilities, arch, kernel).unwrap().unwrap();
    seccomp::compile(&section, arch).unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count: usize = arguments.first().and_then(|count| count.parse().ok()).unwrap_or(200);
    let has = |what: &str| arguments.iter().any(|argument| argument == what);
    let scratch = Scratch::new("time");
    let lower = scratch.0.join("lower");
    fill_rootfs(&lower);
    let filter = filter();
    println!("filter of {} instructions", filter.len() / 8);
    let mut spec = spec("time", &["true"]);
    if has("nocgroupmount") {
        spec.mounts.retain(|mount| mount.kind != "cgroup");
    }
    let mut phases = [const { Vec::new() }; 6];
    for _ in 0..count {
        let source = overlay(&scratch.0, &lower, "a");
        let stdio = Stdio::Descriptors { stdin: null(), stdout: null(), stderr: null() };
        let mut plan = Plan::new("time", &spec, source, stdio);
        plan.netlink = true;
        plan.seccomp = (!has("noseccomp")).then_some(&filter[..]);
        let begin = Instant::now();
        let mut created = sandbox::create(plan).unwrap();
        let cloned = Instant::now();
        created.settle().unwrap();
        let settled = Instant::now();
        let mut running = created.start().unwrap();
        let started = Instant::now();
        if !has("hold") {
            running.mounts = None;
        }
        sys::process::wait(running.pid).unwrap();
        let ended = Instant::now();
        drop(running.mounts);
        let released = Instant::now();
        running.cgroup.delete().unwrap();
        let deleted = Instant::now();
        for (phase, time) in phases.iter_mut().zip([
            cloned - begin,
            settled - cloned,
            started - settled,
            ended - started,
            released - ended,
            deleted - released,
        ]) {
            phase.push(time);
        }
    }
    let total: Vec<Duration> =
        (0..count).map(|run| phases[..4].iter().map(|phase| phase[run]).sum()).collect();
    show("create to end", total);
    for (name, phase) in
        ["create", "settle", "start", "run and end", "release mounts", "delete cgroup"].iter().zip(phases)
    {
        show(name, phase);
    }
    remove_parent_cgroups();
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[(times.len() as f64 * part) as usize].as_micros();
    println!("{name:>16}: median {:>6} us, 10 % {:>6} us, 90 % {:>6} us", at(0.5), at(0.1), at(0.9));
}
