//! Indexes: several platforms under one name, and what is said about them.

use oci::Platform;

use super::*;

fn platform(text: &str) -> Platform {
    Platform::parse(text).unwrap()
}

fn host() -> Platform {
    Platform::host()
}

/// A platform that this host is not.
fn foreign() -> Platform {
    match host().architecture.as_str() {
        "arm64" => platform("linux/amd64"),
        _ => platform("linux/arm64"),
    }
}

/// What `multi:1` is on a platform.
fn on(images: &Images, platform: &Platform) -> Result<Arc<StoredImage>, Error> {
    images.find("multi:1", Some(platform)).map(|found| found.image)
}

/// An image for a platform, with one file that tells which.
pub fn built_for(platform: &Platform, content: &str) -> Built {
    let mut built = Built::new(content, &[("which", content.as_bytes())]);
    let mut config: Image = serde_json::from_slice(&built.config).unwrap();
    config.architecture.clone_from(&platform.architecture);
    config.variant.clone_from(&platform.variant);
    config.os.clone_from(&platform.os);
    built.config = serde_json::to_vec(&config).unwrap();
    built
}

/// Blobs of a layout that is being made.
#[derive(Default)]
pub struct Layout {
    members: Members,
}

impl Layout {
    pub fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        let path = format!("blobs/sha256/{}", descriptor.digest.hex());
        if !self.members.iter().any(|(known, _)| *known == path) {
            self.members.push((path, bytes));
        }
        descriptor
    }

    pub fn image(&mut self, built: &Built, platform: &Platform) -> Descriptor {
        let config = self.blob(media_type::OCI_CONFIG, built.config.clone());
        let layers =
            built.layers.iter().map(|layer| self.blob(media_type::OCI_LAYER_GZIP, gzip(layer))).collect();
        let manifest = serde_json::to_vec(&Manifest::new(config, layers)).unwrap();
        let descriptor = self.blob(media_type::OCI_MANIFEST, manifest);
        Descriptor { platform: Some(platform.clone()), ..descriptor }
    }

    /// A statement about an image, as builders make them.
    pub fn statement(&mut self, of: &Descriptor, body: &str) -> Descriptor {
        let config = self.blob(media_type::OCI_CONFIG, b"{\"os\":\"unknown\"}".to_vec());
        let mut layer = self.blob("application/vnd.in-toto+json", body.as_bytes().to_vec());
        layer.annotations.insert("in-toto.io/predicate-type".into(), "https://slsa.dev/provenance/v1".into());
        let manifest = serde_json::to_vec(&Manifest::new(config, vec![layer])).unwrap();
        let mut descriptor = self.blob(media_type::OCI_MANIFEST, manifest);
        descriptor.platform =
            Some(Platform { os: "unknown".into(), architecture: "unknown".into(), ..Platform::default() });
        descriptor.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        descriptor.annotations.insert("vnd.docker.reference.digest".into(), of.digest.to_string());
        descriptor
    }

    pub fn index(&mut self, manifests: Vec<Descriptor>) -> Descriptor {
        let index = serde_json::to_vec(&Index { manifests, ..Index::default() }).unwrap();
        self.blob(media_type::OCI_INDEX, index)
    }

    /// The archive in which these have the name.
    pub fn archive(&self, name: &str, top: &Descriptor) -> Vec<u8> {
        let mut named = top.clone();
        named.annotations.insert("io.containerd.image.name".into(), name.into());
        let index = Index { manifests: vec![named], ..Index::default() };
        let mut members = self.members.clone();
        members.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
        archive_of(&members)
    }
}

/// An archive of an image for this host and one for another, with a statement about the first. `(archive, index, own,
/// other)`
pub fn two_platforms(name: &str) -> (Vec<u8>, Descriptor, Built, Built) {
    let (own, other) = (built_for(&host(), "own"), built_for(&foreign(), "other"));
    let mut layout = Layout::default();
    let manifests = [layout.image(&other, &foreign()), layout.image(&own, &host())];
    let statement = layout.statement(&manifests[1], r#"{"predicate":{"builder":"x"}}"#);
    let absent = Descriptor {
        platform: Some(platform("linux/s390x")),
        ..Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"elsewhere"), 9)
    };
    let index = layout.index(manifests.into_iter().chain([statement, absent]).collect());
    (layout.archive(name, &index), index, own, other)
}

