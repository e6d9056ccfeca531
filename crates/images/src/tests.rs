//! Images made in memory, into a store on disk and out again.

use std::fs::File;
use std::io::Write;

use archive::{Entry, Kind as Member, Writer};
use oci::{Config, Descriptor, Image, Index, Manifest, Reference, RootFs, Timestamp, media_type};
use proptest::prelude::*;

use super::*;

mod check;
mod early;
mod file;
mod fuzz;
mod platforms;
mod settle;

/// Files of an archive: path and content.
type Members = Vec<(String, Vec<u8>)>;

struct Fixture {
    directory: tempfile::TempDir,
    images: Images,
}

fn open(directory: &std::path::Path) -> Images {
    open_as(directory, "overlay2", "this boot")
}

/// The store, opened with a storage driver and after a boot of the kernel.
fn open_as(directory: &std::path::Path, driver: &str, boot: &str) -> Images {
    let content = content::Store::open(&directory.join("content")).unwrap();
    let store = metadata::Store::open(&directory.join("state")).unwrap();
    let doubted = |driver: &str| doubted(&store, boot, driver);
    let snapshots = snapshots::open(&directory.join("snapshots"), Some(driver), &doubted).unwrap();
    let limits = Limits { bytes: 64 << 20, entries: 1000 };
    let (images, warnings) = Images::open(Arc::new(content), snapshots, store, limits, boot).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    images
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let images = open(directory.path());
        Fixture { directory, images }
    }
    fn restart(self) -> Fixture {
        let Fixture { directory, images } = self;
        drop(images);
        let images = open(directory.path());
        Fixture { directory, images }
    }
    fn load(&self, bytes: &[u8]) -> Result<Vec<Loaded>, Error> {
        self.load_from(bytes, false)
    }
    /// From a stream, or from where it lies in a file.
    fn load_from(&self, bytes: &[u8], in_file: bool) -> Result<Vec<Loaded>, Error> {
        if !in_file {
            return self.images.archives().load(Input::Stream(bytes), &options(), &mut |_| {});
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        self.load_file(file, &|| true)
    }
    fn load_file(&self, file: File, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<Vec<Loaded>, Error> {
        let file = ArchiveFile { file, is_wanted: IsWanted(is_wanted) };
        self.images.archives().load(Input::<&[u8]>::File(file), &options(), &mut |_| {})
    }
    fn blobs(&self) -> usize {
        self.images.content.walk().unwrap().len()
    }
    fn is_empty(&self) -> bool {
        self.images.all().is_empty() && self.blobs() == 0 && self.images.snapshots.layers().is_empty()
    }
    fn names(&self) -> Vec<String> {
        let list = self.images.catalog().list(&ListFilter { all: true, ..ListFilter::default() }).unwrap();
        list.iter().flat_map(|summary| summary.repo_tags.clone()).collect()
    }
}

fn now(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn options() -> LoadOptions {
    LoadOptions { platforms: Vec::new(), now: now(1_700_000_000) }
}

fn nobody(_: &Digest) -> Vec<User> {
    Vec::new()
}

/// A layer's archive with one file, or with what the caller puts in.
fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.append_bytes(name, content).unwrap();
    writer.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What goes into an archive of one image.
struct Built {
    config: Vec<u8>,
    /// Plain layers, lowest first.
    layers: Vec<Vec<u8>>,
}

impl Built {
    fn new(label: &str, layers: &[(&str, &[u8])]) -> Built {
        let layers: Vec<Vec<u8>> = layers.iter().map(|(name, content)| layer(name, content)).collect();
        Built::of(label, layers)
    }
    fn of(label: &str, layers: Vec<Vec<u8>>) -> Built {
        let config = Image {
            created: Some("2024-01-01T00:00:00Z".into()),
            architecture: oci::Platform::host().architecture,
            os: "linux".into(),
            config: Config {
                cmd: Some(vec!["sh".into()]),
                labels: [("which".to_owned(), label.to_owned())].into(),
                ..Config::default()
            },
            rootfs: RootFs {
                diff_ids: layers.iter().map(|layer| Digest::of(layer)).collect(),
                ..RootFs::default()
            },
            ..Image::default()
        };
        Built { config: serde_json::to_vec(&config).unwrap(), layers }
    }
    fn id(&self) -> Digest {
        Digest::of(&self.config)
    }
    /// As `docker save` before version 25 wrote it.
    fn docker_archive(&self, tags: &[&str]) -> Vec<u8> {
        archive_of(&self.docker_members(tags))
    }
    fn docker_members(&self, tags: &[&str]) -> Members {
        let config = format!("{}.json", self.id().hex());
        let layers: Vec<String> =
            (0..self.layers.len()).map(|index| format!("layer{index}/layer.tar")).collect();
        let manifest =
            serde_json::json!([{ "Config": config, "RepoTags": tags, "Layers": layers, "Parent": null }]);
        let mut members = vec![(config, self.config.clone())];
        members.extend(layers.into_iter().zip(self.layers.clone()));
        members.push(("manifest.json".into(), manifest.to_string().into_bytes()));
        members
    }
    /// As an OCI image layout with compressed layers.
    fn layout(&self, name: Option<&str>, compress: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let mut members = Vec::new();
        let mut blob = |media_type: &str, bytes: Vec<u8>| {
            let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
            members.push((format!("blobs/sha256/{}", descriptor.digest.hex()), bytes));
            descriptor
        };
        let config = blob(media_type::OCI_CONFIG, self.config.clone());
        let layers: Vec<Descriptor> =
            self.layers.iter().map(|layer| blob(media_type::OCI_LAYER_GZIP, compress(layer))).collect();
        let manifest = serde_json::to_vec_pretty(&Manifest::new(config, layers)).unwrap();
        let mut descriptor = blob(media_type::OCI_MANIFEST, manifest);
        if let Some(name) = name {
            descriptor.annotations.insert("io.containerd.image.name".into(), name.into());
        }
        let index = Index { manifests: vec![descriptor], ..Index::default() };
        members.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
        members.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        archive_of(&members)
    }
}

fn archive_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, bytes) in members {
        writer.append_bytes(path, bytes).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_saved_image_is_loaded_and_found() {
    let fixture = Fixture::new();
    let busybox = std::fs::read("/usr/bin/busybox").unwrap();
    let built = Built::new("a", &[("bin/busybox", &busybox), ("etc/motd", b"hello")]);
    let mut seen = Vec::new();
    let loaded = fixture
        .images
        .archives()
        .load(
            Input::Stream(&gzip(&built.docker_archive(&["busybox:latest", "quay.io/x/busybox:1"]))[..]),
            &options(),
            &mut |p| {
                seen.push((p.current, p.total));
            },
        )
        .unwrap();
    assert!(seen.iter().any(|(current, total)| current == total && *total > busybox.len() as u64));
    assert_eq!(loaded.len(), 1);
    assert_eq!(
        loaded[0].references.iter().map(Reference::familiar).collect::<Vec<_>>(),
        ["busybox:latest", "quay.io/x/busybox:1"]
    );
    let id = built.id();
    let fixture = fixture.restart();
    for name in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "quay.io/x/busybox:1",
        id.as_str(),
        id.hex(),
        id.short(),
        &id.as_str()[..11],
        &id.hex()[..1],
    ] {
        assert_eq!(fixture.images.resolve(name).unwrap().id, id, "{name}");
    }
    let image = fixture.images.resolve("busybox").unwrap();
    assert_eq!(image.size(), busybox.len() as u64 + 5);
    let lowers = fixture.images.snapshots.lowers(image.chain().unwrap()).unwrap();
    assert_eq!(std::fs::read(lowers[1].join("bin/busybox")).unwrap(), busybox);
    for (name, message) in [
        ("nothing", "No such image: nothing:latest"),
        ("quay.io/x/busybox", "No such image: quay.io/x/busybox:latest"),
        ("BusyBox", "invalid reference format: repository name (library/BusyBox) must be lowercase"),
        ("a b", "invalid reference format"),
    ] {
        assert_eq!(fixture.images.resolve(name).unwrap_err().to_string(), message);
    }
    let missing = Digest::of(b"x");
    assert_eq!(
        fixture.images.resolve(missing.hex()).unwrap_err().to_string(),
        format!("No such image: {missing}")
    );
    // Other tools find it in the layout.
    let index = fixture.images.content.index().unwrap();
    assert_eq!(index.manifests.len(), 2);
    assert!(fixture.images.content.contains(&index.manifests[0].digest));
}

#[test]
fn layouts_keep_their_manifests_and_their_compression() {
    for compress in [gzip as fn(&[u8]) -> Vec<u8>, |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap()] {
        let fixture = Fixture::new();
        let built = Built::new("a", &[("f", b"1"), ("g", b"2")]);
        let loaded = fixture.load(&built.layout(Some("docker.io/library/app:v1"), compress)).unwrap();
        let image = &loaded[0].image;
        assert_eq!(loaded[0].references[0].familiar(), "app:v1");
        assert_ne!(image.layers[0].blob.digest, image.layers[0].diff_id);
        // Pretty-printed as it came, so not made anew.
        let manifest = fixture.images.content.read(&image.manifest.digest, 10_000).unwrap();
        assert!(manifest.contains(&b'\n'));
        // Through `save` into another store: the same manifest.
        let saved = fixture.images.archives().save(&["app:v1".into()], &[], Vec::new()).unwrap();
        assert_eq!(saved, fixture.images.archives().save(&["app:v1".into()], &[], Vec::new()).unwrap());
        let other = Fixture::new();
        let again = other.load(&saved).unwrap();
        assert_eq!(again[0].image.manifest.digest, image.manifest.digest);
        assert_eq!(again[0].image.layers, image.layers);
        assert_eq!(other.names(), ["app:v1"]);
        // By ID: no names; the same image again: no change.
        let saved = fixture.images.archives().save(&[image.id.short().to_owned()], &[], Vec::new()).unwrap();
        let nameless = Fixture::new();
        assert!(nameless.load(&saved).unwrap()[0].references.is_empty());
        let before = other.blobs();
        other.load(&saved).unwrap();
        assert_eq!((other.blobs(), other.names()), (before, vec!["app:v1".to_owned()]));
    }
}

#[test]
fn a_repository_is_saved_with_all_its_tags() {
    let fixture = Fixture::new();
    let (one, two) = (Built::new("1", &[("f", b"1")]), Built::new("2", &[("f", b"1"), ("g", b"2")]));
    fixture.load(&one.docker_archive(&["app:1", "app:one", "other:1"])).unwrap();
    fixture.load(&two.docker_archive(&["app:2"])).unwrap();
    let saved = fixture.images.archives().save(&["app".into()], &[], Vec::new()).unwrap();
    let other = Fixture::new();
    assert_eq!(other.load(&saved).unwrap().len(), 2);
    let mut names = other.names();
    names.sort();
    assert_eq!(names, ["app:1", "app:2", "app:one"]);
    // One layer for both.
    assert_eq!(other.images.snapshots.layers().len(), 2);
    assert!(other.images.catalog().shared_sizes().values().all(|bytes| *bytes == 1));
    assert_eq!(other.images.catalog().layers_size(), 2);
}

#[test]
fn a_name_moves_to_the_image_that_came_last() {
    let fixture = Fixture::new();
    let (one, two) = (Built::new("1", &[("f", b"1")]), Built::new("2", &[("f", b"2")]));
    fixture.load(&one.docker_archive(&["app:latest"])).unwrap();
    let loaded = fixture.load(&two.docker_archive(&["app:latest"])).unwrap();
    assert_eq!(loaded[0].replaced, [(Reference::parse("app:latest").unwrap(), one.id())]);
    assert_eq!(fixture.images.resolve("app").unwrap().id, two.id());
    let dangling = ListFilter { dangling: Some(true), ..ListFilter::default() };
    let list = fixture.images.catalog().list(&dangling).unwrap();
    assert_eq!(list.iter().map(|summary| &summary.image.id).collect::<Vec<_>>(), [&one.id()]);
    let (removed, freed) = fixture.images.removals().prune(&PruneFilter::default(), &nobody).unwrap();
    assert_eq!(freed, 1);
    assert_eq!(removed[0], Removed::Image(one.id()));
    assert!(matches!(removed[1], Removed::Layer(_)));
    assert_eq!(fixture.images.all().len(), 1);
}

#[test]
fn a_lying_archive_of_a_known_layer_is_refused() {
    let fixture = Fixture::new();
    let built = Built::new("a", &[("f", b"1")]);
    fixture.load(&built.docker_archive(&["a:1"])).unwrap();
    // The same diff ID, announced for something else.
    let other = Built::new("b", &[("f", b"2")]);
    let liar = Built { config: [&built.config[..], b" "].concat(), layers: other.layers };
    for bytes in [liar.docker_archive(&[]), liar.layout(None, gzip)] {
        for in_file in [false, true] {
            let error = fixture.load_from(&bytes, in_file).unwrap_err();
            assert!(error.to_string().starts_with("invalid diffID for layer 0"), "{error}");
        }
    }
    assert_eq!(fixture.blobs(), 3);
}

#[test]
fn links_in_old_archives_are_followed() {
    let fixture = Fixture::new();
    let built = Built::of("a", vec![layer("f", b"1"), layer("f", b"1")]);
    let members = built.docker_members(&["a:1"]);
    let mut writer = Writer::new(Vec::new());
    for (path, bytes) in &members {
        if path == "layer1/layer.tar" {
            let target = Member::Symlink(b"../layer0/layer.tar".to_vec());
            writer.append(&Entry { kind: target, ..Entry::file(path, 0) }, &mut std::io::empty()).unwrap();
        } else {
            writer.append_bytes(path, bytes).unwrap();
        }
    }
    fixture.load(&writer.finish().unwrap()).unwrap();
    assert_eq!(fixture.images.resolve("a:1").unwrap().chains.len(), 2);
}

#[test]
fn removal_follows_dockers_rules() {
    let fixture = Fixture::new();
    let built = Built::new("a", &[("f", b"1"), ("g", b"2")]);
    let images = &fixture.images;
    fixture.load(&built.docker_archive(&["app:1", "app:2", "other:1"])).unwrap();
    let id = built.id();
    let stopped = |_: &Digest| vec![User { container: "c".repeat(64), running: false }];
    let running = |_: &Digest| vec![User { container: "d".repeat(64), running: true }];
    let force = RemoveOptions { force: true, ..RemoveOptions::default() };
    let plain = RemoveOptions::default();

    let error = images.removals().remove(id.as_str(), plain, &nobody).unwrap_err();
    let short = id.short();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(error.kind(), Kind::Conflict);
    // One of several names goes even if the image is in use.
    let removed = images.removals().remove("app:1", plain, &running).unwrap();
    assert_eq!(removed, [Removed::Untagged { reference: "app:1".into(), image: id.clone() }]);
    images.removals().remove("other:1", plain, &running).unwrap();
    // The last one does not.
    let error = images.removals().remove("app:2", plain, &stopped).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to remove repository reference \"app:2\" (must force) - container cccccccccccc is using its referenced image {short}"
        )
    );
    let error = images.removals().remove(short, plain, &stopped).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container cccccccccccc"
        )
    );
    let error = images.removals().remove(short, force, &running).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container dddddddddddd"
        )
    );
    let error = images.removals().remove("nothing", plain, &nobody).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), ("No such image: nothing:latest", Kind::NotFound));
    // By force, under a stopped container: its layers stay until it goes.
    let chain = images.resolve("app:2").unwrap().chain().unwrap().clone();
    images.snapshots.create("c1", Some(&chain)).unwrap();
    let removed = images.removals().remove("app:2", force, &stopped).unwrap();
    assert_eq!(
        removed,
        [Removed::Untagged { reference: "app:2".into(), image: id.clone() }, Removed::Image(id)]
    );
    // So does what they are made of, while they are not sure to be on the disk.
    assert_eq!(fixture.blobs(), 2);
    images.settling().settle().unwrap();
    assert_eq!(fixture.blobs(), 0);
    assert!(
        matches!(images.snapshots.mounts("c1"), Ok(snapshots::Mounts::Overlay { lowers, .. }) if lowers.len() == 2)
    );
    drop(images.release("c1").unwrap());
    assert!(fixture.is_empty());
    assert!(fixture.restart().is_empty());
}

