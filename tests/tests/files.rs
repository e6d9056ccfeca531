//! `cp`, `diff`, `export` and `commit`: files of containers, running, paused and stopped.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::http::API;
use testkit::image::{Entry, Image, Kind, layer};
use testkit::{Bed, Client, Ran, Response};
use tests::{each_client, has, is_corten};

/// Members of an archive, by tar(1): `NAME CONTENT` for files, the name alone for others.
fn members(archive: &[u8]) -> Vec<String> {
    let folder = tempfile("members");
    let path = testkit::image::write_archive(&folder, "archive.tar", archive);
    let list = Command::new("tar").arg("tPf").arg(&path).output().expect("tar");
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let names = String::from_utf8(list.stdout).expect("UTF-8");
    fs::remove_dir_all(folder).expect("removed");
    names.lines().map(str::to_owned).collect()
}

fn tempfile(name: &str) -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("corten-{name}-{}-{number}", std::process::id()));
    fs::create_dir_all(&path).expect("folder");
    path
}

fn query(path: &str) -> String {
    path.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn get(bed: &Bed, container: &str, path: &str) -> Response {
    bed.http().get(&format!("/containers/{container}/archive?path={}", query(path)))
}

fn put(bed: &Bed, container: &str, path: &str, more: &str, archive: &[u8]) -> Response {
    let target = format!("{API}/containers/{container}/archive?path={}{more}", query(path));
    bed.http().exchange("PUT", &target, "Content-Type: application/x-tar\r\n", archive).expect("an answer")
}

/// What a file of a container holds, read from outside.
#[track_caller]
fn content(bed: &Bed, container: &str, path: &str) -> String {
    let folder = tempfile("content");
    let archive = get(bed, container, path).expect(200).body;
    let path = testkit::image::write_archive(&folder, "archive.tar", &archive);
    let read = Command::new("tar").arg("xPOf").arg(&path).output().expect("tar");
    fs::remove_dir_all(folder).expect("removed");
    String::from_utf8(read.stdout).expect("UTF-8")
}

fn sleeper(bed: &Bed, name: &str, more: &[&str]) {
    let mut arguments = vec!["run", "-d", "--name", name];
    arguments.extend(more);
    arguments.extend(["busybox", "sleep", "100000"]);
    bed.run(&arguments).ok();
}

fn stop(bed: &Bed, name: &str) {
    bed.run(&["stop", "-t", "0", name]).ok();
}

/// Does the same to a container that runs, one that is paused, and one that has ended.
fn in_each_phase(bed: &Bed, more: &[&str], check: impl Fn(&str)) {
    for phase in ["running", "paused", "stopped"] {
        sleeper(bed, phase, more);
        match phase {
            "paused" => drop(bed.run(&["pause", phase]).ok()),
            "stopped" => stop(bed, phase),
            _ => {}
        }
        check(phase);
        bed.run(&["rm", "-f", phase]).ok();
    }
}

#[test]
fn copies_go_where_cp_would_put_them() {
    let bed = Bed::new();
    let here = bed.folder("here");
    let at = |name: &str| here.join(name).to_str().expect("path").to_owned();
    fs::create_dir_all(here.join("tree/deep")).expect("tree");
    fs::write(here.join("tree/deep/file"), "deep").expect("file");
    fs::write(here.join("one"), "one").expect("file");
    std::os::unix::fs::symlink("one", here.join("link")).expect("link");
    each_client(&bed, |client, name| {
        let cp = |from: &str, to: &str| bed.cli(client, &["cp", from, to]);
        in_each_phase(&bed, &[], |phase| {
            let inside = |path: &str| format!("{phase}:{path}");
            cp(&at("one"), &inside("/tmp")).ok();
            cp(&at("one"), &inside("tmp/two")).ok();
            cp(&at("tree"), &inside("/tmp")).ok();
            cp(&at("tree"), &inside("/tmp/renamed")).ok();
            cp(&at("tree/."), &inside("/tmp/renamed")).ok();
            cp(&at("tree/."), &inside("/tmp/flat/")).ok();
            cp(&at("link"), &inside("/tmp/aslink")).ok();
            bed.cli(client, &["cp", "-L", &at("link"), &inside("/tmp/asfile")]).ok();
            for path in ["/tmp/one", "/tmp/two", "/tmp/asfile"] {
                assert_eq!(content(&bed, phase, path), "one", "{path}");
            }
            for path in ["/tmp/tree/deep/file", "/tmp/renamed/deep/file", "/tmp/flat/deep/file"] {
                assert_eq!(content(&bed, phase, path), "deep", "{path}");
            }
            assert_eq!(content(&bed, phase, "/tmp/aslink"), "", "a link stays one");
            // The directory that was copied to keeps its own mode.
            assert_eq!(stat(&bed, phase, "/tmp")["mode"], json!(1u32 << 31 | 1 << 20 | 0o777));

            let back = bed.folder(&format!("back-{name}-{phase}"));
            let to = |path: &str| back.join(path).to_str().expect("path").to_owned();
            cp(&inside("/tmp/tree"), &to("new")).ok();
            cp(&inside("/tmp/tree"), &to("")).ok();
            cp(&inside("/tmp/tree/."), &to("flat")).ok();
            cp(&inside("/tmp/one"), &to("")).ok();
            cp(&inside("/tmp/one"), &to("other")).ok();
            cp(&inside("/tmp/aslink"), &to("")).ok();
            let read = |path: &str| fs::read_to_string(back.join(path)).expect("copied");
            assert_eq!((read("new/deep/file"), read("tree/deep/file")), ("deep".into(), "deep".into()));
            assert_eq!(
                (read("flat/deep/file"), read("one"), read("other")),
                ("deep".into(), "one".into(), "one".into())
            );
            assert_eq!(fs::read_link(back.join("aslink")).expect("a link"), Path::new("one"));
        });
    });
}

#[test]
fn copies_that_cannot_be_made_say_why() {
    let bed = Bed::new();
    sleeper(&bed, "web", &[]);
    let here = bed.folder("here");
    fs::create_dir_all(here.join("tree")).expect("tree");
    fs::write(here.join("one"), "one").expect("file");
    let at = |name: &str| here.join(name).to_str().expect("path").to_owned();
    each_client(&bed, |client, _| {
        let fails = |arguments: &[&str], text: &str| {
            let ran: Ran = bed.cli(client, &[&["cp"], arguments].concat());
            has(ran.fails(1), &[text]);
        };
        fails(&[&at("one"), "web:/no/such"], "Could not find the file /no in container web");
        fails(&["web:/no", &at("x")], "Could not find the file /no in container web");
        fails(&["web:/etc/passwd/", &at("x")], "not a directory");
        fails(&[&at("one"), "web:/tmp/new/"], "no such directory");
        fails(&[&at("tree"), "web:/etc/passwd"], "cannot copy directory");
        fails(&["web:/etc", &at("one")], "cannot copy directory");
        fails(&["web:/etc", &at("no/such")], "invalid output path: directory");
        fails(&[&at("none"), "web:/tmp"], "no such file or directory");
        fails(&[&at("one"), &at("tree")], "must specify at least one container source");
        fails(&["web:/a", "web:/b"], "copying between containers is not supported");
        fails(&["nobody:/a", &at("x")], "No such container: nobody");
        fails(&["-", "web:/etc/passwd"], "must be a directory");
        fails(&[&at("one"), "web:/dev/null"], "got a device");
    });
    assert_eq!(fs::read_dir(&here).expect("folder").count(), 2, "nothing was left behind");
}

#[test]
fn standard_input_and_output_are_archives() {
    let bed = Bed::new();
    sleeper(&bed, "web", &[]);
    let archive = layer(&[Entry::file("from-stdin", 0o640, "piped").owned(7, 8)]);
    bed.run_with_input(&["cp", "-", "web:/tmp"], &archive).ok();
    assert_eq!(bed.run(&["exec", "web", "stat", "-c", "%u:%g %a", "/tmp/from-stdin"]).ok(), "7:8 640");
    each_client(&bed, |client, _| {
        let out = bed.command(client).args(["cp", "web:/tmp/from-stdin", "-"]).output().expect("client");
        assert_eq!(members(&out.stdout), ["from-stdin"]);
    });
}

#[track_caller]
fn stat(bed: &Bed, container: &str, path: &str) -> Value {
    let target = format!("{API}/containers/{container}/archive?path={}", query(path));
    let answer = bed.http().exchange("HEAD", &target, "", b"").expect("an answer").expect(200);
    decode(answer.header("x-docker-container-path-stat").expect("the header"))
}

/// JSON in base64, by base64(1).
fn decode(text: &str) -> Value {
    let mut child = Command::new("base64")
        .arg("-d")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("base64");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("base64");
    assert!(output.status.success(), "not base64: {text}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_stat_header_and_the_names_in_archives_are_docker_s() {
    let bed = Bed::empty();
    bed.load(&Image::new(
        "links:latest",
        &[
            Entry::file("foo", 0o4755, "hello"),
            Entry::folder("bar", 0o755),
            Entry::folder("bar/quux", 0o1777),
            Entry::file("bar/quux/baz", 0o644, "world"),
            Entry::symlink("bar/notarget", "notexist"),
            Entry::symlink("bar/filesymlink", "quux/baz"),
            Entry::symlink("bar/dirsymlink", "quux"),
            Entry::symlink("bar/root", "/"),
        ],
    ));
    bed.http()
        .post("/containers/create?name=web", &json!({ "Image": "links", "Cmd": ["/none"] }))
        .expect(201);
    for (path, names) in [
        ("/", &["/", "/foo", "/bar/quux/baz", "/bar/dirsymlink"][..]),
        (".", &["./", "./foo", "./bar/quux/baz"]),
        ("/.", &["./", "./foo", "./bar/quux/baz"]),
        ("./", &["./", "./foo", "./bar/quux/baz"]),
        ("/bar/root", &["root"]),
        ("/bar/root/", &["root/", "root/foo", "root/bar/quux/baz"]),
        ("/bar/root/.", &["./", "./foo"]),
        ("bar/quux", &["quux/", "quux/baz"]),
        ("bar/quux/", &["quux/", "quux/baz"]),
        ("bar/quux/.", &["./", "./baz"]),
        ("bar/quux/baz", &["baz"]),
        ("bar/filesymlink", &["filesymlink"]),
        ("bar/dirsymlink", &["dirsymlink"]),
        ("bar/dirsymlink/", &["dirsymlink/", "dirsymlink/baz"]),
        ("bar/dirsymlink/.", &["./", "./baz"]),
        ("bar/notarget", &["notarget"]),
    ] {
        let answer = get(&bed, "web", path).expect(200);
        assert_eq!(answer.header("content-type"), Some("application/x-tar"));
        let found = members(&answer.body);
        for name in names {
            assert!(found.iter().any(|found| found == name), "{path}: {name} is not in {found:?}");
        }
        let stat_of = decode(answer.header("x-docker-container-path-stat").expect("the header"));
        assert_eq!(stat_of, stat(&bed, "web", path), "{path}");
    }
    let stat = |path: &str| stat(&bed, "web", path);
    let file = stat("/foo");
    assert_eq!(
        (&file["name"], &file["size"], &file["mode"]),
        (&json!("foo"), &json!(5), &json!(1u32 << 23 | 0o755))
    );
    has(file["mtime"].as_str().expect("a time"), &["2023-11-14T22:13:20"]);
    assert_eq!(file["linkTarget"], "");
    assert_eq!(stat("/bar/quux")["mode"], json!(1u32 << 31 | 1 << 20 | 0o777));
    assert_eq!(stat("/bar/dirsymlink")["mode"], json!(1u32 << 27 | 0o777));
    for (link, target) in [("dirsymlink", "/bar/quux"), ("notarget", "/bar/notexist"), ("root", "/")] {
        assert_eq!(stat(&format!("/bar/{link}"))["linkTarget"], target);
    }
    assert_eq!(stat("/")["name"], "/");
    for (path, status) in [("/none", 404), ("/foo/", 400), ("/foo/x", 400)] {
        let answer = get(&bed, "web", path);
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let answer = bed.http().get("/containers/web/archive");
    has(&answer.refused(400), &["path"]);
}

#[test]
fn what_is_mounted_is_seen() {
    let bed = Bed::new();
    let host = bed.folder("host");
    let single = bed.folder("single").join("file");
    fs::create_dir_all(host.join("inner")).expect("folder");
    fs::write(host.join("inner/seen"), "from the host").expect("file");
    fs::write(&single, "single").expect("file");
    // A link in what is mounted leads around in the container, never on the host.
    std::os::unix::fs::symlink("/etc/plain", host.join("link")).expect("link");
    let bind = format!("{}:/data", host.display());
    let over = format!("{}:/data/inner/covered", bed.folder("other").display());
    fs::write(bed.folder("other").join("deep"), "nested").expect("file");
    let file = format!("{}:/etc/one", single.display());
    let mounts = ["-v", &bind, "-v", &over, "-v", &file, "--tmpfs", "/scratch"];
    in_each_phase(&bed, &mounts, |phase| {
        assert_eq!(content(&bed, phase, "/data/inner/seen"), "from the host");
        assert_eq!(content(&bed, phase, "/data/inner/covered/deep"), "nested");
        assert_eq!(content(&bed, phase, "/etc/one"), "single");
        assert_eq!(get(&bed, phase, "/data/link/").status, 400, "a file is no directory");
        assert_eq!(stat(&bed, phase, "/data/link")["linkTarget"], "/etc/plain");
        let names = members(&get(&bed, phase, "/").expect(200).body);
        for name in ["/data/inner/seen", "/data/inner/covered/deep", "/etc/one", "/etc/hosts"] {
            assert!(names.iter().any(|found| found == name), "{phase}: {name} is not in {names:?}");
        }
        assert!(
            !names.iter().any(|name| name.starts_with("/proc/1") || name.starts_with("/sys/k")),
            "{names:?}"
        );
        // Into the mounts, through the root's own directory and by a member's path.
        put(&bed, phase, "/data", "", &layer(&[Entry::file("put", 0o644, phase)])).expect(200);
        assert_eq!(fs::read_to_string(host.join("put")).expect("on the host"), phase);
        let nested =
            layer(&[Entry::folder("data/inner", 0o755), Entry::file("data/inner/covered/new", 0o644, phase)]);
        put(&bed, phase, "/", "", &nested).expect(200);
        assert_eq!(fs::read_to_string(bed.folder("other").join("new")).expect("on the host"), phase);
        // A file that is a mount is written to, not replaced.
        put(&bed, phase, "/etc", "", &layer(&[Entry::file("one", 0o600, phase)])).expect(200);
        assert_eq!(fs::read_to_string(&single).expect("on the host"), phase);
        fs::write(&single, "single").expect("file");
        // A directory that is a mount is not replaced by a file, and what is in it stays.
        let answer = put(&bed, phase, "/", "", &layer(&[Entry::file("data", 0o644, "")]));
        assert_eq!(answer.status, 500, "{answer:?}");
        has(&answer.text(), &["busy"]);
        assert!(host.join("inner/seen").exists());
        if phase != "stopped" {
            put(&bed, phase, "/scratch", "", &layer(&[Entry::file("kept", 0o644, "in memory")])).expect(200);
            assert_eq!(content(&bed, phase, "/scratch/kept"), "in memory");
        }
    });
    // Of a container that never ran, the places of its mounts are made.
    let fresh = format!("{}:/a/b/c", host.display());
    bed.run(&["create", "--name", "fresh", "-v", &fresh, "busybox"]).ok();
    assert_eq!(content(&bed, "fresh", "/a/b/c/inner/seen"), "from the host");
}

#[test]
fn what_is_read_only_stays_as_it_is() {
    let bed = Bed::new();
    let host = bed.folder("host");
    let bind = format!("{}:/ro:ro", host.display());
    let write = format!("{}:/rw", bed.folder("rw").display());
    in_each_phase(&bed, &["--read-only", "-v", &bind, "-v", &write], |phase| {
        let archive = layer(&[Entry::file("new", 0o644, phase)]);
        has(&put(&bed, phase, "/tmp", "", &archive).refused(403), &["container rootfs is marked read-only"]);
        has(&put(&bed, phase, "/ro", "", &archive).refused(403), &["mounted volume is marked read-only"]);
        put(&bed, phase, "/rw", "", &archive).expect(200);
        assert_eq!(fs::read_dir(&host).expect("folder").count(), 0);
    });
}

#[test]
fn owners_and_kinds() {
    let bed = Bed::new();
    sleeper(&bed, "plain", &[]);
    sleeper(&bed, "user", &["-u", "user:extra"]);
    let archive = layer(&[Entry::file("new", 0o640, "").owned(7, 8)]);
    let owner =
        |container: &str| bed.run(&["exec", container, "stat", "-c", "%u:%g", "/tmp/new"]).ok().to_owned();
    for (container, more, expected) in [
        ("plain", "", "7:8"),
        ("plain", "&copyUIDGID=1", "7:8"),
        ("user", "", "7:8"),
        ("user", "&copyUIDGID=true", "1000:2000"),
    ] {
        put(&bed, container, "/tmp", more, &archive).expect(200);
        assert_eq!(owner(container), expected, "{container} {more}");
    }
    let folder = layer(&[Entry::folder("new", 0o755), Entry::file("new/below", 0o644, "")]);
    let refusal = put(&bed, "plain", "/tmp", "&noOverwriteDirNonDir=1", &folder).refused(400);
    has(&refusal, &["cannot overwrite non-directory", "directory"]);
    put(&bed, "plain", "/tmp", "", &folder).expect(200);
    let refusal = put(&bed, "plain", "/tmp", "&noOverwriteDirNonDir=1", &archive).refused(400);
    has(&refusal, &["cannot overwrite directory", "non-directory"]);
    put(&bed, "plain", "/tmp", "", &archive).expect(200);
    assert_eq!(owner("plain"), "7:8");
    has(
        &put(&bed, "plain", "/etc/passwd", "", &archive).refused(400),
        &["extraction point is not a directory"],
    );
    has(
        &put(&bed, "plain", "/none", "", &archive).refused(404),
        &["Could not find the file /none in container plain"],
    );
    put(&bed, "plain", "/tmp", "", b"").expect(200);
}

#[test]
fn compressed_archives_are_taken() {
    let bed = Bed::new();
    sleeper(&bed, "web", &[]);
    let folder = bed.folder("archives");
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let plain = layer(&[Entry::file(program, 0o644, program.repeat(100_000))]);
        let path = testkit::image::write_archive(&folder, "plain.tar", &plain);
        let Ok(packed) = Command::new(program).arg("-c").arg(&path).output() else { continue };
        put(&bed, "web", "/tmp", "", &packed.stdout).expect(200);
        assert_eq!(content(&bed, "web", &format!("/tmp/{program}")), program.repeat(100_000));
        // Cut off anywhere, it is refused, and no half of a file stays.
        let cut = &packed.stdout[..packed.stdout.len() - 5];
        let name = format!("half-{program}");
        let half = layer(&[Entry::file(&name, 0o644, program.repeat(100_000))]);
        let path = testkit::image::write_archive(&folder, "half.tar", &half);
        let packed = Command::new(program).arg("-c").arg(&path).output().expect("packed");
        let answer = put(&bed, "web", "/tmp", "", &packed.stdout[..packed.stdout.len() / 2]);
        assert_eq!(answer.status, 400, "{program}: {answer:?}");
        assert_eq!(get(&bed, "web", &format!("/tmp/{name}")).status, 404, "{program}");
        let answer = put(&bed, "web", "/tmp", "", cut);
        assert!(matches!(answer.status, 200 | 400), "{program}: {answer:?}");
    }
}

#[test]
fn diff_tells_what_the_container_changed_and_nothing_else() {
    let bed = Bed::new();
    bed.run(&["create", "--name", "same", "busybox", "true"]).ok();
    sleeper(&bed, "web", &["--tmpfs", "/scratch"]);
    let script = "echo new > /new; rm /etc/plain; echo more >> /etc/passwd; mkdir -p /a/b; touch /scratch/unseen; \
                  mv /www /web";
    bed.run(&["exec", "web", "sh", "-c", script]).ok();
    let expected = "A /a\nA /a/b\nC /etc\nC /etc/passwd\nD /etc/plain\nA /new\nA /scratch\nA /web\nA /web/index.html\nD /www";
    each_client(&bed, |client, _| {
        assert_eq!(bed.cli(client, &["diff", "same"]).ok(), "");
        let mut lines: Vec<_> = bed.cli(client, &["diff", "web"]).ok().lines().map(str::to_owned).collect();
        lines.sort_by_key(|line| line[2..].to_owned());
        assert_eq!(lines.join("\n"), expected);
        has(bed.cli(client, &["diff", "nobody"]).fails(1), &["No such container: nobody"]);
    });
    stop(&bed, "web");
    assert_eq!(bed.run(&["diff", "web"]).ok(), expected);
    let changes = bed.http().get("/containers/web/changes").expect(200).json();
    assert!(changes.as_array().expect("a list").contains(&json!({ "Path": "/new", "Kind": 1 })));
}

#[test]
fn export_is_the_whole_root_without_its_mounts() {
    let bed = Bed::new();
    let bind = format!("{}:/data", bed.folder("host").display());
    fs::write(bed.folder("host").join("unseen"), "").expect("file");
    in_each_phase(&bed, &["-v", &bind], |phase| {
        put(&bed, phase, "/", "", &layer(&[Entry::file("own", 0o644, phase)])).expect(200);
        let answer = bed.http().get(&format!("/containers/{phase}/export")).expect(200);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let names = members(&answer.body);
        for name in ["own", "bin/busybox", "etc/passwd", "data/"] {
            assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("unseen") || name.starts_with("proc/1")));
    });
    each_client(&bed, |client, name| {
        sleeper(&bed, name, &[]);
        let path = bed.folder("exports").join(format!("{name}.tar"));
        let path = path.to_str().expect("path");
        bed.cli(client, &["export", "-o", path, name]).ok();
        bed.cli(client, &["import", path, &format!("again-{name}")]).ok();
        let ran = bed.run(&["run", "--rm", &format!("again-{name}"), "/bin/cat", "/etc/plain"]);
        assert_eq!(ran.ok(), "not a program");
    });
}

#[test]
fn commit_makes_an_image_of_a_container() {
    let bed = Bed::new();
    let client_events = bed.http().stream("GET", "/events").expect("events");
    sleeper(&bed, "web", &["-e", "KEPT=1", "-l", "from=container", "-w", "/www", "-h", "named"]);
    bed.run(&["exec", "web", "sh", "-c", "echo made > /made; rm /etc/plain"]).ok();
    each_client(&bed, |client, name| {
        let image = format!("{name}/made:1");
        let ran = bed.cli(
            client,
            &[
                "commit",
                "-a",
                "A Person",
                "-m",
                "a message",
                "-c",
                "CMD [\"cat\", \"/made\"]",
                "-c",
                "ENV MORE=2",
                "-c",
                "LABEL a=b",
                "-c",
                "EXPOSE 80",
                "-c",
                "USER 1000",
                "web",
                &image,
            ],
        );
        has(ran.ok(), &["sha256:"]);
        assert_eq!(bed.run(&["run", "--rm", &image]).ok(), "made");
        assert_eq!(
            bed.run(&["run", "--rm", &image, "sh", "-c", "id -u; pwd; ls /etc/plain 2>&1; echo $KEPT$MORE"])
                .ok(),
            "1000\n/www\nls: /etc/plain: No such file or directory\n12"
        );
        let inspect = bed.http().get(&format!("/images/{image}/json")).expect(200).json();
        assert_eq!((&inspect["Author"], &inspect["Comment"]), (&json!("A Person"), &json!("a message")));
        assert_eq!(inspect["Config"]["Labels"], json!({ "a": "b", "from": "container" }));
        assert_eq!(inspect["Config"]["ExposedPorts"], json!({ "80/tcp": {} }));
        assert_ne!(inspect["Config"]["Hostname"], "named", "a container's name is not its image's");
        assert_eq!(inspect["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
        let history = bed.http().get(&format!("/images/{image}/history")).expect(200).json();
        assert_eq!(
            (&history[0]["CreatedBy"], &history[0]["Comment"]),
            (&json!("sleep 100000"), &json!("a message"))
        );
        assert_eq!(bed.inspect("web")["State"]["Status"], "running", "it goes on");
    });
    drop(client_events);
    let events = bed.run(&[
        "events",
        "--since",
        "1m",
        "--until",
        "0s",
        "--filter",
        "container=web",
        "--format",
        "{{.Action}}",
    ]);
    has(events.ok(), &["pause", "unpause", "commit"]);
    bed.run(&["rmi", "-f", "own/made:1", "docker/made:1"]);
}

#[test]
fn commit_by_the_api() {
    let bed = Bed::new();
    bed.run(&["create", "--name", "idle", "-e", "A=container", "busybox", "true"]).ok();
    let commit =
        |query: &str, body: &Value| bed.http().post(&format!("/commit?container=idle&{query}"), body);
    // A body says what is different; the container says the rest.
    let body = json!({ "Cmd": ["echo", "body"], "Env": ["B=body"], "Labels": { "x": "y" } });
    let id = commit("repo=api&tag=1", &body).expect(201).json()["Id"].as_str().expect("id").to_owned();
    let inspect = bed.http().get(&format!("/images/{id}/json")).expect(200).json();
    assert_eq!(inspect["RepoTags"], json!(["api:1"]));
    assert_eq!(inspect["Config"]["Cmd"], json!(["echo", "body"]));
    let env = inspect["Config"]["Env"].as_array().expect("a list").clone();
    assert!(env.contains(&json!("A=container")) && env.contains(&json!("B=body")), "{env:?}");
    assert_eq!(
        inspect["RootFS"]["Layers"].as_array().map(Vec::len),
        Some(1),
        "nothing was changed: {inspect}"
    );
    // Who speaks an older version is told what the image was made of.
    let (container, asked) = (bed.inspect("idle"), |version: &str, name: &str| {
        let path = format!("/{version}/images/{name}/json");
        bed.http().exchange("GET", &path, "", b"").expect("an answer").expect(200).json()
    });
    let old = asked("v1.44", &id);
    assert_eq!(old["Container"], container["Id"]);
    assert_eq!(old["ContainerConfig"], container["Config"]);
    let base = asked("v1.44", "busybox");
    assert_eq!((&base["Container"], &base["ContainerConfig"]["Image"]), (&json!(""), &json!("")));
    let new = asked("v1.45", &id);
    assert!(new.get("Container").is_none() && new.get("ContainerConfig").is_none(), "{new}");
    // Without a name it has none; without a body it is what the container is.
    let id =
        bed.http().act("/commit?container=idle").expect(201).json()["Id"].as_str().expect("id").to_owned();
    let inspect = bed.http().get(&format!("/images/{id}/json")).expect(200).json();
    assert_eq!(inspect["RepoTags"], json!([]));
    assert_eq!(inspect["Config"]["Cmd"], json!(["true"]));
    for (query, status, text) in [
        ("container=nobody", 404, "No such container: nobody"),
        ("container=idle&repo=UPPER", 400, "lowercase"),
        ("container=idle&changes=RUN+true", 400, "run is not a valid change command"),
        ("container=idle&changes=NONSENSE", 400, "NONSENSE"),
    ] {
        let answer = bed.http().act(&format!("/commit?{query}"));
        has(&answer.refused(status).to_lowercase(), &[&text.to_lowercase()]);
    }
    // What runs on an image stays: its containers keep it.
    bed.run(&["run", "-d", "--name", "child", "api:1", "sleep", "1000"]).ok();
    has(bed.run(&["rmi", &id]).ok(), &["Deleted"]);
    bed.run(&["rm", "-f", "child"]).ok();
    bed.run(&["rmi", "api:1"]).ok();
}

#[test]
fn a_daemon_that_dies_in_a_commit_leaves_nothing_frozen() {
    let mut bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    sleeper(&bed, "web", &[]);
    bed.run(&["exec", "web", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null"]).ok();
    let socket = bed.socket();
    let committing = std::thread::spawn(move || {
        let _ = testkit::Http::new(&socket).ask("POST", "/commit?container=web&repo=cut", None);
    });
    testkit::process::eventually("it is paused for the commit, or the commit is done", || {
        bed.inspect("web")["State"]["Status"] == "paused" || bed.http().get("/images/cut/json").status == 200
    });
    bed.kill();
    let _ = committing.join();
    bed.start();
    assert_eq!(bed.inspect("web")["State"]["Status"], "running");
    assert_eq!(bed.run(&["exec", "web", "echo", "alive"]).ok(), "alive");
    bed.run(&["rmi", "-f", "cut"]);
}

#[test]
fn many_copy_into_one_container_at_once() {
    let bed = Bed::new();
    for phase in ["created", "running"] {
        bed.run(&["create", "--name", phase, "busybox", "sleep", "100000"]).ok();
        if phase == "running" {
            bed.run(&["start", phase]).ok();
        }
        std::thread::scope(|scope| {
            for worker in 0..6 {
                let bed = &bed;
                scope.spawn(move || {
                    for turn in 0..10 {
                        // Directories of the image, so that each write copies something up.
                        let names = [format!("etc/{worker}-{turn}"), format!("home/user/{worker}/{turn}")];
                        let entries = names.map(|name| Entry::file(&name, 0o644, "x".repeat(100_000)));
                        put(bed, phase, "/", "", &layer(&entries)).expect(200);
                        get(bed, phase, "/home").expect(200);
                    }
                });
            }
        });
        let names = members(&get(&bed, phase, "/").expect(200).body);
        for (worker, turn) in (0..6).flat_map(|worker| (0..10).map(move |turn| (worker, turn))) {
            for name in [format!("/etc/{worker}-{turn}"), format!("/home/user/{worker}/{turn}")] {
                assert!(names.contains(&name), "{phase}: {name} is lost");
            }
        }
    }
}

// --- safety

/// In a decoy on the host; nothing that a container or an archive does may read or change it.
const SECRET: &str = "the host's own";

/// A folder of the host, and a container that runs a script.
fn beside_a_decoy(bed: &Bed, name: &str, script: &str, more: &[&str]) -> std::path::PathBuf {
    let decoy = bed.folder("decoy");
    fs::write(decoy.join("secret"), SECRET).expect("file");
    let mut arguments = vec!["run", "-d", "--name", name];
    arguments.extend(more);
    let script = script.replace("DECOY", decoy.to_str().expect("path"));
    arguments.extend(["busybox", "sh", "-c", &script]);
    bed.run(&arguments).ok();
    decoy
}

#[track_caller]
fn is_untouched(decoy: &Path) {
    let names: Vec<_> =
        fs::read_dir(decoy).expect("folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["secret"], "something came out of the container");
    assert_eq!(fs::read_to_string(decoy.join("secret")).expect("file"), SECRET);
}

/// A process in the container swaps a directory for a link to the host's path while the daemon copies.
#[test]
fn cve_2018_15664_links_swapped_while_copying_lead_nowhere() {
    let bed = Bed::new();
    // The two names are exchanged as fast as a shell can.
    let script = "mkdir /real; echo mine > /real/secret; cp -r /real /path; ln -s DECOY /link; touch /ready; \
                  while :; do mv -T /path /aside; mv -T /link /path; mv -T /path /link; mv -T /aside /path; done";
    let decoy = beside_a_decoy(&bed, "swapper", script, &[]);
    testkit::process::eventually("it swaps", || get(&bed, "swapper", "/ready").status == 200);
    let mut read = 0;
    for turn in 0..150 {
        let name = format!("out-{turn}");
        let archive = layer(&[Entry::file(&name, 0o644, "in"), Entry::file("secret", 0o644, "mine")]);
        let answer = put(&bed, "swapper", "/path", "", &archive);
        assert!(matches!(answer.status, 200 | 400 | 404 | 500), "{answer:?}");
        let members =
            layer(&[Entry::file("path/secret", 0o644, "mine"), Entry::file("path/other", 0o644, "")]);
        put(&bed, "swapper", "/", "", &members);
        for path in ["/path/secret", "/path/", "/path/."] {
            let answer = get(&bed, "swapper", path);
            let text = answer.text();
            assert!(!text.contains(SECRET), "the host's file came out by {path}");
            read += usize::from(answer.status == 200);
        }
    }
    assert!(read > 0, "the path was never there; nothing was tried");
    is_untouched(&decoy);
}

/// Nothing of a container's root is loaded or run by the daemon when it copies.
#[test]
fn cve_2019_14271_nothing_in_the_root_is_loaded() {
    let bed = Bed::new();
    let decoy = bed.folder("decoy");
    fs::write(decoy.join("secret"), SECRET).expect("file");
    // Libraries for looking up names, which a careless daemon would load to tell whom files belong to.
    let touch = format!("#!/bin/sh\ntouch {}/run\n", decoy.display());
    let mut entries = vec![
        Entry::folder("lib", 0o755),
        Entry::folder("lib/x86_64-linux-gnu", 0o755),
        Entry::file("etc/nsswitch.conf", 0o644, "passwd: files evil\ngroup: files evil\n"),
        Entry::file("etc/ld.so.preload", 0o644, "/lib/libnss_evil.so.2\n"),
    ];
    for name in ["libnss_evil.so.2", "libnss_files.so.2", "x86_64-linux-gnu/libnss_files.so.2"] {
        entries.push(Entry::file(&format!("lib/{name}"), 0o755, touch.clone()));
    }
    let mut image = testkit::image::busybox().with_layer(&entries);
    image.name = "evil:latest".into();
    bed.load(&image);
    bed.run(&["run", "-d", "--name", "web", "-u", "user", "evil", "sleep", "100000"]).ok();
    for phase in ["running", "stopped"] {
        let maps = || fs::read_to_string(format!("/proc/{}/maps", bed.pid())).expect("maps");
        put(&bed, "web", "/tmp", "&copyUIDGID=1", &layer(&[Entry::file(phase, 0o644, "")])).expect(200);
        get(&bed, "web", "/").expect(200);
        bed.http().get("/containers/web/export").expect(200);
        assert!(!maps().contains("libnss_"), "{}", maps());
        let root = fs::read_link(format!("/proc/{}/root", bed.pid())).expect("root");
        assert_eq!(root, Path::new("/"), "the daemon goes into no root");
        stop(&bed, "web");
    }
    is_untouched(&decoy);
}

/// Compressed uploads are undone by the daemon itself: a program of that name in the container does not run.
#[test]
fn cve_2026_41567_no_program_of_the_container_decompresses() {
    let bed = Bed::new();
    let decoy = bed.folder("decoy");
    fs::write(decoy.join("secret"), SECRET).expect("file");
    let trap = format!("#!/bin/sh\ntouch {}/run /run-in-container\n", decoy.display());
    let programs = ["unpigz", "pigz", "gzip", "gunzip", "xz", "unxz", "bzip2", "zstd", "tar"];
    let mut entries = Vec::new();
    for program in programs {
        for folder in ["bin", "usr/bin"] {
            entries.push(Entry::file(&format!("{folder}/{program}"), 0o755, trap.clone()));
        }
    }
    let mut image = testkit::image::busybox().with_layer(&entries);
    image.name = "evil:latest".into();
    bed.load(&image);
    bed.run(&["run", "-d", "--name", "web", "evil", "sleep", "100000"]).ok();
    let folder = bed.folder("archives");
    for phase in ["running", "stopped"] {
        for program in ["gzip", "xz", "bzip2", "zstd"] {
            let plain = layer(&[Entry::file("came", 0o644, program)]);
            let path = testkit::image::write_archive(&folder, "plain.tar", &plain);
            let Ok(packed) = Command::new(program).arg("-c").arg(&path).output() else { continue };
            put(&bed, "web", "/tmp", "", &packed.stdout).expect(200);
            assert_eq!(content(&bed, "web", "/tmp/came"), program);
        }
        assert_eq!(get(&bed, "web", "/run-in-container").status, 404, "{phase}");
        stop(&bed, "web");
    }
    is_untouched(&decoy);
}

/// A container whose mount's place is a link, or becomes one while something is copied: nothing is made on the host.
#[test]
fn cve_2026_41568_places_of_mounts_are_not_made_outside() {
    let bed = Bed::new();
    let decoy = bed.folder("decoy");
    fs::write(decoy.join("secret"), SECRET).expect("file");
    let host = bed.folder("host");
    fs::write(host.join("file"), "mounted").expect("file");
    // The image has links where the mounts go: to a folder of the host, and to a file that is not there.
    let target = decoy.to_str().expect("path");
    let mut image = testkit::image::busybox().with_layer(&[
        Entry::symlink("data", target),
        Entry::symlink("single", &format!("{target}/made")),
        Entry::symlink("up", &format!("../../../../../../..{target}")),
    ]);
    image.name = "evil:latest".into();
    bed.load(&image);
    let volumes = [
        format!("{}:/data/inner", host.display()),
        format!("{}:/single", host.join("file").display()),
        format!("{}:/up/inner", host.display()),
    ];
    let mut arguments = vec!["create", "--name", "web"];
    volumes.iter().for_each(|volume| arguments.extend(["-v", volume]));
    arguments.extend(["evil", "sleep", "100000"]);
    bed.run(&arguments).ok();
    // The daemon makes the places in the container's own tree, before its first start and after.
    for start in [false, true] {
        if start {
            bed.run(&["start", "web"]).ok();
        }
        assert_eq!(content(&bed, "web", "/data/inner/file"), "mounted");
        assert_eq!(content(&bed, "web", "/up/inner/file"), "mounted");
        put(&bed, "web", "/data", "", &layer(&[Entry::file("new", 0o644, "")])).expect(200);
        stat(&bed, "web", "/single");
        is_untouched(&decoy);
    }
}

/// A process swaps the place of a mount for a link to the host's path while copies come and go: no mount of the container
/// ever lands there.
#[test]
fn cve_2026_42306_mounts_do_not_follow_swapped_places() {
    let bed = Bed::new();
    let host = bed.folder("host");
    fs::write(host.join("file"), "mounted").expect("file");
    let bind = format!("{}:/a/b/mount", host.display());
    let script = "mkdir -p /x/b/mount; ln -s DECOY /link; touch /ready; \
                  while :; do mv -T /a/b /a/c; ln -s DECOY /a/b; rm /a/b; mv -T /a/c /a/b; done 2>/dev/null";
    let decoy = beside_a_decoy(&bed, "swapper", script, &["-v", &bind]);
    testkit::process::eventually("it swaps", || get(&bed, "swapper", "/ready").status == 200);
    let mounts = || fs::read_to_string(format!("/proc/{}/mountinfo", bed.pid())).expect("mounts");
    let before = mounts();
    for turn in 0..150 {
        put(&bed, "swapper", "/", "", &layer(&[Entry::file("a/b/mount/put", 0o644, turn.to_string())]));
        put(&bed, "swapper", "/a/b", "", &layer(&[Entry::file("new", 0o644, "")]));
        let answer = get(&bed, "swapper", "/a");
        assert!(!answer.text().contains(SECRET));
        assert_eq!(mounts(), before, "no mount on the host");
    }
    is_untouched(&decoy);
    bed.run(&["rm", "-f", "swapper"]).ok();
    // The same with the container at rest, its links as it left them.
    let script = "rm -rf /a/b; ln -s DECOY /a/b";
    let bind = format!("{}:/elsewhere", host.display());
    beside_a_decoy(&bed, "left", &format!("mkdir /a; {script}"), &["-v", &bind]);
    bed.run(&["wait", "left"]).ok();
    put(&bed, "left", "/", "", &layer(&[Entry::file("a/b/out", 0o644, "")]));
    put(&bed, "left", "/a/b", "", &layer(&[Entry::file("out", 0o644, "")]));
    assert!(!get(&bed, "left", "/a/b/").text().contains(SECRET));
    assert_eq!(mounts(), before);
    is_untouched(&decoy);
}

// --- bad input

#[test]
fn hostile_archives_stay_inside() {
    let bed = Bed::new();
    let decoy = bed.folder("decoy");
    fs::write(decoy.join("secret"), SECRET).expect("file");
    let out = decoy.to_str().expect("path");
    in_each_phase(&bed, &[], |phase| {
        for (entries, allowed) in [
            (vec![Entry::file("../out", 0o644, "x")], [400, 400]),
            (vec![Entry::file("a/../../out", 0o644, "x")], [400, 400]),
            (vec![Entry::file(&format!("{out}/out"), 0o644, "x")], [200, 200]),
            (vec![Entry::symlink("link", out), Entry::file("link/out", 0o644, "x")], [200, 400]),
            (
                vec![Entry::symlink("link", "../../../../../.."), Entry::file("link/tmp/out", 0o644, "x")],
                [200, 400],
            ),
            (vec![Entry::hardlink("hard", "../../etc/shadow")], [400, 400]),
            (vec![Entry::hardlink("hard", &format!("{out}/secret"))], [400, 400]),
            (vec![Entry::symlink("s", out), Entry::hardlink("hard", "s/secret")], [400, 400]),
            (vec![Entry::file("", 0o644, "x")], [400, 400]),
            (vec![Entry::symlink("", out)], [400, 400]),
        ] {
            let answer = put(&bed, phase, "/tmp", "", &layer(&entries));
            assert!(allowed.contains(&answer.status), "{phase}: {entries:?}: {answer:?}");
            is_untouched(&decoy);
        }
        // A device is made in the container's root, where it cannot be used from outside.
        let device = Entry { kind: Kind::Device { major: 1, minor: 5 }, ..Entry::file("zero", 0o666, "") };
        put(&bed, phase, "/tmp", "", &layer(&[device])).expect(200);
        assert_eq!(stat(&bed, phase, "/tmp/zero")["mode"], json!(1u32 << 26 | 1 << 21 | 0o666));
        assert_eq!(members(&get(&bed, phase, "/tmp/zero").expect(200).body), ["zero"], "not read from");
    });
}

#[test]
fn broken_uploads_leave_nothing() {
    let bed = Bed::new();
    in_each_phase(&bed, &[], |phase| {
        let archive =
            layer(&[Entry::file("whole", 0o644, "x"), Entry::file("half", 0o644, "y".repeat(100_000))]);
        let answer = put(&bed, phase, "/tmp", "", &archive[..50_000]);
        has(&answer.refused(400), &["unexpected end"]);
        assert_eq!(get(&bed, phase, "/tmp/half").status, 404);
        assert_eq!(content(&bed, phase, "/tmp/whole"), "x");
        for garbage in [
            &b"no archive at all, and long enough to be taken for one".repeat(20)[..],
            &[0x1f, 0x8b, 8, 1, 2],
            b"BZh9garbage",
            b"\xfd7zXZ\0garbage-and-more",
            b"\x28\xb5\x2f\xfd-garbage",
        ] {
            let answer = put(&bed, phase, "/tmp", "", garbage);
            assert_eq!(answer.status, 400, "{answer:?}");
        }
        has(&put(&bed, "nobody", "/tmp", "", b"").refused(404), &["No such container: nobody"]);
    });
}

#[test]
fn a_full_disk_is_said_and_half_a_file_removed() {
    let bed = Bed::new();
    sleeper(&bed, "web", &["--tmpfs", "/small:size=1m"]);
    let archive = layer(&[Entry::file("fits", 0o644, "x"), Entry::file("large", 0o644, vec![b'y'; 4 << 20])]);
    let answer = put(&bed, "web", "/small", "", &archive);
    assert_eq!(answer.status, 500, "{answer:?}");
    has(&answer.text().to_lowercase(), &["no space left on device", "large"]);
    assert_eq!(get(&bed, "web", "/small/large").status, 404);
    assert_eq!(content(&bed, "web", "/small/fits"), "x");
    let file = bed.folder("here").join("large");
    fs::write(&file, vec![b'y'; 4 << 20]).expect("file");
    let ran = bed.cli(Client::Own, &["cp", file.to_str().expect("path"), "web:/small/"]);
    has(&ran.fails(1).to_lowercase(), &["no space left on device"]);
}

#[test]
fn a_start_waits_for_copies_out_of_a_stopped_container() {
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    sleeper(&bed, "web", &[]);
    bed.run(&["exec", "web", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=16 2>/dev/null"]).ok();
    stop(&bed, "web");
    let mut copy = bed.http().stream("GET", "/containers/web/archive?path=/big").expect("an answer");
    assert_eq!(copy.status, 200);
    let socket = bed.socket();
    let starting = std::thread::spawn(move || {
        testkit::Http::new(&socket).ask("POST", "/containers/web/start", None).expect("an answer").status
    });
    let mut copied = Vec::new();
    std::io::Read::read_to_end(&mut copy, &mut copied).expect("the whole archive");
    assert!(copied.len() > 16 << 20, "{}", copied.len());
    assert_eq!(starting.join().expect("no panic"), 204);
}
