//! Volumes: what they hold, who sees it, and when it goes.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::image::{Entry, Image};
use testkit::process::eventually;
use testkit::{Bed, BedOptions, Engine, image};
use tests::{each_client, has, is_corten};

/// `site`: what its image has at `/data`, `/VOLUME /data`, made of two layers.
fn site() -> Image {
    let mut image = image::busybox();
    image.name = "site:latest".into();
    image
        .with_layer(&[
            Entry::folder("data", 0o2770).owned(1000, 1001),
            Entry::file("data/page", 0o640, "hello\n").owned(1000, 1001),
            Entry::hardlink("data/again", "data/page"),
            Entry::symlink("data/passwd", "/etc/passwd"),
            Entry::folder("data/sub", 0o700).owned(7, 8),
            Entry::file("data/sub/deep", 0o4755, "deep\n"),
        ])
        .with("Volumes", json!({ "/data": {} }))
}

fn volumes(bed: &Bed) -> Vec<String> {
    let list = bed.http().get("/volumes").expect(200).json();
    let all = list["Volumes"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> =
        all.iter().map(|one| one["Name"].as_str().expect("name").to_owned()).collect();
    names.sort();
    names
}

fn mountpoint(bed: &Bed, volume: &str) -> PathBuf {
    let found = bed.http().get(&format!("/volumes/{volume}")).expect(200).json();
    found["Mountpoint"].as_str().expect("a path").into()
}

/// What `container inspect` says of the mount at a destination.
fn mount(bed: &Bed, container: &str, destination: &str) -> Value {
    let found = bed.inspect(container);
    let mounts = found["Mounts"].as_array().expect("mounts").clone();
    mounts.into_iter().find(|mount| mount["Destination"] == destination).expect("the mount")
}

fn actions(bed: &Bed, kind: &str, since: u64) -> Vec<(String, String)> {
    let filters = format!("%7B%22type%22%3A%5B%22{kind}%22%5D%7D");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let path = format!("/events?since={since}&until={}&filters={filters}", now + 1);
    let mut stream = bed.http().stream("GET", &path).expect("events");
    let mut all = Vec::new();
    while let Ok(Some(line)) = stream.line() {
        let event: Value = serde_json::from_str(&line).expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.push((text(&event["Action"]), text(&event["Actor"]["ID"])));
    }
    all
}

#[test]
fn made_listed_inspected_and_removed() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        let volume = format!("data-{name}");
        assert_eq!(bed.cli(client, &["volume", "create", "--label", "tier=web", &volume]).ok(), volume);
        // Again is no mistake, and changes nothing.
        assert_eq!(bed.cli(client, &["volume", "create", "--label", "tier=db", &volume]).ok(), volume);
        let found: Value =
            serde_json::from_str(bed.cli(client, &["volume", "inspect", &volume]).ok()).expect("JSON");
        assert_eq!(
            (
                &found[0]["Name"],
                &found[0]["Driver"],
                &found[0]["Scope"],
                &found[0]["Labels"],
                &found[0]["Options"]
            ),
            (&json!(volume), &json!("local"), &json!("local"), &json!({ "tier": "web" }), &Value::Null)
        );
        has(found[0]["Mountpoint"].as_str().expect("a path"), &["/volumes/", "/_data"]);
        let list =
            bed.cli(client, &["volume", "ls", "--filter", "label=tier=web", "--filter", "dangling=true"]);
        assert_eq!(list.ok(), format!("DRIVER    VOLUME NAME\nlocal     {volume}"));
        assert_eq!(bed.cli(client, &["volume", "ls", "-q", "--filter", "name=nothing"]).ok(), "");
        let ran = bed.cli(client, &["volume", "rm", &volume, "gone"]);
        has(&ran.said(), &[&volume, "get gone: no such volume"]);
        assert_eq!(ran.code, 1);
        assert_eq!(bed.cli(client, &["volume", "rm", "-f", "gone"]).code, 0);
        let unnamed = bed.cli(client, &["volume", "create"]).ok().to_owned();
        assert!(unnamed.len() == 64 && unnamed.bytes().all(|byte| byte.is_ascii_hexdigit()), "{unnamed}");
        bed.cli(client, &["volume", "create", "kept"]).ok();
        has(
            bed.cli(client, &["volume", "prune", "-f"]).ok(),
            &["Deleted Volumes:", &unnamed, "Total reclaimed space: 0B"],
        );
        assert_eq!(volumes(&bed), ["kept"]);
        has(bed.cli(client, &["volume", "prune", "-af"]).ok(), &["kept"]);
        assert_eq!(volumes(&bed), [""; 0]);
    });
}