#[test]
fn a_name_stands_for_several_platforms() {
    let fixture = Fixture::new();
    let (archive, index, own, other) = two_platforms("docker.io/library/multi:1");
    let loaded = fixture.load(&archive).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!((&loaded[0].target, &loaded[0].image.id), (&Target::Index(index.digest.clone()), &own.id()));
    let fixture = fixture.restart();
    let images = &fixture.images;
    assert_eq!(images.resolve("multi:1").unwrap().id, own.id());
    assert_eq!(on(images, &foreign()).unwrap().id, other.id());
    for absent in ["linux/s390x", "windows/amd64"] {
        assert_eq!(
            on(images, &platform(absent)).unwrap_err().to_string(),
            format!(
                "image with reference multi:1 was found but does not provide the specified platform ({absent})"
            )
        );
    }
    // By ID, by the index's digest, and by what an image of another platform has for an ID.
    for name in [own.id().short(), index.digest.as_str(), &index.digest.hex()[..12]] {
        let found = images.find(name, None).unwrap();
        assert_eq!(
            (found.target, &found.image.id),
            (Target::Index(index.digest.clone()), &own.id()),
            "{name}"
        );
    }
    let found = images.find(other.id().short(), None).unwrap();
    assert_eq!((found.target, &found.image.id), (Target::Image(other.id()), &other.id()));
    // One line for all of it.
    let list = images.catalog().list(&ListFilter { all: true, ..ListFilter::default() }).unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].repo_tags.as_slice(), &list[0].image.id), (&["multi:1".to_owned()][..], &own.id()));
    let kinds: Vec<_> = images
        .catalog()
        .manifests(&list[0].target)
        .into_iter()
        .map(|one| (one.kind, one.available, one.unpacked))
        .collect();
    let about = ChildKind::Attestation(images.get(&own.id()).unwrap().manifest.digest.to_string());
    assert_eq!(
        kinds,
        [
            (ChildKind::Image, true, 5),
            (ChildKind::Image, true, 3),
            (about, true, 0),
            (ChildKind::Image, false, 0)
        ]
    );
    let statements = images.catalog().statements("multi:1", &StatementFilter::default()).unwrap();
    assert_eq!(statements.len(), 1);
    assert_eq!(
        (statements[0].predicate.as_str(), &statements[0].body),
        ("https://slsa.dev/provenance/v1", &None)
    );
    let with = StatementFilter { with_body: true, ..StatementFilter::default() };
    let body = images.catalog().statements("multi:1", &with).unwrap()[0].body.clone().unwrap();
    assert_eq!(body["predicate"]["builder"], "x");
    let others = StatementFilter { platform: Some(foreign()), ..StatementFilter::default() };
    assert_eq!(images.catalog().statements("multi:1", &others).unwrap(), []);
}

#[test]
fn removing_the_name_removes_every_platform() {
    let fixture = Fixture::new();
    let (archive, _, own, other) = two_platforms("docker.io/library/multi:1");
    fixture.load(&archive).unwrap();
    let images = &fixture.images;
    images
        .names()
        .tag(&images.find("multi:1", None).unwrap().target, &Reference::parse("second").unwrap(), now(1))
        .unwrap();
    let stopped = |id: &Digest| match *id == other.id() {
        true => vec![User { container: "c".repeat(64), running: false }],
        false => Vec::new(),
    };
    assert_eq!(images.removals().remove("multi:1", RemoveOptions::default(), &stopped).unwrap().len(), 1);
    // A container on another platform of it is a user like any other.
    let error = images.removals().remove("second", RemoveOptions::default(), &stopped).unwrap_err();
    assert!(error.to_string().contains("container cccccccccccc is using its referenced image"), "{error}");
    let removed = images.removals().remove("second", RemoveOptions::default(), &nobody).unwrap();
    assert!(removed.contains(&Removed::Image(own.id())) && removed.contains(&Removed::Image(other.id())));
    assert!(fixture.is_empty());
    assert!(fixture.restart().is_empty());
}

#[test]
fn a_part_of_an_index_does_not_go_by_its_own_id() {
    let fixture = Fixture::new();
    let (archive, _, _, other) = two_platforms("docker.io/library/multi:1");
    fixture.load(&archive).unwrap();
    let images = &fixture.images;
    let manifest = images.get(&other.id()).unwrap().manifest.digest.clone();
    for id in [other.id().short(), manifest.as_str()] {
        let force = RemoveOptions { force: true, ..RemoveOptions::default() };
        let error = images.removals().remove(id, force, &nobody).unwrap_err();
        assert!(error.to_string().contains("(cannot be forced) - it is a platform of multi:1"), "{error}");
    }
    // With a name of its own it outlives the index.
    images.names().tag(&Target::Image(other.id()), &Reference::parse("own").unwrap(), now(1)).unwrap();
    images.removals().remove("multi:1", RemoveOptions::default(), &nobody).unwrap();
    assert_eq!(images.all().len(), 1);
    assert_eq!(images.resolve("own").unwrap().id, other.id());
}

