//! Documents and archives that nobody honest makes.

use oci::Platform;

use super::platforms::{Layout, built_for, two_platforms};
use super::*;

#[test]
fn hostile_archives_change_nothing() {
    let good = Built::new("a", &[("f", b"1"), ("g", b"2")]);
    let check = |what: &str, bytes: &[u8], expected: &str| {
        for in_file in [false, true] {
            let fixture = Fixture::new();
            let error = fixture.load_from(bytes, in_file).unwrap_err();
            assert!(error.to_string().contains(expected), "{what}: {error}");
            let kind = if what == "lzip" { Kind::NotImplemented } else { Kind::Invalid };
            assert_eq!(error.kind(), kind, "{what}");
            assert!(fixture.is_empty(), "{what} left something");
            let ingest = std::fs::read_dir(fixture.directory.path().join("content/ingest")).unwrap().count();
            assert_eq!(ingest, 0, "{what}");
        }
    };
    let with = |change: &dyn Fn(&mut Members)| {
        let mut members = good.docker_members(&["a:b"]);
        change(&mut members);
        archive_of(&members)
    };
    let whole = good.docker_archive(&["a:b"]);
    check("cut off in a layer", &whole[..2000], "unexpected end");
    check("cut off gzip", &gzip(&whole)[..200], "unexpected end");
    check("no manifest", &layer("x", b""), "neither a manifest.json nor an index.json");
    check("not a tar", b"hello, this is no archive at all", "unexpected end");
    check("lzip", b"LZIP\x01\x0c", "lzip compression is not supported yet");
    check("bad json", &with(&|m| m[3].1 = b"[{".to_vec()), "manifest.json is not valid");
    check("missing layer", &with(&|m| drop(m.remove(1))), "layer0/layer.tar is missing");
    check(
        "changed layer",
        &with(&|m| m[2].1 = layer("g", b"3")),
        "invalid diffID for layer 1: expected \"sha256:",
    );
    check("changed configuration", &with(&|m| m[0].1.push(b' ')), "content has digest");
    check("climbing name", &with(&|m| m[1].0 = "../../x".into()), "leads outside");
    check(
        "climbing reference",
        &with(&|m| {
            let text = String::from_utf8(m[3].1.clone()).unwrap();
            m[3].1 = text.replace("layer0/layer.tar", "../../../etc/passwd").into_bytes();
        }),
        "leads outside",
    );
    check("bad tag", &good.docker_archive(&["a b"]), "invalid reference format");
    check("untagged tag", &good.docker_archive(&["a"]), "invalid tag \"a\"");
    check(
        "too few layers",
        &with(&|m| {
            let text = String::from_utf8(m[3].1.clone()).unwrap();
            m[3].1 = text.replace(r#","layer1/layer.tar""#, "").into_bytes();
        }),
        "layers length mismatch: expected 2, got 1",
    );
    let mut writer = Writer::new(Vec::new());
    writer
        .append(&Entry { kind: Member::Fifo, ..Entry::file("manifest.json", 0) }, &mut std::io::empty())
        .unwrap();
    check("fifo", &writer.finish().unwrap(), "neither a file nor a directory");
    let escape = {
        let mut writer = Writer::new(Vec::new());
        writer.append_bytes("../../outside", b"x").unwrap();
        writer.finish().unwrap()
    };
    check("escaping layer", &Built::of("a", vec![escape]).docker_archive(&[]), "leads outside of the root");
    // 70 MB of zeros in 70 kB, where 64 MB are allowed.
    let bomb = layer("zeros", &vec![0; 70 << 20]);
    let bomb = Built::of("a", vec![bomb]).layout(None, gzip);
    assert!(bomb.len() < 1 << 20);
    check("bomb", &bomb, "the archive has more than 67108864 bytes");
    let mut many = Writer::new(Vec::new());
    for index in 0..1100 {
        many.append_bytes(&index.to_string(), b"").unwrap();
    }
    let many = Built::of("a", vec![many.finish().unwrap()]).docker_archive(&[]);
    check("many entries", &many, "more than 1000 entries");
    let mut lying = good.layout(None, gzip);
    let position = lying.windows(8).position(|w| w == b"linux\",\"").unwrap();
    lying[position] = b'L';
    check("lying blob", &lying, "content has digest");
    let other_system = Built {
        config: String::from_utf8(good.config.clone())
            .unwrap()
            .replace("\"os\":\"linux\"", "\"os\":\"windows\"")
            .into(),
        layers: good.layers.clone(),
    };
    check("windows", &other_system.docker_archive(&[]), "cannot load windows image on linux");
}

#[test]
fn indexes_of_thousands_and_of_themselves_are_bounded() {
    let built = built_for(&Platform::host(), "own");
    let check = |what: &str, archive: &[u8], expected: &str| {
        let fixture = Fixture::new();
        let error = fixture.load(archive).unwrap_err();
        assert!(error.to_string().contains(expected), "{what}: {error}");
        assert_eq!(error.kind(), Kind::Invalid, "{what}");
        assert!(fixture.is_empty(), "{what}");
    };
    let mut layout = Layout::default();
    let image = layout.image(&built, &Platform::host());
    let wide = layout.index(vec![image.clone(); 5000]);
    check("wide", &layout.archive("a/b:c", &wide), "more than 4096 manifests");
    // Each level names the next a hundred times: a million entries in four small documents.
    let mut next = image.clone();
    for _ in 0..4 {
        next = layout.index(vec![next; 100]);
    }
    check("broad tree", &layout.archive("a/b:c", &next), "more than 4096 manifests");
    let mut deep = image.clone();
    for _ in 0..6 {
        deep = layout.index(vec![deep]);
    }
    check("deep", &layout.archive("a/b:c", &deep), "nested too deep");
    let mut nested = image;
    for _ in 0..3 {
        nested = layout.index(vec![nested]);
    }
    let fixture = Fixture::new();
    fixture.load(&layout.archive("a/b:c", &nested)).unwrap();
    assert_eq!(fixture.restart().images.resolve("a/b:c").unwrap().id, built.id());
}

#[test]
fn an_index_cannot_name_itself() {
    // Whoever could make one would have broken the digest; an archive can only pretend.
    let mut layout = Layout::default();
    let own = Digest::of(b"what it claims to be");
    let entry = Descriptor::new(media_type::OCI_INDEX, own.clone(), 10);
    let index = layout.index(vec![entry.clone()]);
    let bytes = layout.archive("a/b:c", &index);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains(own.hex()));
    let fixture = Fixture::new();
    assert_eq!(fixture.load(&bytes).unwrap_err().kind(), Kind::Invalid);
    assert!(fixture.is_empty());
}

