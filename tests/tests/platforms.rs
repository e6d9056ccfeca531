//! Images for several platforms under one name: from registries and archives, in lists, and out again.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::process::Command;

use serde_json::{Value, json};
use testkit::image::{self, Entry};
use testkit::registry::{Registry, digest};
use testkit::{Bed, Client, Response};
use tests::{after, each_client, gzip, has, is_peer};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An architecture that this machine is not.
fn foreign() -> &'static str {
    if image::architecture() == "arm64" { "amd64" } else { "arm64" }
}

/// An index in a registry: images for this machine and for another, a statement about the first, and an image that is
/// not there to be had.
struct Multi {
    name: String,
    digest: String,
    /// Digests of the manifests: own, foreign, statement.
    manifests: [String; 3],
    /// IDs of the images: own, foreign.
    ids: [String; 2],
}

fn descriptor(manifest: &Value, architecture: &str) -> Value {
    let bytes = manifest.to_string();
    let os = if architecture == "unknown" { "unknown" } else { "linux" };
    json!({
        "mediaType": MANIFEST, "digest": digest(bytes.as_bytes()), "size": bytes.len(),
        "platform": { "architecture": architecture, "os": os },
    })
}

fn push_image(registry: &Registry, name: &str, architecture: &str, layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "created": "2024-01-01T00:00:00Z",
        "config": { "Cmd": ["cat", "/which"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": diff_ids.iter().map(|_| json!({ "created_by": format!("made for {architecture}") })).collect::<Vec<_>>(),
    })
    .to_string();
    registry.put_blob(name, config.as_bytes());
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let bytes = gzip(layer);
            registry.put_blob(name, &bytes);
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&bytes), "size": bytes.len(),
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config.as_bytes()), "size": config.len(),
        },
    });
    registry.put_manifest(name, &digest(manifest.to_string().as_bytes()), &manifest);
    manifest
}

fn push_statement(registry: &Registry, name: &str, about: &str) -> Value {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://slsa.dev/provenance/v0.2",
        "predicate": { "builder": { "id": "the test" } },
    })
    .to_string();
    registry.put_blob(name, statement.as_bytes());
    registry.put_blob(name, b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2 },
        "layers": [{
            "mediaType": "application/vnd.in-toto+json", "digest": digest(statement.as_bytes()), "size": statement.len(),
            "annotations": { "in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2" },
        }],
    });
    registry.put_manifest(name, &digest(manifest.to_string().as_bytes()), &manifest);
    let mut entry = descriptor(&manifest, "unknown");
    entry["annotations"] =
        json!({ "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": about });
    entry
}

/// `with_absent`: the index names an image for s390x as well, which the registry does not have.
fn multi(registry: &Registry, name: &str, tag: &str, with_absent: bool) -> Multi {
    let which = |text: &str| image::layer(&[Entry::file("which", 0o644, text)]);
    let busybox = image::busybox().layers.remove(0);
    let own = push_image(registry, name, image::architecture(), &[busybox, which("own")]);
    let other = push_image(registry, name, foreign(), &[which("foreign")]);
    let mut entries = vec![descriptor(&other, foreign()), descriptor(&own, image::architecture())];
    let own_digest = entries[1]["digest"].as_str().expect("digest").to_owned();
    entries.push(push_statement(registry, name, &own_digest));
    if with_absent {
        entries.push(json!({
            "mediaType": MANIFEST, "digest": digest(b"s390x"), "size": 9,
            "platform": { "architecture": "s390x", "os": "linux" },
        }));
    }
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let manifests = [own_digest, text(&entries[0]["digest"]), text(&entries[2]["digest"])];
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    let digest = registry.put_manifest(name, tag, &index);
    Multi {
        name: format!("{}/{name}:{tag}", registry.address()),
        digest,
        manifests,
        ids: [text(&own["config"]["digest"]), text(&other["config"]["digest"])],
    }
}

/// The newest version of the API.
#[track_caller]
fn get(bed: &Bed, path: &str) -> Response {
    bed.http().exchange("GET", &format!("/v1.55{path}"), "", &[]).expect("an answer")
}

fn platform(architecture: &str) -> String {
    format!("%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22{architecture}%22%7D")
}

