//! `cp` between programs of one machine: large files go as descriptors, and all else is as it is for an archive.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use testkit::http::API;
use testkit::image::{Entry, layer};
use testkit::process::run;
use testkit::{Bed, BedOptions, Client};
use tests::has;

const SIZE: u64 = 64 << 20;

fn sleeper(bed: &Bed, name: &str, more: &[&str]) {
    let mut arguments = vec!["run", "-d", "--name", name];
    arguments.extend(more);
    arguments.extend(["busybox", "sleep", "100000"]);
    bed.run(&arguments).ok();
}

/// A file that is a hole but for its ends.
fn sparse(path: &Path) {
    let file = File::create(path).expect("a file");
    file.set_len(SIZE).expect("sized");
    file.write_all_at(b"begin", 0).expect("written");
    file.write_all_at(b"end", SIZE - 3).expect("written");
}

/// Kilobytes that a file occupies in a container.
fn kilobytes(bed: &Bed, container: &str, path: &str) -> u64 {
    let said = bed.run(&["exec", container, "du", "-k", path]);
    said.ok().split_ascii_whitespace().next().and_then(|text| text.parse().ok()).expect("a number")
}

fn sums(bed: &Bed, container: &str, path: &str) -> String {
    bed.run(&["exec", container, "md5sum", path]).ok().split(' ').next().expect("a sum").to_owned()
}

#[test]
fn files_keep_their_holes_and_everything_else_both_ways() {
    let bed = Bed::new();
    let here = bed.folder("here");
    sparse(&here.join("sparse"));
    let full: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(here.join("full"), &full).expect("written");
    fs::write(here.join("small"), "text").expect("written");
    std::os::unix::fs::chown(here.join("full"), Some(1234), Some(5678)).expect("owned");
    let text = here.to_str().expect("UTF-8");
    for (phase, more) in [("running", &[][..]), ("volume", &["-v", "/data"]), ("stopped", &[])] {
        sleeper(&bed, phase, more);
        if phase == "stopped" {
            bed.run(&["stop", "-t", "0", phase]).ok();
        }
        bed.run(&["cp", "-a", text, &format!("{phase}:/data")]).ok();
        let back = bed.folder(&format!("back-{phase}"));
        let target = back.to_str().expect("UTF-8");
        let inside = if phase == "volume" { "/data/here" } else { "/data" };
        bed.run(&["cp", "-a", &format!("{phase}:{inside}"), target]).ok();
        let back = back.join(inside.rsplit('/').next().expect("a name"));
        assert!(fs::read(back.join("full")).expect("read") == full, "{phase}");
        assert_eq!(fs::read_to_string(back.join("small")).expect("read"), "text");
        let owner = fs::metadata(back.join("full")).expect("there");
        assert_eq!((owner.uid(), owner.gid()), (1234, 5678), "{phase}");
        let holes = fs::metadata(back.join("sparse")).expect("there");
        assert_eq!(holes.len(), SIZE);
        assert!(holes.blocks() < 1 << 11, "{phase}: {} blocks", holes.blocks());
        let content = fs::read(back.join("sparse")).expect("read");
        assert!(content.starts_with(b"begin") && content.ends_with(b"end"), "{phase}");
        if phase == "stopped" {
            bed.run(&["start", phase]).ok();
        }
        let path = format!("{inside}/sparse");
        assert!(kilobytes(&bed, phase, &path) < 1024, "{phase}: it lost its holes on the way in");
        assert_eq!(
            bed.run(&["exec", phase, "stat", "-c", "%u:%g", &format!("{inside}/full")]).ok(),
            "1234:5678"
        );
    }
}

