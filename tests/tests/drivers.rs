//! Storage drivers: the same containers, images and builds on each of them.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::image::{Entry, Image, busybox};
use testkit::{Bed, BedOptions, Deadline};
use tests::{has, is_corten};

/// Puts the data root on a btrfs of its own.
const ON_BTRFS: &str = "mkdir -p $FOLDER/data && truncate -s 768M $FOLDER/btrfs && mkfs.btrfs -q $FOLDER/btrfs && \
                        mount -o loop $FOLDER/btrfs $FOLDER/data\n";

/// Why there can be no btrfs here, if there cannot.
fn no_btrfs() -> Option<&'static str> {
    let kernel = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let program =
        |name: &str| Command::new(name).arg("--version").output().is_ok_and(|ran| ran.status.success());
    match () {
        () if !kernel.contains("\tbtrfs\n") => Some("the kernel does not know it"),
        () if !program("mkfs.btrfs") => Some("mkfs.btrfs (Debian: btrfs-progs) is missing"),
        () if !fs::exists("/dev/loop-control").unwrap_or(false) => Some("there are no loop devices"),
        () => None,
    }
}

/// A bed with a driver, or none where the driver cannot be.
fn bed_on(driver: &str, more: &[&str], setup: &str) -> Option<Bed> {
    let mut options = BedOptions { setup: setup.to_owned(), ..BedOptions::default() };
    if driver == "btrfs" {
        if let Some(why) = no_btrfs() {
            println!("skipped: btrfs: {why}");
            return None;
        }
        options.setup = format!("{ON_BTRFS}{setup}");
    }
    options.flags = ["--storage-driver", driver].iter().chain(more).map(|flag| (*flag).to_owned()).collect();
    let bed = Bed::with(options);
    if !is_corten(&bed) {
        return None;
    }
    bed.load(&busybox());
    Some(bed)
}

const DRIVERS: [&str; 3] = ["overlay2", "vfs", "btrfs"];

fn each_driver(mut check: impl FnMut(Bed, &str)) {
    for driver in DRIVERS {
        if let Some(bed) = bed_on(driver, &[], "") {
            check(bed, driver);
        }
    }
}

/// So many layers and containers of a driver are on disk, and nothing else; what goes away is waited for.
#[track_caller]
fn left(bed: &Bed, driver: &str, layers: usize, containers: usize) {
    let folder = bed.host().folder().join("data/snapshots").join(driver.trim_end_matches('2'));
    let count = |below: &str| {
        let path = format!("/proc/{}/root{}", bed.host().init(), folder.join(below).display());
        fs::read_dir(path).map_or(0, Iterator::count)
    };
    let look = || (count("") - 2, count("containers"), count("rest"));
    let expected = (layers, containers, 0);
    Deadline::after(Duration::from_secs(10)).poll(|| (look() == expected).then_some(()));
    assert_eq!(look(), expected, "{driver}: layers, containers and rests");
}

