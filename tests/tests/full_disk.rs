//! What fails in the middle, because the disk is full or refuses a step, leaves the image store as it was.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::{Value, json};
use testkit::image::{self, Entry, Image};
use testkit::registry::{Registry, digest};
use testkit::{Bed, BedOptions, Client};
use tests::{gzip, has, is_peer};

const DISK_BYTES: u64 = 40 << 20;

/// Bytes that no compression makes smaller, always the same for a seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

fn large(name: &str, megabytes: usize) -> Image {
    Image::new(name, &[Entry::file("noise", 0o644, noise(megabytes as u64, megabytes << 20))])
}

/// Everything of the store that lies on the disk, and what the API tells of it.
fn store(bed: &Bed) -> (String, Value) {
    let script = format!(
        "cd {}/data && find content/blobs content/ingest content/partial snapshots -mindepth 1 -maxdepth 4 | sort && cat content/index.json",
        bed.host().folder().display()
    );
    let files = bed.host().shell(&script).ok().to_owned();
    (files, bed.http().get("/images/json?all=1").expect(200).json())
}

/// Does something that must fail, and looks that nothing has come of it.
#[track_caller]
fn fails(bed: &Bed, what: &str, act: impl FnOnce() -> String) -> String {
    let before = store(bed);
    let said = act();
    let after = store(bed);
    assert_eq!(after.1, before.1, "{what}: {said}");
    assert_eq!(after.0, before.0, "{what}: {said}");
    has(bed.run(&["system", "check"]).ok(), &["everything is whole"]);
    said
}

/// What a load says, by an error status or in its stream.
fn load(bed: &Bed, image: &Image) -> String {
    let said = bed.load_archive(&image.archive()).text();
    assert!(said.contains("error") || said.contains("message"), "{said}");
    said
}

#[test]
fn a_full_disk_takes_nothing_with_it() {
    if is_peer() {
        return;
    }
    let bed = Bed::with(BedOptions { disk_bytes: Some(DISK_BYTES), ..BedOptions::default() });
    bed.load(&image::busybox());
    // The archive itself has no room; then its unpacked layer has none.
    for megabytes in [60, 30, 24] {
        let said = fails(&bed, &format!("load {megabytes}"), || load(&bed, &large("big:1", megabytes)));
        has(&said.to_lowercase(), &["no space left on device"]);
    }
    let said = fails(&bed, "import", || {
        let archive = image::layer(&[Entry::file("noise", 0o644, noise(1, 24 << 20))]);
        let ran = bed.run_with_input(&["import", "-", "flat:1"], &archive);
        ran.fails(1).to_owned()
    });
    has(&said.to_lowercase(), &["no space left on device"]);
    // A container's changes that fit, and whose archive does not.
    bed.run(&["run", "--name", "full", "busybox", "dd", "if=/dev/urandom", "of=/noise", "bs=1M", "count=20"])
        .ok();
    let said = fails(&bed, "commit", || bed.run(&["commit", "full", "committed:1"]).fails(1).to_owned());
    has(&said.to_lowercase(), &["no space left on device"]);
    bed.run(&["rm", "full"]).ok();
    // A layer that fits when it is compressed, and not beside what it unpacks to.
    let registry = Registry::start(bed.host());
    let tar = image::layer(&[Entry::file("noise", 0o644, noise(2, 20 << 20))]);
    registry.push("lib/big", "1", &[(gzip(&tar), digest(&tar))], json!({}));
    let name = format!("{}/lib/big:1", registry.address());
    let said = fails(&bed, "pull", || bed.run(&["pull", &name]).fails(1).to_owned());
    has(&said.to_lowercase(), &["no space left on device"]);
    // What fits still comes in, and everything still runs.
    bed.load(&large("small:1", 2));
    assert_eq!(bed.run(&["run", "--rm", "busybox", "echo", "well"]).ok(), "well");
    bed.run(&["rmi", "small:1"]).ok();
}