#[test]
fn a_daemon_elsewhere_gets_an_archive() {
    let bed = Bed::with(BedOptions {
        flags: vec!["-H".into(), "tcp://127.0.0.1:2375".into()],
        ..BedOptions::default()
    });
    bed.load(&testkit::image::busybox());
    sleeper(&bed, "one", &[]);
    let here = bed.folder("here");
    sparse(&here.join("sparse"));
    let text = here.join("sparse");
    let text = text.to_str().expect("UTF-8");
    bed.run(&["cp", text, "one:/near"]).ok();
    // The address is one of the host's.
    let program = bed.command(Client::Own).get_program().to_owned();
    let far = |arguments: &[&str]| {
        let mut command = bed.host().command(&program);
        run(command.args(["-H", "tcp://127.0.0.1:2375"]).args(arguments)).ok();
    };
    far(&["cp", text, "one:/far"]);
    assert_eq!(sums(&bed, "one", "/near"), sums(&bed, "one", "/far"));
    assert!(kilobytes(&bed, "one", "/near") < 1024);
    assert!(kilobytes(&bed, "one", "/far") > 60 << 10, "archives have no holes");
    far(&["cp", "one:/near", &format!("{text}-back")]);
    assert_eq!(fs::metadata(format!("{text}-back")).expect("there").len(), SIZE);
}

#[test]
fn what_goes_wrong_is_said_as_for_an_archive() {
    let bed = Bed::new();
    let here = bed.folder("here");
    sparse(&here.join("sparse"));
    let text = here.join("sparse");
    let text = text.to_str().expect("UTF-8");
    sleeper(&bed, "closed", &["--read-only", "--tmpfs", "/small:size=1m"]);
    for (source, target, said) in [
        (text, "closed:/gone/there", "Could not find the file /gone in container closed"),
        (text, "closed:/etc/", "container rootfs is marked read-only"),
        (text, "gone:/there", "No such container: gone"),
        ("closed:/gone", text, "Could not find the file /gone in container closed"),
    ] {
        let ran = bed.run(&["cp", source, target]);
        has(ran.fails(1), &[said]);
    }
    let full = here.join("full");
    fs::write(&full, vec![7; 4 << 20]).expect("written");
    let ran = bed.run(&["cp", full.to_str().expect("UTF-8"), "closed:/small/"]);
    has(ran.fails(1), &["No space left on device", "the disk is full"]);
    assert_eq!(bed.run(&["exec", "closed", "ls", "/small"]).ok(), "", "half a file was left");
}

/// A connection that asked for an archive's place in a container and got it.
fn switched(bed: &Bed, method: &str, path: &str) -> UnixStream {
    upgraded(bed, method, &format!("/containers/one/archive?path={path}"))
}

