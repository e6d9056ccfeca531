//! Machines that lose power, or go on, before unpacked layers are on the disk.

use std::os::fd::AsRawFd;
use std::path::Path;

use super::*;

const DRIVERS: [&str; 2] = ["overlay2", "vfs"];

/// Marks in the records, by driver and chain ID.
fn marks(images: &Images) -> Vec<String> {
    images.store.scan("unsettled").into_iter().map(|(key, _)| key).collect()
}

fn two_layers() -> Built {
    Built::new("one", &[("low", b"1"), ("high", b"2")])
}

/// A store with an image whose layers nobody has synced.
fn loaded(directory: &Path, driver: &str) -> Images {
    let images = open_as(directory, driver, "first");
    let archive = two_layers().docker_archive(&["one:1"]);
    images.archives().load(Input::Stream(&archive[..]), &options(), &mut |_| {}).unwrap();
    assert_eq!(marks(&images).len(), 2);
    images
}

/// What a loss of power may leave of a layer: names without content.
fn lose(images: &Images, chain: &Digest) {
    let directory = images.snapshots.layer(chain).unwrap().directory;
    for entry in std::fs::read_dir(&directory).unwrap() {
        std::fs::write(entry.unwrap().path(), "").unwrap();
    }
    std::fs::write(directory.parent().unwrap().join("layer.json"), "").unwrap();
}

fn chains(images: &Images) -> Vec<Digest> {
    images.resolve("one:1").unwrap().chains.clone()
}

/// What a container shows under a name.
fn read(images: &Images, container: &str, name: &str) -> Option<String> {
    let root = images.snapshots.open_root(container).unwrap();
    std::fs::read_to_string(format!("/proc/self/fd/{}/{name}", root.as_raw_fd())).ok()
}

fn is_whole(images: &Images) {
    let top = chains(images).pop().unwrap();
    images.snapshots.create("probe", Some(&top)).unwrap();
    assert_eq!(
        (read(images, "probe", "low"), read(images, "probe", "high")),
        (Some("1".into()), Some("2".into()))
    );
    drop(images.release("probe").unwrap());
    let all = Containers { exists: &|_| true, all: &[] };
    assert_eq!(images.checkup().run(all, false).unwrap().findings, []);
}

#[test]
fn what_is_settled_is_believed() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let images = loaded(directory.path(), driver);
        images.settling().settle().unwrap();
        assert_eq!(marks(&images), [""; 0]);
        let layer = images.snapshots.layer(&chains(&images)[0]).unwrap();
        std::fs::write(layer.directory.join("sign"), "").unwrap();
        drop(images);
        let images = open_as(directory.path(), driver, "second");
        assert!(layer.directory.join("sign").exists(), "nobody touched it");
        is_whole(&images);
        // The same image under another name brings nothing new.
        let archive = two_layers().docker_archive(&["one:2"]);
        images.archives().load(Input::Stream(&archive[..]), &options(), &mut |_| {}).unwrap();
        assert_eq!(marks(&images), [""; 0]);
    }
}

#[test]
fn a_daemon_that_dies_finds_its_layers() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let images = loaded(directory.path(), driver);
        let layer = images.snapshots.layer(&chains(&images)[0]).unwrap();
        std::fs::write(layer.directory.join("sign"), "").unwrap();
        drop(images);
        let images = open_as(directory.path(), driver, "first");
        assert!(layer.directory.join("sign").exists(), "the kernel still has it");
        assert_eq!(marks(&images).len(), 2);
        images.settling().settle().unwrap();
        assert_eq!(marks(&images), [""; 0]);
    }
}

#[test]
fn lost_layers_are_unpacked_again() {
    for driver in DRIVERS {
        for lost in [vec![0], vec![1], vec![0, 1]] {
            let directory = tempfile::tempdir().unwrap();
            let images = loaded(directory.path(), driver);
            let chains = chains(&images);
            images.snapshots.create("c", chains.last()).unwrap();
            let root = images.snapshots.open_root("c").unwrap();
            std::fs::write(format!("/proc/self/fd/{}/mine", root.as_raw_fd()), "kept").unwrap();
            drop(root);
            lost.iter().for_each(|layer| lose(&images, &chains[*layer]));
            drop(images);
            let images = open_as(directory.path(), driver, "second");
            is_whole(&images);
            for (name, content) in [("low", "1"), ("high", "2"), ("mine", "kept")] {
                assert_eq!(read(&images, "c", name).as_deref(), Some(content), "{driver} {lost:?}");
            }
            let changes = images.snapshots.changes("c").unwrap();
            assert_eq!(changes.iter().map(|change| &change.path[..]).collect::<Vec<_>>(), [b"/mine"]);
            // They are as unsettled as they were, of this boot.
            assert_eq!(marks(&images).len(), 2);
            drop(images);
            let images = open_as(directory.path(), driver, "second");
            images.settling().settle().unwrap();
            assert_eq!(marks(&images), [""; 0]);
            drop(images);
            is_whole(&open_as(directory.path(), driver, "third"));
        }
    }
}

