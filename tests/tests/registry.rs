//! Images from registries and to them: rightly, and from registries that lie, break off, or never end.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::image::{self, Entry};
use testkit::registry::{Fault, Pushed, Registry, digest};
use testkit::{Bed, BedOptions};
use tests::{each_client, gzip, has, is_peer};

/// A layer as it is sent, and its diff ID.
fn layer(entries: &[Entry]) -> (Vec<u8>, String) {
    let tar = image::layer(entries);
    (gzip(&tar), digest(&tar))
}

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

fn large(seed: u64, bytes: usize) -> (Vec<u8>, String) {
    layer(&[Entry::folder("data", 0o755), Entry::file(&format!("data/{seed}"), 0o644, noise(seed, bytes))])
}

fn small(registry: &Registry) -> Pushed {
    let layers =
        [layer(&[Entry::file("hello", 0o644, "hello")]), layer(&[Entry::file("more", 0o600, "more")])];
    registry.push("lib/small", "1", &layers, json!({ "Cmd": ["/hello"] }))
}

/// What a pull through the API says: the status and all of the answer.
fn pull(bed: &Bed, name: &str) -> (u16, String) {
    let (image, tag) = name.rsplit_once(':').unwrap();
    let answer = bed.http().act(&format!("/images/create?fromImage={image}&tag={tag}"));
    (answer.status, answer.text())
}

/// Digests of all blobs of the store, and how many layers are unpacked.
fn stored(bed: &Bed) -> (usize, usize) {
    let count = |path: &str| {
        let path = bed.host().folder().join("data").join(path);
        std::fs::read_dir(path).map_or(0, |entries| entries.count())
    };
    (count("content/blobs/sha256"), count("snapshots/overlay").saturating_sub(2))
}

#[test]
fn pulled_inspected_run_and_pulled_again() {
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let tar = image::busybox().layers.remove(0);
    let busybox = (gzip(&tar), digest(&tar));
    let extra = layer(&[Entry::file("etc/extra", 0o644, "from afar\n")]);
    let config = json!({ "Cmd": ["cat", "/etc/extra"], "Env": ["PATH=/bin"] });
    let pushed = registry.push("lib/web", "1", &[busybox, extra], config);
    let name = format!("{}/lib/web:1", registry.address());
    each_client(&bed, |client, _| {
        let said = bed.cli(client, &["pull", &name]);
        has(
            said.ok(),
            &[
                "1: Pulling from lib/web\n",
                ": Pulling fs layer\n",
                ": Verifying Checksum\n",
                ": Download complete\n",
                ": Pull complete\n",
                &format!("Digest: {}\n", pushed.digest),
                &format!("Status: Downloaded newer image for {name}\n{name}"),
            ],
        );
        let inspected = bed.http().get(&format!("/images/{name}/json")).expect(200).json();
        assert_eq!(inspected["RepoDigests"][0], format!("{}/lib/web@{}", registry.address(), pushed.digest));
        assert_eq!(bed.cli(client, &["run", "--rm", &name]).ok(), "from afar");
        // Nothing has changed: that takes one question.
        registry.asked();
        has(bed.cli(client, &["pull", &name]).ok(), &[&format!("Status: Image is up to date for {name}")]);
        let asked: Vec<_> = registry.asked().into_iter().map(|one| (one.method, one.path)).collect();
        assert_eq!(asked, [("HEAD".to_owned(), "/v2/lib/web/manifests/1".to_owned())]);
        assert_eq!(bed.cli(client, &["pull", "-q", &name]).ok(), name);
        bed.cli(client, &["rmi", &name]).ok();
        // A run brings in what is missing.
        let ran = bed.cli(client, &["run", "--rm", "-q", &name]);
        assert_eq!(ran.ok(), "from afar");
        let refused = bed.cli(client, &["run", "--rm", "--pull", "never", &format!("{name}x")]);
        has(refused.fails(125), &["No such image"]);
        let by_digest = format!("{}/lib/web@{}", registry.address(), pushed.digest);
        has(bed.cli(client, &["pull", &by_digest]).ok(), &["Image is up to date for"]);
        bed.cli(client, &["rmi", "-f", &name]).ok();
        bed.cli(client, &["rmi", "-f", &by_digest]);
    });
    assert!(is_peer() || stored(&bed).0 == 0, "{:?}", stored(&bed));
}

