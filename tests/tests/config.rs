//! The daemon's configuration: flags, `daemon.json`, reloading it, and more than one daemon on a host.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::engine::program;
use testkit::process::{PATIENCE, eventually, wait_for};
use testkit::{Bed, BedOptions, Engine, Http, image, run};
use tests::has;

/// A daemon with a file of its own, which is then at the returned path.
fn bed_with(file: &Value) -> Option<(Bed, PathBuf)> {
    if Engine::from_environment() != Engine::Corten {
        // How peers are configured is not ours to test.
        return None;
    }
    let folder = std::env::temp_dir().join(format!("corten-test-config-{}-{:p}", std::process::id(), file));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("daemon.json");
    fs::write(&path, file.to_string()).expect("daemon.json");
    let flags = vec!["--config-file".to_owned(), path.display().to_string()];
    let bed = Bed::with(BedOptions { flags, ..BedOptions::default() });
    bed.load(&image::busybox());
    Some((bed, path))
}

fn signal(bed: &Bed, signal: Signal) {
    kill_process(Pid::from_raw(bed.pid().cast_signed()).expect("a PID"), signal).expect("the daemon runs");
}

fn host_config(bed: &Bed, arguments: &[&str]) -> Value {
    let created = bed.run(&[&["create"], arguments, &["busybox"]].concat());
    let id = created.ok().lines().last().expect("an ID").to_owned();
    bed.inspect(&id)["HostConfig"].clone()
}

#[test]
fn a_reload_counts_from_then_on_and_a_bad_file_never() {
    let Some((bed, file)) = bed_with(&json!({"labels": ["a=1"], "default-shm-size": "32M"})) else { return };
    assert_eq!(host_config(&bed, &[])["ShmSize"], json!(32 << 20));
    let info = |bed: &Bed| bed.http().get("/info").json();
    assert_eq!(info(&bed)["Labels"], json!(["a=1"]));
    let mut events = bed.http().stream("GET", "/events?since=1").expect("events");

    let newer = json!({
        "labels": ["a=2", "b=3"],
        "debug": true,
        "default-shm-size": "48m",
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 100, "Hard": 200}},
        "default-ipc-mode": "shareable",
        "default-stop-timeout": 1,
        "no-new-privileges": true,
        "registry-mirrors": ["https://mirror.example"],
        "insecure-registries": ["old.example:5000"],
        "runtimes": {"other": {"path": "/usr/bin/other"}},
    });
    fs::write(&file, newer.to_string()).expect("daemon.json");
    signal(&bed, Signal::HUP);
    eventually("the new labels", || info(&bed)["Labels"] == json!(["a=2", "b=3"]));
    let event = std::iter::from_fn(|| events.line().ok().flatten())
        .map(|line| serde_json::from_str::<Value>(&line).expect("JSON"))
        .find(|event| event["Type"] == "daemon")
        .expect("an event");
    assert_eq!((&event["Action"], &event["Actor"]["ID"]), (&json!("reload"), &info(&bed)["ID"]));
    let attributes = &event["Actor"]["Attributes"];
    assert_eq!(attributes["labels"], "[\"a=2\",\"b=3\"]");
    assert_eq!((&attributes["debug"], &attributes["default-shm-size"]), (&json!("true"), &json!("50331648")));

    let after = info(&bed);
    assert_eq!(after["Debug"], json!(true));
    assert_eq!(after["RegistryConfig"]["Mirrors"], json!(["https://mirror.example/"]));
    assert_eq!(after["RegistryConfig"]["IndexConfigs"]["old.example:5000"]["Secure"], json!(false));
    assert_eq!(after["Runtimes"]["other"]["path"], "/usr/bin/other");
    has(&after["SecurityOptions"].to_string(), &["name=no-new-privileges"]);
    let config = host_config(&bed, &["--ulimit", "nproc=50"]);
    assert_eq!((&config["ShmSize"], &config["IpcMode"]), (&json!(48 << 20), &json!("shareable")));
    assert_eq!(config["Ulimits"].as_array().map(Vec::len), Some(2), "{config}");
    let inside =
        bed.run(&["run", "--rm", "busybox", "sh", "-c", "ulimit -n; grep NoNewPrivs /proc/self/status"]);
    has(inside.ok(), &["100", "NoNewPrivs:\t1"]);
    let own = ["run", "--rm", "--security-opt", "no-new-privileges=false", "--ulimit", "nofile=50:60"];
    let inside = bed
        .run(&[&own[..], &["busybox", "sh", "-c", "ulimit -n; grep NoNewPrivs /proc/self/status"]].concat());
    has(inside.ok(), &["50", "NoNewPrivs:\t0"]);
    has(&bed.run(&["run", "--rm", "--runtime", "other", "busybox"]).stderr, &["runtime other", "not found"]);
    has(
        &bed.run(&["create", "--runtime", "odd", "busybox"]).stderr,
        &["unknown or invalid runtime name: odd"],
    );

    for (bad, message) in [
        ("{\n\"labels\": [\"c=4\"],\n\"odd\": 1}".to_owned(), "odd (line 3)"),
        ("{\"labels\": [\"c=4\"]".to_owned(), "invalid JSON"),
        (json!({"labels": ["c=4"], "seccomp-profile": "/nonexistent"}).to_string(), "/nonexistent"),
        (
            json!({"labels": ["c=4"], "default-runtime": "gone"}).to_string(),
            "specified default runtime 'gone' does not exist",
        ),
    ] {
        fs::write(&file, bad).expect("daemon.json");
        signal(&bed, Signal::HUP);
        eventually("the reason in the log", || bed.log().contains(message));
    }
    assert_eq!(info(&bed)["Labels"], json!(["a=2", "b=3"]), "settings stay as they are");
    // What would end a program that does not know it.
    signal(&bed, Signal::USR1);
    eventually("a report in the log", || bed.log().contains("what the daemon is busy with"));
    let _ = fs::remove_dir_all(file.parent().expect("a folder"));
}