#[test]
fn a_layer_whose_archive_is_bad_is_left_to_the_checkup() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let images = loaded(directory.path(), driver);
        let image = images.resolve("one:1").unwrap();
        images.snapshots.create("c", image.chain()).unwrap();
        let blob = images.content.path(&image.layers[0].blob.digest);
        let mut bytes = std::fs::read(&blob).unwrap();
        bytes[600] ^= 1;
        std::fs::write(&blob, bytes).unwrap();
        lose(&images, &image.chains[0]);
        drop(images);
        let images = open_as(directory.path(), driver, "second");
        let all = ["c".to_owned()];
        let containers = Containers { exists: &|_| true, all: &all };
        let report = images.checkup().run(containers, false).unwrap();
        let kinds: Vec<&str> = report.findings.iter().map(|finding| finding.problem.kind()).collect();
        assert_eq!(kinds, ["blob", "layer", "layer"], "{driver}");
        assert_eq!(images.snapshots.containers(), ["c"], "what the container wrote stays");
        assert!(images.checkup().run(containers, true).unwrap().is_clean());
        assert!(images.all().is_empty());
        // It comes again, and the container has its layers.
        let archive = two_layers().docker_archive(&["one:1"]);
        images.archives().load(Input::Stream(&archive[..]), &options(), &mut |_| {}).unwrap();
        assert_eq!(read(&images, "c", "high").as_deref(), Some("2"));
        images.settling().settle().unwrap();
        drop(images);
        let images = open_as(directory.path(), driver, "third");
        assert_eq!(marks(&images), [""; 0]);
        is_whole(&images);
    }
}

#[test]
fn marks_go_with_their_layers() {
    let directory = tempfile::tempdir().unwrap();
    let images = loaded(directory.path(), "overlay2");
    images.removals().remove("one:1", RemoveOptions::default(), &nobody).unwrap();
    assert_eq!(marks(&images), [""; 0]);
    assert!(images.content.walk().unwrap().is_empty());
    // A death between the two leaves the marks; they name nothing then.
    let images = {
        drop(images);
        let images = loaded(directory.path(), "overlay2");
        let image = images.resolve("one:1").unwrap();
        let batch = state::delete(metadata::Batch::default(), &Target::Image(image.id.clone()));
        let reference = Reference::parse("one:1").unwrap();
        images.store.commit(state::delete_tag(batch, &reference)).unwrap();
        drop(images);
        open_as(directory.path(), "overlay2", "second")
    };
    assert_eq!(marks(&images), [""; 0]);
    assert!(images.snapshots.layers().is_empty() && images.content.walk().unwrap().is_empty());
}

#[test]
fn a_container_keeps_what_its_layers_are_made_of_until_they_are_settled() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let images = loaded(directory.path(), driver);
        let chains = chains(&images);
        images.snapshots.create("c", chains.last()).unwrap();
        let options = RemoveOptions { force: true, ..RemoveOptions::default() };
        images.removals().remove("one:1", options, &nobody).unwrap();
        assert_eq!((marks(&images).len(), images.content.walk().unwrap().len()), (2, 2));
        let none = Containers { exists: &|_| true, all: &[] };
        assert_eq!(images.checkup().run(none, false).unwrap().findings, []);
        lose(&images, &chains[0]);
        drop(images);
        let images = open_as(directory.path(), driver, "second");
        assert_eq!(read(&images, "c", "low").as_deref(), Some("1"));
        images.settling().settle().unwrap();
        assert!(images.content.walk().unwrap().is_empty());
        drop(images.release("c").unwrap());
        assert!(images.snapshots.layers().is_empty());
    }
}

#[test]
fn marks_of_another_driver_wait_for_it() {
    let directory = tempfile::tempdir().unwrap();
    drop(loaded(directory.path(), "overlay2"));
    let images = open_as(directory.path(), "vfs", "second");
    let image = images.resolve("one:1").unwrap();
    assert!(images.snapshots.layers().is_empty());
    images.layers().unpack_missing(&image).unwrap();
    assert_eq!(marks(&images).len(), 4, "a recorded image's layers are marked before they are there");
    images.settling().settle().unwrap();
    let left = marks(&images);
    assert!(left.len() == 2 && left.iter().all(|mark| mark.starts_with("overlay2 ")), "{left:?}");
    drop(images);
    let images = open_as(directory.path(), "overlay2", "second");
    is_whole(&images);
    images.settling().settle().unwrap();
    assert_eq!(marks(&images), [""; 0]);
}

#[test]
fn what_is_unpacked_during_a_sync_needs_another() {
    let directory = tempfile::tempdir().unwrap();
    let images = loaded(directory.path(), "overlay2");
    let image = images.resolve("one:1").unwrap();
    let number = |images: &Images| images.settling().unsettled_number(&image.chains[1]);
    let before = number(&images);
    drop(images.snapshots.remove(&image.chains[1]).unwrap());
    images.layers().unpack_missing(&image).unwrap();
    assert!(number(&images) > before);
    assert_eq!(marks(&images).len(), 2);
    images.settling().settle().unwrap();
    assert_eq!(number(&images), None);
    is_whole(&images);
}