#[test]
fn refusals_have_docker_s_words() {
    let bed = Bed::new();
    let mut http = bed.http();
    let create = |name: &str, body: Value| {
        let mut body = body;
        body["Name"] = json!(name);
        bed.http().post("/volumes/create", &body)
    };
    has(&create("x", json!({})).refused(400), &["volume name is too short, names should be at least two"]);
    has(
        &create("a/b", json!({})).refused(400),
        &["\"a/b\" includes invalid characters for a local volume name"],
    );
    has(
        &create("web", json!({ "DriverOpts": { "color": "red" } })).refused(400),
        &["invalid option: \"color\""],
    );
    let plugin = create("web", json!({ "Driver": "nfs-plugin" })).refused(404);
    has(&plugin, &["error looking up volume plugin nfs-plugin: plugin \"nfs-plugin\" not found"]);
    create("web", json!({})).expect(201);
    has(
        &create("web", json!({ "Driver": "other" })).refused(409),
        &["create web: ", "volume name must be unique"],
    );
    has(&http.get("/volumes/gone").refused(404), &["get gone: no such volume"]);
    has(&http.delete("/volumes/gone").refused(404), &["get gone: no such volume"]);
    http.get("/volumes?filters=%7B%22color%22%3A%5B%22red%22%5D%7D").refused(400);
    http.get("/volumes?filters=%7B%22dangling%22%3A%5B%22maybe%22%5D%7D").refused(400);
    bed.run(&["create", "--name", "holder", "-v", "web:/web", "busybox"]).ok();
    let id = bed.inspect("holder")["Id"].as_str().expect("id").to_owned();
    has(
        &http.delete("/volumes/web?force=1").refused(409),
        &[&format!("remove web: volume is in use - [{id}]")],
    );
    for (flags, text) in [
        (&["-v", "web:/x", "--mount", "src=web,dst=/x"][..], "Duplicate mount point: /x"),
        (&["-v", "web:/x:shared"], "invalid mode: shared"),
        (&["-v", "web:/x:up"], "invalid mode: up"),
        (&["-v", "w/b:/x"], "includes invalid characters for a local volume name"),
        (&["--volumes-from", "nobody"], "No such container: nobody"),
        (
            &["--mount", "src=web,dst=/x,volume-subpath=../up"],
            "subpath must be a relative path within the volume",
        ),
        (&["--mount", "dst=/x,volume-subpath=a"], "must not set Subpath when using anonymous volumes"),
    ] {
        let mut words = vec!["create"];
        words.extend(flags);
        words.push("busybox");
        has(&bed.run(&words).said(), &[text]);
    }
    assert_eq!(volumes(&bed), ["web"], "what was refused made nothing");
}