#[test]
fn one_platform_goes_and_the_others_stay() {
    let fixture = Fixture::new();
    let (archive, index, own, other) = two_platforms("docker.io/library/multi:1");
    fixture.load(&archive).unwrap();
    let images = &fixture.images;
    let remove = |platform: &Platform| {
        let platforms = std::slice::from_ref(platform);
        images.removals().remove_platforms("multi:1", platforms, RemoveOptions::default(), &nobody)
    };
    assert_eq!(remove(&platform("linux/s390x")).unwrap_err().kind(), Kind::NotFound);
    let removed = remove(&host()).unwrap();
    assert_eq!(removed[0], Removed::Image(own.id()));
    // Now the other one stands for it.
    assert_eq!(images.resolve("multi:1").unwrap().id, other.id());
    assert_eq!(
        images
            .catalog()
            .statements("multi:1", &StatementFilter { platform: Some(foreign()), ..Default::default() })
            .unwrap(),
        []
    );
    assert_eq!(fixture.blobs(), 4, "the index, and the other image");
    let fixture = fixture.restart();
    assert_eq!(fixture.images.resolve("multi:1").unwrap().id, other.id());
    // It comes back.
    fixture.load(&archive).unwrap();
    assert_eq!(fixture.images.resolve("multi:1").unwrap().id, own.id());
    assert_eq!(fixture.images.index(&index.digest).unwrap().children.len(), 4);
    // With the last one goes the name.
    let both = [host(), foreign()];
    fixture.images.removals().remove_platforms("multi:1", &both, RemoveOptions::default(), &nobody).unwrap();
    assert!(fixture.is_empty());
}

#[test]
fn a_platform_that_comes_later_joins_the_others() {
    let fixture = Fixture::new();
    let (archive, index, own, other) = two_platforms("docker.io/library/multi:1");
    let load = |fixture: &Fixture, platform: Platform| {
        let options = LoadOptions { platforms: vec![platform], now: now(1) };
        fixture.images.archives().load(Input::Stream(&archive[..]), &options, &mut |_| {})
    };
    load(&fixture, foreign()).unwrap();
    assert_eq!(fixture.images.all().len(), 1);
    assert_eq!(fixture.images.resolve("multi:1").unwrap().id, other.id());
    let error = load(&fixture, platform("linux/s390x")).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (
            Kind::NotFound,
            "image with reference multi:1 was found but does not provide the specified platform (linux/s390x)"
        )
    );
    load(&fixture, host()).unwrap();
    let fixture = fixture.restart();
    assert_eq!(fixture.images.resolve("multi:1").unwrap().id, own.id());
    assert_eq!(on(&fixture.images, &foreign()).unwrap().id, other.id());
    assert_eq!(fixture.images.index(&index.digest).unwrap().children.len(), 4);
}

#[test]
fn platforms_go_through_save_and_load() {
    let fixture = Fixture::new();
    let (archive, index, own, other) = two_platforms("docker.io/library/multi:1");
    fixture.load(&archive).unwrap();
    let save =
        |platforms: &[Platform]| fixture.images.archives().save(&["multi:1".into()], platforms, Vec::new());
    for platforms in [&[][..], &[foreign(), host()]] {
        let again = Fixture::new();
        let loaded = again.load(&save(platforms).unwrap()).unwrap();
        assert_eq!(loaded[0].target, Target::Index(index.digest.clone()));
        assert_eq!(again.images.all().len(), 2);
        assert_eq!(again.blobs(), fixture.blobs());
        assert_eq!(again.names(), ["multi:1"]);
    }
    let again = Fixture::new();
    let loaded = again.load(&save(&[foreign()]).unwrap()).unwrap();
    assert_eq!((&loaded[0].target, &loaded[0].image.id), (&Target::Image(other.id()), &other.id()));
    assert_eq!(save(&[host(), platform("linux/s390x")]).unwrap_err().kind(), Kind::NotFound);
    // An image under the same ID as one that an index has is the index's.
    let single = own.docker_archive(&["single:1"]);
    fixture.load(&single).unwrap();
    let list = fixture.images.catalog().list(&ListFilter::default()).unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].repo_tags, ["multi:1", "single:1"]);
    fixture.images.removals().remove("multi:1", RemoveOptions::default(), &nobody).unwrap();
    assert_eq!(fixture.images.all().len(), 1);
    assert_eq!(fixture.images.resolve("single:1").unwrap().id, own.id());
    fixture.images.removals().remove("single:1", RemoveOptions::default(), &nobody).unwrap();
    assert!(fixture.is_empty());
}

#[test]
fn an_index_that_lost_its_name_is_pruned() {
    let fixture = Fixture::new();
    let (archive, index, own, _) = two_platforms("docker.io/library/multi:1");
    fixture.load(&archive).unwrap();
    fixture.load(&Built::new("new", &[("f", b"1")]).docker_archive(&["multi:1"])).unwrap();
    let dangling = ListFilter { dangling: Some(true), ..ListFilter::default() };
    let list = fixture.images.catalog().list(&dangling).unwrap();
    assert_eq!(
        list.iter().map(|row| (&row.target, &row.image.id)).collect::<Vec<_>>(),
        [(&Target::Index(index.digest.clone()), &own.id())]
    );
    let (removed, freed) = fixture.images.removals().prune(&PruneFilter::default(), &nobody).unwrap();
    assert_eq!((removed.iter().filter(|one| matches!(one, Removed::Image(_))).count(), freed), (2, 8));
    assert_eq!(fixture.names(), ["multi:1"]);
    assert_eq!(fixture.blobs(), 3);
}