#[test]
fn a_second_platform_joins_the_first() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", true);
    let name = &multi.name;
    let other = format!("linux/{}", foreign());
    each_client(&bed, |client, _| {
        has(
            bed.cli(client, &["pull", name]).ok(),
            &[&format!("Digest: {}", multi.digest), "Downloaded newer image"],
        );
        assert_eq!(bed.cli(client, &["run", "--rm", name]).ok(), "own");
        let absent = format!(
            "image with reference {name} was found but does not provide the specified platform ({other})"
        );
        has(bed.cli(client, &["image", "inspect", "--platform", &other, name]).fails(1), &[&absent]);
        has(bed.cli(client, &["create", "--pull", "never", "--platform", &other, name]).fails(1), &[&absent]);
        // It is fetched when it is needed, and nothing else is.
        registry.asked();
        has(bed.cli(client, &["pull", "--platform", &other, name]).ok(), &["Downloaded newer image"]);
        let blobs = registry.asked().into_iter().filter(|one| one.path.contains("/blobs/")).count();
        assert_eq!(blobs, 2, "a configuration and a layer");
        has(bed.cli(client, &["pull", "--platform", &other, name]).ok(), &["Image is up to date"]);
        has(bed.cli(client, &["pull", name]).ok(), &["Image is up to date"]);
        let architecture = |more: &[&str]| {
            let line =
                [&["image", "inspect", "-f", "{{.Architecture}} {{.Id}}"], more, &[name.as_str()]].concat();
            bed.cli(client, &line).ok().to_owned()
        };
        assert_eq!(architecture(&[]), format!("{} {}", image::architecture(), multi.ids[0]));
        assert_eq!(architecture(&["--platform", &other]), format!("{} {}", foreign(), multi.ids[1]));
        let history = bed.cli(client, &["history", "--platform", &other, "--format", "{{.CreatedBy}}", name]);
        assert_eq!(history.ok(), format!("made for {}", foreign()));
        // A container of the other platform is made of the other image, and so is what is made of it.
        let id = bed.cli(client, &["create", "--platform", &other, name]).ok().to_owned();
        assert_eq!(bed.inspect(&id)["Image"], json!(multi.ids[1]));
        bed.cli(client, &["commit", &id, "made"]).ok();
        assert_eq!(bed.run(&["image", "inspect", "-f", "{{.Architecture}}", "made"]).ok(), foreign());
        bed.cli(client, &["rmi", "made"]).ok();
        has(bed.cli(client, &["rmi", name]).fails(1), &["is using its referenced image"]);
        bed.cli(client, &["rm", &id]).ok();
        let removed = bed.cli(client, &["rmi", name]);
        has(removed.ok(), &[&format!("Deleted: {}", multi.ids[0]), &format!("Deleted: {}", multi.ids[1])]);
    });
    assert_eq!(get(&bed, "/images/json?all=1").json(), json!([]));
    has(bed.run(&["system", "check"]).ok(), &["Checked 0 images, 0 indexes, 0 blobs", "everything is whole"]);
}