#[test]
fn settings_are_checked_before_anything_starts() {
    let folder = std::env::temp_dir().join(format!("corten-test-validate-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("daemon.json");
    let validate = |text: &str, flags: &[&str]| {
        fs::write(&file, text).expect("daemon.json");
        run(Command::new(program("cortend")).args(["--validate", "--config-file"]).arg(&file).args(flags))
    };
    assert_eq!(validate("{\"debug\": true, \"userland-proxy\": false}", &[]).ok(), "configuration OK");
    has(
        validate("{\n\"debug\": 1}", &[]).fails(1),
        &[
            "unable to configure the Docker daemon with file",
            "line 2: the value of \"debug\" has the wrong type",
        ],
    );
    has(
        validate("{\"debug\": true}", &["--debug"]).fails(1),
        &["specified both as a flag and in the configuration file: debug"],
    );
    has(validate("{}", &["--mtu", "x"]).fails(1), &["invalid argument \"x\" for \"--mtu\" flag"]);
    let reserved = validate("{\"runtimes\": {\"corten\": {\"path\": \"/x\"}}}", &[]);
    has(reserved.fails(1), &["runtime name 'corten' is reserved"]);
    let _ = fs::remove_dir_all(&folder);
}

/// A second daemon on the host of the first.
struct Second {
    daemon: Child,
    socket: PathBuf,
}

impl Second {
    fn flags(folder: &Path) -> Vec<String> {
        let path = |name: &str| folder.join(name).display().to_string();
        ["--data-root", "--exec-root", "--pidfile"]
            .into_iter()
            .flat_map(|flag| [flag.to_owned(), path(flag.trim_start_matches('-'))])
            .collect()
    }

    fn end(mut self, bed: &Bed) {
        let pid = bed.host().inner(&self.daemon).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.expect("its PID"), Signal::TERM).expect("it runs");
        assert!(wait_for(&mut self.daemon, PATIENCE), "it ends");
        assert!(!self.socket.exists(), "its socket is gone");
    }
}

#[test]
fn two_daemons_share_a_network_namespace() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    let bed = Bed::new();
    let folder = bed.folder("second");
    let socket = folder.join("s.sock");
    let log = fs::File::create(folder.join("log")).expect("a log");
    let command = |bridge: &[&str]| {
        let mut command = bed.host().command(program("cortend"));
        command.arg("-H").arg(format!("unix://{}", socket.display())).args(Second::flags(&folder));
        command.arg("--cgroup-parent").arg(bed.host().cgroup()).args(bridge);
        command
    };
    let before = tables(&bed);
    let refused = run(&mut command(&[]));
    has(refused.fails(1), &["it belongs to another daemon; give this one a name of its own with --bridge"]);
    let daemon =
        command(&["--bridge", "second0"]).stderr(log).stdin(Stdio::null()).spawn().expect("a daemon");
    let second = Second { daemon, socket: socket.clone() };
    let answers = || Http::new(&socket).ask("GET", "/_ping", None).is_ok_and(|pong| pong.status == 200);
    eventually("the second daemon", answers);
    let path = format!("{}/images/load?quiet=1", testkit::http::API);
    let archive = image::busybox().archive();
    Http::new(&socket)
        .exchange("POST", &path, "Content-Type: application/x-tar\r\n", &archive)
        .expect("an answer")
        .expect(200);

    bed.run(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/www",
    ])
    .ok();
    let own = |arguments: &[&str]| {
        let mut command = Command::new(program("corten"));
        run(command.env("DOCKER_HOST", format!("unix://{}", socket.display())).args(arguments))
    };
    own(&["run", "-d", "--name", "web", "-p", "8081:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/www"])
        .ok();
    let fetch = |port: u16| {
        bed.host().shell(&format!("busybox timeout 5 busybox wget -qO- http://127.0.0.1:{port}/")).stdout
    };
    eventually("both serve", || !fetch(8080).is_empty() && fetch(8080) == fetch(8081));
    own(&["rm", "-f", "web"]).ok();
    second.end(&bed);
    assert!(!fetch(8080).is_empty(), "the first does not notice");
    remove_tables(&bed, &before);
    bed.host().shell("ip link del second0").ok();
    let _ = fs::remove_dir_all(&folder);
}

