//! What a container may do: capabilities, filters, paths, devices, limits.

use crate::*;

pub fn capabilities_are_what_was_asked_for(host: &Host) {
    let field = |output: &str, name: &str| {
        let line = output.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
    };
    let default = default_capabilities().bits();
    let output = host.shell("cat /proc/self/status", no_change);
    for (name, expected) in
        [("CapInh", 0), ("CapPrm", default), ("CapEff", default), ("CapBnd", default), ("CapAmb", 0)]
    {
        assert_eq!(field(&output, name), expected, "{name}");
    }
    // Another user has none left, but the bounding set, and what is ambient.
    let ambient = CapabilitySet::from_iter([Capability::NetBindService]);
    let output = host.shell("cat /proc/self/status", |spec| {
        process(spec).user = User { uid: 33, gid: 34, ..User::default() };
        let sets = process(spec).capabilities.as_mut().unwrap();
        (sets.ambient, sets.inheritable) = (ambient, ambient);
    });
    for (name, expected) in [
        ("CapPrm", ambient.bits()),
        ("CapEff", ambient.bits()),
        ("CapBnd", default),
        ("CapAmb", ambient.bits()),
    ] {
        assert_eq!(field(&output, name), expected, "{name}");
    }
    // More than the machine has is not an error, and not had.
    let own = sys::security::capabilities().unwrap().permitted;
    let output = host.shell("cat /proc/self/status", |spec| {
        let all = CapabilitySet::ALL;
        process(spec).capabilities = Some(LinuxCapabilities {
            bounding: all,
            effective: all,
            permitted: all,
            ..LinuxCapabilities::default()
        });
    });
    assert_eq!(field(&output, "CapEff"), own & CapabilitySet::ALL.bits());
    // And none at all.
    let output = host.shell("cat /proc/self/status", |spec| process(spec).capabilities = None);
    assert_eq!((field(&output, "CapEff"), field(&output, "CapBnd")), (0, 0));
}

pub fn no_new_privileges_and_filters(host: &Host) {
    let output = host.shell("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", |spec| {
        process(spec).no_new_privileges = true
    });
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["NoNewPrivs:", "1", "Seccomp:", "0"]);
    // Allows everything but uname(2), which answers 123.
    let mut filter = Vec::new();
    for (code, jt, jf, k) in [
        (0x20u16, 0u8, 0u8, 0u32),
        (0x15, 0, 1, libc::SYS_uname as u32),
        (6, 0, 0, 0x0005_007b),
        (6, 0, 0, 0x7fff_0000),
    ] {
        filter.extend_from_slice(&code.to_ne_bytes());
        filter.extend_from_slice(&[jt, jf]);
        filter.extend_from_slice(&k.to_ne_bytes());
    }
    for no_new_privileges in [false, true] {
        let mut spec = spec("box", &["sh", "-c", "busybox uname; grep Seccomp: /proc/self/status"]);
        process(&mut spec).no_new_privileges = no_new_privileges;
        process(&mut spec).user.uid = 33;
        let rootfs = overlay(&host.scratch.0, &host.lower(), "box");
        let outcome = run(|stdio| {
            let mut plan = Plan::new("box", &spec, rootfs, stdio);
            plan.seccomp = Some(&filter);
            sandbox::create(plan)
        });
        let output = outcome.unwrap().output;
        assert!(output.contains("Seccomp:\t2"), "{output}");
    }
}

pub fn paths_are_masked_and_read_only(host: &Host) {
    let output = host.shell(
        "cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; ls /proc/acpi | wc -l",
        no_change,
    );
    assert_eq!(output, "0\n0\n0\n");
    for write in [
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "touch /sys/firmware/x",
        "touch /sys/x",
        "mkdir /sys/fs/cgroup/x",
        "chmod 700 /proc/keys",
    ] {
        let outcome = host.run(&["sh", "-c", write], no_change);
        assert!(outcome.output.contains("Read-only file system"), "{write}: {}", outcome.output);
    }
    // What is masked in the image's own files, and what is not there.
    let output = host.shell("cat /etc/plain; ls /var/www; echo end", |spec| {
        linux(spec)
            .masked_paths
            .extend(["/etc/plain", "/var/www", "/not/there", "/etc/passwd/x"].map(Into::into));
    });
    assert_eq!(output, "end\n");
    let outcome = host.run(&["touch", "/x"], |spec| spec.root.as_mut().unwrap().readonly = true);
    assert!(outcome.output.contains("Read-only file system"), "{}", outcome.output);
    assert_eq!(host.shell("touch /dev/shm/x /tmp/y; ls /tmp", no_change), "y\n");
}

pub fn devices_are_there(host: &Host) {
    let output = host.shell("cd /dev; stat -c '%n %a %t %T' null zero full random urandom tty; for l in fd stdin stdout stderr ptmx; do readlink $l; done; stat -c %a pts/ptmx shm; umask", no_change);
    let expected = "null 666 1 3\nzero 666 1 5\nfull 666 1 7\nrandom 666 1 8\nurandom 666 1 9\ntty 666 5 0\n\
                    /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n666\n1777\n0022\n";
    assert_eq!(output, expected);
    let output = host.shell(
        "stat -c '%a %t %T %u %g' /dev/a/tun; cat /dev/a/tun; mknod /tmp/k c 1 11; head -c 1 /tmp/k",
        |spec| {
            linux(spec).devices.push(LinuxDevice {
                path: "/dev/a/tun".into(),
                kind: LinuxDeviceKind::Char,
                major: 10,
                minor: 200,
                file_mode: Some(0o640),
                uid: Some(33),
                gid: Some(34),
            });
            process(spec).args[2].push_str(" || echo refused");
        },
    );
    // Made, but neither may be opened.
    assert!(output.starts_with("640 a c8 33 34\n") && output.ends_with("refused\n"), "{output}");
    assert_eq!(output.matches("Operation not permitted").count(), 2, "{output}");
}

