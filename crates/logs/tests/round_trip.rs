//! What is written is read: any bytes, in any pieces, through rotation, compression, cuts and while following.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

use logs::{Driver, LINE_MAX, Options, Progress, Query, Reader, Render, Stream, Writer, compress};
use proptest::prelude::*;
use tempfile::TempDir;

const DRIVERS: [Driver; 2] = [Driver::JsonFile, Driver::Local];

fn options(directory: &TempDir, driver: Driver) -> Options {
    Options { driver, ..Options::json_file(directory.path().join("log")) }
}

type Read = (i64, Stream, bool, Vec<u8>);

fn drain(reader: &mut Reader) -> Vec<Read> {
    let mut records = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        records.push((record.time, record.stream, record.partial, record.line.to_vec()));
    }
    records
}

fn read(options: &Options, query: &Query) -> Vec<Read> {
    drain(&mut Reader::open(options, query).unwrap())
}

fn lines(options: &Options, query: &Query) -> Vec<String> {
    read(options, query).into_iter().map(|record| String::from_utf8(record.3).unwrap()).collect()
}

/// Runs what the writer wants done, as the shim has it done by another process.
fn compress_all(writer: &mut Writer) {
    while let Some(work) = writer.compression_wanted() {
        compress(work).unwrap();
        writer.compression_ended(true).unwrap();
    }
}

fn numbered(writer: &mut Writer, numbers: std::ops::Range<usize>) {
    for number in numbers {
        writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), number as i64 * 1000).unwrap();
    }
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("line {number}\n")).collect()
}

#[test]
fn a_line_in_pieces_is_one_record() {
    for driver in DRIVERS {
        let directory = TempDir::new().unwrap();
        let options = options(&directory, driver);
        let mut writer = Writer::open(options.clone()).unwrap();
        for piece in ["he", "", "llo\nwor", "ld\n\nend"] {
            writer.write(Stream::Stdout, piece.as_bytes(), 5).unwrap();
        }
        writer.write(Stream::Stderr, b"other\n", 5).unwrap();
        assert_eq!(lines(&options, &Query::default()), ["hello\n", "world\n", "\n", "other\n"]);
        writer.finish(Stream::Stdout, 6).unwrap();
        let last = read(&options, &Query::default()).pop().unwrap();
        assert_eq!(last, (9, Stream::Stdout, true, b"end".to_vec()));
    }
}

#[test]
fn long_lines_become_parts() {
    for driver in DRIVERS {
        let directory = TempDir::new().unwrap();
        let options = options(&directory, driver);
        let mut writer = Writer::open(options.clone()).unwrap();
        let mut line = "x".repeat(2 * LINE_MAX + 10);
        line.push('\n');
        writer.write(Stream::Stdout, line.as_bytes(), 1).unwrap();
        // A character across the boundary stays whole.
        line = "x".repeat(LINE_MAX - 2) + "€\n";
        writer.write(Stream::Stdout, line.as_bytes(), 2).unwrap();
        let records = read(&options, &Query::default());
        let shape: Vec<(usize, bool)> = records.iter().map(|record| (record.3.len(), record.2)).collect();
        assert_eq!(
            shape,
            [(LINE_MAX, true), (LINE_MAX, true), (11, false), (LINE_MAX - 2, true), (4, false)]
        );
        // Parts share their line's time.
        assert_eq!([records[0].0, records[1].0, records[2].0], [1; 3]);
    }
}

#[test]
fn attributes_are_in_every_record() {
    let directory = TempDir::new().unwrap();
    let mut options = options(&directory, Driver::JsonFile);
    options.attributes = BTreeMap::from([("tag".into(), "a b".into()), ("env".into(), "\"x\"".into())]);
    let mut writer = Writer::open(options.clone()).unwrap();
    writer.write(Stream::Stdout, b"hi\n", 0).unwrap();
    let text = fs::read_to_string(&options.path).unwrap();
    assert_eq!(
        text,
        "{\"log\":\"hi\\n\",\"stream\":\"stdout\",\"attrs\":{\"env\":\"\\\"x\\\"\",\"tag\":\"a b\"},\
         \"time\":\"1970-01-01T00:00:00Z\"}\n"
    );
    let mut reader = Reader::open(&options, &Query::default()).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().attributes(), options.attributes);
}

