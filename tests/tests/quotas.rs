//! `--storage-opt size=`: how much a container may write, where the filesystem keeps quotas of projects.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::process::Command;

use serde_json::json;
use testkit::image::busybox;
use testkit::{Bed, BedOptions};
use tests::{has, is_corten};

/// Why no disk of this kind can be here, if none can.
fn no_disk(kind: &str) -> Option<String> {
    // A kernel may have it as a module.
    let _ = Command::new("modprobe").args(["-q", "-a", kind, "loop"]).status();
    let kernel = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let program = format!("mkfs.{kind}");
    if !kernel.contains(&format!("\t{kind}\n")) {
        return Some(format!("the kernel does not know {kind}"));
    }
    if Command::new(&program).arg("-V").output().is_err() {
        return Some(format!("{program} is missing"));
    }
    let loops = fs::exists("/dev/loop-control").unwrap_or(false);
    (!loops).then(|| "there are no loop devices".into())
}

/// Why disks of this kind keep no quotas of projects here, if they do not.
fn no_quotas(kind: &str) -> Option<&'static str> {
    match kind {
        "xfs" if !fs::exists("/proc/fs/xfs/xqm").unwrap_or(false) => Some("the kernel's xfs has none"),
        "ext4" if !ext4_has_quotas() => Some("the kernel has none in files (CONFIG_QFMT_V2)"),
        _ => None,
    }
}

/// Only a mount tells.
fn ext4_has_quotas() -> bool {
    let host = testkit::Host::new();
    let folder = host.folder().display();
    host.shell(&format!(
        "truncate -s 64M {folder}/try && mkfs.ext4 -q -O quota,project -E quotatype=prjquota {folder}/try && \
                         mkdir {folder}/at && mount -o loop,prjquota {folder}/try {folder}/at"
    ))
    .code
        == 0
}

/// A bed whose data root is a disk of its own, or none where such a disk cannot be.
fn bed_on(kind: &str, make: &str, options: &str) -> Option<Bed> {
    let missing =
        no_disk(kind).or_else(|| options.contains("quota").then(|| no_quotas(kind))?.map(str::to_owned));
    if let Some(why) = missing {
        println!("skipped: quotas on {kind}: {why}");
        return None;
    }
    let setup = format!(
        "mkdir -p $FOLDER/data && truncate -s 512M $FOLDER/disk && {make} $FOLDER/disk && \
         mount -o loop{options} $FOLDER/disk $FOLDER/data\n"
    );
    let flags = vec!["--storage-driver".into(), "overlay2".into()];
    let bed = Bed::with(BedOptions { setup, flags, ..BedOptions::default() });
    if !is_corten(&bed) {
        return None;
    }
    bed.load(&busybox());
    Some(bed)
}

/// Writes so many megabytes in a container; what it says when it could not.
fn write(bed: &Bed, container: &str, name: &str, megabytes: u32) -> Result<(), String> {
    let script = format!("dd if=/dev/zero of={name} bs=1M count={megabytes}");
    let ran = bed.run(&["exec", container, "sh", "-c", &script]);
    if ran.code == 0 { Ok(()) } else { Err(ran.said()) }
}

#[track_caller]
fn full(bed: &Bed, container: &str, name: &str, megabytes: u32) {
    let said = write(bed, container, name, megabytes).expect_err("more than its layer may hold");
    assert!(is_full(&said), "{said}");
}

/// What xfs says when the size is reached, and what ext4 says.
fn is_full(said: &str) -> bool {
    let said = said.to_lowercase();
    said.contains("no space left on device") || said.contains("quota exceeded")
}

#[track_caller]
fn a_layer_holds_as_much_as_was_said(mut bed: Bed) {
    let sleeper = |bed: &Bed, name: &str, size: Option<&str>| {
        let mut arguments = vec!["run", "-d", "--name", name];
        arguments.extend(size.iter().flat_map(|size| ["--storage-opt", size]));
        arguments.extend(["busybox", "sleep", "1000"]);
        bed.run(&arguments).ok();
    };
    sleeper(&bed, "small", Some("size=20m"));
    sleeper(&bed, "large", Some("size=60M"));
    sleeper(&bed, "free", None);
    assert_eq!(bed.inspect("small")["HostConfig"]["StorageOpt"], json!({ "size": "20m" }));
    assert_eq!(bed.inspect("free")["HostConfig"]["StorageOpt"], json!(null));

    write(&bed, "small", "/a", 12).expect("within its size");
    full(&bed, "small", "/b", 12);
    let held =
        bed.run(&["exec", "small", "sh", "-c", "du -sk /a /b | awk '{ all += $1 } END { print all }'"]);
    let held: u64 = held.ok().parse().expect("kilobytes");
    assert!((16 << 10..=20 << 10).contains(&held), "{held} KiB of 20 MiB");
    // Each has its own, and who has none is not held back.
    write(&bed, "large", "/a", 40).expect("within its size");
    full(&bed, "large", "/b", 40);
    write(&bed, "free", "/a", 80).expect("it has no limit");
    // What it deletes is free again, and what was there before it counts when it is changed.
    bed.run(&["exec", "small", "rm", "/a", "/b"]).ok();
    write(&bed, "small", "/c", 12).expect("there is room again");

    // The limit is the layer's, whoever starts it.
    bed.run(&["restart", "-t", "0", "small"]).ok();
    full(&bed, "small", "/d", 12);
    bed.kill();
    bed.start();
    bed.run(&["exec", "small", "rm", "/d"]).ok();
    full(&bed, "small", "/d", 12);
    // A copy into it is held back as well.
    let folder = bed.folder("cp");
    fs::write(folder.join("big"), vec![1; 12 << 20]).expect("a file");
    let said = bed.run(&["cp", folder.join("big").to_str().expect("a path"), "small:/e"]);
    assert!(said.code != 0 && is_full(&said.said()), "{said:?}");

    // One that comes after has its own size, and not that of one that is gone.
    bed.run(&["rm", "-f", "small"]).ok();
    sleeper(&bed, "later", Some("size=40m"));
    write(&bed, "later", "/a", 30).expect("within its size");
    full(&bed, "later", "/b", 30);
    sleeper(&bed, "last", None);
    write(&bed, "last", "/a", 60).expect("it has no limit");
}

#[test]
fn a_layer_on_xfs_holds_as_much_as_was_said() {
    if let Some(bed) = bed_on("xfs", "mkfs.xfs -q", ",pquota") {
        a_layer_holds_as_much_as_was_said(bed);
    }
}

#[test]
fn a_layer_on_ext4_with_the_feature_holds_as_much_as_was_said() {
    if let Some(bed) = bed_on("ext4", "mkfs.ext4 -q -O quota,project -E quotatype=prjquota", ",prjquota") {
        a_layer_holds_as_much_as_was_said(bed);
    }
}

#[test]
fn a_size_is_refused_where_nothing_would_keep_it() {
    let Some(bed) = bed_on("ext4", "mkfs.ext4 -q", "") else { return };
    let said = bed.run(&["run", "--rm", "--storage-opt", "size=20m", "busybox", "true"]);
    has(
        said.fails(125),
        &["--storage-opt is supported only for overlay over xfs with 'pquota' mount option"],
    );
    bed.run(&["run", "--rm", "busybox", "true"]).ok();
}