#[test]
fn a_named_volume_outlives_its_containers_and_is_shared() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        let volume = format!("v-{name}:/data");
        bed.cli(client, &["run", "--rm", "-v", &volume, "busybox", "sh", "-c", "echo kept > /data/file"])
            .ok();
        let read =
            bed.cli(client, &["run", "--rm", "-v", &format!("{volume}:ro"), "busybox", "cat", "/data/file"]);
        assert_eq!(read.ok(), "kept");
        let write = ["run", "--rm", "-v", &format!("{volume}:ro"), "busybox", "touch", "/data/x"];
        has(&bed.cli(client, &write).said(), &["Read-only file system"]);
    });
    bed.run(&["run", "-d", "--name", "writer", "--mount", "src=shared,dst=/out", "busybox", "sleep", "1000"])
        .ok();
    bed.run(&["run", "-d", "--name", "reader", "-v", "shared:/in:ro", "busybox", "sleep", "1000"]).ok();
    bed.run(&["exec", "writer", "sh", "-c", "echo news > /out/paper"]).ok();
    assert_eq!(bed.run(&["exec", "reader", "cat", "/in/paper"]).ok(), "news");
    let path = mountpoint(&bed, "shared");
    assert_eq!(
        mount(&bed, "reader", "/in"),
        json!({
            "Type": "volume", "Name": "shared", "Source": path, "Destination": "/in", "Driver": "local",
            "Mode": "ro", "RW": false, "Propagation": "",
        })
    );
    assert_eq!(mount(&bed, "writer", "/out")["Mode"], "z");
    assert_eq!(std::fs::read_to_string(path.join("paper")).expect("the file"), "news\n");
    let listed = bed.run(&["ps", "-q", "--no-trunc", "--filter", "volume=shared"]).ok().lines().count();
    assert_eq!(listed, 2);
    bed.run(&["rm", "-vf", "writer", "reader"]).ok();
    assert!(volumes(&bed).contains(&"shared".to_owned()), "-v takes only what nobody named");
}

#[test]
fn an_empty_volume_is_filled_from_the_image() {
    let bed = Bed::new();
    bed.load(&site());
    bed.http().post("/volumes/create", &json!({ "Name": "made-before" })).expect(201);
    for volume in ["made-before", "made-now"] {
        bed.run(&["create", "--name", volume, "-v", &format!("{volume}:/data"), "site"]).ok();
        let path = mountpoint(&bed, volume);
        let stat = |name: &str| std::fs::symlink_metadata(path.join(name)).expect(name);
        let owner = |name: &str| (stat(name).uid(), stat(name).gid(), stat(name).mode() & 0o7777);
        assert_eq!(owner(""), (1000, 1001, 0o2770), "{volume}");
        assert_eq!(owner("page"), (1000, 1001, 0o640));
        assert_eq!(owner("sub"), (7, 8, 0o700));
        assert_eq!(owner("sub/deep"), (0, 0, 0o4755));
        assert_eq!(stat("page").ino(), stat("again").ino(), "a hard link stays one");
        assert_eq!(std::fs::read_link(path.join("passwd")).expect("a link"), PathBuf::from("/etc/passwd"));
    }
    // What a volume holds stays, whatever the image has.
    bed.run(&["run", "--rm", "-v", "made-now:/data", "site", "rm", "/data/page"]).ok();
    assert_eq!(
        bed.run(&["run", "--rm", "-v", "made-now:/data", "site", "ls", "/data"]).ok(),
        "again\npasswd\nsub"
    );
    assert_eq!(bed.run(&["run", "--rm", "-v", "bare:/data:nocopy", "site", "ls", "/data"]).ok(), "");
    assert_eq!(
        bed.run(&["run", "--rm", "--mount", "dst=/data,volume-nocopy", "site", "ls", "/data"]).ok(),
        ""
    );
    // A part of it, found inside it: the link leads to its own /etc, which it does not have.
    let part =
        ["run", "--rm", "--mount", "src=made-now,dst=/m,volume-subpath=sub", "busybox", "cat", "/m/deep"];
    assert_eq!(bed.run(&part).ok(), "deep");
    for missing in ["nothing", "passwd"] {
        let flag = format!("src=made-now,dst=/m,volume-subpath={missing}");
        has(
            &bed.run(&["run", "--rm", "--mount", &flag, "busybox", "true"]).said(),
            &["cannot access path", missing],
        );
    }
}

#[test]
fn the_first_use_by_many_fills_it_once() {
    let bed = Bed::new();
    bed.load(&site());
    let body = json!({ "Image": "site", "HostConfig": { "Binds": ["both:/data", "other:/www"] } });
    let back = json!({ "Image": "site", "HostConfig": { "Binds": ["other:/www", "both:/data"] } });
    let socket = bed.socket();
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (socket, body) = (&socket, if number % 2 == 0 { &body } else { &back });
            scope.spawn(move || {
                let name = format!("/containers/create?name=c{number}");
                testkit::Http::new(socket).post(&name, body).expect(201);
            });
        }
    });
    let mut names: Vec<String> = std::fs::read_dir(mountpoint(&bed, "both"))
        .expect("the volume")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    names.sort();
    assert_eq!(names, ["again", "page", "passwd", "sub"]);
    assert_eq!(volumes(&bed), ["both", "other"]);
}

