//! `run`: what a container prints, how it ends, and what its process sees.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;

use serde_json::json;
use testkit::{Bed, Client, run};
use tests::{each_client, has, is_corten, not_yet};

#[test]
fn output_and_exit_code_come_through() {
    let bed = Bed::new();
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
        assert_eq!(bed.cli(client, &["run", "--rm", "busybox", "true"]).ok(), "");
        let killed = bed.cli(client, &["run", "--rm", "busybox", "sh", "-c", "kill -9 $$; sleep 0.1"]);
        assert_eq!(killed.code, 0, "the first process of a namespace cannot kill itself: {killed:?}");
    });
    assert_eq!(bed.http().get("/containers/json?all=1").json(), json!([]), "--rm removed them");
}

#[test]
fn long_output_is_complete() {
    let bed = Bed::new();
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["run", "--rm", "busybox", "seq", "1", "200000"]);
        let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
        assert!(ran.ok().len() + 1 == wanted.len() && ran.stdout == wanted, "{} bytes", ran.stdout.len());
    });
}

#[test]
fn standard_input_is_read_to_its_end() {
    let bed = Bed::new();
    let ran = bed.run_with_input(&["run", "--rm", "-i", "busybox", "wc", "-c"], &vec![b'x'; 3_000_000]);
    assert_eq!(ran.ok(), "3000000");
    let ran = bed.run_with_input(&["run", "--rm", "busybox", "wc", "-c"], b"not for it");
    assert_eq!(ran.ok(), "0", "without -i there is no input");
}

#[test]
fn a_terminal_is_one() {
    let bed = Bed::new();
    each_client(&bed, |client, _| {
        let ran =
            bed.cli(client, &["run", "--rm", "-t", "busybox", "sh", "-c", "tty; echo $TERM; echo x >&2"]);
        assert_eq!(ran.stdout, "/dev/pts/0\r\nxterm\r\nx\r\n");
    });
}

#[test]
fn a_missing_command_is_127() {
    let bed = Bed::new();
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["run", "--rm", "busybox", "no-such-program", "x"]);
        has(ran.fails(127), &[r#"exec: "no-such-program": executable file not found in $PATH"#]);
        let ran = bed.cli(client, &["run", "--rm", "busybox", "/no/such/program"]);
        has(ran.fails(127), &[r#"exec: "/no/such/program""#, "no such file or directory"]);
    });
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let bed = Bed::new();
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["run", "--rm", "busybox", "/etc/plain"]);
        has(ran.fails(126), &[r#"exec: "/etc/plain": permission denied"#]);
        let ran = bed.cli(client, &["run", "--rm", "busybox", "/etc"]);
        has(ran.fails(126), &[r#"exec: "/etc""#]);
    });
}

#[test]
fn a_failed_start_leaves_a_created_container_that_can_be_removed() {
    let bed = Bed::new();
    bed.run(&["run", "--name", "broken", "busybox", "no-such-program"]).fails(127);
    let state = &bed.inspect("broken")["State"];
    assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("created"), &json!(127)));
    has(state["Error"].as_str().unwrap_or_default(), &["executable file not found"]);
    bed.run(&["rm", "broken"]).ok();
}

#[test]
fn what_the_process_is_given() {
    let bed = Bed::new();
    let show = "pwd; id -u; id -g; hostname; echo $FOO; echo $HOME; echo $PATH; echo \"$0 $*\"";
    each_client(&bed, |client, _| {
        let ran = bed.cli(
            client,
            &[
                "run",
                "--rm",
                "-w",
                "/tmp/deep",
                "-u",
                "user",
                "-h",
                "some-host",
                "-e",
                "FOO=bar baz",
                "busybox",
                "sh",
                "-c",
                show,
                "zero",
                "one",
                "two",
            ],
        );
        let lines: Vec<_> = ran.ok().lines().collect();
        assert_eq!(
            lines,
            [
                "/tmp/deep",
                "1000",
                "1000",
                "some-host",
                "bar baz",
                "/home/user",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "zero one two"
            ]
        );
    });
    let ran = bed.run(&["run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"]);
    assert_eq!(ran.ok(), "a b");
}

