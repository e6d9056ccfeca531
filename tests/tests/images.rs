//! Images: load, list, inspect, tag, save, remove; and archives that want harm.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;

use serde_json::json;
use testkit::image::{self, Entry, Image, Kind};
use testkit::{Bed, Client};
use tests::{each_client, has, is_corten};

#[test]
fn load_from_a_file_and_from_standard_input() {
    let bed = Bed::empty();
    let archive = image::busybox().archive();
    let path = image::write_archive(&bed.folder("archive"), "busybox.tar", &archive);
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["load", "-i", path.to_str().expect("path")]);
        assert_eq!(ran.ok(), "Loaded image: busybox:latest");
        assert_eq!(bed.cli(client, &["images", "-q"]).ok().lines().count(), 1, "the same image twice is one");
    });
    let ran = bed.run_with_input(&["load", "-q"], &archive);
    assert_eq!(ran.ok(), "Loaded image: busybox:latest");
}

#[test]
fn compressed_archives_load_too() {
    let bed = Bed::empty();
    let folder = bed.folder("archive");
    let plain = image::write_archive(&folder, "busybox.tar", &image::busybox().archive());
    for program in ["gzip", "zstd", "xz", "bzip2"] {
        let packed = std::process::Command::new(program).arg("-c").arg(&plain).output();
        let Ok(packed) = packed else { continue };
        // Docker of old knows no zstd.
        if program == "zstd" && !is_corten(&bed) {
            continue;
        }
        bed.load_archive(&packed.stdout).expect(200);
        assert_eq!(bed.run(&["run", "--rm", "busybox", "echo", program]).ok(), program);
        bed.run(&["rmi", "busybox"]).ok();
    }
}