#[test]
fn images_are_built_on_each_other() {
    let fixture = Fixture::new();
    let images = &fixture.images;
    let base = Built::new("base", &[("f", b"1")]);
    fixture.load(&base.docker_archive(&["base:1"])).unwrap();
    let parent = images.resolve("base:1").unwrap();
    images.snapshots.create("build", parent.chain()).unwrap();
    let snapshots::Mounts::Overlay { upper, .. } = images.snapshots.mounts("build").unwrap() else {
        panic!("no overlay")
    };
    std::fs::write(upper.join("new"), "12345").unwrap();
    let mut pins = images.pins();
    let layer = images.maker().adopt_container("build", Some(&parent), &mut pins).unwrap();
    let new = |parent: &Arc<StoredImage>, layer, reference: &str, seconds| NewImage {
        parent: Some(Arc::clone(parent)),
        layer,
        config: Config { env: vec!["A=b".into()], ..parent.config.config.clone() },
        author: "me".into(),
        comment: String::new(),
        created_by: "/bin/sh -c step".into(),
        platform: parent.config.platform(),
        references: if reference.is_empty() { vec![] } else { vec![Reference::parse(reference).unwrap()] },
        container: None,
        now: now(seconds),
    };
    let middle =
        images.maker().create(new(&parent, Some(layer), "", 1_800_000_000), &mut pins).unwrap().image;
    let top = images.maker().create(new(&middle, None, "built", 1_800_000_001), &mut pins).unwrap().image;
    drop(pins);
    assert!(images.snapshots.containers().is_empty());
    assert_eq!((top.chains.clone(), top.size()), (middle.chains.clone(), 6));
    let history = images.catalog().history("built", None).unwrap();
    assert_eq!(
        history.iter().map(|item| (item.id.clone(), item.size)).collect::<Vec<_>>(),
        [(Some(top.id.clone()), 0), (Some(middle.id.clone()), 5), (Some(parent.id.clone()), 1)]
    );
    // Nameless parents are only shown when asked for.
    assert_eq!(images.catalog().list(&ListFilter::default()).unwrap().len(), 2);
    assert_eq!(images.catalog().list(&ListFilter { all: true, ..ListFilter::default() }).unwrap().len(), 3);
    let since = ListFilter { since: vec!["base:1".into()], ..ListFilter::default() };
    assert_eq!(images.catalog().list(&since).unwrap()[0].repo_tags, ["built:latest"]);
    let error = images.removals().remove(
        middle.id.as_str(),
        RemoveOptions { force: true, ..Default::default() },
        &nobody,
    );
    assert!(
        error.unwrap_err().to_string().ends_with("(cannot be forced) - image has dependent child images")
    );
    // A named parent stays, a nameless one goes along.
    let saved = images.archives().save(&["built".into()], &[], Vec::new()).unwrap();
    let removed = images.removals().remove("built", RemoveOptions::default(), &nobody).unwrap();
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert_eq!(fixture.names(), ["base:1"]);
    let fixture = fixture.restart();
    let again = fixture.load(&saved).unwrap();
    assert_eq!(again[0].image.id, top.id);
    assert_eq!(fixture.images.catalog().history("built", None).unwrap()[1].id, None);
}

