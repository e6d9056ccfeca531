//! Known ways out of containers, each tried for real. A test has the number of the weakness in its name.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use testkit::Bed;
use testkit::image::{self, Entry, Image};
use testkit::process::eventually;
use tests::{has, is_corten};

/// The busybox image with more in it.
fn laced(name: &str, entries: &[Entry]) -> Image {
    let mut all: Vec<Entry> = ["bin", "etc", "tmp", "proc", "sys", "www", "www/proc"]
        .iter()
        .map(|name| Entry::folder(name, 0o755))
        .collect();
    all.retain(|one| !entries.iter().any(|entry| entry.path == one.path));
    all.push(Entry::file("bin/busybox", 0o755, image::busybox_program().0.clone()));
    for applet in ["sh", "cat", "ls", "sleep", "echo", "stat", "readlink", "grep", "true"] {
        all.push(Entry::symlink(&format!("bin/{applet}"), "busybox"));
    }
    all.extend(entries.iter().cloned());
    Image::new(&format!("{name}:latest"), &all).with("Cmd", json!(["sh"])).with("Env", json!(["PATH=/bin"]))
}

fn shim_program() -> PathBuf {
    let dist = std::env::var_os("CORTEN_DIST").map_or_else(|| testkit::bed::source("dist"), PathBuf::from);
    dist.join("corten-shim")
}

/// A container makes programs that are run in it the engine's own program (`/proc/self/exe`), and writes to that.
#[test]
fn cve_2019_5736_the_engine_s_program_cannot_be_overwritten() {
    let bed = Bed::empty();
    if !is_corten(&bed) {
        return;
    }
    bed.load(&laced(
        "evil",
        &[
            Entry::file("bin/evil", 0o755, "#!/proc/self/exe\n"),
            Entry::file(
                "bin/lurk",
                0o755,
                "#!/bin/sh\nmine=$(readlink /proc/self/exe)\nwhile :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe) || \
                 continue\n[ \"$e\" = \"$mine\" ] && continue\n( exec 9>>$p/exe && echo garbage >&9 ) 2>/dev/null && echo \
                 WROTE $e\n( exec 8<$p/exe && echo garbage > /proc/self/fd/8 ) 2>/dev/null && echo WROTE $e\ndone; done\n",
            ),
        ],
    ));
    let before = fs::read(shim_program()).expect("the shim");
    bed.run(&["run", "-d", "--name", "lurk", "evil", "/bin/lurk"]).ok();
    for _ in 0..20 {
        for program in ["/bin/evil", "/proc/self/exe", "/proc/1/exe"] {
            bed.run(&["exec", "lurk", program, "one", "two"]);
        }
        bed.run(&["run", "--rm", "--pid", "container:lurk", "evil", "/proc/self/exe", "x"]);
        bed.run(&["run", "--rm", "--pid", "container:lurk", "--privileged", "evil", "/bin/evil", "x"]);
    }
    assert!(!bed.run(&["logs", "lurk"]).said().contains("WROTE"));
    assert!(before == fs::read(shim_program()).expect("the shim"), "the shim's program was changed");
    bed.run(&["run", "--rm", "evil", "true"]).ok();
}