#[test]
fn containers_and_their_files() {
    each_driver(|bed, driver| {
        let info = bed.http().get("/info").json();
        assert_eq!(info["Driver"], json!(driver));
        let script = "echo new > /new; echo more >> /etc/passwd; rm -r /www; mkdir -p /d/e; ln -s new /link; \
                      mknod /pipe p; chmod 600 /etc/group; sleep 1000";
        bed.run(&["run", "-d", "--name", "one", "busybox", "sh", "-c", script]).ok();
        Deadline::after(Duration::from_secs(10))
            .poll(|| bed.run(&["diff", "one"]).ok().contains("/etc/group").then_some(()));
        let diff = "A /d\nA /d/e\nC /etc\nC /etc/group\nC /etc/passwd\nA /link\nA /new\nA /pipe\nD /www";
        assert_eq!(bed.run(&["diff", "one"]).ok(), diff, "{driver}");

        let folder = bed.folder("cp");
        fs::write(folder.join("in"), "copied in").expect("file");
        let at = |name: &str| folder.join(name).to_str().expect("path").to_owned();
        for phase in ["running", "stopped"] {
            bed.run(&["cp", &at("in"), &format!("one:/d/{phase}")]).ok();
            bed.run(&["cp", &format!("one:/d/{phase}"), &at(phase)]).ok();
            assert_eq!(fs::read_to_string(folder.join(phase)).expect("copied out"), "copied in");
            if phase == "running" {
                bed.run(&["commit", "one", "made:running"]).ok();
            }
            bed.run(&["stop", "-t", "0", "one"]).ok();
        }
        bed.run(&["commit", "one", "made"]).ok();
        let look = "cat /new /d/stopped; tail -n1 /etc/passwd; ls -d /www; readlink /link; stat -c '%a %F' /etc/group /pipe";
        let seen = bed.run(&["run", "--rm", "made", "sh", "-c", look]);
        assert_eq!(seen.stdout.trim(), "new\ncopied inmore\nnew\n600 regular file\n644 fifo");
        has(&seen.stderr, &["/www: No such file"]);
        assert_eq!(
            bed.run(&["diff", "one"]).ok(),
            diff.replace("A /d/e", "A /d/e\nA /d/running\nA /d/stopped")
        );

        let inspected = bed.inspect("one");
        assert_eq!(inspected["Driver"], json!(driver));
        assert_eq!(inspected["GraphDriver"]["Name"], json!(driver));
        assert_eq!(inspected["GraphDriver"]["Data"].is_null(), driver != "overlay2");
        let image = bed.http().get("/images/made/json").json();
        assert_eq!(image["GraphDriver"]["Name"], json!(driver));
        let size = bed.http().get("/containers/one/json?size=1").json()["SizeRw"].as_i64();
        assert!(size.is_some_and(|size| (20..20_000).contains(&size)), "{driver}: {size:?}");

        let exported = bed.run(&["export", "-o", &at("tar"), "one"]);
        exported.ok();
        let names = Command::new("tar").args(["tf", &at("tar")]).output().expect("tar").stdout;
        let names = String::from_utf8_lossy(&names);
        assert!(names.lines().any(|name| name == "d/stopped") && !names.contains("www"), "{names}");

        bed.run(&["rm", "-f", "one"]).ok();
        bed.run(&["rmi", "made", "made:running"]).ok();
        left(&bed, driver, 1, 0);
        bed.run(&["rmi", "busybox"]).ok();
        left(&bed, driver, 0, 0);
    });
}

#[test]
fn builds() {
    each_driver(|bed, driver| {
        let folder = bed.folder("context");
        fs::write(folder.join("file"), "one").expect("file");
        fs::write(
            folder.join("Dockerfile"),
            "FROM busybox AS first\nRUN mkdir /made && echo first > /made/first && rm -r /www\nCOPY file /made/\nRUN rm /made/first && \
             mkdir /www && echo own > /www/own\nFROM busybox\nCOPY --from=first /made /made\nRUN ls /made > /list\n",
        )
        .expect("Dockerfile");
        let path = folder.to_str().expect("path");
        bed.run(&["build", "-t", "second", path]).ok();
        bed.run(&["build", "-t", "first", "--target", "first", path]).ok();
        let ls = |image: &str, place: &str| bed.run(&["run", "--rm", image, "ls", place]).ok().to_owned();
        assert_eq!((ls("first", "/made"), ls("first", "/www")), ("file".into(), "own".into()), "{driver}");
        assert_eq!((ls("second", "/made"), ls("second", "/www")), ("file".into(), "index.html".into()));
        // What the layers' archives say is what the layers are.
        let archive = bed.folder("save").join("saved.tar");
        let archive = archive.to_str().expect("path");
        bed.run(&["save", "-o", archive, "first"]).ok();
        let id = bed.http().get("/images/first/json").json()["Id"].clone();
        bed.run(&["rmi", "-f", "first", "second"]).ok();
        bed.run(&["image", "prune", "-f"]).ok();
        bed.run(&["load", "-i", archive]).ok();
        assert_eq!(bed.http().get("/images/first/json").json()["Id"], id);
        assert_eq!((ls("first", "/made"), ls("first", "/www")), ("file".into(), "own".into()), "{driver}");
        bed.run(&["rmi", "first", "busybox"]).ok();
        left(&bed, driver, 0, 0);
    });
}

