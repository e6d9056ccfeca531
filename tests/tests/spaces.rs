//! Namespaces that containers share with the host or with each other, and the init before their programs.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::json;
use testkit::process::eventually;
use testkit::{Bed, BedOptions, image};
use tests::{each_client, has};

/// Where a namespace link of a container's process leads.
fn space(bed: &Bed, name: &str, kind: &str) -> String {
    bed.run(&["exec", name, "readlink", &format!("/proc/self/ns/{kind}")]).ok().to_owned()
}

fn host_space(bed: &Bed, kind: &str) -> String {
    bed.host().shell(&format!("readlink /proc/self/ns/{kind}")).ok().to_owned()
}

#[test]
fn ipc_is_private_unless_it_is_said_to_be_shared() {
    let bed = Bed::new();
    let run = |name: &str, mode: &str| {
        bed.run(&["run", "-d", "--name", name, "--ipc", mode, "busybox", "sleep", "1000"])
    };
    for mode in ["private", "shareable", "none", "host"] {
        run(mode, mode).ok();
    }
    run("guest", "container:shareable").ok();
    run("third", "container:guest").ok();
    let found = bed.inspect("guest");
    assert_eq!(found["HostConfig"]["IpcMode"], json!("container:shareable"));
    assert_eq!(space(&bed, "guest", "ipc"), space(&bed, "shareable", "ipc"));
    assert_ne!(space(&bed, "private", "ipc"), space(&bed, "shareable", "ipc"));
    assert_eq!(space(&bed, "host", "ipc"), host_space(&bed, "ipc"));
    bed.run(&["exec", "shareable", "sh", "-c", "echo shared > /dev/shm/note"]).ok();
    assert_eq!(bed.run(&["exec", "third", "cat", "/dev/shm/note"]).ok(), "shared");
    bed.run(&["exec", "guest", "sh", "-c", "echo back > /dev/shm/note"]).ok();
    assert_eq!(bed.run(&["exec", "shareable", "cat", "/dev/shm/note"]).ok(), "back");
    has(&bed.run(&["exec", "none", "ls", "/dev/shm"]).said(), &["No such file"]);
    // The guest keeps what it shares when the other ends.
    bed.run(&["rm", "-f", "shareable"]).ok();
    assert_eq!(bed.run(&["exec", "guest", "cat", "/dev/shm/note"]).ok(), "back");
    has(
        run("no1", "container:private").fails(125),
        &[
            "failed to join IPC namespace: container private: non-shareable IPC (hint: use IpcMode:shareable for the donor \
         container)",
        ],
    );
    has(run("no2", "container:none").fails(125), &["non-shareable IPC"]);
    has(run("no3", "container:gone").fails(125), &["failed to join IPC namespace: No such container: gone"]);
    bed.run(&["create", "--name", "idle", "--ipc", "shareable", "busybox", "true"]).ok();
    has(
        run("no4", "container:idle").fails(125),
        &["failed to join IPC namespace: container idle is not running"],
    );
}

#[test]
fn pids_networks_and_names() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "base", "--hostname", "basis", "busybox", "sleep", "1000"]).ok();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "guest",
        "--pid",
        "container:base",
        "--network",
        "container:base",
        "busybox",
        "sleep",
        "2000",
    ])
    .ok();
    for kind in ["pid", "net"] {
        assert_eq!(space(&bed, "guest", kind), space(&bed, "base", kind));
    }
    has(bed.run(&["exec", "guest", "ps"]).ok(), &["sleep 1000", "sleep 2000"]);
    assert_eq!(bed.run(&["exec", "guest", "hostname"]).ok(), "basis");
    for (flag, kind) in [
        ("--pid=host", "pid"),
        ("--uts=host", "uts"),
        ("--network=host", "net"),
        ("--cgroupns=host", "cgroup"),
    ] {
        let shown = bed.run(&["run", "--rm", flag, "busybox", "readlink", &format!("/proc/self/ns/{kind}")]);
        assert_eq!(shown.ok(), host_space(&bed, kind), "{flag}");
    }
    let own = bed.run(&["run", "--rm", "--cgroupns=private", "busybox", "readlink", "/proc/self/ns/cgroup"]);
    assert_ne!(own.ok(), host_space(&bed, "cgroup"));
    bed.run(&["run", "--rm", "--userns=host", "busybox", "true"]).ok();
    assert_eq!(bed.run(&["run", "--rm", "--uts=host", "busybox", "hostname"]).ok(), "private-host");
    let named = ["run", "--rm", "-h", "web", "--domainname", "example.test", "busybox"];
    assert_eq!(bed.run(&[&named[..], &["hostname"]].concat()).ok(), "web");
    has(bed.run(&[&named[..], &["cat", "/etc/hosts"]].concat()).ok(), &["web.example.test web"]);
    bed.run(&["rm", "-f", "base"]).ok();
    bed.run(&["create", "--name", "idle", "busybox", "true"]).ok();
    let run = |flag: &str| bed.run(&["run", "--rm", flag, "busybox", "true"]);
    has(
        run("--pid=container:idle").fails(125),
        &["failed to join PID namespace: container idle is not running"],
    );
    has(
        run("--network=container:idle").fails(125),
        &["cannot join network namespace of a non running container: container idle is created"],
    );
    has(run("--network=container:gone").fails(125), &["No such container: gone"]);
}

