//! What every driver must do, as one suite; a driver's own test is a call to [`suite`].

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::Digest;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::{Difference, Doubted, Error, Form, Mounts, Snapshotter};

type Open<'a> = &'a dyn Fn(&Path, &[Doubted]) -> Box<dyn Snapshotter>;

/// Each case has a folder of its own in `place`.
pub fn suite(place: &Path, open: Open<'_>) {
    for case in [
        layers_lie_on_each_other,
        a_stage_that_is_dropped_leaves_nothing,
        the_first_of_two_equal_layers_wins,
        used_layers_stay,
        containers_have_their_own_layer,
        containers_cannot_change_layers,
        a_container_becomes_a_layer,
        roots_are_opened_without_a_mount_point,
        changes_are_told,
        changes_that_hide_are_told,
        everything_is_there_after_a_restart,
        doubted_layers_are_filled_again,
        containers_of_another_driver_are_named,
        names_cannot_escape,
    ] {
        let directory = tempfile::tempdir_in(place).unwrap();
        case(open, &directory.path().join("driver"));
        // What a case forgot to destroy, a driver's own tree cannot always be taken apart as files.
        clear(&*open(&directory.path().join("driver"), &[]));
    }
}

fn clear(driver: &dyn Snapshotter) {
    for container in driver.containers() {
        drop(driver.destroy(&container).unwrap());
    }
    let mut layers = driver.layers();
    while !layers.is_empty() {
        layers.retain(|layer| driver.remove(&layer.chain).is_err());
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

/// A path below an open directory, for as long as it is open.
fn below(root: &OwnedFd, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())).join(path)
}