#[test]
fn daemons_that_start_again() {
    each_driver(|mut bed, driver| {
        bed.run(&["run", "-d", "--name", "runs", "busybox", "sh", "-c", "echo a > /a; sleep 1000"]).ok();
        bed.run(&["run", "--name", "ended", "busybox", "sh", "-c", "echo b > /b"]).ok();
        bed.kill();
        bed.start();
        assert_eq!(bed.run(&["exec", "runs", "cat", "/a"]).ok(), "a", "{driver}");
        bed.stop();
        bed.start();
        assert_eq!(bed.run(&["diff", "ended"]).ok(), "A /b");
        bed.run(&["restart", "-t", "0", "runs"]).ok();
        assert_eq!(bed.run(&["exec", "runs", "cat", "/a"]).ok(), "a", "{driver}");
        bed.run(&["rm", "-f", "runs", "ended"]).ok();
        left(&bed, driver, 1, 0);
    });
}

/// Layers with everything that hides something of those below.
fn hiding() -> Image {
    Image::new(
        "hiding:latest",
        &[
            Entry::folder("bin", 0o755),
            Entry::file("bin/busybox", 0o755, testkit::image::busybox_program().0.clone()),
            Entry::folder("gone", 0o755),
            Entry::file("gone/file", 0o644, "x"),
            Entry::folder("emptied", 0o755),
            Entry::file("emptied/old", 0o644, "x"),
            Entry::folder("emptied/sub", 0o755),
            Entry::file("emptied/sub/old", 0o644, "x"),
            Entry::folder("modes", 0o700).owned(1, 2),
            Entry::file("modes/kept", 0o640, "x").owned(3, 4),
            Entry::file("was-file", 0o644, "x"),
            Entry::folder("was-folder", 0o755),
            Entry::file("was-folder/file", 0o644, "x"),
            Entry::file("one", 0o644, "linked"),
            Entry::hardlink("two", "one"),
            Entry::symlink("to-nowhere", "none"),
        ],
    )
    .with_layer(&[
        Entry::file(".wh.gone", 0o644, ""),
        Entry::file("emptied/.wh..wh..opq", 0o644, ""),
        Entry::file("emptied/new", 0o644, "new"),
        // The directory itself is not in this layer.
        Entry::file("modes/more", 0o600, "more"),
        Entry::folder("was-file", 0o711),
        Entry::file("was-file/inside", 0o644, "in"),
        Entry::file("was-folder", 0o604, "a file now"),
        Entry::file("two", 0o644, "by itself"),
        Entry::file("to-nowhere/file", 0o644, "a folder now"),
    ])
    .with_layer(&[Entry::folder("gone", 0o750), Entry::folder("modes", 0o770).owned(5, 6)])
}

#[test]
fn layers_look_the_same_on_each_driver() {
    let mut looks: Vec<(String, String)> = Vec::new();
    each_driver(|bed, driver| {
        bed.load(&hiding());
        let look = "cd /; busybox find . -xdev ! -path './dev*' ! -path './proc*' ! -path './sys*' ! -path './etc*' ! -path . \
                    | busybox sort | busybox xargs busybox stat -c '%n %F %a %u:%g'; busybox cat one two emptied/new";
        let seen = bed.run(&["run", "--rm", "--net", "none", "hiding", "/bin/busybox", "sh", "-c", look]);
        looks.push((driver.to_owned(), seen.ok().to_owned()));
    });
    let (_, first) = &looks[0];
    has(
        first,
        &[
            "./emptied/new regular file 644 0:0",
            "./modes directory 770 5:6",
            "./modes/kept regular file 640 3:4",
        ],
    );
    has(
        first,
        &[
            "./was-file directory 711",
            "./was-folder regular file 604",
            "./gone directory 750",
            "linkedby itselfnew",
        ],
    );
    has(first, &["./to-nowhere/file regular file"]);
    assert!(!first.contains("/old") && !first.contains(".wh."), "{first}");
    for (driver, look) in &looks[1..] {
        assert_eq!(look, first, "{driver}");
    }
}