/// Descriptors that lead to the host must not be there for a process, and its directory not lead through one.
#[test]
fn cve_2024_21626_no_descriptor_and_no_directory_leads_to_the_host() {
    let bed = Bed::empty();
    if !is_corten(&bed) {
        return;
    }
    bed.load(&laced("evil", &[]));
    let marker = bed.folder("marker");
    fs::write(marker.join("here"), "host").expect("marker");
    // Wherever the directory is: up to its root, and down to a file of the host.
    let escape = format!(
        "cat ../../../../../../../../../..{}/here 2>/dev/null; ls -l /proc/self/fd; true",
        marker.display()
    );
    bed.run(&["run", "-d", "--name", "victim", "evil", "sleep", "1000"]).ok();
    for number in 0..16 {
        let directory = format!("/proc/self/fd/{number}");
        for ran in [
            bed.run(&["run", "--rm", "-w", &directory, "evil", "sh", "-c", &escape]),
            bed.run(&["exec", "-w", &directory, "victim", "sh", "-c", &escape]),
            bed.run(&["run", "--rm", "-w", &format!("{directory}/.."), "evil", "sh", "-c", &escape]),
        ] {
            assert!(!ran.said().lines().any(|line| line == "host"), "{ran:?}");
        }
    }
    for ran in [
        bed.run(&["run", "--rm", "evil", "ls", "-l", "/proc/self/fd"]),
        bed.run(&["exec", "victim", "ls", "-l", "/proc/self/fd"]),
        bed.run(&["run", "--rm", "-t", "evil", "ls", "-l", "/proc/self/fd"]),
    ] {
        let names: Vec<String> = ran
            .ok()
            .lines()
            .filter_map(|line| line.split_once(" -> "))
            .filter_map(|(left, _)| left.rsplit(' ').next().map(String::from))
            .collect();
        // The fourth, if it is seen, is the folder that `ls` reads.
        assert!(
            names.len() >= 3 && names.iter().all(|name| ["0", "1", "2", "3"].contains(&&**name)),
            "{ran:?}"
        );
    }
}

