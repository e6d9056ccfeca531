//! What keeps containers apart: security options, devices, other runtimes, users of their own.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::process::eventually;
use testkit::{Bed, BedOptions, Client};
use tests::{each_client, has, is_corten};

fn refused(bed: &Bed, host: Value, status: u16) -> String {
    let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": host });
    bed.http().post("/containers/create?name=refused", &body).refused(status)
}

#[test]
fn security_options() {
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    for (option, text) in [
        ("writable-cgroups=some", "invalid --security-opt value for writable-cgroups: \"some\""),
        ("odd", "invalid --security-opt 1: \"odd\""),
        ("odd=x", "invalid --security-opt 2: \"odd=x\""),
        ("no-new-privileges=perhaps", "invalid --security-opt value for no-new-privileges: \"perhaps\""),
        ("seccomp={", "Decoding seccomp profile failed"),
    ] {
        has(&refused(&bed, json!({ "SecurityOpt": [option] }), 400), &[text]);
    }
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        let text = refused(&bed, json!({ "SecurityOpt": ["label=type:spc_t"] }), 400);
        has(&text, &["label=type:spc_t cannot be applied", "SELinux is not enabled"]);
    }
    each_client(&bed, |client, _| {
        let status = |arguments: &[&str], name: &str| {
            let all = [&["run", "--rm"], arguments, &["busybox", "grep", name, "/proc/self/status"]].concat();
            bed.cli(client, &all).ok().split_whitespace().last().map(String::from).unwrap_or_default()
        };
        assert_eq!(status(&[], "NoNewPrivs"), "0");
        assert_eq!(status(&["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");
        assert_eq!(status(&[], "Seccomp:"), "2");
        assert_eq!(status(&["--security-opt", "seccomp=unconfined"], "Seccomp:"), "0");
        assert_eq!(status(&["--security-opt", "seccomp=builtin"], "Seccomp:"), "2");
        assert_eq!(status(&["--privileged"], "Seccomp:"), "0");
        assert_eq!(status(&["--cap-drop", "ALL"], "CapBnd"), "0000000000000000");
        assert_eq!(status(&["--cap-drop", "ALL", "--cap-add", "chown"], "CapEff"), "0000000000000001");
        // Paths are hidden and protected, and with this option they are not.
        let covered = |arguments: &[&str]| {
            let script = "grep -c -E ' /(proc|sys)/' /proc/self/mountinfo; true";
            let all = [&["run", "--rm"], arguments, &["busybox", "sh", "-c", script]].concat();
            bed.cli(client, &all).ok().parse::<u32>().expect("a count")
        };
        let plain = covered(&[]);
        let open = covered(&["--security-opt", "systempaths=unconfined"]);
        assert!(plain >= open + 5, "{plain} and {open} mounts");
        assert_eq!(covered(&["--privileged"]), open);
        let mount = "mkdir /m && mount -t tmpfs x /m && touch /sys/fs/cgroup && ls /dev/kmsg";
        bed.cli(client, &["run", "--rm", "--privileged", "busybox", "sh", "-c", mount]).ok();
    });
}

#[test]
fn who_shares_with_the_host_runs_without_a_label() {
    let bed = Bed::new();
    let options = |name: &str, host: Value| {
        let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": host });
        bed.http().post(&format!("/containers/create?name={name}"), &body).expect(201);
        bed.inspect(name)["HostConfig"]["SecurityOpt"].clone()
    };
    assert_eq!(options("plain", json!({})), Value::Null);
    assert_eq!(options("privileged", json!({ "Privileged": true })), json!(["label=disable"]));
    assert_eq!(options("pids", json!({ "PidMode": "host" })), json!(["label=disable"]));
    assert_eq!(options("memory", json!({ "IpcMode": "host" })), json!(["label=disable"]));
    let asked = json!({ "Privileged": true, "SecurityOpt": ["label=disable", "no-new-privileges"] });
    assert_eq!(options("asked", asked.clone()), asked["SecurityOpt"]);
    let more = json!({ "Privileged": true, "SecurityOpt": ["no-new-privileges"] });
    assert_eq!(options("more", more), json!(["no-new-privileges", "label=disable"]));
}

#[test]
fn apparmor_holds_what_capabilities_would_allow() {
    if !fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
    {
        println!("skipped: the kernel has no AppArmor, or it is off");
        return;
    }
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    let options = bed.http().get("/info").json()["SecurityOptions"].clone();
    assert!(options.as_array().expect("a list").contains(&json!("name=apparmor")), "{options}");
    let run = |arguments: &[&str], script: &str| {
        bed.run(&[&["run", "--rm"], arguments, &["busybox", "sh", "-c", script]].concat())
    };
    let own = "cat /proc/self/attr/current";
    let unconfined = ["--security-opt", "apparmor=unconfined"];
    assert_eq!(run(&[], own).ok(), "docker-default (enforce)");
    assert_eq!(run(&unconfined, own).ok(), "unconfined");
    assert_eq!(run(&["--privileged"], own).ok(), "unconfined");
    assert_eq!(
        run(&["--privileged", "--security-opt", "apparmor=docker-default"], own).ok(),
        "docker-default (enforce)"
    );

    let mount = "mount -t tmpfs x /tmp && echo mounted";
    let denied = run(&["--cap-add", "SYS_ADMIN"], mount);
    assert!(denied.code != 0 && denied.said().to_lowercase().contains("permission denied"), "{denied:?}");
    assert_eq!(run(&["--cap-add", "SYS_ADMIN", unconfined[0], unconfined[1]], mount).ok(), "mounted");
    // The key for help, if it came through.
    let press = "echo h > /proc/sysrq-trigger";
    let denied = run(&["--security-opt", "systempaths=unconfined"], press);
    assert!(denied.code != 0 && denied.said().to_lowercase().contains("permission denied"), "{denied:?}");

    // Also for what comes later.
    bed.run(&["run", "-d", "--name", "held", "busybox", "sleep", "1000"]).ok();
    bed.run(&["run", "-d", "--name", "free", unconfined[0], unconfined[1], "busybox", "sleep", "1000"]).ok();
    assert_eq!(bed.run(&["exec", "held", "cat", "/proc/self/attr/current"]).ok(), "docker-default (enforce)");
    assert_eq!(bed.run(&["exec", "free", "cat", "/proc/self/attr/current"]).ok(), "unconfined");
    assert_eq!(bed.inspect("held")["AppArmorProfile"], json!("docker-default"));
    assert_eq!(bed.inspect("free")["AppArmorProfile"], json!("unconfined"));
    // It can be ended from outside.
    bed.run(&["kill", "held"]).ok();

    let missing = bed.run(&["run", "--rm", "--security-opt", "apparmor=no-such-profile", "busybox", "true"]);
    has(&missing.stderr, &["apparmor", "no-such-profile"]);
    assert_ne!(missing.code, 0);
}

#[test]
fn quotas_of_layers_are_refused_where_there_are_none() {
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    has(&refused(&bed, json!({ "StorageOpt": { "odd": "1" } }), 400), &["Unknown option odd"]);
    has(&refused(&bed, json!({ "StorageOpt": { "size": "some" } }), 400), &["invalid size: 'some'"]);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    if !mounts.contains("prjquota") && !mounts.contains("pquota") {
        has(
            &refused(&bed, json!({ "StorageOpt": { "size": "1g" } }), 400),
            &["only for overlay over xfs", "pquota"],
        );
    }
}

#[test]
fn devices_may_be_used_as_far_as_they_were_given() {
    let bed = Bed::new();
    let folder = bed.folder("devices");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    // The kernel's log: not among those that every container may use.
    bed.host()
        .shell(&format!("mknod -m 640 {0} c 1 11; mkdir {1}; mknod {1}/b c 1 5", path("log"), path("sub")))
        .ok();
    each_client(&bed, |client, _| {
        let run = |arguments: &[&str], script: &str| {
            bed.cli(client, &[&["run", "--rm"], arguments, &["busybox", "sh", "-c", script]].concat())
        };
        run(&[], "mknod /log c 1 11 && : > /log").fails(1);
        let device = format!("{}:/dev/log:w", path("log"));
        run(&["--device", &device], ": > /dev/log").ok();
        run(&["--device", &device], ": < /dev/log").fails(1);
        assert_eq!(run(&["--device", &device], "stat -c %a:%t:%T /dev/log").ok(), "640:1:b");
        run(&["--device-cgroup-rule", "c 1:11 w"], "mknod /log c 1 11 && : > /log").ok();
        let all = format!("{}:/dev/all", folder.display());
        assert_eq!(
            run(&["--device", &all], "find /dev/all -type c | sort").ok(),
            "/dev/all/log\n/dev/all/sub/b"
        );
        let gone = run(&["--device", "/dev/gone"], "true");
        has(
            &gone.stderr,
            &[
                "error gathering device information while adding custom device \"/dev/gone\": no such file or directory",
            ],
        );
        let file = run(&["--device", "/etc/passwd"], "true");
        has(&file.stderr, &["custom device \"/etc/passwd\": not a device node"]);
    });
}

const VENDOR: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/device
containerEdits:
  env: ["EVERY=1"]
devices:
  - name: first
    containerEdits:
      env: ["WHICH=first"]
      deviceNodes:
        - {path: /dev/vendor, hostPath: /dev/zero, permissions: rw}
      mounts:
        - {hostPath: FOLDER, containerPath: /vendor, options: [ro, rbind]}
      hooks:
        - {hookName: createRuntime, path: /bin/sh, args: [sh, -c, "echo ran >> FOLDER/hook"]}
"#;

#[test]
fn devices_of_vendors() {
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    drop(bed);
    let specs = tempfile_folder();
    let folder = specs.join("files");
    fs::create_dir_all(&folder).expect("folder");
    fs::write(specs.join("vendor.yaml"), VENDOR.replace("FOLDER", &folder.to_string_lossy())).expect("spec");
    fs::write(specs.join("broken.json"), "{").expect("spec");
    let gpu = r#"{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[
        {"name":"0","containerEdits":{"env":["GPU=0"]}},{"name":"all","containerEdits":{"env":["GPU=all"]}}]}"#;
    fs::write(specs.join("gpu.json"), gpu).expect("spec");
    let flags = vec!["--cdi-spec-dir".into(), specs.to_string_lossy().into_owned()];
    let bed = Bed::with(BedOptions { flags, ..BedOptions::default() });
    bed.load(&testkit::image::busybox());
    let info = bed.http().get("/info").json();
    let ids: Vec<&str> = info["DiscoveredDevices"]
        .as_array()
        .expect("devices")
        .iter()
        .filter_map(|one| one["ID"].as_str())
        .collect();
    assert_eq!(ids, ["nvidia.com/gpu=0", "nvidia.com/gpu=all", "vendor.com/device=first"]);
    assert_eq!(info["CDISpecDirs"], json!([specs.to_string_lossy()]));
    each_client(&bed, |client, _| {
        let run = |arguments: &[&str], script: &str| {
            bed.cli(client, &[&["run", "--rm"], arguments, &["busybox", "sh", "-c", script]].concat())
        };
        let script = "echo $EVERY $WHICH; head -c 2 /dev/vendor | wc -c; ls /vendor; touch /vendor/x 2>/dev/null || echo ro";
        let said = run(&["--device", "vendor.com/device=first"], script);
        assert_eq!(said.ok(), "1 first\n2\nhook\nro");
        assert_eq!(run(&["--gpus", "all"], "echo $GPU").ok(), "all");
        assert_eq!(run(&["--gpus", "device=0"], "echo $GPU").ok(), "0");
        let gone = run(&["--device", "vendor.com/device=other"], "true");
        has(&gone.stderr, &["CDI device injection failed: unresolvable CDI devices vendor.com/device=other"]);
    });
    let _ = fs::remove_dir_all(&specs);
}

