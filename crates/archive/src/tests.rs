use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// An archive of members with their content.
fn archive(members: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in members {
        let entry = Entry { size: content.len() as u64, ..entry.clone() };
        writer.append(&entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

fn file(path: &str) -> Entry {
    Entry::file(path, 0)
}

fn link(path: &str, kind: Kind) -> Entry {
    Entry { kind, ..Entry::file(path, 0) }
}

fn symlink_to(path: &str, target: &str) -> Entry {
    link(path, Kind::Symlink(target.as_bytes().to_vec()))
}

fn hard_link_to(path: &str, target: &str) -> Entry {
    link(path, Kind::HardLink(target.as_bytes().to_vec()))
}

/// A root inside of a directory with something outside of it that must stay as it is.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/secret"), "untouched").unwrap();
        Place { directory }
    }
    fn root(&self) -> Root {
        Root::open_path(&self.path("")).unwrap()
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("root").join(name)
    }
    fn unpack(&self, bytes: &[u8], options: &UnpackOptions<'_>) -> Result<Unpacked, Error> {
        let result = unpack(bytes, &self.root(), options);
        let outside: Vec<_> = fs::read_dir(self.directory.path().join("outside")).unwrap().collect();
        assert_eq!(outside.len(), 1, "something was made outside of the root");
        let secret = fs::read_to_string(self.directory.path().join("outside/secret")).unwrap();
        assert_eq!(secret, "untouched");
        result
    }
}

fn layer() -> UnpackOptions<'static> {
    UnpackOptions { whiteouts: Whiteouts::Overlay, ..UnpackOptions::default() }
}

#[test]
fn every_kind_comes_in_and_goes_out_the_same() {
    let time = Time { seconds: 1_700_000_000, nanos: 0 };
    let long = format!("dir/{}", "x".repeat(180));
    let members = [
        (Entry { mtime: time, mode: 0o2775, uid: 3, gid: 4, ..Entry::directory("dir/") }, &b""[..]),
        (Entry { mtime: time, mode: 0o4755, uid: 1000, gid: 3_000_000, ..file("dir/a") }, b"hello"),
        (Entry { mtime: time, xattrs: vec![(b"user.k".to_vec(), b"v\0w".to_vec())], ..file("dir/b") }, b""),
        (Entry { mtime: time, kind: Kind::Character { major: 1, minor: 3 }, ..file("dir/c") }, b""),
        (Entry { mtime: time, kind: Kind::Fifo, ..file("dir/f") }, b""),
        (
            Entry { mtime: time, mode: 0o4755, uid: 1000, gid: 3_000_000, ..hard_link_to("dir/h", "dir/a") },
            b"",
        ),
        (Entry { mtime: time, mode: 0o777, ..symlink_to("dir/s", "/etc/passwd") }, b""),
        (Entry { mtime: time, ..file(&long) }, b"long"),
    ];
    let bytes = archive(&members);
    let place = Place::new();
    let unpacked = place.unpack(&bytes, &layer()).unwrap();
    assert_eq!((unpacked.bytes, unpacked.entries), (9, 8));
    let stat = fs::metadata(place.path("dir/a")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.nlink()), (1000, 3_000_000, 0o4755, 2));
    assert_eq!(stat.mtime(), 1_700_000_000);
    assert_eq!(fs::metadata(place.path("dir")).unwrap().mtime(), 1_700_000_000);
    assert!(fs::metadata(place.path("dir/c")).unwrap().file_type().is_char_device());
    let (packed, content) = pack(&place.root(), &PackOptions::default(), Vec::new()).unwrap();
    assert_eq!(content, 9);
    assert!(packed == bytes, "the archive changed on its way");
}

