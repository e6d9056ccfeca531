//! Stores that were damaged, looked at and repaired.

use super::platforms::two_platforms;
use super::*;

const NONE: Containers<'_> = Containers { exists: &|_| false, all: &[] };

/// What is found, by its kind.
fn kinds(report: &CheckReport) -> Vec<&'static str> {
    let mut kinds: Vec<_> = report.findings.iter().map(|finding| finding.problem.kind()).collect();
    kinds.sort_unstable();
    kinds
}

fn check(fixture: &Fixture, repair: bool) -> CheckReport {
    fixture.images.checkup().run(NONE, repair).unwrap()
}

/// Finds these kinds of problems, repairs them, and finds nothing any more, now and after a restart.
fn repaired(fixture: Fixture, expected: &[&str]) -> Fixture {
    let found = check(&fixture, false);
    assert_eq!(kinds(&found), expected, "{found:#?}");
    assert!(!found.is_clean());
    assert_eq!(check(&fixture, false), found, "looking changes nothing");
    let report = check(&fixture, true);
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(check(&fixture, false).findings, []);
    let fixture = fixture.restart();
    assert_eq!(check(&fixture, false).findings, []);
    fixture
}

fn two_images() -> (Fixture, Built, Built) {
    let fixture = Fixture::new();
    let good = Built::new("good", &[("f", b"1"), ("g", b"2")]);
    let bad = Built::new("bad", &[("f", b"1"), ("h", b"3")]);
    fixture.load(&good.docker_archive(&["good:1"])).unwrap();
    fixture.load(&bad.docker_archive(&["bad:1", "bad:2"])).unwrap();
    let report = check(&fixture, false);
    assert_eq!((report.findings.len(), report.images, report.layers, report.blobs), (0, 2, 3, 7));
    (fixture, good, bad)
}

#[test]
fn what_cannot_be_whole_is_dropped_and_the_rest_kept() {
    for damage in ["missing", "longer", "changed"] {
        let (fixture, good, bad) = two_images();
        let blob = fixture.images.get(&bad.id()).unwrap().layers[1].blob.digest.clone();
        let path = fixture.images.content.path(&blob);
        let mut bytes = std::fs::read(&path).unwrap();
        match damage {
            "missing" => std::fs::remove_file(&path).unwrap(),
            "longer" => std::fs::write(&path, [&bytes[..], b"x"].concat()).unwrap(),
            _ => {
                bytes[700] ^= 1;
                std::fs::write(&path, &bytes).unwrap();
            }
        }
        let report = check(&fixture, false);
        let text = report.findings[0].problem.to_string();
        assert!(text.starts_with("image bad:1 (") && text.contains(blob.as_str()), "{text}");
        let fixture = repaired(fixture, &["blob"]);
        assert_eq!(fixture.names(), ["good:1"], "{damage}");
        assert_eq!(fixture.images.resolve("good:1").unwrap().id, good.id());
        // And it can come again.
        fixture.load(&bad.docker_archive(&["bad:1"])).unwrap();
        assert_eq!(check(&fixture, false).findings, []);
    }
}

#[test]
fn a_layer_that_is_lost_is_unpacked_again() {
    let (fixture, _, bad) = two_images();
    let image = fixture.images.get(&bad.id()).unwrap();
    let directory = fixture.images.snapshots.layer(&image.chains[1]).unwrap().directory;
    std::fs::remove_dir_all(&directory).unwrap();
    let fixture = repaired(fixture, &["layer"]);
    let lowers = fixture.images.snapshots.lowers(&image.chains[1]).unwrap();
    assert_eq!(std::fs::read(lowers[0].join("h")).unwrap(), b"3");
    assert_eq!(fixture.names().len(), 3);
}

#[test]
fn several_lost_layers_come_back_in_order() {
    let (fixture, good, bad) = two_images();
    for id in [good.id(), bad.id()] {
        for chain in &fixture.images.get(&id).unwrap().chains {
            let directory = fixture.images.snapshots.layer(chain).unwrap().directory;
            let _ = std::fs::remove_dir_all(directory);
        }
    }
    let report = check(&fixture, true);
    assert!(report.is_clean() && kinds(&report).iter().all(|kind| *kind == "layer"), "{report:#?}");
    let fixture = fixture.restart();
    assert_eq!(check(&fixture, true).findings, []);
    assert_eq!(fixture.names().len(), 3);
    for name in fixture.names() {
        let image = fixture.images.resolve(&name).unwrap();
        let lowers = fixture.images.snapshots.lowers(image.chain().unwrap()).unwrap();
        assert!(lowers.iter().all(|lower| lower.is_dir()), "{name}");
    }
}