#[test]
fn queries_choose_records() {
    for driver in DRIVERS {
        let directory = TempDir::new().unwrap();
        let options = options(&directory, driver);
        let mut writer = Writer::open(options.clone()).unwrap();
        numbered(&mut writer, 0..1000);
        writer.write(Stream::Stderr, b"oops\n", 1_000_000).unwrap();
        let all = Query::default();
        let of = |query| lines(&options, &query);
        assert_eq!(of(Query { stderr: false, ..all }), expected(0..1000));
        assert_eq!(of(Query { stdout: false, ..all }), ["oops\n"]);
        assert_eq!(of(Query { since: Some(997_000), stderr: false, ..all }), expected(997..1000));
        assert_eq!(of(Query { since: Some(3000), until: Some(5000), ..all }), expected(3..6));
        assert_eq!(of(Query { tail: Some(3), stderr: false, ..all }), expected(998..1000));
        assert_eq!(of(Query { tail: Some(0), ..all }), [""; 0]);
        assert_eq!(of(Query { tail: Some(1001), stderr: false, ..all }), expected(0..1000));
        assert_eq!(of(Query { tail: Some(5000), stderr: false, ..all }), expected(0..1000));
    }
}

#[test]
fn rotated_and_compressed_files_are_one_log() {
    for driver in DRIVERS {
        for compressed in [false, true] {
            let directory = TempDir::new().unwrap();
            let options = Options {
                size_max: Some(2000),
                files_max: 4,
                compress: compressed,
                ..options(&directory, driver)
            };
            let mut writer = Writer::open(options.clone()).unwrap();
            for start in (0..300).step_by(10) {
                numbered(&mut writer, start..start + 10);
                compress_all(&mut writer);
            }
            let all = lines(&options, &Query::default());
            let first = 300 - all.len();
            assert!(first > 50 && first < 290, "{first}");
            assert_eq!(all, expected(first..300));
            for tail in 0..all.len() {
                let query = Query { tail: Some(tail as u64), ..Query::default() };
                assert_eq!(lines(&options, &query), expected(300 - tail..300), "tail {tail}");
            }
            let mut names: Vec<String> = fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            let suffix = if compressed { ".gz" } else { "" };
            let rotated = (1..4).map(|index| format!("log.{index}{suffix}"));
            assert_eq!(names, std::iter::once("log".into()).chain(rotated).collect::<Vec<String>>());
            for index in 0..4 {
                let name = if index == 0 { "log".into() } else { format!("log.{index}{suffix}") };
                assert!(fs::metadata(directory.path().join(name)).unwrap().len() <= 2000);
            }
        }
    }
}

#[test]
fn a_file_that_moves_on_while_it_is_compressed_finds_its_place() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        size_max: Some(1000),
        files_max: 4,
        compress: true,
        ..options(&directory, Driver::JsonFile)
    };
    let mut writer = Writer::open(options.clone()).unwrap();
    numbered(&mut writer, 0..15);
    let work = writer.compression_wanted().unwrap();
    assert!(writer.compression_wanted().is_none());
    numbered(&mut writer, 15..30);
    compress(work).unwrap();
    writer.compression_ended(true).unwrap();
    assert!(directory.path().join("log.2.gz").exists() && !directory.path().join("log.2").exists());
    compress_all(&mut writer);
    assert!(directory.path().join("log.1.gz").exists());
    assert_eq!(lines(&options, &Query::default()), expected(0..30));
    // And if it moved off the end, the copy goes with it.
    numbered(&mut writer, 30..45);
    let work = writer.compression_wanted().unwrap();
    let target = work.target.clone();
    numbered(&mut writer, 45..100);
    // It has seen that nobody wants it any more.
    compress(work).unwrap_err();
    assert!(target.exists());
    writer.compression_ended(false).unwrap();
    assert!(!target.exists());
    // Those that are left have their turn without another rotation.
    compress_all(&mut writer);
    assert!(directory.path().join("log.1.gz").exists());
    let all = lines(&options, &Query::default());
    assert_eq!(all, expected(100 - all.len()..100));
}

#[test]
fn one_file_starts_over() {
    let directory = TempDir::new().unwrap();
    let options = Options { size_max: Some(1000), ..options(&directory, Driver::JsonFile) };
    let mut writer = Writer::open(options.clone()).unwrap();
    let mut follower = Reader::open(&options, &Query { follow: true, ..Query::default() }).unwrap();
    let mut followed = Vec::new();
    for start in (0..100).step_by(5) {
        numbered(&mut writer, start..start + 5);
        followed.extend(drain(&mut follower).into_iter().map(|record| String::from_utf8(record.3).unwrap()));
    }
    assert_eq!(followed, expected(0..100));
    let all = lines(&options, &Query::default());
    assert_eq!(all, expected(100 - all.len()..100));
    assert!(all.len() < 20);
}