#[test]
fn nothing_leaves_the_root() {
    // Refused by name.
    for path in ["../outside/x", "a/../../outside/x", "/../x"] {
        let error = Place::new().unpack(&archive(&[(file(path), b"x")]), &layer()).unwrap_err();
        assert!(matches!(error, Error::Climbs(_)), "{path}: {error}");
    }
    let error = Place::new().unpack(&archive(&[(hard_link_to("x", "../outside/secret"), b"")]), &layer());
    assert!(matches!(error, Err(Error::Climbs(_))));
    // Links that lead out lead around inside.
    for target in ["../outside", "/outside", "../../../../../../../outside", "/proc/self/root"] {
        let place = Place::new();
        let bytes = archive(&[
            (symlink_to("l", target), b""),
            (Entry::directory("outside"), b""),
            (file("l/new"), b"x"),
        ]);
        let result = place.unpack(&bytes, &layer());
        if target.starts_with("/proc") {
            assert!(result.is_err());
        } else {
            result.unwrap();
            assert!(place.path("outside/new").exists(), "{target}");
        }
    }
    // A hard link to a link does not follow it, and writing over it does not either.
    let place = Place::new();
    let secret = place.directory.path().join("outside/secret");
    let bytes = archive(&[
        (symlink_to("l", secret.to_str().unwrap()), b""),
        (hard_link_to("h", "l"), b""),
        (file("h"), b"changed"),
        (file("l"), b"changed"),
    ]);
    place.unpack(&bytes, &layer()).unwrap();
    assert_eq!(fs::read(place.path("l")).unwrap(), b"changed");
    // Modes and times of links stay theirs.
    let place = Place::new();
    let mode = fs::metadata(&secret).unwrap_or_else(|_| fs::metadata("/etc/passwd").unwrap()).mode();
    let target = place.directory.path().join("outside/secret");
    let bytes = archive(&[(Entry { mode: 0o777, ..symlink_to("l", target.to_str().unwrap()) }, b"")]);
    place.unpack(&bytes, &layer()).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().mode(), mode);
}

#[test]
fn later_members_replace_earlier_ones() {
    let place = Place::new();
    let bytes = archive(&[
        (Entry::directory("d"), b""),
        (file("d/x"), b"1"),
        (file("d"), b"now a file"),
        (file("f"), b"1"),
        (Entry::directory("f"), b""),
        (file("f/y"), b"2"),
        (symlink_to("s", "f"), b""),
        (Entry::directory("s"), b""),
        (file("s/z"), b"3"),
        (file("same"), b"first"),
        (hard_link_to("same", "./same"), b""),
    ]);
    place.unpack(&bytes, &layer()).unwrap();
    assert_eq!(fs::read(place.path("d")).unwrap(), b"now a file");
    assert!(place.path("f/y").exists() && !place.path("f/z").exists() && place.path("s/z").exists());
    assert_eq!(fs::read(place.path("same")).unwrap(), b"first");
    let keep = UnpackOptions { keep_kinds: true, ..UnpackOptions::default() };
    let error = place.unpack(&archive(&[(file("f"), b"")]), &keep).unwrap_err();
    assert!(error.to_string().ends_with("cannot overwrite directory with non-directory"), "{error}");
}

#[test]
fn whiteouts_become_overlays() {
    let place = Place::new();
    let bytes = archive(&[
        (Entry::directory("d"), b""),
        (file("d/.wh..wh..opq"), b""),
        (file("d/.wh.gone"), b""),
        (file("d/.wh..wh.plnk"), b""),
        (file(".wh.was-file-now-directory"), b""),
        (Entry::directory("was-file-now-directory"), b""),
        (Entry::directory("brought"), b""),
        (file(".wh.brought"), b""),
    ]);
    place.unpack(&bytes, &layer()).unwrap();
    let stat = fs::symlink_metadata(place.path("d/gone")).unwrap();
    assert!(stat.file_type().is_char_device() && stat.rdev() == 0);
    for opaque in ["d", "was-file-now-directory", "brought"] {
        let mut value = [0u8; 4];
        let count =
            rustix::fs::lgetxattr(place.path(opaque), "trusted.overlay.opaque", &mut value[..]).unwrap();
        assert_eq!(&value[..count], b"y", "{opaque}");
    }
    let options = PackOptions { overlay_upper: true, ..PackOptions::default() };
    let (packed, _) = pack(&place.root(), &options, Vec::new()).unwrap();
    let mut reader = Reader::new(&packed[..]);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        assert!(entry.xattrs.is_empty());
        names.push(String::from_utf8(entry.path).unwrap());
    }
    let expected = [
        "brought/",
        "brought/.wh..wh..opq",
        "d/",
        "d/.wh..wh..opq",
        "d/.wh.gone",
        "was-file-now-directory/",
        "was-file-now-directory/.wh..wh..opq",
    ];
    assert_eq!(names, expected);
    for bad in [".wh.", ".wh...", "d/.wh.."] {
        assert!(Place::new().unpack(&archive(&[(file(bad), b"")]), &layer()).is_err(), "{bad}");
    }
}