/// Who makes layers file by file often leaves the directories to those below; these come later on the way.
#[test]
fn directories_that_a_layer_does_not_carry_stay_as_they_are_below() {
    let tar = image::busybox().layers.remove(0);
    let below = [
        Entry::folder("srv", 0o750).owned(7, 8),
        Entry::folder("srv/deep", 0o1777).owned(9, 10),
        Entry::folder("opt", 0o700),
    ];
    let above = [
        Entry::file("srv/deep/new/file", 0o644, "x"),
        Entry::file("srv/file", 0o644, "x"),
        Entry::file("opt/file", 0o644, "x"),
        Entry::folder("opt", 0o711),
    ];
    for driver in ["overlay2", "vfs"] {
        let flags = vec!["--storage-driver".into(), driver.into()];
        let bed = Bed::with(BedOptions { flags, ..BedOptions::default() });
        let registry = Registry::start(bed.host());
        let layers = [(gzip(&tar), digest(&tar)), layer(&below), layer(&above)];
        registry.push("lib/sparse", "1", &layers, json!({ "Env": ["PATH=/bin"] }));
        let name = format!("{}/lib/sparse:1", registry.address());
        let look = |name: &str| {
            let paths = ["/srv", "/srv/deep", "/srv/deep/new", "/opt"];
            let ran = bed.run(&[&["run", "--rm", name, "stat", "-c", "%a %u %g"], &paths[..]].concat());
            assert_eq!(ran.ok(), "750 7 8\n1777 9 10\n755 0 0\n711 0 0", "{driver}");
        };
        bed.run(&["pull", "-q", &name]).ok();
        look(&name);
        bed.run(&["rmi", &name]).ok();
        let mut image = image::Image::new("sparse:1", &[]);
        image.layers = vec![tar.clone(), image::layer(&below), image::layer(&above)];
        bed.load(&image.with("Env", json!(["PATH=/bin"])));
        look("sparse:1");
    }
}