fn upgraded(bed: &Bed, method: &str, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(bed.socket()).expect("a connection");
    let head = format!(
        "{method} {API}{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: corten-handover\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream
}

fn send(stream: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(files.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(files)));
    let sent = sendmsg(stream, &[std::io::IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
    assert_eq!(sent.expect("sent"), bytes.len());
}

fn byte(stream: &mut UnixStream) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("a byte");
    byte[0]
}

/// An archive of one member that says that its content comes as a descriptor.
fn announcing(name: &str, size: u64) -> Vec<u8> {
    let text = format!("CORTEN.apart={size}\n");
    let length =
        (text.len() + 3..).find(|length| format!("{length} {text}").len() == *length).expect("a length");
    let records = format!("{length} {text}");
    let mut archive = layer(&[Entry::file("x", 0o644, records), Entry::file(name, 0o644, "")]);
    // The first member becomes an extended header.
    archive[156] = b'x';
    sum(&mut archive[..512]);
    archive
}

/// Writes the sum over a header's block into it.
fn sum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A connection on which a file for `load` has been announced, with these descriptors.
fn loading(bed: &Bed, size: u64, files: &[BorrowedFd<'_>]) -> UnixStream {
    let mut stream = upgraded(bed, "POST", "/images/load?quiet=1");
    assert_eq!(byte(&mut stream), b'r');
    send(&stream, b"h", &[File::open("/").expect("open").as_fd()]);
    assert_eq!(byte(&mut stream), b'd');
    send(&stream, &announcing("file", size), files);
    stream
}

fn answer(mut stream: UnixStream) -> String {
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn images_are_loaded_from_where_their_archive_lies() {
    let bed = Bed::empty();
    let folder = bed.folder("archives");
    let archive = testkit::image::busybox().archive();
    let path = testkit::image::write_archive(&folder, "busybox.tar", &archive);
    // Whoever shares the descriptor may have read of it.
    let mut file = File::open(&path).expect("open");
    file.read_exact(&mut [0; 1000]).expect("read");
    let said = answer(loading(&bed, archive.len() as u64, &[file.as_fd()]));
    has(&said, &["Loaded image: busybox:latest"]);
    assert_eq!(bed.run(&["run", "--rm", "busybox", "echo", "works"]).ok(), "works");
    bed.run(&["rmi", "busybox"]).ok();
    // What is not handed over, or no archive, is as it is without.
    fs::write(folder.join("noise"), vec![7; 100_000]).expect("written");
    let here = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    has(bed.run(&["load", "-i", &here("noise")]).fails(1), &["invalid tar header"]);
    has(bed.run(&["load", "-i", "/dev/null"]).fails(1), &["neither a manifest.json nor an index.json"]);
    has(bed.run(&["load", "-i", &here(".")]).fails(1), &["is a directory"]);
    has(bed.run(&["load", "-i", &here("gone")]).fails(1), &["no such file or directory"]);
    let (directory, writable) = (File::open("/").expect("open"), File::create(here("own")).expect("open"));
    for (odd, said) in [
        (Some(directory.as_fd()), "what came in a file's place"),
        (Some(writable.as_fd()), "what came in a file's place"),
        (None, "a file that was announced did not come"),
    ] {
        let files: Vec<BorrowedFd<'_>> = odd.into_iter().collect();
        has(&answer(loading(&bed, 100, &files)), &["errorDetail", said]);
    }
    assert_eq!(bed.run(&["images", "-aq"]).ok(), "");
    assert!(!bed.log().contains("panicked"), "{}", bed.log());
}

#[test]
fn a_load_that_nobody_waits_for_ends() {
    const LARGE: u64 = 2 << 30;
    let bed = Bed::empty();
    let path = bed.folder("archives").join("large.tar");
    // A good archive behind a large member, which is a hole.
    let mut header = layer(&[Entry::file("large", 0o644, "")]);
    header.truncate(512);
    header[124..136].copy_from_slice(format!("{LARGE:011o}\0").as_bytes());
    sum(&mut header);
    let file = File::create(&path).expect("a file");
    file.write_all_at(&header, 0).expect("written");
    file.write_all_at(&testkit::image::busybox().archive(), 512 + LARGE).expect("written");
    let file = File::open(&path).expect("open");
    let held = || {
        let open = fs::read_dir(format!("/proc/{}/fd", bed.pid())).expect("descriptors").flatten();
        open.filter_map(|one| fs::read_link(one.path()).ok()).any(|target| target.ends_with("large.tar"))
    };
    let stream = loading(&bed, 512 + LARGE, &[file.as_fd()]);
    testkit::process::eventually("it reads", held);
    drop(stream);
    testkit::process::eventually("it ends", || !held());
    assert_eq!(bed.run(&["images", "-aq"]).ok(), "", "it was loaded to its end");
}

#[test]
fn a_hostile_client_gets_an_answer_and_nothing_in() {
    let bed = Bed::new();
    sleeper(&bed, "one", &[]);
    let (directory, file) = (File::open("/").expect("open"), File::open("/etc/passwd").expect("open"));
    let writable = File::create(bed.folder("here").join("file")).expect("open");
    for (odd, said) in [
        (Some(directory.as_fd()), "what came in a file's place"),
        (Some(writable.as_fd()), "what came in a file's place"),
        (None, "a file that was announced did not come"),
    ] {
        let mut stream = switched(&bed, "PUT", "/home");
        assert_eq!(byte(&mut stream), b'r');
        send(&stream, b"h", &[file.as_fd()]);
        assert_eq!(byte(&mut stream), b'd');
        let files: Vec<BorrowedFd<'_>> = odd.into_iter().collect();
        send(&stream, &announcing("taken", 100), &files);
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("400\n") && answer.contains(said), "{answer}");
    }
    // Who goes away, says nothing, or something else, is let go.
    drop(switched(&bed, "PUT", "/home"));
    drop(switched(&bed, "GET", "/etc"));
    send(&switched(&bed, "PUT", "/home"), b"x", &[]);
    send(&switched(&bed, "GET", "/etc"), b"xx", &[]);
    // A size that is not the file's is cut or filled; a name leads nowhere else.
    let mut stream = switched(&bed, "PUT", "/home");
    assert_eq!(byte(&mut stream), b'r');
    send(&stream, b"h", &[file.as_fd()]);
    assert_eq!(byte(&mut stream), b'd');
    send(&stream, &announcing("../../home/cut", 4), &[file.as_fd()]);
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("400\n") && answer.contains("leads outside"), "{answer}");
    assert_eq!(bed.run(&["exec", "one", "ls", "/home"]).ok(), "user");
    // An ordinary archive that says so is not heard: its member is empty, as it is.
    let path = format!("{API}/containers/one/archive?path=/home");
    let sent =
        bed.http().exchange("PUT", &path, "Content-Type: application/x-tar\r\n", &announcing("plain", 100));
    assert_eq!(sent.expect("an answer").status, 200);
    assert_eq!(bed.run(&["exec", "one", "stat", "-c", "%s", "/home/plain"]).ok(), "0");
    assert!(!bed.log().contains("panicked"), "{}", bed.log());
}

/// The host's own, in a file that is large enough to go as a descriptor.
const SECRET: &str = "the host's own\n";

/// A process in the container swaps a directory for a link to the host's path, and the place of a mount for another, while
/// files of both sides go as descriptors.
#[test]
fn cve_2018_15664_and_2026_42306_links_swapped_while_descriptors_travel_lead_nowhere() {
    let bed = Bed::new();
    let (decoy, host, here) = (bed.folder("decoy"), bed.folder("host"), bed.folder("here"));
    fs::write(decoy.join("secret"), SECRET.repeat(10_000)).expect("written");
    fs::write(host.join("mounted"), "mounted\n".repeat(20_000)).expect("written");
    fs::write(here.join("secret"), "mine\n".repeat(30_000)).expect("written");
    let script = format!(
        "mkdir -p /real /a/b/mount; yes mine | head -n 30000 > /real/secret; cp -r /real /path; ln -s {} /link; touch /ready; \
         while :; do mv -T /path /aside; mv -T /link /path; mv -T /path /link; mv -T /aside /path; \
         mv -T /a/b /a/c; ln -s {} /a/b; rm /a/b; mv -T /a/c /a/b; done 2>/dev/null",
        decoy.display(),
        decoy.display()
    );
    let bind = format!("{}:/a/b/mount", host.display());
    bed.run(&["run", "-d", "--name", "swapper", "-v", &bind, "busybox", "sh", "-c", &script]).ok();
    testkit::process::eventually("it swaps", || {
        bed.http().get("/containers/swapper/archive?path=/ready").status == 200
    });
    let mounts = || fs::read_to_string(format!("/proc/{}/mountinfo", bed.pid())).expect("mounts");
    let before = mounts();
    let mut copied = 0;
    for turn in 0..40 {
        let out = bed.folder(&format!("out-{turn}"));
        let target = out.to_str().expect("UTF-8");
        let source = here.join("secret");
        bed.run(&["cp", source.to_str().expect("UTF-8"), "swapper:/path/"]);
        bed.run(&["cp", source.to_str().expect("UTF-8"), "swapper:/a/b/"]);
        for path in ["/path/secret", "/path/.", "/a/b"] {
            copied += usize::from(bed.run(&["cp", &format!("swapper:{path}"), target]).code == 0);
        }
        let found =
            std::process::Command::new("grep").args(["-rl", SECRET.trim(), target]).output().expect("grep");
        assert!(found.stdout.is_empty(), "turn {turn}: {}", String::from_utf8_lossy(&found.stdout));
        assert_eq!(mounts(), before, "a mount on the host");
        fs::remove_dir_all(out).expect("removed");
    }
    assert!(copied > 20, "{copied} copies; hardly anything was tried");
    let names: Vec<_> = fs::read_dir(&decoy).expect("folder").flatten().map(|one| one.file_name()).collect();
    assert_eq!(names, ["secret"], "something came out of the container");
    assert_eq!(fs::read_to_string(decoy.join("secret")).expect("read"), SECRET.repeat(10_000));
}