#[test]
fn volumes_that_nobody_named_go_with_their_container() {
    let bed = Bed::new();
    bed.load(&site());
    each_client(&bed, |client, name| {
        // The image's own, and one of the command line.
        bed.cli(
            client,
            &["run", "--rm", "-v", "/more", "-v", "named:/named", "site", "touch", "/data/x", "/more/y"],
        )
        .ok();
        eventually("--rm takes them along", || volumes(&bed) == ["named"]);
        bed.cli(client, &["run", "--name", name, "-v", "/more", "site", "cat", "/data/page"]).ok();
        let made = volumes(&bed);
        assert_eq!(made.len(), 3, "{made:?}");
        let shown = mount(&bed, name, "/data");
        assert_eq!(
            (&shown["Type"], &shown["Mode"], &shown["RW"]),
            (&json!("volume"), &json!(""), &json!(true))
        );
        assert!(made.contains(&shown["Name"].as_str().expect("name").to_owned()));
        // Another container borrows it: then it stays when the first goes.
        let borrower = format!("borrower-{name}");
        bed.cli(client, &["create", "--name", &borrower, "--volumes-from", &format!("{name}:ro"), "busybox"])
            .ok();
        assert_eq!(mount(&bed, &borrower, "/data")["RW"], json!(false));
        bed.cli(client, &["rm", "-v", name]).ok();
        assert_eq!(volumes(&bed), made);
        bed.cli(client, &["rm", "-v", &borrower]).ok();
        eventually("the last one takes them along", || volumes(&bed) == ["named"]);
        bed.cli(client, &["create", "--name", name, "site"]).ok();
        bed.cli(client, &["rm", name]).ok();
        assert_eq!(volumes(&bed).len(), 2, "without -v they stay");
        bed.cli(client, &["volume", "prune", "-f"]).ok();
        assert_eq!(volumes(&bed), ["named"]);
    });
}

#[test]
fn volumes_from_shows_what_the_other_has() {
    let bed = Bed::new();
    let folder = bed.folder("host");
    std::fs::write(folder.join("file"), "of the host\n").expect("a file");
    let bind = format!("{}:/bound:ro", folder.display());
    bed.run(&["run", "-d", "--name", "first", "-v", "data:/data", "-v", &bind, "busybox", "sleep", "1000"])
        .ok();
    bed.run(&["exec", "first", "sh", "-c", "echo of the volume > /data/file"]).ok();
    let read = ["run", "--rm", "--volumes-from", "first", "busybox", "cat", "/data/file", "/bound/file"];
    assert_eq!(bed.run(&read).ok(), "of the volume\nof the host");
    let over = ["run", "--rm", "--volumes-from", "first", "-v", "own:/data", "busybox", "ls", "/data"];
    assert_eq!(bed.run(&over).ok(), "", "its own mount wins");
    let read_only = ["run", "--rm", "--volumes-from", "first:ro", "busybox", "touch", "/data/x"];
    has(&bed.run(&read_only).said(), &["Read-only file system"]);
}

#[test]
fn events_tell_of_a_volume_s_life() {
    let bed = Bed::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    bed.run(&["run", "--name", "web", "-v", "data:/data", "busybox", "true"]).ok();
    bed.run(&["rm", "web"]).ok();
    bed.run(&["volume", "rm", "data"]).ok();
    bed.run(&["volume", "prune", "-f"]).ok();
    let told = actions(&bed, "volume", now);
    let told: Vec<(&str, &str)> = told.iter().map(|(action, id)| (action.as_str(), id.as_str())).collect();
    assert_eq!(
        told,
        [("create", "data"), ("mount", "data"), ("unmount", "data"), ("destroy", "data"), ("prune", "")]
    );
}