/// The device that covers masked files is replaced by a link to what an attacker wants to write to.
#[test]
fn cve_2025_31133_masks_are_the_null_device_whatever_dev_holds() {
    let bed = Bed::empty();
    if !is_corten(&bed) {
        return;
    }
    bed.load(&laced(
        "evil",
        &[Entry::folder("dev", 0o755), Entry::symlink("dev/null", "/proc/sys/kernel/core_pattern")],
    ));
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("core_pattern");
    let dev = bed.folder("dev");
    bed.host().shell(&format!("ln -s /proc/sys/kernel/core_pattern {}/null", dev.display())).ok();
    let bind = format!("{}:/dev", dev.display());
    let script = "for f in /proc/keys /proc/timer_list /proc/kcore; do [ -e $f ] && stat -c %F:%t:%T $f; done; echo evil > \
                  /proc/keys; echo evil > /proc/sys/kernel/core_pattern; true";
    for arguments in [&["run", "--rm", "evil"][..], &["run", "--rm", "-v", &bind, "evil"]] {
        let ran = bed.run(&[arguments, &["sh", "-c", script]].concat());
        let found: Vec<&str> = ran.ok().lines().collect();
        assert!(!found.is_empty(), "{ran:?}");
        assert!(found.iter().all(|line| *line == "character special file:1:3"), "{ran:?}");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").expect("core_pattern"), pattern);
}

/// The console's place is made a link, so that the terminal covers something else, or something else is the console.
#[test]
fn cve_2025_52565_the_console_goes_to_its_own_place() {
    let bed = Bed::empty();
    if !is_corten(&bed) {
        return;
    }
    bed.load(&laced(
        "evil",
        &[
            Entry::folder("dev", 0o755),
            Entry::symlink("dev/console", "/proc/cmdline"),
            Entry::symlink("dev/pts", "/proc/sys"),
        ],
    ));
    let dev = bed.folder("dev");
    bed.host()
        .shell(&format!("cd {} && ln -s /proc/cmdline console && ln -s /proc/sys pts && ln -s /proc/sys/kernel/core_pattern ptmx", dev.display()))
        .ok();
    let script = "[ -f /proc/cmdline ] && echo file; grep -c cmdline /proc/self/mountinfo; grep /dev/console \
                  /proc/self/mountinfo | grep -c devpts; true";
    let ran = bed.run(&["run", "--rm", "-t", "evil", "sh", "-c", script]);
    assert_eq!(ran.ok().replace('\r', ""), "file\n0\n1");
    let bind = format!("{}:/dev", dev.display());
    let ran = bed.run(&["run", "--rm", "-t", "-v", &bind, "evil", "sh", "-c", script]);
    if ran.code == 0 {
        has(&ran.ok().replace('\r', ""), &["file\n0\n"]);
    }
}

/// `/proc` leads elsewhere, so that what the engine writes to it (labels, kernel parameters) goes astray.
#[test]
fn cve_2025_52881_what_is_written_to_procfs_goes_to_procfs() {
    let bed = Bed::empty();
    if !is_corten(&bed) {
        return;
    }
    bed.load(&laced("evil", &[Entry::symlink("proc", "/www/proc"), Entry::folder("www/proc/sys", 0o777)]));
    let ran = bed.run(&["run", "--rm", "--sysctl", "net.ipv4.ip_forward=1", "evil", "true"]);
    has(ran.fails(125), &["must be mounted on ordinary directory"]);
    // A mount over a part of procfs: the parameter is set all the same, and the file below the mount is not touched.
    bed.load(&laced("good", &[]));
    let fake = bed.folder("fake");
    fs::create_dir_all(fake.join("ipv4")).expect("folder");
    fs::write(fake.join("ipv4/ip_forward"), "untouched").expect("file");
    let bind = format!("{}:/proc/sys/net", fake.display());
    let ran = bed.run(&["run", "--rm", "-v", &bind, "--sysctl", "net.ipv4.ip_forward=1", "good", "true"]);
    assert_eq!(fs::read_to_string(fake.join("ipv4/ip_forward")).expect("file"), "untouched", "{ran:?}");
}

/// Whoever shares the host's network could talk to sockets that have no file.
#[test]
fn cve_2020_15257_no_socket_is_in_reach_of_the_host_s_network() {
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    bed.run(&["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).ok();
    let ran = bed.run(&["run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/unix"]);
    let named: Vec<&str> = ran.ok().lines().filter(|line| line.contains('@')).collect();
    assert!(named.is_empty(), "abstract sockets: {named:?}");
    assert!(ran.ok().contains("shim.sock"), "the test does not see the engine's sockets: {ran:?}");
}

/// A container leaves a program that runs as root where any user of the host can run it.
#[test]
fn cve_2021_41091_users_of_the_host_cannot_reach_into_containers() {
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    let root = bed.http().get("/info").json()["DockerRootDir"].as_str().expect("root").to_owned();
    bed.host().shell(&format!("chmod 755 {}", bed.host().folder().display())).ok();
    bed.run(&[
        "run",
        "--name",
        "trap",
        "busybox",
        "sh",
        "-c",
        "cp /bin/busybox /tmp/root && chmod 4755 /tmp/root",
    ])
    .ok();
    let found = bed.host().shell(&format!("find {root} -path '*tmp/root'"));
    let path = found.ok().lines().next().expect("the program is somewhere below the data root").to_owned();
    for script in [format!("{path} id -u"), format!("ls {root}/containers"), format!("ls {root}/snapshots")] {
        let ran =
            bed.host().shell(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '{script}'"));
        assert_ne!(ran.code, 0, "{ran:?}");
        has(&ran.said().to_lowercase(), &["permission denied"]);
    }
}

/// Inheritable capabilities would be a program's for the asking.
#[test]
fn cve_2022_24769_no_capability_is_inheritable() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "some", "--cap-add", "NET_ADMIN", "busybox", "sleep", "1000"]).ok();
    eventually("it runs", || bed.inspect("some")["State"]["Running"] == json!(true));
    let status = ["sh", "-c", "grep -E 'CapInh|CapAmb' /proc/self/status"];
    for arguments in [
        &["exec", "some"][..],
        &["exec", "--privileged", "some"],
        &["exec", "-u", "user", "some"],
        &["run", "--rm", "busybox"],
        &["run", "--rm", "--privileged", "busybox"],
        &["run", "--rm", "-u", "user", "--cap-add", "ALL", "busybox"],
    ] {
        let ran = bed.run(&[arguments, &status].concat());
        let sets: Vec<&str> = ran.ok().lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(sets, ["0000000000000000"; 2], "{ran:?}");
    }
}