#[test]
fn another_driver_unpacks_images_again_and_names_what_it_does_not_have() {
    let Some(mut bed) = bed_on("overlay2", &[], "") else { return };
    bed.run(&["run", "--name", "old", "busybox", "sh", "-c", "echo kept > /kept"]).ok();
    bed.stop();
    bed.set_flags(&["--storage-driver", "vfs"]);
    bed.start();
    assert_eq!(bed.run(&["run", "--rm", "busybox", "cat", "/etc/plain"]).ok(), "not a program");
    let refused = "the files of container";
    has(bed.run(&["start", "old"]).fails(1), &[refused, "--storage-driver overlay"]);
    let folder = bed.folder("context");
    fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN echo vfs > /made\n").expect("Dockerfile");
    bed.run(&["build", "-t", "made", folder.to_str().expect("path")]).ok();
    bed.stop();
    bed.set_flags(&[]);
    bed.start();
    // What was used before is taken again, the first of the list.
    assert_eq!(bed.http().get("/info").json()["Driver"], json!("overlay2"));
    assert_eq!(bed.run(&["run", "--rm", "made", "cat", "/made"]).ok(), "vfs");
    bed.run(&["start", "-a", "old"]).ok();
    assert_eq!(bed.run(&["diff", "old"]).ok(), "A /kept");
    bed.run(&["rm", "old"]).ok();
}

#[test]
fn where_overlayfs_does_not_work_files_are_copied() {
    // An overlay takes no directories of another overlay to write to.
    let setup = "mkdir -p $FOLDER/data $FOLDER/u $FOLDER/w $FOLDER/l && mount -t overlay overlay -o \
                 lowerdir=$FOLDER/l,upperdir=$FOLDER/u,workdir=$FOLDER/w $FOLDER/data";
    let bed = Bed::with(BedOptions { setup: setup.into(), ..BedOptions::default() });
    if !is_corten(&bed) {
        return;
    }
    bed.load(&busybox());
    assert_eq!(bed.http().get("/info").json()["Driver"], json!("vfs"));
    assert_eq!(bed.run(&["run", "--rm", "busybox", "sh", "-c", "echo x > /x; cat /x"]).ok(), "x");
}

