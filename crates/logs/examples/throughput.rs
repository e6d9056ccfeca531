//! How fast logs are written from a pipe and read back: `throughput DIRECTORY [LINE_LENGTH]`.
//!
//! Prints megabytes per second: of output for writing, of log file and of output for reading.

use std::io::{Read, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use logs::{Driver, Options, Progress, Query, Reader, Render, Stream, Writer};

const TOTAL: usize = 400 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("a directory");
    let length: usize = arguments.next().map_or(100, |text| text.parse().expect("a length"));
    for driver in [Driver::JsonFile, Driver::Local] {
        let path = std::path::Path::new(&directory).join("throughput.log");
        let options = Options { driver, ..Options::json_file(&path) };
        let seconds = write(&options, length);
        let file = std::fs::metadata(&path).expect("a log").len() as f64 / 1e6;
        println!("{driver:?}: written {:.0} MB/s ({file:.0} MB of file)", TOTAL as f64 / 1e6 / seconds);
        for multiplexed in [false, true] {
            let started = Instant::now();
            let mut reader = Reader::open(&options, &Query::default()).expect("a reader");
            let mut render = Render::new(false, false, multiplexed);
            let (mut out, mut bytes) = (Vec::new(), 0);
            loop {
                let progress = reader.next_batch(&mut render, 64 << 10, &mut out).expect("records");
                bytes += out.len();
                out.clear();
                if progress == Progress::End {
                    break;
                }
            }
            let seconds = started.elapsed().as_secs_f64();
            let of_file = file / seconds;
            println!(
                "  read, multiplexed {multiplexed}: {of_file:.0} MB/s of file, {:.0} MB/s out",
                bytes as f64 / 1e6 / seconds
            );
        }
        std::fs::remove_file(&path).expect("to clean up");
    }
}

fn write(options: &Options, length: usize) -> f64 {
    let (mut output, mut input) = std::io::pipe().expect("a pipe");
    let mut line = vec![b'x'; length - 1];
    line.push(b'\n');
    let block: Vec<u8> = line.repeat((64 << 10) / length + 1);
    let feeder = std::thread::spawn(move || {
        let mut rest = TOTAL;
        while rest > 0 {
            let count = rest.min(block.len());
            input.write_all(&block[..count]).expect("to write");
            rest -= count;
        }
    });
    let mut writer = Writer::open(options.clone()).expect("a writer");
    let mut buffer = vec![0; 64 << 10];
    let started = Instant::now();
    loop {
        let count = output.read(&mut buffer).expect("to read");
        if count == 0 {
            break;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as i64;
        writer.write(Stream::Stdout, &buffer[..count], now).expect("to log");
    }
    let seconds = started.elapsed().as_secs_f64();
    feeder.join().expect("the feeder");
    seconds
}