#[test]
fn manifests_of_thousands_of_layers_are_refused_without_work() {
    let built = Built::of("many", vec![layer("f", b"1"); 3000]);
    let fixture = Fixture::new();
    let started = std::time::Instant::now();
    let outcome = fixture.load(&built.layout(Some("a/b:c"), gzip));
    assert_eq!(outcome.unwrap_err().kind(), Kind::Invalid);
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
    assert!(fixture.is_empty());
}

/// Small documents that look like indexes, with all that can be wrong in them.
fn entry() -> impl Strategy<Value = serde_json::Value> {
    let kinds = prop_oneof![
        Just(media_type::OCI_INDEX),
        Just(media_type::OCI_MANIFEST),
        Just(media_type::DOCKER_MANIFEST_LIST),
        Just("text/plain"),
        Just("")
    ];
    let digests =
        prop_oneof![Just(Digest::of(b"a").to_string()), Just("sha256:../..".to_owned()), "[a-z0-9:]{0,20}"];
    let systems = prop_oneof![Just("linux"), Just("unknown"), Just("")];
    (kinds, digests, any::<i64>(), systems, any::<bool>()).prop_map(|(kind, digest, size, os, about)| {
        let mut entry = serde_json::json!({
            "mediaType": kind, "digest": digest, "size": size, "platform": { "os": os, "architecture": "amd64" },
        });
        if about {
            entry["annotations"] = serde_json::json!({ "vnd.docker.reference.type": "attestation-manifest" });
        }
        entry
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn documents_of_any_shape_do_no_harm(entries in proptest::collection::vec(entry(), 0..6), noise in "\\PC{0,40}") {
        let document = serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes();
        for bytes in [document, noise.into_bytes()] {
            let descriptor = Descriptor::new(media_type::OCI_INDEX, Digest::of(&bytes), bytes.len() as u64);
            // Every document that is asked for is this one again: an index that names itself.
            let _ = crate::index::read(&descriptor, now(0), &|_| Ok(Some(bytes.clone())));
            let _ = crate::index::read(&descriptor, now(0), &|entry| Ok((entry.digest == descriptor.digest).then(|| bytes.clone())));
        }
    }

    #[test]
    fn damaged_indexes_leave_all_or_nothing(at in 0usize..30_000, value: u8, cut in 1usize..40_000, in_file: bool) {
        let (mut bytes, ..) = two_platforms("docker.io/library/multi:1");
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(cut);
        let fixture = Fixture::new();
        match fixture.load_from(&bytes, in_file) {
            Ok(_) => {
                let clean = fixture.images.checkup().run(Containers { exists: &|_| false, all: &[] }, false).unwrap();
                prop_assert_eq!(clean.findings, vec![]);
            }
            Err(_) => prop_assert!(fixture.is_empty()),
        }
    }

    #[test]
    fn names_lead_to_nothing_strange(name in "[a-zA-Z0-9:@./ _-]{0,40}") {
        let fixture = Fixture::new();
        prop_assert!(fixture.images.find(&name, None).is_err());
        if let Ok(reference) = Reference::parse(&name) {
            prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
        }
    }
}