#[test]
fn options_mount_a_filesystem_or_a_directory() {
    let bed = Bed::new();
    let mounts = |bed: &Bed| bed.host().shell("cat /proc/self/mountinfo").stdout;
    bed.run(&[
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=size=1m,mode=1770",
        "ram",
    ])
    .ok();
    let options = bed.http().get("/volumes/ram").json()["Options"].clone();
    assert_eq!(options, json!({ "type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=1770" }));
    bed.run(&["run", "-d", "--name", "first", "-v", "ram:/ram", "busybox", "sleep", "1000"]).ok();
    bed.run(&["run", "-d", "--name", "second", "-v", "ram:/ram", "busybox", "sleep", "1000"]).ok();
    bed.run(&["exec", "first", "sh", "-c", "echo shared > /ram/file"]).ok();
    assert_eq!(bed.run(&["exec", "second", "cat", "/ram/file"]).ok(), "shared");
    has(bed.run(&["exec", "second", "df", "-k", "/ram"]).ok(), &["1024"]);
    bed.run(&["rm", "-f", "first"]).ok();
    assert_eq!(bed.run(&["exec", "second", "cat", "/ram/file"]).ok(), "shared");
    has(&mounts(&bed), &["/volumes/ram/_data"]);
    bed.run(&["rm", "-f", "second"]).ok();
    assert!(!mounts(&bed).contains("/volumes/ram/_data"), "nothing is left mounted");

    let folder = bed.folder("host");
    std::fs::write(folder.join("file"), "bound\n").expect("a file");
    let device = format!("device={}", folder.display());
    bed.run(&["volume", "create", "-o", "type=none", "-o", &device, "-o", "o=bind", "bound"]).ok();
    assert_eq!(bed.run(&["run", "--rm", "-v", "bound:/b", "busybox", "cat", "/b/file"]).ok(), "bound");
    let options = format!(
        "dst=/b,src=there,volume-opt=type=none,volume-opt=o=bind,volume-opt={device},volume-label=a=b"
    );
    assert_eq!(bed.run(&["run", "--rm", "--mount", &options, "busybox", "cat", "/b/file"]).ok(), "bound");
    assert_eq!(bed.http().get("/volumes/there").json()["Labels"], json!({ "a": "b" }));
    std::fs::remove_dir_all(&folder).expect("removed");
    let ran = bed.run(&["run", "--rm", "-v", "bound:/b", "busybox", "true"]);
    has(&ran.said(), &["failed to mount local volume", "no such file or directory"]);
    bed.run(&["volume", "create", "-o", "type=nosuchfs", "-o", "device=x", "odd"]).ok();
    has(
        &bed.run(&["run", "--rm", "-v", "odd:/b", "busybox", "true"]).said(),
        &["failed to mount local volume: mount x:"],
    );
    assert_eq!(bed.http().get("/containers/json?all=1").json(), json!([]), "nothing is left behind");
}

#[test]
fn an_image_is_mounted_to_be_read() {
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    bed.load(&site());
    bed.load(&Image::new(
        "flat:latest",
        &[Entry::folder("sub", 0o755), Entry::file("sub/file", 0o644, "flat\n")],
    ));
    for (flags, path, text) in [
        ("type=image,source=site,target=/img", "/img/data/page", "hello"),
        ("type=image,source=site,target=/img,image-subpath=data/sub", "/img/deep", "deep"),
        ("type=image,source=flat,target=/img", "/img/sub/file", "flat"),
        ("type=image,source=flat,target=/img,image-subpath=sub", "/img/file", "flat"),
    ] {
        assert_eq!(bed.run(&["run", "--rm", "--mount", flags, "busybox", "cat", path]).ok(), text, "{flags}");
    }
    bed.run(&[
        "run",
        "-d",
        "--name",
        "reader",
        "--mount",
        "type=image,source=site,target=/img",
        "busybox",
        "sleep",
        "99",
    ])
    .ok();
    has(&bed.run(&["exec", "reader", "touch", "/img/x"]).said(), &["Read-only file system"]);
    assert_eq!(mount(&bed, "reader", "/img")["Type"], "image");
    has(&bed.run(&["rmi", "site"]).said(), &["is using its referenced image"]);
    has(
        &bed.run(&["create", "--mount", "type=image,source=gone,target=/img", "busybox"]).said(),
        &["No such image: gone"],
    );
}