#[test]
fn what_the_api_tells_of_platforms() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", true);
    let name = &multi.name;
    bed.run(&["pull", name]).ok();
    let user = bed.run(&["create", name]).ok().to_owned();
    let list = get(&bed, "/images/json?manifests=1&shared-size=1").expect(200).json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!((&list[0]["Id"], &list[0]["SharedSize"]), (&json!(multi.ids[0]), &json!(0)));
    assert_eq!(
        (&list[0]["Descriptor"]["digest"], &list[0]["Descriptor"]["mediaType"]),
        (&json!(multi.digest), &json!(INDEX))
    );
    let manifests = &list[0]["Manifests"];
    let told: Vec<_> =
        manifests.as_array().into_iter().flatten().map(|one| (&one["Kind"], &one["Available"])).collect();
    let (image, attestation) = (json!("image"), json!("attestation"));
    assert_eq!(
        told,
        [
            (&image, &json!(false)),
            (&image, &json!(true)),
            (&attestation, &json!(true)),
            (&image, &json!(false))
        ]
    );
    let own = &manifests[1];
    assert_eq!(own["ID"], json!(multi.manifests[0]));
    assert_eq!(own["ImageData"]["Platform"], json!({ "os": "linux", "architecture": image::architecture() }));
    assert_eq!(own["ImageData"]["Containers"], json!([user]));
    let number = |value: &Value| value.as_i64().expect("a number");
    assert_eq!(
        number(&own["Size"]["Total"]),
        number(&own["Size"]["Content"]) + number(&own["ImageData"]["Size"]["Unpacked"])
    );
    assert_eq!(manifests[2]["AttestationData"], json!({ "For": multi.manifests[0] }));
    assert!(manifests[2].get("ImageData").is_none() && number(&manifests[2]["Size"]["Content"]) > 0);
    assert_eq!(manifests[0]["Size"], json!({ "Total": 0, "Content": 0 }));
    assert!(get(&bed, "/images/json").json()[0].get("Manifests").is_none());
    // Inspection, and what versions of the API know.
    let path = format!("/images/{name}/json");
    let inspected = get(&bed, &format!("{path}?manifests=1")).expect(200).json();
    assert_eq!(&inspected["Manifests"], manifests);
    assert_eq!(
        inspected["RepoDigests"],
        json!([format!("{}@{}", name.trim_end_matches(":1"), multi.digest)])
    );
    let both = format!("{path}?manifests=1&platform={}", platform(image::architecture()));
    has(&get(&bed, &both).refused(400), &["manifests and platform options cannot both be set"]);
    has(
        &get(&bed, &format!("{path}?platform=%7B%22os%22%3A%22linux%22%7D")).refused(400),
        &["both OS and Architecture must be provided"],
    );
    has(&get(&bed, &format!("{path}?platform=linux")).refused(400), &["failed to parse platform"]);
    let old = |path: &str| {
        let answer = bed.http().exchange("GET", path, "", &[]).expect("an answer");
        serde_json::from_slice::<Value>(&answer.body).expect("JSON")
    };
    assert!(old(&format!("/v1.47{path}?manifests=1")).get("Descriptor").is_none());
    assert!(old("/v1.46/images/json?manifests=1")[0].get("Manifests").is_none());
    assert_eq!(old("/v1.47/images/json?manifests=1")[0]["Manifests"].as_array().map(Vec::len), Some(4));
    // Statements.
    let path = format!("/images/{name}/attestations");
    let found = get(&bed, &path).expect(200).json();
    assert_eq!(found.as_array().map(Vec::len), Some(1));
    assert_eq!(found[0]["PredicateType"], json!("https://slsa.dev/provenance/v0.2"));
    assert!(
        found[0].get("Statement").is_none()
            && found[0]["Descriptor"]["mediaType"] == "application/vnd.in-toto+json"
    );
    let found =
        get(&bed, &format!("{path}?statement=1&type=https%3A%2F%2Fslsa.dev%2Fprovenance%2Fv0.2")).json();
    assert_eq!(found[0]["Statement"]["predicate"]["builder"]["id"], json!("the test"));
    assert_eq!(get(&bed, &format!("{path}?type=other")).json(), json!([]));
    has(
        &get(&bed, &format!("{path}?platform={}", platform("s390x"))).refused(404),
        &["does not provide the specified platform"],
    );
    let answer = bed.http().exchange("GET", &format!("/v1.54{path}"), "", &[]).expect("an answer");
    assert_eq!(answer.status, 400);
    has(&answer.text(), &["requires minimum API version 1.55"]);
}