#[test]
fn what_a_crash_leaves_is_removed_at_open() {
    let fixture = Fixture::new();
    let images = &fixture.images;
    fixture.load(&Built::new("kept", &[("f", b"1")]).docker_archive(&["kept:1"])).unwrap();
    let kept = (fixture.blobs(), images.snapshots.layers().len());
    // All of a load but its record.
    let mut pins = images.pins();
    let blob = images.content.put(b"a layer's archive").unwrap();
    pins.blob(&blob.digest);
    let top = images.resolve("kept:1").unwrap().chain().cloned();
    let stage = images.snapshots.stage(top.as_ref()).unwrap();
    images.snapshots.commit(stage, &Digest::of(b"chain"), 0).unwrap();
    std::mem::forget(images.snapshots.stage(None).unwrap());
    std::mem::forget(pins);
    let fixture = fixture.restart();
    assert_eq!((fixture.blobs(), fixture.images.snapshots.layers().len()), kept);
    assert_eq!(fixture.names(), ["kept:1"]);
}

#[test]
fn containers_are_committed() {
    let fixture = Fixture::new();
    let images = &fixture.images;
    fixture.load(&Built::new("base", &[("f", b"1")]).docker_archive(&["base:1"])).unwrap();
    let parent = images.resolve("base:1").unwrap();
    images.snapshots.create("c1", parent.chain()).unwrap();
    let snapshots::Mounts::Overlay { upper, .. } = images.snapshots.mounts("c1").unwrap() else {
        panic!("no overlay")
    };
    std::fs::write(upper.join("f"), "changed").unwrap();
    let new = NewImage {
        parent: Some(Arc::clone(&parent)),
        layer: None,
        config: parent.config.config.clone(),
        author: String::new(),
        comment: "why".into(),
        created_by: "sh".into(),
        platform: parent.config.platform(),
        references: vec![Reference::parse("committed").unwrap()],
        container: Some(Committed { id: "c1".into(), config: serde_json::json!({ "Cmd": ["sh"] }) }),
        now: now(1_800_000_000),
    };
    let image = images.maker().commit("c1", &[], new).unwrap().image;
    // The container goes on.
    assert!(upper.join("f").exists());
    let lowers = images.snapshots.lowers(image.chain().unwrap()).unwrap();
    assert_eq!(std::fs::read(lowers[0].join("f")).unwrap(), b"changed");
    assert_eq!(images.catalog().history("committed", None).unwrap()[0].comment, "why");
    drop(images.release("c1").unwrap());
    assert_eq!(images.snapshots.layers().len(), 2);
}

