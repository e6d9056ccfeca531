//! Archives whose layers are unpacked while the rest is read.

use std::io::Read;

use super::*;

fn rests(fixture: &Fixture) -> usize {
    std::fs::read_dir(fixture.directory.path().join("snapshots/overlay/rest")).unwrap().count()
}

fn shown(fixture: &Fixture, name: &str, path: &str) -> String {
    let image = fixture.images.resolve(name).unwrap();
    let directories = fixture.images.snapshots.lowers(image.chain().unwrap()).unwrap();
    let found = directories.iter().find_map(|directory| std::fs::read_to_string(directory.join(path)).ok());
    found.unwrap_or_default()
}

/// Hands over the last bytes only when the layers before them are unpacked.
struct Slow<'a> {
    bytes: &'a [u8],
    until: usize,
    ready: Box<dyn Fn() -> bool + 'a>,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.until == 0 {
            let begun = std::time::Instant::now();
            while !(self.ready)() {
                assert!(begun.elapsed().as_secs() < 20, "nothing was unpacked while the archive was read");
                std::thread::yield_now();
            }
            self.until = usize::MAX;
        }
        let count = buffer.len().min(self.until).min(self.bytes.len());
        buffer[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        self.until -= count;
        Ok(count)
    }
}

#[test]
fn layers_are_unpacked_before_the_archive_has_ended() {
    let fixture = Fixture::new();
    let built = Built::new("a", &[("low", b"1"), ("high", b"2")]);
    let archive = built.docker_archive(&["a:1"]);
    let until = archive.len() - 2048;
    let rest = fixture.directory.path().join("snapshots/overlay/rest");
    let is_there = |name: &str| {
        let stages = std::fs::read_dir(&rest).unwrap();
        stages.flatten().any(|stage| stage.path().join("fs").join(name).exists())
    };
    let ready = Box::new(move || is_there("low") && is_there("high"));
    let stream = Slow { bytes: &archive, until, ready };
    fixture.images.archives().load(Input::Stream(stream), &options(), &mut |_| {}).unwrap();
    assert_eq!((shown(&fixture, "a:1", "low"), shown(&fixture, "a:1", "high")), ("1".into(), "2".into()));
    assert_eq!(rests(&fixture), 0);
}

#[test]
fn what_was_guessed_wrong_is_put_right() {
    let fixture = Fixture::new();
    // A folder that only the layer below carries; the same layer twice; and archives that are no layers.
    let low = {
        let mut writer = Writer::new(Vec::new());
        let folder = Entry { mode: 0o711, ..Entry::directory("d") };
        writer.append(&folder, &mut std::io::empty()).unwrap();
        writer.finish().unwrap()
    };
    let high = layer("d/file", b"2");
    let built = Built::of("a", vec![low, high.clone(), high]);
    let mut members = built.docker_members(&["a:1"]);
    members.insert(0, ("other.tar".into(), layer("nobody", b"3")));
    members.insert(0, ("broken.gz".into(), vec![0x1f, 0x8b, 1, 2, 3]));
    fixture.load(&archive_of(&members)).unwrap();
    let image = fixture.images.resolve("a:1").unwrap();
    let directory = fixture.images.snapshots.layer(&image.chains[1]).unwrap().directory.join("d");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(directory).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o711, "the folder looks as it does below");
    assert_eq!(
        (shown(&fixture, "a:1", "d/file"), shown(&fixture, "a:1", "nobody")),
        ("2".into(), String::new())
    );
    assert_eq!((rests(&fixture), fixture.images.snapshots.layers().len()), (0, 3));
    // Of a layer that is not what the configuration says, nothing stays.
    let mut wrong = Built::new("b", &[("x", b"1"), ("y", b"2")]);
    wrong.layers.swap(0, 1);
    assert!(matches!(fixture.load(&wrong.docker_archive(&["b:1"])), Err(Error::DiffId { index: 0, .. })));
    assert_eq!((rests(&fixture), fixture.images.snapshots.layers().len()), (0, 3));
    // An archive that breaks off leaves nothing either.
    let archive = Built::new("c", &[("x", b"1"), ("y", b"2")]).docker_archive(&["c:1"]);
    assert!(fixture.load(&archive[..archive.len() - 2000]).is_err());
    assert_eq!((rests(&fixture), fixture.names()), (0, vec!["a:1".to_owned()]));
}