#[test]
fn layers_hide_the_same_in_whole_trees() {
    let below = [
        (
            Entry {
                mode: 0o700,
                xattrs: vec![(b"user.old".to_vec(), b"1".to_vec())],
                ..Entry::directory("dir/")
            },
            &b""[..],
        ),
        (file("dir/kept"), b"kept"),
        (Entry::directory("twice/"), b""),
        (file("twice/old"), b"old"),
        (file("file"), b"a file"),
        (symlink_to("nowhere", "none"), b""),
        (symlink_to("link", "dir"), b""),
    ];
    let above = [
        (Entry { mode: 0o750, ..Entry::directory("dir/") }, &b""[..]),
        // Both brought and hidden: nothing of the layer below shines through.
        (Entry::directory("twice/"), b""),
        (file("twice/new"), b"new"),
        (file(".wh.twice"), b""),
        // The directories of these are not in the archive.
        (file("file/inner"), b"inner"),
        (file("nowhere/inner"), b"inner"),
        (file("link/linked"), b"linked"),
    ];
    let place = Place::new();
    let options = UnpackOptions { whiteouts: Whiteouts::Remove, ..UnpackOptions::default() };
    place.unpack(&archive(&below), &options).unwrap();
    place.unpack(&archive(&above), &options).unwrap();
    let read = |path: &str| fs::read_to_string(place.path(path)).unwrap();
    assert_eq!(
        (read("dir/kept"), read("dir/linked"), read("twice/new")),
        ("kept".into(), "linked".into(), "new".into())
    );
    assert_eq!((read("file/inner"), read("nowhere/inner")), ("inner".into(), "inner".into()));
    assert!(!place.path("twice/old").exists());
    let mut value = [0; 8];
    assert!(rustix::fs::getxattr(place.path("dir"), "user.old", &mut value[..]).is_err());
    assert_eq!(fs::metadata(place.path("dir")).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn changes_are_packed_by_name() {
    let place = Place::new();
    for directory in ["changed", "changed/untouched", "new"] {
        fs::create_dir(place.path(directory)).unwrap();
    }
    for path in ["changed/file", "changed/other", "new/file", "left-out"] {
        fs::write(place.path(path), path).unwrap();
    }
    let changed = |path: &str, removed| Changed { path: path.into(), removed };
    let changes = [
        changed("changed", false),
        changed("changed/file", false),
        changed("changed/gone", true),
        changed("gone", true),
        changed("left-out", false),
        changed("new", false),
        changed("new/file", false),
        changed("vanished", false),
    ];
    let leave_out = [b"left-out".to_vec()].into();
    let options = PackOptions { leave_out, ..PackOptions::default() };
    let (bytes, content) = pack_changes(&place.root(), &changes, &options, Vec::new()).unwrap();
    assert_eq!(content, 20);
    let mut reader = Reader::new(&bytes[..]);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    let expected = ["changed/", "changed/file", "changed/.wh.gone", ".wh.gone", "new/", "new/file"];
    assert_eq!(names, expected);
}

#[test]
fn whiteouts_remove() {
    let place = Place::new();
    fs::create_dir_all(place.path("d/sub")).unwrap();
    for name in ["d/old", "d/sub/old", "gone", "kept"] {
        fs::write(place.path(name), "").unwrap();
    }
    let bytes = archive(&[
        (file("d/sub/new"), b""),
        (file("d/.wh..wh..opq"), b""),
        (file(".wh.gone"), b""),
        (file("back"), b""),
        (file(".wh.back"), b""),
    ]);
    place
        .unpack(&bytes, &UnpackOptions { whiteouts: Whiteouts::Remove, ..UnpackOptions::default() })
        .unwrap();
    for (name, there) in [
        ("d/old", false),
        ("d/sub/old", false),
        ("d/sub/new", true),
        ("gone", false),
        ("kept", true),
        ("back", true),
    ] {
        assert_eq!(place.path(name).exists(), there, "{name}");
    }
}

#[test]
fn missing_directories_look_like_those_below() {
    let (lower, lowest) = (Place::new(), Place::new());
    fs::create_dir_all(lowest.path("tmp/in")).unwrap();
    std::os::unix::fs::chown(lowest.path("tmp/in"), Some(5), Some(6)).unwrap();
    fs::set_permissions(lowest.path("tmp"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir_all(lowest.path("hidden/in")).unwrap();
    fs::set_permissions(lowest.path("hidden"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir_all(lowest.path("file/in")).unwrap();
    fs::set_permissions(lowest.path("file/in"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(lower.path("hidden"), "").unwrap();
    fs::write(lower.path("file"), "").unwrap();
    for directory in ["tmp", "carried"] {
        fs::create_dir(lower.path(directory)).unwrap();
        fs::set_permissions(lower.path(directory), fs::Permissions::from_mode(0o1777)).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        fs::File::open(lower.path(directory)).unwrap().set_modified(old).unwrap();
    }
    let place = Place::new();
    let late = Entry { mode: 0o750, kind: Kind::Directory, ..file("carried") };
    let archive = archive(&[
        (file("top"), b"x"),
        (file("tmp/in/new/file"), b"x"),
        (file("hidden/file"), b"x"),
        (file("file/in/file"), b"x"),
        (file("carried/file"), b"x"),
        (late, b""),
        (file("gone/file"), b"x"),
        (file("gone"), b"x"),
    ]);
    let implied = place.unpack(&archive, &layer()).unwrap().implied;
    implied.look_like(&place.root(), &[lower.root(), lowest.root()]).unwrap();
    let found = |name: &str| fs::metadata(place.path(name)).unwrap();
    assert_eq!(found("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(found("tmp").mtime(), 1000);
    assert_eq!((found("tmp/in").uid(), found("tmp/in").gid()), (5, 6));
    assert_eq!(found("tmp/in/new").mode() & 0o7777, 0o755);
    for name in ["hidden", "file/in"] {
        assert_eq!(found(name).mode() & 0o7777, 0o755, "what another layer hides is not looked at: {name}");
    }
    assert_eq!(found("carried").mode() & 0o7777, 0o750, "the archive's own directory stays as it says");
    assert!(found("gone").is_file());
}

#[test]
fn names_of_missing_directories_are_bounded() {
    let deep = |number: usize| file(&format!("{number}/{}f", "d/".repeat(1800)));
    let entries: Vec<(Entry, &[u8])> = (0..10).map(|number| (deep(number), &b""[..])).collect();
    let error = Place::new().unpack(&archive(&entries), &layer()).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }) && error.is_invalid_archive(), "{error}");
    // What is no layer has nothing below, and nothing to remember.
    Place::new().unpack(&archive(&entries[..2]), &UnpackOptions::default()).unwrap();
}

#[test]
fn hostile_archives_are_refused() {
    let check = |bytes: &[u8], expected: &str| {
        let error = Place::new().unpack(bytes, &layer()).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.is_invalid_archive());
    };
    let overlay = vec![(b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec())];
    check(&archive(&[(Entry { xattrs: overlay, ..file("x") }, b"")]), r#"entry "x": overlayfs attribute"#);
    check(
        &archive(&[(hard_link_to("a", "b"), b"")]),
        r#"entry "a": hard link to what is not in the archive"#,
    );
    check(&archive(&[(symlink_to("a", ""), b"")]), r#"entry "a": symbolic link to nothing"#);
    check(&archive(&[(file("."), b"")]), r#"entry ".": the root is not a directory"#);
    let long = vec!["d".repeat(200); 30].join("/");
    check(&archive(&[(file(&long), b"")]), &format!("entry {long:?}: path too long"));
    let whole = archive(&[(file("a"), &[7; 2000])]);
    check(&whole[..1500], "unexpected end of the archive");
    check(&whole[..300], "unexpected end of the archive");
    let mut broken = whole.clone();
    broken[3] ^= 1;
    check(&broken, "invalid tar header at byte 0: wrong checksum");
    let limits = Limits { bytes: 4096, entries: 2 };
    let options = UnpackOptions { limits, ..layer() };
    let error = Place::new().unpack(&archive(&[(file("a"), &[0; 8192])]), &options).unwrap_err();
    assert_eq!(error.to_string(), "the archive has more than 4096 bytes");
    let many: Vec<_> = ["a", "b", "c"].iter().map(|name| (file(name), &b""[..])).collect();
    let error = Place::new().unpack(&archive(&many), &options).unwrap_err();
    assert_eq!(error.to_string(), "the archive has more than 2 entries");
}

#[test]
fn owners_can_be_changed() {
    let place = Place::new();
    let bytes = archive(&[(Entry { uid: 1, gid: 2, ..file("a") }, b"")]);
    let shift = UnpackOptions { ownership: Ownership::Shift { uid: 100_000, gid: 200_000 }, ..layer() };
    place.unpack(&bytes, &shift).unwrap();
    let stat = fs::metadata(place.path("a")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (100_001, 200_002));
    let fixed =
        UnpackOptions { ownership: Ownership::Fixed { uid: 7, gid: 8 }, destination: b"sub/dir", ..layer() };
    place.unpack(&bytes, &fixed).unwrap();
    assert_eq!(fs::metadata(place.path("sub/dir/a")).unwrap().uid(), 7);
}

#[test]
fn archives_of_gnu_tar_come_in() {
    let place = Place::new();
    let source = tempfile::tempdir().unwrap();
    let sparse = source.path().join("sparse");
    let mut file = fs::File::create(&sparse).unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all(b"start").unwrap();
    use std::os::unix::fs::FileExt;
    for piece in 1..30u64 {
        file.write_at(b"piece", piece * 65536).unwrap();
    }
    fs::write(source.path().join("n".repeat(150)), "long").unwrap();
    symlink("t".repeat(150), source.path().join("link")).unwrap();
    for format in ["--format=gnu", "--format=pax", "--format=oldgnu", "--format=posix"] {
        for sparse_version in ["--sparse-version=1.0", "--sparse-version=0.1"] {
            #[expect(clippy::disallowed_methods, reason = "the other implementation")]
            let output = std::process::Command::new("tar")
                .args([format, sparse_version, "--sparse", "-cf", "-", "-C"])
                .arg(source.path())
                .arg(".")
                .output()
                .unwrap();
            assert!(output.status.success());
            place.unpack(&output.stdout, &layer()).unwrap();
            assert_eq!(fs::read(place.path("sparse")).unwrap(), fs::read(&sparse).unwrap(), "{format}");
            assert!(fs::metadata(place.path("sparse")).unwrap().blocks() < 3 << 11);
            assert!(place.path(&"n".repeat(150)).exists());
            assert_eq!(fs::read_link(place.path("link")).unwrap(), Path::new(&"t".repeat(150)));
        }
    }
}

#[test]
fn gnu_tar_reads_ours() {
    let bytes = archive(&[
        (Entry::directory("d"), b""),
        (
            Entry {
                mtime: Time { seconds: -5, nanos: 250_000_000 },
                ..file(&format!("d/{}", "é".repeat(90)))
            },
            b"x",
        ),
        (Entry { uid: 3_000_000, ..file("d/big-id") }, b"yy"),
    ]);
    let place = Place::new();
    let path = place.path("a.tar");
    fs::write(&path, bytes).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the other implementation")]
    let output = std::process::Command::new("tar")
        .args(["--numeric-owner", "--warning=no-timestamp", "-xpf"])
        .arg(&path)
        .arg("-C")
        .arg(place.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::metadata(place.path("d/big-id")).unwrap().uid(), 3_000_000);
    let stat = fs::metadata(place.path(&format!("d/{}", "é".repeat(90)))).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (-5, 250_000_000));
}

#[test]
fn compression_is_found_out() {
    let plain = archive(&[(file("a"), b"hello")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let bzip2 = bzip2.finish().unwrap();
    let xz = xz(&plain, 0);
    for (bytes, compression) in [
        (&plain, Compression::None),
        (&gzip, Compression::Gzip),
        (&bzip2, Compression::Bzip2),
        (&xz, Compression::Xz),
        (&zstd, Compression::Zstd),
    ] {
        let mut decoder = Decoder::new(&bytes[..]).unwrap();
        assert_eq!(decoder.compression(), compression);
        let mut out = Vec::new();
        decoder.read_to_end(&mut out).unwrap();
        assert!(out == plain);
        let cut = Place::new().unpack_stream(&bytes[..bytes.len() / 3]);
        assert!(cut.unwrap_err().is_invalid_archive(), "{compression:?}");
    }
    for (start, name) in [(&b"LZIP\x01\x0c"[..], "lzip"), (b"\x5d\0\0\x80\0\0", "lzma")] {
        let error = Decoder::new(start).unwrap_err();
        assert_eq!(error.to_string(), format!("{name} compression is not supported yet"));
    }
}

fn xz(plain: &[u8], dictionary_bytes: u32) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    if dictionary_bytes > 0 {
        options.lzma_options.dict_size = dictionary_bytes;
    }
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

#[test]
fn xz_may_not_ask_for_all_memory() {
    let plain = archive(&[(file("a"), b"hello")]);
    let mut packed = xz(&plain, 8 << 20);
    Place::new().unpack_stream(&packed).unwrap();
    // The block header says how much: the filter's one property, and then the header's own checksum.
    let property = 12 + 4;
    packed[property] = 40;
    let checksum = crc32fast::hash(&packed[12..20]).to_le_bytes();
    packed[20..24].copy_from_slice(&checksum);
    let error = Place::new().unpack_stream(&packed).unwrap_err();
    assert!(error.is_invalid_archive(), "{error:?}");
}

impl Place {
    fn unpack_stream(&self, bytes: &[u8]) -> Result<Unpacked, Error> {
        unpack(Decoder::new(bytes)?, &self.root(), &layer())
    }
}

#[test]
fn trees_are_copied() {
    let source = Place::new();
    fs::create_dir_all(source.path("tree/sub")).unwrap();
    fs::write(source.path("tree/sub/file"), "x".repeat(300_000)).unwrap();
    symlink("/nowhere", source.path("tree/link")).unwrap();
    let directory = fs::File::open(source.path("")).unwrap();
    let place = Place::new();
    use std::os::fd::AsFd;
    let options = CopyOptions { owner: Some((9, 9)), mode: None };
    copy(directory.as_fd(), Some(c"tree"), &place.root(), b"to/here", &options).unwrap();
    assert_eq!(fs::metadata(place.path("to/here/sub/file")).unwrap().uid(), 9);
    assert_eq!(fs::metadata(place.path("to")).unwrap().uid(), 0);
    assert!(fs::read_link(place.path("to/here/link")).is_ok());
    let inner = fs::File::open(source.path("tree")).unwrap();
    copy(inner.as_fd(), None, &place.root(), b"", &CopyOptions::default()).unwrap();
    assert!(place.path("sub/file").exists());
    fs::create_dir_all(place.path("blocked/here")).unwrap();
    let error = copy(inner.as_fd(), Some(c"link"), &place.root(), b"blocked/here", &options).unwrap_err();
    assert!(error.to_string().contains("cannot overwrite directory"), "{error}");
}

#[test]
fn deep_trees_are_removed() {
    let place = Place::new();
    let mut directory: std::os::fd::OwnedFd = fs::File::open(place.path("")).unwrap().into();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&directory, "d", rustix::fs::Mode::RWXU).unwrap();
        directory = rustix::fs::openat(
            &directory,
            "d",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
    }
    drop(directory);
    let root = fs::File::open(place.path("")).unwrap();
    use std::os::fd::AsFd;
    sys::remove_tree(root.as_fd(), c"d").unwrap();
    assert!(!place.path("d").exists());
}

#[test]
fn whiteouts_keep_their_time() {
    let place = Place::new();
    let hidden = Entry { mtime: Time { seconds: 77, nanos: 0 }, ..Entry::file("d/.wh.gone", 0) };
    place.unpack(&archive(&[(hidden, b"")]), &layer()).unwrap();
    assert_eq!(place.path("d/gone").symlink_metadata().unwrap().mtime(), 77);
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let path = "[a-c.]{1,3}(/[a-c.]{1,3}){0,2}";
    let kind = prop_oneof![
        3 => Just(Kind::File),
        2 => Just(Kind::Directory),
        1 => path.prop_map(|target| Kind::Symlink(target.into_bytes())),
        1 => "(/|\\.\\./){0,4}(outside|outside/secret|a|b/c)".prop_map(|target| Kind::Symlink(target.into_bytes())),
        1 => path.prop_map(|target| Kind::HardLink(target.into_bytes())),
        1 => Just(Kind::Fifo),
    ];
    let path = prop_oneof![4 => path.boxed(), 1 => "(\\.wh\\.|a/\\.wh\\.)[a-c]{0,2}".boxed(), 1 => Just("a/.wh..wh..opq".to_owned()).boxed()];
    (path, kind, 0u32..0o10000, proptest::collection::vec(any::<u8>(), 0..700)).prop_map(
        |(path, kind, mode, content)| {
            let content = if kind == Kind::File { content } else { Vec::new() };
            (Entry { mode, kind, ..Entry::file(&path, 0) }, content)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_sequence_of_members_escapes(members in proptest::collection::vec(any_entry(), 1..14)) {
        let borrowed: Vec<(Entry, &[u8])> = members.iter().map(|(e, c)| (e.clone(), c.as_slice())).collect();
        let bytes = archive(&borrowed);
        // `Place::unpack` looks outside after each.
        for whiteouts in [Whiteouts::Literal, Whiteouts::Overlay, Whiteouts::Remove] {
            let place = Place::new();
            let _ = place.unpack(&bytes, &UnpackOptions { whiteouts, ..UnpackOptions::default() });
        }
    }

    #[test]
    fn what_was_packed_unpacks_to_the_same(members in proptest::collection::vec(any_entry(), 1..10)) {
        let borrowed: Vec<(Entry, &[u8])> = members.iter().map(|(e, c)| (e.clone(), c.as_slice())).collect();
        let place = Place::new();
        let _ = place.unpack(&archive(&borrowed), &layer());
        let options = PackOptions { overlay_upper: true, ..PackOptions::default() };
        let (first, _) = pack(&place.root(), &options, Vec::new()).unwrap();
        let other = Place::new();
        other.unpack(&first, &layer()).unwrap();
        let (second, _) = pack(&other.root(), &options, Vec::new()).unwrap();
        prop_assert!(first == second);
    }

    #[test]
    fn damaged_archives_never_panic(at in 0usize..3000, value: u8, cut in 0usize..4000) {
        let mut bytes = archive(&[
            (Entry { xattrs: vec![(b"user.a".to_vec(), vec![0; 40])], ..file(&"p/".repeat(80)) }, b"x"),
            (symlink_to("s", &"t".repeat(150)), b""),
        ]);
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(cut.max(1));
        let _ = Place::new().unpack_stream(&bytes);
    }
}
