//! Gzip on all cores: the stream is cut into blocks that are compressed side by side and put together as one member,
//! which any reader takes. The same stream gives the same bytes, whatever the number of threads.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use flate2::{Compress, Compression, FlushCompress, Status};

/// Bytes that are compressed at once. More would hardly compress better, and take more memory: several layers may be
/// compressed side by side.
const BLOCK_BYTES: usize = 256 << 10;
const LEVEL: u32 = 6;
/// No name, no time, "unknown" system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block.
const END: [u8; 2] = [3, 0];

struct Block {
    number: u64,
    bytes: Vec<u8>,
}

struct Packed {
    number: u64,
    bytes: Vec<u8>,
    crc: crc32fast::Hasher,
    length: u64,
}

/// Compresses a stream with so many threads. `emit` gets the pieces in order; its error ends the work.
pub fn gzip(
    stream: impl Read + Send,
    threads: usize,
    mut emit: impl FnMut(Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let threads = threads.max(1);
    emit(HEADER.to_vec())?;
    let (blocks, todo) = sync_channel::<Block>(threads);
    let (done, packed) = sync_channel::<Packed>(threads);
    let todo = Mutex::new(todo);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read_blocks(stream, &blocks));
        for _ in 0..threads {
            let (todo, done) = (&todo, done.clone());
            scope.spawn(move || work(todo, &done));
        }
        drop(done);
        let outcome = collect(&packed, &mut emit);
        drop(packed);
        // Whoever still waits for a taker finds none and ends.
        while outcome.is_err() && next(&todo).is_some() {}
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (crc, length) = outcome?;
        read?;
        let mut trailer = END.to_vec();
        trailer.extend_from_slice(&crc.finalize().to_le_bytes());
        // The format keeps the length modulo 2^32.
        trailer.extend_from_slice(&((length & 0xffff_ffff) as u32).to_le_bytes());
        emit(trailer)
    })
}

fn read_blocks(mut stream: impl Read, blocks: &SyncSender<Block>) -> io::Result<()> {
    for number in 0.. {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        stream.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() || blocks.send(Block { number, bytes }).is_err() {
            break;
        }
    }
    Ok(())
}

fn next(todo: &Mutex<Receiver<Block>>) -> Option<Block> {
    todo.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn work(todo: &Mutex<Receiver<Block>>, done: &SyncSender<Packed>) {
    while let Some(Block { number, bytes }) = next(todo) {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes);
        let packed = Packed { number, bytes: deflate(&bytes), crc, length: bytes.len() as u64 };
        if done.send(packed).is_err() {
            return;
        }
    }
}

/// A block that others may follow.
fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::new(LEVEL), false);
    let mut out = Vec::with_capacity(bytes.len() / 2 + 1024);
    loop {
        let read = usize::try_from(compress.total_in()).unwrap_or(bytes.len());
        let status = compress.compress_vec(&bytes[read..], &mut out, FlushCompress::Sync);
        let room = out.capacity() - out.len();
        match status {
            // There was room left: everything is out.
            Ok(Status::Ok | Status::StreamEnd) if room > 0 && compress.total_in() == bytes.len() as u64 => {
                return out;
            }
            Ok(Status::BufError) if room > 0 => return out,
            _ => out.reserve(64 << 10),
        }
    }
}

fn collect(
    packed: &Receiver<Packed>,
    emit: &mut impl FnMut(Vec<u8>) -> io::Result<()>,
) -> io::Result<(crc32fast::Hasher, u64)> {
    let mut early = BTreeMap::new();
    let (mut number, mut length, mut crc) = (0, 0, crc32fast::Hasher::new());
    for one in packed {
        early.insert(one.number, one);
        while let Some(one) = early.remove(&number) {
            emit(one.bytes)?;
            crc.combine(&one.crc);
            length += one.length;
            number += 1;
        }
    }
    Ok((crc, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(bytes: &[u8], threads: usize) -> Vec<u8> {
        let mut out = Vec::new();
        gzip(bytes, threads, |piece| {
            out.extend(piece);
            Ok(())
        })
        .unwrap();
        out
    }

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // One member, and nothing behind it.
        let mut decoder = flate2::bufread::GzDecoder::new(bytes);
        decoder.read_to_end(&mut out).unwrap();
        assert!(decoder.into_inner().is_empty());
        out
    }

    #[test]
    fn large_streams_come_back_and_threads_change_nothing() {
        let mut state = 1u32;
        let bytes: Vec<u8> = (0..5_300_000)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 3_000_000 < 1_500_000 { (state >> 24) as u8 } else { (at / 100) as u8 }
            })
            .collect();
        let one = packed(&bytes, 1);
        assert!(one == packed(&bytes, 4));
        assert!(unpacked(&one) == bytes);
    }

    #[test]
    fn errors_end_it() {
        let refuse = |_| Err(io::ErrorKind::BrokenPipe.into());
        assert!(gzip(io::repeat(1), 3, refuse).is_err());
        let mut count = 0;
        let late = gzip(io::repeat(1).take(50 << 20), 3, |_| {
            count += 1;
            if count == 5 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        });
        assert!(late.is_err());
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        assert!(gzip((&[1u8; 9][..]).chain(Broken), 2, |_| Ok(())).is_err());
    }

    proptest! {
        #[test]
        fn small_streams_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..400), threads in 1usize..4) {
            prop_assert_eq!(unpacked(&packed(&bytes, threads)), bytes);
        }
    }
}
