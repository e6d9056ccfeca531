//! What every driver must do, as one suite; a driver's own test is a call to [`suite`].

use std::os::fd::OwnedFd;
use std::path::Path;

use oci::Digest;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::{Error, Mounts, Snapshotter};

type Open<'a> = &'a dyn Fn(&Path) -> Box<dyn Snapshotter>;

pub fn suite(open: Open<'_>) {
    for case in [
        layers_lie_on_each_other,
        a_stage_that_is_dropped_leaves_nothing,
        the_first_of_two_equal_layers_wins,
        used_layers_stay,
        containers_have_their_own_layer,
        a_container_becomes_a_layer,
        roots_are_opened_without_a_mount_point,
        changes_are_told,
        everything_is_there_after_a_restart,
        names_cannot_escape,
    ] {
        let directory = tempfile::tempdir().unwrap();
        case(open, directory.path());
    }
}

fn chain(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn add(driver: &dyn Snapshotter, parent: Option<&Digest>, name: &str) -> Digest {
    let stage = driver.stage(parent).unwrap();
    std::fs::write(stage.directory().join(name), name).unwrap();
    driver.commit(stage, &chain(name), name.len() as u64).unwrap();
    chain(name)
}

fn layers_lie_on_each_other(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let a = add(&*driver, None, "a");
    let stage = driver.stage(Some(&a)).unwrap();
    assert_eq!(stage.lowers(), driver.lowers(&a).unwrap());
    drop(stage);
    let b = add(&*driver, Some(&a), "b");
    let layer = driver.layer(&b).unwrap();
    assert_eq!((layer.parent.as_ref(), layer.bytes), (Some(&a), 1));
    let lowers = driver.lowers(&b).unwrap();
    assert_eq!(lowers.first(), Some(&layer.directory));
    assert!(lowers[0].join("b").exists() && lowers[1].join("a").exists());
    assert_eq!(driver.layers().len(), 2);
    assert!(matches!(driver.stage(Some(&chain("x"))), Err(Error::NoLayer(_))));
    driver.sync().unwrap();
}

fn a_stage_that_is_dropped_leaves_nothing(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let stage = driver.stage(None).unwrap();
    let directory = stage.directory();
    std::fs::write(directory.join("file"), "x").unwrap();
    drop(stage);
    assert!(!directory.exists());
    assert!(driver.layers().is_empty());
}

fn the_first_of_two_equal_layers_wins(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let first = driver.stage(None).unwrap();
    let second = driver.stage(None).unwrap();
    std::fs::write(first.directory().join("first"), "").unwrap();
    let second_directory = second.directory();
    driver.commit(first, &chain("same"), 1).unwrap();
    driver.commit(second, &chain("same"), 2).unwrap();
    let layer = driver.layer(&chain("same")).unwrap();
    assert_eq!(layer.bytes, 1);
    assert!(layer.directory.join("first").exists());
    assert!(!second_directory.exists());
}

fn used_layers_stay(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let a = add(&*driver, None, "a");
    let b = add(&*driver, Some(&a), "b");
    driver.create("c1", Some(&b)).unwrap();
    assert!(matches!(driver.remove(&a), Err(Error::HasChildren(_))));
    let error = driver.remove(&b).unwrap_err();
    assert!(matches!(&error, Error::InUse { container, .. } if container == "c1"), "{error}");
    drop(driver.destroy("c1").unwrap());
    drop(driver.remove(&b).unwrap());
    drop(driver.remove(&a).unwrap());
    assert!(matches!(driver.remove(&a), Err(Error::NoLayer(_))));
    assert!(driver.layers().is_empty());
}

fn containers_have_their_own_layer(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let a = add(&*driver, None, "a");
    driver.create("c1", Some(&a)).unwrap();
    driver.create("scratch", None).unwrap();
    assert!(matches!(driver.create("c1", Some(&a)), Err(Error::ContainerExists(_))));
    assert!(matches!(driver.create("c2", Some(&chain("x"))), Err(Error::NoLayer(_))));
    assert_eq!(driver.containers(), ["c1", "scratch"]);
    let Mounts::Overlay { lowers, upper, work } = driver.mounts("c1").unwrap();
    assert_eq!(lowers, driver.lowers(&a).unwrap());
    assert!(work.is_dir());
    std::fs::create_dir(upper.join("d")).unwrap();
    std::fs::write(upper.join("d/file"), "12345").unwrap();
    std::fs::hard_link(upper.join("d/file"), upper.join("link")).unwrap();
    let usage = driver.usage("c1").unwrap();
    assert_eq!((usage.bytes, usage.inodes), (5, 2));
    let Mounts::Overlay { lowers, .. } = driver.mounts("scratch").unwrap();
    assert!(lowers.is_empty());
    drop(driver.destroy("c1").unwrap());
    drop(driver.destroy("c1").unwrap());
    assert!(!upper.exists());
    assert!(matches!(driver.mounts("c1"), Err(Error::NoContainer(_))));
}

fn a_container_becomes_a_layer(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let a = add(&*driver, None, "a");
    driver.create("build", Some(&a)).unwrap();
    let Mounts::Overlay { upper, .. } = driver.mounts("build").unwrap();
    std::fs::write(upper.join("made"), "12").unwrap();
    drop(driver.adopt("build", &chain("made"), 2).unwrap());
    assert!(driver.containers().is_empty());
    let layer = driver.layer(&chain("made")).unwrap();
    assert_eq!(layer.parent, Some(a.clone()));
    assert!(layer.directory.join("made").exists());
    // The same result again: the layer stays, the container goes.
    driver.create("again", Some(&a)).unwrap();
    drop(driver.adopt("again", &chain("made"), 2).unwrap());
    assert!(driver.containers().is_empty());
    assert!(matches!(driver.remove(&a), Err(Error::HasChildren(_))));
}

fn roots_are_opened_without_a_mount_point(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let a = add(&*driver, None, "a");
    let b = add(&*driver, Some(&a), "b");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    driver.create("c1", Some(&b)).unwrap();
    driver.create("low", Some(&a)).unwrap();
    driver.create("scratch", None).unwrap();
    let write = OFlags::WRONLY | OFlags::CREATE;
    let new = |descriptor: &OwnedFd, name: &str| {
        rustix::fs::openat(descriptor, name, write, Mode::from_raw_mode(0o644)).unwrap();
    };
    let here = |descriptor: &OwnedFd, name: &str| {
        rustix::fs::statat(descriptor, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    };
    for name in ["c1", "low", "scratch"] {
        let inside = driver.open_root(name).unwrap();
        new(&inside, "new");
        assert_eq!(here(&inside, "a"), name != "scratch");
    }
    let inside = driver.open_root("c1").unwrap();
    assert!(here(&inside, "new") && here(&inside, "b"));
    rustix::fs::unlinkat(&inside, "a", AtFlags::empty()).unwrap();
    drop(inside);
    assert!(driver.layer(&a).unwrap().directory.join("a").exists());
    let Mounts::Overlay { upper, .. } = driver.mounts("c1").unwrap();
    assert!(upper.join("new").exists() && std::fs::symlink_metadata(upper.join("a")).is_ok());
    let layers = driver.open_layers(&b).unwrap();
    assert!(here(&layers, "a") && here(&layers, "b") && !here(&layers, "new"));
    assert!(here(&driver.open_layers(&a).unwrap(), "a"));
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

fn changes_are_told(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let stage = driver.stage(None).unwrap();
    let base = stage.directory();
    for directory in ["kept", "dir/sub", "gone", "again"] {
        std::fs::create_dir_all(base.join(directory)).unwrap();
    }
    for file in ["file", "dir/sub/file", "gone/file", "again/old", "again/both"] {
        std::fs::write(base.join(file), "x").unwrap();
    }
    driver.commit(stage, &chain("base"), 1).unwrap();
    driver.create("c1", Some(&chain("base"))).unwrap();
    driver.create("none", None).unwrap();
    {
        // Through the mounted root, so that the driver itself makes its marks.
        let inside = driver.open_root("c1").unwrap();
        let write = |name: &str| {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            rustix::fs::openat(&inside, name, flags, Mode::from_raw_mode(0o644)).unwrap();
        };
        let remove = |name: &str, flags| rustix::fs::unlinkat(&inside, name, flags).unwrap();
        write("dir/sub/new");
        write("file");
        rustix::fs::mkdirat(&inside, "fresh", Mode::RWXU).unwrap();
        write("fresh/file");
        remove("gone/file", AtFlags::empty());
        remove("gone", AtFlags::REMOVEDIR);
        for file in ["again/old", "again/both"] {
            remove(file, AtFlags::empty());
        }
        remove("again", AtFlags::REMOVEDIR);
        rustix::fs::mkdirat(&inside, "again", Mode::from_raw_mode(0o755)).unwrap();
        write("again/both");
    }
    let told: Vec<String> = driver
        .changes("c1")
        .unwrap()
        .into_iter()
        .map(|change| format!("{:?} {}", change.kind, String::from_utf8(change.path).unwrap()))
        .collect();
    let expected = [
        "Modified /again",
        "Modified /again/both",
        "Deleted /again/old",
        "Modified /dir",
        "Modified /dir/sub",
        "Added /dir/sub/new",
        "Modified /file",
        "Added /fresh",
        "Added /fresh/file",
        "Deleted /gone",
    ];
    assert_eq!(told, expected);
    assert!(driver.changes("none").unwrap().is_empty());
}

fn everything_is_there_after_a_restart(open: Open<'_>, root: &Path) {
    let driver = open(root);
    let a = add(&*driver, None, "a");
    let b = add(&*driver, Some(&a), "b");
    driver.create("c1", Some(&b)).unwrap();
    std::mem::forget(driver.stage(Some(&b)).unwrap());
    let mounts = driver.mounts("c1").unwrap();
    let layer = driver.layer(&b);
    drop(driver);
    let driver = open(root);
    assert_eq!(driver.mounts("c1").unwrap(), mounts);
    assert_eq!(driver.layer(&b), layer);
    assert!(matches!(driver.remove(&b), Err(Error::InUse { .. })));
    assert!(matches!(driver.remove(&a), Err(Error::HasChildren(_))));
    drop(driver.destroy("c1").unwrap());
    drop(driver.remove(&b).unwrap());
}

fn names_cannot_escape(open: Open<'_>, root: &Path) {
    let driver = open(root);
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b"] {
        assert!(matches!(driver.create(name, None), Err(Error::Name(_))), "{name:?}");
        assert!(matches!(driver.destroy(name), Err(Error::Name(_))), "{name:?}");
    }
}