#[test]
fn what_cannot_be_together_is_refused() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "base", "busybox", "sleep", "1000"]).ok();
    let create = |config: serde_json::Value| {
        let mut body = json!({ "Image": "busybox", "Cmd": ["true"] });
        let all = body.as_object_mut().expect("an object");
        all.extend(config.as_object().expect("an object").clone());
        bed.http().post("/containers/create", &body).refused(400)
    };
    let shared = |more: serde_json::Value| {
        let mut host = json!({ "NetworkMode": "container:base" });
        host.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        host
    };
    for (config, text) in [
        (json!({ "Hostname": "h", "HostConfig": shared(json!({})) }), "hostname and the network mode"),
        (json!({ "HostConfig": shared(json!({ "Dns": ["1.1.1.1"] })) }), "dns and the network mode"),
        (
            json!({ "HostConfig": shared(json!({ "ExtraHosts": ["a:1.1.1.1"] })) }),
            "custom host-to-IP mapping and the network mode",
        ),
        (
            json!({ "HostConfig": shared(json!({ "PublishAllPorts": true })) }),
            "port publishing and the container type network mode",
        ),
        (
            json!({ "ExposedPorts": { "80/tcp": {} }, "HostConfig": shared(json!({})) }),
            "port exposing and the container type network mode",
        ),
        (
            json!({ "HostConfig": shared(json!({ "Links": ["base"] })) }),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (json!({ "Hostname": "h", "HostConfig": { "UTSMode": "host" } }), "hostname and the UTS mode"),
    ] {
        assert_eq!(create(config), format!("conflicting options: {text}"));
    }
    for (entry, text) in [
        ("nocolon", "bad format for add-host: \"nocolon\""),
        ("a:b", "invalid IP address in add-host: \"b\""),
    ] {
        assert_eq!(create(json!({ "HostConfig": { "ExtraHosts": [entry] } })), text);
    }
}

#[test]
fn an_init_reaps_and_forwards() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        let script =
            "trap 'echo told; exit 9' TERM; (sleep 0.1 & exec true) ; echo up; while :; do sleep 0.05; done";
        bed.cli(client, &["run", "-d", "--init", "--name", name, "busybox", "sh", "-c", script]).ok();
        eventually("it is up", || bed.run(&["logs", name]).stdout == "up\n");
        let shown = bed.run(&["exec", name, "ps", "-o", "pid,args"]).ok().to_owned();
        let first = shown.lines().find(|line| line.trim_start().starts_with("1 ")).unwrap_or_default();
        has(first, &["/sbin/docker-init -- sh -c trap"]);
        eventually("orphans are reaped", || !bed.run(&["exec", name, "ps", "-o", "stat"]).ok().contains('Z'));
        assert_eq!(bed.inspect(name)["HostConfig"]["Init"], json!(true));
        bed.run(&["stop", name]).ok();
        assert_eq!(bed.inspect(name)["State"]["ExitCode"], json!(9));
        assert_eq!(bed.run(&["logs", name]).stdout, "up\ntold\n");
    });
    // The code of a program that a signal ended, and that of one that is not there.
    bed.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]).fails(137);
    bed.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "exit 42"]).fails(42);
    has(
        bed.run(&["run", "--rm", "--init", "busybox", "missing"]).fails(127),
        &["executable file not found in $PATH"],
    );
    // As another user, without any privilege, and with a root that cannot be written to.
    let plain =
        ["run", "--rm", "--init", "-u", "1000", "--cap-drop=ALL", "--read-only", "busybox", "id", "-u"];
    assert_eq!(bed.run(&plain).ok(), "1000");
    // The copy that it runs from cannot be written to.
    let write = bed.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "echo x > /proc/1/exe"]);
    assert_ne!(write.code, 0);
    // Who shares the host's processes has an init already.
    let shared =
        bed.run(&["run", "--rm", "--init", "--pid=host", "busybox", "sh", "-c", "cat /proc/$$/cmdline"]);
    assert!(!shared.ok().contains("docker-init"));
}

#[test]
fn the_daemon_may_give_every_container_an_init() {
    let bed = Bed::with(BedOptions { flags: vec!["--init".into()], ..BedOptions::default() });
    bed.load(&image::busybox());
    let first = ["busybox", "cat", "/proc/1/cmdline"];
    assert_eq!(
        bed.run(&[&["run", "--rm"][..], &first].concat()).ok(),
        "/sbin/docker-init\0--\0cat\0/proc/1/cmdline\0"
    );
    assert_eq!(
        bed.run(&[&["run", "--rm", "--init=false"][..], &first].concat()).ok(),
        "cat\0/proc/1/cmdline\0"
    );
}