#[test]
fn list_and_inspect() {
    let bed = Bed::new();
    bed.load(
        &Image::new("other:1.2", &[Entry::file("x", 0o644, "x")]).with("Labels", json!({ "kind": "test" })),
    );
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let mut names: Vec<_> = ran.ok().lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["busybox:latest", "other:1.2"]);
        let ran = bed.cli(client, &["images", "-q", "--filter", "reference=other"]);
        assert_eq!(ran.ok().lines().count(), 1);
        let ran = bed.cli(
            client,
            &[
                "image",
                "inspect",
                "-f",
                "{{.Os}} {{.Architecture}} {{index .Config.Labels \"kind\"}}",
                "other:1.2",
            ],
        );
        assert_eq!(ran.ok(), format!("linux {} test", image::architecture()));
    });
    let found = bed.http().get("/images/busybox/json").expect(200).json();
    assert_eq!(found["RepoTags"], json!(["busybox:latest"]));
    assert_eq!(found["Config"]["Cmd"], json!(["sh"]));
    assert_eq!(found["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    let id = found["Id"].as_str().expect("id").trim_start_matches("sha256:").to_owned();
    for name in [&id[..12], id.as_str(), "busybox:latest", "docker.io/library/busybox", "library/busybox"] {
        assert_eq!(
            bed.http().get(&format!("/images/{name}/json")).expect(200).json()["Id"],
            found["Id"],
            "{name}"
        );
    }
    let refusal = bed.http().get("/images/nosuch/json").refused(404);
    has(&refusal, &["No such image: nosuch"]);
    let filters = "/images/json?filters=%7B%22label%22%3A%5B%22kind%3Dtest%22%5D%7D";
    assert_eq!(bed.http().get(filters).json().as_array().map(Vec::len), Some(1));
}

#[test]
fn tags_are_names() {
    let bed = Bed::new();
    each_client(&bed, |client, name| {
        let tag = format!("registry.example:5000/team/{name}:v1");
        bed.cli(client, &["tag", "busybox", &tag]).ok();
        assert_eq!(bed.cli(client, &["run", "--rm", &tag, "echo", "hi"]).ok(), "hi");
        let ran = bed.cli(client, &["rmi", &tag]);
        assert_eq!(ran.ok(), format!("Untagged: {tag}"), "another name still holds it");
    });
    let status = if is_corten(&bed) { 400 } else { 500 };
    let refusal = bed.http().act("/images/busybox/tag?repo=UPPER&tag=x").refused(status);
    has(&refusal, &["invalid reference format"]);
    has(&bed.http().act("/images/nosuch/tag?repo=a&tag=b").refused(404), &["No such image: nosuch"]);
}

#[test]
fn removal_is_refused_while_it_is_used() {
    let bed = Bed::new();
    let id = bed.http().get("/images/busybox/json").json()["Id"].as_str().expect("id").to_owned();
    bed.run(&["run", "-d", "--name", "user", "busybox", "sleep", "1000"]).ok();
    let container = bed.inspect("user")["Id"].as_str().expect("id")[..12].to_owned();
    let short = &id["sha256:".len()..][..12];
    let text = bed.http().delete("/images/busybox").refused(409);
    has(
        &text,
        &[&format!(
            "conflict: unable to remove repository reference \"busybox\" (must force) - container {container} is using \
             its referenced image {short}"
        )],
    );
    let text = bed.http().delete(&format!("/images/{id}?force=1")).refused(409);
    has(
        &text,
        &[
            "conflict: unable to delete",
            "(cannot be forced) - image is being used by running container",
            &container,
        ],
    );
    bed.run(&["kill", "user"]).ok();
    bed.run(&["wait", "user"]).ok();
    let text = bed.http().delete(&format!("/images/{id}")).refused(409);
    has(&text, &["(must be forced) - image is being used by stopped container", &container]);
    bed.run(&["rm", "user"]).ok();
    let ran = bed.run(&["rmi", "busybox"]);
    has(ran.ok(), &["Untagged: busybox:latest", "Deleted: sha256:"]);
    has(&bed.http().delete("/images/busybox").refused(404), &["No such image: busybox"]);
    assert_eq!(bed.http().get("/images/json").json(), json!([]));
}

#[test]
fn saved_images_load_again() {
    let bed = Bed::new();
    bed.run(&["tag", "busybox", "second:tag"]).ok();
    let before = bed.http().get("/images/busybox/json").json()["RootFS"].clone();
    each_client(&bed, |client, name| {
        let path = bed.folder("saved").join(name);
        let path = path.to_str().expect("path");
        bed.cli(client, &["save", "-o", path, "busybox", "second:tag"]).ok();
        bed.cli(client, &["rmi", "busybox", "second:tag"]).ok();
        let ran = bed.cli(client, &["load", "-i", path]);
        has(ran.ok(), &["Loaded image: busybox:latest", "Loaded image: second:tag"]);
        assert_eq!(bed.http().get("/images/busybox/json").json()["RootFS"], before);
        assert_eq!(bed.cli(client, &["run", "--rm", "second:tag", "echo", "back"]).ok(), "back");
    });
}

#[test]
fn layers_are_laid_over_each_other() {
    let bed = Bed::empty();
    let base = [
        Entry::folder("kept", 0o755),
        Entry::file("kept/a", 0o644, "a"),
        Entry::file("kept/gone", 0o644, "gone"),
        Entry::folder("opaque", 0o755),
        Entry::file("opaque/below", 0o644, "below"),
        Entry::file("changed", 0o600, "old"),
        Entry::file("was-file", 0o644, "file"),
    ];
    let over = [
        Entry::folder("kept", 0o700),
        Entry::file("kept/.wh.gone", 0o644, ""),
        Entry::file("opaque/.wh..wh..opq", 0o644, ""),
        Entry::file("opaque/above", 0o644, "above"),
        Entry::file("changed", 0o640, "new").owned(5, 6),
        Entry::folder("was-file", 0o755),
        Entry { mode: 0o640, ..Entry::hardlink("linked", "changed").owned(5, 6) },
    ];
    let mut busybox = image::busybox();
    busybox.name = "layered:latest".to_owned();
    bed.load(&busybox.with_layer(&base).with_layer(&over));
    let script = "ls /kept /opaque; cat /changed; stat -c '%a %u %g %h' /changed /linked; stat -c %a /kept; test -d /was-file && echo dir";
    let ran = bed.run(&["run", "--rm", "layered", "sh", "-c", script]);
    assert_eq!(ran.ok(), "/kept:\na\n\n/opaque:\nabove\nnew640 5 6 2\n640 5 6 2\n700\ndir");
}

#[test]
fn history_and_digests() {
    let bed = Bed::new();
    let history = bed.http().get("/images/busybox/history").expect(200).json();
    assert_eq!(history.as_array().map(Vec::len), Some(1));
    assert_eq!(history[0]["CreatedBy"], json!("testkit"));
    each_client(&bed, |client, _| has(bed.cli(client, &["history", "busybox"]).ok(), &["testkit"]));
}

#[test]
fn an_unknown_image_is_named() {
    let bed = Bed::empty();
    let text = bed.http().post("/containers/create", &json!({ "Image": "nosuch:tag" })).refused(404);
    assert_eq!(text, "No such image: nosuch:tag");
    each_client(&bed, |client, _| {
        let ran = bed.cli(client, &["run", "--rm", "--pull", "never", "nosuch:tag"]);
        has(ran.fails(125), &["No such image: nosuch:tag"]);
    });
}

/// A file outside of any image that no archive may reach.
fn victim(bed: &Bed) -> std::path::PathBuf {
    let path = bed.folder("victim").join("file");
    fs::write(&path, "untouched").expect("victim");
    path
}

#[test]
fn archives_cannot_reach_outside() {
    let bed = Bed::new();
    let victim = victim(&bed);
    let folder = victim.parent().expect("folder").to_str().expect("path").to_owned();
    let name = victim.to_str().expect("path");
    let climbing = format!("../../../../../../../../../../{name}");
    let hostile: Vec<(&str, Vec<Entry>)> = vec![
        ("absolute", vec![Entry::file(name, 0o644, "hit")]),
        ("climbing", vec![Entry::file(&climbing, 0o644, "hit")]),
        ("through-link", vec![Entry::symlink("out", &folder), Entry::file("out/file", 0o644, "hit")]),
        (
            "link-chain",
            vec![
                Entry::symlink("a", ".."),
                Entry::symlink("b", "a/../../../../../../../.."),
                Entry::file(&format!("b{name}"), 0o644, "hit"),
            ],
        ),
        ("hardlink", vec![Entry::hardlink("grab", name), Entry::file("grab", 0o644, "hit")]),
        ("hardlink-climbing", vec![Entry::hardlink("grab", &climbing), Entry::file("grab", 0o644, "hit")]),
        (
            "hardlink-through-link",
            vec![
                Entry::symlink("out", &folder),
                Entry::hardlink("grab", "out/file"),
                Entry::file("grab", 0o644, "hit"),
            ],
        ),
        ("whiteout-outside", vec![Entry::symlink("out", &folder), Entry::file("out/.wh.file", 0o644, "")]),
        (
            "whiteout-climbing",
            vec![Entry::file(&format!("../../../../../../..{folder}/.wh.file"), 0o644, "")],
        ),
        ("opaque-outside", vec![Entry::symlink("out", &folder), Entry::file("out/.wh..wh..opq", 0o644, "")]),
        ("whiteout-of-dots", vec![Entry::file(".wh...", 0o644, ""), Entry::file(".wh..", 0o644, "")]),
        ("root-is-link", vec![Entry::symlink("./", &folder), Entry::file("file", 0o644, "hit")]),
    ];
    for (name, entries) in hostile {
        // In one layer, and with the first entry in a layer below.
        let one = Image::new(&format!("{name}:one"), &entries);
        let two = Image::new(&format!("{name}:two"), &entries[..1]).with_layer(&entries[1..]);
        for image in [one, two] {
            let answer = bed.load_archive(&image.archive());
            assert_eq!(fs::read_to_string(&victim).ok().as_deref(), Some("untouched"), "{name}: {answer:?}");
            assert!(
                answer.status < 600 && bed.http().get("/_ping").status == 200,
                "{name}: the daemon lives"
            );
        }
    }
    assert_eq!(bed.run(&["run", "--rm", "busybox", "echo", "fine"]).ok(), "fine");
}

#[test]
fn broken_archives_are_refused() {
    let bed = Bed::empty();
    let good = image::busybox().archive();
    let manifest = |text: &str| image::layer(&[Entry::file("manifest.json", 0o644, text)]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("noise", vec![0x5a; 4096]),
        ("half", good[..good.len() / 2].to_vec()),
        ("no manifest", image::layer(&[Entry::file("x", 0o644, "x")])),
        ("manifest is no JSON", manifest("{")),
        (
            "manifest names nothing",
            manifest(r#"[{"Config":"nosuch.json","RepoTags":["a:b"],"Layers":["nosuch/layer.tar"]}]"#),
        ),
        (
            "manifest climbs",
            manifest(r#"[{"Config":"../../../../etc/passwd","RepoTags":["a:b"],"Layers":["/etc/passwd"]}]"#),
        ),
        ("manifest is a link", image::layer(&[Entry::symlink("manifest.json", "/etc/passwd")])),
    ];
    for (name, archive) in cases {
        let answer = bed.load_archive(&archive);
        let refused = answer.status >= 400 || answer.text().contains("error");
        // An empty body is no error to some; it must load nothing.
        assert!(refused || name == "empty" || name == "no manifest", "{name}: {answer:?}");
        assert_eq!(bed.http().get("/images/json").json(), json!([]), "{name} left an image");
    }
    bed.load_archive(&good).expect(200);
    assert_eq!(bed.run(&["run", "--rm", "busybox", "echo", "fine"]).ok(), "fine");
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let bed = Bed::empty();
    let image = Image::new("lying:latest", &[Entry::file("x", 0o644, "honest")]);
    let archive = image.archive();
    let text = b"honest";
    let at = archive.windows(text.len()).position(|window| window == text).expect("the file's bytes");
    let mut forged = archive.clone();
    forged[at..at + text.len()].copy_from_slice(b"forged");
    let answer = bed.load_archive(&forged);
    assert!(answer.status >= 400 || answer.text().contains("error"), "{answer:?}");
    assert_eq!(bed.http().get("/images/json").json(), json!([]));
}

#[test]
fn devices_and_set_user_id_come_as_they_are() {
    let bed = Bed::empty();
    let mut image = image::busybox();
    image.name = "special:latest".to_owned();
    let device = Entry {
        path: "nul".to_owned(),
        kind: Kind::Device { major: 1, minor: 3 },
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    bed.load(&image.with_layer(&[device, Entry::file("suid", 0o4755, "x"), Entry::folder("sticky", 0o1777)]));
    let ran = bed.run(&["run", "--rm", "special", "stat", "-c", "%F %a %t %T", "/nul", "/suid", "/sticky"]);
    assert_eq!(ran.ok(), "character special file 666 1 3\nregular file 4755 0 0\ndirectory 1777 0 0");
}

#[test]
fn dangling_images_are_pruned() {
    let bed = Bed::new();
    bed.load(&Image::new("busybox:latest", &[Entry::file("new", 0o644, "new")]));
    let list = bed.http().get("/images/json").json();
    let tags: Vec<_> = list.as_array().into_iter().flatten().map(|image| image["RepoTags"].clone()).collect();
    assert!(tags.contains(&json!(["busybox:latest"])), "{tags:?}");
    let ran = bed.cli(Client::Own, &["image", "prune", "-f"]);
    has(ran.ok(), &["Total reclaimed space"]);
    assert_eq!(bed.http().get("/images/json?all=1").json().as_array().map(Vec::len), Some(1));
}