/// What outlives its daemon, as containers do.
fn remove_tables(bed: &Bed, but: &BTreeSet<String>) {
    for table in tables(bed).difference(but) {
        bed.host().shell(&format!("nft delete {table}")).ok();
    }
}

fn tables(bed: &Bed) -> BTreeSet<String> {
    bed.host().shell("nft list tables").ok().lines().map(str::to_owned).collect()
}

#[test]
fn a_service_manager_hands_sockets_over_and_is_told() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    let bed = Bed::empty();
    let before = tables(&bed);
    let folder = bed.folder("activated");
    let socket = folder.join("held.sock");
    let held = UnixListener::bind(&socket).expect("a listener");
    // Somebody asks before there is a daemon.
    let early = UnixStream::connect(&socket).expect("a connection that waits");
    let told = UnixDatagram::bind(folder.join("notify")).expect("a place to report to");
    told.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let flags = Second::flags(&folder).join(" ");
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api NOTIFY_SOCKET={} \
         exec {} -H fd:// --bridge none {flags}",
        folder.join("notify").display(),
        program("cortend").display(),
    );
    let log = fs::File::create(folder.join("log")).expect("a log");
    let mut command = bed.host().command("/bin/sh");
    let daemon = command
        .args(["-c", &script])
        .stdin(std::os::fd::OwnedFd::from(held))
        .stderr(log)
        .spawn()
        .expect("a daemon");
    let mut message = [0; 256];
    let length = told.recv(&mut message).expect("a report");
    has(&String::from_utf8_lossy(&message[..length]), &["READY=1", "MAINPID="]);
    drop(early);
    assert_eq!(Http::new(&socket).get("/_ping").status, 200);
    let pid = bed.host().inner(&daemon).and_then(|pid| Pid::from_raw(pid.cast_signed()));
    kill_process(pid.expect("its PID"), Signal::TERM).expect("it runs");
    let mut daemon = daemon;
    assert!(wait_for(&mut daemon, PATIENCE), "it ends");
    assert!(socket.exists(), "the service manager's socket stays");
    remove_tables(&bed, &before);
    let _ = fs::remove_dir_all(&folder);
}