/// Everything that a registry can do wrong with the answer to one question.
#[test]
fn what_a_bad_registry_says_is_refused_and_leaves_nothing() {
    let bed =
        Bed::with(BedOptions { flags: vec!["--max-download-attempts=2".into()], ..BedOptions::default() });
    let registry = Registry::start(bed.host());
    let pushed = small(&registry);
    let name = format!("{}/lib/small:1", registry.address());
    let manifest = "/v2/lib/small/manifests/1";
    let blob = format!("/v2/lib/small/blobs/{}", pushed.layers[1]);
    let config = format!("/v2/lib/small/blobs/{}", pushed.manifest["config"]["digest"].as_str().unwrap());
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    let json_of = |change: &dyn Fn(&mut Value)| {
        let mut manifest = pushed.manifest.clone();
        change(&mut manifest);
        manifest.to_string().into_bytes()
    };
    let own = |text: &str| text.to_owned();
    let same = noise(7, 4000);
    let many: Vec<Value> = vec![pushed.manifest["layers"][0].clone(); 5000];
    let entry = json!({ "mediaType": index, "digest": digest(b"x"), "size": 1, "platform": { "os": "linux", "architecture": image::architecture() } });
    let nested = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [entry] });
    registry.serve_at(
        &format!("/v2/lib/small/manifests/{}", digest(b"x")),
        index,
        nested.to_string().as_bytes(),
    );
    let cases: Vec<(&str, Fault, String)> = vec![
        (manifest, Fault::Instead(b"<html>hi</html>".to_vec(), "text/html"), own("a web page, not a manifest")),
        (manifest, Fault::Instead(b"{".to_vec(), oci), own("not valid")),
        (manifest, Fault::Instead(b"{}".to_vec(), "text/plain"), own("unsupported media type")),
        (manifest, Fault::Instead(br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(), oci), own("schema 1")),
        (manifest, Fault::Instead(json_of(&|m| m["manifests"] = json!([])), oci), own("both an index and an image")),
        (manifest, Fault::Instead(json_of(&|m| m["mediaType"] = index.into()), oci), own("the manifest says that it is")),
        (manifest, Fault::Instead(json_of(&|m| m["layers"] = json!(many)), oci), own("5000 layers")),
        (manifest, Fault::Instead(json_of(&|m| m["layers"][0]["size"] = json!(1u64 << 60)), oci), own("not enough room")),
        (manifest, Fault::Instead(json_of(&|m| m["layers"] = json!([])), oci), own("layers length mismatch")),
        (manifest, Fault::Instead(json_of(&|m| m["layers"][1]["size"] = 3.into()), oci), own("layer verification failed")),
        (manifest, Fault::Instead(json_of(&|m| m["layers"][1]["size"] = 900.into()), oci), own("unexpected EOF")),
        (
            manifest,
            Fault::Instead(json_of(&|m| m["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into()), oci),
            own("helm.config"),
        ),
        (
            manifest,
            Fault::Instead(json_of(&|m| m["layers"][1]["digest"] = "sha256:../../../etc/passwd".into()), oci),
            own("not valid"),
        ),
        (manifest, Fault::Instead(nested.to_string().into_bytes(), index), own("content has digest")),
        (
            manifest,
            Fault::Instead(br#"{"schemaVersion":2,"manifests":[{"digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1,"platform":{"os":"linux","architecture":"s390x"}}]}"#.to_vec(), index),
            own("no matching manifest for linux/"),
        ),
        (manifest, Fault::Redirect(format!("http://{}{manifest}", registry.address())), own("stopped after 10 redirects")),
        (manifest, Fault::Redirect("file:///etc/passwd".into()), own("a redirect to")),
        (manifest, Fault::Endless, own("is larger than")),
        (manifest, Fault::Cut(10), own(manifest)),
        (manifest, Fault::Status(500, Vec::new(), String::new()), own("500")),
        (
            manifest,
            Fault::Status(403, Vec::new(), r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#.into()),
            format!(
                "pull access denied for {}/lib/small, repository does not exist or may require 'docker login': denied: \
                 requested access to the resource is denied",
                registry.address()
            ),
        ),
        (&config, Fault::Instead(b"{}".to_vec(), "x"), own("content has digest")),
        (&config, Fault::Endless, own("is larger than")),
        (&blob, Fault::Instead(same[..pushed.manifest["layers"][1]["size"].as_u64().unwrap() as usize].to_vec(), "x"), own("filesystem layer verification failed")),
        (&blob, Fault::Cut(0), own("end of file before message length reached")),
        (&blob, Fault::Status(404, Vec::new(), String::new()), own("404")),
        (&blob, Fault::Redirect(blob.clone()), own("stopped after 10 redirects")),
    ];
    for (path, fault, expected) in cases {
        let shown = format!("{fault:?}");
        let shown = shown.get(..shown.len().min(200)).unwrap_or_default();
        // What came of it in an earlier case would be enough.
        for partial in
            std::fs::read_dir(bed.host().folder().join("data/content/partial")).into_iter().flatten()
        {
            std::fs::remove_file(partial.unwrap().path()).unwrap();
        }
        registry.fault(path, fault);
        let (status, said) = pull(&bed, &name);
        registry.heal();
        assert!(said.contains(&expected), "{path} {shown}: {status} {said}");
        assert!(status != 200 || said.contains("\"errorDetail\""), "{path} {shown}: {said}");
        assert_eq!(bed.http().get("/images/json?all=1").json(), json!([]), "{path} {shown}");
        assert_eq!(stored(&bed), (0, 0), "{path} {shown}");
    }
    // What was refused can still be pulled when it is right; what comes behind a blob's end is not waited for.
    registry.fault(&blob, Fault::Endless);
    has(&pull(&bed, &name).1, &["Downloaded newer image"]);
    has(
        &pull(&bed, &format!("{}/lib/none:1", registry.address())).1,
        &["not found: manifest unknown: manifest unknown"],
    );
    assert_eq!(pull(&bed, &format!("{}/lib/none:1", registry.address())).0, 404);
}

#[test]
fn bombs_and_lying_diff_ids_are_refused() {
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let (bytes, _) = layer(&[Entry::file("a", 0o644, "a")]);
    registry.push("lib/lie", "1", &[(bytes, digest(b"other"))], json!({}));
    has(&pull(&bed, &format!("{}/lib/lie:1", registry.address())).1, &["invalid diffID for layer 0"]);
    // A tar whose only file says that it has more bytes than any disk.
    let mut tar = image::layer(&[Entry::file("big", 0o644, "")]);
    tar[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    let sum: u32 = tar[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    registry.push("lib/bomb", "1", &[(gzip(&tar), digest(&tar))], json!({}));
    let (_, said) = pull(&bed, &format!("{}/lib/bomb:1", registry.address()));
    has(&said, &["errorDetail"]);
    // Zeros behind the end of the archive are read, and no more than that.
    let mut zeros = image::layer(&[Entry::file("a", 0o644, "a")]);
    zeros.resize(zeros.len() + (64 << 20), 0);
    registry.push("lib/zeros", "1", &[(gzip(&zeros), digest(&zeros))], json!({}));
    has(&pull(&bed, &format!("{}/lib/zeros:1", registry.address())).1, &["Downloaded newer image"]);
    bed.http().delete(&format!("/images/{}/lib/zeros:1", registry.address())).expect(200);
    assert_eq!(stored(&bed), (0, 0));
}

#[test]
fn what_broke_off_goes_on_where_it_was() {
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let big = large(1, 6 << 20);
    let size = big.0.len() as u64;
    let pushed = registry.push("lib/big", "1", &[big], json!({}));
    let path = format!("/v2/lib/big/blobs/{}", pushed.layers[0]);
    registry.fault(&path, Fault::CutOnce(4 << 20));
    has(
        &pull(&bed, &format!("{}/lib/big:1", registry.address())).1,
        &["Retrying in 1 second", "Downloaded newer image"],
    );
    let ranges: Vec<_> =
        registry.asked().into_iter().filter_map(|one| one.headers.get("range").cloned()).collect();
    assert!(ranges.len() == 1 && ranges[0].starts_with("bytes=4194"), "{ranges:?}");
    assert!(registry.sent(&path) < size + (1 << 20));
    // A registry without ranges begins again, and that is right as well.
    let other = registry.push("lib/other", "1", &[large(2, 40 << 20)], json!({}));
    let path = format!("/v2/lib/other/blobs/{}", other.layers[0]);
    registry.fault(&path, Fault::NoRanges);
    has(&pull(&bed, &format!("{}/lib/other:1", registry.address())).1, &["Downloaded newer image"]);
    // A busy registry is asked again when it says so.
    registry
        .fault("/v2/lib/big/manifests/1", Fault::StatusOnce(429, vec![("Retry-After".into(), "1".into())]));
    has(&pull(&bed, &format!("{}/lib/big:1", registry.address())).1, &["Image is up to date"]);
}

#[test]
fn several_connections_fetch_one_large_layer_once() {
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let big = large(3, 70 << 20);
    let size = big.0.len() as u64;
    let one = registry.push("lib/one", "1", std::slice::from_ref(&big), json!({}));
    let tail = layer(&[Entry::file("tail", 0o644, "x")]);
    registry.push("lib/one", "2", &[big, tail], json!({}));
    let path = format!("/v2/lib/one/blobs/{}", one.layers[0]);
    registry.fault(&path, Fault::Slow(1 << 20, Duration::from_millis(2)));
    std::thread::scope(|scope| {
        for tag in ["1", "2", "1", "2"] {
            let (bed, name) = (&bed, format!("{}/lib/one:{tag}", registry.address()));
            scope.spawn(move || has(&pull(bed, &name).1, &[": sha256:", "Status: "]));
        }
    });
    assert_eq!(registry.sent(&path), size);
    let ranges = registry.asked().into_iter().filter(|asked| asked.headers.contains_key("range")).count();
    assert_eq!(ranges as u64, size.div_ceil(16 << 20));
}

/// The daemon dies in the middle, again and again; what it had is not fetched twice, and the image is right at last.
#[test]
fn a_killed_pull_goes_on() {
    if is_peer() {
        return;
    }
    let mut bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let layers = [large(4, 24 << 20), layer(&[Entry::file("data/more", 0o644, "more")]), large(5, 40 << 20)];
    let size: u64 = layers.iter().map(|(bytes, _)| bytes.len() as u64).sum();
    let pushed = registry.push("lib/kill", "1", &layers, json!({}));
    let paths: Vec<_> = pushed.layers.iter().map(|layer| format!("/v2/lib/kill/blobs/{layer}")).collect();
    for path in &paths {
        registry.fault(path, Fault::Slow(256 << 10, Duration::from_millis(2)));
    }
    let sent = |registry: &Registry| paths.iter().map(|path| registry.sent(path)).sum::<u64>();
    let name = format!("{}/lib/kill:1", registry.address());
    let registry = Arc::new(registry);
    for round in 1..=5u64 {
        let goal = size * round / 7;
        let puller = bed
            .command(testkit::Client::Own)
            .args(["pull", &name])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let mut puller = puller.expect("the client");
        let reached = testkit::Deadline::after(Duration::from_secs(60))
            .poll(|| (sent(&registry) >= goal).then_some(()));
        assert!(reached.is_some(), "round {round}: {} of {goal}", sent(&registry));
        match round % 2 {
            // The registry's end breaks as well.
            0 => registry.break_connections(),
            _ => {
                bed.kill();
                bed.start();
            }
        }
        let _ = puller.kill();
        let _ = puller.wait();
    }
    registry.heal();
    // What is on the disk is not asked for again.
    let (kept, before) = (on_disk(&bed), sent(&registry));
    assert!(kept > size / 4, "{kept} of {size} bytes were kept");
    has(&pull(&bed, &name).1, &["Downloaded newer image"]);
    let fetched = sent(&registry) - before;
    assert!(
        fetched + kept < size + (2 << 20),
        "{fetched} bytes were fetched although {kept} of {size} were there"
    );
    // All of it is what it should be.
    let archive = bed.http().get(&format!("/images/{name}/get")).expect(200).body;
    let entry = |bytes: &[u8]| archive.windows(bytes.len()).any(|window| window == bytes);
    assert!(layers.iter().all(|(bytes, _)| entry(&bytes[..bytes.len().min(4096)])));
    for number in [4u64, 5] {
        let expected = noise(number, if number == 4 { 24 << 20 } else { 40 << 20 });
        let found = find_file(&bed.host().folder().join("data/snapshots/overlay"), &format!("data/{number}"));
        assert!(found.is_some_and(|path| std::fs::read(path).unwrap() == expected), "{number}");
    }
    assert_eq!(std::fs::read_dir(bed.host().folder().join("data/content/partial")).unwrap().count(), 0);
}

/// Bytes of blobs, whole and partial, that the disk has.
fn on_disk(bed: &Bed) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let folders =
        ["data/content/partial", "data/content/blobs/sha256"].map(|path| bed.host().folder().join(path));
    let files = folders.iter().flat_map(|path| std::fs::read_dir(path).into_iter().flatten().flatten());
    files.map(|entry| entry.metadata().map_or(0, |found| (found.blocks() * 512).min(found.len()))).sum()
}

fn find_file(folder: &std::path::Path, end: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            if let Some(found) = find_file(&path, end) {
                return Some(found);
            }
        } else if path.ends_with(end) {
            return Some(path);
        }
    }
    None
}

#[test]
fn a_wrong_password_is_refused_by_the_address_that_was_asked() {
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    registry.require("Basic am9lOnNlY3JldA==", "Basic realm=\"reg\"");
    let log_in = |password: &str| {
        let body = json!({ "username": "joe", "password": password, "serveraddress": registry.address() });
        bed.http().post("/auth", &body)
    };
    assert_eq!(
        log_in("wrong").refused(401),
        format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", registry.address())
    );
    assert_eq!(log_in("secret").expect(200).json()["Status"], "Login Succeeded");
}

#[test]
fn credentials_stay_where_they_belong() {
    let bed = Bed::empty();
    let (registry, tokens, elsewhere) =
        (Registry::start(bed.host()), Registry::start(bed.host()), Registry::start(bed.host()));
    let pushed = small(&registry);
    registry.require(
        "Bearer t1",
        &format!(
            "Bearer realm=\"http://{}/token\",service=\"reg\",scope=\"repository:lib/small:pull\"",
            tokens.address()
        ),
    );
    tokens.serve_at("/token", "application/json", br#"{"token":"t1","expires_in":300}"#);
    let blob = format!("/v2/lib/small/blobs/{}", pushed.layers[0]);
    registry.fault(&blob, Fault::Redirect(format!("http://{}/bucket/x?sig=1", elsewhere.address())));
    let (bytes, _) = layer(&[Entry::file("hello", 0o644, "hello")]);
    elsewhere.serve_at("/bucket/x", "application/octet-stream", &bytes);
    let folder = bed.folder("config");
    let login = json!({ "auths": { registry.address(): { "auth": "am9lOnNlY3JldA==" } } });
    std::fs::write(folder.join("config.json"), login.to_string()).unwrap();
    let name = format!("{}/lib/small:1", registry.address());
    each_client(&bed, |client, _| {
        let said = testkit::run(bed.command(client).env("DOCKER_CONFIG", &folder).args(["pull", &name]));
        has(said.ok(), &["Downloaded newer image"]);
        bed.cli(client, &["rmi", &name]).ok();
    });
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1, "the second pull has the token still: {asked:?}");
    has(&asked[0].path, &["service=reg", "scope=repository%3Alib%2Fsmall%3Apull", "account=joe"]);
    assert_eq!(asked[0].headers["authorization"], "Basic am9lOnNlY3JldA==");
    for one in elsewhere.asked() {
        assert!(!one.headers.contains_key("authorization"), "{one:?}");
    }
    assert!(
        registry
            .asked()
            .iter()
            .all(|one| one.headers.get("authorization").is_none_or(|value| value == "Bearer t1"))
    );
}