#[test]
fn an_image_says_where_registries_have_it() {
    if is_peer() {
        return;
    }
    let bed = Bed::new();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", false);
    let name = &multi.name;
    bed.run(&["pull", name]).ok();
    bed.run(&["pull", "--platform", &format!("linux/{}", foreign()), name]).ok();
    let identity = |repositories: &[&str]| {
        let pull: Vec<Value> = repositories
            .iter()
            .map(|repository| json!({ "Repository": format!("{}/{repository}", registry.address()) }))
            .collect();
        json!({ "Pull": pull })
    };
    let ask = |version: &str, path: &str| {
        bed.http()
            .exchange("GET", &format!("/v{version}{path}"), "", &[])
            .expect("an answer")
            .expect(200)
            .json()
    };
    let path = format!("/images/{name}/json");
    assert_eq!(ask("1.55", &path)["Identity"], identity(&["lib/multi"]));
    assert!(ask("1.52", &path).get("Identity").is_none());
    // Another name does not change it, another repository of a registry does.
    let moved = format!("{}/moved:1", registry.address());
    bed.run(&["tag", name, &moved]).ok();
    assert_eq!(ask("1.53", &path)["Identity"], identity(&["lib/multi"]));
    bed.run(&["push", &moved]).ok();
    let both = identity(&["lib/multi", "moved"]);
    assert_eq!(ask("1.53", &path)["Identity"], both);
    // Lists tell it with each image of a name, where it is asked for; statements have none.
    let of = |version: &str, query: &str| -> Vec<Option<Value>> {
        let list =
            ask(version, &format!("/images/json?filters=%7B%22reference%22%3A%5B%22{name}%22%5D%7D&{query}"));
        let manifests = list[0]["Manifests"].as_array().cloned().unwrap_or_default();
        manifests.iter().map(|one| one["ImageData"].get("Identity").cloned()).collect()
    };
    assert_eq!(of("1.54", "manifests=1&identity=1"), [Some(both.clone()), Some(both), None]);
    assert_eq!(of("1.54", "manifests=1"), [None, None, None]);
    assert_eq!(of("1.53", "manifests=1&identity=1"), [None, None, None]);
    assert!(of("1.54", "identity=1").is_empty());
    // What came from no registry says nothing.
    let loaded = ask("1.55", "/images/busybox/json");
    assert!(loaded["Id"].is_string() && loaded.get("Identity").is_none());
}

#[test]
fn containers_tell_the_manifest_that_they_are_made_of() {
    if is_peer() {
        return;
    }
    let mut bed = Bed::new();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", true);
    let (name, other) = (&multi.name, format!("linux/{}", foreign()));
    bed.run(&["pull", name]).ok();
    bed.run(&["pull", "--platform", &other, name]).ok();
    let own = bed.run(&["create", name]).ok().to_owned();
    let foreign_one = bed.run(&["create", "--platform", &other, name]).ok().to_owned();
    let loaded = bed.run(&["create", "busybox"]).ok().to_owned();
    bed.kill();
    bed.start();
    let list = get(&bed, "/containers/json?all=1").expect(200).json();
    let told = |id: &str| {
        let inspected = get(&bed, &format!("/containers/{id}/json")).expect(200).json();
        let listed = list.as_array().into_iter().flatten().find(|one| one["Id"] == id).expect("in the list");
        assert_eq!(listed["ImageManifestDescriptor"], inspected["ImageManifestDescriptor"]);
        inspected["ImageManifestDescriptor"].clone()
    };
    for (id, manifest, architecture) in
        [(&own, &multi.manifests[0], image::architecture()), (&foreign_one, &multi.manifests[1], foreign())]
    {
        let told = told(id);
        assert!(told["size"].as_i64().is_some_and(|size| size > 200), "{told}");
        let expected = json!({
            "mediaType": MANIFEST, "digest": manifest, "size": told["size"],
            "platform": { "architecture": architecture, "os": "linux" },
        });
        assert_eq!(told, expected);
    }
    // An image without an index has its own manifest, and the platform of its configuration.
    let told = told(&loaded);
    let described = get(&bed, "/images/busybox/json").expect(200).json()["Descriptor"].clone();
    assert_eq!((&told["digest"], &told["size"]), (&described["digest"], &described["size"]));
    assert_eq!(told["platform"], json!({ "architecture": image::architecture(), "os": "linux" }));
    // Versions that knew nothing of it, and the list of what is stored.
    let silent = |path: &str, pointer: &str| {
        let answer = bed.http().exchange("GET", path, "", &[]).expect("an answer").expect(200).json();
        let container = answer.pointer(pointer).unwrap_or_else(|| panic!("{path}: {answer}"));
        assert!(
            container["Id"].is_string() && container.get("ImageManifestDescriptor").is_none(),
            "{container}"
        );
    };
    silent(&format!("/v1.47/containers/{own}/json"), "");
    silent("/v1.47/containers/json?all=1", "/0");
    silent("/v1.51/system/df", "/Containers/0");
    silent("/v1.55/system/df?verbose=1", "/ContainerUsage/Items/0");
}