#[test]
fn followers_go_with_rotation_even_if_they_sleep() {
    for driver in DRIVERS {
        for (compressed, pause) in [(false, 1), (false, 17), (true, 1), (true, 17)] {
            let directory = TempDir::new().unwrap();
            let options = Options {
                size_max: Some(1000),
                files_max: 10,
                compress: compressed,
                ..options(&directory, driver)
            };
            // Before there is any file.
            let mut follower = Reader::open(&options, &Query { follow: true, ..Query::default() }).unwrap();
            assert_eq!(drain(&mut follower), []);
            let mut writer = Writer::open(options.clone()).unwrap();
            let mut followed = Vec::new();
            for start in 0..200 {
                numbered(&mut writer, start..start + 1);
                compress_all(&mut writer);
                if start % pause == 0 {
                    followed.extend(drain(&mut follower));
                }
            }
            followed.extend(drain(&mut follower));
            let followed: Vec<String> =
                followed.into_iter().map(|record| String::from_utf8(record.3).unwrap()).collect();
            assert_eq!(followed, expected(0..200), "{driver:?} compressed {compressed} pause {pause}");
        }
    }
}

#[test]
fn a_clock_that_is_set_back_is_followed_and_loses_nobody() {
    for driver in DRIVERS {
        let directory = TempDir::new().unwrap();
        let options =
            Options { size_max: Some(1000), files_max: 50, compress: true, ..options(&directory, driver) };
        let mut writer = Writer::open(options.clone()).unwrap();
        let mut follower = Reader::open(&options, &Query { follow: true, ..Query::default() }).unwrap();
        let (mut times, mut followed) = (Vec::new(), Vec::new());
        for index in 0..100_i64 {
            // Back by a nanosecond each time, and every ten lines by an hour.
            let now = 1_000_000_000_000_000_000 - index / 10 * 3_600_000_000_000 - index;
            writer.write(Stream::Stdout, format!("line {index}\n").as_bytes(), now).unwrap();
            compress_all(&mut writer);
            if index % 7 == 0 {
                followed.extend(drain(&mut follower));
            }
            times.push(now);
        }
        followed.extend(drain(&mut follower));
        assert_eq!(read(&options, &Query::default()), followed);
        for (index, (time, _, _, line)) in followed.iter().enumerate() {
            assert_eq!(line, format!("line {index}\n").as_bytes());
            assert!((time - times[index]).abs() < 1000, "{driver:?} {index}");
        }
        assert_eq!(followed.len(), 100);
    }
}

/// Options of a log whose records are counted.
fn counted(directory: &TempDir, size_max: u64, files_max: u32, compress: bool) -> Options {
    let size_max = Some(size_max);
    Options { size_max, files_max, compress, numbered: true, ..options(directory, Driver::Local) }
}

fn numbers_of(reader: &mut Reader) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        assert_eq!(record.line, format!("line {}\n", record.number - 1).as_bytes());
        numbers.push(record.number);
    }
    numbers
}

#[test]
fn counted_records_are_found_by_their_number() {
    for compressed in [false, true] {
        let directory = TempDir::new().unwrap();
        let options = counted(&directory, 1000, 5, compressed);
        assert_eq!(logs::last_number(&options).unwrap(), 0);
        // Each part by a writer of its own: numbers go on.
        for part in 0..10 {
            let mut writer = Writer::open(options.clone()).unwrap();
            numbered(&mut writer, part * 30..part * 30 + 30);
            compress_all(&mut writer);
            assert_eq!(logs::last_number(&options).unwrap(), part as u64 * 30 + 30);
        }
        let from = |after: u64| {
            let query = Query { after: Some(after), follow: true, ..Query::default() };
            numbers_of(&mut Reader::open(&options, &query).unwrap())
        };
        let oldest = from(0)[0];
        assert!(oldest > 1 && from(0) == (oldest..=300).collect::<Vec<_>>(), "compressed {compressed}");
        for after in oldest - 1..=300 {
            assert_eq!(from(after), (after + 1..=300).collect::<Vec<_>>());
        }
    }
}