fn has(root: &OwnedFd, path: &str) -> bool {
    rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn layers_lie_on_each_other(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    let a = add(&*driver, None, "a");
    let stage = driver.stage(Some(&a)).unwrap();
    assert_eq!(stage.form(), driver.form());
    match driver.form() {
        Form::Difference => assert_eq!(stage.lowers(), driver.lowers(&a).unwrap()),
        Form::Whole => assert!(stage.lowers().is_empty() && stage.directory().join("a").exists()),
    }
    drop(stage);
    let b = add(&*driver, Some(&a), "b");
    let layer = driver.layer(&b).unwrap();
    assert_eq!((layer.parent.as_ref(), layer.bytes), (Some(&a), 1));
    let lowers = driver.lowers(&b).unwrap();
    assert_eq!(lowers.first(), Some(&layer.directory));
    assert!(lowers[0].join("b").exists());
    let shown = driver.open_layers(&b).unwrap();
    assert!(has(&shown, "a") && has(&shown, "b"));
    assert!(!has(&driver.open_layers(&a).unwrap(), "b"));
    assert_eq!(driver.layers().len(), 2);
    assert!(matches!(driver.stage(Some(&chain("x"))), Err(Error::NoLayer(_))));
    assert!(matches!(driver.open_layers(&chain("x")), Err(Error::NoLayer(_))));
    driver.sync().unwrap();
}

fn a_stage_that_is_dropped_leaves_nothing(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    let stage = driver.stage(None).unwrap();
    let directory = stage.directory();
    std::fs::write(directory.join("file"), "x").unwrap();
    drop(stage);
    assert!(!directory.exists());
    assert!(driver.layers().is_empty());
}

fn the_first_of_two_equal_layers_wins(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
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
    let driver = open(root, &[]);
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
    let driver = open(root, &[]);
    let a = add(&*driver, None, "a");
    driver.create("c1", Some(&a)).unwrap();
    driver.create("scratch", None).unwrap();
    assert!(matches!(driver.create("c1", Some(&a)), Err(Error::ContainerExists(_))));
    assert!(matches!(driver.create("c2", Some(&chain("x"))), Err(Error::NoLayer(_))));
    assert_eq!(driver.containers(), ["c1", "scratch"]);
    let directory = match driver.mounts("c1").unwrap() {
        Mounts::Overlay { lowers, upper, work } => {
            assert_eq!(lowers, driver.lowers(&a).unwrap());
            assert!(work.is_dir());
            upper
        }
        Mounts::Tree(tree) => {
            assert!(tree.join("a").exists());
            tree
        }
    };
    std::fs::create_dir(directory.join("d")).unwrap();
    std::fs::write(directory.join("d/file"), "12345").unwrap();
    std::fs::hard_link(directory.join("d/file"), directory.join("link")).unwrap();
    let usage = driver.usage("c1").unwrap();
    assert_eq!((usage.bytes, usage.inodes), (5, 2));
    match driver.mounts("scratch").unwrap() {
        Mounts::Overlay { lowers, .. } => assert!(lowers.is_empty()),
        Mounts::Tree(tree) => assert_eq!(std::fs::read_dir(tree).unwrap().count(), 0),
    }
    drop(driver.destroy("c1").unwrap());
    drop(driver.destroy("c1").unwrap());
    assert!(!directory.exists());
    assert!(matches!(driver.mounts("c1"), Err(Error::NoContainer(_))));
}

fn containers_cannot_change_layers(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    let a = add(&*driver, None, "a");
    driver.create("c1", Some(&a)).unwrap();
    driver.create("c2", Some(&a)).unwrap();
    let inside = driver.open_root("c1").unwrap();
    std::fs::write(below(&inside, "a"), "changed").unwrap();
    std::fs::set_permissions(below(&inside, "a"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    drop(inside);
    for shown in [driver.open_layers(&a).unwrap(), driver.open_view("c2").unwrap()] {
        assert_eq!(std::fs::read_to_string(below(&shown, "a")).unwrap(), "a");
    }
    let seen = driver.open_view("c1").unwrap();
    assert_eq!(std::fs::read_to_string(below(&seen, "a")).unwrap(), "changed");
}

fn a_container_becomes_a_layer(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    let a = add(&*driver, None, "a");
    driver.create("build", Some(&a)).unwrap();
    std::fs::write(below(&driver.open_root("build").unwrap(), "made"), "12").unwrap();
    drop(driver.adopt("build", &chain("made"), 2).unwrap());
    assert!(driver.containers().is_empty());
    let layer = driver.layer(&chain("made")).unwrap();
    assert_eq!(layer.parent, Some(a.clone()));
    assert!(layer.directory.join("made").exists());
    let shown = driver.open_layers(&chain("made")).unwrap();
    assert!(has(&shown, "made") && has(&shown, "a"));
    // The same result again: the layer stays, the container goes.
    driver.create("again", Some(&a)).unwrap();
    drop(driver.adopt("again", &chain("made"), 2).unwrap());
    assert!(driver.containers().is_empty());
    assert!(matches!(driver.remove(&a), Err(Error::HasChildren(_))));
}

fn roots_are_opened_without_a_mount_point(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
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
    for name in ["c1", "low", "scratch"] {
        let inside = driver.open_root(name).unwrap();
        new(&inside, "new");
        assert_eq!(has(&inside, "a"), name != "scratch");
    }
    let inside = driver.open_root("c1").unwrap();
    assert!(has(&inside, "new") && has(&inside, "b"));
    rustix::fs::unlinkat(&inside, "a", AtFlags::empty()).unwrap();
    drop(inside);
    assert!(driver.layer(&a).unwrap().directory.join("a").exists());
    let view = driver.open_view("c1").unwrap();
    assert!(has(&view, "new") && has(&view, "b") && !has(&view, "a"));
    let layers = driver.open_layers(&b).unwrap();
    assert!(has(&layers, "a") && has(&layers, "b") && !has(&layers, "new"));
    assert!(has(&driver.open_layers(&a).unwrap(), "a"));
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

fn told(driver: &dyn Snapshotter, container: &str) -> Vec<String> {
    let all = driver.changes(container).unwrap().into_iter();
    all.map(|change| format!("{:?} {}", change.kind, String::from_utf8(change.path).unwrap())).collect()
}

/// A layer with some of everything, and a container on it.
fn changed_container(driver: &dyn Snapshotter) -> OwnedFd {
    let stage = driver.stage(None).unwrap();
    let base = stage.directory();
    for directory in ["kept", "dir/sub", "gone", "again"] {
        std::fs::create_dir_all(base.join(directory)).unwrap();
    }
    for file in ["file", "dir/sub/file", "gone/file", "again/old", "again/both", "untouched"] {
        std::fs::write(base.join(file), "x").unwrap();
    }
    std::os::unix::fs::symlink("file", base.join("link")).unwrap();
    driver.commit(stage, &chain("base"), 1).unwrap();
    driver.create("c1", Some(&chain("base"))).unwrap();
    driver.open_root("c1").unwrap()
}

fn changes_are_told(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    // Through the mounted root, so that the driver itself makes its marks.
    let inside = changed_container(&*driver);
    assert!(told(&*driver, "c1").is_empty());
    driver.create("none", None).unwrap();
    let at = |path: &str| below(&inside, path);
    let write = |path: &str, text: &str| std::fs::write(at(path), text).unwrap();
    write("dir/sub/new", "new");
    write("file", "longer");
    std::fs::create_dir(at("fresh")).unwrap();
    write("fresh/file", "fresh");
    std::fs::remove_dir_all(at("gone")).unwrap();
    std::fs::remove_dir_all(at("again")).unwrap();
    std::fs::create_dir(at("again")).unwrap();
    write("again/both", "y");
    drop(inside);
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
    assert_eq!(told(&*driver, "c1"), expected);
    assert!(driver.changes("none").unwrap().is_empty());
    match driver.difference("c1").unwrap() {
        Difference::Upper(upper) => assert!(upper.join("dir/sub/new").exists()),
        Difference::Paths { root, changes } => {
            assert_eq!(changes, driver.changes("c1").unwrap());
            assert!(has(&root, "dir/sub/new"));
        }
    }
}

/// Changes that neither a file's size nor its time tells of.
fn changes_that_hide_are_told(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    let inside = changed_container(&*driver);
    let at = |path: &str| below(&inside, path);
    let modified = std::fs::metadata(at("file")).unwrap().modified().unwrap();
    std::fs::write(at("file"), "y").unwrap();
    let file = std::fs::File::options().write(true).open(at("file")).unwrap();
    file.set_modified(modified).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at("dir/sub/file"), "user.note", b"1", flags).unwrap();
    if driver.form() == Form::Whole {
        // Such a tree is labelled for SELinux before its container starts.
        rustix::fs::setxattr(at("untouched"), "security.selinux", b"a:b:c:s0", flags).unwrap();
    }
    std::os::unix::fs::chown(at("kept"), Some(7), None).unwrap();
    std::fs::remove_file(at("link")).unwrap();
    std::os::unix::fs::symlink("flie", at("link")).unwrap();
    drop(file);
    drop(inside);
    let expected = [
        "Modified /dir",
        "Modified /dir/sub",
        "Modified /dir/sub/file",
        "Modified /file",
        "Modified /kept",
        "Modified /link",
    ];
    assert_eq!(told(&*driver, "c1"), expected);
}

fn everything_is_there_after_a_restart(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    let a = add(&*driver, None, "a");
    let b = add(&*driver, Some(&a), "b");
    driver.create("c1", Some(&b)).unwrap();
    std::mem::forget(driver.stage(Some(&b)).unwrap());
    let mounts = driver.mounts("c1").unwrap();
    let layer = driver.layer(&b);
    drop(driver);
    let driver = open(root, &[]);
    assert_eq!(driver.mounts("c1").unwrap(), mounts);
    assert_eq!(driver.layer(&b), layer);
    assert!(matches!(driver.remove(&b), Err(Error::InUse { .. })));
    assert!(matches!(driver.remove(&a), Err(Error::HasChildren(_))));
    drop(driver.destroy("c1").unwrap());
    drop(driver.remove(&b).unwrap());
}

fn doubted_layers_are_filled_again(open: Open<'_>, root: &Path) {
    let (low, high);
    {
        let driver = open(root, &[]);
        low = add(&*driver, None, "low");
        high = add(&*driver, Some(&low), "high");
        driver.create("c1", Some(&high)).unwrap();
        std::fs::write(below(&driver.open_root("c1").unwrap(), "mine"), "kept").unwrap();
        // What is left of it after a loss of power.
        let directory = driver.layer(&low).unwrap().directory;
        std::fs::write(directory.join("low"), "").unwrap();
        std::fs::write(directory.parent().unwrap().join("layer.json"), "").unwrap();
    }
    let doubted = [
        Doubted { chain: low.clone(), parent: None },
        Doubted { chain: high.clone(), parent: Some(low.clone()) },
        // Of this one nothing at all came to the disk.
        Doubted { chain: chain("lost"), parent: Some(high.clone()) },
    ];
    let driver = open(root, &doubted);
    assert_eq!((driver.layer(&low), driver.layers()), (None, Vec::new()));
    assert_eq!(driver.top("c1").unwrap().as_ref(), Some(&high));
    assert!(matches!(driver.remove(&high), Err(Error::HasChildren(_))));
    drop(driver.remove(&chain("lost")).unwrap());
    assert!(matches!(driver.remove(&high), Err(Error::InUse { .. })));
    assert_eq!(add(&*driver, None, "low"), low);
    assert_eq!(add(&*driver, Some(&low), "high"), high);
    drop(driver);
    let driver = open(root, &[]);
    assert_eq!(driver.layers().len(), 2);
    let shown = driver.open_root("c1").unwrap();
    for (name, content) in [("low", "low"), ("high", "high"), ("mine", "kept")] {
        assert_eq!(std::fs::read_to_string(below(&shown, name)).unwrap(), content);
    }
    drop(shown);
    drop(driver.destroy("c1").unwrap());
    drop(driver.remove(&high).unwrap());
    drop(driver.remove(&low).unwrap());
    assert!(driver.layers().is_empty());
}

fn containers_of_another_driver_are_named(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    std::fs::create_dir_all(root.with_file_name("other").join("containers/c1")).unwrap();
    let error = driver.mounts("c1").unwrap_err();
    assert!(matches!(&error, Error::Elsewhere { driver, .. } if driver == "other"), "{error}");
    drop(driver.destroy("c1").unwrap());
    assert!(root.with_file_name("other").join("containers/c1").exists());
}

fn names_cannot_escape(open: Open<'_>, root: &Path) {
    let driver = open(root, &[]);
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b"] {
        assert!(matches!(driver.create(name, None), Err(Error::Name(_))), "{name:?}");
        assert!(matches!(driver.destroy(name), Err(Error::Name(_))), "{name:?}");
    }
}