#[test]
fn a_lost_layer_under_a_container_takes_only_its_image_along() {
    let (fixture, good, bad) = two_images();
    let image = fixture.images.get(&bad.id()).unwrap();
    fixture.images.snapshots.create(&"e".repeat(64), image.chain()).unwrap();
    std::fs::remove_dir_all(fixture.images.snapshots.layer(&image.chains[1]).unwrap().directory).unwrap();
    let own = ["e".repeat(64)];
    let all = Containers { exists: &|_| true, all: &own };
    let report = fixture.images.checkup().run(all, true).unwrap();
    assert!(report.is_clean() && kinds(&report)[0] == "layer", "{report:#?}");
    assert_eq!(fixture.images.checkup().run(all, false).unwrap().findings, []);
    assert_eq!(fixture.names(), ["good:1"]);
    assert_eq!(fixture.images.resolve("good:1").unwrap().id, good.id());
}

#[test]
fn orphans_are_removed() {
    let (fixture, ..) = two_images();
    let images = &fixture.images;
    let container = "c".repeat(64);
    images.snapshots.create(&container, images.resolve("good:1").unwrap().chain()).unwrap();
    images.snapshots.create("build-7", None).unwrap();
    images.content.put(b"nobody's").unwrap();
    images.snapshots.commit(images.snapshots.stage(None).unwrap(), &Digest::of(b"nobody's"), 0).unwrap();
    let partial = images.content.root().join("partial");
    std::fs::write(partial.join("strange"), "x").unwrap();
    // What somebody is about to need is nobody's orphan, and neither is what has come of a pull that may go on.
    let mut pins = images.pins();
    let pinned = images.content.put(b"pinned").unwrap().digest;
    pins.blob(&pinned);
    images.content.partial(&Digest::of(b"on its way"), 100).unwrap();
    std::fs::write(images.content.root().join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#)
        .unwrap();
    let own = [container.clone()];
    let all = Containers { exists: &|id| id == container, all: &own };
    let expected = ["layout", "orphan-blob", "orphan-layer", "orphan-partial"];
    assert_eq!(kinds(&images.checkup().run(all, false).unwrap()), expected);
    let lost = ["d".repeat(64)];
    let lost = Containers { exists: &|_| true, all: &lost };
    assert!(kinds(&images.checkup().run(lost, true).unwrap()).contains(&"no-writable-layer"));
    let report = check(&fixture, true);
    assert_eq!(kinds(&report), ["orphan-writable-layer"]);
    assert!(report.is_clean());
    assert_eq!(images.snapshots.containers(), ["build-7"]);
    assert!(images.content.contains(&pinned) && std::fs::read_dir(&partial).unwrap().count() == 1);
    drop(pins);
    assert_eq!(check(&fixture, false).findings, []);
    assert_eq!(fixture.names().len(), 3);
}

#[test]
fn records_that_cannot_be_used_are_dropped() {
    let (fixture, _, bad) = two_images();
    let Fixture { directory, images } = fixture;
    std::fs::remove_file(images.content.path(&bad.id())).unwrap();
    images.store.commit(metadata::Batch::default().put("images", "odd", b"{".to_vec())).unwrap();
    drop(images);
    let content = content::Store::open(&directory.path().join("content")).unwrap();
    let snapshots = snapshots::Overlay::open(&directory.path().join("snapshots/overlay"), &[]).unwrap();
    let store = metadata::Store::open(&directory.path().join("state")).unwrap();
    let (images, warnings) =
        Images::open(Arc::new(content), Arc::new(snapshots), store, Limits::default(), "this boot").unwrap();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    let fixture = Fixture { directory, images };
    let expected = ["orphan-blob", "orphan-blob", "orphan-layer", "record", "record", "record", "record"];
    let fixture = repaired(fixture, &expected);
    assert_eq!(fixture.names(), ["good:1"]);
}

#[test]
fn of_an_index_what_is_whole_stays() {
    let fixture = Fixture::new();
    let (archive, index, own, other) = two_platforms("docker.io/library/multi:1");
    fixture.load(&archive).unwrap();
    assert_eq!(check(&fixture, false).findings, []);
    let manifest = fixture.images.get(&own.id()).unwrap().manifest.digest.clone();
    std::fs::remove_file(fixture.images.content.path(&manifest)).unwrap();
    let fixture = repaired(fixture, &["blob"]);
    assert_eq!(fixture.images.resolve("multi:1").unwrap().id, other.id());
    fixture.load(&archive).unwrap();
    // An index that is lost leaves its images, and the best one has its names.
    std::fs::write(fixture.images.content.path(&index.digest), "").unwrap();
    let found = check(&fixture, true);
    assert_eq!(kinds(&found)[0], "blob");
    assert!(check(&fixture, false).findings.iter().all(|one| one.problem.kind().starts_with("orphan")));
    check(&fixture, true);
    assert_eq!(fixture.images.find("multi:1", None).unwrap().target, Target::Image(own.id()));
    assert!(fixture.images.get(&other.id()).is_some());
}