#[test]
fn lists_for_people_and_for_programs() {
    if is_peer() {
        return;
    }
    let bed = Bed::new();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", false);
    bed.run(&["pull", &multi.name]).ok();
    bed.run(&["create", "--name", "user", "busybox"]).ok();
    let short = &multi.ids[0]["sha256:".len()..][..12];
    let ran = bed.run(&["images"]);
    let lines: Vec<&str> = ran.ok().lines().collect();
    assert_eq!((lines[0].trim(), lines[1]), ("Info ->  U In Use", ""));
    let lines = &lines[2..];
    assert!(
        lines[0].starts_with("IMAGE ")
            && lines[0].ends_with("ID             DISK USAGE   CONTENT SIZE   EXTRA"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 3);
    assert!(lines[1].starts_with(&format!("{}   {short}", multi.name)), "{lines:?}");
    assert!(lines[2].starts_with("busybox:latest ") && lines[2].ends_with("U"), "{lines:?}");
    has(&ran.stderr, &["WARNING: This output is designed for human readability."]);
    let tree = bed.run(&["images", "--tree"]);
    has(tree.ok(), &[&format!("├─ linux/{}", foreign()), &format!("└─ linux/{}", image::architecture())]);
    each_client(&bed, |client, _| {
        let tree = bed.cli(client, &["images", "--tree"]);
        has(tree.ok(), &[&format!("├─ linux/{}", foreign()), &multi.name, &short[..12]]);
    });
    has(bed.run(&["images", "--tree", "-q"]).fails(1), &["--quiet is not yet supported with --tree"]);
    let digests = bed.run(&["images", "--digests", "lib/multi"]);
    assert_eq!(digests.ok().lines().count(), 1, "the name is of another registry");
    let repository = multi.name.trim_end_matches(":1");
    let digests = bed.run(&["images", "--digests", repository]);
    has(digests.ok(), &["REPOSITORY", "DIGEST", &multi.digest, "1"]);
    assert_eq!(bed.run(&["images", "-q", "--no-trunc", repository]).ok(), multi.ids[0]);
    for (filter, count) in [
        ("before=busybox", 0),
        ("since=busybox", 0),
        ("dangling=true", 0),
        ("dangling=false", 2),
        ("label=nothing", 0),
        ("label!=nothing", 2),
        ("reference=busy*", 1),
        ("until=2020-01-01", 0),
        ("until=2025-01-01T00:00:00", 2),
    ] {
        each_client(&bed, |client, _| {
            let ran = bed.cli(client, &["images", "-q", "--filter", filter]);
            assert_eq!(ran.ok().lines().count(), count, "{filter}");
        });
    }
    bed.run(&["rm", "user"]).ok();
}

#[test]
fn pulls_of_several_platforms_at_once_all_count() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", false);
    let own = format!("linux/{}", image::architecture());
    let other = format!("linux/{}", foreign());
    for _ in 0..4 {
        std::thread::scope(|scope| {
            for platform in [&own, &other, &own, &other] {
                let (bed, name) = (&bed, &multi.name);
                scope.spawn(move || bed.run(&["pull", "-q", "--platform", platform, name]).ok().to_owned());
            }
        });
        for (platform, id) in [(&own, &multi.ids[0]), (&other, &multi.ids[1])] {
            let line = ["image", "inspect", "--platform", platform, "-f", "{{.Id}}", multi.name.as_str()];
            assert_eq!(bed.run(&line).ok(), id);
        }
        has(bed.run(&["system", "check"]).ok(), &["Checked 2 images, 1 index", "everything is whole"]);
        bed.run(&["rmi", &multi.name]).ok();
        has(bed.run(&["system", "check"]).ok(), &["Checked 0 images, 0 indexes, 0 blobs of 0B, 0 layers"]);
    }
}

#[test]
fn builds_take_the_platform_that_they_are_for() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", false);
    let context = bed.folder("context");
    std::fs::write(context.join("Dockerfile"), format!("FROM {}\nCOPY more /more\n", multi.name))
        .expect("file");
    std::fs::write(context.join("more"), "more").expect("file");
    let path = context.to_str().expect("path");
    for architecture in [image::architecture(), foreign(), image::architecture()] {
        let platform = format!("linux/{architecture}");
        let mut build = bed.command(Client::Own);
        build.env("DOCKER_BUILDKIT", "0").args([
            "build",
            "-q",
            "--platform",
            &platform,
            "-t",
            architecture,
            path,
        ]);
        testkit::run(&mut build).ok();
        let built =
            bed.run(&["image", "inspect", "-f", "{{.Architecture}} {{len .RootFS.Layers}}", architecture]);
        let layers = if architecture == foreign() { 2 } else { 3 };
        assert_eq!(built.ok(), format!("{architecture} {layers}"));
    }
    has(bed.run(&["system", "check"]).ok(), &["everything is whole"]);
}