/// Each step of all that brings something in is broken in turn.
#[test]
fn a_step_that_fails_is_undone() {
    if is_peer() {
        return;
    }
    let mut bed = Bed::new();
    let tar = image::layer(&[Entry::file("f", 0o644, "from afar")]);
    bed.run(&["create", "--name", "source", "busybox"]).ok();
    let small = || image::layer(&[Entry::file("g", 0o644, "g")]);
    for step in ["images.spool", "images.layer", "images.unpack", "images.sync", "images.record"] {
        bed.stop();
        bed.set_environment("CORTEN_FAILPOINTS", Some(&format!("{step}=error")));
        bed.start();
        let registry = Registry::start(bed.host());
        registry.push("lib/small", "1", &[(gzip(&tar), digest(&tar))], json!({}));
        let name = format!("{}/lib/small:1", registry.address());
        let said = fails(&bed, &format!("load at {step}"), || {
            load(&bed, &Image::new("new:1", &[Entry::file("f", 0o644, step)]))
        });
        has(&said, &[step]);
        if matches!(step, "images.sync" | "images.record") {
            has(&fails(&bed, "pull", || bed.run(&["pull", &name]).fails(1).to_owned()), &[step]);
            has(
                &fails(&bed, "import", || bed.run_with_input(&["import", "-"], &small()).fails(1).to_owned()),
                &[step],
            );
            has(
                &fails(&bed, "commit", || bed.run(&["commit", "source", "new:2"]).fails(1).to_owned()),
                &[step],
            );
        }
    }
    bed.stop();
    bed.set_environment("CORTEN_FAILPOINTS", None);
    bed.start();
    bed.load(&Image::new("new:1", &[Entry::file("f", 0o644, "well")]));
    bed.run(&["commit", "source", "new:2"]).ok();
    bed.run(&["rm", "source"]).ok();
}

/// A store that was damaged behind the daemon's back is looked at and repaired, by both of our clients' ways.
#[test]
fn a_damaged_store_is_repaired() {
    if is_peer() {
        return;
    }
    let mut bed = Bed::new();
    bed.load(&Image::new("broken:1", &[Entry::file("f", 0o644, "f")]).with("Labels", json!({ "a": "b" })));
    bed.load(&Image::new("whole:1", &[Entry::file("g", 0o644, "g")]));
    bed.run(&["create", "--name", "user", "busybox"]).ok();
    let check = |bed: &Bed, more: &[&str]| bed.cli(Client::Own, &[&["system", "check"], more].concat());
    has(check(&bed, &[]).ok(), &["Checked 3 images, 0 indexes, 9 blobs", "1 container: everything is whole"]);
    let content = bed.host().folder().join("data/content");
    let inspected = bed.http().get("/images/broken:1/json").json();
    let layer = inspected["RootFS"]["Layers"][0].as_str().expect("a layer").replace("sha256:", "");
    std::fs::write(content.join("blobs/sha256").join(&layer), "something else").expect("damage");
    std::fs::write(content.join(format!("blobs/sha256/{}", "0".repeat(64))), "").expect("an orphan");
    let lost = bed.http().get("/images/whole:1/json").json()["GraphDriver"]["Data"]["UpperDir"].clone();
    std::fs::remove_dir_all(lost.as_str().expect("a directory")).expect("a lost layer");
    let orphan = bed.host().folder().join("data/snapshots/overlay/containers").join("f".repeat(64));
    bed.stop();
    for name in ["upper", "work"] {
        std::fs::create_dir_all(orphan.join(name)).expect("an orphan");
    }
    bed.start();
    let found = check(&bed, &[]);
    assert_eq!(found.code, 1);
    has(
        &found.stdout,
        &[
            "image broken:1 (",
            &format!("blob sha256:{layer} has 14 bytes instead of"),
            "image whole:1 (",
            "unpacked layer sha256:",
            "is missing",
        ],
    );
    has(&found.stderr, &["2 problems", "hint: let them be repaired: corten system check --repair"]);
    let answer = bed.http().get("/corten/check").expect(200).json();
    assert_eq!((&answer["Clean"], answer["Findings"].as_array().map(Vec::len)), (&json!(false), Some(2)));
    let repaired = check(&bed, &["--repair"]);
    has(
        repaired.ok(),
        &[
            "dropped the image, and with it the names broken:1",
            "unpacked it again",
            "everything was repaired",
        ],
    );
    has(check(&bed, &[]).ok(), &["Checked 2 images", "everything is whole"]);
    let names = bed.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut names: Vec<_> = names.ok().lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["busybox:latest", "whole:1"]);
    bed.run(&["start", "-a", "user"]).ok();
    bed.run(&["rm", "user"]).ok();
}