#[test]
fn users_are_found_in_the_image() {
    let bed = Bed::new();
    let id = |user: &str| bed.run(&["run", "--rm", "-u", user, "busybox", "sh", "-c", "id -u; id -g; id -G"]);
    assert_eq!(id("user").ok(), "1000\n1000\n1000 2000");
    assert_eq!(id("user:extra").ok(), "1000\n2000\n2000");
    assert_eq!(id("4321").ok(), "4321\n0\n0");
    assert_eq!(id("4321:1234").ok(), "4321\n1234\n1234");
    let ran = id("nosuch");
    has(ran.fails(125), &["unable to find user nosuch: no matching entries in passwd file"]);
    has(id("user:nosuch").fails(125), &["unable to find group nosuch: no matching entries in group file"]);
}

#[test]
fn it_is_alone() {
    let bed = Bed::new();
    let ran = bed.run(&["run", "--rm", "busybox", "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'"]);
    // The shell, its `ls` and its `grep`.
    assert_eq!(ran.ok(), "1\n3");
    let targets = bed.run(&["run", "--rm", "busybox", "sh", "-c", "cut -d' ' -f5 /proc/self/mountinfo"]);
    assert!(!targets.ok().contains("/tmp"), "no mount of the host: {targets:?}");
    let links = bed.run(&["run", "--rm", "busybox", "sh", "-c", "ip -o link | cut -d: -f2 | cut -d@ -f1"]);
    assert_eq!(links.ok().split_whitespace().collect::<Vec<_>>(), ["lo", "eth0"]);
    let links = bed.run(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", "ip -o link | wc -l"]);
    assert_eq!(links.ok(), "1");
}

#[test]
fn its_powers_are_the_usual_fourteen() {
    let bed = Bed::new();
    let caps = |flags: &[&str]| {
        let mut words = vec!["run", "--rm"];
        words.extend(flags);
        words.extend([
            "busybox",
            "grep",
            "-E",
            "Cap(Eff|Bnd|Inh|Amb)|NoNewPrivs|Seccomp:",
            "/proc/self/status",
        ]);
        let ran = bed.run(&words);
        ran.ok()
            .lines()
            .map(|line| line.split_whitespace().last().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let usual = "00000000a80425fb";
    let none = "0000000000000000";
    assert_eq!(caps(&[]), [none, usual, usual, none, "0", "2"]);
    assert_eq!(caps(&["--cap-drop", "ALL"]), [none, none, none, none, "0", "2"]);
    assert_eq!(caps(&["--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"])[1], "0000000000000001");
    assert_eq!(caps(&["--cap-add", "NET_ADMIN"])[1], "00000000a80435fb");
    assert_eq!(caps(&["--security-opt", "no-new-privileges"])[4], "1");
    assert_eq!(caps(&["--security-opt", "seccomp=unconfined"])[5], "0");
    // Another user keeps the bounds and loses the effect.
    assert_eq!(caps(&["-u", "1000"])[1..3], [none, usual]);
}

#[test]
fn privileged_means_all_that_the_daemon_may() {
    let bed = Bed::new();
    // A peer fails where the machine itself lacks a capability.
    let ours = fs::read_to_string(format!("/proc/{}/status", bed.pid())).expect("the daemon's status");
    let ours = ours.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).expect("capabilities");
    if !is_corten(&bed) {
        return;
    }
    let script = "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; ls /dev | grep -c .; \
                  mount -t tmpfs x /tmp && echo mounted; touch /proc/sys/kernel/panic && echo writable";
    let ran = bed.run(&["run", "--rm", "--privileged", "busybox", "sh", "-c", script]);
    let lines: Vec<_> = ran.ok().lines().collect();
    assert_eq!(lines[..2], [format!("CapEff:\t{ours}"), "Seccomp:\t0".to_owned()], "{ran:?}");
    assert!(lines[2].parse::<u32>().is_ok_and(|count| count > 15), "all devices: {ran:?}");
    assert_eq!(lines[3..], ["mounted", "writable"], "{ran:?}");
}

#[test]
fn parts_of_proc_and_sys_are_out_of_reach() {
    let bed = Bed::new();
    let script = "cat /proc/kcore /proc/timer_list 2>/dev/null | wc -c; ls /proc/acpi /sys/firmware | grep -v : | wc -w; \
                  echo 1 >/proc/sys/kernel/panic || echo refused; touch /sys/x || echo refused; \
                  mount -t tmpfs x /tmp || echo refused; ls /dev | tr '\\n' ' '";
    let ran = bed.run(&["run", "--rm", "busybox", "sh", "-c", script]);
    let lines: Vec<_> = ran.ok().lines().collect();
    assert_eq!(lines[..5], ["0", "0", "refused", "refused", "refused"], "{ran:?}");
    // `core` is there when the kernel has /proc/kcore.
    assert_eq!(
        lines[5].split_whitespace().filter(|name| *name != "core").collect::<Vec<_>>(),
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
            "tty", "urandom", "zero"
        ]
    );
}

#[test]
fn limits_are_set_in_the_control_group() {
    let bed = Bed::new();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "limited",
        "-m",
        "64m",
        "--memory-swap",
        "128m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--pids-limit",
        "50",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let pid = bed.inspect("limited")["State"]["Pid"].as_u64().unwrap_or(0).to_string();
    let groups = bed.host().shell(&format!("cat /proc/{pid}/cgroup")).ok().to_owned();
    let value = |controller: &str, v1: &str, v2: &str| {
        let line = groups.lines().find(|line| {
            let names = line.split(':').nth(1).unwrap_or_default();
            names.split(',').any(|name| name == controller)
        });
        let unified = || groups.lines().find(|line| line.starts_with("0::"));
        let (root, file) = match line {
            Some(_) => (format!("/sys/fs/cgroup/{controller}"), v1),
            None => ("/sys/fs/cgroup".to_owned(), v2),
        };
        let path = line.or_else(unified).and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or_default();
        let file = format!("{root}{path}/{file}");
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
    };
    assert_eq!(value("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value("pids", "pids.max", "pids.max"), "50");
    let cpu = value("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(cpu.split(' ').next(), Some("50000"));
    assert!(groups.contains(bed.host().cgroup()), "the daemon's --cgroup-parent holds: {groups}");
}

#[test]
fn too_much_memory_is_an_end_that_says_so() {
    let bed = Bed::new();
    let ran = bed.run(&[
        "run",
        "--name",
        "greedy",
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "tail /dev/zero; true",
    ]);
    let ran = if ran.code == 0 {
        // The shell outlived its child: once more without it.
        bed.run(&["rm", "greedy"]).ok();
        bed.run(&[
            "run",
            "--name",
            "greedy",
            "-m",
            "16m",
            "--memory-swap",
            "16m",
            "busybox",
            "tail",
            "/dev/zero",
        ])
    } else {
        ran
    };
    assert_eq!(ran.code, 137, "{ran:?}");
    assert_eq!(bed.inspect("greedy")["State"]["OOMKilled"], json!(true));
}

#[test]
fn mounts() {
    let bed = Bed::new();
    let folder = bed.folder("bound");
    fs::write(folder.join("file"), "from the host\n").expect("file");
    let bind = format!("{}:/data", folder.display());
    each_client(&bed, |client, name| {
        let script = format!(
            "cat /data/file; echo {name} >/data/{name}; grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6"
        );
        let ran = bed.cli(client, &["run", "--rm", "-v", &bind, "busybox", "sh", "-c", &script]);
        has(ran.ok(), &["from the host", "rw"]);
        assert_eq!(fs::read_to_string(folder.join(name)).ok(), Some(format!("{name}\n")));
    });
    let read_only = format!("{bind}:ro");
    let ran = bed.run(&["run", "--rm", "-v", &read_only, "busybox", "sh", "-c", "touch /data/x"]);
    has(ran.fails(1), &["Read-only file system"]);
    let ran = bed.run(&[
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m",
        "busybox",
        "sh",
        "-c",
        "touch /scratch/x && touch /x",
    ]);
    has(ran.fails(1), &["/x: Read-only file system"]);
    let mount = format!("type=bind,src={},dst=/file,readonly", folder.join("file").display());
    assert_eq!(bed.run(&["run", "--rm", "--mount", &mount, "busybox", "cat", "/file"]).ok(), "from the host");
}

#[test]
fn volumes_keep_what_was_written() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/volumes/create") {
        return;
    }
    bed.run(&[
        "run",
        "--rm",
        "-v",
        "keep:/www",
        "busybox",
        "sh",
        "-c",
        "cat /www/index.html; echo more >/www/more",
    ])
    .ok();
    let ran = bed.run(&["run", "--rm", "-v", "keep:/www", "busybox", "cat", "/www/index.html", "/www/more"]);
    assert_eq!(ran.ok(), "hello from busybox\nmore", "an empty volume takes the image's content");
    has(bed.run(&["volume", "ls", "-q"]).ok(), &["keep"]);
    bed.run(&["volume", "rm", "keep"]).ok();
}

#[test]
fn detached_runs_print_the_identity() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        let file = bed.folder(name).join("cid");
        let file = file.to_str().expect("path");
        let ran = bed.cli(
            client,
            &["run", "-d", "--name", name, "--cidfile", file, "-l", "a=b", "busybox", "sleep", "1000"],
        );
        let id = ran.ok();
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(fs::read_to_string(file).ok().as_deref(), Some(id));
        let found = bed.inspect(name);
        assert_eq!(found["Id"], json!(id));
        assert_eq!(found["Name"], json!(format!("/{name}")));
        assert_eq!(found["Config"]["Labels"]["a"], json!("b"));
        assert_eq!(bed.inspect(&id[..12])["Id"], json!(id), "a prefix is enough");
        bed.cli(client, &["rm", "-f", name]).ok();
    });
}

