//! Namespaces, hooks and what is left behind.

use crate::*;

pub fn exit_codes_and_signals(host: &Host) {
    assert_eq!(host.run(&["true"], no_change).ended, Ended::Code(0));
    assert_eq!(host.run(&["sh", "-c", "exit 42"], no_change).ended, Ended::Code(42));
    // The first process of a PID namespace is spared its own signals; one from outside is not.
    let (_, running) = host.sleeper(no_change);
    kill(running);
}

pub fn namespaces_are_its_own(host: &Host) {
    let script =
        "for n in cgroup ipc mnt net pid time uts; do readlink /proc/self/ns/$n; done; hostname; echo $$";
    let output = host.shell(script, |spec| {
        with_cgroup_namespace(spec);
    });
    let mut lines = output.lines();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts"] {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(Path::new(lines.next().unwrap()), own, "{name}");
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["box", "1"]);
    // What is not asked for is shared.
    let output = host.shell("readlink /proc/self/ns/ipc; readlink /proc/self/ns/user", |spec| {
        linux(spec).namespaces.retain(|namespace| namespace.kind != LinuxNamespaceKind::Ipc);
        spec.mounts.retain(|mount| mount.kind != "mqueue");
    });
    let own = |name| {
        fs::read_link(format!("/proc/self/ns/{name}")).unwrap().into_os_string().into_string().unwrap()
    };
    assert_eq!(output.lines().collect::<Vec<_>>(), [own("ipc"), own("user")]);
}

pub fn the_cgroup_namespace_starts_at_the_container(host: &Host) {
    let output = host.shell("cat /proc/self/cgroup", |spec| {
        with_cgroup_namespace(spec);
    });
    let own = if unified() { "0::/" } else { "memory:/" };
    assert!(output.lines().any(|line| line.ends_with(own)), "{output}");
}

pub fn the_loopback_is_up_and_the_netlink_socket_inside(host: &Host) {
    let output = host.shell("ip addr show lo; ls /sys/class/net", no_change);
    assert!(output.contains("127.0.0.1/8") && output.ends_with("lo\n"), "{output}");
    let spec = spec("box", &["ls", "/sys/class/net"]);
    let rootfs = overlay(&host.scratch.0, &host.lower(), "box");
    let (mut output, input) = std::io::pipe().unwrap();
    let stdio = Stdio::Descriptors { stdin: null(), stdout: input.into(), stderr: null() };
    let mut plan = Plan::new("box", &spec, rootfs, stdio);
    plan.netlink = true;
    let created = sandbox::create(plan).unwrap();
    add_bridge(created.netlink.as_ref().unwrap());
    let outcome = finish(created.start().unwrap(), &mut output);
    assert_eq!(outcome.output, "br7\nlo\n");
}