#[test]
fn gpus_that_nobody_describes() {
    let specs = tempfile_folder();
    let flags = vec!["--cdi-spec-dir".into(), specs.to_string_lossy().into_owned()];
    let bed = Bed::with(BedOptions { flags, ..BedOptions::default() });
    bed.load(&testkit::image::busybox());
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["run", "--rm", "--gpus", "all", "busybox", "true"]);
        has(&ran.stderr, &["could not select device driver \"\" with capabilities: [[gpu]]"]);
    });
    let _ = fs::remove_dir_all(&specs);
}

/// A folder of this process, under a name that no other call gets.
fn tempfile_folder() -> std::path::PathBuf {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("corten-isolation-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).expect("folder");
    folder
}

/// The runtimes that are here: Corten's own as a program, which has the same command line, and those of others.
fn runtimes() -> Vec<(&'static str, String)> {
    let own = std::env::var_os("CORTEN_DIST").map_or_else(|| testkit::bed::source("dist"), Into::into);
    let mut all = vec![("other", own.join("corten-oci").to_string_lossy().into_owned())];
    for (name, paths) in
        [("runc", ["/usr/sbin/runc", "/usr/bin/runc"]), ("crun", ["/usr/bin/crun", "/usr/local/bin/crun"])]
    {
        if let Some(path) = paths.iter().find(|path| Path::new(path).exists()) {
            all.push((name, path.to_string()));
        }
    }
    all
}

#[test]
fn other_runtimes() {
    let mut flags = Vec::new();
    for (name, path) in runtimes() {
        flags.extend(["--add-runtime".to_string(), format!("{name}={path}")]);
    }
    flags.extend(["--add-runtime".to_string(), "missing=/nowhere/runtime".into()]);
    // Some of them know one version of cgroups at a time.
    let setup = "umount /sys/fs/cgroup/unified 2>/dev/null || true".to_string();
    let bed = Bed::with(BedOptions { flags, setup, ..BedOptions::default() });
    if !is_corten(&bed) {
        return;
    }
    bed.load(&testkit::image::busybox());
    has(&refused(&bed, json!({ "Runtime": "odd" }), 400), &["unknown or invalid runtime name: odd"]);
    let ran = bed.run(&["run", "--rm", "--runtime", "missing", "busybox", "true"]);
    has(ran.fails(127), &["/nowhere/runtime", "executable file not found"]);
    let info = bed.http().get("/info").json();
    for (name, path) in runtimes() {
        assert_eq!(info["Runtimes"][name]["path"], json!(path));
        run_by(&bed, name);
    }
}

#[test]
fn a_container_that_names_no_runtime_has_the_one_that_info_tells_and_runc_stands_for_it() {
    let bed = Bed::new();
    let default = bed.http().get("/info").json()["DefaultRuntime"].clone();
    bed.run(&["create", "--name", "plain", "busybox", "true"]).ok();
    assert_eq!(bed.inspect("plain")["HostConfig"]["Runtime"], default);
    for name in ["runc", "io.containerd.runc.v2"] {
        bed.run(&["run", "--name", name, "--runtime", name, "busybox", "true"]).ok();
        assert_eq!(bed.inspect(name)["HostConfig"]["Runtime"], json!(name));
    }
}

/// A container's whole life by another runtime.
fn run_by(bed: &Bed, runtime: &str) {
    let run = |arguments: &[&str]| bed.run(&[&["run", "--rm", "--runtime", runtime], arguments].concat());
    assert_eq!(run(&["-i", "busybox", "echo", "hello"]).ok(), "hello");
    run(&["busybox", "sh", "-c", "exit 3"]).fails(3);
    run(&["busybox", "nosuch"]).fails(127);
    run(&["busybox", "/etc"]).fails(126);
    let who = run(&["-u", "user", "--group-add", "extra", "busybox", "sh", "-c", "id; echo $HOME"]);
    has(who.ok(), &["uid=1000(user)", "2000(extra)", "/home/user"]);
    run(&["-t", "busybox", "test", "-t", "1"]).ok();
    run(&["--cap-drop", "ALL", "busybox", "chown", "5", "/tmp"]).fails(1);

    let script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done";
    bed.run(&[
        "run",
        "-d",
        "--name",
        "long",
        "--runtime",
        runtime,
        "-p",
        "0:80",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    eventually("it says so", || bed.run(&["logs", "long"]).ok() == "up");
    let found = bed.inspect("long");
    assert_eq!(found["HostConfig"]["Runtime"], json!(runtime));
    let address = found["NetworkSettings"]["IPAddress"].as_str().expect("address").to_owned();
    has(bed.run(&["exec", "long", "ip", "-4", "addr", "show", "eth0"]).ok(), &[&address]);
    assert_eq!(bed.run(&["exec", "-u", "user", "long", "id", "-u"]).ok(), "1000");
    bed.run(&["exec", "-t", "long", "test", "-t", "1"]).ok();
    bed.run(&["exec", "long", "sh", "-c", "exit 4"]).fails(4);
    bed.run(&["pause", "long"]).ok();
    assert_eq!(bed.inspect("long")["State"]["Status"], json!("paused"));
    bed.run(&["unpause", "long"]).ok();
    // Its root is mounted where only the shim sees it.
    assert_eq!(bed.host().shell("grep -c overlay.*bundle /proc/mounts || true").ok(), "0");
    bed.run(&["stop", "-t", "20", "long"]).ok();
    assert_eq!(bed.inspect("long")["State"]["ExitCode"], json!(5));
    bed.run(&["start", "long"]).ok();
    bed.run(&["kill", "long"]).ok();
    assert_eq!(bed.inspect("long")["State"]["ExitCode"], json!(137));
    bed.run(&["rm", "long"]).ok();
}

#[test]
fn a_next_daemon_takes_up_what_another_runtime_runs() {
    let flags =
        runtimes().into_iter().take(1).map(|(name, path)| format!("--add-runtime={name}={path}")).collect();
    let mut bed = Bed::with(BedOptions { flags, ..BedOptions::default() });
    if !is_corten(&bed) {
        return;
    }
    bed.load(&testkit::image::busybox());
    bed.run(&[
        "run",
        "-d",
        "--name",
        "long",
        "--runtime",
        "other",
        "busybox",
        "sh",
        "-c",
        "echo up; sleep 1000",
    ])
    .ok();
    bed.kill();
    bed.start();
    assert_eq!(bed.inspect("long")["State"]["Status"], json!("running"));
    assert_eq!(bed.run(&["exec", "long", "echo", "here"]).ok(), "here");
    assert_eq!(bed.run(&["logs", "long"]).ok(), "up");
    bed.run(&["stop", "-t", "0", "long"]).ok();
    assert_eq!(bed.inspect("long")["State"]["ExitCode"], json!(137));
}

/// Users of the host for those of containers.
const FIRST: u32 = 300_000;

fn remapped() -> Bed {
    let setup = format!(
        "d=$(mktemp -d) && mount -t tmpfs x $d && for f in passwd group subuid subgid; do cp /etc/$f $d/$f 2>/dev/null \
         || : > $d/$f; sed -i /^dockremap:/d $d/$f; done && echo dockremap:x:900:900::/:/bin/false >> $d/passwd && echo \
         dockremap:x:900: >> $d/group && echo dockremap:{FIRST}:65536 >> $d/subuid && echo dockremap:{FIRST}:65536 >> \
         $d/subgid && for f in passwd group subuid subgid; do [ -e /etc/$f ] || : > /etc/$f; mount --bind $d/$f /etc/$f; \
         done && umount -l $d && rmdir $d"
    );
    let flags = vec!["--userns-remap".into(), "default".into()];
    let bed = Bed::with(BedOptions { flags, setup, ..BedOptions::default() });
    bed.load(&testkit::image::busybox());
    bed
}

#[test]
fn users_of_their_own() {
    let bed = remapped();
    if !is_corten(&bed) {
        return;
    }
    let info = bed.http().get("/info").json();
    let root = info["DockerRootDir"].as_str().expect("root").to_owned();
    assert!(root.ends_with(&format!("/{FIRST}.{FIRST}")), "{root}");
    has(&info["SecurityOptions"].to_string(), &["name=userns"]);
    let shared = bed.folder("shared");
    std::os::unix::fs::chown(&shared, Some(FIRST), Some(FIRST)).expect("chown");
    let bind = format!("{}:/shared", shared.display());
    let script = "id -u; cut -c1-40 /proc/self/uid_map | xargs; echo x > /file; chown 1000:1000 /file; stat -c %u:%g /file \
                  /bin/busybox /etc/hosts /dev/null; echo 127.0.0.9 nine >> /etc/hosts; touch /shared/made; stat -c %u \
                  /shared/made; sleep 1000";
    bed.run(&["run", "-d", "--name", "own", "-v", &bind, "busybox", "sh", "-c", script]).ok();
    let expected = format!("0\n0 {FIRST} 65536\n1000:1000\n0:0\n0:0\n0:0\n0");
    eventually("it has said all", || bed.run(&["logs", "own"]).ok().lines().count() >= 7);
    assert_eq!(bed.run(&["logs", "own"]).ok(), expected);
    let pid = bed.inspect("own")["State"]["Pid"].as_i64().expect("pid");
    // On the host it is nobody in particular, and so is what it makes in a bind.
    has(bed.host().shell(&format!("grep Uid /proc/{pid}/status")).ok(), &[&FIRST.to_string()]);
    assert_eq!(
        fs::metadata(shared.join("made")).map(|made| std::os::unix::fs::MetadataExt::uid(&made)).ok(),
        Some(FIRST)
    );
    assert_eq!(bed.run(&["exec", "own", "id", "-u"]).ok(), "0");
    assert_eq!(bed.run(&["exec", "-u", "user", "own", "id", "-u"]).ok(), "1000");
    bed.run(&["run", "--rm", "--network", "container:own", "busybox", "ping", "-c", "1", "127.0.0.1"]).ok();
    // Copies have the container's own numbers, in both directions, whether it runs or not.
    let copied = bed.folder("copied");
    fs::write(copied.join("in"), "in").expect("file");
    std::os::unix::fs::chown(copied.join("in"), Some(7), Some(8)).expect("chown");
    for name in ["running", "stopped"] {
        let (into, out) = (format!("own:/{name}"), copied.join(name));
        bed.run(&["cp", "-a", &copied.join("in").to_string_lossy(), &into]).ok();
        bed.run(&["cp", "-a", &into, &out.to_string_lossy()]).ok();
        let owner = fs::metadata(&out).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
        assert_eq!(owner.expect("copied"), 7, "{name}");
        bed.run(&["stop", "-t", "0", "own"]).ok();
    }
    bed.run(&["start", "own"]).ok();
    assert_eq!(bed.run(&["exec", "own", "stat", "-c", "%u:%g", "/running", "/stopped"]).ok(), "7:8\n7:8");
    bed.run(&["restart", "-t", "0", "own"]).ok();
    assert_eq!(bed.run(&["exec", "own", "stat", "-c", "%u", "/file"]).ok(), "1000");
    // Layers are shown with other owners, not copied: on disk they are as in the image.
    let owners =
        bed.host().shell(&format!("find {root}/snapshots -name busybox -type f -printf '%U\\n' | sort -u"));
    assert_eq!(owners.ok(), "0");
}

#[test]
fn who_shares_the_host_s_users_says_so() {
    let bed = remapped();
    if !is_corten(&bed) {
        return;
    }
    for (host, text) in [
        (json!({ "Privileged": true }), "privileged mode is incompatible with user namespaces"),
        (
            json!({ "NetworkMode": "host" }),
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (
            json!({ "PidMode": "host" }),
            "cannot share the host PID namespace when user namespaces are enabled",
        ),
    ] {
        has(&refused(&bed, host, 400), &[text]);
    }
    let map = bed.run(&[
        "run",
        "--rm",
        "--userns",
        "host",
        "--privileged",
        "--pid",
        "host",
        "busybox",
        "cat",
        "/proc/self/uid_map",
    ]);
    has(map.ok(), &["4294967295"]);
}

#[test]
fn a_remap_without_ranges_is_refused() {
    let flags = vec!["--userns-remap".into(), "nobody:nogroup".into()];
    let failed = std::panic::catch_unwind(|| Bed::with(BedOptions { flags, ..BedOptions::default() }));
    let text = failed.err().and_then(|panic| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    if !text.is_empty() {
        has(&text, &["no subordinate range found for \"nobody\" in /etc/subuid"]);
    }
}

#[test]
fn clients_are_the_same_with_a_remap() {
    let bed = remapped();
    each_client(&bed, |client: Client, _| {
        assert_eq!(bed.cli(client, &["run", "--rm", "-t", "busybox", "id", "-u"]).ok().trim(), "0");
    });
}