#[test]
fn an_interrupt_goes_to_the_container() {
    let bed = Bed::new();
    let mut command = bed.command(Client::Own);
    let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    command.args(["run", "--rm", "--name", "trapped", "busybox", "sh", "-c", script]);
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("client starts");
    let mut output = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).expect("output");
    assert_eq!(line, "ready\n");
    run(std::process::Command::new("kill").args(["-TERM", &child.id().to_string()])).ok();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).expect("output");
    assert_eq!(rest, "caught\n");
    assert_eq!(child.wait().expect("child").code(), Some(3));
}

#[test]
fn sysctls_ulimits_and_shared_memory() {
    let bed = Bed::new();
    let ran = bed.run(&[
        "run", "--rm", "--sysctl", "net.ipv4.ip_forward=0", "--ulimit", "nofile=123:456", "--shm-size", "8m", "busybox",
        "sh", "-c", "cat /proc/sys/net/ipv4/ip_forward; ulimit -n; ulimit -Hn; df -k /dev/shm | tail -1 | awk '{print $2}'",
    ]);
    assert_eq!(ran.ok(), "0\n123\n456\n8192");
}

#[test]
fn hosts_and_resolver_files() {
    let bed = Bed::new();
    let ran = bed.run(&[
        "run",
        "--rm",
        "-h",
        "me",
        "--add-host",
        "db:10.1.2.3",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.org",
        "busybox",
        "sh",
        "-c",
        "cat /etc/hosts /etc/hostname /etc/resolv.conf; ip -o -4 addr show eth0 | awk '{print $4}'",
    ]);
    let text = ran.ok();
    has(
        text,
        &["127.0.0.1\tlocalhost", "10.1.2.3\tdb", "\tme\n", "nameserver 192.0.2.53", "search example.org"],
    );
    let address = text.lines().last().and_then(|line| line.split('/').next()).unwrap_or_default();
    has(text, &[&format!("{address}\tme")]);
}