#[test]
fn parts_know_their_line_wherever_they_stand() {
    let directory = TempDir::new().unwrap();
    let options = counted(&directory, 1_000_000, 2, false);
    let mut writer = Writer::open(options.clone()).unwrap();
    let text = format!("short\n{}\nend\n", "x".repeat(2 * LINE_MAX + 5));
    writer.write(Stream::Stdout, text.as_bytes(), 1).unwrap();
    let mut reader = Reader::open(&options, &Query::default()).unwrap();
    let mut parts = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        parts.push(record.part().map(|part| (part.id.to_vec(), part.ordinal, part.last)));
    }
    let id = parts[1].clone().expect("a part").0;
    let part = |ordinal, last| Some((id.clone(), ordinal, last));
    assert_eq!(parts, [None, part(1, false), part(2, false), part(3, true), None]);
    assert_eq!(id.len(), 16);
}

#[test]
fn a_cursor_is_never_ahead_of_its_log() {
    let directory = TempDir::new().unwrap();
    let options = counted(&directory, 1000, 5, false);
    let mut writer = Writer::open(options.clone()).unwrap();
    numbered(&mut writer, 0..10);
    let path = directory.path().join("cursor");
    let mut cursor = logs::Cursor::open(&path).unwrap();
    assert_eq!(cursor.number(), 0);
    cursor.set(7).unwrap();
    let mut cursor = logs::Cursor::open(&path).unwrap();
    cursor.rewind(&options).unwrap();
    assert_eq!(cursor.number(), 7);
    // A loss of power took the log's end.
    let whole = fs::read(&options.path).unwrap();
    fs::write(&options.path, &whole[..whole.len() / 2]).unwrap();
    drop(Writer::open(options.clone()).unwrap());
    cursor.rewind(&options).unwrap();
    let last = logs::last_number(&options).unwrap();
    assert!(last > 0 && last < 7 && cursor.number() == last);
    assert_eq!(logs::Cursor::open(&path).unwrap().number(), last);
    fs::write(&path, "odd").unwrap();
    assert_eq!(logs::Cursor::open(&path).unwrap().number(), 0);
}

#[test]
fn followers_are_notified() {
    let directory = TempDir::new().unwrap();
    let options = options(&directory, Driver::JsonFile);
    let mut writer = Writer::open(options.clone()).unwrap();
    let query = Query { follow: true, tail: Some(0), ..Query::default() };
    let mut follower = Reader::open(&options, &query).unwrap();
    let ready = |follower: &Reader, milliseconds: i64| {
        let descriptor = follower.notifications().unwrap();
        let mut set = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        rustix::event::poll(&mut set, Some(&timeout)).unwrap() == 1
    };
    follower.clear_notifications();
    let (mut render, mut out) = (Render::new(false, false, false), Vec::new());
    assert_eq!(follower.next_batch(&mut render, 1000, &mut out).unwrap(), Progress::Idle);
    assert!(!ready(&follower, 0));
    writer.write(Stream::Stdout, b"news\n", 1).unwrap();
    assert!(ready(&follower, 900));
    follower.clear_notifications();
    assert_eq!(follower.next_batch(&mut render, 1000, &mut out).unwrap(), Progress::Idle);
    assert_eq!(out, b"news\n");
    assert!(!ready(&follower, 0));
}

#[test]
fn emptying_the_file_by_hand_is_noticed() {
    let directory = TempDir::new().unwrap();
    let options = options(&directory, Driver::JsonFile);
    let mut writer = Writer::open(options.clone()).unwrap();
    let mut follower = Reader::open(&options, &Query { follow: true, ..Query::default() }).unwrap();
    numbered(&mut writer, 0..10);
    assert_eq!(drain(&mut follower).len(), 10);
    fs::File::options().write(true).open(&options.path).unwrap().set_len(0).unwrap();
    assert_eq!(drain(&mut follower).len(), 0);
    numbered(&mut writer, 10..12);
    assert_eq!(drain(&mut follower).len(), 2);
}

#[test]
fn records_of_monstrous_length_are_skipped() {
    for driver in DRIVERS {
        let directory = TempDir::new().unwrap();
        let options = options(&directory, driver);
        let mut writer = Writer::open(options.clone()).unwrap();
        numbered(&mut writer, 0..1);
        let mut text = fs::read(&options.path).unwrap();
        let whole = text.clone();
        match driver {
            Driver::JsonFile => {
                text.extend(vec![b'x'; 3 << 20]);
                text.push(b'\n');
                text.extend_from_slice(&whole);
            }
            Driver::Local => text.extend_from_slice(&[0xff; 100]),
        }
        fs::write(&options.path, &text).unwrap();
        let count = if driver == Driver::JsonFile { 2 } else { 1 };
        assert_eq!(lines(&options, &Query::default()), vec!["line 0\n"; count]);
    }
}