/// Adds an interface `br7` in the socket's namespace.
fn add_bridge(socket: &OwnedFd) {
    let attribute = |kind: u16, value: &[u8]| {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let mut body = vec![0; 16];
    body.extend(attribute(3, b"br7\0"));
    body.extend(attribute(18, &attribute(1, b"bridge")));
    let mut message = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
    // RTM_NEWLINK; NLM_F_REQUEST, ACK, CREATE and EXCL.
    message.extend_from_slice(&16u16.to_ne_bytes());
    message.extend_from_slice(&0x605u16.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend(body);
    rustix::net::send(socket, &message, rustix::net::SendFlags::empty()).unwrap();
    let mut answer = [0; 1024];
    rustix::io::read(socket, &mut answer[..]).unwrap();
    assert_eq!(i32::from_ne_bytes(answer[16..20].try_into().unwrap()), 0, "netlink error");
}

pub fn user_namespaces_map_owners(host: &Host) {
    let lower = host.scratch.0.join("mapped");
    fill_rootfs(&lower);
    for directory in ["", "proc", "dev", "sys", "etc", "tmp"] {
        std::os::unix::fs::chown(lower.join(directory), Some(100_000), Some(100_000)).unwrap();
    }
    let mapping = [LinuxIdMapping { container_id: 0, host_id: 100_000, size: 65536 }];
    let mut spec = spec(
        "box",
        &[
            "sh",
            "-c",
            "id -u; cat /proc/self/uid_map; touch /made; echo > /dev/null; stat -c %u /made; cat /etc/hosts; ls /sys/class/net",
        ],
    );
    let user = LinuxNamespace { kind: LinuxNamespaceKind::User, path: None };
    linux(&mut spec).namespaces.push(user);
    // Of groups that are not mapped.
    linux(&mut spec).sysctl.remove("net.ipv4.ping_group_range");
    linux(&mut spec).uid_mappings = mapping.to_vec();
    linux(&mut spec).gid_mappings = mapping.to_vec();
    let private = host.scratch.0.join("private");
    fs::create_dir_all(&private).unwrap();
    fs::write(private.join("hosts"), "hosts\n").unwrap();
    rustix::fs::chmod(&private, rustix::fs::Mode::from_raw_mode(0o700)).unwrap();
    spec.mounts.push(Mount {
        destination: "/etc/hosts".into(),
        kind: "bind".into(),
        source: Some(private.join("hosts")),
        ..Mount::default()
    });
    let rootfs = overlay(&host.scratch.0, &lower, "mapped");
    std::os::unix::fs::chown(host.scratch.0.join("mapped-upper"), Some(100_000), Some(100_000)).unwrap();
    let outcome = run(|stdio| sandbox::create(Plan::new("box", &spec, rootfs, stdio))).unwrap();
    assert_eq!(outcome.output, "0\n         0     100000      65536\n0\nhosts\nlo\n");
    assert_eq!(fs::metadata(host.scratch.0.join("mapped-upper/made")).unwrap().uid(), 100_000);
}

pub fn user_namespaces_are_joined(host: &Host) {
    let lower = host.scratch.0.join("joined");
    fill_rootfs(&lower);
    for directory in ["", "proc", "dev", "sys", "etc", "tmp"] {
        std::os::unix::fs::chown(lower.join(directory), Some(100_000), Some(100_000)).unwrap();
    }
    let mapping = [LinuxIdMapping { container_id: 0, host_id: 100_000, size: 65536 }];
    let owned = |spec: &mut Spec| {
        linux(spec).sysctl.clear();
        linux(spec).uid_mappings = mapping.to_vec();
        linux(spec).gid_mappings = mapping.to_vec();
        linux(spec).namespaces.push(LinuxNamespace { kind: LinuxNamespaceKind::User, path: None });
    };
    let rootfs = |name: &str| {
        let rootfs = overlay(&host.scratch.0, &lower, name);
        std::os::unix::fs::chown(host.scratch.0.join(format!("{name}-upper")), Some(100_000), Some(100_000))
            .unwrap();
        rootfs
    };
    let mut first_spec = spec("first", &["sleep", "60"]);
    owned(&mut first_spec);
    let stdio = Stdio::Descriptors { stdin: null(), stdout: null(), stderr: null() };
    let plan = Plan::new("first", &first_spec, rootfs("first"), stdio);
    let first = sandbox::create(plan).unwrap().start().unwrap();

    let script = "for n in user net pid; do readlink /proc/self/ns/$n; done; id -u; touch /x; ps | grep -c 'sleep 6[0]'";
    let mut spec = spec("second", &["sh", "-c", script]);
    owned(&mut spec);
    for namespace in &mut linux(&mut spec).namespaces {
        let name = match namespace.kind {
            LinuxNamespaceKind::User => "user",
            LinuxNamespaceKind::Network => "net",
            LinuxNamespaceKind::Pid => "pid",
            _ => continue,
        };
        namespace.path = Some(format!("/proc/{}/ns/{name}", first.pid).into());
    }
    let outcome = run(|stdio| sandbox::create(Plan::new("second", &spec, rootfs("second"), stdio))).unwrap();
    let mut lines = outcome.output.lines();
    for name in ["user", "net", "pid"] {
        let theirs = fs::read_link(format!("/proc/{}/ns/{name}", first.pid)).unwrap();
        assert_eq!(Path::new(lines.next().unwrap()), theirs, "{}", outcome.output);
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["0", "1"]);
    // Another process joins the first one's world as well.
    let outcome =
        execute(&first_spec, &first, &["sh", "-c", "id -u; readlink /proc/self/ns/user"], |_| {}).unwrap();
    let theirs = fs::read_link(format!("/proc/{}/ns/user", first.pid)).unwrap();
    assert_eq!(outcome.output, format!("0\n{}\n", theirs.display()));
    kill(first);
}

pub fn time_offsets(host: &Host) {
    let own: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let output = host.shell("cat /proc/uptime", |spec| {
        linux(spec).time_offsets =
            [(TimeClock::Boottime, LinuxTimeOffset { secs: 1_000_000, nanosecs: 0 })].into();
    });
    let theirs: f64 = output.split(' ').next().unwrap().parse().unwrap();
    assert!(theirs - own >= 1_000_000.0 && theirs - own < 1_001_000.0, "{output}");
    assert_eq!(
        fs::read_link("/proc/self/ns/time").unwrap(),
        fs::read_link("/proc/self/ns/time_for_children").unwrap()
    );
}

pub fn joining_the_namespaces_of_another(host: &Host) {
    let (_, first) = host.sleeper(no_change);
    let join = |name: &str| Some(format!("/proc/{}/ns/{name}", first.pid).into());
    let mut spec = spec(
        "second",
        &["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; ps | grep -c 'sleep 6[0]'"],
    );
    for namespace in &mut linux(&mut spec).namespaces {
        match namespace.kind {
            LinuxNamespaceKind::Network => namespace.path = join("net"),
            LinuxNamespaceKind::Pid => namespace.path = join("pid"),
            LinuxNamespaceKind::Ipc => namespace.path = join("ipc"),
            _ => {}
        }
    }
    linux(&mut spec).sysctl.clear();
    let rootfs = overlay(&host.scratch.0, &host.lower(), "second");
    let outcome = run(|stdio| sandbox::create(Plan::new("second", &spec, rootfs, stdio))).unwrap();
    let link = |name: &str| {
        fs::read_link(join(name).unwrap() as std::path::PathBuf)
            .unwrap()
            .into_os_string()
            .into_string()
            .unwrap()
    };
    assert_eq!(outcome.output.lines().collect::<Vec<_>>(), [link("net"), link("pid"), "1".into()]);
    assert_eq!(
        fs::read_link("/proc/self/ns/pid").unwrap(),
        fs::read_link("/proc/self/ns/pid_for_children").unwrap()
    );
    kill(first);
    linux(&mut spec).namespaces[0].path = Some("/no/such/namespace".into());
    let rootfs = overlay(&host.scratch.0, &host.lower(), "second");
    assert!(matches!(
        run(|stdio| sandbox::create(Plan::new("second", &spec, rootfs, stdio))),
        Err(Error::Invalid(_))
    ));
}

pub fn hooks_run_where_they_should(host: &Host) {
    let trace = host.scratch.0.join("trace");
    let hook = |name: &str, script: &str| Hook {
        path: "/bin/sh".into(),
        args: vec!["hook".into(), "-c".into(), format!("{script}; echo {name} >> {}", trace.display())],
        env: vec!["PATH=/bin:/usr/bin".into()],
        timeout: Some(10),
    };
    let outcome = host.run(&["cat", "/hooked"], |spec| {
        spec.hooks = Some(Hooks {
            prestart: vec![hook("prestart", "grep -q '\"status\":\"creating\"'")],
            create_runtime: vec![hook("createRuntime", "grep -q '\"id\":\"box\"'")],
            create_container: vec![hook("createContainer", "readlink /proc/self/ns/mnt > /dev/null")],
            start_container: vec![Hook {
                path: "/bin/sh".into(),
                args: vec!["sh".into(), "-c".into(), "/bin/echo inside > /hooked".into()],
                env: vec![],
                timeout: None,
            }],
            poststart: vec![hook("poststart", "true")],
            poststop: vec![],
        });
    });
    assert_eq!(outcome.output, "inside\n");
    assert_eq!(fs::read_to_string(&trace).unwrap(), "prestart\ncreateRuntime\ncreateContainer\npoststart\n");
    let error = host.error(&["true"], |spec| {
        spec.hooks = Some(Hooks { create_runtime: vec![hook("bad", "exit 3")], ..Hooks::default() })
    });
    assert!(error.to_string().contains("createRuntime hook #0: exit status 3"), "{error}");
    let slow = Hook { timeout: Some(1), ..hook("slow", "exec sleep 20") };
    let error =
        host.error(&["true"], |spec| spec.hooks = Some(Hooks { prestart: vec![slow], ..Hooks::default() }));
    assert!(error.to_string().contains("timed out"), "{error}");
}

pub fn nothing_is_left_after_a_discard(host: &Host) {
    let spec = spec("box", &["true"]);
    let rootfs = overlay(&host.scratch.0, &host.lower(), "box");
    let stdio = Stdio::Descriptors { stdin: null(), stdout: null(), stderr: null() };
    let mut created = sandbox::create(Plan::new("box", &spec, rootfs, stdio)).unwrap();
    created.settle().unwrap();
    let (pid, cgroup) = (created.pid, created.cgroup.clone());
    created.discard();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(cgroup.pids().unwrap(), [] as [i32; 0]);
    assert!(!Path::new("/sys/fs/cgroup/memory").join(cgroup.path().trim_start_matches('/')).exists());
}