#[test]
fn platforms_come_and_go_one_by_one() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", false);
    let (name, other) = (&multi.name, format!("linux/{}", foreign()));
    bed.run(&["pull", name]).ok();
    bed.run(&["pull", "--platform", &other, name]).ok();
    let absent = bed.run(&["image", "rm", "--platform", "linux/s390x", name]);
    has(absent.fails(1), &["does not provide the specified platform (linux/s390x)"]);
    let id = bed.run(&["run", "-d", name, "sleep", "100"]).ok().to_owned();
    let own = format!("linux/{}", image::architecture());
    has(
        bed.run(&["image", "rm", "--platform", &own, name]).fails(1),
        &["image is being used by running container"],
    );
    each_client(&bed, |client, _| {
        let removed = bed.cli(client, &["image", "rm", "--platform", &other, name]);
        has(removed.ok(), &[&format!("Deleted: {}", multi.ids[1])]);
        bed.cli(client, &["pull", "-q", "--platform", &other, name]).ok();
    });
    bed.run(&["image", "rm", "--platform", &other, name]).ok();
    assert_eq!(bed.run(&["run", "--rm", name]).ok(), "own");
    has(bed.run(&["system", "check"]).ok(), &["Checked 1 image, 1 index", "everything is whole"]);
    bed.run(&["rm", "-f", &id]).ok();
    // With the last platform goes the name.
    has(bed.run(&["image", "rm", "--platform", &own, name]).ok(), &[&format!("Untagged: {name}")]);
    assert_eq!(get(&bed, "/images/json?all=1").json(), json!([]));
}

#[test]
fn archives_carry_every_platform() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", true);
    let (name, other) = (&multi.name, format!("linux/{}", foreign()));
    bed.run(&["pull", name]).ok();
    bed.run(&["pull", "--platform", &other, name]).ok();
    let folder = bed.folder("saved");
    let (all, one) = (folder.join("all.tar"), folder.join("one.tar"));
    let (all, one) = (all.to_str().expect("path"), one.to_str().expect("path"));
    let both = format!("{other},linux/{}", image::architecture());
    for line in [&["save", "-o", all, name][..], &["save", "--platform", &both, "-o", all, name]] {
        bed.run(line).ok();
        bed.run(&["rmi", name]).ok();
        has(bed.run(&["load", "-i", all]).ok(), &[&format!("Loaded image: {name}")]);
        let found = get(&bed, &format!("/images/{name}/json")).expect(200).json();
        assert_eq!(found["Descriptor"]["digest"], json!(multi.digest));
        bed.run(&["image", "inspect", "--platform", &other, name]).ok();
        assert_eq!(
            get(&bed, &format!("/images/{name}/attestations")).json().as_array().map(Vec::len),
            Some(1)
        );
    }
    has(
        bed.run(&["save", "--platform", "linux/s390x", "-o", one, name]).fails(1),
        &["does not provide the specified platform"],
    );
    each_client(&bed, |client, _| {
        bed.run(&["load", "-i", all]).ok();
        bed.cli(client, &["save", "--platform", &other, "-o", one, name]).ok();
        bed.run(&["rmi", name]).ok();
        bed.cli(client, &["load", "-i", one]).ok();
        let found = get(&bed, &format!("/images/{name}/json")).expect(200).json();
        assert_eq!(
            (&found["Id"], &found["Descriptor"]["digest"]),
            (&json!(multi.ids[1]), &json!(multi.manifests[1]))
        );
        bed.run(&["rmi", name]).ok();
        bed.cli(client, &["load", "--platform", &other, "-i", all]).ok();
        assert_eq!(get(&bed, &format!("/images/{name}/json")).json()["Id"], json!(multi.ids[1]));
        bed.run(&["rmi", name]).ok();
    });
    bed.run(&["load", "--platform", &other, "-i", all]).ok();
    assert_eq!(get(&bed, &format!("/images/{name}/json")).json()["Id"], json!(multi.ids[1]));
    has(
        bed.run(&["load", "--platform", "linux/s390x", "-i", all]).fails(1),
        &["does not provide the specified platform (linux/s390x)"],
    );
    // The other half of the same index joins it.
    bed.run(&["load", "-i", all]).ok();
    assert_eq!(bed.run(&["run", "--rm", name]).ok(), "own");
    has(bed.run(&["system", "check"]).ok(), &["Checked 2 images, 1 index"]);
}