#[test]
fn a_writer_makes_the_last_crash_harmless() {
    for driver in DRIVERS {
        let directory = TempDir::new().unwrap();
        let options = options(&directory, driver);
        let mut writer = Writer::open(options.clone()).unwrap();
        numbered(&mut writer, 0..3);
        let whole = fs::read(&options.path).unwrap();
        for cut in 1..40 {
            fs::write(&options.path, &whole[..whole.len() - cut]).unwrap();
            let mut writer = Writer::open(options.clone()).unwrap();
            writer.write(Stream::Stdout, b"after\n", 9000).unwrap();
            let read = lines(&options, &Query::default());
            let whole = expected(0..3);
            assert_eq!(read.last().unwrap(), "after\n", "{driver:?} {cut}");
            assert_eq!(read[..read.len() - 1], whole[..read.len() - 1], "{driver:?} {cut}");
        }
    }
}

fn output() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    let byte = prop_oneof![3 => Just(b'a'), 1 => Just(b'\n'), 1 => any::<u8>()];
    let short = proptest::collection::vec(byte, 0..80);
    let long = (0..3 * LINE_MAX).prop_map(|length| vec![b'z'; length]);
    let piece = prop_oneof![20 => short, 1 => long];
    proptest::collection::vec((any::<bool>(), piece), 0..40)
}

fn record(options: &Options, output: &[(bool, Vec<u8>)]) -> [Vec<u8>; 2] {
    let mut writer = Writer::open(options.clone()).unwrap();
    let mut streams = [Vec::new(), Vec::new()];
    for (index, (stderr, bytes)) in output.iter().enumerate() {
        let stream = if *stderr { Stream::Stderr } else { Stream::Stdout };
        writer.write(stream, bytes, index as i64).unwrap();
        streams[usize::from(*stderr)].extend_from_slice(bytes);
    }
    writer.finish(Stream::Stdout, 100).unwrap();
    writer.finish(Stream::Stderr, 100).unwrap();
    streams
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_local_driver_keeps_every_byte(output in output(), size_max in proptest::option::of(100..5000u64)) {
        let directory = TempDir::new().unwrap();
        let options = Options { size_max, files_max: 100_000, ..options(&directory, Driver::Local) };
        let written = record(&options, &output);
        let mut streams = [Vec::new(), Vec::new()];
        for (_, stream, partial, line) in read(&options, &Query::default()) {
            prop_assert_eq!(partial, line.last() != Some(&b'\n'));
            streams[stream as usize].extend(line);
        }
        prop_assert_eq!(streams, written);
    }

    #[test]
    fn the_json_driver_keeps_all_text(output in output()) {
        let directory = TempDir::new().unwrap();
        let options = options(&directory, Driver::JsonFile);
        let written = record(&options, &output);
        let mut streams = [Vec::new(), Vec::new()];
        for (_, stream, _, line) in read(&options, &Query::default()) {
            streams[stream as usize].extend(line);
        }
        for (read, written) in streams.iter().zip(&written) {
            let mut expected = Vec::new();
            for chunk in written.utf8_chunks() {
                expected.extend_from_slice(chunk.valid().as_bytes());
                expected.extend(chunk.invalid().iter().flat_map(|_| "\u{fffd}".bytes()));
            }
            prop_assert_eq!(read, &expected);
        }
    }

    #[test]
    fn a_cut_or_damaged_file_still_gives_its_whole_records(
        local in any::<bool>(), cut in 0.0..1.0f64, damage in proptest::option::of((0.0..1.0f64, any::<u8>())),
    ) {
        let directory = TempDir::new().unwrap();
        let options = options(&directory, if local { Driver::Local } else { Driver::JsonFile });
        let mut writer = Writer::open(options.clone()).unwrap();
        numbered(&mut writer, 0..50);
        let file = fs::File::options().write(true).open(&options.path).unwrap();
        let length = file.metadata().unwrap().len();
        let at = (length as f64 * cut) as u64;
        file.set_len(at).unwrap();
        let whole = (at * 50 / length) as usize;
        match damage {
            None => {
                let all = lines(&options, &Query::default());
                prop_assert!(all.len() + 6 >= whole);
                prop_assert_eq!(&all, &expected(0..all.len()));
            }
            Some((place, byte)) if at > 0 => {
                file.write_all_at(&[byte], (at as f64 * place) as u64).unwrap();
                read(&options, &Query::default());
                read(&options, &Query { tail: Some(7), ..Query::default() });
            }
            Some(_) => {}
        }
    }
}
