//! Archives that are read where they lie in a file.

use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Layers of more than one piece, whose content does not compress.
fn large() -> Built {
    let noise = |seed: u64| -> Vec<u8> {
        let mut state = seed;
        let step = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(step).take(700_000).collect()
    };
    Built::of("large", (0..7).map(|number| layer(&format!("file{number}"), &noise(number))).collect())
}

fn is_clean(fixture: &Fixture) -> bool {
    let count = |path| std::fs::read_dir(fixture.directory.path().join(path)).unwrap().count();
    fixture.is_empty() && count("content/ingest") == 0 && count("snapshots/overlay/rest") == 0
}

#[test]
fn all_forms_come_to_the_same_as_a_stream() {
    let built = large();
    for archive in [
        built.docker_archive(&["a:1"]),
        built.layout(Some("docker.io/library/a:1"), gzip),
        gzip(&built.docker_archive(&["a:1"])),
    ] {
        let (streamed, lying) = (Fixture::new(), Fixture::new());
        streamed.load(&archive).unwrap();
        let mut file = file_of(&archive);
        // Whoever shares the descriptor may have read of it.
        file.seek(SeekFrom::Start(1000)).unwrap();
        let shared = file.try_clone().unwrap();
        let move_on = move || (&shared).read(&mut [0]).is_ok();
        lying.load_file(file, &move_on).unwrap();
        let image = |fixture: &Fixture| {
            let image = fixture.images.resolve("a:1").unwrap();
            (image.id.clone(), image.layers.clone(), image.size(), fixture.blobs())
        };
        assert_eq!(image(&lying), image(&streamed));
        let findings =
            lying.images.checkup().run(Containers { exists: &|_| false, all: &[] }, false).unwrap();
        assert_eq!(findings.findings, vec![]);
        // Once more: it is there already.
        lying.load_file(file_of(&archive), &|| true).unwrap();
        assert_eq!(image(&lying), image(&streamed));
    }
}

#[test]
fn nobody_waits_any_more() {
    let archive = large().layout(Some("a/b:c"), gzip);
    let asked = AtomicUsize::new(0);
    let fixture = Fixture::new();
    fixture.load_file(file_of(&archive), &|| asked.fetch_add(1, Ordering::Relaxed) < usize::MAX).unwrap();
    let times = asked.load(Ordering::Relaxed);
    for left in [0, 1, times / 2, times - 5] {
        let (fixture, asked) = (Fixture::new(), AtomicUsize::new(0));
        let error = fixture
            .load_file(file_of(&archive), &|| asked.fetch_add(1, Ordering::Relaxed) < left)
            .unwrap_err();
        assert!(error.to_string().contains("the client has gone"), "{error}");
        assert!(is_clean(&fixture), "{left} of {times}");
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_refused_or_comes_whole() {
    let archive = large().layout(Some("a/b:c"), gzip);
    for change in 0..3 {
        for at in [1, 12, 20, 30] {
            let file = file_of(&archive);
            let (changed, asked) = (file.try_clone().unwrap(), AtomicUsize::new(0));
            let fixture = Fixture::new();
            let meddle = || {
                if asked.fetch_add(1, Ordering::Relaxed) == at {
                    use std::os::unix::fs::FileExt;
                    match change {
                        0 => changed.set_len(100_000).unwrap(),
                        1 => changed.write_all_at(&[7; 600_000], 200_000).unwrap(),
                        _ => changed.write_all_at(&[0; 4096], 0).unwrap(),
                    }
                }
                true
            };
            match fixture.load_file(file, &meddle) {
                Ok(_) => assert_eq!(fixture.images.all().len(), 1),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Invalid, "{error}");
                    assert!(is_clean(&fixture), "{change} {at}: {error}");
                }
            }
        }
    }
}

#[test]
fn holes_and_sizes_beyond_the_bound_are_refused_without_reading() {
    let fixture = Fixture::new();
    let file = file_of(&large().docker_archive(&["a:1"]));
    file.set_len(1 << 40).unwrap();
    let error = fixture.load_file(file, &|| true).unwrap_err();
    assert!(error.to_string().contains("the archive has more than 67108864 bytes"), "{error}");
    assert!(is_clean(&fixture));
}
