//! Archives of layers: nothing panics, nothing gets out of the root, and the reader and the unpacking agree.
#![no_main]

use std::fs;
use std::io::Read;

use archive::{Decoder, Limits, Reader, Root, UnpackOptions, Whiteouts, unpack};
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;
/// Bytes that an archive may unpack to here.
const BYTES_MAX: u64 = 1 << 20;

/// Makes checksums right, which chance would never find: of each header and of those behind the content that it names.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = block[124..136].iter().filter(|byte| matches!(byte, b'0'..=b'7'));
        let size = size.fold(0usize, |size, digit| (size << 3 | usize::from(digit - b'0')) & 0xf_ffff);
        at += size.next_multiple_of(BLOCK);
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let whole = if how & 1 == 0 { with_checksums(bytes) } else { bytes.to_vec() };
    if how & 2 != 0 {
        if let Ok(decoder) = Decoder::new(whole.as_slice()) {
            let _ = std::io::copy(&mut decoder.take(BYTES_MAX), &mut std::io::sink());
        }
        return;
    }
    let mut reader = Reader::with_limit(whole.as_slice(), BYTES_MAX);
    while let Ok(Some(_)) = reader.next_entry() {}
    let place = tempfile::tempdir().expect("a directory");
    let (inside, outside) = (place.path().join("root"), place.path().join("outside"));
    for directory in [&inside, &outside] {
        fs::create_dir(directory).expect("a directory");
    }
    fs::write(outside.join("secret"), "untouched").expect("a file");
    let whiteouts = match how >> 2 & 3 {
        0 => Whiteouts::Literal,
        1 => Whiteouts::Remove,
        _ => Whiteouts::Overlay,
    };
    let limits = Limits { bytes: BYTES_MAX, entries: 64 };
    let root = Root::open_path(&inside).expect("the root");
    let _ = unpack(whole.as_slice(), &root, &UnpackOptions { whiteouts, limits, ..UnpackOptions::default() });
    assert_eq!(fs::read_dir(&outside).expect("a listing").count(), 1, "something was made outside");
    assert_eq!(fs::read(outside.join("secret")).expect("a file"), b"untouched");
    assert_eq!(fs::read_dir(place.path()).expect("a listing").count(), 2, "something was made outside");
});