pub fn sysctls_are_written(host: &Host) {
    let output =
        host.shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni", |spec| {
            linux(spec).sysctl.insert("kernel.shmmni".into(), "1234".into());
        });
    assert_eq!(output, "0\n1234\n");
    for (key, value) in [("kernel.panic", "1"), ("net.no.such", "1"), ("net.ipv4.ip_forward", "many")] {
        let error = host.error(&["true"], |spec| {
            linux(spec).sysctl.insert(key.into(), value.into());
        });
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
}

pub fn limits_hold(host: &Host) {
    let resources = |json: &'static str| {
        move |spec: &mut Spec| {
            let devices = std::mem::take(&mut linux(spec).resources.as_mut().unwrap().devices);
            linux(spec).resources = Some(LinuxResources { devices, ..serde_json::from_str(json).unwrap() });
        }
    };
    let (script, expected) = match unified() {
        true => (
            "cd /sys/fs/cgroup; cat memory.max pids.max cpu.weight cpu.max cpuset.cpus",
            "16777216\n20\n59\n20000 100000\n0\n",
        ),
        false => (
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares \
             cpu/cpu.cfs_quota_us cpuset/cpuset.cpus; cat /proc/self/cgroup | grep -c cpuset:/corten",
            "16777216\n20\n512\n20000\n0\n1\n",
        ),
    };
    let output = host.shell(
        script,
        resources(r#"{"memory": {"limit": 16777216}, "pids": {"limit": 20}, "cpu": {"shares": 512, "quota": 20000, "cpus": "0"}}"#),
    );
    assert_eq!(output, expected);
    let outcome = host.run(
        &["sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"],
        resources(r#"{"memory": {"limit": 16777216}}"#),
    );
    assert_ne!(outcome.ended, Ended::Code(0), "{}", outcome.output);
    if !unified() {
        let error = host.error(&["true"], resources(r#"{"network": {"classID": 1048577}}"#));
        assert_eq!(error.to_string(), "cgroup controller net_cls is not available on this machine");
    }
    let output = host.shell("ulimit -n; ulimit -c; cat /proc/self/oom_score_adj", |spec| {
        process(spec).rlimits = vec![
            PosixRlimit { kind: RlimitKind::Nofile, soft: 100, hard: 200 },
            PosixRlimit { kind: RlimitKind::Core, soft: 0, hard: 0 },
        ];
        process(spec).oom_score_adj = Some(500);
    });
    assert_eq!(output, "100\n0\n500\n");
}

pub fn out_of_memory_is_counted(host: &Host) {
    let (spec, running) = host.sleeper(|spec| {
        linux(spec).resources.as_mut().unwrap().memory =
            Some(LinuxMemory { limit: Some(16 << 20), ..LinuxMemory::default() });
    });
    assert_eq!(running.cgroup.oom_kills(), 0);
    let outcome =
        execute(&spec, &running, &["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"], |_| {})
            .unwrap();
    assert_eq!(outcome.ended, Ended::Signal(libc::SIGKILL));
    assert_eq!(running.cgroup.oom_kills(), 1);
    kill(running);
}

pub fn freezing_statistics_and_updates(host: &Host) {
    let (_, running) = host.sleeper(no_change);
    let cgroup = &running.cgroup;
    assert_eq!(cgroup, &Cgroup::open(cgroup.path()).unwrap());
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    assert_eq!(cgroup.pids().unwrap(), [running.pid]);
    let stats = cgroup.stats();
    assert_eq!(stats.pids.current, 1);
    assert!(stats.cpu.usage_nanoseconds > 0 && stats.memory.usage > 0 && !stats.memory.detail.is_empty());
    for limit in [64 << 20, 32 << 20, 128 << 20] {
        let update = LinuxResources {
            memory: Some(LinuxMemory { limit: Some(limit), swap: Some(limit), ..LinuxMemory::default() }),
            pids: Some(LinuxPids { limit: Some(9) }),
            ..LinuxResources::default()
        };
        match cgroup.update(&update) {
            Ok(()) => {}
            // A kernel that does not account swap cannot limit it.
            Err(error) if error.to_string().contains("memsw") => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(cgroup.stats().memory.limit, limit as u64);
    }
    // A controller that it was not in before.
    let update = LinuxResources {
        cpu: Some(LinuxCpu { cpus: "0".into(), ..LinuxCpu::default() }),
        ..LinuxResources::default()
    };
    cgroup.update(&update).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    // Killed while frozen.
    cgroup.freeze().unwrap();
    kill(running);
}

pub fn keyrings_sessions_and_signals(host: &Host) {
    let output = host.run(&["cat", "/proc/self/stat", "/proc/self/status"], no_change).output;
    let stat: Vec<_> = output.split_whitespace().collect();
    assert_eq!(stat[4..6], ["1", "1"]);
    let signals: Vec<_> =
        output.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn")).collect();
    let output = format!("{}\n", signals.join("\n"));
    assert_eq!(output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}