#[test]
fn a_daemon_comes_back_to_its_volumes_and_adopts_directories() {
    let mut bed = Bed::new();
    bed.run(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "ram"]).ok();
    bed.run(&[
        "run",
        "-d",
        "--name",
        "web",
        "-v",
        "ram:/ram",
        "-v",
        "data:/data",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    bed.run(&["exec", "web", "touch", "/ram/file", "/data/file"]).ok();
    let path = mountpoint(&bed, "data");
    bed.kill();
    let root = path.parent().and_then(|volume| volume.parent()).expect("the root").to_owned();
    std::fs::create_dir_all(root.join("brought/_data")).expect("a directory");
    std::fs::write(root.join("brought/_data/file"), "brought\n").expect("a file");
    bed.start();
    assert_eq!(volumes(&bed), ["brought", "data", "ram"]);
    assert_eq!(bed.run(&["run", "--rm", "-v", "brought:/b", "busybox", "cat", "/b/file"]).ok(), "brought");
    // Still the same tmpfs, and still in use.
    assert_eq!(bed.run(&["run", "--rm", "-v", "ram:/r", "busybox", "ls", "/r"]).ok(), "file");
    bed.http().delete("/volumes/ram").refused(409);
    bed.run(&["rm", "-f", "web"]).ok();
    // A directory that went away under it is told with its name.
    std::fs::remove_dir_all(root.join("data")).expect("removed");
    let said = bed.run(&["run", "--rm", "-v", "data:/data", "busybox", "true"]).said();
    has(&said, &["/data/_data of the volume is missing"]);
    bed.run(&["volume", "rm", "data"]).ok();
    assert_eq!(bed.run(&["run", "--rm", "-v", "data:/data", "busybox", "ls", "/data"]).ok(), "");
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    let bed = Bed::new();
    let big = vec![b'x'; 3 << 20];
    let mut image = image::busybox();
    image.name = "big:latest".into();
    bed.load(&image.with_layer(&[
        Entry::folder("data", 0o755),
        Entry::file("data/first", 0o644, "1"),
        Entry::file("data/second", 0o644, big),
    ]));
    let folder = bed.folder("small");
    bed.host().shell(&format!("busybox mount -t tmpfs -o size=1m small {}", folder.display())).ok();
    let device = format!("device={}", folder.display());
    bed.run(&["volume", "create", "-o", "type=none", "-o", &device, "-o", "o=bind", "small"]).ok();
    let ran = bed.run(&["create", "--name", "web", "-v", "small:/data", "-v", "fresh:/www", "big"]);
    has(&ran.said(), &["failed to copy the image's content to volume small", "No space left on device"]);
    assert_eq!(volumes(&bed), ["small"]);
    assert_eq!(bed.host().shell(&format!("ls {}", folder.display())).ok(), "");
    assert_eq!(bed.http().get("/containers/json?all=1").json(), json!([]));
    bed.host().shell(&format!("busybox umount {}", folder.display())).ok();
}

#[test]
fn steps_that_fail_are_undone() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    for step in ["create.volume", "create.fill", "create.record"] {
        let environment = vec![("CORTEN_FAILPOINTS".to_owned(), format!("{step}=error"))];
        let bed = Bed::with(BedOptions { environment, ..BedOptions::default() });
        bed.load(&site());
        bed.http().post("/volumes/create", &json!({ "Name": "there" })).expect(201);
        let body = json!({ "Image": "site", "HostConfig": { "Binds": ["there:/data", "fresh:/www", "more:/more"] } });
        has(&bed.http().post("/containers/create", &body).refused(500), &[step]);
        assert_eq!(volumes(&bed), ["there"], "{step}");
        bed.http().delete("/volumes/there").expect(204);
    }
    for step in ["volume.record", "volume.name"] {
        let environment = vec![("CORTEN_FAILPOINTS".to_owned(), format!("{step}=error"))];
        let bed = Bed::with(BedOptions { environment, ..BedOptions::default() });
        bed.http().post("/volumes/create", &json!({ "Name": "web" })).refused(500);
        assert_eq!(volumes(&bed), [""; 0], "{step}");
    }
    let environment = vec![("CORTEN_FAILPOINTS".to_owned(), "volume.remove=error".to_owned())];
    let mut bed = Bed::with(BedOptions { environment, ..BedOptions::default() });
    bed.http().post("/volumes/create", &json!({ "Name": "web" })).expect(201);
    std::fs::write(mountpoint(&bed, "web").join("file"), "kept").expect("a file");
    bed.http().delete("/volumes/web").refused(500);
    assert_eq!(std::fs::read_to_string(mountpoint(&bed, "web").join("file")).expect("it is back"), "kept");
    bed.stop();
    bed.set_environment("CORTEN_FAILPOINTS", None);
    bed.start();
    bed.http().delete("/volumes/web").expect(204);
}