#[test]
fn drivers_that_cannot_be_are_refused_by_name() {
    let start = |driver: &str| {
        let flags = vec!["--storage-driver".into(), driver.to_owned()];
        let failed = std::panic::catch_unwind(|| Bed::with(BedOptions { flags, ..BedOptions::default() }));
        failed.err().and_then(|panic| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    };
    has(&start("zfs"), &["driver not supported: zfs"]);
    let bed = Bed::empty();
    let on_btrfs = bed.host().shell("stat -f -c %T $(dirname /tmp/.)").ok() == "btrfs";
    if is_corten(&bed) && !on_btrfs {
        has(&start("btrfs"), &["prerequisites for driver not satisfied (wrong filesystem?)"]);
    }
}

/// Users of the host for those of containers.
const FIRST: u32 = 300_000;

#[test]
fn users_of_their_own() {
    let setup = format!(
        "d=$(mktemp -d) && mount -t tmpfs x $d && for f in passwd group subuid subgid; do cp /etc/$f $d/$f 2>/dev/null \
         || : > $d/$f; sed -i /^dockremap:/d $d/$f; done && echo dockremap:x:900:900::/:/bin/false >> $d/passwd && echo \
         dockremap:x:900: >> $d/group && echo dockremap:{FIRST}:65536 >> $d/subuid && echo dockremap:{FIRST}:65536 >> \
         $d/subgid && for f in passwd group subuid subgid; do [ -e /etc/$f ] || : > /etc/$f; mount --bind $d/$f /etc/$f; \
         done && umount -l $d && rmdir $d"
    );
    for driver in ["vfs", "btrfs"] {
        let Some(bed) = bed_on(driver, &["--userns-remap", "default"], &setup) else { continue };
        let script = "id -u; echo x > /file; chown 7:8 /file; stat -c %u:%g /file /bin/busybox; sleep 1000";
        bed.run(&["run", "-d", "--name", "own", "busybox", "sh", "-c", script]).ok();
        let expected = "0\n7:8\n0:0";
        Deadline::after(Duration::from_secs(10))
            .poll(|| (bed.run(&["logs", "own"]).ok() == expected).then_some(()));
        assert_eq!(bed.run(&["logs", "own"]).ok(), expected, "{driver}");
        let folder = bed.folder("copied");
        for phase in ["running", "stopped"] {
            let out = folder.join(phase);
            bed.run(&["cp", "-a", "own:/file", out.to_str().expect("path")]).ok();
            let owner = fs::metadata(&out).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
            assert_eq!(owner.expect("copied"), 7, "{driver}: {phase}");
            bed.run(&["stop", "-t", "0", "own"]).ok();
        }
        bed.run(&["commit", "own", "made"]).ok();
        let seen = bed.run(&["run", "--rm", "made", "stat", "-c", "%u:%g", "/file"]);
        assert_eq!(seen.ok(), "7:8", "{driver}");
        bed.run(&["rmi", "-f", "made"]).ok();
    }
}

#[test]
fn data_roots_may_be_long() {
    let long = format!("{0}/{0}", "long".repeat(40));
    let flags = vec!["--data-root".into(), format!("$FOLDER/{long}")];
    let bed = Bed::with(BedOptions { flags, ..BedOptions::default() });
    if !is_corten(&bed) {
        return;
    }
    bed.load(&busybox());
    let folder = bed.folder("context");
    fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN echo a > /a\nRUN echo b > /b\n").expect("file");
    bed.run(&["build", "-t", "made", folder.to_str().expect("path")]).ok();
    bed.run(&["run", "--name", "one", "made", "sh", "-c", "cat /a /b; rm /a"]).ok();
    assert_eq!(bed.run(&["diff", "one"]).ok(), "D /a");
    bed.run(&["cp", "one:/b", folder.to_str().expect("path")]).ok();
    let mount = "type=image,source=made,target=/image";
    assert_eq!(bed.run(&["run", "--rm", "--mount", mount, "busybox", "cat", "/image/a"]).ok(), "a");
    bed.run(&["rm", "one"]).ok();
    let left: Value = bed.http().get("/containers/json?all=1").json();
    assert_eq!(left, json!([]));
}

/// Makes the machine seem to have been started anew.
fn boot(bed: &Bed, id: &str) {
    let file = bed.folder("boot").join(id);
    fs::write(&file, id).expect("file");
    bed.host().shell(&format!("mount --bind {} /proc/sys/kernel/random/boot_id", file.display())).ok();
}

#[test]
fn what_a_loss_of_power_takes_comes_back() {
    const AGAIN: &str = "it is unpacked again";
    let image = |name: &str, content: &str| {
        let program = testkit::image::busybox_program().0.clone();
        Image::new(name, &[Entry::folder("bin", 0o755), Entry::file("bin/busybox", 0o755, program)])
            .with_layer(&[Entry::file("marker", 0o644, content)])
    };
    each_driver(|mut bed, driver| {
        bed.load(&image("settled:latest", "settled"));
        bed.stop();
        boot(&bed, "second");
        bed.set_environment("CORTEN_FAILPOINTS", Some("images.settle=error"));
        bed.start();
        assert!(!bed.log().contains(AGAIN), "{driver}: who is told to end settles before");

        bed.load(&image("lost:latest", "found"));
        let write = ["run", "--name", "one", "lost", "/bin/busybox", "sh", "-c", "echo mine >> /mine"];
        bed.run(&write).ok();
        bed.kill();
        // Files that the kernel had in memory alone have names and no content afterwards.
        let lose = format!(
            "for file in $(grep -rlx found {}/data/snapshots --include marker | grep -v /containers/); do \
             : > $file; : > ${{file%/fs/marker}}/layer.json; done",
            bed.host().folder().display()
        );
        bed.host().shell(&lose).ok();
        boot(&bed, "third");
        bed.set_environment("CORTEN_FAILPOINTS", None);
        bed.start();
        assert!(bed.log().contains(AGAIN), "{driver}: {}", bed.log());
        for (name, content) in [("settled", "settled"), ("lost", "found")] {
            let show = ["run", "--rm", name, "/bin/busybox", "cat", "/marker"];
            assert_eq!(bed.run(&show).ok(), content, "{driver}");
        }
        bed.run(&["start", "-a", "one"]).ok();
        let copied = bed.folder("cp").join("mine");
        bed.run(&["cp", "one:/mine", copied.to_str().expect("path")]).ok();
        assert_eq!(fs::read_to_string(copied).expect("copied"), "mine\nmine\n", "{driver}");
        bed.run(&["system", "check"]).ok();
        bed.run(&["rm", "one"]).ok();
        let id = "/proc/sys/kernel/random/boot_id";
        bed.host().shell(&format!("umount {id}; umount {id}; rm -rf /run/mount")).ok();
    });
}