/// skopeo, where there is one, writes and reads what Corten reads and writes.
#[test]
fn skopeo_and_corten_read_each_others_archives() {
    if is_peer() || Command::new("skopeo").arg("--version").output().is_err() {
        println!("not here: skopeo");
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", false);
    let folder = bed.folder("skopeo");
    let path = folder.join("copied.tar");
    let archive = format!("oci-archive:{}:docker.io/lib/copied:1", path.display());
    let skopeo = |arguments: &[&str]| {
        testkit::run(bed.host().command("skopeo").arg("--insecure-policy").args(arguments))
    };
    let source = format!("docker://{}", multi.name);
    skopeo(&["copy", "--all", "--src-tls-verify=false", &source, &archive]).ok();
    has(bed.run(&["load", "-i", path.to_str().expect("path")]).ok(), &["Loaded image: lib/copied:1"]);
    bed.run(&["image", "inspect", "--platform", &format!("linux/{}", foreign()), "lib/copied:1"]).ok();
    assert_eq!(bed.run(&["run", "--rm", "lib/copied:1"]).ok(), "own");
    let saved = folder.join("saved.tar");
    bed.run(&["save", "-o", saved.to_str().expect("path"), "lib/copied:1"]).ok();
    let raw = skopeo(&["inspect", "--raw", &format!("oci-archive:{}", saved.display())]);
    has(raw.ok(), &[&multi.manifests[0], &multi.manifests[1]]);
}

#[test]
fn an_index_is_pushed_whole_or_one_of_its_images() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", false);
    let (name, other) = (&multi.name, format!("linux/{}", foreign()));
    let target = format!("{}/lib/target", registry.address());
    let tagged = format!("{target}:1");
    bed.run(&["pull", name]).ok();
    bed.run(&["tag", name, &tagged]).ok();
    each_client(&bed, |client, _| {
        // Only this machine's image is here, so it goes alone.
        registry.forget("lib/target");
        let pushed = bed.cli(client, &["push", &tagged]);
        has(
            pushed.ok(),
            &["The push refers to repository", &format!("1: digest: {} size:", multi.manifests[0])],
        );
        has(
            &pushed.stdout,
            &["Not all multiplatform-content is present", &multi.digest, &multi.manifests[0]],
        );
    });
    bed.run(&["pull", "--platform", &other, name]).ok();
    each_client(&bed, |client, _| {
        registry.forget("lib/target");
        let pushed = bed.cli(client, &["push", &tagged]);
        has(pushed.ok(), &["Mounted from lib/multi", &format!("1: digest: {} size:", multi.digest)]);
        let index = registry.manifest("lib/target", "1").expect("the index");
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(3), "with the statement");
        registry.forget("lib/target");
        let pushed = bed.cli(client, &["push", "--platform", &other, &tagged]);
        has(pushed.ok(), &[&format!("1: digest: {} size:", multi.manifests[1])]);
        has(
            &format!("{}{}", pushed.stdout, pushed.stderr),
            &["Using --platform pushes only the specified platform manifest"],
        );
        has(
            bed.cli(client, &["push", "--platform", "linux/s390x", &tagged]).fails(1),
            &["does not provide the specified platform"],
        );
    });
    // All tags of a repository.
    bed.run(&["tag", name, &format!("{target}:2")]).ok();
    registry.forget("lib/target");
    let pushed = bed.cli(Client::Own, &["push", "--all-tags", &target]);
    has(pushed.ok(), &[&format!("1: digest: {}", multi.digest), &format!("2: digest: {}", multi.digest)]);
    has(bed.run(&["push", "-a", &tagged]).fails(1), &["tag can't be used with --all-tags/-a"]);
    let found = get(&bed, &format!("/images/{tagged}/json")).json();
    assert!(found["RepoDigests"].to_string().contains(&format!("{target}@{}", multi.digest)), "{found}");
}