#[test]
fn names_from_before_there_were_indexes_are_read() {
    let fixture = Fixture::new();
    let built = Built::new("a", &[("f", b"1")]);
    fixture.load(&built.docker_archive(&["app:1"])).unwrap();
    let Fixture { directory, images } = fixture;
    let old = format!("{{\"id\":\"{}\",\"at\":\"2024-01-01T00:00:00Z\"}}", built.id());
    let batch = metadata::Batch::default().put("tags", "docker.io/library/app:1", old.clone().into_bytes());
    images.store.commit(batch.put("tags", "docker.io/library/old:1", old.into_bytes())).unwrap();
    drop(images);
    let images = open(directory.path());
    for name in ["app:1", "old:1"] {
        assert_eq!(images.find(name, None).unwrap().target, Target::Image(built.id()), "{name}");
    }
}

#[test]
fn an_image_may_be_packed_in_several_ways() {
    let fixture = Fixture::new();
    let (archive, index, own, _) = two_platforms("docker.io/library/multi:1");
    // Its layer is not compressed here, and in the index it is.
    fixture.load(&own.docker_archive(&["single:1"])).unwrap();
    let before = fixture.images.resolve("single:1").unwrap();
    fixture.load(&archive).unwrap();
    let fixture = fixture.restart();
    let after = fixture.images.resolve("multi:1").unwrap();
    assert_eq!((&after.id, &after.manifest), (&before.id, &before.manifest));
    let found = fixture.images.find("multi:1", None).unwrap();
    let packed = fixture.images.catalog().packed(&found.target, &after);
    assert_ne!(packed.manifest.digest, after.manifest.digest);
    assert!(packed.is_here(&fixture.images.content));
    let available = fixture.images.catalog().manifests(&found.target);
    assert_eq!(available.iter().filter(|one| one.available).count(), 3);
    // Each name goes into an archive as it came.
    for (name, target) in
        [("multi:1", Target::Index(index.digest.clone())), ("single:1", Target::Image(own.id()))]
    {
        let other = Fixture::new();
        let saved = fixture.images.archives().save(&[name.to_owned()], &[], Vec::new()).unwrap();
        assert_eq!(other.load(&saved).unwrap()[0].target, target);
        let manifest = &other.images.get(&own.id()).unwrap().manifest.digest;
        assert_eq!(
            manifest,
            if name == "multi:1" { &packed.manifest.digest } else { &before.manifest.digest }
        );
    }
    let clean = |fixture: &Fixture| {
        fixture.images.checkup().run(Containers { exists: &|_| false, all: &[] }, false).unwrap().findings
    };
    assert_eq!(clean(&fixture), []);
    // With the index goes what only it needs.
    fixture.images.removals().remove("multi:1", RemoveOptions::default(), &nobody).unwrap();
    assert_eq!((fixture.blobs(), clean(&fixture)), (3, vec![]));
    fixture.load(&archive).unwrap();
    let platforms = std::slice::from_ref(&foreign()).to_vec();
    fixture.images.removals().remove("single:1", RemoveOptions::default(), &nobody).unwrap();
    fixture
        .images
        .removals()
        .remove_platforms("multi:1", &platforms, RemoveOptions::default(), &nobody)
        .unwrap();
    assert_eq!(clean(&fixture), []);
    fixture.images.removals().remove("multi:1", RemoveOptions::default(), &nobody).unwrap();
    assert!(fixture.is_empty());
}

#[test]
fn ids_with_names_in_several_repositories_need_force() {
    let fixture = Fixture::new();
    let (archive, ..) = two_platforms("docker.io/library/multi:1");
    fixture.load(&archive).unwrap();
    let images = &fixture.images;
    let found = images.find("multi:1", None).unwrap();
    images.names().tag(&found.target, &Reference::parse("other").unwrap(), now(1)).unwrap();
    let id = found.image.id.short().to_owned();
    let error = images.removals().remove(&id, RemoveOptions::default(), &nobody).unwrap_err();
    assert!(
        error.to_string().ends_with("(must be forced) - image is referenced in multiple repositories"),
        "{error}"
    );
    assert_eq!(fixture.names().len(), 2);
    let force = RemoveOptions { force: true, ..RemoveOptions::default() };
    images.removals().remove(&id, force, &nobody).unwrap();
    assert!(fixture.is_empty());
}