/// `GET` below another version of the API than the one that the tests speak.
fn get(bed: &Bed, path: &str) -> testkit::Response {
    bed.http().exchange("GET", path, "", b"").expect("an answer")
}

#[test]
fn what_things_weigh() {
    let bed = Bed::new();
    bed.load(&site());
    bed.run(&["run", "-d", "--name", "web", "-v", "data:/data", "busybox", "sleep", "1000"]).ok();
    bed.run(&[
        "exec",
        "web",
        "sh",
        "-c",
        "head -c 100000 /dev/zero > /data/a; ln /data/a /data/b; head -c 5000 /dev/zero > /own",
    ])
    .ok();
    bed.run(&["run", "--name", "idle", "busybox", "sh", "-c", "head -c 700 /dev/zero > /left"]).ok();
    bed.run(&["volume", "create", "unused"]).ok();
    std::fs::write(mountpoint(&bed, "unused").join("file"), vec![0; 1234]).expect("a file");

    let old = get(&bed, "/v1.41/system/df").expect(200).json();
    let volumes: Vec<(&str, i64, i64)> = old["Volumes"]
        .as_array()
        .expect("volumes")
        .iter()
        .map(|one| {
            let data = &one["UsageData"];
            (
                one["Name"].as_str().unwrap(),
                data["Size"].as_i64().unwrap(),
                data["RefCount"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(volumes, [("data", 100_000, 1), ("unused", 1234, 0)]);
    let images = old["Images"].as_array().expect("images");
    let busybox = images.iter().find(|one| one["RepoTags"][0] == "busybox:latest").expect("busybox");
    assert_eq!(busybox["Containers"], 2);
    assert_eq!(busybox["SharedSize"], busybox["Size"], "the other image has its layer too");
    let layers = old["LayersSize"].as_i64().expect("a size");
    assert_eq!(layers, images.iter().map(|one| one["Size"].as_i64().unwrap()).max().unwrap());
    assert_eq!((&old["BuildCache"], &old["BuilderSize"]), (&json!([]), &json!(0)));
    let sizes: Vec<i64> =
        old["Containers"].as_array().unwrap().iter().map(|one| one["SizeRw"].as_i64().unwrap()).collect();
    assert_eq!(sizes, [700, 5000], "youngest first");

    let new = get(&bed, "/v1.52/system/df").expect(200).json();
    assert_eq!(new["LayersSize"], old["LayersSize"], "the lists of before are there too");
    let sums = |kind: &str| {
        let usage = &new[kind];
        ["TotalCount", "ActiveCount", "TotalSize", "Reclaimable"].map(|key| usage[key].as_i64().expect(key))
    };
    assert_eq!(sums("VolumeUsage"), [2, 1, 101_234, 1234]);
    assert_eq!(sums("ContainerUsage"), [2, 1, 5700, 700]);
    assert_eq!(sums("BuildCacheUsage"), [0; 4]);
    assert_eq!(sums("ImageUsage")[..3], [2, 1, layers]);
    let detail = get(&bed, "/v1.52/system/df?verbose=1&type=volume&type=container").expect(200).json();
    let mut keys: Vec<&String> = detail.as_object().expect("an object").keys().collect();
    keys.sort();
    assert_eq!(keys, ["ContainerUsage", "VolumeUsage"]);
    assert_eq!(detail["VolumeUsage"]["Items"].as_array().map(Vec::len), Some(2));
    let some = get(&bed, "/v1.44/system/df?type=volume").expect(200).json();
    assert_eq!((&some["Images"], &some["LayersSize"]), (&Value::Null, &json!(0)));
    assert!(some.get("VolumeUsage").is_none() && some.get("BuilderSize").is_none());
    get(&bed, "/v1.44/system/df?type=color").refused(400);

    each_client(&bed, |client, _| {
        has(
            bed.cli(client, &["system", "df"]).ok(),
            &["Local Volumes   2         1         101.2kB   1.234kB (1%)"],
        );
        let detail = bed.cli(client, &["system", "df", "-v"]).ok().to_owned();
        has(
            &detail,
            &[
                "Images space usage:",
                "LOCAL VOLUMES",
                "unused        0         1.234kB",
                "Build cache usage: 0B",
            ],
        );
        let listed =
            bed.cli(client, &["ps", "-a", "--format", "{{.Names}} {{.Size}}", "--filter", "name=idle"]);
        has(listed.ok(), &["idle 700B (virtual "]);
        let found: Value =
            serde_json::from_str(bed.cli(client, &["inspect", "-s", "web"]).ok()).expect("JSON");
        assert_eq!(found[0]["SizeRw"], 5000);
        assert!(found[0]["SizeRootFs"].as_i64().expect("a size") > 5000);
    });
    assert!(bed.http().get("/containers/web/json").json().get("SizeRw").is_none(), "only when asked for");
}

#[test]
fn a_prune_takes_what_nobody_uses() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        bed.load(&Image::new("old:latest", &[Entry::file("file", 0o644, name)]));
        bed.load(&Image::new("old:latest", &[Entry::file("file", 0o644, format!("{name} again"))]));
        bed.run(&["run", "-d", "--name", "web", "-v", "/kept", "-v", "named:/n", "busybox", "sleep", "1000"])
            .ok();
        bed.run(&[
            "run",
            "--name",
            "ended",
            "-v",
            "/anonymous",
            "busybox",
            "sh",
            "-c",
            "head -c 2000 /dev/zero > /x",
        ])
        .ok();
        bed.run(&["volume", "create", "idle"]).ok();
        assert_eq!(
            bed.cli(client, &["volume", "prune", "--filter", "label=none", "-f"]).ok(),
            "Total reclaimed space: 0B"
        );
        has(
            &bed.cli(client, &["system", "prune", "--volumes", "--filter", "until=1h", "-f"]).said(),
            &["not supported"],
        );
        let said = bed.cli(client, &["system", "prune", "-af", "--volumes"]).ok().to_owned();
        has(
            &said,
            &[
                "Deleted Containers:",
                "Deleted Volumes:",
                "Deleted Images:",
                "untagged: old:latest",
                "Total reclaimed space:",
            ],
        );
        let left = volumes(&bed);
        assert!(
            left.len() == 3 && left.contains(&"idle".into()) && left.contains(&"named".into()),
            "{left:?}"
        );
        assert_eq!(bed.cli(client, &["ps", "-aq"]).ok().lines().count(), 1);
        bed.run(&["rm", "-fv", "web"]).ok();
        // Before 1.42 a prune takes those with a name as well.
        let answer =
            bed.http().exchange("POST", "/v1.41/volumes/prune", "", b"").expect("an answer").expect(200);
        assert_eq!(answer.json()["VolumesDeleted"].as_array().map(Vec::len), Some(2), "{answer:?}");
        bed.cli(client, &["builder", "prune", "-f"]).ok();
        bed.cli(client, &["network", "prune", "-f"]).ok();
    });
}