#[test]
fn indexes_are_made_and_looked_at_in_registries() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let multi = multi(&registry, "lib/multi", "1", false);
    // Without a daemon, from within the network that the registry is in.
    let imagetools = |arguments: &[&str]| {
        let mut command = bed.host().command(testkit::engine::program("corten"));
        testkit::run(command.args(["buildx", "imagetools"]).args(arguments))
    };
    let shown = imagetools(&["inspect", &multi.name]);
    let repository = multi.name.trim_end_matches(":1");
    has(
        shown.ok(),
        &[
            &format!("Name:      {}\nMediaType: {INDEX}\nDigest:    {}\n", multi.name, multi.digest),
            "\nManifests: \n",
            &format!(
                "  Name:      {}@{}\n  MediaType: {MANIFEST}\n  Platform:  linux/{}\n",
                multi.name,
                multi.manifests[1],
                foreign()
            ),
            "vnd.docker.reference.type:   attestation-manifest",
        ],
    );
    assert_eq!(digest(imagetools(&["inspect", "--raw", &multi.name]).stdout.as_bytes()), multi.digest);
    let format = |format: &str| imagetools(&["inspect", "--format", format, &multi.name]).ok().to_owned();
    assert_eq!(format("{{.Name}} {{.Manifest.digest}}"), format!("{} {}", multi.name, multi.digest));
    let images: Value = serde_json::from_str(&format("{{json .Image}}")).expect("JSON");
    assert_eq!(images[format!("linux/{}", foreign())]["architecture"], json!(foreign()));
    has(&format("{{json .Provenance}}"), &["the test"]);
    has(imagetools(&["inspect", &format!("{repository}:none")]).fails(1), &["no such manifest"]);
    // Of two images of one repository, into another one.
    let by_digest = |number: usize| format!("{repository}@{}", multi.manifests[number]);
    let target = format!("{}/lib/combined:1", registry.address());
    let dry = imagetools(&["create", "--dry-run", &by_digest(0), &by_digest(1)]);
    let index: Value = serde_json::from_str(dry.ok()).expect("JSON");
    assert_eq!(index["manifests"][1]["platform"]["architecture"], json!(foreign()));
    let made = imagetools(&["create", "-t", &target, "--annotation", "index:who=me", &by_digest(1)]);
    made.ok();
    has(&made.stderr, &["copying ", "pushing "]);
    let index = registry.manifest("lib/combined", "1").expect("the index");
    assert_eq!(
        (index["manifests"].as_array().map(Vec::len), &index["annotations"]["who"]),
        (Some(1), &json!("me"))
    );
    let described = bed.folder("imagetools").join("descriptor.json");
    std::fs::write(
        &described,
        json!({ "digest": multi.manifests[0], "annotations": { "a": "b" } }).to_string(),
    )
    .expect("file");
    let file = described.to_str().expect("path");
    has(
        imagetools(&["create", "-t", &target, "-f", file, &by_digest(1)]).fails(1),
        &["multiple repositories specified, cannot infer repository"],
    );
    imagetools(&["create", "-t", &target, "--append", &by_digest(0)]).ok();
    let index = registry.manifest("lib/combined", "1").expect("the index");
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
    // And what was made can be pulled.
    bed.run(&["pull", &target]).ok();
    assert_eq!(bed.run(&["run", "--rm", &target]).ok(), "own");
    for (line, text) in [
        (&["create"][..], "no sources specified"),
        (&["create", &multi.name], "can't push with no tags specified, please set --tag or --dry-run"),
        (&["create", "--dry-run", "sha256:x"], "valid sources are digests, references and descriptors"),
        (
            &["create", "--dry-run", "--annotation", "a=b", &multi.name],
            "\"manifest\" annotations are not supported yet",
        ),
    ] {
        has(imagetools(line).fails(1), &[text]);
    }
    has(bed.run(&["buildx", "ls"]).fails(1), &["'buildx ls' is not supported yet"]);
    let head = after(shown.ok(), "Digest:");
    assert!(head.contains(&multi.digest));
}