#[test]
fn loads_and_removals_at_the_same_time_do_not_harm_each_other() {
    let fixture = Fixture::new();
    let shared: (&str, &[u8]) = ("shared", b"the same in all");
    let archives: Vec<(String, Vec<u8>)> = (0..4)
        .map(|number| {
            let name = format!("image{number}:1");
            let own = number.to_string();
            (name.clone(), Built::new(&own, &[shared, ("own", own.as_bytes())]).docker_archive(&[&name]))
        })
        .collect();
    std::thread::scope(|scope| {
        for (name, bytes) in &archives {
            let fixture = &fixture;
            scope.spawn(move || {
                for round in 0..12 {
                    let loaded = fixture.load(bytes).unwrap();
                    let image = &loaded[0].image;
                    let lowers = fixture.images.snapshots.lowers(image.chain().unwrap()).unwrap();
                    assert!(lowers[1].join("shared").exists(), "round {round}");
                    assert!(image.blobs().all(|blob| fixture.images.content.contains(blob)), "round {round}");
                    fixture.images.removals().remove(name, RemoveOptions::default(), &nobody).unwrap();
                }
            });
        }
    });
    assert!(fixture.is_empty());
}

#[test]
fn archives_are_imported() {
    let fixture = Fixture::new();
    let plain = layer("etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    for (bytes, media) in [
        (plain.clone(), media_type::OCI_LAYER),
        (gzip(&plain), media_type::OCI_LAYER_GZIP),
        (zstd::encode_all(&plain[..], 1).unwrap(), media_type::OCI_LAYER_ZSTD),
    ] {
        let import = Import {
            reference: Some(Reference::parse("flat").unwrap()),
            config: Config { cmd: Some(vec!["/bin/sh".into()]), ..Config::default() },
            message: "Imported from -".into(),
            platform: oci::Platform::host(),
            now: now(1_700_000_000),
        };
        let image = fixture.images.maker().import(&bytes[..], import).unwrap().image;
        assert_eq!(image.layers[0].diff_id, Digest::of(&plain));
        assert_eq!(image.size(), 22);
        let stored = fixture.images.resolve("flat:latest").unwrap();
        assert_eq!(stored.config.history[0].comment, "Imported from -");
        // It keeps its own compression the first time; the configuration, and so the image, is always the same.
        if stored.layers[0].blob.media_type == media {
            assert_eq!(stored.layers[0].blob.size, bytes.len() as u64);
        }
    }
    let error = fixture.images.maker().import(
        &gzip(&plain)[..30],
        Import {
            reference: None,
            config: Config::default(),
            message: String::new(),
            platform: oci::Platform::host(),
            now: now(0),
        },
    );
    assert_eq!(error.unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn lists_are_filtered() {
    let fixture = Fixture::new();
    fixture.load(&Built::new("1", &[("f", b"1")]).docker_archive(&["app:1", "lib/app:2"])).unwrap();
    fixture.load(&Built::new("2", &[("f", b"2")]).docker_archive(&["other:1"])).unwrap();
    let names = |filter: ListFilter| -> Vec<String> {
        fixture
            .images
            .catalog()
            .list(&filter)
            .unwrap()
            .into_iter()
            .flat_map(|summary| summary.repo_tags)
            .collect()
    };
    let references =
        |pattern: &str| names(ListFilter { references: vec![pattern.into()], ..Default::default() });
    assert_eq!(references("app"), ["app:1"]);
    assert_eq!(references("*/app"), ["lib/app:2"]);
    assert_eq!(references("a*:*"), ["app:1"]);
    assert!(references("nothing").is_empty());
    assert_eq!(names(ListFilter { labels: vec!["which=2".into()], ..Default::default() }), ["other:1"]);
    assert_eq!(names(ListFilter { without_labels: vec!["which=2".into()], ..Default::default() }).len(), 2);
    assert_eq!(names(ListFilter { until: Some(0), ..Default::default() }).len(), 0);
    assert_eq!(names(ListFilter { dangling: Some(true), ..Default::default() }).len(), 0);
    let bad = ListFilter { references: vec!["[".into()], ..Default::default() };
    assert_eq!(fixture.images.catalog().list(&bad).unwrap_err().to_string(), "invalid filter 'reference=['");
    let unknown = ListFilter { before: vec!["nope".into()], ..Default::default() };
    assert_eq!(fixture.images.catalog().list(&unknown).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn tags_are_given_and_refused() {
    let fixture = Fixture::new();
    let built = Built::new("1", &[("f", b"1")]);
    fixture.load(&built.docker_archive(&["app:1"])).unwrap();
    let digest = Reference::parse("app").unwrap().with_digest(Digest::of(b"manifest"));
    fixture
        .images
        .names()
        .tag(&Target::Image(built.id()), &Reference::parse("new").unwrap(), now(5))
        .unwrap();
    assert!(matches!(
        fixture.images.names().tag(&Target::Image(built.id()), &digest, now(5)),
        Err(Error::TagWithDigest)
    ));
    fixture.images.names().give(&Target::Image(built.id()), &digest, now(6)).unwrap();
    let fixture = fixture.restart();
    assert_eq!(fixture.images.resolve(&digest.familiar()).unwrap().id, built.id());
    assert_eq!(fixture.images.names().last_given(&built.id()), Some(now(1_700_000_000)));
    let (tags, digests) = fixture.images.names().of(&built.id());
    assert_eq!((tags.len(), digests.len()), (2, 1));
    // The digest goes with the last tag of its repository.
    let removed = fixture.images.removals().remove("app:1", RemoveOptions::default(), &nobody).unwrap();
    assert_eq!(removed.len(), 2);
    assert_eq!(fixture.names(), ["new:latest"]);
}

#[test]
fn only_registries_tell_where_an_image_comes_from() {
    let fixture = Fixture::new();
    let built = Built::new("1", &[("f", b"1")]);
    let digest = Reference::parse("app").unwrap().with_digest(Digest::of(b"manifest"));
    let archive = built.layout(Some(&digest.to_string()), gzip);
    let repositories = |fixture: &Fixture| {
        let (_, digests) = fixture.images.names().of(&built.id());
        assert_eq!(digests, std::slice::from_ref(&digest));
        Vec::from_iter(fixture.images.names().repositories(&digests))
    };
    // An archive may say what it likes.
    fixture.load(&archive).unwrap();
    assert!(repositories(&fixture).is_empty());
    let fixture = fixture.restart();
    assert!(repositories(&fixture).is_empty());
    // What a pull or a push leaves is believed, and an archive takes nothing from it.
    fixture.images.names().give(&Target::Image(built.id()), &digest, now(6)).unwrap();
    fixture.load(&archive).unwrap();
    assert_eq!(repositories(&fixture), ["docker.io/library/app"]);
    let fixture = fixture.restart();
    assert_eq!(repositories(&fixture), ["docker.io/library/app"]);
    // Another name for it does not count.
    let other = Reference::parse("other:1").unwrap();
    fixture.images.names().tag(&Target::Image(built.id()), &other, now(7)).unwrap();
    assert_eq!(repositories(&fixture), ["docker.io/library/app"]);
}

#[test]
fn ambiguous_prefixes_are_told() {
    let fixture = Fixture::new();
    let mut firsts = std::collections::HashMap::new();
    for number in 0..40 {
        let built = Built::new(&number.to_string(), &[("f", b"1")]);
        fixture.load(&built.docker_archive(&[])).unwrap();
        let first = built.id().hex()[..1].to_owned();
        if firsts.insert(first.clone(), ()).is_some() {
            let error = fixture.images.resolve(&first).unwrap_err();
            assert!(matches!(error, Error::Ambiguous { .. }), "{error}");
            assert_eq!(error.kind(), Kind::Invalid);
            return;
        }
    }
    panic!("forty digests and no two begin alike");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn damaged_archives_never_panic_and_leave_nothing(at in 0usize..20_000, value: u8, cut in 1usize..20_000, in_file: bool) {
        let built = Built::new("a", &[("f", b"1")]);
        let mut bytes = built.layout(Some("a/b:c"), gzip);
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(cut);
        let fixture = Fixture::new();
        match fixture.load_from(&bytes, in_file) {
            Ok(_) => prop_assert_eq!(fixture.images.all().len(), 1),
            Err(_) => prop_assert!(fixture.is_empty()),
        }
    }
}
